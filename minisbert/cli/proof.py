"""Proofs and measurements of the computation: ``minisbert verify``, ``diagnose``, ``gradcheck`` and ``profile``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any, NoReturn

import click
import numpy as np

from minisbert.cli import options
from minisbert.cli.options import TextSource, input_options
from minisbert.cli.outputs import OutputError, Target, give
from minisbert.cli.table import counted, grid
from minisbert.encoder import SentenceEncoder
from minisbert.parallel import BATCH_TOKENS, advice
from minisbert.proof.diagnose import diagnose as find_settings
from minisbert.proof.diagnose import read_vector
from minisbert.proof.judge import examine
from minisbert.proof.ledger import (
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
@click.argument("texts", nargs=-1, type=options.TEXT)
@options.choice_option(
    "--against",
    ["recorded", "torch"],
    "Tensors recorded with the package, or live PyTorch (extra `verify`) for any model and TEXTS.",
)
@options.choice_option("--dtype", ["float32", "float64"])
@click.option(
    "--mine",
    type=options.FILE,
    help="Check your own port: an .npz, .safetensors or .npy with some of the tensors, or a .py with functions, as in "
    "notebooks/my_bert.py. The mistake is named.",
)
@click.option("--name", metavar="TENSOR", help="Which tensor an .npy is, where its file name does not say so.")
@click.option(
    "--template", type=options.PLACE, help="List every tensor that --mine takes, and write an .npz to be filled in."
)
@options.json_option
@options.model_options
def verify(
    texts: tuple[str, ...],
    choice: options.ModelChoice,
    against: str,
    dtype: str,
    mine: Path | None,
    name: str | None,
    template: Path | None,
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
    if template is not None and template.exists():
        raise OutputError(f"{template}: already exists; choose another name")
    target = Target(template, "npz", force=False)
    target.check_place()
    if mine is not None and mine.suffix == ".py":
        if texts or against != "recorded" or template:
            raise click.UsageError("Functions are judged on texts of their own: give --mine FILE.py alone.")
        from minisbert.proof.ladder import climb

        report = climb(mine, choice.encoder("float64"))
        _end(as_json, [str(report)], {"ok": report.ok, "next": report.next} | vars(report), report.ok)
    if texts and against == "recorded" and template is None:
        raise click.UsageError("Recorded tensors exist only for their own texts; for TEXTS add --against torch.")
    if name and (mine is None or mine.suffix != ".npy"):
        raise click.UsageError("--name says which tensor an .npy is; give one with --mine.")
    given = None if mine is None else read_tensors(mine, name or "")
    reference = read_recorded()
    encoder = choice.encoder(dtype)
    if template is not None:
        texts = texts or reference.texts
        traced = trace_tensors(encoder.trace(texts))
        listed = grid([[name, str(tensor.shape), meaning(name)] for name, tensor in traced.items()], "<")
        click.echo("\n".join(listed))
        how = [f"texts, end to end: {'; '.join(texts)}", "replace any of these; what stays NaN is not compared"]
        # one that is left as it is counts as not given; the ids are given
        empty = {name: np.full(x.shape, np.nan, x.dtype) for name, x in traced.items() if name != "token_ids"}
        target.write(np.savez_compressed, README=np.array(how + listed), **(traced | empty))
        return
    if against == "torch":
        from minisbert.proof.reference import torch_reference

        reference = torch_reference(encoder.folder, texts or reference.texts, dtype, encoder.max_seq_length)
    rows = compare(trace_tensors(encoder.trace(reference.texts)), reference, dtype)
    first, said = first_disagreement(rows), [verdict(rows)]
    agrees = first is None
    of_mine: dict[str, Any] = {}
    head = [
        f"{mine or 'this package'}, {dtype}, compared with PyTorch: {reference.origin}",
        f"texts: {', '.join(map(repr, reference.texts))}",
    ]
    if given is not None:
        if reference.step > 1:  # the numbers that were not recorded are our own in float64
            trace = choice.encoder("float64").trace(reference.texts)
            agrees &= first_disagreement(compare(trace_tensors(trace), reference, "float64")) is None
            reference = whole(reference, trace)
        if not agrees:
            raise ValueError(
                "--mine cannot be judged: this package itself differs from PyTorch, see `minisbert verify`"
            )
        try:
            found = examine(given, replace(encoder.model, max_seq_length=encoder.max_seq_length), reference, dtype)
        except ValueError as error:
            raise ValueError(f"{mine}: {error}") from error
        rows, first, agrees = found.rows, found.first, found.agrees
        head.append(f"coverage: {found.tensors} of {found.of} tensors, {100 * found.numbers:.3g} % of their numbers")
        said = [f"note: {note}" for note in found.notes]
        said += [f"unknown name, not compared: {x}; the nearest known one is {y}" for x, y in found.unknown.items()]
        said += found.sentences()
        of_mine = {"coverage": {"tensors": found.tensors, "of": found.of, "numbers": found.numbers}}
        of_mine |= {key: getattr(found, key) for key in ("unknown", "notes", "findings", "facts", "advice")}
    result = {"reference": reference.origin, "texts": reference.texts, "dtype": dtype, "agrees": agrees}
    tensors = [
        {"name": r.name, "shape": r.shape, "max_abs_difference": r.difference, "bound": r.bound, "agrees": r.agrees}
        for r in rows
    ]
    result |= {"first_disagreement": first.name if first else None, "tensors": tensors, **of_mine}
    ledger = [format_ledger(rows), ""] if rows else []
    _end(as_json, [*head, "", *ledger, *said], result, agrees)


def _end(as_json: bool, lines: Sequence[str], result: Any, is_right: bool) -> NoReturn:
    """Print the lines, or the result as JSON; the exit code says whether all is right."""
    give(as_json, lines, result)
    sys.exit(not is_right)


# ----------------------------------------------------------------------------------------------------------- diagnose


MOST_SETTINGS = 20  # rows of the table


@click.command()
@click.argument("vector")
@click.option("--text", required=True, type=options.TEXT, help="The text that the vector is of.")
@options.json_option
@options.model_options
def diagnose(vector: str, text: str, choice: options.ModelChoice, as_json: bool) -> None:
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
    found = find_settings(choice.encoder(), text, read_vector(content, name))
    rows = sorted(found.costs, key=lambda cost: -cost.to_vector)[:MOST_SETTINGS]
    lines = [[cost.setting, f"{cost.cosine:.6f}", f"{cost.to_vector:.6f}"] for cost in rows]
    own = f"cosine with the model's own vector: {found.cosine:.6f}; length {found.length:.6g}; {found.precision}"
    table = grid([["setting", "to the model's own", "to yours"], *lines], "<>>")
    _end(as_json, [str(found), "", own, *table], found, found.reproduces)


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


@click.command()
@options.choice_option("--loss", LOSSES, "Loss whose gradient is checked.")
@options.choice_option(
    "--layers",
    ["last", "none", "all"],
    "Layers whose tensors are checked one by one, besides the modules after BERT; all: embeddings included.",
)
@click.option("--directions", type=options.COUNT, default=2, help="Random directions per tensor, and for all together.")
@options.seed_option
@options.json_option
@options.model_options
def gradcheck(choice: options.ModelChoice, loss: str, layers: str, directions: int, seed: int, as_json: bool) -> None:
    """Check every gradient of a training step against finite differences, in float64.

    All tensors are moved at once along a random direction and the slope of the loss is measured; then each tensor of
    the chosen layers alone. A wrong gradient is reported with a diagnosis: a flipped sign, a factor, a missing term.
    The first wrong one listed is nearest to the loss: start there. The exit code is 1 if any is wrong.

    \b
    Examples:
      minisbert gradcheck
      minisbert gradcheck --loss cosent --layers none
      minisbert gradcheck --layers all --directions 1
    """
    encoder = choice.encoder("float64")
    model = replace(encoder.model, max_seq_length=encoder.max_seq_length)
    last = f"encoder.layer.{model.config.num_hidden_layers - 1}."
    chosen = "modules.", "head.", {"last": last, "none": "modules.", "all": ""}[layers]
    names = [*named_parameters(model), *(HEAD_TENSORS if LOSSES[loss].has_head else ())]
    names = [name for name in names if name.startswith(chosen)]
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
        only=names,
    )
    first = report.first_wrong.name if report.first_wrong else None
    found = {"whole": report.whole, "tensors": report.rows, "notes": report.notes}
    result = {"ok": report.ok, "tolerance": report.tolerance, "first_wrong": first, **found}
    _end(as_json, [str(report)], result, report.ok)


# ------------------------------------------------------------------------------------------------------------ profile


MOST_TOKENS = 4 * BATCH_TOKENS
"""Tokens that are profiled: two full batches; a third would add nothing."""

PROFILE_HEAD = ("operation", "shapes", "calls", "ms", "share", "MFLOP", "MB", "FLOP/byte", "GFLOP/s", "of ceiling")
_WORTH_A_WORD = 1.05  # above the ceiling by more than the ceiling's own noise


@click.command()
@input_options
@options.choice_option("--dtype", ["float32", "float64"])
@click.option(
    "--num-threads", type=options.COUNT, default=1, help="Threads for matrix products; everything else runs on one."
)
@click.option(
    "--repeat",
    type=options.COUNT,
    metavar="N",
    help="Passes; their median is shown.  [default: as many as fit into 2 seconds, 3 to 100]",
)
@options.json_option
@options.model_options
def profile(
    source: TextSource, choice: options.ModelChoice, dtype: str, num_threads: int, repeat: int | None, as_json: bool
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
    texts = source.read("profile")[:MOST_TOKENS]
    encoder = choice.encoder(dtype)
    lengths = encoder.tokenize(texts).lengths  # warns about what is cut off
    count = max(1, int(np.searchsorted(lengths.cumsum(), MOST_TOKENS, side="right")))
    if count < len(texts):
        click.echo(f"profiled: the first {count:,} texts; more than {MOST_TOKENS:,} tokens add nothing", err=True)
    found = measure(encoder, texts[:count], num_threads=num_threads, passes=repeat)
    about = {"model": encoder.folder, "dtype": str(encoder.dtype)}
    totals = {"seconds": found.seconds, "least_seconds": found.least_seconds}
    lines = [*_heading(found, encoder), "", *_profile_table(found, encoder), "", *_verdict(found)]
    give(as_json, lines, {**about, **totals, **vars(found)})
    if sentence := advice():
        warnings.warn(sentence, stacklevel=1)


def _heading(found: Profile, encoder: SentenceEncoder) -> list[str]:
    """What was measured, and the sizes that the letters stand for."""
    config, ceilings = encoder.model.config, found.ceilings
    average = " on average" if found.batches > 1 else ""
    return [
        f"{encoder.folder.name}, {encoder.dtype}: {counted(found.texts, 'text')}, {counted(found.tokens, 'token')}, "
        f"{counted(found.batches, 'batch')}, {counted(found.num_threads, 'thread')}; median of "
        f"{counted(found.passes, 'pass')}",
        f"ceilings: matrix product {ceilings.gflop_per_s:.1f} GFLOP/s, memory copy {ceilings.gb_per_s:.1f} GB/s",
        f"N = {found.tokens // found.batches} tokens in a batch{average}, T in a text; D = {config.hidden_size}, "
        f"H = {config.num_attention_heads}, K = {config.head_size}, F = {config.intermediate_size}; "
        f"{counted(config.num_hidden_layers, 'layer')}",
    ]


def _profile_table(found: Profile, encoder: SentenceEncoder) -> list[str]:
    """Format the operations under their blocks, the rest, and the sum."""

    def line(name: str, seconds: float, cost: Cost = Cost(), least: float = 0.0) -> list[str]:  # noqa: B008
        """Where a figure does not apply it is 0, and its cell stays empty."""
        intensity = f"{cost.flop / max(cost.bytes, 1):.1f}" if cost.flop else ""
        speed = _number(cost.flop / seconds / 1e9)
        cells = [name, "", "", f"{1e3 * seconds:.3f}", f"{100 * seconds / found.seconds:.1f} %"]
        cells += [_number(cost.flop / 1e6), _number(cost.bytes / 1e6), intensity, speed]
        return [*cells, f"{100 * least / seconds:.0f} %" if least else ""]

    lines = [[*PROFILE_HEAD, "bound by"]]
    for block, members in groupby(found.rows, key=lambda row: row.block):
        rows = list(members)
        if len(rows) > 1:
            lines.append(line(block, sum(row.seconds for row in rows)))
        for row in rows:
            name = encoder.model.config.hidden_act if row.name == "activation" else row.name
            least = found.ceilings.least_seconds(row.cost)
            cells = line(f"  {name}" if len(rows) > 1 else block, row.seconds, row.cost, least)
            cells[1:3] = OPERATIONS[row.block, row.name], f"{row.calls:,}"
            lines.append([*cells, found.ceilings.bound(row.cost) if least else ""])
    lines += [line("other", found.other), line("total", found.seconds, found.cost, found.least_seconds)]
    lines.insert(-1, ["-" * max(map(len, column)) for column in zip_longest(*lines, fillvalue="")])
    return grid(lines, "<<>>>>>>>><")


def _number(value: float) -> str:
    """A number with three digits; nothing for 0.

    >>> _number(9201.25), _number(35.389), _number(3.8), _number(0.0019), _number(0.0)
    ('9,201', '35.4', '3.80', '0.00190', '')
    """
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


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
