"""The encoder in MTEB's clothes (extra ``mteb``): ``mteb.evaluate(MtebEncoder(encoder), tasks)``."""

from __future__ import annotations

from typing import Any

from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from minisbert.encoder import SentenceEncoder
from minisbert.model import Array
from minisbert.model.params import flatten

__all__ = ["MtebEncoder"]


class MtebEncoder(AbsEncoder):  # type: ignore[misc]
    """An encoder as MTEB takes it, with the model's meta data.

    Parameters
    ----------
    encoder : SentenceEncoder
        With its prompts: MTEB's queries are embedded by ``encode_query``, its documents by ``encode_document``.

    Examples
    --------
    >>> model = MtebEncoder(SentenceEncoder())
    >>> model.mteb_model_meta.name, model.mteb_model_meta.embed_dim, model.mteb_model_meta.max_tokens
    ('sentence-transformers/all-MiniLM-L6-v2', 384, 256.0)
    """

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.model = encoder
        unknown = "release_date languages memory_usage_mb license public_training_code public_training_data"
        self.mteb_model_meta = ModelMeta(
            loader=None,
            name=encoder.name if "/" in encoder.name else f"local/{encoder.name}",
            revision=encoder.fingerprint(),
            n_parameters=sum(array.size for array in flatten(encoder.model.params)),
            max_tokens=encoder.max_seq_length,
            embed_dim=encoder.get_sentence_embedding_dimension(),
            open_weights=True,
            framework=["NumPy", "safetensors"],
            similarity_fn_name=ScoringFunction(encoder.similarity_fn_name),
            use_instructions=bool(encoder.prompts),
            training_datasets=None,
            **dict.fromkeys(unknown.split()),
        )

    def encode(self, inputs: Any, *, prompt_type: Any = None, **task: Any) -> Array:
        """The vectors (B, D) of all texts in MTEB's batches."""
        texts = [text for batch in inputs for text in batch["text"]]
        kinds: dict[Any, Any] = {"query": self.model.encode_query, "document": self.model.encode_document}
        return kinds.get(getattr(prompt_type, "value", None), self.model.encode)(texts)
