"""The client: in this process with a fake encoder and with the real one, and against real servers on 127.0.0.1."""

import http.server
import json
import socket
import sys
import threading
import time
import traceback
import types
from contextlib import contextmanager

import numpy as np
import pytest

import minisbert.client
from minisbert.client import Client, ClientError, EmbedResponse

KEY = 'sk-/very+secret"key\\0123456789'  # with letters that JSON, URLs and HTML each write differently
TEXTS = ["i love soup", "soup is my favorite", "london is far away"]
MISSION = """
import minisbert
import numpy as np

client = minisbert.Client("YOUR_API_KEY")
phrases = ["i love soup", "soup is my favorite", "london is far away"]
(soup1, soup2, london) = client.embed(phrases).embeddings

def calculate_similarity(a, b):
    return np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))

very_similar = calculate_similarity(soup1, soup2)
not_similar = calculate_similarity(soup1, london)
"""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """A proxy named in the environment must not come between a test and its server."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


class FakeEncoder:
    """Counts letters; keeps what it was asked."""

    made: list[str]

    def __init__(self, model=None):
        type(self).made.append(model)

    def encode(self, texts):
        rows = [[len(text), text.count("o"), 1.0] for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), 3)


@pytest.fixture
def fake_encoder(monkeypatch):
    module = types.ModuleType("minisbert.encoder")
    module.SentenceEncoder = FakeEncoder
    FakeEncoder.made = []
    monkeypatch.setitem(sys.modules, "minisbert.encoder", module)
    return FakeEncoder


def embedding_of(text):
    return [float(len(text)), -0.5, 1 / 3]


def good_answer(request):
    """What a server should say, its rows in reverse order."""
    data = [{"object": "embedding", "index": i, "embedding": embedding_of(t)} for i, t in enumerate(request["input"])]
    return {"object": "list", "data": data[::-1], "model": "server/model", "usage": {"prompt_tokens": 5}}


@contextmanager
def serving(answer, status=200, headers=(), before=lambda: None):
    """A server on 127.0.0.1 that keeps what it was sent. ``answer``: bytes, or a function of the parsed request."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, dict(self.headers), sent))
            before()
            body = answer if isinstance(answer, bytes) else json.dumps(answer(sent)).encode()
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def forms_of_the_key():
    in_json = json.dumps(KEY)[1:-1]
    return KEY, in_json, in_json.replace("/", "\\/"), "sk-%2Fvery%2Bsecret", "very+secret&quot;key", "0123456789"


def refused(url, texts=TEXTS, api_key=KEY, **options):
    """The message of the ClientError, after looking for the key wherever Python would print it."""
    client = Client(api_key, base_url=url, **options)
    with pytest.raises(ClientError) as caught:
        client.embed(texts)
    assert isinstance(caught.value, ValueError)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    printed = "".join(traceback.format_exception(caught.type, caught.value, caught.tb)) + repr(caught.value)
    printed += repr(client) + str(client) + repr(vars(client)) + repr(caught.value.args)
    for form in forms_of_the_key():
        assert form not in printed
    assert str(caught.value).startswith(f"Client.embed: POST {url}/embeddings: expected ")
    return str(caught.value)


# ------------------------------------------------------------------------------------------------- in this process


def test_computes_here_with_an_encoder_built_once_at_first_use(fake_encoder):
    client = Client(KEY, model="some/model")
    assert fake_encoder.made == []
    first, second = client.embed(TEXTS), client.embed(tuple(TEXTS))
    assert fake_encoder.made == ["some/model"]
    assert isinstance(first, EmbedResponse) and first.model == "some/model"
    np.testing.assert_array_equal(first.embeddings, [[11, 2, 1], [19, 2, 1], [18, 2, 1]])
    np.testing.assert_array_equal(first.embeddings, second.embeddings)
    assert first.embeddings.dtype == np.float32


def test_one_string_is_one_text_and_no_texts_are_no_rows(fake_encoder):
    client = Client()
    assert client.embed("soup").embeddings.shape == (1, 3)
    assert client.embed([]).embeddings.shape == (0, 3)
    assert client.embed(text for text in TEXTS).embeddings.shape == (3, 3)
    assert client.embed(np.array(TEXTS)).embeddings.shape == (3, 3)
    assert fake_encoder.made == ["sentence-transformers/all-MiniLM-L6-v2"]


def test_the_response_cannot_be_changed(fake_encoder):
    response = Client().embed(TEXTS)
    with pytest.raises(AttributeError):
        response.model = "another"


def test_without_a_server_the_key_is_not_even_kept(fake_encoder):
    client = Client(KEY)
    client.embed(TEXTS)
    assert client._key._value is None
    assert KEY not in repr(vars(client)) + repr(client)


def test_without_a_server_no_socket_is_opened(fake_encoder, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    assert Client(KEY).embed(TEXTS).embeddings.shape == (3, 3)


def test_an_error_of_the_encoder_comes_through_unchanged(fake_encoder, monkeypatch):
    def fail(self, texts):
        raise ValueError("encode: too long")

    monkeypatch.setattr(FakeEncoder, "encode", fail)
    with pytest.raises(ValueError, match=r"^encode: too long$") as caught:
        Client(KEY).embed(TEXTS)
    assert not isinstance(caught.value, ClientError)


def test_the_client_of_the_mission_runs_as_it_stands_and_opens_no_socket(weights_folder, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    variables = {}
    exec(MISSION, variables)
    assert variables["very_similar"] > 0.9 > 0.1 > variables["not_similar"]
    assert variables["soup1"].dtype == np.float32 and variables["soup1"].shape == (384,)
    local = Client(model=str(weights_folder)).embed(TEXTS)
    np.testing.assert_array_equal(local.embeddings[0], variables["soup1"])
    assert local.model == str(weights_folder)


# ------------------------------------------------------------------------------------------------- asking a server


def test_what_is_sent_and_what_comes_back():
    with serving(good_answer) as (url, seen):
        response = Client(KEY, base_url=url + "/", model="my-model").embed(TEXTS)
    [(path, headers, sent)] = seen
    assert path == "/v1/embeddings"
    assert sent == {"model": "my-model", "input": TEXTS}
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Content-Type"] == "application/json"
    assert response.model == "server/model"
    assert response.embeddings.dtype == np.float32
    np.testing.assert_array_equal(response.embeddings, np.float32([embedding_of(text) for text in TEXTS]))


def test_without_a_key_no_authorization_is_sent():
    with serving(good_answer) as (url, seen):
        Client(base_url=url).embed("soup")
    assert "Authorization" not in seen[0][1]
    assert seen[0][2] == {"model": "sentence-transformers/all-MiniLM-L6-v2", "input": ["soup"]}


def test_the_key_is_kept_but_not_shown():
    client = Client(KEY, base_url="http://127.0.0.1:1/v1")
    assert repr(client) == str(client)
    assert repr(client) == ("Client(model='sentence-transformers/all-MiniLM-L6-v2', base_url='http://127.0.0.1:1/v1')")
    assert repr(vars(client)["_key"]) == "<hidden>"
    assert "secret" not in repr(vars(client))
    assert "secret" not in repr(Client("secret", base_url="http://host/secret/v1"))


def test_many_texts_go_in_batches_and_come_back_in_order():
    texts = ["x" * length for length in range(70)]
    with serving(good_answer) as (url, seen):
        vectors = Client(base_url=url).embed(texts).embeddings
        fewer = Client(base_url=url).embed(texts, batch_size=70).embeddings
    assert [len(sent["input"]) for _, _, sent in seen] == [32, 32, 6, 70]
    np.testing.assert_array_equal(vectors[:, 0], np.arange(70))
    np.testing.assert_array_equal(vectors, fewer)


def test_no_texts_are_no_request():
    with serving(good_answer) as (url, seen):
        response = Client(base_url=url).embed([])
    assert seen == [] and response.embeddings.shape == (0, 0) and response.embeddings.dtype == np.float32


def test_any_text_arrives_as_it_is():
    texts = ["", "süß 🍲", 'quotes " and \\ and \n', "\x00"]
    with serving(good_answer) as (url, seen):
        Client(base_url=url).embed(texts)
    assert seen[0][2]["input"] == texts


def test_an_answer_without_a_model_names_the_one_that_was_asked_for():
    with serving(lambda request: {"data": good_answer(request)["data"], "model": None}) as (url, _):
        assert Client(base_url=url, model="asked").embed("soup").model == "asked"


def test_whole_numbers_and_the_largest_float32_are_vectors():
    largest = float(np.finfo(np.float32).max)
    with serving(lambda _: {"data": [{"index": 0, "embedding": [1, -largest, 1e-300]}]}) as (url, _):
        np.testing.assert_array_equal(Client(base_url=url).embed("x").embeddings, np.float32([[1, -largest, 0]]))


# ------------------------------------------------------------------------------------------------- servers that fail


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "its own words"),
        (401, "api_key"),
        (403, "api_key"),
        (404, "/v1"),
        (413, "batch_size"),
        (418, "refuses"),
        (422, "batch_size"),
        (429, "rate"),
        (500, "its log"),
        (503, "its log"),
    ],
)
def test_a_status_is_shown_with_its_likely_cause_and_the_words_of_the_server(status, words):
    with serving(b'{"error": "no\n\n such \x1b[31m thing"}', status) as (url, _):
        message = refused(url)
    assert f"status {status}" in message and words in message
    assert """The server says: '{"error": "no such  [31m thing"}'""" in message


@pytest.mark.parametrize("form", [*forms_of_the_key()[:3], "sk-%2Fvery%2Bsecret%22key%5C0123456789"])
@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("padding", [0, 280, 298])
def test_a_key_that_the_server_sends_back_is_struck_out(form, status, padding):
    with serving(b"x" * padding + form.encode() + b"</html>", status) as (url, _):
        message = refused(url)
    assert "sk-" not in message and "x" * padding + "***"[: 300 - padding] in message


def test_a_key_that_stands_in_the_address_too_is_struck_out():
    with serving(b"", 404) as (url, _), pytest.raises(ClientError) as caught:
        Client("secret", base_url=f"{url}/secret").embed("soup")
    assert "secret" not in str(caught.value) and "/v1/***/embeddings" in str(caught.value)


def test_only_the_beginning_of_a_long_page_is_shown():
    with serving(b"<html>" + b"long " * 100_000, 502) as (url, _):
        message = refused(url)
    assert len(message) < 600 and message.endswith(" ...")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status):
    with serving(good_answer) as (elsewhere, seen_there):
        location = [("Location", f"{elsewhere}/embeddings?key={KEY}")]
        with serving(b"", status, location) as (url, seen):
            message = refused(url)
    assert len(seen) == 1 and seen_there == []
    assert f"status {status}" in message and elsewhere in message and "base_url" in message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "got 0 bytes"),
        (b"<html>hello</html>", "'<html>hello</html>'"),
        (b'{"data": [', "got 10 bytes"),
        (b"\xff\xfe\x00", "got 3 bytes"),
        (b"[" * 100_000, "got 100000 bytes"),
        (b"[]", "got 2 bytes"),
        (b'{"error": "model not loaded"}', "model not loaded"),
        (b'{"data": {"0": [1.0]}}', "got 22 bytes"),
    ],
)
def test_what_is_not_the_expected_json_is_shown(answer, words):
    with serving(answer) as (url, _):
        message = refused(url)
    assert words in message and "OpenAI-compatible" in message


def rows(*pairs):
    return [{"index": index, "embedding": embedding} for index, embedding in pairs]


GOOD = [0.1, 0.2]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "got 0: index 0"),
        (rows((0, GOOD), (2, GOOD)), "got 2: index 1"),
        (rows((0, GOOD), (1, GOOD), (1, GOOD)), "index 1 twice"),
        (rows((0, GOOD), (1, GOOD), (2, GOOD), (3, GOOD)), "index 3"),
        (rows((-1, GOOD)), "index -1"),
        (rows((True, GOOD)), "one without an index"),
        (rows((0.0, GOOD)), "one without an index"),
        (rows(([], GOOD)), "one without an index"),
        ([{"embedding": GOOD}], "one without an index"),
        ([GOOD], "one without an index"),
        (rows((0, GOOD), (1, [0.1]), (2, GOOD)), "text 1 (from 0), 1 numbers after 2"),
        (rows((0, GOOD), (1, GOOD), (2, [])), "text 2 (from 0), a list that is no list of numbers"),
        (rows((0, None), (1, GOOD), (2, GOOD)), "text 0 (from 0), a NoneType"),
        (rows((0, "AAAA"), (1, GOOD), (2, GOOD)), "text 0 (from 0), a str"),
        (rows((0, [GOOD]), (1, [GOOD]), (2, [GOOD])), "--pooling mean"),
        (rows((0, ["0.1", "0.2"]), (1, GOOD), (2, GOOD)), "no list of numbers"),
        (rows((0, [True, False]), (1, GOOD), (2, GOOD)), "no list of numbers"),
        (rows((0, GOOD), (1, [0.1, float("nan")]), (2, GOOD)), "text 1 (from 0), NaN"),
        (rows((0, GOOD), (1, [0.1, float("-inf")]), (2, GOOD)), "text 1 (from 0), NaN, Inf"),
        (rows((0, GOOD), (1, [0.1, 3.5e38]), (2, GOOD)), "beyond float32"),
        (rows((0, GOOD), (1, [0.1, 10**400]), (2, GOOD)), "beyond float32"),
    ],
)
def test_rows_that_are_not_one_vector_per_text_are_refused(data, words):
    with serving(lambda _: {"data": data}) as (url, _):
        assert words in refused(url)


def test_widths_are_compared_across_requests():
    def one_number_per_letter(sent):
        return {"data": rows((0, [0.5] * len(sent["input"][0])))}

    words = r"text 2 .*3 numbers after 2 for text 0.*one model"
    with serving(one_number_per_letter) as (url, _), pytest.raises(ClientError, match=words):
        Client(base_url=url).embed(["ab", "cd", "efg"], batch_size=1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_refused_connection():
    message = refused(f"http://127.0.0.1:{free_port()}/v1")
    assert "ConnectionRefusedError" in message and "Does the server run" in message


def test_a_host_that_does_not_exist():
    assert "Does the server run" in refused("http://no-such-host.invalid/v1")
    assert "Does the server run" in refused(f"http://{'a' * 64}.invalid/v1")  # Python raises UnicodeError


def test_a_silent_server_runs_into_the_timeout():
    release = threading.Event()
    with serving(good_answer, before=lambda: release.wait(10)) as (url, _):
        start = time.monotonic()
        try:
            message = refused(url, timeout=0.2)
        finally:
            release.set()
    assert "within 0.2 s" in message and time.monotonic() - start < 5


@contextmanager
def raw_server(answer):
    """A socket that says ``answer`` to whoever connects, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}/v1"
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
        b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http_or_breaks_off(answer):
    with raw_server(answer) as address:
        refused(f"http://{address}")


def test_https_to_a_server_without_tls():
    with raw_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        assert "TLS" in refused(f"https://{address}")


# ------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("where", [None, "http://127.0.0.1:1/v1"])
@pytest.mark.parametrize(
    "bad", ["secret\n", "secret\r\nX-Evil: 1", "se cret", "secret\x00", "secret\x7f", "sécret", " secret"]
)
def test_a_key_that_cannot_be_a_header_is_refused_and_not_repeated(bad, where):
    with pytest.raises(ClientError, match="visible ASCII") as caught:
        Client(bad, base_url=where)
    assert "cret" not in str(caught.value) and caught.value.__context__ is None


def test_other_keys_that_are_none():
    with pytest.raises(ClientError, match="environment variable"):
        Client("")
    with pytest.raises(ClientError, match="got something of type bytes") as caught:
        Client(b"secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "does not start with http"),
        ("localhost:8080/v1", "does not start with http"),
        ("ftp://host/v1", "does not start with http"),
        ("file:///etc/passwd", "does not start with http"),
        ("https://", "names no host"),
        ("http://:8080/v1", "names no host"),
        ("http://user:secret@host/v1", "user name or password"),
        ("http://host:secret/v1", "port"),
        ("http://host:99999/v1", "port"),
        ("http://[::1/v1", "IPv6"),
        ("http://host/v1?key=secret", r"has a \? or #"),
        ("http://host/v1?", r"has a \? or #"),
        ("http://host/v1#secret", r"has a \? or #"),
        ("http://host/secret v1", "blanks"),
        ("http://host/v1\n", "control characters"),
        ("http://hóst/v1", "beyond ASCII"),
        (8080, "is of type int"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_not_repeated(url, words):
    with pytest.raises(ClientError, match=words) as caught:
        Client(KEY, base_url=url)
    assert "secret" not in str(caught.value) and caught.value.__context__ is None


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "30", None, True])
def test_timeouts_that_are_none(timeout):
    with pytest.raises(ClientError, match="timeout must be a number of seconds > 0"):
        Client(timeout=timeout)


@pytest.mark.parametrize("model", ["", " ", 3])
def test_models_that_are_none(model):
    with pytest.raises(ClientError, match="model must be a name"):
        Client(model=model)


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, None])
def test_batch_sizes_that_are_none(batch_size):
    with pytest.raises(ClientError, match="batch_size must be a whole number >= 1"):
        Client().embed(TEXTS, batch_size=batch_size)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (b"soup", ": .* got bytes"),
        (None, ": .* got NoneType"),
        (7, ": .* got int"),
        (["soup", None], r"\[1\]: .* got NoneType"),
        (["soup", ["soup"]], r"\[1\]: .* got list"),
        ([b"soup"], r"\[0\]: .* got bytes"),
        ([float("nan")], r"\[0\]: .* got float"),
    ],
)
def test_what_is_no_text_is_refused_before_anything_is_computed_or_sent(texts, words, fake_encoder):
    for client in (Client(), Client(base_url="http://127.0.0.1:1/v1")):
        with pytest.raises(ClientError, match=f"Client.embed: texts{words}"):
            client.embed(texts)
    assert fake_encoder.made == []


def test_arguments_are_not_changed(fake_encoder):
    texts = list(TEXTS)
    Client().embed(texts)
    with serving(good_answer) as (url, _):
        Client(base_url=url).embed(texts, batch_size=2)
    assert texts == TEXTS


def test_the_module_says_what_it_exports():
    assert {name: hasattr(minisbert.client, name) for name in minisbert.client.__all__} == dict.fromkeys(
        ["Client", "ClientError", "EmbedResponse"], True
    )
