"""Plug-ins of docs/extend.md in training: whole, killed and resumed, by one process and by two.

    plugin = plugin_of("An objective", tmp_path)
    assert_works(tiny_run(tmp_path, plugin, training={"objectives": ["sparse"]}), "sparse", "objectives")

All runs of a call are forks of one process, which imports the libraries once; so each is a process of its own, whose
plug-ins no other test sees, and which a SIGKILL ends.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from child_processes import free_port, run_child
from safetensors.torch import load_file

PAGE = Path(__file__).parents[1] / "docs" / "extend.md"
STUDIES = 56
"""38 of them for training: five batches of 8 an epoch, the last one of 6, so that each of two processes has a share."""
STEPS, KEPT_AT, KILLED_AT = 7, 3, 4
"""Of a run: all, those after which a checkpoint is due, and those after which it is killed, in its first epoch."""
_BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


class Command(NamedTuple):
    """A command line of mmfuse.

    Attributes:
        words: Behind `mmfuse`.
        processes: That run it together, on CPU cores.
        killed_at: The training step (from 0) in whose place a SIGKILL ends it.
    """

    words: Sequence[str]
    processes: int = 1
    killed_at: int | None = None


def plugin_of(section: str, folder: Path, block: int = 0) -> Path:
    """Write a Python block of a section of docs/extend.md, a whole plug-in, to a file of a folder."""
    page = PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    path = folder / f"{section.lower().replace(' ', '_')}_plugin.py"
    path.write_text(re.findall(r"```python\n(.*?)```", found, re.DOTALL)[block])
    return path


def tiny_run(folder: Path, plugin: Path, manifest: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A run of seconds with a plug-in: BERT and ViT of one layer on SYNTHETIC studies, without dropout.

    Args:
        folder: For its data and runs.
        plugin: The file.
        manifest: Keys of the phantom's manifest that are other ones.
        changes: Keys of the config; mappings without a name are merged with those that are there.
    """
    from mmfuse.data.synthetic.phantom import write_phantom

    path = folder / "phantom" / "manifest.yaml"
    if not path.exists():
        write_phantom(path.parent, STUDIES, seed=0)
    if manifest:
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **manifest}))
    training = {"epochs": 2, "batch_size": 8, "learning_rate": 0.003, "trackers": [], "patience": None}
    values: dict[str, Any] = {
        "name": "tiny",
        "output_dir": str(folder / "run"),
        "plugins": [str(plugin)],
        "data": {"manifest": str(path), "num_workers": 0},
        "text_encoder": {"name": "bert", "pretrained": False, "options": _BERT | _NO_DROPOUT, "max_length": 48},
        "image_encoder": {
            "name": "vit_tiny_patch16_224",
            "pretrained": False,
            "size": [32, 32],
            "options": {"depth": 1, "embed_dim": 16, "num_heads": 2},
        },
        "fusion": {"name": "concat", "out_dim": 16, "dropout": 0.0},
        "training": training | {"max_steps": STEPS, "checkpoint_every": KEPT_AT},
    }
    for key, value in changes.items():
        merged = isinstance(value, dict) and key in values and "name" not in value
        values[key] = {**values[key], **value} if merged else value
    return values


def assert_works(values: dict[str, Any], name: str, kind: str) -> list[dict[str, Any]]:
    """A plug-in is found by its file, shown and conforms; a run with it is the same however it is run.

    Trained whole, killed and resumed (bit for bit the same), and by two processes (losses within 1e-5).

    Args:
        values: The config of the run; its first plug-in is the one.
        name: As which it is registered.
        kind: As in `mmfuse list KIND`.

    Returns:
        What `metrics.jsonl` of the whole run says of its steps; its folder is `output_dir`.
    """
    run, batch = Path(values["output_dir"]), values["training"]["batch_size"]
    assert batch % 2 == 0, "two processes share a batch"
    killed = {**values, "output_dir": f"{run}_killed"}
    two = {**values, "output_dir": f"{run}_two", "training": {**values["training"], "batch_size": batch // 2}}
    plugin = ("--plugin", values["plugins"][0])
    commands = [
        Command(["list", kind, *plugin]),
        Command(["check", name, "--kind", kind, *plugin]),
        Command(train_command(values)),
        Command(train_command(killed), killed_at=KILLED_AT),
        Command(train_command(killed)),
        Command(train_command(two), processes=2),
    ]
    printed = run_commands(commands, run.parent)
    assert re.search(rf"^{name}: ", printed, re.MULTILINE), f"it is not listed: {printed}"
    assert_same_run(run, Path(killed["output_dir"]))
    whole, shared = steps(run), steps(Path(two["output_dir"]))
    assert [line["samples"] for line in whole] == [line["samples"] for line in shared], "other rows by two processes"
    losses = [[line["loss"] for line in lines] for lines in (whole, shared)]
    assert np.allclose(*losses, rtol=1e-5, atol=0), f"another loss by two processes: {losses}"
    return whole


def assert_same_run(one: Path, other: Path) -> None:
    """Two run folders have the same losses and the same weights, to the last bit."""
    losses = [[line["loss"] for line in steps(run)] for run in (one, other)]
    assert losses[0] == losses[1], f"another loss when resumed: {losses}"
    first, second = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    differ = [name for name in first if name not in second or not torch.equal(first[name], second[name])]
    assert not differ, f"other weights when resumed: {differ}"
    assert first.keys() == second.keys()


def steps(run: Path) -> list[dict[str, Any]]:
    """What `metrics.jsonl` says of a run's steps."""
    return [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in line]


def train_command(values: dict[str, Any]) -> list[str]:
    """Write a config beside its run's folder; the words that train it."""
    path = Path(f"{values['output_dir']}.yaml")
    path.write_text(yaml.safe_dump(values))
    return ["train", str(path)]


def run_commands(commands: Sequence[Command], folder: Path) -> str:
    """Run command lines one after the other, each of which must end well (or be killed); what they print."""
    asked = [(*command, free_port()) for command in commands]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "ACCELERATE_USE_CPU": "true"}
    done = run_child([sys.executable, str(Path(__file__)), json.dumps(asked)], folder, environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def _main(asked: str) -> None:
    for name in ("mmfuse.cli", "mmfuse.testing", "mmfuse.training.run", "sklearn.metrics", "matplotlib.pyplot"):
        importlib.import_module(name)  # before the forks: it is most of the time
    gc.freeze()  # or each fork's collections copy it all
    for words, processes, killed_at, port in json.loads(asked):
        children = [_fork(words, rank, processes, killed_at, port) for rank in range(processes)]
        ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        expected = 0 if killed_at is None else -signal.SIGKILL
        if ended != [expected] * processes:
            sys.exit(f"mmfuse {' '.join(words)}: exit codes {ended}")


def _fork(words: list[str], rank: int, processes: int, killed_at: int | None, port: int) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    if processes > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
    from mmfuse import cli
    from mmfuse.training import loop

    step = loop.Trainer.step

    def killed(self: Any, batches: Any) -> Any:
        if self.state.step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batches)

    loop.Trainer.step = killed
    sys.argv = ["mmfuse", *words]
    cli.main()
    raise AssertionError("unreachable")


if __name__ == "__main__":
    _main(sys.argv[1])
