"""Every dialect of model folder gives the vectors that it means, and what is saved is what was loaded.

Folders are written by hand in `tiny.py`. Where two dialects say the same thing, the vectors must be the same bit for
bit; where a dialect says something of its own, it is computed here a second time, from the token vectors.
"""

import dataclasses
import hashlib
import json
import math
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tiny import (
    COMPANY,
    PIECES,
    REMOVE,
    TEXTS,
    TINY,
    edit_json,
    named_tensors,
    read_raw_safetensors,
    stored_bytes,
    tiny_dense,
    tiny_params,
    tiny_tokenizer,
    write_json,
    write_model,
    write_safetensors,
)

from minisbert import SentenceEncoder
from minisbert.model import folder as folder_module
from minisbert.model.config import HIDDEN_ACTS, BertConfig
from minisbert.model.params import flatten, load_params
from minisbert.model.pooling import Dense, Normalize, Pooling

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")  # in the order of concatenation


def vectors(folder: Path, **choices) -> np.ndarray:
    return SentenceEncoder(folder, **choices).encode(TEXTS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """The folder that the others are compared with: old format, F32, no prefix, mean pooling and Normalize."""
    return write_model(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def usual(plain) -> np.ndarray:
    return vectors(plain)


def same(folder: Path, usual: np.ndarray) -> None:
    np.testing.assert_array_equal(vectors(folder), usual)


def pooled_by_hand(mode: str, tokens: np.ndarray) -> np.ndarray:
    count = len(tokens)
    weights = np.arange(1, count + 1)[:, None]
    return {
        "cls": lambda: tokens[0],
        "max": lambda: tokens.max(0),
        "mean": lambda: tokens.sum(0) / count,
        "mean_sqrt_len_tokens": lambda: tokens.sum(0) / math.sqrt(count),
        "weightedmean": lambda: (tokens * weights).sum(0) / weights.sum(),
        "lasttoken": lambda: tokens[-1],
    }[mode]()


# --- the two formats, and poolings ------------------------------------------------------------------------------


def test_the_plain_folder_gives_unit_vectors_that_differ(usual):
    assert usual.shape == (len(TEXTS), 12) and usual.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(usual, axis=1), 1, rtol=1e-6)
    assert len(np.unique(usual.round(4), axis=0)) == len(TEXTS)


@pytest.mark.parametrize("new_format", [False, True], ids=["old", "new"])
@pytest.mark.parametrize("mode", MODES)
def test_each_pooling_in_each_format(tmp_path, mode, new_format):
    encoder = SentenceEncoder(
        write_model(tmp_path, modules=(Pooling((mode,)),), new_format=new_format), dtype="float64"
    )
    assert encoder.model.modules == (Pooling((mode,)),)
    token_vectors = encoder.encode(TEXTS, output_value="token_embeddings")
    expected = [pooled_by_hand(mode, tokens) for tokens in token_vectors]
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, rtol=1e-13, atol=1e-15)


def test_both_formats_give_the_same_vectors(tmp_path, usual):
    same(write_model(tmp_path, new_format=True), usual)


def test_several_booleans_are_put_side_by_side_in_the_library_s_order_not_the_file_s(tmp_path):
    both = write_model(tmp_path / "all", modules=(Pooling(MODES),))
    names = list(json.loads((both / "1_Pooling" / "config.json").read_text()))
    assert names.index("pooling_mode_mean_tokens") < names.index("pooling_mode_max_tokens")  # else nothing is tested
    encoder = SentenceEncoder(both)
    assert encoder.model.modules[0].modes == MODES
    assert encoder.get_sentence_embedding_dimension() == 6 * 12
    single = [vectors(write_model(tmp_path / mode, modules=(Pooling((mode,)),))) for mode in MODES]
    np.testing.assert_array_equal(encoder.encode(TEXTS), np.concatenate(single, axis=1))


def test_a_list_of_modes_keeps_its_own_order(tmp_path):
    folder = write_model(tmp_path / "listed", modules=(Pooling(("mean", "cls")),), new_format=True)
    one, other = (vectors(write_model(tmp_path / mode, modules=(Pooling((mode,)),))) for mode in ("mean", "cls"))
    np.testing.assert_array_equal(vectors(folder), np.concatenate([one, other], axis=1))


@pytest.mark.parametrize(
    ("content", "modes"),
    [
        ({"word_embedding_dimension": 12}, ("mean",)),
        ({"word_embedding_dimension": 12, "pooling_mode_mean_tokens": False}, ("mean",)),
        ({"embedding_dimension": 12, "pooling_mode": "max"}, ("max",)),
        ({"embedding_dimension": 12, "pooling_mode": ["max"]}, ("max",)),
        ({"embedding_dimension": 12, "pooling_mode": "cls", "pooling_mode_mean_tokens": True}, ("cls",)),
        ({"word_embedding_dimension": 12, "pooling_mode_lasttoken": True, "foreign": 1}, ("lasttoken",)),
    ],
)
def test_what_a_pooling_config_may_leave_out_or_say_twice(tmp_path, content, modes):
    folder = write_model(tmp_path)
    write_json(folder / "1_Pooling" / "config.json", content)
    assert SentenceEncoder(folder).model.modules[0] == Pooling(modes, True)


@pytest.mark.parametrize("new_format", [False, True], ids=["old", "new"])
def test_include_prompt_is_read(tmp_path, new_format):
    folder = write_model(tmp_path, modules=(Pooling(("mean",), include_prompt=False),), new_format=new_format)
    encoder = SentenceEncoder(folder)
    assert encoder.model.modules == (Pooling(("mean",), False),)
    tokens = encoder.encode("the cat on the mat", output_value="token_embeddings")
    left = tokens[3:].astype(np.float64).mean(0)  # [CLS] the cat | on the mat [SEP]
    np.testing.assert_allclose(encoder.encode("on the mat", prompt="the cat "), left, rtol=1e-5, atol=1e-6)


def test_types_are_matched_by_their_last_word_and_never_imported(tmp_path, usual):
    folder = write_model(tmp_path)
    listed = json.loads((folder / "modules.json").read_text())
    for entry in listed:
        entry["type"] = "os.system.does.not.exist." + entry["type"].rpartition(".")[2]
    write_json(folder / "modules.json", listed)
    same(folder, usual)


# --- Normalize ------------------------------------------------------------------------------------------------


def test_without_normalize_vectors_keep_their_length(tmp_path, usual):
    long = vectors(write_model(tmp_path, modules=(Pooling(),)))
    assert np.abs(np.linalg.norm(long, axis=1) - 1).max() > 0.1
    np.testing.assert_allclose(long / np.linalg.norm(long, axis=1, keepdims=True), usual, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("state", ["no folder", "empty folder", "empty config", "config"])
def test_the_normalize_folder_may_be_there_or_not(tmp_path, usual, state):
    folder = write_model(tmp_path)
    if state != "no folder":
        (folder / "2_Normalize").mkdir()
    if "config" in state:
        names = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
        write_json(folder / "2_Normalize" / "config.json", names if state == "config" else {})
    assert (folder / "2_Normalize").exists() == (state != "no folder")
    same(folder, usual)


# --- Dense ----------------------------------------------------------------------------------------------------

ACTIVATIONS = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "relu": lambda x: np.where(x > 0, x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_with_each_activation(tmp_path, activation, bias):
    dense = tiny_dense(12, 7, activation, bias)
    folder = write_model(tmp_path, modules=(Pooling(), dense), new_format=bias)
    encoder = SentenceEncoder(folder, dtype="float64")
    assert encoder.get_sentence_embedding_dimension() == 7
    before = encoder.trace(TEXTS).modules[0]
    expected = ACTIVATIONS[activation](before @ dense.weight.T.astype(float) + (dense.bias if bias else 0))
    np.testing.assert_allclose(encoder.trace(TEXTS).sentence_embedding, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("d_out", [12, 5], ids=["same width", "other width"])
def test_dense_with_a_residual(tmp_path, d_out):
    dense = tiny_dense(12, d_out, "tanh", use_residual=True)
    encoder = SentenceEncoder(write_model(tmp_path, modules=(Pooling(), dense)), dtype="float64")
    before = encoder.trace(TEXTS).modules[0]
    skipped = before if d_out == 12 else before @ dense.residual.T.astype(float)
    expected = np.tanh(before @ dense.weight.T.astype(float) + dense.bias) + skipped
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("said", [REMOVE, "torch.nn.Tanh", "torch.nn.modules.activation.Tanh"])
def test_dense_is_tanh_unless_it_says_otherwise(tmp_path, said):
    modules = (Pooling(), tiny_dense(12, 7, "tanh"))
    expected = vectors(write_model(tmp_path / "tanh", modules=modules))
    other = write_model(tmp_path / "other", modules=modules)
    edit_json(other / "2_Dense" / "config.json", activation_function=said)
    same(other, expected)


def test_dense_modules_follow_each_other(tmp_path):
    modules = (Pooling(("cls", "max")), tiny_dense(24, 7, "relu"), Normalize(), tiny_dense(7, 9, "gelu", seed=2))
    encoder = SentenceEncoder(write_model(tmp_path, modules=(*modules, Normalize())))
    results = encoder.trace(TEXTS).modules
    assert [result.shape for result in results] == [(len(TEXTS), width) for width in (24, 7, 7, 9, 9)]
    np.testing.assert_array_equal(results[-1].argmax(1), encoder.encode(TEXTS).argmax(1))


def test_dense_weights_of_half_precision_are_widened(tmp_path):
    dense = tiny_dense(12, 7)
    encoder = SentenceEncoder(write_model(tmp_path, modules=(Pooling(), dense), dtype="F16"))
    np.testing.assert_array_equal(encoder.model.modules[1].weight, dense.weight.astype(np.float16).astype(np.float32))


# --- names, dtypes, files of the weights ----------------------------------------------------------------------

HEADS = {
    "pooler.dense.weight": np.ones((12, 12), np.float32),
    "pooler.dense.bias": np.ones(12, np.float32),
    "cls.predictions.bias": np.ones(TINY.vocab_size, np.float32),
    "cls.seq_relationship.weight": np.ones((2, 12), np.float32),
}


def old_layer_norm_names(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize(
    "choices",
    [
        {"prefix": "bert."},
        {"extra_tensors": HEADS},
        {"prefix": "bert.", "extra_tensors": HEADS},
        {"prefix": "bert.", "extra_tensors": {"bert." + name: values for name, values in HEADS.items()}},
        {"rename": old_layer_norm_names},
        {"prefix": "bert.", "rename": old_layer_norm_names},
        {"extra_tensors": {"embeddings.position_ids": np.arange(16)[None]}},
        {"prefix": "bert.", "extra_tensors": {"bert.embeddings.position_ids": np.arange(16)[None]}},
        {"shards": 2},
        {"shards": 7, "prefix": "bert.", "extra_tensors": HEADS},
        {"transformer_path": "0_Transformer"},
        {"transformer_path": "parts/0_Transformer", "new_format": True, "shards": 3},
        {"dtype": "F64"},
    ],
    ids=str,
)
def test_other_names_and_places_of_the_same_weights(tmp_path, usual, choices):
    same(write_model(tmp_path, **choices), usual)


def test_a_checkpoint_may_mix_names_with_and_without_prefix(tmp_path, usual):
    mixed = {
        ("bert." + name if i % 2 else name): x for i, (name, x) in enumerate(named_tensors(TINY, tiny_params()).items())
    }
    folder = write_model(tmp_path)
    write_safetensors(folder / "model.safetensors", mixed)
    same(folder, usual)


def test_the_order_of_tensors_in_the_file_is_free(tmp_path, usual):
    folder = write_model(tmp_path)
    tensors = named_tensors(TINY, tiny_params())
    write_safetensors(folder / "model.safetensors", dict(reversed(tensors.items())), metadata=False)
    same(folder, usual)


@pytest.mark.parametrize("stored", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stored_numbers_are_widened_exactly(tmp_path, stored, dtype):
    params = tiny_params()
    if stored == "F64":
        rng = np.random.default_rng(9)
        params = folder_of_float64(params, rng)
    folder = write_model(tmp_path, params=params, dtype=stored)
    for loaded, original in zip(flatten(load_params(folder, TINY, dtype)), flatten(params), strict=True):
        expected = {
            "F64": lambda x: x.astype(dtype),
            "F32": lambda x: x.astype(dtype),
            "F16": lambda x: x.astype(np.float16).astype(dtype),
            "BF16": cut_to_bfloat16,
        }[stored](original)
        assert loaded.dtype == dtype
        np.testing.assert_array_equal(loaded, expected)


def folder_of_float64(params, rng):
    def fuller(tree):
        if isinstance(tree, np.ndarray):
            return tree.astype(np.float64) + rng.normal(0, 1e-9, tree.shape)
        if isinstance(tree, tuple):
            return tuple(fuller(branch) for branch in tree)
        return replace(tree, **{field.name: fuller(getattr(tree, field.name)) for field in dataclasses.fields(tree)})

    return fuller(params)


def cut_to_bfloat16(x: np.ndarray) -> np.ndarray:
    """bfloat16 has 8 bits of significand: cut towards zero by arithmetic, not by bits."""
    significand, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.trunc(significand * 256) / 256, exponent)


def test_bfloat16_extremes_are_read_exactly(tmp_path):
    folder = write_model(tmp_path, dtype="BF16")
    header, data = read_raw_safetensors(folder / "model.safetensors")
    wanted = np.array([1.0, -1.0, 0.0, 2.0**-126, 2.0**-133, 999424.0, -0.15625, 256.0], np.float32)
    start, _ = header["embeddings.LayerNorm.bias"]["data_offsets"]
    path = folder / "model.safetensors"
    content = path.read_bytes()
    begin = len(content) - len(data) + start
    path.write_bytes(content[:begin] + stored_bytes(wanted, "BF16") + content[begin + 2 * len(wanted) :])
    np.testing.assert_array_equal(load_params(folder, TINY).embeddings.layer_norm.bias[:8], wanted)


def test_float16_that_is_large_is_no_overflow(tmp_path):
    tensors = named_tensors(TINY, tiny_params())
    tensors["encoder.layer.0.output.LayerNorm.bias"][:] = 65504.0
    folder = write_model(tmp_path)
    write_safetensors(folder / "model.safetensors", tensors, "F16")
    assert np.isfinite(vectors(folder)).all()


def test_files_beside_the_model_are_ignored(tmp_path, usual):
    folder = write_model(tmp_path)
    for name in ("pytorch_model.bin", "tf_model.h5", "README.md", "vocab.txt", "rust_model.ot", "train_script.py"):
        (folder / name).write_bytes(b"\x00\xff not what you think")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"")
    write_json(folder / "special_tokens_map.json", {"unk_token": "[UNK]"})
    write_json(folder / "data_config.json", [])
    same(folder, usual)


def test_one_file_wins_over_an_index(tmp_path, usual):
    folder = write_model(tmp_path)
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"x": "absent.safetensors"}})
    same(folder, usual)


# --- config.json ----------------------------------------------------------------------------------------------


def test_what_config_json_leaves_out_is_bert_s_default(tmp_path, usual):
    left_out = ("hidden_act", "layer_norm_eps", "type_vocab_size", "position_embedding_type", "architectures")
    folder = write_model(tmp_path, config_json=dict.fromkeys(left_out, REMOVE))
    same(folder, usual)


def test_the_defaults_are_bert_base_s():
    """Numbers of Devlin et al. 2019, section 3, and of transformers.BertConfig: not taken from the package."""
    defaults = BertConfig()
    assert (defaults.hidden_act, defaults.layer_norm_eps, defaults.type_vocab_size) == ("gelu", 1e-12, 2)
    assert (defaults.num_hidden_layers, defaults.hidden_size, defaults.num_attention_heads) == (12, 768, 12)
    assert (defaults.vocab_size, defaults.intermediate_size, defaults.max_position_embeddings) == (30522, 3072, 512)


def test_keys_that_change_nothing_are_ignored(tmp_path, usual):
    harmless = {
        "dtype": "float32",
        "torch_dtype": "float16",
        "use_cache": True,
        "gradient_checkpointing": False,
        "classifier_dropout": None,
        "add_cross_attention": False,
        "is_decoder": False,
        "pruned_heads": {},
        "quantization_config": None,
        "position_embedding_type": None,
        "hidden_dropout_prob": 0.5,
        "architectures": ["BertForMaskedLM"],
        "transformers_version": "99",
        "id2label": {"0": "x"},
    }
    same(write_model(tmp_path, config_json=harmless), usual)
    same(write_model(tmp_path / "no type", config_json={"model_type": REMOVE}), usual)


def test_each_activation_by_each_of_its_names(tmp_path):
    by_name = {
        name: vectors(write_model(tmp_path / name, config=replace(TINY, hidden_act=name))) for name in HIDDEN_ACTS
    }
    assert set(by_name) == {"gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh"}
    np.testing.assert_array_equal(by_name["gelu_new"], by_name["gelu_pytorch_tanh"])
    np.testing.assert_array_equal(by_name["silu"], by_name["swish"])
    different = [by_name[name] for name in ("gelu", "gelu_new", "relu", "silu", "tanh")]
    for i, one in enumerate(different):
        for other in different[:i]:
            assert np.abs(one - other).max() > 1e-6


def test_the_epsilon_of_the_config_is_used(tmp_path, usual):
    assert np.abs(vectors(write_model(tmp_path, config_json={"layer_norm_eps": 0.5})) - usual).max() > 1e-3


def test_other_sizes(tmp_path):
    config = replace(TINY, num_hidden_layers=1, num_attention_heads=1, type_vocab_size=1, vocab_size=128)
    assert np.isfinite(vectors(write_model(tmp_path, config=config))).all()


# --- a plain BERT ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_without_modules_json_the_mean_is_taken_and_one_warning_says_so(tmp_path, prefix):
    folder = write_model(tmp_path / "plain", modules=None, prefix=prefix, sentence_bert_config=None)
    (folder / "config_sentence_transformers.json").unlink()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoder = SentenceEncoder(folder)
        found = encoder.encode(TEXTS)
    assert [(w.category, Path(w.filename).name) for w in caught] == [(UserWarning, Path(__file__).name)]
    assert "no modules.json" in str(caught[0].message) and folder.as_posix() in str(caught[0].message)
    assert encoder.model.modules == (Pooling(("mean",)),)
    assert encoder.max_seq_length == 16
    np.testing.assert_array_equal(found, vectors(write_model(tmp_path / "listed", modules=(Pooling(),))))


# --- tokenizer files ------------------------------------------------------------------------------------------


def test_vocab_txt_alone_is_enough(tmp_path, usual):
    folder = write_model(tmp_path, vocab_txt=True)
    assert not (folder / "tokenizer.json").exists()
    same(folder, usual)


def test_vocab_txt_without_any_settings_lower_cases_as_bert_does(tmp_path, usual):
    same(write_model(tmp_path, vocab_txt=True, tokenizer_config=None), usual)


@pytest.mark.parametrize("vocab_txt", [False, True], ids=["tokenizer.json", "vocab.txt"])
@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        ({"do_lower_case": True}, ["the", "cat"]),
        ({"do_lower_case": False}, ["[UNK]", "[UNK]"]),
        ({"do_lower_case": False, "strip_accents": True}, ["[UNK]", "cat"]),
        ({"do_lower_case": True, "strip_accents": False}, ["the", "[UNK]"]),
    ],
    ids=str,
)
def test_the_tokenizer_s_settings_are_obeyed(tmp_path, settings, pieces, vocab_txt):
    """As transformers' BertTokenizer does: tokenizer_config.json overrules what tokenizer.json says."""
    folder = write_model(tmp_path, tokenizer_config=settings, vocab_txt=vocab_txt)
    assert SentenceEncoder(folder).trace("The c\u00e1t").pieces == ("[CLS]", *pieces, "[SEP]")


def test_another_tokenizer_class_leaves_tokenizer_json_alone(tmp_path):
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}
    folder = write_model(tmp_path, tokenizer=tiny_tokenizer(lowercase=False), tokenizer_config=settings)
    assert SentenceEncoder(folder).trace("The cat").pieces == ("[CLS]", "[UNK]", "cat", "[SEP]")


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


def test_sentence_bert_config_lower_cases_before_the_tokenizer(tmp_path):
    choices = {"tokenizer": tiny_tokenizer(lowercase=False), "tokenizer_config": {"do_lower_case": False}}
    for asked, piece in ((False, "[UNK]"), (True, "the")):
        folder = write_model(tmp_path / str(asked), sentence_bert_config={"do_lower_case": asked}, **choices)
        assert SentenceEncoder(folder).trace("The").pieces == ("[CLS]", piece, "[SEP]")


# --- prompts and similarity -----------------------------------------------------------------------------------


def test_prompts_and_similarity_are_read(tmp_path, plain):
    settings = {
        "prompts": {"query": "the cat ", "document": ""},
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
    }
    encoder, without = SentenceEncoder(write_model(tmp_path, sentence_settings=settings)), SentenceEncoder(plain)
    assert encoder.prompts == settings["prompts"]
    assert encoder.model.similarity_fn_name == "dot"
    np.testing.assert_array_equal(encoder.encode("sat"), without.encode("the cat sat"))
    np.testing.assert_array_equal(encoder.encode("sat", prompt_name="document"), without.encode("sat"))
    np.testing.assert_array_equal(encoder.similarity(np.eye(2) * 3, np.eye(2)), np.eye(2) * 3)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan", None])
def test_each_similarity_by_name(tmp_path, name):
    encoder = SentenceEncoder(write_model(tmp_path, sentence_settings={"similarity_fn_name": name, "prompts": None}))
    one, other = np.array([[3.0, 0.0]]), np.array([[0.0, 4.0]])
    expected = {"cosine": 0.0, "dot": 0.0, "euclidean": -5.0, "manhattan": -7.0, None: 0.0}[name]
    np.testing.assert_allclose(encoder.similarity(one, other), [[expected]])


def test_no_sentence_settings_at_all(tmp_path, usual):
    folder = write_model(tmp_path, sentence_settings=None)
    assert SentenceEncoder(folder).prompts == {}
    same(folder, usual)


# --- where files lie ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 3])
def test_a_hub_cache_where_every_file_is_a_link_to_a_blob_outside(tmp_path, usual, shards):
    source = write_model(tmp_path / "source", shards=shards)
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    blobs.mkdir(parents=True)
    for file in [file for file in source.rglob("*") if file.is_file()]:
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        link = snapshot / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    same(snapshot, usual)


def test_the_folder_may_be_a_link_and_its_name_odd(tmp_path, usual):
    folder = write_model(tmp_path / "a b \u00e9 100%")
    (tmp_path / "link").symlink_to(folder)
    same(tmp_path / "link", usual)
    same(folder, usual)


def test_a_module_folder_may_be_a_link_inside_the_model(tmp_path, usual):
    folder = write_model(tmp_path)
    (folder / "1_Pooling").rename(folder / "elsewhere")
    (folder / "1_Pooling").symlink_to("elsewhere")
    same(folder, usual)


def test_a_relative_path_and_a_string(tmp_path, usual, monkeypatch):
    write_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(SentenceEncoder("./model").encode(TEXTS), usual)


# --- dtype and memory -----------------------------------------------------------------------------------------


def test_float64_is_float64_throughout(plain, usual):
    encoder = SentenceEncoder(plain, dtype="float64")
    assert {array.dtype for array in flatten(encoder.model.params)} == {np.dtype(np.float64)}
    tensors = encoder.trace(TEXTS).tensors()
    assert {name: t.dtype for name, t in tensors.items() if t.dtype != np.float64}.keys() == set()
    found = encoder.encode(TEXTS)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, usual, atol=2e-6)
    assert np.abs(found - usual).max() > 1e-9  # it is not float32 in disguise


def test_memory_order_is_free(plain, usual):
    encoder = SentenceEncoder(plain)
    matrices = [x for layer in encoder.model.params.layers for x in flatten(layer) if x.ndim == 2]
    assert all(x.flags.f_contiguous for x in matrices) and len(matrices) == 12

    def in_rows(tree):
        if isinstance(tree, np.ndarray):
            return np.ascontiguousarray(tree)
        if isinstance(tree, tuple):
            return tuple(in_rows(branch) for branch in tree)
        return replace(tree, **{field.name: in_rows(getattr(tree, field.name)) for field in dataclasses.fields(tree)})

    encoder.model = replace(encoder.model, params=in_rows(encoder.model.params))
    np.testing.assert_allclose(encoder.encode(TEXTS), usual, atol=COMPANY)


# --- saving ---------------------------------------------------------------------------------------------------

SAVED = {
    "plain": {},
    "new": {"new_format": True},
    "halved": {"dtype": "F16", "prefix": "bert.", "extra_tensors": HEADS},
    "sharded": {"dtype": "BF16", "shards": 3, "transformer_path": "0_Transformer"},
    "all poolings": {"modules": (Pooling(MODES, include_prompt=False),)},
    "other order": {"modules": (Pooling(("mean", "cls", "mean")), Normalize()), "new_format": True},
    "dense": {"modules": (Pooling(), tiny_dense(12, 7, "gelu"), Normalize(), tiny_dense(7, 5, "identity", bias=False))},
    "residual": {"modules": (Pooling(), tiny_dense(12, 12, use_residual=True), tiny_dense(12, 5, use_residual=True))},
    "vocab.txt": {"vocab_txt": True, "tokenizer_config": {"do_lower_case": False}},
    "no settings": {"tokenizer_config": None, "sentence_bert_config": None, "sentence_settings": None},
    "lower case": {
        "tokenizer": tiny_tokenizer(lowercase=False),
        "tokenizer_config": {"do_lower_case": False},
        "sentence_bert_config": {"do_lower_case": True, "max_seq_length": 11},
    },
    "activation": {"config": replace(TINY, hidden_act="gelu_new", layer_norm_eps=1e-5)},
    "cut vectors": {"sentence_settings": {"truncate_dim": 5}},
    "null prompts": {"sentence_settings": {"prompts": {"query": None}, "default_prompt_name": "query"}},
    "prompts": {
        "sentence_settings": {
            "prompts": {"query": "the \u00e9 \U0001f600", "": ""},
            "default_prompt_name": "query",
            "similarity_fn_name": "euclidean",
        }
    },
}


def contents(folder: Path) -> dict[str, bytes]:
    return {x.relative_to(folder).as_posix(): x.read_bytes() for x in sorted(folder.rglob("*")) if x.is_file()}


@pytest.mark.parametrize("choices", SAVED.values(), ids=SAVED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saved_and_loaded_again_nothing_has_changed(tmp_path, choices, dtype):
    first = SentenceEncoder(write_model(tmp_path / "original", **choices), dtype=dtype)
    first.save(tmp_path / "saved")
    second = SentenceEncoder(tmp_path / "saved", dtype=dtype)
    second.save(tmp_path / "again")
    np.testing.assert_array_equal(first.encode(TEXTS), second.encode(TEXTS))
    assert contents(tmp_path / "saved") == contents(tmp_path / "again")
    assert {path.name for path in tmp_path.iterdir()} == {"original", "saved", "again"}
    for field in ("config", "max_seq_length", "prompts", "default_prompt_name", "similarity_fn_name", "width"):
        assert getattr(first.model, field) == getattr(second.model, field), field


def test_lower_case_is_saved_where_sentence_transformers_looks_for_it(tmp_path):
    """It builds the normalizer of tokenizer.json anew, and a step that stands only there would be lost."""
    SentenceEncoder(write_model(tmp_path / "original", **SAVED["lower case"])).save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "sentence_bert_config.json").read_text())["do_lower_case"] is True


def test_the_limit_that_was_set_is_the_limit_that_is_saved(tmp_path, plain):
    encoder = SentenceEncoder(plain, max_seq_length=9)
    encoder.save(tmp_path / "saved")
    assert SentenceEncoder(tmp_path / "saved").max_seq_length == 9


def test_a_single_pooling_is_saved_in_the_format_that_every_release_reads(tmp_path, plain):
    SentenceEncoder(plain).save(tmp_path / "saved")
    pooling = json.loads((tmp_path / "saved" / "1_Pooling" / "config.json").read_text())
    assert pooling["word_embedding_dimension"] == 12 and pooling["pooling_mode_mean_tokens"] is True
    listed = json.loads((tmp_path / "saved" / "modules.json").read_text())
    assert [entry["type"] for entry in listed] == [
        f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Normalize")
    ]


def test_an_empty_folder_may_be_saved_into_and_parents_are_made(tmp_path, plain, usual):
    (tmp_path / "empty").mkdir()
    encoder = SentenceEncoder(plain)
    encoder.save(tmp_path / "empty")
    encoder.save(str(tmp_path / "a" / "b" / "c"))
    same(tmp_path / "empty", usual)
    same(tmp_path / "a" / "b" / "c", usual)


@pytest.mark.parametrize("what", ["a file", "a folder with a file", "the model's own folder"])
def test_save_overwrites_nothing(tmp_path, what):
    folder = write_model(tmp_path / "model")
    encoder = SentenceEncoder(folder)
    target = {"a file": tmp_path / "file", "a folder with a file": tmp_path / "full"}.get(what, folder)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"save: .* exists and is not an empty folder; nothing was written"):
        encoder.save(target)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("exception", [OSError("no space left"), KeyboardInterrupt()], ids=["disk full", "Ctrl-C"])
@pytest.mark.parametrize("step", ["save_file", "_write_json", "bert_config_to_json"])
def test_a_save_that_fails_in_the_middle_leaves_nothing(tmp_path, monkeypatch, step, exception):
    folder = write_model(tmp_path / "model", modules=(Pooling(), tiny_dense(12, 7)))
    encoder = SentenceEncoder(folder)

    def fail(*_, **__):
        raise exception

    monkeypatch.setattr(folder_module, step, fail)
    before = contents(tmp_path)
    with pytest.raises(type(exception)):
        encoder.save(tmp_path / "saved")
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_prompt_that_cannot_be_written_leaves_nothing(tmp_path, plain):
    encoder = SentenceEncoder(plain)
    encoder.model = replace(encoder.model, prompts={"query": "\ud800"})
    with pytest.raises(ValueError):
        encoder.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_the_saved_folder_can_be_read_by_others(tmp_path, plain):
    SentenceEncoder(plain).save(tmp_path / "saved")
    assert (tmp_path / "saved").stat().st_mode & 0o777 == 0o755


def test_a_model_moved_while_loaded_still_encodes(tmp_path, usual):
    """Nothing is read later from disk: the folder may go away."""
    folder = write_model(tmp_path / "model")
    encoder = SentenceEncoder(folder)
    shutil.rmtree(folder)
    np.testing.assert_array_equal(encoder.encode(TEXTS), usual)


# --- sentence-transformers reads the same from the same folder --------------------------------------------------

DIALECTS = {
    **{
        name: SAVED[name] for name in ("plain", "new", "other order", "all poolings", "dense", "residual", "lower case")
    },
    "tokenizer_config overrules": {"tokenizer": tiny_tokenizer(lowercase=False)},
    "cased": {"tokenizer_config": {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "strip_accents": True}},
    "other class": {
        "tokenizer": tiny_tokenizer(lowercase=False),
        "tokenizer_config": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "do_lower_case": True,
            "pad_token": "[PAD]",
        },
    },
    "no tokenizer_config": {"tokenizer": tiny_tokenizer(lowercase=False), "tokenizer_config": None},
    "vocab.txt": {"vocab_txt": True},
    "in a folder": {"transformer_path": "0_Transformer"},
}


@pytest.mark.parametrize("choices", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_sentence_transformers_agrees_on_what_the_folder_means(tmp_path, sentence_transformers, choices):
    folder = write_model(tmp_path / "original", **choices)
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    ours = SentenceEncoder(folder)
    np.testing.assert_allclose(ours.encode(TEXTS), theirs, atol=2e-6)
    ours.save(tmp_path / "saved")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(ours.encode(TEXTS), theirs, atol=2e-6)


def test_the_pieces_are_what_they_seem():
    """The vocabulary that all this rests on has no piece twice, and V differs from every other size."""
    assert len(set(PIECES)) == len(PIECES) == TINY.vocab_size
    assert isinstance(tiny_dense(2, 3), Dense)
