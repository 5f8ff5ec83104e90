"""What every way to a model shares: the question, the answer, the Hugging Face Hub, and how a failure is told.

A `Request` goes in. Out comes a `Resolved` folder, or a `FetchError` that lists each source with its reason, a line
each, without secrets: tokens, and the passwords in mirrors' addresses, are blotted out here and nowhere else.

Left out on purpose: which sources are asked, in which order, and whether their bytes are believed; and every format
that executes code when it is read (pickles). ``huggingface_hub`` takes 0.3 s to import, so only a look-up that needs it
pays for it. Next: ``pinned.py``, the one model whose bytes are known in advance.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
class Request:
    """What is asked of each source.

    Parameters
    ----------
    model : str
        The full name on the Hub.
    revision : str or None
        Branch, tag or commit. None: the pinned one of the default model, the newest of any other.
    token : str, bool or None
        As for ``hub.resolve``; never shown.
    offline : str
        What forbids the network, "" if nothing does.
    show_progress_bar : bool
        Let the Hub's client, or pip, draw its progress on stderr.

    Examples
    --------
    >>> Request("owner/name", None, "hf_secret", "", False)
    Request(model='owner/name', revision=None, offline='', show_progress_bar=False)
    """

    model: str
    revision: str | None
    token: str | bool | None = field(repr=False)
    offline: str
    show_progress_bar: bool


def cached_snapshot(model: str, revision: str | None) -> Path | None:
    """Find the folder of a model in the local Hugging Face cache, whole or not.

    Parameters
    ----------
    model : str
        The full name on the Hub.
    revision : str or None
        Branch, tag or commit; None is the branch ``main``.

    Returns
    -------
    pathlib.Path or None
        None: there is none.

    Examples
    --------
    >>> cached_snapshot("owner/a-model-that-nobody-has", None) is None
    True
    """
    from huggingface_hub import try_to_load_from_cache

    for name in ("modules.json", "config.json"):
        path = try_to_load_from_cache(model, name, revision=revision)
        if isinstance(path, str):
            return Path(path).parent
    return None


def download(request: Request, revision: str | None, **options: Any) -> Path:
    """Fetch one snapshot from the Hub, after one quick question: is it there, has it the model, in a safe format?

    Parameters
    ----------
    request : Request
        Its model, its token, and whether to draw progress.
    revision : str or None
        Branch, tag or commit; it may be another than the request's.
    **options
        Which files, and where to, in the words of ``huggingface_hub.snapshot_download``.

    Returns
    -------
    pathlib.Path
        The snapshot's folder.

    Raises
    ------
    FetchError
        The model has no safetensors.
    Exception
        Whatever network, disk and server raise; it has no common base.

    Examples
    --------
    >>> try:
    ...     download(Request("not a name", None, None, "", False), None)
    ... except ValueError as error:
    ...     print(type(error).__name__)
    HFValidationError
    """
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


def failure_reason(error: Exception, request: Request) -> str:
    """Say in one line why a source failed, free of secrets.

    Parameters
    ----------
    error : Exception
        What the source raised. A `FetchError` of our own is taken as it is.
    request : Request
        What was asked; its token is blotted out.

    Returns
    -------
    str

    Examples
    --------
    >>> request = Request("owner/name", None, "hf_secret", "", False)
    >>> failure_reason(OSError("https://me:password@mirror refused hf_secret"), request)
    'OSError: https://***@mirror refused ***'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    nested = re.search(r"\[Errno -?\d+\] [\w ]+", lines[0]) if len(lines[0]) > 200 else None
    text = f"{type(error).__name__}: {nested[0] if nested else lines[0]}"
    text = HUB_REASONS.get(type(error).__name__, text)
    return _without_secrets(str(error) if isinstance(error, FetchError) else text, request)


def failure_report(request: Request, attempts: list[str]) -> str:
    """List every source with its reason: what a user reads when none of them has the model.

    Parameters
    ----------
    request : Request
        What was asked; its token is blotted out.
    attempts : list of str
        Each source and why it failed, in the order in which they were tried.

    Returns
    -------
    str

    Examples
    --------
    >>> request = Request("owner/name", "v1", None, "", False)
    >>> print(failure_report(request, ["the Hugging Face Hub: no such model"]))
    resolve: no source has owner/name at revision v1. Tried, in this order...:
      1. the Hugging Face Hub: no such model
    """
    at = f" at revision {request.revision}" if request.revision else ""
    tried = "".join(f"\n  {number}. {attempt}" for number, attempt in enumerate(attempts, 1))
    hub = f" (HF_ENDPOINT is {os.environ['HF_ENDPOINT']})" if os.environ.get("HF_ENDPOINT") else ""
    report = f"resolve: no source has {request.model}{at}. Tried, in this order{hub}:{tried}"
    return _without_secrets(report, request)


def _without_secrets(text: str, request: Request) -> str:
    for secret in (request.token, os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")):
        if isinstance(secret, str) and secret.strip():
            text = text.replace(secret.strip(), "***")
    return re.sub(r"://[^/@\s]+@", "://***@", text)  # a mirror's address can carry a password
