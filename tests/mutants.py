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
    for path, statement in _statements(tree.body[0]):
        for change, new in _changed_statements(statement):
            mutated = copy.deepcopy(tree)
            _replace(mutated.body[0], path, new)
            ast.fix_missing_locations(mutated)
            text = ast.unparse(mutated)
            if text not in seen:  # two ways to the same change
                seen.add(text)
                source = ast.unparse(new[0]).splitlines()[0] if new else "pass"
                found.append(Mutant(function, statement.lineno, change, source, _code(function, mutated)))
    return found


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

Path = tuple[tuple[str, int], ...]


def _statements(function: ast.AST) -> Iterator[tuple[Path, ast.stmt]]:
    """Find the statements of a function, however deep, each with the way to it."""

    def walk(node: ast.AST, path: Path) -> Iterator[tuple[Path, ast.stmt]]:
        for field in ("body", "orelse"):
            for i, child in enumerate(getattr(node, field, []) or []):
                here = (*path, (field, i))
                yield here, child
                if not _refuses(child):
                    yield from walk(child, here)

    yield from walk(function, ())


def _replace(function: ast.AST, path: Path, new: list[ast.stmt]) -> None:
    """Put other statements in the place of one."""
    node = function
    for field, i in path[:-1]:
        node = getattr(node, field)[i]
    field, i = path[-1]
    getattr(node, field)[i : i + 1] = new or [ast.Pass()]


_COMPUTED = {  # the expression of a statement, and whether it is changed as a whole, too
    ast.If: ("test", False),
    ast.For: ("iter", False),
    ast.Expr: ("value", False),
    **dict.fromkeys((ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return), ("value", True)),
}


def _changed_statements(statement: ast.stmt) -> Iterator[tuple[str, list[ast.stmt]]]:
    """Give all wrong versions of a statement, with the change in words."""
    if _computes_nothing(statement):
        return
    if isinstance(statement, (ast.AugAssign, ast.Expr)):
        yield "left out", []
    if isinstance(statement, ast.AugAssign):
        for operator in _OTHER.get(type(statement.op), ()):
            yield "another operator", [_with(statement, op=operator())]
    if isinstance(statement, ast.Expr):
        yield from _scaled_outputs(statement)
    if isinstance(statement, ast.If):
        yield "the other branch", [_with(statement, test=ast.UnaryOp(ast.Not(), statement.test))]
    field, is_value = _COMPUTED.get(type(statement), ("", False))
    value = getattr(statement, field, None)
    if value is not None:
        if is_value:
            for change, new in _sign_and_size(value):
                yield change, [_with(statement, **{field: new})]
        for change, new in _changed_expressions(value):
            yield change, [_with(statement, **{field: new})]
    for target in [*getattr(statement, "targets", ())[:1], getattr(statement, "target", None)]:
        if isinstance(target, ast.Subscript) and not isinstance(statement, ast.For):
            for change, place in _changed_expressions(target.slice):
                new = _with(target, slice=place)
                field = {"targets": [new]} if isinstance(statement, ast.Assign) else {"target": new}
                yield change, [_with(statement, **field)]


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


def _with(node: ast.AST, **fields: object) -> ast.AST:
    """Copy a node with other fields."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _scaled_outputs(statement: ast.Expr) -> Iterator[tuple[str, list[ast.stmt]]]:
    """Scale what a statement such as np.exp(x, out=x) has written."""
    for keyword in statement.value.keywords:
        if keyword.arg == "out" and isinstance(keyword.value, ast.Name):
            target = ast.Name(keyword.value.id, ast.Store())
            for number, change in ((-1.0, "sign turned"), (FACTOR, f"scaled by {FACTOR}")):
                yield change, [statement, ast.AugAssign(target, ast.Mult(), ast.Constant(number))]


# -------------------------------------------------------------------------------------------------- expressions


def _members(node: ast.AST, *fields: str) -> Iterator[tuple[ast.AST, Callable[[ast.AST], ast.AST]]]:
    """Give the nodes in (some fields of) a node, each with a function that puts another one in its place."""
    for field, value in ast.iter_fields(node):
        if fields and field not in fields:
            continue
        if isinstance(value, ast.AST):
            yield value, lambda new, field=field: _with(node, **{field: new})
        for i, member in enumerate(value if isinstance(value, list) else ()):
            if isinstance(member, ast.AST):
                yield (
                    member,
                    lambda new, field=field, value=value, i=i: _with(
                        node, **{field: [*value[:i], new, *value[i + 1 :]]}
                    ),
                )


def _sign_and_size(value: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Turn the sign and change the size: of a tuple's members, of a constructor's arguments, or of the whole."""
    is_constructor = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id[0].isupper()
    if is_constructor or isinstance(value, (ast.Tuple, ast.keyword)):
        for member, put in _members(
            value, *(("value",) if isinstance(value, ast.keyword) else ("elts", "args", "keywords"))
        ):
            if not isinstance(member, ast.Starred):
                for change, new in _sign_and_size(member):
                    yield change, put(new)
    elif not isinstance(value, (ast.List, ast.ListComp, ast.Dict, ast.Lambda)) and not _holds_nothing(value):
        yield "sign turned", ast.UnaryOp(ast.USub(), value)
        yield f"scaled by {FACTOR}", ast.BinOp(value, ast.Mult(), ast.Constant(FACTOR))


def _holds_nothing(value: ast.expr) -> bool:
    """Whether a value is None, zero, zeros or an array that is still to be written: these have no sign and no size."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        return value.func.attr in ("zeros", "zeros_like", "empty", "empty_like")
    return isinstance(value, ast.Constant) and not value.value


def _changed_expressions(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Give all versions of an expression with one change anywhere in it."""
    yield from _changed_node(node)
    if isinstance(node, ast.Call) and ast.unparse(node).endswith(".reshape(-1)"):
        return  # NumPy takes any negative number for "what is left"
    for member, put in _members(node):
        for change, new in _changed_expressions(member):
            yield change, put(new)


_OTHER = {ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,)}
_TURNED = {ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.Eq: ast.NotEq, ast.Is: ast.IsNot}
_TURNED |= {turned: kind for kind, turned in _TURNED.items()}
_EXCHANGED = "maximum minimum, add subtract, multiply divide, sum mean"
_RENAMED = {a: b for pair in _EXCHANGED.split(", ") for a, b in (pair.split(), pair.split()[::-1])}
_RENAMED |= {"argmax": "argmin", "zeros_like": "ones_like", "zeros": "ones", "ones": "zeros"}
_RENAMED |= {"sin": "cos", "sqrt": "square", "log": "exp", "exp": "expm1"}


def _changed_node(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Give all wrong versions of one node, its parts left as they are."""
    if isinstance(node, ast.BinOp):
        yield from _changed_operation(node)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
        if not isinstance(node.operand, ast.Constant):
            yield "sign dropped", node.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _TURNED:
        yield "comparison turned", _with(node, ops=[_TURNED[type(node.ops[0])]()])
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield from _other_numbers(node)
    elif isinstance(node, ast.IfExp):
        yield "the other choice", _with(node, body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.Attribute):
        if node.attr == "T":
            yield "transposition dropped", node.value
        elif node.attr in _RENAMED:
            yield f"{_RENAMED[node.attr]} for {node.attr}", _with(node, attr=_RENAMED[node.attr])
    elif isinstance(node, ast.Call):
        yield from _changed_call(node)


def _changed_operation(node: ast.BinOp) -> Iterator[tuple[str, ast.AST]]:
    """Change what stands between two operands."""
    for operator in _OTHER.get(type(node.op), ()):
        yield "another operator", _with(node, op=operator())
    if isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.BitOr, ast.BitAnd)):
        yield "right side dropped", node.left
        yield "left side dropped", ast.UnaryOp(ast.USub(), node.right) if isinstance(node.op, ast.Sub) else node.right
    elif isinstance(node.op, (ast.Div, ast.Pow)):
        yield "right side dropped", node.left
    elif isinstance(node.op, ast.MatMult):
        for side in ("left", "right"):
            yield f"{side} side transposed", _with(node, **{side: _swapped(getattr(node, side))})


def _swapped(node: ast.expr) -> ast.expr:
    """Exchange the last two axes."""
    call = ast.parse("np.swapaxes(x, -1, -2)", mode="eval").body
    return _with(call, args=[node, *call.args[1:]])


def _changed_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    """Change a call as a whole: without its effect, or with its choices exchanged."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name == "swapaxes" and isinstance(node.func, ast.Attribute) and len(node.args) == 2:
        yield "transposition dropped", node.func.value
    elif name == "where" and len(node.args) == 3:
        yield "choices exchanged", _with(node, args=[node.args[0], node.args[2], node.args[1]])
    elif name in ("reversed", "sign", "abs") and len(node.args) == 1:
        yield f"{name} left out", node.args[0]


def _other_numbers(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    """Change a number, an axis among them."""
    value = node.value
    others = {0: (1,), 1: (0, 2), -1: (0, -2), 2: (1, 3)}.get(value, ()) if type(value) is int else ()
    for other in others or ((value * 2, -value) if value else (1.0,)):
        yield f"{other} for {value}", ast.Constant(other)
