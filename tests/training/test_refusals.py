"""What the data make untrainable is refused before the first step, and `data check` finds the same."""

import csv
import json

import pytest
import yaml

import mmfuse
from mmfuse.data.audit import audit
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError

SPLITS = ["train"] * 10 + ["validation"] * 4 + ["test"] * 4


@pytest.fixture
def broken(tiny, tmp_path):
    """Rows that can be trained on, changed by row or by column, and parts of a manifest: its path, and a config."""

    def make(changes=(), overrides=(), **manifest):
        rows = [{"id": f"r{i}", "text": f"says {i}", "p": f"p{i}", "s": split} for i, split in enumerate(SPLITS)]
        for i, row in enumerate(rows):
            row |= {"y": "ab"[i % 2], "m": "u;v" if i % 2 else "w", "c": f"caption of {i}", "u": i % 2, "v": 1 - i % 2}
        for where, change in dict(changes).items():
            for i, row in enumerate(rows):
                if where in ("all", i, row["s"]):
                    row |= change
        with (tmp_path / "rows.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        words = {
            "name": "set",
            "rows": "rows.csv",
            "id": "id",
            "text": {"columns": ["text"]},
            "splits": {"column": "s"},
        }
        words |= {"tasks": {"y": {"column": "y"}}, **manifest}
        path = tmp_path / "m.yaml"
        path.write_text(yaml.safe_dump({name: value for name, value in words.items() if value is not None}))
        given = [f"data.manifest={path}", "fusion={name: text_only, out_dim: 16}", "training.max_steps=1", *overrides]
        return path, tiny(*given)

    return make


MULTI = {"m": {"type": "multilabel", "column": "m", "separator": ";"}}
COLUMNS = {"m": {"type": "multilabel", "columns": ["u", "v"]}}
CAPTION = {"c": {"type": "captioning", "column": "c"}}
BOTH = {"y": {"column": "y"}, **MULTI}

REFUSED = {
    "no tasks": ({}, {"tasks": None}, "tasks: there is none to train", "tasks.absent"),
    "no target": ({"all": {"y": ""}}, {}, "no row has a label", "labels.illegal"),
    "no label": ({"all": {"m": ""}}, {"tasks": MULTI}, "no row has a label", "labels.illegal"),
    "no label in columns": ({"all": {"u": "", "v": ""}}, {"tasks": COLUMNS}, "no row has a label", "labels.illegal"),
    "no caption": ({"all": {"c": ""}}, {"tasks": CAPTION}, "no row has a caption", "labels.illegal"),
    "no target to train on": (
        {"train": {"y": ""}},
        {},
        "tasks.y: no row of the training split has a target",
        "splits.without_targets",
    ),
    "no labels to train on": (
        {"train": {"m": ""}},
        {"tasks": BOTH},
        "tasks.m: no row of the training split has a target",
        "splits.without_targets",
    ),
    "no caption to train on": (
        {"train": {"c": ""}},
        {"tasks": CAPTION},
        "tasks.c: no row of the training split has a target",
        "splits.without_targets",
    ),
    "no target to choose by": (
        {"validation": {"y": ""}},
        {},
        "tasks.y: no row of the validation split has a target: no epoch can be chosen",
        "splits.without_targets",
    ),
    "no training row": ({"train": {"s": "test"}}, {}, "no row is in split 'train'", "splits.empty"),
    "one class": ({"all": {"y": "a"}}, {}, r"only \['a'\] is left", "labels.illegal"),
    "a value that is not legal": (
        {3: {"y": "c"}},
        {"tasks": {"y": {"column": "y", "values": ["a", "b"]}}},
        "row 4: 'c'",
        "labels.illegal",
    ),
    "an id again": ({3: {"id": "r4"}}, {}, "'r4' stands in 2 rows", "table.unreadable"),
    "no id": ({3: {"id": " "}}, {}, "a row has none", "table.unreadable"),
    "another split": ({3: {"s": "dev"}}, {}, "row 'r3' says 'dev'", "table.unreadable"),
    "no such column": ({}, {"group": "patient"}, "no column 'patient'", "table.unreadable"),
    "no time": ({3: {"p": ""}}, {"splits": {"time": "p"}}, "row 'r3' has no time", "table.unreadable"),
    "a strange time": ({}, {"splits": {"time": "p"}}, "row 'r0' has no date as ISO 8601", "table.unreadable"),
    "one time": ({"all": {"p": "1"}}, {"splits": {"time": "p"}}, r"1 time\(s\) at which", "table.unreadable"),
    "no file of groups": ({}, {"group": {"file": "g.csv"}}, "g.csv: no such file", "table.unreadable"),
    "a group in two splits": (
        {0: {"p": "p17"}},
        {"group": "p"},
        "group 'p17' is in two splits",
        "groups.in_two_splits",
    ),
    "a duplicate in two splits": ({0: {"text": "says 17"}}, {}, "1 exact duplicate", "rows.copies_across_splits"),
    "empty rows in two splits": (
        {0: {"text": ""}, 17: {"text": ""}},
        {},
        "1 exact duplicate",
        "rows.copies_across_splits",
    ),
    "a caption in the input": (
        {2: {"text": "it says caption of number 2 here", "c": "caption of number 2"}},
        {"tasks": CAPTION},
        "contains the caption",
        "captions.in_the_input",
    ),
    "an image that is not there": (
        {"all": {"p": "none.png"}},
        {"image": {"column": "p"}},
        "no image file|no such file",
        "images.missing",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_train_and_data_check_refuse_the_same(broken, tmp_path, name):
    changes, manifest, message, check = REFUSED[name]
    overrides = ["fusion={name: concat, out_dim: 16}"] if "image" in manifest else []
    path, config = broken(changes, overrides, **manifest)
    with pytest.raises(MmfuseError, match=message) as told:
        mmfuse.train(config)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    found = {one.check: one.severity for one in audit(load_manifest(path), find=None).findings}
    assert found[check] == "error"


@pytest.mark.parametrize(
    ("monitor", "changes", "manifest", "message"),
    [
        (
            "y/auroc_macro",
            {"validation": {"y": "a"}},
            {},
            "'y/auroc_macro' is undefined on the validation rows .*one class",
        ),
        (
            "m/auroc_macro",
            {"validation": {"m": "u"}},
            {"tasks": MULTI},
            "undefined .*no label has rows with and without",
        ),
        (
            "2 * y/f1_macro + m/nll",
            {"validation": {"m": ""}},
            {"tasks": BOTH},
            "'m/nll' is undefined .*no row has a target",
        ),
        ("y/f1_macro", {"validation": {"s": "train"}}, {}, "has no row in split validation to compute it on"),
        ("y/auroc", {}, {}, "'y/auroc' does not exist; .*y/auroc_macro"),
        ("nan * y/nll", {}, {}, r"NUMBER \* TASK/METRIC is expected"),
    ],
)
def test_a_monitor_that_is_not_defined_is_told_before_the_first_epoch(
    broken, tmp_path, monitor, changes, manifest, message
):
    _, config = broken(changes, [f"training.monitor={monitor}"], **manifest)
    with pytest.raises(MmfuseError, match=message):
        mmfuse.train(config)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_what_is_only_a_pity_is_told_in_a_line_and_by_the_audit(broken, tmp_path, capfd):
    """AUROC undefined in validation, a test split and a label without targets, an empty label column."""
    changes = {"validation": {"m": "w"}, "test": {"m": ""}, "all": {"v": 0}}
    path, config = broken(changes, tasks={**MULTI, "e": {"type": "multilabel", "columns": ["u", "v"]}})
    run = mmfuse.train(config)
    shown = capfd.readouterr().err
    for words in (
        "tasks.m: in the validation split no label has rows with and without it: auroc_macro",
        "tasks.m: no row of the test split has a target: there is no score on it",
        "tasks.e: no row has 'v': left out",
    ):
        assert words in shown
    found = {one.check: one.severity for one in audit(load_manifest(path), find=None).findings}
    for check in ("labels.not_monitored", "splits.without_targets", "labels.left_out"):
        assert found[check] == "warning"
    assert run.report["split"] == "test"
    assert json.loads((run.dir / "test" / "metrics.json").read_text())["tasks"].keys() == {"e"}


def test_where_no_test_row_has_a_target_the_scores_are_of_validation(broken):
    _, config = broken({"test": {"y": ""}})
    assert mmfuse.train(config).report["split"] == "validation"
