"""The verbs map and cluster: what is read, what is printed and written, and mistakes before the work begins."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from running import refused, run, stand_in, told
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
def in_its_own_folder(tmp_path, monkeypatch, model, sklearn):
    stand_in(tmp_path, monkeypatch, model)
    rows = list(zip(LABELS, TEXTS, strict=True))
    Path("texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    Path("texts.tsv").write_text("kind\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows))
    Path("texts.jsonl").write_text("".join(json.dumps({"post": {"text": text}}) + "\n" for text in TEXTS))


# -------------------------------------------------------------------------------------------------- cluster


def test_a_cluster_is_told_with_size_words_and_texts(vectors):
    shown = run("cluster", "texts.txt", "--k", 3).stdout.splitlines()
    found = cluster(vectors, k=3)
    assert shown[0] == "k-means, k 3, seed 0: 18 texts, 3 clusters"
    sizes = [int(line.split()[1]) for line in shown if re.match(r" +\d  ", line)]
    assert sizes == found.sizes.tolist()
    assert sum(line.strip() in TEXTS for line in shown) == sum(min(3, size) for size in sizes)
    assert f"mean silhouette {found.silhouette:.3f}" in shown[-1]
    chosen = run("cluster", "texts.tsv", "--label", "kind", "--k", "2-3", "--show", 1).stdout
    assert "best silhouette from 2 to 3" in chosen and "more (--show" in chosen
    assert "compared with 2 labels, x 100: V-measure" in chosen
    none = run("cluster", "texts.txt", "--method", "community", "--threshold", 1, "--min-size", 5).stdout
    assert "0 clusters, 18 in no cluster" in none and "no clusters: try a lower" in none


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.ndjson"])
def test_json_and_a_row_for_every_text(name, vectors):
    settings = ["--method", "community", "--threshold", 0.998]
    got = told("cluster", "texts.tsv", "--label", "kind", *settings, "-o", name)
    found = cluster(vectors, "community", threshold=0.998)
    assert {-1, 0, 1} <= {*found.ids.tolist()}
    assert got["ids"] == found.ids.tolist() and got["silhouette"] == pytest.approx(found.silhouette)
    assert got["in_no_cluster"] == (found.ids < 0).sum() and got["agreement"]["labels"] == 2
    assert [entry["size"] for entry in got["clusters"]] == found.sizes.tolist()
    assert all(TEXTS[one["row"]] == one["text"] for entry in got["clusters"] for one in entry["typical"])
    with Path(name).open(newline="") as stream:
        if name == "out.ndjson":
            rows = [{k: "" if v is None else str(v) for k, v in json.loads(line).items()} for line in stream]
        else:
            rows = list(csv.DictReader(stream, delimiter="," if name == "out.csv" else "\t"))
    assert list(rows[0]) == ["text", "cluster", "title", "similarity", "silhouette", "label"]
    for i, row in enumerate(rows):
        group = found.ids[i]
        assert (row["text"], row["cluster"], row["label"]) == (TEXTS[i], str(group), LABELS[i])
        assert row["title"] == ("" if group < 0 else got["clusters"][group]["title"])
        for key, value in (("similarity", found.similarity[i]), ("silhouette", found.silhouettes[i])):
            assert row[key] == "" if group < 0 else float(row[key]) == pytest.approx(value, rel=1e-5)


def test_every_source_is_read_alike(vectors):
    wanted = cluster(vectors, k=4).ids.tolist()
    Path("gaps.txt").write_text("\n".join(["", *TEXTS[:5], " ", *TEXTS[5:]]))
    for line in ("texts.txt", "texts.tsv --column 2", "texts.jsonl --field post.text", "-", "gaps.txt"):
        result = run("cluster", *line.split(), "--k", 4, "--json", input=Path("texts.txt").read_text())
        assert json.loads(result.stdout)["ids"] == wanted, line
        assert ("line 1: skipped 2 rows without a text" in result.stderr) == ("gaps" in line)


# ------------------------------------------------------------------------------------------------------ map


def test_a_map_is_the_projection(vectors, matplotlib):
    got = told("map", "texts.tsv", "--label", "kind", "-o", "map.html")
    expected = project(vectors)
    np.testing.assert_allclose([[p["x"], p["y"]] for p in got["points"]], expected.points, atol=1e-6)
    assert [p["group"] for p in got["points"]] == LABELS and got["colours"] == "label"
    assert got["trustworthiness"] == pytest.approx(expected.trustworthiness, abs=1e-3)
    page = Path("map.html").read_text()
    assert all(text in page for text in TEXTS) and "<title>texts.tsv</title>" in page
    result = run("map", "texts.txt", "-o", "map.png", "--clusters", "kmeans", "--k", 3)
    assert Path("map.png").read_bytes().startswith(b"\x89PNG")
    assert result.stdout.startswith("k-means, k 3, seed 0: 18 texts, 3 clusters\nPCA: the axes show ")
    Path("one.txt").write_text("</script><script>alert(1)</script>\n")
    assert run("map", "one.txt", "-o", "one.png").stdout == "1 text\none text\n"


@pytest.mark.parametrize(
    ("line", "colours"),
    [
        ("texts.txt --method tsne", "cluster"),
        ("texts.txt --clusters none", None),
        ("texts.tsv --label kind --clusters agglomerative --k 2", "cluster"),
        ("few.txt", None),
    ],
)
def test_what_colours_show(line, colours):
    Path("few.txt").write_text("soup\ncat\n")
    got = told("map", *line.split(), "-o", "m.html")
    assert got["colours"] == colours and got["method"] == ("tsne" if "tsne" in line else "pca")


# ----------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("line", "code", "key"),
    [
        ("cluster", 2, "FILE"),
        ("cluster texts.txt --k x", 2, "2-20"),
        ("cluster texts.txt --k 19", 1, "k = 19"),
        ("cluster texts.txt --distance 0.5", 1, "distance"),
        ("cluster texts.txt --label kind", 1, "no column 'kind'"),
        ("cluster stars.csv", 1, "--column"),
        ("cluster empty.txt", 1, "empty.txt"),
        ("cluster texts.txt -o o.xml", 2, ".csv"),
        ("map texts.txt -o m.gif", 2, ".png"),
        ("map two.txt -o m.html --method tsne", 1, "at least"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(line, code, key, monkeypatch):
    Path("empty.txt").write_text("")
    Path("stars.csv").write_text("stars,grade\n5,1\n")
    Path("two.txt").write_text("soup\ncat\n")
    before = {file: file.read_bytes() for file in Path().iterdir()}
    if "19" not in line:  # all other mistakes are found before anything is embedded
        monkeypatch.setattr(SentenceEncoder, "encode", None)
    assert key in refused(*line.split(), code=code)
    assert {file: file.read_bytes() for file in Path().iterdir()} == before


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for line in ("cluster texts.txt", "map texts.txt -o m.html"):
        assert refused(*line.split()).endswith("needs scikit-learn: pip install -e '.[apps]'\n")
