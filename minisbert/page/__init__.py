r"""Two sentences become one number: the whole way on one HTML page that needs no network, every number real.

``show(encoder, "i love soup", "soup is my favorite")`` gives a :class:`Page`: Jupyter shows it, ``page.save(file)``
writes it. ``show.html`` is the page, ``style.css`` its look; ``numbers.js`` reads the tensors and computes the forward
pass once more, ``drawing.js`` draws them, ``cells.js`` opens one number to the arithmetic that made it, ``scenes.js``
has the ten scenes, ``main.js`` the rest. There is no build step.

**How a million numbers fit.** What a matrix of weights made (query, key, value, ...) is kept as float16; the weights
themselves, millions, are not on the page, but one row of each matrix is. All else the page can compute: sums,
LayerNorm, softmax, averages, GELU. Of these it keeps *what its own computation misses*, one byte each. So the page
recomputes every such number, shows how far off it was, and still shows the model's. What the cosine is made of is kept
as float32.

Letters: ``T`` tokens of one text, ``D`` hidden size, ``H`` heads, ``K`` = D/H, ``F`` feed-forward size, ``L`` layers.
"""

from __future__ import annotations

import base64
import html
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.analysis.explain import pair_contributions, why_no_pairs
from minisbert.encoder import SentenceEncoder, Trace
from minisbert.files import written_whole
from minisbert.html_page import assemble
from minisbert.model import Array
from minisbert.model.folder import SentenceModel
from minisbert.model.ops import ACTIVATIONS, layer_norm, softmax
from minisbert.model.pooling import Module, Pooling
from minisbert.model.tokens import Overflow
from minisbert.proof import mistakes
from minisbert.proof.ledger import compare, made_by, read_recorded, trace_tensors
from minisbert.similarity import pairwise_cos_sim

__all__ = ["Page", "page_of", "show"]

TEMPLATE = Path(__file__).with_name("show.html")
TITLE = "Two sentences become one number"
HALF = 2.0**-11  # how far rounding to float16 moves a number, relative to it
FRAME_HEIGHT = 900  # pixels, in a notebook
PADDED = 4
"""Rows of padding behind the longer text where a mistake is about padding, as far as the model has positions."""

# what the switch says, the operation, and how the sentence of minisbert.proof.mistakes begins
SWITCHES = (
    ("no √K", "scale", "the scores are not divided by sqrt(K)"),
    ("tanh GELU", "activation", "GELU is its tanh form"),
    ("LayerNorm first", "before", "LayerNorm comes before the block (pre-LN)"),
    ("last layer off", "layers", "a layer is missing, the last"),
    ("[CLS], not the mean", "pool", "the vector of [CLS] is the sentence vector"),
    ("padding in the mean", "pool", "padding is in the mean"),
)
NO_SEP = ("no [SEP]", "the last special token, [SEP], is not put behind the text")


@dataclass(frozen=True)
class Page:
    """A web page about two texts; Jupyter shows it in a frame of its own."""

    html: str = field(repr=False)
    texts: tuple[str, str]
    cosine: float

    def _repr_html_(self) -> str:
        # a sandbox without "allow-same-origin" keeps the page and the notebook apart
        return (
            f'<iframe title="{html.escape(TITLE)}" sandbox="allow-scripts" srcdoc="{html.escape(self.html)}" '
            f'style="width:100%;height:{FRAME_HEIGHT}px;border:1px solid #888"></iframe>'
        )

    def save(self, file: str | Path) -> None:
        """Write the page to a file, whole or not at all."""
        with written_whole(Path(file)) as stream:
            stream.write(self.html.encode())


def show(encoder: SentenceEncoder, text_a: str, text_b: str, *, overflow: Overflow = "warn") -> Page:
    """Show how two texts become one number: every tensor on the way, on one page without a network.

    Parameters
    ----------
    encoder : SentenceEncoder
    text_a, text_b : str
        Any texts. A token takes some 55 kB of the page, so that a phone opens two sentences, and a desktop two
        paragraphs.
    overflow : {"warn", "error", "truncate"}
        For texts that are longer than the model reads.

    Returns
    -------
    Page
        ``page.html`` is a str; ``page.save("page.html")`` writes it.

    Raises
    ------
    ValueError
        What ``encoder.trace`` raises.

    Notes
    -----
    The differences to PyTorch that the page quotes are those of ``minisbert verify`` on its recorded texts, measured
    as the page is written; another model than all-MiniLM-L6-v2 has none (``minisbert verify --against torch``).

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> show(SentenceEncoder(), "i love soup", "soup is my favorite")
    Page(texts=('i love soup', 'soup is my favorite'), cosine=0.924...)
    """
    return page_of(encoder.trace([text_a, text_b], overflow))


def page_of(trace: Trace) -> Page:
    """The page of a trace of two texts, as :func:`show` makes it; ValueError for more or fewer."""
    if len(trace.texts) != 2:
        raise ValueError(
            f"page_of: expected the trace of two texts, got {len(trace.texts)}: the page ends with their cosine; "
            'encoder.trace(["i love soup", "soup is my favorite"])'
        )
    encoder, numbers = trace.encoder, _Numbers()
    model, config = encoder.model, encoder.model.config
    columns = _columns(trace)
    added, norms = _keep_weights(numbers, model, columns, int(trace.lengths.max()))
    ends = np.cumsum(trace.lengths).tolist()
    rows = [slice(0, ends[0]), slice(*ends)]  # of each text in the strip
    for i in (0, 1):
        _keep_text(numbers, added, norms, trace, i, rows[i])
    for vectors in trace.modules:
        numbers.single(vectors)
    cosine = float(pairwise_cos_sim(*trace.sentence_embedding[:, None])[0])
    no_pairs = why_no_pairs(model.modules)
    pairs = None if no_pairs else pair_contributions(*(trace.bert.output[own] for own in rows)).tolist()
    data = {
        "texts": trace.texts,
        "pieces": [trace.pieces[own] for own in rows],
        "ids": [trace.token_ids[own].tolist() for own in rows],
        "lost": trace.lost.tolist(),
        "cosine": cosine,
        "pairs": pairs,
        "noPairs": no_pairs,
        "model": {
            **{"name": encoder.name, "dtype": encoder.dtype.name, "activation": config.activation},
            **{"D": config.hidden_size, "H": config.num_attention_heads, "K": config.head_size},
            **{"F": config.intermediate_size, "L": config.num_hidden_layers, "eps": config.layer_norm_eps},
            "modules": [_name(module) for module in model.modules],
            "widths": [vectors.shape[1] for vectors in trace.modules],
        },
        "columns": columns,
        "coefficients": numbers.coefficients,
        "ledger": _ledger(encoder),
        "madeBy": {name: made_by(name) for name in map(_short, trace_tensors(trace))},
        "switches": _switches(np.split(trace.token_ids, ends[:1]), model),
    }
    return Page(assemble(TEMPLATE, TITLE, data, **numbers.streams()), (trace.texts[0], trace.texts[1]), cosine)


# ----------------------------------------------------------------------------------------- the numbers, for numbers.js


class _Numbers:
    """Tensors as three streams of bytes, in the order in which ``numbers.js`` reads them.

    Each call returns what the page will have. Together with ``numbers.js`` this is the format.
    """

    def __init__(self) -> None:
        self.kept: dict[str, list[Array]] = {"halves": [], "singles": [], "bytes": []}
        self.coefficients: list[float] = []  # of the bytes, a tensor each

    def half(self, tensor: Array) -> Array:
        """Keep a tensor as float16."""
        with np.errstate(over="ignore"):
            halves = tensor.astype("<f2")
        if not np.isfinite(halves).all():
            raise ValueError(f"show: the page keeps numbers up to 65,504, and this model made {np.abs(tensor).max():g}")
        self.kept["halves"].append(halves)
        return halves.astype(np.float64)

    def single(self, tensor: Array) -> Array:
        """Keep a tensor as float32."""
        self.kept["singles"].append(tensor.astype("<f4"))
        return tensor.astype(np.float64)

    def missed(self, computed: Array, tensor: Array) -> Array:
        """Keep what the page's own computation misses: ``tensor = computed + byte * c (|computed| + mean |computed|)``.

        ``c`` is half a float16's last digit, or larger where the computation is further off.
        """
        size = np.abs(computed) + np.abs(computed).mean()
        share = np.divide(tensor - computed, size, out=np.zeros(size.shape), where=size > 0)
        coefficient = max(HALF, float(np.abs(share).max()) / 127)
        steps = np.round(share / coefficient).astype(np.int8)
        self.kept["bytes"].append(steps)
        self.coefficients.append(coefficient)
        return computed + steps * (coefficient * size)

    def streams(self) -> dict[str, str]:
        """Each stream in letters: all numbers' first bytes, then all second ones, which packs better; deflated."""
        found = {}
        for name, tensors in self.kept.items():
            flat = np.concatenate([tensor.ravel() for tensor in tensors])
            planes = flat.view(np.uint8).reshape(-1, flat.itemsize).T.tobytes()
            found[name] = base64.b64encode(zlib.compress(planes, 9)).decode()
        return found


MATRICES = ("query", "key", "value", "output", "expand", "contract")


def _columns(trace: Trace) -> list[dict[str, int]]:
    """Of each matrix the column whose results differ most from token to token: its weights are on the page."""
    found = []
    for layer in trace.bert.layers:
        looked, thought = layer.attention, layer.feed_forward
        # activated, not expanded: where GELU is flat there is little to see
        results = (looked.query, looked.key, looked.value, looked.projected, thought.activated, thought.projected)
        found.append({name: int(np.ptp(x, axis=0).argmax()) for name, x in zip(MATRICES, results, strict=True)})
    return found


def _keep_weights(
    numbers: _Numbers, model: SentenceModel, columns: list[dict[str, int]], length: int
) -> tuple[tuple[Array, Array], list[tuple[Array, Array]]]:
    """Keep what is added to each word, every LayerNorm, and one row of each matrix; give the former as kept."""
    tables = model.params.embeddings
    added = numbers.half(tables.position[:length]), numbers.half(tables.token_type[0])
    norms = [tables.layer_norm]
    for layer in model.params.layers:
        norms += [layer.attention.layer_norm, layer.feed_forward.layer_norm]
    kept = [(numbers.half(norm.weight), numbers.half(norm.bias)) for norm in norms]
    for layer, chosen in zip(model.params.layers, columns, strict=True):
        parts = {**vars(layer.attention), **vars(layer.feed_forward)}
        for name in MATRICES:
            numbers.half(parts[name].weight[chosen[name]])
            numbers.half(parts[name].bias[chosen[name]][None])
    return added, kept


def _keep_text(
    numbers: _Numbers, added: tuple[Array, Array], norms: list[tuple[Array, Array]], trace: Trace, i: int, own: slice
) -> None:
    """Keep every tensor of one text: the forward pass once more, from what the page has."""
    config = trace.encoder.model.config
    activation, _ = ACTIVATIONS[config.activation]
    norm = iter(norms)

    def normed(summed: Array, output: Array) -> Array:
        return numbers.missed(layer_norm(summed, *next(norm), config.layer_norm_eps), output[own])

    def heads(x: Array) -> Array:
        return x.reshape(len(x), config.num_attention_heads, config.head_size).swapaxes(0, 1)

    table, (position, token_type) = trace.bert.embeddings, added
    word = numbers.half(table.word[own])  # (T, D)
    hidden = normed(numbers.missed(word + position[: len(word)] + token_type, table.summed[own]), table.output)
    for layer in trace.bert.layers:
        looked, thought = layer.attention, layer.feed_forward
        query, key, value = (heads(numbers.half(x[own])) for x in (looked.query, looked.key, looked.value))
        scores = query @ key.swapaxes(1, 2) / config.head_size**0.5  # (H, T, T)
        runs = looked.probs  # of two texts of equal length there is one
        probs = numbers.missed(softmax(scores), runs[0][i] if len(runs) == 1 else runs[i][0])
        gathered = (probs @ value).swapaxes(0, 1).reshape(word.shape)
        numbers.missed(gathered, looked.context[own])
        projected = numbers.half(looked.projected[own])
        hidden = normed(numbers.missed(hidden + projected, looked.summed[own]), looked.output)
        expanded = numbers.half(thought.expanded[own])  # (T, F)
        numbers.missed(activation(expanded), thought.activated[own])
        projected = numbers.half(thought.projected[own])
        hidden = normed(numbers.missed(hidden + projected, thought.summed[own]), thought.output)
    numbers.single(trace.bert.output[own])  # what the cosine is made of


def _name(module: Module) -> str:
    return " + ".join(module.modes) if isinstance(module, Pooling) else type(module).__name__.lower()


# -------------------------------------------------------------------------------------------- what proves and breaks it


def _short(name: str) -> str:
    """A tensor's name on the page, where attention has no runs: "layers.0.attention.probs.1" without the last word."""
    return re.sub(r"(probs)\.\d+$", r"\1", name)


def _ledger(encoder: SentenceEncoder) -> dict[str, list[float]] | None:
    """Of each tensor the largest difference to PyTorch's and its bound; None for a model that was not recorded."""
    recorded = read_recorded()
    rows = compare(trace_tensors(encoder.trace(recorded.texts, "truncate")), recorded, encoder.dtype)
    if not all(row.agrees for row in rows):
        return None
    found: dict[str, list[float]] = {}
    for row in rows:
        before = found.get(_short(row.name), [0.0, 0.0])
        found[_short(row.name)] = [max(before[0], row.difference), max(before[1], row.bound)]
    return found


def _switches(texts: Sequence[Array], model: SentenceModel) -> list[dict[str, Any]]:
    """What each mistake makes of the cosine, and how far it moves each tensor, relative to its largest number."""
    config, length = model.config, min(max(map(len, texts)) + PADDED, model.config.max_position_embeddings)

    def made(texts: Sequence[Array], *changes: mistakes.Change) -> dict[str, list[Array]]:
        """Each tensor of each text, as a port computes it that pads."""
        batch = mistakes.Batch.of(texts, length)
        return {n: batch.by_text(n, x) for n, x in mistakes.forward(batch, model, mistakes.Recipe(*changes)).items()}

    first, right = model.modules[0], made(texts)
    is_right = {  # what is no mistake in this model
        "activation": config.activation != "gelu",
        "pool": not (isinstance(first, Pooling) and first.modes == ("mean",)),
    }
    sizes = {"K": config.head_size, "D": config.hidden_size, "H": config.num_attention_heads}
    wrong = {}
    for label, op, says in SWITCHES:
        if not is_right.get(op):
            mistake = next(one for one in mistakes.mistakes_of(op) if one.says.startswith(says))
            wrong[label, mistake.says.format(**sizes)] = made(texts, mistakes.Change(mistake))
    if last := len(model.tokenizer.last):
        wrong[NO_SEP] = made([ids[:-last] for ids in texts])
    return [
        {
            "label": label,
            "says": says,
            "cosine": float(pairwise_cos_sim(*(x[None] for x in of["sentence_embedding"]))[0]),
            "moved": {n: [*map(_moved, right[n], of[n])] if n in of else None for n in right},
        }
        for (label, says), of in wrong.items()
    ]


def _moved(right: Array, wrong: Array) -> float:
    """``max |wrong - right| / max |right|``, of the tokens that both have."""
    both = tuple(slice(min(sizes)) for sizes in zip(right.shape, wrong.shape, strict=True))
    return float(np.abs(wrong[both] - right[both]).max() / max(float(np.abs(right).max()), 1e-30))
