"""Processes that prepare batches."""

import os
import signal
import sys
import weakref

import pytest
import torch
from torch.utils.data import Dataset

from mmfuse import registry
from mmfuse.data.batches.loader import PLAIN, Feed, make_loader
from mmfuse.predict import default_workers
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


class Counting(Dataset):
    """Rows to what they are, of which epoch, and who has read them; row 13 ends its process."""

    def __init__(self, epoch=PLAIN):
        self.epoch = epoch

    def at(self, epoch):
        return Counting(epoch)

    def plain(self):
        return Counting()

    def __getitem__(self, rows):
        if 13 in rows:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"rows": torch.tensor(rows), "epoch": self.epoch, "process": os.getpid()}


PASSES = [(4, [[1, 2], [3], [4]]), (PLAIN, [[9]]), (5, [[2], [1], [0, 7]]), (PLAIN, [[9]])]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_feed_gives_what_was_announced_by_the_same_processes(num_workers):
    """Each pass begins with the first process, so that one has the same lanes of a stream all along."""
    firsts, used = [], set()
    with Feed(Counting(), Counting(), PASSES, num_workers) as feed:
        for epoch, batches in PASSES:
            found = list(feed.take(epoch, len(batches)))
            assert [(batch["epoch"], batch["rows"].tolist()) for batch in found] == [(epoch, rows) for rows in batches]
            firsts.append(found[0]["process"])
            used |= {batch["process"] for batch in found}
    assert len(used) == max(1, num_workers)
    assert len(set(firsts)) == 1


def test_a_feed_reads_what_comes_next_ahead():
    begun = []

    def coming():
        for epoch, batches in PASSES:
            begun.append(epoch)
            yield epoch, batches

    with Feed(Counting(), Counting(), coming(), 1) as feed:
        next(feed.take(4, 3))
        assert begun[:2] == [4, PLAIN]


def test_a_feed_holds_the_rows_of_one_pass(monkeypatch):
    """Encoded images among them: workers live as long as the run."""
    held, most = weakref.WeakSet(), []

    def begin(self, epoch=PLAIN):
        self.epoch = epoch
        held.add(self)
        most.append(len(held))

    monkeypatch.setattr(Counting, "__init__", begin)
    rows = Counting()
    with Feed(rows, rows, PASSES, 0) as feed:
        for epoch, batches in PASSES:
            list(feed.take(epoch, len(batches)))
    assert most == [1, 2, 2, 2, 2]


def test_a_feed_refuses_what_was_not_announced_next():
    with Feed(Counting(), Counting(), PASSES, 0) as feed:
        list(feed.take(4, 3))
        with pytest.raises(RuntimeError, match="a batch of epoch 5 was asked for, and one of epoch -1 is next"):
            next(feed.take(5, 3))


def test_the_processes_of_a_feed_end_with_it_and_one_that_dies_is_told():
    with (
        Feed(Counting(), Counting(), [(0, [[13]])], 1) as feed,
        pytest.raises(RuntimeError, match=r"DataLoader worker .*(killed by signal|exited unexpectedly)"),
    ):
        next(feed.take(0, 1))
    with Feed(Counting(), Counting(), [(0, [[1]] * 9)], 1) as feed:
        process = next(feed.take(0, 9))["process"]
        os.kill(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_memory_is_pinned_for_a_card_alone(monkeypatch):
    """Also where there is a card, and the launch keeps to the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not make_loader([0], [[0]], 0, torch.device("cpu")).pin_memory
    assert make_loader([0], [[0]], 0, torch.device("cuda", 1)).pin_memory


@pytest.mark.parametrize(("cores", "here", "expected"), [(1, "", 0), (16, "", 15), (16, "2", 7), (256, "1", 32)])
def test_processes_of_a_launch_share_the_cores(monkeypatch, cores, here, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    assert default_workers() == expected
