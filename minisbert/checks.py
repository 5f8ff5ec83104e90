"""What users pass, checked in one place for all who take it: texts, vectors, whole numbers, switches, extras.

A mistake is named with what was expected, what came, and the way out. Whatever claims a length is believed only if it
can be read twice: everything else is counted by reading it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, MappingView, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array


def check_sequence(given: Any, what: str, wanted: str = "an iterable of texts") -> None:
    """Refuse what is no sequence of texts, from outside: a generator is not used up.

    Examples
    --------
    >>> check_sequence({"soup", "tea"}, "search: query")
    Traceback (most recent call last):
        ...
    ValueError: search: query: expected an iterable of texts, got set, which has no order; pass sorted(...) or list(...)
    """
    kind, shape = type(given).__name__, getattr(given, "shape", None)
    if isinstance(given, str):
        problem = f"a single text {given!r:.80}; for one text pass [text]"
    elif isinstance(given, (bytes, bytearray, memoryview)):
        problem = f"{kind}; decode it first: .decode()"
    elif isinstance(given, Mapping):
        problem = f"{kind}, keys and values; pass one of the two, such as list(given.values()), or one of its columns"
    elif isinstance(given, Set) and not isinstance(given, MappingView):  # a dict's keys have an order
        problem = f"{kind}, which has no order; pass sorted(...) or list(...)"
    elif shape == ():
        problem = f"{kind} of shape (); pass the one text in it, [array.item()]"
    elif isinstance(shape, tuple) and len(shape) != 1:
        # a ColumnTransformer gives a table for ["text"], a column for "text"
        problem = f'{kind} of shape {shape}; pass one column, such as frame["text"] or array[:, 0]'
    elif not isinstance(given, Iterable):
        problem = f"{kind}; pass a list"
    else:
        return
    raise ValueError(f"{what}: expected {wanted}, got {problem}")


def out_of_arrow(values: Any) -> Any:
    """Give an Arrow column as a list, whose items are Python's; everything else as it is."""
    return values.to_pylist() if hasattr(values, "to_pylist") else values


def each_text(texts: str | Iterable[str], what: str = "sentences", *, single: bool = False) -> Iterator[str]:
    """Give texts one by one, in constant memory; refuse at once what is no sequence, and on the way what is no text.

    With ``single`` a string is one text.

    Examples
    --------
    >>> list(each_text(["one", None]))
    Traceback (most recent call last):
        ...
    ValueError: sentences[1]: expected a text (str), got NoneType None; missing values in tables are often ...
    """
    if single and isinstance(texts, str):
        return iter([texts])
    check_sequence(texts, what, "a text or an iterable of texts" if single else "an iterable of texts")
    return _each(out_of_arrow(texts), what)


def _each(texts: Iterable[Any], what: str) -> Iterator[str]:
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            # rows of a fold keep the labels that they have in the whole table
            label = f", labelled {texts.index[i]}" if hasattr(texts, "iloc") else ""  # type: ignore[attr-defined]
            raise ValueError(
                f"{what}[{i}]{label}: expected a text (str), got {type(text).__name__} {text!r:.80}; {_way_out(text)}"
            )
        yield text


def _way_out(item: Any) -> str:
    """Say what to do about something that is no text."""
    if hasattr(item, "as_py"):
        return "pass the Arrow column as column.to_pylist()"
    if isinstance(item, (bytes, bytearray)):
        return "decode it first: .decode()"
    if isinstance(item, (tuple, list)) and len(item) == 2 and all(isinstance(text, str) for text in item):
        return "a pair is scored by a cross-encoder, which this is not: pass the first texts and the second ones apart"
    if isinstance(item, (Mapping, Sequence, np.ndarray, np.void)):
        return "pass the texts alone, such as [row[0] for row in rows]"
    if item is None or type(item).__name__ in ("float", "NAType", "NaTType"):
        return "missing values in tables are often None or nan: drop them, or put '' in their place (fillna(''))"
    return "only strings are texts: write numbers, dates and the like as such, str(...)"


def check_texts(
    texts: str | Iterable[str], what: str = "sentences", *, single: bool = True
) -> list[str] | Iterator[str]:
    """Look through what holds its texts before any work is done, and give it as a list; all else as `each_text` does.

    The list is read once, so that its length is that of what came: a ``__len__`` is never asked, for it may lie, raise,
    or be used up by looking (tqdm around a generator).

    Examples
    --------
    >>> check_texts(("soup", "tea")), check_texts("soup")
    (['soup', 'tea'], ['soup'])
    """
    one_by_one = each_text(texts, what, single=single)
    is_held = isinstance(texts, (Sequence, MappingView)) or hasattr(texts, "shape")
    return list(one_by_one) if is_held else one_by_one


def check_whole(what: str, value: Any, least: int, most: int | None = None) -> int:
    """Take a whole number, Python's or NumPy's.

    Examples
    --------
    >>> check_whole("encode: batch_size", 2.5, 1)
    Traceback (most recent call last):
        ...
    ValueError: encode: batch_size must be a whole number, at least 1, got 2.5
    """
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        span = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{what} must be {'' if is_whole else 'a whole number, '}{span}, got {value!r:.80}")
    return int(value)


def check_choice(what: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse what is not among the names that there are.

    Examples
    --------
    >>> check_choice("cluster: method", "dbscan", ["kmeans", "agglomerative"])
    Traceback (most recent call last):
        ...
    ValueError: cluster: method must be one of kmeans, agglomerative, got 'dbscan'
    """
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{what} must be one of {', '.join(names)}, got {value!r:.80}")


def check_flag(what: str, value: Any) -> bool:
    """Take True or False, Python's or NumPy's.

    Examples
    --------
    >>> check_flag("encode: deterministic", "no")
    Traceback (most recent call last):
        ...
    ValueError: encode: deterministic must be True or False, got 'no'
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{what} must be True or False, got {value!r:.80}")
    return bool(value)


def check_vectors(vectors: ArrayLike, what: str, *, rows: int | None = None, width: int | None = None) -> Array:
    """Take finite vectors (M, D): float32 and float64 as they are, every other number as float64.

    Examples
    --------
    >>> check_vectors([[1, 2], [3, 4]], "cluster: vectors", width=384)
    Traceback (most recent call last):
        ...
    ValueError: cluster: vectors: expected shape (M, 384), got (2, 2); embed the texts with the model that this is of
    >>> check_vectors([[0.5, 0.5], [np.nan, 0.5]], "cluster: vectors")
    Traceback (most recent call last):
        ...
    ValueError: cluster: vectors: NaN or infinity in row 1; look where the vectors are computed, or drop them
    """
    try:
        array = np.asarray(vectors)
    except ValueError as error:
        raise ValueError(f"{what}: expected rows of one width (M, D), but NumPy says: {error}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{what}: expected numbers (M, D), got {type(vectors).__name__} of {array.dtype}; embed texts")
    shape_said = f"({'M' if rows is None else rows}, {'D' if width is None else width})"
    right = array.ndim == 2 and array.shape[1] > 0 and rows in (None, len(array)) and width in (None, array.shape[1])
    if not right:
        hint = "; embed the texts with the model that this is of" if array.ndim == 2 and width not in (None, 0) else ""
        raise ValueError(f"{what}: expected shape {shape_said}, got {array.shape}{hint}")
    array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        which = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise ValueError(f"{what}: NaN or infinity in row {which}; look where the vectors are computed, or drop them")
    return array


def require(package: str, extra: str, what: str) -> Any:
    """Import a package of an extra, or say in one line what to install; ``what`` needs it.

    Examples
    --------
    >>> require("sclearn", "apps", "clustering")
    Traceback (most recent call last):
        ...
    ValueError: clustering needs sclearn: pip install -e '.[apps]'
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        name = {"sklearn": "scikit-learn", "yaml": "PyYAML"}.get(package.split(".")[0], package.split(".")[0])
        raise ValueError(f"{what} needs {name}: pip install -e '.[{extra}]'") from None
