"""The ladder's sixteen functions: on which inputs each is called, what is right, and which mistakes are known.

Each is about one text, without batch or padding, and has the arguments that ``notebooks/my_bert.py`` gives it. Part one
takes its mistakes from :mod:`minisbert.proof.mistakes`, operation by operation, and so come pairs of them; those of the
loss and of the gradients stand here. Letters: ``T`` tokens, ``D`` hidden size, ``H`` heads, ``B`` pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np

from minisbert.encoder import SentenceEncoder
from minisbert.model import Array, ops
from minisbert.model.config import BertConfig
from minisbert.model.params import build_params
from minisbert.model.pooling import Normalize, Pooling
from minisbert.proof import mistakes
from minisbert.proof.mistakes import Batch, Change, Recipe, mistakes_of
from minisbert.proof.steps import PAIRS
from minisbert.training.step import named_parameters

Weights = Mapping[str, Array]
Function = Callable[..., Any]
EPS, HEADS = 1e-12, 12
TEXTS = ("i love soup", "soup is my favorite dish", "what is the weather like in london today?")
"""Of 5, 7 and 11 tokens: sizes that differ from each other and from H, so that no wrong axis fits by chance."""

# ------------------------------------------------------------------------------------------------------ what is right


def _model(weights: Weights, hidden_size: int, heads: int, eps: float) -> Any:
    """What :mod:`~minisbert.proof.mistakes` asks of a model, with the weights of one layer, or of the embeddings."""
    config = BertConfig(hidden_size=hidden_size, num_hidden_layers=1, num_attention_heads=heads, layer_norm_eps=eps)
    tensor: Any = lambda name, shape: weights.get(name.removeprefix("encoder.layer.0."))  # noqa: E731
    return SimpleNamespace(config=config, params=build_params(config, tensor))


def _embed(do: Recipe, token_ids: Array, weights: Weights, eps: float = EPS) -> Array:
    model = _model(weights, len(weights["embeddings.LayerNorm.bias"]), HEADS, eps)
    return mistakes.embed(do, "embeddings", Batch.of([token_ids]), model)["output"][0]


def _layer_norm(do: Recipe, x: Array, weight: Array, bias: Array, eps: float = EPS) -> Array:
    return do("layer_norm", "")(x[None], weight, bias, eps)[0]


def _linear(do: Recipe, x: Array, weight: Array, bias: Array) -> Array:
    return do("linear", "")(x[None], weight, bias)[0]


def _attention_scores(do: Recipe, query: Array, key: Array, heads: int) -> Array:
    q, k = (do("split", "")(x[None], heads) for x in (query, key))
    scores = do("scale", "")(do("scores", "")(q, k), q.shape[-1], query.shape[1])
    return do("mask", "")(scores, np.ones((1, len(query), len(query)), bool))[0]


def _softmax(do: Recipe, scores: Array) -> Array:
    return do("softmax", "")(scores.reshape((1,) * (4 - scores.ndim) + scores.shape)).reshape(scores.shape)


def _attention(do: Recipe, hidden: Array, weights: Weights, heads: int = HEADS) -> Array:
    x, model = hidden[None], _model(weights, hidden.shape[1], heads, EPS)
    return mistakes.attention(do, "attention", x, x, Batch.of([np.zeros(len(hidden), int)]), model, 0)["output"][0]


def _gelu(do: Recipe, x: Array) -> Array:
    return do("activation", "")(x)


def _feed_forward(do: Recipe, hidden: Array, weights: Weights) -> Array:
    x, model = hidden[None], _model(weights, hidden.shape[1], HEADS, EPS)
    return mistakes.feed_forward(do, "feed_forward", x, x, x, model, 0)["output"][0]


def _mean_pool(do: Recipe, hidden: Array) -> Array:
    return do("pool", "")(hidden[None], np.ones((1, len(hidden)), bool))[0]


def _normalize(do: Recipe, x: Array) -> Array:
    return do("normalize", "")(x)


def _info_nce(anchors: Array, positives: Array, scale: float = 20.0) -> Array:
    return _losses(scale * anchors @ positives.T).mean()


def _losses(scores: Array, top: Any = None, counted: Any = 1.0) -> Array:
    """``-log(softmax(scores)[i, i])`` of each row; ``counted`` are the candidates below the line."""
    top = scores.max(axis=1, keepdims=True) if top is None else top
    return np.log((np.exp(scores - top) * counted).sum(axis=1)) + (top - scores).diagonal()


PART_ONE: dict[str, tuple[Callable[..., Array], str]] = {  # how it is computed, and of which operations
    "embed": (_embed, "word position token_type layer_norm"),
    "layer_norm": (_layer_norm, "layer_norm"),
    "linear": (_linear, "linear"),
    "attention_scores": (_attention_scores, "split scores scale mask"),
    "softmax": (_softmax, "softmax"),
    "attention": (
        _attention,
        "before linear split scores scale mask softmax gather join residual layer_norm weights stored round",
    ),
    "gelu": (_gelu, "activation"),
    "feed_forward": (_feed_forward, "before linear activation residual layer_norm weights stored round"),
    "mean_pool": (_mean_pool, "pool"),
    "normalize": (_normalize, "normalize"),
}
RIGHT: dict[str, Function] = {
    **{name: partial(function, Recipe()) for name, (function, _) in PART_ONE.items()},
    "info_nce": _info_nce,
    "softmax_backward": ops.softmax_backward,
    "linear_backward": ops.linear_backward,
    "layer_norm_backward": lambda d_y, x, weight, eps=EPS: ops.layer_norm_backward(d_y, x, weight, eps),
    "gelu_backward": ops.gelu_backward,
    "normalize_backward": lambda d_y, x: ops.normalize_backward(d_y, x),
}
RESULTS = {"linear_backward": ("d_x", "d_weight", "d_bias"), "layer_norm_backward": ("d_x", "d_weight", "d_bias")}
"""The results of functions that have several."""


# ----------------------------------------------------------------------------------------------------- known mistakes


# What part one's operations do not have to fear in BERT but a function alone has, and all of part two. A function, or
# one of its results -> what goes wrong, computed from the arguments, or from what _PREPARED makes of them.
_OWN: dict[str, list[tuple[str, Function]]] = {
    "softmax": [
        ("exp overflows where scores are large: subtract each row's maximum first", lambda s: _over_sum(np.exp(s))),
        ("softmax goes over the first axis, not over the last", lambda s: mistakes.softmax(s, 0)),
    ],
    "layer_norm": [
        ("eps is not added", lambda x, w, b, e=EPS: (x - _mean(x)) / _std(x) * w + b),
        ("eps is added behind the root", lambda x, w, b, e=EPS: (x - _mean(x)) / (_std(x) + e) * w + b),
        ("eps is squared", lambda x, w, b, e=EPS: (x - _mean(x)) / np.sqrt(_std(x) ** 2 + e * e) * w + b),
    ],
    "gelu": [
        ("1 + before erf is missing", lambda x: ops.gelu(x) - x / 2),
        ("the sign of erf is turned", lambda x: x - ops.gelu(x)),
    ],
    "normalize": [("zeros are divided by their length, 0", lambda x: x / np.linalg.norm(x))],
    "mean_pool": [
        ("the mean goes along the wrong axis: one number for each token", lambda x: x.mean(axis=1)),
        ("the mean is one number: axis= is missing", lambda x: x.mean()),
        ("the sum is divided by D, not by the number of tokens", lambda x: x.sum(axis=0) / x.shape[1]),
        ("it is normalised already, the next function's work", lambda x: ops.normalize(x.mean(axis=0))),
    ],
    "info_nce": [  # of the cosines c (B, B) and the scale k
        ("the scale is not used", lambda c, k: _losses(c).mean()),
        ("the scale is 20, whatever the argument says", lambda c, k: _losses(20 * c).mean()),
        ("the cosines are divided by scale, not multiplied", lambda c, k: _losses(c / k).mean()),
        ("each positive picks an anchor, not each anchor a positive", lambda c, k: _losses(k * c.T).mean()),
        ("both directions are averaged", lambda c, k: (_losses(k * c) + _losses(k * c.T)).mean() / 2),
        ("both directions are added", lambda c, k: (_losses(k * c) + _losses(k * c.T)).mean()),
        ("the losses are added up, not averaged", lambda c, k: _losses(k * c).sum()),
        ("one number for each pair comes back, not their mean", lambda c, k: _losses(k * c)),
        ("the mean goes over B x B numbers, not over the B pairs", lambda c, k: _losses(k * c).mean() / len(c)),
        ("the positive is missing among the candidates", lambda c, k: _losses(k * c, None, 1 - np.eye(len(c))).mean()),
        ("the logarithm is missing", lambda c, k: -np.exp(-_losses(k * c)).mean()),
        ("logarithm and minus are missing", lambda c, k: np.exp(-_losses(k * c)).mean()),
        ("the minus is missing: it is the mean of log p", lambda c, k: -_losses(k * c).mean()),
        ("log of the mean is taken, not the mean of logs", lambda c, k: -np.log(np.exp(-_losses(k * c)).mean())),
        ("the logarithm has base 2", lambda c, k: _losses(k * c).mean() / math.log(2)),
        ("only the positives count: -mean(s_ii)", lambda c, k: -(k * c).diagonal().mean()),
        ("exp overflows where scale is large: subtract each row's maximum", lambda c, k: _losses(k * c, 0.0).mean()),
    ],
    "softmax_backward": [
        ("no sum is subtracted, as if the probabilities of a row did not sum to 1", lambda d, p: p * d),
        ("only the diagonal of the derivative, p (1 - p), is used", lambda d, p: p * d * (1 - p)),
        ("the factor probs in front is missing", lambda d, p: d - _sum(d * p)),
        ("the subtracted sum is not weighted by probs", lambda d, p: p * (d - _sum(d))),
        ("the mean is subtracted, not the sum weighted by probs", lambda d, p: p * (d - _mean(d))),
        ("the mean is subtracted, not the sum", lambda d, p: p * (d - _mean(d * p))),
        ("the sum is added, not subtracted", lambda d, p: p * (d + _sum(d * p))),
        ("the subtracted sum is not multiplied by probs", lambda d, p: p * d - _sum(d * p)),
        ("the sum goes over the last axis but one, not over the last", lambda d, p: p * (d - _sum(d * p, -2))),
        ("the sum goes over the first axis, not over the last", lambda d, p: p * (d - _sum(d * p, 0))),
        ("the sum goes over everything, not over each row", lambda d, p: p * (d - (d * p).sum())),
        ("probs goes through softmax again", lambda d, p: ops.softmax_backward(d, ops.softmax(p))),
    ],
    "linear_backward.d_x": [
        ("weight is transposed, which y = x @ weight.T has undone", lambda d, x, w: d @ w.T),
    ],
    "linear_backward.d_weight": [
        ("it is transposed: it has the shape of weight", lambda d, x, w: x.T @ d),
        ("it is averaged over the rows, not summed", lambda d, x, w: d.T @ x / len(x)),
    ],
    "linear_backward.d_bias": [
        ("it is averaged over the rows, not summed", lambda d, x, w: d.mean(axis=0)),
        ("it is summed over the wrong axis", lambda d, x, w: d.sum(axis=1)),
        ("it is not summed over the rows, each of which got the bias", lambda d, x, w: d),
        ("it is one number: axis= is missing", lambda d, x, w: d.sum()),
        ("it is all ones: d_y is missing", lambda d, x, w: np.ones(d.shape[1])),
    ],
    "layer_norm_backward.d_x": [  # of d_y, d_z = d_y weight, x, weight, the normalised x, and the deviation
        ("mean(d_z) is not subtracted: x moves its row's mean", lambda d, e, x, w, z, s: (e - z * _mean(e * z)) / s),
        ("z mean(d_z z) is not subtracted: x moves its row's variance", lambda d, e, x, w, z, s: (e - _mean(e)) / s),
        ("mean and variance are taken for constants, but x moves both", lambda d, e, x, w, z, s: e / s),
        ("d_y is not multiplied by weight", lambda d, e, x, w, z, s: _through(d, z) / s),
        ("it is not divided by the standard deviation", lambda d, e, x, w, z, s: _through(e, z)),
        ("it is multiplied by the standard deviation, not divided", lambda d, e, x, w, z, s: _through(e, z) * s),
        ("it is divided by the variance, not by its root", lambda d, e, x, w, z, s: _through(e, z) / s**2),
        ("it is multiplied by weight behind the means, not before", lambda d, e, x, w, z, s: _through(d, z) * w / s),
        ("the two means go over the rows, not along each", lambda d, e, x, w, z, s: _through(e, z, 0) / s),
        ("sum(d_z) is subtracted, not its mean", lambda d, e, x, w, z, s: (e - _sum(e) - z * _mean(e * z)) / s),
        ("z sum(d_z z) is subtracted, not its mean", lambda d, e, x, w, z, s: (e - _mean(e) - z * _sum(e * z)) / s),
        ("sums are subtracted, not means", lambda d, e, x, w, z, s: (e - _sum(e) - z * _sum(e * z)) / s),
        ("the second mean is not multiplied by z", lambda d, e, x, w, z, s: (e - _mean(e) - _mean(e * z)) / s),
        ("x stands where z, the normalised x, belongs", lambda d, e, x, w, z, s: _through(e, x) / s),
        ("x - mean(x) stands where z belongs, undivided", lambda d, e, x, w, z, s: _through(e, z * s) / s),
        ("the two means are added, not subtracted", lambda d, e, x, w, z, s: (2 * e - _through(e, z)) / s),
        ("d_y stands where d_z belongs, in the two means", lambda d, e, x, w, z, s: (e - d + _through(d, z)) / s),
    ],
    "layer_norm_backward.d_weight": [
        ("d_y is multiplied by x, not by the normalised x", lambda d, e, x, w, z, s: (d * x).sum(axis=0)),
        ("x - mean(x) is not divided by the standard deviation", lambda d, e, x, w, z, s: (d * z * s).sum(axis=0)),
        ("weight is in it, which its own gradient does not have", lambda d, e, x, w, z, s: (e * z).sum(axis=0)),
        ("it is averaged over the rows, not summed", lambda d, e, x, w, z, s: (d * z).mean(axis=0)),
        ("it is summed over the wrong axis", lambda d, e, x, w, z, s: (d * z).sum(axis=1)),
        ("it is not summed over the rows", lambda d, e, x, w, z, s: d * z),
    ],
    "layer_norm_backward.d_bias": [
        ("it is averaged over the rows, not summed", lambda d, e, x, w, z, s: d.mean(axis=0)),
        ("it is summed over the wrong axis", lambda d, e, x, w, z, s: d.sum(axis=1)),
        ("it is not summed over the rows", lambda d, e, x, w, z, s: d),
        ("weight is in it", lambda d, e, x, w, z, s: e.sum(axis=0)),
    ],
    "gelu_backward": [  # of d_y, x, P = Phi(x) and the density p
        ("the second term is missing: x also stands inside Phi", lambda d, x, P, p: d * P),
        ("the first term, Phi(x), is missing", lambda d, x, P, p: d * x * p),
        ("the density is not multiplied by x", lambda d, x, P, p: d * (P + p)),
        ("the second term is subtracted, not added", lambda d, x, P, p: d * (P - x * p)),
        ("it is not multiplied by d_y", lambda d, x, P, p: P + x * p),
        ("only Phi(x) is multiplied by d_y", lambda d, x, P, p: d * P + x * p),
        ("the density lacks its 1 / sqrt(2 pi)", lambda d, x, P, p: d * (P + x * p * math.sqrt(2 * math.pi))),
        ("the density has 1 / sqrt(pi), not 1 / sqrt(2 pi)", lambda d, x, P, p: d * (P + x * p * math.sqrt(2))),
        ("the density has 2 / sqrt(pi), as erf's own derivative", lambda d, x, P, p: d * (P + x * p * math.sqrt(8))),
        ("the density has 1 / (2 pi), without the root", lambda d, x, P, p: d * (P + x * p / math.sqrt(2 * math.pi))),
        ("the density has exp(-x^2), not exp(-x^2 / 2)", lambda d, x, P, p: d * (P + x * p * np.exp(-0.5 * x * x))),
        ("it is the derivative of the tanh form", lambda d, x, P, p: ops.gelu_tanh_backward(d, x)),
        ("it is the derivative of ReLU", lambda d, x, P, p: ops.relu_backward(d, x)),
        ("it is the derivative of SiLU", lambda d, x, P, p: ops.silu_backward(d, x)),
        ("it is d_y times gelu(x), not times its derivative", lambda d, x, P, p: d * x * P),
    ],
    "normalize_backward": [  # of d_y, x, y and the length
        ("the part along x is not taken away, which only changes the length", lambda d, x, y, n: d / n),
        ("it is not divided by the length", lambda d, x, y, n: d - y * (y @ d)),
        ("it is divided by the squared length", lambda d, x, y, n: (d - y * (y @ d)) / n**2),
        ("it is multiplied by the length, not divided", lambda d, x, y, n: (d - y * (y @ d)) * n),
        ("only d_y is divided by the length, not what is taken away", lambda d, x, y, n: d / n - y * (y @ d)),
        ("the part along x is computed with x, not with x / |x|", lambda d, x, y, n: (d - x * (x @ d)) / n),
        ("in the part along x one of two factors is x, not x / |x|", lambda d, x, y, n: (d - x * (y @ d)) / n),
        ("the part along x is added, not taken away", lambda d, x, y, n: (d + y * (y @ d)) / n),
        ("y . d_y is one number, the sum of the products", lambda d, x, y, n: (d - y * y * d) / n),
        ("nothing is divided by the length: x stands for x / |x|, too", lambda d, x, y, n: d - x * (x @ d)),
        ("only the part along x is left", lambda d, x, y, n: y * (y @ d) / n),
    ],
}  # fmt: skip


def _mean(x: Array, axis: int = -1) -> Array:
    return x.mean(axis=axis, keepdims=True)


def _sum(x: Array, axis: int = -1) -> Array:
    return x.sum(axis=axis, keepdims=True)


def _std(x: Array) -> Array:
    return x.std(axis=-1, keepdims=True)


def _over_sum(x: Array) -> Array:
    return x / _sum(x)


def _through(d: Array, z: Array, axis: int = -1) -> Array:
    """Back through ``(x - mean) / s``, but for the division."""
    return d - _mean(d, axis) - z * _mean(d * z, axis)


def _untouched(*arguments: Any) -> tuple[Any, ...]:
    return arguments


def _prepare_layer_norm(d: Array, x: Array, w: Array, eps: float = EPS) -> tuple[Array, ...]:
    s = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    return d, d * w, x, w, (x - _mean(x)) / s, s


def _prepare_gelu(d: Array, x: Array) -> tuple[Array, ...]:
    phi = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return d, x, ops.gelu_backward(np.ones_like(x), x) - x * phi, phi


_PREPARED: dict[str, Function] = {
    "info_nce": lambda a, p, scale=20.0: (a @ p.T, scale),
    "layer_norm_backward": _prepare_layer_norm,
    "gelu_backward": _prepare_gelu,
    "normalize_backward": lambda d, x: (d, x, x / np.linalg.norm(x), np.linalg.norm(x)),
}


def known_mistakes(name: str, pairs: bool = True) -> Iterator[tuple[str, Function]]:
    """Yield what may have gone wrong in a function, or in one of its results, and the function that does it wrong.

    After the single ones come ``pairs`` of the plainer ones, of two operations.
    """
    function, operations = PART_ONE.get(name, (_untouched, ""))
    few: list[Change] = []
    for op in operations.split():
        listed = [mistake for mistake in mistakes_of(op) if op != "normalize" or not mistake.together]  # one vector
        few += [Change(mistake) for mistake in listed if "eps" not in mistake.says][:16]
        # made in all matrices of a block, or in one of them
        for matrix, of in {"": "", **(_MATRICES.get(name, {}) if op == "linear" else {})}.items():
            for mistake in listed:
                recipe = Recipe(Change(mistake, f"*{matrix}"))
                yield mistake.says + (f" (of {of})" if of else ""), partial(function, recipe)
    prepare: Function = _PREPARED.get(name.partition(".")[0], _untouched)
    for says, mistaken in _OWN.get(name, []):
        yield says, partial(lambda mistaken, *arguments: mistaken(*prepare(*arguments)), mistaken)
    for one, other in combinations(few if pairs else [], 2):
        if one.mistake.op != other.mistake.op:
            both = partial(function, Recipe(one, other))
            yield f"{one.mistake.says}; and {other.mistake.says}", both


_MATRICES = {  # what is said of a mistake that is made in one matrix alone
    "attention": {"query": "the query", "key": "the key", "value": "the value", "projected": "attention.output.dense"},
    "feed_forward": {"expanded": "intermediate.dense", "projected": "output.dense"},
}


# -------------------------------------------------------------------------------------------------------------- inputs


@dataclass(frozen=True)
class Case:
    """One call: on what, in words, and the arguments."""

    says: str
    arguments: tuple[Any, ...]


def check_model(encoder: SentenceEncoder) -> None:
    """Refuse a model that the ten functions do not compute."""
    config, modules = encoder.model.config, encoder.model.modules
    if config.activation != "gelu" or config.layer_norm_eps != EPS or modules != (Pooling(), Normalize()):
        raise ValueError(
            f"{encoder.name}: the ten functions compute models like all-MiniLM-L6-v2, with GELU, eps {EPS:g}, mean "
            "pooling and normalised vectors; this one is another kind"
        )


def random_texts(encoder: SentenceEncoder, count: int, words: Sequence[int], seed: int) -> list[str]:
    """Draw texts from the whole words of the vocabulary, of so many words in turn."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array(sorted(w for w in encoder.tokenizer.get_vocab() if w.isalpha() and w.isascii()))
    return [" ".join(rng.choice(vocabulary, words[i % len(words)])) for i in range(count)]


def weights_of(encoder: SentenceEncoder, start: str = "") -> dict[str, Array]:
    """The weights whose names start so, under what follows; read only, so that nobody changes them for the next."""
    found = {
        name[len(start) :]: array.view()
        for name, array in named_parameters(encoder.model).items()
        if name.startswith(start)
    }
    for array in found.values():
        array.flags.writeable = False
    return found


def cases(encoder: SentenceEncoder, seed: int | None = None) -> dict[str, list[Case]]:
    """The calls of each function: right inputs from three texts, and small ones that show what the texts do not.

    With a ``seed`` texts, layers and numbers are others, that a student has not seen.
    """
    rng = np.random.default_rng(0 if seed is None else [1, seed])
    draw, config = rng.standard_normal, encoder.model.config
    heads, count = config.num_attention_heads, config.num_hidden_layers
    texts, numbers = list(TEXTS), [0, count // 2, count - 1]
    if seed is not None:
        texts = [random_texts(encoder, 1, [words], seed)[0] for words in (3, 6, 9)]
        numbers = rng.integers(0, count, 3).tolist()
    found: dict[str, list[Case]] = {name: [] for name in RIGHT}

    def add(name: str, says: str, *arguments: Any) -> None:
        found[name].append(Case(says, arguments))

    embeddings = {f"embeddings.{name}": array for name, array in weights_of(encoder, "embeddings.").items()}
    for turn, (text, i) in enumerate(zip(texts, numbers, strict=True)):
        says = f"on {text!r}"
        trace = encoder.trace([text])
        t, layer = trace.tensors(), weights_of(encoder, f"encoder.layer.{i}.")
        before = t[f"layers.{i - 1}.feed_forward.output" if i else "embeddings.output"]  # (T, D)
        at, inside = f"layers.{i}.attention", f"layers.{i}.feed_forward"
        scores = RIGHT["attention_scores"](t[f"{at}.query"], t[f"{at}.key"], heads)  # (H, T, T)
        norm = ("attention.output.LayerNorm", "output.LayerNorm")[turn % 2]
        summed = t[(f"{at}.summed", f"{inside}.summed")[turn % 2]]  # (T, D)
        matrix = ("attention.self.query", "intermediate.dense", "output.dense")[turn]
        x = (before, t[f"{at}.output"], t[f"{inside}.activated"])[turn]  # (T, d_in)
        affine = layer[f"{matrix}.weight"], layer[f"{matrix}.bias"]
        last, pooled = t[f"layers.{count - 1}.feed_forward.output"], t["modules.0"][0]
        add("embed", says, trace.token_ids, embeddings)
        add("layer_norm", says, summed, layer[f"{norm}.weight"], layer[f"{norm}.bias"])
        add("linear", says, x, *affine)
        add("attention_scores", says, t[f"{at}.query"], t[f"{at}.key"], heads)
        add("softmax", says, scores)
        add("attention", says, before, layer, heads)
        add("gelu", says, t[f"{inside}.expanded"])
        add("feed_forward", says, t[f"{at}.output"], layer)
        add("mean_pool", says, last)
        add("normalize", says, pooled)
        probs = RIGHT["softmax"](scores)
        add("softmax_backward", says, draw(probs.shape), probs)
        add("linear_backward", says, draw((len(x), len(affine[1]))), x, affine[0])
        add("layer_norm_backward", says, draw(summed.shape), summed, layer[f"{norm}.weight"])
        expanded = t[f"{inside}.expanded"]
        add("gelu_backward", says, draw(expanded.shape), expanded)
        add("normalize_backward", says, draw(pooled.shape), pooled)
    add("layer_norm", "with eps = 0.1", draw((3, 5)), draw(5), draw(5), 0.1)
    add("layer_norm", "on a row of equal numbers", np.full((1, 4), 2.0), draw(4), draw(4))
    add("attention_scores", "with 3 heads of 2", draw((5, 6)), draw((5, 6)), 3)
    narrow = {config.hidden_size: 6, config.intermediate_size: 8}
    small = {name: draw([narrow[size] for size in array.shape]) for name, array in layer.items()}
    add("attention", "on a small layer, D = 6 and 3 heads", draw((4, 6)), small, 3)
    add("feed_forward", "on a small layer, D = 6 and F = 8", draw((4, 6)), small)
    add("softmax", "on scores up to 1000", np.array([[1000.0, 999.0, 0.0], [-1000.0, -1001.0, -999.0]]))
    add("gelu", "on numbers from -30 to 30", np.linspace(-30, 30, 13)[None])
    add("normalize", "on zeros", np.zeros(4))
    sides = [encoder.encode([pair[side] for pair in PAIRS], num_threads=1) for side in (0, 1)]  # (B, D)
    if seed is not None:
        sides = [sides[0][rng.permutation(len(PAIRS))], sides[1]]
    add("info_nce", f"on {len(PAIRS)} pairs", *sides, 20.0)
    add("info_nce", "on 3 pairs with scale = 2", *(side[:3] for side in sides), 2.0)
    add("info_nce", "on 5 pairs with scale = 2000", *(side[3:] for side in sides), 2000.0)
    add("layer_norm_backward", "with eps = 0.1", draw((3, 5)), draw((3, 5)), draw(5), 0.1)
    return found
