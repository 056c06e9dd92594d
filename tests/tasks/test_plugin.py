"""A kind of task outside the repository, the counts of docs/extend.md, in every command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from plugin_runs import Command, assert_works, plugin_of, run_commands, tiny_run, train_command

TASK = {"events": {"type": "count", "column": "events", "most": 100.0}}


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """A config on phantoms whose target is how many findings a study has; every tenth is not known."""
    folder = tmp_path_factory.mktemp("counts")
    plugin = plugin_of("A task", folder)
    values = tiny_run(folder, plugin, manifest={"tasks": TASK})
    table = Path(values["data"]["manifest"]).with_name("data.csv")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    for i, row in enumerate(rows):
        row["events"] = "" if i % 10 == 3 else str(len(row["findings"].split(";")) if row["findings"] else 0)
    with table.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return values


@pytest.mark.heavy
def test_counts_are_trained_and_then_evaluated_predicted_sharded_checked_and_benchmarked(counts):
    assert_works(counts, "count", "tasks")
    folder, manifest = Path(counts["output_dir"]).parent, counts["data"]["manifest"]
    plugin, model = ("--plugin", counts["plugins"][0]), f"{counts['output_dir']}/model"
    benchmark = {key: counts[key] for key in ("name", "plugins", "data", "text_encoder", "image_encoder")}
    benchmark |= {
        "output_dir": str(folder / "benchmark"),
        "training": {"epochs": 1, "batch_size": 16},
        "strategies": {name: {"name": name} for name in ("text_only", "image_only", "concat")},
        "width": 16,
        "seeds": 2,
        "processes": 1,
        "resamples": 100,
        "emap_rows": 10,
        "diagnostic_rows": 20,
    }
    (folder / "benchmark.yaml").write_text(yaml.safe_dump(benchmark))
    sharded = {**counts, "output_dir": str(folder / "sharded")}
    sharded["data"] = {**counts["data"], "manifest": str(folder / "shards" / "manifest.yaml")}
    printed = run_commands(
        [
            Command(["evaluate", model, manifest, "--out", str(folder / "test"), *plugin]),
            Command(["predict", model, manifest.replace("manifest.yaml", "data.csv"), "--out", "said.csv", *plugin]),
            Command(["data", "check", manifest, *plugin]),
            Command(["data", "shard", manifest, "--out", str(folder / "shards"), *plugin]),
            Command(train_command(sharded)),
            Command(["benchmark", str(folder / "benchmark.yaml")]),
        ],
        folder,
    )
    assert "task events (count): 50 rows with a value" in printed
    scores = json.loads((folder / "test" / "metrics.json").read_text())["tasks"]["events"]
    assert set(scores["metrics"]) == {"mae", "deviance", "d2"}
    assert scores["metrics"]["mae"]["note"] == f"{scores['groups']} groups; 10 are needed"
    assert f"* all: no interval, {scores['groups']} groups; 10 are needed" in printed
    told = [json.loads(line) for line in (folder / "test" / "predictions.jsonl").read_text().splitlines()]
    known = [one["tasks"]["events"] for one in told if one["tasks"]["events"]["target"] is not None]
    errors = [abs(one["value"] - one["target"]) for one in known]
    assert np.mean(errors) == pytest.approx(scores["metrics"]["mae"]["value"], rel=1e-5)
    said = list(csv.DictReader((folder / "said.csv").read_text().splitlines()))
    assert len(said) == 56
    assert all(0 <= float(row["events.value"]) <= 100 for row in said)
    config = json.loads((Path(model) / "config.json").read_text())
    assert config["tasks"] == {"events": {"type": "count", "labels": [], "options": {"most": 100.0}}}
    assert set(config["plugins"]) == {"head count", "task count"}
    found = json.loads((folder / "benchmark" / "summary.json").read_text())["tasks"]["events"]
    assert found["metric"] == "d2"
    assert {one["row"] for one in found["strategies"]} == {"text_only", "image_only", "concat"}
    assert "d2" in found["strategies"][0]["permutation"]["score"]
