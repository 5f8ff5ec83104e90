"""A sentence model as a scikit-learn transformer (extra ``apps``): a column of texts in, vectors out.

``make_pipeline(TextEncoder(), LogisticRegression())`` works as it is. :class:`minisbert.SentenceEncoder` does the work.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from minisbert.checks import check_sequence, check_texts
from minisbert.encoder import SentenceEncoder
from minisbert.model import Array

__all__ = ["TextEncoder"]


class TextEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn a column of texts into vectors; there is nothing to fit.

    Parameters
    ----------
    model : str, path or SentenceEncoder, optional
        A name or folder, loaded when it is first needed and shared by all clones, or an encoder of your own.
    max_seq_length : int, optional
        Tokens after which a text is cut; by default the model's own limit.
    encode_kwargs : dict, optional
        What is passed on to :meth:`SentenceEncoder.encode`, such as ``{"overflow": "chunk"}``. A text's last digits
        depend on its company, so on the fold it is in; ``{"deterministic": True}`` rules that out.

    Raises
    ------
    ValueError
        For a single text, a table, and what is no text (a missing value too), with its row.

    Notes
    -----
    **Source**: scikit-learn's transformers of text, such as ``CountVectorizer``.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> texts = ["i love soup", "bread and cheese", "the train is late", "a fast bus"]
    >>> pipe = make_pipeline(TextEncoder(), LogisticRegression()).fit(texts, ["food", "food", "travel", "travel"])
    >>> pipe.predict(["noodles", "a tram"])
    array(['food', 'travel'], dtype='<U6')
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | SentenceEncoder | None = None,
        *,
        max_seq_length: int | None = None,
        encode_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.max_seq_length = max_seq_length
        self.encode_kwargs = encode_kwargs

    def fit(self, X: Any, y: Any = None) -> TextEncoder:
        """Learn nothing; a generator is not used up."""
        check_sequence(X, "fit: X")
        return self

    def transform(self, X: Any) -> Array:
        """Give the vectors of a list, a one-dimensional array, a Series or a generator of texts: (B, D)."""
        return self._encode(check_texts(X, "transform: X", single=False))

    @property
    def _n_features_out(self) -> int:  # asked by get_feature_names_out
        return self._encode([]).shape[1]

    def _encode(self, texts: Any) -> Array:
        model, options = self.model, self.encode_kwargs or {}
        if not isinstance(model, str | os.PathLike | SentenceEncoder | None) or not isinstance(options, Mapping):
            raise ValueError(
                f"TextEncoder: model must be a name, a folder or an encoder, got {model!r:.80}; encode_kwargs a "
                f"dict, got {options!r:.80}"
            )
        if not isinstance(model, SentenceEncoder):
            # when a folder was last written to, so that another model of the same path is noticed
            written = Path(model).stat().st_mtime_ns if model is not None and Path(model).is_dir() else 0
            model = _load(None if model is None else os.fspath(model), written)
        if self.max_seq_length is not None:
            model = copy.copy(model)  # shares the weights
            model.max_seq_length = self.max_seq_length
        return model.encode(texts, **options)

    def __sklearn_clone__(self) -> TextEncoder:
        # all settings are copied; an encoder, whose weights nothing writes to, is shared
        return copy.deepcopy(self, {id(self.model): self.model})

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:  # from scikit-learn 1.6 on
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.requires_fit = True, False, False
        return tags


@lru_cache(maxsize=2)
def _load(model: str | None, written: int) -> SentenceEncoder:
    """Load a model once for all clones."""
    return SentenceEncoder(model)
