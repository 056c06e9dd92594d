"""The readers of release files: each line is a row or is told, whatever stands in it."""

import gzip
import json

import pytest

from mmfuse.data.public.sources import Row
from mmfuse.data.public.sources.files import objects, read_csv, read_json, read_jsonl, read_lines
from mmfuse.types import MmfuseError


def lines_of(items):
    """Rows as they are, damaged lines as (number, reason)."""
    return [(number, item.problem) if isinstance(item, Row) else item for number, item in items]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_csv_with_every_kind_of_bad_line(name, tmp_path):
    path = tmp_path / name
    content = (
        b"\xef\xbb\xbfid,text\n"
        b"1,one\n"
        b"2,too,many\n"
        b"3\n"
        b"\n"
        b'4,"never closed\n'
        b"5,five\r\n"
        b'6,"closed" and more\n'
        b"7,\xff\n"
        b'8,"a ""quoted"" one"\n'
        b"9,nul\x00\n"
        b'10,say "hi"'
    )
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    rows = list(read_csv(path, ("id", "text")))
    assert {number: row["text"] for number, row in rows if isinstance(row, dict)} == {
        2: "one",
        7: "five",
        10: 'a "quoted" one',
        12: 'say "hi"',
        **({11: "nul\x00"} if isinstance(dict(rows)[11], dict) else {}),  # legal since Python 3.11
    }
    bad = {number: row for number, row in rows if isinstance(row, Row)}
    assert {number: row.problem for number, row in bad.items() if number != 11} == {
        3: "3 fields, not 2",
        4: "1 fields, not 2",
        6: "not csv: unexpected end of data",
        8: "not csv: ',' expected after '\"'",
        9: "not UTF-8",
    }
    assert next((row.id, row.path, row.line) for row in bad.values()) == (f"{name}:3", path, 3)


def test_fields_over_several_lines_where_a_set_has_them(tmp_path):
    path = tmp_path / "a.csv"
    lines = [
        'ROCO_1,"two\nlines, ""and"" more"',
        'ROCO_2,"never closed',
        "ROCO_3,three",
        'ROCO_4,"never\nclosed either',
        'ROCO_5,"closed\n\nlate"',
        'ROCO_6,"last',
    ]
    path.write_text("id,text\n" + "\n".join(lines) + "\n")
    rows = list(read_csv(path, ("id", "text"), starts="ROCO"))
    assert [(number, row["text"]) for number, row in rows if isinstance(row, dict)] == [
        (2, 'two\nlines, "and" more'),
        (5, "three"),
        (8, "closed\n\nlate"),
    ]
    told = {number: row.problem for number, row in rows if isinstance(row, Row)}
    assert told == {
        4: "not csv: unexpected end of data",
        6: "not csv: unexpected end of data",
        7: "1 fields, not 2",
        11: "not csv: unexpected end of data",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column 'id'; it has none"),
        (b"identity,text\n1,2\n", "no column 'id'; it has identity, text"),
        (b"id;text\n1;2\n", "no column 'id'; it has id;text"),
        ("id,text\n1,2\n".encode("utf-16"), "line 1: not UTF-8"),
        (b'"id,text\n1,2\n', "line 1: not csv: unexpected end of data"),
    ],
)
def test_a_wrong_header_refuses_the_file(content, message, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(MmfuseError) as error:
        list(read_csv(path, ("id", "text")))
    assert str(error.value) == f"{path}: {message}"


def test_lines_and_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n[1]\n{"a": \n{"a": "\xe9"}\n{"a": 2}')
    assert lines_of(read_jsonl(path)) == [{"a": 1}, (3, "not an object"), (4, "not JSON"), (5, "not UTF-8"), {"a": 2}]
    assert lines_of(read_lines(path))[0] == '{"a": 1}'
    path.write_text("[" * 100_000)
    assert lines_of(read_jsonl(path)) == [(1, "not JSON")]


def test_objects_of_a_json_list(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"rows": [{"id": 1}, {}, None, {"id": None}]}))
    items = objects(read_json(path)["rows"], path, "rows", ("id",))
    assert lines_of(items) == [{"id": 1}, (2, "no id"), (3, "not an object"), {"id": None}]
    with pytest.raises(MmfuseError, match=r"a\.json: rows: a list of objects is expected$"):
        list(objects({}, path, "rows"))
