"""A model's folder, limits and tokens, ``minisbert info``, ``fetch`` and ``tokens``; and ``serve``, over HTTP."""

from __future__ import annotations

import os
import platform
import signal
import sys
import warnings
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from minisbert import __version__, hub
from minisbert.checks import require
from minisbert.cli import options
from minisbert.cli.options import TextSource, input_options
from minisbert.cli.outputs import echo_json
from minisbert.cli.table import align, counted, grid, printable, shorten, terminal_width
from minisbert.encoder import SentenceEncoder
from minisbert.model.config import read_json
from minisbert.model.folder import read_module_list
from minisbert.model.params import read_checkpoint
from minisbert.model.pooling import Dense, Pooling
from minisbert.parallel import advice, libraries, usable_processors
from minisbert.training.step import named_parameters

SENTENCE_BERT = "sentence_bert_config"


class SaidLimit(NamedTuple):
    """One of the length limits in a model folder."""

    file: str
    key: str
    tokens: float | None  # None: not in the file


def _limits(encoder: SentenceEncoder, choice: options.ModelChoice) -> dict[str, Any]:
    """The limit in force, special tokens included, and what each file says, in the order in which they count."""
    folder, config = _bert_folder(encoder), encoder.model.config
    said, stored = (read_json(folder / f"{name}.json", optional=True) or {} for name in (SENTENCE_BERT, "tokenizer"))
    limits = [
        SaidLimit(f"{SENTENCE_BERT}.json", "max_seq_length", said.get("max_seq_length")),
        SaidLimit(
            "tokenizer_config.json", "model_max_length", encoder.model.tokenizer.settings.get("model_max_length")
        ),
        SaidLimit("config.json", "max_position_embeddings", config.max_position_embeddings),
    ]
    first = next(limit for limit in limits if limit.tokens is not None)
    # no text has more tokens than positions
    decided_by = first.file if first.tokens == encoder.max_seq_length else "config.json"
    return {
        "in_force": encoder.max_seq_length,
        "decided_by": decided_by if choice.max_seq_length is None else "--max-seq-length",
        "said": [
            *limits,
            SaidLimit("tokenizer.json", "truncation", (stored.get("truncation") or {}).get("max_length")),
        ],
    }


def _bert_folder(encoder: SentenceEncoder) -> Path:
    modules = read_module_list(encoder.folder)
    return modules[0][1] if modules else encoder.folder


# --------------------------------------------------------------------------------------------------------------- info


LIBRARIES = ("numpy", "tokenizers", "safetensors", "huggingface-hub")


@click.command()
@options.json_option
@options.model_options
def info(as_json: bool, choice: options.ModelChoice) -> None:
    """Show the model, its limits, and the machine it runs on.

    Nothing is downloaded. If the model is not on this machine, the rest is shown and the exit code is 1.

    \b
    Examples:
      minisbert info
      minisbert info --json
    """
    model, problem = None, None
    try:
        found = choice.find(local_files_only=True, show_progress_bar=False)
        model = _model(SentenceEncoder(found.folder, max_seq_length=choice.max_seq_length), found.source, choice)
    except ValueError as error:
        problem = error  # shown last: it may be the reason for asking
    keys = ("internal_api", "version", "architecture", "num_threads", "threading_layer")
    build: Any = np.show_config(mode="dicts")
    machine: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "usable_cpus": usable_processors(),
        "blas": [{key: found.get(key) for key in keys} for found in libraries()],
        "blas_advice": advice(),  # what to set where a faster kernel could run
        "numpy_built_with": (build or {}).get("Build Dependencies", {}).get("blas", {}).get("name"),
    }
    versions = {"minisbert": __version__, "python": platform.python_version()}
    versions |= {name: found.version for name in LIBRARIES for found in distributions(name=name)}
    cache = str(hub.cache_folder())
    if as_json:
        echo_json({"model": model, "machine": machine, "versions": versions, "cache": cache})
    else:
        rows = [("system", machine["system"]), ("processors", f"{machine['usable_cpus']} usable of {machine['cpus']}")]
        for blas in machine["blas"]:
            kernel = f", kernel {blas['architecture']}" if blas["architecture"] else ""
            threads = counted(blas["num_threads"], "thread")
            rows.append(("BLAS", f"{blas['internal_api']} {blas['version']}{kernel}, {threads}"))
        if not machine["blas"]:
            rows.append(("BLAS", f"{machine['numpy_built_with']}, kernel and threads unknown"))
        lines = ["Machine", *align([*rows, ("cache", cache)]), "", "Versions", *align(list(versions.items()))]
        click.echo("\n".join([*(_model_lines(model) if model else []), *lines]))
    if sentence := machine["blas_advice"]:
        warnings.warn(sentence, stacklevel=1)
    if problem is not None:
        raise ValueError(f"{problem}\n`minisbert info` downloads nothing; `minisbert fetch` does.") from problem


def _model(encoder: SentenceEncoder, source: str, choice: options.ModelChoice) -> dict[str, Any]:
    """What the folder says."""
    model, config, modules = encoder.model, encoder.model.config, read_module_list(encoder.folder)
    folders = [_bert_folder(encoder), *(folder for kind, folder in modules or [] if kind == "Dense")]
    stored = {tensor.dtype for folder in folders for tensor in read_checkpoint(folder).values()}
    described = []
    for module in model.modules if modules else ():
        if isinstance(module, Pooling):
            described.append(f"Pooling ({' + '.join(module.modes)})")
        elif isinstance(module, Dense):
            described.append(f"Dense ({module.weight.shape[1]} to {module.weight.shape[0]}, {module.activation})")
        else:
            described.append("Normalize")
    return {
        "folder": encoder.folder,
        "source": source,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "activation": config.hidden_act,
        "vocabulary": config.vocab_size,
        "parameters": sum(tensor.size for tensor in named_parameters(model).values()),
        "stored_as": sorted(dtype for dtype in stored if dtype[:1] in "FB" and dtype != "BOOL"),
        "modules": described,
        "sentence_embedding_dimension": model.width,
        "prompts": model.prompts,
        "default_prompt_name": model.default_prompt_name,
        "similarity_fn_name": model.similarity_fn_name,
        "truncate_dim": model.truncate_dim,
        "max_seq_length": _limits(encoder, choice),
    }


def _model_lines(model: dict[str, Any]) -> list[str]:
    """Format the model, and the limit that each file says, with the one in force marked."""
    heads, limits = model["heads"], model["max_seq_length"]
    # a plain BERT lists no modules, and its token vectors are averaged
    modules = model["modules"] or ["Pooling (mean), by default: the folder has no modules.json"]
    dimensions = f"{model['sentence_embedding_dimension']} dimensions"
    rows = [
        ("folder", str(model["folder"])),
        ("source", model["source"]),
        ("layers", f"{model['layers']}, each with {heads} heads of {model['hidden_size'] // heads}"),
        ("width", f"{model['hidden_size']}, feed-forward {model['intermediate_size']} ({model['activation']})"),
        ("vocabulary", f"{model['vocabulary']:,} tokens"),
        ("parameters", f"{model['parameters']:,} in use, stored as {', '.join(model['stored_as'])}"),
        ("modules", " > ".join(["Transformer", *modules])),
        ("sentence vector", f"{dimensions}, compared by {model['similarity_fn_name']}"),
        ("prompts", ", ".join(model["prompts"]) or "none"),
    ]
    in_force = []
    if limits["decided_by"].startswith("--"):
        in_force.append((limits["decided_by"], f"{limits['in_force']}  in force"))
    for file, key, tokens in limits["said"]:
        said = "-" if tokens is None else f"{tokens:,}" if tokens < 1e9 else "no limit"  # transformers writes 1e30
        if tokens is not None and file == "tokenizer.json":
            said += "  ignored: it would cut silently"
        elif tokens is not None and file == limits["decided_by"]:
            said += "  in force"
        in_force.append((f"{file}: {key}", said))
    heading = f"Longest text in tokens, special tokens included: {limits['in_force']}"
    return ["Model", *align(rows), "", heading, *align(in_force), ""]


# -------------------------------------------------------------------------------------------------------------- fetch


@click.command()
@click.argument("model", required=False, envvar="MINISBERT_MODEL", metavar="[MODEL]")
@click.option("--revision", metavar="REV", help="Commit, branch or tag.")
@click.option(
    "--token",
    envvar="HF_TOKEN",
    show_envvar=True,
    metavar="TOKEN",
    help="For private models; the environment variable keeps it out of your shell history.",
)
@options.json_option
def fetch(model: str | None, revision: str | None, token: str | None, as_json: bool) -> None:
    """Download a model, verify it, and print its folder.

    MODEL is a name on the Hugging Face Hub. The default is all-MiniLM-L6-v2, of which every byte is checked against a
    pinned hash, wherever it came from. Files that are already here are not downloaded again.

    \b
    Examples:
      minisbert fetch
      minisbert fetch --json
    """
    found = hub.resolve(model, revision=revision, token=token, show_progress_bar=True)
    click.echo(f"source: {found.source}", err=True)
    if found.pinned:
        if wrong := hub.wrong_bytes(found.folder):
            raise ValueError(f"{found.folder}: {wrong}; remove the folder and run `minisbert fetch` again")
        click.echo(f"verified: {len(hub.DEFAULT_FILES)} files match their pinned sha256", err=True)
    folder = found.folder.resolve()
    if as_json:
        name = model or hub.DEFAULT_MODEL
        echo_json({"model": name, "folder": folder, "source": found.source, "verified": found.pinned})
    else:
        click.echo(folder)


# ------------------------------------------------------------------------------------------------------------- tokens


CUT_SHOWN = 10  # cut-off tokens listed in the table; --json gives all


@click.command()
@input_options
@options.json_option
@options.model_options
def tokens(source: TextSource, as_json: bool, choice: options.ModelChoice) -> None:
    """Show how a text is tokenized, the ids of its pieces, and what is cut off.

    A piece that starts with ## continues the previous one. The limit includes special tokens such as [CLS] and [SEP].

    \b
    Examples:
      minisbert tokens "i love bouillabaisse"
      minisbert tokens --max-seq-length 6 "a long text about hot tomato soup"
      minisbert tokens -i texts.txt --json
    """
    texts = source.read("tokenize")
    encoder = choice.encoder()
    # as the encoder does, and once more without the limit to see what is lost
    tokenizer, limit = encoder.model.tokenizer, encoder.max_seq_length
    decided_by = _limits(encoder, choice)["decided_by"]
    longest = limit + int(tokenizer(texts, limit).lost.max(initial=0))
    found: list[dict[str, Any]] = []
    for text, ids in zip(texts, tokenizer(texts, longest).split(), strict=True):
        pieces = [{"id": i, "piece": piece} for i, piece in zip(ids.tolist(), tokenizer.pieces(ids), strict=True)]
        end = len(pieces) - len(tokenizer.last)  # the text's own pieces end here
        stop = min(end, limit - len(tokenizer.last))  # and here what is read of them
        kept = [{"position": i, **piece} for i, piece in enumerate(pieces[:stop] + pieces[end:])]
        found.append({"text": text, "tokens": kept, "cut": pieces[stop:end]})
    if as_json:
        echo_json({"max_seq_length": limit, "decided_by": decided_by, "texts": found})
        return
    for i, one in enumerate(found):
        kept, cut = one["tokens"], one["cut"]
        rows = [("position", f"{'id':>6}", "piece", "")]
        rows += [(str(piece["position"]), str(piece["id"]), printable(piece["piece"]), "") for piece in kept]
        rows += [("-", str(piece["id"]), printable(piece["piece"]), "cut") for piece in cut[:CUT_SHOWN]]
        lines = grid(rows, ">><<")
        if (more := len(cut) - CUT_SHOWN) > 0:
            lines.append(f"{'-':>8}  {'...':>6}  and {more:,} more, cut")
        whole, limited = len(kept) + len(cut), f"the limit is {limit} ({decided_by})"
        lost = f"{whole:,} tokens, but {limited}: {len(kept)} are read, {len(cut):,} are cut"
        lines += ["", lost if cut else f"{whole} tokens; {limited}"]
        if len(found) > 1:
            lines = [*[""] * bool(i), shorten(f"text {i + 1}: {printable(one['text'])}", terminal_width()), *lines]
        click.echo("\n".join(lines))


# -------------------------------------------------------------------------------------------------------------- serve


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
