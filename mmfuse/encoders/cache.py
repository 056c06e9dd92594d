"""Features of frozen towers, computed once and read from memory-mapped files ever after.

On disk, below the cache's folder: `features/IDENTITY/` for a tower and all that its features depend on beside an item's
content, and in it `shard-*/` folders with `keys.npy`, `pooled.npy` and, where tokens are kept, `tokens.npy` and
`offsets.npy`. A shard is written aside and renamed into place, so whatever is there is whole; what a killed process had
not yet renamed is swept away by the next one that writes. Runs on other rows of the same images add to what is there.
All of it follows the umask, so users of one group may share a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import nn

from mmfuse.encoders.sharing import Job, end_jobs, help_others, job_name, lead
from mmfuse.pulse import now
from mmfuse.types import Features, MmfuseError

SHARD_BYTES = 1 << 26
"""A shard is closed when it holds this many bytes of features: what a killed process may have to compute again."""

PART = 256
"""Items that a process takes from others at once: no batch is in two of them."""

_LOOK = 0.1
"""Seconds between two looks for work to share."""

DTYPES = ("float32", "float16")


class _Shard(NamedTuple):
    """The open files of one shard; `tokens` and `offsets` are None where it keeps pooled vectors only."""

    keys: NDArray[np.bytes_]
    pooled: NDArray[Any]
    tokens: NDArray[Any] | None
    offsets: NDArray[np.int64] | None


class FeatureCache:
    """The features of a tower's items, in memory-mapped files.

    Args:
        folder: Of one identity, as `build_cache` wrote it.
        keys: The content key of every item that will be asked for, in the caller's order.
        tokens: Whether tokens are wanted; there may be some that are not.
    """

    def __init__(self, folder: Path, keys: Sequence[str], tokens: bool):
        self.folder, self.tokens = folder, tokens
        self._shards = _open_shards(folder, tokens)
        place = {key: (s, i) for s, shard in enumerate(self._shards) for i, key in enumerate(shard.keys.tolist())}
        places = np.array([place[_digest(key)] for key in keys], dtype=np.int64).reshape(-1, 2)
        self._shard, self._row = places[:, 0], places[:, 1]

    def gather(self, items: Sequence[int] | NDArray[np.int64]) -> Features:
        """The packed `Features` of these items, float32; the pooled vector stands in for tokens that are not wanted."""
        items = np.asarray(items, dtype=np.int64)
        shard, row = self._shard[items], self._row[items]
        here = [(s, np.flatnonzero(shard == s)) for s in np.unique(shard)]
        dim = self._shards[0].pooled.shape[1] if here else 1
        pooled = np.empty((len(items), dim), dtype=np.float32)
        for s, at in here:
            pooled[at] = self._shards[s].pooled[row[at]]
        present = torch.ones(len(items), dtype=torch.bool)
        if not self.tokens:
            vectors = torch.from_numpy(pooled)
            return Features(vectors.unsqueeze(1), present.unsqueeze(1), vectors, present)
        starts, lengths = np.zeros(len(items), dtype=np.int64), np.zeros(len(items), dtype=np.int64)
        for s, at in here:
            offsets: Any = self._shards[s].offsets
            starts[at], lengths[at] = offsets[row[at]], offsets[row[at] + 1] - offsets[row[at]]
        mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
        tokens = np.zeros((*mask.shape, dim), dtype=np.float32)
        for s, at in here:
            kept: Any = self._shards[s].tokens
            item, step = np.nonzero(mask[at])
            tokens[at[item], step] = kept[starts[at][item] + step]
        return Features(torch.from_numpy(tokens), torch.from_numpy(mask), torch.from_numpy(pooled), present)


def cache_root(configured: str | None) -> Path:
    """The cache's folder: as configured, else $MMFUSE_CACHE, else ~/.cache/mmfuse.

    Raises:
        MmfuseError: There is no home folder, as for a bare user id in a container.
    """
    named = configured or os.environ.get("MMFUSE_CACHE")
    if named:
        return Path(named)
    try:
        return Path.home() / ".cache" / "mmfuse"
    except RuntimeError as error:
        raise MmfuseError("cache.dir: there is no home folder; set it, or MMFUSE_CACHE or HOME") from error


def weights_hash(module: nn.Module) -> str:
    """sha256 over all parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def build_cache(
    root: Path,
    identity: dict[str, Any],
    keys: Sequence[str],
    encode: Callable[[Iterable[int]], Iterable[tuple[Sequence[int], Features]]],
    tokens: bool,
    dtype: str = "float32",
    order: Callable[[Sequence[int]], Sequence[int]] = list,
    part: int = PART,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureCache:
    """The features of all items: those on disk from there, the others computed and kept.

    Several processes may do this at once: those of the same items share the work, others wait and read. A batch has the
    same items however many they are.

    Args:
        root: The cache's folder.
        identity: All that the features depend on beside an item's content: weights, preprocessing, versions. JSON.
        keys: Each item's content key (the bytes of an image, the tokens of a text). Items alike are encoded once.
        encode: Given items, in the order of their computation, yields batches of them with their packed features. More
            of them are taken from other processes as it goes through them.
        tokens: Whether tokens are kept beside the pooled vector.
        dtype: What is written, "float32" or "float16"; what is read is float32.
        order: Puts items in the order of their computation.
        part: Items that a process takes at once: a multiple of the items of a batch.
        progress: Called with (items done by all, items to compute), while this process computes and at the end.

    Raises:
        MmfuseError: The folder cannot be written, or a file in it is damaged.
    """
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    content = json.dumps({**identity, "dtype": dtype}, sort_keys=True)
    folder = root / "features" / hashlib.sha256(content.encode()).hexdigest()[:32]

    def missing() -> list[int]:
        there = {key for shard in _open_shards(folder, tokens) for key in shard.keys.tolist()}
        return [i for key, i in first.items() if _digest(key) not in there]

    def compute(job: Job) -> None:
        claimed = job.claimed()
        for item in claimed:  # the first one: without any, no process that reads is started
            batches = _telling(encode(chain([item], claimed)), job, progress)
            _write_shards(root, folder, batches, keys, tokens, dtype)

    wanted = missing()
    if wanted:
        lock = FileLock(folder / "lock")
        with _writing(root):
            folder.mkdir(parents=True, exist_ok=True)
        name, helped = job_name(keys, tokens, part), set()
        while not _acquired(lock, root):
            now("features: waiting for another process that computes the same")
            if not help_others(folder, name, part, compute, helped):
                time.sleep(_LOOK)
        try:
            now("features of frozen encoders")
            with _writing(root):
                end_jobs(folder)  # of a process that died
                for left in folder.glob("building-*"):  # whoever wrote it had the lock, and is dead
                    shutil.rmtree(left)
                _write_identity(folder, content)
            before, left = len(keys) + 1, missing()
            while 0 < len(left) < before:  # what a helper had begun when it died is left
                lead(folder, name, order(left), part, compute)
                before, left = len(left), missing()
        finally:
            lock.release()
        if progress is not None:
            progress(len(wanted), len(wanted))
    if os.access(folder / "identity.json", os.W_OK):
        os.utime(folder / "identity.json")  # when it was last used
    return FeatureCache(folder, keys, tokens)


def _acquired(lock: FileLock, root: Path) -> bool:
    """Whether the lock is ours now; it is not waited for."""
    with _writing(root):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
    return True


def _telling(
    batches: Iterable[tuple[Sequence[int], Features]], job: Job, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[Sequence[int], Features]]:
    """The batches; how far all are is told after each."""
    for items, features in batches:
        yield items, features
        done = job.done_with(items) if len(items) else 0
        if progress is not None and 0 < done < len(job.items):  # the end is told once, when others are done too
            progress(done, len(job.items))


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    """Say in one line why the cache cannot be written."""
    try:
        yield
    except OSError as error:
        raise MmfuseError(
            f"cache.dir: {root} cannot be written: {error.strerror or error}; choose another, or cache.enabled=false"
        ) from error


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()[:16].hex().encode()


def _open_shards(folder: Path, tokens: bool) -> list[_Shard]:
    shards = []
    try:  # glob would take a folder that is closed to us for an empty one
        paths = sorted(Path(found) for found in os.scandir(folder) if found.name.startswith("shard-"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise MmfuseError(f"cache.dir: {_unreadable(folder)}") from error
    for path in paths:
        try:
            if tokens and "offsets.npy" not in os.listdir(path):
                continue
            kept = np.load(path / "tokens.npy", mmap_mode="r") if tokens else None
            offsets = np.load(path / "offsets.npy") if tokens else None
            shard = _Shard(np.load(path / "keys.npy"), np.load(path / "pooled.npy", mmap_mode="r"), kept, offsets)
        except PermissionError as error:
            raise MmfuseError(f"cache.dir: {_unreadable(path)}") from error
        except (OSError, ValueError) as error:
            raise MmfuseError(f"{path}: damaged ({error}); delete this folder, it will be computed again") from error
        shards.append(shard)
    return shards


def _unreadable(path: Path) -> str:
    """What to do where another user's umask, or a version of mmfuse that did not heed it, closes a folder to us."""
    return f"{path} cannot be read; let its owner run chmod -R g+rX on it (and umask 002), or choose another cache.dir"


def _write_shards(
    root: Path,
    folder: Path,
    batches: Iterable[tuple[Sequence[int], Features]],
    keys: Sequence[str],
    tokens: bool,
    dtype: str,
) -> None:
    order: list[bytes] = []
    pooled: list[NDArray] = []
    kept: list[NDArray] = []
    lengths: list[NDArray] = []

    def close() -> None:
        arrays: dict[str, NDArray] = {"keys": np.array(order, dtype="S32"), "pooled": np.concatenate(pooled)}
        if tokens:
            arrays["offsets"] = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
            arrays["tokens"] = np.concatenate(kept)
        name = uuid.uuid4().hex[:16]
        scratch = folder / f"building-{name}"
        with _writing(root):
            try:
                scratch.mkdir()  # tempfile's would be closed to all other users, whatever the umask
                for part, array in arrays.items():
                    _save(scratch / f"{part}.npy", array)
                scratch.rename(folder / f"shard-{name}")
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
        for part in (order, pooled, kept, lengths):
            part.clear()

    size = 0
    for items, features in batches:
        order += [_digest(keys[i]) for i in items]
        pooled.append(features.pooled.float().cpu().numpy().astype(dtype))
        size += pooled[-1].nbytes
        if tokens:
            kept.append(features.tokens[features.mask].float().cpu().numpy().astype(dtype))
            lengths.append(features.mask.sum(1).cpu().numpy())
            size += kept[-1].nbytes
        if size >= SHARD_BYTES:
            close()
            size = 0
    if order:
        close()


def _write_identity(folder: Path, content: str) -> None:
    scratch = folder / "identity.tmp"
    try:
        scratch.write_text(content, encoding="utf-8")
        scratch.replace(folder / "identity.json")
    finally:
        scratch.unlink(missing_ok=True)


def _save(path: Path, array: NDArray) -> None:
    """As `np.save`, which does not say why a disk takes no more; and see it on the disk."""
    with path.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(array))
        handle.write(array.data)
        handle.flush()
        os.fsync(handle.fileno())


@dataclass(frozen=True)
class CacheEntry:
    """What the cache holds of one tower.

    Attributes:
        folder: Where.
        tower: "text" or "image".
        name: Of its architecture.
        items: Texts or images.
        tokens: Whether tokens are kept, for all or some of them.
        dtype: "float32" or "float16".
        computed: In what, where that was not fp32 on a CPU: "bf16", "cuda", "bf16, cuda".
        mib: On disk, in MiB.
        last_used: Seconds since the epoch.
        problem: Why it is of no use to us; then the rest may not be known.
    """

    folder: Path
    tower: str
    name: str
    items: int
    tokens: bool
    dtype: str
    computed: str
    mib: float
    last_used: float
    problem: str = ""


def list_cache(root: Path) -> list[CacheEntry]:
    """What a cache's folder holds, that used last first."""
    there = root / "features"
    try:
        folders = [Path(found) for found in os.scandir(there) if found.is_dir()] if there.exists() else []
    except OSError as error:
        raise MmfuseError(f"cache.dir: {there} cannot be read: {error.strerror}; choose another") from error
    return sorted(map(_entry, folders), key=lambda entry: -entry.last_used)


def _entry(folder: Path) -> CacheEntry:
    identity: dict[str, Any] = {}
    items, problem = 0, ""
    try:
        identity = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
        items = len({key for shard in _open_shards(folder, False) for key in shard.keys.tolist()})
    except PermissionError:
        problem = f"cache.dir: {_unreadable(folder)}"
    except (OSError, ValueError) as error:  # MmfuseError is a ValueError
        problem = str(error) if isinstance(error, MmfuseError) else f"{folder}: damaged ({error}); delete it"
    architecture = identity.get("spec", {}).get("architecture", {})
    files = [file for file in folder.rglob("*") if file.suffix == ".npy"]
    return CacheEntry(
        folder=folder,
        tower=str(identity.get("tower")),
        name=str(architecture.get("name") or architecture.get("model_type")),
        items=items,
        tokens=any(file.name == "offsets.npy" for file in files),
        dtype=str(identity.get("dtype")),
        computed=", ".join(str(identity[key]) for key in ("precision", "device") if key in identity),
        mib=sum(file.stat().st_size for file in files) / 2**20,
        last_used=(folder / "identity.json" if identity else folder).stat().st_mtime,
        problem=problem,
    )


def prune_cache(root: Path, unused_days: float = 0.0) -> list[CacheEntry]:
    """Delete what has not been used for so many days; gives what was deleted, and what may not be: its problem says so.

    A folder that a process is writing to is left alone.
    """
    gone = []
    for entry in list_cache(root):
        if time.time() - entry.last_used < unused_days * 86400:
            continue
        try:
            with FileLock(entry.folder / "lock", blocking=False):
                shutil.rmtree(entry.folder)
            gone.append(replace(entry, problem=""))
        except Timeout:
            continue
        except OSError as error:
            reason = f"cache.dir: {entry.folder} cannot be deleted: {error.strerror}"
            gone.append(replace(entry, problem=reason))
    return gone
