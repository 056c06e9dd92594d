"""Files of mmfuse's own, written whole at a path or an fsspec URL, and folders of them listed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

from mmfuse.types import MmfuseError, first_line


def is_local(location: str) -> bool:
    """Whether it is a path, or a `file://` URL."""
    return get_protocol(location) in ("file", "local")


def local_path(location: str) -> Path:
    """The path of a local location."""
    return Path(location.partition("://")[2] or location)


def folder_url(location: str) -> str:
    """A folder as it is named everywhere: an absolute path if it is local, else its URL; no slash at its end.

    Raises:
        MmfuseError: No such kind of URL, or the package for it is not installed.
    """
    try:
        system, root = fsspec.core.url_to_fs(location)
    except (ValueError, ImportError) as error:
        raise MmfuseError(f"{location}: {first_line(error)}") from error
    return (root if isinstance(system, LocalFileSystem) else location).rstrip("/") or "/"


def list_sizes(url: str) -> dict[str, int]:
    """By name, the size of what lies in a folder, as it is now; of a folder that is not there, nothing.

    Raises:
        MmfuseError: It cannot be listed.
    """
    with stored(url, "listed") as (system, path):
        try:
            return {item["name"].rsplit("/", 1)[-1]: item["size"] for item in system.ls(path, detail=True)}
        except FileNotFoundError:
            return {}


def exists(url: str) -> bool:
    """Whether there is such a file, now.

    Raises:
        MmfuseError: It cannot be told.
    """
    with stored(url, "read") as (system, path):
        return system.exists(path)


def put(url: str, data: bytes) -> None:
    """Write a file whole or not at all: renamed into place on a disk; object stores do so by themselves.

    Raises:
        MmfuseError: It cannot be written.
    """
    with stored(url, "written") as (system, path):
        if not is_local(url):
            system.pipe_file(path, data)
            return
        folder, name = os.path.split(path)
        with _renamed(path, f"{folder}/.{name}.{uuid4().hex}.tmp") as handle:  # another machine may write the same
            handle.write(data)


@contextmanager
def writing(url: str) -> Iterator[Any]:
    """A binary file that appears whole when the block ends without an exception, and else not at all.

    Raises:
        MmfuseError: It cannot be written.
    """
    with stored(url, "written") as (system, path):
        if is_local(url):
            with _renamed(path, f"{path}.tmp") as handle:
                yield handle
            return
        handle: Any = system.open(path, "wb", autocommit=False)
        try:
            yield handle
            handle.close()
        except BaseException:
            handle.discard()
            handle.closed = True  # or the garbage collector would complete the upload
            raise
        handle.commit()


@contextmanager
def _renamed(path: str, scratch: str) -> Iterator[Any]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(scratch, "wb") as handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(scratch, path)


@contextmanager
def stored(url: str, done: str) -> Iterator[tuple[Any, str]]:
    """The file system and the path of a URL, for what is going to be `done`; what goes wrong is told in one line.

    Raises:
        MmfuseError: As it says.
    """
    try:
        system, path = fsspec.core.url_to_fs(url)
        system.invalidate_cache()  # other processes and machines write there
        yield system, path
    except MmfuseError:
        raise
    except Exception as error:  # every remote file system has its own exceptions
        reason = getattr(error, "strerror", None) or first_line(error)
        raise MmfuseError(f"{url}: cannot be {done}: {reason}") from error
