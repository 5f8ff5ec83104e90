"""Where the time of a forward pass goes: the code that runs, under a clock, line by line.

``model/bert.py`` is written one operation a line, so the time of a line is the time of an operation. Python tells a
trace function (``sys.settrace``) when it comes to a new line of a function, and :class:`Clock` charges what has passed
since to the operation whose line it was. Nothing is copied or replaced: the same functions compute the same bits. A
trace function belongs to its thread, so others at work in the process do not notice. It costs a microsecond a line.

Each operation's seconds stand beside what it costs (``costs.py``) and beside the seconds that it would take at the
ceilings of this machine (``ceiling.py``). Of ``encode``'s worker threads, one a core, what is shown is one alone.

Letters: ``B`` texts, ``W`` width of a sentence vector.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from types import CodeType, FrameType, TracebackType
from typing import Any

import numpy as np

from minisbert.encoder import SentenceEncoder
from minisbert.model import Array
from minisbert.model.bert import bert
from minisbert.model.pooling import apply_modules
from minisbert.parallel import keep_freed_memory, make_batches, threads
from minisbert.proof.ceiling import memory_bandwidth, sgemm_ceiling
from minisbert.proof.costs import OPERATIONS, Cost, Operation, count_costs

_BETWEEN = len(OPERATIONS)  # where the time goes that belongs to no operation: loops, calls, Python itself
_PATIENCE = 2.0  # seconds for all passes together, if nobody says how many
_FEWEST, _MOST = 3, 100


@cache
def _places() -> dict[CodeType, dict[int, int]]:
    """Find, for each function that is clocked, the lines of each operation; for one that is clocked whole, none."""
    places: dict[CodeType, dict[int, int]] = {}
    for index, operation in enumerate(OPERATIONS):
        lines = places.setdefault(operation.function.__code__, {})
        made = _lines_that_make(operation.function) if operation.makes else {}
        for name in operation.makes:
            if name not in made:
                where = f"{operation.function.__module__}.{operation.function.__name__}"
                raise ValueError(f"profile: {where} no longer makes {name!r}; costs.py names the line to be clocked")
            lines |= dict.fromkeys(made[name], index)
    return places


def _lines_that_make(function: Callable[..., Any]) -> dict[str, range]:
    """Give the lines of each assignment in a function by what is assigned to: a name, or ``name[rows]``."""
    source, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(source)))
    return {
        ast.unparse(node.targets[0]): range(node.lineno + first - 1, (node.end_lineno or node.lineno) + first)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
    }


class Clock:
    """Charge the time inside ``with clock:`` to the operation whose line runs; the rest to what is between them.

    Examples
    --------
    >>> from minisbert.model.ops import normalize
    >>> clock = Clock()
    >>> with clock:
    ...     vectors = normalize(np.ones((2, 3)))
    >>> clock.calls[-1], clock.seconds[-2] > 0.0
    (1, True)
    """

    def __init__(self) -> None:
        self.seconds = [0.0] * (len(OPERATIONS) + 1)  # the last: between the operations
        self.calls = [0] * len(OPERATIONS)  # how often a line of the operation ran
        self._places = _places()
        self._whole = {op.function.__code__: i for i, op in enumerate(OPERATIONS) if not op.makes}
        self._current, self._since = _BETWEEN, 0.0
        self._before: Any = None

    def __enter__(self) -> Clock:
        """Start; another trace function, a debugger's for instance, has to wait."""
        self._before = sys.gettrace()
        self._current, self._since = _BETWEEN, time.perf_counter()
        sys.settrace(self._called)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, whatever has happened."""
        sys.settrace(self._before)
        self._turn_to(_BETWEEN, time.perf_counter())

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        """Python calls a function: follow it if it is one of ours."""
        if frame.f_code not in self._places:
            return None
        if (index := self._whole.get(frame.f_code)) is not None:
            frame.f_trace_lines = False
            self.calls[index] += 1
            self._turn_to(index, time.perf_counter())
        return self._moved

    def _moved(self, frame: FrameType, event: str, argument: object) -> Any:
        """Python comes to a line of a function of ours, or leaves it."""
        now = time.perf_counter()  # first of all, so that as little as can be of what follows is charged to a line
        if event == "line":
            index = self._places[frame.f_code].get(frame.f_lineno, _BETWEEN)
            if index != _BETWEEN:
                self.calls[index] += 1
            self._turn_to(index, now)
        elif event == "return":
            self._turn_to(_BETWEEN, now)
        return self._moved

    def _turn_to(self, index: int, now: float) -> None:
        """Charge what has passed, and look at the clock again, so that this bookkeeping is charged to nobody."""
        self.seconds[self._current] += now - self._since
        self._current = index
        self._since = time.perf_counter()


@dataclass(frozen=True)
class Ceilings:
    """What this machine can do at best."""

    gflop_per_s: float  # of a matrix product
    gb_per_s: float  # from memory and back, one thread

    def least_seconds(self, cost: Cost) -> float:
        """Say how long something takes if it computes and moves as fast as can be, both at once."""
        return max(self._computing(cost), self._moving(cost))

    def bound(self, cost: Cost) -> str:
        """Say what would hold up a perfect program: memory, or computing."""
        return "memory" if self._moving(cost) > self._computing(cost) else "compute"

    def _computing(self, cost: Cost) -> float:
        return cost.flop / self.gflop_per_s / 1e9

    def _moving(self, cost: Cost) -> float:
        return cost.bytes / self.gb_per_s / 1e9


@dataclass(frozen=True)
class Row:
    """One operation, over all layers and batches of a pass."""

    operation: Operation
    calls: int
    seconds: float  # median over the passes
    cost: Cost


@dataclass(frozen=True)
class Profile:
    """One forward pass, operation by operation."""

    rows: tuple[Row, ...]
    between: float  # seconds that belong to no operation
    unclocked: float  # seconds of the same pass without the clock
    ceilings: Ceilings
    texts: int
    tokens: int
    batches: int
    passes: int
    num_threads: int

    @property
    def seconds(self) -> float:
        """All operations and what is between them."""
        return sum(row.seconds for row in self.rows) + self.between

    @property
    def cost(self) -> Cost:
        """FLOP and bytes of all operations."""
        return sum((row.cost for row in self.rows), Cost())

    @property
    def least_seconds(self) -> float:
        """How long the pass would take with every operation at its ceiling."""
        return sum(self.ceilings.least_seconds(row.cost) for row in self.rows)


def one_pass(encoder: SentenceEncoder, texts: Sequence[str]) -> Array:
    """Turn texts into vectors as one worker of ``encode`` does: split, batch, compute.

    Parameters
    ----------
    encoder : SentenceEncoder
    texts : sequence of str
        Taken as they are: no prompt is put before them.

    Returns
    -------
    Array, shape (B, W)
        Bit for bit what ``encode(texts, num_threads=1)`` gives.

    Examples
    --------
    >>> from minisbert.encoder import SentenceEncoder
    >>> one_pass(SentenceEncoder(), ["i love soup"]).shape
    (1, 384)
    """
    model = encoder.model
    tokens = model.tokenizer(texts, encoder.max_seq_length)
    ids, vectors = tokens.split(), np.empty((len(texts), model.full_width), encoder.dtype)
    for batch in make_batches(tokens.lengths):
        strip, lengths = np.concatenate([ids[i] for i in batch]), tokens.lengths[batch]
        token_embeddings = bert(strip, lengths, model.params, model.config)
        vectors[batch] = apply_modules(token_embeddings, lengths, model.modules)[-1]
    return vectors


def profile(
    encoder: SentenceEncoder, texts: Sequence[str], *, num_threads: int = 1, passes: int | None = None
) -> Profile:
    """Measure where the time of a forward pass goes.

    Parameters
    ----------
    encoder : SentenceEncoder
    texts : sequence of str
        At least one.
    num_threads : int
        Threads of BLAS, so of matrix products; everything else is on one. Each worker of ``encode`` has one.
    passes : int, optional
        How often the pass is repeated; by default for two seconds, but from 3 times to 100.

    Returns
    -------
    Profile
        Each operation's median over the passes.

    Raises
    ------
    ValueError
        If there are no texts, or a number is below 1.

    Examples
    --------
    >>> from minisbert.encoder import SentenceEncoder
    >>> found = profile(SentenceEncoder(), ["i love soup"], passes=3)
    >>> found.tokens, [row.calls for row in found.rows if row.operation.name == "LayerNorm"]
    (5, [1, 6, 6])
    """
    if not len(texts) or num_threads < 1 or (passes is not None and passes < 1):
        got = f"{len(texts)} texts, num_threads={num_threads}, passes={passes}"
        raise ValueError(f"profile: expected at least one text, one thread and one pass, got {got}")
    before = sgemm_ceiling(num_threads, encoder.dtype), memory_bandwidth()
    keep_freed_memory()
    with threads.hold(num_threads):
        clocks, unclocked = _repeat(lambda: one_pass(encoder, texts), passes)
    after = sgemm_ceiling(num_threads, encoder.dtype), memory_bandwidth()
    ceilings = Ceilings(*map(max, before, after))  # whoever disturbed the one may have spared the other
    lengths = encoder.model.tokenizer(texts, encoder.max_seq_length).lengths
    batches = make_batches(lengths)
    config, modules = encoder.model.config, encoder.model.modules
    rows = _rows(clocks, [count_costs(lengths[b], config, modules, encoder.dtype) for b in batches])
    between = median(clock.seconds[_BETWEEN] for clock in clocks)
    return Profile(
        rows, between, unclocked, ceilings, len(texts), int(lengths.sum()), len(batches), len(clocks), num_threads
    )


def _repeat(work: Callable[[], object], passes: int | None) -> tuple[list[Clock], float]:
    """Run a pass again and again, in turns with the clock and without; give the clocks, and the median without."""
    work()  # the first pass maps weights into memory
    clocks: list[Clock] = []
    plain: list[float] = []
    end = time.perf_counter() + _PATIENCE
    while len(clocks) < (passes or _FEWEST) or (passes is None and len(clocks) < _MOST and time.perf_counter() < end):
        start = time.perf_counter()
        work()
        plain.append(time.perf_counter() - start)
        clocks.append(Clock())
        with clocks[-1]:
            work()
    return clocks, median(plain)


def _rows(clocks: list[Clock], costs: list[list[Cost]]) -> tuple[Row, ...]:
    """Put time and cost together; what the model does not have makes no row."""
    return tuple(
        Row(operation, clocks[0].calls[i], median(c.seconds[i] for c in clocks), sum((c[i] for c in costs), Cost()))
        for i, operation in enumerate(OPERATIONS)
        if clocks[0].calls[i]
    )
