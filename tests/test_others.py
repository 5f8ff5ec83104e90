"""The lines of "Where others plug in" (minisbert/README.md) run as they stand there, and the vectors are ours."""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import skip_or_fail
from tiny import write_model

import minisbert

PAGE = (Path(minisbert.__file__).parent / "README.md").read_text(encoding="utf-8")
TEXTS = ["the cat sat", "i love soup", "a dog ran", "soup on a mat", "cat, dog", "i ran", "love", "the mat"]
LABELS = [0, 1, 0, 1, 0, 0, 1, 1]
BLOCKS = dict(re.findall(r"<!-- runs: (\w+) -->\n```py\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return minisbert.SentenceEncoder(write_model(tmp_path_factory.mktemp("others") / "tiny-model"))


def lines(library, encoder, part="others", **names):
    """Run the page's lines about a library: the names that they leave."""
    try:
        __import__(library)
    except ImportError:
        skip_or_fail(part, f"{library} is not installed")
    names |= {"minisbert": minisbert, "encoder": encoder, "texts": TEXTS, "labels": LABELS}
    exec(BLOCKS[library], names)
    return names


pytestmark = pytest.mark.filterwarnings("ignore")  # of others


def ours(vectors, encoder, texts=TEXTS):
    np.testing.assert_allclose(np.asarray(vectors), encoder.encode(texts), rtol=0, atol=5e-6)


def test_sklearn(sklearn, encoder):
    classifier = lines("sklearn", encoder)["classifier"]
    ours(classifier[0].transform(TEXTS), encoder)
    assert classifier.score(TEXTS, LABELS) > 0.5


@pytest.mark.heavy
def test_bertopic(encoder):
    topics = lines("bertopic", encoder)["topics"]
    from bertopic.backend import _sentencetransformers, _utils
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    topics.umap_model, topics.hdbscan_model = PCA(2), KMeans(2, n_init=1)  # UMAP compiles for a minute
    topics.fit(TEXTS)
    ours(topics.embedding_model.embed(TEXTS), encoder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_sentencetransformers, "SentenceTransformerBackend", lambda name: name)
        assert "all-MiniLM-L6-v2" in _utils.select_backend(encoder, language="english")


def test_keybert(encoder):
    keywords = lines("keybert", encoder)["keywords"]
    from keybert.backend import _sentencetransformers, _utils

    ours(keywords.model.embed(TEXTS), encoder)
    found = dict(keywords.extract_keywords("the cat sat on soup", top_n=9, stop_words=None))
    document, soup = encoder.encode(["the cat sat on soup", "soup"])
    assert found["soup"] == pytest.approx(minisbert.cos_sim(document, soup).item(), abs=1e-4)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_sentencetransformers, "SentenceTransformerBackend", lambda name: name)
        assert _utils.select_backend(encoder) == "paraphrase-multilingual-MiniLM-L12-v2"


@pytest.mark.heavy
def test_chroma(encoder, monkeypatch):
    monkeypatch.setenv("MINISBERT_MODEL", str(encoder.folder))
    monkeypatch.setattr(minisbert, "SentenceEncoder", lambda model: encoder, raising=False)
    collection = lines("chromadb", encoder)["collection"]
    collection.add(ids=list("abcdefgh"), documents=TEXTS)
    ours(collection.get(include=["embeddings"])["embeddings"], encoder)
    assert collection.query(query_texts=TEXTS[1:2], n_results=1)["ids"] == [["b"]]


@pytest.mark.heavy
def test_llm(encoder, monkeypatch):
    try:
        import llm
    except ImportError:
        skip_or_fail("others", "llm is not installed")
    from minisbert import llm as plugin

    monkeypatch.setattr(plugin.Embedder, "encoder", encoder)
    llm.plugins.load_plugins()  # finds it by the entry point, where minisbert is installed
    if plugin not in llm.plugins.pm.get_plugins():
        llm.plugins.pm.register(plugin)
    ours(list(llm.get_embedding_model("minisbert").embed_multi(TEXTS)), encoder)
    metadata = (Path(minisbert.__file__).parent.parent / "pyproject.toml").read_text()
    assert '[project.entry-points.llm]\nminisbert = "minisbert.llm"' in metadata


@pytest.mark.heavy
def test_mteb(encoder, monkeypatch):
    try:
        import mteb
    except ImportError:
        skip_or_fail("mteb", "mteb is not installed (pip install -e '.[mteb]')")
    import datasets
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    scores = [float(i % 5) for i in range(len(TEXTS))]

    class Pairs(AbsTaskSTS):
        metadata = TaskMetadata(
            **{"name": "Pairs", "description": "Pairs of this test.", "type": "STS", "main_score": "cosine_spearman"},
            **{"dataset": {"path": "none", "revision": "1"}, "eval_splits": ["test"], "eval_langs": ["eng-Latn"]},
        )
        min_score, max_score = 0, 4

        def load_data(self, **options):
            pairs = {"sentence1": TEXTS, "sentence2": TEXTS[::-1], "score": scores}
            self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_dict(pairs)})
            self.data_loaded = True

    evaluate = mteb.evaluate
    monkeypatch.setattr(mteb, "get_tasks", lambda names: [Pairs()])
    monkeypatch.setattr(mteb, "evaluate", lambda model, tasks: evaluate(model, tasks, cache=None))
    (result,) = lines("mteb", encoder)["results"].task_results
    (found,) = result.scores["test"]
    from scipy.stats import spearmanr

    cosines = minisbert.pairwise_cos_sim(encoder.encode(TEXTS), encoder.encode(TEXTS[::-1]))
    assert found["cosine_spearman"] == pytest.approx(spearmanr(cosines, scores).statistic, abs=1e-6)
