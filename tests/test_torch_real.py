"""The real all-MiniLM-L6-v2 against sentence-transformers: vectors, hidden states, odd text, order, published score.

The bounds are those that the project promises (float32: 1e-6 per element on STSb, 2e-5 on hidden states, 2e-6 on odd
text; float64: 1e-10). What was measured with NumPy 2.4.6, PyTorch 2.13.0, transformers 5.23.0 and sentence-transformers
6.2.0 stands beside each; `-s` prints what is measured now.
"""

import csv
import random
import unicodedata

import numpy as np
import pytest
from torch_oracle import THIRD_PARTY_WARNINGS, absolute, pad, quiet, strip

from minisbert import SentenceEncoder

pytestmark = [pytest.mark.usefixtures("one_thread"), *(pytest.mark.filterwarnings(w) for w in THIRD_PARTY_WARNINGS)]


@pytest.fixture(scope="module")
def ours(weights_folder):
    return SentenceEncoder(weights_folder)


@pytest.fixture(scope="module")
def theirs(weights_folder, sentence_transformers):
    quiet(threads=1)
    return sentence_transformers.SentenceTransformer(str(weights_folder), device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def sentences(data_folder):
    """STSb test: both sentences of 1,379 pairs. Its published score is in test_sts.py."""
    with open(data_folder / "stsb" / "stsb_test.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == 1379
    return [row[side] for side in ("sentence1", "sentence2") for row in rows]


def test_stsb_vectors(ours, theirs, sentences, figures):
    name = f"STSb, {len(sentences):,} sentences, per element"
    figures(name, absolute(ours.encode(sentences), theirs.encode(sentences)), 1e-6)  # 3.2e-7


def their_hidden_states(theirs, tokens):
    """Hidden states 0 to L of PyTorch, without padding."""
    import torch

    ids, mask = pad(tokens.token_ids, tokens.lengths)
    with torch.inference_mode():
        states = theirs[0].auto_model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    return [strip(state, mask) for state in states]


def hidden_state_differences(ours, theirs, texts):
    """Largest |difference| of each hidden state: embeddings, then each layer."""
    trace = ours.trace(texts, overflow="truncate")
    mine = [trace.bert.embeddings.output, *(layer.output for layer in trace.bert.layers)]
    reference = their_hidden_states(theirs, trace)
    assert len(mine) == len(reference) == 7
    return [absolute(a, b) for a, b in zip(mine, reference, strict=True)]


def test_every_hidden_state(ours, theirs, sentences, figures):
    chosen = sentences[::14]
    assert len(chosen) == 197
    worst = np.max([hidden_state_differences(ours, theirs, chosen[i : i + 50]) for i in range(0, 197, 50)], axis=0)
    for i, measured in enumerate(worst):
        figures(f"hidden state {i}, float32", measured, 2e-5)


def test_float64(weights_folder, sentence_transformers, sentences, figures):
    ours = SentenceEncoder(weights_folder, dtype="float64")
    theirs = sentence_transformers.SentenceTransformer(str(weights_folder), device="cpu").double()
    texts = ["", "hello world", *sentences[::276]]
    assert len(texts) == 12
    for i, measured in enumerate(hidden_state_differences(ours, theirs, texts)):
        figures(f"hidden state {i}, float64", measured, 1e-10)
    vectors, reference = ours.encode(texts), theirs.encode(texts)
    assert vectors.dtype == reference.dtype == np.float64
    figures("sentence vectors, float64", absolute(vectors, reference), 1e-10)


# ---------------------------------------------------------------------------------------------------------- odd text


def random_text(rng, ranges, length):
    """A string of random code points from some ranges, none of them half of a pair."""
    points = []
    while len(points) < length:
        point = rng.randrange(*rng.choice(ranges))
        if not 0xD800 <= point < 0xE000:
            points.append(chr(point))
    return "".join(points)


def odd_texts():
    rng = random.Random(20)
    everything, common, controls = [(0, 0x110000)], [(0, 0x3000), (0x1F300, 0x1FAFF)], [(0, 0xA1), (0x2000, 0x2070)]
    scripts = [(start, start + 0x80) for start in range(0, 0x3000, 0x80)] + [(0xA000, 0xABFF), (0xFB00, 0xFFFF)]
    texts = [random_text(rng, everything, rng.randrange(1, 40)) for _ in range(60)]
    texts += [random_text(rng, common, rng.randrange(1, 40)) for _ in range(60)]
    texts += [random_text(rng, [script], 30) for script in scripts]
    texts += [random_text(rng, controls, rng.randrange(1, 30)) for _ in range(20)]
    # words out of letters with marks on them, spaces between
    texts += [" ".join(random_text(rng, [(0x41, 0x250), (0x300, 0x370)], 6) for _ in range(8)) for _ in range(20)]
    texts += [
        "",
        " ",
        "\t\r\n\u00a0\u3000\u2028",
        "\x00",
        "\ufffd\ufeff\u200b\u200d\u00ad",
        "a\x00b\x07c\u200dd\u00ade",
        "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467 family \U0001f1e9\U0001f1ea \u2764\ufe0f",
        "\U0010ffff\ue000\ufdd0",
        "Ｆｕｌｌ ｗｉｄｔｈ ﬁ ligature ① ½ ™",
        unicodedata.normalize("NFD", "Zażółć gęślą jaźń, Đặng, ﾊﾝｶｸ, 각"),
        unicodedata.normalize("NFC", "Zażółć gęślą jaźń, Đặng, ﾊﾝｶｸ, 각"),
        "İstanbul ı ß ẞ ſ Σ ς",
        "我爱汤 東京 대한민국 ไทย हिन्दी عربى עברית",
        "[CLS] [SEP] [MASK] [PAD] [UNK] [cls] [ CLS ]",
        "##ing ## # ###",
        "a" * 99 + " " + "b" * 100 + " " + "c" * 101,
        "x" * 5000,
        "é" * 5000,
        "antidisestablishmentarianism" * 179,
        "!" * 5000,
        "don't can't 3.14 1,000,000 e-mail C++ a/b\\c <b>&amp;</b> http://x.y/?z=1#q",
    ]
    return texts


def test_odd_text(ours, theirs, figures):
    texts = odd_texts()
    assert len(set("".join(texts))) > 4000  # code points, of all kinds
    vectors = ours.encode(texts, overflow="truncate")
    assert np.isfinite(vectors).all()
    figures(f"odd text, {len(texts)} texts", absolute(vectors, theirs.encode(texts)), 2e-6)


def test_around_every_limit(weights_folder, theirs, figures):
    """One token fewer than the limit, exactly it, one more; for each limit that the folder names somewhere."""
    words, before = ["soup", "is", "my", "favorite", "and", "london", "far", "away"], theirs.max_seq_length
    for limit in (128, 256, 512):
        ours = SentenceEncoder(weights_folder, max_seq_length=limit)
        wanted = (2, 3, limit - 1, limit, limit + 1, 600)
        texts = [" ".join(words[i % len(words)] for i in range(tokens - 2)) for tokens in wanted]  # [CLS] and [SEP]
        lengths = ours.tokenize(texts, overflow="truncate").lengths
        assert lengths.tolist() == [min(tokens, limit) for tokens in wanted]
        try:
            theirs.max_seq_length = limit
            reference = theirs.encode(texts, batch_size=4)
        finally:
            theirs.max_seq_length = before
        figures(
            f"around the limits, cut at {limit}", absolute(ours.encode(texts, overflow="truncate"), reference), 2e-6
        )
