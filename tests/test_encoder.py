"""SentenceEncoder: shapes, order, batches, edges and errors, on a tiny model; golden numbers on the real one."""

from contextlib import suppress
from importlib import import_module

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import COMPANY, TEXTS, tiny_dense, write_model
from tqdm import tqdm

from minisbert import Client, SentenceEncoder, parallel
from minisbert.analysis import calibration
from minisbert.analysis.classifier import cleaned
from minisbert.evaluation.classification import LabelledTexts
from minisbert.evaluation.sts import StsPairs
from minisbert.model.params import flatten
from minisbert.model.pooling import Dense, Normalize, Pooling
from minisbert.model.tokens import TruncationWarning
from minisbert.nearest import paraphrase_mining
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


class ArrowColumn:
    """It iterates over scalars of its own."""

    def __iter__(self):
        raise NotImplementedError

    def to_pylist(self):
        return THREE


class Table:
    """What is asked of a frame, for machines without pandas: it iterates over its columns and counts its rows."""

    columns, shape = ["text"], (3, 1)

    def __iter__(self):
        return iter(self.columns)

    def __len__(self):
        return 3


COLUMNS, FRAMES = [ArrowColumn()], [Table()]
for library in ("pandas", "polars"):
    with suppress(ImportError):
        COLUMNS.append(import_module(library).Series(THREE))
        FRAMES.append(import_module(library).DataFrame({"text": THREE}))
ONE_PASS = [
    lambda: (text for text in THREE),
    *(lambda length=length: Once(THREE, length) for length in (3, 0, 5, None)),
    lambda: tqdm((text for text in THREE), total=3, disable=True),
    lambda: tuple(map(np.str_, THREE)),
    lambda: dict.fromkeys(THREE).keys(),
    lambda: np.array(THREE, object),
    *(lambda column=column: column for column in COLUMNS),
]
NO_TEXTS = [  # and what `encode` says about them
    (lambda: None, "got NoneType"),
    (lambda: b"soup", "got bytes"),
    (lambda: dict.fromkeys(THREE, "soup"), "got dict"),
    (lambda: set(THREE), "got set"),
    (lambda: np.array("soup"), r"got ndarray of shape \(\)"),
    (lambda: np.array([THREE]), r"got ndarray of shape \(1, 3\)"),
    (lambda: ["soup", None, "cat"], r"sentences\[1\].*got NoneType"),
    (lambda: [b"soup", b"cat", b"dog"], r"sentences\[0\].*got bytes"),
    (lambda: [["soup", "cat"], ["soup", "dog"], ["a", "b"]], r"\[0\].*got list .*cross-encoder"),
    (lambda: Once(["soup", "cat", float("nan")], 3), r"sentences\[2\].*float nan"),
    *((lambda frame=frame: frame, r'of shape \(3, 1\); .*frame\["text"\]') for frame in FRAMES),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    modules = (Pooling(), tiny_dense(12, 8), Normalize())
    return SentenceEncoder(write_model(folder, modules=modules))


def test_shapes_and_dtypes(tiny):
    assert tiny.get_sentence_embedding_dimension() == 8
    assert (tiny.encode("soup").shape, tiny.encode(["soup"]).shape, tiny.encode([]).shape) == ((8,), (1, 8), (0, 8))
    assert tiny.encode(TEXTS).dtype == tiny.encode([]).dtype == np.float32
    strips = tiny.encode(TEXTS, output_value="token_embeddings")
    assert [strip.shape for strip in strips] == [(length, 12) for length in tiny.tokenize(TEXTS).lengths]
    assert tiny.encode("soup", output_value="token_embeddings").shape == (3, 12)
    assert tiny.encode([], output_value="token_embeddings") == []


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    texts=st.lists(st.text(alphabet="abc soup.", max_size=12), min_size=1, max_size=12),
    seed=st.integers(0, 99),
    batch_size=st.none() | st.integers(1, 20),
    budget=st.sampled_from([1, 10, 50, 1024, 100_000]),
)
def test_order_company_batches_and_budget_do_not_change_a_vector(tiny, monkeypatch, texts, seed, batch_size, budget):
    alone = [tiny.encode(text, overflow="truncate") for text in texts]
    order = np.random.default_rng(seed).permutation(len(texts))
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "BATCH_TOKENS", budget)
        found = tiny.encode([texts[i] for i in order], batch_size=batch_size, overflow="truncate")
    np.testing.assert_allclose(found, np.array(alone)[order], atol=COMPANY)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
def test_weights_that_overflow_give_an_error_and_no_nan(tmp_path):
    huge = Dense(np.full((12, 12), 1e6, np.float32), None, "identity")
    folder = write_model(tmp_path / "huge", modules=(Pooling(), *[huge] * 6, Normalize()))
    with pytest.raises(ValueError, match=r"encode: float32 overflowed: the weights are so large"):
        SentenceEncoder(folder).encode(TEXTS)
    assert np.isfinite(SentenceEncoder(folder, dtype="float64").encode(TEXTS)).all()


def test_prompts(tmp_path):
    """Given, named, by default, of the constructor (E5 and BGE folders carry none), never unasked."""
    folder = write_model(tmp_path / "model")
    plain, prompts = SentenceEncoder(folder), {"query": "the cat ", "passage": "dog "}
    encoder = SentenceEncoder(folder, prompts=prompts)
    by_default = SentenceEncoder(folder, prompts=prompts, default_prompt_name="query")
    settings_ = {"prompts": {"query": "the cat ", "nothing": None}, "default_prompt_name": "query"}
    of_folder = SentenceEncoder(write_model(tmp_path / "prompts", sentence_settings=settings_))
    assert (
        encoder.prompts == prompts and plain.prompts == {} and of_folder.prompts == {"query": "the cat ", "nothing": ""}
    )
    for found, text in (
        (encoder.encode("soup"), "soup"),
        (encoder.encode("soup", prompt_name="query"), "the cat soup"),
        (encoder.encode("soup", prompt="mat "), "mat soup"),
        (encoder.encode_query("soup"), "the cat soup"),
        (encoder.encode_query("soup", None, "mat "), "mat soup"),
        (encoder.encode_document(["soup"])[0], "dog soup"),
        (encoder.encode_document("soup", prompt_name="query"), "the cat soup"),
        (by_default.encode("soup"), "the cat soup"),
        (of_folder.encode("soup"), "the cat soup"),
        (of_folder.encode("soup", prompt=""), "soup"),
        (plain.encode_query("soup"), "soup"),
        (plain.encode_document("soup"), "soup"),
        (plain.encode("soup", prompt_name="query"), "soup"),
    ):
        np.testing.assert_allclose(found, plain.encode(text), atol=COMPANY)
    # what decides a vector unasked decides the fingerprint
    assert encoder.fingerprint() == plain.fingerprint() != by_default.fingerprint()
    without = SentenceEncoder(folder, default_prompt_name="query")  # known to every model
    without.save(tmp_path / "saved")
    np.testing.assert_allclose(SentenceEncoder(tmp_path / "saved").encode("soup"), plain.encode("soup"), atol=COMPANY)
    with pytest.raises(ValueError, match="'query' is missing, the default"):
        by_default.prompts = {"passage": "dog "}
    with pytest.raises(TypeError, match="does not support item assignment"):
        encoder.prompts["query"] = "query: "


def test_a_prompt_that_is_left_out_of_the_pooling(tmp_path):
    encoder = SentenceEncoder(write_model(tmp_path / "instructor", modules=(Pooling(include_prompt=False),)))
    strip = encoder.encode("the cat soup", output_value="token_embeddings")  # [CLS] the cat soup [SEP]
    np.testing.assert_allclose(encoder.encode("soup", prompt="the cat "), strip[3:].mean(axis=0), atol=COMPANY)
    np.testing.assert_array_equal(encoder.encode("soup"), encoder.encode("soup", prompt=""))


# -------------------------------------------------------------------------------------------- what counts as texts


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
def test_what_is_read_once_gives_what_a_list_gives_and_what_is_no_texts_is_refused(tiny, entry):
    """Whatever ``__len__`` says, and with memory around that holds other numbers."""
    expected = ENTRIES[entry](tiny, THREE)
    for make in ONE_PASS:
        np.full((3, 8), 7.0, np.float32)  # freed: what is not written looks like this
        np.testing.assert_allclose(ENTRIES[entry](tiny, make()), expected, atol=COMPANY, err_msg=repr(make()))
    for make, message in NO_TEXTS:
        with pytest.raises(ValueError, match=message if entry == "encode" else "expected|must be|an example"):
            ENTRIES[entry](tiny, make())


# ------------------------------------------------------------------------------------------------------ refusals

REFUSED = [
    *[("output_value", "tokens"), ("overflow", "cut"), ("batch_size", 0), ("batch_size", "a"), ("batch_size", True)],
    *[("num_threads", 1.5), ("num_threads", 2**64), ("truncate_dim", "3"), ("truncate_dim", 9)],
    *[("normalize_embeddings", "no"), ("deterministic", None), ("show_progress_bar", "no")],
    *[("prompt", 5), ("prompt_name", ["a"]), ("prompt_name", "nothing")],
]
REFUSED_BY_THE_CONSTRUCTOR = [
    *[("max_seq_length", value) for value in (2, 17, "5")],
    *[("dtype", value) for value in ("float16", "zzz", None, {"float32": 1})],
    *[("prompts", {"query": 5}), ("prompts", "query"), ("default_prompt_name", "passage"), ("default_prompt_name", 5)],
    *[("truncate_dim", 13), ("similarity_fn_name", "angular"), ("local_files_only", "no"), ("device", "cuda")],
]


def test_arguments_that_are_refused(tiny):
    for name, value in REFUSED:
        with pytest.raises(ValueError, match=name):
            tiny.encode(["soup"], **{name: value})
    with pytest.raises(ValueError, match="pass the texts once"):
        tiny.encode(["soup"], sentences=["soup"])
    with pytest.raises(ValueError, match="block_texts"):
        list(tiny.encode_stream(THREE, block_texts=0))
    with pytest.raises(ValueError, match="model"):
        SentenceEncoder(5)
    for name, value in REFUSED_BY_THE_CONSTRUCTOR:
        said = "prompt" if "prompt" in name else name
        with pytest.raises(ValueError, match=said):
            SentenceEncoder(tiny.folder, **{name: value})
        if name in ("max_seq_length", "truncate_dim", "similarity_fn_name", "prompts", "default_prompt_name"):
            before = getattr(tiny, name)
            with pytest.raises(ValueError, match=said):
                setattr(tiny, name, value)
            assert getattr(tiny, name) == before


# ----------------------------------------------------------------------------------------------- what else it does


def test_a_long_text_warns_once_and_is_cut(tiny):
    long = "cat " * 50
    with pytest.warns(TruncationWarning, match="2 of 3 texts are longer .* lost 72 tokens") as caught:
        vectors = tiny.encode([long, "soup", long])
    assert len(caught) == 1
    np.testing.assert_allclose(vectors[0], tiny.encode("cat " * 14), atol=COMPANY)
    with pytest.raises(ValueError, match="lost 36 tokens"):
        tiny.encode(long, overflow="error")
    for name in ("encode", "encode_query", "tokenize", "trace"):
        with pytest.warns(TruncationWarning) as caught:
            getattr(tiny, name)([long])
        assert caught[0].filename == __file__, f"{name}: a warning names the line that called"


def test_the_trace_is_the_computation(tiny):
    texts = ["the cat sat", "soup"]
    before = [array.copy() for array in flatten(tiny.model.params)]
    trace = tiny.trace(texts)
    np.testing.assert_allclose(trace.sentence_embedding, tiny.encode(texts), atol=COMPANY)
    tensors = trace.tensors()
    assert tensors["layers.1.attention.probs.0"].shape == (1, 3, 5, 5)
    assert tensors["layers.1.attention.probs.1"].shape == (1, 3, 3, 3)
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    assert all(np.array_equal(a, b) for a, b in zip(before, flatten(tiny.model.params), strict=True))
    with pytest.raises(ValueError, match="at least one text"):
        tiny.trace([])
    wide = SentenceEncoder(tiny.folder, dtype="float64")
    assert wide.encode(TEXTS).dtype == np.float64
    assert all(tensor.dtype == np.float64 for tensor in wide.trace(TEXTS).tensors().values())


def test_the_progress_bar_goes_to_stderr_if_there_is_one(tiny, capsys, monkeypatch):
    expected = tiny.encode(TEXTS)
    assert capsys.readouterr().err == ""
    tiny.encode(TEXTS, show_progress_bar=True)
    out, err = capsys.readouterr()
    assert out == "" and f"{len(TEXTS)}/{len(TEXTS)}" in err
    monkeypatch.setattr("sys.stderr", None)
    np.testing.assert_allclose(tiny.encode(TEXTS, show_progress_bar=True), expected, atol=COMPANY)


def test_similarity_and_dimensions_are_the_folders_or_set(tmp_path):
    a, b = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])
    expected = {"cosine": 11 / np.sqrt(125), "dot": 11.0, "euclidean": -np.sqrt(8), "manhattan": -4.0}
    plain = SentenceEncoder(write_model(tmp_path / "plain"))
    for name, score in expected.items():
        of_folder = SentenceEncoder(write_model(tmp_path / name, sentence_settings={"similarity_fn_name": name}))
        plain.similarity_fn_name = name
        for encoder in (of_folder, plain):
            np.testing.assert_allclose(encoder.similarity(a, b), [[score]])
            np.testing.assert_allclose(encoder.similarity_pairwise(a, b), [score])
    for dim, width in ((5, 5), (12, 12), (99, 12)):  # of the folder it may be too large, as in sentence-transformers
        encoder = SentenceEncoder(write_model(tmp_path / str(dim), sentence_settings={"truncate_dim": dim}))
        np.testing.assert_array_equal(encoder.encode(TEXTS), plain.encode(TEXTS)[:, :width])
        np.testing.assert_array_equal(encoder.encode(TEXTS, truncate_dim=7), plain.encode(TEXTS)[:, :7])
        encoder.save(tmp_path / f"saved-{dim}")
        assert SentenceEncoder(tmp_path / f"saved-{dim}").encode([]).shape == (0, width)
        encoder.truncate_dim = 3
        assert encoder.get_embedding_dimension() == 3 and encoder.encode("soup").shape == (3,)


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
        "| Modules | BERT of 2 layers, Pooling (mean), Dense, Normalize |",
    ):
        assert line in card.splitlines()
    with pytest.raises(ValueError, match="train_datasets"):
        tiny.save_pretrained(tmp_path / "not", train_datasets="owner/pairs")
    assert not (tmp_path / "not").exists()


def test_published_and_recorded_numbers(weights_folder):
    """Of the real model: published by others, or recorded from sentence-transformers."""
    real = SentenceEncoder(weights_folder)
    vectors = real.encode(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    scores = real.similarity(vectors, vectors)
    np.testing.assert_allclose(scores[np.triu_indices(3, 1)], [0.6660, 0.1046, 0.1411], atol=5e-5)
    known = [-3.44772786e-02, 3.10232081e-02, 6.73494861e-03, 2.61090137e-02, -3.93620506e-02, -1.60302490e-01]
    np.testing.assert_allclose(real.encode("hello world")[:6], known, atol=3e-7)
    for name in (None, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", str(weights_folder)):
        np.testing.assert_array_equal(SentenceEncoder(name).encode("soup"), real.encode("soup"))
