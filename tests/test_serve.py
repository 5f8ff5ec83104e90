"""The server's answers: vectors are `encode`'s, refusals are OpenAI's; the clients that people use understand both."""

import base64
import json
import shutil
import subprocess

import numpy as np
import pytest
from conftest import _optional_import, skip_or_fail
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import served, tiny_encoder
from tiny import COMPANY, TEXTS

from minisbert import Client

TEXTS = [text for text in TEXTS if text]
LONG = "the cat sat on the mat . the dog ran . i love soup . the cat ran"  # 18 tokens, where the model reads 16


@pytest.fixture(scope="module")
def encoder(serve, tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def server(encoder):
    with served(encoder, keys=[b"one", b"two"]) as (service, http):
        http.headers["Authorization"] = "Bearer two"
        yield service, http


@pytest.fixture(scope="module")
def http(server):
    return server[1]


def vectors_of(answer):
    """The rows of an answer, which must be in order."""
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    rows = [item["embedding"] for item in data]
    return np.array([np.frombuffer(base64.b64decode(row), "<f4") if isinstance(row, str) else row for row in rows])


def refusal(answer):
    """The error of an answer, which must be in OpenAI's shape."""
    assert answer.status_code >= 400 and answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error


def embed(http, given, **more):
    return http.post("/v1/embeddings", json={"input": given, **more})


# -------------------------------------------------------------------------------------------------------------- vectors


def test_vectors_are_encodes_in_every_form_of_input(http, encoder):
    expected = encoder.encode(TEXTS)
    ids = [part.tolist() for part in encoder.tokenize(TEXTS).split()]
    for form in (TEXTS, ids, [part[1:-1] for part in ids]):  # with special tokens, and as OpenAI has them, without
        for encoding in ("float", "base64"):
            answer = embed(http, form, encoding_format=encoding, user="me", model=encoder.name)
            np.testing.assert_allclose(vectors_of(answer), expected, atol=COMPANY)
            tokens = sum(map(len, ids))
            assert answer.json()["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
            assert "overflow" not in answer.json()
    for form in (TEXTS[0], ids[0]):
        np.testing.assert_allclose(vectors_of(embed(http, form)), expected[:1], atol=COMPANY)
    short = vectors_of(embed(http, TEXTS, dimensions=5))
    np.testing.assert_allclose(short, encoder.encode(TEXTS, truncate_dim=5, normalize_embeddings=True), atol=COMPANY)
    assert json.loads(http.get("/v1/models").text)["data"][0]["id"] == encoder.name


@pytest.mark.parametrize("overflow", ["truncate", "chunk"])
def test_long_texts_are_cut_or_split_and_the_answer_says_so(encoder, overflow):
    with served(encoder, overflow=overflow) as (_, http):
        answer = embed(http, ["dog", LONG])
        np.testing.assert_allclose(vectors_of(answer), encoder.encode(["dog", LONG], overflow=overflow), atol=COMPANY)
        told = {"truncate": {"index": 1, "tokens_lost": 4}, "chunk": {"index": 1, "chunks": 2}}[overflow]
        assert answer.json()["overflow"] == [told]
        tokens = {"truncate": 3 + 16, "chunk": 3 + 18 + 4}[overflow]
        assert answer.json()["usage"]["prompt_tokens"] == tokens
        ids = encoder.tokenizer.encode(LONG, add_special_tokens=False).ids
        answer = embed(http, [ids])
        assert answer.json()["overflow"] == [{**told, "index": 0}]
        if overflow == "truncate":
            np.testing.assert_allclose(vectors_of(answer)[0], encoder.encode(LONG, overflow=overflow), atol=COMPANY)


def test_a_models_prompt_is_put_before_texts_and_before_ids(encoder):
    prompted = encoder.with_model(encoder.model)
    prompted.prompts = {"query": "the cat "}
    prompted.default_prompt_name = "query"
    ids = encoder.tokenizer.encode("love soup", add_special_tokens=False).ids
    with served(prompted) as (_, http):
        for form in ("love soup", ids):
            np.testing.assert_allclose(vectors_of(embed(http, form))[0], prompted.encode("love soup"), atol=COMPANY)


def test_similarity_and_tokenize_speak_as_text_embeddings_inference(http, encoder):
    asked = {"inputs": {"source_sentence": "i love soup", "sentences": ["soup", "the dog ran"]}}
    expected = encoder.similarity(encoder.encode(["i love soup"]), encoder.encode(["soup", "the dog ran"]))[0]
    np.testing.assert_allclose(http.post("/similarity", json=asked).json(), expected, atol=COMPANY)
    text = "The dog, unable"
    found = http.post("/tokenize", json={"inputs": [text, "soup"]}).json()
    assert [[token["id"] for token in tokens] for tokens in found] == [
        part.tolist() for part in encoder.tokenize([text, "soup"]).split()
    ]
    assert [token["text"] for token in found[0]] == ["[CLS]", "The", "dog", ",", "un", "able", "[SEP]"]
    (bare,) = http.post("/tokenize", json={"inputs": text, "add_special_tokens": False}).json()
    assert bare == [token for token in found[0] if not token["special"]]
    assert all(text[token["start"] : token["stop"]] == token["text"] for token in bare)


# ------------------------------------------------------------------------------------------------------------- refusals

EMBEDDINGS = "/v1/embeddings"
REFUSED = {
    "no JSON": (EMBEDDINGS, b"{", 400, None),
    "no UTF-8": (EMBEDDINGS, b'{"input": "\xff"}', 400, None),
    "half a character": (EMBEDDINGS, b'{"input": "\\ud800"}', 400, None),
    "deep": ("/tokenize", b'{"inputs": ' + b"[" * 100_000, 400, "inputs[0]"),
    "a deep list": (EMBEDDINGS, b"[" * 100_000, 400, None),
    "nothing": (EMBEDDINGS, {}, 400, "input"),
    "no list": (EMBEDDINGS, {"input": []}, 400, "input"),
    "an empty text": (EMBEDDINGS, {"input": ["dog", ""]}, 400, "input[1]"),
    "empty ids": (EMBEDDINGS, {"input": [[7], []]}, 400, "input[1]"),
    "a mixture": (EMBEDDINGS, {"input": ["dog", 7]}, 400, "input"),
    "a number": (EMBEDDINGS, {"input": [[7, 1.5]]}, 400, "input[0][1]"),
    "unknown field": (EMBEDDINGS, {"input": "dog", "truncate": True}, 400, "truncate"),
    "encoding": (EMBEDDINGS, {"input": "dog", "encoding_format": "int8"}, 400, "encoding_format"),
    "no dimensions": (EMBEDDINGS, {"input": "dog", "dimensions": 0}, 400, "dimensions"),
    "dimensions": (EMBEDDINGS, {"input": "dog", "dimensions": 13}, 422, "dimensions"),
    "model": (EMBEDDINGS, {"input": "dog", "model": "text-embedding-3-small"}, 404, "model"),
    "too long": (EMBEDDINGS, {"input": ["dog", LONG]}, 422, "input[1]"),
    "too many ids": (EMBEDDINGS, {"input": [7] * 15}, 422, "input[0]"),
    "no such id": (EMBEDDINGS, {"input": [[7], [94]]}, 422, "input[1]"),
    "a huge id": (EMBEDDINGS, {"input": [10**30]}, 422, "input[0]"),
    "a negative id": (EMBEDDINGS, {"input": [-1]}, 422, "input[0]"),
    "padding": (EMBEDDINGS, {"input": [7, 8, 0]}, 422, "input[0]"),
    "half special": (EMBEDDINGS, {"input": [2, 7, 8]}, 422, "input[0]"),
    "too many texts": (EMBEDDINGS, {"input": ["dog"] * 2049}, 422, "input"),
    "too many tokens": (EMBEDDINGS, {"input": ["a a a a a a a a a a"] * 2000}, 422, "input"),
    "tokens to show": ("/tokenize", {"inputs": "a " * 20_001}, 422, "inputs"),
    "no sentences": ("/similarity", {"inputs": {"source_sentence": "dog"}}, 400, "inputs"),
    "too large": (EMBEDDINGS, b" " * 2_000_001, 413, None),
    "no such path": ("/v1/chat/completions", {}, 404, None),
    "another method": ("/health", {}, 405, None),
}


@pytest.fixture(scope="module")
def strict(encoder):
    from minisbert.serve.limits import Limits

    with served(encoder, limits=Limits(request_tokens=20_000)) as (_, http):
        yield http


@pytest.mark.parametrize(("path", "body", "status", "param"), REFUSED.values(), ids=REFUSED)
def test_refusals_have_openais_shape(strict, path, body, status, param):
    answer = strict.post(path, content=body if isinstance(body, bytes) else json.dumps(body))
    error = refusal(answer)
    assert (answer.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")


def test_a_body_is_measured_while_it_is_read(strict):
    def endless():  # without a Content-Length
        yield b'{"input": "'
        for _ in range(300):
            yield b"a" * 10_000

    answer = strict.post(EMBEDDINGS, content=endless())
    assert refusal(answer) and answer.status_code == 413


def test_ids_of_another_tokenizer_are_refused(weights_folder, serve):
    from minisbert import SentenceEncoder

    # "i love soup" as tiktoken's cl100k_base has it, which LangChain sends unless told otherwise
    with served(SentenceEncoder(weights_folder)) as (_, http):
        assert "check_embedding_ctx_length=False" in refusal(embed(http, [[72, 3021, 19724]]))["message"]


def test_keys(http):
    keys = {"one": 200, "two": 200, "": 401, "three": 401, "on": 401, "onee": 401, "o\xe9": 401}
    for key, status in keys.items():
        sent = {"Authorization": f"Bearer {key}".strip().encode("latin-1")}
        for path in ("/v1/models", "/metrics", "/info", "/nowhere"):
            assert http.get(path, headers=sent).status_code == (404 if status == 200 and path == "/nowhere" else status)
        assert http.get("/health", headers=sent).status_code == 200
    wrong = http.post(EMBEDDINGS, headers={"Authorization": "Basic one"}, content=b"{")
    assert refusal(wrong)["code"] == "invalid_api_key" and wrong.headers["www-authenticate"] == "Bearer"


def test_a_failure_is_told_and_the_server_lives_on(encoder, monkeypatch, capsys):
    with served(encoder) as (_, http):
        with monkeypatch.context() as broken:
            broken.setattr("minisbert.encoder.bert", lambda *_: 1 / 0)
            answer = embed(http, "dog")
        assert answer.status_code == 500 and refusal(answer)["type"] == "server_error"
        assert len(vectors_of(embed(http, "dog")))
    assert "ZeroDivisionError" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------------- fuzzed

texts = st.text(max_size=20)
ids = st.lists(st.integers(-1, 95) | st.integers(), max_size=18)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
nearly_right = st.fixed_dictionaries(
    {"input": texts | st.lists(texts, max_size=4) | ids | st.lists(ids, max_size=3) | anything},
    optional={
        "model": st.just("tiny-model") | anything,
        "encoding_format": st.sampled_from(["float", "base64"]) | anything,
        "dimensions": st.integers(-1, 14) | anything,
        "user": texts | anything,
    },
)


@settings(max_examples=300)
@given(
    path=st.sampled_from(["/v1/embeddings", "/similarity", "/tokenize"]),
    body=st.binary(max_size=60) | nearly_right.map(json.dumps) | anything.map(json.dumps),
    cut=st.integers(0, 200),
)
def test_any_body_gets_finite_vectors_or_a_refusal(http, path, body, cut):
    sent = (body.encode() if isinstance(body, str) else body)[: cut * 4 or None]
    answer = http.post(path, content=sent)
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500 and refusal(answer)["type"] == "invalid_request_error"
    elif path == "/v1/embeddings":
        assert np.isfinite(vectors_of(answer)).all()


# -------------------------------------------------------------------------------------------------------------- clients


def test_the_openai_client(server, encoder):
    openai = _optional_import("openai", "openai", "dev")
    _, http = server
    with openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="one", max_retries=0) as client:
        model = client.models.list().data[0].id
        for encoding in ({}, {"encoding_format": "float"}, {"dimensions": 5}):
            found = client.embeddings.create(input=TEXTS, model=model, **encoding)
            rows = np.array([item.embedding for item in found.data])
            expected = encoder.encode(TEXTS, truncate_dim=encoding.get("dimensions"), normalize_embeddings=True)
            np.testing.assert_allclose(rows, expected, atol=COMPANY)
        assert found.usage.total_tokens == len(encoder.tokenize(TEXTS).token_ids)
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(input="dog", model="text-embedding-3-small")
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            client.embeddings.create(input=["dog", LONG], model=model)
        assert (caught.value.param, caught.value.code) == ("input[1]", "context_length_exceeded")
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(input="", model=model)
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="three").embeddings.create(input="dog", model=model)


def test_langchains_openai_embeddings(server, encoder):
    openai, langchain = (_optional_import(name, "openai", "dev") for name in ("openai", "langchain_openai"))
    url = f"{server[1].base_url}/v1"
    with openai.DefaultHttpxClient() as closed:
        found = langchain.OpenAIEmbeddings(
            base_url=url, api_key="one", model="tiny-model", check_embedding_ctx_length=False, http_client=closed
        )
        np.testing.assert_allclose(found.embed_documents(TEXTS), encoder.encode(TEXTS), atol=COMPANY)
        np.testing.assert_allclose(found.embed_query("dog"), encoder.encode("dog"), atol=COMPANY)


def test_our_own_client(server, encoder, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = f"{server[1].base_url}/v1"
    found = Client("one", model="tiny-model", base_url=url).embed(TEXTS * 10)
    assert found.model == "tiny-model"
    np.testing.assert_allclose(found.embeddings, encoder.encode(TEXTS * 10), atol=COMPANY)
    for client, said in (
        (Client("three", model="tiny-model", base_url=url), "Send a key"),
        (Client("one", base_url=url), "The model here is tiny-model"),
    ):
        with pytest.raises(ValueError, match=said):
            client.embed("dog")


def test_curl(server):
    curl = shutil.which("curl")
    if curl is None:
        skip_or_fail("curl", "there is no curl (apt-get install curl)")
    command = [curl, "-s", "--noproxy", "*", f"{server[1].base_url}/v1/embeddings", "-H", "Authorization: Bearer one"]
    done = subprocess.run([*command, "-d", '{"input": "i love soup"}'], capture_output=True, check=True)
    assert len(json.loads(done.stdout)["data"][0]["embedding"]) == 12
