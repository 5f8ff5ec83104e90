"""A metadata condition as typed after ``--where`` -> SQL with parameters.

Everything outside this small language is an error with a caret under the place::

    condition  = all { OR all }                  all       = one { AND one }
    one        = NOT one | ( condition ) | field test
    test       = compare value | [NOT] IN ( value { , value } ) | [NOT] LIKE text | IS [NOT] NULL
    compare    = "=" | "==" | "<>" | "!=" | "<" | "<=" | ">" | ">="
    value      = text | number | TRUE | FALSE    text      = '...', a quote inside doubled
    field      = name, a.b for b inside a | "any name", a quote inside doubled

**Safe by construction.** Nothing typed becomes part of the SQL, which consists of the fixed pieces in this file; field
names and values are parameters, and a name only leads into the JSON of the column ``metadata``. So no condition can
read or change anything else.

**Comparisons.** With a number, the field is read as a number ("2020" in a CSV is one; what is not a number never
matches). With a text, it is compared as text, by code points, which sorts dates written 2020-01-31. TRUE and FALSE are
JSON's, and "True" in a CSV is one. As in SQL, a missing or null field meets no test but IS NULL, nor does it under NOT.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

__all__ = ["FieldUse", "Filter", "FilterError", "parse_filter"]

LONGEST = 10_000  # characters of a condition
DEEPEST = 50  # parentheses and NOTs inside each other
EXACT_INTEGER = 2**53  # above it a double skips integers
KEYWORDS = {"AND", "OR", "NOT", "IN", "LIKE", "IS", "NULL", "TRUE", "FALSE"}
COMPARISONS = {"=": "=", "==": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}

# The only pieces of SQL besides COMPARISONS, parentheses, AND, OR, NOT, LIKE and IS NULL.
TEXT_SQL = "json_extract_string(metadata, ?)"
EITHER_SQL = f"COALESCE({TEXT_SQL}, {TEXT_SQL})"
# DuckDB's own cast also accepts 'nan' (larger than any number), '1_000' and blanks.
NUMBER_SQL = r"TRY_CAST(regexp_extract({}, '^[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?$') AS DOUBLE)"

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+)
    |   (?P<number>[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![\w.]))
    |   (?P<name>[^\W\d]\w*(?:\.\w+)*)
    |   (?P<quoted>"(?:[^"]|"")*")
    |   (?P<text>'(?:[^']|'')*')
    |   (?P<compare><>|!=|<=|>=|==|=|<|>)
    |   (?P<mark>[(),])""",
    re.VERBOSE,
)


class FilterError(ValueError):
    """A condition outside the language: what is wrong, and a caret under the place."""


class FieldUse(NamedTuple):
    """A field named in a condition."""

    name: str
    pointers: tuple[str, ...]  # JSON pointers; the first that exists counts
    place: int  # of the name in the condition


@dataclass(frozen=True)
class Filter:
    """A checked condition: SQL with question marks, and their values."""

    text: str  # as typed
    sql: str
    parameters: tuple[str | float, ...]
    fields: tuple[FieldUse, ...]

    def refuse(self, place: int, message: str) -> NoReturn:
        """Raise a `FilterError` that points at a place of the condition."""
        _refuse(self.text, place, message)


class _Token(NamedTuple):
    kind: str  # a group of _TOKEN, "keyword", or "end"
    text: str
    place: int


def parse_filter(text: str) -> Filter:
    """Check a condition and turn it into SQL over a table with a JSON column ``metadata``.

    >>> condition = parse_filter("lang = 'en' AND NOT year < 2020")
    >>> condition.sql.startswith("(json_extract_string(metadata, ?) = ? AND NOT (TRY_CAST(")
    True
    >>> condition.parameters
    ('/lang', 'en', '/year', 2020.0)
    """
    if not isinstance(text, str):
        raise FilterError(f"where: expected a condition such as \"lang = 'en'\", got {text!r:.80}")
    if len(text) > LONGEST:
        raise FilterError(f"where: a condition may have at most {LONGEST:,} characters, got {len(text):,}")
    parser = _Parser(text)
    sql = parser.condition(0)
    token = parser.next
    if token.kind != "end":
        hint = "; is a ( missing?" if token.text == ")" else ""
        _refuse(text, token.place, f"expected AND, OR or the end{hint}")
    return Filter(text, sql, tuple(parser.parameters), tuple(parser.fields))


# ------------------------------------------------------------------------------------------------ reading


class _Parser:
    """A recursive-descent parser, one method per line of the grammar; each returns SQL and adds to the parameters."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _split(text)
        self.place = 0
        self.parameters: list[str | float] = []
        self.fields: list[FieldUse] = []

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    def take(self, *texts: str) -> _Token | None:
        """Consume the next token if it is one of these keywords, marks or comparisons."""
        token = self.next
        if token.kind in ("keyword", "mark", "compare") and token.text in texts:
            self.place += 1
            return token
        return None

    def require(self, mark: str, message: str) -> None:
        """Consume a required keyword or mark."""
        if self.take(mark) is None:
            _refuse(self.text, self.next.place, message)

    def condition(self, depth: int) -> str:
        parts = [self.all_of(depth)]
        while self.take("OR"):
            parts.append(self.all_of(depth))
        return f"({' OR '.join(parts)})" if len(parts) > 1 else parts[0]

    def all_of(self, depth: int) -> str:
        parts = [self.one(depth)]
        while self.take("AND"):
            parts.append(self.one(depth))
        return f"({' AND '.join(parts)})" if len(parts) > 1 else parts[0]

    def one(self, depth: int) -> str:
        if depth >= DEEPEST:
            _refuse(self.text, self.next.place, f"more than {DEEPEST} parentheses and NOTs inside each other")
        if self.take("NOT"):
            return f"NOT ({self.one(depth + 1)})"
        if self.take("("):
            inner = self.condition(depth + 1)
            self.require(")", "expected AND, OR or )")
            return f"({inner})"
        return self.test(self.field())

    def field(self) -> FieldUse:
        token = self.next
        if token.kind not in ("name", "quoted"):
            is_keyword = token.kind == "keyword"
            hint = f'; a field of the name {token.text} is written "{token.text}"' if is_keyword else ""
            _refuse(self.text, token.place, f"expected the name of a field, NOT or ({hint}")
        self.place += 1
        if token.kind == "quoted":
            name = token.text[1:-1].replace('""', '"')
            pointers: tuple[str, ...] = (_pointer([name]),)
        else:
            name = token.text
            pointers = tuple(dict.fromkeys([_pointer([name]), _pointer(name.split("."))]))
        found = FieldUse(name, pointers, token.place)
        self.fields.append(found)
        return found

    def test(self, field: FieldUse) -> str:
        if token := self.take(*COMPARISONS):
            return self.compare(field, token, self.value())
        if self.take("IS"):
            negated = self.take("NOT")
            self.require("NULL", "expected NULL or NOT NULL")
            return f"{self.read(field)} IS {'NOT ' if negated else ''}NULL"
        negated = self.take("NOT")
        if self.take("LIKE"):
            token = self.next
            if token.kind != "text":
                _refuse(self.text, token.place, "expected a 'text' in single quotes, % for any letters and _ for one")
            read = self.read(field)
            return f"{read} {'NOT ' if negated else ''}LIKE {self.add(str(self.value()))}"
        if self.take("IN"):
            return f"NOT ({self.one_of(field)})" if negated else f"({self.one_of(field)})"
        wanted = "LIKE or IN" if negated else "a comparison (= <> < <= > >=), LIKE, IN, IS NULL or NOT"
        _refuse(self.text, self.next.place, f"expected {wanted}")

    def one_of(self, field: FieldUse) -> str:
        self.require("(", "expected ( and comma-separated values")
        equal = _Token("compare", "=", self.next.place)
        parts = [self.compare(field, equal, self.value())]
        while self.take(","):
            parts.append(self.compare(field, equal, self.value()))
        self.require(")", "expected , or )")
        return " OR ".join(parts)

    def compare(self, field: FieldUse, token: _Token, value: str | float | bool) -> str:
        """Compare by the value's type; parameters in the order of their question marks."""
        if is_truth := isinstance(value, bool):
            if COMPARISONS[token.text] not in ("=", "<>"):
                _refuse(self.text, token.place, "TRUE and FALSE can only be compared with = and <>")
            value = "true" if value else "false"
        read = self.read(field)
        if isinstance(value, float):
            read = NUMBER_SQL.format(read)
        elif is_truth:
            read = f"lower({read})"
        return f"{read} {COMPARISONS[token.text]} {self.add(value)}"

    def read(self, field: FieldUse) -> str:
        self.parameters += field.pointers
        return TEXT_SQL if len(field.pointers) == 1 else EITHER_SQL

    def add(self, value: str | float) -> str:
        self.parameters.append(value)
        return "?"

    def value(self) -> str | float | bool:
        token = self.next
        self.place += 1
        if token.kind == "text":
            return token.text[1:-1].replace("''", "'")
        if token.kind == "number":
            return _number(self.text, token)
        if token.kind == "keyword" and token.text in ("TRUE", "FALSE"):
            return token.text == "TRUE"
        if token.kind == "keyword" and token.text == "NULL":
            _refuse(self.text, token.place, "nothing is equal to NULL; write IS NULL or IS NOT NULL")
        hint = "; double quotes are for names of fields" if token.kind == "quoted" else ""
        wanted = "a value: a 'text' in single quotes, a number, TRUE or FALSE"
        _refuse(self.text, token.place, f"expected {wanted}{hint}")


def _split(text: str) -> list[_Token]:
    """Split a condition into tokens; anything else raises here."""
    tokens, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            _refuse(text, place, _no_token(text[place:]))
        kind, word = str(match.lastgroup), match.group()
        if any("\ud800" <= character <= "\udfff" for character in word):
            _refuse(text, place, "half a character (a lone surrogate)")
        if kind == "name" and word.upper() in KEYWORDS:
            kind, word = "keyword", word.upper()
        if kind != "blank":
            tokens.append(_Token(kind, word, place))
        place = match.end()
    return [*tokens, _Token("end", "", len(text))]


def _no_token(rest: str) -> str:
    """Say what is wrong with text that begins no token."""
    if rest[0] in "'\"":
        return f"the quote {rest[0]} is not closed"
    if rest[0].isdigit() or rest[0] in "+-.":
        return 'not a number; a name that contains a dash or starts with a digit goes "in double quotes"'
    return f"the character {rest[0]!r} is not allowed here; is a name or string missing its quotes?"


def _number(text: str, token: _Token) -> float:
    """The number as a float; infinite ones, and integers beyond a double's precision, are errors."""
    value = float(token.text)
    is_whole = token.text.lstrip("+-").isdigit()
    if not math.isfinite(value) or (is_whole and abs(int(token.text)) > EXACT_INTEGER):
        _refuse(text, token.place, "numbers this large cannot be distinguished; compare as a 'text'")
    return value


def _pointer(keys: list[str]) -> str:
    """A path as a JSON pointer (RFC 6901), which can express any key."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


# ------------------------------------------------------------------------------------------------ refusing


def _refuse(text: str, place: int, message: str) -> NoReturn:
    """Raise an error that shows the condition, or the part around the place, with a caret below."""
    start = max(0, place - 60)
    shown = "".join(c if c.isprintable() else " " for c in text[start : place + 40])
    before = shown[: place - start]
    width = sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in before if not unicodedata.combining(c))
    raise FilterError(f"where: {message}\n  {shown}\n  {' ' * width}^")
