"""A damaged, lying or hostile model folder is refused with the file and the cause, before any vector comes out.

`CASES` is the table: each row damages a good folder in one way and says which words the refusal must contain. Behind
it, damage that nobody thought of: each file removed, emptied, cut in half, made a link to nothing or a folder; single
bytes changed at random. What is not refused must give finite vectors.
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
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
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
    tiny_tokenizer,
    write_json,
    write_model,
    write_raw_safetensors,
    write_safetensors,
)

from minisbert import SentenceEncoder
from minisbert.model.config import ModelFolderError
from minisbert.model.params import tensor_shapes
from minisbert.model.pooling import Normalize, Pooling

MODEL = "model.safetensors"
WORD = "embeddings.word_embeddings.weight"
POSITION = "embeddings.position_embeddings.weight"
BIAS = "encoder.layer.1.attention.self.query.bias"
INDEX = "model.safetensors.index.json"
SHARD = "model-00002-of-00003.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:53aa\nsize 90868376\n"


@dataclass(frozen=True)
class Case:
    """One way to damage a folder."""

    name: str
    damage: Callable[[Path], Any]
    said: tuple[str, ...]  # what the refusal must contain: the file, the cause
    base: str = "usual"  # the good folder to start from


# --- ways to damage -------------------------------------------------------------------------------------------


def file_bytes(path: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / path).write_bytes(content)


def change_bytes(path: str, change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    return lambda folder: (folder / path).write_bytes(change((folder / path).read_bytes()))


def gone(*paths: str) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        for path in paths:
            shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()

    return damage


def link_to_nothing(path: str) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        (folder / path).unlink(missing_ok=True)
        (folder / path).symlink_to("../../blobs/0123abcd")

    return damage


def link_in_a_circle(path: str) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        gone(path)(folder)
        (folder / path).symlink_to(Path(path).name)

    return damage


def folder_instead(path: str) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        (folder / path).unlink(missing_ok=True)
        (folder / path).mkdir()

    return damage


def edit(path: str, **changes: Any) -> Callable[[Path], Any]:
    return lambda folder: edit_json(folder / path, **changes)


def raw_json(path: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / path).write_text(text, encoding="utf-8")


def raw_value(path: str, key: str, literal: str) -> Callable[[Path], Any]:
    """Write a value that json.dumps would not: NaN, 1e400, a number of 5,000 digits, a lone surrogate."""

    def damage(folder: Path) -> None:
        edit_json(folder / path, **{key: "@@"})
        text = (folder / path).read_text(encoding="utf-8")
        (folder / path).write_text(text.replace('"@@"', literal), encoding="utf-8")

    return damage


def edit_header(change: Callable[[dict[str, Any]], Any], data: Callable[[bytes], bytes] = bytes, path: str = MODEL):
    def damage(folder: Path) -> None:
        header, stored = read_raw_safetensors(folder / path)
        header = change(header) or header
        write_raw_safetensors(folder / path, header, data(stored))

    return damage


def edit_tensors(change: Callable[[dict[str, np.ndarray]], Any], dtype: Any = "F32") -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        tensors = {name: values.copy() for name, values in named_tensors(TINY, tiny_params()).items()}
        change(tensors)
        write_safetensors(folder / MODEL, tensors, dtype)

    return damage


def stored_as(kind: str) -> Callable[[Path], Any]:
    """The word embeddings as another dtype, zeros of the right number of bytes."""
    size = {"I64": 8, "I32": 4, "I8": 1, "U16": 2, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8}[kind]

    def damage(folder: Path) -> None:
        header, data = read_raw_safetensors(folder / MODEL)
        entry = header[WORD]
        start, stop = entry["data_offsets"]
        count = (stop - start) // 4
        rest = [other for name, other in header.items() if name not in ("__metadata__", WORD)]
        assert start == 0
        for other in rest:
            other["data_offsets"] = [offset - stop + size * count for offset in other["data_offsets"]]
        entry |= {"dtype": kind, "data_offsets": [0, size * count]}
        write_raw_safetensors(folder / MODEL, header, bytes(size * count) + data[stop:])

    return damage


def offsets(name: str, start: int, stop: int) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        old = header[name]["data_offsets"]
        header[name]["data_offsets"] = [old[0] + start, old[1] + stop]

    return change


def spoil(name: str, value: float) -> Callable[[dict[str, np.ndarray]], None]:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[name].flat[-1] = value

    return change


def modules(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        listed = json.loads((folder / "modules.json").read_text())
        listed = change(listed) or listed
        write_json(folder / "modules.json", listed)

    return damage


def path_of(number: int, path: Any) -> Callable[[Path], Any]:
    return modules(lambda listed: listed[number].update(path=path))


def link_outside(path: str) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        outside = folder.parent / "outside"
        shutil.move(folder / path, outside)
        (folder / path).symlink_to(outside)

    return damage


def dense_tensors(**changes: Any) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        dense = tiny_dense(12, 7)
        tensors = {"linear.weight": dense.weight, "linear.bias": dense.bias, **changes}
        present = {name: values for name, values in tensors.items() if values is not REMOVE}
        write_safetensors(folder / "2_Dense" / MODEL, present)

    return damage


def weight_map(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / INDEX).read_text())
        change(content["weight_map"])
        write_json(folder / INDEX, content)

    return damage


def edit_tokenizer(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        change(content)
        write_json(folder / "tokenizer.json", content)

    return damage


def vocabulary(**changes: Any) -> Callable[[Path], Any]:
    def change(content: dict[str, Any]) -> None:
        vocab = {**content["model"]["vocab"], **changes}
        content["model"]["vocab"] = {piece: i for piece, i in vocab.items() if i is not REMOVE}

    return edit_tokenizer(change)


def template_id(token: str, value: int) -> Callable[[Path], Any]:
    return edit_tokenizer(
        lambda content: content["post_processor"]["special_tokens"][token].update(ids=[value])  #
    )


def all_three(tensors: dict[str, np.ndarray]) -> None:
    del tensors[BIAS]
    tensors["lm_head.weight"] = np.ones((2, 2), np.float32)
    tensors[WORD] = tensors[WORD][:-1]


def twice(tensors: dict[str, np.ndarray]) -> None:
    tensors["bert." + BIAS] = tensors[BIAS] + 1


def twice_by_old_name(tensors: dict[str, np.ndarray]) -> None:
    tensors["embeddings.LayerNorm.gamma"] = tensors["embeddings.LayerNorm.weight"]


def rename_module(number: int, kind: str) -> Callable[[Path], Any]:
    return modules(lambda listed: listed[number].update(type=kind))


ST = "sentence_transformers.models."
CONFIG, SBERT, TOKENIZER = "config.json", "sentence_bert_config.json", "tokenizer_config.json"
SETTINGS = "config_sentence_transformers.json"
POOL, DENSE = "1_Pooling/config.json", "2_Dense/config.json"
NO_SIZES = [0, -1, 12.0, 12.5, True, "12", None, [12], {}]

CASES = [
    # --- model.safetensors: the file and its header
    Case("weights missing", gone(MODEL), ("there is no model.safetensors", "copied whole")),
    Case("weights empty", file_bytes(MODEL, b""), (MODEL, "not a whole safetensors file", "0 bytes")),
    Case("weights of 3 bytes", file_bytes(MODEL, b"abc"), (MODEL, "not a whole safetensors file", "3 bytes")),
    Case("only a length", file_bytes(MODEL, struct.pack("<Q", 8)), (MODEL, "not a whole safetensors file")),
    Case("header of no length", file_bytes(MODEL, bytes(8)), (MODEL, "not a whole safetensors file")),
    Case(
        "header length huge",
        change_bytes(MODEL, lambda b: struct.pack("<Q", 2**63) + b[8:]),
        (MODEL, "not a whole safetensors file"),
    ),
    Case(
        "header length all ones",
        change_bytes(MODEL, lambda b: b"\xff" * 8 + b[8:]),
        (MODEL, "not a whole safetensors file"),
    ),
    Case(
        "header length one beyond the file",
        change_bytes(MODEL, lambda b: struct.pack("<Q", len(b) - 7) + b[8:]),
        (MODEL, "not a whole safetensors file"),
    ),
    Case(
        "header length one short",
        change_bytes(MODEL, lambda b: struct.pack("<Q", struct.unpack("<Q", b[:8])[0] - 1) + b[8:]),
        (MODEL, "not a whole safetensors file"),
    ),
    Case(
        "header is no JSON",
        change_bytes(MODEL, lambda b: b[:8] + b"?" + b[9:]),
        (MODEL, "not a whole safetensors file"),
    ),
    Case("header is a list", edit_header(lambda _: ["x"]), (MODEL, "not a whole safetensors file")),
    Case("header is no UTF-8", change_bytes(MODEL, lambda b: b[:9] + b"\xff" + b[10:]), (MODEL, "not a whole")),
    Case("an HTML page", file_bytes(MODEL, b"<!DOCTYPE html><html>404 Not Found</html>"), (MODEL, "not a whole")),
    Case("a Git LFS pointer for a shard", file_bytes(SHARD, POINTER), (SHARD, "git lfs pull"), "sharded"),
    Case("a Git LFS pointer for vocab.txt", file_bytes("vocab.txt", POINTER), ("vocab.txt", "git lfs pull"), "old"),
    Case("a pickle by that name", file_bytes(MODEL, b"PK\x03\x04" + bytes(200)), (MODEL, "not a whole")),
    Case(
        "header says another shape",
        edit_header(lambda h: h[WORD].update(shape=[7, 12])),
        (MODEL, "not a whole safetensors file"),
    ),
    Case(
        "header says the shape turned over",
        edit_header(lambda h: h[WORD]["shape"].reverse()),
        (MODEL, WORD, "misshapen", f"(12, {TINY.vocab_size})", f"({TINY.vocab_size}, 12)"),
    ),
    Case(
        "header says a negative shape",
        edit_header(lambda h: h[WORD].update(shape=[-TINY.vocab_size, -12])),
        (MODEL, "not a whole safetensors file"),
    ),
    Case(
        "header says a shape beyond all memory",
        edit_header(lambda h: h[WORD].update(shape=[2**62, 2**62])),
        (MODEL, "not a whole safetensors file"),
    ),
    Case("header without a dtype", edit_header(lambda h: h[WORD].pop("dtype") and None), (MODEL, "not a whole")),
    Case("header with an unknown dtype", edit_header(lambda h: h[WORD].update(dtype="F31")), (MODEL, "not a whole")),
    Case("header says half the precision", edit_header(lambda h: h[WORD].update(dtype="F16")), (MODEL, "not a whole")),
    Case("offsets overlap", edit_header(offsets(POSITION, -4, -4)), (MODEL, "not a whole safetensors file")),
    Case("offsets leave a gap", edit_header(offsets(POSITION, 4, 0)), (MODEL, "not a whole safetensors file")),
    Case("offsets run backwards", edit_header(offsets(WORD, 10**6, 0)), (MODEL, "not a whole safetensors file")),
    Case("offsets beyond the file", edit_header(offsets(WORD, 0, 10**9)), (MODEL, "not a whole safetensors file")),
    Case("trailing bytes", change_bytes(MODEL, lambda b: b + b"\0"), (MODEL, "not a whole safetensors file")),
    Case("one byte short", change_bytes(MODEL, lambda b: b[:-1]), (MODEL, "not a whole safetensors file")),
    Case("half of the data", change_bytes(MODEL, lambda b: b[: len(b) // 2]), (MODEL, "cut off")),
    Case("the header alone", edit_header(lambda h: h, lambda _: b""), (MODEL, "not a whole safetensors file")),
    Case("a folder by that name", folder_instead(MODEL), (MODEL, "cannot be read")),
    Case("a link to a blob that is gone", link_to_nothing(MODEL), (MODEL, "cannot be read")),
    Case("a link in a circle", link_in_a_circle(MODEL), (MODEL, "cannot be read")),
    # --- its tensors
    Case("a tensor more", edit_tensors(lambda t: t.update(extra=t[BIAS])), ("1 unexpected: extra", CONFIG)),
    Case(
        "a tensor misshapen",
        edit_tensors(lambda t: t.update({POSITION: t[POSITION][:9]})),
        (CONFIG, f"1 misshapen: {POSITION} has shape (9, 12), config.json asks for (16, 12)"),
    ),
    Case(
        "a tensor with an axis too many",
        edit_tensors(lambda t: t.update({BIAS: t[BIAS][None]})),
        (f"{BIAS} has shape (1, 12), config.json asks for (12,)",),
    ),
    Case(
        "missing, unexpected and misshapen at once",
        edit_tensors(all_three),
        (f"1 missing: {BIAS}", "1 unexpected: lm_head.weight", f"1 misshapen: {WORD} has shape", CONFIG),
    ),
    Case("no tensor at all", edit_tensors(dict.clear), (CONFIG, "num_hidden_layers 2", "only 0 tensors")),
    Case("NaN", edit_tensors(spoil(BIAS, np.nan)), (MODEL, BIAS, "1 numbers that are NaN")),
    Case(
        "infinity", edit_tensors(spoil(WORD, np.inf)), (MODEL, WORD, "1 numbers that are NaN, infinite or beyond 1e+06")
    ),
    Case(
        "minus infinity",
        edit_tensors(spoil(POSITION, -np.inf)),
        (MODEL, POSITION, "1 numbers that are NaN, infinite or beyond 1e+06"),
    ),
    Case("a bit of an exponent", edit_tensors(spoil(BIAS, 3e37)), (MODEL, BIAS, "1 numbers", "beyond 1e+06")),
    Case("a number beyond all weights", edit_tensors(spoil(WORD, -1.1e6)), (MODEL, WORD, "1 numbers", "beyond 1e+06")),
    Case(
        "NaN in float16",
        edit_tensors(spoil(BIAS, np.nan), "F16"),
        (MODEL, BIAS, "1 numbers that are NaN, infinite or beyond 1e+06"),
    ),
    Case(
        "infinity in float16",
        edit_tensors(spoil(BIAS, np.inf), "F16"),
        (MODEL, BIAS, "1 numbers that are NaN, infinite or beyond 1e+06"),
    ),
    Case(
        "infinity in bfloat16",
        edit_tensors(spoil(BIAS, np.inf), "BF16"),
        (MODEL, BIAS, "1 numbers that are NaN, infinite or beyond 1e+06"),
    ),
    Case(
        "a float64 that float32 cannot hold",
        edit_tensors(lambda t: t.update({BIAS: np.full(12, 1e300)}), "F64"),
        (MODEL, BIAS, "12 numbers that are NaN, infinite or beyond 1e+06"),
    ),
    *(
        Case(f"stored as {kind}", stored_as(kind), (MODEL, WORD, f"stored as {kind}", "F64, F32, F16, BF16"))
        for kind in ("I64", "I32", "I8", "U16", "BOOL", "F8_E4M3", "F8_E5M2", "C64")
    ),
    Case("a name with and without prefix", edit_tensors(twice), (BIAS, "there twice", f"'bert.{BIAS}'")),
    Case("a name in its old and new form", edit_tensors(twice_by_old_name), ("there twice", "LayerNorm.gamma")),
    Case(
        "only a pickle",
        lambda f: (f / MODEL).rename(f / "pytorch_model.bin"),
        ("pytorch_model.bin", "run code", "convert"),
    ),
    Case("only TensorFlow", lambda f: (f / MODEL).rename(f / "tf_model.h5"), ("tf_model.h5", "not read", "convert")),
    # --- config.json
    Case("config missing", gone(CONFIG), (CONFIG, "missing")),
    Case("config empty", file_bytes(CONFIG, b""), (CONFIG, "expected JSON")),
    Case("config no JSON", file_bytes(CONFIG, b"{'hidden_size': 12}"), (CONFIG, "expected JSON", "damaged")),
    Case("config no UTF-8", file_bytes(CONFIG, b'{"a": "\xff"}'), (CONFIG, "expected JSON")),
    Case("config in UTF-16", file_bytes(CONFIG, '{"a": 1}'.encode("utf-16")), (CONFIG, "expected JSON")),
    Case("config a list", raw_json(CONFIG, "[]"), (CONFIG, "expected a JSON dict, got a list")),
    Case("config null", raw_json(CONFIG, "null"), (CONFIG, "expected a JSON dict")),
    Case("config of 100,000 brackets", raw_json(CONFIG, "[" * 100_000), (CONFIG, "expected JSON")),
    Case("config says nothing", raw_json(CONFIG, "{}"), (CONFIG, "hidden_size")),
    Case("config a folder", folder_instead(CONFIG), (CONFIG, "cannot be read")),
    Case("config a broken link", link_to_nothing(CONFIG), (CONFIG, "missing behind its link")),
    Case("config a link in a circle", link_in_a_circle(CONFIG), (CONFIG, "cannot be read")),
    *(
        Case(f"truncate_dim {value!r}", edit(SETTINGS, truncate_dim=value), (SETTINGS, "truncate_dim", repr(value)))
        for value in (0, -1, 1.5, "7", True, [7])
    ),
    *(
        Case(f"model_type {kind!r}", edit(CONFIG, model_type=kind), (CONFIG, f"model_type {kind!r} is not supported"))
        for kind in ("roberta", "mpnet", "xlm-roberta", "distilbert", "albert", "modernbert", "BERT", "", None, 1, [])
    ),
    *(
        Case(f"hidden_act {act!r}", edit(CONFIG, hidden_act=act), (CONFIG, "hidden_act", repr(act), "gelu_new"))
        for act in ("gelu_fast", "quick_gelu", "mish", "GELU", "", None, 1, ["gelu"])
    ),
    *(
        Case(f"{key} {value!r}", edit(CONFIG, **{key: value}), (CONFIG, key, "not supported"))
        for key, value in (
            ("position_embedding_type", "relative_key"),
            ("position_embedding_type", "relative_key_query"),
            ("position_embedding_type", "alibi"),
            ("is_decoder", True),
            ("is_decoder", "no"),
            ("add_cross_attention", True),
            ("pruned_heads", {"0": [1]}),
            ("quantization_config", {"quant_method": "bitsandbytes"}),
        )
    ),
    *(
        Case(f"{key} {value!r}", edit(CONFIG, **{key: value}), (CONFIG, key, repr(value), "positive integer"))
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        for value in NO_SIZES
    ),
    *(
        Case(f"{key} {value!r}", edit(CONFIG, **{key: value}), (CONFIG, key, repr(value), "positive integer"))
        for key in ("intermediate_size", "max_position_embeddings", "type_vocab_size")
        for value in (0, 1.5, None)
    ),
    Case("a size of 5,000 digits", raw_value(CONFIG, "hidden_size", "9" * 5000), (CONFIG, "expected JSON", "digits")),
    Case("heads that do not divide", edit(CONFIG, num_attention_heads=5), (CONFIG, "12", "5", "not divisible")),
    Case("more heads than numbers", edit(CONFIG, num_attention_heads=24), (CONFIG, "not divisible")),
    *(
        Case(f"epsilon {eps!r}", edit(CONFIG, layer_norm_eps=eps), (CONFIG, "layer_norm_eps", repr(eps)))
        for eps in (0, 0.0, -1e-12, "1e-12", None, True, [], 1e-300, 1e12)
    ),
    Case("epsilon NaN", raw_value(CONFIG, "layer_norm_eps", "NaN"), (CONFIG, "layer_norm_eps", "nan")),
    Case("epsilon 1e400", raw_value(CONFIG, "layer_norm_eps", "1e400"), (CONFIG, "layer_norm_eps", "inf")),
    Case("vocabulary larger than its tensor", edit(CONFIG, vocab_size=200), (CONFIG, WORD, "(200, 12)")),
    Case("vocabulary smaller than its tensor", edit(CONFIG, vocab_size=95), (CONFIG, WORD, "(95, 12)")),
    Case(
        "vocabulary smaller than the tokenizer",
        edit(CONFIG, vocab_size=90),
        ("tokenizer.json", CONFIG, "vocab_size 90"),
    ),
    Case("more positions than the tensor", edit(CONFIG, max_position_embeddings=512), (CONFIG, POSITION, "(512, 12)")),
    Case("another width", edit(CONFIG, hidden_size=24), (POOL, "hidden_size 24")),
    Case("another inner width", edit(CONFIG, intermediate_size=48), (CONFIG, "intermediate.dense.weight", "(48, 12)")),
    Case("a layer too many", edit(CONFIG, num_hidden_layers=3), (CONFIG, "16 missing", "encoder.layer.2.")),
    Case("a layer too few", edit(CONFIG, num_hidden_layers=1), (CONFIG, "16 unexpected", "encoder.layer.1.")),
    Case(
        "a million layers",
        edit(CONFIG, num_hidden_layers=10**9),
        (CONFIG, "num_hidden_layers 1000000000", "37 tensors"),
    ),
    Case(
        "no room for text",
        lambda f: write_model(f, config=replace(TINY, max_position_embeddings=2)),
        ("no room", "2 tokens"),
    ),
    # --- modules.json
    Case("modules a broken link", link_to_nothing("modules.json"), ("modules.json", "missing behind its link")),
    Case("modules a folder", folder_instead("modules.json"), ("modules.json", "cannot be read")),
    Case("modules empty", file_bytes("modules.json", b""), ("modules.json", "expected JSON")),
    Case("modules an object", raw_json("modules.json", "{}"), ("modules.json", "expected a JSON list, got a dict")),
    Case(
        "modules an empty list", raw_json("modules.json", "[]"), ("modules.json", "expected a Transformer, a Pooling")
    ),
    Case("modules of strings", raw_json("modules.json", '["Transformer"]'), ("modules.json", "'type' and a 'path'")),
    Case(
        "a module without a type", modules(lambda x: x[1].pop("type") and None), ("modules.json", "'type' and a 'path'")
    ),
    Case(
        "a module without a path", modules(lambda x: x[1].pop("path") and None), ("modules.json", "'type' and a 'path'")
    ),
    Case("a path of null", path_of(1, None), ("modules.json", "'type' and a 'path'")),
    Case("a path of numbers", path_of(1, 1), ("modules.json", "'type' and a 'path'")),
    *(
        Case(f"foreign module {kind}", rename_module(2, kind), ("modules.json", repr(kind), "not supported"))
        for kind in (ST + "LSTM", ST + "WeightedLayerPooling", "os.system", "Dense2", "", ST + "pooling", "Normalize.")
    ),
    *(
        Case(f"path {path[:30]!r}", path_of(number, path), ("modules.json", "leaves the model's folder"))
        for number in (1, 3)
        for path in (
            "..",
            "../outside",
            "1_Pooling/../../outside",
            "1_Pooling/..",
            "/etc",
            "//etc",
            "..\\outside",
            "1_Pooling\\..\\..\\x",
            "x\0y",
        )
    ),
    Case(
        "an absolute path back into the folder",
        lambda f: path_of(1, str(f / "1_Pooling"))(f),
        ("modules.json", "leaves the model's folder"),
    ),
    Case("the Transformer's path leaves", path_of(0, "../outside"), ("modules.json", "leaves the model's folder")),
    Case("a path of 5,000 letters", path_of(3, "x" * 5000), ("cannot be read", "too long")),
    Case("a path of a lone surrogate", path_of(3, "\ud800"), ("modules.json", "leaves the model's folder")),
    Case(
        "a linked folder outside", link_outside("1_Pooling"), ("modules.json", "1_Pooling", "leaves the model's folder")
    ),
    Case("a linked folder in a circle", link_in_a_circle("1_Pooling"), ("1_Pooling",)),
    Case("a path to nothing", path_of(1, "3_Pooling"), ("3_Pooling/config.json", "missing")),
    Case("a path to a file", path_of(1, "config.json"), ("config.json/config.json", "cannot be read")),
    Case("a Transformer elsewhere", path_of(0, "0_Transformer"), ("0_Transformer/config.json", "missing")),
    Case("two poolings", modules(lambda x: x.insert(2, x[1])), ("modules.json", "expected a Transformer, a Pooling")),
    Case("two Transformers", modules(lambda x: x.insert(0, x[0])), ("modules.json", "expected a Transformer")),
    Case("no pooling", modules(lambda x: x.pop(1) and None), ("modules.json", "expected a Transformer, a Pooling")),
    Case("no Transformer", modules(lambda x: x.pop(0) and None), ("modules.json", "expected a Transformer, a Pooling")),
    Case("Dense before Pooling", modules(lambda x: x.insert(1, x.pop(2))), ("modules.json", "expected a Transformer")),
    Case("Normalize before Pooling", modules(lambda x: x.insert(1, x.pop(3))), ("modules.json", "expected a Transf")),
    Case("all turned over", modules(lambda x: x[::-1]), ("modules.json", "expected a Transformer, a Pooling")),
    Case("only a Transformer", modules(lambda x: x[:1]), ("modules.json", "expected a Transformer, a Pooling")),
    Case(
        "Pooling and Dense change names",
        lambda f: (rename_module(1, ST + "Dense")(f), rename_module(2, ST + "Pooling")(f)),
        ("modules.json",),
    ),
    Case("Pooling points at Dense", path_of(1, "2_Dense"), (DENSE, "pools vectors of width None")),
    # --- Pooling, Dense, Normalize
    Case("pooling folder missing", gone("1_Pooling"), (POOL, "missing")),
    Case("pooling config missing", gone(POOL), (POOL, "missing")),
    Case("pooling config a list", raw_json(POOL, "[]"), (POOL, "expected a JSON dict")),
    Case("pooling of another width", edit(POOL, word_embedding_dimension=384), (POOL, "384", "hidden_size 12")),
    Case("pooling of no width", edit(POOL, word_embedding_dimension=REMOVE), (POOL, "width None")),
    Case("pooling of a width in words", edit(POOL, word_embedding_dimension="12"), (POOL, "width '12'")),
    *(
        Case(f"pooling_mode {mode!r}", edit(POOL, pooling_mode=mode), (POOL, "pooling mode", "weightedmean"))
        for mode in ("attention", "Mean", "", None, 1, [], ["mean", "x"], [["mean"]], {"mean": True})
    ),
    Case("an unknown boolean", edit(POOL, pooling_mode_attention=True), (POOL, "pooling_mode_attention")),
    *(
        Case(f"{key} {value!r}", edit(POOL, **{key: value}), (POOL, key, "true or false", repr(value)))
        for key in ("include_prompt", "pooling_mode_mean_tokens")
        for value in ("false", 0, None, [])
    ),
    Case("Dense weights missing", gone("2_Dense/" + MODEL), ("2_Dense", "there is no model.safetensors")),
    Case(
        "Dense weights a pickle",
        lambda f: (f / "2_Dense" / MODEL).rename(f / "2_Dense" / "pytorch_model.bin"),
        ("2_Dense", "pytorch_model.bin", "run code"),
    ),
    Case("Dense weights cut", change_bytes("2_Dense/" + MODEL, lambda b: b[:-9]), ("2_Dense/" + MODEL, "cut off")),
    Case("Dense config missing", gone(DENSE), (DENSE, "missing")),
    Case(
        "Dense without its bias", dense_tensors(**{"linear.bias": REMOVE}), ("2_Dense", CONFIG, "'linear.bias': (7,)")
    ),
    Case("Dense with a bias it denies", edit(DENSE, bias=False), ("2_Dense", CONFIG, "'linear.bias': (7,)")),
    Case("Dense with one tensor more", dense_tensors(x=np.ones(2, np.float32)), ("2_Dense", "'x': (2,)")),
    Case(
        "Dense misshapen",
        dense_tensors(**{"linear.weight": np.ones((12, 7), np.float32)}),
        ("2_Dense", "(12, 7)", "(7, 12)"),
    ),
    Case("Dense says another width out", edit(DENSE, out_features=9), ("2_Dense", "(9, 12)", "(7, 12)")),
    Case(
        "Dense says no width out",
        edit(DENSE, out_features=REMOVE),
        (DENSE, "out_features must be a positive integer, got None"),
    ),
    *(
        Case(f"Dense out_features {size!r}", edit(DENSE, out_features=size), (DENSE, "out_features", repr(size)))
        for size in NO_SIZES
    ),
    Case(
        "Dense of no width",
        lambda f: (
            edit(DENSE, out_features=0, bias=False)(f),
            write_safetensors(f / "2_Dense" / MODEL, {"linear.weight": np.empty((0, 12), np.float32)}),
        ),
        (DENSE, "out_features", "0"),
    ),
    Case("Dense says another width in", edit(DENSE, in_features=384), (DENSE, "in_features 384", "12")),
    Case("Dense says no width in", edit(DENSE, in_features=None), (DENSE, "in_features None")),
    Case("Dense with a residual it lacks", edit(DENSE, use_residual=True), ("2_Dense", "residual.weight")),
    Case(
        "Dense after two poolings", edit(POOL, pooling_mode=["mean", "max"]), (DENSE, "in_features 12", "vectors of 24")
    ),
    Case(
        "Dense with NaN",
        dense_tensors(**{"linear.bias": np.full(7, np.nan, np.float32)}),
        ("2_Dense/" + MODEL, "linear.bias", "7 numbers"),
    ),
    *(
        Case(f"Dense {key} {value!r}", edit(DENSE, **{key: value}), (DENSE, key, "true or false"))
        for key in ("bias", "use_residual")
        for value in ("false", 1, None)
    ),
    *(
        Case(
            f"Dense activation {name!r}", edit(DENSE, activation_function=name), (DENSE, repr(str(name)), "torch.nn's")
        )
        for name in (
            "torch.nn.modules.activation.Softplus",
            "torch.nn.functional.gelu",
            "os.system",
            "evil.Tanh",
            "torch.nnx.Tanh",
            "Tanh",
            "torch.nn.modules.activation.tanh",
            "",
            None,
            ["torch.nn.Tanh"],
        )
    ),
    *(
        Case(
            f"{path} {key}",
            lambda f, p=path, k=key: write_json(
                f / p, {**(json.loads((f / p).read_text()) if (f / p).exists() else {}), k: "token_embeddings"}
            ),
            (path, key, "token_embeddings"),
        )
        for path in (DENSE, "3_Normalize/config.json")
        for key in ("module_input_name", "module_output_name")
    ),
    Case(
        "Normalize config broken",
        lambda f: ((f / "3_Normalize").mkdir(), file_bytes("3_Normalize/config.json", b"{")(f)),
        ("3_Normalize/config.json", "expected JSON"),
    ),
    Case("Normalize a file", file_bytes("3_Normalize", b""), ("3_Normalize/config.json", "cannot be read")),
    # --- shards
    Case("a shard missing", gone(SHARD), (INDEX, SHARD, "fetch the missing part"), "sharded"),
    Case("a shard cut", change_bytes(SHARD, lambda b: b[:-1]), (SHARD, "cut off"), "sharded"),
    Case("a shard a broken link", link_to_nothing(SHARD), (INDEX, SHARD), "sharded"),
    Case("index without a map", edit(INDEX, weight_map=REMOVE), (INDEX, "weight_map"), "sharded"),
    Case("index with a list for a map", edit(INDEX, weight_map=[]), (INDEX, "weight_map"), "sharded"),
    Case("index with numbers for files", weight_map(lambda m: m.update({WORD: 1})), (INDEX, "weight_map"), "sharded"),
    Case("index empty", edit(INDEX, weight_map={}), (CONFIG, "safetensors"), "sharded"),
    Case("index no JSON", file_bytes(INDEX, b"?"), (INDEX, "expected JSON"), "sharded"),
    Case("index names what is nowhere", weight_map(lambda m: m.update(ghost=SHARD)), (INDEX, "ghost"), "sharded"),
    Case("index names the wrong shard", weight_map(lambda m: m.update({WORD: SHARD})), (INDEX, WORD), "sharded"),
    Case("index forgets a tensor", weight_map(lambda m: m.pop(WORD) and None), (f"1 missing: {WORD}",), "sharded"),
    *(
        Case(
            f"index names {file!r}",
            weight_map(lambda m, file=file: m.update({WORD: file})),
            (INDEX, repr(file)),
            "sharded",
        )
        for file in ("../outside/x", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "x\0y")
    ),
    Case(
        "index names what no disk can hold",
        weight_map(lambda m: m.update({WORD: "x" * 300})),
        ("x" * 300, "cannot be read", "too long"),
        "sharded",
    ),
    # --- tokenizer
    Case("no tokenizer", gone("tokenizer.json"), ("neither tokenizer.json nor vocab.txt",)),
    Case("tokenizer empty", file_bytes("tokenizer.json", b""), ("tokenizer.json", "not a tokenizer")),
    Case(
        "tokenizer cut",
        change_bytes("tokenizer.json", lambda b: b[: len(b) // 2]),
        ("tokenizer.json", "not a tokenizer"),
    ),
    Case(
        "tokenizer something else",
        raw_json("tokenizer.json", '{"model_type": "bert"}'),
        ("tokenizer.json", "not a tokenizer"),
    ),
    Case("tokenizer a list", raw_json("tokenizer.json", "[]"), ("tokenizer.json", "not a tokenizer")),
    Case("tokenizer no UTF-8", file_bytes("tokenizer.json", b"\xff\xfe{}"), ("tokenizer.json", "not a tokenizer")),
    Case("tokenizer a folder", folder_instead("tokenizer.json"), ("tokenizer.json", "not a tokenizer")),
    Case("tokenizer a broken link", link_to_nothing("tokenizer.json"), ("tokenizer.json", "not a tokenizer")),
    Case(
        "ids beyond the vocabulary",
        vocabulary(soup=TINY.vocab_size),
        ("tokenizer.json", "'soup'", str(TINY.vocab_size), CONFIG),
    ),
    Case("ids far beyond", vocabulary(soup=2**31), ("tokenizer.json", "'soup'", str(2**31), CONFIG)),
    Case("ids negative", vocabulary(soup=-1), ("tokenizer.json", "not a tokenizer")),
    Case("ids in words", vocabulary(soup="7"), ("tokenizer.json", "not a tokenizer")),
    Case(
        "two pieces with one id", vocabulary(soup=VOCABULARY["cat"]), ("tokenizer.json", "'soup'", "'cat'", "same id")
    ),
    Case(
        "an added token beyond",
        lambda f: (t := tiny_tokenizer(), t.add_tokens(["zebra"]), t.save(str(f / "tokenizer.json"))),
        ("tokenizer.json", "'zebra'", CONFIG),
    ),
    Case("no piece for unknown words", lambda f: lose_the_unknown(f), ("tokenizer.json", "lacks '[UNK]'")),
    Case(
        "an empty vocabulary",
        edit_tokenizer(lambda c: (c["model"].update(vocab={}), c.update(added_tokens=[], post_processor=None))),
        ("tokenizer.json", "lacks"),
    ),
    Case(
        "no special tokens",
        edit_tokenizer(lambda c: c.update(post_processor=None)),
        ("tokenizer.json", "special tokens"),
    ),
    Case(
        "nothing behind a text",
        edit_tokenizer(lambda c: c["post_processor"]["single"].pop() and None),
        ("tokenizer.json", "special tokens"),
    ),
    Case(
        "[CLS] beyond the vocabulary",
        template_id("[CLS]", 99_999),
        ("tokenizer.json", "'[CLS]'", "99999", str(VOCABULARY["[CLS]"])),
    ),
    Case("[SEP] with another's id", template_id("[SEP]", 7), ("tokenizer.json", "'[SEP]'", "7")),
    Case(
        "a template with a token that it does not define",
        edit_tokenizer(lambda c: c["post_processor"]["special_tokens"].pop("[CLS]") and None),
        ("tokenizer.json", "fails on the text 'a'"),
    ),
    Case(
        "a template with an id without a name",
        edit_tokenizer(lambda c: c["post_processor"]["special_tokens"]["[SEP]"].update(tokens=[])),
        ("tokenizer.json", "special tokens"),
    ),
    Case(
        "no text in the template",
        edit_tokenizer(lambda c: c["post_processor"]["single"].pop(1) and None),
        ("tokenizer.json",),
    ),
    Case(
        "every text is nothing",
        lambda f: save_tokenizer(f, tokenizers.normalizers.Replace(tokenizers.Regex(".*"), "")),
        ("tokenizer.json", "special tokens"),
    ),
    Case("vocab.txt empty", file_bytes("vocab.txt", b""), ("vocab.txt",), "old"),
    Case(
        "vocab.txt without [CLS]",
        change_bytes("vocab.txt", lambda b: b.replace(b"[CLS]", b"[CLR]")),
        ("vocab.txt", "not a tokenizer"),
        "old",
    ),
    Case(
        "vocab.txt without [UNK]",
        change_bytes("vocab.txt", lambda b: b.replace(b"[UNK]", b"unk")),
        ("vocab.txt", "[UNK]"),
        "old",
    ),
    Case(
        "vocab.txt too long",
        change_bytes("vocab.txt", lambda b: b + b"zebra\n"),
        ("vocab.txt", "'zebra'", CONFIG),
        "old",
    ),
    Case("vocab.txt no UTF-8", file_bytes("vocab.txt", b"\xff\xfe\n" * 9), ("vocab.txt", "not a tokenizer"), "old"),
    Case("vocab.txt a folder", folder_instead("vocab.txt"), ("vocab.txt", "not a tokenizer"), "old"),
    Case("vocab.txt a broken link", link_to_nothing("vocab.txt"), ("vocab.txt", "not a tokenizer"), "old"),
    Case(
        "vocab.txt of another tokenizer",
        edit(TOKENIZER, tokenizer_class="RobertaTokenizer"),
        (TOKENIZER, "'RobertaTokenizer'", "vocab.txt"),
        "old",
    ),
    Case(
        "a tokenizer that needs another program",
        edit(TOKENIZER, tokenizer_class="BertJapaneseTokenizer"),
        (TOKENIZER, "BertJapaneseTokenizer"),
    ),
    # --- tokenizer_config.json, sentence_bert_config.json, config_sentence_transformers.json
    *(
        Case(f"{path} {name}", damage(path), (path, said))
        for path in (TOKENIZER, SBERT, SETTINGS)
        for name, damage, said in (
            ("no JSON", lambda p: file_bytes(p, b"{"), "expected JSON"),
            ("empty", lambda p: file_bytes(p, b""), "expected JSON"),
            ("a list", lambda p: raw_json(p, "[1]"), "expected a JSON dict"),
            ("a broken link", link_to_nothing, "missing behind its link"),
            ("a link in a circle", link_in_a_circle, "cannot be read"),
            ("a folder", folder_instead, "cannot be read"),
        )
    ),
    Case("cut on the left", edit(TOKENIZER, truncation_side="left"), (TOKENIZER, "truncation_side 'left'")),
    *(
        Case(f"{key} {value!r}", edit(TOKENIZER, **{key: value}), (TOKENIZER, key, "true or false"))
        for key, value in (
            ("do_lower_case", "false"),
            ("do_lower_case", None),
            ("tokenize_chinese_chars", 1),
            ("strip_accents", "no"),
        )
    ),
    *(
        Case(
            f"model_max_length {value!r}",
            lambda f, v=value: (edit(TOKENIZER, model_max_length=v)(f), edit(SBERT, max_seq_length=REMOVE)(f)),
            (TOKENIZER, "model_max_length", f"got {value!r}"),
        )
        for value in (-1, 0, "512", True, [512], 12.5)
    ),
    *(
        Case(
            f"max_seq_length {value!r}",
            edit(SBERT, max_seq_length=value),
            (SBERT, "max_seq_length", f"got {value!r}"),
        )
        for value in (0, -5, "256", "", True, False, [256], [], {}, 12.5)
    ),
    Case("max_seq_length NaN", raw_value(SBERT, "max_seq_length", "NaN"), (SBERT, "max_seq_length", "got nan")),
    Case(
        "max_seq_length infinite", raw_value(SBERT, "max_seq_length", "Infinity"), (SBERT, "max_seq_length", "got inf")
    ),
    *(
        Case(
            f"max_seq_length {limit}",
            edit(SBERT, max_seq_length=limit),
            ("max_seq_length", f"{limit} tokens", "no room"),
        )
        for limit in (1, 2)
    ),
    *(
        Case(f"{key} {value!r}"[:50], edit(SBERT, **{key: value}), (SBERT, key, "not supported"))
        for key, value in (
            ("transformer_task", "fill-mask"),
            ("module_output_name", "sentence_embedding"),
            ("modality_config", {"text": {"method": "forward", "method_output_name": "pooler_output"}}),
            ("modality_config", {"image": {"method": "forward", "method_output_name": "last_hidden_state"}}),
            ("processing_kwargs", {"text": {"padding_side": "left"}}),
            ("query_length", 32),
        )
    ),
    *(
        Case(
            f"sentence do_lower_case {value!r}",
            edit(SBERT, do_lower_case=value),
            (SBERT, "do_lower_case", "true or false"),
        )
        for value in ("false", 1, None)
    ),
    Case("a prompt of half a character", raw_value(SETTINGS, "prompts", '{"query": "\\ud800"}'), (SETTINGS, "prompts")),
    *(
        Case(f"prompts {value!r}", edit(SETTINGS, prompts=value), (SETTINGS, "prompts"))
        for value in ([], "query: ", {"query": 5}, {"query": ["a"]}, 1, False)
    ),
    *(
        Case(
            f"default_prompt_name {value!r}",
            edit(SETTINGS, default_prompt_name=value, prompts={"query": "x"}),
            (SETTINGS, "default_prompt_name", repr(value)),
        )
        for value in ("other", "", 1, ["query"], {}, False)
    ),
    *(
        Case(
            f"similarity {value!r}",
            edit(SETTINGS, similarity_fn_name=value),
            (SETTINGS, "similarity_fn_name", repr(value)),
        )
        for value in ("Cosine", "jaccard", "", 0, ["cosine"])
    ),
]


def lose_the_unknown(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "[UNK]"]
    del content["model"]["vocab"]["[UNK]"]
    write_json(folder / "tokenizer.json", content)


def save_tokenizer(folder: Path, normalizer: tokenizers.normalizers.Normalizer) -> None:
    library = tiny_tokenizer()
    library.normalizer = normalizer
    library.save(str(folder / "tokenizer.json"))


# --- the table ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, Path]:
    """The folders to damage."""
    root = tmp_path_factory.mktemp("good")
    with_dense = (Pooling(), tiny_dense(12, 7), Normalize())
    return {
        "usual": write_model(root / "usual", modules=with_dense),
        "sharded": write_model(root / "sharded", modules=with_dense, shards=3),
        "old": write_model(root / "old", modules=with_dense, vocab_txt=True),
    }


def refusal(folder: Path) -> str:
    """The message with which a folder is refused, on loading, without any warning besides."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ModelFolderError) as caught:
            SentenceEncoder(folder)
    return str(caught.value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_damaged_is_refused(tmp_path, good, case):
    folder = tmp_path / "model"
    shutil.copytree(good[case.base], folder)
    case.damage(folder)
    message = refusal(folder)
    assert str(tmp_path) in message, "the message does not say where"
    for words in case.said:
        assert words in message


def test_the_table_is_long_and_every_row_is_of_its_own():
    names = [case.name for case in CASES]
    assert len(names) > 250
    assert all(case.said for case in CASES)


@pytest.mark.parametrize("base", ["usual", "sharded", "old"])
def test_what_is_not_damaged_is_not_refused(good, base):
    assert np.isfinite(SentenceEncoder(good[base]).encode(TEXTS)).all()


@pytest.mark.parametrize("name", tensor_shapes(TINY))
def test_each_tensor_is_missed_by_name(tmp_path, good, name):
    shutil.copytree(good["usual"], tmp_path / "model")
    edit_tensors(lambda tensors: tensors.pop(name) is None)(tmp_path / "model")
    assert f"1 missing: {name}" in refusal(tmp_path / "model")


@pytest.mark.parametrize("name", tensor_shapes(TINY))
def test_nan_in_each_tensor_is_found(tmp_path, good, name):
    shutil.copytree(good["usual"], tmp_path / "model")
    edit_tensors(spoil(name, np.nan))(tmp_path / "model")
    assert f"tensor '{name}' holds 1 numbers" in refusal(tmp_path / "model")


def test_a_long_list_of_tensors_is_cut_short(tmp_path, good):
    shutil.copytree(good["usual"], tmp_path / "model")
    edit(CONFIG, num_hidden_layers=12)(tmp_path / "model")
    message = refusal(tmp_path / "model")
    assert "160 missing" in message and "encoder.layer.2.attention.self.query.weight" in message
    assert len(message) < 4000


# --- where the folder should be -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["nothing", "a file", "a broken link", "an empty folder"])
def test_no_folder_where_the_folder_should_be(tmp_path, what):
    path = tmp_path / "model"
    if what == "a file":
        path.write_bytes(b"")
    elif what == "a broken link":
        path.symlink_to(tmp_path / "gone")
    elif what == "an empty folder":
        path.mkdir()
    with pytest.raises(ValueError, match=str(path)):
        SentenceEncoder(path)


AS_NOBODY = """
import os, sys
import minisbert
minisbert.SentenceEncoder(sys.argv[2]).encode("a")  # so that nothing is left to import
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    minisbert.SentenceEncoder(sys.argv[1])
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "path", ["", MODEL, CONFIG, "modules.json", "tokenizer.json", SBERT, TOKENIZER, SETTINGS, "1_Pooling", DENSE]
)
def test_what_may_not_be_read_is_refused_and_not_taken_for_absent(good, path):
    """Root may read everything, so as root a process of its own gives its rights away first."""
    # not in tmp_path: pytest's own folders are for their owner alone
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        folder, readable = Path(parent) / "model", Path(parent) / "readable"
        shutil.copytree(good["usual"], folder)
        shutil.copytree(good["usual"], readable)
        (folder / path).chmod(0)
        try:
            message = message_as_nobody(folder, readable) if os.geteuid() == 0 else refusal(folder)
        finally:
            (folder / path).chmod(0o755)
    assert (folder / path).as_posix() in message
    assert "denied" in message


def message_as_nobody(folder: Path, good: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", AS_NOBODY, str(folder), str(good)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- each file in turn ----------------------------------------------------------------------------------------

FILES = [
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
# What a folder may do without, and what then happens
WITHOUT = {
    "config_sentence_transformers.json": "no prompts, cosine",
    "modules.json": "a plain BERT, with a warning",
    "sentence_bert_config.json": "the next limit counts",
    "tokenizer_config.json": "BERT's settings",
}


@pytest.fixture(scope="module")
def saved(good, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    SentenceEncoder(good["usual"]).save(folder)
    return folder


def test_these_are_the_files_of_a_saved_model(saved):
    assert sorted(x.relative_to(saved).as_posix() for x in saved.rglob("*") if x.is_file()) == FILES


@pytest.mark.parametrize("file", FILES)
def test_each_file_removed(tmp_path, saved, file):
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model" / file).unlink()
    if file not in WITHOUT:
        assert Path(file).name in refusal(tmp_path / "model")
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vectors = SentenceEncoder(tmp_path / "model").encode(TEXTS)
    assert len(caught) == ("warning" in WITHOUT[file])
    assert np.isfinite(vectors).all()
    if file != "modules.json":
        np.testing.assert_array_equal(vectors, SentenceEncoder(saved).encode(TEXTS))


@pytest.mark.parametrize("part", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("file", FILES)
def test_each_file_cut(tmp_path, saved, file, part):
    shutil.copytree(saved, tmp_path / "model")
    content = (saved / file).read_bytes()
    (tmp_path / "model" / file).write_bytes(content[: int(part * len(content))])
    assert file in refusal(tmp_path / "model")


@pytest.mark.parametrize("file", FILES)
def test_each_file_a_pointer_of_git_lfs(tmp_path, saved, file):
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model" / file).write_bytes(POINTER)
    message = refusal(tmp_path / "model")
    assert file in message and "git lfs pull" in message and "fetch it again" not in message


def test_the_cache_of_the_hub_in_place_of_a_snapshot(tmp_path, saved):
    cache = tmp_path / "models--owner--name"
    for age, revision in enumerate(["new", "old"]):
        shutil.copytree(saved, cache / "snapshots" / revision)
        os.utime(cache / "snapshots" / revision, (1e9 - age, 1e9 - age))
    for folder in (cache, cache / "snapshots"):
        assert (cache / "snapshots" / "new").as_posix() in refusal(folder)


@pytest.mark.parametrize(
    "damage", [link_to_nothing, link_in_a_circle, folder_instead], ids=lambda damage: damage.__name__
)
@pytest.mark.parametrize("file", FILES)
def test_each_file_made_something_that_cannot_be_read(tmp_path, saved, file, damage):
    shutil.copytree(saved, tmp_path / "model")
    damage(file)(tmp_path / "model")
    assert file in refusal(tmp_path / "model")


# --- damage that nobody thought of ----------------------------------------------------------------------------


def json_part(content: bytes, file: str) -> range:
    """Where the JSON of a file lies: all of it, or a safetensors file's length and header."""
    if not file.endswith(".safetensors"):
        return range(len(content))
    return range(8 + struct.unpack("<Q", content[:8])[0])


def flips(saved: Path, seed: int, count: int):
    """Single bytes changed: half to any byte, half to one that JSON is made of."""
    rng = random.Random(seed)
    for _ in range(count):
        file = rng.choice(FILES)
        content = bytearray((saved / file).read_bytes())
        at = rng.choice(json_part(bytes(content), file))
        new = rng.choice([rng.randrange(256), ord(rng.choice('0123456789-.eE{}[],:"\\ntfaxZ_ '))])
        content[at] = new
        yield file, at, new, bytes(content)


def test_single_bytes_changed_in_headers_and_settings(tmp_path, saved):
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    refused = survived = 0
    for file, at, new, content in flips(saved, seed=20240229, count=300):
        (folder / file).write_bytes(content)
        try:
            vectors = SentenceEncoder(folder).encode(TEXTS, overflow="truncate")
            assert np.isfinite(vectors).all(), f"{file}: byte {at} made {new} gives {vectors}"
            survived += 1
        except ValueError:
            refused += 1
        except BaseException as error:
            raise AssertionError(f"{file}: byte {at} made {new}: {type(error).__name__}: {error}") from error
        (folder / file).write_bytes((saved / file).read_bytes())
    assert refused > 100 and survived > 20  # else the damage is not what it is meant to be
