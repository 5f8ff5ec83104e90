"""The exercises of notebook 10, "How does contrast teach meaning?": InfoNCE, its gradient, and false negatives.

Each comes with its solution and with the results of typical mistakes: read it after the notebook. The package's own
versions are :func:`minisbert.training.losses.multiple_negatives_ranking` and
:func:`minisbert.training.losses.find_false_negatives`.

Letters: ``B`` pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minisbert.course.exercises import Exercise, Mistake, array
from minisbert.model import Array
from minisbert.model.ops import softmax
from minisbert.training.losses import find_false_negatives

__all__ = ["D_SCORES", "FALSE_NEGATIVES", "INFO_NCE"]


def _own(probs: Array) -> Array:
    """The probability of each anchor's own positive."""
    return np.diagonal(probs)


INFO_NCE = Exercise(
    "info_nce",
    lambda cosines, scale: -np.log(_own(softmax(scale * cosines))).mean(),
    [
        (array([0.6, 0.8], [-0.6, -0.8]), 5.0),
        (array([0.9, 0.1, 0.3], [0.2, 0.4, 0.5], [0, -0.3, 0.7]), 2.0),
    ],
    [
        Mistake(
            lambda cosines, scale: -np.log(_own(softmax(cosines))).mean(),
            "the scale is not used: cosines lie between -1 and 1, and their softmax is never sure of anything",
        ),
        Mistake(
            lambda cosines, scale: -np.log(_own(softmax(cosines / scale))).mean(),
            "divided by the scale: it is 1 / temperature, and the larger it is, the surer is the softmax",
        ),
        Mistake(
            lambda cosines, scale: -np.log(_own(softmax(scale * cosines.T))).mean(),
            "this softmax lets each positive choose among the anchors; an anchor's candidates stand in its row",
        ),
        Mistake(
            lambda cosines, scale: -np.log(_own(softmax(scale * cosines))).sum(),
            "the right terms, added up: the loss is for one anchor, on average",
        ),
        Mistake(
            lambda cosines, scale: np.log(_own(softmax(scale * cosines))).mean(),
            "negative: the logarithm of a probability is below 0, and a loss is to become small",
        ),
        Mistake(
            lambda cosines, scale: -np.log(softmax(scale * cosines)).mean(),
            "the mean of all numbers of the matrix: only the probability of the own positive is to become large",
        ),
        Mistake(
            lambda cosines, scale: -_own(softmax(scale * cosines)).mean(),
            "the logarithm is missing; without it an anchor that is hopelessly wrong would feel no pull",
        ),
        Mistake(
            lambda cosines, scale: -(scale * _own(cosines)).mean(),
            "this only pulls: the other candidates take no part, so that nothing is pushed away",
        ),
    ],
)


D_SCORES = Exercise(
    "d_scores",
    lambda scores: (softmax(scores) - np.eye(len(scores))) / len(scores),
    [
        (array([3, 4], [-3, -4]),),
        (array([2, 0, 1], [0, 1, 1.5], [-1, 0.5, 0]),),
    ],
    [
        Mistake(
            lambda scores: softmax(scores) - np.eye(len(scores)),
            "too large by the factor B: the loss is a mean over the anchors",
        ),
        Mistake(
            lambda scores: (np.eye(len(scores)) - softmax(scores)) / len(scores),
            "the sign is turned: this is the arrow, the way downhill; the gradient points uphill",
        ),
        Mistake(
            lambda scores: softmax(scores) / len(scores),
            "this only pushes: what distinguishes the own positive from the other candidates?",
        ),
        Mistake(
            lambda scores: (softmax(scores.T).T - np.eye(len(scores))) / len(scores),
            "the softmax runs along the wrong axis: an anchor's candidates stand in its row",
        ),
        Mistake(
            lambda scores: (softmax(scores) - np.eye(len(scores))) / scores.size,
            "divided by the number of scores: the loss is a mean over the anchors, and there are B of them",
        ),
    ],
)


def _same_class(classes: Sequence[str]) -> Array:
    names = np.array(classes)
    return names[:, None] == names


FALSE_NEGATIVES = Exercise(
    "false_negatives",
    lambda classes: find_false_negatives(classes, classes),
    [
        (["praise", "question", "praise"],),
        (["a", "b", "b", "c", "b"],),
    ],
    [
        Mistake(
            _same_class,
            "True on the diagonal as well: then an anchor's own positive is left out, and nothing is to be found",
        ),
        Mistake(
            lambda classes: ~_same_class(classes),
            "the other way round: True says that a candidate is left out, and these are the true negatives",
        ),
        Mistake(
            lambda classes: np.triu(_same_class(classes), 1),
            "one half of the matrix only: if j is no negative of i, then i is no negative of j",
        ),
        Mistake(
            lambda classes: np.zeros((len(classes), len(classes)), bool),
            "nothing is left out: then texts of one class are pushed apart, and the loss works against itself",
        ),
        Mistake(
            lambda classes: np.eye(len(classes), dtype=bool),
            "these are the own positives, the only candidates that must stay in any case",
        ),
    ],
)
