"""Every weight of a sentence model by its checkpoint name, out of the model and back into it.

The forward and backward passes use nested dataclasses, which read well; an optimiser, a checkpoint and a gradient
check go through all tensors in turn. A parameter has the same name in a file, in PyTorch and in a report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from minisbert.model import Array
from minisbert.model.folder import SentenceModel
from minisbert.model.gradients import BertGradients, Gradient, RowGradient
from minisbert.model.modules import Dense, DenseGradients
from minisbert.model.params import build_params, flatten, tensor_shapes

_DENSE_NAMES = {
    "weight": "linear.weight",
    "bias": "linear.bias",
    "residual": "residual.weight",
}  # sentence-transformers'


def named_parameters(model: SentenceModel) -> dict[str, Array]:
    """List every weight of a model under its checkpoint name, as ``torch.nn.Module.named_parameters`` does.

    The arrays are the model's own, not copies: BERT's in the order of the forward pass, then those of Dense modules, as
    ``"modules.1.linear.weight"``, where 1 is the module's place in ``model.modules``.

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
    """Return the model with other weights, not copied, under all names of :func:`named_parameters`.

    Other names, such as those of a loss's own weights, are ignored.
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
    """List every gradient under the name of its weight, in the order of :func:`named_parameters`."""
    named: dict[str, Gradient] = dict(zip(tensor_shapes(model.config), _leaves(gradients), strict=True))
    for i, gradient in enumerate(module_gradients):
        if gradient is not None:
            named |= _named_fields(f"modules.{i}", gradient)
    return named


def copy_parameters(named: Mapping[str, Array]) -> dict[str, Array]:
    """Copy arrays, each in its own memory order, so that training may overwrite them."""
    return {name: np.array(array, order="K") for name, array in named.items()}


def _fields(name: str, module: Dense | DenseGradients) -> Iterator[tuple[str, str]]:
    """Yield each field that holds a tensor, with its full name."""
    for field, ending in _DENSE_NAMES.items():
        if getattr(module, field) is not None:
            yield field, f"{name}.{ending}"


def _named_fields(name: str, module: Dense | DenseGradients) -> dict[str, Any]:
    return {full: getattr(module, field) for field, full in _fields(name, module)}


def _leaves(tree: Any) -> Iterator[Gradient]:
    """Yield the gradients in the order of the fields."""
    if isinstance(tree, (np.ndarray, RowGradient)):
        yield tree
        return
    branches = tree if isinstance(tree, tuple) else [getattr(tree, field.name) for field in fields(tree)]
    for branch in branches:
        yield from _leaves(branch)
