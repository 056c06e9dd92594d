"""Splits by time: train before validation before test, groups whole."""

import csv

import pytest
import yaml

from mmfuse.data.load import load_table
from mmfuse.data.tables.blocks import TableBlocks, open_blocks
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.data.tables.splits import parse_times, split_by_time
from mmfuse.types import MmfuseError

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


LETTERS = {"train": "a", "validation": "b", "test": "c"}


def split(times, groups=None, shares=SHARES):
    groups = groups or [str(i) for i in range(len(times))]
    return "".join(LETTERS[part] for part in split_by_time(groups, times, shares, "m: splits.time"))


@pytest.mark.parametrize(
    ("times", "groups", "expected"),
    [
        (range(10), None, "aaaaaabbcc"),
        (range(9, -1, -1), None, "ccbbaaaaaa"),
        (range(10), "abcdefghia", "caaaaaabbc"),  # the first row goes with the last one
        ([0, 0, 0, 0, 1, 1, 1, 1, 2, 2], None, "aaaabbbbcc"),  # what is of one time is in one split
        ([0, 1, 1, 1, 1, 1, 1, 1, 1, 2], None, "abbbbbbbbc"),
        ([0.5, -1, 1e9], None, "bac"),
    ],
)
def test_the_past_is_trained_on_and_the_future_tested(times, groups, expected):
    assert split(list(times), list(groups) if groups else None) == expected


def test_two_splits_and_shares_in_any_order():
    assert split([3, 1, 2, 4], shares={"test": 0.5, "validation": 0.0, "train": 0.5}) == "caac"
    assert split([3, 1, 2, 4], shares={"train": 1.0}) == "aaaa"


def test_too_few_times_are_refused():
    with pytest.raises(MmfuseError, match=r"splits.time: 2 time\(s\) at which a group ends cannot be cut into 3"):
        split([1, 1, 2])


@pytest.mark.parametrize(
    "cells",
    [
        ["2019-12-31", "2020-01-01", "2020-01-01T00:00:01", "2020-02"],
        ["20191231", "2020", "2020-W02-1", "2020-03-01 10:00"],
        ["2020-01-01T10:00:00+05:00", "2020-01-01T06:00:00Z", "2020-01-01T06:00:00.5+00:00", "2020-01-01T02:00-05:00"],
        ["-3", "007", "7.5", "1e3"],
        ["1999", "2000", "2001", "2002"],
        ["2020-01-01 00:00:00.000000001", " 2020-01-01 00:00:01 ", "2020-01-01 00:00:02.123456789", "2021"],
    ],
)
def test_times_are_numbers_or_dates(cells):
    found = parse_times(cells, list("abcd"), "m")
    assert sorted(found) == found
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["2020-01-01", ""], "row 'b' has no time: fill it in, or leave the row out"),
        (["2020-01-01", "31.01.2020"], "row 'b' has no date as ISO 8601 writes it, such as 2024-01-31"),
        (["01/31/2020", "2020-01-01"], "row 'a' has no date"),
        (["3", "nan"], "row 'a' has no date"),
        (["1", "inf"], "row 'a' has no date"),
        (["2020-01-01T00:00Z", "2020-01-02"], "row 'b' has no time zone, but others have one"),
        (["2020-13-01", "2020-01-01"], "row 'a' has no date"),
        (["0001-01-01T00:00+23:59", "2020-01-01T00:00Z"], "row 'a' has no date"),
    ],
)
def test_what_is_no_time_is_one_line_without_the_cell(cells, message):
    with pytest.raises(MmfuseError) as told:
        parse_times(cells, ["a", "b"], "m: splits.time")
    assert message in str(told.value)
    assert "31.01" not in str(told.value)


@pytest.fixture
def described(tmp_path):
    def describe(splits, **manifest):
        with (tmp_path / "rows.csv").open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["id", "text", "day", "patient"])
            writer.writerows([i, f"text {i}", f"2020-01-{(i * 7) % 20 + 1:02}", f"p{i // 2}"] for i in range(20))
        values = {"name": "set", "rows": "rows.csv", "id": "id", "text": {"columns": ["text"]}, "splits": splits}
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(values | manifest))
        return load_manifest(tmp_path / "m.yaml")

    return describe


def test_a_table_is_cut_by_time_with_whole_groups(described):
    """No group ends later than one of a later split."""
    manifest = described({"time": "day", "ratios": SHARES}, group="patient")
    table, told = load_table(manifest), []
    ends = {}
    for i, (group, part) in enumerate(zip(table.rows["group"], table.splits, strict=True)):
        day, known = (i * 7) % 20, ends.get(group, (0, part))
        assert known[1] == part
        ends[group] = max(known[0], day), part
    order = [part for _, part in sorted(ends.values())]
    assert order == sorted(order, key=list(SHARES).index)
    assert set(order) == set(SHARES)
    assert isinstance(open_blocks(manifest, tell=told.append), TableBlocks)
    assert "splits.time needs all rows in memory" in told[0]


def test_without_ratios_seven_one_and_two_tenths(described):
    assert load_table(described({"time": "day"})).counts() == {"train": 14, "validation": 2, "test": 4}


@pytest.mark.parametrize("other", [{"column": "patient"}, {"folds": 3}, {"stratify": "t"}, {"exact": True}])
def test_time_decides_alone(described, other):
    with pytest.raises(MmfuseError, match=f"splits: time goes with ratios, not with {next(iter(other))}"):
        described({"time": "day", **other}, tasks={"t": {"column": "patient"}})


def test_a_column_of_times_that_is_not_there(described):
    with pytest.raises(MmfuseError, match=r"splits.time: the rows have no column 'dya'; .*did you mean 'day'"):
        load_table(described({"time": "dya"}))
