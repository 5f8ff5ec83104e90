"""Entities: words and their vectors by another way, a probe whose right answer is known, saving, and the report."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY, write_model

from minisbert import SentenceEncoder
from minisbert.analysis import entities as module
from minisbert.analysis import tag_probe
from minisbert.analysis import word_vectors as vectors_module
from minisbert.analysis.decoding import span_probabilities
from minisbert.analysis.entities import EntityTagger, load_tagger, train_tagger
from minisbert.analysis.entity_report import evaluate_tagger, f1_resamples, fit_shapes, lexicon, shapes
from minisbert.analysis.tag_probe import TagProbe, fit_probe
from minisbert.analysis.tagging import Span, TaggedSentences, read_tagged, span_score, spans_of
from minisbert.analysis.word_vectors import Words, check_layers, join_words, split_words, word_vectors
from minisbert.saved import OriginError, SavedError, load_folder, origin_of, save_folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny random model: 3 layers, 16 positions, so that 14 pieces fit."""
    return SentenceEncoder(
        write_model(tmp_path_factory.mktemp("tiny") / "m", config=replace(TINY, num_hidden_layers=3))
    )


def cut_words(words: Words):
    return [words.text[start:stop] for start, stop in zip(words.starts, words.stops, strict=True)]


# --------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  \n\t ", []),
        ("Ada met Bo.", ["Ada", "met", "Bo", "."]),
        ("Ada's, it\u2019s", ["Ada", "'s", ",", "it", "\u2019s"]),
        ("@ada #tag a@b.c", ["@ada", "#tag", "a", "@b.c"]),
        ("pre-show 3.14 U.S. 10,000", ["pre-show", "3.14", "U.S", ".", "10", ",", "000"]),
        ("see http://t.co/x?y=1, www.a.org", ["see", "http://t.co/x?y=1,", "www.a.org"]),
        ("(Ada)...", ["(", "Ada", ")", ".", ".", "."]),
        (
            "e\u0301te\u0301 \u0928\u092e\u0938\u094d\u0924\u0947",
            ["e\u0301te\u0301", "\u0928\u092e\u0938\u094d\u0924\u0947"],
        ),
        ("10€ 😀😀", ["10", "€", "😀", "😀"]),
        ("snake_case - _", ["snake_case", "-", "_"]),
        ("a\u00a0b\u2028c\x00d", ["a", "b", "c", "d"]),
    ],
)
def test_texts_are_split_as_people_tag_them(text, words):
    assert cut_words(split_words(text)) == words


@given(st.text(max_size=40))
def test_every_visible_character_is_in_one_word(text):
    words = split_words(text)
    assert words.text == text and (words.starts < words.stops).all() and (words.stops[:-1] <= words.starts[1:]).all()
    assert "".join(cut_words(words)) == "".join(c for c in text if vectors_module._shape(c) != " ") or "http" in text


def test_joined_words_are_where_they_should_be():
    words = join_words(["Ada", "New York", "☃"])
    assert words.text == "Ada New York ☃" and cut_words(words) == ["Ada", "New York", "☃"]
    assert words.cut_out(Span(0, 2, "x")) == "Ada New York"
    assert cut_words(join_words([])) == []


# ------------------------------------------------------------------------------------------------------- vectors


def states(encoder, text):
    """Hidden states of a text by the trace: layers + 1 arrays (T, D), special tokens dropped."""
    bert = encoder.trace(text, overflow="error").bert
    return [one[1:-1] for one in (bert.embeddings.output, *(one.output for one in bert.layers))]


@pytest.mark.parametrize("layers", [None, (0,), (3,), (1, 3), (3, 0)])
def test_vectors_are_means_of_the_traced_pieces(encoder, layers):
    # pieces: the | un ##able | dog | ! | s ##n ##o ##w
    words = ["The", "unable", "dog!", "snow"]
    pieces = [[0], [1, 2], [3, 4], [5, 6, 7, 8]]
    hidden = np.concatenate([states(encoder, "The unable dog! snow")[n] for n in layers or (2,)], axis=1)
    [found] = word_vectors(encoder, [join_words(words)], layers=layers)
    [first] = word_vectors(encoder, [join_words(words)], layers=layers, pooling="first")
    assert found.dtype == np.float32 and found.shape == (4, 12 * len(layers or (2,)))
    # measured: 2.4e-7
    np.testing.assert_allclose(found, [hidden[rows].mean(axis=0) for rows in pieces], atol=1e-6)
    np.testing.assert_allclose(first, [hidden[rows[0]] for rows in pieces], atol=1e-6)


def test_vectors_do_not_depend_on_company_or_threads(encoder):
    sentences = [join_words(words) for words in (["dog"], ["the", "cat", "sat"], [], ["i", "love", "soup", "!"] * 6)]
    together = word_vectors(encoder, sentences, num_threads=2)
    for words, rows in zip(sentences, together, strict=True):
        [alone] = word_vectors(encoder, [words], num_threads=1)
        assert rows.shape == (len(words.starts), 12)
        np.testing.assert_allclose(rows, alone, atol=1e-6)
    assert word_vectors(encoder, []) == []


def test_a_word_without_pieces_is_zero_and_shared_pieces_count_for_both(encoder):
    [found] = word_vectors(encoder, [join_words(["cat", "\ufe0f", "dog"])])
    [without] = word_vectors(encoder, [join_words(["cat", "dog"])])
    assert not found[1].any()
    np.testing.assert_allclose(found[[0, 2]], without, atol=1e-6)
    # BERT takes "5€" for one word, unknown as a whole here: one piece for two words of ours
    words = split_words("5€ cat")
    assert cut_words(words) == ["5", "€", "cat"]
    [shared] = word_vectors(encoder, [words])
    assert shared[0].any() and np.array_equal(shared[0], shared[1]) and not np.array_equal(shared[0], shared[2])


def test_nothing_is_cut_off_a_long_sentence(encoder):
    rng = np.random.default_rng(0)
    words = rng.choice(["the", "cat", "sat", "on", "mat", "dog", "ran", "soup"], 61).tolist()  # a piece each
    [found] = word_vectors(encoder, [join_words(words)], layers=[3])
    assert np.abs(found).max(axis=1).min() > 0
    # a window has 14 words, the last one fewer, and shares 7 with the next: 3 neighbours at least on both sides
    for t, vector in enumerate(found):
        windows = [(a, min(a + 14, len(words))) for a in range(max(0, t - 13), t + 1)]
        fits = [
            (a, b) for a, b in windows if np.abs(states(encoder, " ".join(words[a:b]))[3][t - a] - vector).max() < 1e-5
        ]
        assert any((a == 0 or t - a >= 3) and (b == len(words) or b - 1 - t >= 3) for a, b in fits), (t, fits)


def test_a_text_that_fits_is_read_in_one(encoder):
    words = ["the"] * 14
    np.testing.assert_allclose(
        word_vectors(encoder, [join_words(words)], layers=[3])[0], states(encoder, " ".join(words))[3], atol=1e-6
    )


@pytest.mark.parametrize("layers", [[4], [-1], [], [1, 1], [True], [1.5]])
def test_layers_that_are_not_there_are_refused(encoder, layers):
    with pytest.raises(ValueError, match=r"from 0 \(the embeddings\) to 3"):
        word_vectors(encoder, [join_words(["cat"])], layers=layers)


def test_other_settings_that_make_no_sense_are_refused(encoder):
    assert check_layers(3, None) == (2,) and check_layers(12, None) == (6,) and check_layers(1, None) == (1,)
    with pytest.raises(ValueError, match="pooling must be one of mean, first"):
        word_vectors(encoder, [join_words(["cat"])], pooling="max")
    huge = encoder.with_model(replace(encoder.model, params=_huge(encoder.model.params)))
    with pytest.raises(ValueError, match="float32 overflowed"), np.errstate(all="ignore"):
        word_vectors(huge, [join_words(["cat"])])


def _huge(params):
    feed_forward = params.layers[0].feed_forward
    norm = replace(feed_forward.layer_norm, weight=np.full_like(feed_forward.layer_norm.weight, 3e38))
    first = replace(params.layers[0], feed_forward=replace(feed_forward, layer_norm=norm))
    return replace(params, layers=(first, *params.layers[1:]))


# --------------------------------------------------------------------------------------------------------- probe

NAMES, OTHERS = ["Ada", "Bo", "Cy"], ["met", "and", "saw", "."]


def made_up(count, seed, noise=0.3):
    """Sentences, and vectors that hold the tag of each word: three axes and noise."""
    rng = np.random.default_rng(seed)
    axes = {"O": [0, 0, 0], "B-x": [3, 0, 0], "I-x": [0, 3, 0], "B-y": [0, 0, 3]}
    rows, sentences = [], []
    for _ in range(count):
        tags = [["O"], ["B-x", "I-x"], ["B-y"], ["B-x"]]
        row = [tag for i in rng.integers(0, 4, rng.integers(1, 5)) for tag in tags[i]]
        rows.append(row)
        sentences.append([str(rng.choice(OTHERS if tag == "O" else NAMES)) for tag in row])
    vectors = np.array([axes[tag] for row in rows for tag in row]) + rng.normal(0, noise, (sum(map(len, rows)), 3))
    return TaggedSentences(f"set {seed}", sentences, rows), vectors


@pytest.mark.parametrize("with_dev", [True, False])
def test_tags_that_the_vectors_hold_are_learnt(sklearn, with_dev):
    train, vectors = made_up(120, 0)
    test, others = made_up(60, 1)
    fit = fit_probe(vectors, train, dev=(others, test) if with_dev else None)
    assert fit.chosen_on == ("set 1" if with_dev else "cross-validation, 3 folds")
    predicted = fit.probe.decode(others, [len(words) for words in test.sentences], offset=fit.offset)
    assert span_score(test.tags, predicted).f1 > 0.97
    assert fit.f1.shape == (len(fit.strengths), len(fit.offsets)) and fit.f1.max() > 0.97
    s, o = fit.strengths.index(fit.strength), fit.offsets.index(fit.offset)
    assert fit.f1[s, o] == fit.f1.max()
    assert not (fit.f1[:s] == fit.f1.max()).any() and not (fit.f1[s, :o] == fit.f1.max()).any()  # the first of equals


def test_the_probe_is_scikit_learns_on_scaled_vectors(sklearn):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    train, vectors = made_up(50, 0, noise=1.5)
    vectors = np.concatenate([vectors * [1.0, 20.0, 0.1] + [0.0, 5.0, -1.0], np.full((len(vectors), 1), 7.0)], axis=1)
    tags = [tag for row in train.tags for tag in row]
    before = vectors.copy()
    probe = fit_probe(vectors, train, strengths=[0.1], offsets=[0.0]).probe
    scaled = StandardScaler().fit_transform(vectors)
    model = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000).fit(scaled, tags)
    assert probe.tags == tuple(model.classes_)
    # measured: 2e-5, where the two stop
    np.testing.assert_allclose(np.exp(probe.log_probs(vectors)), model.predict_proba(scaled), atol=2e-4)
    assert np.array_equal(vectors, before)


def test_two_tags_are_a_sigmoid(sklearn):
    train = TaggedSentences("two", [["a", "b", "c", "d"]], [["O", "B-x", "O", "B-x"]])
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    probe = fit_probe(x, train, strengths=[1.0], offsets=[0.0]).probe
    assert probe.tags == ("B-x", "O") and np.allclose(np.exp(probe.log_probs(x)).sum(axis=1), 1)
    assert np.exp(probe.log_probs(np.array([[9.0]])))[0, 0] > 0.8


def test_an_offset_finds_more_and_a_large_one_takes_all():
    probe = TagProbe(("B-x", "O"), np.array([[1.0], [-1.0]]), np.zeros(2))
    words = np.array([[-0.2], [-2.0], [1.0]])
    found = [probe.decode(words, [3], offset=offset)[0] for offset in (0.0, 0.5, 5.0)]
    assert found == [["O", "O", "B-x"], ["B-x", "O", "B-x"], ["B-x", "B-x", "B-x"]]


def test_no_sentence_is_asked_of_a_probe_that_has_learnt_it_or_its_like(sklearn, monkeypatch):
    train, vectors = made_up(30, 0)
    double = TaggedSentences("twice", [*train.sentences, *train.sentences], [*train.tags, *train.tags])
    vectors = (
        np.concatenate([vectors, vectors]) + np.arange(len(vectors) * 2)[:, None] * 1e-9
    )  # each row is known by it
    starts = np.cumsum([0, *map(len, double.sentences)])
    learnt = []

    def spy(features, data, grid):
        learnt.append((features, {tuple(words) for words in data.sentences}))
        yield from fits(features, data, grid)

    fits = tag_probe._fits
    monkeypatch.setattr(tag_probe, "_fits", spy)
    fit = fit_probe(vectors, double, strengths=[0.01, 0.1], offsets=[0.0], folds=4)
    assert len(learnt) == 5 and len(learnt[-1][1]) == len({tuple(words) for words in double.sentences})
    for features, sentences in learnt[:4]:
        rows = {row.tobytes() for row in features}
        held = [i for i in range(60) if vectors[starts[i]].tobytes() not in rows]
        assert held and not any(tuple(double.sentences[i]) in sentences for i in held)
        for i in range(60):  # the words of a sentence stay together
            inside = {row.tobytes() in rows for row in vectors[starts[i] : starts[i + 1]]}
            assert len(inside) == 1
    assert fit.f1.shape == (2, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strengths": []}, "positive strengths"),
        ({"strengths": [0.0]}, "positive strengths"),
        ({"strengths": [float("nan")]}, "positive strengths"),
        ({"offsets": [-1.0]}, "offsets of 0 or more"),
        ({"offsets": []}, "at least one of each"),
        ({"decoder": "beam"}, "decoder must be one of viterbi, greedy"),
        ({"folds": 1}, "folds must be at least 2"),
    ],
)
def test_probe_settings_that_make_no_sense_are_refused(sklearn, settings, message):
    train, vectors = made_up(10, 0)
    with pytest.raises(ValueError, match=message):
        fit_probe(vectors, train, **settings)


def test_nothing_to_learn_and_features_that_do_not_fit(sklearn):
    train, vectors = made_up(10, 0)
    with pytest.raises(ValueError, match="all tags are O"):
        fit_probe(np.zeros((1, 2)), TaggedSentences("none", [["a"]], [["O"]]))
    with pytest.raises(ValueError, match="1 tag"):
        fit_probe(np.zeros((1, 2)), TaggedSentences("one", [["a"]], [["B-x"]]), strengths=[1], offsets=[0])
    with pytest.raises(ValueError, match="expected features of"):
        fit_probe(vectors[1:], train, strengths=[1], offsets=[0])


def test_a_fit_that_does_not_converge_says_so(sklearn, monkeypatch):
    train, vectors = made_up(40, 0, noise=2.0)
    monkeypatch.setattr("minisbert.analysis.classifier._MOST_ITERATIONS", 2)
    with pytest.raises(ValueError, match="did not converge for strength 100"):
        fit_probe(vectors, train, strengths=[100.0], offsets=[0.0])


# -------------------------------------------------------------------------------------------------------- tagger


def tagger_of(encoder, **changes):
    """A tagger of random weights, which finds something in most sentences."""
    rng = np.random.default_rng(4)
    probe = TagProbe(
        ("B-x", "B-y", "I-x", "I-y", "O"),
        rng.normal(0, 1, (5, 12)) * np.array([[1], [1], [1], [1], [0]]),
        np.array([0.0, 0.0, 0.0, 0.0, 3.0]),
    )
    values = {
        "probe": probe,
        "layers": (2,),
        "pooling": "mean",
        "decoder": "viterbi",
        "offset": 3.0,
        "training": {"a": 1},
    }
    return EntityTagger(**{**values, "origin": origin_of(encoder), **changes})


TEXT = "The  cat, unable!  i love\nsoup; the dog ran on the mat & sat."


def test_entities_are_cut_out_of_the_text_verbatim(encoder):
    tagger = tagger_of(encoder)
    texts = [TEXT, "", "  \t", "soup"]
    found = tagger.find(encoder, texts)
    assert len(found) == 4 and found[1] == found[2] == [] and len(found[0]) > 2
    for text, names in zip(texts, found, strict=True):
        for one in names:
            assert text[one.start : one.stop] == one.text and one.text.strip() == one.text != ""
            assert one.type in ("x", "y") and 0 < one.probability <= 1
        assert all(a.stop <= b.start for a, b in pairwise(names))


def test_tags_and_entities_are_the_same_thing(encoder):
    tagger = tagger_of(encoder)
    words = ["the", "cat", "sat", "on", "i", "love", "soup"]
    [tags] = tagger.tag(encoder, [words])
    [names] = tagger.find(encoder, [join_words(words)])
    [vectors] = word_vectors(encoder, [join_words(words)], layers=[2])
    assert tagger.probe.decode(vectors, [7], offset=3.0) == [tags] != tagger.probe.decode(vectors, [7])
    spans = spans_of(tags)
    assert [(one.text, one.type) for one in names] == [(" ".join(words[a:b]), kind) for a, b, kind in spans]
    # the probability is of the scores before the offset
    expected = span_probabilities(tagger.probe.log_probs(vectors), tagger.probe.tags, spans)
    np.testing.assert_allclose([one.probability for one in names], expected, atol=1e-6)
    assert tagger.types == ("x", "y")
    mended = replace(tagger, decoder="greedy").tag(encoder, [words])
    assert mended == tagger.probe.decode(vectors, [7], "greedy", 3.0)


def test_a_saved_tagger_is_the_same_bit_for_bit(encoder, tmp_path):
    tagger = tagger_of(encoder, layers=(2,))
    tagger.save(tmp_path / "names")
    again = load_tagger(tmp_path / "names")
    assert again.probe.weight.tobytes() == tagger.probe.weight.tobytes()
    assert again.probe.bias.tobytes() == tagger.probe.bias.tobytes() and again.probe.tags == tagger.probe.tags
    for name in ("layers", "pooling", "decoder", "offset", "origin", "training"):
        assert getattr(again, name) == getattr(tagger, name)
    assert again.find(encoder, [TEXT]) == tagger.find(encoder, [TEXT])
    with pytest.raises(SavedError, match="already exists"):
        tagger.save(tmp_path / "names")


def test_another_model_is_refused(encoder, tmp_path):
    tagger = tagger_of(encoder)
    other = SentenceEncoder(write_model(tmp_path / "other", seed=1))
    for use in (lambda one: tagger.find(one, ["soup"]), lambda one: tagger.tag(one, [["soup"]])):
        with pytest.raises(OriginError, match=r"this entity tagger is of the model 'm'.*train one with this model"):
            use(other)
    shorter = SentenceEncoder(encoder.folder, max_seq_length=8)
    with pytest.raises(OriginError, match="max_seq_length"):
        tagger.find(shorter, ["soup"])


@pytest.mark.parametrize(
    "change",
    [
        {"tags": ["B-x", "O"]},
        {"tags": ["B-x", "B-x", "I-x", "I-y", "O"]},
        {"tags": ["B-x", "B-y", "I-x", "I-y", 3]},
        {"tags": ["B-x", "B-y", "I-x", "I-y", "Q"]},
        {"tags": None},
        {"layers": []},
        {"layers": [True]},
        {"pooling": "max"},
        {"decoder": "beam"},
        {"offset": None},
        {"offset": float(10**9) * -1},
        {"origin": None},
        {"origin": {"model": "m"}},
        {"training": []},
    ],
)
def test_a_damaged_tagger_is_refused(encoder, tmp_path, change):
    tagger_of(encoder).save(tmp_path / "good")
    facts, tensors = load_folder(tmp_path / "good", "entities")
    save_folder(tmp_path / "bad", "entities", {**facts, **change}, tensors)
    with pytest.raises(SavedError, match="damaged"):
        load_tagger(tmp_path / "bad")


@pytest.mark.parametrize("change", ["missing", "shape", "dtype"])
def test_damaged_numbers_are_refused(encoder, tmp_path, change):
    tagger_of(encoder).save(tmp_path / "good")
    facts, tensors = load_folder(tmp_path / "good", "entities")
    if change == "missing":
        del tensors["bias"]
    elif change == "shape":
        tensors["weight"] = tensors["weight"][:4]
    else:
        tensors["weight"] = tensors["weight"].astype(np.float32)
    save_folder(tmp_path / "bad", "entities", facts, tensors)
    with pytest.raises(SavedError, match="damaged"):
        load_tagger(tmp_path / "bad")


def test_training_end_to_end_on_the_tiny_model(sklearn, encoder, tmp_path):
    # "cat" and "dog" are animals, "soup" is food: the word vectors of even a random model tell them
    train = TaggedSentences(
        "train",
        [["the", "cat", "sat"], ["soup"], ["i", "love", "the", "dog"], ["the", "dog", "ran"], ["i", "love", "soup"]]
        * 3,
        [["O", "B-a", "O"], ["B-f"], ["O", "O", "O", "B-a"], ["O", "B-a", "O"], ["O", "O", "B-f"]] * 3,
    )
    told = []
    tagger, fit = train_tagger(encoder, train, dev=train, layers=[0], strengths=[1.0, 10.0], progress=told.append)
    assert fit.f1.max() == 1.0 and len(told) == 2 and tagger.training["chosen_on"] == "train"
    tagger.save(tmp_path / "names")
    json.loads((tmp_path / "names" / "entities.json").read_text())
    found = load_tagger(tmp_path / "names").find(encoder, ["the  dog ran", "I love\tSoup"])
    places = [[(one.text, one.type, one.start, one.stop) for one in names] for names in found]
    assert places == [[("dog", "a", 5, 8)], [("Soup", "f", 7, 11)]]


def test_settings_are_refused_before_any_vector_is_made(sklearn, encoder, monkeypatch):
    monkeypatch.setattr(module, "word_vectors", lambda *args, **kwargs: pytest.fail("worked too early"))
    train = made_up(5, 0)[0]
    with pytest.raises(ValueError, match="decoder must be"):
        train_tagger(encoder, train, decoder="beam")
    with pytest.raises(ValueError, match="to 3"):
        train_tagger(encoder, train, layers=[9])


# -------------------------------------------------------------------------------------------------------- report


def test_the_interval_of_f1_by_another_way():
    rng = np.random.default_rng(0)
    expected = rng.integers(0, 4, 40)
    predicted = rng.integers(0, 4, 40)
    right = rng.integers(0, np.minimum(expected, predicted) + 1)
    counts = np.stack([right, predicted, expected], axis=1)
    draws = f1_resamples([counts, counts[:, [1, 1, 1]]], resamples=4000, seed=3)
    assert draws.shape == (4000, 2) and (draws[:, 1] == 1).all()
    means = []
    for _ in range(4000):
        chosen = rng.integers(0, 40, 40)
        r, p, e = counts[chosen].sum(axis=0)
        means.append(2 * r / (p + e))
    # measured: 0.003 at 4,000 draws each
    np.testing.assert_allclose(
        np.quantile(draws[:, 0], [0.025, 0.5, 0.975]), np.quantile(means, [0.025, 0.5, 0.975]), atol=0.02
    )
    assert np.array_equal(draws, f1_resamples([counts, counts[:, [1, 1, 1]]], resamples=4000, seed=3))
    assert not np.array_equal(draws[:, 0], f1_resamples([counts], resamples=4000, seed=4)[:, 0])


def test_draws_that_cannot_be_are_refused():
    one = np.ones((3, 3), np.int64)
    for bad in ([], [one[:0]], [one, one[:2]], [one[:, :2]]):
        with pytest.raises(ValueError, match="of the same sentences"):
            f1_resamples(bad)
    with pytest.raises(ValueError, match="at least 1 resample"):
        f1_resamples([one], resamples=0)
    assert f1_resamples([np.zeros((2, 3), np.int64)], resamples=2).tolist() == [[0.0], [0.0]]


def test_the_lexicon_by_hand():
    train = TaggedSentences(
        "train",
        [["New", "York", "and", "York"], ["York", "sings"], ["the", "new"], ["may", "May"]],
        [["B-y", "I-y", "O", "B-y"], ["I-y".replace("I", "B"), "O"], ["O", "O"], ["O", "B-x"]],
    )
    # York: B twice, I once; an unknown word, and one written otherwise, are O
    assert lexicon(train, [["New", "York"], ["may", "MAY", "May"]]) == [["B-y", "B-y"], ["O", "O", "B-x"]]


def test_shapes_by_hand():
    assert shapes([]) == []
    [one, other] = shapes(["McDonald's", "9:30pm"])
    assert one[0] == "shape XxXx'x" and other[0] == "shape d:dx" and "end 's" in one and "end 0pm" in other
    assert "first" in one and "first" not in other and one[-1] == "behind d:dx" and other[-2] == "before XxXx'x"
    assert "length 10" in shapes(["a" * 99])[0]
    assert [name for name in shapes(["A"])[0] if name.startswith("end")] == ["end a"]


def test_capitals_are_learnt_from_shapes(sklearn):
    train, _ = made_up(60, 0)
    test, _ = made_up(40, 1)
    only = [[tag.replace("y", "x").replace("I", "B") for tag in row] for row in train.tags]
    train, wanted = (
        replace(train, tags=only),
        [[tag.replace("y", "x").replace("I", "B") for tag in row] for row in test.tags],
    )
    tags, fit = fit_shapes(train, replace(test, tags=wanted))
    assert span_score(wanted, tags).f1 == 1.0 and fit.chosen_on == "cross-validation, 3 folds"


def test_the_report_of_a_tagger_beside_baselines(sklearn, encoder):
    train, _ = made_up(60, 0)
    test, _ = made_up(30, 1)
    tagger = tagger_of(encoder)
    report = evaluate_tagger(tagger, encoder, test, train=train)
    assert [one.name for one in report.systems] == ["linear probe", "word shapes", "lexicon", "all O"]
    predicted = {
        "linear probe": tagger.tag(encoder, test.sentences),
        "word shapes": fit_shapes(train, test)[0],
        "lexicon": lexicon(train, test.sentences),
        "all O": [["O"] * len(words) for words in test.sentences],
    }
    for one in report.systems:
        assert one.score == span_score(test.tags, predicted[one.name]) and one.f1.mean == one.score.f1
        assert one.f1.low <= one.score.f1 <= one.f1.high
        assert sum(score.expected for score in one.by_type.values()) == report.entities == one.score.expected
    assert report.systems[0].behind is None
    for one in report.systems[1:]:
        assert one.behind.mean == report.systems[0].score.f1 - one.score.f1
        assert one.behind.low <= one.behind.mean <= one.behind.high
    assert report.systems[3].score.f1 == 0.0 and report.systems[3].f1.high == 0.0
    flat = [tag for row in test.tags for tag in row]
    assert report.outside == flat.count("O") / len(flat)
    said = [tag for row in predicted["linear probe"] for tag in row]
    assert report.tags_right == sum(a == b for a, b in zip(flat, said, strict=True)) / len(flat)
    assert 0 <= report.unseen < 1 and report.published is None
    without = evaluate_tagger(tagger, encoder, test)
    assert [one.name for one in without.systems] == ["linear probe", "all O"] and without.unseen is None


def test_names_that_training_has_not_seen(encoder):
    train = TaggedSentences("train", [["Ada", "sang"], ["Bo", "Li"]], [["B-x", "O"], ["B-x", "I-x"]])
    test = TaggedSentences("test", [["Ada", "Bo"], ["Bo", "Li"], ["Ada"]], [["B-x", "B-x"], ["B-x", "I-x"], ["B-y"]])
    from minisbert.analysis.entity_report import _seen_share

    assert _seen_share(train, test) == 0.5  # Ada x and Bo Li x; not Bo x, nor Ada y
    with pytest.raises(ValueError, match="nothing to find"):
        evaluate_tagger(tagger_of(encoder), encoder, TaggedSentences("none", [["a"]], [["O"]]))


# ----------------------------------------------------------------------------------------------------- real data


def sample(data, count, seed):
    chosen = np.random.default_rng(seed).choice(len(data.sentences), count, replace=False).tolist()
    return TaggedSentences(data.name, [data.sentences[i] for i in chosen], [data.tags[i] for i in chosen])


def test_the_real_model_on_a_sample_of_wnut17(sklearn, weights_folder, data_folder):
    encoder = SentenceEncoder(weights_folder)
    train, test = (
        sample(read_tagged(data_folder / "wnut17" / f"wnut17_{name}.jsonl"), count, 0)
        for name, count in (("train", 250), ("dev", 100))
    )
    tagger, _ = train_tagger(encoder, train, strengths=[0.01], offsets=[1.5])
    report = evaluate_tagger(tagger, encoder, test)
    # measured: 0.39, of persons 0.52; a probe that learnt nothing would be near 0
    assert report.systems[0].score.f1 > 0.25
    assert report.systems[0].by_type["person"].f1 > 0.35
    [names] = tagger.find(encoder, ["yesterday obama flew to paris"])
    assert {(one.text, one.type) for one in names} >= {("obama", "person")}
