"""gradcheck: right backward passes pass, planted mistakes are caught and called by their names."""

import math

import numpy as np
import pytest
from running import told
from tiny import tiny_dense, write_model

from minisbert.model import bert, ops, pooling
from minisbert.model.folder import load_model
from minisbert.model.params import RowGradient, sum_rows
from minisbert.model.pooling import Normalize, Pooling
from minisbert.training.gradcheck import check_backward, check_encoder, check_gradients
from minisbert.training.losses import LOSSES

pytestmark = pytest.mark.usefixtures("one_thread")


def rng(seed=0):
    return np.random.default_rng(seed)


ARGUMENTS = {
    "x": rng(1).normal(size=(7, 5)),
    "weight": rng(2).normal(size=5),
    "bias": rng(3).normal(size=5),
    "eps": 1e-12,
}


def check_layer_norm(change=lambda d_x, d_weight, d_bias, *_: (d_x, d_weight, d_bias), **options):
    """Check layer_norm's backward with one of its three gradients changed."""

    def backward(d_y, x, weight, bias, eps):
        return change(*ops.layer_norm_backward(d_y, x, weight, eps), d_y, x, weight)

    return check_backward(ops.layer_norm, backward, ARGUMENTS, rng=rng(), **options)


def without_the_variance_term(d_x, d_weight, d_bias, d_y, x, weight):
    s = x.std(axis=-1, keepdims=True)
    d_z = d_y * weight
    return (d_z - d_z.mean(axis=-1, keepdims=True)) / s, d_weight, d_bias


# ------------------------------------------------------------------------------------------------ right ones


def test_a_right_backward_passes_with_room_to_spare():
    report = check_layer_norm()
    assert report.ok and report.first_wrong is None
    assert [row.name for row in report.rows] == ["x", "weight", "bias"]  # the eps is a setting
    # measured: 2.6e-11 at most over 20 seeds
    assert report.worst.error < 2e-10


def test_a_gradient_that_is_rightly_zero_passes_with_its_rounding():
    loss, params, gradients = mlp()
    params["unused"], gradients["unused"] = np.ones(3), np.full(3, 1e-16)
    assert check_gradients(loss, params, gradients, rng=rng()).ok
    # and what is not zero is not let through because the loss hardly moves
    gradients["unused"] = np.full(3, 1e-9)
    report = check_gradients(loss, params, gradients, rng=rng())
    assert [row.name for row in report.rows if not row.ok] == ["unused"]
    assert "does not change with it" in report.worst.diagnosis


# ---------------------------------------------------------------------------------------------- planted mistakes

MISTAKES = {
    "wrong sign": (lambda dx, dw, db, *_: (dx, -dw, db), "weight", "the sign is turned"),
    "a thousandth": (lambda dx, dw, db, *_: (dx, dw * 1.001, db), "weight", "off by the factor 1.001"),
    "sum instead of mean": (lambda dx, dw, db, *_: (dx, dw, 7 * db), "bias", "too large by the factor 7 = B: a sum"),
    "scaled twice": (lambda dx, dw, db, *_: (dx / math.sqrt(5), dw, db), "x", "sqrt(D): scaled twice"),
    "none": (lambda dx, dw, db, *_: (dx, dw, None), "bias", "no gradient came back"),
    "no variance term": (without_the_variance_term, "x", "a term is missing"),
    "forgotten sum": (lambda dx, dw, db, d_y, *_: (dx, dw, d_y), "bias", "the sum over the leading axes is missing"),
    "kept axis": (lambda dx, dw, db, *_: (dx, dw[None], db), "weight", "a reshape"),
    "transposed": (lambda dx, dw, db, *_: (dx.T, dw, db), "x", "(5, 7), but the tensor's is (7, 5): transposed"),
    "NaN": (lambda dx, dw, db, *_: (dx, dw * [1, np.nan, 1, 1, 1], db), "weight", "in 1 of 5 numbers, the first at (1"),
    "float32": (lambda dx, dw, db, *_: (dx, dw.astype(np.float32), db), "weight", "float32 (5,) came back"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_caught_and_named(mistake):
    change, name, words = MISTAKES[mistake]
    report = check_layer_norm(change, sizes={"B": 7, "D": 5}, tolerance=1e-9)
    assert [row.name for row in report.rows if not row.ok] == [name]  # the two others are right
    assert report.worst.name == report.first_wrong.name == name and not report.ok
    assert words in report.first_wrong.diagnosis and report.first_wrong.diagnosis in str(report)


# --------------------------------------------------------------------------------------------------- whole losses


def mlp(activation=np.tanh):
    draw = rng(7)
    params = {
        "table": draw.normal(size=(9, 4)),
        "first.weight": draw.normal(size=(6, 4)),
        "first.bias": np.zeros(6),  # of size 0: moved by 1
        "last.weight": np.asfortranarray(draw.normal(size=(2, 6))),
    }
    ids, target = np.array([2, 0, 2, 7, 8]), draw.normal(size=(5, 2))

    def loss(p):
        hidden = activation(ops.linear(p["table"][ids], p["first.weight"], p["first.bias"]))
        return float(np.mean((hidden @ p["last.weight"].T - target) ** 2))

    def gradients(p):
        x = p["table"][ids]
        hidden = np.tanh(ops.linear(x, p["first.weight"], p["first.bias"]))
        d_y = 2 * (hidden @ p["last.weight"].T - target) / target.size
        d_hidden, d_last, _ = ops.linear_backward(d_y, hidden, p["last.weight"])
        d_x, d_first, d_bias = ops.linear_backward(d_hidden * (1 - hidden**2), x, p["first.weight"])
        table = sum_rows(ids, d_x, 9)
        return {"table": table, "first.weight": d_first, "first.bias": d_bias, "last.weight": d_last}

    return loss, params, gradients(params)


def test_a_whole_loss_with_a_row_gradient():
    loss, params, gradients = mlp()
    report = check_gradients(loss, params, gradients, rng=rng())
    assert report.ok, report
    assert report.worst.error < 1e-9 and report.whole.error < 1e-9  # measured: 3.2e-11 at most over 20 seeds
    for name in ("table", "first.weight", "first.bias"):  # the first wrong one is the one nearest to the loss
        rows = gradients["table"]
        wrong = RowGradient(rows.rows, rows.values * 2, 9) if name == "table" else gradients[name] * 2
        gradients = {**gradients, name: wrong}
        assert check_gradients(loss, params, gradients, rng=rng()).first_wrong.name == name


def test_a_wrong_row_gradient_is_caught():
    loss, params, gradients = mlp()
    right = gradients["table"]
    for rows, values, count, words in (
        (right.rows[1:], right.values[1:], 9, "a term is missing"),
        (right.rows, right.values, 8, "of 8 came back, but the table is (9, 4)"),
        (right.rows, right.values[:, :3], 9, "(4, 3) of 9 came back"),
        (right.rows + 2, right.values, 9, "rows [2, 4, 9, 10]"),
        (np.array([0, 2, 2, 7]), right.values, 9, "once"),
    ):
        report = check_gradients(loss, params, gradients | {"table": RowGradient(rows, values, count)}, rng=rng())
        assert report.first_wrong.name == "table" and words in report.first_wrong.diagnosis
        assert [row.name for row in report.rows if not row.ok] == ["table"]


def test_a_loss_that_does_not_read_its_argument():
    loss, params, gradients = mlp()
    report = check_gradients(lambda p: loss(params), params, gradients, rng=rng())
    assert not any(row.ok for row in report.rows)
    assert all("does the loss read its argument" in row.diagnosis for row in report.rows)
    nothing = {name: np.zeros_like(tensor) for name, tensor in params.items()}
    report = check_gradients(lambda p: 1.0, params, nothing, rng=rng())
    assert report.ok and "did not change along any direction" in str(report)


# ------------------------------------------------------------------------------------------------------- kinks


def test_a_kink_is_reported_as_such():
    x = rng().normal(size=(4, 5))
    assert check_backward(ops.relu, ops.relu_backward, {"x": x}, rng=rng()).ok
    x[1, 2] = x[3, 3] = 0
    report = check_backward(ops.relu, ops.relu_backward, {"x": x}, rng=rng())
    assert not report.ok and report.rows[0].verdict == "not smooth"
    x[1, 2], x[3, 3] = 2e-4, 1  # a first step of 1e-3 reaches beyond the kink: it is stepped around
    report = check_backward(ops.relu, ops.relu_backward, {"x": x}, rng=rng())
    assert report.ok, report
    loss, params, gradients = mlp()  # nor can a loss be judged that is computed in float32
    narrow = check_gradients(
        lambda p: loss({name: tensor.astype(np.float32) for name, tensor in p.items()}), params, gradients, rng=rng()
    )
    assert {row.verdict for row in (*narrow.rows, narrow.whole)} == {"not smooth"}


# ------------------------------------------------------------------------------------------------------ refusals


ONES = {"x": np.ones(3)}
SQUARE = {"x": rng().normal(size=(3, 4))}
NOISE = rng()


def gradients_of(params=ONES, gradients=ONES, loss=lambda p: 1.0, **options):
    return check_gradients(loss, params, gradients, rng=rng(), **options)


def backward_of(forward, backward=lambda d, x: d, arguments=SQUARE):
    return check_backward(forward, backward, arguments, rng=rng())


REFUSED = {
    "a loss of an array": (r"\(3,\)", lambda: gradients_of(loss=lambda p: p["x"])),
    "NaN near by": ("nan .*everything", lambda: gradients_of(loss=lambda p: math.nan if p["x"][0] > 1 else 1.0)),
    "a random loss": ("dropout", lambda: gradients_of(loss=lambda p: float(NOISE.random()))),
    "float32": ("x is float32", lambda: gradients_of({"x": np.ones(3, np.float32)})),
    "a forward to infinity": ("12 NaN", lambda: backward_of(lambda x: np.full_like(x, np.inf))),
    "a gradient too few": ("2 gradients", lambda: backward_of(np.add, lambda d, x, y: d, {**SQUARE, "y": SQUARE["x"]})),
    "a greedy forward": ("read-only", lambda: backward_of(lambda x: np.exp(x, out=x))),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    words, call = REFUSED[what]
    with pytest.raises(ValueError, match=words):
        call()


# ------------------------------------------------------------------------------------------------- sentence models

COLUMNS = [["the cat sat", "i love soup", "dog"], ["a mat", "the soup", "the dog ran"], ["soup", "a b c", "un"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    chain = (Pooling(("mean", "max")), tiny_dense(24, 10), Normalize())
    return write_model(tmp_path_factory.mktemp("tiny") / "model", modules=chain)


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


def test_a_line_that_is_wrong_deep_inside_the_model_is_traced(model, monkeypatch):
    def without_the_residual(*arguments):
        d_hidden, gradients = original(*arguments)
        return d_hidden - arguments[0], gradients

    original = bert.layer_backward
    monkeypatch.setattr(bert, "layer_backward", without_the_residual)
    report = check_encoder(model, COLUMNS[:2], rng=rng(), directions=1)
    # right up to the second layer, whose own gradients do not depend on what it hands down; wrong from there on
    assert report.first_wrong.name == "encoder.layer.0.output.LayerNorm.bias"
    assert all(row.ok for row in report.rows if row.name.startswith(("encoder.layer.1", "modules")))


# ------------------------------------------------------------------------------------------------ command line


QUICK = ("gradcheck", "--layers", "none", "--directions", 1)


def test_the_command_knows_every_loss(folder):
    for loss in LOSSES:
        found = told(*QUICK, "--loss", loss, "--model", folder)
        assert found["ok"] and found["whole"]["verdict"] == "ok", loss
        assert [row["name"] for row in found["tensors"]][2:] == ["head.weight", "head.bias"] * (loss == "softmax")


def test_the_command_checks_the_layers_that_are_asked_for_and_fails_for_a_wrong_gradient(folder, monkeypatch):
    last, every = (told("gradcheck", "--layers", x, "--directions", 1, "--model", folder) for x in ("last", "all"))
    names = [[row["name"] for row in found["tensors"]] for found in (last, every)]
    assert len(names[0]) == 18 and not any(name.startswith("encoder.layer.0") for name in names[0])
    assert len(names[1]) == 39 and names[1][0] == "embeddings.word_embeddings.weight"
    dense_backward = pooling.dense_backward

    def without_bias(*arguments):
        d_x, gradients = dense_backward(*arguments)
        return d_x, type(gradients)(gradients.weight, gradients.bias * np.nan)

    monkeypatch.setattr(pooling, "dense_backward", without_bias)
    found = told(*QUICK, "--model", folder, code=1)
    assert found["first_wrong"] == "modules.1.linear.bias" and found["tensors"][1]["analytic"] is None
