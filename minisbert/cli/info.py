"""``minisbert info``: the model, its limits, and the machine. What a bug report should include."""

from __future__ import annotations

import json
import os
import platform
import warnings
from typing import TYPE_CHECKING, Any

import click

from minisbert import __version__
from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.table import align

if TYPE_CHECKING:
    from minisbert.cli.folder_facts import FolderFacts
    from minisbert.model.pooling import Module

LIBRARIES = ("numpy", "tokenizers", "safetensors", "huggingface-hub")


@click.command(short_help="Show the model, its limits, and the machine it runs on.")
@json_option
@model_options
def info(as_json: bool, choice: ModelChoice) -> None:
    """Show the model, its limits, and the machine it runs on.

    Nothing is downloaded. If the model is not on this machine, the rest is shown and the exit code is 1.

    \b
    Examples:
      minisbert info
      minisbert info --json
    """
    from minisbert.cli.folder_facts import read_folder_facts

    model: dict[str, Any] | None = None
    problem: ValueError | None = None
    try:
        model = _model(read_folder_facts(choice, local_files_only=True))
    except ValueError as error:
        problem = error  # shown last: it may be the reason for asking
    machine = _machine()
    found = {"model": model, "machine": machine, "versions": _versions(), "cache": _cache_folder()}
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False).encode())
    else:
        click.echo("\n".join([*(_model_lines(model) if model else []), *_machine_lines(found)]))
    if sentence := machine["blas_advice"]:
        warnings.warn(sentence, stacklevel=1)
    if problem is not None:
        raise ValueError(f"{problem}\n`minisbert info` downloads nothing; `minisbert fetch` does.") from problem


def _model(facts: FolderFacts) -> dict[str, Any]:
    """What the folder says."""
    from minisbert.cli.folder_facts import SaidLimit, read_if_there
    from minisbert.model.folder import read_modules, read_sentence_settings
    from minisbert.model.pooling import output_width

    config = facts.config
    modules = read_modules(facts.modules, config, "float32")
    settings = read_sentence_settings(facts.folder)
    width = output_width(modules, config.hidden_size)
    cut = read_if_there(facts.bert_folder / "tokenizer.json").get("truncation") or {}
    limits = [*facts.said_limits, SaidLimit("tokenizer.json", "truncation", cut.get("max_length"))]
    return {
        "folder": str(facts.folder),
        "source": facts.source,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "activation": config.hidden_act,
        "vocabulary": config.vocab_size,
        **_weights(facts),
        "modules": [_describe(module) for module in modules],
        "sentence_embedding_dimension": min(width, settings["truncate_dim"] or width),
        **settings,
        "max_seq_length": {
            "in_force": facts.max_seq_length,
            "decided_by": facts.decided_by,
            "said": [said._asdict() for said in limits],
        },
    }


def _weights(facts: FolderFacts) -> dict[str, Any]:
    """Count the parameters in use, and name the dtypes of the files."""
    import math

    from minisbert.model.params import read_checkpoint, tensor_shapes

    stored = list(read_checkpoint(facts.bert_folder).values())
    shapes = list(tensor_shapes(facts.config).values())
    for kind, folder in facts.modules:
        if kind == "Dense":
            dense = list(read_checkpoint(folder).values())
            stored, shapes = stored + dense, shapes + [tensor.shape for tensor in dense]
    real = {tensor.dtype for tensor in stored if tensor.dtype[:1] in "FB" and tensor.dtype != "BOOL"}
    return {"parameters": sum(map(math.prod, shapes)), "stored_as": sorted(real)}


def _describe(module: Module) -> str:
    """A module in a few words."""
    from minisbert.model.pooling import Dense, Pooling

    if isinstance(module, Pooling):
        return f"Pooling ({' + '.join(module.modes)})"
    if isinstance(module, Dense):
        d_out, d_in = module.weight.shape
        return f"Dense ({d_in} to {d_out}, {module.activation})"
    return "Normalize"


def _machine() -> dict[str, Any]:
    """The processor and the BLAS library, which decide the speed."""
    import numpy as np

    from minisbert.parallel import advice, libraries, usable_processors

    keys = ("internal_api", "version", "architecture", "num_threads", "threading_layer")
    blas = [{key: found.get(key) for key in keys} for found in libraries()]
    build: Any = np.show_config(mode="dicts")
    built_with = (build or {}).get("Build Dependencies", {}).get("blas", {})
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "usable_cpus": usable_processors(),
        "blas": blas,
        "blas_advice": advice(),  # what to set where a faster kernel could run
        "numpy_built_with": built_with.get("name"),
    }


def _versions() -> dict[str, str]:
    """The versions of everything involved."""
    from importlib.metadata import version

    return {
        "minisbert": __version__,
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def _cache_folder() -> str:
    """Where fetched models are kept."""
    from minisbert.hub import cache_folder

    return str(cache_folder())


def _model_lines(model: dict[str, Any]) -> list[str]:
    """Format the model and its limits."""
    from minisbert.model.pooling import Pooling

    heads, limits = model["heads"], model["max_seq_length"]
    # a plain BERT lists no modules, and its token vectors are averaged
    modules = model["modules"] or [f"{_describe(Pooling())}, by default: the folder has no modules.json"]
    rows = [
        ("folder", model["folder"]),
        ("source", model["source"]),
        ("layers", f"{model['layers']}, each with {heads} heads of {model['hidden_size'] // heads}"),
        ("width", f"{model['hidden_size']}, feed-forward {model['intermediate_size']} ({model['activation']})"),
        ("vocabulary", f"{model['vocabulary']:,} tokens"),
        ("parameters", f"{model['parameters']:,} in use, stored as {', '.join(model['stored_as'])}"),
        ("modules", " > ".join(["Transformer", *modules])),
        (
            "sentence vector",
            f"{model['sentence_embedding_dimension']} dimensions, compared by {model['similarity_fn_name']}",
        ),
        ("prompts", ", ".join(model["prompts"]) or "none"),
    ]
    heading = f"Longest text in tokens, special tokens included: {limits['in_force']}"
    return ["Model", *align(rows), "", heading, *align(_limit_rows(limits)), ""]


def _limit_rows(limits: dict[str, Any]) -> list[tuple[str, str]]:
    """The limit in each file, with the one in force marked."""
    decided_by = limits["decided_by"]
    rows = [(f"{limit['file']}: {limit['key']}", _limit_words(limit, decided_by)) for limit in limits["said"]]
    return [(decided_by, f"{limits['in_force']}  in force"), *rows] if decided_by.startswith("--") else rows


def _limit_words(limit: dict[str, Any], decided_by: str) -> str:
    """The limit in one file, and whether it counts."""
    if limit["tokens"] is None:
        return "-"
    tokens = f"{limit['tokens']:,}" if limit["tokens"] < 1e9 else "no limit"  # transformers writes 1e30
    if limit["file"] == "tokenizer.json":
        return f"{tokens}  ignored: it would cut silently"
    return f"{tokens}  in force" if limit["file"] == decided_by else tokens


def _machine_lines(found: dict[str, Any]) -> list[str]:
    """Format machine, versions and cache."""
    machine = found["machine"]
    rows = [("system", machine["system"]), ("processors", f"{machine['usable_cpus']} usable of {machine['cpus']}")]
    for blas in machine["blas"]:
        kernel = f", kernel {blas['architecture']}" if blas["architecture"] else ""
        threads = f"{blas['num_threads']} thread{'' if blas['num_threads'] == 1 else 's'}"
        rows.append(("BLAS", f"{blas['internal_api']} {blas['version']}{kernel}, {threads}"))
    if not machine["blas"]:
        rows.append(("BLAS", f"{machine['numpy_built_with']}, kernel and threads unknown"))
    rows.append(("cache", found["cache"]))
    return ["Machine", *align(rows), "", "Versions", *align(list(found["versions"].items()))]
