"""Tiny random model folders on disk, in every dialect that model folders come in.

`write_model(folder, **choices)` writes one and returns its path; without choices it is what sentence-transformers
before 5.4 would have written for a BERT of two layers. Files are written by hand here, not by the package's own
`save`, so that a reading that is wrong cannot agree with a writing that is wrong in the same way. The weights come
from a seed and are large enough that texts differ; `tiny_params(config, seed)` gives the same ones in memory.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from minisbert.model.config import BertConfig
from minisbert.model.params import BertParams, RowGradient, flatten, random_params, tensor_shapes
from minisbert.model.pooling import Dense, Module, Normalize, Pooling

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "cat", "sat", "on", "mat", "dog", "ran", "soup", "love", "i", "un", "##able"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PIECES = [*SPECIAL, *WORDS, *".,!?'-", *(x for x in LETTERS if x != "i"), *(f"##{x}" for x in LETTERS)]
VOCABULARY = {piece: i for i, piece in enumerate(PIECES)}

COMPANY = 5e-6
"""How far a number of a tiny model's vector may move with what it is computed with (README): a matrix product adds in
another order at another place, and each of BLAS's kernels in its own. Measured 1.3e-6 at most, with OpenBLAS's Prescott
kernel; the margin is 4. Equal bits are asked for only where the code promises them."""

# all sizes differ, so that a mixed-up axis cannot pass: V 94, D 12, L 2, H 3, K 4, F 20, P 16
TINY = BertConfig(
    vocab_size=len(PIECES),
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=16,
)
TEXTS = [
    "the cat sat on the mat",
    "i love soup",
    "",
    "dog",
    "The DOG ran, unable!",
    "snow \u2603 and \u00e9t\u00e9",
    "a b c d e f g h i",
    "soup",
]
REMOVE = object()
"""As a value in `edit_json` and the `config_json` choice: leave this key out."""

# sentence-transformers' old booleans, with the names of the new format
POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
TORCH_ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "gelu": "torch.nn.modules.activation.GELU",
    "relu": "torch.nn.modules.activation.ReLU",
    "silu": "torch.nn.modules.activation.SiLU",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
}
NEW_TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}
NEW_SENTENCE_BERT_CONFIG = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
AS_THE_FORMAT = {"as": "the format has it"}  # the default of a choice that depends on `new_format`


def tiny_tokenizer(
    lowercase: bool = True,
    truncation: int | None = None,
    padding: int | None = None,
    vocabulary: Mapping[str, int] = VOCABULARY,
) -> tokenizers.Tokenizer:
    """A WordPiece tokenizer as BERT's, with the library's own truncation and padding if asked for."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(dict(vocabulary), unk_token="[UNK]"))
    tokenizer.add_special_tokens([piece for piece in SPECIAL if piece in vocabulary])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    if truncation is not None:
        tokenizer.enable_truncation(truncation)
    if padding is not None:
        tokenizer.enable_padding(length=padding)
    return tokenizer


def tiny_params(config: BertConfig = TINY, seed: int = 0) -> BertParams:
    """The weights that `write_model` writes for the same config and seed: float32 numbers, spread 0.3."""
    return random_params(config, np.random.default_rng(seed), np.float32, scale=0.3)


def tiny_dense(
    d_in: int,
    d_out: int,
    activation: str = "tanh",
    bias: bool = True,
    seed: int = 1,
) -> Dense:
    """A Dense module with random weights."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.5, shape).astype(np.float32)

    return Dense(draw(d_out, d_in), draw(d_out) if bias else None, activation)


def stored_bytes(values: np.ndarray, dtype: str) -> bytes:
    """Numbers as a safetensors file holds them: F64, F32, F16, BF16 (cut, not rounded) or an integer type."""
    if dtype == "BF16":
        return (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    numpy_dtype = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "i1", "F8_E4M3": "i1"}
    return np.ascontiguousarray(values).astype(numpy_dtype[dtype]).tobytes()


def write_safetensors(
    file: Path, tensors: Mapping[str, np.ndarray], dtype: str | Mapping[str, str] = "F32", metadata: bool = True
) -> Path:
    """Write a safetensors file by hand; `dtype` is one for all tensors, or one by name (others: by their array)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if metadata else {}
    data = b""
    for name, values in tensors.items():
        own = "I64" if values.dtype.kind == "i" else "F32"
        kind = dtype.get(name, own) if isinstance(dtype, Mapping) else (own if own == "I64" else dtype)
        chunk = stored_bytes(values, kind)
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(chunk)]}
        data += chunk
    return write_raw_safetensors(file, header, data)


def write_raw_safetensors(file: Path, header: Any, data: bytes) -> Path:
    """Write whatever header and bytes, true or lying."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return file


def read_raw_safetensors(file: Path) -> tuple[dict[str, Any], bytes]:
    """Header and bytes of a safetensors file, for tests that change one of them."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_json(file: Path, value: Any) -> Path:
    """Write one JSON file, making its folder if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2), encoding="utf-8")
    return file


def edit_json(file: Path, **changes: Any) -> None:
    """Change keys of a JSON object on disk; the value REMOVE takes a key out."""
    content = {**json.loads(file.read_text(encoding="utf-8")), **changes}
    write_json(file, {key: value for key, value in content.items() if value is not REMOVE})


def named_tensors(config: BertConfig, params: BertParams) -> dict[str, np.ndarray]:
    """A BERT's tensors by transformers' names, without any prefix."""
    return dict(zip(tensor_shapes(config), flatten(params), strict=True))


def write_model(
    folder: Path | str,
    *,
    config: BertConfig = TINY,
    params: BertParams | None = None,
    seed: int = 0,
    modules: tuple[Module, ...] | None = (Pooling(), Normalize()),
    new_format: bool = False,
    prefix: str = "",
    rename: Callable[[str], str] = str,
    dtype: str = "F32",
    shards: int = 1,
    extra_tensors: Mapping[str, np.ndarray] | None = None,
    config_json: Mapping[str, Any] | None = None,
    sentence_bert_config: Mapping[str, Any] | None = AS_THE_FORMAT,
    tokenizer_config: Mapping[str, Any] | None = AS_THE_FORMAT,
    sentence_settings: Mapping[str, Any] | None = AS_THE_FORMAT,
    tokenizer: tokenizers.Tokenizer | None = None,
    vocab_txt: bool = False,
    transformer_path: str = "",
) -> Path:
    """Write a tiny random model folder and return its path.

    ``config`` is mostly ``dataclasses.replace(TINY, ...)``; ``params``, the weights, come from ``seed`` if not
    given. ``modules`` is what follows BERT (None: no modules.json, a plain BERT). ``new_format`` is that of
    sentence-transformers 5.4 and later: other module types, a single ``pooling_mode``, no limit in
    sentence_bert_config.json, no defaults in config.json. ``prefix`` and ``rename`` change the names of BERT's
    tensors; ``dtype`` (F64, F32, F16 rounds, BF16 cuts) is of all weights; more than one of ``shards`` brings an
    index. ``config_json`` changes keys of config.json (REMOVE takes one out); of the next three, None means no such
    file. ``transformer_path`` is where BERT lies in the folder.
    """
    folder = Path(folder)
    bert = folder / transformer_path
    bert.mkdir(parents=True, exist_ok=True)
    _write_config(bert / "config.json", config, new_format, config_json or {})
    params = tiny_params(config, seed) if params is None else params
    tensors = {rename(prefix + name): values for name, values in named_tensors(config, params).items()}
    _write_weights(bert, {**tensors, **(extra_tensors or {})}, dtype, shards)
    _write_tokenizer(bert, tokenizer or tiny_tokenizer(), vocab_txt)
    old = {"max_seq_length": config.max_position_embeddings, "do_lower_case": False}
    for file, content, default in (
        (bert / "sentence_bert_config.json", sentence_bert_config, NEW_SENTENCE_BERT_CONFIG if new_format else old),
        (bert / "tokenizer_config.json", tokenizer_config, {"tokenizer_class": "BertTokenizer", "do_lower_case": True}),
        (folder / "config_sentence_transformers.json", sentence_settings, {"__version__": {"transformers": "4.6.1"}}),
    ):
        if content is not None:
            write_json(file, default if content is AS_THE_FORMAT else dict(content))
    if modules is not None:
        _write_modules(folder, modules, config.hidden_size, transformer_path, new_format, dtype)
    return folder


def _write_config(file: Path, config: BertConfig, new_format: bool, changes: Mapping[str, Any]) -> None:
    content = {key: getattr(config, key) for key in BertConfig.__dataclass_fields__}
    if new_format:
        content = {key: value for key, value in content.items() if value != getattr(BertConfig(), key)}
    else:
        content |= {"architectures": ["BertModel"], "position_embedding_type": "absolute", "pad_token_id": 0}
    write_json(file, {"model_type": "bert", **content})
    edit_json(file, **changes)


def _write_weights(folder: Path, tensors: dict[str, np.ndarray], dtype: str, shards: int) -> None:
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, dtype)
        return
    names, weight_map = list(tensors), {}
    size = math.ceil(len(names) / shards)
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i * size : (i + 1) * size]
        write_safetensors(folder / file, {name: tensors[name] for name in part}, dtype)
        weight_map |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _write_tokenizer(folder: Path, tokenizer: tokenizers.Tokenizer, vocab_txt: bool) -> None:
    if not vocab_txt:
        tokenizer.save(str(folder / "tokenizer.json"))
        return
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in pieces), encoding="utf-8")


def _write_modules(
    folder: Path, modules: tuple[Module, ...], width: int, transformer_path: str, new_format: bool, dtype: str
) -> None:
    listed = [{"idx": 0, "name": "0", "path": transformer_path, "type": _type("Transformer", new_format)}]
    for i, module in enumerate(modules, 1):
        kind = type(module).__name__
        path = f"{i}_{kind}"
        listed.append({"idx": i, "name": str(i), "path": path, "type": _type(kind, new_format)})
        if isinstance(module, Pooling):
            write_json(folder / path / "config.json", _pooling_config(module, width, new_format))
            width *= len(module.modes)
        elif isinstance(module, Dense):
            write_json(folder / path / "config.json", _dense_config(module, new_format))
            tensors = {"linear.weight": module.weight, "linear.bias": module.bias}
            present = {name: values for name, values in tensors.items() if values is not None}
            write_safetensors(folder / path / "model.safetensors", present, dtype)
            width = len(module.weight)
        elif new_format:
            write_json(folder / path / "config.json", {"module_input_name": "sentence_embedding"})
    write_json(folder / "modules.json", listed)


def _type(kind: str, new_format: bool) -> str:
    return NEW_TYPES[kind] if new_format else f"sentence_transformers.models.{kind}"


def _pooling_config(module: Pooling, width: int, new_format: bool) -> dict[str, Any]:
    if new_format:
        mode = module.modes[0] if len(module.modes) == 1 else list(module.modes)
        return {"embedding_dimension": width, "pooling_mode": mode, "include_prompt": module.include_prompt}
    booleans = {key: mode in module.modes for key, mode in POOLING_KEYS.items()}
    return {"word_embedding_dimension": width, **booleans, "include_prompt": module.include_prompt}


def _dense_config(module: Dense, new_format: bool) -> dict[str, Any]:
    d_out, d_in = module.weight.shape
    content: dict[str, Any] = {
        "in_features": d_in,
        "out_features": d_out,
        "bias": module.bias is not None,
        "activation_function": TORCH_ACTIVATIONS[module.activation],
    }
    if new_format:
        content |= {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    return content


def leaves(tree: Any, name: str = "") -> dict[str, Any]:
    """Name every array of nested dataclasses by the path that leads to it, and every mask that is not there."""
    if tree is None or isinstance(tree, (np.ndarray, RowGradient)):
        return {name: tree}
    found = {}
    branches = enumerate(tree) if isinstance(tree, tuple) else ((f.name, getattr(tree, f.name)) for f in fields(tree))
    for key, branch in branches:
        found |= leaves(branch, f"{name}.{key}" if name else str(key))
    return found


def with_leaves(tree: Any, arrays: Iterator[np.ndarray]) -> Any:
    """The same nested dataclasses around other arrays, taken from an iterator in the order of `leaves`."""
    if isinstance(tree, np.ndarray):
        return next(arrays)
    if isinstance(tree, tuple):
        return tuple(with_leaves(branch, arrays) for branch in tree)
    return type(tree)(**{f.name: with_leaves(getattr(tree, f.name), arrays) for f in fields(tree)})
