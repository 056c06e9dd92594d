"""Leaks that an audit found are mended by what it writes, in one step."""

import csv
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from mmfuse.data.audit import audit
from mmfuse.data.load import load_table
from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError

NOTE = "Elderly gentleman returned from sailing along the northern coast complaining of breathlessness on stairs."


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """A phantom of which rows are copied, with ratios: exact copies, of images and of texts, near ones, spellings."""
    folder = tmp_path_factory.mktemp("leaky")
    manifest = yaml.safe_load(write_phantom(folder, 150, seed=0).read_text())
    with (folder / "data.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i in range(0, 40, 2):
        rows[i + 1] |= {"text": rows[i]["text"], "image": rows[i]["image"]}
    for i in range(40, 60, 2):
        rows[i + 1]["image"] = rows[i]["image"]
    for i in range(60, 70, 2):
        path = f"images/near{i}.jpg"
        Image.open(folder / rows[i]["image"]).convert("RGB").resize((96, 96)).save(folder / path, quality=70)
        rows[i + 1]["image"] = path
    for i in range(70, 80):
        rows[i]["text"] = NOTE.replace("stairs", f"stairs {i}") if i < 75 else " ".join(reversed(NOTE.split()))
    for i in range(80, 90, 2):
        rows[i]["patient"], rows[i + 1]["patient"] = f"{i}", f"{i}.0"
    with (folder / "data.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    manifest["splits"] = {"ratios": {"train": 0.5, "validation": 0.25, "test": 0.25}}
    manifest["tasks"]["findings"]["values"] = None
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    return folder / "manifest.yaml", rows


def across(report):
    return sorted(found.check for found in report.findings if "across_splits" in found.check)


@pytest.mark.heavy
def test_groups_join_all_that_is_alike_and_are_used_by_a_line(mmfuse, leaky, tmp_path):
    path, rows = leaky
    assert across(audit(load_manifest(path), find=None)) == [
        "groups.spelling_across_splits",
        "images.copies_across_splits",
        "images.near_copies_across_splits",
        "rows.copies_across_splits",
        "texts.copies_across_splits",
        "texts.near_copies_across_splits",
    ]
    with pytest.raises(MmfuseError, match=rf"`group: content` keeps.*`mmfuse data check {path} --drop copies --out"):
        load_table(load_manifest(path))
    code, told, _ = mmfuse("data", "check", path, "--groups", tmp_path / "groups.csv", "--identifiers", "off")
    assert code == 4
    line = told.split("next:  in ")[1].splitlines()[0].split(", ", 1)[1]
    mended = path.parent / "mended.yaml"
    mended.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | yaml.safe_load(line)))
    report = audit(load_manifest(mended), find=None)
    assert across(report) == []
    assert report.of("error") == []
    table = load_table(load_manifest(mended))
    assert len(table) == 150
    with (tmp_path / "groups.csv").open(newline="") as file:
        group = {row["id"]: row["group"] for row in csv.DictReader(file)}
    pairs = [*range(0, 70, 2), *range(80, 90, 2)]
    assert all(group[rows[i]["id"]] == group[rows[i + 1]["id"]] for i in pairs)
    assert [len({group[rows[i]["id"]] for i in part}) for part in (range(70, 75), range(75, 80))] == [1, 1]
    alone = [row for row in rows[90:] if sum(other["patient"] == row["patient"] for other in rows) == 1]
    assert all(group[row["id"]] == row["patient"] for row in alone)
    assert dict(zip(table.rows["id"], table.rows["group"], strict=True)) == group


@pytest.mark.heavy
def test_a_table_without_copies_is_checked_and_trained_as_it_is(mmfuse, leaky, tmp_path):
    path, rows = leaky
    out = tmp_path / "clean"
    code, told, _ = mmfuse("data", "check", path, "--drop", "copies", "--out", out, "--identifiers", "off")
    assert code == 4
    assert f"written: {out / 'manifest.yaml'}: 130 rows, without 20 copies" in told
    load_table(load_manifest(out / "manifest.yaml"))
    found = {one.check: one for one in audit(load_manifest(out / "manifest.yaml"), find=None).findings}
    assert not {"rows.copies", "rows.copies_across_splits", "images.missing"} & set(found)
    before = (path.parent / "data.csv").read_bytes().splitlines(keepends=True)
    dropped = {1 + i for i in range(1, 40, 2)}  # ids rise: the second one of each pair
    assert (out / "rows.csv").read_bytes().splitlines(keepends=True) == [
        line for number, line in enumerate(before) if number not in dropped
    ]
    said = json.loads((out / "audit.json").read_text())
    copies = [one for one in said["findings"] if one["check"].startswith("rows.copies")]
    assert sum(len(one["rows"]) for one in copies) == sum(one["count"] for one in copies) == 20
    torn = next(one for one in said["findings"] if one["check"] == "labels.copies_disagree")
    labels = {row["id"]: row["findings"] for row in rows}
    assert {tuple(pair) for pair in torn["rows"]} == {
        (rows[i]["id"], rows[i + 1]["id"])
        for i in range(0, 40, 2)
        if labels[rows[i]["id"]] != labels[rows[i + 1]["id"]]
    }


def test_audit_json_lists_all_sets_and_all_their_rows(tmp_path):
    rows = [{"id": f"{i:03}", "text": f"text {i // 6}", "g": i // 3} for i in range(180)]
    pd.DataFrame(rows).to_csv(tmp_path / "r.csv", index=False)
    (tmp_path / "m.yaml").write_text("{name: n, rows: r.csv, id: id, group: g, text: {columns: [text]}}")
    report = audit(load_manifest(tmp_path / "m.yaml"), find=None)
    sets = [set(one) for found in report.findings if found.check.startswith("rows.copies") for one in found.rows]
    assert sorted(map(sorted, sets)) == [[f"{i:03}" for i in range(k, k + 6)] for k in range(0, 180, 6)]
    assert "and 2 more" in report.text()


COPIED = [
    {"id": "b", "text": "same", "more": "007"},
    {"id": "a", "text": "same", "more": ' x,\n"y" '},
    {"id": "c", "text": "own", "more": "é"},
    {"id": "d", "text": "same", "more": ""},
]


def manifest(folder, rows, **given):
    words = {"name": "n", "rows": rows, "id": "id", "text": {"columns": ["text"]}, **given}
    (folder / "m.yaml").write_text(yaml.safe_dump(words))
    return folder / "m.yaml"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(("name", "separator"), [("r.csv", ","), ("r.tsv", "\t")])
def test_lines_of_csv_are_kept_to_the_byte(mmfuse, tmp_path, name, separator, end):
    lines = [
        ["id", "text", "more"],
        ["b", "same", "007"],
        ['"a"', '"same"', '" x;\n""y"" "'],
        ["c", "own", '"é"'],
        ["d", "same", ""],
    ]
    data = b"\xef\xbb\xbf" + end.join(separator.join(line).encode() for line in lines) + end + end
    (tmp_path / name).write_bytes(data)
    mmfuse("data", "check", manifest(tmp_path, name), "--drop", "copies", "--out", tmp_path / "o")
    kept = [separator.join(line).encode() for line in (lines[0], lines[2], lines[3])]
    assert (tmp_path / "o" / name.replace("r.", "rows.")).read_bytes() == b"\xef\xbb\xbf" + end.join(kept) + end + end


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_csv_of_another_separator_and_encoding_stays_so(mmfuse, tmp_path, encoding):
    lines = ["id;text;more", "b;same;007", "a;same;é", 'c;"o\nwn";"x;y"', "d;same;"]
    (tmp_path / "r.csv").write_bytes("\n".join(lines).encode(encoding))
    path = manifest(tmp_path, "r.csv", csv={"separator": ";", "encoding": encoding})
    mmfuse("data", "check", path, "--drop", "copies", "--out", tmp_path / "o")
    kept = (tmp_path / "o" / "rows.csv").read_bytes().decode(encoding)
    assert kept == "\n".join([lines[0], lines[2], lines[3], ""])
    assert load_table(load_manifest(tmp_path / "o" / "manifest.yaml")).rows["text"][:] == ["same", "o\nwn"]


def test_lines_of_jsonl_are_kept_to_the_byte(mmfuse, tmp_path):
    lines = [
        json.dumps(row | {"list": ["x"]}, indent=None if i % 2 else 0).replace("\n", " ")
        for i, row in enumerate(COPIED)
    ]
    (tmp_path / "r.jsonl").write_text("\n\n".join(lines))
    mmfuse("data", "check", manifest(tmp_path, "r.jsonl"), "--drop", "copies", "--out", tmp_path / "o")
    assert (tmp_path / "o" / "rows.jsonl").read_text() == "\n".join(lines[1:3]) + "\n"


def test_columns_of_parquet_keep_types_and_metadata(mmfuse, tmp_path):
    table = pa.table(
        {
            **{name: [row[name] for row in COPIED] for name in ("id", "text")},
            "image": pa.array([{"bytes": b"x", "path": None}] * 4),
            "number": pa.array([1, 2, None, 4], pa.int16()),
        }
    ).replace_schema_metadata({"huggingface": "{}"})
    pq.write_table(table, tmp_path / "r.parquet")
    mmfuse("data", "check", manifest(tmp_path, "r.parquet"), "--drop", "copies", "--out", tmp_path / "o")
    kept = pq.read_table(tmp_path / "o" / "rows.parquet")
    assert kept.equals(table.slice(1, 2), check_metadata=True)


def test_several_files_stay_several(mmfuse, tmp_path):
    for number, part in enumerate((COPIED[:1], COPIED[1:3], COPIED[3:])):
        (tmp_path / str(number)).mkdir()
        pd.DataFrame(part).to_csv(tmp_path / str(number) / "r.csv", index=False)
    mmfuse("data", "check", manifest(tmp_path, "*/r.csv"), "--drop", "copies", "--out", tmp_path / "o")
    table = load_table(load_manifest(tmp_path / "o" / "manifest.yaml"))
    assert table.rows["id"][:] == ["a", "c"]
    assert len(list((tmp_path / "o" / "rows").iterdir())) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--drop", "copys", "--out", "o"], "--drop 'copys' is not legal; legal: copies"),
        (["--drop", "copies"], "--drop copies: name with --out the folder"),
        (["--drop", "copies", "--out", "."], "m.yaml exists already|manifest.yaml exists already"),
        (["--groups", "m.yaml"], "m.yaml exists already: name another; nothing is overwritten"),
        (["--groups", "no/such/folder.csv"], "No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_nothing_is_overwritten(mmfuse, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(COPIED).to_csv("r.csv", index=False)
    (tmp_path / "manifest.yaml").write_text("mine")
    code, _, told = mmfuse("data", "check", manifest(tmp_path, "r.csv"), *options)
    assert code == 2
    assert any(part in told for part in message.split("|"))
    assert len(told.splitlines()) == 1
    assert (tmp_path / "manifest.yaml").read_text() == "mine"
