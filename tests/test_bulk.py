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

COUNT = 250
TEXTS = [
    f"{i} " + "the cat sat on the mat. i love soup, unable! " * (60 + i % 60) for i in range(COUNT)
]  # 1 MB, four pieces
IDS = [7 * i - 90 for i in range(COUNT)]
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
        command = [Path(sys.executable).with_name("ray"), *START.split(), "--temp-dir", folder]
        for _ in range(5):  # Ray gives up after 30 s, which a busy machine may need
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, text=True
            ) as head:
                try:
                    said = re.search(
                        r"ray start --address='(.*)'",
                        next(filter(lambda line: "--address=" in line or "Error" in line, head.stdout), ""),
                    )
                    if said:
                        yield said[1]
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
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(columns or {"key": IDS, "body": TEXTS, "more": TEXTS[::-1]}), name)


def started(address, *more):
    """Begin a run, and return when a part of it, and only a part, is written."""
    command = [sys.executable, "-m", "minisbert", "embed", "in.parquet", "-o", "out", "--engine", "ray"]
    command += ["--address", address, *map(str, SETTINGS), *more]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while running.poll() is None and not list(Path(".out.parts/vectors").glob("*.parquet")):
        time.sleep(0.01)
    assert running.poll() is None, running.communicate()[1]
    return running


def workers(number=1):
    """The processes of Ray's workers, when there are so many: Ray names them after what they run."""
    while True:
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if b"MapWorker(MapBatches(BatchEncoder))" in file.read_bytes():
                    found.append(int(file.parent.name))
            except OSError:
                continue  # it has ended
        if len(found) >= number:
            return found
        time.sleep(0.01)


def whole(folder):
    """The files that are written to their end."""
    return [file for file in folder.glob("*.parquet") if file.read_bytes()[-4:] == b"PAR1"]


def check_rows(model):
    """The rows in `out`: each row of the input once, and what the local engine makes of it."""
    run("embed", "-i", "in.parquet", "-o", "local.parquet", *SETTINGS)
    ids, hashes, vectors = rows_of(*Path("out").glob("*.parquet"))
    expected = rows_of("local.parquet")
    assert ids == expected[0] == sorted(IDS) and hashes == expected[1]
    np.testing.assert_allclose(vectors, expected[2], rtol=0, atol=1e-6)


def test_a_worker_killed_in_mid_run_costs_no_row_and_doubles_none(cluster, model):
    write_input()
    running = started(cluster)
    os.kill(workers()[0], signal.SIGKILL)
    assert not Path("out").exists()
    said = running.communicate()[1]
    assert running.returncode == 0 and f"wrote {COUNT} float32 vectors of 12 dimensions" in said, said
    assert sorted(os.listdir()) == ["in.parquet", "out"]
    check_rows(model)
    duckdb, pandas = pytest.importorskip("duckdb"), pytest.importorskip("pandas")
    found = duckdb.sql("select count(*), max(len(embedding)), min(len(embedding)) from 'out/*.parquet'").fetchall()
    assert found == [(COUNT, 12, 12)] and len(pandas.read_parquet("out")) == COUNT


def test_a_killed_driver_is_run_again_and_what_was_done_is_kept(cluster, model):
    write_input()
    running = started(cluster)
    running.kill()
    running.communicate()
    command = ["embed", "in.parquet", "-o", "out", "--engine", "ray", "--address", cluster, *SETTINGS]
    assert "continue it with --resume" in refused(*command)
    assert "max-seq-length was 16, now 8" in refused(*command, "--resume", "--max-seq-length", 8)
    write_input("other.parquet", key=IDS, body=TEXTS[::-1])
    assert "input was" in refused("embed", "other.parquet", *command[2:], "--resume")
    kept = {file.name for file in whole(Path(".out.parts/vectors"))}
    half = Path(".out.parts/vectors/half.parquet")  # as a write that is killed leaves it
    half.write_bytes(next(Path(".out.parts/vectors").glob("*.parquet")).read_bytes()[:-9])
    done = process(*command, "--resume", timeout=None)
    assert done.returncode == 0, done.stderr.decode()
    there = set(os.listdir("out"))
    assert kept and kept < there and half.name not in there and not Path(".out.parts").exists()
    check_rows(model)
    assert "already complete" in run(*command, "--resume").stderr
    assert "already exists" in refused(*command)
    assert "other settings: input was" in refused("embed", "other.parquet", *command[2:], "--resume")


def test_a_row_without_a_text_is_named_and_the_old_output_stays(cluster):
    write_input(key=["a", "b", "c"], body=["soup", "cat", None])
    Path("out").mkdir()
    command = ["embed", "in.parquet", "-o", "out", "--engine", "ray", "--address", cluster, *SETTINGS]
    done = process(*command, timeout=None)
    assert done.returncode == 1 and "the row with the id 'c' has no text in 'body'" in done.stderr.decode()
