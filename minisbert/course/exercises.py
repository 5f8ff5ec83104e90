"""An exercise knows the right answer and the results of typical mistakes, so it can say what is wrong.

A student's function is called with a few arguments. If it returns what the solution returns, it is right. If it returns
what a known mistake returns, the mistake is named. Otherwise the first difference is shown: an error, a shape, a
number.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from minisbert.model import Array

__all__ = ["Exercise", "Mistake", "Verdict", "check"]

Answer = Callable[..., Any]


@dataclass(frozen=True)
class Mistake:
    """A typical mistake."""

    answer: Answer  # what a student who makes it would write
    says: str  # what is wrong, and where to look; never the solution itself


@dataclass(frozen=True)
class Exercise:
    """A question whose answer is a function or, with a single case without arguments, a value."""

    name: str
    solution: Answer
    cases: Sequence[tuple[Any, ...]]  # arguments of each call
    mistakes: Sequence[Mistake]
    tolerance: float = 1e-9  # relative to the largest number of the right result


@dataclass(frozen=True)
class Verdict:
    """The result of a check."""

    state: Literal["right", "wrong", "to do"]
    message: str

    def __repr__(self) -> str:
        """Shown at the end of a notebook's cell."""
        mark = {"right": "✓", "wrong": "✗", "to do": "…"}[self.state]
        return f"{mark} {self.message}"


def check(exercise: Exercise, answer: Any) -> Verdict:
    """Say whether an answer is right, and otherwise what is wrong; never raises, whatever the student's code does.

    A function that returns None or ``...`` counts as not written yet.

    >>> double = Exercise("double", lambda x: 2 * x, [(3.0,)], [Mistake(lambda x: x**2, "that is the square")])
    >>> check(double, lambda x: x + x), check(double, lambda x: x * x), check(double, lambda x: None)
    (✓ double: right, ✗ double: that is the square, … double: fill in the cell above, then run this one again)
    >>> check(double, lambda x: x + 1)
    ✗ double: called with (3.0), it should give 6.0, and gives 4.0
    """
    function: Answer = answer if callable(answer) else lambda *_: answer
    results = []
    for case in exercise.cases:
        given = copy.deepcopy(case)
        try:
            result = function(*given)
        except Exception as error:  # whatever the student's code raises is an answer too
            told = f"called with {_written(case)}, it raises {type(error).__name__}: {error}"
            return Verdict("wrong", f"{exercise.name}: {told}")
        if result is None or result is Ellipsis:
            return Verdict("to do", f"{exercise.name}: fill in the cell above, then run this one again")
        if not _same(given, case, 0.0):
            return Verdict("wrong", f"{exercise.name}: it changes its argument; work on a copy, or on a new array")
        results.append(result)
    wanted = [exercise.solution(*copy.deepcopy(case)) for case in exercise.cases]
    if _all_same(results, wanted, exercise.tolerance):
        return Verdict("right", f"{exercise.name}: right")
    for mistake in exercise.mistakes:
        mistaken = [mistake.answer(*copy.deepcopy(case)) for case in exercise.cases]
        if _all_same(results, mistaken, exercise.tolerance):
            return Verdict("wrong", f"{exercise.name}: {mistake.says}")
    return Verdict("wrong", f"{exercise.name}: {_first_difference(exercise, results, wanted)}")


def _all_same(results: Sequence[Any], others: Sequence[Any], tolerance: float) -> bool:
    return all(_same(result, other, tolerance) for result, other in zip(results, others, strict=True))


def _same(a: Any, b: Any, tolerance: float) -> bool:
    """Compare numbers and arrays within a tolerance, everything else exactly, and lists item by item."""
    if isinstance(b, (list, tuple)) and not _is_numeric(b):
        is_sequence = isinstance(a, (list, tuple)) and len(a) == len(b)
        return is_sequence and all(_same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if not _is_numeric(b):
        return bool(a == b) if not _is_numeric(a) else False
    if not _is_numeric(a):
        return False
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape:
        return False
    size = float(np.abs(y[np.isfinite(y)]).max(initial=0.0)) if y.dtype.kind == "f" else 0.0
    return bool(np.allclose(x, y, rtol=0.0, atol=tolerance * size, equal_nan=True))


def _is_numeric(value: Any) -> bool:
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except ValueError:  # a list whose rows differ in length
        return False


def _first_difference(exercise: Exercise, results: Sequence[Any], wanted: Sequence[Any]) -> str:
    """Describe the first wrong result."""
    for case, result, right in zip(exercise.cases, results, wanted, strict=True):
        if _same(result, right, exercise.tolerance):
            continue
        called = f"called with {_written(case)}, it" if case else "it"
        if not (_is_numeric(result) and _is_numeric(right)):
            return f"{called} should give {_short(right)}, and gives {_short(result)}"
        x, y = np.asarray(result), np.asarray(right)
        if x.shape != y.shape:
            return f"{called} should give shape {y.shape}, and gives {x.shape}"
        if not np.isfinite(x).all():
            odd = x[~np.isfinite(x)].flat[0]
            return f"{called} gives {odd}; is something divided by zero, or too large?"
        if not x.ndim:
            return f"{called} should give {_short(right)}, and gives {_short(result)}"
        place = np.unravel_index(int(np.argmax(np.abs(x - y))), x.shape)
        where = ", ".join(str(int(i)) for i in place)
        return f"{called} should give {y[place]:.6g} at [{where}], and gives {x[place]:.6g}"
    return "it is not right"


def _written(case: tuple[Any, ...]) -> str:
    return "(" + ", ".join(_short(argument) for argument in case) + ")"


def _short(value: Any) -> str:
    """A value in a few characters; of a large array the shape is enough."""
    if isinstance(value, np.ndarray) and value.size > 6:
        return f"an array of shape {value.shape}"
    if isinstance(value, (float, np.floating)) and math.isfinite(value):
        return f"{float(value):.6g}" if abs(value) >= 1e6 else str(round(float(value), 6))
    text = " ".join(np.array2string(value, precision=4).split()) if isinstance(value, np.ndarray) else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def array(*numbers: float | Sequence[Any]) -> Array:
    """A float64 array, for an exercise's cases.

    >>> array([1, 2], [3, 4]).shape
    (2, 2)
    """
    return np.asarray(numbers, np.float64)
