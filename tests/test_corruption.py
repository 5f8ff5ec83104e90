"""A damaged, lying or hostile model folder is refused with the file and the cause, before any vector comes out.

`CASES` is the table: a row for each rule, which damages a good folder in one way and says which file, key or value the
refusal must name. Behind it, damage that nobody thought of: each file removed, made a link to nothing or a folder, cut,
overwritten, or changed in one byte.
"""

import json
import shutil
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import (
    TEXTS,
    TINY,
    VOCABULARY,
    edit_json,
    named_tensors,
    read_raw_safetensors,
    tiny_dense,
    tiny_params,
    write_json,
    write_model,
    write_raw_safetensors,
    write_safetensors,
)

from minisbert import SentenceEncoder
from minisbert.model.config import ModelFolderError
from minisbert.model.pooling import Normalize, Pooling

pytestmark = pytest.mark.usefixtures("one_thread")

MODEL, INDEX, SHARD = "model.safetensors", "model.safetensors.index.json", "model-00002-of-00003.safetensors"
CONFIG, SBERT, TOKENIZER = "config.json", "sentence_bert_config.json", "tokenizer_config.json"
SETTINGS, POOL, DENSE = "config_sentence_transformers.json", "1_Pooling/config.json", "2_Dense/config.json"
WORD, POSITION = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
BIAS = "encoder.layer.1.attention.self.query.bias"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:53aa\nsize 90868376\n"

# --- ways to damage: each gives a function of the folder ------------------------------------------------------


def edit(path, **changes):
    return lambda folder: edit_json(folder / path, **changes)


def in_json(path, how):
    """Change a JSON file in place."""

    def damage(folder):
        content = json.loads((folder / path).read_text(encoding="utf-8"))
        how(content)
        write_json(folder / path, content)

    return damage


def change(path, how):
    """Change the bytes of a file; ``how`` may be the new ones."""
    return lambda folder: (folder / path).write_bytes(how((folder / path).read_bytes()) if callable(how) else how)


def link(path, target="../../blobs/0123abcd"):
    return lambda folder: ((folder / path).unlink(), (folder / path).symlink_to(target))


def header(how):
    """Change the header of the weights, and leave the bytes behind it."""

    def damage(folder):
        content, data = read_raw_safetensors(folder / MODEL)
        how(content)
        write_raw_safetensors(folder / MODEL, content, data)

    return damage


def tensors(how, dtype="F32", named=None, path=MODEL):
    def damage(folder):
        held = {name: values.copy() for name, values in (named or named_tensors(TINY, tiny_params())).items()}
        how(held)
        write_safetensors(folder / path, held, dtype)

    return damage


def dense(how):
    module = tiny_dense(12, 7)
    return tensors(how, named={"linear.weight": module.weight, "linear.bias": module.bias}, path="2_Dense/" + MODEL)


def spoil(name, value):
    return lambda named: named[name].flat.__setitem__(-1, value)


def module(number, **changes):
    return in_json("modules.json", lambda listed: listed[number].update(changes))


def moved_outside(folder):
    shutil.move(folder / "1_Pooling", folder.parent / "outside")
    (folder / "1_Pooling").symlink_to(folder.parent / "outside")


def weight_map(**changes):
    return in_json(INDEX, lambda content: content["weight_map"].update(changes))


def vocabulary(**changes):
    return in_json("tokenizer.json", lambda content: content["model"]["vocab"].update(changes))


def template(how):
    return in_json("tokenizer.json", lambda content: how(content["post_processor"]))


def several_at_once(named):
    del named[BIAS]
    named["lm_head.weight"] = np.ones((2, 2), np.float32)
    named[WORD] = named[WORD][:-1]


CASES = {
    # --- the weights: the file, its header, its tensors
    "a shape beyond all memory": (header(lambda h: h[WORD].update(shape=[2**62, 2**62])), MODEL),
    "offsets that overlap": (header(lambda h: h[POSITION].update(data_offsets=[0, 16 * 12 * 4])), MODEL),
    "only a pickle": (lambda f: (f / MODEL).rename(f / "pytorch_model.bin"), "pytorch_model.bin", "code"),
    "missing, unexpected, misshapen": (
        tensors(several_at_once),
        *(f"1 missing: {BIAS}", "1 unexpected: lm_head.weight", f"1 misshapen: {WORD} has shape (93, 12)", CONFIG),
    ),
    "no tensor at all": (tensors(dict.clear), CONFIG, "num_hidden_layers"),
    "NaN": (tensors(spoil(POSITION, np.nan)), MODEL, POSITION),
    "beyond float32": (tensors(lambda t: t.update({BIAS: np.full(12, 1e300)}), "F64"), MODEL, BIAS, "12 numbers"),
    "quantised": (tensors(lambda t: None, {WORD: "F8_E4M3"}), MODEL, WORD, "F8_E4M3"),
    "with and without prefix": (tensors(lambda t: t.update({f"bert.{BIAS}": t[BIAS]})), f"'{BIAS}'", f"'bert.{BIAS}'"),
    # --- config.json
    "100,000 brackets": (change(CONFIG, b"[" * 100_000), CONFIG),
    "another architecture": (edit(CONFIG, model_type="roberta"), CONFIG, "model_type"),
    **{
        key: (edit(CONFIG, **{key: value}), CONFIG, key)
        for key, value in {
            "hidden_act": "quick_gelu",
            "position_embedding_type": "relative_key",
            "is_decoder": True,
            "vocab_size": True,
            "num_hidden_layers": 0,
            "layer_norm_eps": float("nan"),
            "num_attention_heads": 5,
        }.items()
    },
    "a layer too few": (edit(CONFIG, num_hidden_layers=1), CONFIG, "16 unexpected", "encoder.layer.1."),
    "a billion layers": (edit(CONFIG, num_hidden_layers=10**9), CONFIG, "num_hidden_layers 1000000000"),
    "no room for text": (lambda f: write_model(f, config=replace(TINY, max_position_embeddings=2)), "2 tokens"),
    # --- modules.json
    "modules of strings": (change("modules.json", b'["Transformer"]'), "modules.json", "'Transformer'"),
    "a foreign module": (module(2, type="evil.LSTM"), "modules.json", "'evil.LSTM'"),
    **{
        f"path {path!r}": (module(number, path=path), "modules.json", repr(path))
        for number, path in ((0, "../x"), (1, "1_Pooling/.."), (3, "/etc"), (3, "..\\x"), (3, "x\0y"), (3, "\ud800"))
    },
    "a linked folder outside": (moved_outside, "modules.json", "1_Pooling"),
    "a path to nothing": (module(1, path="3_Pooling"), "3_Pooling/config.json"),
    "two poolings": (in_json("modules.json", lambda x: x.insert(2, x[1])), "modules.json", "'Pooling', 'Pooling'"),
    # --- Pooling, Dense, Normalize
    "pooling of another width": (edit(POOL, word_embedding_dimension=384), POOL, "384", "hidden_size 12"),
    "an unknown pooling": (edit(POOL, pooling_mode="attention"), POOL, "attention"),
    "a mode in quotes": (edit(POOL, pooling_mode_mean_tokens="true"), POOL, "pooling_mode_mean_tokens"),
    "Dense lacks its bias": (dense(lambda t: t.pop("linear.bias")), "2_Dense", "'linear.bias': (7,)"),
    "Dense after two poolings": (edit(POOL, pooling_mode=["mean", "max"]), DENSE, "in_features 12", "24"),
    "Dense out_features": (edit(DENSE, out_features=True), DENSE, "out_features"),
    "another activation": (edit(DENSE, activation_function="evil.Tanh"), DENSE, "activation_function", "evil.Tanh"),
    "Dense with a residual": (edit(DENSE, use_residual=True), DENSE, "use_residual"),
    "Normalize of token vectors": (
        lambda f: write_json(f / "3_Normalize/config.json", {"module_input_name": "token_embeddings"}),
        *("3_Normalize/config.json", "module_input_name"),
    ),
    # --- tokenizer.json and the three files of settings
    "ids beyond the table": (vocabulary(soup=TINY.vocab_size), "tokenizer.json", "'soup'", CONFIG, "vocab_size"),
    "two pieces with one id": (vocabulary(soup=VOCABULARY["cat"]), "tokenizer.json", "'soup'", "'cat'"),
    "nothing before a text": (template(lambda t: t["single"].pop(0)), "tokenizer.json", "'[SEP]'"),
    "[SEP] of another's id": (template(lambda t: t["special_tokens"]["[SEP]"].update(ids=[7])), "[SEP]", "7"),
    "an undefined token": (template(lambda t: t["special_tokens"].pop("[CLS]")), "tokenizer.json", "'a'"),
    "another program's tokens": (edit(TOKENIZER, tokenizer_class="BertJapaneseTokenizer"), TOKENIZER, "BertJapanese"),
    **{
        f"{file} {key} {value!r}": (edit(file, **{key: value}), file, key)
        for file, key, value in (
            (TOKENIZER, "truncation_side", "left"),
            (SBERT, "max_seq_length", 12.5),
            (SBERT, "processing_kwargs", {"text": {"padding_side": "left"}}),
            (SETTINGS, "prompts", {"query": "\ud800"}),
            (SETTINGS, "default_prompt_name", "other"),
            (SETTINGS, "similarity_fn_name", "jaccard"),
            (SETTINGS, "truncate_dim", True),
        )
    },
}
SHARDED = {
    "a shard missing": (lambda f: (f / SHARD).unlink(), INDEX, SHARD),
    "numbers for files": (weight_map(**{WORD: 1}), INDEX, "weight_map"),
    "the wrong shard": (weight_map(**{WORD: SHARD}), INDEX, WORD),
    "a shard elsewhere": (weight_map(**{WORD: "../x"}), INDEX, "'../x'"),
}
VOCAB_TXT = {
    "without [UNK]": (change("vocab.txt", lambda b: b.replace(b"[UNK]", b"unk")), "vocab.txt", "[UNK]"),
    "of another tokenizer": (edit(TOKENIZER, tokenizer_class="RobertaTokenizer"), TOKENIZER, "'RobertaTokenizer'"),
}
BASES = {"usual": CASES, "sharded": SHARDED, "vocab.txt": VOCAB_TXT}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The folders to damage."""
    root = tmp_path_factory.mktemp("good")
    with_dense = (Pooling(), tiny_dense(12, 7), Normalize())
    said = {  # nothing of it is what a file that is left out would mean
        "sentence_settings": {"prompts": {"query": "the cat "}, "default_prompt_name": "query"},
        "sentence_bert_config": {"max_seq_length": 5, "do_lower_case": False},
        "tokenizer_config": {"tokenizer_class": "BertTokenizer", "do_lower_case": False},
    }
    folders = {
        "usual": write_model(root / "usual", modules=with_dense, **said),
        "sharded": write_model(root / "sharded", modules=with_dense, shards=3),
        "vocab.txt": write_model(root / "old", modules=with_dense, vocab_txt=True),
    }
    for folder in folders.values():
        assert np.isfinite(SentenceEncoder(folder).encode(TEXTS, overflow="truncate")).all()
    return folders


def refusal(folder):
    """The message with which a folder is refused, on loading, without any warning besides."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ModelFolderError) as caught:
            SentenceEncoder(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("base", "case"), [pytest.param(base, case, id=case[:40]) for base, cases in BASES.items() for case in cases]
)
def test_what_is_damaged_is_refused(tmp_path, good, base, case):
    damage, *said = BASES[base][case]
    folder = Path(shutil.copytree(good[base], tmp_path / "model"))
    damage(folder)
    message = refusal(folder)
    assert [words for words in (str(tmp_path), *said) if words not in message] == [], message


# --- where the folder should be -------------------------------------------------------------------------------


def test_no_folder_where_the_folder_should_be(tmp_path, good):
    (tmp_path / "a file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name in ("nothing", "a file", "empty"):
        with pytest.raises(ValueError, match=str(tmp_path / name)):
            SentenceEncoder(tmp_path / name)
    cache = tmp_path / "models--owner--name"  # of the Hub, in place of a snapshot in it
    shutil.copytree(good["usual"], cache / "snapshots" / "1a2b")
    for folder in (cache, cache / "snapshots"):
        assert "'owner/name'" in refusal(folder)


# --- each file in turn ----------------------------------------------------------------------------------------

FILES = [POOL, DENSE, "2_Dense/" + MODEL, CONFIG, SETTINGS, MODEL, "modules.json", SBERT, "tokenizer.json", TOKENIZER]
OPTIONAL = {SETTINGS, "modules.json", SBERT, TOKENIZER}


@pytest.mark.filterwarnings("ignore:.*no modules.json")
@pytest.mark.parametrize("file", FILES)
def test_each_file_removed_or_made_something_that_cannot_be_read(tmp_path, good, file):
    def damaged(number, how):
        folder = Path(shutil.copytree(good["usual"], tmp_path / str(number)))
        how(folder)
        return folder

    folder = damaged(0, lambda folder: (folder / file).unlink())
    if file in OPTIONAL:
        assert np.isfinite(SentenceEncoder(folder).encode(TEXTS, overflow="truncate")).all()
    else:
        assert Path(file).name in refusal(folder)
    to_a_folder = lambda folder: ((folder / file).unlink(), (folder / file).mkdir())  # noqa: E731
    for i, how in enumerate([link(file), link(file, Path(file).name), to_a_folder], 1):
        assert file in refusal(damaged(i, how))
    message = refusal(damaged(9, change(file, POINTER)))
    assert file in message and "git lfs pull" in message


@settings(max_examples=300)
@given(file=st.sampled_from(FILES), data=st.data())
def test_a_file_cut_overwritten_or_changed_in_a_byte_is_refused_by_name_or_computes_the_same(good, file, data):
    path = good["usual"] / file
    before = path.read_bytes()
    usual = SentenceEncoder(good["usual"]).encode(TEXTS, overflow="truncate")
    kind = data.draw(st.sampled_from(["cut", "overwritten", "byte"]))
    if kind == "cut":
        content = before[: data.draw(st.integers(0, len(before) - 1))]
    elif kind == "overwritten":
        content = b"x" + data.draw(st.binary(max_size=300))  # which begins no JSON
    else:  # in settings and headers; the numbers of the weights themselves may be any
        end = 8 + struct.unpack("<Q", before[:8])[0] if file.endswith(MODEL) else len(before)
        at = data.draw(st.integers(0, end - 1))
        byte = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789-.eE{}[],:"\\ntfaxZ_ '))
        content = before[:at] + bytes([byte]) + before[at + 1 :]
    path.write_bytes(content)
    try:
        vectors = SentenceEncoder(good["usual"]).encode(TEXTS, overflow="truncate")
    except (ValueError, OSError) as error:
        assert kind == "byte" or Path(file).name in str(error)
    else:
        assert np.isfinite(vectors).all()
        assert kind == "byte" or np.array_equal(vectors, usual)
    finally:
        path.write_bytes(before)
