"""``minisbert verify``: the agreement ledger on the command line."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from minisbert.cli.options import TEXT, ModelChoice, json_option, model_options
from minisbert.cli.outputs import Target, written_whole
from minisbert.encoder import SentenceEncoder
from minisbert.proof.ledger import (
    Reference,
    compare,
    first_disagreement,
    format_ledger,
    ledger_to_json,
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
    encoder = choice.encoder(dtype)
    reference = _reference(encoder, texts, against, dtype)
    ours: dict[str, Any] = trace_tensors(encoder.trace(reference.texts)) if mine is None else _read_mine(mine)
    rows = compare(ours, reference, dtype)
    if save is not None:
        with written_whole(save) as stream:
            np.savez_compressed(stream, **ours)
    if as_json:
        click.echo(json.dumps(ledger_to_json(rows, reference, dtype), indent=2))
    else:
        whose = "this package" if mine is None else str(mine)
        click.echo(f"{whose}, {dtype}, compared with PyTorch: {reference.origin}")
        click.echo(f"texts: {', '.join(repr(text) for text in reference.texts)}\n")
        click.echo(format_ledger(rows))
        click.echo(f"\n{verdict(rows, reference)}")
    sys.exit(0 if first_disagreement(rows) is None else 1)


def _reference(encoder: SentenceEncoder, texts: tuple[str, ...], against: str, dtype: str) -> Reference:
    """Read the recorded tensors, or compute them with PyTorch."""
    recorded = read_recorded()
    if against == "torch":
        from minisbert.proof.reference import torch_reference

        return torch_reference(encoder.folder, texts or recorded.texts, dtype, encoder.max_seq_length)
    if texts:
        raise click.UsageError("Recorded tensors exist only for their own texts; for TEXTS add --against torch.")
    return recorded


def _read_mine(file: Path) -> dict[str, np.ndarray]:
    """Read the user's tensors; pickled objects are refused, because loading them can run code."""
    expected = f"{file}: expected an .npz with tensors named as in the ledger, but"
    if not zipfile.is_zipfile(file):
        if not file.read_bytes().startswith(b"\x93NUMPY"):
            raise ValueError(f"{expected} this is another kind of file; np.savez writes one")
        raise ValueError(
            f"{expected} this is one array without a name; name it as the ledger does, such as "
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
