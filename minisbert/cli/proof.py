"""Proofs and measurements of the computation: ``minisbert verify``, ``diagnose``, ``gradcheck`` and ``profile``."""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert import __version__
from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import TEXT, ModelChoice, json_option, model_options
from minisbert.cli.outputs import Target, echo_json
from minisbert.cli.table import grid
from minisbert.encoder import SentenceEncoder
from minisbert.files import written_whole
from minisbert.parallel import BATCH_TOKENS, advice, libraries
from minisbert.proof.diagnose import diagnose as find_settings
from minisbert.proof.diagnose import read_vector
from minisbert.proof.judge import examine
from minisbert.proof.ledger import (
    Reference,
    Row,
    compare,
    first_disagreement,
    format_ledger,
    read_recorded,
    trace_tensors,
    verdict,
    whole,
)
from minisbert.proof.port import meaning, read_tensors
from minisbert.proof.profile import OPERATIONS, Cost, Profile
from minisbert.proof.profile import profile as measure
from minisbert.training.gradcheck import check_encoder
from minisbert.training.losses import LOSSES
from minisbert.training.step import named_parameters

# ------------------------------------------------------------------------------------------------------------- verify


@click.command()
@click.argument("texts", nargs=-1, type=TEXT)
@click.option(
    "--against",
    type=click.Choice(["recorded", "torch"]),
    default="recorded",
    show_default=True,
    help="Tensors recorded with the package, or live PyTorch (extra `verify`) for any model and TEXTS.",
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option(
    "--mine",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check your own port: an .npz, .safetensors or .npy with some of the tensors, or a .py with functions, as in "
    "notebooks/my_bert.py. The mistake is named.",
)
@click.option(
    "--name", metavar="TENSOR", default="", help="Which tensor an .npy is, where its file name does not say so."
)
@click.option(
    "--template",
    type=click.Path(dir_okay=False, path_type=Path),
    help="List every tensor that --mine takes, and write an .npz to be filled in.",
)
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Also write our tensors to an .npz.")
@json_option
@model_options
def verify(
    texts: tuple[str, ...],
    choice: ModelChoice,
    against: str,
    dtype: str,
    mine: Path | None,
    name: str,
    template: Path | None,
    save: Path | None,
    as_json: bool,
) -> None:
    """Compare every intermediate tensor with PyTorch's, and name the first that differs.

    Without TEXTS, three short texts go through the model and are compared with tensors recorded from PyTorch and
    included in the package. The exit code is 1 if any tensor exceeds its bound.

    With --mine the tensors are yours: packed or padded, under the ledger's names or Hugging Face's, of some or all of
    the texts. The known mistake that reproduces the first wrong one is named.

    A .py is run, in a process of its own: each of its functions is judged alone on the right inputs, then all together.
    The exit code is 0 if part one, from token ids to the vector, is right, and nothing of part two is wrong.

    \b
    Examples:
      minisbert verify
      minisbert verify --dtype float64
      minisbert verify --template mine.npz
      minisbert verify --mine mine.npz
      minisbert verify --mine my_bert.py
    """
    for file in (save, template):
        if file is not None:
            Target(file, "npz", force=False).check()
    if texts and against == "recorded" and template is None:
        raise click.UsageError("Recorded tensors exist only for their own texts; for TEXTS add --against torch.")
    if name and (mine is None or mine.suffix != ".npy"):
        raise click.UsageError("--name says which tensor an .npy is; give one with --mine.")
    if mine is not None and mine.suffix == ".py":
        if texts or against != "recorded" or save or template:
            raise click.UsageError("Functions are judged on texts of their own: give --mine FILE.py alone.")
        from minisbert.proof.ladder import climb

        report = climb(mine, choice.encoder("float64"))
        if as_json:
            echo_json({"ok": report.ok, "next": report.next} | vars(report))
        else:
            click.echo(str(report))
        sys.exit(0 if report.ok else 1)
    given = None if mine is None else read_tensors(mine, name)
    encoder = choice.encoder(dtype)
    reference = read_recorded()
    if template is not None:
        _write_template(template, encoder, texts or reference.texts)
        return
    if against == "torch":
        from minisbert.proof.reference import torch_reference

        reference = torch_reference(encoder.folder, texts or reference.texts, dtype, encoder.max_seq_length)
    ours: dict[str, Any] = trace_tensors(encoder.trace(reference.texts))
    proof = compare(ours, reference, dtype)
    if save is not None:
        with written_whole(save) as stream:
            np.savez_compressed(stream, **ours)
    about = {"reference": reference.origin, "texts": reference.texts, "dtype": dtype}
    if given is not None and first_disagreement(proof) is None:
        _judge(str(mine), given, encoder, choice, reference, dtype, about if as_json else None)
    first = first_disagreement(proof)
    if as_json:
        found = {"agrees": first is None, "first_disagreement": first.name if first else None}
        echo_json(about | found | {"tensors": [_row(row) for row in proof]})
    else:
        if given is not None:
            click.echo("--mine is not judged, because this package itself differs:\n")
        click.echo(f"this package, {dtype}, compared with PyTorch: {reference.origin}")
        click.echo(f"texts: {', '.join(repr(text) for text in reference.texts)}\n")
        click.echo(format_ledger(proof))
        click.echo(f"\n{verdict(proof, reference)}")
    sys.exit(0 if first is None else 1)


def _row(row: Row) -> dict[str, Any]:
    return {
        **{"name": row.name, "shape": row.shape, "max_abs_difference": row.difference, "bound": row.bound},
        "agrees": row.agrees,
    }


def _judge(
    file: str,
    given: dict[str, Any],
    encoder: SentenceEncoder,
    choice: ModelChoice,
    reference: Reference,
    dtype: str,
    about: dict[str, Any] | None,
) -> None:
    """Compare a port with the reference, whole: where the recording has no numbers, with our own in float64."""
    if reference.step > 1:
        exact = encoder if dtype == "float64" else choice.encoder("float64")
        trace = exact.trace(reference.texts)
        if first_disagreement(compare(trace_tensors(trace), reference, "float64")):
            raise ValueError("verify: the float64 trace of this package differs from the recording; see `verify`")
        reference = whole(reference, trace)
    try:
        found = examine(given, replace(encoder.model, max_seq_length=encoder.max_seq_length), reference, dtype)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if len(given) == 1 and found.unknown:
        (unknown, nearest), *_ = found.unknown.items()
        raise ValueError(
            f"{file}: {unknown!r} is not the name of a tensor; the nearest is {nearest}. Say which one it is with "
            '--name, or write np.savez("mine.npz", **{"embeddings.word": array}); --template lists all names'
        )
    share = f"{100 * found.numbers:.3g} % of their numbers"
    if about is not None:
        first = found.first.name if found.first else None
        echo_json(
            about
            | {"agrees": found.agrees, "first_disagreement": first, "tensors": [_row(row) for row in found.rows]}
            | {"coverage": {"tensors": found.tensors, "of": found.of, "numbers": found.numbers}}
            | {key: getattr(found, key) for key in ("unknown", "notes", "findings", "facts", "advice")}
        )
        sys.exit(0 if found.agrees else 1)
    click.echo(f"{file}, {dtype}, compared with PyTorch: {reference.origin}")
    click.echo(f"texts: {', '.join(repr(text) for text in reference.texts)}")
    click.echo(f"coverage: {found.tensors} of {found.of} tensors, {share}\n")
    if found.rows:
        click.echo(f"{format_ledger(found.rows)}\n")
    for note in found.notes:
        click.echo(f"note: {note}")
    for unknown, nearest in found.unknown.items():
        click.echo(f"unknown name, not compared: {unknown}; the nearest known one is {nearest}")
    for sentence in found.sentences():
        click.echo(sentence)
    sys.exit(0 if found.agrees else 1)


def _write_template(file: Path, encoder: SentenceEncoder, texts: Sequence[str]) -> None:
    """Every tensor as NaN, to be replaced by what a port computes; one left as it is counts as not given."""
    tensors = trace_tensors(encoder.trace(texts))
    lines = [[name, str(tensor.shape), meaning(name)] for name, tensor in tensors.items()]
    click.echo("\n".join(grid(lines, "<<<")))
    empty: dict[str, Any] = {
        name: x if name == "token_ids" else np.full(x.shape, np.nan, x.dtype) for name, x in tensors.items()
    }
    how = [f"texts, end to end: {'; '.join(texts)}", "replace any of these; what stays NaN is not compared"]
    with written_whole(file) as stream:
        np.savez_compressed(stream, README=np.array(how + ["  ".join(line) for line in lines]), **empty)
    click.echo(f"wrote {file}: replace any of the tensors by yours, then minisbert verify --mine {file}", err=True)


# ----------------------------------------------------------------------------------------------------------- diagnose


MOST_SETTINGS = 20  # rows of the table


@click.command(short_help="Find the settings that made a sentence vector.")
@click.argument("vector")
@click.option("--text", required=True, type=TEXT, help="The text that the vector is of.")
@json_option
@model_options
def diagnose(vector: str, text: str, choice: ModelChoice, as_json: bool) -> None:
    """Find the settings under which the model makes this VECTOR of the text, whatever library or service made it.

    VECTOR is a file (.npy, .npz, .safetensors, .json, .csv, .txt), - for stdin, or the numbers themselves as JSON.
    Answers of OpenAI, text-embeddings-inference, Ollama and others are understood. Tried are limit, prompt, casing,
    special tokens, pooling, normalisation, GELU, precision, padding, and pairs of them. The exit code is 1 if none
    makes the vector.

    \b
    Examples:
      minisbert diagnose --text "i love soup" vector.npy
      curl -s localhost:8080/embed -d '{"inputs": "i love soup"}' ... | minisbert diagnose --text "i love soup" -
    """
    if vector == "-":
        content, name = sys.stdin.buffer.read(), "stdin"
    elif vector.lstrip().startswith(("[", "{")):
        content, name = vector.encode(), "VECTOR"
    else:
        content, name = Path(vector).read_bytes(), vector
    found = find_settings(choice.encoder("float32"), text, read_vector(content, name))
    if as_json:
        echo_json(found)
    else:
        click.echo(f"{found}\n")
        click.echo(
            f"cosine with the model's own vector: {found.cosine:.6f}; length {found.length:.6g}; {found.precision}"
        )
        rows = sorted(found.costs, key=lambda cost: -cost.to_vector)[:MOST_SETTINGS]
        lines = [[cost.setting, f"{cost.cosine:.6f}", f"{cost.to_vector:.6f}"] for cost in rows]
        click.echo("\n".join(grid([["setting", "to the model's own", "to yours"], *lines], "<>>")))
    sys.exit(0 if found.reproduces else 1)


# ---------------------------------------------------------------------------------------------------------- gradcheck


# Short, because each direction takes a dozen passes over them, and no text twice. Of different lengths, so that a
# text mixed up with another shows.
COLUMNS = (
    ("i love soup", "london is far away", "what time is it?"),
    ("soup is my favorite", "it is a long way to london", "could you tell me the time"),
    ("i cannot stand it", "paris", "time flies"),
)
SCORES, LABELS = (0.9, 0.7, 0.2), (1, 0, 1)
HEAD_TENSORS = ("head.weight", "head.bias")


@click.command(short_help="Check every gradient against finite differences.")
@click.option(
    "--loss",
    type=click.Choice(list(LOSSES)),
    default="multiple_negatives_ranking",
    show_default=True,
    help="Loss whose gradient is checked.",
)
@click.option(
    "--layers",
    default="last",
    show_default=True,
    metavar="LAYERS",
    help="Layers whose tensors are checked one by one, besides the modules after BERT: numbers from 0, such as 0,5; "
    "last, none, or all, embeddings included.",
)
@click.option(
    "--directions",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Random directions per tensor, and for all together.",
)
@click.option("--tolerance", type=click.FloatRange(min=0, min_open=True), default=1e-7, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of the directions.")
@json_option
@model_options
def gradcheck(
    choice: ModelChoice, loss: str, layers: str, directions: int, tolerance: float, seed: int, as_json: bool
) -> None:
    """Check every gradient of a training step against finite differences, in float64.

    All tensors are moved at once along a random direction and the slope of the loss is measured; then each tensor of
    the chosen layers alone. A wrong gradient is reported with a diagnosis: a flipped sign, a factor, a missing term.
    The first wrong one listed is nearest to the loss: start there. The exit code is 1 if any is wrong.

    \b
    Examples:
      minisbert gradcheck
      minisbert gradcheck --loss cosent --layers 0,1
      minisbert gradcheck --layers all --directions 1
    """
    encoder = choice.encoder("float64")
    model = replace(encoder.model, max_seq_length=encoder.max_seq_length)
    count = model.config.num_hidden_layers
    names = [*named_parameters(model), *(HEAD_TENSORS if LOSSES[loss].has_head else ())]
    if layers != "all":
        words = {"last": [str(count - 1)], "none": []}.get(layers, layers.split(","))
        numbers = [int(word) for word in words if word.strip().isdecimal()]
        if len(numbers) < len(words) or any(number >= count for number in numbers):
            raise click.UsageError(
                f"--layers: expected comma-separated numbers from 0 to {count - 1}, last, none or all, got {layers!r}"
            )
        wanted = ("modules.", "head.", *(f"encoder.layer.{number}." for number in numbers))
        names = [name for name in names if name.startswith(wanted)]
    if not as_json:
        click.echo(f"{loss}: all tensors together, and {len(names)} one by one; this may take minutes", err=True)
    data = LOSSES[loss].data
    report = check_encoder(
        model,
        COLUMNS[: {"texts": 1, "triplets": 3}.get(data, 2)],
        loss,
        rng=np.random.default_rng(seed),
        targets={"scored": SCORES, "labelled": LABELS}.get(data),
        directions=directions,
        tolerance=tolerance,
        only=names,
    )
    if as_json:
        first = report.first_wrong.name if report.first_wrong else None
        found = {"whole": report.whole, "tensors": report.rows, "notes": report.notes}
        echo_json({"ok": report.ok, "tolerance": report.tolerance, "first_wrong": first, **found})
    else:
        click.echo(str(report))
    sys.exit(0 if report.ok else 1)


# ------------------------------------------------------------------------------------------------------------ profile


MOST_TOKENS = 4 * BATCH_TOKENS
"""Tokens that are profiled: two full batches; a third would add nothing."""

PROFILE_HEAD = (
    "operation",
    "shapes",
    "calls",
    "ms",
    "share",
    "MFLOP",
    "MB",
    "FLOP/byte",
    "GFLOP/s",
    "of ceiling",
    "bound by",
)
_WORTH_A_WORD = 1.05  # above the ceiling by more than the ceiling's own noise


@click.command(short_help="Show where the time of a forward pass goes.")
@input_options
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option(
    "--num-threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads for matrix products; everything else runs on one.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    metavar="N",
    help="Passes; their median is shown.  [default: as many as fit into 2 seconds, 3 to 100]",
)
@json_option
@model_options
def profile(
    source: TextSource, choice: ModelChoice, dtype: str, num_threads: int, repeat: int | None, as_json: bool
) -> None:
    """Show where the time of a forward pass goes, operation by operation.

    The production code is timed. FLOP and bytes are computed by formula; each necessary read or write of a byte counts
    once. The two ceilings of the roofline are measured on the spot: the speed of a matrix product and of a memory copy.
    An operation's ceiling is what both allow, and `bound by` says which one limits it.

    \b
    Examples:
      minisbert profile "i love soup"
      minisbert profile -i texts.txt
      minisbert profile -i texts.txt --num-threads 2 --json
    """
    if source.file is None and not source.arguments:
        raise click.UsageError("Nothing to profile: give texts, or a file (-i).")
    encoder = choice.encoder(dtype)
    texts: list[str] = []
    tokens, left_out = 0, False
    for text in source.read():
        tokens += len(encoder.model.tokenizer([text], encoder.max_seq_length).token_ids)
        if left_out := bool(texts) and tokens > MOST_TOKENS:
            break
        texts.append(text)
    if not texts:
        raise ValueError("profile: the input has no texts; an empty line of a text file would count as one")
    encoder.tokenize(texts)  # warns about what is cut off
    if left_out:
        click.echo(f"profiled: the first {len(texts):,} texts; more than {MOST_TOKENS:,} tokens add nothing", err=True)
    found = measure(encoder, texts, num_threads=num_threads, passes=repeat)
    if as_json:
        _echo_profile(found, encoder)
    else:
        click.echo("\n".join([*_heading(found, encoder), "", *_profile_table(found, encoder), "", *_verdict(found)]))
    if sentence := advice():
        warnings.warn(sentence, stacklevel=1)


def _heading(found: Profile, encoder: SentenceEncoder) -> list[str]:
    """What was measured, on which machine, and the sizes that the letters stand for."""
    config, ceilings = encoder.model.config, found.ceilings
    work = [_count(found.texts, "text"), _count(found.tokens, "token"), _count(found.batches, "batch", "batches")]
    versions = [f"minisbert {__version__}", f"Python {platform.python_version()}", f"NumPy {version('numpy')}"]
    for blas in libraries():
        kernel = f" ({blas['architecture']})" if blas.get("architecture") else ""
        versions.append(f"{blas['internal_api']} {blas['version']}{kernel}")
    average = " on average" if found.batches > 1 else ""
    return [
        f"{encoder.folder.name}, {encoder.dtype}: {', '.join(work)}, {_count(found.num_threads, 'thread')}; "
        f"median of {_count(found.passes, 'pass', 'passes')}",
        f"ceilings: matrix product {ceilings.gflop_per_s:.1f} GFLOP/s, memory copy {ceilings.gb_per_s:.1f} GB/s",
        f"versions: {', '.join(versions)}",
        f"N = {found.tokens // found.batches} tokens in a batch{average}, T in a text; D = {config.hidden_size}, "
        f"H = {config.num_attention_heads}, K = {config.head_size}, F = {config.intermediate_size}; "
        f"{_count(config.num_hidden_layers, 'layer')}",
    ]


def _count(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _profile_table(found: Profile, encoder: SentenceEncoder) -> list[str]:
    """Format the operations under their blocks, the rest, and the sum."""

    def times(seconds: float) -> list[str]:
        return [f"{1e3 * seconds:.3f}", f"{100 * seconds / found.seconds:.1f} %"]

    def rates(cost: Cost, seconds: float, least: float) -> list[str]:
        """MFLOP, MB, FLOP/byte, GFLOP/s and the share of the ceiling; what does not apply stays empty."""
        megabytes, share = _number(cost.bytes / 1e6) if cost.bytes else "", f"{100 * least / seconds:.0f} %"
        if not cost.flop:
            return ["", megabytes, "", "", share if least else ""]
        return [
            *(_number(cost.flop / 1e6), megabytes),
            *(f"{cost.flop / cost.bytes:.1f}", _number(cost.flop / seconds / 1e9), share),
        ]

    lines = [list(PROFILE_HEAD)]
    for block, members in groupby(found.rows, key=lambda row: row.block):
        rows = list(members)
        if len(rows) > 1:
            lines.append([block, "", "", *times(sum(row.seconds for row in rows)), *[""] * 6])
        for row in rows:
            name = encoder.model.config.hidden_act if row.name == "activation" else row.name
            least = found.ceilings.least_seconds(row.cost)
            figures = [*times(row.seconds), *rates(row.cost, row.seconds, least)]
            bound = found.ceilings.bound(row.cost) if least else ""
            shapes = OPERATIONS[row.block, row.name]
            lines.append([f"  {name}" if len(rows) > 1 else block, shapes, f"{row.calls:,}", *figures, bound])
    lines.append(["other", "", "", *times(found.other), *[""] * 6])
    lines.append(["total", "", "", *times(found.seconds), *rates(found.cost, found.seconds, found.least_seconds), ""])
    lines.insert(-1, ["-" * max(map(len, column)) for column in zip(*lines, strict=True)])
    return grid(lines, "<<>>>>>>>><")


def _number(value: float) -> str:
    """A number with about three digits.

    >>> _number(9201.25), _number(35.389), _number(0.81), _number(0.0019)
    ('9,201', '35.4', '0.81', '<0.01')
    """
    if value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _verdict(found: Profile) -> list[str]:
    """What the table adds up to, and what is odd about it."""
    speed, ceilings = found.cost.flop / found.seconds / 1e9, found.ceilings
    lines = [
        f"Without timers the pass takes {1e3 * found.unclocked:.3f} ms: "
        f"{found.tokens / found.unclocked:,.0f} tokens/s, {found.texts / found.unclocked:,.1f} texts/s.",
        f"It runs at {100 * speed / ceilings.gflop_per_s:.0f} % of the speed of a matrix product. "
        f"With every operation at its ceiling it would take {1e3 * found.least_seconds:.3f} ms.",
    ]
    above = {ceilings.bound(r.cost) for r in found.rows if ceilings.least_seconds(r.cost) > _WORTH_A_WORD * r.seconds}
    if "memory" in above:
        lines.append("Above 100 % of memory: the bytes were still in the CPU cache, which is faster.")
    if "compute" in above:
        lines.append("Above 100 % of compute: the machine was busy while the ceilings were measured. Measure again.")
    return lines


def _echo_profile(found: Profile, encoder: SentenceEncoder) -> None:
    """Everything, in seconds, FLOP and bytes."""
    ceilings = found.ceilings
    measured = ("texts", "tokens", "batches", "num_threads", "passes", "ceilings")
    operations = [
        {
            **{"block": row.block, "name": row.name, "calls": row.calls, "seconds": row.seconds, **vars(row.cost)},
            "least_seconds": ceilings.least_seconds(row.cost),
            "bound_by": ceilings.bound(row.cost) if row.cost.bytes else None,
        }
        for row in found.rows
    ]
    echo_json(
        {"model": encoder.folder, "dtype": str(encoder.dtype)}
        | {name: getattr(found, name) for name in measured}
        | {"operations": operations, "seconds_other": found.other, "seconds": found.seconds}
        | {"seconds_without_clock": found.unclocked, **vars(found.cost), "least_seconds": found.least_seconds}
        | {"versions": {"minisbert": __version__, "python": platform.python_version(), "numpy": version("numpy")}}
        | {"blas": [{key: x.get(key) for key in ("internal_api", "version", "architecture")} for x in libraries()]}
    )
