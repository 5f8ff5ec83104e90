"""A student's function is run whatever it does, and its result is explained without telling the right one."""

import itertools
import json
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from minisbert.model.ops import softmax
from minisbert.proof.student import call, explain_calls, same


def recurses(x):
    return recurses(x)


def catches_all(x):
    while True:
        try:
            time.sleep(1.0)
        except:  # noqa: E722
            continue


def catches_exceptions(x):
    while True:
        try:
            x = np.add(x, 0)  # a call: Python 3.10 lets no alarm through a loop that begins with try and calls nothing
        except Exception:
            continue


def gives_up(x):
    try:
        while True:
            pass
    except BaseException:
        return x


def forgets(x):
    y = x + 1  # noqa: F841


def sometimes(x):
    if x[0] > 9:
        return x


def changes(x):
    x *= 2
    return x


def closes_stdout(x):
    sys.stdout.close()
    np.seterr(all="raise")
    return x


class Hostile:
    def fail(self, *_, **__):
        raise KeyboardInterrupt("hostile")

    __eq__ = __repr__ = __str__ = __len__ = __bool__ = __float__ = __iter__ = fail


class HostileArray(Hostile):
    __array__ = Hostile.fail


class Unsayable(Exception):
    def __str__(self):
        raise ValueError


def raises(error):
    def answer(x):
        raise error

    return answer


X = np.array([1.0, 2.0])

OUTCOMES = [  # what a student may write, the state, a word of what is said, a word of the line
    (lambda x: x + 1, "value", "", ""),
    (closes_stdout, "value", "", ""),
    (lambda x: None, "to do", "not filled in", ""),
    (raises(NotImplementedError), "to do", "not filled in", ""),
    (forgets, "nothing", "return", ""),
    (sometimes, "nothing", "branch", ""),
    (lambda x: print(x), "nothing", "print", ""),
    (lambda x: (i for i in x), "unusable", "generator", ""),
    (lambda x: x.sum, "unusable", "brackets", ""),
    (lambda x: Hostile(), "unusable", "Hostile", ""),
    (lambda x: HostileArray(), "raises", "KeyboardInterrupt", "raise KeyboardInterrupt"),
    (changes, "changed", "argument x", ""),
    (lambda: 1, "refused", "1 argument:", ""),
    (lambda x: np.linalg.inv(x), "raises", "LinAlgError", "np.linalg.inv(x)"),  # not NumPy's line
    (raises(SystemExit(1)), "raises", "ends the program", "raise error"),
    (raises(Unsayable()), "raises", "Unsayable", "raise error"),
    (raises(MemoryError()), "raises", "memory", "raise error"),
    (recurses, "raises", "calls itself", "recurses(x)"),
    (catches_all, "endless", "does not end", ""),
    (catches_exceptions, "endless", "does not end", ""),
    (gives_up, "endless", "does not end", ""),
    (lambda x: [0 for _ in itertools.count()], "endless", "does not end", "itertools.count()"),
]


def test_whatever_a_function_does_is_told():
    before, threads = (sys.getprofile(), sys.gettrace(), np.geterr(), sys.stdout), threading.active_count()
    for answer, state, said, line in OUTCOMES:
        outcome = call(answer, X, seconds=0.2 if state == "endless" else 10.0)
        assert outcome.state == state and said in outcome.problem and line in outcome.line, (answer, outcome)
        assert (outcome.line.startswith("test_student.py, line ")) == bool(line or state == "endless"), outcome
    assert before == (sys.getprofile(), sys.gettrace(), np.geterr(), sys.stdout)
    assert threading.active_count() <= threads + 2  # but for those that catch everything, what was stopped has ended
    np.testing.assert_array_equal(X, [1.0, 2.0])


def test_what_it_warns_of_and_borrows_is_kept_and_what_it_prints_is_not_shown(capsys):
    def answer(x):
        print("soup")
        return softmax(x / 0.0)

    outcome = call(answer, X)
    assert "divide by zero" in outcome.warned
    assert outcome.used == ("minisbert.model.ops.softmax",) and not capsys.readouterr().out
    assert call(softmax, X).used == outcome.used and call(np.exp, X).used == ()


def test_in_a_notebook_the_cell_is_named_and_a_loop_is_stopped():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    cells = [
        "from minisbert.proof.student import call",
        "def f(x):\n    while True:\n        x += 1",
        "print(call(f, 1, seconds=0.3).line)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert notebook.cells[2].outputs[0]["text"].startswith("In[2], line "), json.dumps(notebook.cells[2].outputs)


RNG = np.random.default_rng(0)
E = RNG.normal(size=(3, 4))
S = RNG.normal(size=(3, 3))
P = softmax(S)

EXPLAINED = [  # a wrong result, the right one, a word of what is said
    (E.T, E, "transpose"),
    (-E, E, "sign is turned"),
    (2 * E, E, "comes out 2 times"),
    (-E / 3, E, "comes out 1/x.shape[0] times"),
    (E * np.sqrt(4 / 3), E, "sqrt(x.shape[1]/(x.shape[1] - 1))"),
    (E * np.log(2), E, "ln 2"),
    (E * 1.7, E, "1.7 times"),
    (E + 0.3, E, "added to all: 0.3"),
    (E + 1, E, "1 too large"),
    (np.roll(E, 1, 0), E, "one place too late"),
    (E[:-1], E, "the last is missing"),
    (E[[1, 0, 2]], E, "wrong places"),
    (E.round(3), E, "rounded to 3"),
    (E.astype(np.float32).astype(float), E, "float32"),
    (E, np.abs(E), "abs"),
    (P**2, P, "square"),
    (1 - P, P, "1 minus"),
    (np.log(P), P, "logarithm"),
    (E / np.linalg.norm(E, axis=1, keepdims=True), E, "length 1"),
    (P * [[1], [2], [3]], P, "do not sum to 1"),
    (E * [[1], [2], [3]], E, "the first row is right"),
    (E * [[4], [2], [3]], E, "factor of its own"),
    (E + np.array([[4], [2], [3]]), E, "a number of its own"),
    (S + np.diag([1, 2, 3]), S, "except on the diagonal"),
    (np.triu(S, 1), S, "above the diagonal"),
    (E.sum(), E, "one number comes out"),
    (E[:, :1].ravel(), E[:, :1], "keepdims"),
    (E[:, :1], E[:, 0], "axis of length 1 too many"),
    (E.ravel(), E, "shape is lost"),
    (E * np.nan, E, "nan"),
    (S > 0, S <= 0, "changed places"),
    (E + 0.5 * S[:, [0, 1, 2, 0]], E, "at ["),
    (np.zeros((7, 2)), E, "shape (7, 2)"),
    (0.84140, 0.84147, "0.8414 begins right, and parts at digit 5"),
    (-0.5, 0.7, "wrong sign"),
    ("7", 7.5, "one number is wanted"),
    (["a", "b"], ["b", "a"], "reversed"),
    (["a", "x"], ["a", "b"], "'x'"),
    ({"a": 1}, E, "a dict"),
    ([[1.0], [1.0, 2.0]], E, "rows that differ"),
]


def test_what_is_wrong_with_a_result_is_said():
    for found, expected, said in EXPLAINED:
        told = explain_calls([(found, expected, {"x": np.zeros((3, 4))})])
        assert said in told, (said, told)
        assert explain_calls([(expected, expected, {})]) == ""
    # a mistake must explain every call
    calls = [(2 * E, E, {"x": np.zeros(2)}), (3 * S, S, {"x": np.zeros(3)})]
    assert "len(x) times" in explain_calls(calls)
    assert "times" not in explain_calls([(2 * E, E, {}), (3 * S, S, {})])
    assert explain_calls([(2 * E, E, {}), (S, S, {})], wholly=True) == ""  # one is right: no factor was forgotten


def test_the_same_in_another_form_is_the_same():
    right = [list(map(list, E)), tuple(map(tuple, E)), E.astype(np.float32), E + 1e-12, np.asfortranarray(E)]
    assert all(same(x, E) for x in right)
    assert not same(E + 1e-6, E) and not same(E.astype(np.float16), E) and not same(E[None], E)
    assert same(np.array(["a", "b"]), ["a", "b"]) and same([(0, 4)], np.array([[0, 4]])) and not same(["a"], "a")


def test_exit_in_a_notebook_is_an_error_of_the_function(monkeypatch):
    shell = type("Shell", (), {"ask_exit": lambda _: pytest.fail("the kernel ends")})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert call(lambda: shell.ask_exit()).problem.startswith("it ends the program")
    assert not vars(shell)
