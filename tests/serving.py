"""A server of a tiny model, in a thread of this process, or in a process of its own as a user starts it."""

import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx2
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.model.pooling import Normalize, Pooling


def tiny_encoder(folder):
    return SentenceEncoder(write_model(folder / "tiny-model", modules=(Pooling(), Normalize()), seed=3))


def until(condition):
    """Wait for something that comes sooner or later."""
    for _ in range(60_000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("it did not happen within a minute")


@contextmanager
def served(encoder, **settings):
    """Serve from a thread: the service, and a client that knows its address."""
    from minisbert.serve.app import Service, make_server
    from minisbert.serve.limits import open_socket

    service = Service(encoder, **settings)
    server, listening = make_server(service), open_socket("127.0.0.1", 0, is_guarded=False)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        until(lambda: server.started)
        service.server = server
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx2.Client(base_url=address, timeout=60, trust_env=False) as http:
            yield service, http
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@contextmanager
def process_of(*arguments, environment=None):
    """``minisbert serve`` on a free port: its address and the process, which SIGTERM must end with 0."""
    command = [sys.executable, "-m", "minisbert", "serve", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            said = process.stderr.readline()
            found = re.search(r"http://\S+(?=/v1)", said)
            assert found, said + process.stderr.read()
            yield found[0], process
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, process.stderr.read()
        finally:
            process.kill()
