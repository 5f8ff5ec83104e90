"""Tables: what any program writes is read back, row by row, and every mistake is named with its line."""

import csv
import gzip
import io
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert.tables import EmptyTextWarning, InputError, read_table

ROWS = [{"id": "7", "text": "soup"}, {"id": "8", "text": "tea, hot"}]


def table(folder, name, content, **options):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(folder / name, **options)


FORMATS = [
    ("t.csv", 'id,text\r\n7,soup\r\n8,"tea, hot"'),
    ("t.csv", "id;text\n7;soup\n\n8;tea, hot\n\n"),  # blank lines are no rows
    ("t.csv", "sep=;\nid;text\n7;soup\n8;tea, hot\n"),  # Excel
    ("t.csv", 'id;text\r7;soup\r8;"tea, hot"\r'),  # Excel on a Mac
    ("t.csv", "id|text\n7|soup\n8|tea, hot"),
    ("t.TSV", "id\ttext\r\n7\tsoup\r\n8\ttea, hot"),
    ("t.jsonl", '{"id": "7", "text": "soup"}\r\n\n{"id": "8", "text": "tea, hot"}'),
    ("t.json", '[{"id": "7",\n"text": "soup"}, {"id": "8", "text": "tea, hot"}]'),
]


def test_every_format_gives_the_same_rows(tmp_path):
    for (name, content), encoding in itertools.product(FORMATS, ("utf-8", "utf-8-sig", "utf-16")):
        raw = content.encode(encoding)
        (tmp_path / "stream").write_bytes(raw)
        with (tmp_path / "stream").open("rb") as stream:
            for found in (
                table(tmp_path, name, raw),
                table(tmp_path, f"{name}.gz", gzip.compress(raw)),
                read_table(stream, input_format=Path(name).suffix[1:].lower()),
            ):
                assert found.columns == ("id", "text") and [row for _, row in found] == ROWS


def test_the_header_tells_delimiter_and_line_ends(tmp_path):
    assert table(tmp_path, "t.csv", "id;text, long\n7;soup\n").columns == ("id", "text, long")
    assert table(tmp_path, "t.csv", '"a\rb",c\n1,2\n').columns == ("a\rb", "c")
    assert list(table(tmp_path, "t.csv", 'a,b\r1,"x\ny"\r2,z')) == [
        (2, {"a": "1", "b": "x\ny"}),
        (3, {"a": "2", "b": "z"}),
    ]


def test_a_row_carries_the_line_on_which_it_begins(tmp_path):
    assert [line for line, _ in table(tmp_path, "t.csv", 'a,b\n"x,\ny","""z"\n\n1,2\n')] == [2, 5]
    assert [line for line, _ in table(tmp_path, "t.csv", "sep=,\na,b\n1,2\n")] == [3]
    assert list(table(tmp_path, "t.csv", "7,soup\n8,tea\n", has_header=False)) == [
        (1, {"1": "7", "2": "soup"}),
        (2, {"1": "8", "2": "tea"}),
    ]
    assert list(table(tmp_path, "t.txt", "a\r\n\nb\rc", input_format="text")) == [
        (1, {"text": "a"}),
        (2, {"text": ""}),
        (3, {"text": "b\rc"}),
    ]


# ------------------------------------------------------------------------------------------ quotes of a TSV

cells = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\x00"), max_size=8)
quotable = st.lists(st.sampled_from(['"', "a", " ", "\t", "\n", ",", '""']), max_size=5).map("".join)


@settings(max_examples=30)
@given(st.lists(st.tuples(cells | quotable, quotable), min_size=1, max_size=5))
def test_what_python_and_json_write_is_read(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    records = [{"a": a, "b": b} for a, b in rows]
    for name, delimiter in (("t.csv", ","), ("t.csv", ";"), ("t.csv", "\t"), ("t.csv", "|"), ("t.tsv", "\t")):
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
            written = io.StringIO(newline="")
            csv.writer(written, delimiter=delimiter, lineterminator="\n", quoting=quoting).writerows(
                [("a", "b"), *rows]
            )
            # a line end and a tab in one cell may look like two whole rows
            told = {"quoting": True} if any({"\n", "\t"} <= {*cell} for row in rows for cell in row) else {}
            assert [row for _, row in table(folder, name, written.getvalue(), **told)] == records
    for name, content in (("t.jsonl", "\n".join(map(json.dumps, records))), ("t.json", json.dumps(records, indent=1))):
        assert [row for _, row in table(folder, name, content)] == records


@given(st.lists(st.lists(st.text("\"a '", max_size=6), min_size=2, max_size=2), min_size=1, max_size=5))
def test_a_tsv_without_quoting_is_read_as_it_is(tmp_path_factory, rows):
    content = "\n".join("\t".join(row) for row in [["a", "b"], *rows])
    found = table(tmp_path_factory.mktemp("rows"), "t.tsv", content, quoting=False)
    assert [list(row.values()) for _, row in found] == rows


QUOTED = [
    ('text\n"said ""hi"""\n"two\nlines"\nend\n', ['said "hi"', "two\nlines", "end"]),  # pandas
    ('"id"\t"text"\n1\t"soup"\n', ["soup"]),  # R, or QUOTE_NONNUMERIC
    ('"ok"\t"x"\t"text"\nTrue\tinf\t"soup"\nFalse\t-inf\t"tea"\nNone\tnan\t""\n', ["soup", "tea", ""]),
    ('id\ttext\n1\t"soup"\n2\tthe "end"\n', ['"soup"', 'the "end"']),  # STS
    ('text\tn\n"one\tx\ntwo"\t5\n"six\ty\nten"\t7\n', ["one\tx\ntwo", "six\ty\nten"]),  # pandas
    ('id\ttext\n1\t"soup\n2\tend"\n3\t"tea"\n', ['"soup', 'end"', '"tea"']),
    ('id\ttext\n1\t"I said ""hi"""\n2\t"soup"\n', ['"I said ""hi"""', '"soup"']),
]


def test_a_tsv_quotes_only_if_that_explains_it(tmp_path):
    for content, values in QUOTED:
        assert [row["text"] for _, row in table(tmp_path, "t.tsv", content)] == values


# ------------------------------------------------------------------------------------------------- Parquet


def test_parquet(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    from datetime import date
    from decimal import Decimal

    columns = {
        "text": arrow.array([b"soup", "thé".encode()], arrow.binary()),
        "post": [{"title": "a", "tags": ["b"]}, None],
        "day": [date(2020, 1, 2), None],
        "price": [Decimal("4.50"), None],
        "blob": arrow.array([b"\xff", None], arrow.binary()),
    }
    parquet.write_table(arrow.table(columns), tmp_path / "t[1].parquet", row_group_size=1)
    for source in (tmp_path / "t[1].parquet", io.BytesIO((tmp_path / "t[1].parquet").read_bytes())):
        found = read_table(source, input_format="parquet")
        assert found.columns == tuple(columns)
        assert list(found.pick(["text", "post", "day", "price"])) == [
            (1, ("soup", {"title": "a", "tags": ["b"]}, "2020-01-02", 4.5)),
            (2, ("thé", None, None, None)),
        ]
    assert next(read_table(tmp_path / "t[1].parquet").pick(["post.title"])) == (1, ("a",))
    with pytest.raises(InputError, match=r"row 1: .*'blob' is not UTF-8"):
        next(read_table(tmp_path / "t[1].parquet").pick(["blob"], filled=["blob"]))
    with pytest.raises(InputError, match=r"bad\.parquet"):
        table(tmp_path, "bad.parquet", b"PAR1 but no more")


# ------------------------------------------------------------------------------------------------- columns


COLUMNS = [  # the header, what is asked for, and what is found
    ("Text,text,id", "text", "text"),  # an exact name wins
    ("a,b,2", "2", "2"),  # a name wins over a number
    ("a,b", "2", "b"),
    ("id,Review", None, "Review"),
    ("query,text", None, "text"),  # the first of the usual names
    ("notes,stars", None, "notes"),  # the only one of several words
    ("stars", None, "stars"),
    ("TEXT,Text", "text", InputError),
    ("a,b", "3", InputError),
    ("stars,grade", None, InputError),
]


def test_a_column_is_found(tmp_path):
    for header, asked, found in COLUMNS:
        row = ",".join("I love soup" if name == "notes" else "5" for name in header.split(","))
        read = table(tmp_path, "t.csv", f"{header}\n{row}\n")
        if found is InputError:
            with pytest.raises(InputError, match=r"t\.csv"):
                read.find("text", asked)
        else:
            assert read.find("text", asked) == found
            assert len(list(read)) == 1  # looking takes no row away


def test_values_are_picked_by_name_number_and_path(tmp_path):
    content = '{"n": 4.5, "p": {"a": "soup", "b": [1]}}\n{"n": null, "p": {"a": "tea", "b": true}, "title": "x"}\n'
    found = table(tmp_path, "t.jsonl", content).pick(["n", "p.a", "p.b", "title"], optional={"title": ""})
    assert list(found) == [(1, (4.5, "soup", [1], "")), (2, (None, "tea", True, "x"))]
    assert list(table(tmp_path, "t.tsv", "a\n1\n").pick(["b", "a"], optional={"b": "x"})) == [(2, ("x", "1"))]
    assert list(table(tmp_path, "t.jsonl", '"a"\n{"text": "b"}\n').pick(["text"])) == [(1, ("a",)), (2, ("b",))]


def test_rows_without_a_text_are_left_out_and_counted(tmp_path):
    with pytest.warns(EmptyTextWarning, match=r"t\.csv, line 3: skipped 2 rows"):
        found = list(table(tmp_path, "t.csv", "id,text\n1,a\n2,\n3, \n4,b\n").pick(["id", "text"], filled=["text"]))
    assert found == [(2, ("1", "a")), (5, ("4", "b"))]
    rows = table(tmp_path, "t.json", '[{"a": "x"}, {"a": null}, {"a": ""}, {"a": "y"}]')
    with pytest.warns(EmptyTextWarning, match=r"t\.json, row 2: skipped 2 rows"):
        assert [(line, rows.taken) for line, _ in rows.pick(["a"], filled=["a"])] == [(1, 1), (4, 4)]


# ------------------------------------------------------------------------------------------------ refusals


REFUSED = [
    ("t.tsv", b"", "empty; expected a header row"),
    ("t.tsv", b"a\tb\n1\t2\n1\n", "line 3: 1 column, but the header has 2"),
    ("t.csv", b'a,b\n1,"2\n3"\n4\n', "line 4: 1 column, but"),
    ("t.tsv", b'a\tb\n1\t"2\n3\t4"\n', "line 2: one row whose quotes hold several lines, or several"),
    ("t.csv", b"a\n1\n\n2\n", "line 3: blank"),
    ("t.tsv", b"a\tb\n1\t\xff\n", "line 2, byte 3: not UTF-8"),
    ("t.csv", b'a,b\n1,"2\n', "line 2: not CSV"),
    ("t.jsonl", b'{"a": "1"}\n{"a": 1\n', "line 2: not JSON"),
    ("t.jsonl", b'{"a": "1"}\n{"b": 1}\n', "line 2: no field 'a'; it has 'b'"),
    ("t.jsonl", b'{"a": 5}\n', "line 1: the field 'a' must be a string, got 5"),
    ("t.jsonl", b'{"a": "\\ud83c"}\n', "line 1: the field 'a' is not UTF-8, or has half a character"),
    ("t.json", b'[\n{"a": "1"},\n2]', "row 2: expected an object"),
    ("t.json", b'[\n{"a": 1},\n', "line 2: not JSON"),
    ("t.json", b'{"a": "1"}\n{"a": "2"}\n', "input_format='jsonl'"),
    ("t.tsv.gz", gzip.compress(b"a\n" + b"1\n" * 9999, mtime=0)[:-20], "cut-off gzip"),
    ("t.xls", b"a\n1\n", "expected a name that ends in .csv"),
]


def test_bad_files_are_named_with_the_line(tmp_path):
    for name, content, words in REFUSED:
        with pytest.raises(InputError) as caught:
            list(table(tmp_path, name, content).pick(["a"], filled=["a"]))
        assert words in str(caught.value) and str(tmp_path / name) in str(caught.value)
