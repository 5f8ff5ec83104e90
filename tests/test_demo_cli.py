"""``minisbert demo``: the group, the tables, JSON, pictures and films, and what is refused before any work."""

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny import TINY, write_model

from minisbert.cli import demo as module
from minisbert.cli.demo import demo
from minisbert.training.descent import SENTENCE_PAIRS, STEPS, descend, make_points

SHORT = ["--no-text", "--steps", "3", "--points", "3"]


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch):
    """Each test stands in an empty folder, and no model can be had unless it says which."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINISBERT_MODEL", str(tmp_path / "no-such-model"))
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random model that can read all of the sentences."""
    config = replace(TINY, max_position_embeddings=64)
    return write_model(tmp_path_factory.mktemp("demo") / "tiny-model", config=config)


def run(*arguments, code=0):
    try:
        runner = CliRunner(mix_stderr=False)  # click before 8.2
    except TypeError:
        runner = CliRunner()
    result = runner.invoke(demo, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result


def table_of(shown):
    """The rows of the first table."""
    lines = shown.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("step "))
    return lines[start], [line.split() for line in lines[start + 1 : lines.index("", start)]]


def test_the_group_lists_its_verbs():
    shown = run("--help").stdout
    for verb in demo.commands:
        assert re.search(rf"^ +{verb} ", shown, re.MULTILINE)
        assert re.search(r"Examples?:\n +minisbert demo ", run(verb, "--help").stdout)


def test_the_table_is_what_the_function_says():
    result = run("contrastive", "--no-text")
    assert result.stderr == ""
    _, rows = table_of(result.stdout)
    seen = descend(*make_points(6, np.random.default_rng(0)))
    measures = (seen.loss, seen.alignment, seen.uniformity, seen.positive_cosine, seen.negative_cosine)
    assert int(rows[0][0]) == 0 and int(rows[-1][0]) == STEPS
    for step, *cells in rows:
        assert cells == [f"{values[int(step)]:.3f}" for values in measures]
    lines = result.stdout.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith(f"cosines at step {STEPS}"))
    assert "6 of 6" in lines[place]
    assert lines[place + 2].split() == ["a1", *(f"{cosine:.2f}" for cosine in seen.similarities(-1)[0])]


def test_options_are_obeyed():
    got = json.loads(run("contrastive", *SHORT, "--scale", 2, "--learning-rate", 0.1, "--seed", 4, "--json").stdout)
    expected = descend(*make_points(3, np.random.default_rng(4)), steps=3, scale=2.0, learning_rate=0.1)
    assert (got["scale"], got["learning_rate"], got["steps"], got["text"]) == (2.0, 0.1, 3, None)
    plane = got["plane"]
    assert (plane["pairs"], plane["seed"]) == (3, 4)
    for name in ("loss", "alignment", "uniformity", "positive_cosine", "negative_cosine", "anchors", "d_positives"):
        assert plane[name] == getattr(expected, name).tolist()
    assert plane["cosines_end"] == expected.similarities(3).tolist()
    assert plane["found"] == [expected.found(0), expected.found(3)]


def test_with_text_from_a_tiny_model(model, monkeypatch):
    monkeypatch.setenv("MINISBERT_MODEL", str(model))
    got = json.loads(run("contrastive", "--steps", 2, "--json").stdout)["text"]
    assert got["sentences"] == [list(pair) for pair in SENTENCE_PAIRS]
    assert len(got["loss"]) == 3 and np.shape(got["cosines_start"]) == (8, 8) and np.isfinite(got["loss"]).all()
    assert "pairs of sentences, vectors of 12 dimensions" in run("contrastive", "--steps", 2).stdout


def test_real_sentences_come_together_and_spread(weights_folder):
    got = json.loads(run("contrastive", "--model", weights_folder, "--json").stdout)["text"]
    assert (np.diff(got["loss"]) < 0).all() and (np.diff(got["alignment"]) < 0).all()
    assert (np.diff(got["uniformity"]) < 0).all()
    start, end = np.array(got["cosines_start"]), np.array(got["cosines_end"])
    assert got["found"] == [7, 8]
    assert start[1, 0] > start[1, 1] and end[1, 0] < 0.2 < 0.9 < end[1, 1]  # the confusable one is told apart
    assert got["loss"][-1] < 0.1 * got["loss"][0] and got["alignment"][-1] < 0.2 * got["alignment"][0]


def test_a_picture_and_a_film(matplotlib, model, monkeypatch):
    from PIL import Image

    assert "demo.gif" in run("contrastive", *SHORT, "-o", "demo.gif").stderr
    with Image.open("demo.gif") as film:
        assert film.format == "GIF" and film.n_frames == 4
    run("contrastive", *SHORT, "-o", "plane.PNG")
    monkeypatch.setenv("MINISBERT_MODEL", str(model))
    run("contrastive", "--steps", "2", "-o", "demo.png")
    with Image.open("plane.PNG") as plane, Image.open("demo.png") as both:
        assert plane.format == both.format == "PNG" and plane.width == both.width
        assert both.height > plane.height + 500  # the sentences stand below
    assert sorted(os.listdir()) == ["demo.gif", "demo.png", "plane.PNG"]


@pytest.mark.parametrize(("kind", "draw"), [("png", "draw_picture"), ("gif", "draw_animation")])
def test_nothing_is_left_behind_when_the_drawing_fails(matplotlib, monkeypatch, kind, draw):
    def fails(stream, *arguments, **options):
        stream.write(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(module, draw, fails)
    with pytest.raises(OSError, match="the disk is full"):
        run("contrastive", *SHORT, "-o", f"demo.{kind}")
    assert os.listdir() == []
    Path("mine.png").write_text("mine")
    with pytest.raises(ValueError, match=r"mine\.png"):
        run("contrastive", *SHORT, "-o", "mine.png")
    assert Path("mine.png").read_text() == "mine"


def test_what_makes_no_sense_is_refused_before_any_work(matplotlib, monkeypatch):
    with pytest.raises(ValueError, match="scale"):
        run("contrastive", *SHORT, "--scale", "nan")
    with pytest.raises(ValueError, match="no-such-model"):  # only --no-text needs no weights
        run("contrastive", "--steps", "3")
    monkeypatch.setattr(module, "descend", None)
    for option, value in (("--points", 2), ("--steps", 0), ("--seed", -1), ("--scale", "much")):
        assert option in run("contrastive", option, value, code=2).stderr
    assert "demo.jpg" in run("contrastive", "-o", "demo.jpg", code=2).stderr
    with pytest.raises(ValueError, match="nowhere"):
        run("contrastive", "-o", "nowhere/demo.png")


def test_without_matplotlib_the_table_is_printed_and_a_picture_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert table_of(run("contrastive", *SHORT).stdout)[1]
    monkeypatch.setattr(module, "descend", None)
    with pytest.raises(ValueError, match="matplotlib"):
        run("contrastive", *SHORT, "-o", "demo.png")
    assert os.listdir() == []
