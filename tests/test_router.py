"""Routes, the router, its report and its thresholds: each against brute force, and each mistake refused with its place.

Almost everything runs on vectors of a toy encoder; the tiny model is there for what belongs to a model, and the real
one for the figures on banking77.
"""

import itertools
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import _optional_import
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import COMPANY, write_model

from minisbert import SentenceEncoder
from minisbert.evaluation.classification import LabelledTexts, read_labelled
from minisbert.saved import Origin, OriginError
from minisbert.search import router as router_module
from minisbert.search.route_files import as_table, dump_routes, read_routes, write_routes
from minisbert.search.route_fitting import cuts, fit_router, fit_thresholds
from minisbert.search.route_report import (
    NONE,
    ScoredQueries,
    auroc,
    report,
    score_examples,
    score_queries,
    share,
)
from minisbert.search.router import Router, best_routes
from minisbert.search.routes import Route, RouteTable, draw_routes
from minisbert.tables import InputError

ROUTES = {"refund": ["my money back", "return it"], "hours": ["when do you open"]}


class Toy:
    """A vector a text, drawn from a seed that the text gives: the same text, the same vector."""

    def __init__(self, width=6, scale=1.0):
        self.width, self.scale, self.calls = width, scale, []

    def encode(self, texts, **options):
        self.calls.append((list(texts), options))
        rows = [np.random.default_rng(list(text.encode())).normal(size=self.width) for text in texts]
        return np.array(rows).reshape(-1, self.width) * self.scale


class Plane:
    """A text "30" is the unit vector at 30 degrees; "30 2" twice as long."""

    def encode(self, texts, **_):
        rows = []
        for text in texts:
            angle, length = [*map(float, text.split()), 1.0][:2]
            rows.append([length * math.cos(math.radians(angle)), length * math.sin(math.radians(angle))])
        return np.array(rows)


def plane(routes, **more):
    return Router(Plane(), routes, similarity_fn_name="cosine", **more)


def cosine(degrees):
    return pytest.approx(math.cos(math.radians(degrees)), abs=1e-12)


# ------------------------------------------------------------------------------------------------------ routes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((" ", ["x"]), "a name must be a non-empty string"),
        ((3, ["x"]), "a name must be a non-empty string"),
        (("a\nb", ["x"]), "one line"),
        (("a ", ["x"]), "surrounding spaces"),
        (("a", []), "no examples"),
        (("a", "one"), "must be a list of texts, got a text"),
        (("a", 5), "must be a list of texts, got a int"),
        (("a", ["x", " "]), "an example is empty"),
        (("a", ["x", 5]), "got a int: 5; put it into quotes"),
        (("a", ["x", "y", "x"]), "'x' occurs twice"),
        (("a", ["\ud800"]), "half a character"),
        (("a", ["x"], float("nan")), "threshold must be a finite number"),
        (("a", ["x"], True), "threshold must be a finite number"),
        (("a", ["x"], "0.5"), "threshold must be a finite number"),
        (("a", ["x"], None, 5), "description must be a string"),
        (("a", ["x"], None, "", [1]), "metadata must be keys and values"),
        (("a", ["x"], None, "", {"a": {1, 2}}), "valid JSON"),
        (("a", ["x"], None, "", {1: 2}), "valid JSON"),
    ],
)
def test_a_route_that_makes_no_sense_is_refused(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        Route(*arguments)
    assert str(caught.value).startswith(f"route {arguments[0]!r}: ")


@pytest.mark.parametrize(
    ("routes", "more", "words"),
    [
        ([], {}, "no routes"),
        ([Route("a", ["x"]), Route("a", ["y"])], {}, "two routes are named 'a'"),
        ([Route("a", ["x"]), Route("b", ["y", "x"])], {}, "'x' occurs in 'a' and in 'b'"),
        ([Route("a", ["x"])], {"threshold": math.inf}, "finite"),
        ([Route("a", ["x"])], {"scoring": "mean"}, "nearest or centroid, got 'mean'"),
        ([Route("a", ["x"])], {"scoring": ["nearest"]}, "nearest or centroid"),
        (["a"], {}, "expected Route objects, got a text"),
    ],
)
def test_routes_that_do_not_fit_together_are_refused(routes, more, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        RouteTable(routes, **more)


def test_routes_are_drawn_from_a_table():
    labels = [label for label in "abcd" for _ in range(5)] + ["none"]
    texts = [f"{label} {i}" for label in "abcd" for i in range(5)] + ["elsewhere"]
    labelled = LabelledTexts("t", [*texts, "a 0"], [*labels, "a"])
    whole = draw_routes(labelled)
    assert (
        whole.names == ("a", "b", "c", "d") and len(whole.examples) == 20
    )  # "a 0" twice counts once, none is no route
    drawn = draw_routes(labelled, 2, hold_out=1, seed=3)
    assert len(drawn.names) == 3 and all(len(route.examples) == 2 for route in drawn.routes)
    assert all(text.startswith(route.name) for route in drawn.routes for text in route.examples)
    assert drawn == draw_routes(labelled, 2, hold_out=1, seed=3)
    assert len({draw_routes(labelled, 2, hold_out=1, seed=seed).examples for seed in range(10)}) > 5
    assert {draw_routes(labelled, hold_out=3, seed=seed).names for seed in range(30)} == {(name,) for name in "abcd"}
    assert "none" in draw_routes(labelled, none_label="a").names
    with pytest.raises(ValueError, match=r"4 labels have fewer than 6 different texts, the first is 'a'"):
        draw_routes(labelled, 6)
    for wrong in ({"hold_out": 4}, {"hold_out": -1}, {"per_route": 0}):
        with pytest.raises(ValueError, match="draw_routes"):
            draw_routes(labelled, **wrong)


# ------------------------------------------------------------------------------------------------------- files

LONG = """# a comment
routes:
  refund:
    - I want my money back
    - "quoted: text"
  hours:
    examples: [when do you open, 12:30, no, 2024-99-99]
    threshold: 0.6
    description: opening hours
    metadata: {team: 7, since: "2024-01-01", days: [1, 2]}
threshold: 0.5
scoring: centroid
"""


def test_a_file_as_people_write_it(tmp_path):
    (tmp_path / "r.yaml").write_text(LONG)
    table = read_routes(tmp_path / "r.yaml")
    refund, hours = table.routes
    assert refund == Route("refund", ["I want my money back", "quoted: text"])
    assert hours.examples == ("when do you open", "12:30", "no", "2024-99-99")  # texts as they stand there
    assert (hours.threshold, hours.description) == (0.6, "opening hours")
    assert hours.metadata == {"team": 7, "since": "2024-01-01", "days": [1, 2]}
    assert (table.threshold, table.scoring, table.origin, table.fitted) == (0.5, "centroid", None, None)


def test_the_same_routes_in_every_form(tmp_path):
    forms = {
        "short.yaml": "refund: [my money back, return it]\nhours:\n- when do you open\n",
        "bom.yml": "\ufeffroutes:\n  refund: [my money back, return it]\n  hours: [when do you open]\n",
        "list.yaml": "- {name: refund, examples: [my money back, return it]}\n"
        "- {name: hours, examples: [when do you open]}",
        "short.json": json.dumps(ROUTES),
        "long.json": json.dumps({"routes": [{"name": k, "examples": v} for k, v in ROUTES.items()]}),
        "table.csv": "intent,text\nrefund,my money back\nrefund,return it\nhours,when do you open\nnone,hello\n",
    }
    found = []
    for name, text in forms.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        found.append(read_routes(tmp_path / name))
    found += [as_table(ROUTES), as_table([Route(name, texts) for name, texts in ROUTES.items()]), as_table(found[0])]
    as_sets = [{route.name: route.examples for route in table.routes} for table in found]
    assert all(one == as_sets[0] for one in as_sets) and as_sets[0]["hours"] == ("when do you open",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("routes:\n  a: [x]\n  b: [y]\n  a: [z]\n", "line 4: 'a' already occurs on line 2"),
        ("routes:\n  a: [x]\nroutes:\n  b: [y]\n", "line 3: 'routes' already occurs on line 1"),
        ("a:\n- x\nb:\n- y\n- x\n", "line 5, route 'b': the example 'x' occurs in 'a' and in 'b'"),
        ("routes:\n  a:\n    examples:\n    - x\n    - y\n    - x\n", "line 6, route 'a': the example 'x' occurs"),
        ("routes:\n  a:\n    - x\n    -\n", "line 4, route 'a': an example is empty"),
        ("a:\n- x\n- # y\n", "line 3, route 'a': an example is empty"),
        ("a:\n- x\n- refund: my money\n", "line 3, route 'a': an example must be a string, got {'refund': 'my money'}"),
        ("routes:\n  a: [x]\n  b: []\n", "line 3, route 'b': no examples"),
        ("routes:\n  a: [x]\n  b:\n    threshold: 1\n", "line 3, route 'b': no examples"),
        ("routes:\n  a: just one text\n", "line 2, route 'a': examples must be a list"),
        ("routes:\n  a:\n    examples: [x]\n    treshold: 1\n", "line 4, route 'a': unknown key 'treshold'"),
        ("routes:\n  a:\n    examples: [x]\n    threshold: .nan\n", "line 4, route 'a': threshold must be a finite"),
        ("routes:\n  a:\n    examples: [x]\n    threshold: high\n", "line 4, route 'a': threshold must be a finite"),
        ("routes:\n  a:\n    examples: [x]\n    metadata: {on: 2024-01-01}\n", "line 4, route 'a': metadata must be"),
        ("routes:\n  a: [x]\nthreshold: yes\n", "line 3: threshold must be a finite number such as 0.5"),
        ("routes:\n  a: [x]\nscoring: closest\n", "line 3: scoring must be nearest or centroid, got 'closest'"),
        ("routes:\n  a: [x]\nrouts: 1\n", "line 3: unknown key 'routs'"),
        ("routes: 5\n", "line 1: expected names and their examples, got a int"),
        ("", "expected names and their examples, got nothing"),
        ("routes: {}\n", "no routes"),
        ("routes:\n- examples: [x]\n", "line 2, route number 1: a route in a list needs a name"),
        (
            "- {name: a, examples: [x]}\n- {name: a, examples: [y]}\n",
            "line 2, route number 2: two routes are named 'a'",
        ),
        ("- {name: a, examples: [x]}\n- {name: b, examples: [x]}\n", "line 2, route number 2: the example 'x' occurs"),
        ("a: &x [y]\nb: *x\n", "aliases"),
        ("a: !!python/tuple [y]\n", "tags"),
        ("a: [!!python/name:os.system y]\n", "tags"),
        ("a: [!!set y]\n", "tags"),
        ("<<: {a: [x]}\n", "a key must be a plain string, got << (merging)"),
        ("? [a, b]\n: [x]\n", "a key must be a plain string, got a sequence"),
        ("a: [how much?, b]\n", "line 1, column 13: not YAML"),
        ("a: 'x\n", "not YAML"),
        ("a: [x]\n---\nb: [y]\n", "line 2, column 1: not YAML"),
        ("a:\n- x\n- \x00\n", "line 3: not YAML: unacceptable character"),
        ("a: " + "[" * 1200, "nested too deeply"),
        ("a: [x]\nmodel: 5\nroutes: {a: [x]}\n", "unknown key 'a'"),
        ("routes: {a: [x]}\nmodel: {name: m}\n", "line 2: expected strings 'name' and 'fingerprint'"),
        ("routes: {a: [x]}\nfitted: 3\n", "line 2: expected keys and values"),
    ],
)
def test_mistakes_in_yaml_are_told_with_their_place(tmp_path, text, words):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_routes(file)
    assert str(caught.value).startswith(f"{file}") and words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": ["x"], "a": ["y"]}', "the key 'a' occurs twice"),
        ('{"a": [\n"x" "y"]}', "line 2, column 5: not JSON"),
        ('{"a": ["x", 5]}', "route 'a': an example must be a string, got a int: 5"),
        ('{"a": ["x", null]}', "route 'a': an example is empty"),
        ('{"routes": {"a": ["x"]}, "threshold": NaN}', "threshold must be a finite"),
        ("[5]", "expected name, examples"),
        ('"a"', "expected names and their examples, got a text"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_mistakes_in_json_are_told(tmp_path, text, words):
    file = tmp_path / "r.json"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_routes(file)
    assert str(caught.value).startswith(f"{file}") and words in str(caught.value)


def test_files_that_are_none(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"a: [\xff]")
    with pytest.raises(InputError, match=r"r\.yaml, byte 5: not UTF-8"):
        read_routes(tmp_path / "r.yaml")
    with pytest.raises(InputError, match=r"routes.txt: expected a name that ends in \.yaml"):
        read_routes("routes.txt")
    with pytest.raises(ValueError, match=r"must end in \.yaml, \.yml or \.json"):
        write_routes(as_table(ROUTES), tmp_path / "routes.csv")
    with pytest.raises(FileNotFoundError):
        read_routes(tmp_path / "no.yaml")


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(lambda text: text.strip())
traps = st.sampled_from(
    ["no", "~", "null", "12:30", "# x", "a: b", "- x", "0x1F", "1e3", "2024-01-01", "*a", "&b", "é\u2028"]
)
names = texts.filter(lambda text: text == text.strip() and text.isprintable()) | st.sampled_from(["no", "1", "~", "<<"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("routes")


@settings(max_examples=60)
@given(st.data())
def test_what_is_written_is_read(folder, data):
    chosen = data.draw(st.lists(names, min_size=1, max_size=3, unique=True))
    examples = data.draw(st.lists(texts | traps, min_size=len(chosen), max_size=8, unique=True))
    number = st.none() | st.floats(-1, 1)
    routes = [
        Route(
            name, examples[i :: len(chosen)], data.draw(number), data.draw(st.just("") | texts), {"a": [1, None, "2"]}
        )
        for i, name in enumerate(chosen)
    ]
    origin = data.draw(st.none() | st.just(Origin("m", "0" * 64, 256)))
    table = RouteTable(routes, data.draw(number), "centroid", origin, data.draw(st.none() | st.just({"queries": 5})))
    for name in ("r.yaml", "r.json"):
        (folder / name).write_bytes(dump_routes(table, as_json=name == "r.json").encode())
        assert read_routes(folder / name) == table


def test_a_merging_key_in_quotes_is_a_name():
    assert "'<<'" in dump_routes(RouteTable([Route("<<", ["x"])]))


# ------------------------------------------------------------------------------------------------------ router


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
def test_nearest_and_centroid_equal_brute_force(similarity, monkeypatch):
    monkeypatch.setattr(router_module, "_BLOCK_QUERIES", 3)
    routes = {f"r{r}": [f"example {r} {i}" for i in range(count)] for r, count in enumerate([1, 4, 2, 3])}
    asked = [f"query {i}" for i in range(8)]
    v = {text: Toy().encode([text])[0] for text in [*asked, *itertools.chain(*routes.values())]}
    score = {
        "cosine": lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
        "dot": lambda a, b: a @ b,
        "euclidean": lambda a, b: -np.linalg.norm(a - b),
        "manhattan": lambda a, b: -np.abs(a - b).sum(),
    }[similarity]
    length = np.linalg.norm if similarity == "cosine" else lambda vector: 1.0
    for scoring in ("nearest", "centroid"):
        choices = Router(Toy(), {"routes": routes, "scoring": scoring}, similarity_fn_name=similarity).route_all(asked)
        for one in choices:
            expected = {}
            for name, examples in routes.items():
                middle = np.mean([v[text] / length(v[text]) for text in examples], axis=0)
                near = max(score(v[one.query], v[text]) for text in examples)
                expected[name] = near if scoring == "nearest" else score(v[one.query], middle)
            assert one.scores == pytest.approx(expected, abs=1e-12)
            assert list(one.scores) == sorted(expected, key=expected.get, reverse=True)
            assert (one.best, one.runner_up) == tuple(list(one.scores)[:2]) and one.name == one.best
            assert one.margin == pytest.approx(one.scores[one.best] - one.scores[one.runner_up])
            assert one.example == max(routes[one.best], key=lambda text: score(v[one.query], v[text]))


def test_none_of_these_and_thresholds_of_their_own():
    router = plane({"routes": {"x": ["0"], "y": {"examples": ["90"], "threshold": 0.9}}, "threshold": 0.95})
    choice = router.route("10")
    assert (choice.name, choice.threshold, choice.score) == ("x", 0.95, cosine(10))
    assert router.route("30").name is None  # 0.87 < 0.95
    assert router.route("70").name == "y"  # 0.94 >= 0.9, though below the threshold of all
    # y needs less, but x is best: no second route takes its place
    near = plane({"routes": {"x": ["0"], "y": {"examples": ["50"], "threshold": 0.1}}, "threshold": 0.99}).route("20")
    assert (near.name, near.best, near.score) == (None, "x", cosine(20))
    assert near.runner_up == "y" and near.scores["y"] == cosine(30)
    assert list(router.thresholds) == [0.95, 0.9]
    assert list(plane({"x": ["0"]}).thresholds) == [-np.inf] and plane({"x": ["0"]}).route("180").name == "x"


def test_a_score_that_equals_the_threshold_is_enough():
    score = plane({"x": ["0"]}).route("60").score
    for threshold, name in ((score, "x"), (np.nextafter(score, 1), None)):
        assert plane({"routes": {"x": ["0"]}, "threshold": float(threshold)}).route("60").name == name


def test_equal_scores_go_to_the_first_route():
    assert plane({"b": ["40"], "a": ["20"]}).route("30").best == "b"
    assert plane({"a": ["20"], "b": ["40"]}).route("30").best == "a"
    assert plane({"a": ["20"], "b": ["40 7"]}).route("30").margin == pytest.approx(0, abs=1e-12)
    scores = np.array([[0.5, 0.5 + 5e-7], [0.5, 0.5 + 5e-6], [-500.0, -500.0 + 1e-5], [-np.inf, 0.1]])
    assert best_routes(scores).tolist() == [0, 1, 0, 1]


def test_a_single_route_has_no_second():
    choice = plane({"x": ["0"]}).route("1")
    assert choice.runner_up is None and choice.margin is None and choice.scores == {"x": cosine(1)}


def test_long_examples_weigh_no_more_in_a_centroid():
    router = plane({"routes": {"x": ["0 1", "90 50"], "y": ["200"]}, "scoring": "centroid"})
    assert router.route("45").score == cosine(0)
    with pytest.raises(ValueError, match="examples of route 'y' cancel out"):
        plane({"routes": {"x": ["0"], "y": ["90", "270"]}, "scoring": "centroid"})


def test_what_a_router_refuses_and_passes_on():
    toy = Toy()
    router = Router(toy, ROUTES, similarity_fn_name="cosine", prompt="q: ")
    assert router.route_all([]) == [] and router.route_all(iter(["x"]))[0].query == "x"
    assert [options for _, options in toy.calls] == [{"prompt": "q: "}] * 2
    assert router["hours"].examples == ("when do you open",) and "2 routes, 3 examples" in repr(router)
    with pytest.raises(KeyError):
        router["none"]
    for call in (lambda: router.route_all("x"), lambda: router.route(["x"]), lambda: router.route_all([None])):
        with pytest.raises(ValueError, match="expected"):
            call()
    with pytest.raises(ValueError, match="similarity_fn_name must be one of"):
        Router(toy, ROUTES, similarity_fn_name="angular")
    with pytest.raises(ValueError, match="one vector per text"):
        Router(type("Flat", (), {"encode": lambda self, texts: np.zeros(3)})(), ROUTES, similarity_fn_name="cosine")
    with pytest.raises(ValueError, match="NaN"):
        bad = type("Bad", (), {"encode": lambda self, texts: np.full((len(texts), 2), np.nan)})()
        Router(bad, ROUTES, similarity_fn_name="cosine").route("x")
    other = router.with_table(replace(router.table, threshold=0.5))
    assert len(toy.calls) == 2 and other.table.threshold == 0.5 and router.table.threshold is None
    with pytest.raises(ValueError, match="must be the router's own"):
        router.with_table(as_table({"refund": ["my money back"]}))


def test_company_does_not_decide(tmp_path):
    encoder = SentenceEncoder(write_model(tmp_path / "model"))
    router = Router(encoder, {"soup": ["i love soup", "soup"], "pets": ["the cat sat", "the dog ran"]})
    asked = ["the soup", "a cat", "on the mat", "SOUP", ""]
    together, alone = router.route_all(asked), [router.route(text) for text in asked]
    assert [one.name for one in together] == [one.name for one in alone]
    np.testing.assert_allclose([one.score for one in together], [one.score for one in alone], atol=COMPANY)
    assert together[3].score == pytest.approx(1, abs=1e-6) and together[3].example == "soup"


# ------------------------------------------------------------------------------------------------------ report


def scored(top, best, expected, routes=3):
    """Queries with a given best route and score; every other route scores 1 less."""
    scores = np.repeat(np.array(top, float)[:, None] - 1, routes, axis=1)
    scores[np.arange(len(top)), best] = top
    numbers = tuple(f"q{i}" for i in range(len(top)))
    return ScoredQueries(tuple("abcdefgh"[:routes]), numbers, np.array(expected), scores)


def test_every_figure_by_hand():
    queries = scored(
        top=[0.9, 0.8, 0.7, 0.3, 0.6, 0.2, 0.9], best=[0, 0, 1, 1, 1, 0, 2], expected=[0, 1, 1, 1, NONE, NONE, NONE]
    )
    found = report(queries, np.array([0.5, 0.5, 0.95]))
    assert found.decided.tolist() == [0, 0, 1, NONE, 1, NONE, NONE]
    assert found.correct.tolist() == [True, False, True, False, False, True, True]
    assert found.accuracy().mean == 4 / 7 and found.in_scope_accuracy().mean == 2 / 4
    assert found.best_is_right().mean == 3 / 4 and found.none_recall().mean == 2 / 3
    assert found.precision().mean == 2 / 4 and found.answered().mean == 4 / 7
    assert found.confusions() == [(None, "b", 1), ("b", None, 1), ("b", "a", 1)]
    a, b, c, none = found.by_route()
    assert a[:4] == ("a", 1, 2, 1) and (a.precision, a.recall, a.f1) == (0.5, 1.0, 2 / 3)
    assert b[:4] == ("b", 3, 2, 1) and b.f1 == 2 / 5
    assert c[:4] == ("c", 0, 0, 0) and math.isnan(c.f1) and math.isnan(c.precision)
    assert none[:4] == (None, 3, 3, 2) and none.f1 == 4 / 6
    assert found.macro_f1() == pytest.approx(np.mean([2 / 3, 2 / 5, 2 / 3]))
    assert found.auroc().mean == (2 + 0.5 + 2 + 2 + 1) / 12  # 0.9 ties with one


def test_figures_without_queries_of_a_kind():
    inside = report(scored([0.9, 0.8], [0, 1], [0, 1]), np.zeros(3))
    assert inside.none_recall() is None and inside.auroc() is None and inside.accuracy().mean == 1
    outside = report(scored([0.9, 0.8], [0, 1], [NONE, NONE]), np.ones(3))
    assert outside.in_scope_accuracy() is None and outside.precision() is None and outside.none_recall().mean == 1


def test_macro_f1_and_auroc_equal_sklearns(sklearn):
    from sklearn.metrics import f1_score, roc_auc_score

    rng = np.random.default_rng(0)
    queries = scored(rng.random(300).round(2), rng.integers(0, 3, 300), rng.integers(-1, 3, 300))
    found = report(queries, np.full(3, 0.4))
    assert found.macro_f1() == pytest.approx(f1_score(queries.expected, found.decided, average="macro"))
    assert found.auroc().mean == pytest.approx(roc_auc_score(queries.expected != NONE, queries.top))


def test_the_interval_of_auroc_is_delongs():
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(1, 1, 40).round(1), rng.normal(0, 2, 30).round(1)
    wins = np.array([[(s > t) + 0.5 * (s == t) for t in outside] for s in inside])
    variance = wins.mean(axis=1).var(ddof=1) / 40 + wins.mean(axis=0).var(ddof=1) / 30
    found = auroc(inside, outside)
    assert found.mean == pytest.approx(wins.mean(), abs=1e-12)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * math.sqrt(variance), rel=1e-6)
    assert math.isnan(auroc(np.array([2.0, 3.0]), np.array([1.0])).low)
    assert auroc(np.array([2.0, 2.1, 0.5]), np.array([1.0, 0.0])).high == 1.0


def test_shares_have_wilsons_interval():
    stats = _optional_import("scipy.stats")
    for k, n in ((0, 5), (5, 5), (3, 7), (240, 1000)):
        expected = stats.binomtest(k, n).proportion_ci(method="wilson")
        found = share(np.arange(n) < k)
        assert found == pytest.approx((k / n, expected.low, expected.high), abs=1e-12)
        assert found.low <= found.mean <= found.high


def test_labels_become_routes_or_none():
    router = Router(Toy(), ROUTES, similarity_fn_name="cosine")
    asked = LabelledTexts("asked.tsv", ["a", "b", "return it", "c"], ["hours", "none", "refund", "refund"])
    found = score_queries(router, asked)
    assert found.texts == ("a", "b", "c") and found.left_out == 1 and found.expected.tolist() == [1, NONE, 0]
    assert found.kinds == ("", "", "")
    np.testing.assert_allclose(
        found.scores, [[one.scores[n] for n in ROUTES] for one in router.route_all(["a", "b", "c"])]
    )
    other = LabelledTexts("asked.tsv", ["a", "b"], ["Hours", "hours"])
    with pytest.raises(
        ValueError, match=r"asked.tsv: 'Hours' \(1\) is not a route; the routes are 'refund', 'hours', and 'none'"
    ):
        score_queries(router, other)
    taken = score_queries(router, other, unknown_is_none=True)
    assert taken.expected.tolist() == [NONE, 1] and taken.kinds == ("Hours", "")
    assert score_queries(router, asked, none_label="x", unknown_is_none=True).expected.tolist() == [1, NONE, 0]
    with pytest.raises(ValueError, match="is also the name of a route"):
        score_queries(router, asked, none_label="hours")
    with pytest.raises(ValueError, match="all 1 queries are examples"):
        score_queries(router, LabelledTexts("t", ["return it"], ["refund"]))


@pytest.mark.parametrize("scoring", ["nearest", "centroid"])
def test_examples_are_asked_as_if_they_were_not_there(scoring):
    routes = {"a": ["a1", "a2", "a3"], "b": ["b1"], "c": ["c1", "c2"]}
    found = score_examples(Router(Toy(), {"routes": routes, "scoring": scoring}, similarity_fn_name="cosine"))
    assert found.texts == ("a1", "a2", "a3", "c1", "c2", "a1", "a2", "a3", "b1", "c1", "c2")
    assert found.expected.tolist() == [0, 0, 0, 2, 2] + [NONE] * 6
    for i, text in enumerate(found.texts):
        name = text[0]
        left = {other: [one for one in examples if one != text] for other, examples in routes.items()}
        if found.expected[i] == NONE:
            del left[name]
        smaller = Router(
            Toy(), {"routes": {k: v for k, v in left.items() if v}, "scoring": scoring}, similarity_fn_name="cosine"
        )
        expected = smaller.route(text).scores
        for r, other in enumerate(routes):
            assert found.scores[i, r] == (pytest.approx(expected[other], abs=1e-12) if other in expected else -np.inf)


def test_too_few_examples_to_ask():
    for routes in ({"a": ["x", "y"]}, {"a": ["x"], "b": ["y"]}):
        with pytest.raises(ValueError, match="nothing to compare"):
            score_examples(Router(Toy(), routes, similarity_fn_name="cosine"))


# ----------------------------------------------------------------------------------------------------- fitting

some_queries = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(-1, 2)), min_size=4, max_size=14
).filter(lambda rows: {expected == NONE for *_, expected in rows} == {True, False})


def worth(queries, thresholds, objective):
    """What an objective counts, by its words."""
    correct, is_none = report(queries, thresholds).correct, queries.expected == NONE
    if objective == "balanced":
        return (correct[is_none].mean() + correct[~is_none].mean()) / 2
    return correct.mean()


@settings(max_examples=50)
@given(some_queries, st.sampled_from(["accuracy", "balanced"]))
def test_no_threshold_is_better(rows, objective):
    top, best, expected = zip(*rows, strict=True)
    queries = scored(np.array(top) / 10, list(best), expected)
    every = [*np.arange(0, 1, 0.1) - 0.05, 2.0]
    highest = max(worth(queries, np.full(3, one), objective) for one in every)
    if highest == worth(queries, np.full(3, 2.0), objective):
        return  # best to refuse all, which may be an error; see below
    found = fit_thresholds(queries, objective=objective, per_route=False)
    assert worth(queries, np.full(3, found.threshold), objective) == pytest.approx(highest, abs=1e-12)
    assert (
        found.own == {} and found.seen.decided.tolist() == report(queries, np.full(3, found.threshold)).decided.tolist()
    )
    own = fit_thresholds(queries, objective=objective, per_route=True)
    assert own.threshold == found.threshold
    most = max(worth(queries, np.array(three), objective) for three in itertools.product(every, repeat=3))
    thresholds = np.array([own.own.get(name, own.threshold) for name in "abc"])
    assert worth(queries, thresholds, objective) == pytest.approx(most, abs=1e-12)
    for name in own.own:  # only where it brings something
        without = np.array([own.threshold if name == other else t for other, t in zip("abc", thresholds, strict=True)])
        assert worth(queries, without, objective) < most


@settings(max_examples=150)
@given(some_queries, st.sampled_from([0.3, 0.5, 2 / 3, 0.9, 1.0]))
def test_the_lowest_threshold_of_a_precision(rows, target):
    top, best, expected = zip(*rows, strict=True)
    queries = scored(np.array(top) / 10, list(best), expected)
    reached = []
    for threshold in sorted(set(queries.top)):
        taken = queries.top >= threshold
        if queries.is_right[taken].mean() >= target:
            reached.append(int(taken.sum()))
    if not reached:
        with pytest.raises(ValueError, match=r"no threshold reaches a precision of .* the highest is"):
            fit_thresholds(queries, objective="precision", precision=target)
        return
    found = fit_thresholds(queries, objective="precision", precision=target)
    assert (queries.top >= found.threshold).sum() == max(reached)
    assert found.seen.precision().mean >= target and found.precision == target and found.gain_of_own is None


def test_cuts_count_everything():
    rng = np.random.default_rng(2)
    top, gains = rng.integers(0, 8, 40) / 8, rng.integers(-3, 4, 40)
    low, high, total = cuts(top, gains)
    assert low[0] == -np.inf and high[-1] == np.inf and (low[1:] == high[:-1]).all()
    assert len(low) == len(set(top)) + 1
    for i in range(len(low)):
        assert total[i] == gains[top >= high[i]].sum() == gains[top > low[i]].sum()


def test_of_equally_good_thresholds_the_widest_gap_in_few_digits():
    queries = scored(
        [0.91, 0.82, 0.55, 0.52, 0.2], [0, 0, 0, 0, 0], [0, 0, 1, 1, NONE]
    )  # two wrong: taken or not, alike
    assert fit_thresholds(queries, per_route=False).threshold == 0.4  # between 0.2 and 0.52
    close = scored([0.6234567, 0.6234561], [0, 0], [0, NONE])
    assert fit_thresholds(close, per_route=False).threshold == 0.6234564


def test_a_route_that_only_harms_is_closed():
    top = [0.9, 0.8, 0.7, 0.3, 0.2, 0.95, 0.94, 0.93]
    queries = scored(top, [0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, NONE, NONE, NONE, NONE, NONE])
    found = fit_thresholds(queries, per_route=True)
    assert found.threshold == 0.5 and set(found.own) == {"b"} and 0.95 < found.own["b"] < 0.97
    assert found.seen.accuracy().mean == 1


def test_a_threshold_of_its_own_is_the_closest_one():
    # for b anything from below 0.30 up to 0.35, or above 0.60, is as good; the one for all lies at 0.5
    top = [0.9, 0.8, 0.7, 0.45, 0.44, 0.3, 0.35, 0.4, 0.60]
    queries = scored(top, [0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, NONE, NONE, NONE, 1, 1, NONE])
    own = fit_thresholds(queries, per_route=True)
    assert own.threshold in (0.5, 0.6, 0.65)
    assert 0.3 < own.own["b"] <= 0.35


def many(rng, queries=400, routes=3, shift=0.0, spread=0.15):
    """Queries whose scores overlap; the scores of route r lie higher by r times a shift."""
    best, is_none = rng.integers(0, routes, queries), rng.random(queries) < 0.4
    top = np.where(is_none, 0.3, 0.6) + shift * best + rng.normal(0, spread, queries)
    expected = np.where(is_none, NONE, np.where(rng.random(queries) < 0.9, best, (best + 1) % routes))
    return scored(top, best, expected, routes)


def test_routes_have_their_own_where_that_is_better_on_queries_not_seen():
    alike, unlike = many(np.random.default_rng(3)), many(np.random.default_rng(3), shift=0.4)
    found = fit_thresholds(alike)
    assert found.own == {} and not found.gain_of_own.low > 0
    found = fit_thresholds(unlike)
    assert found.gain_of_own.low > 0.05 and len(found.own) >= 2
    forced = fit_thresholds(unlike, per_route=False)
    assert forced.own == {} and forced.gain_of_own is None
    assert found.held_out.accuracy().mean > forced.held_out.accuracy().mean + 0.05


def test_held_out_figures_are_what_other_queries_give():
    seen, held_out, fresh = [], [], []
    for seed in range(30):
        found = fit_thresholds(many(np.random.default_rng(seed), 60, 6), per_route=True)
        thresholds = np.array([found.own.get(name, found.threshold) for name in "abcdef"])
        seen.append(found.seen.correct.mean())
        held_out.append(found.held_out.correct.mean())
        fresh.append(report(many(np.random.default_rng(1000 + seed), 5000, 6), thresholds).correct.mean())
    # measured: 0.865 seen, 0.726 held out, 0.735 fresh; the mean of 30 held-out ones has a standard error of 0.009
    assert abs(np.mean(held_out) - np.mean(fresh)) < 0.03
    assert np.mean(seen) > np.mean(fresh) + 0.08


def test_no_query_is_judged_by_thresholds_that_it_has_moved():
    queries = many(np.random.default_rng(5), 60, 2)
    queries = replace(queries, texts=tuple(f"q{i // 2}" for i in range(60)))  # in pairs of equal texts
    before = fit_thresholds(queries, per_route=True).held_out.decided
    for i in range(0, 60, 2):
        changed = queries.expected.copy()
        changed[i + 1] = NONE if changed[i + 1] != NONE else 0  # the twin's label; the first of a text deals the parts
        after = fit_thresholds(replace(queries, expected=changed), per_route=True).held_out.decided
        assert after[i] == before[i] and after[i + 1] == before[i + 1]


def test_queries_of_none_are_judged_without_their_kind():
    # near: above half of the queries of routes; who has seen some of them refuses them, who has not takes them
    top = [0.9] * 20 + [0.45] * 10 + [0.5] * 15 + [0.1] * 15
    expected = [0] * 30 + [NONE] * 30
    queries = scored(top, [0] * 60, expected)
    queries = replace(queries, kinds=("",) * 30 + ("near",) * 15 + ("far",) * 15)
    together = fit_thresholds(queries, per_route=False)
    assert together.threshold == 0.7
    assert (together.held_out.decided[30:45] == 0).all() and (together.held_out.decided[45:] == NONE).all()
    apart = fit_thresholds(replace(queries, kinds=None), per_route=False)
    assert (apart.held_out.decided[30:] == NONE).all() and apart.threshold == 0.7
    half = queries.of(np.arange(60) < 45)
    assert half.kinds == queries.kinds[:45] and len(half.texts) == len(half.scores) == len(half.expected) == 45


def test_a_fit_is_the_same_again_and_its_seed_deals_the_parts():
    queries = many(np.random.default_rng(6))
    one, same, other = (fit_thresholds(queries, seed=seed) for seed in (0, 0, 1))
    assert one.threshold == same.threshold == other.threshold and one.own == same.own
    assert one.held_out.decided.tolist() == same.held_out.decided.tolist() != other.held_out.decided.tolist()
    assert len(fit_thresholds(scored([0.9, 0.1], [0, 0], [0, NONE]), folds=10).held_out.decided) == 2


@pytest.mark.parametrize(
    ("queries", "settings", "words"),
    [
        (scored([0.9, 0.1], [0, 0], [0, 0]), {}, "no query is out-of-scope"),
        (scored([0.9, 0.1], [0, 0], [NONE, NONE]), {"objective": "precision"}, "all queries are out-of-scope"),
        (scored([0.9], [0], [0]), {"objective": "precision"}, "at least 2 different queries"),
        (scored([0.9, 0.8, 0.7], [0, 0, 0], [1, NONE, NONE]), {}, "rejecting every query"),
        (scored([0.9, 0.8], [0, 0], [1, NONE]), {"objective": "precision"}, "the highest is 0.0000"),
        (scored([0.9, 0.8], [0, 0], [0, NONE]), {"objective": "f1"}, "objective must be one of"),
        (scored([0.9, 0.8], [0, 0], [0, NONE]), {"precision": 0}, "precision must be in"),
        (scored([0.9, 0.8], [0, 0], [0, NONE]), {"precision": math.nan}, "precision must be in"),
        (scored([0.9, 0.8], [0, 0], [0, NONE]), {"folds": 1}, "2 folds, got 2 and 1"),
        (scored([0.9, 0.8], [0, 0], [0, NONE]), {"objective": "precision", "per_route": True}, "one threshold for all"),
    ],
)
def test_what_cannot_be_fitted_is_refused(queries, settings, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        fit_thresholds(queries, **settings)


def test_a_fitted_router_keeps_its_model_and_its_examples(tmp_path):
    encoder = SentenceEncoder(write_model(tmp_path / "model"))
    routes = {
        "soup": {"examples": ["soup!", "i love the soup"], "threshold": 0.1, "metadata": {"a": 1}},
        "pets": ["the cat sat", "the dog ran"],
    }
    texts = ["i love the soup!", "the cat ran", "the cat sat on the mat", "5 5 5", "6 5"]
    asked = LabelledTexts("asked.tsv", texts, ["soup", "pets", "pets", "none", "none"])
    router, fit = fit_router(Router(encoder, routes), asked, per_route=False)
    assert router.table.threshold == fit.threshold and router["soup"].threshold is None
    assert router["soup"].metadata == {"a": 1}
    assert router.table.fitted["of_none"] == 2 and router.table.fitted["to"] == "asked.tsv"
    assert router.table.fitted["held_out_accuracy"] == round(fit.held_out.accuracy().mean, 4)
    router.save(tmp_path / "routes.yaml")
    again = Router.from_file(encoder, tmp_path / "routes.yaml")
    assert again.table == router.table
    assert [one.name for one in again.route_all(asked.texts)] == [one.name for one in router.route_all(asked.texts)]
    other = SentenceEncoder(write_model(tmp_path / "other", seed=1))
    with pytest.raises(OriginError, match=r"this file of routes is of the model 'model'.*fit the thresholds again"):
        Router.from_file(other, tmp_path / "routes.yaml")
    encoder.max_seq_length = 7
    with pytest.raises(OriginError, match="max_seq_length = 16"):
        Router.from_file(encoder, tmp_path / "routes.yaml")
    encoder.max_seq_length = 16
    text = (tmp_path / "routes.yaml").read_text()
    (tmp_path / "routes.yaml").write_text(text.replace("i love the soup", "i love soup"))
    with pytest.warns(UserWarning, match="have changed since their thresholds were fitted"):
        Router.from_file(encoder, tmp_path / "routes.yaml")
    (tmp_path / "routes.yaml").write_text(text.replace(f"threshold: {fit.threshold}", "threshold: 0.5"))
    assert Router.from_file(encoder, tmp_path / "routes.yaml").table.threshold == 0.5  # one may know better


def test_thresholds_from_examples_alone():
    router = plane({"x": ["0", "10", "20"], "y": ["90", "100", "110"]})
    fitted, fit = fit_router(router)
    # 20 leaves 0.985 to its own; with x hidden the closest is 90 to 20: 0.34
    assert math.cos(math.radians(70)) < fitted.table.threshold <= math.cos(math.radians(10))
    assert fit.held_out.accuracy().mean == 1 and fitted.table.fitted["to"] == "examples, each left out"
    assert [one.name for one in fitted.route_all(["5", "95", "200", "300"])] == ["x", "y", None, None]


# --------------------------------------------------------------------------------------------------- banking77


def test_figures_on_banking77(data_folder, weights_folder):
    """Every 20th query of the test set, with the routes and the single threshold of which README tells the figures."""
    train, test = (read_labelled(data_folder / "banking77" / f"banking77_{part}.tsv") for part in ("train", "test"))
    some = LabelledTexts("every 20th", test.texts[::20], test.labels[::20])
    table = draw_routes(train, 8, hold_out=19, seed=0)
    queries = score_queries(Router(SentenceEncoder(weights_folder), table), some, unknown_is_none=True)
    found = report(queries, np.full(58, 0.6854))
    # (of these 154, of all 3,080); one query may fall on the other side by rounding
    figures = {
        "accuracy": (108 / 154, 0.7019, 1 / 154),
        "best_is_right": (94 / 116, 0.8043, 1 / 116),
        "none_recall": (22 / 38, 0.6303, 1 / 38),
        "auroc": (0.8589, 0.8564, 1e-3),
    }
    for name, (measured, of_all, margin) in figures.items():
        estimate = getattr(found, name)()
        assert abs(estimate.mean - measured) <= margin + 1e-12, name
        assert estimate.low < of_all < estimate.high, name


def test_a_threshold_that_no_cosine_reaches_is_refused():
    said = {"routes": {"a": ["banana"], "e": ["beetle"]}}
    for odd in (60, -1.5):
        with pytest.raises(ValueError, match=f"threshold must be a cosine, .* not a percentage; got {odd}"):
            Router(Toy(), said | {"threshold": odd}, similarity_fn_name="cosine")
    router = Router(Toy(), said | {"threshold": 1.0}, similarity_fn_name="cosine")
    with pytest.raises(ValueError, match=r"threshold must be a cosine.*got 2"):
        router.with_table(replace(router.table, threshold=2))
    Router(Toy(), said | {"threshold": 60}, similarity_fn_name="dot")
