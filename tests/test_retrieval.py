"""Retrieval sets, exact search and `evaluate retrieval`: what is read, what is refused, what the figures are."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.cli import evaluate_retrieval as verbs
from minisbert.evaluation import retrieval
from minisbert.evaluation.bootstrap import bootstrap_mean
from minisbert.evaluation.ranking import ndcg
from minisbert.evaluation.retrieval import (
    MEASURES,
    Cut,
    RetrievalSet,
    count_cut,
    evaluate_retrieval,
    measure,
    published_for,
    read_retrieval,
    search,
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


# ------------------------------------------------------------------------------------------------- reading


def test_a_folder_is_read(tiny_set):
    assert tiny_set.name == "tiny-set"
    assert tiny_set.document_ids == ("d1", "d2", "d3", "d4")
    assert tiny_set.documents[0] == "the soup i love soup"
    assert tiny_set.documents[2:] == ("the dog the dog ran", "")  # an empty document stays
    assert tiny_set.query_ids == ("q1", "q3") and tiny_set.queries == ("the dog ran", "soup")
    assert tiny_set.qrels == {"q1": {"d3": 1, "d4": 0}, "q3": {"d1": 2, "d2": 1}}
    assert (tiny_set.queries_left_out, tiny_set.titles_repeated, tiny_set.judgements) == (1, 1, 4)
    assert tiny_set.source == "qrels/test.tsv, grade column 'score'"


@pytest.mark.parametrize(
    ("name", "split", "found"),
    [
        ("qrels/test.tsv", "test", True),
        ("qrels_test.tsv", "test", True),
        ("qrels.tsv", "test", True),
        ("qrels/dev.tsv.gz", "dev", True),
        ("qrels_train.tsv", "test", False),
        ("qrels.tsv", "train", False),
    ],
)
def test_layouts(name, split, found, tmp_path):
    write_set(tmp_path, name=name)
    if found:
        assert read_retrieval(tmp_path, split).judgements == 4
    else:
        with pytest.raises(InputError, match=rf"no qrels/{split}.tsv and no qrels_{split}.tsv"):
            read_retrieval(tmp_path, split)


def test_compressed_files_ids_that_are_numbers_missing_titles_and_other_column_names(tmp_path):
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(b'{"_id": 7, "text": "a", "title": null}\n\n'))
    (tmp_path / "queries.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "1", "text": "b"}'))
    (tmp_path / "qrels.tsv").write_text("query_id\tdoc_id\tcode\trelevant\tgrade\r\n1\t7\t-1\t1\t4.0\r\n")
    found = read_retrieval(tmp_path)
    assert found.documents == ("a",) and found.qrels == {"1": {"7": 4}}
    assert found.source == "qrels.tsv, grade column 'grade'"
    other = read_retrieval(tmp_path, grade_column="relevant")
    assert other.qrels == {"1": {"7": 1}} and other.source.endswith("'relevant'")
    with pytest.raises(InputError, match=r"qrels.tsv, line 2: .* 'code' .* got '-1'"):
        read_retrieval(tmp_path, grade_column="code")


def test_titles_can_be_left_out(tmp_path):
    found = read_retrieval(write_set(tmp_path), with_title=False)
    assert found.documents[0] == "i love soup" and not found.with_title


CASES = [
    ({"corpus": ""}, "corpus.jsonl: empty"),
    ({"queries": ""}, "queries.jsonl: empty"),
    ({"qrels": ""}, "test.tsv: empty"),
    ({"qrels": "query-id\tcorpus-id\tscore\n"}, "test.tsv: empty"),
    ({"qrels": "q1\td1\t1\n" * 2}, "no column for the query: looked for query-id, query_id"),
    ({"qrels": "query-id\tcorpus-id\tstars\nq1\td1\t1\n"}, "no column for the grade"),
    ({"qrels": QRELS + "q9\td1\t1\n"}, "test.tsv, line 6: judges the query 'q9', which is not in queries.jsonl"),
    ({"qrels": QRELS + "q1\td9\t1\n"}, "test.tsv, line 6: judges the document 'd9', which is not in corpus.jsonl"),
    ({"qrels": QRELS + "q1\td4\t1\n"}, "line 6: query 'q1' and document 'd4' are judged twice"),
    ({"qrels": QRELS + "q1\td1\n"}, "line 6: 2 columns, but the header has 3"),
    ({"corpus": [*CORPUS, CORPUS[0]]}, "corpus.jsonl, line 5: the id 'd1' occurs twice"),
    ({"queries": [*QUERIES, QUERIES[0]]}, "queries.jsonl, line 4: the id 'q1' occurs twice"),
    ({"corpus": [{"_id": "d1"}]}, "corpus.jsonl: no column 'text'"),
    ({"corpus": [{"_id": "d1", "text": None}]}, "corpus.jsonl, line 1: the field 'text' must be a string, got null"),
    (
        {"corpus": [{"_id": "d1", "text": float("nan")}]},
        "corpus.jsonl, line 1: the field 'text' must be a string, got NaN",
    ),
    ({"corpus": [{"_id": "", "text": "a"}]}, "corpus.jsonl, line 1: the field '_id'"),
    ({"corpus": [{"_id": True, "text": "a"}]}, "got True"),
    ({"corpus": '{"_id": "d1", "text": "\\ud83c"}'}, "half a character"),
    ({"queries": '{"_id": "q1", "text": "a"\n'}, "queries.jsonl, line 1: not JSON"),
    *(
        ({"qrels": QRELS.replace("\t2", f"\t{grade}")}, f"line 2: the column 'score' must hold a grade, .*{grade}")
        for grade in ("nan", "-1", "inf", "0.5", "high", "")
    ),
]


@pytest.mark.parametrize(("choices", "words"), CASES, ids=lambda value: str(value)[:40])
def test_bad_files_are_named_with_line_and_cause(choices, words, tmp_path):
    write_set(tmp_path, **choices)
    with pytest.raises(InputError, match=words):
        read_retrieval(tmp_path)


def test_no_folder_and_no_files(tmp_path):
    with pytest.raises(InputError, match="expected a folder"):
        read_retrieval(tmp_path / "none")
    with pytest.raises(InputError, match=r"no corpus.jsonl"):
        read_retrieval(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"documents": ()}, "1 document ids for 0 texts"),
        ({"document_ids": (), "documents": ()}, "0 document ids"),
        ({"query_ids": ("q", "q"), "queries": ("a", "b")}, "query id occurs twice"),
        ({"qrels": {}}, "not so for 'q'"),
        ({"qrels": {"q": {"x": 1}}}, "document 'x' with grade 1"),
        ({"qrels": {"q": {"d": -1}}}, "grade -1"),
        ({"qrels": {"q": {"d": float("nan")}}}, "grade nan"),
    ],
)
def test_a_set_made_in_memory_is_checked(changes, words):
    parts = {"document_ids": ("d",), "documents": ("a",), "query_ids": ("q",), "queries": ("b",)}
    with pytest.raises(ValueError, match=words):
        RetrievalSet(**{"name": "mine", "qrels": {"q": {"d": 1}}, **parts, **changes})


# ------------------------------------------------------------------------------------ search and measures


def test_search_equals_sorting_all_scores(encoder, monkeypatch):
    rng = np.random.default_rng(0)
    # documents along an axis tie exactly, in whatever order a matrix product adds
    queries, documents = rng.standard_normal((7, 5)), np.eye(5)[rng.integers(0, 5, 40)] * rng.choice([-1, 1], (40, 1))
    ids = [f"d{i}" for i in range(40)]
    scores = encoder.similarity(queries, documents)
    expected = [sorted(range(40), key=lambda i: (row[i], ids[i]), reverse=True)[:12] for row in scores]
    np.testing.assert_array_equal(search(encoder, queries, documents, ids, top_k=12), expected)
    monkeypatch.setattr(retrieval, "_BLOCK_SCORES", 80)  # two queries at a time
    np.testing.assert_array_equal(search(encoder, queries, documents, ids, top_k=12), expected)
    assert search(encoder, queries[:0], documents, ids).shape == (0, 40)


def test_a_documents_score_is_that_of_its_best_chunk(encoder):
    rng = np.random.default_rng(1)
    queries, chunks = rng.standard_normal((6, 5)), rng.standard_normal((30, 5))
    first = np.array([0, 1, 7, 8, 20])
    scores = encoder.similarity(queries, chunks)
    ends = [*first[1:], 30]
    best = np.stack([scores[:, a:b].max(axis=1) for a, b in zip(first, ends, strict=True)], axis=1)
    found = search(encoder, queries, chunks, list("abcde"), first_chunks=first)
    np.testing.assert_array_equal(found, np.argsort(-best, axis=1))


def test_search_refuses_what_does_not_fit(encoder):
    with pytest.raises(ValueError, match="1 document ids for 2 rows"):
        search(encoder, np.eye(2), np.eye(2), ["a"])
    with pytest.raises(ValueError, match="and 2 first chunks"):
        search(encoder, np.eye(2), np.eye(2), ["a"], first_chunks=np.array([0, 1]))
    with pytest.raises(ValueError, match="NaN"):
        search(encoder, np.full((1, 2), np.nan), np.eye(2), ["a", "b"])


def test_measures_by_hand(tiny_set):
    # q1: d3 (1) at rank 2; q3: d2 (1) at rank 1, d1 (2) at rank 4
    measured = measure(np.array([[3, 2, 0, 1], [1, 2, 3, 0]]), tiny_set)
    assert list(measured) == list(MEASURES)
    assert measured["MRR@10"].tolist() == [0.5, 1.0]
    assert measured["MAP@100"].tolist() == [0.5, (1 + 2 / 4) / 2]
    assert measured["Recall@1"].tolist() == [0.0, 0.5]
    assert measured["Recall@5"].tolist() == [1.0, 1.0]
    expected = [1 / np.log2(3), (1 + 2 / np.log2(5)) / (2 + 1 / np.log2(3))]
    np.testing.assert_allclose(measured["nDCG@10"], expected, rtol=1e-14)


def test_evaluation_is_embedding_searching_and_measuring(encoder, tiny_set):
    result = evaluate_retrieval(encoder, tiny_set)
    documents = encoder.encode(list(tiny_set.documents), overflow="truncate")
    scores = encoder.similarity(encoder.encode(list(tiny_set.queries)), documents)
    np.testing.assert_array_equal(result.ranked, np.argsort(-scores, axis=1))
    expected = ndcg([[{"d3": 1}.get(tiny_set.document_ids[i], 0) for i in result.ranked[0]]], [[1, 0]], 10)
    assert result.measures["nDCG@10"][0] == expected[0]
    assert result.estimates()["nDCG@10"] == bootstrap_mean(result.measures["nDCG@10"])


def test_what_is_cut_is_counted(encoder, tiny_set):
    result = evaluate_retrieval(encoder, tiny_set)
    whole = encoder.model.tokenizer(tiny_set.documents, 10_000).lengths - 2
    over = np.maximum(whole - 14, 0)
    assert result.documents_cut == Cut(4, 1, int(whole.sum()), int(over.sum()))
    assert result.documents_cut.share_lost == over.sum() / whole.sum() > 0
    assert result.queries_cut.texts_cut == 0 and result.max_seq_length == 16
    cut, lost = count_cut(encoder, ["the cat", ""], prompt="the " * 13)
    assert cut == Cut(2, 1, 28, 1) and lost.tolist() == [1, 0]
    assert Cut(1, 0, 0, 0).share_lost == 0.0  # nothing but empty texts


def test_prompts_stand_before_the_texts(encoder, tiny_set):
    result = evaluate_retrieval(encoder, tiny_set, query_prompt="the cat ", document_prompt="soup ")
    documents = encoder.encode([f"soup {text}" for text in tiny_set.documents], overflow="truncate")
    queries = encoder.encode([f"the cat {text}" for text in tiny_set.queries])
    np.testing.assert_array_equal(result.ranked, np.argsort(-encoder.similarity(queries, documents), axis=1))


def test_published_figures_are_shown_for_the_same_set_only(tiny_set, monkeypatch):
    assert published_for(tiny_set) == {}
    monkeypatch.setitem(retrieval.PUBLISHED, ("tiny-set", 4, 2, 4), {"nDCG@10": 0.5})
    assert published_for(tiny_set) == {"nDCG@10": 0.5}


def test_scifact_is_the_set_that_the_published_figures_are_about(data_folder):
    found = read_retrieval(data_folder / "scifact")
    assert published_for(found) == {"nDCG@10": 0.6451, "Recall@10": 0.7833}
    assert found.queries_left_out == 809 and found.source == "qrels_test.tsv, grade column 'score'"
    cranfield = read_retrieval(data_folder / "cranfield")
    assert (len(cranfield.documents), len(cranfield.queries), cranfield.judgements) == (1400, 225, 1837)
    assert cranfield.source == "qrels.tsv, grade column 'grade'" and cranfield.titles_repeated > 1300
    alone = read_retrieval(data_folder / "cranfield", with_title=False)
    assert sum(not text for text in alone.documents) == 2 and published_for(cranfield) == {}


# -------------------------------------------------------------------------------------------- command line


@pytest.fixture
def at_home(tmp_path, monkeypatch, encoder):
    """An empty folder with a set in it, and the tiny model as the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("MINISBERT_MODEL", str(encoder.folder))
    return write_set(tmp_path / "scifact")


def run(command, *arguments, code=0):
    try:
        runner = CliRunner(mix_stderr=False)  # click before 8.2
    except TypeError:
        runner = CliRunner()
    result = runner.invoke(command, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, (SystemExit, ValueError)):
        raise result.exception
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def test_the_table(at_home, encoder, monkeypatch):
    monkeypatch.setitem(retrieval.PUBLISHED, ("scifact", 4, 2, 4), {"nDCG@10": 0.5})
    assert "published" not in run(verbs.retrieval, "scifact").stdout  # another model
    monkeypatch.setattr(verbs, "is_default_model", lambda folder: True)
    for other in (("--max-seq-length", 9), ("--without-title",), ("--query-prompt", "the ")):
        assert "published" not in run(verbs.retrieval, "scifact", *other).stdout
    shown = run(verbs.retrieval, "scifact").stdout
    result = evaluate_retrieval(encoder, read_retrieval("scifact"))
    estimate = result.estimates()["nDCG@10"]
    assert (
        "scifact, test: 2 queries, 4 documents, 4 judgements (qrels/test.tsv, grade column 'score'); "
        "1 queries without judgements left out\ndocument: title + text\n"
    ) in shown
    lost = 100 * result.documents_cut.share_lost
    assert f"cut at 16 tokens: 1 of 4 documents is cut and {lost:.1f} % of all tokens are lost; no query is" in shown
    row = next(line for line in shown.splitlines() if line.startswith("nDCG@10")).split()
    assert row == [
        "nDCG@10",
        f"{100 * estimate.mean:.2f}",
        f"{100 * estimate.low:.2f}",
        "to",
        f"{100 * estimate.high:.2f}",
        "50.00",
        f"{100 * estimate.mean - 50:+.2f}",
    ]
    assert "cosine similarity" in shown and "title + text, cut at 256 tokens" in shown
    plain = run(verbs.retrieval, "scifact", "--without-title").stdout
    assert "document: text without title" in plain


def test_json_and_file_hold_the_same_query_by_query(at_home, encoder):
    printed = json.loads(run(verbs.retrieval, "scifact", "--json", "-o", "r.json").stdout)
    assert printed == json.loads(Path("r.json").read_text())
    result = evaluate_retrieval(encoder, read_retrieval("scifact"))
    assert printed["measures"]["nDCG@10"]["mean"] == result.measures["nDCG@10"].mean()
    assert printed["measures"]["nDCG@10"]["published"] is None
    assert printed["per_query"]["q3"]["MAP@100"] == result.measures["MAP@100"][1]
    assert printed["documents_cut"]["texts_cut"] == 1 and printed["split"] == "test"
    again = run(verbs.retrieval, "scifact", "-o", "r.json", code=1)
    assert "--force" in str(again.exception) and again.stdout == ""
    assert "wrote r.json" in run(verbs.retrieval, "scifact", "-o", "r.json", "--force").stderr


def test_bad_input_stops_before_the_model_is_loaded(at_home, monkeypatch):
    monkeypatch.setenv("MINISBERT_MODEL", "./no-such-folder")
    (at_home / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td9\t1\n")
    stopped = run(verbs.retrieval, "scifact", "-o", "r.json", code=1)
    assert "line 2: judges the document 'd9'" in str(stopped.exception)
    assert not Path("r.json").exists()
