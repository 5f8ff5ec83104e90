"""TextEncoder as one of scikit-learn's transformers; copies and pickles of SentenceEncoder, which needs none of it."""

import copy
import pickle

import numpy as np
import pytest
from tiny import TEXTS, tiny_dense, write_model

from minisbert import SentenceEncoder
from minisbert.model.pooling import Normalize, Pooling

SECRET = "hf_tOkEnThAtNoBoDyMaYsEe"
QUIET = {"overflow": "truncate"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    modules = (Pooling(), tiny_dense(12, 8), Normalize())
    return write_model(tmp_path_factory.mktemp("tiny") / "model", modules=modules)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("other") / "other", modules=(Pooling(),), seed=7)


@pytest.fixture
def make(sklearn, folder):
    """A TextEncoder of the tiny model."""
    from minisbert.sklearn import TextEncoder

    return lambda model=folder, **settings: TextEncoder(model, **{"encode_kwargs": QUIET, **settings})


def test_any_column_of_texts_gives_what_encode_gives_bit_for_bit(make, folder):
    pandas = pytest.importorskip("pandas")
    expected = SentenceEncoder(folder).encode(TEXTS, **QUIET)
    for column in (TEXTS, tuple(TEXTS), np.array(TEXTS, object), pandas.Series(TEXTS), (text for text in TEXTS)):
        np.testing.assert_array_equal(make().fit_transform(column), expected)
    assert make().transform([]).shape == (0, 8)


def test_what_is_no_column_and_what_is_missing_is_refused(make):
    pandas = pytest.importorskip("pandas")
    for column, message in (
        ("soup", r"X: .* got a single text 'soup'"),
        (np.array([TEXTS]).T, r"X: .* ndarray of shape .*; pass one column"),
    ):
        for method in ("fit", "transform", "fit_transform"):
            with pytest.raises(ValueError, match=message):
                getattr(make(), method)(column)
    with pytest.raises(ValueError, match=r"transform: X\[2\]: expected a text"):
        make().transform(["soup", "dog", None])
    with pytest.raises(ValueError, match=r"transform: X\[1\], labelled 70: expected a text "):
        make().transform(pandas.Series(["soup", None], [60, 70], dtype=object))


def test_nothing_is_loaded_before_it_is_needed_nor_again_for_a_clone(sklearn, make, other_folder, monkeypatch):
    lazy = make("no/such/folder", max_seq_length=-1)  # as scikit-learn asks: the constructor looks at nothing
    with pytest.raises(ValueError, match="neither an existing folder nor a model name"):
        lazy.transform(TEXTS)
    expected = make(other_folder).transform(TEXTS)
    monkeypatch.setattr("minisbert.encoder.load_model", lambda *_: pytest.fail("loaded again"))
    np.testing.assert_array_equal(sklearn.base.clone(make(other_folder)).transform(TEXTS), expected)


def test_a_folder_that_has_another_model_now_is_loaded_again(make, tmp_path):
    folder = write_model(tmp_path / "model", seed=1)
    before = make(folder).transform(TEXTS)
    folder.rename(tmp_path / "old")
    write_model(folder, seed=2)
    assert np.abs(make(folder).transform(TEXTS) - before).max() > 1e-3


def test_clones_share_an_encoder_and_no_setting(sklearn, make, folder):
    encoder = SentenceEncoder(folder)
    original = make(encoder, max_seq_length=9).set_output(transform="default")
    cloned = sklearn.base.clone(original).set_output(transform="pandas")
    assert cloned is not original and cloned.model is encoder
    cloned.encode_kwargs["overflow"] = "error"
    cloned.max_seq_length = 4
    assert (original.encode_kwargs, original.max_seq_length, encoder.max_seq_length) == (QUIET, 9, 16)
    assert isinstance(original.transform(TEXTS), np.ndarray)


def test_pandas_names_the_columns_and_keeps_the_index(make):
    pandas = pytest.importorskip("pandas")
    column = pandas.Series(TEXTS, index=range(50, 58))
    found = make(encode_kwargs={"truncate_dim": 3, **QUIET}).set_output(transform="pandas").fit_transform(column)
    assert list(found.columns) == ["textencoder0", "textencoder1", "textencoder2"]
    assert list(found.index) == list(column.index)


def test_scikit_learn_takes_it_for_one_of_its_own(sklearn, make):
    sklearn.utils.validation.check_is_fitted(make())
    if hasattr(sklearn.utils, "get_tags"):  # from 1.6 on
        tags = sklearn.utils.get_tags(make())
        assert tags.input_tags.string
        assert not (tags.input_tags.two_d_array or tags.requires_fit or tags.target_tags.required)
    from sklearn.utils import estimator_checks

    for name in ("get_params_invariance", "set_params", "estimator_cloneable", "estimator_repr"):
        getattr(estimator_checks, f"check_{name}", lambda *_: None)("TextEncoder", make())  # the last two from 1.6 on


# ---- SentenceEncoder itself -----------------------------------------------------------------------------------------


def test_copies_and_pickles_give_the_same_bits(folder):
    encoder = SentenceEncoder(folder, max_seq_length=7, token=SECRET)
    for copied in (copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))):  # noqa: S301
        other = copied(encoder)
        np.testing.assert_array_equal(other.encode(TEXTS, **QUIET), encoder.encode(TEXTS, **QUIET))
        assert other.fingerprint() == encoder.fingerprint()
        other.max_seq_length = 5
        assert encoder.max_seq_length == 7
    assert SECRET not in repr(vars(encoder)) and SECRET.encode() not in pickle.dumps(encoder)


def test_a_pickle_needs_no_folder_but_does_not_guess_its_fingerprint(tmp_path):
    encoder = SentenceEncoder(write_model(tmp_path / "model"))
    expected, stored = encoder.encode(TEXTS), pickle.dumps(encoder)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    restored = pickle.loads(stored)  # noqa: S301
    np.testing.assert_array_equal(restored.encode(TEXTS), expected)
    with pytest.raises(ValueError, match="that this encoder was loaded from is not here"):
        restored.fingerprint()
