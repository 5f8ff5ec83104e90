"""``minisbert demo``: the tables, JSON, pictures and films, and what is refused before any work."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running import refused, run, stand_in, told
from tiny import TINY, write_model

from minisbert.cli import demo as module
from minisbert.training.descent import SENTENCE_PAIRS, STEPS, descend, make_points
from minisbert.training.descent_picture import FRAME_MILLISECONDS, LAST_MILLISECONDS

SHORT = ["demo", "contrastive", "--no-text", "--steps", "3", "--points", "3"]
LETTERS = "abcdefghjk"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random model that can read all of the sentences."""
    config = replace(TINY, max_position_embeddings=64)
    return write_model(tmp_path_factory.mktemp("demo") / "tiny-model", config=config)


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    stand_in(tmp_path, monkeypatch, model)


def test_table_and_json_are_what_the_function_says_under_these_options():
    command = ["demo", "contrastive", "--no-text", "--points", 3, "--scale", 2, "--learning-rate", 0.1, "--seed", 4]
    result, plane = run(*command, "--model", "./no-such-model"), told(*command)["plane"]
    seen = descend(*make_points(3, np.random.default_rng(4)), scale=2.0, learning_rate=0.1)
    measures = ("loss", "alignment", "uniformity", "positive_cosine", "negative_cosine")
    for name in (*measures, "anchors", "d_positives"):
        assert plane[name] == getattr(seen, name).tolist()
    assert plane["cosines_end"] == seen.similarities(STEPS).tolist()
    assert plane["found"] == [seen.found(0), seen.found(STEPS)]

    lines = result.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.lstrip().startswith("step "))
    rows = [line.split() for line in lines[start + 1 : lines.index("", start)]]
    assert int(rows[0][0]) == 0 and int(rows[-1][0]) == STEPS and result.stderr == ""
    for step, *cells in rows:
        assert cells == [f"{getattr(seen, name)[int(step)]:.3f}" for name in measures]
    place = next(i for i, line in enumerate(lines) if line.startswith(f"cosines at step {STEPS}"))
    assert f"{seen.found(STEPS)} of 3" in lines[place]
    assert lines[place + 2].split() == ["a1", *(f"{cosine:.2f}" for cosine in seen.similarities(-1)[0])]


def test_sentences_come_together_and_spread(weights_folder):
    got = told("demo", "contrastive", "--model", weights_folder)["text"]
    assert got["sentences"] == [list(pair) for pair in SENTENCE_PAIRS] and got["found"] == [7, 8]
    assert all((np.diff(got[name]) < 0).all() for name in ("loss", "alignment", "uniformity"))
    start, end = np.array(got["cosines_start"]), np.array(got["cosines_end"])
    assert start[1, 0] > start[1, 1] and end[1, 0] < 0.2 < 0.9 < end[1, 1]  # the confusable one is told apart
    assert got["loss"][-1] < 0.1 * got["loss"][0] and got["alignment"][-1] < 0.2 * got["alignment"][0]


def test_a_picture_and_a_film(matplotlib):
    from PIL import Image

    run(*SHORT, "-o", "demo.gif")
    run(*SHORT, "-o", "plane.PNG")
    run("demo", "contrastive", "--steps", "2", "-o", "demo.png")
    with Image.open("demo.gif") as film, Image.open("plane.PNG") as plane, Image.open("demo.png") as both:
        times, frames = [], []
        for frame in range(film.n_frames):
            film.seek(frame)
            times.append(film.info["duration"])
            frames.append(film.convert("RGB").tobytes())
        assert times == [FRAME_MILLISECONDS] * 3 + [LAST_MILLISECONDS] and len(set(frames)) == 4
        assert plane.format == both.format == "PNG"
        assert both.height > plane.height + 500  # the sentences stand below


def test_nothing_is_left_behind_and_what_makes_no_sense_is_refused_before_any_work(matplotlib, monkeypatch):
    def fails(stream, *arguments, **options):
        stream.write(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(module, "draw_picture", fails)
    assert "the disk is full" in refused(*SHORT, "-o", "demo.png")
    monkeypatch.setattr(module, "descend", None)
    for options, key in (("--points 2", "--points"), ("--steps 0", "--steps"), ("-o demo.jpg", ".gif")):
        assert key in refused(*SHORT, *options.split(), code=2)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "matplotlib" in refused(*SHORT, "-o", "demo.png") and os.listdir() == []


def test_intents(sklearn, monkeypatch):
    monkeypatch.setattr(module.threads, "usable", lambda: 1)  # the same to the last digit, run after run
    for name, end in (("train.tsv", "."), ("test.tsv", "!")):
        rows = [f"{label}\tthe {word} {x} {end}" for label, word in (("eat", "soup"), ("sit", "mat")) for x in LETTERS]
        Path(name).write_text("\n".join(["label\ttext", *rows]))
    command = ["demo", "intents", "train.tsv", "test.tsv", "--seeds", 2, "--batch-size", 4, "--learning-rate", "5e-3"]
    found, shown = told(*command), run(*command).stdout
    assert (found["examples"], found["classes"], found["test_texts"], found["steps"]) == (20, 2, 20, 5)
    assert len(found["seconds"]) == 2 and list(found["classifiers"]) == ["centroid", "logistic"]
    for one in found["classifiers"].values():
        assert one["after_all"][0] == pytest.approx(np.mean(one["after"]))
        assert one["difference"][0] == pytest.approx(one["after_all"][0] - one["before"][0])
    gain, low, high = (100 * number for number in found["classifiers"]["centroid"]["difference"])
    assert "tuned, seed 1" in shown and f"{gain:+.2f} ({low:+.2f} to {high:+.2f})" in shown
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "scikit-learn" in refused(*command)
