"""Features of frozen towers, computed once and read from memory-mapped files ever after.

On disk, below the cache's folder: `features/IDENTITY/` for a tower and all that its features depend on beside an item's
content, and in it `shard-*/` folders with `keys.npy`, `pooled.npy` and, where tokens are kept, `tokens.npy` and
`offsets.npy`. A shard is written aside and renamed into place, so whatever is there is whole; what a killed process had
not yet renamed is swept away by the next one that writes. Runs on other rows of the same images add to what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import nn

from mmfuse.types import Features, MmfuseError

SHARD_BYTES = 1 << 26
"""A shard is closed when it holds this many bytes of features: what a killed process may have to compute again."""

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
    """The cache's folder: as configured, else $MMFUSE_CACHE, else ~/.cache/mmfuse."""
    return Path(configured or os.environ.get("MMFUSE_CACHE") or Path.home() / ".cache" / "mmfuse")


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
    encode: Callable[[Sequence[int]], Iterable[tuple[Sequence[int], Features]]],
    tokens: bool,
    dtype: str = "float32",
) -> FeatureCache:
    """The features of all items: those on disk from there, the others computed and kept.

    Several processes may do this at once: one computes, the others wait and read.

    Args:
        root: The cache's folder.
        identity: All that the features depend on beside an item's content: weights, preprocessing, versions. JSON.
        keys: Each item's content key (the bytes of an image, the tokens of a text). Items alike are encoded once.
        encode: Given items, yields batches of them with their packed features.
        tokens: Whether tokens are kept beside the pooled vector.
        dtype: What is written, "float32" or "float16"; what is read is float32.

    Raises:
        MmfuseError: The folder cannot be written, or a file in it is damaged.
    """
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    content = json.dumps({**identity, "dtype": dtype}, sort_keys=True)
    folder = root / "features" / hashlib.sha256(content.encode()).hexdigest()[:32]

    def missing() -> list[int]:
        there = {key for shard in _open_shards(folder, tokens) for key in shard.keys.tolist()}
        return [i for key, i in first.items() if _digest(key) not in there]

    if missing():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):
                for left in folder.glob("building-*"):  # whoever wrote it had the lock, and is dead
                    shutil.rmtree(left)
                scratch = folder / "identity.tmp"
                scratch.write_text(content)
                scratch.replace(folder / "identity.json")
                _write_shards(folder, encode(missing()), keys, tokens, dtype)
        except OSError as error:
            raise MmfuseError(
                f"cache.dir: {root} cannot be written ({error.strerror}); choose another, or cache.enabled=false"
            ) from error
    if os.access(folder / "identity.json", os.W_OK):
        os.utime(folder / "identity.json")  # when it was last used
    return FeatureCache(folder, keys, tokens)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()[:16].hex().encode()


def _open_shards(folder: Path, tokens: bool) -> list[_Shard]:
    shards = []
    for path in sorted(folder.glob("shard-*")):
        with_tokens = (path / "offsets.npy").is_file()
        if tokens and not with_tokens:
            continue
        try:
            kept = np.load(path / "tokens.npy", mmap_mode="r") if tokens else None
            offsets = np.load(path / "offsets.npy") if tokens else None
            shard = _Shard(np.load(path / "keys.npy"), np.load(path / "pooled.npy", mmap_mode="r"), kept, offsets)
        except (OSError, ValueError) as error:
            raise MmfuseError(f"{path}: damaged ({error}); delete this folder, it will be computed again") from error
        shards.append(shard)
    return shards


def _write_shards(
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
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix="building-"))
        np.save(scratch / "keys.npy", np.array(order, dtype="S32"))
        np.save(scratch / "pooled.npy", np.concatenate(pooled))
        if tokens:
            np.save(scratch / "offsets.npy", np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))
            np.save(scratch / "tokens.npy", np.concatenate(kept))
        for path in scratch.iterdir():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        scratch.rename(folder / f"shard-{uuid.uuid4().hex[:16]}")
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
        mib: On disk, in MiB.
        last_used: Seconds since the epoch.
    """

    folder: Path
    tower: str
    name: str
    items: int
    tokens: bool
    dtype: str
    mib: float
    last_used: float


def list_cache(root: Path) -> list[CacheEntry]:
    """What a cache's folder holds, that used last first."""
    entries = []
    for path in (root / "features").glob("*/identity.json"):
        folder, identity = path.parent, json.loads(path.read_text())
        architecture = identity.get("spec", {}).get("architecture", {})
        files = [file for file in folder.rglob("*") if file.is_file()]
        entries.append(
            CacheEntry(
                folder=folder,
                tower=str(identity.get("tower")),
                name=str(architecture.get("name") or architecture.get("model_type")),
                items=len({key for shard in _open_shards(folder, False) for key in shard.keys.tolist()}),
                tokens=any(folder.glob("shard-*/offsets.npy")),
                dtype=str(identity.get("dtype")),
                mib=sum(file.stat().st_size for file in files) / 2**20,
                last_used=path.stat().st_mtime,
            )
        )
    return sorted(entries, key=lambda entry: -entry.last_used)


def prune_cache(root: Path, unused_days: float = 0.0) -> list[CacheEntry]:
    """Delete what has not been used for so many days; gives what was deleted.

    A folder that a process is writing to is left alone.
    """
    gone = []
    for entry in list_cache(root):
        if time.time() - entry.last_used < unused_days * 86400:
            continue
        try:
            with FileLock(entry.folder / "lock", blocking=False):
                shutil.rmtree(entry.folder)
        except Timeout:
            continue
        gone.append(entry)
    return gone
