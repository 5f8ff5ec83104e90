"""Exact search: brute force, ties, block sizes, memory, memory-mapped files; what is refused."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert.search import exact
from minisbert.search.exact import WORK_BYTES, search_arrays, semantic_search, top_scores
from minisbert.search.scoring import build_scorer
from minisbert.similarity import cos_sim, dot_score, euclidean_sim

DTYPES = [np.float32, np.float64]
KINDS = ["cosine", "dot"]


def vectors(rows, width, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(dtype)


def exact_scores(queries, corpus, kind, dtype):
    """All scores pair by pair: Python's float64, one dot product at a time, rounded once."""
    q, d = queries.astype(np.float64), corpus.astype(np.float64)
    scores = np.array([[(u * v).sum() for v in d] for u in q]).reshape(len(q), len(d))
    if kind == "cosine":
        scores /= np.sqrt((q * q).sum(axis=1))[:, None] * np.sqrt((d * d).sum(axis=1))
        scores = np.clip(scores, -1, 1)
    return scores.astype(dtype)


def brute_force(scores, k):
    """Sort everything: by score descending, then by id."""
    rows = [sorted(range(len(row)), key=lambda j: (-row[j], j))[:k] for row in scores.tolist()]
    ids = np.array(rows, np.intp).reshape(len(scores), min(k, scores.shape[1]))
    return ids, np.take_along_axis(scores, ids, axis=1)


def assert_same(found, wanted):
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
    assert found[0].dtype == np.intp
    assert found[1].dtype == wanted[1].dtype


# ---------------------------------------------------------------------------------------------- the answer


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 7, 300, 301])
def test_equals_brute_force_bit_for_bit(dtype, kind, k):
    queries, corpus = vectors(9, 48, dtype), vectors(300, 48, dtype, 1)
    corpus[200:210] = corpus[3]  # ties, far apart in the corpus
    queries[4] = 3 * corpus[3]
    found = search_arrays(queries, corpus, k, kind, corpus_chunk_size=37, query_chunk_size=4)
    assert_same(found, brute_force(exact_scores(queries, corpus, kind, dtype), k))
    if kind == "cosine":
        assert found[1][4, 0] == 1.0
        assert found[0][4, : min(k, 11)].tolist() == [3, *range(200, 210)][: min(k, 11)]


@pytest.mark.parametrize("k", [1, 5, 64])
def test_copies_of_a_document_tie_wherever_they_lie(k):
    # a matrix product gives copies scores that differ in the last bit, by their place in the block
    one = vectors(1, 384)
    corpus = np.repeat(one, 1000, axis=0)
    queries = vectors(6, 384, seed=2)
    for kind in KINDS:
        ids, scores = search_arrays(queries, corpus, k, kind, corpus_chunk_size=97)
        assert (ids == np.arange(k)).all()
        assert (scores == scores[:, :1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_documents_a_rounding_apart(kind):
    # estimates cannot tell them apart, and the best of them may be estimated below one that was kept
    rng = np.random.default_rng(0)
    corpus = vectors(1, 384) * (1 + np.float32(1e-6) * rng.standard_normal((800, 384)).astype(np.float32))
    queries = vectors(1, 384) + vectors(4, 384, seed=2)
    wanted = exact_scores(queries, corpus, kind, np.float32)
    assert len(np.unique(wanted[0])) > 4
    for size in (1, 50, 800):
        for k in (1, 3):
            found = search_arrays(queries, corpus, k, kind, corpus_chunk_size=size)
            assert_same(found, brute_force(wanted, k))


@settings(max_examples=60)
@given(st.data())
def test_block_sizes_and_neighbours_change_nothing(data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    rows, asked, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 33))
    dtype, kind = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(KINDS))
    rng = np.random.default_rng(seed)
    # few different vectors, so that ties are everywhere
    palette = rng.integers(1, 4, (4, width)).astype(dtype) + rng.standard_normal((4, width)).astype(dtype) / 7
    corpus = palette[rng.integers(0, 4, rows)] + np.where(rng.random((rows, 1)) < 0.3, rng.random((rows, 1)), 0)
    corpus = corpus.astype(dtype)
    queries = palette[rng.integers(0, 4, asked)]
    k = data.draw(st.integers(1, rows + 2))
    wanted = search_arrays(queries, corpus, k, kind)
    sizes = {"query_chunk_size": data.draw(st.integers(1, 8)), "corpus_chunk_size": data.draw(st.integers(1, 99))}
    assert_same(search_arrays(queries, corpus, k, kind, **sizes), wanted)
    one = search_arrays(queries[-1], corpus, k, kind)
    assert_same(one, (wanted[0][-1:], wanted[1][-1:]))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
def test_shuffling_documents_shuffles_ids(seed, kind):
    rng = np.random.default_rng(seed)
    queries, corpus = vectors(3, 20, seed=seed), vectors(50, 20, seed=seed + 1)
    order = rng.permutation(50)
    ids, scores = search_arrays(queries, corpus, 8, kind)
    shuffled_ids, shuffled_scores = search_arrays(queries, corpus[order], 8, kind)
    np.testing.assert_array_equal(order[shuffled_ids], ids)  # random scores do not tie
    np.testing.assert_array_equal(shuffled_scores, scores)


@pytest.mark.parametrize("dtype", DTYPES)
def test_estimates_stay_within_their_bound(dtype):
    # the bound is what the exactness of the search rests on; vectors whose sums cancel are the worst case
    rng = np.random.default_rng(0)
    for width in (1, 3, 384, 4096):
        queries = rng.standard_normal((5, width)).astype(dtype)
        corpus = (rng.standard_normal((200, width)) * 10.0 ** rng.uniform(-4, 4, (200, 1))).astype(dtype)
        corpus[:50] = np.abs(corpus[:50])
        for kind in KINDS:
            scorer = build_scorer("test", ("q", "d"), kind, queries, np.dtype(dtype))
            block = scorer.read(corpus, 0, 200)
            estimates = scorer.estimate(slice(0, 5), block)
            true = exact_scores(queries.astype(np.longdouble), corpus.astype(np.longdouble), kind, np.float64)
            assert np.abs(estimates.astype(np.float64) - true).max() <= block.error
            rows, columns = np.divmod(np.arange(1000), 200)
            exactly = scorer.exact(slice(0, 5), block, estimates, rows, columns).reshape(5, 200)
            assert np.abs(exactly.astype(np.float64) - true).max() <= block.error


def test_an_exact_score_does_not_depend_on_the_other_pairs():
    queries, corpus = vectors(7, 257), vectors(400, 257, seed=1)
    scorer = build_scorer("test", ("q", "d"), "cosine", queries, np.dtype(np.float32))
    block = scorer.read(corpus, 0, 400)
    rows, columns = np.divmod(np.arange(2800), 400)
    together = scorer.exact(slice(0, 7), block, np.empty(0), rows, columns)
    for pair in range(0, 2800, 61):
        alone = scorer.exact(slice(0, 7), block, np.empty(0), rows[[pair]], columns[[pair]])
        assert alone[0] == together[pair]


def test_the_dictionary_form_is_the_array_form():
    queries, corpus = vectors(3, 8), vectors(20, 8, seed=1)
    found = semantic_search(queries, corpus, top_k=4)
    ids, scores = search_arrays(queries, corpus, 4)
    assert [[hit["corpus_id"] for hit in row] for row in found] == ids.tolist()
    assert [[hit["score"] for hit in row] for row in found] == scores.tolist()
    assert type(found[0][0]["corpus_id"]) is int
    assert type(found[0][0]["score"]) is float


def test_functions_and_names():
    queries, corpus = vectors(4, 6), vectors(30, 6, seed=1)
    for name, function in (("cosine", cos_sim), ("dot", dot_score)):
        assert_same(search_arrays(queries, corpus, 5, function), search_arrays(queries, corpus, 5, name))
    wanted = brute_force(euclidean_sim(queries, corpus), 5)
    for score_function in ("euclidean", euclidean_sim, lambda a, b: euclidean_sim(a, b)):
        assert_same(search_arrays(queries, corpus, 5, score_function, corpus_chunk_size=7), wanted)
    with pytest.raises(ValueError, match=r"cosine, dot, euclidean, manhattan.*got 'angular'"):
        search_arrays(queries, corpus, 5, "angular")
    for wrong in (lambda a, b: np.ones(len(b)), lambda a, b: np.full((len(a), len(b)), np.nan)):
        with pytest.raises(ValueError, match="score_function must return finite scores"):
            search_arrays(queries, corpus, 5, wrong)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unit_vectors(dtype):
    corpus = vectors(200, 32, dtype)
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    queries = 7 * vectors(5, 32, dtype, 1)
    ids, scores = top_scores(queries, corpus, 9, normalized=True)
    wanted_ids, wanted = top_scores(queries, corpus, 9, normalized=False)
    np.testing.assert_array_equal(ids, wanted_ids)
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=4 * np.finfo(dtype).eps)  # a length is 1 but for rounding
    with pytest.raises(ValueError, match=r"normalized=True says .* scores 2"):
        top_scores(2 * corpus[3], 2 * corpus, 1, normalized=True)


# ------------------------------------------------------------------------------------------ sizes and places


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiny_and_huge_vectors_have_cosines_too(dtype):
    low, high = (-40, 37) if dtype == np.float32 else (-300, 300)
    scales = 10.0 ** np.random.default_rng(3).uniform(low, high, (60, 1))
    plain = vectors(60, 16, np.float64, 1)
    corpus = (plain * scales).astype(dtype)
    queries = vectors(4, 16, dtype)
    plain = corpus.astype(np.float64) / np.abs(corpus.astype(np.float64)).max(axis=1, keepdims=True)
    wanted = brute_force(exact_scores(queries, plain, "cosine", np.float64), 60)
    for size, k in ((None, 60), (7, 60), (None, 4), (7, 4)):
        ids, scores = search_arrays(queries, corpus, k, corpus_chunk_size=size)
        np.testing.assert_array_equal(ids, wanted[0][:, :k])
        np.testing.assert_allclose(scores, wanted[1][:, :k], rtol=0, atol=2 * np.finfo(dtype).eps)
    huge = search_arrays((queries * 10.0 ** (high - 2)).astype(dtype), corpus, 60)
    np.testing.assert_array_equal(huge[0], wanted[0])


def test_other_dtypes_and_orders():
    queries, corpus = vectors(3, 24), vectors(80, 24, seed=1)
    wanted = search_arrays(queries, corpus, 6)
    wide = np.repeat(corpus, 2, axis=1)
    for same in (np.asfortranarray(corpus), wide[:, ::2], corpus[::-1].copy()[::-1], corpus.astype(">f4")):
        assert_same(search_arrays(queries, same, 6, corpus_chunk_size=11), wanted)
    half = corpus.astype(np.float16)
    assert_same(search_arrays(queries, half, 6), search_arrays(queries, half.astype(np.float32), 6))
    whole = np.round(10 * corpus).astype(np.int8)
    found = search_arrays(queries, whole, 6)
    assert_same(found, search_arrays(queries.astype(np.float64), whole.astype(np.float64), 6))
    assert found[1].dtype == np.float64
    assert_same(search_arrays(queries.tolist(), corpus.tolist(), 6), search_arrays(queries.tolist(), corpus, 6))


def test_arguments_stay_as_they_are():
    queries, corpus = vectors(3, 24), 10.0 ** np.float32(30) * vectors(80, 24, seed=1)
    before = queries.copy(), corpus.copy()
    queries.flags.writeable = corpus.flags.writeable = False
    semantic_search(queries, corpus)
    np.testing.assert_array_equal(queries, before[0])
    np.testing.assert_array_equal(corpus, before[1])


def test_a_memory_mapped_corpus(tmp_path):
    queries, corpus = vectors(3, 24), vectors(500, 24, seed=1)
    np.save(tmp_path / "corpus.npy", corpus)
    mapped = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    assert_same(search_arrays(queries, mapped, 6, corpus_chunk_size=64), search_arrays(queries, corpus, 6))


@pytest.mark.parametrize("case", ["float32", "unit", "float16", "huge", "ties", "many ties", "many queries", "mapped"])
def test_memory_is_bounded(case, tmp_path):
    corpus = vectors(100_000, 256)  # 98 MiB, more than the bound
    asked = {"many queries": 300, "many ties": 64}.get(case, 2)  # 64 fill a block with candidates
    queries = vectors(asked, 256, seed=1)
    if case == "unit":
        corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    elif case == "float16":
        corpus = np.concatenate([corpus, corpus]).astype(np.float16)
    elif case == "huge":
        corpus *= np.float32(1e30)
    elif "ties" in case:
        corpus[:] = corpus[0]
    elif case == "mapped":
        np.save(tmp_path / "corpus.npy", corpus)
        corpus = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    assert corpus.nbytes > WORK_BYTES
    tracemalloc.start()
    ids, scores = top_scores(queries, corpus, 10, normalized=case == "unit")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"\n  {case}: {peak / 2**20:.1f} MiB beside {corpus.nbytes / 2**20:.0f}", end="")
    assert peak <= WORK_BYTES + queries.nbytes + ids.nbytes + scores.nbytes


def test_default_blocks_are_walked_in_order(monkeypatch):
    # sizes for few and for many queries, with a long and a short block, on a corpus that fits a test
    monkeypatch.setattr(exact, "BLOCK_NUMBERS", 64)
    monkeypatch.setattr(exact, "BLOCK_SCORES", 90)
    corpus = vectors(100, 8, seed=1)
    for asked in (1, 3, 50):
        queries = vectors(asked, 8)
        scorer = build_scorer("test", ("q", "d"), "cosine", queries, np.dtype(np.float32))
        seen = np.zeros((asked, 100), int)
        for chosen, block in exact.walk("test", scorer, corpus):
            seen[chosen, block.start : block.start + len(block.rows)] += 1
            assert seen[chosen].shape[0] * len(block.rows) <= 90
        assert (seen == 1).all()
        assert_same(search_arrays(queries, corpus, 7), search_arrays(queries, corpus, 7, corpus_chunk_size=100))


# ---------------------------------------------------------------------------------------------------- edges


def test_nothing_to_look_for_and_nothing_to_find():
    some, none = vectors(4, 6), np.empty((0, 6), np.float32)
    assert semantic_search(none, some) == []
    assert semantic_search(some, none) == [[], [], [], []]
    ids, scores = search_arrays(some, none, 3)
    assert (ids.shape, scores.shape, scores.dtype) == ((4, 0), (4, 0), np.float32)
    ids, scores = search_arrays(none, some, 3)
    assert (ids.shape, scores.shape) == ((0, 3), (0, 3))
    assert search_arrays(some, some, 99)[0].shape == (4, 4)
    assert search_arrays(some[0], some, 1)[0].tolist() == [[0]]  # a single vector
    assert search_arrays([[2.0], [-3.0]], [[1.0], [-1.0], [5.0]], 2)[0].tolist() == [[0, 2], [1, 0]]  # D = 1


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_refused_and_named(wrong, normalized):
    good, bad = vectors(300, 6), vectors(300, 6)
    bad[[177, 250], 2] = wrong
    good /= np.linalg.norm(good, axis=1, keepdims=True)
    with pytest.raises(ValueError, match=r"top_scores: query_embeddings .* rows 177, 250"):
        top_scores(bad, good, 3, normalized=normalized)
    for asked in (1, 5):
        with pytest.raises(ValueError, match=r"top_scores: corpus must be finite.* rows 177, 250"):
            top_scores(good[:asked], bad, 3, normalized=normalized)
    with pytest.raises(ValueError, match=r"corpus_embeddings must be finite.* row 177\."):
        search_arrays(good[:2], bad, 3, "dot", corpus_chunk_size=100)


def test_zero_vectors_have_no_cosine_but_a_dot_product():
    some, zero = vectors(30, 6), vectors(30, 6)
    zero[[4, 21]] = 0
    with pytest.raises(ValueError, match=r"every row of query_embeddings .* rows 4, 21\."):
        semantic_search(zero, some)
    with pytest.raises(ValueError, match=r"every row of corpus_embeddings .* row 21\."):
        semantic_search(some, np.vstack([some[:21], zero[21:]]))
    scores = exact_scores(zero, zero, "dot", np.float32)
    assert_same(search_arrays(zero, zero, 30, "dot", corpus_chunk_size=8), brute_force(scores, 30))


def test_dot_products_beyond_the_dtype_are_refused():
    with pytest.raises(ValueError, match="may overflow float32"):
        search_arrays(np.full((1, 4), 1e20, np.float32), np.full((2, 4), 1e20, np.float32), 1, "dot")
    with pytest.raises(ValueError, match="may overflow float64"):
        search_arrays(np.full((1, 4), 1e160), np.full((2, 4), 1e160), 1, "dot")
    tiny = np.full((3, 4), 1e-30, np.float32)
    tiny[1] *= 2
    assert search_arrays(np.full((1, 4), 1e10, np.float32), tiny, 3, "dot")[0].tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, None, "3"])
def test_numbers_that_are_none(wrong):
    some = vectors(4, 6)
    with pytest.raises(ValueError, match="semantic_search: top_k must be a whole number of at least 1"):
        semantic_search(some, some, top_k=wrong)
    if wrong is not None:
        for name in ("query_chunk_size", "corpus_chunk_size"):
            with pytest.raises(ValueError, match=f"{name} must be a whole number"):
                semantic_search(some, some, **{name: wrong})


def test_other_things_are_refused():
    some = vectors(4, 6)
    with pytest.raises(ValueError, match=r"same width D, but their shapes are \(4, 6\) and \(4, 5\)"):
        semantic_search(some, some[:, :5])
    with pytest.raises(ValueError, match="Embed texts first"):
        semantic_search(["how to bake bread"], some)
    with pytest.raises(ValueError, match=r"Pool token embeddings"):
        semantic_search(some, some[None])
    with pytest.raises(ValueError, match=r"np.empty\(\(0, D\)\)"):
        semantic_search([], some)
    with pytest.raises(ValueError, match="query_embeddings"):
        semantic_search([[1.0], [1.0, 2.0]], some)
