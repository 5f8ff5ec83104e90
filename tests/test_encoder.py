"""SentenceEncoder: shapes, order, batches, edges and errors, on a tiny model; golden numbers on the real one."""

from contextlib import suppress
from importlib import import_module

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import COMPANY, TEXTS, TINY, tiny_dense, write_model
from tqdm import tqdm

from minisbert import Client, SentenceEncoder, parallel
from minisbert.analysis import calibration
from minisbert.analysis.classifier import cleaned
from minisbert.evaluation.classification import LabelledTexts
from minisbert.evaluation.sts import StsPairs
from minisbert.model.pooling import Dense, Normalize, Pooling
from minisbert.model.tokens import TruncationWarning
from minisbert.search.database import EmbeddingDatabase
from minisbert.search.nearest import paraphrase_mining
from minisbert.search.router import Router
from minisbert.search.routes import Route
from minisbert.training.data import Examples
from minisbert.training.losses import multiple_negatives_ranking
from minisbert.training.step import value_and_gradients

THREE = ["i love soup", "the cat sat on the mat", "dog"]


class Once:
    """A cursor, a queue, a bar around a generator: one pass, and a length that may be right, wrong or an error."""

    def __init__(self, texts, length):
        self.texts, self.length = iter(texts), length

    def __iter__(self):
        return self.texts

    def __len__(self):
        if self.length is None:
            raise TypeError("object of type 'generator' has no len()")
        return self.length


class Table:
    """What is asked of a frame, for machines without pandas: it iterates over its columns and counts its rows."""

    columns, shape = ["text"], (3, 1)

    def __iter__(self):
        return iter(self.columns)

    def __len__(self):
        return 3


class ArrowColumn:
    """It iterates over scalars of its own."""

    def __iter__(self):
        raise NotImplementedError

    def to_pylist(self):
        return THREE


def tables():
    """Frames of each library that is installed, and one of our own."""
    found = [Table()]
    for name in ("pandas", "polars"):
        with suppress(ImportError):
            found.append(import_module(name).DataFrame({"text": THREE}))
    return found


def columns():
    """Series of each library that is installed, and what is read as an Arrow column."""
    found = [ArrowColumn()]
    for name in ("pandas", "polars"):
        with suppress(ImportError):
            found.append(import_module(name).Series(THREE))
    return found


ONE_PASS = [
    lambda: (text for text in THREE),
    lambda: map(str, THREE),
    lambda: Once(THREE, 3),
    lambda: Once(THREE, 0),
    lambda: Once(THREE, 5),
    lambda: Once(THREE, None),
    lambda: tqdm((text for text in THREE), total=3, disable=True),
    lambda: tqdm((text for text in THREE), disable=True),
    lambda: tuple(map(np.str_, THREE)),
    lambda: dict.fromkeys(THREE).keys(),
    lambda: np.array(THREE),
    lambda: np.array(THREE, object),
    *(lambda column=column: column for column in columns()),
]
NO_TEXTS = [
    lambda: None,
    lambda: 5,
    lambda: b"soup",
    lambda: dict.fromkeys(THREE, "soup"),
    lambda: set(THREE),
    lambda: frozenset(THREE),
    lambda: np.array("soup"),
    lambda: np.array([THREE]),
    lambda: ["soup", None, "cat"],
    lambda: [b"soup", b"cat", b"dog"],
    lambda: [("soup",), ("cat",), ("dog",)],
    lambda: Once(["soup", "cat", float("nan")], 3),
    *(lambda table=table: table for table in tables()),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    modules = (Pooling(), tiny_dense(12, 8), Normalize())
    return SentenceEncoder(write_model(folder, modules=modules))


def test_shapes_and_dtypes(tiny):
    assert tiny.get_sentence_embedding_dimension() == 8
    assert tiny.encode("soup").shape == (8,)
    assert tiny.encode(["soup"]).shape == (1, 8)
    assert tiny.encode(TEXTS).shape == (len(TEXTS), 8)
    assert tiny.encode([]).shape == (0, 8)
    assert tiny.encode(TEXTS).dtype == np.float32
    assert tiny.encode([]).dtype == np.float32


def test_any_iterable_of_texts_in_its_order(tiny):
    expected = tiny.encode(TEXTS)
    for texts in (tuple(TEXTS), iter(TEXTS), (text for text in TEXTS), np.array(TEXTS), dict.fromkeys(TEXTS).keys()):
        np.testing.assert_array_equal(tiny.encode(texts), expected)


def test_a_string_equals_a_list_of_one(tiny):
    np.testing.assert_array_equal(tiny.encode("the cat"), tiny.encode(["the cat"])[0])


def test_token_embeddings(tiny):
    strips = tiny.encode(TEXTS, output_value="token_embeddings")
    lengths = tiny.tokenize(TEXTS).lengths
    assert [strip.shape for strip in strips] == [(length, 12) for length in lengths]
    assert tiny.encode("soup", output_value="token_embeddings").shape == (3, 12)
    assert tiny.encode([], output_value="token_embeddings") == []


def test_an_empty_text_is_two_tokens_and_a_finite_vector(tiny):
    assert tiny.tokenize("").lengths.tolist() == [2]
    assert np.isfinite(tiny.encode("")).all()
    np.testing.assert_allclose(tiny.encode(["", "  \n\t"])[1], tiny.encode(""), atol=COMPANY)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 1000])
def test_the_batch_size_does_not_matter(tiny, batch_size):
    np.testing.assert_allclose(tiny.encode(TEXTS, batch_size=batch_size), tiny.encode(TEXTS), atol=COMPANY)


@pytest.mark.parametrize("budget", [1, 10, 50, 100_000])
def test_the_token_budget_does_not_matter(tiny, budget, monkeypatch):
    expected = tiny.encode(TEXTS)
    monkeypatch.setattr(parallel, "BATCH_TOKENS", budget)
    np.testing.assert_allclose(tiny.encode(TEXTS), expected, atol=COMPANY)


def test_batches_hold_each_text_once_under_the_budget(monkeypatch):
    monkeypatch.setattr(parallel, "BATCH_TOKENS", 64)
    lengths = np.random.default_rng(0).integers(2, 40, 500)
    batches = parallel.make_batches(lengths)
    assert sorted(np.concatenate(batches)) == list(range(500))
    assert all(lengths[batch].sum() <= 64 for batch in batches)
    longest = [lengths[batch].max() for batch in batches]
    assert longest == sorted(longest, reverse=True)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(texts=st.lists(st.text(alphabet="abc soup.", max_size=12), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_shuffling_texts_shuffles_vectors(tiny, texts, seed):
    order = np.random.default_rng(seed).permutation(len(texts))
    vectors = tiny.encode(texts, overflow="truncate")
    shuffled = tiny.encode([texts[i] for i in order], overflow="truncate")
    np.testing.assert_allclose(shuffled, vectors[order], atol=COMPANY)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=st.text(max_size=15), others=st.lists(st.text(alphabet="xyz .", max_size=30), max_size=6))
def test_neighbours_do_not_change_a_text(tiny, text, others):
    alone = tiny.encode(text, overflow="truncate")
    together = tiny.encode([*others, text], overflow="truncate")[-1]
    np.testing.assert_allclose(together, alone, atol=COMPANY)


def test_normalize_embeddings_and_truncate_dim(tmp_path):
    plain = SentenceEncoder(write_model(tmp_path / "plain", modules=(Pooling(),)))
    vectors = plain.encode(TEXTS)
    assert not np.allclose(np.linalg.norm(vectors, axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(plain.encode(TEXTS, normalize_embeddings=True), axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(plain.encode(TEXTS, truncate_dim=5), vectors[:, :5])
    # cut first, then scaled, as sentence-transformers does
    both = plain.encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, rtol=1e-6)
    assert plain.encode("soup", truncate_dim=1).shape == (1,)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
def test_weights_that_overflow_give_an_error_and_no_nan(tmp_path):
    huge = Dense(np.full((12, 12), 1e6, np.float32), None, "identity")
    folder = write_model(tmp_path / "huge", modules=(Pooling(), *[huge] * 6, Normalize()))
    with pytest.raises(ValueError, match=r"encode: float32 overflowed: the weights are so large"):
        SentenceEncoder(folder).encode(TEXTS)
    assert np.isfinite(SentenceEncoder(folder, dtype="float64").encode(TEXTS)).all()


def test_prompts(tmp_path):
    settings_ = {"prompts": {"query": "the ", "passage": ""}, "default_prompt_name": None}
    encoder = SentenceEncoder(write_model(tmp_path / "prompts", sentence_settings=settings_))
    expected = encoder.encode("the soup")
    np.testing.assert_array_equal(encoder.encode("soup", prompt_name="query"), expected)
    np.testing.assert_array_equal(encoder.encode("soup", prompt="the "), expected)
    np.testing.assert_array_equal(encoder.encode("soup", prompt_name="passage"), encoder.encode("soup"))
    with pytest.raises(ValueError, match=r"prompt_name 'nothing' .*\['document', 'passage', 'query'\]"):
        encoder.encode("soup", prompt_name="nothing")
    assert encoder.prompts == settings_["prompts"]
    settings_["default_prompt_name"] = "query"
    by_default = SentenceEncoder(write_model(tmp_path / "default", sentence_settings=settings_))
    np.testing.assert_array_equal(by_default.encode("soup"), expected)
    np.testing.assert_array_equal(by_default.encode("soup", prompt=""), encoder.encode("soup"))


def test_a_prompt_that_is_left_out_of_the_pooling(tmp_path):
    folder = write_model(tmp_path / "instructor", modules=(Pooling(include_prompt=False),))
    encoder = SentenceEncoder(folder)
    strip = encoder.encode("the cat soup", output_value="token_embeddings")  # [CLS] the cat soup [SEP]
    np.testing.assert_allclose(encoder.encode("soup", prompt="the cat "), strip[3:].mean(axis=0), atol=COMPANY)
    np.testing.assert_allclose(encoder.encode("soup"), encoder.encode("soup", prompt=""), atol=0)


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        (5, "expected a text or an iterable of texts, got int"),
        (None, "expected a text or an iterable of texts, got NoneType"),
        (b"soup", "got bytes"),
        ({"a": "b"}, "got dict"),
        ({"a", "b"}, r"got set, which has no order; pass sorted"),
        (np.array("soup"), r"got ndarray of shape \(\); .*\.item\(\)"),
        (np.array([["soup", "cat"]]), r"got ndarray of shape \(1, 2\)"),
        (Table(), r'got Table of shape \(3, 1\); pass one column, such as frame\["text"\]'),
        (["soup", None], r"sentences\[1\]: expected a text \(str\), got NoneType"),
        (["soup", float("nan")], r"sentences\[1\].*float nan.*missing values"),
        ([["soup", "cat"]], r"sentences\[0\].*got list .* a pair is scored by a cross-encoder"),
        ([("soup", "cat", "dog")], r"sentences\[0\].*got tuple .* pass the texts alone"),
        ([b"soup"], r"sentences\[0\].*got bytes"),
    ],
)
def test_what_is_no_text_is_refused(tiny, sentences, message):
    for method in (tiny.encode, tiny.tokenize, tiny.trace):
        with pytest.raises(ValueError, match=message):
            method(sentences)


# Every way in for a sequence of texts: what it makes of THREE, as an array.
ENTRIES = {
    "encode": lambda e, texts: e.encode(texts),
    "encode, token vectors": lambda e, texts: np.concatenate(e.encode(texts, output_value="token_embeddings")),
    "encode, chunks": lambda e, texts: e.encode(texts, overflow="chunk"),
    "encode_stream": lambda e, texts: np.concatenate(list(e.encode_stream(texts, block_texts=2))),
    "encode_chunks": lambda e, texts: np.concatenate([found.embeddings for found in e.encode_chunks(texts)]),
    "tokenize": lambda e, texts: e.tokenize(texts).token_ids,
    "trace": lambda e, texts: e.trace(texts).sentence_embedding,
    "Client": lambda e, texts: client_of(e).embed(texts).embeddings,
    "paraphrase_mining": lambda e, texts: np.array(paraphrase_mining(e, texts)),
    "Router": lambda e, texts: Router(e, [Route("a", ["dog"])]).embed(texts),
    "route_all": lambda e, texts: np.array([c.score for c in Router(e, [Route("a", ["dog"])]).route_all(texts)]),
    "Route": lambda e, texts: Router(e, [Route("a", texts)]).vectors,
    "calibration": lambda e, texts: calibration.fit(e, texts).scores,
    "classifier": lambda e, texts: e.encode(cleaned(texts, unescape=True)),
    "LabelledTexts": lambda e, texts: e.encode(LabelledTexts("set", texts, ["a", "b", "c"]).texts),
    "StsPairs": lambda e, texts: e.encode(StsPairs("set", texts, THREE, np.array([1.0, 2.0, 3.0])).sentences1),
    "Examples": lambda e, texts: e.encode(Examples("pairs", (THREE, texts)).columns[1]),
    "training step": lambda e, texts: value_and_gradients(
        e.model, [texts, THREE], lambda v: multiple_negatives_ranking(*v)
    ).embeddings[0],
}


def client_of(encoder):
    client = Client()
    client._encoder = encoder
    return client


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_can_be_read_once_gives_what_a_list_gives(tiny, entry):
    """Whatever ``__len__`` says, and with memory around that holds other numbers."""
    expected = ENTRIES[entry](tiny, THREE)
    for make in ONE_PASS:
        np.full((3, 8), 7.0, np.float32)  # freed: what is not written looks like this
        np.testing.assert_allclose(ENTRIES[entry](tiny, make()), expected, atol=COMPANY, err_msg=repr(make()))


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_no_sequence_of_texts_is_refused_everywhere(tiny, entry):
    for make in NO_TEXTS:
        with pytest.raises(ValueError, match=r"expected|must be|an example"):
            ENTRIES[entry](tiny, make())


def test_the_database_reads_texts_and_queries_as_encode_does(tiny, duckdb, tmp_path):
    for i, make in enumerate(ONE_PASS):
        with EmbeddingDatabase.open(tmp_path / f"{i}.duckdb", tiny) as index:
            index.add(make())
            found = [[hit.text for hit in hits] for hits in index.search(make(), top_k=1)]
            assert found == [[text] for text in THREE]
            for bad in NO_TEXTS if i == 0 else ():
                for method in (index.add, index.search):
                    with pytest.raises(ValueError, match="expected"):
                        method(bad())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_value": "tokens"}, "output_value must be"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": "a"}, "batch_size must be a whole number, at least 1, got 'a'"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"num_threads": 1.5}, "num_threads must be a whole number"),
        ({"num_threads": 2**64}, "num_threads"),
        ({"overflow": "chunk", "composition": None}, "encode_chunks"),
        ({"truncate_dim": "3"}, "truncate_dim must be a whole number, from 1 to 8, got '3'"),
        ({"normalize_embeddings": "no"}, "normalize_embeddings must be True or False, got 'no'"),
        ({"deterministic": None}, "deterministic must be True or False"),
        ({"show_progress_bar": "no"}, "show_progress_bar must be True or False"),
        ({"prompt": 5}, r"prompt must be a text \(str\) or None, got 5"),
        ({"prompt_name": 5}, r"prompt_name must be a text \(str\) or None, got 5"),
        ({"prompt_name": ["a"]}, "prompt_name must be a text"),
        ({"truncate_dim": 0}, "truncate_dim must be from 1 to 8, got 0"),
        ({"truncate_dim": 9}, "truncate_dim must be from 1 to 8, got 9"),
        ({"overflow": "cut"}, "overflow must be"),
    ],
)
def test_arguments_are_checked(tiny, arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny.encode(["soup"], **arguments)


@pytest.mark.parametrize("value", [2, 17, 0, -1, 3.0, "5", None, True])
def test_max_seq_length_is_checked(tiny, value):
    with pytest.raises(ValueError, match="max_seq_length: expected a whole number from 3"):
        tiny.max_seq_length = value
    assert tiny.max_seq_length == TINY.max_position_embeddings


def test_dtype_is_checked(tmp_path):
    folder = write_model(tmp_path / "model")
    for dtype in ("float16", "int64", "complex64", "zzz", None, 5, ["float32"], {"float32": 1}):
        with pytest.raises(ValueError, match="dtype must be 'float32' or 'float64'"):
            SentenceEncoder(folder, dtype=dtype)


def test_a_long_text_warns_once_and_is_cut(tiny):
    long = "cat " * 50
    with pytest.warns(TruncationWarning, match="2 of 3 texts are longer .* lost 72 tokens") as caught:
        vectors = tiny.encode([long, "soup", long])
    assert len(caught) == 1
    np.testing.assert_allclose(vectors[0], tiny.encode("cat " * 14), atol=COMPANY)
    with pytest.raises(ValueError, match="lost 36 tokens"):
        tiny.encode(long, overflow="error")


def test_the_trace_is_the_computation(tiny):
    texts = ["the cat sat", "soup"]
    trace = tiny.trace(texts)
    np.testing.assert_allclose(trace.sentence_embedding, tiny.encode(texts), atol=COMPANY)
    tensors = trace.tensors()
    assert list(tensors)[:4] == ["embeddings.word", "embeddings.position", "embeddings.summed", "embeddings.output"]
    assert list(tensors)[-1] == "sentence_embedding"
    assert tensors["layers.1.attention.probs.0"].shape == (1, 3, 5, 5)
    assert tensors["layers.1.attention.probs.1"].shape == (1, 3, 3, 3)
    np.testing.assert_allclose(tensors["layers.0.attention.probs.0"].sum(axis=-1), 1, rtol=1e-6)
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    with pytest.raises(ValueError, match="at least one text"):
        tiny.trace([])


def test_float64_is_float64_throughout(tmp_path):
    encoder = SentenceEncoder(write_model(tmp_path / "model", modules=(Pooling(), tiny_dense(12, 8))), dtype="float64")
    assert encoder.encode(TEXTS).dtype == np.float64
    assert all(tensor.dtype == np.float64 for tensor in encoder.trace(TEXTS).tensors().values())


def test_weights_are_never_changed(tiny):
    from minisbert.model.params import flatten

    before = [array.copy() for array in flatten(tiny.model.params)]
    tiny.encode(TEXTS)
    tiny.trace(TEXTS)
    assert all(np.array_equal(a, b) for a, b in zip(before, flatten(tiny.model.params), strict=True))


def test_where_stderr_is_closed_there_is_no_bar(tiny, monkeypatch):
    expected = tiny.encode(TEXTS)
    monkeypatch.setattr("sys.stderr", None)
    np.testing.assert_allclose(tiny.encode(TEXTS, show_progress_bar=True), expected, atol=COMPANY)


def test_the_progress_bar_goes_to_stderr(tiny, capsys):
    tiny.encode(TEXTS, show_progress_bar=True)
    out, err = capsys.readouterr()
    assert out == "" and f"{len(TEXTS)}/{len(TEXTS)}" in err
    tiny.encode(TEXTS)
    assert capsys.readouterr().err == ""


def test_similarity_is_the_models_own(tmp_path):
    a, b = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])
    for name, expected in (
        ("cosine", 11 / np.sqrt(125)),
        ("dot", 11.0),
        ("euclidean", -np.sqrt(8)),
        ("manhattan", -4.0),
    ):
        folder = write_model(tmp_path / name, sentence_settings={"similarity_fn_name": name})
        encoder = SentenceEncoder(folder)
        np.testing.assert_allclose(encoder.similarity(a, b), [[expected]])
        np.testing.assert_allclose(encoder.similarity_pairwise(a, b), [expected])


# The real model: numbers published by others, or recorded from sentence-transformers (see FACTS in the docstrings).


@pytest.fixture(scope="module")
def real(weights_folder):
    return SentenceEncoder(weights_folder)


def test_the_published_example(real):
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = real.encode(texts)
    scores = real.similarity(vectors, vectors)
    np.testing.assert_allclose(scores[np.triu_indices(3, 1)], [0.6660, 0.1046, 0.1411], atol=5e-5)


def test_hello_world(real):
    known = [-3.44772786e-02, 3.10232081e-02, 6.73494861e-03, 2.61090137e-02, -3.93620506e-02, -1.60302490e-01]
    np.testing.assert_allclose(real.encode("hello world")[:6], known, atol=3e-7)


def test_all_ways_to_name_the_default_model_agree(real, weights_folder):
    expected = real.encode("soup")
    for name in (None, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", str(weights_folder)):
        np.testing.assert_array_equal(SentenceEncoder(name).encode("soup"), expected)


def test_a_batch_equals_its_texts_alone(real):
    texts = ["soup", "london is far away " * 9, "", "a b", "The quick brown fox.", "x" * 300] * 3
    together = real.encode(texts)
    alone = np.stack([real.encode(text) for text in texts])
    assert np.abs(together - alone).max() <= 1e-6
    assert np.abs(real.encode(texts[::-1])[::-1] - alone).max() <= 1e-6


def test_truncate_dim_of_the_folder_is_the_default(tmp_path):
    whole = SentenceEncoder(write_model(tmp_path / "whole"))
    for dim, width in ((5, 5), (12, 12), (99, 12)):
        folder = write_model(tmp_path / str(dim), sentence_settings={"truncate_dim": dim, "prompts": {"query": None}})
        encoder = SentenceEncoder(folder)
        assert encoder.get_sentence_embedding_dimension() == width
        np.testing.assert_array_equal(encoder.encode(TEXTS), whole.encode(TEXTS)[:, :width])
        np.testing.assert_array_equal(encoder.encode(TEXTS, truncate_dim=7), whole.encode(TEXTS)[:, :7])
        assert encoder.prompts == {"query": ""}
        encoder.save(tmp_path / f"saved-{dim}")
        assert SentenceEncoder(tmp_path / f"saved-{dim}").encode([]).shape == (0, width)
    for dim in (0, -1, 1.5, "5", True):
        with pytest.raises(ValueError, match=r"config_sentence_transformers.json: truncate_dim must be"):
            SentenceEncoder(write_model(tmp_path / f"bad-{dim}", sentence_settings={"truncate_dim": dim}))


def test_prompts_of_the_constructor(tmp_path):
    """E5 and BGE folders carry no prompts."""
    folder = write_model(tmp_path / "model")
    plain, prompts = SentenceEncoder(folder), {"query": "the cat ", "passage": "dog "}
    encoder = SentenceEncoder(folder, prompts=prompts)
    assert encoder.prompts == prompts and plain.prompts == {}
    np.testing.assert_allclose(encoder.encode("soup"), plain.encode("soup"), atol=COMPANY)  # never unasked
    np.testing.assert_allclose(encoder.encode_query("soup"), plain.encode("the cat soup"), atol=COMPANY)
    np.testing.assert_allclose(encoder.encode_document(["soup"]), plain.encode(["dog soup"]), atol=COMPANY)
    np.testing.assert_allclose(encoder.encode_query("soup", None, "mat "), plain.encode("mat soup"), atol=COMPANY)
    for encode in (plain.encode_query, plain.encode_document, lambda text: plain.encode(text, prompt_name="query")):
        np.testing.assert_allclose(encode("soup"), plain.encode("soup"), atol=COMPANY)
    by_default = SentenceEncoder(folder, prompts=prompts, default_prompt_name="query")
    np.testing.assert_allclose(by_default.encode("soup"), plain.encode("the cat soup"), atol=COMPANY)
    # what decides a vector unasked decides the fingerprint
    assert encoder.fingerprint() == plain.fingerprint() != by_default.fingerprint()
    without = SentenceEncoder(folder, default_prompt_name="query")  # known to every model
    without.save(tmp_path / "saved")
    np.testing.assert_allclose(SentenceEncoder(tmp_path / "saved").encode("soup"), plain.encode("soup"), atol=COMPANY)
    with pytest.raises(ValueError, match="'query' is missing, the default"):
        by_default.prompts = {"passage": "dog "}
    wrong_names = ({"default_prompt_name": "passage"}, {"default_prompt_name": 5})
    for wrong in ({"prompts": {"query": 5}}, {"prompts": "query"}, *wrong_names):
        with pytest.raises(ValueError, match=r"prompts: expected a dict|'passage' is none of|must be a (text|string)"):
            SentenceEncoder(folder, **wrong)
    with pytest.raises(TypeError, match="does not support item assignment"):
        encoder.prompts["query"] = "query: "


def test_dimensions_and_similarity_may_be_set(tmp_path):
    encoder = SentenceEncoder(write_model(tmp_path / "model"), truncate_dim=5, similarity_fn_name="dot")
    assert (encoder.get_embedding_dimension(), encoder.encode("soup").shape) == (5, (5,))
    assert encoder.similarity([[2.0, 0.0]], [[3.0, 0.0]]) == 6
    encoder.truncate_dim, encoder.similarity_fn_name = None, "cosine"
    assert encoder.encode("soup").shape == (12,) and encoder.similarity([[2.0, 0.0]], [[3.0, 0.0]]) == 1
    for name, value in (("truncate_dim", 13), ("truncate_dim", 0), ("similarity_fn_name", "angular")):
        with pytest.raises(ValueError, match=name):
            setattr(encoder, name, value)


def test_a_warning_names_the_line_that_called(tiny):
    long, calls = ["cat " * 50], ("encode", "encode_query", "tokenize", "trace")
    for name in calls:
        with pytest.warns(TruncationWarning) as caught:
            getattr(tiny, name)(long)
        assert caught[0].filename == __file__, name
    with pytest.warns(TruncationWarning) as caught:
        list(tiny.encode_stream(long))
    assert caught[0].filename == __file__


def test_the_model_card_says_what_is_known(tiny, tmp_path):
    known = {"train_datasets": ["owner/pairs", "my|own.tsv"], "loss": "cosent", "scores": {"STSb": 82.032}}
    tiny.save_pretrained(tmp_path / "mine", **known)
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nlibrary_name: "sentence-transformers"\n') and "# mine\n" in card
    for line in (
        'datasets: ["owner/pairs"]',  # the Hub links to them
        r"| Training data | owner/pairs, my\|own.tsv |",
        "| Loss | cosent |",
        "| Score: STSb | 82.03 |",
        "| Dimensions | 8 |",
        "| Modules | BERT of 2 layers, Pooling (mean), Dense, Normalize |",
    ):
        assert line in card.splitlines()
    assert "base_model:" not in card and f"| Base model | {tiny.name} |" in card
    np.testing.assert_allclose(SentenceEncoder(tmp_path / "mine").encode(TEXTS), tiny.encode(TEXTS), atol=COMPANY)
    tiny.save_pretrained(tmp_path / "bare", create_model_card=False)
    assert not (tmp_path / "bare" / "README.md").exists()
