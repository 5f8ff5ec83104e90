"""``minisbert train``: files, the bar, and processes that are killed; test_cli.py has what it refuses.

Everything runs on a random model of some 4,000 weights. The killed processes are real ones.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from running import killed_at_every_step, run, stand_in, told
from safetensors import SafetensorError
from tiny import TINY, write_model

from minisbert import SentenceEncoder
from minisbert.cli import outputs
from minisbert.training.data import read_examples
from minisbert.training.finetune import DevSet, Settings, finetune, read_dev, untrained_model
from minisbert.training.step import named_parameters

LETTERS = "abcdefghjk"
QUICK = ["--batch-size", "4", "--learning-rate", "5e-3", "--num-threads", "1"]
SETTINGS = Settings(batch_size=4, learning_rate=5e-3, num_threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = replace(TINY, max_position_embeddings=64)
    return write_model(tmp_path_factory.mktemp("train") / "tiny-model", config=config)


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    stand_in(tmp_path / "work", monkeypatch, model)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write("pairs.tsv", "anchor\tpositive", [f"the cat {x} sat\ti love {x} soup" for x in LETTERS])
    write("nli.tsv", "anchor\tpositive\tnegative", [f"the cat {x} sat\ti love {x} soup\ta dog {x}" for x in LETTERS])
    dev = [f"{(7 * i) % 5}\tthe cat {x} sat\ti love {x} soup" for i, x in enumerate(LETTERS)]
    write("stsb_dev.tsv", "score\tsentence1\tsentence2", dev)


def write(name, head, rows):
    Path(name).write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


def listed():
    """What stands in the folder beside the files that each test begins with."""
    return sorted(set(os.listdir()) - {"pairs.tsv", "nli.tsv", "stsb_dev.tsv"})


def files_of(folder):
    """Every file of a model folder but the one that holds the time."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in Path(folder).rglob("*")
        if file.is_file() and file.name not in ("training.json", "README.md")
    }


def step_of(checkpoint):
    with Path(checkpoint).open("rb") as stream, np.load(stream) as stored:
        return len(json.loads(str(stored["about"]))["progress"]["losses"])


def same_weights(encoder, folder):
    ours, theirs = (named_parameters(e.model) for e in (encoder, SentenceEncoder(folder)))
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


# -------------------------------------------------------------------------------------------------- what is written


def test_training_json_says_all_of_it(model):
    arguments = ["--dev", "stsb_dev.tsv", "--evaluate-every", 2, "--loss-option", "scale=10", "--loss-option"]
    arguments += ["symmetric=true", "--seed", 3, "--max-grad-norm", "inf", "--max-seq-length", 60]
    said = told("train", "pairs.tsv", "-o", "my-model", *QUICK, *arguments)
    assert json.loads(Path("my-model/training.json").read_text(encoding="utf-8")) == said
    options = {"scale": 10.0, "symmetric": True}
    settings = replace(
        SETTINGS, seed=3, evaluate_every=2, loss_options=options, max_seq_length=60, max_grad_norm=np.inf
    )
    assert said["settings"].pop("max_grad_norm") is None  # JSON has no infinity
    assert Settings(**said["settings"], max_grad_norm=np.inf) == settings
    dev = read_dev(Path("stsb_dev.tsv"))
    expected = finetune(SentenceEncoder(model, max_seq_length=60), read_examples("pairs.tsv"), settings, dev=dev)
    assert same_weights(expected.encoder, "my-model") and SentenceEncoder("my-model").max_seq_length == 60
    card = Path("my-model/README.md").read_text(encoding="utf-8")
    for row in ("Base model | tiny-model", "Training data | pairs.tsv", "Loss | multiple_neg", "Score: stsb_dev"):
        assert f"| {row}" in card
    assert said["losses"] == expected.progress.losses and said["best_step"] == expected.best_step
    assert said["dev"]["scores"] == [list(pair) for pair in expected.progress.dev_scores]
    assert 0.0 <= said["seconds"] < 600.0 and said["began_with"] == "tiny-model" and listed() == ["my-model"]


def test_what_is_said_about_the_best_weights(monkeypatch):
    scores = iter([50.0, 60.0, 55.0])
    monkeypatch.setattr(DevSet, "score", lambda self, encoder: next(scores))
    shown = run("train", "pairs.tsv", *QUICK, "--dev", "stsb_dev.tsv", "--epochs", 2, "-o", "better")
    assert "50.00 before, 60.00 at" in shown.stdout
    # not in a terminal either is it silent about scores; they are messages, so on stderr
    said = [f"step {step}: stsb_dev.tsv {score} (Spearman x 100)" for step, score in ((3, "60.00"), (6, "55.00"))]
    assert shown.stderr.splitlines() == said


def test_columns_kind_scale_and_several_files():
    write("one.csv", "a,b,c", ["the cat,4,soup", "i love soup,5,a mat"])
    write("two.csv", "a,b,c", ["the dog,1,soup", "i ran,2,on"])
    arguments = ["--kind", "scored", "--columns", "1,3,2", "--scale", "0,5", "--loss", "cosine_similarity"]
    arguments += ["--dev", "one.csv", "--dev-columns", "b,a,c"]
    said = told("train", "one.csv", "two.csv", "-o", "my-model", *QUICK, *arguments)
    assert (said["examples"], said["kind"], said["files"]) == (4, "scored", ["one.csv", "two.csv"])
    assert said["settings"]["loss"] == "cosine_similarity" and said["dev"]["name"] == "one.csv"


def test_from_scratch(model):
    said = told("train", "nli.tsv", "-o", "small", *QUICK, "--from-scratch", "1,8,2", "--seed", 4)
    sizes = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2}
    start = SentenceEncoder(model)
    start = start.with_model(untrained_model(start.model, seed=4, **sizes))
    assert same_weights(finetune(start, read_examples("nli.tsv"), replace(SETTINGS, seed=4)).encoder, "small")
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


# ---------------------------------------------------------------------------------------------- stopped, continued


def stop_after(monkeypatch, count):
    """Let the first session end after so many steps, as Ctrl-C would."""
    asked = []
    stop = nullcontext(lambda: asked.append(True) or len(asked) == count)
    monkeypatch.setattr("minisbert.cli.train._asked_to_stop", lambda: stop)


def test_resume_starts_goes_on_and_is_complete(monkeypatch):
    """One command for all three; --force begins anew. What is another run's is neither taken nor lost."""
    arguments = ["train", "pairs.tsv", "-o", "my-model", *QUICK, "--epochs", 2]
    run(*arguments[:3], "whole", *arguments[4:])
    with FileLock("my-model.checkpoint.lock"):
        assert "my-model: another process" in run(*arguments, code=1).stderr
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        shown = run(*arguments, "--resume", code=1)  # there was nothing yet
    assert "--resume" in shown.stderr and shown.stdout == ""
    before = Path("my-model.checkpoint").read_bytes()
    for options, words in (([], "--force"), (["--max-seq-length", 9, "--resume"], "--max-seq-length .*9")):
        assert re.search(words, run(*arguments, *options, code=1).stderr)
    assert Path("my-model.checkpoint").read_bytes() == before and step_of("my-model.checkpoint") == 2
    went_on = run(*arguments, "--resume")
    assert listed() == ["my-model", "whole"] and files_of("my-model") == files_of("whole")
    Path("my-model.checkpoint").write_text("left by a kill between the last two steps")
    complete = run(*arguments, "--resume", "--num-threads", 2)
    assert "complete" in complete.stderr and complete.stdout == went_on.stdout and listed() == ["my-model", "whole"]
    write("others.tsv", "anchor\tpositive", [f"the cat {x} sat\ti love soup {x}" for x in LETTERS])
    Path("my-model.checkpoint").write_text("kept")
    for changed, words in (
        (["train", "others.tsv", *arguments[2:]], "examples was .* and is now"),
        ([*arguments, "--epochs", 3, "--seed", 7], "epochs was 2 and is now 3; seed was 0 and is now 7"),
        ([*arguments, "--dev", "stsb_dev.tsv", "--from-scratch", "1,8,2"], "model was .*dev was None"),
    ):
        said = run(*changed, "--resume", code=1)
        assert re.search(f"my-model: is complete, but .*{words}", said.stderr) and said.stdout == ""
    assert files_of("my-model") == files_of("whole") and Path("my-model.checkpoint").read_text() == "kept"
    assert "my-model" in run(*arguments, "--force", code=1).stderr  # which is for the checkpoint alone
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        run(*arguments[:3], "other", *arguments[4:], "--seed", 5, code=1)
    run(*arguments[:3], "other", *arguments[4:], "--force")
    assert files_of("other") == files_of("whole")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")])
def test_a_disk_that_is_full_at_the_end_keeps_the_trained_model(monkeypatch, error):
    """Whatever --checkpoint-every is; and the next run sweeps what a killed one left."""
    arguments = ["train", "pairs.tsv", "-o", "my-model", *QUICK]

    def full(*arguments, **options):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("minisbert.model.folder.save_file", full)
        said = run(*arguments, code=1).stderr
    assert re.search(r"^Error: my-model: .*No space left.*my-model\.checkpoint.*--resume", said)
    assert listed() == ["my-model.checkpoint"] and step_of("my-model.checkpoint") == 3
    for left in (".my-model.77.unfinished", "..my-model.77.unfinished-abc_1"):
        Path(left).mkdir()
        Path(left, "x").write_text("x")
    Path(".my-model.checkpoint.77.unfinished").write_text("x")
    Path(".my-model.b.77.unfinished").write_text("of another run, of OUT my-model.b")
    monkeypatch.setattr(sys.modules["minisbert.training.finetune"], "adamw", None)  # nothing is trained again
    run(*arguments, "--resume")
    assert listed() == [".my-model.b.77.unfinished", "my-model"]


# ------------------------------------------------------------------------------------------------- real processes


LONG = ["pairs.tsv", *QUICK, "--epochs", "50", "--dev", "stsb_dev.tsv", "--checkpoint-every"]


def written():
    """When the checkpoint was written last."""
    try:
        return Path("out.checkpoint").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def in_training():
    """A process that has written a checkpoint, or is done."""
    before, command = written(), [sys.executable, "-m", "minisbert", "train", *LONG, "1", "-o", "out", "--resume"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and written() == before:
        time.sleep(0.002)
    return process


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes():
    """kill -9: nothing can be tidied up. What has OUT's name is whole or is not there, and so is the checkpoint."""
    run("train", *LONG, 10**6, "-o", "whole")
    draw, steps = random.Random(0), []
    while not Path("out").exists():
        process = in_training()
        if len(steps) < 6:
            time.sleep(draw.random() * 0.05)
            process.kill()
        _, errors = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), errors
        if process.returncode:
            steps.append(step_of("out.checkpoint") if written() else 150)
    run("train", *LONG, 1, "-o", "out", "--resume")  # it may have been killed as the checkpoint was to go
    assert len(steps) >= 4 and steps == sorted(set(steps)), steps
    assert files_of("out") == files_of("whole") and listed() == ["out", "whole"]
    ours, whole = (json.loads(Path(f, "training.json").read_text()) for f in ("out", "whole"))
    assert {**ours, "seconds": 0} == {**whole, "seconds": 0}


@pytest.mark.skipif(os.name == "nt", reason="no kill -9")
def test_killed_at_any_step_on_the_disk_it_goes_on_to_the_same_bytes():
    command = ["train", "pairs.tsv", *QUICK, "--checkpoint-every", 2, "-o", "out", "--resume"]
    assert killed_at_every_step("out", *command) > (15 if sys.version_info >= (3, 11) else 4)


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on():
    """So does SIGTERM."""
    run("train", *LONG, 10**6, "-o", "whole")
    for number in (signal.SIGINT, signal.SIGTERM):
        process = in_training()
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 1 and out == "" and "Traceback" not in errors
        step = int(re.search(r"stopped after step (\d+); out.checkpoint", errors)[1])
        assert step == step_of("out.checkpoint") and 0 <= step < 150 and listed() == ["out.checkpoint", "whole"]
    run("train", *LONG, 1, "-o", "out", "--resume")
    assert files_of("out") == files_of("whole")


# ------------------------------------------------------------------------------------------------ the progress bar


def test_on_a_terminal_the_bar_shows_steps_loss_and_time_left(monkeypatch):
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    drawn = run("train", *LONG, 1000, "-o", "out").stderr
    last = [line for line in re.split(r"[\r\n]+", drawn) if line.startswith("train:")][-1]
    losses = json.loads(Path("out/training.json").read_text())["losses"]
    assert re.match(r"train: 100%\|.+\| 150/150 \[\d\d:\d\d<00:00, .*step.*, loss ", last), last
    assert last.rstrip("] ").endswith(f"loss {np.mean(losses[-50:]):.4f}")


def test_elsewhere_a_line_every_half_minute(monkeypatch, capsys):
    clock = iter(range(0, 10_000, 10))  # each look takes ten seconds
    bar = outputs.progress(total=100, desc="train", unit="step")
    monkeypatch.setattr(bar, "_time", lambda: next(clock))
    bar.start_t = bar.last_print_t = 0
    for _ in range(100):
        bar.update()
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    assert 20 < len(lines) < 60 and lines[0].startswith("train: ") and "of 100 steps after" in lines[0]
