"""Each operation and activation against its PyTorch equivalent, at ordinary and at extreme numbers.

float32 is held to torch.float64 on the same float32 numbers, so that what is measured is our error alone.
"""

import numpy as np
import pytest
from torch_oracle import THIRD_PARTY_WARNINGS

from minisbert.model import ops

pytestmark = [pytest.mark.usefixtures("one_thread"), *(pytest.mark.filterwarnings(w) for w in THIRD_PARTY_WARNINGS)]


def numbers(dtype, rows=64, width=48):
    """Rows of ordinary numbers, and before them the numbers that break implementations."""
    rng = np.random.default_rng(0)
    x = rng.normal(0.0, 2.0, (rows, width))
    x[0] = rng.choice([-1e4, 1e4], width)
    x[1] = rng.uniform(-1e4, 1e4, width)
    x[2:5] = np.array([[0.0], [-0.0], [1.0]])  # constant rows
    x[5] = rng.normal(0.0, 1.0, width) * (1e-310 if dtype == np.float64 else 1e-40)  # denormal
    x[6] = rng.normal(1e3, 1.0, width)  # a large offset
    x[7] = np.linspace(-12.0, 12.0, width)
    x[8, ::2] = 1e4  # enormous numbers beside ordinary ones
    x[9] = np.geomspace(1e-8, 1e4, width)
    x[10] = -x[9]
    return x.astype(dtype)


WEIGHT, BIAS = np.random.default_rng(3).normal(size=(48, 48)), np.random.default_rng(4).normal(size=48)
# name -> ours, PyTorch's, the first row that is compared, and the bound of float32 in units of max(1, |y|), which is
# the measured error times 1.15 for gelu, 2 for the others. Cancellation in extreme rows is not ours to undo.
OPERATIONS = {
    "gelu": (ops.gelu, lambda f, t: f.gelu(t), 0, 2.3e-7),
    "gelu_tanh": (ops.gelu_tanh, lambda f, t: f.gelu(t, approximate="tanh"), 0, 3e-7),
    "relu": (ops.relu, lambda f, t: f.relu(t), 0, 0.0),
    "sigmoid": (ops.sigmoid, lambda f, t: t.sigmoid(), 0, 1.7e-7),
    "silu": (ops.silu, lambda f, t: f.silu(t), 0, 2.8e-7),
    "softmax": (ops.softmax, lambda f, t: f.softmax(t, -1), 0, 4e-7),
    "normalize": (ops.normalize, lambda f, t: f.normalize(t, dim=-1), 6, 3e-7),
    "layer_norm": (
        lambda x: ops.layer_norm(x, *(a.astype(x.dtype) for a in (WEIGHT[0], BIAS)), 1e-5),
        lambda f, t: f.layer_norm(t, (48,), *(t.new_tensor(a) for a in (WEIGHT[0], BIAS)), 1e-5),
        *(11, 1.2e-6),
    ),
    "linear": (
        lambda x: ops.linear(x, *(a.astype(x.dtype) for a in (WEIGHT, BIAS))),
        lambda f, t: f.linear(t, *(t.new_tensor(a) for a in (WEIGHT, BIAS))),
        *(11, 9e-6),
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name, torch, figures):
    ours, theirs, first, bound = OPERATIONS[name]
    for dtype, limit in ((np.float64, 2e-14), (np.float32, bound)):
        x = numbers(dtype)
        reference = theirs(torch.nn.functional, torch.from_numpy(x.astype(np.float64))).numpy()
        found = ours(x)
        assert found.dtype == dtype and np.isfinite(found).all()
        error = (np.abs(found - reference) / np.maximum(1.0, np.abs(reference)))[first:]
        figures(f"{name} {np.dtype(dtype)}", float(error.max()), limit)
