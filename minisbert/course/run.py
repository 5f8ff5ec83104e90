"""Execute the notebooks, and see that their outputs are true: ``python -m minisbert.course.run notebooks/*.ipynb``.

Nothing is written, and every difference from the file is listed: a cell that raises, a stale output, another picture.
Only ``--in-place`` writes fresh outputs into the file, and not where exercises are filled in: that is a student's.
Words may not differ; small numbers in scientific notation (rounding errors) may, by a factor of ten, and other
numbers in their fourth digit, because processors round differently. Cells tagged ``varies``, such as timings, may
print anything. A cell tagged ``picture-NAME`` exports its picture to ``pictures/NAME.png`` beside the notebook.
"""

from __future__ import annotations

import ast
import base64
import io
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert.course.answers import is_blank
from minisbert.course.student import answer_cells
from minisbert.files import written_whole

__all__ = ["differences", "execute", "normalized", "tagged_pictures"]

INSTALL = "pip install -e '.[notebooks]'"
SECONDS = 300  # for one cell, on a slow machine
_NUMBER = re.compile(r"[-\u2212]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")
_TINY = 1e-3  # below it a number in scientific notation is a rounding error
_TINY_FACTOR, _RELATIVE = 10.0, 2e-3
_PICTURE = 12.0  # mean difference in grey levels (0 to 255) that another version of a library may make


def execute(file: Path) -> Any:
    """Run all cells of a notebook in its own folder; ValueError if Jupyter is not installed, or a cell raises."""
    if find_spec("nbclient") is None or find_spec("ipykernel") is None:
        raise ValueError(f"running notebooks needs Jupyter: {INSTALL}")
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(file, as_version=4)
    place = {"metadata": {"path": str(file.parent)}}
    client = NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", coalesce_streams=True, resources=place)
    try:
        client.execute()
    except CellExecutionError as error:
        raise ValueError(f"{file}: a cell raises {error.ename}: {error.evalue}") from None
    return normalized(notebook)


def normalized(notebook: Any) -> Any:
    """Drop what differs from run to run without meaning anything; changes the notebook in place.

    >>> normalized({"cells": [], "metadata": {"kernelspec": {"name": "python3"}, "widgets": {}}})["metadata"]
    {'kernelspec': {'name': 'python3'}, 'language_info': {'name': 'python'}}
    """
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    kernel = notebook["metadata"].get("kernelspec", python)
    notebook["metadata"] = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        for output in cell.get("outputs", []):
            if "<iframe" in "".join(output.get("data", {}).get("text/html", "")):
                del output["data"]["text/html"]  # a page of a megabyte: it is there where the notebook runs
    return notebook


def differences(old: Any, new: Any) -> list[str]:
    """List the cells whose stored output differs from the one just executed.

    >>> def cell(text):
    ...     printed = {"output_type": "stream", "name": "stdout", "text": text}
    ...     return {"cells": [{"cell_type": "code", "source": "", "metadata": {}, "outputs": [printed]}]}
    >>> differences(cell("error 1.2e-07, score 82.03"), cell("error 3.1e-07, score 82.03"))
    []
    >>> differences(cell("score 82.03"), cell("score 81.03"))
    ["cell 1: 'score 82.03' is stored, 'score 81.03' comes out now"]
    """
    found = []
    for number, (a, b) in enumerate(zip(old["cells"], new["cells"], strict=True), 1):
        if a["cell_type"] != "code" or "varies" in a["metadata"].get("tags", []):
            continue
        texts = [[_text(output) for output in cell["outputs"]] for cell in (a, b)]
        if len(texts[0]) != len(texts[1]):
            found.append(f"cell {number}: {len(texts[0])} outputs are stored, {len(texts[1])} come out now")
            continue
        for before, now in zip(*texts, strict=True):
            lines = [text.rstrip().splitlines() for text in (before, now)]
            pairs = zip(*lines, strict=False) if len(lines[0]) == len(lines[1]) else [(before, now)]
            changed = ((x, y) for x, y in pairs if not same_text(x, y))
            found += [f"cell {number}: {x!r:.200} is stored, {y!r:.200} comes out now" for x, y in changed]
        for x, y in zip(_pictures(a), _pictures(b), strict=False):
            if not _same_picture(x, y):
                found.append(f"cell {number}: the picture is another one")
        if len(_pictures(a)) != len(_pictures(b)):
            found.append(f"cell {number}: {len(_pictures(a))} pictures are stored, {len(_pictures(b))} come out now")
    return found


def tagged_pictures(notebook: Any) -> dict[str, bytes]:
    """The PNGs of cells tagged ``picture-NAME``, by name.

    >>> shown = {"output_type": "display_data", "data": {"image/png": "UE5H"}}
    >>> cell = {"cell_type": "code", "metadata": {"tags": ["picture-soup"]}, "outputs": [shown]}
    >>> tagged_pictures({"cells": [cell]})
    {'soup': b'PNG'}
    """
    return {
        tag.removeprefix("picture-"): base64.b64decode(_pictures(cell)[0])
        for cell in notebook["cells"]
        for tag in cell["metadata"].get("tags", [])
        if tag.startswith("picture-")
    }


def same_text(a: str, b: str) -> bool:
    """Compare two texts: words exactly, numbers as far as processors agree.

    >>> same_text("cosine 0.6660", "cosine 0.6661"), same_text("cosine 0.6660", "cosine 0.67"), same_text("3 x", "4 x")
    (True, False, False)
    """
    if _NUMBER.sub("#", a).split() != _NUMBER.sub("#", b).split():
        return False
    return all(_same_number(x, y) for x, y in zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True))


def _same_number(a: str, b: str) -> bool:
    if a == b or a.count(".") != 1 or b.count(".") != 1:  # a count, or a version
        return a == b
    x, y = (float(number.replace("\u2212", "-").replace(",", "")) for number in (a, b))
    if "e" in a and "e" in b and max(abs(x), abs(y)) < _TINY:
        return min(abs(x), abs(y)) * _TINY_FACTOR >= max(abs(x), abs(y))
    last_digit = 10.0 ** -len(a.partition(".")[2].partition("e")[0])
    return abs(x - y) <= max(_RELATIVE * max(abs(x), abs(y)), 1.01 * last_digit)


def _text(output: Any) -> str:
    if output["output_type"] == "stream":
        return str(output["text"])
    return str(output.get("data", {}).get("text/plain", ""))


def _pictures(cell: Any) -> list[str]:
    return [o["data"]["image/png"] for o in cell["outputs"] if "image/png" in o.get("data", {})]


def _same_picture(a: str, b: str) -> bool:
    """Compare two pictures as a reader would: about the same size, about the same shades."""
    if a == b:
        return True
    from PIL import Image  # comes with matplotlib

    pictures = [Image.open(io.BytesIO(base64.b64decode(data))).convert("L") for data in (a, b)]
    (w, h), (v, g) = (picture.size for picture in pictures)
    if abs(w - v) > 0.05 * w or abs(h - g) > 0.05 * h:
        return False
    x, y = (np.asarray(picture.resize((200, 200)), np.float64) for picture in pictures)
    return float(np.abs(x - y).mean()) <= _PICTURE


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--in-place", is_flag=True, help="Write fresh outputs and pictures into the files.")
def main(files: Sequence[Path], in_place: bool) -> None:
    """Execute notebooks and compare their outputs, or write them."""
    import nbformat

    stale = False
    for file in files:
        stored = nbformat.read(file, as_version=4)
        blank = all(_is_blank(answer["source"]) for answer, _, _ in answer_cells(stored))
        if in_place and not blank:
            raise click.ClickException(
                f"{file}: its exercises are filled in; --in-place would overwrite a student's file"
            )
        try:
            fresh = execute(file)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        if in_place:
            with written_whole(file) as stream:
                stream.write(f"{nbformat.writes(fresh)}\n".encode())
            for name, png in tagged_pictures(fresh).items():
                place = file.parent / "pictures" / f"{name}.png"
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(png)
            click.echo(f"{file}: executed")
            continue
        found = differences(stored, fresh)
        stale = stale or bool(found)
        click.echo("\n".join(f"{file}: {line}" for line in found) or f"{file}: up to date")
    sys.exit(1 if stale else 0)


def _is_blank(source: str) -> bool:
    """Whether nothing is filled in; what is no Python is somebody's attempt."""
    try:
        return all(map(is_blank, ast.parse(source).body))
    except SyntaxError:
        return False


if __name__ == "__main__":
    main()
