"""Tiny random checkpoints against recorded PyTorch tensors: the core of the proof, with NumPy alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
from reference.make_reference import CASES, HERE, TEXTS, torch_tensors
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.model.config import BertConfig
from minisbert.model.params import build_params
from minisbert.model.pooling import Dense
from minisbert.proof.ledger import Reference, compare, first_disagreement, format_ledger, trace_tensors

# max |difference| / max(1, max |reference|), measured over all cases and tensors: 1.3e-6 and 3.6e-15; margins 8 and 30
BOUNDS = {"float32": 1e-5, "float64": 1e-13}


def read_case(name):
    """Config, weights and PyTorch's tensors of one recorded case."""
    with np.load(HERE / f"{name}.npz") as stored:
        about = json.loads(str(stored["about"]))
        weights = {key[8:]: stored[key] for key in stored.files if key.startswith("weights/")}
        tensors = {key[6:]: stored[key] for key in stored.files if key.startswith("torch/")}
    return about, weights, tensors


def folder_of(name, path):
    """A model folder with the recorded weights."""
    about, weights, _ = read_case(name)
    config = BertConfig(**about["config"])
    modules = tuple(
        replace(module, weight=weights[f"modules.{i}.weight"], bias=weights.get(f"modules.{i}.bias"))
        if isinstance(module, Dense)
        else module
        for i, module in enumerate(CASES[name][1])
    )
    params = build_params(config, lambda tensor, shape: weights[tensor].reshape(shape))
    return write_model(path / name, config=config, modules=modules, params=params)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_every_tensor_equals_the_recorded_one_and_encode_the_vectors_in_any_batch(name, dtype, tmp_path):
    _, _, tensors = read_case(name)
    encoder = SentenceEncoder(folder_of(name, tmp_path), dtype=dtype, max_seq_length=9)
    trace = encoder.trace(TEXTS, overflow="truncate")
    rows = compare(trace_tensors(trace), Reference(TEXTS, tensors, 1, "recorded"), dtype)
    assert [row.name for row in rows] == list(tensors)
    for row in rows:
        scale = max(1.0, float(np.abs(tensors[row.name]).max()))
        assert row.difference <= BOUNDS[dtype] * scale, format_ledger(rows)
    for batch_size in (None, 1, 2):
        vectors = encoder.encode(TEXTS, batch_size=batch_size, overflow="truncate")
        np.testing.assert_allclose(vectors, tensors["sentence_embedding"], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_references_can_be_remade(name, tmp_path, sentence_transformers):
    _, _, tensors = read_case(name)
    remade = torch_tensors(folder_of(name, tmp_path))
    assert list(remade) == list(tensors)
    rows = compare(remade, Reference(TEXTS, tensors, 1, "recorded"), "float64")
    assert first_disagreement(rows) is None, format_ledger(rows)
