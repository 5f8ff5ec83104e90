"""Who may ask, how much at once, and how long a client may take; and what it is told where it is refused."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import math
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

KEYS_VARIABLE = "MINISBERT_API_KEYS"
BYTES_AROUND = 65_536
"""Of a request, all but its body."""
_HTTP_2 = re.compile(rb"\r\nUpgrade:(?= *h2c)", re.IGNORECASE)
"""The wish to go on in HTTP/2, as Java's client has it. It may be ignored; httptools would leave out the body."""


@dataclass(frozen=True)
class Limits:
    """What one client, and all of them together, may ask for."""

    body_bytes: int = 2_000_000
    items: int = 2048  # texts in a request
    request_tokens: int = 131_072
    queue_tokens: int = 262_144  # of all requests that wait
    requests: int = 512  # at a time, those that are still being sent included
    seconds: float = 60.0  # for a client to send its request, and to take what it is sent


class ApiError(Exception):
    """A refusal, answered in OpenAI's shape."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: float = 0
    ) -> None:
        super().__init__(message)
        self.status = status
        kind = {429: "rate_limit_error"}.get(status, "server_error" if status >= 500 else "invalid_request_error")
        self.error = {"message": message, "type": kind, "param": param, "code": code}
        self.headers = {"Retry-After": str(max(1, math.ceil(retry_after)))} if status == 429 else {}
        if status == 401:
            self.headers = {"WWW-Authenticate": "Bearer"}

    def response(self) -> Response:
        """``{"error": {"message", "type", "param", "code"}}``."""
        return to_json({"error": self.error}, self.status, self.headers)


def to_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with JSON."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")


# ---------------------------------------------------------------------------------------------------------- who may ask


def read_keys(file: Path | None, environment: Mapping[str, str]) -> list[bytes]:
    """Read the keys that are accepted: of a file, one a line, and of ``MINISBERT_API_KEYS``, with commas between them.

    A source that was named and holds no key is an error: the server would be open. No message shows a key.
    """
    sources = {} if file is None else {str(file): file.read_bytes().splitlines()}
    if KEYS_VARIABLE in environment:
        sources[KEYS_VARIABLE] = environment[KEYS_VARIABLE].encode("utf-8", "surrogateescape").split(b",")
    keys = []
    for source, parts in sources.items():
        found = [key for part in parts if (key := part.strip())]
        if not found or not all(re.fullmatch(rb"[!-~]+", key) for key in found):
            raise ValueError(
                f"{source}: expected one key or more, of visible ASCII characters, one a line in a file, with commas "
                "between them in the environment (none is shown here)"
            )
        keys += found
    return keys


def is_known(authorization: str, keys: Sequence[bytes]) -> bool:
    """Say whether ``Authorization: Bearer KEY`` names one of the keys."""
    scheme, _, sent = authorization.partition(" ")
    # every key is compared, and in a time that does not depend on where they differ
    found = [hmac.compare_digest(sent.strip().encode("latin-1"), key) for key in keys]
    return scheme.lower() == "bearer" and any(found)


def open_socket(host: str, port: int, *, is_guarded: bool) -> socket.socket:
    """Listen there; an address that other machines reach is refused unless a key is asked for."""
    try:
        family, *_, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {host}: expected a name or an address of this machine ({error})") from None
    if not is_guarded and not ipaddress.ip_address(address[0]).is_loopback:
        raise ValueError(
            f"--host {host}: other machines reach {address[0]}, and no key is asked for: set --api-key-file or "
            f"{KEYS_VARIABLE}, or say --no-api-key if everybody there may use the server"
        )
    listening = socket.create_server(address[:2], family=family, backlog=2048)
    # connections inherit it: the head of an answer goes out at once, and its body need not wait for a late ACK (40 ms)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


# ------------------------------------------------------------------------------------------------------------- how much


async def read_body(request: Request, most: int) -> bytes:
    """Read a request's body, and no more of it than is allowed, whatever its Content-Length says."""
    said = request.headers.get("content-length", "")
    body = bytearray()
    if not said.isdigit() or int(said) <= most:
        async for part in request.stream():
            body += part
            if len(body) > most:
                break
        else:
            return bytes(body)
    raise ApiError(413, f"The body must have at most {most:,} bytes; send fewer or shorter texts a request")


class Deadline(HttpToolsProtocol):
    """uvicorn's HTTP, but a client that sends its request, or reads the answer, too slowly is hung up on.

    uvicorn itself waits for ever: its one limit is for the pause between two requests. Nor does it limit what stands
    around a body.
    """

    seconds = Limits.seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._bytes_around = 0  # of this request, but for its body
        self._is_head = True  # what comes next belongs to a request's head
        super().connection_made(transport)
        self._hang_up_late("request", False)

    def data_received(self, data: bytes) -> None:
        """Read on, unless what stands around the body has no end: headers, the sizes of its parts, trailers."""
        self._bytes_around += len(data)
        if self._is_head:  # the sizes stay, and what follows the head is not touched
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _HTTP_2.sub(b"\r\nX-grade:", head) + end + rest
        super().data_received(data)
        if self._bytes_around > BYTES_AROUND:
            self.transport.abort()
        elif self._bytes_around:  # line ends between two requests are the beginning of one, too
            self._hang_up_late("request", False)

    def on_message_begin(self) -> None:
        """Wait until it is whole."""
        super().on_message_begin()
        self._hang_up_late("request", False)

    def on_headers_complete(self) -> None:
        """A body follows, or nothing."""
        super().on_headers_complete()
        self._is_head = False

    def on_body(self, body: bytes) -> None:
        """The body has a limit of its own (:func:`read_body`)."""
        super().on_body(body)
        self._bytes_around -= len(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        super().on_message_complete()
        self._hang_up_late("request", True)
        self._bytes_around, self._is_head = 0, True

    def pause_writing(self) -> None:
        """Wait for a client that reads more slowly than we write."""
        super().pause_writing()
        self._hang_up_late("answer", False)

    def resume_writing(self) -> None:
        """It has read nearly everything."""
        super().resume_writing()
        self._hang_up_late("answer", True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        for part in ("request", "answer"):
            self._hang_up_late(part, True)

    def _hang_up_late(self, part: str, is_done: bool) -> None:
        """Start the clock, unless it runs, or stop it."""
        if is_done and part in self._timers:
            self._timers.pop(part).cancel()
        elif not is_done and part not in self._timers:
            self._timers[part] = self.loop.call_later(self.seconds, self.transport.abort)
