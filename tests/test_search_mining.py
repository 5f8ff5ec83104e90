"""Closest pairs and communities: brute force in plain Python, ties, memory, what is refused."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert.search import communities, exact, mining
from minisbert.search.communities import community_detection
from minisbert.search.mining import mine_pairs, paraphrase_mining, paraphrase_mining_embeddings


def cosines(vectors):
    """Exact cosines, pair by pair, in the dtype of the vectors."""
    wide = vectors.astype(np.float64)
    lengths = np.sqrt((wide * wide).sum(axis=1))
    dots = np.array([[(u * v).sum() for v in wide] for u in wide])
    return np.clip(dots / (lengths[:, None] * lengths), -1, 1).astype(vectors.dtype)


def brute_pairs(vectors, top_k, max_pairs):
    """Each row's top_k others, by score and id; every pair once; the best of them."""
    scores = cosines(vectors)
    pairs = set()
    for i in range(len(vectors)):
        others = sorted((j for j in range(len(vectors)) if j != i), key=lambda j: (-scores[i, j], j))
        pairs |= {(min(i, j), max(i, j)) for j in others[:top_k]}
    best = sorted(pairs, key=lambda pair: (-scores[pair], pair))[:max_pairs]
    return [[float(scores[pair]), *pair] for pair in best]


def brute_communities(vectors, threshold, least):
    """The greedy choice, one centre at a time, from the whole matrix."""
    scores = cosines(vectors)
    close = scores >= scores.dtype.type(threshold)
    taken, found = set(), []
    for centre in sorted(range(len(vectors)), key=lambda i: (-close[i].sum(), i)):
        if close[centre].sum() < least or centre in taken:
            continue
        members = sorted(np.flatnonzero(close[centre]).tolist(), key=lambda j: (-scores[centre, j], j))
        free = [j for j in members if j not in taken]
        if len(free) >= least:
            found.append([centre] + [j for j in free if j != centre])
            taken |= set(free)
    return sorted(found, key=len, reverse=True)


def grouped(rows, width, seed, dtype=np.float32):
    """Vectors around a few centres, some of them twice."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, rows // 8), width))
    spread = rng.choice([0.0, 0.2, 0.6], (rows, 1))
    return (centres[rng.integers(0, len(centres), rows)] + spread * rng.standard_normal((rows, width))).astype(dtype)


# ---------------------------------------------------------------------------------------------------- pairs


@settings(max_examples=50)
@given(
    st.integers(2, 40),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
    st.integers(1, 45),
    st.integers(1, 300),
    st.sampled_from([np.float32, np.float64]),
)
def test_pairs_equal_brute_force(rows, width, seed, top_k, max_pairs, dtype):
    vectors = grouped(rows, width, seed, dtype)
    found = paraphrase_mining_embeddings(vectors, top_k=top_k, max_pairs=max_pairs)
    assert found == brute_pairs(vectors, top_k, max_pairs)


@pytest.mark.parametrize(("top_k", "max_pairs"), [(1, 10), (3, 50), (60, 10_000)])
def test_pairs_are_the_same_when_the_pool_is_emptied_often(monkeypatch, top_k, max_pairs):
    vectors = grouped(120, 9, 1)
    wanted = paraphrase_mining_embeddings(vectors, top_k=top_k, max_pairs=max_pairs)
    assert wanted == brute_pairs(vectors, top_k, max_pairs)
    monkeypatch.setattr(mining, "CHUNK_PAIRS", 40)
    monkeypatch.setattr(mining, "CHUNK_QUERIES", 7)
    assert paraphrase_mining_embeddings(vectors, top_k=top_k, max_pairs=max_pairs) == wanted


def test_more_copies_than_partners():
    # of six equal rows, those behind the first three do not find themselves among their top 2 + 1
    vectors = np.ones((6, 5), np.float32)
    assert [pair[1:] for pair in paraphrase_mining_embeddings(vectors, top_k=2)] == [
        [0, 1],
        [0, 2],
        [0, 3],
        [0, 4],
        [0, 5],
        [1, 2],
        [1, 3],
        [1, 4],
        [1, 5],
    ]


def test_pairs_by_other_scores():
    vectors = grouped(30, 6, 2)
    by_dot = paraphrase_mining_embeddings(vectors, score_function="dot", max_pairs=20)
    dots = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    best = sorted(((i, j) for i in range(30) for j in range(i + 1, 30)), key=lambda pair: -dots[pair])[:20]
    assert [tuple(pair[1:]) for pair in by_dot] == best
    nearest = mine_pairs(vectors.astype(np.float64), score_function="euclidean", max_pairs=1)
    differences = np.linalg.norm(vectors[:, None].astype(np.float64) - vectors, axis=-1) + np.diag([np.inf] * 30)
    assert -nearest[0][0] == pytest.approx(differences.min(), rel=1e-12)


def test_texts_are_embedded_with_the_options_given():
    class Encoder:
        def encode(self, sentences, **options):
            self.seen = sentences, options
            return np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]], np.float32)

    encoder = Encoder()
    found = paraphrase_mining(encoder, ("a", "b", "c"), max_pairs=1, prompt="p: ")
    assert [pair[1:] for pair in found] == [[0, 2]]
    assert encoder.seen == (["a", "b", "c"], {"prompt": "p: "})
    with pytest.raises(ValueError, match="got a single text"):
        paraphrase_mining(encoder, "abc")


def test_pairs_of_nothing_and_of_one():
    assert paraphrase_mining_embeddings(np.empty((0, 4))) == []
    assert paraphrase_mining_embeddings(np.ones((1, 4))) == []
    scores, first, second = mine_pairs(np.empty((0, 4), np.float32))
    assert (scores.dtype, first.dtype, second.dtype) == (np.float32, np.intp, np.intp)


def test_pairs_refuse():
    vectors = grouped(10, 4, 0)
    for name in ("top_k", "max_pairs"):
        for wrong in (0, 2.5, True):
            with pytest.raises(ValueError, match=f"mine_pairs: {name} must be a whole number of at least 1"):
                mine_pairs(vectors, **{name: wrong})
    vectors[6] = 0
    with pytest.raises(ValueError, match=r"mine_pairs: every row of embeddings .* row 6\."):
        mine_pairs(vectors)
    vectors[8, 1] = np.nan
    with pytest.raises(ValueError, match=r"mine_pairs: embeddings .* row 8\."):
        mine_pairs(vectors)


# ---------------------------------------------------------------------------------------------- communities


@settings(max_examples=80)
@given(
    st.integers(1, 60),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
    st.sampled_from([-1.0, 0.0, 0.5, 0.75, 0.9, 1.0]),
    st.integers(1, 9),
    st.sampled_from([np.float32, np.float64]),
)
def test_communities_equal_brute_force(rows, width, seed, threshold, least, dtype):
    vectors = grouped(rows, width, seed, dtype)
    assert community_detection(vectors, threshold, least) == brute_communities(vectors, threshold, least)


@pytest.mark.parametrize("members", [1, 30, 1000])
def test_communities_do_not_depend_on_the_batches(monkeypatch, members):
    vectors = grouped(300, 6, 4)
    wanted = community_detection(vectors, 0.8, 3)
    assert wanted == brute_communities(vectors, 0.8, 3)
    assert len(wanted) > 10
    monkeypatch.setattr(communities, "BATCH_MEMBERS", members)
    monkeypatch.setattr(communities, "BATCH_CENTRES", 17)
    monkeypatch.setattr(exact, "BLOCK_NUMBERS", 120)
    monkeypatch.setattr(exact, "BLOCK_SCORES", 200)
    assert community_detection(vectors, 0.8, 3) == wanted


def test_a_cosine_at_the_threshold_counts():
    # float32 cosines of these are 0.6 exactly rounded; a matrix product may miss it by the last bit
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((384, 384)))[0]
    vectors = np.concatenate([basis[:1], 0.6 * basis[:1] + 0.8 * basis[1:60]])  # float64
    at = float(cosines(vectors)[0, 1:].min())
    assert len(community_detection(vectors, at, 60)[0]) == 60
    assert community_detection(vectors, np.nextafter(at, 2), 60) == [] or at != cosines(vectors)[0, 1:].max()
    copies = np.repeat(rng.standard_normal((1, 384)).astype(np.float32), 700, axis=0)
    assert community_detection(copies, 1.0, 700) == [list(range(700))]


def test_communities_of_vectors_of_any_size():
    vectors = grouped(200, 6, 5)
    scales = np.ldexp(np.float32(1), np.random.default_rng(1).integers(-110, 110, (200, 1)))  # exact
    assert (scales * vectors).dtype == np.float32
    assert community_detection(scales * vectors, 0.8, 3) == community_detection(vectors, 0.8, 3)


def test_memory_does_not_grow_with_close_pairs():
    # 12,000 equal vectors: 144 million close pairs, 576 MB as 32-bit ids
    vectors = np.ones((12_000, 4), np.float32)
    tracemalloc.start()
    found = community_detection(vectors, 0.9, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [list(range(12_000))]
    assert peak < 64 * 2**20


def test_communities_of_few():
    assert community_detection(np.empty((0, 4))) == []
    assert community_detection(np.ones((9, 4)), 0.5, 10) == []
    assert community_detection(np.ones(4), 0.5, 1) == [[0]]
    assert community_detection(np.eye(3), 0.5, 1) == [[0], [1], [2]]


def test_communities_refuse():
    vectors = grouped(10, 4, 0)
    for wrong in (1.01, -1.01, np.nan):
        with pytest.raises(ValueError, match=r"threshold must be a cosine"):
            community_detection(vectors, wrong)
    for wrong in (0, 2.5, True):
        with pytest.raises(ValueError, match="min_community_size must be a whole number of at least 1"):
            community_detection(vectors, 0.5, wrong)
    vectors[6] = 0
    with pytest.raises(ValueError, match=r"community_detection: every row of embeddings .* row 6\."):
        community_detection(vectors)
