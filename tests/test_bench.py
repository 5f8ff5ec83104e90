"""The benchmark: its arithmetic, its processes, what it writes. How fast anything is, no test says."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from tiny import COMPANY, TEXTS, write_model

from minisbert import SentenceEncoder
from minisbert.bench import engines, run
from minisbert.bench.engines import ENGINES, Setting, export_graph
from minisbert.bench.measure import Plan, measure_throughput, run_cold, turns
from minisbert.bench.report import format_report, share_of_ceiling, times_as_fast
from minisbert.bench.run import Order, choose_engines, count_steps, default_texts, run_benchmark
from minisbert.bench.texts import make_texts, sentence_lengths
from minisbert.bench.worker import Worker, WorkerError, environment
from minisbert.cli import main
from minisbert.model.pooling import Normalize, Pooling
from minisbert.parallel import Processor

ZEN5 = Processor(
    "AuthenticAMD",
    frozenset({"avx", "avx2", "fma", *(f"avx512{letters}" for letters in ("f", "cd", "bw", "dq", "vl"))}),
)
PEERS = ("sentence-transformers", "onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("bench") / "tiny-model", modules=(Pooling(), Normalize()))


@pytest.fixture
def worker(folder, tmp_path):
    with Worker("minisbert", Setting(folder, tmp_path / "no.onnx", 1), tmp_path / "said.txt") as made:
        yield made


# ------------------------------------------------------------------------------------------------ arithmetic


def test_every_engine_begins_a_round():
    assert [turns("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]
    assert sorted(turns("abc", 2)) == ["a", "b", "c"]


def test_ratios_are_taken_within_a_round():
    """The machine was twice as slow in the second round: the medians' ratio is 3, the rounds' ratio is 2."""
    result = {"gflop": 6.0, "seconds": {"minisbert": [1.0, 4.0, 1.0], "peer": [2.0, 8.0, 3.0]}}
    result["ceilings"] = {"one product": [12.0, 3.0, 24.0]}
    assert times_as_fast(result, "peer") == 2.0
    assert times_as_fast(result, "minisbert") == 1.0
    assert share_of_ceiling(result) == 0.5


def test_made_texts_have_the_tokens_asked_for(folder):
    encoder = SentenceEncoder(folder)
    texts = make_texts(encoder, [3, 16, 7], np.random.default_rng(0))
    assert encoder.tokenize(texts, overflow="error").lengths.tolist() == [3, 16, 7]
    assert texts == make_texts(encoder, [3, 16, 7], np.random.default_rng(0))
    assert texts != make_texts(encoder, [3, 16, 7], np.random.default_rng(1))
    with pytest.raises(ValueError, match="more than 2 tokens"):
        make_texts(encoder, [3, 2], np.random.default_rng(0))
    assert encoder.tokenize(default_texts(encoder, 50), overflow="error").lengths.max() <= 16


def test_made_lengths_are_those_of_sentences():
    lengths = sentence_lengths(20_000, np.random.default_rng(0))
    assert (lengths.min(), lengths.max()) == (5, 60)
    assert abs(lengths.mean() - 14.2) < 0.5


def test_real_texts_have_the_tokens_asked_for(weights_folder):
    encoder = SentenceEncoder(weights_folder)
    texts = make_texts(encoder, list(run.LENGTHS), np.random.default_rng(0))
    assert encoder.tokenize(texts, overflow="error").lengths.tolist() == list(run.LENGTHS)


# ------------------------------------------------------------------------------------------------ engines


def test_a_missing_peer_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=r"sentence-transformers needs torch, .*pip install -e '.\[bench\]'.*--engine"):
        choose_engines(())
    assert choose_engines(["minisbert"]) == ("minisbert",)


def test_the_kernel_of_openblas_takes_part_where_it_is_another(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda module: True)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "SkylakeX")  # as the command line has set it by then
    monkeypatch.setattr(run, "read_processor", lambda: ZEN5)
    assert choose_engines(()) == ("minisbert", "minisbert-own-kernel", *PEERS)
    assert choose_engines(["minisbert-deterministic"]) == ("minisbert-deterministic",)
    monkeypatch.setattr(run, "read_processor", lambda: Processor())
    assert choose_engines(()) == ("minisbert", *PEERS)
    with pytest.raises(ValueError, match="minisbert-own-kernel"):
        choose_engines(["minisbert-own-kernel"])
    assert "OPENBLAS_CORETYPE" not in environment("minisbert-own-kernel")
    assert environment("minisbert")["OPENBLAS_CORETYPE"] == "SkylakeX"


def test_a_worker_computes_what_the_encoder_computes(worker, folder, tmp_path):
    worker.ask("take", name="some", texts=TEXTS)
    worker.ask("save", name="some", file=str(tmp_path / "vectors.npy"))
    expected = SentenceEncoder(folder).encode(TEXTS, overflow="truncate")
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), expected, atol=COMPANY)
    assert len(worker.ask("time_each", name="some")) == len(TEXTS)
    assert worker.ask("time", name="some") > 0
    assert worker.ask("time_repeated", name="some", count=3) > 0


def test_a_worker_that_dies_says_why(worker, tmp_path):
    with pytest.raises(WorkerError, match=r"minisbert: the process ended with 1: .*KeyError: 'nothing'"):
        worker.ask("time", name="nothing")
    nowhere = Setting(tmp_path / "nowhere", tmp_path, 1)
    with Worker("minisbert", nowhere, tmp_path / "said.txt") as lost, pytest.raises(WorkerError, match="nowhere"):
        lost.ask("kernel")


def test_no_process_is_left_behind(folder, tmp_path):
    made = Worker("minisbert", Setting(folder, tmp_path, 1), tmp_path / "said.txt")
    with pytest.raises(ZeroDivisionError), made:
        made.ask("kernel")
        raise ZeroDivisionError
    assert made._process.poll() is not None


def test_a_script_that_fails_is_no_cold_start():
    with pytest.raises(WorkerError, match="no module named"):
        run_cold("minisbert", "raise ImportError('no module named so')")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others have no /proc")
def test_peak_memory_is_not_the_parents():
    ballast = np.ones(2**28, np.uint8)  # 256 MiB in this process
    _, peak = run_cold("minisbert", "import numpy\nb = numpy.ones(2**26, numpy.uint8)")
    assert ballast[-1] == 1
    assert 64 < peak < 200


def test_batch_sizes_are_tried_and_the_best_is_taken():
    class Fake:
        name = "onnxruntime"

        def __init__(self):
            self.asked = []

        def ask(self, what, **about):
            self.asked.append((what, about.get("batch_size")))
            return abs((about.get("batch_size") or 0) - 32) + 1.0

    fake = Fake()
    result = measure_throughput([fake], "x", ["a"], 1.0, Plan(2, 2, lambda what: None))
    assert result["batch_size"] == {"onnxruntime": "32"}
    assert result["seconds"] == {"onnxruntime": [1.0, 1.0]}
    assert [size for what, size in fake.asked if what == "time"] == [8, 16, 32, 64, 128, 32, 32]


# ------------------------------------------------------------------------------------------------ the whole


@pytest.fixture(scope="module")
def measured(folder, tmp_path_factory):
    ticks = []
    order = Order(("minisbert",), run.PARTS, 2, 2, (8,), (1, 10, 100), "made")
    result = run_benchmark(SentenceEncoder(folder), TEXTS * 9, order, tmp_path_factory.mktemp("run"), ticks.append)
    assert len(ticks) == count_steps(order)
    return json.loads(json.dumps(result))


def test_everything_is_measured_in_every_round(measured):
    assert measured["about"]["tokens"] == int(measured["about"]["tokens"]) > 9 * len(TEXTS)
    assert list(measured["lengths"]) == ["8"]  # the tiny model reads 16 tokens
    for part in (measured["throughput"], measured["lengths"]["8"]):
        assert len(part["seconds"]["minisbert"]) == len(part["ceilings"]["one product"]) == 2
        assert part["gflop"] > 0
    assert measured["throughput"]["difference"] == {"minisbert": 0.0}
    assert len(measured["single"]["milliseconds"]["minisbert"]) == 2
    assert len(measured["cold"]["seconds"]["minisbert"]) == 2
    assert [len(one["seconds"]) for one in measured["growth"].values()] == [2, 2, 1]


def test_the_report_has_every_part(measured):
    said = format_report(measured)
    for words in ("many texts", "8 tokens", "one text at a time", "process start", "100 texts", "sgemm reaches"):
        assert words in said
    del measured["growth"]
    assert "more and more" not in format_report(measured)


def test_the_command_writes_figures_and_picture_and_replaces_nothing(folder, tmp_path, monkeypatch, matplotlib):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS * 5))
    command = ["bench", "-i", "texts.txt", "--engine", "minisbert", "--part", "throughput", "--part", "single"]
    command += ["--rounds", "1", "--model", str(folder), "-o", "figures"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "from texts.txt" in done.stdout
    assert json.loads((tmp_path / "figures.json").read_text())["about"]["rounds"] == 1
    assert (tmp_path / "figures.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1
    assert "figures.json: already exists" in again.stderr
    assert CliRunner().invoke(main, [*command, "--force"]).exit_code == 0
    (tmp_path / "texts.txt").write_text("")
    empty = CliRunner().invoke(main, [*command, "--force"])
    assert (empty.exit_code, "no texts" in empty.stderr) == (2, True)


def test_the_picture_of_everything(measured, matplotlib, tmp_path):
    from minisbert.bench.picture import draw

    for name in PEERS:  # as if they had taken part
        for part in (measured["throughput"], *measured["lengths"].values()):
            part["seconds"][name] = part["seconds"]["minisbert"]
            part["batch_size"][name] = 8
        measured["throughput"]["peak_mib"][name] = None
        measured["single"]["milliseconds"][name] = measured["single"]["milliseconds"]["minisbert"]
    with (tmp_path / "all.png").open("wb") as stream:
        draw(measured, stream)
    assert (tmp_path / "all.png").stat().st_size > 20_000


# ------------------------------------------------------------------------------------------------ beside the peers


@pytest.fixture
def peers(sentence_transformers):
    """Both peers, or the test is skipped; with MINISBERT_REQUIRE=torch it fails."""
    from conftest import skip_or_fail

    for name in PEERS:
        if absent := engines.missing(name):
            skip_or_fail("torch", f"{', '.join(absent)} not installed (pip install -e '.[bench]')")
    return PEERS


def test_all_engines_compute_the_same_vectors(peers, weights_folder, tmp_path):
    texts = default_texts(SentenceEncoder(weights_folder), 50)
    setting = Setting(weights_folder, tmp_path / "model.onnx", 2)
    export_graph(weights_folder, setting.graph)
    workers = [Worker(name, setting, tmp_path / name) for name in ("minisbert", *peers)]
    for worker in workers:
        with worker:
            worker.ask("take", name="texts", texts=texts)
            worker.ask("save", name="texts", file=str(tmp_path / f"{worker.name}.npy"))
            assert worker.ask("time", name="texts", batch_size=7) > 0
    ours, *theirs = [np.load(tmp_path / f"{worker.name}.npy") for worker in workers]
    for vectors in theirs:
        np.testing.assert_allclose(vectors, ours, atol=1e-6)
    for name in peers:
        script = ENGINES[name].cold_start.format(folder=weights_folder.as_posix(), graph=setting.graph.as_posix())
        assert run_cold(name, script)[0] > 0


def test_the_worker_does_not_load_a_framework(folder, tmp_path):
    code = (
        "import sys; from pathlib import Path; from minisbert.bench.engines import Setting\n"
        "from minisbert.bench.worker import serve\n"
        f"list(serve(iter([b'[\"kernel\", {{}}]']), 'minisbert', Setting(Path({str(folder)!r}), Path(), 1)))\n"
        "print(sorted({'torch', 'onnxruntime', 'matplotlib', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
