"""What is lost beyond the limit: every system is what it says it is, on words that can be counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_retrieval import CORPUS, QRELS, QUERIES, run, write_set
from tiny import COMPANY, TEXTS, write_model

from minisbert import SentenceEncoder
from minisbert.cli import evaluate_lengths as verbs
from minisbert.evaluation import lengths
from minisbert.evaluation.lengths import LENGTH_MEASURES, LengthStudy, compare_lengths, summarise
from minisbert.evaluation.measures import bootstrap_mean, paired_difference
from minisbert.evaluation.retrieval import Cut, RetrievalSet, evaluate_retrieval, read_retrieval, search
from minisbert.long_texts import COMPOSITIONS

LONG = "the cat sat on the mat and the dog ran on the mat, i love the soup"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny random model with a limit of 16 tokens."""
    return SentenceEncoder(write_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def tiny_set(tmp_path):
    return read_retrieval(write_set(tmp_path / "tiny-set"))


@pytest.fixture
def seen(monkeypatch):
    """What each system searches in: its embeddings and where documents begin in them."""
    calls = []

    def spy(encoder, queries, embeddings, ids, *, first_chunks=None):
        calls.append((embeddings, first_chunks))
        return search(encoder, queries, embeddings, ids, first_chunks=first_chunks)

    monkeypatch.setattr(lengths, "search", spy)
    return calls


def test_systems_stand_in_order_and_the_encoder_is_left_as_it_was(encoder, tiny_set):
    study = compare_lengths(encoder, tiny_set, cuts=[8, 4], chunk_tokens=[16, 8])
    kinds = [*COMPOSITIONS, "best chunk", "late"]
    chunked = [f"chunks of {size}: {kind}" for size in (8, 16) for kind in kinds]
    assert list(study.systems) == ["cut at 4", "cut at 8", "cut at 16", *chunked]
    assert study.reference == "cut at 16" and study.max_seq_length == encoder.max_seq_length == 16
    for measures in study.systems.values():
        assert tuple(measures) == LENGTH_MEASURES and all(values.shape == (2,) for values in measures.values())
    assert list(compare_lengths(encoder, tiny_set, cuts=[]).systems)[:2] == ["cut at 16", "chunks of 16: weighted_mean"]


def test_each_system_searches_in_the_vectors_that_the_encoder_gives(encoder, tiny_set, seen, monkeypatch):
    monkeypatch.setattr(lengths, "_BLOCK_DOCUMENTS", 3)
    study = compare_lengths(encoder, tiny_set, cuts=[6], chunk_tokens=[9])
    texts = list(tiny_set.documents)
    expected = [SentenceEncoder(encoder.folder, max_seq_length=6).encode(texts, overflow="truncate")]
    expected.append(encoder.encode(texts, overflow="truncate"))
    for name in (*COMPOSITIONS, "late"):
        expected.append(encoder.encode(texts, overflow="chunk", chunk_tokens=9, composition=name))
    vectors = [embeddings for embeddings, first in seen if first is None]
    assert len(vectors) == len(expected)
    for ours, theirs in zip(vectors, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=COMPANY)
    # no two of them are the same by accident
    for i, one in enumerate(vectors):
        for j in range(i):
            assert not np.allclose(one, vectors[j], atol=1e-3) or {i, j} == {2, 3}, (i, j)
    ((chunks, first),) = [call for call in seen if call[1] is not None]
    found = encoder.encode_chunks(texts, chunk_tokens=9)
    np.testing.assert_allclose(chunks, np.concatenate([one.embeddings for one in found]), atol=COMPANY)
    counts = [len(one.chunks) for one in found]
    assert max(counts) > 1 and study.chunks == {9: sum(counts)}
    assert np.diff([*first, len(chunks)]).tolist() == counts and first[0] == 0


def test_the_reference_is_the_plain_evaluation(encoder, tiny_set):
    study = compare_lengths(encoder, tiny_set, cuts=[4], chunk_tokens=[])
    plain = evaluate_retrieval(encoder, tiny_set)
    for name in LENGTH_MEASURES:
        np.testing.assert_array_equal(study.systems["cut at 16"][name], plain.measures[name])
    assert study.documents_cut == plain.documents_cut


def test_where_nothing_is_long_all_ways_are_one(encoder, seen):
    texts = TEXTS[:4]
    ids = tuple(f"d{i}" for i in range(4))
    short = RetrievalSet("short", ids, tuple(texts), ("q",), ("the cat",), {"q": {"d0": 1}})
    study = compare_lengths(encoder, short, cuts=[12], chunk_tokens=[12])
    for embeddings, _ in seen:
        np.testing.assert_allclose(embeddings, seen[0][0], atol=COMPANY)
    assert not study.beyond_limit.any() and study.documents_cut.texts_cut == 0
    with pytest.raises(ValueError, match="at least one query"):
        summarise(study, "nDCG@10", beyond_limit_only=True)


def test_only_relevant_documents_put_a_query_beyond_the_limit(encoder):
    parts = {"document_ids": ("short", "long"), "documents": ("soup", LONG)}
    judged = {"found": {"long": 1}, "not": {"short": 1}, "judged-0": {"short": 1, "long": 0}}
    made = RetrievalSet("made", **parts, query_ids=tuple(judged), queries=("a", "b", "c"), qrels=judged)
    study = compare_lengths(encoder, made, cuts=[], chunk_tokens=[])
    assert study.beyond_limit.tolist() == [True, False, False]


def test_words_behind_the_limit_are_found_by_chunks(weights_folder):
    filler = "The committee met on Monday and talked about the budget of the town for a long time. "
    answer = "Bread is baked from flour, water and yeast."
    documents = (filler * 20 + answer, filler * 20, "Soup is boiled slowly from bones, roots and salt.")
    made = RetrievalSet("made", ("d1", "d2", "d3"), documents, ("q",), ("How is bread baked?",), {"q": {"d1": 1}})
    encoder = SentenceEncoder(weights_folder)
    study = compare_lengths(encoder, made, cuts=[64], chunk_tokens=[64])
    at_10 = {name: float(measures["nDCG@10"][0]) for name, measures in study.systems.items()}
    assert at_10["cut at 64"] < 1 and at_10["cut at 256"] < 1
    assert at_10["chunks of 64: best chunk"] == 1
    assert study.beyond_limit.tolist() == [True]


# ------------------------------------------------------------------------------------------------ summaries


def a_study(queries=40):
    rng = np.random.default_rng(0)
    ids = tuple(map(str, range(queries)))
    made = RetrievalSet("made", ("d",), ("a",), ids, ids, {query: {"d": 1} for query in ids})
    base = rng.uniform(0, 1, queries)
    beyond = np.arange(queries) < queries // 4
    systems = {
        "cut at 8": {name: base for name in LENGTH_MEASURES},
        "better": {name: base + 0.1 * beyond for name in LENGTH_MEASURES},
        "same": {name: base + 0.0 for name in LENGTH_MEASURES},
    }
    return LengthStudy(made, 8, Cut(1, 1, 9, 3), beyond, "cut at 8", systems, {4: 3})


def test_a_summary_pairs_queries_and_can_look_where_it_matters():
    study = a_study()
    everything = {line.system: line for line in summarise(study, "Recall@10")}
    values = study.systems["better"]["Recall@10"]
    assert everything["better"].estimate == bootstrap_mean(values)
    assert everything["better"].difference == paired_difference(values, study.systems["cut at 8"]["Recall@10"])
    assert everything["better"].difference.mean == pytest.approx(0.025)
    assert everything["cut at 8"].difference is None and everything["same"].difference.excludes_zero is False
    beyond = {line.system: line for line in summarise(study, "Recall@10", beyond_limit_only=True)}
    assert beyond["better"].difference == pytest.approx((0.1, 0.1, 0.1))
    assert beyond["better"].estimate.mean == pytest.approx(values[:10].mean())


def test_impossible_limits_and_measures_are_refused_before_work(encoder, tiny_set, monkeypatch):
    monkeypatch.setattr(SentenceEncoder, "encode", lambda *_, **__: pytest.fail("work was done"))
    for bad in (2, 17):
        with pytest.raises(ValueError, match=r"from 3 .* to 16"):
            compare_lengths(encoder, tiny_set, cuts=[bad])
        with pytest.raises(ValueError, match="chunk_tokens"):
            compare_lengths(encoder, tiny_set, cuts=[], chunk_tokens=[bad])
    with pytest.raises(ValueError, match="got 'MRR@10'"):
        summarise(a_study(), "MRR@10")


# --------------------------------------------------------------------------------------------- command line


@pytest.fixture
def at_home(tmp_path, monkeypatch, encoder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("MINISBERT_MODEL", str(encoder.folder))
    write_set(tmp_path / "cranfield", CORPUS, QUERIES, QRELS, "qrels.tsv")
    return write_set(tmp_path / "scifact")


def test_the_tables(at_home, encoder):
    shown = run(verbs.lengths, "scifact", "--cut", 8, "--chunk-tokens", 12).stdout
    assert "queries with a relevant document beyond the limit: 1 of 2" in shown
    assert "5 chunks of at most 12 tokens" in shown
    study = compare_lengths(encoder, read_retrieval("scifact"), cuts=[8], chunk_tokens=[12])
    tables = shown.split("\n\n")[1:]
    assert len(tables) == 2 * len(LENGTH_MEASURES)
    title, head, *rows = tables[0].splitlines()
    assert title == "nDCG@10, all queries (2)" and "cut at 16" in head
    assert [row.split("  ")[0] for row in rows] == list(study.systems)
    for row, line in zip(rows, summarise(study, "nDCG@10"), strict=True):
        assert f" {100 * line.estimate.mean:.2f} " in row
        if line.difference is not None:
            assert f" {100 * line.difference.mean:+.2f} " in row
            assert row.endswith("*") == line.difference.excludes_zero
    assert tables[3].startswith("nDCG@10, queries with a relevant document beyond the limit (1)")


def test_several_folders_as_json(at_home):
    printed = json.loads(run(verbs.lengths, "scifact", "cranfield", "--cut", 8, "-o", "l.json", "--json").stdout)
    assert printed == json.loads(Path("l.json").read_text())
    assert [one["set"] for one in printed] == ["scifact", "cranfield"]
    one = printed[0]
    assert one["reference"] == "cut at 16" and one["all_queries"]["nDCG@10"]["cut at 16"]["difference"] is None
    better = one["queries_beyond_limit"]["Recall@10"]["chunks of 16: late"]
    assert set(better) == {"mean", "low", "high", "difference"}
    assert one["per_query"]["q3"]["beyond_limit"] is True
    mean = np.mean([query["cut at 8"]["nDCG@10"] for query in one["per_query"].values()])
    assert one["all_queries"]["nDCG@10"]["cut at 8"]["mean"] == pytest.approx(mean)
