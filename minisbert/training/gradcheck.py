"""Is a gradient written by hand right? Random directions, finite differences, and a guess at the mistake.

A gradient promises how fast the loss changes when its tensor moves: by ``<gradient, v>`` for each unit of a step
along ``v``. Here the step is taken and the loss measured. If both agree along a few random ``v``, the whole gradient
is right: a wrong one would have to be wrong at right angles to every ``v``.

**Never an upstream gradient of ones.** The rows of a softmax sum to 1, and those of a normalised input to 0, whatever
the input is. With ``d_y = 1`` the gradients of both are zero, so that a backward with a term missing, or one that
returns zeros, passes. The upstream gradient here is random, and there is no way to give another.

**Source**: ``torch.autograd.gradcheck(fast_mode=True)``, which also compares along random directions; Baydin et al.
2018, section 2.1, on the error of differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minisbert.checks import check_choice
from minisbert.model import Array
from minisbert.model.bert import bert
from minisbert.model.folder import SentenceModel
from minisbert.model.params import Gradient, RowGradient, numbers_of
from minisbert.model.pooling import apply_modules
from minisbert.model.tokens import OverflowReport
from minisbert.parallel import threads
from minisbert.training.losses import LOSSES, LossResult
from minisbert.training.step import LossFunction, named_parameters, replace_parameters, value_and_gradients

_Loss = Callable[[dict[str, Array]], float]  # of all tensors by their names


def check_backward(
    forward: Callable[..., Array],
    backward: Callable[..., Any],
    arguments: Mapping[str, Any] | Sequence[Any],
    *,
    rng: np.random.Generator,
    directions: int = 3,
    tolerance: float = 1e-7,
    sizes: Mapping[str, int] | None = None,
) -> GradientReport:
    """Check the backward pass of one operation, ``y = forward(*arguments)``.

    The loss is ``<d_y, forward(*arguments)>`` with a random ``d_y``; ``backward(d_y, *arguments)`` is its gradient.

    Parameters
    ----------
    forward : callable
        Takes the arguments in their order, returns one array.
    backward : callable
        Takes ``d_y``, of the shape of ``y``, and then the arguments; returns one gradient for each floating-point array
        among them, in order: a tuple, or the gradient itself if it is the only one.
    arguments : mapping of str to value, or sequence
        Floating-point arrays are differentiated, in float64; anything else (token ids, lengths, an eps) is passed on as
        it is. Arrays are read-only: a function that changes one fails at that line.
    rng : np.random.Generator
        Draws ``d_y`` and the directions.
    directions, tolerance, sizes
        As for :func:`check_gradients`.

    Returns
    -------
    GradientReport
        One row for each differentiated argument.

    Examples
    --------
    >>> x = np.array([[0.1, -0.4, 0.7], [1.0, 0.3, -0.2]])
    >>> right = lambda d_y, x: d_y * (1 - np.tanh(x) ** 2)
    >>> check_backward(np.tanh, right, {"x": x}, rng=np.random.default_rng(0)).ok
    True
    >>> wrong = lambda d_y, x: d_y * (np.tanh(x) ** 2 - 1)
    >>> check_backward(np.tanh, wrong, {"x": x}, rng=np.random.default_rng(0)).worst.diagnosis
    'the sign is turned'
    """
    if not isinstance(arguments, Mapping):
        arguments = {f"argument {i}": value for i, value in enumerate(arguments)}
    named = {name: _frozen(value) if isinstance(value, np.ndarray) else value for name, value in arguments.items()}
    arrays = {name: value for name, value in named.items() if isinstance(value, np.ndarray)}
    moving = {name: array for name, array in arrays.items() if array.dtype == np.float64}
    if not moving:
        raise ValueError(
            f"check_backward: expected at least one array of floating-point numbers, got "
            f"{', '.join(f'{name}: {_describe(value)}' for name, value in named.items())}; lists and integers are not "
            f"differentiated"
        )
    y = forward(*named.values())
    if not isinstance(y, np.ndarray) or y.dtype != np.float64 or not np.isfinite(y).all():
        raise ValueError(
            f"check_backward: forward must return one array of finite float64 numbers for float64 arguments, but "
            f"returned {_describe(y)}; look for an astype, a float32 constant or a division by zero"
        )
    rng = _own(rng)
    d_y = _frozen(rng.standard_normal(y.shape))
    returned = backward(d_y, *named.values())
    gradients = returned if isinstance(returned, (tuple, list)) else (returned,)
    if len(gradients) != len(moving):
        raise ValueError(
            f"check_backward: backward must return the {len(moving)} gradients of {', '.join(moving)}, in this order, "
            f"but returned {len(gradients)}; None stands for one that you do not have yet"
        )
    return check_gradients(
        lambda params: float(np.vdot(d_y, forward(*(named | params).values()))),
        moving,
        dict(zip(moving, gradients, strict=True)),
        rng=rng,
        directions=directions,
        tolerance=tolerance,
        sizes=sizes,
    )


def check_gradients(
    loss: _Loss,
    params: Mapping[str, Array],
    gradients: Mapping[str, Gradient | None],
    *,
    rng: np.random.Generator,
    directions: int = 3,
    tolerance: float = 1e-7,
    sizes: Mapping[str, int] | None = None,
    only: Collection[str] | None = None,
) -> GradientReport:
    """Check the gradients of a loss: all tensors moving at once, then each alone.

    ``<gradient, v>`` is compared with the slope of ``loss(params + t v)`` at ``t = 0``, for random ``v``.

    Parameters
    ----------
    loss : callable
        Takes a dict with the names of ``params``, returns one number. It must read all it needs from that dict.
    params : mapping of str to Array
        float64, in the order of the forward pass: the report goes through them backwards.
    gradients : mapping of str to Array or RowGradient
        At ``params``, each of its tensor's shape. The rows that a RowGradient leaves out are checked as well: the
        directions move the whole table.
    rng : np.random.Generator
        Draws the directions.
    directions : int
        For each tensor, and for all together; at least 1, and 2 to tell a factor from a missing term. Each takes 6
        calls of the loss, more where it bends sharply.
    tolerance : float
        Largest relative error that passes.
    sizes : mapping of str to int, optional
        Sizes by their letters, such as ``{"B": 7}``, to explain a gradient that is off by one of them.
    only : collection of str, optional
        Tensors to check one by one, by default all. All together are checked in any case: with ``only=()`` a large
        model costs no more than a small one.

    Examples
    --------
    >>> params = {"weight": np.array([[1.0, 2.0], [0.5, -1.0]]), "bias": np.array([0.3, -0.2])}
    >>> def loss(p):
    ...     return float(np.mean((p["weight"].sum(axis=1) + p["bias"]) ** 2))
    >>> y = params["weight"].sum(axis=1) + params["bias"]
    >>> gradients = {"weight": np.stack([y, y], axis=1), "bias": 2 * y}  # the mean over 2 rows was forgotten
    >>> print(check_gradients(loss, params, gradients, rng=np.random.default_rng(0), sizes={"B": 2}))
      tensor      shape        analytic        numeric    error
      everything  (6,)     ...               <-- wrong: see below
      bias        (2,)    -1.342140e+00  -6.710701e-01  5.0e-01  <-- wrong: too large by the factor 2 = B: ...
      weight      (2, 2)  -5.651788e+00  -5.651788e+00  ...  ok
    <BLANKLINE>
    1 of 2 gradients does not agree with finite differences.
    The first on the way back from the loss is bias: too large by the factor 2 = B: a sum where a mean belongs?
    """
    if not params or directions < 1:
        raise ValueError(f"check_gradients: expected tensors and directions >= 1, got {len(params)} and {directions}")
    for name, tensor in params.items():
        is_float64 = isinstance(tensor, np.ndarray) and tensor.dtype == np.float64
        if not is_float64 or not tensor.size or not np.isfinite(tensor).all():
            raise ValueError(
                f"check_gradients: expected finite float64 numbers, but {name} is {_describe(tensor)}; differences of "
                f"a float32 loss have no correct digit left: convert the tensors, and compute the gradients from them"
            )
    for what, listed in (("gradients", gradients), ("only", only or ())):
        if strange := sorted(set(listed) - set(params)):
            raise ValueError(f"check_gradients: {what} has names that params has not: {', '.join(strange)}")
    rng = _own(rng)
    value, again = (_value(loss, dict(params), "at params") for _ in range(2))
    if abs(again - value) > _ROUNDING * abs(value):
        raise ValueError(
            f"check_gradients: the loss must be the same at each call, but was {value!r} and then {again!r}; switch "
            f"dropout off, or draw its masks once, outside the loss, and let the loss leave its argument alone"
        )
    faults = {name: _find_fault(params[name], gradients.get(name)) for name in params}
    known = {name: gradient for name, gradient in gradients.items() if gradient is not None and not faults[name]}

    def measure(name: str, moving: Collection[str]) -> Array:
        """What the gradients of ``moving`` promise along random directions, and what is measured: (5, K).

        A tensor without a gradient counts as one with a gradient of zero.
        """
        found = []
        for _ in range(directions):
            direction = {key: _draw_direction(params[key], rng) for key in moving}
            promised = [(known[key], v) for key, v in direction.items() if key in known]
            analytic = sum(_along(gradient, v) for gradient, v in promised)
            transposed = sum(_along(gradient, v.T if v.shape == v.T.shape else v) for gradient, v in promised)

            def f(t: float, direction: dict[str, Array] = direction) -> float:
                moved = {key: params[key] + t * v for key, v in direction.items()}
                return _value(loss, {**params, **moved}, f"{abs(t):.0e} away from params along {name}")

            found.append((analytic, transposed, *_slope(f, value, tolerance / 10)))
        return np.array(found).T

    fault = "some gradients cannot be compared" if any(faults.values()) else ""
    size = sum(tensor.size for tensor in params.values())
    found = [("everything", (size,), fault, measure("everything", params))]
    checked = params if only is None else [name for name in params if name in only]
    found += [(name, params[name].shape, faults[name], measure(name, [name])) for name in checked]
    scale = max(_rms(slopes[2]) for *_, slopes in found)
    all_of_it, *rows = (
        GradientRow(name, shape, *_judge(slopes, fault, scale, tolerance, sizes or {}))
        for name, shape, fault, slopes in found
    )
    if not all_of_it.ok and not all(row.ok for row in rows):
        all_of_it = replace(all_of_it, diagnosis="see below")
    noise, note = found[0][3][4].max(), ""
    if scale <= noise:
        note = "the loss did not change along any direction; is this the function that was meant?"
    elif noise > tolerance * scale:
        note = (
            f"the loss is so large beside its slope that differences below {noise / scale:.0e} of the whole are lost "
            f"in its rounding; take a constant off it"
        )
    return GradientReport(tuple(rows), all_of_it, tolerance, (note,) if note else ())


def check_encoder(
    model: SentenceModel,
    columns: Sequence[Sequence[str]],
    loss: str | LossFunction = "multiple_negatives_ranking",
    *,
    rng: np.random.Generator,
    targets: Sequence[float] | None = None,
    directions: int = 3,
    tolerance: float = 1e-7,
    only: Collection[str] | None = None,
) -> GradientReport:
    """Check every gradient of a training step: from the loss back through the modules and BERT.

    The gradients are those of :func:`~minisbert.training.step.value_and_gradients`; the slopes are those of plain
    inference, :func:`~minisbert.model.bert.bert`, which keeps no trace. Nothing is dropped.

    Parameters
    ----------
    model : SentenceModel
        float32 weights are widened.
    columns : sequence of sequences of str
        Such as anchors and positives, a few short texts of each; for ``"simcse"`` one column.
    loss : str or callable
        A key of :data:`~minisbert.training.losses.LOSSES`, with its own defaults, or a function from the vectors of
        the columns, (B, D) each, to a LossResult. ``"softmax"`` gets a random classifier, which is checked as well.
    rng : np.random.Generator
        Draws the directions, and that classifier.
    targets : sequence of float, optional
        Scores or labels, for the losses that compare with them.
    directions, tolerance, only
        As for :func:`check_gradients`; the names are those of
        :func:`~minisbert.training.step.named_parameters`.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> from minisbert.training.finetune import untrained_model
    >>> model = untrained_model(SentenceEncoder().model, num_hidden_layers=1, hidden_size=6, num_attention_heads=2)
    >>> report = check_encoder(model, [["soup", "tea"], ["hot soup", "hot tea"]], rng=np.random.default_rng(0))
    >>> report.ok, len(report.rows), report.rows[-1].name
    (True, 21, 'encoder.layer.0.output.LayerNorm.bias')
    """
    rng = _own(rng)
    params = {name: tensor.astype(np.float64) for name, tensor in named_parameters(model).items()}  # keeps the order
    model, head = replace_parameters(model, params), {}
    if not callable(loss):
        check_choice("check_encoder: loss", loss, LOSSES)
        known = LOSSES[loss]
        if (targets is None) == (known.data in ("scored", "labelled")):
            wanted = "needs targets, a number for each pair" if targets is None else "compares with no targets"
            raise ValueError(f"check_encoder: loss {loss!r} {wanted}")
        if known.data == "texts":
            columns = [*columns, *columns]  # both views; without dropout they are the same
        if known.has_head and targets is not None:
            classes = 1 + max(1, int(max(targets)))
            weight = rng.normal(0, 0.5, (classes, 3 * model.full_width))
            head = {"head.weight": weight, "head.bias": rng.normal(0, 0.5, classes)}
    loss_of: Callable[..., LossResult] = loss if callable(loss) else known.of_batch(columns, targets)
    tokens = model.tokenizer([text for column in columns for text in column], model.max_seq_length)

    def value(moved: dict[str, Array]) -> float:
        there = replace_parameters(model, moved)
        strip = bert(tokens.token_ids, tokens.lengths, there.params, there.config)
        vectors = apply_modules(strip, tokens.lengths, there.modules)[-1]
        return loss_of(np.split(vectors, len(columns)), *(moved[name] for name in head)).value

    report = OverflowReport(model.max_seq_length, "truncate")  # both sides read the same, so a cut does no harm
    step = value_and_gradients(
        model, columns, lambda vectors: loss_of(vectors, *head.values()), num_threads=1, report=report
    )
    with threads.hold(1):  # products of a few rows: more threads would spend their time waiting for each other
        return check_gradients(
            value, params | head, step.gradients, rng=rng, directions=directions, tolerance=tolerance, only=only
        )


# ---------------------------------------------------------------------------------------- the slope of a loss, measured

_STEP = 1e-3  # of a tensor's own size: truncation (h^4 = 1e-12) and rounding (1e-16 / h = 1e-13) are both small
_ROUNDING = 64 * float(np.finfo(np.float64).eps)  # of the loss: what its last steps lose in float64, with a margin


def _own(rng: np.random.Generator) -> np.random.Generator:
    """Make a generator of its own: one that stands where it drew ``x`` from the same seed would draw ``d_y = x``."""
    return np.random.default_rng(rng.integers(2**32, size=4))


def _frozen(array: Array) -> Array:
    """A copy that nobody can change, floating-point numbers as float64."""
    copy = np.array(array, np.float64 if array.dtype.kind == "f" else array.dtype, order="K")
    copy.flags.writeable = False
    return copy


def _describe(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return f"a {type(value).__name__}, {value!r:.40}"
    bad = int(np.sum(~np.isfinite(value))) if value.dtype.kind == "f" else 0
    return f"{value.dtype} {value.shape}" + (f" with {bad} NaN or Inf" if bad else "")


def _rms(numbers: Array) -> float:
    """Root of the mean square."""
    return math.sqrt(float(np.mean(np.square(numbers))))


def _value(loss: _Loss, params: dict[str, Array], where: str) -> float:
    """Call the loss and raise unless it returns one finite float64 number."""
    value: Any = loss(params)
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value[()]
    if not isinstance(value, (float, int)) or not math.isfinite(value):
        raise ValueError(
            f"check_gradients: the loss must be one finite float64 number, but it is {_describe(value)} {where}; take "
            f"the mean over the batch, and look for float32, log(0), a division by zero or an overflow on the way"
        )
    return float(value)


def _draw_direction(tensor: Array, rng: np.random.Generator) -> Array:
    """Draw numbers about as large as the tensor's own, or 1 if it is zero."""
    # in the tensor's own order in memory: adding the two is then several times as fast
    drawn = rng.standard_normal(tensor.shape[::-1]).T if tensor.flags.fnc else rng.standard_normal(tensor.shape)
    return drawn * (_rms(tensor) or 1.0)


def _along(gradient: Gradient, v: Array) -> float:
    """Return ``<gradient, v>``; the rows that a RowGradient leaves out are zero."""
    return float(np.sum(numbers_of(gradient) * (v[gradient.rows] if isinstance(gradient, RowGradient) else v)))


def _slope(f: Callable[[float], float], at_0: float, precision: float) -> tuple[float, float, float]:
    """Measure ``f'(0) = (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h``, of fourth order, to a relative precision.

    It is measured with two steps ``h``, made smaller where the two disagree. Where they still disagree, or the slope
    jumps at 0 itself, as that of ``relu``, the number says little about the gradient: its doubt, the second number
    returned, tells how little. The third is its noise, what the rounding of ``f`` can do to it.
    """
    found = []
    for h in (_STEP, _STEP / 8, _STEP / 64, _STEP / 512):
        at = {k: f(k * h / 2) for k in (-4, -2, -1, 1, 2, 4)}  # for the steps h and h/2
        coarse = (8 * (at[2] - at[-2]) - (at[4] - at[-4])) / (12 * h)
        fine = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (6 * h)
        # right minus left slope shrinks with the step, unless the slope jumps at 0
        jump = 2 * (at[1] - 2 * at_0 + at[-1]) / (h / 2) - (at[2] - 2 * at_0 + at[-2]) / h
        change = abs(fine - coarse)
        noise = _ROUNDING * max(abs(at_0), *map(abs, at.values())) / h
        found.append((change + noise, change, fine, max(change, abs(jump)), noise))
        _, change, slope, doubt, noise = min(found)
        if change <= precision * abs(slope) + noise:
            break
    return slope, doubt, noise


# ------------------------------------------------------------------------------------- which mistake does it look like?

_FLOOR = 1e-4  # of the whole: below it a tensor's gradient is measured against the whole


def _judge(
    found: Array, fault: str, scale: float, tolerance: float, sizes: Mapping[str, int]
) -> tuple[float, float, float, str, str]:
    """Turn a measurement (5, K) into what a row of the report says of it.

    The error is ``|analytic - numeric| / max(|analytic|, |numeric|, 1e-4 of the whole)``, all sizes the root of the
    mean square over the K directions; the whole is the slope when all tensors move at once, ``scale``. So a tensor
    whose gradient is rightly zero, as that of the key bias in attention, passes with the rounding error that it has
    instead. Differences below the noise do not count. One within ten times the doubt is "not smooth", not "wrong".

    ``fault`` says why the gradient cannot be compared at all.
    """
    a, transposed, n, doubt, noise = found
    i = int(np.argmax(np.abs(a - n)))
    if fault:
        return math.nan, float(n[i]), math.inf, "wrong", fault
    difference, floor = _rms(a - n), max(_FLOOR * scale, noise.max() / tolerance)
    error = difference / max(_rms(a), _rms(n), floor) if difference else 0.0
    verdict, text = "wrong", ""
    if error <= tolerance:
        verdict = "ok"
    elif difference <= 10 * _rms(doubt):
        verdict = "not smooth"
        text = "the slope jumps here (relu at 0, a tie in a maximum) or the loss is computed in float32; move the point"
    else:
        text = _diagnose(a, transposed, n, floor * tolerance, sizes)
    return float(a[i]), float(n[i]), error, verdict, text


def _diagnose(a: Array, transposed: Array, n: Array, nothing: float, sizes: Mapping[str, int]) -> str:
    """Name the mistake that a wrong gradient looks like; below ``nothing`` a slope counts as zero.

    One that is the right one times the same number along all directions has its sign turned, or a sum where a mean
    belongs. One whose transpose is right is transposed. In all others a term is missing or wrong.

    >>> slopes = np.array([1.0, -3.0])
    >>> _diagnose(4 * slopes, 4 * slopes, slopes, 0.0, {"B": 4})
    'too large by the factor 4 = B: a sum where a mean belongs?'
    """
    if _rms(a) <= nothing:
        return "nothing came back: the gradient is zero"
    if _rms(n) <= nothing:
        return "the loss does not change with it, but a gradient came back; does the loss read its argument?"
    ratio = float(np.dot(a, n) / np.dot(n, n))
    if len(a) > 1 and np.abs(a - ratio * n).max() <= 1e-5 * _rms(a):
        sign = "the sign is turned" if ratio < 0 else ""
        return "; ".join(filter(None, (sign, _name_factor(abs(ratio), sizes))))
    if np.abs(transposed - n).max() <= 1e-5 * _rms(n):
        return "it is transposed"
    return "no single factor puts it right: a term is missing, or one is wrong" if len(a) > 1 else "it is wrong"


def _name_factor(factor: float, sizes: Mapping[str, int]) -> str:
    """Say which size a gradient is off by; nothing for a factor of 1."""
    times, way = (factor, "large") if factor > 1 else (1 / factor, "small")
    mean = {"large": "a sum where a mean belongs?", "small": "a mean where a sum belongs?"}[way]
    scaling = {"large": "is the scaling missing?", "small": "scaled twice?"}[way]
    for letters, power, mistake in (("{}", 1.0, mean), ("sqrt({})", 0.5, scaling)):
        near = [name for name, size in sizes.items() if size > 1 and math.isclose(times, size**power, rel_tol=1e-5)]
        if near:
            return f"too {way} by the factor {times:.6g} = {letters.format(' or '.join(near))}: {mistake}"
    return f"off by the factor {factor:.6g}" if times >= 1 + 1e-5 else ""


def _find_fault(tensor: Array, gradient: Gradient | None) -> str:
    """Say why a gradient cannot be compared at all; empty if it can."""
    if gradient is None:
        return "no gradient came back"
    values = numbers_of(gradient)
    if not isinstance(values, np.ndarray) or values.dtype != np.float64:
        return f"{_describe(values)} came back, not float64"
    if isinstance(gradient, RowGradient):
        rows = gradient.rows
        fits = gradient.row_count == len(tensor) and values.shape == (len(rows), *tensor.shape[1:])
        if not fits or len(np.unique(rows)) < len(rows) or not np.isin(rows, np.arange(len(tensor))).all():
            return (
                f"rows {rows.tolist()!s:.40} {values.shape} of {gradient.row_count} came back, but the table is "
                f"{tensor.shape}, and each of its rows may come once, its uses added up"
            )
    elif values.shape != tensor.shape:
        hints = {
            ": transposed": values.shape == tensor.shape[::-1],
            ": a reshape, or a sum without keepdims=False": values.size == tensor.size,
            ": the sum over the leading axes is missing": values.shape[-tensor.ndim :] == tensor.shape,
        }
        hint = next((hint for hint, fits in hints.items() if fits), "")
        return f"its shape is {values.shape}, but the tensor's is {tensor.shape}{hint}"
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        return f"NaN or Inf in {len(bad)} of {values.size} numbers, the first at {tuple(bad[0].tolist())}"
    return ""


# ----------------------------------------------------------------------------------------------------------- the report


@dataclass(frozen=True)
class GradientRow:
    """What was found for one tensor."""

    name: str
    shape: tuple[int, ...]
    analytic: float  # <gradient, v> along the direction in which the two differ most
    numeric: float  # the measured slope along it
    error: float  # relative; infinite where nothing could be compared
    verdict: str  # "ok", "wrong" or "not smooth"
    diagnosis: str = ""  # what the mistake looks like

    @property
    def ok(self) -> bool:
        """Whether the gradient agrees with the measured slopes."""
        return self.verdict == "ok"


@dataclass(frozen=True)
class GradientReport:
    """The findings for all tensors; ``str(report)`` is a table for people."""

    rows: tuple[GradientRow, ...]  # in the order of the forward pass, as the tensors were given
    whole: GradientRow  # all tensors moving at once
    tolerance: float
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every gradient is right; a tensor that could not be judged is not."""
        return all(row.ok for row in (*self.rows, self.whole))

    @property
    def worst(self) -> GradientRow:
        """The row with the largest relative error."""
        return max(self.rows or (self.whole,), key=lambda row: row.error)

    @property
    def first_wrong(self) -> GradientRow | None:
        """The wrong tensor nearest to the loss: a mistake spoils all that comes after it on the way back."""
        return next((row for row in (*reversed(self.rows), self.whole) if not row.ok), None)

    def __str__(self) -> str:
        lines = [("tensor", "shape", "analytic", "numeric", "error", "")]
        for row in (self.whole, *reversed(self.rows)):  # as the backward pass meets them
            mark = "ok" if row.ok else f"<-- {row.verdict}: {row.diagnosis}"
            numbers = f"{row.analytic:.6e}", f"{row.numeric:.6e}", f"{row.error:.1e}"
            lines.append((row.name, str(row.shape), *numbers, mark))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        layout = "  " + "  ".join(f"{{:{side}{width}}}" for side, width in zip("<<>>><", widths, strict=True))
        table = [layout.format(*line).rstrip() for line in lines]
        if (first := self.first_wrong) is None:
            number = f"All {len(self.rows)} gradients, and all together," if self.rows else "All gradients together"
            summary = (
                f"{number} agree with finite differences; the largest relative error is {self.worst.error:.1e} "
                f"({self.worst.name}), the bound {self.tolerance:.0e}."
            )
        else:
            bad = sum(not row.ok for row in self.rows)
            summary = (
                f"{bad} of {len(self.rows)} gradients {'does' if bad == 1 else 'do'} not agree with finite "
                f"differences.\nThe first on the way back from the loss is {first.name}: {first.diagnosis}"
            )
        return "\n".join([*table, "", summary, *(f"Note: {note}" for note in self.notes)])
