"""What training changes: every weight of a sentence model by its name, out of the model and back into it.

The forward and backward passes use nested dataclasses, which read well; an optimiser, a checkpoint and a gradient check
want to go through all tensors in turn. Here are both ways between the two: names are the checkpoint's, so that a
parameter is called the same in a file, in PyTorch and in a report. Next: ``step.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from minisbert.model import Array
from minisbert.model.folder import SentenceModel
from minisbert.model.params import BertGradients, Gradient, RowGradient, build_params, flatten, tensor_shapes
from minisbert.model.pooling import Dense, DenseGradients

_DENSE_NAMES = {"weight": "linear.weight", "bias": "linear.bias", "residual": "residual.weight"}
"""Fields of a Dense module, and what sentence-transformers calls them."""


def named_parameters(model: SentenceModel) -> dict[str, Array]:
    """List every weight of a model under its checkpoint name.

    Parameters
    ----------
    model : SentenceModel

    Returns
    -------
    dict of str to Array
        The model's own arrays, not copies. BERT's first, in the order of the forward pass; then those of Dense modules,
        as ``"modules.1.linear.weight"``, where 1 is the module's place in ``model.modules``.

    Notes
    -----
    **Source**: ``torch.nn.Module.named_parameters``.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> named = named_parameters(SentenceEncoder().model)
    >>> len(named), sum(array.size for array in named.values())
    (101, 22565376)
    """
    named = dict(zip(tensor_shapes(model.config), flatten(model.params), strict=True))
    for i, module in enumerate(model.modules):
        if isinstance(module, Dense):
            named |= _named_fields(f"modules.{i}", module)
    return named


def replace_parameters(model: SentenceModel, named: Mapping[str, Array]) -> SentenceModel:
    """Give a model with other weights; the model itself stays as it is.

    Parameters
    ----------
    model : SentenceModel
    named : mapping of str to Array
        All names of :func:`named_parameters`, with the same shapes; others, such as a loss's own weights, are passed
        over. The arrays are not copied.

    Returns
    -------
    SentenceModel

    Raises
    ------
    ValueError
        For names that are missing, and for other shapes.

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> model = SentenceEncoder().model
    >>> doubled = {name: 2 * array for name, array in named_parameters(model).items()}
    >>> float(replace_parameters(model, doubled).params.embeddings.word[0, 0] / model.params.embeddings.word[0, 0])
    2.0
    """
    for name, array in named_parameters(model).items():
        if name not in named:
            raise ValueError(f"replace_parameters: {name!r} is missing; are these the weights of another model?")
        if named[name].shape != array.shape:
            raise ValueError(
                f"replace_parameters: expected {name} of shape {array.shape}, got {named[name].shape}; are these the "
                "weights of another model?"
            )
    params = build_params(model.config, lambda name, shape: named[name])
    modules = list(model.modules)
    for i, module in enumerate(modules):
        if isinstance(module, Dense):
            tensors: dict[str, Any] = {field: named[name] for field, name in _fields(f"modules.{i}", module)}
            modules[i] = replace(module, **tensors)
    return replace(model, params=params, modules=tuple(modules))


def named_gradients(
    model: SentenceModel, gradients: BertGradients, module_gradients: list[DenseGradients | None]
) -> dict[str, Gradient]:
    """List every gradient under the name of what it belongs to.

    Parameters
    ----------
    model : SentenceModel
    gradients : BertGradients
        From :func:`~minisbert.model.bert.bert_backward`.
    module_gradients : list of DenseGradients or None
        From :func:`~minisbert.model.pooling.modules_backward`.

    Returns
    -------
    dict of str to Array or RowGradient
        The names of :func:`named_parameters`, in the same order.

    Examples
    --------
    :func:`minisbert.training.step.value_and_gradients` shows it on a real model.
    """
    named: dict[str, Gradient] = dict(zip(tensor_shapes(model.config), _leaves(gradients), strict=True))
    for i, gradient in enumerate(module_gradients):
        if gradient is not None:
            named |= _named_fields(f"modules.{i}", gradient)
    return named


def copy_parameters(named: Mapping[str, Array]) -> dict[str, Array]:
    """Copy arrays, each in its own order in memory, so that training may overwrite them.

    Parameters
    ----------
    named : mapping of str to Array

    Returns
    -------
    dict of str to Array

    Examples
    --------
    >>> copied = copy_parameters({"weight": np.asfortranarray(np.ones((2, 3)))})
    >>> copied["weight"].flags.f_contiguous
    True
    """
    return {name: np.array(array, order="K") for name, array in named.items()}


def _fields(name: str, module: Dense | DenseGradients) -> Iterator[tuple[str, str]]:
    """Give the fields that hold a tensor, each with its full name."""
    for field, ending in _DENSE_NAMES.items():
        if getattr(module, field) is not None:
            yield field, f"{name}.{ending}"


def _named_fields(name: str, module: Dense | DenseGradients) -> dict[str, Any]:
    """List the tensors of a Dense module, or their gradients."""
    return {full: getattr(module, field) for field, full in _fields(name, module)}


def _leaves(tree: Any) -> Iterator[Gradient]:
    """Give the gradients one by one, in the order of the fields."""
    if isinstance(tree, (np.ndarray, RowGradient)):
        yield tree
        return
    branches = tree if isinstance(tree, tuple) else [getattr(tree, field.name) for field in fields(tree)]
    for branch in branches:
        yield from _leaves(branch)
