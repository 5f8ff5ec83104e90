"""Break code line by line: does any check notice?

`mutants` takes a function and gives a list of wrong ones, each with one small change in one line: a sign turned, a term
dropped, a factor of 1.001. `survivors` runs a check under each of them and gives those that it let pass. A check is a
function without arguments that returns True when all is well; a mutant that raises is caught as well.

A mutant is put in place by giving the *original function object* the mutant's code. So every module that imported it,
and every table of functions that lists it, runs the mutant, and takes the original back together.
"""

import __future__

import ast
import copy
import inspect
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

import numpy as np

FACTOR = 1.001


@dataclass(frozen=True)
class Mutant:
    """One wrong version of a function."""

    function: FunctionType
    line: int  # in its file
    change: str  # in words
    source: str  # the statement after the change
    code: CodeType

    def __str__(self) -> str:
        return f"{self.function.__module__}.{self.function.__qualname__}:{self.line}: {self.change}: {self.source}"


def mutants(function: FunctionType) -> list[Mutant]:
    """Make all wrong versions of a function of a module, or a method, without free variables; one change each.

    For every statement that computes something: the sign of what it computes turned, or scaled by 1.001; one side of a
    + or - dropped, one factor of a product, a divisor; + and -, * and / exchanged; a comparison turned round; a
    transposition taken away or added to a factor of a matrix product; another axis; other numbers; the two choices of
    np.where and of a conditional exchanged, of an `if` the other branch taken; np.minimum for np.maximum and the like;
    statements that change an array in place left out. Statements that refuse bad input are left alone: they compute
    nothing, and have tests of their own.
    """
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first - 1)
    found: list[Mutant] = []
    seen = {ast.unparse(tree)}
    for statement in _statements(tree.body[0]):
        for node, change, make in _changes(statement):
            copies: dict[int, ast.AST] = {}
            mutated = copy.deepcopy(tree, copies)
            old = copies[id(node)]
            new = make(old)
            _Exchange(old, new).visit(mutated)
            ast.fix_missing_locations(mutated)
            text = ast.unparse(mutated)
            if text not in seen:  # two ways to the same change
                seen.add(text)
                shown = new[0] if isinstance(new, list) else new if node is statement else copies[id(statement)]
                source = ast.unparse(shown).splitlines()[0]
                found.append(Mutant(function, statement.lineno, change, source, _code(function, mutated)))
    return found


class _Exchange(ast.NodeTransformer):
    """Put one node in the place of another; or several, of a statement."""

    def __init__(self, old: ast.AST, new: ast.AST | list[ast.AST]) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.old else self.generic_visit(node)


def _code(function: FunctionType, tree: ast.Module) -> CodeType:
    """Compile a changed function among the names of its own module, and take its code."""
    tree.body[0].decorator_list = []
    # annotations are of no interest, and those of a module with `from __future__ import annotations` need not exist
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python itself sees that some of them are wrong
        code = compile(tree, inspect.getfile(function), "exec", flags=__future__.annotations.compiler_flag)
    names: dict[str, object] = {}
    exec(code, dict(function.__globals__), names)
    return names[function.__name__].__code__


@contextmanager
def unwritten_is_nan() -> Iterator[None]:
    """Fill what np.empty gives with NaN: a number that nobody writes could be the right one of the last call."""
    originals = {name: getattr(np, name) for name in ("empty", "empty_like")}

    def filled(make: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def make_and_fill(*arguments: object, **options: object) -> np.ndarray:
            array = make(*arguments, **options)
            if array.dtype.kind == "f":
                array.fill(np.nan)
            return array

        return make_and_fill

    try:
        for name, original in originals.items():
            setattr(np, name, filled(original))
        yield
    finally:
        for name, original in originals.items():
            setattr(np, name, original)


@contextmanager
def in_place(mutant: Mutant) -> Iterator[None]:
    """Let everybody who calls the function run the mutant."""
    original = mutant.function.__code__
    mutant.function.__code__ = mutant.code
    try:
        yield
    finally:
        mutant.function.__code__ = original


def is_caught(mutant: Mutant, check: Callable[[], bool]) -> bool:
    """Run a check under a mutant; raising is noticing."""
    with in_place(mutant), unwritten_is_nan(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return not check()
        except Exception:
            return True


def survivors(function: FunctionType, check: Callable[[], bool]) -> tuple[list[Mutant], list[Mutant]]:
    """Give all mutants of a function, and those that the check lets pass."""
    if not check():
        raise ValueError(f"the check of {function.__qualname__} fails before anything is broken")
    made = mutants(function)
    return made, [mutant for mutant in made if not is_caught(mutant, check)]


# ---------------------------------------------------------------------------------------------------- statements

Change = tuple[
    ast.AST, str, Callable[[Any], Any]
]  # of which node, in words, and what makes the wrong node of (a copy of) it


def _with(**fields: object) -> Callable[[Any], Any]:
    """What gives a node other fields."""

    def make(node: ast.AST) -> ast.AST:
        for name, value in fields.items():
            setattr(node, name, value)
        return node

    return make


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Find the statements of a function, however deep."""
    for child in [*getattr(node, "body", []), *getattr(node, "orelse", [])]:
        yield child
        if not _refuses(child):
            yield from _statements(child)


_COMPUTED = {  # the expression of a statement, and whether it is changed as a whole, too
    ast.If: ("test", False),
    ast.For: ("iter", False),
    ast.Expr: ("value", False),
    **dict.fromkeys((ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return), ("value", True)),
}


def _changes(statement: ast.stmt) -> Iterator[Change]:
    """Give all changes of a statement."""
    if _computes_nothing(statement):
        return
    if isinstance(statement, (ast.AugAssign, ast.Expr)):
        yield statement, "left out", lambda _: ast.Pass()
    if isinstance(statement, ast.AugAssign):
        for operator in _OTHER.get(type(statement.op), ()):
            yield statement, "another operator", _with(op=operator())
    if isinstance(statement, ast.Expr):
        yield from _scaled_outputs(statement)
    if isinstance(statement, ast.If):
        yield statement.test, "the other branch", lambda test: ast.UnaryOp(ast.Not(), test)
    field, is_value = _COMPUTED.get(type(statement), ("", False))
    value = getattr(statement, field, None)
    if value is not None:
        if is_value:
            yield from _sign_and_size(value)
        yield from _changed_expressions(value)
    for target in [*getattr(statement, "targets", ())[:1], getattr(statement, "target", None)]:
        if isinstance(target, ast.Subscript) and not isinstance(statement, ast.For):
            yield from _changed_expressions(target.slice)


_WRITES = {"at", "append", "copyto", "fill_diagonal", "update"}


def _refuses(statement: ast.stmt) -> bool:
    """Whether a statement raises in one case, and does nothing in the other."""
    return isinstance(statement, ast.If) and isinstance(statement.body[-1], ast.Raise) and not statement.orelse


def _computes_nothing(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring, refuses bad input, or gives a name to a text."""
    if isinstance(statement, ast.If):
        return _refuses(statement)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        function = statement.value.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        writes = name in _WRITES or name.endswith("in_place")
        return not writes and not any(keyword.arg == "out" for keyword in statement.value.keywords)
    value = getattr(statement, "value", None)
    return isinstance(statement, ast.Expr) or (isinstance(value, ast.Constant) and isinstance(value.value, str))


def _scaled_outputs(statement: ast.Expr) -> Iterator[Change]:
    """Scale what a statement such as np.exp(x, out=x) has written."""
    for keyword in statement.value.keywords:
        if keyword.arg == "out" and isinstance(keyword.value, ast.Name):
            for number, change in ((-1.0, "sign turned"), (FACTOR, f"scaled by {FACTOR}")):
                scaled = ast.AugAssign(ast.Name(keyword.value.id, ast.Store()), ast.Mult(), ast.Constant(number))
                yield statement, change, lambda done, scaled=scaled: [done, scaled]


# -------------------------------------------------------------------------------------------------- expressions


def _sign_and_size(value: ast.AST) -> Iterator[Change]:
    """Turn the sign and change the size: of a tuple's members, of a constructor's arguments, or of the whole."""
    is_constructor = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id[0].isupper()
    if isinstance(value, ast.keyword):
        yield from _sign_and_size(value.value)
    elif is_constructor or isinstance(value, ast.Tuple):
        for member in value.elts if isinstance(value, ast.Tuple) else [*value.args, *value.keywords]:
            if not isinstance(member, ast.Starred):
                yield from _sign_and_size(member)
    elif not isinstance(value, (ast.List, ast.ListComp, ast.Dict, ast.Lambda)) and not _holds_nothing(value):
        yield value, "sign turned", lambda value: ast.UnaryOp(ast.USub(), value)
        yield value, f"scaled by {FACTOR}", lambda value: ast.BinOp(value, ast.Mult(), ast.Constant(FACTOR))


def _holds_nothing(value: ast.expr) -> bool:
    """Whether a value is None, zero, zeros or an array that is still to be written: these have no sign and no size."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        return value.func.attr in ("zeros", "zeros_like", "empty", "empty_like")
    return isinstance(value, ast.Constant) and not value.value


def _changed_expressions(node: ast.AST) -> Iterator[Change]:
    """Give all changes anywhere in an expression."""
    for change, make in _changed_node(node):
        yield node, change, make
    if isinstance(node, ast.Call) and ast.unparse(node).endswith(".reshape(-1)"):
        return  # NumPy takes any negative number for "what is left"
    for member in ast.iter_child_nodes(node):
        yield from _changed_expressions(member)


_OTHER = {ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,)}
_TURNED = {ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.Eq: ast.NotEq, ast.Is: ast.IsNot}
_TURNED |= {turned: kind for kind, turned in _TURNED.items()}
_EXCHANGED = "maximum minimum, add subtract, multiply divide, sum mean"
_RENAMED = {a: b for pair in _EXCHANGED.split(", ") for a, b in (pair.split(), pair.split()[::-1])}
_RENAMED |= {"argmax": "argmin", "zeros_like": "ones_like", "zeros": "ones", "ones": "zeros"}
_RENAMED |= {"sin": "cos", "sqrt": "square", "log": "exp", "exp": "expm1"}


def _changed_node(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Give all changes of one node, its parts left as they are."""
    if isinstance(node, ast.BinOp):
        yield from _changed_operation(node)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
        if not isinstance(node.operand, ast.Constant):
            yield "sign dropped", lambda node: node.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _TURNED:
        yield "comparison turned", _with(ops=[_TURNED[type(node.ops[0])]()])
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = node.value
        others = {0: (1,), 1: (0, 2), -1: (0, -2), 2: (1, 3)}.get(value, ()) if type(value) is int else ()
        for other in others or ((value * 2, -value) if value else (1.0,)):  # an axis among them
            yield f"{other} for {value}", _with(value=other)
    elif isinstance(node, ast.IfExp):
        yield "the other choice", lambda node: ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Attribute):
        if node.attr == "T":
            yield "transposition dropped", lambda node: node.value
        elif node.attr in _RENAMED:
            yield f"{_RENAMED[node.attr]} for {node.attr}", _with(attr=_RENAMED[node.attr])
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "swapaxes" and isinstance(node.func, ast.Attribute) and len(node.args) == 2:
            yield "transposition dropped", lambda node: node.func.value
        elif name == "where" and len(node.args) == 3:
            yield (
                "choices exchanged",
                lambda node: ast.Call(node.func, [node.args[i] for i in (0, 2, 1)], node.keywords),
            )
        elif name in ("reversed", "sign", "abs") and len(node.args) == 1:
            yield f"{name} left out", lambda node: node.args[0]


def _changed_operation(node: ast.BinOp) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Change what stands between two operands."""
    for operator in _OTHER.get(type(node.op), ()):
        yield "another operator", _with(op=operator())
    if not isinstance(node.op, ast.MatMult):
        yield "right side dropped", lambda node: node.left
    if isinstance(node.op, ast.Sub):
        yield "left side dropped", lambda node: ast.UnaryOp(ast.USub(), node.right)
    elif isinstance(node.op, (ast.Add, ast.Mult, ast.BitOr, ast.BitAnd)):
        yield "left side dropped", lambda node: node.right
    elif isinstance(node.op, ast.MatMult):
        for side in ("left", "right"):
            yield (
                f"{side} side transposed",
                lambda node, side=side: _with(**{side: _swapped(getattr(node, side))})(node),
            )


def _swapped(node: ast.expr) -> ast.expr:
    """Exchange the last two axes."""
    call = ast.parse("np.swapaxes(x, -1, -2)", mode="eval").body
    call.args[0] = node
    return call
