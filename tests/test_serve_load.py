"""The server under load and under attack: batches, queue, slow and vanishing clients, keys, SIGTERM, memory."""

import asyncio
import gc
import json
import os
import random
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import httpx2
import numpy as np
import pytest
from running import refused, run
from serving import process_of, served, tiny_encoder, until
from tiny import COMPANY, TEXTS

TEXTS = [text for text in TEXTS if text]


@pytest.fixture(scope="module")
def encoder(serve, tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("serve"))


# ------------------------------------------------------------------------------------------------------------ the queue


class Gate:
    """A model whose batches wait until they are let through; it keeps what it was given."""

    def __init__(self):
        self.batches, self.opened = [], threading.Semaphore(0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.opened.release(10_000)

    def forward(self, pieces):
        self.batches.append([int(piece[0]) for piece in pieces])
        self.opened.acquire()
        return [piece[:1].astype(np.float32) for piece in pieces]

    def stand_in(self, encoder, monkeypatch):
        """Compute for an encoder: vectors of ones."""
        monkeypatch.setattr(encoder, "_forward", lambda given, *_: self.forward(given) and np.ones((len(given), 12)))


def run_gated(story, queue_tokens=10_000):
    """Run a story with a batcher and a closed gate."""
    from minisbert.serve.batching import Batcher

    async def told():
        gate = Gate()
        batcher = Batcher(gate.forward, round_tokens=1024, queue_tokens=queue_tokens)
        batcher.start()
        with gate:
            await story(batcher, gate)
        await batcher.close()

    asyncio.run(told())


def pieces(number, count, size=100):
    return [np.full(size, number)] * count


async def begun(gate, count):
    while len(gate.batches) < count:
        await asyncio.sleep(0.001)


def test_requests_share_batches_in_turn_and_a_long_one_starves_nobody(serve):
    async def story(batcher, gate):
        first = batcher.submit(pieces(1, 1))
        await begun(gate, 1)  # alone, it is computed at once
        long = batcher.submit(pieces(2, 40))
        short = [batcher.submit(pieces(n, 1)) for n in (3, 4, 5)]
        await asyncio.sleep(0)
        gate.opened.release(1000)
        assert [int(row[0][0]) for row in await asyncio.gather(first, *short)] == [1, 3, 4, 5]
        assert len(await long) == 40 and batcher.waiting == 0
        assert gate.batches[:3] == [[1], [2, 3, 4, 5, 2], [2] * 5]

    run_gated(story)


def test_who_goes_away_is_not_computed_and_who_comes_to_a_full_queue_is_told(serve):
    from minisbert.serve.limits import ApiError

    async def story(batcher, gate):
        first = batcher.submit(pieces(1, 1))
        await begun(gate, 1)
        gone, stays = (batcher.submit(pieces(n, 3)) for n in (2, 3))
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as full:
            batcher.submit(pieces(4, 1))
        assert full.value.status == 429 and int(full.value.headers["Retry-After"]) >= 1
        gone.cancel()
        await asyncio.sleep(0)
        assert batcher.waiting == 300
        gate.opened.release(1000)
        await asyncio.gather(first, stays)
        assert gate.batches == [[1], [3, 3, 3]]

    run_gated(story, queue_tokens=600)


def test_whoever_is_answered_asks_again_and_is_waited_for(serve):
    async def client(batcher, number):
        for _ in range(6):
            assert [int(row[0]) for row in await batcher.submit(pieces(number, 1, 10))] == [number]
            await asyncio.sleep(0.0001 * number)  # each in its own time

    async def story(batcher, gate):
        gate.opened.release(10_000)
        await asyncio.gather(*(client(batcher, n) for n in range(1, 9)))
        assert sum(map(len, gate.batches)) == 48 and len(gate.batches) <= 24  # else 48: each begins a round alone
        await batcher.submit(pieces(9, 1))  # the others stay away, and are not waited for long

    run_gated(story)


def test_a_round_whose_requests_have_all_gone_away_is_none(serve):
    async def story(batcher, gate):
        gate.opened.release(10)
        await asyncio.gather(batcher.submit(pieces(1, 1)), batcher.submit(pieces(2, 1)))
        gone = batcher.submit(pieces(3, 1))  # a second one is waited for
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0.1)
        assert [int(row[0]) for row in await batcher.submit(pieces(4, 1))] == [4]
        assert gate.batches == [[1, 2], [4]]

    run_gated(story)


def test_a_failed_round_is_told_to_its_requests_and_the_next_is_computed(serve):
    def fail(given):
        raise MemoryError("no room")

    async def story(batcher, gate):
        left = batcher.submit(pieces(1, 1))
        await begun(gate, 1)
        left.cancel()  # while all it asked for is computed
        gate.opened.release(1000)
        large = batcher.submit(pieces(2, 7))  # more than the queue holds, but nobody else waits
        assert len(await large) == 7
        batcher.forward = fail
        for failed in [batcher.submit(pieces(3, 5)), batcher.submit(pieces(4, 1))]:
            with pytest.raises(MemoryError, match="no room"):
                await failed
        batcher.forward = gate.forward
        assert [int(row[0]) for row in await batcher.submit(pieces(5, 1))] == [5] and batcher.waiting == 0

    run_gated(story, queue_tokens=650)


def test_a_full_server_answers_429_and_when_to_come_back(encoder, monkeypatch):
    from minisbert.serve.limits import Limits

    limits = Limits(queue_tokens=30, requests=5)
    with served(encoder, limits=limits, num_threads=1) as (service, http), Gate() as gate:
        gate.stand_in(encoder, monkeypatch)
        with ThreadPoolExecutor(5) as others:
            asked = {"input": ["a b c d e f"] * 3}  # 24 tokens
            answers = [others.submit(http.post, "/v1/embeddings", json=asked)]
            until(lambda: gate.batches)  # it is being computed
            answers.append(others.submit(http.post, "/v1/embeddings", json=asked))
            until(lambda: service.batcher.waiting == 24)
            full = http.post("/v1/embeddings", json=asked)
            assert full.status_code == 429 and int(full.headers["retry-after"]) >= 1
            assert full.json()["error"]["code"] == "rate_limit_exceeded"
            answers += [others.submit(http.post, "/v1/embeddings", json={"input": "a"}) for _ in range(2)]
            until(lambda: service.running == 4)
            service.running += 1  # as if there were one more
            assert http.get("/info").status_code == 429 and http.get("/health").status_code == 200
            service.running -= 1
            gate.opened.release(1000)
            assert {answer.result().status_code for answer in answers} == {200}
        text = http.get("/metrics").text
        assert "minisbert_tokens_total 54.0" in text and "minisbert_queue_tokens 0.0" in text
        assert 'minisbert_request_seconds_count{path="/v1/embeddings",status="429"} 1.0' in text


# ---------------------------------------------------------------------------------------------------------- bad clients


def connect(http, sent=b""):
    opened = socket.create_connection((http.base_url.host, http.base_url.port), 60)
    opened.sendall(sent)
    return opened


HEALTH = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"


def head(length, path="/v1/embeddings", more=""):
    return f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def test_slow_clients_are_hung_up_on(encoder):
    from minisbert.serve.limits import Limits

    with served(encoder, limits=Limits(seconds=2.0)) as (service, http):
        kept = connect(http)  # in no hurry, but it never sends half of anything
        kept.sendall(HEALTH)
        until(lambda: kept.recv(1000).endswith(b'{"status":"ok"}'))
        idle, *others = [connect(http, sent) for sent in (b"", b"", b"POST /v1/embed", head(100) + b'{"input"')]
        others[0].sendall(HEALTH)
        until(lambda: others[0].recv(1000).endswith(b'{"status":"ok"}'))
        others[0].sendall(b"GET")  # the beginning of another request
        others.append(connect(http, HEALTH))
        until(lambda: others[-1].recv(1000).endswith(b'{"status":"ok"}'))
        others[-1].sendall(b"\r\n")  # which may be before one
        for slow in (idle, *others):
            with slow, suppress(ConnectionResetError):
                assert slow.recv(1000) == b""
        with kept:
            kept.sendall(HEALTH)
            assert kept.recv(1000).startswith(b"HTTP/1.1 200")
        body = json.dumps({"inputs": "a " * 100_000}).encode()
        with socket.socket() as reads_nothing:
            reads_nothing.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reads_nothing.connect((http.base_url.host, http.base_url.port))
            reads_nothing.sendall(head(len(body), "/tokenize") + body)
            until(lambda: ("/tokenize", "200") in service.seconds._metrics)  # it is answered
            until(lambda: not service.server.server_state.connections)
        assert http.post("/v1/embeddings", json={"input": "dog"}).status_code == 200


def test_what_stands_around_the_body_has_an_end(encoder):
    chunked = b"POST /v1/embeddings HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    with served(encoder) as (_, http):
        for begin, flood in (
            (b"GET /health HTTP/1.1\r\nx: ", b"a"),
            (b"GET /health HTTP/1.1\r\nx: ", b"a: b\r\n"),
            (chunked + b"2\r\n{}\r\n0\r\n", b"a: b\r\n"),
            (chunked + b"2;", b"a"),
        ):
            with connect(http, begin) as opened, suppress(ConnectionError):
                for _ in range(1000):  # far more than sockets hold
                    opened.sendall(flood * 10_000)
                pytest.fail("it reads on and on")
        assert http.get("/health", headers={"x": "a" * 1000}).status_code == 200
        parts = (b'{"input": "dog', b" " * 1_000_000, b'"}')
        assert http.post("/v1/embeddings", content=iter(parts)).status_code == 200  # the body is not counted


def test_the_wish_for_http_2_is_ignored_and_a_body_is_left_as_it_is(encoder, monkeypatch):
    from minisbert.serve import app

    bodies = []
    monkeypatch.setattr(app, "parse", lambda body, kind, real=app.parse: bodies.append(body) or real(body, kind))
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
    sent = b'{"input": "dog"}\r\nUpgrade: h2c\r\n\r\n\r\nUpgrade: h2c'
    with served(encoder) as (_, http):
        for _ in range(2):  # on one connection
            assert http.post("/v1/embeddings", json={"input": "dog"}, headers=upgrade).status_code == 200
            assert http.post("/v1/embeddings", content=sent, headers=upgrade).status_code == 400
        with connect(http, head(len(sent), more="Connection: Upgrade\r\nUpgrade: h2c\r\n") + sent) as at_once:
            assert at_once.recv(100).startswith(b"HTTP/1.1 400")
    assert bodies[1::2] == [sent, sent] and bodies[-1] == sent


def test_work_of_a_client_that_went_away_is_dropped(encoder, monkeypatch):
    with served(encoder, num_threads=1) as (service, http), Gate() as gate:
        gate.stand_in(encoder, monkeypatch)
        body = json.dumps({"input": ["a b c d e f"] * 1000}).encode()
        with connect(http, head(len(body)) + body):
            until(lambda: gate.batches)
        until(lambda: not service.batcher.waiting)
        gate.opened.release(1000)
        assert http.post("/v1/embeddings", json={"input": "dog"}).status_code == 200
        assert len(gate.batches) == 2


def test_memory_stays_as_it_is(encoder):
    def ask(http, count):
        for i in range(count):
            http.post("/v1/embeddings", json={"input": TEXTS[: 1 + i % 3]})
            http.post("/v1/embeddings", content=b'{"input": 3}' if i % 2 else b"{")
            http.get(f"/nowhere/{i}")

    with served(encoder) as (service, http):
        ask(http, 20)
        gc.collect()
        before = len(gc.get_objects())
        ask(http, 60)
        gc.collect()
        assert len(gc.get_objects()) - before < 60 and service.running == 0


# ------------------------------------------------------------------------------------------------ a process of its own


def test_a_load_of_mixed_lengths_with_faults(encoder):
    pool = [
        " ".join(random.Random(i).choices(["the", "cat", "sat", "mat", "dog", "soup"], k=1 + i % 13)) for i in range(60)
    ]
    expected = encoder.encode(pool)

    def client(seed):
        draw, right = random.Random(seed), 0
        with httpx2.Client(base_url=address, timeout=60, trust_env=False) as http:
            for _ in range(25):
                rows = [draw.randrange(60) for _ in range(draw.choice([1, 1, 1, 3, 40]))]
                body = json.dumps({"input": [pool[i] for i in rows]}).encode()
                fault = draw.randrange(5)
                if fault == 0:  # vanish in the middle of the request, or behind it
                    sent = head(len(body)) + body
                    connect(http, sent[: draw.randrange(len(sent) + 1)]).close()
                elif fault == 1:
                    assert http.post("/v1/embeddings", content=body[:-2]).status_code == 400
                else:
                    found = [item["embedding"] for item in http.post("/v1/embeddings", content=body).json()["data"]]
                    np.testing.assert_allclose(found, expected[rows], atol=COMPANY)
                    right += 1
        return right

    with process_of("--model", encoder.folder) as (address, _), ThreadPoolExecutor(8) as clients:
        assert sum(clients.map(client, range(8))) > 80
        with httpx2.Client(base_url=address, trust_env=False) as http:
            until(lambda: "minisbert_queue_tokens 0.0" in http.get("/metrics").text)


def test_sigterm_answers_what_was_asked_and_no_key_is_shown(encoder, tmp_path):
    (tmp_path / "keys.txt").write_text("from-file\n\nsecond\n")
    environment = {**os.environ, "MINISBERT_API_KEYS": "from-environment, fourth"}
    arguments = ("--model", encoder.folder, "--api-key-file", tmp_path / "keys.txt", "--host", "0.0.0.0")
    with process_of(*arguments, environment=environment) as (address, process):
        address = address.replace("0.0.0.0", "127.0.0.1")
        with httpx2.Client(base_url=address, trust_env=False) as http:
            for key in ("from-file", "second", "from-environment", "fourth"):
                assert http.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
            assert http.get("/v1/models").status_code == 401
            body = b'{"input": "i love soup"}'
            wait = "Authorization: Bearer second\r\nExpect: 100-continue\r\n"
            with connect(http, head(len(body), more=wait)) as asked:
                assert asked.recv(100).startswith(b"HTTP/1.1 100")  # the server waits for the body
                process.send_signal(signal.SIGTERM)
                while True:  # until nobody else gets in
                    try:
                        connect(http).close()
                    except ConnectionRefusedError:
                        break
                    except ConnectionResetError:  # at that very moment
                        pass
                asked.sendall(body)
                answer = b""
                while part := asked.recv(10_000):
                    answer += part
                assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"}}")
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_options_reach_the_service(encoder, monkeypatch):
    from minisbert.serve import app

    made = []
    monkeypatch.setattr(app, "make_server", lambda service: made.append(service) or SimpleNamespace(run=lambda **_: 0))
    limits = ("--max-request-tokens", 70, "--max-queue-tokens", 90, "--overflow", "chunk", "--max-seq-length", 8)
    run("serve", "--model", encoder.folder, "--port", 0, "--num-threads", 3, *limits)
    (service,) = made
    assert service._options.num_threads == 3 and service.batcher.round_tokens == 3 * 1024
    assert (service.limits.request_tokens, service.limits.queue_tokens, service.overflow) == (70, 90, "chunk")
    assert service.encoder.max_seq_length == 8 and service.keys == []


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--host", "0.0.0.0"], None, "no key is asked for"),
        (["--host", ""], None, "no key is asked for"),
        (["--host", "no.such.host.invalid"], None, "--host no.such.host.invalid"),
        (["--host", "192.0.2.1", "--no-api-key"], None, "192.0.2.1"),
        ([], "", "MINISBERT_API_KEYS"),
        ([], "good,b\u00e4d", "MINISBERT_API_KEYS"),
        (["--api-key-file", "empty.txt"], None, "empty.txt"),
        (["--api-key-file", "two-words.txt"], None, "two-words.txt"),
    ],
)
def test_what_does_not_start(encoder, tmp_path, monkeypatch, arguments, environment, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: pytest.fail("it started"))
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "two-words.txt").write_text("sec ret\n")
    if environment is not None:
        monkeypatch.setenv("MINISBERT_API_KEYS", environment)
    error = refused("serve", "--model", encoder.folder, "--port", "0", *arguments)
    assert said in error and "b\u00e4d" not in error and "ret" not in error.replace("secret", "")


def test_localhost_needs_no_key(serve):
    from minisbert.serve.limits import open_socket

    for host in ("localhost", "127.0.0.1", "127.0.0.2", "::1"):
        try:
            with open_socket(host, 0, is_guarded=False) as listening:
                # else the body of each answer waits for the client to acknowledge its head
                assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        except OSError:  # a machine without IPv6
            assert host == "::1"
