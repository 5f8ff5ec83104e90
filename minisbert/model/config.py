"""What the checkpoint says it is: ``config.json`` -> :class:`BertConfig`.

Nine numbers and two names describe a BERT completely. Whatever this package does not compute exactly (another
architecture, another activation, relative positions, a decoder) is refused here, by name, before any weight is
read. What follows BERT in a sentence model stands in ``modules.py``; the weights come next, in ``params.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# hidden_act as checkpoints write it -> the function of ops.py that it means
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


@dataclass(frozen=True)
class BertConfig:
    """The sizes and choices that fix a BERT; field names are Hugging Face's, letters are the project's.

    Parameters
    ----------
    vocab_size : int
        ``V``, rows of the word embedding table.
    hidden_size : int
        ``D``, width of a token vector.
    num_hidden_layers : int
        ``L``.
    num_attention_heads : int
        ``H``; divides ``D``.
    intermediate_size : int
        ``F``, width inside the feed-forward block.
    max_position_embeddings : int
        ``P``, the longest text in tokens, special tokens included.
    type_vocab_size : int
        Rows of the token type table; a single text uses row 0 alone.
    hidden_act : str
        As the checkpoint writes it, a key of :data:`HIDDEN_ACTS`.
    layer_norm_eps : float
        Added to the variance inside LayerNorm.

    Notes
    -----
    The defaults are those of ``transformers.BertConfig`` (BERT-base, Devlin et al. 2019, section 3): files
    written by recent libraries leave out whatever equals them.

    Examples
    --------
    >>> BertConfig(hidden_size=384, num_attention_heads=12).head_size
    32
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12

    @property
    def activation(self) -> str:
        """The name that ``ops.ACTIVATIONS`` knows ``hidden_act`` by."""
        return HIDDEN_ACTS[self.hidden_act]

    @property
    def head_size(self) -> int:
        """``K`` = D / H, the width of one attention head."""
        return self.hidden_size // self.num_attention_heads


# Keys of config.json that change what is computed, and the only value with which this package computes it.
_ONLY_VALUE: dict[str, Any] = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
    "quantization_config": None,
}
_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)


def read_json(path: Path, *, expect: type = dict, optional: bool = False) -> Any:
    """Read one JSON file of a model folder.

    Parameters
    ----------
    path : Path
        The file.
    expect : type
        What the outermost value must be, ``dict`` or ``list``.
    optional : bool
        The file may be absent. A link to a file that is gone is not absent: it says that something is missing.

    Returns
    -------
    Any
        The parsed value; None for an absent optional file.

    Raises
    ------
    ModelFolderError
        If the file is missing, is not UTF-8 JSON, or holds another kind of value.

    Examples
    --------
    >>> read_json(Path("no/such/config.json"))
    Traceback (most recent call last):
        ...
    minisbert.model.config.ModelFolderError: no/such/config.json: the file is missing; ...
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if optional and not path.is_symlink():
            return None
        raise ModelFolderError(
            f"{path.as_posix()}: the file is missing{' behind its link' if path.is_symlink() else ''}; is this the "
            "folder of a BERT model, and was it copied whole?"
        ) from None
    except OSError as error:
        raise ModelFolderError(f"{path.as_posix()}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number of 5,000 digits, 10,000 brackets
        raise ModelFolderError(f"{path.as_posix()}: expected JSON in UTF-8, but {error}; {what_to_do(path)}") from error
    if not isinstance(value, expect):
        raise ModelFolderError(f"{path.as_posix()}: expected a JSON {expect.__name__}, got a {type(value).__name__}")
    return value


def what_to_do(file: Path) -> str:
    """Say what is wrong with a file whose content makes no sense: it is damaged, or a pointer that Git LFS left."""
    pointer = b"version https://git-lfs.github.com/spec/"
    beginning = b""
    if file.is_file():
        with file.open("rb") as stream:
            beginning = stream.read(len(pointer))
    if beginning == pointer:
        return f"this is Git LFS's pointer to the file, not the file: run `git lfs pull` in {file.parent.as_posix()}"
    return "the file is damaged or cut off, fetch it again"


def refuse_others(raw: dict[str, Any], only: dict[str, Any], path: Path) -> None:
    """Refuse settings with which something else would be computed than this package computes.

    Parameters
    ----------
    raw : dict
        What a file says.
    only : dict
        Keys, and the one value of each that is computed here; absent and ``null`` mean that value, too.
    path : Path
        The file, for the message.

    Raises
    ------
    ModelFolderError
        For the first key that has another value.

    Examples
    --------
    >>> refuse_others({"is_decoder": True}, {"is_decoder": False}, Path("config.json"))
    Traceback (most recent call last):
        ...
    minisbert.model.config.ModelFolderError: config.json: is_decoder True is not computed here, only False
    """
    for key, value in only.items():
        if raw.get(key) not in (None, value):
            raise ModelFolderError(f"{path.as_posix()}: {key} {raw[key]!r} is not computed here, only {value!r}")


def read_flag(raw: dict[str, Any], key: str, default: bool, path: Path) -> bool:
    """Read a setting that is true or false; ``"false"`` in quotes is neither.

    Parameters
    ----------
    raw : dict
        What a file says.
    key : str
    default : bool
        For an absent key.
    path : Path
        The file, for the message.

    Returns
    -------
    bool

    Raises
    ------
    ModelFolderError
        For anything but true and false.

    Examples
    --------
    >>> read_flag({"bias": False}, "bias", True, Path("config.json"))
    False
    """
    flag = raw.get(key, default)
    if not isinstance(flag, bool):
        raise ModelFolderError(f"{path.as_posix()}: {key} must be true or false, got {flag!r}")
    return flag


def read_bert_config(path: Path) -> BertConfig:
    """Read ``config.json`` and refuse by name what this package does not compute exactly.

    Parameters
    ----------
    path : Path
        The ``config.json``.

    Returns
    -------
    BertConfig
        Sizes and choices; a key that the file leaves out has BERT's default.

    Raises
    ------
    ModelFolderError
        For another ``model_type`` than ``bert``, an activation or position type that is not computed, a size
        that is no positive integer, or a hidden size that the heads do not divide.

    Notes
    -----
    **Source**: ``transformers.BertConfig``.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "config.json"
    >>> _ = file.write_text('{"model_type": "roberta"}')
    >>> read_bert_config(file)
    Traceback (most recent call last):
        ...
    minisbert.model.config.ModelFolderError: ...config.json: model_type 'roberta' is not computed here, only 'bert'...
    """
    raw = read_json(path)
    where = path.as_posix()
    if (model_type := raw.get("model_type", "bert")) != "bert":
        raise ModelFolderError(
            f"{where}: model_type {model_type!r} is not computed here, only 'bert' (RoBERTa and MPNet count positions "
            "otherwise, others differ more); choose a BERT model such as all-MiniLM-L6-v2"
        )
    refuse_others(raw, _ONLY_VALUE, path)
    known = {key: raw[key] for key in BertConfig.__dataclass_fields__ if key in raw}
    config = BertConfig(**known)
    _check_values(config, where)
    return config


def _check_values(config: BertConfig, where: str) -> None:
    """Refuse sizes that are no sizes, an unknown activation and a width that the heads do not divide."""
    for key in _SIZES:
        size = getattr(config, key)
        # bool is an int in Python; `true` is no size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ModelFolderError(f"{where}: {key} must be a positive integer, got {size!r}")
    eps = config.layer_norm_eps
    # smaller, and float32 has lost it: a vector of equal numbers would become NaN
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 1e-30 <= eps <= 1:
        raise ModelFolderError(f"{where}: layer_norm_eps must be a small positive number (BERT: 1e-12), got {eps!r}")
    if not isinstance(config.hidden_act, str) or config.hidden_act not in HIDDEN_ACTS:
        raise ModelFolderError(
            f"{where}: hidden_act {config.hidden_act!r} is not computed here; known: {', '.join(HIDDEN_ACTS)}"
        )
    if config.hidden_size % config.num_attention_heads:
        raise ModelFolderError(
            f"{where}: hidden_size {config.hidden_size} is not divisible by num_attention_heads "
            f"{config.num_attention_heads}"
        )


def bert_config_to_json(config: BertConfig) -> dict[str, Any]:
    """Give the ``config.json`` that describes this BERT to transformers.

    Parameters
    ----------
    config : BertConfig
        What to describe.

    Returns
    -------
    dict
        Ready for ``json.dump``; every key is written out, defaults too.

    Examples
    --------
    >>> bert_config_to_json(BertConfig())["architectures"]
    ['BertModel']
    """
    sizes = {key: getattr(config, key) for key in BertConfig.__dataclass_fields__}
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "position_embedding_type": "absolute",
        # what transformers uses for training, BERT's defaults; nothing here depends on them
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": 0,
        **sizes,
    }
