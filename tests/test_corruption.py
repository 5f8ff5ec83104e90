"""A damaged, lying or hostile model folder is refused with the file and the cause, before any vector comes out.

`CASES` is the table: a row for each rule, which damages a good folder in one way and says which file, key or value the
refusal must name. Behind it, damage that nobody thought of: each file removed, cut, made a link to nothing or a folder;
each tensor left out or spoilt; single bytes changed at random. What is not refused must give finite vectors.
"""

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import (
    REMOVE,
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
from minisbert.model.params import tensor_shapes
from minisbert.model.pooling import Normalize, Pooling

MODEL, INDEX, SHARD = "model.safetensors", "model.safetensors.index.json", "model-00002-of-00003.safetensors"
CONFIG, SBERT, TOKENIZER = "config.json", "sentence_bert_config.json", "tokenizer_config.json"
SETTINGS, POOL, DENSE = "config_sentence_transformers.json", "1_Pooling/config.json", "2_Dense/config.json"
WORD, POSITION = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
BIAS = "encoder.layer.1.attention.self.query.bias"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:53aa\nsize 90868376\n"
ST = "sentence_transformers.models."

# --- ways to damage: each gives a function of the folder ------------------------------------------------------


def edit(path, **changes):
    return lambda folder: edit_json(folder / path, **changes)


def literal(path, key, text):
    """Write a value that json.dumps would not: NaN, a number of 5,000 digits, a lone surrogate."""

    def damage(folder):
        edit_json(folder / path, **{key: "@@"})
        (folder / path).write_text((folder / path).read_text().replace('"@@"', text), encoding="utf-8")

    return damage


def write(path, content):
    return lambda folder: (folder / path).write_bytes(content)


def change(path, how):
    return lambda folder: (folder / path).write_bytes(how((folder / path).read_bytes()))


def gone(path):
    return lambda folder: (folder / path).unlink()


def link(path, target=None):
    """A link to nothing, or with the file's own name to itself."""

    def damage(folder):
        (folder / path).unlink(missing_ok=True)
        (folder / path).symlink_to(target or "../../blobs/0123abcd")

    return damage


def link_to_itself(path):
    return link(path, Path(path).name)


def folder_instead(path):
    return lambda folder: ((folder / path).unlink(), (folder / path).mkdir())


def in_json(path, how):
    """Change a JSON file in place."""

    def damage(folder):
        content = json.loads((folder / path).read_text(encoding="utf-8"))
        how(content)
        write_json(folder / path, content)

    return damage


def header(how):
    """Change the header of the weights, and leave the bytes behind it."""

    def damage(folder):
        content, data = read_raw_safetensors(folder / MODEL)
        how(content)
        write_raw_safetensors(folder / MODEL, content, data)

    return damage


def tensors(how, dtype="F32"):
    def damage(folder):
        named = {name: values.copy() for name, values in named_tensors(TINY, tiny_params()).items()}
        how(named)
        write_safetensors(folder / MODEL, named, dtype)

    return damage


def spoil(name, value):
    return lambda named: named[name].flat.__setitem__(-1, value)


def dense_tensors(**changes):
    def damage(folder):
        dense = tiny_dense(12, 7)
        named = {"linear.weight": dense.weight, "linear.bias": dense.bias, **changes}
        write_safetensors(folder / "2_Dense" / MODEL, {name: x for name, x in named.items() if x is not REMOVE})

    return damage


def module(number, **changes):
    return in_json("modules.json", lambda listed: listed[number].update(changes))


def moved_outside(path):
    def damage(folder):
        shutil.move(folder / path, folder.parent / "outside")
        (folder / path).symlink_to(folder.parent / "outside")

    return damage


def weight_map(**changes):
    return in_json(INDEX, lambda content: content["weight_map"].update(changes))


def vocabulary(**changes):
    return in_json("tokenizer.json", lambda content: content["model"]["vocab"].update(changes))


def template(how):
    return in_json("tokenizer.json", lambda content: how(content["post_processor"]))


def forget_unknown(content):
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "[UNK]"]
    del content["model"]["vocab"]["[UNK]"]


def several_at_once(named):
    del named[BIAS]
    named["lm_head.weight"] = np.ones((2, 2), np.float32)
    named[WORD] = named[WORD][:-1]


CASES = {
    # --- the weights: the file and its header
    "a length beyond the file": (change(MODEL, lambda b: b"\xff" * 8 + b[8:]), MODEL),
    "a pickle by that name": (write(MODEL, b"PK\x03\x04" + bytes(200)), MODEL),
    "another shape in the header": (header(lambda h: h[WORD].update(shape=[7, 12])), MODEL),
    "a shape beyond all memory": (header(lambda h: h[WORD].update(shape=[2**62, 2**62])), MODEL),
    "offsets that overlap": (header(lambda h: h[POSITION].update(data_offsets=[0, 16 * 12 * 4])), MODEL),
    "trailing bytes": (change(MODEL, lambda b: b + b"\0"), MODEL),
    "only a pickle": (lambda f: (f / MODEL).rename(f / "pytorch_model.bin"), "pytorch_model.bin", "code"),
    "only TensorFlow": (lambda f: (f / MODEL).rename(f / "tf_model.h5"), "tf_model.h5"),
    # --- its tensors
    "missing, unexpected, misshapen": (
        tensors(several_at_once),
        *(f"1 missing: {BIAS}", "1 unexpected: lm_head.weight", f"1 misshapen: {WORD} has shape (93, 12)", CONFIG),
    ),
    "no tensor at all": (tensors(dict.clear), CONFIG, "num_hidden_layers"),
    "infinity in BF16": (tensors(spoil(BIAS, -np.inf), "BF16"), MODEL, BIAS),
    "one bit of an exponent": (tensors(spoil(BIAS, -1.1e6)), MODEL, BIAS),
    "beyond float32": (tensors(lambda t: t.update({BIAS: np.full(12, 1e300)}), "F64"), MODEL, BIAS, "12 numbers"),
    "integers for weights": (tensors(lambda t: None, {WORD: "I64"}), MODEL, WORD, "I64"),
    "quantised": (tensors(lambda t: None, {WORD: "F8_E4M3"}), MODEL, WORD, "F8_E4M3"),
    "with and without prefix": (tensors(lambda t: t.update({f"bert.{BIAS}": t[BIAS]})), f"'{BIAS}'", f"'bert.{BIAS}'"),
    # --- config.json
    "no UTF-8": (write(CONFIG, '{"a": 1}'.encode("utf-16")), CONFIG),
    "100,000 brackets": (write(CONFIG, b"[" * 100_000), CONFIG),
    "5,000 digits": (literal(CONFIG, "hidden_size", "9" * 5000), CONFIG),
    "a list for an object": (write(CONFIG, b"[]"), CONFIG, "list"),
    "an object for a list": (write("modules.json", b"{}"), "modules.json", "dict"),
    **{f"model_type {kind!r}": (edit(CONFIG, model_type=kind), CONFIG, "model_type") for kind in ("roberta", None)},
    **{
        key: (edit(CONFIG, **{key: value}), CONFIG, key)
        for key, value in {
            "hidden_act": "quick_gelu",
            "position_embedding_type": "relative_key",
            "is_decoder": True,
            "add_cross_attention": True,
            "pruned_heads": {"0": [1]},
            "quantization_config": {"quant_method": "bitsandbytes"},
            "vocab_size": True,
            "hidden_size": 12.0,
            "num_hidden_layers": 0,
            "num_attention_heads": "3",
            "intermediate_size": None,
            "max_position_embeddings": -1,
            "type_vocab_size": [2],
        }.items()
    },
    **{f"epsilon {eps!r}": (edit(CONFIG, layer_norm_eps=eps), CONFIG, "layer_norm_eps") for eps in (0, True, 1e-300)},
    "epsilon NaN": (literal(CONFIG, "layer_norm_eps", "NaN"), CONFIG, "layer_norm_eps"),
    "heads that do not divide": (edit(CONFIG, num_attention_heads=5), CONFIG, "num_attention_heads"),
    "vocabulary beyond its table": (edit(CONFIG, vocab_size=200), CONFIG, WORD, "(200, 12)"),
    "a layer too few": (edit(CONFIG, num_hidden_layers=1), CONFIG, "16 unexpected", "encoder.layer.1."),
    "a billion layers": (edit(CONFIG, num_hidden_layers=10**9), CONFIG, "num_hidden_layers 1000000000"),
    "no room for text": (lambda f: write_model(f, config=replace(TINY, max_position_embeddings=2)), "2 tokens"),
    # --- modules.json
    "modules of strings": (write("modules.json", b'["Transformer"]'), "modules.json", "'Transformer'"),
    "a module without a type": (in_json("modules.json", lambda x: x[1].pop("type")), "modules.json", "'type'"),
    "a path of null": (module(1, path=None), "modules.json", "'path'"),
    "a foreign module": (module(2, type=ST + "LSTM"), "modules.json", repr(ST + "LSTM")),
    **{
        f"path {path!r}": (module(number, path=path), "modules.json", repr(path))
        for number, path in ((0, "../x"), (1, "1_Pooling/.."), (3, "/etc"), (3, "..\\x"), (3, "x\0y"), (3, "\ud800"))
    },
    "absolute, into the folder": (lambda f: module(1, path=str(f / "1_Pooling"))(f), "modules.json", "1_Pooling"),
    "a linked folder outside": (moved_outside("1_Pooling"), "modules.json", "1_Pooling"),
    "a path of 5,000 letters": (module(3, path="x" * 5000), "x" * 5000),
    "a path to nothing": (module(1, path="3_Pooling"), "3_Pooling/config.json"),
    "two poolings": (in_json("modules.json", lambda x: x.insert(2, x[1])), "modules.json", "'Pooling', 'Pooling'"),
    "no pooling": (in_json("modules.json", lambda x: x.pop(1)), "modules.json", "'Transformer', 'Dense'"),
    "Dense before Pooling": (in_json("modules.json", lambda x: x.insert(1, x.pop(2))), "modules.json", "'Dense', 'P"),
    # --- Pooling, Dense, Normalize
    "pooling of another width": (edit(POOL, word_embedding_dimension=384), POOL, "384", "hidden_size 12"),
    "an unknown pooling": (edit(POOL, pooling_mode="attention"), POOL, "attention"),
    "no pooling mode": (edit(POOL, pooling_mode=[]), POOL, "()"),
    "an unknown boolean": (edit(POOL, pooling_mode_attention=True), POOL, "pooling_mode_attention"),
    "a mode in quotes": (edit(POOL, pooling_mode_mean_tokens="true"), POOL, "pooling_mode_mean_tokens"),
    "include_prompt": (edit(POOL, include_prompt=0), POOL, "include_prompt"),
    "Dense lacks its bias": (dense_tensors(**{"linear.bias": REMOVE}), "2_Dense", "'linear.bias': (7,)"),
    "Dense turned over": (dense_tensors(**{"linear.weight": np.ones((12, 7), np.float32)}), "2_Dense", "(12, 7)"),
    "Dense with NaN": (dense_tensors(**{"linear.bias": np.full(7, np.nan, np.float32)}), "2_Dense/" + MODEL, "bias"),
    "Dense lacks its residual": (edit(DENSE, use_residual=True), "2_Dense", "residual.weight"),
    "Dense after two poolings": (edit(POOL, pooling_mode=["mean", "max"]), DENSE, "in_features 12", "24"),
    **{
        f"Dense {key}": (edit(DENSE, **{key: value}), DENSE, key)
        for key, value in {
            "out_features": True,
            "in_features": None,
            "bias": "false",
            "use_residual": 1,
            "module_input_name": "token_embeddings",
            "module_output_name": "token_embeddings",
        }.items()
    },
    **{
        f"activation {name!r}": (edit(DENSE, activation_function=name), DENSE, "activation_function", str(name))
        for name in ("torch.nn.modules.activation.Softplus", "evil.Tanh", "torch.nnx.Tanh", None)
    },
    "Normalize of token vectors": (
        lambda f: write_json(f / "3_Normalize/config.json", {"module_input_name": "token_embeddings"}),
        *("3_Normalize/config.json", "module_input_name"),
    ),
    # --- tokenizer.json and the three files of settings
    "another kind of file": (write("tokenizer.json", b'{"model_type": "bert"}'), "tokenizer.json"),
    "ids beyond the table": (vocabulary(soup=TINY.vocab_size), "tokenizer.json", "'soup'", CONFIG, "vocab_size"),
    "two pieces with one id": (vocabulary(soup=VOCABULARY["cat"]), "tokenizer.json", "'soup'", "'cat'"),
    "no piece for unknown words": (in_json("tokenizer.json", forget_unknown), "tokenizer.json", "'[UNK]'"),
    "nothing before a text": (template(lambda t: t["single"].pop(0)), "tokenizer.json", "'[SEP]'"),
    "nothing behind a text": (template(lambda t: t["single"].pop()), "tokenizer.json", "'[CLS]'"),
    "[SEP] of another's id": (template(lambda t: t["special_tokens"]["[SEP]"].update(ids=[7])), "[SEP]", "7"),
    "an undefined token": (template(lambda t: t["special_tokens"].pop("[CLS]")), "tokenizer.json", "'a'"),
    "an id without a name": (template(lambda t: t["special_tokens"]["[SEP]"].update(tokens=[])), "tokenizer.json"),
    "another program's tokens": (edit(TOKENIZER, tokenizer_class="BertJapaneseTokenizer"), TOKENIZER, "BertJapanese"),
    **{
        f"{file} {key} {value!r}": (edit(file, **{key: value}), file, key)
        for file, key, value in (
            (TOKENIZER, "truncation_side", "left"),
            (TOKENIZER, "do_lower_case", "false"),
            (TOKENIZER, "tokenize_chinese_chars", 1),
            (TOKENIZER, "strip_accents", "no"),
            (SBERT, "max_seq_length", 0),
            (SBERT, "max_seq_length", True),
            (SBERT, "max_seq_length", 12.5),
            (SBERT, "do_lower_case", None),
            (SBERT, "transformer_task", "fill-mask"),
            (SBERT, "module_output_name", "sentence_embedding"),
            (SBERT, "modality_config", {"image": {}}),
            (SBERT, "processing_kwargs", {"text": {"padding_side": "left"}}),
            (SBERT, "query_length", 32),
            (SETTINGS, "prompts", ["query: "]),
            (SETTINGS, "prompts", {"query": 5}),
            (SETTINGS, "default_prompt_name", "other"),
            (SETTINGS, "similarity_fn_name", "jaccard"),
            (SETTINGS, "truncate_dim", 0),
            (SETTINGS, "truncate_dim", True),
        )
    },
    "max_seq_length NaN": (literal(SBERT, "max_seq_length", "NaN"), SBERT, "max_seq_length"),
    "model_max_length": (
        lambda f: (edit(TOKENIZER, model_max_length=-1)(f), edit(SBERT, max_seq_length=REMOVE)(f)),
        *(TOKENIZER, "model_max_length"),
    ),
    "half a character": (literal(SETTINGS, "prompts", '{"query": "\\ud800"}'), SETTINGS, "prompts"),
}
SHARDED = {
    "a shard missing": (gone(SHARD), INDEX, SHARD),
    "a shard cut": (change(SHARD, lambda b: b[:-1]), SHARD),
    "a shard by Git LFS": (write(SHARD, POINTER), SHARD, "git lfs pull"),
    "no map": (edit(INDEX, weight_map=REMOVE), INDEX, "weight_map"),
    "numbers for files": (weight_map(**{WORD: 1}), INDEX, "weight_map"),
    "a tensor that is nowhere": (weight_map(ghost=SHARD), INDEX, "ghost"),
    "the wrong shard": (weight_map(**{WORD: SHARD}), INDEX, WORD),
    "a tensor forgotten": (in_json(INDEX, lambda c: c["weight_map"].pop(WORD)), WORD),
    **{f"a shard {path!r}": (weight_map(**{WORD: path}), INDEX, repr(path)) for path in ("../x", "", "a\\b", "x\0y")},
    "a name no disk can hold": (weight_map(**{WORD: "x" * 300}), "x" * 300),
}
VOCAB_TXT = {
    "without [CLS]": (change("vocab.txt", lambda b: b.replace(b"[CLS]", b"[CLR]")), "vocab.txt"),
    "without [UNK]": (change("vocab.txt", lambda b: b.replace(b"[UNK]", b"unk")), "vocab.txt", "[UNK]"),
    "too long": (change("vocab.txt", lambda b: b + b"zebra\n"), "vocab.txt", "'zebra'", CONFIG),
    "by Git LFS": (write("vocab.txt", POINTER), "vocab.txt", "git lfs pull"),
    "a broken link": (link("vocab.txt"), "vocab.txt"),
    "of another tokenizer": (edit(TOKENIZER, tokenizer_class="RobertaTokenizer"), TOKENIZER, "'RobertaTokenizer'"),
}
BASES = {"usual": CASES, "sharded": SHARDED, "vocab.txt": VOCAB_TXT}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The folders to damage."""
    root = tmp_path_factory.mktemp("good")
    with_dense = (Pooling(), tiny_dense(12, 7), Normalize())
    return {
        "usual": write_model(root / "usual", modules=with_dense),
        "sharded": write_model(root / "sharded", modules=with_dense, shards=3),
        "vocab.txt": write_model(root / "old", modules=with_dense, vocab_txt=True),
    }


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


def test_what_is_not_damaged_is_not_refused(good):
    for folder in good.values():
        assert np.isfinite(SentenceEncoder(folder).encode(TEXTS)).all()


def test_each_tensor_is_missed_by_name_and_nan_in_it_is_found(tmp_path, good):
    folder = Path(shutil.copytree(good["usual"], tmp_path / "model"))
    for name in tensor_shapes(TINY):
        tensors(lambda named, name=name: named.pop(name))(folder)
        assert f"1 missing: {name}" in refusal(folder)
        tensors(spoil(name, np.nan))(folder)
        assert f"'{name}' holds 1 numbers" in refusal(folder)


# --- where the folder should be -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty folder"])
def test_no_folder_where_the_folder_should_be(tmp_path, what):
    path = tmp_path / "model"
    if what == "a file":
        path.write_bytes(b"")
    elif what == "an empty folder":
        path.mkdir()
    with pytest.raises(ValueError, match=str(path)):
        SentenceEncoder(path)


def test_the_cache_of_the_hub_in_place_of_a_snapshot(tmp_path, good):
    cache = tmp_path / "models--owner--name"
    for age, revision in enumerate(["new", "old"]):
        shutil.copytree(good["usual"], cache / "snapshots" / revision)
        os.utime(cache / "snapshots" / revision, (1e9 - age, 1e9 - age))
    for folder in (cache, cache / "snapshots"):
        assert (cache / "snapshots" / "new").as_posix() in refusal(folder)


AS_NOBODY = """
import os, sys
import minisbert
minisbert.SentenceEncoder(sys.argv[1]).encode("a")  # so that nothing is left to import
if os.geteuid() == 0:  # who may read everything
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for folder in sys.argv[2:]:
    try:
        minisbert.SentenceEncoder(folder)
    except ValueError as error:
        print(error)
    else:
        print("was read")
"""


def test_what_may_not_be_read_is_refused_and_not_taken_for_absent(good):
    paths = ["", MODEL, CONFIG, "modules.json", "tokenizer.json", SBERT, TOKENIZER, SETTINGS, "1_Pooling", DENSE]
    # not in tmp_path: pytest's own folders are for their owner alone
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        folders = [Path(shutil.copytree(good["usual"], Path(parent) / f"model-{i}")) for i in range(len(paths) + 1)]
        closed = [folder / path for folder, path in zip(folders[1:], paths, strict=True)]
        try:
            for path in closed:
                path.chmod(0)
            command = [sys.executable, "-W", "error", "-c", AS_NOBODY, *map(str, folders)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
        finally:
            for path in closed:
                path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    for line, path in zip(done.stdout.splitlines(), closed, strict=True):
        assert path.as_posix() in line and "denied" in line


# --- each file in turn ----------------------------------------------------------------------------------------

FILES = [POOL, DENSE, "2_Dense/" + MODEL, CONFIG, SETTINGS, MODEL, "modules.json", SBERT, "tokenizer.json", TOKENIZER]
OPTIONAL = {SETTINGS, "modules.json", SBERT, TOKENIZER}


def test_these_are_the_files_of_a_saved_model(tmp_path, good):
    SentenceEncoder(good["usual"]).save(tmp_path / "saved")
    for folder in (tmp_path / "saved", good["usual"]):
        assert {x.relative_to(folder).as_posix() for x in folder.rglob("*") if x.is_file()} == set(FILES)


@pytest.mark.filterwarnings("ignore:.*no modules.json")
def test_each_file_removed(tmp_path, good):
    for i, file in enumerate(FILES):
        folder = Path(shutil.copytree(good["usual"], tmp_path / str(i)))
        (folder / file).unlink()
        if file in OPTIONAL:
            assert np.isfinite(SentenceEncoder(folder).encode(TEXTS)).all()
        else:
            assert Path(file).name in refusal(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: write(path, b""),
        lambda path: change(path, lambda b: b[: len(b) // 2]),
        lambda path: change(path, lambda b: b[: int(0.9 * len(b))]),
        lambda path: write(path, POINTER),
        link,
        link_to_itself,
        folder_instead,
    ],
    ids=["empty", "half", "nine tenths", "Git LFS pointer", "link to nothing", "link to itself", "folder"],
)
def test_each_file_made_something_that_cannot_be_read(tmp_path, good, damage):
    for i, file in enumerate(FILES):
        folder = Path(shutil.copytree(good["usual"], tmp_path / str(i)))
        damage(file)(folder)
        message = refusal(folder)
        is_pointer = (folder / file).is_file() and (folder / file).read_bytes() == POINTER
        assert file in message and ("git lfs pull" in message) == is_pointer


# --- damage that nobody thought of ----------------------------------------------------------------------------


def flips(good, seed, count):
    """Single bytes changed in settings and headers: half to any byte, half to one that JSON is made of."""
    rng = random.Random(seed)
    for _ in range(count):
        file = rng.choice(FILES)
        content = bytearray((good / file).read_bytes())
        is_weights = file.endswith(MODEL)
        at = rng.randrange(8 + struct.unpack("<Q", content[:8])[0] if is_weights else len(content))
        content[at] = rng.choice([rng.randrange(256), ord(rng.choice('0123456789-.eE{}[],:"\\ntfaxZ_ '))])
        yield file, at, bytes(content)


def test_single_bytes_changed_in_headers_and_settings(tmp_path, good):
    folder = Path(shutil.copytree(good["usual"], tmp_path / "model"))
    refused = survived = 0
    for file, at, content in flips(folder, seed=20240229, count=300):
        before = (folder / file).read_bytes()
        (folder / file).write_bytes(content)
        try:
            vectors = SentenceEncoder(folder).encode(TEXTS, overflow="truncate")
            assert np.isfinite(vectors).all(), f"{file}: byte {at} made {content[at]} gives {vectors}"
            survived += 1
        except ValueError:
            refused += 1
        except BaseException as error:
            raise AssertionError(f"{file}: byte {at} made {content[at]}: {type(error).__name__}: {error}") from error
        (folder / file).write_bytes(before)
    assert refused > 100 and survived > 20  # else the damage is not what it is meant to be
