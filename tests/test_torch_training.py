"""Twenty training steps beside PyTorch: forward, backward, clipping, warm-up and AdamW, from the same start.

The loop is written out on both sides. In PyTorch: sentence-transformers' model in training mode with dropout 0,
`MultipleNegativesRankingLoss`, `clip_grad_norm_`, `LambdaLR`, and `torch.optim.AdamW` with weight decay on all but
biases and LayerNorm. Errors of one step go into the next, so that what is compared last has been through all twenty.
The bounds are the project's promises: 1e-9 in float64, 1e-5 on the losses in float32.
"""

import numpy as np
import pytest
from test_torch_backward import open_theirs
from tiny import tiny_dense, write_model
from torch_oracle import THIRD_PARTY_WARNINGS, quiet, relative, torch_parameters

from minisbert.model.folder import load_model
from minisbert.model.pooling import Normalize, Pooling
from minisbert.training.losses import multiple_negatives_ranking
from minisbert.training.optim import adamw, clip_gradients, init_adamw, warmup_linear
from minisbert.training.step import copy_parameters, named_parameters, replace_parameters, value_and_gradients

pytestmark = [pytest.mark.usefixtures("one_thread"), *(pytest.mark.filterwarnings(w) for w in THIRD_PARTY_WARNINGS)]

STEPS, WARMUP = 20, 4
MAX_NORM, WEIGHT_DECAY = 1.0, 0.01


SUBJECTS = [
    ("a man", "someone"), ("two children", "kids"), ("the old woman", "a grandmother"), ("a brown dog", "the dog"),
    ("my neighbour", "the person next door"), ("the band", "a group of musicians"), ("our teacher", "the instructor"),
    ("a chef", "the cook"), ("nobody", "not a single person"), ("the minister", "a politician"),
]  # fmt: skip
ACTIONS = [
    ("is playing the guitar", "plays a guitar"), ("runs through the snow", "is running in the snow"),
    ("is slicing an onion", "cuts onions"), ("sleeps on the sofa", "is asleep on a couch"),
    ("went to the stadium by car", "drove to the stadium"), ("is afraid of thunder", "fears storms"),
    ("wants to buy a house", "is looking for a home to buy"), ("reads the newspaper", "is reading the news"),
]  # fmt: skip


def batches(count, size, seed=0):
    """Batches of anchors and positives out of 80 pairs, in one random order after another."""
    rng = np.random.default_rng(seed)
    pairs = [(f"{a} {c}", f"{b} {d}") for a, b in SUBJECTS for c, d in ACTIONS]
    found = []
    while len(found) < count:
        order = rng.permutation(len(pairs))[: len(pairs) // size * size].reshape(-1, size)
        found += [[[pairs[i][side] for i in chosen] for side in (0, 1)] for chosen in order]
    return found[:count]


def train_ours(model, columns, learning_rate):
    """Losses, gradient norms and the last parameters."""
    params = copy_parameters(named_parameters(model))
    state, found = init_adamw(params), []
    for i, batch in enumerate(columns):
        step = value_and_gradients(
            replace_parameters(model, params), batch, lambda v: multiple_negatives_ranking(*v), num_threads=2
        )
        norm = clip_gradients(step.gradients, MAX_NORM)
        rate = learning_rate * warmup_linear(i, WARMUP, STEPS)
        adamw(params, step.gradients, state, learning_rate=rate, weight_decay=WEIGHT_DECAY)
        found.append((step.value, norm))
    return np.array(found), params


def train_theirs(model, columns, learning_rate):
    """The same in PyTorch."""
    import torch
    from sentence_transformers import losses

    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    named = torch_parameters(model)
    # written anew, so that a wrong `decays` of ours would be seen
    no_decay = [p for name, p in named.items() if name.endswith("bias") or "LayerNorm" in name]
    decay = [p for name, p in named.items() if not (name.endswith("bias") or "LayerNorm" in name)]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": no_decay, "weight_decay": 0.0}], lr=learning_rate
    )

    def share(step):
        return step / WARMUP if step < WARMUP else (STEPS - step) / (STEPS - WARMUP)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    loss, found = losses.MultipleNegativesRankingLoss(model), []
    for batch in columns:
        optimizer.zero_grad()
        value = loss([model.tokenize(column) for column in batch], None)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_([*decay, *no_decay], MAX_NORM)
        optimizer.step()
        schedule.step()
        found.append((value.item(), norm.item()))
    return np.array(found), {name: p.detach().numpy() for name, p in named.items()}


# words and letters that the tiny vocabulary has; a learning rate at which twenty steps go somewhere
TINY_RATE = 3e-3


def test_float64(tmp_path, sentence_transformers, figures):
    quiet(threads=1)
    modules = (Pooling(("mean", "cls")), tiny_dense(24, 9, "tanh"), Normalize())
    tiny_folder = write_model(tmp_path, modules=modules, seed=5)
    columns = [[[text[:12] for text in column] for column in batch] for batch in batches(STEPS, 8)]
    model, theirs = load_model(tiny_folder, np.float64), open_theirs(tiny_folder, "float64")
    start = copy_parameters(named_parameters(model))
    found, params = train_ours(model, columns, TINY_RATE)
    reference, their_params = train_theirs(theirs, columns, TINY_RATE)
    # what must have happened for this to show anything
    assert (reference[:, 1] > MAX_NORM).sum() >= 10, "hardly any gradient was clipped"
    assert reference[-5:, 0].mean() < 0.8 * reference[:5, 0].mean(), "nothing was learned"
    assert list(params) == list(their_params)
    figures("20 steps, float64, losses", float(np.abs(found / reference - 1)[:, 0].max()), 1e-9)
    figures("20 steps, float64, gradient norms", float(np.abs(found / reference - 1)[:, 1].max()), 1e-9)
    differences = {name: relative(params[name], their_params[name]) for name in params}
    worst = max(differences, key=differences.get)
    figures(f"20 steps, float64, {len(params)} parameters, worst {worst}", differences[worst], 1e-9)
    # the way that each has gone, too: a parameter that hardly moves agrees in any case
    moved = {name: relative(params[name] - start[name], their_params[name] - start[name]) for name in params}
    worst = max((name for name in params if not name.endswith("key.bias")), key=moved.get)
    figures(f"20 steps, float64, ways gone, worst {worst}", moved[worst], 1e-9)
    for name, array in named_parameters(model).items():
        np.testing.assert_array_equal(array, start[name])  # the model that training began with is as it was


def test_float32_on_the_real_model(weights_folder, sentence_transformers, figures):
    quiet(threads=1)
    columns = batches(STEPS, 16)
    model, theirs = load_model(weights_folder, np.float32), open_theirs(weights_folder, "float32")
    found, params = train_ours(model, columns, 2e-5)
    reference, their_params = train_theirs(theirs, columns, 2e-5)
    assert all(param.dtype == np.float32 for param in params.values())
    figures("20 steps, all-MiniLM-L6-v2, float32, losses", float(np.abs(found - reference)[:, 0].max()), 1e-5)
    figures("the same, relative", float(np.abs(found / reference - 1)[:, 0].max()), 1e-4)
    figures("the same, gradient norms, relative", float(np.abs(found / reference - 1)[:, 1].max()), 1e-4)
    # AdamW divides by the gradient's size, and so makes steps of the full length out of rounding alone where a gradient
    # is zero on paper: the key's bias. A step is 2e-5, twenty are 2e-4 at most
    differences = {name: float(np.abs(params[name] - their_params[name]).max()) for name in params}
    worst = max((name for name in params if not name.endswith("key.bias")), key=differences.get)
    figures(f"the same, parameters, worst {worst}", differences[worst], 2e-5)  # one step's length
    assert found[-5:, 0].mean() < found[:5, 0].mean()
