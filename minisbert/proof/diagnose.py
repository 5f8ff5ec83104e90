"""Which settings made this vector? A sentence vector of any library or service beside the model's own.

Ports and services differ in a few settings: the limit, the prompt, casing, what is pooled, normalisation, GELU,
precision, padding. Each is tried alone, then with one of another kind; that which gives the vector, to the precision in
which it came, is named. The cosine between each setting's vector and the model's own says what it costs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import threadpoolctl

from minisbert.model import Array
from minisbert.model.ops import normalize
from minisbert.model.params import read_checkpoint
from minisbert.model.pooling import Normalize
from minisbert.proof.judge import LATE, tokenisations
from minisbert.proof.mistakes import MISTAKES, Batch, Change, Mistake, Recipe, forward, pooled, product

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

PROMPTS = (
    *("query: ", "passage: ", "search_query: ", "search_document: ", "clustering: ", "classification: "),
    "Represent this sentence for searching relevant passages: ",
)
NEAREST = 6  # settings that are tried in pairs
ENDS = ("embeddings.output",)
SIMILAR = 0.95  # a cosine below which a vector is another model's, or another text's
ROUNDING = 2e-6  # how far numbers of two float32 computations may be apart, of vectors of length 1


@dataclass(frozen=True)
class Cost:
    """One setting: how near its vector is to the model's own, and to the one that was given."""

    setting: str
    cosine: float
    to_vector: float


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found out."""

    settings: tuple[str, ...]  # that give the vector; empty: the model's own, or nothing found
    reproduces: bool
    difference: float  # max |vector - that of the settings|, both of length 1
    cosine: float  # of the vector and the model's own
    length: float  # the vector's
    precision: str  # such as "float16", in which its numbers came
    says: str
    costs: tuple[Cost, ...]

    def __str__(self) -> str:
        return self.says


@dataclass(frozen=True)
class _Setting:
    """One way to make the vector: which tokens, padded to what, and what is done otherwise."""

    kind: str
    says: str
    ids: Array | None = None
    length: int = 0  # padded to
    change: Mistake | None = None

    @property
    def is_early(self) -> bool:
        """Whether BERT has to be computed again."""
        return self.change is None or not set(self.change.changes) <= LATE or bool(self.length)


def diagnose(encoder: SentenceEncoder, text: str, vector: Any) -> Diagnosis:
    """Find the settings under which this model makes this vector of this text.

    Parameters
    ----------
    encoder : SentenceEncoder
    text : str
    vector : array_like, shape (D,) or (1, D)
        From any library or service; shorter if dimensions were cut off.

    Returns
    -------
    Diagnosis
        ``settings`` and ``reproduces``; ``str()`` of it is the answer in words.

    Raises
    ------
    ValueError
        If the vector is not one row of finite numbers.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> encoder = SentenceEncoder()
    >>> tokens = encoder.encode("i love soup", output_value="token_embeddings")
    >>> print(diagnose(encoder, "i love soup", tokens[0] / np.linalg.norm(tokens[0])))
    This is the vector of a port in which the vector of [CLS] is the sentence vector, not the mean.
    """
    given, precision, step = _checked(vector)
    model, own = encoder.model, np.asarray(encoder.encode(text, normalize_embeddings=True), np.float64)
    length = float(np.linalg.norm(given))
    if given.size > len(own) or not length:
        what = f"{given.size} dimensions; {encoder.name} gives {len(own)}" if length else "length 0"
        says = f"This vector is another model's: it has {what}."
        return Diagnosis((), False, np.inf, 0.0, length, precision, says, ())
    unit, rounding = given / length, max(ROUNDING, step / length)
    own = _cut(own, given.size)
    scaled = isinstance(model.modules[-1], Normalize)

    outputs: dict[Any, tuple[Batch, list[Array]]] = {}  # of BERT; what follows it is cheap

    def make(settings: Sequence[_Setting]) -> Array:
        ids = next((s.ids for s in settings if s.ids is not None), right)
        changes = [Change(s.change) for s in settings if s.change is not None]
        early = tuple(change for change in changes if not set(change.mistake.changes) <= LATE)
        key = ids.tobytes(), max(s.length for s in settings), early
        with np.errstate(all="ignore"):
            if key not in outputs:
                batch = Batch.of([ids], key[1])
                tensors = forward(batch, model, Recipe(*early), None, 0, 2 * model.config.num_hidden_layers)
                outputs[key] = batch, [tensors[n] for n in tensors if n in ENDS or n.endswith("feed_forward.output")]
            batch, every = outputs[key]
            return _cut(
                pooled(Recipe(*changes), every, batch, model)["sentence_embedding"][0].astype(float), given.size
            )

    right = _ids(encoder, encoder.model.prompts.get(encoder.default_prompt_name or "", "") + text)
    tried: list[tuple[tuple[_Setting, ...], Array]] = []
    with threadpoolctl.threadpool_limits(1):
        tried.append(((), own))
        for setting in _settings(encoder, text, right):
            tried.append(((setting,), make([setting])))
        costs = tuple(Cost(s[0].says, float(v @ own), float(v @ unit)) for s, v in tried[1:] if np.isfinite(v).all())
        tried = [(s, v) for s, v in tried if np.isfinite(v).all()]
        if not any(np.abs(v - unit).max() <= rounding for _, v in tried):
            single = sorted(tried[1:], key=lambda one: -float(one[1] @ unit))
            few = [one for one in single if one[0][0].is_early][:NEAREST]
            pairs = [(*a, *b) for (a, _), (b, _) in combinations(few, 2) if a[0].kind != b[0].kind]
            late = [one for one in single if not one[0][0].is_early][:NEAREST]
            pairs += [(*a, *b) for a, _ in single if a[0].is_early for b, _ in late]
            tried += [(pair, make(pair)) for pair in pairs]
    tried = [(s, v) for s, v in tried if np.isfinite(v).all()]
    near = [one for one in tried if np.abs(one[1] - unit).max() <= rounding]
    best, made = (
        min(near, key=lambda one: (len(one[0]), np.abs(one[1] - unit).max()))
        if near
        else max(tried, key=lambda one: float(one[1] @ unit))
    )
    settings = [s.says for s in best] + (
        _of_output(given, len(own), encoder, length, precision, scaled) if near else []
    )
    cosine = float(own @ unit)
    if near:
        says = "This is the model's own vector."
        if settings:
            says = f"This is the vector of a port in which {', and '.join(settings)}."
    elif float(made @ unit) < SIMILAR:
        says = (
            f"No setting makes this vector of this text: the nearest has a cosine of {float(made @ unit):.4f} with it. "
            "It is another model's, or another text's."
        )
    else:
        what = " and ".join(settings) or "the model's own vector"
        says = f"No setting reproduces this vector. The nearest, with a cosine of {float(made @ unit):.6f}: {what}."
    return Diagnosis(
        tuple(settings), bool(near), float(np.abs(made - unit).max()), cosine, length, precision, says, costs
    )


def _cut(vector: Array, width: int) -> Array:
    """The first dimensions, scaled to length 1."""
    return normalize(vector[None, :width])[0]


def _checked(vector: Any) -> tuple[Array, str, float]:
    """The vector in float64, the precision of its numbers, and by how much they may be rounded."""
    try:
        array = np.asarray(vector)
    except ValueError:
        array = np.empty(0)
    while array.ndim > 1 and len(array) == 1:
        array = array[0]
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iuf":
        raise ValueError(f"diagnose: vector: expected one row of numbers, got {array.dtype} of shape {array.shape}")
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("diagnose: vector: expected finite numbers, but some are NaN or infinite")
    if (values == np.round(values)).all() and np.abs(values).max() > 1:
        return values, "int8" if np.abs(values).max() <= 128 else "integers", 0.6
    most = float(np.abs(values).max())
    if array.dtype == np.float16 or _equal(values, values.astype(np.float16)):
        return values, "float16", 1.2 * 2.0**-11 * most
    bits = values.astype(np.float32).view(np.uint32)
    if (bits & 0xFFFF == 0).all():
        return values, "bfloat16", 1.2 * 2.0**-8 * most
    for digits in range(1, 7):
        if np.abs(values - np.round(values, digits)).max() < 2e-8:
            return values, f"{digits} decimals", 0.6 * 10.0**-digits
    return values, "float32", 0.0


def _equal(values: Array, rounded: Array) -> bool:
    return bool((values == rounded.astype(np.float64)).all())


def _of_output(
    given: Array, width: int, encoder: SentenceEncoder, length: float, precision: str, scaled: bool
) -> list[str]:
    """What was done to the vector in the end."""
    found = []
    if given.size < encoder.model.full_width and given.size != encoder.model.width:
        found.append(f"only the first {given.size} of {encoder.model.full_width} dimensions are kept")
    if precision not in ("float32", "int8", "integers"):
        found.append(f"the vector is rounded to {precision}")
    if precision in ("int8", "integers"):
        found.append(f"the vector is quantised to {precision}: a unit is {1 / length:.3g}")
    elif scaled and abs(length - 1) > 1e-3:
        found.append(f"the sentence vector is not normalised (its length is {length:.4g})")
    elif not scaled and abs(length - 1) < 1e-5:
        found.append("the sentence vector is normalised")
    return found


def _ids(encoder: SentenceEncoder, text: str, limit: int = 0) -> Array:
    return encoder.model.tokenizer([text], limit or encoder.max_seq_length).token_ids


_TRIED = {  # operations of the catalogue, and which mistakes in them are settings that libraries and services have
    "activation": "tanh form, not|exact form|1.702|is ReLU$|SiLU",
    "weights": "rounded",
    "round": "",
    "token_type": "type 1|no token",
    "position": "at 1|at 2",
    "layer_norm": r"eps is 1e-0[56]",
    "pool": "^(?!.*padding).*",
    "token_embeddings": "",
}
_KINDS = {"weights": "precision", "round": "precision", "token_embeddings": "pool"}


def _settings(encoder: SentenceEncoder, text: str, right: Array) -> Iterator[_Setting]:
    """Every setting that makes another vector than the model's own."""
    most = encoder.model.config.max_position_embeddings
    seen = {right.tobytes()}
    for limit in sorted({64, 128, 256, 384, most} - {encoder.max_seq_length}):
        ids = _ids(encoder, text, limit)
        if ids.tobytes() not in seen and limit <= most:
            seen.add(ids.tobytes())
            whole = f"texts are not cut at {encoder.max_seq_length} tokens: this one has {len(ids)}"
            cut = f"texts are cut at {limit} tokens, not at {encoder.max_seq_length}"
            yield _Setting("limit", whole if len(ids) < limit else cut, ids)
    prompts = dict.fromkeys([*encoder.prompts.values(), *PROMPTS])
    texts = {
        **{f"the prompt {prompt!r} stands before the text": prompt + text for prompt in prompts if prompt},
        "whitespace around the text is kept out": text.strip(),
        "newlines are replaced by spaces": text.replace("\n", " "),
        "the text ends with a full stop more": text + ".",
        "the text stands in quotes": f'"{text}"',
        "the text is lower-cased": text.lower(),
        "the model's own prompt is left out": text,
    }
    for says, other in texts.items():
        if (ids := _ids(encoder, other)).tobytes() not in seen:
            seen.add(ids.tobytes())
            yield _Setting("prompt" if "prompt" in says else "text", says, ids)
    model = replace(encoder.model, max_seq_length=encoder.max_seq_length)
    for says, several in tokenisations([text], model):
        if len(several[0]) and several[0].tobytes() not in seen and len(several[0]) <= most:
            seen.add(several[0].tobytes())
            yield _Setting("tokens", says, several[0])
    attended = {m.says: m for m in MISTAKES}["padding is attended to: the mask is not used"]
    counted = {m.says: m for m in MISTAKES}["padding is in the mean"]
    both = Mistake("mask", "padding is attended to, and is in the mean", {**attended.changes, **counted.changes})
    for length in sorted({128, encoder.max_seq_length}):
        for mistake in (attended, counted, both) if len(right) < length <= most else ():
            yield _Setting("padding", f"{mistake.says}, of texts padded to {length} tokens", None, length, mistake)
    eps = encoder.model.config.layer_norm_eps
    for mistake in [*MISTAKES, *pooler(encoder)]:
        if mistake.op in _TRIED and re.search(_TRIED[mistake.op], mistake.says):
            yield _Setting(_KINDS.get(mistake.op, mistake.op), mistake.says.format(eps=eps), None, 0, mistake)


def pooler(encoder: SentenceEncoder) -> list[Mistake]:
    """BERT's pooler, ``tanh(W [CLS] + b)``, where the checkpoint has one: what Hugging Face calls pooler_output."""
    stored = read_checkpoint(encoder.folder) if encoder.folder.is_dir() else {}
    parts = [stored.get(f"{prefix}pooler.dense.weight") for prefix in ("", "bert.")]
    biases = [stored.get(f"{prefix}pooler.dense.bias") for prefix in ("", "bert.")]
    found = [(w, b) for w, b in zip(parts, biases, strict=True) if w is not None and b is not None]
    if not found:
        return []
    weight, bias = (x.read(encoder.dtype) for x in found[0])
    says = "the pooler's output, tanh(W [CLS] + b), is the sentence vector, not the mean"
    return [Mistake("pool", says, {"pool": lambda x, mask: np.tanh(product(x[:, 0], weight.T) + bias)})]


def read_vector(content: bytes, name: str = "") -> Array:
    """Read a vector from a file's bytes: .npy, safetensors, or text: JSON of a service or library, or bare numbers."""
    from io import BytesIO

    from minisbert.proof.port import safetensors

    what = f"{name or 'vector'}: expected one vector"
    if content.startswith(b"\x93NUMPY"):
        try:
            return np.load(BytesIO(content), allow_pickle=False)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
    if name.endswith(".safetensors"):
        try:
            return next(iter(dict(safetensors(content)).values()))
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise ValueError(f"{what}: {error}") from None
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{what} as .npy, .safetensors, JSON or text, got bytes of another kind") from None
    try:
        found = _in_json(json.loads(text))
    except (json.JSONDecodeError, RecursionError):
        words = re.split(r"[\s,;]+", text.strip("[](){} \n,;"))
        try:
            found = [float(word) for word in words]
        except ValueError:
            raise ValueError(f"{what} as numbers, got {text[:60]!r}") from None
    if found is None:
        raise ValueError(f'{what} in the JSON, such as [0.1, ...] or {{"data": [{{"embedding": [...]}}]}}')
    try:
        return np.asarray(found, np.float64)
    except (ValueError, TypeError):
        raise ValueError(f"{what} of numbers, got {str(found)[:60]}") from None


def _in_json(value: Any) -> Any:
    """The first vector in a service's answer: OpenAI's (base64, too), TEI's, Ollama's, or a row of ours."""
    if isinstance(value, dict):
        for key in ("data", "embeddings", "embedding", "vector", "values", "dense_vecs", "result", "float"):
            if key in value:
                return _in_json(value[key])
        return None
    if isinstance(value, str):
        try:
            return np.frombuffer(base64.b64decode(value, validate=True), "<f4")
        except ValueError:
            return None
    if isinstance(value, list) and value and isinstance(value[0], (list, dict, str)):
        return _in_json(value[0])
    return value if isinstance(value, list) and value else None
