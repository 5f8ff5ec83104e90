"""``minisbert tokens``: the word pieces of a text, and where it is cut."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.table import display_width, pad, printable, shorten, terminal_width

if TYPE_CHECKING:
    from minisbert.cli.folder_facts import FolderFacts

CUT_SHOWN = 10  # cut-off tokens listed in the table; --json gives all


@dataclass(frozen=True)
class Split:
    """The pieces of one text: those that the model reads, and those cut off."""

    text: str
    kept: list[tuple[int, str]]  # (id, piece), special tokens included
    cut: list[tuple[int, str]]


@click.command(short_help="Show how a text is tokenized, and what is cut off.")
@input_options
@json_option
@model_options
def tokens(source: TextSource, as_json: bool, choice: ModelChoice) -> None:
    """Show how a text is tokenized, the ids of its pieces, and what is cut off.

    A piece that starts with ## continues the previous one. The limit includes special tokens such as [CLS] and [SEP].

    \b
    Examples:
      minisbert tokens "i love bouillabaisse"
      minisbert tokens --max-seq-length 6 "a long text about hot tomato soup"
      minisbert tokens -i texts.txt --json
    """
    texts = list(source.read())
    if not texts and source.file is None:
        raise click.UsageError("Nothing to tokenize: give texts, or a file (-i).")
    from minisbert.cli.folder_facts import read_folder_facts

    facts = read_folder_facts(
        choice, local_files_only=choice.local_files_only, show_progress_bar=sys.stderr.isatty() and not as_json
    )
    splits = split(texts, facts)
    if as_json:
        click.echo(json.dumps(_to_json(splits, facts), ensure_ascii=False).encode())
        return
    for i, one in enumerate(splits):
        heading = f"text {i + 1}: {printable(one.text)}" if len(splits) > 1 else ""
        click.echo("\n" * bool(i) + shorten(heading, terminal_width()) + "\n" * bool(heading), nl=False)
        click.echo("\n".join(_table(one)))
        click.echo(f"\n{_summary(one, facts)}")


def split(texts: list[str], facts: FolderFacts) -> list[Split]:
    """Tokenise texts as the encoder does, and once more without the limit to see what is lost."""
    tokenizer, limit = facts.tokenizer, facts.max_seq_length
    longest = limit + int(tokenizer(texts, limit).lost.max(initial=0))
    splits = []
    for text, ids in zip(texts, tokenizer(texts, longest).split(), strict=True):
        pieces = list(zip(ids.tolist(), tokenizer.pieces(ids), strict=True))
        end = len(pieces) - len(tokenizer.last)  # the text's own pieces end here
        stop = min(end, limit - len(tokenizer.last))  # and here what is read of them
        splits.append(Split(text, pieces[:stop] + pieces[end:], pieces[stop:end]))
    return splits


def _table(split: Split) -> list[str]:
    """Format position, id and piece, with the pieces cut off marked below."""
    shown = [(str(i), str(token_id), piece, "") for i, (token_id, piece) in enumerate(split.kept)]
    shown += [("-", str(token_id), piece, "cut") for token_id, piece in split.cut[:CUT_SHOWN]]
    id_width = max(6, *(len(row[1]) for row in shown))
    piece_width = max(display_width(row[2]) for row in shown)
    lines = [f"position  {'id':>{id_width}}  piece"]
    for position, token_id, piece, mark in shown:
        lines.append(f"{position:>8}  {token_id:>{id_width}}  {pad(printable(piece), piece_width)}  {mark}".rstrip())
    if (more := len(split.cut) - CUT_SHOWN) > 0:
        lines.append(f"{'-':>8}  {'...':>{id_width}}  and {more:,} more, cut")
    return lines


def _summary(split: Split, facts: FolderFacts) -> str:
    """How much of the limit a text uses, or how much is lost."""
    whole = len(split.kept) + len(split.cut)
    limit = f"{facts.max_seq_length} ({facts.decided_by})"
    if not split.cut:
        return f"{whole} tokens; the limit is {limit}"
    return f"{whole:,} tokens, but the limit is {limit}: {len(split.kept)} are read, {len(split.cut):,} are cut"


def _to_json(splits: list[Split], facts: FolderFacts) -> dict[str, object]:
    """Everything as JSON; pieces cut off have no position."""
    texts = [
        {
            "text": one.text,
            "tokens": [{"position": i, "id": number, "piece": piece} for i, (number, piece) in enumerate(one.kept)],
            "cut": [{"id": number, "piece": piece} for number, piece in one.cut],
        }
        for one in splits
    ]
    return {"max_seq_length": facts.max_seq_length, "decided_by": facts.decided_by, "texts": texts}
