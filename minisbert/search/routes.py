"""Routes: a name and a few example texts each, checked when they are made.

A :class:`RouteTable` is all routes with the thresholds that scores must reach. Routes hold no vectors: embedding a few
hundred examples is quick, and routes without vectors can be read, edited and compared.

Letters: ``R`` routes, ``E`` examples of all routes together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

from minisbert.checks import check_sequence, out_of_arrow
from minisbert.evaluation.classification import LabelledTexts, draw_examples
from minisbert.saved import Origin

__all__ = ["SCORINGS", "Route", "RouteError", "RouteTable", "draw_routes", "kind_of"]

SCORINGS = ("nearest", "centroid")

PathIn = tuple[Any, ...]  # keys and indices of a part of a route, a table or a file


class RouteError(ValueError):
    """Invalid routes: which, why, and the way out."""

    def __init__(self, whose: str, fault: str, path: PathIn = ()) -> None:
        super().__init__(f"{whose}: {fault}")
        self.fault = fault
        self.path = path  # of the invalid part: ("examples", 2), or in a table ("routes", 0, "examples", 2)


@dataclass(frozen=True)
class Route:
    """A name and a few texts that belong there.

    Parameters
    ----------
    name : str
        One line, not empty.
    examples : sequence of str
        At least one, none empty, none twice.
    threshold : float, optional
        Minimum score of a query; by default the table's.
    description : str
        For people.
    metadata : mapping
        JSON of your own, such as who answers.

    Raises
    ------
    ValueError
        Naming the route.

    Examples
    --------
    >>> Route("refund", ["I want my money back", "how do I return this?"]).threshold is None
    True
    """

    name: str
    examples: Sequence[str]
    threshold: float | None = None
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "examples", out_of_arrow(self.examples))
        if _examples_fault(self.examples) is None:
            object.__setattr__(self, "examples", tuple(self.examples))
        for path, fault in self._faults():
            if fault is not None:
                raise RouteError(f"route {self.name!r:.60}", fault, path)

    def _faults(self) -> Iterable[tuple[PathIn, str | None]]:
        """Check field by field: its place, and what is wrong with it, or None."""
        yield (), _name_fault(self.name)
        yield ("examples",), _examples_fault(self.examples)
        none = "no examples; give at least one text, better five or more"
        yield ("examples",), None if self.examples else none
        for i, text in enumerate(self.examples):
            yield ("examples", i), _example_fault(text)
        if (twice := _find_repeated(self.examples)) is not None:
            yield (
                ("examples", twice[1]),
                f"the example {self.examples[twice[1]]!r:.60} occurs twice; keep one",
            )
        yield ("threshold",), _threshold_fault(self.threshold)
        yield ("description",), None if isinstance(self.description, str) else "description must be a string"
        yield ("metadata",), _metadata_fault(self.metadata)


@dataclass(frozen=True)
class RouteTable:
    """Routes, scored by their most similar example ("nearest") or the mean of their examples ("centroid").

    Names and examples are unique over the table; of equal scores the first route wins. ``threshold`` is for routes
    without their own; without any, every query gets a route. ``origin`` is the model with which thresholds were fitted
    (they mean nothing with another), ``fitted`` how, with a digest of the examples.

    >>> table = RouteTable([Route("refund", ["my money back"]), Route("hours", ["when do you open"])], threshold=0.5)
    >>> table.names, table.examples
    (('refund', 'hours'), ('my money back', 'when do you open'))
    """

    routes: Sequence[Route]
    threshold: float | None = None
    scoring: str = "nearest"
    origin: Origin | None = None
    fitted: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", tuple(self.routes))
        for path, fault in self._faults():
            if fault is not None:
                raise RouteError("routes", fault, path)

    def _faults(self) -> Iterable[tuple[PathIn, str | None]]:
        """Check field by field: its place, and what is wrong with it, or None."""
        yield ("threshold",), _threshold_fault(self.threshold)
        yield ("scoring",), _scoring_fault(self.scoring)
        yield ("routes",), _routes_fault(self.routes)
        if (twice := _find_repeated(self.names)) is not None:
            fault = f"two routes are named {self.names[twice[1]]!r}; merge their examples, or rename one"
            yield ("routes", twice[1]), fault
        places = [(r, i) for r, route in enumerate(self.routes) for i in range(len(route.examples))]
        if (twice := _find_repeated(self.examples)) is not None:
            (first, _), (second, i) = (places[j] for j in twice)
            yield (
                ("routes", second, "examples", i),
                (
                    f"the example {self.examples[twice[1]]!r:.60} occurs in {self.names[first]!r} and in "
                    f"{self.names[second]!r}, so the two cannot be told apart; keep it in one of them"
                ),
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the routes, in order."""
        return tuple(route.name for route in self.routes)

    @property
    def examples(self) -> tuple[str, ...]:
        """All examples, route by route: E texts."""
        return tuple(text for route in self.routes for text in route.examples)

    def digest(self) -> str:
        """Hash what scores depend on besides the model: names, examples and scoring."""
        said = [self.scoring, [[route.name, list(route.examples)] for route in self.routes]]
        return sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------- faults


def _name_fault(name: Any) -> str | None:
    if not isinstance(name, str) or not name.strip():
        return f"a name must be a non-empty string, got {name!r:.60}"
    if name != name.strip() or not name.isprintable():
        return "a name must be one line, without surrounding spaces or control characters"
    return None


def _examples_fault(examples: Any) -> str | None:
    """What is wrong with a list of examples, whatever its type."""
    try:
        check_sequence(examples, "examples")
    except ValueError as error:
        if type(examples) not in (str, dict, int, float, bool, type(None)):
            return str(error)
        return (  # in the words of a file
            f"examples must be a list of texts, got {kind_of(examples)}; write [{str(examples)[:30]}] for a single one"
        )
    return None


def _example_fault(text: Any) -> str | None:
    if isinstance(text, Mapping):
        return f"an example must be a string, got {text!r:.60}; a text with ': ' in it needs quotes around it"
    if text is None or (isinstance(text, str) and not text.strip()):
        return "an example is empty; a text that begins with # or is 'null' needs quotes"
    if not isinstance(text, str):
        return f"an example must be a string, got {kind_of(text)}: {text!r:.60}; put it into quotes"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"an example holds half a character (a lone surrogate): {text!r:.60}; write it again"
    return None


def _threshold_fault(threshold: Any) -> str | None:
    is_number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool) and math.isfinite(threshold)
    if threshold is None or is_number:
        return None
    return f"threshold must be a finite number such as 0.5 (a cosine is in [-1, 1]), got {threshold!r:.60}"


def _scoring_fault(scoring: Any) -> str | None:
    return None if scoring in SCORINGS else f"scoring must be {' or '.join(SCORINGS)}, got {scoring!r:.60}"


def _metadata_fault(metadata: Any) -> str | None:
    if not isinstance(metadata, Mapping):
        return f"metadata must be keys and values, got {kind_of(metadata)}"
    try:
        same = json.loads(json.dumps(dict(metadata), allow_nan=False)) == dict(metadata)
    except (TypeError, ValueError) as error:
        return f"metadata must be valid JSON, and {error}; put dates in quotes"
    return None if same else "metadata must be valid JSON with string keys"


def _routes_fault(routes: Sequence[Any]) -> str | None:
    """What is wrong with a list of routes, whatever its type."""
    if not routes:
        return "no routes; expected at least a name and a few example texts"
    strange = [route for route in routes if not isinstance(route, Route)]
    return f"expected Route objects, got {kind_of(strange[0])}" if strange else None


def _find_repeated(texts: Sequence[str]) -> tuple[int, int] | None:
    """Both places of the first text that occurs twice."""
    seen: dict[str, int] = {}
    for i, text in enumerate(texts):
        if seen.setdefault(text, i) != i:
            return seen[text], i
    return None


def kind_of(value: Any) -> str:
    """Name a type in the words of a file.

    >>> kind_of({}), kind_of(None), kind_of(0.5)
    ('keys and values', 'nothing', 'a float')
    """
    names = {dict: "keys and values", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), f"a {type(value).__name__}")


# ------------------------------------------------------------------------------------------------------- drawing


def draw_routes(
    labelled: LabelledTexts,
    per_route: int | None = None,
    *,
    hold_out: int = 0,
    seed: int = 0,
    none_label: str = "none",
) -> RouteTable:
    """Make a route of each label, ``per_route`` of its distinct texts (by default all) as examples, sorted by name.

    ``hold_out`` labels, drawn at random, get no route: their texts serve as out-of-scope queries, as do texts labelled
    ``none_label``.

    >>> labelled = LabelledTexts("tiny", ["my money back", "open on Sunday?", "when do you open"], ["refund", "hours",
    ...     "hours"])
    >>> table = draw_routes(labelled, 1)
    >>> table.names, len(table.examples)
    (('hours', 'refund'), 2)
    """
    pairs = [pair for pair in zip(labelled.labels, labelled.texts, strict=True) if pair[0] != none_label]
    pairs = list(dict.fromkeys(pairs))
    names = sorted({label for label, _ in pairs})
    _check_draw(labelled.name, names, per_route, hold_out)
    rng = np.random.default_rng(seed)
    left_out = {names[i] for i in rng.choice(len(names), hold_out, replace=False)} if hold_out else set()
    names = [name for name in names if name not in left_out]
    number = {name: r for r, name in enumerate(names)}
    kept = [(number[label], text) for label, text in pairs if label in number]
    classes = np.array([r for r, _ in kept])
    chosen: Iterable[Any] = range(len(kept))
    if per_route is not None:
        few = [name for name, count in zip(names, np.bincount(classes), strict=True) if count < per_route]
        if few:
            raise ValueError(
                f"draw_routes: {labelled.name}: {len(few)} labels have fewer than {per_route} different texts, the "
                f"first is {few[0]!r:.60}; draw fewer per route (per_route), or add texts"
            )
        chosen = draw_examples(classes, per_route, rng)
    examples: list[list[str]] = [[] for _ in names]
    for i in chosen:
        examples[kept[i][0]].append(kept[i][1])
    return RouteTable([Route(name, texts) for name, texts in zip(names, examples, strict=True)])


def _check_draw(name: str, names: Sequence[str], per_route: Any, hold_out: Any) -> None:
    """Reject impossible numbers."""
    if per_route is not None and (isinstance(per_route, bool) or per_route < 1):
        raise ValueError(f"draw_routes: per_route must be at least 1, got {per_route!r}")
    if isinstance(hold_out, bool) or not 0 <= hold_out < len(names):
        raise ValueError(
            f"draw_routes: hold_out must be at least 0 and less than {len(names)}, the number of labels of {name}, "
            f"got {hold_out!r}"
        )
