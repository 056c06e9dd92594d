"""The row that sees the manifest's subgroup columns alone."""

import csv
import json

import numpy as np
import pytest
import yaml

from mmfuse.benchmarking.config import load_benchmark_config
from mmfuse.benchmarking.covariates import covariates_of, predict_covariates
from mmfuse.benchmarking.run import benchmark, dry_run
from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError

SPLITS = ["train"] * 300 + ["validation"] * 50 + ["test"] * 50


def rows_of(seed=0):
    """Rows whose class is by sex and age, whose finding by site alone, and whose dose by age."""
    rng = np.random.default_rng(seed)
    for i, split in enumerate(SPLITS):
        sex, age, site = rng.choice(["f", "m"]), round(rng.uniform(20, 90), 1), rng.choice(["a", "b", "c"])
        kind = "old" if (sex == "f") == (age > 55) else "young"
        kind = kind if sex == "f" else "old" if age > 55 else "young"
        yield {
            "id": i,
            "text": f"row {i}",
            "split": split,
            "sex": sex,
            "age": "" if i % 17 == 0 else age,
            "site": site,
            "kind": kind,
            "finding": int(site == "a"),
            "other": 1 if split == "train" else i % 2,
            "dose": 2 * age + rng.normal(),
        }


def table_of(folder, rows, tasks="kind finding dose", subgroups="[sex, age, site]"):
    rows = list(rows)
    with (folder / "rows.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    known = {
        "kind": "{type: classification, column: kind}",
        "finding": "{type: multilabel, columns: [finding, other]}",
        "dose": "{type: regression, column: dose}",
        "sex": "{type: classification, column: sex}",
        "said": "{type: captioning, column: site}",
    }
    (folder / "set.yaml").write_text(
        "name: set\nversion: 1\nabout: x\nlicence: CC0-1.0\nrows: rows.csv\nid: id\ntext: {columns: [text]}\n"
        f"splits: {{column: split}}\nsubgroups: {subgroups}\ntasks:\n"
        + "".join(f"  {task}: {known[task]}\n" for task in tasks.split())
    )
    return load_table(load_manifest(folder / "set.yaml"))


def predicted(table, **options):
    kinds = {task: table.kind(task) for task in table.labels}
    found = predict_covariates(table, ["sex", "age", "site"], kinds, **options)
    return {task: kinds[task].predictions(said) for task, said in found.items()}, kinds


def test_it_learns_what_the_columns_say(tmp_path):
    table = table_of(tmp_path, rows_of())
    found, kinds = predicted(table)
    test = table.indices("test")
    right = found["kind"][test].argmax(axis=1) == table.targets["kind"][test]
    assert right.mean() > 0.85
    assert ((found["finding"][test, 0] > 0.5) == (table.targets["finding"][test, 0] == 1)).all()
    assert kinds["dose"].values(["r2"], found["dose"][test], table.targets["dose"][test])["r2"] > 0.8
    assert np.isfinite(found["finding"]).all()  # `other` is the same in all training rows


def test_nothing_of_it_is_learned_from_other_rows_than_those_of_training(tmp_path):
    rows = list(rows_of())
    before, _ = predicted(table_of(tmp_path, rows))
    changed = [dict(row) for row in rows]
    for row in changed[300:]:
        row |= {"kind": "old" if row["kind"] == "young" else "young", "finding": 1 - row["finding"], "dose": 7.0}
    for row in changed[350:]:
        row |= {"sex": "unseen", "age": "not known", "site": "elsewhere"}
    after, _ = predicted(table_of(tmp_path, changed))
    for task, said in before.items():
        assert (said[:350] == after[task][:350]).all()
        assert np.isfinite(after[task][350:]).all()
        assert len(np.unique(after[task][350:], axis=0)) == 1  # nothing is known of any of them


def test_a_class_that_no_training_row_has_is_as_good_as_impossible(tmp_path):
    rows = list(rows_of())
    rows[-1]["kind"] = "third"
    table = table_of(tmp_path, rows)
    found, _ = predicted(table)
    assert (found["kind"][:, table.labels["kind"].index("third")] < 1e-9).all()


def test_balanced_labels_weigh_alike(tmp_path):
    rows = [row | {"kind": "rare" if i % 10 == 0 else "common"} for i, row in enumerate(rows_of())]
    table = table_of(tmp_path, rows, tasks="kind")
    rare = table.labels["kind"].index("rare")
    assert predicted(table)[0]["kind"][:, rare].mean() < 0.2
    assert predicted(table, balanced=["kind"])[0]["kind"][:, rare].mean() > 0.4


@pytest.mark.parametrize(
    ("tasks", "subgroups", "columns"),
    [
        ("kind", "[sex, age]", ["sex", "age"]),
        ("kind sex", "[sex, age]", ["age"]),
        ("sex", "[sex]", None),
        ("kind", "[]", None),
        ("kind said", "[sex]", None),
    ],
)
def test_which_columns_it_sees(tmp_path, tasks, subgroups, columns):
    found = covariates_of(table_of(tmp_path, rows_of(), tasks, subgroups))
    assert (found and found["columns"]) == columns


@pytest.fixture
def with_columns(values, symbols, tmp_path):
    """A tiny benchmark, whose manifest names two columns as subgroups: one says the class of `match`, one is noise."""
    with (symbols.parent / "data.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    rng = np.random.default_rng(0)
    for row in rows:
        row |= {"image": str(symbols.parent / row["image"]), "scanner": row["match"], "site": str(rng.integers(3))}
    with (tmp_path / "data.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    manifest = yaml.safe_load(symbols.read_text()) | {"subgroups": ["scanner", "site"]}
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(manifest))
    values["data"] |= {"manifest": str(tmp_path / "set.yaml"), "tasks": ["match"], "root": "/"}
    values["training"] |= {"epochs": 1}
    return values | {"strategies": {"late": None}, "seeds": 1, "emap_rows": 0, "diagnostic_rows": 0}


def test_it_is_a_row_of_the_benchmark_that_the_verdict_tells(with_columns, tmp_path, monkeypatch):
    """A folder of before there was such a row is gone on with, and gets it; changed columns are refused."""
    monkeypatch.setattr("mmfuse.benchmarking.run.covariates_of", lambda table: None)
    before = benchmark(with_columns)
    monkeypatch.undo()
    lines = (before.dir / "results.jsonl").read_text().splitlines()
    found = benchmark(with_columns)
    added = [json.loads(line) for line in (found.dir / "results.jsonl").read_text().splitlines()[len(lines) :]]
    assert [(line["row"], line["seed"], line["status"]) for line in added] == [("covariates_only", 0, "done")]
    task = found.summary["tasks"]["match"]
    row = next(s for s in task["strategies"] if s["row"] == "covariates_only")
    assert row["score"]["mean"] == 1.0
    assert row["uses"] == ["scanner", "site"]
    assert task["references"]["covariates_only"] == "covariates_only"
    assert "covariates_only" not in (task["references"]["best_unimodal"], task["references"]["declared"])
    assert "covariates alone (scanner and site)" in task["verdict"]
    page = (found.dir / "report.html").read_text() + (found.dir / "table.md").read_text()
    assert page.count("covariates_only") > 3
    path = tmp_path / "data.csv"
    path.write_text(path.read_text().replace(",2\n", ",1\n"))
    with pytest.raises(MmfuseError, match=r"covariates_only-seed0 was run with fusion"):
        benchmark(with_columns)


def test_its_name_is_taken(values):
    with pytest.raises(MmfuseError, match="covariates_only is the row of the manifest's subgroups"):
        dry_run(load_benchmark_config(values | {"strategies": {"covariates_only": {"name": "late"}}}))
