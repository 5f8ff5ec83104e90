"""Heat maps: any text without a warning, bounded size, colours that can be read in black and white."""

import io
import sys

import numpy as np
import pytest

from minisbert.plots import heat_map, require_matplotlib, style

LABELS = ["好き 👩‍🍳 été", "$x_1$ and $", "\\frac{", "ไทย عربي", "", " ", "a\nb\x00\u202e\ue000", "x" * 5000]


def draw(values, **options):
    values = np.asarray(values)
    names = {"rows": [f"r{i}" for i in range(len(values))], "columns": [f"c{i}" for i in range(values.shape[-1])]}
    stream = io.BytesIO()
    heat_map(stream, values, **{**names, "title": "a title", **options})
    return stream.getvalue()


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

    def one(values, **options):
        assert draw(values, **options).startswith(b"\x89PNG")
        return drawn.pop()

    return one


def pixels(png):
    return tuple(int.from_bytes(png[16 + 4 * i : 20 + 4 * i], "big") for i in range(2))


def lightness(colours):
    """CIE L*, 0 black to 100 white."""
    colours = np.asarray(colours)[:, :3]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


def test_any_text_is_drawn_without_a_warning(matplotlib):
    values = np.linspace(-1, 1, 64).reshape(8, 8)
    for text in LABELS:
        draw(values, rows=LABELS, columns=LABELS[::-1], title=text, caption=f"{text}\n{text}", diverging=True)


def test_what_no_font_has_becomes_a_box_that_is_explained(picture):
    figure = picture([[1.0]], rows=["soup \U0010fffd"], columns=["été"], caption="first\nsecond")
    axes = figure.axes[0]
    assert axes.get_yticklabels()[0].get_text() == "soup □" and axes.get_xticklabels()[0].get_text() == "été"
    written = [text.get_text() for text in axes.texts]
    assert {"first", "second", "a title", "□ is a character that no installed font has"} <= set(written)


def test_dollars_are_no_mathematics(picture):
    figure = picture([[1.0]], rows=["$5 and $6"], columns=["$x$"], title="$y$")
    texts = [*figure.axes[0].get_yticklabels(), *figure.axes[0].get_xticklabels(), *figure.axes[0].texts]
    assert [text.get_text() for text in texts if text.get_parse_math()] == []


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 40), (40, 1), (7, 6), (30, 25), (300, 200)])
def test_the_size_grows_and_is_bounded(rows, columns, matplotlib):
    width, height = pixels(draw(np.random.default_rng(0).standard_normal((rows, columns)), diverging=True))
    assert width < 1900 and height < 1700
    assert width >= min(1500, 55 * columns) and height >= min(1200, 40 * rows)


def test_numbers_are_written_where_there_is_room(picture):
    few = picture(np.full((3, 4), -0.001), diverging=True, number_format="{:.2f}")
    assert [text.get_text() for text in few.axes[0].texts[:12]] == ["0.00"] * 12  # no zero with a minus sign
    assert few.axes[0].collections == [] or len(few.axes[0].collections) == 0
    negative = picture([[-0.25]], diverging=True)
    assert negative.axes[0].texts[0].get_text() == "\N{MINUS SIGN}0.25"
    many = picture(np.ones((80, 60)))
    assert [text.get_text() for text in many.axes[0].texts] == ["a title"]


def test_sign_is_seen_without_colour(picture):
    values = np.ones((80, 60))
    values[3, 5], values[7, 1] = -1, -0.001
    axes = picture(values, diverging=True).axes[0]
    (dashes,) = axes.collections
    assert dashes.get_offsets().tolist() == [[5, 3]]  # what is hardly negative has none
    assert "cells with a dash are negative" in [text.get_text() for text in axes.texts]


def test_colours_are_told_apart_by_lightness(matplotlib):
    steps = np.linspace(0, 1, 101)
    sequential = lightness(style.colour_map(False)(steps))
    assert (np.diff(sequential) < 0).all() and sequential[0] - sequential[-1] > 60
    diverging = lightness(style.colour_map(True)(steps))
    assert (np.diff(diverging[:51]) > 0).all() and (np.diff(diverging[50:]) < 0).all()
    assert abs(diverging[0] - diverging[-1]) > 35 and diverging[50] > 95
    for half in (diverging[:51], diverging[50:]):  # even steps, nearly
        rises = np.abs(np.diff(half))
        assert rises.max() < 3 * rises.min()


def test_numbers_contrast_with_their_cells():
    colours = np.random.default_rng(0).uniform(size=(1000, 4))
    light = ((lightness(colours) + 16) / 116) ** 3
    for luminance, text in zip(light, style.contrasting(colours), strict=True):
        contrast = (luminance + 0.05) / 0.05 if text == "black" else 1.05 / (luminance + 0.05)
        assert contrast > 4.5


def test_zero_is_white_and_ranges_are_obeyed(picture):
    image = picture([[0.5, -0.1]], diverging=True).axes[0].images[0]
    assert image.get_clim() == (-0.5, 0.5)
    figure = picture([[0.5, -0.1]], value_range=(0.0, 1.0))
    assert figure.axes[0].images[0].get_clim() == (0.0, 1.0)
    assert figure.axes[0].images[0].colorbar.extend == "min"
    assert picture([[2.0, 2.0]]).axes[0].images[0].get_clim() == (1.5, 2.5)


def test_a_cell_without_a_number_says_so(picture):
    axes = picture([[1.0, np.nan, 3.0]]).axes[0]
    assert [text.get_text() for text in axes.texts[:3]] == ["1.00", "none", "3.00"]
    image = axes.images[0]
    assert image.get_clim() == (1.0, 3.0)
    np.testing.assert_allclose(image.to_rgba(image.get_array())[0, 1], [0.85, 0.85, 0.85, 1.0], atol=0.01)


def test_a_marked_cell_is_framed(picture):
    patches = picture(np.eye(3), marked=(2, 1)).axes[0].patches
    assert [patch.get_xy() for patch in patches] == [(0.5, 1.5)] * 2


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        ([1.0, 2.0], {"columns": ["a", "b"]}, "got (2,), 2 and 2"),
        (np.ones((2, 3)), {"rows": list("abc"), "columns": list("ab")}, "rows and columns swapped"),
        (np.ones((0, 3)), {}, "at least one cell"),
        ([[np.nan, np.nan]], {}, "got nan at (0, 0)"),
        ([[1.0]], {"value_range": (1, 1)}, "low < high, got (1, 1)"),
        ([[1.0]], {"marked": (0, 1)}, "got (0, 1)"),
    ],
)
def test_what_is_no_matrix_with_its_labels(values, options, words, matplotlib):
    with pytest.raises(ValueError) as caught:
        draw(values, **options)
    assert str(caught.value).startswith("heat_map: ") and words in str(caught.value)


def test_without_matplotlib_there_is_a_command_to_type(monkeypatch):
    monkeypatch.setattr("minisbert.plots.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"need matplotlib: pip install -e '.\[plots\]'"):
        require_matplotlib()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match="need matplotlib"):
        heat_map(io.BytesIO(), np.eye(1), ["a"], ["b"], title="")
