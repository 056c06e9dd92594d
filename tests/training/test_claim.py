"""A run's folder: for one process, and free until the first step."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from filelock import FileLock

import mmfuse
from mmfuse.cli.ending import sigterm_interrupts
from mmfuse.config import config_to_dict
from mmfuse.training import prepare
from mmfuse.training.claim import LOCK, claimed, has_begun, tell_kept
from mmfuse.training.loop import Trainer
from mmfuse.types import Stopped

HOLDER = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_training_in_the_same_folder_is_refused_until_the_first_is_gone(tiny, tmp_path):
    """A process that is killed leaves no lock behind, though its file stays."""
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run" / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        for restart in (False, True):
            with pytest.raises(mmfuse.MmfuseError, match="run: another process is training here; wait for it"):
                mmfuse.train(tiny(), restart=restart)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
        holder.kill()
    assert (tmp_path / "run" / LOCK).exists()
    run = mmfuse.train(tiny("training.max_steps=1"))
    assert not (run.dir / LOCK).exists()


class Odd(BaseException):
    """Of no family that anyone catches."""


@pytest.mark.parametrize("error", [ValueError("raw"), KeyboardInterrupt(), Odd()])
@pytest.mark.parametrize("place", ["set_up", "construction", "first step"])
def test_whatever_ends_a_run_before_its_first_step_its_folder_is_free(tiny, monkeypatch, error, place):
    def fail(*_, **__):
        raise error

    owner, name = {
        "set_up": (prepare, "load_table"),
        "construction": (Trainer, "__init__"),
        "first step": (Trainer, "step"),
    }[place]
    config = tiny("training.trackers=[tensorboard]")
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, fail)
        with pytest.raises(type(error)) as ended:
            mmfuse.train(config)
    if isinstance(error, KeyboardInterrupt):
        assert str(ended.value) == "stopped before the first step; nothing is kept"
    assert not config.run_dir.exists()


def test_an_empty_folder_of_the_users_stays(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(mmfuse.MmfuseError):
        mmfuse.train(tiny("data.tasks=[nope]"))
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_that_is_stopped_says_what_is_kept_and_goes_on(tiny, monkeypatch):
    step = Trainer.step

    def stopping(self, batches):
        if self.state.step == 3:
            raise KeyboardInterrupt
        return step(self, batches)

    config = tiny("training.max_steps=5", "training.checkpoint_every=2")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", stopping)
        with pytest.raises(Stopped) as stopped:
            mmfuse.train(config)
    assert str(stopped.value) == "stopped at step 3; the checkpoint of step 2 is kept; the same command resumes"
    with pytest.raises(mmfuse.MmfuseError, match="holds a run with another config"):
        mmfuse.train(tiny("training.max_steps=4"))
    assert mmfuse.train(config).steps == 5


def test_a_first_step_without_a_checkpoint_is_a_run(tmp_path):
    assert tell_kept(tmp_path) == "stopped before the first step; nothing is kept"
    (tmp_path / "metrics.jsonl").touch()
    assert not has_begun(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    assert has_begun(tmp_path)
    assert tell_kept(tmp_path, 7) == "stopped at step 7; no checkpoint was due yet, and the same command begins again"


def test_what_a_run_left_that_was_killed_before_its_first_step_is_no_run(tiny):
    killed, mended = tiny("training.max_steps=2"), tiny("training.max_steps=1")
    killed.run_dir.mkdir()
    (killed.run_dir / "config.yaml").write_text(yaml.safe_dump(config_to_dict(killed)))
    for name in ("manifest.yaml", "splits.csv", "environment.json", LOCK):
        (killed.run_dir / name).touch()
    assert mmfuse.train(mended).steps == 1


@pytest.mark.parametrize("config", [{"name": "mine"}, None])
def test_a_config_beside_other_files_of_the_users_is_no_left_over(tiny, config):
    """Nor is a `config.yaml` that he wrote, with nothing beside it."""
    own = tiny().run_dir
    own.mkdir()
    (own / "config.yaml").write_text(yaml.safe_dump(config or config_to_dict(tiny("seed=7"))))
    if config is None:
        (own / "rows.csv").write_text("mine")
    said = "not empty, and not a run" if config else "holds a run with another config"
    with pytest.raises(mmfuse.MmfuseError, match=said):
        mmfuse.train(tiny())
    assert len(list(own.iterdir())) == (1 if config else 2)


def test_restart_throws_nothing_away_before_the_new_run_begins(tiny, tmp_path, monkeypatch):
    """Nor where the set-up is killed, nor in a folder that has a `config.yaml` but is no run."""
    old, new = tiny("seed=7"), tiny()
    alone: Any = SimpleNamespace(is_main_process=True, num_processes=1)
    folder = old.run_dir

    def files():
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    with claimed(folder, old, False, alone) as begin:
        begin()
        (folder / "checkpoints").mkdir()
        for name in ("environment.json", "metrics.jsonl", "checkpoints/best"):
            (folder / name).write_text("{}")
    before = files()
    with suppress(Odd), claimed(folder, new, True, alone):
        (folder / "environment.json").write_text("of the new one")
        raise Odd
    assert files() == before
    with monkeypatch.context() as killed, suppress(Odd), claimed(folder, new, True, alone):
        killed.setattr("mmfuse.training.claim.put_back", lambda *_: None)
        raise Odd
    assert files().keys().isdisjoint(before)
    with claimed(folder, old, False, alone):
        assert {name: files()[name] for name in before} == before
    with claimed(folder, new, True, alone) as begin:
        begin()
    assert list(files()) == ["config.yaml"]

    own = tmp_path / "project"
    own.mkdir()
    for name in ("config.yaml", "thesis.docx"):
        (own / name).write_text("name: mine")
    with pytest.raises(mmfuse.MmfuseError, match="not empty, and not a run"), claimed(own, new, True, alone):
        pass
    assert len(list(own.iterdir())) == 2


def test_restart_throws_away_a_run_whose_config_is_damaged(tiny):
    """As the refusal says."""
    config = tiny()
    alone: Any = SimpleNamespace(is_main_process=True, num_processes=1)
    config.run_dir.mkdir()
    for name in ("config.yaml", "metrics.jsonl", "environment.json"):
        (config.run_dir / name).write_text("a: [\n")
    with pytest.raises(mmfuse.MmfuseError, match=r"damaged.*--restart"), claimed(config.run_dir, config, False, alone):
        pass
    with claimed(config.run_dir, config, True, alone) as begin:
        begin()
    assert [path.name for path in config.run_dir.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_that_comes_while_an_object_is_deleted_is_not_lost(number, request):
    """Python only prints what is raised there; a second SIGTERM changes nothing."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    class Slow:
        def __del__(self):
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    with sigterm_interrupts() as came:
        thing, interrupted = Slow(), 0
        try:
            del thing
            time.sleep(5)
        except KeyboardInterrupt:
            interrupted += 1
        if came:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    assert interrupted == 1
    assert set(came) == ({signal.SIGTERM} if number == signal.SIGTERM else set())


def test_sigterm_is_told_with_what_is_kept(mmfuse, tiny, tmp_path, monkeypatch):
    step = Trainer.step

    def stopping(self, batches):
        if self.state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batches)

    monkeypatch.setattr(Trainer, "step", stopping)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(config_to_dict(tiny("training.checkpoint_every=2"))))
    before = signal.getsignal(signal.SIGTERM)  # Ray leaves its own where it was used
    code, _, err = mmfuse("train", config)
    assert code == 143
    assert err.endswith("\nstopped at step 3; the checkpoint of step 2 is kept; the same command resumes\n")
    assert signal.getsignal(signal.SIGTERM) == before
    lock = FileLock(tmp_path / "run" / LOCK)
    lock.acquire(blocking=False)
    lock.release()
