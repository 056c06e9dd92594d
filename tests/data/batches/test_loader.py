"""Processes that prepare batches."""

import sys

import torch

from mmfuse import registry
from mmfuse.data.batches.loader import make_loader
from mmfuse.registry import load_plugin
from mmfuse.tasks import TASKS

PLUGIN = """
from mmfuse.tasks import TASKS, TaskKind

@TASKS.register("planted_kind")
class Planted(TaskKind):
    pass
"""


def test_a_worker_that_begins_without_plugins_loads_them(tmp_path, monkeypatch):
    """Where processes are spawned, not forked, one that reads shards must know the kinds of their targets."""
    monkeypatch.setattr(registry, "_PLUGINS", [])
    monkeypatch.setattr(TASKS, "_classes", dict(TASKS._classes))
    (tmp_path / "planted.py").write_text(PLUGIN)
    load_plugin(tmp_path / "planted.py")
    begin = make_loader([0], [[0]], 1).worker_init_fn
    del TASKS._classes["planted_kind"], sys.modules["mmfuse_plugin_planted"]  # as in a new process
    threads = torch.get_num_threads()
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    begin(0)
    torch.set_num_threads(threads)
    assert "planted_kind" in TASKS.names()
    sys.modules.pop("mmfuse_plugin_planted")


def test_without_workers_there_is_nothing_to_begin():
    assert make_loader([0], [[0]], 0).worker_init_fn is None
