"""``minisbert route evaluate``: how well labelled queries find their routes, and out-of-scope ones are rejected."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli.labelled import read_options
from minisbert.cli.options import ModelChoice, json_option, model_options
from minisbert.cli.retrieval_output import columns
from minisbert.cli.route import VERBS, load_table, table_options, threshold_option
from minisbert.cli.route_fit import (
    count_routes,
    counted,
    describe,
    figures,
    number_or_none,
    queries_options,
)
from minisbert.cli.table import align, printable, shorten

if TYPE_CHECKING:
    from minisbert.search.route_report import RouteReport, RouteScore

NAME_WIDTH, TEXT_WIDTH = 40, 60  # columns of a route's name and of a text, at most


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
    none_label: str,
    unknown_is_none: bool,
    column_names: str | None,
    no_header: bool,
    as_json: bool,
    choice: ModelChoice,
) -> None:
    """Evaluate how well labelled queries are routed, and out-of-scope queries rejected.

    QUERIES is a CSV, TSV or JSONL with a label and a text in each row: the name of a route, or `none` for out-of-scope
    queries. Queries that are examples of a route are left out. Use other queries than those the thresholds were fitted
    on.

    Shows all figures with their intervals, the worst routes, and the most frequent confusions.

    \b
    Examples:
      minisbert route evaluate routes.yaml queries.tsv
      minisbert route evaluate routes.yaml queries.tsv --threshold 0.5 --mistakes 20
      minisbert route evaluate routes.yaml queries.tsv --scoring centroid --json
    """
    from minisbert.evaluation.classification import read_labelled

    table = load_table(routes, scoring, threshold)
    asked = read_labelled(queries, **read_options(column_names, no_header))
    from minisbert.search.route_report import report, score_queries
    from minisbert.search.router import Router

    router = Router(choice.encoder("float32"), table)
    scored = score_queries(router, asked, none_label=none_label, unknown_is_none=unknown_is_none)
    found = report(scored, router.thresholds)
    if as_json:
        click.echo(json.dumps(_to_json(found), ensure_ascii=False).encode())
        return
    lines = [f"{routes}: {count_routes(table)}", f"{queries}: {counted(found)}", ""]
    lines += ["x 100 (95 % interval)", *align([*figures(found), ("macro-F1", f"{100 * found.macro_f1():.2f}")])]
    lines += _route_lines(found, show) + _confusion_lines(found, show) + _mistake_lines(found, mistakes)
    click.echo("\n".join(lines))


def _name(name: str | None) -> str:
    """A route's printed name."""
    return "none (out-of-scope)" if name is None else shorten(printable(name), NAME_WIDTH)


def _share(value: float) -> str:
    """Write a share, x 100, or a dash."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _route_lines(found: RouteReport, show: int) -> list[str]:
    """List the routes with the lowest scores, and none of these."""
    *scores, none = found.by_route()

    def badness(score: RouteScore) -> tuple[bool, float]:
        return math.isnan(score.f1), score.f1

    worst = sorted(scores, key=badness)[:show]
    if not worst:
        return []
    rows = [["lowest F1 first", "queries", "routed", "precision", "recall", "F1"]]
    rows += [
        [_name(one.name), f"{one.queries:,}", f"{one.routed:,}", *map(_share, (one.precision, one.recall, one.f1))]
        for one in worst + [none] * bool(none.queries or none.routed)
    ]
    more = [f"and {len(scores) - show} more routes (--show)"] if len(scores) > show else []
    return ["", *columns(rows), *more]


def _confusion_lines(found: RouteReport, show: int) -> list[str]:
    """List the most frequent confusions."""
    confusions = found.confusions()
    if not confusions or not show:
        return []
    rows = [(f"{count:,}", f"{_name(expected)} -> {_name(decided)}") for expected, decided, count in confusions[:show]]
    more = [f"  and {len(confusions) - show} more (--show)"] if len(confusions) > show else []
    return ["", "most frequent confusions: expected -> routed to", *align(rows), *more]


def _mistake_lines(found: RouteReport, mistakes: int) -> list[str]:
    """List misrouted queries, the most confident first."""
    wrong = [row for row in _rows(found) if row["route"] != row["expected"]]
    wrong.sort(key=lambda row: -row["score"])
    if not mistakes or not wrong:
        return []
    lines = ["", "mistakes, highest score first"]
    for row in wrong[:mistakes]:
        lines.append(f"  {row['score']:7.4f}  {_name(row['expected'])} -> {_name(row['route'])}")
        lines.append(f"           {shorten(printable(row['query']), TEXT_WIDTH) or '(empty)'}")
    return lines


def _rows(found: RouteReport) -> list[dict[str, Any]]:
    """Each query: its true route, the chosen one, its best route and score."""
    names = (*found.queries.names, None)
    numbers = (found.queries.expected, found.decided, found.queries.best, found.queries.top)
    return [
        {"query": text, "expected": names[expected], "route": names[decided], "best": names[best], "score": score}
        for text, expected, decided, best, score in zip(
            found.queries.texts, *(array.tolist() for array in numbers), strict=True
        )
    ]


def _to_json(found: RouteReport) -> dict[str, Any]:
    """Everything as JSON."""
    scores = [
        {key: number_or_none(value) if isinstance(value, float) else value for key, value in one._asdict().items()}
        for one in found.by_route()
    ]
    confusions = [
        {"expected": expected, "route": decided, "count": count} for expected, decided, count in found.confusions()
    ]
    return {**describe(found), "routes": scores, "confusions": confusions, "results": _rows(found)}
