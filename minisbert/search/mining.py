"""The closest pairs of one list: near duplicates, paraphrases.

Each vector proposes its ``top_k`` closest others (``exact.py``); the pairs are merged, each once, best first. Work
grows as ``M^2 D``, memory as the result. A pair whose one side has ``top_k`` closer neighbours is still found if the
other side proposes it.

Letters: ``M`` vectors, ``D`` width, ``P`` pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.checks import check_texts
from minisbert.model import Array
from minisbert.search.exact import find_best
from minisbert.search.scoring import ScoreFunction, as_vectors, check_count

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

__all__ = ["mine_pairs", "paraphrase_mining", "paraphrase_mining_embeddings"]

CHUNK_PAIRS = 2**19  # pairs collected before the worse ones are dropped
CHUNK_QUERIES = 4096  # queries of one search


def paraphrase_mining(
    encoder: SentenceEncoder,
    sentences: Iterable[str],
    *,
    top_k: int = 100,
    max_pairs: int = 500_000,
    score_function: str | ScoreFunction = "cosine",
    **encode_options: Any,
) -> list[list[float | int]]:
    """Find the texts of a list that are closest in meaning.

    Parameters
    ----------
    encoder : SentenceEncoder
    sentences : iterable of str
    top_k, max_pairs, score_function
        As in `paraphrase_mining_embeddings`.
    **encode_options
        As in :meth:`SentenceEncoder.encode`: ``prompt``, ``show_progress_bar``, ``overflow``, ...

    Returns
    -------
    list of [score, i, j]
        As `paraphrase_mining_embeddings`; ``i`` and ``j`` are places in ``sentences``.

    Raises
    ------
    ValueError
        As `paraphrase_mining_embeddings` and :meth:`SentenceEncoder.encode`.

    Notes
    -----
    **Source**: ``sentence_transformers.util.paraphrase_mining``.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> texts = ["How do I bake bread?", "The train is late.", "Baking bread, step by step"]
    >>> [pair[1:] for pair in paraphrase_mining(SentenceEncoder(), texts, max_pairs=1)]
    [[0, 2]]
    """
    texts = check_texts(sentences, "paraphrase_mining: sentences", single=False)
    embeddings = encoder.encode(texts, **encode_options)
    return paraphrase_mining_embeddings(embeddings, top_k=top_k, max_pairs=max_pairs, score_function=score_function)


def paraphrase_mining_embeddings(
    embeddings: ArrayLike,
    *,
    top_k: int = 100,
    max_pairs: int = 500_000,
    score_function: str | ScoreFunction = "cosine",
) -> list[list[float | int]]:
    """Find the closest pairs among vectors ``(M, D)``.

    Parameters
    ----------
    embeddings : array_like, shape (M, D)
    top_k : int
        Partners that each vector proposes, at least 1.
    max_pairs : int
        At least 1.
    score_function : {"cosine", "dot", "euclidean", "manhattan"} or callable
        As in `semantic_search`, and symmetric. If a callable is so only up to rounding, the larger score counts.

    Returns
    -------
    list of [score, i, j]
        With ``i < j``, each pair once: score descending, then ``i``, then ``j``, ascending.

    Raises
    ------
    ValueError
        As `semantic_search`.

    Notes
    -----
    **Source**: ``sentence_transformers.util.paraphrase_mining_embeddings``, which gives the last of ``max_pairs``
    places to the larger ids among equal scores and leaves open which of equally close partners are proposed. Here the
    smaller ids win both.

    Examples
    --------
    >>> paraphrase_mining_embeddings([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], top_k=1)
    [[1.0, 0, 2], [0.0, 0, 1]]
    """
    scores, first, second = mine_pairs(embeddings, top_k=top_k, max_pairs=max_pairs, score_function=score_function)
    return [[*row] for row in zip(scores.tolist(), first.tolist(), second.tolist(), strict=True)]


def mine_pairs(
    embeddings: ArrayLike,
    *,
    top_k: int = 100,
    max_pairs: int = 500_000,
    score_function: str | ScoreFunction = "cosine",
) -> tuple[Array, Array, Array]:
    """`paraphrase_mining_embeddings` as arrays: scores, and rows ``first < second``.

    (M, D) -> (P,), (P,), (P,)
    """
    vectors = as_vectors("mine_pairs", "embeddings", embeddings)
    top_k, max_pairs = check_count("mine_pairs", "top_k", top_k), check_count("mine_pairs", "max_pairs", max_pairs)
    names = "embeddings", "embeddings"
    wanted = max(1, min(top_k + 1, len(vectors)))  # one may be the vector itself
    step = max(1, min(CHUNK_QUERIES, CHUNK_PAIRS // wanted))
    pool: list[tuple[Array, Array, Array]] = []
    for start in range(0, max(1, len(vectors)), step):
        ids, scores = find_best("mine_pairs", names, vectors[start : start + step], vectors, wanted, score_function)
        own = np.arange(start, start + len(ids))[:, None]
        is_other = ids != own
        # A vector with many copies may not be among its own best: then it has found one too many.
        is_partner = is_other & (np.cumsum(is_other, axis=1) <= top_k)
        own, other = np.broadcast_to(own, ids.shape)[is_partner], ids[is_partner]
        pool.append((scores[is_partner], np.minimum(own, other), np.maximum(own, other)))
        if sum(len(scores) for scores, _, _ in pool) > max_pairs + CHUNK_PAIRS:
            pool = [_best_pairs(pool, max_pairs, len(vectors))]
    return _best_pairs(pool, max_pairs, len(vectors))


def _best_pairs(pool: list[tuple[Array, Array, Array]], max_pairs: int, count: int) -> tuple[Array, Array, Array]:
    """Sort pairs, drop repeated ones, and keep the best."""
    scores, first, second = (np.concatenate(arrays) for arrays in zip(*pool, strict=True))
    order = np.lexsort((second, first, -scores))
    firsts = np.unique((first * count + second)[order], return_index=True)[1]  # the best occurrence of each pair
    order = order[np.sort(firsts)[:max_pairs]]
    return scores[order], first[order], second[order]
