"""Text in columns: its width on a terminal, shortened, padded, and made safe to print."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minisbert.evaluation.measures import Estimate

_JOINER = "\u200d"  # joins emoji into one


def terminal_width() -> int:
    """The columns of the terminal, or 80 without one."""
    return shutil.get_terminal_size((80, 24)).columns


def printable(text: str) -> str:
    r"""A text as one line without control characters, which could move the cursor or recolour a terminal.

    >>> printable("two\nlines \x1b[31m")
    'two lines \\x1b[31m'
    """
    one_line = " ".join(text.split())
    return "".join(
        c if c.isprintable() or c == _JOINER else c.encode("unicode_escape").decode("ascii") for c in one_line
    )


def display_width(text: str) -> int:
    r"""The columns of a text: two for Chinese, Japanese, Korean and emoji, none for combining marks.

    >>> display_width("soup"), display_width("好き"), display_width("e\u0301"), display_width("👩\u200d🍳")
    (4, 4, 1, 2)
    """
    width, joined = 0, False
    for character in text:
        is_skin_tone = "\U0001f3fb" <= character <= "\U0001f3ff"
        if not joined and not is_skin_tone and unicodedata.category(character) not in ("Mn", "Me", "Cf"):
            width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        joined = character == _JOINER
    return width


def shorten(text: str, width: int) -> str:
    """Cut a text to this many columns, and show that it was cut.

    >>> shorten("soup is my favorite", 10)
    'soup is m…'
    """
    if display_width(text) <= width:
        return text
    while text and display_width(text) > width - 1:
        text = text[: min(len(text) - 1, 2 * width)]  # a column holds at least half a character, usually one
    return f"{text.rstrip()}…"


def pad(text: str, width: int) -> str:
    """Pad a text with spaces to this many columns."""
    return text + " " * (width - display_width(text))


def align(rows: Sequence[tuple[str, str]], indent: str = "  ") -> list[str]:
    """Names and values in two columns.

    >>> align([("width", "384"), ("layers", "6")])
    ['  width   384', '  layers  6']
    """
    widest = max((display_width(name) for name, _ in rows), default=0)
    return [f"{indent}{pad(name, widest)}  {value}".rstrip() for name, value in rows]


def grid(rows: Sequence[Sequence[str]], alignment: str = "<>") -> list[str]:
    """Rows of cells in columns, each to the left or right; the last alignment holds for the rest. Short rows end early.

    >>> grid([("id", "piece"), ("7", "soup"), ("12", "##s")], "><")
    ['id  piece', ' 7  soup', '12  ##s']
    """
    count = max(map(len, rows))
    widths = [max(display_width(row[i]) for row in rows if len(row) > i) for i in range(count)]
    sides = alignment.ljust(count, alignment[-1])
    lines = []
    for row in rows:
        gaps = [" " * (width - display_width(cell)) for cell, width in zip(row, widths, strict=False)]
        cells = zip(row, gaps, sides, strict=False)
        lines.append("  ".join(gap + cell if side == ">" else cell + gap for cell, gap, side in cells).rstrip())
    return lines


def matrix_lines(labels: Sequence[str], heads: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[str]:
    """Format a matrix under its heads, right-aligned; in several parts if the width is too small for one.

    >>> matrix_lines(["a", "soup"], ["x", "y"], [["1", "-2"], ["3", "4"]], width=80)
    ['       x   y', 'a      1  -2', 'soup   3   4']
    >>> matrix_lines(["a"], ["x", "y"], [["1", "2"]], width=6)
    ['   x', 'a  1', '', '   y', 'a  2']
    """
    widest = max(display_width(cell) for row in [heads, *cells] for cell in row)
    label_width = max(map(display_width, labels))
    columns = max(1, (width - label_width) // (2 + widest))
    lines: list[str] = []
    for start in range(0, len(heads), columns):
        lines += [""] * bool(lines)
        for label, row in zip(["", *labels], [heads, *cells], strict=True):
            part = (" " * (2 + widest - display_width(cell)) + cell for cell in row[start : start + columns])
            lines.append(pad(label, label_width) + "".join(part))
    return lines


def interval(estimate: Estimate) -> str:
    """An interval, x 100."""
    return f"{100 * estimate.low:.2f} to {100 * estimate.high:.2f}"


def signed(difference: float, digits: int = 2) -> str:
    """Write a difference, x 100, with its sign; zero is +0.00.

    >>> signed(0.0123), signed(-0.00001)
    ('+1.23', '+0.00')
    """
    return f"{round(100 * difference, digits) + 0.0:+.{digits}f}"
