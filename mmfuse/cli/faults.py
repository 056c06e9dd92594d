"""What the command line says of an exception that nobody expected: one line, and where its traceback is."""

from __future__ import annotations

import re
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple

from mmfuse.types import MmfuseError

USERS, BUG = 2, 1
"""Exit codes: what the user, a library or the machine must mend; what mmfuse must."""
_WORKERS = "\nOriginal Traceback (most recent call last):\n"
_OWN = str(Path(__file__).parents[1])
_GO_ON = "the same command resumes from what is kept, or starts again"
_KNOWN = {
    r"OutOfMemoryError|(CUDA|HIP|MPS).* out of memory|CUBLAS_STATUS_ALLOC_FAILED": (
        "the GPU's memory is full: lower training.batch_size (and raise training.accumulation), set "
        "training.gradient_checkpointing=true or training.mixed_precision=bf16; of predict and evaluate, lower "
        f"--batch-size; {_GO_ON}"
    ),
    r"DataLoader worker.*(Bus error|shared memory)|unable to (open|mmap|write|resize).*shm|torch_shm_manager": (
        "the shared memory of the processes that read images is full: give it more (docker run --shm-size=8g), or set "
        f"data.num_workers=0; {_GO_ON}"
    ),
    r"DataLoader worker.*(killed by signal|exited unexpectedly)": (
        "a process that reads images was killed, most often for want of memory: set data.num_workers lower, or 0; "
        f"{_GO_ON}"
    ),
    r"MemoryError|DefaultCPUAllocator|[Cc]annot allocate memory|bad_alloc": (
        "the memory is full: lower training.batch_size or --batch-size, data.num_workers, or data.shuffle_buffer; "
        f"{_GO_ON}"
    ),
    r"No space left on device|Disk quota exceeded|os error (28|122)\b": (
        f"{{said}}: the disk is full; with room, {_GO_ON}"
    ),
    r"Too many open files": f"{{said}}: raise ulimit -n, or lower data.num_workers; {_GO_ON}",
    r"Expected more than 1 (value per channel|spatial element) when training": (
        "a batch of a single image or row met a batch norm that needs two: set image_encoder.batch_norm=frozen, or "
        "another image_encoder.size or training.batch_size"
    ),
    r"Error\(s\) in loading state_dict": (
        "{said} a checkpoint or weights file is of another model, or of another version of a library; --restart throws "
        "a run away"
    ),
    r"^(Runtime|DistBackend|DistStore|DistNetwork)Error.*([Cc]onnection (closed|reset|refused)|[Bb]roken pipe|NCCL)": (
        f"another process of this launch ended or cannot be reached; it says why: {{said}}; {_GO_ON}"
    ),
    r"backend: .* is not a valid value": "MPLBACKEND: {said}",
    r"RecursionError": "something is nested too deeply: {said}",
    r"ModuleNotFoundError|ImportError": "{said}: it is not installed, or not whole",
}


class Told(NamedTuple):
    """A line, and the exit code that goes with it."""

    line: str
    code: int


def tell(error: Exception) -> Told:
    """What is printed of an exception.

    An error of the user, of the machine or of a library gives code 2. What else is raised in mmfuse itself is a bug of
    it: code 1. Where there is no way out to tell, the traceback is kept in a file.
    """
    if isinstance(error, MmfuseError):
        return Told(str(error), USERS)
    if isinstance(error, UnicodeError):
        return Told(_of_encoding(error), USERS)
    said = _said(error)
    for pattern, advice in _KNOWN.items():
        if re.search(pattern, f"{type(error).__name__}: {error}", re.DOTALL):
            return Told(advice.format(said=said), USERS)
    if isinstance(error, OSError):
        return Told(said, USERS)
    where, own = _origin(error)
    name = type(error).__name__
    what = said if said == name or said.startswith(f"{name}: ") else f"{name}: {said}"
    kept = _keep(error)
    if own:
        return Told(f"a bug of mmfuse at {where}: {what}; {kept}", BUG)
    return Told(f"{what} (at {where}); {kept}", USERS)


def _said(error: Exception) -> str:
    """An exception's first line of words; of one that a process of a DataLoader raised, a traceback, its last."""
    lines = [line.strip() for line in str(error).splitlines() if re.search(r"\w", line)] or [type(error).__name__]
    said = lines[-1 if _WORKERS in str(error) else 0][:400]
    return re.sub(r"^\[Errno \d+\] ", "", said)


def _of_encoding(error: UnicodeError) -> str:
    """Without what could not be encoded: it may be a report."""
    system = sys.getfilesystemencoding()
    if system.lower().replace("-", "") != "utf8":
        return (
            f"a name or text has characters outside {system}, which this system's locale asks for: set PYTHONUTF8=1, "
            "or a locale of UTF-8 such as LC_ALL=C.UTF-8"
        )
    why = f" ({error.reason})" if isinstance(error, UnicodeEncodeError | UnicodeDecodeError) else ""
    return f"a name or text is no {getattr(error, 'encoding', 'UTF-8')}{why}: rename the file, or correct the key"


def _origin(error: Exception) -> tuple[str, bool]:
    """Where it was raised, as far as mmfuse or a plug-in is concerned, and whether it is mmfuse's own doing."""
    frames = [(frame.filename, frame.lineno, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    if _WORKERS in str(error):
        frames = re.findall(r'File "(.+)", line (\d+), in (.+)', str(error))
    inner = frames[-1][0] if frames else ""
    ours = [frame for frame in frames if "site-packages" not in Path(frame[0]).parts or frame[0].startswith(_OWN)]
    place = (ours or frames or [("an unknown file", 0, "")])[-1]
    # What C code raises has the line that called it as its place; torch and tokenizers raise these two.
    of_library = type(error).__module__ != "builtins" or type(error) in (Exception, RuntimeError)
    return f"{Path(place[0]).name}:{place[1]}, {place[2]}", inner.startswith(_OWN) and not of_library


def _keep(error: Exception) -> str:
    """Write the traceback to a file; gives the words that say where it is."""
    try:
        handle, path = tempfile.mkstemp(prefix="mmfuse-error-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return "MMFUSE_DEBUG=1 shows the traceback"
    return f"traceback: {path} (MMFUSE_DEBUG=1 shows it)"
