"""Is a gradient written by hand right? Random directions, finite differences, and a guess at the mistake.

A gradient promises how fast the loss changes when its tensor moves: by ``<gradient, v>`` for each unit of a step
along ``v``. Here the step is taken and the loss measured. If both agree along a few random ``v``, the whole gradient
is right: a wrong one would have to be wrong at right angles to every ``v``.

**Never an upstream gradient of ones.** The rows of a softmax sum to 1, and those of a normalised input to 0, whatever
the input is. With ``d_y = 1`` the gradients of both are zero, so that a backward with a term missing, or one that
returns zeros, passes. The upstream gradient here is random, and there is no way to give another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from minisbert.model import Array
from minisbert.model.bert import bert
from minisbert.model.folder import SentenceModel
from minisbert.model.params import Gradient, RowGradient, numbers_of
from minisbert.model.pooling import apply_modules
from minisbert.model.tokens import OverflowReport
from minisbert.parallel import threads
from minisbert.training.losses import LOSSES, LossResult
from minisbert.training.step import LossFunction, named_parameters, replace_parameters, value_and_gradients

# ------------------------------------------------------------------------------------------------- one operation


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
        Floating-point arrays are differentiated; anything else (token ids, lengths, an eps) is passed on as it is.
        float32 arrays are widened, with a note in the report.
    rng : np.random.Generator
        Draws ``d_y`` and the directions.
    directions : int
        Random directions for each argument, at least 1; to tell a factor from a missing term takes 2.
    tolerance : float
        Largest relative error that passes.
    sizes : mapping of str to int, optional
        Sizes by their letters, such as ``{"B": 7}``, to explain a gradient that is off by one of them.

    Returns
    -------
    GradientReport
        One row for each differentiated argument.

    Raises
    ------
    ValueError
        If there is nothing to differentiate, an argument or ``y`` holds NaN or Inf, ``y`` is not float64, ``forward``
        is random, or a function changes its argument.

    Notes
    -----
    **Source**: ``torch.autograd.gradcheck(f, inputs, fast_mode=True)``, which also compares along random directions.

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
    moving = {
        name: np.asarray(value, np.float64)
        for name, value in arguments.items()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    }
    named = {**arguments, **moving}
    if not moving:
        said = ", ".join(f"{name}: {_describe(value)}" for name, value in named.items())
        raise ValueError(
            f"check_backward: expected at least one array of floating-point numbers among the arguments, got "
            f"{said or 'none'}. Lists and integers are not differentiated; wrap numbers in np.array([...], np.float64)."
        )

    def call(role: str, function: Callable[..., Any], *given: Any) -> Any:
        before = [np.copy(value) if isinstance(value, np.ndarray) else None for value in given]
        result = function(*given)
        for i, (old, value) in enumerate(zip(before, given, strict=True)):
            if old is not None and not np.array_equal(old, value, equal_nan=old.dtype.kind == "f"):
                raise ValueError(
                    f"check_backward: {role} must leave its arguments alone, but changed number {i} (from 0), of shape "
                    f"{old.shape}. Look for +=, *= or out= on an argument; work on a copy."
                )
        return result

    y = call("forward", forward, *named.values())
    if not isinstance(y, np.ndarray) or y.dtype != np.float64 or not np.isfinite(y).all():
        raise ValueError(
            f"check_backward: forward must return one array of finite float64 numbers for float64 arguments, but "
            f"returned {_describe(y)}. Look for an astype or a float32 constant inside, and for a division by zero."
        )
    rng = _own(rng)
    d_y = rng.standard_normal(y.shape)
    returned = call("backward", backward, d_y, *named.values())
    gradients = returned if isinstance(returned, (tuple, list)) else (returned,)
    if len(gradients) != len(moving):
        raise ValueError(
            f"check_backward: backward must return {len(moving)} gradient{'s' if len(moving) > 1 else ''}, for "
            f"{', '.join(moving)} in this order, but returned {len(gradients)}. Pass settings such as an eps as plain "
            f"numbers; None stands for a gradient that you do not have yet."
        )
    report = check_gradients(
        lambda params: float(np.vdot(d_y, forward(*(named | params).values()))),
        moving,
        dict(zip(moving, gradients, strict=True)),
        rng=rng,
        directions=directions,
        tolerance=tolerance,
        sizes=sizes,
    )
    narrow = [name for name in moving if arguments[name].dtype != np.float64]
    notes = [f"{name} was widened to float64: finite differences in float32 show nothing" for name in narrow]
    return replace(report, notes=(*notes, *report.notes))


def _own(rng: np.random.Generator) -> np.random.Generator:
    """Make a generator of its own: one that stands where it drew ``x`` from the same seed would draw ``d_y = x``."""
    return np.random.default_rng(rng.integers(2**32, size=4))


def _describe(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return f"a {type(value).__name__}"
    bad = int(np.sum(~np.isfinite(value))) if value.dtype.kind == "f" else 0
    return f"{value.dtype} {value.shape}" + (f" with {bad} NaN or Inf" if bad else "")


# -------------------------------------------------------------------------------------------------- whole losses


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
        For each tensor, and for all together; at least 1. Each takes 6 calls of the loss, more where it bends sharply.
    tolerance : float
        Largest relative error that passes.
    sizes : mapping of str to int, optional
        Sizes by their letters, to explain a wrong factor with.
    only : collection of str, optional
        Tensors to check one by one, by default all. All together are checked in any case: with ``only=()`` a large
        model costs no more than a small one.

    Returns
    -------
    GradientReport

    Raises
    ------
    ValueError
        If a tensor is not float64 (float32 gradients have an error of their own that hides mistakes), something is NaN
        or Inf, the loss is not one number or changes from call to call, or names do not fit.

    Notes
    -----
    **Source**: ``torch.autograd.gradcheck``; Baydin et al. 2018, section 2.1, on the error of differences.

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
        if not isinstance(tensor, np.ndarray) or tensor.dtype != np.float64:
            raise ValueError(
                f"check_gradients: expected float64 tensors, but {name} is {_describe(tensor)}. Differences of a "
                f"float32 loss have no correct digit left. Convert the tensors to np.float64 and compute the gradients "
                f"again from them."
            )
        if not tensor.size or not np.isfinite(tensor).all():
            raise ValueError(f"check_gradients: expected finite numbers, but {name} is {_describe(tensor)}")
    for what, listed in (("gradients", gradients), ("only", only or ())):
        if strange := sorted(set(listed) - set(params)):
            raise ValueError(f"check_gradients: {what} has names that params has not: {', '.join(strange)}")
    rng = _own(rng)
    value, again = (_value(loss, dict(params)) for _ in range(2))
    if abs(again - value) > _ROUNDING * abs(value):
        raise ValueError(
            f"check_gradients: the loss must be the same at each call, but was {value!r} and then {again!r}. "
            f"Is dropout on? Switch it off, or draw its masks once, outside the loss. A loss that changes its "
            f"argument does this, too."
        )
    point = _Point(loss, dict(params), value, precision=tolerance / 10)
    faults = {name: _find_fault(params[name], gradients.get(name)) for name in params}
    known = {name: gradient for name, gradient in gradients.items() if gradient is not None and not faults[name]}
    whole = _measure("everything", point, known, list(params), rng, directions)
    chosen = [name for name in params if only is None or name in only]
    tensors = [_measure(name, point, known, [name], rng, directions) for name in chosen]
    scale = max(_rms(measured.numeric) for measured in (whole, *tensors))
    rows = [_judge(measured, faults[measured.name], scale, tolerance, sizes or {}) for measured in tensors]
    lost = "some gradients cannot be compared" if any(faults.values()) else ""
    all_of_it = _judge(whole, lost, scale, tolerance, sizes or {})
    if not all_of_it.ok and not all(row.ok for row in rows):
        all_of_it = replace(all_of_it, diagnosis="see below")
    notes = []
    if scale <= whole.noise:
        notes.append("the loss did not change along any direction; is this the function that was meant?")
    elif whole.noise > tolerance * scale:
        notes.append(
            f"the loss is so large beside its slope that differences below {whole.noise / scale:.0e} of the whole are "
            f"lost in its rounding; take a constant off it"
        )
    return GradientReport(tuple(rows), all_of_it, tolerance, tuple(notes))


# ------------------------------------------------------------------------------------------- sentence models


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

    Returns
    -------
    GradientReport

    Raises
    ------
    ValueError
        If the loss has no such name, targets are missing or not used by it, or the loss raises.

    Examples
    --------
    >>> import tokenizers
    >>> from minisbert.model.config import BertConfig
    >>> from minisbert.model.pooling import Pooling
    >>> from minisbert.model.params import random_params
    >>> from minisbert.model.tokens import Tokenizer
    >>> library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"hot": 0, "soup": 1, "tea": 2}, "hot"))
    >>> library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    >>> config = BertConfig(vocab_size=3, hidden_size=4, num_attention_heads=2, num_hidden_layers=1,
    ...                     intermediate_size=6, max_position_embeddings=5)
    >>> params, tokenizer = random_params(config, np.random.default_rng(0)), Tokenizer(library, (), (), False, {})
    >>> model = SentenceModel(config, params, (Pooling(),), tokenizer, 5, {}, None, "cosine")
    >>> report = check_encoder(model, [["soup", "tea"], ["hot soup", "hot tea hot"]], rng=np.random.default_rng(1))
    >>> report.ok, len(report.rows), report.rows[-1].name
    (True, 21, 'encoder.layer.0.output.LayerNorm.bias')
    """
    rng = _own(rng)
    params = {name: tensor.astype(np.float64) for name, tensor in named_parameters(model).items()}  # keeps the order
    model, head = replace_parameters(model, params), {}
    if not callable(loss):
        if loss not in LOSSES:
            raise ValueError(f"check_encoder: loss must be one of {', '.join(LOSSES)}, or a function; got {loss!r}")
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
# With ``f(t) = loss(x + t v)``, centred differences of fourth order in float64 give
#
# ``f'(0) = (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h``
#
# for two steps ``h``, made smaller where the two disagree. Where they still disagree, or the slope jumps at the point
# itself, as that of ``relu`` at 0, the number says little about the gradient: its ``doubt`` tells how little. What the
# rounding of the loss can do to a slope is its ``noise``. Letters: ``K`` directions.
#
# **Source**: Baydin et al. 2018, section 2.1, on the error of differences.


_Loss = Callable[[dict[str, Array]], float]  # of all tensors by their names

_STEP = 1e-3  # of a tensor's own size: truncation (h^4 = 1e-12) and rounding (1e-16 / h = 1e-13) are both small
_ROUNDING = 64 * float(np.finfo(np.float64).eps)  # of the loss: what its last steps lose in float64, with a margin


@dataclass(frozen=True)
class _Point:
    """A loss, and the point at which its slopes are measured."""

    loss: _Loss
    params: dict[str, Array]
    value: float  # the loss at params
    precision: float  # relative, with which a slope is to be measured


class _Slope(NamedTuple):
    """The slope of the loss along one direction, as measured."""

    value: float
    change: float  # how far two steps disagree about it
    doubt: float  # or the two sides of the point, if that is more
    noise: float  # what the rounding of the loss can do to it


@dataclass(frozen=True)
class _Measured:
    """Both sides of the comparison for one tensor, along K directions."""

    name: str
    shape: tuple[int, ...]
    analytic: Array  # (K,) <gradient, v>
    transposed: Array  # (K,) <gradient.T, v>, for square matrices; else as analytic
    numeric: Array  # (K,)
    doubt: Array  # (K,)
    noise: float
    narrow: bool  # the gradient came back in another dtype than float64


def _value(loss: _Loss, params: dict[str, Array], where: str = "at params") -> float:
    """Call the loss and raise unless it returns one finite float64 number."""
    value: Any = loss(params)
    if not isinstance(value, (float, int)) and (np.ndim(value) or getattr(value, "dtype", None) != np.float64):
        raise ValueError(
            f"check_gradients: the loss must be one float64 number, but it is "
            f"{_describe(np.asarray(value) if isinstance(value, np.generic) else value)}. Take the mean over the "
            f"batch, and look for float32 on the way."
        )
    if not math.isfinite(value):
        raise ValueError(
            f"check_gradients: the loss must be finite, but it is {float(value)} {where}. Look for log(0), a division "
            f"by zero or an overflow."
        )
    return float(value)


def _measure(
    name: str,
    point: _Point,
    gradients: Mapping[str, Gradient],
    moving: list[str],
    rng: np.random.Generator,
    directions: int,
) -> _Measured:
    """Measure slopes along random directions of the tensors in ``moving``, beside what their gradients promise.

    A tensor without a gradient counts as one with a gradient of zero.
    """
    analytic, transposed, slopes = np.empty(directions), np.empty(directions), []  # (K,) each
    for i in range(directions):
        direction = {}
        for key in moving:  # numbers about as large as the tensor's own, or 1 if it is zero
            tensor = point.params[key]
            # in the tensor's own order in memory: adding the two is then several times as fast
            drawn = rng.standard_normal(tensor.shape[::-1]).T if tensor.flags.fnc else rng.standard_normal(tensor.shape)
            direction[key] = drawn * (_rms(tensor) or 1.0)
        known = [(gradients[key], v) for key, v in direction.items() if key in gradients]
        analytic[i] = sum(_along(gradient, v) for gradient, v in known)
        transposed[i] = sum(_along(gradient, v.T if v.shape == v.T.shape else v) for gradient, v in known)
        slopes.append(_slope(point, direction, name))
    tensors = [point.params[key] for key in moving]
    _, _, doubt, noise = zip(*slopes, strict=True)
    return _Measured(
        name,
        tensors[0].shape if name in moving else (sum(tensor.size for tensor in tensors),),
        analytic,
        transposed,
        numeric=np.array([slope.value for slope in slopes]),
        doubt=np.array(doubt),
        noise=max(noise),
        narrow=any(numbers_of(gradients[key]).dtype != np.float64 for key in moving if key in gradients),
    )


def _along(gradient: Gradient, v: Array) -> float:
    """Return ``<gradient, v>``; the rows that a RowGradient leaves out are zero."""
    return float(np.sum(numbers_of(gradient) * (v[gradient.rows] if isinstance(gradient, RowGradient) else v)))


def _rms(numbers: Array) -> float:
    """Root of the mean square."""
    return math.sqrt(float(np.mean(np.square(numbers))))


def _slope(point: _Point, direction: Mapping[str, Array], name: str) -> _Slope:
    """Measure the slope along a direction, with smaller steps where it bends sharply."""
    found = []
    for h in (_STEP, _STEP / 8, _STEP / 64, _STEP / 512):
        at = {}  # with the steps h and h/2
        for k in (-4, -2, -1, 1, 2, 4):
            moved = {key: point.params[key] + (k * h / 2) * v for key, v in direction.items()}
            at[k] = _value(point.loss, point.params | moved, f"{abs(k) * h / 2:.0e} away from params along {name}")
        coarse = (8 * (at[2] - at[-2]) - (at[4] - at[-4])) / (12 * h)
        fine = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (6 * h)
        # right minus left slope shrinks with the step, unless the slope jumps at the point itself
        jump = 2 * (at[1] - 2 * point.value + at[-1]) / (h / 2) - (at[2] - 2 * point.value + at[-2]) / h
        change, largest = abs(fine - coarse), max(abs(point.value), *map(abs, at.values()))
        found.append(_Slope(fine, change, max(change, abs(jump)), _ROUNDING * largest / h))
        best = min(found, key=lambda slope: slope.change + slope.noise)
        if best.change <= point.precision * abs(best.value) + best.noise:
            break
    return best


# ------------------------------------------------------------------------------------- which mistake does it look like?
# The error is ``|analytic - numeric| / max(|analytic|, |numeric|, 1e-4 of the whole)``, all sizes the root of the mean
# square over the directions; the whole is the slope when all tensors move at once. So a tensor whose gradient is
# rightly zero, as that of the key bias in attention, passes with the rounding error that it has instead. Differences
# below what the rounding of the loss can make do not count. A difference within ten times the doubt about the slope is
# "not smooth", not "wrong".


_FLOOR = 1e-4  # of the whole: below it a tensor's gradient is measured against the whole


def _judge(measured: _Measured, fault: str, scale: float, tolerance: float, sizes: Mapping[str, int]) -> GradientRow:
    """Turn a measurement into a row of the report.

    ``fault`` says why the gradient cannot be compared at all; ``scale`` is the size of the slope of the whole.

    >>> slopes, doubt = np.array([1.0, -3.0]), np.zeros(2)
    >>> measured = _Measured("bias", (3,), 4 * slopes, 4 * slopes, slopes, doubt, noise=1e-12, narrow=False)
    >>> _judge(measured, "", 2.0, 1e-7, {"B": 4}).diagnosis
    'too large by the factor 4 = B: a sum where a mean belongs?'
    """
    a, n = measured.analytic, measured.numeric
    i = int(np.argmax(np.abs(a - n)))
    if fault:
        return GradientRow(measured.name, measured.shape, math.nan, float(n[i]), math.inf, "wrong", fault)
    difference, floor = _rms(a - n), max(_FLOOR * scale, measured.noise / tolerance)
    error = difference / max(_rms(a), _rms(n), floor) if difference else 0.0
    verdict, text = "wrong", ""
    if error <= tolerance:
        verdict = "ok"
    elif difference <= 10 * _rms(measured.doubt):
        verdict = "not smooth"
        text = "the slope jumps here (relu at 0, a tie in a maximum) or the loss is computed in float32; move the point"
    else:
        text = _diagnose(measured, floor * tolerance, sizes) + ("; it is not float64" if measured.narrow else "")
    return GradientRow(measured.name, measured.shape, float(a[i]), float(n[i]), error, verdict, text)


def _diagnose(measured: _Measured, nothing: float, sizes: Mapping[str, int]) -> str:
    """Name the mistake that a wrong gradient looks like; below ``nothing`` a slope counts as zero.

    One that is the right one times the same number along all directions has its sign turned, or a sum where a mean
    belongs. One whose transpose is right is transposed. In all others a term is missing or wrong.
    """
    a, n = measured.analytic, measured.numeric
    if _rms(a) <= nothing:
        return "nothing came back: the gradient is zero"
    if _rms(n) <= nothing:
        return "the loss does not change with it, but a gradient came back; does the loss read its argument?"
    ratio = float(np.dot(a, n) / np.dot(n, n))
    if len(a) > 1 and np.abs(a - ratio * n).max() <= 1e-5 * _rms(a):
        said = ["the sign is turned"] if ratio < 0 else []
        factor, is_large = max(abs(ratio), 1 / abs(ratio)), abs(ratio) > 1
        for root, power, mistake in (
            ("{}", 1.0, "a sum where a mean belongs?" if is_large else "a mean where a sum belongs?"),
            ("sqrt({})", 0.5, "is the scaling missing?" if is_large else "scaled twice?"),
        ):
            near = [
                name for name, size in sizes.items() if size > 1 and math.isclose(factor, size**power, rel_tol=1e-5)
            ]
            if near:
                way, letters = "large" if is_large else "small", root.format(" or ".join(near))
                return "; ".join([*said, f"too {way} by the factor {factor:.6g} = {letters}: {mistake}"])
        return "; ".join([*said, *([f"off by the factor {abs(ratio):.6g}"] if factor >= 1 + 1e-5 else [])])
    if np.abs(measured.transposed - n).max() <= 1e-5 * _rms(n):
        return "it is transposed"
    return "no single factor puts it right: a term is missing, or one is wrong" if len(a) > 1 else "it is wrong"


def _find_fault(tensor: Array, gradient: Gradient | None) -> str:
    """Say why a gradient cannot be compared at all; empty if it can."""
    if gradient is None:
        return "no gradient came back"
    if isinstance(gradient, RowGradient):
        rows, shape = gradient.rows, gradient.values.shape
        if gradient.row_count != len(tensor) or shape != (len(rows), *tensor.shape[1:]):
            return f"{len(rows)} rows {shape} of {gradient.row_count} came back, but the table is {tensor.shape}"
        if len(np.unique(rows)) != len(rows):
            return "a row stands twice: the gradients of its uses must be added up"
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(tensor):
            return f"rows {rows.min()} to {rows.max()} came back, but the table is {tensor.shape}"
    elif not isinstance(gradient, np.ndarray):
        return f"a {type(gradient).__name__} came back, not an array"
    elif gradient.shape != tensor.shape:
        hints = {
            ": transposed": gradient.shape == tensor.shape[::-1],
            ": a reshape, or a sum without keepdims=False": gradient.size == tensor.size,
            ": the sum over the leading axes is missing": gradient.shape[-tensor.ndim :] == tensor.shape,
        }
        hint = next((hint for hint, fits in hints.items() if fits), "")
        return f"its shape is {gradient.shape}, but the tensor's is {tensor.shape}{hint}"
    values = numbers_of(gradient)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        return f"NaN or Inf in {len(bad)} of {values.size} numbers, the first at {tuple(bad[0].tolist())}"
    return ""


# ----------------------------------------------------------------------------------------------------------- the report
# The table goes through the tensors as the backward pass does, from the loss to the input, and names the first that is
# wrong: a mistake spoils all that comes after it.


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
        """The wrong tensor nearest to the loss: a mistake spoils all that comes after it."""
        return next((row for row in (*reversed(self.rows), self.whole) if not row.ok), None)

    def __str__(self) -> str:
        lines = [("tensor", "shape", "analytic", "numeric", "error", "")]
        for row in (self.whole, *reversed(self.rows)):  # as the backward pass meets them
            mark = "ok" if row.ok else f"<-- {row.verdict}: {row.diagnosis}"
            numbers = f"{row.analytic:.6e}", f"{row.numeric:.6e}", f"{row.error:.1e}"
            lines.append((row.name, str(row.shape), *numbers, mark))
        width = [max(len(line[column]) for line in lines) for column in range(5)]
        table = [
            f"  {a:{width[0]}}  {b:{width[1]}}  {c:>{width[2]}}  {d:>{width[3]}}  {e:>{width[4]}}  {f}".rstrip()
            for a, b, c, d, e, f in lines
        ]
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
