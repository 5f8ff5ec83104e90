"""A client in the style of the hosted embedding services: ``Client(api_key).embed(phrases).embeddings``.

Without a ``base_url`` it computes in this process, with `SentenceEncoder`: the key is checked for slips and then
forgotten. With a ``base_url`` it asks a server that speaks the OpenAI embedding protocol, as text-embeddings-inference,
vLLM, Ollama and llama.cpp do: ``POST {base_url}/embeddings`` with ``{"model": ..., "input": [...]}``, answered by
``{"data": [{"index": 0, "embedding": [...]}, ...], "model": ...}``.

The key is sent in one place, the Authorization header of that request. It stands in no ``repr`` of the client, in no
error and in no chained exception, even if the server sends it back; and since redirects are refused, it goes to no
other host.

Left out on purpose: retries (whether to wait is the caller's decision) and asynchronous calls. This is the last file
of the reading path.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np

from minisbert.hub import DEFAULT_MODEL
from minisbert.model import Array

if TYPE_CHECKING:
    from urllib.request import OpenerDirector, Request

    from minisbert.encoder import SentenceEncoder

__all__ = ["Client", "ClientError", "EmbedResponse"]

ERROR_BYTES = 65_536  # so much of a server's error page is read
SNIPPET_LETTERS = 300  # and so much of it is shown
FLOAT32_MAX = float(np.finfo(np.float32).max)

LIKELY_CAUSES = {
    400: "The server does not accept the request; its own words say why",
    401: "The server does not accept this api_key",
    403: "The server does not accept this api_key, or not for this model",
    404: "There is no such path or model there: base_url usually ends in /v1, and the server has its own model names",
    413: "Too much in one request: lower batch_size, or shorten the texts",
    422: "A batch or a text is too large, or the model is unknown there: lower batch_size, or shorten the texts",
    429: "Too many requests: wait, or lower your rate",
}


class ClientError(ValueError):
    """What a `Client` was given is not usable, or the server did not answer with one vector per text."""


@dataclass(frozen=True, eq=False)
class EmbedResponse:
    """What `Client.embed` gives.

    Parameters
    ----------
    embeddings : Array, shape (B, D), float32
        One row per text, in the order of the texts.
    model : str
        The model that made them; as the server names it, if there is one.
    """

    embeddings: Array  # (B, D)
    model: str


class Client:
    """Turn texts into vectors, in this process or by asking a server.

    Parameters
    ----------
    api_key : str, optional
        Sent as ``Authorization: Bearer`` to ``base_url``, and to nobody else. Without a ``base_url`` it is not needed
        and not kept.
    model : str, optional
        As `SentenceEncoder` or the server knows it; by default all-MiniLM-L6-v2, in both cases.
    base_url : str, optional
        Where the server is, such as ``"http://localhost:8080/v1"``. Over http the key travels in the clear.
    timeout : float
        Seconds, > 0: how long the server may stay silent. It does not limit the computation in this process.

    Raises
    ------
    ClientError
        A ValueError: if an argument is not usable. The message never repeats the key or the address.

    Notes
    -----
    **Source**: the OpenAI API reference, "Create embeddings"; ``openai.OpenAI(api_key, base_url).embeddings.create``.

    Examples
    --------
    >>> client = Client("YOUR_API_KEY")
    >>> client  # the key is not shown
    Client(model='sentence-transformers/all-MiniLM-L6-v2', base_url=None)
    >>> phrases = ["i love soup", "soup is my favorite", "london is far away"]
    >>> (soup1, soup2, london) = client.embed(phrases).embeddings

    >>> def calculate_similarity(a, b):
    ...     return np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    >>> print(f"{calculate_similarity(soup1, soup2):.4f}")  # very similar
    0.9240
    >>> print(f"{calculate_similarity(soup1, london):.4f}")  # not similar
    0.0705
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        model: str | None = None,
        base_url: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        _check_key(api_key)
        if model is not None and (not isinstance(model, str) or not model.strip()):
            raise ClientError(
                f"Client: model must be a name or a folder as str, or None for {DEFAULT_MODEL}, got {model!r}."
            )
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            raise ClientError(f"Client: timeout must be a number of seconds > 0, got {timeout!r}.")
        self.model = model or DEFAULT_MODEL
        self.base_url = None if base_url is None else _checked_url(base_url)
        self.timeout = float(timeout)
        self._key = _Key(None if base_url is None else api_key)
        self._encoder: SentenceEncoder | None = None

    def __repr__(self) -> str:
        """Name the model and the server, and not the key."""
        return self._key.strike_out(f"Client(model={self.model!r}, base_url={self.base_url!r})")

    def embed(self, texts: str | Iterable[str], *, batch_size: int = 32) -> EmbedResponse:
        """Give one vector per text.

        Parameters
        ----------
        texts : str or iterable of str
            B texts; a single string counts as one text.
        batch_size : int
            >= 1: so many texts go to the server in one request (text-embeddings-inference takes up to 32 unless
            told otherwise). It plays no part without a ``base_url``.

        Returns
        -------
        EmbedResponse
            ``embeddings`` (B, D) float32, in the order of the texts. No texts give (0, D), and (0, 0) from a server,
            which then is not asked and whose D is unknown.

        Raises
        ------
        ClientError
            A ValueError: if something is no text; if the server cannot be reached, stays silent for longer than
            ``timeout``, refuses, redirects, or does not answer with exactly one vector of finite numbers per text,
            all of one width.
        ValueError
            As `SentenceEncoder`, if the model cannot be had or does not compute.

        Notes
        -----
        **Source**: ``SentenceEncoder(model).encode(texts)``, or ``openai.OpenAI().embeddings.create(...)``.

        Examples
        --------
        >>> response = Client().embed("i love soup")
        >>> response.embeddings.shape, response.model
        ((1, 384), 'sentence-transformers/all-MiniLM-L6-v2')
        """
        checked = _checked_texts(texts)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ClientError(f"Client.embed: batch_size must be a whole number >= 1, got {batch_size!r}.")
        if self.base_url is None:
            return self._embed_here(checked)
        return self._embed_there(checked, f"{self.base_url}/embeddings", batch_size)

    def _embed_here(self, texts: list[str]) -> EmbedResponse:
        """Compute in this process; the model is loaded at the first call."""
        if self._encoder is None:
            from minisbert.encoder import SentenceEncoder  # who asks a server needs neither tokenizer nor weights

            self._encoder = SentenceEncoder(self.model)
        return EmbedResponse(self._encoder.encode(texts), self.model)

    def _embed_there(self, texts: list[str], url: str, batch_size: int) -> EmbedResponse:
        """Ask the server, batch by batch. Whatever goes wrong on the way leaves through the one door at the end."""
        from http.client import HTTPException  # 0.02 s to import, which those who compute here need not wait for

        rows: list[Any] = []
        model = self.model
        try:
            for start in range(0, len(texts), batch_size):
                batch = texts[start : start + batch_size]
                body = _post(url, {"model": self.model, "input": batch}, self._key, self.timeout)
                answer = _parse(body, self._key)
                rows += _in_order(answer["data"], len(batch))
                named = answer.get("model")
                model = named if isinstance(named, str) else model
            return EmbedResponse(_as_matrix(rows), model)
        except (OSError, HTTPException, ValueError, OverflowError) as error:
            problem = _explain(error, self._key, self.timeout)
        # Outside of the handler, so that no exception which might hold the request, and so the key, is chained to it.
        raise ClientError(self._key.strike_out(f"Client.embed: POST {url}: {problem}"))


# ------------------------------------------------------------------------------------------------- the key


class _Key:
    """An API key that can be sent, and struck out of a text, but not printed."""

    __slots__ = ("_value",)

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "<hidden>"

    def authorize(self, request: Request) -> None:
        """Put the key into the header of a request, which is the only place where it goes."""
        if self._value is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._value}")

    def strike_out(self, text: str) -> str:
        """Replace the key in a text, as it is and as it looks in JSON, in a URL and in HTML."""
        if self._value is not None:
            in_json = json.dumps(self._value)[1:-1]
            forms = (self._value, in_json, in_json.replace("/", r"\/"), quote(self._value, safe=""))
            for form in (*forms, html.escape(self._value)):
                text = text.replace(form, "***")
        return text


def _check_key(api_key: str | None) -> None:
    """Refuse what cannot stand in a header, without repeating it."""
    if api_key is None:
        return
    if not isinstance(api_key, str):
        raise ClientError(f"Client: api_key must be a str or None, got something of type {type(api_key).__name__}.")
    if not api_key:
        raise ClientError(
            "Client: api_key must not be empty. Probably the environment variable that it was read from is not "
            "set. Where no key is needed, leave it out."
        )
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise ClientError(
            f"Client: api_key must be visible ASCII letters, but of its {len(api_key)} characters some are blanks, "
            f"control characters or not ASCII (the key is not shown here). A newline at the end comes along when it "
            f"is read from a file: use .strip()."
        )


# ------------------------------------------------------------------------------------------------- arguments


def _checked_url(base_url: str) -> str:
    """The address without a slash at its end."""
    problem = _url_problem(base_url)
    if problem is not None:  # the address is not repeated: it may hold a password, or be the key by mistake
        raise ClientError(
            f"Client: base_url must look like http://localhost:8080/v1 or https://host/v1, but it {problem}."
        )
    return base_url.rstrip("/")


def _url_problem(base_url: object) -> str | None:
    """What is wrong with an address, if anything."""
    if not isinstance(base_url, str):
        return f"is of type {type(base_url).__name__}"
    if not base_url.isascii() or not base_url.isprintable() or " " in base_url:
        return "has blanks, control characters or letters beyond ASCII (write those as %20, or xn--)"
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError:
        return "has a port that is no number, or a broken IPv6 address"
    if parts.scheme not in ("http", "https"):
        return "does not start with http:// or https://"
    if "@" in parts.netloc:
        return "holds a user name or password, which belong into api_key"
    if not parts.hostname:
        return "names no host"
    if "?" in base_url or "#" in base_url:
        return "has a ? or #, after which no /embeddings can be added"
    return None


def _checked_texts(texts: str | Iterable[str]) -> list[str]:
    """The texts as a list."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise ClientError(
            f"Client.embed: texts must be a str or an iterable of B str, got something of type {type(texts).__name__}. "
            f"Bytes have to be decoded first."
        )
    checked = list(texts)
    for position, text in enumerate(checked):
        if not isinstance(text, str):
            raise ClientError(
                f"Client.embed: texts must be B str, but number {position} of {len(checked)} (from 0) is of "
                f"type {type(text).__name__}. Missing values in a table are the usual cause: drop or replace them."
            )
    return checked


# ------------------------------------------------------------------------------------------------- the request


def _post(url: str, payload: dict[str, Any], key: _Key, timeout: float) -> bytes:
    """Send JSON, give the bytes of the answer; HTTPError for every status but 2xx."""
    from urllib.request import Request

    headers = {"Content-Type": "application/json", "User-Agent": "minisbert"}
    request = Request(url, json.dumps(payload).encode(), headers, method="POST")
    key.authorize(request)
    with _opener().open(request, timeout=timeout) as response:
        body: bytes = response.read()
    return body


def _opener() -> OpenerDirector:
    """What urllib.request.urlopen uses, less redirects: one could carry the key to another host."""
    import urllib.request as request

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _explain(error: Exception, key: _Key, timeout: float) -> str:
    """Say what happened, why, and what to do."""
    from urllib.error import HTTPError, URLError

    if isinstance(error, ClientError):  # what is wrong with the answer was said where it was found
        return str(error)
    if isinstance(error, HTTPError):
        return _explain_status(error, key)
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f"expected an answer within {timeout:g} s, got none. Raise timeout, or lower batch_size."
    return (
        f"expected an answer, got none ({type(reason).__name__}: {reason}). Does the server run, is base_url its "
        f"address, and does it speak {'TLS, as https asks' if 'SSL' in type(reason).__name__ else 'HTTP'}?"
    )


def _explain_status(error: Any, key: _Key) -> str:
    """The same for an HTTP status, with a piece of what the server says about it."""
    from http.client import HTTPException

    with error:
        try:
            said = _snippet(error.read(ERROR_BYTES), key)
        except (OSError, HTTPException):
            said = "nothing more"
    if 300 <= error.code < 400:
        target = _snippet(error.headers.get("Location", "nowhere").encode(), key)
        return (
            f"expected vectors, got status {error.code}, a redirect to {target}. Redirects are not followed, because "
            f"the key would go along: put the right address into base_url."
        )
    failed = "The server failed: look into its log, or try again later"
    cause = LIKELY_CAUSES.get(error.code, failed if error.code >= 500 else "The server refuses")
    return f"expected vectors, got status {error.code}. {cause}. The server says: {said}"


def _snippet(body: bytes, key: _Key) -> str:
    """The beginning of an answer in one printable line, without the key."""
    text = key.strike_out(body.decode("utf-8", errors="replace"))  # before the cut, which could leave half of a key
    line = "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))
    return repr(line[:SNIPPET_LETTERS]) + (" ..." if len(line) > SNIPPET_LETTERS else "")


# ------------------------------------------------------------------------------------------------- the answer


def _parse(body: bytes, key: _Key) -> dict[str, Any]:
    """The answer as a dict with a list under "data"."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise ClientError(
            f'expected JSON such as {{"data": [{{"index": 0, "embedding": [0.1, ...]}}]}}, got {len(body)} bytes: '
            f"{_snippet(body, key)}. Is base_url the address of an OpenAI-compatible server, up to /v1?"
        )
    return answer


def _in_order(data: list[Any], count: int) -> list[Any]:
    """The embeddings sorted by "index"; servers may answer in any order."""
    rows: dict[int, Any] = {}
    for item in data:
        index = item.get("index") if isinstance(item, dict) else None
        if type(index) is not int or not 0 <= index < count or index in rows:
            got = f"index {index}" if type(index) is int else "one without an index"
            again = " twice" if type(index) is int and index in rows else ""
            raise ClientError(
                f"expected {count} rows with index 0 to {count - 1}, each once, got {len(data)} rows, and among them "
                f"{got}{again}. The server does not keep to the protocol: look for an update of it."
            )
        rows[index] = item.get("embedding")
    missing = [index for index in range(count) if index not in rows]
    if missing:
        raise ClientError(
            f"expected {count} vectors for {count} texts, got {len(rows)}: index {missing[0]} is the first that is "
            f"missing. The server may limit the texts in a request: lower batch_size."
        )
    return [rows[index] for index in range(count)]


def _as_matrix(rows: list[Any]) -> Array:
    """The embeddings as one float32 array ``(B, D)``."""
    for position, row in enumerate(rows):
        problem = _row_problem(row, rows[0])
        if problem is not None:
            raise ClientError(
                f"expected D finite float32 numbers as the vector of each of {len(rows)} texts, got, for text "
                f"{position} (from 0), {problem}."
            )
    return np.array(rows, dtype=np.float32).reshape(len(rows), -1 if rows else 0)


def _row_problem(row: Any, first: Any) -> str | None:
    """What is wrong with one embedding, and why that may be, if anything."""
    if not isinstance(row, list) or not row or not all(type(value) in (int, float) for value in row):
        return (
            f"a {type(row).__name__} that is no list of numbers. Does the server pool to one vector per text "
            f"(llama.cpp: --pooling mean)"
        )
    if len(row) != len(first):
        return f"{len(row)} numbers after {len(first)} for text 0. There may be more than one model behind this address"
    if not all(-FLOAT32_MAX <= value <= FLOAT32_MAX for value in row):  # false for NaN too
        return "NaN, Inf or numbers beyond float32. A model that runs in half precision is the usual cause"
    return None
