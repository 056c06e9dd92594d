"""A benchmark from config to report: paired, resumable, shared, and nothing lost when something fails."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml
from child_processes import wait_until
from typed_results import assert_typed

import mmfuse
from mmfuse.benchmarking.cells import Workshop, _trained
from mmfuse.benchmarking.compare import compare_benchmarks
from mmfuse.benchmarking.config import load_benchmark_config
from mmfuse.benchmarking.results import CellResult, Summary
from mmfuse.benchmarking.run import benchmark, dry_run, one_gpu
from mmfuse.data.batches.order import epoch_batches
from mmfuse.fusion import FUSIONS
from mmfuse.fusion.concat import ConcatFusion
from mmfuse.metrics import METRICS
from mmfuse.training.build import assemble
from mmfuse.types import MmfuseError

ROWS = ["text_only", "image_only", "late", "concat", "cross_attention"]
TIMES = ("seconds", "samples_per_s", "peak_mib")


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """One whole benchmark, to be looked at."""
    return benchmark(tiny(tmp_path_factory.mktemp("finished")))


def lines_of(folder):
    return [json.loads(line) for line in (Path(folder) / "results.jsonl").read_text().splitlines()]


def without_times(folder):
    """What a result says, but for what no two runs share, by cell."""
    return {
        (line["row"], line["seed"], line["fold"], line["trial"]): {k: v for k, v in line.items() if k not in TIMES}
        for line in lines_of(folder)
    }


def test_every_cell_is_a_line_and_every_row_in_the_report(finished):
    lines = lines_of(finished.dir)
    assert {(line["row"], line["seed"]) for line in lines} == {(row, seed) for row in ROWS for seed in range(2)}
    assert {line["status"] for line in lines} == {"done"}
    assert json.loads((finished.dir / "summary.json").read_text()) == json.loads(json.dumps(finished.summary))
    for task in ("match", "unique_text"):
        found = finished.summary["tasks"][task]
        assert {s["row"] for s in found["strategies"]} == set(ROWS)
        assert found["verdict"]
        assert found["rows"] == found["groups"] == 32
        chosen = {role: found["references"][role] for role in ("best_unimodal", "declared")}
        assert found["references"] == {**chosen, "late": "late", "concat": "concat"}
        contrasts = [c for s in found["strategies"] for c in s["contrasts"].values()]
        assert sum(c["declared"] for c in contrasts) == 1
        assert all(-1 <= c["low"] <= c["high"] <= 1 for c in contrasts)  # of two seeds they would reach beyond
        page = (finished.dir / "table.md").read_text() + (finished.dir / "report.html").read_text()
        assert all(row in page for row in ROWS)


def test_scores_are_those_of_the_stored_predictions(finished, symbols):
    table = load_benchmark_config(finished.dir / "config.yaml")
    target = Workshop(table, print).table(None).targets["unique_text"]
    for strategy in finished.summary["tasks"]["unique_text"]["strategies"]:
        scores = []
        for seed in range(2):
            with np.load(finished.dir / "cells" / f"{strategy['row']}-seed{seed}" / "test.npz") as arrays:
                scores.append((arrays["logits.unique_text"].argmax(1) == target[arrays["rows"]]).mean())
        assert strategy["score"]["mean"] == pytest.approx(np.mean(scores))
        assert strategy["score"]["seed_sd"] == pytest.approx(np.std(scores, ddof=1))


def test_the_first_seed_has_diagnostics(finished):
    strategies = {s["row"]: s for s in finished.summary["tasks"]["match"]["strategies"]}
    assert abs(strategies["late"]["emap"]["gap"]["accuracy"]) < 1e-6
    assert strategies["text_only"]["permutation"]["image"]["accuracy"]["drop"] == 0
    assert strategies["image_only"]["shapley"]["accuracy"]["phi_text"] == 0
    for strategy in strategies.values():
        for modality in ("text", "image"):
            assert len(strategy["missing"][modality]["accuracy"]["values"]) == 11


def test_speed_is_of_all_steps_also_of_those_before_a_kill(finished, tmp_path):
    steps = [{"step": i, "samples": 16, "seconds": 0.5, "loss": 1.0} for i in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in [*steps, {"step": 2, "best": True}]))
    assert _trained(tmp_path) == (32, 1.0)
    for line in lines_of(finished.dir):
        assert line["samples_per_s"] == pytest.approx(line["steps"] * 16 / line["seconds"], rel=0.2)


def test_a_finished_cell_keeps_no_checkpoints(finished, tmp_path):
    assert not list(finished.dir.glob("cells/*/run"))
    left = finished.dir / "cells" / "late-seed0" / "run"
    left.mkdir()
    (left / "metrics.jsonl").write_text("")
    benchmark(finished.dir / "config.yaml")
    assert not left.exists()


def test_only_a_fusion_learns_to_do_without_a_modality(values):
    config = load_benchmark_config(values)
    workshop = Workshop(config, print)
    for name, learned in (("text_only", []), ("image_only", []), ("concat", ["text", "image"])):
        run = config.run_config({"name": name, "out_dim": 16}, 0, Path("run"))
        assert assemble(run, workshop.table(None), *workshop.towers(run, None)).accepts_missing == learned


def test_a_finished_benchmark_is_not_run_again(finished, symbols):
    before = (finished.dir / "results.jsonl").stat().st_mtime_ns
    again = benchmark(finished.dir / "config.yaml")
    assert (finished.dir / "results.jsonl").stat().st_mtime_ns == before
    assert again.summary["tasks"] == json.loads(json.dumps(finished.summary["tasks"]))


def test_the_folder_of_another_benchmark_is_refused(finished, values, tmp_path):
    with pytest.raises(MmfuseError, match=r"holds a benchmark with another config \(width differs\).*--restart"):
        benchmark({**values, "output_dir": str(finished.dir), "width": 8})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(MmfuseError, match="not empty, and not a benchmark"):
        benchmark({**values, "output_dir": str(tmp_path / "mine")})
    (tmp_path / "mine" / "config.yaml").write_text("width: 8")
    with pytest.raises(MmfuseError, match="not empty, and not a benchmark"):
        benchmark({**values, "output_dir": str(tmp_path / "mine")}, restart=True)
    assert (tmp_path / "mine" / "thesis.txt").is_file()


def test_a_mistake_beside_restart_throws_nothing_away(finished, values, tmp_path):
    folder = shutil.copytree(finished.dir, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "lock"}
    with pytest.raises(MmfuseError, match="nope"):
        benchmark({**values, "output_dir": str(folder), "strategies": {"nope": None}}, restart=True)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "lock"} == before


def test_a_full_disk_leaves_nothing_that_keeps_the_folder_from_the_next_start(values, tmp_path, monkeypatch):
    def full(path, *_, **__):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "full"
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        benchmark({**values, "output_dir": str(folder)})
    assert [path.name for path in folder.iterdir()] in ([], ["lock"])


def test_more_seeds_go_on_in_the_same_folder(values):
    config = {**values, "strategies": {"late": None}, "seeds": 1}
    before = lines_of(benchmark(config).dir)
    found = benchmark({**config, "seeds": 2})
    assert lines_of(found.dir)[:3] == before
    assert len(lines_of(found.dir)) == 6
    assert found.summary["seeds"] == load_benchmark_config(found.dir / "config.yaml").seeds == 2
    assert benchmark(config).summary["seeds"] == 1
    assert len(lines_of(found.dir)) == 3  # results.jsonl is of the benchmark that is reported
    assert len(list((found.dir / "cells").iterdir())) == 6


def test_changed_rows_are_not_mixed_with_finished_cells(values, symbols, tmp_path):
    lines = (symbols.parent / "data.csv").read_text().splitlines()
    (tmp_path / "data.csv").write_text("\n".join(lines))
    manifest = yaml.safe_load(symbols.read_text()) | {"rows": str(tmp_path / "data.csv")}
    manifest["image"]["root"] = str(symbols.parent)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(manifest))
    given = {**values, "data": {**values["data"], "manifest": str(tmp_path / "mine.yaml")}, "seeds": 1}
    given["strategies"] = {"late": None}
    benchmark(given)
    cells = lines[1].split(",")
    place = lines[0].split(",").index("unique_text")
    cells[place] = (
        lines[2].split(",")[place] if lines[2].split(",")[place] != cells[place] else lines[3].split(",")[place]
    )
    (tmp_path / "data.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
    with pytest.raises(MmfuseError, match=r"mine.yaml has changed since this benchmark began.*--restart"):
        benchmark(given)


def test_a_strategy_that_has_changed_is_not_mixed_with_finished_cells(values, monkeypatch):
    class Mine(ConcatFusion):
        __doc__ = ConcatFusion.__doc__

    monkeypatch.setitem(FUSIONS._classes, "mine", Mine)
    given = {**values, "strategies": {"mine": None}, "seeds": 1}
    benchmark(given)
    monkeypatch.setattr(Mine, "macs", lambda self, text_tokens, image_tokens: 7)
    with pytest.raises(MmfuseError, match=r"mine-seed0 was run with macs \d+, but would now have 7"):
        benchmark(given)


def test_a_dry_run_leaves_the_folder_to_the_run(values):
    given = {**values, "strategies": {"late": None}, "seeds": 1}
    dry_run(given)
    assert benchmark(given).summary["seeds"] == 1


def test_overrides_hold_for_a_config_that_is_an_object_too(values):
    config = load_benchmark_config(load_benchmark_config(values), ["seeds=7", "preset=quick"])
    assert config.preset == "quick"
    assert config.seeds == 1


def test_every_strategy_sees_the_same_batches(values):
    config = load_benchmark_config(values)
    workshop = Workshop(config, print)
    plans = []
    for name in ("text_only", "image_only", "concat", "cross_attention"):
        run = config.run_config({"name": name, "out_dim": 16}, 1, Path("run"))
        model = assemble(run, workshop.table(None), *workshop.towers(run, None))
        pairs = workshop.pairs(model, None, 1)
        plans.append(
            [epoch_batches(pairs.table.indices("train"), pairs.lengths(), 16, 1, 1, epoch) for epoch in (0, 1)]
        )
    assert all(plan == plans[0] for plan in plans)


def test_encoders_run_once_for_all_cells(values, monkeypatch):
    calls = []
    for module, name in (("text", "TextEncoder"), ("image", "ImageEncoder")):
        cls = getattr(__import__(f"mmfuse.encoders.{module}", fromlist=[name]), name)
        forward = cls.forward
        monkeypatch.setattr(
            cls, "forward", lambda self, *x, f=forward, n=name: (calls.append((n, len(x[0]))), f(self, *x))[1]
        )
    benchmark({**values, "seeds": 1, "emap_rows": 0})
    rows = 120
    for name in ("TextEncoder", "ImageEncoder"):
        encoded = sum(n for called, n in calls if called == name)
        assert rows <= encoded <= 2 * rows + 8  # pooled vectors once, then tokens once


class Broken(ConcatFusion):
    """It fails when it is trained."""

    __doc__ = ConcatFusion.__doc__

    def forward(self, text, image):
        raise RuntimeError("the GPU is on fire\nline two")


def test_a_cell_that_fails_is_a_row_with_its_reason_and_stops_nothing(values, monkeypatch):
    monkeypatch.setitem(FUSIONS._classes, "broken", Broken)
    found = benchmark({**values, "strategies": {"broken": None, "late": None}, "seeds": 1})
    assert [line["status"] for line in lines_of(found.dir)].count("failed") == 1
    (failed,) = found.summary["failed"]
    assert failed["reason"] == "RuntimeError: the GPU is on fire"
    assert "on fire" in (found.dir / "cells" / "broken-seed0" / "traceback.txt").read_text()
    assert {s["row"] for s in found.summary["tasks"]["match"]["strategies"]} == {"text_only", "image_only", "late"}
    assert "on fire" in (found.dir / "report.html").read_text()


def test_tuning_chooses_on_validation_and_its_choice_is_used(values, monkeypatch):
    found = benchmark({**values, "strategies": {"late": None}, "seeds": 1, "tuning_trials": 3})
    lines = lines_of(found.dir)
    for row in ("text_only", "late"):
        trials = {line["trial"]: line for line in lines if line["row"] == row and line["trial"] is not None}
        assert set(trials) == {0, 1, 2}
        best = max(trials.values(), key=lambda line: line["validation"])
        (final,) = (line for line in lines if line["row"] == row and line["trial"] is None)
        assert final["options"] == best["options"]
    assert found.summary["tuning_trials"] == 3


def test_folds_are_pooled(values, symbols, tmp_path):
    manifest = yaml.safe_load(symbols.read_text())
    manifest |= {"splits": {"folds": 3}, "rows": str(symbols.parent / "data.csv")}
    manifest["image"]["root"] = str(symbols.parent)
    (tmp_path / "folds.yaml").write_text(yaml.safe_dump(manifest))
    data = {**values["data"], "manifest": str(tmp_path / "folds.yaml"), "tasks": ["match"]}
    found = benchmark({**values, "data": data, "strategies": {"late": None}, "seeds": 1})
    assert found.summary["folds"] == 3
    assert found.summary["tasks"]["match"]["rows"] == 120
    assert len(lines_of(found.dir)) == 3 * 3


def test_a_leak_in_a_later_fold_is_found_before_anything_is_trained(values, symbols, tmp_path):
    manifest = yaml.safe_load(symbols.read_text()) | {"splits": {"folds": 3}, "rows": str(tmp_path / "data.csv")}
    manifest["image"]["root"] = str(symbols.parent)
    (tmp_path / "folds.yaml").write_text(yaml.safe_dump(manifest))
    header, *rows = (symbols.parent / "data.csv").read_text().splitlines()
    (tmp_path / "data.csv").write_text("\n".join([header, *rows]))
    data = {**values["data"], "manifest": str(tmp_path / "folds.yaml"), "tasks": ["match"]}
    given = {**values, "data": data, "strategies": {"late": None}, "seeds": 1}
    splits = [Workshop(load_benchmark_config(given), print).table(fold).splits for fold in range(3)]
    one = next(i for i, parts in enumerate(zip(*splits, strict=True)) if parts == ("train", "test", "train"))
    two = next(i for i, parts in enumerate(zip(*splits, strict=True)) if parts == ("train", "train", "test"))
    rows[two] = rows[one].replace(rows[one].split(",")[0], rows[two].split(",")[0], 1)
    (tmp_path / "data.csv").write_text("\n".join([header, *rows]))
    with pytest.raises(MmfuseError, match="1 exact duplicate"):
        benchmark(given)
    assert not list(Path(values["output_dir"]).glob("cells/*"))


def test_leaks_stop_it_unless_forced_and_are_then_in_the_report(values, symbols, tmp_path):
    header, first, *rest = (symbols.parent / "data.csv").read_text().splitlines()
    copy = first.replace(first.split(",")[0], "copy", 1).replace(",train,", ",test,")
    (tmp_path / "data.csv").write_text("\n".join([header, first, *rest, copy]))
    manifest = yaml.safe_load(symbols.read_text()) | {"rows": str(tmp_path / "data.csv")}
    manifest["image"]["root"] = str(symbols.parent)
    (tmp_path / "leaky.yaml").write_text(yaml.safe_dump(manifest))
    given = {**values, "data": {**values["data"], "manifest": str(tmp_path / "leaky.yaml")}, "seeds": 1}
    given["strategies"] = {"late": None}
    with pytest.raises(MmfuseError, match="1 exact duplicate"):
        benchmark(given)
    found = benchmark(given, force=True)
    assert "1 exact duplicate" in found.summary["provenance"]["leaks"][0]
    assert "1 exact duplicate" in (found.dir / "report.html").read_text()


def test_a_dry_run_tells_cells_time_and_disk_and_runs_none(values):
    said = dry_run(values)
    assert "5 rows, 10 cells, 8 steps each" in said
    assert "MiB of features" in said
    assert not (Path(values["output_dir"]) / "cells").exists() or not list(
        (Path(values["output_dir"]) / "cells").iterdir()
    )


def test_an_unknown_metric_is_refused_before_anything_is_trained(values):
    with pytest.raises(MmfuseError, match=r"metric: 'acuracy' cannot be compared for match.*accuracy"):
        benchmark({**values, "metric": "acuracy"})
    assert not list(Path(values["output_dir"]).glob("cells/*"))
    with pytest.raises(MmfuseError, match="unknown fusion 'gatd'"):  # and the folder is free for a mended config
        benchmark({**values, "strategies": {"gatd": None}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "recall"}, "'recall' cannot be compared for match, a classification: it has one value a label"),
        ({"metric": "brier"}, "'brier' cannot be compared for match, a classification: less of it is better"),
        ({"tasks": {"match": {"operating_points": {"s": {"sensitivity": 0.9}}}}}, "a benchmark keeps no model"),
    ],
)
def test_what_no_strategies_can_be_compared_by_is_told_with_the_reason(values, change, message):
    with pytest.raises(MmfuseError, match=message):
        benchmark({**values, **change})


def test_a_metric_that_has_no_default_for_an_option_is_refused(values, monkeypatch):
    class OfBeta(METRICS.get("mcc")):
        def __init__(self, beta):
            self.beta = beta

    monkeypatch.setitem(METRICS._classes, "of_beta", OfBeta)
    with pytest.raises(MmfuseError, match=r"'of_beta' cannot be compared for match.*its option beta has none"):
        benchmark({**values, "metric": "of_beta"})


def test_strategies_are_compared_by_a_metric_of_ones_own_choice(values):
    few = {"strategies": {"late": None}, "seeds": 1, "emap_rows": 0, "diagnostic_rows": 0}
    tasks = {"match": {"metrics": ["recall_macro", "npv"]}}
    run = benchmark({**values, **few, "metric": "mcc", "tasks": tasks})
    summary = json.loads((run.dir / "summary.json").read_text())
    task = summary["tasks"]["match"]
    assert task["metric"] == "mcc"
    for strategy in task["strategies"]:
        own = strategy["metrics"]["mcc"]
        assert strategy["score"]["mean"] == pytest.approx(-1.0 if own is None else own)
        assert "recall_macro" in strategy["metrics"]
    assert "mcc" in (run.dir / "report.html").read_text()


def test_results_are_what_their_types_say(finished):
    assert_typed(json.loads((finished.dir / "summary.json").read_text()), Summary)
    for line in (finished.dir / "results.jsonl").read_text().splitlines():
        assert_typed(json.loads(line), CellResult)


def test_two_benchmarks_stand_side_by_side(finished, values, tmp_path):
    other = benchmark({**values, "strategies": {"late": None, "gated": None}, "width": 8})
    said = compare_benchmarks(finished.dir, other.dir)
    assert "| late | " in said
    assert "| gated |  |  | " in said
    assert "\nwidth: a 16, b 8\n" in said
    assert "cache.dir" not in said
    assert said.count("## ") == 2
    with pytest.raises(MmfuseError, match="no finished benchmark"):
        compare_benchmarks(finished.dir, tmp_path)


def start(config, log, *options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(mmfuse.__file__).parent.parent)}
    command = [sys.executable, "-m", "mmfuse.cli", "benchmark", str(config), *options]
    with log.open("w") as out:
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=out, stderr=out)


def gone(session: int) -> bool:
    """Whether all processes of a session have ended."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


@pytest.mark.parametrize(("deadly", "cells"), [(signal.SIGKILL, 3), (signal.SIGTERM, 1)], ids=["SIGKILL", "SIGTERM"])
def test_killed_and_shared_it_says_the_same(finished, values, tmp_path, deadly, cells):
    """Two processes share the cells; the first is ended while they work, and another start ends it.

    However it is ended, the second does not outlive it.
    """
    path, log = tmp_path / "config.yaml", tmp_path / "log"
    path.write_text(yaml.safe_dump(values))
    results = Path(values["output_dir"]) / "results.jsonl"
    process = start(path, log, "processes=2")
    while not (results.exists() and len(results.read_text().splitlines()) >= cells):
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    process.send_signal(deadly)
    process.wait()
    wait_until(lambda: gone(process.pid), "the end of the second")
    done = len(results.read_text().splitlines())
    assert done < 10
    if deadly == signal.SIGTERM:
        assert process.returncode == 143
        assert log.read_text().splitlines()[-1] == f"stopped; {done} of 10 cells are kept; the same command resumes"
        return
    again = benchmark(path)
    assert without_times(again.dir) == without_times(finished.dir)
    assert len(lines_of(again.dir)) == 10
    assert (again.dir / "table.md").read_text() == (finished.dir / "table.md").read_text()


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_helpers_take_the_gpus_in_turn(monkeypatch):
    """The process that starts them has the first one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert one_gpu(1) == {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [one_gpu(number)["CUDA_VISIBLE_DEVICES"] for number in (1, 2, 3)] == ["1", "2", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7, 5,GPU-3a")
    assert [one_gpu(number)["CUDA_VISIBLE_DEVICES"] for number in (1, 2, 3)] == ["5", "GPU-3a", "7"]
