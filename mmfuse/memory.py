"""Freed memory that is kept for the next step, in place of page faults: settings of glibc's malloc.

By default glibc returns every large block to the system when it is freed, and a step of training gets its activations
as new pages, each a fault. `keep_memory` is called by the commands that compute, by training, and in the processes that
read for it; importing mmfuse changes nothing. `MMFUSE_KEEP_MEMORY=0` turns it off for all of them.
Source: mallopt(3), malloc_trim(3).
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmfuse.types import MmfuseError

if TYPE_CHECKING:
    import torch

VARIABLE = "MMFUSE_KEEP_MEMORY"
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_LARGEST = 2**31 - 1
"""What mallopt takes is an int."""
_OF_READER = 256 * 2**20
_PAD = 64 * 2**20
_OWN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
_TUNED = re.compile(r"glibc\.malloc\.(mmap_max|mmap_threshold|trim_threshold|top_pad|hugetlb)")
_CGROUP = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
_kept = False


def keep_memory(*, reader: bool = False) -> bool:
    """Have this process keep what it frees, at most an eighth of the machine's memory or 2 GiB at the heap's end.

    What lies free between blocks in use has no bound here: see `give_back_if_scarce`. Nothing is changed off glibc,
    under another malloc such as jemalloc, and where the environment sets such things itself (`MALLOC_TRIM_THRESHOLD_`,
    `GLIBC_TUNABLES`, ...).

    Args:
        reader: A process that only prepares batches keeps 256 MiB at the heap's end at most.

    Returns:
        Whether it does now.

    Raises:
        MmfuseError: `MMFUSE_KEEP_MEMORY` is neither 0 nor 1.
    """
    global _kept
    asked = os.environ.get(VARIABLE, "1")
    if asked not in ("0", "1"):
        raise MmfuseError(f"{VARIABLE}: {asked!r} is not legal; legal: 0, 1")
    library = None if asked == "0" or _set_by_user() else _glibc()
    if library is None:
        return False
    end = min(_LARGEST, _total() // 8, _OF_READER if reader else _LARGEST)
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, end), (_TOP_PAD, _PAD))
    _kept = all(library.mallopt(what, value) for what, value in settings)
    return _kept


def give_back() -> None:
    """Return to the system what is free; what is freed from now on is kept again."""
    library = _glibc() if _kept else None
    if library is not None:
        library.malloc_trim(0)


def give_back_if_scarce() -> None:
    """`give_back` where more is kept free than is available otherwise on this machine, or to this container."""
    library = _glibc() if _kept else None
    if library is None or not hasattr(library, "mallinfo2"):  # glibc 2.33
        return
    library.mallinfo2.restype = _Sizes
    if library.mallinfo2().fordblks > available():
        library.malloc_trim(0)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has had at once: of the device if that is a GPU, else resident."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def available() -> int:
    """Bytes that this process could still get before the machine or its container has none left."""
    found = [_meminfo("MemAvailable")]
    for limit, usage in _CGROUP:
        most, used = _number(limit), _number(usage)
        if most is not None and used is not None:
            found.append(max(0, most - used))
    return min(found)


def _total() -> int:
    return min(n for n in (_meminfo("MemTotal"), *(_number(limit) for limit, _ in _CGROUP)) if n is not None)


def _meminfo(name: str) -> int:
    found = re.search(rf"^{name}: +(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else sys.maxsize


def _number(path: str) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # no such cgroup, or no /proc
        return ""


def _set_by_user() -> bool:
    return any(name in os.environ for name in _OWN) or bool(_TUNED.search(os.environ.get("GLIBC_TUNABLES", "")))


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc and its malloc is this process's."""
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return None
    process, library = ctypes.CDLL(None), ctypes.CDLL("libc.so.6")
    one, other = (ctypes.cast(where.malloc, ctypes.c_void_p).value for where in (process, library))
    return library if one == other else None


class _Sizes(ctypes.Structure):
    """`struct mallinfo2`."""

    _fields_ = [*((f"_{i}", ctypes.c_size_t) for i in range(8)), ("fordblks", ctypes.c_size_t), ("_9", ctypes.c_size_t)]
