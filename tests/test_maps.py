"""Maps: points as computed by hand, honest figures, a picture whose labels do not overlap."""

import io

import numpy as np
import pytest
from test_plots import NASTY, boxes, head, names, overlapping
from threadpoolctl import threadpool_limits

from minisbert.analysis import draw_map, maps, project
from minisbert.analysis.clusters import Groups, unit_rows
from minisbert.analysis.maps import COLOURS, Projection, style


def clouds(count=60, width=12, groups=3):
    """Vectors in groups, and the group of each."""
    rng = np.random.default_rng(0)
    ids = np.arange(count) % groups
    return 3 * rng.standard_normal((groups, width))[ids] + rng.standard_normal((count, width)), ids


def at(points):
    points = np.asarray(points, float)
    return Projection(points, "pca", (0.5, 0.25), 0.9, 5, len(points))


def test_pca_is_the_singular_value_decomposition(sklearn):
    vectors, _ = clouds()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])  # the largest entry is positive
    expected = (centred @ axes.T * signs)[:, :2]
    order, scales = np.random.default_rng(1).permutation(60), np.random.default_rng(2).uniform(1e-3, 1e3, (60, 1))
    for dtype, bound in (("float64", 1e-12), ("float32", 1e-6)):
        given_vectors = (scales * vectors).astype(dtype)[order]
        before = given_vectors.copy()
        found = project(given_vectors)
        assert found.points.dtype == dtype and np.array_equal(given_vectors, before)
        np.testing.assert_allclose(found.points, expected[order], atol=bound)
        np.testing.assert_allclose(found.explained, (sizes**2 / (sizes**2).sum())[:2], rtol=1e-5)


def trustworthiness_by_hand(unit, points, k):
    """Venna and Kaski's formula, pair by pair."""
    count, total = len(unit), 0
    for i in range(count):
        others = [j for j in range(count) if j != i]
        by_truth = sorted(others, key=lambda j: -float(unit[i] @ unit[j]))
        near = sorted(others, key=lambda j: float(np.linalg.norm(points[i] - points[j])))[:k]
        total += sum(max(0, by_truth.index(j) + 1 - k) for j in near)
    return 1 - 2 * total / (count * k * (2 * count - 3 * k - 1))


def test_trustworthiness_is_the_formula_of_a_sample_if_there_are_many(sklearn, monkeypatch):
    vectors, _ = clouds(40)
    found = project(vectors)
    unit = unit_rows(vectors, "test")
    assert found.trustworthiness == pytest.approx(trustworthiness_by_hand(unit, found.points, 5))
    few = project(vectors[:6])  # 5 neighbours of 6 points have no meaning
    assert few.neighbours == 2
    assert few.trustworthiness == pytest.approx(trustworthiness_by_hand(unit[:6], few.points, 2))
    monkeypatch.setattr(maps, "SAMPLE", 30)
    found = project(vectors)
    drawn = np.sort(np.random.default_rng(0).choice(40, 30, replace=False))
    assert found.measured == 30 and "on 30 sampled texts" in found.describe()
    assert found.trustworthiness == pytest.approx(trustworthiness_by_hand(unit[drawn], found.points[drawn], 5))


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_same_map_whatever_the_threads_and_groups_stay_together(method, sklearn):
    vectors, ids = clouds(90, 40)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(project(vectors, method, seed=3))
    np.testing.assert_array_equal(found[0].points, found[1].points)
    centres = np.stack([found[0].points[ids == c].mean(axis=0) for c in range(3)])
    assert (np.linalg.norm(found[0].points[:, None] - centres, axis=2).argmin(axis=1) == ids).all()
    assert found[0].perplexity == {"pca": None, "tsne": pytest.approx(89 / 3)}[method]


def test_few_texts_equal_ones_and_one_dimension(sklearn):
    for count in (1, 2, 5):
        vectors = np.tile([[0.6, 0.8, 0.0]], (count, 1)) + 1e-9 * np.arange(count)[:, None]
        for method in ("pca", "tsne") if count > 3 else ("pca",):
            found = project(vectors, method)
            assert not found.points.any() and found.trustworthiness is None
    two = project([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(np.abs(two.points), [[np.sqrt(0.5), 0]] * 2, atol=1e-12)
    assert two.explained == pytest.approx((1.0, 0.0)) and two.trustworthiness is None
    flat = project([[1.0], [-1.0], [2.0]])
    assert flat.points[:, 1].tolist() == [0, 0, 0] and flat.explained == (1.0, 0.0) and flat.neighbours == 1
    for size in (1e-300, 1e300):  # extreme lengths keep their direction
        np.testing.assert_allclose(unit_rows([[3 * size, 4 * size]], "test"), [[0.6, 0.8]], rtol=1e-14)


# ----------------------------------------------------------------------------------------------- the picture


@pytest.fixture
def picture(matplotlib, monkeypatch):
    """Give a function that draws, and returns matplotlib's figure."""
    from matplotlib.figure import Figure

    drawn = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **o: (drawn.append(figure), savefig(figure, *a, **o)))

    def one(*arguments, **options):
        draw_map(stream := io.BytesIO(), *arguments, **options)
        assert stream.getvalue().startswith(b"\x89PNG")
        return drawn.pop()

    return one


def test_many_names_are_on_the_map_and_none_lies_on_another(picture):
    rng = np.random.default_rng(0)
    ids = np.arange(1200) % 40
    points = rng.standard_normal((40, 2))[ids] + 0.15 * rng.standard_normal((1200, 2))
    known = [f"the cluster number {i}" for i in range(40)]
    figure = picture(at(points), ["text"] * 1200, Groups(ids, known, "cluster"), title="many", typical=[0, 1])
    axes = figure.axes[0]
    shown = [text.get_text() for text in names(axes)]
    assert set(shown) <= set(known) and len(shown) >= 30 and axes.get_legend() is None
    assert not overlapping(boxes(figure, names(axes)))
    assert any(line.startswith(f"{40 - len(shown)} name") for line in head(axes)) == (len(shown) < 40)
    assert any("PCA: the axes show 50.0 % and 25.0 %" in line for line in head(axes))


def test_few_groups_have_a_legend_typical_texts_and_marks_of_their_own(picture):
    vectors, ids = clouds(90)
    groups = Groups(np.where(ids == 2, -1, ids), ["soup", "$cat$"])
    axes = picture(at(vectors[:, :2]), [f"text {i}" for i in range(90)], groups, typical=[4, 7]).axes[0]
    entries = axes.get_legend().get_texts()
    assert [text.get_text() for text in entries] == ["soup (30)", "$cat$ (30)", "in no label (30)"]
    assert not any(text.get_parse_math() for text in [*entries, *names(axes)])
    assert sorted(text.get_text() for text in names(axes)) == ["$cat$", "soup", "text 4", "text 7"]
    groups = Groups.of_labels(["a", "b", "a", "c"])  # of few texts all are written
    axes = picture(at([[0, 0], [1, 0], [0, 1], [1, 1]]), ["soup", "cat", "", "dog"], groups).axes[0]
    assert sorted(text.get_text() for text in names(axes)) == ["(empty)", "cat", "dog", "soup"]
    assert len({mark.get_paths()[0].vertices.tobytes() for mark in axes.collections if len(mark.get_offsets())}) == 3
    assert len({style(group) for group in range(64)}) == 64 and style(-1)[0] not in COLOURS


def test_points_on_one_place_or_one_line_and_any_text(picture):
    for points in ([[0, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 5], [0, 9]], [[1e-12, 0], [0, 3e9]]):
        axes = picture(at(points), ["soup"] * len(points)).axes[0]
        assert len(names(axes)) == len(points)
        assert any("exactly on another point" in line for line in head(axes)) == (points == [[0, 0], [0, 0]])
    points = np.random.default_rng(0).standard_normal((len(NASTY), 2))
    for text in NASTY[::12]:
        axes = picture(at(points), NASTY, Groups(np.arange(len(NASTY)), NASTY), title=text, caption=text).axes[0]
        assert not any(one.get_parse_math() for one in names(axes))
