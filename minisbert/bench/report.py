"""The results of a benchmark as a table: medians, and the median of the ratios within each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from minisbert.bench.run import OURS, Row


def ratio(row: Row, peer: str) -> float:
    """Ours as a multiple of a peer's figure: the median of the rounds' ratios.

    >>> ratio(Row("texts/s", {"minisbert": [4.0, 2.0, 4.0], "peer": [2.0, 1.0, 1.0]}), "peer")
    2.0
    """
    return median(our / their for our, their in zip(row.rounds[OURS], row.rounds[peer], strict=True))


def format_report(about: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Format what :func:`~minisbert.bench.run.run_benchmark` has measured.

    >>> about = {"model": "m", "texts": 10, "source": "made", "tokens": 80, "num_threads": 2, "rounds": 2}
    >>> about |= {"processor": "p", "processors": 2, "system": "s", "versions": {"numpy": "2"}, "blas": ["b"]}
    >>> print(format_report(about, [Row("one text, ms", {"minisbert": [1.0, 3.0], "peer": [4.0, 4.0]})]))
    m: 10 texts, made, 80 tokens (8.0 a text)
    2 threads, float32, 2 rounds; medians; in brackets: minisbert's figure as a multiple of this one
    p, 2 processors, s
    numpy 2, b
    <BLANKLINE>
                  minisbert      peer
    one text, ms          2  4 (0.50)
    """
    names = list(dict.fromkeys(name for row in rows for name in row.rounds))
    table = [["", *names]]
    for row in rows:
        cells = []
        for name in names:
            told = row.rounds.get(name)
            middle = median(told) if told else 0.0
            cell = "" if not told else f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}"
            has_ratio = row.ratios and told and OURS in row.rounds and name != OURS
            cells.append(f"{cell} ({ratio(row, name):.2f})" if has_ratio else cell)
        table.append([row.what, *cells])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        [
            f"{about['model']}: {about['texts']:,} texts, {about['source']}, {about['tokens']:,} tokens "
            f"({about['tokens'] / about['texts']:.1f} a text)",
            f"{about['num_threads']} threads, float32, {about['rounds']} rounds; medians; in brackets: minisbert's "
            "figure as a multiple of this one",
            f"{about['processor']}, {about['processors']} processors, {about['system']}",
            ", ".join([*(f"{library} {number}" for library, number in about["versions"].items()), *about["blas"]]),
            "",
            *(
                "  ".join([first.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]).rstrip()
                for first, *cells in table
            ),
        ]
    )
