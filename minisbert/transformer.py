"""What scikit-learn asks of a transformer, without scikit-learn: names of settings, tags, frames.

scikit-learn never looks at a class's parents; it calls methods. :class:`minisbert.SentenceEncoder` has them, and the
parts that are not about encoding stand here. scikit-learn, pandas and polars are imported where they are called for,
by those who have them already. Left out on purpose: the global ``sklearn.set_config(transform_output=...)``, which
changes nothing here (``set_output`` does), and ``n_features_in_``, because a text is no row of numbers.

Next: ``encoder.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from minisbert.model import Array

__all__ = ["as_frame", "check_names", "check_output", "encode_settings", "feature_names", "tags"]

OUTPUTS = ("default", "pandas", "polars")
"""What ``set_output`` may be asked for: a NumPy array, or a frame of one of two libraries."""


def check_names(given: Iterable[str], valid: Collection[str], what: str) -> None:
    """Refuse a setting that does not exist.

    Parameters
    ----------
    given : iterable of str
    valid : collection of str
    what : str
        Whose settings they are.

    Raises
    ------
    ValueError
        With the valid ones, as scikit-learn's ``set_params``.

    Examples
    --------
    >>> check_names(["limit"], ["model", "max_seq_length"], "SentenceEncoder.set_params")
    Traceback (most recent call last):
        ...
    ValueError: SentenceEncoder.set_params: 'limit' is none of the valid parameters ['max_seq_length', 'model']
    """
    for name in given:
        if name not in valid:
            raise ValueError(f"{what}: {name!r} is none of the valid parameters {sorted(valid)}")


def encode_settings(settings: Any, encode: Callable[..., Any]) -> dict[str, Any]:
    """Check the names of what ``transform`` is to pass on to ``encode``.

    Parameters
    ----------
    settings : mapping or None
        Name to value; None is none.
    encode : callable
        Whose keywords they are.

    Returns
    -------
    dict
        A copy.

    Raises
    ------
    ValueError
        For what is no mapping, an unknown name, and ``output_value``: ``transform`` gives one row a text.

    Examples
    --------
    >>> encode_settings({"overflow": "chunk"}, lambda texts, *, overflow="warn": ...)
    {'overflow': 'chunk'}
    >>> encode_settings(None, lambda texts: ...)
    {}
    """
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise ValueError(
            f"encode_kwargs: expected a dict of keywords of encode, such as {{'overflow': 'chunk'}}, got {settings!r}"
        )
    keywords = inspect.signature(encode).parameters.values()
    valid = {keyword.name for keyword in keywords if keyword.kind is keyword.KEYWORD_ONLY} - {"output_value"}
    check_names(settings, valid, "encode_kwargs")
    return dict(settings)


def feature_names(prefix: str, width: int) -> Array:
    """Number the columns of the vectors.

    Parameters
    ----------
    prefix : str
    width : int
        D, the length of a vector.

    Returns
    -------
    Array of str, shape (D,)
        Of dtype object, as scikit-learn has them.

    Notes
    -----
    **Source**: ``sklearn.base.ClassNamePrefixFeaturesOutMixin``.

    Examples
    --------
    >>> feature_names("sentenceencoder", 2)
    array(['sentenceencoder0', 'sentenceencoder1'], dtype=object)
    """
    return np.array([f"{prefix}{i}" for i in range(width)], dtype=object)


def check_output(output: str) -> str:
    """Refuse a container that ``set_output`` does not know.

    Parameters
    ----------
    output : str

    Returns
    -------
    str
        The same.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> check_output("pandas")
    'pandas'
    """
    if output not in OUTPUTS:
        raise ValueError(
            f"set_output: transform must be one of {OUTPUTS} or None, which changes nothing, got {output!r}"
        )
    return output


def as_frame(vectors: Array, names: Array, output: str, column: Any) -> Any:
    """Put vectors into what ``set_output`` asked for.

    Parameters
    ----------
    vectors : Array, shape (B, D)
    names : Array of str, shape (D,)
        The columns.
    output : {"pandas", "polars"}
        The library, which has to be installed.
    column : iterable of str
        The texts; a pandas Series gives its labels to the rows.

    Returns
    -------
    DataFrame, shape (B, D)

    Raises
    ------
    ValueError
        If the library is not installed.

    Examples
    --------
    >>> as_frame(np.eye(2), feature_names("x", 2), "pandas", ["soup", "london"])  # doctest: +SKIP
        x0   x1
    0  1.0  0.0
    1  0.0  1.0
    """
    try:
        library = import_module(output)
    except ImportError as error:
        raise ValueError(f"transform: set_output(transform={output!r}) needs {output}: pip install {output}") from error
    if output == "polars":
        return library.DataFrame(vectors, schema=list(names), orient="row")
    return library.DataFrame(vectors, columns=names, index=column.index if hasattr(column, "iloc") else None)


def tags() -> Any:
    """Tell scikit-learn, from 1.6 on, what a text encoder takes and gives.

    Returns
    -------
    sklearn.utils.Tags
        A transformer of one column of strings that learns nothing from them.

    Examples
    --------
    >>> tags().input_tags.string  # doctest: +SKIP
    True
    """
    # here, because whoever asks for tags has imported scikit-learn already
    from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

    return Tags(
        estimator_type=None,  # as scikit-learn's own transformers
        target_tags=TargetTags(required=False),
        transformer_tags=TransformerTags(preserves_dtype=[]),  # the vectors' dtype is the encoder's
        input_tags=InputTags(string=True, two_d_array=False),
        requires_fit=False,
    )
