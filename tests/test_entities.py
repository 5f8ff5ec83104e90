"""Entities: words and their vectors by another way, a probe whose right answer is known, saving, and the report."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY, write_model

from minisbert import SentenceEncoder
from minisbert.analysis import entities as module
from minisbert.analysis import word_vectors as vectors_module
from minisbert.analysis.entities import (
    EntityTagger,
    TagProbe,
    evaluate_tagger,
    fit_probe,
    fit_spelling,
    lexicon,
    load_tagger,
    train_tagger,
)
from minisbert.analysis.tagging import TaggedSentences, rates, read_tagged, span_counts, span_probabilities, spans_of
from minisbert.analysis.word_vectors import join_words, split_words, word_vectors
from minisbert.saved import OriginError, origin_of


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny random model: 3 layers, 16 positions, so that 14 pieces fit."""
    return SentenceEncoder(
        write_model(tmp_path_factory.mktemp("tiny") / "m", config=replace(TINY, num_hidden_layers=3))
    )


def cut_words(words):
    return [words.text[start:stop] for start, stop in zip(words.starts, words.stops, strict=True)]


# --------------------------------------------------------------------------------------------------------- words


def test_texts_are_split_as_people_tag_them():
    accents, hindi = "e\u0301te\u0301", "\u0928\u092e\u0938\u094d\u0924\u0947"
    for text, words in {
        "Ada's, it\u2019s": ["Ada", "'s", ",", "it", "\u2019s"],
        "@ada #tag a@b.c": ["@ada", "#tag", "a", "@b.c"],
        "see http://t.co/x?y=1, www.a.org": ["see", "http://t.co/x?y=1,", "www.a.org"],
        "(Ada)...": ["(", "Ada", ")", ".", ".", "."],
        f"{accents} {hindi} 10€": [accents, hindi, "10", "€"],
        "a\u00a0b\u2028c\x00d": ["a", "b", "c", "d"],
    }.items():
        assert cut_words(split_words(text)) == words, text
    assert cut_words(join_words(["Ada", "New York", "☃"])) == ["Ada", "New York", "☃"]


@given(st.text(max_size=40))
def test_every_visible_character_is_in_one_word(text):
    words = split_words(text)
    assert words.text == text and (words.starts < words.stops).all() and (words.stops[:-1] <= words.starts[1:]).all()
    assert "".join(cut_words(words)) == "".join(c for c in text if vectors_module._shape(c) != " ") or "http" in text


# ------------------------------------------------------------------------------------------------------- vectors


def states(encoder, text):
    """Hidden states of a text by the trace: layers + 1 arrays (T, D), special tokens dropped."""
    bert = encoder.trace(text, overflow="error").bert
    return [one[1:-1] for one in (bert.embeddings.output, *(one.output for one in bert.layers))]


@pytest.mark.parametrize("layer", [None, 0])
def test_vectors_are_means_of_the_traced_pieces(encoder, layer):
    # pieces: the | un ##able | dog | ! | s ##n ##o ##w
    words, pieces = join_words(["The", "unable", "dog!", "snow"]), [[0], [1, 2], [3, 4], [5, 6, 7, 8]]
    hidden = states(encoder, words.text)[2 if layer is None else layer]
    [found] = word_vectors(encoder, [words], layer=layer)
    [apart] = word_vectors(encoder, [split_words(words.text)], layer=layer)  # dog and ! are two words, and touch
    assert found.dtype == np.float32
    # measured: 2.4e-7
    np.testing.assert_allclose(found, [hidden[rows].mean(axis=0) for rows in pieces], atol=1e-6)
    np.testing.assert_allclose(apart[2:4], hidden[3:5], atol=1e-6)


def test_vectors_do_not_depend_on_company_threads_or_words_without_pieces(encoder, monkeypatch):
    monkeypatch.setattr(vectors_module, "_BLOCK_TEXTS", 2)
    sentences = [join_words(words) for words in (["dog"], ["the", "cat", "sat"], [], ["i", "love", "soup", "!"] * 6)]
    together = word_vectors(encoder, sentences, num_threads=2)
    for words, rows in zip(sentences, together, strict=True):
        [alone] = word_vectors(encoder, [words], num_threads=1)
        assert rows.shape == (len(words.starts), 12)
        np.testing.assert_allclose(rows, alone, atol=1e-6)
    [found] = word_vectors(encoder, [join_words(["the", "cat", "\ufe0f", "sat"])])
    assert not found[2].any()
    np.testing.assert_allclose(found[[0, 1, 3]], together[1], atol=1e-6)
    # BERT takes "5€" for one word, unknown as a whole here: one piece for two words of ours
    [shared] = word_vectors(encoder, [split_words("5€ cat")])
    assert shared[0].any() and np.array_equal(shared[0], shared[1]) and not np.array_equal(shared[0], shared[2])


def test_nothing_is_cut_off_a_long_sentence(encoder):
    rng = np.random.default_rng(0)
    words = rng.choice(["the", "cat", "sat", "on", "mat", "dog", "ran", "soup"], 61).tolist()  # a piece each
    [found] = word_vectors(encoder, [join_words(words)], layer=3)
    # a window has 14 words, the last one fewer, and shares 7 with the next: 3 neighbours at least on both sides
    every = [states(encoder, " ".join(words[a : a + 14]))[3] for a in range(len(words))]
    for t, vector in enumerate(found):
        near = [a for a in range(max(0, t - 13), t + 1) if np.abs(every[a][t - a] - vector).max() < 1e-5]
        assert any((a == 0 or t - a >= 3) and (a + 14 >= len(words) or a + 13 - t >= 3) for a in near), t
    [whole] = word_vectors(encoder, [join_words(words[:14])], layer=3)  # fits: read in one
    np.testing.assert_allclose(whole, every[0], atol=1e-6)


@pytest.mark.parametrize("key", ["layer", "strengths", "offsets"])
def test_what_cannot_be_learnt_is_refused_before_any_vector_is_made(key, sklearn, encoder, monkeypatch):
    monkeypatch.setattr(module, "word_vectors", lambda *args, **kwargs: pytest.fail("worked too early"))
    wrong = {"layer": 4, "strengths": [0.0], "offsets": [-1.0]}
    with pytest.raises(ValueError, match=key):
        train_tagger(encoder, made_up(5, 0)[0], **{key: wrong[key]})


# --------------------------------------------------------------------------------------------------------- probe


def made_up(count, seed, noise=0.3):
    """Sentences, and vectors that hold the tag of each word: three axes and noise."""
    rng = np.random.default_rng(seed)
    axes = {"O": [0, 0, 0], "B-x": [3, 0, 0], "I-x": [0, 3, 0], "B-y": [0, 0, 3]}
    rows, sentences = [], []
    for _ in range(count):
        tags = [["O"], ["B-x", "I-x"], ["B-y"], ["B-x"]]
        row = [tag for i in rng.integers(0, 4, rng.integers(1, 5)) for tag in tags[i]]
        rows.append(row)
        sentences.append([str(rng.choice(["met", "and"] if tag == "O" else ["Ada", "Bo"])) for tag in row])
    vectors = np.array([axes[tag] for row in rows for tag in row]) + rng.normal(0, noise, (sum(map(len, rows)), 3))
    return TaggedSentences(f"set {seed}", sentences, rows), vectors


def f1(expected, predicted):
    return rates(span_counts(expected, predicted).sum(axis=(0, 1)))[2]


@pytest.mark.parametrize("with_dev", [True, False])
def test_tags_that_the_vectors_hold_are_learnt(sklearn, with_dev):
    (train, vectors), (test, others) = made_up(120, 0), made_up(60, 1)
    features = {id(train): vectors, id(test): others}
    probe, chosen = fit_probe(lambda data: features[id(data)], train, dev=test if with_dev else None)
    assert chosen.chosen_on == ("set 1" if with_dev else "cross-validation, 3 folds")
    found, tried = f1(test.tags, probe.decode_all(others, test.tags, chosen.offset)), np.array(chosen.f1)
    assert found > 0.97 and tried.shape == (4, 7)
    assert not with_dev or tried.max() == found
    s, o = chosen.strengths.index(chosen.strength), chosen.offsets.index(chosen.offset)
    best = tried == tried.max()
    again, _ = fit_probe(lambda data: vectors, train, strengths=[chosen.strength], offsets=[0.0])
    np.testing.assert_allclose(probe.weight, again.weight, rtol=1e-6)  # of all sentences
    assert best[s, o] and not best[:s].any() and not best[s, :o].any()  # the first of equals


def test_the_probe_is_scikit_learns_on_scaled_vectors(sklearn, monkeypatch):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    train, vectors = made_up(50, 0, noise=1.5)
    vectors = np.concatenate([vectors * [1.0, 20.0, 0.1] + [0.0, 5.0, -1.0], np.full((len(vectors), 1), 7.0)], axis=1)
    tags, before = np.array([tag for row in train.tags for tag in row]), vectors.copy()
    for rows in (tags, np.where(tags == "B-x", "B-x", "O")):  # two tags are a sigmoid
        one_word = TaggedSentences("t", [["w"]] * len(rows), [[t if t[0] != "I" else "B-x"] for t in rows])
        probe, chosen = fit_probe(lambda data: vectors, one_word, strengths=[0.1], offsets=[0.0])
        scaled = StandardScaler().fit_transform(vectors)
        model = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000).fit(scaled, [row[0] for row in one_word.tags])
        assert probe.tags == tuple(model.classes_) and chosen.f1 == []
        # measured: 2e-5, where the two stop
        np.testing.assert_allclose(np.exp(probe.log_probs(vectors)), model.predict_proba(scaled), atol=2e-4)
    assert np.array_equal(vectors, before)
    monkeypatch.setattr("minisbert.analysis.classifier._MOST_ITERATIONS", 2)
    with pytest.raises(ValueError, match="did not converge"):
        fit_probe(lambda data: vectors, train, strengths=[100.0], offsets=[0.0])


def test_no_sentence_is_asked_of_a_probe_that_has_learnt_it_or_its_like(sklearn):
    train = made_up(30, 0)[0]
    double = TaggedSentences("twice", [*train.sentences, *train.sentences], [*train.tags, *train.tags])
    numbers = np.repeat(np.arange(60), list(map(len, double.sentences)))[:, None]  # rows that tell whose they are
    held = []
    for learnt, known, asked, tags in module._folds(numbers, double, folds=4, seed=0):
        one, other = np.unique(learnt).tolist(), np.unique(asked).tolist()
        assert sorted([*one, *other]) == list(range(60))
        assert [double.tags[i] for i in one] == known and [double.tags[i] for i in other] == tags
        assert not {tuple(double.sentences[i]) for i in one} & {tuple(double.sentences[i]) for i in other}
        held += other
    assert sorted(held) == list(range(60))


# -------------------------------------------------------------------------------------------------------- tagger


def tagger_of(encoder):
    """A tagger of random weights, which finds something in most sentences."""
    weight = np.random.default_rng(4).normal(0, 1, (5, 12)) * np.array([[1], [1], [1], [1], [0]])
    probe = TagProbe(("B-x", "B-y", "I-x", "I-y", "O"), weight, np.array([0.0, 0.0, 0.0, 0.0, 3.0]))
    return EntityTagger(probe, layer=2, offset=3.0, origin=origin_of(encoder), training={"a": 1})


TEXT = "The  cat, unable!  i love\nsoup; the dog ran on the mat & sat."


def test_entities_are_spans_of_the_tags_cut_out_of_the_text_verbatim(encoder):
    tagger = tagger_of(encoder)
    texts = [TEXT, "", "  \t", "soup"]
    found = tagger.find(encoder, texts)
    assert found[1] == found[2] == [] and len(found[0]) > 2
    for text, names in zip(texts, found, strict=True):
        assert all(text[one.start : one.stop] == one.text and one.text.strip() == one.text != "" for one in names)
        assert all(a.stop <= b.start for a, b in pairwise(names))
    words = ["the", "cat", "sat", "on", "i", "love", "soup"]
    [tags], [names] = tagger.tag(encoder, [words]), tagger.find(encoder, [join_words(words)])
    [vectors] = word_vectors(encoder, [join_words(words)], layer=2)
    log_probs, spans = tagger.probe.log_probs(vectors), spans_of(tags)
    assert tagger.probe.decode(log_probs, offset=3.0) == tags != tagger.probe.decode(log_probs)
    assert [(one.text, one.type) for one in names] == [(" ".join(words[a:b]), kind) for a, b, kind in spans]
    # the probability is of the scores before the offset
    expected = span_probabilities(log_probs, tagger.probe.tags, spans)
    np.testing.assert_allclose([one.probability for one in names], expected, atol=1e-6)


def test_a_saved_tagger_is_the_same_bit_for_bit_and_knows_its_model(encoder, tmp_path):
    tagger = tagger_of(encoder)
    tagger.save(tmp_path / "names")
    again = load_tagger(tmp_path / "names")
    assert {**vars(again), "probe": 0} == {**vars(tagger), "probe": 0}
    assert again.probe.weight.tobytes() == tagger.probe.weight.tobytes() and again.probe.tags == tagger.probe.tags
    assert again.find(encoder, [TEXT]) == tagger.find(encoder, [TEXT])
    other = SentenceEncoder(write_model(tmp_path / "other", seed=1))
    for use in (lambda: tagger.find(other, ["soup"]), lambda: tagger.tag(other, [["soup"]])):
        with pytest.raises(OriginError, match="'m'"):
            use()


# -------------------------------------------------------------------------------------------------------- report


def test_baselines_by_hand(sklearn):
    # York: B twice, I once; an unknown word, and one written otherwise, are O
    train = TaggedSentences(
        "train",
        [["New", "York", "and", "York"], ["York", "sings"], ["may", "May"]],
        [["B-y", "I-y", "O", "B-y"], ["B-y", "O"], ["O", "B-x"]],
    )
    assert lexicon(train, [["New", "York"], ["may", "MAY", "May"]]) == [["B-y", "B-y"], ["O", "O", "B-x"]]
    train, test = (
        replace(data, tags=[[tag.replace("y", "x").replace("I", "B") for tag in row] for row in data.tags])
        for data in (made_up(60, 0)[0], made_up(40, 1)[0])
    )
    tags, chosen = fit_spelling(train, test)
    assert f1(test.tags, tags) == 1.0 and chosen.chosen_on == "cross-validation, 3 folds"


def test_the_real_model_on_a_sample_of_wnut17(sklearn, weights_folder, data_folder):
    def sample(name, count):
        data = read_tagged(data_folder / "wnut17" / f"wnut17_{name}.jsonl")
        chosen = np.random.default_rng(0).choice(len(data.sentences), count, replace=False)
        return TaggedSentences(name, [data.sentences[i] for i in chosen], [data.tags[i] for i in chosen])

    encoder = SentenceEncoder(weights_folder)
    tagger = train_tagger(encoder, sample("train", 250), strengths=[0.01], offsets=[1.5])
    report = evaluate_tagger(tagger, encoder, sample("dev", 100))
    # measured: 0.39, of persons 0.52; a probe that learnt nothing would be near 0
    assert report.systems[0].spans.f1.mean > 0.25 and report.systems[0].by_type["person"].f1.mean > 0.35
    [names] = tagger.find(encoder, ["yesterday obama flew to paris"])
    assert {(one.text, one.type) for one in names} >= {("obama", "person")}
