"""Exact search, close pairs, communities, matching: brute force in plain Python, ties, bounds, what is refused."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert.nearest import (
    Comparison,
    community_detection,
    match,
    nearest,
    nearest_groups,
    paraphrase_mining,
    paraphrase_mining_embeddings,
    semantic_search,
)
from minisbert.similarity import cos_sim, dot_score, euclidean_sim


def vectors(rows, width=16, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(dtype)


def scores_by_hand(queries, corpus, kind):
    """All scores pair by pair: Python's float64, one product at a time, rounded once."""
    dtype = np.result_type(queries, corpus)
    q, d = queries.astype(np.float64), corpus.astype(np.float64)
    scores = np.array([[(u * v).sum() for v in d] for u in q]).reshape(len(q), len(d))
    if kind == "cosine":
        lengths = np.sqrt((q * q).sum(axis=1)[:, None] * (d * d).sum(axis=1))
        scores = np.clip(scores / np.where(lengths > 0, lengths, 1), -1, 1)
    return scores.astype(dtype)


def best_by_hand(scores, k):
    """Sort everything: by score descending, then by id."""
    ids = np.array([sorted(range(len(row)), key=lambda j: (-row[j], j))[:k] for row in scores.tolist()], np.intp)
    ids = ids.reshape(len(scores), min(k, scores.shape[1]))
    return ids, np.take_along_axis(scores, ids, axis=1)


def assert_same(found, wanted):
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
    assert found[1].dtype == wanted[1].dtype


@st.composite
def alike(draw, most=60):
    """Vectors with many copies, near copies, rows of zeros, and rows of any length."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype, width = draw(st.sampled_from([np.float32, np.float64])), draw(st.integers(1, 33))
    rows = draw(st.integers(1, most))
    few = rng.standard_normal((max(1, rows // 6), width))
    found = few[rng.integers(0, len(few), rows)] * (1 + rng.choice([0, 1e-7, 0.3], (rows, 1)) * rng.random((rows, 1)))
    found = found + rng.choice([0, 1e-6, 0.5], (rows, 1)) * rng.standard_normal((rows, width))
    found[rng.random(rows) < 0.05] = 0
    return found.astype(dtype)


# ---------------------------------------------------------------------------------------------------- search


@settings(max_examples=60)
@given(
    alike(), st.sampled_from(["cosine", "dot"]), st.integers(1, 70), st.integers(1, 9), st.integers(1, 70), st.data()
)
def test_search_is_brute_force_bit_for_bit(corpus, kind, k, query_rows, corpus_rows, data):
    queries = corpus[data.draw(st.integers(0, len(corpus) - 1)) :][:7]
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(corpus), max_size=len(corpus))))
    scores = scores_by_hand(queries, corpus, kind)
    sizes = {"query_chunk_size": query_rows, "corpus_chunk_size": corpus_rows}
    assert_same(nearest(queries, corpus, k, kind, **sizes), best_by_hand(scores, k))
    ids, found = best_by_hand(scores[:, keep], k)
    assert_same(nearest(queries, corpus, k, kind, keep=keep, **sizes), (np.flatnonzero(keep)[ids], found))
    assert_same(nearest(queries[-1], corpus, k, kind), best_by_hand(scores[-1:], k))  # one vector, default sizes


@pytest.mark.parametrize("kind", ["cosine", "dot"])
def test_documents_a_rounding_apart(kind):
    # a product cannot tell them apart, and gives copies of a document scores that differ by their place in the block
    noise = np.random.default_rng(0).standard_normal((600, 384)).astype(np.float32)
    corpus = vectors(1, 384) * (1 + np.float32(1e-6) * noise)
    corpus[100:500] = corpus[7]
    queries = vectors(1, 384) + vectors(4, 384, seed=2)
    wanted = scores_by_hand(queries, corpus, kind)
    for size, k in ((50, 1), (50, 30), (600, 3), (600, 410)):
        assert_same(nearest(queries, corpus, k, kind, corpus_chunk_size=size), best_by_hand(wanted, k))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_estimates_stay_within_their_bound(dtype):
    # the bound is what the exactness rests on; vectors whose sums cancel are the worst case
    rng = np.random.default_rng(0)
    for width in (1, 3, 384, 4096):
        queries = rng.standard_normal((5, width)).astype(dtype)
        corpus = (rng.standard_normal((200, width)) * 10.0 ** rng.uniform(-4, 4, (200, 1))).astype(dtype)
        corpus[:50] = np.abs(corpus[:50])
        q, d = queries.astype(np.longdouble), corpus.astype(np.longdouble)
        for kind in ("cosine", "dot"):
            ((block, estimates),) = Comparison("test", queries, corpus, kind).walk(np.arange(5), 200)
            assert np.abs(estimates - scores_by_hand(q, d, kind)).max() <= block.error


@pytest.mark.parametrize(("dtype", "low", "high"), [(np.float32, -40, 37), (np.float64, -300, 300)])
def test_tiny_and_huge_vectors_have_cosines_too(dtype, low, high):
    scales = 10.0 ** np.random.default_rng(3).uniform(low, high, (60, 1))
    queries, corpus = vectors(4, dtype=dtype), (vectors(60, dtype=np.float64, seed=1) * scales).astype(dtype)
    near_one = corpus.astype(np.float64) / np.abs(corpus.astype(np.float64)).max(axis=1, keepdims=True)
    wanted = best_by_hand(scores_by_hand(queries.astype(np.float64), near_one, "cosine"), 60)
    for asked, size in ((queries, 100), (queries, 7), ((queries * 10.0 ** (high - 2)).astype(dtype), 100)):
        ids, scores = nearest(asked, corpus, 60, query_chunk_size=1, corpus_chunk_size=size)
        np.testing.assert_array_equal(ids, wanted[0])
        np.testing.assert_allclose(scores, wanted[1], rtol=0, atol=2 * np.finfo(dtype).eps)


def test_other_dtypes_orders_and_functions(tmp_path):
    queries, corpus = vectors(3, 24), vectors(80, 24, seed=1)
    wanted = nearest(queries, corpus, 6)
    wide = np.repeat(corpus, 2, axis=1)
    np.save(tmp_path / "corpus.npy", corpus)
    mapped = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    for same in (np.asfortranarray(corpus), wide[:, ::2], corpus[::-1].copy()[::-1], corpus.astype(">f4"), mapped):
        assert_same(nearest(queries, same, 6, corpus_chunk_size=11), wanted)
    half = corpus.astype(np.float16)
    assert_same(nearest(queries, half, 6), nearest(queries, half.astype(np.float32), 6))
    assert_same(nearest(queries.tolist(), corpus.tolist(), 6), nearest(queries.astype(float), corpus.astype(float), 6))
    for name, function in (("cosine", cos_sim), ("dot", dot_score)):
        assert_same(nearest(queries, corpus, 5, function), nearest(queries, corpus, 5, name))
    by_distance = best_by_hand(euclidean_sim(queries, corpus), 5)
    for score in ("euclidean", lambda a, b: euclidean_sim(a, b)):
        assert_same(nearest(queries, corpus, 5, score, corpus_chunk_size=7), by_distance)
    unit = corpus / np.linalg.norm(corpus, axis=1, keepdims=True)
    assert_same(nearest(queries, unit, 6, lengths=np.ones(80, np.float32)), nearest(queries, unit, 6))


@settings(max_examples=30)
@given(alike(40), st.integers(1, 12), st.data())
def test_the_best_row_of_each_group(corpus, k, data):
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=len(corpus)))
    groups = np.repeat(np.arange(len(sizes)), sizes)[: len(corpus)]
    corpus = corpus[: len(groups)]
    scores = scores_by_hand(corpus[:3], corpus, "cosine")
    ids, found = nearest_groups(corpus[:3], corpus, groups, k, "cosine")
    best = np.array([[row[groups == group].max() for group in np.unique(groups)] for row in scores])
    order, wanted = best_by_hand(best, k)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.take_along_axis(scores, ids, axis=1), found)
    np.testing.assert_array_equal(np.sort(groups[ids], axis=1)[:, : len(sizes)].shape, order.shape)
    if len(np.unique(best)) == best.size:
        np.testing.assert_array_equal(groups[ids], order)


def test_the_dictionary_form_and_edges():
    some, none = vectors(4, 6), np.empty((0, 6), np.float32)
    ids, scores = nearest(some, vectors(20, 6, seed=1), 3)
    found = semantic_search(some, vectors(20, 6, seed=1), top_k=3)
    assert [[(hit["corpus_id"], hit["score"]) for hit in row] for row in found] == [
        list(zip(*row, strict=True)) for row in zip(ids.tolist(), scores.tolist(), strict=True)
    ]
    assert type(found[0][0]["corpus_id"]) is int and type(found[0][0]["score"]) is float
    assert semantic_search(none, some) == [] and semantic_search(some, none) == [[], [], [], []]
    assert nearest(some, some, 3, keep=np.zeros(4, bool))[0].shape == (4, 0)
    assert nearest(none, some, 3)[0].shape == (0, 3) and nearest(some, some, 99)[0].shape == (4, 4)


@pytest.mark.parametrize("case", ["float16", "huge", "ties", "mapped"])
def test_memory_is_that_of_a_block(case, tmp_path):
    corpus = vectors(100_000, 128)  # 49 MiB
    corpus = corpus.astype(np.float16) if case == "float16" else corpus
    corpus *= 1e30 if case == "huge" else 1
    if case == "ties":
        corpus[:] = corpus[0]
    if case == "mapped":
        np.save(tmp_path / "corpus.npy", corpus)
        corpus = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    tracemalloc.start()
    nearest(vectors(1, 128, seed=1), corpus, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # MiB; 32 of them work_through asks for and never touches
    limit = {"one query": 40, "mapped": 40, "float16": 64, "huge": 100, "ties": 56}[case]
    print(f"\n  {case}: {peak / 2**20:.1f} MiB", end="")
    assert peak < limit * 2**20


# ------------------------------------------------------------------------------------------ pairs, communities


@settings(max_examples=60)
@given(alike(40), st.integers(1, 45), st.integers(1, 300), st.integers(1, 45))
def test_pairs_are_brute_force(rows, top_k, max_pairs, size):
    scores = scores_by_hand(rows, rows, "cosine")
    pairs = set()
    for i in range(len(rows)):
        others = sorted((j for j in range(len(rows)) if j != i), key=lambda j: (-scores[i, j], j))
        pairs |= {(min(i, j), max(i, j)) for j in others[:top_k]}
    best = sorted(pairs, key=lambda pair: (-scores[pair], pair))[:max_pairs]
    found = paraphrase_mining_embeddings(rows, query_chunk_size=size, top_k=top_k, max_pairs=max_pairs)
    assert found == [[float(scores[pair]), *pair] for pair in best]


def test_pairs_of_texts_of_nothing_and_of_copies():
    class Encoder:
        def encode(self, sentences, **options):
            self.seen = list(sentences), options
            return np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]], np.float32)

    encoder = Encoder()
    assert [pair[1:] for pair in paraphrase_mining(encoder, ("a", "b", "c"), max_pairs=1, prompt="p: ")] == [[0, 2]]
    assert encoder.seen[0] == ["a", "b", "c"] and encoder.seen[1]["prompt"] == "p: "
    with pytest.raises(ValueError, match="got a single text"):
        paraphrase_mining(encoder, "abc")
    assert paraphrase_mining_embeddings(np.empty((0, 4))) == paraphrase_mining_embeddings(np.ones((1, 4))) == []
    # of five equal rows, those behind the first three do not find themselves among their top 2 + 1
    copies = paraphrase_mining_embeddings(np.ones((5, 3), np.float32), top_k=2)
    assert [pair[1:] for pair in copies] == [[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [1, 3], [1, 4]]


def test_pairs_of_more_vectors_than_32_bits_can_pair(monkeypatch):
    count = 100_000  # where ids have 32 bits, as in WebAssembly: 100,000^2 pairs

    def mirrored(queries, corpus, k, *_, **__):
        own = np.arange(count, dtype=np.int32)
        return np.stack([own, own[::-1]], axis=1), np.stack([own, np.minimum(own, own[::-1])], axis=1) / count

    monkeypatch.setattr("minisbert.nearest.nearest", mirrored)
    found = paraphrase_mining_embeddings(np.zeros((count, 1)), query_chunk_size=count, top_k=1, max_pairs=3)
    assert [pair[1:] for pair in found] == [[49_999, 50_000], [49_998, 50_001], [49_997, 50_002]]


@settings(max_examples=40)
@given(alike(), st.sampled_from([-1.0, 0.0, 0.5, 0.75, 0.9, 1.0]), st.integers(1, 9), st.integers(1, 70), st.booleans())
def test_communities_are_brute_force(rows, threshold, least, batch, tight):
    scores = scores_by_hand(rows, rows, "cosine")
    if tight:  # a cosine at the threshold counts
        threshold = float(scores.flat[len(scores.flat) // 3])
    close = scores >= scores.dtype.type(threshold)
    taken, wanted = set(), []
    for centre in sorted(range(len(rows)), key=lambda i: (-close[i].sum(), i)):
        members = sorted(np.flatnonzero(close[centre]).tolist(), key=lambda j: (-scores[centre, j], j))
        free = [j for j in members if j not in taken]
        if close[centre].sum() >= least and centre not in taken and len(free) >= least:
            wanted.append([centre] + [j for j in free if j != centre])
            taken |= set(free)
    assert community_detection(rows, threshold, least, batch) == sorted(wanted, key=len, reverse=True)


def test_communities_in_memory_that_does_not_grow_with_close_pairs(capsys):
    # 12,000 equal vectors: 144 million close pairs, 576 MB as 32-bit ids
    tracemalloc.start()
    found = community_detection(np.ones((12_000, 4), np.float32), 0.9, 5, show_progress_bar=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [list(range(12_000))] and "12000/12000" in capsys.readouterr().err
    assert peak < 128 * 2**20
    assert community_detection(np.empty((0, 4))) == []


# ----------------------------------------------------------------------------------------------------- matching


@settings(max_examples=50)
@given(st.integers(1, 15), st.integers(1, 15), st.integers(0, 2**32 - 1), st.sampled_from([None, 0.9]))
def test_best_and_mutual(rows_a, rows_b, seed, least):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(1, 3, (rows, 3)).astype(np.float32) for rows in (rows_a, rows_b))  # many ties and copies
    scores = scores_by_hand(a, b, "cosine")
    there, back = scores.argmax(axis=1), scores.argmax(axis=0)
    kept = [(i, int(j)) for i, j in enumerate(there) if least is None or scores[i, j] >= least]
    for method, wanted in (("best", kept), ("mutual", [(i, j) for i, j in kept if back[j] == i])):
        found = match(a, b, method, min_score=least)
        assert list(zip(found.a_ids.tolist(), found.b_ids.tolist(), strict=True)) == wanted
        np.testing.assert_array_equal(found.scores, scores[found.a_ids, found.b_ids])


def test_optimal_is_one_to_one_with_the_largest_sum(sklearn):
    a = vectors(80, 5)
    order = np.random.default_rng(3).permutation(80)
    found = match(a, (a + np.float32(0.05) * vectors(80, 5, seed=4))[order], "optimal")
    assert (order[found.b_ids] == found.a_ids).all() and len(found.a_ids) == 80
    # three of two: the sum counts, not the best pair; with a least score a good pair is not given up for two poor ones
    a, b = [[1.0, 0.0], [0.6, 0.8]], [[1.0, 0.05], [0.0, -1.0]]
    for least, wanted in ((None, {(0, 1), (1, 0)}), (0.5, {(0, 0)})):
        found = match(a, b, "optimal", min_score=least)
        assert set(zip(found.a_ids.tolist(), found.b_ids.tolist(), strict=True)) == wanted


@pytest.mark.parametrize(("score", "least"), [("cosine", 1.0), ("euclidean", 0.0), ("dot", None)])
def test_optimal_decides_and_reports_by_exact_scores(sklearn, score, least):
    a = vectors(50, 7)
    order = np.random.default_rng(3).permutation(50)
    found = match(a, a[order], "optimal", score_function=score, min_score=least)
    np.testing.assert_array_equal(found.a_ids, np.arange(50))
    assert least is None or (order[found.b_ids] == found.a_ids).all()
    exact = scores_by_hand(a, a[order], score) if score != "euclidean" else np.zeros((50, 50))
    np.testing.assert_array_equal(found.scores, exact[found.a_ids, found.b_ids])


@pytest.mark.parametrize("method", ["best", "mutual", "optimal"])
def test_matching_nothing(method, sklearn):
    some, none = vectors(4), vectors(0)
    for a, b in ((some, none), (none, some), (none, none)):
        assert [len(part) for part in match(a, b, method)] == [0, 0, 0]
    # 0.7 rounded to float32 is less than 0.7: a least score is rounded as scores are
    same = match(np.float32([[0.7]]), np.float32([[1.0]]), method, score_function="dot", min_score=np.float64(0.7))
    assert len(same.scores) == 1


# ------------------------------------------------------------------------------------------------------ refusals

GOOD, BAD, LONG = vectors(300, 6), vectors(300, 6), np.full((2, 4), 1e20, np.float32)
BAD[177, 2] = np.nan
REFUSED = {
    "NaN in a query": (lambda: nearest(BAD, GOOD, 3), "queries: NaN or infinity in row 177"),
    "NaN in a document": (lambda: nearest(GOOD, BAD, 3, corpus_chunk_size=50), "vectors: NaN or infinity in row 177"),
    "token vectors": (lambda: nearest(GOOD, GOOD[None], 3), "vectors"),
    "overflow": (lambda: nearest(LONG, LONG, 1, "dot"), "overflow float32"),
    "an unknown score": (lambda: nearest(GOOD, GOOD, 1, "angular"), "angular"),
    "a score of a wrong shape": (lambda: nearest(GOOD, GOOD, 1, lambda a, b: np.ones(len(b))), "score_function"),
    "a score that is NaN": (lambda: nearest(GOOD, GOOD, 1, lambda a, b: np.full((len(a), len(b)), np.nan)), "finite"),
    **{
        name: (lambda name=name: semantic_search(GOOD, GOOD, **{name: 0}), name)
        for name in ("top_k", "query_chunk_size", "corpus_chunk_size")
    },
    "max_pairs": (lambda: paraphrase_mining_embeddings(GOOD, max_pairs=0), "max_pairs"),
    "min_community_size": (lambda: community_detection(GOOD, 0.5, 0), "min_community_size"),
    "threshold": (lambda: community_detection(GOOD, 75), "threshold"),
    "method": (lambda: match(GOOD, GOOD, "greedy"), "greedy"),
    "min_score": (lambda: match(GOOD, GOOD, min_score=np.nan), "min_score"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    call, named = REFUSED[case]
    with pytest.raises(ValueError, match=named):
        call()
