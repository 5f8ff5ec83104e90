"""How good the model is so far: its score on a dev set of sentence pairs or for retrieval."""

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
    """A development set: data to score a model on during training."""

    name: str
    data: StsPairs | RetrievalSet

    def score(self, encoder: SentenceEncoder) -> float:
        """Spearman's correlation of the cosine, or nDCG@10, both x 100; larger is better."""
        if isinstance(self.data, StsPairs):
            return evaluate_sts(encoder, self.data, overflow="truncate").spearman["cosine"]
        return 100.0 * float(evaluate_retrieval(encoder, self.data).measures[RETRIEVAL_MEASURE].mean())

    @property
    def measure(self) -> str:
        """What the score is."""
        return "Spearman x 100" if isinstance(self.data, StsPairs) else f"{RETRIEVAL_MEASURE} x 100"


def read_dev(path: Path, columns: Sequence[str] | None = None) -> DevSet:
    r"""Read a dev set: a file of scored sentence pairs, or a folder in BEIR's layout.

    Parameters
    ----------
    path : Path
    columns : sequence of three str, optional
        The score and the two sentences of a file; by default the usual names.

    Returns
    -------
    DevSet
        Scored by Spearman's correlation of the cosine (a file) or nDCG@10 (a folder), both x 100.

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
