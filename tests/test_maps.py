"""Maps: points as computed by hand, honest figures, labels that do not overlap, a page that runs no other script."""

import base64
import hashlib
import html
import html.parser
import io
import json
import re
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from minisbert.analysis import map_page, maps
from minisbert.analysis.map_page import json_for_html, write_map_page
from minisbert.analysis.map_picture import COLOURS, SHAPES, draw_map, place_boxes, style
from minisbert.analysis.maps import Projection, check_method, project, unit_rows
from minisbert.analysis.naming import Groups

ODD = ["好き 👩‍🍳 été", "$x_1$ and $", "\\frac{", "ไทย عربي", "", " ", "a\nb\x00\u202e\ue000", "x" * 5000, "<b>&amp;"]


def clouds(count=60, width=12, groups=3, seed=0):
    """Vectors in groups, and the group of each."""
    rng = np.random.default_rng(seed)
    ids = np.arange(count) % groups
    return 3 * rng.standard_normal((groups, width))[ids] + rng.standard_normal((count, width)), ids


def at(points):
    points = np.asarray(points, float)
    return Projection(points, "pca", (0.5, 0.25), 0.9, 5, len(points))


# -------------------------------------------------------------------------------------------------- projection


def test_pca_is_the_singular_value_decomposition(sklearn):
    vectors, _ = clouds()
    found = project(vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    for i in range(2):
        axis = axes[i] * np.sign(axes[i][np.abs(axes[i]).argmax()])  # its largest entry is positive
        np.testing.assert_allclose(found.points[:, i], centred @ axis, atol=1e-12)
    np.testing.assert_allclose(found.explained, (sizes**2 / (sizes**2).sum())[:2], rtol=1e-12)
    assert found.method == "pca" and found.perplexity is None and found.measured == 60


def test_pca_keeps_its_signs_whatever_the_order_and_the_lengths(sklearn):
    vectors, _ = clouds()
    points = project(vectors).points
    order = np.random.default_rng(1).permutation(60)
    scales = np.random.default_rng(2).uniform(1e-3, 1e3, (60, 1))
    np.testing.assert_allclose(project((scales * vectors)[order]).points, points[order], atol=1e-12)


def test_the_dtype_stays_and_no_argument_changes(sklearn):
    vectors, _ = clouds()
    for dtype, expected in (("float32", "float32"), ("float64", "float64"), ("float16", "float32")):
        given_vectors = vectors.astype(dtype)
        before = given_vectors.copy()
        points = project(given_vectors).points
        assert points.dtype == expected and np.array_equal(given_vectors, before)
        np.testing.assert_allclose(points, project(vectors).points, atol=2e-3 if dtype == "float16" else 1e-6)


def trustworthiness_by_hand(unit, points, k):
    """Venna and Kaski's formula, pair by pair."""
    count, total = len(unit), 0
    for i in range(count):
        others = [j for j in range(count) if j != i]
        by_truth = sorted(others, key=lambda j: -float(unit[i] @ unit[j]))
        near = sorted(others, key=lambda j: float(np.linalg.norm(points[i] - points[j])))[:k]
        total += sum(max(0, by_truth.index(j) + 1 - k) for j in near)
    return 1 - 2 * total / (count * k * (2 * count - 3 * k - 1))


def test_trustworthiness_is_the_formula(sklearn):
    vectors, _ = clouds(40)
    found = project(vectors)
    assert found.trustworthiness == pytest.approx(trustworthiness_by_hand(unit_rows("t", vectors), found.points, 5))
    few = project(vectors[:6], neighbours=5)  # 5 neighbours of 6 points have no meaning
    assert few.neighbours == 2
    assert few.trustworthiness == pytest.approx(trustworthiness_by_hand(unit_rows("t", vectors[:6]), few.points, 2))


def test_trustworthiness_of_many_is_of_a_sample_and_says_so(sklearn, monkeypatch):
    monkeypatch.setattr(maps, "SAMPLE", 30)
    vectors, _ = clouds()
    found = project(vectors)
    drawn = np.sort(np.random.default_rng(0).choice(60, 30, replace=False))
    expected = trustworthiness_by_hand(unit_rows("t", vectors)[drawn], found.points[drawn], 5)
    assert found.measured == 30 and found.trustworthiness == pytest.approx(expected)
    assert "on 30 sampled texts" in found.describe() and "sampled" not in project(vectors[:20]).describe()


def test_tsne_finds_the_groups_the_same_each_time(sklearn):
    vectors, ids = clouds(150, groups=3)
    maps_found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            maps_found.append(project(vectors, "tsne", perplexity=20, seed=3))
    first, second = maps_found
    np.testing.assert_array_equal(first.points, second.points)
    assert first.perplexity == 20 and first.explained is None and first.trustworthiness > 0.9
    centres = np.stack([first.points[ids == c].mean(axis=0) for c in range(3)])
    nearest = np.linalg.norm(first.points[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == ids).all()
    assert "distances between groups are not" in first.describe()


def test_pca_does_not_depend_on_threads_to_the_last_bit(sklearn, monkeypatch):
    monkeypatch.setattr(maps, "SAMPLE", 50)
    vectors = np.random.default_rng(0).standard_normal((1500, 384))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(project(vectors).points)
    np.testing.assert_array_equal(*found)


def test_perplexity_fits_the_number_of_texts():
    assert check_method("tsne", None, 10_000) == 30 and check_method("tsne", None, 4) == 1
    for count, perplexity, words in (
        (10, 10, "below the number of texts, 10"),
        (10, 0.5, "at least 1"),
        (3, None, "at least 4"),
    ):
        with pytest.raises(ValueError, match=words):
            check_method("tsne", perplexity, count)
    with pytest.raises(ValueError, match="perplexity is for t-SNE"):
        check_method("pca", 5, 10)
    with pytest.raises(ValueError, match="one of pca, tsne, umap, got 'PCA'"):
        check_method("PCA", None, 10)


def test_umap_is_asked_for_by_name_and_called_reproducibly(sklearn, monkeypatch):
    monkeypatch.setattr(maps, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install umap-learn"):
        project(clouds()[0], "umap")
    calls = []

    class UMAP:
        def __init__(self, **settings):
            calls.append(settings)

        def fit_transform(self, unit):
            return unit[:, :2]

    monkeypatch.setattr(maps, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    found = project(clouds()[0], "umap", seed=5)
    assert calls == [{"n_neighbors": 15, "metric": "cosine", "random_state": 5, "n_jobs": 1}]
    assert found.describe().startswith("UMAP: ") and found.points.shape == (60, 2)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_equal_vectors_lie_on_one_point(count, sklearn):
    vectors = np.tile([[0.6, 0.8, 0.0]], (count, 1)) + 1e-9 * np.arange(count)[:, None]
    for method in ("pca", "tsne") if count > 3 else ("pca",):
        found = project(vectors, method)
        assert not found.points.any() and found.trustworthiness is None
        assert found.describe() == ("one text" if count == 1 else "all texts have the same vector")


def test_two_and_three_texts_and_one_dimension(sklearn):
    two = project([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(np.abs(two.points[:, 0]), np.sqrt(0.5))
    assert (
        not two.points[:, 1].round(12).any()
        and two.explained == pytest.approx((1.0, 0.0))
        and two.trustworthiness is None
    )
    assert project(np.eye(3)).neighbours == 1
    flat = project([[1.0], [-1.0], [2.0]])
    assert flat.points[:, 1].tolist() == [0, 0, 0] and flat.explained == (1.0, 0.0)


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (np.empty((0, 3)), "at least one text"),
        ([[1.0, np.nan], [1.0, 0.0]], "NaN or Inf in row 0 \\(1 such rows\\)"),
        ([[1.0, 0.0], [np.inf, 0.0]], "NaN or Inf in row 1"),
        ([[1.0, 0.0], [0.0, 0.0]], "row 1 is all zeros"),
        ([["a", "b"]], "real numbers"),
        (np.ones((2, 2, 2)), "shape is \\(2, 2, 2\\)"),
    ],
)
def test_vectors_that_are_none(vectors, words):
    with pytest.raises(ValueError, match=words):
        unit_rows("project", vectors)


def test_extreme_lengths_keep_their_direction():
    for size in (1e-300, 1.0, 1e300):
        np.testing.assert_allclose(unit_rows("t", [[3 * size, 4 * size]]), [[0.6, 0.8]], rtol=1e-14)
    assert unit_rows("t", np.float32([[3e38, 3e38]])).dtype == np.float32


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(maps, "has_sklearn", lambda: False)
    with pytest.raises(ValueError, match=r"^a map needs scikit-learn: pip install -e '\.\[apps\]'$"):
        project([[1.0, 0.0]])


# ------------------------------------------------------------------------------------------- places for boxes


def overlaps(places, sizes):
    kept = [(place, size) for place, size in zip(places, sizes, strict=True) if place is not None]
    return [
        (i, j)
        for i, (a, size_a) in enumerate(kept)
        for j, (b, size_b) in enumerate(kept[:i])
        if (np.abs(a - b) < (size_a + size_b) / 2).all()
    ]


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 300)), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(1, 200), st.integers(1, 40)), min_size=40, max_size=40),
)
def test_boxes_never_overlap_and_stay_inside(anchors, sizes):
    anchors = np.array(anchors, float)
    sizes = np.array(sizes[: len(anchors)], float)
    places = place_boxes(anchors, sizes, (400.0, 300.0), anchors)
    assert overlaps(places, sizes) == []
    for place, size in zip(places, sizes, strict=True):
        if place is not None:
            assert (place - size / 2 >= 0).all() and (place + size / 2 <= (400, 300)).all()


def test_a_box_stands_beside_its_anchor_and_covers_little():
    anchor = np.array([[200.0, 150.0]])
    size = np.array([[60.0, 12.0]])
    (alone,) = place_boxes(anchor, size, (400.0, 300.0), anchor, beside=9.0)
    gap = np.maximum(np.abs(alone - anchor[0]) - size[0] / 2, 0)
    assert np.linalg.norm(gap) == pytest.approx(9.0)
    rng = np.random.default_rng(0)
    right = anchor[0] + np.stack([rng.uniform(5, 100, 300), rng.uniform(-40, 40, 300)], axis=1)
    (moved,) = place_boxes(anchor, size, (400.0, 300.0), right)
    assert moved[0] + 30 < 206  # everybody else is on the right


# ----------------------------------------------------------------------------------------------- the picture


@pytest.fixture
def picture(matplotlib, monkeypatch):
    """Give a function that draws, and returns matplotlib's figure."""
    from matplotlib.figure import Figure

    drawn = []
    savefig = Figure.savefig

    def watched(figure, *arguments, **options):
        drawn.append(figure)
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", watched)

    def one(*arguments, **options):
        stream = io.BytesIO()
        draw_map(stream, *arguments, **options)
        assert stream.getvalue().startswith(b"\x89PNG")
        return drawn.pop()

    return one


def written_on(figure):
    """Texts that stand on the map itself, not in the lines above it."""
    from matplotlib.text import Annotation

    (axes,) = figure.axes
    return [text for text in axes.texts if not isinstance(text, Annotation)]


def boxes_of(figure):
    renderer = figure.canvas.get_renderer()
    return [text.get_window_extent(renderer) for text in written_on(figure)]


def head_of(figure):
    from matplotlib.text import Annotation

    return " ".join(text.get_text() for text in figure.axes[0].texts if isinstance(text, Annotation))


def test_many_names_are_on_the_map_and_none_lies_on_another(picture):
    rng = np.random.default_rng(0)
    ids = np.arange(1200) % 40
    points = rng.standard_normal((40, 2))[ids] + 0.15 * rng.standard_normal((1200, 2))
    names = [f"the cluster number {i}" for i in range(40)]
    figure = picture(at(points), ["text"] * 1200, Groups(ids, names, "cluster"), title="many", typical=[0, 1])
    shown = [text.get_text() for text in written_on(figure)]
    assert set(shown) <= set(names) and len(shown) >= 30 and figure.axes[0].get_legend() is None
    boxes = boxes_of(figure)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    missing = 40 - len(shown)
    assert (f"{missing} name" in head_of(figure)) == (missing > 0)
    assert "PCA: the axes show 50.0 % and 25.0 %" in head_of(figure)


def test_few_groups_have_a_legend_and_typical_texts(picture):
    vectors, ids = clouds(90)
    texts = [f"text {i}" for i in range(90)]
    figure = picture(at(vectors[:, :2]), texts, Groups(np.where(ids == 2, -1, ids), ["soup", "$cat$"]), typical=[4, 7])
    entries = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert entries == ["soup (30)", r"\$cat\$ (30)", "in no label (30)"]
    assert sorted(text.get_text() for text in written_on(figure)) == ["$cat$", "soup", "text 4", "text 7"]


def test_few_texts_are_all_written_and_their_marks_differ(picture):
    groups = Groups.of_labels(["a", "b", "a", "c"])
    figure = picture(at([[0, 0], [1, 0], [0, 1], [1, 1]]), ["soup", "cat", "", "dog"], groups)
    assert sorted(text.get_text() for text in written_on(figure)) == ["(empty)", "cat", "dog", "soup"]
    marks = figure.axes[0].collections
    assert len({mark.get_paths()[0].vertices.tobytes() for mark in marks if len(mark.get_offsets())}) == 3


@pytest.mark.parametrize("points", [[[0, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 5], [0, 9]], [[1e-12, 0], [0, 3e9]]])
def test_points_on_one_place_or_one_line(points, picture):
    figure = picture(at(points), ["soup"] * len(points))
    assert len(written_on(figure)) == len(points)
    assert ("exactly on another point" in head_of(figure)) == (points == [[0, 0], [0, 0]])


def test_any_text_is_drawn_without_a_warning(picture):
    points = np.random.default_rng(0).standard_normal((len(ODD), 2))
    for text in ODD[::3]:
        figure = picture(at(points), ODD, Groups(np.arange(len(ODD)), ODD), title=text, caption=text)
        assert [one.get_text() for one in written_on(figure) if one.get_parse_math()] == []


def test_sixty_four_groups_look_different():
    assert len({style(group) for group in range(64)}) == 64 and style(64) == style(0)
    assert len({style(group)[0] for group in range(8)}) == len({style(group)[1] for group in range(8)}) == 8
    assert len(COLOURS) == len(SHAPES) == 8 and style(-1)[0] not in COLOURS


def test_sizes_that_do_not_fit_are_refused(matplotlib):
    for write in (draw_map, write_map_page):
        for points, texts, groups in (
            (2, 3, None),
            (2, 2, Groups([0], ["a"])),
            (0, 0, None),
        ):
            with pytest.raises(ValueError, match="equally many points, texts and group ids"):
                write(io.BytesIO(), at(np.zeros((points, 2))), ["x"] * texts, groups)


# -------------------------------------------------------------------------------------------------- the page


class Page(html.parser.HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.inside, self.opened = [], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.opened.append(dict(attributes).get("id") or tag)

    def handle_data(self, data):
        if self.opened:
            self.inside[self.opened[-1]] = self.inside.get(self.opened[-1], "") + data


def page_of(projection, texts, groups=None, **options):
    stream = io.BytesIO()
    write_map_page(stream, projection, texts, groups, **options)
    return stream.getvalue().decode()


HOSTILE = [
    '<script>alert("1")</script>',
    "</script><script>alert('2')</script>",
    "<!-- <script>",
    "{{data}} {{policy}} {{title}}",
    "\u2028 \u2029 & &lt; \" ' \\ \x00",
    "<img src=x onerror=alert(3)>",
]


def test_hostile_texts_come_back_letter_by_letter_and_make_no_element():
    points = np.random.default_rng(0).standard_normal((len(HOSTILE), 2))
    groups = Groups(np.arange(len(HOSTILE)), HOSTILE, "label")
    plain = Page(page_of(at(points), ["soup"] * len(HOSTILE)))
    for text in HOSTILE:
        page = page_of(at(points), HOSTILE, groups, title=text, caption=text)
        found = Page(page)
        assert found.elements == plain.elements
        data = json.loads(found.inside["data"])
        assert data["texts"] == data["names"] == HOSTILE
        assert data["title"] == text and data["captions"][0] == text
        assert f"<title>{html.escape(text)}</title>" in page
        assert found.inside["script"] == plain.inside["script"]


def test_the_page_brings_everything_and_lets_nothing_else_run():
    page = page_of(at([[0, 0], [1, 1]]), ["soup", "cat"])
    found = Page(page)
    for tag, attributes in found.elements:
        assert not {"src", "href", "style", *(name for name in attributes if name.startswith("on"))} & set(
            attributes
        ), tag
    assert "@import" not in page and "url(" not in page
    # names of formats, nothing that is fetched
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}
    (policy,) = (a["content"] for tag, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    for name in ("script", "style"):
        (inside,) = re.findall(f"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"
    script = map_page.TEMPLATE.read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_what_the_script_draws():
    points = np.array([[10.0, 0.0], [30.0, 0.0], [20.0, 5.0], [10.0, 10.0]])
    texts = ["soup", "cat", "half \ud83d", "dog"]
    page = page_of(at(points), texts, Groups([0, 1, 0, -1], ["a", "b"], "cluster"), typical=[2, 1], title="map")
    data = json.loads(Page(page).inside["data"])
    assert data["points"] == [[-1, -0.5], [1, -0.5], [0, 0], [-1, 0.5]] and data["half"] == [1, 0.5]
    assert data["texts"] == texts and data["ids"] == [0, 1, 0, -1] and data["kind"] == "cluster"
    assert data["styles"] == [list(style(0)), list(style(1))] and data["typical"] == [2, 1]
    assert data["middles"][1] == [1, -0.5] and data["middles"][0] in data["points"]
    assert data["captions"] == [at(points).describe()]
    one = json.loads(Page(page_of(at([[7, 7]]), ["alone"])).inside["data"])
    assert one["points"] == [[0, 0]] and one["kind"] == "" and one["names"] == [""] and min(one["half"]) > 0


def test_everything_can_be_reached_without_a_mouse():
    found = Page(page_of(at([[0, 0], [1, 1]]), ["soup", "cat"]))
    by_id = {attributes["id"]: (tag, attributes) for tag, attributes in found.elements if "id" in attributes}
    assert by_id["map"][1]["tabindex"] == "0" and by_id["map"][1]["aria-describedby"] in by_id
    assert by_id["found"][1]["role"] == by_id["chosen"][1]["role"] == "status"
    assert ("label", {"for": "search"}) in found.elements
    assert {tag for tag, _ in found.elements} >= {"h1", "main", "aside", "noscript", "button"}


@given(st.recursive(st.text() | st.integers() | st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_json_for_html_is_json_without_a_way_out(value):
    written = json_for_html(value)
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written.encode()) == value


def test_no_number_that_json_has_not():
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_for_html([float("nan")])


def test_the_template_comes_with_the_package_and_has_each_place_once():
    template = map_page.TEMPLATE.read_text(encoding="utf-8")
    assert re.findall(r"\{\{\w+\}\}", template) == ["{{policy}}", "{{title}}", "{{data}}"]
