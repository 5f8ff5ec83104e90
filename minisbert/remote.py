"""Asking a server for vectors: the OpenAI embedding protocol, and a key that goes nowhere else.

text-embeddings-inference, vLLM, Ollama and llama.cpp speak it: ``POST {base_url}/embeddings`` with
``{"model": ..., "input": [...]}``, answered by
``{"data": [{"index": 0, "embedding": [...]}, ...], "model": ...}``.

The key is sent in one place, the Authorization header of that request. It stands in no ``repr``, in no error and in no
chained exception, even if the server sends it back; and since redirects are refused, it goes to no other host.

Left out on purpose: retries (whether to wait is the caller's decision) and asynchronous calls. ``client.py``, next, is
what people call.
"""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np

from minisbert.model import Array

if TYPE_CHECKING:
    from urllib.request import OpenerDirector, Request

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


def ask(texts: list[str], model: str, base_url: str, key: Key, timeout: float, batch_size: int) -> tuple[Array, str]:
    """Ask a server for one vector per text, batch by batch.

    Parameters
    ----------
    texts : list of str
        B texts.
    model : str
        As the server knows it.
    base_url : str
        Without a slash at its end.
    key : Key
    timeout : float
        Seconds that the server may stay silent.
    batch_size : int
        Texts in a request.

    Returns
    -------
    embeddings : Array, shape (B, D), float32
    model : str
        As the server names it, if it does.

    Raises
    ------
    ClientError
        If the server cannot be reached, stays silent, refuses, redirects, or does not answer with exactly one vector
        of finite numbers per text, all of one width.

    Notes
    -----
    **Source**: the OpenAI API reference, "Create embeddings".

    Examples
    --------
    >>> ask(["i love soup"], "any", "http://localhost:1", Key("secret"), 1.0, 32)
    Traceback (most recent call last):
        ...
    minisbert.remote.ClientError: Client.embed: POST http://localhost:1/embeddings: expected an answer, got none ...
    """
    from http.client import HTTPException  # 0.02 s to import, which those who compute here need not wait for

    url = f"{base_url}/embeddings"
    rows: list[Any] = []
    try:
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            answer = _parse(_post(url, {"model": model, "input": batch}, key, timeout), key)
            rows += _in_order(answer["data"], len(batch))
            model = named if isinstance(named := answer.get("model"), str) else model
        return _as_matrix(rows), model
    except (OSError, HTTPException, ValueError, OverflowError) as error:
        problem = _explain(error, key, timeout)
    # Outside of the handler, so that no exception which might hold the request, and so the key, is chained to it.
    raise ClientError(key.strike_out(f"Client.embed: POST {url}: {problem}"))


# ------------------------------------------------------------------------------------------------- the key


class Key:
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


def check_key(api_key: str | None) -> None:
    """Refuse what cannot stand in a header, without repeating it.

    Parameters
    ----------
    api_key : str or None

    Raises
    ------
    ClientError

    Examples
    --------
    >>> check_key("")
    Traceback (most recent call last):
        ...
    minisbert.remote.ClientError: Client: api_key must not be empty. ...
    """
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


# ------------------------------------------------------------------------------------------------- the address


def checked_url(base_url: str) -> str:
    """Check an address and give it without a slash at its end.

    Parameters
    ----------
    base_url : str

    Returns
    -------
    str

    Raises
    ------
    ClientError

    Examples
    --------
    >>> checked_url("http://localhost:8080/v1/")
    'http://localhost:8080/v1'
    """
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


# ------------------------------------------------------------------------------------------------- the request


def _post(url: str, payload: dict[str, Any], key: Key, timeout: float) -> bytes:
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


def _explain(error: Exception, key: Key, timeout: float) -> str:
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


def _explain_status(error: Any, key: Key) -> str:
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


def _snippet(body: bytes, key: Key) -> str:
    """The beginning of an answer in one printable line, without the key."""
    text = key.strike_out(body.decode("utf-8", errors="replace"))  # before the cut, which could leave half of a key
    line = "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))
    return repr(line[:SNIPPET_LETTERS]) + (" ..." if len(line) > SNIPPET_LETTERS else "")


# ------------------------------------------------------------------------------------------------- the answer


def _parse(body: bytes, key: Key) -> dict[str, Any]:
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
