"""Shapes in comments and docstrings are executed: each ``# (N, D)`` is compared with the array that its line made.

A tiny model whose sizes all differ runs under a trace function. A shape that is wrong fails, and so does one whose line
never ran. Shapes stand behind assignments (checked when the line has run), behind the fields of dataclasses (checked on
the instances that the run made), and in docstrings, as ``(N, D), (B,) -> (B, D)``: what the arrays among a function's
arguments are, and what it returns.
"""

import ast
import re
import sys
import tempfile
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny import write_model

from minisbert import SentenceEncoder, encoder, long_texts, similarity
from minisbert.model import bert, ops, params, pooling, tokens
from minisbert.model.config import BertConfig
from minisbert.model.pooling import Dense, Normalize, Pooling
from minisbert.training import losses

CONFIG = BertConfig(
    vocab_size=31,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=9,
    type_vocab_size=2,
)
LENGTHS = np.array([7, 7, 5])
RUNS = [(2, 7), (1, 5)]
SIZES = {"D": 12, "H": 3, "K": 4, "F": 20, "V": 31, "P": 9, "S": 2, "L": 2, "B": 3, "N": 19}
SHAPE = re.compile(r"\(([A-Za-z_0-9., ]*)\)")
COMMENT = re.compile(rf"#\s*{SHAPE.pattern}")
DOCSTRING = re.compile(r"^(\(.*\)) -> (\(.*\))$", re.MULTILINE)
SOURCES = [
    *(bert, ops, params, pooling, tokens, similarity, encoder, long_texts),
    losses,
]


def shape_comments(module):
    """Find (kind, name, first line, last line, letters) of every shape comment in a module."""
    lines = Path(module.__file__).read_text().splitlines()
    in_class = set()
    tree = ast.parse("\n".join(lines))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            in_class |= {id(statement) for statement in node.body}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            match = COMMENT.search(lines[node.end_lineno - 1])
            if match and isinstance(target, ast.Name):
                letters = tuple(letter.strip() for letter in match[1].split(",") if letter.strip())
                kind = "field" if id(node) in in_class else "line"
                if kind == "field" and "Callable" in ast.unparse(node.annotation):
                    continue  # a function's comment says what it takes
                yield kind, target.id, node.lineno, node.end_lineno, letters


def letters_of(text):
    """'(N, D), (B,)' -> [('N', 'D'), ('B',)]."""
    return [tuple(letter.strip() for letter in shape.split(",") if letter.strip()) for shape in SHAPE.findall(text)]


def shape_lines(module):
    """Find (first line, shapes of the arguments, shapes of the result) of every function whose docstring says them."""
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and (match := DOCSTRING.search(ast.get_docstring(node) or "")):
            yield min([node.lineno, *(d.lineno for d in node.decorator_list)]), *map(letters_of, match.groups())


def check(array, letters, bound, where):
    """Compare one shape with its letters; letters that are not known yet are bound by it."""
    assert isinstance(array, np.ndarray), f"{where}: {type(array).__name__} is no array"
    shape = array.shape
    if letters[:1] == ("...",):
        letters, shape = letters[1:], shape[len(shape) - len(letters) + 1 :]
    assert len(shape) == len(letters), f"{where}: says {letters}, is {array.shape}"
    for letter, size in zip(letters, shape, strict=True):
        wanted = int(letter) if letter.isdigit() else bound.setdefault(letter, size)
        assert wanted == size, f"{where}: says {letters} with {letter} = {wanted}, is {array.shape}"
    if {"c", "T"} <= set(letters):
        assert (bound["c"], bound["T"]) in RUNS, f"{where}: c, T = {bound['c']}, {bound['T']} is no run"
        bound.pop("c"), bound.pop("T")  # the next run of texts has its own


class Watcher:
    """A trace function that checks a line's comment as soon as the line has run."""

    def __init__(self):
        self.lines = {}
        for module in SOURCES:
            for kind, name, first, last, letters in shape_comments(module):
                if kind == "line":
                    self.lines[module.__file__, first] = (name, last, letters)
        self.functions = {(m.__file__, first): shapes for m in SOURCES for first, *shapes in shape_lines(m)}
        self.files = {file for file, _ in (*self.lines, *self.functions)}
        self.seen = set()
        self.called = set()
        self.sizes = {}  # of the letters of a call, by its frame
        self.state = {}

    def __call__(self, frame, event, argument):
        file = frame.f_code.co_filename
        if file not in self.files:
            return None
        if event == "call" and (file, frame.f_code.co_firstlineno) in self.functions:
            self.sizes[id(frame)] = self.check_arguments(frame, file)
        if event == "return" and id(frame) in self.sizes and argument is not None:
            self.check_result(frame, file, argument, self.sizes.pop(id(frame)))
        pending, bound = self.state.setdefault(id(frame), (None, {}))
        if pending and (event == "return" or not pending <= frame.f_lineno <= self.lines[file, pending][1]):
            if self.lines[file, pending][0] in frame.f_locals:
                self.check_line(frame, file, pending, bound)
            pending = None
        if event == "line" and (file, frame.f_lineno) in self.lines:
            pending = frame.f_lineno
        self.state[id(frame)] = (pending, bound)
        if event == "return":
            del self.state[id(frame)]
        return self

    def check_arguments(self, frame, file):
        code = frame.f_code
        arrays = [frame.f_locals[name] for name in code.co_varnames[: code.co_argcount]]
        arrays = [array for array in arrays if isinstance(array, np.ndarray)]
        shapes, _ = self.functions[file, code.co_firstlineno]
        bound = {}
        assert len(arrays) >= len(shapes), f"{Path(file).name}: {code.co_name}"  # a number may be an array, too
        for array, letters in zip(arrays, shapes, strict=False):
            check(array, letters, bound, f"{Path(file).name}: {code.co_name}")
        return bound

    def check_result(self, frame, file, result, bound):
        code = frame.f_code
        _, shapes = self.functions[file, code.co_firstlineno]
        results = result if isinstance(result, tuple) and not hasattr(result, "_fields") else (result,)
        for array, letters in zip(results, shapes, strict=True):
            check(array, letters, bound, f"{Path(file).name}: what {code.co_name} returns")
        self.called.add((file, code.co_firstlineno))

    def check_line(self, frame, file, line, bound):
        name, _, letters = self.lines[file, line]
        lengths = frame.f_locals.get("lengths")
        known = dict(SIZES) if "similarity" not in file else {}
        if lengths is not None:
            known |= {"B": len(lengths), "N": int(lengths.sum())}
        for letter, size in known.items():
            bound[letter] = size
        check(frame.f_locals[name], letters, bound, f"{Path(file).name}:{line}")
        self.seen.add((file, line))


def run_everything():
    """Send three texts through every block, pooling and similarity; give all dataclasses that came out."""
    rng = np.random.default_rng(0)
    weights = params.random_params(CONFIG, rng)
    ids = rng.integers(0, CONFIG.vocab_size, LENGTHS.sum())
    hidden = bert.bert(ids, LENGTHS, weights, CONFIG)
    trace = bert.trace_bert(ids, LENGTHS, weights, CONFIG)
    dense = Dense(rng.normal(size=(10, 12)), rng.normal(size=10), "tanh")
    for mode in pooling.POOLINGS:
        pooling.pool(hidden, LENGTHS, (mode,))
        pooling.pool(hidden, LENGTHS, (mode,), prompt_length=2)
    results = pooling.apply_modules(hidden, LENGTHS, (Pooling(), dense, Normalize()))
    texts, pieces = ("x",) * len(LENGTHS), ("x",) * len(ids)
    whole = encoder.Trace(texts, pieces, ids, LENGTHS, np.zeros(3, int), trace, tuple(results), None)
    a, b = rng.normal(size=(4, 7)), rng.normal(size=(5, 7))
    for matrix, pairwise in similarity.SIMILARITIES.values():
        matrix(a, b), pairwise(a, a[::-1])
    similarity.angular_distance(a, b), similarity.pairwise_angular_distance(a, a[::-1])
    split = tokens.Tokens(ids, LENGTHS, np.zeros(3, int))
    return [weights, whole, dense, split, *split_and_composed(), *backwards(weights, ids)]


def backwards(weights, ids):
    """Go all the way back with dropout on, and through every pooling, module, similarity and loss; give dataclasses."""
    rng = np.random.default_rng(1)
    trace = bert.trace_bert(ids, LENGTHS, weights, CONFIG, bert.Dropout(rng))
    d_hidden = rng.normal(size=trace.output.shape)
    found = [trace, bert.bert_backward(d_hidden, trace, ids, LENGTHS, weights, CONFIG)]
    for mode in pooling.POOLINGS:
        pooling.pool_backward(d_hidden[:3], d_hidden, LENGTHS, (mode,), prompt_length=2)
    dense = Dense(rng.normal(size=(10, 12)), rng.normal(size=10), "tanh")
    behind = (Pooling(), dense, Normalize())
    results = pooling.apply_modules(d_hidden, LENGTHS, behind)
    found += pooling.modules_backward(results[-1] + 1.0, results, d_hidden, LENGTHS, behind)[1][1:2]
    a, b = rng.normal(size=(4, 7)), rng.normal(size=(5, 7))
    for name in (name for name in similarity.__all__ if name.endswith("_backward")):
        rows = a[::-1] if name.startswith("pairwise") else b
        upstream = getattr(similarity, name.removesuffix("_backward"))(a, rows)
        getattr(similarity, name)(upstream, a, rows)
    x, y, z = rng.normal(size=(3, 3, 12))
    mask = losses.find_false_negatives([*"uvw"], [*"pqp"], [*"xyz"])
    losses.multiple_negatives_ranking(x, y, z, symmetric=True, false_negatives=mask)
    losses.contrastive(x, y, [1, 0, 1]), losses.triplet(x, y, z)
    losses.cosine_similarity(x, y, [0.5, 0, 1]), losses.cosent(x, y, [0.5, 0, 1])
    losses.softmax_classification(x, y, [0, 1, 1], np.ones((2, 36)), np.ones(2))
    return found


def split_and_composed():
    """Split a text into chunks and compose them, early and late; give the dataclasses on the way."""
    with tempfile.TemporaryDirectory() as folder:
        made = SentenceEncoder(write_model(Path(folder) / "model"))
    text = "the cat sat on the mat. i love soup and the dog ran on. " * 9
    made.encode(["the cat sat on the", "i love the dog .", "the cat ran"], num_threads=1)  # of LENGTHS
    for name in ("mean", "late"):  # BERT itself runs on other threads, which nobody watches
        made.encode([text], overflow="chunk", composition=name, num_threads=2)
    shares = [long_texts.Share(0, 6, 0), long_texts.Share(2, 6, 6), long_texts.Share(1, 5, 10)]
    long_texts.pool_shares(np.ones((19, 12)), LENGTHS, shares, ("mean",))
    tokenizer = made.model.tokenizer
    window, chunks = next(long_texts.windows(text, tokenizer, 14)), made.encode_chunks(text, num_threads=2)
    return [tokenizer.spans(text), window, chunks]


def dataclasses_in(tree):
    if isinstance(tree, tuple):
        for branch in tree:
            yield from dataclasses_in(branch)
    elif is_dataclass(tree):
        yield tree
        for field in fields(tree):
            yield from dataclasses_in(getattr(tree, field.name))


@pytest.fixture(scope="module")
def watched():
    watcher = Watcher()
    previous = sys.gettrace()
    sys.settrace(watcher)
    try:
        made = run_everything()
    finally:
        sys.settrace(previous)
    return watcher, made


def test_every_shape_comment_behind_a_line_ran_and_is_true(watched):
    watcher, _ = watched
    assert len(watcher.lines) >= 40
    never = [f"{Path(file).name}:{line}" for file, line in sorted(set(watcher.lines) - watcher.seen)]
    assert not never, f"shape comments whose lines never ran: {never}"


def test_every_shape_line_of_a_docstring_ran_and_is_true(watched):
    watcher, _ = watched
    assert len(watcher.functions) >= 20
    never = [f"{Path(file).name}:{line}" for file, line in sorted(set(watcher.functions) - watcher.called)]
    assert not never, f"functions with a shape line that never returned: {never}"


def test_every_shape_comment_behind_a_field_is_true(watched):
    _, made = watched
    wanted = {}
    for module in SOURCES:
        for kind, name, line, _, letters in shape_comments(module):
            if kind == "field":
                wanted[Path(module.__file__).stem, name, letters] = line
    assert len(wanted) >= 25
    met = set()
    for instance in dataclasses_in(tuple(made)):
        module = sys.modules[type(instance).__module__]
        own = {field.name for field in fields(instance)}
        bound = dict(SIZES)
        source = ast.parse(Path(module.__file__).read_text())
        lines = next(n for n in source.body if isinstance(n, ast.ClassDef) and n.name == type(instance).__name__)
        for kind, name, line, _, letters in shape_comments(module):
            if kind == "field" and name in own and lines.lineno <= line <= lines.end_lineno:
                value = getattr(instance, name)
                for array in value if isinstance(value, tuple) else (value,):
                    if array is None:  # a mask without dropout; another run has one
                        continue
                    # each result of a module has a width of its own
                    bound.pop("width", None)
                    check(array, letters, bound, f"{name}, line {line}")
                    met.add((Path(module.__file__).stem, name, letters))
    assert not set(wanted) - met, f"fields that no instance showed: {sorted(set(wanted) - met)}"


def test_a_wrong_comment_is_noticed():
    with pytest.raises(AssertionError, match="says"):
        check(np.zeros((3, 4)), ("N", "D"), dict(SIZES), "here")
    with pytest.raises(AssertionError, match="no run"):
        check(np.zeros((3, 3, 7, 7)), ("c", "H", "T", "T"), dict(SIZES), "here")
