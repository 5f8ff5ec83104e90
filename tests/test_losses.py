"""The losses: shapes and dtypes kept, duplicates masked, edges, refusals.

That values and gradients are right is proved line by line in `test_mutants.py`, and beside PyTorch in
`test_torch_losses.py`.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisbert.training.losses import (
    contrastive,
    cosent,
    cosine_similarity,
    find_false_negatives,
    multiple_negatives_ranking,
    simcse,
    softmax_classification,
    triplet,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def vectors(count, batch=6, width=5, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, width)).astype(dtype) for _ in range(count)]


def head(classes, width, dtype=np.float64):
    rng = np.random.default_rng(1000)
    return rng.normal(size=(classes, 3 * width)).astype(dtype), rng.normal(size=classes).astype(dtype)


# name -> (embeddings that it takes, loss of a list of them)
CASES = {
    "multiple_negatives_ranking": (2, lambda x: multiple_negatives_ranking(*x)),
    "symmetric": (4, lambda x: multiple_negatives_ranking(*x, scale=0.5, similarity="dot", symmetric=True)),
    "simcse": (2, lambda x: simcse(*x)),
    "contrastive": (2, lambda x: contrastive(*x, np.arange(len(x[0])) % 2, margin=1.2)),
    "triplet": (3, lambda x: triplet(*x)),
    "cosine_similarity": (2, lambda x: cosine_similarity(*x, np.arange(len(x[0])) % 4 / 4)),
    "cosent": (2, lambda x: cosent(*x, np.arange(len(x[0])) % 4)),
    "softmax_classification": (
        2,
        lambda x: softmax_classification(*x, np.arange(len(x[0])) % 3, *head(3, x[0].shape[1], x[0].dtype)),
    ),
}


@given(st.sampled_from(list(CASES)), st.integers(2, 16), st.integers(2, 48), st.sampled_from("CF"), st.integers(0, 99))
def test_dtype_shape_and_arguments_are_kept(name, batch, width, order, seed):
    count, loss = CASES[name]
    x = [np.asarray(rows, order=order) for rows in vectors(count, batch, width, seed, np.float32)]
    copies = [rows.copy() for rows in x]
    result, exact = loss(x), loss([rows.astype(np.float64) for rows in x])
    assert type(result.value) is float and result.value >= 0
    assert result.value == pytest.approx(exact.value, rel=1e-5, abs=1e-6)
    for rows, copy, gradient, expected in zip(x, copies, result.gradients, exact.gradients, strict=True):
        np.testing.assert_array_equal(rows, copy)
        assert gradient.dtype == np.float32 and expected.dtype == np.float64 and gradient.shape == rows.shape
        assert not np.shares_memory(gradient, rows)
    for gradient in result.head.values():
        assert gradient.dtype == np.float32


def test_a_batch_of_one_text_pushes_nothing_apart():
    everywhere = find_false_negatives(["same"] * 4, ["same"] * 4)
    for symmetric in (False, True):
        result = multiple_negatives_ranking(*vectors(2, batch=4), symmetric=symmetric, false_negatives=everywhere)
        assert result.value == 0 and not any(g.any() for g in result.gradients)


def test_cosent_compares_only_pairs_with_different_scores():
    a, b = vectors(2, batch=4)
    result = cosent(a, b, [3, 3, 3, 3])
    assert result.value == 0 and not any(g.any() for g in result.gradients)
    narrow = [x[:2].astype(np.float32) for x in (a, b)]
    assert cosent(*narrow, [1.0, 1.0 + 1e-12]).value > 0, "scores must not be rounded to the embeddings' dtype"


def test_where_embeddings_are_equal_the_slope_counts_as_flat():
    weight = np.array([[0.0, 0.0, 0.0, 0.0, 3.0, 5.0], [0.0] * 6])  # only |u - v| counts, and u_0 = v_0
    u, v = np.array([[1.0, 2.0]]), np.array([[1.0, 7.0]])
    d_u, d_v = softmax_classification(u, v, [1], weight, np.zeros(2)).gradients
    p = 1 / (1 + math.exp(-25))
    np.testing.assert_allclose([d_u[0], d_v[0]], [[0, -5 * p], [0, 5 * p]], rtol=1e-12)


# --------------------------------------------------------------------------------------------------------- refusals


def broken(value, row=4):
    (x,) = vectors(1, seed=9)
    x[row, 2] = value
    return x


def test_every_loss_checks_its_embeddings():
    for name, (count, loss) in CASES.items():
        x = vectors(count)
        with pytest.raises(ValueError, match=r": .*row 4[; ]"):
            loss([*x[:-1], broken(np.nan)])
        with pytest.raises(ValueError, match=r"float64 \(6, 4\)"):
            loss([*x[:-1], x[0][:, 1:]])
        if name not in ("triplet", "softmax_classification", "symmetric"):  # a cosine needs a direction
            with pytest.raises(ValueError, match="zeros in row 1"):
                loss([*x[:-1], np.where(np.arange(6)[:, None] == 1, 0, x[-1])])


A, B, C = vectors(3)
WEIGHT, BIAS = head(3, 5)
CLASSES = np.arange(6) % 3
OWN = np.eye(6, dtype=bool)
REFUSED = {
    "another dtype": ("embeddings", lambda: triplet(A, B, C.astype(np.float32))),
    "the second negative": (r"negatives\[1\]", lambda: multiple_negatives_ranking(A, B, C, broken(np.inf))),
    "one pair": ("B >= 2", lambda: multiple_negatives_ranking(A[:1], B[:1])),
    "margin": ("contrastive: margin", lambda: contrastive(A, B, CLASSES % 2, margin=math.inf)),
    "a scale that overflows": (
        "float32", lambda: multiple_negatives_ranking(*vectors(2, dtype=np.float32), scale=1e38)
    ),
    "a score of NaN": ("scores .*nan", lambda: cosent(A, B, [0, 1, 0, 1, 0, math.nan])),
    "labels but 0 and 1": (r"labels .*2\. +0\.5", lambda: contrastive(A, B, [0, 1, 2, 0, 0.5, 1])),
    "scores off the scale": (r"scores .*5\. 3\. 2", lambda: cosine_similarity(A, B, [0, 5, 3, 2, 4, 1])),
    "a class too many": ("labels .*3", lambda: softmax_classification(A, B, [0, 1, 2, 3, 0, 0], WEIGHT, BIAS)),
    "a narrow classifier": (r"\(3, 14\)", lambda: softmax_classification(A, B, CLASSES, WEIGHT[:, 1:], BIAS)),
    "a classifier of NaN": ("bias .*NaN", lambda: softmax_classification(A, B, CLASSES, WEIGHT, BIAS * math.nan)),
    "a mask of numbers": ("false_negatives", lambda: multiple_negatives_ranking(A, B, false_negatives=0.0 * OWN)),
    "the own positive": ("false_negatives", lambda: multiple_negatives_ranking(A, B, false_negatives=OWN)),
    "a bare string": ("find_false_negatives", lambda: find_false_negatives("abc", ["a", "b", "c"])),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    words, call = REFUSED[what]
    with pytest.raises(ValueError, match=words):
        call()
