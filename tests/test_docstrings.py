"""Every example in a docstring runs and prints what it says; every public thing has a docstring with one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import minisbert

MODULES = sorted(
    m.name for m in pkgutil.walk_packages(minisbert.__path__, "minisbert.") if m.name != "minisbert.__main__"
)
# their examples encode real text
NEED_WEIGHTS = {
    "minisbert.trace",
    "minisbert.encoder",
    "minisbert.options",
    "minisbert.pipeline",
    "minisbert.client",
    "minisbert.evaluation.retrieval",
    "minisbert.evaluation.lengths",
    "minisbert.evaluation.layers",
    "minisbert.origin",
    "minisbert.search.mining",
    "minisbert.search.indexing",
    "minisbert.training.parameters",
    "minisbert.training.step",
    "minisbert.training.finetune",
    "minisbert.analysis.calibration",
    "minisbert.analysis.explain",
    "minisbert.analysis.classifier",
    "minisbert.analysis.entities",
    "minisbert.analysis.word_vectors",
    "minisbert.proof.profile",
    "minisbert.bench.engines",
    "minisbert.bench.trainers",
    "minisbert.bench.worker",
    "minisbert.bench.texts",
    "minisbert.bench.measure",
    "minisbert.bench.run",
    "minisbert.proof.ledger",
    "minisbert.proof.torch_model",
    "minisbert.proof.torch_steps",
    "minisbert.proof.steps",
    "minisbert.course.chapter_05",
}
NEED_TORCH = {"minisbert.proof.record", "minisbert.proof.torch_model", "minisbert.proof.torch_steps"}


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name, request):
    if name in NEED_WEIGHTS:
        request.getfixturevalue("weights_folder")
    if name in NEED_TORCH:
        request.getfixturevalue("torch")
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("minisbert.cli")])
def test_public_functions_are_documented(name, request):
    if name in NEED_TORCH:
        request.getfixturevalue("torch")
    module = importlib.import_module(name)
    assert module.__doc__
    for public, thing in vars(module).items():
        if public.startswith("_") or getattr(thing, "__module__", None) != name:
            continue
        if inspect.isfunction(thing):
            assert thing.__doc__, f"{name}.{public} has no docstring"
            for section in ("Parameters", "Examples"):
                wanted = section != "Parameters" or inspect.signature(thing).parameters
                assert not wanted or section in thing.__doc__, f"{name}.{public}: no section {section}"
        elif inspect.isclass(thing):
            assert thing.__doc__, f"{name}.{public} has no docstring"
