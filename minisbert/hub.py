"""Model name in, local folder out: what the user typed is told apart, completed, and looked up.

A path is a folder and is taken as it is. A name is a model on the Hugging Face Hub. The default model goes the pinned
way of ``pinned.py``; any other one comes from the Hub into the Hub's own cache, and a copy there serves when the Hub is
out of reach and nothing in it is missing.

Left out on purpose: hashes of other models, which nobody pinned, and what the files mean (``model/config.py``,
``model/params.py``). Next: ``encoder.py``, which loads the folder.
"""

import json
import os
import re
import sys
from pathlib import Path

from minisbert.checks import check_flag
from minisbert.pinned import DEFAULT_MODEL, DEFAULT_REVISION, default_model, verify_files
from minisbert.sources import FetchError, Request, Resolved, cached_snapshot, download, failure_reason, failure_report

__all__ = ["DEFAULT_MODEL", "FetchError", "Resolved", "fingerprint", "resolve", "verify_files"]

# What we read of any other model. In the Hub's patterns "*" crosses folders, hence the second line.
ALLOWED = ["*.json", "*.safetensors", "*vocab.txt"]
IGNORED = ["onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*"]
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
    check_flag("resolve: local_files_only", local_files_only)
    for argument, value, kinds in (("revision", revision, str), ("token", token, (str, bool))):
        if value is not None and not isinstance(value, kinds):
            raise FetchError(f"resolve: {argument} must be a text (str) or None, got {type(value).__name__}.")
    if folder is not None:
        if revision is not None:
            raise FetchError(
                f"resolve: {str(folder)!r} is a local folder, and a folder has no revision {revision!r}. "
                "Leave revision out, or rename the folder if you meant the model of that name on the Hub."
            )
        return Resolved(folder, f"the folder {folder}")
    name = DEFAULT_MODEL if model is None else _repository(str(model))
    offline = "local_files_only=True forbids the network" if local_files_only else _offline_variable()
    show_progress_bar = show_progress_bar and sys.stderr is not None
    request = Request(name, revision, token, offline, show_progress_bar)
    if name == DEFAULT_MODEL and revision in (None, DEFAULT_REVISION):
        return default_model(request)
    return _other_model(request)


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


# ---- any other model: the Hub and its ordinary cache --------------------------------------------------------------


def _other_model(request: Request) -> Resolved:
    cached = cached_snapshot(request.model, request.revision)
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
            folder = download(request, request.revision, allow_patterns=ALLOWED, ignore_patterns=IGNORED)
            return Resolved(folder, f"the Hugging Face Hub, {request.model} in {folder}")
        except Exception as error:  # network, disk and server errors have no common base; all end in one report
            reason = failure_reason(error, request)
        if whole:
            return Resolved(whole.folder, f"{whole.source} (the Hub did not deliver: {reason})")
        attempts.append(f"the Hugging Face Hub: {reason}")
    raise FetchError(
        failure_report(request, attempts)
        + "\nBy hand: copy the model's *.json, vocab.txt, *.safetensors and module folders into a folder and pass its "
        "path. There is no local folder of this name either."
    )


def _lacking(folder: Path) -> list[str]:
    """What a model folder should hold and does not: an interrupted download leaves such folders in the Hub's cache."""
    needed = []
    try:
        listed = (folder / "modules.json").read_bytes() if (folder / "modules.json").is_file() else b'[{"path": ""}]'
        for module in json.loads(listed):
            path, kind = module["path"], module.get("type", "Transformer").rpartition(".")[2]
            needed += [f"{path}/config.json"] if kind not in ("Normalize", "Dropout") else []
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
