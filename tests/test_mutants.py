"""Breaking any single line of a backward pass turns a check red: done line by line, hundreds of times, and counted.

Each function that computes a gradient has a check in `CHECKS`: finite differences on tiny inputs by the package's own
gradcheck, and for what a forward and its backward share, the forward's value by another formula. NumPy only, no test
framework inside. A mutant that survives is a line that no check looks at, or one that may as well be written otherwise;
the latter stand in `EQUIVALENT`, with the reason.
"""

import ast
import functools
import inspect
import math
import tempfile
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from mutants import survivors
from tiny import tiny_dense, write_model

from minisbert import similarity
from minisbert.model import bert, ops, params, pooling
from minisbert.model.config import BertConfig
from minisbert.model.folder import load_model
from minisbert.model.params import RowGradient, add_gradients, sum_rows
from minisbert.model.pooling import Dense, Normalize, Pooling
from minisbert.training import losses, step
from minisbert.training.gradcheck import check_backward
from minisbert.training.losses import LOSSES

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = np.array([4, 4, 3])
EPS = 1e-12


def draw(*shape, seed=0, scale=1.0):
    return np.random.default_rng([seed, *shape]).normal(0, scale, shape)


def agrees(forward, backward, *arguments):
    """gradcheck of one operation."""
    return check_backward(forward, backward, arguments, rng=np.random.default_rng(1), directions=2).ok


def close(found, wanted, rtol=1e-12, atol=0.0):
    """Equal up to rounding, shapes and dtypes included."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    return found.shape == wanted.shape and bool(np.allclose(found, wanted, rtol=rtol, atol=atol))


# ------------------------------------------------------------------------------------------------------- ops.py


def check_linear():
    return agrees(
        ops.linear, lambda d, x, w, b: ops.linear_backward(d, x, w), draw(4, 5), draw(3, 5), draw(3)
    ) and bool(ops.linear_backward(draw(4, 3), draw(4, 5), draw(3, 5))[1].flags.f_contiguous)


def check_activation(name):
    x = np.concatenate([draw(5, 4).ravel(), [-7.0, -3.0, 3.0, 7.0]])
    return agrees(*ops.ACTIVATIONS[name], x)


def check_far_out(name):
    """Far from 0 the slope is 0 or 1, and its digits are not lost before it gets there."""
    slope = ops.ACTIVATIONS[name][1](np.ones(4), np.array([-1e200, -60.0, 60.0, 1e200]))
    right = {"sigmoid": [0, 8.75651076269652e-27, 8.75651076269652e-27, 0]}.get(name, [0, 0, 1, 1])
    return close(slope, right, rtol=1e-12, atol=1e-22 if name != "sigmoid" else 0)


def check_relu():
    return check_activation("relu") and close(ops.relu_backward(np.ones(3), np.array([-0.0, 0.0, 1.0])), [0, 0, 1])


def check_gelu():
    x = np.linspace(-8, 8, 65)
    exact = [math.erfc(-t / math.sqrt(2)) / 2 + t * math.exp(-t * t / 2) / math.sqrt(2 * math.pi) for t in x]
    far = ops.gelu_backward(np.ones(2), np.array([-1e200, -1e-200]))
    return (
        check_activation("gelu")
        and close(ops.gelu_backward(np.ones(65), x), exact, rtol=1e-10, atol=1e-17)
        and close(far, [0, 0.5])
        and check_gelu_float32()
    )


def check_gelu_float32():
    x = np.concatenate([np.linspace(-15, 15, 301), [-1e30, -100, 100, 1e30]]).reshape(61, 5).astype(np.float32)
    d_y = draw(61, 5).astype(np.float32)
    before, ops._IN_CACHE = ops._IN_CACHE, 64  # so that there are several blocks, the last one shorter
    try:
        found = ops.gelu_backward(d_y, x)
    finally:
        ops._IN_CACHE = before
    wanted = ops.gelu_backward(d_y.astype(np.float64), x.astype(np.float64))
    # measured: 6e-7 of |d_y|
    return found.dtype == np.float32 and bool((np.abs(found - wanted) <= 8e-7 * np.abs(d_y)).all())


def check_logistic():
    x = np.linspace(-5, 5, 41)
    out = np.empty_like(x)
    ops._one_over_normal_cdf(x, x * x, out)
    return close(out, 1 + np.exp(-x * np.polyval(ops._LOGISTIC, x * x)), rtol=1e-13) and check_gelu_float32()


def check_softmax():
    def backward(d_y, x):
        return ops.softmax_backward(d_y, ops.softmax(x))

    return agrees(ops.softmax, backward, draw(3, 4)) and agrees(ops.softmax, backward, draw(2, 3, 4, 5))


def check_layer_norm():
    x, weight, bias, eps = draw(5, 4) + 3, draw(4, seed=1), draw(4, seed=2), 0.1
    z = (x - x.mean(axis=1)[:, None]) / np.sqrt(x.var(axis=1) + eps)[:, None]
    return close(ops.layer_norm(x, weight, bias, eps), z * weight + bias) and agrees(
        lambda *args: ops.layer_norm(*args, eps),
        lambda d, x, w, b: ops.layer_norm_backward(d, x, w, eps),
        x,
        weight,
        bias,
    )


def check_normalize():
    short = np.concatenate([draw(3, 4), 0.05 * draw(2, 4)])  # against an eps of 0.5

    def in_terms_of(eps):
        return lambda x: ops.normalize(x, eps), lambda d, x: ops.normalize_backward(d, x, eps)

    zero = ops.normalize_backward(np.ones((1, 4)), np.zeros((1, 4)))
    return agrees(*in_terms_of(0.5), short) and agrees(*in_terms_of(EPS), draw(2, 3, 4)) and close(zero, [[1e12] * 4])


# ------------------------------------------------------------------------------------------------------- pooling.py


def check_pooling(mode):
    forward, backward = pooling.POOLINGS[mode]
    return agrees(lambda x: forward(x, LENGTHS), lambda d, x: backward(d, x, LENGTHS), draw(11, 5))


def check_weighted_mean():
    x, skipped = draw(11, 5), np.array([2, 0, 1])
    place = np.array([3, 4, 5, 6, 1, 2, 3, 4, 2, 3, 4])[:, None]
    texts = np.split(np.arange(11), [4, 8])
    wanted = [(x[text] * place[text]).sum(axis=0) / place[text].sum() for text in texts]
    return (
        check_pooling("weightedmean")
        and close(pooling._place_weights(LENGTHS, skipped, np.float64), place)
        and close(pooling.pool_weighted_mean(x, LENGTHS, skipped), wanted)
        and agrees(
            lambda x: pooling.pool_weighted_mean(x, LENGTHS, skipped),
            lambda d, x: pooling.pool_weighted_mean_backward(d, x, LENGTHS, skipped),
            x,
        )
    )


def check_max():
    tie = pooling.pool_max_backward(np.array([[5.0]]), np.array([[1.0], [3.0], [3.0]]), np.array([3]))
    return check_pooling("max") and close(tie, [[0], [5], [0]])  # the first of equals, as in PyTorch


def check_pool():
    x, lengths = draw(9, 5), np.array([4, 1, 4])

    def both(modes, prompt):
        return agrees(
            lambda x: pooling.pool(x, lengths, modes, prompt),
            lambda d, x: pooling.pool_backward(d, x, lengths, modes, prompt),
            x,
        )

    kept, left = pooling._behind_prompt(lengths, 2)
    none = pooling.pool_backward(np.empty((0, 5)), np.empty((0, 5)), np.empty(0, int))
    return (
        both(("mean", "max", "weightedmean", "cls"), 0)
        and both(("weightedmean", "lasttoken"), 2)
        and both(("max",), 1)
        and close(kept, [0, 0, 1, 1, 1, 0, 0, 1, 1])
        and close(left, [2, 1, 2])
        and none.shape == (0, 5)
    )


def module_agrees(forward, backward, x, module):
    """gradcheck of something with a dense module, whose tensors are two of its arguments, or one."""
    names = [name for name in ("weight", "bias") if getattr(module, name) is not None]

    def rebuilt(tensors):
        return replace(module, **dict(zip(names, tensors, strict=True)))

    def all_gradients(d_y, x, *tensors):
        d_x, d_module = backward(d_y, x, rebuilt(tensors))
        assert "bias" in names or d_module.bias is None
        return (d_x, *(getattr(d_module, name) for name in names))

    tensors = [getattr(module, name) for name in names]
    return agrees(lambda x, *tensors: forward(x, rebuilt(tensors)), all_gradients, x, *tensors)


def check_dense():
    modules = (Dense(draw(4, 5), draw(4), "tanh"), Dense(draw(4, 5), None, "gelu"), Dense(draw(5, 5), None, "sigmoid"))
    return all(module_agrees(pooling.dense, pooling.dense_backward, draw(3, 5), module) for module in modules)


def check_modules():
    def both(include_prompt):
        def chain(dense):
            return Pooling(("mean", "max"), include_prompt), dense, Normalize()

        def forward(x, dense):
            return pooling.apply_modules(x, LENGTHS, chain(dense), 2)[-1]

        def backward(d_y, x, dense):
            results = pooling.apply_modules(x, LENGTHS, chain(dense), 2)
            d_x, (nothing, d_dense, nor_this) = pooling.modules_backward(d_y, results, x, LENGTHS, chain(dense), 2)
            assert nothing is None and nor_this is None
            return d_x, d_dense

        return module_agrees(forward, backward, draw(11, 5), Dense(draw(4, 10), draw(4), "tanh"))

    return both(True) and both(False)


# ----------------------------------------------------------------------------------------------------------- params.py


def check_sum_rows():
    row_of, d_rows = np.array([4, 0, 4, 2, 0, 4]), draw(6, 5)
    found = sum_rows(row_of, d_rows, 9)
    wanted = np.zeros((9, 5))
    np.add.at(wanted, row_of, d_rows)
    return found.rows.tolist() == [0, 2, 4] and found.row_count == 9 and close(found.dense(), wanted, atol=1e-15)


def check_add_gradients():
    first, second = RowGradient(np.array([0, 3]), draw(2, 4), 6), RowGradient(np.array([3, 5]), draw(2, 4, seed=1), 6)
    rows = add_gradients(first, second)
    return (
        isinstance(rows, RowGradient)
        and close(rows.dense(), first.dense() + second.dense(), atol=1e-15)
        and close(add_gradients(draw(2, 4), draw(2, 4, seed=1)), draw(2, 4) + draw(2, 4, seed=1))
    )


# --------------------------------------------------------------------------------------------------- similarity.py


def check_matrix(name):
    """All rows against all rows; large and small ones."""
    forward, backward = getattr(similarity, name), getattr(similarity, f"{name}_backward")
    return agrees(forward, backward, draw(3, 5), draw(4, 5, seed=1) * np.array([[1.0], [30.0], [0.03], [2.0]]))


def check_pairwise(name):
    forward, backward = getattr(similarity, f"pairwise_{name}"), getattr(similarity, f"pairwise_{name}_backward")
    a, b = draw(4, 5), draw(4, 5, seed=1) * np.array([[1.0], [30.0], [0.03], [0.1]])
    b[3] += a[3]  # a close pair
    return agrees(forward, backward, a, b)


def check_extreme_rows():
    """Squares of 1e200 overflow and those of 1e-200 vanish; the slope of a cosine is finite all the same."""
    sizes = np.array([[1e200], [1e-200], [-1.0]])
    d_a, _ = similarity.pairwise_cos_sim_backward([5.0] * 3, [3.0, 4.0] * sizes, [[2.0, 0.0]] * 3)
    return close(d_a * np.abs(sizes), [[0.64, -0.48]] * 3)


def check_equal_rows(backward):
    """On one line distances have no slope; it counts as 0."""
    a, b = np.array([[1.0, 2.0], [1.0, 2.0]]), np.array([[1.0, 2.0], [-2.0, -4.0]])
    d_a, d_b = backward(np.ones(2), a, b)
    return close(d_a[0], [0, 0]) and close(d_b[0], [0, 0]) and bool(np.isfinite([d_a, d_b]).all())


def check_euclidean():
    return check_pairwise("euclidean_sim") and check_equal_rows(similarity.pairwise_euclidean_sim_backward)


def check_manhattan():
    return check_pairwise("manhattan_sim") and check_equal_rows(similarity.pairwise_manhattan_sim_backward)


# ------------------------------------------------------------------------------------------------------- losses.py


def loss_agrees(function, embeddings, wanted, *rest, **options):
    """Gradients by finite differences; the value is that of the paper's formula, and sentence-transformers' as well."""

    def call(*embeddings):
        return function(*embeddings, *rest, **options)

    return close(call(*embeddings).value, wanted, rtol=1e-11) and agrees(
        lambda *e: np.array(call(*e).value), lambda d, *e: tuple(d * g for g in call(*e).gradients), *embeddings
    )


def refuses(function, *arguments, **options):
    """Whether arguments are refused as they should be, by a ValueError and no other way."""
    try:
        function(*arguments, **options)
    except ValueError:
        return True
    return False


def check_multiple_negatives():
    x, ranking = [draw(4, 5, seed=i) for i in range(4)], losses.multiple_negatives_ranking
    mask = np.zeros((4, 8), bool)
    mask[[0, 1, 2, 3, 3], [2, 6, 0, 7, 5]] = True
    return (
        loss_agrees(ranking, x[:2], 1.82760427351, scale=3.0)
        and loss_agrees(ranking, x[:2], 1.44576773979, scale=0.7, similarity="dot", symmetric=True)
        and loss_agrees(ranking, x[:3], 1.78844569266, scale=2.0, symmetric=True, false_negatives=mask)
        and loss_agrees(ranking, x, 5.67080172706, scale=2.0, similarity="dot")
    )


def check_simcse():
    x, mask = [draw(4, 5), draw(4, 5, seed=1)], np.eye(4, k=1, dtype=bool)
    return loss_agrees(losses.simcse, x, 1.56368460225, 3.0, mask)


def check_find_false_negatives():
    anchors, positives, negatives = list("aabcde"), list("xyzaxb"), list("pxqbcr")
    candidates = [*positives, *negatives]
    wanted = np.zeros((6, 12), bool)
    for i in range(6):
        for j in range(12):
            same_text = candidates[j] in (positives[i], anchors[i])
            of_same_anchor = j < 6 and anchors[j] == anchors[i]
            wanted[i, j] = j != i and (same_text or of_same_anchor)
    return close(losses.find_false_negatives(anchors, positives, negatives), wanted)


def check_contrastive():
    a, b, labels = draw(5, 4), draw(5, 4, seed=1), [1, 0, 0, 1, 0]
    right = (("cosine", 1.2, 0.287879196413), ("euclidean", 3.0, 5.29131651412), ("manhattan", 5.0, 15.9907395309))
    # equal rows are 2e-6 apart, by the eps of PyTorch's pairwise_distance
    same = losses.contrastive(a, a.copy(), [0] * 5, 1.0, "euclidean")
    return (
        all(loss_agrees(losses.contrastive, [a, b], wanted, labels, margin, name) for name, margin, wanted in right)
        and close(same.value, (1 - 2e-6) ** 2 / 2, rtol=1e-9)
        and refuses(losses.contrastive, a, b, [0, 1, 0.5, 1, 2])
    )


def check_triplet():
    x = [draw(5, 4, seed=i) for i in range(3)]
    right = (("cosine", 0.3, 0.408147530035), ("euclidean", 0.5, 1.1176274135), ("manhattan", 0.5, 1.664070001))
    # exactly at the margin the slope counts as 0
    at = losses.triplet(np.zeros((1, 2)), np.array([[3.0, 0.0]]), np.array([[0.0, 4.0]]), 1.0)
    return (
        all(loss_agrees(losses.triplet, x, wanted, margin, name) for name, margin, wanted in right)
        and at.value == 0
        and not np.any(at.gradients)
    )


def check_cosine_similarity():
    return loss_agrees(losses.cosine_similarity, [draw(3, 4), draw(3, 4, seed=1)], 1.10948770577, [0.9, -0.2, 1.0])


def check_cosent():
    return loss_agrees(losses.cosent, [draw(4, 3), draw(4, 3, seed=1)], 1.98091416785, [3.0, 1.0, 3.0, 2.0], 2.5)


def check_softmax_classification():
    u, v, labels = draw(4, 3), draw(4, 3, seed=1), [2, 0, 1, 2]
    weight, bias = draw(3, 9), draw(3)

    def value(*tensors):
        return np.array(losses.softmax_classification(tensors[0], tensors[1], labels, *tensors[2:]).value)

    def backward(d, *tensors):
        found = losses.softmax_classification(tensors[0], tensors[1], labels, *tensors[2:])
        return tuple(d * g for g in (*found.gradients, found.head["head.weight"], found.head["head.bias"]))

    equal = losses.softmax_classification(u, u.copy(), labels, weight, bias).gradients
    return (
        close(value(u, v, weight, bias), 2.44814589695, rtol=1e-11)
        and agrees(value, backward, u, v, weight, bias)
        and bool(np.isfinite(equal).all())
        and all(
            refuses(losses.softmax_classification, u, v, wrong, weight, bias)
            for wrong in ([0, 1, 2, 3], [0, 1, 2, -1], [0, 1, 2, 0.5])
        )
    )


def check_cross_entropy():
    scores, targets = draw(4, 5) * 3, np.array([1, 4, 0, 2])
    value, d_scores = losses._cross_entropy(scores, targets)
    smooth = agrees(lambda s: np.array(losses._cross_entropy(s, targets)[0]),
                    lambda d, s: d * losses._cross_entropy(s, targets)[1], scores)  # fmt: skip
    # far apart: nothing overflows, and what is tiny keeps its digits
    far, d_far = losses._cross_entropy(np.array([[960.0, 1000.0, -math.inf]]), np.array([1]))
    lost, d_lost = losses._cross_entropy(np.array([[1000.0, 960.0]]), np.array([1]))
    tiny = math.exp(-40)
    return (
        close(value, 3.75015786687, rtol=1e-11)
        and smooth
        and close(far, tiny)
        and close(d_far, [[tiny, -tiny, 0]])
        and close(lost, 40)
        and close(d_lost, [[1, -1]])
        and d_scores.shape == scores.shape
    )


def check_mean():
    return losses._mean(np.array([1.0, 2.0, 6.0])) == 3.0


# ---------------------------------------------------------------------------------------------------- bert.py, step.py

COLUMNS = [["the cat sat on the mat", "i love soup", "dog"], ["a mat", "the soup", "the dog ran on and on"]]


class Slopes:
    """The slopes of a loss along random directions, measured once: a backward is then held against them quickly."""

    def __init__(self, loss, tensors, seed=3, step=2e-4):
        rng = np.random.default_rng(seed)
        self.measured = []
        for i, tensor in enumerate(tensors):
            for _ in range(2):
                v = rng.normal(size=tensor.shape)

                def f(t, i=i, v=v):
                    return loss(*tensors[:i], tensors[i] + t * v, *tensors[i + 1 :])

                slope = (8 * (f(step) - f(-step)) - (f(2 * step) - f(-2 * step))) / (12 * step)
                self.measured.append((i, v, slope))

    def agree(self, found):
        found = [g.dense() if isinstance(g, RowGradient) else g for g in found]
        whole = max(abs(slope) for _, _, slope in self.measured)
        return all(
            found[i].shape == v.shape and abs(np.sum(found[i] * v) - slope) <= 1e-7 * max(abs(slope), 1e-3 * whole)
            for i, v, slope in self.measured
        )


@functools.cache
def tiny_model():
    with tempfile.TemporaryDirectory() as folder:
        chain = (Pooling(), tiny_dense(6, 5), Normalize())
        # all sizes differ, so that a mixed-up axis cannot pass
        config = BertConfig(
            vocab_size=94,
            hidden_size=6,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=16,
            type_vocab_size=2,
        )
        return load_model(write_model(f"{folder}/model", config=config, modules=chain), np.float64)


def ranking(vectors):
    return losses.multiple_negatives_ranking(*vectors, scale=3.0)


@functools.cache
def model_slopes(is_dropped):
    named = step.named_parameters(tiny_model())
    plan = step.DropoutPlan((5,), 0.2, 0.2) if is_dropped else None

    def loss(*tensors):
        there = step.replace_parameters(tiny_model(), dict(zip(named, tensors, strict=True)))
        shards = step.make_shards(tiny_model().tokenizer([*COLUMNS[0], *COLUMNS[1]], 16), 2, 4096)
        vectors = np.empty((6, 5))
        for shard in shards:
            dropped = plan and plan.for_shard(shard.index)
            trace = bert.trace_bert(shard.token_ids, shard.lengths, there.params, there.config, dropped)
            vectors[shard.texts] = pooling.apply_modules(trace.output, shard.lengths, there.modules)[-1]
        return ranking(np.split(vectors, 2)).value

    return loss(*named.values()), Slopes(loss, list(named.values()))


def check_step():
    named = step.named_parameters(tiny_model())
    for is_dropped in (False, True):
        value, slopes = model_slopes(is_dropped)
        plan = step.DropoutPlan((5,), 0.2, 0.2) if is_dropped else None
        for cache in (None, 4096):
            with mock.patch.object(step, "trace_bert", wraps=step.trace_bert) as forwards:
                found = step.value_and_gradients(
                    tiny_model(), COLUMNS, ranking, dropout=plan, cache_tokens=cache, num_threads=2
                )
            if forwards.call_count != (2 if cache is None else 4):  # two shards; caching means a second pass
                return False
            if list(found.gradients) != list(named) or not close(found.value, value):
                return False
            if not slopes.agree(list(found.gradients.values())):
                return False
    return True


# ------------------------------------------------------------------------------------------------------- the tables

OF_THE_WHOLE_MODEL = (
    *(bert.embed_backward, bert.attention_backward, bert._gather_backward, bert._join_heads),
    *(bert.feed_forward_backward, bert.layer_backward, bert.bert_backward),
    *(step.named_gradients, step.value_and_gradients, step._backward, step._add_in_place),
)
CHECKS = {
    ops.linear_backward: check_linear,
    ops.gelu_backward: check_gelu,
    ops._gelu_backward_float32: check_gelu_float32,
    ops._one_over_normal_cdf: check_logistic,
    ops.sigmoid_backward: lambda: check_activation("sigmoid") and check_far_out("sigmoid"),
    ops.gelu_tanh_backward: lambda: check_activation("gelu_tanh") and check_far_out("gelu_tanh"),
    ops.silu_backward: lambda: check_activation("silu") and check_far_out("silu"),
    ops.relu_backward: check_relu,
    ops._tanh_backward: lambda: check_activation("tanh"),
    ops.softmax_backward: check_softmax,
    ops.layer_norm_backward: check_layer_norm,
    ops._standardize: check_layer_norm,
    ops.normalize_backward: check_normalize,
    pooling.pool_mean_backward: lambda: check_pooling("mean"),
    pooling.pool_mean_sqrt_len_backward: lambda: check_pooling("mean_sqrt_len_tokens"),
    pooling.pool_weighted_mean_backward: check_weighted_mean,
    pooling._place_weights: check_weighted_mean,
    pooling.pool_max_backward: check_max,
    pooling.pool_cls_backward: lambda: check_pooling("cls"),
    pooling.pool_last_token_backward: lambda: check_pooling("lasttoken"),
    pooling.pool_backward: check_pool,
    pooling._behind_prompt: check_pool,
    pooling.modules_backward: check_modules,
    pooling.dense_backward: check_dense,
    sum_rows: check_sum_rows,
    add_gradients: check_add_gradients,
    RowGradient.dense: check_sum_rows,
    similarity.cos_sim_backward: lambda: check_matrix("cos_sim"),
    similarity.pairwise_cos_sim_backward: lambda: check_pairwise("cos_sim"),
    similarity._unit_rows_backward: lambda: check_pairwise("cos_sim") and check_extreme_rows(),
    similarity.dot_score_backward: lambda: check_matrix("dot_score"),
    similarity.pairwise_euclidean_sim_backward: check_euclidean,
    similarity.pairwise_manhattan_sim_backward: check_manhattan,
    losses.multiple_negatives_ranking: check_multiple_negatives,
    losses.simcse: check_simcse,
    losses.find_false_negatives: check_find_false_negatives,
    losses.contrastive: check_contrastive,
    losses.triplet: check_triplet,
    losses.cosine_similarity: check_cosine_similarity,
    losses.cosent: check_cosent,
    losses.softmax_classification: check_softmax_classification,
    losses._cross_entropy: check_cross_entropy,
    losses._mean: check_mean,
    **dict.fromkeys(OF_THE_WHOLE_MODEL, check_step),
}

TWICE = "it is a factor twice, so its sign does not matter"
SCALE_FREE = "a weighted mean, a direction and a maximum's place do not change when all numbers are scaled"
THE_REST = "reshape takes one negative number for what is left, and all others are right"
HEADS = "heads = ({}count, {}length, {}config.num_attention_heads, {}config.head_size)"

EQUIVALENT = {
    "ops.gelu_tanh_backward": {
        "bounded = np.clip(x, -60.0, 30.0)": "beyond 20 the tanh is 1 in float64; the bound may lie anywhere behind",
        "bounded = np.clip(x, -30.0, 60.0)": "likewise",
    },
    "ops._tanh_backward": {"t = -np.tanh(x)": TWICE},
    "ops.normalize_backward": {"y = -(x / np.maximum(length, eps))": TWICE},
    "pooling.pool_weighted_mean_backward": {
        "weights = -_place_weights(lengths, skipped, d_pooled.dtype)": SCALE_FREE,
        "weights = _place_weights(lengths, skipped, d_pooled.dtype) * 1.001": SCALE_FREE,
    },
    "pooling.pool_backward": {
        "return np.ones_like(token_embeddings)": "without texts there are no tokens, and so no numbers",
    },
    "bert._gather_backward": {HEADS.format(*("-" * (i == k) for k in range(4))): THE_REST for i in range(4)},
    "similarity._unit_rows_backward": {
        "largest = np.abs(x).max(axis=-1, keepdims=True) * 1.001": SCALE_FREE,
    },
    "similarity.pairwise_euclidean_sim_backward": {"difference = (a - b) * 1.001": SCALE_FREE},
    "losses.multiple_negatives_ranking": {
        "scores[mask] = -math.inf * 1.001": "infinity has no size",
    },
    "losses.cosent": {
        "wanted = _checked_numbers(name, 'scores', scores, len(a)) * 1.001": "only the order of the scores counts",
        "value, d_classes = _cross_entropy(right_and_wrong, np.zeros(2, np.intp))": "the mean of twice the same",
    },
}
"""Mutants that no check can catch, because they compute the same: by function and changed line, with the reason."""


def name_of(function):
    return f"{function.__module__.rsplit('.', 1)[1]}.{function.__qualname__}"


def excused(name):
    """The lines of a function's equivalent mutants, written as this version of Python writes them."""
    return {ast.unparse(ast.parse(source)) for source in EQUIVALENT.get(name, {})}


def test_every_broken_line_of_a_backward_pass_is_noticed():
    """All but those that compute the same, each of which is still there."""
    results = {name_of(function): survivors(function, check) for function, check in CHECKS.items()}
    made = [mutant for every, _ in results.values() for mutant in every]
    unnoticed = [m for name, (_, alive) in results.items() for m in alive if m.source not in excused(name)]
    for name, (_, alive) in results.items():
        assert excused(name) <= {mutant.source for mutant in alive}, name
    the_same = sum(len(sources) for sources in EQUIVALENT.values())
    lines = len({(mutant.function.__module__, mutant.line) for mutant in made})
    counted = len(made) - the_same
    print(f"caught {counted - len(unnoticed)} of {counted} mutants of {lines} lines; {the_same} more compute the same")
    assert not unnoticed, "no check notices:\n" + "\n".join(map(str, unnoticed))
    assert counted > 1300 and lines > 250  # so that they do not all vanish unnoticed


def test_every_backward_has_a_check():
    wanted = {loss.function for loss in LOSSES.values()}
    for module in (ops, bert, pooling, params, similarity, losses, step):
        own = [t for t in vars(module).values() if inspect.isfunction(t) and t.__module__ == module.__name__]
        wanted |= {function for function in own if "_backward" in function.__name__ or "_slopes" in function.__name__}
    assert wanted <= set(CHECKS), f"no check for {sorted(map(name_of, wanted - set(CHECKS)))}"


# ------------------------------------------------------------------------------------- the breaking itself, checked


def scaled_sum(x, y):
    total = 2.0 * x + y
    if total is None:
        raise ValueError("never")
    total *= x.T
    return total.sum(axis=0)


def unwritten(x):
    out = np.empty_like(x)
    for i in range(0, len(x)):
        out[i] = x[i]
    return out


def test_a_blind_check_lets_mutants_pass_and_a_good_one_does_not():
    x, y, table = draw(3, 3), draw(3, 3, seed=1), {"sum": scaled_sum}
    code, right = scaled_sum.__code__, scaled_sum(x, y)
    made, alive = survivors(scaled_sum, lambda: close(table["sum"](x, y), right))  # wherever the function is known
    assert len(made) > 15 and not alive and scaled_sum.__code__ is code
    _, alive = survivors(scaled_sum, lambda: scaled_sum(x, y).shape == (3,))
    assert len(alive) > 10
    with pytest.raises(ValueError, match="before anything is broken"):
        survivors(scaled_sum, lambda: False)
    assert not survivors(unwritten, lambda: close(unwritten(x), x))[1]  # a number that is not written is noticed
