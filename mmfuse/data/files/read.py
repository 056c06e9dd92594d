"""`read_bytes`, the one way in which mmfuse reads a file that a user names; `open_local` for one read in parts."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from mmfuse.data.files.stores import FetchError, is_absent, true_cause, watched
from mmfuse.types import MmfuseError


def read_bytes(source: str | Path, max_bytes: int, find: Callable[[str], tuple[Any, str]] = url_to_fs) -> bytes:
    """Read a whole file without ever blocking on a FIFO or a device.

    Args:
        source: A path, or an fsspec URL (contains `://`), as the user gave it; what a table says goes through
            `mmfuse.data.files.locations.read_location`.
        max_bytes: A larger file is refused.
        find: Of a URL, the file system and the path in it.

    Raises:
        FetchError: A URL could not be read, but not because nothing is there, or because it is none.
        MmfuseError: The reason only, without the path: the caller knows it.
    """
    remote = "://" in str(source) and not isinstance(source, Path)
    try:
        data = _read_url(str(source), max_bytes, find) if remote else _read_file(source, max_bytes)
    except MmfuseError:
        raise
    except Exception as error:  # every remote file system has its own exceptions
        if isinstance(error.__cause__, MmfuseError):  # fsspec says of any error that there is no such file
            raise error.__cause__ from error
        known = not remote or is_absent(error) or isinstance(error, ValueError)
        raise (MmfuseError if known else FetchError)(_reason(true_cause(error))) from error
    if len(data) > max_bytes:
        raise MmfuseError(f"larger than {max_bytes} bytes")
    return data


@contextmanager
def open_local(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file to be read in parts, without ever blocking on a FIFO or a device.

    Raises:
        MmfuseError: It cannot be opened or read, or is no regular file; the reason only, without the path.
    """
    try:  # O_NONBLOCK: without it, opening a FIFO waits for a writer; on regular files it changes nothing.
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise MmfuseError("not a regular file")
            yield file
    except OSError as error:
        if error.strerror is None:  # Arrow's, which says what is wrong in the file
            raise
        raise MmfuseError(_reason(error)) from error


def _read_file(path: str | Path, max_bytes: int) -> bytes:
    with open_local(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise MmfuseError(f"larger than {max_bytes} bytes")
        return file.read(size)


def _read_url(url: str, max_bytes: int, find: Callable[[str], tuple[Any, str]]) -> bytes:
    system, path = find(url)
    if isinstance(system, LocalFileSystem):
        return _read_file(path, max_bytes)
    with watched(url), system.open(path, "rb") as file:
        return file.read(max_bytes + 1)


def _reason(error: Exception) -> str:
    """Say why a file cannot be read, without its path."""
    if is_absent(error):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, ImportError):  # fsspec names the package to install
        return " ".join(str(error).split())[:120]
    status = getattr(error, "status", None)  # of HTTP
    return f"cannot be read ({type(error).__name__}{f' {status}' if status else ''})"
