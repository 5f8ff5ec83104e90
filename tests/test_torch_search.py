"""Search, pairs and communities against sentence-transformers on the same vectors."""

import inspect

import numpy as np
import pytest
from torch_oracle import THIRD_PARTY_WARNINGS

from minisbert import nearest
from minisbert.nearest import community_detection, paraphrase_mining_embeddings, semantic_search

pytestmark = [pytest.mark.filterwarnings(w) for w in THIRD_PARTY_WARNINGS]

# largest difference of a score, in units of the dtype's eps; measured 3.5 (theirs is a matrix product), x 4
SCORE_EPS = 14.0


@pytest.fixture
def util(sentence_transformers):
    import torch

    torch.set_num_threads(1)
    from sentence_transformers import util

    return util


def vectors(rows, width=64, seed=0, dtype=np.float32):
    """Vectors around centres: neighbours at all distances."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, rows // 15), width))
    spread = rng.uniform(0.1, 1.0, (rows, 1))
    return (centres[rng.integers(0, len(centres), rows)] + spread * rng.standard_normal((rows, width))).astype(dtype)


def largest(ours, theirs, dtype):
    return float(np.abs(np.array(ours) - np.array(theirs)).max() / np.finfo(dtype).eps)


@pytest.mark.parametrize(
    "name", ["semantic_search", "paraphrase_mining", "paraphrase_mining_embeddings", "community_detection"]
)
def test_arguments_are_theirs_in_their_order(util, name):
    ours, theirs = (inspect.signature(getattr(where, name)).parameters for where in (nearest, util))
    asked = [(p.name, getattr(p.default, "__name__", p.default)) for p in theirs.values()]
    assert [(p.name, getattr(p.default, "__name__", p.default)) for p in ours.values()][: len(asked)] == asked


@pytest.mark.parametrize(("dtype", "name"), [(np.float32, "cosine"), (np.float64, "dot")])
def test_search(util, figures, dtype, name):
    import torch

    queries, corpus = vectors(40, seed=1, dtype=dtype), vectors(3000, dtype=dtype)
    score = {"cosine": util.cos_sim, "dot": util.dot_score}[name]
    theirs = util.semantic_search(
        torch.from_numpy(queries), torch.from_numpy(corpus), corpus_chunk_size=700, top_k=25, score_function=score
    )
    ours = semantic_search(queries, corpus, corpus_chunk_size=450, top_k=25, score_function=name)
    assert [[hit["corpus_id"] for hit in row] for row in ours] == [[hit["corpus_id"] for hit in row] for row in theirs]
    scores = [np.array([[hit["score"] for hit in row] for row in found]) for found in (ours, theirs)]
    scale = 1.0 if name == "cosine" else np.abs(scores[1]).max()
    figures(f"{name} {np.dtype(dtype)}, eps", largest(*scores, dtype) / scale, SCORE_EPS)
    assert ours[0][0].keys() == theirs[0][0].keys()


@pytest.mark.parametrize(("top_k", "max_pairs", "dtype"), [(100, 500_000, np.float32), (10, 200, np.float64)])
def test_pairs(util, figures, top_k, max_pairs, dtype):
    import torch

    embeddings = vectors(600, dtype=dtype)
    theirs = util.paraphrase_mining_embeddings(torch.from_numpy(embeddings), top_k=top_k, max_pairs=max_pairs)
    ours = paraphrase_mining_embeddings(embeddings, top_k=top_k, max_pairs=max_pairs)
    figures(f"{np.dtype(dtype)}, eps", largest([p[0] for p in ours], [p[0] for p in theirs], dtype), SCORE_EPS)
    assert sorted(pair[1:] for pair in ours) == sorted(pair[1:] for pair in theirs)
    # in float32, two pairs closer than their rounding may stand the other way round
    if dtype == np.float64:
        assert [pair[1:] for pair in ours] == [pair[1:] for pair in theirs]


def test_communities(util):
    import torch

    # in float64 nothing is as close to the threshold, or to another cosine, as rounding can move it
    embeddings = vectors(700, dtype=np.float64)
    for threshold, least in ((0.5, 3), (0.6, 10), (0.3, 5), (0.9, 1)):
        theirs = util.community_detection(torch.from_numpy(embeddings), threshold, least, batch_size=128)
        assert community_detection(embeddings, threshold, least) == theirs != []
