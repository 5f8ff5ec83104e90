"""Bulk work on many machines with Ray Data (extra ``ray``): Parquet in, a folder of Parquet files with vectors out.

Ray deals out the rows and replaces workers that die; what is done is told by the ids in the files that are there.
:class:`BatchEncoder` is a worker, and ``minisbert embed --engine ray`` runs all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.encoder import SentenceEncoder
from minisbert.model import Array

__all__ = ["BatchEncoder", "embed_parquet", "vector_table"]

PIECE = 256 * 1024
"""Bytes of texts that a worker gets at a time: seconds of work, so that all have some and little is lost in a crash."""


def vector_table(ids: Any, texts: Sequence[str], vectors: Array) -> Any:
    """The columns of every Parquet file of vectors: id, the text's SHA-256, the vector as a list of fixed size."""
    import pyarrow as pa

    width = pa.list_(pa.from_numpy_dtype(vectors.dtype), vectors.shape[1])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=width)
    hashes = pa.array([sha256(text.encode()).hexdigest() for text in texts], pa.string())
    return pa.table({"id": ids, "text_sha256": hashes, "embedding": flat})


class BatchEncoder:
    """A worker for Ray Data's ``map_batches``: a table with ids and texts in, a table with ids and vectors out.

    Parameters
    ----------
    model : str or path, optional
        A name or a folder, loaded once a worker. With a folder that every machine has in the same place, such as on a
        shared disk, workers use no network.
    id_column, text_column : str
        Of the table that comes in. The one that goes out has the columns ``id``, ``text_sha256`` and ``embedding``, the
        last a list of fixed size, as DuckDB, pandas and Polars read it.
    fingerprint : str, optional
        ``SentenceEncoder.fingerprint()`` of the model that is meant: a machine with another one refuses to work.
    dtype, max_seq_length
        As of `SentenceEncoder`.
    **encoding
        As of `SentenceEncoder.encode`. ``num_threads`` is the number of CPUs that Ray gives to the worker.

    Raises
    ------
    ValueError
        For a row without a text, naming its id, and as `SentenceEncoder`.

    Examples
    --------
    With Ray: ``ray.data.read_parquet("texts.parquet").map_batches(BatchEncoder, batch_format="pyarrow",
    batch_size=2048, num_cpus=1, concurrency=(1, 100)).write_parquet("vectors")``. One batch by hand:

    >>> import pyarrow
    >>> worker = BatchEncoder()
    >>> found = worker(pyarrow.table({"id": [7, 8], "text": ["i love soup", "london is far away"]}))
    >>> found["id"].to_pylist(), found.schema.field("embedding").type
    ([7, 8], FixedSizeListType(fixed_size_list<item: float>[384]))
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        id_column: str = "id",
        text_column: str = "text",
        fingerprint: str | None = None,
        dtype: Any = "float32",
        max_seq_length: int | None = None,
        **encoding: Any,
    ) -> None:
        import ray

        self.encoder = SentenceEncoder(model, dtype=dtype, max_seq_length=max_seq_length)
        if fingerprint not in (None, self.encoder.fingerprint()):
            raise ValueError(f"BatchEncoder: {model} on this machine is another model than the one that is meant")
        self.id_column, self.text_column, self.encoding = id_column, text_column, encoding
        if ray.is_initialized() and ray.get_runtime_context().get_actor_id():
            slot = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
            self.encoding = {"num_threads": max(1, int(slot)), **encoding}

    def __call__(self, batch: Any) -> Any:
        """``batch_format="pyarrow"``: a table of so many rows in and out, in the same order."""
        ids, texts = batch[self.id_column], batch[self.text_column].to_pylist()
        if None in texts:
            missing = ids[texts.index(None)].as_py()
            raise ValueError(f"the row with the id {missing!r} has no text in {self.text_column!r}")
        return vector_table(ids, texts, self.encoder.encode(texts, **self.encoding))


def embed_parquet(
    files: Sequence[str], folder: Path, worker: Mapping[str, Any], schema: Any, num_cpus: int, file_rows: int
) -> None:
    """Embed Parquet files into a folder of files of at least ``file_rows`` rows, in no order, except ids that it has.

    Ids must be unique. ``worker`` has the arguments of :class:`BatchEncoder`; each worker gets ``num_cpus`` CPUs, and
    they take all that the cluster has. Reading and writing therefore ask for none, or they would wait for ever. That is
    why neither ``read_parquet`` nor ``CheckpointConfig`` is used: in Ray 2.60 the one's listing of files and the
    other's filter of ids take a CPU each.
    """
    import ray
    import ray.data

    slots = max(1, int(ray.cluster_resources().get("CPU", 1)) // num_cpus)
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = PIECE
    with ray.data.DataContext.current(context):
        columns, done = [worker["id_column"], worker["text_column"]], ray.put(np.sort(finished_ids(folder)))
        rows = ray.data.from_items(list(files), override_num_blocks=len(files)).map_batches(
            _read, fn_args=(columns, done), batch_size=1, batch_format="pyarrow", num_cpus=0
        )
        vectors = rows.map_batches(
            BatchEncoder,
            fn_constructor_kwargs=dict(worker),
            batch_size=None,  # a block is a batch
            batch_format="pyarrow",
            num_cpus=num_cpus,
            compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=slots),
        )
        vectors.write_parquet(str(folder), schema=schema, min_rows_per_file=file_rows, ray_remote_args={"num_cpus": 0})


def finished_ids(folder: Path) -> Any:
    """The ids in a folder of Parquet files, (M,); a file that a killed process left without its end is removed."""
    import pyarrow as pa
    from pyarrow import parquet

    found = []
    for file in sorted(folder.glob("*.parquet")):
        try:
            found.append(parquet.read_table(file, columns=["id"])["id"].to_numpy())
        except pa.ArrowInvalid:  # the table of contents, which is written last, is missing
            file.unlink()
    return np.concatenate(found) if found else np.array([])


def _read(files: Any, columns: list[str], done: Any) -> Iterator[Any]:
    """Blocks of the files' rows whose ids, the first of the columns, are not in ``done``, a sorted array."""
    import pyarrow as pa
    import ray
    from pyarrow import parquet

    finished = ray.get(done)
    for file in files["item"].to_pylist():
        for batch in parquet.ParquetFile(file).iter_batches(1024, columns=columns):
            rows = pa.table(batch).select(columns)
            if len(finished):
                ids = rows[0].to_numpy()
                place = np.searchsorted(finished, ids).clip(max=len(finished) - 1)
                rows = rows.filter(pa.array(finished[place] != ids))
            yield rows
