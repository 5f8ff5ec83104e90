"""One DuckDB file: its tables, how it is opened, how vectors go in and out.

=========  ==========================================================================================================
table      a row
=========  ==========================================================================================================
meta       a name and a value in JSON: schema version, fingerprint of the model, width, settings
documents  number, id, text, metadata (JSON), hash of the content, source
chunks     document (its number), number (from 0), start and stop in the text, vector ``FLOAT[D]``
=========  ==========================================================================================================

A file appears whole, with its tables, or not at all; after that DuckDB's transactions keep it whole if the process is
killed. One process writes, or several read. DuckDB converts arrays to NumPy number by number, as objects, so each
dimension is read as a column of its own, in blocks, with a small cache: no second copy of the vectors.

Letters: ``M`` chunks, ``D`` width of a vector.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.model import Array
from minisbert.search.errors import DatabaseError, OutOfMemory, connect, explain, require_duckdb

__all__ = ["Storage", "Vectors", "create"]

SCHEMA_VERSION = 1
MAGIC = slice(8, 12)  # of a DuckDB file: "DUCK"
BLOCK_BYTES = 6 * 2**20  # of vectors, read at a time
LEAST_CACHE = 16 * 2**20  # bytes: DuckDB's cache while it reads a narrow table
MOST_CACHE = 2**30  # the cache grows as needed, up to this
TABLES = """
CREATE TABLE meta (name VARCHAR PRIMARY KEY, value JSON NOT NULL);
CREATE TABLE documents (
    number BIGINT NOT NULL, id VARCHAR PRIMARY KEY, text VARCHAR NOT NULL, metadata JSON NOT NULL,
    hash VARCHAR NOT NULL, source VARCHAR NOT NULL
);
CREATE TABLE chunks (
    document BIGINT NOT NULL, number INTEGER NOT NULL, start BIGINT NOT NULL, stop BIGINT NOT NULL,
    vector FLOAT[{width}] NOT NULL
);
"""


@dataclass(frozen=True)
class Vectors:
    """All chunks, in the order in which they were added."""

    documents: Array  # (M,) int64, document numbers
    numbers: Array  # (M,) int32, from 0 in each document
    starts: Array  # (M,) int64, characters of the document, [start, stop)
    stops: Array  # (M,) int64
    vectors: Array  # (M, D) float32


class Storage:
    """An open file. One process may write, or several may read."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        require_duckdb()
        self.path, self.read_only = path, read_only
        _check_file(path)
        with explain(path):
            self._connection = connect(str(path.resolve()), read_only=read_only)
        try:
            self.meta = self._read_meta()
        except BaseException:
            self.close()
            raise

    def _read_meta(self) -> dict[str, Any]:
        """Read the table ``meta``; raise if the file is not ours or too new."""
        tables = {name for (name,) in self.rows("SELECT table_name FROM information_schema.tables")}
        if not {"meta", "documents", "chunks"} <= tables:
            raise DatabaseError(f"{self.path}: a DuckDB file, but not one that `minisbert index` created")
        meta = {name: json.loads(value) for name, value in self.rows("SELECT name, value FROM meta")}
        if meta.get("schema_version") != SCHEMA_VERSION:
            raise DatabaseError(
                f"{self.path}: has schema version {meta.get('schema_version')}, this minisbert reads "
                f"{SCHEMA_VERSION}; use the minisbert that created it, or build it again"
            )
        return meta

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return all rows."""
        with explain(self.path):
            return self._connection.execute(sql, list(parameters)).fetchall()

    def columns(self, sql: str, parameters: Sequence[Any] = ()) -> dict[str, Array]:
        """Run a query and return its columns as arrays."""
        with explain(self.path):
            return self._connection.execute(sql, list(parameters)).fetchnumpy()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside take effect, or none."""
        if self.read_only:
            raise DatabaseError(f"{self.path}: opened read-only")
        self.rows("BEGIN TRANSACTION")
        try:
            yield
            self.rows("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        """End a failed transaction; DuckDB has ended it itself if the commit failed."""
        duckdb = require_duckdb()
        try:
            self._connection.execute("ROLLBACK").fetchall()
        except duckdb.Error:
            return

    def insert_chunks(self, places: Mapping[str, Array], vectors: Array) -> None:
        """Add chunks: their places, keyed by column, and their vectors ``(M, D)``."""
        names = [f"v{d}" for d in range(vectors.shape[1])]
        columns = {**places, **{name: np.ascontiguousarray(vectors[:, d]) for d, name in enumerate(names)}}
        with explain(self.path):
            self._connection.register("new_chunks", columns)  # NumPy columns are read in place
            try:
                self._connection.execute(
                    f"INSERT INTO chunks SELECT document, number, start, stop, array_value({', '.join(names)}) "
                    "FROM new_chunks"
                ).fetchall()
            finally:
                self._connection.unregister("new_chunks")

    def load_vectors(self) -> Vectors:
        """Read all chunks' vectors into one array, in the order of their documents."""
        cache = max(LEAST_CACHE, 6 * 2048 * 4 * self.meta["width"])  # DuckDB works on 2,048 rows at a time
        while True:
            try:
                with self._small_cache(cache):
                    loaded = self._copy_vectors()
                break
            except OutOfMemory:  # the minimum depends on DuckDB's version
                cache *= 2
                if cache > MOST_CACHE:
                    raise
        order = np.lexsort((loaded.numbers, loaded.documents))
        if (order[1:] > order[:-1]).all():  # DuckDB keeps the order of insertion
            return loaded
        documents, numbers, starts, stops = (
            place[order] for place in (loaded.documents, loaded.numbers, loaded.starts, loaded.stops)
        )
        return Vectors(documents, numbers, starts, stops, loaded.vectors[order])

    def _copy_vectors(self) -> Vectors:
        """Copy all chunks, a block at a time."""
        width = self.meta["width"]
        ((count, end),) = self.rows("SELECT count(*), coalesce(max(rowid), -1) + 1 FROM chunks")
        loaded = Vectors(
            documents=np.empty(count, np.int64),
            numbers=np.empty(count, np.int32),
            starts=np.empty(count, np.int64),
            stops=np.empty(count, np.int64),
            vectors=np.empty((count, width), np.float32),
        )
        places = loaded.documents, loaded.numbers, loaded.starts, loaded.stops
        dimensions = ", ".join(f"vector[{d}]" for d in range(1, width + 1))
        step, filled = max(256, BLOCK_BYTES // (4 * width)), 0
        for first in range(0, end, step):
            found = self.columns(
                f"SELECT document, number, start, stop, {dimensions} FROM chunks "
                f"WHERE rowid >= {first} AND rowid < {first + step}"
            )
            columns = list(found.values())
            part = slice(filled, filled + len(columns[0]))
            for place, column in zip(places, columns, strict=False):
                place[part] = column
            for d, column in enumerate(columns[len(places) :]):
                loaded.vectors[part, d] = column
            filled = part.stop
        return loaded

    @contextmanager
    def _small_cache(self, cache: int) -> Iterator[None]:
        """Limit DuckDB's memory while the vectors are copied."""
        ((before,),) = self.rows("SELECT current_setting('memory_limit')")
        threads = self.rows("SELECT current_setting('threads')")[0][0]
        try:
            self.rows(f"SET memory_limit = '{cache // 1000}KB'")
            self.rows("SET threads = 1")
            yield
        finally:
            self.rows(f"SET memory_limit = '{before}'")
            self.rows(f"SET threads = {int(threads)}")

    def close(self) -> None:
        """Release the file, so that other processes can open it."""
        with explain(self.path):
            self._connection.close()


def create(path: Path, width: int, meta: Mapping[str, Any]) -> None:
    """Make an empty database for vectors of a width, with ``meta`` about it; it appears whole or not at all.

    A file of that name, or the remains of one, and a missing folder raise a `DatabaseError`.
    """
    require_duckdb()
    target = path.resolve()
    log = target.with_name(target.name + ".wal")
    if target.exists() or log.exists():
        left = target if target.exists() else log
        raise DatabaseError(f"{left}: already exists; choose another name, or remove it")
    if not target.parent.is_dir():
        raise DatabaseError(f"{path}: the folder {path.parent} does not exist; create it first")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        with explain(path):
            unfinished.unlink(missing_ok=True)
            connection = connect(str(unfinished))
            try:
                connection.execute(TABLES.format(width=int(width))).fetchall()
                values = {**meta, "width": int(width), "schema_version": SCHEMA_VERSION}
                for name, value in values.items():
                    connection.execute("INSERT INTO meta VALUES (?, ?)", [name, json.dumps(value)]).fetchall()
            finally:
                connection.close()
        _move(unfinished, target)
    except FileExistsError:
        raise DatabaseError(f"{path}: another process has just created it; run the command again") from None
    finally:
        unfinished.unlink(missing_ok=True)
        unfinished.with_name(unfinished.name + ".wal").unlink(missing_ok=True)


def _move(unfinished: Path, target: Path) -> None:
    """Rename a file, unless another process has put something there meanwhile."""
    try:
        os.link(unfinished, target)  # renaming would replace
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(str(target)) from None
        unfinished.rename(target)


def _check_file(path: Path) -> None:
    """Reject anything but a DuckDB file before DuckDB sees it: for some others it would download an extension."""
    if not path.exists():
        raise DatabaseError(f"{path}: does not exist; create it with `minisbert index build {path} FILES...`")
    if not path.is_file():
        raise DatabaseError(f"{path}: a folder or device; expected a DuckDB file")
    with path.open("rb") as stream:
        if stream.read(16)[MAGIC] != b"DUCK":
            raise DatabaseError(f"{path}: not a DuckDB file, or damaged at the start")
