"""A descent as a picture: points with their gradients' arrows, cosines before and after, and what falls.

Anchors are dark circles, positives light squares, and each carries its pair's number, so nothing depends on colour.
Panels of one row share limits and the scale of arrows. Arrow lengths grow with the root of the gradient's, which falls
to a hundredth. matplotlib (extra ``plots``) is imported when something is drawn, pyplot never: it looks for a screen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from minisbert.model import Array
from minisbert.plots import require_matplotlib
from minisbert.plots.style import DIVERGING, DPI, colour_map, contrasting, written
from minisbert.training.descent import Descent

DARK, LIGHT = DIVERGING[-1], DIVERGING[1]  # anchors and positives
PALE = "0.55"
LONGEST_ARROW, MARK = 0.35, 0.08  # in data units: an arrow's at the start; half a mark's
FRAMES = 24  # at most; each takes some 0.3 s to draw
FRAME_MILLISECONDS, LAST_MILLISECONDS = 180, 2500
GIF_DPI = 100
WIDTH_INCHES, PLANE_INCHES, TEXT_INCHES, LINE_INCHES = 11.0, 8.4, 8.6, 0.19  # the picture and its parts
MEASURES = {"loss": "loss", "alignment": "alignment", "uniformity": "uniformity"}

Sentences = Sequence[tuple[str, str]]


def draw_picture(
    stream: IO[bytes], plane: Descent, text: Descent | None = None, sentences: Sentences | None = None
) -> None:
    """Draw a descent on the plane as a PNG, and below it one of sentence vectors.

    ``text`` is a descent of vectors of any width, seen on the plane of their first two principal components at the
    start; ``sentences`` are their texts, (anchor, positive) pairs.
    """
    _check(plane)
    from matplotlib.figure import Figure  # not pyplot: it looks for a screen

    listed = []
    if text is not None and sentences is not None:
        listed = [f"{i}   {anchor}   |   {positive}" for i, (anchor, positive) in enumerate(sentences, 1)]
    heights = [PLANE_INCHES] if text is None else [PLANE_INCHES, TEXT_INCHES + LINE_INCHES * len(listed)]
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights)))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_plane_part(parts[0], plane)
    if text is not None:
        _draw_text_part(parts[1], text, listed)
    figure.savefig(stream, format="png", dpi=DPI, facecolor="white")


def draw_animation(
    stream: IO[bytes],
    plane: Descent,
    text: Descent | None = None,
    *,
    progress: Callable[[int], object] | None = None,
) -> list[int]:
    """Draw a descent as an animated GIF of at most :data:`FRAMES` frames; the steps that are shown.

    ``plane`` and ``text``, which must have equally many steps, are those of :func:`draw_picture`; ``progress(1)`` is
    called after each frame.
    """
    _check(plane)
    if text is not None and text.steps != plane.steps:
        raise ValueError(f"draw_animation: plane has {plane.steps} steps and text {text.steps}; they must be equal")
    steps = frame_steps(plane.steps)
    frames = []
    for step in steps:
        frames.append(_frame(plane, text, step))
        if progress is not None:
            progress(1)
    times = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
    frames[0].save(stream, format="GIF", save_all=True, append_images=frames[1:], duration=times, loop=0, disposal=1)
    return steps


def frame_steps(steps: int) -> list[int]:
    """Choose the steps of an animation: at most :data:`FRAMES`, with the first and the last, denser at the start.

    >>> frame_steps(3), len(frame_steps(500)), frame_steps(500)[:4], frame_steps(500)[-1]
    ([0, 1, 2, 3], 24, [0, 5, 13, 24], 500)
    """
    places = np.linspace(0.0, 1.0, min(FRAMES, steps + 1)) ** (1.5 if steps + 1 > FRAMES else 1.0)
    return sorted({round(float(place) * steps) for place in places})


def _check(plane: Descent) -> None:
    require_matplotlib()
    if plane.anchors.shape[2] != 2:
        raise ValueError(
            f"draw: plane must be a descent of points with 2 coordinates, got {plane.anchors.shape[2]}; pass other "
            "vectors as text"
        )


def _draw_plane_part(part: Any, plane: Descent) -> None:
    """Draw start, middle and end, cosines before and after, and the measures."""
    _head(
        part,
        PLANE_INCHES,
        f"InfoNCE on {len(plane.anchors[0])} pairs of points on a plane",
        "Same number, same pair. An arrow is minus the gradient: the way the loss falls. So that small ones are seen, "
        "its length grows with the\nroot of the gradient's. Pairs come together, everybody else moves apart. "
        f"Scale {plane.scale:g}, learning rate {plane.learning_rate:g}.",
    )
    grid = part.add_gridspec(2, 3, **_margins(PLANE_INCHES, 1.25), wspace=0.18, hspace=0.24)
    for i, step in enumerate((0, _midway(plane), plane.steps)):
        _draw_points(part.add_subplot(grid[0, i]), plane, step, with_key=i == 0)
    for i, step in enumerate((0, plane.steps)):
        _draw_cosines(part.add_subplot(grid[1, i]), plane, step)
    _draw_measures(part, grid[1, 2], plane, plane.steps)


def _draw_text_part(part: Any, text: Descent, listed: list[str]) -> None:
    """Draw the paths of sentence vectors, their cosines before and after, and the sentences."""
    plane = _plane_of(text)
    height = TEXT_INCHES + LINE_INCHES * len(listed)
    _head(
        part,
        height,
        f"The same on {len(text.anchors[0])} pairs of real sentences",
        f"Their vectors, of width {text.anchors.shape[2]}, are the parameters. Seen on the plane of the first two "
        f"principal components at the start, which hold {100 * plane.share:.0f} %\nof its variance: much of the way is "
        f"out of sight. Scale {text.scale:g}, learning rate {text.learning_rate:g}.",
    )
    rest = 1 - LINE_INCHES * len(listed) / height
    grid = part.add_gridspec(2, 3, **_margins(height, 1.25), wspace=0.18, hspace=0.24)
    grid.update(bottom=1 - rest + 0.45 / height)
    _draw_ways(part.add_subplot(grid[:, :2]), text, plane)
    for i, step in enumerate((0, text.steps)):
        _draw_cosines(part.add_subplot(grid[i, 2]), text, step)
    for i, line in enumerate(listed):
        place = 1 - rest + (0.1 - LINE_INCHES * i) / height
        part.text(0.05, place, line, va="top", fontsize="small", parse_math=False)


def _head(part: Any, height: float, title: str, caption: str) -> None:
    """Write title and caption at the top of a part."""
    part.text(0.04, 1 - 0.2 / height, title, va="top", fontsize="large", weight="bold")
    part.text(0.04, 1 - 0.48 / height, caption, va="top", fontsize="small", color="0.3", linespacing=1.3)


def _margins(height: float, top: float) -> dict[str, float]:
    """Panel margins for a part of a given height in inches."""
    return {"left": 0.04, "right": 0.98, "top": 1 - top / height, "bottom": 0.5 / height}


def _frame(plane: Descent, text: Descent | None, step: int) -> Any:
    """Draw one frame of an animation, as a Pillow image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    rows = 1 if text is None else 2
    height = 1.0 + 3.7 * rows
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=GIF_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    title = f"InfoNCE, step {step} of {plane.steps}: pairs come together, everybody else moves apart"
    _head(figure, height, title, "Arrows: minus the gradient, lengths by its root. Same number, same pair.")
    grid = figure.add_gridspec(rows, 3, **_margins(height, 1.15), wspace=0.18, hspace=0.3)
    _draw_points(figure.add_subplot(grid[0, 0]), plane, step, with_key=True)
    _draw_cosines(figure.add_subplot(grid[0, 1]), plane, step)
    _draw_measures(figure, grid[0, 2], plane, step)
    if text is not None:
        _draw_moving(figure.add_subplot(grid[1, 0]), text, _plane_of(text), step)
        _draw_cosines(figure.add_subplot(grid[1, 1]), text, step)
        _draw_measures(figure, grid[1, 2], text, step)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64)


def _midway(seen: Descent) -> int:
    """Find the step at which three quarters of the loss are gone: partners meet, strangers are still near."""
    return int(np.abs(seen.loss - (seen.loss[0] + 3 * seen.loss[-1]) / 4).argmin())


def _plane_of(text: Descent) -> Plane:
    """The plane of the vectors at the start."""
    return lay_plane(np.concatenate([text.anchors[0], text.positives[0]]))


def _draw_points(axes: Any, seen: Descent, step: int, *, with_key: bool) -> None:
    """Draw 2-D points, numbered, with their arrows."""
    from matplotlib.patches import Circle

    arrows = -np.concatenate([seen.d_anchors, seen.d_positives], axis=1)  # (S, 2 B, 2)
    lengths = np.linalg.norm(arrows, axis=2, keepdims=True)  # (S, 2 B, 1)
    if longest := float(lengths[0].max()):
        points = np.concatenate([seen.anchors[step], seen.positives[step]])  # (2 B, 2)
        ways = arrows[step] / np.maximum(lengths[step], 1e-12 * longest)  # (2 B, 2) of length 1
        points = points + MARK * ways  # an arrow begins at the edge of its mark
        shown = LONGEST_ARROW * np.sqrt(lengths[step] / longest) * ways
        in_units = {"angles": "xy", "scale_units": "xy", "scale": 1}
        axes.quiver(*points.T, *shown.T, **in_units, width=0.009, color="0.25", minlength=0.3, zorder=3)
    for side, marker, colour, name in zip(
        (seen.anchors, seen.positives), "os", (DARK, LIGHT), ("anchor", "its positive"), strict=True
    ):
        radius = float(np.linalg.norm(side[0], axis=1).mean())
        axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor="0.85", linewidth=0.8, zorder=0))
        _draw_markers(axes, side[step], marker, colour, name)
    axes.plot(0, 0, "+", color=PALE, markersize=6)
    reach = 0.3 + max(float(np.linalg.norm(side, axis=2).max()) for side in (seen.anchors, seen.positives))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    steepest = float(lengths[step].max())
    axes.set_title(f"step {step}: loss {seen.loss[step]:.2f}, longest gradient {steepest:.2f}", loc="left", fontsize=9)
    if with_key:
        axes.legend(fontsize="small", loc="lower left", frameon=False, borderpad=0.1, handletextpad=0.2)


def _draw_markers(axes: Any, points: Array, marker: str, colour: str, name: str, size: float = 12.0) -> None:
    """Draw one side of the pairs, with a number in each mark."""
    from matplotlib.colors import to_rgba

    number_colour = contrasting(np.array([to_rgba(colour)]))[0]
    for i, (x, y) in enumerate(points.tolist(), 1):  # number with its mark: the next mark may cover both
        above = 4 + 0.01 * i
        axes.plot(
            x, y, marker, color=colour, markersize=size, markeredgecolor="black", markeredgewidth=0.8, zorder=above,
            label=name if i == 1 else None,
        )  # fmt: skip
        axes.text(
            x, y, str(i), ha="center", va="center_baseline", fontsize=0.67 * size, color=number_colour, zorder=above
        )


def _draw_ways(axes: Any, text: Descent, plane: Plane) -> None:
    """Draw where each vector starts, and an arrow to where it ends."""
    half = _limit(axes, plane, text)
    sides = _sides_on(plane, text)
    starts, ends = (np.concatenate([side[step] for side, *_ in sides]) for step in (0, -1))  # (2 B, 2) each
    for side, marker, colour, name in sides:
        style = {"color": colour, "markersize": 8, "markeredgecolor": "black", "markeredgewidth": 0.8}
        axes.plot(*side[0].T, marker, label=name, **style)
    for start, end in zip(starts, ends, strict=True):
        style = {"arrowstyle": "-|>", "color": "0.25", "lw": 1.1, "shrinkA": 3, "shrinkB": 0}
        axes.annotate("", end, start, arrowprops=style)
    for i, (x, y) in enumerate(_beside(starts, ends, 0.055 * half).tolist()):
        axes.text(x, y, str(1 + i % len(text.anchors[0])), ha="center", va="center_baseline", fontsize=9)
    axes.set_title(f"marks: start; arrow heads: step {text.steps}", loc="left", fontsize=9)
    axes.legend(fontsize="small", loc="lower right", frameon=False)


def _beside(starts: Array, ends: Array, distance: float) -> Array:
    """Place the number of each mark, (B, 2), where marks, arrows and earlier numbers leave most room."""
    angles = np.linspace(0.0, 2 * np.pi, 24, endpoint=False)
    around = distance * np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (24, 2)
    taken = [starts + part * (ends - starts) for part in np.linspace(0.0, 1.0, 9)]
    places: list[Array] = []
    for start in starts:
        others = np.concatenate([*taken, *places])  # (n, 2)
        room = np.linalg.norm((start + around)[:, None] - others, axis=2).min(axis=1)  # (24,)
        places.append((start + around)[room.argmax()][None])
    return np.concatenate(places)


def _draw_moving(axes: Any, text: Descent, plane: Plane, step: int) -> None:
    """Draw where each vector is, and its path from the start."""
    for side, marker, colour, name in _sides_on(plane, text):
        for way in side[: step + 1].transpose(1, 0, 2):  # (step + 1, 2)
            axes.plot(*way.T, "-", color=PALE, linewidth=1.0, zorder=1)
        _draw_markers(axes, side[step], marker, colour, name, size=9.5)
    _limit(axes, plane, text)
    axes.set_title("sentence vectors on two principal components", loc="left", fontsize=9)


def _sides_on(plane: Plane, text: Descent) -> list[tuple[Array, str, str, str]]:
    """Both sides on the plane, (S, B, 2) each, with their style."""
    return [
        (plane.project(text.anchors), "o", DARK, "anchor"),
        (plane.project(text.positives), "s", LIGHT, "its positive"),
    ]


def _limit(axes: Any, plane: Plane, text: Descent) -> float:
    """Set limits that hold all paths and are the same at each step; return half their width."""
    every = np.concatenate([side.reshape(-1, 2) for side, *_ in _sides_on(plane, text)])
    middle, half = (every.max(axis=0) + every.min(axis=0)) / 2, 0.56 * np.ptp(every, axis=0).max()
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    axes.set(aspect="equal", xticks=[], yticks=[])
    return float(half)


def _draw_cosines(axes: Any, seen: Descent, step: int) -> None:
    """Draw the cosine of every anchor with every positive, with numbers in the cells."""
    cosines = seen.similarities(step)  # (B, B)
    count = len(cosines)
    image = axes.imshow(cosines, cmap=colour_map(True), vmin=-1, vmax=1)
    numbers = written(cosines, "{:.2f}" if count <= 8 else "{:.1f}")
    size = 7 if count <= 8 else 6
    colours = np.array(contrasting(image.to_rgba(cosines).reshape(-1, 4))).reshape(cosines.shape)
    for i, j in np.ndindex(cosines.shape):
        weight = "bold" if i == j else "normal"
        axes.text(j, i, numbers[i][j], ha="center", va="center", fontsize=size, weight=weight, color=colours[i, j])
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(range(count), range(1, count + 1), fontsize="small")
    axes.tick_params(length=0, pad=2)
    axes.set_xlabel("positive", fontsize="small", labelpad=1)
    axes.set_ylabel("anchor", fontsize="small", labelpad=1)
    axes.spines[:].set_visible(False)
    title = f"cosines at step {step}: {seen.found(step)} of {count} find their own"
    axes.set_title(title, loc="left", fontsize=9)


def _draw_measures(figure: Any, place: Any, seen: Descent, step: int) -> None:
    """Draw loss, alignment and uniformity over the steps, with a dot at a step."""
    grid = place.subgridspec(3, 1, hspace=0.6)
    for i, (name, title) in enumerate(MEASURES.items()):
        values = getattr(seen, name)
        axes = figure.add_subplot(grid[i])
        axes.plot(range(seen.steps + 1), values, "-", color=DARK, linewidth=1.5)
        axes.plot(step, values[step], "o", color=DARK, markersize=5)
        start, now = written(np.array([[values[0], values[step]]]), "{:.2f}")[0]
        axes.set_title(f"{title}: {start} at the start, {now} at step {step}", loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize="x-small", length=2, labelbottom=i == 2)
        axes.margins(y=0.12)
    axes.set_xlabel("step", fontsize="small", labelpad=1)


# -------------------------------------------------------------------------------------------- a plane to see vectors on


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane through a cloud of vectors that shows most of its variance: its first two principal components."""

    centre: Array  # (D,) mean of the cloud
    axes: Array  # (2, D) orthonormal
    share: float  # of the cloud's variance, in [0, 1]

    def project(self, x: Array) -> Array:
        """Project any vectors, (..., D), onto the plane, (..., 2)."""
        return (x - self.centre) @ self.axes.T


def lay_plane(x: Array) -> Plane:
    """The plane through a cloud of vectors, (B, D), that shows most of its variance (PCA).

    It does not move, so that vectors that move later are seen to move. The sign of an axis would be an accident: each
    points to where its largest entry is positive. ``sklearn.decomposition.PCA(2)``, up to these signs.

    >>> plane = lay_plane(np.array([[0.0, 0, 0], [4, 0, 0], [0, 0, 1], [4, 0, 1]]))
    >>> plane.axes.round(6) + 0.0, plane.share
    (array([[1., 0., 0.],
           [0., 0., 1.]]), 1.0)
    """
    x = np.asarray(x)
    if x.ndim != 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise ValueError(f"lay_plane: expected finite x (B, D) with B >= 2 and D >= 2, got {x.shape}")
    if not np.ptp(x, axis=0).any():
        raise ValueError(f"lay_plane: all {len(x)} rows are equal; a single point spans no plane")
    centre = x.mean(axis=0)
    _, spread, axes = np.linalg.svd(x - centre, full_matrices=False)
    axes = axes[:2]  # (2, D)
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1))  # (2, 1)
    return Plane(centre, axes * signs, float(np.sum(spread[:2] ** 2) / np.sum(spread**2)))
