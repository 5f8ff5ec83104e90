"""Sentence-BERT in pure NumPy: readable, proven equal to PyTorch tensor by tensor, fast on a CPU.

``model/`` turns token ids into one vector, and a gradient back; ``similarity`` compares vectors; ``encoder`` is text
in, vectors out; ``client`` the same for code written against a service, ``sklearn`` for scikit-learn. Built on vectors:
``search/``, ``training/``, ``evaluation/`` (scores on benchmarks), ``analysis/`` (calibration, explanations,
classifiers, maps), ``plots/`` and ``course/``. ``proof/`` holds the agreement ledger behind ``minisbert verify``,
``bench/`` the benchmarks, ``cli/`` the command line. README names the twelve files to read, in order.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisbert.client import Client
    from minisbert.encoder import SentenceEncoder
    from minisbert.page import show
    from minisbert.proof.diagnose import diagnose
    from minisbert.similarity import (
        angular_distance,
        cos_sim,
        dot_score,
        euclidean_sim,
        manhattan_sim,
        pairwise_angular_distance,
        pairwise_cos_sim,
        pairwise_dot_score,
        pairwise_euclidean_sim,
        pairwise_manhattan_sim,
        to_distance,
        to_similarity,
    )

__version__ = "0.1.0"
__all__ = [
    "Client",
    "SentenceEncoder",
    "angular_distance",
    "cos_sim",
    "diagnose",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "pairwise_angular_distance",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "show",
    "to_distance",
    "to_similarity",
]
_HOME = {
    **{"Client": "minisbert.client", "SentenceEncoder": "minisbert.encoder"},
    "diagnose": "minisbert.proof.diagnose",
    "show": "minisbert.page",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``minisbert --help`` need not wait for NumPy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "minisbert.similarity")), name)


def __dir__() -> list[str]:
    """Show the public names to people who press the tab key."""
    return sorted([*globals(), *__all__])
