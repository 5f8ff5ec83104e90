"""The losses: gradients by finite differences, values by hand, duplicates masked, properties, edges and errors."""

import inspect
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch_oracle import Figures, relative

from minisbert.training import losses
from minisbert.training.losses import (
    LOSSES,
    contrastive,
    cosent,
    cosine_similarity,
    find_false_negatives,
    multiple_negatives_ranking,
    simcse,
    softmax_classification,
    triplet,
)

FLOATS = [np.float32, np.float64]
# Largest relative errors over all tests here, measured, times 10: another processor may add in another order.
FINITE_DIFFERENCES = 6.5e-9  # measured 6.5e-10; the house asks for 1e-7
FLOAT32 = 4.4e-6  # measured 4.4e-7


@pytest.fixture
def figures(record_property):
    return Figures(record_property)


def vectors(count, batch=6, width=5, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, width)).astype(dtype) for _ in range(count)]


def numbers(seed, *shape):
    return np.random.default_rng(seed + 1000).normal(size=shape)


# name -> (embeddings it takes, loss of a list of embeddings, of a seed and of a batch size)
def ranking(**options):
    return lambda x, seed: multiple_negatives_ranking(*x, **options)


def masked(**options):
    def loss(x, seed):
        mask = np.random.default_rng(seed).random((len(x[0]), len(x[0]) * (len(x) - 1))) < 0.3
        np.fill_diagonal(mask, False)
        return multiple_negatives_ranking(*x, false_negatives=mask, **options)

    return loss


def labels(seed, batch, classes=2):
    return np.random.default_rng(seed + 7).permutation(np.arange(batch) % classes)


def scores(seed, batch):
    return np.random.default_rng(seed + 8).permutation(np.arange(batch) % 4) / 4  # with ties


CASES = {
    "ranking": (2, ranking()),
    "ranking, scale 1": (2, ranking(scale=1.0)),
    "ranking, dot": (2, ranking(scale=0.7, similarity="dot")),
    "ranking, symmetric": (2, ranking(symmetric=True)),
    "ranking, 1 negative": (3, ranking(scale=5.0)),
    "ranking, 3 negatives, dot, symmetric": (5, ranking(scale=0.5, similarity="dot", symmetric=True)),
    "ranking, masked": (2, masked(scale=3.0)),
    "ranking, 2 negatives, masked, symmetric": (4, masked(scale=3.0, symmetric=True)),
    "simcse": (2, lambda x, seed: simcse(*x)),
    "contrastive": (2, lambda x, seed: contrastive(*x, labels(seed, len(x[0])), margin=1.2)),
    "contrastive, euclidean": (
        2,
        lambda x, seed: contrastive(*x, labels(seed, len(x[0])), margin=3.3, distance="euclidean"),
    ),
    "contrastive, manhattan": (
        2,
        lambda x, seed: contrastive(*x, labels(seed, len(x[0])), margin=6.0, distance="manhattan"),
    ),
    "triplet": (3, lambda x, seed: triplet(*x)),
    "triplet, cosine": (3, lambda x, seed: triplet(*x, margin=0.3, distance="cosine")),
    "triplet, manhattan": (3, lambda x, seed: triplet(*x, margin=2.0, distance="manhattan")),
    "cosine_similarity": (2, lambda x, seed: cosine_similarity(*x, scores(seed, len(x[0])))),
    "cosent": (2, lambda x, seed: cosent(*x, scores(seed, len(x[0])))),
    "cosent, scale 1": (2, lambda x, seed: cosent(*x, scores(seed, len(x[0])), scale=1.0)),
    "softmax": (
        2,
        lambda x, seed: softmax_classification(
            *x,
            labels(seed, len(x[0]), 3),
            numbers(seed, 3, 3 * x[0].shape[1]).astype(x[0].dtype),
            numbers(seed + 1, 3).astype(x[0].dtype),
        ),
    ),
}
COSINES = [name for name in CASES if not any(word in name for word in ("dot", "euclid", "manhattan", "softmax"))]
COSINES.remove("triplet")


def slope(function, step=1e-3):
    """Derivative at 0 of a function of one number: centred, of fourth order, so off by about step^4."""
    return (8 * (function(step) - function(-step)) - (function(2 * step) - function(-2 * step))) / (12 * step)


# --------------------------------------------------------------------------------------------- finite differences


@pytest.mark.parametrize("name", CASES)
def test_slope_along_random_directions(name, figures):
    count, loss = CASES[name]
    worst = 0.0
    for seed in range(8):
        x = vectors(count, seed=seed)
        # short, so that no hinge and no absolute value is crossed
        directions = [0.01 * y for y in vectors(count, seed=seed + 99)]
        result = loss(x, seed)
        assert any(g.any() for g in result.gradients)
        for chosen in [*range(count), None]:
            moved = [d if chosen in (None, i) else 0 * d for i, d in enumerate(directions)]
            measured = slope(lambda t: loss([a + t * d for a, d in zip(x, moved, strict=True)], seed).value)  # noqa: B023
            parts = [(g * d) for g, d in zip(result.gradients, moved, strict=True)]
            ours, size = sum(p.sum() for p in parts), sum(np.abs(p).sum() for p in parts)
            worst = max(worst, abs(ours - measured) / size)
    figures(f"{name}, against finite differences", worst, FINITE_DIFFERENCES)


@pytest.mark.parametrize("name", CASES)
def test_slope_along_every_number(name, figures):
    count, loss = CASES[name]
    x = vectors(count, batch=4, width=3, seed=3)
    for which, ours in enumerate(loss(x, 0).gradients):
        measured = np.empty_like(ours)
        for place in np.ndindex(ours.shape):

            def moved(t, which=which, place=place):
                y = [a.copy() for a in x]
                y[which][place] += t
                return loss(y, 0).value

            measured[place] = slope(moved, 1e-4)
        figures(f"{name}, gradient {which}", relative(ours, measured), FINITE_DIFFERENCES)


def test_slope_of_the_classifier(figures):
    (u, v), weight, bias = vectors(2, batch=7), numbers(0, 4, 15), numbers(1, 4)
    classes = labels(0, 7, 4)
    head = softmax_classification(u, v, classes, weight, bias).head
    assert list(head) == ["head.weight", "head.bias"]
    assert head["head.weight"].shape == weight.shape and head["head.bias"].shape == bias.shape
    for seed in range(5):
        to_weight, to_bias = numbers(seed + 5, 4, 15), numbers(seed + 6, 4)
        for a, b in ((to_weight, 0 * to_bias), (0 * to_weight, to_bias), (to_weight, to_bias)):
            measured = slope(
                lambda t: softmax_classification(u, v, classes, weight + t * a, bias + t * b).value  # noqa: B023
            )
            ours = (head["head.weight"] * a).sum() + (head["head.bias"] * b).sum()
            size = np.abs(head["head.weight"] * a).sum() + np.abs(head["head.bias"] * b).sum()
            figures("classifier", abs(ours - measured) / size, FINITE_DIFFERENCES)


# --------------------------------------------------------------------------------------------------------- by hand


def test_ranking_by_hand():
    anchors, positives = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [4.0, 3.0]])
    cosines = np.array([[1.0, 0.8], [0.0, 0.6]])
    exps = np.exp(20 * cosines)
    forward = [math.log(exps[0].sum() / exps[0, 0]), math.log(exps[1].sum() / exps[1, 1])]
    backward = [math.log(exps[:, 0].sum() / exps[0, 0]), math.log(exps[:, 1].sum() / exps[1, 1])]
    assert multiple_negatives_ranking(anchors, positives).value == pytest.approx(np.mean(forward), rel=1e-12)
    symmetric = multiple_negatives_ranking(anchors, positives, symmetric=True)
    assert symmetric.value == pytest.approx(np.mean(forward + backward), rel=1e-12)
    products = np.exp([[3.0, 4.0], [0.0, 6.0]])
    dots = [math.log(products[0].sum() / products[0, 0]), math.log(products[1].sum() / products[1, 1])]
    result = multiple_negatives_ranking(anchors, positives, scale=1.0, similarity="dot")
    assert result.value == pytest.approx(np.mean(dots), rel=1e-12)
    p, q = products[0, 1] / products[0].sum(), products[1, 0] / products[1].sum()
    pull_0, pull_1 = p / 2 * (positives[1] - positives[0]), q / 2 * (positives[0] - positives[1])
    np.testing.assert_allclose(result.gradients[0], [pull_0, pull_1], rtol=1e-12)


def test_hard_negatives_are_candidates_for_every_anchor():
    anchors, positives = np.eye(3)[:2], np.eye(3)[:2]
    negatives = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # the second is the first anchor's own direction
    exps = np.exp([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    expected = (math.log(exps[0].sum() / exps[0, 0]) + math.log(exps[1].sum() / exps[1, 1])) / 2
    result = multiple_negatives_ranking(anchors, positives, negatives, scale=1.0)
    assert result.value == pytest.approx(expected, rel=1e-14)
    assert len(result.gradients) == 3


def test_several_negatives_are_one_after_the_other():
    a, b, c, d = vectors(4)
    both = multiple_negatives_ranking(a, b, c, d)
    swapped = multiple_negatives_ranking(a, b, d, c)
    assert both.value == pytest.approx(swapped.value, rel=1e-14)
    np.testing.assert_allclose(both.gradients[2], swapped.gradients[3], rtol=1e-12, atol=1e-15)


def test_small_and_large_losses_keep_their_digits():
    """log(1 + exp(-40)) drowns in log-sum-exp minus score; here it does not, nor does exp(800) overflow."""
    for dtype, tolerance in ((np.float64, 1e-14), (np.float32, 1e-6)):
        near = multiple_negatives_ranking(np.eye(2, dtype=dtype), np.eye(2, dtype=dtype), scale=40.0)
        assert near.value == pytest.approx(math.log1p(math.exp(-40)), rel=10 * tolerance, abs=0)
        slopes = 20 * math.exp(-40) * np.array([[0, 1], [1, 0]])
        np.testing.assert_allclose(near.gradients[0], slopes, rtol=100 * tolerance)
        far = multiple_negatives_ranking(np.eye(2, dtype=dtype), np.eye(2, dtype=dtype)[::-1].copy(), scale=800.0)
        assert far.value == pytest.approx(800, rel=tolerance)


def test_contrastive_by_hand():
    a, b = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), np.array([[3.0, 4.0], [0.3, 0.4], [3.0, 4.0]])
    result = contrastive(a, b, [1, 0, 0], margin=2.0, distance="euclidean")
    assert result.value == pytest.approx((25 + 1.5**2 + 0) / 6, rel=1e-6)  # distances 5, 0.5, 5, each less about 1e-6
    np.testing.assert_allclose(result.gradients[0] * 3, [[-3, -4], [0.9, 1.2], [0, 0]], rtol=1e-5)
    np.testing.assert_allclose(result.gradients[1], -result.gradients[0])
    # 1e-6 is added to each coordinate of a - b, as in PyTorch
    first = contrastive(a[:1], b[:1], [1], distance="euclidean").value
    assert first == pytest.approx(math.hypot(-3 + 1e-6, -4 + 1e-6) ** 2 / 2, rel=1e-14)
    # so that equal vectors are not quite equal
    exactly = contrastive(a[:1], a[:1], [True], distance="euclidean").value
    assert exactly == pytest.approx((math.sqrt(2) * 1e-6) ** 2 / 2, rel=1e-9)


def test_triplet_by_hand():
    anchors = np.zeros((3, 2))
    positives = np.array([[3.0, 4.0], [1.0, 0.0], [3.0, 4.0]])  # at 5, 1, 5
    negatives = np.array([[0.0, 5.5], [0.0, 9.0], [0.0, 6.0]])  # at 5.5, 9, 6: 0.5 missing, none, just enough
    result = triplet(anchors, positives, negatives)
    assert result.value == 0.5 / 3
    np.testing.assert_allclose(result.gradients[0] * 3, [[-0.6, -0.8 + 1], [0, 0], [0, 0]], atol=1e-15)
    np.testing.assert_allclose(result.gradients[1] * 3, [[0.6, 0.8], [0, 0], [0, 0]])
    np.testing.assert_allclose(result.gradients[2] * 3, [[0, -1], [0, 0], [0, 0]])
    turned = triplet(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([[3.0, 4.0]]), 0.5, "cosine")
    assert turned.value == pytest.approx((1 - 0) - (1 - 0.6) + 0.5)


def test_scored_pairs_by_hand():
    a, b = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 1.0]])  # cosines 0.6 and 0
    assert cosine_similarity(a, b, [1.0, -0.5]).value == pytest.approx((0.4**2 + 0.5**2) / 2)
    assert cosent(a, b, [0.9, 0.1]).value == pytest.approx(math.log(1 + math.exp(-12)), rel=1e-9)
    assert cosent(a, b, [0.1, 0.9]).value == pytest.approx(math.log(1 + math.exp(12)))
    three = cosent(np.vstack([a, a[:1]]), np.vstack([b, [[1.0, 0.0]]]), [2, 2, 7], scale=1.0)
    # only the third is above others, and its cosine, 1, is compared with 0.6 and 0
    assert three.value == pytest.approx(math.log(1 + math.exp(0.6 - 1) + math.exp(0 - 1)))


def test_cosent_compares_only_pairs_with_different_scores():
    a, b = vectors(2, batch=4)
    result = cosent(a, b, [3, 3, 3, 3])
    assert result.value == 0 and not any(g.any() for g in result.gradients)
    assert cosent(a, b, [1, 1, 2, 2]).value == cosent(a, b, [-9, -9, 0.5, 0.5]).value
    close = np.array([1.0, 1.0 + 1e-12])
    narrow = [x[:2].astype(np.float32) for x in (a, b)]
    assert cosent(*narrow, close).value > 0, "scores must not be rounded to the embeddings' dtype"


def test_softmax_by_hand():
    weight = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # logits: u, v, |u - v|
    result = softmax_classification(np.array([[2.0]]), np.array([[5.0]]), [0], weight, np.array([0.0, 0.0, 1.0]))
    exps = np.exp([2.0, 5.0, 4.0])
    p = exps / exps.sum()
    assert result.value == pytest.approx(-math.log(p[0]))
    np.testing.assert_allclose(result.gradients[0], [[p[0] - 1 - p[2]]])
    np.testing.assert_allclose(result.gradients[1], [[p[1] + p[2]]])
    np.testing.assert_allclose(result.head["head.bias"], p - [1, 0, 0])
    np.testing.assert_allclose(result.head["head.weight"], np.outer(p - [1, 0, 0], [2, 5, 3]))


def test_where_coordinates_are_equal_the_absolute_difference_counts_as_flat():
    weight = np.array([[0.0, 0.0, 0.0, 0.0, 3.0, 5.0], [0.0] * 6])  # only |u - v| counts
    u, v = np.array([[1.0, 2.0]]), np.array([[1.0, 7.0]])
    d_u, d_v = softmax_classification(u, v, [1], weight, np.zeros(2)).gradients
    p = 1 / (1 + math.exp(-25))
    np.testing.assert_allclose(d_u, [[0, -5 * p]], rtol=1e-12)
    np.testing.assert_allclose(d_v, [[0, 5 * p]], rtol=1e-12)


def test_simcse_is_ranking_of_two_views():
    a, b = vectors(2)
    mask = find_false_negatives([*"xyxzxy"], [*"xyxzxy"])
    for ours, expected in (
        (simcse(a, b), multiple_negatives_ranking(a, b)),
        (simcse(a, b, 5.0, mask), multiple_negatives_ranking(a, b, scale=5.0, false_negatives=mask)),
    ):
        assert ours.value == expected.value
        for g, h in zip(ours.gradients, expected.gradients, strict=True):
            np.testing.assert_array_equal(g, h)


# -------------------------------------------------------------------------------------------------- false negatives


def test_false_negatives_are_found():
    anchors = ["a", "b", "c", "a"]
    positives = ["p", "q", "p", "b"]
    negatives = ["x", "p", "q", "a"]
    expected = np.zeros((4, 8), bool)
    expected[0, 2] = True  # the positive of c is p, too
    expected[2, 0] = True
    expected[0, 3] = expected[3, 0] = True  # both anchors are a
    expected[1, 3] = True  # a positive that is the text of anchor b
    expected[0, 5] = expected[2, 5] = True  # a hard negative that is the positive of a, and of c
    expected[1, 6] = True  # anchor c's hard negative is b's positive
    expected[0, 7] = expected[3, 7] = True  # a hard negative that is the text of anchors 0 and 3, even their own
    np.testing.assert_array_equal(find_false_negatives(anchors, positives, negatives), expected)
    ids = {text: i for i, text in enumerate("abcpqx")}
    as_ids = [np.array([ids[text] for text in column]) for column in (anchors, positives, negatives)]
    np.testing.assert_array_equal(find_false_negatives(*as_ids), expected)


def test_class_labels_leave_out_the_own_class():
    np.testing.assert_array_equal(
        find_false_negatives([1, 2, 1], [1, 2, 1]), np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], bool)
    )


texts = st.lists(st.tuples(*[st.sampled_from("abcde")] * 3), min_size=1, max_size=6)


@given(texts)
def test_false_negatives_are_what_the_definition_says(rows):
    anchors, positives, negatives = zip(*rows, strict=True)
    mask = find_false_negatives(anchors, positives, negatives)
    candidates = positives + negatives
    for i, j in np.ndindex(mask.shape):
        equal = candidates[j] in (positives[i], anchors[i]) or (j < len(anchors) and anchors[j] == anchors[i])
        assert mask[i, j] == (equal and i != j)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_masked_is_computed_without_them(similarity, symmetric):
    """Entry by entry, by plain loops: the loss with a mask is the loss in which these candidates never occur."""
    a, b, c = vectors(3, batch=5, seed=4)
    anchors, positives, negatives = [*"uvwux"], ["p", "q", "p", "r", "w"], ["s", "t", "q", "u", "y"]
    mask = find_false_negatives(anchors, positives, negatives)
    assert mask.sum() >= 6
    candidates = np.concatenate([b, c])

    def score(u, v):
        return float(u @ v) / (1 if similarity == "dot" else float(np.linalg.norm(u) * np.linalg.norm(v)))

    by_anchor = [
        math.log(sum(math.exp(2 * score(a[i], candidates[j])) for j in range(10) if not mask[i, j]))
        - 2 * score(a[i], b[i])
        for i in range(5)
    ]
    by_positive = [
        math.log(sum(math.exp(2 * score(a[j], b[i])) for j in range(5) if not mask[j, i])) - 2 * score(a[i], b[i])
        for i in range(5)
    ]
    options = {"scale": 2.0, "similarity": similarity, "symmetric": symmetric}
    result = multiple_negatives_ranking(a, b, c, **options, false_negatives=mask)
    expected = np.mean(by_anchor + by_positive) if symmetric else np.mean(by_anchor)
    assert result.value == pytest.approx(expected, rel=1e-12)
    assert result.value < multiple_negatives_ranking(a, b, c, **options).value


def test_what_is_masked_everywhere_has_no_gradient():
    a, b, c = vectors(3, batch=4)
    mask = np.zeros((4, 8), bool)
    mask[:, 6] = True  # the third hard negative, for every anchor
    result = multiple_negatives_ranking(a, b, c, false_negatives=mask)
    assert not result.gradients[2][2].any()
    assert np.abs(result.gradients[2][[0, 1, 3]]).max(axis=1).min() > 0
    moved = c.copy()
    moved[2] = 100 * a[0]
    after = multiple_negatives_ranking(a, b, moved, false_negatives=mask)
    assert after.value == result.value
    for g, h in zip(after.gradients, result.gradients, strict=True):
        np.testing.assert_array_equal(g, h)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_batch_of_one_text_pushes_nothing_apart(symmetric):
    a, b = vectors(2)
    mask = find_false_negatives(["same"] * 6, ["same"] * 6)
    result = multiple_negatives_ranking(a, b, symmetric=symmetric, false_negatives=mask)
    assert result.value == 0 and not any(g.any() for g in result.gradients)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_pair_that_occurs_twice_does_not_change_the_pull(symmetric):
    """With duplicates masked each copy has the gradient it would have alone; unmasked, the copies are pushed apart."""
    a, b = vectors(2, batch=4, seed=5)
    once = multiple_negatives_ranking(a[:3], b[:3], scale=3.0, symmetric=symmetric)
    a[3], b[3] = a[0], b[0]
    names = [*"abca"]
    mask = find_false_negatives(names, [n.upper() for n in names])
    np.testing.assert_array_equal(np.argwhere(mask), [[0, 3], [3, 0]])
    twice = multiple_negatives_ranking(a, b, scale=3.0, symmetric=symmetric, false_negatives=mask)
    for g in twice.gradients:
        np.testing.assert_allclose(g[0], g[3], rtol=1e-12, atol=1e-15)
    plain = multiple_negatives_ranking(a, b, scale=3.0, symmetric=symmetric)
    assert plain.value > twice.value
    # the first anchor alone, forward: its softmax runs over the three different positives in both batches
    if not symmetric:
        np.testing.assert_allclose(twice.gradients[0][0] * 4, once.gradients[0][0] * 3, rtol=1e-12)


def test_no_mask_is_a_mask_of_false():
    a, b, c = vectors(3)
    for symmetric in (False, True):
        plain = multiple_negatives_ranking(a, b, c, symmetric=symmetric)
        none = multiple_negatives_ranking(a, b, c, symmetric=symmetric, false_negatives=np.zeros((6, 12), bool))
        assert plain.value == none.value
        for g, h in zip(plain.gradients, none.gradients, strict=True):
            np.testing.assert_array_equal(g, h)


# ------------------------------------------------------------------------------------------------------- properties


def permuted(name, x, order):
    """The case on examples in another order, with labels, scores and masks taken along."""
    if name.startswith("ranking"):
        symmetric = "symmetric" in name
        return multiple_negatives_ranking(*(rows[order] for rows in x), scale=3.0, symmetric=symmetric)
    if name == "softmax":
        weight, bias = numbers(0, 3, 15), numbers(1, 3)
        return softmax_classification(*(rows[order] for rows in x), labels(0, 6, 3)[order], weight, bias)
    if name.startswith("contrastive"):
        distance = name.partition(", ")[2] or "cosine"
        return contrastive(*(rows[order] for rows in x), labels(0, 6)[order], margin=2.0, distance=distance)
    if name.startswith("triplet"):
        return triplet(*(rows[order] for rows in x), distance=name.partition(", ")[2] or "euclidean")
    function = {"cosent": cosent, "cosine_similarity": cosine_similarity}[name]
    return function(*(rows[order] for rows in x), scores(0, 6)[order])


ORDERED = [name for name in CASES if not any(word in name for word in ("masked", "simcse", "scale 1", "dot"))]


@given(st.permutations(range(6)), st.sampled_from(ORDERED), st.integers(0, 2**32 - 1))
def test_the_order_of_examples_does_not_matter(order, name, seed):
    x = vectors(CASES[name][0], seed=seed)
    plain, other = permuted(name, x, np.arange(6)), permuted(name, x, np.array(order))
    assert other.value == pytest.approx(plain.value, rel=1e-12, abs=1e-14)
    for g, h in zip(plain.gradients, other.gradients, strict=True):
        np.testing.assert_allclose(h, g[list(order)], rtol=0, atol=1e-12 * max(1, np.abs(g).max()))
    for key in plain.head:
        np.testing.assert_allclose(plain.head[key], other.head[key], rtol=0, atol=1e-13)


@given(st.sampled_from(COSINES), st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_losses_of_cosines_do_not_depend_on_lengths(name, seed, factor):
    count, loss = CASES[name]
    x = vectors(count, seed=seed)
    result = loss(x, 0)
    for rows, gradient in zip(x, result.gradients, strict=True):
        along = np.einsum("bd,bd->b", rows, gradient)
        assert np.abs(along).max() <= 1e-13 * max(1.0, np.abs(rows * gradient).sum())
    longer = loss([x[0] * factor, *x[1:]], 0)
    assert longer.value == pytest.approx(result.value, rel=1e-11, abs=1e-13)
    scale = max(1e-3, np.abs(result.gradients[0]).max())
    np.testing.assert_allclose(longer.gradients[0] * factor, result.gradients[0], rtol=0, atol=1e-11 * scale)


@given(st.sampled_from(list(CASES)), st.integers(0, 2**32 - 1))
def test_no_loss_is_negative_and_a_step_downhill_lowers_it(name, seed):
    count, loss = CASES[name]
    x = vectors(count, seed=seed)
    result = loss(x, 0)
    assert result.value >= 0 and math.isfinite(result.value)
    steepness = sum((g**2).sum() for g in result.gradients)
    if steepness > 1e-6:
        step = 1e-6 / math.sqrt(steepness)
        after = loss([rows - step * g for rows, g in zip(x, result.gradients, strict=True)], 0)
        assert after.value < result.value


@given(st.integers(0, 2**32 - 1), st.floats(-5, 5), st.sampled_from(["triplet", "triplet, manhattan"]))
def test_moving_all_three_changes_no_distance(seed, shift, name):
    x = vectors(3, seed=seed)
    loss = CASES[name][1]
    assert loss([rows + shift for rows in x], 0).value == pytest.approx(loss(x, 0).value, rel=1e-11, abs=1e-12)
    np.testing.assert_allclose(sum(loss(x, 0).gradients), 0, atol=1e-14)


# ----------------------------------------------------------------------------------------------------- dtypes, edges


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_dtype_and_shape_are_kept_and_no_argument_is_changed(name, dtype):
    count, loss = CASES[name]
    x = vectors(count, batch=16, width=48, dtype=dtype)
    copies = [rows.copy() for rows in x]
    for rows in x:
        rows.flags.writeable = False
    result = loss(x, 0)
    assert type(result.value) is float
    assert len(result.gradients) == count
    exact = loss([rows.astype(np.float64) for rows in copies], 0)
    assert result.value == pytest.approx(exact.value, rel=FLOAT32 if dtype == np.float32 else 0)
    for rows, copy, gradient, expected in zip(x, copies, result.gradients, exact.gradients, strict=True):
        assert gradient.dtype == dtype and gradient.shape == rows.shape
        assert not np.shares_memory(gradient, rows)
        np.testing.assert_array_equal(rows, copy)
        assert relative(gradient, expected) <= (FLOAT32 if dtype == np.float32 else 0)
    for key, gradient in result.head.items():
        assert gradient.dtype == dtype, key


def test_labels_scores_weights_and_masks_are_not_changed():
    (a, b), weight, bias = vectors(2), np.asfortranarray(numbers(0, 3, 15)), numbers(1, 3)
    classes, wanted, mask = labels(0, 6, 3), scores(0, 6), np.triu(np.ones((6, 6), bool), 1)
    arguments = [weight, bias, classes, wanted, mask]
    copies = [x.copy() for x in arguments]
    for x in arguments:
        x.flags.writeable = False
    head = softmax_classification(a, b, classes, weight, bias).head
    cosent(a, b, wanted), cosine_similarity(a, b, wanted), contrastive(a, b, (classes > 0))
    multiple_negatives_ranking(a, b, false_negatives=mask, symmetric=True)
    for x, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(x, copy)
    assert head["head.weight"].flags.f_contiguous  # in memory as the weight


@pytest.mark.parametrize("name", CASES)
def test_memory_order_is_free(name):
    count, loss = CASES[name]
    x = vectors(count)
    plain, other = loss(x, 0), loss([np.asfortranarray(rows) for rows in x], 0)
    assert other.value == pytest.approx(plain.value, rel=1e-13)
    for g, h in zip(plain.gradients, other.gradients, strict=True):
        np.testing.assert_allclose(h, g, rtol=1e-11, atol=1e-14)


def test_one_example_is_enough_where_nothing_is_compared_with_others():
    a, b, c = vectors(3, batch=1)
    for result in (
        contrastive(a, b, [1]),
        triplet(a, b, c, margin=9.0),
        cosine_similarity(a, b, [0.5]),
        softmax_classification(a, b, [1], numbers(0, 2, 15), numbers(1, 2)),
        multiple_negatives_ranking(a, b, c),
        multiple_negatives_ranking(a, b, c, symmetric=True),
    ):
        assert result.value > 0 and all(g.any() for g in result.gradients)


@pytest.mark.parametrize("loss", [multiple_negatives_ranking, simcse, lambda a, b: cosent(a, b, [1.0])])
def test_a_batch_of_one_with_nothing_to_compare_is_refused(loss):
    with pytest.raises(ValueError, match=r"B >= 2 pairs.* the loss is 0 whatever .* last batch of an epoch: drop it"):
        loss(*vectors(2, batch=1))


def test_equal_embeddings_have_no_gradient_under_a_distance():
    a, *_ = vectors(1)
    far = triplet(a, a.copy(), a.copy())
    assert far.value == 1.0 and not any(g.any() for g in far.gradients)
    near = triplet(a, a.copy(), a + 10.0, margin=1.0)
    assert near.value == 0.0 and not any(g.any() for g in near.gradients)


# ------------------------------------------------------------------------------------------------------------ errors


def bad(call, *words):
    with pytest.raises(ValueError) as error:
        call()
    for word in words:
        assert word in str(error.value), f"{word!r} is not in: {error.value}"


LOSS_OF_TWO = {
    "multiple_negatives_ranking": multiple_negatives_ranking,
    "contrastive": lambda a, b: contrastive(a, b, labels(0, 6)),
    "triplet": lambda a, b: triplet(a, b, vectors(1)[0]),
    "cosine_similarity": lambda a, b: cosine_similarity(a, b, scores(0, 6)),
    "cosent": lambda a, b: cosent(a, b, scores(0, 6)),
    "softmax_classification": lambda a, b: softmax_classification(a, b, labels(0, 6), numbers(0, 2, 15), numbers(0, 2)),
}


@pytest.mark.parametrize("name", LOSS_OF_TWO)
def test_embeddings_are_checked(name):
    loss, (a, b) = LOSS_OF_TWO[name], vectors(2)
    loss(a, b)
    unlike = (a[:, 1:], a[:5], a[0], a[None], a[:, :0], a.astype(np.float32), a.astype(np.float16), a.tolist(), a > 0)
    for other in unlike:
        bad(lambda other=other: loss(a, other), f"{name}: embeddings must be arrays (B, D) of one shape", "got")
    for empty in (a[:0], a[:, :0], a.astype(int), a.astype(">f8")):
        bad(lambda empty=empty: loss(empty, empty), f"{name}: embeddings must be arrays", "B >= 1")
    for value in (np.nan, np.inf, -np.inf):
        broken = b.copy()
        broken[4, 2] = value
        bad(lambda broken=broken: loss(a, broken), f"{name}: ", "must be finite", "NaN or Inf in row 4 (1 of 6)")


@pytest.mark.parametrize("name", COSINES)
def test_cosines_need_a_direction(name):
    count, loss = CASES[name]
    x = vectors(count)
    x[-1][[1, 3]] = 0
    bad(lambda: loss(x, 0), "must have a direction for a cosine", "rows 1, 3 (2 of 6)")


def test_names_of_arguments_are_the_callers():
    a, b, c = vectors(3)
    broken = np.full_like(a, np.nan)
    bad(lambda: multiple_negatives_ranking(broken, b), "anchors must be finite", "rows 0, 1, 2, 3, 4, ... (6 of 6)")
    bad(lambda: multiple_negatives_ranking(a, b, c, broken), "negatives[1] must be finite")
    bad(lambda: triplet(a, broken, c), "triplet: positives must be finite")
    bad(lambda: multiple_negatives_ranking(a, b, a[:3]), "negatives[0] float64 (3, 5)", "several arrays")


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_scale_and_margin_are_checked(value):
    a, b, c = vectors(3)
    words = "must be a finite number above 0, got"
    bad(lambda: multiple_negatives_ranking(a, b, scale=value), f"multiple_negatives_ranking: scale {words}")
    bad(lambda: cosent(a, b, scores(0, 6), scale=value), f"cosent: scale {words}")
    bad(lambda: contrastive(a, b, labels(0, 6), margin=value), f"contrastive: margin {words}")
    bad(lambda: triplet(a, b, c, margin=value), f"triplet: margin {words}")


def test_a_scale_that_overflows_is_refused():
    a, b = vectors(2, dtype=np.float32)
    words = ("is too large for float32", "the usual")
    bad(lambda: multiple_negatives_ranking(a, b, scale=1e38), *words[:1])
    bad(lambda: cosent(a, b, scores(0, 6), scale=1e38), *words[:1])
    big = np.float32(1e17) * a
    bad(lambda: multiple_negatives_ranking(big, big, similarity="dot", scale=1e5), "too large for float32")
    assert math.isfinite(multiple_negatives_ranking(a, b, scale=1e30).value)


def test_names_of_similarities_and_distances_are_checked():
    a, b, c = vectors(3)
    bad(lambda: multiple_negatives_ranking(a, b, similarity="cos"), "similarity must be one of cosine, dot, got 'cos'")
    words = "distance must be one of cosine, euclidean, manhattan, got 'dot'"
    bad(lambda: contrastive(a, b, labels(0, 6), distance="dot"), f"contrastive: {words}")
    bad(lambda: triplet(a, b, c, distance="dot"), f"triplet: {words}")


def test_labels_and_scores_are_checked():
    a, b = vectors(2)
    weight, bias = numbers(0, 3, 15), numbers(1, 3)
    three = {
        "contrastive: labels": lambda values: contrastive(a, b, values),
        "cosine_similarity: scores": lambda values: cosine_similarity(a, b, values),
        "cosent: scores": lambda values: cosent(a, b, values),
        "softmax_classification: labels": lambda values: softmax_classification(a, b, values, weight, bias),
    }
    for start, loss in three.items():
        bad(lambda loss=loss: loss([1, 0]), f"{start} must be (B,) = (6,), one for each example, got (2,)")
        bad(lambda loss=loss: loss(np.ones((6, 1))), f"{start} must be (B,) = (6,)", "(6, 1)")
        bad(lambda loss=loss: loss([0, 1, 0, 1, 0, math.nan]), f"{start} must be finite", "row 5 (1 of 6)")
        bad(lambda loss=loss: loss(["yes"] * 6), f"{start} must be numbers, but NumPy says")
        bad(lambda loss=loss: loss(None), start)
    bad(lambda: contrastive(a, b, [0, 1, 2, 0, 0.5, 1]), "labels must be 1 (belongs together) or 0, got 2, 0.5")
    bad(lambda: cosine_similarity(a, b, [0, 5, 3, 2, 4, 1]), "[-1, 1]", "got 5, 3, 2, ... (4 in all)", "top of their")
    for values in ([0, 1, 2, 3, 0, 0], [0, 1, 2, -1, 0, 0], [0, 1, 2, 0.5, 0, 0]):
        bad(lambda values=values: three["softmax_classification: labels"](values), "whole numbers from 0 to 2", "got")
    assert contrastive(a, b, np.array([True] * 3 + [False] * 3)).value == contrastive(a, b, [1.0] * 3 + [0] * 3).value


def test_the_classifier_is_checked():
    a, b = vectors(2)
    weight, bias = numbers(0, 3, 15), numbers(1, 3)

    def call(weight, bias):
        return lambda: softmax_classification(a, b, labels(0, 6), weight, bias)

    call(weight, bias)()
    start = "softmax_classification: weight and bias must be"
    for w, c in (
        (weight[:, 1:], bias),
        (weight.T, bias),
        (weight, bias[1:]),
        (weight, bias[:, None]),
        (weight[:1], bias[:1]),
        (weight.astype(np.float32), bias),
        (weight, bias.astype(np.float32)),
        (weight.tolist(), bias),
    ):
        bad(call(w, c), f"{start} float64 arrays (C, 15) and (C,)", "got")
    bad(call(weight * math.nan, bias), f"{start} finite")
    bad(call(weight, bias * math.nan), f"{start} finite")


def test_masks_are_checked():
    a, b = vectors(2)
    start = "multiple_negatives_ranking: false_negatives must be"
    for mask in (np.zeros((6, 6)), np.zeros((6, 12), bool), np.zeros(6, bool), [[False] * 6] * 6):
        bad(lambda mask=mask: multiple_negatives_ranking(a, b, false_negatives=mask), start, "(B, M) = (6, 6)", "got")
    own = np.zeros((6, 6), bool)
    own[2, 2] = True
    bad(
        lambda: multiple_negatives_ranking(a, b, false_negatives=own),
        f"{start} False",
        "own positive",
        "row 2 (1 of 6)",
    )


def test_texts_are_checked():
    start = "find_false_negatives: "
    bad(lambda: find_false_negatives("abc", "abc"), start, "a bare string, a bare string")
    bad(lambda: find_false_negatives(["a"], ["b", "c"]), start, "got 1, 2")
    bad(lambda: find_false_negatives(["a"], ["b"], []), start, "got 1, 1, 0")
    bad(lambda: find_false_negatives([["a"]], ["b"]), start, "single values", "unhashable")
    assert find_false_negatives([], []).shape == (0, 0)


# ----------------------------------------------------------------------------------------------------------- by name


def test_the_table_has_every_loss_with_its_options():
    assert {loss.function for loss in LOSSES.values()} == {
        thing
        for name, thing in vars(losses).items()
        if inspect.isfunction(thing) and inspect.signature(thing).return_annotation == "LossResult"
    }
    for name, loss in LOSSES.items():
        parameters = inspect.signature(loss.function).parameters
        defaults = {key: p.default for key, p in parameters.items() if p.default is not inspect.Parameter.empty}
        assert loss.takes_false_negatives == ("false_negatives" in defaults)
        defaults.pop("false_negatives", None)
        assert dict(loss.options) == defaults, name
        assert loss.has_head == ("weight" in parameters)
        assert loss.data in ("pairs", "triplets", "scored", "labelled", "texts")
        assert ("scores" in parameters) == (loss.data == "scored")
        assert ("labels" in parameters) == (loss.data == "labelled")
        assert ("negatives" in parameters) == (loss.data in ("triplets", "pairs"))
    assert LOSSES["softmax"].function is softmax_classification
    with pytest.raises(TypeError):
        LOSSES["another"] = LOSSES["softmax"]
    with pytest.raises(FrozenInstanceError):
        LOSSES["softmax"].data = "pairs"


def test_results_are_frozen():
    result = cosine_similarity(*vectors(2), scores(0, 6))
    assert result.head == {}
    with pytest.raises(FrozenInstanceError):
        result.value = 0.0
