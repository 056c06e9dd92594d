"""Targets that are numbers: constant ones, long tails, and texts that say the answer."""

import csv

import numpy as np
import pytest
import yaml

from mmfuse.data.audit import audit
from mmfuse.data.tables.manifest import load_manifest


def report_of(folder, texts, targets, splits=None, **task):
    folder.mkdir(exist_ok=True)
    splits = splits or ["test" if i % 4 == 3 else "train" for i in range(len(texts))]
    with (folder / "rows.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "text", "price", "split"])
        writer.writerows((i, *row) for i, row in enumerate(zip(texts, targets, splits, strict=True)))
    manifest = {
        "name": "prices",
        "rows": "rows.csv",
        "id": "id",
        "text": {"columns": ["text"]},
        "tasks": {"price": {"type": "regression", "column": "price", **task}},
        "splits": {"column": "split"},
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    return audit(load_manifest(folder / "manifest.yaml"), find=None)


def checks(report):
    return {found.check: found for found in report.findings if found.check.startswith("numbers.")}


@pytest.fixture
def prices():
    return [int(price) for price in np.random.default_rng(0).integers(200, 9000, 80)]


def words(i):
    return f"item {['alpha', 'beta', 'gamma', 'delta'][i % 4]} of shelf {['one', 'two', 'three'][i % 3]}"


def test_the_targets_number_in_the_text_is_found_however_it_is_written(tmp_path, prices):
    texts = [f"{words(i)}, Rs. {price:,} only" if i < 40 else words(i) for i, price in enumerate(prices)]
    found = checks(report_of(tmp_path / "most", texts, prices))["numbers.stated_in_text"]
    assert (found.severity, found.count, found.rows[0]) == ("error", 40, ("0",))
    assert "in the text of 40 row(s), 50% of those with a text; another row's number in 0.0%" in found.message
    few = [f"{words(i)}, Rs. {price:,} only" if i < 6 else words(i) for i, price in enumerate(prices)]
    assert checks(report_of(tmp_path / "few", few, prices))["numbers.stated_in_text"].severity == "warning"


def test_numbers_that_stand_in_every_text_alike_are_no_leak(tmp_path):
    targets = [1 + i % 5 for i in range(80)]
    texts = [f"{words(i)} 1 2 3 4 5, page {i}" for i in range(80)]
    assert "numbers.stated_in_text" not in checks(report_of(tmp_path / "all", texts, targets))
    four = [f"{words(i)} {(7 * i) % 997}" for i in range(80)]
    assert "numbers.stated_in_text" not in checks(report_of(tmp_path / "other", four, [300 + i for i in range(80)]))


def test_a_long_tail_is_told_and_a_constant(tmp_path, prices):
    texts = [words(i) + f" {chr(97 + i % 26)}{i}" for i in range(80)]
    tail = [round(float(v), 5) for v in np.exp(np.random.default_rng(1).normal(0, 2, 80))]
    found = checks(report_of(tmp_path / "tail", texts, tail))
    assert set(found) == {"numbers.long_tail"}
    assert "transform: log" in found["numbers.long_tail"].fix
    assert not checks(report_of(tmp_path / "log", texts, tail, transform="log"))
    assert not checks(report_of(tmp_path / "even", texts, prices))
    found = report_of(tmp_path / "constant", texts, [5] * 79 + [""]).findings
    assert [one.severity for one in found if one.check == "numbers.constant"] == ["error", "warning"]  # train, test


def test_a_cell_that_is_no_number_is_a_finding(tmp_path, prices):
    report = report_of(tmp_path / "bad", [words(i) for i in range(80)], [*prices[:-1], "12 kg"])
    (found,) = [f for f in report.findings if f.check == "labels.illegal"]
    assert "row 80: '12 kg' is not a number" in found.message
