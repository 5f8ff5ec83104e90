"""Every exercise: its mistakes are named, right answers of any style pass, wrong ones do not, and nothing is told."""

# ruff: noqa: B905, SIM110
import inspect
import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from minisbert.course.exercises import Exercise, array, ask, check, exercises, hint, judge, mistaken
from minisbert.model.ops import gelu, layer_norm, linear, softmax
from minisbert.proof.student import call, same

norm, erf = np.linalg.norm, np.vectorize(math.erf, otypes=[float])


def unit(x):
    return x / norm(x, axis=1, keepdims=True)


def cosines_in_loops(a, b):
    return [[sum(x * y for x, y in zip(u, v)) / math.sqrt(sum(u * u) * sum(v * v)) for v in b] for u in a]


def pieces_by_while(word, vocabulary):
    found, rest, before = [], word, ""
    while rest:
        end = len(rest)
        while end and before + rest[:end] not in vocabulary:
            end -= 1
        if not end:
            return ("[UNK]",)
        found.append(before + rest[:end])
        rest, before = rest[end:], "##"
    return found


def summed_where(ids, lengths, word, position, token_type):
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return (word[ids] + position[np.arange(len(ids)) - starts] + token_type[0]).astype(np.float32)


def my_softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def previous_in_loops(probs):
    best = {}
    for layer, head in itertools.product(range(probs.shape[0]), range(probs.shape[1])):
        best[layer, head] = np.mean([probs[layer, head, t, t - 1] for t in range(1, probs.shape[2])])
    return max(best, key=best.get)


def agrees_in_loops(ours, reference, tolerance):
    if ours.shape != reference.shape:
        return False
    bound = tolerance * max([1.0, *(abs(r) for r in reference.ravel().tolist())])
    for x, y in zip(ours.ravel(), reference.ravel()):
        if not abs(x - y) <= bound:
            return False
    return True


def largest(x):
    return np.abs(x).max()


def shaped(rule):
    return lambda a, b, t: a.shape == b.shape and bool(rule(a, b, t))


def mean_in_loops(x, mask):
    return tuple(np.mean([row for row, is_token in zip(text, m) if is_token], axis=0) for text, m in zip(x, mask))


def masked_rows(scores, mask):
    out = np.zeros(scores.shape)
    out[:, mask] = my_softmax(scores[:, mask])
    return out


def wasted_while(lengths, batch_size):
    rows, i = 0, 0
    while i < len(lengths):
        batch = list(lengths[i : i + batch_size])
        rows += max(batch) * len(batch)
        i += batch_size
    return np.float64((rows - sum(lengths)) / rows)


def wasted_mean(lengths, batch_size):
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    return np.mean([1 - b.sum() / (len(b) * b.max()) for b in batches])


def windows_while(count, room, overlap):
    out, first = [], 0
    while True:
        out.append([first, min(count, first + room)])
        if first + room >= count:
            return out
        first += room - overlap


def owners_in_loops(windows):
    owners = np.zeros(windows[-1][1], int)
    best = -np.ones(len(owners))
    for i, (first, stop) in enumerate(windows):
        for token in range(first, stop):
            if (fewer := min(token - first, stop - 1 - token)) > best[token]:
                owners[token], best[token] = i, fewer
    return owners


def angles_by_atan(a, b):
    u, v = unit(a), unit(b)
    return 2 * np.arctan2(norm(u - v, axis=1), norm(u + v, axis=1)) / np.pi


def percentile_in_loops(score, scores):
    return 100 * sum(1.0 if s < score else 0.5 if s == score else 0 for s in scores) / len(scores)


def average_rank(x):
    return (x[:, None] > x).sum(1) + ((x[:, None] == x).sum(1) + 1) / 2


def normalize_backward_by_jacobian(d_y, x):
    rows = []
    for g, r in zip(d_y, x):
        n = norm(r)
        rows.append((np.eye(len(r)) / n - np.outer(r, r) / n**3) @ g)
    return np.stack(rows)


def nce_by_logsumexp(cosines, scale):
    s = scale * cosines
    return np.mean(np.log(np.exp(s).sum(1)) - s.diagonal())


def false_filled(classes):
    names = np.array(classes)
    out = names[:, None] == names
    np.fill_diagonal(out, False)
    return out


def measured(loss, x, h=1e-5):
    out = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = h
        out[place] = (loss(x + step) - loss(x - step)) / (2 * h)
    return out


def nothing(*arguments):
    result = arguments  # noqa: F841


RIGHT = "right"
ANSWERS = [  # of an exercise, right in another style, or wrong, and a word of what is said about it
    ("1.COSINES", cosines_in_loops, RIGHT),
    ("1.COSINES", lambda a, b: EXERCISES["1.COSINES"].solution(a, b), "the solution's"),
    ("1.NEAREST", lambda q, d, k: np.argsort(unit(d) @ q)[::-1][:k], RIGHT),
    ("1.NEAREST", lambda q, d, k: np.argsort(-(d / norm(d, axis=0) @ q))[:k], "called with"),
    ("1.CONTRIBUTIONS", lambda t, u: (t / len(t)) @ (u / len(u)).T / norm(t.mean(0)) / norm(u.mean(0)), RIGHT),
    ("1.CONTRIBUTIONS", lambda t, u: t @ u.T / (t @ u.T).sum(), "one factor"),
    ("2.PIECES", pieces_by_while, RIGHT),
    ("2.PIECES", lambda w, v: " ".join(pieces_by_while(w, v)), "a list is wanted"),
    ("2.PIECES", lambda w, v: pieces_by_while(w, v) if len(w) > 4 else [], "empty"),
    ("2.READ", lambda ids, limit: tuple([101] + [i for n, i in enumerate(ids) if n + 2 < limit] + [102]), RIGHT),
    ("2.READ", lambda ids, limit: [101, *ids[: limit - 3], 102], ""),
    ("2.READ", lambda ids, limit: [*[101, *ids, 102][: limit - 1], 102], ""),
    ("2.READ", lambda ids, limit: [101, *ids[:-2], 102], ""),
    ("2.READ", lambda ids, limit: [101, *sorted(ids[: limit - 2]), 102], ""),
    ("2.SUMMED", summed_where, RIGHT),
    ("2.SUMMED", lambda i, n, w, p, t: w[i] + p[np.arange(len(i)) % n[0]] + t[0], ""),
    ("2.SUMMED", lambda i, n, w, p, t: w[i] + np.vstack([p[: n[0]], p[: len(i) - n[0]]]) + t[0], ""),
    ("3.LOOK", lambda q, k, v: my_softmax(q @ k.T / q.shape[1] ** 0.5) @ v, RIGHT),
    ("3.LOOK", lambda q, k, v: softmax(q @ k.T / q.shape[1] ** 0.5) @ v, "comes from minisbert.model.ops.softmax"),
    ("3.LOOK", lambda q, k, v: my_softmax(q @ k.T / q.shape[1] ** 0.5).T @ v, ""),
    ("3.LOOK", lambda q, k, v: my_softmax(np.clip(q @ k.T / q.shape[1] ** 0.5, -700, 700)) @ v, ""),
    ("3.HEADS", lambda x, h: np.stack(np.split(x, h, axis=1)), RIGHT),
    ("3.PREVIOUS", previous_in_loops, RIGHT),
    ("3.PREVIOUS", lambda p: np.unravel_index(np.median(np.diagonal(p, -1, 2, 3), axis=-1).argmax(), p.shape[:2]), ""),
    ("3.PREVIOUS", lambda p: np.unravel_index((np.diagonal(p, -1, 2, 3) > 0.5).sum(-1).argmax(), p.shape[:2]), ""),
    ("3.PREVIOUS", lambda p: previous_in_loops(p[:, :, :4, :4]), ""),
    ("4.NORM", lambda x, w, b, e: w * ((x.T - x.mean(1)) * (x.var(1) + e) ** -0.5).T + b, RIGHT),
    (
        "4.NORM",
        lambda x, w, b, e: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, ddof=1, keepdims=True) + e),
        "two",
    ),
    ("4.GELU", lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))), RIGHT),
    ("4.GELU", lambda x: 0.5 * x * (1 + erf(x / 1.414)), "begins right"),
    ("4.THINK", lambda x, e, c, n: layer_norm(x + linear(gelu(linear(x, *e)), *c), *n, 1e-12), RIGHT),
    ("4.THINK", lambda x, e, c, n: layer_norm(linear(np.maximum(linear(x, *e), 0), *c), *n, 1e-12), "two things"),
    ("5.GAP", lambda x: 2.0 ** (math.floor(math.log2(abs(x))) - 23), RIGHT),
    ("5.GAP", lambda x: float(np.spacing(np.float32(x))), "abs() missing"),
    ("5.AGREES", agrees_in_loops, RIGHT),
    ("5.AGREES", shaped(lambda a, b, t: largest(a - b) > t * max(1, largest(b))), ""),
    ("5.AGREES", shaped(lambda a, b, t: np.nanmax(abs(a - b)) <= t * max(1, np.nanmax(abs(b)))), "NaN"),
    ("5.AGREES", shaped(lambda a, b, t: not np.isnan(a).any() and not largest(a - b) > t * max(1, largest(b))), ""),
    ("5.AGREES", shaped(lambda a, b, t: np.array_equal(a, b, equal_nan=True) or agrees_in_loops(a, b, t)), ""),
    ("5.AGREES", shaped(lambda a, b, t: (a == b).all()), ""),
    ("5.AGREES", lambda a, b, t: True, "whatever goes in"),
    ("5.AGREES", shaped(lambda a, b, t: largest(abs(a) - abs(b)) <= t * max(1, largest(b))), ""),
    ("5.AGREES", lambda a, b, t: agrees_in_loops(a, b, 1e-5), ""),
    ("5.AGREES", shaped(lambda a, b, t: np.isnan(b).all() or agrees_in_loops(a, b, t)), ""),
    ("5.SUSPECT_1", "b", RIGHT),
    ("5.SUSPECT_1", " B ", RIGHT),
    ("5.SUSPECT_1", lambda: "b", RIGHT),
    ("5.SUSPECT_1", "tea", "'tea' is none"),
    ("5.SUSPECT_1", ["b"], "['b'] is none"),
    ("5.SUSPECT_1", "e", "token type"),
    ("5.SUSPECT_2", "e", RIGHT),
    ("5.SUSPECT_2", "E", RIGHT),
    ("5.SUSPECT_2", lambda: "E", RIGHT),
    ("5.SUSPECT_2", None, "fill in"),
    ("5.SUSPECT_2", "b", "before layer 0"),
    ("6.MASKED_MEAN", mean_in_loops, RIGHT),
    (
        "6.MASKED_MEAN",
        lambda x, m: (x * m[:, :, None]).sum(1, keepdims=True) / m.sum(1)[:, None, None],
        "axis of length 1",
    ),
    ("6.MASKED_MEAN", lambda x, m: [text[: keep.sum()].mean(0) for text, keep in zip(x, m)], ""),
    ("6.MASKED_SOFTMAX", masked_rows, RIGHT),
    ("6.MASKED_SOFTMAX", lambda s, m: softmax(np.where(m, s, -np.inf)) * 2, "do not sum to 1"),
    ("6.MASKED_SOFTMAX", lambda s, m: softmax(np.where(m[:, None] & m, s, -np.inf)), "nan"),
    ("6.WASTED", wasted_while, RIGHT),
    ("6.WASTED", wasted_mean, ""),
    ("6.WASTED", lambda n, b: int(wasted_while(n, b)), "whatever goes in"),
    ("6.WASTED", lambda n, b: wasted_while(sorted(n, reverse=True), b), ""),
    (
        "6.WASTED",
        lambda n, b: 1 - sum(n) / sum(max(n[i : i + b][:2]) * len(n[i : i + b]) for i in range(0, len(n), b)),
        "",
    ),
    ("7.WINDOWS", windows_while, RIGHT),
    ("7.WINDOWS", lambda c, r, o: ((a, b) for a, b in windows_while(c, r, o)), "generator"),
    (
        "7.WINDOWS",
        lambda c, r, o: windows_while(c, r, o) if c > r else [(0, r)],
        "called with (3, 8, 2), it gives 8 at [0, 1]",
    ),
    ("7.COMPOSED", lambda v, n: (v * n[:, None]).sum(0) / norm((v * n[:, None]).sum(0)), RIGHT),
    ("7.OWNERS", owners_in_loops, RIGHT),
    ("7.OWNERS", lambda w: owners_in_loops(w)[:-1], "last is missing"),
    ("7.OWNERS", lambda w: [str(owner) for owner in owners_in_loops(w)], "a list of something else"),
    ("8.ANGLES", angles_by_atan, RIGHT),
    ("8.ANGLES", lambda a, b: np.nan_to_num(np.arccos((unit(a) * unit(b)).sum(1))) / np.pi, ""),
    ("8.ANGLES", lambda a, b: np.arccos(np.clip((unit(a) * unit(b)).sum(1), -1, 1)) / 3.1416, "0.9999977 times"),
    ("8.PERCENTILE", percentile_in_loops, RIGHT),
    ("8.PERCENTILE", lambda s, scores: str(percentile_in_loops(s, scores)), "text"),
    (
        "8.PERCENTILE",
        lambda s, scores: 50 * (np.mean(abs(scores) < abs(s)) + np.mean((abs(scores) < abs(s)) | (scores == s))),
        "",
    ),
    ("8.CORRELATION", lambda x, y: np.corrcoef(average_rank(x), average_rank(y))[0, 1], RIGHT),
    ("8.CORRELATION", lambda x, y: np.cov(average_rank(x), average_rank(y))[0, 1], ""),
    ("9.SLOPE", lambda f, x, h: ((f(x + h) - f(x)) / h + (f(x) - f(x - h)) / h) / 2, RIGHT),
    ("9.SLOPE", lambda f, x, h: (f(x + h) - f(x - h)) / (4 * h), "1/2 times"),
    ("9.SLOPE", lambda f, x, h: f, "brackets"),
    ("9.NORMALIZE_BACKWARD", normalize_backward_by_jacobian, RIGHT),
    ("9.NORMALIZE_BACKWARD", lambda d, x: measured(lambda moved: (d * unit(moved)).sum(), x), "a measured slope"),
    ("9.D_VALUE", lambda d, p: np.einsum("ts,tk->sk", p, d), RIGHT),
    ("10.INFO_NCE", nce_by_logsumexp, RIGHT),
    ("10.INFO_NCE", lambda c, s: nce_by_logsumexp(c, s) / math.log(2), "1/ln 2"),
    ("10.INFO_NCE", lambda c, s: -np.log(softmax(s * c).diagonal()).max(), ""),
    ("10.D_SCORES", lambda s: my_softmax(s) / len(s) - np.eye(len(s)) / s.shape[1], RIGHT),
    ("10.D_SCORES", lambda s: my_softmax(s) / len(s) - np.eye(len(s)), "except on the diagonal"),
    ("10.D_SCORES", lambda s: measured(lambda moved: nce_by_logsumexp(moved, 1.0), s), "a measured slope"),
    ("10.FALSE_NEGATIVES", false_filled, RIGHT),
    ("10.FALSE_NEGATIVES", lambda c: ~false_filled(c), "changed places"),
    ("10.FALSE_NEGATIVES", lambda c: [[a is b for b in c] for a in c], "diagonal"),
    ("10.FALSE_NEGATIVES", lambda c: [[a is b and i != j for j, b in enumerate(c)] for i, a in enumerate(c)], ""),
    ("10.FALSE_NEGATIVES", lambda c: [[i != j and a[0] == b[0] for j, b in enumerate(c)] for i, a in enumerate(c)], ""),
    ("10.FALSE_NEGATIVES", lambda c: [[i != j and a in b for j, b in enumerate(c)] for i, a in enumerate(c)], ""),
]

EXERCISES = {f"{chapter}.{name}": one for chapter in range(1, 11) for name, one in exercises(chapter).items()}
FORMS = [np.asarray, lambda y: np.asarray(y).tolist(), lambda y: np.float32(y) if is_real(y) else y]
"""What a right answer may be as well."""
GENERAL = [
    (lambda y: -y, "sign"),
    (lambda y: y + 1, "1 too large"),
    (lambda y: 2.0 * y, "2 times as large|do not sum to 1|lengths are not 1"),
    (lambda y: 1 - y, "1 minus"),
    (abs, "signs are lost"),
    (lambda y: y.round(2), "rounded to 2"),
    (lambda y: y.astype(int), "cut to whole"),
    (lambda y: y.T, "transpose"),
    (lambda y: y[::-1], "reversed"),
    (lambda y: y[None], "axis of length 1 too many|have the shape"),
    (lambda y: y[:-1], "last is missing|is wanted"),
    (lambda y: y.sum(), "sum"),
    (lambda y: y.mean(), "mean"),
]
"""What may be done wrong to any array of numbers, and a word of what is said then."""


def is_real(y):
    return np.asarray(y).dtype.kind == "f"


def numbers(x):
    """Each number of a result as it would be told."""
    try:
        x = np.asarray(x, float)
    except (ValueError, TypeError):
        return []
    return [f"{abs(number):.6g}" for number in x.ravel().tolist()]


def judged(exercise, answer):
    """The verdict, which tells no number and no text of the right results that is not in the question or the answer."""
    verdict = check(exercise, answer)
    source = inspect.getsource(answer) if callable(answer) else answer
    for case in exercise.cases:
        right, found = exercise.solution(*case), call(answer, *case) if case else answer
        told = str([exercise.cases, source, found, numbers(getattr(found, "value", None))])
        words = [f"'{w}'" for w in ([right] if isinstance(right, str) else right if isinstance(right, list) else [])]
        for secret in [*numbers(right), *words]:
            assert len(secret) < 4 or secret not in verdict.message or secret in told, (secret, verdict)
    return verdict


@pytest.mark.parametrize("name", EXERCISES)
def test_mistakes_are_named_and_invented_answers_are_judged(name):
    exercise = EXERCISES[name]
    assert exercise.level in (1, 2, 3) and exercise.minutes >= 5 and exercise.hint and exercise.more
    seeds = range(5) if exercise.draw else []
    drawn, again = ([exercise.draw(np.random.default_rng(seed)) for seed in seeds] for _ in range(2))
    assert repr(drawn) == repr(again) and len({*map(repr, drawn)}) == len(drawn)  # the same for all, and others
    more = replace(exercise, cases=[*exercise.cases, *drawn])  # as where marks are given
    assert check(more, exercise.solution).state == "right"
    for says, mistake in exercise.mistakes.items():
        assert repr(check(exercise, mistaken(exercise.solution, mistake))) == f"✗ {exercise.name}: {says}"
    for answer, said in (row[1:] for row in ANSWERS if row[0] == name):
        verdict = check(more, answer) if said == RIGHT else judged(exercise, answer)
        state = "to do" if answer is None else "right" if said == RIGHT else "wrong"
        assert verdict.state == state and said in verdict.message, (answer, verdict)
    if exercise.cases[0]:
        assert "returns nothing" in check(exercise, nothing).message
        assert check(exercise, lambda *_: None).state == check(exercise, ...).state == "to do"
        assert "brackets" in check(exercise, exercise.solution(*exercise.cases[0])).message


def of_solution(exercise, make):
    """The solution, and something made of its result."""
    solution = mistaken(exercise.solution, {})  # a copy: the solution itself is no answer
    return lambda *case: make(solution(*case))


ARRAYS = [name for name, one in EXERCISES.items() if isinstance(one.solution(*one.cases[0]), np.ndarray)]


@pytest.mark.parametrize("name", ARRAYS)
def test_general_mistakes_are_named_in_every_exercise(name):
    exercise = replace(EXERCISES[name], instead=())
    for form in FORMS:
        assert judge(exercise, ask(exercise.cases, of_solution(exercise, form))).state == "right"
    results = [exercise.solution(*case) for case in exercise.cases]
    for make, said in GENERAL:
        try:
            is_other = any(not same(make(right), right, exercise.tolerance) for right in results)
        except TypeError:  # the negative of True
            continue
        if is_other:
            verdict = judged(exercise, of_solution(exercise, make))
            assert re.search(said, verdict.message) or verdict.message.partition(": ")[2] in exercise.mistakes, (
                said,
                verdict,
            )


def rows(x):
    return x.sum(axis=1) + 0.0


ROWS = Exercise(
    rows,
    [(array([1, 2], [3, 5]),), (array([0.5, 1.0, -2.0]),)],
    {"these are the sums of the columns": {"axis=1": "axis=0"}, "nothing is added": {"0.0": "3.5"}},
    name="row sums",
    hint="one axis goes",
    more="axis=1",
    instead=("minisbert",),
)

VERDICTS = [
    (rows, "✓ row sums: right"),
    (lambda x: x.sum(axis=0), "✗ row sums: these are the sums of the columns"),
    (lambda x: x.sum(axis=0) + 3.5, "two things: these are the sums of the columns; and nothing is added"),
    (lambda x: -x.sum(axis=0), "two things: these are the sums of the columns; and then the sign is turned"),
    (None, "… row sums: fill in the cell above"),
    (lambda x: x.sum(axis=1) + np.arange(len(x)), "with ([[1., 2.], [3., 5.]]), it gives 9 at [1], which is too large"),
    (lambda x: x.sum(axis=1) / 0.0, "(NumPy warns: divide by zero"),
    (lambda x: x[5], "raises IndexError: index 5 is out of bounds for axis 0 with size 2 (test_exercises.py, line "),
    (lambda: 1, "cannot be called with 1 argument:"),
    (lambda x: "7", "it gives '7', text, and an array of shape (2,) is wanted"),
]


def test_a_verdict_says_what_is_wrong():
    for answer, said in VERDICTS:
        assert said in repr(check(ROWS, answer)), check(ROWS, answer)
    for mistakes in ([{"axis=2": ""}], [{"axis=1": "axis=0"}, {"axis=1": ""}], [{"axis=1": "axis=0"}, rows]):
        with pytest.raises(ValueError, match=r"not in the text|of its own"):
            mistaken(rows, *mistakes)
    assert repr(hint(ROWS)) == "→ row sums (level 1 of 3, 5 minutes): one axis goes" and "axis=1" in repr(hint(ROWS, 2))
