"""How good is the model now? A score on a dev set: sentence pairs with people's scores, or a retrieval set.

Next: ``finetune.py``, which asks on the way and keeps the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minisbert.encoder import SentenceEncoder
from minisbert.evaluation.published import find_sets
from minisbert.evaluation.retrieval import evaluate_retrieval
from minisbert.evaluation.retrieval_set import RetrievalSet, read_retrieval
from minisbert.evaluation.sts import StsPairs, evaluate_sts, read_sts

RETRIEVAL_MEASURE = "nDCG@10"


@dataclass(frozen=True)
class DevSet:
    """Data to score a model on while it is trained."""

    name: str
    data: StsPairs | RetrievalSet

    def score(self, encoder: SentenceEncoder) -> float:
        """Give Spearman's correlation of the cosine, or nDCG@10; both x 100, and larger is better.

        Parameters
        ----------
        encoder : SentenceEncoder

        Returns
        -------
        float
            In [-100, 100].
        """
        if isinstance(self.data, StsPairs):
            return evaluate_sts(encoder, self.data, overflow="truncate").spearman["cosine"]
        return 100.0 * float(evaluate_retrieval(encoder, self.data).measures[RETRIEVAL_MEASURE].mean())

    @property
    def measure(self) -> str:
        """What the score is."""
        return "Spearman x 100" if isinstance(self.data, StsPairs) else f"{RETRIEVAL_MEASURE} x 100"


def read_dev(path: Path, columns: Sequence[str] | None = None) -> DevSet:
    r"""Read a dev set: a file of scored pairs, or a folder in BEIR's layout.

    Parameters
    ----------
    path : Path
    columns : sequence of three str, optional
        The score and the two sentences of a file; by default the usual names.

    Returns
    -------
    DevSet

    Raises
    ------
    ValueError
        As :func:`~minisbert.evaluation.sts.read_sts` and :func:`~minisbert.evaluation.retrieval_set.read_retrieval`.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "dev.tsv"
    >>> _ = file.write_text("score\tsentence1\tsentence2\n5\ta cat\tone cat\n0\ta cat\ttea\n")
    >>> read_dev(file).name, read_dev(file).measure
    ('dev.tsv', 'Spearman x 100')
    """
    if path.is_dir():
        return DevSet(path.resolve().name, read_retrieval(path))
    known = find_sets(path)[0][0]
    return DevSet(path.name, read_sts(path, name=path.name, columns=columns, scale=known.scale if known else None))
