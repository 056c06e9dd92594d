"""`mmfuse.benchmark` of rows, as docs/python.md has it."""

import json

import pytest
from api_runs import SMALL

import mmfuse

OF_A_BENCHMARK = {**{key: value for key, value in SMALL.items() if key != "fusion"}, "seeds": 1, "width": 8}
FAST = {"resamples": 100, "emap_rows": 0, "diagnostic_rows": 0}


def test_strategies_are_compared_on_a_frame_and_the_same_call_is_done_at_once(frame, tmp_path):
    def run(rows, **more):
        given = {"target": "sex", "strategies": ["concat", "text_only"], **OF_A_BENCHMARK, **FAST, **more}
        return mmfuse.benchmark(rows, **given, out=tmp_path / "comparison")

    found = run(frame)
    assert {"manifest.yaml", "rows.parquet", "report.html"} <= {path.name for path in found.dir.iterdir()}
    lines = map(json.loads, (found.dir / "results.jsonl").read_text().splitlines())
    assert {line["row"] for line in lines} >= {"concat", "text_only"}
    assert run(frame).summary["tasks"] == found.summary["tasks"]
    with pytest.raises(mmfuse.MmfuseError, match="comparison: holds a run of other rows"):
        run(frame.head(50))
    again = mmfuse.benchmark(found.dir / "config.yaml")
    assert again.summary["tasks"] == found.summary["tasks"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda frame: mmfuse.benchmark(frame, target="sex", strategies="concat"), r"a list is expected.*\['concat'\]"),
        (lambda frame: mmfuse.benchmark(frame, target="sex", seed=5), "benchmark: seed: no such arg.*mean 'seeds'"),
        (lambda frame: mmfuse.benchmark(frame, ["seeds=5"], target="sex"), "overrides: they are for a config"),
        (lambda frame: mmfuse.benchmark({"name": "x"}, target="sex"), r"target: it is for rows"),
    ],
)
def test_what_is_not_legal_is_told_in_one_line(frame, call, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(mmfuse.MmfuseError, match=said):
        call(frame)
