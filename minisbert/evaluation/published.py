"""Published figures with their sources, and well-known test sets recognised by their file names.

Every figure is Spearman's correlation of the cosine with human scores, x 100, over all pairs of a set, for one model.
Where ours differs, the note explains it as far as known.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

MTEB_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MTEB_SOURCE = f"MTEB results repository (github.com/embeddings-benchmark/results), {MTEB_MODEL}, cosine Spearman"

PAPER_SOURCE = "Reimers & Gurevych 2019 (arXiv 1908.10084), table 1, STSb, Spearman x 100; quoted, other models"
PAPER_STSB = {
    "average of GloVe vectors": 58.02,
    "average of BERT vectors": 46.35,
    "SBERT-NLI-base": 77.03,
    "SBERT-NLI-large": 79.23,
}
PAPER_NOTE = (
    "The paper's average of BERT vectors came from another layer; what others reproduce for the mean of BERT's last "
    "layer is 47.29."
)

_BIOSSES = (
    "BIOSSES circulates in two editions. Ours is the authors' own; on the other, with 17 of 200 sentences edited and "
    "one score changed, this package gives 81.640, MTEB's figure."
)


@dataclass(frozen=True)
class Benchmark:
    """A well-known set, and what is published about all-MiniLM-L6-v2 on it."""

    name: str
    files: tuple[str, ...]  # that form it, in this order
    pairs: int
    scale: tuple[float, float]
    published: float | None = None  # MTEB_SOURCE
    note: str = ""  # why our figure differs


BENCHMARKS = (
    Benchmark("STS12", ("STS12_test.tsv",), 3108, (0, 5), 72.369),
    Benchmark("STS13", ("STS13_test.tsv",), 1500, (0, 5), 80.603),
    Benchmark("STS14", ("STS14_test.tsv",), 3750, (0, 5), 75.589),
    Benchmark("STS15", ("STS15_test.tsv",), 3000, (0, 5), 85.390),
    Benchmark("STS16", ("STS16_test.tsv",), 1186, (0, 5), 78.989),
    Benchmark("STSb", ("stsb_test.tsv",), 1379, (0, 5), 82.032),
    Benchmark("SICK-R", ("sick_train.tsv", "sick_trial.tsv", "sick_test.tsv"), 9927, (1, 5), 77.582),
    Benchmark("BIOSSES", ("biosses.tsv",), 100, (0, 4), 81.640, _BIOSSES),
    Benchmark("STSb train", ("stsb_train.tsv",), 5749, (0, 5)),
    Benchmark("STSb dev", ("stsb_dev.tsv",), 1500, (0, 5)),
    Benchmark("SICK-R train", ("sick_train.tsv",), 4500, (1, 5)),
    Benchmark("SICK-R trial", ("sick_trial.tsv",), 500, (1, 5)),
    Benchmark("SICK-R test", ("sick_test.tsv",), 4927, (1, 5)),
)
"""Those with a published figure, in the papers' order; then parts of them."""


def find_sets(path: str | Path) -> list[tuple[Benchmark | None, tuple[Path, ...]]]:
    """The sets of a file (None if unknown), or the known ones of a folder or one level below, with their files.

    >>> [(known, files)] = find_sets("somewhere/stsb_test.tsv")
    >>> known.name, known.scale, known.published
    ('STSb', (0, 5), 82.032)
    """
    path = Path(path)
    if not path.is_dir():
        name = path.name.removesuffix(".gz")
        return [(next((known for known in BENCHMARKS if known.files == (name,)), None), (path,))]
    tests = [known for known in BENCHMARKS if known.published is not None]
    for folders in ([path], sorted(child for child in path.iterdir() if child.is_dir())):
        found: list[tuple[Benchmark | None, tuple[Path, ...]]] = []
        for known, folder in product(tests, folders):
            places = ([folder / name, folder / f"{name}.gz"] for name in known.files)
            files = tuple(file for plain, packed in places for file in (plain, packed) if file.is_file())
            if len(files) >= len(known.files):
                found.append((known, files[: len(known.files)]))
        if found:
            return found
    listed = ", ".join(" + ".join(known.files) for known in tests)
    raise ValueError(f"{path}: a folder without any known test set ({listed}); give the file itself")
