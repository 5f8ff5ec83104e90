"""How fast is the embedding database, and how much memory does it take? Measured on random vectors.

``python -c "from minisbert.bench.database import time_database; print(time_database(100_000))"``

Random vectors take as long to compare as real ones. Embedding the query, which is the encoder's time, is not measured.
Letters: ``M`` documents, ``D`` width of a vector.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minisbert.bench.worker import peak_mib
from minisbert.model import Array
from minisbert.search.database import EmbeddingDatabase
from minisbert.search.errors import require_duckdb
from minisbert.search.storage import Storage, create

__all__ = ["DatabaseTime", "time_database"]

BLOCK = 10_000  # documents written at a time
# A fresh process, so that its memory is not mixed with that of writing the file.
_MEASURE = """
import sys, time
from minisbert.bench.database import measure_database
print(repr(measure_database(sys.argv[1], int(sys.argv[2]))))
"""


@dataclass(frozen=True)
class DatabaseTime:
    """Time and memory of opening and searching a database."""

    load_s: float  # seconds to open the file and load the vectors
    p50_ms: float  # median milliseconds per query, in memory
    p95_ms: float
    where_p50_ms: float  # the same with a condition that half of the documents meet
    sql_p50_ms: float  # the same in SQL, without a condition
    memory_ratio: float  # growth of peak memory by loading and searching, in multiples of the vectors
    duckdb_mib: float  # DuckDB's fixed memory, on top
    file_mib: float


def time_database(documents: int, width: int = 384, queries: int = 50) -> DatabaseTime:
    """Build a database of random vectors in a temporary folder, and measure it in a fresh process; needs DuckDB."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "synthetic.duckdb"
        _write(file, documents, width)
        command = [sys.executable, "-c", _MEASURE, str(file), str(queries)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    values = [float(number) for number in told.strip("()\n").split(",")]
    return DatabaseTime(*values)


def _write(file: Path, documents: int, width: int) -> None:
    """Write random unit vectors as documents are written, one block per transaction."""
    rng = np.random.default_rng(0)
    settings = {"chunk_tokens": 256, "overlap": 0, "document_prompt": "", "query_prompt": "", "similarity": "cosine"}
    create(file, width, {"model": "random", "fingerprint": "", "settings": settings})
    storage = Storage(file)
    try:
        for first in range(0, documents, BLOCK):
            numbers = np.arange(first, min(first + BLOCK, documents))
            vectors = rng.standard_normal((len(numbers), width), np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            zeros = np.zeros(len(numbers), np.int64)
            places: dict[str, Array] = {
                "document": numbers,
                "number": zeros.astype(np.int32),
                "start": zeros,
                "stop": zeros + 4,
            }
            with storage.transaction():
                storage.rows(
                    "INSERT INTO documents SELECT i, 'd' || i, 'text', "
                    "CASE WHEN i % 2 = 0 THEN '{\"lang\": \"en\"}' ELSE '{\"lang\": \"fr\"}' END, '', '' "
                    "FROM range(?::BIGINT, ?::BIGINT) AS numbers(i)",
                    [int(numbers[0]), int(numbers[-1]) + 1],
                )
                storage.insert_chunks(places, vectors)
    finally:
        storage.close()


def measure_database(file: str, queries: int) -> tuple[float, ...]:
    """Measure in this process: the fields of :class:`DatabaseTime`."""
    start = peak_mib() or math.nan
    require_duckdb().connect().execute("SELECT 1").fetchall()
    before = peak_mib() or math.nan
    begin = time.perf_counter()
    with EmbeddingDatabase.open(file, read_only=True, in_sql=False) as index:
        index.load()
        load_s = time.perf_counter() - begin
        about = index.info()
        asked = np.random.default_rng(1).standard_normal((queries, about.width), np.float32)
        plain = _milliseconds(index, asked, None)
        after, vectors_mib = peak_mib() or math.nan, about.chunks * about.width * 4 / 2**20
        filtered = _milliseconds(index, asked, "lang = 'en'")
    with EmbeddingDatabase.open(file, read_only=True, in_sql=True) as index:
        in_sql = _milliseconds(index, asked[: max(1, queries // 5)], None)
    p50, p95 = np.percentile(plain, [50, 95])
    return (
        *(load_s, float(p50), float(p95), float(np.median(filtered)), float(np.median(in_sql))),
        *((after - before) / vectors_mib, before - start, about.file_bytes / 2**20),
    )


def _milliseconds(index: EmbeddingDatabase, asked: Array, where: str | None) -> list[float]:
    """Time one search per query, after a warm-up that is not counted."""
    index.search_vectors(asked[0], 10, where)
    times = []
    for query in asked:
        begin = time.perf_counter()
        index.search_vectors(query, 10, where)
        times.append(1000.0 * (time.perf_counter() - begin))
    return times
