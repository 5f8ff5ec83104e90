"""Golden outputs: what every verb prints, vectors and gradients, and a sample of every file that the package writes.

They were recorded once, with the tiny model in `golden/model`, and change only on purpose:

    python tests/test_golden.py

writes all of `golden/` anew; `python tests/test_golden.py search cluster` only what these verbs print. Look at the
diff. Texts and structure are compared exactly, floats within a bound: other processors add in another order.
"""

import gzip
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from running import run
from tiny import TINY, write_model

from minisbert import (
    SentenceEncoder,
    angular_distance,
    cos_sim,
    dot_score,
    euclidean_sim,
    hub,
    manhattan_sim,
    to_distance,
)
from minisbert.model.pooling import pool
from minisbert.training.data import Examples
from minisbert.training.finetune import Settings, finetune, read_checkpoint
from minisbert.training.losses import LOSSES
from minisbert.training.step import named_parameters, value_and_gradients

GOLDEN = Path(__file__).resolve().parent / "golden"
SAMPLES = GOLDEN / "samples"
FLOAT32 = {"rtol": 1e-4, "atol": 2e-5}  # what a verb prints may be rounded to 5 decimals, too
FLOAT64 = {"rtol": 1e-9, "atol": 1e-12}
ELSEWHERE = ("minisbert", "seconds", "blas", "file_bytes", "identity", "versions")  # of a version, a time or a machine


# ------------------------------------------------------------------------------------------------------ the verbs


class Verb(NamedTuple):
    """A command line, what it needs, and how much of its output is the same everywhere."""

    line: str
    needs: str = ""  # fixtures
    keep: str = "all"  # or "labels", all but floats; or "keys"


VERBS = {
    "similarity": Verb('similarity --json "i love soup" "soup is my favorite" "the cat sat"'),
    "calibrated": Verb('similarity --json --calibration calibration.json "i love soup" "the cat sat"'),
    "embed": Verb('embed "i love soup" "the cat sat on the mat"'),
    "tokens": Verb("tokens -i texts.txt --max-seq-length 7 --json"),
    "calibrate": Verb("calibrate -i texts.txt --json"),
    "explain": Verb('explain "i love soup" "the soup ran" --json'),
    "index build": Verb("index build new.duckdb notes.txt", "duckdb"),
    "index info": Verb("index info notes.duckdb --json", "duckdb"),
    "search": Verb('search notes.duckdb "hot soup" --json', "duckdb"),
    "search where": Verb(
        """search notes.duckdb "a cat" -k 2 --where "lang = 'en' AND year >= 2020" --json""", "duckdb"
    ),
    "route": Verb('route ask fitted.yaml "i love the soup" "where is the soup" "the dog sat" "5 5 5" --json'),
    "route fit": Verb("route fit routes.yaml queries.tsv --objective balanced --json", "sklearn"),
    "route evaluate": Verb("route evaluate routes.yaml queries.tsv --json"),
    "map": Verb("map questions.tsv --label label -o map.html --json", "sklearn"),
    "cluster": Verb("cluster questions.tsv --label label --k 2 --json", "sklearn"),
    "classify train": Verb("classify train train.tsv -o new --json", "sklearn", "keys"),
    "classify predict": Verb('classify predict mood "what a feast" "i hate tea" --json', "sklearn", "labels"),
    "classify evaluate": Verb("classify evaluate mood test.tsv --json", "sklearn", "keys"),
    "entities train": Verb("entities train names.jsonl -o new --strength 1 --offset 0 --json", "sklearn"),
    "entities predict": Verb('entities predict names "Ada met Bob in Rome." "soup" --json'),
    "entities evaluate": Verb("entities evaluate names names.jsonl --json"),
    "info": Verb("info --json", keep="keys"),
    "fetch": Verb("fetch --json", keep="keys"),
    "verify": Verb("verify --json", "weights_folder", "labels"),
    "profile": Verb('profile "i love soup" --repeat 1 --json', keep="keys"),
    "train": Verb("train pairs.tsv -o new --batch-size 4 --num-threads 1 --learning-rate 1e-3 --json"),
    "gradcheck": Verb("gradcheck --loss cosent --directions 1 --json", keep="labels"),
    "demo contrastive": Verb("demo contrastive --no-text --steps 3 --points 3 --json"),
    "demo intents": Verb("demo intents train.tsv test.tsv --seeds 1 --epochs 1 --json", "sklearn", "labels"),
    "evaluate sts": Verb("evaluate sts scored.tsv --json"),
    "evaluate layers": Verb("evaluate layers scored.tsv --json"),
    "evaluate retrieval": Verb("evaluate retrieval beir --json"),
    "evaluate retrieval --chunk-tokens": Verb("evaluate retrieval beir --chunk-tokens 8 --composition best --json"),
    "evaluate classification": Verb(
        "evaluate classification train.tsv test.tsv --examples-per-class 2 --draws 2 --json", "sklearn", "labels"
    ),
}


def write_inputs():
    """What the commands read, in the folder that one stands in."""
    Path("texts.txt").write_text("i love soup\nthe cat sat on the mat\na dog ran\nsoup, soup!\nthe mat\n")
    Path("notes.txt").write_text("i love soup\nthe cat sat on the mat\nthe dog ran\n")
    Path("notes.csv").write_text("text,lang,year\nthe cat sat,en,2021\nthe dog ran on the mat,fr,2019\na cat,en,2018\n")
    Path("routes.yaml").write_text("soup: [soup!, i love the soup]\npets: [the cat sat, the dog ran]\n")
    good = (
        "what a feast|i love soup|love it on the mat|so good a soup|i love the cat|love the dog|a good cat|love, love"
    )
    bad = "what a mess|i hate tea|hate it on the mat|so bad a tea|i hate the rat|hate the fog|a bad rat|hate, hate"
    write("train.tsv", "label\ttext", *(f"good\t{x}" for x in good.split("|")), *(f"bad\t{x}" for x in bad.split("|")))
    write("test.tsv", "label\ttext", "good\ti love tea", "bad\ti hate soup", "bad\thate the fog", "good\tlove")
    asked = ["soup\ti love the soup", "soup\tsoup !", "pets\tthe cat sat", "pets\tthe dog sat"]
    write("queries.tsv", "label\ttext", *asked, "none\t5 5 5", "none\t6 5")
    write("questions.tsv", "label\ttext", *asked, "soup\tlove soup", "pets\ta dog, a cat")
    write("pairs.tsv", "anchor\tpositive", *[f"the cat {x} sat\ti love {x} soup" for x in "abcdefgh"])
    write("triplets.tsv", "anchor\tpositive\tnegative", *[f"cat {x}\tcat {x} x\tdog {x}" for x in "abcdefgh"])
    # no two pairs of equally many words: in layer 0 their last tokens would have the same cosine, but for rounding
    scored = [
        "4.5\tthe cat sat\tthe cat sat there",
        "1\tthe dog\ti love soup",
        "3\tmat\ta b c d e",
        "0\tx y\t1 2 3 4 5 6",
    ]
    write("scored.tsv", "score\tsentence1\tsentence2", *scored)
    tagged = [("Ada met Bob in Rome .", "B-PER O B-PER O B-LOC O"), ("the cat ran to Rome", "O O O O B-LOC")]
    write("names.jsonl", *(json.dumps({"tokens": t.split(), "tags": g.split()}) for t, g in tagged for _ in "abc"))
    Path("beir").mkdir()
    documents = {"d1": "i love soup on the mat", "d2": "the cat sat " * 6, "d3": "the dog ran"}
    write("beir/corpus.jsonl", *(json.dumps({"_id": i, "title": "", "text": text}) for i, text in documents.items()))
    write("beir/queries.jsonl", *(json.dumps({"_id": f"q{i}", "text": x}) for i, x in enumerate(("soup", "a cat"))))
    write("beir/qrels.tsv", "query-id\tcorpus-id\tscore", "q0\td1\t1", "q1\td2\t1")


def write(name, *lines):
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def set_up(setenv):
    """Write inputs, model and samples to where one stands, the model as the default; the database is unpacked."""
    setenv("MINISBERT_MODEL", "model")
    setenv("COLUMNS", "100")
    write_inputs()
    shutil.copytree(GOLDEN / "model", "model")
    shutil.copytree(SAMPLES, ".", dirs_exist_ok=True)
    if Path("notes.duckdb.gz").exists():  # not yet, while the samples are made
        Path("notes.duckdb").write_bytes(gzip.decompress(Path("notes.duckdb.gz").read_bytes()))


def parsed(shown):
    """JSON, lines of JSON, or else a text with its numbers behind it."""
    for attempt in (json.loads, lambda shown: [json.loads(line) for line in shown.splitlines()]):
        try:
            return attempt(shown)
        except ValueError:
            pass
    number = r"(?<![\w.])-?\d+\.\d+(?:e[-+]\d+)?\b"
    return {"text": re.sub(number, "#", shown), "numbers": [float(x) for x in re.findall(number, shown)]}


def kept(value, keep):
    """The part of an output that is compared."""
    if isinstance(value, dict):
        return {key: None if key in ELSEWHERE else kept(each, keep) for key, each in value.items()}
    if isinstance(value, list):
        return [kept(each, keep) for each in (value[:1] if keep == "keys" else value)]
    is_dropped = keep == "keys" or (keep == "labels" and isinstance(value, float))
    return None if is_dropped else value


def outputs_of(verb):
    """Run one verb in the folder that one stands in."""
    return kept({"stdout": parsed(run(*shlex.split(verb.line)).stdout)}, verb.keep)


def differences(old, new, at="", **bound):
    """Say where two outputs differ."""
    if isinstance(old, float) and isinstance(new, float):
        if not np.isclose(new, old, equal_nan=True, **bound):
            yield f"{at}: {old!r} became {new!r}"
    elif type(old) is not type(new) or (isinstance(old, list) and len(old) != len(new)):
        yield f"{at}: {old!r} became {new!r}"
    elif isinstance(old, dict) and old.keys() == new.keys():
        for key in old:
            yield from differences(old[key], new[key], f"{at}.{key}", **bound)
    elif isinstance(old, list):
        for i, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, f"{at}[{i}]", **bound)
    elif old != new:
        yield f"{at}: {old!r} became {new!r}"


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_prints_what_it_printed(name, tmp_path, request, monkeypatch):
    monkeypatch.chdir(tmp_path)
    set_up(monkeypatch.setenv)
    for fixture in VERBS[name].needs.split():
        needed = request.getfixturevalue(fixture)
        if fixture == "weights_folder":
            monkeypatch.setenv("MINISBERT_MODEL", str(needed))
    old = json.loads((GOLDEN / "verbs.json").read_text(encoding="utf-8"))[name]
    assert list(differences(old, outputs_of(VERBS[name]), **FLOAT32)) == []


# ----------------------------------------------------------------------------------------------------- the samples


def write_samples():
    """Write one file of every format, in the folder that one stands in."""
    run("calibrate", "-i", "texts.txt", "-o", "calibration.json")
    run(*shlex.split("route fit routes.yaml queries.tsv --objective balanced -o fitted.yaml"))
    run("classify", "train", "train.tsv", "-o", "mood")
    run(*shlex.split("entities train names.jsonl -o names --strength 1 --offset 0"))
    run("index", "build", "notes.duckdb", "notes.csv")
    Path("notes.duckdb.gz").write_bytes(gzip.compress(Path("notes.duckdb").read_bytes(), mtime=0))
    steps = []
    train("float32", checkpoint=Path("training.checkpoint"), on_step=steps.append, should_stop=lambda: len(steps) == 2)


SAMPLE_NAMES = ("calibration.json", "fitted.yaml", "mood", "names", "notes.duckdb.gz", "training.checkpoint")


def test_an_old_checkpoint_is_read():
    # its identity names the NumPy that wrote it, so that a run goes on only with the same one; here it is only read
    file = SAMPLES / "training.checkpoint"
    with np.load(file) as stored:
        identity = json.loads(str(stored["about"]))["identity"]
    params = named_parameters(SentenceEncoder(GOLDEN / "model").model)
    state = read_checkpoint(file, identity)
    assert (state.progress.step, state.optimizer.step) == (2, 2) and not state.best
    moved = max(float(np.abs(state.params[name] - params[name]).max()) for name in params)
    assert 5e-4 < moved < 3e-3  # two steps of 1e-3 at most
    words = "embeddings.word_embeddings.weight"
    assert state.optimizer.seen[words].sum() == state.optimizer.m[words].any(axis=1).sum()


# ----------------------------------------------------------------------------------------------------- the numbers


A = ("the cat sat", "i love soup", "a dog ran", "on the mat")
B = ("cat on a mat", "soup, soup", "dog, dog", "the mat")
C = ("1 2 3", "love the cat", "x y", "un able")


def train(dtype, **options):
    """Fine-tune the tiny model for four steps."""
    settings = Settings(batch_size=2, num_threads=1, epochs=2, learning_rate=1e-3, warmup=0)
    return finetune(SentenceEncoder(GOLDEN / "model", dtype=dtype), Examples("pairs", (A, B)), settings, **options)


def numbers():
    """Vectors and gradients in float64: a few hundred numbers."""
    encoder = SentenceEncoder(GOLDEN / "model", dtype="float64")
    x = encoder.encode(A + C)
    found = {"encode": x, "tokens": encoder.encode(B[1], output_value="token_embeddings")}
    for composition in ("weighted_mean", "max", "late"):
        long = " ".join(A + B)
        found[f"composition {composition}"] = encoder.encode(
            long, overflow="chunk", chunk_tokens=9, overlap=2, composition=composition
        )
    lengths = np.array([2, 4, 1])
    for mode in ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"):
        found[f"pool {mode}"] = pool(x[:7], lengths, (mode,))
    for function in (cos_sim, dot_score, euclidean_sim, manhattan_sim, angular_distance):
        found[function.__name__] = function(x[:2], x[2:5])
    for kind in ("angular", "chord", "cosine"):
        found[f"to_distance {kind}"] = to_distance(cos_sim(x[:1], x[1:4]), kind)
    for name, loss in LOSSES.items():
        for key, value in loss_numbers(encoder, loss).items():
            found[f"{name} {key}"] = value
    found["finetune"] = train("float64").encoder.encode(A)
    return {key: np.asarray(value) for key, value in found.items()}


def loss_numbers(encoder, loss):
    """A loss, and of every tensor's gradient its length and its shadow on one fixed direction."""
    columns = [A, B, C] if loss.data == "triplets" else [A, B]
    extra = {"scored": [[0.9, 0.1, 0.5, 0.3]], "labelled": [[1, 0, 0, 1]]}.get(loss.data, [])
    if loss.has_head:
        weight = np.cos(np.arange(2 * 3 * encoder.model.full_width)).reshape(2, -1)
        extra = [*extra, weight, np.array([0.1, -0.1])]
    step = value_and_gradients(encoder.model, columns, lambda vectors: loss.function(*vectors, *extra), num_threads=1)
    dense = [grad.dense() if hasattr(grad, "dense") else grad for _, grad in sorted(step.gradients.items())]
    shadows = [float(grad.ravel() @ np.cos(np.arange(grad.size))) for grad in dense]
    return {"value": step.value, "lengths": [float(np.sqrt((grad**2).sum())) for grad in dense], "shadows": shadows}


def test_vectors_and_gradients_are_what_they_were():
    with np.load(GOLDEN / "numbers.npz") as stored:
        old = {name: stored[name] for name in stored.files}
    new = numbers()
    assert new.keys() == old.keys()
    for name in old:
        np.testing.assert_allclose(new[name], old[name], **FLOAT64, err_msg=name)


# --------------------------------------------------------------------------------------------------- recording anew


def record(names):
    """Write golden/ anew, or only what some verbs print."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path.cwd()
        os.chdir(folder)
        try:
            if not names:
                shutil.rmtree(GOLDEN / "model", ignore_errors=True)
                write_model(GOLDEN / "model", config=replace(TINY, max_position_embeddings=64))
                shutil.rmtree(SAMPLES, ignore_errors=True)
                SAMPLES.mkdir()
                set_up(os.environ.__setitem__)
                write_samples()
                for name in SAMPLE_NAMES:
                    copy = shutil.copytree if Path(name).is_dir() else shutil.copy
                    copy(name, SAMPLES / name)
                np.savez_compressed(GOLDEN / "numbers.npz", **numbers())
            file = GOLDEN / "verbs.json"
            shown = json.loads(file.read_text(encoding="utf-8")) if names else {}
            for name, verb in VERBS.items():
                if names and name not in names:
                    continue
                Path(folder, name).mkdir()
                os.chdir(Path(folder, name))
                set_up(os.environ.__setitem__)
                if "weights_folder" in verb.needs:
                    os.environ["MINISBERT_MODEL"] = str(hub.resolve().folder)
                shown[name] = outputs_of(verb)
            ordered = {name: shown[name] for name in VERBS}
            file.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        finally:
            os.chdir(here)


if __name__ == "__main__":
    record(sys.argv[1:])
