"""``minisbert route``: send queries to routes. Both a verb, which routes, and a group of verbs about routes."""

from __future__ import annotations

import difflib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli import VERB, LazyGroup
from minisbert.cli.inputs import TextSource, input_options
from minisbert.cli.options import ModelChoice, Verb, decorate, json_option, model_options
from minisbert.cli.table import display_width, pad, printable, shorten, terminal_width

if TYPE_CHECKING:
    from minisbert.search.router import RouteChoice, Router
    from minisbert.search.routes import RouteTable

# Name -> module and short help, as in every group.
VERBS = {
    "fit": ("route_fit", "Fit thresholds on labelled queries, or on the examples alone."),
    "evaluate": ("route_evaluate", "Evaluate routes on labelled queries."),
    "draw": ("route_fit", "Create routes from a labelled table."),
}
ASK = "ask"  # the hidden name of the routing verb
NAME_WIDTH, LEAST_TEXT = 32, 16  # columns of a route's name, at most; of a text, at least


class _AskContext(click.Context):
    """Usage and errors of the routing verb read as those of ``minisbert route``."""

    @property
    def command_path(self) -> str:
        return super().command_path if self.parent is None else self.parent.command_path


class _Ask(click.Command):
    """The routing verb: its help is the group's."""

    context_class = _AskContext

    def get_help(self, ctx: click.Context) -> str:
        return super().get_help(ctx) if ctx.parent is None else ctx.parent.get_help()


class _RouteGroup(LazyGroup):
    """A group whose first argument, if it is no verb, is a file of routes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.verbs, *ctx.help_option_names):
            close = difflib.get_close_matches(args[0], self.verbs, 1)
            if close and not ctx.resilient_parsing and not Path(args[0]).exists():
                ctx.fail(f"No such file or command {args[0]!r}. Did you mean {close[0]!r}?")
            args = [ASK, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] != ASK:
            return super().resolve_command(ctx, args)
        ctx.meta[VERB] = ask
        return ASK, ask, args[1:]

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[OPTIONS] ROUTES [TEXT]...")
        formatter.write_usage(ctx.command_path, f"{'|'.join(self.verbs)} ...", prefix=" " * len("Usage: "))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        ask.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@click.group(cls=_RouteGroup, verbs=VERBS, short_help="Route queries by meaning, or reject them as out-of-scope.")
def route() -> None:
    """Route queries by meaning: to one of the routes, or to none if they are out-of-scope.

    ROUTES is a YAML or JSON file with names of routes and a few examples of each:

    \b
      routes:
        refund:
          - I want my money back
          - how do I return this?
        hours:
          examples: [when do you open, are you open on Sunday]
          threshold: 0.6       # for this route only
      threshold: 0.5           # minimum score
      scoring: nearest         # or centroid: the mean of the examples

    Only names and examples are required; without a threshold every query goes to the closest route. A labelled CSV, TSV
    or JSONL works too: each label is a route. Write ./fit for a file that is named like a command.

    \b
    Examples:
      minisbert route routes.yaml "where is my money" "what is the weather like"
      minisbert route routes.yaml -i texts.txt --json
      minisbert route routes.yaml "are you open today" --all
      minisbert route fit routes.yaml queries.tsv -o fitted.yaml
      minisbert route evaluate routes.yaml queries.tsv

    `minisbert route COMMAND --help` describes a command and shows more examples.
    """


def table_options(verb: Verb) -> Verb:
    """Add ROUTES and the options that override it to a verb."""
    options = [
        click.argument("routes", metavar="ROUTES", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.option("--scoring", type=click.Choice(["nearest", "centroid"]), help="Override the file's scoring."),
    ]
    return decorate(verb, options)


threshold_option = click.option(
    "--threshold", type=float, metavar="SCORE", help="Threshold for all routes; overrides the file's."
)


@click.command(cls=_Ask)
@table_options
@input_options
@threshold_option
@click.option("--all", "show_all", is_flag=True, help="Show the scores of all routes.")
@json_option
@model_options
def ask(
    routes: Path,
    scoring: str | None,
    source: TextSource,
    threshold: float | None,
    show_all: bool,
    as_json: bool,
    choice: ModelChoice,
) -> None:
    """Route the queries."""
    if source.file is None and not source.arguments:
        raise click.UsageError("Nothing to route: give texts, or a file of texts (-i).")
    source.check()
    table = load_table(routes, scoring, threshold)
    texts = list(source.read())
    from minisbert.search.router import Router

    router = Router(choice.encoder("float32"), table)
    choices = router.route_all(texts)
    if as_json:
        click.echo(json.dumps(_to_json(router, choices, show_all), ensure_ascii=False).encode())
        return
    lines = _blocks(choices) if show_all else _table(choices, terminal_width())
    click.echo("\n".join(lines))


def load_table(file: Path, scoring: str | None, threshold: float | None = None) -> RouteTable:
    """Read routes, before seconds of work, and override them by the options given."""
    from minisbert.search.route_files import read_routes

    table = read_routes(file)
    if scoring not in (None, table.scoring):
        if table.fitted is not None and threshold is None:
            raise click.UsageError(
                f"The thresholds of {file} were fitted for the scoring {table.scoring!r}; fit them again "
                f"(minisbert route fit --scoring {scoring}), or give a --threshold."
            )
        table = replace(table, scoring=str(scoring), origin=None, fitted=None)
    if threshold is not None:
        plain = [replace(one, threshold=None) for one in table.routes]
        table = replace(table, routes=plain, threshold=threshold, origin=None, fitted=None)
    return table


def _table(choices: list[RouteChoice], width: int) -> list[str]:
    """Format the choices in columns; query and example share the rest of the line."""
    rows = [["route", "score", "needs"]]
    rows += [[_name(one), f"{one.score:.4f}", _needs(one.threshold)] for one in choices]
    widths = [max(display_width(row[i]) for row in rows) for i in range(3)]
    room = max(LEAST_TEXT, (width - sum(widths) - 2 * len(rows[0]) - 2) // 2)
    texts = [("query", "most similar example"), *((one.query, one.example) for one in choices)]
    lines = []
    for row, (query, example) in zip(rows, texts, strict=True):
        cells = [pad(row[0], widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2])]
        cells += [pad(_cut(query, room), room), _cut(example, room)]
        lines.append("  ".join(cells).rstrip())
    if any(one.name is None for one in choices):
        lines += ["", "none (x): out-of-scope; x is the closest route"]
    return lines


def _blocks(choices: list[RouteChoice]) -> list[str]:
    """List the scores of all routes under each query, with the chosen one marked."""
    lines: list[str] = []
    for one in choices:
        names = {name: shorten(printable(name), NAME_WIDTH) for name in one.scores}
        widest = max(map(display_width, names.values()))
        lines += [""] * bool(lines)
        lines.append(printable(one.query) or "(empty)")
        for name, score in one.scores.items():
            taken = ">" if name == one.name else " "
            lines.append(f"{taken} {pad(names[name], widest)}  {score:7.4f}")
            if name == one.best:
                needs = "" if one.threshold is None else f"  needs {_needs(one.threshold)}"
                lines[-1] += f"{needs}  like {printable(one.example)!r}"
        if one.name is None:
            lines.append("> none (out-of-scope)")
    return lines


def _name(one: RouteChoice) -> str:
    """The route, or the one that came closest."""
    best = shorten(printable(one.best), NAME_WIDTH)
    return best if one.name is not None else f"none ({best})"


def _needs(threshold: float | None) -> str:
    """Format a threshold."""
    return "any" if threshold is None else f"{threshold:.4g}"


def _cut(text: str, room: int) -> str:
    """Shorten a text to a column."""
    return shorten(printable(text[: 4 * room]), room) or "(empty)"


def _to_json(router: Router, choices: list[RouteChoice], show_all: bool) -> dict[str, Any]:
    """Everything as JSON; the scores of all routes if asked for."""
    rows = []
    for one in choices:
        margin = None if one.margin is None else _digits(one.margin)
        row: dict[str, Any] = {"query": one.query, "route": one.name, "best": one.best, "score": _digits(one.score)}
        row |= {"threshold": one.threshold, "runner_up": one.runner_up, "margin": margin, "example": one.example}
        row |= {"metadata": dict(router[one.best].metadata)}
        scores = {name: _digits(score) for name, score in one.scores.items()}
        rows.append(row | ({"scores": scores} if show_all else {}))
    return {"similarity_fn_name": router.similarity_fn_name, "scoring": router.table.scoring, "choices": rows}


def _digits(score: float) -> float:
    """A score with the nine digits of a float32."""
    return float(f"{score:.9g}")
