"""What notebooks need: a check that must fail, predictions, and where evaluation data may be."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["beside", "data_file", "it_fails"]


@contextmanager
def it_fails(what: str) -> Iterator[None]:
    """Run a check on something broken; AssertionError if it passes, since a check that cannot fail proves nothing.

    >>> with it_fails("two and two"):
    ...     assert 2 + 2 == 5, "4 is not 5"
    two and two: the check fails, as it should: 4 is not 5
    """
    try:
        yield
    except AssertionError as error:
        first = str(error).strip().splitlines()[:1]
        sys.stdout.write(f"{what}: the check fails, as it should: {first[0] if first else 'AssertionError'}\n")
        return
    raise AssertionError(f"{what}: the check should fail, but passed; what does it check?")


def data_file(name: str) -> Path | None:
    """Find evaluation data, which may not be redistributed, in ``MINISBERT_DATA`` or ``shared/data``; else None."""
    checkout = Path(__file__).resolve().parents[2]
    folders = [Path(os.environ["MINISBERT_DATA"])] if os.environ.get("MINISBERT_DATA") else []
    for folder in [*folders, checkout.parent / "shared" / "data"]:
        if (folder / name).is_file():
            return folder / name
    return None


def beside(prediction: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    """Print what was predicted beside what was measured.

    >>> beside({"the cosine": 0.5, "the closest": ...}, {"the cosine": 0.92402, "the closest": "soup"})
    predicted  measured
    0.5        0.924     the cosine
    nothing    soup      the closest
    """

    def short(value: Any) -> str:
        if value is None or value is Ellipsis:
            return "nothing"
        return f"{value:.3g}" if isinstance(value, (float, np.floating)) else f"{value}"

    rows = [(short(prediction.get(question)), short(value), question) for question, value in measured.items()]
    widths = [max(len(row[i]) for row in [("predicted", "measured"), *rows]) for i in (0, 1)]
    lines = [("predicted", "measured", ""), *rows]
    text = "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {question}".rstrip() for a, b, question in lines)
    sys.stdout.write(text + "\n")
