"""Explanations: they add up, words and pieces agree, and models without such a sum are refused."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from test_cli import fails, succeeds
from tiny import TINY, tiny_dense, write_model

from minisbert import SentenceEncoder
from minisbert.analysis.explain import explain
from minisbert.cli.table import display_width
from minisbert.model.pooling import Normalize, Pooling
from minisbert.model.tokens import TruncationWarning

A, B = "the soup, unable", "i love the unlovely cat"
BOUND = {"float32": 1e-6, "float64": 1e-12}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("explain") / "tiny-model")


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINISBERT_MODEL", str(model))
    monkeypatch.setenv("COLUMNS", "100")


def with_modules(folder, *modules, **options):
    return SentenceEncoder(write_model(folder, modules=modules, **options), dtype="float64")


def cosine_of(encoder, a, b):
    one, other = encoder.encode([a, b])
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def adds_up(found, encoder, a, b, bound):
    assert abs(found.contributions.sum() - found.cosine) <= bound
    assert abs(found.cosine - cosine_of(encoder, a, b)) <= bound


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize(("a", "b"), [(A, B), (B, A), (A, A), ("", A), ("", ""), ("好 \u0301", "x" * 9)])
def test_contributions_add_up_to_the_cosine(a, b, dtype, model):
    encoder = SentenceEncoder(model, dtype=dtype)
    found = explain(encoder, a, b)
    adds_up(found, encoder, a, b, BOUND[dtype])
    pieces = [encoder.model.tokenizer.pieces(encoder.tokenize(text).token_ids) for text in (a, b)]
    assert [list(found.pieces_a), list(found.pieces_b)] == pieces
    assert found.contributions.shape == (len(pieces[0]), len(pieces[1])) and found.contributions.dtype == np.float64
    np.testing.assert_allclose(explain(encoder, b, a).contributions, found.contributions.T, atol=BOUND[dtype])


def test_each_contribution_is_its_dot_product(model):
    encoder = SentenceEncoder(model, dtype="float64")
    t, u = encoder.encode([A, B], output_value="token_embeddings")
    found = explain(encoder, A, B).contributions
    length = np.linalg.norm(t.mean(axis=0)) * np.linalg.norm(u.mean(axis=0))
    for i, j in ((0, 0), (2, 3), (5, 1)):
        assert found[i, j] == pytest.approx(t[i] @ u[j] / (len(t) * len(u) * length), rel=1e-12)
    # taking a token out of a mean by hand takes its row out of the sum, apart from the new length of the mean
    kept = np.delete(t, 2, axis=0)
    rest = kept.sum(axis=0) @ u.sum(axis=0) / (len(t) * len(u) * length)
    assert np.delete(found, 2, axis=0).sum() == pytest.approx(rest, rel=1e-12)


def test_words_are_the_sums_of_their_pieces(model):
    encoder = SentenceEncoder(model)
    pieces, words = explain(encoder, A, B), explain(encoder, A, B, by_word=True)
    assert pieces.pieces_a == ("[CLS]", "the", "soup", ",", "un", "##able", "[SEP]")
    assert words.pieces_a == ("[CLS]", "the", "soup", ",", "unable", "[SEP]")
    np.testing.assert_allclose(words.contributions.sum(), pieces.contributions.sum(), rtol=1e-12)
    columns = words.contributions.sum(axis=1)
    np.testing.assert_allclose(columns[4], pieces.contributions[4:6].sum(), rtol=1e-12)
    np.testing.assert_allclose(np.delete(columns, 4), np.delete(pieces.contributions.sum(axis=1), [4, 5]), rtol=1e-12)
    assert words.by_word().pieces_a == words.pieces_a and words.cosine == pieces.cosine


def test_the_strongest_pairs_come_first(model):
    found = explain(SentenceEncoder(model), A, B)
    sizes = [abs(found.contributions[place]) for place in found.strongest(10**6)]
    assert len(sizes) == found.contributions.size and sizes == sorted(sizes, reverse=True)
    assert len(found.strongest(3)) == 3


@pytest.mark.parametrize(
    ("modules", "settings"),
    [
        ((Pooling(),), {}),
        ((Pooling(), Normalize()), {"truncate_dim": 5}),
        ((Pooling(("mean_sqrt_len_tokens",)), Normalize(), Normalize()), {}),
        ((Pooling(),), {"similarity_fn_name": "dot"}),
        ((Pooling(),), {"prompts": {"query": "the cat ", "none": ""}, "default_prompt_name": "query"}),
        ((Pooling(include_prompt=False),), {"prompts": {"query": "the cat "}}),
    ],
)
def test_models_that_can_be_explained(modules, settings, tmp_path):
    encoder = with_modules(tmp_path / "model", *modules, sentence_settings=settings)
    found = explain(encoder, A, B)
    adds_up(found, encoder, A, B, 1e-12)
    assert found.pieces_a[1:3] == (("the", "cat") if "default_prompt_name" in settings else ("the", "soup"))


@pytest.mark.parametrize(
    ("modules", "settings", "words"),
    [
        ((Pooling(("max",)),), {}, "expected mean pooling, got max"),
        ((Pooling(("cls",)),), {}, "got cls"),
        ((Pooling(("weightedmean",)),), {}, "got weightedmean"),
        ((Pooling(("mean", "max")),), {}, "got max + mean"),
        ((Pooling(), tiny_dense(12, 8)), {}, "a Dense module after its pooling"),
        (
            (Pooling(include_prompt=False),),
            {"prompts": {"q": "the "}, "default_prompt_name": "q"},
            "excludes its default prompt 'q'",
        ),
    ],
)
def test_models_that_cannot_are_refused_with_the_reason(modules, settings, words, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", sys)  # matplotlib is not asked for: nothing is drawn
    encoder = with_modules(tmp_path / "model", *modules, sentence_settings=settings)
    with pytest.raises(ValueError) as caught:
        explain(encoder, A, B)
    assert str(caught.value).startswith("explain: ") and words in str(caught.value)
    said = fails("explain", A, B, "--model", tmp_path / "model", "-o", "never.png")
    assert said == f"Error: {caught.value}\n" and not Path("never.png").exists()


def test_what_is_cut_is_reported_as_encode_does(model):
    encoder = SentenceEncoder(model)
    long = "the cat " * 40
    with pytest.warns(TruncationWarning, match=r"1 of 2 texts is longer .* \(text 1 lost 66 of 82\)") as warned:
        found = explain(encoder, A, long)
    assert len(warned) == 1 and len(found.pieces_b) == TINY.max_position_embeddings == 16
    assert abs(found.contributions.sum() - found.cosine) <= 1e-6
    explain(encoder, A, long, overflow="truncate")
    with pytest.raises(ValueError, match="lost 66 tokens"):
        explain(encoder, A, long, overflow="error")
    assert succeeds("explain", A, long).stderr.startswith("Warning: 1 of 2 texts is longer")


# ------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize("flags", [[], ["--words"], ["--pieces"]])
def test_the_table_adds_up(flags, model, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = succeeds("explain", A, B, *flags).stdout
    found = explain(SentenceEncoder(model), A, B, by_word="--pieces" not in flags)
    first, _, head, *rest = shown.splitlines()
    assert first == f"cosine {found.cosine:.4f}: the sum of all cells, in hundredths"
    assert head.split() == [*found.pieces_b, "sum"]
    rows = [line.split() for line in rest[: len(found.pieces_a) + 1]]
    assert [row[0] for row in rows] == [*found.pieces_a, "sum"]
    cells = np.array([[float(cell) for cell in row[1:]] for row in rows])
    np.testing.assert_allclose(cells[:-1, :-1], 100 * found.contributions, atol=0.0051)
    np.testing.assert_allclose(cells[:-1, -1], 100 * found.contributions.sum(axis=1), atol=0.0051)
    np.testing.assert_allclose(cells[-1, :-1], 100 * found.contributions.sum(axis=0), atol=0.0051)
    assert cells[-1, -1] == pytest.approx(100 * found.cosine, abs=0.0051)
    i, j = found.strongest(1)[0]
    assert re.search(rf"strongest pairs\n +{cells[i, j]:.2f}  {found.pieces_a[i]} - {found.pieces_b[j]}\n", shown)


def test_a_wide_table_is_folded(monkeypatch, model):
    monkeypatch.setenv("COLUMNS", "50")
    shown = succeeds("explain", A, "好 " * 12).stdout.splitlines()[2:]
    assert max(map(display_width, shown)) <= 50
    assert len([line for line in shown if line.startswith("[SEP]")]) == 3


def test_json(model):
    got = json.loads(succeeds("explain", A, B, "--json", "--pieces").stdout)
    found = explain(SentenceEncoder(model), A, B)
    assert (got["texts"], got["cosine"]) == ([A, B], found.cosine)
    assert (tuple(got["pieces_a"]), tuple(got["pieces_b"])) == (found.pieces_a, found.pieces_b)
    np.testing.assert_array_equal(got["contributions"], found.contributions)


def test_a_picture_replaces_nothing(matplotlib, model):
    done = succeeds("explain", A, B, "-o", "heat.png")
    assert done.stderr == "wrote heat.png\n" and done.stdout.startswith("cosine ")
    assert Path("heat.png").read_bytes().startswith(b"\x89PNG")
    assert "already exists" in fails("explain", A, B, "-o", "heat.png")
    Path("heat.png").write_bytes(b"")
    succeeds("explain", A, "$x_1$ 好", "-o", "heat.png", "--force")
    assert Path("heat.png").stat().st_size > 1000
    assert [file.name for file in Path().iterdir()] == ["heat.png"]


def test_a_picture_needs_matplotlib_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "matplotlib: pip install" in fails("explain", A, B, "-o", "heat.png", "--model", "./no-such-folder")


def test_two_texts_are_needed():
    assert "Missing argument" in fails("explain", A, code=2)


# ---------------------------------------------------------------------------------------------- the real model


@pytest.mark.parametrize("dtype", BOUND)
def test_stsb_pairs_add_up(dtype, weights_folder, data_folder, capsys):
    """README's figures: how exact the sum is, and what the special tokens carry."""
    lines = (data_folder / "stsb" / "stsb_test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    pairs = [line.split("\t")[5:7] for line in lines[:: 6 if dtype == "float32" else 60]]
    encoder = SentenceEncoder(weights_folder, dtype=dtype)
    encoded = encoder.encode([text for pair in pairs for text in pair])
    cosines = encoder.similarity_pairwise(encoded[::2], encoded[1::2])
    found = [explain(encoder, *pair) for pair in pairs]
    sums = np.array([one.contributions.sum() for one in found])
    np.testing.assert_allclose(sums, cosines, rtol=0, atol=BOUND[dtype])
    special = np.array([one.contributions.sum() - one.contributions[1:-1, 1:-1].sum() for one in found])
    alike = cosines > 0.5
    with capsys.disabled():
        print(f"\n{len(pairs)} pairs, {dtype}: the sum is off by at most {np.abs(sums - cosines).max():.1e}")
        print(f"of a cosine above 0.5, pairs with [CLS] or [SEP] carry {np.median((special / cosines)[alike]):.0%}")
