"""What a checkpoint says it is: ``config.json`` -> :class:`BertConfig`.

Seven sizes, an activation function and an epsilon describe a BERT completely. What is not computed exactly here
(another architecture or activation function, relative positions, a decoder) is refused by name, before any weight is
read.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# hidden_act as checkpoints write it -> the function's name in ops.py
HIDDEN_ACTS = {
    "gelu": "gelu",  # by erf, exact
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


class ModelFolderError(ValueError):
    """A model folder that cannot be computed exactly: the message names the file, the cause and the way out."""


def refusal(file: Path, problem: str) -> ModelFolderError:
    return ModelFolderError(f"{file.as_posix()}: {problem}")


@dataclass(frozen=True)
class BertConfig:
    """The sizes and choices that define a BERT; names are Hugging Face's, letters are this package's.

    The defaults are those of BERT-base (Devlin et al. 2019, section 3); files written by recent libraries leave out
    what equals them. **Source**: ``transformers.BertConfig``.

    Parameters
    ----------
    vocab_size, hidden_size, num_hidden_layers, ...
        What each is stands behind its field.

    Examples
    --------
    >>> BertConfig(hidden_size=384, num_attention_heads=12).head_size
    32
    """

    vocab_size: int = 30522  # V, rows of the word embedding table
    hidden_size: int = 768  # D, width of a token vector
    num_hidden_layers: int = 12  # L
    num_attention_heads: int = 12  # H; divides D
    intermediate_size: int = 3072  # F, width inside the feed-forward network
    max_position_embeddings: int = 512  # P, the longest text in tokens, special tokens included
    type_vocab_size: int = 2  # S, rows of the token type table; a single text uses row 0 alone
    hidden_act: str = "gelu"  # as the checkpoint writes it, a key of HIDDEN_ACTS
    layer_norm_eps: float = 1e-12  # added to the variance inside LayerNorm

    @property
    def activation(self) -> str:
        """The name of ``hidden_act`` in ``ops.ACTIVATIONS``."""
        return HIDDEN_ACTS[self.hidden_act]

    @property
    def head_size(self) -> int:
        """``K`` = D / H, the width of one attention head."""
        return self.hidden_size // self.num_attention_heads


# Keys of config.json that change what is computed, and the only supported value of each.
_ONLY_VALUE: dict[str, Any] = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
    "quantization_config": None,
}
_SIZES = [key for key, default in vars(BertConfig()).items() if isinstance(default, int)]


def read_json(path: Path, *, expect: type = dict, optional: bool = False) -> Any:
    """Read one JSON file of a model folder; its outermost value is an ``expect``.

    An ``optional`` file may be absent (None). A link to a file that is gone is not absent: something is missing.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if optional and not path.is_symlink():
            return None
        lost = "the file is missing" + (" behind its link" if path.is_symlink() else "")
        raise refusal(path, f"{lost}; is this the folder of a BERT model, and was it copied whole?") from None
    except OSError as error:
        raise refusal(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number of 5,000 digits, 10,000 brackets
        raise refusal(path, f"expected JSON in UTF-8, but {error}; {what_to_do(path)}") from error
    if not isinstance(value, expect):
        raise refusal(path, f"expected a JSON {expect.__name__}, got a {type(value).__name__}")
    return value


def what_to_do(file: Path) -> str:
    """Say what is wrong with a file whose content makes no sense: it is damaged, or a pointer that Git LFS left."""
    pointer = b"version https://git-lfs.github.com/spec/"
    with suppress(OSError), file.open("rb") as stream:
        if stream.read(len(pointer)) == pointer:
            return f"this is Git LFS's pointer, not the file: run `git lfs pull` in {file.parent.as_posix()}"
    return "the file is damaged or cut off, fetch it again"


def refuse_others(raw: dict[str, Any], only: dict[str, Any], path: Path) -> None:
    """Raise for the first key in ``raw`` whose value is not the one in ``only``; absent and null mean that value."""
    for key, value in only.items():
        if raw.get(key) not in (None, value):
            raise refusal(path, f"{key} {raw[key]!r} is not supported, only {value!r}")


def read_flag(raw: dict[str, Any], key: str, default: bool, path: Path) -> bool:
    """Read a setting that must be true or false; ``"false"`` in quotes is neither."""
    flag = raw.get(key, default)
    if not isinstance(flag, bool):
        raise refusal(path, f"{key} must be true or false, got {flag!r}")
    return flag


def read_whole(raw: dict[str, Any], key: str, path: Path) -> int:
    """Read a setting that must be a positive integer."""
    number: Any = raw.get(key)
    if type(number) is not int or number < 1:  # not isinstance: True is an int, too
        raise refusal(path, f"{key} must be a positive integer, got {number!r}")
    return number


def read_bert_config(path: Path) -> BertConfig:
    """Read ``config.json``; a key that the file leaves out has BERT's default."""
    raw = read_json(path)
    if (model_type := raw.get("model_type", "bert")) != "bert":
        raise refusal(path, f"model_type {model_type!r} is not supported, only 'bert'; try all-MiniLM-L6-v2")
    refuse_others(raw, _ONLY_VALUE, path)
    config = BertConfig(**{key: raw[key] for key in BertConfig.__dataclass_fields__ if key in raw})
    for key in _SIZES:
        read_whole(vars(config), key, path)
    eps = config.layer_norm_eps
    # a smaller one is lost in float32, and a constant vector would become NaN
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 1e-30 <= eps <= 1:
        raise refusal(path, f"layer_norm_eps must be a small positive number (BERT: 1e-12), got {eps!r}")
    if not isinstance(config.hidden_act, str) or config.hidden_act not in HIDDEN_ACTS:
        raise refusal(path, f"hidden_act {config.hidden_act!r} is not supported; known: {', '.join(HIDDEN_ACTS)}")
    if config.hidden_size % config.num_attention_heads:
        heads = config.num_attention_heads
        raise refusal(path, f"hidden_size {config.hidden_size} is not divisible by num_attention_heads {heads}")
    return config


def bert_config_to_json(config: BertConfig) -> dict[str, Any]:
    """Describe this BERT to transformers: ``config.json`` with every key written out, defaults too."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "position_embedding_type": "absolute",
        # BERT's defaults, which transformers uses for training; nothing here depends on them
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": 0,
        **vars(config),
    }
