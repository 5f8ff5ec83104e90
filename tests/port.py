"""A student's BERT: padded (B, T, D), in plain NumPy, written without this package; mistakes are edited into its text.

`port_of(model, texts, *edits)` replaces each (old, new) in the source and gives every tensor by the ledger's names.
"""

import math

import numpy as np
from tiny import named_tensors

SOURCE = """
def linear(x, name):
    return x @ W[name + ".weight"].T + W[name + ".bias"]

def gelu(x):
    return (0.5 * x * (1 + erf(x / np.sqrt(2)))).astype(x.dtype)

def layer_norm(x, name):
    mu = x.mean(-1, keepdims=True)
    var = ((x - mu) ** 2).mean(-1, keepdims=True)
    return (x - mu) / np.sqrt(var + 1e-12) * W[name + ".weight"] + W[name + ".bias"]

def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)

def heads(x):
    return x.reshape(B, T, H, K).transpose(0, 2, 1, 3)

positions = np.arange(T)
word = W["embeddings.word_embeddings.weight"][ids]
position = np.broadcast_to(W["embeddings.position_embeddings.weight"][positions], word.shape)
x = word + position + W["embeddings.token_type_embeddings.weight"][0]
out["token_ids"], out["embeddings.word"], out["embeddings.position"], out["embeddings.summed"] = ids, word, position, x
x = layer_norm(x, "embeddings.LayerNorm")
out["embeddings.output"] = x
bias = np.where(mask[:, None, None, :] == 1, 0, -10000).astype(np.float32)
for i in range(L):
    p, o = f"encoder.layer.{i}.", f"layers.{i}.attention."
    q, k, v = (linear(x, p + "attention.self." + n) for n in ("query", "key", "value"))
    out[o + "query"], out[o + "key"], out[o + "value"] = q, k, v
    s = heads(q) @ heads(k).transpose(0, 1, 3, 2) / math.sqrt(K)
    s = s + bias
    a = softmax(s)
    out[o + "probs"] = a
    c = (a @ heads(v)).transpose(0, 2, 1, 3).reshape(B, T, H * K)
    out[o + "context"] = c
    y = linear(c, p + "attention.output.dense")
    out[o + "projected"] = y
    h = x + y
    out[o + "summed"] = h
    h = layer_norm(h, p + "attention.output.LayerNorm")
    out[o + "output"] = h
    o = f"layers.{i}.feed_forward."
    f = linear(h, p + "intermediate.dense")
    out[o + "expanded"] = f
    f = gelu(f)
    out[o + "activated"] = f
    f = linear(f, p + "output.dense")
    out[o + "projected"] = f
    x = h + f
    out[o + "summed"] = x
    x = layer_norm(x, p + "output.LayerNorm")
    out[o + "output"] = x
m = mask[..., None].astype(np.float32)
pooled = (x * m).sum(1) / m.sum(1)
out["modules.0"] = pooled
out["sentence_embedding"] = pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)
"""

SOFTMAX, SCALE = "a = softmax(s)\n", " / math.sqrt(K)"
GELU = "(0.5 * x * (1 + erf(x / np.sqrt(2)))).astype(x.dtype)"
TANH = "0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))"
MEAN = "(x * m).sum(1) / m.sum(1)"
FIRST_NORM, SECOND_NORM = (
    'h = layer_norm(h, p + "attention.output.LayerNorm")',
    'x = layer_norm(x, p + "output.LayerNorm")',
)
NORM = "return (x - mu) / np.sqrt(var + 1e-12)"
QKV = 'return x @ W[name + ".weight"].T + W[name + ".bias"]'
PRE_LN = (  # each block reads LayerNorm of the stream, which it adds to
    ("q, k, v = (linear(x,", "z = " + FIRST_NORM[4:].replace("(h,", "(x,") + "\n    q, k, v = (linear(z,"),
    (FIRST_NORM, "pass"),
    ("f = linear(h,", "f = linear(" + SECOND_NORM[4:].replace("(x,", "(h,") + ","),
    (SECOND_NORM, "pass"),
)


def port_of(model, texts, *edits, length=0, left=False):
    """Every tensor of a model's port, by name and with its padding; ``texts`` are token ids, each edit (old, new)."""
    source, config, out = SOURCE, model.config, {}
    for old, new in edits:
        assert old in source, old
        source = source.replace(old, new)
    length = max(length, *map(len, texts))
    ids, mask = np.zeros((len(texts), length), int), np.zeros((len(texts), length), int)
    for row, text in enumerate(texts):
        at = slice(length - len(text), length) if left else slice(0, len(text))
        ids[row, at], mask[row, at] = text, 1
    names = {"W": named_tensors(config, model.params), "np": np, "math": math, "erf": np.vectorize(math.erf)}
    names |= {"out": out, "ids": ids, "mask": mask, "B": len(texts), "T": length, "L": config.num_hidden_layers}
    with np.errstate(all="ignore"):
        exec(source, {**names, "H": config.num_attention_heads, "K": config.head_size})
    return out
