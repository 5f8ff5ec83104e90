"""The exercises of notebook 5, "Is this really BERT?": the gaps between floats, when tensors agree, and two suspects.

Each comes with its solution, whose keyword arguments make typical mistakes: read it after the notebook. The package's
own version of the second is :func:`minisbert.proof.ledger.compare`. :func:`suspect` makes the two broken models of the
third.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.encoder import SentenceEncoder
from minisbert.model import Array

__all__ = ["AGREES", "GAP", "SUSPECT_1", "SUSPECT_2", "suspect"]


def _gap(
    x: float,
    *,
    # x = m * 2^e with 1/2 <= |m| < 1
    exponent: Callable[[float], float] = lambda x: math.frexp(x)[1] - 1,
    digits: int = 23,  # behind the point; m has one more
    base: float = 2.0,
) -> float:
    return base ** (exponent(x) - digits)


GAP = Exercise(
    "gap",
    _gap,
    [(1.0,), (1.5,), (3.0,), (1000.0,), (0.1,), (-6.0,), (1e-9,), (0.5,), (-2.0,)],
    {
        "this is the gap of float64, which keeps 53 binary digits; float32 keeps 24": {"digits": 52},
        "this is the gap of float16, which keeps 11 binary digits; float32 keeps 24": {"digits": 10},
        "this is the gap at 1; at 1000 the numbers lie further apart, and at 0.1 closer together": {
            "exponent": lambda x: 0.0
        },
        "this grows smoothly with x; the gap is the same for all numbers from 1 to 2, and then doubles at once": {
            "exponent": lambda x: math.log2(abs(x))
        },
        "this is half of it: the most that rounding can cost. The gap is the way from one number to the next": {
            "digits": 24
        },
        "this is twice the gap: m has 24 binary digits, and one of them stands before the point": {"digits": 22},
        "right from 1 on. Below 1 the logarithm is negative, and int() cuts towards zero: which function always goes "
        "down?": {"exponent": lambda x: int(math.log2(abs(x)))},
        "right for powers of two only. Between 1 and 2 the gap is that at 1, not that at 2": {
            "exponent": lambda x: math.ceil(math.log2(abs(x)))
        },
        "the exponent is rounded to the nearest; from 1 to 2 it is always that of 1": {
            "exponent": lambda x: round(math.log2(abs(x)))
        },
        "this counts decimal digits; the numbers are stored in binary, and the gap is a power of two": {
            "exponent": lambda x: math.floor(math.log10(abs(x))),
            "digits": 7,
            "base": 10.0,
        },
    },
    level=2,
    minutes=15,
    draw=lambda rng: (float(rng.choice([-1, 1]) * 2 ** rng.uniform(-20, 20)),),
    hints=(
        "between which two powers of two does |x| lie? The gap is the same in between",
        "math.floor(math.log2(abs(x))) is the power below; a float32 has 23 binary digits behind the first",
    ),
)


def _agrees(
    ours: Array,
    reference: Array,
    tolerance: float,
    *,
    shape: Callable[[Array], Any] = np.shape,
    size: Callable[[Array], Any] = lambda difference: np.abs(difference).max(),
    scale: Callable[[Array, Array], Any] = lambda ours, reference: max(1.0, np.abs(reference).max()),
    is_nan_fine: bool = False,
) -> bool:
    if shape(ours) != shape(reference):
        return False
    try:
        difference, bound = size(ours - reference), tolerance * scale(ours, reference)
    except ValueError:  # shapes that do not even broadcast
        return False
    return bool(np.all(~(difference > bound) if is_nan_fine else difference <= bound))


_ONE_OF_MANY = np.eye(1, 100).ravel()  # 1, and 99 times 0


def _draw_tensors(rng: np.random.Generator) -> tuple[Array, Array, float]:
    """Two that differ in one number, by half the bound or by twice the bound."""
    reference = rng.normal(size=6) * 10.0 ** rng.integers(4)
    off = rng.choice([-2.0, -0.5, 0.5, 2.0]) * 1e-4 * max(1.0, np.abs(reference).max())
    return reference + off * (np.arange(6) == rng.integers(6)), reference, 1e-4


AGREES = Exercise(
    "agrees",
    _agrees,
    [
        (array(1, 2), array(1, 2.000001), 1e-5),
        (array(1, 2), array(1.001, 2.001), 1e-5),  # all of ours are too small
        (_ONE_OF_MANY * 5e-5, np.zeros(100), 1e-5),  # one number of a hundred is off
        (np.full(100, 0.8e-5), np.zeros(100), 1e-5),  # all are off by a little: their Euclidean norm is not
        (array(1000.005, 3), array(1000, 3), 1e-5),
        (array(-1000.005, 3), array(-1000, 3), 1e-5),  # the largest is negative
        (array(0.01, 0.020005), array(0.01, 0.02), 1e-5),  # all numbers are small
        (array(1000, 0.0001), array(1000, 0), 1e-6),  # the small one is off, by less than the large one's bound
        (array(2, 0.5), array(1, 0.5), 0.6),
        (array(0, 0.5), array(1, 0.5), 0.6),  # more than 0.6 * 1, less than 0.6 * (1 + 1)
        (array(1000.015, 3), array(1000, 3), 1e-5),  # the same, of large numbers
        (array(100.5, 50), array(100, 50), 0.004),
        (array(math.nan, 1), array(0, 1), 1e-5),
        (array(1, 1), array(1), 1e-5),
        (np.ones((1, 4)), np.ones((4, 1)), 1e-5),
        (np.ones((2, 1)), np.ones(2), 1e-5),
    ],
    {
        "the mean of the differences hides one wrong number among a hundred right ones": {
            "size": lambda difference: np.abs(difference).mean()
        },
        "this is the Euclidean norm of all differences: in a large tensor it is large even where each number is fine": {
            "size": lambda difference: np.sqrt((difference**2).sum())
        },
        "the differences are squared: a small one becomes smaller still": {
            "size": lambda difference: (difference**2).max()
        },
        "the root of the mean square hides one wrong number among a hundred right ones": {
            "size": lambda difference: np.sqrt((difference**2).mean())
        },
        "a number that is too small gives a negative difference, and passes; the sign has to go first": {
            "size": lambda difference: difference.max()
        },
        "the bound is the same for large numbers and small ones; near 1000 the gap between two float32 is larger": {
            "scale": lambda ours, reference: 1.0
        },
        "where all numbers are small, the bound becomes tiny; the largest number counts only where it is above 1": {
            "scale": lambda ours, reference: np.abs(reference).max()
        },
        "1 and the largest number are added; the larger of the two is meant": {
            "scale": lambda ours, reference: 1.0 + np.abs(reference).max()
        },
        "the largest number of the reference is taken with its sign: a tensor may be large and negative": {
            "scale": lambda ours, reference: max(1.0, reference.max())
        },
        "the bound grows with our own numbers: the more wrong they are, the more is allowed": {
            "scale": lambda ours, reference: max(1.0, np.abs(ours).max())
        },
        "every number has a bound of its own here. A small number that is a sum of large ones has their rounding; one "
        "bound for the whole tensor is wanted": {
            "size": np.abs,
            "scale": lambda ours, reference: np.maximum(1.0, np.abs(reference)),
        },
        "np.allclose gives every number a bound of its own, a sum of two; one bound for the whole tensor is wanted": {
            "size": np.abs,
            "scale": lambda ours, reference: 1.0 + np.abs(reference),
        },
        "NumPy repeats the shorter array until it fits, so that one agrees with two; compare the shapes first": {
            "shape": lambda x: ()
        },
        "as many numbers are not the same shape: a row and a column are repeated into a square": {"shape": np.size},
        "as many rows are not the same shape: compare all of it": {"shape": len},
        "as many axes are not the same shape: compare all of it": {"shape": np.ndim},
        "NaN is not larger than a bound, and not smaller either: every comparison with it is False. Ask the other way "
        "round": {"is_nan_fine": True},
    },
    level=2,
    minutes=15,
    draw=_draw_tensors,
    hints=(
        "three things in this order: the shapes; the largest difference without its sign; the bound",
        "the bound is tolerance * max(1, the largest |number| of the reference); return difference <= bound",
    ),
    instead=("ledger",),
)


def suspect(encoder: SentenceEncoder, number: Literal[1, 2]) -> SentenceEncoder:
    """Return an encoder with a mistake in it, for the reader to find; ``encoder`` is left as it is.

    >>> encoder = SentenceEncoder()
    >>> float(encoder.encode("soup") @ suspect(encoder, 1).encode("soup")) < 0.99
    True
    """
    params = encoder.model.params
    layers, table = list(params.layers), params.embeddings.token_type
    if number == 1:
        layers[2], layers[3] = layers[3], layers[2]
    elif number == 2:
        table = table[::-1]
    else:
        raise ValueError(f"suspect: number must be 1 or 2, got {number!r}")
    broken = replace(params, layers=tuple(layers), embeddings=replace(params.embeddings, token_type=table))
    return encoder.with_model(replace(encoder.model, params=broken))


_SUSPECTS = {
    "suspect 1": {
        "a": "GELU is at work in every layer; what does the ledger say of layers 0 and 1?",
        "c": "scores that are not scaled show in probs first; is there a wrong tensor before them?",
        "d": "a residual is added in summed, and shows there first; which tensor comes out wrong before it?",
        "e": "the token type vector is added before layer 0; what does the ledger say of the embeddings?",
        "f": "positions are looked up before layer 0; what does the ledger say of embeddings.position?",
        "g": "this LayerNorm makes embeddings.output; what does the ledger say of it?",
    },
    "suspect 2": {
        "a": "GELU comes after the attention of layer 0; what is wrong already before that?",
        "b": "there is a wrong tensor before layer 0 already",
        "c": "there is a wrong tensor before any scores are computed",
        "d": "there is a wrong tensor before layer 2; and a missing residual would spoil that layer alone",
        "f": "then embeddings.position would be wrong; is it?",
        "g": "then embeddings.summed, which LayerNorm reads, would be right; is it?",
    },
}


def _suspect(name: str) -> Exercise:
    (right,) = set("abcdefg") - _SUSPECTS[name].keys()
    return Exercise(
        name,
        lambda *, choice=right: choice,
        [()],
        {says: {"choice": choice} for choice, says in _SUSPECTS[name].items()},
        level=3,
        minutes=15,
        hints=(
            "compare(trace_tensors(...), ...) lists the tensors in the order in which they are computed: which is the "
            "first that is wrong?",
            "what goes into that tensor is right, so the mistake is in the step that makes it; which answer is that?",
        ),
    )


SUSPECT_1, SUSPECT_2 = _suspect("suspect 1"), _suspect("suspect 2")
