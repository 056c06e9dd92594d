"""What is never in two splits: joined by columns, by content or by a file, whatever the order of the rows."""

import csv
import random
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

from mmfuse.data.audit.repair import write_groups
from mmfuse.data.load import load_table
from mmfuse.data.tables.blocks import FileBlocks, TableBlocks, open_blocks
from mmfuse.data.tables.groups import name_groups
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError

RATIOS = {"ratios": {"train": 0.6, "validation": 0.2, "test": 0.2}}


@pytest.fixture
def table(tmp_path):
    """Rows and parts of a manifest to a table; `a.png` and `copy.png` are one picture, `b.png` is another."""
    for name, level in (("a", 0), ("copy", 0), ("b", 255)):
        Image.new("L", (4, 4), level).save(tmp_path / f"{name}.png")

    def make(rows, load=load_table, **manifest):
        with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        values = {"name": "set", "rows": "rows.csv", "id": "id", "splits": RATIOS, "group": "content"}
        values |= {"text": {"columns": ["text"]}, "image": {"column": "image", "separator": ";"}}
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(values | manifest), encoding="utf-8")
        return load(load_manifest(tmp_path / "m.yaml"))

    return make


ROWS = [
    {"id": "1", "text": "good", "image": "a.png", "patient": "p"},
    {"id": "2", "text": "good", "image": "copy.png", "patient": "q"},
    {"id": "3", "text": "good", "image": "b.png", "patient": "q"},
    {"id": "4", "text": "good", "image": "", "patient": ""},
    {"id": "5", "text": " good ", "image": "", "patient": ""},
    {"id": "6", "text": "fine", "image": "a.png", "patient": ""},
    {"id": "7", "text": "", "image": "gone.png", "patient": "r"},
    {"id": "8", "text": "", "image": "gone.png", "patient": "s"},
    {"id": "9", "text": "", "image": "b.png", "patient": "s"},
]


def groups(made):
    return dict(zip(made.rows["id"], made.rows["group"], strict=True))


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("content", {"2": "1", "5": "4", "8": "7"}),
        (["content"], {"2": "1", "5": "4", "8": "7"}),
        (
            ["patient", "content"],
            dict.fromkeys("123", "p") | dict.fromkeys("45", "row 4") | {"6": "row 6"} | dict.fromkeys("789", "r"),
        ),
        (["patient", "text"], dict.fromkeys("12345", "p") | {"6": "row 6", "7": "r", "8": "s", "9": "s"}),
    ],
)
def test_rows_that_are_alike_are_of_one_group_in_any_order(table, group, expected):
    """The group's name is the smallest of its rows'; 1 and 2 are alike, 2 and 3 of one patient."""
    expected = {row["id"]: row["id"] for row in ROWS} | expected
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    splits = []
    for rows in (ROWS, ROWS[::-1], shuffled):
        made = table(rows, group=group)
        assert groups(made) == expected
        splits.append(dict(zip(made.rows["id"], made.splits, strict=True)))
    assert splits[0] == splits[1] == splits[2]


def reviews(count):
    """Every eighth says what another one said."""
    return [{"id": f"{i}", "text": f"says {i}" if i % 8 else "ok", "image": "", "y": "ab"[i % 2]} for i in range(count)]


@pytest.mark.parametrize("splits", [RATIOS, {"stratify": "y", **RATIOS}, {"exact": True, **RATIOS}])
def test_short_texts_are_let_in_by_content(table, splits):
    task = {"y": {"column": "y"}}
    with pytest.raises(MmfuseError, match=r"exact duplicate\(s\) across splits.*`group: content` keeps them together"):
        table(reviews(80), group=None, tasks=task, splits=splits)
    made = table(reviews(80), tasks=task, splits=splits)
    assert len({split for split, text in zip(made.splits, made.rows["text"], strict=True) if text == "ok"}) == 1
    assert len(set(made.splits)) == 3


def test_rows_that_have_no_double_are_where_they_were(table):
    before, after = table(reviews(81)[1:], load_leaky, group=None), table(reviews(81)[1:])
    told = zip(before.rows["text"], before.splits, after.splits, strict=True)
    assert all(was == now for text, was, now in told if text != "ok")


def load_leaky(manifest):
    return load_table(manifest, allow_leaks=True)


def test_content_with_captions_joins_rows_of_an_image(table):
    rows = [
        {"id": f"{i}", "text": f"{i}", "image": image, "c": f"caption {i}"}
        for i, image in enumerate(["a.png", "b.png", "a.png;b.png", "copy.png"])
    ]
    made = table(rows, tasks={"c": {"type": "captioning", "column": "c"}})
    assert groups(made) == {"0": "0", "1": "0", "2": "0", "3": "3"}
    assert groups(table(rows)) == {i: i for i in "0123"}


def test_a_column_of_that_name_is_a_column(table):
    rows = [{"id": f"{i}", "text": "same", "image": "", "content": "xy"[i % 2]} for i in range(4)]
    splits = {"ratios": {"train": 1.0}}
    assert groups(table(rows, splits=splits)) == {"0": "x", "1": "y", "2": "x", "3": "y"}
    assert isinstance(table(rows, open_blocks, splits=splits), FileBlocks)


@pytest.mark.parametrize("group", ["content", ["patient", "content"], {"file": "groups.csv"}])
def test_joined_groups_need_all_rows_and_say_so(table, tmp_path, group):
    (tmp_path / "groups.csv").write_text("id,group\n" + "".join(f"{i},g\n" for i in range(1, 10)))
    told = []
    blocks = table(ROWS, lambda m: open_blocks(m, tell=told.append), group=group, splits={"ratios": {"train": 1.0}})
    assert isinstance(blocks, TableBlocks)
    assert ("group.file" if isinstance(group, dict) else "group") + " needs all rows in memory" in told[0]
    assert isinstance(table(ROWS, open_blocks, group="patient", splits={"ratios": {"train": 1.0}}), FileBlocks)


def test_groups_of_a_file(table, tmp_path):
    (tmp_path / "groups.csv").write_text("group,id,more\n" + "".join(f"{i % 2},{i},x\n" for i in range(1, 12)))
    made = table(ROWS, group={"file": "groups.csv"}, splits={"ratios": {"train": 1.0}})
    assert groups(made) == {row["id"]: str(int(row["id"]) % 2) for row in ROWS}


def test_groups_and_splits_are_written_for_spreadsheets_and_read_for_what_they_are(table, tmp_path):
    rows = [{**row, "id": name, "patient": "@p"} for row, name in zip(ROWS[:3], ["=1", "-2", "'=1"], strict=True)]
    given = {row["id"]: "@p" for row in rows}
    write_groups(SimpleNamespace(groups=given), tmp_path / "groups.csv")
    assert (tmp_path / "groups.csv").read_text() == "id,group\n'=1,'@p\n-2,'@p\n''=1,'@p\n"
    made = table(rows, group={"file": "groups.csv"}, splits={"ratios": {"train": 1.0}})
    assert groups(made) == given
    made.save_splits(tmp_path / "splits.csv")
    with (tmp_path / "splits.csv").open(newline="") as handle:
        assert list(csv.reader(handle))[1:] == [[name, "'@p", "train"] for name in ("'=1", "-2", "''=1")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,group\n1,x\n2,x\n", r"group.file: .*groups.csv: 7 row\(s\) are not in it, such as '3': write it again"),
        ("id,group\n1,x\n1,y\n", "the row '1' is in two groups"),
        ("name,group\n1,x\n", "group.file: the rows have no column 'id'"),
        (None, "groups.csv: no such file"),
    ],
)
def test_a_file_of_groups_that_does_not_fit_is_one_line(table, tmp_path, text, message):
    if text is not None:
        (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(MmfuseError, match=message) as told:
        table(ROWS, group={"file": "groups.csv"})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("group", [{"column": "p"}, {"file": ["a"]}, [], [["p"]], "", 3, {"file": "a", "column": "b"}])
def test_a_group_that_is_not_legal_is_one_line(table, group):
    with pytest.raises(MmfuseError, match=r"m.yaml: group: .*\{file: groups.csv\}"):
        table(ROWS, group=group)


def test_a_column_that_is_not_there(table):
    with pytest.raises(MmfuseError, match=r"group: the rows have no column 'patiant'; .*did you mean 'patient'"):
        table(ROWS, group=["patiant", "content"])


def test_chains_are_one_group():
    assert name_groups(list("dcbae"), [[0, 1], [1, 2], [3, 4]]) == ["b", "b", "b", "a", "a"]
    assert name_groups(["x", "y", "x", "y"], [[0, 1]]) == ["x"] * 4
    assert name_groups([], []) == []
