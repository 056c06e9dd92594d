"""The analysis of docs/extend.md, outside the repository: found by config, command line and conformance."""

import json
from pathlib import Path

import pytest
import yaml
from plugin_runs import Command, assert_works, plugin_of, run_commands, tiny_run


@pytest.mark.heavy
def test_the_analysis_of_the_page_works(tmp_path):
    plugin = plugin_of("An analysis", tmp_path)
    values = tiny_run(tmp_path, plugin, evaluation={"analyses": [{"name": "by_presence", "min_rows": 2}]})
    assert_works(values, "by_presence", "analyses")
    run = Path(values["output_dir"])
    report = json.loads((run / "test" / "metrics.json").read_text())
    assert list(report["analyses"]) == ["by_presence"]
    assert report["analyses"]["by_presence"]["both"]["rows"] > 2
    assert (run / "test" / "by_presence.png").read_bytes().startswith(b"\x89PNG")
    assert not (run / "test" / "subgroups.png").exists()
    card = (run / "model" / "README.md").read_text()
    assert "### by_presence" in card
    assert "Rows are of 1 kinds by what they have." in card
    for other in (f"{run}_killed", f"{run}_two"):
        again = json.loads((Path(other) / "test" / "metrics.json").read_text())
        assert again["analyses"]["by_presence"]["both"]["rows"] == report["analyses"]["by_presence"]["both"]["rows"]
    assert json.loads((Path(f"{run}_killed") / "test" / "metrics.json").read_text()) == report

    manifest = values["data"]["manifest"]
    evaluate = ["evaluate", str(run / "model"), manifest, "--plugin", str(plugin)]
    printed = run_commands(
        [
            Command([*evaluate, "--out", str(tmp_path / "asked"), "--analyses", "by_presence, subgroups"]),
            Command([*evaluate, "--out", str(tmp_path / "plain"), "--split", "train"]),
            Command([*evaluate, "--out", str(tmp_path / "none"), "--analyses", ""]),
        ],
        tmp_path,
    )
    assert "Rows are of 1 kinds by what they have." in printed
    asked, by_itself, none = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("asked", "plain", "none")
    )
    assert list(asked["analyses"]) == ["by_presence", "subgroups"]
    assert asked["analyses"]["by_presence"] == report["analyses"]["by_presence"]
    assert list(by_itself["analyses"]) == ["subgroups"]
    assert (
        list(by_itself["analyses"]["subgroups"]["columns"]) == yaml.safe_load(Path(manifest).read_text())["subgroups"]
    )
    assert "analyses" not in none
