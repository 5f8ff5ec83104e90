"""Each operation, activation and pooling against its PyTorch equivalent, at ordinary and at extreme numbers.

float64 against torch.float64: relative 1e-10. float32 against torch.float64 on the same float32 numbers, so that what
is measured is our error alone; PyTorch's own float32 error stands beside it in the output (``-s``). The float32 bounds
are the measured error times the margin that stands beside them.
"""

import itertools

import numpy as np
import pytest
from torch_oracle import THIRD_PARTY_WARNINGS, absolute

from minisbert.model import ops

pytestmark = [pytest.mark.usefixtures("one_thread"), *(pytest.mark.filterwarnings(w) for w in THIRD_PARTY_WARNINGS)]

DENORMAL = 1e-310  # below the smallest normal float64


def numbers(dtype, rows=64, width=48, seed=0):
    """Rows of ordinary numbers, and among them the numbers that break implementations."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, 2.0, (rows, width))
    x[0] = rng.choice([-1e4, 1e4], width)
    x[1] = rng.uniform(-1e4, 1e4, width)
    x[2] = 0.0
    x[3] = -0.0
    x[4] = 1.0  # a constant row
    x[5] = rng.normal(0.0, 1.0, width) * (DENORMAL if dtype == np.float64 else 1e-40)
    x[6] = rng.normal(1e3, 1.0, width)  # a large offset
    x[7] = np.linspace(-12.0, 12.0, width)
    x[8, ::2] = 1e4  # one enormous number beside ordinary ones
    x[9] = np.geomspace(1e-8, 1e4, width)
    x[10] = -x[9]
    return x.astype(dtype)


# name -> (PyTorch's, float32 bound in units of max(1, |y|)): measured error times 1.15 for gelu, 2 for the others
ACTIVATIONS = {
    "gelu": (lambda f, t: f.gelu(t), 2.3e-7),  # measured 2.01e-7
    "gelu_tanh": (lambda f, t: f.gelu(t, approximate="tanh"), 3e-7),  # 1.50e-7
    "identity": (lambda f, t: t, 0.0),
    "relu": (lambda f, t: f.relu(t), 0.0),
    "sigmoid": (lambda f, t: t.sigmoid(), 1.7e-7),  # 8.7e-8
    "silu": (lambda f, t: f.silu(t), 2.8e-7),  # 1.40e-7
    "tanh": (lambda f, t: t.tanh(), 1.2e-7),  # 6.0e-8
}


def per_number(ours, reference) -> float:
    """Largest |difference| in units of max(1, |reference|), number by number."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    return float((np.abs(ours - reference) / np.maximum(1.0, np.abs(reference))).max())


@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_activation(name, torch, figures):
    theirs, bound = ACTIVATIONS[name]
    functional = torch.nn.functional
    x = numbers(np.float64)
    reference = theirs(functional, torch.from_numpy(x)).numpy()
    ours = ops.ACTIVATIONS[name][0](x)
    # atol: below 1e-15 PyTorch's own 1 + erf(x) has no digits left
    np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-15)
    figures(f"{name} float64", per_number(ours, reference), 1e-14)

    x = np.concatenate([numbers(np.float32, rows=400), numbers(np.float32, rows=400, seed=1) * np.float32(0.5)])
    ours = ops.ACTIVATIONS[name][0](x)
    reference = theirs(functional, torch.from_numpy(x.astype(np.float64))).numpy()
    figures(f"{name} float32", per_number(ours, reference), bound)


def exact_gelu(x):
    """x Phi(x) in float64 with no cancellation: Phi(x) = erfc(-x / sqrt(2)) / 2."""
    special = pytest.importorskip("scipy.special")
    x = x.astype(np.float64)
    return x * 0.5 * special.erfc(-x / np.sqrt(2.0))


def test_the_fit_behind_gelu_in_exact_arithmetic(figures):
    special = pytest.importorskip("scipy.special")
    x = np.linspace(0.0, 12.0, 240_001)
    fitted = special.expit(x * np.polyval(ops._LOGISTIC, x**2))
    figures("_LOGISTIC", np.abs(x * fitted - exact_gelu(x)).max(), 6.7e-8)  # measured 6.598e-8; gelu says 6.6e-8


def test_linear(torch, figures):
    rng = np.random.default_rng(0)
    functional = torch.nn.functional
    for bias_given in (True, False):
        for dtype, bound in ((np.float64, 1e-15), (np.float32, 4e-7)):
            x = numbers(dtype)
            weight = np.asfortranarray(rng.normal(0.0, 1.0, (20, 48)).astype(dtype))
            bias = rng.normal(0.0, 1.0, 20).astype(dtype) if bias_given else None
            ours = ops.linear(x, weight, bias)
            wide = [None if a is None else torch.from_numpy(a.astype(np.float64)) for a in (x, weight, bias)]
            reference = functional.linear(*wide).numpy()
            # an error is held against the sizes that went into the sum, row by row: cancellation is not ours to undo
            terms = np.abs(x).astype(np.float64) @ np.abs(weight).T.astype(np.float64)
            terms += 0.0 if bias is None else np.abs(bias)
            error = np.abs(ours - reference) / np.maximum(terms, 48 * np.finfo(dtype).tiny)
            figures(f"linear {np.dtype(dtype)} {'with' if bias_given else 'without'} bias", error.max(), bound)


def test_softmax(torch, figures):
    for dtype, bound in ((np.float64, 1e-14), (np.float32, 4e-7)):
        for x in (numbers(dtype), numbers(dtype)[:24].reshape(2, 3, 4, 48), numbers(dtype)[:, :1]):
            ours = ops.softmax(x)
            reference = torch.softmax(torch.from_numpy(x.astype(np.float64)), -1).numpy()
            if dtype == np.float64:
                np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-300)
            figures(f"softmax {np.dtype(dtype)}", absolute(ours, reference), bound)
            assert np.abs(ours.sum(-1) - 1.0).max() <= bound


def test_layer_norm(torch, figures):
    for eps, dtype in itertools.product((1e-12, 1e-5), (np.float64, np.float32)):
        x, rng = numbers(dtype), np.random.default_rng(3)
        weight, bias = (1.0 + 0.3 * rng.normal(size=48)).astype(dtype), rng.normal(size=48).astype(dtype)
        ours = ops.layer_norm(x, weight, bias, eps)
        wide = [torch.from_numpy(a.astype(np.float64)) for a in (x, weight, bias)]
        reference = torch.nn.functional.layer_norm(wide[0], (48,), wide[1], wide[2], eps).numpy()
        if dtype == np.float64:
            np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-11)
        # a row's numbers carry a rounding error of max |x|; dividing by the row's spread enlarges it
        spread = np.sqrt(x.astype(np.float64).var(-1) + eps)
        condition = np.finfo(dtype).eps * (1.0 + np.abs(x).max(-1) / spread)
        error = np.abs(ours - reference).max(-1) / condition
        figures(f"layer_norm {np.dtype(dtype)} eps {eps}, in units of eps (1 + max |x| / spread)", error.max(), 8.0)
        ordinary = slice(11, None)
        figures(
            f"layer_norm {np.dtype(dtype)} eps {eps}, ordinary rows",
            absolute(ours[ordinary], reference[ordinary]),
            5e-15 if dtype == np.float64 else 1.2e-6,
        )


def test_normalize(torch, figures):
    for dtype, bound in ((np.float64, 1e-14), (np.float32, 3e-7)):
        x = numbers(dtype)
        ours = ops.normalize(x)
        # PyTorch in the same precision: below 1e-19 the squares of float32 vanish in both
        reference = torch.nn.functional.normalize(torch.from_numpy(x), p=2, dim=-1).numpy()
        if dtype == np.float64:
            np.testing.assert_allclose(ours, reference, rtol=1e-10)
        figures(f"normalize {np.dtype(dtype)}", absolute(ours, reference), bound)
        assert not ours[2].any()
