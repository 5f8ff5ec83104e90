"""The command line: what goes to stdout and stderr, exit codes, every input and output format, and every example."""

import ast
import gzip
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from running import refused
from safetensors.numpy import load_file
from test_classify_cli import write_classify_files
from test_entities_cli import write_entity_files
from tiny import REMOVE, edit_json, tiny_dense, tiny_tokenizer, write_model

import minisbert
from minisbert import SentenceEncoder
from minisbert.cli import VERBS, in_options, main
from minisbert.cli.table import display_width, printable, shorten
from minisbert.model.params import flatten
from minisbert.model.pooling import Pooling

LONG = "the cat sat on the mat and the dog ran on the mat, i love the soup"
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
def in_its_own_folder(tmp_path, monkeypatch, request):
    """Each test stands in an empty folder, with the tiny model as the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for variable in ("HF_TOKEN", "MINISBERT_MODEL"):
        monkeypatch.delenv(variable, raising=False)
    if "model" in request.fixturenames:
        monkeypatch.setenv("MINISBERT_MODEL", str(request.getfixturevalue("model")))


def run(*arguments, input=None):
    """Call the command line in this process; stdout and stderr apart."""
    try:
        runner = CliRunner(mix_stderr=False)  # click before 8.2
    except TypeError:
        runner = CliRunner()
    result = runner.invoke(main, [str(argument) for argument in arguments], input=input)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def succeeds(*arguments, input=None):
    result = run(*arguments, input=input)
    assert result.exit_code == 0, result.stderr
    return result


def fails(*arguments, code=1, input=None):
    """Expect an error, nothing on stdout, and give what stderr says."""
    result = run(*arguments, input=input)
    assert result.exit_code == code, (result.stdout, result.stderr)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: " if code == 1 else "Usage: ")
    return result.stderr


def embeddings_of(jsonl):
    records = [json.loads(line) for line in jsonl.splitlines()]
    return [record["text"] for record in records], np.array([record["embedding"] for record in records], np.float32)


def process(*arguments, **options):
    """Call the command line as a user does, in a process of its own."""
    options = {"capture_output": True, "timeout": 60, **options}
    return subprocess.run([sys.executable, "-m", "minisbert", *map(str, arguments)], check=False, **options)


# ------------------------------------------------------------------------------------------------ the whole


def test_a_real_process_keeps_data_and_messages_apart(model):
    done = process("embed", "i love soup", LONG)
    assert done.returncode == 0
    assert embeddings_of(done.stdout.decode())[0] == ["i love soup", LONG]
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("Warning: 1 of 2 texts is longer than --max-seq-length = 16")


def test_a_real_process_that_fails_says_one_line(model):
    done = process("similarity", "a", "b", "--model", "./no-such-folder")
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("Error: ") and "no-such-folder" in line


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes stderr")
@pytest.mark.parametrize(
    "verb",
    [["similarity", LONG, "b"], ["tokens", LONG], ["embed", LONG, "--progress"], ["info"]],
    ids=lambda verb: verb[0],
)
def test_a_process_without_stderr_does_its_work(model, verb):
    command = ["sh", "-c", '"$0" -m minisbert "$@" 2>&-', sys.executable, *verb]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True)
    assert done.stdout == process(*verb).stdout != b""


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes stdout and stdin")
def test_an_answer_that_nobody_can_read_is_an_error_and_a_file_is_written(model):
    def closed(end, *verb):
        command = ["sh", "-c", f'"$0" -m minisbert "$@" {end}', sys.executable, *verb]
        return subprocess.run(command, stderr=subprocess.PIPE, timeout=60, check=False)

    for verb in (["embed", "a"], ["similarity", "a", "b"]):
        done = closed(">&-", *verb)
        assert (done.returncode, done.stderr) == (1, b"Error: standard output is closed\n")
    assert closed(">&-", "embed", "a", "-o", "v.npy").returncode == 0 and len(np.load("v.npy")) == 1
    assert closed("<&-", "embed", "-i", "-", "-o", "none.npy").returncode == 0 and len(np.load("none.npy")) == 0


def test_a_reader_that_has_seen_enough_is_no_error(model):
    many = "the cat sat on the mat\n" * 3000
    Path("many.txt").write_text(many)
    command = [sys.executable, "-m", "minisbert", "embed", "-i", "many.txt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert json.loads(running.stdout.readline())["text"] == "the cat sat on the mat"
        running.stdout.close()
        assert running.stderr.read() == b""
        running.wait(30)


def test_a_terminal_that_cannot_show_the_text_gets_escapes(model):
    done = process("similarity", "好き", "été", env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0 and rb"\u597d\u304d" in done.stdout and b"\xe9t\xe9" in done.stdout


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


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples_and_is_listed_by_its_own_words(verb):
    assert re.search(r"Examples?:\n +minisbert ", succeeds(verb, "--help").stdout)


def examples():
    """The command lines that help shows, read from the docstrings, by their verb."""
    found = {}
    for file in sorted((Path(minisbert.__file__).parent / "cli").glob("*.py")):
        functions = (n for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.FunctionDef))
        for doc in filter(None, map(ast.get_docstring, functions)):
            for line in re.findall(r"^ +((?:echo .* \| )?minisbert [a-z].*)$", doc, re.MULTILINE):
                found.setdefault(line.rpartition(" | ")[2].split()[1], {})[line] = None
    return [pytest.param(verb, list(lines), id=verb) for verb, lines in found.items()]


NEEDS = {"map": "sklearn", "cluster": "sklearn", "classify": "sklearn", "entities": "sklearn"} | dict.fromkeys(
    ("index", "search"), "duckdb"
)


@pytest.mark.parametrize(("verb", "lines"), examples())
def test_examples_of_help_run(verb, lines, model, request, monkeypatch, tmp_path):
    if verb == "verify":
        monkeypatch.setenv("MINISBERT_MODEL", str(request.getfixturevalue("weights_folder")))
    elif verb == "demo":
        monkeypatch.setattr("minisbert.training.descent_picture.FRAMES", 2)  # the film is tested elsewhere
    elif verb == "explain":  # it has no sum over pairs behind a Dense module
        monkeypatch.setenv("MINISBERT_MODEL", str(write_model(Path("mean-model").resolve())))
    library = "sklearn" if any(" route fit " in line for line in lines) else NEEDS.get(verb.partition("_")[0])
    if library or any(".png" in x or ".gif" in x for x in lines):
        request.getfixturevalue(library or "matplotlib")
    for i, line in enumerate(lines):
        (tmp_path / f"example-{i}").mkdir()
        monkeypatch.chdir(tmp_path / f"example-{i}")
        write_examples(verb, line)
        echoed, _, command = line.rpartition(" | ")
        words = shlex.split(command, comments=True)
        if verb == "bench":  # half an hour; here it is only read, and test_bench.py runs it small
            importlib.import_module("minisbert.cli.bench").bench.make_context("bench", words[2:])
            continue
        if ".parquet" in line and importlib.util.find_spec("pyarrow") is None:
            continue  # the extra that writes it is not here
        result = succeeds(*words[1:], input=shlex.split(echoed)[1] + "\n" if echoed else None)
        assert Path(words[words.index("-o") + 1]).stat().st_size > 0 if "-o" in words else result.stdout, line


def write_examples(verb, line):
    """The files that an example reads."""
    Path("texts.txt").write_text("i love soup\nthe cat sat\n")
    Path("reviews.csv").write_text('id,review\n1,"i love soup, the cat"\n2,the dog\n')
    Path("posts.jsonl").write_text('{"post": {"title": "the soup"}}\n')
    Path("pairs.csv").write_text("the cat sat,i love soup,4\nthe dog,the cat sat,1\nthe mat,the dog,3\n")
    pairs = "score\tsentence1\tsentence2\n4.5\tthe cat sat\ti love soup\n1\tthe dog\tthe cat sat\n3\tthe mat\tthe dog\n"
    for name in ("pairs.tsv", "data/sts12/STS12_test.tsv", "data/stsb/stsb_test.tsv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(pairs)
    for name in ("scifact", "cranfield"):
        Path(name).mkdir()
        Path(name, "corpus.jsonl").write_text('{"_id": "d1", "title": "the cat", "text": "i love soup on the mat"}\n')
        Path(name, "queries.jsonl").write_text('{"_id": "q1", "text": "soup"}\n')
        Path(name, "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    write_training_files()
    write_documents()
    if "calibration.json" in line and verb != "calibrate":
        succeeds("calibrate", "-i", "texts.txt", "-o", "calibration.json")
    if verb.startswith("classify"):
        write_classify_files()
        if " mood " in line and " train " not in line:
            succeeds("classify", "train", "train.tsv", "-o", "mood")
    if verb.startswith("entities"):
        write_entity_files()
        if " train " not in line:
            succeeds(*["entities", "train", "names_train.jsonl", "-o", "names", "--strength", "1", "--offset", "0"])
    if verb in ("index", "search") and " build " not in line:
        succeeds("index", "build", "notes.duckdb", "notes.txt")
        succeeds("index", "build", "articles.duckdb", "articles.csv", "--text-column", "body")


def write_documents():
    """Documents under the names that the examples of help use."""
    Path("notes.txt").write_text("i love soup\n\nthe cat sat on the mat\nthe dog ran\n")
    Path("more.txt").write_text("soup on the mat\n")
    articles = "1,the cat sat,en,2021\n2,the dog ran on the mat,fr,2019\n3,i love the cat,en,2018\n"
    Path("articles.csv").write_text(f"id,body,lang,year\n{articles}")
    Path("routes.yaml").write_text("soup: [soup!, i love the soup]\npets: [the cat sat, the dog ran]\n")
    queries = (
        "soup\ti love the soup!\nsoup\tsoup?\npets\tthe cat ran\npets\tthe cat on the mat\nnone\t5 5 5\nnone\t6 5\n"
    )
    for name in ("queries.tsv", "questions.tsv"):
        Path(name).write_text(f"label\ttext\n{queries}")


def write_training_files():
    """Labelled texts, triplets and scored pairs under the names that the examples of help use."""
    texts = [
        (label, f"{start} {letter}")
        for label, start in (("cat", "the cat"), ("soup", "i love soup"))
        for letter in "abcdefgh"
    ]
    for name in ("train.tsv", "test.tsv", "banking77_train.tsv", "banking77_test.tsv"):
        Path(name).write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in texts))
    for name, columns in (("intents.csv", "intent,text"), ("train.csv", "label,text"), ("test.csv", "label,text")):
        Path(name).write_text(f"{columns}\n" + "".join(f"{label},{text}\n" for label, text in texts))
    triplets = [f"{text}\t{text} x\tthe dog {i}\n" for i, (_, text) in enumerate(texts)]
    for name in ("nli.tsv", "nli_triplets.tsv"):
        Path(name).write_text("anchor\tpositive\tnegative\n" + "".join(triplets))
    Path("stsb_dev.tsv").write_text(Path("pairs.tsv").read_text())


REFUSED = {
    "Did you mean 'embed'": ("embd", "x"),
    "No such command": ("frobnicate",),
    "No such option": ("embed", "--frobnicate", "x"),
    "not one of": ("embed", "--dtype", "float16", "x"),
    "at least two texts, got 1": ("similarity", "alone"),
    "Nothing to tokenize": ("tokens",),
    "-o must end in .npy": ("embed", "x", "-o", "vectors.bin"),
    "npy cannot be written to stdout": ("embed", "x", "--output-format", "npy"),
    "0 is not in the range": ("embed", "x", "--batch-size", 0),
    "not both": ("embed", "sat", "--prompt-name", "query", "--prompt", "x"),
    "texts as arguments or in a file, not both": ("embed", "text", "-i", "t.csv"),
}
FAILED = {
    "position": ("embed", "x", "--max-seq-length", "17"),
    "no-such-file.txt: No such file or directory": ("embed", "-i", "no-such-file.txt"),
    "expected 3": ("tokens", "a", "--max-seq-length", 2),
    "to 16": ("tokens", "a", "--max-seq-length", 17),
    "none of this model's prompts": ("embed", "sat", "--prompt-name", "nothing"),
    "the folder missing does not exist": ("embed", "x", "-o", "missing/v.npy"),
    "not a regular file": ("embed", "x", "-o", "folder.npy", "--force"),
    "already exists": ("embed", "x", "-o", "t.csv", "--output-format", "npy"),
    "longer than --max-seq-length": ("embed", LONG, "--overflow", "error"),
    "are for --overflow chunk": ("similarity", "--overlap", "3", "a", "b"),
}


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [(code, *case) for code, cases in ((2, REFUSED), (1, FAILED)) for case in cases.items()],
)
def test_wrong_usage_and_failures(code, words, arguments, model):
    Path("t.csv").write_text("id,text\n1,a\n")
    Path("folder.npy").mkdir()
    assert words in " ".join(fails(*arguments, code=code).split())
    assert sorted(os.listdir()) == ["folder.npy", "t.csv"]


# ----------------------------------------------------------------------------------------------- similarity


def test_similarity_is_a_matrix_with_numbered_texts(model, encoder):
    result = succeeds("similarity", *TEXTS)
    legend, _, head, *rows, _, verdict = result.stdout.splitlines()
    assert legend.startswith("cosine similarity") and result.stderr == ""
    assert head.split() == ["1", "2", "3", "4", "5"]
    assert len({display_width(line) for line in [head, *rows]}) == 1  # aligned
    vectors = encoder.encode(TEXTS)
    scores = encoder.similarity(vectors, vectors)
    shown = np.array([[float(cell) for cell in row.split()[-5:]] for row in rows])
    np.testing.assert_allclose(shown, scores, atol=5.1e-5)
    assert rows[1].startswith("2  (empty)")
    np.fill_diagonal(scores, -2)
    i, j = sorted(np.unravel_index(scores.argmax(), scores.shape))
    assert verdict.startswith(f"most similar: {i + 1} and {j + 1} (")


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean", "manhattan", "angular"])
def test_similarity_as_json_in_every_metric(metric, model, encoder):
    got = json.loads(succeeds("similarity", "--json", "--metric", metric, *TEXTS).stdout)
    function = {"cosine": "cos_sim", "dot": "dot_score", "angular": "angular_distance"}.get(metric, f"{metric}_sim")
    vectors = encoder.encode(TEXTS)
    assert (got["texts"], got["similarity_fn_name"]) == (TEXTS, metric)
    np.testing.assert_array_equal(np.float32(got["scores"]), getattr(minisbert, function)(vectors, vectors))


def test_the_models_own_metric_is_the_default(tmp_path):
    folder = write_model(tmp_path / "dot-model", sentence_settings={"similarity_fn_name": "dot"})
    got = succeeds("similarity", "a", "b", "--model", folder, "--json").stdout
    assert json.loads(got)["similarity_fn_name"] == "dot"


def test_the_closest_pair_of_a_distance_is_the_smallest(model):
    shown = succeeds("similarity", "--metric", "angular", "the cat", "i love soup", "the cat").stdout
    assert shown.endswith("most similar: 1 and 3 (0.0000)\n")
    shown = succeeds("similarity", "--metric", "euclidean", "the cat", "the cat").stdout
    assert "-0.0000" not in shown and "most similar" not in shown


def test_a_wide_matrix_comes_in_parts(model, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    shown = succeeds("similarity", *(f"text number {i}" for i in range(12))).stdout.splitlines()
    assert max(map(display_width, shown[1:])) <= 60
    heads = [line for line in shown if line.startswith("   ")]
    assert len(heads) > 1 and " ".join(heads).split() == [str(i + 1) for i in range(12)]


def test_the_real_model_says_what_sentence_transformers_says(weights_folder):
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    shown = succeeds("similarity", *texts, "--model", weights_folder).stdout.splitlines()
    assert shown[3].split()[-3:] == ["1.0000", "0.6660", "0.1046"]
    assert shown[4].split()[-3:] == ["0.6660", "1.0000", "0.1411"]
    assert shown[-1] == "most similar: 1 and 2 (0.6660)"


# ---------------------------------------------------------------------------------------------------- table


def test_widths():
    assert shorten("好きです", 8) == "好きです"
    assert display_width(shorten("好きです", 7)) <= 7 and shorten("好きです", 7).endswith("…")
    assert display_width(shorten("e\u0301" * 10**5, 10)) <= 10
    assert display_width("👍🏽") == 2
    assert printable("a\tb\x00\u202e\ud800") == "a b\\x00\\u202e\\ud800"


# ------------------------------------------------------------------------------------------ embed: outputs


def read_jsonl(file):
    return embeddings_of(file.read_text(encoding="utf-8"))[1]


READERS = {
    "v.npy": lambda file: np.load(file, allow_pickle=False),
    "v.safetensors": lambda file: load_file(file)["embeddings"],
    "v.jsonl": read_jsonl,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("options", [{}, {"normalize_embeddings": True, "truncate_dim": 5, "prompt": "the "}])
def test_every_output_format_equals_encode(name, options, model, encoder):
    flags = ["--normalize", "--truncate-dim", 5, "--prompt", "the "] if options else []
    result = succeeds("embed", *TEXTS, "-o", name, *flags)
    assert result.stdout == ""
    assert re.fullmatch(rf"wrote 5 float32 vectors of \d dimensions to {name}\n", result.stderr)
    np.testing.assert_array_equal(READERS[name](Path(name)), encoder.encode(TEXTS, **options))
    assert os.listdir() == [name]


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (["--batch-size", 2], {"batch_size": 2}),
        (["--prompt-name", "query"], {"prompt_name": "query"}),
        (["--dtype", "float64"], {}),
    ],
)
def test_options_are_those_of_encode_to_the_last_digit(flags, options, model):
    expected = SentenceEncoder(model, dtype="float64" if "float64" in flags else "float32").encode(TEXTS, **options)
    records = map(json.loads, succeeds("embed", *TEXTS, *flags).stdout.splitlines())
    np.testing.assert_array_equal(np.array([record["embedding"] for record in records], expected.dtype), expected)
    succeeds("embed", *TEXTS, *flags, "-o", "vectors.bin", "--output-format", "npy")
    np.testing.assert_array_equal(np.load("vectors.bin"), expected)


def test_an_existing_file_is_kept_unless_forced(model, encoder):
    Path("v.npy").write_bytes(b"precious")
    assert "already exists" in fails("embed", "x", "-o", "v.npy")
    assert Path("v.npy").read_bytes() == b"precious"
    succeeds("embed", "x", "-o", "v.npy", "--force")
    np.testing.assert_array_equal(np.load("v.npy"), encoder.encode(["x"]))


def test_a_run_that_fails_leaves_no_file(model):
    Path("texts.txt").write_bytes(b"good\nb\xffd\n")
    fails("embed", "-i", "texts.txt", "-o", "v.npy")
    fails("embed", LONG, "--overflow", "error", "-o", "v.npy")
    fails("embed", "x", "-o", "v.npy", "--truncate-dim", 9)
    assert os.listdir() == ["texts.txt"]


def test_a_device_is_not_replaced(model):
    if os.name == "posix":
        assert "not a regular file" in fails("embed", "x", "-o", os.devnull, "--output-format", "npy", "--force")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_stays_a_link(model):
    Path("real.npy").write_bytes(b"")
    Path("link.npy").symlink_to("real.npy")
    succeeds("embed", "x", "-o", "link.npy", "--force")
    assert Path("link.npy").is_symlink() and np.load("real.npy").shape == (1, 8)


def test_overflow(model):
    assert "Warning: 1 of 1 texts" in succeeds("embed", LONG).stderr
    assert succeeds("embed", LONG, "--overflow", "truncate").stderr == ""
    assert "--max-seq-length = 4" in succeeds("embed", "i love soup", "--max-seq-length", "4").stderr


def test_progress_is_for_terminals_or_when_asked(model):
    assert "100%" in succeeds("embed", "x", "--progress").stderr
    assert succeeds("embed", "x").stderr == succeeds("embed", "x", "--no-progress").stderr == ""


# ------------------------------------------------------------------------------------------- embed: inputs


def texts_read(name, content, *options, input=None):
    """The texts that ``embed`` takes from a file of this name and content."""
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return embeddings_of(succeeds("embed", "-i", name, *options).stdout)[0]


def test_no_texts_are_an_empty_table(model):
    Path("t.txt").write_bytes(b"")
    succeeds("embed", "-i", "t.txt", "-o", "v.npy")
    assert np.load("v.npy").shape == (0, 8)


def test_stdin(model):
    assert embeddings_of(succeeds("embed", input="a\r\nb\n").stdout)[0] == ["a", "b"]
    assert embeddings_of(succeeds("embed", "-i", "-", input="a\n").stdout)[0] == ["a"]
    csv = "id,text\n1,a\n"
    assert embeddings_of(succeeds("embed", "--input-format", "csv", "--column", "2", input=csv).stdout)[0] == ["a"]
    assert "standard input, line 2" in fails("embed", input=b"a\n\xff\n")


@pytest.mark.parametrize(
    ("name", "content", "options", "texts"),
    [
        ("t.txt.gz", gzip.compress(b"a\nb\n", mtime=0), [], ["a", "b"]),
        ("t.csv.gz", gzip.compress(b"text\na\n", mtime=0), [], ["a"]),
        (
            "t.csv",
            "id,text\n1,a\n\n2,\n",
            ["--column", "2"],
            ["a", ""],
        ),  # an empty text has a vector, a blank line none
        ("t.csv", 'stars;review\n1;"a, b"\n', [], ["a, b"]),
        ("t.csv", "1|a\n2|b\n", ["--column", "2", "--no-header", "--delimiter", "|"], ["a", "b"]),
        ("t.csv", "text\n" + "x" * 200_000 + "\n", ["--overflow", "truncate"], ["x" * 200_000]),
        ("t.csv", "", ["--no-header"], []),
        ("t.txt", "id\ttext\n1\ta\n".encode("utf-16"), ["--input-format", "tsv"], ["a"]),
        ("t.tsv", 'id\ttext\n1\t"a"\n', [], ['"a"']),
        ("t.tsv", 'id\ttext\n1\t"a"\n', ["--quoting"], ["a"]),
        ("t.jsonl", '{"post": {"title": "a"}}\n', ["--field", "post.title"], ["a"]),
        ("t.jsonl", '{"post.title": "a", "post": 1}\n', ["--column", "post.title"], ["a"]),
        ("t.jsonl", '{"text": "\\ud83c\\udf72 \u2028\\n"}\n', [], ["🍲 \u2028\n"]),
        ("t.json", '["a", "b"]', [], ["a", "b"]),
    ],
)
def test_tables(name, content, options, texts, model):
    assert texts_read(name, content, *options) == texts


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("t.txt", b"a\nb\xffc\n", [], "t.txt, line 2, byte 2: not UTF-8 (0xff)"),
        ("t.csv", b'id,text\n1,"a\nb"\n2\n', [], "line 4: 1 column"),
        ("t.csv", b"id,text\n1,a\n", ["--column", "title"], "no column 'title'"),
        ("t.csv", b"id,stars\n1,5\n", [], "--column NAME says which"),
        ("t.csv", b"a;b,c\n1;2,3\n", [], "--delimiter , says which"),
        ("t.json", b'{"text": "a"}\n{"text": "b"}\n', [], "--input-format jsonl reads"),
        ("t.tsv", b"1\ta\n2\n", ["--column", "2", "--no-header"], "line 2: 1 column, but the first row has 2"),
        ("t.jsonl", b'{"text": "a"}\n{"title": "b"}\n', [], "line 2: no field 'text'; it has 'title'"),
        ("t.jsonl", b'{"text": null}\n', [], "line 1: the field 'text' must be a string, got null"),
    ],
)
def test_bad_rows_are_named_and_nothing_is_written(name, content, options, words, model):
    Path(name).write_bytes(content)
    said = fails("embed", "-i", name, "-o", "v.npy", *options)
    assert words in said and said.count("\n") == 1
    assert os.listdir() == [name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["text", "-i", "t.csv"], "not both"),
        (["text", "--column", "a"], "not both"),
        (["-i", "t.txt", "--column", "a"], "--column is for tables; this input is text"),
    ],
)
def test_options_that_do_not_fit_the_input(options, words):
    Path("t.csv").write_text("id,text\n1,a\n")
    assert words in " ".join(fails("embed", *options, code=2).split())


@pytest.mark.parametrize("option", [["--delimiter", ";"], ["--quoting"]])
@pytest.mark.parametrize(
    "command",
    ["embed -i t.txt", "cluster t.jsonl", "classify train t.jsonl -o m", "train t.jsonl -o m", "evaluate sts t.jsonl"],
)
def test_what_only_a_csv_has_is_ignored_by_no_verb(command, option):
    Path("t.txt").write_text("a\n")
    Path("t.jsonl").write_text('{"text": "a", "label": "b"}\n')
    assert f"{' '.join(option)}: only for CSV and TSV, but this input is " in fails(*command.split(), *option)


def test_nothing_to_embed_at_a_keyboard(model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    with pytest.raises(click.UsageError, match="Nothing to embed"):
        main.main(["embed"], standalone_mode=False)


# --------------------------------------------------------------------------------------------------- tokens


def test_tokens_of_a_short_text(model):
    assert succeeds("tokens", "The soup, unable").stdout.splitlines() == [
        "position      id  piece",
        "       0       2  [CLS]",
        "       1       5  the",
        "       2      12  soup",
        "       3      18  ,",
        "       4      15  un",
        "       5      16  ##able",
        "       6       3  [SEP]",
        "",
        "7 tokens; the limit is 16 (sentence_bert_config.json)",
    ]


def test_tokens_that_are_cut_are_marked(model, encoder):
    shown = succeeds("tokens", "i love the soup", "the", "--max-seq-length", 4).stdout
    assert "text 1: i love the soup\n" in shown and "text 2: the\n" in shown
    assert re.search(r"\n +2 +\d+  love\n +3 +3  \[SEP\]\n +- +5  the    cut\n +- +12  soup   cut\n", shown)
    assert "6 tokens, but the limit is 4 (--max-seq-length): 4 are read, 2 are cut" in shown
    many = succeeds("tokens", "a " * 5000).stdout
    assert "and 4,976 more, cut" in many and many.count("\n") < 35


@pytest.mark.parametrize("text", [*TEXTS, LONG, "a " * 14, "a " * 15])
def test_tokens_as_json_are_what_the_model_reads(text, model, encoder):
    got = json.loads(succeeds("tokens", "--json", text).stdout)
    (one,) = got["texts"]
    tokens = encoder.tokenize(text, overflow="truncate")
    assert (one["text"], got["max_seq_length"], got["decided_by"]) == (text, 16, "sentence_bert_config.json")
    assert [token["id"] for token in one["tokens"]] == tokens.token_ids.tolist()
    assert [token["position"] for token in one["tokens"]] == list(range(len(tokens.token_ids)))
    assert [token["piece"] for token in one["tokens"]] == encoder.model.tokenizer.pieces(tokens.token_ids)
    assert len(one["cut"]) == tokens.lost[0]


def test_tokens_does_not_need_the_weights(model, tmp_path):
    folder = write_model(tmp_path / "no-weights")
    (folder / "model.safetensors").unlink()
    assert "soup" in succeeds("tokens", "soup", "--model", folder).stdout


# ------------------------------------------------------------------------------------------------ info, fetch


def test_info_tells_the_model_the_limits_and_the_machine(model):
    shown = succeeds("info").stdout
    assert str(model) in shown and "2, each with 3 heads of 4" in shown
    assert "Transformer > Pooling (mean) > Dense (12 to 8, tanh)" in shown
    assert re.search(r"special tokens included: 16\n +sentence_bert_config.json: max_seq_length +16  in force\n", shown)
    assert re.search(r"tokenizer.json: truncation +7  ignored", shown)
    for library in ("BLAS", "numpy", "tokenizers", "safetensors", "huggingface-hub", "python", "minisbert"):
        assert f"  {library} " in shown


def test_info_as_json(model, encoder):
    got = json.loads(succeeds("info", "--json", "--max-seq-length", 9).stdout)
    arrays = [array.size for array in flatten(encoder.model.params)]
    assert got["model"]["parameters"] == sum(arrays) + 8 * 12 + 8
    assert got["model"]["stored_as"] == ["F32"]
    assert got["model"]["prompts"] == {"query": "the cat "}
    assert got["model"]["max_seq_length"]["in_force"] == 9
    assert got["model"]["max_seq_length"]["decided_by"] == "--max-seq-length"
    assert [said["tokens"] for said in got["model"]["max_seq_length"]["said"]][::3] == [16, 7]
    assert got["versions"]["numpy"] == np.__version__
    assert got["machine"]["cpus"] >= got["machine"]["usable_cpus"] >= 1


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "in_force", "decided_by"),
    [
        (10, 12, 10, "sentence_bert_config.json"),
        (None, 12, 12, "tokenizer_config.json"),
        (None, 1e30, 16, "config.json"),
        (None, None, 16, "config.json"),
        (600, 12, 16, "config.json"),
        (16, 12, 16, "sentence_bert_config.json"),
    ],
)
def test_info_names_the_file_that_decides_the_limit(sentence, tokenizer, in_force, decided_by, tmp_path):
    folder = write_model(tmp_path / "model")
    edit_json(folder / "sentence_bert_config.json", max_seq_length=REMOVE if sentence is None else sentence)
    edit_json(folder / "tokenizer_config.json", model_max_length=REMOVE if tokenizer is None else tokenizer)
    got = json.loads(succeeds("info", "--json", "--model", folder).stdout)["model"]["max_seq_length"]
    assert (got["in_force"], got["decided_by"]) == (in_force, decided_by)
    assert got["in_force"] == SentenceEncoder(folder).max_seq_length
    assert "in force" in succeeds("info", "--model", folder).stdout


def test_info_of_a_plain_bert(tmp_path):
    folder = write_model(tmp_path / "plain", modules=None)
    assert "Pooling (mean), by default" in succeeds("info", "--model", folder).stdout
    with pytest.warns(UserWarning, match="modules.json"):
        SentenceEncoder(folder)
    warned = succeeds("embed", "soup", "--model", folder)
    assert warned.stderr.startswith("Warning: ") and warned.stderr.count("\n") == 1


def test_info_without_the_model_shows_the_rest(monkeypatch, tmp_path):
    for arguments in (["--model", "nobody/nothing"], ["--model", "./missing"]):
        result = run("info", *arguments)
        assert result.exit_code == 1 and "BLAS" in result.stdout and "minisbert fetch" in result.stderr
        result = run("info", "--json", *arguments)
        assert result.exit_code == 1 and json.loads(result.stdout)["model"] is None


def test_fetch_prints_the_folder_alone(model):
    result = succeeds("fetch")
    assert result.stdout == f"{model.resolve()}\n" and result.stderr.startswith("source: the folder")
    got = json.loads(succeeds("fetch", str(model), "--json").stdout)
    assert got["folder"] == str(model.resolve()) and got["verified"] is False


def test_fetch_verifies_the_default_model(weights_folder):
    result = succeeds("fetch")
    assert Path(result.stdout.strip()) == weights_folder.resolve()
    assert "verified: 10 files" in result.stderr


@pytest.mark.parametrize("by", ["option", "variable"])
def test_a_token_is_passed_on_and_never_shown(by, monkeypatch):
    from minisbert import hub

    seen = []

    def resolve(model, **options):
        seen.append(options["token"])
        raise hub.FetchError("no such model")

    monkeypatch.setattr(hub, "resolve", resolve)
    if by == "variable":
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
    said = fails("fetch", "some/model", *(["--token", "hf_secret"] if by == "option" else []))
    assert seen == ["hf_secret"] and "secret" not in said + run("fetch", "--help").stdout


# ------------------------------------------------------------------------------------------------ in the user's words


@pytest.mark.parametrize(
    "arguments",
    [
        ("similarity", "caf\udce9", "b"),
        ("embed", "caf\udce9"),
        ("embed", "a", "--prompt", "caf\udce9"),
        ("tokens", "caf\udce9"),
        ("explain", "a", "caf\udce9"),
        ("verify", "--against", "torch", "caf\udce9"),
        ("search", "no.duckdb", "caf\udce9"),
        ("classify", "predict", "no", "caf\udce9"),
        ("entities", "predict", "no", "caf\udce9"),
    ],
    ids=" ".join,
)
def test_a_text_in_another_encoding_is_the_terminals(arguments):
    said = refused(*arguments, code=2)
    assert "terminal does not send" in said and r"b'caf\xe9'" in said and "surrogate" not in said


def test_a_c_locale_is_named_as_the_cause():
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "minisbert", "tokens", "caf\u00e9".encode()]
    done = subprocess.run(command, env=plain, capture_output=True, check=False)
    assert done.returncode == 2 and b"LC_ALL=C.UTF-8" in done.stderr and b"surrogate" not in done.stderr


@pytest.mark.parametrize(
    ("verb", "from_python", "in_the_shell"),
    [
        ("embed", "x; overflow='chunk' embeds", "x; --overflow chunk embeds"),
        ("explain", "x; overflow='chunk' embeds; y", "x; y"),
        ("embed", "make chunk_tokens larger", "make --chunk-tokens larger"),
        ("embed", "encode: overlap must be, got normalize_embeddings=True", "encode: overlap must be, got --normalize"),
        ("embed", "dtype='float64' reaches further", "--dtype float64 reaches further"),
        ("embed", "batch_size=4, a file's 'max_seq_length'", "--batch-size 4, a file's 'max_seq_length'"),
        ("info", "x; dtype='float64' reaches further", "x"),
        ("info", "local_files_only=True forbids the network", "--local-files-only forbids the network"),
    ],
)
def test_advice_names_options(verb, from_python, in_the_shell):
    command = main.get_command(click.Context(main), verb)
    assert in_options(from_python, command) == in_the_shell
    assert in_options(from_python, None) == from_python


def test_warnings_and_errors_name_options(model):
    warned = succeeds("similarity", "the cat " * 20, "b").stderr
    assert "--overflow chunk embeds them whole" in warned and "='" not in warned and "max_seq" not in warned
    plain = write_model("plain")
    warned = succeeds("explain", "the cat " * 20, "b", "--model", plain).stderr
    assert "chunk" not in warned and "--overflow truncate" in warned


@pytest.mark.parametrize(
    "arguments",
    [
        ("embed", "-i", "d.jsonl", "-o", "d.jsonl"),
        ("embed", "-i", "d.jsonl", "-o", "link.jsonl"),
        ("cluster", "d.jsonl", "-o", "hard.jsonl"),
        ("calibrate", "-i", "d.jsonl", "-o", "./d.jsonl"),
        ("evaluate", "sts", "d.jsonl", "-o", "d.jsonl"),
        ("route", "fit", "r.yaml", "d.jsonl", "-o", "r.yaml"),
    ],
    ids=" ".join,
)
def test_an_input_is_not_replaced(arguments, model):
    content = "".join(json.dumps({"text": text, "label": text[:1]}) + "\n" for text in ("the cat", "a dog", "the mat"))
    Path("d.jsonl").write_text(content)
    Path("r.yaml").write_text("a: [the cat]\nb: [a dog]\n")
    Path("link.jsonl").symlink_to("d.jsonl")
    Path("hard.jsonl").hardlink_to("d.jsonl")
    assert "is also the input" in refused(*arguments, "--force")
    assert Path("d.jsonl").read_text() == content
