"""What docs/add_a_fusion.md tells a newcomer to do, done."""

import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from child_processes import run_child

from mmfuse.fusion import FUSIONS

PAGE = (Path(__file__).parents[2] / "docs" / "add_a_fusion.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def newcomer(values, tmp_path):
    """A folder with the page's file and a benchmark's config, which names no strategy."""
    config = {**values, "preset": "quick", "training": {**values["training"], "epochs": 1}}
    del config["strategies"]
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "elementwise_max.py").write_text(blocks("python")[0])
    return tmp_path


def run(folder, *command):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return run_child(command, folder, environment)


def test_the_page_from_file_to_report(newcomer):
    command = blocks("sh")[0].split()
    checked = run(newcomer, sys.executable, "-m", "mmfuse.cli", *command[1:])
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "FAILED" not in checked.stdout
    printed = run(newcomer, sys.executable, "-c", blocks("python")[1])
    assert printed.returncode == 0, printed.stderr
    assert re.search(r"^\d+ elementwise_max 0\.\d+$", printed.stdout, re.MULTILINE)
    report = (newcomer / "benchmark" / "report.html").read_text(encoding="utf-8")
    assert "elementwise_max" in report
    assert "elementwise_max" in (newcomer / "benchmark" / "table.md").read_text(encoding="utf-8")
    # the other way of naming the file says the same benchmark, so the finished one is simply compared again
    config = newcomer / "benchmark.yaml"
    config.write_text(config.read_text() + blocks("yaml")[0])
    again = run(newcomer, sys.executable, "-m", "mmfuse.cli", "benchmark", config)
    assert again.returncode == 0, again.stderr
    assert "steps" not in again.stderr  # no cell was trained anew


def test_the_page_stays_about_something_new():
    assert "elementwise_max" not in FUSIONS.names()
