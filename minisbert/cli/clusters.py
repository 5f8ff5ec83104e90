"""Texts by meaning: ``minisbert cluster``, and ``minisbert map``."""

from __future__ import annotations

import csv
import functools
import io
import json
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.checks import require
from minisbert.cli.inputs import TextSource, column_options, taken
from minisbert.cli.options import (
    COSINE,
    TEXT,
    ModelChoice,
    Verb,
    computing_options,
    decorate,
    json_option,
    model_options,
)
from minisbert.cli.outputs import Target, echo_json, progress
from minisbert.cli.table import printable, shorten, terminal_width
from minisbert.files import written_whole
from minisbert.tables import InputError

if TYPE_CHECKING:
    from minisbert.analysis.clusters import Agreement, Clustering
    from minisbert.analysis.naming import ClusterName
    from minisbert.model import Array


# ------------------------------------------------------------------------------------------------------------ cluster


METHODS = ("kmeans", "agglomerative", "community")
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
TITLES = {"kmeans": "k-means", "agglomerative": "agglomerative, average linkage", "community": "communities"}


# ----------------------------------------------------------------------------- the input, also map's


@dataclass(frozen=True)
class Collection:
    """Texts, with labels if a column of them was named."""

    name: str  # for titles
    texts: list[str]
    labels: list[str] | None
    kept: list[int]  # the rows that have a text
    rows: int  # of the file


@dataclass(frozen=True)
class CollectionSource:
    """Where texts, labels and vectors come from."""

    source: TextSource
    label: str | None
    vectors: str | None

    def read(self) -> Collection:
        """Read all texts and labels; rows without a text are skipped, and counted in a warning."""
        from minisbert.evaluation.classification import checked_label

        source, table = self.source, self.source.table()
        if self.label is not None and table.kind == "text":
            raise click.UsageError("--label is for tables; this input is text.")
        texts, labels, kept = [], [], []
        columns = [source.column_of(table), *([] if self.label is None else [table.column(self.label)])]
        for line, (text, *label) in table.pick(columns, filled=columns[:1]):
            kept.append(table.taken - 1)
            texts.append(text)
            labels += [checked_label(value, columns[1], table.where(line)) for value in label]
        if not texts:
            raise InputError(f"{table.name}: no texts: the file has no rows")
        return Collection(Path(source.name).name, texts, labels or None, kept, table.taken)

    def embed(self, choice: ModelChoice, dtype: str, collection: Collection, **options: Any) -> Array:
        """The texts' vectors, from a file or computed."""
        if self.vectors is not None:
            return read_vectors(Path(self.vectors), collection.rows)[collection.kept]
        return choice.encoder(dtype).encode(collection.texts, show_progress_bar=progress, **options)


def read_vectors(file: Path, count: int) -> Array:
    """Read vectors that `minisbert embed` wrote, one per text."""
    import numpy as np

    suffix = file.suffix.lower()
    if suffix == ".npy":
        try:
            vectors = np.load(file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InputError(f"{file}: not a .npy file of numbers: {error}") from None
    elif suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tensors = load_file(file)
        except SafetensorError as error:
            raise InputError(f"{file}: not a .safetensors file: {error}") from None
        if "embeddings" not in tensors:
            raise InputError(f"{file}: no tensor 'embeddings'; there are {', '.join(sorted(tensors)) or 'none'}")
        vectors = tensors["embeddings"]
    else:
        raise click.UsageError(f"--vectors must be a .npy or .safetensors file, got {str(file)!r}.")
    if vectors.ndim != 2 or len(vectors) != count:
        raise InputError(
            f"{file}: expected one vector for each of {count:,} texts, got shape {vectors.shape}; is it for this input?"
        )
    return vectors


def collection_options(verb: Verb) -> Verb:
    """Add FILE and its reading options to a verb, which receives them as ``source``."""

    @functools.wraps(verb)
    def gathered(file: str | None, given: str | None, **rest: Any) -> None:
        if (file is None) == (given is None):
            raise click.UsageError("Give one file of texts; - is standard input.")
        source = TextSource((), str(file or given), **taken(rest))
        source.check()
        verb(source=CollectionSource(source, rest.pop("label"), rest.pop("vectors")), **rest)

    options = [
        click.argument("file", metavar="FILE", required=False),
        click.option("-i", "--input", "given", metavar="FILE", help="Same as FILE, may be .gz; - is stdin."),
        click.option("--label", metavar="NAME|N", help="Column with known labels."),
        click.option(
            "--vectors", metavar="FILE", help="Vectors of these texts written by `embed`, .npy or .safetensors."
        ),
    ]
    return column_options(decorate(gathered, options))


def _parse_k(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | tuple[int, int] | None:
    """Parse 7, or 2-20."""
    if value is None:
        return None
    parts = value.split("-")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"expected a number, or a range such as 2-20, got {value!r}.")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def grouping_options(verb: Verb) -> Verb:
    """Add the clustering options to a verb, which receives what `cluster` takes as ``settings``."""

    @functools.wraps(verb)
    def gathered(**rest: Any) -> None:
        names = ("k", "distance", "threshold", "min_community_size", "seed")
        rest["stop_words"] = "english" if rest["stop_words"] == "english" else None
        verb(settings={name: rest.pop(name) for name in names}, **rest)

    whole, cosine = click.IntRange(min=1), click.FloatRange(0, 2, min_open=True)
    options = [
        click.option(
            "--k",
            metavar="N|LOW-HIGH",
            callback=_parse_k,
            help="Number of clusters; in a range, the one with the best silhouette.  [default: 2-20]",
        ),
        click.option(
            "--distance",
            type=cosine,
            help="agglomerative: stop merging at this mean cosine distance (1 - cosine).  [default: 0.5]",
        ),
        click.option("--threshold", type=COSINE, default=0.75, help="community: minimum cosine with the centre."),
        click.option(
            "--min-size", "min_community_size", type=whole, default=3, help="community: minimum number of texts."
        ),
        click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), default=0),
        click.option(
            "--stop-words",
            type=click.Choice(["english", "none"]),
            default="english",
            help="Words never used to label a cluster.",
        ),
        click.option("--deterministic", is_flag=True, help="Bit-identical vectors for any number of threads; slower."),
    ]
    return decorate(gathered, options)


# ----------------------------------------------------------------------------------------------- the verb


@click.command(short_help="Cluster texts by meaning and label each cluster.", context_settings={"show_default": True})
@collection_options
@click.option("--method", type=click.Choice(METHODS), default="kmeans")
@grouping_options
@click.option("--words", type=click.IntRange(min=1), default=5, help="Words in a cluster's label.")
@click.option("--typical", type=click.IntRange(min=0), default=3, help="Typical texts shown per cluster.")
@click.option("--show", type=click.IntRange(min=1), default=20, help="Clusters listed.")
@click.option("-o", "--output", metavar="FILE", help="Write each text with its cluster: .csv, .tsv or .jsonl.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
@computing_options
@model_options
def cluster(
    source: CollectionSource,
    method: str,
    settings: dict[str, Any],
    stop_words: str | None,
    words: int,
    typical: int,
    show: int,
    output: str | None,
    force: bool,
    as_json: bool,
    choice: ModelChoice,
    dtype: str,
    **options: Any,
) -> None:
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
    kind = FORMATS.get(Path(output or "").suffix.lower())
    if output is not None and kind is None:
        raise click.UsageError(f"-o must end in {', '.join(FORMATS)}, got {output!r}.")
    target = Target(None if output is None else Path(output), str(kind), force)
    target.check()
    require("sklearn", "apps", "clustering")
    from minisbert.analysis import clusters, name_clusters

    clusters.check_settings(method, settings["k"], settings["distance"])
    collection = source.read()
    vectors = source.embed(choice, dtype, collection, **options)
    found = clusters.cluster(vectors, method, **settings)
    names = name_clusters(
        collection.texts, vectors, found.ids, words=words, typical=max(typical, 1), stop_words=stop_words
    )
    agreed = None if collection.labels is None else clusters.agreement(collection.labels, found.ids)
    if target.file is not None:
        with written_whole(target.file) as stream:
            stream.write(_table(target.kind, collection, found, names).encode())
        click.echo(f"wrote {target.file}", err=True)
    if not as_json:
        click.echo("\n".join(_report(collection, found, names, agreed, typical, show)))
        return
    groups = [
        {
            "cluster": group,
            "size": found.sizes[group],
            "title": name.title,
            "words": name.words,
            "typical": [{"row": row, "text": collection.texts[row]} for row in name.typical[:typical]],
            "silhouette": found.silhouette_of(group),
        }
        for group, name in enumerate(names)
    ]
    echo_json(
        {
            "method": found.method,
            "settings": found.settings,
            "texts": len(collection.texts),
            "in_no_cluster": (found.ids < 0).sum(),
            "silhouette": found.silhouette,
            "tried": [{"k": k, "silhouette": score} for k, score in found.tried],
            "agreement": agreed,
            "clusters": groups,
            "ids": found.ids,
        }
    )


def describe(found: Clustering, count: int) -> str:
    """How texts were clustered."""
    named = {"min_community_size": "at least"}
    settings = ", ".join(f"{named.get(name, name)} {value:g}" for name, value in found.settings.items())
    chosen = ""
    if found.tried:
        least, most = found.tried[0][0], found.tried[-1][0]
        more = "; more may be better" if found.settings["k"] == most < count else ""
        chosen = f" (best silhouette from {least} to {most}{more})"
    outside = int((found.ids < 0).sum())
    left_out = f", {outside:,} in no cluster" if outside else ""
    clusters = f"{found.count:,} cluster{'' if found.count == 1 else 's'}"
    return f"{TITLES[found.method]}, {settings}{chosen}: {count:,} texts, {clusters}{left_out}"


def _report(
    collection: Collection,
    found: Clustering,
    names: list[ClusterName],
    agreed: Agreement | None,
    typical: int,
    show: int,
) -> list[str]:
    """The clusters, the largest first, and their scores."""
    width = terminal_width()
    lines = [f"{'cluster':>7}  {'texts':>7}  {'silhouette':>10}  words"]
    for group, (name, size) in enumerate(zip(names[:show], found.sizes.tolist(), strict=False)):
        told = found.silhouette_of(group)
        own = "" if told is None else f"{told + 0.0:.3f}"
        lines.append(f"{group:>7}  {size:>7,}  {own:>10}  {printable(', '.join(name.words) or name.title)}")
        if collection.labels is not None:
            inside = Counter(collection.labels[row] for row in (found.ids == group).nonzero()[0].tolist())
            label, count = min(inside.items(), key=lambda item: (-item[1], item[0]))
            lines.append(f"{'':9}label: {printable(label)} ({count:,} of {size:,})")
        lines += [f"{'':9}{printable(collection.texts[row]) or '(empty)'}" for row in name.typical[:typical]]
    if found.count > show:
        lines.append(f"{'':9}and {found.count - show:,} more (--show {found.count})")
    if not found.count:
        lines.append(f"{'':9}no clusters: try a lower --threshold or --min-size")
    scores, has_rest = ["silhouette: none, it needs at least two clusters"], bool((found.ids < 0).any())
    if found.silhouette is not None:
        where = " of the texts in a cluster" if has_rest else ""
        scores = [f"mean silhouette{where} {found.silhouette + 0.0:.3f} (cosine; 1 well separated, 0 not separated)"]
    if agreed is not None:
        one_more = "; texts in no cluster count as one more cluster" if has_rest else ""
        scores.append(
            f"compared with {agreed.labels:,} labels, x 100: V-measure {100 * agreed.v_measure:.2f}, homogeneity "
            f"{100 * agreed.homogeneity:.2f}, completeness {100 * agreed.completeness:.2f}, adjusted mutual "
            f"information {100 * agreed.adjusted_mutual_info:.2f}{one_more}"
        )
    title = textwrap.wrap(describe(found, len(collection.texts)), width)
    return [*title, "", *(shorten(line, width) for line in lines), "", *scores]


def _table(kind: str, collection: Collection, found: Clustering, names: list[ClusterName]) -> str:
    """One row a text, in the order of the texts, as CSV, TSV or JSONL."""
    head = ["text", "cluster", "title", "similarity", "silhouette"] + ["label"] * (collection.labels is not None)
    rows = []
    for row, (text, group) in enumerate(zip(collection.texts, found.ids.tolist(), strict=True)):
        values: list[Any] = [text, group, None, None, None]
        if group >= 0:
            told = None if found.silhouettes is None else float(f"{found.silhouettes[row]:.6g}")
            values[2:] = [names[group].title, float(f"{found.similarity[row]:.6g}"), told]
        rows.append(values + ([] if collection.labels is None else [collection.labels[row]]))
    if kind == "jsonl":
        return "".join(json.dumps(dict(zip(head, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
    stream = io.StringIO()
    csv.writer(stream, delimiter="," if kind == "csv" else "\t", lineterminator="\n").writerows([head, *rows])
    return stream.getvalue()


# ---------------------------------------------------------------------------------------------------------------- map


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
