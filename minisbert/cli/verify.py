"""``minisbert verify``: the agreement ledger on the command line."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert.cli.options import TEXT, ModelChoice, json_option, model_options
from minisbert.cli.outputs import Target, echo_json
from minisbert.files import written_whole
from minisbert.proof.ledger import (
    compare,
    first_disagreement,
    format_ledger,
    read_recorded,
    trace_tensors,
    verdict,
)


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
    help="Check your own port: an .npz with some of the tensors, named as in the ledger.",
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
    save: Path | None,
    as_json: bool,
) -> None:
    """Compare every intermediate tensor with PyTorch's, and name the first that differs.

    Without TEXTS, three short texts go through the model and are compared with tensors recorded from PyTorch and
    included in the package. The exit code is 1 if any tensor exceeds its bound.

    \b
    Example:
      minisbert verify
      minisbert verify --dtype float64
    """
    if save is not None:
        Target(save, "npz", force=False).check()
    reference = read_recorded()
    if texts and against == "recorded":
        raise click.UsageError("Recorded tensors exist only for their own texts; for TEXTS add --against torch.")
    encoder = choice.encoder(dtype)
    if against == "torch":
        from minisbert.proof.reference import torch_reference

        reference = torch_reference(encoder.folder, texts or reference.texts, dtype, encoder.max_seq_length)
    ours: dict[str, Any] = trace_tensors(encoder.trace(reference.texts)) if mine is None else _read_mine(mine)
    rows = compare(ours, reference, dtype)
    first = first_disagreement(rows)
    if save is not None:
        with written_whole(save) as stream:
            np.savez_compressed(stream, **ours)
    if as_json:
        about = {"reference": reference.origin, "texts": reference.texts, "dtype": dtype, "agrees": first is None}
        tensors = [
            {"name": row.name, "shape": row.shape, "max_abs_difference": row.difference, "bound": row.bound}
            | {"agrees": row.agrees}
            for row in rows
        ]
        echo_json(about | {"first_disagreement": first.name if first else None, "tensors": tensors})
    else:
        whose = "this package" if mine is None else str(mine)
        click.echo(f"{whose}, {dtype}, compared with PyTorch: {reference.origin}")
        click.echo(f"texts: {', '.join(repr(text) for text in reference.texts)}\n")
        click.echo(format_ledger(rows))
        click.echo(f"\n{verdict(rows, reference)}")
    sys.exit(0 if first is None else 1)


def _read_mine(file: Path) -> dict[str, np.ndarray]:
    """Read the user's tensors; pickled objects are refused, because loading them can run code."""
    expected = f"{file}: expected an .npz with tensors named as in the ledger, but"
    if not zipfile.is_zipfile(file):
        is_array = file.read_bytes().startswith(b"\x93NUMPY")
        raise ValueError(
            f"{expected} this is {'one array without a name' if is_array else 'another kind of file'}; write it by "
            f'np.savez("{file.stem}.npz", **{{"embeddings.word": array}}); '
            "`minisbert verify --save ours.npz` writes a file with all names"
        )
    try:
        with np.load(file, allow_pickle=False) as stored:
            tensors = {name: stored[name] for name in stored.files}
    except Exception as error:  # zipfile, zlib and NumPy each raise their own for a damaged file
        raise ValueError(f"{expected} {error or type(error).__name__}") from error
    if odd := [name for name, tensor in tensors.items() if not isinstance(tensor, np.ndarray)]:
        raise ValueError(f"{expected} {odd[0]!r} in it is not an array")
    return tensors
