"""Every dialect of model folder gives the vectors that it means, and what is saved is what was loaded.

Folders are written by hand in `tiny.py`. Where two dialects say the same thing, the vectors must be the same bit for
bit; what a dialect means is asked of sentence-transformers, where it is installed.
"""

import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import tokenizers
from tiny import (
    REMOVE,
    TEXTS,
    TINY,
    named_tensors,
    tiny_dense,
    tiny_params,
    tiny_tokenizer,
    write_json,
    write_model,
    write_safetensors,
)

from minisbert import SentenceEncoder
from minisbert.model import folder as folder_module
from minisbert.model.params import flatten, load_params
from minisbert.model.pooling import Normalize, Pooling

pytestmark = pytest.mark.usefixtures("one_thread")

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")  # in the order of concatenation


def vectors(folder):
    return SentenceEncoder(folder).encode(TEXTS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder that the others are compared with: old format, F32, no prefix, mean pooling and Normalize."""
    return write_model(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def usual(plain):
    return vectors(plain)


# --- other ways to say the same -------------------------------------------------------------------------------

HEADS = {
    "pooler.dense.weight": np.ones((12, 12), np.float32),
    "cls.predictions.bias": np.ones(TINY.vocab_size, np.float32),
    "embeddings.position_ids": np.arange(16)[None],
}
LEFT_OUT = ("hidden_act", "layer_norm_eps", "type_vocab_size", "position_embedding_type", "model_type")
HARMLESS = {
    "torch_dtype": "float16",
    "is_decoder": False,
    "pruned_heads": {},
    "quantization_config": None,
    "position_embedding_type": None,
    "hidden_dropout_prob": 0.5,
    "architectures": ["BertForMaskedLM"],
}


def old_layer_norm_names(name):
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


CHOICES = {
    "new format": {"new_format": True},
    "prefix": {"prefix": "bert.", "extra_tensors": {"bert." + name: values for name, values in HEADS.items()}},
    "no prefix, heads": {"extra_tensors": HEADS},
    "gamma and beta": {"prefix": "bert.", "rename": old_layer_norm_names},
    "seven shards": {"shards": 7, "prefix": "bert.", "extra_tensors": HEADS},
    "in a folder": {"transformer_path": "parts/0_Transformer", "new_format": True, "shards": 3},
    "F64": {"dtype": "F64"},
    "BERT's defaults": {"config_json": dict.fromkeys(LEFT_OUT, REMOVE)},
    "keys that change nothing": {"config_json": HARMLESS},
    "vocab.txt alone": {"vocab_txt": True, "tokenizer_config": None, "sentence_settings": None},
}


def test_other_formats_names_and_places_of_the_same(tmp_path, usual):
    for name, choices in CHOICES.items():
        found = vectors(write_model(tmp_path / f"{name} \u00e9 100%", **choices))
        np.testing.assert_array_equal(found, usual, err_msg=name)


def types_of_another_library(folder):
    listed = json.loads((folder / "modules.json").read_text())
    for entry in listed:
        entry["type"] = "os.system.does.not.exist." + entry["type"].rpartition(".")[2]
    write_json(folder / "modules.json", listed)


def mixed_names_in_reverse(folder):
    named = reversed(named_tensors(TINY, tiny_params()).items())
    mixed = {("bert." + name if i % 2 else name): values for i, (name, values) in enumerate(named)}
    write_safetensors(folder / "model.safetensors", mixed, metadata=False)


def other_files(folder):
    for name in ("pytorch_model.bin", "tf_model.h5", "vocab.txt", "train_script.py", "2_Normalize/README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\x00\xff not what you think")
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"x": "absent.safetensors"}})


def links_to_blobs_outside(folder):
    """As in the Hub's cache."""
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for i, file in enumerate([file for file in folder.rglob("*") if file.is_file()]):
        file.rename(blobs / str(i))
        file.symlink_to(os.path.relpath(blobs / str(i), file.parent))


def linked_folders(folder):
    (folder / "1_Pooling").rename(folder / "elsewhere")
    (folder / "1_Pooling").symlink_to("elsewhere")
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to("elsewhere")


def test_what_changes_nothing(tmp_path, usual, monkeypatch):
    for change in (
        *(types_of_another_library, mixed_names_in_reverse, other_files),
        *(links_to_blobs_outside, linked_folders),
    ):
        home = tmp_path / change.__name__
        change(write_model(home / "model"))
        monkeypatch.chdir(home)
        encoder = SentenceEncoder("./model")
        shutil.rmtree((home / "model").resolve())  # nothing is read later
        np.testing.assert_array_equal(encoder.encode(TEXTS), usual, err_msg=change.__name__)


# --- what each part says --------------------------------------------------------------------------------------

OLD, NEW = {"word_embedding_dimension": 12}, {"embedding_dimension": 12}


SAYS = [
    (OLD, Pooling(("mean",))),
    (OLD | {"pooling_mode_lasttoken": True, "foreign": 1}, Pooling(("lasttoken",))),
    (OLD | {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, Pooling(("cls", "mean"))),
    (NEW | {"pooling_mode": "max", "include_prompt": False}, Pooling(("max",), False)),
    (NEW | {"pooling_mode": ["mean", "cls"]}, Pooling(("mean", "cls"))),  # a list keeps its own order
    (NEW | {"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, Pooling(("cls",))),
]


def test_what_a_pooling_config_says(tmp_path):
    folder = write_model(tmp_path)
    for content, pooling in SAYS:
        write_json(folder / "1_Pooling" / "config.json", content)
        encoder = SentenceEncoder(folder)
        assert encoder.model.modules[0] == pooling, content
        assert encoder.get_sentence_embedding_dimension() == 12 * len(pooling.modes)


@pytest.mark.parametrize("stored", ["F64", "F32", "F16", "BF16"])
def test_stored_numbers_are_widened_exactly(tmp_path, stored):
    tensors = {name: values.astype(np.float64) for name, values in named_tensors(TINY, tiny_params()).items()}
    extremes = [2.0**-126, 2.0**-133, 999424.0, -0.15625, 65504.0]
    for values in tensors.values():
        values += 1e-9  # more digits than a float32 has
        values.flat[:5] = extremes if stored != "F16" else [2.0**-24, -1.0, 65504.0, -0.15625, 256.0]
    folder = write_model(tmp_path)
    write_safetensors(folder / "model.safetensors", tensors, stored)

    def kept(x):
        if stored == "BF16":  # 8 bits of significand: cut towards zero by arithmetic, not by bits
            significand, exponent = np.frexp(x.astype(np.float32).astype(np.float64))
            return np.ldexp(np.trunc(significand * 256) / 256, exponent)
        return x.astype({"F64": np.float64, "F32": np.float32, "F16": np.float16}[stored])

    for dtype in (np.float32, np.float64):
        for loaded, original in zip(flatten(load_params(folder, TINY, dtype)), tensors.values(), strict=True):
            np.testing.assert_array_equal(loaded, kept(original).astype(dtype), strict=True)


def test_without_modules_json_the_mean_is_taken_and_one_warning_says_so(tmp_path):
    folder = write_model(tmp_path / "plain", modules=None, sentence_bert_config=None, sentence_settings=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoder = SentenceEncoder(folder)
    assert [(w.category, Path(w.filename).name) for w in caught] == [(UserWarning, Path(__file__).name)]
    assert "modules.json" in str(caught[0].message) and folder.as_posix() in str(caught[0].message)
    assert encoder.model.modules == (Pooling(("mean",)),) and encoder.max_seq_length == 16


# --- tokenizer files ------------------------------------------------------------------------------------------

CASED = {"tokenizer": tiny_tokenizer(lowercase=False), "tokenizer_config": {"do_lower_case": False}}


def test_a_tokenizer_of_another_kind_is_used_as_it_is(tmp_path):
    """paraphrase-multilingual-MiniLM is a BERT with XLM-RoBERTa's tokenizer."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581the", -1.0), ("\u2581cat", -2.0)]
    library = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, 3, False))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    library.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    settings = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512}
    encoder = SentenceEncoder(write_model(tmp_path, tokenizer=library, tokenizer_config=settings))
    assert encoder.tokenize("the cat").token_ids.tolist() == [0, 4, 5, 2]
    assert np.isfinite(encoder.encode(TEXTS)).all()


# --- saving ---------------------------------------------------------------------------------------------------

SAVED = {
    "halved, all poolings": {"dtype": "F16", "prefix": "bert.", "modules": (Pooling(MODES, include_prompt=False),)},
    "sharded": {"dtype": "BF16", "shards": 3, "transformer_path": "0_Transformer", "new_format": True},
    "other order": {"modules": (Pooling(("mean", "cls", "mean")), Normalize()), "new_format": True},
    "dense": {"modules": (Pooling(), tiny_dense(12, 7, "gelu"), Normalize(), tiny_dense(7, 5, "identity", bias=False))},
    "vocab.txt, other config": {
        "vocab_txt": True,
        "tokenizer_config": {"do_lower_case": False},
        "config": replace(TINY, hidden_act="gelu_new", layer_norm_eps=1e-5),
        "sentence_bert_config": None,
    },
    "lower case": {**CASED, "sentence_bert_config": {"do_lower_case": True, "max_seq_length": 11}},
    "settings": {
        "sentence_settings": {
            "prompts": {"query": "the \u00e9 \U0001f600", "": "", "nothing": None},
            "default_prompt_name": "query",
            "similarity_fn_name": "euclidean",
            "truncate_dim": 5,
        }
    },
}


def contents(folder):
    return {x.relative_to(folder).as_posix(): x.read_bytes() for x in sorted(folder.rglob("*")) if x.is_file()}


@pytest.mark.parametrize("name", SAVED)
def test_saved_and_loaded_again_nothing_has_changed(tmp_path, name):
    write_model(tmp_path / "original", **SAVED[name])
    for dtype in ("float32", "float64"):
        first = SentenceEncoder(tmp_path / "original", dtype=dtype)
        first.save(tmp_path / dtype / "saved", create_model_card=False)
        second = SentenceEncoder(tmp_path / dtype / "saved", dtype=dtype)
        second.save(str(tmp_path / dtype / "again"), create_model_card=False)
        np.testing.assert_array_equal(first.encode(TEXTS), second.encode(TEXTS))
        assert contents(tmp_path / dtype / "saved") == contents(tmp_path / dtype / "again")
        for field in ("config", "max_seq_length", "prompts", "default_prompt_name", "similarity_fn_name", "width"):
            assert getattr(first.model, field) == getattr(second.model, field), field


def test_save_overwrites_nothing_and_what_fails_in_the_middle_leaves_nothing(tmp_path, plain, monkeypatch):
    encoder = SentenceEncoder(plain)
    write_json(tmp_path / "full" / ".hidden", "mine")
    before = contents(tmp_path)
    for target in ("full/.hidden", "full"):
        with pytest.raises(ValueError, match=target):
            encoder.save(tmp_path / target)
    monkeypatch.setattr(folder_module, "_write_json", Mock(side_effect=KeyboardInterrupt()))  # behind the weights
    with pytest.raises(KeyboardInterrupt):
        encoder.save(tmp_path / "saved")
    assert contents(tmp_path) == before and {path.name for path in tmp_path.iterdir()} == {"full"}


# --- sentence-transformers reads the same from the same folder --------------------------------------------------

DIALECTS = {  # what a tokenizer's files mean; weights and modules are asked of it in test_torch_models.py
    "lower case": SAVED["lower case"],
    "tokenizer_config overrules": {"tokenizer": tiny_tokenizer(lowercase=False)},
    "cased": {"tokenizer_config": {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "strip_accents": True}},
    "other class": {
        **CASED,
        "tokenizer_config": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "do_lower_case": True,
            "pad_token": "[PAD]",
        },
    },
    "accents stay": {"tokenizer_config": {"do_lower_case": True, "strip_accents": False}},
    "no tokenizer_config": {**CASED, "tokenizer_config": None},
    "vocab.txt, in a folder": {"vocab_txt": True, "transformer_path": "0_Transformer"},
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_sentence_transformers_agrees_on_what_the_folder_means(tmp_path, sentence_transformers):
    for name, choices in DIALECTS.items():
        ours = SentenceEncoder(write_model(tmp_path / name / "original", **choices))
        ours.save(tmp_path / name / "saved")
        for folder in ("original", "saved"):
            theirs = sentence_transformers.SentenceTransformer(str(tmp_path / name / folder), device="cpu")
            np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=2e-6, err_msg=name)
