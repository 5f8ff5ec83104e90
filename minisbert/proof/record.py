"""Write the recorded PyTorch tensors that ``minisbert verify`` compares with: ``python -m minisbert.proof.record``.

The three texts of the package's first example go through PyTorch in float64. All rows of every tensor are kept and
every 13th column of the wide ones: 13 shares no factor with the head size 32, so all heads are met, and a mistake in
any other column spreads to all of them in the next matrix product. That makes some hundred KB instead of five MB.
``--check`` remakes the tensors and compares them with the recorded ones.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from typing import Any

import click
import numpy as np

from minisbert import hub
from minisbert.proof.ledger import RECORDED, compare, first_disagreement, format_ledger, read_recorded, thin, verdict
from minisbert.proof.torch_model import torch_reference

TEXTS = ("i love soup", "soup is my favorite", "london is far away")
STEP = 13


@click.command()
@click.option("--check", is_flag=True, help="Remake the tensors and compare; write nothing.")
def main(check: bool) -> None:
    """Record PyTorch's tensors for `minisbert verify`."""
    reference = torch_reference(hub.resolve().folder, TEXTS, "float64", 256)
    if check:
        recorded = read_recorded()
        rows = compare(reference.tensors, recorded, "float64")
        click.echo(format_ledger(rows))
        click.echo(f"\n{reference.origin}, against what was {recorded.origin}:\n{verdict(rows, recorded)}")
        complete = [row.name for row in rows] == list(recorded.tensors) == list(reference.tensors)
        sys.exit(0 if complete and first_disagreement(rows) is None else 1)
    libraries = ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")
    about = {
        "texts": TEXTS,
        "step": STEP,
        "model": hub.DEFAULT_MODEL,
        "versions": {"Python": platform.python_version(), **{name: version(name) for name in libraries}},
    }
    thinned: dict[str, Any] = {name: thin(tensor, name, STEP) for name, tensor in reference.tensors.items()}
    np.savez_compressed(RECORDED, about=np.array(json.dumps(about)), **thinned)
    click.echo(f"{RECORDED.name}: {len(thinned)} tensors, {RECORDED.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
