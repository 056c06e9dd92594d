"""What a dry run of training says, against the run."""

import json
import math
from pathlib import Path

import pytest

import mmfuse
from mmfuse.encoders.cache import list_cache
from mmfuse.training.estimate import estimate_training


def size(folder: Path, pattern: str = "*.safetensors") -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_dry_run_says_what_the_run_is_and_writes(tiny, tmp_path, frozen):
    overrides = ["training.accumulation=2", f"cache.dir={tmp_path / 'cache'}"]
    overrides += ["text_encoder.frozen=true", "image_encoder.frozen=true"] if frozen else []
    config = tiny(*overrides)
    estimate = estimate_training(config)
    assert list(tmp_path.iterdir()) == []
    run = mmfuse.train(config)
    steps = [line for line in map(json.loads, (run.dir / "metrics.jsonl").read_text().splitlines()) if "loss" in line]
    assert estimate.steps == run.steps == len(steps)
    assert estimate.steps_per_epoch == sum(line["epoch"] == 0 for line in steps)
    assert estimate.batch == 16
    assert estimate.rows["test"] == run.report["rows"]
    assert math.isclose(estimate.model, size(run.model_dir), rel_tol=0.1)
    assert math.isclose(estimate.finished, size(run.dir / "checkpoints"), rel_tol=0.1, abs_tol=8000)  # names, too
    assert math.isclose(estimate.checkpoints, 4 * estimate.finished, rel_tol=0.1)  # last, best, and AdamW's moments
    written = size(tmp_path / "cache", "*.npy")
    assert math.isclose(estimate.features, written, rel_tol=0.1) if frozen else estimate.features == written == 0
    assert estimate.parameters > estimate.trained if frozen else estimate.parameters == estimate.trained
    assert (estimate.computing > 0) == frozen
    assert "nothing was written" in estimate.text()
    assert len(list_cache(tmp_path / "cache")) == 2 * frozen


def test_the_folder_of_another_run_does_not_hinder_and_is_left_alone(tiny, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("name: other\n")
    assert estimate_training(tiny("training.max_steps=3")).steps == 3
    assert [path.name for path in run.iterdir()] == ["config.yaml"]
