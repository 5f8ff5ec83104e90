"""``minisbert route fit`` and ``minisbert route draw``: thresholds from labelled queries, and routes from a table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli.labelled import label_options, read_options
from minisbert.cli.options import ModelChoice, Verb, decorate, json_option, model_options
from minisbert.cli.outputs import Target
from minisbert.cli.route import VERBS, load_table, table_options
from minisbert.cli.table import align, printable, shorten

if TYPE_CHECKING:
    from minisbert.evaluation.measures import Estimate
    from minisbert.search.route_fitting import ThresholdFit
    from minisbert.search.route_report import RouteReport
    from minisbert.search.routes import RouteTable

ENDINGS = (".yaml", ".yml", ".json")
SHOWN = 10  # names listed


def queries_options(verb: Verb) -> Verb:
    """Add the options about labelled queries to a verb."""
    options = [
        click.option("--none-label", default="none", show_default=True, help="Label of out-of-scope queries."),
        click.option("--unknown-is-none", is_flag=True, help="Treat every label that is not a route as out-of-scope."),
    ]
    return decorate(label_options(verb), options)


def _output_options(verb: Verb) -> Verb:
    """Add an output file of routes to a verb."""
    options = [
        click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write a .yaml or .json."),
        click.option("--force", is_flag=True, help="Overwrite the file if it exists."),
    ]
    return decorate(verb, options)


def _check_output(output: Path | None, force: bool) -> None:
    """Raise for a file that cannot be written, before seconds of work."""
    if output is not None and output.suffix.lower() not in ENDINGS:
        raise click.UsageError(f"-o must end in {', '.join(ENDINGS)}, got {str(output)!r}.")
    Target(output, "routes", force).check()


# --------------------------------------------------------------------------------------------------------- fit


@click.command(short_help=VERBS["fit"][1])
@table_options
@click.argument(
    "queries", metavar="[QUERIES]", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@_output_options
@click.option(
    "--objective",
    type=click.Choice(["accuracy", "balanced", "precision"]),
    default="accuracy",
    show_default=True,
    help="Most correct queries; the same, with in-scope and out-of-scope weighted equally; or most routed queries at a "
    "minimum precision.",
)
@click.option("--precision", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True, metavar="P")
@click.option(
    "--per-route/--one",
    default=None,
    help="A threshold per route, or one for all.  [default: per route if better on held-out queries]",
)
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
    none_label: str,
    unknown_is_none: bool,
    column_names: str | None,
    no_header: bool,
    as_json: bool,
    choice: ModelChoice,
    **settings: Any,
) -> None:
    """Fit the thresholds of routes on labelled queries, and write the routes with their thresholds.

    QUERIES is a CSV, TSV or JSONL with a label and a text in each row: the name of a route, or `none` for out-of-scope
    queries. Without QUERIES the examples themselves are used, each left out of its route: once as an in-scope query,
    and once, with its whole route hidden, as an out-of-scope query. Thresholds fitted this way are rather high.

    Every possible threshold is tried. The "held out" figures come from cross-validation: each query is judged by
    thresholds fitted without it, and with --unknown-is-none also without the other queries of its label, because users
    will ask what nobody expected. Queries that are examples are left out. The file records the model and is refused
    with any other; comments of the old file are not kept.

    \b
    Examples:
      minisbert route fit routes.yaml queries.tsv -o fitted.yaml
      minisbert route fit routes.yaml queries.tsv --objective precision --precision 0.9
      minisbert route fit routes.yaml --one --json
    """
    from minisbert.evaluation.classification import read_labelled

    _check_output(output, force)
    table = replace(load_table(routes, None), origin=None, fitted=None)
    table = table if scoring is None else replace(table, scoring=scoring)
    asked = None if queries is None else read_labelled(queries, **read_options(column_names, no_header))
    from minisbert.search.route_fitting import fit_router
    from minisbert.search.router import Router

    router = Router(choice.encoder("float32"), table)
    fitted, found = fit_router(router, asked, none_label=none_label, unknown_is_none=unknown_is_none, **settings)
    if output is not None:
        fitted.save(output)
        click.echo(f"wrote {output}", err=True)
    if as_json:
        click.echo(json.dumps(_fit_to_json(found, fitted.table), ensure_ascii=False).encode())
    else:
        click.echo("\n".join(_fit_lines(found, fitted.table, routes)))


def _fit_lines(found: ThresholdFit, table: RouteTable, file: Path) -> list[str]:
    """Format the thresholds, and their scores on training and held-out queries."""
    own = sorted(found.own.values())
    threshold = f"{found.threshold:g}"
    if own:
        count = "1 route has its" if len(own) == 1 else f"{len(own)} routes have their"
        threshold += f"; {count} own, {own[0]:g} to {own[-1]:g}"
    rows = [("objective", found.objective + ("" if found.precision is None else f" of {found.precision:g}"))]
    rows += [("threshold", threshold)]
    lines = [f"{file}: {count_routes(table)}", counted(found.seen), "", *align(rows, indent="")]
    lines += ["", "x 100, held out (95 % interval)", *align(figures(found.held_out))]
    if found.gain_of_own is not None:
        gain, low, high = (f"{100 * number + 0.0:+.2f}" for number in found.gain_of_own)
        lines += ["", f"gain of a threshold per route over one for all, held out: {gain} ({low} to {high})"]
    seen = 100 * float(found.seen.correct.mean())
    return [*lines, "", f"On the queries they were fitted on, {seen:.2f} are correct, which is too optimistic."]


def count_routes(table: RouteTable) -> str:
    """The size of a table, in words."""
    routes, examples = len(table.routes), len(table.examples)
    return (
        f"{routes:,} route{'s' * (routes != 1)}, {examples:,} example{'s' * (examples != 1)}, "
        f"{'nearest example' if table.scoring == 'nearest' else 'centroid'}"
    )


def counted(report: RouteReport) -> str:
    """The number of queries, in words."""
    queries, none = len(report.decided), int((report.queries.expected < 0).sum())
    left_out = f"; {report.queries.left_out:,} more are examples and left out" if report.queries.left_out else ""
    return f"{queries:,} quer{'ies' if queries != 1 else 'y'}, {none:,} of them out-of-scope{left_out}"


def figures(report: RouteReport) -> list[tuple[str, str]]:
    """The figures of a report that are defined."""
    rows = [
        ("accuracy", report.accuracy()),
        ("  in-scope queries routed correctly", report.in_scope_accuracy()),
        ("  the same, if nothing were rejected", report.best_is_right()),
        ("  out-of-scope queries rejected", report.none_recall()),
        ("queries routed", report.answered()),
        ("  of those, correct", report.precision()),
        ("AUROC: in-scope over out-of-scope", report.auroc()),
    ]
    return [(name, percent(estimate)) for name, estimate in rows if estimate is not None]


def percent(estimate: Estimate) -> str:
    """An estimate and its interval, x 100."""
    mean, low, high = (f"{100 * number:.2f}" for number in estimate)
    return f"{mean} (no interval: too few queries)" if math.isnan(estimate.low) else f"{mean} ({low} to {high})"


def describe(report: RouteReport) -> dict[str, Any]:
    """A report as JSON: shares in [0, 1] as mean, low, high; null where undefined."""
    names = ("accuracy", "in_scope_accuracy", "best_is_right", "none_recall", "answered", "precision", "auroc")
    found = {name: getattr(report, name)() for name in names}
    return {
        "queries": len(report.decided),
        "of_none": int((report.queries.expected < 0).sum()),
        "left_out": report.queries.left_out,
        **{name: estimate and [*map(number_or_none, estimate)] for name, estimate in found.items()},
        "macro_f1": report.macro_f1(),
    }


def number_or_none(value: float) -> float | None:
    """JSON null for NaN."""
    return None if math.isnan(value) else value


def _fit_to_json(found: ThresholdFit, table: RouteTable) -> dict[str, Any]:
    """Everything as JSON."""
    return {
        "threshold": found.threshold,
        "own": found.own,
        "scoring": table.scoring,
        "fitted": dict(table.fitted or {}),
        "held_out": describe(found.held_out),
        "seen_accuracy": float(found.seen.correct.mean()),
        "gain_of_own": None if found.gain_of_own is None else list(found.gain_of_own),
    }


# -------------------------------------------------------------------------------------------------------- draw


@click.command(short_help=VERBS["draw"][1])
@click.argument("table", metavar="TABLE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_output_options
@click.option("--per-route", type=click.IntRange(1), metavar="COUNT", help="Examples per route.  [default: all]")
@click.option(
    "--hold-out",
    type=click.IntRange(0),
    default=0,
    metavar="COUNT",
    help="Random labels that get no route: their texts are out-of-scope.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed.")
@click.option("--scoring", type=click.Choice(["nearest", "centroid"]), default="nearest", show_default=True)
@click.option("--none-label", default="none", show_default=True, help="Label of texts that form no route.")
@label_options
def draw(
    table: Path,
    output: Path | None,
    force: bool,
    per_route: int | None,
    hold_out: int,
    seed: int,
    scoring: str,
    none_label: str,
    column_names: str | None,
    no_header: bool,
) -> None:
    """Create a file of routes from a labelled table: a route per label, with some of its texts as examples.

    With --hold-out some labels get no route, to test how well a router rejects out-of-scope queries: run `route fit`
    and `route evaluate` on all texts with --unknown-is-none.

    \b
    Examples:
      minisbert route draw train.tsv --per-route 4 -o drawn.yaml
      minisbert route draw train.tsv --per-route 4 --hold-out 1 --scoring centroid
    """
    from minisbert.evaluation.classification import read_labelled

    _check_output(output, force)
    labelled = read_labelled(table, **read_options(column_names, no_header))
    from minisbert.search.route_files import dump_routes, write_routes
    from minisbert.search.routes import draw_routes

    drawn = replace(
        draw_routes(labelled, per_route, hold_out=hold_out, seed=seed, none_label=none_label), scoring=scoring
    )
    if output is None:
        click.echo(dump_routes(drawn).encode(), nl=False)
    else:
        write_routes(drawn, output)
        click.echo(f"wrote {output}: {count_routes(drawn)}", err=True)
    if hold_out:
        click.echo(f"held out: {_list_names(sorted(set(labelled.labels) - {none_label, *drawn.names}))}", err=True)


def _list_names(names: Sequence[str]) -> str:
    """A few names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(shorten(printable(name), 40) for name in names[:SHOWN]) + more
