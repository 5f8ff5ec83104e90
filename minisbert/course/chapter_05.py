"""The exercises of notebook 5, "Is this really BERT?": the gaps between floats, when tensors agree, and two suspects.

Each comes with its solution, and typical mistakes as changes of its text: read it after the notebook. The package's
own version of the second is :func:`minisbert.proof.ledger.compare`. :func:`suspect` makes the two broken models of the
third.
"""

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from minisbert.course.exercises import Exercise, array
from minisbert.encoder import SentenceEncoder
from minisbert.model import Array


def _gap(x: float) -> float:
    exponent = math.frexp(x)[1] - 1  # x = m * 2^(exponent + 1) with 1/2 <= |m| < 1
    return 2.0 ** (exponent - 23)  # binary digits behind the point; m has one more


GAP = Exercise(
    _gap,
    [(1.0,), (1.5,), (3.0,), (1000.0,), (0.1,), (-6.0,), (1e-9,), (0.5,), (-2.0,)],
    {
        "this is the gap of float64, which keeps 53 binary digits; float32 keeps 24": {"23": "52"},
        "this is the gap at 1; at 1000 it is larger, and at 0.1 smaller": {"math.frexp(x)[1] - 1": "0"},
        "this grows smoothly; the gap doubles at powers of two": {"math.frexp(x)[1] - 1": "math.log2(abs(x))"},
        "this is half of the gap: the most that rounding can cost": {"23": "24"},
        "right from 1 on. Below 1 the logarithm is negative, and int() cuts towards zero: which function always goes "
        "down?": {"math.frexp(x)[1] - 1": "int(math.log2(abs(x)))"},
        "right from 1 on; below 1 it goes on getting smaller":
            {"math.frexp(x)[1] - 1": "max(0, math.floor(math.log2(abs(x))))"},
        "right except at powers of two: 1 and 2 have the gap of the numbers above them":
            {"math.frexp(x)[1] - 1": "math.ceil(math.log2(abs(x))) - 1"},
        "between 1 and 2 the gap is that at 1, not that at 2": {"math.frexp(x)[1] - 1": "math.ceil(math.log2(abs(x)))"},
        "this counts decimal digits; the numbers are stored in binary, and the gap is a power of two":
            lambda x: (10.0 ** (math.floor(math.log10(abs(x))) - 7)),
    },
    level=2, minutes=15,
    draw=lambda rng: (float(rng.choice([-1, 1]) * 2 ** rng.uniform(-20, 20)),),
    hint="between which two powers of two does |x| lie? The gap is the same in between",
    more="math.floor(math.log2(abs(x))) is the power below; a float32 has 23 binary digits behind the first",
)  # fmt: skip


def _agrees(ours: Array, reference: Array, tolerance: float) -> bool:
    if ours.shape != reference.shape:
        return False
    error, largest = np.abs(ours - reference), np.abs(reference).max()
    return bool(np.all(error.max() <= tolerance * max(1.0, largest)))


_ONE_OF_MANY = np.eye(1, 100).ravel()  # 1, and 99 times 0


def _draw_tensors(rng: np.random.Generator) -> tuple[Array, Array, float]:
    """Two that differ in one number, by half the bound or by twice the bound."""
    reference = rng.normal(size=6) * 10.0 ** rng.integers(4)
    off = rng.choice([-2.0, -0.5, 0.5, 2.0]) * 1e-4 * max(1.0, np.abs(reference).max())
    return reference + off * (np.arange(6) == rng.integers(6)), reference, 1e-4


AGREES = Exercise(
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
        (array(3, 4.000045), array(3, 4), 1e-5),  # more than 4e-5, less than the Euclidean norm of (3, 4) allows
        (array(-1, 2), array(1, 2), 1e-5),
        (array(math.nan, 1), array(0, 1), 1e-5),
        (array(0, 1), array(math.nan, 1), 1e-5),
        (array(math.nan, 1), array(math.nan, 1), 1e-5),
        (array(math.nan), array(math.nan), 1e-5),
        (array(1, 2), array(1, 2.05), 0.1),
        (array([1, 2], [3, 4]), array([1, 2], [3, 4.00003]), 1e-5),
        (array([1, 2], [3, 4]), array([1, 2], [3.1, 4]), 1e-5),
        (array(1, 1), array(1), 1e-5),
        (np.ones((1, 4)), np.ones((4, 1)), 1e-5),
        (np.ones((2, 1)), np.ones(2), 1e-5),
    ],
    {
        "a mean hides one wrong number in a hundred": {"error.max()": "error.mean()"},
        "this is the Euclidean norm of all differences: in a large tensor it is large even where each number is fine":
            {"error.max()": "np.linalg.norm(error)"},
        "the differences are squared, and become smaller": {"error.max()": "(error**2).max()"},
        "a number that is too small passes: the sign has to go first": {"np.abs(ours - reference)": "ours - reference"},
        "the bound is the same for large numbers as for small ones": {"max(1.0, largest)": "1.0"},
        "where all numbers are small, the bound becomes tiny": {"max(1.0, largest)": "largest"},
        "1 and the largest are added; the larger is meant": {"max(1.0, largest)": "(1.0 + largest)"},
        "the bound has the Euclidean norm of the reference; its largest number is meant":
            {"np.abs(reference).max()": "np.linalg.norm(reference)"},
        "the largest number is taken with its sign": {"np.abs(reference)": "reference"},
        "the bound grows with our own numbers": {"np.abs(reference)": "np.abs(ours)"},
        "every number has a bound of its own here. A small number that is a sum of large ones has their rounding; one "
        "bound for the whole tensor is wanted":
            {"error.max()": "error", "max(1.0, largest)": "np.maximum(1.0, np.abs(reference))"},
        "np.allclose gives every number a bound of its own, a sum of two; one bound for the whole tensor is wanted":
            {"error.max()": "error", "max(1.0, largest)": "(1.0 + np.abs(reference))"},
        "NumPy repeats the shorter array until it fits; compare the shapes first":
            {"ours.shape != reference.shape": "False"},
        "as many numbers are not the same shape: a row and a column are repeated into a square": {"shape": "size"},
        "as many rows are not the same shape: compare all of it":
            {"ours.shape != reference.shape": "len(ours) != len(reference)"},
        "NaN is not larger than a bound, and not smaller: ask the other way round":
            {"error.max() <= tolerance": "not error.max() > tolerance"},
    },
    level=2, minutes=15, instead=("ledger",),
    draw=_draw_tensors,
    hint="three things in this order: the shapes; the largest difference without its sign; the bound",
    more="the bound is tolerance * max(1, the largest |number| of the reference); return difference <= bound",
)  # fmt: skip


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
        lambda: right,
        [()],
        {says: lambda choice=choice: choice for choice, says in _SUSPECTS[name].items()},
        name=name,
        level=3,
        minutes=15,
        hint="compare(trace_tensors(...), ...) lists the tensors in the order in which they are computed: which is the "
        "first that is wrong?",
        more="what goes into that tensor is right, so the mistake is in the step that makes it; which answer is that?",
    )


SUSPECT_1, SUSPECT_2 = _suspect("suspect 1"), _suspect("suspect 2")
