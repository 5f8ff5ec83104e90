"""SentenceEncoder as a scikit-learn transformer: beside scikit-learn, and on a machine that has none."""

import copy
import json
import pickle
import subprocess
import sys
import types
import warnings
from dataclasses import replace

import numpy as np
import pytest
from tiny import COMPANY, TEXTS, tiny_dense, write_model

from minisbert import SentenceEncoder
from minisbert.model.pooling import Normalize, Pooling
from minisbert.model.tokens import TruncationWarning

# One word tells the classes apart, and a limit of 4 tokens ([CLS] the cat [SEP]) cuts it off.
LABELLED = [f"the cat sat on the {word}" for word in ("soup", "dog") for _ in range(6)]
LABELS = ["food"] * 6 + ["pet"] * 6
SECRET = "hf_tOkEnThAtNoBoDyMaYsEe"
QUIET = {"overflow": "truncate"}


class Series:
    """What is asked of a pandas Series, for machines without pandas."""

    ndim = 1

    def __init__(self, values, index):
        self.values, self.index, self.iloc = list(values), list(index), None
        self.shape = (len(self.values),)

    def __iter__(self):
        return iter(self.values)

    def __len__(self):
        return len(self.values)


def make_series(values, index):
    """A real one where pandas is installed."""
    try:
        import pandas
    except ImportError:
        return Series(values, index)
    return pandas.Series(values, index=index, dtype=object)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    modules = (Pooling(), tiny_dense(12, 8), Normalize())
    return write_model(tmp_path_factory.mktemp("tiny") / "model", modules=modules)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("other") / "other", modules=(Pooling(),), seed=7)


@pytest.fixture
def encoder(folder):
    return SentenceEncoder(folder, encode_kwargs=QUIET)


@pytest.fixture
def make_pipeline(sklearn):
    from sklearn.pipeline import make_pipeline

    return make_pipeline


@pytest.fixture
def logistic(sklearn):
    from sklearn.linear_model import LogisticRegression

    return lambda: LogisticRegression(C=1000.0, max_iter=1000)


def repickled(thing):
    return pickle.loads(pickle.dumps(thing))  # noqa: S301 (our own bytes)


# ---- without scikit-learn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        TEXTS,
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, object),
        make_series(TEXTS, range(10, 10 + len(TEXTS))),
        (text for text in TEXTS),
    ],
    ids=["list", "tuple", "str array", "object array", "series", "generator"],
)
def test_any_column_of_texts_gives_what_encode_gives_bit_for_bit(encoder, column):
    np.testing.assert_array_equal(encoder.fit_transform(column), encoder.encode(TEXTS, **QUIET))


def test_fit_learns_nothing_and_does_not_use_up_a_generator(encoder):
    before = encoder.transform(TEXTS)
    texts = (text for text in TEXTS)
    assert encoder.fit(["soup"], [1]) is encoder
    assert encoder.fit(texts) is encoder
    assert len(list(texts)) == len(TEXTS)
    np.testing.assert_array_equal(encoder.transform(TEXTS), before)
    assert encoder.__sklearn_is_fitted__()


def test_no_texts_give_no_rows(encoder):
    assert encoder.transform([]).shape == (0, 8)
    assert encoder.transform(make_series([], [])).shape == (0, 8)


@pytest.mark.parametrize("method", ["fit", "transform", "fit_transform"])
def test_one_text_is_no_column(encoder, method):
    with pytest.raises(ValueError, match=r"expected an iterable of texts, got a single text 'soup'; .*\[text\]"):
        getattr(encoder, method)("soup")


@pytest.mark.parametrize("table", [np.array([TEXTS]).T, np.array(TEXTS, object)[None], np.array("soup")])
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_a_table_is_no_column(encoder, method, table):
    with pytest.raises(ValueError, match=rf"{method}: X: expected an iterable .* ndarray of shape .*; pass "):
        getattr(encoder, method)(table)


@pytest.mark.parametrize("missing", [None, float("nan"), 7, b"soup", ["soup"]])
def test_what_is_missing_is_told_by_its_row(encoder, missing):
    with pytest.raises(ValueError, match=r"transform: X\[2\]: expected a text"):
        encoder.transform(["soup", "dog", missing])
    with pytest.raises(ValueError, match=r"transform: X\[1\], labelled 70: expected a text "):
        encoder.transform(make_series(["soup", missing], [60, 70]))


def test_get_params_gives_what_was_given_and_set_params_takes_it_back(folder):
    given = {
        "model": str(folder),
        "revision": None,
        "local_files_only": True,
        "dtype": "float64",
        "max_seq_length": np.int64(9),
        "encode_kwargs": dict(QUIET),
    }
    encoder = SentenceEncoder(**given)
    loaded = encoder.model
    assert set(encoder.get_params()) == set(given)
    assert all(encoder.get_params(deep=deep)[name] is given[name] for name in given for deep in (True, False))
    assert encoder.set_params(**encoder.get_params()) is encoder
    assert all(encoder.get_params()[name] is given[name] for name in given)
    assert encoder.set_params() is encoder
    assert encoder.model is loaded
    encoder.get_params()["max_seq_length"] = 5  # a copy
    assert (encoder.max_seq_length, encoder.get_params()["max_seq_length"]) == (9, 9)


def test_the_limit_by_any_way_is_one_setting(encoder):
    assert (encoder.get_params()["max_seq_length"], encoder.max_seq_length) == (None, 16)
    copied = copy.copy(encoder)
    encoder.max_seq_length = 5
    assert encoder.get_params()["max_seq_length"] == 5
    assert (copied.get_params()["max_seq_length"], copied.max_seq_length) == (None, 16)
    encoder.set_params(max_seq_length=4)
    assert encoder.max_seq_length == 4
    np.testing.assert_allclose(encoder.transform(LABELLED)[0], encoder.transform(LABELLED)[-1], rtol=0, atol=COMPANY)
    encoder.set_params(max_seq_length=None)
    assert encoder.max_seq_length == 16
    assert np.abs(encoder.transform(LABELLED)[0] - encoder.transform(LABELLED)[-1]).max() > 1e-3


def test_another_model_takes_effect_and_keeps_a_limit_that_was_set(encoder, folder, other_folder):
    encoder.set_params(model=other_folder, max_seq_length=6).set_output(transform="default")
    fresh = SentenceEncoder(other_folder, max_seq_length=6)
    np.testing.assert_array_equal(encoder.transform(TEXTS), fresh.encode(TEXTS, **QUIET))
    assert encoder.folder == fresh.folder
    assert encoder.source == fresh.source
    assert encoder.fingerprint() == fresh.fingerprint()
    assert encoder.get_feature_names_out().shape == (12,)
    encoder.set_params(model=folder)
    assert encoder.max_seq_length == 6
    assert encoder.get_feature_names_out().shape == (8,)


def test_another_model_brings_its_own_limit_if_none_was_set(encoder, tmp_path):
    shorter = write_model(tmp_path / "shorter", sentence_bert_config={"max_seq_length": 7})
    assert encoder.set_params(model=shorter).max_seq_length == 7
    assert encoder.get_params()["max_seq_length"] is None


def test_another_dtype_is_read_from_the_folder_in_use(encoder, folder, monkeypatch):
    monkeypatch.setattr("minisbert.hub.resolve", lambda *_, **__: pytest.fail("the folder is known"))
    encoder.set_params(dtype="float64", local_files_only=True)
    monkeypatch.undo()
    assert encoder.transform(TEXTS).dtype == np.float64
    np.testing.assert_array_equal(encoder.transform(TEXTS), SentenceEncoder(folder, dtype="float64").encode(TEXTS))


def test_a_model_made_in_memory_stays_until_another_is_asked_for(encoder, folder, other_folder):
    trained = encoder.with_model(replace(encoder.model, truncate_dim=3))
    assert trained.set_params(model=folder, dtype=np.float32, max_seq_length=8).transform(TEXTS).shape == (8, 3)
    with pytest.raises(ValueError, match=r"made in memory .*save it, and load it with dtype='float64'"):
        trained.set_params(dtype="float64")
    assert trained.__sklearn_clone__().transform(TEXTS).shape == (8, 3)
    assert repickled(trained).transform(TEXTS).shape == (8, 3)
    assert trained.set_params(model=other_folder).transform(TEXTS).shape == (8, 12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"limit": 3},
            r"'limit' is none of the valid parameters \['dtype', 'encode_kwargs', 'local_files_only', 'max_",
        ),
        ({"model__limit": 3}, "'model__limit' is none"),
        ({"token": SECRET}, "'token' is none"),
        ({"max_seq_length": 17}, "expected a whole number from 3"),
        ({"max_seq_length": float("inf")}, "expected a whole number from 3"),
        ({"model": "no/such/folder/anywhere"}, "neither an existing folder nor a model name"),
        ({"model": np.inf}, "must be a model name or a folder"),
        ({"revision": "main"}, "a folder has no revision"),
        ({"dtype": "int8"}, "dtype must be 'float32' or 'float64'"),
        ({"encode_kwargs": "chunk"}, "expected a dict of keywords of encode"),
        ({"encode_kwargs": {"overfow": "chunk"}}, "encode_kwargs: 'overfow' is none of the valid parameters"),
        ({"encode_kwargs": {"output_value": "token_embeddings"}}, "encode_kwargs: 'output_value' is none"),
        ({"encode_kwargs": {"truncate_dim": 13}}, "truncate_dim must be from 1 to 12"),
        ({"encode_kwargs": {"overflow": "chunk", "chunk_tokens": 12}, "max_seq_length": 10}, "chunk_tokens must be"),
    ],
)
def test_an_invalid_setting_changes_nothing(encoder, other_folder, wrong, message):
    before = dict(vars(encoder))
    valid = {"model": other_folder, "max_seq_length": 5, "dtype": "float64", "encode_kwargs": None}
    with pytest.raises(ValueError, match=message):
        encoder.set_params(**{**valid, **wrong})
    assert vars(encoder).keys() == before.keys()
    assert all(vars(encoder)[name] is value for name, value in before.items())
    if "token" not in wrong and "limit" not in "".join(wrong):
        with pytest.raises(ValueError, match=message):
            SentenceEncoder(**{**valid, **wrong})


def test_encode_kwargs_are_for_transform_alone(folder):
    settings = {"overflow": "chunk", "prompt": "the ", "truncate_dim": 5, "show_progress_bar": False}
    encoder = SentenceEncoder(folder, encode_kwargs=settings)
    long = ["the cat sat on the mat, the dog ran on the mat. i love soup"]
    np.testing.assert_array_equal(encoder.transform(long), encoder.encode(long, **settings))
    assert encoder.get_feature_names_out().tolist() == [f"sentenceencoder{i}" for i in range(5)]
    with pytest.warns(TruncationWarning):
        assert encoder.encode(long).shape == (1, 8)


def test_names_of_a_subclass(folder):
    class Mine(SentenceEncoder):
        pass

    assert Mine(folder).get_feature_names_out(["ignored"])[-1] == "mine7"
    assert type(Mine(folder).__sklearn_clone__()) is Mine


def test_a_clone_shares_the_model_and_no_setting(encoder):
    cloned = encoder.__sklearn_clone__()
    assert cloned is not encoder
    assert cloned.model is encoder.model
    cloned.get_params()["encode_kwargs"]["overflow"] = "error"
    cloned.set_params(max_seq_length=4).set_output(transform="pandas")
    assert encoder.get_params()["encode_kwargs"] == QUIET
    assert (encoder.max_seq_length, encoder.transform(TEXTS).shape) == (16, (8, 8))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, repickled])
def test_copies_and_pickles_give_the_same_bits(encoder, copied):
    encoder.set_params(max_seq_length=7)
    other = copied(encoder)
    np.testing.assert_array_equal(other.transform(TEXTS), encoder.transform(TEXTS))
    assert other.get_params() == encoder.get_params()
    assert other.fingerprint() == encoder.fingerprint()
    other.max_seq_length = 5
    assert encoder.max_seq_length == 7


def test_a_pickle_needs_no_folder_but_does_not_guess_its_fingerprint(tmp_path):
    encoder = SentenceEncoder(write_model(tmp_path / "model"))
    expected, stored = encoder.transform(TEXTS), pickle.dumps(encoder)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    restored = pickle.loads(stored)  # noqa: S301
    np.testing.assert_array_equal(restored.transform(TEXTS), expected)
    with pytest.raises(ValueError, match="that this encoder was loaded from is not here"):
        restored.fingerprint()


def test_the_token_is_kept_nowhere(folder, sklearn, make_pipeline):
    encoder = SentenceEncoder(folder, token=SECRET)
    pipe = make_pipeline(encoder)
    told = [
        encoder,
        vars(encoder),
        encoder.get_params(),
        pipe,
        pipe.get_params(),
        sklearn.utils.estimator_html_repr(pipe),
    ]
    assert not any(SECRET in repr(thing) for thing in told)
    assert SECRET.encode() not in pickle.dumps(pipe)


def test_frames_of_libraries_that_are_not_imported_before(encoder, monkeypatch):
    made = []
    for name in ("pandas", "polars"):
        fake = types.ModuleType(name)
        fake.DataFrame = lambda vectors, name=name, **options: made.append((name, vectors, options)) or "frame"
        monkeypatch.setitem(sys.modules, name, fake)
    labelled = Series(TEXTS, range(50, 58))
    assert encoder.set_output(transform="pandas").set_output() is encoder
    assert encoder.__sklearn_clone__().transform(labelled) == "frame"
    assert encoder.fit_transform(TEXTS) == "frame"
    assert encoder.set_output(transform="polars").transform(TEXTS) == "frame"
    assert [name for name, _, _ in made] == ["pandas", "pandas", "polars"]
    plain = encoder.set_output(transform="default").transform(TEXTS)
    names = encoder.get_feature_names_out().tolist()
    assert all(np.array_equal(vectors, plain) for _, vectors, _ in made)
    assert made[0][2]["index"] == list(range(50, 58))
    assert made[1][2]["index"] is None
    assert made[0][2]["columns"].tolist() == names
    assert made[2][2] == {"schema": names, "orient": "row"}
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match="needs pandas: pip install pandas"):
        encoder.set_output(transform="pandas").transform(TEXTS)
    with pytest.raises(ValueError, match=r"one of .* got 'arrow'"):
        encoder.set_output(transform="arrow")


def test_everything_but_the_tags_works_without_scikit_learn(folder):
    code = f"""
import sys, pickle, json
for name in ("sklearn", "pandas", "polars", "joblib"):
    sys.modules[name] = None
from minisbert import SentenceEncoder
encoder = SentenceEncoder({str(folder)!r})
assert encoder.fit(["soup"]) is encoder
vectors = encoder.fit_transform({TEXTS!r})
encoder.set_params(max_seq_length=4, encode_kwargs={QUIET!r}).set_output(transform="default")
cut = pickle.loads(pickle.dumps(encoder.__sklearn_clone__())).transform({LABELLED!r})
assert abs(cut - cut[0]).max() <= {COMPANY} and encoder.__sklearn_is_fitted__()
print(json.dumps([vectors.tolist(), encoder.get_feature_names_out().tolist(), encoder.get_params()["max_seq_length"]]))
try:
    encoder.__sklearn_tags__()
except ImportError:
    print("no tags")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    vectors, names, limit = json.loads(result.stdout.splitlines()[0])
    assert (np.shape(vectors), names[7], limit) == ((8, 8), "sentenceencoder7", 4)
    np.testing.assert_allclose(vectors, SentenceEncoder(folder).encode(TEXTS), rtol=0, atol=COMPANY)
    assert result.stdout.splitlines()[1:] == ["no tags"]


def test_using_it_imports_neither_scikit_learn_nor_pandas(folder):
    code = (
        f"import sys, minisbert\nminisbert.SentenceEncoder({str(folder)!r}).fit_transform(['soup'])\n"
        "print(sorted({'sklearn', 'pandas', 'polars', 'joblib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_real_model_too(weights_folder):
    texts = ["i love soup", "london is far away"]
    encoder = SentenceEncoder(weights_folder)
    np.testing.assert_array_equal(encoder.fit_transform(texts), encoder.encode(texts))
    np.testing.assert_array_equal(repickled(encoder).transform(texts), encoder.encode(texts))


# ---- with scikit-learn ----------------------------------------------------------------------------------------------


def test_clone_loads_nothing(sklearn, encoder, make_pipeline, logistic, monkeypatch):
    monkeypatch.setattr("minisbert.encoder.load_model", lambda *_: pytest.fail("loaded again"))
    pipe = sklearn.base.clone(make_pipeline(encoder, logistic()))
    assert pipe[0] is not encoder
    assert pipe[0].model is encoder.model
    assert pipe[0].get_params() == encoder.get_params()


def test_a_pipeline_equals_its_parts_by_hand(encoder, make_pipeline, logistic):
    pipe = make_pipeline(encoder, logistic()).fit(LABELLED, LABELS)
    by_hand = logistic().fit(encoder.encode(LABELLED), LABELS)
    np.testing.assert_array_equal(pipe[-1].coef_, by_hand.coef_)
    assert (
        pipe.predict(["i love soup", "the dog ran"]).tolist()
        == by_hand.predict(encoder.encode(["i love soup", "the dog ran"])).tolist()
    )
    assert pipe.score(LABELLED, LABELS) == 1.0
    assert pipe[:-1].get_feature_names_out()[0] == "sentenceencoder0"
    assert pipe[:1].transform(TEXTS).shape == (8, 8)


def test_settings_through_a_pipeline(encoder, make_pipeline, logistic, other_folder):
    pipe = make_pipeline(encoder, logistic())
    pipe.set_params(sentenceencoder__max_seq_length=4).fit(LABELLED, LABELS)
    assert pipe.score(LABELLED, LABELS) == 0.5
    pipe.set_params(sentenceencoder__model=other_folder, sentenceencoder__max_seq_length=None).fit(LABELLED, LABELS)
    assert (pipe.score(LABELLED, LABELS), pipe[-1].n_features_in_) == (1.0, 12)
    assert pipe.get_params()["sentenceencoder__model"] is other_folder
    with pytest.raises(ValueError, match="'limit' is none of the valid"):
        pipe.set_params(sentenceencoder__limit=4)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_grid_of_limits_finds_the_one_that_keeps_the_word(sklearn, encoder, make_pipeline, logistic, n_jobs):
    from sklearn.model_selection import GridSearchCV

    grid = {"sentenceencoder__max_seq_length": [4, 16]}
    pipe = make_pipeline(encoder, logistic())
    found = GridSearchCV(pipe, grid, cv=3, n_jobs=n_jobs, error_score="raise").fit(LABELLED, LABELS)
    assert found.best_params_ == {"sentenceencoder__max_seq_length": 16}
    np.testing.assert_array_equal(found.cv_results_["mean_test_score"], [0.5, 1.0])
    assert encoder.max_seq_length == 16  # the grid worked on clones


def test_a_grid_of_models_and_of_ways_to_encode(sklearn, encoder, make_pipeline, logistic, folder, other_folder):
    from sklearn.model_selection import GridSearchCV

    grid = [
        {"sentenceencoder__model": [folder, other_folder]},
        {"sentenceencoder__encode_kwargs": [{"prompt": "soup dog ran i love cat mat the sat on", **QUIET}]},
    ]
    pipe = make_pipeline(encoder, logistic())
    found = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(LABELLED, LABELS)
    np.testing.assert_array_equal(found.cv_results_["mean_test_score"], [1.0, 1.0, 0.5])  # a prompt that leaves no room


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_cross_validation_of_lists_arrays_and_series(sklearn, encoder, make_pipeline, logistic, n_jobs):
    from sklearn.model_selection import cross_val_score

    pipe = make_pipeline(encoder, logistic())
    for column in (LABELLED, np.array(LABELLED), np.array(LABELLED, object)):
        assert cross_val_score(pipe, column, LABELS, cv=3, n_jobs=n_jobs, error_score="raise").tolist() == [1.0] * 3


def test_a_union_of_views_and_its_names(sklearn, encoder, other_folder):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.pipeline import FeatureUnion

    other = SentenceEncoder(other_folder)
    union = FeatureUnion([("a", encoder), ("b", other)])
    expected = np.concatenate([encoder.encode(TEXTS), other.encode(TEXTS)], axis=1)
    np.testing.assert_array_equal(union.fit_transform(TEXTS), expected)
    names = union.get_feature_names_out()
    assert (len(names), names[0], names[-1]) == (20, "a__sentenceencoder0", "b__sentenceencoder11")
    words = FeatureUnion([("vectors", encoder), ("words", CountVectorizer())]).fit(TEXTS)
    assert words.transform(TEXTS).shape == (8, len(words.get_feature_names_out()))


def test_one_column_of_a_table(sklearn, encoder):
    from sklearn.compose import ColumnTransformer

    table = np.array([LABELLED, LABELS], object).T
    by_name = ColumnTransformer([("text", encoder, 0)])
    np.testing.assert_array_equal(by_name.fit_transform(table), encoder.encode(LABELLED))
    assert by_name.get_feature_names_out()[0] == "text__sentenceencoder0"
    with pytest.raises(ValueError, match=r"got ndarray of shape \(12, 1\); .*ColumnTransformer .* not by"):
        ColumnTransformer([("text", encoder, [0])]).fit(table)


def test_pictures_in_a_notebook(sklearn, encoder, make_pipeline, logistic):
    html = sklearn.utils.estimator_html_repr(make_pipeline(encoder, logistic()))
    assert "SentenceEncoder" in html
    assert "SentenceEncoder" in sklearn.utils.estimator_html_repr(encoder)
    assert "SentenceEncoder" in repr(make_pipeline(encoder, logistic()))


def test_it_counts_as_fitted_and_its_tags_say_so(sklearn, encoder):
    sklearn.utils.validation.check_is_fitted(encoder)
    if hasattr(sklearn.utils, "get_tags"):  # from 1.6 on
        tags = sklearn.utils.get_tags(encoder)
        assert tags.input_tags.string
        assert not (tags.input_tags.two_d_array or tags.requires_fit or tags.target_tags.required)
    assert not sklearn.base.is_classifier(encoder)


def test_routed_metadata_do_not_disturb(sklearn, encoder, make_pipeline, logistic):
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = make_pipeline(encoder, logistic().set_fit_request(sample_weight=True))
        assert pipe.fit(LABELLED, LABELS, sample_weight=np.ones(12)).score(LABELLED, LABELS) == 1.0


CHECKS = [
    "check_get_params_invariance",
    "check_set_params",
    "check_estimator_cloneable",  # this one and the next three from scikit-learn 1.6 on
    "check_estimator_repr",
    "check_valid_tag_types",
    "check_estimator_tags_renamed",
]


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learns_own_checks_of_settings_and_tags(sklearn, encoder, weights_folder, name):
    from sklearn.utils import estimator_checks

    check = getattr(estimator_checks, name, None)
    assert check or not hasattr(sklearn.utils, "get_tags")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        (check or (lambda *_: None))("SentenceEncoder", encoder)
    assert not [warning for warning in told if "changed after" in str(warning.message)]
