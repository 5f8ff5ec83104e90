"""A student's BERT: padded (B, T, D), in plain NumPy, written without this package; mistakes are edited into its text.

`run(ids, mask, weights, *edits)` replaces each (old, new) in the source and gives every tensor by the ledger's names.
"""

import math

import numpy as np

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


def run(ids, mask, weights, *edits, heads=12, layers=6):
    """Every tensor of the port, by name, with its padding."""
    source = SOURCE
    for old, new in edits:
        assert old in source, old
        source = source.replace(old, new)
    out = {}
    (b, t), d = ids.shape, weights["embeddings.LayerNorm.weight"].size
    names = {"W": weights, "np": np, "math": math, "erf": np.vectorize(math.erf), "out": out, "ids": ids, "mask": mask}
    with np.errstate(all="ignore"):
        exec(source, {**names, "B": b, "T": t, "H": heads, "K": d // heads, "L": layers})
    return out


def padded(texts, length=0, left=False):
    """Token ids as arrays (B, T) of ids and of the mask."""
    length = max(length, *(len(text) for text in texts))
    ids, mask = np.zeros((len(texts), length), int), np.zeros((len(texts), length), int)
    for row, text in enumerate(texts):
        at = slice(length - len(text), length) if left else slice(0, len(text))
        ids[row, at], mask[row, at] = text, 1
    return ids, mask
