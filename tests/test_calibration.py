"""Calibration: percentiles against their definition, monotone, there and back, sampled fairly, saved and refused."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import stand_in
from tiny import write_model

from minisbert import SentenceEncoder, hub
from minisbert.analysis import calibration as calibration_module
from minisbert.analysis.calibration import draw_pairs, fit, fit_vectors, load_calibration
from minisbert.similarity import SIMILARITIES

WORDS = ["the", "cat", "sat", "on", "mat", "and", "dog", "ran", "i", "love", "soup", "unable", ",", "in"]


def sentences(count):
    generator = np.random.default_rng(0)
    return list({" ".join(generator.choice(WORDS, 5)): None for _ in range(3 * count)})[:count]


def random_vectors(count, width=8, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width))


def all_scores(vectors, name="cosine"):
    first, second = np.triu_indices(len(vectors), 1)
    return SIMILARITIES[name].pairwise(vectors[first], vectors[second]).astype(np.float64)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return SentenceEncoder(write_model(tmp_path_factory.mktemp("calibration") / "tiny-model"))


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, encoder):
    stand_in(tmp_path, monkeypatch, encoder.folder)


# ----------------------------------------------------------------------------------------------- the percentile


def test_percentiles_are_shares_of_pairs():
    for name, count in (("cosine", 3), ("cosine", 120), ("euclidean", 120)):
        vectors = random_vectors(count)
        scores = all_scores(vectors, name)
        calibration = fit_vectors(vectors, similarity_fn_name=name)
        assert (calibration.pairs, calibration.texts, calibration.similarity_fn_name) == (len(scores), count, name)
        share = 100 * (np.less.outer(scores, scores).sum(axis=0) + 0.5) / len(scores)  # all scores differ
        np.testing.assert_allclose(calibration.percentile(scores), share, rtol=0, atol=0.1)  # a step of the grid
        top = np.argsort(scores)[-1000:]  # the highest are all kept
        np.testing.assert_allclose(calibration.percentile(scores[top]), share[top], rtol=1e-12)


@given(
    st.integers(0, 2**32), st.integers(2, 60), st.integers(1, 3), st.lists(st.floats(-2, 2), min_size=2, max_size=20)
)
def test_percentiles_are_monotone_come_back_and_are_written_to_the_digit_that_is_known(seed, count, width, asked):
    vectors = random_vectors(count, width, seed).round(1) + 0.03  # ties, and no zero vector
    calibration = fit_vectors(vectors)
    percentiles = calibration.percentile(np.sort(asked))
    assert (np.diff(percentiles) >= 0).all()
    edge = 50 / calibration.pairs
    assert (percentiles >= edge * (1 - 1e-9)).all() and (percentiles <= 100 - edge * (1 - 1e-9)).all()
    if calibration.pairs >= 2:
        p = np.linspace(100 - calibration.resolution, calibration.resolution, 50)
        scores = calibration.score_at(p)
        assert (np.diff(scores) >= 0).all()
        # beyond the first and last score kept there is nothing to come back from: many pairs may share them
        inner = p.clip(*(100 * calibration.ranks[[0, -1]] / calibration.pairs))
        # scores may differ in their last digit alone, so a little less and a little more must enclose the percentile
        assert (calibration.percentile(scores - 1e-12) <= inner + 1e-9).all()
        assert (calibration.percentile(scores + 1e-12) >= inner - 1e-9).all()
        for one in p:
            written = calibration.write(one)
            assert 0 <= float(written.lstrip("<>")) <= calibration.resolution + 1e-9 and written not in (">0", "<0")


# ---------------------------------------------------------------------------------------------------- sampling


@given(st.integers(2, 60) | st.sampled_from([10_000, 3_000_000, 90_000_000]), st.integers(0, 99))
def test_no_pair_twice_no_text_with_itself_and_all_pairs_where_there_are_few(texts, seed):
    every = texts * (texts - 1) // 2
    first, second = draw_pairs(texts, 40, seed)
    assert len({*zip(first.tolist(), second.tolist(), strict=True)}) == len(first) == min(40, every)
    assert (first >= 0).all() and (first < second).all() and (second < texts).all()
    number = second * (second - 1) // 2 + first  # the way back, in whole numbers
    assert (np.diff(number) > 0).all() and number[-1] < every


def test_pairs_are_numbered_exactly_around_the_steps_of_the_root(monkeypatch):
    j = np.array([4, 10_001, 89_999_999])
    numbers = np.sort(np.concatenate([j * (j - 1) // 2 + step for step in (-1, 0, 1)]))  # around (0, j)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: SimpleNamespace(choice=lambda *a, **o: numbers))
    first, second = draw_pairs(90_000_000, 9, 0)
    assert second.tolist() == [x for k in j.tolist() for x in (k - 1, k, k)]
    assert first.tolist() == [x for k in j.tolist() for x in (k - 2, 0, 1)]


def test_equal_texts_count_once_and_of_many_some_are_drawn(encoder, monkeypatch):
    texts = sentences(60)
    once, twice = fit(encoder, texts), fit(encoder, iter([*texts, *texts[::-1], texts[0]]))
    assert once.texts == twice.texts == 60 and once.pairs == 1770
    np.testing.assert_array_equal(once.scores, twice.scores)
    assert once.scores[-1] < 1 - 1e-6  # no text met itself
    monkeypatch.setattr(calibration_module, "MOST_TEXTS", 20)
    some, again, other = (fit(encoder, texts, seed=seed) for seed in (3, 3, 4))
    assert (some.texts, some.pairs, some.seed) == (20, 190, 3)
    near = np.abs(np.subtract.outer(some.scores, all_scores(encoder.encode(texts)))).min(axis=1)
    assert near.max() < 1e-6  # pairs of these texts all of them
    assert some.scores.tolist() == again.scores.tolist() != other.scores.tolist()


# ------------------------------------------------------------------------------------------------ the file


def test_another_model_another_limit_another_similarity(encoder, tmp_path):
    calibration = fit(encoder, sentences(10))
    assert calibration.fingerprint == hub.fingerprint(encoder.folder) and calibration.max_seq_length == 16
    calibration.check(encoder, "cosine")
    other = SentenceEncoder(write_model(tmp_path / "other", seed=1))
    for named, wrong, similarity in (
        ("not for dot", encoder, "dot"),
        ("max_seq_length", SentenceEncoder(encoder.folder, max_seq_length=8), "cosine"),
        ("'tiny-model'.* 'other'", other, "cosine"),
    ):
        with pytest.raises(ValueError, match=named):
            calibration.check(wrong, similarity)


def test_damaged_files_are_named():
    said = fit_vectors(random_vectors(10)).to_json()
    for old, new, named in (  # what is replaced in the file, by what, and what the error names
        ('"format"', '"else"', "expected minisbert calibration"),
        ("{", "", "JSON"),
        ('"version": 1', '"version": 2', "version"),
        ('"pairs": 45', '"pairs": 44', "ranks"),
        ('"seed": 0, ', "", "seed"),
        ('"ranks": [0.5', '"ranks": ["a"', "float"),
        ('"scores": [', '"scores": [9, ', "scores"),
    ):
        assert old in said
        Path("c.json").write_text(said.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(ValueError, match=rf"^c\.json: .*{named}"):
            load_calibration(Path("c.json"))


# ------------------------------------------------------------------------------------------- the command line


def test_what_03_means_in_stsb(weights_folder, data_folder):
    """README of analysis/: among the sentences of STSb 0.3 is above 98.5 % of random pairs; here of every twelfth."""
    lines = (data_folder / "stsb" / "stsb_test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    texts = list(dict.fromkeys(text for line in lines for text in line.split("\t")[5:7]))[::12]
    whole = fit_vectors(SentenceEncoder(weights_folder).encode(texts))
    assert 98.0 < whole.percentile(0.3) < 99.0
