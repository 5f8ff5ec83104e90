"""The exercises of notebook 10, "How does contrast teach meaning?": InfoNCE, its gradient, and false negatives.

Each comes with its solution, and typical mistakes as changes of its text: read it after the notebook. The package's
own versions are :func:`minisbert.training.losses.multiple_negatives_ranking` and
:func:`minisbert.training.losses.find_false_negatives`.

Letters: ``B`` pairs.
"""

from collections.abc import Sequence

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.model import Array
from minisbert.model.ops import softmax


def _down(scores: Array) -> Array:
    """Softmax along the columns."""
    return softmax(scores.T).T


def _over_all(scores: Array) -> Array:
    """Softmax of all scores together."""
    return softmax(scores.reshape(1, -1)).reshape(scores.shape)


def _others(scores: Array) -> Array:
    """``exp`` of each score over that of the others in its row."""
    each = np.exp(scores)
    return each / (each.sum(axis=1, keepdims=True) - each)


def _info_nce(cosines: Array, scale: float) -> float:
    probs = softmax(scale * cosines)
    return float(-np.log(probs.diagonal()).mean())


INFO_NCE = Exercise(
    _info_nce,
    [(array([0.6, 0.8], [-0.6, -0.8]), 5.0), (array([0.9, 0.1, 0.3], [0.2, 0.4, 0.5], [0, -0.3, 0.7]), 2.0)],
    {
        "the scale is not used: softmax is never sure of cosines": {"scale * cosines": "cosines"},
        "divided by the scale, which is 1 / temperature": {"scale * cosines": "cosines / scale"},
        "each positive chooses among anchors; an anchor's candidates stand in its row": {"softmax(": "_down("},
        "the softmax runs over all scores together; each anchor chooses for itself": {"softmax(": "_over_all("},
        "the own positive is missing in the sum that softmax divides by": {"softmax(": "_others("},
        "the right terms, added up: the loss is for one anchor, on average": {"mean()": "sum()"},
        "a mean over all candidates; only the own positive counts": {".diagonal()": ""},
        "the logarithm is missing: a hopeless anchor would feel no pull":
            {"np.log(probs.diagonal())": "probs.diagonal()"},
        "this only pulls: the other candidates take no part, so that nothing is pushed away": {"softmax(": "np.exp("},
    },
    level=2, minutes=15, instead=("losses",),
    draw=lambda rng: (rng.uniform(-1, 1, (4, 4)), float(rng.uniform(1, 20))),
    hint="each row is a choice among candidates. Which of them is the right one, and how sure is the softmax of it?",
    more="softmax(scale * cosines), its diagonal, minus the logarithm of it, and the mean",
)  # fmt: skip


def _d_scores(scores: Array) -> Array:
    return (softmax(scores) - np.eye(len(scores))) / len(scores)


D_SCORES = Exercise(
    _d_scores,
    [(array([2, 0, 1], [0, 1, 1.5], [-1, 0.5, 0]),), (array([3, 4], [-3, -4]),)],
    {
        "too large by the factor B: the loss is a mean over the anchors": {" / len(scores)": ""},
        "the sign is turned: this is the arrow, the way downhill; the gradient points uphill":
            {"return (": "return -("},
        "this only pushes: what distinguishes the own positive from the other candidates?":
            {" - np.eye(len(scores))": ""},
        "the softmax runs along the wrong axis: an anchor's candidates stand in its row": {"softmax(": "_down("},
        "divided by the number of scores; there are only B anchors": {"/ len(scores)": "/ scores.size"},
        "the softmax is missing: its probabilities are what is compared with the right choice":
            {"softmax(scores)": "scores"},
    },
    level=2, minutes=10, instead=("losses",),
    tolerance=1e-12,  # slopes that are measured are not derived: two steps are off by 1e-11
    draw=lambda rng: (2 * rng.normal(size=(4, 4)),),
    hint="what would the probabilities be if every anchor were sure of its own? How far are they from that?",
    more="probabilities by rows, less 1 on the diagonal, over the number of anchors",
)  # fmt: skip


def _false_negatives(classes: Sequence[str]) -> Array:
    names = np.array(classes)
    same = names[:, None] == names
    return same & ~np.eye(len(names), dtype=bool)


FALSE_NEGATIVES = Exercise(
    _false_negatives,
    [
        (["praise", "question", "praise"],),
        (["a", "b", "b", "c", "b"],),
        (["".join("ab"), "a", "".join("ab")],),  # equal, and not one object
    ],
    {
        "True on the diagonal as well: then an anchor's own positive is left out":
            {" & ~np.eye(len(names), dtype=bool)": ""},
        "the other way round: True says that a candidate is left out": {"==": "!="},
        "one half of the matrix only: if j is no negative of i, then i is no negative of j":
            {"return same": "return np.triu(same)"},
        "one half of the matrix only: if i is no negative of j, then j is no negative of i":
            {"return same": "return np.tril(same)"},
        "all but the own positive is left out: then there are no negatives": {"same & ": ""},
        "nothing is left out: then texts of one class are pushed apart": {"same &": "False &"},
    },
    level=2, minutes=10, instead=("find_false_negatives",),
    draw=lambda rng: (rng.choice(["praise", "question", "complaint"], 6).tolist(),),
    hint="for which i and j do the classes agree? And which of these is the anchor's own positive?",
    more="compare np.array(classes)[:, None] with np.array(classes), and take the diagonal out",
)  # fmt: skip
