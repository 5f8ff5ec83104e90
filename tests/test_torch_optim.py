"""AdamW against torch.optim: 25 steps, clipped, on tensors of every kind.

The table's gradients are dense in PyTorch and a RowGradient here; its rows come and go. Usual numbers, and the schedule
of transformers, are in `test_torch_finetune.py`.
"""

import numpy as np
import pytest
from torch_oracle import THIRD_PARTY_WARNINGS, relative

from minisbert.model.params import RowGradient
from minisbert.training.optim import adamw, clip_gradients, decays, init_adamw, warmup_linear

pytestmark = [pytest.mark.usefixtures("one_thread"), *(pytest.mark.filterwarnings(w) for w in THIRD_PARTY_WARNINGS)]

TABLE = "embeddings.word_embeddings.weight"
SHAPES = {
    TABLE: (97, 16),
    "embeddings.position_embeddings.weight": (12, 16),
    "embeddings.LayerNorm.weight": (16,),
    "embeddings.LayerNorm.bias": (16,),
    "encoder.layer.0.attention.self.query.weight": (16, 16),
    "encoder.layer.0.attention.self.query.bias": (16,),
    "encoder.layer.0.intermediate.dense.weight": (40, 16),
    "encoder.layer.0.output.LayerNorm.weight": (16,),
    "head.weight": (3, 48),
}
STEPS, WARMUP, TOTAL = 25, 5, 30
FLOAT64_BOUND = 1e-12
ADAMW = [
    {"learning_rate": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3},
    {"learning_rate": 0.01, "betas": (0.3, 0.0), "eps": 1e-5, "weight_decay": 0.0},
]


def make_params():
    rng = np.random.default_rng(7)
    params = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    return {n: np.asfortranarray(p) if n.startswith("encoder") else p for n, p in params.items()}


def make_grads(step):
    """Gradients of very different sizes; a few rows of the table, of which many are used in one step alone."""
    rng = np.random.default_rng(100 + step)
    grads = {name: (rng.normal(size=s) * 10.0 ** rng.integers(-5, 1)) for name, s in SHAPES.items()}
    rows = np.unique(rng.geometric(0.1, 12) % 97)
    return grads | {TABLE: RowGradient(rows, grads[TABLE][rows], 97)}


def tensors_of(torch, grads):
    return {n: torch.from_numpy(g.dense() if isinstance(g, RowGradient) else g.copy()) for n, g in grads.items()}


def groups(model, weight_decay):
    """Biases and LayerNorms apart, as every training script of the field does."""
    apart = [name for name in model if "bias" in name or "LayerNorm" in name]
    assert apart == [name for name in model if not decays(name)]
    return [
        {"params": [p for name, p in model.items() if name not in apart], "weight_decay": weight_decay},
        {"params": [model[name] for name in apart], "weight_decay": 0.0},
    ]


def in_torch(torch, numbers, max_norm):
    """25 steps in PyTorch: its optimiser, its LambdaLR, its clipping."""
    model = {name: torch.nn.Parameter(torch.from_numpy(p.copy())) for name, p in make_params().items()}
    optimiser = torch.optim.AdamW(
        groups(model, numbers["weight_decay"]), numbers["learning_rate"], numbers["betas"], numbers["eps"]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warmup_linear(step, WARMUP, TOTAL))
    norms = []
    for step in range(STEPS):
        for name, grad in tensors_of(torch, make_grads(step)).items():
            model[name].grad = grad
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.values(), max_norm, error_if_nonfinite=True)))
        optimiser.step()
        schedule.step()
    state = {name: {k: v.numpy() for k, v in optimiser.state[p].items() if k != "step"} for name, p in model.items()}
    return {name: p.detach().numpy() for name, p in model.items()}, state, norms


def here(numbers, max_norm):
    params = make_params()
    state, norms = init_adamw(params), []
    for step in range(STEPS):
        grads = make_grads(step)
        norms.append(clip_gradients(grads, max_norm))
        rate = numbers["learning_rate"] * warmup_linear(step, WARMUP, TOTAL)
        adamw(params, grads, state, **numbers | {"learning_rate": rate})
    return params, state, norms


def worst(ours, reference):
    assert ours.keys() == reference.keys()
    return max(relative(ours[name], reference[name]) for name in ours)


def moved(params):
    """Each tensor's way from the start, which a mistake in the step changes more than where it ends."""
    start = make_params()
    return {name: np.asarray(p, np.float64) - start[name] for name, p in params.items()}


@pytest.mark.parametrize("numbers", ADAMW, ids=str)
def test_adamw_with_warm_up_and_clipping(numbers, torch, figures):
    wanted, its_state, its_norms = in_torch(torch, numbers, max_norm=10.0)
    params, state, norms = here(numbers, max_norm=10.0)
    figures("params", worst(params, wanted), FLOAT64_BOUND)
    figures("m", worst(state.m, {n: s["exp_avg"] for n, s in its_state.items()}), FLOAT64_BOUND)
    figures("v", worst(state.v, {n: s["exp_avg_sq"] for n, s in its_state.items()}), FLOAT64_BOUND)
    figures("norms", max(abs(a / b - 1.0) for a, b in zip(norms, its_norms, strict=True)), FLOAT64_BOUND)
    assert min(its_norms) < 10.0 < max(its_norms), "both sides of clipping are met"
    assert 0 < state.seen[TABLE].sum() < 97, "some rows of the table were never used"
    figures("way", worst(moved(params), moved(wanted)), 1e-10)
