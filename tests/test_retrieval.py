"""Retrieval: measures against a slow reference and other libraries, sets as they are read, `evaluate retrieval`."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import _optional_import
from running import run as run_program
from running import stand_in
from tiny import write_model

from minisbert import SentenceEncoder, hub
from minisbert.evaluation import retrieval
from minisbert.evaluation.retrieval import (
    Cut,
    average_precision,
    evaluate_retrieval,
    ndcg,
    read_retrieval,
    recall,
    reciprocal_rank,
)
from minisbert.tables import InputError

CORPUS = [
    {"_id": "d1", "title": "the soup", "text": "i love soup"},
    {"_id": "d2", "title": "", "text": "the cat sat on the mat and the dog ran on the mat, i love the soup"},
    {"_id": "d3", "title": "the dog", "text": "the dog ran"},
    {"_id": "d4", "title": "", "text": ""},
]
QUERIES = [
    {"_id": "q1", "text": "the dog ran"},
    {"_id": "q2", "text": "not judged"},
    {"_id": "q3", "text": "soup", "metadata": {}},
]
QRELS = "query-id\tcorpus-id\tscore\nq3\td1\t2\nq3\td2\t1\nq1\td3\t1\nq1\td4\t0\n"


def write_set(folder, corpus=CORPUS, queries=QUERIES, qrels=QRELS, name="qrels/test.tsv"):
    """Write a folder in BEIR's layout; texts are written as they are, objects as lines of JSON."""
    folder = Path(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for file, content in (("corpus.jsonl", corpus), ("queries.jsonl", queries), (name, qrels)):
        text = content if isinstance(content, str) else "".join(json.dumps(one) + "\n" for one in content)
        data = text.encode()
        (folder / file).write_bytes(gzip.compress(data) if file.endswith(".gz") else data)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny random model with a limit of 16 tokens."""
    return SentenceEncoder(write_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def tiny_set(tmp_path):
    return read_retrieval(write_set(tmp_path / "tiny-set"))


# ------------------------------------------------------------------------------------------------- measures


def slow(name, ranked, judged, k):
    """One query, in plain words."""
    relevant = sum(grade > 0 for grade in judged)
    if name == "reciprocal_rank":
        return next((1 / r for r, grade in enumerate(ranked[:k], 1) if grade > 0), 0.0)
    if relevant == 0:
        return 0.0
    if name == "recall":
        return sum(grade > 0 for grade in ranked[:k]) / relevant
    if name == "average_precision":
        places = [r for r, grade in enumerate(ranked[:k], 1) if grade > 0]
        return sum(found / r for found, r in enumerate(places, 1)) / relevant
    gain = sum(grade / math.log2(1 + r) for r, grade in enumerate(ranked[:k], 1))
    return gain / sum(grade / math.log2(1 + r) for r, grade in enumerate(sorted(judged, reverse=True)[:k], 1))


def test_all_measures_equal_the_slow_reference():
    rng = np.random.default_rng(0)
    for _ in range(300):
        shape, share = rng.integers(0, [5, 13]), rng.choice([0.1, 0.5])  # queries and documents; few are relevant
        judged = rng.integers(1, 5, shape) * (rng.random(shape) < share)  # in ranked order
        ranked, k = judged[:, : rng.integers(0, shape[1] + 1)], int(rng.integers(1, 16))
        for measure in (ndcg, average_precision, recall):
            expected = [slow(measure.__name__, *row, k) for row in zip(ranked.tolist(), judged.tolist(), strict=True)]
            shuffled = [rng.permutation([*grades, 0, 0]) for grades in judged]
            np.testing.assert_allclose(measure(ranked, shuffled, k), expected, rtol=0, atol=1e-14)
        expected = [slow("reciprocal_rank", row, [], k) for row in ranked.tolist()]
        np.testing.assert_allclose(reciprocal_rank(ranked, k), expected, rtol=0, atol=1e-15)


def test_trec_eval_agrees_ties_and_graded_judgements_included():
    trec = _optional_import("pytrec_eval", "trec", "dev")
    rng = np.random.default_rng(5)
    ids = [f"{'dBé'[i % 3]}{i}" for i in range(30)]
    judged = rng.integers(0, 4, (40, 30)) * (rng.random((40, 30)) < 0.3)  # some queries have nothing relevant
    scores = rng.integers(0, 9, (40, 30)) / 8  # equal ones go by id, descending
    qrels, run = (
        {str(q): dict(zip(ids, row, strict=True)) for q, row in enumerate(table.tolist())} for table in (judged, scores)
    )
    ranked = retrieval._rank(scores, np.eye(30), np.arange(30), ids, "dot")
    found = np.take_along_axis(judged, ranked, axis=1)
    for name, ours in (
        ("ndcg_cut.10", ndcg(found, judged, 10)),
        ("map_cut.10", average_precision(found, judged, 10)),
        ("recall.5", recall(found, judged, 5)),
        ("recip_rank", reciprocal_rank(found, 30)),
    ):
        told = trec.RelevanceEvaluator(qrels, {name}).evaluate(run)
        np.testing.assert_allclose(ours, [told[str(q)][name.replace(".", "_")] for q in range(40)], atol=1e-12)


# ------------------------------------------------------------------------------------------------------ sets


def test_a_folder_is_read(tiny_set, tmp_path):
    assert tiny_set.document_ids == ("d1", "d2", "d3", "d4")
    assert tiny_set.documents[0] == "the soup i love soup"
    assert tiny_set.documents[2:] == ("the dog the dog ran", "")  # an empty document stays
    assert tiny_set.query_ids == ("q1", "q3") and tiny_set.queries == ("the dog ran", "soup")
    assert tiny_set.qrels == {"q1": {"d3": 1, "d4": 0}, "q3": {"d1": 2, "d2": 1}}
    assert read_retrieval(tmp_path / "tiny-set", with_title=False).documents[0] == "i love soup"


def test_layouts_ids_that_are_numbers_missing_titles_and_other_column_names(tmp_path):
    for name, split in (("qrels_test.tsv", "test"), ("qrels/dev.tsv.gz", "dev")):
        write_set(tmp_path / name.split(".")[0], name=name)
        assert read_retrieval(tmp_path / name.split(".")[0], split).judgements == 4
    with pytest.raises(InputError, match=r"no qrels/other.tsv and no qrels_other.tsv"):
        read_retrieval(tmp_path / "qrels_test", "other")
    corpus = '{"_id": 7, "text": "a", "title": null}\n\n{"_id": 8, "text": null}\n'
    qrels = "query_id\tdoc_id\tcode\trelevant\tgrade\r\n1\t7\t-1\t1\t4.0\r\n"
    found = read_retrieval(write_set(tmp_path / "odd", corpus, '{"_id": "1", "text": "b"}', qrels, "qrels.tsv"))
    assert found.documents == ("a", "") and found.qrels == {"1": {"7": 4}}
    assert found.source == "qrels.tsv, grade column 'grade'"


def test_bad_files_are_named_with_line(tmp_path):
    for choices, place in (
        ({"qrels": "query-id\tcorpus-id\tscore\n"}, "test.tsv: no judgements"),
        ({"qrels": QRELS + "q9\td1\t1\n"}, "test.tsv, line 6: judges the query 'q9'"),
        ({"qrels": QRELS + "q1\td4\t1\n"}, "test.tsv, line 6"),
        ({"corpus": [*CORPUS, CORPUS[0]]}, "corpus.jsonl, line 5"),
        ({"queries": '{"_id": "q1", "text": "a"\n'}, "queries.jsonl, line 1"),
        ({"qrels": QRELS.replace("\t2", "\t0.5")}, "test.tsv, line 2"),
        ({"qrels": QRELS.replace("\t2", "\tnan")}, "test.tsv, line 2"),
    ):
        write_set(tmp_path, **choices)
        with pytest.raises(InputError, match=place):
            read_retrieval(tmp_path)


def test_the_sets_that_published_figures_are_about(data_folder):
    found = read_retrieval(data_folder / "scifact")
    assert found.published == {"nDCG@10": 0.6451, "Recall@10": 0.7833}
    assert found.queries_left_out == 809 and found.source == "qrels_test.tsv, grade column 'score'"
    cranfield = read_retrieval(data_folder / "cranfield")
    assert (len(cranfield.documents), len(cranfield.queries), cranfield.judgements) == (1400, 225, 1837)
    assert cranfield.source == "qrels.tsv, grade column 'grade'" and cranfield.published == {}


# ------------------------------------------------------------------------------------------------ evaluation


def test_ranking_equals_sorting_the_best_chunks(monkeypatch):
    monkeypatch.setattr(retrieval, "TOP_K", 7)
    rng = np.random.default_rng(1)
    # chunks along an axis tie exactly, in whatever order a matrix product adds
    queries, chunks = rng.standard_normal((9, 5)), np.eye(5)[rng.integers(0, 5, 60)] * rng.choice([-1, 1], (60, 1))
    owners, ids = np.sort(rng.integers(0, 20, 60)), [f"{'dBé'[i % 3]}{i}" for i in range(20)]  # by code point
    owners[:20] = np.arange(20)  # every document has a chunk
    best = np.full((9, 20), -np.inf)
    np.maximum.at(best.T, owners, (queries @ chunks.T).T)
    expected = [sorted(range(20), key=lambda i: (row[i], ids[i]), reverse=True)[:7] for row in best]
    np.testing.assert_array_equal(retrieval._rank(queries, chunks, owners, ids, "dot"), expected)


def test_evaluation_is_embedding_searching_and_measuring(encoder, tiny_set):
    texts = list(tiny_set.documents)
    result = evaluate_retrieval(encoder, tiny_set, query_prompt="the cat ", document_prompt="soup ")
    documents = encoder.encode([f"soup {text}" for text in texts], overflow="truncate")
    queries = encoder.encode([f"the cat {text}" for text in tiny_set.queries])
    np.testing.assert_array_equal(result.ranked, np.argsort(-encoder.similarity(queries, documents), axis=1))
    plain = evaluate_retrieval(encoder, tiny_set)
    whole = encoder.model.tokenizer(texts, 10_000).lengths - 2
    lost = int(np.maximum(whole - 14, 0).sum())
    assert plain.documents_cut == Cut(4, 1, int(whole.sum()), lost, lost / whole.sum())
    assert plain.queries_cut.texts_cut == 0 and plain.max_seq_length == 16 and plain.vectors == 4


def test_chunks_are_searched_as_the_encoder_gives_them(encoder, tiny_set):
    texts, queries = list(tiny_set.documents), encoder.encode(list(tiny_set.queries))
    found = encoder.encode_chunks(texts, chunk_tokens=9)
    best = np.stack([encoder.similarity(queries, one.embeddings).max(axis=1) for one in found], axis=1)
    late = encoder.similarity(queries, encoder.encode(texts, overflow="chunk", chunk_tokens=9, composition="late"))
    for composition, scores, count in (("best", best, sum(len(one.chunks) for one in found)), ("late", late, 4)):
        result = evaluate_retrieval(encoder, tiny_set, chunk_tokens=9, composition=composition)
        np.testing.assert_array_equal(result.ranked, np.argsort(-scores, axis=1))
        assert result.vectors == count


# ---------------------------------------------------------------------------------------------- command line


def test_published_figures_stand_beside_ours_for_their_own_protocol_only(tmp_path, encoder, monkeypatch):
    def run(*arguments):
        return run_program("evaluate", "retrieval", *arguments)

    stand_in(tmp_path, monkeypatch, encoder.folder)
    write_set(tmp_path / "scifact")
    monkeypatch.setitem(retrieval.PUBLISHED, ("scifact", 4, 2, 4), {"nDCG@10": 0.5})
    assert "published" not in run("scifact").stdout  # another model
    monkeypatch.setattr(hub, "is_default_model", lambda folder: True)
    for other in (("--max-seq-length", 9), ("--without-title",), ("--query-prompt", "the ")):
        assert "published" not in run("scifact", *other).stdout
    estimate = evaluate_retrieval(encoder, read_retrieval("scifact")).estimates()["nDCG@10"]
    row = next(line for line in run("scifact").stdout.splitlines() if line.startswith("nDCG@10")).split()
    mean, low, high = (100 * value for value in estimate)
    assert row[1:] == [f"{mean:.2f}", f"{low:.2f}", "to", f"{high:.2f}", "50.00", f"{mean - 50:+.2f}"]
