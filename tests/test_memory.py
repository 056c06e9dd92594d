"""`mmfuse.memory`, in processes of their own: what it sets holds for a process and cannot be taken back."""

import ctypes
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from mmfuse.cli import app
from mmfuse.memory import VARIABLE, give_back, give_back_if_scarce, keep_memory
from mmfuse.types import MmfuseError

GLIBC = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})
pytestmark = pytest.mark.skipif(not GLIBC, reason="settings of glibc")
BLOCK = 64 * 2**20
PAGE = os.sysconf("SC_PAGE_SIZE")
PROBE = f"""
import ctypes, json, resource, sys
{{first}}
from mmfuse import memory
kept = {{call}}
C = ctypes.CDLL(None)
C.malloc.restype, C.malloc.argtypes, C.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def block(size={BLOCK}):
    p = C.malloc(size)
    ctypes.memset(p, 1, size)
    C.free(p)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def resident():
    return int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1]) * 1024
block()
before = faults()
for _ in range(5): block()
again, held = faults() - before, resident()
{{then}}
print(json.dumps(dict(kept=kept, faults=again, given=held - resident())))
"""


def probe(
    first: str = "", call: str = "memory.keep_memory()", then: str = "memory.give_back()", **environment: str
) -> dict:
    """What five blocks of 64 MiB cost after a first one, and what of them is given back."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", "MMFUSE_KEEP"))}
    code = PROBE.format(first=first, call=call, then=then)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean | environment, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("first", ["", "import torch"], ids=["before", "after torch"])
def test_what_is_freed_is_kept_and_given_back_when_asked(first):
    found = probe(first)
    assert found["kept"]
    assert found["faults"] < 100
    assert found["given"] > BLOCK * 0.9


@pytest.mark.parametrize(
    "environment",
    [
        {VARIABLE: "0"},
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=512:glibc.malloc.mmap_threshold=131072"},
    ],
    ids=lambda e: next(iter(e)),
)
def test_the_users_settings_are_left_alone(environment):
    found = probe(**environment)
    assert not found["kept"]
    assert found["faults"] > BLOCK // PAGE


def test_settings_that_say_nothing_of_what_is_kept_do_not_hinder():
    assert probe(MALLOC_ARENA_MAX="2", GLIBC_TUNABLES="glibc.malloc.tcache_count=3")["kept"]


def test_another_malloc_is_left_alone(monkeypatch):
    other = SimpleNamespace(malloc=ctypes.CDLL(None).calloc)  # as where jemalloc is loaded before
    real = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda name: other if name is None else real(name))
    assert not keep_memory()


def test_off_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(os, "confstr_names", {})
    assert not keep_memory()
    give_back_if_scarce()
    give_back()


def test_importing_mmfuse_changes_nothing():
    assert probe("import mmfuse, mmfuse.cli, mmfuse.memory", call="False")["faults"] > BLOCK // PAGE


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "explain", "compare", "benchmark", "config"])
def test_the_commands_that_compute_keep_it(command, monkeypatch):
    called = []
    monkeypatch.setattr("mmfuse.cli.keep_memory", lambda: called.append(command))
    CliRunner().invoke(app, [command, "--no-such-option"])
    assert bool(called) == (command != "config")


def test_a_reader_keeps_less():
    large = "block({}); block({})".replace("{}", str(300 * 2**20))
    assert probe(then=large)["given"] < -BLOCK  # kept
    assert probe(call="memory.keep_memory(reader=True)", then=large)["given"] > -BLOCK


def test_it_is_given_back_where_little_is_available():
    assert probe(then="memory.give_back_if_scarce()")["given"] < BLOCK / 2
    scarce = "memory.available = lambda: 2**20; memory.give_back_if_scarce()"
    assert probe(then=scarce)["given"] > BLOCK * 0.9


def test_other_values_are_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "yes")
    with pytest.raises(MmfuseError, match="MMFUSE_KEEP_MEMORY: 'yes' is not legal; legal: 0, 1"):
        keep_memory()


def test_the_bound_is_the_containers_where_that_is_less(tmp_path, monkeypatch):
    import mmfuse.memory as memory

    limit, usage = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "_CGROUP", ((str(limit), str(usage)), ("/nowhere", "/nowhere")))
    machine = memory._total()
    limit.write_text("max\n")
    usage.write_text("900\n")
    assert memory._total() == machine
    limit.write_text("1000\n")
    assert (memory._total(), memory.available()) == (1000, 100)
