"""How a command ends early: SIGTERM as Ctrl-C does, and of several processes one says why."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmfuse.cli.shared import INTERRUPTED, TERMINATED
from mmfuse.types import Stopped


class Terminated(KeyboardInterrupt):
    """SIGTERM has come; whoever waits for Ctrl-C ends as for that."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises `Terminated` in the main thread, once; processes that are forked go by the system's rules."""
    if threading.current_thread() is not threading.main_thread():  # who alone may say what a signal does
        yield
        return
    owner = os.getpid()

    def stop(number: int, _: Any) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        signal.signal(number, signal.SIG_IGN)  # what ends the run must not be cut off by a second one
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tell_stop(leaving: SystemExit) -> tuple[int, str]:
    """The exit code of a command that was stopped, and what it keeps, in one line."""
    code, words = INTERRUPTED, "interrupted; the same command goes on from the last checkpoint or chunk"
    error: BaseException | None = leaving
    while error is not None:  # Typer turns a KeyboardInterrupt into its own
        if isinstance(error, Stopped):
            words = str(error)
        if isinstance(error, Terminated):
            code = TERMINATED
        error = error.__cause__ or error.__context__
    return code, words


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


def lost_another(error: BaseException) -> bool:
    """Whether an error is that another process of this launch went away."""
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        sign in words for sign in ("connection closed", "connection reset", "connection refused", "broken pipe", "nccl")
    )
