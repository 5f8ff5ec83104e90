"""Pictures: what is drawn is what was given, no label covers another, nothing is told by colour alone."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert.plots import (
    attention_heads,
    bars,
    curves,
    heat_map,
    picture,
    similarity_matrix,
    vectors_in_plane,
)
from minisbert.plots.charts import _look, spread
from minisbert.plots.plane import place_labels
from minisbert.plots.style import LINE_COLOURS, colour_map, contrasting

NASTY = ["好き 👩‍🍳 été", "$x_1$ and $", "\\frac{", "ไทย عربي", "", " ", "a\nb\x00\u202e\ue000", "x" * 5000]
TOKENS = ["[CLS]", "i", "love", "soup", "[SEP]"]
AXES = {"x_label": "step", "y_label": "loss"}
NAN = float("nan")


def some_probs(*shape):
    exp = np.exp(2 * np.random.default_rng(0).standard_normal(shape))
    return exp / exp.sum(axis=-1, keepdims=True)


def star(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 2))


@pytest.fixture
def figure_of(matplotlib, monkeypatch):
    """Give a function that draws, and returns matplotlib's figure."""
    from matplotlib.figure import Figure

    drawn = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **o: (drawn.append(figure), savefig(figure, *a, **o)))

    def one(draw, *arguments, title="a title", **options):
        one.png = picture(draw, *arguments, title=title, **options).png
        assert one.png.startswith(b"\x89PNG")
        return drawn.pop()

    return one


def boxes(figure, texts):
    """Where texts stand, in pixels: (n, 4) left, bottom, right, top."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    return np.array([text.get_window_extent(renderer).extents for text in texts if text.get_text().strip()])


def overlapping(extents):
    """Pairs of boxes that share more than half a pixel each way."""
    low, high = extents[:, :2], extents[:, 2:]
    shared = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    return [(i, j) for i, j in np.argwhere((shared > 0.5).all(axis=2)).tolist() if i < j]


def every_text(figure):
    from matplotlib.text import Text

    beyond = set()  # matplotlib keeps ticks beyond the ends of an axis, and does not draw them
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() + axis.get_minor_ticks() if not low <= tick.get_loc() <= high]
        beyond |= {label for tick in ticks for label in (tick.label1, tick.label2)}
    return [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible() and t not in beyond]


def head(axes):
    """The lines above the axes."""
    return [text.get_text() for text in axes.texts if getattr(text, "xycoords", None) == "axes fraction"]


def names(axes):
    """What stands in the plane or on a map."""
    return [t for t in axes.texts if t.get_text() and not hasattr(t, "arrow_patch") and t.get_path_effects()]


def lightness(colours):
    """CIE L*, 0 black to 100 white."""
    from matplotlib.colors import to_rgba_array

    rgb = to_rgba_array(colours)[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


# ------------------------------------------------------------------------------------------------ all pictures


def nasty_cases():
    count = len(NASTY)
    yield heat_map, (np.linspace(-1, 1, 64).reshape(8, 8), NASTY, NASTY[::-1]), {"diverging": True}
    yield similarity_matrix, (np.eye(count), NASTY), {}
    yield attention_heads, (some_probs(3, count, count), NASTY), {}
    yield vectors_in_plane, (star(count), NASTY), {"groups": NASTY}
    named = {name: ([0, 1], [i, 2 * i]) for i, name in enumerate(NASTY)}
    yield curves, (named,), {"x_label": NASTY[0], "y_label": NASTY[1], "levels": {NASTY[2]: 3.0}}
    yield bars, ({name: i - 3 for i, name in enumerate(NASTY)},), {"value_label": NASTY[1]}


@pytest.mark.parametrize(("draw", "arguments", "options"), nasty_cases())
def test_any_text_is_drawn_as_it_is_whatever_the_readers_settings(draw, arguments, options, figure_of, matplotlib):
    words = {"title": " ".join(NASTY[:7]) + " word" * 60, "caption": "\n".join([*NASTY, "\U0010fffd"])}
    drawn = picture(draw, *arguments, **words, **options)
    with matplotlib.rc_context({"font.size": 31, "axes.facecolor": "black", "lines.linewidth": 9, "savefig.dpi": 30}):
        figure = figure_of(draw, *arguments, **words, **options)
        assert matplotlib.rcParams["font.size"] == 31  # and are left as they are
    assert figure_of.png == drawn.png
    texts = every_text(figure)
    dollars = [text for text in texts if "$" in text.get_text() and "mathdefault" not in text.get_text()]
    assert dollars and not any(text.get_parse_math() for text in dollars)
    assert max(len(text.get_text()) for text in texts if "word" not in text.get_text()) < 200  # long ones are cut
    assert max(figure.get_size_inches()) < 12
    assert sum("word" in line for line in head(figure.axes[0])) == 3  # a long title is cut
    assert "□ is a character that no installed font has" in [text.get_text() for text in texts]


def test_more_is_darker_and_numbers_contrast_with_their_cells(matplotlib):
    steps = np.linspace(0, 1, 101)
    shades = lightness(colour_map(False)(steps))
    assert (np.diff(shades) < 0).all() and shades[0] - shades[-1] > 60
    diverging = lightness(colour_map(True)(steps))
    assert (np.diff(diverging[:51]) > 0).all() and (np.diff(diverging[50:]) < 0).all() and diverging[50] > 95
    assert abs(diverging[0] - diverging[-1]) > 35  # the sign shows in grey
    cells = np.random.default_rng(0).uniform(size=(1000, 4))
    light = ((lightness(cells[:, :3]) + 16) / 116) ** 3
    for luminance, text in zip(light, contrasting(cells), strict=True):
        assert ((luminance + 0.05) / 0.05 if text == "black" else 1.05 / (luminance + 0.05)) > 4.5
    looks = [(str(_look(i)["linestyle"]), _look(i)["marker"]) for i in range(40)]
    assert len(set(looks)) == 40 and all(a[0] != b[0] and a[1] != b[1] for a, b in itertools.pairwise(looks))
    assert lightness(LINE_COLOURS).max() < 75  # seen on white


REFUSED = [
    (heat_map, (np.ones((2, 3)), list("abc"), list("ab")), {}, "swapped"),
    (heat_map, ([[np.inf]], ["a"], ["b"]), {}, r"inf at \(0, 0\)"),
    (similarity_matrix, (np.ones((2, 3)), ["a", "b"]), {}, "use heat_map"),
    (attention_heads, (some_probs(5, 5), TOKENS), {}, r"probs\[None\]"),
    (vectors_in_plane, (np.ones((1, 2)), ["a"]), {"groups": ["a", "b"]}, "1 groups"),
    (curves, ({"a": ([0, 1], [1, 2])},), {**AXES, "log_x": True}, "'a'.*positive"),
    (curves, ({"a": ([0], [1])},), {**AXES, "levels": {"b": NAN}}, "level 'b'"),
    (bars, ({"a": 1.0},), {"intervals": {"b": (0, 1)}}, "'b', which has no bar"),
    (bars, ({"a": 82.0},), {"intervals": {"a": (1.2, 1.3)}}, "distances"),
]


@pytest.mark.parametrize(("draw", "arguments", "options", "key"), REFUSED)
def test_what_cannot_be_drawn(draw, arguments, options, key):
    stream = io.BytesIO()
    with pytest.raises(ValueError, match=f"(?s)^{draw.__name__}: .*{key}"):
        draw(stream, *arguments, title="", **options)
    assert stream.getvalue() == b""


# ------------------------------------------------------------------------------------------------ matrices


def test_numbers_dashes_and_marks_of_cells(figure_of):
    axes = figure_of(heat_map, [[-0.001, NAN, -0.25]], ["r"], list("abc"), diverging=True, marked=(0, 1)).axes[0]
    assert [text.get_text() for text in axes.texts[:3]] == ["0.00", "none", "\N{MINUS SIGN}0.25"]
    assert [patch.get_xy() for patch in axes.patches] == [(0.5, -0.5)] * 2
    assert axes.images[0].get_clim() == (-0.25, 0.25)
    values = np.ones((80, 60))
    values[3, 5], values[7, 1] = -1, -0.001
    figure = figure_of(heat_map, values, ["soup"] * 80, ["c"] * 60, diverging=True)
    axes, (width, height) = figure.axes[0], figure.get_size_inches()
    labels = axes.get_yticklabels()
    assert width <= 10 and height <= 8.5 and not overlapping(boxes(figure, labels))
    assert axes.collections[0].get_offsets().tolist() == [[5, 3]]  # what is hardly negative has none
    assert head(axes)[:1] == ["cells with a dash are negative"]
    image = figure_of(heat_map, [[0.5, -0.1]], ["r"], ["a", "b"], value_range=(0.0, 1.0)).axes[0].images[0]
    assert image.get_clim() == (0.0, 1.0) and image.colorbar.extend == "min"


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([[1.0000001, -0.05], [-0.05, 1.0]], (0.0, 1.0)),
        ([[1.0, -0.6], [-0.6, 1.0]], (-0.6, 1.0)),
        ([[0.0, -30.0], [-30.0, 0.0]], (-30.0, 0.0)),
        ([[7.0, 7.0], [7.0, 7.0]], (6.5, 7.5)),
    ],
)
def test_colours_of_cosines_can_be_compared_between_pictures(values, limits, figure_of):
    axes = figure_of(similarity_matrix, values, ["soup", "town"]).axes[0]
    np.testing.assert_allclose(axes.images[0].get_clim(), limits)
    np.testing.assert_array_equal(axes.images[0].get_array(), values)


@pytest.mark.parametrize("shape", [(1, 5, 5), (6, 12, 5, 5), (12, 90, 90)])
def test_each_head_is_drawn_where_it_belongs_and_no_label_covers_another(shape, figure_of):
    probs, tokens = some_probs(*shape), [TOKENS[i % 5] for i in range(shape[-1])]
    figure = figure_of(attention_heads, probs, tokens)
    axes, heads = figure.axes[0], probs.reshape(-1, *shape[-2:])
    corners = np.array([image.get_extent() for image in axes.images])[:, [0, 3]]  # left and top, in inches
    assert np.array_equal(np.lexsort(corners.T), np.arange(len(heads)))
    for image, numbers in zip(axes.images, heads, strict=True):
        np.testing.assert_array_equal(image.get_array(), numbers)
        assert image.get_clim() == (0.0, 1.0)  # the same for all
    written = [text.get_text() for text in axes.texts]
    layers = [text for text in written if text.startswith("layer")]
    assert layers == ([f"layer {i}" for i in range(6)] if len(shape) == 4 else [])
    shown = [text for text in written if text.startswith(("0.", "1."))]
    assert shown == ([f"{number:.2f}" for number in probs.ravel()] if shape == (1, 5, 5) else [])
    texts = every_text(figure)
    assert not overlapping(boxes(figure, texts)) and min(text.get_fontsize() for text in texts) >= 6.5
    is_told = any(line.startswith("the tokens, from the upper left: [CLS] · i") for line in written)
    assert is_told == (shape[-1] == 90)  # what is left out beside the squares


# ------------------------------------------------------------------------------------------------ the plane


def test_arrows_go_where_they_should(figure_of):
    def arrows(axes):
        return np.array([(text.xyann, text.xy) for text in axes.texts if getattr(text, "arrow_patch", None)])

    points = np.array([[1.0, 0.5], [-2.0, 0.0], [0.0, 0.0]])
    targets = points + np.array([[0.5, 0.0], [0.0, 0.0], [1.0, 1.0]])
    axes = figure_of(vectors_in_plane, points, ["a", "", "zero"]).axes[0]
    np.testing.assert_array_equal(arrows(axes), [[[0, 0], [1, 0.5]], [[0, 0], [-2, 0]]])
    marks = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    assert marks == [[[0.0, 0.0]]] and [text.get_text() for text in names(axes)] == ["a", "zero"]
    axes = figure_of(vectors_in_plane, points, list("abc"), targets=targets, groups=["food", "$x$", "food"]).axes[0]
    np.testing.assert_array_equal(arrows(axes), np.stack([points, targets], axis=1)[[0, 2]])
    assert [line.get_marker() for line in axes.lines if line.get_marker() in "os"] == ["o", "s", "o"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["food", "$x$"]


@pytest.mark.parametrize("spread_out", [(0.0, 0.0), (1e9, 1.0)])
def test_one_scale_for_both_axes_and_all_inside(spread_out, figure_of):
    points = star(6) * spread_out
    axes = figure_of(vectors_in_plane, points, list("abcdef")).axes[0]
    unit = np.diff(axes.transData.transform([[0.0, 0.0], [1.0, 1.0]]), axis=0)[0]
    assert unit[0] == pytest.approx(unit[1], rel=1e-6)
    inside = axes.transAxes.inverted().transform(axes.transData.transform(np.vstack([points, [[0, 0]]])))
    assert (inside > 0.05).all() and (inside < 0.95).all()


@pytest.mark.parametrize("options", [{}, {"targets": star(30, 9)}])
def test_names_cover_neither_each_other_nor_marks(options, figure_of):
    points = star(30)
    figure = figure_of(vectors_in_plane, points, [f"name {i}" for i in range(30)], **options)
    axes = figure.axes[0]
    extents = boxes(figure, names(axes))
    assert len(extents) == 30 and not overlapping(extents)
    ends = axes.transData.transform(options.get("targets", points))
    covered = ((ends[:, None] > extents[:, :2]) & (ends[:, None] < extents[:, 2:])).all(axis=2)
    assert covered.sum() <= 1  # of 30, in a crowd
    crowd = figure_of(vectors_in_plane, np.ones((150, 2)), ["a long enough name"] * 150).axes[0]
    assert head(crowd)[0] == f"{150 - len(names(crowd))} names left out for lack of space" and len(names(crowd)) > 10


@given(st.integers(0, 10**6), st.integers(1, 25))
@settings(max_examples=30)
def test_labels_never_overlap(seed, count):
    rng = np.random.default_rng(seed)
    anchors, sizes = rng.uniform(0, 400, (count, 2)), rng.uniform((20, 8), (120, 16), (count, 2))
    places = place_labels(anchors, rng.standard_normal((count, 2)), sizes, (400.0, 400.0), anchors, np.ones(count), 4.0)
    found = np.array([[*(p - s / 2), *(p + s / 2)] for p, s in zip(places, sizes, strict=True) if p is not None], float)
    assert len(found) and not overlapping(found) and found.min() >= -1e-9 and found.max() <= 400 + 1e-9


@given(st.lists(st.floats(0, 10), max_size=12), st.floats(0.01, 2.0))
def test_numbers_are_spread_as_little_as_possible(wanted, gap):
    wanted = np.array(wanted)
    places = spread(wanted, gap, 0.0, 10.0)
    order = np.argsort(wanted, kind="stable")
    room = min(gap, 10.0 / max(len(wanted) - 1, 1))
    assert (np.diff(places[order]) >= room - 1e-9).all() and ((places >= -1e-9) & (places <= 10 + 1e-9)).all()
    # no other arrangement is nearer: the slope towards any is not downhill (a convex problem)
    steps = room * np.arange(len(wanted))
    for draw in np.random.default_rng(0).uniform(0, 10 - room * max(len(wanted) - 1, 0), (20, len(wanted))):
        assert (places - wanted)[order] @ (np.sort(draw) + steps - places[order]) >= -1e-7


# ------------------------------------------------------------------------------------------------ curves and bars


def test_curves_are_what_was_given_and_named_where_they_end(figure_of):
    lines = {"b": ([3, 1, 2], [0.5, -1.0, 9.0]), "a": (np.arange(40), np.arange(40) ** 2)}
    axes = figure_of(curves, lines, **AXES, levels={"zero": 0.0}, x_levels={"here": 0.5}).axes[0]
    assert [0.5, 0.5] in [list(line.get_xdata()) for line in axes.lines]
    drawn = [line for line in axes.lines if line.get_transform() == axes.transData]
    for line, (x, y) in zip(drawn, lines.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([x, y], axis=1))
    assert [line.get_markevery() for line in drawn] == [1, 4]  # of many points not all have a mark
    named = [text for text in axes.texts if text.get_transform() == axes.transAxes]
    assert [text.get_text() for text in named] == ["b", "a", "zero"] and axes.get_ylabel() == "loss"
    (end,) = axes.transAxes.inverted().transform(axes.transData.transform([[39, 39**2]]))
    assert named[1].get_position()[1] == pytest.approx(end[1])
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    many = {f"curve {i}": ([1, 2], [5.0, 1 + i / 4000]) for i in range(40)}
    figure = figure_of(curves, many, **AXES, levels={"level": 1.005})
    assert not overlapping(boxes(figure, every_text(figure)))


def test_logarithmic_axes_and_exact_zeros(figure_of):
    lines = {"float32": ([1, 10, 100], [0.0, 1e-7, 2e-7]), "float64": ([1, 10, 100], [0.0, 0.0, 1e-15])}
    axes = figure_of(curves, lines, **AXES, log_y=True, log_x=True).axes[0]
    assert head(axes)[0] == "a triangle at the lower edge stands for exactly 0, which has no logarithm"
    triangles = [line for line in axes.lines if line.get_transform() == axes.get_xaxis_transform()]
    assert [line.get_xdata().tolist() for line in triangles] == [[1.0], [1.0, 10.0]]
    assert triangles[0].get_markersize() > triangles[1].get_markersize()  # the first is seen around the second
    assert axes.get_xlim()[0] < 1 and axes.get_ylim()[0] < 1e-15


@pytest.mark.parametrize("values", [[1e12, 1e-9], [5.0, -0.001, 0], list(range(-50, 50))])
def test_bars_begin_at_0_and_numbers_stand_beyond_them(values, figure_of):
    named = {f"bar {i}": value for i, value in enumerate(values)}
    wide = {name: (value - 0.3 * abs(value), value + 0.3 * abs(value)) for name, value in named.items()}
    for intervals in ({}, wide) if len(values) < 50 else ({},):
        figure = figure_of(bars, named, intervals=intervals, number_format="{:.3g}", title="bars")
        axes = figure.axes[0]
        assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(0.0, value) for value in values]
        assert [bool(bar.get_hatch()) for bar in axes.patches] == [value < 0 for value in values]  # without colour
        whiskers = [segment[:, 0] for segment in axes.collections[-1].get_segments()]
        np.testing.assert_allclose(np.reshape(whiskers, (-1, 2)), np.reshape([*intervals.values()], (-1, 2)))
        assert not overlapping(boxes(figure, every_text(figure)))
        shown = [text for text in axes.texts if text.get_text() and text.get_fontsize() < 10]
        assert len(shown) == (len(values) if len(values) < 50 else 0)  # a hundred bars have no room for numbers
        for text, box, (name, value) in zip(shown, boxes(figure, shown), named.items(), strict=False):
            ends = [axes.transData.transform((x, 0))[0] for x in intervals.get(name, (value, value))]
            assert box[0] > ends[1] if value >= 0 else box[2] < ends[0]
            assert axes.bbox.x0 < box[0] and box[2] < axes.bbox.x1 and text.get_text()[0] != "-"
