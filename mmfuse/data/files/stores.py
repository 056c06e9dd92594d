"""Files of mmfuse's own, written whole at a path or an fsspec URL, and folders of them listed."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import fsspec
import fsspec.config
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

from mmfuse.types import MmfuseError, first_line

T = TypeVar("T")
PAUSES = (1.0, 4.0, 15.0)
"""Seconds before each further attempt to fetch what could not be fetched."""
SILENCE = 30.0
"""Seconds without an answer after which that is told, again and again."""
CONNECT, READ = 20.0, 30.0
"""Seconds in which a server of web pages must take a connection, and send something; an attempt asks it twice."""


class FetchError(MmfuseError):
    """What is stored could not be fetched, which says nothing of what is there: the network or a permission fails."""


def patiently(fetch: Callable[[], T], where: str) -> T:
    """What a function gives, called again after a pause where it raises FetchError; that is told on standard error.

    Args:
        fetch: Fetches something.
        where: Path or URL that is fetched.

    Raises:
        FetchError: The last attempt's.
    """
    for attempt, pause in enumerate(PAUSES, 1):
        try:
            return fetch()
        except FetchError as error:
            _tell(f"{where}: {_in_words(error)} (attempt {attempt} of {len(PAUSES) + 1}), again in {pause:g} s")
            time.sleep(pause)
    return fetch()


@contextmanager
def watched(where: str) -> Iterator[None]:
    """Say every half minute, on standard error, that a store has not answered: its client tries without a word."""
    if is_local(where):
        yield
        return
    begun, answered = time.monotonic(), threading.Event()

    def watch() -> None:
        while not answered.wait(SILENCE):
            _tell(f"{where}: no answer for {time.monotonic() - begun:.0f} s")

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        answered.set()


def _tell(line: str) -> None:
    """Also in processes of a DataLoader and in Ray's actors, which have no other way to speak."""
    print(f"{line}\n", end="", file=sys.stderr, flush=True)  # one write: other threads print too


def _in_words(error: FetchError) -> str:
    """What a failed attempt says in a line on attempts."""
    cause = error.__cause__
    found = true_cause(cause) if isinstance(cause, Exception) else error
    if isinstance(found, TimeoutError) or "timeout" in type(found).__name__.lower():
        return "no answer"
    return first_line(found)


def _wait_less() -> None:
    """Shorten the time after which clients take a store for dead, where the user's fsspec configuration is silent.

    By default botocore tries 5 times in each of s3fs's 5 attempts, 6 minutes in all, and aiohttp waits for 5 minutes;
    and `patiently` has 4 attempts of its own.
    """
    for protocol in ("http", "https"):
        fsspec.config.conf.setdefault(protocol, {}).setdefault("get_client", _http_client)
    if not {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & set(os.environ):
        options = fsspec.config.conf.setdefault("s3", {}).setdefault("config_kwargs", {})
        options.setdefault("retries", {"total_max_attempts": 2})


async def _http_client(**options: Any) -> Any:
    import aiohttp  # only here: it takes a quarter of a second

    return aiohttp.ClientSession(**{"timeout": http_timeout(), **options})


def http_timeout() -> Any:
    """How long aiohttp waits for a server of web pages."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=READ)


def true_cause(error: Exception) -> Exception:
    """What went wrong; fsspec's http says of nearly all failures that there is no such file, caused by the true one."""
    cause = error.__cause__
    while isinstance(cause, Exception) and (isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")):
        error, cause = cause, cause.__cause__
    return error


def is_absent(error: Exception) -> bool:
    """Whether it says that nothing is there."""
    error = true_cause(error)
    return isinstance(error, FileNotFoundError) or getattr(error, "status", None) in (404, 410)


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


def list_sizes(url: str) -> dict[str, int | None]:
    """By name, the size of what lies in a folder, as it is now; of a folder that is not there, nothing.

    A size is None where the file system, such as a server of web pages, tells it neither in a list nor if asked.

    Raises:
        MmfuseError: It cannot be listed.
    """
    with stored(url, "listed") as (system, path), watched(url):
        try:
            found = {item["name"]: item["size"] for item in system.ls(path, detail=True)}
        except FileNotFoundError as error:
            if is_absent(error):
                return {}
            raise
        unknown = [name for name, size in found.items() if size is None]
        with ThreadPoolExecutor(8) as pool:
            found |= zip(unknown, pool.map(lambda name: _asked_size(system, name), unknown), strict=True)
        return {name.rsplit("/", 1)[-1]: size for name, size in found.items()}


def _asked_size(system: Any, name: str) -> int | None:
    try:
        return system.info(name)["size"]
    except Exception:  # every remote file system has its own; whoever reads the file hears what is wrong with it
        return None


def exists(url: str) -> bool:
    """Whether there is such a file, now.

    Raises:
        MmfuseError: It cannot be told.
    """
    with stored(url, "read") as (system, path), watched(url):
        return system.exists(path)


def put(url: str, data: bytes) -> None:
    """Write a file whole or not at all: renamed into place on a disk; object stores do so by themselves.

    Raises:
        MmfuseError: It cannot be written.
    """
    with stored(url, "written") as (system, path), watched(url):
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
    try:
        with open(scratch, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(scratch, path)
    except Exception:  # of a kill it stays, and is written over
        with suppress(OSError):
            os.unlink(scratch)
        raise


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


_wait_less()
