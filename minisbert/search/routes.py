"""Routes: a name and a few example texts each, in Python, YAML, JSON, or a labelled table.

In YAML::

    routes:
      refund:
        - I want my money back
        - how do I return this?
      hours:
        examples: [when do you open, are you open on Sunday]
        threshold: 0.6
        description: opening hours, holidays included
        metadata: {team: front desk}
    threshold: 0.5
    scoring: nearest

Only names and examples are required; if there is nothing but routes, the line ``routes:`` is optional too. JSON and a
Python dict look the same. Of a table each label is a route, but for ``none``.
Routes hold no vectors: embedding a few hundred examples is quick, and texts can be read, edited and compared.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from reprlib import repr as short
from typing import Any

import yaml

from minisbert.checks import check_choice, check_sequence, check_texts
from minisbert.evaluation.classification import read_labelled
from minisbert.files import written_whole
from minisbert.saved import Origin
from minisbert.tables import InputError

SCORINGS = ("nearest", "centroid")
ROUTE_KEYS = ("examples", "threshold", "description", "metadata")
TABLE_KEYS = ("routes", "threshold", "scoring", "model", "fitted")
MODEL_KEYS = ("name", "fingerprint", "max_seq_length")


@dataclass(frozen=True)
class Route:
    """A name and the texts that belong there.

    Parameters
    ----------
    name : str
        One line.
    examples : sequence of str
        At least one.
    threshold : float, optional
        Minimum score of a query; by default the table's.
    description : str
        For people.
    metadata : mapping
        Your own, such as who answers; it comes with every answer.

    Examples
    --------
    >>> Route("refund", ["I want my money back", ""])
    Traceback (most recent call last):
        ...
    ValueError: routes.refund.examples[1]: empty; write a text, in quotes if it begins with #
    """

    name: str
    examples: Sequence[str]
    threshold: float | None = None
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not name or name != name.strip() or not name.isprintable():
            raise ValueError(f"routes: a name must be one line of text, without spaces around it, got {short(name)}")
        where = f"routes.{name}"
        check_sequence(self.examples, f"{where}.examples", "a list of texts")
        examples = tuple(check_texts(self.examples, f"{where}.examples", single=False))
        if not examples:
            raise ValueError(f"{where}.examples: empty; give at least one text, better five or more")
        for i, text in enumerate(examples):
            if not text.strip():
                raise ValueError(f"{where}.examples[{i}]: empty; write a text, in quotes if it begins with #")
        if not isinstance(self.description, str):
            raise ValueError(f"{where}.description: must be text, got {short(self.description)}")
        if not isinstance(self.metadata, Mapping):
            raise ValueError(f"{where}.metadata: must be keys and values, got {short(self.metadata)}")
        object.__setattr__(self, "examples", examples)
        object.__setattr__(self, "threshold", _number(self.threshold, f"{where}.threshold"))


@dataclass(frozen=True)
class RouteTable:
    """Routes, scored by their most similar example ("nearest") or the mean of their examples ("centroid").

    Names and examples are unique over the table; of equal scores the first route wins. ``threshold`` is for routes
    without their own; without any, every query gets a route. ``origin`` is the model with which thresholds were fitted
    (they mean nothing with another), ``fitted`` says how, with a digest of the examples; ``file`` is where the routes
    come from, for messages.
    """

    routes: Sequence[Route]
    threshold: float | None = None
    scoring: str = "nearest"
    origin: Origin | None = None
    fitted: Mapping[str, Any] | None = None
    file: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", tuple(self.routes))
        object.__setattr__(self, "threshold", _number(self.threshold, "threshold"))
        check_choice("scoring:", self.scoring, SCORINGS)
        if not self.routes:
            raise ValueError("routes: empty; give at least a name and a few example texts")
        seen: dict[str, str] = {}
        names = self.names
        for r, route in enumerate(self.routes):
            if route.name in names[:r]:
                raise ValueError(f"routes: two are named {route.name!r}; merge their examples, or rename one")
            for i, text in enumerate(route.examples):
                place = f"routes.{route.name}.examples[{i}]"
                if seen.setdefault(text, place) != place:
                    raise ValueError(f"{place}: {text!r:.60} is {seen[text]} too, so neither decides; keep one")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the routes, in order: R of them."""
        return tuple(route.name for route in self.routes)

    @property
    def examples(self) -> tuple[str, ...]:
        """All examples, route by route: E texts."""
        return tuple(text for route in self.routes for text in route.examples)

    def digest(self) -> str:
        """Hash what scores depend on besides the model: names, examples and scoring."""
        said = [self.scoring, [[route.name, list(route.examples)] for route in self.routes]]
        return sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()


def as_table(source: Any) -> RouteTable:
    """Make routes of a file's content, of a list of `Route`, or of names and their examples.

    >>> as_table({"refund": ["my money back"], "hours": {"examples": ["when do you open"], "threshold": 0.6}}).names
    ('refund', 'hours')
    """
    if isinstance(source, RouteTable):
        return source
    if isinstance(source, (list, tuple)) and all(isinstance(one, Route) for one in source):
        return RouteTable(source)
    said = source if isinstance(source, Mapping) and "routes" in source else {"routes": source}
    _check_keys("", said, TABLE_KEYS)
    if not isinstance(said["routes"], Mapping):
        raise ValueError(f"routes: must be names and their examples, got {short(said['routes'])}")
    routes = []
    for name, value in said["routes"].items():
        filled = value if isinstance(value, Mapping) else {"examples": value}
        _check_keys(f"routes.{name}", filled, ROUTE_KEYS)
        routes.append(Route(**{"name": name, "examples": (), **filled}))
    origin, model, fitted = None, said.get("model"), said.get("fitted")
    if model is not None:
        _check_keys("model", model, MODEL_KEYS)
        name, fingerprint, limit = (model.get(key) for key in MODEL_KEYS)
        if not isinstance(name, str) or not isinstance(fingerprint, str):
            raise ValueError(f"model: must have a name and a fingerprint, got {short(model)}")
        limit = _number(limit, "model.max_seq_length")
        origin = Origin(name, fingerprint, None if limit is None else int(limit))
    if fitted is not None and not isinstance(fitted, Mapping):
        raise ValueError(f"fitted: must be keys and values, got {short(fitted)}")
    return RouteTable(routes, said.get("threshold"), said.get("scoring", "nearest"), origin, fitted)


def _check_keys(where: str, value: Any, known: Sequence[str]) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: must be keys and values ({', '.join(known)}), got {short(value)}")
    for key in value:
        if key not in known:
            raise ValueError(f"{where}{'.' * bool(where)}{key}: unknown key; there may be {', '.join(known)}")


def _number(value: Any, where: str) -> float | None:
    """A finite number, or its text, as YAML's are read."""
    if value in (None, "", "null", "~"):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where}: must be a finite number such as 0.5, got {short(value)}")
    return number


# -------------------------------------------------------------------------------------------------------- files


class _Loader(yaml.BaseLoader):  # type: ignore[misc]
    """Every value is the text as written: ``no`` is not false, ``12:30`` not 750. A key twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        return _unique(
            (self.construct_object(key, True), self.construct_object(value, True)) for key, value in node.value
        )


def _unique(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """A mapping that drops nothing, as YAML and JSON do with all but the last of equal keys."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str) or key in found:
            fault = "occurs twice; merge the two, or rename one" if isinstance(key, str) else "must be text"
            raise ValueError(f"the key {short(key)} {fault}")
        found[key] = value
    return found


def read_routes(file: str | Path) -> RouteTable:
    r"""Read routes from a file.

    Parameters
    ----------
    file : str or path
        YAML (.yaml, .yml) or JSON (.json) as shown at the top of this module; or a labelled table (`read_labelled`): a
        route per label with all its texts, except for the label ``none``. In YAML all values are texts as written, but
        for thresholds.

    Raises
    ------
    InputError
        A ValueError that names the file, the place in it, and the way out.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "routes.yaml"
    >>> _ = file.write_text("routes:\n  refund: [my money back]\n  no: [no, certainly not]\n")
    >>> [(route.name, route.examples) for route in read_routes(file).routes]
    [('refund', ('my money back',)), ('no', ('no', 'certainly not'))]
    """
    said: dict[str, list[str]] = {}
    try:
        match Path(file).suffix.lower():
            case ".json":
                said = json.loads(Path(file).read_bytes(), object_pairs_hook=_unique)
            case ".yaml" | ".yml":
                said = yaml.load(Path(file).read_bytes(), _Loader)
            case _:
                labelled = read_labelled(file)
                for label, text in dict.fromkeys(zip(labelled.labels, labelled.texts, strict=True)):
                    if label != "none":
                        said.setdefault(label, []).append(text)
        return replace(as_table(said), file=str(file))
    except InputError:  # a table's, which says where
        raise
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(
            f"{file}{at}: not YAML: {problem or ' '.join(str(error).split())}; a text with ': ' in it needs quotes, "
            "and between [ and ] one with a comma or a question mark, too"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: {error}") from None


def write_routes(table: RouteTable, file: str | Path) -> None:
    """Write routes to a file that `read_routes` reads; it appears whole or not at all.

    Parameters
    ----------
    table : RouteTable
        Such as ``router.table``.
    file : str or path
        Ends in .yaml, .yml or .json.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "routes.yaml"
    >>> write_routes(as_table({"refund": ["my money back"]}), file)
    >>> print(file.read_text())
    routes:
      refund:
      - my money back
    scoring: nearest
    """
    suffix = Path(file).suffix.lower()
    if suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(f"{file}: the name must end in .yaml, .yml or .json")
    routes: dict[str, Any] = {}
    for route in table.routes:
        more = {"threshold": route.threshold, "description": route.description, "metadata": dict(route.metadata)}
        more = {key: value for key, value in more.items() if value not in (None, "", {})}
        routes[route.name] = {"examples": list(route.examples), **more} if more else list(route.examples)
    values = (routes, table.threshold, table.scoring, None, table.fitted and dict(table.fitted))
    said = dict(zip(TABLE_KEYS, values, strict=True))
    if table.origin is not None:
        said["model"] = dict(zip(MODEL_KEYS, astuple(table.origin), strict=True))
    said = {key: value for key, value in said.items() if value is not None}
    text = json.dumps(said, ensure_ascii=False, indent=1) + "\n"
    if suffix != ".json":
        is_plain = not re.search("[\x85\u2028\u2029]", text)  # YAML's line ends, which come back only if escaped
        text = yaml.safe_dump(said, sort_keys=False, allow_unicode=is_plain, width=10**6)
    with written_whole(Path(file)) as stream:
        stream.write(text.encode())
