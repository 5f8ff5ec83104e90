"""The measurement of training: the same batches for every engine that can train, round after round.

Pairs are adjacent texts: what they say does not matter for the time. No text is in two pairs, because with in-batch
negatives a repeated text is a false negative, which our loss masks (``find_false_negatives``) and PyTorch's does not.
First every engine takes a few steps on one batch without dropout, from the same weights: the losses must agree, and
fall. Then the rounds begin, with dropout as in real training, each engine with its own masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from minisbert.bench.measure import OURS, Plan, Result, turns
from minisbert.bench.worker import Worker

BATCH_PAIRS = 32
ROUND_STEPS = 8
CHECKED_STEPS = 5
DROPOUT = 0.1

Columns = list[list[str]]  # anchors, positives


def make_batches(texts: Sequence[str]) -> list[Columns]:
    """Pair adjacent texts, and pack the pairs into batches of 32 without repeating a text.

    All batches are equally large, and the rest is left out; one smaller batch for fewer than 32 pairs, none for fewer
    than 2.

    >>> make_batches(["a cat", "one cat", "tea", "tea", "a dog", "a cat", "soup", "broth"])
    [[['a cat', 'soup'], ['one cat', 'broth']]]
    """
    seen: set[str] = set()
    pairs = []
    for anchor, positive in zip(texts[::2], texts[1::2], strict=False):  # the last text may have no partner
        if anchor != positive and not {anchor, positive} & seen:
            seen |= {anchor, positive}
            pairs.append((anchor, positive))
    if len(pairs) < 2:
        return []
    size = min(BATCH_PAIRS, len(pairs))
    starts = range(0, len(pairs) - size + 1, size)
    return [[list(column) for column in zip(*pairs[start : start + size], strict=True)] for start in starts]


def measure_training(workers: Sequence[Worker], batches: Sequence[Columns], plan: Plan) -> Result:
    """Train on the same batches on every engine; every round continues where the one before stopped.

    Returns ``pairs`` of a batch, ``steps`` of a round, ``dropout``. For each engine: ``milliseconds``, the median step
    of each round; ``split``, the same for ``forward``, ``backward`` and ``optimizer``; ``losses`` of a few steps
    without dropout, and their largest absolute ``difference`` from ours; ``loaded_mib``, peak memory before the first
    step, and ``peak_mib``.
    """
    loaded, losses = {}, {}
    for worker in workers:
        loaded[worker.name] = worker.ask("peak_mib")
        steps = [worker.ask("step", columns=batches[0], dropout=0.0) for _ in range(CHECKED_STEPS)]
        losses[worker.name] = [step["loss"] for step in steps]
        plan.tick(f"training: losses of {worker.name}")
    milliseconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    split: dict[str, dict[str, list[float]]] = {
        worker.name: {"forward": [], "backward": [], "optimizer": []} for worker in workers
    }
    for number in range(plan.rounds):
        chosen = [batches[(number * ROUND_STEPS + i) % len(batches)] for i in range(ROUND_STEPS)]
        for worker in turns(workers, number):
            steps = [worker.ask("step", columns=columns, dropout=DROPOUT) for columns in chosen]
            parts = split[worker.name]
            for part, rounds in parts.items():
                rounds.append(1000 * median(step[part] for step in steps))
            milliseconds[worker.name].append(1000 * median(sum(step[part] for part in parts) for step in steps))
        plan.tick(f"training: round {number + 1}")
    return {
        "pairs": len(batches[0][0]),
        "steps": ROUND_STEPS,
        "dropout": DROPOUT,
        "milliseconds": milliseconds,
        "split": split,
        "losses": losses,
        "difference": _differences(losses),
        "loaded_mib": loaded,
        "peak_mib": {worker.name: worker.ask("peak_mib") for worker in workers},
    }


def _differences(losses: dict[str, list[float]]) -> dict[str, float]:
    """Compare the losses of all engines with ours, or without ours with the first engine's."""
    if not losses:
        return {}
    reference = losses.get(OURS, next(iter(losses.values())))
    return {
        name: max(abs(mine - other) for mine, other in zip(found, reference, strict=True))
        for name, found in losses.items()
    }
