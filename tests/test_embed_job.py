"""``minisbert embed`` to a file: bounded memory, whole or not at all, and continued after whatever stopped it."""

import errno
import json
import os
import re
import sys
import tracemalloc
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from running import killed_at_every_step, refused, run, stand_in
from safetensors.numpy import load_file
from tiny import write_model

from minisbert import SentenceEncoder, __version__
from minisbert.cli import outputs, vectors

BLOCK = 4
TEXTS = [f"the cat {'sat ' * (i % 5)}on mat {i}" for i in range(18)]  # four blocks and a half
NAMES = ["v.npy", "v.safetensors", "v.jsonl", "v.parquet"]
LONG = "the cat " * 40
PARTS = Path(".v.npy.parts")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("job") / "tiny-model", sentence_settings={"prompts": {"q": "the "}})


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    stand_in(tmp_path, monkeypatch, model)
    Path("t.txt").write_text("\n".join(TEXTS))


def command(name, *more, input="t.txt"):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    return ["embed", "-i", input, "-o", name, "--block-texts", BLOCK, *more]


def uninterrupted(name, *more):
    """The bytes of a run that nothing disturbs."""
    run(*command(f"whole-{name}", *more))
    content = Path(f"whole-{name}").read_bytes()
    Path(f"whole-{name}").unlink()
    return content


def interrupt(monkeypatch, name, blocks, *more):
    """Run until so many blocks are done."""
    whole, done = vectors.Job.add, []

    def breaks_off(self, *block):
        if len(done) == blocks:
            raise KeyboardInterrupt
        done.append(block)
        whole(self, *block)

    with monkeypatch.context() as patched:
        patched.setattr(vectors.Job, "add", breaks_off)
        return run(*command(name, *more), code=1)


def left():
    return sorted(set(os.listdir()) - {"t.txt"})


# ------------------------------------------------------------------------------------------- stopped, continued


@pytest.mark.parametrize("name", NAMES)
def test_a_run_stopped_after_every_block_is_continued_each_time(name, monkeypatch):
    whole = uninterrupted(name, "--deterministic")
    for done in range(4):  # the first: --resume with nothing there starts
        stopped = interrupt(monkeypatch, name, 1, "--deterministic", "--resume")
        assert f"{BLOCK * (done + 1)} rows are saved in" in stopped.stderr and left() == [f".{name}.parts"]
    said = run(*command(name, "--deterministic", "--resume")).stderr
    assert f"wrote 18 float32 vectors of 12 dimensions to {name}, 16 of them from an earlier run" in said
    assert Path(name).read_bytes() == whole and left() == [name]


@pytest.mark.skipif(os.name == "nt", reason="no kill -9")
def test_a_run_killed_at_any_step_on_the_disk_is_continued():
    Path("t.txt").write_text("\n".join(TEXTS[:6]))  # two blocks
    steps = killed_at_every_step("v.npy", *command("v.npy", "--resume"))
    assert steps > (12 if sys.version_info >= (3, 11) else 4)  # 3.10's pathlib keeps os's own


def test_standard_input_given_again_is_continued():
    whole = uninterrupted("v.jsonl")
    lines = [text.encode() for text in TEXTS]
    lines[7] = b"not \xff UTF-8"
    said = run(*command("v.jsonl", input="-"), input=b"\n".join(lines), code=1).stderr
    assert "standard input, line 8" in said and "4 rows are saved" in said
    run(*command("v.jsonl", "--resume", input="-"), input="\n".join(TEXTS).encode())
    assert Path("v.jsonl").read_bytes() == whole and left() == ["v.jsonl"]


def test_blocks_threads_and_overflow_may_change_and_texts_be_added(monkeypatch):
    interrupt(monkeypatch, "v.npy", 0)
    assert left() == []  # stopped in its first block it leaves nothing
    interrupt(monkeypatch, "v.npy", 2, "--deterministic", "--num-threads", 1)
    Path("t.txt").write_text("\n".join([*TEXTS, "the end"]))
    more = ["--deterministic", "--resume", "--block-texts", 3, "--num-threads", 2, "--overflow", "truncate"]
    run(*command("v.npy", *more))
    assert Path("v.npy").read_bytes() == uninterrupted("v.npy", "--deterministic")


# ------------------------------------------------------------------------------------------------ the formats


@pytest.mark.parametrize(("dtype", "count"), [("float32", 18), ("float64", 18), ("float32", 0)])
def test_every_format_has_the_same_vectors(dtype, count, model):
    parquet = pytest.importorskip("pyarrow.parquet")
    Path("t.txt").write_text("\n".join(TEXTS[:count]))
    for name in NAMES:
        run(*command(name, "--dtype", dtype))
    vectors, encoder = np.load("v.npy"), SentenceEncoder(model, dtype=dtype)
    assert vectors.shape == (count, 12) and vectors.dtype == dtype
    np.testing.assert_array_equal(vectors[:BLOCK], encoder.encode(TEXTS[: min(BLOCK, count)]))
    np.testing.assert_array_equal(load_file("v.safetensors")["embeddings"], vectors)
    lines = [json.loads(line) for line in Path("v.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == TEXTS[:count]
    np.testing.assert_array_equal(np.array([line["embedding"] for line in lines], dtype).reshape(-1, 12), vectors)
    table = parquet.read_table("v.parquet")
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), dtype).reshape(-1, 12), vectors)
    assert table.schema.field("embedding").type.list_size == 12 and table["id"].to_pylist() == list(range(count))
    assert table["text_sha256"].to_pylist() == [sha256(text.encode()).hexdigest() for text in TEXTS[:count]]
    assert table.schema.metadata[b"fingerprint"].decode() == encoder.fingerprint()


def test_a_parquet_has_the_ids_of_the_table():
    parquet = pytest.importorskip("pyarrow.parquet")
    for ids, kind in ([7, -(2**63)], int), ([7, "b"], str), ([7, 2**63], str), ([-(2**63) - 1, 7], str):
        rows = [json.dumps({"key": key, "text": "the cat"}) for key in ids]
        Path("t.jsonl").write_text("\n".join(rows))
        run(*command("v.parquet", "--id", "key", "--block-texts", 1, "--force", input="t.jsonl"))
        assert parquet.read_table("v.parquet")["id"].to_pylist() == list(map(kind, ids))
    Path("t.jsonl").write_text('{"key": null, "text": "x"}')
    assert "id" in refused(*command("w.parquet", "--id", "key", input="t.jsonl"))


# ------------------------------------------------------------------------------------------------- refusals


def refuses(*more, words, name="v.npy"):
    """Expect a refusal that harms neither what an earlier run left nor the way out."""
    before = {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}
    said = refused(*command(name, *more))
    assert words in said and said.count("\n") == 1 and "--force" in said
    assert {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()} == before


def test_what_is_there_is_neither_lost_nor_taken_unasked(monkeypatch):
    whole = uninterrupted("v.npy")
    interrupt(monkeypatch, "v.npy", 2)
    refuses(words="continue it with --resume, or start over with --force")
    with FileLock(".v.npy.parts.lock"):
        for more in ([], ["--resume"], ["--force"]):
            assert "v.npy: another process is writing it" in refused(*command("v.npy", *more))
    said = run(*command("v.npy", "--force")).stderr
    assert "earlier run" not in said and Path("v.npy").read_bytes() == whole and left() == ["v.npy"]
    Path("v.npy").write_bytes(b"precious")
    for more in ([], ["--resume"]):
        refuses(*more, words="already exists")
    interrupt(monkeypatch, "v.npy", 2, "--force")
    assert Path("v.npy").read_bytes() == b"precious"
    refuses(words="already exists")
    assert "8 of them" in run(*command("v.npy", "--resume")).stderr  # what was forced once goes on
    assert np.load("v.npy").shape == (18, 12) and left() == ["v.npy"]


def test_an_output_that_came_into_being_meanwhile_is_kept(monkeypatch):
    def meanwhile(self, *block, add=vectors.Job.add):
        add(self, *block)
        Path("v.npy").write_bytes(b"precious")

    monkeypatch.setattr(vectors.Job, "add", meanwhile)
    assert "already exists" in run(*command("v.npy"), code=1).stderr
    assert Path("v.npy").read_bytes() == b"precious" and left() == [str(PARTS), "v.npy"]


SECOND = PARTS / "000000000000004.npz"


def write_shorter_part():
    with np.load(SECOND) as found:
        np.savez(SECOND, **{**found, "vectors": np.ones((3, 12), np.float32)})


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda: None, ["--normalize"], "--normalize was False, now True"),
        (lambda: None, ["--model", "pooled"], "model was"),
        (lambda: Path("t.txt").write_text("\n".join([*TEXTS[:7], "another"])), [], "the input has changed"),
        (lambda: Path("t.txt").write_text("\n".join(TEXTS[:5])), [], "the input has changed"),
        (lambda: (PARTS / "job.json").write_text("[]"), [], "job.json: damaged"),
        (lambda: SECOND.write_bytes(b"PK\x03\x04 and no more"), [], f"{SECOND.name}: damaged"),
        (write_shorter_part, [], f"{SECOND.name}: damaged"),
    ],
)
def test_what_does_not_belong_together_is_refused(change, options, words, monkeypatch):
    config = write_model(Path("pooled")) / "1_Pooling" / "config.json"
    config.write_bytes(config.read_bytes() + b"\n")
    interrupt(monkeypatch, "v.npy", 2)
    change()
    refuses("--resume", *options, words=words)


def test_a_missing_part_is_missed_even_if_all_texts_are_the_same(monkeypatch):
    Path("t.txt").write_text("the cat\n" * 18)
    interrupt(monkeypatch, "v.npy", 2)
    (PARTS / "000000000000000.npz").unlink()
    refuses("--resume", words=f"{SECOND.name} does not follow")


def test_what_decides_a_vector_is_recorded_and_nothing_else(monkeypatch, model):
    said = ["--normalize", "--truncate-dim", 5, "--prompt", "a ", "--max-seq-length", 9, "--dtype", "float64"]
    more = ["--overflow", "chunk", "--chunk-tokens", 6, "--overlap", 2, "--composition", "max", "--batch-size", 2]
    interrupt(monkeypatch, "v.npy", 1, *said, *more)
    decide = {"normalize_embeddings": True, "dimensions": 5, "prompt": "a ", "max_seq_length": 9, "dtype": "float64"}
    decide |= {"chunk_tokens": 6, "overlap": 2, "composition": "max"}
    decide |= {"format": "npy", "id": None, "prompt_name": None, "deterministic": False}
    decide |= {"name": "tiny-model", "model": SentenceEncoder(model).fingerprint(), "minisbert": __version__}
    assert json.loads((PARTS / "job.json").read_text())["settings"] == decide


RECORDED = {"npy": "dimensions dtype", "jsonl": "input dimensions", "safetensors": "", "parquet": ""}  # "" is all


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_file_is_compared_as_far_as_it_can_be(name):
    write_model(Path("other"), seed=99)
    run(*command(name))
    known = RECORDED[name[2:]]
    told = f"; only {known.replace(' ', ' and ')} are recorded in it and were compared" if known else ""
    complete = f"{name}: already complete, 18 vectors{told}; --force starts over\n"
    for options, key in (
        ([], ""),
        (["--dtype", "float64"], "dtype"),
        (["--truncate-dim", 3], "dimensions"),
        (["--model", "other"], "model"),
        (["-i", "u.txt"], "input"),
    ):
        Path("u.txt").write_text("\n".join(["another", *TEXTS[1:]]))
        if key and (not known or key in known):
            refuses("--resume", *options, words=f"{key} was ", name=name)
        else:
            assert run(*command(name, "--resume", *options)).stderr == complete
    Path("t.txt").write_text("one\ntwo")
    refuses("--resume", words="it has 18 vectors, but the input has 2 texts", name=name)
    Path(name).write_bytes(Path(name).read_bytes()[:-5])
    refuses("--resume", words=f"is no .{name[2:]} of vectors", name=name)


# --------------------------------------------------------------------------------------------------- bad luck


@pytest.mark.parametrize(("name", "where", "rows"), [("v.npy", 4, 8), ("v.npy", 7, 18), ("v.parquet", 7, 18)])
def test_a_full_disk_keeps_what_is_whole(name, where, rows, monkeypatch):  # job.json, five parts, the output
    whole, fsync, calls = uninterrupted(name), os.fsync, []

    def fills(descriptor):
        calls.append(descriptor)
        if len(calls) == where:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fills)
        said = run(*command(name), code=1).stderr
    assert f"{rows} rows are saved" in said and said.endswith(": No space left on device\n")
    assert name in said.splitlines()[-1] and left() == [f".{name}.parts"]
    run(*command(name, "--resume"))
    assert Path(name).read_bytes() == whole and left() == [name]


def test_a_bad_row_late_in_a_file_is_refused_before_any_work():
    Path("t.txt").write_bytes("\n".join(TEXTS).encode() + b"\n\xff\n")
    assert "t.txt, line 19" in refused(*command("v.npy", "--model", "./no-such-model"))
    assert left() == []


def test_what_was_cut_before_the_stop_is_reported_in_the_end(monkeypatch):
    texts = [LONG, *TEXTS[:8], f"{LONG} cat", *TEXTS[8:]]
    Path("t.txt").write_text("\n".join(texts))
    whole = run(*command("whole.npy")).stderr.splitlines()[0]
    assert "2 of 20 texts are longer" in whole and "(text 9 lost" in whole
    assert "Warning" not in interrupt(monkeypatch, "v.npy", 2).stderr
    assert "(text 0 lost" in run(*command("v.npy", "--overflow", "error", "--resume"), code=1).stderr
    assert run(*command("v.npy", "--resume")).stderr.splitlines()[0] == whole


# ------------------------------------------------------------------------------------- memory and lines


def test_memory_does_not_grow_with_the_number_of_texts():
    peaks = []
    for count in (100, 1100):
        Path("t.txt").write_text("\n".join(f"{'the ' * 50}{i}" for i in range(count)))
        tracemalloc.start()
        run("embed", "-i", "t.txt", "-o", "v.npy", "--block-texts", 100, "--overflow", "truncate", "--force")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000  # the 1000 further texts alone would be 250,000 bytes


def test_lines_on_stdout_come_block_by_block(monkeypatch):
    sizes = []
    monkeypatch.setattr("minisbert.cli.embed.write_stdout", lambda *block: sizes.append(tuple(map(len, block[:2]))))
    run("embed", "-i", "t.txt", "--block-texts", BLOCK)
    assert sizes == [(4, 4)] * 4 + [(2, 2)]


def test_off_a_terminal_a_line_says_now_and_then_where_it_is(monkeypatch):
    monkeypatch.setattr(outputs, "EVERY", 0)
    interrupt(monkeypatch, "v.npy", 2)
    said = run(*command("v.npy", "--resume")).stderr
    told = {int(count) for count in re.findall(r"^encode: (\d+) of 18 texts after", said, re.MULTILINE)}
    assert {8, 12, 16} <= told <= {*range(8, 19)}
    Path("t.txt").write_text(LONG)
    chunks = ["--overflow", "chunk", "--chunk-tokens", 8, "--batch-size", 1]
    assert len(re.findall(r"^encode: 0 of 1 texts.* chunks$", run(*command("w.npy", *chunks)).stderr, re.M)) > 4
