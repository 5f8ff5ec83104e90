"""Explanations: they add up, words and pieces agree, and models without such a sum are refused."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import refused, run, stand_in
from tiny import TINY, tiny_dense, write_model

from minisbert import SentenceEncoder
from minisbert.analysis.explain import explain
from minisbert.model.pooling import Normalize, Pooling
from minisbert.model.tokens import TruncationWarning

A, B = "the soup, unable", "i love the unlovely cat"
BOUND = {"float32": 1e-6, "float64": 1e-12}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    model = write_model(tmp_path_factory.mktemp("explain") / "tiny-model")
    return {dtype: SentenceEncoder(model, dtype=dtype) for dtype in BOUND}


@pytest.fixture(scope="module")
def encoder(encoders):
    return encoders["float64"]


def adds_up(found, encoder, a, b, bound):
    one, other = encoder.encode([a, b]).astype(np.float64)
    cosine = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert abs(found.contributions.sum() - found.cosine) <= bound and abs(found.cosine - cosine) <= bound


TEXT = st.lists(st.sampled_from(["the", "cat", ",", "unable", "好", "\u0301", "xx"]), max_size=5).map(" ".join)


@settings(max_examples=20)
@given(TEXT, TEXT)
def test_contributions_add_up_to_the_cosine_and_are_the_same_the_other_way_round(encoders, a, b):
    for dtype, encoder in encoders.items():
        found = explain(encoder, a, b)
        adds_up(found, encoder, a, b, BOUND[dtype])
        assert found.contributions.dtype == np.float64
        ids = [encoder.tokenize(text).token_ids for text in (a, b)]
        assert [[*found.pieces_a], [*found.pieces_b]] == [encoder.model.tokenizer.pieces(i) for i in ids]
        back = explain(encoder, b, a).contributions
        np.testing.assert_allclose(back, found.contributions.T, atol=BOUND[dtype])


def test_each_contribution_is_its_dot_product(encoder):
    t, u = encoder.encode([A, B], output_value="token_embeddings")
    found = explain(encoder, A, B)
    length = np.linalg.norm(t.mean(axis=0)) * np.linalg.norm(u.mean(axis=0))
    np.testing.assert_allclose(found.contributions, t @ u.T / (len(t) * len(u) * length), rtol=1e-12, atol=1e-15)
    sizes = [abs(found.contributions[place]) for place in found.strongest(10**6)]
    assert len(sizes) == found.contributions.size and sizes == sorted(sizes, reverse=True)


def test_words_are_the_sums_of_their_pieces(encoder):
    pieces, words = explain(encoder, A, B), explain(encoder, A, B, by_word=True)
    assert pieces.pieces_a == ("[CLS]", "the", "soup", ",", "un", "##able", "[SEP]")
    assert words.pieces_a == ("[CLS]", "the", "soup", ",", "unable", "[SEP]")
    begins = [i for i, piece in enumerate(pieces.pieces_b) if not piece.startswith("##")]
    summed = np.add.reduceat(np.add.reduceat(pieces.contributions, [0, 1, 2, 3, 4, 6]), begins, axis=1)
    np.testing.assert_allclose(words.contributions, summed, rtol=1e-12)
    assert words.by_word().pieces_a == words.pieces_a and words.cosine == pieces.cosine


def test_models_that_can_be_explained(tmp_path):
    query = {"prompts": {"query": "the cat ", "none": ""}, "default_prompt_name": "query"}
    for number, (modules, set_up) in enumerate([
        ((Pooling(), Normalize()), {"truncate_dim": 5}),
        ((Pooling(("mean_sqrt_len_tokens",)), Normalize(), Normalize()), {"similarity_fn_name": "dot"}),
        ((Pooling(),), query),
        ((Pooling(include_prompt=False),), {"prompts": {"query": "the cat "}}),
    ]):  # fmt: skip
        folder = write_model(tmp_path / f"model{number}", modules=modules, sentence_settings=set_up)
        encoder = SentenceEncoder(folder, dtype="float64")
        found = explain(encoder, A, B)
        adds_up(found, encoder, A, B, 1e-12)
        assert found.pieces_a[1:3] == (("the", "cat") if set_up is query else ("the", "soup"))


def test_models_that_cannot_are_refused_with_the_reason(tmp_path):
    prompt = {"prompts": {"q": "the "}, "default_prompt_name": "q"}
    for named, modules, set_up in (
        (r"max \+ mean", (Pooling(("mean", "max")),), {}),
        ("Dense", (Pooling(), tiny_dense(12, 8)), {}),
        ("prompt 'q'", (Pooling(include_prompt=False),), prompt),
    ):
        folder = write_model(tmp_path / named[:3], modules=modules, sentence_settings=set_up)
        with pytest.raises(ValueError, match=named):
            explain(SentenceEncoder(folder), A, B)


def test_what_is_cut_is_reported_as_encode_does(encoder, tmp_path, monkeypatch):
    long = "the cat " * 40
    with pytest.warns(TruncationWarning, match=r"text 1 lost 66 of 82") as warned:
        found = explain(encoder, A, long)
    assert len(warned) == 1 and len(found.pieces_b) == TINY.max_position_embeddings == 16
    assert abs(found.contributions.sum() - found.cosine) <= 1e-12
    with pytest.raises(ValueError, match="lost 66 tokens"):
        explain(encoder, A, long, overflow="error")
    stand_in(tmp_path, monkeypatch, encoder.folder)
    assert run("explain", A, long).stderr.startswith("Warning: 1 of 2 texts is longer")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # a picture needs it, before any work
    assert "matplotlib" in refused("explain", A, B, "-o", "heat.png", "--model", "./no-such-folder")
