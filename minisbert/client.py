"""A client in the style of the hosted embedding services: ``Client(api_key).embed(phrases).embeddings``.

Without a ``base_url`` it computes in this process, with `SentenceEncoder`: the key is checked for slips and then
forgotten. With a ``base_url`` it asks a server (``remote.py``), and the key goes there and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minisbert.checks import each_text
from minisbert.hub import DEFAULT_MODEL
from minisbert.model import Array
from minisbert.remote import ClientError, Key, ask, check_key, checked_url

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

__all__ = ["Client", "ClientError", "EmbedResponse"]


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
    ) -> None:
        check_key(api_key)
        if model is not None and (not isinstance(model, str) or not model.strip()):
            raise ClientError(
                f"Client: model must be a name or a folder as str, or None for {DEFAULT_MODEL}, got {model!r}."
            )
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            raise ClientError(f"Client: timeout must be a number of seconds > 0, got {timeout!r}.")
        self.model = model or DEFAULT_MODEL
        self.base_url = None if base_url is None else checked_url(base_url)
        self.timeout = float(timeout)
        self._key = Key(None if base_url is None else api_key)
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
        try:
            checked = list(each_text(texts, "Client.embed: texts", single=True))
        except ValueError as error:
            raise ClientError(str(error)) from error
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ClientError(f"Client.embed: batch_size must be a whole number >= 1, got {batch_size!r}.")
        if self.base_url is None:
            return self._embed_here(checked)
        return EmbedResponse(*ask(checked, self.model, self.base_url, self._key, self.timeout, batch_size))

    def _embed_here(self, texts: list[str]) -> EmbedResponse:
        """Compute in this process; the model is loaded at the first call."""
        if self._encoder is None:
            from minisbert.encoder import SentenceEncoder  # who asks a server needs neither tokenizer nor weights

            self._encoder = SentenceEncoder(self.model)
        return EmbedResponse(self._encoder.encode(texts), self.model)
