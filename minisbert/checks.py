"""What users pass, checked in one place for all who take it: sequences of texts, whole numbers, switches.

A mistake is named with what was expected, what came, and the way out. Whatever claims a length is believed only if it
can be read twice: everything else is counted by reading it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MappingView, Sequence, Set
from typing import Any

import numpy as np

__all__ = ["check_flag", "check_sequence", "check_texts", "check_whole", "each_text", "out_of_arrow"]


def check_sequence(given: Any, what: str, wanted: str = "an iterable of texts") -> None:
    """Refuse what is no sequence of texts, from outside: a generator is not used up.

    Examples
    --------
    >>> check_sequence({"soup", "tea"}, "search: query")
    Traceback (most recent call last):
        ...
    ValueError: search: query: expected an iterable of texts, got set, which has no order; pass sorted(...) or list(...)
    """
    kind = type(given).__name__
    shape = getattr(given, "shape", None)
    if isinstance(given, str):
        problem = f"a single text {given!r:.80}; for one text pass [text]"
    elif isinstance(given, (bytes, bytearray, memoryview)):
        problem = f"{kind}; decode it first: .decode()"
    elif isinstance(given, Mapping):
        problem = (
            f"{kind}, keys and values; pass one of the two, such as list(given.values()), or one column given[...]"
        )
    elif isinstance(given, Set) and not isinstance(given, MappingView):  # a dict's keys have an order
        problem = f"{kind}, which has no order; pass sorted(...) or list(...)"
    elif shape == ():
        problem = f"{kind} of shape (); pass the one text in it, [array.item()]"
    elif isinstance(shape, tuple) and len(shape) != 1:
        problem = (
            f'{kind} of shape {shape}; pass one column, such as frame["text"] or array[:, 0] (in a ColumnTransformer '
            'name it by "text" or 0, not by ["text"] or [0])'
        )
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
