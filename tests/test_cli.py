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
from test_golden import write_inputs
from tiny import REMOVE, edit_json, tiny_dense, tiny_tokenizer, write_model
from wcwidth import wcswidth

import minisbert
from minisbert import SentenceEncoder, hub
from minisbert.cli import VERBS, in_options, main
from minisbert.cli.table import printable, shorten
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
def in_its_own_folder(tmp_path, monkeypatch, model):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    stand_in(tmp_path, monkeypatch, model)


def embeddings_of(jsonl):
    records = [json.loads(line) for line in jsonl.splitlines()]
    return [record["text"] for record in records], np.array([record["embedding"] for record in records], np.float32)


# ------------------------------------------------------------------------------------------------ real processes


def test_a_process_keeps_data_and_messages_apart():
    done = process("embed", "i love soup", LONG)
    assert done.returncode == 0 and embeddings_of(done.stdout.decode())[0] == ["i love soup", LONG]
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("Warning: 1 of 2 texts is longer than --max-seq-length = 16")
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
        shown = run(verb, "--help").stdout
        assert re.search(r"Examples?:\n +minisbert ", shown)
        command = main.get_command(click.Context(main), verb)
        for name, one in getattr(command, "commands", {}).items():
            assert re.search(rf"{name} +{re.escape(one.short_help)}", shown)
            assert re.search(r"Examples?:\n +minisbert ", run(verb, name, "--help").stdout)


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


REFUSED = [
    ("Did you mean 'embed'", "embd x", 2),
    ("Did you mean 'layers'", "evaluate layer", 2),
    ("a command comes first", "t.csv", 2),
    ("at least two texts, got 1", "similarity alone", 2),
    ("Nothing to tokenize", "tokens", 2),
    ("-o must end in .npy", "embed x -o vectors.bin", 2),
    ("0 is not in the range", "embed x --batch-size 0", 2),
    ("not both", "embed sat --prompt-name query --prompt x", 2),
    ("in a file, not both", "embed text -i t.csv", 2),
    ("in a file, not both", "embed text --column a", 2),
    ("17", "embed x --max-seq-length 17", 1),
    ("no-such-file.txt: No such file", "embed -i no-such-file.txt", 1),
    ("from 3 to 16", "tokens a --max-seq-length 17", 1),
    ("none of this model's prompts", "embed sat --prompt-name nothing", 1),
    ("the folder missing does not exist", "embed x -o missing/v.npy", 1),
    ("not a regular file", "embed x -o folder.npy --force", 1),
    ("not a regular file", "calibrate a b -o /dev/null --force", 1),
    ("already exists", "calibrate a b -o t.csv", 1),
    ("longer than --max-seq-length", f"embed '{LONG}' --overflow error", 1),
    ("longer than --max-seq-length", f"embed '{LONG}' --overflow error -o v.npy", 1),
    ("--truncate-dim", "embed x -o v.npy --truncate-dim 9", 1),
    ("are for --overflow chunk", "similarity --overlap 3 a b", 1),
]


@pytest.mark.parametrize(("words", "line", "code"), REFUSED)
def test_what_is_refused_leaves_no_file(words, line, code):
    if "/dev/null" in line and os.name != "posix":
        pytest.skip("no such device here")
    Path("t.csv").write_text("id,text\n1,a\n")
    Path("folder.npy").mkdir()
    assert words in " ".join(refused(*shlex.split(line), code=code).split())
    assert sorted(os.listdir()) == ["folder.npy", "t.csv"]


@pytest.mark.parametrize(
    "line",
    ["embed -i d.jsonl -o d.jsonl", "embed -i d.jsonl -o link.jsonl", "cluster d.jsonl -o hard.jsonl",
     "calibrate -i d.jsonl -o ./d.jsonl", "evaluate sts d.jsonl -o d.jsonl", "route fit r.yaml d.jsonl -o r.yaml"],
)  # fmt: skip
def test_an_input_is_not_replaced(line):
    content = "".join(json.dumps({"text": text, "label": text[:1]}) + "\n" for text in ("the cat", "a dog", "the mat"))
    Path("d.jsonl").write_text(content)
    Path("r.yaml").write_text("a: [the cat]\nb: [a dog]\n")
    Path("link.jsonl").symlink_to("d.jsonl")
    Path("hard.jsonl").hardlink_to("d.jsonl")
    assert "is the input" in refused(*line.split(), "--force")
    assert Path("d.jsonl").read_text() == content


@pytest.mark.parametrize(
    "line",
    ["similarity TEXT b", "embed a --prompt TEXT", "tokens TEXT", "explain a TEXT", "verify --against torch TEXT",
     "search no.duckdb TEXT", "classify predict no TEXT", "entities predict no TEXT"],
)  # fmt: skip
def test_a_text_in_another_encoding_is_the_terminals(line):
    said = refused(*line.replace("TEXT", "caf\udce9").split(), code=2)
    assert "LC_ALL=C.UTF-8" in said and r"b'caf\xe9'" in said and "surrogate" not in said


def test_advice_names_options():
    for verb, from_python, in_the_shell in (
        ("embed", "x; overflow='chunk' embeds", "x; --overflow chunk embeds"),
        ("explain", "x; overflow='chunk' embeds; y", "x; y"),
        ("embed", "make chunk_tokens larger", "make --chunk-tokens larger"),
        ("embed", "encode: overlap must be, got normalize_embeddings=True", "encode: overlap must be, got --normalize"),
        ("embed", "dtype='float64' reaches further", "--dtype float64 reaches further"),
        ("embed", "batch_size=4, a file's 'max_seq_length'", "--batch-size 4, a file's 'max_seq_length'"),
        ("info", "x; dtype='float64' reaches further", "x"),
        ("info", "local_files_only=True forbids the network", "--local-files-only forbids the network"),
    ):
        command = main.get_command(click.Context(main), verb)
        assert in_options(from_python, command) == in_the_shell
        assert in_options(from_python, None) == from_python


def test_warnings_name_options():
    warned = run("similarity", "the cat " * 20, "b").stderr
    assert "--overflow chunk embeds them whole" in warned and "='" not in warned and "max_seq" not in warned
    assert "--max-seq-length = 4" in run("embed", "i love soup", "--max-seq-length", "4").stderr
    assert run("embed", LONG, "--overflow", "truncate").stderr == ""
    warned = run("explain", "the cat " * 20, "b", "--model", write_model("plain")).stderr
    assert "chunk" not in warned and "--overflow truncate" in warned


# ----------------------------------------------------------------------------------------------- similarity, table


def test_similarity_is_a_matrix_with_numbered_texts(encoder):
    result = run("similarity", *TEXTS)
    legend, _, head, *rows, _, verdict = result.stdout.splitlines()
    assert legend.startswith("cosine similarity") and result.stderr == "" and head.split() == ["1", "2", "3", "4", "5"]
    assert len({wcswidth(line) for line in [head, *rows]}) == 1  # aligned
    scores = encoder.similarity(encoder.encode(TEXTS), encoder.encode(TEXTS))
    np.testing.assert_allclose([[float(cell) for cell in row.split()[-5:]] for row in rows], scores, atol=5.1e-5)
    assert rows[1].startswith("2  (empty)")
    np.fill_diagonal(scores, -2)
    i, j = sorted(np.unravel_index(scores.argmax(), scores.shape))
    assert verdict.startswith(f"most similar: {i + 1} and {j + 1} (")
    nearest = run("similarity", "--metric", "angular", "the cat", "i love soup", "the cat").stdout
    assert nearest.endswith("most similar: 1 and 3 (0.0000)\n")


def test_similarity_as_json_in_every_metric(encoder):
    vectors = encoder.encode(TEXTS)
    names = ("cos_sim", "dot_score", "euclidean_sim", "manhattan_sim", "angular_distance")
    for metric, name in zip(("cosine", "dot", "euclidean", "manhattan", "angular"), names, strict=True):
        got = told("similarity", "--metric", metric, *TEXTS)
        assert (got["texts"], got["similarity_fn_name"]) == (TEXTS, metric)
        np.testing.assert_array_equal(np.float32(got["scores"]), getattr(minisbert, name)(vectors, vectors))
    folder = write_model(Path("dot-model"), sentence_settings={"similarity_fn_name": "dot"})
    assert told("similarity", "a", "b", "--model", folder)["similarity_fn_name"] == "dot"  # the model's own


def test_a_wide_matrix_comes_in_parts(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    shown = run("similarity", *(f"text number {i}" for i in range(12))).stdout.splitlines()
    assert max(map(wcswidth, shown[1:])) <= 60
    heads = [line for line in shown if line.startswith("   ")]
    assert len(heads) > 1 and " ".join(heads).split() == [str(i + 1) for i in range(12)]


def test_the_real_model_says_what_sentence_transformers_says(weights_folder):
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    shown = run("similarity", *texts, "--model", weights_folder).stdout.splitlines()
    assert [shown[i].split()[-3:] for i in (3, 4)] == [["1.0000", "0.6660", "0.1046"], ["0.6660", "1.0000", "0.1411"]]


def test_widths():
    assert shorten("好きです", 8) == "好きです" and wcswidth("👍🏽") == 2
    assert wcswidth(shorten("好きです", 7)) <= 7 and shorten("好きです", 7).endswith("…")
    assert wcswidth(shorten("e\u0301" * 10**5, 10)) <= 10
    assert printable("a\tb\x00\u202e\ud800") == "a b\\x00\\u202e\\ud800"


# ------------------------------------------------------------------------------------------ embed: outputs


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (["--batch-size", 2, "--normalize"], {"batch_size": 2, "normalize_embeddings": True}),
        (["--prompt-name", "query", "--truncate-dim", 5], {"prompt_name": "query", "truncate_dim": 5}),
        (["--dtype", "float64"], {}),
    ],
)
def test_options_are_those_of_encode_to_the_last_digit(flags, options, model):
    expected = SentenceEncoder(model, dtype="float64" if "float64" in flags else "float32").encode(TEXTS, **options)
    records = map(json.loads, run("embed", *TEXTS, *flags).stdout.splitlines())
    np.testing.assert_array_equal(np.array([record["embedding"] for record in records], expected.dtype), expected)
    result = run("embed", *TEXTS, *flags, "-o", "vectors.npy")
    shape = f"{expected.dtype} vectors of {expected.shape[1]} dimensions"
    assert (result.stdout, result.stderr) == ("", f"wrote 5 {shape} to vectors.npy\n")
    assert os.listdir() == ["vectors.npy"]
    np.testing.assert_array_equal(np.load("vectors.npy"), expected)


def test_an_existing_file_is_kept_unless_forced_and_a_link_stays_a_link():
    Path("real.npy").write_bytes(b"precious")
    Path("link.npy").symlink_to("real.npy")
    assert "already exists" in refused("embed", "x", "-o", "link.npy") and Path("real.npy").read_bytes() == b"precious"
    run("embed", "x", "-o", "link.npy", "--force")
    assert Path("link.npy").is_symlink() and np.load("real.npy").shape == (1, 8)


# ------------------------------------------------------------------------------------------- embed: inputs


def test_stdin(monkeypatch):
    assert embeddings_of(run("embed", input="a\r\nb\n").stdout)[0] == ["a", "b"]
    csv = "id,text\n1,a\n"
    assert embeddings_of(run("embed", "--input-format", "csv", "--column", "2", input=csv).stdout)[0] == ["a"]
    assert "standard input, line 2" in refused("embed", input=b"a\n\xff\n")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    with pytest.raises(click.UsageError, match="Nothing to embed"):
        main.main(["embed"], standalone_mode=False)


@pytest.mark.parametrize(
    ("name", "content", "options", "texts"),
    [
        ("t.csv", "id,text\n1,a\n\n2,\n", "--column 2", ["a", ""]),  # an empty text has a vector, a blank line none
        ("t.csv", "1|a\n2|b\n", "--column 2 --no-header --delimiter |", ["a", "b"]),
        ("t.txt", "id\ttext\n1\ta\n".encode("utf-16"), "--input-format tsv", ["a"]),
        ("t.jsonl", '{"post": {"title": "a"}}\n', "--field post.title", ["a"]),
        ("t.jsonl", '{"text": "\\ud83c\\udf72 \u2028\\n"}\n', "", ["🍲 \u2028\n"]),
    ],
)
def test_tables(name, content, options, texts):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert embeddings_of(run("embed", "-i", name, *options.split()).stdout)[0] == texts


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("t.txt", b"a\nb\xffc\n", "", "t.txt, line 2, byte 2"),
        ("t.csv", b"id,stars\n1,5\n", "", "--column NAME"),
        ("t.csv", b"a;b,c\n1;2,3\n", "", "--delimiter ,"),
        ("t.json", b'{"text": "a"}\n{"text": "b"}\n', "", "--input-format jsonl"),
    ],
)
def test_bad_rows_are_named_and_nothing_is_written(name, content, options, words):
    Path(name).write_bytes(content)
    said = refused("embed", "-i", name, "-o", "v.npy", *options.split())
    assert words in said and said.count("\n") == 1 and os.listdir() == [name]


@pytest.mark.parametrize(
    "command",
    ["embed -i t.txt", "classify train t.jsonl -o m", "train t.jsonl -o m", "evaluate sts t.jsonl"],
)
def test_what_only_a_csv_has_is_ignored_by_no_verb(command):
    Path("t.txt").write_text("a\n")
    Path("t.jsonl").write_text('{"text": "a", "label": "b"}\n')
    for option in ("--delimiter ;", "--quoting"):
        said = refused(*command.split(), *option.split())
        assert f"{option}: only for CSV and TSV, but this input is " in said


# --------------------------------------------------------------------------------------------------- tokens


def test_tokens_that_are_cut_are_marked():
    shown = run("tokens", "i love the soup", "the", "--max-seq-length", 4).stdout
    assert "text 1: i love the soup\n" in shown and "text 2: the\n" in shown
    assert re.search(r"\n +2 +\d+  love\n +3 +3  \[SEP\]\n +- +5  the    cut\n +- +12  soup   cut\n", shown)
    assert "6 tokens, but the limit is 4 (--max-seq-length): 4 are read, 2 are cut" in shown
    whole = run("tokens", "unable").stdout.splitlines()
    assert whole[0] == "position      id  piece" and whole[3] == "       2      16  ##able"
    assert whole[-1] == "4 tokens; the limit is 16 (sentence_bert_config.json)"
    many = run("tokens", "a " * 5000).stdout
    assert "and 4,976 more, cut" in many and many.count("\n") < 35


def test_tokens_as_json_are_what_the_model_reads(encoder):
    texts = ["", "好き 👩‍🍳 été", LONG, "a " * 14, "a " * 15]
    got = told("tokens", *texts)
    assert (got["max_seq_length"], got["decided_by"]) == (16, "sentence_bert_config.json")
    for one, text in zip(got["texts"], texts, strict=True):
        tokens = encoder.tokenize(text, overflow="truncate")
        pieces = zip(tokens.token_ids.tolist(), encoder.model.tokenizer.pieces(tokens.token_ids), strict=True)
        assert one["tokens"] == [{"position": i, "id": t, "piece": piece} for i, (t, piece) in enumerate(pieces)]
        assert one["text"] == text and len(one["cut"]) == tokens.lost[0]


# ------------------------------------------------------------------------------------------------ info, fetch


def test_info_tells_the_model_the_limits_and_the_machine(model, encoder):
    shown = run("info").stdout
    assert str(model) in shown and "2, each with 3 heads of 4" in shown
    assert "Transformer > Pooling (mean) > Dense (12 to 8, tanh)" in shown
    assert re.search(r"special tokens included: 16\n +sentence_bert_config.json: max_seq_length +16  in force\n", shown)
    assert re.search(r"tokenizer.json: truncation +7  ignored", shown)
    for library in ("BLAS", "numpy", "tokenizers", "safetensors", "huggingface-hub", "python", "minisbert"):
        assert f"  {library} " in shown
    got = told("info", "--max-seq-length", 9)
    assert got["model"]["parameters"] == sum(array.size for array in flatten(encoder.model.params)) + 8 * 12 + 8
    assert got["model"]["stored_as"] == ["F32"] and got["model"]["prompts"] == {"query": "the cat "}
    limit = got["model"]["max_seq_length"]
    assert (limit["in_force"], limit["decided_by"]) == (9, "--max-seq-length")
    assert [said["tokens"] for said in limit["said"]][::3] == [16, 7]
    assert got["versions"]["numpy"] == np.__version__ and got["machine"]["cpus"] >= got["machine"]["usable_cpus"] >= 1


def test_info_names_the_file_that_decides_the_limit():
    folder = write_model(Path("model"))
    for sentence, tokenizer, in_force, decided_by in (
        (10, 12, 10, "sentence_bert_config.json"),
        (REMOVE, 12, 12, "tokenizer_config.json"),
        (REMOVE, 1e30, 16, "config.json"),
        (REMOVE, REMOVE, 16, "config.json"),
        (600, 12, 16, "config.json"),
    ):
        edit_json(folder / "sentence_bert_config.json", max_seq_length=sentence)
        edit_json(folder / "tokenizer_config.json", model_max_length=tokenizer)
        got = told("info", "--model", folder)["model"]["max_seq_length"]
        assert (got["in_force"], got["decided_by"]) == (in_force, decided_by)
        assert got["in_force"] == SentenceEncoder(folder).max_seq_length
        assert "in force" in run("info", "--model", folder).stdout


def test_info_of_a_plain_bert_and_without_a_model():
    folder = write_model(Path("plain"), modules=None)
    assert "Pooling (mean), by default" in run("info", "--model", folder).stdout
    warned = run("embed", "soup", "--model", folder).stderr
    assert warned.startswith("Warning: ") and "modules.json" in warned and warned.count("\n") == 1
    for name in ("nobody/nothing", "./missing"):
        result = run("info", "--model", name, code=1)
        assert "BLAS" in result.stdout and "minisbert fetch" in result.stderr
        assert told("info", "--model", name, code=1)["model"] is None


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
