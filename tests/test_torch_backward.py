"""Every gradient of the whole encoder beside torch.autograd: random checkpoints, with each loss and with dropout.

float64 against torch.float64: the project promises 1e-9; the bounds here are what was measured with NumPy 2.4.6,
PyTorch 2.13.0, transformers 5.23.0 and sentence-transformers 6.2.0, times the margin beside each; `-s` prints what is
measured now. The checkpoints are those of `test_torch_models.py`, in all their dialects, with sentence-transformers'
own modules and loss classes, and the real all-MiniLM-L6-v2. Dropout is compared by handing our masks to PyTorch.
"""

import numpy as np
import pytest
from test_torch_models import CASES, IDS, open_theirs, write_case
from tiny import TINY, write_model
from torch_oracle import (
    THIRD_PARTY_WARNINGS,
    gradient_differences,
    pad,
    quiet,
    relative,
    torch_gradients,
)

from minisbert.model.bert import Dropout, bert_backward, trace_bert
from minisbert.model.folder import load_model
from minisbert.model.tokens import OverflowReport
from minisbert.training import losses
from minisbert.training.step import named_gradients, value_and_gradients

pytestmark = [pytest.mark.usefixtures("one_thread"), *(pytest.mark.filterwarnings(w) for w in THIRD_PARTY_WARNINGS)]

OPERATION_BOUND = 1e-14  # measured: 8e-16 at most; the margin is 12
# measured: 1.7e-12 at most, in a gradient that is zero on paper; else 4.2e-13. On the real model 1.8e-14. Margin: 6
ENCODER_BOUND = 1e-11


def rng(seed=0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------ whole encoders with each loss

# unequal lengths, equal ones that are no neighbours, a text that is cut, no words, unknown letters
COLUMNS = [
    ["the cat sat on the mat", "soup", "", "find soup on the mat; " * 6, "a b c", "the mat"],
    ["The CAT: caf\u00e9 \u2603", "find the cat", "x" * 150, "soup on the mat", "c, b, a!", "on the mat the cat sat"],
    ["soup soup", "a", "the cat", "the cat sat", "unreadable", "mat"],
]
# exact in float32, to which sentence-transformers' CosineSimilarityLoss rounds them
SCORES = [0.875, 0.25, -0.25, 0.25, 0.75, 0.125]
LABELS, BINARY = [0, 2, 1, 1, 0, 2], [1, 0, 0, 1, 1, 0]


def with_classifier(vectors, head):
    return losses.softmax_classification(*vectors, LABELS, head["head.weight"], head["head.bias"])


LOSS_CASES = {  # how many columns, (vectors, head) -> LossResult, (their losses, model) -> their loss, labels
    "multiple negatives": (
        3,
        lambda v, _: losses.multiple_negatives_ranking(*v), lambda them, m: them.MultipleNegativesRankingLoss(m), None,
    ),
    "cosent": (2, lambda v, _: losses.cosent(*v, SCORES), lambda them, m: them.CoSENTLoss(m), SCORES),
    "softmax": (
        2, with_classifier,
        lambda them, m: them.SoftmaxLoss(m, m.get_sentence_embedding_dimension(), 3).double(), LABELS,
    ),
    "triplet": (3, lambda v, _: losses.triplet(*v), lambda them, m: them.TripletLoss(m, triplet_margin=1.0), None),
    "contrastive": (2, lambda v, _: losses.contrastive(*v, BINARY), lambda them, m: them.ContrastiveLoss(m), BINARY),
    "cosine similarity": (
        2, lambda v, _: losses.cosine_similarity(*v, SCORES), lambda them, m: them.CosineSimilarityLoss(m), SCORES
    ),
}  # fmt: skip


def open_ours(folder, dtype):
    if (folder / "modules.json").exists():
        return load_model(folder, dtype)
    with pytest.warns(UserWarning, match=r"no modules\.json"):
        return load_model(folder, dtype)


def both_sides(model, theirs, case, columns):
    """Loss and gradients here and in PyTorch, those of the classifier too."""
    import torch
    from sentence_transformers import losses as their_losses

    count, our_loss, their_loss, labels = case
    columns, loss = columns[:count], their_loss(their_losses, theirs)
    head = {}
    if hasattr(loss, "classifier"):
        head = {f"head.{name}": p.detach().numpy() for name, p in loss.classifier.named_parameters()}
    # padding need not be equal on both sides: every column of PyTorch's is as wide as its longest text
    features = [theirs.tokenize(list(column)) for column in columns]
    theirs.zero_grad(set_to_none=True)
    labels = None if labels is None else torch.tensor(labels)
    if labels is not None and labels.is_floating_point():
        labels = labels.to(next(theirs.parameters()).dtype)
    value = loss(features, labels)
    value.backward()
    reference = torch_gradients(theirs)
    if head:
        reference |= {f"head.{name}": p.grad.numpy() for name, p in loss.classifier.named_parameters()}
    report = OverflowReport(model.max_seq_length, "truncate")
    step = value_and_gradients(model, columns, lambda v: our_loss(v, head), num_threads=2, report=report)
    return step.value, value.item(), step.gradients, reference


@pytest.fixture(scope="module")
def folders(tmp_path_factory, torch, transformers, sentence_transformers):
    """Name of a case of test_torch_models.py -> its folder, written at first use."""
    quiet(threads=1)
    home, written = tmp_path_factory.mktemp("cases"), {}

    def folder(name):
        if name not in written:
            written[name] = write_case(home / str(len(written)), CASES[name], seed=50 + len(written))
        return written[name]

    return folder


@pytest.mark.parametrize("name", CASES, ids=IDS)
def test_random_checkpoint(name, folders, figures):
    """Every parameter of every checkpoint under three of the losses; five checkpoints are under each loss."""
    model, theirs = open_ours(folders(name), np.float64), open_theirs(folders(name), "float64")
    for loss in list(LOSS_CASES)[list(CASES).index(name) % 2 :: 2]:
        ours, reference, gradients, their_gradients = both_sides(model, theirs, LOSS_CASES[loss], COLUMNS)
        assert reference > 1e-3, f"{loss} is nearly 0 and shows nothing"
        figures(f"{name}, {loss}, loss", abs(ours / reference - 1), ENCODER_BOUND)
        found = gradient_differences(gradients, their_gradients)
        worst = max(found, key=found.get)
        figures(f"{name}, {loss}, {len(found)} gradients, worst {worst}", found[worst], ENCODER_BOUND)


def test_pytorch_gives_the_padding_piece_no_gradient(folders):
    """A known difference: transformers marks id 0 as padding, and its row gets no gradient, even as a token of a text.

    Packed texts hold it only if a text says "[PAD]". Then it is a token like any other here, and has a gradient.
    """
    folder = folders("2 heads, gelu_new, dense tanh")
    model, theirs = open_ours(folder, np.float64), open_theirs(folder, "float64")
    columns = [["the [PAD] cat", "soup"], ["a cat", "[PAD]"]]
    _, _, ours, reference = both_sides(model, theirs, LOSS_CASES["multiple negatives"], columns)
    word = "embeddings.word_embeddings.weight"
    assert 0 in ours[word].rows
    dense = ours[word].dense()
    assert np.abs(dense[0]).max() > 1e-3 * np.abs(dense).max() and not reference[word][0].any()
    ours[word] = dense
    ours[word][0] = 0.0
    assert max(gradient_differences(ours, reference).values()) <= ENCODER_BOUND


# -------------------------------------------------------------------------------------------------------- dropout


def our_masks(trace, lengths):
    """Every mask of a trace in the order in which PyTorch asks for them, padded with ones."""
    from torch import from_numpy, ones

    width = int(lengths.max())
    _, is_token = pad(np.zeros(lengths.sum(), np.int64), lengths)

    def rows(mask):
        padded = ones(len(lengths), width, mask.shape[1], dtype=from_numpy(mask).dtype)
        padded[is_token.bool()] = from_numpy(mask)
        return padded

    def pairs(masks):
        every = [text for run in masks for text in run]
        padded = ones(len(lengths), len(every[0]), width, width, dtype=from_numpy(every[0]).dtype)
        for i, mask in enumerate(every):
            padded[i, :, : mask.shape[1], : mask.shape[2]] = from_numpy(mask)
        return padded

    yield rows(trace.embeddings.mask)
    for done in trace.layers:
        yield pairs(done.attention.probs_masks)
        yield rows(done.attention.mask)
        yield rows(done.feed_forward.mask)


@pytest.mark.parametrize(
    ("lengths", "rates"),
    [([5, 5, 5], (0.1, 0.1)), ([4, 4, 7, 1, 1, 2], (0.5, 0.0)), ([4, 4, 7, 1, 1, 2], (0.0, 0.4))],
    ids=str,
)
def test_dropout(lengths, rates, torch, transformers, tmp_path, figures, monkeypatch):
    """BertModel in training mode, torch.nn.functional.dropout replaced by our masks, attention's included."""
    quiet(threads=1)
    folder, lengths = write_model(tmp_path / "model", seed=3), np.array(lengths)
    model = load_model(folder, np.float64)
    theirs = transformers.AutoModel.from_pretrained(
        folder, attn_implementation="eager", add_pooling_layer=False,
        hidden_dropout_prob=0.25, attention_probs_dropout_prob=0.25,
    ).double().train()  # fmt: skip
    ids = rng(4).integers(1, 90, lengths.sum())
    hidden, attention = rates
    trace = trace_bert(ids, lengths, model.params, model.config, Dropout(rng(5), hidden, attention))
    masks = list(our_masks(trace, lengths))
    asked = iter(masks)

    def dropout(x, p=0.5, training=True, inplace=False):
        assert training and p == 0.25
        mask = next(asked)
        assert mask.shape == x.shape
        return x * mask

    monkeypatch.setattr(torch.nn.functional, "dropout", dropout)
    padded, is_token = pad(ids, lengths)
    output = theirs(input_ids=padded, attention_mask=is_token).last_hidden_state[is_token.bool()]
    assert next(asked, None) is None and len(masks) == 1 + 3 * TINY.num_hidden_layers
    figures("dropout, output", relative(trace.output, output.detach().numpy()), OPERATION_BOUND)
    d_output = rng(6).normal(size=trace.output.shape)
    output.backward(torch.from_numpy(d_output))
    gradients = bert_backward(d_output, trace, ids, lengths, model.params, model.config)
    ours = named_gradients(model, gradients, [None, None])
    found = gradient_differences(ours, {name: p.grad.numpy() for name, p in theirs.named_parameters()})
    worst = max(found, key=found.get)
    figures(f"dropout {rates}, {len(found)} gradients, worst {worst}", found[worst], ENCODER_BOUND)


# ----------------------------------------------------------------------------------------------- the real checkpoint

# 8 pairs as in STSb, short: float64 GELU goes number by number here
PAIRS = [
    ["a man plays the guitar", "a dog runs in snow", "two kids eat cake", "the plane lands", "a cat is asleep",
     "she slices an onion", "stocks fell today", "rain is expected"],
    ["someone plays guitar", "a brown dog is running", "children eat", "an airplane is landing", "the kitten sleeps",
     "a woman cuts a tomato", "shares rose", "it will be sunny"],
    ["a man is cooking", "the dog swims", "two kids sing", "a plane takes off", "a cat drinks milk",
     "she peels a potato", "oil is cheaper", "the game was lost"],
]  # fmt: skip


@pytest.fixture(scope="module")
def real_float64(weights_folder, sentence_transformers):
    """Value and gradients of ours in float64, and of PyTorch's."""
    quiet(threads=1)
    model, theirs = load_model(weights_folder, np.float64), open_theirs(weights_folder, "float64").eval()
    return both_sides(model, theirs, LOSS_CASES["multiple negatives"], PAIRS)


def test_real_float64(real_float64, figures):
    ours, reference, gradients, their_gradients = real_float64
    figures("all-MiniLM-L6-v2, float64, loss", abs(ours / reference - 1), ENCODER_BOUND)
    found = gradient_differences(gradients, their_gradients)
    assert len(found) == 101
    worst = max(found, key=found.get)
    figures(f"all-MiniLM-L6-v2, float64, worst {worst}", found[worst], ENCODER_BOUND)


def test_real_float32(real_float64, weights_folder, figures):
    """Against PyTorch in float64: what is measured is our error alone; PyTorch's own in float32 is printed."""
    exact_value, exact = real_float64[1], real_float64[3]
    model, theirs = load_model(weights_folder, np.float32), open_theirs(weights_folder, "float32").eval()
    ours, _, gradients, their_gradients = both_sides(model, theirs, LOSS_CASES["multiple negatives"], PAIRS)
    found, their_error = gradient_differences(gradients, exact), gradient_differences(their_gradients, exact)
    figures("all-MiniLM-L6-v2, float32, loss", abs(ours / exact_value - 1), 6e-6)  # margin 5
    worst = max(found, key=found.get)
    print(f"\n  PyTorch's own float32 error, worst tensor: {max(their_error.values()):.3g}", end="")
    figures(f"all-MiniLM-L6-v2, float32, worst {worst}", found[worst], 3e-5)  # margin 5
