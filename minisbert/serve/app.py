"""The application: OpenAI's ``/v1/embeddings`` and ``/v1/models``, ``/similarity`` and ``/tokenize`` as
text-embeddings-inference has them, ``/info``, ``/health`` and ``/metrics``.

A request is checked and tokenized here, computed by `minisbert.serve.batching`, and answered here. Whatever is refused
is refused in OpenAI's shape (`minisbert.serve.limits`).
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
import prometheus_client
import uvicorn
from prometheus_client import Counter, Gauge, Histogram
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minisbert import __version__
from minisbert.encoder import SentenceEncoder
from minisbert.long_texts import compose, windows
from minisbert.model import Array
from minisbert.model.ops import normalize
from minisbert.model.pooling import Normalize
from minisbert.parallel import threads
from minisbert.serve.batching import BATCH_TOKENS, Batcher, QueueFull
from minisbert.serve.limits import ApiError, Deadline, Limits, is_known, read_body, to_json

ServeOverflow = Literal["error", "truncate", "chunk"]
"""What to do about texts that are too long: refuse, as OpenAI does, or cut or split them and say so in the answer."""

SMALL = 16_384
"""Bytes of a request that is read and tokenized at once; more would keep the others waiting, and goes to a thread."""
Given = TypeVar("Given", bound=msgspec.Struct)


# --------------------------------------------------------------------------------------------------- what is sent to us


class EmbeddingsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /v1/embeddings``, in OpenAI's words."""

    input: str | list[str | int | list[int]]  # a text, texts, a text's token ids, texts' token ids
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: str | None = None  # of no use here, as everything stays on this machine


class Compared(msgspec.Struct, forbid_unknown_fields=True):
    """A sentence, and others that it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /similarity``, in text-embeddings-inference's words."""

    inputs: Compared


class TokenizeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /tokenize``, in text-embeddings-inference's words."""

    inputs: str | list[str]
    add_special_tokens: bool = True


def parse(body: bytes, kind: type[Given]) -> Given:
    """Read a request, or say what is wrong with it and where."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$.")
        field = place.rstrip("`") or next(iter(re.findall("field `(.+)`$", said)), None)
        known = ", ".join(kind.__struct_fields__)
        hint = f"; the fields are {known}" if "unknown field" in said else ""
        raise ApiError(400, f"{said}{f' at {field}' if place else ''}{hint}", param=field) from None
    except msgspec.DecodeError as error:
        raise ApiError(400, f"The body must be JSON: {error}") from None


# ---------------------------------------------------------------------------------------------------------- the service


@dataclass(frozen=True)
class _Text:
    """What goes through BERT of one text."""

    pieces: list[Array]  # its token ids, special ones included; several where it is split into chunks
    new_tokens: Array  # of each piece, those that the one before does not have
    lost: int = 0  # tokens that were cut off


class Service:
    """A model, and what is asked of it. ``service.app`` is the ASGI application."""

    def __init__(
        self,
        encoder: SentenceEncoder,
        *,
        keys: Sequence[bytes] = (),
        overflow: ServeOverflow = "error",
        limits: Limits | None = None,
        num_threads: int | None = None,
    ) -> None:
        self.encoder, self.keys, self.overflow, self.limits = encoder, keys, overflow, limits or Limits()
        self.created = int(time.time())
        self.running = 0  # requests
        # a long text's records are large: one request's at a time
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="minisbert-tokenize")
        tokenizer = encoder.model.tokenizer
        self._options = encoder._options("serve", {"overflow": "chunk", "num_threads": 1})
        by_blas = encoder._options("serve", {"overflow": "chunk"})  # for a piece that is alone
        prompt = tokenizer([self._options.before], encoder.max_seq_length)
        self._last = list(tokenizer.last)
        self._first = prompt.token_ids.tolist()[: -len(self._last)]  # [CLS], and the prompt if the model has one
        self._pad = tokenizer.library.token_to_id("[PAD]")
        self._is_unit = isinstance(encoder.model.modules[-1], Normalize)
        self.metrics = prometheus_client.CollectorRegistry()
        kept: dict[str, Any] = {"namespace": "minisbert", "registry": self.metrics}
        self.seconds = Histogram("request_seconds", "Time from a request to its answer.", ["path", "status"], **kept)
        self.tokens = Counter("tokens", "Tokens that were computed, special ones included.", **kept)
        sizes = [2**n for n in range(12)]
        texts = Histogram("batch_texts", "Texts, or chunks, in a batch.", buckets=sizes, **kept)
        strip = Histogram("batch_tokens", "Tokens in a batch.", buckets=sizes, **kept)
        Gauge("requests_running", "Requests that are being answered.", **kept).set_function(lambda: self.running)
        Gauge("queue_tokens", "Tokens that wait.", **kept).set_function(lambda: self.batcher.waiting)

        def forward(pieces: list[Array], num_threads: int | None) -> list[Array]:
            return encoder._forward(pieces, self._options if num_threads else by_blas, lambda done: None)

        def seen(pieces: int, tokens: int) -> None:
            texts.observe(pieces)
            strip.observe(tokens)
            self.tokens.inc(tokens)

        self.batcher = Batcher(forward, self.limits.queue_tokens, num_threads or threads.usable(), seen)
        self.paths: dict[str, tuple[str, Callable[[Request], Any]]] = {
            "/v1/embeddings": ("POST", self.embeddings),
            "/v1/models": ("GET", self.models),
            "/similarity": ("POST", self.similarity),
            "/tokenize": ("POST", self.tokenize),
            "/info": ("GET", self.info),
            "/health": ("GET", self.health),
            "/metrics": ("GET", self.show_metrics),
        }
        self.app = Starlette(
            routes=[Route(path, answer, methods=[method]) for path, (method, answer) in self.paths.items()],
            middleware=[Middleware(_Guard, service=self)],
            exception_handlers={
                ApiError: lambda request, error: error.response(),
                HTTPException: _not_routed,
                ClientDisconnect: lambda request, error: Response(status_code=499),
                Exception: lambda request, error: ApiError(500, "The server failed: its log says why").response(),
            },
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.batcher.start()
        yield
        await asyncio.to_thread(self.batcher.close)
        self._aside.shutdown()

    # ------------------------------------------------------------------------------------------------------- the routes

    async def embeddings(self, request: Request) -> Response:
        """``POST /v1/embeddings``."""
        asked = await self._read(request, EmbeddingsRequest)
        name, width = self.encoder.name, self.encoder.get_embedding_dimension()
        if asked.model not in (None, name, name.rpartition("/")[2]):
            raise ApiError(
                404, f"The model here is {name}, not {asked.model!r:.80}", param="model", code="model_not_found"
            )
        if asked.dimensions is not None and asked.dimensions > width:
            raise ApiError(422, f"dimensions must be from 1 to {width}, got {asked.dimensions}", param="dimensions")
        vectors, texts = await self._embed(request, _items(asked.input), "input")
        if asked.dimensions is not None:
            vectors = vectors[:, : asked.dimensions]
            vectors = normalize(vectors) if self._is_unit else vectors
        in_base64 = asked.encoding_format == "base64"

        def answer() -> Response:
            rows = (base64.b64encode(row).decode() if in_base64 else row.tolist() for row in vectors.astype("<f4"))
            tokens = sum(len(piece) for text in texts for piece in text.pieces)
            content: dict[str, Any] = {
                "object": "list",
                "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)],
                "model": name,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
            if told := self._overflowed(texts):
                content["overflow"] = told
            return to_json(content)

        return await self._work(answer, 4 * vectors.size)

    async def similarity(self, request: Request) -> Response:
        """``POST /similarity``: of the source sentence with each of the others, by the model's own measure."""
        asked = await self._read(request, SimilarityRequest)
        sentences = [asked.inputs.source_sentence, *asked.inputs.sentences]
        vectors, texts = await self._embed(request, sentences, "inputs")
        headers = {"X-Overflow": msgspec.json.encode(told).decode()} if (told := self._overflowed(texts)) else {}
        return to_json(self.encoder.similarity(vectors[:1], vectors[1:])[0].tolist(), headers=headers)

    async def tokenize(self, request: Request) -> Response:
        """``POST /tokenize``: each text's tokens, uncut, and where each stands in it."""
        asked = await self._read(request, TokenizeRequest)
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        self._check_count(texts, "inputs")
        tokenizer = self.encoder.model.tokenizer

        def special(ids: Sequence[int]) -> list[dict[str, Any]]:
            pieces = zip(ids, tokenizer.pieces(ids), strict=True)
            return [{"id": i, "text": piece, "special": True, "start": None, "stop": None} for i, piece in pieces]

        def answer() -> Response:
            found, left = [], self.limits.request_tokens
            for text in texts:
                spans = tokenizer.spans(text)
                places = zip(spans.token_ids.tolist(), spans.starts.tolist(), spans.stops.tolist(), strict=True)
                left -= len(spans.token_ids)
                self._check_tokens(self.limits.request_tokens - left, "inputs")
                own = [
                    {"id": i, "text": text[start:stop], "special": False, "start": start, "stop": stop}
                    for i, start, stop in places
                ]
                wrapped = [*special(tokenizer.first), *own, *special(tokenizer.last)]
                found.append(wrapped if asked.add_special_tokens else own)
            return to_json(found)

        return await self._work(answer, sum(map(len, texts)))

    async def models(self, request: Request) -> Response:
        """``GET /v1/models``."""
        model = {"id": self.encoder.name, "object": "model", "created": self.created, "owned_by": "minisbert"}
        return to_json({"object": "list", "data": [model]})

    async def info(self, request: Request) -> Response:
        """``GET /info``: the model and the limits."""
        encoder, limits = self.encoder, self.limits
        return to_json(
            {
                "model_id": encoder.name,
                "version": __version__,
                "dimensions": encoder.get_embedding_dimension(),
                "similarity": encoder.similarity_fn_name,
                "max_input_length": encoder.max_seq_length,
                "overflow": self.overflow,
                "max_body_bytes": limits.body_bytes,
                "max_client_batch_size": limits.items,
                "max_request_tokens": limits.request_tokens,
                "max_queue_tokens": limits.queue_tokens,
                "max_concurrent_requests": limits.requests,
                "max_batch_tokens": BATCH_TOKENS,
            }
        )

    async def health(self, request: Request) -> Response:
        """``GET /health``: that the server is there; needs no key."""
        return to_json({"status": "ok"})

    async def show_metrics(self, request: Request) -> Response:
        """``GET /metrics``, for Prometheus."""
        content = prometheus_client.generate_latest(self.metrics)
        return Response(content, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    # ------------------------------------------------------------------------------------------ from request to vectors

    async def _read(self, request: Request, kind: type[Given]) -> Given:
        body = await read_body(request, self.limits.body_bytes)
        return await self._work(lambda: parse(body, kind), len(body))

    async def _work(self, work: Callable[[], Any], size: int) -> Any:
        """Do it at once if it is small, else beside the event loop."""
        if size <= SMALL:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._aside, work)

    async def _embed(self, request: Request, items: Sequence[str | list[int]], param: str) -> tuple[Array, list[_Text]]:
        """Tokenize, wait in the queue, compose: (B, D), and what was computed. Ends early if the client goes away."""
        self._check_count(items, param)
        texts = await self._work(lambda: self._prepare(items, param), sum(map(len, items)))
        pieces = [piece for text in texts for piece in text.pieces]
        tokens = sum(map(len, pieces))
        if tokens > self.limits.request_tokens:
            problem = (
                f"A request may have {self.limits.request_tokens:,} tokens, this one has {tokens:,}: send fewer texts"
            )
            raise ApiError(422, problem, param=param, code="too_many_tokens")
        work = asyncio.ensure_future(self.batcher.run(pieces))
        gone = asyncio.ensure_future(request.receive())  # the body is read, so all that can come is the client's end
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
            vectors = iter(work.result())
        except QueueFull as full:
            problem = f"{self.batcher.waiting:,} tokens wait already: try again after Retry-After"
            raise ApiError(429, problem, code="rate_limit_exceeded", retry_after=full.seconds) from None
        finally:
            work.cancel()
            gone.cancel()
        rows = [
            compose(np.stack([next(vectors) for _ in text.pieces]), text.new_tokens, normalized=self._is_unit)
            for text in texts
        ]
        return self.encoder._stack(rows, self._options), texts

    def _check_count(self, items: Sequence[Any], param: str) -> None:
        if not items:
            raise ApiError(400, f"{param} must not be empty", param=param)
        if len(items) > self.limits.items:
            problem = (
                f"A request may have {self.limits.items:,} texts, this one has {len(items):,}: send several requests"
            )
            raise ApiError(422, problem, param=param, code="too_many_items")

    def _check_tokens(self, count: int, param: str) -> None:
        if count > self.limits.request_tokens:
            problem = f"A request may have {self.limits.request_tokens:,} tokens, got {count:,}: send fewer texts"
            raise ApiError(422, problem, param=param, code="too_many_tokens")

    def _prepare(self, items: Sequence[str | list[int]], param: str) -> list[_Text]:
        """Give the token ids of texts, and of what comes as token ids, special ones included."""
        texts = []
        for i, item in enumerate(items):
            place = f"{param}[{i}]"
            if not item:
                raise ApiError(400, f"{place} is empty: leave it out", param=place)
            text = self._from_text(item) if isinstance(item, str) else self._from_ids(item, place)
            if self.overflow == "error" and (text.lost or len(text.pieces) > 1):
                limit, length = self.encoder.max_seq_length, text.lost + sum(map(len, text.pieces))
                problem = (
                    f"{place} has {length} tokens, special ones included, and the model reads {limit}: shorten it, or "
                    "start the server with --overflow truncate or --overflow chunk"
                )
                raise ApiError(422, problem, param=place, code="context_length_exceeded")
            texts.append(text)
        return texts

    def _from_text(self, text: str) -> _Text:
        options, tokenizer, limit = self._options, self.encoder.model.tokenizer, self.encoder.max_seq_length
        tokens = tokenizer([options.before + text], limit)
        lost = int(tokens.lost[0])
        if not lost or self.overflow != "chunk":
            return _Text([tokens.token_ids], tokens.lengths, lost)
        cut = list(windows(options.before + text, tokenizer, options.room or 1, 0, options.before, options.skipped))
        return _Text([window.token_ids for window in cut], np.array([window.chunk.new_tokens for window in cut]))

    def _from_ids(self, ids: list[int], place: str) -> _Text:
        """Token ids of this model's tokenizer: without special tokens, as OpenAI's clients have them, or with all."""
        tokenizer = self.encoder.model.tokenizer
        first, last, vocabulary = list(tokenizer.first), self._last, self.encoder.model.config.vocab_size
        if ids[: len(first)] == first and ids[-len(last) :] == last and len(ids) >= len(first) + len(last):
            ids = ids[len(first) : len(ids) - len(last)]
        for number in ids:
            piece = tokenizer.library.id_to_token(number) if 0 <= number < vocabulary else None
            if piece is None or re.fullmatch(r"\[unused\d+\]", piece):
                problem = (
                    f"{place}: {number} is no token of this model, so another tokenizer made these ids: send texts "
                    "(LangChain: check_embedding_ctx_length=False)"
                )
                raise ApiError(422, problem, param=place, code="invalid_token")
            if number in (*first, *last, self._pad):
                problem = (
                    f"{place}: {piece} ({number}) inside of a text: send ids without special tokens, or one {first} in "
                    f"front and one {last} behind; no padding is needed"
                )
                raise ApiError(422, problem, param=place, code="invalid_token")
        room = self.encoder.max_seq_length - len(self._first) - len(last)
        step = room if self.overflow == "chunk" else len(ids)
        parts = [ids[start : start + step] for start in range(0, len(ids), step or 1)] or [[]]
        pieces = [np.array([*self._first, *part[:room], *last], np.int64) for part in parts]
        return _Text(pieces, np.array([len(part) for part in parts], np.intp), max(0, len(parts[0]) - room))

    def _overflowed(self, texts: Sequence[_Text]) -> list[dict[str, int]]:
        """Say which texts were cut, and by how much, or into how many chunks they were split."""
        told = []
        for i, text in enumerate(texts):
            if text.lost:
                told.append({"index": i, "tokens_lost": text.lost})
            elif len(text.pieces) > 1:
                told.append({"index": i, "chunks": len(text.pieces)})
        return told


def _items(given: str | list[str | int | list[int]]) -> Sequence[str | list[int]]:
    """A text or a list of token ids is one item; a list of either is several."""
    if isinstance(given, str):
        return [given]
    kinds = {type(item) for item in given}
    if len(kinds) > 1:
        raise ApiError(
            400, "input must be a text, texts, token ids or lists of token ids, and not a mixture", param="input"
        )
    return [given] if kinds == {int} else given  # type: ignore[list-item,return-value]


def _not_routed(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 400)
    said = {404: "There is no such path here", 405: "This path has another method"}
    problem = (
        f"{request.method} {request.url.path!r:.100}: {said.get(status, error)}; GET /info and /v1/models say what is"
    )
    return ApiError(status, problem, code="not_found" if status == 404 else None).response()


class _Guard:
    """Around the application: who may ask, how many at a time, how long it took."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        service, status, begin = self.service, 500, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        service.running += 1
        try:
            refused = self._refusal(Request(scope))
            await (refused.response() if refused else self.app)(scope, receive, watched)
        finally:
            service.running -= 1
            path = scope["path"] if scope["path"] in service.paths else "other"
            service.seconds.labels(path, status).observe(time.perf_counter() - begin)

    def _refusal(self, request: Request) -> ApiError | None:
        """What speaks against this request, before its body is read."""
        service, path = self.service, request.scope["path"]
        if path == "/health":
            return None
        if service.keys and not is_known(request.headers.get("authorization", ""), service.keys):
            return ApiError(401, "Send a key that this server knows: Authorization: Bearer KEY", code="invalid_api_key")
        if service.running > service.limits.requests:
            problem = f"The server answers {service.limits.requests} requests at a time: try again after Retry-After"
            return ApiError(429, problem, code="rate_limit_exceeded", retry_after=1)
        return None


def make_server(service: Service) -> uvicorn.Server:
    """Set uvicorn up: quiet, and ended by SIGTERM once every request is answered, or after 30 seconds."""
    protocol = type("Protocol", (Deadline,), {"seconds": service.limits.seconds})
    config = uvicorn.Config(
        service.app,
        http=protocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,  # longer than clients keep an idle connection: whoever closes it last wins no race
        timeout_graceful_shutdown=30,
    )
    return uvicorn.Server(config)
