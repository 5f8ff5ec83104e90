"""The house stands as planned: imports point up the list of rooms, no framework, no assert, light on its feet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CORE, NUMBERS

PACKAGE = Path(__file__).resolve().parent.parent / "minisbert"

# Data flows down this list; a room imports only from rooms above it. Files of one line are neighbours, such as the
# parts of the encoder: they may import each other.
ORDER = [
    "files html_page",
    "model",
    "checks",
    "similarity",
    "long_texts parallel hub model_card encoder saved sklearn mteb llm",
    "bulk client nearest tables",
    "plots",
    "evaluation",
    "search",
    "training",
    "analysis",
    "proof",
    "page",
    "course",
    "bench",
    "__init__",  # the public names
    "serve",
    "cli __main__",
]
PLACE = {room: place for place, rooms in enumerate(ORDER) for room in rooms.split()}


@pytest.fixture(scope="module")
def files():
    """Every file of the package, parsed."""
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """'model.bert' -> 'model'; the package itself is its ``__init__``."""
    return module.split(".")[0] or "__init__"


def imported(tree: ast.AST) -> set[str]:
    """The rooms of this package that a file imports from, at its top or inside a function."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "minisbert":
            module = node.module.removeprefix("minisbert").removeprefix(".")
            found |= {room(module or alias.name if alias.name in PLACE else module) for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "minisbert"]
            found |= {room(name.removeprefix("minisbert").removeprefix(".")) for name in names}
    return found


def test_imports_point_up_the_list(files):
    wrong = []
    for file, tree in files.items():
        here = room(".".join(file.relative_to(PACKAGE).with_suffix("").parts))
        assert here in PLACE, f"{here} has no place in the order of the house"
        if here != "__init__":  # it imports names when they are first asked for
            wrong += [f"{here} imports {other}" for other in imported(tree) if PLACE[other] > PLACE[here]]
    assert not wrong


def test_no_assert_bare_except_or_open_end(files):
    wrong = []
    for file, tree in files.items():
        bad = [
            n for n in ast.walk(tree) if isinstance(n, ast.Assert) or (isinstance(n, ast.ExceptHandler) and not n.type)
        ]
        wrong += [f"{file.name}:{node.lineno}" for node in bad]
        wrong += [f"{file.name}: {word}" for word in ("TODO", "FIXME") if word in file.read_text(encoding="utf-8")]
    assert not wrong


WIDE = {
    "model/tokens.py": "token ids, as Hugging Face's",
    "search/database.py": "DuckDB's numbers",
    "bench/engines.py": "ONNX Runtime's input",
    "proof/profile.py": "a sum of squares",
    "nearest.py": "numbers of pairs",
    "analysis/calibration.py": "numbers of pairs",
}
"""Where a number has 64 bits on every platform, and why."""


def test_what_counts_is_as_wide_as_numpy_counts(files):
    """np.repeat and np.bincount refuse int64 where NumPy counts in 32 bits (WebAssembly, armv7): counts are np.intp."""
    named = {
        file.relative_to(PACKAGE).as_posix()
        for file, tree in files.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("int64", "longlong") and ast.unparse(node.value) == "np"
    }
    assert named == set(WIDE)


def loaded_after(code: str) -> set[str]:
    """The libraries among the heavy ones that a fresh process has loaded after some code."""
    heavy = "torch transformers sentence_transformers scipy sklearn pandas huggingface_hub matplotlib tensorflow jax"
    code += f"\nimport sys\nprint(*(set({heavy.split()}) & set(sys.modules)))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_is_light_and_brings_no_framework():
    assert loaded_after("import minisbert") == set()


def test_inference_brings_no_framework(weights_folder):
    code = f"import minisbert\nminisbert.SentenceEncoder({str(weights_folder)!r}).encode('hello')"
    assert loaded_after(code) == set()


def test_the_tests_that_conftest_marks_are_there():
    there = {file.stem.removeprefix("test_") for file in Path(__file__).parent.glob("test_*.py")}
    assert {*CORE.split(), *NUMBERS.split()} <= there
