"""What scikit-learn asks of a transformer, without scikit-learn: names of settings, tags, frames.

scikit-learn never looks at a class's parents; it calls methods. :class:`minisbert.SentenceEncoder` has them, and the
parts that are not about encoding stand here.
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
    """Refuse a setting that does not exist."""
    for name in given:
        if name not in valid:
            raise ValueError(f"{what}: {name!r} is none of the valid parameters {sorted(valid)}")


def encode_settings(settings: Any, encode: Callable[..., Any]) -> dict[str, Any]:
    """Check the names of what ``transform`` is to pass on to ``encode``."""
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
    """Number the columns of the vectors, as ``sklearn.base.ClassNamePrefixFeaturesOutMixin`` does."""
    return np.array([f"{prefix}{i}" for i in range(width)], dtype=object)


def check_output(output: str) -> str:
    """Refuse a container that ``set_output`` does not know."""
    if output not in OUTPUTS:
        raise ValueError(
            f"set_output: transform must be one of {OUTPUTS} or None, which changes nothing, got {output!r}"
        )
    return output


def as_frame(vectors: Array, names: Array, output: str, column: Any) -> Any:
    """Put vectors into what ``set_output`` asked for; a pandas Series gives its labels to the rows."""
    try:
        library = import_module(output)
    except ImportError as error:
        raise ValueError(f"transform: set_output(transform={output!r}) needs {output}: pip install {output}") from error
    if output == "polars":
        return library.DataFrame(vectors, schema=list(names), orient="row")
    return library.DataFrame(vectors, columns=names, index=column.index if hasattr(column, "iloc") else None)


def tags() -> Any:
    """Tell scikit-learn, from 1.6 on: a transformer of one column of strings that learns nothing from them."""
    # here, because whoever asks for tags has imported scikit-learn already
    from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

    return Tags(
        estimator_type=None,  # as scikit-learn's own transformers
        target_tags=TargetTags(required=False),
        transformer_tags=TransformerTags(preserves_dtype=[]),  # the vectors' dtype is the encoder's
        input_tags=InputTags(string=True, two_d_array=False),
        requires_fit=False,
    )
