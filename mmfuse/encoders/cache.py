"""Features of a frozen tower, computed once and read from a memory-mapped file ever after."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmfuse.types import Features, MmfuseError


class FeatureCache:
    """The features of a tower's items, in a memory-mapped file.

    Args:
        folder: As `build_cache` wrote it.
        keys: The content key of every item that will be asked for, in the caller's order.
        tokens: Whether tokens are wanted; there may be some that are not.
    """

    def __init__(self, folder: Path, keys: Sequence[str], tokens: bool):
        self.folder = folder
        meta = json.loads((folder / "meta.json").read_text())
        place = {key: i for i, key in enumerate(meta["keys"])}
        self._place = np.array([place[key] for key in keys], dtype=np.int64)
        self._pooled = np.load(folder / "pooled.npy", mmap_mode="r")
        self._tokens = np.load(folder / "tokens.npy", mmap_mode="r") if tokens else None
        self._offsets = np.load(folder / "offsets.npy") if tokens else None

    def __getitem__(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """`(tokens (S, D), pooled (D,))` of an item; the pooled vector stands in for tokens that are not wanted."""
        i = self._place[item]
        pooled = np.array(self._pooled[i])
        if self._tokens is None or self._offsets is None:
            return pooled[None], pooled
        return np.array(self._tokens[self._offsets[i] : self._offsets[i + 1]]), pooled


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
) -> FeatureCache:
    """The features of all items, from disk if they are there, else computed and kept.

    Args:
        root: The cache's folder.
        identity: All that the features depend on beside an item's content: weights, preprocessing, dtype, versions.
            JSON.
        keys: Each item's content key (the bytes of an image, the tokens of a text). Items alike are encoded once.
        encode: Given items, yields batches of them with their packed features.
        tokens: Whether tokens are kept beside the pooled vector.

    Raises:
        MmfuseError: The folder cannot be written.
    """
    unique = list(dict.fromkeys(keys))
    first = {key: i for i, key in reversed(list(enumerate(keys)))}

    def place(with_tokens: bool) -> Path:
        content = json.dumps([identity, with_tokens, sorted(unique)], sort_keys=True)
        return root / "features" / hashlib.sha256(content.encode()).hexdigest()[:32]

    for with_tokens in (True, False):
        if (with_tokens or not tokens) and (place(with_tokens) / "meta.json").is_file():
            return FeatureCache(place(with_tokens), keys, tokens)
    folder = place(tokens)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix="building-"))
    except OSError as error:
        raise MmfuseError(
            f"cache.dir: {root} cannot be written ({error.strerror}); choose another, or cache.enabled=false"
        ) from error
    try:
        order = _write_features(scratch, encode([first[key] for key in unique]), keys, len(unique), tokens)
        meta = {"identity": identity, "tokens": tokens, "keys": order}
        (scratch / "meta.json").write_text(json.dumps(meta))
        if not folder.exists():
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return FeatureCache(folder, keys, tokens)


def _write_features(
    folder: Path,
    batches: Iterable[tuple[Sequence[int], Features]],
    keys: Sequence[str],
    total: int,
    tokens: bool,
) -> list[str]:
    """Write `pooled.npy` and, if asked, `tokens.npy` with `offsets.npy`; gives the keys in the order of the rows."""
    order: list[str] = []
    pooled: np.ndarray | None = None
    offsets = [0]
    with (folder / "tokens.raw").open("wb") as raw:
        for items, features in batches:
            found = features.pooled.float().cpu().numpy()
            if pooled is None:
                pooled = np.zeros((total, found.shape[1]), dtype=np.float32)
            pooled[len(order) : len(order) + len(items)] = found
            order += [keys[i] for i in items]
            if tokens:
                kept = features.tokens[features.mask].float().cpu().numpy()
                raw.write(kept.tobytes())
                offsets += (offsets[-1] + np.cumsum(features.mask.sum(1).cpu().numpy())).tolist()
    if pooled is None:
        pooled = np.zeros((0, 1), dtype=np.float32)
    np.save(folder / "pooled.npy", pooled)
    if tokens:
        np.save(folder / "offsets.npy", np.array(offsets, dtype=np.int64))
        shape = (offsets[-1], pooled.shape[1])
        with (folder / "tokens.npy").open("wb") as out, (folder / "tokens.raw").open("rb") as raw:
            np.lib.format.write_array_header_2_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
            shutil.copyfileobj(raw, out, 1 << 24)
    (folder / "tokens.raw").unlink()
    return order
