"""The course's pictures: what is drawn is what was given, no label covers another, nothing is told by colour alone."""

import inspect
import io
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert import plots
from minisbert.plots import (
    attention_heads,
    bars,
    curves,
    heat_map,
    picture,
    similarity_matrix,
    vectors_in_plane,
)
from minisbert.plots.heads import WIDTH_INCHES
from minisbert.plots.line_chart import _look
from minisbert.plots.picture import Picture
from minisbert.plots.placing import place_labels, spread
from minisbert.plots.style import DPI, LINE_COLOURS, SHAPES, amount_map, inches

NASTY = ["好き 👩‍🍳 été", "$x_1$ and $", "\\frac{", "ไทย عربي", "", " ", "a\nb\x00\u202e\ue000", "x" * 5000]
TOKENS = ["[CLS]", "i", "love", "soup", "[SEP]"]
LABELS_AXES = {"x_label": "step", "y_label": "loss"}


def softmax(scores):
    exp = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def some_probs(*shape, seed=0):
    return softmax(2 * np.random.default_rng(seed).standard_normal(shape))


CASES = {
    heat_map: ((np.eye(2), ["a", "b"], ["c", "d"]), {}),
    similarity_matrix: ((np.eye(2), ["a", "b"]), {}),
    attention_heads: ((some_probs(2, 5, 5), TOKENS), {}),
    vectors_in_plane: ((np.eye(2), ["soup", "london"]), {}),
    curves: (({"adamw": ([0, 1, 2], [3.0, 1.0, 0.5])},), LABELS_AXES),
    bars: (({"mean": 82.0, "cls": -5.0},), {}),
}
each_picture = pytest.mark.parametrize("draw", CASES, ids=lambda draw: draw.__name__)


@pytest.fixture
def figure_of(matplotlib, monkeypatch):
    """Give a function that draws, and returns matplotlib's figure."""
    from matplotlib.figure import Figure

    drawn = []
    savefig = Figure.savefig

    def watched(figure, *arguments, **options):
        drawn.append(figure)
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", watched)

    def one(draw, *arguments, title="a title", **options):
        assert picture(draw, *arguments, title=title, **options).png.startswith(b"\x89PNG")
        return drawn.pop()

    return one


def boxes(figure, texts):
    """Where texts stand, in pixels: ``(n, 4)`` left, bottom, right, top."""
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
    return [text.get_text() for text in axes.texts if getattr(text, "anncoords", None) == "offset points"]


def lightness(colour):
    """CIE L*, 0 black to 100 white."""
    from matplotlib.colors import to_rgb

    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


# ------------------------------------------------------------------------------------------------ all pictures


@pytest.mark.parametrize(
    ("draw", "arguments", "options"),
    [
        (heat_map, "values rows columns", "title caption value_range diverging marked number_format"),
        (similarity_matrix, "values texts", "title caption"),
        (attention_heads, "probs tokens", "title caption"),
        (vectors_in_plane, "points labels", "title caption groups from_origin targets"),
        (curves, "lines", "x_label y_label title caption log_y log_x levels"),
        (bars, "values", "title caption value_label intervals number_format"),
    ],
)
def test_signatures_are_the_ones_that_notebooks_use(draw, arguments, options):
    found = inspect.signature(draw).parameters
    keyword = [name for name, one in found.items() if one.kind is one.KEYWORD_ONLY]
    assert list(found) == ["stream", *arguments.split(), *keyword] and keyword == options.split()
    needed = {name for name in keyword if found[name].default is inspect.Parameter.empty}
    assert needed == {"title", *({"x_label", "y_label"} & set(keyword))}
    assert draw.__name__ in plots.__all__


def test_importing_brings_no_matplotlib():
    code = "import sys, minisbert.plots; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@each_picture
def test_without_matplotlib_there_is_a_command_to_type(draw, monkeypatch):
    arguments, options = CASES[draw]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"need matplotlib: pip install -e '.\[plots\]'"):
        draw(io.BytesIO(), *arguments, title="", **options)


@each_picture
def test_a_readers_settings_change_nothing(draw, matplotlib):
    arguments, options = CASES[draw]
    plain = picture(draw, *arguments, title="who is alike", **options)
    theirs = {"font.size": 31, "axes.facecolor": "black", "lines.linewidth": 9, "savefig.dpi": 30, "xtick.color": "red"}
    with matplotlib.rc_context(theirs):
        assert picture(draw, *arguments, title="who is alike", **options).png == plain.png
        assert {name: matplotlib.rcParams[name] for name in theirs} == theirs  # and are left as they are


def nasty_cases():
    count = len(NASTY)
    points = np.random.default_rng(0).standard_normal((count, 2))
    yield similarity_matrix, (np.eye(count), NASTY), {}
    yield attention_heads, (some_probs(3, count, count), NASTY), {}
    yield attention_heads, (some_probs(2, 12, count, count), NASTY), {}
    yield vectors_in_plane, (points, NASTY), {"groups": NASTY}
    yield vectors_in_plane, (points, NASTY), {"targets": points[::-1]}
    named = {name: ([0, 1], [i, 2 * i]) for i, name in enumerate(NASTY)}
    yield curves, (named,), {"x_label": NASTY[0], "y_label": NASTY[1], "levels": {NASTY[2]: 3.0}}
    yield bars, ({name: i - 3 for i, name in enumerate(NASTY)},), {"value_label": NASTY[1]}


@pytest.mark.parametrize(("draw", "arguments", "options"), nasty_cases())
def test_any_text_is_drawn_as_it_is(draw, arguments, options, figure_of):
    figure = figure_of(draw, *arguments, title=" ".join(NASTY[:7]), caption="\n".join(NASTY), **options)
    texts = every_text(figure)
    ours = [text for text in texts if "$" in text.get_text() and "mathdefault" not in text.get_text()]
    assert ours and not any(text.get_parse_math() for text in ours)
    assert max(len(text.get_text()) for text in texts if "title" not in text.get_text()) < 200  # long ones are cut
    width, height = figure.get_size_inches()
    assert width < 12 and height < 12


@each_picture
def test_long_titles_and_captions_are_wrapped(draw, matplotlib):
    arguments, options = CASES[draw]
    short = picture(draw, *arguments, title="short", **options).size
    wide = picture(draw, *arguments, title="word " * 60, caption="word " * 400, **options).size
    assert wide[0] <= max(short[0], 7.8 * DPI) and wide[1] > short[1] + 0.5 * DPI


def test_what_no_font_has_is_explained(figure_of):
    for draw, arguments, options in (
        (attention_heads, (np.ones((1, 1, 1)), ["\U0010fffd"]), {}),
        (vectors_in_plane, (np.eye(2), ["a", "\U0010fffd"]), {}),
        (curves, ({"\U0010fffd": ([0], [0])},), LABELS_AXES),
        (bars, ({"\U0010fffd": 1.0},), {}),
    ):
        axes = figure_of(draw, *arguments, **options).axes[0]
        assert "□ is a character that no installed font has" in head(axes)


# ------------------------------------------------------------------------------------------------ a kept picture


def test_a_picture_is_what_jupyter_shows(matplotlib):
    kept = picture(bars, {"a": 1.0}, title="bars")
    png, metadata = kept._repr_png_()
    assert png == kept.png and metadata == {"width": round(kept.size[0] * 110 / 150)}
    from PIL import Image  # comes with matplotlib

    with Image.open(io.BytesIO(png)) as opened:
        assert opened.size == kept.size and opened.format == "PNG"
        assert np.allclose(opened.info["dpi"], DPI, atol=0.1)
    assert repr(kept) == "Picture()"  # and not all its bytes


def test_saving_replaces_a_file_whole(tmp_path, monkeypatch):
    file = tmp_path / "a picture.of anything"
    file.write_bytes(b"old")
    Picture(b"new").save(str(file))
    assert file.read_bytes() == b"new"

    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        Picture(b"newer").save(file)
    assert file.read_bytes() == b"new" and list(tmp_path.iterdir()) == [file]


def test_a_picture_that_is_refused_is_not_made():
    with pytest.raises(ValueError, match="bars: expected at least one bar"):
        picture(bars, {}, title="")


# ------------------------------------------------------------------------------------------------ similarity


def test_texts_are_numbered_where_they_are_long(figure_of):
    axes = figure_of(similarity_matrix, np.eye(3), ["i love soup", "x" * 90, "$5"]).axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["i love soup · 1", "x" * 33 + "… · 2", "$5 · 3"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3"]
    axes = figure_of(similarity_matrix, np.eye(2), ["soup", "town"]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["soup", "town"]


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([[1.0, 0.3], [0.3, 1.0]], (0.0, 1.0)),
        ([[1.0000001, -0.05], [-0.05, 1.0]], (0.0, 1.0)),
        ([[1.0, -0.6], [-0.6, 1.0]], (-0.6, 1.0)),
        ([[0.0, -30.0], [-30.0, 0.0]], (-30.0, 0.0)),
        ([[7.0, 7.0], [7.0, 7.0]], (6.5, 7.5)),
    ],
)
def test_colours_of_cosines_can_be_compared_between_pictures(values, limits, figure_of):
    (image,) = figure_of(similarity_matrix, values, ["a", "b"]).axes[0].images
    np.testing.assert_allclose(image.get_clim(), limits)
    np.testing.assert_array_equal(image.get_array(), values)


def test_forty_texts_do_not_overlap(figure_of):
    figure = figure_of(similarity_matrix, np.eye(40), [f"sentence number {i}" for i in range(40)])
    axes = figure.axes[0]
    assert not overlapping(boxes(figure, [*axes.get_yticklabels(), *axes.get_xticklabels()]))
    assert len(axes.get_yticklabels()) == 40


# ------------------------------------------------------------------------------------------------ heads


def squares(figure):
    return [axes for axes in figure.axes if axes.get_label().endswith(tuple("0123456789")) and axes.images]


@pytest.mark.parametrize("shape", [(1, 5, 5), (5, 5, 5), (12, 5, 5), (1, 12, 5, 5), (6, 12, 5, 5), (2, 3, 5, 5)])
def test_each_head_is_drawn_where_it_belongs(shape, figure_of):
    probs = some_probs(*shape)
    found = squares(figure_of(attention_heads, probs, TOKENS))
    by_layer = probs if probs.ndim == 4 and len(probs) > 1 else probs.reshape(1, -1, 5, 5)
    assert len(found) == by_layer.shape[0] * by_layer.shape[1]
    for axes, (layer, number) in zip(found, np.ndindex(by_layer.shape[:2]), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), by_layer[layer, number])
        name = f"layer {layer}, head {number}" if len(by_layer) > 1 else f"head {number}"
        assert axes.get_label() == name
        assert axes.images[0].get_clim() == (0.0, 1.0 if probs.max() > 0.9 else probs.max())  # the same for all
    places = [axes.get_position() for axes in found]
    for axes, place in zip(found, places, strict=True):
        lefts, tops = sorted({round(p.x0, 6) for p in places}), sorted({-round(p.y0, 6) for p in places})
        row, column = tops.index(-round(place.y0, 6)), lefts.index(round(place.x0, 6))
        if len(by_layer) > 1:
            assert axes.get_label() == f"layer {row}, head {column}"
        else:
            assert axes.get_label() == f"head {row * len(lefts) + column}"


def test_all_heads_are_legible_at_the_width_of_a_notebook(figure_of):
    figure = figure_of(attention_heads, some_probs(6, 12, 5, 5), TOKENS)
    assert figure.get_size_inches()[0] == pytest.approx(WIDTH_INCHES)
    texts = every_text(figure)
    assert min(text.get_fontsize() for text in texts) >= 6.5
    extents = boxes(figure, texts)
    assert (extents[:, 2].max() - extents[:, 0].min()) / DPI < 9.6
    assert not overlapping(extents)
    words = [text.get_text() for text in texts]
    assert words.count("soup") == 6 + 12 and words.count("head 11") == 1 and words.count("layer 5") == 1


@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (12,), (6, 12)])
@pytest.mark.parametrize("count", [1, 2, 8, 30, 90])
def test_no_label_covers_another_however_many_tokens(shape, count, figure_of):
    tokens = [("[CLS]", "i", "inter", "##national", "soup")[i % 5] for i in range(count)]
    figure = figure_of(attention_heads, some_probs(*shape, count, count), tokens, caption="some heads")
    texts = every_text(figure)
    assert not overlapping(boxes(figure, texts)), [texts[i].get_text() for i in overlapping(boxes(figure, texts))[0]]
    labels = [label.get_text() for label in squares(figure)[0].get_yticklabels()]
    assert labels[0] == "[CLS]"
    if len(labels) < count:  # what is left out is told otherwise
        assert any(
            line.startswith("the tokens, from the upper left: [CLS] · i · inter") for line in head(figure.axes[0])
        )


def test_probabilities_are_written_where_there_is_room(figure_of):
    probs = some_probs(2, 5, 5)
    for axes, numbers in zip(squares(figure_of(attention_heads, probs, TOKENS)), probs, strict=True):
        assert [text.get_text() for text in axes.texts] == [f"{number:.2f}" for number in numbers.reshape(-1)]
    assert not squares(figure_of(attention_heads, some_probs(2, 30, 30), ["a"] * 30))[0].texts


def test_nothing_is_white_and_more_is_darker(matplotlib):
    shades = [lightness(colour) for colour in amount_map()(np.linspace(0, 1, 51))[:, :3]]
    assert shades[0] == pytest.approx(100, abs=0.1) and shades[-1] < 25 and (np.diff(shades) < 0).all()


# ------------------------------------------------------------------------------------------------ the plane


def arrows(axes):
    """Start and end of each arrow: ``(n, 2, 2)``."""
    return np.array([(text.xyann, text.xy) for text in axes.texts if getattr(text, "arrow_patch", None)])


def names(axes):
    return [t for t in axes.texts if t.get_text() and not hasattr(t, "arrow_patch") and t.get_path_effects()]


def test_arrows_go_where_they_should(figure_of):
    points = np.array([[1.0, 0.5], [-2.0, 0.0], [0.0, 0.0]])
    axes = figure_of(vectors_in_plane, points, ["a", "b", "zero"]).axes[0]
    np.testing.assert_array_equal(arrows(axes), [[[0, 0], [1, 0.5]], [[0, 0], [-2, 0]]])
    marks = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    assert marks == [[[0.0, 0.0]]]  # what has no arrow has a mark
    targets = points + np.array([[0.5, 0.0], [0.0, 0.0], [1.0, 1.0]])
    axes = figure_of(vectors_in_plane, points, ["a", "b", "zero"], targets=targets).axes[0]
    np.testing.assert_array_equal(arrows(axes), np.stack([points, targets], axis=1)[[0, 2]])
    marks = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() == "o"]
    assert marks == points.tolist()
    assert not len(arrows(figure_of(vectors_in_plane, points, ["a", "b", "c"], from_origin=False).axes[0]))


@pytest.mark.parametrize("spread_out", [(1.0, 1.0), (5.0, 0.1), (0.0, 3.0), (1e-6, 1e-6), (0.0, 0.0), (1e9, 1.0)])
def test_one_scale_for_both_axes_and_all_inside(spread_out, figure_of):
    points = np.random.default_rng(0).standard_normal((6, 2)) * spread_out
    axes = figure_of(vectors_in_plane, points, list("abcdef")).axes[0]
    unit = np.diff(axes.transData.transform([[0.0, 0.0], [1.0, 1.0]]), axis=0)[0]
    assert unit[0] == pytest.approx(unit[1], rel=1e-6)
    inside = axes.transAxes.inverted().transform(axes.transData.transform(np.vstack([points, [[0, 0]]])))
    assert (inside > 0.05).all() and (inside < 0.95).all()


def star(count, seed):
    return np.random.default_rng(seed).standard_normal((count, 2))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [{}, {"from_origin": False}, {"targets": star(30, 9)}])
def test_names_cover_neither_each_other_nor_marks(seed, options, figure_of):
    points = star(30, seed)
    figure = figure_of(vectors_in_plane, points, [f"name {i}" for i in range(30)], **options)
    axes = figure.axes[0]
    written = names(axes)
    assert [text.get_text() for text in written] == [f"name {i}" for i in range(30)]
    extents = boxes(figure, written)
    assert not overlapping(extents)
    frame = axes.bbox.extents
    assert (extents[:, :2] >= frame[:2] - 1).all() and (extents[:, 2:] <= frame[2:] + 1).all()
    ends = axes.transData.transform(options.get("targets", points))
    covered = ((ends[:, None] > extents[:, :2]) & (ends[:, None] < extents[:, 2:])).all(axis=2)
    assert covered.sum() <= 1  # of 30, in a crowd
    gaps = np.maximum(np.maximum(extents[:, :2] - ends, ends - extents[:, 2:]), 0)
    distances = np.hypot(*gaps.T)
    assert np.median(distances) < 0.15 * DPI  # most names stand at what they name: a line of letters is 0.14 high
    leaders = [line for line in axes.lines if line.get_linestyle() == "-" and line.get_color() == "0.45"]
    assert len(leaders) >= (distances > 0.15 * DPI).sum()  # the others have a line to it


def test_what_finds_no_room_is_counted(figure_of):
    figure = figure_of(vectors_in_plane, np.ones((400, 2)), ["a long enough name"] * 400)
    axes = figure.axes[0]
    assert not overlapping(boxes(figure, names(axes)))
    assert head(axes)[0] == f"{400 - len(names(axes))} names left out for lack of space" and 10 < len(names(axes)) < 400
    assert [text.get_text() for text in names(figure_of(vectors_in_plane, np.eye(2), ["", "b"]).axes[0])] == ["b"]


def test_the_circle_of_length_one_is_drawn_where_all_lie_on_it(figure_of):
    on_it = np.array([[0.6, 0.8], [1.0, 0.0]])
    assert [p.get_radius() for p in figure_of(vectors_in_plane, on_it, list("ab")).axes[0].patches] == [1.0]
    assert not figure_of(vectors_in_plane, 1.1 * on_it, list("ab")).axes[0].patches
    assert not figure_of(vectors_in_plane, on_it, list("ab"), targets=2 * on_it).axes[0].patches


def test_groups_differ_in_shape_and_are_named(figure_of):
    axes = figure_of(vectors_in_plane, star(6, 0), list("abcdef"), groups=["food", "$town$"] * 3).axes[0]
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["food", "$town$"]
    shapes = [line.get_marker() for line in axes.lines if line.get_marker() in SHAPES]
    assert shapes == ["o", "s"] * 3 and [line.get_marker() for line in legend.get_lines()] == ["o", "s"]
    assert len({tuple(pair) for pair in zip(LINE_COLOURS * 8, SHAPES * 7, strict=True)}) == 56


# ------------------------------------------------------------------------------------------------ curves


def drawn(axes):
    """Data of the curves, without pieces before names and lines to them."""
    return [line for line in axes.lines if line.get_transform() == axes.transData]


def named(axes):
    return [text for text in axes.texts if text.get_transform() == axes.transAxes]


def test_curves_are_what_was_given(figure_of):
    lines = {"b": ([3, 1, 2], [0.5, -1.0, 9.0]), "a": (np.arange(40), np.arange(40) ** 2)}
    axes = figure_of(curves, lines, **LABELS_AXES, levels={"zero": 0.0}).axes[0]
    for line, (x, y) in zip(drawn(axes), lines.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), x)
        np.testing.assert_array_equal(line.get_ydata(), y)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss")
    assert [text.get_text() for text in named(axes)] == ["b", "a", "zero"]
    levels = [line.get_ydata() for line in axes.lines if line.get_transform() == axes.get_yaxis_transform(which="grid")]
    assert [list(y) for y in levels] == [[0.0, 0.0]]


@pytest.mark.parametrize("count", [1, 2, 9, 40])
@pytest.mark.parametrize("log_y", [False, True])
def test_names_at_the_ends_do_not_overlap(count, log_y, figure_of):
    ends = np.random.default_rng(count).uniform(1.0, 1.01, count)
    lines = {f"curve {i}": ([1, 2, 3], [1.0, 5.0, end]) for i, end in enumerate(ends)}
    figure = figure_of(curves, lines, **LABELS_AXES, log_y=log_y, levels={"level": 1.005})
    axes = figure.axes[0]
    extents = boxes(figure, named(axes))
    assert not overlapping(extents) and len(extents) == count + 1
    assert (extents[:, 0] > axes.bbox.x1).all()  # they cover no curve
    heights = [text.get_position()[1] for text in named(axes)]
    assert np.array_equal(np.argsort(heights), np.argsort([*ends, 1.005]))  # in the order of the ends
    assert min(heights) >= 0 and max(heights) <= 1
    assert not overlapping(boxes(figure, every_text(figure)))


def test_a_name_stands_where_its_curve_ends(figure_of):
    axes = figure_of(curves, {"low": ([0, 1], [5, 0]), "high": ([0, 1], [0, 10])}, **LABELS_AXES).axes[0]
    ends = axes.transAxes.inverted().transform(axes.transData.transform([[1, 0], [1, 10]]))
    np.testing.assert_allclose([text.get_position()[1] for text in named(axes)], ends[:, 1], atol=1e-9)


def test_curves_differ_without_colour(matplotlib):
    looks = [(str(_look(i)["linestyle"]), _look(i)["marker"]) for i in range(40)]
    assert len(set(looks)) == 40
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in itertools.pairwise(looks))
    assert all(lightness(colour) < 75 for colour in LINE_COLOURS)  # seen on white


def test_many_points_do_not_all_have_marks(figure_of):
    many = {"many": (np.arange(500), np.arange(500)), "few": (np.arange(5), np.arange(5))}
    first, second = drawn(figure_of(curves, many, **LABELS_AXES).axes[0])
    assert first.get_markevery() == 50 and second.get_markevery() == 1


def test_logarithmic_axes_and_exact_zeros(figure_of):
    lines = {"float32": ([1, 10, 100], [0.0, 1e-7, 2e-7]), "float64": ([1, 10, 100], [0.0, 0.0, 1e-15])}
    axes = figure_of(curves, lines, **LABELS_AXES, log_y=True, log_x=True).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert head(axes)[0] == "a triangle at the lower edge stands for exactly 0, which has no logarithm"
    triangles = [line for line in axes.lines if line.get_transform() == axes.get_xaxis_transform()]
    assert [line.get_xdata().tolist() for line in triangles] == [[1.0], [1.0, 10.0]]
    assert triangles[0].get_markersize() > triangles[1].get_markersize()  # the first is seen around the second
    np.testing.assert_array_equal(drawn(axes)[0].get_ydata(), [np.nan, 1e-7, 2e-7])
    assert axes.get_xlim()[0] < 1 and axes.get_ylim()[0] < 1e-15
    linear = figure_of(curves, lines, **LABELS_AXES).axes[0]
    assert head(linear) == ["a title"] and drawn(linear)[0].get_ydata()[0] == 0.0
    figure_of(curves, {"nothing": ([1, 2], [0.0, 0.0])}, **LABELS_AXES, log_y=True)


def test_whole_steps_have_whole_ticks(figure_of):
    axes = figure_of(curves, {"loss": ([0, 1, 2, 3], [1, 2, 3, 4])}, **LABELS_AXES).axes[0]
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    figure_of(curves, {"one point": ([1.5], [2.0])}, **LABELS_AXES)


# ------------------------------------------------------------------------------------------------ bars


def test_bars_are_what_was_given(figure_of):
    values = {"mean": 82.03, "nothing": 0.0, "max": -20.3}
    axes = figure_of(bars, values, value_label="Spearman x 100", intervals={"mean": (80, 84), "max": (-30, -10)}).axes[
        0
    ]
    assert [bar.get_width() for bar in axes.patches] == [82.03, 0.0, -20.3]
    assert [bar.get_x() for bar in axes.patches] == [0.0] * 3  # a bar begins at 0
    assert [label.get_text() for label in axes.get_yticklabels()] == list(values)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first is the uppermost
    assert [bool(bar.get_hatch()) for bar in axes.patches] == [False, False, True]  # negative without colour
    numbers = [text.get_text() for text in axes.texts if text.get_text()]
    assert numbers[:3] == ["82.03", "0.00", "\N{MINUS SIGN}20.30"]
    whiskers = [segment for lines in axes.collections for segment in lines.get_segments()]
    assert {tuple(round(x, 9) for x in whisker[:, 0]) for whisker in whiskers} == {(80, 84), (-30, -10)}
    assert axes.get_xlabel() == "Spearman x 100"


@pytest.mark.parametrize(
    "values", [[1.0], [0.0], [-1.0, -2.0], [1e-9, -1e-9], [1e12, 1.0], [5.0, -0.001], list(range(-20, 20))]
)
def test_numbers_stand_beyond_their_bars_and_inside(values, figure_of):
    named_values = {f"bar {i}": value for i, value in enumerate(values)}
    wide = {name: (value - 0.3 * abs(value), value + 0.3 * abs(value)) for name, value in named_values.items()}
    for intervals in ({}, wide):
        figure = figure_of(bars, named_values, intervals=intervals, number_format="{:.3g}", title="bars")
        axes = figure.axes[0]
        numbers = [text for text in axes.texts if text.get_text() and text.get_fontsize() < 10]
        extents = boxes(figure, numbers)
        assert len(numbers) == len(values)
        assert (extents[:, 0] > axes.bbox.x0).all() and (extents[:, 2] < axes.bbox.x1).all()
        ends = [intervals.get(name, (value, value)) for name, value in named_values.items()]
        for (low, high), value, box in zip(ends, values, extents, strict=True):
            right, left = (axes.transData.transform((x, 0))[0] for x in (high, low))
            assert box[0] > right if value >= 0 else box[2] < left
        assert not overlapping(boxes(figure, every_text(figure)))


def test_a_hundred_bars_leave_names_out(figure_of):
    figure = figure_of(bars, {f"bar {i}": i for i in range(100)})
    assert not overlapping(boxes(figure, every_text(figure)))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:2] == ["bar 0", "bar 2"]


# ------------------------------------------------------------------------------------------------ refused


NAN = float("nan")
REFUSED = [
    (similarity_matrix, (np.ones((2, 3)), ["a", "b"]), {}, "use heat_map"),
    (similarity_matrix, (np.ones((2, 2)), ["a"]), {}, "got (2, 2) and 1 texts"),
    (similarity_matrix, (np.ones((0, 0)), []), {}, "at least one"),
    (similarity_matrix, ([[1.0, NAN], [0.0, 1.0]], ["a", "b"]), {}, "got nan at (0, 1); a zero vector?"),
    (attention_heads, (some_probs(5, 5), TOKENS), {}, "one head (T, T) is probs[None]"),
    (attention_heads, (some_probs(1, 5, 5), TOKENS[:4]), {}, "got (1, 5, 5) and 4 tokens"),
    (attention_heads, (np.ones((0, 5, 5)), TOKENS), {}, "got (0, 5, 5)"),
    (attention_heads, (np.full((1, 1, 1), -0.5), ["a"]), {}, "got -0.5 at (0, 0, 0); are these scores"),
    (attention_heads, (np.full((1, 1, 1), NAN), ["a"]), {}, "got nan at (0, 0, 0)"),
    (attention_heads, (np.full((1, 1, 1), 1.1), ["a"]), {}, "got 1.1"),
    (vectors_in_plane, (np.ones((2, 3)), ["a", "b"]), {}, "project vectors of more dimensions"),
    (vectors_in_plane, (np.ones((2, 2)), ["a"]), {}, "got (2, 2) and 1 labels"),
    (vectors_in_plane, (np.ones((0, 2)), []), {}, "n >= 1"),
    (vectors_in_plane, ([[1.0, NAN]], ["a"]), {}, "points must be finite numbers, got nan at (0, 1)"),
    (vectors_in_plane, ([[1.0, 1.0]], ["a"]), {"targets": [[1.0, np.inf]]}, "targets must be finite numbers, got inf"),
    (vectors_in_plane, ([[1.0, 1.0]], ["a"]), {"targets": np.ones((2, 2))}, "expected targets (n, 2)"),
    (vectors_in_plane, ([[1.0, 1.0]], ["a"]), {"groups": ["a", "b"]}, "expected 1 groups, one per point, got 2"),
    (curves, ({},), LABELS_AXES, "at least one curve"),
    (curves, ({"a": [1.0, 2.0, 3.0]},), LABELS_AXES, "is x missing?"),
    (curves, ({"a": ([1, 2], [1.0])},), LABELS_AXES, "got (2,) and (1,)"),
    (curves, ({"a": ([], [])},), LABELS_AXES, "n >= 1"),
    (curves, ({"a": ([1, 2], [1.0, NAN])},), LABELS_AXES, "y of 'a' must be finite numbers, got nan at 1"),
    (curves, ({"a": ([0, 1], [1, 2])},), {**LABELS_AXES, "log_x": True}, "x of 'a' must be positive numbers"),
    (curves, ({"a": ([0, 1], [1, -2])},), {**LABELS_AXES, "log_y": True}, "got -2 at 1"),
    (curves, ({"a": ([0], [1])},), {**LABELS_AXES, "levels": {"b": NAN}}, "level 'b' must be a finite number"),
    (curves, ({"a": ([0], [1])},), {**LABELS_AXES, "levels": [0.0], "log_y": True}, "must be positive"),
    (bars, ({},), {}, "at least one bar"),
    (bars, ({"a": NAN},), {}, "got nan for 'a'"),
    (bars, ({"a": 1.0},), {"intervals": {"b": (0, 1)}}, "given for 'b', which has no bar"),
    (bars, ({"a": 82.0},), {"intervals": {"a": (1.2, 1.3)}}, "are these distances from it"),
    (bars, ({"a": 1.0},), {"intervals": {"a": (NAN, 2.0)}}, "got (nan, 2)"),
]


@pytest.mark.parametrize(("draw", "arguments", "options", "words"), REFUSED)
def test_what_cannot_be_drawn_is_refused(draw, arguments, options, words):
    stream = io.BytesIO()
    with pytest.raises(ValueError) as caught:
        draw(stream, *arguments, title="", **options)
    assert str(caught.value).startswith(f"{draw.__name__}: ") and words in str(caught.value)
    assert stream.getvalue() == b""


def test_no_argument_is_changed(matplotlib):
    points, probs = star(4, 0), some_probs(2, 5, 5)
    before = points.copy(), probs.copy()
    picture(vectors_in_plane, points, list("abcd"), title="", targets=points)
    picture(attention_heads, probs, TOKENS, title="")
    x = np.array([0.0, 1.0])
    picture(curves, {"a": (x, x)}, **LABELS_AXES, title="", log_y=True)
    np.testing.assert_array_equal(points, before[0])
    np.testing.assert_array_equal(probs, before[1])
    np.testing.assert_array_equal(x, [0.0, 1.0])


# ------------------------------------------------------------------------------------------------ placing


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=12), st.floats(0.01, 2.0))
def test_numbers_are_spread_as_little_as_possible(wanted, gap):
    wanted = np.array(wanted)
    places = spread(wanted, gap, 0.0, 10.0)
    order = np.argsort(wanted, kind="stable")
    room = min(gap, 10.0 / max(len(wanted) - 1, 1))
    assert (np.diff(places[order]) >= room - 1e-9).all()  # rounding of numbers up to 10
    assert places.min() >= -1e-9 and places.max() <= 10 + 1e-9
    # no other arrangement is nearer: the slope towards any is not downhill (a convex problem)
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = np.empty_like(places)
        other[order] = np.sort(rng.uniform(0, 10 - room * (len(wanted) - 1), len(wanted))) + room * np.arange(
            len(wanted)
        )
        assert (places - wanted) @ (other - places) >= -1e-7


def test_spreading_edges():
    assert spread(np.zeros(0), 1.0, 0.0, 1.0).shape == (0,)
    np.testing.assert_allclose(spread(np.array([0.5] * 5), 1.0, 0.0, 1.0), np.linspace(0, 1, 5))  # too little room
    assert spread(np.array([3.0]), 1.0, 0.0, 1.0).tolist() == [1.0]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 25))
def test_labels_never_overlap(seed, count):
    rng = np.random.default_rng(seed)
    anchors = rng.uniform(0, 400, (count, 2))
    sizes = rng.uniform((20, 8), (120, 16), (count, 2))
    places = place_labels(anchors, rng.standard_normal((count, 2)), sizes, (400.0, 400.0), anchors, np.ones(count), 4.0)
    boxes_ = [np.concatenate([p - s / 2, p + s / 2]) for p, s in zip(places, sizes, strict=True) if p is not None]
    assert boxes_ and not overlapping(np.array(boxes_))
    assert (np.array(boxes_) >= -1e-9).all() and (np.array(boxes_) <= 400 + 1e-9).all()


def test_a_label_stands_in_its_direction_and_avoids_what_is_there():
    anchor, size, bounds = np.array([[100.0, 100.0]]), np.array([[40.0, 10.0]]), (200.0, 200.0)
    for way, expected in (([1, 0], [124, 100]), ([0, -3], [100, 91]), ([0, 0], [124, 100])):
        (place,) = place_labels(anchor, np.array([way]), size, bounds, np.zeros((0, 2)), np.zeros(0), 4.0)
        np.testing.assert_allclose(place, expected)
    blocked = np.array([[124.0, 100.0]])
    (place,) = place_labels(anchor, np.array([[1.0, 0.0]]), size, bounds, blocked, np.array([5.0]), 4.0)
    assert (np.abs(place - blocked[0]) >= size[0] / 2).any()
    (place,) = place_labels(anchor, np.array([[1.0, 0.0]]), size, bounds, blocked, np.array([0.0]), 4.0)
    np.testing.assert_allclose(place, [124, 100])


def test_the_width_of_a_text_is_not_guessed_too_small(figure_of):
    for text in ("soup is my favorite", "[CLS]", "##ation", "汁物", "0.12"):
        figure = figure_of(bars, {text: 1.0})
        ((left, _, right, _),) = boxes(figure, figure.axes[0].get_yticklabels())
        assert (right - left) / DPI < 1.05 * inches(text)
