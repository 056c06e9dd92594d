"""Work on one folder of features, shared by all processes that wait for it; they agree through files alone.

Whoever has the folder's lock leads: it writes a job, `job-*/` with the items in the order of their computation. All who
wait for the lock, and will ask for the same items, help: each takes part after part, by a file that only one of
them can create. So there is no limit of time as in a collective operation, and no process need know of another.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

Compute = Callable[["Job"], None]


def job_name(keys: Sequence[str], tokens: bool, part: int) -> str:
    """What two processes must have in common to share a job: their items, their parts, and their user."""
    digest = hashlib.sha256(f"{tokens} {part} {os.getuid() if hasattr(os, 'getuid') else ''}".encode())
    for key in keys:
        digest.update(hashlib.sha256(key.encode()).digest())
    return digest.hexdigest()[:32]


class Job:
    """Items to compute.

    Args:
        folder: Its own.
        items: In the order of their computation.
        part: How many of them are taken at once.
    """

    def __init__(self, folder: Path, items: NDArray[np.int64], part: int):
        self.folder, self.items, self.part = folder, items, part
        self._place = {int(item): i for i, item in enumerate(items)}

    def done_with(self, items: Sequence[int]) -> int:
        """About how many are computed when these are, by all processes together: parts are taken in their order."""
        return max(self._place[item] for item in items) + 1

    def claimed(self) -> Iterator[int]:
        """The items of one part after the other that no other process has taken, each taken when it is asked for."""
        for start in range(0, len(self.items), self.part):
            if (self.folder / "ended").exists() or not (self.folder / "items").exists():
                return
            try:
                (self.folder / f"part-{start}").touch(exist_ok=False)
            except FileExistsError:
                continue
            except FileNotFoundError:  # it has ended, and was removed
                return
            yield from self.items[start : start + self.part].tolist()


def lead(folder: Path, name: str, items: Sequence[int], part: int, compute: Compute) -> None:
    """Compute items with the help of others; then no helper writes any more. The caller has the folder's lock.

    Args:
        folder: Of the features.
        name: What `job_name` says.
        items: In the order of their computation.
        part: How many of them are taken at once.
        compute: Computes the items that it claims.
    """
    scratch = folder / f"building-{uuid.uuid4().hex[:16]}"
    scratch.mkdir()
    order = np.array(items, dtype=np.int64)
    with (scratch / "items").open("wb") as handle:
        np.save(handle, order)
    own = folder / f"job-{name}-{uuid.uuid4().hex[:16]}"
    scratch.rename(own)
    try:
        compute(Job(own, order, part))
    except BaseException:
        (own / "ended").touch()  # helpers see to what they have begun
        if not list(own.glob("helper-*")):
            remove_job(own)
        raise
    end_jobs(folder)


def end_jobs(folder: Path) -> None:
    """Let nobody begin a part any more, wait for those who are at one, and clear up: also after a leader that died."""
    for own in folder.glob("job-*"):
        (own / "ended").touch()
        for helper in own.glob("helper-*"):
            with FileLock(helper):  # is free when it is done, or dead
                pass
        remove_job(own)


def remove_job(own: Path) -> None:
    """Take the whole folder away at once: who comes late must not find a job without the mark that it has ended."""
    gone = own.with_name(f"building-{own.name}")
    own.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def help_others(folder: Path, name: str, part: int, compute: Compute, helped: set[str]) -> bool:
    """Help with a job that is under way.

    Args:
        folder: Of the features.
        name: What `job_name` says.
        part: How many items are taken at once.
        compute: Computes the items that it claims.
        helped: Jobs of which nothing was left; one more is noted.

    Returns:
        Whether there was one.
    """
    for own in folder.glob(f"job-{name}-*"):
        if own.name in helped:
            continue
        helped.add(own.name)
        with contextlib.ExitStack() as stack:
            try:
                items = np.load(stack.enter_context((own / "items").open("rb")))
                stack.enter_context(FileLock(own / f"helper-{uuid.uuid4().hex[:16]}"))
            except FileNotFoundError:  # it has ended meanwhile
                continue
            compute(Job(own, items, part))
        if not (own / "items").exists():  # it had ended, and the lock's file made its folder anew
            shutil.rmtree(own, ignore_errors=True)
        return True
    return False
