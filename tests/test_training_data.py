"""Training examples: every kind from every format, what is refused and where, and batches that keep apart."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisbert.tables import InputError
from minisbert.training.data import (
    COLUMNS,
    Batch,
    Examples,
    draw_positives,
    make_epoch,
    read_examples,
)

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = {
    "pairs": [("a cat", "one cat"), ("tea", "a cup")],
    "triplets": [("a cat", "one cat", "a dog"), ("tea", "a cup", "a cat")],
    "scored": [("a cat", "one cat", "4.5"), ("a cat", "tea", "0")],
    "labelled": [("a cat", "one cat", "1"), ("a cat", "tea", "0")],
    "texts": [("lost card", "card"), ("hello", "greeting"), ("card gone", "card"), ("hi", "greeting")],
}


def write(folder, name, content):
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def tsv(head, rows):
    return "".join("\t".join(map(str, row)) + "\n" for row in (head, *rows))


def rng(seed=0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("kind", COLUMNS)
def test_the_kind_is_told_by_the_columns(kind, tmp_path):
    file = write(tmp_path, "t.tsv", tsv(COLUMNS[kind], ROWS[kind]))
    wanted = {
        "scored": ([4.5, 0.0], None, ()),
        "labelled": (None, [1, 0], ("0", "1")),
        "texts": (None, [0, 1, 0, 1], ("card", "greeting")),
    }.get(kind, (None, None, ()))
    for said in (None, kind):
        examples = read_examples(file, kind=said)
        found = (array if array is None else array.tolist() for array in (examples.scores, examples.labels))
        assert examples.kind == kind and (*found, examples.label_names) == wanted
        assert examples.columns == tuple(zip(*ROWS[kind], strict=True))[: -1 if any(wanted) else None]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (("id", "query", "answer"), "pairs"),
        (("anchor", "pos", "neg"), "triplets"),
        (("relatedness_score", "sentence_A", "sentence_B"), "scored"),
        (("premise", "hypothesis", "gold_label"), "labelled"),
        (("sentence",), "texts"),
        (("sentence1", "sentence2", "score", "label"), None),
        (("first", "second"), None),
        (("anchor", "positive", "negative", "score"), None),
    ],
)
def test_names_tell_the_kind_or_it_is_asked(head, kind, tmp_path):
    cells = {"relatedness_score": "01", "gold_label": "01"}  # all others take any text
    rows = [[cells[name][i % 2] if name in cells else f"{name} {i}" for name in head] for i in range(4)]
    file = write(tmp_path, "t.tsv", tsv(head, rows))
    if kind:
        assert read_examples(file).kind == kind
    else:
        with pytest.raises(InputError, match=r"t\.tsv: .*kind"):
            read_examples(file)


def test_what_is_said_wins_over_names(tmp_path):
    rows = [("a", "b", "0.5", "x"), ("c", "d", "1", "y")]
    file = write(tmp_path, "t.tsv", tsv(("sentence1", "sentence2", "score", "label"), rows))
    assert read_examples(file, kind="scored").scores.tolist() == [0.5, 1.0]
    assert read_examples(file, kind="scored", scale=(-1, 1)).scores.tolist() == [0.75, 1.0]
    assert read_examples(file, kind="labelled").label_names == ("x", "y")
    assert read_examples(file, kind="pairs").columns == (("a", "c"), ("b", "d"))  # sentence1 and 2 serve, if it is said
    plain = write(tmp_path, "plain.csv", "1,a,b\n0,c,d\n")
    examples = read_examples(plain, kind="labelled", columns=["2", "3", "1"], has_header=False)
    assert examples.columns == (("a", "c"), ("b", "d")) and examples.labels.tolist() == [1, 0]
    nested = write(tmp_path, "t.jsonl", '{"q": {"text": "a"}, "doc": "b"}\n{"q": {"text": "c"}, "doc": "d"}')
    assert read_examples(nested, kind="pairs", columns=["q.text", "doc"]).columns == (("a", "c"), ("b", "d"))


def test_classes_are_numbered_in_sorted_order_numbers_by_value(tmp_path):
    def names_of(labels):
        rows = [(f"a{i}", f"b{i}", label) for i, label in enumerate(labels)]
        examples = read_examples(write(tmp_path, "t.tsv", tsv(COLUMNS["labelled"], rows)))
        assert [examples.label_names[c] for c in examples.labels] == [label.strip() for label in labels]
        assert examples.labels.dtype == np.int64
        return examples.label_names

    assert names_of(["neutral", "entailment", "contradiction", "neutral"]) == ("contradiction", "entailment", "neutral")
    assert names_of(["10", "9", "0", "10"]) == ("0", "9", "10")
    assert names_of([" x", "x ", "y"]) == ("x", "y")


def test_several_files_are_one_set(tmp_path):
    one = write(tmp_path, "a.tsv", tsv(("text", "label"), [("lost card", "card"), ("card gone", "card")]))
    two = write(
        tmp_path, "b.jsonl", '{"class": "greeting", "sentence": "hello"}\n{"class": "greeting", "sentence": "hi"}'
    )
    examples = read_examples([one, two])
    assert examples.columns[0] == ("lost card", "card gone", "hello", "hi") and examples.labels.tolist() == [0, 0, 1, 1]
    plain = write(tmp_path, "c.tsv", "text\nhello\n")
    with pytest.raises(InputError, match=r"c\.tsv: .*neither"):
        read_examples([one, plain])


PAIR = ("sentence1", "sentence2", "score")
CLASS = ("sentence1", "sentence2", "label")
TWO = (("a", "b"), ("c", "d"))
PAIRS = tsv(COLUMNS["pairs"], ROWS["pairs"])
# a file's content and the settings that it is read with, or the arguments of Examples
REFUSED = {
    "empty": ("t: empty", "", {}),
    "no rows": ("t: .*no rows", "anchor\tpositive\n", {}),
    "one row": (r"t: .*'pairs' .*\[1, 1\]", "anchor\tpositive\na\tb\n", {}),
    "the negative is the positive": ("line 3: the negative .*pos", "anchor\tpos\tneg\na\tb\tc\na\tb\tb\n", {}),
    "equal scores": ("all 2 scores", tsv(PAIR, [("a", "b", "1"), ("a", "c", "1")]), {}),
    "a score off the scale": (r"line 3: .*5\.5", tsv(PAIR, [("a", "b", "1"), ("a", "c", "5.5")]), {"scale": (0, 5)}),
    "a score for a label": ("line 2: .*'3.8'", tsv(CLASS, [("a", "b", "3.8"), ("a", "c", "1")]), {}),
    "no label": ("label -1", tsv(CLASS, [("a", "b", "0"), ("c", "d", "1"), ("a", "c", "-1")]), {}),
    "a class of one text": ("only one text.*'z'", tsv(("text", "label"), [("a", "x"), ("b", "x"), ("d", "z")]), {}),
    "a column in a string": ("columns .*'text'", PAIRS, {"kind": "texts", "columns": "text"}),
    "a column twice": ("twice: anchor, anchor", PAIRS, {"kind": "pairs", "columns": ["anchor", "1"]}),
    "a scale of nothing": ("scale", PAIRS, {"scale": (0, 5)}),
    "columns of another kind": ("sentence1", PAIRS, {"kind": "scored"}),
    "Examples: lengths": (r"\[2, 1\]", None, {"kind": "pairs", "columns": (("a", "b"), ("c",))}),
    "Examples: three scores": ("scores", None, {"kind": "scored", "columns": TWO, "scores": np.arange(3.0)}),
    "Examples: a gap": (
        "labels", None, {"kind": "labelled", "columns": TWO, "labels": np.array([0, 2]), "label_names": ("x", "y")}
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what, tmp_path):
    words, content, options = REFUSED[what]
    with pytest.raises(ValueError, match=words):
        Examples(**options) if content is None else read_examples(
            write(tmp_path, "t", content), input_format="tsv", **options
        )


# ------------------------------------------------------------------------------------------------------ batches


def pairs_of(left, right):
    return Examples("pairs", (tuple(map(str, left)), tuple(map(str, right))))


def texts_of(labels):
    """Texts that all differ, with labels 0 to C - 1, each used at least twice."""
    labels = np.asarray(labels)
    names = tuple(f"class {c}" for c in range(labels.max() + 1))
    return Examples("texts", (tuple(f"text {i}" for i in range(len(labels))),), labels=labels, label_names=names)


def check_epoch(examples: Examples, epoch: list[Batch], batch_size: int) -> None:
    """Every example once, with its own texts and target; sizes equal but for 1, and none of 1."""
    assert sorted(np.concatenate([batch.indices for batch in epoch]).tolist()) == list(range(len(examples)))
    sizes = [len(batch) for batch in epoch]
    allowed = 3 if batch_size == 2 and len(examples) % 2 else batch_size
    assert max(sizes) <= allowed and min(sizes) >= 2 and max(sizes) - min(sizes) <= 1
    targets = examples.scores if examples.labels is None else examples.labels
    for batch in epoch:
        for column, mine in zip(examples.columns, batch.texts, strict=False):
            assert mine == tuple(column[i] for i in batch.indices)
        assert (batch.targets is None) == (targets is None)
        assert targets is None or batch.targets.tolist() == targets[batch.indices].tolist()
        assert all(len(column) == len(batch.indices) for column in batch.texts)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=2, max_size=60),
    st.integers(2, 9),
    st.integers(0, 2**32),
)
def test_every_example_is_dealt_once_and_classes_meet_as_little_as_can_be(rows, batch_size, seed):
    left, right = zip(*rows, strict=True)
    pairs = pairs_of(left, right)
    check_epoch(pairs, make_epoch(pairs, batch_size, rng(seed)), batch_size)
    labels = np.unique([*left, *left, 0, 1, 0, 1], return_inverse=True)[1]  # each class twice at least
    epoch = make_epoch(texts_of(labels), batch_size, rng(seed))
    check_epoch(texts_of(labels), epoch, batch_size)
    for c, count in Counter(labels.tolist()).items():
        most = max(int(np.count_nonzero(batch.targets == c)) for batch in epoch)
        assert most == -(-count // len(epoch))  # one, wherever the class has no more texts than there are batches


def count_meetings(epoch):
    """How often a text is in a batch again."""
    meetings = 0
    for batch in epoch:
        uses = Counter(text for row in zip(*batch.texts, strict=True) for text in set(row))
        meetings += sum(count - 1 for count in uses.values())
    return meetings


@pytest.mark.parametrize("size, batch, texts, most", [(400, 8, 40, 0.5), (300, 10, 12, 16)])
def test_equal_texts_hardly_meet(size, batch, texts, most):
    """Pairs of two columns of so many texts; in the second case most texts are in every batch."""
    dealt, by_chance = [], []
    for seed in range(10):
        draw = rng(seed)
        examples = pairs_of(draw.integers(0, texts, size), 1000 + draw.integers(0, texts, size))
        epoch = make_epoch(examples, batch, draw)
        check_epoch(examples, epoch, batch)
        dealt.append(count_meetings(epoch))
        parts = np.split(draw.permutation(size), len(epoch))
        columns = [tuple(tuple(column[i] for i in part) for column in examples.columns) for part in parts]
        by_chance.append(count_meetings([Batch(c, None, part) for c, part in zip(columns, parts, strict=True)]))
    assert np.mean(dealt) < most and np.mean(by_chance) > 60  # measured: 0.1 and 12.5


def test_a_text_is_the_same_in_any_column_and_one_that_must_meet_itself_is_spread_evenly():
    chain = pairs_of(range(0, 40), range(1, 41))  # each positive is the next one's anchor
    assert np.mean([count_meetings(make_epoch(chain, 10, rng(seed))) for seed in range(20)]) < 1  # by chance 9
    epoch = make_epoch(pairs_of(["hot"] * 30 + list(range(30)), range(100, 160)), 6, rng())
    assert [batch.texts[0].count("hot") for batch in epoch] == [3] * 10


def test_the_same_generator_gives_the_same_epoch_and_goes_on(tmp_path):
    examples = [read_examples(write(tmp_path, "t.tsv", tsv(COLUMNS[kind], ROWS[kind] * 20))) for kind in COLUMNS]
    for each in (*examples, Examples("texts", (tuple("abacadaefg"),))):
        one, other = rng(7), rng(7)
        first, again, second = make_epoch(each, 4, one), make_epoch(each, 4, other), make_epoch(each, 4, one)
        check_epoch(each, first, 4)
        contents = [[(batch.texts, batch.indices.tolist()) for batch in epoch] for epoch in (first, again, second)]
        assert contents[0] == contents[1] != contents[2]
    assert all(batch.texts[0] == batch.texts[1] for batch in first)  # each its own positive


def test_order_is_left_to_chance():
    """Neither in the order of batches nor inside one is there a trace of the file or of the dealing."""
    labels = np.repeat(np.arange(16), [6, *[5] * 14, 4])  # 80 texts in 10 batches; the largest class is dealt first
    in_last, places = [], []
    for seed in range(400):
        epoch = make_epoch(texts_of(labels), 8, rng(seed))
        in_last.append(0 in epoch[-1].targets)
        places += [int(np.flatnonzero(batch.indices == 0)[0]) for batch in epoch if 0 in batch.indices]
    assert abs(np.mean(in_last) - 6 / 10) < 4 * np.sqrt(0.24 / 400)  # 4 standard errors
    assert abs(np.mean(places) - 3.5) < 4 * np.sqrt(5.25 / 400)


def test_positives_are_other_texts_of_the_class_all_equally_likely():
    texts = ("a", "b", "b", "c", "x", "y", "x", "x", "x")
    examples = Examples("texts", (texts,), labels=np.array([0, 0, 0, 0, 1, 1, 1, 1, 1]), label_names=("one", "two"))
    seen = [Counter() for _ in texts]
    draw = rng()
    for _ in range(2000):
        for counter, positive in zip(seen, draw_positives(examples, draw), strict=True):
            counter[positive] += 1
    others = [{"b", "c"}, {"a", "c"}, {"a", "c"}, {"a", "b"}, {"y"}, {"x"}, {"y"}, {"y"}, {"y"}]
    assert [set(counter) for counter in seen] == others
    share = seen[0]["b"] / 2000  # 4 standard errors; the text that stands twice is no likelier
    assert abs(share - 0.5) < 4 * np.sqrt(0.25 / 2000)
    epochs = [make_epoch(examples, 4, draw) for _ in range(2)]
    for batch in (batch for epoch in epochs for batch in epoch):
        for anchor, positive, i in zip(*batch.texts, batch.indices, strict=True):
            assert anchor == texts[i] and positive in others[i]
    paired = [{int(i): p for b in epoch for p, i in zip(b.texts[1], b.indices, strict=True)} for epoch in epochs]
    assert paired[0] != paired[1]  # drawn anew
