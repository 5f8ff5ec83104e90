"""Routes in files: YAML, JSON, a labelled table; or Python's own dicts and lists.

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
Python dict look the same, or a list of objects with a ``name``. A labelled CSV, TSV or JSONL becomes one route per
label; texts labelled ``none`` make no route. Inside ``[`` and ``]`` a comma ends a text, so put whole sentences on
lines of their own.

**No YAML surprises.** A name or an example is the text as written: ``no`` is not false, ``12:30`` is not 750. A
repeated key, which YAML would silently drop, is an error, as are anchors, aliases and tags. Every error names the file,
the line and the route. Comments are lost when routes are written again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from minisbert.evaluation.classification import read_labelled
from minisbert.files import written_whole
from minisbert.saved import Origin
from minisbert.search.routes import PathIn, Route, RouteError, RouteTable, draw_routes, kind_of
from minisbert.tables import FORMATS, InputError, told_format

__all__ = ["as_table", "dump_routes", "read_routes", "write_routes"]

ROUTE_KEYS = ("name", "examples", "threshold", "description", "metadata")
TABLE_KEYS = ("routes", "threshold", "scoring", "model", "fitted")
MODEL_KEYS = ("name", "fingerprint", "max_seq_length")
KINDS = ("map", "seq", "str", "int", "float", "bool", "timestamp", "merge", "value", "null")
TAGS = {f"tag:yaml.org,2002:{kind}" for kind in KINDS}  # all that a plain YAML file contains
QUOTES = "a text with ': ' in it needs quotes, and between [ and ] one with a comma or a question mark, too"
AS_WRITTEN = ("metadata", "fitted", "model")  # below these keys numbers in lists stay numbers


@dataclass(frozen=True)
class _Source:
    """A file's content, and the line on which each part begins."""

    name: str  # of the file, for messages
    value: Any
    lines: Mapping[PathIn, int]

    def refuse(self, path: PathIn, fault: str) -> NoReturn:
        """Raise an error at a place."""
        line = next((self.lines[path[:i]] for i in range(len(path), -1, -1) if path[:i] in self.lines), None)
        at = [self.name] + ([] if line is None else [f"line {line}"])
        if len(path) > 1 and path[0] == "routes":
            at.append(f"route number {path[1] + 1}" if isinstance(self.value["routes"], list) else f"route {path[1]!r}")
        raise InputError(f"{', '.join(at)}: {fault}")

    def within_routes(self) -> _Source:
        """Put the key ``routes`` on top of a file that contains only routes."""
        if isinstance(self.value, Mapping) and "routes" in self.value:
            return self
        return _Source(self.name, {"routes": self.value}, {("routes", *path): n for path, n in self.lines.items()})

    def check_keys(self, path: PathIn, value: Any, known: Sequence[str]) -> dict[str, Any]:
        """Reject anything but a mapping with known keys."""
        if not isinstance(value, Mapping):
            self.refuse(path, f"expected {', '.join(known)} and their values, got {kind_of(value)}: {value!r:.60}")
        for key in value:
            if key not in known:
                self.refuse((*path, key), f"unknown key {key!r:.60}; there may be {', '.join(known)}")
        return dict(value)


def as_table(source: Any, name: str = "routes") -> RouteTable:
    """Make routes of a file's content, of a list of routes, or of names and their examples.

    >>> as_table({"refund": ["my money back"], "hours": {"examples": ["when do you open"], "threshold": 0.6}}).names
    ('refund', 'hours')
    >>> as_table({"routes": [{"name": "refund", "examples": ["my money back"]}], "threshold": 0.5}).threshold
    0.5
    """
    if isinstance(source, RouteTable):
        return source
    if isinstance(source, Sequence) and source and all(isinstance(route, Route) for route in source):
        return RouteTable(source)
    return _parse(_Source(name, source, {}))


def _parse(source: _Source) -> RouteTable:
    """Make routes of a file's content."""
    source = source.within_routes()
    said = source.check_keys((), source.value, TABLE_KEYS)
    found = said["routes"]
    is_list = not isinstance(found, Mapping)
    if not is_list:
        keys: list[Any] = list(found)
    elif isinstance(found, Sequence) and not isinstance(found, str):
        keys = list(range(len(found)))
    else:
        source.refuse(("routes",), f"expected names and their examples, got {kind_of(found)}")
    routes = [_parse_route(source, key, found[key], is_list) for key in keys]
    origin = None if said.get("model") is None else _parse_origin(source, said["model"])
    fitted = said.get("fitted")
    if fitted is not None and not isinstance(fitted, Mapping):
        source.refuse(("fitted",), f"expected keys and values, got {kind_of(fitted)}")
    scoring = "nearest" if said.get("scoring") is None else said["scoring"]
    try:
        return RouteTable(routes, said.get("threshold"), scoring, origin, fitted)
    except RouteError as error:
        top, *rest = error.path
        if not rest:
            source.refuse((top,), error.fault)
        key = keys[rest[0]]
        source.refuse(("routes", key, *_inside(found[key], tuple(rest[1:]))), error.fault)


def _parse_route(source: _Source, key: Any, value: Any, is_list: bool) -> Route:
    """Make a route of its examples, or of its keys; in a list the name is one of these."""
    path = ("routes", key)
    if is_list or isinstance(value, Mapping):
        said = source.check_keys(path, value, ROUTE_KEYS if is_list else ROUTE_KEYS[1:])
    else:
        said = {"examples": value}
    if is_list and "name" not in said:
        source.refuse(path, "a route in a list needs a name")
    filled = {"name": key, "examples": (), **{name: given for name, given in said.items() if given is not None}}
    try:
        return Route(**filled)
    except RouteError as error:
        source.refuse((*path, *_inside(value, error.path)), error.fault)


def _inside(value: Any, path: PathIn) -> PathIn:
    """The path of a part of a route; in the short form the examples are the whole."""
    return path if isinstance(value, Mapping) else path[1:]


def _parse_origin(source: _Source, value: Any) -> Origin:
    """Read the model that thresholds were fitted with."""
    said = source.check_keys(("model",), value, MODEL_KEYS)
    name, fingerprint, limit = (said.get(key) for key in MODEL_KEYS)
    is_limit = limit is None or (isinstance(limit, int) and not isinstance(limit, bool))
    if not isinstance(name, str) or not isinstance(fingerprint, str) or not is_limit:
        source.refuse(
            ("model",), f"expected strings 'name' and 'fingerprint', and 'max_seq_length', got {value!r:.120}"
        )
    return Origin(name, fingerprint, limit)


# ------------------------------------------------------------------------------------------------------- reading


def read_routes(file: str | Path) -> RouteTable:
    r"""Read routes from a file.

    Parameters
    ----------
    file : str or path
        YAML (.yaml, .yml) or JSON (.json) as shown at the top of this module; or a labelled CSV, TSV or JSONL, plain or
        .gz (`read_labelled`): a route per label with all its texts, except for the label ``none``.

    Returns
    -------
    RouteTable

    Raises
    ------
    InputError
        A ValueError that names file, line (not in well-formed JSON), route, cause and way out.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "routes.yaml"
    >>> _ = file.write_text("routes:\n  refund: [my money back]\n  no: [no, certainly not]\n")
    >>> [(route.name, route.examples) for route in read_routes(file).routes]
    [('refund', ('my money back',)), ('no', ('no', 'certainly not'))]
    """
    suffix = Path(file).suffix.lower()
    if suffix in (".yaml", ".yml"):
        return _parse(_read_yaml(_read_text(file), str(file)))
    if suffix == ".json":
        return _parse(_read_json(_read_text(file), str(file)))
    if told_format(file) is None:
        raise InputError(
            f"{file}: expected a name that ends in .yaml, .yml, .json, or {', '.join(FORMATS)} for a table"
        )
    return draw_routes(read_labelled(file))


def _read_text(file: str | Path) -> str:
    """Read a file as UTF-8."""
    try:
        return Path(file).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}, byte {error.start + 1}: not UTF-8; save it as UTF-8") from None


def _read_json(text: str, name: str) -> _Source:
    """Read JSON; repeated keys are errors."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if twice is not None:
            raise InputError(f"{name}: the key {twice!r:.60} occurs twice in one object; merge the two")
        return dict(pairs)

    try:
        return _Source(name, json.loads(text, object_pairs_hook=unique), {})
    except json.JSONDecodeError as error:
        raise InputError(f"{name}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply for a file of routes") from None


def _read_yaml(text: str, name: str) -> _Source:
    """Read YAML, with the line of each part."""
    import yaml

    lines: dict[PathIn, int] = {}
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        value = None if root is None else _plain(loader, root, (), lines, set(), name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        said = error.problem or error.context
        raise InputError(f"{name}{at}: not YAML: {said}; {QUOTES}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{name}, line {line}: not YAML: {str(error).splitlines()[0]}; take it out") from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply for a file of routes") from None
    return _Source(name, value, lines)


def _plain(loader: Any, node: Any, path: PathIn, lines: dict[PathIn, int], seen: set[int], name: str) -> Any:
    """A part of a YAML file as Python's own types; texts in lists as written."""
    lines[path] = line = node.start_mark.line + 1
    if id(node) in seen:  # an alias is its anchor's own node
        raise InputError(f"{name}, line {line}: aliases (*name) are not supported; write the texts out")
    seen.add(id(node))
    if node.tag not in TAGS:
        raise InputError(f"{name}, line {line}: tags (here {node.tag!r:.60}) are not supported; remove it")
    if node.id == "sequence":
        return [_plain(loader, one, (*path, i), lines, seen, name) for i, one in enumerate(node.value)]
    if node.id == "mapping":
        found: dict[str, Any] = {}
        for key, value in node.value:
            begins, here = key.start_mark.line + 1, (*path, key.value)
            if key.id != "scalar" or key.tag.endswith(":merge"):
                raise InputError(f"{name}, line {begins}: a key must be a plain string, got {_key_words(key)}")
            if key.value in found:
                raise InputError(
                    f"{name}, line {begins}: {key.value!r:.60} already occurs on line {lines[here]}; YAML would drop "
                    "one of them: merge the two, or rename one"
                )
            found[key.value] = _plain(loader, value, here, lines, seen, name)
            lines[here] = begins
        return found
    is_text = path and isinstance(path[-1], int) and not set(AS_WRITTEN) & set(path)
    if is_text and not node.tag.endswith(":null"):
        return node.value
    try:
        return loader.construct_object(node)
    except ValueError as error:
        raise InputError(
            f"{name}, line {line}: {node.value!r:.60} is not a valid value: {error}; put it in quotes"
        ) from None


def _key_words(key: Any) -> str:
    """Name a key that is not text."""
    return "<< (merging)" if key.id == "scalar" else f"a {key.id}"


# ------------------------------------------------------------------------------------------------------- writing


def write_routes(table: RouteTable, file: str | Path) -> None:
    """Write routes to a .yaml, .yml or .json file that `read_routes` reads; it appears whole or not at all."""
    suffix = Path(file).suffix.lower()
    if suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(f"{file}: the name must end in .yaml, .yml or .json")
    text = dump_routes(table, as_json=suffix == ".json")
    with written_whole(Path(file)) as stream:
        stream.write(text.encode())


def dump_routes(table: RouteTable, *, as_json: bool = False) -> str:
    r"""The content of a file, as YAML or JSON.

    >>> dump_routes(RouteTable([Route("refund", ["my money back"])]))
    'routes:\n  refund:\n  - my money back\nscoring: nearest\n'
    """
    said = _as_written(table)
    if as_json:
        return json.dumps(said, ensure_ascii=False, indent=1) + "\n"
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Double-quotes (and so escapes) what is not printable: PyYAML loses U+0085 elsewhere."""

    def quoted(dumper: Any, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')

    Dumper.add_representer(str, quoted)
    options = {"sort_keys": False, "allow_unicode": True, "width": 10**6, "default_flow_style": False}
    return yaml.dump(said, Dumper=Dumper, **options)


def _as_written(table: RouteTable) -> dict[str, Any]:
    """The content of a file, without defaults except the scoring."""
    routes: dict[str, Any] = {}
    for route in table.routes:
        more = {"threshold": route.threshold, "description": route.description, "metadata": dict(route.metadata)}
        more = {key: value for key, value in more.items() if value not in (None, "", {})}
        texts = list(route.examples)
        routes[route.name] = {"examples": texts, **more} if more else texts
    said: dict[str, Any] = {"routes": routes}
    if table.threshold is not None:
        said["threshold"] = table.threshold
    said["scoring"] = table.scoring
    if table.origin is not None:
        values = (table.origin.model, table.origin.fingerprint, table.origin.max_seq_length)
        said["model"] = dict(zip(MODEL_KEYS, values, strict=True))
    if table.fitted is not None:
        said["fitted"] = dict(table.fitted)
    return said
