"""The command line: what goes to stdout and stderr, exit codes, every input and output format, and every example."""

import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import click
import numpy as np
import pytest
from running import process, refused, run, stand_in, told
from test_golden import set_up, write_inputs
from tiny import REMOVE, edit_json, tiny_dense, tiny_tokenizer, write_model
from wcwidth import wcswidth

import minisbert
from minisbert import SentenceEncoder, hub
from minisbert.cli import VERBS, in_options, main
from minisbert.model.params import flatten
from minisbert.model.pooling import Pooling

TEXTS = ["i love soup", "", "the cat sat", "好き 👩‍🍳 été", "the dog ran"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random model: 16 positions, a limit of 16 tokens, one prompt."""
    folder = tmp_path_factory.mktemp("cli") / "tiny-model"
    write_model(folder, modules=(Pooling(), tiny_dense(12, 8)), tokenizer=tiny_tokenizer(truncation=7))
    edit_json(folder / "sentence_bert_config.json", max_seq_length=16)
    edit_json(folder / "config_sentence_transformers.json", prompts={"query": "the cat "})
    return folder


@pytest.fixture(scope="module")
def encoder(model):
    return SentenceEncoder(model)


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    stand_in(tmp_path, monkeypatch, model)


# ------------------------------------------------------------------------------------------------ real processes


def test_a_process_keeps_data_and_messages_apart():
    done = process("embed", "i love soup", LONG)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("Warning: 1 of 2 texts is longer than --max-seq-length = 16") and "--overflow chunk" in line
    assert run("embed", LONG, "--overflow", "truncate").stderr == ""
    done = process("similarity", "a", "b", "--model", "./no-such-folder")
    (line,) = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (1, b"") and line.startswith("Error: ") and "no-such-folder" in line
    done = process("similarity", "好き", "été", env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0 and rb"\u597d\u304d" in done.stdout and b"\xe9t\xe9" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes streams")
def test_closed_streams():
    def closed(end, *verb):
        command = ["sh", "-c", f'"$0" -m minisbert "$@" {end}', sys.executable, *verb]
        return subprocess.run(command, capture_output=True, timeout=60, check=False)

    for verb in (["similarity", LONG, "b"], ["embed", LONG]):
        assert closed("2>&-", *verb).stdout == run(*verb).stdout_bytes != b""
    done = closed(">&-", "similarity", "a", "b")
    assert (done.returncode, done.stderr) == (1, b"Error: standard output is closed\n")
    assert closed(">&-", "embed", "a", "-o", "v.npy").returncode == 0 and len(np.load("v.npy")) == 1
    assert closed("<&-", "embed", "-i", "-", "-o", "none.npy").returncode == 0 and len(np.load("none.npy")) == 0


def test_a_reader_that_has_seen_enough_is_no_error():
    Path("many.txt").write_text("the cat sat on the mat\n" * 3000)
    command = [sys.executable, "-m", "minisbert", "embed", "-i", "many.txt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert json.loads(running.stdout.readline())["text"] == "the cat sat on the mat"
        running.stdout.close()
        assert running.stderr.read() == b""
        running.wait(30)


def test_help_and_version_need_no_numpy():
    script = """
        import sys, types
        package = types.ModuleType("minisbert")  # without what minisbert itself imports
        package.__path__, package.__version__ = [sys.argv[1]], "1.2.3"
        sys.modules["minisbert"] = package
        from minisbert.cli import main
        main([sys.argv[2]], standalone_mode=False)
        assert not {"numpy", "tokenizers", "tqdm"} & set(sys.modules)
    """
    for option, words in (("--help", [*VERBS, *(words for _, words in VERBS.values())]), ("--version", ["1.2.3"])):
        command = [sys.executable, "-c", textwrap.dedent(script), *minisbert.__path__, option]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert all(word in done.stdout for word in words)


# ------------------------------------------------------------------------------------------------ help and its examples


def test_every_verb_has_help_with_examples():
    for verb in VERBS:
        command = main.get_command(click.Context(main), verb)
        for line in ([verb], *([verb, name] for name in getattr(command, "commands", {}))):
            assert re.search(r"Examples?:\n +minisbert ", run(*line, "--help").stdout)


def examples():
    """The command lines that help shows, read from the docstrings, by their verb."""
    found = {}
    for file in sorted((Path(minisbert.__file__).parent / "cli").glob("*.py")):
        functions = (n for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.FunctionDef))
        for doc in filter(None, map(ast.get_docstring, functions)):
            for line in re.findall(r"^ +((?:echo .* \| )?minisbert [a-z].*)$", doc, re.MULTILINE):
                found.setdefault(line.rpartition(" | ")[2].split()[1], {})[line] = None
    return [pytest.param(verb, list(lines), id=verb) for verb, lines in found.items()]


NEEDS = dict.fromkeys(("map", "cluster", "classify", "entities", "route", "evaluate", "demo"), "sklearn")
NEEDS |= dict.fromkeys(("index", "search"), "duckdb")
BEFORE = {  # what a verb's examples build on
    "similarity": ["calibrate -i texts.txt -o calibration.json"],
    "search": ["index build notes.duckdb notes.txt", "index build articles.duckdb articles.csv --text-column body"],
}


@pytest.mark.parametrize(("verb", "lines"), examples())
def test_examples_of_help_run(verb, lines, request, monkeypatch):
    """One after the other, in one folder."""
    if verb in ("verify", "diagnose"):
        folder = request.getfixturevalue("weights_folder")
        monkeypatch.setenv("MINISBERT_MODEL", str(folder))
        np.save("vector.npy", SentenceEncoder(folder).encode("i love soup"))
        shutil.copy(Path(__file__).parent.parent / "notebooks" / "my_bert.py", "my_bert.py")
    elif verb == "demo":
        monkeypatch.setattr("minisbert.training.descent_picture.FRAMES", 2)  # the film is tested elsewhere
    elif verb == "explain":  # it has no sum over pairs behind a Dense module
        monkeypatch.setenv("MINISBERT_MODEL", str(write_model(Path("mean-model").resolve())))
    for part in ([NEEDS[verb]] if verb in NEEDS else []) + ["matplotlib"] * any(".png" in x for x in lines):
        request.getfixturevalue(part)
    write_examples()
    for line in [*(f"minisbert {line}" for line in BEFORE.get(verb, ())), *lines]:
        echoed, _, command = line.rpartition(" | ")
        words = shlex.split(command, comments=True)
        if verb in ("bench", "serve"):  # half an hour, or for ever; here it is only read, and their own tests run it
            main.get_command(click.Context(main), verb).make_context(verb, words[2:])
            continue
        if "ray" in words:  # it starts a cluster: test_bulk.py does
            continue
        if ".parquet" in line and importlib.util.find_spec("pyarrow") is None:
            continue  # the extra that writes it is not here
        output = Path(words[words.index("-o") + 1]) if "-o" in words else None
        if output is not None and output.exists() and "--resume" not in words:
            shutil.rmtree(output) if output.is_dir() else output.unlink()
        stubs = int("my_bert.py" in words)  # nothing of it is written yet: 1
        result = run(*words[1:], code=stubs, input=shlex.split(echoed)[1] + "\n" if echoed else None)
        assert output.stat().st_size > 0 if output else result.stdout, line


COPIES = {  # of the files of test_golden.py, under the names that help gives them
    "scored.tsv": "pairs.tsv stsb_dev.tsv data/sts12/STS12_test.tsv data/stsb/stsb_test.tsv",
    "triplets.tsv": "nli.tsv",
    "train.tsv": "banking77_train.tsv banking77_test.tsv test.tsv",
    "names.jsonl": "names_train.jsonl names_dev.jsonl names_test.jsonl",
    "beir": "scifact",
}


def write_examples():
    """The files that the examples of help read."""
    write_inputs()
    for name, copies in COPIES.items():
        for copy in map(Path, copies.split()):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(name, copy) if Path(name).is_dir() else shutil.copy(name, copy)
    quoted = re.sub(r"\t(.*)", r',"\1"', Path("train.tsv").read_text())
    tagged = [json.loads(line).values() for line in Path("names.jsonl").read_text().splitlines()]
    conll = "\n\n".join("\n".join(map("\t".join, zip(*one, strict=True))) for one in tagged)
    for names, text in {
        "train.csv test.csv": quoted,
        "intents.csv": quoted.replace("label", "intent", 1),
        "names_train.conll names_test.conll": conll,
        "keys.txt": "secret",
        "more.txt": "soup on the mat",
        "reviews.csv": 'id,review\n1,"i love soup, the cat"\n2,the dog',
        "posts.jsonl": '{"post": {"title": "the soup"}}',
        "pairs.csv": "the cat sat,i love soup,4\nthe dog,the cat sat,1\nthe mat,the dog,3",
        "articles.csv": "id,body,lang,year\n1,the cat sat,en,2021\n2,the dog ran,fr,2019\n3,the cat,en,2018",
    }.items():
        for name in names.split():
            Path(name).write_text(f"{text}\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------ refusals


LONG = "the cat " * 40
REFUSED = [  # a command line, its exit code, and the option or file that the refusal names
    ("embd x", 2, "Did you mean 'embed'"),
    ("evaluate layer", 2, "Did you mean 'layers'"),
    ("notes.csv", 2, "a command comes first"),
    # texts, and the tables that they come in
    ("similarity alone", 2, "at least two texts"),
    ("tokens", 2, "Nothing to tokenize"),
    ("embed text -i notes.csv", 2, "in a file, not both"),
    ("embed -i no-such-file.txt", 1, "no-such-file.txt: No such file"),
    ("embed -i bad.txt -o v.npy", 1, "bad.txt, line 2, byte 2"),
    ("embed -i stars.csv -o v.npy", 1, "--column NAME"),
    ("embed -i semicolon.csv", 1, "--delimiter ,"),
    ("embed -i lines.json", 1, "--input-format jsonl"),
    ("embed -i notes.txt --delimiter ;", 1, "--delimiter ;: only for CSV and TSV"),
    ("train beir/corpus.jsonl -o new --delimiter ;", 1, "--delimiter"),
    ("evaluate sts beir/corpus.jsonl --quoting", 1, "--quoting"),
    ("classify train beir/corpus.jsonl -o new --delimiter ;", 1, "--delimiter"),
    # how they are embedded
    ("embed x --batch-size 0", 2, "--batch-size"),
    ("embed sat --prompt-name query --prompt x", 2, "not both"),
    ("embed sat --prompt-name nothing", 1, "'nothing'"),
    ("tokens a --max-seq-length 65", 1, "from 3 to 64"),
    (f"embed '{LONG}' --overflow error -o v.npy", 1, "longer than --max-seq-length"),
    ("embed x -o v.npy --truncate-dim 13", 1, "--truncate-dim"),
    ("similarity --overlap 3 a b", 1, "--overflow chunk"),
    # outputs
    ("embed x -o vectors.bin", 2, "-o must end in .npy"),
    ("embed x -o missing/v.npy", 1, "missing does not exist"),
    ("embed x -o folder.npy --force", 1, "not a regular file"),
    ("calibrate a b -o notes.csv", 1, "notes.csv: already exists"),
    ("embed x --model model -o model/model.safetensors --force", 1, "belongs to"),
    ("evaluate retrieval beir -o beir/queries.jsonl --force", 1, "belongs to"),
    ("embed -i d.jsonl -o link.jsonl --force", 1, "is the input"),
    ("cluster d.jsonl -o hard.jsonl --force", 1, "is the input"),
    ("calibrate -i d.jsonl -o ./d.jsonl --force", 1, "is the input"),
    ("route fit routes.yaml queries.tsv -o routes.yaml --force", 1, "is the input"),
    # verb by verb
    ("route ask routes.yaml", 2, "Nothing to route"),
    ("route ask routes.yaml x --threshold 60", 1, "--threshold"),
    ("route ask percent.yaml x", 1, "percent.yaml: routes.pets.threshold"),
    ("route ask fitted.yaml x --model other", 1, "'model'"),
    ("route ask fitted.yaml x --scoring centroid", 2, "'nearest'"),
    ("route evaluate routes.yaml unlike.csv --none-label -", 1, "--unknown-is-none"),
    ("route evaluate routes.yaml unlike.csv --columns kind,query", 1, "'kind'"),
    ("route fit routes.yaml queries.tsv -o x.txt", 2, "-o must end in .yaml"),
    ("route fit one.yaml queries.tsv", 1, "not among the routes"),
    ("classify train train.tsv -o new --threshold-for good", 2, "--precision"),
    ("classify train train.tsv -o new --threshold-for fine --precision 0.9", 1, "'fine'"),
    ("classify train train.tsv -o new --class-weight fair", 2, "--class-weight"),
    ("classify train train.tsv -o new --class-weight fine=2", 1, "--class-weight"),
    ("classify train train.tsv -o new --columns text", 1, "--columns must be 2"),
    ("classify train train.tsv -o new --no-header", 1, "by number"),
    ("classify train train.tsv -o train.tsv", 1, "train.tsv"),
    ("classify train train.tsv -o mood", 1, "already exists"),
    ("classify train same.tsv -o new", 1, "same.tsv: all 2 texts"),
    ("classify predict mood", 2, "Nothing to classify"),
    ("classify predict mood x ''", 1, "text 2 of 2"),
    ("classify predict none x", 1, "no such folder"),
    ("classify predict mood x --max-seq-length 8", 1, "--max-seq-length"),
    ("classify predict mood x --model other", 1, "'model'"),
    ("classify evaluate mood queries.tsv", 1, "'none', on 6 texts"),
    ("classify evaluate mood test.tsv --baseline test.tsv", 1, "training set"),
    ("entities train bad.jsonl -o new", 1, "bad.jsonl, line 2"),
    ("entities train bad.jsonl -o names", 1, "already exists"),  # before the file is read
    ("entities train names.jsonl -o new --layer 3", 1, "to 2"),
    ("entities predict names", 2, "Nothing to search"),
    ("entities predict names x --model other", 1, "'model'"),
    ("entities evaluate names names.jsonl --dev names.jsonl", 2, "--baselines"),
    ("entities evaluate names none.conll", 1, "nothing to find"),
    ("cluster texts.txt --k x", 2, "2-20"),
    ("cluster texts.txt --k 6", 1, "k = 6"),
    ("cluster texts.txt --distance 0.5", 1, "distance"),
    ("cluster texts.txt --label kind", 1, "no column 'kind'"),
    ("cluster empty.txt", 1, "empty.txt"),
    ("map texts.txt -o new --method tsne", 2, ".png"),
    ("map few.txt -o new.html --method tsne", 1, "at least"),
    ("train pairs.tsv -o new --scale high", 2, "--scale"),
    ("train pairs.tsv -o new --loss-option scale", 2, "--loss-option"),
    ("train pairs.tsv -o new --loss-option scale=high", 1, "'high'"),
    ("train pairs.tsv -o new --columns 1,2", 2, "--kind"),
    ("train pairs.tsv -o new --no-header", 1, "--kind"),
    ("train pairs.tsv -o new --dev-columns a,b,c", 2, "--dev"),
    ("train pairs.tsv -o new --evaluate-every 3", 2, "--dev"),
    ("train pairs.tsv -o new --dev scored.tsv --dev-columns score", 2, "--dev-columns"),
    ("train pairs.tsv -o new --dev triplets.tsv", 1, "triplets.tsv"),
    ("train pairs.tsv -o new --resume --force", 2, "--force"),
    ("train pairs.tsv -o new --from-scratch 2,128,5", 1, "128"),
    ("train pairs.tsv -o new --loss cosent", 1, "cosent"),
    ("train pairs.tsv -o new --model folder.npy", 1, "folder.npy"),
    ("train pairs.tsv -o new --max-seq-length 65", 1, "--max-seq-length"),
    ("train pairs.tsv -o .", 2, "-o"),
    ("train pairs.tsv -o nowhere/x", 1, "nowhere"),
    ("train pairs.tsv -o pairs.tsv", 1, "pairs.tsv"),
    ("train pairs.tsv -o beir", 1, "beir"),
    ("train pairs.tsv -o beir --resume", 1, "beir"),  # complete, if it were a model
]


FOUND_BY_VECTORS = """similarity --overlap 3 a b
cluster texts.txt --k 6
route evaluate routes.yaml unlike.csv --none-label -
route fit one.yaml queries.tsv"""  # all others before anything is embedded


def content():
    return {file: file.is_file() and file.read_bytes() for file in Path().rglob("*")}


@pytest.mark.parametrize("verb", dict.fromkeys(line.split()[0] for line, _, _ in REFUSED))
def test_what_is_refused_changes_no_file(verb, request, monkeypatch):
    if verb in ("classify", "entities", "cluster", "map"):
        request.getfixturevalue("sklearn")
    set_up(monkeypatch.setenv)
    write_model(Path("other"), seed=3)
    for name, text in {
        "bad.txt": b"a\nb\xffc\n",
        "stars.csv": b"stars,grade\n5,1\n",
        "semicolon.csv": b"a;b,c\n1;2,3\n",
        "lines.json": b'{"text": "a"}\n{"text": "b"}\n',
        "d.jsonl": b'{"text": "the cat"}\n{"text": "a dog"}\n',
        "one.yaml": b"pets: [the cat sat]\n",
        "percent.yaml": b"pets: {examples: [the cat sat], threshold: 2}\n",
        "unlike.csv": b"intent,query\npets,the cat ran\nfish,5 5 5\n-,6 5\n",
        "same.tsv": b"label\ttext\na\tx\na\ty\n",
        "bad.jsonl": b'{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a", "b"], "tags": ["O"]}\n',
        "none.conll": b"a O\n",
        "few.txt": b"soup\ncat\n",
        "empty.txt": b"",
    }.items():
        Path(name).write_bytes(text)
    Path("link.jsonl").symlink_to("d.jsonl")
    Path("hard.jsonl").hardlink_to("d.jsonl")
    Path("folder.npy").mkdir()
    before = content()
    for line, code, named in REFUSED:
        if line.split()[0] == verb:
            with monkeypatch.context() as patch:
                if line not in FOUND_BY_VECTORS:
                    patch.setattr(SentenceEncoder, "encode", None)
                said = refused(*shlex.split(line), code=code)
            assert named in " ".join(said.split()), line
            assert content() == before, line


@pytest.mark.skipif(os.name != "posix", reason="no such device here")
def test_a_device_is_not_replaced():
    assert "not a regular file" in refused("calibrate", "a", "b", "-o", "/dev/null", "--force")


def test_a_text_in_another_encoding_is_the_terminals():
    for line in (
        "similarity TEXT b", "embed a --prompt TEXT", "tokens TEXT", "explain a TEXT", "verify --against torch TEXT",
        "search no.duckdb TEXT", "classify predict no TEXT", "entities predict no TEXT",
    ):  # fmt: skip
        said = refused(*line.replace("TEXT", "caf\udce9").split(), code=2)
        assert "LC_ALL=C.UTF-8" in said and r"b'caf\xe9'" in said and "surrogate" not in said


def test_without_an_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for line in ("cluster texts.txt", "map texts.txt -o m.html"):
        assert refused(*line.split()).endswith("needs scikit-learn: pip install -e '.[apps]'\n")


def test_advice_names_options():
    for verb, from_python, in_the_shell in (
        ("embed", "x; overflow='chunk' embeds", "x; --overflow chunk embeds"),
        ("explain", "x; overflow='chunk' embeds; y", "x; y"),
        ("embed", "make chunk_tokens larger", "make --chunk-tokens larger"),
        ("embed", "encode: overlap must be, got normalize_embeddings=True", "encode: overlap must be, got --normalize"),
        ("embed", "batch_size=4, a file's 'max_seq_length'", "--batch-size 4, a file's 'max_seq_length'"),
        ("info", "x; dtype='float64' reaches further", "x"),
    ):
        command = main.get_command(click.Context(main), verb)
        assert in_options(from_python, command) == in_the_shell
        assert in_options(from_python, None) == from_python


# ------------------------------------------------------------------------------------------------ similarity


def test_similarity_is_a_matrix_with_numbered_texts(encoder, monkeypatch):
    result = run("similarity", *TEXTS)
    legend, _, head, *rows, _, verdict = result.stdout.splitlines()
    assert legend.startswith("cosine similarity") and result.stderr == "" and head.split() == ["1", "2", "3", "4", "5"]
    assert len({wcswidth(line) for line in [head, *rows]}) == 1  # aligned
    scores = encoder.similarity(encoder.encode(TEXTS), encoder.encode(TEXTS))
    np.testing.assert_allclose([[float(cell) for cell in row.split()[-5:]] for row in rows], scores, atol=5.1e-5)
    np.fill_diagonal(scores, -2)
    i, j = sorted(np.unravel_index(scores.argmax(), scores.shape))
    assert rows[1].startswith("2  (empty)") and verdict.startswith(f"most similar: {i + 1} and {j + 1} (")
    nearest = run("similarity", "--metric", "angular", "the cat", "i love soup", "the cat").stdout
    assert nearest.endswith("most similar: 1 and 3 (0.0000)\n")
    monkeypatch.setenv("COLUMNS", "50")  # in several parts
    assert max(map(wcswidth, run("similarity", *TEXTS).stdout.splitlines()[1:])) <= 50


def test_similarity_in_every_metric(encoder):
    vectors = encoder.encode(TEXTS)
    names = ("cos_sim", "dot_score", "euclidean_sim", "manhattan_sim", "angular_distance")
    for metric, name in zip(("cosine", "dot", "euclidean", "manhattan", "angular"), names, strict=True):
        got = told("similarity", "--metric", metric, *TEXTS)
        assert got["similarity_fn_name"] == metric
        np.testing.assert_array_equal(np.float32(got["scores"]), getattr(minisbert, name)(vectors, vectors))
    folder = write_model(Path("dot-model"), sentence_settings={"similarity_fn_name": "dot"})
    assert told("similarity", "a", "b", "--model", folder)["similarity_fn_name"] == "dot"  # the model's own


# ------------------------------------------------------------------------------------------ embed


def test_options_are_those_of_encode_to_the_last_digit(model):
    flags = ["--prompt-name", "query", "--truncate-dim", 5, "--normalize", "--batch-size", 2, "--dtype", "float64"]
    options = {"prompt_name": "query", "truncate_dim": 5, "normalize_embeddings": True, "batch_size": 2}
    expected = SentenceEncoder(model, dtype="float64").encode(TEXTS, **options)
    shown = run("embed", *TEXTS, *flags).stdout
    np.testing.assert_array_equal([json.loads(line)["embedding"] for line in shown.splitlines()], expected)
    result = run("embed", *TEXTS, *flags, "-o", "vectors.npy")
    assert (result.stdout, result.stderr) == ("", "wrote 5 float64 vectors of 5 dimensions to vectors.npy\n")
    np.testing.assert_array_equal(np.load("vectors.npy"), expected)


def test_a_link_stays_a_link():
    Path("real.npy").write_bytes(b"precious")
    Path("link.npy").symlink_to("real.npy")
    run("embed", "x", "-o", "link.npy", "--force")
    assert Path("link.npy").is_symlink() and np.load("real.npy").shape == (1, 8)


def test_tables_and_stdin(monkeypatch):
    for name, text, options, texts in (
        ("t.csv", "id,text\n1,a\n\n2,\n", "--column 2", ["a", ""]),  # an empty text has a vector, a blank line none
        ("t.csv", "1|a\n2|b\n", "--column 2 --no-header --delimiter |", ["a", "b"]),
        ("t.txt", "id\ttext\n1\ta\n", "--input-format tsv", ["a"]),
        ("t.jsonl", '{"post": {"title": "a"}}\n', "--field post.title", ["a"]),
        ("t.jsonl", '{"text": "\\ud83c\\udf72 \u2028\\n"}\n', "", ["🍲 \u2028\n"]),
        ("-", "a\r\nb\n", "", ["a", "b"]),
        ("-", "id,text\n1,a\n", "--input-format csv", ["a"]),
    ):
        Path(name).write_text(text, encoding="utf-8")
        lines = run("embed", "-i", name, *options.split(), input=text).stdout.splitlines()
        assert [json.loads(line)["text"] for line in lines] == texts
    assert "standard input, line 2" in refused("embed", input=b"a\n\xff\n")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    with pytest.raises(click.UsageError, match="Nothing to embed"):
        main.main(["embed"], standalone_mode=False)


# --------------------------------------------------------------------------------------------------- the model


def test_tokens_that_are_cut_are_marked():
    shown = run("tokens", "i love the soup", "the", "--max-seq-length", 4).stdout
    assert "text 1: i love the soup\n" in shown and "text 2: the\n" in shown
    assert re.search(r"\n +2 +\d+  love\n +3 +3  \[SEP\]\n +- +5  the    cut\n +- +12  soup   cut\n", shown)
    assert "6 tokens, but the limit is 4 (--max-seq-length): 4 are read, 2 are cut" in shown
    assert run("tokens", "unable").stdout.endswith("4 tokens; the limit is 16 (sentence_bert_config.json)\n")
    many = run("tokens", "a " * 5000).stdout
    assert "and 4,976 more, cut" in many and many.count("\n") < 35


def test_info_tells_the_model_the_limits_and_the_machine(model, encoder):
    shown = run("info").stdout
    assert str(model) in shown and "2, each with 3 heads of 4" in shown
    assert "Transformer > Pooling (mean) > Dense (12 to 8, tanh)" in shown
    assert re.search(r"special tokens included: 16\n +sentence_bert_config.json: max_seq_length +16  in force\n", shown)
    assert re.search(r"tokenizer.json: truncation +7  ignored", shown) and "  BLAS " in shown
    got = told("info", "--max-seq-length", 9)["model"]
    assert got["parameters"] == sum(array.size for array in flatten(encoder.model.params)) + 8 * 12 + 8
    assert got["stored_as"] == ["F32"] and got["prompts"] == {"query": "the cat "}
    assert (got["max_seq_length"]["in_force"], got["max_seq_length"]["decided_by"]) == (9, "--max-seq-length")


def test_info_names_the_file_that_decides_the_limit():
    folder = write_model(Path("model"))
    for sentence, tokenizer, in_force, decided_by in (
        (10, 12, 10, "sentence_bert_config.json"),
        (REMOVE, 12, 12, "tokenizer_config.json"),
        (REMOVE, 1e30, 16, "config.json"),
        (600, 12, 16, "config.json"),
    ):
        edit_json(folder / "sentence_bert_config.json", max_seq_length=sentence)
        edit_json(folder / "tokenizer_config.json", model_max_length=tokenizer)
        got = told("info", "--model", folder)["model"]["max_seq_length"]
        assert (got["in_force"], got["decided_by"]) == (in_force, decided_by)
        assert got["in_force"] == SentenceEncoder(folder).max_seq_length


def test_info_of_a_plain_bert_and_without_a_model():
    folder = write_model(Path("plain"), modules=None)
    assert "Pooling (mean), by default" in run("info", "--model", folder).stdout
    result = run("info", "--model", "./missing", code=1)
    assert "BLAS" in result.stdout and "minisbert fetch" in result.stderr
    assert told("info", "--model", "./missing", code=1)["model"] is None


def test_fetch_prints_the_folder_alone_and_verifies_the_default_model(model, weights_folder, monkeypatch):
    result = run("fetch")
    assert result.stdout == f"{model.resolve()}\n" and result.stderr.startswith("source: the folder")
    assert told("fetch", str(model))["verified"] is False
    monkeypatch.delenv("MINISBERT_MODEL")
    result = run("fetch")
    assert Path(result.stdout.strip()) == weights_folder.resolve() and "verified: 10 files" in result.stderr


def test_a_token_is_passed_on_and_never_shown(monkeypatch):
    seen = []

    def resolve(model, **options):
        seen.append(options["token"])
        raise hub.FetchError("no such model")

    monkeypatch.setattr(hub, "resolve", resolve)
    said = refused("fetch", "some/model", "--token", "hf_secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    said += refused("fetch", "some/model")
    assert seen == ["hf_secret"] * 2 and "secret" not in said + run("fetch", "--help").stdout
