"""The ladder finds a student's mistakes, each where it was planted, whatever the code does to its process."""

import dataclasses
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from running import refused, run, told
from tiny import TINY, write_model

from minisbert import SentenceEncoder
from minisbert.proof import rungs
from minisbert.proof.ladder import climb

HERE = Path(__file__).resolve().parent
STUBS = HERE.parent / "notebooks" / "my_bert.py"
SOLUTION = STUBS.read_text()  # each stub with the body that the tests have for it
for name, body in re.findall(r"(?s)def (\w+)\([^\n]*:\n(.*?)\n(?:\n\n|\Z)", (HERE / "my_bert_solution.py").read_text()):
    before, head, rest = SOLUTION.partition(f"def {name}(")
    SOLUTION = before + head + rest.replace("    raise NotImplementedError", body, 1)


@pytest.fixture(scope="module")
def encoder(weights_folder):
    return SentenceEncoder(weights_folder, dtype="float64")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model that is loaded and computed in no time."""
    config = dataclasses.replace(TINY, max_position_embeddings=64)
    return SentenceEncoder(write_model(tmp_path_factory.mktemp("small"), config=config), dtype="float64")


def planted(*changes):
    """The solution with changes: (function, what stands there or None for all of it, what a student writes)."""
    source = SOLUTION
    for function, right, wrong in changes:
        before, head, rest = source.partition(f"def {function}(")
        body, end, after = rest.partition("\n\n\n")
        signature, _, lines = body.partition(":\n")
        lines = lines.replace(right, wrong) if right else f"    {wrong}"
        changed = f"{signature}:\n{lines}"
        assert changed != body, (function, right)
        source = before + head + changed + end + after
    return source


# function, what stands in the solution (None: the whole body), what a student writes, what is said about it
MISTAKES = [
    ("embed", "[: len(token_ids)]", "[1 : len(token_ids) + 1]", "positions start at 1"),
    ("embed", 'type_embeddings.weight"][0]', 'type_embeddings.weight"][1]', "all tokens have token type 1"),
    ("embed", "return layer_norm", "return (lambda x, *_: x)", "LayerNorm is left out"),
    ("embed", '"], eps)', '"], 1e-5)', "eps is 1e-05, not 1e-12"),
    ("layer_norm", "np.sqrt(variance + eps)", "(np.sqrt(variance) + eps)", "eps is added behind the root"),
    ("layer_norm", "variance + eps", "variance + 1e-12", "eps is 1e-12, not 0.1"),
    ("layer_norm", "axis=-1", "axis=0", "over the tokens (axis 0)"),
    ("layer_norm", ".mean(axis=-1, keepdims=True)\n    return", ".mean(axis=-1)\n    return", "ValueError"),
    ("linear", "weight.T", "weight", "the matrix is not transposed"),
    ("linear", "+ bias", "", "the bias is not added"),
    ("linear", "return", "x *= 1.5\n    return", "changes its argument x"),
    ("attention_scores", "/ math.sqrt(size)", "", "the scores are not divided by sqrt(K) = sqrt(32)"),
    ("attention_scores", "(-1, heads, size).transpose(1, 0, 2)", "(heads, -1, size)", "without the transpose"),
    ("attention_scores", "return", "print(q @ k.transpose(0, 2, 1))  #", "prints its result and returns nothing"),
    ("softmax", "axis=-1", "axis=0", "goes over the first axis"),
    ("softmax", " - scores.max(axis=-1, keepdims=True)", "", "subtract each row's maximum"),
    ("softmax", "return e /", "e /", "returns nothing (None)"),
    ("attention", ".transpose(1, 0, 2).reshape(hidden.shape)", ".reshape(hidden.shape)", "heads are not joined back"),
    ("attention", "self.value", "self.key", "the matrix of key is used for value"),
    ("attention", 'output.dense.weight"]', 'output.dense.weight"].T', "x @ W.T (of attention.output.dense)"),
    ("attention", "return layer_norm(summed, ", "return (lambda x, *_: x)(projected, ", "; and LayerNorm is left out"),
    ("gelu", None, "return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))", "tanh form"),
    ("gelu", "(1 + erf", "(erf", "1 + before erf is missing"),
    ("gelu", None, "from minisbert.model.ops import gelu\n    return gelu(x)", "the package's own"),
    ("gelu", "return x", "return np.nan * x", "there is nan in it"),
    ("feed_forward", "gelu(expanded)", "np.maximum(expanded, 0)", "ReLU"),
    ("feed_forward", '["output.LayerNorm.weight"]', '["output.LayerNorm.weight"] ** 0', "LayerNorm has no weight"),
    ("mean_pool", "hidden.mean(axis=0)", "hidden[0]", "[CLS]"),
    ("mean_pool", "hidden.mean(axis=0)", "hidden.mean(axis=1)", "one number for each token"),
    ("mean_pool", "hidden.mean(axis=0)", "list(hidden.mean(axis=0))", "in a list"),
    ("mean_pool", "hidden.mean(axis=0)", "hidden.mean(axis=0).astype(np.float16)", "float16"),
    ("normalize", "np.linalg.norm(x)", "(x**2).sum()", "squared length"),
    ("normalize", "max(np.linalg.norm(x), EPS)", "np.linalg.norm(x)", "zeros are divided by their length, 0"),
    ("normalize", "return", "raise SystemExit #", "ends the program"),
    ("info_nce", "np.mean", "np.sum", "added up, not averaged"),
    ("info_nce", "scale * ", "", "the scale is not used"),
    ("info_nce", " - top).sum(axis=1)) + top[:, 0]", ").sum(axis=1))", "subtract each row's maximum"),
    ("info_nce", "anchors @ positives.T", "positives @ anchors.T", "each positive picks an anchor"),
    ("softmax_backward", "(d_probs - along)", "d_probs", "no sum is subtracted"),
    ("softmax_backward", "probs * (d_probs", "-probs * (d_probs", "the sign is turned"),
    ("linear_backward", "d_y.T @ x", "x.T @ d_y", "d_weight: it is transposed"),
    ("linear_backward", "d_y.sum(axis=0)", "d_y.mean(axis=0)", "d_bias: it is averaged"),
    ("linear_backward", "d_y @ weight, d_y.T @ x", "d_y.T @ x, d_y @ weight", "not their order"),
    ("linear_backward", ", d_y.sum(axis=0)", "", "it returns 2 results; there are 3"),
    ("layer_norm_backward", " - d_z.mean(axis=-1, keepdims=True)", "", "d_x: mean(d_z) is not subtracted"),
    ("layer_norm_backward", "d_y * weight", "d_y", "d_x: d_y is not multiplied by weight"),
    ("layer_norm_backward", "(d_y * z).sum", "(d_y * x).sum", "d_weight: d_y is multiplied by x"),
    ("layer_norm_backward", "+ eps", "+ 1e-12", "with eps = 0.1"),
    ("gelu_backward", " + x * density", "", "the second term is missing"),
    ("gelu_backward", "-0.5 * x**2", "-(x**2)", "exp(-x^2), not exp(-x^2 / 2)"),
    ("gelu_backward", "return d_y", "return 3 * d_y", "3"),
    ("normalize_backward", " - y * (y @ d_y)", "", "the part along x is not taken away"),
    ("normalize_backward", "return", "input() #", "nobody is there to answer input()"),
]  # fmt: skip


def test_what_is_right_is_what_the_model_computes(encoder):
    """The inputs and the right answers are the encoder's own tensors."""
    given = rungs.cases(encoder)
    trace = encoder.trace([rungs.TEXTS[0]]).tensors()
    first = {
        "embed": "embeddings.output",
        "layer_norm": "layers.0.attention.output",
        "linear": "layers.0.attention.query",
        "attention": "layers.0.attention.output",
        "gelu": "layers.0.feed_forward.activated",
        "feed_forward": "layers.0.feed_forward.output",
        "mean_pool": "modules.0",
        "normalize": "sentence_embedding",
    }
    for name, tensor in first.items():
        np.testing.assert_allclose(
            np.squeeze(rungs.RIGHT[name](*given[name][0].arguments)), np.squeeze(trace[tensor]), atol=1e-12
        )


@pytest.mark.parametrize("turn", range(4))
def test_planted_mistakes_are_named(encoder, small, tmp_path, turn):
    """The first mistake of each function in one file, then the second: no function has more than four."""
    of = [[row for row in MISTAKES if row[0] == name][turn : turn + 1] for name in rungs.RIGHT]
    rows = [row for some in of for row in some]
    mine = tmp_path / "my_bert.py"
    mine.write_text(planted(*(row[:3] for row in rows)))
    report = climb(mine, small if turn else encoder)
    expected = {name: ("wrong", says) for name, _, _, says in rows}
    for rung in report.rungs:
        state, says = expected.get(rung.name, ("right", ""))
        assert rung.state == state and says in rung.says, rung
    assert not report.ok


HARM = {  # what a function may do to its process: the next are judged all the same
    "linear": ("sum(range(10**13))", "Python cannot interrupt it: killed after 2 seconds"),
    "softmax": ("while True: pass", "it does not end: stopped after 0.5 seconds"),
    "gelu": ("import ctypes; ctypes.string_at(0)", "it crashes Python: Segmentation fault"),
    "feed_forward": ("import os; os._exit(3)", "it ends the program (exit code 3)"),
}


def test_a_function_that_harms_its_process_is_named(small, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("".join(f"def {name}(*given):\n    {line}\n" for name, (line, _) in HARM.items()))
    said = {rung.name: rung.says for rung in climb(mine, small, seconds=0.5).rungs}
    for name, says in said.items():
        assert HARM.get(name, ("", "it is missing"))[1] in says, (name, says)


def test_the_stubs_are_to_do(small):
    report = climb(STUBS, small)
    assert {rung.state for rung in report.rungs} == {"to do"} and report.next == "embed" and not report.ok
    assert [rung.name for rung in report.rungs if rung.part == 1] == list(rungs.PART_ONE) and len(rungs.PART_ONE) == 10
    other = small.with_model(dataclasses.replace(small.model, modules=small.model.modules[:1]))
    with pytest.raises(ValueError, match="mean pooling and normalised"):
        climb(STUBS, other)


IMPORTS = {
    "def linear(": "SyntaxError: '(' was never closed (mine.py, line 3)",
    "import no_such_module": "No module named 'no_such_module' (mine.py, line 3: `import no_such_module`)",
    "while True: pass": "it does not end: stopped after 1 seconds (mine.py, line 3",
    "import os; os._exit(0)": "it ends the program (exit code 0)",
    "sum(range(10**13))": "Python cannot interrupt it: killed after 1 seconds (mine.py, line 3",
    "from minisbert.proof.ladder import climb; climb(__file__)": "is being judged already: what it does when",
}


def test_a_file_that_cannot_be_imported_says_where_and_is_not_tried_again(small, tmp_path, monkeypatch):
    mine, start, started = tmp_path / "mine.py", subprocess.Popen, []
    monkeypatch.setattr(subprocess, "Popen", lambda *what, **how: started.append(what) or start(*what, **how))
    for line, says in IMPORTS.items():
        mine.write_text(f"import numpy\n\n{line}\n")
        report = climb(mine, small, seconds=1)
        assert says in report.problem and not report.ok and not report.rungs, report.problem
    assert len(started) == len(IMPORTS)


def test_together_is_judged_by_the_students_encode(small, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(SOLUTION)
    assert climb(mine, small, seed=7).ok  # on other cases and texts
    mine.write_text(SOLUTION.replace("normalize(mean_pool(hidden))", "normalize(hidden[0])"))
    report = climb(mine, small)
    assert [both.state for both in report.together] == ["wrong"] * 2 and not report.next and not report.ok


def test_the_command_shows_what_was_found_and_what_is_next(small, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(planted(("gelu", "erf(x / math.sqrt(2))", "erf(x)")))
    command = ["verify", "--model", small.folder, "--mine", mine]
    shown = run(*command, code=1).stdout
    assert "✗ gelu" in shown and "9 of 10 right; next: gelu" in shown
    refused(*command, "--against", "torch", code=2)
    mine.write_text(SOLUTION[: SOLUTION.index("def info_nce")])  # part two may be left out
    report = told(*command)
    assert report["ok"] and report["next"] == "info_nce" and [r["state"] for r in report["rungs"]].count("right") == 10
    assert [both["texts"] for both in report["together"]] == [3, 100]
    assert max(both["difference"] for both in report["together"]) < 1e-12
