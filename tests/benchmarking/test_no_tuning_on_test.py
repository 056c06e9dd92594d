"""What is chosen, fitted, tuned or declared does not depend on a label of a test row."""

import csv
import json

import numpy as np
import pytest
import yaml

from mmfuse.benchmarking.run import benchmark
from mmfuse.types import MmfuseError

SCORED = ("metrics", "uncalibrated", "per_label", "diagnostics", "seconds", "samples_per_s", "peak_mib")
"""Of a cell, what is measured on test rows, or with a clock."""
OF_TEST = {"verdict", "strategies", "indistinguishable", "seeds_needed", "undefined_resamples"}
"""Of a task, what follows from test scores."""


def with_test_labels(symbols, folder, order):
    """The same set with covariates and flags, and the test rows' labels in another order; its manifest."""
    folder.mkdir()
    with (symbols.parent / "data.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    for i, row in enumerate(rows):
        row |= {"image": str(symbols.parent / row["image"]), "site": "abc"[i % 3]}
        row |= {"one": int(row["match"] == rows[0]["match"]), "two": int(i % 4 == 1)}
    test = [row for row in rows if row["split"] == "test"]
    for task in ("match", "one", "two"):
        labels = [row[task] for row in test]
        for row, i in zip(test, order, strict=True):
            row[task] = labels[i]
    with (folder / "data.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    path = folder / "set.yaml"
    manifest = yaml.safe_load(symbols.read_text()) | {"name": "flags", "subgroups": ["site"]}
    manifest["tasks"]["flags"] = {"type": "multilabel", "columns": ["one", "two"]}
    path.write_text(yaml.safe_dump(manifest))
    return path


def test_shuffled_test_labels_change_nothing_but_test_scores(values, symbols, tmp_path):
    values |= {
        "strategies": {"late": {"name": "late", "learned_weights": True}, "concat": None},
        "tuning_trials": 2,
        "matching": "parameters",
        "metric": None,
        "seeds": 1,
        "emap_rows": 0,
        "diagnostic_rows": 0,
        "resamples": 100,
    }
    values["data"] |= {"tasks": ["match", "flags"], "root": "/"}
    values["training"] |= {"epochs": 2, "patience": 1}
    found = []
    for name, order in (("as_is", range(32)), ("shuffled", np.random.default_rng(0).permutation(32))):
        data = values["data"] | {"manifest": str(with_test_labels(symbols, tmp_path / name, list(order)))}
        found.append(benchmark(values | {"data": data, "output_dir": str(tmp_path / f"{name}_run")}))
    cells = [{p.parent.name: json.loads(p.read_text()) for p in one.dir.glob("cells/*/result.json")} for one in found]
    assert cells[0].keys() == cells[1].keys()
    assert len(cells[0]) == 13  # four rows with two trials, four cells, and covariates_only
    for key, before in cells[0].items():
        after = cells[1][key]
        assert before["status"] == "done"
        assert {k: v for k, v in before.items() if k not in SCORED} == {
            k: v for k, v in after.items() if k not in SCORED
        }
        if "trial" not in key:
            assert before["metrics"] != after["metrics"]
            assert before["decisions"]["flags"]["thresholds"]
            with (
                np.load(found[0].dir / "cells" / key / "test.npz") as one,
                np.load(found[1].dir / "cells" / key / "test.npz") as other,
            ):
                assert all((one[name] == other[name]).all() for name in one.files)
    tasks = [one.summary["tasks"] for one in found]
    for name, before in tasks[0].items():
        after = tasks[1][name]
        assert {k: v for k, v in before.items() if k not in OF_TEST} == {
            k: v for k, v in after.items() if k not in OF_TEST
        }
        assert "declared" in before["references"]
        asked = [
            sorted((s["row"], r, c["declared"]) for s in task["strategies"] for r, c in s["contrasts"].items())
            for task in (before, after)
        ]
        assert {tuple(sorted(pair[:2])) for pair in asked[0]} == {tuple(sorted(pair[:2])) for pair in asked[1]}
        assert [pair for pair in asked[0] if pair[2]] == [pair for pair in asked[1] if pair[2]]
    assert found[0].summary["rows"] == {
        label: row | {"fusion": found[0].summary["rows"][label]["fusion"]}
        for label, row in found[1].summary["rows"].items()
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learned_weights": "maybe"}, r"strategies.late.learned_weights: 'maybe' is not legal; bool is expected"),
        ({"hidden_layers": True}, r"strategies.late.hidden_layers: True is not legal; int is expected"),
        ({"dropout": "much"}, r"strategies.late.dropout: 'much' is not legal; float is expected"),
        ({"weights": 1}, "weights is not an option of fusion 'late'"),
    ],
)
def test_options_of_a_row_are_checked_before_anything_is_begun(values, options, message):
    with pytest.raises(MmfuseError, match=message):
        benchmark(values | {"strategies": {"late": {"name": "late", **options}}})
