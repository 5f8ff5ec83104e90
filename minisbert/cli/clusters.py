"""Texts by meaning: ``minisbert cluster``, and ``minisbert map``."""

from __future__ import annotations

import functools
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.checks import require
from minisbert.cli import options
from minisbert.cli.inputs import TextSource, file_options
from minisbert.cli.outputs import Target, output_options, progress
from minisbert.cli.table import counted, fixed, hundred, printable, shorten, terminal_width
from minisbert.cli.vectors import read_vectors
from minisbert.tables import InputError

if TYPE_CHECKING:
    from minisbert.analysis.clusters import Clustering
    from minisbert.model import Array


METHODS = {"kmeans": "k-means", "agglomerative": "agglomerative, average linkage", "community": "communities"}


# ------------------------------------------------------------------------------------ what both verbs are asked for


@dataclass(frozen=True)
class Collection:
    """Texts, their vectors, and their labels if a column of them was named."""

    name: str  # for titles
    texts: list[str]
    labels: list[str] | None
    vectors: Array  # (M, D)


@dataclass(frozen=True)
class Asked:
    """Where texts, labels and vectors come from, and how they are clustered."""

    source: TextSource
    label: str | None
    vectors: str | None
    settings: dict[str, Any]  # of `cluster`
    stop_words: str | None
    choice: options.ModelChoice
    dtype: str
    encoding: dict[str, Any]  # of `encode`

    def read(self, check: Callable[[int], object] = lambda count: None) -> Collection:
        """Read texts and labels, check their number, and embed; rows without a text are counted in a warning."""
        from minisbert.evaluation.classification import checked_label

        table = self.source.table()
        if self.label is not None and table.kind == "text":
            raise click.UsageError("--label is for tables; this input is text.")
        texts, labels, kept = [], [], []
        columns = [self.source.column_of(table), *([] if self.label is None else [table.column(self.label)])]
        for line, (text, *label) in table.pick(columns, filled=columns[:1]):
            kept.append(table.taken - 1)
            texts.append(text)
            labels += [checked_label(value, columns[1], table.where(line)) for value in label]
        if not texts:
            raise InputError(f"{table.name}: no texts: the file has no rows")
        check(len(texts))
        if self.vectors is not None:
            vectors = read_vectors(Path(self.vectors), table.taken)[kept]
        else:
            vectors = self.choice.encoder(self.dtype).encode(texts, show_progress_bar=progress, **self.encoding)
        return Collection(Path(self.source.name).name, texts, labels or None, vectors)


def _parse_k(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | tuple[int, int] | None:
    """Parse 7, or 2-20."""
    if value is None:
        return None
    parts = value.split("-")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"expected a number, or a range such as 2-20, got {value!r}.")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def collection_options(verb: options.Verb) -> options.Verb:
    """Add what is read and how it is clustered to a verb, which receives all of it as ``asked``."""

    @file_options
    @click.option("--label", metavar="NAME|N", help="Column with known labels.")
    @click.option("--vectors", metavar="FILE", help="Vectors of these texts written by `embed`, .npy or .safetensors.")
    @click.option(
        "--k",
        metavar="N|LOW-HIGH",
        callback=_parse_k,
        help="Number of clusters; in a range, the one with the best silhouette.  [default: 2-20]",
    )
    @click.option(
        "--distance",
        type=click.FloatRange(0, 2, min_open=True),
        help="agglomerative: stop merging at this mean cosine distance (1 - cosine).  [default: 0.5]",
    )
    @click.option("--threshold", type=options.COSINE, default=0.75, help="community: minimum cosine with the centre.")
    @click.option(
        "--min-size", "min_community_size", type=options.COUNT, default=3, help="community: minimum number of texts."
    )
    @options.seed_option
    @options.choice_option("--stop-words", ["english", "none"], "Words never used to label a cluster.")
    @click.option("--deterministic", is_flag=True, help="Bit-identical vectors for any number of threads; slower.")
    @options.computing_options
    @options.model_options
    @functools.wraps(verb)
    def gathered(**given: Any) -> None:
        said = {name: given.pop(name) for name in ("source", "label", "vectors", "choice", "dtype")}
        settings = {name: given.pop(name) for name in ("k", "distance", "threshold", "min_community_size", "seed")}
        stop_words = None if given.pop("stop_words") == "none" else "english"
        of_encode = ("overflow", "chunk_tokens", "overlap", "composition", "deterministic")
        encoding = {name: given.pop(name) for name in of_encode}
        verb(asked=Asked(**said, settings=settings, stop_words=stop_words, encoding=encoding), **given)

    return gathered


def describe(found: Clustering) -> str:
    """How texts were clustered."""
    named = {"min_community_size": "at least"}
    settings = ", ".join(f"{named.get(name, name)} {value:g}" for name, value in found.settings.items())
    chosen = ""
    if found.tried:
        least, most = found.tried[0][0], found.tried[-1][0]
        more = "; more may be better" if found.settings["k"] == most < len(found.ids) else ""
        chosen = f" (best silhouette from {least} to {most}{more})"
    outside = int((found.ids < 0).sum())
    left_out = f", {outside:,} in no cluster" if outside else ""
    clusters = counted(found.count, "cluster")
    return f"{METHODS[found.method]}, {settings}{chosen}: {len(found.ids):,} texts, {clusters}{left_out}"


# ------------------------------------------------------------------------------------------------------------ cluster


@click.command()
@options.choice_option("--method", METHODS)
@click.option("--words", type=options.COUNT, default=5, help="Words in a cluster's label.")
@click.option("--typical", type=click.IntRange(min=0), default=3, help="Typical texts shown per cluster.")
@click.option("--show", type=options.COUNT, default=20, help="Clusters listed.")
@output_options("Write each text with its cluster: .csv, .tsv or .jsonl.", "csv", "tsv", "jsonl")
@collection_options
def cluster(asked: Asked, method: str, words: int, typical: int, show: int, target: Target) -> None:
    """Cluster texts by meaning and label each cluster with its words and most typical texts.

    kmeans assigns every text to one of k clusters; without --k it tries 2 to 20 and keeps the best silhouette.
    agglomerative merges the nearest clusters until --distance or --k is reached. community finds dense groups around a
    centre and leaves the other texts out.

    The silhouette measures how well clusters are separated: 1 is well, 0 is not at all. With --label the clusters are
    compared with known labels. Needs scikit-learn: pip install -e '.[apps]'

    \b
    Examples:
      minisbert cluster texts.txt --k 2
      minisbert cluster questions.tsv --label label --k 2
      minisbert cluster texts.txt --method agglomerative --distance 0.7 --json
      minisbert cluster texts.txt --method community --threshold 0.6 --min-size 2 -o clusters.csv
    """
    require("sklearn", "apps", "clustering")
    from minisbert.analysis import clusters, name_clusters

    clusters.check_settings(method, asked.settings["k"], asked.settings["distance"])
    collection = asked.read()
    texts, labels = collection.texts, collection.labels
    found = clusters.cluster(collection.vectors, method, **asked.settings)
    names = name_clusters(
        texts, collection.vectors, found.ids, words=words, typical=max(typical, 1), stop_words=asked.stop_words
    )
    agreed = None if labels is None else clusters.agreement(labels, found.ids)

    rows: list[dict[str, Any]] = []  # one a text
    for i, (text, group) in enumerate(zip(texts, found.ids.tolist(), strict=True)):
        row = {"text": text, "cluster": group, "title": None, "similarity": None, "silhouette": None}
        if group >= 0:
            own = None if found.silhouettes is None else float(f"{found.silhouettes[i]:.6g}")
            told = {"title": names[group].title, "similarity": float(f"{found.similarity[i]:.6g}"), "silhouette": own}
            row |= told
        rows.append(row if labels is None else {**row, "label": labels[i]})
    target.write_rows(rows)

    width, indent = terminal_width(), " " * 9
    lines = [f"{'cluster':>7}  {'texts':>7}  {'silhouette':>10}  words"]
    groups, sizes = [], found.sizes.tolist()  # the largest first
    for group, name in enumerate(names):
        own, typical_rows = found.silhouette_of(group), name.typical[:typical]
        described = [{"row": row, "text": texts[row]} for row in typical_rows]
        about = {"cluster": group, "size": sizes[group], "title": name.title, "words": name.words}
        groups.append({**about, "typical": described, "silhouette": own})
        if group >= show:
            continue
        said = "" if own is None else fixed(own, 3)
        lines.append(f"{group:>7}  {sizes[group]:>7,}  {said:>10}  {printable(', '.join(name.words) or name.title)}")
        if labels is not None:
            inside = Counter(labels[row] for row in (found.ids == group).nonzero()[0].tolist())
            label, count = min(inside.items(), key=lambda item: (-item[1], item[0]))
            lines.append(f"{indent}label: {printable(label)} ({count:,} of {sizes[group]:,})")
        lines += [f"{indent}{printable(texts[row]) or '(empty)'}" for row in typical_rows]
    if found.count > show:
        lines.append(f"{indent}and {found.count - show:,} more (--show {found.count})")
    if not found.count:
        lines.append(f"{indent}no clusters: try a lower --threshold or --min-size")
    scores, has_rest = ["silhouette: none, it needs at least two clusters"], bool((found.ids < 0).any())
    if found.silhouette is not None:
        where = " of the texts in a cluster" if has_rest else ""
        scores = [f"mean silhouette{where} {fixed(found.silhouette, 3)} (cosine; 1 well separated, 0 not separated)"]
    if agreed is not None:
        one_more = "; texts in no cluster count as one more cluster" if has_rest else ""
        scores.append(
            f"compared with {agreed.labels:,} labels, x 100: V-measure {hundred(agreed.v_measure)}, homogeneity "
            f"{hundred(agreed.homogeneity)}, completeness {hundred(agreed.completeness)}, adjusted mutual "
            f"information {hundred(agreed.adjusted_mutual_info)}{one_more}"
        )
    result = {
        "method": found.method,
        "settings": found.settings,
        "texts": len(texts),
        "in_no_cluster": (found.ids < 0).sum(),
        "silhouette": found.silhouette,
        "tried": [{"k": k, "silhouette": score} for k, score in found.tried],
        "agreement": agreed,
        "clusters": groups,
        "ids": found.ids,
    }
    title = textwrap.wrap(describe(found), width)
    target.give([*title, "", *(shorten(line, width) for line in lines), "", *scores], result)


# ---------------------------------------------------------------------------------------------------------------- map


FEW = 10  # distinct texts; up to this many are not clustered unless asked for


@click.command()
@output_options("A plot, or an interactive page.", "png", "html", metavar="FILE.png|FILE.html", required=True)
@options.choice_option("--method", ["pca", "tsne"], "Projection to the plane.")
@click.option(
    "--perplexity", type=click.FloatRange(min=1), help="tsne: approximate number of neighbours per text.  [default: 30]"
)
@click.option(
    "--clusters",
    type=click.Choice([*METHODS, "none"]),
    help="What the colours show.  [default: the labels if --label is given, else kmeans]",
)
@click.option("--title", metavar="TEXT", type=options.TEXT, help="[default: the file's name]")
@collection_options
def map(  # a verb's module has one function of its name
    asked: Asked, target: Target, method: str, perplexity: float | None, clusters: str | None, title: str | None
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
    require("sklearn", "apps", "a map")
    from minisbert.analysis import cluster, draw_map, name_clusters, project, write_map_page
    from minisbert.analysis.clusters import Groups, check_settings
    from minisbert.analysis.maps import check_method

    settings = asked.settings
    check_settings(clusters if clusters in METHODS else "kmeans", settings["k"], settings["distance"])
    collection = asked.read(functools.partial(check_method, method, perplexity))
    texts, vectors = collection.texts, collection.vectors
    projection = project(vectors, method, seed=settings["seed"], perplexity=perplexity)

    said = counted(len(texts), "text")
    groups, typical = None, []
    if collection.labels is not None and clusters is None:
        groups = Groups.of_labels(collection.labels)
        said += f", {counted(len(groups.names), 'label')}"
        typical = [name.typical[0] for name in name_clusters(texts, vectors, groups.ids, typical=1)]
    elif clusters != "none" and (clusters is not None or len(set(texts)) > FEW):
        found = cluster(vectors, clusters or "kmeans", **settings)
        names = name_clusters(texts, vectors, found.ids, typical=1, stop_words=asked.stop_words)
        groups = Groups(found.ids, [name.title for name in names], "cluster")
        typical, said = [name.typical[0] for name in names], describe(found)
    about: dict[str, Any] = {"typical": typical, "title": title or collection.name, "caption": said}
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
