"""`finetune` as a whole beside a training loop in PyTorch, and its result through sentence-transformers.

The loop is written out in PyTorch: sentence-transformers' model in training mode with dropout 0, its own loss classes,
`clip_grad_norm_`, transformers' linear schedule and `torch.optim.AdamW` with no decay on biases and LayerNorm. Batches
are those of `make_epoch`, whose order is nobody's but ours. The bound is the project's promise, 1e-9 in float64.
Measured: 6e-11 at most, in the bias of a key, whose gradient is rounding alone; 2e-13 in all else.
"""

import numpy as np
import pytest
from test_finetune import ANCHORS, NEGATIVES, POSITIVES
from test_torch_models import open_theirs
from tiny import tiny_dense, write_model
from torch_oracle import THIRD_PARTY_WARNINGS, quiet, relative, torch_parameters

from minisbert import SentenceEncoder
from minisbert.model.pooling import Normalize, Pooling
from minisbert.training.data import Examples, make_epoch
from minisbert.training.finetune import Settings, finetune, new_head
from minisbert.training.step import copy_parameters, named_parameters

pytestmark = [pytest.mark.usefixtures("one_thread"), *(pytest.mark.filterwarnings(w) for w in THIRD_PARTY_WARNINGS)]

PROMISED = 1e-9
LABELS = np.array([0, 1, 1, 0, 0, 1, 0, 1, 1, 0])
DATA = {
    "pairs": Examples("pairs", (ANCHORS, POSITIVES)),
    "triplets": Examples("triplets", (ANCHORS, POSITIVES, NEGATIVES)),
    # numbers that float32 holds: CosineSimilarityLoss rounds them to it
    "scored": Examples("scored", (ANCHORS, POSITIVES), scores=np.arange(10) / 16),
    "labelled": Examples("labelled", (ANCHORS, POSITIVES), labels=LABELS, label_names=("0", "1")),
}
CASES = [
    ("multiple_negatives_ranking", "pairs", {"scale": 15.0}, lambda them, m: them.MultipleNegativesRankingLoss(m, 15)),
    ("multiple_negatives_ranking", "triplets", {}, lambda them, m: them.MultipleNegativesRankingLoss(m)),
    ("triplet", "triplets", {"margin": 0.7}, lambda them, m: them.TripletLoss(m, triplet_margin=0.7)),
    ("cosine_similarity", "scored", {}, lambda them, m: them.CosineSimilarityLoss(m)),
    ("contrastive", "labelled", {}, lambda them, m: them.ContrastiveLoss(m)),
    ("softmax", "labelled", {}, lambda them, m: them.SoftmaxLoss(m, m.get_sentence_embedding_dimension(), 2)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    modules = (Pooling(("mean", "cls")), tiny_dense(24, 9, "tanh"), Normalize())
    return write_model(tmp_path_factory.mktemp("model") / "tiny", modules=modules, seed=5)


def train_in_torch(model, make_loss, examples, settings, head):
    """Train it, and give the losses, the gradients' lengths, and the last parameters by our names."""
    import torch
    import transformers
    from sentence_transformers import losses

    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loss = make_loss(losses, model).to(model.dtype)
    named = torch_parameters(model)
    if head:
        named |= {"head.weight": loss.classifier.weight, "head.bias": loss.classifier.bias}
        with torch.no_grad():
            for name, first in head.items():
                named[name].copy_(torch.from_numpy(first))
    # written anew, so that a wrong rule of ours would be seen
    no_decay = [p for name, p in named.items() if name.endswith("bias") or "LayerNorm" in name]
    decay = [p for name, p in named.items() if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decay, "weight_decay": settings.weight_decay}, {"params": no_decay, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    epochs = [
        make_epoch(examples, settings.batch_size, np.random.default_rng([settings.seed, 0, epoch]))
        for epoch in range(settings.epochs)
    ]
    total = sum(map(len, epochs))
    warmup = int(np.ceil(settings.warmup * total))
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, warmup, total)
    found = []
    for batch in [batch for epoch in epochs for batch in epoch]:
        optimizer.zero_grad()
        targets = None if batch.targets is None else torch.from_numpy(batch.targets)
        value = loss([model.tokenize(list(column)) for column in batch.texts], targets)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_([*decay, *no_decay], settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        found.append((value.item(), norm.item()))
    return np.array(found), {name: p.detach().numpy() for name, p in named.items() if not name.startswith("head.")}


@pytest.mark.parametrize(("loss", "data", "options", "make_loss"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_a_whole_run_is_pytorchs(loss, data, options, make_loss, folder, sentence_transformers, figures):
    quiet(threads=1)
    settings = Settings(
        loss=loss, loss_options=options, epochs=5, batch_size=4, learning_rate=3e-3, warmup=0.2, weight_decay=0.05,
        max_grad_norm=0.4, dropout=0.0, seed=2, num_threads=2, cache_tokens=20 if data == "triplets" else None,
    )  # fmt: skip
    encoder, theirs = SentenceEncoder(folder, dtype="float64"), open_theirs(folder, "float64")
    start = copy_parameters(named_parameters(encoder.model))
    reports = []
    done = finetune(encoder, DATA[data], settings, on_step=reports.append)
    head = new_head(settings, DATA[data], 9, np.float64)
    reference, their_params = train_in_torch(theirs, make_loss, DATA[data], settings, head)
    found = np.array([(report.loss, report.gradient_norm) for report in reports])
    assert len(found) == 15 and (reference[:, 1] > 0.4).any() and np.ptp(reference[:, 0]) > 1e-3
    name = f"finetune, {loss}, {data}"
    figures(f"{name}: 15 losses", float(np.abs(found / reference - 1)[:, 0].max()), PROMISED)
    figures(f"{name}: lengths of gradients", float(np.abs(found / reference - 1)[:, 1].max()), PROMISED)
    params = named_parameters(done.encoder.model)
    assert list(params) == list(their_params)
    differences = {key: relative(params[key], their_params[key]) for key in params}
    worst = max(differences, key=differences.get)
    figures(f"{name}: {len(params)} parameters, worst {worst}", differences[worst], PROMISED)
    # the way gone, too: what hardly moves agrees in any case. A key's bias has no gradient but rounding
    moved = {key: relative(params[key] - start[key], their_params[key] - start[key]) for key in params}
    worst = max((key for key in params if not key.endswith("key.bias")), key=moved.get)
    figures(f"{name}: ways gone, worst {worst}", moved[worst], PROMISED)


def test_the_real_model_beside_pytorch_and_there_and_back(weights_folder, sentence_transformers, tmp_path, figures):
    """Eight pairs in which one word decides, in float32, as people train."""
    quiet(threads=1)
    numbers = ("one", "two", "three", "four", "five", "six", "seven", "eight")
    columns = tuple(tuple(f"{verb} parcel {x}" for x in numbers) for verb in ("send", "return"))
    examples = Examples("pairs", columns)
    settings = Settings(epochs=3, batch_size=4, warmup=0.0, dropout=0.0)
    encoder = SentenceEncoder(weights_folder)
    done = finetune(encoder, examples, settings)
    theirs = open_theirs(weights_folder, "float32")
    reference, _ = train_in_torch(theirs, lambda them, m: them.MultipleNegativesRankingLoss(m), examples, settings, {})
    losses = np.array(done.progress.losses)
    figures("all-MiniLM-L6-v2, 6 steps, losses", float(np.abs(losses - reference[:, 0]).max()), 1e-5)
    assert losses[-2:].mean() < 0.9 * losses[:2].mean()
    texts = [*columns[0], *columns[1], "hello world"]
    tuned = done.encoder.encode(texts)
    # AdamW steps by the sign where a gradient is rounding alone, so that single weights part; vectors hardly do:
    # measured 5e-7, the margin is 20
    figures("vectors of both trained models", float(np.abs(theirs.eval().encode(texts) - tuned).max()), 1e-5)
    done.encoder.save(tmp_path / "tuned")
    loaded = sentence_transformers.SentenceTransformer(str(tmp_path / "tuned"), device="cpu")
    figures("tuned, in sentence-transformers", float(np.abs(loaded.encode(texts) - tuned).max()), 1e-6)
    loaded.save(str(tmp_path / "back"))
    np.testing.assert_array_equal(SentenceEncoder(tmp_path / "back").encode(texts), tuned)
    assert np.abs(tuned - encoder.encode(texts)).max() > 1e-3
