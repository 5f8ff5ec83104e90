"""The application: OpenAI's ``/v1/embeddings`` and ``/v1/models``, ``/similarity`` and ``/tokenize`` as
text-embeddings-inference has them, ``/info``, ``/health`` and ``/metrics``.

A request is checked and tokenized here, computed by `minisbert.serve.batching`, and answered here. Whatever is refused
is refused in OpenAI's shape (`minisbert.serve.limits`).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
import prometheus_client
import uvicorn
from prometheus_client import Counter, Gauge, Histogram
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from minisbert import __version__
from minisbert.encoder import SentenceEncoder
from minisbert.long_texts import compose, windows
from minisbert.model import Array
from minisbert.model.ops import normalize
from minisbert.model.pooling import Normalize
from minisbert.parallel import threads
from minisbert.serve.batching import ROUND_TOKENS, Batcher
from minisbert.serve.limits import ApiError, Deadline, Limits, is_known, read_body, to_json

ServeOverflow = Literal["error", "truncate", "chunk"]
"""What to do about texts that are too long: refuse, as OpenAI does, or cut or split them and say so in the answer."""

SMALL = 16_384
"""Bytes of a request that is read and tokenized at once; more would keep the others waiting, and goes to a thread."""
Given = TypeVar("Given", bound=msgspec.Struct)


# --------------------------------------------------------------------------------------------------- what is sent to us


Something = msgspec.Meta(min_length=1)
Text = Annotated[str, Something]


class EmbeddingsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /v1/embeddings``, in OpenAI's words."""

    # a text, texts, a text's token ids, texts' token ids
    input: Text | Annotated[list[Text | int | Annotated[list[int], Something]], Something]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: str | None = None  # of no use here, as everything stays on this machine


class Compared(msgspec.Struct, forbid_unknown_fields=True):
    """A sentence, and others that it is compared with."""

    source_sentence: Text
    sentences: list[Text]


class SimilarityRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /similarity``, in text-embeddings-inference's words."""

    inputs: Compared


class TokenizeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /tokenize``, in text-embeddings-inference's words."""

    inputs: str | Annotated[list[str], Something]
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
    """A model, and what is asked of it: an ASGI application."""

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
        self._options = encoder._options("serve", {"overflow": "chunk", "num_threads": num_threads})
        # [CLS], and the prompt if the model has one
        prompt = tokenizer([self._options.before], encoder.max_seq_length).token_ids.tolist()
        self._first = prompt[: -len(tokenizer.last)]
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

        def forward(pieces: list[Array]) -> list[Array]:
            texts.observe(len(pieces))
            strip.observe(sum(map(len, pieces)))
            self.tokens.inc(sum(map(len, pieces)))
            return encoder._forward(pieces, self._options, lambda done: None)

        round_tokens = ROUND_TOKENS * (num_threads or threads.usable())
        self.batcher = Batcher(forward, round_tokens=round_tokens, queue_tokens=self.limits.queue_tokens)
        self.paths: dict[str, tuple[str, Callable[[Request], Any]]] = {
            "/v1/embeddings": ("POST", self.embeddings),
            "/v1/models": ("GET", self.models),
            "/similarity": ("POST", self.similarity),
            "/tokenize": ("POST", self.tokenize),
            "/info": ("GET", self.info),
            "/health": ("GET", self.health),
            "/metrics": ("GET", self.show_metrics),
        }
        self._routed = Starlette(
            routes=[Route(path, answer, methods=[method]) for path, (method, answer) in self.paths.items()],
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
        await self.batcher.close()
        self._aside.shutdown()

    # --------------------------------------------------------------------------------------------------- every request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say who may ask, and how many at a time, and take the time."""
        if scope["type"] != "http":
            await self._routed(scope, receive, send)
            return
        status, begin = 500, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self.running += 1
        try:
            refused = self._refusal(Request(scope))
            await (refused.response() if refused else self._routed)(scope, receive, watched)
        except Exception:  # it is answered; if uvicorn knew of it, it would close the connection
            logging.getLogger("uvicorn.error").exception("A request failed")
        finally:
            self.running -= 1
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.seconds.labels(path, status).observe(time.perf_counter() - begin)

    def _refusal(self, request: Request) -> ApiError | None:
        """What speaks against this request, before its body is read."""
        if request.scope["path"] == "/health":
            return None
        if self.keys and not is_known(request.headers.get("authorization", ""), self.keys):
            return ApiError(401, "Send a key that this server knows: Authorization: Bearer KEY", code="invalid_api_key")
        if self.running > self.limits.requests:
            problem = f"The server answers {self.limits.requests} requests at a time: try again after Retry-After"
            return ApiError(429, problem, code="rate_limit_exceeded", retry_after=1)
        return None

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
            if told := _overflowed(texts):
                content["overflow"] = told
            return to_json(content)

        return await self._work(answer, 4 * vectors.size)

    async def similarity(self, request: Request) -> Response:
        """``POST /similarity``: of the source sentence with each of the others, by the model's own measure."""
        asked = await self._read(request, SimilarityRequest)
        sentences = [asked.inputs.source_sentence, *asked.inputs.sentences]
        vectors, texts = await self._embed(request, sentences, "inputs")
        headers = {"X-Overflow": msgspec.json.encode(told).decode()} if (told := _overflowed(texts)) else {}
        return to_json(self.encoder.similarity(vectors[:1], vectors[1:])[0].tolist(), headers=headers)

    async def tokenize(self, request: Request) -> Response:
        """``POST /tokenize``: each text's tokens, uncut, and where each stands in it."""
        asked = await self._read(request, TokenizeRequest)
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        self._at_most(self.limits.items, len(texts), "texts", "inputs")
        library: Any = self.encoder.tokenizer

        def answer() -> Response:
            found, count = [], 0
            for text in texts:
                tokens = library.encode(text, add_special_tokens=asked.add_special_tokens)
                count += len(tokens)
                self._at_most(self.limits.request_tokens, count, "tokens", "inputs")
                columns = (tokens.ids, tokens.tokens, tokens.special_tokens_mask, tokens.offsets)
                found.append(
                    [
                        {"id": i, "text": piece, "special": True, "start": None, "stop": None}
                        if special
                        else {"id": i, "text": text[start:stop], "special": False, "start": start, "stop": stop}
                        for i, piece, special, (start, stop) in zip(*columns, strict=True)
                    ]
                )
            return to_json(found)

        return await self._work(answer, sum(map(len, texts)))

    async def models(self, request: Request) -> Response:
        """``GET /v1/models``."""
        model = {"id": self.encoder.name, "object": "model", "created": self.created, "owned_by": "minisbert"}
        return to_json({"object": "list", "data": [model]})

    async def info(self, request: Request) -> Response:
        """``GET /info``: the model and the limits."""
        encoder = self.encoder
        about = {"model_id": encoder.name, "version": __version__, "dimensions": encoder.get_embedding_dimension()}
        about |= {"similarity": encoder.similarity_fn_name, "max_seq_length": encoder.max_seq_length}
        return to_json({**about, "overflow": self.overflow, "limits": asdict(self.limits)})

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

    async def _embed(
        self, request: Request, items: Sequence[str] | Sequence[list[int]], param: str
    ) -> tuple[Array, list[_Text]]:
        """Tokenize, wait in the queue, compose: (B, D), and what was computed. Ends early if the client goes away."""
        self._at_most(self.limits.items, len(items), "texts", param)
        texts = await self._work(lambda: self._prepare(items, param), sum(map(len, items)))
        pieces = [piece for text in texts for piece in text.pieces]
        self._at_most(self.limits.request_tokens, sum(map(len, pieces)), "tokens", param)
        promised = self.batcher.submit(pieces)
        gone = asyncio.ensure_future(request.receive())  # the body is read, so all that can come is the client's end
        either: set[asyncio.Future[Any]] = {promised, gone}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not promised.done():
                raise ClientDisconnect
            vectors = iter(promised.result())
        finally:
            promised.cancel()
            gone.cancel()
        rows = [
            compose(np.stack([next(vectors) for _ in text.pieces]), text.new_tokens, normalized=self._is_unit)
            for text in texts
        ]
        return self.encoder._stack(rows, self._options), texts

    def _at_most(self, most: int, count: int, what: str, param: str) -> None:
        if count > most:
            problem = f"A request may have {most:,} {what}, got {count:,}: send several"
            raise ApiError(422, problem, param=param, code=f"too_many_{what}")

    def _prepare(self, items: Sequence[str] | Sequence[list[int]], param: str) -> list[_Text]:
        """Give the token ids of texts, and of what comes as token ids, special ones included."""
        if isinstance(items[0], str):
            texts = self._from_texts(items)  # type: ignore[arg-type]
        else:
            texts = [self._from_ids(ids, f"{param}[{i}]") for i, ids in enumerate(items)]  # type: ignore[arg-type]
        for i, text in enumerate(texts):
            if text.lost and self.overflow == "error":
                raise ApiError(
                    422,
                    f"{param}[{i}] has {len(text.pieces[0]) + text.lost} tokens, special ones included, and the model "
                    f"reads {self.encoder.max_seq_length}: shorten it, or start the server with --overflow",
                    param=f"{param}[{i}]",
                    code="context_length_exceeded",
                )
        return texts

    def _from_texts(self, texts: Sequence[str]) -> list[_Text]:
        options, tokenizer, before = self._options, self.encoder.model.tokenizer, self._options.before
        tokens = tokenizer([before + text for text in texts], self.encoder.max_seq_length)
        found = []
        for text, ids, lost in zip(texts, tokens.split(), tokens.lost, strict=True):
            if lost and self.overflow == "chunk":
                cut = list(windows(before + text, tokenizer, options.room or 1, 0, before, options.skipped))
                new_tokens = np.array([window.chunk.new_tokens for window in cut])
                found.append(_Text([window.token_ids for window in cut], new_tokens))
            else:
                found.append(_Text([ids], np.array([len(ids)]), int(lost)))
        return found

    def _from_ids(self, ids: list[int], place: str) -> _Text:
        """Take ids of this model's tokenizer, without special tokens, as OpenAI's clients have them, or with all."""
        tokenizer = self.encoder.model.tokenizer
        first, last = list(tokenizer.first), list(tokenizer.last)
        if len(ids) >= tokenizer.special_count and ids == [*first, *ids[len(first) : -len(last)], *last]:
            ids = ids[len(first) : -len(last)]
        special = {*first, *last, tokenizer.library.token_to_id("[PAD]")}
        for i in ids:
            piece = tokenizer.library.id_to_token(i) if 0 <= i < self.encoder.model.config.vocab_size else None
            if piece is None or re.fullmatch(r"\[unused\d+\]", piece):
                problem = "no token of this model, but of another tokenizer: send texts"
                problem += " (LangChain: check_embedding_ctx_length=False)"
            elif i in special:
                problem = f"{piece}: send ids without special tokens and padding, or one {first} .. {last} around them"
            else:
                continue
            raise ApiError(422, f"{place}: {i} is {problem}", param=place, code="invalid_token")
        room = self.encoder.max_seq_length - len(self._first) - len(last)
        size = room if self.overflow == "chunk" else max(1, len(ids))
        parts = [ids[start : start + size] for start in range(0, len(ids), size)] or [[]]
        pieces = [np.array([*self._first, *part[:room], *last], np.intp) for part in parts]
        return _Text(pieces, np.array([len(part) for part in parts]), max(0, len(parts[0]) - room))


def _items(given: str | list[str | int | list[int]]) -> Sequence[str] | Sequence[list[int]]:
    """A text or a list of token ids is one item; a list of either is several."""
    if isinstance(given, str):
        return [given]
    kinds = {type(item) for item in given}
    if len(kinds) > 1:
        raise ApiError(400, "input must be texts, or token ids, or lists of token ids: no mixture", param="input")
    return [given] if kinds == {int} else given  # type: ignore[return-value]


def _overflowed(texts: Sequence[_Text]) -> list[dict[str, int]]:
    """Say which texts were cut, and by how much, or into how many chunks they were split."""
    return [
        {"index": i, "tokens_lost": text.lost} if text.lost else {"index": i, "chunks": len(text.pieces)}
        for i, text in enumerate(texts)
        if text.lost or len(text.pieces) > 1
    ]


def _not_routed(request: Request, error: Any) -> Response:
    return ApiError(error.status_code, f"{request.method} {request.url.path!r:.100}: {error.detail}").response()


def make_server(service: Service) -> uvicorn.Server:
    """Set uvicorn up: quiet, and ended by SIGTERM once every request is answered, or after 30 seconds."""
    protocol = type("Protocol", (Deadline,), {"seconds": service.limits.seconds})
    config = uvicorn.Config(
        service,
        http=protocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,  # longer than clients keep an idle connection: whoever closes it last wins no race
        timeout_graceful_shutdown=30,
    )
    return uvicorn.Server(config)
