"""``minisbert cluster``: texts clustered by meaning, with labels; and what ``minisbert map`` shares with it."""

from __future__ import annotations

import csv
import functools
import io
import json
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minisbert.cli.inputs import TextSource, column_options, taken
from minisbert.cli.options import COSINE, ModelChoice, Verb, computing_options, decorate, json_option, model_options
from minisbert.cli.outputs import OutputError, Target, written_whole
from minisbert.cli.table import printable, shorten, terminal_width
from minisbert.tables import EmptyTextWarning, InputError, checked_text

if TYPE_CHECKING:
    from minisbert.analysis.clusters import Agreement, Clustering
    from minisbert.analysis.naming import ClusterName
    from minisbert.model import Array

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
        texts, labels, kept, row = [], [], [], -1
        columns = [source.column_of(table), *([] if self.label is None else [table.column(self.label)])]
        for row, (line, (text, *label)) in enumerate(table.pick(columns)):
            if checked_text(text, columns[0], table.where(line)).strip():
                kept.append(row)
                texts.append(text)
                labels += [checked_label(value, columns[1], table.where(line)) for value in label]
        if not texts:
            raise InputError(f"{table.name}: no texts: the file has no rows")
        if len(kept) <= row:
            warnings.warn(f"{table.name}: skipped {row + 1 - len(kept):,} rows without a text", EmptyTextWarning, 2)
        return Collection(Path(source.name).name, texts, labels or None, kept, row + 1)

    def embed(self, choice: ModelChoice, dtype: str, collection: Collection, **options: Any) -> Array:
        """The texts' vectors, from a file or computed."""
        if self.vectors is not None:
            return read_vectors(Path(self.vectors), collection.rows)[collection.kept]
        return choice.encoder(dtype).encode(collection.texts, show_progress_bar=sys.stderr.isatty(), **options)


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
    """Add the clustering options to a verb."""
    options = [
        click.option(
            "--k",
            metavar="N|LOW-HIGH",
            callback=_parse_k,
            help="Number of clusters; in a range, the one with the best silhouette.  [default: 2-20]",
        ),
        click.option(
            "--distance",
            type=click.FloatRange(0, 2, min_open=True),
            help="agglomerative: stop merging at this mean cosine distance (1 - cosine).  [default: 0.5]",
        ),
        click.option(
            "--threshold",
            type=COSINE,
            default=0.75,
            show_default=True,
            help="community: minimum cosine with the centre.",
        ),
        click.option(
            "--min-size",
            "min_community_size",
            type=click.IntRange(min=1),
            default=3,
            show_default=True,
            help="community: minimum number of texts.",
        ),
        click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), default=0, show_default=True),
        click.option(
            "--stop-words",
            type=click.Choice(["english", "none"]),
            default="english",
            show_default=True,
            help="Words never used to label a cluster.",
        ),
        click.option("--deterministic", is_flag=True, help="Bit-identical vectors for any number of threads; slower."),
    ]
    return decorate(verb, options)


# ----------------------------------------------------------------------------------------------- the verb


@click.command(short_help="Cluster texts by meaning and label each cluster.")
@collection_options
@click.option("--method", type=click.Choice(METHODS), default="kmeans", show_default=True)
@grouping_options
@click.option("--words", type=click.IntRange(min=1), default=5, show_default=True, help="Words in a cluster's label.")
@click.option(
    "--typical", type=click.IntRange(min=0), default=3, show_default=True, help="Typical texts shown per cluster."
)
@click.option("--show", type=click.IntRange(min=1), default=20, show_default=True, help="Clusters listed.")
@click.option("-o", "--output", metavar="FILE", help="Write each text with its cluster: .csv, .tsv or .jsonl.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@json_option
@computing_options
@model_options
def cluster(
    source: CollectionSource,
    method: str,
    stop_words: str,
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
    target = _choose_target(output, force)
    from minisbert.analysis import clusters
    from minisbert.analysis.maps import require_sklearn

    require_sklearn("labelling clusters")
    clusters.check_settings(method, options["k"], options["distance"])
    collection = source.read()
    _check_rows(target, collection)
    settings = {name: options.pop(name) for name in ("k", "distance", "threshold", "min_community_size", "seed")}
    vectors = source.embed(choice, dtype, collection, **options)
    found = clusters.cluster(vectors, method, **settings)
    names = name_groups(collection.texts, vectors, found.ids, words, max(typical, 1), stop_words)
    agreed = None if collection.labels is None else clusters.agreement(collection.labels, found.ids)
    if target.file is not None:
        with written_whole(target.file) as stream:
            stream.write("".join(_rows(target.kind, collection, found, names)).encode())
        click.echo(f"wrote {target.file}", err=True)
    if as_json:
        click.echo(json.dumps(_to_json(collection, found, names, agreed, typical), ensure_ascii=False).encode())
    else:
        click.echo("\n".join(_report(collection, found, names, agreed, typical, show)))


def name_groups(
    texts: Sequence[str], vectors: Array, ids: Array, words: int, typical: int, stop_words: str
) -> list[ClusterName]:
    """Label clusters, with or without stop words."""
    from minisbert.analysis.naming import name_clusters

    left_out = stop_words if stop_words == "english" else None
    return name_clusters(texts, vectors, ids, words=words, typical=typical, stop_words=left_out)


def describe(found: Clustering, count: int) -> str:
    """How texts were clustered."""
    named = {"k": "k", "seed": "seed", "distance": "distance", "threshold": "threshold"}
    named["min_community_size"] = "at least"
    settings = ", ".join(f"{word} {found.settings[name]:g}" for name, word in named.items() if name in found.settings)
    chosen = ""
    if found.tried:
        least, most = found.tried[0][0], found.tried[-1][0]
        chosen = f" (best silhouette from {least} to {most}"
        chosen += "; more may be better)" if found.settings["k"] == most < count else ")"
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
    """Format the clusters, the largest first, and their scores."""
    width = terminal_width()
    lines = [*textwrap.wrap(describe(found, len(collection.texts)), width), ""]
    lines.append(f"{'cluster':>7}  {'texts':>7}  {'silhouette':>10}  words")
    for group, (name, size) in enumerate(zip(names[:show], found.sizes.tolist(), strict=False)):
        told = found.silhouette_of(group)
        own = "" if told is None else f"{told + 0.0:.3f}"
        head = f"{group:>7}  {size:>7,}  {own:>10}  {printable(', '.join(name.words) or name.title)}"
        lines.append(shorten(head, width))
        if collection.labels is not None:
            lines.append(shorten(f"{'':9}label: {_main_label(collection.labels, found.ids, group)}", width))
        shown = (printable(collection.texts[row]) or "(empty)" for row in name.typical[:typical])
        lines += [shorten(f"{'':9}{text}", width) for text in shown]
    if found.count > show:
        lines.append(f"{'':9}and {found.count - show:,} more (--show {found.count})")
    if not found.count:
        lines.append(f"{'':9}no clusters: try a lower --threshold or --min-size")
    return [*lines, "", *_scores(found, agreed)]


def _main_label(labels: Sequence[str], ids: Array, group: int) -> str:
    """The most frequent label of a cluster, and its share."""
    inside = Counter(label for label, own in zip(labels, ids.tolist(), strict=True) if own == group)
    label, count = min(inside.items(), key=lambda item: (-item[1], item[0]))
    return f"{printable(label)} ({count:,} of {inside.total():,})"


def _scores(found: Clustering, agreed: Agreement | None) -> list[str]:
    """Silhouette, and agreement with known labels."""
    lines = ["silhouette: none, it needs at least two clusters"]
    if found.silhouette is not None:
        where = " of the texts in a cluster" if (found.ids < 0).any() else ""
        lines = [f"mean silhouette{where} {found.silhouette + 0.0:.3f} (cosine; 1 well separated, 0 not separated)"]
    if agreed is not None:
        figures = {
            "V-measure": agreed.v_measure,
            "homogeneity": agreed.homogeneity,
            "completeness": agreed.completeness,
            "adjusted mutual information": agreed.adjusted_mutual_info,
        }
        told = ", ".join(f"{name} {100 * value:.2f}" for name, value in figures.items())
        one_more = "; texts in no cluster count as one more cluster" if (found.ids < 0).any() else ""
        lines.append(f"compared with {agreed.labels:,} labels, x 100: {told}{one_more}")
    return lines


def _to_json(
    collection: Collection, found: Clustering, names: list[ClusterName], agreed: Agreement | None, typical: int
) -> dict[str, Any]:
    """Everything as JSON."""
    groups = [
        {
            "cluster": group,
            "size": int(found.sizes[group]),
            "title": name.title,
            "words": list(name.words),
            "typical": [{"row": row, "text": collection.texts[row]} for row in name.typical[:typical]],
            "silhouette": found.silhouette_of(group),
        }
        for group, name in enumerate(names)
    ]
    return {
        "method": found.method,
        "settings": found.settings,
        "texts": len(collection.texts),
        "in_no_cluster": int((found.ids < 0).sum()),
        "silhouette": found.silhouette,
        "tried": [{"k": k, "silhouette": score} for k, score in found.tried],
        "agreement": None if agreed is None else asdict(agreed),
        "clusters": groups,
        "ids": found.ids.tolist(),
    }


# --------------------------------------------------------------------------------------------- a row per text


def _choose_target(output: str | None, force: bool) -> Target:
    """The output file and its format; raise early if it cannot be written."""
    if output is None:
        return Target(None, "", force)
    kind = FORMATS.get(Path(output).suffix.lower())
    if kind is None:
        raise click.UsageError(f"-o must end in {', '.join(FORMATS)}, got {output!r}.")
    target = Target(Path(output), kind, force)
    target.check()
    return target


def _check_rows(target: Target, collection: Collection) -> None:
    """Raise for texts that a TSV cannot hold, before minutes of work."""
    if target.kind != "tsv":
        return
    for row, text in enumerate([*collection.texts, *(collection.labels or ())]):
        if any(character in text for character in "\t\n\r"):
            raise OutputError(
                f"{target.file}: text {row % len(collection.texts) + 1:,} contains a tab or a line break, which a TSV "
                "cannot hold; write a .csv or .jsonl"
            )


def _rows(kind: str, collection: Collection, found: Clustering, names: list[ClusterName]) -> Iterator[str]:
    """Write one row per text, in the order of the texts."""
    head = ["text", "cluster", "title", "similarity", "silhouette"] + ["label"] * (collection.labels is not None)
    write = _writer(kind)
    if kind != "jsonl":
        yield write(head, head)
    for row, (text, group) in enumerate(zip(collection.texts, found.ids.tolist(), strict=True)):
        near = float(f"{found.similarity[row]:.6g}") if group >= 0 else None
        told = float(f"{found.silhouettes[row]:.6g}") if group >= 0 and found.silhouettes is not None else None
        values = [text, group, names[group].title if group >= 0 else None, near, told]
        yield write(head, values + ([] if collection.labels is None else [collection.labels[row]]))


def _writer(kind: str) -> Callable[[list[str], list[Any]], str]:
    """The function that writes one row in a format."""

    def as_json(head: list[str], values: list[Any]) -> str:
        return json.dumps(dict(zip(head, values, strict=True)), ensure_ascii=False) + "\n"

    def as_tsv(head: list[str], values: list[Any]) -> str:
        # a title may come from a text: only spaces are allowed between its words
        cells = ["" if value is None else str(value) for value in values]
        return "\t".join([cells[0], *(" ".join(cell.split()) for cell in cells[1:])]) + "\n"

    def as_csv(head: list[str], values: list[Any]) -> str:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(values)
        return line.getvalue()

    return {"jsonl": as_json, "tsv": as_tsv, "csv": as_csv}[kind]
