"""Record PyTorch's tensors and training steps: ``python -m minisbert.proof.record``; ``--check`` remakes and compares.

The three texts of the package's first example go through PyTorch in float64. All rows of every tensor are kept and
every 13th column of the wide ones: 13 shares no factor with the head size 32, so all heads are met, and a mistake in
any other column spreads to all of them in the next matrix product. That makes some hundred KB instead of five MB.
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
from minisbert.proof import steps
from minisbert.proof.ledger import RECORDED, compare, first_disagreement, format_ledger, read_recorded, thin, verdict
from minisbert.proof.torch_model import torch_reference
from minisbert.proof.torch_steps import torch_steps

TEXTS = ("i love soup", "soup is my favorite", "london is far away")
STEP = 13
STEPS_TOLERANCE = 1e-9  # float64; measured 1e-13 between versions, and kernels differ


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
        sys.exit(0 if complete and first_disagreement(rows) is None and _check_steps() else 1)
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
    _record_steps()


def _record_steps() -> None:
    """Record PyTorch's training steps."""
    found = torch_steps(hub.resolve().folder)
    about = {"names": list(found.gradients), "origin": found.origin}
    kept: dict[str, Any] = {f"gradient.{i}": gradient for i, gradient in enumerate(found.gradients.values())}
    lengths = np.array(list(found.lengths.values()))
    np.savez_compressed(
        steps.RECORDED,
        about=np.array(json.dumps(about)),
        losses=found.losses,
        norms=found.norms,
        lengths=lengths,
        **kept,
    )
    click.echo(f"{steps.RECORDED.name}: {len(lengths)} gradients, {steps.RECORDED.stat().st_size:,} bytes")


def _check_steps() -> bool:
    """Remake PyTorch's training steps and compare."""
    recorded, fresh = steps.read_steps(), torch_steps(hub.resolve().folder)
    losses = float(np.abs(fresh.losses - recorded.losses).max())
    name, gradients = recorded.largest_difference(fresh)
    click.echo(f"training steps, against what was recorded: losses {losses:.1e}, gradients {gradients:.1e} ({name})")
    return list(recorded.gradients) == list(fresh.gradients) and max(losses, gradients) < STEPS_TOLERANCE


if __name__ == "__main__":
    main()
