"""The whole benchmark: which texts, which engines, which parts, one after the other, to one JSON object."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from minisbert.bench.engines import ENGINES, Setting, missing
from minisbert.bench.measure import (
    OURS,
    Plan,
    Result,
    measure_cold_start,
    measure_differences,
    measure_growth,
    measure_latency,
    measure_throughput,
)
from minisbert.bench.texts import make_texts, sentence_lengths
from minisbert.bench.trainers import TRAINERS
from minisbert.bench.training import make_batches, measure_training
from minisbert.bench.worker import Worker, environment
from minisbert.encoder import SentenceEncoder
from minisbert.parallel import environment_for, read_processor
from minisbert.proof.profile import count_costs

PARTS = ("throughput", "lengths", "single", "cold", "growth", "training")
LENGTHS = {8: 512, 32: 256, 128: 96, 256: 48}
"""Tokens per text, and how many such texts are embedded: about a second's work each."""
SINGLE_TEXTS = 100
LIBRARIES = ("minisbert", "numpy", "tokenizers", "torch", "transformers", "sentence-transformers", "onnxruntime")


@dataclass(frozen=True)
class Order:
    """What to benchmark."""

    engines: tuple[str, ...]
    parts: tuple[str, ...]
    rounds: int
    num_threads: int
    lengths: tuple[int, ...]  # tokens per text; some of LENGTHS
    growth: tuple[int, ...]  # numbers of texts
    source: str  # where the texts come from, for display
    seed: int = 0


def choose_engines(asked_for: Sequence[str]) -> tuple[str, ...]:
    """Choose engines: those asked for, or all but the deterministic one; ValueError for one that is not installed.

    Ours with OpenBLAS's own choice of kernel takes part only if that is not the kernel that we select anyway.

    >>> choose_engines(["minisbert"])
    ('minisbert',)
    """
    same = not environment_for(read_processor(), environment("minisbert-own-kernel"))
    usual = [name for name, engine in ENGINES.items() if engine.by_default]
    chosen = tuple(name for name in asked_for or usual if ENGINES[name].same_kernel or not same)
    if not chosen:
        raise ValueError("bench: minisbert-own-kernel: OpenBLAS already chooses the right kernel here; use minisbert")
    absent = {name: missing(name) for name in chosen if missing(name)}
    if absent:
        what = "; ".join(f"{name} needs {', '.join(modules)}" for name, modules in absent.items())
        raise ValueError(
            f"bench: not installed: {what}. Install the peers: `pip install torch==2.13.0` (a plain torch may bring "
            "gigabytes of CUDA), then `pip install -e '.[bench]'`; or measure only ours with --engine minisbert"
        )
    return chosen


def choose_parts(asked_for: Sequence[str], engines: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    """Choose parts: those asked for, or all that these engines and texts allow; ValueError if training is impossible.

    >>> choose_parts((), ("minisbert",), ["one text alone"])
    ('throughput', 'lengths', 'single', 'cold', 'growth')
    """
    obstacle = ""
    if not any(name in TRAINERS for name in engines):
        obstacle = f"{', '.join(engines)} cannot train; of the engines {', '.join(TRAINERS)} can"
    elif not make_batches(texts):
        obstacle = "training takes two pairs of four different texts at least, the first two lines, then the next two"
    if obstacle and "training" in asked_for:
        raise ValueError(f"bench: {obstacle}; leave out --part training")
    return tuple(part for part in asked_for or PARTS if part != "training" or not obstacle)


def count_steps(order: Order) -> int:
    """How often ``tick`` is called, for a progress bar.

    >>> count_steps(Order(("minisbert",), ("single",), 5, 2, (), (), ""))
    5
    """
    comparison = len(order.engines) + order.rounds
    steps = {
        "throughput": comparison,
        "lengths": comparison * len(order.lengths),
        "single": order.rounds,
        "cold": order.rounds + 1,
        "growth": 2 * len(order.growth) - 1,
        "training": len(_trainers(order)) + order.rounds,
    }
    return sum(steps[part] for part in order.parts)


def run_benchmark(
    encoder: SentenceEncoder, texts: list[str], order: Order, folder: Path, tick: Callable[[str], None]
) -> Result:
    """Measure everything that was ordered: ``about``, and one entry per part, from :mod:`~minisbert.bench.measure`.

    The encoder names the model, counts tokens and makes texts; what is timed runs in other processes. ``folder`` is for
    the graph, vectors and messages, and may be deleted afterwards.

    >>> order = Order(("minisbert",), (), 1, 1, (), (), "two texts")
    >>> run_benchmark(SentenceEncoder(), ["i love soup", "soup"], order, Path(), print)["about"]["tokens"]
    8
    """
    setting = Setting(encoder.folder, folder / "model.onnx", order.num_threads)
    plan = Plan(order.rounds, order.num_threads, tick)
    if "onnxruntime" in order.engines:
        _export(setting)
    result: Result = {"about": _about(encoder, texts, order)}
    with ExitStack() as stack:
        warm = any(part in order.parts for part in ("throughput", "lengths", "single"))
        workers = [
            stack.enter_context(Worker(name, setting, folder / f"worker-{i}.txt"))
            for i, name in enumerate(order.engines if warm else ())
        ]
        result["about"]["blas"] = {worker.name: worker.ask("kernel") for worker in workers}
        if "throughput" in order.parts:
            result["throughput"] = measure_throughput(workers, "texts", texts, _gflop(encoder, texts), plan)
            result["throughput"]["difference"] = measure_differences(workers, "texts", folder)
            result["throughput"]["peak_mib"] = {worker.name: worker.ask("peak_mib") for worker in workers}
        if "lengths" in order.parts:
            result["lengths"] = {
                str(length): measure_throughput(workers, f"{length} tokens", made, _gflop(encoder, made), plan)
                for length, made in _texts_by_length(encoder, order)
            }
        if "single" in order.parts:
            result["single"] = measure_latency(workers, texts[:SINGLE_TEXTS], plan)
    if "cold" in order.parts:
        result["cold"] = measure_cold_start(order.engines, setting, plan)
    if "growth" in order.parts:
        result["growth"] = measure_growth(setting, texts, order.growth, folder, plan)
    if "training" in order.parts:
        result["training"] = _measure_training(encoder, texts, order, folder, tick)
        result["about"]["blas"] = result["training"].pop("blas") | result["about"]["blas"]
    return result


def _trainers(order: Order) -> tuple[str, ...]:
    """The engines that can train."""
    return tuple(name for name in order.engines if name in TRAINERS)


def _measure_training(
    encoder: SentenceEncoder, texts: list[str], order: Order, folder: Path, tick: Callable[[str], None]
) -> Result:
    """Load the engines that can train, each in its own process, and measure them."""
    setting, batches = Setting(encoder.folder, folder / "model.onnx", order.num_threads), make_batches(texts)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(name, setting, folder / f"trainer-{i}.txt", "train"))
            for i, name in enumerate(_trainers(order))
        ]
        measured: Result = measure_training(workers, batches, Plan(order.rounds, order.num_threads, tick))
        measured["blas"] = {worker.name: worker.ask("kernel") for worker in workers}
    lengths = [encoder.tokenize(anchors + positives, overflow="truncate").lengths for anchors, positives in batches]
    measured["tokens"] = [int(counts.sum()) for counts in lengths]
    return measured


def default_texts(encoder: SentenceEncoder, count: int = 2000, seed: int = 0) -> list[str]:
    """Make texts that are as long as sentences are."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(sentence_lengths(count, rng), encoder.max_seq_length)
    return make_texts(encoder, lengths, rng)


def _export(setting: Setting) -> None:
    """Export the graph in another process, to keep PyTorch out of this one."""
    code = (
        "import sys; from pathlib import Path; from minisbert.bench.engines import export_graph; "
        "export_graph(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(setting.folder), str(setting.graph)]
    done = subprocess.run(command, capture_output=True, env=environment(OURS), check=False)
    if done.returncode:
        raise ValueError(f"bench: the export to ONNX failed: {done.stderr.decode(errors='replace').strip()[-500:]}")


def _texts_by_length(encoder: SentenceEncoder, order: Order) -> Iterator[tuple[int, list[str]]]:
    """Make the texts of each length."""
    rng = np.random.default_rng(order.seed)
    for length in order.lengths:
        yield length, make_texts(encoder, [length] * LENGTHS[length], rng)


def _gflop(encoder: SentenceEncoder, texts: list[str]) -> float:
    """GFLOP that embedding these texts takes."""
    lengths = encoder.tokenize(texts, overflow="truncate").lengths
    costs = count_costs(lengths, encoder.model.config, encoder.model.modules)
    return sum(cost.flop for cost in costs.values()) / 1e9


def _about(encoder: SentenceEncoder, texts: list[str], order: Order) -> Result:
    """What was measured, on what, with which versions."""
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": encoder.folder.name,
        "texts": len(texts),
        "source": order.source,
        "tokens": int(encoder.tokenize(texts, overflow="truncate").lengths.sum()),
        "rounds": order.rounds,
        "num_threads": order.num_threads,
        "processor": read_processor().name or platform.processor(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }
