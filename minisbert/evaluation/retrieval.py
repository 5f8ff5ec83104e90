"""Retrieval evaluation as MTEB and BEIR do it: embed, search exactly, measure.

The protocol, without which scores do not compare: a document is its title and text; the model cuts both sides at its
own limit, and the loss is part of the result; every document is compared with every query by the model's own
similarity; the best 100 are measured by trec_eval's definitions (``ranking.py``); the mean is over the queries that
have judgements, with a bootstrap interval (``bootstrap.py``).

Letters: ``Q`` queries, ``M`` documents, ``D`` width of a vector, ``C`` chunks of all documents, ``R`` ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minisbert.evaluation import ranking
from minisbert.evaluation.measures import Estimate, bootstrap_mean
from minisbert.evaluation.retrieval_set import RetrievalSet, read_retrieval
from minisbert.model import Array

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

__all__ = [
    "MEASURES",
    "PUBLISHED",
    "Cut",
    "RetrievalResult",
    "RetrievalSet",
    "count_cut",
    "evaluate_retrieval",
    "measure",
    "published_for",
    "read_retrieval",
    "search",
]

Measure = Callable[[Array, Sequence[Array]], Array]
MEASURES: dict[str, Measure] = {
    "nDCG@10": lambda ranked, judged: ranking.ndcg(ranked, judged, 10),
    "MAP@100": lambda ranked, judged: ranking.average_precision(ranked, judged, 100),
    "MRR@10": lambda ranked, judged: ranking.reciprocal_rank(ranked, 10),
    "Recall@1": lambda ranked, judged: ranking.recall(ranked, judged, 1),
    "Recall@5": lambda ranked, judged: ranking.recall(ranked, judged, 5),
    "Recall@10": lambda ranked, judged: ranking.recall(ranked, judged, 10),
    "Recall@100": lambda ranked, judged: ranking.recall(ranked, judged, 100),
}
"""Measures by their usual names; each takes ranked and judged grades."""

TOP_K = 100
"""Documents kept per query: the depth of the deepest measure."""

PUBLISHED = {("scifact", 5183, 300, 339): {"nDCG@10": 0.6451, "Recall@10": 0.7833}}
"""all-MiniLM-L6-v2 in MTEB's results repository, by a set's name, documents, queries and judgements."""

_BLOCK_SCORES = 2**22  # scores held at a time: 16 MiB in float32


@dataclass(frozen=True)
class Cut:
    """What a limit cuts off texts, in tokens without the special ones."""

    texts: int
    texts_cut: int
    tokens: int  # of the whole texts
    tokens_lost: int

    @property
    def share_lost(self) -> float:
        """Share of tokens lost, in [0, 1]."""
        return self.tokens_lost / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class RetrievalResult:
    """A model's measures on a set, query by query."""

    retrieval_set: RetrievalSet
    similarity_fn_name: str
    max_seq_length: int
    documents_cut: Cut
    queries_cut: Cut
    ranked: Array  # (Q, R) indices of the documents found, best first
    measures: Mapping[str, Array]  # each (Q,)

    def estimates(self) -> dict[str, Estimate]:
        """Each measure's mean and 95 % bootstrap interval."""
        return {name: bootstrap_mean(values) for name, values in self.measures.items()}


def evaluate_retrieval(
    encoder: SentenceEncoder,
    retrieval_set: RetrievalSet,
    *,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    show_progress_bar: bool = False,
) -> RetrievalResult:
    """Embed a set's queries and documents, rank all documents for each query, and measure the rankings.

    Parameters
    ----------
    encoder : SentenceEncoder
    retrieval_set : RetrievalSet
        From `read_retrieval`.
    query_prompt, document_prompt : str, optional
        Text before every query or document; by default the model's own default prompt.
    show_progress_bar : bool
        On stderr.

    Returns
    -------
    RetrievalResult
        Measures per query, in [0, 1], under the names of `MEASURES`; and what the limit cut off.

    Notes
    -----
    **Source**: Thakur et al. 2021 (BEIR), ``beir.retrieval.evaluation.EvaluateRetrieval`` with exact search;
    ``mteb.evaluate``, task type Retrieval; ``sentence_transformers.evaluation.InformationRetrievalEvaluator``, which
    leaves the order of ties open and takes only binary judgements.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> documents = "Knead flour, water and yeast.", "Ask the airline for another flight."
    >>> cooking = RetrievalSet("two", ("d1", "d2"), documents, ("q",), ("How do I bake bread?",), {"q": {"d1": 1}})
    >>> result = evaluate_retrieval(SentenceEncoder(), cooking)
    >>> result.measures["Recall@1"], result.documents_cut.texts_cut
    (array([1.]), 0)
    """
    embedded, cuts = [], []
    for texts, prompt in ((retrieval_set.queries, query_prompt), (retrieval_set.documents, document_prompt)):
        cuts.append(count_cut(encoder, texts, prompt)[0])
        embedded.append(encoder.encode(texts, prompt=prompt, overflow="truncate", show_progress_bar=show_progress_bar))
    ranked = search(encoder, embedded[0], embedded[1], retrieval_set.document_ids)
    return RetrievalResult(
        retrieval_set=retrieval_set,
        similarity_fn_name=encoder.model.similarity_fn_name,
        max_seq_length=encoder.max_seq_length,
        documents_cut=cuts[1],
        queries_cut=cuts[0],
        ranked=ranked,
        measures=measure(ranked, retrieval_set),
    )


def count_cut(encoder: SentenceEncoder, texts: Sequence[str], prompt: str | None = None) -> tuple[Cut, Array]:
    """Count the tokens that the encoder's limit cuts off in all and of each text (B,); a prompt takes room too.

    >>> from minisbert import SentenceEncoder
    >>> encoder = SentenceEncoder(max_seq_length=4)
    >>> count_cut(encoder, ["i love soup", "soup"])
    (Cut(texts=2, texts_cut=1, tokens=4, tokens_lost=1), array([1, 0]))
    """
    tokens = encoder.tokenize([(prompt or "") + text for text in texts], overflow="truncate")
    lost = int(tokens.lost.sum())
    kept = int(tokens.lengths.sum()) - len(texts) * encoder.model.tokenizer.special_count
    return Cut(len(texts), int(np.count_nonzero(tokens.lost)), kept + lost, lost), tokens.lost


def search(
    encoder: SentenceEncoder,
    query_embeddings: Array,
    document_embeddings: Array,
    document_ids: Sequence[str],
    *,
    first_chunks: Array | None = None,
    top_k: int = TOP_K,
) -> Array:
    """The best ``R = min(top_k, M)`` documents of each query by the model's own similarity, exact.

    (Q, D), (M, D) -> (Q, R)

    ``document_ids`` order ties (``ranking.py``). With ``first_chunks`` (M,), the rows where each document's chunks
    begin, the embeddings are (C, D), and a document's score is that of its best chunk ("max-sim").

    **Source**: ``sentence_transformers.util.semantic_search``.

    >>> from minisbert import SentenceEncoder
    >>> east, north = [1.0, 0.0], [0.0, 1.0]
    >>> chunks = np.array([north, east, [0.6, 0.8]])  # two of the first document, one of the second
    >>> search(SentenceEncoder(), np.array([east]), chunks, ["d1", "d2"], first_chunks=np.array([0, 2]))
    array([[0, 1]])
    """
    rows = len(document_ids) if first_chunks is None else len(first_chunks)
    if len(document_ids) != rows or (first_chunks is None and len(document_embeddings) != rows):
        raise ValueError(
            f"search: {len(document_ids)} document ids for {len(document_embeddings)} rows of embeddings"
            + ("" if first_chunks is None else f" and {rows} first chunks")
        )
    ties = ranking.id_order(document_ids)
    size = max(1, _BLOCK_SCORES // max(1, len(document_embeddings)))
    found = [np.empty((0, min(top_k, rows)), np.intp)]
    for start in range(0, len(query_embeddings), size):
        scores = encoder.similarity(query_embeddings[start : start + size], document_embeddings)
        if first_chunks is not None:
            scores = np.maximum.reduceat(scores, first_chunks, axis=1)
        found.append(ranking.rank(scores, ties, top_k))
    return np.concatenate(found)


def measure(ranked: Array, retrieval_set: RetrievalSet) -> dict[str, Array]:
    """Measure rankings ``(Q, R)`` of document indices against a set's judgements: `MEASURES`, (Q,) each, in [0, 1].

    >>> two = RetrievalSet("two", ("d1", "d2"), ("a", "b"), ("q",), ("?",), {"q": {"d2": 1}})
    >>> measure(np.array([[0, 1]]), two)["MRR@10"]
    array([0.5])
    """
    grades = np.zeros(ranked.shape)
    judged = []
    for row, query in enumerate(retrieval_set.query_ids):
        qrels = retrieval_set.qrels[query]
        grades[row] = [qrels.get(retrieval_set.document_ids[i], 0) for i in ranked[row]]
        judged.append(np.array(list(qrels.values()), np.float64))
    return {name: function(grades, judged) for name, function in MEASURES.items()}


def published_for(retrieval_set: RetrievalSet) -> dict[str, float]:
    """MTEB's figures for all-MiniLM-L6-v2 on this set, in [0, 1]; empty if unknown.

    **Source**: the results repository of MTEB, sentence-transformers/all-MiniLM-L6-v2.
    """
    sizes = len(retrieval_set.documents), len(retrieval_set.queries), retrieval_set.judgements
    return dict(PUBLISHED.get((retrieval_set.name.lower(), *sizes), {}))
