"""The judge names mistakes in a port that was written apart from it, and claims nothing that does not reproduce."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import port
import pytest
from running import refused, run
from safetensors.numpy import save_file
from tiny import write_model

from minisbert import SentenceEncoder, diagnose
from minisbert.model.params import read_checkpoint
from minisbert.proof.diagnose import read_vector
from minisbert.proof.judge import OPERATIONS, examine
from minisbert.proof.ledger import Reference, read_recorded, trace_tensors
from minisbert.proof.mistakes import MISTAKES, RIGHT, Batch, Change, Recipe, bfloat16, forward
from minisbert.proof.port import recognise


class Course:
    """A model, somebody's port of it, and the judge."""

    def __init__(self, folder, texts):
        self.encoder, self.texts = SentenceEncoder(folder), texts
        self.exact = SentenceEncoder(folder, dtype="float64")
        stored = {
            name: tensor.read(np.float32) for name, tensor in read_checkpoint(folder).items() if "ids" not in name
        }
        self.weights = {name.removeprefix("bert."): tensor for name, tensor in stored.items()}
        self.tokens = self.encoder.tokenize(texts).split()
        trace = self.exact.trace(texts)
        self.right = Reference(texts, trace_tensors(trace), 1, "float64")

    def port(self, *edits, texts=None, length=0, left=False):
        config = self.encoder.model.config
        sizes = {"heads": config.num_attention_heads, "layers": config.num_hidden_layers}
        return port.run(*port.padded(texts or self.tokens, length, left), self.weights, *edits, **sizes)

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
    return Course(write_model(folder, config=config, params=params, tokenizer=model.tokenizer.library), real.texts)


def test_without_a_mistake_the_padded_forward_is_the_trace(real):
    encoder, texts = real.encoder, real.texts
    trace = encoder.trace(texts)
    ids = encoder.tokenize(texts).split()
    for batch in (Batch.of(ids), Batch.of(ids, 9, left=True), Batch.strip(ids)):
        made = forward(batch, encoder.model)
        for name, right in trace.tensors().items():
            if ".probs." not in name:
                parts = batch.by_text(name, made[name])
                ours = np.stack(parts) if name.startswith(("modules", "sentence")) else np.concatenate(parts)
                assert np.abs(ours - right).max() <= 1e-5 * max(1, np.abs(right).max()), name


SOFTMAX, GELU, SCALE = "a = softmax(s)\n", "(0.5 * x * (1 + erf(x / np.sqrt(2)))).astype(x.dtype)", " / math.sqrt(K)"
FIRST_NORM = 'h = layer_norm(h, p + "attention.output.LayerNorm")'
NORM = "return (x - mu) / np.sqrt(var + 1e-12)"
QKV = 'return x @ W[name + ".weight"].T + W[name + ".bias"]'
TANH = "0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))"

PLANTED = [  # edits, the first wrong tensor, words that each finding has
    ([(SCALE, "")], "layers.0.attention.probs.0", [r"not divided by sqrt\(K\) = sqrt\(4\).*in every layer"]),
    ([(SCALE, " / math.sqrt(H * K)")], "layers.0.attention.probs.0", [r"by sqrt\(D\)"]),
    ([("heads(q) @ heads(k)", "heads(k) @ heads(q)")], "layers.0.attention.probs.0", ["Q and K are exchanged"]),
    ([(SOFTMAX, "a = softmax(s.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)\n")],
     "layers.0.attention.probs.0", ["queries"]),
    ([("s = s + bias", "pass")], "layers.0.attention.probs.0", ["padding is attended to"]),
    ([(SOFTMAX, "a = softmax(np.where(np.tri(T) == 1, s, -1e9))\n"), (SCALE, "")],
     "layers.0.attention.probs.0", ["not divided.*causal"]),
    ([("heads(v)).transpose(0, 2, 1, 3)", "heads(v))")], "layers.0.attention.context", ["not joined back"]),
    ([("return x.reshape(B, T, H, K).transpose(0, 2, 1, 3)", "return x.reshape(B, H, T, K)")],
     "layers.0.attention.probs.0", [r"reshape\(B, H, T, K\)"]),
    ([("return x.reshape(B, T, H, K).transpose(0, 2, 1, 3)", "return x.reshape(B, T, K, H).transpose(0, 3, 1, 2)")],
     "layers.0.attention.probs.0", ["interleaved"]),
    ([(QKV, QKV.replace(".T", ' if "self" in name else x @ W[name + ".weight"].T'))],
     "layers.0.attention.query", ["not transposed"]),
    ([(QKV, 'return x @ W[name + ".weight"].T')], "layers.0.attention.query", ["bias is not added"]),
    ([("h = x + y", "h = y")], "layers.0.attention.summed", ["residual is left out"]),
    ([("x = h + f", "x = out[f'layers.{i}.attention.summed'] - y + f")],
     "layers.0.feed_forward.summed", ["before attention"]),
    ([(FIRST_NORM, FIRST_NORM.replace("attention.", ""))],
     "layers.0.attention.output", ["LayerNorms of a layer are exchanged|second"]),
    ([(NORM, NORM.replace("1e-12", "1e-5"))], "embeddings.output", ["eps is 1e-05"]),
    ([(NORM, "return (x - mu) / (np.sqrt(var) + 1e-3)")], "embeddings.output", ["behind the root"]),
    ([(NORM, "return (x - mu) / np.sqrt(var * x.shape[-1] / (x.shape[-1] - 1))")], "embeddings.output", ["D - 1"]),
    ([(GELU, TANH)], "layers.0.feed_forward.activated", ["tanh form"]),
    ([(GELU, "x / (1 + np.exp(-1.702 * x))")], "layers.0.feed_forward.activated", ["quick"]),
    ([("f = gelu(f)", "f = np.maximum(f, 0)")], "layers.0.feed_forward.activated", ["ReLU"]),
    ([("positions = ", "W = {n: np.float32(np.float16(w)) if 'enc' in n else w for n, w in W.items()}\npositions = ")],
     "layers.0.attention.query", ["weights are rounded to float16"]),
    ([("np.arange(T)", "np.arange(1, T + 1)")], "embeddings.position", ["start at 1"]),
    ([('token_type_embeddings.weight"][0]', 'token_type_embeddings.weight"][1]')], "embeddings.summed", ["type 1"]),
    ([(FIRST_NORM, f"{FIRST_NORM} if i != 1 else h")], "layers.1.attention.output", ["left out.*in layer 1 alone"]),
    ([("(x * m).sum(1) / m.sum(1)", "x.mean(1)")], "modules.0", ["padding is in the mean"]),
    ([("(x * m).sum(1) / m.sum(1)", "x[:, 0]")], "modules.0", [r"\[CLS\]"]),
    ([(SCALE, ""), (FIRST_NORM, FIRST_NORM.replace("attention.", ""))],
     "layers.0.attention.probs.0", ["not divided", "LayerNorms|second"]),
    ([(GELU, TANH), ("(x * m).sum(1) / m.sum(1)", "x[:, 0]")], "layers.0.feed_forward.activated", ["tanh", "CLS"]),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "first", "words"), PLANTED, ids=[words[0][:30] for *_, words in PLANTED])
def test_a_mistake_in_a_port_is_found_and_named(tiny, edits, first, words):
    verdict = tiny.judge(tiny.port(*edits))
    assert not verdict.agrees and (not first or verdict.first.name == first)
    said = [str(finding) for finding in verdict.findings]
    assert len(said) == len(words) and all(map(re.search, words, said)), said
    assert all(finding.reproduces for finding in verdict.findings)


def test_a_mistake_below_the_bound_where_it_is_made_is_found_by_what_follows(real):
    verdict = real.judge(real.port((NORM, "return (x - mu) / (np.sqrt(var) + 1e-6)"), (SCALE, SCALE)))
    (only,) = verdict.findings
    assert verdict.first.name == "layers.0.attention.query" and "eps = 1e-06 behind the root" in only.says


def test_what_nothing_reproduces_is_not_claimed(tiny):
    student, judge = tiny.port, tiny.judge
    for edit in ((SOFTMAX, "a = softmax(s * 1.05)\n"), (GELU, "0.9 * np.sin(x)"), ("h = x + y", "h = x + y + 0.1")):
        findings = judge(student(edit)).findings
        assert not any(f.reproduces for f in findings), findings
        assert all(f.difference * 10 <= f.from_right for f in findings if f.says and not f.astray), findings
    drop = "a = softmax(s) * (np.random.default_rng(0).random(s.shape) > 0.1) / 0.9\n"
    assert "dropout of rate 0.1" in " ".join(judge(student((SOFTMAX, drop))).sentences())
    zeros = student()
    zeros["layers.1.attention.key"] = zeros["layers.1.attention.key"] * (np.arange(12) % 5 == 0)
    assert judge(zeros).first.name == "layers.1.attention.key"  # the columns that the recording lacks are compared


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
    shifted = {
        f"layers.{i}.feed_forward.output": right[n]
        for i, n in ((0, "embeddings.output"), (1, "layers.0.feed_forward.output"))
    }
    for given, said in (
        ({**right, q: right[k], k: right[q]}, f"{q} holds {k}, {k} holds {q}"),
        (shifted, "layers.0.feed_forward.output holds embeddings.output"),
        (
            {**right, c: right[c][::-1] + 1},
            f"{c} is wrong, but layers.0.attention.projected, which is made from it, is",
        ),
    ):
        verdict = tiny.judge(given)
        assert not verdict.agrees and len(verdict.findings) == 1 and said in str(verdict.findings[0]), verdict.findings
    no_bias = QKV.replace('+ W[name + ".bias"]', '+ W[name + ".bias"] * ("key" not in name)')  # softmax does not see it
    assert "the bias is not added, for key" in str(tiny.judge(tiny.port((QKV, no_bias))).findings[0])


def test_what_the_numbers_say_by_themselves(tiny):
    right, name = tiny.port(), "layers.0.attention.query"
    packed = trace_tensors(tiny.encoder.trace(tiny.texts))
    bad = packed[name].copy()
    bad[3, 5] = np.nan
    half = {n: bfloat16(x) if x.dtype.kind == "f" else x for n, x in packed.items()}
    elsewhere = trace_tensors(tiny.encoder.trace(("i love mat", "the dog ran on", "cat ran on mat")))
    word = "embeddings.word"
    for given, said in (
        ({word: np.zeros((0, 12), np.float32)}, "expected (17, 12)"),
        ({word: np.zeros((17, 11))}, "expected (17, 12)"),
        ({word: np.full((17, 12), np.inf)}, "NaN or infinite"),
        ({name: bad}, "1 of 204 numbers are NaN or infinite; the first: text 0, (3, 5)"),
        ({name: 0 * right[name] - 1}, "All its numbers are -1."),
        ({name: packed[name].T}, "(is it transposed?)"),
        (tiny.port((SCALE, " / 2.5")), "softmax of 0.8 times the right scores"),
        (half, "tensors agree."),
        (elsewhere, "The first other id: text 0, token 3"),
        ({"foo": bad}, "no name in it is known"),
        ({name: right[name][:2]}, "agrees, in 6"),
        ({n: np.full(x.shape, np.nan) if n != "token_ids" else x for n, x in packed.items()}, "tensors in all)"),
    ):
        verdict = tiny.judge(given)
        said_all = " ".join([*verdict.notes, *verdict.sentences()])
        assert said in said_all and len(verdict.notes) <= 3, said_all
        assert not any(finding.reproduces for finding in verdict.findings)


def test_a_late_tensor_alone_is_explained_or_the_way_is_told(tiny):
    student, judge = tiny.port, tiny.judge
    wrong = student(("(x * m).sum(1) / m.sum(1)", "x[:, 0]"))["sentence_embedding"]
    assert "[CLS]" in str(judge({"sentence_embedding": wrong}).findings[0])
    last = student((SOFTMAX, "a = softmax(s * 1.3)\n"))["layers.1.feed_forward.output"]
    verdict = judge({"last_hidden_state": last})
    assert "layers.0.feed_forward.output" in verdict.advice and "pooling" not in " ".join(verdict.sentences())


def test_every_layout_is_understood(short):
    student, judge, encoder = short.port, short.judge, short.encoder
    right, tokens = student(), encoder.tokenize(read_recorded().texts).split()
    as_left = student(("np.arange(T)", "np.maximum(np.cumsum(mask, 1) - 1, 0)"), length=9, left=True, texts=tokens)
    rows = {name: x for name, x in right.items() if "probs" not in name}
    hidden = [right["embeddings.output"], *(right[f"layers.{i}.feed_forward.output"] for i in range(2))]
    looks = np.stack([right[f"layers.{i}.attention.probs"] for i in range(2)])
    for given, tensors in (
        (right, 35),
        (as_left, 35),
        (student(length=128), 35),
        ({name: x[[2, 0, 1]] for name, x in right.items()}, 35),
        ({name: x[1:2] for name, x in right.items()}, 33),
        ({name: x[2] for name, x in rows.items()}, 31),
        ({name: np.asfortranarray(x.astype(">f8" if x.dtype.kind == "f" else ">i4")) for name, x in right.items()}, 35),
        ({name: x.astype(np.float16) if x.dtype.kind == "f" else x for name, x in right.items()}, 35),
        ({"hidden_states": np.stack(hidden), "attentions": looks, "last_hidden_state": hidden[-1]}, 7),
        ({f"layers.0.attention.probs.{t}": looks[0, t, :, :n, :n] for t, n in enumerate((5, 6, 6))}, 2),
        (trace_tensors(encoder.trace(read_recorded().texts)), 35),
    ):
        verdict = judge(given)
        assert verdict.agrees and verdict.tensors == tensors, (verdict.sentences(), verdict.tensors)
    assert judge({"sentence_embedding": right["sentence_embedding"][:2]}).numbers == 2 / 3
    turned = {name: x[[2, 0, 1]] for name, x in right.items() if name != "token_ids"}
    turned["embeddings.word"] = 0 * turned["embeddings.word"]  # what is right says how the wrong one lies, too
    assert [row.name for row in judge(turned).rows if not row.agrees] == ["embeddings.word"]


def test_missing_special_tokens_are_recognised(tiny):
    student, judge, encoder = tiny.port, tiny.judge, tiny.encoder
    bare = [ids[1:-1] for ids in encoder.tokenize(tiny.texts).split()]
    verdict = judge(student(texts=bare))
    assert (
        not verdict.agrees and "[CLS] and [SEP] are missing" in str(verdict.findings[0]) and len(verdict.findings) == 1
    )


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
    shown = verify("--mine", mine, code=1)
    assert "coverage: 1 of 91 tensors, 100 % of their numbers" in shown
    assert "unknown name" in shown and "nonsense" in shown
    told = json.loads(verify("--mine", mine, "--json", code=1))
    assert told["coverage"]["of"] == 91 and list(told["unknown"]) == ["nonsense"]
    save_file({"last_hidden_state": right["layers.5.feed_forward.output"]}, tmp_path / "mine.safetensors")
    verify("--mine", tmp_path / "mine.safetensors")
    np.save(tmp_path / "word.npy", right["embeddings.word"])
    verify("--mine", tmp_path / "word.npy", "--name", "embeddings.word")
    shown = verify("--template", filled)
    said = run("verify", "--model", weights_folder, "--template", filled, code=1).stderr
    assert "already exists" in said and "--force" not in said  # verify has no such option
    assert len(shown.splitlines()) == 91 and "softmax(query @ key.T / sqrt(K))" in shown
    with np.load(filled) as stored:
        tensors = dict(stored)
    tensors["embeddings.output"] = right["embeddings.output"]
    np.savez(filled, **tensors)
    assert "coverage: 2 of 91" in verify("--mine", filled)
    some = {name: x for name, x in right.items() if name.startswith("layers.0.attention.")}
    some["layers.0.attention.key"] = some["layers.0.attention.key"] + 1e-3
    np.savez(mine, **some)
    assert "The first is layers.0.attention.key" in verify("--mine", mine, code=1)
    assert json.loads(verify("--mine", mine, "--json", code=1))["first_disagreement"] == "layers.0.attention.key"
    np.save(tmp_path / "odd.npy", np.zeros((17, 384)))
    shown = verify("--mine", tmp_path / "odd.npy", code=1)
    assert "Nothing is compared" in shown and "not compared: odd" in shown


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


def _cls(encoder, text=TEXT):
    return encoder.encode(text, output_value="token_embeddings")[0]


VECTORS = [
    (lambda e, s: e.encode(TEXT), "model's own"),
    (lambda e, s: e.encode(TEXT).astype(np.float16), "float16"),
    (lambda e, s: bfloat16(e.encode(TEXT)), "bfloat16"),
    (lambda e, s: np.round(127 * e.encode(TEXT)).astype(np.int8), "int8"),
    (lambda e, s: np.round(e.encode(TEXT), 4), "4 decimals"),
    (lambda e, s: e.encode(TEXT)[:100], "first 100 of 384"),
    (lambda e, s: e.encode("query: " + TEXT), "'query: '"),
    (lambda e, s: _cls(e), r"[CLS] is the sentence vector, not the mean, and the sentence vector is not normalised"),
    (lambda e, s: s((GELU, TANH))["sentence_embedding"], "tanh form"),
    (
        lambda e, s: s((GELU, TANH), ("(x * m).sum(1) / m.sum(1)", "x[:, 0]"))["sentence_embedding"],
        "erf, and the vector of [CLS]",
    ),
    (lambda e, s: s(("s = s + bias", "pass"), length=128)["sentence_embedding"], "padded to 128"),
    (lambda e, s: s(("np.arange(T)", "np.arange(2, T + 2)"))["sentence_embedding"], "RoBERTa"),
    (lambda e, s: np.ones(768), "another model's"),
    (lambda e, s: np.random.default_rng(0).normal(size=384), "Another text or model"),
    (
        lambda e, s: e.encode(TEXT) + np.float32(1e-4),
        "No setting reproduces this vector. The nearest, with a cosine of",
    ),
    (lambda e, s: np.round(e.encode(TEXT) * np.linspace(100, 300, 384)), "Ask the service for floating-point numbers"),
    (lambda e, s: np.packbits(e.encode(TEXT) > 0).astype(int) - 128, "eight to a byte"),
    (lambda e, s: e.encode(TEXT, output_value="token_embeddings").sum(0), "summed, not averaged, and the sum is not"),
    (lambda e, s: 2 * e.encode(TEXT), "has length 2, neither 1 nor"),
    (lambda e, s: s(("(x * m).sum(1) / m.sum(1)", "x.mean(1)"), length=64)["modules.0"], "padded to 64 tokens"),
    (lambda e, s: e.encode("i love"), "cut at 4 tokens"),
]


@pytest.mark.parametrize(("make", "said"), VECTORS, ids=[said for _, said in VECTORS])
def test_settings_are_found(short, make, said):
    ids = [short.encoder.tokenize(TEXT).token_ids]
    vector = make(short.encoder, lambda *edits, **more: short.port(*edits, texts=ids, **more))
    found = diagnose(short.encoder, TEXT, vector)
    unknown = re.search("nother|No setting|Ask", said)
    assert said in str(found) and found.reproduces == (not unknown), str(found)
    assert not unknown or not found.settings, found.settings


def test_the_verb_reads_what_services_answer(real, weights_folder, tmp_path):
    vector = real.encoder.encode(TEXT)
    coded = base64.b64encode(vector.astype("<f4").tobytes()).decode()
    listed = vector.tolist()
    openai = ({"data": [{"embedding": one}]} for one in (listed, coded))
    for answer in (listed, [listed], *openai, {"embeddings": [listed]}):
        assert np.array_equal(read_vector(json.dumps(answer).encode()).astype(np.float32).reshape(-1), vector)
    texts = [" ".join(map(str, listed)), "\n".join(map(str, listed)), " ".join(map(str, listed)).replace(".", ",")]
    texts += [repr(vector), f"tensor({listed}, dtype=torch.float32)", repr(list(vector)), coded]
    texts += [
        json.dumps(x)
        for x in ({"predictions": [{"values": listed}]}, {"embeddings": {"int8": [[1]], "float": [listed]}})
    ]
    for text in texts:
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
    for bad in ('{"data": 3}', "{}", "[]", "[1, null]", '[{"embedding": []}]', '["no"]', "[[1, 2], [3]]"):
        refused(*verb, bad)
    refused(*verb, tmp_path / "missing.npy")
