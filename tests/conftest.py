"""What the tests lean on: the real weights, the evaluation data and PyTorch, each optional, never silently.

A test asks for an optional part by naming its fixture. Where the part is missing the test is skipped with the
reason; with ``MINISBERT_REQUIRE=torch,weights,data`` in the environment the same gap is a failure, with ``all`` any.
"""

import importlib
import os
import re
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import threadpoolctl
from hypothesis import HealthCheck, settings
from torch_oracle import Figures

REPOSITORY = Path(__file__).resolve().parent.parent

# Tests are not timed: on a busy machine neither a slow example nor slow drawing of examples is a failure.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def skip_or_fail(part: str, reason: str) -> None:
    """Skip the running test, or fail it when MINISBERT_REQUIRE names this part."""
    required = os.environ.get("MINISBERT_REQUIRE", "").replace(" ", "").split(",")
    if part in required or required == ["all"]:
        pytest.fail(f"MINISBERT_REQUIRE names {part!r}, but {reason}", pytrace=False)
    pytest.skip(reason)


NUMBERS = "ops backward step losses optim similarity reference ledger encoder nearest"
"""Files whose tests compute numbers that another kernel of BLAS adds up in another order."""
CORE = """
    ops backward step losses optim similarity reference ledger nearest
    chunking client corruption finetune gradcheck house hub loading mutants parallel profile shapes
    tokens train_cli training_data wordpiece ladder judge grade exercises
"""
"""Files whose tests run the core alone: nothing that they call asks whether an extra is installed."""
EXAMPLES = {  # files and folders of the package whose docstrings belong to a mark
    "numbers": ["model", "similarity.py"],
    "core": ["model", "similarity.py", "training", "parallel.py", "proof"],
}
HEAVY = "ray wasm32"
"""Fixtures of parts that take hundreds of megabytes and minutes: the gate does without."""
OPTIONAL = "torch transformers sentence_transformers sklearn matplotlib duckdb nbformat browser ray data_folder"
"""Fixtures of parts that are not the core."""


def pytest_collection_modifyitems(items):
    """Mark `numbers`, run again under other kernels of BLAS; `core`, which extras do not change; `heavy`."""
    for item in items:
        is_example = isinstance(item, pytest.DoctestItem)
        source = "".join(example.source for example in item.dtest.examples) if is_example else ""
        needs = [need for uses, need in NEEDS_OF_EXAMPLES.items() if is_example and re.search(uses, source)]
        optional = {*OPTIONAL.split()} & {*getattr(item, "fixturenames", ())} or {*needs} - {_need_weights}
        if {*HEAVY.split()} & {*getattr(item, "fixturenames", ())} or _need_ray in needs:
            item.add_marker("heavy")
        place = item.path.relative_to(REPOSITORY / "minisbert").parts[0] if is_example else ""
        for mark, files in (("numbers", NUMBERS), ("core", CORE)):
            name = item.path.stem.removeprefix("test_")
            belongs = place in EXAMPLES[mark] if is_example else name in files.split()
            if belongs and not optional:
                item.add_marker(mark)
        for need in needs:  # examples in docstrings need the same optional parts as tests
            item.runtest = partial(_run_if, need, item.runtest)


def _need_weights():
    from minisbert import hub

    try:
        hub.resolve()
    except ValueError as error:
        skip_or_fail("weights", f"the default model cannot be had here: {error}")


def _need_ray():
    _optional_import("ray", "ray", "ray")


NEEDS_OF_EXAMPLES = {
    r"Encoder\(|Client\(": _need_weights,
    r"BatchEncoder\(": _need_ray,
    r"EmbeddingDatabase\.": lambda: _optional_import("duckdb", "search", "search"),
    r"cluster\(|find_threshold\(|fit_thresholds\(|name_clusters\(|project\(|train_\w+\(|LogisticRegression": lambda: (
        _optional_import("sklearn", "apps", "apps")
    ),
    r"torch_\w+\(": lambda: _optional_import("torch"),
    r"picture\(\w+, |draw_map\(|where_we_are\(": lambda: _optional_import("matplotlib", "plots", "plots"),
}


def _run_if(need, run):
    need()
    run()


def pytest_sessionfinish(session):
    """With MINISBERT_REQUIRE=all any skip is a failure, whatever asked for it."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("MINISBERT_REQUIRE") == "all" and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    """What was skipped, in one line: how many, and what is missing."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])
    )
    if reasons:
        told = "; ".join(f"{count} times {reason}" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"{reasons.total()} skipped: {told}")


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """The folder of the real all-MiniLM-L6-v2, fetched on first use."""
    from minisbert import hub

    try:
        return hub.resolve().folder
    except ValueError as error:
        skip_or_fail("weights", f"the default model cannot be had here: {error}")
        raise


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of evaluation data: MINISBERT_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("MINISBERT_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "stsb" / "stsb_test.tsv").is_file():
        skip_or_fail("data", f"there is no stsb/stsb_test.tsv in {folder} (set MINISBERT_DATA)")
    return folder


def _optional_import(name: str, part: str = "torch", extra: str = "verify"):
    try:
        return importlib.import_module(name)
    except ImportError:
        skip_or_fail(part, f"{name} is not installed (pip install -e '.[{extra}]')")


@pytest.fixture
def figures(record_property):
    """What was measured, held against its bound."""
    return Figures(record_property)


@pytest.fixture(scope="module")
def one_thread():
    """On a busy machine a second thread of BLAS mostly waits for the first, and a small product is done before that."""
    with threadpoolctl.threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def torch():
    """PyTorch."""
    return _optional_import("torch")


@pytest.fixture(scope="session")
def transformers(torch):
    """Hugging Face transformers."""
    return _optional_import("transformers")


@pytest.fixture(scope="session")
def sentence_transformers(torch):
    """sentence-transformers."""
    return _optional_import("sentence_transformers")


@pytest.fixture(scope="session")
def sklearn():
    """scikit-learn, for classifiers."""
    return _optional_import("sklearn", "apps", "apps")


@pytest.fixture(scope="session")
def matplotlib():
    """matplotlib, for pictures."""
    return _optional_import("matplotlib", "plots", "plots")


@pytest.fixture(scope="session")
def duckdb():
    """DuckDB, for the embedding database."""
    return _optional_import("duckdb", "search", "search")


@pytest.fixture(scope="session")
def serve():
    """What the server is made of; the modules are imported in the tests."""
    for name in ("starlette", "uvicorn", "httptools", "msgspec", "prometheus_client"):
        _optional_import(name, "serve", "serve")


@pytest.fixture(scope="session")
def ray():
    """Ray Data, for work on many machines."""
    return _optional_import("ray", "ray", "ray")


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium without a window, driven by Playwright, whose event loop runs as long as it is there."""
    playwright = _optional_import("playwright.sync_api", "browser", "browser")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        skip_or_fail("browser", "there is no chromium (apt-get install chromium)")
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
    ]  # as root, without a screen, in a container
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=arguments, timeout=120_000)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def axe():
    """The script of axe-core: it finds in a page what a keyboard or a screen reader cannot use."""
    package = _optional_import("axe_playwright_python", "browser", "browser")
    return (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
