"""Random checkpoints, written by transformers and sentence-transformers themselves, read here, and the way back.

Every case is one folder. Ours is compared with PyTorch on every tensor of the trace, on the token embeddings and on
the sentence vectors: relative 1e-5 in float32 and 1e-10 in float64, F16 and BF16 checkpoints after `.float()` or
`.double()` in PyTorch. Then `SentenceEncoder.save` writes the model again and sentence-transformers must read the same
vectors, limit, prompts and similarity out of it.
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from tiny import POOLING_KEYS, write_json, write_model
from torch_oracle import (
    THIRD_PARTY_WARNINGS,
    first_parting,
    quiet,
    relative,
    trace_differences,
)

from minisbert import SentenceEncoder
from minisbert.model.pooling import POOLINGS

pytestmark = [pytest.mark.usefixtures("one_thread"), *(pytest.mark.filterwarnings(w) for w in THIRD_PARTY_WARNINGS)]

BOUNDS = {"float32": 1e-5, "float64": 1e-10}

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?-"
WORDS = ["the", "cat", "sat", "on", "mat", "find", "##able", "soup"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS), *WORDS]
POSITIONS = 40

TEXTS = [
    "the cat sat on the mat",
    "",
    "a",
    "soup",
    "The CAT, unreadable: caf\u00e9 \u2603 \u6f22\u5b57!",
    " \t\n\u3000",
    "x" * 150,  # more letters than a word may have: [UNK]
    *(" ".join(["soup"] * n) for n in range(POSITIONS - 4, POSITIONS + 1)),  # around the limit of 40 with [CLS] [SEP]
    *(" ".join(["cat", "mat"] * 9)[:n] for n in (70, 40, 20)),
    "find soup on the mat; " * 30,
    "the cat sat on the mat",
]


@dataclasses.dataclass(frozen=True)
class Case:
    """One checkpoint; what is not said is BERT's or sentence-transformers' default."""

    width: int = 12
    heads: int = 3
    layers: int = 2
    inner: int = 20
    act: str = "gelu"
    config: dict = dataclasses.field(default_factory=dict)
    head: str = "BertModel"  # the class of transformers that writes the weights
    pooler: bool = True
    stored: str = "float32"
    shard: str | None = None
    modes: tuple = ("mean",)  # () is a plain BERT without modules.json
    include_prompt: bool = True
    dense: tuple = ()  # (out_features, torch.nn name, bias)
    normalize: bool = False
    limit: int | None = None
    prompts: dict = dataclasses.field(default_factory=dict)
    default_prompt: str | None = None
    similarity: str = "cosine"


CASES = {
    "plain BERT, 1 head, 1 layer": Case(width=10, heads=1, layers=1, modes=()),
    "plain masked LM, F16, shards, gelu_pytorch_tanh": Case(
        layers=3, act="gelu_pytorch_tanh", head="BertForMaskedLM", stored="float16", shard="4KB", modes=()
    ),
    "2 heads, gelu_new, dense tanh": Case(
        width=16, heads=2, act="gelu_new", modes=("max",), dense=((7, "Tanh", True),), normalize=True
    ),
    "12 heads, 4 layers, relu, BF16, no pooler, two denses": Case(
        width=48,
        heads=12,
        layers=4,
        act="relu",
        stored="bfloat16",
        pooler=False,
        dense=((48, "Tanh", True), (10, "ReLU", True)),
        prompts={"query": "find "},
    ),
    "silu, pre-training heads": Case(
        act="silu", head="BertForPreTraining", modes=("weightedmean",), normalize=True, similarity="dot"
    ),
    "swish, masked LM, dense without bias": Case(
        act="swish",
        head="BertForMaskedLM",
        modes=("lasttoken",),
        dense=((9, "GELU", False),),
        similarity="euclidean",
    ),
    "shards, six poolings": Case(shard="3KB", modes=tuple(POOLING_KEYS.values()), limit=30),
    "other eps, 1 token type, tanh, poolings out of order, three denses": Case(
        act="tanh",
        config={"layer_norm_eps": 1e-5, "type_vocab_size": 1},
        modes=("mean", "cls"),
        dense=((13, "ReLU", True), (8, "Sigmoid", True), (5, "Identity", False)),
        normalize=True,
        similarity="manhattan",
        limit=5,
    ),
    "dense, normalize, prompts": Case(
        modes=("max", "mean_sqrt_len_tokens"),
        dense=((11, "SiLU", True),),
        normalize=True,
        limit=17,
        prompts={"query": "find the ", "passage": "soup: "},
        default_prompt="passage",
    ),
    "BF16, prompt left out": Case(
        head="BertForMaskedLM",
        stored="bfloat16",
        modes=("mean", "weightedmean"),
        include_prompt=False,
        prompts={"query": "find the ", "document": "soup: "},
        default_prompt="query",
        dense=((6, "Tanh", True),),
    ),
}
IDS = [name.replace(" ", "_") for name in CASES]


def randomise(model, seed):
    """Fill every parameter with numbers that matter: transformers starts biases at 0 and LayerNorms at 1."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = torch.randn(parameter.shape)
            if name.endswith("LayerNorm.weight"):
                parameter.copy_(1.0 + 0.3 * draw)
            elif parameter.ndim == 2 and "embeddings" not in name:
                parameter.copy_(1.4 * draw / parameter.shape[1] ** 0.5)
            else:
                parameter.copy_(0.5 * draw)


def write_bert(folder, case, seed):
    """One plain BERT, as transformers saves it."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    tokenizer = transformers.BertTokenizerFast.from_pretrained(str(folder), model_max_length=case.limit or POSITIONS)
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=case.width,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        intermediate_size=case.inner,
        max_position_embeddings=POSITIONS,
        hidden_act=case.act,
        **case.config,
    )
    options = {} if case.pooler else {"add_pooling_layer": False}
    model = getattr(transformers, case.head)(config, **options)
    randomise(model, seed)
    model = model.to(getattr(torch, case.stored))
    model.save_pretrained(folder, max_shard_size=case.shard or "1GB")
    tokenizer.save_pretrained(folder)
    (folder / "vocab.txt").unlink()


def write_case(folder, case, seed=0):
    """One model folder, as sentence-transformers saves it."""
    import sentence_transformers
    import torch
    from sentence_transformers import models

    bare = folder.with_name(folder.name + "-bare")
    write_bert(bare, case, seed)
    if not case.modes:
        return bare.rename(folder)
    modules = [
        models.Transformer(str(bare)),
        models.Pooling(case.width, pooling_mode=case.modes, include_prompt=case.include_prompt),
    ]
    width = case.width * len(case.modes)
    for out, activation, bias in case.dense:
        modules.append(models.Dense(width, out, bias=bias, activation_function=getattr(torch.nn, activation)()))
        randomise(modules[-1], seed + out)
        width = out
    if case.normalize:
        modules.append(models.Normalize())
    model = sentence_transformers.SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts=case.prompts,
        default_prompt_name=case.default_prompt,
        similarity_fn_name=case.similarity,
    )
    model.save(str(folder))
    # a Transformer re-saves its weights without prefix and heads: put the original files back
    for file in folder.glob("model*.safetensors*"):
        file.unlink()
    for file in bare.glob("model*.safetensors*"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory, torch, transformers, sentence_transformers):
    """Name of a case -> its folder, written at first use."""
    quiet(threads=1)
    home, written = tmp_path_factory.mktemp("cases"), {}

    def folder(name):
        if name not in written:
            written[name] = write_case(home / str(len(written)), CASES[name], seed=len(written))
        return written[name]

    return folder


def open_theirs(folder, dtype):
    import sentence_transformers
    import torch

    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return model.to(getattr(torch, dtype))


def open_ours(folder, dtype):
    if (folder / "modules.json").exists():
        return SentenceEncoder(folder, dtype=dtype)
    with pytest.warns(UserWarning, match=r"no modules\.json"):
        return SentenceEncoder(folder, dtype=dtype)


def differences(folder, dtype, texts=TEXTS):
    """Every tensor of the trace, the token embeddings and the sentence vectors: name -> relative difference."""
    import torch
    import transformers

    ours, theirs = open_ours(folder, dtype), open_theirs(folder, dtype)
    assert ours.max_seq_length == theirs.max_seq_length
    eager = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False)
    eager = eager.to(getattr(torch, dtype))
    found = trace_differences(ours, eager, texts, relative)
    tokens = ours.encode(texts, output_value="token_embeddings", overflow="truncate")
    their_tokens = theirs.encode(texts, output_value="token_embeddings")
    found["token_embeddings"] = max(relative(a, b.numpy()) for a, b in zip(tokens, their_tokens, strict=True))
    vectors = ours.encode(texts, overflow="truncate", batch_size=4)
    assert vectors.dtype == dtype
    their_vectors = theirs.encode(texts, batch_size=4)
    assert their_vectors.dtype == dtype
    found["sentence_embedding"] = relative(vectors, their_vectors)
    return found


@pytest.mark.parametrize("name", CASES, ids=IDS)
def test_random_checkpoint(name, folders, tmp_path, figures):
    """Ours is theirs, and what we save is read by them."""
    for dtype, bound in BOUNDS.items():
        found = differences(folders(name), dtype)
        assert first_parting(found, bound) is None, found
        figures(f"{name}, {dtype}, every tensor", max(found.values()), bound)
        figures(f"{name}, {dtype}, sentence vectors", found["sentence_embedding"], bound)
    folder, saved = folders(name), tmp_path / "saved"
    ours, theirs = open_ours(folder, "float32"), open_theirs(folder, "float32")
    ours.max_seq_length = theirs.max_seq_length = min(19, theirs.max_seq_length)
    ours.save(saved)
    read_back = open_theirs(saved, "float32")
    figures(f"{name}, saved", relative(read_back.encode(TEXTS), theirs.encode(TEXTS)), BOUNDS["float32"])
    assert read_back.max_seq_length == theirs.max_seq_length
    assert read_back.prompts == theirs.prompts
    assert read_back.default_prompt_name == theirs.default_prompt_name
    assert read_back.similarity_fn_name == theirs.similarity_fn_name
    assert read_back.get_sentence_embedding_dimension() == ours.get_sentence_embedding_dimension()
    vectors = theirs.encode(TEXTS[:5])
    assert relative(ours.similarity(vectors, vectors), read_back.similarity(vectors, vectors).numpy()) < 1e-5


def test_a_dropout_does_nothing_once_trained(tmp_path, figures, torch, sentence_transformers):
    folder = write_model(tmp_path / "dropout")
    dropout = {"idx": 9, "name": "9", "path": "9_Dropout", "type": "sentence_transformers.models.Dropout"}
    entries = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    write_json(folder / "modules.json", [*entries[:2], dropout, *entries[2:]])
    (folder / "9_Dropout").mkdir()
    (folder / "9_Dropout" / "config.json").write_text('{"dropout": 0.5}', encoding="utf-8")
    ours, reference = open_ours(folder, "float32"), open_theirs(folder, "float32").encode(["the cat", "i love soup"])
    figures("Dropout", relative(ours.encode(["the cat", "i love soup"]), reference), BOUNDS["float32"])
    ours.save(tmp_path / "saved")
    assert "Dropout" not in (tmp_path / "saved" / "modules.json").read_text(encoding="utf-8")
    assert relative(open_theirs(tmp_path / "saved", "float32").encode(["the cat", "i love soup"]), reference) < 1e-5


# ------------------------------------------------------------------------------------------------ modules and prompts


PROMPTS = {
    "query": "find the ",
    "open": "the c",  # grows together with a text that goes on with "at"
    "empty": "",
    "long": "soup on the mat " * 20,  # longer than the limit
}


def each_pooling(ours, reference):
    """Largest relative difference of the poolings that stand side by side, each in its own units."""
    return max(map(relative, np.split(ours, len(POOLINGS), axis=-1), np.split(reference, len(POOLINGS), axis=-1)))


@pytest.mark.parametrize("include_prompt", [True, False], ids=["prompt_pooled", "prompt_left_out"])
def test_prompts(include_prompt, folders, tmp_path, figures):
    case = Case(modes=tuple(POOLINGS), include_prompt=include_prompt, prompts=PROMPTS, default_prompt="query")
    folder = write_case(tmp_path / "model", case, seed=100)
    ours, theirs = open_ours(folder, "float32"), open_theirs(folder, "float32")
    plain = theirs.encode(TEXTS, prompt="")
    for options in (
        {},  # the default prompt
        {"prompt_name": "query"},
        {"prompt_name": "empty"},
        {"prompt_name": "long"},
        {"prompt": "on the mat: "},
        {"prompt": ""},
        {"prompt": " "},  # no tokens at all
    ):
        reference = theirs.encode(TEXTS, **options)
        measured = each_pooling(ours.encode(TEXTS, overflow="truncate", **options), reference)
        figures(f"{options}", measured, BOUNDS["float32"])
        tokens = ours.encode(TEXTS, output_value="token_embeddings", overflow="truncate", **options)
        their_tokens = theirs.encode(TEXTS, output_value="token_embeddings", **options)
        assert max(relative(a, b) for a, b in zip(tokens, their_tokens, strict=True)) <= BOUNDS["float32"]
        if options in ({}, {"prompt_name": "query"}):
            assert relative(plain, reference) > 1e-3, "the prompt makes no difference, so this compares nothing"
    ours.max_seq_length = 11
    theirs = open_theirs(folder, "float32")  # it remembers a prompt's length from the limit before
    theirs.max_seq_length = 11
    for name in PROMPTS:
        reference = theirs.encode(TEXTS, prompt_name=name)
        measured = each_pooling(ours.encode(TEXTS, prompt_name=name, overflow="truncate"), reference)
        figures(f"limit 11, {name}", measured, BOUNDS["float32"])
    if not include_prompt:
        check_a_prompt_that_grows_together_with_the_text(folder)


def check_a_prompt_that_grows_together_with_the_text(folder):
    """ "the c" and "at" are one word less than apart: the prompt's token count reaches into the text.

    Up to [SEP] this equals sentence-transformers. Beyond it, where the prompt's count takes in every token, it pools
    nothing (zeros, or -inf for max); here the last token stays, so that bad input never gives such numbers.
    """
    ours, theirs = open_ours(folder, "float32"), open_theirs(folder, "float32")
    same = ["at", "at on the mat", "soup"]
    measured = each_pooling(ours.encode(same, prompt_name="open"), theirs.encode(same, prompt_name="open"))
    assert measured <= BOUNDS["float32"]
    nothing_left = ours.encode("p", prompt="sou")  # [CLS] soup [SEP], and the prompt alone is [CLS] s ##o ##u
    last = ours.encode("soup", prompt="", output_value="token_embeddings")[-1]
    for mode, found in zip(POOLINGS, np.split(nothing_left, len(POOLINGS)), strict=True):
        assert relative(found, last) <= BOUNDS["float32"], mode
