"""What the comparisons with PyTorch share: one way to measure, and PyTorch's tensors under this package's names."""

import contextlib
import logging

import numpy as np

from minisbert.proof.ledger import trace_tensors
from minisbert.proof.reference import bert_tensors

# other people's warnings, which pyproject.toml would make errors; ours stay errors
THIRD_PARTY_WARNINGS = (
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::UserWarning:torch",
    "ignore::UserWarning:transformers",
    "ignore::UserWarning:sentence_transformers",
)


def relative(ours, reference) -> float:
    """Largest |difference|, in units of the largest |reference|."""
    ours, reference = np.asarray(ours), np.asarray(reference)
    assert ours.shape == reference.shape, f"shapes differ: {ours.shape} here, {reference.shape} in PyTorch"
    if not reference.size:
        return 0.0
    return float(np.abs(ours.astype(np.float64) - reference).max() / max(np.abs(reference).max(), 1e-300))


def absolute(ours, reference) -> float:
    """Largest |difference|."""
    ours, reference = np.asarray(ours), np.asarray(reference)
    assert ours.shape == reference.shape, f"shapes differ: {ours.shape} here, {reference.shape} in PyTorch"
    return float(np.abs(ours.astype(np.float64) - reference).max(initial=0.0))


class Figures:
    """Holds each measured maximum against its bound; ``-s`` and the JUnit report show it."""

    def __init__(self, record_property):
        self.record_property = record_property

    def __call__(self, what: str, measured: float, bound: float) -> None:
        self.record_property(what, f"{measured:.3g} (bound {bound:.3g})")
        print(f"\n  {what}: {measured:.3g} (bound {bound:.3g})", end="")
        # written so that NaN fails
        assert measured <= bound, f"{what}: {measured:.3g} is above the bound {bound:.3g}"


def quiet(threads: int) -> None:
    """Keep progress bars and load reports of transformers out of the test output, and PyTorch to a few threads.

    Tiny models want one: two threads that wait for each other on a busy machine take ten times as long.
    """
    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(threads)
    transformers_logging.set_verbosity_error()
    with contextlib.suppress(AttributeError):
        transformers_logging.disable_progress_bar()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def pad(token_ids, lengths):
    """Texts laid end to end -> PyTorch's padded ids ``(B, T)`` and mask."""
    import torch

    ids = torch.zeros(len(lengths), int(max(lengths)), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    start = 0
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.from_numpy(token_ids[start : start + length])
        mask[row, :length] = 1
        start += length
    return ids, mask


def strip(padded, mask):
    """``(B, T, D)`` -> ``(N, D)``: drop the padded rows."""
    return padded[mask.bool()].detach().numpy()


def trace_differences(encoder, model, texts, measure) -> dict[str, float]:
    """Compare every tensor up to the last layer, by name, in the order of computation.

    The model must have been loaded with ``attn_implementation="eager"``, so that it gives its probabilities.
    """
    trace = encoder.trace(texts, overflow="truncate")
    ids, mask = pad(trace.token_ids, trace.lengths)
    reference, _ = bert_tensors(model.eval(), {"input_ids": ids, "attention_mask": mask})
    ours = {name: value for name, value in trace_tensors(trace).items() if name in reference}
    assert list(ours) == list(reference), f"tensors without a partner: {sorted(ours.keys() ^ reference.keys())}"
    return {name: measure(value, reference[name]) for name, value in ours.items()}


def first_parting(differences: dict[str, float], bound: float) -> str | None:
    """Name the first tensor that leaves its bound; None where none does. NaN leaves every bound."""
    return next((name for name, measured in differences.items() if not measured <= bound), None)


def torch_parameters(model):
    """Parameters of a ``SentenceTransformer`` by the names of ``named_parameters``, without a pooler."""
    named = {
        name: parameter
        for name, parameter in model[0].auto_model.named_parameters()
        if not name.startswith(("pooler.", "cls."))
    }
    for i, module in enumerate(list(model)[1:]):
        named |= {f"modules.{i}.{name}": parameter for name, parameter in module.named_parameters()}
    return named


def torch_gradients(model):
    """Their gradients after ``loss.backward()``; zeros where nothing came back."""
    return {
        name: (parameter.grad if parameter.grad is not None else parameter.detach() * 0).numpy()
        for name, parameter in torch_parameters(model).items()
    }


def gradient_differences(ours, reference) -> dict[str, float]:
    """Compare gradients by name: largest |difference|, in units of the tensor's largest |reference|.

    Some gradients are zero up to rounding: that of a key's bias, which adds one number to all scores of a row, and
    where a loss looks at differences of vectors alone, that of the last bias. So the unit is 1e-3 of the largest of
    all tensors' numbers at least.
    """
    assert ours.keys() == reference.keys(), f"gradients without a partner: {sorted(ours.keys() ^ reference.keys())}"
    floor = 1e-3 * max(np.abs(gradient).max() for gradient in reference.values())
    found = {}
    for name, gradient in ours.items():
        dense = gradient.dense() if hasattr(gradient, "dense") else gradient
        assert dense.shape == reference[name].shape, name
        difference = np.abs(dense.astype(np.float64) - reference[name]).max()
        found[name] = float(difference / max(np.abs(reference[name]).max(), floor))
    return found
