"""Run the answers of a student's notebook in a process of its own, from which only their results come back.

The answer to an exercise is what the notebook hands to ``check(chapter_01.COSINES, answer)``. Only the answer is run,
and what it needs: the statements, in any cell, that bind a name it uses, and what those need in turn. A cell that is
broken, slow or prints for ever does no harm unless an answer depends on it.
"""

from __future__ import annotations

import ast
import linecache
import os
import re
import symtable
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from minisbert.course.exercises import Exercise, ask
from minisbert.proof.student import Outcome, call, do_jobs, run_apart

__all__ = ["Cell", "is_blank", "results"]

Cases = Sequence[tuple[Any, ...]]
_NO_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)  # what a text that is none may raise


@dataclass(frozen=True)
class Cell:
    """A code cell: its number among all cells from 1, its text, and the exercise that its nbgrader id names."""

    number: int
    source: str
    exercise: str = ""


@dataclass(frozen=True)
class _Statement:
    """With the names that it binds, and those that it looks up among the notebook's own."""

    cell: Cell
    tree: ast.stmt
    binds: set[str]
    needs: set[str]


_Job = tuple[list[tuple[int, ast.stmt]], str, Cases]  # statements and their cells, the answer, what it is called with


def results(
    cells: Sequence[Cell], chapter: int, cases: Mapping[str, Cases], seconds: float = 10.0
) -> dict[str, list[Outcome]]:
    """Call a notebook's answers with the cases of each exercise; an answer that kills its process spoils no other.

    >>> import numpy as np
    >>> mine = Cell(7, "def double(rows, _):\\n    return 2 * rows\\ncheck(chapter_01.COSINES, double)")
    >>> [outcome] = results([mine], 1, {"COSINES": [(np.ones(2), 0)]})["COSINES"]
    >>> outcome.value
    array([2., 2.])
    """
    statements: list[_Statement] = []
    broken: list[tuple[Cell, str]] = []
    for cell in cells:
        try:
            statements += _statements(cell)
        except _NO_PYTHON as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            broken.append((cell, f"cell {cell.number}{line} is not Python: {getattr(error, 'msg', error)}"))
    found: dict[str, list[Outcome]] = {}
    jobs: dict[str, _Job] = {}
    for name, some in cases.items():
        answer, number = _handed_in(name, statements)
        names = _uses(symtable.symtable(answer or "...", "answer", "eval"))
        binding = [one.tree for one in statements if names & one.binds]
        asked = rf"\b{re.escape(answer or name)}\b"
        suspects = [  # its own cell, or one that names it, if no other binds it
            problem
            for cell, problem in broken
            if cell.exercise == name or (not binding and re.search(asked, cell.source))
        ]
        if suspects:
            found[name] = [Outcome("refused", problem=suspects[0])]
        elif not answer or (binding and all(map(is_blank, binding))):
            found[name] = [Outcome("to do", problem="it is not filled in")]
        else:
            jobs[name] = (_needed(statements, names, number), answer, some)
    limits = {name: (3 * len(needed) + 3) * seconds for name, (needed, *_) in jobs.items()}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return found | run_apart(__name__, (cells, chapter, jobs, seconds), limits, Path(folder))


# ------------------------------------------------------------------------------------------- what an answer needs


def is_blank(node: ast.stmt) -> bool:
    """Whether a function or an assignment waits to be filled in.

    >>> [is_blank(ast.parse(text).body[0]) for text in ("def double(x): ...", "y = ...", "y = 2")]
    [True, True, False]
    """
    if isinstance(node, ast.FunctionDef):
        return all(isinstance(getattr(part, "value", part), (ast.Constant, ast.Pass)) for part in node.body)
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value in (..., None)


def _plain(source: str) -> str:
    """The text of a cell, without Jupyter's own commands if it is no Python with them."""
    with suppress(*_NO_PYTHON):
        ast.parse(source)
        return source
    return re.sub(r"(?m)^(\s*)[%!].*|^(\s*)\S+\?{1,2}\s*$", r"\1\2pass", source)


def _statements(cell: Cell) -> Iterator[_Statement]:
    tree = ast.parse(_plain(cell.source))
    compile(tree, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # finds a return outside a function, too
    for node in tree.body:
        table = symtable.symtable(ast.unparse(node), "statement", "exec")
        binds = {one.get_name() for one in table.get_symbols() if one.is_assigned() or one.is_imported()}
        for part in ast.walk(node):  # x[0] = 1 and x.y = 1 change x, and so may x.append(1)
            changed = isinstance(part, (ast.Subscript, ast.Attribute)) and isinstance(part.ctx, ast.Store)
            if changed or (part is node and isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
                root = part.value.func if isinstance(part, ast.Expr) else part  # type: ignore[attr-defined]
                while isinstance(root, (ast.Subscript, ast.Attribute)):
                    root = root.value
                    binds |= {root.id} if isinstance(root, ast.Name) else set()
        binds |= {"*"} if isinstance(node, ast.ImportFrom) and node.names[0].name == "*" else set()
        yield _Statement(cell, node, binds, _uses(table))


def _uses(table: symtable.SymbolTable) -> set[str]:
    """Names that a statement looks up among the notebook's own, also inside its functions."""
    outside = table.get_type() == "module"
    names = {one.get_name() for one in table.get_symbols() if one.is_referenced() and (outside or one.is_global())}
    return names.union(*map(_uses, table.get_children()))


def _needed(statements: Sequence[_Statement], names: set[str], number: int) -> list[tuple[int, ast.stmt]]:
    """The statements that bind these names, and the names that those need; the ones above the check, if there are."""
    chosen, waiting, seen = set[int](), ["*", *names], set[str]()
    while waiting:
        name = waiting.pop()
        binding = [i for i, one in enumerate(statements) if name in one.binds and name not in seen]
        seen.add(name)
        for i in [i for i in binding if statements[i].cell.number <= number] or binding:
            chosen.add(i)
            waiting += statements[i].needs
    return [(statements[i].cell.number, statements[i].tree) for i in sorted(chosen)]


def _handed_in(exercise: str, statements: Sequence[_Statement]) -> tuple[str, int]:
    """The answer in the last check of an exercise, and its cell; without a check, what nbgrader's cell defines."""
    defined, checked = [("", 0)], []
    for one in statements:
        if one.cell.exercise == exercise and isinstance(one.tree, ast.FunctionDef):
            defined.append((one.tree.name, one.cell.number))
        for node in ast.walk(one.tree):
            if isinstance(node, ast.Call) and len(node.args) > 1:
                called = [ast.unparse(part).split(".")[-1] for part in (node.func, node.args[0])]
                if called == ["check", exercise]:
                    checked.append((ast.unparse(node.args[1]), one.cell.number))
    return [*defined, *checked][-1]


# ------------------------------------------------------------------------------------------- the student's process


def _prepared(
    cells: Sequence[Cell], chapter: int, jobs: Mapping[str, _Job], seconds: float
) -> Callable[[str], list[Outcome]]:
    """The solutions go; of an answer the statements that it needs are run, its value found, and called."""
    _without_solutions(chapter)
    os.environ["MPLBACKEND"] = "agg"  # no window
    for cell in cells:
        lines = _plain(cell.source).splitlines(keepends=True)
        linecache.cache[f"cell {cell.number}"] = (len(cell.source), None, lines, f"cell {cell.number}")

    def do(name: str) -> list[Outcome]:
        needed, expression, cases = jobs[name]
        space: dict[str, Any] = {"__name__": "__main__"}
        problem = ""
        for number, statement in needed:
            code = compile(ast.Module([statement], []), f"cell {number}", "exec")
            outcome = call(lambda code=code: exec(code, space), seconds=3 * seconds)
            problem = problem or (outcome.problem if outcome.state in ("raises", "endless") else "")
        answer: list[Any] = []
        outcome = call(lambda: answer.append(eval(expression, space)), seconds=seconds)
        outcomes = ask(cases, answer[0], seconds) if answer else [replace(outcome, state="refused")]
        last = outcomes[-1]
        if problem and last.state not in ("value", "to do"):
            said = f"{last.problem}; before that, what it needs did not run: {problem}"
            outcomes[-1] = replace(last, problem=said)
        return outcomes

    return do


def _without_solutions(chapter: int) -> None:
    """Take away what computes right results; of the chapters' functions ``chapter_05.suspect`` alone is left."""

    def none(*_: Any, **__: Any) -> None:
        raise ValueError("the solution itself is no answer, and is not at hand where marks are given")

    module = import_module(f"minisbert.course.chapter_{chapter:02}")
    for name, thing in list(vars(module).items()):
        if isinstance(thing, Exercise):
            setattr(module, name, replace(thing, solution=none, mistakes={}, draw=None))
        elif name.startswith("_") and not name.startswith("__"):
            delattr(module, name)


if __name__ == "__main__":
    do_jobs(_prepared)
