"""Which model made these vectors? What was learnt from the vectors of one model means nothing for another's.

A calibration, an embedding database, a router, a classifier: each keeps an :class:`Origin` in its file, and checks it
when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisbert.encoder import SentenceEncoder

__all__ = ["Origin", "OriginError", "origin_of"]


class OriginError(ValueError):
    """Something was learnt from the vectors of another model."""


@dataclass(frozen=True)
class Origin:
    """The model from whose vectors something was learnt."""

    model: str  # its name, for people
    fingerprint: str  # of what decides a vector
    max_seq_length: int | None = None  # tokens after which texts were cut; None: does not matter

    def check(self, encoder: SentenceEncoder, what: str, way_out: str) -> None:
        """Refuse another model, and one that cuts texts elsewhere; ``what`` is this, ``way_out`` what to do.

        >>> encoder = SentenceEncoder()
        >>> origin_of(encoder).check(encoder, "this router", "fit it again")
        >>> Origin("other", "0" * 64).check(encoder, "this router", "fit it again")
        Traceback (most recent call last):
            ...
        minisbert.saved.OriginError: this router is of the model 'other' (000000000000…), not of ...
        """
        found = encoder.fingerprint()
        if found != self.fingerprint:
            raise OriginError(
                f"{what} is of the model {self.model!r} ({self.fingerprint[:12]}…), not of {encoder.folder.name!r} "
                f"({found[:12]}…): vectors of two models cannot be compared; {way_out}"
            )
        if self.max_seq_length not in (None, encoder.max_seq_length):
            raise OriginError(
                f"{what} was made with max_seq_length = {self.max_seq_length}, and the encoder cuts texts at "
                f"{encoder.max_seq_length}; use the same limit"
            )


def origin_of(encoder: SentenceEncoder) -> Origin:
    return Origin(encoder.folder.name, encoder.fingerprint(), encoder.max_seq_length)
