"""Pictures in one style, for notebooks and files: matrices, attention heads, vectors in the plane, curves, bars.

Each is a function ``draw(stream, ...)`` that writes a PNG; ``picture(draw, ...)`` keeps it in memory, and Jupyter shows
it, with its title and caption as the alternative text. ``where_we_are(3)`` is such a picture already: the stations of a
text through the model, with the marks of notebook 3 of the course. matplotlib (extra ``plots`` or ``notebooks``) is
imported when something is drawn.

Pictures stay readable in black and white and for colour-blind readers: lightness shows values, dashes and marks
distinguish lines, shapes distinguish groups, and names stand next to what they name. Labels do not overlap; one that
finds no room is left out, and the caption says so. Text in any script is drawn as it is, ``$`` and ``_`` too.
"""

from minisbert.plots.charts import bars, curves
from minisbert.plots.heat import attention_heads, heat_map, similarity_matrix
from minisbert.plots.plane import vectors_in_plane
from minisbert.plots.stations import where_we_are
from minisbert.plots.style import picture

__all__ = [
    "attention_heads",
    "bars",
    "curves",
    "heat_map",
    "picture",
    "similarity_matrix",
    "vectors_in_plane",
    "where_we_are",
]
