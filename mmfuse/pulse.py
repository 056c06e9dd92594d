"""What a command is at, told once in half a minute where no terminal shows it.

Whoever does something long says so by `now`, from any layer; that costs next to nothing and prints nothing. Only where
`beating` is entered, a thread prints it whenever nothing else was said for `SECONDS`: so a phase that counts nothing,
or hangs in a library, is told too. Before the first `now` nothing is: a command that is refused says why in one line.
"""

from __future__ import annotations

import io
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
SECONDS = 30.0
"""Of silence at most, about which there is a look every `LOOK` seconds."""
LOOK = 1.0


class Pulse:
    """What is being done, and when that was last said.

    Args:
        write: Prints a line.
        clock: Seconds.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self.write, self.clock = write, clock
        self.begin("")
        self.rest()

    def begin(self, what: str) -> None:
        """Something that has no number yet."""
        self.what, self.done, self.total, self.note = what, 0, 0, ""
        self.since = self.spoke = self.clock()
        self.first = 0

    def now(self, what: str, done: int = 0, total: int = 0, note: str = "") -> None:
        """What is being done, how far that is, of how much (0: not known), and a word on it."""
        if what != self.what or done < self.done:
            spoke = min(self.spoke, self.clock())
            self.begin(what)
            self.spoke, self.first = spoke, done
        self.done, self.total, self.note = done, total, note

    def said(self) -> None:
        """Something else was printed, such as a line of the training."""
        self.spoke = self.clock()

    def rest(self) -> None:
        """Say nothing until something new is done: whoever waits for others may wait for days."""
        self.spoke = math.inf

    def beat(self) -> None:
        """Print where we are, if nothing was said for long."""
        if self.clock() - self.spoke >= SECONDS:
            self.write(self.line())
            self.said()

    def line(self) -> str:
        """Where we are."""
        taken = self.clock() - self.since
        if not self.total:
            return f"{self.what}: {taken:.0f} s"
        rate = (self.done - self.first) / max(taken, 1e-9)
        far = f"{rate:.3g}/s, about {(self.total - self.done) / rate:.0f} s left" if rate > 0 else f"{taken:.0f} s"
        return ", ".join(filter(None, (f"{self.what}: {self.done}/{self.total}", far, self.note)))


def _write(line: str) -> None:
    """To standard error, past Python's buffer and its lock, which a process that is forked now would inherit."""
    try:
        os.write(sys.stderr.fileno(), f"{line}\n".encode(errors="backslashreplace"))
    except (io.UnsupportedOperation, AttributeError):  # it is replaced, or closed
        print(line, file=sys.stderr, flush=True)


_PULSE = Pulse(_write)
now, said, rest = _PULSE.now, _PULSE.said, _PULSE.rest


def counted(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, telling how many there were."""
    for done, item in enumerate(items):
        now(what, done, total)
        yield item


@contextmanager
def beating() -> Iterator[None]:
    """Tell what is being done on standard error, where that is no terminal, until the block ends.

    Of the processes of a launch the first one does.
    """
    if sys.stderr is None or sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        yield
        return
    ended = threading.Event()
    _PULSE.rest()

    def beat() -> None:
        while not ended.wait(LOOK):
            _PULSE.beat()

    threading.Thread(target=beat, daemon=True, name="pulse").start()
    try:
        yield
    finally:
        ended.set()
