"""``minisbert route``: send queries to routes, fit thresholds, and evaluate how well both work."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from minisbert.cli import Group, options
from minisbert.cli.options import ModelChoice, TextSource, input_options, label_options
from minisbert.cli.outputs import Target, give, output_options
from minisbert.cli.table import NAME_WIDTH, align, class_lines, estimated, grid_with_texts, hundred, printable
from minisbert.evaluation.classification import LabelledTexts, read_labelled
from minisbert.search.router import Router, RouteReport, evaluate_routes, fit_thresholds
from minisbert.search.routes import RouteTable, read_routes, write_routes


@click.group(cls=Group)
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
    or JSONL works too: each label is a route.

    \b
    Examples:
      minisbert route ask routes.yaml "where is my money" "what is the weather like"
      minisbert route fit routes.yaml queries.tsv -o fitted.yaml
      minisbert route evaluate routes.yaml queries.tsv

    `minisbert route COMMAND --help` describes a command and shows more examples.
    """


threshold_option = click.option("--threshold", type=float, help="Threshold for all routes; overrides the file's.")


def table_options(verb: options.Verb) -> options.Verb:
    """Add ROUTES and --scoring to a verb, which receives the ``table`` as they and its --threshold say.

    A verb without --threshold makes its own, and gets the table without any.
    """

    @click.argument("routes", metavar="ROUTES", type=options.FILE)
    @click.option("--scoring", type=click.Choice(["nearest", "centroid"]), help="Override the file's scoring.")
    @functools.wraps(verb)
    def gathered(routes: Path, scoring: str | None, **rest: Any) -> None:
        table = read_routes(routes)  # before seconds of work
        makes_its_own, threshold = "threshold" not in rest, rest.pop("threshold", None)
        if makes_its_own or threshold is not None:
            own = [replace(one, threshold=None) for one in table.routes]
            table = replace(table, routes=own, threshold=threshold, origin=None, fitted=None, file="")
        elif table.fitted is not None and scoring not in (None, table.scoring):
            raise click.UsageError(
                f"The thresholds of {routes} were fitted for the scoring {table.scoring!r}; fit them again "
                f"(minisbert route fit --scoring {scoring}), or give a --threshold."
            )
        verb(routes=routes, table=replace(table, scoring=scoring or table.scoring), **rest)

    return gathered


def queries_options(verb: options.Verb) -> options.Verb:
    """Add QUERIES and the options about their labels to a verb, which receives them as ``asked``."""

    @click.argument("queries", metavar="QUERIES", type=options.FILE)
    @label_options
    @click.option("--none-label", default="none", help="Label of out-of-scope queries.")
    @click.option("--unknown-is-none", is_flag=True, help="Treat every label that is not a route as out-of-scope.")
    @functools.wraps(verb)
    def gathered(queries: Path, reading: dict[str, Any], **rest: Any) -> None:
        verb(asked=read_labelled(queries, **reading), **rest)

    return gathered


def _name(route: str | None) -> str:
    return "none (out-of-scope)" if route is None else printable(route, NAME_WIDTH)


# --------------------------------------------------------------------------------------------------------- ask


@route.command(short_help="Route queries, or reject them as out-of-scope.")
@table_options
@input_options
@threshold_option
@options.json_option
@options.model_options
def ask(table: RouteTable, source: TextSource, as_json: bool, choice: ModelChoice, **_: Any) -> None:
    """Find the route of each text, or none; a text without any word has none. --json has the scores of all routes.

    \b
    Examples:
      minisbert route ask routes.yaml "where is my money" "what is the weather like"
      minisbert route ask routes.yaml -i texts.txt --json
      minisbert route ask routes.yaml "are you open today" --threshold 0.5
    """
    texts = source.read("route")
    router = Router(choice.encoder(), table)
    choices = router.route_all(texts)
    cells = [("route", "score", "needs")]
    for one in choices:
        name = _name(one.best) if one.route is not None else f"none ({_name(one.best)})"
        cells.append((name, f"{one.score:.4f}", "any" if one.threshold is None else f"{one.threshold:.4g}"))
    queries = ["query", *(one.query for one in choices)]
    lines = grid_with_texts(cells, queries, ["most similar example", *(one.example for one in choices)])
    if any(one.route is None for one in choices):
        lines += ["", "none (x): out-of-scope; x is the closest route"]
    about = {"similarity_fn_name": router.similarity_fn_name, "scoring": table.scoring}
    give(as_json, lines, {**about, "choices": choices})


# --------------------------------------------------------------------------------------------------------- fit


@route.command(short_help="Fit thresholds on labelled queries.")
@table_options
@output_options("Write a .yaml or .json.", "yaml", "json")
@options.choice_option("--objective", ["accuracy", "balanced", "precision"], "What thresholds are fitted for.")
@click.option("--precision", type=options.PRECISION, default=0.95, metavar="P")
@click.option("--per-route", is_flag=True, help="A threshold for each route where it is better than the common one.")
@options.folds_option(5)
@options.seed_option
@queries_options
@options.model_options
def fit(
    routes: Path, table: RouteTable, asked: LabelledTexts, target: Target, choice: ModelChoice, **settings: Any
) -> None:
    """Fit the thresholds of routes on labelled queries, and write the routes with their thresholds.

    QUERIES is a table with a label and a text in each row: the name of a route, or `none` for out-of-scope queries.

    Every possible threshold is tried. The --objective is most correct queries (accuracy), the same with in-scope and
    out-of-scope weighted equally (balanced), or most routed queries at a minimum --precision. The "held out" figures
    come from cross-validation: each query is judged by thresholds fitted without it, and with --unknown-is-none also
    without the other queries of its label, because users will ask what nobody expected. Queries that are examples are
    left out. The file records the model and is refused with any other; comments of the old file are not kept.

    \b
    Examples:
      minisbert route fit routes.yaml queries.tsv -o fitted.yaml
      minisbert route fit routes.yaml queries.tsv --objective precision --precision 0.9
      minisbert route fit routes.yaml queries.tsv --json
    """
    fitted, found = fit_thresholds(Router(choice.encoder(), table), asked, **settings)
    if target.file is not None:
        write_routes(fitted.table, target.file)
        click.echo(f"wrote {target.file}", err=True)
    own = [(f"  {_name(name)}", f"{threshold:g}") for name, threshold in found.own.items()]
    lines = [*_head(routes, table, found.held_out), "", *align([("threshold", f"{found.threshold:g}"), *own[:10]], "")]
    lines += [f"  and {len(own) - 10} more (--json)"] if len(own) > 10 else []
    lines += ["", "x 100, held out (95 % interval)", *_figures(found.held_out), ""]
    lines.append(
        f"On the queries they were fitted on, {hundred(found.seen_accuracy)} are correct, which is too optimistic."
    )
    held_out = {key: value for key, value in vars(found.held_out).items() if key != "results"}
    target.give(lines, {**vars(found), "held_out": held_out, "fitted": fitted.table.fitted})


def _head(file: Path, table: RouteTable, report: RouteReport) -> list[str]:
    """What was asked."""
    scoring = "nearest example" if table.scoring == "nearest" else "centroid"
    left_out = f"; {report.left_out:,} more are examples and left out" if report.left_out else ""
    return [
        f"{file}: {len(table.routes):,} routes, {len(table.examples):,} examples, {scoring}",
        f"{report.queries:,} queries, {report.out_of_scope:,} of them out-of-scope{left_out}",
    ]


def _figures(report: RouteReport) -> list[str]:
    """The figures of a report that are defined."""
    rows = [
        ("accuracy", report.labels.accuracy),
        ("  in-scope queries routed correctly", report.in_scope_accuracy),
        ("  the same, if nothing were rejected", report.best_is_right),
        ("  out-of-scope queries rejected", report.none_recall),
        ("queries routed", report.answered),
        ("  of those, correct", report.precision),
        ("macro-F1", report.labels.macro_f1),
    ]
    return align([(name, estimated(figure)) for name, figure in rows if figure.mean == figure.mean])


# ---------------------------------------------------------------------------------------------------- evaluate


@route.command(short_help="Evaluate routes on labelled queries.")
@table_options
@threshold_option
@queries_options
@options.json_option
@options.model_options
def evaluate(
    routes: Path, table: RouteTable, asked: LabelledTexts, as_json: bool, choice: ModelChoice, **labels: Any
) -> None:
    """Evaluate how well labelled queries are routed, and out-of-scope queries rejected.

    QUERIES is a table with a label and a text in each row: the name of a route, or `none` for out-of-scope queries.
    Queries that are examples of a route are left out. Use other queries than those the thresholds were fitted on.
    --json has every query with its route and score.

    \b
    Examples:
      minisbert route evaluate routes.yaml queries.tsv
      minisbert route evaluate routes.yaml queries.tsv --threshold 0.5
      minisbert route evaluate routes.yaml queries.tsv --scoring centroid --json
    """
    report = evaluate_routes(Router(choice.encoder(), table), asked, **labels)
    lines = [*_head(routes, table, report), "", "x 100 (95 % interval)", *_figures(report), ""]
    give(as_json, [*lines, *class_lines(report.labels)], report)
