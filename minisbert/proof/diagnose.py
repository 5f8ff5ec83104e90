"""Which settings made this vector? A sentence vector of any library or service beside the model's own.

Ports and services differ in a few settings: the limit, the prompt, casing, what is pooled, normalisation, GELU,
precision, padding. Each is tried alone, then with one of another kind; that which gives the vector, to the precision in
which it came, is named. The cosine between each setting's vector and the model's own says what it costs.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import threadpoolctl

from minisbert.model import Array
from minisbert.model.ops import normalize
from minisbert.model.params import read_checkpoint
from minisbert.model.pooling import Normalize
from minisbert.proof.judge import tokenisations
from minisbert.proof.mistakes import (
    MISTAKES,
    Batch,
    Change,
    Mistake,
    Recipe,
    bfloat16,
    float16,
    forward,
    pooled,
    rows_times,
)
from minisbert.proof.port import tensors_in

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

PROMPTS = (
    *("query: ", "passage: ", "search_query: ", "search_document: ", "clustering: ", "classification: "),
    "Represent this sentence for searching relevant passages: ",
)
LIMITS = (64, 128, 256, 384)  # tried in pairs with others, too
FEWEST = 8  # numbers; fewer are near to something by chance
NEAREST = 6  # settings that are tried in pairs
ENDS = ("embeddings.output", "feed_forward.output")  # what is pooled
WHOLE = ("int8", "integers")  # precisions
SIMILAR = 0.95  # a cosine below which a vector is another model's, or another text's
COARSEST = 0.02  # rounding of a vector of length 1; what is coarser would fit too much
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
        return self.change is None or not self.change.is_late or bool(self.length)


class _Tried(NamedTuple):
    """Some settings, and what they make."""

    settings: tuple[_Setting, ...]
    vector: Array  # of length 1
    away: float  # 1 - its cosine with what was given
    difference: float  # max |vector - given|


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
    length = float(np.linalg.norm(given))
    own = encoder.encode(text, normalize_embeddings=True, overflow="truncate").astype(np.float64)
    if not length:
        raise ValueError("diagnose: vector: all its numbers are 0")
    if given.size > len(own):
        says = f"This vector is another model's: it has {given.size} dimensions; {encoder.name} gives {len(own)}."
        return Diagnosis((), False, np.inf, 0.0, length, precision, says, ())
    # bytes of signs, as libraries quantise to binary
    if 8 * given.size == own.size and any(np.array_equal(given + shift, np.packbits(own > 0)) for shift in (0, 128)):
        says = "it is binary: the signs of the model's own numbers, eight to a byte"
        return Diagnosis((says,), True, 0.0, 0.0, length, "binary", f"This is the model's own vector, but {says}.", ())
    unit, rounding = given / length, min(max(ROUNDING, step / length), COARSEST)
    own = _cut(own, given.size)
    right = _ids(encoder, encoder.model.prompts.get(encoder.default_prompt_name or "", "") + text)
    outputs: dict[Any, tuple[Batch, list[Array]]] = {}  # of BERT; what follows it is cheap

    def tokens(settings: Sequence[_Setting]) -> Array:
        return next((s.ids for s in settings if s.ids is not None), right)

    def compute(settings: Sequence[_Setting]) -> dict[str, Array]:
        ids, changes = tokens(settings), [Change(s.change) for s in settings if s.change is not None]
        early = tuple(change for change in changes if not change.mistake.is_late)
        key = ids.tobytes(), max((s.length for s in settings), default=0), early
        with np.errstate(all="ignore"):
            if key not in outputs:
                batch = Batch.of([ids], key[1])
                found = forward(batch, encoder.model, Recipe(*early), until=2 * encoder.model.config.num_hidden_layers)
                outputs[key] = batch, [x for name, x in found.items() if name.endswith(ENDS)]
            batch, every = outputs[key]
            return pooled(Recipe(*changes), every, batch, encoder.model)

    tried = [_Tried((), own, 1 - float(own @ unit), float(np.abs(own - unit).max()))]

    def attempt(*settings: _Setting) -> None:
        made = _cut(compute(settings)["sentence_embedding"][0].astype(float), given.size)
        if np.abs(made - own).max() > ROUNDING / 10:  # else it is no other vector, or none at all
            tried.append(_Tried(settings, made, 1 - float(made @ unit), float(np.abs(made - unit).max())))

    with threadpoolctl.threadpool_limits(1):
        for setting in _settings(encoder, text, right):
            attempt(setting)
        costs = tuple(Cost(s[0].says, float(v @ own), float(v @ unit)) for s, v, *_ in tried[1:])
        if all(one.difference > rounding for one in tried):
            single = [one.settings[0] for one in sorted(tried[1:], key=lambda one: one.away)]
            early = [one for one in single if one.is_early and one.kind != "another limit"]
            late = [one for one in single if not one.is_early][:NEAREST]
            pairs = [*combinations(early[:NEAREST], 2), *product(early[:2], early[NEAREST:])]
            for a, b in [*((a, b) for a, b in pairs if a.kind != b.kind), *product(early, late)]:
                attempt(a, b)
    near = [one for one in tried if one.difference <= rounding]
    if near:
        best = min(near, key=lambda one: (len(one.settings), one.difference))
    else:  # one setting rather than two, and none that is hardly nearer than the model's own vector
        order = sorted(tried, key=lambda one: (len(one.settings), one.away))
        best = next((one for one in order if one.away * 10 <= tried[0].away), tried[0])
    settings = [s.says for s in best.settings]
    if near:
        parts = list(compute(best.settings).values())
        raw = parts[-2:][0] if isinstance(encoder.model.modules[-1], Normalize) else parts[-1]
        settings += _in_the_end(given, raw[0].astype(float), len(tokens(best.settings)), encoder, precision, rounding)
    reached = 1 - min(one.away for one in tried)
    if near and settings:
        says = f"This is the vector of a port in which {', and '.join(settings)}."
    elif near:
        says = "This is the model's own vector."
    elif precision in WHOLE:
        says = (
            "Its numbers are whole: the vector is quantised, in another way than by one factor, such as by a range "
            "for each dimension. Ask the service for floating-point numbers."
        )
    elif reached < SIMILAR:
        says = (
            f"No known setting makes this vector of this text: the nearest has a cosine of {reached:.4f} with it. "
            "Another text or model makes it, or a prompt that is not tried."
        )
    else:
        what = " and ".join(settings) or "the model's own vector"
        says = f"No setting reproduces this vector. The nearest, with a cosine of {1 - best.away:.6f}: {what}."
        if not settings and precision in ("float16", "bfloat16"):
            says += (
                f" Its numbers are {precision}: a model that computes in {precision} throughout is about as far off."
            )
    cosine = float(own @ unit)
    return Diagnosis(tuple(settings), bool(near), best.difference, cosine, length, precision, says, costs)


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
    if array.size < FEWEST:
        raise ValueError(f"diagnose: vector: expected at least {FEWEST} numbers, got {array.size}")
    values = array.astype(np.float64)
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(f"diagnose: vector: expected finite numbers, but {bad} of {values.size} are NaN or infinite")
    if (values == np.round(values)).all() and np.abs(values).max() > 1:
        return values, "int8" if np.abs(values).max() <= 128 else "integers", 0.6
    # bfloat16 first: most of its numbers are numbers of float16, too, but hardly ever are all of float16's its own
    halves = [("bfloat16", bfloat16, 2.0**-8)] if array.dtype != np.float16 else []
    for name, rounded, step in [*halves, ("float16", float16, 2.0**-11)]:
        if (values == rounded(values)).all():
            return values, name, 1.2 * step * float(np.abs(values).max())
    for digits in range(1, 7):
        if np.abs(values - np.round(values, digits)).max() < 2e-8:
            return values, f"{digits} decimals", 0.6 * 10.0**-digits
    return values, "float32", 0.0


def _in_the_end(
    given: Array, raw: Array, tokens: int, encoder: SentenceEncoder, precision: str, rounding: float
) -> list[str]:
    """What was done to the vector in the end; ``raw`` is it before Normalize."""
    found, length = [], float(np.linalg.norm(given))

    def is_length(other: float) -> bool:
        return abs(length / other - 1) <= max(1e-3, rounding * math.sqrt(given.size))

    if given.size not in (encoder.model.full_width, encoder.model.width):
        found.append(f"only the first {given.size} of {encoder.model.full_width} dimensions are kept")
    if precision in WHOLE:
        return [*found, f"the vector is quantised to {precision}: a unit is {1 / length:.3g}"]
    if precision != "float32":
        found.append(f"the vector is rounded to {precision}")
    if not isinstance(encoder.model.modules[-1], Normalize):
        return [*found, "the sentence vector is normalised"] if abs(length - 1) < 1e-5 else found
    raw_length = float(np.linalg.norm(raw[: given.size]))
    lengths = [
        (1.0, ""),
        (raw_length, f"the sentence vector is not normalised (its length is {length:.4g})"),
        (raw_length * tokens, "the token vectors are summed, not averaged, and the sum is not normalised"),
        (raw_length * math.sqrt(tokens), "the sum of the token vectors is divided by sqrt(T), and not normalised"),
        (raw_length / np.linalg.norm(raw), f"what is kept is not normalised again (its length is {length:.4g})"),
    ]
    other = f"the sentence vector has length {length:.4g}, neither 1 nor what it has before it is normalised"
    said = next((says for one, says in lengths if is_length(one)), other)
    return [*found, said] if said else found


def _ids(encoder: SentenceEncoder, text: str, limit: int = 0) -> Array:
    return encoder.model.tokenizer([text], limit or encoder.max_seq_length).token_ids


_TRIED = {  # operations of the catalogue, and which mistakes in them are settings that libraries and services have
    "activation": "tanh form, not|exact form|1.702|is ReLU$|SiLU",
    "stored": "",
    "round": "",
    "token_type": "type 1|no token",
    "position": "at 1|at 2",
    "layer_norm": r"eps is 1e-0[56]",
    "pool": "^(?!.*padding).*",
    "token_embeddings": "",
}
_KINDS = {"stored": "precision", "round": "precision", "token_embeddings": "pool"}


def _settings(encoder: SentenceEncoder, text: str, right: Array) -> Iterator[_Setting]:
    """Every setting that makes another vector than the model's own."""
    most, limit_now = encoder.model.config.max_position_embeddings, encoder.max_seq_length

    def tokens() -> Iterator[tuple[str, str, Array]]:
        short = range(3, len(right)) if len(right) <= 64 else (16, 32)  # any limit shows in a short text
        for limit in sorted({*short, *LIMITS, most} - {limit_now}):
            ids = _ids(encoder, text, limit)
            whole = f"texts are not cut at {limit_now} tokens: this one has {len(ids)}"
            cut = f"texts are cut at {limit} tokens, not at {limit_now}"
            yield "limit" if limit in LIMITS else "another limit", whole if len(ids) < limit else cut, ids
        for prompt in [*encoder.prompts.values(), *PROMPTS]:
            yield "prompt", f"the prompt {prompt!r} stands before the text", _ids(encoder, prompt + text)
        for says, other in {
            "whitespace around the text is kept out": text.strip(),
            "newlines are replaced by spaces": text.replace("\n", " "),
            "the text ends with a full stop more": text + ".",
            "the text stands in quotes": f'"{text}"',
            "the text is lower-cased": text.lower(),
        }.items():
            yield "text", says, _ids(encoder, other)
        yield "prompt", "the model's own prompt is left out", _ids(encoder, text)
        for says, several in tokenisations([text], replace(encoder.model, max_seq_length=limit_now)):
            yield "tokens", says, several[0]

    seen = {right.tobytes()}
    for kind, says, ids in tokens():
        if 0 < len(ids) <= most and ids.tobytes() not in seen:
            seen.add(ids.tobytes())
            yield _Setting(kind, says, ids)
    by_words = {mistake.says: mistake for mistake in MISTAKES}
    attended, counted = by_words["padding is attended to: the mask is not used"], by_words["padding is in the mean"]
    both = Mistake("mask", "padding is attended to, and is in the mean", {**attended.changes, **counted.changes})
    for length in sorted({64, 128, limit_now}):
        for mistake in (attended, counted, both) if len(right) < length <= most else ():
            yield _Setting("padding", f"{mistake.says}, of texts padded to {length} tokens", None, length, mistake)
    eps = encoder.model.config.layer_norm_eps
    for mistake in [*MISTAKES, *pooler(encoder)]:
        if mistake.op in _TRIED and re.search(_TRIED[mistake.op], mistake.says):
            yield _Setting(_KINDS.get(mistake.op, mistake.op), mistake.says.format(eps=eps), None, 0, mistake)


def pooler(encoder: SentenceEncoder) -> list[Mistake]:
    """BERT's pooler, ``tanh(W [CLS] + b)``, where the checkpoint has one: what Hugging Face calls pooler_output."""
    stored = read_checkpoint(encoder.folder) if encoder.folder.is_dir() else {}
    names = [[f"{prefix}pooler.dense.{part}" for part in ("weight", "bias")] for prefix in ("", "bert.")]
    found = [two for two in names if two[0] in stored and two[1] in stored]
    if not found:
        return []
    weight, bias = (stored[name].read(encoder.dtype) for name in found[0])
    says = "the pooler's output, tanh(W [CLS] + b), is the sentence vector, not the mean"
    return [Mistake("pool", says, {"pool": lambda x, mask: np.tanh(rows_times(x[:, 0], weight.T) + bias)})]


def read_vector(content: bytes, name: str = "") -> Array:
    """Read a vector from a file's bytes: .npy, .npz, .safetensors, JSON of a service, a row or column of numbers.

    >>> read_vector(b'{"data": [{"embedding": [0.5, 0.25]}]}').tolist(), read_vector(b"0,5 0,25").tolist()
    ([0.5, 0.25], [0.5, 0.25])
    """
    what = f"{name or 'vector'}: expected one vector"
    if stored := tensors_in(content, Path(name or "vector")):
        found = [value for value in stored.values() if value.ndim]
    else:
        try:
            text = content.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise ValueError(f"{what} as .npy, .npz, .safetensors, JSON or text, got bytes of another kind") from None
        try:
            answer = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            found = _in_text(text) or list(_in_json(text))
        else:
            found = list(_in_json(answer))
            if not found and isinstance(answer, dict) and (error := answer.get("error") or answer.get("detail")):
                raise ValueError(f"{what}, but the service answered with an error: {str(error)[:200]}")
    if not found:
        start = " ".join(content[:60].decode(errors="replace").split())
        raise ValueError(f'{what}, such as [0.1, ...] or {{"data": [{{"embedding": [...]}}]}}, got {start!r}')
    if len(found) > 1:
        raise ValueError(f"{what}, got {len(found)}; give that of one text alone")
    try:
        return np.asarray(found[0], None if stored else np.float64)
    except (ValueError, TypeError):
        raise ValueError(f"{what} of numbers, got {str(found[0])[:60]}") from None


def _in_json(value: Any) -> Iterator[Any]:
    """Every vector in a service's answer: OpenAI's (base64, too), TEI's, Ollama's, Cohere's, or a row of ours."""
    if isinstance(value, dict):
        known = [value[key] for key in _KEYS if key in value][:1]
        for other in known or [other for other in value.values() if isinstance(other, (dict, list))]:
            yield from _in_json(other)
    elif isinstance(value, str) and value:
        with suppress(ValueError):  # another text
            yield np.frombuffer(base64.b64decode(value, validate=True), "<f4")
    elif isinstance(value, list) and value and isinstance(value[0], (list, dict, str)):
        for other in value:
            yield from _in_json(other)
    elif isinstance(value, list) and value:
        yield value


_KEYS = (
    *("data", "embeddings", "embedding", "vector", "values", "dense_vecs", "result", "float", "sentence_embedding"),
    *("int8", "uint8", "binary", "ubinary", "base64"),
)


def _in_text(text: str) -> list[list[float]]:
    """Vectors of bare numbers: one in brackets, as Python prints it, one in a column, or one in each row."""
    text = re.sub(r"np\.float\d+\(([^)]*)\)", r"\1", text)
    inside = re.fullmatch(r"(?:\w+\()?[\[({]([^\[\](){}]*)[\])}](?:,\s*\w+=[^\[\]]*)?\)?", text, re.DOTALL)
    if "." not in text and re.search(r"\d,\d+([\s;]|$)", text):  # decimal commas
        text = text.replace(",", ".")
    lines = [inside[1].replace("\n", " ")] if inside else text.splitlines()
    try:
        rows = [[float(cell) for cell in re.split(r"[\s,;]+", line.strip(" \t,;"))] for line in lines if line.strip()]
    except ValueError:
        return []
    return [[row[0] for row in rows]] if rows and all(len(row) == 1 for row in rows) else rows
