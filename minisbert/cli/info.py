"""``minisbert info``: the model, its limits, and the machine. What a bug report should include."""

from __future__ import annotations

import math
import os
import platform
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

from minisbert import __version__
from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.outputs import echo_json
from minisbert.cli.table import align

if TYPE_CHECKING:
    from minisbert.cli.folder_facts import FolderFacts

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
    from minisbert.hub import cache_folder

    model, problem = None, None
    try:
        model = _model(read_folder_facts(choice, local_files_only=True))
    except ValueError as error:
        problem = error  # shown last: it may be the reason for asking
    machine = _machine()
    versions = {"minisbert": __version__, "python": platform.python_version()}
    versions |= {library: version(library) for library in LIBRARIES}
    found = {"model": model, "machine": machine, "versions": versions, "cache": str(cache_folder())}
    if as_json:
        echo_json(found)
    else:
        click.echo("\n".join([*(_model_lines(model) if model else []), *_machine_lines(found)]))
    if sentence := machine["blas_advice"]:
        warnings.warn(sentence, stacklevel=1)
    if problem is not None:
        raise ValueError(f"{problem}\n`minisbert info` downloads nothing; `minisbert fetch` does.") from problem


def _model(facts: FolderFacts) -> dict[str, Any]:
    """What the folder says."""
    from minisbert.cli.folder_facts import SaidLimit
    from minisbert.model.config import read_json
    from minisbert.model.folder import read_modules, read_sentence_settings
    from minisbert.model.params import read_checkpoint, tensor_shapes
    from minisbert.model.pooling import Dense, Pooling, output_width

    config = facts.config
    stored = list(read_checkpoint(facts.bert_folder).values())
    shapes = list(tensor_shapes(config).values())
    for folder in (folder for kind, folder in facts.modules if kind == "Dense"):
        dense = list(read_checkpoint(folder).values())
        stored, shapes = stored + dense, shapes + [tensor.shape for tensor in dense]
    modules, described = read_modules(facts.modules, config, "float32"), []
    for module in modules:
        if isinstance(module, Pooling):
            described.append(f"Pooling ({' + '.join(module.modes)})")
        elif isinstance(module, Dense):
            described.append(f"Dense ({module.weight.shape[1]} to {module.weight.shape[0]}, {module.activation})")
        else:
            described.append("Normalize")
    settings, width = read_sentence_settings(facts.folder), output_width(modules, config.hidden_size)
    cut = (read_json(facts.bert_folder / "tokenizer.json", optional=True) or {}).get("truncation") or {}
    return {
        "folder": str(facts.folder),
        "source": facts.source,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "activation": config.hidden_act,
        "vocabulary": config.vocab_size,
        "parameters": sum(map(math.prod, shapes)),
        "stored_as": sorted({tensor.dtype for tensor in stored if tensor.dtype[:1] in "FB" and tensor.dtype != "BOOL"}),
        "modules": described,
        "sentence_embedding_dimension": min(width, settings["truncate_dim"] or width),
        **settings,
        "max_seq_length": {
            "in_force": facts.max_seq_length,
            "decided_by": facts.decided_by,
            "said": [*facts.said_limits, SaidLimit("tokenizer.json", "truncation", cut.get("max_length"))],
        },
    }


def _machine() -> dict[str, Any]:
    """The processor and the BLAS library, which decide the speed."""
    import numpy as np

    from minisbert.parallel import advice, libraries, usable_processors

    keys = ("internal_api", "version", "architecture", "num_threads", "threading_layer")
    build: Any = np.show_config(mode="dicts")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "usable_cpus": usable_processors(),
        "blas": [{key: found.get(key) for key in keys} for found in libraries()],
        "blas_advice": advice(),  # what to set where a faster kernel could run
        "numpy_built_with": (build or {}).get("Build Dependencies", {}).get("blas", {}).get("name"),
    }


def _model_lines(model: dict[str, Any]) -> list[str]:
    """Format the model, and the limit that each file says, with the one in force marked."""
    heads, limits = model["heads"], model["max_seq_length"]
    # a plain BERT lists no modules, and its token vectors are averaged
    modules = model["modules"] or ["Pooling (mean), by default: the folder has no modules.json"]
    dimensions = f"{model['sentence_embedding_dimension']} dimensions"
    rows = [
        ("folder", model["folder"]),
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
