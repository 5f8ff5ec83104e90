"""A client in the style of the hosted embedding services: ``Client(api_key).embed(phrases).embeddings``.

Without a ``base_url`` it computes in this process, with `SentenceEncoder`: the key is checked for slips and forgotten.
With one it speaks OpenAI's protocol, as text-embeddings-inference, vLLM, Ollama and llama.cpp do. The key then stands
in the Authorization header of each request and nowhere else: in no repr, error or chained exception; and redirects are
refused, so that it goes to no other host.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from minisbert.checks import check_whole, each_text
from minisbert.hub import DEFAULT_MODEL
from minisbert.model import Array

if TYPE_CHECKING:
    import httpx2

    from minisbert.encoder import SentenceEncoder

__all__ = ["Client", "ClientError", "EmbedResponse"]

MAX_BATCH = 2048  # texts in one request of OpenAI's
MAX_WAIT = 60.0  # seconds; a server that asks for more is not waited for
LIKELY_CAUSES = {
    401: "The server does not accept this api_key",
    403: "The server does not accept this api_key, or not for this model",
    404: "There is no such path or model there: base_url usually ends in /v1, and the server has its own model names",
    413: "Too much in one request: lower batch_size, or shorten the texts",
    422: "A batch or a text is too large, or the model is unknown there: lower batch_size, or shorten the texts",
    429: "Too many requests: wait, or lower your rate",
}


class ClientError(ValueError):
    """The server did not answer with one vector per text."""


@dataclass(frozen=True, eq=False)
class EmbedResponse:
    """What `Client.embed` gives: one row per text, in the order of the texts, and the model that made them."""

    embeddings: Array  # (B, D) float32
    model: str  # as the server names it, if there is one


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
    max_retries : int
        >= 0: how often a request is repeated after status 429 or 5xx, or after the connection failed. The waits double
        from 0.5 s; a server's ``Retry-After`` is obeyed up to 60 s. One that stays silent is not asked again.

    Raises
    ------
    ValueError
        If an argument is not usable. The message never repeats the key or the address.

    Notes
    -----
    **Source**: the OpenAI API reference, "Create embeddings"; ``openai.OpenAI(api_key, base_url).embeddings.create``.

    Examples
    --------
    >>> import numpy as np
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
        max_retries: int = 2,
    ) -> None:
        if api_key is not None and not (isinstance(api_key, str) and re.fullmatch("[!-~]+", api_key)):
            raise ValueError(
                "Client: api_key must be a string of visible ASCII characters, or None where no key is needed (it is "
                "not shown here). Is the environment variable that it comes from set? Out of a file, use .strip()."
            )
        if model is not None and not (isinstance(model, str) and model.strip()):
            raise ValueError(f"Client: model must be a name or a folder (str), or None, got {model!r}")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            raise ValueError(f"Client: timeout must be a number of seconds > 0, got {timeout!r}")
        self.max_retries = check_whole("Client: max_retries", max_retries, 0)
        self.model = model or DEFAULT_MODEL
        self.base_url = None if base_url is None else _checked_url(base_url)
        self.timeout = float(timeout)
        self._encoder: SentenceEncoder | None = None
        self._http: httpx2.Client | None = None
        if base_url is not None:
            import httpx2

            # it does not show this header in a repr; without connections kept alive there is nothing to close
            headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
            limits = httpx2.Limits(max_keepalive_connections=0)
            self._http = httpx2.Client(headers=headers, timeout=self.timeout, limits=limits)

    def __repr__(self) -> str:
        """Name the model and the server, and not the key."""
        return self._without_key(f"Client(model={self.model!r}, base_url={self.base_url!r})")

    def embed(self, texts: str | Iterable[str], *, batch_size: int = 32) -> EmbedResponse:
        """Give one vector per text.

        Parameters
        ----------
        texts : str or iterable of str
            B texts; a single string counts as one text.
        batch_size : int
            1 to 2,048: so many texts go to the server in one request (text-embeddings-inference takes up to 32 unless
            told otherwise). It plays no part without a ``base_url``.

        Returns
        -------
        EmbedResponse
            ``embeddings`` (B, D) float32, in the order of the texts. No texts give (0, D), and (0, 0) from a server,
            which then is not asked and whose D is unknown.

        Raises
        ------
        ValueError
            If something is no text; and as `SentenceEncoder`, if the model cannot be had or does not compute.
        ClientError
            A ValueError: if the server cannot be reached, stays silent for longer than ``timeout``, refuses, redirects,
            or does not answer with exactly one vector of finite numbers per text, all of one width.

        Notes
        -----
        **Source**: ``SentenceEncoder(model).encode(texts)``, or ``openai.OpenAI().embeddings.create(...)``.

        Examples
        --------
        >>> response = Client().embed("i love soup")
        >>> response.embeddings.shape, response.model
        ((1, 384), 'sentence-transformers/all-MiniLM-L6-v2')
        """
        checked = list(each_text(texts, "Client.embed: texts", single=True))
        batch_size = check_whole("Client.embed: batch_size", batch_size, 1, MAX_BATCH)
        if self._http is None:
            if self._encoder is None:
                from minisbert.encoder import SentenceEncoder  # who asks a server needs neither tokenizer nor weights

                self._encoder = SentenceEncoder(self.model)
            return EmbedResponse(self._encoder.encode(checked), self.model)
        rows: list[Array] = []
        model = self.model
        for start in range(0, len(checked), batch_size):
            found, model = self._ask(self._http, checked[start : start + batch_size])
            rows += found
            for i, row in enumerate(found, start):
                if row.shape != (rows[0].size,) or not row.size or not np.isfinite(row).all():
                    raise self._error(
                        f"expected a vector of finite float32 numbers per text, all of one width, but text {i} has "
                        f"shape {row.shape} where text 0 has {rows[0].shape}, or NaN or Inf. Does the server pool "
                        "(llama.cpp: --pooling mean)? Is there more than one model behind this address?"
                    )
        return EmbedResponse(np.stack(rows) if rows else np.empty((0, 0), np.float32), model)

    def _ask(self, http: httpx2.Client, batch: list[str]) -> tuple[list[Array], str]:
        """The vectors of one batch, ordered by "index", for a server may answer in any order; and its model's name."""
        response, problem = self._post(http, batch)
        if response is not None:
            try:
                answer = response.json()
                rows = {item["index"]: _vector(item["embedding"]) for item in answer["data"]}
                if sorted(rows) == list(range(len(batch))) and len(answer["data"]) == len(batch):
                    named = answer.get("model")
                    return [rows[i] for i in range(len(batch))], named if isinstance(named, str) else self.model
                problem = f"got {len(answer['data'])} with index {sorted(rows)!r:.80}. Does a lower batch_size help?"
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError):  # ValueError: no JSON, no base64
                problem = (
                    f"got {len(response.content)} bytes: {self._snippet(response)}. Is base_url the address of an "
                    "OpenAI-compatible server, up to /v1?"
                )
            row = '{"index": 0, "embedding": [0.1, ...] or base64}'
            problem = f'expected {len(batch)} vectors, {{"data": [{row}, ...]}}, {problem}'
        # Outside of the handlers: what they caught holds the request, and so the key, and must not be chained.
        raise self._error(problem)

    def _post(self, http: httpx2.Client, batch: list[str]) -> tuple[httpx2.Response | None, str]:
        """Send one batch, and again where that may help: the answer, or None and what is wrong."""
        import httpx2

        payload = {"model": self.model, "input": batch, "encoding_format": "base64"}
        for attempt in range(self.max_retries + 1):
            wait = min(0.5 * 2.0**attempt, 8.0)
            try:
                response = http.post(f"{self.base_url}/embeddings", json=payload)
            except (httpx2.ReadTimeout, httpx2.WriteTimeout):
                return None, f"expected an answer within {self.timeout:g} s. Raise timeout, or lower batch_size."
            except (httpx2.RequestError, httpx2.InvalidURL, OSError, ValueError) as error:
                problem = (
                    f"expected an answer, got none ({type(error).__name__}: {error}). Does the server run, is base_url "
                    f"its address, and does it speak {str(self.base_url).partition(':')[0]}?"
                )
            else:
                status = response.status_code
                if response.is_success:
                    return response, ""
                failed = "The server failed: look into its log" if status >= 500 else "Its own words say why"
                cause = LIKELY_CAUSES.get(status, failed)
                if response.is_redirect:  # not followed: the key would go along
                    cause = f"Is {response.headers.get('Location')} the right base_url? Redirects are not followed"
                problem = f"expected vectors, got status {status}. {cause}. The server says: {self._snippet(response)}"
                if status != 429 and status < 500:
                    break
                with suppress(ValueError):  # a date, which HTTP allows too, is not read
                    wait = max(0.0, float(response.headers.get("Retry-After", "")))
            if attempt == self.max_retries or wait > MAX_WAIT:
                break
            time.sleep(wait)
        return None, problem

    def _snippet(self, response: httpx2.Response) -> str:
        """The beginning of an answer in one printable line, without the key."""
        text = self._without_key(" ".join(response.text.split()))  # before the cut, which could leave half of a key
        return repr("".join(letter if letter.isprintable() else " " for letter in text[:300]))

    def _error(self, problem: str) -> ClientError:
        return ClientError(self._without_key(f"Client.embed: POST {self.base_url}/embeddings: {problem}"))

    def _without_key(self, text: str) -> str:
        """Strike out the key, as it is and as JSON, a URL and HTML write it."""
        said = "" if self._http is None else self._http.headers.get("Authorization", "")
        if key := said.removeprefix("Bearer "):
            in_json = json.dumps(key)[1:-1]
            for form in (key, in_json, in_json.replace("/", r"\/"), quote(key, safe=""), html.escape(key)):
                text = text.replace(form, "***")
        return text


def _checked_url(base_url: str) -> str:
    """The address without a slash at its end. No error repeats it: it may hold a password, or be the key by mistake."""
    import httpx2

    try:
        url = httpx2.URL(base_url)
        usable = url.scheme in ("http", "https") and url.host and not url.userinfo and (url.port or 1) < 65_536
    except (TypeError, ValueError, httpx2.InvalidURL):
        usable = False
    if usable and not set(base_url) & set(" ?#"):
        return base_url.rstrip("/")
    # outside of the handler: what it caught repeats the address
    raise ValueError(
        "Client: base_url must look like http://localhost:8080/v1 or https://host/v1: a host, no user name or password "
        "(they belong into api_key), no blank, no ? or #"
    )


def _vector(embedding: Any) -> Array:
    """Numbers from a list, or from base64 of little-endian float32."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32)
    row = np.array(embedding)
    if row.dtype.kind not in "if":
        raise TypeError(f"expected a list of numbers, got {row.dtype}")
    with np.errstate(over="ignore"):  # what is beyond float32 becomes Inf, and is refused with that
        return row.astype(np.float32)
