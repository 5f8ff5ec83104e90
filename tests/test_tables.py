"""Rows of files: every format, columns by name and number, and every bad row named with its line."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisbert.tables import InputError, read_records

ROWS = [(2, ("4.5", "soup")), (3, ("1", "tea"))]


def records(folder, name, content, columns, **options):
    content = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(content)
    return list(read_records(folder / name, columns, **options))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.tsv", "id\tscore\ttext\n7\t4.5\tsoup\n8\t1\ttea\n"),
        ("t.csv", "id,score,text\r\n7,4.5,soup\r\n8,1,tea"),
        ("t.TSV", "\ufefftext\tscore\nsoup\t4.5\ntea\t1\n\n"),
    ],
)
def test_columns_by_name(name, content, tmp_path):
    assert records(tmp_path, name, content, ["score", "text"]) == ROWS
    assert records(tmp_path, f"{name}.gz", gzip.compress(content.encode()), ["score", "text"]) == ROWS
    assert list(read_records(str(tmp_path / name), ("text", "score", "text")))[1] == (3, ("tea", "1", "tea"))


def test_columns_by_number(tmp_path):
    content = "id\tscore\t1\n7\t4.5\tsoup\n8\t1\ttea\n"
    assert records(tmp_path, "t.tsv", content, ["2", "3"]) == ROWS
    assert records(tmp_path, "t.tsv", content, ["1"])[0] == (2, ("soup",))  # a name wins over a number
    plain = "4.5,soup\n1,tea\n"
    assert records(tmp_path, "t.csv", plain, ["1", "2"], has_header=False) == [(1, ROWS[0][1]), (2, ROWS[1][1])]
    with pytest.raises(InputError, match="line 1: no column 'soup'"):
        records(tmp_path, "t.csv", plain, ["soup"], has_header=False)


def test_jsonl_gives_json_values_and_follows_paths(tmp_path):
    content = '{"score": 4.5, "pair": {"a": "soup", "b": [1]}}\n\n{"score": null, "pair": {"a": "tea", "b": true}}\n'
    expected = [(1, (4.5, "soup", [1])), (3, (None, "tea", True))]
    for name in ("t.jsonl", "t.ndjson"):
        assert records(tmp_path, name, content, ["score", "pair.a", "pair.b"]) == expected
    assert records(tmp_path, "t.txt", content, ["score"], input_format="jsonl") == [(1, (4.5,)), (3, (None,))]


def test_a_missing_column_takes_the_value_given_for_it(tmp_path):
    got = records(tmp_path, "t.jsonl", '{"a": 1}\n{"a": 2, "b": 3}\n', ["b", "a"], optional={"b": None})
    assert got == [(1, (None, 1)), (2, (3, 2))]
    assert records(tmp_path, "t.tsv", "a\n1\n", ["b", "a"], optional={"b": "x"}) == [(2, ("x", "1"))]
    assert records(tmp_path, "t.tsv", "a\tb\n1\t2\n", ["b", "a"], optional={"b": "x"}) == [(2, ("2", "1"))]
    for name, content in (("t.jsonl", '{"a": 1}\n'), ("t.tsv", "a\n1\n")):
        with pytest.raises(InputError, match=f"{name}, line 1: no (field|column) 'c'"):
            records(tmp_path, name, content, ["a", "c"], optional={"b": 0})
    with pytest.raises(InputError, match="line 1: no field 'b'"):
        records(tmp_path, "t.jsonl", '["a", "b"]\n', ["b"], optional={"b": 0})  # no object at all


def test_a_tsv_knows_no_quotes_and_a_csv_does(tmp_path):
    assert records(tmp_path, "t.tsv", 'a\tb\n"x\ty"\n', ["a", "b"]) == [(2, ('"x', 'y"'))]
    assert records(tmp_path, "t.csv", 'a,b\n"x,\ny","""z"\n1,2\n', ["a", "b"]) == [
        (2, ("x,\ny", '"z')),
        (4, ("1", "2")),
    ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.tsv", b"", "t.tsv: empty; expected a header row"),
        ("t.tsv", b"a\tb\n1\t2\n1\n", "t.tsv, line 3: 1 column, but the header has 2"),
        ("t.tsv", b"a\tb\n1\t2\t3\n", "line 2: 3 columns, but the header has 2"),
        ("t.tsv", b"a\tb\n1\t\xff\n", "line 2, byte 3: not UTF-8"),
        ("t.tsv", b"a\ta\n1\t2\n", "2 columns are named 'a', give a number: 1 'a', 2 'a'"),
        ("t.csv", b'a,b\n1,"2\n', "line 2: not CSV"),
        ("t.jsonl", b'{"a": 1}\n{"a": 1\n', "line 2: not JSON"),
        ("t.jsonl", b'{"b": 1}\n', "line 1: no field 'a'; it has 'b'"),
        ("t.tsv.gz", b"a\n1\n", "gzip"),
        ("t.tsv.gz", gzip.compress(b"a\n" + b"1\n" * 9999, mtime=0)[:-20], "cut-off gzip"),
    ],
)
def test_bad_files_are_named_with_the_line(name, content, words, tmp_path):
    with pytest.raises(InputError) as caught:
        records(tmp_path, name, content, ["a"])
    assert words in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_a_format_that_cannot_be_told_is_refused_at_once(tmp_path):
    for name, options in (("t.txt", {}), ("t.json", {}), ("t.tsv", {"input_format": "xml"})):
        with pytest.raises(InputError, match=r"expected a name that ends in \.csv"):
            read_records(tmp_path / name, ["a"], **options)
    with pytest.raises(ValueError, match="sequence of names"):
        read_records(tmp_path / "t.tsv", "score")
    with pytest.raises(FileNotFoundError):
        list(read_records(tmp_path / "missing.tsv", ["score"]))


cells = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\x00"), max_size=8)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=5))
def test_what_was_written_is_read(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerows([("a", "b"), *rows])
    objects = "".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rows)
    for name, content in (("t.csv", written.getvalue()), ("t.jsonl", objects)):
        assert [values for _, values in records(folder, name, content, ["a", "b"])] == rows
