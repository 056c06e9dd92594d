"""Processes that tests start. A limit is there to catch a hang alone; then the stacks of all that hang are told."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

HANG = 600
"""Seconds after which it is taken to hang, on any machine; `timeout` in pyproject.toml is longer."""
_PORTS = itertools.count(os.getpid() * 31)


def free_port() -> int:
    """A free port that no system gives out by itself: nobody takes it between now and its use."""
    for number in _PORTS:
        port = 20_000 + number % 12_000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable")


def run_child(
    command: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever its exit code; one that hangs fails the test, with all its stacks."""
    pipe, environment = subprocess.PIPE, {**(os.environ if env is None else env), "PYTHONFAULTHANDLER": "1"}
    with subprocess.Popen(command, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, encoding="utf-8") as running:
        try:
            printed, complaint = running.communicate(timeout=HANG)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{list(command)} hangs:\n{abort(running)}")
    return subprocess.CompletedProcess(command, running.returncode, printed, complaint)


def abort(running: subprocess.Popen[str]) -> str:
    """End a process and all below it; what it complained, with their stacks where PYTHONFAULTHANDLER was set."""
    family = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
    # Stopped first: who waits for another, or watches it, would go on when that ends, and tell of something else.
    for number in (signal.SIGSTOP, signal.SIGABRT, signal.SIGCONT, signal.SIGKILL):
        if number == signal.SIGKILL:
            psutil.wait_procs(family, timeout=30)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
    return running.communicate()[1]


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + HANG
    while not true():
        assert time.monotonic() < end, f"{HANG} s without {what}"
        time.sleep(0.02)
