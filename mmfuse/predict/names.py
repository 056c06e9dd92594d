"""The names of all that is written beside an `--out`: refused where they are taken, and held by one process alone."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mmfuse.types import MmfuseError

SUFFIXES = (".jsonl", ".csv", ".parquet")
CLAIM = "run.progress"
"""In a folder of chunks: which run they are of, and once all is written, its counts."""
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


@dataclass(frozen=True)
class Names:
    """All that is written beside `out`."""

    out: Path
    errors: Path
    partial: Path
    errors_partial: Path
    progress: Path
    journal: Path
    chunks: Path
    lock: Path

    @classmethod
    def of(cls, out: Path) -> Names:
        """The names that belong to `out`."""
        return cls(
            out,
            out.with_suffix(".errors.jsonl"),
            out.with_name(out.name + ".partial.jsonl"),
            out.with_name(out.name + ".errors.partial.jsonl"),
            out.with_name(out.name + ".progress"),
            out.with_name(out.name + ".watch.jsonl"),
            out.with_name(out.name + ".chunks"),
            out.with_name(f".{out.stem}.mmfuse-lock"),  # out.csv and out.jsonl have the same errors
        )

    def refuse_special(self) -> None:
        """Raise MmfuseError where a name is that of a link, a FIFO, a device, a folder: it would be replaced by a file.

        A link is not followed either: what is unfinished lies beside the file, and is renamed into its place.
        """
        files = (self.out, self.errors, self.partial, self.errors_partial, self.progress, self.journal, self.lock)
        scratch = (scratch_of(path) for path in (self.out, self.errors, self.progress))
        for path, legal in (*((path, stat.S_IFREG) for path in (*files, *scratch)), (self.chunks, stat.S_IFDIR)):
            try:
                kind = stat.S_IFMT(os.lstat(path).st_mode)
            except OSError:  # not there, or told where it is written
                continue
            if kind == stat.S_IFLNK:
                target = os.path.realpath(path)
                raise MmfuseError(
                    f"--out {self.out}: {path.name} is a symbolic link, to {target}; name the file itself"
                )
            if kind != legal:
                raise MmfuseError(
                    f"--out {self.out}: {path.name} is {_KINDS.get(kind, 'no regular file')}; choose another name"
                )

    def refuse_finished(self) -> None:
        """Raise MmfuseError where another run's results are."""
        for path in (self.out, self.errors, self.journal):
            if path.exists():
                raise exists_already(self.out, path.name)
        if (self.chunks / CLAIM).exists():
            raise MmfuseError(
                f"{self.chunks}: a run with --engine ray was interrupted here; resume it, choose another --out, "
                "or --overwrite"
            )
        for out in same_errors(str(self.out)):
            other = Names.of(Path(out))
            if other.progress.exists() or (other.chunks / CLAIM).exists():
                raise interrupted(str(self.out), out)

    def forget(self) -> None:
        """Delete what earlier runs left."""
        for path in (self.out, self.errors, self.progress, self.partial, self.errors_partial, self.journal):
            path.unlink(missing_ok=True)
        if self.chunks.is_dir():
            shutil.rmtree(self.chunks)


def same_errors(out: str) -> list[str]:
    """The other names whose `STEM.errors.jsonl` is the same file."""
    stem, own = os.path.splitext(out)
    return [stem + suffix for suffix in SUFFIXES if suffix != own]


def interrupted(out: str, other: str) -> MmfuseError:
    """What is said where a run to another name would write the same errors."""
    return MmfuseError(
        f"--out {out}: a run to {os.path.basename(other)} was interrupted here, whose errors get the same name; resume "
        "it first, or choose another --out"
    )


def check_suffix(out: Path | str) -> None:
    """Raise MmfuseError where the name does not tell a format."""
    suffix = os.path.splitext(out)[1]
    if suffix not in SUFFIXES:
        raise MmfuseError(
            f"--out {out}: what {suffix or 'a name without a suffix'} means is unknown; legal: {', '.join(SUFFIXES)}"
        )


def exists_already(out: Path | str, name: str) -> MmfuseError:
    """What is said where another run's results are."""
    return MmfuseError(f"--out {out}: {name} exists already; choose another name, or --overwrite")


def cannot_write(out: Path, error: OSError) -> MmfuseError:
    """One line of what the system says."""
    return MmfuseError(f"--out {out}: cannot be written: {error.strerror or error}")


@contextmanager
def alone(names: Names) -> Iterator[Names]:
    """Keep other processes from writing the same files: a night's run may go on when the next one starts.

    Raises:
        MmfuseError: Another process is writing them, nothing can be written there, or a name is one of something else
            than a file.
    """
    names.refuse_special()
    lock = FileLock(names.lock)
    try:
        names.out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise MmfuseError(
            f"--out {names.out}: another process is writing it; wait for it, or choose another name"
        ) from None
    except OSError as error:
        raise cannot_write(names.out, error) from error
    try:
        yield names
    finally:
        names.lock.unlink(missing_ok=True)
        lock.release()


def scratch_of(path: Path) -> Path:
    """What is written before it is renamed to a path."""
    return path.with_name(path.name + ".tmp")
