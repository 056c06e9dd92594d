"""A number learned, killed and resumed, by two processes, from shards; evaluated, predicted, abstained from."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from plugin_runs import KILLED_AT, STUDIES, Command, assert_same_run, run_commands, steps, tiny_run, train_command

from mmfuse.data.load import load_table
from mmfuse.data.shards.write import write_shards
from mmfuse.data.synthetic.phantom_dose import write_doses
from mmfuse.data.tables.blocks import open_blocks
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.predict.abstain import plan_abstention
from mmfuse.types import MmfuseError

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set in which every seventh level is missing."""
    found = tmp_path_factory.mktemp("doses")
    manifest = write_doses(found / "phantom", STUDIES, seed=0)
    table = manifest.with_name("data.csv")
    head, *rows = table.read_text().splitlines()
    place = head.split(",").index("level")
    cells = [row.split(",") for row in rows]
    for row in cells[::7]:
        row[place] = ""
    table.write_text("\n".join([head, *(",".join(row) for row in cells)]) + "\n")
    splits = {"ratios": {"train": 0.5, "validation": 0.3, "test": 0.2}}
    manifest.write_text(yaml.safe_dump({**yaml.safe_load(manifest.read_text()), "splits": splits}))
    return found


@pytest.fixture(scope="module")
def run(folder):
    """The folder of a run that went through, beside one that was killed and resumed and one of two processes."""
    values = tiny_run(folder, Path("none.py"), plugins=[], tasks={"level": {"head": {"loss": "huber"}}})
    whole, batch = Path(values["output_dir"]), values["training"]["batch_size"]
    killed = {**values, "output_dir": f"{whole}_killed"}
    two = {**values, "output_dir": f"{whole}_two", "training": {**values["training"], "batch_size": batch // 2}}
    commands = [
        Command(train_command(values)),
        Command(train_command(killed), killed_at=KILLED_AT),
        Command(train_command(killed)),
        Command(train_command(two), processes=2),
        Command(["evaluate", str(whole / "model"), values["data"]["manifest"], "--out", str(folder / "scored")]),
        Command(["predict", str(whole / "model"), values["data"]["manifest"], "--out", str(folder / "said.csv")]),
    ]
    run_commands(commands, folder)
    return whole


def test_a_killed_run_resumes_to_the_same_bits_and_two_processes_agree(run):
    assert_same_run(run, Path(f"{run}_killed"))
    losses = [[line["loss"] for line in steps(Path(f"{run}{end}"))] for end in ("", "_two")]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    states = [json.loads(Path(f"{run}{end}/model/config.json").read_text())["decisions"] for end in ("", "_killed")]
    assert states[0] == states[1]


def test_the_scale_is_that_of_the_training_rows_and_stands_in_the_model_folder(run, folder):
    config = json.loads((run / "model" / "config.json").read_text())
    table = load_table(load_manifest(folder / "phantom" / "manifest.yaml"))
    levels = table.targets_of("level", "train")
    state = config["decisions"]["level"]
    assert state["center"] == pytest.approx(np.nanmean(levels.astype(float)))
    assert state["scale"] == pytest.approx(np.nanstd(levels.astype(float)))
    assert state["radius"] > 0
    assert config["tasks"]["level"] == {
        "type": "regression",
        "labels": [],
        "options": {"unit": "mg/L"},
        "loss": "huber",
    }


def test_evaluation_and_prediction_say_value_and_interval(run, folder):
    scores = json.loads((folder / "scored" / "metrics.json").read_text())["tasks"]["level"]
    assert (scores["unit"], scores["intervals"]["level"]) == ("mg/L", 0.9)
    assert (folder / "scored" / "residuals_level.png").stat().st_size > 10_000
    lines = map(json.loads, (folder / "scored" / "predictions.jsonl").read_text().splitlines())
    said = {line["id"]: line["tasks"]["level"] for line in lines}
    assert all(found.keys() == {"target", "value", "unit", "low", "high"} for found in said.values())
    assert all(found["low"] < found["value"] < found["high"] for found in said.values())
    head, *rows = (folder / "said.csv").read_text().splitlines()
    assert head == "id,level.value,level.low,level.high,present,notices"
    predicted = {row.split(",")[0]: float(row.split(",")[1]) for row in rows}
    assert all(math.isclose(predicted[id], found["value"], rel_tol=1e-5) for id, found in said.items())


def test_a_number_is_never_held_back(run):
    from mmfuse.model import FusionModel

    with pytest.raises(MmfuseError, match="no decision that has a confidence"):
        plan_abstention(FusionModel.from_pretrained(run / "model"), 0.9)


def test_shards_keep_the_numbers_and_what_is_missing(folder):
    manifest = load_manifest(folder / "phantom" / "manifest.yaml")
    write_shards(open_blocks(manifest, None), str(folder / "shards"), size=10**6)
    table, shards = load_table(manifest), load_table(load_manifest(folder / "shards" / "manifest.yaml"))
    by_id = dict(zip(table.rows["id"][:], table.targets["level"], strict=True))
    expected = np.array([by_id[id] for id in shards.rows["id"][:]])
    np.testing.assert_array_equal(shards.targets["level"], expected)
    assert np.isnan(expected).any()
    np.testing.assert_allclose(
        np.sort(shards.targets_of("level", "train")), np.sort(table.targets_of("level", "train"))
    )
