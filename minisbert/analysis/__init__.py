"""What vectors tell about texts, and what is learned from them, on vectors that stay as they are.

To be read in this order: ``calibration.py`` (how unusual is a similarity?), ``explain.py`` (which words made it?),
``clusters.py`` (clusters and their names), ``maps.py`` (2-D maps), ``classifier.py`` (text classes), ``tagging.py``,
``word_vectors.py``, ``entities.py`` (names).
scikit-learn and matplotlib (extra ``apps``) are imported where they are used. The function ``explain`` hides the module
of its name: ``from minisbert.analysis.explain import Explanation``.
"""

from minisbert.analysis.calibration import Calibration, fit
from minisbert.analysis.classifier import TextClassifier, train_classifier
from minisbert.analysis.clusters import cluster, name_clusters
from minisbert.analysis.entities import EntityTagger, train_tagger
from minisbert.analysis.explain import explain
from minisbert.analysis.maps import draw_map, project, write_map_page

__all__ = [
    "Calibration",
    "EntityTagger",
    "TextClassifier",
    "cluster",
    "draw_map",
    "explain",
    "fit",
    "name_clusters",
    "project",
    "train_classifier",
    "train_tagger",
    "write_map_page",
]
