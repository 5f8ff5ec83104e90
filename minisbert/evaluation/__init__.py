"""Is a vector any good? Data sets with known answers, the measures of the field, and published figures.

In reading order: ``correlation``, ``sts``, ``published``, ``layers`` (sentence pairs); ``ranking``, ``measures``,
``retrieval_set``, ``retrieval``, ``lengths`` (retrieval); ``classification`` (few labelled texts per class).
"""

from minisbert.evaluation.classification import evaluate_classification
from minisbert.evaluation.correlation import pearson, spearman
from minisbert.evaluation.ranking import average_precision, ndcg, precision, recall, reciprocal_rank
from minisbert.evaluation.retrieval import evaluate_retrieval
from minisbert.evaluation.sts import evaluate_sts

__all__ = [
    "average_precision",
    "evaluate_classification",
    "evaluate_retrieval",
    "evaluate_sts",
    "ndcg",
    "pearson",
    "precision",
    "recall",
    "reciprocal_rank",
    "spearman",
]
