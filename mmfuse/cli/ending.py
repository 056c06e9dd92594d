"""How a command ends early: SIGTERM as Ctrl-C does, and of several processes one says why."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmfuse.types import Stopped

_AGAIN = 0.05
"""Seconds after which a lost interrupt is raised again: past whatever lost it."""


@contextmanager
def sigterm_interrupts() -> Iterator[list[int]]:
    """SIGTERM raises KeyboardInterrupt in the main thread, once, and is noted in the list that this gives.

    Who waits for Ctrl-C ends as for that. Processes that are forked end as they would without this. An interrupt that
    Python loses, as it comes while an object is deleted, is raised again.
    """
    came: list[int] = []
    lost = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # who alone may say what a signal does
        yield came
        return
    owner = os.getpid()

    def stop(number: int, _: Any) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if came and not lost.is_set():  # what ends the run must not be cut off by a second one
            return
        lost.clear()
        came.append(number)
        raise KeyboardInterrupt

    def raise_again(caught: Any) -> None:
        if not isinstance(caught.exc_value, KeyboardInterrupt):
            told(caught)
            return
        lost.set()
        main, number = threading.main_thread().ident, signal.SIGTERM if came else signal.SIGINT
        again = threading.Timer(_AGAIN, signal.pthread_kill, (main, number))
        again.daemon = True
        again.start()

    before, told = signal.signal(signal.SIGTERM, stop), sys.unraisablehook
    sys.unraisablehook = raise_again
    try:
        yield came
    finally:
        sys.unraisablehook = told
        signal.signal(signal.SIGTERM, before)


def tell_kept(leaving: SystemExit) -> str:
    """What a command that was stopped keeps, in one line."""
    error: BaseException | None = leaving
    for _ in range(10):  # Typer turns a KeyboardInterrupt into an exit of its own
        if isinstance(error, Stopped):
            return str(error)
        error = error and (error.__cause__ or error.__context__)
    return "interrupted; the same command resumes from what is kept, or starts again"


def is_first_to_tell() -> bool:
    """Whether none of this launch's processes has said before how it ends; where there is one, it is.

    A failure of one ends all: the others find a connection closed, and are sent SIGTERM.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return True
    me = f"rank {torch.distributed.get_rank()}"
    try:
        store = torch.distributed.distributed_c10d._get_default_store()
        return store.compare_set("mmfuse/told", "", me).decode() == me
    except (RuntimeError, OSError):  # it was of a process that is gone, and has told
        return False
