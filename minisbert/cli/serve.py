"""``minisbert serve``: an embedding service that speaks OpenAI's protocol."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from minisbert.checks import require
from minisbert.cli import options


@click.command()
@click.option("--host", default="127.0.0.1", help="Address to listen on; others than this machine's own need a key.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, help="0 chooses a free one.")
@click.option("--api-key-file", type=options.FILE, metavar="FILE", help="Keys that are accepted, one a line.")
@click.option("--no-api-key", is_flag=True, help="Ask for no key, even on an address that other machines reach.")
@options.choice_option(
    "--overflow",
    ["error", "truncate", "chunk"],
    "Texts that are too long: refuse them, or cut them or embed them whole in chunks, and say so in the answer.",
)
@click.option("--max-request-tokens", type=options.COUNT, metavar="N", help="Tokens in a request.  [default: 131072]")
@click.option("--max-queue-tokens", type=options.COUNT, metavar="N", help="Tokens that wait.  [default: 262144]")
@options.num_threads_option
@options.model_options
def serve(
    host: str,
    port: int,
    api_key_file: Path | None,
    no_api_key: bool,
    overflow: Any,
    max_request_tokens: int | None,
    max_queue_tokens: int | None,
    num_threads: int | None,
    choice: options.ModelChoice,
) -> None:
    """Serve embeddings over HTTP as OpenAI does.

    POST /v1/embeddings, /similarity and /tokenize; GET /v1/models, /info, /health and /metrics. Keys come from
    --api-key-file or from MINISBERT_API_KEYS, with commas between them. SIGTERM and Ctrl+C: what was asked is answered.

    \b
    Examples:
      minisbert serve
      minisbert serve --host 0.0.0.0 --api-key-file keys.txt --overflow chunk
      curl http://127.0.0.1:8080/v1/embeddings -d '{"input": "i love soup"}'
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # while the model is loaded, and once uvicorn has ended
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # to hand a text to a thread takes longer than to split it
    for package in ("starlette", "uvicorn", "httptools", "msgspec", "prometheus_client"):
        require(package, "serve", "minisbert serve")
    from minisbert.encoder import SentenceEncoder
    from minisbert.serve.app import Service, make_server
    from minisbert.serve.limits import Limits, open_socket, read_keys

    if no_api_key and api_key_file is not None:
        raise click.UsageError("--api-key-file names keys, and --no-api-key asks for none: use one of the two.")
    keys = [] if no_api_key else read_keys(api_key_file, os.environ)
    sizes = {"request_tokens": max_request_tokens, "queue_tokens": max_queue_tokens}
    limits = Limits(**{name: size for name, size in sizes.items() if size is not None})
    with open_socket(host, port, is_guarded=bool(keys) or no_api_key) as listening:
        choice.find()  # with a progress bar, if it must be fetched
        encoder = SentenceEncoder(
            choice.model, revision=choice.revision, local_files_only=True, max_seq_length=choice.max_seq_length
        )
        encoder.encode("warm up")
        service = Service(encoder, keys=keys, overflow=overflow, limits=limits, num_threads=num_threads)
        address, number, *_ = listening.getsockname()
        shown = f"[{address}]" if ":" in address else address
        asked = f"{len(keys)} API key{'s' * (len(keys) > 1)}" if keys else "no API key"
        click.echo(f"serving {encoder.name} on http://{shown}:{number}/v1 ({asked}); Ctrl+C ends it", err=True)
        make_server(service).run(sockets=[listening])
