"""Descent that can be watched: a step goes against the gradient, what should fall falls, pictures show just that.

That the gradient of InfoNCE is right is in `test_mutants.py`.
"""

import io

import numpy as np
import pytest

from minisbert.similarity import cos_sim
from minisbert.training.descent import SENTENCE_PAIRS, alignment, descend, make_points, uniformity
from minisbert.training.losses import multiple_negatives_ranking


def rng(seed=0):
    return np.random.default_rng(seed)


def pairs_of_width(width, count=5):
    return rng().standard_normal((2, count, width))


def test_alignment_and_uniformity_by_hand():
    assert alignment([[3, 4]], [[0.6, 0.8]]) == pytest.approx(0, abs=1e-15)
    assert alignment([[1, 0], [1, 0]], [[0, 5], [-2, 0]]) == pytest.approx((2 + 4) / 2, rel=1e-15)
    a, b = pairs_of_width(7)
    assert alignment(1e200 * a, 1e-200 * b) == pytest.approx(np.mean(2 - 2 * np.diagonal(cos_sim(a, b))), rel=1e-14)
    assert uniformity([[1, 0], [9, 0], [4, 0]]) == 0.0
    square = [[1, 0], [0, 2], [-3, 0], [0, -4]]  # four pairs at distance^2 2, two at 4
    assert uniformity(square) == pytest.approx(np.log((4 * np.exp(-4) + 2 * np.exp(-8)) / 6), rel=1e-14)
    assert uniformity(a) == pytest.approx(uniformity(a[::-1] * [[1], [2], [3], [1e150], [1e-150]]), rel=1e-14)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: alignment([[1, 0]], [[1, 0], [0, 1]]), r"alignment: .*\(1, 2\)"),
        (lambda: alignment([[1, 0]], [[0, 0]]), "b .*row 0"),
        (lambda: uniformity([[1, 0]]), "uniformity: x .*2"),
        (lambda: descend(np.eye(2), np.ones((3, 2))), r"\(3, 2\)"),
        (lambda: descend(np.eye(2), np.ones((2, 2)), steps=-1), "steps .*-1"),
        (lambda: descend(np.eye(2), [[1.0, 0.5], [0.9, 1.0]], learning_rate=1e200), "diverge"),
        (lambda: make_points(1, rng()), "pairs .*1"),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_step_goes_against_the_gradient():
    for points in (make_points(4, rng(3)), pairs_of_width(7)):
        seen = descend(*points, steps=5, learning_rate=0.3, scale=4.0)
        assert seen.steps == 5 and seen.anchors.shape == seen.d_positives.shape == (6, *points[0].shape)
        for points, slopes in ((seen.anchors, seen.d_anchors), (seen.positives, seen.d_positives)):
            np.testing.assert_array_equal(points[1:], points[:-1] - 0.3 * slopes[:-1])
            assert (np.diff(np.linalg.norm(points, axis=2), axis=0) > -1e-15).all()  # longer, never shorter
            # at right angles: a point can only be turned. Measured 8e-17; times 20
            assert np.abs((points * slopes).sum(axis=2)).max() <= 8e-15
        for i, (a, p) in enumerate(zip(seen.anchors, seen.positives, strict=True)):
            wanted = multiple_negatives_ranking(a, p, scale=4.0)
            assert seen.loss[i] == wanted.value
            np.testing.assert_array_equal([seen.d_anchors[i], seen.d_positives[i]], wanted.gradients)


def test_loss_alignment_and_uniformity_fall():
    seen = descend(*make_points(6, rng()))
    assert (np.diff(seen.loss) < 0).all() and seen.loss[-1] < 0.1 * seen.loss[0]
    assert seen.alignment[-1] < 0.05 * seen.alignment[0] and seen.uniformity[-1] < seen.uniformity[0] - 1
    assert seen.found(0) < seen.found(-1) == 6 and seen.positive_cosine[-1] > 0.95 > 0 > seen.negative_cosine[-1]


# -------------------------------------------------------------------------------------------------------- picture


def test_the_picture_shows_points_and_arrows(matplotlib, monkeypatch):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from minisbert.training.descent_picture import MARK, draw_picture

    drawn, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda figure, *rest: (drawn.append(figure), draw(figure, *rest))[1])
    plane = descend(*make_points(6, rng()), steps=7)
    text = descend(*pairs_of_width(9, count=8), steps=7)
    stream = io.BytesIO()
    draw_picture(stream, plane, text, SENTENCE_PAIRS)
    shown = [(axes.get_title(loc="left").split(":")[0], axes) for axes in drawn[-1].findobj(Axes)]
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
