"""Sentence-BERT in pure NumPy: readable, proven equal to PyTorch tensor by tensor, fast on a CPU.

The reading path, in the order in which a text becomes a vector:

1. ``model/config.py``               what the checkpoint says it is
2. ``model/checkpoint.py``           bytes on disk to arrays by name
3. ``model/params.py``               the weights, one named field each
4. ``model/gradients.py``            a gradient for every weight
5. ``model/tokens.py``               text to packed token ids; what was cut; where each stands
6. ``model/tokenizer_json.py``       the tokenizer of a folder, and its limit of length
7. ``model/wordpiece.py``            the same ids by hand
8. ``model/ops.py``                  linear, gelu, softmax, layer_norm, normalize
9. ``model/bert.py``                 embed, attention, feed_forward, layer, bert
10. ``model/pooling.py``             many token vectors to one vector
11. ``model/modules.py``             what follows BERT in a sentence model
12. ``model/modules_json.py``        the same, read from disk and described for it
13. ``model/folder.py``              a model folder read and written as one
14. ``similarity.py``                cosine, dot, Euclidean, Manhattan, angular
15. ``distances.py``                 similarity to distance and back; which is a metric
16. ``trace.py``                     every tensor on the way, by name
17. ``chunking.py``                  long text to chunks that fit
18. ``composition.py``               the chunks' vectors to one
19. ``sources.py``                   asking the Hub; how a failure is told
20. ``pinned.py``                    the default model, held against its hashes
21. ``hub.py``                       model name to verified local folder
22. ``blas.py``                      which kernel multiplies, on how many threads
23. ``schedule.py``                  which texts share a batch, which thread takes it
24. ``options.py``                   what encode may be asked for, checked
25. ``pipeline.py``                  texts to tokens to batches to vectors
26. ``encoder.py``                   SentenceEncoder: text in, vectors out
27. ``remote.py``                    asking a server; where the key goes
28. ``client.py``                    Client(api_key).embed(phrases).embeddings
29. ``search/scoring.py``            a score, estimated and exact
30. ``search/exact.py``              the k best of many documents
31. ``search/mining.py``             the closest pairs of one list
32. ``search/communities.py``        groups of close texts
33. ``search/matching.py``           two lists, one to one
34. ``training/losses.py``           seven losses, each with its gradient
35. ``training/step.py``             a batch to its loss and all gradients
36. ``training/gradcheck.py``        whether a gradient is right
37. ``training/optim.py``            a step against the gradient
38. ``training/data.py``             a file to training examples
39. ``training/batches.py``          examples to batches
40. ``training/settings.py``         what training may be asked for, checked
41. ``training/objective.py``        a loss's name to the loss of a batch
42. ``training/checkpoint.py``       where a run stands, in one file
43. ``training/dev.py``              how good the model is now
44. ``training/finetune.py``         batch after batch, the best kept
45. ``training/scratch.py``          a small BERT with random weights
46. ``training/geometry.py``         alignment and uniformity
47. ``training/plane.py``            InfoNCE on points of a plane

``evaluation`` scores a model on benchmarks; ``analysis`` tells what vectors say: calibration, explanations. ``proof``
holds the agreement ledger behind ``minisbert verify``; ``cli`` the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisbert.client import Client
    from minisbert.distances import to_distance, to_similarity
    from minisbert.encoder import SentenceEncoder
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
    )

__version__ = "0.1.0"
__all__ = [
    "Client",
    "SentenceEncoder",
    "angular_distance",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "pairwise_angular_distance",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "to_distance",
    "to_similarity",
]
_HOME = {
    "Client": "minisbert.client",
    "SentenceEncoder": "minisbert.encoder",
    "to_distance": "minisbert.distances",
    "to_similarity": "minisbert.distances",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``minisbert --help`` need not wait for NumPy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "minisbert.similarity")), name)


def __dir__() -> list[str]:
    """Show the public names to people who press the tab key."""
    return sorted([*globals(), *__all__])
