"""``minisbert fetch``: download a model and verify it."""

from __future__ import annotations

import click

from minisbert.cli.options import json_option
from minisbert.cli.outputs import echo_json


@click.command(short_help="Download a model and verify it.")
@click.argument("model", required=False, envvar="MINISBERT_MODEL", metavar="[MODEL]")
@click.option("--revision", metavar="REV", help="Commit, branch or tag.")
@click.option(
    "--token",
    envvar="HF_TOKEN",
    show_envvar=True,
    metavar="TOKEN",
    help="For private models; the environment variable keeps it out of your shell history.",
)
@json_option
def fetch(model: str | None, revision: str | None, token: str | None, as_json: bool) -> None:
    """Download a model, verify it, and print its folder.

    MODEL is a name on the Hugging Face Hub. The default is all-MiniLM-L6-v2, of which every byte is checked against a
    pinned hash, wherever it came from. Files that are already here are not downloaded again.

    \b
    Examples:
      minisbert fetch
      minisbert fetch --json
    """
    from minisbert import hub

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
