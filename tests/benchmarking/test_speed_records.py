"""The table of `make bench`: what it compares with, what it says of a slowdown, and that nothing is measured twice."""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
records: Any = import_module("speed_records")
speed: Any = import_module("speed")


def line(ratio: float, **machine) -> dict:
    here = {"cpu": "A", "cores": 2, "threads": 2, "flags": [], "torch": "2.9", **machine}
    rows = {"train a": {"ratio": ratio}}
    return {
        "date": "",
        "commit": "abcdef012345",
        "dirty": False,
        "machine": here,
        "settings": {"limit": 4},
        "rows": rows,
    }


def test_a_ratio_stands_beside_that_of_the_last_record_of_such_a_machine(tmp_path):
    path = tmp_path / "records.jsonl"
    for one in (line(1.0), line(2.0), line(9.0, cpu="B"), {**line(9.0), "settings": {"limit": 8}}):
        records.append(one, path)
    rows = [records.Row("train a", {"ratio": 1.8, "waited": 0.01}, 1.5), records.Row("train b", {"ratio": 1.0}, 1.5)]
    _, first, second = records.table(rows, line(1.8, torch="2.10"), path).splitlines()
    assert "2.00 (abcdef0, torch 2.9): -10.0%  SLOWER" in first
    assert ">= 1.5  met" in first
    assert "waited 0.01" in first
    assert ">= 1.5  MISSED" in second
    assert " none" in second
    assert "SLOWER" not in records.table([records.Row("train a", {"ratio": 1.95})], line(1.95), path)


def test_what_was_skipped_is_told_and_not_recorded(tmp_path):
    rows = [records.Row("predict int8", skipped="nncf is not installed"), records.Row("flat", {"ratio": 1.0})]
    found = records.record(rows, {}, 2)
    assert list(found["rows"]) == ["flat"]
    assert json.loads(json.dumps(found)) == found
    assert found["machine"]["cores"]
    assert "skipped: nncf is not installed" in records.table(rows, found, tmp_path / "none.jsonl")


def test_what_was_measured_of_the_same_code_is_not_measured_again(tmp_path, monkeypatch):
    started = []

    def run(command, **_):
        started.append(command)
        return argparse.Namespace(returncode=0, stdout='noise\n{"pairs_per_s": 3}\n', stderr="")

    monkeypatch.setattr(speed.subprocess, "run", run)
    args = argparse.Namespace(
        work=tmp_path, data=tmp_path, pretrained=tmp_path, baselines=tmp_path, threads=1, code="abc"
    )
    for _ in range(2):
        assert speed.measure(args, "predict naive 0", "naive_predict", {})["pairs_per_s"] == 3
    assert len(started) == 1
    args.code = "def"
    speed.measure(args, "predict naive 0", "naive_predict", {})
    assert len(started) == 2


@pytest.mark.parametrize(("has", "said"), [(True, None), (False, "openvino is not installed")])
def test_an_engine_that_is_not_installed_has_a_reason(has, said, monkeypatch):
    predict: Any = import_module("speed_predict")
    monkeypatch.setattr(predict.importlib.util, "find_spec", lambda name: object() if has else None)
    assert predict.absent("openvino", "int8") == said
    assert predict.absent("local", "fp32") is None
