"""What evaluation/ and analysis/ refuse from Python, one case a rule; mistakes in files stand beside their readers."""

import io
import sys

import numpy as np
import pytest

from minisbert.analysis import calibration, fit, maps, name_clusters, project, write_map_page
from minisbert.analysis.classifier import Calibration, TextClassifier, cross_validate, fit_classifier, load_classifier
from minisbert.analysis.clusters import Groups, agreement, cluster
from minisbert.analysis.entities import EntityTagger, TagProbe, load_tagger
from minisbert.analysis.tagging import Span, TaggedSentences, span_counts, span_probabilities, viterbi
from minisbert.evaluation.classification import LabelledTexts
from minisbert.evaluation.measures import bootstrap_mean, paired_difference
from minisbert.evaluation.retrieval import RetrievalSet, ndcg, recall
from minisbert.evaluation.sts import StsPairs, pearson, read_sts, spearman
from minisbert.saved import Origin, SavedError, load_folder, save_folder


def learn(labels, **settings):
    """Fit a classifier; what is refused is refused before there are vectors."""
    return fit_classifier(lambda: pytest.fail("too early"), list(labels), **{"folds": 2, **settings})


def judged(**changes):
    one = {"name": "mine", "document_ids": ("d",), "documents": ("a",), "query_ids": ("q",), "queries": ("b",)}
    return RetrievalSet(**{"qrels": {"q": {"d": 1}}, **one, **changes})


def mapped(texts, groups=None):
    write_map_page(io.BytesIO(), maps.Projection(np.zeros((2, 2)), "none", None, None, 5, 1), texts, groups)


TREE = {"method": "agglomerative"}
HALVES = np.log(np.full((2, 2), 0.5))
PLAIN = {  # what the message says
    "bootstrap_mean: expected at least one": lambda: bootstrap_mean([]),
    "bootstrap_mean: .*1 NaN": lambda: bootstrap_mean([1.0, np.nan]),
    "paired_difference: .*same queries": lambda: paired_difference([1.0], [1.0, 2.0]),
    "pearson: .*same length": lambda: pearson([1, 2, 3], [1, 2]),
    "spearman: .*x is constant": lambda: spearman([5, 5], [1, 2]),
    "t: .*same length, got 2, 2 and 1": lambda: StsPairs("t", ["a", "b"], ["a"], np.array([1.0, 2.0])),
    "read_sts: no files": lambda: read_sts([]),
    "tiny: labels.0.: .*NoneType": lambda: LabelledTexts("tiny", ["soup", "tea"], [None, "b"]),
    "tiny: expected as many labels": lambda: LabelledTexts("tiny", ["soup", "tea"], ["a"]),
    "ndcg: .*1 lists": lambda: ndcg([[1], [0]], [[1]], 3),
    "recall: .*write 0": lambda: recall([[1]], [[-1, 1]], 3),
    "ndcg: .*ranked twice": lambda: ndcg([[3]], [[1]], 3),
    "different query ids .*got 1 for 2": lambda: judged(query_ids=("q", "q"), queries=("a", "b")),
    "for exactly the queries, .*'q'": lambda: judged(qrels={}),
    "document 'x' with grade 1": lambda: judged(qrels={"q": {"x": 1}}),
    "Groups: 1 names for 2 groups": lambda: Groups([1], ["a"]),
    "write_map_page: texts: .*a single text": lambda: mapped("ab"),
    "write_map_page: expected equally many .*2, 2, 1": lambda: mapped(["a", "b"], Groups([0], ["a"])),
    "fit: expected at least two different texts, got 1": lambda: fit(None, ["a", "a"]),
    "similarity_fn_name": lambda: calibration.fit_vectors(np.eye(3), similarity_fn_name="angular"),
    "score_at: 3 pairs resolve": lambda: calibration.fit_vectors(np.eye(3) + np.tri(3)).score_at([50, 99]),
    "percentile: .*inf": lambda: calibration.fit_vectors(np.eye(3)).percentile([0.5, np.inf]),
    "span_counts: .*same file": lambda: span_counts([["O"]], [["O", "O"]]),
    "set: .*2 sentences and 1 rows": lambda: TaggedSentences("set", [["a"], ["b"]], [["O"]]),
    "finite scores .*NaN": lambda: viterbi(np.array([[np.nan, 0.0]]), ["B-x", "O"]),
    "no sequence is valid": lambda: viterbi(np.array([[0.0]]), ["I-x"]),
    "expected spans in 2 words": lambda: span_probabilities(HALVES, ["B-x", "O"], [Span(0, 3, "x")]),
    "set, sentence 1, word 1": lambda: TaggedSentences("set", [["a"], ["b"]], [["O"], []]),
}
LEARNT = {  # with scikit-learn
    "one class, 'a'": lambda: learn("aaaaaa"),
    "'b': no text of them is left": lambda: learn("aaaaab"),
    "'b': no text of them": lambda: learn("aaaabb", groups=np.array([0, 1, 2, 3, 4, 4])),
    "'a', 'b': no text of them is left": lambda: learn("ab"),
    "at least two different texts": lambda: learn("ab", groups=np.zeros(2, int)),
    "must be given together": lambda: learn("aaabbb", threshold_for="a"),
    "class_weight .*'a': 0": lambda: learn("aaabbb", class_weight={"a": 0.0}),
    r"fit_classifier: vectors: .*\(6, D\)": lambda: fit_classifier(np.eye(5), list("aaabbb")),
    "positive strengths": lambda: cross_validate(np.eye(2), np.arange(2), np.arange(2), np.ones(2), [1.0, -1.0]),
    "k = 4 .* as many texts, got 3": lambda: cluster(np.eye(3), k=4, **TREE),
    "only kmeans": lambda: cluster(np.eye(3), k=(2, 3), **TREE),
    "distance is for agglomerative": lambda: cluster(np.eye(3), distance=0.5),
    "not both": lambda: cluster(np.eye(3), distance=0.5, k=2, **TREE),
    "at most 20,000": lambda: cluster(np.ones((20_001, 1)), **TREE),
    "cluster: vectors: row 1 is all zeros": lambda: cluster([[1.0, 0.0], [0.0, 0.0]]),
    "agreement: ids must be": lambda: agreement(["a", "b"], [0, -2]),
    "name_clusters: .*1 and 2": lambda: name_clusters(["a"], np.eye(2), [0, 0]),
    "project: method must be .*'umap'": lambda: project(np.eye(5), "umap"),
    "tsne needs at least 4": lambda: project(np.eye(3), "tsne"),
}


@pytest.mark.parametrize("key", PLAIN)
def test_what_is_refused(key):
    with pytest.raises(ValueError, match=key):
        PLAIN[key]()


@pytest.mark.parametrize("key", LEARNT)
def test_what_is_refused_of_what_is_learnt(key, sklearn):
    with pytest.raises(ValueError, match=key):
        LEARNT[key]()


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for use in (
        lambda: cluster(np.eye(2)),
        lambda: agreement(["a"], [0]),
        lambda: name_clusters(["a"], np.eye(2)[:1], [0]),
        lambda: project(np.eye(2)),
        lambda: learn("aabb"),
    ):
        with pytest.raises(ValueError, match=r"needs scikit-learn: pip install -e '\.\[apps\]'$"):
            use()


STRICT = {"label": "a", "probability": 0.5, "precision": 1, "recall": 1}
INSIDE = ["B-x", "B-y", "I-x", "I-y"]
DAMAGE = [  # what a folder of a kind says otherwise, or not at all, and what the message names
    ("classifier", {"classes": ["a", "b", "b"]}, {}, "classes"),
    ("classifier", {"temperature": 0}, {}, "temperature"),
    ("classifier", {"threshold": {**STRICT, "probability": 1.5}}, {}, "threshold"),
    ("classifier", {"unescape": "no"}, {}, "unescape"),
    ("classifier", {"origin": "tiny"}, {}, "origin"),
    ("classifier", {"version": ...}, {}, "got 1; train it again"),  # its probabilities were far too low
    ("classifier", {"training": ...}, {}, "'training' is missing"),
    ("classifier", {}, {"weight": np.zeros((2, 4))}, "weight"),
    ("entities", {"tags": [*INSIDE, "S-x"]}, {}, "got 'S-x'"),
    ("entities", {"layers": [None]}, {}, "layer cannot"),  # which would be the middle one
    ("entities", {"offset": "1"}, {}, "offset"),
    ("entities", {"training": 5}, {}, "training"),
    ("entities", {}, {"weight": np.zeros((5, 12), np.float32)}, "weight"),
    ("entities", {"pooling": "first"}, {}, "no longer supported"),  # what older versions could write
    ("entities", {"layers": [1, 2]}, {}, "no longer supported"),
]


def test_what_is_damaged_is_refused(tmp_path):
    classifier = TextClassifier(("a", "b", "c"), np.ones((3, 4)), np.zeros(3), Calibration(1.7, np.zeros(3)))
    probe = TagProbe((*INSIDE, "O"), np.ones((5, 12)), np.zeros(5))
    for learnt, kind in ((classifier, "classifier"), (EntityTagger(probe, 2, 3.0, Origin("m", "ab"), {}), "entities")):
        learnt.save(tmp_path / kind)
    for kind, wrong, arrays, key in DAMAGE:
        facts, tensors = load_folder(tmp_path / kind, kind)
        said = {name: value for name, value in {**facts, **wrong}.items() if value is not ...}
        save_folder(tmp_path / f"bad {kind}", kind, said, {**tensors, **arrays}, force=True)
        with pytest.raises(SavedError, match=rf"{kind}\.json: .*{key}"):
            {"classifier": load_classifier, "entities": load_tagger}[kind](tmp_path / f"bad {kind}")
