import os
import subprocess
import sys

import child_processes
import pytest
from child_processes import abort, free_port, run_child, wait_until

FAMILY = """
import subprocess, sys, time
def outer_waits():
    child.wait()
def inner_waits():
    print("ready", flush=True)
    time.sleep(1000)
if sys.argv[1:]:
    inner_waits()
child = subprocess.Popen([sys.executable, sys.argv[0], "inner"])
outer_waits()
"""


def test_a_process_that_hangs_is_ended_with_all_below_it_and_they_tell_where(tmp_path):
    (tmp_path / "family.py").write_text(FAMILY)
    pipe, environment = subprocess.PIPE, {**os.environ, "PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, tmp_path / "family.py"]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as running:
        assert running.stdout
        assert running.stdout.readline() == "ready\n"
        told = abort(running)
    assert "in inner_waits" in told
    assert "in outer_waits" in told


def test_its_hang_fails_the_test(monkeypatch):
    monkeypatch.setattr(child_processes, "HANG", 0.1)
    with pytest.raises(pytest.fail.Exception, match="hangs:"):
        run_child([sys.executable, "-c", "import time; time.sleep(1000)"])
    with pytest.raises(AssertionError, match="without rain"):
        wait_until(lambda: False, "rain")


def test_ports_differ():
    assert len({free_port() for _ in range(50)}) == 50
