"""InfoNCE on points of a plane; alignment and uniformity.

A contrastive loss pulls the two of a pair together and pushes everything else apart. Wang & Isola measure each
effect separately. Smaller is better, and neither is enough alone: if all vectors are equal, alignment is perfect (0)
and uniformity the worst possible (also 0). Only directions count, since InfoNCE with a cosine sees nothing else.

Letters: ``S`` states, ``B`` pairs, ``D`` width of a vector, 2 on the plane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from minisbert.checks import check_vectors
from minisbert.model import Array
from minisbert.model.ops import normalize
from minisbert.similarity import cos_sim
from minisbert.training.losses import multiple_negatives_ranking

SCALE = 5.0
"""Of the cosines. With 20, as in training, the points come to rest before they are spread evenly."""
LEARNING_RATE = 0.2
STEPS = 80
POSITIVE_LENGTH = 0.7
"""Length of positives; anchors have 1. The cosine does not see it, and in a picture neither hides the other."""

SENTENCE_PAIRS = (
    ("How do I reset my password?", "I forgot my password, what can I do?"),
    ("How do I change my password?", "I want a stronger password than before."),
    ("Where is my parcel?", "My order has not arrived yet."),
    ("Can I pay by card?", "Do you accept credit cards?"),
    ("How do I cook rice?", "What is the best way to boil rice?"),
    ("Is it going to rain tomorrow?", "Will I need an umbrella in the morning?"),
    ("Why is the sky blue?", "What makes the sky look blue?"),
    ("How old is the universe?", "When did the big bang happen?"),
)
"""Questions and paraphrases. The first two are easily confused: one password is forgotten, the other is known."""


def alignment(a: ArrayLike, b: ArrayLike) -> float:
    """Measure how far apart the two vectors of a pair are: ``mean_i |u_i - v_i|^2``, ``u = a / |a|``, ``v = b / |b|``.

    **Source**: Wang & Isola 2020, section 4.1, ``align_loss``.

    Parameters
    ----------
    a, b : array_like, shape (B, D)
        Row ``i`` of one is the partner of row ``i`` of the other. Finite; no row may be all zeros.

    Returns
    -------
    float
        The mean of ``2 - 2 cos(a_i, b_i)``, in [0, 4]; 0 if the two of each pair point the same way.

    Examples
    --------
    >>> round(alignment([[1, 0], [0, 3]], [[2, 0], [5, 0]]), 6)  # one pair agrees, one is at right angles
    1.0
    """
    u, v = _unit_rows("alignment: a", a), _unit_rows("alignment: b", b)  # (B, D) each
    if u.shape != v.shape:
        raise ValueError(f"alignment: a and b must be (B, D) both, a row each for a pair, got {u.shape} and {v.shape}")
    return float(np.mean(np.linalg.norm(u - v, axis=1) ** 2))


def uniformity(x: ArrayLike) -> float:
    """Measure how evenly vectors are spread over the sphere; smaller is more even.

    ``log( 2 / (B (B - 1)) * sum_{i<j} exp(-2 |u_i - u_j|^2) )``, where ``u = x / |x|``

    Near neighbours dominate the mean, so moving them apart pays most.

    **Source**: Wang & Isola 2020, section 4.1, ``uniform_loss``.

    Parameters
    ----------
    x : array_like, shape (B, D)
        At least 2 rows. Finite; no row may be all zeros. Of pairs take one side at a time.

    Returns
    -------
    float
        In [-8, 0]; 0 if all point the same way.

    Examples
    --------
    >>> uniformity([[1, 0], [4, 0]]), uniformity([[1, 0], [-1, 0]])  # the same way, and opposite ways
    (0.0, -8.0)
    """
    u = _unit_rows("uniformity: x", x, least=2)  # (B, D)
    first, second = np.triu_indices(len(u), 1)  # all i < j
    exponents = -2.0 * np.maximum(2.0 - 2.0 * (u @ u.T)[first, second], 0.0)  # -2 |u_i - u_j|^2, of unit vectors
    largest = float(exponents.max())  # factored out of the sum: of equal terms exactly that exponent is left
    return largest + math.log(float(np.mean(np.exp(exponents - largest))))


def _unit_rows(what: str, x: ArrayLike, least: int = 1) -> Array:
    """Divide every row by its length, in float64."""
    rows = check_vectors(x, what).astype(np.float64)  # (B, D)
    largest = np.abs(rows).max(axis=1, keepdims=True)  # squares of 1e200 would overflow, of 1e-200 underflow
    if len(rows) < least or not largest.all():
        got = f"{len(rows)}" if largest.all() else f"zeros in row {int(largest.argmin())}"
        raise ValueError(f"{what} must have at least {least} rows, each with a direction, got {got}")
    return normalize(rows / largest)


# -------------------------------------------------------------------------------------------------------------- descent
#
# There is no model: pairs of points, or sentence vectors, are the parameters. In pictures the arrow on a point is
# minus its gradient: where the loss falls fastest, and how steeply. Things to look for:
#
# - An arrow is at right angles to the line from the origin to its point: the cosine does not see length, so a point can
#   only be turned. Hence steps make points a little longer, never shorter.
# - It is the sum of a pull towards the point's partner and pushes away from the others, weighted by the softmax:
#   near ones count, far ones do not. It vanishes once the softmax is sure of the partner, early with a large scale.
# - The pull shows as falling alignment, the push as falling uniformity. Pairs that meet may crowd first.


@dataclass(frozen=True, eq=False)
class Descent:
    """All states of a descent, from start to end, with the gradient at each."""

    anchors: Array  # (S, B, D)
    positives: Array  # (S, B, D) row i is the partner of row i of the anchors
    d_anchors: Array  # (S, B, D) gradient of the loss; minus the arrow
    d_positives: Array  # (S, B, D)
    loss: Array  # (S,) InfoNCE, in nats, >= 0
    alignment: Array  # (S,) of the pairs, in [0, 4]
    uniformity: Array  # (S,) mean of the anchors' and the positives', in [-8, 0]
    positive_cosine: Array  # (S,) mean over the pairs, in [-1, 1]
    negative_cosine: Array  # (S,) mean over all anchors with others' positives, in [-1, 1]
    scale: float
    learning_rate: float

    @property
    def steps(self) -> int:
        """The number of the last state; the start is 0."""
        return len(self.loss) - 1

    def similarities(self, step: int) -> Array:
        """(B, B) cosines of every anchor (rows) with every positive; the pairs are on the diagonal."""
        return cos_sim(self.anchors[step], self.positives[step])

    def found(self, step: int) -> int:
        """Count the anchors that are closer to their own positive than to any other.

        >>> turned = descend([[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [0.8, 0.6]])
        >>> turned.found(0), turned.found(-1)
        (0, 2)
        """
        cosines = self.similarities(step)  # (B, B)
        own = np.diagonal(cosines)  # (B,)
        return int(np.sum((cosines >= own[:, None]).sum(axis=1) == 1))  # only its own is as close


def make_points(pairs: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Make pairs of points on a plane that start badly: all on one side of the origin, each beside a stranger.

    Anchors (B, 2) lie on the upper half of a circle in random order, and each positive (B, 2) almost in the direction
    of another pair's anchor; their lengths are 1 and :data:`POSITIVE_LENGTH`.

    >>> anchors, positives = make_points(3, np.random.default_rng(0))
    >>> anchors.round(2)
    array([[-0.72,  0.69],
           [ 0.96,  0.27],
           [-0.16,  0.99]])
    """
    if pairs < 2:
        raise ValueError(f"make_points: pairs must be at least 2, got {pairs}; a single pair has no negatives")
    sides = []
    slots = rng.permutation(pairs)  # (B,) of the anchors
    for length, slot in ((1.0, slots), (POSITIVE_LENGTH, np.roll(slots, 1))):
        angles = math.pi / pairs * (slot + rng.uniform(0.25, 0.75, pairs))  # (B,) each in its slot
        sides.append(length * np.stack([np.cos(angles), np.sin(angles)], axis=1))  # (B, 2)
    return sides[0], sides[1]


def descend(
    anchors: ArrayLike,
    positives: ArrayLike,
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    scale: float = SCALE,
) -> Descent:
    """Move pairs of points down the gradient of InfoNCE, and keep every state; S is ``steps + 1``.

    ``loss = mean_i -log( exp(scale cos(a_i, p_i)) / sum_j exp(scale cos(a_i, p_j)) )``, and ``scale = 1 / temperature``

    ``point <- point - learning_rate * d_point``

    Points of any width, float32 if both sides are, else float64. What is measured on them is float64.

    **Source**: van den Oord et al. 2018, equation 4; Wang & Isola 2020, section 4.1. In PyTorch
    ``torch.optim.SGD([anchors, positives], lr=learning_rate)`` under
    ``cross_entropy(scale * cos_sim(anchors, positives), arange(B))``.

    >>> seen = descend(*make_points(6, np.random.default_rng(0)))
    >>> for measure in (seen.loss, seen.alignment, seen.uniformity):
    ...     print(f"{measure[0]:.2f} -> {measure[-1]:.2f}")
    3.44 -> 0.17
    1.11 -> 0.00
    -1.42 -> -2.81
    """
    if steps < 0 or not 0 < learning_rate < math.inf:
        raise ValueError(f"descend: expected steps >= 0 and a learning_rate above 0, got {steps} and {learning_rate}")
    dtype = np.result_type(np.asarray(anchors), np.asarray(positives), np.float32)
    a, p = np.asarray(anchors, dtype), np.asarray(positives, dtype)  # (B, D) each; the loss refuses what does not fit
    is_pair = np.eye(len(a), dtype=bool)
    states: list[dict[str, Any]] = []
    for step in range(steps + 1):
        loss = multiple_negatives_ranking(a, p, scale=scale)
        d_a, d_p = loss.gradients  # (B, D) each
        cosines = cos_sim(a.astype(np.float64), p)  # (B, B)
        states.append(
            {
                "anchors": a,
                "positives": p,
                "d_anchors": d_a,
                "d_positives": d_p,
                "loss": loss.value,
                "alignment": alignment(a, p),
                "uniformity": (uniformity(a) + uniformity(p)) / 2,
                "positive_cosine": cosines[is_pair].mean(),
                "negative_cosine": cosines[~is_pair].mean(),
            }
        )
        if step == steps:
            break
        with np.errstate(over="ignore", invalid="ignore"):
            a, p = a - learning_rate * d_a, p - learning_rate * d_p
            runs_away = not np.isfinite(np.square(a).sum() + np.square(p).sum())
        if runs_away:
            raise ValueError(
                f"descend: with learning_rate {learning_rate:g} the points diverge; use a smaller one, such as "
                f"{LEARNING_RATE}"
            )
    stacked = {name: np.stack([state[name] for state in states]) for name in states[0]}
    return Descent(**stacked, scale=scale, learning_rate=learning_rate)
