"""The embedding database: what is stored, found and refused; threads, processes that are killed, a disk that fills.

Everything runs on a random model of some 4,000 weights. The killed processes are real ones.
"""

import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import COMPANY, TINY, WORDS, edit_json, write_model

from minisbert import SentenceEncoder
from minisbert.bench.database import measure_database, write_database
from minisbert.model.pooling import Pooling
from minisbert.saved import OriginError
from minisbert.search import database as database_module
from minisbert.search.database import DatabaseError, Document, EmbeddingDatabase
from minisbert.search.documents import check_documents, read_documents
from minisbert.tables import InputError

LONG = "the cat sat on the mat and the dog ran on the mat. i love the soup, the dog and the cat. un able dog."


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("database") / "tiny-model")


@pytest.fixture(scope="module")
def encoder(model):
    return SentenceEncoder(model)


@pytest.fixture
def index(duckdb, encoder, tmp_path):
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as opened:
        yield opened


@pytest.fixture(scope="module")
def emptied(duckdb, encoder, tmp_path_factory):
    """A database that each example of a property leaves empty."""
    with EmbeddingDatabase.open(tmp_path_factory.mktemp("emptied") / "x.duckdb", encoder) as index:
        yield index


def some_documents(count, version=0):
    """Documents of one to three chunks, with metadata of every JSON type, some of them missing."""
    rng = np.random.default_rng(7)
    found = []
    for i in range(count):
        words = rng.choice(WORDS[:10], size=int(rng.integers(1, 30)))
        metadata = {"lang": ["en", "fr", "de"][i % 3], "year": 2000 + i % 7, "deep": {"er": i % 2 == 0}, "none": None}
        if i % 4 == 0:
            metadata["tags"] = ["a", {"b": [1.5, "ünï"]}]
        found.append(Document(f"{' '.join(words)} {version}", f"d{i}", metadata, "made up"))
    return found


def contents(path):
    """All that a database holds, read by DuckDB alone: documents by id, each with its chunks."""
    import duckdb

    with duckdb.connect(str(path), read_only=True) as plain:
        rows = plain.execute("SELECT id, number, text, metadata, hash, source FROM documents").fetchall()
        chunks = plain.execute(
            "SELECT document, number, start, stop, vector FROM chunks ORDER BY document, number"
        ).fetchall()
    found, ids = {key: (rest, []) for key, _, *rest in rows}, {number: key for key, number, *_ in rows}
    assert len(found) == len(rows) == len(ids)  # none doubled
    for document, number, start, stop, vector in chunks:
        found[ids[document]][1].append((number, start, stop, vector))  # no chunk without its document
    for key, (_, parts) in found.items():
        assert [part[0] for part in parts] == list(range(len(parts))) and parts, key  # no document without a chunk
    return found


def same_contents(one, other):
    assert one.keys() == other.keys()
    for key in one:
        (document, chunks), (document2, chunks2) = one[key], other[key]
        assert document == document2 and [c[:3] for c in chunks] == [c[:3] for c in chunks2]
        # the company in a batch moves the last digits: measured 2e-7, times five
        np.testing.assert_allclose([c[3] for c in chunks], [c[3] for c in chunks2], atol=COMPANY, rtol=0)


# ------------------------------------------------------------------------------------------------ adding


def test_what_is_added_is_there_with_every_chunk(index, encoder):
    documents = [*some_documents(30), Document(LONG, "long", {"nul": "a\0b", "": 1, "a.b": 2, "Lang": 3}), Document("")]
    report = index.add(documents, block_documents=7)
    assert (report.added, report.replaced, report.unchanged) == (32, 0, 0) and len(index) == 32
    assert [index.get(document.id) for document in documents[:-1]] == documents[:-1]
    assert index.info().chunks == report.chunks
    index.close()
    found = contents(index.path)
    for document in check_documents(documents):
        expected = encoder.encode_chunks(document.text)
        places, vectors = [c[:3] for c in found[document.id][1]], [c[3] for c in found[document.id][1]]
        assert places == [(i, c.start, c.stop) for i, c in enumerate(expected.chunks)]
        np.testing.assert_allclose(vectors, expected.embeddings, atol=COMPANY, rtol=0)
    assert len(found["long"][1]) > 2


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
some_ids = st.sampled_from(["a", "b", "c", "d"]) | st.text(min_size=1, max_size=20)
metadata = st.dictionaries(st.sampled_from(["year", "n"]) | st.text(max_size=9), json_values, max_size=2)
documents = st.builds(Document, st.sampled_from(["dog", LONG]) | st.text(max_size=40), some_ids, metadata, some_ids)


@given(st.data())
@settings(max_examples=8)
def test_any_history_leaves_what_it_leaves_in_a_dictionary(emptied, encoder, data):
    def same(one, other):
        return (one.text, one.metadata_json) == (other.text, other.metadata_json)

    emptied.remove(where="TRUE")
    kept = {}
    for _ in range(data.draw(st.integers(1, 4))):
        known = st.sampled_from(
            [replace(document, source="elsewhere") for document in kept.values()] or [Document("a", "a")]
        )
        given = data.draw(st.lists(documents | known, max_size=6, unique_by=lambda document: document.id))
        fresh = [document for document in given if document.id not in kept or not same(kept[document.id], document)]
        chunks = sum(len(encoder.encode_chunks(document.text).chunks) for document in fresh)
        replaced = sum(document.id in kept for document in fresh)
        report = emptied.add(given, block_documents=data.draw(st.integers(1, 4)))
        assert (report.added, report.replaced) == (len(fresh) - replaced, replaced)
        assert (report.unchanged, report.chunks) == (len(given) - len(fresh), chunks)  # what is known is not embedded
        kept |= {document.id: document for document in fresh}
        for key, document in kept.items():
            found = emptied.get(key)
            assert same(found, document) and (found.id, found.source) == (key, document.source)
        for key in sorted(kept)[:2]:
            (hit,) = emptied.search("a", 3, where="id = ? AND metadata IS NOT NULL", parameters=[key])
            assert hit.id == key and hit.text == kept[key].text[hit.start : hit.stop]
        gone = data.draw(st.lists(st.sampled_from(sorted(kept)), max_size=3, unique=True)) if kept else []
        also = [key for key in sorted(kept)[:1] if data.draw(st.booleans())]
        where, parameters = ("id IN (SELECT unnest($ids))", {"ids": also}) if also else (None, None)
        assert emptied.remove(gone, where=where, parameters=parameters) == len({*gone, *also})
        kept = {key: document for key, document in kept.items() if key not in (*gone, *also)}
        expected = [len(encoder.encode_chunks(document.text).chunks) for document in kept.values()]
        assert len(emptied) == len(kept) and emptied.info().chunks == sum(expected)


def test_removing_what_is_not_there_removes_nothing(index):
    index.add(some_documents(3))
    for ids, said in ((["d1", "nope", "no"], "'nope', 'no'"), ("d1", "sequence of ids")):
        with pytest.raises(ValueError, match=said):
            index.remove(ids)
    assert len(index) == 3 and index.remove(where="year > 3000") == 0


# ------------------------------------------------------------------------------------------------ searching


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
def test_search_is_exact(duckdb, model, tmp_path, similarity):
    folder = write_model(tmp_path / "model", modules=(Pooling(),))  # no Normalize: lengths count
    edit_json(folder / "config_sentence_transformers.json", similarity_fn_name=similarity)
    encoder, documents = SentenceEncoder(folder), some_documents(40)
    vectors = [encoder.encode_chunks(d.text, normalize_embeddings=similarity == "cosine").embeddings for d in documents]
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(documents)
        for where, keep in ((None, range(40)), ("lang = 'fr'", range(1, 40, 3)), ("lang = 'xx'", [])):
            asked = encoder.encode("the cat sat on the mat. un able")[None]
            scores = np.array([encoder.similarity(asked, vectors[i]).max() for i in keep], np.float64)
            for top_k in (1, 5, 99):
                hits = index.search("the cat sat on the mat. un able", top_k, where)
                order = np.argsort(-scores, kind="stable")[:top_k]
                tolerance = 1e-6 * (1 + np.abs(scores).max(initial=0))  # products added up in another order, x 3
                np.testing.assert_allclose([hit.score for hit in hits], scores[order], atol=tolerance, rtol=0)
                assert len({hit.id for hit in hits}) == len(hits)
                for hit in hits:
                    document, place = documents[int(hit.id[1:])], int(hit.id[1:])
                    assert place in keep and (hit.metadata, hit.source) == (document.metadata, "made up")
                    assert hit.text == document.text[hit.start : hit.stop]
                    best = encoder.similarity(asked, vectors[place])[0]
                    assert best[hit.chunk] >= best.max() - tolerance


def test_ties_several_queries_and_edges(index, encoder):
    with pytest.raises(DatabaseError, match="no documents"):
        index.search("dog")
    index.add([Document("dog", f"{i}") for i in range(5)])
    index.remove(["1"])
    index.add([Document("dog", "1")])  # now the last
    one, two = index.search(["dog", "cat"], 4)
    assert [hit.id for hit in one] == [hit.id for hit in two] == ["0", "2", "3", "4"]
    assert one[0].score == pytest.approx(1, abs=1e-6) and one[0].score <= 1
    assert index.search([]) == [] and len(index.search_vectors(encoder.encode("dog"))[0]) == 5


def test_prompts_are_kept_and_used(duckdb, model, tmp_path):
    folder, settings = shutil.copytree(model, tmp_path / "model"), "config_sentence_transformers.json"
    prompts = {"query": "the cat ", "passage": "soup ", "corpus": "x "}
    # a query's prompt is no document's, nor the other way round
    for number, (named, default, of_query, of_document) in enumerate([
        (prompts, None, "the cat ", "soup "),
        (prompts, "query", "the cat ", "soup "),
        ({"query": "the cat "}, "query", "the cat ", ""),
        ({"passage": "soup "}, "passage", "", "soup "),
    ]):  # fmt: skip
        edit_json(folder / settings, prompts=named, default_prompt_name=default)
        encoder = SentenceEncoder(folder)
        with EmbeddingDatabase.open(tmp_path / f"{number}.duckdb", encoder) as index:
            index.add(["i love dog"])
            assert (index.settings.query_prompt, index.settings.document_prompt) == (of_query, of_document)
            (hit,) = index.search("dog")
            expected = encoder.encode("dog", prompt=of_query) @ encoder.encode("i love dog", prompt=of_document)
            assert abs(hit.score - expected) < 1e-6
    with EmbeddingDatabase.open(tmp_path / "y.duckdb", encoder, query_prompt="", chunk_tokens=9, overlap=2) as index:
        assert index.settings.query_prompt == "" and (index.settings.chunk_tokens, index.settings.overlap) == (9, 2)
    with pytest.raises(DatabaseError, match="chunk_tokens = 9, not 8"):
        EmbeddingDatabase.open(tmp_path / "y.duckdb", encoder, chunk_tokens=8)
    with pytest.raises(ValueError, match="chunk_tokens"):
        EmbeddingDatabase.open(tmp_path / "z.duckdb", encoder, chunk_tokens=99)
    assert not (tmp_path / "z.duckdb").exists()


def test_vectors_come_in_their_order_from_many_parts(index, duckdb, monkeypatch):
    monkeypatch.setattr(database_module, "LOADED_ROWS", 50)
    index.add([Document(f"{'abcdefgh'[i % 8]} {i}", f"{i}") for i in range(400)])
    index.remove([f"{i}" for i in range(0, 400, 3)])
    index.close()
    with duckdb.connect(str(index.path)) as plain:  # as if DuckDB had moved a row to the end
        plain.execute("CREATE TEMP TABLE moved AS SELECT * FROM chunks WHERE document = 100")
        plain.execute("DELETE FROM chunks WHERE document = 100").fetchall()
        plain.execute("INSERT INTO chunks SELECT * FROM moved").fetchall()
        rows = plain.execute("SELECT document, number, start, stop, vector FROM chunks ORDER BY document").fetchall()
    with EmbeddingDatabase.open(index.path) as again:
        limit = again._rows("SELECT current_setting('memory_limit')")
        loaded = again.load()
        assert again._rows("SELECT current_setting('memory_limit')") == limit  # lower only meanwhile
    assert [row[0] for row in rows] == loaded.documents.tolist() and len(rows) == 266
    assert [row[1:4] for row in rows] == [tuple(place) for place in loaded.places.tolist()]
    assert np.array_equal(np.array([row[4] for row in rows], np.float32), loaded.vectors)


def test_threads_share_a_database_and_get_each_its_own_answer(index, encoder):
    topics = ["soup", "cat", "dog", "mat", "love"]
    index.add([Document(f"the {topic}", topic, {"n": i}) for i, topic in enumerate(topics)])
    wrong, done = [], []

    def work(i):
        vector = encoder.encode(topics[i], num_threads=1)
        for step in range(30):
            if i == 0 and step % 10 == 5:
                index.add([Document(f"on {step}", f"new {step}", {"n": 10 + step})])  # what is loaded changes
            hits = index.search_vectors(vector, 3, where="n = ?", parameters=[i])[0]
            if [(hit.id, hit.metadata) for hit in hits] != [(topics[i], {"n": i})]:
                wrong.append((i, hits))
            done.append(index.get(topics[i]).id == topics[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(topics))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and done == [True] * 30 * len(topics)


def in_another_thread(work):
    """What work gives, which must not have to wait for this thread."""
    got = []
    thread = threading.Thread(target=lambda: got.append(work()), daemon=True)
    thread.start()
    thread.join(20)
    return got[0]


@pytest.mark.parametrize(
    ("place", "step", "is_same"),
    [
        (EmbeddingDatabase, "_meeting", True),
        (database_module, "nearest_groups", True),
        (database_module, "nearest_groups", False),
    ],
)
def test_a_search_sees_one_state_while_another_thread_changes_it(index, encoder, monkeypatch, place, step, is_same):
    index.add(some_documents(9))
    expected, real = index.search_vectors(np.ones(12), 9, "year >= 2000"), getattr(place, step)
    with EmbeddingDatabase.open(index.path, encoder) as other:
        changed = index if is_same else other

        def change():
            changed.remove(["d0", "d8"])
            return changed.add([*some_documents(9, version=1)[:4], Document("the soup", "new", {"year": 2000})])

        def meanwhile(*arguments, **options):
            monkeypatch.undo()
            report = in_another_thread(change)
            assert (report.added, report.replaced) == (2, 3)
            return real(*arguments, **options)

        monkeypatch.setattr(place, step, meanwhile)
        assert index.search_vectors(np.ones(12), 9, "year >= 2000") == expected
        after = index.search_vectors(np.ones(12), 9, "year >= 2000")[0]
        assert {hit.id for hit in after} == {*(f"d{i}" for i in range(8)), "new"}
        changed.remove(["d5"])
        assert len(index.search("dog", 9)) == len(other.search("dog", 9, "year >= 2000")) == 8


def test_a_search_does_not_wait_for_texts_to_be_embedded(index, monkeypatch):
    index.add(["the cat"])
    real = SentenceEncoder.encode_chunks

    def meanwhile(*arguments, **options):
        found = in_another_thread(lambda: index.search_vectors(np.ones(12)))
        assert len(found[0]) == 1
        monkeypatch.undo()
        assert in_another_thread(lambda: index.add([Document("the dog", "d")])).added == 1
        return real(*arguments, **options)

    monkeypatch.setattr(SentenceEncoder, "encode_chunks", meanwhile)
    assert index.add([Document("the soup", "d")]).replaced == 1  # by then there was one
    assert index.get("d").text == "the soup" and index.info().chunks == 2


# ------------------------------------------------------------------------------------------------ conditions


@pytest.fixture(scope="module")
def asked(duckdb, encoder, tmp_path_factory):
    """A database with metadata as a CSV and as JSON has them."""
    rows = [
        {"year": "2021", "zip": "01234", "active": "True", "price": "1.50", "mixed": 1, "Year": "upper", "id": "own"},
        {"year": "", "zip": "98765", "active": "FALSE", "price": "-3e2", "mixed": "one", "news-group": "a"},
        {"year": "1999", "zip": "5", "active": "true", "deep": {"er": True, "n": [1, 2]}, "day": "2020-01-02"},
        {"big": 2**63, "flag": False, "rowid": 7, "é": "ü", "q\"'~/": 1, "": "", "nothing": None},
    ]
    with EmbeddingDatabase.open(tmp_path_factory.mktemp("asked") / "x.duckdb", encoder) as index:
        index.add([Document("dog", f"{i}", row, f"file {i % 2}") for i, row in enumerate(rows)])
        yield index


def test_conditions_are_duckdbs_on_typed_columns(asked):
    for where, parameters, expected in (
        ("year > 2000", None, "0"),  # numbers in the texts of a CSV
        ("zip LIKE '01%'", None, "0"),  # no number begins with 0
        ("active = 'false'", None, "1"),
        ("mixed IN ('one', '1')", None, "01"),
        ("deep.er AND deep.n[2] = 2", None, "2"),
        ("day::DATE > DATE '2020-01-01'", None, "2"),
        ("é = $é", {"é": "ü"}, "3"),
        ("id = '0' AND (metadata->>'id') = 'own' AND (metadata->>'Year') = 'upper'", None, "0"),
        ("(metadata->>'rowid') = '7' AND \"q\"\"'~/\" = 1", None, "3"),
        ("source = 'file 1' -- a remark", None, "13"),
        ("year = (SELECT max(year) FROM documents)", None, "0"),
        ("year = ? AND active = ?", [np.int16(2021), np.True_], "0"),
        ("list_contains($years, year)", {"years": np.array([1999, 2000])}, "2"),
        ("price = ? OR zip = ?", (np.float32(1.5), np.str_("5")), "02"),
    ):
        assert {hit.id for hit in asked.search("dog", 9, where, parameters)} == set(expected), where


def test_the_metadatas_own_source_is_meant_if_there_is_one(index):
    for name in ("source", "Source"):
        index.add([Document("dog", "a", {name: "1999"}, "x.csv"), Document("dog", "b", {name: "2021"}, "x.csv")])
        assert [hit.id for hit in index.search("dog", where="source > 2000")] == ["b"]
        index.remove(["a", "b"])
    index.add([Document("dog", "c", {}, "x.csv")])  # nobody has metadata
    assert [hit.id for hit in index.search("dog", where="source = 'x.csv' OR id = 'b'")] == ["c"]


CANNOT = (  # a condition, its parameters, and what is said
    ("", None, "where: expected"),
    ("yaer > 2000", None, "where: "),
    ("year = ", None, "where: "),
    ("year > 2000; DROP TABLE documents", None, "where: "),
    ("TRUE); DROP TABLE documents; SELECT (1", None, "where: "),
    ("TRUE) UNION SELECT (5", None, "where: "),
    ("TRUE ORDER BY 1", None, "where: "),
    ("id IN (SELECT * FROM read_text('/etc/hostname'))", None, "where: "),
    ("id IN (SELECT id FROM rows)", None, "where: "),  # a variable of Python's
    ("(COPY documents TO 'x.csv')", None, "where: "),
    ("year = ?", None, "where: "),
    ("year > ?", 2020, r"parameters: expected.*\[2020\]"),
    ("zip = ?", "5", "parameters: expected"),  # neither one value nor its letters
    ("zip IN (?, ?)", {"5", "98765"}, "parameters: expected"),
    ("zip = ?", [object()], "where: "),
    (None, [2020], "parameters: .*where="),
    (7, None, "where: expected"),
)


def test_a_condition_cannot_do_anything_else(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = contents_of(asked)
    for where, parameters, key in CANNOT:
        for run in (lambda **options: asked.search("dog", **options), asked.remove):
            with pytest.raises(ValueError, match=f"{re.escape(str(asked.path))}: {key}"):
                run(where=where, parameters=parameters)
    assert contents_of(asked) == before and list(tmp_path.iterdir()) == []
    assert asked.search("dog", 9, "year > 2000")  # nor did it change what the next one is asked of


def contents_of(index):
    return [index._rows(f"SELECT * FROM {table} ORDER BY ALL") for table in ("meta", "documents", "chunks")]


# ------------------------------------------------------------------------------------------------ files


def read(file, **options):
    return [(d.id, d.text, dict(d.metadata), d.source) for d in read_documents(file, **options)]


def test_text_files_are_lines_or_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = "i love soup\n\n  \nthe cat\r\n"
    for name in ("notes.txt", "NOTES.MD"):
        Path(name).write_text(content, newline="")
    with gzip.open("notes.txt.gz", "wt") as stream:
        stream.write(content)
    lines = [("notes.txt:1", "i love soup", {}, "notes.txt"), ("notes.txt:4", "the cat", {}, "notes.txt")]
    whole = [("NOTES.MD", "i love soup\n\n  \nthe cat", {}, "NOTES.MD")]
    assert read(["notes.txt", "NOTES.MD"]) == lines + whole
    assert [text for _, text, _, _ in read("notes.txt.gz")] == ["i love soup", "the cat"]


def test_tables_have_texts_ids_and_metadata(duckdb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"_id": "a", "text": "soup", "lang": "en"}, {"_id": "b", "text": "thé", "lang": "fr"}]
    Path("t.csv").write_text("_id,text,lang\na,soup,en\nb,thé,fr\n", encoding="utf-8")
    Path("t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    duckdb.connect().execute("COPY (SELECT * FROM 't.jsonl') TO 't.parquet' (FORMAT parquet)")
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        assert read(name) == [(r["_id"], r["text"], {"lang": r["lang"]}, name) for r in rows], name
    assert read("t.csv", text_column="lang", id_column="text")[0] == ("soup", "en", {"_id": "a"}, "t.csv")
    Path("one.csv").write_text("review\nsoup\ntea\n")
    assert [d[:3] for d in read("one.csv")] == [("one.csv:2", "soup", {}), ("one.csv:3", "tea", {})]
    Path("deep.jsonl").write_text('{"post": {"title": "soup", "by": {"n": 1}}, "id": 7, "x": [1, null]}\n')
    assert read("deep.jsonl", text_column="post.title") == [
        ("7", "soup", {"post": {"by": {"n": 1}}, "x": [1, None]}, "deep.jsonl")
    ]


def test_files_that_cannot_be_read_as_asked(tmp_path):
    for name, content, options, message in (
        ("t.csv", "text,id\n1,\n", {}, "id in 'id' must be"),
        ("t.csv", "text,id\n1,2\n", {"id_column": "text"}, "both text and id"),
        ("t.jsonl", '{"text": "a", "x": NaN}', {}, "metadata of document"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=re.escape(message)):
            read(tmp_path / name, **options)


# ------------------------------------------------------------------------------------------------ refusing


def test_documents_that_are_none(index):
    index.add(["kept"])
    for documents, message in (
        ("soup", "single text"),
        ([Document("a", "1"), Document("b", "1")], "'1'"),
        (["a", 7], r"documents\[1\]"),
        ([Document("a", "1", {"x": float("nan")})], "metadata"),
        ([Document("a\ud800", "1")], "surrogate"),
        ([Document(None, "1")], "'text'"),
    ):
        with pytest.raises(ValueError, match=message):
            index.add(documents)
        assert len(index) == 1


def test_another_models_vectors(index, encoder, tmp_path):
    other = SentenceEncoder(write_model(tmp_path / "other", seed=1))
    index.add(["dog"])
    for wrong in (other, encoder.with_model(replace(encoder.model, truncate_dim=5))):
        with pytest.raises(OriginError):
            EmbeddingDatabase.open(index.path, wrong)
    with EmbeddingDatabase.open(index.path) as bare:
        assert bare.info().fingerprint == encoder.fingerprint()
        for call in (bare.search, lambda text: bare.add([text])):
            with pytest.raises(DatabaseError, match="encoder"):
                call("dog")
        assert bare.search_vectors(encoder.encode("dog"))[0][0].text == "dog"
        with pytest.raises(ValueError, match="12"):
            bare.search_vectors(np.ones((1, 13)))
        with pytest.raises(ValueError, match="top_k"):
            index.search("dog", 0)


def test_files_that_are_no_database(duckdb, encoder, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("hello " * 100)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "sqlite").write_bytes(b"SQLite format 3\0" + bytes(5000))  # for which DuckDB would fetch an extension
    duckdb.connect(str(tmp_path / "other.duckdb")).execute("CREATE TABLE t (x INT)").fetchall()
    EmbeddingDatabase.open(tmp_path / "new.duckdb", encoder).close()
    with duckdb.connect(str(tmp_path / "new.duckdb")) as plain:
        plain.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'").fetchall()
    for name in ("missing", "folder", "text", "empty", "sqlite", "other.duckdb", "new.duckdb"):
        with pytest.raises(DatabaseError, match=f"{name}: "):
            EmbeddingDatabase.open(tmp_path / name, read_only=True)
    with pytest.raises(DatabaseError, match="create it first"):
        EmbeddingDatabase.open(tmp_path / "no" / "x.duckdb", encoder)


def test_damage_never_gives_another_answer(index):
    index.add([replace(d, id=f"{d.id} {i}", text=f"{d.text} {i}") for i in range(5) for d in some_documents(20)])
    index.close()
    whole, intact = index.path.read_bytes(), contents(index.path)

    def use():
        with EmbeddingDatabase.open(index.path, read_only=True) as opened:
            opened.info()
            opened.search_vectors(np.ones((1, 12)), 40, where="lang = 'en'")
        return contents(index.path)

    said = 0
    flipped = [(place, 64) for place in [*range(0, 3 * 4096, 1024), *range(3 * 4096, len(whole), len(whole) // 12)]]
    for place, length in [*flipped, *((cut, len(whole)) for cut in (12, 100, 5000, len(whole) // 2))]:
        damaged = bytearray(whole)
        damaged[place : place + length] = bytes(byte ^ 0xFF for byte in whole[place : place + length])
        index.path.write_bytes(damaged if length == 64 else whole[:place])
        try:
            same_contents(use(), intact)  # what DuckDB does not use may be anything
        except DatabaseError as error:
            assert str(index.path) in str(error)
            said += 1
    assert said >= 5


# ------------------------------------------------------------------------------------------------ processes


def run_code(code, folder, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=120)


def test_other_processes_and_other_openings(index, encoder):
    code = """
        import sys, duckdb
        from minisbert.search.database import EmbeddingDatabase
        with EmbeddingDatabase.open("x.duckdb", read_only=sys.argv[1] == "read") as index:
            assert index.search_vectors([1.0] * 12, where="lang = 'en'")[0]
        assert "pandas" not in sys.modules  # 40 MiB; pyarrow and DuckDB import it for conversions to NumPy
    """
    index.add(some_documents(5))
    done = run_code(code, index.path.parent, "read")
    assert done.returncode == 1 and "DatabaseError: x.duckdb: " in done.stderr and f"PID {os.getpid()}" in done.stderr
    with EmbeddingDatabase.open(index.path, encoder) as two:
        assert two.add(some_documents(5)).unchanged == 5
    with pytest.raises(DatabaseError, match=re.escape(str(index.path))):
        EmbeddingDatabase.open(index.path, read_only=True)
    index.close()
    with EmbeddingDatabase.open(index.path, encoder, read_only=True) as reader:
        assert run_code(code, index.path.parent, "read").returncode == 0  # several may read
        for change in (lambda: reader.add(["dog"]), lambda: reader.remove(["d1"])):
            with pytest.raises(DatabaseError, match="read-only"):
                change()
        assert len(reader) == 5


BUILDER = """
    import os, sys
    sys.path.insert(0, {tests!r})
    from test_database import KILLED, some_documents
    from minisbert import SentenceEncoder
    from minisbert.search.database import EmbeddingDatabase

    def told(documents):
        for document in documents:
            print(document.id, flush=True)
            yield document

    encoder = SentenceEncoder({model!r})
    for line in sys.stdin:  # a process for each database, forked before DuckDB is there
        if not (child := os.fork()):
            with EmbeddingDatabase.open(line.strip(), encoder) as index:
                index.add(told(some_documents(KILLED, version=1)), block_documents=5)
            os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("gone", flush=True)
"""
KILLED = 150


@pytest.mark.skipif(sys.platform != "linux", reason="fork and kill -9")
def test_killed_at_twenty_random_moments(duckdb, model, encoder, tmp_path):
    """Four databases, each killed five times in a row; two of them begin with older versions of the documents."""
    rng = random.Random(11)
    expected, older = some_documents(KILLED, version=1), some_documents(KILLED)[: KILLED // 2]
    for name, documents in (("whole", expected), ("older", older)):
        with EmbeddingDatabase.open(tmp_path / f"{name}.duckdb", encoder) as index:
            index.add(documents, block_documents=5)
    whole, old = contents(tmp_path / "whole.duckdb"), contents(tmp_path / "older.duckdb")
    code = textwrap.dedent(BUILDER.format(tests=str(Path(__file__).parent), model=str(model)))
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=one_thread
    ) as builder:
        for run in range(4):
            file, before = tmp_path / f"{run}.duckdb", {}
            if run % 2:
                shutil.copy(tmp_path / "older.duckdb", file)
                before = old
            for step in range(5):
                builder.stdin.write(f"{file}\n")
                builder.stdin.flush()
                lines = iter(builder.stdout.readline, "")
                child, drawn = None, rng.randrange(step * KILLED // 5, (step + 1) * KILLED // 5) if run + step else 0
                while child is None or drawn > 0:  # so many documents have been read
                    line = next(lines).strip()
                    child, drawn = (int(line), drawn) if line.isdigit() else (child, drawn - line.startswith("d"))
                time.sleep(rng.random() / 50)
                os.kill(child, signal.SIGKILL)
                while next(lines).strip() != "gone":
                    pass
                if not file.exists():
                    continue
                found = contents(file)  # it opens, and no document is doubled or without its chunks
                assert before.keys() <= found.keys()
                for key, one in found.items():  # each is as it was, or as it is to be
                    same_contents({key: one}, {key: old[key] if one[0] != whole[key][0] else whole[key]})
                    assert before.get(key, one)[0] in (one[0], old.get(key, one)[0])  # never back to an older one
                before = found
            with EmbeddingDatabase.open(file, encoder) as index:
                done = sum(one[0] == whole[key][0] for key, one in before.items())
                assert index.add(expected, block_documents=5).unchanged == done
            same_contents(contents(file), whole)
        builder.stdin.close()
    assert {file.name for file in tmp_path.iterdir()} == {f"{n}.duckdb" for n in (*range(4), "whole", "older")}


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of a file")
def test_a_disk_that_fills_loses_nothing(duckdb, model, encoder, tmp_path):
    code = f"""
        import os, resource, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_database import some_documents
        from minisbert import SentenceEncoder
        from minisbert.search.database import EmbeddingDatabase
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        room = int(sys.argv[1])
        if room < 2**18:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # already as the file is made
        with EmbeddingDatabase.open("x.duckdb", SentenceEncoder({str(model)!r})) as index:
            index.add(some_documents(20))
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            index.add(some_documents(3000), block_documents=100)
    """
    file = tmp_path / "x.duckdb"
    for room in (5_000, 300_000, 700_000):
        done = run_code(code, tmp_path, room)
        assert done.returncode == 1 and "DatabaseError: x.duckdb: " in done.stderr, done.stderr[-500:]
        kept = contents(file) if file.exists() else {}
        assert len(kept) < 3000 and len(kept) % 100 in (0, 20) and (len(kept) > 0) == (room > 2**18)
    with EmbeddingDatabase.open(file, encoder) as index:
        report = index.add(some_documents(600))
        assert report.unchanged == min(600, len(kept))
    with EmbeddingDatabase.open(tmp_path / "y.duckdb", encoder) as index:
        index.add(some_documents(max(600, len(kept))))
    same_contents(contents(file), contents(tmp_path / "y.duckdb"))


def test_making_a_database_is_all_or_nothing_and_sweeps(duckdb, encoder, tmp_path, monkeypatch):
    def failing(source, target):
        assert Path(source).name.endswith(".unfinished")
        raise KeyboardInterrupt

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for left in (f".x.duckdb.{gone.pid}.unfinished", f".x.duckdb.{gone.pid}.unfinished.wal", "x.duckdb.wal"):
        (tmp_path / left).write_bytes(b"what a killed run has left")
    living = tmp_path / f".x.duckdb.{os.getppid()}.unfinished"
    living.write_bytes(b"of another process, at work")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", failing)
        with pytest.raises(KeyboardInterrupt):
            EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder)
    assert list(tmp_path.iterdir()) == [living]

    def unable(source, target):
        raise OSError("this file system has no links")

    monkeypatch.setattr(os, "link", unable)
    EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder).close()
    assert {file.name for file in tmp_path.iterdir()} == {"x.duckdb", living.name}


def test_width_is_the_models_and_the_benchmarks_database_is_as_ours(duckdb, tmp_path):
    folder = write_model(tmp_path / "model", config=replace(TINY, hidden_size=24, num_attention_heads=3))
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", SentenceEncoder(folder, dtype="float64")) as index:
        index.add(["dog"])
        assert index.info().width == 24 and index.search("dog")[0].score == pytest.approx(1, abs=1e-6)
    write_database(tmp_path / "random.duckdb", 300, 16)
    measured = measure_database(tmp_path / "random.duckdb", 3)
    assert measured["p50_ms"] > 0 and measured["file_mib"] > 0.02
