"""Run a student's function whatever it does, and say in a sentence what is wrong with its result, never what is right.

:func:`call` returns an :class:`Outcome` even if the function raises, exits, never ends or changes its arguments,
and knows the line of the student's own code. :func:`run_apart` does so in a process of its own, where it may also hang
in C or crash. :func:`explain_calls` knows what arrays look like when an axis, a sign, a factor or a row is wrong.
"""

from __future__ import annotations

import base64
import copy
import ctypes
import dis
import faulthandler
import inspect
import io
import json
import linecache
import math
import numbers
import os
import pickle
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np

from minisbert.model import Array
from minisbert.parallel import threads_start

__all__ = ["Outcome", "call", "call_each", "do_jobs", "explain_calls", "run_apart", "same", "short"]

PACKAGE = str(Path(__file__).resolve().parents[1])
LIBRARIES = (PACKAGE, sysconfig.get_path("stdlib"), "<frozen", "<__array_function__")
PRINTED = 10_000  # characters that are kept of what a function prints
DONE = "all done"
JUDGING = "MINISBERT_JUDGING"  # set where a student's file runs, so that it cannot start what runs it
FLOAT32 = 2e-5  # the error of a few steps in float32, relative to the largest number


# --------------------------------------------------------------------------------------------------- one call


@dataclass(frozen=True)
class Outcome:
    """What a call came to: ``value`` if ``state`` is "value", else a ``problem`` in a sentence without a full stop."""

    state: Literal["value", "to do", "nothing", "unusable", "changed", "refused", "raises", "endless"]
    value: Any = None  # arrays are copies, tuples and lists plain
    problem: str = ""
    line: str = ""  # where it happened in the student's code, such as "In[3], line 2: `return x / n`"
    warned: str = ""  # the first warning, such as "divide by zero encountered in divide"
    used: tuple[str, ...] = ()  # the package's own functions that it called, such as "minisbert.model.ops.softmax"


class _OutOfTime(BaseException):
    """Raised in the student's code; no ``except Exception`` catches it."""


class _Unusable(Exception):
    """The function returned something that is neither numbers nor text."""


def call(function: Callable[..., Any], *arguments: Any, seconds: float = 10.0) -> Outcome:
    """Call a student's function on copies of the arguments; never raises, and stops it after ``seconds``.

    Only work that NumPy or Python does in one step, such as ``10**10**10``, cannot be stopped, and in Python 3.10 a
    loop whose body begins with ``try`` and calls nothing; in WebAssembly, without threads, nothing can.

    >>> def halve(x):
    ...     print(x / 2)
    >>> call(halve, 3.0).problem
    'it prints its result and returns nothing: print shows a value, return hands it over'
    >>> call(lambda x: 1 / x, 0).problem.partition(" (")[0]
    'it raises ZeroDivisionError: division by zero'
    """
    given = copy.deepcopy(arguments)
    try:
        names = [*inspect.signature(function).bind(*given).arguments]
    except TypeError as refusal:
        arguments_are = f"{len(given)} argument{'s' * (len(given) != 1)}"
        return Outcome("refused", problem=f"it cannot be called with {arguments_are}: {refusal}")
    except Exception:  # some functions written in C have no signature
        names = []
    printed, used = _Printed(), dict[str, None]()
    with _exit_raises(), redirect_stdout(printed), warnings.catch_warnings(record=True) as warned, np.errstate():
        warnings.simplefilter("always")
        value, error, stopped = _timed(lambda: _run(function, given, used), seconds)
    line = _own_line(traceback.walk_tb(getattr(error, "__traceback__", None))) if stopped is None else stopped
    at = f" ({line})" if line else ""
    pairs = zip(arguments, given, [*names, *"?" * len(given)], strict=False)
    state: Any = "value"
    problem = ""
    if stopped is not None:
        state = "endless"
        problem = f"it does not end: stopped after {seconds:.2g} seconds{at}; what would stop its loop?"
    elif type(error) is NotImplementedError:  # a subclass may mean something else, such as input() in a notebook
        state, problem, line = "to do", "it is not filled in", ""
    elif isinstance(error, _Unusable):
        state, problem, line = "unusable", str(error), ""
    elif error is not None:
        state, problem = "raises", f"it {_raises(error)}{at}"
    elif value is Ellipsis or (value is None and not _has_code(function)):
        state, problem = "to do", "it is not filled in"
    elif value is None:
        state = "nothing"
        problem = "it returns nothing (None): is a return missing, at the end or in one branch?"
        if printed.getvalue().strip():
            problem = "it prints its result and returns nothing: print shows a value, return hands it over"
    elif changed := next((name for before, after, name in pairs if not _unchanged(before, after)), ""):
        state, problem = "changed", f"it changes its argument {changed}; work on a copy, or on a new array"
    told = next((_told(warning.message) for warning in warned), "")
    return Outcome(state, value, problem, line, told, tuple(used))


def call_each(
    function: Callable[..., Any], cases: Iterable[Sequence[Any]], seconds: float = math.inf, each: float = math.inf
) -> list[Outcome]:
    """Call it with each case, up to the first that comes to no value, for so many seconds in all, and each."""
    outcomes: list[Outcome] = []
    until = time.monotonic() + seconds
    for case in cases:
        outcomes.append(call(function, *case, seconds=max(0.01, min(each, until - time.monotonic()))))
        if outcomes[-1].state != "value":
            break
    return outcomes


def _shell() -> Any:
    """IPython's, if this is a notebook."""
    return getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()


@contextmanager
def _exit_raises() -> Iterator[None]:
    """Let ``exit()`` raise SystemExit in a notebook, too, where it would return and end the kernel a moment later."""
    shell = _shell()
    if shell is not None:
        shell.ask_exit = sys.exit  # hides the method of its class
    try:
        yield
    finally:
        if shell is not None:
            del shell.ask_exit


class _Printed(io.StringIO):
    """The beginning of what is printed, which may be without end."""

    def write(self, text: str) -> int:
        return super().write(text[: max(0, PRINTED - self.tell())]) and len(text)

    def close(self) -> None:
        """Stay open, even for a student who closes ``sys.stdout``."""


def _run(function: Callable[..., Any], given: Sequence[Any], used: dict[str, None]) -> Any:
    def note(frame: FrameType, event: str, _: Any) -> None:
        # our functions that are called from outside, not by each other
        name, by = str(frame.f_globals.get("__name__", "")), frame.f_back
        asked = event == "call" and _is_ours(frame) and by and (by.f_code is _run.__code__ or not _is_ours(by))
        if asked and name != __name__:
            used[f"{name}.{frame.f_code.co_name}"] = None

    sys.setprofile(note)
    return _settled(function(*given))


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(PACKAGE)


def _timed(work: Callable[[], Any], seconds: float) -> tuple[Any, BaseException | None, str | None]:
    """What work returns or raises, in a thread of its own, and the student's line where it had to be stopped, or None.

    One that catches everything for two seconds is left behind. Where no thread can start, nothing stops the work.
    """
    found: list[tuple[Any, BaseException | None]] = []
    line = None

    def worker() -> None:
        profile = sys.getprofile()
        try:
            found.append((work(), None))
        except BaseException as error:
            found.append((None, error))
        finally:
            sys.setprofile(profile)

    if not threads_start():
        worker()
        return (*found[0], None)
    thread = threading.Thread(target=worker, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    finally:  # also where somebody interrupts the kernel
        if frame := sys._current_frames().get(thread.ident or 0):
            line = _own_line(reversed(list(traceback.walk_stack(frame))))
        until = time.monotonic() + 2.0
        while thread.is_alive() and time.monotonic() < until:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_OutOfTime))
            thread.join(0.003)
    return (*(found[0] if found else (None, _OutOfTime())), line)


def _own_line(places: Iterable[tuple[FrameType, int]]) -> str:
    """The innermost of these lines, outermost first, that is neither ours nor a library's."""
    own = deque(((frame.f_code, line) for frame, line in places if _is_students(frame.f_code.co_filename)), maxlen=1)
    return _line(own[0][0].co_filename, own[0][1] or own[0][0].co_firstlineno) if own else ""


def _is_students(file: str) -> bool:
    return not ({"site-packages", "dist-packages"} & set(Path(file).parts) or file.startswith(LIBRARIES))


def _line(file: str, line: int) -> str:
    """A line of the student's in words, such as "In[3], line 2: `return x / n`"."""
    named = getattr(getattr(_shell(), "compile", None), "format_code_name", lambda _: None)(file)  # ("Cell", "In[3]")
    source = linecache.getline(file, line).strip()
    return f"{named[1] if named else Path(file).name}, line {line}" + (f": `{source[:100]}`" if source else "")


def _told(error: Any) -> str:
    try:
        return " ".join(str(error).split())[:200]
    except Exception:  # the student's own exception may be unable to say what it is
        return "?"


def _raises(error: BaseException) -> str:
    told = f"raises {type(error).__name__}: {_told(error)}".removesuffix(": ")
    if isinstance(error, RecursionError):
        return "calls itself without end"
    if isinstance(error, MemoryError):
        return "asks for more memory than there is"
    return "ends the program; a function ends with return" if isinstance(error, SystemExit) else told


def _has_code(function: Any) -> bool:
    """Whether the body is more than ``...``, ``pass`` or ``return None``."""
    function = inspect.unwrap(getattr(function, "func", function))
    code = getattr(function, "__code__", None) or getattr(function.__call__, "__code__", None)
    empty = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "POP_TOP", "MAKE_CELL", "COPY_FREE_VARS"}
    return code is None or any(step.opname not in empty for step in dis.get_instructions(code))


def _settled(value: Any) -> Any:
    """Plain numbers, text, arrays and lists of them, made while the clock runs, since ``__array__`` may be anything."""
    if value is None or value is Ellipsis or type(value) in (bool, int, float, complex, str, bytes):
        return value
    if hasattr(type(value), "__array__"):
        plain = np.array(value)
        return _settled(plain.tolist()) if plain.dtype == object else plain[()]
    if isinstance(value, tuple):
        return tuple(_settled(item) for item in tuple(value))
    if isinstance(value, (list, range, deque)):
        return [_settled(item) for item in list(value)]
    if isinstance(value, dict):
        return {_settled(key): _settled(item) for key, item in dict(value).items()}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Real):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    name = type(value).__name__
    if isinstance(value, Iterator):
        raise _Unusable(f"it returns a {name}, which is not computed yet: put list(...) around it, or return for yield")
    if callable(value):
        raise _Unusable(f"it returns a {name}, not its result: are the brackets of a call missing?")
    raise _Unusable(f"it returns a {name}, where numbers or a list are wanted")


def _unchanged(before: Any, after: Any) -> bool:
    if type(before) is not type(after):
        return False
    if isinstance(before, np.ndarray):
        equal_nan = before.dtype.kind in "fc"
        return bool(before.dtype == after.dtype and np.array_equal(before, after, equal_nan=equal_nan))
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(_unchanged, before, after))
    if isinstance(before, dict):
        return list(before) == list(after) and all(_unchanged(before[key], after[key]) for key in before)
    return before == after if isinstance(before, (bool, int, float, str, set)) and before == before else True


# --------------------------------------------------------------------------------------------- a process of its own


def run_apart(
    module: str, given: Any, jobs: Mapping[str, float], folder: Path, first: str = ""
) -> dict[str, list[Outcome]]:
    """What jobs come to that run a student's code, in a process of their own in ``folder``; each has so many seconds.

    The module hands its processes to :func:`do_jobs`. Where one dies, another does the rest; without the job ``first``
    there is none. What a process has started itself ends with it.
    """
    paths = os.pathsep.join([str(Path(PACKAGE).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", JUDGING: "1"}
    # products of a few rows: a second thread mostly waits
    environment |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    found: dict[str, list[Outcome]] = {}
    todo, running = dict(jobs), folder / "running"
    while todo:
        (folder / "given").write_bytes(pickle.dumps((given, todo)))
        running.unlink(missing_ok=True)
        with (folder / "errors").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder)],
                cwd=folder,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        try:
            code = process.wait(60 + sum(todo.values()))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(OSError, AttributeError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
        found |= {job: read_outcomes(folder / job) for job in todo if (folder / job).is_file()}
        job = running.read_text() if running.exists() else ""
        if not job:  # it has not come to the student's code
            last = (folder / "errors").read_text(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"{module}: the process for a student's code did not start: {' '.join(last)}")
        if job in todo and job not in found:
            found[job] = [_how_it_died(folder, code, todo[job])]
        if job not in todo or job == first:
            break
        todo = dict(list(todo.items())[list(todo).index(job) + 1 :])
    return found


def _how_it_died(folder: Path, code: int | None, seconds: float) -> Outcome:
    trace = (folder / "trace").read_text(errors="replace")
    places = re.findall(r'File "(.*)", line (\d+)', trace)
    line = next((_line(file, int(number)) for file, number in places if _is_students(file)), "")
    at = f" ({line})" if line else ""
    if "Timeout" in trace or code is None:
        problem = f"it does not end, and Python cannot interrupt it: killed after {seconds:g} seconds"
        return Outcome("endless", problem=problem + at, line=line)
    problem = f"it ends the program (exit code {code}): os._exit, a kill, or more memory than there is?"
    if fatal := re.search(r"Fatal Python error: (.*)", trace):
        problem = f"it crashes Python: {fatal[1]}"
    return Outcome("raises", problem=problem + at, line=line)


def do_jobs(prepare: Callable[..., Callable[[str], list[Outcome]]]) -> None:
    """In the process that :func:`run_apart` starts: do the jobs in turn and leave, whatever threads are left behind."""
    folder = Path(sys.argv[1])
    given, jobs = pickle.loads((folder / "given").read_bytes())  # noqa: S301 - written by ourselves
    do = prepare(*given)
    with suppress(ImportError, ValueError, OSError):  # bounds of memory, and of a file, where the system has them
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))
    with (folder / "trace").open("w") as trace:
        faulthandler.enable(trace)
        for job, seconds in jobs.items():
            # what Python cannot interrupt ends with the process, and leaves the line where it hangs
            faulthandler.dump_traceback_later(seconds + 3, exit=True, file=trace)
            (folder / "running").write_text(job)
            rows = json.dumps([vars(one) | {"value": _packed(one.value)} for one in do(job)])
            (folder / "unfinished").write_text(rows)
            (folder / "unfinished").replace(folder / job)
        (folder / "running").write_text(DONE)
        os._exit(0)


def _packed(value: Any) -> Any:
    """A settled value as JSON, which a stranger's process may write and we may read, unlike a pickle."""
    if isinstance(value, (np.ndarray, np.generic)):
        stream = io.BytesIO()
        np.save(stream, np.asarray(value), allow_pickle=False)
        return {"array": base64.b64encode(stream.getvalue()).decode()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {"dict": [[_packed(key), _packed(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [*map(_packed, value)]}
    return None if value is Ellipsis else value


def _unpacked(packed: Any) -> Any:
    if not isinstance(packed, dict):
        return packed
    ((kind, value),) = packed.items()
    if kind == "array":
        array = np.load(io.BytesIO(base64.b64decode(value)), allow_pickle=False)
        return array if array.ndim else array[()]
    if kind == "dict":
        return {_unpacked(key): _unpacked(item) for key, item in value}
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](map(_unpacked, value))
    return complex(*value) if kind == "complex" else base64.b64decode(value)


def read_outcomes(file: Path) -> list[Outcome]:
    """What :func:`do_jobs` has written, or somebody who would like to have done the job."""
    try:
        rows = json.loads(file.read_text())
        return [Outcome(**row | {"value": _unpacked(row["value"]), "used": tuple(row["used"])}) for row in rows]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError):
        return [Outcome("unusable", problem="what it returns cannot be read")]


# ------------------------------------------------------------------------------------------- what is wrong with it


def same(found: Any, expected: Any, tolerance: float = 1e-9) -> bool:
    """Compare numbers up to ``tolerance`` times the largest expected one, or up to what float32 allows if found in it.

    Lists, tuples and arrays of the same items are the same; text is compared exactly.

    >>> same((1.0, 2), np.array([1, 2])), same([2.0], 2.0), same("b", "a")
    (True, False, False)
    """
    x, y = _numbers(found), _numbers(expected)
    if x is not None and y is not None:
        return _close(x, y, max(tolerance, FLOAT32) if x.dtype == np.float32 else tolerance)
    if isinstance(expected, (list, tuple)) and isinstance(found, (list, tuple, np.ndarray)):
        return len(found) == len(expected) and all(same(a, b, tolerance) for a, b in zip(found, expected, strict=True))
    if isinstance(expected, str) and isinstance(found, (str, np.ndarray)):
        return str(found) == expected
    return x is None and y is None and type(found) is type(expected) and bool(np.all(found == expected))


def explain_calls(
    calls: Sequence[tuple[Any, Any, Mapping[str, Any]]], tolerance: float = 1e-9, wholly: bool = False
) -> str:
    """Say what is wrong with results, without telling the right ones; "" if nothing is.

    Each call is what was found, what is right, and the arguments by name, from whose sizes a factor gets its name. A
    mistake is named only if it explains all the calls; with ``wholly``, only if it explains all of their numbers.

    >>> explain_calls([(np.array([2.0, 4.0]), np.array([1.0, 2.0]), {})])
    'every number comes out 2 times as large as it should be'
    >>> explain_calls([(0.84140, 0.84147, {})])
    '0.8414 begins right, and parts at digit 5'
    """
    is_wrong = [not same(*item[:2], tolerance) for item in calls]
    wrong = [item for item, bad in zip(calls, is_wrong, strict=True) if bad]
    if not wrong:
        return ""
    telling = [  # of a right result that is all zeros every factor would be right
        item
        for item, bad in zip(calls, is_wrong, strict=True)
        if bad or bool(np.any(_numbers(item[1]))) or isinstance(item[1], bool)
    ]
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes = [[getattr(_numbers(x), "shape", None) for x in item[:2]] for item in calls]
            if len(calls) > 1 and all(f == e for f, e in shapes) and all(same(item[0], calls[0][0]) for item in calls):
                only = short(calls[0][0])
                return f"whatever goes in, {only} comes out: are the arguments used, and is nothing cut off?"
            said = _said_of_all(_made_of_it, telling, tolerance)
            if said or wholly:
                return said
            first = next(_partly_right(*wrong[0], tolerance), "") or _first_difference(*wrong[0][:2])
            return _said_of_all(_partly_right, wrong, tolerance) or first
    except Exception:  # so odd that it cannot even be described
        return "" if wholly else "the result is not of the kind that is wanted"


def _said_of_all(say: Callable[..., Iterator[str]], calls: Sequence[tuple[Any, ...]], tolerance: float) -> str:
    """The first sentence that is said of every call."""
    sentences, *others = [list(say(*item, tolerance)) for item in calls]
    return next((one for one in sentences if all(one in other for other in others)), "")


def _numbers(value: Any) -> Array | None:
    """The value as an array of numbers, if it is one."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RecursionError):  # rows that differ in length
        return None
    return array if array.dtype.kind in "biufc" else None


def _close(x: Array, y: Array, tolerance: float) -> bool:
    if x.shape != y.shape:
        return False
    if x.dtype.kind in "iub" and y.dtype.kind in "iub":
        return bool(np.array_equal(x, y))
    largest = float(np.abs(y[np.isfinite(y)]).max(initial=0.0))
    return bool(np.allclose(x, y, rtol=0.0, atol=tolerance * largest, equal_nan=True))


def _unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _sums_to_1(x: Array, axis: int = -1) -> Array:
    return x / x.sum(axis=axis, keepdims=True)


def _rounded(decimals: int) -> Callable[[Array], Array]:
    return lambda x: np.round(x, decimals)


Made = tuple[str, Callable[[Array], Any]]

_CUT = "the numbers are cut to whole ones: is there an int(), a // or an array of integers?"
# what a mistake makes of the right result: recomputed, and compared with what was found
_OF_EACH_NUMBER: list[Made] = [
    ("the sign is turned", np.negative),
    ("all signs are lost: is there an abs() too many?", np.abs),
    ("what is negative is cut to 0", lambda e: np.maximum(e, 0.0)),
    ("this is 1 minus what is asked for", lambda e: 1.0 - e),
    ("every number is 1 too large: counted from 1 instead of 0, or one too many?", lambda e: e + 1),
    ("every number is 1 too small: is something counted one time too few?", lambda e: e - 1),
    ("this is the square of what is asked for: is a root missing?", np.square),
    ("this is the square root of what is asked for", np.sqrt),
    ("this is 1 divided by what is asked for: it is upside down", lambda e: 1.0 / e),
    ("this is the logarithm of what is asked for", np.log),
    ("this is exp of what is asked for: is a logarithm missing?", np.exp),
    (_CUT, np.trunc),
    ("the numbers are rounded down to whole ones: is there a // or a floor?", np.floor),
    (_CUT, lambda e: np.trunc(np.round(e, 9))),  # 0.9999999999999999 for 1
    *[(f"the numbers are rounded to {k} decimals; leave them as they are", _rounded(k)) for k in range(9)],
]
_OF_AN_ARRAY: list[Made] = [
    ("the numbers are right, but rows and columns have changed places: transpose it (.T)", np.transpose),
    ("the order is reversed: the last comes first", lambda e: e[::-1]),
    ("the order is reversed along the last axis", lambda e: e[..., ::-1]),
    ("the numbers are right, but an axis of length 1 is lost: see keepdims=True, or [:, None]", np.squeeze),
    ("one number comes out where an array is wanted: this is its sum; see axis=", np.sum),
    ("one number comes out where an array is wanted: this is its mean; see axis=", np.mean),
    ("this is the sum over all rows; each has a result of its own", lambda e: e.sum(axis=0)),
    ("this is the mean over all rows; each has a result of its own", lambda e: e.mean(axis=0)),
    ("this is the sum of each row", lambda e: e.sum(axis=-1)),
    ("this is the mean of each row", lambda e: e.mean(axis=-1)),
    ("the numbers are right, but the shape is lost: all stand in one row", np.ravel),
    ("off by one: the last is missing", lambda e: e[:-1]),
    ("off by one: the first is missing", lambda e: e[1:]),
    ("off by one: the last column is missing", lambda e: e[..., :-1]),
    ("off by one: everything stands one place too late", lambda e: np.roll(e, 1, axis=0)),
    ("off by one: everything stands one place too early", lambda e: np.roll(e, -1, axis=0)),
    ("off by one: everything stands one column too far right", lambda e: np.roll(e, 1, axis=-1)),
    ("off by one: everything stands one column too far left", lambda e: np.roll(e, -1, axis=-1)),
    ("the rows are made to length 1, which is not asked for", _unit),
    ("the rows are made to sum to 1, which is not asked for", _sums_to_1),
    ("the numbers are added up from the first to the last (cumsum)", lambda e: np.cumsum(e, axis=0)),
    ("only the diagonal is left", lambda e: np.diag(np.diag(e))),
    ("only what is above the diagonal is left", lambda e: np.triu(e, 1)),
    ("only what is below the diagonal is left", lambda e: np.tril(e, -1)),
]
# what would have to be made of what was found
_MISSING: list[Made] = [
    ("the numbers are right, but there is an axis of length 1 too many", np.squeeze),
    ("the signs should not be there: is an abs() missing?", np.abs),
    ("the directions are right, but the lengths are not 1", _unit),
    ("the rows do not sum to 1", _sums_to_1),
    ("the columns do not sum to 1", lambda f: _sums_to_1(f, 0)),
]


def _made(make: Callable[[Array], Any], x: Array) -> Array:
    try:
        return np.asarray(make(x), np.float64)
    except (ValueError, IndexError):  # not with this number of axes
        return np.array([])


def _made_of_it(found: Any, expected: Any, given: Mapping[str, Any], tolerance: float) -> Iterator[str]:
    """Every mistake that turns all of the right result into what was found, the plainest first."""
    f, e = _numbers(found), _numbers(expected)
    if f is None or e is None or f.dtype.kind == "c" or not f.size or not e.size:
        return
    tolerance = max(tolerance, FLOAT32) if f.dtype == np.float32 else tolerance
    if f.dtype == bool == e.dtype and np.array_equal(f, ~e):
        yield "True and False have changed places"
    for name, argument in given.items():
        x = _numbers(argument)
        if x is not None and x.ndim and _close(f, x, tolerance):
            yield f"this is {name} as it came in"
    f, e = f.astype(np.float64), e.astype(np.float64)
    for says, make in [*_OF_EACH_NUMBER, *(_OF_AN_ARRAY if e.ndim else [])]:
        made = _made(make, e)
        if np.isfinite(made).all() and _close(f, made, tolerance):
            yield says
    for says, make in _MISSING:
        if (f.ndim or make is np.abs) and _close(_made(make, f), e, tolerance):
            yield says
    factor = _factor(f, e, tolerance)
    for name, value in _constants(given) if factor else []:
        if math.isclose(abs(factor), value, rel_tol=max(1e-7, tolerance)):
            turned = ", and its sign is turned" if factor < 0 else ""
            yield f"every number comes out {name} times as large as it should be{turned}"


def _factor(f: Array, e: Array, tolerance: float) -> float:
    """The c with ``f = c e``, if there is one; else 0."""
    at = np.unravel_index(int(np.abs(e).argmax()), e.shape)
    factor = float(f[at] / e[at]) if f.shape == e.shape and e[at] else 0.0
    return factor if _close(f, factor * e, tolerance) else 0.0


def _constants(given: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Factors that are forgotten or come in twice: well-known numbers, and the sizes of the arguments."""
    known = {"2": 2.0, "4": 4.0, "10": 10.0, "100": 100.0}
    for name, argument in given.items():
        x = _numbers(argument)
        if x is None or not x.size:
            continue
        if x.ndim == 0 and x > 0:
            known[name] = float(x)
        known |= {f"{name}.shape[{i}]" if x.ndim > 1 else f"len({name})": float(n) for i, n in enumerate(x.shape)}
        known |= {f"{name}.size": float(x.size)} if x.ndim > 1 else {}
    for name, n in known.items():
        yield from ((name, n), (f"1/{name}", 1.0 / n), (f"sqrt({name})", n**0.5), (f"1/sqrt({name})", n**-0.5))
        if "[" in name or "len(" in name:  # ddof=1
            ratio = n / max(n - 1.0, 1.0)
            yield from ((f"{name}/({name} - 1)", ratio), (f"({name} - 1)/{name}", 1.0 / ratio))
            yield from ((f"sqrt({name}/({name} - 1))", ratio**0.5), (f"sqrt(({name} - 1)/{name})", ratio**-0.5))
    for name, n in (("ln 10", math.log(10.0)), ("ln 2", math.log(2.0)), ("pi", math.pi)):
        yield from ((name, n), (f"1/{name}", 1.0 / n))
    yield from (("180/pi", 180.0 / math.pi), ("pi/180", math.pi / 180.0))


def _partly_right(found: Any, expected: Any, given: Mapping[str, Any], tolerance: float) -> Iterator[str]:
    """What is right about it: the digits, some rows, all but the diagonal, the numbers but not their places."""
    f, e = _numbers(found), _numbers(expected)
    if f is None or e is None:
        if isinstance(found, list) and isinstance(expected, list):
            yield from _wrong_items(found, expected)
        return
    if not f.size or f.dtype.kind == "c":
        return
    whole_numbers = f.dtype.kind in "biu" and e.dtype.kind in "biu"
    f, e = f.astype(np.float64), e.astype(np.float64)
    if not np.isfinite(f).all() and np.isfinite(e).all():
        kind = "nan" if np.isnan(f).any() else "inf"
        yield f"there is {kind} in it: is something divided by zero, too large for exp, or outside of arccos or log?"
        return
    if f.size > 1 and f.size == e.size and _close(np.sort(f, axis=None), np.sort(e, axis=None), tolerance):
        places = "stand in the wrong places" if f.shape == e.shape else f"have the shape {f.shape}, not {e.shape}"
        yield f"the numbers are right, but they {places}"
    if f.shape != e.shape:
        return
    factor, offset = 0.0 if whole_numbers else _factor(f, e, tolerance), float((f - e).flat[0])
    if factor and f.size > 1:
        rounded = ": is a constant rounded?" if abs(factor - 1.0) < 0.01 else ""
        yield f"every number comes out {factor:.7g} times as large as it should be{rounded}"
        yield "the numbers are right but for one factor, the same for all of them"
    if f.size > 2 and _close(f, e + offset, tolerance):
        yield f"the same number is added to all: {offset:.5g}"
    if _close(f, e, 1e-6):
        yield "right to six digits or more: does float32 come in, a constant with too few digits, a measured slope?"
    right = np.abs(f - e) <= tolerance * float(np.abs(e).max())
    if e.ndim != 2 or min(e.shape) < 2:
        return
    if e.shape[0] == e.shape[1] and right[~np.eye(len(e), dtype=bool)].all():
        yield "it is right except on the diagonal"
    for name, x, y, ok in (("row", f, e, right), ("column", f.T, e.T, right.T)):
        whole: Array = ok.all(axis=1)
        if whole.any():
            only = f"only the first {name} is right" if whole[0] and whole.sum() == 1 else ""
            yield only or f"the first {name} that is wrong is {int(whole.argmin())}, counted from 0"
        factors = (x * y).sum(axis=1, keepdims=True) / np.square(y).sum(axis=1, keepdims=True)
        if factors.all() and _close(x, factors * y, tolerance):
            yield f"each {name} is right but for a factor of its own: what is it divided by?"
        if _close(x, y + (x - y)[:, :1], tolerance):
            yield f"each {name} is right but for a number of its own that is added to it"


def _wrong_items(found: list[Any], expected: list[Any]) -> Iterator[str]:
    all_text = all(isinstance(item, str) for item in [*found, *expected])
    is_so = {
        "there is a None in the list": any(item is None for item in found),
        "the list is empty": not found,
        "it begins right, but something is missing at the end": same(found, expected[: len(found)]),
        "it begins right, but there is something too much at the end": same(found[: len(expected)], expected),
        "the order is reversed: the last comes first": same(found, expected[::-1]),
        "the items are right, but not their order": sorted(map(repr, found)) == sorted(map(repr, expected)),
        "all of it is there, but it is divided in other places": all_text and "".join(found) == "".join(expected),
    }
    yield from [says for says, holds in is_so.items() if holds][:1]


def _first_difference(found: Any, expected: Any) -> str:
    f, e = _numbers(found), _numbers(expected)
    wanted = "a list" if isinstance(expected, (list, tuple)) else "text"
    if e is not None:
        wanted = f"an array of shape {e.shape}" if e.ndim else "True or False" if e.dtype == bool else "one number"
    if f is None or e is None:
        if wanted != "a list" or not isinstance(found, (list, tuple)):
            kind = _KINDS.get(type(found), f"of type {type(found).__name__}")
            return f"it gives {short(found)}" + (f", {kind}, and {wanted} is wanted" if kind != wanted else "")
        at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if not same(a, b)), None)
        return f"it gives {short(found)}" + (f"; wrong from [{at}] on, {short(found[at])}" if at is not None else "")
    if f.shape != e.shape:
        return f"it gives {f'an array of shape {f.shape}' if f.ndim else 'one number'}, and {wanted} is wanted"
    if e.dtype == bool and not np.isin(f, (0, 1)).all():
        return f"it gives {short(found)}, and True or False is wanted"
    if f.dtype.kind == "c":
        return "it gives complex numbers: is a root or a logarithm taken of something negative?"
    wrong = np.abs(f.astype(np.float64) - e)
    place = np.unravel_index(int(np.where(np.isnan(wrong), np.inf, wrong).argmax()), f.shape)
    where = f" at [{', '.join(str(int(i)) for i in place)}]" if f.ndim else ""
    a, b = f[place].item(), e[place].item()
    digits = _common_digits(a, b) if isinstance(a, float) and a * b > 0 and math.isclose(a, b, rel_tol=0.05) else ""
    if digits:
        count = len(digits.lstrip("-0.").replace(".", ""))
        return f"{digits}{where} begins right, and parts at digit {count + 1}"
    if f.dtype == bool or not a * b or a != a:
        return f"it gives {short(a)}{where}, which is wrong"
    how = "has the wrong sign" if a * b < 0 else "is too large" if a > b else "is too small"
    return f"it gives {short(a)}{where}, which {how}"


def _common_digits(a: float, b: float) -> str:
    """The first digits of a, as many as are also b's; "" if it is not even one behind the point.

    >>> _common_digits(-12.345, -12.3999), _common_digits(0.01999, 0.01991), _common_digits(1234.5, 1235.0)
    ('-12.3', '0.0199', '')
    """
    mine, theirs = f"{a:.17f}", f"{b:.17f}"
    count = next((i for i, (x, y) in enumerate(zip(mine, theirs, strict=False)) if x != y), len(mine))
    digits = mine[:count]
    return digits if re.search(r"\.\d*[1-9]\d*$", digits) or re.search(r"[1-9]\d*\.\d+$", digits) else ""


_KINDS = {str: "text", dict: "a dict", set: "a set, which has no order", np.ndarray: "an array of text"}
_KINDS |= {kind: "a list of something else, or with rows that differ in length" for kind in (list, tuple)}


def short(value: Any, largest: int = 6) -> str:
    """A value in a few characters; of an array with more than ``largest`` numbers the shape is enough."""
    if callable(value):
        return getattr(value, "__name__", "a function")
    if isinstance(value, np.ndarray) and value.size > largest:
        return f"an array of shape {value.shape}"
    if isinstance(value, np.ndarray):
        return " ".join(np.array2string(value, precision=7, separator=", ").split())
    if isinstance(value, (list, tuple)):
        items = ", ".join(short(item, largest) for item in value[:8]) + (", …" if len(value) > 8 else "")
        return f"[{items}]" if isinstance(value, list) else f"({items})"
    is_float = isinstance(value, (float, np.floating))
    text = f"{float(value):.6g}" if is_float else repr(value.tolist() if hasattr(value, "tolist") else value)
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:79]}…"
