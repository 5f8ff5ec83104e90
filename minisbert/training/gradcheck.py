"""Is a gradient that was written by hand right? Random directions, finite differences, and a guess at the mistake.

A gradient promises how fast the loss changes when its tensor moves: by ``<gradient, v>`` for each unit of a step
along ``v``. Here the step is taken and the loss measured. If the two numbers agree along a few random ``v``, the whole
gradient is right: a wrong one would have to be wrong at right angles to every ``v``, and a random ``v`` does not do
that favour.

:func:`check_backward` judges the backward of one operation, :func:`check_gradients` the gradients of a loss with
respect to any number of tensors, :func:`check_encoder` those of a whole sentence model under a loss. All give a
``GradientReport``, whose text names the first wrong tensor on the way back from the loss and, where it can be told, the
mistake: sign, factor, transposition, a sum that is missing.

**Never an upstream gradient of ones.** The rows of a softmax sum to 1, and those of a normalised input to 0, whatever
the input is. With ``d_y = 1`` the gradients of both are zero, so that a backward with a term missing, or one that gives
back zeros, passes. The upstream gradient here is drawn at random, and there is no way to give another.

How slopes are measured stands in ``slopes.py``, what counts as right and what a mistake looks like in ``verdicts.py``.

Left out on purpose: single numbers of a tensor, one by one. That takes as many steps as there are numbers, and a random
direction finds the same mistakes.

Next file: ``blocks.py``, with which begins what becomes of a gradient: a step against it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minisbert.model import Array
from minisbert.model.bert import bert
from minisbert.model.folder import SentenceModel
from minisbert.model.params import Gradient
from minisbert.model.pooling import apply_modules
from minisbert.model.tokens import OverflowReport
from minisbert.parallel import threads
from minisbert.training.gradient_report import GradientReport
from minisbert.training.losses import LOSSES, LossResult, find_false_negatives
from minisbert.training.parameters import named_parameters, replace_parameters
from minisbert.training.slopes import Loss, measure, rms, stand_at
from minisbert.training.step import LossFunction, value_and_gradients
from minisbert.training.verdicts import find_fault, find_notes, judge

__all__ = ["check_backward", "check_encoder", "check_gradients"]


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
    """Judge the backward pass of one operation, ``y = forward(*arguments)``.

    The loss is ``<d_y, forward(*arguments)>`` with a random ``d_y``; ``backward(d_y, *arguments)`` is its gradient.

    Parameters
    ----------
    forward : callable
        Takes the arguments in their order, gives one array.
    backward : callable
        Takes ``d_y``, of the shape of ``y``, and then the arguments; gives one gradient for each array of
        floating-point numbers among them, in order: a tuple, or the gradient itself if it is the only one.
    arguments : mapping of str to value, or sequence
        Arrays of floating-point numbers are what is differentiated. All else (token ids, lengths, an eps) is handed on
        as it is. float32 arrays are widened, with a note in the report.
    rng : np.random.Generator
        Draws ``d_y`` and the directions.
    directions : int
        Random directions for each argument, at least 1; to tell a factor from a missing term takes 2.
    tolerance : float
        Largest relative error that passes.
    sizes : mapping of str to int, optional
        Sizes by their letters, such as ``{"B": 7}``: a gradient that is off by one of them is then explained.

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
    named, notes = _widened(arguments)
    y = _call("forward", forward, list(named.values()))
    if not isinstance(y, np.ndarray) or y.dtype != np.float64 or not np.isfinite(y).all():
        raise ValueError(
            f"check_backward: forward must give one array of finite float64 numbers for float64 arguments, but gave "
            f"{_describe(y)}. Look for an astype or a float32 constant inside, and for a division by zero."
        )
    rng = _own(rng)
    d_y = rng.standard_normal(y.shape)
    moving = {name: value for name, value in named.items() if _is_floating(value)}
    gradients = _by_name(_call("backward", backward, [d_y, *named.values()]), list(moving))

    def loss(params: dict[str, Array]) -> float:
        return float(np.vdot(d_y, forward(*(named | params).values())))

    report = check_gradients(loss, moving, gradients, rng=rng, directions=directions, tolerance=tolerance, sizes=sizes)
    return replace(report, notes=(*notes, *report.notes))


def _own(rng: np.random.Generator) -> np.random.Generator:
    """Make a generator of its own: one that stands where it drew ``x`` from the same seed would draw ``d_y = x``."""
    return np.random.default_rng(rng.integers(2**32, size=4))


def _is_floating(value: Any) -> bool:
    """Whether a value is an array that can be differentiated."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _widened(arguments: Mapping[str, Any] | Sequence[Any]) -> tuple[dict[str, Any], list[str]]:
    """Name the arguments and turn their floating-point numbers into float64."""
    if not isinstance(arguments, Mapping):
        arguments = {f"argument {i}": value for i, value in enumerate(arguments)}
    narrow = [name for name, value in arguments.items() if _is_floating(value) and value.dtype != np.float64]
    named = {name: np.asarray(value, np.float64) if name in narrow else value for name, value in arguments.items()}
    if not any(_is_floating(value) for value in named.values()):
        raise ValueError(
            f"check_backward: expected at least one array of floating-point numbers among the arguments, got "
            f"{', '.join(f'{name}: {_describe(value)}' for name, value in named.items()) or 'none'}. Lists and "
            f"integers are not differentiated; wrap numbers in np.array([...], dtype=np.float64)."
        )
    return named, [f"{name} was widened to float64: finite differences in float32 show nothing" for name in narrow]


def _call(role: str, function: Callable[..., Any], arguments: list[Any]) -> Any:
    """Call a function and see that it leaves its arguments alone."""
    before = [np.copy(value) if isinstance(value, np.ndarray) else None for value in arguments]
    result = function(*arguments)
    for i, (old, value) in enumerate(zip(before, arguments, strict=True)):
        if old is not None and not np.array_equal(old, value, equal_nan=old.dtype.kind == "f"):
            raise ValueError(
                f"check_backward: {role} must leave its arguments alone, but changed number {i} (from 0), of shape "
                f"{old.shape}. Look for +=, *= or out= on an argument; work on a copy, or check a wrapper that copies."
            )
    return result


def _by_name(returned: Any, names: list[str]) -> dict[str, Gradient | None]:
    """Give each differentiated argument its gradient."""
    gradients = returned if isinstance(returned, (tuple, list)) else (returned,)
    if len(gradients) != len(names):
        raise ValueError(
            f"check_backward: backward must give {len(names)} gradient{'s' if len(names) > 1 else ''}, for "
            f"{', '.join(names)} in this order, but gave {len(gradients)}. Give settings such as an eps as plain "
            f"numbers; None stands for a gradient that you do not have yet."
        )
    return dict(zip(names, gradients, strict=True))


def _describe(value: Any) -> str:
    """Say what a value is, in a few words."""
    if not isinstance(value, np.ndarray):
        return f"a {type(value).__name__}"
    bad = int(np.sum(~np.isfinite(value))) if value.dtype.kind == "f" else 0
    return f"{value.dtype} {value.shape}" + (f" with {bad} NaN or Inf" if bad else "")


# -------------------------------------------------------------------------------------------------- whole losses


def check_gradients(
    loss: Loss,
    params: Mapping[str, Array],
    gradients: Mapping[str, Gradient | None],
    *,
    rng: np.random.Generator,
    directions: int = 3,
    tolerance: float = 1e-7,
    sizes: Mapping[str, int] | None = None,
    only: Collection[str] | None = None,
) -> GradientReport:
    """Judge the gradients of a loss: all tensors moving at once, then each alone.

    ``<gradient, v>`` is compared with the slope of ``loss(params + t v)`` at ``t = 0``, for random ``v``.

    Parameters
    ----------
    loss : callable
        Takes a dict with the names of ``params``, gives one number. It must read all it needs from that dict.
    params : mapping of str to Array
        float64, in the order of the forward pass: the report goes through them backwards.
    gradients : mapping of str to Array or RowGradient
        At ``params``, each of its tensor's shape. The rows that a RowGradient leaves out are checked as well: the
        directions move the whole table.
    rng : np.random.Generator
        Draws the directions.
    directions : int
        For each tensor, and for all together; at least 1.
    tolerance : float
        Largest relative error that passes.
    sizes : mapping of str to int, optional
        Sizes by their letters, to explain a wrong factor with.
    only : collection of str, optional
        Tensors to judge one by one, by default all. All together are judged in any case: with ``only=()`` the check
        of a large model costs no more than that of a small one.

    Returns
    -------
    GradientReport

    Raises
    ------
    ValueError
        If a tensor is not float64 (float32 gradients have an error of their own that hides mistakes), something is NaN
        or Inf, the loss is not one number or gives two answers to one question, or names do not fit.

    Notes
    -----
    Each direction takes 6 calls of the loss, more where it bends sharply.

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
    names = list(params) if only is None else [name for name in params if name in set(only)]
    _check_inputs(params, gradients, directions, only or ())
    rng = _own(rng)
    point = stand_at(loss, params, precision=tolerance / 10)
    faults = {name: find_fault(params[name], gradients.get(name)) for name in params}
    known = {name: gradient for name, gradient in gradients.items() if gradient is not None and not faults[name]}
    whole = measure("everything", point, known, list(params), rng, directions)
    tensors = [measure(name, point, known, [name], rng, directions) for name in names]
    scale = max(rms(measured.numeric) for measured in (whole, *tensors))
    rows = [judge(measured, faults[measured.name], scale, tolerance, sizes or {}) for measured in tensors]
    lost = "some gradients cannot be compared" if any(faults.values()) else ""
    all_of_it = judge(whole, lost, scale, tolerance, sizes or {})
    if not all_of_it.ok and not all(row.ok for row in rows):
        all_of_it = replace(all_of_it, diagnosis="see below")
    return GradientReport(tuple(rows), all_of_it, tolerance, tuple(find_notes(whole, scale, tolerance)))


def _check_inputs(
    params: Mapping[str, Array], gradients: Mapping[str, Gradient | None], directions: int, only: Collection[str]
) -> None:
    """Refuse what cannot be checked."""
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
    for what, strange in (("gradients", set(gradients) - set(params)), ("only", set(only) - set(params))):
        if strange:
            raise ValueError(
                f"check_gradients: {what} has names that params has not: {', '.join(sorted(strange))}. The tensors "
                f"are {', '.join(params)}."
            )


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
    """Judge every gradient that a training step gives: from the loss back through the modules and BERT.

    The gradients are :func:`~minisbert.training.step.value_and_gradients`'; the slopes are those of the loss of plain
    inference, :func:`~minisbert.model.bert.bert`, which keeps no trace. Nothing is dropped.

    Parameters
    ----------
    model : SentenceModel
        float32 weights are widened.
    columns : sequence of sequences of str
        Such as anchors and positives, a few short texts of each; for ``"simcse"`` one column.
    loss : str or callable
        A key of :data:`~minisbert.training.losses.LOSSES`, with its own defaults, or a function from the vectors of
        the columns, ``(B, D)`` each, to a LossResult. ``"softmax"`` gets a random classifier, which is checked as well.
    rng : np.random.Generator
        Draws the directions, and that classifier.
    targets : sequence of float, optional
        Scores or labels, for the losses that compare with them.
    directions, tolerance, only
        As for :func:`check_gradients`; the names are those of
        :func:`~minisbert.training.parameters.named_parameters`.

    Returns
    -------
    GradientReport

    Raises
    ------
    ValueError
        For a loss of an unknown name, targets that are missing or not wanted, and whatever the loss refuses.

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
    model = replace_parameters(model, params)
    if isinstance(loss, str):
        columns, head, function = _named_loss(loss, columns, targets, model.full_width, rng)
    else:
        head, function = {}, lambda vectors, _: loss(vectors)
    texts = [text for column in columns for text in column]
    tokens = model.tokenizer(texts, model.max_seq_length)

    def value(moved: dict[str, Array]) -> float:
        there = replace_parameters(model, moved)
        strip = bert(tokens.token_ids, tokens.lengths, there.params, there.config)
        vectors = apply_modules(strip, tokens.lengths, there.modules)[-1]
        return function(np.split(vectors, len(columns)), {name: moved[name] for name in head}).value

    report = OverflowReport(model.max_seq_length, "truncate")  # both sides read the same, so a cut does no harm
    step = value_and_gradients(model, columns, lambda vectors: function(vectors, head), num_threads=1, report=report)
    with threads.hold(1):  # products of a few rows: more threads would spend their time waiting for each other
        return check_gradients(
            value, params | head, step.gradients, rng=rng, directions=directions, tolerance=tolerance, only=only
        )


LossWithHead = Callable[[list[Array], Mapping[str, Array]], LossResult]
"""A loss of the columns' vectors and of weights of its own, by their names in training."""


def _named_loss(
    name: str, columns: Sequence[Sequence[str]], targets: Sequence[float] | None, width: int, rng: np.random.Generator
) -> tuple[Sequence[Sequence[str]], dict[str, Array], LossWithHead]:
    """Find a loss by its name: the columns that it compares, its own weights, and a function of vectors and those."""
    if name not in LOSSES:
        raise ValueError(f"check_encoder: loss must be one of {', '.join(LOSSES)}, or a function; got {name!r}")
    loss = LOSSES[name]
    if (targets is None) == (loss.data in ("scored", "labelled")):
        wanted = "needs targets, a number for each pair" if targets is None else "compares with no targets"
        raise ValueError(f"check_encoder: loss {name!r} {wanted}")
    if loss.data == "texts":
        columns = [*columns, *columns]  # both views; without dropout they are the same
    extra: dict[str, Any] = {}
    if loss.takes_false_negatives:
        extra["false_negatives"] = find_false_negatives(*columns)
    head = {}
    if loss.has_head and targets is not None:
        classes = 1 + max(1, int(max(targets)))
        head = {"head.weight": rng.normal(0, 0.5, (classes, 3 * width)), "head.bias": rng.normal(0, 0.5, classes)}

    def function(vectors: list[Array], head: Mapping[str, Array]) -> LossResult:
        return loss.function(*vectors, *([] if targets is None else [targets]), *head.values(), **extra)

    return columns, head, function
