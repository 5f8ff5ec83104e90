"""Seven losses for sentence embeddings, each with its gradient by hand.

Each compares embeddings and returns a :class:`LossResult`: one number, and how it changes with each number of each
embedding. That is where the encoder's backward pass begins. :data:`LOSSES` lists them by sentence-transformers' names:

===========================  =================================================  ====================================
name                         what it asks for                                   data
===========================  =================================================  ====================================
multiple_negatives_ranking   the own positive is closer than all other texts    pairs, with or without hard negatives
simcse                       as above, between two dropout views of a text      texts
contrastive                  equal pairs at 0, others at least a margin apart   pairs labelled 1 or 0
triplet                      the positive closer than the negative by a margin  triplets
cosine_similarity            the cosine equals the score                        scored pairs
cosent                       cosines in the order of the scores                 scored pairs
softmax                      a linear classifier can tell the label             labelled pairs
===========================  =================================================  ====================================

Each raises ValueError for arguments that do not fit together, NaN and infinity, and rows of zeros under a cosine. Where
a loss has no derivative (a hinge at exactly 0, equal embeddings under a distance) its gradient is 0, as in PyTorch.
Letters: ``B`` examples, ``D`` the width of an embedding, ``M`` candidates, ``C`` classes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from minisbert.checks import check_choice, check_vectors
from minisbert.model import Array
from minisbert.model.ops import linear, linear_backward
from minisbert.similarity import (
    cos_sim,
    cos_sim_backward,
    dot_score,
    dot_score_backward,
    pairwise_cos_sim,
    pairwise_cos_sim_backward,
    pairwise_euclidean_sim,
    pairwise_euclidean_sim_backward,
    pairwise_manhattan_sim,
    pairwise_manhattan_sim_backward,
)


@dataclass(frozen=True, eq=False)
class LossResult:
    """A loss and its gradients, as each loss returns it.

    Parameters
    ----------
    value : float
        At least 0; the mean over the batch, but for CoSENT.
    gradients : tuple of Array, shape (B, D) each
        One for each embeddings argument, in order, of its shape and dtype.
    head : dict of str to Array
        The gradients of the loss's own weights, by their names in training.

    Examples
    --------
    >>> result = cosine_similarity(np.array([[2.0, 0.0]]), np.array([[0.0, 1.0]]), [0.5])
    >>> result.value, [gradient.shape for gradient in result.gradients]
    (0.25, [(1, 2), (1, 2)])
    """

    value: float
    gradients: tuple[Array, ...]
    head: dict[str, Array] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------- in-batch negatives


_SIMILARITIES = {"cosine": (cos_sim, cos_sim_backward), "dot": (dot_score, dot_score_backward)}


def multiple_negatives_ranking(
    anchors: Array,
    positives: Array,
    *negatives: Array,
    scale: float = 20.0,
    similarity: str = "cosine",
    symmetric: bool = False,
    false_negatives: Array | None = None,
) -> LossResult:
    """InfoNCE: each anchor must pick out its own positive among all candidates of the batch.

    ``loss = mean over i of -log(exp(s_ii) / sum over j of exp(s_ij))``, with ``s_ij = scale * similarity(anchor_i,
    candidate_j)``. The candidates are all positives of the batch, then all hard negatives, whichever anchor they were
    chosen for. The gradient of the scores, ``d_s_ij = (p_ij - [i = j]) / B`` with ``p`` the softmax over ``j``, pulls
    each anchor to its positive and pushes it from the others, hardest from the closest.

    **Source**: Henderson et al. 2017, section 4.4; van den Oord et al. 2018, equation 4.
    ``sentence_transformers.losses.MultipleNegativesRankingLoss(scale=, similarity_fct=)``; ``symmetric`` is its
    ``directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"``, formerly
    ``MultipleNegativesSymmetricRankingLoss``. They do not leave out false negatives.

    Parameters
    ----------
    anchors, positives : Array, shape (B, D)
        float32 or float64. Row ``i`` of one belongs to row ``i`` of the other. ``B >= 2`` without hard negatives.
    *negatives : Array, shape (B, D)
        Hard negatives.
    scale : float
        1 / temperature: 20 for cosines, 1 for dot products of vectors that are not of length 1.
    similarity : {"cosine", "dot"}
    symmetric : bool
        Average with the loss in the other direction: each positive must pick out its anchor among all anchors. Hard
        negatives take no part in that half.
    false_negatives : Array of bool, shape (B, M), optional
        ``M = B (1 + len(negatives))``. Where True, candidate ``j`` is left out for anchor ``i`` (score -inf, gradient
        0), and anchor ``i`` for positive ``j`` in the other direction. An anchor with no negative left adds 0 to the
        loss. From :func:`find_false_negatives`.

    Examples
    --------
    >>> result = multiple_negatives_ranking(np.eye(2), np.eye(2), scale=1.0)
    >>> round(result.value, 4)  # log(1 + exp(0 - 1))
    0.3133
    >>> result.gradients[0].round(3)  # downhill, each anchor turns away from the other's positive
    array([[0.   , 0.134],
           [0.134, 0.   ]])
    """
    name = "multiple_negatives_ranking"
    hard = {f"negatives[{i}]": rows for i, rows in enumerate(negatives)}
    check_choice(f"{name}: similarity", similarity, _SIMILARITIES)
    score, score_backward = _SIMILARITIES[similarity]
    _check(name, {"anchors": anchors, "positives": positives, **hard}, similarity == "cosine", scale=scale)
    count = len(anchors)
    if count == 1 and not negatives:
        raise ValueError(f"{name}: a batch must have B >= 2 pairs, or hard negatives: {_NOTHING_TO_COMPARE}")
    candidates = np.concatenate([positives, *negatives])  # (M, D)
    scores = _scaled(name, scale, score(anchors, candidates))  # (B, M)
    if false_negatives is not None:
        mask = np.asarray(false_negatives)
        if mask.dtype != bool or mask.shape != scores.shape or np.diagonal(mask).any():
            said = f"got {mask.dtype} {mask.shape}"
            raise ValueError(f"{name}: false_negatives must be bool {scores.shape}, False for own positives, {said}")
        scores[mask] = -math.inf
    own = np.arange(count)
    value, d_scores = _cross_entropy(scores, own)
    if symmetric:
        other, d_other = _cross_entropy(scores[:, :count].T, own)
        value = (value + other) / 2
        d_scores[:, :count] += d_other.T
        d_scores /= 2
    d_anchors, d_candidates = score_backward(scale * d_scores, anchors, candidates)
    return LossResult(value, (d_anchors, *np.split(d_candidates, 1 + len(negatives))))


def simcse(
    first_view: Array, second_view: Array, scale: float = 20.0, false_negatives: Array | None = None
) -> LossResult:
    """Unsupervised SimCSE: a text must recognise itself, encoded twice with different dropout.

    :func:`multiple_negatives_ranking` with cosines, where anchors and positives are two passes of the *same* texts
    through the encoder in training: dropout alone makes them differ.

    **Source**: Gao et al. 2021 (SimCSE), equation 4; ``sentence_transformers.losses.MultipleNegativesRankingLoss`` on
    pairs of a text with itself.

    Parameters
    ----------
    first_view, second_view : Array, shape (B, D)
        ``B >= 2``.
    scale : float
        1 / temperature; the paper's temperature is 0.05.
    false_negatives : Array of bool, shape (B, B), optional
        ``find_false_negatives(texts, texts)``, for batches in which a text occurs twice.

    Examples
    --------
    >>> round(simcse(np.eye(2), np.eye(2)).value, 12)  # log(1 + exp(-20))
    2.061e-09
    """
    return multiple_negatives_ranking(first_view, second_view, scale=scale, false_negatives=false_negatives)


def find_false_negatives(
    anchors: Sequence[Hashable], positives: Sequence[Hashable], *negatives: Sequence[Hashable]
) -> Array:
    """Find in-batch negatives that are none, because the same text stands at another place of the batch.

    Losses with in-batch negatives push an anchor from every other text of the batch; a text that occurs twice would be
    pushed from its own copy. Candidate ``j``, unless it is anchor ``i``'s own positive, is a false negative of ``i`` if

    - its text is that of ``i``'s positive or of anchor ``i`` itself, or
    - it is the positive of an anchor with the text of anchor ``i``.

    **Source**: Gao et al. 2021 (SimCSE) and Henderson et al. 2017 push duplicates apart; sentence-transformers keeps
    them out of a batch instead, by ``BatchSamplers.NO_DUPLICATES``. Texts are compared character by character.

    Parameters
    ----------
    anchors, positives : sequence of str or of any hashable, length B
        Texts as they are encoded, or their ids. With class labels for both, all of the own class are left out.
    *negatives : sequence, length B
        Hard negatives.

    Returns
    -------
    Array of bool, shape (B, M)
        ``M = B (1 + len(negatives))``, for :func:`multiple_negatives_ranking`.

    Examples
    --------
    >>> find_false_negatives(["hi", "tea?", "hi"], ["hello", "coffee?", "good day"]).astype(int)
    array([[0, 0, 1],
           [0, 0, 0],
           [1, 0, 0]])
    """
    columns = (anchors, positives, *negatives)
    if any(isinstance(column, str) for column in columns) or len({len(column) for column in columns}) > 1:
        said = ", ".join("a bare string" if isinstance(column, str) else f"{len(column):,}" for column in columns)
        raise ValueError(f"find_false_negatives: expected equally long lists of texts or ids, got {said}")
    number: dict[Hashable, int] = {}
    try:  # each text by the number at which it first occurs
        numbers = [np.array([number.setdefault(text, len(number)) for text in column], np.intp) for column in columns]
    except TypeError as error:
        raise ValueError(f"find_false_negatives: texts or ids must be single values, but: {error}") from None
    candidates, own = np.concatenate(numbers[1:]), numbers[0][:, None]
    mask: Array = (candidates == numbers[1][:, None]) | (candidates == own)  # (B, M)
    mask[:, : len(own)] |= own == own.T
    np.fill_diagonal(mask, False)  # the own positive
    return mask


# ------------------------------------------------------------------------------------------------ distances of pairs


_DISTANCES = {  # offset, similarity, its backward: a distance is offset - similarity, row by row
    "cosine": (1.0, pairwise_cos_sim, pairwise_cos_sim_backward),
    "euclidean": (0.0, pairwise_euclidean_sim, pairwise_euclidean_sim_backward),
    "manhattan": (0.0, pairwise_manhattan_sim, pairwise_manhattan_sim_backward),
}

_PAIRWISE_DISTANCE_EPS = 1e-6  # torch.nn.functional.pairwise_distance adds it to each difference


def contrastive(a: Array, b: Array, labels: ArrayLike, margin: float = 0.5, distance: str = "cosine") -> LossResult:
    """Pull pairs with label 1 together, and push those with label 0 apart until a margin lies between them.

    ``loss = mean of 1/2 * (label * d^2 + (1 - label) * max(margin - d, 0)^2)``, ``d`` the distance of a pair

    **Source**: Hadsell et al. 2006, equation 4. ``sentence_transformers.losses.ContrastiveLoss``, whose distance and
    margin are the defaults here; the paper's distance is "euclidean".

    Parameters
    ----------
    a, b : Array, shape (B, D)
    labels : array_like, shape (B,)
        1 (or True) for pairs that belong together, 0 for others. Hadsell et al. have it the other way round.
    margin : float
        In units of the distance, above 0.
    distance : {"cosine", "euclidean", "manhattan"}
        "cosine" is ``1 - cos``, in [0, 2]. The others are those of ``a - b + 1e-6``, as in PyTorch.

    Examples
    --------
    >>> a, b = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 1.0]])
    >>> result = contrastive(a, b, [1, 0])  # distances 1 and 0.293: (1^2 + (0.5 - 0.293)^2) / 4
    >>> round(result.value, 4)
    0.2607
    >>> (0.0 - result.gradients[0]).round(3)  # downhill, the first turns to its partner and the second away
    array([[ 0.   ,  0.5  ],
           [ 0.   , -0.073]])
    """
    name = "contrastive"
    check_choice(f"{name}: distance", distance, _DISTANCES)
    offset, similarity, similarity_backward = _DISTANCES[distance]
    _check(name, {"a": a, "b": b}, distance == "cosine", margin=margin)
    is_equal = _checked_numbers(name, "labels", labels, len(a)).astype(a.dtype)
    is_binary = (is_equal == 0.0) | (is_equal == 1.0)
    if not is_binary.all():
        raise ValueError(f"{name}: labels must be 1 (belongs together) or 0, got {is_equal[~is_binary][:3]}")
    if distance != "cosine":
        a, b = a - b + _PAIRWISE_DISTANCE_EPS, np.zeros_like(b)  # moves with the old a and b as with the new ones
    distances = offset - similarity(a, b)  # (B,)
    missing = np.maximum(margin - distances, 0.0)  # (B,)
    value = _mean(0.5 * (is_equal * distances**2 + (1.0 - is_equal) * missing**2))
    d_distances = (is_equal * distances - (1.0 - is_equal) * missing) / len(a)  # (B,)
    return LossResult(value, similarity_backward(-d_distances, a, b))


def triplet(
    anchors: Array, positives: Array, negatives: Array, margin: float = 1.0, distance: str = "euclidean"
) -> LossResult:
    """Make the positive closer to the anchor than the negative is, by a margin.

    ``loss = mean of max(d(anchor, positive) - d(anchor, negative) + margin, 0)``

    **Source**: Reimers & Gurevych 2019, section 3, "Triplet Objective Function", with its distance and margin.
    ``sentence_transformers.losses.TripletLoss(triplet_margin=1)``; its own default margin is 5.

    Parameters
    ----------
    anchors, positives, negatives : Array, shape (B, D)
    margin : float
        In units of the distance, above 0: with 0, embeddings that are all equal would have no loss.
    distance : {"cosine", "euclidean", "manhattan"}
        "cosine" is ``1 - cos``, in [0, 2], where a margin of 1 is large.

    Examples
    --------
    >>> near, far = np.array([[3.0, 0.0]]), np.array([[0.0, 3.5]])
    >>> result = triplet(np.zeros((1, 2)), near, far)  # 3 - 3.5 + 1
    >>> result.value, result.gradients[0]
    (0.5, array([[-1.,  1.]]))
    """
    name = "triplet"
    check_choice(f"{name}: distance", distance, _DISTANCES)
    _, similarity, similarity_backward = _DISTANCES[distance]
    embeddings = {"anchors": anchors, "positives": positives, "negatives": negatives}
    _check(name, embeddings, distance == "cosine", margin=margin)
    # the offset of the distances cancels
    losses = similarity(anchors, negatives) - similarity(anchors, positives) + margin  # (B,)
    d_losses = (losses > 0.0).astype(anchors.dtype) / len(anchors)  # (B,)
    d_anchors, d_positives = similarity_backward(-d_losses, anchors, positives)
    d_anchors_too, d_negatives = similarity_backward(d_losses, anchors, negatives)
    return LossResult(_mean(np.maximum(losses, 0.0)), (d_anchors + d_anchors_too, d_positives, d_negatives))


# ---------------------------------------------------------------------------------------------------- scored pairs


def cosine_similarity(a: Array, b: Array, scores: ArrayLike) -> LossResult:
    """Make the cosine of each pair its score: ``loss = mean of (cos(a_i, b_i) - score_i)^2``.

    **Source**: Reimers & Gurevych 2019, section 3, "Regression Objective Function";
    ``sentence_transformers.losses.CosineSimilarityLoss``.

    Parameters
    ----------
    a, b : Array, shape (B, D)
    scores : array_like, shape (B,)
        In [-1, 1], as cosines are; usually [0, 1]. Those of STSb, 0 to 5, have to be divided by 5 first.

    Examples
    --------
    >>> result = cosine_similarity(np.array([[2.0, 0.0]]), np.array([[0.0, 1.0]]), [0.5])
    >>> result.value, 0.0 - result.gradients[0]  # downhill, a turns to b
    (0.25, array([[0. , 0.5]]))
    """
    name = "cosine_similarity"
    _check(name, {"a": a, "b": b})
    wanted = _checked_numbers(name, "scores", scores, len(a))
    if np.abs(wanted).max() > 1.0:
        wrong = wanted[np.abs(wanted) > 1.0][:3]
        raise ValueError(
            f"{name}: scores must lie in [-1, 1], as cosines do, got {wrong}; divide them by their largest"
        )
    errors = pairwise_cos_sim(a, b) - wanted.astype(a.dtype)  # (B,)
    return LossResult(_mean(errors**2), pairwise_cos_sim_backward(2.0 * errors / len(a), a, b))


def cosent(a: Array, b: Array, scores: ArrayLike, scale: float = 20.0) -> LossResult:
    """CoSENT: of two pairs, the one with the higher score must have the higher cosine.

    ``loss = log(1 + sum of exp(scale * (cos_k - cos_i)))`` over all ``i, k`` of the batch with ``score_i > score_k``

    Pairs with equal scores are not compared. This is a cross-entropy whose right class has score 0 and whose wrong
    classes are the differences of cosines: each is pushed below 0 by its share of the sum.

    **Source**: Su 2022 (CoSENT); Huang et al. 2024, "CoSENT: Consistent Sentence Embedding via Similarity Ranking".
    ``sentence_transformers.losses.CoSENTLoss``.

    Parameters
    ----------
    a, b : Array, shape (B, D)
        ``B >= 2``.
    scores : array_like, shape (B,)
        On any scale: only their order counts. If all are equal, loss and gradients are 0. The loss is no mean: it grows
        with ``log B^2``.
    scale : float
        1 / temperature.

    Examples
    --------
    >>> a, b = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 1.0]])
    >>> round(cosent(a, b, [5, 1], scale=1.0).value, 4)  # log(1 + exp(0.7071 - 0)): the wrong order
    1.1079
    >>> round(cosent(a, b, [1, 5], scale=1.0).value, 4)
    0.4008
    """
    name = "cosent"
    _check(name, {"a": a, "b": b}, scale=scale)
    wanted = _checked_numbers(name, "scores", scores, len(a))  # float64: as float32, some could become equal
    if len(a) == 1:
        raise ValueError(f"{name}: a batch must have B >= 2 pairs: {_NOTHING_TO_COMPARE}")
    cosines = _scaled(name, scale, pairwise_cos_sim(a, b))  # (B,)
    is_compared = wanted[:, None] > wanted[None, :]  # (B, B)
    differences = (cosines[None, :] - cosines[:, None])[is_compared]
    right_and_wrong = np.concatenate([np.zeros(1, a.dtype), differences])[None, :]
    value, d_classes = _cross_entropy(right_and_wrong, np.zeros(1, np.intp))
    d_differences = np.zeros(is_compared.shape, a.dtype)  # (B, B)
    d_differences[is_compared] = d_classes[0, 1:]
    d_cosines = d_differences.sum(axis=0) - d_differences.sum(axis=1)  # (B,)
    return LossResult(value, pairwise_cos_sim_backward(scale * d_cosines, a, b))


# -------------------------------------------------------------------------------------------------- labelled pairs


def softmax_classification(u: Array, v: Array, labels: ArrayLike, weight: Array, bias: Array) -> LossResult:
    """Let a linear classifier, trained too and then thrown away, tell a pair's label from ``u``, ``v`` and ``|u - v|``.

    ``loss = mean of -log(softmax(weight @ [u, v, |u - v|] + bias)[label])``

    **Source**: Reimers & Gurevych 2019, section 3, "Classification Objective Function" (there without a bias);
    ``sentence_transformers.losses.SoftmaxLoss``, whose ``classifier`` holds weight and bias.

    Parameters
    ----------
    u, v : Array, shape (B, D)
    labels : array_like of int, shape (B,)
        Classes from 0 to ``C - 1``.
    weight : Array, shape (C, 3 D)
        ``C >= 2``.
    bias : Array, shape (C,)

    Examples
    --------
    >>> weight = np.zeros((3, 6))
    >>> weight[1, 4:] = 1.0  # class 1 where u and v differ
    >>> u, v = np.array([[0.0, 1.0]]), np.array([[0.0, -1.0]])
    >>> result = softmax_classification(u, v, [1], weight, np.zeros(3))
    >>> round(result.value, 4)  # log(1 + 2 exp(-2))
    0.2395
    >>> result.gradients[0].round(3), result.head["head.bias"].round(3)
    (array([[ 0.   , -0.213]]), array([ 0.107, -0.213,  0.107]))
    """
    name = "softmax_classification"
    _check(name, {"u": u, "v": v}, needs_direction=False)
    if (
        not all(isinstance(x, np.ndarray) and x.dtype == u.dtype for x in (weight, bias))
        or weight.shape != (bias.size, 3 * u.shape[1])
        or bias.ndim != 1
        or bias.size < 2
    ):
        said = ", ".join(f"{np.asarray(x).dtype} {np.shape(x)}" for x in (weight, bias))
        shapes = f"(C, {3 * u.shape[1]}) and (C,)"
        raise ValueError(f"{name}: weight and bias must be {u.dtype} {shapes}, C >= 2, got {said}")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError(f"{name}: weight or bias holds NaN or infinity; is the learning rate too high?")
    classes = _checked_numbers(name, "labels", labels, len(u))
    wrong = (classes != np.floor(classes)) | (classes < 0) | (classes >= len(weight))
    if wrong.any():
        raise ValueError(f"{name}: labels must be whole numbers from 0 to {len(weight) - 1}, got {classes[wrong][:3]}")
    features = np.concatenate([u, v, np.abs(u - v)], axis=1)
    value, d_logits = _cross_entropy(linear(features, weight, bias), classes.astype(np.intp))
    d_features, d_weight, d_bias = linear_backward(d_logits, features, weight)
    d_u, d_v, d_absolute = np.split(d_features, 3, axis=1)
    d_difference = d_absolute * np.sign(u - v)  # (B, D)
    return LossResult(value, (d_u + d_difference, d_v - d_difference), {"head.weight": d_weight, "head.bias": d_bias})


# ---------------------------------------------------------------------------------------------------------- by name


@dataclass(frozen=True)
class Loss:
    """A loss as training sees it."""

    function: Callable[..., LossResult]
    # "pairs" (anchors, positives, any hard negatives), "triplets" (anchors, positives, negatives), "scored" (two
    # columns of texts, and scores), "labelled" (two, and labels) or "texts" (one column, encoded twice)
    data: str
    options: Mapping[str, float | str | bool]  # keyword arguments that a user may set, with their defaults
    takes_false_negatives: bool
    has_head: bool  # the function takes a weight and a bias of its own, which are trained too

    def of_batch(
        self, texts: Sequence[Sequence[str]], targets: ArrayLike | None = None, **options: float | str | bool
    ) -> Callable[..., LossResult]:
        """The loss of one batch as a function of its vectors, ``loss(vectors, *head)``, one (B, D) array a column.

        >>> loss = LOSSES["multiple_negatives_ranking"].of_batch([["a", "b"], ["c", "d"]])
        >>> round(loss([np.eye(2), np.eye(2)]).value, 9)
        2e-09
        """
        given: dict[str, object] = {**self.options, **options}
        if self.takes_false_negatives:
            # texts of one class or, without classes, equal texts belong together
            columns = texts if targets is None else [np.asarray(targets).tolist()] * len(texts)
            given["false_negatives"] = find_false_negatives(*columns)
        wanted = [targets] if self.data in ("scored", "labelled") else []
        return lambda vectors, *head: self.function(*vectors, *wanted, *head, **given)


def _loss(function: Callable[..., LossResult], data: str) -> Loss:
    """Take the options and needs of a loss from its signature."""
    parameters = inspect.signature(function).parameters
    options = {name: one.default for name, one in parameters.items() if one.default is not one.empty}
    takes_false_negatives = options.pop("false_negatives", "never") is None
    return Loss(function, data, options, takes_false_negatives, "weight" in parameters)


LOSSES = MappingProxyType(
    {
        "multiple_negatives_ranking": _loss(multiple_negatives_ranking, "pairs"),
        "simcse": _loss(simcse, "texts"),
        "contrastive": _loss(contrastive, "labelled"),
        "triplet": _loss(triplet, "triplets"),
        "cosine_similarity": _loss(cosine_similarity, "scored"),
        "cosent": _loss(cosent, "scored"),
        "softmax": _loss(softmax_classification, "labelled"),
    }
)

# ---------------------------------------------------------------------------------------------------------- shared


def _cross_entropy(scores: Array, targets: Array) -> tuple[float, Array]:
    """Mean over rows of ``-log(softmax(row)[target])``, and its gradient; a score of -inf is left out."""
    rows = np.arange(len(scores))
    largest = scores.argmax(axis=1)
    highest = scores[rows, largest]
    probs = np.exp(scores - highest[:, None])
    # the largest is exp(0) = 1: added last, by log1p, it does not drown the others where they are tiny
    probs[rows, largest] = 0.0
    others = probs.sum(axis=1)
    losses = highest - scores[rows, targets] + np.log1p(others)
    probs[rows, largest] = 1.0
    probs /= (1.0 + others)[:, None]
    # p - 1 of the target is minus the sum of the others' p: again no 1 for small numbers to drown in
    probs[rows, targets] = 0.0
    probs[rows, targets] = -probs.sum(axis=1)
    return _mean(losses), probs / len(scores)


def _scaled(function: str, scale: float, similarities: Array) -> Array:
    """Multiply by the scale, unless that leaves the range of the dtype."""
    largest = max(1.0, float(np.abs(similarities).max()))
    if scale * largest > float(np.finfo(similarities.dtype).max) / 4.0:
        dtype = similarities.dtype
        raise ValueError(f"{function}: scale times similarity, {scale:g} * {largest:g}, is too large for {dtype}")
    return scale * similarities


def _mean(losses: Array) -> float:
    return float(np.mean(losses, dtype=np.float64))


# ------------------------------------------------------------------------------------------------------------ arguments
# NaN in a loss would travel into every weight at the next step, so arguments are checked first.


_NOTHING_TO_COMPARE = "with one, the loss is 0 whatever the embeddings are; is it the last batch of an epoch?"


def _check(function: str, embeddings: Mapping[str, Array], needs_direction: bool = True, **positive: float) -> None:
    """Raise if embeddings (B, D) do not fit together or are not finite, or a scale or margin is not above 0.

    Where a cosine is taken, rows of zeros, which have no direction, are refused as well.
    """
    first = next(iter(embeddings.values()))
    for name, x in embeddings.items():
        is_like_first = isinstance(x, np.ndarray) and (x.shape, x.dtype) == (np.shape(first), np.asarray(first).dtype)
        if not is_like_first or x.dtype not in (np.float32, np.float64) or x.ndim != 2 or not x.size:
            said = ", ".join(f"{key} {np.asarray(y).dtype} {np.shape(y)}" for key, y in embeddings.items())
            raise ValueError(f"{function}: embeddings must be (B, D) all, and float32 or float64 all, got {said}")
        check_vectors(x, f"{function}: {name}")
        if needs_direction and not np.any(x, axis=1).all():
            row = np.any(x, axis=1).argmin()
            raise ValueError(f"{function}: {name} has only zeros in row {row}, and so no direction for a cosine")
    for name, number in positive.items():
        if not 0.0 < number < math.inf:
            raise ValueError(f"{function}: {name} must be a finite number above 0, got {number!r}")


def _checked_numbers(function: str, what: str, values: ArrayLike, count: int) -> Array:
    """Return scores or labels as float64 (B,), finite."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{function}: {what} must be numbers, but NumPy says: {error}") from None
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(f"{function}: {what} must be ({count},) finite numbers, got {numbers.shape} {numbers!r:.80}")
    return numbers
