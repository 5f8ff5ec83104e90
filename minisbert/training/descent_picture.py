"""A descent as a picture: points with their gradients' arrows, cosines before and after, and what falls.

Anchors are dark circles, positives light squares, and each carries its pair's number, so nothing depends on colour.
Panels of one row share limits and the scale of arrows. Arrow lengths grow with the root of the gradient's, which falls
to a hundredth. matplotlib (extra ``plots``) is imported when something is drawn, pyplot never: it looks for a screen.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np

from minisbert.checks import require
from minisbert.model import Array
from minisbert.plots.style import DIVERGING, DPI, colour_map, contrasting
from minisbert.training.descent import Descent

SIDES = (("anchors", "o", DIVERGING[-1], "anchor"), ("positives", "s", DIVERGING[1], "its positive"))
LONGEST_ARROW, MARK = 0.35, 0.08  # in data units: an arrow's at the start; half a mark's
FRAMES = 24  # at most; each takes some 0.3 s to draw
FRAME_MILLISECONDS, LAST_MILLISECONDS = 180, 2500
GIF_DPI = 100

Sentences = Sequence[tuple[str, str]]


def draw_picture(
    stream: IO[bytes], plane: Descent, text: Descent | None = None, sentences: Sentences | None = None
) -> None:
    """Draw a descent on the plane as a PNG, and below it one of sentence vectors.

    ``text`` is a descent of vectors of any width, seen on the plane of their first two principal components at the
    start; ``sentences`` are their texts, (anchor, positive) pairs.
    """
    figure = _figure(12.6 if text is not None else 7.8, layout="constrained")
    parts = figure.subfigures(1 if text is None else 2, 1, height_ratios=[7.8] if text is None else [7.8, 4.8])
    upper, lower = (parts, None) if text is None else parts
    upper.suptitle(
        f"InfoNCE on {len(plane.anchors[0])} pairs of points on a plane. Same number, same pair. An arrow is minus the "
        "gradient, its length grows\nwith the root of the gradient's. Pairs come together, everybody else moves apart. "
        f"Scale {plane.scale:g}, learning rate {plane.learning_rate:g}.",
        fontsize="medium",
    )
    above, below = upper.subplots(2, 3)
    midway = int(np.abs(plane.loss - (plane.loss[0] + 3 * plane.loss[-1]) / 4).argmin())  # 3/4 of the loss are gone
    for axes, step in zip(above, (0, midway, plane.steps), strict=True):
        _draw_points(axes, plane, step)
    _draw_cosines(below[0], plane, 0)
    _draw_cosines(below[1], plane, plane.steps)
    _draw_measures(below[2], plane, plane.steps)
    if text is not None and lower is not None:
        listed = [f"{i}   {a}   |   {p}" for i, (a, p) in enumerate(sentences or (), 1)]
        lower.suptitle(
            f"The same on {len(text.anchors[0])} pairs of real sentences; their vectors, of width "
            f"{text.anchors.shape[2]}, are the parameters. Much of the way is out of sight.",
            fontsize="medium",
        )
        panels = lower.subplots(1, 3)
        _draw_paths(panels[0], text, text.steps)
        _draw_cosines(panels[1], text, 0)
        _draw_cosines(panels[2], text, text.steps)
        lower.supxlabel("\n".join(listed), x=0.02, ha="left", fontsize="small", parse_math=False)
    figure.savefig(stream, format="png", dpi=DPI, facecolor="white")


def draw_animation(
    stream: IO[bytes], plane: Descent, text: Descent | None = None, *, progress: Callable[[int], object] | None = None
) -> list[int]:
    """Draw a descent as an animated GIF of at most :data:`FRAMES` frames; the steps that are shown.

    ``plane`` and ``text``, which must have equally many steps, are those of :func:`draw_picture`; ``progress(1)`` is
    called after each frame.
    """
    steps, frames = frame_steps(plane.steps), []
    for step in steps:
        figure = _figure(4.4 if text is None else 8.2)
        figure.suptitle(f"InfoNCE, step {step} of {plane.steps}. Arrows: minus the gradient. Same number, same pair.")
        panels = figure.subplots(1 if text is None else 2, 3, squeeze=False)
        figure.subplots_adjust(left=0.03, right=0.98, bottom=0.12 if text is None else 0.07, wspace=0.15)
        for row, seen in zip(panels, (plane,) if text is None else (plane, text), strict=True):
            (_draw_points if seen is plane else _draw_paths)(row[0], seen, step)
            _draw_cosines(row[1], seen, step)
            _draw_measures(row[2], seen, step)
        with io.BytesIO() as drawn:
            figure.savefig(drawn, format="png", dpi=GIF_DPI, facecolor="white")
            from PIL import Image

            frames.append(Image.open(drawn).convert("RGB").quantize(64))
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


def _figure(height: float, **options: Any) -> Any:
    require("matplotlib", "plots", "a plot")
    from matplotlib.figure import Figure  # not pyplot: it looks for a screen

    return Figure(figsize=(11.0, height), **options)


def _draw_points(axes: Any, seen: Descent, step: int) -> None:
    """Draw 2-D points, numbered, with their arrows."""
    arrows = -np.concatenate([seen.d_anchors, seen.d_positives], axis=1)  # (S, 2 B, 2)
    lengths = np.linalg.norm(arrows, axis=2, keepdims=True)  # (S, 2 B, 1)
    if longest := float(lengths[0].max()):
        points = np.concatenate([seen.anchors[step], seen.positives[step]])  # (2 B, 2)
        ways = arrows[step] / np.maximum(lengths[step], 1e-12 * longest)  # (2 B, 2) of length 1
        points = points + MARK * ways  # an arrow begins at the edge of its mark
        shown = LONGEST_ARROW * np.sqrt(lengths[step] / longest) * ways
        in_units = {"angles": "xy", "scale_units": "xy", "scale": 1}
        axes.quiver(*points.T, *shown.T, **in_units, width=0.009, color="0.25", minlength=0.3, zorder=3)
    for side, marker, colour, name in SIDES:
        _draw_marks(axes, getattr(seen, side)[step], marker, colour, name)
    axes.plot(0, 0, "+", color="0.55", markersize=6)
    reach = 0.3 + max(float(np.linalg.norm(getattr(seen, side), axis=2).max()) for side, *_ in SIDES)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    title = f"step {step}: loss {seen.loss[step]:.2f}, longest gradient {float(lengths[step].max()):.2f}"
    axes.set_title(title, loc="left", fontsize=9)
    if step == 0:
        axes.legend(fontsize="small", loc="lower left", frameon=False, borderpad=0.1, handletextpad=0.2)


def _draw_paths(axes: Any, text: Descent, step: int) -> None:
    """Draw where each vector is, and its path from the start, on the plane that shows most of the start's variance."""
    start = np.concatenate([text.anchors[0], text.positives[0]])  # (2 B, D)
    centre = start.mean(axis=0)
    _, _, directions = np.linalg.svd(start - centre, full_matrices=False)
    sides = {side: (getattr(text, side) - centre) @ directions[:2].T for side, *_ in SIDES}  # (S, B, 2) each
    for side, marker, colour, name in SIDES:
        for path in sides[side][: step + 1].transpose(1, 0, 2):  # (step + 1, 2)
            axes.plot(*path.T, "-", color="0.55", linewidth=1.0, zorder=1)
        _draw_marks(axes, sides[side][step], marker, colour, name)
    every = np.concatenate([points.reshape(-1, 2) for points in sides.values()])  # the same limits at each step
    middle, half = (every.max(axis=0) + every.min(axis=0)) / 2, 0.56 * np.ptp(every, axis=0).max()
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    axes.set(aspect="equal", xticks=[], yticks=[])
    axes.set_title("sentence vectors on two principal components", loc="left", fontsize=9)


def _draw_marks(axes: Any, points: Array, marker: str, colour: str, name: str) -> None:
    """Draw one side of the pairs, with a number in each mark."""
    from matplotlib.colors import to_rgba

    number_colour = str(contrasting(np.array(to_rgba(colour))))
    edge = {"markersize": 12, "markeredgecolor": "black", "markeredgewidth": 0.8}
    for i, (x, y) in enumerate(points.tolist(), 1):  # number with its mark: the next mark may cover both
        above = 4 + 0.01 * i
        axes.plot(x, y, marker, color=colour, zorder=above, label=name if i == 1 else None, **edge)
        axes.text(x, y, str(i), ha="center", va="center_baseline", fontsize=8, color=number_colour, zorder=above)


def _draw_cosines(axes: Any, seen: Descent, step: int) -> None:
    """Draw the cosine of every anchor with every positive, with numbers in the cells."""
    cosines = seen.similarities(step)  # (B, B)
    count = len(cosines)
    image = axes.imshow(cosines, cmap=colour_map(True), vmin=-1, vmax=1)
    colours = contrasting(image.to_rgba(cosines))  # (B, B)
    digits, size = (2, 7) if count <= 8 else (1, 6)
    for i, j in np.ndindex(cosines.shape):
        number, weight = f"{cosines[i, j].round(digits) + 0.0:.{digits}f}", "bold" if i == j else "normal"
        axes.text(j, i, number, ha="center", va="center", fontsize=size, weight=weight, color=colours[i, j])
    axes.set_xticks(range(count), range(1, count + 1), fontsize="small")
    axes.set_yticks(range(count), range(1, count + 1), fontsize="small")
    axes.tick_params(length=0)
    axes.set(xlabel="positive", ylabel="anchor")
    axes.spines[:].set_visible(False)
    axes.set_title(f"cosines at step {step}: {seen.found(step)} of {count} find their own", loc="left", fontsize=9)


def _draw_measures(axes: Any, seen: Descent, step: int) -> None:
    """Draw loss, alignment and uniformity over the steps, with a dot at a step."""
    for name, dashes in (("loss", "-"), ("alignment", "--"), ("uniformity", ":")):
        values = getattr(seen, name)
        axes.plot(values, dashes, color=DIVERGING[-1], label=f"{name}: {values[0]:.2f} -> {values[step]:.2f}")
        axes.plot(step, values[step], "o", color=DIVERGING[-1], markersize=5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize="x-small", length=2)
    axes.set_xlabel("step")
    axes.legend(fontsize="small", frameon=False)
