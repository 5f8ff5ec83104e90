"""``minisbert train`` and the demonstrations that train: files, refusals, the bar, and processes that are killed.

Everything runs on a random model of some 4,000 weights. The killed processes are real ones.
"""

import json
import os
import random
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running import run
from safetensors import safe_open
from test_retrieval import write_set
from tiny import TINY, write_model

from minisbert import SentenceEncoder, __version__
from minisbert.cli import train as train_module
from minisbert.training.data import read_examples
from minisbert.training.finetune import FITTING, DevSet, Settings, finetune, read_dev, untrained_model
from minisbert.training.step import named_parameters

LETTERS = "abcdefghjk"
QUICK = ["--batch-size", "4", "--learning-rate", "5e-3", "--num-threads", "1"]
SETTINGS = Settings(batch_size=4, learning_rate=5e-3, num_threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(
        tmp_path_factory.mktemp("train") / "tiny-model", config=replace(TINY, max_position_embeddings=64)
    )


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    """Each test stands in an empty folder with files of its own, and every verb takes the tiny model."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINISBERT_MODEL", str(model))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write("pairs.tsv", "anchor\tpositive", [f"the cat {x} sat\ti love {x} soup" for x in LETTERS])
    write("nli.tsv", "anchor\tpositive\tnegative", [f"the cat {x} sat\ti love {x} soup\ta dog {x}" for x in LETTERS])
    dev = [f"{(7 * i) % 5}\tthe cat {x} sat\ti love {x} soup" for i, x in enumerate(LETTERS)]
    write("stsb_dev.tsv", "score\tsentence1\tsentence2", dev)
    write("intents.csv", "intent,text", [f"{('eat', 'sit')[i % 2]},the cat {x} sat" for i, x in enumerate(LETTERS)])


def write(name, head, rows):
    Path(name).write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


def listed():
    """What stands in the folder beside the files that each test begins with."""
    return sorted(set(os.listdir()) - {"pairs.tsv", "nli.tsv", "stsb_dev.tsv", "intents.csv"})


def files_of(folder):
    """Every file of a model folder but the one that holds the time."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in Path(folder).rglob("*")
        if file.is_file() and file.name not in ("training.json", "README.md")
    }


def step_of(checkpoint):
    with safe_open(checkpoint, framework="numpy") as stored:
        return json.loads(stored.metadata()["minisbert"])["progress"]["step"]


def same_weights(encoder, folder):
    ours, theirs = (named_parameters(e.model) for e in (encoder, SentenceEncoder(folder)))
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


# -------------------------------------------------------------------------------------------------- what is written


def test_the_folder_is_what_finetune_gives(model):
    shown = run("train", "pairs.tsv", "-o", "my-model", *QUICK, "--epochs", 2)
    expected = finetune(SentenceEncoder(model), read_examples("pairs.tsv"), replace(SETTINGS, epochs=2))
    assert same_weights(expected.encoder, "my-model") and listed() == ["my-model"]
    losses = expected.progress.losses
    assert shown.stderr == "" and f"{losses[0]:.4f} -> {losses[-1]:.4f}" in shown.stdout and "my-model" in shown.stdout


def test_training_json_says_all_of_it(model):
    arguments = ["--dev", "stsb_dev.tsv", "--evaluate-every", 2, "--loss-option", "scale=10", "--loss-option"]
    shown = run("train", "pairs.tsv", "-o", "my-model", *QUICK, *arguments, "symmetric=true", "--seed", 3, "--json")
    said = json.loads(Path("my-model/training.json").read_text(encoding="utf-8"))
    assert json.loads(shown.stdout) == said
    settings = replace(
        SETTINGS, seed=3, evaluate_every=2, loss_options={"scale": 10.0, "symmetric": True}, max_seq_length=64
    )
    assert Settings(**said["settings"]) == settings
    expected = finetune(
        SentenceEncoder(model), read_examples("pairs.tsv"), replace(settings, max_seq_length=None),
        dev=read_dev(Path("stsb_dev.tsv")),
    )  # fmt: skip
    card = Path("my-model/README.md").read_text(encoding="utf-8")
    assert "| Base model | tiny-model |" in card and "| Training data | pairs.tsv |" in card
    assert "| Loss | multiple_negatives_ranking |" in card and "| Score: stsb_dev" in card
    seconds = said.pop("seconds")
    assert 0.0 <= seconds < 600.0
    del said["settings"]
    assert said == {
        "began_with": "tiny-model",
        "files": ["pairs.tsv"],
        "minisbert": __version__,
        "examples": 10,
        "kind": "pairs",
        "steps": 3,
        "losses": list(expected.progress.losses),
        "dev": {
            "name": "stsb_dev.tsv",
            "measure": "Spearman x 100",
            "scores": [list(pair) for pair in expected.progress.dev_scores],
        },
        "best_step": expected.best_step,
    }
    assert same_weights(expected.encoder, "my-model")


def test_no_clipping_is_valid_json():
    run("train", "pairs.tsv", "-o", "my-model", *QUICK, "--max-grad-norm", "inf")

    def refuse(word):
        raise AssertionError(word)

    said = json.loads(Path("my-model/training.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert said["settings"]["max_grad_norm"] is None


def test_the_length_limit_is_of_training_and_of_the_result():
    shown = run("train", "pairs.tsv", "-o", "my-model", *QUICK, "--max-seq-length", 4)
    assert shown.stderr.count("Warning") == 1 and "--max-seq-length = 4" in shown.stderr
    assert SentenceEncoder("my-model").max_seq_length == 4
    assert json.loads(Path("my-model/training.json").read_text())["settings"]["max_seq_length"] == 4


def test_the_best_weights_and_what_is_said_about_them(monkeypatch, model):
    scores = iter([50.0, 60.0, 55.0, 50.0, 40.0, 30.0])
    monkeypatch.setattr(DevSet, "score", lambda self, encoder: next(scores))
    arguments = ["train", "pairs.tsv", *QUICK, "--dev", "stsb_dev.tsv", "--epochs", 2, "-o"]
    shown = run(*arguments, "better")
    assert "50.00 before, 60.00 at" in shown.stdout
    assert not same_weights(SentenceEncoder(model), "better")
    # not in a terminal either is it silent about scores; they are messages, so on stderr
    assert [line.split()[1:4] for line in shown.stderr.splitlines()] == [
        ["3:", "stsb_dev.tsv", "60.00"], ["6:", "stsb_dev.tsv", "55.00"]
    ]  # fmt: skip
    shown = run(*arguments, "worse")
    assert "50.00 before, 50.00 at" in shown.stdout
    assert same_weights(SentenceEncoder(model), "worse")


def test_a_retrieval_folder_as_dev_set():
    write_set("beir")
    shown = run("train", "pairs.tsv", "-o", "my-model", *QUICK, "--dev", "beir")
    assert "beir, nDCG@10 x 100" in shown.stdout


def test_columns_kind_scale_and_several_files():
    write("one.csv", "a,b,c", ["the cat,4,soup", "i love soup,5,a mat"])
    write("two.csv", "a,b,c", ["the dog,1,soup", "i ran,2,on"])
    arguments = ["--kind", "scored", "--columns", "1,3,2", "--scale", "0,5", "--loss", "cosine_similarity", "--json"]
    said = json.loads(run("train", "one.csv", "two.csv", "-o", "my-model", *QUICK, *arguments).stdout)
    assert (said["examples"], said["kind"], said["files"]) == (4, "scored", ["one.csv", "two.csv"])
    assert said["settings"]["loss"] == "cosine_similarity"
    write("bare.tsv", "the cat\tsoup", ["i love soup\ta mat"])
    arguments = ["--kind", "pairs", "--columns", "1,2", "--no-header", "--json"]
    assert json.loads(run("train", "bare.tsv", "-o", "bare", *QUICK, *arguments).stdout)["examples"] == 2
    write("dev.tsv", "x\ty\tz", [f"{i}\tthe cat {x}\tsoup {x}" for i, x in enumerate("abc")])
    run("train", "pairs.tsv", "-o", "dev", *QUICK, "--dev", "dev.tsv", "--dev-columns", "x,y,z")


def test_from_scratch(model):
    run("train", "nli.tsv", "-o", "small", *QUICK, "--from-scratch", "1,8,2", "--seed", 4)
    start = SentenceEncoder(model)
    start = start.with_model(
        untrained_model(start.model, num_hidden_layers=1, hidden_size=8, num_attention_heads=2, seed=4)
    )
    expected = finetune(start, read_examples("nli.tsv"), replace(SETTINGS, seed=4))
    assert same_weights(expected.encoder, "small")
    assert SentenceEncoder("small").encode("soup").shape == (8,)
    said = json.loads(Path("small/training.json").read_text())
    assert said["began_with"] == "tiny-model's tokenizer, random weights"


@pytest.mark.filterwarnings("ignore")  # sentence-transformers' own
def test_sentence_transformers_loads_the_folder(sentence_transformers):
    from torch_oracle import quiet

    quiet(threads=1)
    run("train", "nli.tsv", "-o", "small", *QUICK, "--from-scratch", "2,16,2")
    run("train", "pairs.tsv", "-o", "my-model", *QUICK)
    texts = ["the cat sat on the mat", "i love soup", "", "a dog"]
    for folder in ("small", "my-model"):
        theirs = sentence_transformers.SentenceTransformer(folder, device="cpu").encode(texts)
        assert np.abs(theirs - SentenceEncoder(folder).encode(texts)).max() <= 1e-6


# ------------------------------------------------------------------------------------------------------ refusals

X = ["-o", "x"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "FILE"),
        (["pairs.tsv"], "'-o'"),
        (["missing.tsv", *X], "'missing.tsv'"),
        ([".", *X], "'.'"),
        (["pairs.tsv", "-o", "."], "-o"),
        (["pairs.tsv", *X, "--scale", "high"], "--scale .*'high'"),
        (["pairs.tsv", *X, "--scale", "5,0"], "--scale"),
        (["pairs.tsv", *X, "--scale", "0,inf"], "--scale"),
        (["pairs.tsv", *X, "--loss-option", "scale"], "--loss-option .*'scale'"),
        (["pairs.tsv", *X, "--loss-option", "scale=high"], "scale .*'high'"),
        (["pairs.tsv", *X, "--loss", "mnrl"], "loss .*'mnrl'"),
        (["pairs.tsv", *X, "--from-scratch", "2,128"], "--from-scratch"),
        (["pairs.tsv", *X, "--from-scratch", "2,128,5"], "--from-scratch .*'2,128,5'"),
        (["pairs.tsv", *X, "--from-scratch", "0,128,4"], "--from-scratch"),
        (["pairs.tsv", *X, "--epochs", "0"], "--epochs"),
        (["pairs.tsv", *X, "--learning-rate", "2"], "learning_rate"),
        (["pairs.tsv", *X, "--kind", "doubles"], "'doubles'"),
        (["pairs.tsv", *X, "--columns", "1,2"], "--kind"),
        (["pairs.tsv", *X, "--no-header"], "--columns"),
        (["pairs.tsv", *X, "--dev", "missing.tsv"], "'missing.tsv'"),
        (["pairs.tsv", *X, "--dev-columns", "a,b,c"], "--dev"),
        (["pairs.tsv", *X, "--evaluate-every", "3"], "--dev"),
        (["pairs.tsv", *X, "--dev", "stsb_dev.tsv", "--dev-columns", "score"], "--dev-columns"),
        (["pairs.tsv", *X, "--resume", "--force"], "--force"),
    ],
)
def test_calls_that_make_no_sense(arguments, words, monkeypatch):
    monkeypatch.setattr(sys.modules["minisbert.training.finetune"], "finetune", None)
    shown = run("train", *arguments, code=2)
    assert re.search(words, shown.stderr.splitlines()[-1]) and shown.stdout == "" and not listed()
    assert shown.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pairs.tsv", "-o", "nowhere/x"], "nowhere"),
        (["pairs.tsv", "-o", "pairs.tsv"], "pairs.tsv"),
        (["pairs.tsv", "-o", "full"], "full"),
        (["pairs.tsv", *X, "--resume"], "x.checkpoint"),
        (["pairs.tsv", *X, "--loss", "cosent"], "cosent"),
        (["pairs.tsv", *X, "--kind", "scored"], "sentence1"),
        (["pairs.tsv", *X, "--scale", "0,5"], "scale"),
        (["empty.tsv", *X], "empty.tsv"),
        (["pairs.tsv", *X, "--dev", "nli.tsv"], "nli.tsv"),
        (["pairs.tsv", *X, "--dev", "full"], "full"),
        (["pairs.tsv", *X, "--dev", "stsb_dev.tsv", "--dev-columns", "a,b,c"], "stsb_dev.tsv"),
        (["pairs.tsv", *X, "--model", "full"], "full"),
        (["pairs.tsv", *X, "--max-seq-length", "65"], "--max-seq-length"),
    ],
)
def test_what_fails_leaves_nothing_behind(arguments, words):
    Path("empty.tsv").write_text("")
    Path("full").mkdir()
    Path("full/mine").write_text("mine")
    shown = run("train", *arguments, code=1)
    assert words in shown.stderr and shown.stdout == ""
    assert shown.stderr.startswith("Error: ") and shown.stderr.count("\n") == 1
    assert listed() == ["empty.tsv", "full"] and os.listdir("full") == ["mine"]


def stop_after(monkeypatch, count):
    """Let the first session end after so many steps, as Ctrl-C would."""
    asked = []
    monkeypatch.setattr(train_module, "_asked_to_stop", lambda: FakeStop(asked, count))


class FakeStop:
    def __init__(self, asked, count):
        self.asked, self.count = asked, count

    def __enter__(self):
        return lambda: self.asked.append(True) or len(self.asked) == self.count

    def __exit__(self, *error):
        return None


def test_a_checkpoint_is_neither_overlooked_nor_lost(monkeypatch):
    arguments = ["train", "pairs.tsv", "-o", "my-model", *QUICK, "--epochs", 2]
    stop_after(monkeypatch, 4)
    shown = run(*arguments, code=1)
    assert "--resume" in shown.stderr and shown.stdout == ""
    assert listed() == ["my-model.checkpoint"] and step_of("my-model.checkpoint") == 4
    before = Path("my-model.checkpoint").read_bytes()
    for options, words in (
        ([], "--force"),
        (["--seed", 7, "--warmup", 0.5, "--resume"], "warmup .*0.5; seed .*7"),
        (["--max-seq-length", 9, "--resume"], "--max-seq-length .*9"),
        (["--from-scratch", "1,8,2", "--resume"], "model"),
    ):
        assert re.search(words, run(*arguments, *options, code=1).stderr)
    assert Path("my-model.checkpoint").read_bytes() == before and listed() == ["my-model.checkpoint"]
    Path("my-model.checkpoint").write_bytes(before[:-5])
    assert "my-model.checkpoint: damaged" in run(*arguments, "--resume", code=1).stderr
    Path("my-model.checkpoint").write_bytes(before)
    run(*arguments, "--resume")
    assert listed() == ["my-model"]
    run(*arguments[:3], "whole", *arguments[4:])
    assert files_of("my-model") == files_of("whole")


def test_force_begins_anew(monkeypatch):
    stop_after(monkeypatch, 2)
    run("train", "pairs.tsv", "-o", "my-model", *QUICK, "--seed", 5, code=1)
    run("train", "pairs.tsv", "-o", "my-model", *QUICK, "--force")
    run("train", "pairs.tsv", "-o", "whole", *QUICK)
    assert files_of("my-model") == files_of("whole") and listed() == ["my-model", "whole"]


def test_a_disk_that_is_full_at_the_end_keeps_the_run(monkeypatch):
    arguments = ["train", "pairs.tsv", "-o", "my-model", *QUICK, "--checkpoint-every", 3]

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("minisbert.model.folder.save_file", full)
        assert "No space left on device" in run(*arguments, code=1).stderr
    assert listed() == ["my-model.checkpoint"]
    Path(".my-model.unfinished").mkdir()  # of a process that was killed while it saved
    Path(".my-model.unfinished/x").write_text("x")
    Path(".my-model.checkpoint.77.unfinished").write_text("x")
    run(*arguments, "--resume")
    assert listed() == ["my-model"] and step_of_training("my-model") == 3


def step_of_training(folder):
    return json.loads((Path(folder) / "training.json").read_text())["steps"]


def test_a_finished_run_whose_checkpoint_was_not_removed():
    run("train", "pairs.tsv", "-o", "my-model", *QUICK)
    Path("my-model.checkpoint").write_text("left by a kill between the last two steps")
    for options in (["--resume"], ["--force"], []):
        shown = run("train", "pairs.tsv", "-o", "my-model", *QUICK, *options, code=1)
        assert "my-model.checkpoint" in shown.stderr
    assert listed() == ["my-model", "my-model.checkpoint"]


def test_two_at_a_time_are_refused():
    from filelock import FileLock

    with FileLock("my-model.checkpoint.lock"):
        shown = run("train", "pairs.tsv", "-o", "my-model", *QUICK, code=1)
    assert "my-model: another process" in shown.stderr
    Path("my-model.checkpoint.lock").unlink(missing_ok=True)
    run("train", "pairs.tsv", "-o", "my-model", *QUICK)
    assert listed() == ["my-model"]


def test_a_loss_that_is_no_number(monkeypatch):
    module = sys.modules["minisbert.training.finetune"]
    whole, count = module.value_and_gradients, []

    def spoilt(*arguments, **options):
        count.append(True)
        step = whole(*arguments, **options)
        return replace(step, value=float("nan")) if len(count) == 5 else step

    monkeypatch.setattr(module, "value_and_gradients", spoilt)
    shown = run("train", "pairs.tsv", "-o", "x", *QUICK, "--epochs", 2, "--checkpoint-every", 2, code=1)
    assert shown.stderr.startswith("Error: step 5 (epoch 2, batch 2): ")
    assert shown.stderr.count("\n") == 1 and listed() == ["x.checkpoint"] and step_of("x.checkpoint") == 4


# ------------------------------------------------------------------------------------------------- real processes


def start(*arguments, **options):
    command = [sys.executable, "-m", "minisbert", "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def wait_for(file, process, timeout=60.0):
    """Wait until a file is there, or the process has ended."""
    end = time.monotonic() + timeout
    while not Path(file).exists() and process.poll() is None:
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.002)


LONG = ["pairs.tsv", *QUICK, "--epochs", "50", "--dev", "stsb_dev.tsv", "--checkpoint-every"]


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes():
    """kill -9: nothing can be tidied up. What has OUT's name is whole or is not there, and so is the checkpoint."""
    run("train", *LONG, 10**6, "-o", "whole")
    draw, kills, steps = random.Random(0), 0, [0]
    while not Path("out").exists():
        resume = ["--resume"] if Path("out.checkpoint").exists() else []
        process = start(*LONG, 1, "-o", "out", *resume)
        wait_for("out.checkpoint", process)
        before = step_of("out.checkpoint") if Path("out.checkpoint").exists() else 0
        # from the start-up to the end of training
        while process.poll() is None and kills < 6 and step_of_or(before) < before + draw.randrange(3, 40):
            time.sleep(draw.random() * 0.02)
        if kills < 6:
            process.kill()
            kills += 1
        _, errors = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), errors
        if Path("out").exists():
            break
        if Path("out.checkpoint").exists():
            steps.append(step_of("out.checkpoint"))
    assert kills >= 4 and steps == sorted(steps) and len(set(steps)) >= 4, steps
    assert files_of("out") == files_of("whole") and step_of_training("out") == 150
    ours, whole = (json.loads(Path(f, "training.json").read_text()) for f in ("out", "whole"))
    assert {**ours, "seconds": 0} == {**whole, "seconds": 0}
    assert listed() == ["out", "whole"]


def step_of_or(otherwise):
    """The checkpoint's step; it may be moved away, or the run be over, just now."""
    try:
        return step_of("out.checkpoint")
    except Exception:
        return otherwise


# Python that dies, without tidying up, at a moment that a real kill would hardly hit
DIES = """
import os, sys
from pathlib import Path
import minisbert.files, minisbert.model.folder
from minisbert.cli import main

moment, whole, replace, synced = sys.argv.pop(1), minisbert.model.folder.save_file, Path.replace, []

def save_file(*arguments, **options):
    whole(*arguments, **options)
    if moment == "saving":
        os._exit(9)

def fsync(number):
    synced.append(number)
    if moment == "checkpoint" and len(synced) == 2:
        os._exit(9)

def renamed(self, target):
    if moment == "before" and str(target) == "out":
        os._exit(9)
    replace(self, target)
    if moment == "behind" and str(target) == "out":
        os._exit(9)

minisbert.model.folder.save_file, minisbert.files.os.fsync, Path.replace = save_file, fsync, renamed
main()
"""


@pytest.mark.parametrize("moment", ["checkpoint", "saving", "before", "behind"])
def test_killed_while_it_writes(moment):
    arguments = ["train", "pairs.tsv", *QUICK, "--epochs", "2", "--checkpoint-every", "2", "-o"]
    run(*arguments, "whole")
    command = [sys.executable, "-c", DIES, moment, *arguments, "out"]
    died = subprocess.run(command, capture_output=True, text=True, check=False)
    assert died.returncode == 9, died.stderr
    if moment == "behind":  # all is done but for the tidying up
        assert files_of("out") == files_of("whole") and step_of_training("out") == 6
        shown = run(*arguments, "out", "--resume", code=1)
        assert "out.checkpoint" in shown.stderr
        return
    assert not Path("out").exists() and step_of("out.checkpoint") == (2 if moment == "checkpoint" else 6)
    assert [name for name in os.listdir() if "unfinished" in name]
    run(*arguments, "out", "--resume")
    assert files_of("out") == files_of("whole") and listed() == ["out", "whole"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(number):
    run("train", *LONG, 10**6, "-o", "whole")
    process = start(*LONG, 1, "-o", "out")
    wait_for("out.checkpoint", process)
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and out == "" and "Traceback" not in errors
    step = int(re.search(r"stopped after step (\d+); out.checkpoint", errors)[1])
    assert step == step_of("out.checkpoint") and 0 <= step < 150 and listed() == ["out.checkpoint", "whole"]
    process = start(*LONG, 1, "-o", "out", "--resume")
    assert process.wait(timeout=120) == 0, process.communicate()
    process.communicate()
    assert files_of("out") == files_of("whole")


def test_a_second_ctrl_c_is_obeyed_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), train_module._asked_to_stop() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert should_stop()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)  # never slept to the end
    assert signal.getsignal(signal.SIGINT) is before


# ------------------------------------------------------------------------------------------------ the progress bar


def in_a_terminal(*arguments):
    """Run it with a terminal for stderr, and give what was drawn there."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows and columns
    process = subprocess.Popen(
        [sys.executable, "-m", "minisbert", "train", *map(str, arguments)], stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    drawn = b""
    while True:
        if select.select([ours], [], [], 60.0)[0]:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # Linux: the other end is closed
                piece = b""
            if not piece:
                break
            drawn += piece
    os.close(ours)
    assert process.wait(timeout=60) == 0, drawn
    process.stdout.close()
    return drawn.decode()


def test_in_a_terminal_the_bar_shows_steps_loss_and_time_left(monkeypatch):
    drawn = in_a_terminal(*LONG, 1, "-o", "out")
    last = [line for line in re.split(r"[\r\n]+", drawn) if line.startswith("train:")][-1]
    losses = json.loads(Path("out/training.json").read_text())["losses"]
    assert re.match(r"train: 100%\|.+\| 150/150 \[\d\d:\d\d<00:00, .*step.*, loss ", last), last
    assert last.rstrip("] ").endswith(f"loss {np.mean(losses[-50:]):.4f}")
    # going on: step numbers are those of the whole run
    stop_after(monkeypatch, 101)
    run("train", *LONG, 1000, "-o", "more", code=1)
    drawn = in_a_terminal(*LONG, 1000, "-o", "more", "--resume")
    numbers = [int(n) for n in re.findall(r" (\d+)/150 \[", drawn)]
    assert numbers[0] == 101 and numbers[-1] == 150 and numbers == sorted(numbers)
    assert files_of("more") == files_of("out")


# ---------------------------------------------------------------------------------------------- examples and demos


def examples_of(*verb):
    shown = run(*verb, "--help").stdout
    pattern = rf"^ +minisbert ({' '.join(verb)} .*)$"
    return [shlex.split(line) for line in re.findall(pattern, shown, re.MULTILINE)], shown


def test_every_example_of_the_help_runs():
    examples, shown = examples_of("train")
    assert len(examples) == 4
    for kind, losses in FITTING.items():  # the table of kinds and losses is true
        lines = " ".join(re.findall(rf"^ +{kind} .*$", shown, re.MULTILINE))
        assert lines and all(loss in lines for loss in losses), kind
    for number, example in enumerate(examples):
        example[example.index("-o") + 1] += f"-{number}"
        run(*example, "--batch-size", 4)
    assert listed() == ["my-model-0", "my-model-1", "my-model-2", "small-3"]
    said = [json.loads(Path(folder, "training.json").read_text()) for folder in listed()]
    assert [one["kind"] for one in said] == ["pairs", "triplets", "texts", "triplets"]
    assert [one["steps"] for one in said] == [3, 6, 3, 15] and said[1]["dev"]["name"] == "stsb_dev.tsv"


def intents_files():
    rows = [f"{label}\tthe {word} {x} {end}" for label, word in (("eat", "soup"), ("sit", "mat"))
            for x in LETTERS for end in (".", "!")]  # fmt: skip
    write("train.tsv", "label\ttext", rows[::2])
    write("test.tsv", "label\ttext", rows[1::2])


def test_demo_intents(sklearn):
    intents_files()
    arguments = ["demo", "intents", "train.tsv", "test.tsv", "--seeds", 2, "--batch-size", 4, "--learning-rate", "5e-3"]
    found = json.loads(run(*arguments, "--json").stdout)
    assert (found["examples"], found["classes"], found["test_texts"], found["steps"]) == (20, 2, 20, 5)
    assert found["settings"] == {"epochs": 1, "batch_size": 4, "learning_rate": 5e-3}
    assert len(found["seconds"]) == 2 and list(found["classifiers"]) == ["centroid", "logistic"]
    for one in found["classifiers"].values():
        assert len(one["after"]) == 2 and all(0.0 <= share <= 1.0 for share in one["after"])
        assert one["after_all"][0] == pytest.approx(np.mean(one["after"]))
        assert one["difference"][0] == pytest.approx(one["after_all"][0] - one["before"][0])
        for mean, low, high in (one["before"], one["after_all"], one["difference"]):
            assert low <= mean <= high
    shown = run(*arguments).stdout
    assert "tuned, seed 1" in shown
    gain, low, high = (100 * number for number in found["classifiers"]["centroid"]["difference"])
    assert f"{gain:+.2f}  ({low:+.2f} to {high:+.2f})" in shown


def test_demo_intents_without_sklearn(monkeypatch):
    monkeypatch.setattr("minisbert.cli.demo_intents.has_sklearn", lambda: False)
    intents_files()
    found = json.loads(run("demo", "intents", "train.tsv", "test.tsv", "--seeds", 1, "--json").stdout)
    assert list(found["classifiers"]) == ["centroid"]


def test_demo_scratch(model):
    arguments = ["demo", "scratch", "nli.tsv", "stsb_dev.tsv", "--layers", 1, "--width", 8, "--heads", 2, "--epochs", 2]
    arguments += ["--batch-size", 4, "--seed", 3]
    found = json.loads(run(*arguments, "--json").stdout)
    start = SentenceEncoder(model)
    start = start.with_model(
        untrained_model(start.model, num_hidden_layers=1, hidden_size=8, num_attention_heads=2, seed=3)
    )
    from minisbert.parallel import threads

    settings = Settings(batch_size=4, learning_rate=1e-3, epochs=2, seed=3, num_threads=threads.usable())
    dev = read_dev(Path("stsb_dev.tsv"))
    expected = finetune(start, read_examples("nli.tsv"), settings, dev=dev)
    assert found["examples"] == 10
    assert found["scores"] == {str(step): score for step, score in expected.progress.dev_scores}
    shown = run(*arguments).stdout.splitlines()
    assert [line.split() for line in shown[3:]] == [
        [str(step), f"{score:.2f}"] for step, score in expected.progress.dev_scores
    ]


def test_the_examples_of_the_demos_run():
    intents_files()
    Path("banking77_train.tsv").write_text(Path("train.tsv").read_text())
    Path("banking77_test.tsv").write_text(Path("test.tsv").read_text())
    for name in ("train", "test"):
        Path(f"{name}.csv").write_text(Path(f"{name}.tsv").read_text().replace("\t", ","))
    Path("nli_triplets.tsv").write_text(Path("nli.tsv").read_text())
    for verb in ("intents", "scratch"):
        examples, _ = examples_of("demo", verb)
        assert len(examples) == 2
        for example in examples:
            run(*example)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scratch", "nli.tsv", "stsb_dev.tsv", "--layers", "0"], "--layers"),
        (["scratch", "nli.tsv", "stsb_dev.tsv", "--width", "10", "--heads", "4"], "--heads .*--width"),
        (["scratch", "nli.tsv", "stsb_dev.tsv", "--learning-rate", "7"], "learning_rate"),
        (["intents", "intents.csv", "intents.csv", "--seeds", "0"], "--seeds"),
    ],
)
def test_demos_called_wrongly(arguments, words):
    assert re.search(words, run("demo", *arguments, code=2).stderr)


def test_demos_that_fail():
    write("few.tsv", "label\ttext", ["a\tsoup", "a\ta mat", "b\tthe cat", "b\tthe dog"])
    assert "8 examples per class" in run("demo", "intents", "few.tsv", "few.tsv", code=1).stderr
    assert "nli.tsv" in run("demo", "intents", "nli.tsv", "nli.tsv", code=1).stderr
