"""Is a vector any good? Data sets with known answers, the measures of the field, and published figures.

In reading order: ``sts`` (sentence pairs; correlations), ``published``, ``measures`` (labels; intervals),
``retrieval``, ``classification`` (few labelled texts per class).
"""

from minisbert.evaluation.classification import evaluate_classification
from minisbert.evaluation.retrieval import average_precision, evaluate_retrieval, ndcg, recall, reciprocal_rank
from minisbert.evaluation.sts import evaluate_sts, pearson, spearman

__all__ = [
    "average_precision",
    "evaluate_classification",
    "evaluate_retrieval",
    "evaluate_sts",
    "ndcg",
    "pearson",
    "recall",
    "reciprocal_rank",
    "spearman",
]
