"""The house stands as planned: imports point up the list, no framework, no assert, light on its feet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "minisbert"

# The rooms in the order in which data flows. A module imports only from modules above it.
ORDER = [
    "model",
    "model.config",
    "model.checkpoint",
    "model.params",
    "model.gradients",
    "model.tokens",
    "model.tokenizer_json",
    "model.unicode_ages",
    "model.wordpiece",
    "model.ops",
    "model.bert",
    "model.pooling",
    "model.modules",
    "model.modules_json",
    "model.folder",
    "similarity",
    "distances",
    "trace",
    "chunking",
    "composition",
    "sources",
    "pinned",
    "hub",
    "blas",
    "schedule",
    "options",
    "pipeline",
    "transformer",
    "encoder",
    "origin",
    "remote",
    "client",
    "tables",
    "files",
    "plots.style",
    "plots.placing",
    "plots.heat",
    "plots.matrix",
    "plots.heads",
    "plots.plane",
    "plots.line_chart",
    "plots.bar_chart",
    "plots.picture",
    "plots",
    "evaluation",
    "evaluation.correlation",
    "evaluation.sts",
    "evaluation.published",
    "evaluation.layers",
    "evaluation.ranking",
    "evaluation.bootstrap",
    "evaluation.classification",
    "evaluation.retrieval_set",
    "evaluation.retrieval",
    "evaluation.lengths",
    "search",
    "search.scoring",
    "search.exact",
    "search.mining",
    "search.communities",
    "search.matching",
    "search.errors",
    "search.storage",
    "search.documents",
    "search.filters",
    "search.indexing",
    "search.memory",
    "search.searching",
    "search.database",
    "search.routes",
    "search.route_files",
    "search.router",
    "search.route_report",
    "search.route_fitting",
    "training",
    "training.loss_arguments",
    "training.losses",
    "training.parameters",
    "training.step",
    "training.slopes",
    "training.gradient_report",
    "training.verdicts",
    "training.gradcheck",
    "training.blocks",
    "training.optim_arguments",
    "training.moments",
    "training.optim",
    "training.pace",
    "training.data",
    "training.batches",
    "training.settings",
    "training.objective",
    "training.checkpoint",
    "training.dev",
    "training.finetune",
    "training.scratch",
    "training.geometry",
    "training.plane",
    "training.plane_picture",
    "analysis",
    "analysis.calibration",
    "analysis.explain",
    "analysis.maps",
    "analysis.naming",
    "analysis.clusters",
    "analysis.map_picture",
    "analysis.map_page",
    "analysis.saved",
    "analysis.probe",
    "analysis.classifier",
    "analysis.classifier_report",
    "analysis.tagging",
    "analysis.decoding",
    "analysis.word_vectors",
    "analysis.tag_probe",
    "analysis.entities",
    "analysis.entity_report",
    "proof",
    "proof.ledger",
    "proof.steps",
    "proof.torch_model",
    "proof.torch_steps",
    "proof.record",
    "proof.reading_path",
    "proof.ceiling",
    "proof.costs",
    "proof.profile",
    "proof.pays",
    "course",
    "course.exercises",
    "course.checking",
    "course.run",
    *(f"course.chapter_{number:02}" for number in range(1, 11)),
    "bench",
    "bench.engines",
    "bench.trainers",
    "bench.worker",
    "bench.database",
    "bench.texts",
    "bench.measure",
    "bench.training",
    "bench.run",
    "bench.report",
    "bench.picture",
    "",  # minisbert itself: public names
    "cli",
    "__main__",
]
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room(name: str) -> str:
    return name.split(".")[0] if name.startswith("cli.") else name


def imported(file: Path) -> set[str]:
    """Names of this package's modules that a file imports, at its top or inside a function."""
    known = {module_name(other) for other in FILES}
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "minisbert":
            base = node.module.removeprefix("minisbert").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}" if base else alias.name
                found.add(inner if inner in known else base)
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix("minisbert").removeprefix(".")
                for a in node.names
                if a.name.split(".")[0] == "minisbert"
            }
    return found


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_imports_point_up_the_list(file):
    here = room(module_name(file))
    assert here in ORDER, f"{here} has no place in the order of the house"
    for other in imported(file):
        assert room(other) == here == "cli" or ORDER.index(room(other)) < ORDER.index(here), f"{here} imports {other}"


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_no_assert_bare_except_print_or_open_end(file):
    for node in ast.walk(ast.parse(file.read_text())):
        assert not isinstance(node, ast.Assert), f"{file.name}:{node.lineno} asserts; raise ValueError"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{file.name}:{node.lineno} bare except"
    assert not {"TODO", "FIXME"} & set(file.read_text().split())


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_functions_fit_on_a_screen(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            has_docstring = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
            body = node.body[1:] if has_docstring and len(node.body) > 1 else node.body
            assert node.end_lineno - body[0].lineno + 1 <= 45, f"{file.name}: {node.name} is too long for a screen"


def test_importing_is_light_and_brings_no_framework():
    code = (
        "import sys, minisbert\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'scipy', 'sklearn', 'pandas', 'huggingface_hub',"
        " 'matplotlib', 'tensorflow', 'jax'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_inference_brings_no_framework(weights_folder):
    code = (
        "import sys, minisbert\n"
        f"minisbert.SentenceEncoder({str(weights_folder)!r}).encode('hello')\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'scipy', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
