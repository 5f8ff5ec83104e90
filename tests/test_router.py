"""Routes, the router, its report and its thresholds: each against brute force, and each mistake refused with its place.

Almost everything runs on vectors of a toy encoder; the tiny model is there for what belongs to a model, and the real
one for the figures on banking77.
"""

import itertools
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import write_model

from minisbert import SentenceEncoder
from minisbert.evaluation.classification import LabelledTexts, read_labelled
from minisbert.saved import Origin, OriginError
from minisbert.search.router import (
    Router,
    ScoredQueries,
    _held_out,
    best_routes,
    best_thresholds,
    evaluate_routes,
    fit_thresholds,
    report,
    score_queries,
)
from minisbert.search.routes import Route, RouteTable, as_table, read_routes, write_routes
from minisbert.tables import InputError

ROUTES = {"refund": ["my money back", "return it"], "hours": ["when do you open"]}
NONE = 3  # the number of out-of-scope queries beside three routes


class Toy:
    """A vector a text, drawn from a seed that the text gives: the same text, the same vector."""

    def encode(self, texts):
        return np.array([np.random.default_rng(list(text.encode())).normal(size=6) for text in texts]).reshape(-1, 6)


class Plane:
    """A text "30" is the unit vector at 30 degrees; "30 2" twice as long."""

    def encode(self, texts):
        numbers = [[*map(float, text.split()), 1.0][:2] if text.strip() else (0.0, 1.0) for text in texts]
        return np.array([[n * math.cos(math.radians(a)), n * math.sin(math.radians(a))] for a, n in numbers])


def plane(routes):
    return Router(Plane(), routes, similarity_fn_name="cosine")


def cosine(degrees):
    return pytest.approx(math.cos(math.radians(degrees)), abs=1e-12)


# ------------------------------------------------------------------------------------------------------ routes


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ({"a\nb": ["x"]}, "routes: a name"),
        ([{"name": "a", "examples": ["x"]}], "routes: must be names"),
        ({"a": []}, "routes.a.examples: "),
        ({"a": {"examples": "one"}}, "routes.a.examples: expected a list of texts, got a single text 'one'"),
        ({"a": ["x", " "]}, "routes.a.examples[1]: "),
        ({"a": ["x"], "b": ["y", "x"]}, "routes.b.examples[1]: 'x' is routes.a.examples[0] too"),
        ({"a": {"examples": ["x"], "treshold": 1}}, "routes.a.treshold: unknown key"),
        ({"a": {"examples": ["x"], "threshold": math.nan}}, "routes.a.threshold: "),
        ({"a": {"examples": ["x"], "metadata": [1]}}, "routes.a.metadata: "),
        ({"routes": {"a": ["x"]}, "scoring": ["nearest"]}, "scoring: "),
        ({"routes": {"a": ["x"]}, "model": {"name": "m"}}, "model: "),
        ({"routes": {"a": ["x"]}, "routs": 1}, "routs: unknown key"),
        ({}, "routes: empty"),
        ("routes:\n  a: [x]\n  a: [z]\n", "the key 'a' occurs twice"),
        ("? [a, b]\n: [x]\n", "the key ['a', 'b'] must be text"),
        ("a: [how much?, b]\n", "not YAML"),
        ("", "routes: must be names"),
    ],
)
def test_files_that_make_no_sense_are_refused_with_their_place(tmp_path, source, place):
    file = tmp_path / ("r.yaml" if isinstance(source, str) else "r.json")
    file.write_text(source if isinstance(source, str) else json.dumps(source))
    with pytest.raises(InputError) as caught:
        read_routes(file)
    said = str(caught.value).replace(", line 1, column 13", "")  # YAML's own
    assert said.startswith(f"{file}: {place}")


LONG = """# a comment
routes:
  refund:
    - I want my money back
    - "quoted: text"
  hours:
    examples: [when do you open, 12:30, no, 2024-99-99]
    threshold: 0.6
    description: opening hours
    metadata: {team: 7, days: [1, 2]}
threshold: 1e-1
scoring: centroid
"""


def test_a_file_as_people_write_it(tmp_path):
    (tmp_path / "r.yaml").write_text(LONG)
    table = read_routes(tmp_path / "r.yaml")
    assert table.routes == (
        Route("refund", ["I want my money back", "quoted: text"]),
        Route(
            "hours",
            ("when do you open", "12:30", "no", "2024-99-99"),  # texts as they stand there
            0.6,
            "opening hours",
            {"team": "7", "days": ["1", "2"]},
        ),
    )
    assert (table.threshold, table.scoring, table.origin, table.fitted) == (0.1, "centroid", None, None)


def test_the_same_routes_in_every_form(tmp_path):
    forms = {
        "short.yaml": "refund: [my money back, return it]\nhours:\n- when do you open\n",
        "bom.yml": "\ufeffroutes:\n  refund: [my money back, return it]\n  hours: [when do you open]\n",
        "long.json": json.dumps({"routes": {k: {"examples": v} for k, v in ROUTES.items()}}),
        "table.csv": "intent,text\nrefund,my money back\nrefund,return it\nhours,when do you open\nnone,hello\n"
        "refund,return it\n",
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_routes(tmp_path / name) == as_table(ROUTES), name
    assert as_table([Route(name, iter(texts)) for name, texts in ROUTES.items()]) == as_table(ROUTES)
    with pytest.raises(ValueError, match="routes: two are named 'a'"):
        RouteTable([Route("a", ["x"]), Route("a", ["y"])])


@settings(max_examples=30)
@given(st.data())
def test_whatever_stands_in_a_file_it_is_read_or_refused(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / data.draw(st.sampled_from(["fuzz.yaml", "fuzz.json"]))
    content = bytearray(LONG.encode() if file.suffix == ".yaml" else json.dumps(ROUTES).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 9))] = data.draw(
            st.sampled_from(list("[]{}:&*!-#'\"\n ")) | st.text(max_size=2)
        ).encode("utf-8", "replace")
    file.write_bytes(bytes(content))
    try:
        assert isinstance(read_routes(file), RouteTable)
    except InputError as error:
        assert str(error).startswith(str(file))


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(lambda text: text.strip())
traps = st.sampled_from(["no", "~", "null", "12:30", "# x", "a: b", "- x", "0x1F", "*a", "&b", "é\u2028", "a\x85b\nc"])
names = texts.filter(lambda text: text == text.strip() and text.isprintable()) | st.sampled_from(["no", "1", "~", "<<"])


@settings(max_examples=30)
@given(st.data())
def test_what_is_written_is_read(tmp_path_factory, data):
    chosen = data.draw(st.lists(names, min_size=1, max_size=3, unique=True))
    examples = data.draw(st.lists(texts | traps, min_size=len(chosen), max_size=8, unique=True))
    number = st.none() | st.floats(-1, 1)
    routes = [
        Route(name, examples[i :: len(chosen)], data.draw(number), data.draw(st.just("") | texts), {"a": ["1", {}]})
        for i, name in enumerate(chosen)
    ]
    origin = data.draw(st.none() | st.sampled_from([Origin("m", "0" * 64, 256), Origin("no", "1")]))
    table = RouteTable(routes, data.draw(number), "centroid", origin, data.draw(st.none() | st.just({"digest": "5"})))
    for name in ("r.yaml", "r.json"):
        file = tmp_path_factory.getbasetemp() / name
        write_routes(table, file)
        assert read_routes(file) == table


# ------------------------------------------------------------------------------------------------------ router


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
def test_nearest_and_centroid_equal_brute_force(similarity):
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
        router = Router(Toy(), {"routes": routes, "scoring": scoring}, similarity_fn_name=similarity)
        for one in router.route_all(asked):
            expected = {}
            for name, examples in routes.items():
                middle = np.mean([v[text] / length(v[text]) for text in examples], axis=0)
                near = max(score(v[one.query], v[text]) for text in examples)
                expected[name] = near if scoring == "nearest" else score(v[one.query], middle)
            assert one.scores == pytest.approx(expected, abs=1e-12)
            assert list(one.scores) == sorted(expected, key=expected.get, reverse=True)
            assert (one.best, one.runner_up) == tuple(list(one.scores)[:2]) and one.route == one.best
            assert one.margin == pytest.approx(one.scores[one.best] - one.scores[one.runner_up])
            assert one.example == max(routes[one.best], key=lambda text: score(v[one.query], v[text]))


def test_none_of_these_and_thresholds_of_their_own():
    own = {"examples": ["90"], "threshold": 0.9, "metadata": {"team": "zoo"}}
    router = plane({"routes": {"x": ["0"], "y": own}, "threshold": 0.95})
    choice = router.route("10")
    assert (choice.route, choice.threshold, choice.score, choice.metadata) == ("x", 0.95, cosine(10), {})
    assert router.route("30").route is None  # 0.87 < 0.95
    assert router.route("70").route == "y" and router.route("70").metadata == {"team": "zoo"}  # 0.94 >= 0.9
    # y needs less, but x is best: no second route takes its place
    near = plane({"routes": {"x": ["0"], "y": {"examples": ["50"], "threshold": 0.1}}, "threshold": 0.99}).route("20")
    assert (near.route, near.best, near.score, near.runner_up) == (None, "x", cosine(20), "y")
    single = plane({"x": ["0"]}).route("180")
    assert (single.route, single.threshold, single.runner_up, single.margin) == ("x", None, None, None)
    assert [one.route for one in plane({"x": ["0"]}).route_all(["", " \n", "180"])] == [None, None, "x"]


def test_equal_scores_go_to_the_first_route():
    assert plane({"b": ["40"], "a": ["20"]}).route("30").best == "b"
    assert plane({"a": ["20"], "b": ["40 7"]}).route("30").margin == pytest.approx(0, abs=1e-12)
    scores = np.array([[0.5, 0.5 + 5e-7], [0.5, 0.5 + 5e-6], [-500.0, -500.0 + 1e-5], [-np.inf, 0.1]])
    best, top = best_routes(scores)
    assert best.tolist() == [0, 1, 0, 1] and top.tolist() == [0.5, 0.5 + 5e-6, -500.0, 0.1]


def test_what_a_router_refuses():
    lone = plane({"x": ["0"]})
    for call, match in (
        (lambda: lone.route(["0", "180"]), "for several queries use route_all"),
        (lambda: lone.route_all("0"), "queries: expected an iterable"),
        (lambda: Router(Toy(), ROUTES, similarity_fn_name="angular"), "similarity_fn_name must be"),
        (lambda: Router(Broken(), ROUTES, similarity_fn_name="dot"), "NaN"),
        (lambda: plane({"routes": {"x": ["0"], "y": ["90", "270"]}, "scoring": "centroid"}), "'y' cancel out"),
        (lambda: plane({"routes": {"x": ["0"]}, "threshold": 60}), "Router: threshold must be a cosine.* got 60"),
        (lambda: plane({"x": {"examples": ["0"], "threshold": -1.001}}), r"routes\.x\.threshold must be a cosine"),
        (lambda: evaluate_routes(plane({"none": ["0"]}), LabelledTexts("t", ["1"], ["none"])), "none_label"),
        (lambda: evaluate_routes(lone, LabelledTexts("t", ["1"], ["y"])), r"'y' \(1\).*unknown_is_none"),
        (lambda: evaluate_routes(lone, LabelledTexts("t", ["0"], ["x"])), "are examples"),
        (lambda: fitted("xxx", objective="f1"), "objective must be one of"),
        (lambda: fitted("xx-", precision=math.nan), "precision must be in"),
        (lambda: fitted("xxx"), "no query is out-of-scope"),
        (lambda: fitted("--x"), "rejecting every query"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


class Broken:
    def encode(self, texts):
        return np.full((len(texts), 2), np.nan)


def fitted(labels, **settings):
    """Fit to queries at 1, 2, 3 degrees from the one example; "-" is out-of-scope."""
    asked = LabelledTexts("t", [str(i + 1) for i in range(len(labels))], ["none" if x == "-" else x for x in labels])
    return fit_thresholds(plane({"x": ["0"], "y": ["180"]}), asked, **settings)


# ------------------------------------------------------------------------------------------------------ report


def scored(top, best, expected, groups=None):
    """Queries with a given best route of three and its score."""
    numbers, arrays = [f"q{i}" for i in range(len(top))], map(np.array, (expected, best, top))
    return ScoredQueries(("a", "b", "c", "none"), numbers, *arrays, groups or numbers)


def test_every_figure_by_hand():
    queries = scored([0.9, 0.8, 0.7, 0.3, 0.6, 0.2, 0.9], [0, 0, 1, 1, 1, 0, 2], [0, 1, 1, 1, NONE, NONE, NONE])
    decided = queries.decide(np.array([0.5, 0.5, 0.95]))
    assert decided.tolist() == [0, 0, 1, NONE, 1, NONE, NONE]
    found = report(queries, decided)
    assert (found.queries, found.out_of_scope) == (7, 3)
    assert {name: value[0] for name, value in vars(found).items() if hasattr(value, "mean")} == {
        "in_scope_accuracy": 2 / 4, "best_is_right": 3 / 4, "none_recall": 2 / 3, "answered": 4 / 7,
        "precision": 2 / 4,
    }  # fmt: skip
    assert found.labels.accuracy.mean == 4 / 7 and found.labels.classes["none"].recall.mean == 2 / 3
    # rows: true a, b, c, none; columns: what they were taken for, and undecided
    assert found.labels.confusion.tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 1, 0], [0] * 5, [0, 1, 0, 2, 0]]
    assert found.results[3] == ("q3", "b", None, "b", 0.3) and found.results[4].expected is None
    inside = report(scored([0.9, 0.8], [0, 1], [0, 1]), np.array([0, NONE]))
    assert math.isnan(inside.none_recall.mean) and inside.precision.mean == 1


def test_labels_and_examples_of_queries():
    asked = LabelledTexts("t", ["1", "2", "200", "0"], ["x", "-", "fish", "x"])
    found = evaluate_routes(
        plane({"routes": {"x": ["0"]}, "threshold": 0.5}), asked, none_label="-", unknown_is_none=True
    )
    assert (found.queries, found.out_of_scope, found.left_out) == (3, 2, 1)
    assert [(one.expected, one.route) for one in found.results] == [("x", "x"), (None, "x"), (None, None)]
    kinds = score_queries(plane({"x": ["0"]}), LabelledTexts("t", ["1", "2", "3"], ["x", "fish", "fish"]), "none", True)
    assert kinds.groups[0] != kinds.groups[1] == kinds.groups[2]


# ----------------------------------------------------------------------------------------------------- fitting


def worth(queries, thresholds, objective):
    """What an objective counts, by its words."""
    correct, is_none = queries.decide(thresholds) == queries.expected, queries.expected == NONE
    if objective == "balanced":
        return (correct[is_none].mean() + correct[~is_none].mean()) / 2
    return correct.mean()


some_queries = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 1), st.integers(0, 3)), min_size=4, max_size=14
).filter(lambda rows: {expected == NONE for *_, expected in rows} == {True, False})
EVERY = [*np.arange(0, 1, 0.1) - 0.05, 2.0]


@settings(max_examples=30)
@given(some_queries, st.sampled_from(["accuracy", "balanced"]))
def test_no_threshold_is_better(rows, objective):
    top, best, expected = zip(*rows, strict=True)
    queries = scored(np.array(top) / 10, list(best), expected)
    one, same = best_thresholds(queries, objective, None, False)
    highest = max(worth(queries, np.full(3, each), objective) for each in EVERY)
    assert worth(queries, same, objective) == pytest.approx(highest, abs=1e-12) and (same == one).all()
    common, own = best_thresholds(queries, objective, None, True)
    most = max(worth(queries, np.array([*two, 0]), objective) for two in itertools.product(EVERY, repeat=2))
    assert common == one and worth(queries, own, objective) == pytest.approx(most, abs=1e-12)
    for r in np.flatnonzero(own != one):  # only where it brings something
        assert worth(queries, np.where(np.arange(3) == r, one, own), objective) < most


@settings(max_examples=40)
@given(some_queries, st.sampled_from([0.3, 0.5, 2 / 3, 0.9, 1.0]), st.booleans())
def test_the_lowest_threshold_of_a_precision(rows, target, per_route):
    top, best, expected = map(np.array, zip(*rows, strict=True))
    queries = scored(top / 10, best, expected)
    _, each = best_thresholds(queries, "precision", target, per_route)
    for among in [best == r for r in range(2)] if per_route else [best >= 0]:
        reached = [0]
        for threshold in set(queries.top[among]):
            taken = (queries.top >= threshold) & among
            if (best == expected)[taken].mean() >= target:
                reached.append(int(taken.sum()))
        assert ((queries.decide(each) != NONE) & among).sum() == max(reached)


def test_of_equally_good_thresholds_the_widest_gap_in_few_digits():
    two_wrong = scored([0.91, 0.6, 0.55, 0.4], [0] * 4, [0, 1, 1, NONE])  # taken or not, alike
    assert best_thresholds(two_wrong, "accuracy", None, False)[0] == 0.8  # between 0.6 and 0.91
    close = scored([0.6234567, 0.6234561], [0, 0], [0, NONE])
    assert best_thresholds(close, "accuracy", None, False)[0] == 0.6234564


def many(rng, queries=400, groups=None):
    """Queries whose scores overlap."""
    best, is_none = rng.integers(0, 3, queries), rng.random(queries) < 0.4
    top = np.where(is_none, 0.3, 0.6) + rng.normal(0, 0.15, queries)
    expected = np.where(is_none, NONE, np.where(rng.random(queries) < 0.9, best, (best + 1) % 3))
    return scored(top, best, expected, groups)


def test_a_group_is_judged_by_thresholds_that_have_not_seen_it(sklearn):
    # near: above half of the in-scope queries; who has seen some of them rejects them, who has not takes them
    top, expected = [0.9] * 20 + [0.45] * 10 + [0.5] * 15 + [0.1] * 15, [0] * 30 + [NONE] * 30
    kinds = [f"q{i}" for i in range(30)] + ["near"] * 15 + ["far"] * 15
    together = _held_out(scored(top, [0] * 60, expected, kinds), 5, 0, "accuracy", None, False)
    assert (together[30:45] == 0).all() and (together[45:] == NONE).all()
    assert (_held_out(scored(top, [0] * 60, expected), 5, 0, "accuracy", None, False)[30:] == NONE).all()
    one, same, other = (
        _held_out(many(np.random.default_rng(6)), 5, seed, "accuracy", None, True) for seed in (0, 0, 1)
    )
    assert one.tolist() == same.tolist() != other.tolist()


def test_a_fitted_router_keeps_its_model_and_its_examples(tmp_path, sklearn):
    encoder = SentenceEncoder(write_model(tmp_path / "model"))
    routes = {
        "soup": {"examples": ["soup!", "i love the soup"], "threshold": 0.1, "metadata": {"a": "1"}},
        "pets": ["the cat sat", "the dog ran"],
    }
    texts = ["i love the soup!", "the cat ran", "the cat sat on the mat", "5 5 5", "6 5"]
    asked = LabelledTexts("asked.tsv", texts, ["soup", "pets", "pets", "none", "none"])
    router, fit = fit_thresholds(Router(encoder, routes), asked)
    assert router.table.threshold == fit.threshold and router.table.routes[0].threshold is None
    assert router.table.routes[0].metadata == {"a": "1"} and router.table.fitted["out_of_scope"] == 2
    file = tmp_path / "routes.yaml"
    write_routes(router.table, file)
    again = Router(encoder, read_routes(file))
    assert asdict(again.table) | {"fitted": 0, "file": ""} == asdict(router.table) | {"fitted": 0}
    assert again.route_all(texts) == router.route_all(texts)
    with pytest.raises(OriginError, match="fit the thresholds again"):
        Router(SentenceEncoder(write_model(tmp_path / "other", seed=1)), read_routes(file))
    text = file.read_text()
    file.write_text(text.replace("i love the soup", "i love soup"))
    with pytest.warns(UserWarning, match="have changed since their thresholds were fitted"):
        Router(encoder, read_routes(file))
    file.write_text(text.replace(f"threshold: {fit.threshold}", "threshold: 0.5"))
    assert Router(encoder, read_routes(file)).table.threshold == 0.5  # one may know better


# --------------------------------------------------------------------------------------------------- banking77


def test_figures_on_banking77(data_folder, weights_folder):
    """Every 20th query of the test set, with the 58 routes and the single threshold that search/README.md tells of."""
    train, test = (read_labelled(data_folder / "banking77" / f"banking77_{part}.tsv") for part in ("train", "test"))
    rng, pairs = np.random.default_rng(0), dict.fromkeys(zip(train.labels, train.texts, strict=True))
    left_out = rng.choice(sorted(set(train.labels)), 19, replace=False)
    pairs = [(label, text) for label, text in pairs if label not in left_out]
    routes = {label: [] for label in sorted({label for label, _ in pairs})}
    for label, text in (pairs[i] for i in rng.permutation(len(pairs))):
        routes[label] += [text] * (len(routes[label]) < 8)
    some = LabelledTexts("every 20th", test.texts[::20], test.labels[::20])
    router = Router(SentenceEncoder(weights_folder), {"routes": routes, "threshold": 0.6854})
    found = evaluate_routes(router, some, unknown_is_none=True)
    # (of these 154, of all 3,080); one query may fall on the other side by rounding
    for figure, measured, of_all, margin in (
        (found.labels.accuracy, 108 / 154, 0.7019, 1 / 154),
        (found.best_is_right, 94 / 116, 0.8043, 1 / 116),
        (found.none_recall, 22 / 38, 0.6303, 1 / 38),
    ):
        assert abs(figure.mean - measured) <= margin + 1e-12 and figure.low < of_all < figure.high
