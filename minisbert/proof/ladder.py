"""The ladder: a student's file of functions, each judged alone, then all together as a BERT beside ours.

The file runs in a process of its own, which may hang, crash or leave; only arrays come back. This process knows what is
right and says what went wrong. Where a function calls others of the ladder, it is judged a second time with the right
ones in their place, so that a wrong third does not spoil the fourth.
"""

from __future__ import annotations

import difflib
import faulthandler
import importlib.util
import inspect
import json
import linecache
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.machinery import SourceFileLoader
from itertools import permutations
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Literal

import numpy as np

from minisbert.encoder import SentenceEncoder
from minisbert.model import Array
from minisbert.parallel import threads
from minisbert.proof.rungs import (
    FORWARD,
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
from minisbert.proof.student import JUDGING, Outcome, call, explain_calls, limit_resources, run_apart, same
from minisbert.training.gradcheck import check_gradients

State = Literal["right", "wrong", "to do"]
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
    with tempfile.TemporaryDirectory() as folder:
        child = _Child(path, Path(folder), encoder.folder, seed, seconds)
        answers = child.ask([f"{name}.{how}" for name in RIGHT for how in ("own", "helped")])
        if child.problem:
            return Report(path.name, f"it cannot be imported: {child.problem}", (), ())
        rungs = _judge(answers, cases(encoder, seed), encoder)
        together: tuple[Together, ...] = ()
        if all(rung.state == "right" for rung in rungs if rung.part == 1):
            together = _judge_together(child.ask(["encode.own"])["encode.own"], encoder, seed)
    return Report(path.name, "", rungs, together)


def _texts(encoder: SentenceEncoder, seed: int | None) -> list[str]:
    """What all functions together embed: the three texts, then a hundred of 1 to 10 words."""
    return [*TEXTS, *random_texts(encoder, 100, range(1, 11), seed or 0)]


# ------------------------------------------------------------------------------------------------ the student's process


@dataclass(frozen=True)
class _Answer:
    """What a function of the student's came to: the results of its calls, up to the first that went wrong."""

    state: str  # as of an Outcome
    problem: str = ""
    line: str = ""
    used: tuple[str, ...] = ()  # the package's own functions that it called
    leans_on: tuple[str, ...] = ()  # functions of the ladder that it calls
    kinds: tuple[str, ...] = ()  # of each call's result: "array", "list", "results", or what else it is
    values: tuple[tuple[Array, ...], ...] = ()  # one array a call, or several


@dataclass
class _Child:
    """The process that the student's code runs in; started again when it dies, behind what it died of."""

    file: Path
    folder: Path  # where answers come back
    model: Path
    seed: int | None
    seconds: float  # for a call
    problem: str = ""

    def ask(self, jobs: Sequence[str]) -> dict[str, _Answer]:
        """Run jobs such as ``"gelu.own"``; those of ``helped`` are left out where a function calls no other."""
        answers: dict[str, _Answer] = {}
        todo = list(jobs)
        while todo:
            died = self._run(todo)
            started = (self.folder / "running").read_text() if (self.folder / "running").exists() else ""
            if started == "import":
                told = self.folder / "import.json"
                self.problem = json.loads(told.read_text()) if told.exists() else died[0] + _at(died[1])
                if self.problem:
                    return {}
            answers |= {job: _load(file) for job in todo if (file := self.folder / f"{job}.npz").exists()}
            if started in todo and started not in answers:
                answers[started] = _Answer("raises", died[0], died[1])
            todo = todo[todo.index(started) + 1 :] if started in todo else []
        return answers

    def _run(self, jobs: Sequence[str]) -> tuple[str, str]:
        """Run a process; return how it died, if it did, and the line of the student's file where."""
        about = [str(self.file), str(self.folder), str(self.model), json.dumps(self.seed), str(self.seconds)]
        limit = 60 + len(jobs) * TOGETHER * self.seconds
        code = run_apart(__name__, [*about, *jobs], self.folder, limit, self.folder / "stderr")
        if (self.folder / "running").exists() and (self.folder / "running").read_text() == "done":
            return "", ""
        trace = (self.folder / "trace").read_text(errors="replace") if (self.folder / "trace").exists() else ""
        line = ""
        if found := re.search(rf'File "[^"]*{re.escape(self.file.name)}", line (\d+)', trace):
            source = linecache.getline(str(self.file), int(found[1])).strip()
            line = f"{self.file.name}, line {found[1]}" + (f": `{source[:100]}`" if source else "")
        if "Timeout" in trace or code is None:
            return f"it does not end, and Python cannot interrupt it: killed after {self.seconds:g} seconds", line
        if fatal := re.search(r"Fatal Python error: (.*)", trace):
            return f"it crashes Python: {fatal[1]}", line
        if not (self.folder / "running").exists():  # it has not come to the student's file
            last = (self.folder / "stderr").read_text(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"climb: the process that should run {self.file} did not start: {' '.join(last)}")
        return f"it ends the whole process (exit code {code}): os._exit, a kill, or more memory than there is?", line


def _at(line: str) -> str:
    return f" ({line})" if line else ""


def _load(file: Path) -> _Answer:
    with np.load(file) as stored:
        about = json.loads(str(stored["about"]))
        values = [tuple(stored[f"{i}.{j}"] for j in range(n)) for i, n in enumerate(about.pop("counts"))]
    about = {name: tuple(value) if isinstance(value, list) else value for name, value in about.items()}
    return _Answer(**about, values=tuple(values))


def _work(file: Path, folder: Path, model: Path, seed: int | None, seconds: float, jobs: Sequence[str]) -> None:
    """Run in the student's process: import the file, call its functions, write what they return."""
    running = folder / "running"
    running.unlink(missing_ok=True)
    encoder = SentenceEncoder(model, dtype="float64")
    given = cases(encoder, seed)
    limit_resources(4 * 2**30, 2**28)
    trace = (folder / "trace").open("w")
    faulthandler.enable(trace)

    def start(job: str, calls: int) -> None:
        faulthandler.cancel_dump_traceback_later()
        # what Python cannot interrupt ends with the process, and leaves the line where it hangs
        faulthandler.dump_traceback_later(calls * seconds + 3, exit=True, file=trace)
        running.write_text(job)

    start("import", 1)
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file, loader=SourceFileLoader(file.stem, str(file)))
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules[file.stem] = module
    outcome = call(lambda: spec.loader.exec_module(module), seconds=seconds)  # type: ignore[union-attr]
    if outcome.state in ("raises", "endless", "to do"):
        (folder / "import.json").write_text(json.dumps(f"{outcome.problem}{_hint(outcome)}"))
        os._exit(1)
    for job in jobs:
        name, _, how = job.partition(".")
        start(job, TOGETHER if name == "encode" else 1 + len(given[name]))
        answer = (
            _answer_together(module, encoder, seed, TOGETHER * seconds)
            if name == "encode"
            else _answer(module, name, given[name], seconds, how == "helped")
        )
        if answer is not None:
            _save(folder / f"{job}.npz", answer)
    running.write_text("done")
    os._exit(0)  # whatever threads it has left behind


def _hint(outcome: Outcome) -> str:
    return "; nobody is there to answer input()" if "EOFError" in outcome.problem else ""


def _answer(module: ModuleType, name: str, given: Sequence[Case], seconds: float, helped: bool) -> _Answer | None:
    """Call one function on all its inputs; ``helped``: with the right ones in place of the others that it calls."""
    function = vars(module).get(name)
    if not callable(function):
        close = difflib.get_close_matches(name, vars(module), 1, 0.75)
        return None if helped else _Answer("to do", "it is missing" + (f"; is it {close[0]}?" if close else ""))
    leans_on = sorted(_names(module, function) & RIGHT.keys() - {name})
    if helped and not leans_on:
        return None
    own = dict(vars(module))
    if helped:
        vars(module).update({other: _stand_in(RIGHT[other], own.get(other)) for other in leans_on})
    answer = _Answer("value", leans_on=tuple(leans_on))
    try:
        for case in given:
            outcome = call(function, *case.arguments, seconds=seconds)
            used = () if helped else _used(outcome)
            if outcome.state != "value" or used:
                said = f"{outcome.problem}{_hint(outcome)}".replace(f" ({outcome.line})", "")
                said += f", {case.says}" if case is not given[0] else ""
                said = "not written yet" if outcome.state == "to do" else said
                return replace(answer, state=outcome.state, problem=said, line=outcome.line, used=used)
            kind, values = _packed(outcome.value, name in RESULTS)
            answer = replace(answer, kinds=(*answer.kinds, kind), values=(*answer.values, values))
    finally:
        vars(module).clear()
        vars(module).update(own)
    return answer


def _answer_together(module: ModuleType, encoder: SentenceEncoder, seed: int | None, seconds: float) -> _Answer:
    if not callable(vars(module).get("encode")):
        return _Answer("to do", "encode is missing, which calls all ten: copy it from notebooks/my_bert.py")
    weights, heads = weights_of(encoder), encoder.model.config.num_attention_heads
    ids = [encoder.tokenize(text).token_ids for text in _texts(encoder, seed)]
    vectors: list[Any] = []
    until = time.monotonic() + seconds
    for one in ids:
        left = max(0.1, until - time.monotonic())
        outcome = call(lambda token_ids: vars(module)["encode"](token_ids, weights, heads), one, seconds=left)
        if outcome.state == "endless" and len(vectors) > len(TEXTS):  # slow, but not wrong
            break
        if outcome.state != "value" or _used(outcome):
            said = outcome.problem.replace(f" ({outcome.line})", "")
            return _Answer(outcome.state, said, outcome.line, _used(outcome))
        vectors.append(outcome.value)
    kind, values = _packed(vectors, True)
    return _Answer("value", kinds=(kind,), values=(values,))


def _used(outcome: Outcome) -> tuple[str, ...]:
    """The package's own functions that a student's code calls; not those that call it here."""
    return tuple(name for name in outcome.used if not name.startswith("__main__."))


def _names(module: ModuleType, function: Callable[..., Any]) -> set[str]:
    """Every global name that a function uses, or a helper of the same file does for it."""
    found: set[str] = set()
    codes = [getattr(inspect.unwrap(function), "__code__", None)]
    while codes:
        code = codes.pop()
        if not isinstance(code, CodeType):
            continue
        codes += code.co_consts
        for name in set(code.co_names) - found:
            found.add(name)
            helper = vars(module).get(name)
            if name not in RIGHT and getattr(helper, "__module__", "") == module.__name__:
                codes.append(getattr(helper, "__code__", None))
    return found


def _stand_in(right: Callable[..., Any], own: Any) -> Callable[..., Any]:
    """The right function, unless it is called in another way than it can be."""

    def stand_in(*arguments: Any, **named: Any) -> Any:
        try:
            inspect.signature(right).bind(*arguments, **named)
        except TypeError:
            return own(*arguments, **named)
        return right(*arguments, **named)

    return stand_in


def _packed(value: Any, several: bool) -> tuple[str, tuple[Array, ...]]:
    """A result as arrays, and what it is in a word."""
    is_list = isinstance(value, (list, tuple))
    arrays = []
    for item in value if several and is_list else [value]:
        with suppress(ValueError, TypeError, OverflowError):  # rows that differ in length
            array = np.asarray(item)
            if array.dtype.kind in "biuf" and array.nbytes < 2**27:
                arrays.append(array)
                continue
        return (f"an array of {item.dtype}, {item.shape}" if hasattr(item, "dtype") else f"a {type(item).__name__}"), ()
    return ("results" if several and is_list else "list" if is_list else "array"), tuple(arrays)


def _save(file: Path, answer: _Answer) -> None:
    about = {name: value for name, value in vars(answer).items() if name != "values"}
    about["counts"] = [len(values) for values in answer.values]
    arrays = {f"{i}.{j}": array for i, values in enumerate(answer.values) for j, array in enumerate(values)}
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("wb") as stream:
        np.savez(stream, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
    unfinished.replace(file)


# ------------------------------------------------------------------------------------------------------- what is wrong


def _judge(answers: dict[str, _Answer], given: dict[str, list[Case]], encoder: SentenceEncoder) -> tuple[Rung, ...]:
    """One rung a function: as it is, or where it leans on a wrong one, with the right one in its place."""

    def verdict(name: str, how: str, explain: bool = True) -> Rung:
        return _verdict(name, answers[f"{name}.{how}"], given[name], encoder, explain)

    # not explained yet: what a wrong function below has spoilt is no known mistake, and all would be tried in vain
    own = {name: verdict(name, "own", explain=False) for name in RIGHT}
    helped = {
        name: verdict(name, "helped") for name in RIGHT if own[name].state != "right" and f"{name}.helped" in answers
    }
    wrong = {name for name in RIGHT if (helped.get(name) or own[name]).state != "right"}
    rungs = []
    for name in RIGHT:
        if name in helped and helped[name].state != "right":
            rung = helped[name]
        elif name in helped and (leaned := sorted(wrong & set(answers[f"{name}.helped"].leans_on))):
            rung = replace(helped[name], says=f"right, with the right {', '.join(leaned)}")
        else:
            rung = own[name] if own[name].state == "right" else verdict(name, "own")
        rungs.append(rung)
    return tuple(rungs)


def _verdict(name: str, answer: _Answer, given: Sequence[Case], encoder: SentenceEncoder, explain: bool) -> Rung:
    """Compare a function's results with the right ones, and name the mistake if it is to be explained."""
    rung = Rung(name, 1 if name in PART_ONE else 2, "wrong", line=answer.line)
    if answer.used:
        called = " and ".join(answer.used)
        return replace(rung, says=f"it calls {called}, which is the package's own: write it yourself")
    parts = RESULTS.get(name, ("",))
    for case, kind, values in zip(given, answer.kinds, answer.values, strict=False):
        if not values:
            return replace(rung, says=f"it returns {kind}, {case.says}; an array of numbers is wanted")
        if len(values) != len(parts):
            got = "one result" if len(values) == 1 else f"{len(values)} results"
            return replace(rung, says=f"it returns {got}; there are {len(parts)}: {', '.join(parts)}")
    given = given[: len(answer.values)]  # up to the first call that went wrong
    with np.errstate(all="ignore"), warnings.catch_warnings(), threads.hold(1):
        warnings.simplefilter("ignore")
        right = [RIGHT[name](*case.arguments) for case in given]
        expected = [one if name in RESULTS else (one,) for one in right]
        pairs = list(zip(answer.values, expected, strict=True))
        for order in list(permutations(range(len(parts))))[1:] if pairs else []:
            if all(_same(values[j], wanted[i]) for values, wanted in pairs for i, j in enumerate(order)):
                return replace(rung, says=f"the results are right, but not their order: {', '.join(parts)}")
        for j, part in enumerate(parts):
            found, wanted = [values[j] for values, _ in pairs], [values[j] for _, values in pairs]
            wrong = [i for i in range(len(given)) if not _same(found[i], wanted[i])]
            if wrong:
                said = _difference(name, part, found, wanted, wrong, given, encoder) if explain else ""
                return replace(rung, says=f"{part}: {said}" if part else said)
    if answer.state != "value":
        return replace(rung, state="to do" if answer.state == "to do" else "wrong", says=answer.problem)
    if "list" in answer.kinds:
        return replace(rung, says="the numbers are right, but in a list; return an array: np.array(...)")
    exact = all(_same(a, b, ROUNDED_TO) for values, wanted in pairs for a, b in zip(values, wanted, strict=True))
    note = "" if exact else "right to about seven digits: an approximation, or float32 on the way?"
    return replace(rung, state="right", says=note, line="")


def _same(found: Array, expected: Array, tolerance: float = RIGHT_TO) -> bool:
    """Equal to rounding; whatever hides a score, be it -1e9 or minus infinity, is the same."""
    x, y = (np.where(np.asarray(one) < -1e8, -np.inf, one) for one in (found, expected))
    return same(x, y, tolerance)


def _difference(
    name: str,
    part: str,
    found: list[Array],
    expected: list[Array],
    wrong: list[int],
    given: Sequence[Case],
    encoder: SentenceEncoder,
) -> str:
    """What is wrong with a result of all calls, in those that are."""
    if all(found[i].dtype == np.float16 and same(found[i], expected[i], 5e-3) for i in wrong):
        return "it is rounded to float16: is there an astype?"
    config = encoder.model.config
    sizes = {"K": config.head_size, "D": config.hidden_size, "H": config.num_attention_heads}
    arguments = [dict(zip(inspect.signature(RIGHT[name]).parameters, case.arguments, strict=False)) for case in given]
    smallest = sorted(range(len(given)), key=lambda i: expected[i].size)
    # thousands of pairs take seconds on a small layer, and minutes on a real one
    pairs = name not in ("attention", "feed_forward") or expected[smallest[0]].size < 100
    near = ""
    for says, mistaken in known_mistakes(f"{name}.{part}" if part else name, pairs):
        if near and "; and " in says:  # one mistake rather than two
            break
        for tolerance in (RIGHT_TO, ROUNDED_TO):  # several may be near, such as one eps and another: the exact one wins
            if not all(_reproduces(mistaken, given[i], found[i], expected[i], tolerance) for i in smallest):
                break
            near = near if near and tolerance == RIGHT_TO else says
        else:
            break
    if near:
        eps = arguments[wrong[0]].get("eps", config.layer_norm_eps)
        return near.format(**sizes, eps=eps).replace("(axis 1)", "(axis 0)")
    first = wrong[0]
    where = "" if len(wrong) == len(given) else f", {given[first].says}"
    if np.isnan(found[first]).any():
        return f"NaN comes out{where}: is something divided by zero, or too large for exp?"
    if not found[first].any() and expected[first].any():
        return f"only zeros come out{where}"
    if name in FORWARD and found[first].shape == expected[first].shape and np.isfinite(found[first]).all():
        said = _diagnose_gradient(name, part, found[first], given[first])
        if said and not said.startswith("no single factor"):
            return f"{said}{where} (by finite differences)"
    arrays = [{key: x for key, x in one.items() if not isinstance(x, dict)} for one in arguments]
    return explain_calls(list(zip(found, expected, arrays, strict=True)), RIGHT_TO) + where


def _reproduces(mistaken: Callable[..., Any], case: Case, found: Array, expected: Array, tolerance: float) -> bool:
    try:
        made = np.asarray(mistaken(*case.arguments))
    except (ValueError, IndexError, TypeError, AttributeError):  # a mistake that these sizes do not allow
        return False
    if _same(found, made, tolerance):
        return True
    # where the mistake divides by 0, a student may have taken care
    return made.shape == expected.shape and _same(found, np.where(np.isnan(made), expected, made), tolerance)


def _diagnose_gradient(name: str, part: str, found: Array, case: Case) -> str:
    """What finite differences say about a gradient: a sign, a factor, its transpose."""
    d_y, *given = case.arguments
    params = FORWARD[name](*given)
    moving = part.removeprefix("d_") or next(iter(params))
    eps = given[2:] if name == "layer_norm_backward" else []
    right = RIGHT[name](*case.arguments)
    gradients = dict(zip(params, right if name in RESULTS else (right,), strict=True)) | {moving: found.astype(float)}
    report = check_gradients(
        lambda p: float(np.vdot(d_y, RIGHT[name.removesuffix("_backward")](*p.values(), *eps))),
        params,
        gradients,
        rng=np.random.default_rng(0),
        directions=2,
        tolerance=1e-6,
        sizes={"T": len(d_y), "D": d_y.shape[-1]},
        only=[moving],
    )
    return report.rows[0].diagnosis


def _judge_together(answer: _Answer, encoder: SentenceEncoder, seed: int | None) -> tuple[Together, ...]:
    """The student's sentence vectors beside ours."""
    texts = _texts(encoder, seed)
    ours = encoder.encode(texts)  # (B, D)
    problem = answer.problem or (f"encode calls {' and '.join(answer.used)}, the package's own" if answer.used else "")
    mine = answer.values[0] if answer.values else ()
    if not problem and (not mine or any(vector.shape != ours[0].shape for vector in mine)):
        problem = "encode does not return one vector (D,) for each text"
    if problem:
        says = f"each is right alone, but not together: {problem}" + _at(answer.line)
        return (Together(len(texts), np.inf, "wrong", says),)
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
    _file, _folder, _model, _seed, _seconds, *_jobs = sys.argv[1:]
    _work(Path(_file), Path(_folder), Path(_model), json.loads(_seed), float(_seconds), _jobs)
