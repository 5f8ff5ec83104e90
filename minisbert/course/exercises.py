"""An exercise knows the right answer and what typical mistakes make of it, so it can say what is wrong.

A student's function is called with a few arguments, whatever it does (:mod:`minisbert.proof.student`). If it returns
what the solution returns, it is right. If it returns what a known mistake returns, or two of them together, they are
named; then the general ones (an axis, a sign, a factor, one place too late). Else the first difference is shown. The
right result never is.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal

import numpy as np

from minisbert.model import Array
from minisbert.proof.student import Outcome, call_each, explain_calls, same, short

__all__ = ["Exercise", "Verdict", "array", "ask", "check", "exercises", "hint", "judge", "mistaken"]

Answer = Callable[..., Any]
Mistake = Mapping[str, str] | Answer  # parts of the solution's text and what they become, or another function


@dataclass(frozen=True)
class Exercise:
    """A question whose answer is a function or, with a single case without arguments, a value."""

    solution: Answer
    cases: Sequence[tuple[Any, ...]]  # arguments of each call
    mistakes: Mapping[str, Mistake]  # what is wrong and where to look: see mistaken
    name: str = ""  # if not the solution's
    level: Literal[1, 2, 3] = 1
    minutes: int = 5
    hint: str = ""  # where to begin
    more: str = ""  # nearly all
    instead: tuple[str, ...] = ()  # functions of the package that answer it, or "minisbert" for all of them
    draw: Callable[[np.random.Generator], tuple[Any, ...]] | None = None  # another case, for marks
    tolerance: float = 1e-9  # relative to the largest number of the right result

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.solution.__name__.strip("_"))


def exercises(chapter: int) -> dict[str, Exercise]:
    """The exercises of a notebook, by name.

    >>> list(exercises(1))
    ['COSINES', 'NEAREST', 'CONTRIBUTIONS']
    """
    module = import_module(f"minisbert.course.chapter_{chapter:02}")
    return {name: thing for name, thing in vars(module).items() if isinstance(thing, Exercise)}


@dataclass(frozen=True)
class Verdict:
    """The result of a check, or a hint."""

    state: Literal["right", "wrong", "to do", "hint"]
    message: str

    def __repr__(self) -> str:
        """Shown at the end of a notebook's cell."""
        mark = {"right": "✓", "wrong": "✗", "to do": "…", "hint": "→"}[self.state]
        return f"{mark} {self.message}"


def hint(exercise: Exercise, stage: int = 1) -> Verdict:
    """Give the first hint, which says where to begin, or the second, which says nearly all.

    >>> double = Exercise(lambda x: 2 * x, [(3.0,)], {}, "double", hint="how often is x in it?", more="x + ...")
    >>> hint(double, stage=2)
    → double (level 1 of 3, 5 minutes): x + ...
    """
    told = exercise.hint if stage == 1 else exercise.more
    return Verdict("hint", f"{exercise.name} (level {exercise.level} of 3, {exercise.minutes} minutes): {told}")


def check(exercise: Exercise, answer: Any, seconds: float = 10.0) -> Verdict:
    """Say whether an answer is right, and otherwise what is wrong; never raises, never tells, ends after ``seconds``.

    Only under nbgrader a wrong answer raises, since that is how nbgrader knows.

    >>> cases, mistakes = [(3.0,), (5.0,), (7.0,)], {"that is a square": lambda x: x * x}
    >>> double = Exercise(lambda x: 2 * x, cases, mistakes, name="double")
    >>> check(double, lambda x: x + x), check(double, lambda x: x**2), check(double, lambda x: None)
    (✓ double: right, ✗ double: that is a square, … double: fill in the cell above, then run this one again)
    >>> check(double, lambda x: -x * x)
    ✗ double: two things: that is a square; and then the sign is turned
    >>> check(double, lambda x: x + 2)
    ✗ double: called with (3), it gives 5, which is too small
    """
    outcomes = ask(exercise.cases, answer, seconds)
    verdict = judge(exercise, outcomes)
    solved = any(name.startswith("minisbert.course.chapter_") for one in outcomes for name in one.used)
    if verdict.state == "right" and solved and answer is not exercise.solution:
        verdict = Verdict("wrong", f"{exercise.name}: the result is right, but it is the solution's; write it yourself")
    if "NBGRADER_EXECUTION" in os.environ and verdict.state != "right":
        raise AssertionError(repr(verdict))  # nbgrader gives a cell its points unless it raises
    return verdict


def ask(cases: Sequence[tuple[Any, ...]], answer: Any, seconds: float = 10.0) -> list[Outcome]:
    """Call an answer with each case, up to the first that comes to no value; all together end after ``seconds``."""
    if answer is None or answer is Ellipsis:
        return [Outcome("to do", problem="it is not filled in")]
    if cases[0] and not callable(answer):
        problem = "hand over the function itself, its name without brackets, not what it returns"
        return [Outcome("refused", problem=problem)]
    return call_each(answer if callable(answer) else lambda: answer, cases, seconds)


def judge(exercise: Exercise, outcomes: Sequence[Outcome]) -> Verdict:
    """Say whether what :func:`ask` found is right, and otherwise what is wrong; it may come from another process."""

    def verdict(state: Literal["right", "wrong", "to do"], message: str) -> Verdict:
        return Verdict(state, f"{exercise.name}: {message}")

    last, is_value = outcomes[-1], not exercise.cases[0]
    if last.state == "to do":
        return verdict("to do", "fill in the cell above, then run this one again")
    if last.state != "value":
        case = () if last.state == "refused" else exercise.cases[len(outcomes) - 1]
        return verdict("wrong", f"{_called_with(case)}{last.problem}")
    found = [one.value for one in outcomes]
    found = [value.strip().lower() if is_value and isinstance(value, str) else value for value in found]
    warned = next((one.warned for one in outcomes if one.warned), "")
    try:
        wrong = _what_is_wrong(exercise, found)
    except Exception:  # not even that is too much to ask of some results
        wrong = "it gives something that is neither a number nor text nor a list of them"
    if wrong:
        return verdict("wrong", wrong + (f" (NumPy warns: {warned})" if warned and wrong.startswith("called") else ""))
    used = {name for one in outcomes for name in one.used if not name.startswith("minisbert.course.")}  # solutions
    known = sorted(name for name in used if {*name.split(".")} & {*exercise.instead})
    if known:
        return verdict("wrong", f"the result is right, but it comes from {known[0]}; write it yourself")
    return verdict("right", "right")


def _what_is_wrong(exercise: Exercise, found: Sequence[Any]) -> str:
    """One known mistake; one general; two known; a known and a general one; else the first difference. "" if right."""
    right = _results(exercise)
    given = [inspect.signature(exercise.solution).bind(*case).arguments for case in exercise.cases]

    def explained(expected: Sequence[Any] | None, wholly: bool = True) -> str:
        calls = [] if expected is None else list(zip(found, expected, given, strict=True))
        return explain_calls(calls, exercise.tolerance, wholly)

    def are(expected: Sequence[Any] | None) -> bool:
        return expected is not None and all(map(same, found, expected, itertools.repeat(exercise.tolerance)))

    if are(right):
        return ""
    known = {says: _results(exercise, mistake) for says, mistake in exercise.mistakes.items()}
    for says, results in known.items():
        if are(results):
            return says
    if not exercise.cases[0]:
        answers = ", ".join(sorted(str(answer) for (answer,) in (right, *known.values())))
        return f"{short(found[0])} is none of the answers; give one of {answers}"
    if general := explained(right):
        return general
    for (says, one), (also, other) in itertools.combinations(exercise.mistakes.items(), 2):
        if are(_results(exercise, one, other)):
            return f"two things: {says}; and {also}"
    if len(set().union(*map(_values, found))) > 2:  # fewer values can be anything's
        for says, results in known.items():
            if general := explained(results):
                return f"two things: {says}; and then {general}"
    case = next(c for c, a, b in zip(exercise.cases, found, right, strict=True) if not same(a, b, exercise.tolerance))
    return _called_with(case) + explained(right, wholly=False)


def _called_with(case: Sequence[Any]) -> str:
    """The arguments, if they are short, or else their shapes; "" if there are none."""
    text = ", ".join(map(short, case))
    text = text if len(text) <= 120 else ", ".join(short(argument, largest=2) for argument in case)
    return f"called with ({text}), " if case else ""


def _values(value: Any) -> set[str]:
    items = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    return set().union(*map(_values, items)) if isinstance(items, (list, tuple)) else {repr(items)}


_source = cache(inspect.getsource)


def mistaken(solution: Answer, *mistakes: Mistake) -> Answer:
    """The solution with mistakes in it: parts of its text become others, or another function stands in its place.

    ValueError if a part is not in its text, or another function is to be changed further.

    >>> from minisbert.model.ops import relu
    >>> mistaken(relu, {"0.0": "1.0"})(np.array([0.0, 2.0]))
    array([1., 2.])
    """
    if len(mistakes) == 1 and callable(mistakes[0]):
        return mistakes[0]
    text = _source(solution)
    for mistake in mistakes:
        if callable(mistake):
            raise ValueError("another function is a mistake of its own")
        for old, new in mistake.items():
            if old not in text:
                raise ValueError(f"{old!r} is not in the text of {solution.__name__}")
            text = text.replace(old, new)
    names: dict[str, Any] = dict(solution.__globals__)
    exec(text, names)
    return names[solution.__name__]


def _results(exercise: Exercise, *mistakes: Mistake) -> Any:
    """What the solution returns with these mistakes, call by call; None if two of them do not go together."""
    try:
        with np.errstate(all="ignore"):
            answer = mistaken(exercise.solution, *mistakes) if mistakes else exercise.solution
            return [answer(*copy.deepcopy(case)) for case in exercise.cases]
    except Exception:
        if mistakes:
            return None
        raise


def array(*numbers: float | Sequence[Any]) -> Array:
    """A float64 array, for an exercise's cases.

    >>> array([1, 2], [3, 4]).shape
    (2, 2)
    """
    return np.asarray(numbers, np.float64)
