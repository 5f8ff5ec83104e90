"""How fast is the embedding database, and how much memory does it take? Measured on random vectors.

``python -m minisbert.bench.database 100000``

Random vectors take as long to compare as real ones. Embedding the query, which is the encoder's time, is not measured.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.bench.worker import peak_mib
from minisbert.checks import require
from minisbert.search.database import SCHEMA_VERSION, EmbeddingDatabase, _create

__all__ = ["DatabaseTime", "measure_database", "write_database"]

WIDTH = 384


@dataclass(frozen=True)
class DatabaseTime:
    """Time and memory of opening and searching a database."""

    load_s: float  # to open the file and load the vectors
    p50_ms: float  # a query, the median
    where_p50_ms: float  # with a condition that half of the documents meet
    extra_mib: float  # growth of peak memory by loading and searching, beside the vectors
    vectors_mib: float
    file_mib: float


def write_database(file: Path, documents: int, width: int = WIDTH) -> None:
    """Write random unit vectors, one a document."""
    settings = {"chunk_tokens": 256, "overlap": 0, "document_prompt": "", "query_prompt": "", "similarity": "cosine"}
    about = {"model": "random", "fingerprint": "", "settings": settings, "width": width}
    _create(file, {**about, "schema_version": SCHEMA_VERSION})
    arrow, rng = require("pyarrow", "search", "the benchmark"), np.random.default_rng(0)
    with EmbeddingDatabase.open(file) as index:
        for first in range(0, documents, 10_000):
            numbers = np.arange(first, min(first + 10_000, documents))
            vectors = rng.standard_normal((len(numbers), width), np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            columns = {
                "i": numbers,
                "vector": arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.ravel()), width),
            }
            with index._change() as cursor:
                cursor.register("incoming", arrow.table(columns))
                lang = 'CASE WHEN i % 2 = 0 THEN \'{"lang": "en"}\' ELSE \'{"lang": "fr"}\' END'
                cursor.execute(f"INSERT INTO documents SELECT i, 'd' || i, 'text', {lang}, '', '' FROM incoming")
                cursor.execute("INSERT INTO chunks SELECT i, 0, 0, 4, vector FROM incoming")


def measure_database(file: Path, queries: int = 50) -> DatabaseTime:
    """Open a database and search it, in this process."""
    require("duckdb", "search", "the benchmark").connect().sql("SELECT 1").to_arrow_table()  # imports are not measured
    before, begin = peak_mib(), time.perf_counter()
    with EmbeddingDatabase.open(file, read_only=True) as index:
        vectors = index.load().vectors
        load_s = time.perf_counter() - begin
        asked = np.random.default_rng(1).standard_normal((queries, vectors.shape[1]), np.float32)
        plain = _milliseconds(index.search_vectors, asked)
        filtered = _milliseconds(lambda query: index.search_vectors(query, where="lang = 'en'"), asked)
        mib = vectors.nbytes / 2**20
        extra = (peak_mib() or np.nan) - (before or np.nan) - mib
        return DatabaseTime(load_s, plain, filtered, extra, mib, file.stat().st_size / 2**20)


def _milliseconds(search: Callable[[Any], Any], asked: Any) -> float:
    """The median of one search a query, after a warm-up."""
    search(asked[0])
    times = []
    for query in asked:
        begin = time.perf_counter()
        search(query)
        times.append(1000.0 * (time.perf_counter() - begin))
    return float(np.median(times))


if __name__ == "__main__":
    if len(sys.argv) == 3:  # a fresh process, so that its memory is not mixed with that of writing
        print(measure_database(Path(sys.argv[2])))  # noqa: T201
    else:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "random.duckdb"
            write_database(place, int(sys.argv[1]))
            subprocess.run([sys.executable, "-m", "minisbert.bench.database", sys.argv[1], str(place)], check=True)
