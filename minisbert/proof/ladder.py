"""The ladder: a student's file of functions, each judged alone, then all together as a BERT beside ours.

The file runs in a process of its own, which may hang, crash or leave; only arrays come back. This process knows what is
right and says what went wrong. Where a function calls others of the ladder, it is judged a second time with the right
ones in their place, so that a wrong third does not spoil the fourth.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import SourceFileLoader
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minisbert.encoder import SentenceEncoder
from minisbert.model import Array
from minisbert.parallel import threads
from minisbert.proof.rungs import (
    PART_ONE,
    RESULTS,
    RIGHT,
    TEXTS,
    Case,
    cases,
    check_model,
    known_mistakes,
    random_texts,
    weights_of,
)
from minisbert.proof.student import JUDGING, Outcome, call, call_each, do_jobs, explain_calls, run_apart, same

State = Literal["right", "wrong", "to do"]
MISSING = "it is missing"
RIGHT_ONES = "minisbert.proof.rungs._"  # as call names them
TOGETHER = 12  # times the seconds of a call, for the hundred texts
RIGHT_TO, ROUNDED_TO = 1e-6, 1e-10  # relative to the largest number: accepted; accepted without a note


@dataclass(frozen=True)
class Rung:
    """What was found about one function."""

    name: str
    part: int
    state: State
    says: str = ""  # what is wrong with it, or a note
    line: str = ""  # of the student's file, such as "my_bert.py, line 12: `return x / n`"


@dataclass(frozen=True)
class Together:
    """All functions of part one, as a BERT, beside ours."""

    texts: int
    difference: float  # the largest of any number of a sentence vector
    state: State
    says: str = ""


@dataclass(frozen=True)
class Report:
    """What :func:`climb` found; ``problem`` says why the file could not even be imported."""

    file: str
    problem: str
    rungs: tuple[Rung, ...]
    together: tuple[Together, ...]  # three texts, then a hundred; empty unless part one is right

    @property
    def ok(self) -> bool:
        """Whether part one is right, alone and together, and nothing of part two is wrong; that may be left out."""
        states = [rung.state for rung in self.rungs] + [both.state for both in self.together]
        return self.count(1) == (len(PART_ONE),) * 2 and bool(self.together) and "wrong" not in states

    @property
    def next(self) -> str:
        """The first function that is not right; "" if all are."""
        return next((rung.name for rung in self.rungs if rung.state != "right"), "")

    def count(self, part: int) -> tuple[int, int]:
        """How many functions of a part are right, and how many there are."""
        states = [rung.state for rung in self.rungs if rung.part == part]
        return states.count("right"), len(states)

    def __str__(self) -> str:
        if self.problem:
            return f"{self.file}: {self.problem}"
        marks = {"right": "✓", "wrong": "✗", "to do": "…"}
        lines = [f"{self.file}: each function alone, on the right inputs"]
        for part, title in ((1, "from token ids to a vector"), (2, "the loss and five gradients")):
            right, of = self.count(part)
            lines += ["", f"Part {('one', 'two')[part - 1]}, {title}: {right} of {of} right"]
            for rung in self.rungs:
                if rung.part == part:
                    lines.append(f"  {marks[rung.state]} {rung.name:{max(map(len, RIGHT))}}  {rung.says}".rstrip())
                    lines += [f"      {rung.line}"] if rung.line else []
        lines += ["", *(f"{marks[both.state]} {both.says}" for both in self.together)]
        if self.next:
            part = next(rung.part for rung in self.rungs if rung.name == self.next)
            right, of = self.count(part)
            lines.append(f"{right} of {of} right; next: {self.next}")
        return "\n".join(lines)


def climb(
    file: str | os.PathLike[str],
    encoder: SentenceEncoder | None = None,
    *,
    seed: int | None = None,
    seconds: float = 10.0,
) -> Report:
    """Judge a student's file: each function alone on right inputs, then all of part one together.

    Parameters
    ----------
    file : path
        Python, with functions named and called as in ``notebooks/my_bert.py``. It is run, in a process of its own.
    encoder : SentenceEncoder, optional
        The model, in float64; by default all-MiniLM-L6-v2.
    seed : int, optional
        Draws other inputs than those of ``minisbert verify --mine``: for marks.
    seconds : float
        After which a call is stopped.

    Returns
    -------
    Report
        ``report.rungs`` says of each function whether it is right and what is wrong; ``report.ok`` sums up.

    Raises
    ------
    ValueError
        If the model is none that the functions compute.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> from minisbert.encoder import SentenceEncoder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mine = Path(folder) / "my_bert.py"
    ...     _ = mine.write_text("def mean_pool(hidden):\\n    return hidden[0]\\n")
    ...     report = climb(mine, SentenceEncoder(dtype="float64"))
    >>> report.next, {rung.name: rung.says for rung in report.rungs}["mean_pool"]
    ('embed', 'the vector of [CLS] is the sentence vector, not the mean')
    """
    if JUDGING in os.environ:  # each judge would start the next
        raise ValueError(
            f"{file} is being judged already: what it does when it is run belongs under if __name__ == '__main__':"
        )
    encoder = encoder or SentenceEncoder(dtype="float64")
    check_model(encoder)
    path = Path(file).resolve()
    path.read_bytes()  # an error of the disk is no mistake of the student's
    given = cases(encoder, seed)

    def ask(*jobs: str) -> dict[str, list[Outcome]]:
        calls = {"import": 1.0, **{job: 1.0 + len(given.get(job.partition(" ")[0], range(TOGETHER))) for job in jobs}}
        limits = {job: count * seconds for job, count in calls.items()}
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return run_apart(__name__, (path, encoder.folder, seed, seconds), limits, Path(folder), "import")

    outcomes = ask(*RIGHT)
    imported = outcomes.pop("import")[0]
    if imported.state in UNUSABLE:
        return Report(path.name, f"it cannot be imported: {imported.problem}{_hint(imported)}", (), ())
    rungs = _judge(outcomes, ask, given, encoder)
    together: tuple[Together, ...] = ()
    if all(rung.state == "right" for rung in rungs if rung.part == 1):
        together = _judge_together(ask("encode")["encode"], encoder, seed)
    return Report(path.name, "", rungs, together)


def _texts(encoder: SentenceEncoder, seed: int | None) -> list[str]:
    """What all functions together embed: the three texts, then a hundred of 1 to 10 words."""
    return [*TEXTS, *random_texts(encoder, 100, range(1, 11), seed or 0)]


# ------------------------------------------------------------------------------------------------ the student's process

UNUSABLE = ("raises", "endless", "to do")  # states of a file's import


def _prepared(file: Path, model: Path, seed: int | None, seconds: float) -> Callable[[str], list[Outcome]]:
    """In the student's process: "import" the file; "gelu" calls a function with all its inputs, up to the first that
    goes wrong, and "gelu helped" with the right ones in place of others; "encode" all of them together.
    """
    encoder = SentenceEncoder(model, dtype="float64")
    given = cases(encoder, seed)
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file, loader=SourceFileLoader(file.stem, str(file)))
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules[file.stem] = module
    imported: list[Outcome] = []

    def do(job: str) -> list[Outcome]:
        if not imported:  # also in a process that goes on behind a job that has killed the one before
            imported.append(call(lambda: spec.loader.exec_module(module), seconds=seconds))  # type: ignore[union-attr]
        if job == "import" or imported[0].state in UNUSABLE:
            return imported
        name, _, helped = job.partition(" ")
        own = dict(vars(module))
        function = own.get(name)
        if not callable(function):
            close = difflib.get_close_matches(name, own, 1, 0.75)
            return [Outcome("to do", problem=MISSING + (f"; is it {close[0]}?" if close else ""))]
        if helped:
            vars(module).update({other: RIGHT[other] for other in RIGHT.keys() & own.keys() - {name}})
        try:
            if name != "encode":
                return call_each(function, (case.arguments for case in given[name]), each=seconds)
            weights, heads = weights_of(encoder), encoder.model.config.num_attention_heads
            texts = [(encoder.tokenize(text).token_ids, weights, heads) for text in _texts(encoder, seed)]
            return call_each(function, texts, TOGETHER * seconds)
        finally:
            vars(module).clear()
            vars(module).update(own)

    return do


def _hint(outcome: Outcome) -> str:
    return "; nobody is there to answer input()" if "EOFError" in outcome.problem else ""


# ------------------------------------------------------------------------------------------------------- what is wrong


def _judge(
    outcomes: dict[str, list[Outcome]],
    ask: Callable[..., dict[str, list[Outcome]]],
    given: dict[str, list[Case]],
    encoder: SentenceEncoder,
) -> tuple[Rung, ...]:
    """One rung a function: as it is, or where it calls a wrong one, with the right one in its place."""
    # not explained yet: what a wrong function below has spoilt is no known mistake, and all would be tried in vain
    own = {name: _verdict(name, outcomes[name], given[name], encoder, explain=False) for name in RIGHT}
    doubtful = [name for name in RIGHT if own[name].state != "right"]
    doubtful = [name for name in doubtful if len(doubtful) > 1 and MISSING not in own[name].says]
    again = ask(*(f"{name} helped" for name in doubtful)) if doubtful else {}
    leans_on, helped = dict[str, set[str]](), dict[str, Rung]()
    for name in doubtful:
        second = again[f"{name} helped"]
        leans_on[name] = {used.removeprefix(RIGHT_ONES) for one in second for used in one.used} & RIGHT.keys()
        called_otherwise = second[-1].state == "raises" and outcomes[name][-1].state == "value"
        if leans_on[name] and not called_otherwise:
            helped[name] = _verdict(name, second, given[name], encoder, True)
    wrong = {name for name in RIGHT if (helped.get(name) or own[name]).state != "right"}
    rungs = []
    for name in RIGHT:
        rung, leaned = own[name], ", ".join(sorted(wrong & leans_on.get(name, set())))
        if name in helped and helped[name].state != "right":
            rung = helped[name]
        elif name in helped and leaned:
            rung = replace(helped[name], says=f"right, with the right {leaned}")
        elif rung.state != "right":
            rung = _verdict(name, outcomes[name], given[name], encoder, True)
        rungs.append(rung)
    return tuple(rungs)


def _borrowed(outcomes: Sequence[Outcome]) -> str:
    """The package's own functions that a student's code calls; not the right ones that were put in place of others."""
    used = dict.fromkeys(
        name for one in outcomes for name in one.used if not name.startswith(("__main__.", RIGHT_ONES))
    )
    return f"calls {' and '.join(used)}, which is the package's own: write it yourself" if used else ""


def _results(name: str, outcome: Outcome) -> list[Array] | str:
    """A result as arrays, or what it is instead."""
    several = name in RESULTS and isinstance(outcome.value, (list, tuple))
    arrays = []
    for item in outcome.value if several else [outcome.value]:
        try:
            array = np.asarray(item)
        except ValueError:  # rows that differ in length
            return f"a {type(item).__name__}"
        if array.dtype.kind not in "biuf":
            return f"an array of {item.dtype}, {item.shape}" if hasattr(item, "dtype") else f"a {type(item).__name__}"
        arrays.append(array)
    return arrays


def _verdict(
    name: str, outcomes: list[Outcome], given: Sequence[Case], encoder: SentenceEncoder, explain: bool
) -> Rung:
    """Compare a function's results with the right ones, and name the mistake if it is to be explained."""
    last, parts = outcomes[-1], RESULTS.get(name, ("",))
    rung = Rung(name, 1 if name in PART_ONE else 2, "wrong", line=last.line)
    if said := _borrowed(outcomes):
        return replace(rung, says=f"it {said}")
    calls: list[tuple[Case, list[Array], Sequence[Array]]] = []  # what was found, and what is right, in parts
    with np.errstate(all="ignore"), warnings.catch_warnings(), threads.hold(1):
        warnings.simplefilter("ignore")
        for case, outcome in zip(given, outcomes, strict=False):
            if outcome.state != "value":
                break
            found = _results(name, outcome)
            if isinstance(found, str):
                return replace(rung, says=f"it returns {found}, {case.says}; an array of numbers is wanted")
            if len(found) != len(parts):
                got = "one result" if len(found) == 1 else f"{len(found)} results"
                return replace(rung, says=f"it returns {got}; there are {len(parts)}: {', '.join(parts)}")
            right = RIGHT[name](*case.arguments)
            calls.append((case, found, right if name in RESULTS else (right,)))
        for order in list(permutations(range(len(parts))))[1:] if calls else []:
            if all(_same(found[j], right[i]) for _, found, right in calls for i, j in enumerate(order)):
                return replace(rung, says=f"the results are right, but not their order: {', '.join(parts)}")
        for j, part in enumerate(parts):
            of_part = [(case, found[j], right[j]) for case, found, right in calls]
            if not all(_same(x, y) for _, x, y in of_part):
                said = _difference(name, part, of_part, encoder) if explain else ""
                return replace(rung, says=f"{part}: {said}" if part else said)
    if last.state == "to do":
        return replace(rung, state="to do", says=last.problem if MISSING in last.problem else "not written yet")
    if last.state != "value":
        said = last.problem.replace(f" ({last.line})", "") + _hint(last)
        return replace(rung, says=said + (f", {given[len(calls)].says}" if calls else ""))
    if any(isinstance(one.value, (list, tuple)) for one in outcomes) and name not in RESULTS:
        return replace(rung, says="the numbers are right, but in a list; return an array: np.array(...)")
    exact = all(_same(x, y, ROUNDED_TO) for _, found, right in calls for x, y in zip(found, right, strict=True))
    note = "" if exact else "right to about seven digits: an approximation, or float32 on the way?"
    return replace(rung, state="right", says=note, line="")


def _same(found: Array, expected: Array, tolerance: float = RIGHT_TO) -> bool:
    """Equal to rounding; whatever hides a score, be it -1e9 or minus infinity, is the same."""
    x, y = (np.where(np.asarray(one) < -1e8, -np.inf, one) for one in (found, expected))
    return same(x, y, tolerance)


def _difference(name: str, part: str, calls: Sequence[tuple[Case, Array, Array]], encoder: SentenceEncoder) -> str:
    """What is wrong with a result of all calls: the case, what was found, what is right."""
    wrong = [call for call in calls if not _same(*call[1:])]
    if all(found.dtype == np.float16 and same(found, right, 5e-3) for _, found, right in wrong):
        return "it is rounded to float16: is there an astype?"
    names, config = inspect.signature(RIGHT[name]).parameters, encoder.model.config
    smallest_first = sorted(calls, key=lambda call: call[2].size)
    # thousands of pairs take seconds on a small layer, and minutes on a real one
    pairs = name not in ("attention", "feed_forward") or smallest_first[0][2].size < 100
    near = ""
    for says, mistaken in known_mistakes(f"{name}.{part}" if part else name, pairs):
        if near and "; and " in says:  # one mistake rather than two
            break
        if all(_reproduces(mistaken, *call, RIGHT_TO) for call in smallest_first):
            # several may be near, such as one eps and another: the exact one wins
            exact = all(_reproduces(mistaken, *call, ROUNDED_TO) for call in smallest_first)
            near = says if exact or not near else near
            if exact:
                break
    if near:
        eps = dict(zip(names, wrong[0][0].arguments, strict=False)).get("eps", config.layer_norm_eps)
        sizes = {"K": config.head_size, "D": config.hidden_size, "H": config.num_attention_heads}
        return near.format(**sizes, eps=eps).replace("(axis 1)", "(axis 0)")
    explained = []
    for case, found, right in calls:
        given = {key: x for key, x in zip(names, case.arguments, strict=False) if not isinstance(x, dict)}
        explained.append((found, right, given))
    return explain_calls(explained, RIGHT_TO) + ("" if len(wrong) == len(calls) else f", {wrong[0][0].says}")


def _reproduces(mistaken: Callable[..., Any], case: Case, found: Array, right: Array, tolerance: float) -> bool:
    try:
        made = np.asarray(mistaken(*case.arguments))
    except (ValueError, IndexError, TypeError, AttributeError):  # a mistake that these sizes do not allow
        return False
    if _same(found, made, tolerance):
        return True
    # where the mistake divides by 0, a student may have taken care
    return made.shape == right.shape and _same(found, np.where(np.isnan(made), right, made), tolerance)


def _judge_together(outcomes: Sequence[Outcome], encoder: SentenceEncoder, seed: int | None) -> tuple[Together, ...]:
    """The student's sentence vectors beside ours."""
    texts = _texts(encoder, seed)
    ours = encoder.encode(texts)  # (B, D)
    mine = [np.asarray(one.value) for one in outcomes if one.state == "value"]
    last, problem = outcomes[-1], ""
    if said := _borrowed(outcomes):
        problem = f"encode {said}"
    elif last.state == "to do":
        problem = "encode is missing, which calls all ten: copy it from notebooks/my_bert.py"
    elif last.state != "value" and not (last.state == "endless" and len(mine) > len(TEXTS)):  # slow, but not wrong
        problem = last.problem
    elif any(vector.shape != ours[0].shape or vector.dtype.kind not in "biuf" for vector in mine):
        problem = "encode does not return one vector (D,) for each text"
    if problem:
        return (Together(len(texts), np.inf, "wrong", f"each is right alone, but not together: {problem}"),)
    found: list[Together] = []
    for part in (slice(0, len(TEXTS)), slice(len(TEXTS), None)):
        count, difference = len(mine[part]), float(np.abs(np.array(mine[part]) - ours[: len(mine)][part]).max())
        state: State = "right" if difference <= 10 * RIGHT_TO else "wrong"
        says = f"your BERT equals {encoder.name} on {count} texts; the largest difference is {difference:.1e}"
        if state == "wrong":
            says = f"each is right alone, but together, on {count} texts, they are off by {difference:.1e}: see encode"
        if part.stop is None and len(mine) < len(texts):
            says += f"; there was no time for the other {len(texts) - len(mine)}"
        found.append(Together(count, difference, state, says))
    return tuple(found)


if __name__ == "__main__":
    do_jobs(_prepared)
