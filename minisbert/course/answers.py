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
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from minisbert.course.exercises import Exercise, ask
from minisbert.proof.student import Outcome, call, do_jobs, run_apart

__all__ = ["Cell", "exercises", "is_blank", "results"]

Cases = Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class Cell:
    """A code cell: its number among all cells from 1, its text, and the exercise that its nbgrader id names."""

    number: int
    source: str
    exercise: str = ""


@dataclass(frozen=True)
class _Statement:
    cell: int  # its place in the list of cells
    place: int  # its place in the cell
    binds: frozenset[str]
    needs: frozenset[str]


@dataclass(frozen=True)
class _Job:
    """An answer: the statements to run first, the expression, and what the answer is called with."""

    statements: tuple[tuple[int, int], ...]  # (cell, place)
    answer: str
    cases: Cases


def exercises(chapter: int) -> dict[str, Exercise]:
    """The exercises of a notebook, by name.

    >>> list(exercises(1))
    ['COSINES', 'NEAREST', 'CONTRIBUTIONS']
    """
    module = import_module(f"minisbert.course.chapter_{chapter:02}")
    return {name: thing for name, thing in vars(module).items() if isinstance(thing, Exercise)}


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
    parsed = [_parsed(cell) for cell in cells]
    trees = [tree for tree, _ in parsed]
    statements = [one for i, tree in enumerate(trees) for one in _statements(i, tree)]
    found: dict[str, list[Outcome]] = {}
    jobs: dict[str, _Job] = {}
    for name, some in cases.items():
        answer, place = _handed_in(name, cells, trees)
        names = _uses(symtable.symtable(answer, "answer", "eval")) if answer else set()
        binding = [trees[one.cell].body[one.place] for one in statements if names & one.binds]
        unbound = {answer or name} if not binding else set()
        broken = (
            problem
            for cell, (_, problem) in zip(cells, parsed, strict=True)
            if problem and (cell.exercise == name or any(re.search(rf"\b{word}\b", cell.source) for word in unbound))
        )
        if problem := next(broken, ""):
            found[name] = [Outcome("refused", problem=problem)]
        elif not answer or (binding and all(map(is_blank, binding))):
            found[name] = [Outcome("to do", problem="it is not filled in")]
        else:
            jobs[name] = _Job(_needed(statements, names, place), answer, some)
    return found | _run(cells, chapter, jobs, seconds)


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
    with suppress(SyntaxError, ValueError):
        ast.parse(source)
        return source
    return re.sub(r"(?m)^(\s*)[%!].*|^(\s*)\S+\?{1,2}\s*$", r"\1\2pass", source)


def _parsed(cell: Cell) -> tuple[ast.Module, str]:
    """The statements of a cell; none, and a sentence, if it is no Python."""
    try:
        tree = ast.parse(_plain(cell.source))
        compile(tree, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # finds a return outside a function, too
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        return ast.Module([], []), f"cell {cell.number}{line} is not Python: {getattr(error, 'msg', error)}"
    return tree, ""


def _statements(cell: int, tree: ast.Module) -> Iterable[_Statement]:
    for place, node in enumerate(tree.body):
        table = symtable.symtable(ast.unparse(node), "statement", "exec")
        binds = {one.get_name() for one in table.get_symbols() if one.is_assigned() or one.is_imported()}
        for part in ast.walk(node):  # x[0] = 1 and x.y = 1 change x, and so may x.append(1)
            changed = isinstance(part, (ast.Subscript, ast.Attribute)) and isinstance(part.ctx, ast.Store)
            if changed or (part is node and isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
                root = part.value.func if isinstance(part, ast.Expr) else part  # type: ignore[attr-defined]
                while isinstance(root, (ast.Subscript, ast.Attribute)):
                    root = root.value
                    binds |= {root.id} if isinstance(root, ast.Name) else set()
        star = isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
        yield _Statement(cell, place, frozenset(binds | ({"*"} if star else set())), frozenset(_uses(table)))


def _uses(table: symtable.SymbolTable) -> set[str]:
    """Names that a statement looks up among the notebook's own, also inside its functions."""
    outside = table.get_type() == "module"
    names = {one.get_name() for one in table.get_symbols() if one.is_referenced() and (outside or one.is_global())}
    return names.union(*map(_uses, table.get_children()))


def _needed(statements: Sequence[_Statement], names: Iterable[str], cell: int) -> tuple[tuple[int, int], ...]:
    """The statements that bind these names, and the names that those need; the ones above the check, if there are."""
    chosen, waiting, seen = set[tuple[int, int]](), ["*", *names], set[str]()
    while waiting:
        name = waiting.pop()
        binding = [one for one in statements if name in one.binds and name not in seen]
        seen.add(name)
        for one in [one for one in binding if one.cell <= cell] or binding:
            chosen.add((one.cell, one.place))
            waiting += one.needs
    return tuple(sorted(chosen))


def _handed_in(exercise: str, cells: Sequence[Cell], trees: Sequence[ast.Module]) -> tuple[str, int]:
    """The answer in the last check of an exercise, and its cell; without a check, what nbgrader's cell defines."""
    found = ("", 0)
    for i, (cell, tree) in enumerate(zip(cells, trees, strict=True)):
        if cell.exercise == exercise and not found[0]:
            bound = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
            found = (bound[-1], i) if bound else found
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and len(node.args) > 1:
                called = [ast.unparse(part).split(".")[-1] for part in (node.func, node.args[0])]
                found = (ast.unparse(node.args[1]), i) if called == ["check", exercise] else found
    return found


# -------------------------------------------------------------------------------------------------- the two processes


def _run(cells: Sequence[Cell], chapter: int, jobs: Mapping[str, _Job], seconds: float) -> dict[str, list[Outcome]]:
    limits = {name: (3 * len(job.statements) + 3) * seconds for name, job in jobs.items()}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return run_apart(__name__, (cells, chapter, jobs, seconds), limits, Path(folder))


def _prepared(
    cells: Sequence[Cell], chapter: int, jobs: Mapping[str, _Job], seconds: float
) -> Callable[[str], list[Outcome]]:
    """In the student's process: the solutions go; of an answer its statements are run, its value found and called."""
    _without_solutions(chapter)
    os.environ["MPLBACKEND"] = "agg"  # no window
    for cell in cells:
        lines = _plain(cell.source).splitlines(keepends=True)
        linecache.cache[f"cell {cell.number}"] = (len(cell.source), None, lines, f"cell {cell.number}")

    def do(name: str) -> list[Outcome]:
        job, problem = jobs[name], ""
        space: dict[str, Any] = {"__name__": "__main__"}
        for i, place in job.statements:
            tree = ast.Module([ast.parse(_plain(cells[i].source)).body[place]], [])
            file = f"cell {cells[i].number}"
            outcome = call(lambda tree=tree, file=file: exec(compile(tree, file, "exec"), space), seconds=3 * seconds)
            problem = problem or (outcome.problem if outcome.state in ("raises", "endless") else "")
        answer: list[Any] = []
        outcome = call(lambda: answer.append(eval(job.answer, space)), seconds=seconds)
        outcomes = ask(job.cases, answer[0], seconds) if answer else [replace(outcome, state="refused")]
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
