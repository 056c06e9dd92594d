"""The base of task kinds: one number a row, from a manifest to a shard; and who must be registered with whom."""

import numpy as np
import pytest
import torch
import yaml

from mmfuse.data.shards.table import load_shards
from mmfuse.data.shards.write import write_shards
from mmfuse.data.tables.build import read_table
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.evaluation.evaluate import format_report
from mmfuse.evaluation.markdown import plain
from mmfuse.heads import HEADS, Head, build_head
from mmfuse.metrics import choose_metrics
from mmfuse.metrics.chosen import add_metrics
from mmfuse.tasks import TASKS, TaskKind
from mmfuse.tasks.labels import LabelTask
from mmfuse.tasks.spec import TaskSpec
from mmfuse.types import MmfuseError

VALUES = ["1.5", "", "-3", "n/a", "2e3", "0", "7", "8"]


class Number(TaskKind):
    """A number with options."""

    metrics = comparable = diagnosed = ("minus_mae",)
    monitor = "minus_mae"

    def __init__(self, labels=(), *, unit: str = "", low: float = -10.0):
        super().__init__(labels)
        if not isinstance(low, float):
            raise ValueError(f"low: {low!r} is no number")
        self.unit, self.low = unit, low

    def measure(self, predicted, target, times):
        return {"minus_mae": -np.average(abs(predicted - target), weights=times)}


class NumberHead(Head):
    """One map."""

    def __init__(self, in_dim, task):
        super().__init__(task)
        self.linear = torch.nn.Linear(in_dim, 1)

    def forward(self, features):
        return self.linear(features.pooled)


@pytest.fixture(autouse=True)
def number(monkeypatch):
    monkeypatch.setitem(TASKS._classes, "number", Number)
    monkeypatch.setitem(HEADS._classes, "number", NumberHead)


@pytest.fixture
def manifest(tmp_path):
    """Write a manifest of numbers; keys of its task are changed, None takes one out."""

    def write(values=VALUES, **changes):
        lines = [
            f'{i},text number {i} of them,"{value}",{"train" if i < 4 else "test"}' for i, value in enumerate(values)
        ]
        (tmp_path / "rows.csv").write_text("\n".join(["id,note,y,part", *lines]))
        task = {"type": "number", "column": "y", "missing": ["n/a"], **changes}
        said = {
            "name": "numbers",
            "rows": "rows.csv",
            "id": "id",
            "text": {"columns": ["note"]},
            "tasks": {"t": {k: v for k, v in task.items() if v is not None}},
            "splits": {"column": "part"},
        }
        (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(said))
        return tmp_path / "manifest.yaml"

    return write


def test_numbers_are_read_and_what_is_missing_stays_missing(manifest):
    table = read_table(load_manifest(manifest(unit="kg")))
    np.testing.assert_array_equal(table.targets["t"], np.float32([1.5, np.nan, -3, np.nan, 2000, 0, 7, 8]))
    assert table.labels == {"t": []}
    assert table.kind("t").unit == "kg"
    assert table.kind("t").labelled(table.targets["t"]).sum() == 6
    assert table.has_target("t", "test")


@pytest.mark.parametrize("value", ["heavy", "nan", "inf", "1,5"])
def test_a_cell_that_is_no_number_is_told_with_its_row(manifest, value):
    with pytest.raises(MmfuseError, match=rf"tasks.t: column 'y', row 3: '{value}' is not a finite number"):
        read_table(load_manifest(manifest(["1", "2", value, "3"])))


def test_a_column_without_any_number_is_refused(manifest):
    with pytest.raises(MmfuseError, match=r"tasks.t: no row has a value: y is empty in every row"):
        read_table(load_manifest(manifest([""] * 4)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "nubmer"}, r"tasks.t.type: unknown task 'nubmer'; legal: .*did you mean 'number'.*--plugin"),
        ({"untt": "kg"}, r"tasks.t.untt: no such key; legal: .*unit, low \(did you mean 'unit'\?\)"),
        ({"options": {}}, "tasks.t.options: no such key"),
        ({"type": "classification", "unit": "kg"}, "tasks.t.unit: no such key"),
        ({"low": "deep"}, "tasks.t: low: 'deep' is no number"),
        ({"separator": ";"}, "tasks.t.separator: not for number; legal: column, label_origin, missing, type"),
        ({"min_count": 3}, "tasks.t.min_count: not for number"),
        ({"column": None, "columns": ["y"]}, "tasks.t.columns: not for number"),
        ({"column": None}, "tasks.t: give either column or columns"),
    ],
)
def test_what_a_kind_does_not_read_is_refused_by_name(manifest, changes, said):
    with pytest.raises(MmfuseError, match=said):
        load_manifest(manifest(**changes))


def test_there_is_nothing_to_stratify_by(manifest):
    path = manifest()
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**values, "splits": {"stratify": "t"}}))
    with pytest.raises(MmfuseError, match=r"splits.stratify: 't' is number, which has no labels"):
        load_manifest(path)


def test_shards_hold_numbers_and_the_options_they_were_read_with(manifest, tmp_path):
    loaded = load_manifest(manifest(unit="kg"))
    shards = write_shards(read_table(loaded), str(tmp_path / "shards"))
    assert shards.tasks["t"] == {**TaskSpec(type="number", column="y", missing=["n/a"]).to_dict(), "unit": "kg"}
    again = load_manifest(tmp_path / "shards" / "manifest.yaml")
    assert again.tasks["t"] == loaded.tasks["t"]
    table = load_shards(again)
    order = np.argsort(table.rows["id"])
    np.testing.assert_array_equal(table.targets["t"][order], np.float32([2000, 0, 7, 8]))
    other = yaml.safe_load((tmp_path / "shards" / "manifest.yaml").read_text())
    other["tasks"]["t"]["low"] = 0.0
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({**other, "rows": "shards/shards.json"}))
    with pytest.raises(MmfuseError, match=r"tasks.t.low is 0.0, but the shards were written with None"):
        load_shards(load_manifest(tmp_path / "other.yaml"))


def test_what_shards_of_before_say_of_a_task_has_not_changed():
    """`options` is in no index: one that was written by an older mmfuse is still the same."""
    assert "options" not in TaskSpec().to_dict()


def test_scores_are_of_weighted_rows_with_intervals_over_groups():
    rng = np.random.default_rng(0)
    predicted, target = rng.normal(size=40), rng.normal(size=40).astype(np.float32)
    target[3] = np.nan
    groups = [f"g{i // 2}" for i in range(40)]
    found = Number().score(predicted, target, groups, 200)
    assert (found["n"], found["groups"]) == (39, 20)
    score = found["metrics"]["minus_mae"]
    assert score["value"] == pytest.approx(-np.nanmean(abs(predicted - target)))
    assert score["low"] < score["value"] < score["high"]
    with pytest.raises(MmfuseError, match="nothing to score: none of the 40 rows has a target"):
        Number().score(predicted, np.full(40, np.nan), groups)


def test_a_head_and_its_task_are_registered_together(monkeypatch):
    with pytest.raises(MmfuseError, match="unknown head 'nubmer'"):
        build_head("nubmer", 3)
    monkeypatch.setitem(HEADS._classes, "alone", NumberHead)
    with pytest.raises(MmfuseError, match=r"the head 'alone' has no task: register in mmfuse.tasks.TASKS"):
        build_head("alone", 3)


def test_a_number_cannot_be_chosen_by_a_fusion_of_decisions():
    from mmfuse.fusion import FUSIONS

    head = build_head("number", 4)
    assert hasattr(FUSIONS.get("late_probability"), "combine")
    with pytest.raises(MmfuseError, match=r"combines decisions needs labels"):
        head.combine([torch.zeros(2, 1)], lambda logits: logits[0])


def test_classes_cannot_be_balanced_where_there_are_none():
    with pytest.raises(MmfuseError, match="class_weights: balanced is for labels"):
        build_head("number", 4).weigh(np.zeros(3))


class Grades(LabelTask):
    """Ordered classes with a rule of their own."""

    metrics = ("level",)  # pyright: ignore[reportAssignmentType]
    monitor, exclusive = "level", True

    def labelled(self, target):
        return ~np.isnan(target)

    def one_hot(self, target):
        return np.eye(3)[np.nan_to_num(target).astype(int)] * self.labelled(target)[:, None]

    def said(self, predicted):
        return np.zeros(predicted.shape[:-1], dtype=int)


def test_a_metric_of_labels_is_had_of_a_kind_that_has_none_per_label_itself():
    kind = Grades(["low", "mid", "high"])
    target = np.array([0, 2, np.nan, 1], dtype=np.float32)
    scored = kind.scored(np.eye(3)[[1, 1, 1, 1]], target)
    assert scored.rows.tolist() == [0, 1, 3]
    assert scored.target.tolist() == [0, 2, 1]
    assert scored.decided.tolist() == [0, 0, 0]
    scores = {"n": 3, "groups": 3, "metrics": {}}
    chosen = choose_metrics(["recall", "mcc"], "classification", "metrics")
    add_metrics(scores, scored, chosen, list("abcd"), resamples=0)
    assert {label: (of["positives"], of["recall"]["value"]) for label, of in scores["per_label"].items()} == {
        "low": (1, 1.0),
        "mid": (1, 0.0),
        "high": (1, 0.0),
    }
    report = {"split": "test", "tasks": {"grade": {**scores, "told": ["It was `easy`."]}}, "missing": {}}
    printed = format_report(report, plain)
    assert "| label | positives | recall |" in printed
    assert "It was \\`easy\\`." in printed
