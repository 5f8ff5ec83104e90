"""Texts by meaning: ``minisbert cluster``, and ``minisbert map``."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.checks import require
from minisbert.cli import options
from minisbert.cli.options import ModelChoice, TextSource, file_options
from minisbert.cli.outputs import Target, output_options, progress
from minisbert.cli.table import counted, fixed, hundred, printable, shorten, terminal_width
from minisbert.tables import InputError

if TYPE_CHECKING:
    from minisbert.analysis.clusters import Clustering
    from minisbert.model import Array


METHODS = {"kmeans": "k-means", "agglomerative": "agglomerative, average linkage", "community": "communities"}


# ------------------------------------------------------------------------------------ what both verbs are asked for


@dataclass(frozen=True)
class Collection:
    """Texts, their labels if a column of them was named, and how they are embedded and clustered."""

    name: str  # the file's
    texts: list[str]
    labels: list[str]
    embed: Callable[[], Array]  # (M, D)
    settings: dict[str, Any]  # of `cluster`


def _parse_k(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | tuple[int, int] | None:
    """Parse 7, or 2-20."""
    if value is None:
        return None
    parts = value.split("-")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise click.BadParameter(f"expected a number, or a range such as 2-20, got {value!r}.")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def collection_options(verb: options.Verb) -> options.Verb:
    """Add what is read and how it is clustered to a verb, which receives all of it as ``given``."""

    @file_options
    @click.option("--label", metavar="NAME|N", help="Column with known labels.")
    @click.option(
        "--k", metavar="N|LOW-HIGH", callback=_parse_k, help="Number of clusters, or a range.  [default: 2-20]"
    )
    @click.option("--distance", type=click.FloatRange(0, 2), help="agglomerative: see above.  [default: 0.5]")
    @click.option("--threshold", type=click.FloatRange(-1, 1), default=0.75, help="community: minimum cosine.")
    @click.option("--min-size", "min_community_size", type=options.COUNT, default=3, help="community: minimum texts.")
    @options.seed_option
    @options.computing_options
    @options.model_options
    @functools.wraps(verb)
    def gathered(source: TextSource, label: str | None, choice: ModelChoice, dtype: str, **more: Any) -> None:
        require("sklearn", "apps", f"minisbert {verb.__name__}")
        from minisbert.evaluation.classification import checked_label

        settings = {name: more.pop(name) for name in ("k", "distance", "threshold", "min_community_size", "seed")}
        encoding = {name: more.pop(name) for name in ("overflow", "chunk_tokens", "overlap", "composition")}
        table = source.table()
        columns = [source.column_of(table), *([] if label is None else [table.column(label)])]
        texts, labels = [], []  # rows without a text are counted in a warning
        for line, (text, *said) in table.pick(columns, filled=columns[:1]):
            texts.append(text)
            labels += [checked_label(value, columns[1], table.where(line)) for value in said]
        if not texts:
            raise InputError(f"{table.name}: no texts: the file has no rows")

        def embed() -> Array:
            return choice.encoder(dtype).encode(texts, show_progress_bar=progress, **encoding)

        verb(given=Collection(Path(source.name).name, texts, labels, embed, settings), **more)

    return gathered


def describe(found: Clustering) -> str:
    """How texts were clustered."""
    settings = ", ".join(f"{name} {value:g}" for name, value in found.settings.items())
    settings = settings.replace("min_community_size", "at least")
    chosen = f" (best silhouette from {found.tried[0][0]} to {found.tried[-1][0]})" if found.tried else ""
    outside = int((found.ids < 0).sum())
    left_out = f", {outside:,} in no cluster" if outside else ""
    clusters = counted(found.count, "cluster")
    return f"{METHODS[found.method]}, {settings}{chosen}: {len(found.ids):,} texts, {clusters}{left_out}"


# ------------------------------------------------------------------------------------------------------------ cluster


@click.command()
@options.choice_option("--method", METHODS)
@click.option("--show", type=options.COUNT, default=20, help="Clusters listed.")
@output_options("Write each text with its cluster: .csv, .tsv or .jsonl.", "csv", "tsv", "jsonl")
@collection_options
def cluster(given: Collection, method: str, show: int, target: Target) -> None:
    """Cluster texts by meaning and label each cluster with its words and most typical texts.

    kmeans assigns every text to one of k clusters; without --k it tries 2 to 20 and keeps the best silhouette.
    agglomerative merges the nearest clusters until their mean cosine distance (1 - cosine) is --distance, or --k are
    left. community finds groups of at least --min-size texts whose cosine with a centre is at least --threshold, and
    leaves the other texts out.

    The silhouette measures how well the texts in clusters are separated: 1 is well, 0 is not at all. With --label the
    clusters are compared with known labels; texts in no cluster count as one more cluster. Needs scikit-learn: pip
    install -e '.[apps]'

    \b
    Examples:
      minisbert cluster texts.txt --k 2
      minisbert cluster questions.tsv --label label --k 2
      minisbert cluster texts.txt --method agglomerative --distance 0.7 --json
      minisbert cluster texts.txt --method community --threshold 0.6 --min-size 2 -o clusters.csv
    """
    from minisbert.analysis import clusters, name_clusters

    clusters.check_settings(method, given.settings["k"], given.settings["distance"])
    texts, labels, vectors = given.texts, given.labels, given.embed()
    found = clusters.cluster(vectors, method, **given.settings)
    names = name_clusters(texts, vectors, found.ids)
    agreed = clusters.agreement(labels, found.ids) if labels else None
    # of each text; -1, which is no cluster, finds the None at the end
    ids, titles = found.ids.tolist(), [*(about.title for about in names), None]
    rows: list[dict[str, Any]] = []
    for i, (text, group) in enumerate(zip(texts, ids, strict=True)):
        row = {"text": text, "cluster": group, "title": titles[group]}
        for name, numbers in (("similarity", found.similarity), ("silhouette", found.silhouettes)):
            row[name] = None if group < 0 or numbers is None else round(float(numbers[i]), 6)
        rows.append({**row, "label": labels[i]} if labels else row)
    target.write_rows(rows)

    width, indent = terminal_width(), " " * 9
    lines = [f"{'cluster':>7}  {'texts':>7}  {'silhouette':>10}  words"]
    groups: list[dict[str, Any]] = []
    for group, (about, size) in enumerate(zip(names, found.sizes.tolist(), strict=True)):  # the largest first
        silhouette = found.silhouette_of(group)
        typical = [{"row": row, "text": texts[row]} for row in about.typical]
        what = {"cluster": group, "size": size, "title": about.title, "words": about.words}
        groups.append({**what, "typical": typical, "silhouette": silhouette})
        if group < show:
            score = "" if silhouette is None else fixed(silhouette, 3)
            words = printable(", ".join(about.words) or about.title)
            lines.append(f"{group:>7}  {size:>7,}  {score:>10}  {words}")
            lines += [f"{indent}{printable(texts[row])}" for row in about.typical]
    if found.count > show:
        lines.append(f"{indent}and {found.count - show:,} more (--show {found.count})")
    if not found.count:
        lines.append(f"{indent}no clusters: try a lower --threshold or --min-size")
    result = {
        "method": found.method,
        "settings": found.settings,
        "texts": len(texts),
        "in_no_cluster": ids.count(-1),
        "silhouette": found.silhouette,
        "tried": [{"k": k, "silhouette": score} for k, score in found.tried],
        "agreement": agreed,
        "clusters": groups,
        "ids": ids,
    }
    scores = ["silhouette: none, it needs at least two clusters"]
    if found.silhouette is not None:
        scores = [f"mean silhouette {fixed(found.silhouette, 3)} (cosine; 1 well separated, 0 not separated)"]
    if agreed is not None:
        scores.append(
            f"compared with {agreed.labels:,} labels, x 100: V-measure {hundred(agreed.v_measure)}, homogeneity "
            f"{hundred(agreed.homogeneity)}, completeness {hundred(agreed.completeness)}, adjusted mutual "
            f"information {hundred(agreed.adjusted_mutual_info)}"
        )
    title = textwrap.wrap(describe(found), width)
    target.give([*title, "", *(shorten(line, width) for line in lines), "", *scores], result)


# ---------------------------------------------------------------------------------------------------------------- map


FEW = 10  # distinct texts; up to this many are not clustered unless asked for


@click.command()
@output_options("A plot, or an interactive page.", "png", "html", metavar="FILE.png|FILE.html", required=True)
@options.choice_option("--method", ["pca", "tsne"], "Projection to the plane.")
@click.option("--clusters", type=click.Choice([*METHODS, "none"]), help="Colours.  [default: labels, else kmeans]")
@collection_options
def map(given: Collection, target: Target, method: str, clusters: str | None) -> None:  # one name with its verb
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
    from minisbert.analysis import cluster, draw_map, name_clusters, project, write_map_page
    from minisbert.analysis.clusters import Groups, check_settings
    from minisbert.analysis.maps import check_method

    texts, labels, settings = given.texts, given.labels, given.settings
    check_settings(clusters if clusters in METHODS else "kmeans", settings["k"], settings["distance"])
    check_method(method, len(texts))
    vectors = given.embed()
    projection = project(vectors, method, seed=settings["seed"])

    said, groups, typical = counted(len(texts), "text"), None, []
    if labels and clusters is None:
        groups = Groups.of_labels(labels)
        said += f", {counted(len(groups.names), 'label')}"
        typical = [one.typical[0] for one in name_clusters(texts, vectors, groups.ids, typical=1)]
    elif clusters != "none" and (clusters is not None or len(set(texts)) > FEW):
        found = cluster(vectors, clusters or "kmeans", **settings)
        names, said = name_clusters(texts, vectors, found.ids, typical=1), describe(found)
        groups = Groups(found.ids, [one.title for one in names], "cluster")
        typical = [one.typical[0] for one in names]
    about: dict[str, Any] = {"typical": typical, "title": given.name, "caption": said}
    target.write(draw_map if target.kind == "png" else write_map_page, projection, texts, groups, **about)
    own = [None] * len(texts) if groups is None else [groups.names[i] if i >= 0 else None for i in groups.ids.tolist()]
    result = {
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
    target.give([said, projection.describe()], result)
