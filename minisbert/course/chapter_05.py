"""The exercises of notebook 5, "Is this really BERT?": the gaps between floats, when tensors agree, and two suspects.

Each comes with its solution and with the results of typical mistakes: read it after the notebook. The package's own
version of the second is :func:`minisbert.proof.ledger.compare`. :func:`suspect` makes the two broken models of the
third.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from minisbert.course.exercises import Exercise, Mistake, array
from minisbert.encoder import SentenceEncoder
from minisbert.model import Array

__all__ = ["AGREES", "GAP", "SUSPECT_1", "SUSPECT_2", "suspect"]


# ------------------------------------------------------------------------------------------- the gap to the next


def _gap(x: float) -> float:
    # x = m * 2^e with 1/2 <= |m| < 1, and m has 24 binary digits
    return math.ldexp(1.0, math.frexp(x)[1] - 24)


GAP = Exercise(
    "gap",
    _gap,
    [(1.0,), (1.5,), (3.0,), (1000.0,), (0.1,), (-6.0,), (1e-9,)],
    [
        Mistake(
            lambda x: math.ulp(x),
            "this is the gap of float64, which keeps 53 binary digits; float32 keeps 24",
        ),
        Mistake(
            lambda x: 2.0**-23,
            "this is the gap at 1; at 1000 the numbers lie further apart, and at 0.1 closer together",
        ),
        Mistake(
            lambda x: abs(x) * 2.0**-23,
            "this grows smoothly with x; the gap is the same for all numbers from 1 to 2, and then doubles at once",
        ),
        Mistake(
            lambda x: _gap(x) / 2,
            "this is half of it: the most that rounding can cost. The gap is the way from one number to the next",
        ),
        Mistake(
            lambda x: 2.0 ** (int(math.log2(abs(x))) - 23),
            "right from 1 on. Below 1 the logarithm is negative, and int() cuts towards zero: which function always "
            "goes down?",
        ),
        Mistake(
            lambda x: 2.0 ** (math.ceil(math.log2(abs(x))) - 23),
            "right for powers of two only. Between 1 and 2 the gap is that at 1, not that at 2",
        ),
        Mistake(
            lambda x: 10.0 ** (math.floor(math.log10(abs(x))) - 7),
            "this counts decimal digits; the numbers are stored in binary, and the gap is a power of two",
        ),
    ],
)


# ------------------------------------------------------------------------------------------- when tensors agree


def _agrees(ours: Array, reference: Array, tolerance: float) -> bool:
    if ours.shape != reference.shape:
        return False
    difference = float(np.abs(ours - reference).max())
    return difference <= tolerance * max(1.0, float(np.abs(reference).max()))  # False for NaN


def _by(ours: Array, reference: Array, bound: float) -> bool:
    """Compare the largest difference with another bound."""
    return ours.shape == reference.shape and float(np.abs(ours - reference).max()) <= bound


def _by_mean(ours: Array, reference: Array, tolerance: float) -> bool:
    bound = tolerance * max(1.0, float(np.abs(reference).max()))
    return ours.shape == reference.shape and float(np.abs(ours - reference).mean()) <= bound


def _signed(ours: Array, reference: Array, tolerance: float) -> bool:
    bound = tolerance * max(1.0, float(np.abs(reference).max()))
    return ours.shape == reference.shape and float((ours - reference).max()) <= bound


def _one_by_one(ours: Array, reference: Array, tolerance: float) -> bool:
    bounds = tolerance * np.maximum(1.0, np.abs(reference))
    return ours.shape == reference.shape and bool((np.abs(ours - reference) <= bounds).all())


def _without_shape(ours: Array, reference: Array, tolerance: float) -> bool:
    return float(np.abs(ours - reference).max()) <= tolerance * max(1.0, float(np.abs(reference).max()))


def _not_larger(ours: Array, reference: Array, tolerance: float) -> bool:
    """Ask whether the difference is larger, which NaN never is."""
    bound = tolerance * max(1.0, float(np.abs(reference).max()))
    return ours.shape == reference.shape and not float(np.abs(ours - reference).max()) > bound


_ONE_OF_MANY = np.eye(1, 100).ravel()  # 1, and 99 times 0

AGREES = Exercise(
    "agrees",
    _agrees,
    [
        (array(1, 2), array(1, 2.000001), 1e-5),
        (array(1, 2), array(1.001, 2.001), 1e-5),  # all of ours are too small
        (_ONE_OF_MANY * 5e-5, np.zeros(100), 1e-5),  # one number of a hundred is off
        (array(1000.005, 3), array(1000, 3), 1e-5),
        (array(0.01, 0.020005), array(0.01, 0.02), 1e-5),  # all numbers are small
        (array(1000, 0.0001), array(1000, 0), 1e-6),  # the small one is off, by less than the large one's bound
        (array(2, 0.5), array(1, 0.5), 0.6),
        (array(math.nan, 1), array(0, 1), 1e-5),
        (array(1, 1), array(1), 1e-5),
    ],
    [
        Mistake(
            _by_mean,
            "the mean of the differences hides one wrong number among a hundred right ones",
        ),
        Mistake(
            _signed,
            "a number that is too small gives a negative difference, and passes; the sign has to go first",
        ),
        Mistake(
            lambda ours, reference, tolerance: _by(ours, reference, tolerance),
            "the bound is the same for large numbers and small ones; near 1000 the gap between two float32 is larger",
        ),
        Mistake(
            lambda ours, reference, tolerance: _by(ours, reference, tolerance * float(np.abs(reference).max())),
            "where all numbers are small, the bound becomes tiny; the largest number counts only where it is above 1",
        ),
        Mistake(
            lambda ours, reference, tolerance: _by(ours, reference, tolerance * max(1.0, float(np.abs(ours).max()))),
            "the bound grows with our own numbers: the more wrong they are, the more is allowed",
        ),
        Mistake(
            _one_by_one,
            "every number has a bound of its own here. A small number that is a sum of large ones has their rounding; "
            "one bound for the whole tensor is wanted",
        ),
        Mistake(
            _without_shape,
            "NumPy repeats the shorter array until it fits, so that one agrees with two; compare the shapes first",
        ),
        Mistake(
            _not_larger,
            "NaN is not larger than a bound, and not smaller either: every comparison with it is False. Ask the other "
            "way round",
        ),
    ],
)


# ------------------------------------------------------------------------------------------- two suspects


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


SUSPECT_1 = Exercise(
    "suspect 1",
    lambda: "b",
    [()],
    [
        Mistake(
            lambda: "a",
            "GELU is at work in every layer; what does the ledger say of layers 0 and 1?",
        ),
        Mistake(
            lambda: "c",
            "scores that are not scaled show in probs first; is there a wrong tensor before them?",
        ),
        Mistake(
            lambda: "d",
            "a residual is added in summed, and shows there first; which tensor comes out wrong before it?",
        ),
        Mistake(
            lambda: "e",
            "the token type vector is added before layer 0; what does the ledger say of the embeddings?",
        ),
        Mistake(
            lambda: "f",
            "positions are looked up before layer 0; what does the ledger say of the embeddings?",
        ),
        Mistake(
            lambda: "g",
            "this LayerNorm makes embeddings.output; what does the ledger say of it?",
        ),
    ],
)
SUSPECT_2 = Exercise(
    "suspect 2",
    lambda: "e",
    [()],
    [
        Mistake(
            lambda: "a",
            "GELU comes after the attention of layer 0; what is wrong already before that?",
        ),
        Mistake(
            lambda: "b",
            "there is a wrong tensor before layer 0 already",
        ),
        Mistake(
            lambda: "c",
            "there is a wrong tensor before any scores are computed",
        ),
        Mistake(
            lambda: "d",
            "there is a wrong tensor before layer 2; and a missing residual would spoil that layer alone",
        ),
        Mistake(
            lambda: "f",
            "then embeddings.position would be wrong; is it?",
        ),
        Mistake(
            lambda: "g",
            "then embeddings.summed, which LayerNorm reads, would be right; is it?",
        ),
    ],
)
