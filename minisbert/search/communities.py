"""Groups of similar vectors around a centre, without choosing the number of groups.

Every vector is a possible centre; its community is all vectors, itself included, whose cosine with it reaches a
threshold. Communities are taken greedily, the largest first. Members that are taken are lost to all others: a taken
centre makes no community, and one that loses members must still be large enough. Outliers stay alone.

Two passes over all pairs: the first only counts each centre's members, the second lists those of the centres whose turn
it is, if still free. So memory does not grow with the number of close pairs, which is ``M^2`` if all texts are alike.

Letters: ``M`` vectors, ``D`` width, ``P`` pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from minisbert.model import Array
from minisbert.search.exact import walk
from minisbert.search.scoring import Scorer, as_vectors, build_scorer, check_count, common_dtype

__all__ = ["community_detection"]

BATCH_MEMBERS = 2**19  # members listed at a time, unless one centre has more
BATCH_CENTRES = 4096  # vectors compared with all others in one pass


def community_detection(
    embeddings: ArrayLike, threshold: float = 0.75, min_community_size: int = 10
) -> list[list[int]]:
    """Find groups of vectors that are close to a common centre.

    Parameters
    ----------
    embeddings : array_like, shape (M, D)
    threshold : float
        Minimum cosine with the centre, in [-1, 1].
    min_community_size : int
        Minimum number of members, the centre included; at least 1.

    Returns
    -------
    list of list of int
        Rows: the centre, then the members by descending cosine, equal ones by id. Largest community first; of equally
        large ones the one that was larger before others took from it, then the one with the smaller centre. No row is
        in two.

    Raises
    ------
    ValueError
        For NaN, Inf, rows of zeros, a threshold outside [-1, 1], a size below 1.

    Notes
    -----
    **Source**: ``sentence_transformers.util.community_detection``, the same greedy choice in the same order. It leaves
    the order of equal cosines open, may decide either way where a cosine equals the threshold up to float32 rounding
    (here the exact score decides), and holds all close pairs at once.

    Examples
    --------
    >>> east, north = [1.0, 0.0], [0.0, 1.0]
    >>> community_detection([east, north, [0.9, 0.1], [0.1, 0.9], [0.8, 0.1], [-1.0, 0.0]], 0.9, 2)
    [[0, 2, 4], [1, 3]]
    """
    vectors = as_vectors("community_detection", "embeddings", embeddings)
    least = check_count("community_detection", "min_community_size", min_community_size)
    if not -1.0 <= threshold <= 1.0:
        raise ValueError(
            f"community_detection: threshold must be a cosine in [-1, 1], got {threshold!r}; is it a percentage or a "
            "distance?"
        )
    counts = _count_members(vectors, threshold)
    centres = np.argsort(-counts, kind="stable")
    centres = centres[counts[centres] >= least]
    is_taken = np.zeros(len(vectors), bool)
    found: list[list[int]] = []
    while len(centres := centres[~is_taken[centres]]):
        batch = centres[: max(1, int(np.searchsorted(np.cumsum(counts[centres[:BATCH_CENTRES]]), BATCH_MEMBERS)))]
        for centre, members in zip(batch.tolist(), _list_members(vectors, batch, threshold), strict=True):
            free = members[~is_taken[members]]
            if is_taken[centre] or len(free) < least:
                continue
            is_taken[free] = True
            found.append([centre, *free[free != centre].tolist()])
        centres = centres[len(batch) :]
    return sorted(found, key=len, reverse=True)


def _scorer(vectors: Array, chosen: slice | Array) -> Scorer:
    names = "embeddings", "embeddings"
    dtype = common_dtype("community_detection", names, vectors, vectors)
    return build_scorer("community_detection", names, "cosine", vectors[chosen], dtype)


def _count_members(vectors: Array, threshold: float) -> Array:
    """Count the vectors close to each: ``(M,)``."""
    counts = np.zeros(len(vectors), np.intp)  # (M,)
    for start in range(0, len(vectors), BATCH_CENTRES):
        scorer = _scorer(vectors, slice(start, start + BATCH_CENTRES))
        of_batch = counts[start : start + BATCH_CENTRES]
        for chosen, block in walk("community_detection", scorer, vectors):
            of_batch[chosen] += np.count_nonzero(scorer.reaches(chosen, block, threshold), axis=1)
    return counts


def _list_members(vectors: Array, centres: Array, threshold: float) -> list[Array]:
    """List the vectors close to each centre by descending cosine, equal ones by id."""
    scorer = _scorer(vectors, centres)
    rows, ids, scores = [], [], []
    for chosen, block in walk("community_detection", scorer, vectors):
        row, column = np.nonzero(scorer.reaches(chosen, block, threshold))
        scores.append(scorer.exact(chosen, block, np.empty(0), row, column))
        rows.append(row + chosen.start)
        ids.append(column + block.start)
    row_of, id_of = np.concatenate(rows), np.concatenate(ids)
    order = np.lexsort((id_of, -np.concatenate(scores), row_of))
    ends = np.cumsum(np.bincount(row_of, minlength=len(centres)))
    return np.split(id_of[order], ends[:-1])
