"""``minisbert embed`` to a file: bounded memory, whole or not at all, and continued after whatever stopped it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from safetensors.numpy import load_file
from test_cli import fails, run, succeeds
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.cli import job, outputs

BLOCK = 4
TEXTS = [f"the cat {'sat ' * (i % 5)}on mat {i}" for i in range(18)]  # four blocks and a half
NAMES = ["v.npy", "v.safetensors", "v.jsonl"]
EVERY_NAME = pytest.mark.parametrize("name", NAMES)
LONG = "the cat " * 40


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("job") / "tiny-model", sentence_settings={"prompts": {"q": "the "}})


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    """Each test stands in a folder with nothing but an input, with the tiny model as the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINISBERT_MODEL", str(model))
    Path("t.txt").write_text("\n".join(TEXTS))


def command(name, *more, input="t.txt"):
    return ["embed", "-i", input, "-o", name, "--block-texts", BLOCK, *more]


def uninterrupted(name, *more):
    """The bytes of a run that nothing disturbs."""
    succeeds(*command(f"whole-{name}", *more))
    content = Path(f"whole-{name}").read_bytes()
    Path(f"whole-{name}").unlink()
    return content


def interrupt(monkeypatch, name, blocks, *more, error=KeyboardInterrupt):
    """Run until so many blocks are done and the next one is half written."""
    whole = outputs.body
    done = 0

    def breaks_off(kind, texts, embeddings):
        nonlocal done
        chunks = b"".join(whole(kind, texts, embeddings))
        if done == blocks:
            yield chunks[: len(chunks) // 2]
            raise error
        done += 1
        yield chunks

    with monkeypatch.context() as patched:
        patched.setattr(job, "body", breaks_off)
        return run(*command(name, *more))


def left():
    return sorted(set(os.listdir()) - {"t.txt"})


def kept(name):
    return sorted([f"{name}.partial", f"{name}.partial.json"])


def journal(name="v.npy"):
    return Path(f"{name}.partial.json")


# ------------------------------------------------------------------------------------------- stopped, continued


@EVERY_NAME
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_a_run_stopped_in_the_middle_of_a_block_is_continued(name, blocks, monkeypatch):
    whole = uninterrupted(name)
    stopped = interrupt(monkeypatch, name, blocks)
    assert stopped.exit_code == 1 and "Aborted" in stopped.stderr
    assert f"{BLOCK * blocks} rows are saved in" in stopped.stderr and "--resume" in stopped.stderr
    assert left() == kept(name)
    assert Path(f"{name}.partial").stat().st_size > json.loads(journal(name).read_text())["size"]
    said = succeeds(*command(name, "--resume")).stderr
    assert f"wrote 18 float32 vectors of 12 dimensions to {name}, {BLOCK * blocks} of them from an earlier run" in said
    assert Path(name).read_bytes() == whole and left() == [name]


@EVERY_NAME
def test_a_run_stopped_after_every_block_is_continued_each_time(name, monkeypatch):
    whole = uninterrupted(name, "--deterministic")
    for done in range(1, 5):
        interrupt(monkeypatch, name, 1, "--deterministic", "--resume")
        assert json.loads(journal(name).read_text())["rows"] == BLOCK * done
    succeeds(*command(name, "--deterministic", "--resume"))
    assert Path(name).read_bytes() == whole


@EVERY_NAME
def test_a_run_stopped_in_its_first_block_leaves_nothing(name, monkeypatch):
    stopped = interrupt(monkeypatch, name, 0)
    assert stopped.exit_code == 1 and "kept" not in stopped.stderr and left() == []


@EVERY_NAME
def test_resume_with_nothing_to_continue_starts(name):
    succeeds(*command(name, "--resume"))
    assert Path(name).read_bytes() == uninterrupted(name)


KILLED = """
import os, signal, sys
from minisbert.cli import job, main
steps = int(sys.argv.pop(1))
def counted(function):
    def step(*arguments, **options):
        global steps
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        steps -= 1
        return function(*arguments, **options)
    return step
for name in ("fsync", "replace", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
main()
"""


def kill_at(step, name, *more):
    """Run in a process that kills itself, as ``kill -9`` does, before the step of this number on the disk."""
    arguments = [str(argument) for argument in command(name, *more)]
    return subprocess.run([sys.executable, "-c", KILLED, str(step), *arguments], capture_output=True, timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="no kill -9")
def test_a_run_killed_at_any_step_on_the_disk_is_continued():
    Path("t.txt").write_text("\n".join(TEXTS[:6]))  # two blocks
    whole = uninterrupted("v.npy")
    killed = 0
    while kill_at(killed, "v.npy", "--resume").returncode == -signal.SIGKILL:
        assert not Path("v.npy").exists() or Path("v.npy").read_bytes() == whole
        if Path("v.npy").exists() and not journal().exists():
            assert "already exists" in fails(*command("v.npy", "--resume"))  # it was done
        else:
            succeeds(*command("v.npy", "--resume"))
        assert Path("v.npy").read_bytes() == whole and left() == ["v.npy"]
        Path("v.npy").unlink()
        killed += 1
    assert killed > (12 if sys.version_info >= (3, 11) else 8)  # 3.10's pathlib has kept os's own functions


@pytest.mark.skipif(os.name == "nt", reason="no kill -9")
def test_a_run_killed_from_outside_is_continued():
    Path("t.txt").write_text("\n".join(TEXTS * 100))
    more = ["--deterministic", "--block-texts", 50]
    whole = uninterrupted("v.npy", *more)
    arguments = [str(argument) for argument in command("v.npy", *more)]
    with subprocess.Popen([sys.executable, "-m", "minisbert", *arguments], stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 60
        while not journal().exists() or not json.loads(journal().read_text())["rows"]:
            assert running.poll() is None and time.monotonic() < deadline
        running.kill()
    assert "v.npy" not in left() and {*kept("v.npy")} <= {*left()}
    assert "earlier run" in succeeds(*command("v.npy", *more, "--resume")).stderr
    assert Path("v.npy").read_bytes() == whole and left() == ["v.npy"]


@pytest.mark.parametrize("stop", [4, 7])
def test_standard_input_given_again_is_continued(stop, monkeypatch):
    whole = uninterrupted("v.jsonl")
    lines = [text.encode() for text in TEXTS]
    lines[stop] = b"not \xff UTF-8"
    said = fails_late(*command("v.jsonl", input="-"), input=b"\n".join(lines))
    assert f"standard input, line {stop + 1}" in said and "4 rows are saved" in said
    succeeds(*command("v.jsonl", "--resume", input="-"), input="\n".join(TEXTS).encode())
    assert Path("v.jsonl").read_bytes() == whole and left() == ["v.jsonl"]


def fails_late(*arguments, input=None):
    """Expect an error after the words about what is kept."""
    result = run(*arguments, input=input)
    assert result.exit_code == 1 and result.stdout == "" and "\nError: " in result.stderr
    return result.stderr


def test_blocks_threads_and_overflow_may_change_on_the_way(monkeypatch):
    whole = uninterrupted("v.npy", "--deterministic")
    interrupt(monkeypatch, "v.npy", 2, "--deterministic", "--num-threads", 1)
    more = ["--deterministic", "--resume", "--block-texts", 3, "--num-threads", 2, "--overflow", "truncate"]
    succeeds(*command("v.npy", *more))
    assert Path("v.npy").read_bytes() == whole


def test_more_texts_at_the_end_are_taken_too(monkeypatch):
    interrupt(monkeypatch, "v.npy", 2)
    Path("t.txt").write_text("\n".join([*TEXTS, "the end"]))
    succeeds(*command("v.npy", "--resume"))
    assert len(np.load("v.npy")) == 19


@EVERY_NAME
def test_texts_gone_from_the_end_leave_nothing_of_theirs(name, monkeypatch):
    interrupt(monkeypatch, name, 4)  # and half of the fifth block, whose texts are no more
    Path("t.txt").write_text("\n".join(TEXTS[:16]))
    succeeds(*command(name, "--resume"))
    assert Path(name).read_bytes() == uninterrupted(name)


# ------------------------------------------------------------------------------------------------ the formats


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_npy_is_what_numpy_writes(dtype, model):
    succeeds(*command("v.npy", "--dtype", dtype))
    vectors = SentenceEncoder(model, dtype=dtype).encode(TEXTS[:BLOCK])
    np.testing.assert_array_equal(np.load("v.npy")[:BLOCK], vectors)
    np.save("again.npy", np.load("v.npy"))
    assert Path("again.npy").read_bytes() == Path("v.npy").read_bytes()
    succeeds(*command("v.safetensors", "--dtype", dtype))
    np.testing.assert_array_equal(load_file("v.safetensors")["embeddings"], np.load("v.npy"))


@pytest.mark.parametrize("kind", ["npy", "safetensors", "jsonl"])
def test_a_header_is_as_long_for_a_trillion_rows_as_for_none(kind):
    for dtype in ("float32", "float64"):
        assert len(outputs.header(kind, 0, 65536, dtype)) == len(outputs.header(kind, 10**12, 65536, dtype))


@EVERY_NAME
def test_no_rows_are_a_file_of_none(name):
    Path("t.txt").write_text("")
    succeeds(*command(name, "--resume"))
    if name != "v.jsonl":
        vectors = np.load(name) if name == "v.npy" else load_file(name)["embeddings"]
        assert vectors.shape == (0, 12) and vectors.dtype == np.float32
    assert left() == [name]


# ---------------------------------------------------------------------------------------------------- refused


def refuses(*more, words, name="v.npy"):
    """Expect a refusal that harms neither what an earlier run left nor the way out."""
    before = {file: Path(file).read_bytes() for file in left()}
    said = fails(*command(name, *more))
    assert words in said and said.count("\n") == 1 and "--force" in said
    assert {file: Path(file).read_bytes() for file in left()} == before


def test_what_an_earlier_run_left_is_neither_lost_nor_taken_unasked(monkeypatch):
    whole = uninterrupted("v.npy")
    interrupt(monkeypatch, "v.npy", 2)
    refuses(words="continue it with --resume, or start over with --force")
    said = succeeds(*command("v.npy", "--force")).stderr
    assert "earlier run" not in said and Path("v.npy").read_bytes() == whole and left() == ["v.npy"]


def test_an_output_that_exists_is_kept_unless_forced(monkeypatch):
    Path("v.npy").write_bytes(b"precious")
    refuses("--resume", words="already exists")
    assert "already exists" not in interrupt(monkeypatch, "v.npy", 2, "--force").stderr
    assert Path("v.npy").read_bytes() == b"precious"
    refuses("--resume", words="already exists")
    assert "8 of them" in succeeds(*command("v.npy", "--force", "--resume")).stderr
    assert np.load("v.npy").shape == (18, 12) and left() == ["v.npy"]


def test_an_output_that_came_into_being_meanwhile_is_kept(monkeypatch):
    def meanwhile(*arguments):
        Path("v.npy").write_bytes(b"precious")

    monkeypatch.setattr(job.Job, "add", lambda self, *block, add=job.Job.add: (add(self, *block), meanwhile()))
    assert "already exists" in fails_late(*command("v.npy"))
    assert Path("v.npy").read_bytes() == b"precious" and left() == ["v.npy", *kept("v.npy")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda texts: ["another", *texts[1:]], "the input has changed"),
        (lambda texts: [*texts[:7], "another", *texts[8:]], "the input has changed"),
        (lambda texts: texts[1:], "the input has changed"),
        (lambda texts: texts[:5], "the input has only 5 texts"),
        (lambda texts: [], "the input has only 0 texts"),
        (lambda texts: [texts[0] + texts[1][:1], texts[1][1:], *texts[2:]], "the input has changed"),
    ],
)
def test_a_changed_input_is_refused(change, words, monkeypatch):
    interrupt(monkeypatch, "v.npy", 2)
    Path("t.txt").write_text("\n".join(change(TEXTS)))
    refuses("--resume", words=words)
    Path("t.txt").write_text("\n".join(TEXTS))
    succeeds(*command("v.npy", "--resume"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--normalize"], "--normalize was False, now True"),
        (["--truncate-dim", 5], "dimensions was 12, now 5"),
        (["--prompt", "a "], "prompt was None, now 'a '"),
        (["--prompt-name", "q"], "--prompt-name was None, now 'q'"),
        (["--max-seq-length", 5], "--max-seq-length was"),
        (["--dtype", "float64"], "dtype was 'float32', now 'float64'"),
        (["--deterministic"], "deterministic was False, now True"),
        (["--output-format", "safetensors"], "format was 'npy', now 'safetensors'"),
    ],
)
def test_other_options_are_refused(options, words, monkeypatch):
    interrupt(monkeypatch, "v.npy", 2)
    refuses("--resume", *options, words=words)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "1_Pooling/config.json"])
def test_another_model_is_refused(file, monkeypatch, tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("other") / "model")
    monkeypatch.setenv("MINISBERT_MODEL", str(folder))
    interrupt(monkeypatch, "v.npy", 2)
    if file.endswith(".json"):
        (folder / file).write_bytes((folder / file).read_bytes() + b"\n")
    else:
        write_model(folder, seed=99)
    refuses("--resume", words="model was")


def test_another_version_is_refused(monkeypatch):
    interrupt(monkeypatch, "v.npy", 2)
    edit_journal(lambda said: said["decided_by"].update(minisbert="0.0.0"))
    refuses("--resume", words="minisbert was '0.0.0', now")


def edit_journal(change):
    said = json.loads(journal().read_text())
    change(said)
    journal().write_text(json.dumps(said))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"{}", b"\xff", b"[" * 100_000])
def test_a_damaged_journal_is_refused(content, monkeypatch):
    interrupt(monkeypatch, "v.npy", 2)
    journal().write_bytes(content)
    refuses("--resume", words="damaged journal")
    refuses(words="an earlier run was interrupted")
    succeeds(*command("v.npy", "--force"))
    assert left() == ["v.npy"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": "8"}, "damaged journal"),
        ({"rows": True}, "damaged journal"),
        ({"rows": -8}, "damaged journal"),
        ({"rows": 8.0}, "damaged journal"),
        ({"rows": 4}, "damaged journal"),
        ({"rows": 4, "cut": [4, 0, 0, 0, 0, 0]}, "the input has changed"),
        ({"rows": 12, "cut": [12, 0, 0, 0, 0, 0]}, "the input has changed"),
        ({"rows": 10**9, "cut": [10**9, 0, 0, 0, 0, 0]}, "the input has only 18 texts"),
        ({"cut": [8]}, "damaged journal"),
        ({"cut": 8}, "damaged journal"),
        ({"cut": [8, 0, 0, 0, 0, None]}, "damaged journal"),
        ({"size": 0}, "damaged: has other bytes"),
        ({"size": 500}, "damaged: has other bytes"),
        ({"size": 10**9}, "damaged: has "),
        ({"size": None}, "damaged journal"),
        ({"texts_sha256": 5}, "the input has changed"),
        ({"body_sha256": None}, "damaged: has other bytes"),
        ({"decided_by": []}, "damaged journal"),
        ({"decided_by": {}}, "was started with other settings"),
        ({"surprise": 1}, "damaged journal"),
    ],
)
def test_a_lying_journal_is_refused(changes, words, monkeypatch):
    interrupt(monkeypatch, "v.npy", 2)
    edit_journal(lambda said: said.update(changes))
    refuses("--resume", words=words)


@EVERY_NAME
@pytest.mark.parametrize("damage", ["shorter", "empty", "other bytes"])
def test_a_damaged_partial_file_is_refused(name, damage, monkeypatch):
    interrupt(monkeypatch, name, 2)
    partial = Path(f"{name}.partial")
    content, size = bytearray(partial.read_bytes()), json.loads(journal(name).read_text())["size"]
    content[size - 1] ^= 1
    partial.write_bytes({"shorter": content[: size - 1], "empty": b"", "other bytes": content}[damage])
    refuses("--resume", words="damaged: has ", name=name)


def test_a_partial_file_of_somebody_else_is_kept():
    Path("v.npy.partial").write_bytes(b"precious")
    refuses(words="without a journal")
    refuses("--resume", words="without a journal")


def test_a_journal_alone_is_no_obstacle(monkeypatch):
    interrupt(monkeypatch, "v.npy", 2)
    Path("v.npy.partial").unlink()
    succeeds(*command("v.npy", *["--resume"]))
    assert left() == ["v.npy"] and len(np.load("v.npy")) == 18


def test_resume_needs_a_file():
    assert "with -o" in fails("embed", "x", "--resume", code=2)


def test_two_processes_at_one_output(monkeypatch):
    interrupt(monkeypatch, "v.npy", 2)
    with FileLock("v.npy.partial.lock"):
        for more in ([], ["--resume"], ["--force"]):
            assert "v.npy: another process is writing it" in fails(*command("v.npy", *more))
    succeeds(*command("v.npy", "--resume"))
    assert left() == ["v.npy"]


# --------------------------------------------------------------------------------------------------- bad luck


@EVERY_NAME
@pytest.mark.parametrize("where", ["rows", "journal"])
def test_a_full_disk_keeps_what_is_whole(name, where, monkeypatch):
    whole = uninterrupted(name)
    full = OSError(errno.ENOSPC, "No space left on device")
    if where == "rows":
        said = interrupt(monkeypatch, name, 2, error=full).stderr
    else:
        to_disk, calls = job._to_disk, []

        def fills(stream):
            calls.append(stream)
            if len(calls) == 7:  # the journal at the start, rows and journal twice, rows, journal
                raise full
            to_disk(stream)

        with monkeypatch.context() as patched:
            patched.setattr(job, "_to_disk", fills)
            said = fails_late(*command(name))
    assert "8 rows are saved" in said and f"{name}.partial" in said.splitlines()[-1]
    assert said.endswith(": No space left on device\n") and name not in left()
    succeeds(*command(name, "--resume"))
    assert Path(name).read_bytes() == whole and left() == [name]


def test_a_bad_row_late_in_a_file_is_refused_before_any_work():
    Path("t.txt").write_bytes("\n".join(TEXTS).encode() + b"\n\xff\n")
    assert "t.txt, line 19" in fails(*command("v.npy", "--model", "./no-such-model"))
    assert left() == []


@pytest.mark.parametrize(("now", "words"), [(TEXTS[:9], "now only 9"), ([*TEXTS, "one", "two"], "now more")])
def test_a_file_that_changes_between_counting_and_reading(now, words, monkeypatch):
    from minisbert.cli.options import ModelChoice

    def meanwhile(self, dtype, encoder=ModelChoice.encoder):
        Path("t.txt").write_text("\n".join(now))
        return encoder(self, dtype)

    monkeypatch.setattr(ModelChoice, "encoder", meanwhile)
    said = fails_late(*command("v.npy"))
    assert "t.txt: had 18 texts when counted" in said and words in said and "v.npy" not in left()


def test_what_was_cut_before_the_stop_is_reported_in_the_end(monkeypatch):
    texts = [LONG, *TEXTS[:8], f"{LONG} cat", *TEXTS[8:]]
    Path("t.txt").write_text("\n".join(texts))
    whole = succeeds(*command("whole.npy")).stderr.splitlines()[0]
    assert "2 of 20 texts are longer" in whole and "(text 9 lost" in whole
    assert "Warning" not in interrupt(monkeypatch, "v.npy", 2).stderr
    assert succeeds(*command("v.npy", "--resume")).stderr.splitlines()[0] == whole


def test_a_text_too_long_is_numbered_in_the_whole_input(monkeypatch):
    Path("t.txt").write_text("\n".join([*TEXTS[:9], LONG, *TEXTS[9:]]))
    said = fails_late(*command("v.npy", "--overflow", "error"))
    assert "8 rows are saved" in said and "(text 9 lost" in said
    said = fails_late(*command("v.npy", "--overflow", "error", "--resume"))
    assert "8 rows are saved" in said and "1 of 12 texts is longer" in said and "(text 9 lost" in said
    succeeds(*command("v.npy", "--overflow", "truncate", "--resume"))
    assert len(np.load("v.npy")) == 19


def test_a_text_cut_before_the_stop_is_refused_when_that_is_asked_for_now(monkeypatch):
    Path("t.txt").write_text("\n".join([LONG, *TEXTS]))
    interrupt(monkeypatch, "v.npy", 2)
    assert "(text 0 lost" in fails(*command("v.npy", "--overflow", "error", "--resume"))
    assert left() == kept("v.npy")


# ------------------------------------------------------------------------------------------ memory, the bar


@pytest.mark.parametrize("name", ["v.npy", "v.jsonl"])
def test_memory_does_not_grow_with_the_number_of_texts(name):
    peaks = []
    for count in (300, 2300):
        Path("t.txt").write_text("\n".join(f"{'the ' * 50}{i}" for i in range(count)))
        tracemalloc.start()
        succeeds("embed", "-i", "t.txt", "-o", name, "--block-texts", 100, "--overflow", "truncate", "--force")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000  # the 2000 further texts alone would be 500,000 bytes


def test_lines_on_stdout_come_block_by_block(monkeypatch):
    sizes = []
    monkeypatch.setattr("minisbert.cli.embed.write_stdout", lambda *block: sizes.append(tuple(map(len, block))))
    succeeds("embed", "-i", "t.txt", "--block-texts", BLOCK)
    assert sizes == [(4, 4)] * 4 + [(2, 2)]


def test_the_bar_knows_the_end_and_goes_on_where_it_was(monkeypatch):
    assert "18/18" in succeeds(*command("w.npy", "--progress")).stderr
    interrupt(monkeypatch, "v.npy", 4)
    said = succeeds(*command("v.npy", "--resume", "--progress")).stderr
    assert "16/18" in said and "18/18" in said and " 0/18" not in said
    piped = succeeds("embed", "--progress", input="\n".join(TEXTS)).stderr
    assert "18text" in piped
