"""``minisbert route``: send queries to routes, fit thresholds, and evaluate how well both work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli import LazyGroup
from minisbert.cli.inputs import TextSource, input_options, label_options, read_options
from minisbert.cli.options import ModelChoice, Verb, decorate, json_option, model_options
from minisbert.cli.outputs import Target, echo_json
from minisbert.cli.table import align, grid, printable, shorten, terminal_width

if TYPE_CHECKING:
    from minisbert.evaluation.measures import Estimate
    from minisbert.search.router import RouteChoice, RouteReport
    from minisbert.search.routes import RouteTable

VERBS = {
    "ask": ("route", "Route queries, or reject them as out-of-scope."),
    "fit": ("route", "Fit thresholds on labelled queries, or on the examples alone."),
    "evaluate": ("route", "Evaluate routes on labelled queries."),
}
NAME_WIDTH, TEXT_WIDTH = 32, 60  # columns of a route's name and of a text, at most


@click.group(cls=LazyGroup, verbs=VERBS, short_help="Route queries by meaning, or reject them as out-of-scope.")
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


def table_options(verb: Verb) -> Verb:
    """Add ROUTES and the option that overrides its scoring to a verb."""
    options = [
        click.argument("routes", metavar="ROUTES", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.option("--scoring", type=click.Choice(["nearest", "centroid"]), help="Override the file's scoring."),
    ]
    return decorate(verb, options)


def queries_options(verb: Verb) -> Verb:
    """Add the options about labelled queries to a verb."""
    options = [
        click.option("--none-label", default="none", show_default=True, help="Label of out-of-scope queries."),
        click.option("--unknown-is-none", is_flag=True, help="Treat every label that is not a route as out-of-scope."),
    ]
    return decorate(label_options(verb), options)


threshold_option = click.option(
    "--threshold", type=float, metavar="SCORE", help="Threshold for all routes; overrides the file's."
)


def _load(file: Path, scoring: str | None, threshold: float | None, keep: bool = True) -> RouteTable:
    """Read routes, before seconds of work, and override them by the options given; ``keep`` the file's thresholds."""
    from minisbert.search.routes import read_routes

    table = read_routes(file)
    if threshold is not None or not keep:
        routes = [replace(one, threshold=None) for one in table.routes]
        table = replace(table, routes=routes, threshold=threshold, origin=None, fitted=None, file="")
    elif table.fitted is not None and scoring not in (None, table.scoring):
        raise click.UsageError(
            f"The thresholds of {file} were fitted for the scoring {table.scoring!r}; fit them again "
            f"(minisbert route fit --scoring {scoring}), or give a --threshold."
        )
    return replace(table, scoring=scoring or table.scoring)


# --------------------------------------------------------------------------------------------------------- ask


@click.command(short_help=VERBS["ask"][1])
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
    """Find the route of each text, or none; a text without any word has none.

    \b
    Examples:
      minisbert route ask routes.yaml "where is my money" "what is the weather like"
      minisbert route ask routes.yaml -i texts.txt --json
      minisbert route ask routes.yaml "are you open today" --all
    """
    if source.file is None and not source.arguments:
        raise click.UsageError("Nothing to route: give texts, or a file of texts (-i).")
    source.check()
    table = _load(routes, scoring, threshold)
    texts = list(source.read())
    from minisbert.search.router import Router

    router = Router(choice.encoder("float32"), table)
    choices = router.route_all(texts)
    if as_json:
        rows = [{k: v for k, v in vars(one).items() if show_all or k != "scores"} for one in choices]
        echo_json({"similarity_fn_name": router.similarity_fn_name, "scoring": table.scoring, "choices": rows})
        return
    rest = terminal_width() - max(len(_name(one)) for one in choices) - 24
    heads = ("route", "score", "needs", "query", "most similar example")
    lines = grid([heads, *(_row(one, rest) for one in choices)], "<")
    if any(one.route is None for one in choices):
        lines += ["", "none (x): out-of-scope; x is the closest route"]
    for one in choices if show_all else ():
        scores = [(_cut(name, NAME_WIDTH), f"{score:7.4f}") for name, score in one.scores.items()]
        lines += ["", _cut(one.query, TEXT_WIDTH), *align(scores)]
    click.echo("\n".join(lines))


def _row(one: RouteChoice, rest: int) -> tuple[str, ...]:
    """A line of the table; query and example share the rest of it."""
    needs = "any" if one.threshold is None else f"{one.threshold:.4g}"
    room = max(16, rest // 2)
    return _name(one), f"{one.score:.4f}", needs, _cut(one.query, room), _cut(one.example, room)


def _name(one: RouteChoice) -> str:
    """The route, or the one that came closest."""
    best = _cut(one.best, NAME_WIDTH)
    return best if one.route is not None else f"none ({best})"


def _cut(text: str | None, room: int) -> str:
    """A text or name as it is printed."""
    return "none (out-of-scope)" if text is None else shorten(printable(text[: 4 * room]), room) or "(empty)"


# --------------------------------------------------------------------------------------------------------- fit


@click.command(short_help=VERBS["fit"][1])
@table_options
@click.argument(
    "queries", metavar="[QUERIES]", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write a .yaml or .json.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@click.option(
    "--objective",
    type=click.Choice(["accuracy", "balanced", "precision"]),
    default="accuracy",
    show_default=True,
    help="Most correct queries; the same, with in-scope and out-of-scope weighted equally; or most routed queries at a "
    "minimum precision.",
)
@click.option("--precision", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True, metavar="P")
@click.option("--per-route", is_flag=True, help="A threshold for each route where it is better than the common one.")
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="Cross-validation folds.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed of the folds.")
@queries_options
@json_option
@model_options
def fit(
    routes: Path,
    scoring: str | None,
    queries: Path | None,
    output: Path | None,
    force: bool,
    column_names: str | None,
    no_header: bool,
    as_json: bool,
    choice: ModelChoice,
    **settings: Any,
) -> None:
    """Fit the thresholds of routes on labelled queries, and write the routes with their thresholds.

    QUERIES is a table with a label and a text in each row: the name of a route, or `none` for out-of-scope queries.
    Without QUERIES the examples themselves are used, each left out of its route: once as an in-scope query, and once,
    with its whole route hidden, as an out-of-scope query. Thresholds fitted this way are rather high.

    Every possible threshold is tried. The "held out" figures come from cross-validation: each query is judged by
    thresholds fitted without it, and with --unknown-is-none also without the other queries of its label, because users
    will ask what nobody expected. Queries that are examples are left out. The file records the model and is refused
    with any other; comments of the old file are not kept.

    \b
    Examples:
      minisbert route fit routes.yaml queries.tsv -o fitted.yaml
      minisbert route fit routes.yaml queries.tsv --objective precision --precision 0.9
      minisbert route fit routes.yaml --json
    """
    if output is not None and output.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise click.UsageError(f"-o must end in .yaml, .yml or .json, got {str(output)!r}.")
    Target(output, "routes", force).check()
    from minisbert.evaluation.classification import read_labelled

    table = _load(routes, scoring, None, keep=False)
    asked = None if queries is None else read_labelled(queries, **read_options(column_names, no_header))
    from minisbert.search.router import Router, fit_thresholds
    from minisbert.search.routes import write_routes

    fitted, found = fit_thresholds(Router(choice.encoder("float32"), table), asked, **settings)
    if output is not None:
        write_routes(fitted.table, output)
        click.echo(f"wrote {output}", err=True)
    if as_json:
        held_out = {key: value for key, value in vars(found.held_out).items() if key != "results"}
        echo_json({**vars(found), "held_out": held_out, "fitted": fitted.table.fitted})
        return
    own = [(f"  {_cut(name, NAME_WIDTH)}", f"{threshold:g}") for name, threshold in found.own.items()]
    lines = [*_head(routes, table, found.held_out), "", *align([("threshold", f"{found.threshold:g}"), *own[:10]], "")]
    lines += [f"  and {len(own) - 10} more (--json)"] if len(own) > 10 else []
    lines += ["", "x 100, held out (95 % interval)", *_figures(found.held_out)]
    seen = f"{100 * found.seen_accuracy:.2f}"
    click.echo(
        "\n".join([*lines, "", f"On the queries they were fitted on, {seen} are correct, which is too optimistic."])
    )


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
        ("AUROC: in-scope over out-of-scope", report.auroc),
        ("macro-F1", report.labels.macro_f1),
    ]
    return align([(name, _percent(figure)) for name, figure in rows if figure.mean == figure.mean])


def _percent(figure: Estimate) -> str:
    """A figure and its interval, x 100."""
    mean, low, high = (f"{100 * number:.2f}" for number in figure)
    return f"{mean} ({low} to {high})" if low != "nan" else f"{mean} (no interval: too few queries)"


# ---------------------------------------------------------------------------------------------------- evaluate


@click.command(short_help=VERBS["evaluate"][1])
@table_options
@click.argument("queries", metavar="QUERIES", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@threshold_option
@click.option("--show", type=click.IntRange(0), default=10, show_default=True, help="Routes and confusions listed.")
@click.option(
    "--mistakes", type=click.IntRange(0), default=0, metavar="COUNT", help="List mistakes, highest score first."
)
@queries_options
@json_option
@model_options
def evaluate(
    routes: Path,
    scoring: str | None,
    queries: Path,
    threshold: float | None,
    show: int,
    mistakes: int,
    column_names: str | None,
    no_header: bool,
    as_json: bool,
    choice: ModelChoice,
    **labels: Any,
) -> None:
    """Evaluate how well labelled queries are routed, and out-of-scope queries rejected.

    QUERIES is a table with a label and a text in each row: the name of a route, or `none` for out-of-scope queries.
    Queries that are examples of a route are left out. Use other queries than those the thresholds were fitted on.

    \b
    Examples:
      minisbert route evaluate routes.yaml queries.tsv
      minisbert route evaluate routes.yaml queries.tsv --threshold 0.5 --mistakes 20
      minisbert route evaluate routes.yaml queries.tsv --scoring centroid --json
    """
    from minisbert.evaluation.classification import read_labelled
    from minisbert.evaluation.measures import confusions

    table = _load(routes, scoring, threshold)
    asked = read_labelled(queries, **read_options(column_names, no_header))
    from minisbert.search.router import Router, evaluate_routes

    report = evaluate_routes(Router(choice.encoder("float32"), table), asked, **labels)
    if as_json:
        echo_json(report)
        return
    lines = [*_head(routes, table, report), "", "x 100 (95 % interval)", *_figures(report)]
    worst = sorted(
        report.labels.classes.items(), key=lambda item: (item[1].f1.mean != item[1].f1.mean, item[1].f1.mean)
    )
    rows = [["lowest F1 first", "queries", "routed", "precision", "recall", "F1"]]
    for name, score in worst[:show]:
        shares = (
            f"{100 * figure.mean:.1f}".replace("nan", "-") for figure in (score.precision, score.recall, score.f1)
        )
        rows.append([_cut(name, NAME_WIDTH), f"{score.texts:,}", f"{score.predicted:,}", *shares])
    lines += ["", *grid(rows, "<")] * bool(show)
    confused = confusions(report.labels.confusion, list(report.labels.classes))
    if confused[:show]:
        lines += ["", "most frequent confusions: expected -> routed to"]
        lines += align([(f"{count:,}", f"{a} -> {b}") for count, a, b in confused[:show]])
    wrong = sorted((one for one in report.results if one.route != one.expected), key=lambda one: -one.score)
    if wrong[:mistakes]:
        lines += ["", "mistakes, highest score first"]
    for one in wrong[:mistakes]:
        lines += [f"  {one.score:7.4f}  {_cut(one.expected, NAME_WIDTH)} -> {_cut(one.route, NAME_WIDTH)}"]
        lines += [f"           {_cut(one.query, TEXT_WIDTH)}"]
    click.echo("\n".join(lines))
