"""Retrieval evaluation as MTEB and BEIR do it: embed, search exactly, measure the rankings.

The protocol, without which scores do not compare: a document is its title and text; the model cuts both sides at its
own limit, and the loss is part of the result; every document is compared with every query by the model's own
similarity; the best 100 are measured by trec_eval's definitions; the mean is over the queries that have judgements.

=================  ===========================================================  ================================
measure            formula, for one query                                       others define
=================  ===========================================================  ================================
nDCG@k             sum_r g_r / log2(1 + r), divided by the same sum for the     gain 2^g - 1 (web search, many
                   best possible order of *all* judged documents                courses); equal for grades 0, 1
average precision  sum over relevant ranks r of precision@r, divided by *all*   divided by the relevant ones
                   relevant documents of the query                              found, or by min(k, relevant)
reciprocal rank    1 / rank of the first relevant document, 0 beyond k          no cutoff (trec_eval: recip_rank)
recall@k           relevant documents among k, divided by all relevant          "capped": by min(k, relevant)
=================  ===========================================================  ================================

A judgement gives a document a **grade** for a query: 0 is "judged, not relevant", as is no judgement; more is better.
A query without a relevant document scores 0, and ties are ordered by document id, *descending* ("9" before "10"), both
as in trec_eval, so that a ranking does not depend on the order of the corpus.

Letters: ``Q`` queries, ``M`` documents, ``D`` width of a vector, ``C`` chunks of all documents, ``R`` ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.checks import check_whole, each_text
from minisbert.encoder import Progress, SentenceEncoder
from minisbert.evaluation.measures import Estimate, bootstrap_mean
from minisbert.model import Array
from minisbert.nearest import nearest_groups
from minisbert.tables import InputError, checked_number, checked_text, read_table

TOP_K = 100  # documents kept per query: the depth of the deepest measure
PUBLISHED = {("scifact", 5183, 300, 339): {"nDCG@10": 0.6451, "Recall@10": 0.7833}}
"""all-MiniLM-L6-v2 in MTEB's results repository, by a set's name, documents, queries and judgements."""

QRELS_COLUMNS = {
    "query": ("query-id", "query_id", "qid"),
    "document": ("corpus-id", "corpus_id", "doc-id", "doc_id", "docid"),
    "grade": ("score", "grade", "relevance", "relevant"),
}
"""Known column names of judgements; the first that a file has is used."""


# --------------------------------------------------------------------------------------------------- measures


def ndcg(ranked_grades: ArrayLike, judged_grades: Sequence[ArrayLike], k: int) -> Array:
    """Normalised discounted cumulative gain of the first k ranks.

    ``nDCG@k = DCG@k / ideal DCG@k``, ``DCG@k = sum_{r=1..k} grade_r / log2(1 + r)``

    Parameters
    ----------
    ranked_grades : array_like, shape (Q, R)
        Grade of the document at each rank, best rank first; 0 without a judgement. Ranks beyond R are empty.
    judged_grades : sequence of Q array_like
        All grades given for each query, in any order, found or not.
    k : int
        At least 1.

    Returns
    -------
    Array of float64, shape (Q,)
        In [0, 1]; 0 for a query without a relevant document. ValueError for a ranking with more gain than was judged.

    Notes
    -----
    **Source**: Järvelin & Kekäläinen 2002, section 2, with log2 from the first rank on; ``pytrec_eval``'s
    ``ndcg_cut_k``; ``sklearn.metrics.ndcg_score`` if no scores are equal. For the gain ``2^grade - 1`` (Burges et al.
    2005) pass ``2**grade - 1`` as grades.

    Examples
    --------
    Two relevant documents, found at ranks 1 and 3: (1 + 1/2) / (1 + 1/log2(3)).

    >>> ndcg([[1, 0, 1]], [[1, 1]], k=10).round(4)
    array([0.9197])
    """
    ranked, judged = _checked("ndcg", ranked_grades, k, judged_grades)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))  # (k,)
    best = np.array([np.sort(grades)[::-1][:k] @ discounts[: len(grades)] for grades in judged])  # (Q,)
    gained = ranked[:, :k] @ discounts[: ranked.shape[1]]  # (Q,)
    return np.divide(gained, best, out=np.zeros(len(best)), where=best > 0)


def average_precision(ranked_grades: ArrayLike, judged_grades: Sequence[ArrayLike], k: int) -> Array:
    """Mean, over all relevant documents of a query, of the precision at the rank where each was found.

    ``AP@k = 1 / relevant * sum_{r=1..k, grade_r > 0} (relevant among the first r) / r``

    A document not found within k ranks adds 0. The mean over queries is MAP@k.

    **Source**: Manning, Raghavan & Schütze 2008, section 8.4; ``pytrec_eval``'s ``map_cut_k``.

    Parameters
    ----------
    ranked_grades, judged_grades, k
        As in `ndcg`, as are result and errors.

    Examples
    --------
    Two relevant documents, found at ranks 1 and 3: (1/1 + 2/3) / 2.

    >>> average_precision([[1, 0, 1]], [[1, 1]], k=10).round(4)
    array([0.8333])
    """
    ranked, judged = _checked("average_precision", ranked_grades, k, judged_grades)
    hits = ranked[:, :k] > 0  # (Q, R)
    precisions = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)  # (Q, R)
    return _per_relevant((precisions * hits).sum(axis=1), judged)


def reciprocal_rank(ranked_grades: ArrayLike, k: int) -> Array:
    """One over the rank of the first relevant document, 0 if none is among the first k.

    ``RR@k = 1 / min{r <= k: grade_r > 0}``; the mean over queries is MRR@k

    **Source**: Voorhees 1999 (TREC-8 question answering); ``pytrec_eval``'s ``recip_rank``, which has no cutoff. MS
    MARCO and MTEB cut at 10.

    Parameters
    ----------
    ranked_grades, k
        As in `ndcg`, as are result and errors.

    Examples
    --------
    >>> reciprocal_rank([[0, 0, 1, 1], [0, 0, 0, 1]], k=3).round(4)
    array([0.3333, 0.    ])
    """
    hits = _checked("reciprocal_rank", ranked_grades, k)[0][:, :k] > 0  # (Q, R)
    return (hits / np.arange(1, hits.shape[1] + 1)).max(axis=1, initial=0.0)


def recall(ranked_grades: ArrayLike, judged_grades: Sequence[ArrayLike], k: int) -> Array:
    """Share of a query's relevant documents that are among the first k.

    ``recall@k = (relevant among the first k) / relevant``

    **Source**: ``pytrec_eval``'s ``recall_k``. BEIR's ``recall_cap`` divides by ``min(k, relevant)`` instead.

    Parameters
    ----------
    ranked_grades, judged_grades, k
        As in `ndcg`, as are result and errors. Below 1 if more than k documents are relevant.

    Examples
    --------
    >>> recall([[1, 0, 1]], [[1, 1, 2]], k=2).round(4)
    array([0.3333])
    """
    ranked, judged = _checked("recall", ranked_grades, k, judged_grades)
    return _per_relevant((ranked[:, :k] > 0).sum(axis=1), judged)


def _per_relevant(sums: Array, judged: list[Array]) -> Array:
    """Divide by the number of relevant documents; 0 if there are none."""
    relevant = np.array([(grades > 0).sum() for grades in judged])  # (Q,)
    return np.divide(sums, relevant, out=np.zeros(len(sums)), where=relevant > 0)


def _checked(
    function: str, ranked_grades: ArrayLike, k: int, judged_grades: Sequence[ArrayLike] | None = None
) -> tuple[Array, list[Array]]:
    """Both sides as float64; raise unless they are grades, and of the same queries."""
    check_whole(f"{function}: k", k, 1)
    ranked = np.asarray(ranked_grades, np.float64)
    judged = [np.asarray(grades, np.float64) for grades in ([] if judged_grades is None else judged_grades)]
    if ranked.ndim != 2 or (judged_grades is not None and len(judged) != len(ranked)):
        raise ValueError(
            f"{function}: expected ranked_grades (Q, R), one row per query, and Q lists of judged_grades, got shape "
            f"{ranked.shape} and {len(judged)} lists"
        )
    for grades in (ranked.ravel(), *judged):
        if grades.ndim != 1 or not (np.isfinite(grades) & (grades >= 0)).all():
            raise ValueError(
                f"{function}: expected lists of finite grades from 0 (not relevant) up, got {grades.tolist()!r:.60}; "
                "trec_eval takes a negative grade for 'not relevant': write 0"
            )
    for query, grades in enumerate(judged):
        if (ranked[query] > 0).sum() > (grades > 0).sum() or ranked[query].sum() > grades.sum() * (1 + 1e-9):
            raise ValueError(
                f"{function}: query {query} ranks more relevant documents, or higher grades, than were judged; is a "
                "document ranked twice, or the ranking another query's?"
            )
    return ranked, judged


MEASURES: dict[str, Callable[[Array, Sequence[Array]], Array]] = {
    "nDCG@10": partial(ndcg, k=10),
    "MAP@100": partial(average_precision, k=100),
    "MRR@10": lambda ranked, judged: reciprocal_rank(ranked, 10),
    **{f"Recall@{k}": partial(recall, k=k) for k in (1, 5, 10, 100)},
}
"""Measures by their usual names; each takes ranked and judged grades."""


# ------------------------------------------------------------------------------------------------------ the set


@dataclass(frozen=True)
class RetrievalSet:
    """Documents, queries, and judgements of some documents for each query."""

    name: str
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]  # one text each
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    qrels: Mapping[str, Mapping[str, int]]  # query id to document id to grade; 0 is judged, not relevant
    source: str = "given in memory"  # of the judgements and grades, in words
    with_title: bool = True  # whether a document is its title and its text
    queries_left_out: int = 0  # queries without a judgement in this split

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        for kind, side, ids in (("document", "documents", self.document_ids), ("query", "queries", self.query_ids)):
            texts = tuple(each_text(getattr(self, side), f"RetrievalSet: {side}"))
            object.__setattr__(self, side, texts)
            if not ids or len(ids) != len(texts) or len(set(ids)) < len(ids):
                raise ValueError(
                    f"RetrievalSet: expected as many different {kind} ids as texts, at least one, got {len(set(ids))} "
                    f"for {len(texts)}"
                )
        if odd := sorted(set(self.qrels) ^ set(self.query_ids)):
            raise ValueError(f"RetrievalSet: expected judgements for exactly the queries, but not so for {odd[0]!r}")
        known = set(self.document_ids)
        for query, grades in self.qrels.items():
            for document, grade in grades.items():
                if document not in known or isinstance(grade, bool) or not isinstance(grade, int) or grade < 0:
                    raise ValueError(
                        f"RetrievalSet: query {query!r}: document {document!r} with grade {grade!r}: "
                        "expected a known document and a whole number from 0 up"
                    )

    @property
    def judgements(self) -> int:
        """Number of judged pairs of query and document."""
        return sum(map(len, self.qrels.values()))

    @property
    def published(self) -> dict[str, float]:
        """MTEB's figures for all-MiniLM-L6-v2 on this set, in [0, 1]; empty if unknown."""
        sizes = len(self.documents), len(self.queries), self.judgements
        return dict(PUBLISHED.get((self.name.lower(), *sizes), {}))


def read_retrieval(folder: str | Path, split: str = "test", *, with_title: bool = True) -> RetrievalSet:
    r"""Read a folder in BEIR's layout.

    ``corpus.jsonl`` (a document a line: ``_id``, ``text``, perhaps ``title``), ``queries.jsonl`` (``_id``, ``text``)
    and ``qrels/SPLIT.tsv`` or ``qrels_SPLIT.tsv``, for "test" also ``qrels.tsv`` (query, document and grade under a
    header), each plain or .gz. Queries without judgements in the split are left out, as in every published evaluation;
    empty documents stay. A document is ``title + " " + text`` (BEIR's and MTEB's protocol), or the text alone. The
    folder's name becomes the set's. InputError, a ValueError, names file and line of a mistake: a lost judgement would
    change a score. **Source**: Thakur et al. 2021 (BEIR), ``beir.datasets.data_loader.GenericDataLoader``.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "corpus.jsonl").write_text('{"_id": "d1", "title": "Soup", "text": "Boil it."}')
    >>> _ = (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "how?"}')
    >>> _ = (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2")
    >>> found = read_retrieval(folder)
    >>> found.documents, found.qrels, found.source
    (('Soup Boil it.',), {'q1': {'d1': 2}}, "qrels.tsv, grade column 'score'")
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with corpus.jsonl, queries.jsonl and qrels")
    corpus = _read_texts(folder, "corpus.jsonl")
    queries = {name: text for name, (text, _) in _read_texts(folder, "queries.jsonl").items()}
    documents = {name: f"{title} {text}".strip() if with_title else text for name, (text, title) in corpus.items()}
    names = [f"qrels/{split}.tsv", f"qrels_{split}.tsv", *(["qrels.tsv"] if split == "test" else [])]
    table = read_table(_find(folder, names))
    columns = [table.find(kind, usual=usual) for kind, usual in QRELS_COLUMNS.items()]
    qrels: dict[str, dict[str, int]] = {}
    for line, (query, document, said) in table.pick(columns):
        where = table.where(line)
        for kind, name, known in (("query", query, queries), ("document", document, documents)):
            if name not in known:
                raise InputError(f"{where}: judges the {kind} {name!r}, which does not exist; do the files match?")
        if document in qrels.setdefault(query, {}):
            raise InputError(f"{where}: query {query!r} and document {document!r} are judged twice")
        grade = checked_number(said, f"the grade in column {columns[2]!r}", where)
        if grade < 0 or grade != int(grade):
            raise InputError(f"{where}: a grade must be a whole number from 0 (not relevant) up, got {said!r}")
        qrels[query][document] = int(grade)
    if not qrels:
        raise InputError(f"{table.name}: no judgements: the file has no rows")
    judged = {name: text for name, text in queries.items() if name in qrels}
    return RetrievalSet(
        name=folder.resolve().name,
        document_ids=tuple(documents),
        documents=tuple(documents.values()),
        query_ids=tuple(judged),
        queries=tuple(judged.values()),
        qrels=qrels,
        source=f"{Path(table.name).relative_to(folder).as_posix()}, grade column {columns[2]!r}",
        with_title=with_title,
        queries_left_out=len(queries) - len(judged),
    )


def _find(folder: Path, names: list[str]) -> Path:
    """The first file that exists, plain or compressed."""
    for name in names:
        for file in (folder / name, folder / f"{name}.gz"):
            if file.is_file():
                return file
    raise InputError(f"{folder}: no {' and no '.join(names)} (nor .gz); does the folder have BEIR's layout?")


def _read_texts(folder: Path, name: str) -> dict[str, tuple[str, str]]:
    """Read (text, title) by id; a number as id counts as its digits, because a TSV cannot tell them apart."""
    table = read_table(_find(folder, [name]))
    texts: dict[str, tuple[str, str]] = {}
    for line, (said, text, title) in table.pick(["_id", "text", "title"], optional={"title": ""}):
        where = table.where(line)
        key = str(said) if isinstance(said, int) and not isinstance(said, bool) else said
        if not isinstance(key, str) or not key or key in texts:
            twice = "occurs twice" if key in texts else "must be a non-empty string or a whole number"
            raise InputError(f"{where}: the id {said!r} {twice}")
        parts = {"text": "" if text is None else text, "title": "" if title is None else title}  # null is empty
        texts[key] = checked_text(parts["text"], "text", where), checked_text(parts["title"], "title", where)
    if not texts:
        raise InputError(f"{table.name}: empty; expected one JSON object per line")
    return texts


# --------------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True)
class Cut:
    """What a limit cuts off texts, in tokens without the special ones."""

    texts: int
    texts_cut: int
    tokens: int  # of the whole texts
    tokens_lost: int
    share_lost: float  # in [0, 1]


@dataclass(frozen=True, eq=False)
class RetrievalResult:
    """A model's measures on a set, query by query."""

    retrieval_set: RetrievalSet
    max_seq_length: int
    documents_cut: Cut  # by that limit
    queries_cut: Cut
    vectors: int  # of documents: more of them than documents where each chunk has its own
    ranked: Array  # (Q, R) indices of the documents found, best first
    measures: Mapping[str, Array]  # each (Q,), in [0, 1], under the names of `MEASURES`

    def estimates(self) -> dict[str, Estimate]:
        """Each measure's mean and 95 % bootstrap interval."""
        return {name: bootstrap_mean(values) for name, values in self.measures.items()}


def evaluate_retrieval(
    encoder: SentenceEncoder,
    retrieval_set: RetrievalSet,
    *,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    chunk_tokens: int | None = None,
    composition: str = "weighted_mean",
    show_progress_bar: Progress = False,
) -> RetrievalResult:
    """Embed a set's queries and documents, rank all documents for each query, and measure the rankings.

    Parameters
    ----------
    encoder : SentenceEncoder
    retrieval_set : RetrievalSet
        From `read_retrieval`.
    query_prompt, document_prompt : str, optional
        Text before every query or document; by default the model's own default prompt.
    chunk_tokens : int, optional
        Read documents whole, in chunks of at most so many tokens; by default they are cut at the model's limit.
    composition : str
        How the vectors of a document's chunks become one, as in ``encode``; or "best": each chunk keeps its own, and a
        document scores as its best one ("MaxP").
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
    leaves the order of ties open and takes only binary judgements. MaxP: Dai & Callan 2019 (SIGIR), section 3.

    Examples
    --------
    >>> documents = "Knead flour, water and yeast.", "Ask the airline for another flight."
    >>> cooking = RetrievalSet("two", ("d1", "d2"), documents, ("q",), ("How do I bake bread?",), {"q": {"d1": 1}})
    >>> result = evaluate_retrieval(SentenceEncoder(), cooking)
    >>> result.measures["Recall@1"], result.documents_cut.texts_cut
    (array([1.]), 0)
    """
    texts = retrieval_set.documents
    shown: dict[str, Any] = {"show_progress_bar": show_progress_bar}
    owners = np.arange(len(texts))  # (C,) whose vector each row is
    if chunk_tokens is None:
        embedded = encoder.encode(texts, prompt=document_prompt, overflow="truncate", **shown)  # (M, D)
    elif composition == "best":
        prompted = [(document_prompt or "") + text for text in texts]
        found = encoder.encode_chunks(prompted, chunk_tokens=chunk_tokens, **shown)
        embedded = np.concatenate([one.embeddings for one in found])  # (C, D)
        owners = np.repeat(owners, [len(one.chunks) for one in found])
    else:
        how: dict[str, Any] = {"overflow": "chunk", "chunk_tokens": chunk_tokens, "composition": composition}
        embedded = encoder.encode(texts, prompt=document_prompt, **how, **shown)
    queries = encoder.encode(retrieval_set.queries, prompt=query_prompt, overflow="truncate", **shown)  # (Q, D)
    ranked = _rank(queries, embedded, owners, retrieval_set.document_ids, encoder.similarity_fn_name)
    return RetrievalResult(
        retrieval_set=retrieval_set,
        max_seq_length=encoder.max_seq_length,
        documents_cut=_count_cut(encoder, texts, document_prompt),
        queries_cut=_count_cut(encoder, retrieval_set.queries, query_prompt),
        vectors=len(embedded),
        ranked=ranked,
        measures=_measure(ranked, retrieval_set),
    )


def _count_cut(encoder: SentenceEncoder, texts: Sequence[str], prompt: str | None) -> Cut:
    """Count the tokens that the encoder's limit cuts off; a prompt takes room, too."""
    tokens = encoder.tokenize([(prompt or "") + text for text in texts], overflow="truncate")
    lost = int(tokens.lost.sum())
    whole = int(tokens.lengths.sum()) - len(texts) * encoder.model.tokenizer.special_count + lost
    return Cut(len(texts), int(np.count_nonzero(tokens.lost)), whole, lost, lost / whole if whole else 0.0)


def _rank(queries: Array, embedded: Array, owners: Array, ids: Sequence[str], similarity_fn_name: str) -> Array:
    """The 100 best documents of each query by their best chunks; ties by id, descending: (Q, D), (C, D), (C,) -> (Q, R)

    ``owners`` says whose chunk each row is.
    """
    by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__, reverse=True))  # by code point, as C's strcmp
    place = np.argsort(by_id)  # (M,) equal scores are found in this order
    rows = np.argsort(place[owners], kind="stable")  # (C,)
    groups = place[owners[rows]]
    found, _ = nearest_groups(queries, embedded[rows], groups, TOP_K, similarity_fn_name)
    return by_id[groups[found]]


def _measure(ranked: Array, retrieval_set: RetrievalSet) -> dict[str, Array]:
    """Measure rankings of document indices against a set's judgements: (Q, R) -> (Q,) each."""
    grades = np.zeros(ranked.shape)  # (Q, R)
    judged = []
    for row, query in enumerate(retrieval_set.query_ids):
        qrels = retrieval_set.qrels[query]
        grades[row] = [qrels.get(retrieval_set.document_ids[i], 0) for i in ranked[row]]
        judged.append(np.array(list(qrels.values()), np.float64))
    return {name: function(grades, judged) for name, function in MEASURES.items()}
