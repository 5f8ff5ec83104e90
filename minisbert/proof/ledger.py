"""The agreement ledger: our trace beside a reference, tensor by tensor, in the order of computation.

The first row outside its bound names the place where two implementations part: everything before it agrees, so the
mistake is in the step that makes it. The references are PyTorch's, recorded beside this file or computed live.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minisbert.encoder import Trace
from minisbert.model import Array

RECORDED = Path(__file__).parent / "all-MiniLM-L6-v2.npz"

# Measured on all-MiniLM-L6-v2, relative to a tensor's largest number: 1.1e-6 in float32, 4e-15 in float64, and 1e-7
# for sentence vectors in float32. The margins, about 10 and 200, leave room for other processors and longer texts.
_BOUNDS = {"float32": 1e-5, "float64": 1e-12}
_SENTENCE_BOUNDS = {"float32": 1e-6, "float64": 1e-12}


@dataclass(frozen=True)
class Reference:
    """Somebody else's tensors for some texts, under our names."""

    texts: tuple[str, ...]
    tensors: dict[str, Array]
    step: int  # every so many columns of wide tensors were kept; 1: all
    origin: str


@dataclass(frozen=True)
class Row:
    """One line of the ledger."""

    name: str
    shape: tuple[int, ...]
    difference: float  # max |ours - reference|; infinite where the shapes differ or a number is NaN
    bound: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the bound."""
        return self.difference <= self.bound


def read_recorded(file: Path = RECORDED) -> Reference:
    """Read the tensors that PyTorch computed in float64 for three short texts, and that the package carries.

    Parameters
    ----------
    file : Path

    Returns
    -------
    Reference
        Of all-MiniLM-L6-v2; ``texts`` are the three texts, ``tensors`` has every 13th column of the wide tensors.

    Examples
    --------
    >>> read_recorded().texts[0]
    'i love soup'
    """
    with np.load(file) as stored:
        about = json.loads(str(stored["about"]))
        tensors = {name: stored[name] for name in stored.files if name != "about"}
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return Reference(tuple(about["texts"]), tensors, about["step"], f"recorded from {versions}")


def thin(tensor: Array, name: str, step: int) -> Array:
    """Keep every ``step``-th column of a wide tensor; attention probabilities and sentence vectors are kept whole.

    ``step`` shares no factor with the head size, so that every head, and every place in a head, is met.

    >>> thin(np.arange(39.0)[None], "layers.0.attention.query", 13)
    array([[ 0., 13., 26.]])
    """
    whole = ".probs." in name or name in ("token_ids", "sentence_embedding")
    return tensor if whole else tensor[..., ::step]


def compare(ours: dict[str, Array], reference: Reference, dtype: npt.DTypeLike) -> list[Row]:
    """Compare tensors by name, in the order of the reference.

    Parameters
    ----------
    ours : dict of str to Array
        Whole tensors, as :func:`trace_tensors` names them. Names that only one side has are left out, so that a
        notebook may hold the first layer alone.
    reference : Reference
    dtype : {"float32", "float64"}
        In which ours were computed. It sets the bounds: 1e-5 and 1e-12, for sentence vectors 1e-6 and 1e-12, times the
        largest number of the reference where that exceeds 1.

    Returns
    -------
    list of Row
        ``row.difference`` is ``max |ours - reference|``: infinite where shapes differ or a number is NaN.

    Raises
    ------
    ValueError
        If the two have no name in common, or one of ours is no array of real numbers.

    Examples
    --------
    >>> reference = Reference(("a",), {"embeddings.word": np.zeros((2, 3))}, 1, "by hand")
    >>> compare({"embeddings.word": np.full((2, 3), 1e-7)}, reference, "float32")[0].agrees
    True
    """
    names = [name for name in reference.tensors if name in ours]
    if not names:
        raise ValueError(
            f"compare: none of the names {sorted(ours)[:3]} is in the reference; expected names such as "
            f"{list(reference.tensors)[:3]}"
        )
    rows = []
    for name in names:
        array, wanted, difference = np.asarray(ours[name]), reference.tensors[name], np.inf
        if array.dtype.kind not in "iuf" or array.ndim == 0:
            got = f"{array.dtype} of {array.shape}"
            raise ValueError(f"compare: expected an array of real numbers for {name!r}, got {got}")
        thinned = thin(array, name, reference.step)
        bound = bound_of(name, wanted, dtype)
        if thinned.shape == wanted.shape:
            difference = float(np.abs(thinned.astype(np.float64) - wanted).max())
        rows.append(Row(name, array.shape, np.inf if np.isnan(difference) else difference, bound))
    return rows


def bound_of(name: str, wanted: Array, dtype: npt.DTypeLike) -> float:
    """By how much a tensor computed in this dtype may differ from the reference."""
    tolerance = (_SENTENCE_BOUNDS if name == "sentence_embedding" else _BOUNDS)[np.dtype(dtype).name]
    return 0.0 if name == "token_ids" else tolerance * max(1.0, float(np.abs(wanted).max()))


def whole(reference: Reference, trace: Trace) -> Reference:
    """Fill the columns that a reference lacks with those of our own float64 trace, which its other columns prove."""
    if reference.step == 1:
        return reference
    tensors = {name: tensor.copy() for name, tensor in trace_tensors(trace).items()}
    for name, kept in reference.tensors.items():
        thin(tensors[name], name, reference.step)[...] = kept
    origin = f"{reference.origin}; between its columns this package's float64 trace"
    return Reference(reference.texts, tensors, 1, origin)


def trace_tensors(trace: Trace) -> dict[str, Array]:
    """Name everything that the ledger compares: the token ids, then each tensor of the trace.

    Parameters
    ----------
    trace : Trace
        From :meth:`minisbert.SentenceEncoder.trace`.

    Returns
    -------
    dict of str to Array
        In the order of computation, ``"sentence_embedding"`` last.

    Examples
    --------
    >>> from minisbert.encoder import SentenceEncoder
    >>> list(trace_tensors(SentenceEncoder().trace("i love soup")))[:2]
    ['token_ids', 'embeddings.word']
    """
    return {"token_ids": trace.token_ids, **trace.tensors()}


def first_disagreement(rows: list[Row]) -> Row | None:
    """Find the first row outside its bound, if there is one.

    >>> first_disagreement([Row("a", (1,), 0.0, 1e-5), Row("b", (1,), 1.0, 1e-5), Row("c", (1,), 2.0, 1e-5)]).name
    'b'
    """
    return next((row for row in rows if not row.agrees), None)


# Which function makes a tensor, by the first pattern that its name contains: where to look when it disagrees.
_MADE_BY = {
    "token_ids": "model/tokens.py",
    "embeddings.": "model/bert.py: embed",
    ".attention.": "model/bert.py: attention",
    ".feed_forward.": "model/bert.py: feed_forward",
    "modules.": "model/pooling.py: apply_modules",
    "sentence_embedding": "model/pooling.py: apply_modules",
}


def made_by(name: str) -> str:
    """Name the function that makes a tensor."""
    return next((place for pattern, place in _MADE_BY.items() if pattern in name), "")


def format_ledger(rows: list[Row]) -> str:
    """Lay the ledger out as a table, with a blank line between the steps of the computation.

    >>> print(format_ledger([Row("embeddings.word", (17, 384), 2.5e-7, 2e-5)]))
      tensor           shape      max |difference|    bound  of bound
    <BLANKLINE>
      embeddings.word  (17, 384)           2.5e-07  2.0e-05       1 %  ok
    """
    name_width = max(len(row.name) for row in rows)
    shape_width = max(len(str(row.shape)) for row in rows)
    lines = [f"  {'tensor':{name_width}}  {'shape':{shape_width}}  max |difference|    bound  of bound"]
    last = ""
    for row in rows:
        # one block of lines for the embeddings, each layer's attention, its feed_forward, and what is at the ends
        parts = row.name.split(".")
        block = ".".join(parts[:3]) if parts[0] == "layers" else parts[0] if parts[0] == "embeddings" else "ends"
        if block != last:
            lines.append("")
            last = block
        difference, bound, share = f"{row.difference:.1e}", f"{row.bound:.1e}", ""
        if row.name == "token_ids":
            difference, bound = "equal" if row.agrees else "not equal", ""
        elif not np.isfinite(row.difference):
            difference = "NaN or shape"
        else:
            percent = 100 * row.difference / row.bound
            share = f"{percent:.0f} %" if percent < 1000 else f"{percent / 100:.0e} x"
        lines.append(
            f"  {row.name:{name_width}}  {row.shape!s:{shape_width}}  {difference:>16}  {bound:>7}  {share:>8}  "
            f"{'ok' if row.agrees else '<-- differs'}"
        )
    return "\n".join(lines)


def disagreement(rows: list[Row]) -> str:
    """Say how many tensors disagree, and which is the first; "" if all agree.

    >>> disagreement([Row("a", (1,), 0.0, 1e-5), Row("b", (1,), 1.0, 1e-5)])
    '1 of 2 tensors disagree. The first is b: everything before it agrees (a is the last).'
    """
    first = first_disagreement(rows)
    if first is None:
        return ""
    before = rows[: rows.index(first)]
    agreed = f"everything before it agrees ({before[-1].name} is the last)" if before else "it is the very first"
    return (
        f"{sum(not row.agrees for row in rows)} of {len(rows)} tensors disagree. The first is {first.name}: {agreed}."
    )


def verdict(rows: list[Row]) -> str:
    """Sum the ledger up in a sentence or two.

    >>> verdict([Row("embeddings.word", (1,), 2e-7, 2e-5)])
    'All 1 tensors agree. The closest to its bound is embeddings.word: 2.0e-07 of 2.0e-05.'
    """
    if first := first_disagreement(rows):
        return f"{disagreement(rows)}\nOur version of the step that makes it: minisbert/{made_by(first.name)}"
    if not any(row.difference for row in rows):
        return f"All {len(rows)} tensors are equal to the last bit."
    worst = max(rows, key=lambda row: row.difference / row.bound if row.bound else 0.0)
    return (
        f"All {len(rows)} tensors agree. The closest to its bound is {worst.name}: "
        f"{worst.difference:.1e} of {worst.bound:.1e}."
    )
