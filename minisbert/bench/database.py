"""How fast is the embedding database, and how much memory does it take? Measured on random vectors.

``python -m minisbert.bench.database 100000``

Random vectors take as long to compare as real ones. Embedding the query, which is the encoder's time, is not measured.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from minisbert.bench.worker import peak_mib, timed
from minisbert.checks import require
from minisbert.search.database import EmbeddingDatabase, _create

WIDTH = 384


def write_database(file: Path, documents: int, width: int = WIDTH) -> None:
    """Write random unit vectors, one a document."""
    settings = {"chunk_tokens": 256, "overlap": 0, "document_prompt": "", "query_prompt": "", "similarity": "cosine"}
    _create(file, {"model": "random", "fingerprint": "", "settings": settings, "width": width})
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


def measure_database(file: Path, queries: int = 50) -> dict[str, float]:
    """Open a database and search it, in this process.

    ``load_s`` is to open the file and load the vectors; ``p50_ms`` a query, the median, and ``where_p50_ms`` with a
    condition that half of the documents meet; ``extra_mib`` the growth of peak memory beside the vectors.
    """
    require("duckdb", "search", "the benchmark").connect().sql("SELECT 1").to_arrow_table()  # imports are not measured
    before, begin = peak_mib(), time.perf_counter()
    with EmbeddingDatabase.open(file, read_only=True) as index:
        vectors = index.load().vectors
        found, mib = {"load_s": time.perf_counter() - begin}, vectors.nbytes / 2**20
        asked = np.random.default_rng(1).standard_normal((queries + 1, vectors.shape[1]), np.float32)
        for name, where in (("p50_ms", None), ("where_p50_ms", "lang = 'en'")):
            search = partial(index.search_vectors, where=where)
            search(asked[0])  # warms up
            found[name] = 1000.0 * median(timed(search, query) for query in asked[1:])
        extra = peak_mib() - before - mib
        return {**found, "extra_mib": extra, "vectors_mib": mib, "file_mib": file.stat().st_size / 2**20}


if __name__ == "__main__":
    if len(sys.argv) == 3:  # a fresh process, so that its memory is not mixed with that of writing
        print(measure_database(Path(sys.argv[2])))  # noqa: T201
    else:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "random.duckdb"
            write_database(place, int(sys.argv[1]))
            subprocess.run([sys.executable, "-m", "minisbert.bench.database", sys.argv[1], str(place)], check=True)
