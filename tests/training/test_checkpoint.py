"""What a run's folder keeps: weights once, moments while they are needed, and never less than one whole checkpoint."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mmfuse
from mmfuse.training import checkpoint
from mmfuse.training.checkpoint import MOMENTS, WEIGHTS, Checkpoints, best_name
from mmfuse.types import MmfuseError


def save(folder: Path, step: int, best: bool, best_step: int, **state) -> None:
    """A checkpoint whose weight and moment are its step."""
    values = {"step": step, "best_file": best_name(best_step), **state}
    Checkpoints(folder).save(
        step, values, {"w": torch.full((3,), float(step))}, ({"0.m": torch.full((3,), step + 0.5)}, {}), best
    )


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_weights_that_are_the_best_are_written_once(tmp_path):
    save(tmp_path, 1, True, 1)
    assert names(tmp_path) == {best_name(1), f"step_00000001/{MOMENTS}", "step_00000001/state.json"}
    state, weights, moments = Checkpoints(tmp_path).load_last()
    assert (float(weights["w"][0]), float(moments["0.m"][0])) == (1, 1.5)
    assert "weights" not in state  # the Trainer's state has no such field
    save(tmp_path, 2, False, 1)
    assert names(tmp_path) == {best_name(1), *(f"step_00000002/{name}" for name in (WEIGHTS, MOMENTS, "state.json"))}
    assert float(Checkpoints(tmp_path).load_last()[1]["w"][0]) == 2


def test_a_finished_run_has_the_best_weights_alone(tmp_path):
    save(tmp_path, 1, True, 1)
    save(tmp_path, 2, False, 1, finished=True)
    assert names(tmp_path) == {best_name(1), "step_00000002/state.json"}
    state, weights, moments = Checkpoints(tmp_path).load_last()
    assert state["finished"]
    assert (float(weights["w"][0]), moments) == (1, {})


@pytest.mark.parametrize("finished", [True, False])
def test_a_checkpoint_of_before_is_read(finished, tmp_path):
    save(tmp_path, 3, False, 1, finished=finished)
    step = tmp_path / "step_00000003"
    save_file({"w": torch.full((3,), 3.0)}, step / WEIGHTS)
    save_file({"0.m": torch.full((3,), 3.5)}, step / MOMENTS)
    text = (step / "state.json").read_text().replace(f'"weights": "{best_name(1)}"', '"epoch": 1')
    (step / "state.json").write_text(text)
    _, weights, moments = Checkpoints(tmp_path).load_last()
    assert (float(weights["w"][0]), float(moments["0.m"][0])) == (3, 3.5)


def test_moments_that_are_lost_before_the_end_are_told(tmp_path):
    save(tmp_path, 1, True, 1)
    (tmp_path / "step_00000001" / MOMENTS).unlink()
    with pytest.raises(MmfuseError, match="step_00000001: damaged"):
        Checkpoints(tmp_path).load_last()


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("best", "finished"), [(True, False), (False, False), (True, True), (False, True)], ids=lambda x: str(x)
)
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(best, finished, tmp_path, monkeypatch):
    """Before and after each change of the disk; what is there is the old one or the new one, with its best weights."""
    left = None
    monkeypatch.setattr(checkpoint, "_fsync", lambda path: None)  # it takes long

    def stopping(call):
        def changed(*args, **kwargs):
            nonlocal left
            for moment in ("before", "after"):
                left -= 1
                if left == 0:
                    raise Killed
                if moment == "before":
                    found = call(*args, **kwargs)
            return found

        return changed

    seen, moments = set(), 0
    while True:
        moments += 1
        folder = tmp_path / str(moments)
        save(folder, 1, True, 1)
        save(folder, 2, False, 1)
        left = moments
        with monkeypatch.context() as patched:
            patched.setattr(checkpoint, "write_tensors", stopping(checkpoint.write_tensors))
            patched.setattr(checkpoint, "_fsync", stopping(lambda path: None))
            patched.setattr(checkpoint.shutil, "rmtree", stopping(checkpoint.shutil.rmtree))
            for name in ("rename", "unlink", "mkdir", "write_text"):
                patched.setattr(Path, name, stopping(getattr(Path, name)))
            try:
                save(folder, 3, best, 3 if best else 1, finished=finished)
            except Killed:
                pass
            else:
                break
        state, weights, tensors = Checkpoints(folder).load_last()
        seen.add(state["step"])
        new = state["step"] == 3
        assert float(weights["w"][0]) == ((3 if best or not finished else 1) if new else 2)
        assert tensors.keys() == (set() if new and finished else {"0.m"})
        assert float(Checkpoints(folder).load_best(state)["w"][0]) == (3 if new and best else 1)
        save(folder, 3, best, 3 if best else 1, finished=finished)  # and it goes on from there
    assert seen == {2, 3}
    assert moments > 10


def test_what_a_run_keeps_when_it_has_ended(tiny):
    """Weights once; the same command gives the same report again, and more epochs are refused as ever."""
    options = ("training.epochs=3", "training.learning_rate=0.03", "training.patience=1")
    run = mmfuse.train(tiny(*options))
    folder = run.dir / "checkpoints"
    assert names(folder) == {best_name(run.best_step), f"step_{run.steps:08d}/state.json"}
    model = load_file(run.model_dir / "model.safetensors")
    again = mmfuse.train(tiny(*options))
    assert (again.report, again.best_step) == (run.report, run.best_step)
    assert all(
        torch.equal(model[name], value) for name, value in load_file(run.model_dir / "model.safetensors").items()
    )
    with pytest.raises(MmfuseError, match=r"training.epochs was 3, is now 4"):
        mmfuse.train(tiny(*options, "training.epochs=4"))
