"""``minisbert tokens``: the word pieces of a text, and where it is cut."""

from __future__ import annotations

import sys
from typing import Any

import click

from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.outputs import echo_json
from minisbert.cli.table import grid, printable, shorten, terminal_width

CUT_SHOWN = 10  # cut-off tokens listed in the table; --json gives all


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
    # as the encoder does, and once more without the limit to see what is lost
    tokenizer, limit = facts.tokenizer, facts.max_seq_length
    longest = limit + int(tokenizer(texts, limit).lost.max(initial=0))
    found: list[dict[str, Any]] = []
    for text, ids in zip(texts, tokenizer(texts, longest).split(), strict=True):
        pieces = [{"id": i, "piece": piece} for i, piece in zip(ids.tolist(), tokenizer.pieces(ids), strict=True)]
        end = len(pieces) - len(tokenizer.last)  # the text's own pieces end here
        stop = min(end, limit - len(tokenizer.last))  # and here what is read of them
        kept = [{"position": i, **piece} for i, piece in enumerate(pieces[:stop] + pieces[end:])]
        found.append({"text": text, "tokens": kept, "cut": pieces[stop:end]})
    if as_json:
        echo_json({"max_seq_length": limit, "decided_by": facts.decided_by, "texts": found})
        return
    for i, one in enumerate(found):
        kept, cut = one["tokens"], one["cut"]
        rows = [("position", f"{'id':>6}", "piece", "")]
        rows += [(str(piece["position"]), str(piece["id"]), printable(piece["piece"]), "") for piece in kept]
        rows += [("-", str(piece["id"]), printable(piece["piece"]), "cut") for piece in cut[:CUT_SHOWN]]
        lines = grid(rows, ">><<")
        if (more := len(cut) - CUT_SHOWN) > 0:
            lines.append(f"{'-':>8}  {'...':>6}  and {more:,} more, cut")
        whole, limited = len(kept) + len(cut), f"the limit is {limit} ({facts.decided_by})"
        lost = f"{whole:,} tokens, but {limited}: {len(kept)} are read, {len(cut):,} are cut"
        lines += ["", lost if cut else f"{whole} tokens; {limited}"]
        if len(found) > 1:
            lines = [*[""] * bool(i), shorten(f"text {i + 1}: {printable(one['text'])}", terminal_width()), *lines]
        click.echo("\n".join(lines))
