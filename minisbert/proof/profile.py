"""Where the time of a forward pass goes: each operation's seconds beside its FLOP, bytes and this machine's ceilings.

The model's own functions run, wrapped in a clock for as long as they are measured. Of ``encode``'s worker threads, one
a core, what is shown is one alone.

Letters: ``B`` texts, ``N`` tokens in the strip, ``T`` tokens of one text, ``D`` hidden size, ``F`` feed-forward size,
``H`` heads, ``K`` = D/H, ``W`` width of a sentence vector.
"""

from __future__ import annotations

import threading
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from minisbert.encoder import SentenceEncoder
from minisbert.model import Array, bert, pooling
from minisbert.model.config import BertConfig
from minisbert.model.folder import SentenceModel
from minisbert.model.ops import ACTIVATIONS
from minisbert.model.pooling import Dense, Module, Normalize, Pooling
from minisbert.model.tokens import Tokenizer
from minisbert.parallel import keep_freed_memory, make_batches, threads

Key = tuple[str, str]  # block, operation

OPERATIONS = {
    ("tokenize", "tokenize"): "text -> N",
    ("embed", "look up, add"): "N -> (N,D)",
    ("embed", "LayerNorm"): "(N,D)",
    ("attention", "Q, K, V"): "(N,D)(D,D)",
    ("attention", "products"): "(T,K)(K,T)(T,K)",
    ("attention", "softmax"): "(H,T,T)",
    ("attention", "project"): "(N,D)(D,D)",
    ("attention", "LayerNorm"): "(N,D)",
    ("feed-forward", "expand"): "(N,D)(D,F)",
    ("feed-forward", "activation"): "(N,F)",
    ("feed-forward", "contract"): "(N,F)(F,D)",
    ("feed-forward", "add residual"): "(N,D)",
    ("feed-forward", "LayerNorm"): "(N,D)",
    ("modules", "pooling"): "(N,D) -> (B,W)",
    ("modules", "dense"): "(B,W)(W,W)",
    ("modules", "normalize"): "(B,W)",
}
"""What goes into each operation and comes out. ``products`` is all of attention that has no row of its own: Q K^T and
probs V, heads split, scaled and joined, the residual."""

# ------------------------------------------------------------------------------------------------ FLOP and bytes

_LAYER_NORM_FLOP = 7  # mean 1, minus 1, square and sum 2, times 1/std, weight, plus bias
_SOFTMAX_FLOP = 5  # maximum, minus, exp, sum, divide
_NORMALIZE_FLOP = 3  # square, sum, divide
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
        """One after the other."""
        return Cost(self.flop + other.flop, self.bytes + other.bytes)

    def __rmul__(self, count: int) -> Cost:
        """The same so many times."""
        return Cost(count * self.flop, count * self.bytes)


def count_costs(
    lengths: Array, config: BertConfig, modules: tuple[Module, ...] = (), dtype: npt.DTypeLike = "float32"
) -> dict[Key, Cost]:
    """Count FLOP and bytes of each of :data:`OPERATIONS` for a batch of texts, by formula, from sizes alone.

    A matrix product of ``(n, k)`` and ``(k, m)`` has ``2 n k m`` FLOP: with a bias that is exact (``k``
    multiplications, ``k - 1`` additions, one more for the bias). For the rest, every ``+ - * /``, comparison, square
    root, ``exp``, ``tanh`` and ``erfc`` of the formula counts as one for each number it is done on; what is done once a
    row is left out.

    The bytes are the fewest that could do: each input, each weight and each output once, and nothing for temporary
    arrays that a perfect program would not need.

    >>> costs = count_costs(np.array([5]), BertConfig())
    >>> costs["feed-forward", "expand"].flop == 12 * 2 * 5 * 768 * 3072  # bert-base: 12 layers
    True
    """
    dtype = np.dtype(dtype)
    d, f, texts, tokens = config.hidden_size, config.intermediate_size, len(lengths), int(lengths.sum())
    hidden = tokens * d  # numbers in a layer's input
    # numbers in a layer's attention scores: every token looks at each of its own text, H times
    scores = config.num_attention_heads * int((lengths.astype(np.int64) ** 2).sum())

    def cost(flop: int, numbers: int) -> Cost:
        return Cost(flop, numbers * dtype.itemsize)

    def linear(rows: int, d_in: int, d_out: int, bias: bool = True) -> Cost:
        return cost(2 * rows * d_in * d_out, rows * d_in + d_out * d_in + d_out * bias + rows * d_out)

    def activation(name: str, count: int) -> Cost:
        exact = name == "gelu" and dtype == np.float64
        return cost((_GELU_FLOAT64_FLOP if exact else _ACTIVATION_FLOP[name]) * count, 2 * count)

    layer_norm = cost(_LAYER_NORM_FLOP * hidden, 2 * hidden + 2 * d)
    residual = cost(hidden, 3 * hidden)
    # Q K^T and probs V alike: a dot product of K numbers, or K multiples added up, per score
    product = cost(2 * scores * config.head_size, 2 * hidden + scores)
    scale_query, join_heads = cost(hidden, 2 * hidden), cost(0, 2 * hidden)
    layer = {
        ("attention", "Q, K, V"): 3 * linear(tokens, d, d),
        ("attention", "products"): 2 * product + scale_query + join_heads + residual,
        ("attention", "softmax"): cost(_SOFTMAX_FLOP * scores, 2 * scores),
        ("attention", "project"): linear(tokens, d, d),
        ("attention", "LayerNorm"): layer_norm,
        ("feed-forward", "expand"): linear(tokens, d, f),
        ("feed-forward", "activation"): activation(config.activation, tokens * f),
        ("feed-forward", "contract"): linear(tokens, f, d),
        ("feed-forward", "add residual"): residual,
        ("feed-forward", "LayerNorm"): layer_norm,
    }
    # two look-ups and two additions; the token type is one row for all
    look_up = Cost(0, _ID_BYTES * tokens) + cost(2 * hidden, 3 * hidden + d)
    costs = dict.fromkeys(OPERATIONS, Cost())
    costs |= {("embed", "look up, add"): look_up, ("embed", "LayerNorm"): layer_norm}
    costs |= {operation: config.num_hidden_layers * each for operation, each in layer.items()}
    width = d
    for module in modules:
        if isinstance(module, Pooling):
            for mode in module.modes:
                flop = _POOLING_FLOP[mode] * hidden
                rows = hidden if flop else texts * d  # without FLOP: a copy of rows
                costs["modules", "pooling"] += cost(flop, texts * d + rows)
            width *= len(module.modes)
        elif isinstance(module, Dense):
            width, d_in = module.weight.shape
            costs["modules", "dense"] += linear(texts, d_in, width, module.bias is not None)
            costs["modules", "dense"] += activation(module.activation, texts * width)
        elif isinstance(module, Normalize):
            costs["modules", "normalize"] += cost(_NORMALIZE_FLOP * texts * width, 2 * texts * width)
    return costs


# ----------------------------------------------------------------------------------- what this machine can do

# The product that widens half a batch in all-MiniLM-L6-v2: as large as the model's own, 0.6 GFLOP, some milliseconds.
_ROWS, _INNER, _COLUMNS = 512, 384, 1536
# Each of the two arrays of a copy: several times what a processor's last cache holds for one core.
_COPIED_BYTES = 2**26
_TIMES = 30  # about a quarter of a second


def sgemm_ceiling(num_threads: int = 1, dtype: npt.DTypeLike = "float32") -> float:
    """Measure the best speed of ``(512, 384) @ (384, 1536)``, a product of the model's size, in GFLOP/s.

    float64 measures dgemm, of half the speed.
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
    once written, as in McCalpin's STREAM.
    """
    source, target = np.ones(_COPIED_BYTES, np.uint8), np.ones(_COPIED_BYTES, np.uint8)
    seconds = _fastest(lambda: np.copyto(target, source))
    return 2 * _COPIED_BYTES / seconds / 1e9


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of many times: the one that nobody disturbed; the first one wakes threads and pages."""
    return min(timeit.repeat(work, number=1, repeat=_TIMES))


@dataclass(frozen=True)
class Ceilings:
    """The roofline: no operation computes faster than the best matrix product, nor moves bytes faster than a copy.

    **Source**: Williams, Waterman & Patterson 2009.
    """

    gflop_per_s: float
    gb_per_s: float

    def least_seconds(self, cost: Cost) -> float:
        """Say how long something takes that computes and moves as fast as can be, both at once."""
        return max(cost.flop / self.gflop_per_s, cost.bytes / self.gb_per_s) / 1e9

    def bound(self, cost: Cost) -> str:
        """Say what would hold up a perfect program: memory, or computing."""
        return "memory" if cost.bytes / self.gb_per_s > cost.flop / self.gflop_per_s else "compute"


# ------------------------------------------------------------------------------------------------- the clock

_OTHER = ("", "other")  # what runs outside of all operations: batches, loops, Python itself
_ONE_AT_A_TIME = threading.Lock()  # two clocks would wrap each other's wrappers, and leave some behind


class Clock:
    """Seconds and calls of each operation; what runs inside another is charged to itself alone."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys([*OPERATIONS, _OTHER], 0.0)
        self.calls = dict.fromkeys([*OPERATIONS, _OTHER], 0)
        self.current = _OTHER
        self._thread = threading.get_ident()
        self.since = time.perf_counter()

    def wrap(self, function: Callable[..., Any], row: Key | Callable[..., Key]) -> Callable[..., Any]:
        """Charge a function's time to a row, or to the one that ``row`` tells from its arguments."""

        def timed(*arguments: Any, **options: Any) -> Any:
            if threading.get_ident() != self._thread:  # others at work in this process
                return function(*arguments, **options)
            before, operation = self.current, row(*arguments, **options) if callable(row) else row
            self.calls[operation] += 1
            self.turn_to(operation)
            try:
                return function(*arguments, **options)
            finally:
                self.turn_to(before)

        return timed

    def turn_to(self, operation: Key) -> None:
        """Charge what has passed, and look at the clock again, so that this bookkeeping is charged to nobody."""
        self.seconds[self.current] += time.perf_counter() - self.since
        self.current = operation
        self.since = time.perf_counter()


@contextmanager
def clocked(model: SentenceModel) -> Iterator[Clock]:
    """Wrap what a forward pass calls, where ``bert.py`` and ``pooling.py`` look it up; afterwards all is as before.

    A matrix product is told by its weights, a LayerNorm by the block around it. What a block does besides is charged to
    the block's own row.
    """
    projections = {}
    for layer in model.params.layers:
        for linear in (layer.attention.query, layer.attention.key, layer.attention.value):
            projections[id(linear.weight)] = ("attention", "Q, K, V")
        projections[id(layer.attention.output.weight)] = ("attention", "project")
        projections[id(layer.feed_forward.expand.weight)] = ("feed-forward", "expand")
        projections[id(layer.feed_forward.contract.weight)] = ("feed-forward", "contract")
    clock = Clock()
    rows: list[tuple[Any, str, Key | Callable[..., Key]]] = [
        (Tokenizer, "__call__", ("tokenize", "tokenize")),
        (bert, "embed", ("embed", "look up, add")),
        (bert, "attention", ("attention", "products")),
        (bert, "feed_forward", ("feed-forward", "add residual")),
        (bert, "linear", lambda x, weight, bias=None: projections.get(id(weight), clock.current)),
        (bert, "softmax", ("attention", "softmax")),
        (bert, "layer_norm", lambda *_, **__: (clock.current[0], "LayerNorm")),
        (pooling, "pool", ("modules", "pooling")),
        (pooling, "dense", ("modules", "dense")),
        (pooling, "normalize", ("modules", "normalize")),
    ]
    with _ONE_AT_A_TIME, ExitStack() as originals:
        forward, backward = ACTIVATIONS[model.config.activation]
        timed = clock.wrap(forward, ("feed-forward", "activation"))
        activations = ACTIVATIONS | {model.config.activation: (timed, backward)}
        replacements: list[tuple[Any, str, object]] = [(bert, "ACTIVATIONS", activations)]
        replacements += [(owner, name, clock.wrap(getattr(owner, name), row)) for owner, name, row in rows]
        for owner, name, replacement in replacements:
            originals.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, replacement)
        clock.since = time.perf_counter()
        yield clock
        clock.turn_to(_OTHER)


# ----------------------------------------------------------------------------------------------- the profile

_PATIENCE = 2.0  # seconds for all passes together, if nobody says how many
_FEWEST, _MOST = 3, 100


@dataclass(frozen=True)
class Row:
    """One operation, over all layers and batches of a pass."""

    block: str
    name: str
    calls: int
    seconds: float  # median over the passes
    cost: Cost


@dataclass(frozen=True)
class Profile:
    """One forward pass, operation by operation."""

    rows: tuple[Row, ...]
    other: float  # seconds that belong to no operation
    unclocked: float  # seconds of the same pass without the clock
    ceilings: Ceilings
    texts: int
    tokens: int
    batches: int
    passes: int
    num_threads: int

    @property
    def seconds(self) -> float:
        """All operations and the rest."""
        return sum(row.seconds for row in self.rows) + self.other

    @property
    def cost(self) -> Cost:
        """FLOP and bytes of all operations."""
        return sum((row.cost for row in self.rows), Cost())

    @property
    def least_seconds(self) -> float:
        """How long the pass would take with every operation at its ceiling."""
        return sum(self.ceilings.least_seconds(row.cost) for row in self.rows)


def one_pass(encoder: SentenceEncoder, texts: Sequence[str]) -> Array:
    """Turn texts without a prompt into vectors (B, W) as one worker of ``encode`` does, bit for bit."""
    model = encoder.model
    tokens = model.tokenizer(texts, encoder.max_seq_length)
    ids, vectors = tokens.split(), np.empty((len(texts), model.full_width), encoder.dtype)
    for batch in make_batches(tokens.lengths):
        strip, lengths = np.concatenate([ids[i] for i in batch]), tokens.lengths[batch]
        token_embeddings = bert.bert(strip, lengths, model.params, model.config)
        vectors[batch] = pooling.apply_modules(token_embeddings, lengths, model.modules)[-1]
    return vectors


def profile(
    encoder: SentenceEncoder, texts: Sequence[str], *, num_threads: int = 1, passes: int | None = None
) -> Profile:
    """Measure where the time of a forward pass goes.

    Parameters
    ----------
    encoder : SentenceEncoder
    texts : sequence of str
        At least one; no prompt is put before them.
    num_threads : int
        Threads of BLAS, so of matrix products; everything else runs on one. Each worker of ``encode`` has one.
    passes : int, optional
        How often the pass is repeated; by default for two seconds, 3 to 100 times.

    Returns
    -------
    Profile
        ``rows`` holds each operation's calls, median seconds, FLOP and bytes, in the order of computation; with
        ``other``, the time between operations, they add up to ``seconds``. ``ceilings`` is what this machine can do.

    Raises
    ------
    ValueError
        If there are no texts, or a number is below 1.

    Notes
    -----
    For as long as it measures, functions of ``minisbert.model`` are wrapped in a clock. Other threads run them as
    before; a second ``profile`` waits.

    Examples
    --------
    >>> from minisbert.encoder import SentenceEncoder
    >>> found = profile(SentenceEncoder(), ["i love soup"], passes=3)
    >>> found.tokens, [row.calls for row in found.rows if row.name == "LayerNorm"]
    (5, [1, 6, 6])
    """
    if not len(texts):
        raise ValueError("profile: expected at least one text, got none")
    if num_threads < 1 or (passes is not None and passes < 1):
        got = f"num_threads={num_threads}, passes={passes}"
        raise ValueError(f"profile: expected at least one thread and one pass, got {got}")
    model = encoder.model
    clocks: list[Clock] = []
    plain: list[float] = []
    before = sgemm_ceiling(num_threads, encoder.dtype), memory_bandwidth()
    keep_freed_memory()
    with threads.hold(num_threads):
        one_pass(encoder, texts)  # the first pass maps weights into memory
        end = time.perf_counter() + _PATIENCE
        # in turns without the clock and with it
        while len(clocks) < (passes or _FEWEST) or (
            passes is None and len(clocks) < _MOST and time.perf_counter() < end
        ):
            start = time.perf_counter()
            one_pass(encoder, texts)
            plain.append(time.perf_counter() - start)
            with clocked(model) as clock:
                one_pass(encoder, texts)
            clocks.append(clock)
    after = sgemm_ceiling(num_threads, encoder.dtype), memory_bandwidth()
    ceilings = Ceilings(*map(max, before, after))  # whoever disturbed the one may have spared the other
    lengths = model.tokenizer(texts, encoder.max_seq_length).lengths
    batches = [lengths[batch] for batch in make_batches(lengths)]
    costs = [count_costs(batch, model.config, model.modules, encoder.dtype) for batch in batches]
    rows = tuple(
        Row(
            *operation,
            clocks[0].calls[operation],
            median(clock.seconds[operation] for clock in clocks),
            sum((cost[operation] for cost in costs), Cost()),
        )
        for operation in OPERATIONS
        if clocks[0].calls[operation]  # a model without Dense has no such row
    )
    other = median(clock.seconds[_OTHER] for clock in clocks)
    return Profile(
        rows, other, median(plain), ceilings, len(texts), int(lengths.sum()), len(batches), len(clocks), num_threads
    )
