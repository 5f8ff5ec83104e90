"""Where the time of a forward pass goes: its FLOP and bytes by formula, this machine's ceilings, and a clock.

**FLOP** are counted as they are on paper. A matrix product of ``(n, k)`` and ``(k, m)`` has ``2 n k m``: with a bias
that is exact (``k`` multiplications, ``k - 1`` additions, one more for the bias). For the rest, every ``+ - * /``,
comparison, square root, ``exp``, ``tanh`` and ``erfc`` that the formula asks for counts as one for each number it is
done on; what is done once a row is left out. So softmax has 5 a score (maximum, minus, exp, sum, divide), LayerNorm 7
a number (mean 1, minus 1, square and sum 2, times 1/std, weight, plus bias), GELU in float32 the 17 of its formula.

**Bytes** are the fewest that could do: each input, each weight and each output once, and nothing for temporary arrays
that a perfect program would not need. Attention's split into heads and its joining are copies, and count as such.

**Ceilings** are measured here and now, because they depend on the processor, on the BLAS kernel and on who else is at
work: no operation computes faster than the best matrix product, and none whose numbers come from memory is faster than
memory brings them. **Source**: Williams, Waterman & Patterson 2009, the roofline model; McCalpin's STREAM for the way
to count bytes.

**The clock** charges what passes to the operation whose line runs: ``model/bert.py`` is written one operation a line,
and Python tells a trace function (``sys.settrace``) of each new line of a function. It costs a microsecond a line.

Letters: ``B`` texts, ``N`` tokens in the strip, ``T`` tokens of one text, ``D`` hidden size, ``F`` feed-forward size,
``H`` heads, ``K`` = D/H, ``W`` width of a sentence vector.
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
import numpy.typing as npt

from minisbert.blas import threads
from minisbert.encoder import SentenceEncoder
from minisbert.model import Array
from minisbert.model.bert import attention, bert, embed, feed_forward
from minisbert.model.config import BertConfig
from minisbert.model.modules import Dense, Module, Normalize, Pooling, apply_modules, dense
from minisbert.model.ops import normalize
from minisbert.model.pooling import pool
from minisbert.model.tokens import Tokenizer
from minisbert.schedule import keep_freed_memory, make_batches

_LAYER_NORM_FLOP, _SOFTMAX_FLOP, _NORMALIZE_FLOP = 7, 5, 3
_ACTIVATION_FLOP = {"identity": 0, "relu": 1, "tanh": 1, "sigmoid": 4, "silu": 5, "gelu_tanh": 9, "gelu": 17}
_GELU_FLOAT64_FLOP = 4  # x / -sqrt(2), erfc, times a half, times x
_POOLING_FLOP = {"mean": 1, "max": 1, "mean_sqrt_len_tokens": 1, "weightedmean": 2, "cls": 0, "lasttoken": 0}
_ID_BYTES = 8  # token ids are int64


@dataclass(frozen=True)
class Cost:
    """What something takes, at the least."""

    flop: int = 0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Take one after the other."""
        return Cost(self.flop + other.flop, self.bytes + other.bytes)

    def times(self, count: int) -> Cost:
        """Take the same so many times."""
        return Cost(count * self.flop, count * self.bytes)


@dataclass(frozen=True)
class Batch:
    """The sizes on which the cost of one batch depends."""

    lengths: Array  # (B,) tokens of each text
    config: BertConfig
    modules: tuple[Module, ...]
    dtype: np.dtype[Any]

    @property
    def tokens(self) -> int:
        """``N``."""
        return int(self.lengths.sum())

    @property
    def scores(self) -> int:
        """Numbers in one layer's attention scores: every token looks at each of its own text, ``H`` times."""
        return self.config.num_attention_heads * int((self.lengths.astype(np.int64) ** 2).sum())

    @property
    def hidden(self) -> int:
        """``N * D``: numbers in a layer's input."""
        return self.tokens * self.config.hidden_size

    @property
    def layers(self) -> int:
        """``L``."""
        return self.config.num_hidden_layers

    def cost(self, flop: int, numbers: int) -> Cost:
        """Say what so many FLOP and so many numbers, read or written, cost in this dtype."""
        return Cost(flop, numbers * self.dtype.itemsize)

    def linear(self, rows: int, d_in: int, d_out: int, bias: bool = True) -> Cost:
        """Cost of ``x @ weight.T + bias``."""
        numbers = rows * d_in + d_out * d_in + d_out * bias + rows * d_out
        return self.cost(2 * rows * d_in * d_out, numbers)

    def layer_norm(self) -> Cost:
        """Cost of one LayerNorm over the strip."""
        return self.cost(_LAYER_NORM_FLOP * self.hidden, 2 * self.hidden + 2 * self.config.hidden_size)

    def activation(self, name: str, count: int) -> Cost:
        """Cost of an activation of so many numbers."""
        exact = name == "gelu" and self.dtype == np.float64
        return self.cost((_GELU_FLOAT64_FLOP if exact else _ACTIVATION_FLOP[name]) * count, 2 * count)


def _look_up(batch: Batch) -> Cost:
    """Cost of two look-ups and two additions; the token type is one row for all."""
    ids = Cost(0, _ID_BYTES * batch.tokens)
    return ids + batch.cost(2 * batch.hidden, 3 * batch.hidden + batch.config.hidden_size)


def _square(batch: Batch) -> Cost:
    """Cost of one projection from D to D in every layer."""
    return batch.linear(batch.tokens, batch.config.hidden_size, batch.config.hidden_size).times(batch.layers)


def _scale(batch: Batch) -> Cost:
    """Cost of dividing the query by sqrt(K); key and value are only looked at in another shape."""
    return batch.cost(batch.hidden, 2 * batch.hidden).times(batch.layers)


def _heads_product(batch: Batch) -> Cost:
    """Cost of Q K^T, and of probs V as well: a dot product of K numbers, or K multiples added up, per score."""
    flop = 2 * batch.scores * batch.config.head_size
    return batch.cost(flop, 2 * batch.hidden + batch.scores).times(batch.layers)


def _softmax(batch: Batch) -> Cost:
    """Cost of the softmax of all scores."""
    return batch.cost(_SOFTMAX_FLOP * batch.scores, 2 * batch.scores).times(batch.layers)


def _join(batch: Batch) -> Cost:
    """Cost of the copy that puts the heads side by side."""
    return batch.cost(0, 2 * batch.hidden).times(batch.layers)


def _residual(batch: Batch) -> Cost:
    """Cost of one residual in every layer."""
    return batch.cost(batch.hidden, 3 * batch.hidden).times(batch.layers)


def _layer_norms(batch: Batch) -> Cost:
    """Cost of one LayerNorm in every layer."""
    return batch.layer_norm().times(batch.layers)


def _expand(batch: Batch) -> Cost:
    """Cost of the projection from D to F."""
    config = batch.config
    return batch.linear(batch.tokens, config.hidden_size, config.intermediate_size).times(batch.layers)


def _activate(batch: Batch) -> Cost:
    """Cost of the feed-forward's activation."""
    count = batch.tokens * batch.config.intermediate_size
    return batch.activation(batch.config.activation, count).times(batch.layers)


def _contract(batch: Batch) -> Cost:
    """Cost of the projection from F to D."""
    config = batch.config
    return batch.linear(batch.tokens, config.intermediate_size, config.hidden_size).times(batch.layers)


def _pool(batch: Batch) -> Cost:
    """Cost of pooling in all ways that the model asks for; [CLS] and the last token are copies of one row a text."""
    cost, rows = Cost(), len(batch.lengths) * batch.config.hidden_size
    for module in batch.modules:
        for mode in module.modes if isinstance(module, Pooling) else ():
            flop = _POOLING_FLOP[mode] * batch.hidden
            cost += batch.cost(flop, rows + (batch.hidden if flop else rows))
    return cost


def _dense(batch: Batch) -> Cost:
    """Cost of the Dense modules."""
    cost, texts = Cost(), len(batch.lengths)
    for module in batch.modules:
        if isinstance(module, Dense):
            d_out, d_in = module.weight.shape
            cost += batch.linear(texts, d_in, d_out, module.bias is not None)
            cost += batch.activation(module.activation, texts * d_out)
            if module.use_residual:
                cost += batch.cost(texts * d_out, 3 * texts * d_out)
            if module.residual is not None:
                cost += batch.linear(texts, d_in, d_out, bias=False)
    return cost


def _normalize(batch: Batch) -> Cost:
    """Cost of scaling the sentence vectors to length 1: square, sum and divide each number."""
    cost, width = Cost(), batch.config.hidden_size
    for module in batch.modules:
        if isinstance(module, Pooling):
            width *= len(module.modes)
        elif isinstance(module, Dense):
            width = len(module.weight)
        elif isinstance(module, Normalize):
            count = len(batch.lengths) * width
            cost += batch.cost(_NORMALIZE_FLOP * count, 2 * count)
    return cost


@dataclass(frozen=True)
class Operation:
    """One row of the table: what is done, in which function, in the lines that make which variables."""

    block: str
    name: str
    letters: str  # what goes in and comes out
    function: Callable[..., Any]
    makes: tuple[str, ...]  # none: the function as a whole
    cost: Callable[[Batch], Cost]


OPERATIONS = (
    Operation("tokenize", "tokenize", "text -> N", Tokenizer.__call__, (), lambda batch: Cost()),
    Operation("embed", "look up, add", "N -> (N,D)", embed, ("word", "position", "summed"), _look_up),
    Operation("embed", "LayerNorm", "(N,D)", embed, ("output",), Batch.layer_norm),
    Operation(
        "attention", "Q, K, V", "(N,D)(D,D)", attention, ("query", "key", "value"), lambda b: _square(b).times(3)
    ),
    Operation("attention", "split heads, scale", "(N,D) -> (H,T,K)", attention, ("q", "k", "v"), _scale),
    Operation("attention", "Q K^T", "(T,K)(K,T)", attention, ("scores",), _heads_product),
    Operation("attention", "softmax", "(H,T,T)", attention, ("probs",), _softmax),
    Operation("attention", "probs V", "(T,T)(T,K)", attention, ("gathered",), _heads_product),
    Operation("attention", "join heads", "(H,T,K) -> (N,D)", attention, ("context", "context[rows]"), _join),
    Operation("attention", "project", "(N,D)(D,D)", attention, ("projected",), _square),
    Operation("attention", "add residual", "(N,D)", attention, ("summed",), _residual),
    Operation("attention", "LayerNorm", "(N,D)", attention, ("output",), _layer_norms),
    Operation("feed-forward", "expand", "(N,D)(D,F)", feed_forward, ("expanded",), _expand),
    Operation("feed-forward", "activation", "(N,F)", feed_forward, ("activated",), _activate),
    Operation("feed-forward", "contract", "(N,F)(F,D)", feed_forward, ("projected",), _contract),
    Operation("feed-forward", "add residual", "(N,D)", feed_forward, ("summed",), _residual),
    Operation("feed-forward", "LayerNorm", "(N,D)", feed_forward, ("output",), _layer_norms),
    Operation("modules", "pooling", "(N,D) -> (B,W)", pool, (), _pool),
    Operation("modules", "dense", "(B,W)(W,W)", dense, (), _dense),
    Operation("modules", "normalize", "(B,W)", normalize, (), _normalize),
)
"""Everything that a forward pass does, in order. A model without Dense or Normalize has no such rows in its table."""


def count_costs(
    lengths: Array, config: BertConfig, modules: tuple[Module, ...] = (), dtype: npt.DTypeLike = "float32"
) -> list[Cost]:
    """Count FLOP and bytes of each operation for one batch.

    Parameters
    ----------
    lengths : Array, shape (B,)
        Tokens of each text.
    config : BertConfig
    modules : tuple of Module
        What follows BERT.
    dtype : {"float32", "float64"}
        Sets the bytes of a number, and which GELU is computed.

    Returns
    -------
    list of Cost
        One for each of :data:`OPERATIONS`.

    Examples
    --------
    >>> costs = dict(zip([op.name for op in OPERATIONS], count_costs(np.array([5]), BertConfig()), strict=True))
    >>> costs["expand"].flop == 12 * 2 * 5 * 768 * 3072  # bert-base: 12 layers
    True
    """
    batch = Batch(lengths, config, modules, np.dtype(dtype))
    return [operation.cost(batch) for operation in OPERATIONS]


# The product that widens half a batch in all-MiniLM-L6-v2: as large as the model's own, 0.6 GFLOP, some milliseconds.
_ROWS, _INNER, _COLUMNS = 512, 384, 1536
# Each of the two arrays of a copy: several times what a processor's last cache holds for one core.
_COPIED_BYTES = 2**26
_CEILING_PATIENCE = 0.25
_LEAST_TIMES = 5


def sgemm_ceiling(num_threads: int = 1, dtype: npt.DTypeLike = "float32") -> float:
    """Measure the best speed of ``(512, 384) @ (384, 1536)``, a product of the model's size, in GFLOP/s.

    A product of ``(n, k)`` and ``(k, m)`` has ``2 n k m`` FLOP. float64 measures dgemm, of half the speed.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((_ROWS, _INNER)).astype(dtype)
    weight = rng.standard_normal((_INNER, _COLUMNS)).astype(dtype)
    out = np.empty((_ROWS, _COLUMNS), dtype)  # made once: clearing new memory is no arithmetic
    with threads.hold(num_threads):
        seconds = _fastest(lambda: np.matmul(x, weight, out=out))
    return 2 * _ROWS * _INNER * _COLUMNS / seconds / 1e9


def memory_bandwidth() -> float:
    """Measure how fast one thread copies a large array, in GB/s.

    One thread, because NumPy does everything but matrix products on one. Each byte copied counts twice, once read and
    once written, as in STREAM.
    """
    source, target = np.ones(_COPIED_BYTES, np.uint8), np.ones(_COPIED_BYTES, np.uint8)
    seconds = _fastest(lambda: np.copyto(target, source))
    return 2 * _COPIED_BYTES / seconds / 1e9


def _fastest(work: Callable[[], object]) -> float:
    """Time something over and over for a quarter of a second; the fastest is the one that nobody disturbed."""
    best, times = float("inf"), 0
    work()  # the first one wakes threads and touches pages
    end = time.perf_counter() + _CEILING_PATIENCE
    while times < _LEAST_TIMES or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best, times = min(best, time.perf_counter() - start), times + 1
    return best


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
                raise ValueError(f"profile: {where} no longer makes {name!r}; OPERATIONS names the line to be clocked")
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
