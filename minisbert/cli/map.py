"""``minisbert map``: texts on a 2-D map, as a picture or a web page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from minisbert.checks import require
from minisbert.cli.cluster import METHODS, CollectionSource, collection_options, describe, grouping_options
from minisbert.cli.options import TEXT, ModelChoice, computing_options, json_option, model_options
from minisbert.cli.outputs import Target, echo_json
from minisbert.files import written_whole

FEW = 10  # distinct texts; up to this many are not clustered unless asked for


@click.command(
    short_help="Draw texts on a 2-D map; nearby points have similar meaning.", context_settings={"show_default": True}
)
@collection_options
@click.option("-o", "--output", metavar="FILE.png|FILE.html", required=True, help="A plot, or an interactive page.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@click.option(
    "--method",
    type=click.Choice(["pca", "tsne", "umap"]),
    default="pca",
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
    settings: dict[str, Any],
    stop_words: str | None,
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
    kind = {".png": "png", ".html": "html", ".htm": "html"}.get(Path(output).suffix.lower())
    if kind is None:
        raise click.UsageError(f"{output!r} must end in .png, for a plot, or .html, for a page.")
    file = Path(output)
    Target(file, kind, force).check()
    require("sklearn", "apps", "a map")
    if kind == "png":
        require("matplotlib", "apps", "a plot")
    from minisbert.analysis import cluster, draw_map, name_clusters, project, write_map_page
    from minisbert.analysis.clusters import check_settings
    from minisbert.analysis.maps import check_method
    from minisbert.analysis.naming import Groups

    check_settings(clusters if clusters in METHODS else "kmeans", settings["k"], settings["distance"])
    collection = source.read()
    texts, labels = collection.texts, collection.labels
    check_method(method, perplexity, len(texts))
    vectors = source.embed(choice, dtype, collection, **options)
    projection = project(vectors, method, seed=settings["seed"], perplexity=perplexity)

    said = f"{len(texts):,} text{'' if len(texts) == 1 else 's'}"
    groups, typical = None, []
    if labels is not None and clusters is None:
        groups = Groups.of_labels(labels)
        said += f", {len(groups.names):,} label{'' if len(groups.names) == 1 else 's'}"
        typical = [name.typical[0] for name in name_clusters(texts, vectors, groups.ids, typical=1)]
    elif clusters != "none" and (clusters is not None or len(set(texts)) > FEW):
        found = cluster(vectors, clusters or "kmeans", **settings)
        names = name_clusters(texts, vectors, found.ids, typical=1, stop_words=stop_words)
        groups = Groups(found.ids, [name.title for name in names], "cluster")
        typical, said = [name.typical[0] for name in names], describe(found, len(texts))
    write = draw_map if kind == "png" else write_map_page
    with written_whole(file) as stream:
        write(stream, projection, texts, groups, typical=typical, title=title or collection.name, caption=said)
    click.echo(f"wrote {file}", err=True)
    if not as_json:
        click.echo(f"{said}\n{projection.describe()}")
        return
    own = [None] * len(texts) if groups is None else [groups.names[i] if i >= 0 else None for i in groups.ids.tolist()]
    echo_json(
        {
            "method": projection.method,
            "explained": projection.explained,
            "trustworthiness": projection.trustworthiness,
            "neighbours": projection.neighbours,
            "measured_on": projection.measured,
            "perplexity": projection.perplexity,
            "colours": None if groups is None else groups.kind,
            "points": [
                {"text": text, "x": float(f"{x:.7g}"), "y": float(f"{y:.7g}"), "group": name}
                for text, (x, y), name in zip(texts, projection.points.tolist(), own, strict=True)
            ],
        }
    )
