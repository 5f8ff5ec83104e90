"""The embedding database: what is stored, found and refused; processes that are killed; files that are not ours.

Everything runs on a random model of some 4,000 weights. The killed processes are real ones.
"""

import csv
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
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import COMPANY, TINY, WORDS, edit_json, write_model

from minisbert import SentenceEncoder
from minisbert.bench.database import time_database
from minisbert.saved import OriginError
from minisbert.search import memory as memory_module
from minisbert.search import searching as searching_module
from minisbert.search import storage as storage_module
from minisbert.search.database import DatabaseError, Document, EmbeddingDatabase
from minisbert.search.documents import as_document, check_documents, read_documents
from minisbert.search.filters import DEEPEST, LONGEST, FilterError, parse_filter
from minisbert.search.searching import matching
from minisbert.search.storage import Storage, create
from minisbert.tables import InputError

LONG = "the cat sat on the mat and the dog ran on the mat. i love the soup, the dog and the cat. un able dog."
# measured: 3e-7 between NumPy and DuckDB, which adds up float32 products in another order; times three
SQL_TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("database") / "tiny-model")


@pytest.fixture(scope="module")
def encoder(model):
    return SentenceEncoder(model)


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
    """All that a database holds, without the numbers inside it: documents by id, each with its chunks."""
    storage = Storage(Path(path), read_only=True)
    documents = storage.rows("SELECT id, number, text, metadata, hash, source FROM documents ORDER BY id")
    chunks = storage.rows("SELECT document, number, start, stop, vector FROM chunks ORDER BY document, number")
    storage.close()
    found = {key: (rest, []) for key, _, *rest in documents}
    ids = {number: key for key, number, *_ in documents}
    assert len(found) == len(documents) == len(ids)  # none doubled
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


def best_by_hand(encoder, documents, query, top_k, keep=lambda document: True):
    """The ranking by the definition: the best chunk of each document, ties in the order of the documents."""
    vector = encoder.encode(query, normalize_embeddings=True).astype(np.float64)
    scores = []
    for i, document in enumerate(documents):
        chunks = encoder.encode_chunks(document.text, normalize_embeddings=True).embeddings
        if keep(document):
            scores.append((-float((chunks.astype(np.float64) @ vector).max()), i))
    return [(documents[i].id, -score) for score, i in sorted(scores)[:top_k]]


# ------------------------------------------------------------------------------------------------ adding


def test_what_is_added_is_there_with_every_chunk(duckdb, encoder, tmp_path):
    documents = [
        *some_documents(30),
        Document(LONG, "long", {"nul": "a\0b", "": 1, "a.b": 2, "a/b~c": 3}),
        Document(""),
    ]
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        report = index.add(documents, block_documents=7)
        assert (report.added, report.replaced, report.unchanged) == (32, 0, 0) and len(index) == 32
        for document in documents[:-1]:
            assert index.get(document.id) == document
        assert index.info().chunks == report.chunks
    found = contents(tmp_path / "x.duckdb")
    for document in check_documents(documents):
        expected = encoder.encode_chunks(document.text)
        places, vectors = [c[:3] for c in found[document.id][1]], [c[3] for c in found[document.id][1]]
        assert places == [(i, c.start, c.stop) for i, c in enumerate(expected.chunks)]
        np.testing.assert_allclose(vectors, expected.embeddings, atol=COMPANY, rtol=0)
    assert len(found["long"][1]) > 2


@given(
    text=st.text(max_size=40),
    key=st.text(min_size=1, max_size=20),
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
)
@settings(max_examples=60)
def test_any_text_id_and_metadata_come_back(emptied, text, key, value):
    document = Document(text, key, {key: value}, key)
    emptied.add([document])
    back = emptied.get(key)
    assert (back.text, back.id, back.source) == (text, key, key)
    assert json.dumps(back.metadata, sort_keys=True) == json.dumps(document.metadata, sort_keys=True)
    (hit,) = emptied.search("a", 3)  # the text itself may be longer than a query may be
    assert hit.id == key and hit.text == text[hit.start : hit.stop]
    assert emptied.add([document]).unchanged == 1
    emptied.remove([key])


def test_unchanged_documents_are_not_embedded_again_and_changed_ones_are_replaced(
    duckdb, encoder, tmp_path, monkeypatch
):
    embedded = []
    real = SentenceEncoder.encode_chunks

    def watched(self, sentences, **options):
        embedded.extend(sentences)
        return real(self, sentences, **options)

    monkeypatch.setattr(SentenceEncoder, "encode_chunks", watched)
    old = some_documents(12)
    new = [
        *old[:5],
        replace(old[5], text=LONG),
        replace(old[6], metadata={"lang": "xx"}),
        *old[7:],
        Document("dog", "z"),
    ]
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(old, block_documents=5)
        assert len(embedded) == 12
        embedded.clear()
        report = index.add(new, block_documents=5)
        assert embedded == [LONG, old[6].text, "dog"]
        assert (report.added, report.replaced, report.unchanged) == (1, 2, 10)
        assert index.get("d5").text == LONG and index.get("d6").metadata == {"lang": "xx"}
    with EmbeddingDatabase.open(tmp_path / "y.duckdb", encoder) as fresh:
        fresh.add(new, block_documents=5)
    same_contents(contents(tmp_path / "x.duckdb"), contents(tmp_path / "y.duckdb"))


def test_a_source_that_changes_alone_is_no_other_content_but_metadata_and_text_are():
    one = as_document(Document("soup", "1", {"a": 1, "b": 2}, "here"), "x")
    assert one.content_hash == replace(one, source="there", metadata={"b": 2, "a": 1}).content_hash
    # texts and metadata that would be the same if they were only put one behind the other
    assert (
        len(
            {
                replace(one, text=t, metadata=m).content_hash
                for t, m in (("soup", {}), ("soup{}", {}), ("soup", {"a": 1}))
            }
        )
        == 3
    )


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ("soup", "iterable of documents, got a single text"),
        ([Document("a", "1"), Document("b", "1")], "id '1' occurs twice"),
        (["a", 7], r"documents\[1\]: expected a Document or a string"),
        ([Document("a", "1", {"x": float("nan")})], "metadata of document"),
        ([Document("a", "1", {"x": object()})], "metadata of document"),
        ([Document("a", "1", {1: 2})], "metadata must be a mapping"),
        ([Document("a\ud800", "1")], "half a character"),
        ([Document("a", "1", {"x": "\ud800"})], "half a character"),
        ([Document(None, "1")], "the field 'text' must be a string"),
    ],
)
def test_documents_that_are_none(duckdb, encoder, tmp_path, documents, message):
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(["kept"])
        with pytest.raises(ValueError, match=message):
            index.add(documents)
        assert len(index) == 1


def test_what_fails_inside_a_transaction_leaves_the_old_version(duckdb, encoder, tmp_path, monkeypatch):
    old = some_documents(6)
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(old)
    before = contents(tmp_path / "x.duckdb")

    def failing(self, places, vectors):
        raise KeyboardInterrupt

    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        with monkeypatch.context() as patch:
            patch.setattr(Storage, "insert_chunks", failing)
            with pytest.raises(KeyboardInterrupt):
                index.add(some_documents(6, version=1))
        assert len(index.search("dog", 6)) == 6  # and it goes on working
        index.add(["one more"])
        index.remove([hit.id for hit in index.search("one more", 9) if hit.text == "one more"])
    same_contents(contents(tmp_path / "x.duckdb"), before)


def test_removing(duckdb, encoder, tmp_path):
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(some_documents(12))
        with pytest.raises(DatabaseError, match="no document 'nope', 'no'; nothing was removed"):
            index.remove(["d1", "nope", "no"])
        with pytest.raises(ValueError, match="sequence of ids"):
            index.remove("d1")
        assert len(index) == 12 and index.search("dog", 12)[0]
        assert index.remove(["d1", "d2"]) == 2
        assert index.remove(["d0"], where="lang = 'en'") == 4  # d0, d3, d6, d9
        assert index.remove(where="year > 3000") == 0
        assert {hit.id for hit in index.search("dog", 12)} == {"d4", "d5", "d7", "d8", "d10", "d11"}
        index.add(some_documents(2))
        assert len(index) == 8
    assert len(contents(tmp_path / "x.duckdb")) == 8


# ------------------------------------------------------------------------------------------------ searching


@pytest.mark.parametrize("in_sql", [False, True])
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_search_is_exact_in_memory_and_in_sql(duckdb, model, tmp_path, in_sql, similarity):
    folder = tmp_path / "model"
    write_model(folder, modules=(database_pooling(),))  # no Normalize: lengths count
    edit_json(folder / "config_sentence_transformers.json", similarity_fn_name=similarity)
    encoder = SentenceEncoder(folder)
    documents = some_documents(40)
    vectors = [encoder.encode_chunks(d.text, normalize_embeddings=similarity == "cosine").embeddings for d in documents]
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder, in_sql=in_sql) as index:
        index.add(documents)
        for query in ("i love soup", "dog", "the cat sat on the mat. un able"):
            asked = encoder.encode(query)[None]
            scores = np.array([encoder.similarity(asked, chunks).max() for chunks in vectors], np.float64)
            for top_k in (1, 5, 40, 99):
                hits = index.search(query, top_k)
                order = np.argsort(-scores, kind="stable")[:top_k]
                tolerance = SQL_TOLERANCE * (1 + np.abs(scores).max())
                np.testing.assert_allclose([hit.score for hit in hits], scores[order], atol=tolerance, rtol=0)
                assert len({hit.id for hit in hits}) == len(hits) == min(top_k, 40)
                for hit in hits:
                    document = documents[int(hit.id[1:])]
                    assert hit.metadata == document.metadata and hit.source == "made up"
                    assert hit.text == document.text[hit.start : hit.stop]
                    assert abs(scores[int(hit.id[1:])] - hit.score) <= tolerance
                    best = encoder.similarity(asked, vectors[int(hit.id[1:])])[0]
                    assert best[hit.chunk] >= best.max() - tolerance


def database_pooling():
    from minisbert.model.pooling import Pooling

    return Pooling()


@pytest.mark.parametrize("in_sql", [False, True])
@pytest.mark.parametrize("where", [None, "lang = 'fr'", "year = 2003", "lang = 'fr' AND year = 2003", "deep.er = TRUE"])
def test_search_under_a_condition_is_search_among_those_that_meet_it(
    duckdb, encoder, tmp_path, in_sql, where, monkeypatch
):
    monkeypatch.setattr(searching_module, "FILTERED_ROWS", 3)  # several parts
    keep = {
        None: lambda d: True,
        "lang = 'fr'": lambda d: d.metadata["lang"] == "fr",
        "year = 2003": lambda d: d.metadata["year"] == 2003,
        "lang = 'fr' AND year = 2003": lambda d: d.metadata["lang"] == "fr" and d.metadata["year"] == 2003,
        "deep.er = TRUE": lambda d: d.metadata["deep"]["er"],
    }[where]
    documents = some_documents(60)
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder, in_sql=in_sql) as index:
        index.add(documents)
        for dense in (0.0, 0.1, 1.1):  # among all, by the share, picked out
            monkeypatch.setattr(searching_module, "DENSE", dense)
            for query in ("soup", "the cat sat on the mat. un able"):
                for top_k in (1, 4, 60):
                    expected = best_by_hand(encoder, documents, query, top_k, keep)
                    hits = index.search(query, top_k, where)
                    np.testing.assert_allclose([h.score for h in hits], [s for _, s in expected], atol=SQL_TOLERANCE)
                    assert all(keep(documents[int(hit.id[1:])]) for hit in hits)


def test_equal_scores_go_by_the_order_of_adding(duckdb, encoder, tmp_path):
    documents = [Document("the dog ran", f"{key}") for key in (5, 3, 9, 1, 7)]
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(documents)
        for in_sql in (False, True):
            index._in_sql = in_sql
            assert [hit.id for hit in index.search("dog", 3)] == ["5", "3", "9"]


def test_many_chunks_of_one_document_do_not_hide_the_others(duckdb, encoder, tmp_path):
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder, in_sql=False) as index:
        index.add([Document("dog. " * 700, "many"), *some_documents(5)])
        assert index.info().chunks > 100
        hits = index.search("dog. dog. dog. dog. dog. dog.", 3)
        assert hits[0].id == "many" and len({hit.id for hit in hits}) == 3


def test_several_queries_and_vectors(duckdb, encoder, tmp_path):
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(some_documents(10))
        both = index.search(["dog", "soup"], 3)
        assert both == [index.search("dog", 3), index.search("soup", 3)] and index.search([], 3) == []
        assert index.search_vectors(encoder.encode("dog"), 3) == both[:1]
        for wrong in (np.ones(5), np.ones((2, 2, 12)), np.full(12, np.nan)):
            with pytest.raises(ValueError, match="query_embeddings"):
                index.search_vectors(wrong)
        for top_k in (0, -1, 1.5, True):
            with pytest.raises(ValueError, match="top_k"):
                index.search("dog", top_k)


def test_an_empty_database_has_nothing_to_search(duckdb, encoder, tmp_path):
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        with pytest.raises(DatabaseError, match="contains no documents yet"):
            index.search("dog", where="lang = 'en'")
        index.add([])
        assert len(index) == 0 and index.info().fields == {}
        index.add([Document("dog", "1", {"lang": "en"})])
        index.remove(["1"])
        with pytest.raises(DatabaseError, match="contains no documents yet"):
            index.search("dog")


def test_prompts_are_kept_and_used(duckdb, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    edit_json(folder / "config_sentence_transformers.json", prompts={"query": "the cat ", "passage": "soup "})
    encoder = SentenceEncoder(folder)
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(["i love dog"])
        assert index.settings.query_prompt == "the cat " and index.settings.document_prompt == "soup "
        (hit,) = index.search("dog")
        expected = encoder.encode("dog", prompt="the cat ") @ encoder.encode("i love dog", prompt="soup ")
        assert abs(hit.score - expected) < SQL_TOLERANCE and hit.text == "i love dog"
    with EmbeddingDatabase.open(tmp_path / "y.duckdb", encoder, query_prompt="", chunk_tokens=9, overlap=2) as index:
        assert index.settings.query_prompt == "" and (index.settings.chunk_tokens, index.settings.overlap) == (9, 2)
    with pytest.raises(DatabaseError, match="chunk_tokens = 9, not 8"):
        EmbeddingDatabase.open(tmp_path / "y.duckdb", encoder, chunk_tokens=8)
    with pytest.raises(ValueError, match="chunk_tokens must be"):
        EmbeddingDatabase.open(tmp_path / "z.duckdb", encoder, chunk_tokens=99)
    assert not (tmp_path / "z.duckdb").exists()


def test_vectors_are_loaded_only_where_they_fit(duckdb, encoder, tmp_path, monkeypatch):
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        chunks = index.add(some_documents(10)).chunks
        edge = int(memory_module.GROWTH * 4 * 12 * chunks / memory_module.SHARE)
        for free, in_sql in ((edge + 2, False), (edge - 2, True), (None, False)):
            monkeypatch.setattr(memory_module, "usable_memory", lambda free=free: free)
            assert index.searches_in_sql() == in_sql
        monkeypatch.setattr(memory_module, "usable_memory", lambda: 1)
        index.search("dog")
        assert index._loaded is None
        index._in_sql = False
        index.search("dog")
        assert index._loaded is not None and index._loaded.vectors.dtype == np.float32


def test_vectors_come_in_their_order_from_many_parts(duckdb, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(storage_module, "BLOCK_BYTES", 256 * 4 * 12)
    documents = [
        Document(f"{a} {b} {i}", f"{i}") for i, (a, b) in enumerate(zip("abcdefgh" * 100, "ijk" * 300, strict=False))
    ]
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(documents)
        index.remove([f"{i}" for i in range(0, 800, 3)])
        index.add([replace(documents[1], text="changed")])
        # as if DuckDB had moved a row to the end
        index._storage.rows("CREATE TEMP TABLE moved AS SELECT * FROM chunks WHERE document = 100")
        index._storage.rows("DELETE FROM chunks WHERE document = 100")
        index._storage.rows("INSERT INTO chunks SELECT * FROM moved")
        loaded = index._storage.load_vectors()
        rows = index._storage.rows("SELECT document, number, start, stop, vector FROM chunks ORDER BY document, number")
    assert len(rows) == len(loaded.vectors) == 533
    assert [row[:4] for row in rows] == list(
        zip(*(getattr(loaded, c).tolist() for c in ("documents", "numbers", "starts", "stops")), strict=True)
    )
    assert np.array_equal(np.array([row[4] for row in rows], np.float32), loaded.vectors)


# ------------------------------------------------------------------------------------------------ conditions

# All SQL that a condition can become; nothing typed is in it.
_TEXT = r"json_extract_string\(metadata, \?\)"
_FIELD = rf"({_TEXT}|COALESCE\({_TEXT}, {_TEXT}\))"
_NUMBER = re.escape("TRY_CAST(regexp_extract(@, '^[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?$') AS DOUBLE)")
SQL_PIECES = re.compile(
    rf"(NOT \(|\(|\)| AND | OR |({_FIELD}|lower\({_FIELD}\)|{_NUMBER.replace('@', _FIELD)}) (=|<>|<|<=|>|>=) \?"
    rf"|{_FIELD} (NOT )?LIKE \?|{_FIELD} IS (NOT )?NULL)*"
)
ATTACKS = [
    "1=1",
    "lang = 'en'; DROP TABLE documents",
    "lang = 'en' -- x",
    "lang = 'en' /* x */",
    "lang = '' OR 1=1 --'",
    "lang = 'en' UNION SELECT text FROM documents",
    "lang = (SELECT text FROM documents)",
    "text LIKE '%'",
    "documents.text = 'a'",
    "metadata = 'a'",
    "read_csv('/etc/passwd') IS NOT NULL",
    "getenv('HOME') = 'x'",
    "lang = chr(65)",
    'lang = "text"',
    '"x\') OR 1=1 --" = 1',
    "\"lang') = 'en' OR text LIKE '%\" = 'a'",
    "lang = $1",
    "lang = ?",
    "lang = :a",
    "lang = E'\\x'",
    "lang = $$a$$",
    "lang = 'a' || 'b'",
    "lang::INT = 1",
    "lang = 0x10",
    "CASE WHEN lang = 'a' THEN 1 END = 1",
    "lang BETWEEN 'a' AND 'b'",
    "EXISTS(SELECT 1)",
    "lang IN (SELECT id FROM documents)",
    "lang = 'a' ESCAPE 'b'",
    "lang = 'en\0'; DROP TABLE meta",
    "\"$.*\" = 'en'",
    '"/.." = 1',
    "lang = 1e999",
]
FRAGMENTS = [
    "lang",
    "year",
    "deep.er",
    '"lang"',
    "text",
    "id",
    "metadata",
    "documents",
    "=",
    "<>",
    "<",
    ">=",
    "'en'",
    "'%'",
    "2003",
    "-1.5e3",
    "TRUE",
    "NULL",
    "(",
    ")",
    ",",
    "AND",
    "OR",
    "NOT",
    "IN",
    "LIKE",
    "IS",
    ";",
    "--",
    "/*",
    "*/",
    "'",
    '"',
    "?",
    "$1",
    "UNION",
    "SELECT",
    "FROM",
    "||",
    "::",
    "\\",
    "\0",
    "é",
    "\n",
    "DROP TABLE documents",
    "read_text('/etc/passwd')",
]


@pytest.fixture(scope="module")
def twins(duckdb, encoder, tmp_path_factory):
    """Two databases with the same metadata and nothing else in common, and what their tables hold."""
    folder = tmp_path_factory.mktemp("twins")
    found = []
    for name in ("one", "two"):
        index = EmbeddingDatabase.open(folder / f"{name}.duckdb", encoder, query_prompt=name)
        index.add([replace(d, text=f"{d.text} {name}", id=f"{name} {d.id}", source=name) for d in some_documents(12)])
        found.append(index)
    yield found
    for index in found:
        index.close()


def tables(index):
    rows = index._storage.rows
    return [rows(f"SELECT * FROM {table} ORDER BY ALL") for table in ("meta", "documents", "chunks")], rows(
        "SHOW TABLES"
    )


def try_condition(twins, text):
    """Parse, and if it is a condition, run it on both: it finds the same, and changes nothing."""
    try:
        condition = parse_filter(text)
    except FilterError as error:
        first, shown, caret = str(error).rsplit("\n", 2)
        assert re.fullmatch(r" +\^", caret) and first.startswith("where: ") and shown.startswith("  ")
        return None
    assert SQL_PIECES.fullmatch(condition.sql)
    in_patterns = 4 * condition.sql.count("TRY_CAST")
    assert condition.sql.count("?") - in_patterns == len(condition.parameters)
    before = [tables(index) for index in twins]
    numbers = [sorted(matching(index._storage, condition).tolist()) for index in twins]
    assert numbers[0] == numbers[1] and [tables(index) for index in twins] == before
    return numbers[0]


@pytest.mark.parametrize("text", ATTACKS)
def test_attacks_are_refused_or_only_look_at_metadata(twins, text):
    found = try_condition(twins, text)
    assert not found  # refused, or no document meets it


@given(
    st.one_of(
        st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(" ".join),
        st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join),
        st.text(max_size=60),
        st.tuples(st.text(max_size=20), st.text(max_size=20)).map(
            lambda pair: "\"{}\" = '{}'".format(pair[0].replace('"', '""'), pair[1].replace("'", "''"))
        ),
    )
)
@settings(max_examples=400)
def test_nothing_typed_reaches_anything_but_metadata(twins, text):
    try_condition(twins, text)


NAMES = {"lang": ["lang"], "year": ["year"], "deep.er": ["deep", "er"], '"none"': ["none"], "tags": ["tags"]}
VALUES = ["'en'", "'fr'", "'2003'", "'true'", "2003", "2000.5", "-1", "TRUE", "FALSE", "''"]


def look(metadata, path):
    """The field as text, as JSON's own value or as JSON; None where there is none."""
    for key in path:
        metadata = metadata.get(key) if isinstance(metadata, dict) else None
    if metadata is None or isinstance(metadata, str):
        return metadata
    return json.dumps(metadata, separators=(",", ":"), ensure_ascii=False)


def holds(name, operator, literal):
    """A comparison in three values, written anew."""

    def evaluate(metadata):
        left = look(metadata, NAMES[name])
        if re.fullmatch(r"[-\d.]+", literal):
            right = float(literal)
            left = float(left) if left is not None and re.fullmatch(r"-?\d+(\.\d+)?", left) else None
        elif literal in ("TRUE", "FALSE"):
            left, right = left and left.lower(), literal.lower()
        else:
            right = literal.strip("'")
        if left is None:
            return None
        return {"=": left == right, "<>": left != right, "<": left < right, ">=": left >= right}[operator]

    return f"{name} {operator} {literal}", evaluate


def negated(part):
    return f"NOT ({part[0]})", lambda m: None if part[1](m) is None else not part[1](m)


def joined(word, parts):
    def evaluate(metadata):
        values = [part[1](metadata) for part in parts]
        deciding = word == "OR"
        if deciding in values:
            return deciding
        return None if None in values else not deciding

    return "(" + f" {word} ".join(part[0] for part in parts) + ")", evaluate


COMPARISON = st.one_of(
    st.builds(holds, st.sampled_from(list(NAMES)), st.sampled_from(["=", "<>"]), st.sampled_from(VALUES)),
    st.builds(holds, st.sampled_from(list(NAMES)), st.sampled_from(["<", ">="]), st.sampled_from(VALUES[:7])),
    st.sampled_from(list(NAMES)).map(lambda n: (f"{n} IS NULL", lambda m: look(m, NAMES[n]) is None)),
    st.sampled_from(list(NAMES)).map(lambda n: (f"{n} is not null", lambda m: look(m, NAMES[n]) is not None)),
    st.tuples(st.sampled_from(list(NAMES)), st.lists(st.sampled_from(VALUES), min_size=1, max_size=3)).map(
        lambda pair: (
            f"{pair[0]} IN ({', '.join(pair[1])})",
            joined("OR", [holds(pair[0], "=", value) for value in pair[1]])[1],
        )
    ),
)
CONDITION = st.recursive(
    COMPARISON,
    lambda inner: st.one_of(
        inner.map(negated),
        st.builds(joined, st.sampled_from(["AND", "OR"]), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=6,
)


@given(CONDITION)
@settings(max_examples=200)
def test_conditions_mean_what_they_say(twins, condition):
    text, evaluate = condition
    expected = [i for i, document in enumerate(some_documents(12)) if evaluate(dict(document.metadata))]
    assert try_condition(twins, text) == expected


def test_precedence_like_and_names(twins):
    def found(text):
        return try_condition(twins, text)

    assert found("lang = 'en' OR lang = 'fr' AND year = 2001") == found("lang = 'en' OR (lang = 'fr' AND year = 2001)")
    assert found("NOT lang = 'en' AND year = 2001") == found("(NOT lang = 'en') AND year = 2001")
    assert found("lang LIKE 'e%'") == [0, 3, 6, 9] and found("lang NOT LIKE '_r'") == [0, 2, 3, 5, 6, 8, 9, 11]
    assert found("lang NOT IN ('en', 'de')") == [1, 4, 7, 10]
    assert (
        found("lang == 'en'")
        == found("lang\n=\t'en'")
        == found("lang='en'")
        == found("\"lang\" = 'en'")
        == [0, 3, 6, 9]
    )
    assert found("deep.er = TRUE") == [0, 2, 4, 6, 8, 10] and found('"deep.er" = TRUE') == []
    assert found("tags.1.b.1 = 'ünï'") == [0, 4, 8]


def test_keys_of_every_kind_can_be_asked_for(duckdb, encoder, tmp_path):
    keys = [
        "a b",
        "a.b",
        "a/b",
        "a~1b",
        "~0",
        'q"q',
        "q'q",
        "$.x",
        "*",
        "",
        "é",
        "NOT",
        "x\0y",
        "a\\b",
        "0",
        "%s",
        "{}",
    ]
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add([Document(f"dog {i}", f"{i}", {key: "yes"}) for i, key in enumerate(keys)])
        for i, key in enumerate(keys):
            quoted = '"{}"'.format(key.replace('"', '""'))
            assert [hit.id for hit in index.search("dog", 99, f"{quoted} = 'yes'")] == [str(i)], key
        assert [hit.id for hit in index.search("dog", 99, "a.b = 'yes'")] == ["1"]  # a name wins over a path


def test_numbers_in_texts_are_numbers_and_nothing_else_is(duckdb, encoder, tmp_path):
    values = [
        "12",
        "+1.5e1",
        "nan",
        "inf",
        "1_000",
        " 13",
        "0x10",
        "",
        "abc",
        "-3",
        True,
        1.25,
        7,
        None,
        [14],
        {"a": 15},
        ".5",
    ]
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add([Document(f"dog {i}", f"{i}", {"n": value}) for i, value in enumerate(values)])
        found = {values[int(hit.id)] for hit in index.search("dog", 99, "n > -99999999")}
        assert found == {"12", "+1.5e1", "-3", 1.25, 7, ".5"}
        assert [hit.id for hit in index.search("dog", 99, "n = 15")] == ["1"]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", 0, "expected the name of a field"),
        ("lang", 4, "expected a comparison"),
        ("lang = en", 7, "'text' in single quotes"),
        ('lang = "en"', 7, "double quotes are for names"),
        ("lang = 'en", 7, "not closed"),
        ('"lang = 1', 0, "not closed"),
        ("lang = NULL", 7, "IS NULL"),
        ("(lang = 1", 9, "AND, OR or )"),
        ("lang = 1)", 8, "is a ( missing"),
        ("lang = 1 year = 2", 9, "AND, OR or the end"),
        ("lang IN 1", 8, "expected ("),
        ("lang IN ()", 9, "expected a value"),
        ("lang NOT 1", 9, "LIKE or IN"),
        ("lang LIKE 1", 10, "single quotes"),
        ("lang > TRUE", 5, "only be compared with ="),
        ("in = 1", 0, 'is written "IN"'),
        ("news-group = 1", 4, "a dash"),
        ("lang = 12abc", 7, "not a number"),
        ("a = 9007199254740993", 4, "cannot be distinguished"),
        ("a = 1e999", 4, "cannot be distinguished"),
        ("lang = '\ud800'", 7, "half a character"),
        ("好き = x", 5, "single quotes"),
        ("NOT " * (DEEPEST + 1) + "a = 1", 4 * DEEPEST, "inside each other"),
    ],
)
def test_a_caret_stands_under_the_mistake(text, place, message):
    with pytest.raises(FilterError) as caught:
        parse_filter(text)
    first, shown, caret = str(caught.value).rsplit("\n", 2)
    assert message in first
    width = place + sum(c in "好き" for c in text[:place])
    assert len(caret) - 3 == (width if place < 61 else 60) and shown[2:].startswith(text[: min(place, 9)])


def test_conditions_that_are_too_long_or_none():
    with pytest.raises(FilterError, match="characters"):
        parse_filter("a" * (LONGEST + 1))
    with pytest.raises(FilterError, match="expected a condition"):
        parse_filter(None)
    deep = parse_filter("(" * (DEEPEST - 1) + "a = 1" + ")" * (DEEPEST - 1))
    assert deep.parameters == ("/a", 1.0)


def test_a_field_that_no_document_has(duckdb, encoder, tmp_path):
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(some_documents(3))
        with pytest.raises(FilterError, match="no document has a field 'lnag'; there are: 'deep', 'lang'") as caught:
            index.search("dog", where="year > 1 AND lnag = 'en'")
        assert str(caught.value).endswith("\n  year > 1 AND lnag = 'en'\n               ^")
        with pytest.raises(FilterError, match=r"no document has a field 'deep\.est'"):
            index.remove(where="deep.est = 1")
        assert index.search("dog", where="none IS NULL")  # a field that is null everywhere is a field


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
    Path("empty.md").write_text("\n \n")
    lines = [("notes.txt:1", "i love soup", {}, "notes.txt"), ("notes.txt:4", "the cat", {}, "notes.txt")]
    assert read("notes.txt") == lines
    assert [text for _, text, _, _ in read("notes.txt.gz")] == ["i love soup", "the cat"]
    assert read("NOTES.MD") == [("NOTES.MD", "i love soup\n\n  \nthe cat", {}, "NOTES.MD")]
    assert len(read("NOTES.MD", text_as="lines")) == 2 and read("empty.md") == []
    assert read("notes.txt", text_as="file")[0][:2] == ("notes.txt", "i love soup\n\n  \nthe cat")
    assert read(["notes.txt", "NOTES.MD"]) == read("notes.txt") + read("NOTES.MD")


def test_tables_have_texts_ids_and_metadata(duckdb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"_id": "a", "text": 'soup, "hot"', "lang": "en"}, {"_id": "b", "text": "thé", "lang": "fr"}]
    with open("t.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["_id", "text", "lang"])
        writer.writeheader()
        writer.writerows(rows)
    Path("t.tsv").write_text('_id\ttext\tlang\na\tsoup, "hot"\ten\nb\tthé\tfr\n', encoding="utf-8")
    Path("t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    duckdb.connect().execute("COPY (SELECT * FROM 't.jsonl') TO 't.parquet' (FORMAT parquet)")
    for name in ("t.csv", "t.tsv", "t.jsonl", "t.parquet"):
        assert read(name) == [(r["_id"], r["text"], {"lang": r["lang"]}, name) for r in rows], name
    assert read("t.csv", text_column="lang", id_column="text")[0] == ('soup, "hot"', "en", {"_id": "a"}, "t.csv")
    Path("one.csv").write_text("review\nsoup\n\ntea\n")
    assert [d[:3] for d in read("one.csv")] == [("one.csv:2", "soup", {}), ("one.csv:4", "tea", {})]
    Path("deep.jsonl").write_text('{"post": {"title": "soup", "by": {"n": 1}}, "id": 7, "x": [1, null]}\n')
    assert read("deep.jsonl", text_column="post.title") == [
        ("7", "soup", {"post": {"by": {"n": 1}}, "x": [1, None]}, "deep.jsonl")
    ]


def test_parquet_of_many_types_and_names_with_patterns(duckdb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    duckdb.connect().execute(
        "COPY (SELECT i AS id, 'dog ' || i AS text, DATE '2020-01-02' AS day, 1.5::DECIMAL(4,2) AS price, [1, 2] AS l, "
        "{'a': 'x'} AS s, NULL::INT AS nothing, i % 2 = 0 AS even FROM range(3000) AS r(i)) "
        "TO 'p.parquet' (FORMAT parquet)"
    )
    found = read("p.parquet")
    assert len(found) == 3000 and found[2999][:2] == ("2999", "dog 2999")
    assert found[0][2] == {
        "day": "2020-01-02",
        "price": 1.5,
        "l": [1, 2],
        "s": {"a": "x"},
        "nothing": None,
        "even": True,
    }
    duckdb.connect().execute("COPY (SELECT 'another' AS text) TO 'p1.parquet' (FORMAT parquet)")
    shutil.copy("p.parquet", "p[1].parquet")  # to DuckDB a pattern that p1.parquet meets
    assert len(read("p[1].parquet")) == 3000
    with pytest.raises(FileNotFoundError):
        read("p*.parquet")
    Path("x.parquet").write_text("no parquet")
    with pytest.raises(InputError, match=r"x.parquet: not readable as Parquet"):
        read("x.parquet")


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("t.csv", "a,b\n1,2\n", {}, "no column for the text"),
        ("t.csv", "text,b\n1,2\n", {"text_column": "c"}, "no column 'c'"),
        ("t.csv", "text,b\n1,2\n", {"id_column": "c"}, "no column 'c'"),
        ("t.csv", "text,b,b\n1,2,3\n", {}, "2 columns are named 'b'"),
        ("t.csv", "text,id\n1\n", {}, "line 2: 1 column, but the header has 2"),
        ("t.csv", "text,id\n1,\n", {}, "id in 'id' must be"),
        ("t.csv", "text,id\n1,2\n", {"id_column": "text"}, "both text and id"),
        ("t.csv", "", {}, "empty; expected a header row"),
        ("t.jsonl", '{"text": 5}', {}, "the field 'text' must be a string, got 5"),
        ("t.jsonl", '{"text": "a", "x": NaN}', {}, "metadata of document"),
        ("t.jsonl", '{"text": "a", "id": 1.5}', {}, "id in 'id' must be"),
        ("t.jsonl", '{"text": "a", "x": "\\ud800"}', {}, "half a character"),
        ("t.txt", b"\xff\xfea", {}, "UTF-16"),
    ],
)
def test_files_that_cannot_be_read_as_asked(tmp_path, name, content, options, message):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=re.escape(message)):
        read(file, **options)


# ------------------------------------------------------------------------------------------------ refusing


def test_another_models_vectors(duckdb, encoder, tmp_path):
    other = SentenceEncoder(write_model(tmp_path / "other", seed=1))
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(["dog"])
    before = contents(tmp_path / "x.duckdb")
    for read_only in (False, True):
        with pytest.raises(OriginError, match="vectors of two models cannot be compared"):
            EmbeddingDatabase.open(tmp_path / "x.duckdb", other, read_only=read_only)
    same_contents(contents(tmp_path / "x.duckdb"), before)
    with EmbeddingDatabase.open(tmp_path / "x.duckdb") as index:
        assert index.info().fingerprint == encoder.fingerprint()
        with pytest.raises(DatabaseError, match="opened without an encoder"):
            index.search("dog")
        with pytest.raises(DatabaseError, match="opened without an encoder"):
            index.add(["cat"])
        assert index.search_vectors(encoder.encode("dog"))[0][0].text == "dog"


def test_an_encoder_with_another_model_is_another_model(duckdb, encoder, tmp_path):
    """`with_model` keeps the folder, but its vectors are no longer the folder's."""
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(["dog"])
    trained = encoder.with_model(replace(encoder.model, truncate_dim=5))
    assert trained.fingerprint() != encoder.fingerprint()
    with pytest.raises(OriginError, match="model"):
        EmbeddingDatabase.open(tmp_path / "x.duckdb", trained)


def test_vectors_are_loaded_however_little_memory_duckdb_is_left_with(duckdb, encoder, tmp_path, monkeypatch):
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(some_documents(30))
        before = index.search("cat", top_k=3)
    tried = []
    small_cache = Storage._small_cache

    def scarce(self, cache):
        tried.append(cache)
        return small_cache(self, cache if len(tried) > 2 else 1_000_000)

    monkeypatch.setattr(Storage, "_small_cache", scarce)
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder, in_sql=False) as index:
        assert index.search("cat", top_k=3) == before
    assert tried == [storage_module.LEAST_CACHE * 2**i for i in range(len(tried))]
    monkeypatch.setattr(Storage, "_small_cache", lambda self, cache: small_cache(self, 1_000))
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder, in_sql=False) as index:
        with pytest.raises(DatabaseError, match="not enough memory"):
            index.search("cat")
        monkeypatch.undo()
        assert index.search("cat", top_k=3) == before  # and the limit is what it was


def test_a_model_that_compares_in_another_way(duckdb, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    edit_json(folder / "config_sentence_transformers.json", similarity_fn_name="manhattan")
    with pytest.raises(ValueError, match="this model compares by 'manhattan'"):
        EmbeddingDatabase.open(tmp_path / "x.duckdb", SentenceEncoder(folder))
    assert not (tmp_path / "x.duckdb").exists()


def test_a_second_process_is_told_which_one_has_it(duckdb, encoder, tmp_path):
    code = """
        import sys
        from pathlib import Path
        from minisbert.search.storage import Storage
        Storage(Path("x.duckdb"), read_only=sys.argv[1] == "read")
    """
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        index.add(["dog"])
        for mode in ("read", "write"):
            done = run_code(code, tmp_path, mode)
            assert done.returncode == 1
            assert f"DatabaseError: x.duckdb: another process, number {os.getpid()}, has it open" in done.stderr
        index.add(["cat"])
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", read_only=True) as index:
        assert run_code(code, tmp_path, "read").returncode == 0  # several may read
        assert run_code(code, tmp_path, "write").returncode == 1
        with pytest.raises(DatabaseError, match="read-only"):
            index.remove([], where="lang = 'en'") if index.info().fields else index.remove(
                [index.search_vectors(encoder.encode("dog"))[0][0].id]
            )
        assert len(index) == 2


def test_files_that_are_no_database(duckdb, encoder, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("hello " * 100)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "sqlite").write_bytes(b"SQLite format 3\0" + bytes(5000))  # for which DuckDB would fetch an extension
    duckdb.connect(str(tmp_path / "other.duckdb")).execute("CREATE TABLE t (x INT)").fetchall()
    for name, message in (
        ("missing", "does not exist; create it with"),
        ("folder", "a folder or device"),
        ("text", "not a DuckDB file"),
        ("empty", "not a DuckDB file"),
        ("sqlite", "not a DuckDB file"),
        ("other.duckdb", "not one that `minisbert index` created"),
    ):
        for options in ({"read_only": True}, {}):
            with pytest.raises(DatabaseError, match=f"{name}: .*{message}"):
                EmbeddingDatabase.open(tmp_path / name, **options)
    (tmp_path / "left.duckdb.wal").write_bytes(b"what a removed database has left")
    with pytest.raises(DatabaseError, match=r"left.duckdb.wal: already exists"):
        EmbeddingDatabase.open(tmp_path / "left.duckdb", encoder)
    with pytest.raises(DatabaseError, match="does not exist; create it first"):
        EmbeddingDatabase.open(tmp_path / "no" / "x.duckdb", encoder)
    create(tmp_path / "new.duckdb", 3, {"settings": {}})
    connection = duckdb.connect(str(tmp_path / "new.duckdb"))
    connection.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'").fetchall()
    connection.close()
    with pytest.raises(DatabaseError, match="schema version 99, this minisbert reads 1"):
        EmbeddingDatabase.open(tmp_path / "new.duckdb")


def test_damage_is_said_wherever_it_is(duckdb, encoder, tmp_path):
    file = tmp_path / "x.duckdb"
    with EmbeddingDatabase.open(file, encoder) as index:
        index.add([Document(f"{d.text} {i}", f"{i}") for i in range(40) for d in some_documents(20)[i % 20 :][:1]])
    whole = file.read_bytes()
    intact = contents(file)

    def use():
        with EmbeddingDatabase.open(file, encoder, read_only=True, in_sql=False) as index:
            index.info()
            index.search("dog", 40)
        return contents(file)

    said = 0
    for place in [*range(0, 3 * 4096, 512), *range(3 * 4096, len(whole), len(whole) // 25)]:
        damaged = bytearray(whole)
        for i in range(place, min(place + 64, len(whole))):
            damaged[i] ^= 0xFF
        file.write_bytes(damaged)
        try:
            same_contents(use(), intact)  # what DuckDB does not use may be anything
        except DatabaseError as error:
            assert str(file) in str(error) and re.search("damaged|another version", str(error)), str(error)
            said += 1
    assert said >= 5
    for length in (12, 100, 5000, len(whole) // 2, len(whole) - 4096):
        file.write_bytes(whole[:length])
        try:
            same_contents(use(), intact)
        except DatabaseError as error:
            assert "damaged" in str(error), str(error)
    file.write_bytes(whole)
    same_contents(use(), intact)


def test_duckdb_is_asked_for_in_one_line(encoder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ValueError, match=r"^the embedding database needs duckdb: pip install -e '.\[search\]'$"):
        EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder)
    with pytest.raises(ValueError, match="needs duckdb"):
        list(read_documents(__file__, input_format="parquet"))
    assert list(tmp_path.iterdir()) == []


def test_two_in_one_process_cannot_double_a_document(duckdb, encoder, tmp_path):
    documents = some_documents(5)
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as one:
        with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as two:
            one.add(documents)
            assert two.add(documents).unchanged == 5
        with pytest.raises(DatabaseError, match="open in another way"):
            EmbeddingDatabase.open(tmp_path / "x.duckdb", read_only=True)
    assert len(contents(tmp_path / "x.duckdb")) == 5


# ------------------------------------------------------------------------------------------------ processes


def run_code(code, folder, *arguments):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=120,
    )


BUILDER = """
    import sys
    sys.path.insert(0, {tests!r})
    from test_database import KILLED, some_documents
    from minisbert import SentenceEncoder
    from minisbert.search.database import EmbeddingDatabase

    def told(documents):
        for document in documents:
            print(document.id, flush=True)
            yield document

    encoder = SentenceEncoder({model!r})
    print("ready", flush=True)
    with EmbeddingDatabase.open(sys.argv[1], encoder) as index:
        index.add(told(some_documents(KILLED, version=1)), block_documents=5)
"""
KILLED = 300


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_killed_at_twenty_random_moments(duckdb, model, encoder, tmp_path):
    """Four databases, each killed five times in a row; two of them begin with older versions of the documents."""
    rng = random.Random(11)
    expected, older = some_documents(KILLED, version=1), some_documents(KILLED)[: KILLED // 2]
    with EmbeddingDatabase.open(tmp_path / "whole.duckdb", encoder) as index:
        index.add(expected, block_documents=5)
    whole = contents(tmp_path / "whole.duckdb")
    with EmbeddingDatabase.open(tmp_path / "older.duckdb", encoder) as index:
        index.add(older)
    old = contents(tmp_path / "older.duckdb")
    code = textwrap.dedent(BUILDER.format(tests=str(Path(__file__).parent), model=str(model)))
    for run in range(4):
        file = tmp_path / f"{run}.duckdb"
        before = {}
        if run % 2:
            shutil.copy(tmp_path / "older.duckdb", file)
            before = old
        for step in range(5):
            drawn = rng.randrange(step * KILLED // 5, (step + 1) * KILLED // 5) if run + step else 0
            kill_somewhere(code, file, drawn, rng.random() / 50)
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


def kill_somewhere(code, file, drawn, seconds):
    """Start a build, and kill it some moments after so many documents have been read; 0: as it makes the file."""
    command = [sys.executable, "-c", code, str(file)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=one_thread) as process:
        for _ in range(1 + drawn):
            process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of a file")
def test_a_disk_that_fills_loses_nothing(duckdb, model, encoder, tmp_path):
    code = f"""
        import os, resource, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_database import some_documents
        from minisbert import SentenceEncoder
        from minisbert.search.database import EmbeddingDatabase
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with EmbeddingDatabase.open("x.duckdb", SentenceEncoder({str(model)!r})) as index:
            index.add(some_documents(20))
            limit = os.path.getsize("x.duckdb") + 150_000
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            index.add(some_documents(5000), block_documents=20)
    """
    done = run_code(code, tmp_path)
    assert done.returncode == 1
    assert "DatabaseError: x.duckdb: the disk is full" in done.stderr
    kept = contents(tmp_path / "x.duckdb")
    assert 20 < len(kept) < 5000 and len(kept) % 20 == 0
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder) as index:
        report = index.add(some_documents(600))
        assert report.unchanged == min(600, len(kept))
    with EmbeddingDatabase.open(tmp_path / "y.duckdb", encoder) as index:
        index.add(some_documents(max(600, len(kept))))
    same_contents(contents(tmp_path / "x.duckdb"), contents(tmp_path / "y.duckdb"))


def test_making_a_database_is_all_or_nothing(duckdb, encoder, tmp_path, monkeypatch):
    def failing(source, target):
        assert Path(source).name.endswith(".unfinished")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage_module.os, "link", failing)
        with pytest.raises(KeyboardInterrupt):
            EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder)
    assert list(tmp_path.iterdir()) == []

    def unable(source, target):
        raise OSError("this file system has no links")

    monkeypatch.setattr(storage_module.os, "link", unable)
    EmbeddingDatabase.open(tmp_path / "x.duckdb", encoder).close()
    assert [file.name for file in tmp_path.iterdir()] == ["x.duckdb"]


def test_width_is_the_models(duckdb, tmp_path):
    folder = write_model(tmp_path / "model", config=replace(TINY, hidden_size=24, num_attention_heads=3))
    with EmbeddingDatabase.open(tmp_path / "x.duckdb", SentenceEncoder(folder, dtype="float64")) as index:
        index.add(["dog"])
        assert index.info().width == 24 and index.search("dog")[0].score == pytest.approx(1, abs=SQL_TOLERANCE)


def test_the_benchmark_measures_a_database_that_is_as_ours(duckdb):
    measured = time_database(300, width=16, queries=3)
    assert all(value > 0 for value in (measured.load_s, measured.p50_ms, measured.where_p50_ms, measured.sql_p50_ms))
    assert measured.p50_ms <= measured.p95_ms and measured.file_mib > 300 * 16 * 4 / 2**20
