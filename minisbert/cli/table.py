"""Text in columns: its width on a terminal, shortened, padded, made safe to print; and numbers as they are shown."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate
from wcwidth import wcswidth

if TYPE_CHECKING:
    from minisbert.analysis.classifier import ClassifierReport
    from minisbert.evaluation.measures import ClassReport, Estimate

LINE_WIDTH = 100  # of remarks below a table
LEAST_TEXT = 20  # columns of a text beside a table
NAME_WIDTH = 32  # columns of a name, at most
MOST_CLASSES = 20  # listed
_JOINER = "\u200d"  # joins emoji into one


def terminal_width() -> int:
    """The columns of the terminal, or 80 without one."""
    return shutil.get_terminal_size((80, 24)).columns


def printable(text: str, width: int | None = None) -> str:
    r"""A text as one line without control characters, which could move the cursor or recolour a terminal.

    With a width it is shortened, and an empty text is named.

    >>> printable("two\nlines \x1b[31m"), printable("soup is my favorite", 10), printable(" ", 10)
    ('two lines \\x1b[31m', 'soup is m…', '(empty)')
    """
    one_line = " ".join(text.split() if width is None else text[: 4 * width].split())
    shown = "".join(
        c if c.isprintable() or c == _JOINER else c.encode("unicode_escape").decode("ascii") for c in one_line
    )
    return shown if width is None else shorten(shown, width) or "(empty)"


def shorten(text: str, width: int) -> str:
    """Cut a text to this many columns, and show that it was cut.

    >>> shorten("soup is my favorite", 10)
    'soup is m…'
    """
    if wcswidth(text) <= width:
        return text
    while text and wcswidth(text) > width - 1:
        text = text[: min(len(text) - 1, 2 * width)]  # a column holds at least half a character, usually one
    return f"{text.rstrip()}…"


def grid(rows: Sequence[Sequence[str]], alignment: str = "<>") -> list[str]:
    """Rows of cells in columns, each to the left or right; the last alignment holds for the rest. Short rows end early.

    >>> grid([("id", "piece"), ("7", "soup"), ("12", "##s")], "><")
    ['id  piece', ' 7  soup', '12  ##s']
    """
    sides = alignment.ljust(max(map(len, rows)), alignment[-1])
    ways = ["right" if side == ">" else "left" for side in sides]
    laid_out = tabulate(rows, tablefmt="plain", colalign=ways, disable_numparse=True, preserve_whitespace=True)
    return [line.rstrip() for line in laid_out.split("\n")]


def grid_with_texts(rows: Sequence[Sequence[str]], *texts: Sequence[str]) -> list[str]:
    """Rows in columns, and columns of texts beside them, which share the rest of the terminal's line."""
    taken = max(map(wcswidth, grid(rows, "<")))
    room = max(LEAST_TEXT, (terminal_width() - taken) // len(texts) - 2)
    shown = [[printable(text, room) for text in beside] for beside in zip(*texts, strict=True)]
    return grid([[*row, *beside] for row, beside in zip(rows, shown, strict=True)], "<")


def align(rows: Sequence[tuple[str, str]], indent: str = "  ") -> list[str]:
    """Names and values in two columns.

    >>> align([("width", "384"), ("layers", "6")])
    ['  width   384', '  layers  6']
    """
    return [indent + line for line in grid(rows, "<")]


def matrix_lines(
    labels: Sequence[str], heads: Sequence[str], cells: Sequence[Sequence[str]], width: int | None = None
) -> list[str]:
    """Format a matrix under its heads, right-aligned; in several parts if the width, the terminal's, is too small.

    >>> matrix_lines(["a", "soup"], ["x", "y"], [["1", "-2"], ["3", "4"]], width=80)
    ['       x   y', 'a      1  -2', 'soup   3   4']
    >>> matrix_lines(["a"], ["x", "y"], [["1", "2"]], width=6)
    ['   x', 'a  1', '', '   y', 'a  2']
    """
    widest = max(wcswidth(cell) for row in [heads, *cells] for cell in row)
    columns = max(1, ((width or terminal_width()) - max(map(wcswidth, labels))) // (2 + widest))
    wide = [" " * (widest - wcswidth(head)) + head for head in heads]  # columns of one width
    lines: list[str] = []
    for start in range(0, len(heads), columns):
        part = slice(start, start + columns)
        rows = [["", *wide[part]], *([label, *row[part]] for label, row in zip(labels, cells, strict=True))]
        lines += [""] * bool(lines) + grid(rows)
    return lines


def wrapped(remarks: Iterable[str]) -> list[str]:
    """Paragraphs, of which all lines but the first are indented; names of models stay whole."""
    how = {"subsequent_indent": "  ", "break_on_hyphens": False, "break_long_words": False}
    return [line for words in remarks for line in textwrap.wrap(words, LINE_WIDTH, **how)]  # type: ignore[arg-type]


def class_lines(report: ClassReport | ClassifierReport) -> list[str]:
    """Precision, recall and F1 of each class, the lowest F1 first, and the most frequent confusions."""
    names = [printable(name, NAME_WIDTH) for name in report.classes]
    scores = list(zip(names, report.classes.values(), strict=True))
    scores.sort(key=lambda one: (math.isnan(one[1].f1.mean), one[1].f1.mean))
    rows = [["lowest F1 first", "texts", "predicted", "precision", "recall", "F1"]]
    for name, score in scores[:MOST_CLASSES]:
        shares = (estimated(one, lambda x: hundred(x, 1)) for one in (score.precision, score.recall, score.f1))
        rows.append([name, f"{score.texts:,}", f"{score.predicted:,}", *shares])
    lines = grid(rows)
    if len(scores) > MOST_CLASSES:
        lines.append(f"and {len(scores) - MOST_CLASSES:,} more (--json)")
    wrong = [
        (count, f"{names[i]} -> {names[j]}")
        for i, row in enumerate(report.confusion[:, : len(names)].tolist())  # without the column of undecided ones
        for j, count in enumerate(row)
        if count and i != j
    ]
    if wrong:
        wrong.sort(key=lambda one: -one[0])
        lines += ["", "most frequent confusions: true class -> predicted class"]
        lines += align([(f"{count:,}", pair) for count, pair in wrong[:10]])
    return lines


# ------------------------------------------------------------------------------------------------------------ numbers


def counted(count: int, one: str) -> str:
    """A number with its noun.

    >>> counted(1, "text"), counted(2000, "text"), counted(2, "query"), counted(2, "batch")
    ('1 text', '2,000 texts', '2 queries', '2 batches')
    """
    many = f"{one[:-1]}ies" if one.endswith("y") else f"{one}{'es' if one.endswith(('s', 'ch')) else 's'}"
    return f"{count:,} {one if count == 1 else many}"


def fixed(value: float, digits: int = 2) -> str:
    """A number without a negative zero; "none" for NaN.

    >>> fixed(-0.001), fixed(0.123456, 4), fixed(float("nan"))
    ('0.00', '0.1235', 'none')
    """
    return "none" if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"


def hundred(value: float, digits: int = 2) -> str:
    """A share, x 100."""
    return fixed(100 * value, digits)


def signed(difference: float, digits: int = 2) -> str:
    """Write a difference, x 100, with its sign; zero is +0.00.

    >>> signed(0.0123), signed(-0.00001)
    ('+1.23', '+0.00')
    """
    return f"{round(100 * difference, digits) + 0.0:+.{digits}f}"


def figures(estimate: Estimate, write: Callable[[float], str] = hundred) -> list[str]:
    """A mean, and its interval, x 100: two cells of a table."""
    return [write(estimate.mean), interval(estimate, write)]


def beside(mean: float, published: float | None) -> list[str]:
    """A published figure and how much higher ours is, x 100: two cells of a table, or none."""
    return [] if published is None else [hundred(published), signed(mean - published)]


def interval(estimate: Estimate, write: Callable[[float], str] = hundred) -> str:
    """An interval, x 100."""
    return "none" if math.isnan(estimate.low) else f"{write(estimate.low)} to {write(estimate.high)}"


def estimated(estimate: Estimate, write: Callable[[float], str] = hundred) -> str:
    """A mean and its interval, x 100."""
    return f"{write(estimate.mean)} ({interval(estimate, write)})" if estimate.mean == estimate.mean else "none"
