"""``minisbert embed --engine ray`` on a local cluster of two processors: no row lost, none twice, whoever is killed."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from running import process, refused, run, stand_in
from tiny import write_model

from minisbert import SentenceEncoder

COUNT = 250
# 1 MB, four pieces for two workers; four times of it go on for long enough after the first file
TEXTS = [f"{i} " + "the cat sat on the mat. i love soup, unable! " * (60 + i % 60) for i in range(COUNT)]
IDS, NAMES = [7 * i - 90 for i in range(COUNT)], [f"n°{i}" for i in range(4 * COUNT)]
# chunks make a tiny model slow enough to be killed
SETTINGS = ["--overflow", "chunk", "--normalize", "--column", "body", "--id", "key", "--block-texts", 20]
START = "start --head --block --num-cpus 2 --port 0 --no-monitor --include-dashboard false --include-log-monitor false"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("bulk") / "tiny-model")


@pytest.fixture(autouse=True)
def in_its_own_folder(ray, tmp_path, monkeypatch, model):
    stand_in(tmp_path, monkeypatch, model)


@pytest.fixture(scope="module")
def cluster(ray):
    """The address of a cluster: RAY_ADDRESS, or one in processes of its own."""
    if "RAY_ADDRESS" in os.environ:
        yield os.environ["RAY_ADDRESS"]
        return
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory(prefix="ray") as folder:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("RAY_AUTH_MODE", "disabled")
        patched.setenv("RAY_worker_niceness", "0")
        command = [sys.executable, "-m", "ray.scripts.scripts", *START.split(), "--temp-dir", folder]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        for _ in range(5):  # Ray gives up after 30 s, which a busy machine may need
            with subprocess.Popen(command, start_new_session=True, **pipes) as head:
                try:
                    lines = iter(head.stdout.readline, "")
                    line = next((line for line in lines if "--address='" in line or "Exception" in line), "")
                    if found := re.search("--address='(.*)'", line):
                        yield found[1]
                        return
                finally:
                    os.killpg(head.pid, signal.SIGKILL)
    pytest.fail("Ray did not start")


def rows_of(*files):
    """The ids, hashes and vectors of Parquet files, in the order of the ids."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.concat_tables(map(parquet.read_table, files)).sort_by("id")
    return table["id"].to_pylist(), table["text_sha256"].to_pylist(), np.array(table["embedding"].to_pylist())


def write_input(name="in.parquet", **columns):
    """A table of ids, texts and something else."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({**columns, "more": columns["body"]}), name)


def started(address):
    """Begin a run."""
    command = [sys.executable, "-m", "minisbert", "embed", "in.parquet", "-o", "out", "--engine", "ray"]
    command += ["--address", address, *map(str, SETTINGS)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(running, look):
    """What is there to see, as soon as it is and while the run goes on."""
    while running.poll() is None:
        if found := look():
            return found
        time.sleep(0.01)
    pytest.fail(f"ended before: {running.communicate()[1]}")


def busy_worker():
    """The process of a Ray worker that embeds: they are named after what they do."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"MapWorker(MapBatches(BatchEncoder)).submit" in file.read_bytes():
                return int(file.parent.name)
        except OSError:
            continue  # it has ended
    return None


def whole(folder):
    """The files that are written to their end."""
    return [file for file in folder.glob("*.parquet") if file.read_bytes()[-4:] == b"PAR1"]


def check_rows(ids):
    """The rows in `out`: each row of the input once, and what the local engine makes of it."""
    run("embed", "-i", "in.parquet", "-o", "local.parquet", *SETTINGS)
    found, hashes, vectors = rows_of(*Path("out").glob("*.parquet"))
    expected = rows_of("local.parquet")
    assert found == expected[0] == sorted(ids) and hashes == expected[1]
    np.testing.assert_allclose(vectors, expected[2], rtol=0, atol=1e-6)


def test_a_worker_killed_in_mid_run_costs_no_row_and_doubles_none(cluster):
    write_input(key=IDS, body=TEXTS)
    running = started(cluster)
    os.kill(wait_for(running, busy_worker), signal.SIGKILL)
    assert not Path("out").exists()
    said = running.communicate()[1]
    assert running.returncode == 0 and f"wrote {COUNT} float32 vectors of 12 dimensions" in said, said
    assert sorted(os.listdir()) == ["in.parquet", "out"]
    check_rows(IDS)
    duckdb, pandas = pytest.importorskip("duckdb"), pytest.importorskip("pandas")
    found = duckdb.sql("select count(*), max(len(embedding)), min(len(embedding)) from 'out/*.parquet'").fetchall()
    assert found == [(COUNT, 12, 12)] and len(pandas.read_parquet("out")) == COUNT


def test_a_killed_driver_is_run_again_and_what_was_done_is_kept(cluster):
    write_input(key=NAMES, body=TEXTS * 4)
    running = started(cluster)
    wait_for(running, lambda: whole(Path(".out.parts/vectors")))
    running.kill()
    running.communicate()
    command = ["embed", "in.parquet", "-o", "out", "--engine", "ray", "--address", cluster, *SETTINGS]
    assert "continue it with --resume" in refused(*command)
    assert "max-seq-length was 16, now 8" in refused(*command, "--resume", "--max-seq-length", 8)
    write_input("other.parquet", key=NAMES, body=TEXTS[::-1] * 4)
    assert "input was" in refused("embed", "other.parquet", *command[2:], "--resume")
    kept = {file.name for file in whole(Path(".out.parts/vectors"))}
    half = Path(".out.parts/vectors/half.parquet")  # as a write that is killed leaves it
    half.write_bytes(next(Path(".out.parts/vectors").glob("*.parquet")).read_bytes()[:-9])
    done = process(*command, "--resume", timeout=None)
    assert done.returncode == 0, done.stderr.decode()
    there = set(os.listdir("out"))
    assert kept and kept < there and half.name not in there and not Path(".out.parts").exists()
    check_rows(NAMES)
    assert "already complete" in run(*command, "--resume").stderr
    assert "already exists" in refused(*command)
    assert "other settings: input was" in refused("embed", "other.parquet", *command[2:], "--resume")


def test_a_row_without_a_text_is_named(cluster):
    write_input(key=["a", "b", "c"], body=["soup", "cat", None])
    done = process("embed", "in.parquet", "-o", "out", "--engine", "ray", "--address", cluster, *SETTINGS, timeout=None)
    assert done.returncode == 1 and b"Error: a worker failed: the row with the id 'c' has no text" in done.stderr
    assert not Path("out").exists()


def test_a_worker_gives_the_encoder_s_vectors_and_takes_the_threads_of_its_slot(model, monkeypatch):
    import pyarrow as pa
    import ray

    from minisbert import bulk

    encoder = SentenceEncoder(model)
    worker = bulk.BatchEncoder(model, text_column="body", id_column="key", fingerprint=encoder.fingerprint())
    batch = pa.table({"key": ["x", "y"], "body": ["the cat", "soup"]})
    found = worker(batch)
    assert found["id"].to_pylist() == ["x", "y"] and worker.encoding == {}
    np.testing.assert_array_equal(found["embedding"].to_pylist(), encoder.encode(["the cat", "soup"]))
    with pytest.raises(ValueError, match="another model"):
        bulk.BatchEncoder(model, fingerprint="0" * 64)

    class Slot:  # what Ray says in a worker with three processors
        get_actor_id = staticmethod(lambda: "a")
        get_assigned_resources = staticmethod(lambda: {"CPU": 3.0})

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", Slot)
    assert bulk.BatchEncoder(model).encoding == {"num_threads": 3}


@pytest.mark.parametrize(
    ("columns", "more", "code", "said"),
    [
        ({"key": [1, 2, 1]}, [], 1, "the id 1 in 'key' stands in 2 rows"),
        ({"key": ["a", "b", None]}, [], 1, "1 of 3 rows have no id"),
        ({"key": [1.5, 2.5, 3.5]}, [], 1, "must be whole numbers or strings, got double"),
        ({"key": np.array([2**64 - 1, 2, 3], np.uint64)}, [], 1, "must fit in 64 bits"),
        ({"other": [1, 2, 3]}, [], 1, "no column 'key'"),
        ({"key": [1, 2, 3]}, ["-o", "out.npy"], 2, "-o is a folder"),
        ({"key": [1, 2, 3]}, ["-o", "there"], 1, "already exists"),
        ({"key": [1, 2, 3]}, ["-o", "there", "--force"], 1, "not overwritten"),
        ({"key": [1, 2, 3]}, ["-o", "there/out", "there"], 1, "belongs to the input there"),
        ({"key": [1, 2, 3]}, ["-o", "no/out"], 1, "does not exist"),
        ({"key": [1, 2, 3]}, ["--input-format", "csv"], 2, "reads Parquet"),
        ({"key": [1, 2, 3]}, ["text.txt"], 1, "not readable as Parquet"),
        ({"key": [1, 2, 3]}, ["nothing"], 1, "expected a file of Parquet"),
    ],
)
def test_refused_before_ray_starts(columns, more, code, said):
    write_input(**columns, body=["a", "b", "c"])
    Path("there").mkdir()
    Path("there/letter.txt").touch()
    Path("text.txt").write_text("soup")
    before = sorted(os.listdir())
    assert said in refused("embed", "in.parquet", "-o", "out", "--engine", "ray", *SETTINGS, *more, code=code)
    assert sorted(os.listdir()) == before
