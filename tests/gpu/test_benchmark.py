"""benchmarks/gpu.py, tiny and on whatever there is: its sections run, and none takes the others with it."""

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
gpu: Any = import_module("gpu")
gpu_sections: Any = import_module("gpu_sections")

pytestmark = pytest.mark.filterwarnings("default")  # it is a script: what torch warns of while compiling ends nothing

CHILD = """
import json, os, sys, time
for name in sys.argv[1:]:
    print("not a line")
    if name == "dies":
        os._exit(3)
    if name == "hangs":
        time.sleep(60)
    print(json.dumps({"section": name, **({"error": "x", "lost": True} if name == "lost" else {})}), flush=True)
    if name == "lost":
        break
"""
NAMES = ["first", "dies", "second", "hangs", "lost", "last"]


def test_every_section_runs(tmp_path):
    assert set(gpu_sections.SECTIONS) == set(gpu.LIMITS)
    bench = gpu_sections.Bench(small=True, work=tmp_path)
    lines = [json.loads(json.dumps(gpu_sections.run_section(bench, name, 60))) for name in gpu.LIMITS]
    assert not [line for line in lines if "error" in line]
    found = {line.pop("section"): line for line in lines}
    assert found["trainer"]["steps"] == 12
    assert found["profile"]["operators"] > 100
    rates = ("loop_fp32", "loop_tf32", "loop_bf16", "loop_compiled", "model_bf16", "predict")
    assert all(found[name]["pairs_per_s"] > 0 for name in rates)


def test_a_section_that_fails_or_is_late_says_so(tmp_path, monkeypatch):
    bench = gpu_sections.Bench(small=True, work=tmp_path)
    monkeypatch.setitem(gpu_sections.SECTIONS, "data", lambda bench: 1 / 0)
    assert gpu_sections.run_section(bench, "data", 5)["error"] == "ZeroDivisionError: division by zero"
    monkeypatch.setitem(gpu_sections.SECTIONS, "data", lambda bench: time.sleep(5))
    assert gpu_sections.run_section(bench, "data", 0.05)["error"] == "Late: more than 0.05 s"


def supervised(tmp_path, names, seconds):
    lines = []
    with (tmp_path / "log.txt").open("w") as log:
        command = [sys.executable, "-S", "-c", CHILD]
        limits = dict.fromkeys(names, 1)
        failed = gpu.supervise(lambda left: [*command, *left], names, lines.append, log, seconds, limits)
    return failed, lines


def test_what_hangs_or_dies_costs_its_own_line_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "START", 2)
    monkeypatch.setattr(gpu, "GRACE", 0)
    failed, lines = supervised(tmp_path, NAMES, 60)
    assert [line["section"] for line in lines] == NAMES
    errors = {line["section"]: line["error"] for line in lines if "error" in line}
    assert errors == {"dies": "the process ended, see log.txt", "hangs": "no answer in 1 s", "lost": "x"}
    assert failed == 3
    assert "not a line" in (tmp_path / "log.txt").read_text()


def test_all_ends_in_time_and_what_is_left_is_told(tmp_path):
    start = time.monotonic()
    failed, lines = supervised(tmp_path, ["first", "hangs", "last"], 1.5)
    assert time.monotonic() - start < 8
    assert failed == 2
    assert [line.get("error") for line in lines] == [None, "no time left", "no time left"]
