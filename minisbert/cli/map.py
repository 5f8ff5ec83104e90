"""``minisbert map``: texts on a 2-D map, as a picture or a web page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli.cluster import (
    METHODS,
    Collection,
    CollectionSource,
    collection_options,
    describe,
    grouping_options,
    name_groups,
)
from minisbert.cli.options import TEXT, ModelChoice, computing_options, json_option, model_options
from minisbert.cli.outputs import Target, written_whole

if TYPE_CHECKING:
    from minisbert.analysis.maps import Projection
    from minisbert.analysis.naming import Groups
    from minisbert.model import Array

KINDS = {".png": "png", ".html": "html", ".htm": "html"}
FEW = 10  # distinct texts; up to this many are not clustered unless asked for


@click.command(short_help="Draw texts on a 2-D map; nearby points have similar meaning.")
@collection_options
@click.option("-o", "--output", metavar="FILE.png|FILE.html", required=True, help="A plot, or an interactive page.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@click.option(
    "--method",
    type=click.Choice(["pca", "tsne", "umap"]),
    default="pca",
    show_default=True,
    help="Projection to the plane; umap needs umap-learn.",
)
@click.option(
    "--perplexity", type=click.FloatRange(min=1), help="tsne: approximate number of neighbours per text.  [default: 30]"
)
@click.option(
    "--clusters",
    type=click.Choice([*METHODS, "none"]),
    help="What the colours show.  [default: the labels if --label is given, else kmeans]",
)
@grouping_options
@click.option("--title", metavar="TEXT", type=TEXT, help="[default: the file's name]")
@json_option
@computing_options
@model_options
def map(  # a verb's module has one function of its name
    source: CollectionSource,
    output: str,
    force: bool,
    method: str,
    perplexity: float | None,
    clusters: str | None,
    stop_words: str,
    title: str | None,
    as_json: bool,
    choice: ModelChoice,
    dtype: str,
    **options: Any,
) -> None:
    """Draw texts on a 2-D map; nearby points have similar meaning, as far as a plane allows.

    A .png is a plot; a .html is a single file for the browser: hover over a text to read it, zoom, search, click a name
    to see its group alone. Colours show the labels (--label), or clusters labelled by their words; up to 10 texts are
    not clustered unless --clusters is given.

    pca is the plane with the most variance, the same every time. tsne keeps neighbours together, but distances between
    groups are meaningless. Each map reports how trustworthy its neighbourhoods are.
    Needs scikit-learn and matplotlib: pip install -e '.[apps]'

    \b
    Examples:
      minisbert map texts.txt -o map.png
      minisbert map questions.tsv --label label -o map.html
      minisbert map questions.tsv --method tsne --clusters kmeans --k 2 -o map.html
    """
    target = _choose_target(output, force)
    from minisbert.analysis.clusters import check_settings
    from minisbert.analysis.maps import check_method, project

    check_settings(clusters if clusters in METHODS else "kmeans", options["k"], options["distance"])
    collection = source.read()
    check_method(method, perplexity, len(collection.texts))
    settings = {name: options.pop(name) for name in ("k", "distance", "threshold", "min_community_size", "seed")}
    vectors = source.embed(choice, dtype, collection, **options)
    projection = project(vectors, method, seed=settings["seed"], perplexity=perplexity)
    groups, typical, words = _group(collection, vectors, clusters, settings, stop_words)
    _write(target, projection, collection.texts, groups, typical, title or collection.name, words)
    if as_json:
        click.echo(json.dumps(_to_json(collection, projection, groups), ensure_ascii=False).encode())
    else:
        click.echo("\n".join([words, projection.describe()]))


def _choose_target(output: str, force: bool) -> Target:
    """Raise early if the map cannot be drawn or written."""
    kind = KINDS.get(Path(output).suffix.lower())
    if kind is None:
        raise click.UsageError(f"{output!r} must end in .png, for a plot, or .html, for a page.")
    from minisbert.analysis.maps import require_sklearn

    require_sklearn("a map")
    if kind == "png":
        from minisbert.plots import require_matplotlib

        require_matplotlib()
    target = Target(Path(output), kind, force)
    target.check()
    return target


def _group(
    collection: Collection, vectors: Array, clusters: str | None, settings: dict[str, Any], stop_words: str
) -> tuple[Groups | None, list[int], str]:
    """What colours show, typical texts of each group, and a description."""
    from minisbert.analysis.clusters import cluster
    from minisbert.analysis.naming import Groups

    count = len(collection.texts)
    counted = f"{count:,} text{'' if count == 1 else 's'}"
    if collection.labels is not None and clusters is None:
        groups = Groups.of_labels(collection.labels)
        said = f"{counted}, {len(groups.names):,} label{'' if len(groups.names) == 1 else 's'}"
    elif clusters == "none" or (clusters is None and len(set(collection.texts)) <= FEW):
        return None, [], counted
    else:
        found = cluster(vectors, clusters or "kmeans", **settings)
        names = name_groups(collection.texts, vectors, found.ids, 5, 1, stop_words)
        groups = Groups(found.ids, [name.title for name in names], "cluster")
        return groups, [name.typical[0] for name in names], describe(found, count)
    from minisbert.analysis.maps import unit_rows
    from minisbert.analysis.naming import typical_texts

    nearest = typical_texts(collection.texts, unit_rows("map", vectors), groups.ids, 1)
    return groups, [rows[0] for rows in nearest], said


def _write(
    target: Target,
    projection: Projection,
    texts: list[str],
    groups: Groups | None,
    typical: Sequence[int],
    title: str,
    caption: str,
) -> None:
    """Write the plot or the page."""
    from minisbert.analysis.map_page import write_map_page
    from minisbert.analysis.map_picture import draw_map

    write = draw_map if target.kind == "png" else write_map_page
    if target.file is not None:
        with written_whole(target.file) as stream:
            write(stream, projection, texts, groups, typical=typical, title=title, caption=caption)
        click.echo(f"wrote {target.file}", err=True)


def _to_json(collection: Collection, projection: Projection, groups: Groups | None) -> dict[str, Any]:
    """Every point as JSON."""
    names: list[str | None] = [None] * len(collection.texts)
    if groups is not None:
        names = [groups.names[own] if own >= 0 else None for own in groups.ids.tolist()]
    places = projection.points.tolist()
    return {
        "method": projection.method,
        "explained": projection.explained,
        "trustworthiness": projection.trustworthiness,
        "neighbours": projection.neighbours,
        "measured_on": projection.measured,
        "perplexity": projection.perplexity,
        "colours": None if groups is None else groups.kind,
        "points": [
            {"text": text, "x": float(f"{x:.7g}"), "y": float(f"{y:.7g}"), "group": name}
            for text, (x, y), name in zip(collection.texts, places, names, strict=True)
        ],
    }
