"""DuckDB, imported when needed, and its errors in our words: the file, the cause, the way out.

DuckDB distinguishes its errors by their text more than by their class, so the text is matched, and always quoted.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["DatabaseError", "OutOfMemory", "connect", "explain", "require_duckdb"]

INSTALL = "pip install -e '.[search]'"

NO_EXTENSIONS = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
OUT_OF_MEMORY = r"Out of Memory|could not allocate|failed to allocate"
# DuckDB's text, and what to do about it.
_CAUSES = (
    (
        r"Could not set lock",
        "another process{pid} has it open. One process writes, or several read: wait for it to end, or end it",
    ),
    (r"different configuration", "this process has it open in another way; close that one first"),
    (
        r"No space left|File too large|disk.*full|Could not write|fsync|Disk quota",
        "the disk is full or over quota. What was committed before is kept; free some space and run the same command "
        "again",
    ),
    (
        r"checksum|[Cc]orrupt|Could not read enough bytes|[Ss]erializ|not a valid DuckDB|WAL file|invalidated",
        "the file is damaged. Restore a copy, or remove it and build it again from the documents",
    ),
    (r"version number|newer version|storage version", "another version of DuckDB created it; install a later one"),
    (OUT_OF_MEMORY, "not enough memory; close other programs"),
    (r"[Pp]ermission denied|[Rr]ead-only", "no permission to write; check its permissions"),
)


class DatabaseError(ValueError):
    """A database that cannot be read or written: the file, the cause, and the way out."""


class OutOfMemory(DatabaseError):
    """DuckDB needs more memory than it may use."""


def require_duckdb() -> Any:
    """Import DuckDB, or raise a ValueError with the command that installs it."""
    try:
        return importlib.import_module("duckdb")
    except ImportError:
        raise ValueError(f"the embedding database needs duckdb: {INSTALL}") from None


def connect(file: str = ":memory:", *, read_only: bool = False, other_files: bool = False) -> Any:
    """Open a DuckDB file, or an empty database in memory.

    SQL reads no other file unless ``other_files``; extensions are never loaded from the network, and no progress bar is
    drawn (DuckDB would, in a notebook or under ``python -c``).
    """
    config = {**NO_EXTENSIONS, "enable_external_access": str(other_files).lower()}
    connection = require_duckdb().connect(file, read_only=read_only, config=config)
    connection.execute("SET enable_progress_bar = false").fetchall()
    return connection


@contextmanager
def explain(path: Path) -> Iterator[None]:
    """Turn DuckDB's errors into a `DatabaseError`: the file, the cause, the way out, and DuckDB's own words."""
    duckdb = require_duckdb()
    try:
        yield
    except (duckdb.Error, RuntimeError) as error:  # DuckDB raises some of its own as RuntimeError
        _raise(path, error)


def _raise(path: Path, error: Exception) -> NoReturn:
    words = str(error).splitlines()[0] if str(error) else type(error).__name__
    process = re.search(r"\(PID (\d+)\)", str(error))
    for pattern, cause in _CAUSES:
        if re.search(pattern, words):
            said = cause.format(pid=f", number {process[1]}," if process else "") if "{pid}" in cause else cause
            kind = OutOfMemory if pattern == OUT_OF_MEMORY else DatabaseError
            raise kind(f"{path}: {said}. (DuckDB: {words})") from error
    raise DatabaseError(f"{path}: DuckDB failed: {words}") from error
