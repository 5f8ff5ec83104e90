"""The client: in this process with a fake encoder and with the real one, and against real servers on 127.0.0.1."""

import base64
import http.server
import json
import logging
import socket
import threading
import time
import traceback
import types
from contextlib import contextmanager
from urllib.parse import quote

import numpy as np
import pytest

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


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """How long the client waited between its attempts; nobody waits in the tests."""
    waited = []
    monkeypatch.setattr("minisbert.client.time", types.SimpleNamespace(sleep=waited.append, time=time.time))
    return waited


def vector_of(text):
    return np.float32([len(text), -0.5, 1 / 3])


def in_base64(text):
    return base64.b64encode(vector_of(text).astype("<f4").tobytes()).decode()


def as_numbers(text):
    return vector_of(text).tolist()


def good_answer(request, embedding=in_base64):
    """What a server should say, its rows in reverse order."""
    data = [{"object": "embedding", "index": i, "embedding": embedding(t)} for i, t in enumerate(request["input"])]
    return {"object": "list", "data": data[::-1], "model": "server/model", "usage": {"prompt_tokens": 5}}


@contextmanager
def serving(answer, *failures, status=200, headers=(), before=lambda: None):
    """A server on 127.0.0.1 that keeps what it was sent.

    ``answer``: bytes, or a function of the parsed request. Before that come ``failures``, a status and its headers
    each; the status 0 hangs up.
    """
    seen, failing = [], list(failures)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, dict(self.headers), sent))
            before()
            number, given = failing.pop(0) if failing else (status, headers)
            if number == 0:
                return
            body = answer if isinstance(answer, bytes) else json.dumps(answer(sent)).encode()
            self.send_response(number)
            for name, value in given:
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


def refused(url, texts=TEXTS, **options):
    """The message of the ClientError, after looking for the key wherever Python would print it."""
    client = Client(KEY, base_url=url, **options)
    with pytest.raises(ClientError) as caught:
        client.embed(texts)
    assert isinstance(caught.value, ValueError)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    printed = "".join(traceback.format_exception(caught.type, caught.value, caught.tb)) + repr(caught.value)
    printed += repr(client) + str(client) + repr(vars(client)) + repr(caught.value.args)
    in_json = json.dumps(KEY)[1:-1]
    for form in (KEY, in_json, in_json.replace("/", "\\/"), "sk-%2Fvery", "very+secret&quot;key", "0123456789"):
        assert form not in printed
    assert str(caught.value).startswith(f"Client.embed: POST {url}/embeddings: expected ")
    return str(caught.value)


# ------------------------------------------------------------------------------------------------- in this process


def test_the_client_of_the_mission_runs_as_it_stands_and_opens_no_socket(weights_folder, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    variables = {}
    exec(MISSION, variables)
    assert variables["very_similar"] > 0.9 > 0.1 > variables["not_similar"]
    assert variables["soup1"].dtype == np.float32 and variables["soup1"].shape == (384,)
    local = Client(KEY, model=str(weights_folder))
    response = local.embed(text for text in TEXTS)
    np.testing.assert_array_equal(response.embeddings[0], variables["soup1"])
    assert isinstance(response, EmbedResponse) and response.model == str(weights_folder)
    monkeypatch.setattr("minisbert.encoder.SentenceEncoder", None)  # it is built once
    assert local.embed("soup").embeddings.shape == (1, 384) and local.embed([]).embeddings.shape == (0, 384)
    assert KEY not in repr(vars(local)) + repr(local)  # it is not even kept


# ------------------------------------------------------------------------------------------------- asking a server


@pytest.mark.parametrize("embedding", [in_base64, as_numbers])
def test_what_is_sent_and_what_comes_back(embedding, caplog):
    caplog.set_level(logging.DEBUG)
    texts = [*TEXTS, "", 'süß 🍲 " \\ \n \x00']
    with serving(lambda request: good_answer(request, embedding)) as (url, seen):
        response = Client(KEY, base_url=url + "/", model="my-model").embed(texts)
    [(path, headers, sent)] = seen
    assert path == "/v1/embeddings"
    assert sent == {"model": "my-model", "input": texts, "encoding_format": "base64"}
    assert {name.lower(): value for name, value in headers.items()}["authorization"] == f"Bearer {KEY}"
    assert [name for name, value in headers.items() if "very" in value] == ["Authorization"]
    assert response.model == "server/model"
    assert response.embeddings.dtype == np.float32
    np.testing.assert_array_equal(response.embeddings, [vector_of(text) for text in texts])
    assert "very" not in caplog.text and "/v1/embeddings" in caplog.text


def test_many_texts_go_in_batches_and_come_back_in_order():
    texts = ["x" * length for length in range(70)]
    with serving(good_answer) as (url, seen):
        vectors = Client(base_url=url).embed(texts).embeddings
        fewer = Client(base_url=url).embed(texts, batch_size=2048).embeddings
        none = Client(base_url=url).embed([]).embeddings
    assert not any("Authorization" in headers for _, headers, _ in seen)  # there is no key
    assert seen[0][2]["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert [len(sent["input"]) for _, _, sent in seen] == [32, 32, 6, 70]
    np.testing.assert_array_equal(vectors[:, 0], np.arange(70))
    np.testing.assert_array_equal(vectors, fewer)
    assert none.shape == (0, 0) and none.dtype == np.float32


# ------------------------------------------------------------------------------------------------- servers that fail


def test_a_server_that_is_overloaded_or_hangs_up_is_asked_again(waits):
    failures = [
        (429, [("Retry-After", "7")]),
        (503, [("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT")]),
        (500, []),
        (0, []),
        (502, [("Retry-After", "soon")]),
        (429, [("Retry-After", "-1")]),
    ]
    with serving(good_answer, *failures) as (url, seen):
        vectors = Client(KEY, base_url=url, max_retries=6).embed(TEXTS).embeddings
    np.testing.assert_array_equal(vectors, [vector_of(text) for text in TEXTS])
    assert len(seen) == 7 and {json.dumps(sent) for _, _, sent in seen} == {json.dumps(seen[0][2])}
    assert waits == [7.0, 1.0, 2.0, 4.0, 8.0, 0.0]


STATUSES = [  # status, Retry-After, what is waited, a word of the likely cause
    (500, "", [0.5, 1.0], "its log"),
    (429, "61", [], "rate"),  # longer than we wait
    (429, "inf", [], "rate"),
    (400, "1", [], "Its own words"),
    (401, "", [], "api_key"),
    (404, "", [], "/v1"),
    (413, "", [], "batch_size"),
]


def test_retries_are_bounded_and_a_status_is_shown_with_its_likely_cause(waits):
    answer = b'{"error": "no\n\n such \x1b[31m thing"}' + b" long" * 100_000
    for status, after, waited, words in STATUSES:
        waits.clear()
        with serving(answer, status=status, headers=[("Retry-After", after)] * bool(after)) as (url, seen):
            message = refused(url)
        assert len(seen) == 1 + len(waited) and waits == waited
        assert f"status {status}" in message and words in message and len(message) < 700
        assert """The server says: '{"error": "no such  [31m thing"} long long""" in message


def test_a_redirect_is_not_followed():
    with serving(good_answer) as (elsewhere, seen_there):
        location = [("Location", f"{elsewhere}/embeddings?key={KEY}")]
        with serving(b"", status=307, headers=location) as (url, seen):
            message = refused(url)
        assert len(seen) == 1 and seen_there == []
        assert "status 307" in message and elsewhere in message and "base_url" in message


def test_a_key_that_the_server_sends_back_is_struck_out():
    in_json = json.dumps(KEY)[1:-1]
    in_url, in_html = quote(KEY, safe=""), KEY.replace('"', "&quot;")
    for form in (KEY, in_json, in_json.replace("/", "\\/"), in_url, in_html):
        for padding, status in ((0, 401), (298, 200)):  # the cut leaves no half of it
            with serving(b"x" * padding + form.encode() + b"</html>", status=status) as (url, _):
                message = refused(url)
            assert "sk-" not in message and "x" * padding + "***"[: 300 - padding] in message


NO_ANSWERS = [
    *(b"<html>hello</html>", b"\xff\xfe\x00", b"[" * 100_000, b"[]"),
    b'{"data": [{"embedding": [1.0]}]}',
    b'{"data": [{"index": 0, "embedding": "AACA!Pw=="}]}',
    b'{"data": [{"index": 0, "embedding": null}]}',
    b'{"data": [{"index": 0, "embedding": [true, false]}]}',
    b'{"data": [{"index": 0, "embedding": [1' + b"0" * 400 + b"]}]}",
]
GOOD, LARGEST = [0.1, 0.2], float(np.finfo(np.float32).max)
INFINITE = base64.b64encode(np.float32([0, np.inf]).tobytes()).decode()
WRONG_ROWS = [
    ("got 0 with index []", []),
    ("got 2 with index [0, 2]", [(0, GOOD), (2, GOOD)]),
    ("got 4 with index [0, 1, 2]", [(0, GOOD), (1, GOOD), (2, GOOD), (2, GOOD)]),
    ("text 1 has shape (1,) where text 0 has (2,)", [(0, GOOD), (1, [0.1]), (2, GOOD)]),
    ("text 0 has shape (0,)", [(0, []), (1, []), (2, [])]),
    ("--pooling mean", [(0, [GOOD]), (1, [GOOD]), (2, [GOOD])]),
    ("text 1", [(0, GOOD), (1, [0.1, float("nan")]), (2, GOOD)]),
    ("text 1", [(0, GOOD), (1, INFINITE), (2, GOOD)]),
    ("text 1", [(0, GOOD), (1, [0.1, 3.5e38]), (2, GOOD)]),
]


def test_what_is_not_one_vector_per_text_is_refused():
    for answer in NO_ANSWERS:
        with serving(answer) as (url, _):
            message = refused(url, ["soup"])
        assert f"got {len(answer)} bytes: " in message and "OpenAI-compatible" in message
    for words, rows in WRONG_ROWS:
        data = [{"index": index, "embedding": embedding} for index, embedding in rows]
        with serving(lambda _, data=data: {"data": data}) as (url, _):
            assert words in refused(url)

    def a_number_per_letter(sent):
        return {"data": [{"index": 0, "embedding": [1, -LARGEST, 1e-300, 2][: len(sent["input"][0])]}]}

    with serving(a_number_per_letter) as (url, _):  # widths are compared across requests
        with pytest.raises(ClientError, match=r"text 2 has shape \(3,\) where text 0 has \(2,\)"):
            Client(base_url=url).embed(["ab", "cd", "efg"], batch_size=1)
        np.testing.assert_array_equal(Client(base_url=url).embed("abc").embeddings, np.float32([[1, -LARGEST, 0]]))


def test_nobody_there(waits):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "ConnectError" in refused(f"http://127.0.0.1:{port}/v1") and waits == [0.5, 1.0]
    assert "Does the server run" in refused(f"http://{'a' * 64}.invalid/v1")  # no host can have that name


def test_a_silent_server_runs_into_the_timeout_and_is_not_asked_again():
    release = threading.Event()
    with serving(good_answer, before=lambda: release.wait(30)) as (url, seen):
        try:
            message = refused(url, timeout=0.2)
        finally:
            release.set()
    assert "within 0.2 s" in message and len(seen) == 1


# ------------------------------------------------------------------------------------------------- arguments


BAD_ARGUMENTS = {
    "api_key": ["", "secret\r\nX-Evil: 1", "se cret", "secret\x7f", "s\xe9cret", b"secret"],
    "base_url": [
        *("", "localhost:8080/v1", "file:///etc/passwd", "http://:8080/v1", "http://user:secret@host/v1", 8080),
        *("http://host:secret/v1", "http://host:99999/v1", "http://[::1/v1", "http://host/v1?key=secret"),
        *("http://host/v1#secret", "http://host/secret v1", "http://host/v1\n"),
    ],
    "timeout": [0, float("nan"), float("inf"), "30", None, True],
    "max_retries": [-1, 1.5, None, True],
    "model": ["", " ", 3],
}


def test_what_cannot_be_used_is_refused_and_no_secret_repeated():
    for argument, values in BAD_ARGUMENTS.items():
        for value in values:
            with pytest.raises(ValueError, match=f"Client: {argument} must") as caught:
                Client(**{argument: value})
            assert "cret" not in str(caught.value) and caught.value.__context__ is None
    for batch_size in (0, True, 2049):
        with pytest.raises(ValueError, match="batch_size must be"):
            Client().embed(TEXTS, batch_size=batch_size)
