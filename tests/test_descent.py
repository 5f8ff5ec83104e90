"""Descent that can be watched: arrows are minus the gradient, what should fall falls, pictures show just that."""

import io
import sys
from itertools import pairwise

import numpy as np
import pytest

from minisbert.similarity import cos_sim
from minisbert.training.descent import SENTENCE_PAIRS, alignment, descend, make_points, uniformity
from minisbert.training.losses import multiple_negatives_ranking

GRADIENT_BOUND = 3e-9  # measured 2.9e-10 relative, for centred differences in float64; times 10


def rng(seed=0):
    return np.random.default_rng(seed)


def pairs_of_width(width, count=5, seed=0):
    return rng(seed).standard_normal((2, count, width))


def info_nce(anchors, positives, scale):
    """The loss, written anew from its formula."""
    scores = scale * cos_sim(anchors, positives)
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - np.diagonal(scores)))


def differences(function, x, step=1e-5):
    """Centred differences by every entry of x."""
    slopes = np.empty_like(x)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        slopes[place] = (function(up) - function(down)) / (2 * step)
    return slopes


# ------------------------------------------------------------------------------------------------------ geometry


def test_alignment_by_hand():
    assert alignment([[3, 4]], [[0.6, 0.8]]) == pytest.approx(0, abs=1e-15)
    assert alignment([[1, 0], [1, 0]], [[0, 5], [-2, 0]]) == pytest.approx((2 + 4) / 2, rel=1e-15)
    assert alignment([[1, 0], [1, 0]], [[0, 5], [-2, 0]], alpha=1) == pytest.approx((2**0.5 + 2) / 2, rel=1e-15)
    a, b = pairs_of_width(7)
    cosines = np.diagonal(cos_sim(a, b))
    assert alignment(a, b) == pytest.approx(np.mean(2 - 2 * cosines), rel=1e-14)
    assert alignment(a, b) == pytest.approx(alignment(1e200 * a, 1e-200 * b), rel=1e-14)  # directions alone count


def test_uniformity_by_hand():
    assert uniformity([[1, 0], [9, 0], [4, 0]]) == 0.0
    square = [[1, 0], [0, 2], [-3, 0], [0, -4]]  # four pairs at distance^2 2, two at 4
    for t in (2.0, 0.5):
        expected = np.log((4 * np.exp(-2 * t) + 2 * np.exp(-4 * t)) / 6)
        assert uniformity(square, t) == pytest.approx(expected, rel=1e-14)
    assert uniformity([[1, 0], [-1, 0]], t=1000) == -4000.0  # exp(-4000) is 0 in float64; the logarithm is not lost
    x = pairs_of_width(3)[0]
    assert uniformity(x) == pytest.approx(uniformity(x[::-1] * [[1], [2], [3], [1e150], [1e-150]]), rel=1e-14)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: alignment([[1, 0]], [[1, 0], [0, 1]]), r"alignment: .*\(1, 2\)"),
        (lambda: alignment(np.empty((0, 2)), np.empty((0, 2))), "alignment: a .*at least 1"),
        (lambda: alignment([[1, 0]], [[0, 0]]), "b: row 0"),
        (lambda: alignment([[1, 0]], [[1, 0]], alpha=0), "alpha"),
        (lambda: uniformity([[1, 0]]), "uniformity: x"),
        (lambda: uniformity([1, 0]), r"\(2,\)"),
        (lambda: uniformity([[1, 0], [np.nan, 1]]), "NaN"),
        (lambda: uniformity([[1, 0], [0, 1]], t=float("inf")), "t must"),
        (lambda: descend(np.ones((1, 2)), np.ones((1, 2))), "at least 2"),
        (lambda: descend(np.eye(2), np.ones((3, 2))), r"\(3, 2\)"),
        (lambda: descend(np.eye(2), [[1.0, 0], [0, 0]]), "positives"),
        (lambda: descend([[1.0, np.inf], [0, 1]], np.ones((2, 2))), "anchors"),
        (lambda: descend(np.eye(2), np.ones((2, 2)), steps=-1), "steps .*-1"),
        (lambda: descend(np.eye(2), np.ones((2, 2)), learning_rate=0.0), "learning_rate .*0.0"),
        (lambda: descend(np.eye(2), np.ones((2, 2)), scale=-1), "scale"),
        (lambda: descend(np.eye(2), [[1.0, 0.5], [0.9, 1.0]], learning_rate=1e200), "diverge"),
        (lambda: make_points(1, rng()), "pairs .*1"),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ------------------------------------------------------------------------------------------------------- descent


@pytest.mark.parametrize(("width", "scale"), [(2, 20.0), (7, 5.0)])
def test_arrows_are_minus_the_slopes_of_the_loss(width, scale):
    seen = descend(*(make_points(5, rng()) if width == 2 else pairs_of_width(width)), steps=3, scale=scale)
    for step in range(4):
        a, p = seen.anchors[step], seen.positives[step]
        assert seen.loss[step] == pytest.approx(info_nce(a, p, scale), rel=1e-12)
        by_a = differences(lambda x, p=p: info_nce(x, p, scale), a)
        by_p = differences(lambda x, a=a: info_nce(a, x, scale), p)
        for arrows, slopes in ((seen.d_anchors[step], by_a), (seen.d_positives[step], by_p)):
            assert np.abs(arrows - slopes).max() <= GRADIENT_BOUND * max(np.abs(slopes).max(), 1.0)
            points = a if slopes is by_a else p
            along = (arrows * points).sum(axis=1)  # at right angles: a point can only be turned
            assert np.abs(along).max() <= 2e-15 * scale  # measured 8e-17; times 20


def test_a_step_goes_against_the_gradient():
    seen = descend(*make_points(4, rng(3)), steps=5, learning_rate=0.3, scale=4.0)
    assert seen.steps == 5 and seen.anchors.shape == seen.d_positives.shape == (6, 4, 2)
    for points, slopes in ((seen.anchors, seen.d_anchors), (seen.positives, seen.d_positives)):
        np.testing.assert_array_equal(points[1:], points[:-1] - 0.3 * slopes[:-1])
        assert (np.diff(np.linalg.norm(points, axis=2), axis=0) > -1e-15).all()  # longer, never shorter
    last = multiple_negatives_ranking(seen.anchors[-1], seen.positives[-1], scale=4.0)
    assert seen.loss[-1] == last.value
    np.testing.assert_array_equal(seen.d_anchors[-1], last.gradients[0])


def test_loss_alignment_and_uniformity_fall():
    seen = descend(*make_points(6, rng()))
    assert (np.diff(seen.loss) < 0).all()  # at every step
    assert seen.loss[-1] < 0.1 * seen.loss[0]
    assert seen.alignment[-1] < 0.05 * seen.alignment[0]
    assert seen.uniformity[-1] < seen.uniformity[0] - 1
    assert seen.found(0) < seen.found(-1) == 6
    assert seen.positive_cosine[-1] > 0.95 > 0 > seen.negative_cosine[-1]


# -------------------------------------------------------------------------------------------------------- picture


def descents(pairs=6, steps=7):
    return descend(*make_points(pairs, rng()), steps=steps), descend(*pairs_of_width(9, count=8), steps=steps)


@pytest.fixture
def figures(matplotlib, monkeypatch):
    """The figures that are drawn."""
    from matplotlib.figure import Figure

    drawn = []
    draw = Figure.draw

    def watched(figure, *arguments, **options):
        drawn.append(figure)
        return draw(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "draw", watched)
    return drawn


def panels(figure):
    """What the titles begin with, and the panels, in the order in which they are drawn."""
    from matplotlib.axes import Axes

    return [(axes.get_title(loc="left").split(":")[0], axes) for axes in figure.findobj(Axes)]


def numbers_in(axes):
    return [float(text.get_text().replace("\N{MINUS SIGN}", "-")) for text in axes.texts]


def test_the_picture_shows_points_arrows_and_cosines(figures):
    from minisbert.training.descent_picture import MARK, draw_picture

    plane, text = descents()
    stream = io.BytesIO()
    draw_picture(stream, plane, text, SENTENCE_PAIRS)
    assert stream.getvalue().startswith(b"\x89PNG")
    shown = panels(figures[-1])
    titles = [title for title, _ in shown]
    assert (
        titles.count("step 0")
        == titles.count("step 7")
        == titles.count("sentence vectors on two principal components")
        == 1
    )
    start = dict(shown)["step 0"]
    (quiver,) = [artist for artist in start.collections if hasattr(artist, "U")]
    arrows = np.stack([quiver.U, quiver.V], axis=1)
    slopes = np.concatenate([plane.d_anchors[0], plane.d_positives[0]])
    points = np.concatenate([plane.anchors[0], plane.positives[0]])
    np.testing.assert_allclose(np.diagonal(cos_sim(arrows, -slopes)), 1.0, rtol=1e-12)  # against the gradient
    squares = (arrows**2).sum(axis=1) / np.linalg.norm(slopes, axis=1)  # lengths grow with the root
    np.testing.assert_allclose(squares, squares[0], rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(quiver.XY - points, axis=1), MARK, rtol=1e-12)
    assert sorted(text.get_text() for text in start.texts) == sorted(2 * list("123456"))
    for step in (0, 7):
        matrices = [numbers_in(axes) for title, axes in shown if title == f"cosines at step {step}"]
        assert [len(written) for written in matrices] == [36, 64]
        for written, seen in zip(matrices, (plane, text), strict=True):
            np.testing.assert_allclose(written, seen.similarities(step).ravel(), rtol=0, atol=0.00501)


def test_the_film_has_a_frame_for_each_step(matplotlib):
    from PIL import Image

    from minisbert.training.descent_picture import FRAME_MILLISECONDS, LAST_MILLISECONDS, draw_animation

    plane, text = descents(pairs=3, steps=2)
    stream, seen = io.BytesIO(), []
    shown = draw_animation(stream, plane, text, progress=seen.append)
    assert shown == [0, 1, 2] and seen == [1] * 3
    film = Image.open(stream)
    assert film.format == "GIF" and film.n_frames == 3 and film.info["loop"] == 0
    times, pictures = [], []
    for frame in range(3):
        film.seek(frame)
        times.append(film.info["duration"])
        pictures.append(np.asarray(film.convert("RGB")))
    assert times == [FRAME_MILLISECONDS] * 2 + [LAST_MILLISECONDS]
    assert all((one != other).any() for one, other in pairwise(pictures))
    # nothing trembles: in the first column of panels the frame around the points stays where it is
    assert len({np.flatnonzero((picture < 60).all(axis=(2,)).sum(axis=0) > 200)[0] for picture in pictures}) == 1


def test_pictures_refuse_what_they_cannot_show(matplotlib, monkeypatch):
    from minisbert.training.descent_picture import draw_animation, draw_picture

    plane, text = descents(steps=1)
    stream = io.BytesIO()
    with pytest.raises(ValueError, match="2 coordinates, got 9"):
        draw_picture(stream, text)
    with pytest.raises(ValueError, match="text 2"):
        draw_animation(stream, plane, descents(steps=2)[1])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (draw_picture, draw_animation):
        with pytest.raises(ValueError, match="matplotlib"):
            draw(stream, plane)
    assert stream.getvalue() == b""
