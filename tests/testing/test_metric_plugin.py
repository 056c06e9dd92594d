"""The metric of docs/extend.md: a file outside the package that is found, checked, stopped on, reported, compared."""

import json

import numpy as np
import pytest
import yaml
from plugin_runs import Command, assert_works, plugin_of, run_commands, tiny_run
from sklearn.metrics import cohen_kappa_score

AGE = {"age": {"type": "classification", "column": "age_band", "label_origin": "synthetic"}}


@pytest.mark.heavy
def test_the_metric_of_the_page(tmp_path):
    plugin = plugin_of("A metric", tmp_path)
    values = tiny_run(
        tmp_path,
        plugin,
        manifest={"tasks": AGE},
        tasks={"age": {"metrics": [{"name": "weighted_kappa", "power": 2.0}]}},
        training={"monitor": "age/weighted_kappa"},
    )
    assert_works(values, "weighted_kappa", "metrics")
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("validation" in line for line in lines)

    frozen = {tower: values[tower] | {"frozen": True} for tower in ("text_encoder", "image_encoder")}
    kept = {key: values[key] for key in ("plugins", "data", "training")}
    kept["training"] = {
        key: value for key, value in kept["training"].items() if key not in ("monitor", "checkpoint_every")
    }
    small = {
        "strategies": {"late": None},
        "seeds": 1,
        "width": 8,
        "resamples": 100,
        "emap_rows": 0,
        "diagnostic_rows": 0,
    }
    benchmark = {"name": "b", "output_dir": str(tmp_path / "b"), "metric": "weighted_kappa", "processes": 1}
    cache = {"cache": {"dir": str(tmp_path / "cache")}}
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(benchmark | kept | frozen | small | cache))
    words = [
        "evaluate",
        str(run / "model"),
        values["data"]["manifest"],
        "--split",
        "train",
        "--out",
        str(tmp_path / "e"),
    ]
    evaluate = [*words, "--metrics", "weighted_kappa,mcc", "--plugin", str(plugin)]
    run_commands([Command(evaluate), Command(["benchmark", str(tmp_path / "b.yaml")])], tmp_path)

    scores = json.loads((tmp_path / "e" / "metrics.json").read_text())["tasks"]["age"]
    names = list(scores["per_label"])
    lines = [
        json.loads(line)["tasks"]["age"] for line in (tmp_path / "e" / "predictions.jsonl").read_text().splitlines()
    ]
    truth, said = ([names.index(line[key]) for line in lines] for key in ("target", "label"))
    if len(set(said)) > 1:
        score = scores["metrics"]["weighted_kappa"]
        assert score["value"] == pytest.approx(
            cohen_kappa_score(truth, said, weights="quadratic", labels=range(len(names)))
        )
        assert score["low"] <= score["value"] <= score["high"]
    summary = json.loads((tmp_path / "b" / "summary.json").read_text())["tasks"]["age"]
    assert summary["metric"] == "weighted_kappa"
    assert np.isfinite([s["score"]["mean"] for s in summary["strategies"]]).all()
