"""Analyses in a benchmark: asked of the first seed of each strategy, told on the page."""

import json

import pytest
from plugin_runs import plugin_of

from mmfuse.benchmarking.run import benchmark
from mmfuse.benchmarking.told import analyses_section
from mmfuse.types import MmfuseError


@pytest.mark.heavy
def test_the_analysis_of_the_page_is_asked_of_each_strategy(values, tmp_path):
    plugin = plugin_of("An analysis", tmp_path)
    small = {"strategies": {"late": None}, "seeds": 1, "emap_rows": 0, "diagnostic_rows": 0}
    asked = {"plugins": [str(plugin)], "evaluation": {"analyses": ["by_presence"]}}
    found = benchmark({**values, **small, **asked})
    (task, *_) = found.summary["tasks"]
    rows = {s["row"] for s in found.summary["tasks"][task]["strategies"]}
    assert found.summary["analyses"].keys() == rows
    assert found.summary["analyses"]["late"]["by_presence"]["both"]["rows"] == 32
    assert json.loads((found.dir / "summary.json").read_text())["analyses"] == found.summary["analyses"]
    page = (found.dir / "report.html").read_text()
    assert "Analysis: by_presence" in page
    assert "<b>late</b>: Rows are of 1 kinds by what they have." in page
    assert page.count("data:image/png;base64,") == len(rows)


def test_without_analyses_the_page_is_as_it_was():
    assert analyses_section({"tasks": {}}) == []


def test_an_analysis_that_cannot_be_asked_is_refused_before_anything_is_trained(values, tmp_path):
    with pytest.raises(MmfuseError, match="did you mean 'subgroups'"):
        benchmark({**values, "evaluation": {"analyses": ["subgroup"]}})
    with pytest.raises(MmfuseError, match="subgroups: 'sex' is none of the manifest's"):
        benchmark({**values, "evaluation": {"analyses": [{"name": "subgroups", "columns": ["sex"]}]}})
    assert not (tmp_path / "benchmark" / "cells").exists()
