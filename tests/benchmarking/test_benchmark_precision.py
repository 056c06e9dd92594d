"""One precision for all cells of a benchmark, and none but fp32 unless it is asked."""

import pytest
from typer.testing import CliRunner

import mmfuse.benchmarking.run as running
from mmfuse.benchmarking.run import benchmark
from mmfuse.cli import app
from mmfuse.encoders import timing
from mmfuse.model import FusionModel
from mmfuse.precision import Precision

AUTO = {"mixed_precision": "auto"}


def test_auto_is_chosen_once_for_all_cells_and_kept(values, monkeypatch):
    gains = {"text": 2.0, "image": 0.5}
    asked, computed = [], set()
    monkeypatch.setattr(timing, "computes_bf16", lambda device: True)

    def time_tower(tower):
        part = "text" if isinstance(tower, timing.TextEncoder) else "image"
        asked.append(part)
        return timing.Timing(gains[part], 1.0)

    run = FusionModel.run
    monkeypatch.setattr(timing, "time_tower", time_tower)
    monkeypatch.setattr(FusionModel, "run", lambda self, *a, **o: (computed.add(self.precision), run(self, *a, **o))[1])
    given = {**values, "strategies": {"concat": None}, "seeds": 1, "diagnostic_rows": 0, "emap_rows": 0}
    given["training"] = {**values["training"], **AUTO}
    first = benchmark(given)
    gains["image"] = 3.0  # another moment
    again = benchmark({**given, "seeds": 2})
    assert asked == ["text", "image"]
    assert computed == {Precision("bf16", "fp32", "fp32")}
    said = "precision auto: text bf16 (bf16 is 2.00 times as fast), image fp32 (bf16 is 0.50 times as fast); "
    assert again.summary["provenance"]["precision"] == first.summary["provenance"]["precision"]
    assert again.summary["provenance"]["precision"].startswith(said)
    assert said in (again.dir / "report.html").read_text()
    assert "mixed precision (auto)" in "".join(path.read_text() for path in again.dir.glob("*.md"))


@pytest.mark.parametrize(
    ("asked", "override"), [("auto", "auto"), ("bf16", "bf16"), ("fp32", "null"), (None, None), ("int8", None)]
)
def test_the_option_stands_for_the_key(asked, override, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(running, "dry_run", lambda config, chosen, force: seen.append(chosen) or "told")
    (tmp_path / "b.yaml").touch()
    option = [] if asked is None else ["--precision", asked]
    found = CliRunner().invoke(app, ["benchmark", str(tmp_path / "b.yaml"), "--dry-run", *option])
    if asked == "int8":
        assert "--precision 'int8' is not legal; legal: auto, fp32, bf16" in str(found.exception) + found.output
    else:
        assert seen == [[] if override is None else [f"training.mixed_precision={override}"]]
