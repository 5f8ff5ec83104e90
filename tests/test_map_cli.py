"""The verbs map and cluster: what is read, what is printed and written, and mistakes before the work begins."""

import csv
import json
import re

import numpy as np
import pytest
from running import run
from safetensors.numpy import save_file
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.analysis.clusters import cluster
from minisbert.analysis.maps import project

WORDS = ["soup", "love", "cat", "dog", "mat", "ran"]
TEXTS = [f"the {a} sat on the {b}" for a in WORDS for b in WORDS[:3]]
LABELS = ["food" if "soup" in text else "animal" for text in TEXTS]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("map") / "tiny-model")


@pytest.fixture(scope="module")
def vectors(model):
    return SentenceEncoder(model).encode(TEXTS)


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch, model, sklearn):
    """Each test stands in a folder with the same texts in every format."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINISBERT_MODEL", str(model))
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    rows = list(zip(LABELS, TEXTS, strict=True))
    (tmp_path / "texts.tsv").write_text("kind\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows))
    with (tmp_path / "texts.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("kind", "words"), *rows])
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"post": {"text": text}, "kind": label == "food"}) + "\n" for label, text in rows)
    )
    return tmp_path


# -------------------------------------------------------------------------------------------------- cluster


def test_a_cluster_is_told_with_size_words_and_texts(vectors):
    shown = run("cluster", "texts.txt", "--k", 3).stdout.splitlines()
    found = cluster(vectors, k=3)
    assert shown[0] == "k-means, k 3, seed 0: 18 texts, 3 clusters"
    sizes = [int(line.split()[1]) for line in shown if re.match(r" +\d  ", line)]
    assert sizes == found.sizes.tolist()
    assert sum(line.strip() in TEXTS for line in shown) == sum(min(3, size) for size in sizes)
    assert f"mean silhouette {found.silhouette:.3f}" in shown[-1]


def test_json_and_every_row(vectors, files):
    got = json.loads(run("cluster", "texts.tsv", "--label", "kind", "--k", 3, "-o", "out.csv", "--json").stdout)
    found = cluster(vectors, k=3)
    assert got["ids"] == found.ids.tolist() and got["silhouette"] == pytest.approx(found.silhouette)
    assert [entry["size"] for entry in got["clusters"]] == found.sizes.tolist()
    assert got["settings"] == {"k": 3, "seed": 0} and got["agreement"]["labels"] == 2
    assert all(TEXTS[one["row"]] == one["text"] for entry in got["clusters"] for one in entry["typical"])
    with (files / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["text"] for row in rows] == TEXTS and [row["label"] for row in rows] == LABELS
    assert [int(row["cluster"]) for row in rows] == found.ids.tolist()
    np.testing.assert_allclose([float(row["silhouette"]) for row in rows], found.silhouettes, atol=1e-5)
    np.testing.assert_allclose([float(row["similarity"]) for row in rows], found.similarity, atol=1e-5)
    assert rows[0]["title"] == got["clusters"][found.ids[0]]["title"]


def test_every_format_is_read_alike(files):
    plain = run("cluster", "texts.txt", "--k", 2, "--json").stdout
    for more in (
        ["-i", "texts.txt"],
        ["texts.csv", "--column", "words"],
        ["texts.tsv", "--column", "2"],
        ["texts.jsonl", "--field", "post.text"],
    ):
        assert run("cluster", *more, "--k", 2, "--json").stdout == plain
    piped = run("cluster", "-", "--k", 2, "--json", input=(files / "texts.txt").read_text())
    assert piped.stdout == plain
    labelled = run("cluster", "texts.jsonl", "--field", "post.text", "--label", "kind", "--k", 2).stdout
    assert "compared with 2 labels, x 100: V-measure" in labelled and "label: false (" in labelled


def test_rows_as_tsv_and_jsonl(files, vectors):
    settings = ("--method", "community", "--threshold", 0.9965, "--min-size", 3)
    ids = cluster(vectors, "community", threshold=0.9965, min_community_size=3).ids
    assert {-1, 0} <= {*ids.tolist()}
    for name in ("out.tsv", "out.jsonl"):
        run("cluster", "texts.txt", *settings, "-o", name)
    rows = [json.loads(line) for line in (files / "out.jsonl").read_text().splitlines()]
    head, *lines = (line.split("\t") for line in (files / "out.tsv").read_text().splitlines())
    assert head == list(rows[0]) and [row["cluster"] for row in rows] == ids.tolist()
    for row, line, group in zip(rows, lines, ids, strict=True):
        assert line == ["" if value is None else str(value) for value in row.values()]
        assert (row["title"] is None) == (group < 0) == (row["similarity"] is None)
    shown = run("cluster", "texts.txt", *settings).stdout
    assert f"{(ids < 0).sum()} in no cluster" in shown


def test_no_community_and_one_cluster(files):
    none = run("cluster", "texts.txt", "--method", "community", "--threshold", 1, "--min-size", 5).stdout
    assert "0 clusters, 18 in no cluster" in none and "no clusters: try a lower" in none
    one = run("cluster", "texts.txt", "--k", 1).stdout
    assert "1 cluster\n" in one and "silhouette: none" in one
    chosen = run("cluster", "texts.txt", "--k", "2-3", "--show", 1, "--typical", 0).stdout
    assert "best silhouette from 2 to 3" in chosen and "more (--show" in chosen


def test_vectors_that_are_there_are_taken(files, vectors):
    wanted = cluster(vectors[::-1], k=4).ids.tolist()
    np.save("v.npy", vectors[::-1])
    save_file({"embeddings": np.ascontiguousarray(vectors[::-1])}, "v.safetensors")
    for name in ("v.npy", "v.safetensors"):
        got = run("cluster", "texts.txt", "--vectors", name, "--k", 4, "--json", "--model", "./no-such-model").stdout
        assert json.loads(got)["ids"] == wanted


# ------------------------------------------------------------------------------------------------------ map


def test_a_map_as_json_is_the_projection(vectors, files):
    got = json.loads(run("map", "texts.tsv", "--label", "kind", "-o", "map.html", "--json").stdout)
    expected = project(vectors)
    np.testing.assert_allclose([[p["x"], p["y"]] for p in got["points"]], expected.points, atol=1e-6)
    assert [p["group"] for p in got["points"]] == LABELS and got["colours"] == "label"
    assert got["trustworthiness"] == pytest.approx(expected.trustworthiness, abs=1e-3)
    page = (files / "map.html").read_text()
    assert all(text in page for text in TEXTS) and "<title>texts.tsv</title>" in page


def test_a_map_as_a_picture_and_what_is_said(files, matplotlib):
    result = run("map", "texts.txt", "-o", "map.png", "--clusters", "kmeans", "--k", 3, "--title", "my map")
    assert (files / "map.png").read_bytes().startswith(b"\x89PNG")
    assert result.stdout.startswith("k-means, k 3, seed 0: 18 texts, 3 clusters\nPCA: the axes show ")
    assert "wrote map.png" in result.stderr


def test_what_colours_show(files):
    def colours(*more):
        return json.loads(run("map", *more, "-o", "m.html", "--force", "--json").stdout)["colours"]

    assert colours("texts.txt") == "cluster" and colours("texts.txt", "--clusters", "none") is None
    assert colours("texts.tsv", "--label", "kind") == "label"
    assert colours("texts.tsv", "--label", "kind", "--clusters", "agglomerative", "--k", 2) == "cluster"
    (files / "few.txt").write_text("soup\ncat\n")
    assert colours("few.txt") is None


def test_tsne_takes_a_perplexity(files):
    got = json.loads(run("map", "texts.txt", "--method", "tsne", "--perplexity", 4, "-o", "m.html", "--json").stdout)
    assert got["method"] == "tsne" and got["perplexity"] == 4 and got["explained"] is None


def test_one_text_and_hostile_ones(files, matplotlib):
    (files / "one.txt").write_text("</script><script>alert(1)</script>\n")
    for name in ("one.png", "one.html"):
        assert run("map", "one.txt", "-o", name).stdout == "1 text\none text\n"
    page = (files / "one.html").read_text()
    assert "alert(1)</script>" not in page and page.count("</script>") == 2


# ----------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["cluster"], 2, "Give one file"),
        (["cluster", "texts.txt", "-i", "texts.txt"], 2, "Give one file"),
        (["cluster", "texts.txt", "--k", "x"], 2, "a range such as 2-20"),
        (["cluster", "texts.txt", "--k", "0"], 2, "a range such as 2-20"),
        (["cluster", "texts.txt", "--k", "19"], 1, "k = 19 clusters need as many different vectors"),
        (["cluster", "texts.txt", "--distance", "0.5"], 1, "distance is for agglomerative"),
        (["cluster", "texts.txt", "--label", "kind"], 2, "this input is text"),
        (["cluster", "texts.tsv", "--label", "none"], 1, "no column 'none'"),
        (["cluster", "no.tsv", "--label", "2"], 1, "no.tsv: No such file"),
        (["cluster", "stars.csv"], 1, "--column NAME says which"),
        (["cluster", "empty.txt"], 1, "empty.txt: no texts"),
        (["cluster", "tabs.csv", "-o", "o.tsv"], 1, "text 1 contains a tab"),
        (["cluster", "texts.txt", "-o", "o.xml"], 2, "must end in .csv"),
        (["cluster", "texts.txt", "-o", "texts.csv"], 1, "already exists"),
        (["cluster", "texts.txt", "--vectors", "texts.txt"], 2, "must be a .npy or .safetensors"),
        (["cluster", "texts.txt", "--vectors", "bad.npy"], 1, "not a .npy file"),
        (["cluster", "texts.txt", "--vectors", "bad.safetensors"], 1, "not a .safetensors file"),
        (["cluster", "texts.txt", "--vectors", "short.npy"], 1, "for each of 18 texts, got shape \\(3, 2\\)"),
        (["cluster", "texts.txt", "--vectors", "other.safetensors"], 1, "no tensor 'embeddings'; there are x"),
        (["map", "texts.txt"], 2, "Missing option '-o'"),
        (["map", "texts.txt", "-o", "m.gif"], 2, "must end in .png"),
        (["map", "texts.txt", "-o", "texts.html"], 1, "already exists"),
        (["map", "texts.txt", "-o", "m.html", "--perplexity", "5"], 1, "perplexity is for t-SNE"),
        (["map", "texts.txt", "-o", "m.html", "--method", "tsne", "--perplexity", "18"], 1, "number of texts, 18"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(arguments, code, words, files, monkeypatch):
    (files / "empty.txt").write_text("")
    (files / "stars.csv").write_text("stars,grade\n5,1\n")
    (files / "tabs.csv").write_text('text\n"a\tb"\nc\n')
    (files / "texts.html").write_text("")
    (files / "bad.npy").write_text("no")
    (files / "bad.safetensors").write_text("no")
    np.save("short.npy", np.ones((3, 2)))
    save_file({"x": np.ones((18, 2))}, "other.safetensors")
    before = {file: file.read_bytes() for file in files.iterdir()}
    if "19" not in arguments:  # all other mistakes are found before anything is embedded
        monkeypatch.setattr(SentenceEncoder, "encode", None)
    result = run(*arguments, code=code)
    assert re.search(words, result.stderr), result.stderr
    assert result.stdout == "" and {file: file.read_bytes() for file in files.iterdir()} == before


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("minisbert.analysis.maps.has_sklearn", lambda: False)
    for arguments in (["cluster", "texts.txt"], ["map", "texts.txt", "-o", "m.html"]):
        (line,) = run(*arguments, code=1).stderr.splitlines()
        assert line.endswith("needs scikit-learn: pip install -e '.[apps]'")
