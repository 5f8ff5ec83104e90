"""STS: correlations beside SciPy, sets and bad rows, every similarity, the published figures, layer by layer."""

import gzip
import math

import numpy as np
import pytest
from conftest import _optional_import
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny import tiny_dense, tiny_tokenizer, write_model

from minisbert import SentenceEncoder
from minisbert.evaluation.published import BENCHMARKS, find_sets
from minisbert.evaluation.sts import (
    SIMILARITIES,
    StsPairs,
    evaluate_sts,
    layer_scores,
    pearson,
    rank,
    read_sts,
    spearman,
)
from minisbert.model.pooling import POOLINGS, Normalize, Pooling

PAIRS = [(4.5, "a cat", "one cat"), (0.0, "a cat", "tea"), (2.0, "soup", "a cat")]


def write(folder, name, content):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


def tsv(rows, head=("score", "sentence1", "sentence2")):
    return "".join("\t".join(map(str, row)) + "\n" for row in (head, *rows))


def content_of(pairs):
    return list(zip(pairs.scores.tolist(), pairs.sentences1, pairs.sentences2, strict=True))


# ------------------------------------------------------------------------------------------------- correlations


def test_correlations_by_hand():
    # centred: (-1.5, -.5, .5, 1.5) and (-1.5, .5, -.5, 1.5); 4 / 5
    for factor in (1.0, 1e-300, 1e300):
        assert pearson([factor, 2 * factor, 3 * factor, 4 * factor], [1, 3, 2, 4]) == pytest.approx(0.8, abs=1e-14)
    # ranks (1.5, 1.5, 3) and (1, 2, 3): centred (-.5, -.5, 1) and (-1, 0, 1); 1.5 / sqrt(1.5 * 2)
    assert spearman([-0.0, 0.0, 8], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3), abs=1e-15)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30))
def test_heavy_ties_as_scipy(pairs):
    stats = _optional_import("scipy.stats")
    x, y = np.array(pairs, dtype=np.float64).T
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    np.testing.assert_array_equal(rank(x), stats.rankdata(x))
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-12)


# ------------------------------------------------------------------------------------------------------ reading


def test_sets_are_read(tmp_path):
    pairs = read_sts(write(tmp_path, "t.csv", tsv(PAIRS).replace("\t", ",")), scale=(0, 5))
    assert content_of(pairs) == PAIRS and pairs.name == "t.csv" and pairs.scores.dtype == np.float64
    turned = [(b, a, "x", score) for score, a, b in PAIRS]
    file = write(tmp_path, "t.tsv.gz", gzip.compress(tsv(turned, ("second", "first", "score", "gold")).encode()))
    assert content_of(read_sts([file, file], columns=["gold", "first", "second"])) == PAIRS * 2
    for content, words in (
        (tsv([]), "no rows"),
        (tsv([*PAIRS, ("nan", "a", "b")]), "line 5: the score in column 'score'"),
        (tsv([*PAIRS, ("5.1", "a", "b")]), "line 5: the score 5.1 is outside the scale"),
        (tsv(PAIRS, ("gold", "sentence1", "sentence2")), "no column for the score"),
        (tsv([("3", "a", "b"), ("3", "c", "d")]), "no correlation exists"),
    ):
        with pytest.raises(ValueError, match=rf"t\.tsv.*{words}"):
            read_sts(write(tmp_path, "t.tsv", content), scale=(0, 5))


# -------------------------------------------------------------------------------------------------- evaluating


class Table:
    """An encoder that looks vectors up, and keeps what it was asked."""

    def __init__(self, vectors):
        self.vectors, self.asked = vectors, []

    def encode(self, sentences, **options):
        self.asked += sentences
        return np.array([self.vectors[sentence] for sentence in sentences], np.float32)


def test_every_similarity_by_hand():
    # against (1, 0): b has the larger cosine, c the larger dot product, d is nearest
    table = Table({"a": (1, 0), "b": (9, 1), "c": (20, 30), "d": (0.5, 0.5)})
    pairs = StsPairs("t", ["a", "a", "a"], ["b", "c", "d"], np.array([5.0, 1.0, 3.0]))
    found = evaluate_sts(table, pairs)
    # cosines .994, .555, .707: the order of the scores, so 100. dot 9, 20, .5: ranks 2, 3, 1 against 3, 1, 2: -50.
    # Euclidean -8.1, -35.5, -.7: ranks 2, 1, 3 against 3, 1, 2: 50
    assert sorted(table.asked) == ["a", "b", "c", "d"]  # each once
    expected = {"cosine": 100, "dot": -50, "euclidean": 50, "manhattan": 50, "angular": 100}
    assert {name: round(value, 9) for name, value in found.spearman.items()} == expected
    cosines = [9 / math.sqrt(82), 20 / math.sqrt(1300), math.sqrt(0.5)]
    assert found.pearson["cosine"] == pytest.approx(100 * np.corrcoef(cosines, pairs.scores)[0, 1], abs=1e-9)


def test_equal_sentences_are_ties():
    rng = np.random.default_rng(0)
    texts = [str(i) for i in range(40)]
    table = Table({text: rng.normal(size=7) for text in texts})
    pairs = StsPairs("t", texts, [*texts[:39], "0"], np.arange(40.0)[::-1])
    found = evaluate_sts(table, pairs)
    # 39 pairs share rank 21, and the one that is different has rank 1
    ranks = np.r_[np.full(39, 21.0), 1.0] - 20.5
    gold = np.arange(40.0)[::-1] - 19.5
    expected = 100 * ranks @ gold / math.sqrt(ranks @ ranks * (gold @ gold))
    assert {**found.spearman, "dot": expected} == pytest.approx(dict.fromkeys(SIMILARITIES, expected), abs=1e-9)


def test_vectors_that_say_nothing_are_an_error():
    pairs = StsPairs("t", ["a", "b"], ["b", "c"], np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"t: the similarities: .*x is constant"):
        evaluate_sts(Table(dict.fromkeys("abc", (1, 0))), pairs)


# --------------------------------------------------------------------------------------------- published figures


def test_known_files_are_recognised(tmp_path):
    for known in BENCHMARKS:
        for file in known.files:
            write(tmp_path / known.name.split()[0], file, "")
    [(sick, files)] = find_sets(tmp_path / "SICK-R")
    assert [file.name for file in files] == ["sick_train.tsv", "sick_trial.tsv", "sick_test.tsv"]
    assert sick.scale == (1, 5)
    assert find_sets(tmp_path / "SICK-R" / "sick_test.tsv")[0][0].published is None  # a part is another set
    assert find_sets("x/STS12_test.tsv.gz")[0][0].name == "STS12"
    assert [known.name for known, _ in find_sets(tmp_path)] == [
        *("STS12", "STS13", "STS14", "STS15", "STS16", "STSb", "SICK-R", "BIOSSES")
    ]
    other = write(tmp_path / "none", "other.tsv", "")
    assert find_sets(other)[0][0] is None
    with pytest.raises(ValueError, match="without any known test set"):
        find_sets(other.parent)


def test_the_published_figure_of_stsb_comes_out(data_folder, weights_folder):
    [(known, files)] = find_sets(data_folder / "stsb")
    pairs = read_sts(files, name=known.name, scale=known.scale)
    assert len(pairs.scores) == known.pairs
    result = evaluate_sts(SentenceEncoder(weights_folder), pairs)
    assert result.spearman["cosine"] == pytest.approx(known.published, abs=0.05)


# ------------------------------------------------------------------------------------------------------- layers


@pytest.fixture(scope="module")
def tiny_pairs():
    texts = ["the cat sat", "i love soup", "the dog ran on the mat", "the cat", "soup", "the mat", "i love the dog"]
    return StsPairs("tiny", texts, texts[2:] + texts[:2], np.arange(7.0))


def test_every_cell_is_what_the_traced_hidden_state_gives(tmp_path, tiny_pairs):
    folder = write_model(tmp_path / "tiny", modules=(Pooling(), Normalize()), tokenizer=tiny_tokenizer(truncation=7))
    encoder = SentenceEncoder(folder, dtype="float64")
    found = layer_scores(encoder, tiny_pairs)
    assert found.poolings == tuple(POOLINGS) and found.own == (2, list(POOLINGS).index("mean"))
    assert math.isnan(found.values[0, 0]) and np.isfinite(found.values.ravel()[1:]).all()

    class Traced:
        def __init__(self, place, pooling):
            self.place, self.pooling = place, pooling

        def encode(self, texts):
            def vector(text):
                trace = encoder.trace(text)
                states = [trace.bert.embeddings, *trace.bert.layers]
                return POOLINGS[self.pooling][0](states[self.place].output, np.array([len(trace.pieces)]))[0]

            return np.array([vector(text) for text in texts])

    for place, row in enumerate(found.values):
        for pooling, value in zip(POOLINGS, row, strict=True):
            if not (place == 0 and pooling == "cls"):
                expected = evaluate_sts(Traced(place, pooling), tiny_pairs).spearman["cosine"]
                assert value == pytest.approx(expected, abs=1e-9), (place, pooling)


def test_where_a_model_has_its_own_place_and_where_there_is_nothing_to_find(tmp_path, tiny_pairs):
    encoder = SentenceEncoder(write_model(tmp_path / "a", modules=(Pooling(("mean", "max")),)))
    assert layer_scores(encoder, tiny_pairs).own is None
    with_dense = write_model(tmp_path / "b", modules=(Pooling(("cls",)), tiny_dense(12, 8)))
    assert layer_scores(SentenceEncoder(with_dense), tiny_pairs, num_threads=1).own == (2, 0)
    with pytest.raises(ValueError, match=r"same: .* in any layer"):
        layer_scores(encoder, StsPairs("same", ["soup", "the cat"], ["soup", "the cat"], np.array([1.0, 2.0])))
