"""The judge names mistakes in a port that was written apart from it, and claims nothing that does not reproduce."""

import base64
import io
import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import port
import pytest
from port import FIRST_NORM, GELU, MEAN, NORM, PRE_LN, QKV, SCALE, SOFTMAX, TANH, port_of
from running import refused, run
from safetensors.numpy import save_file
from tiny import tiny_dense, write_model

from minisbert import SentenceEncoder, diagnose
from minisbert.model.pooling import Pooling
from minisbert.proof.diagnose import read_vector
from minisbert.proof.judge import OPERATIONS, examine
from minisbert.proof.ledger import Reference, read_recorded, trace_tensors
from minisbert.proof.mistakes import MISTAKES, RIGHT, Batch, Change, Recipe, bfloat16, forward
from minisbert.proof.port import recognise


class Course:
    """A model, somebody's port of it, and the judge."""

    def __init__(self, folder, texts):
        self.encoder = SentenceEncoder(folder)
        self.tokens = self.encoder.tokenize(texts).split()
        trace = SentenceEncoder(folder, dtype="float64").trace(texts)
        self.right = Reference(texts, trace_tensors(trace), 1, "float64")

    def port(self, *edits, texts=None, **layout):
        return port_of(self.encoder.model, texts or self.tokens, *edits, **layout)

    def judge(self, given):
        return examine(given, self.encoder.model, self.right, "float32")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Course(write_model(tmp_path_factory.mktemp("tiny")), ("i love soup", "the cat sat on", "dog ran on mat"))


@pytest.fixture(scope="module")
def real(weights_folder):
    return Course(weights_folder, read_recorded().texts)


@pytest.fixture(scope="module")
def short(real, tmp_path_factory):
    """The first two layers of the real model: all its tokens and widths, in a third of the time."""
    model = real.encoder.model
    config = replace(model.config, num_hidden_layers=2)
    params = replace(model.params, layers=model.params.layers[:2])
    folder = tmp_path_factory.mktemp("short") / "two-layers"
    return Course(
        write_model(folder, config=config, params=params, tokenizer=model.tokenizer.library), real.right.texts
    )


def test_without_a_mistake_the_padded_forward_is_the_trace(real):
    trace, ids = real.encoder.trace(real.right.texts), real.tokens
    for batch in (Batch.of(ids), Batch.of(ids, 9, left=True), Batch.strip(ids)):
        made = forward(batch, real.encoder.model)
        for name, right in trace.tensors().items():
            if ".probs." not in name:
                parts = batch.by_text(name, made[name])
                ours = np.stack(parts) if name.startswith(("modules", "sentence")) else np.concatenate(parts)
                assert np.abs(ours - right).max() <= 1e-5 * max(1, np.abs(right).max()), name


# the last layer once more, on what it made
AGAIN = port.SOURCE[port.SOURCE.index("    p, o =") : port.SOURCE.index("m = mask")]
AGAIN = "given, i = dict(out), L - 1\nif True:\n" + AGAIN + "out.update(given)\nm = mask"
HEADS = "return x.reshape(B, T, H, K).transpose(0, 2, 1, 3)"
A, F = "layers.0.attention.", "layers.0.feed_forward."
PLANTED = [  # the first wrong tensor, words that each finding has, and what is replaced in the port by what
    (A + "probs.0", [r"not divided by sqrt\(K\) = sqrt\(4\).*in every layer"], SCALE, ""),
    (A + "probs.0", [r"by sqrt\(D\)"], SCALE, " / math.sqrt(H * K)"),
    (A + "probs.0", ["Q and K are exchanged"], "heads(q) @ heads(k)", "heads(k) @ heads(q)"),
    (A + "probs.0", ["queries"], SOFTMAX, "a = softmax(s.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)\n"),
    (A + "probs.0", ["padding is attended to"], "s = s + bias", "pass"),
    (A + "probs.0", ["not divided.*causal"], SOFTMAX, "a = softmax(np.where(np.tri(T) == 1, s, -1e9))\n", SCALE, ""),
    (A + "probs.0", [r"reshape\(B, H, T, K\)"], HEADS, "return x.reshape(B, H, T, K)"),
    (A + "probs.0", ["interleaved"], HEADS, "return x.reshape(B, T, K, H).transpose(0, 3, 1, 2)"),
    (A + "context", ["not joined back"], "heads(v)).transpose(0, 2, 1, 3)", "heads(v))"),
    (A + "query", ["not transposed"], QKV, QKV.replace(".T", ' if "self" in name else x @ W[name + ".weight"].T')),
    (A + "query", ["bias is not added"], QKV, 'return x @ W[name + ".weight"].T'),
    (A + "query", ["weights are rounded to float16"], "positions = ",
     "W = {n: np.float32(np.float16(w)) if 'enc' in n else w for n, w in W.items()}\npositions = "),
    (A + "query", ["pre-LN", "pre-LN"], *[half for edit in PRE_LN for half in edit]),
    (A + "summed", ["residual is left out"], "h = x + y", "h = y"),
    (A + "output", ["LayerNorms of a layer are exchanged|second"], FIRST_NORM, FIRST_NORM.replace("attention.", "")),
    ("layers.1.attention.output", ["left out.*in layer 1 alone"], FIRST_NORM, f"{FIRST_NORM} if i != 1 else h"),
    (F + "summed", ["before attention"], "x = h + f", "x = out[f'layers.{i}.attention.summed'] - y + f"),
    (F + "activated", ["tanh form"], GELU, TANH),
    (F + "activated", ["quick"], GELU, "x / (1 + np.exp(-1.702 * x))"),
    (F + "activated", ["ReLU"], "f = gelu(f)", "f = np.maximum(f, 0)"),
    ("embeddings.output", ["eps is 1e-05"], NORM, NORM.replace("1e-12", "1e-5")),
    ("embeddings.output", ["behind the root"], NORM, "return (x - mu) / (np.sqrt(var) + 1e-3)"),
    ("embeddings.output", ["D - 1"], NORM, "return (x - mu) / np.sqrt(var * x.shape[-1] / (x.shape[-1] - 1))"),
    ("embeddings.position", ["start at 1"], "np.arange(T)", "np.arange(1, T + 1)"),
    ("embeddings.summed", ["type 1"], 'token_type_embeddings.weight"][0]', 'token_type_embeddings.weight"][1]'),
    ("modules.0", ["padding is in the mean"], MEAN, "x.mean(1)"),
    ("modules.0", [r"\[CLS\]"], MEAN, "x[:, 0]"),
    ("modules.0", ["the last layer but one is pooled"], MEAN, MEAN.replace("x", "out['layers.0.feed_forward.output']")),
    ("modules.0", ["the last layer runs twice"], "m = mask", AGAIN),
    (A + "probs.0", ["not divided", "LayerNorms|second"], SCALE, "", FIRST_NORM, FIRST_NORM.replace("attention.", "")),
    (F + "activated", ["tanh", "CLS"], GELU, TANH, MEAN, "x[:, 0]"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "words", "edits"), [(f, w, e) for f, w, *e in PLANTED])
def test_a_mistake_in_a_port_is_found_and_named(tiny, first, words, edits):
    verdict = tiny.judge(tiny.port(*zip(edits[::2], edits[1::2], strict=True)))
    assert not verdict.agrees and verdict.first.name == first
    said = [str(finding) for finding in verdict.findings]
    assert len(said) == len(words) and all(map(re.search, words, said)), said
    assert all(finding.reproduces for finding in verdict.findings)


def test_a_mistake_below_the_bound_where_it_is_made_is_found_by_what_follows(real):
    verdict = real.judge(real.port((NORM, "return (x - mu) / (np.sqrt(var) + 1e-6)"), (SCALE, SCALE)))
    (only,) = verdict.findings
    assert verdict.first.name == "layers.0.attention.query" and "eps = 1e-06 behind the root" in only.says


def test_what_nothing_reproduces_is_not_claimed(tiny):
    for edit in ((SOFTMAX, "a = softmax(s * 1.05)\n"), (GELU, "0.9 * np.sin(x)"), ("h = x + y", "h = x + y + 0.1")):
        findings = tiny.judge(tiny.port(edit)).findings
        assert not any(f.reproduces for f in findings), findings
        assert all(f.difference * 10 <= f.from_right for f in findings if f.says and not f.astray), findings


def test_a_mistake_is_made_where_its_operation_is_and_any_two_go_together(tiny):
    """A catalogue whose parts do not fit each other ends a student's question in a traceback."""
    rng, batch, model = np.random.default_rng(0), Batch.of(tiny.tokens), tiny.encoder.model
    assert all(set(mistake.changes) <= set(RIGHT) and mistake.op in mistake.changes for mistake in MISTAKES)
    assert len({mistake.says for mistake in MISTAKES}) > 200
    early = OPERATIONS["embeddings"].split()
    with np.errstate(all="ignore"):
        right = forward(batch, model, until=0)["embeddings.output"]
        for mistake in MISTAKES:  # LayerNorm first is not first in the embeddings
            made = forward(batch, model, Recipe(Change(mistake)), until=0)["embeddings.output"]
            assert mistake.op in early or np.array_equal(made, right), mistake
        for a, b in (rng.choice(MISTAKES, 2, replace=False) for _ in range(150)):
            made = forward(batch, model, Recipe(Change(a), Change(b)))
            assert made["embeddings.output"].shape[:2] == batch.ids.shape, (a, b)


def test_what_is_saved_wrongly_is_no_mistake_of_a_step(tiny):
    right = tiny.port()
    q, k, c = (f"layers.0.attention.{name}" for name in ("query", "key", "context"))
    shifted = {F + "output": right["embeddings.output"], "layers.1.feed_forward.output": right[F + "output"]}
    for given, said in (
        ({**right, q: right[k], k: right[q]}, f"{q} holds {k}, {k} holds {q}"),
        (shifted, F + "output holds embeddings.output"),
        ({**right, c: right[c][::-1] + 1}, f"{c} is wrong, but {A}projected, which is made from it, is"),
    ):
        verdict = tiny.judge(given)
        assert not verdict.agrees and len(verdict.findings) == 1 and said in str(verdict.findings[0]), verdict.findings
    no_bias = QKV.replace('+ W[name + ".bias"]', '+ W[name + ".bias"] * ("key" not in name)')  # softmax does not see it
    assert "the bias is not added, for key" in str(tiny.judge(tiny.port((QKV, no_bias))).findings[0])


def test_what_the_numbers_say_by_themselves(tiny):
    right, name, word = tiny.port(), A + "query", "embeddings.word"
    packed = trace_tensors(tiny.encoder.trace(tiny.right.texts))
    bad = packed[name].copy()
    bad[3, 5] = np.nan
    half = {n: bfloat16(x) if x.dtype.kind == "f" else x for n, x in packed.items()}
    elsewhere = trace_tensors(tiny.encoder.trace(("i love mat", "the dog ran on", "cat ran on mat")))
    drop = "a = softmax(s) * (np.random.default_rng(0).random(s.shape) > 0.1) / 0.9\n"
    for given, said in (
        ({word: np.zeros((0, 12), np.float32)}, "expected (17, 12)"),
        ({word: np.zeros((17, 11))}, "expected (17, 12)"),
        ({word: np.full((17, 12), np.inf)}, "NaN or infinite"),
        ({name: bad}, "1 of 204 numbers are NaN or infinite; the first: text 0, (3, 5)"),
        ({name: 0 * right[name] - 1}, "All its numbers are -1."),
        ({name: 1.5 * packed[name]}, "It is 1.5 times the right one."),
        ({name: packed[name][::-1]}, "the right numbers in another order"),
        ({name: packed[name] + np.arange(12)}, "All tokens are off by the same vector"),
        (
            {name: packed[name] + (np.arange(12) == 3)},
            "Only some columns differ (counted from 0): text 0: 3; text 1: 3",
        ),
        ({name: packed[name] + (np.arange(17)[:, None] > 4)}, "Only texts 1, 2 (counted from 0) differ."),
        ({name: packed[name].T}, "(is it transposed?)"),
        (tiny.port((SCALE, " / 2.5")), "softmax of 0.8 times the right scores"),
        (tiny.port((SOFTMAX, drop)), "dropout of rate 0.1 is on"),
        (half, "tensors agree."),
        (elsewhere, "The first other id: text 0, token 3"),
        (tiny.port(texts=[ids[1:-1] for ids in tiny.tokens]), "[CLS] and [SEP] are missing"),
        ({"sentence_embedding": tiny.port((MEAN, "x[:, 0]"))["sentence_embedding"]}, "the vector of [CLS]"),
    ):
        verdict = tiny.judge(given)
        assert any(said in sentence for sentence in (*verdict.sentences(), *verdict.notes)), said
    zeros = {**right, "layers.1.attention.key": right["layers.1.attention.key"] * (np.arange(12) % 5 == 0)}
    assert tiny.judge(zeros).first.name == "layers.1.attention.key"  # the columns that the recording lacks are compared
    verdict = tiny.judge(
        {"last_hidden_state": tiny.port((SOFTMAX, "a = softmax(s * 1.3)\n"))["layers.1.feed_forward.output"]}
    )
    assert F + "output" in verdict.advice and "pooling" not in " ".join(verdict.sentences())


def test_every_layout_is_understood(short):
    right, tokens = short.port(), short.tokens
    as_left = short.port(("np.arange(T)", "np.maximum(np.cumsum(mask, 1) - 1, 0)"), length=9, left=True)
    rows = {name: x for name, x in right.items() if "probs" not in name}
    hidden = [right["embeddings.output"], *(right[f"layers.{i}.feed_forward.output"] for i in range(2))]
    looks = np.stack([right[f"layers.{i}.attention.probs"] for i in range(2)])
    for given, tensors in (
        (right, 35),
        (as_left, 35),
        (short.port(length=128), 35),
        ({name: x[[2, 0, 1]] for name, x in right.items()}, 35),
        ({name: x[1:2] for name, x in right.items()}, 33),
        ({name: x[2] for name, x in rows.items()}, 31),
        ({name: np.asfortranarray(x.astype(">f8" if x.dtype.kind == "f" else ">i4")) for name, x in right.items()}, 35),
        ({name: x.astype(np.float16) if x.dtype.kind == "f" else x for name, x in right.items()}, 35),
        ({"hidden_states": np.stack(hidden), "attentions": looks, "last_hidden_state": hidden[-1]}, 7),
        ({f"{A}probs.{t}": looks[0, t, :, : len(ids), : len(ids)] for t, ids in enumerate(tokens)}, 2),
        (trace_tensors(short.encoder.trace(short.right.texts)), 35),
    ):
        verdict = short.judge(given)
        assert verdict.agrees and verdict.tensors == tensors, (verdict.sentences(), verdict.tensors)
    assert short.judge({"sentence_embedding": right["sentence_embedding"][:2]}).numbers == 2 / 3
    turned = {name: x[[2, 0, 1]] for name, x in right.items() if name != "token_ids"}
    turned["embeddings.word"] = 0 * turned["embeddings.word"]  # what is right says how the wrong one lies, too
    assert [row.name for row in short.judge(turned).rows if not row.agrees] == ["embeddings.word"]


NAMES = {
    "bert.encoder.layer.3.attention.self.query": "layers.3.attention.query",
    "encoder.layer.0.attention.output.dense": "layers.0.attention.projected",
    "encoder.layer.5.output.LayerNorm": "layers.5.feed_forward.output",
    "layers_0_attention_probs": "layers.0.attention.probs",
    "hidden_states.0": "embeddings.output",
    "last_hidden_state": "layers.5.feed_forward.output",
    "input_ids": "token_ids",
    "layers.6.attention.query": None,
    "nonsense": None,
}


def test_names_of_others():
    known = list(read_recorded().tensors)
    assert {name: recognise(name, known, 6) for name in NAMES} == NAMES


def test_the_command_answers_every_file(real, weights_folder, tmp_path):
    def verify(*options, code=0):
        return run("verify", "--model", weights_folder, *options, code=code).stdout

    right, mine, filled = real.port(), tmp_path / "mine.npz", tmp_path / "filled.npz"
    np.savez(mine, nonsense=np.zeros(3), **{"embeddings.word": right["embeddings.word"]})
    told = json.loads(verify("--mine", mine, "--json", code=1))
    assert told["coverage"] == {"tensors": 1, "of": 91, "numbers": 1.0} and list(told["unknown"]) == ["nonsense"]
    save_file({"last_hidden_state": right["layers.5.feed_forward.output"]}, tmp_path / "mine.safetensors")
    verify("--mine", tmp_path / "mine.safetensors")
    shown = verify("--template", filled)
    said = run("verify", "--model", weights_folder, "--template", filled, code=1).stderr
    assert "already exists" in said and "--force" not in said  # verify has no such option
    assert len(shown.splitlines()) == 91 and "softmax(query @ key.T / sqrt(K))" in shown
    with np.load(filled) as stored:
        np.savez(filled, **{**stored, "embeddings.output": right["embeddings.output"]})
    assert "coverage: 2 of 91 tensors, 100 % of their numbers" in verify("--mine", filled)
    np.save(tmp_path / "odd.npy", right["embeddings.word"])
    verify("--mine", tmp_path / "odd.npy", "--name", "embeddings.word")
    some = {name: x for name, x in right.items() if name.startswith("layers.0.attention.")}
    some["layers.0.attention.key"] = some["layers.0.attention.key"] + 1e-3
    np.savez(mine, **some)
    assert json.loads(verify("--mine", mine, "--json", code=1))["first_disagreement"] == "layers.0.attention.key"
    np.save(tmp_path / "odd.npy", np.zeros((17, 384)))
    shown = verify("--mine", tmp_path / "odd.npy", code=1)
    assert "Nothing is compared" in shown and "unknown name, not compared: odd" in shown


def _npz(array):
    stream = io.BytesIO()
    np.savez(stream, **{"embeddings.word": array})
    return stream.getvalue()


WHOLE = _npz(np.ones((17, 384)))
REFUSED = [  # what is in the file, and what is said
    (b"0.1 0.2", "another kind"),
    (_npz(np.array([{}], object)), "Python objects"),
    (WHOLE[:200] + bytes(60) + WHOLE[260:], "damaged, or not whole"),
    (_npz(np.array(1.0)), "'embeddings.word', got float64"),
    (_npz(np.zeros((17, 384), bool)), "'embeddings.word', got bool"),
]


def test_what_is_no_file_of_tensors_is_refused(weights_folder, tmp_path):
    mine = tmp_path / "mine.npz"
    for content, said in REFUSED:
        mine.write_bytes(content)
        message = refused("verify", "--model", weights_folder, "--mine", mine)
        assert "mine" in message and said in message
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    (tmp_path / "mine.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    assert "as F32" in refused("verify", "--model", weights_folder, "--mine", tmp_path / "mine.safetensors")
    assert "--against torch" in refused("verify", "--model", weights_folder, "some text", code=2)


# ----------------------------------------------------------------------------------------------------------- diagnose


TEXT = "i love soup"


VECTORS = [  # made by the encoder e, or by a student s; p are its token vectors
    (lambda e, s, p: e.encode(TEXT), "model's own"),
    (lambda e, s, p: e.encode(TEXT).astype(np.float16), "float16"),
    (lambda e, s, p: bfloat16(e.encode(TEXT)), "bfloat16"),
    (lambda e, s, p: np.round(127 * e.encode(TEXT)).astype(np.int8), "int8"),
    (lambda e, s, p: np.round(e.encode(TEXT), 4), "4 decimals"),
    (
        lambda e, s, p: e.encode(TEXT)[:100],
        "first 100 of 384 dimensions are kept, and what is kept is not normalised again",
    ),
    (lambda e, s, p: e.encode("query: " + TEXT), "'query: '"),
    (lambda e, s, p: p[0], "[CLS] is the sentence vector, not the mean, and the sentence vector is not normalised"),
    (lambda e, s, p: s((GELU, TANH))["sentence_embedding"], "tanh form"),
    (lambda e, s, p: s((GELU, TANH), (MEAN, "x[:, 0]"))["sentence_embedding"], "erf, and the vector of [CLS]"),
    (lambda e, s, p: s(("s = s + bias", "pass"), length=128)["sentence_embedding"], "padded to 128"),
    (lambda e, s, p: s(("np.arange(T)", "np.arange(2, T + 2)"))["sentence_embedding"], "RoBERTa"),
    (lambda e, s, p: np.ones(768), "another model's"),
    (lambda e, s, p: np.random.default_rng(0).normal(size=384), "Another text or model"),
    (
        lambda e, s, p: e.encode(TEXT) + np.float32(1e-4),
        "No setting reproduces this vector. The nearest, with a cosine of",
    ),
    (
        lambda e, s, p: np.round(e.encode(TEXT) * np.linspace(100, 300, 384)),
        "Ask the service for floating-point numbers",
    ),
    (lambda e, s, p: np.packbits(e.encode(TEXT) > 0).astype(int) - 128, "eight to a byte"),
    (lambda e, s, p: p.sum(0), "summed, not averaged, and the sum is not"),
    (lambda e, s, p: 2 * e.encode(TEXT), "has length 2, neither 1 nor"),
    (lambda e, s, p: s((MEAN, "x.mean(1)"), length=64)["modules.0"], "padded to 64 tokens"),
    (lambda e, s, p: e.encode("i love"), "cut at 4 tokens"),
]


@pytest.mark.parametrize(("make", "said"), VECTORS, ids=[said for _, said in VECTORS])
def test_settings_are_found(short, make, said):
    encoder, tokens = short.encoder, short.encoder.encode(TEXT, output_value="token_embeddings")
    student = partial(short.port, texts=[encoder.tokenize(TEXT).token_ids])
    vector = make(encoder, student, tokens)
    found = diagnose(encoder, TEXT, vector)
    unknown = re.search("nother|No setting|Ask", said)
    assert said in str(found) and found.reproduces == (not unknown), str(found)
    assert not unknown or not found.settings, found.settings


def test_poolings_side_by_side_and_a_dense_layer_have_settings_too(tmp_path):
    encoder = SentenceEncoder(write_model(tmp_path / "m", modules=(Pooling(("mean", "max")), tiny_dense(24, 8))))
    found = diagnose(encoder, TEXT, encoder.encode("query: " + TEXT, overflow="truncate"))
    assert "'query: '" in str(found) and any("maximum" in cost.setting for cost in found.costs)


def test_the_verb_reads_what_services_answer(real, weights_folder, tmp_path):
    vector = real.encoder.encode(TEXT)
    coded, listed = base64.b64encode(vector.astype("<f4").tobytes()).decode(), vector.tolist()
    spaced = " ".join(map(str, listed))
    answers = [listed, [listed], {"embeddings": [listed]}, {"predictions": [{"values": listed}]}]
    answers += [{"data": [{"embedding": one}]} for one in (listed, coded)]
    answers += [{"embeddings": {"int8": [[1]], "float": [listed]}}]
    texts = [spaced, "\n".join(map(str, listed)), spaced.replace(".", ","), repr(vector), repr(list(vector)), coded]
    for text in [*map(json.dumps, answers), *texts, f"tensor({listed}, dtype=torch.float32)"]:
        assert np.allclose(read_vector(text.encode()), vector, atol=1e-7), text[:60]
    several = ([listed, listed], {"data": [{"index": 1, "embedding": listed}, {"index": 0, "embedding": listed}]})
    cut_short, table = json.dumps([listed])[:500], "\n".join(f"{i},{x}" for i, x in enumerate(listed))
    for text in (*map(json.dumps, several), cut_short, table, '{"error": {"message": "no key"}}', "a,b", ""):
        with pytest.raises(ValueError, match=r"no key|one vector"):
            read_vector(text.encode())
    np.save(tmp_path / "vector.npy", vector)
    verb = ("diagnose", "--model", weights_folder, "--text", TEXT)
    assert "model's own vector" in run(*verb, tmp_path / "vector.npy").stdout
    assert json.loads(run(*verb, json.dumps([listed]), "--json").stdout)["reproduces"] is True
    for bad in ("{}", "[1, null]", '["no"]', "[[1, 2], [3]]", tmp_path / "missing.npy"):
        refused(*verb, bad)
