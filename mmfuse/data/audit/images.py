"""Every image read once: what cannot be read, what is a copy, what is blank, small or narrow."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image
from scipy.fft import dct

from mmfuse.data.audit.findings import Finding, Severity, finding
from mmfuse.data.audit.near import clusters, near_hashes, tell_crowded
from mmfuse.data.audit.rows import Rows, in_sets, place_sets
from mmfuse.data.files.locations import ABSENT, NOT_PERMITTED, read_location
from mmfuse.data.readers.images import read_first_frame
from mmfuse.types import MmfuseError

NEAR_BITS = 8
"""Near copies differ in at most so many of the 256 bits of their perceptual hashes (phash, 16 x 16) ..."""
NEAR_COLOUR = 16.0
"""... and by so much of 255 (root mean square) in 8 x 8 cells of RGB: the hash alone sees no colour."""
_BLANK = 8
_SMALL, _NARROW = 32, 4.0
_MAX_BYTES = 512 * 2**20
_WAITING = 64
_WORTH_A_THREAD = 8 * 2**10


@dataclass(frozen=True)
class ImageFacts:
    """What is kept of the images, 260 bytes each.

    Attributes:
        row: `(n,)` int64, the row that each image is of.
        path: `n` paths, URLs or encoded images.
        reason: By number of an image, why it cannot be read.
        digest: `(n, 32)` uint8, SHA-256 of the file's bytes; zeros where it cannot be read.
        hash: `(n, 32)` uint8, perceptual hash of 256 bits.
        colour: `(n, 192)` uint8, mean RGB of 8 x 8 cells.
        size: `(n, 2)` int64, H and W.
        blank: `(n,)` bool, whether (nearly) all pixels have one gray.
        frames: `(n,)` int64, how many its file holds; the others are not looked at.
    """

    row: np.ndarray
    path: list[str | bytes]
    reason: dict[int, str]
    digest: np.ndarray
    hash: np.ndarray
    colour: np.ndarray
    size: np.ndarray
    blank: np.ndarray
    frames: np.ndarray

    def contents(self, num_rows: int) -> list[tuple[bytes, ...]]:
        """By row, what its images are: digests, or paths where they cannot be read."""
        found: list[list[bytes]] = [[] for _ in range(num_rows)]
        for i, row in enumerate(self.row):
            path = self.path[i]
            unread = path if isinstance(path, bytes) else path.encode()
            found[row].append(unread if i in self.reason else self.digest[i].tobytes())
        return [tuple(one) for one in found]


def read_images(rows: Rows, progress: Callable[[int, int], None] | None = None) -> ImageFacts:
    """Read every image once, in threads; memory does not grow but by 260 bytes an image.

    Args:
        rows: Whose images.
        progress: Called with (images read, images).
    """
    files = [(row, path) for row, paths in enumerate(rows.images) for path in paths]
    n = len(files)
    facts = ImageFacts(
        row=np.array([row for row, _ in files], dtype=np.int64),
        path=[path for _, path in files],
        reason={},
        digest=np.zeros((n, 32), np.uint8),
        hash=np.zeros((n, 32), np.uint8),
        colour=np.zeros((n, 192), np.uint8),
        size=np.zeros((n, 2), np.int64),
        blank=np.zeros(n, bool),
        frames=np.ones(n, np.int64),
    )
    with ThreadPoolExecutor() as pool:
        for i, seen in enumerate(_in_order(pool, facts.path, rows.urls)):
            if isinstance(seen, str):
                facts.reason[i] = seen
            else:
                facts.digest[i], facts.hash[i], facts.colour[i], facts.size[i], facts.blank[i], facts.frames[i] = seen
            if progress:
                progress(i + 1, n)
    return facts


def _in_order(pool: ThreadPoolExecutor, paths: Sequence[str | bytes], urls: Sequence[str]) -> Iterator[tuple | str]:
    """`_look` at each, with at most 64 waiting: with 100,000, their futures alone would be memory."""
    left = iter(paths)
    waiting = deque(_begin(pool, path, urls) for path in islice(left, _WAITING))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(_begin(pool, path, urls) for path in islice(left, 1))


def _begin(pool: ThreadPoolExecutor, path: str | bytes, urls: Sequence[str]) -> Future[tuple | str]:
    """Look in a thread; here where the file is so small that threads would mostly wait for the interpreter's lock."""
    if isinstance(path, bytes):
        large = len(path) > _WORTH_A_THREAD
    else:
        large = "://" in path or (os.path.isfile(path) and os.path.getsize(path) > _WORTH_A_THREAD)
    if large:
        return pool.submit(_look, path, urls)
    found: Future[tuple | str] = Future()
    found.set_result(_look(path, urls))
    return found


def _look(path: str | bytes, urls: Sequence[str]) -> tuple | str:
    """Digest, hash, colours, size, blankness and frames of an image, or the reason why there are none."""
    try:
        data = path if isinstance(path, bytes) else read_location(path, _MAX_BYTES, urls)
        pixels, frames = read_first_frame(data)
    except MmfuseError as error:
        return str(error)
    image = Image.fromarray(pixels)
    gray = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX))
    low, high = np.percentile(gray, (1, 99))
    return (
        np.frombuffer(hashlib.sha256(data).digest(), np.uint8),
        np.packbits(perceptual_hash(image)),
        np.asarray(image.resize((8, 8), Image.Resampling.BOX)).ravel(),
        pixels.shape[:2],
        high - low <= _BLANK,
        frames,
    )


def perceptual_hash(image: Image.Image) -> np.ndarray:
    """`(16, 16)` bool: which of the lowest frequencies of the gray image, 64 x 64, are above their median (pHash).

    Reference: `imagehash.phash(image, hash_size=16)`, bit for bit.
    """
    pixels = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.LANCZOS))
    low = np.asarray(dct(dct(pixels, axis=0), axis=1))[:16, :16]
    return low > np.median(low)


def check_images(rows: Rows, facts: ImageFacts, contents: Sequence[tuple]) -> list[Finding]:
    """All that the images say.

    Args:
        rows: Whose images.
        facts: As `read_images` gave them.
        contents: By row, what it consists of; rows that are equal are told elsewhere, and only one of them counts here.
    """
    return [*_unreadable(rows, facts), *_copies(rows, facts, contents), *_strange(rows, facts)]


def _unreadable(rows: Rows, facts: ImageFacts) -> list[Finding]:
    missing = [i for i, reason in facts.reason.items() if reason.startswith(ABSENT)]
    found = []
    if missing:
        hints = [facts.reason[i].removeprefix(ABSENT) for i in missing]
        found.append(
            finding(
                "images.missing",
                "error",
                f"{len(missing)} image(s) are not where the rows say{max(hints)}",
                "correct image.root or the paths, or fetch the files; an empty path means that there is no image",
                rows.names(facts.row[missing]),
            )
        )
    reasons: dict[str, list[int]] = defaultdict(list)
    for i, reason in facts.reason.items():
        if not reason.startswith(ABSENT):
            reasons[reason].append(i)
    for reason, images in sorted(reasons.items(), key=lambda item: -len(item[1])):
        found.append(
            finding(
                "images.unreadable",
                "error",
                f"{len(images)} image(s) cannot be read: {reason}",
                "name in image.urls what may be read, or copy the images and name their paths"
                if NOT_PERMITTED in reason
                else "fetch them again or export them anew; else remove the rows",
                rows.names(facts.row[images]),
            )
        )
    return found


def _copies(rows: Rows, facts: ImageFacts, contents: Sequence[tuple]) -> list[Finding]:
    read = np.array([i for i in range(len(facts.path)) if i not in facts.reason], dtype=np.int64)
    if not len(read):
        return []
    _, first, same = np.unique(facts.digest[read], axis=0, return_index=True, return_inverse=True)
    members: list[list[int]] = [[] for _ in first]
    for i, kind in zip(read, same.ravel(), strict=True):
        members[kind].append(int(i))
    exact = [part for part in members if len(part) > 1]
    different = read[first][~facts.blank[read[first]]]
    pairs, crowded = near_hashes(facts.hash[different], NEAR_BITS)
    a, b = (facts.colour[different[pairs[:, side]]].astype(np.float32) for side in (0, 1))
    pairs = pairs[np.square(a - b).mean(axis=1) <= NEAR_COLOUR**2]
    near = [[int(different[i]) for i in part] for part in clusters(pairs, len(different))]
    return [
        *_copies_found(rows, facts, exact, contents, "copies", "the same file"),
        *_copies_found(rows, facts, near, contents, "near_copies", "nearly the same picture"),
        *tell_crowded("images", crowded),
    ]


def _copies_found(
    rows: Rows, facts: ImageFacts, sets: list[list[int]], contents: Sequence[tuple], kind: str, what: str
) -> list[Finding]:
    of_rows = [
        list({contents[row]: row for row in sorted(facts.row[part].tolist(), reverse=True)}.values()) for part in sets
    ]
    placed = place_sets(rows, map(sorted, of_rows))
    found = []
    if placed["splits"]:
        found.append(
            finding(
                f"images.{kind}_across_splits",
                "error",
                f"{what} is in rows of different groups in two splits: {in_sets(placed['splits'])}",
                "--groups FILE.csv joins the rows' groups (where splits are ratios or folds); or remove all but one",
                map(rows.examples, placed["splits"]),
            )
        )
    if placed["split"]:
        found.append(
            finding(
                f"images.{kind}",
                "warning",
                f"{what} is in rows of different groups of one split: {in_sets(placed['split'])}",
                "give the rows one group, or remove all but one; another split would tear them apart",
                map(rows.examples, placed["split"]),
            )
        )
    if placed["group"]:
        found.append(
            finding(
                f"images.{kind}_in_a_group",
                "info",
                f"{what} is in several rows of a group: {in_sets(placed['group'])}",
                "nothing, as groups are kept whole; such rows carry less information than their number suggests",
                map(rows.examples, placed["group"]),
            )
        )
    return found


def _strange(rows: Rows, facts: ImageFacts) -> list[Finding]:
    there = np.array([i not in facts.reason for i in range(len(facts.path))], dtype=bool)
    short, long = facts.size.min(axis=1, initial=2**31), facts.size.max(axis=1, initial=0)
    kinds: tuple[tuple[str, Severity, np.ndarray, str, str], ...] = (
        (
            "images.blank",
            "warning",
            facts.blank,
            "are blank: one gray from edge to edge",
            "look at them; remove the rows, or leave the image out",
        ),
        (
            "images.small",
            "info",
            short < _SMALL,
            f"are less than {_SMALL} pixels high or wide",
            "look whether they are thumbnails or icons that came in by mistake",
        ),
        (
            "images.narrow",
            "info",
            long > _NARROW * np.maximum(short, 1),
            f"are more than {_NARROW:g} times as long as wide",
            "resize: pad keeps their shape; squash distorts and crop loses most of them",
        ),
        (
            "images.frames",
            "warning",
            facts.frames > 1,
            f"have more than one frame (pages, slices; {facts.frames.max(initial=1)} at most): the first is read",
            "if another one is meant, save it as an image of its own; several may be the images of one row",
        ),
    )
    found = []
    for check, severity, chosen, what, fix in kinds:
        images = np.flatnonzero(chosen & there)
        if len(images):
            message = f"{len(images)} image(s) {what}"
            found.append(finding(check, severity, message, fix, rows.names(facts.row[images])))
    return found
