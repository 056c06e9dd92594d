"""The built-in SYNTHETIC dataset with one known interaction a task, written: 64x64 pictures of symbols, and sentences.

`mmfuse.data.synthetic.interaction_examples` says what is known of it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmfuse.data.synthetic.interaction_examples import (
    CLASSES,
    IMAGE_STREAM,
    NOTICE,
    SEVERAL,
    SPLIT_START,
    SYMBOL_CLASSES,
    SYMBOLS_STREAM,
    TEXT_STREAM,
    make_example,
    make_symbols,
    render,
    stream,
    write_text,
)
from mmfuse.data.synthetic.symbols import (
    draw,
    say,
)
from mmfuse.types import MmfuseError

_MANIFEST = """\
name: {name}
version: 1
about: >-
  {notice}
  {about}
licence: CC0-1.0
rows: data.csv
id: id
image: {{column: image}}
text: {{columns: [text]}}
tasks:
{tasks}splits: {{column: split}}
"""
_TASK = "  {task}: {{type: {type}, column: {task}, values: {values}, label_origin: synthetic}}\n"
_SEVERAL = 'multilabel, separator: " "'


class _Row(NamedTuple):
    """One row to write: its name, split, picture, sentence, and the class of each task, or the classes."""

    id: str
    split: str
    image: Image.Image
    text: str
    targets: Mapping[str, int | tuple[int, ...]]


def write_interactions(
    out: Path,
    *,
    train: int = 40_000,
    validation: int = 5_000,
    test: int = 15_000,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write `images/ID.png`, `data.csv` and `manifest.yaml` with all six tasks, and return the manifest's path.

    A split takes the examples from its `SPLIT_START` on: no two share one, and each grows without touching another.

    Args:
        out: A new or empty folder, or an earlier set of this kind, which is replaced.
        train: Examples to train on, at least 0; about 9 kB each.
        validation: Examples to choose by, at least 0.
        test: Examples to report, at least 0.
        seed: At least 0.
        progress: Called after each example with how many are done.

    Raises:
        MmfuseError: `out` holds something else, or a number is out of range.
    """
    counts = {"train": train, "validation": validation, "test": test}
    limit = SPLIT_START["validation"]
    if not all(0 <= count <= limit for count in counts.values()) or not any(counts.values()):
        raise MmfuseError(f"interactions: each split has 0 to {limit} examples, and one must have some; got {counts}")

    def rows() -> Iterator[_Row]:
        for split, count in counts.items():
            for index in range(SPLIT_START[split], SPLIT_START[split] + count):
                example = make_example(seed, index)
                yield _Row(example.id, split, render(example), write_text(example), example.targets)

    about = (
        f"{train} examples to train, {validation} to validate, {test} to test (seed {seed}), by "
        "`mmfuse data interactions`.\n  Redundant is in both modalities, unique_text and unique_image in one, "
        "modular_sum and match only in the two together,\n  binding in which shape has which colour."
    )
    return _write_set(out, "interactions", about, CLASSES, rows(), seed, progress)


def write_symbols(out: Path, count: int, seed: int = 0, progress: Callable[[int], None] | None = None) -> Path:
    """Write pictures and sentences as full as those of interactions, a set of its own to train encoders on.

    Tasks are `SYMBOL_CLASSES`: to read each symbol that is shown or told. None of them is a task of interactions, and
    picture and sentence of a row are independent: `image_...` is learnt from images and `text_...` from texts alone.

    Args:
        out: A new or empty folder, or an earlier set of this kind, which is replaced.
        count: At least 1; of every ten, eight are to train, one to validate and one to test.
        seed: At least 0; the symbols of a seed have nothing to do with its interactions.
        progress: Called after each row with how many are done.

    Raises:
        MmfuseError: `out` holds something else, or a number is out of range.
    """
    if count < 1:
        raise MmfuseError(f"interactions: count of symbols must be 1 or more, got {count}")

    def rows() -> Iterator[_Row]:
        for index in range(count):
            pair = make_symbols(seed, index)
            image = draw(pair.shown, stream(seed, index, SYMBOLS_STREAM, IMAGE_STREAM))
            text = say(pair.told, stream(seed, index, SYMBOLS_STREAM, TEXT_STREAM))
            split = {8: "validation", 9: "test"}.get(index % 10, "train")
            yield _Row(pair.id, split, image, text, pair.targets)

    about = (
        f"{count} pictures, each beside an unrelated sentence (seed {seed}), by `mmfuse data interactions`.\n  "
        "The tasks are to read each symbol that is shown or told, to train encoders of one modality."
    )
    return _write_set(out, "symbols", about, SYMBOL_CLASSES, rows(), seed, progress)


def _write_set(
    out: Path,
    name: str,
    about: str,
    classes: dict[str, tuple[str, ...]],
    rows: Iterator[_Row],
    seed: int,
    progress: Callable[[int], None] | None,
) -> Path:
    """Write the rows, the table and the manifest of a set called `name`, and return the manifest's path."""
    out = Path(out)
    manifest, table, images = out / "manifest.yaml", out / "data.csv", out / "images"
    head = f"name: {name}\nversion: 1\nabout: >-\n  SYNTHETIC"
    _claim(out, name, seed, ours=manifest.is_file() and manifest.read_bytes().startswith(head.encode()))
    # The manifest first and the table last: if the writing is cut short, the folder is known as ours, and not readable.
    table.unlink(missing_ok=True)
    types = {task: _SEVERAL if task in SEVERAL else "classification" for task in classes}
    tasks = "".join(
        _TASK.format(task=task, type=types[task], values=json.dumps(names)) for task, names in classes.items()
    )
    text = _MANIFEST.format(name=name, notice=NOTICE, about=about, tasks=tasks)
    manifest.write_text(text, encoding="utf-8", newline="\n")
    images.mkdir(exist_ok=True)
    stale = {path.name for path in images.glob(f"{name}-*-*.png")}
    part = out / "data.csv.part"
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "image", "text", "split", *classes, "origin"])
        for done, row in enumerate(rows, start=1):
            (images / f"{row.id}.png").write_bytes(_png(row.image))
            stale.discard(f"{row.id}.png")
            targets = (_named(names, row.targets[task]) for task, names in classes.items())
            writer.writerow([row.id, f"images/{row.id}.png", row.text, row.split, *targets, "SYNTHETIC"])
            if progress:
                progress(done)
    for file_name in stale:
        (images / file_name).unlink()
    part.replace(table)
    return manifest


def _named(names: tuple[str, ...], target: int | tuple[int, ...]) -> str:
    return names[target] if isinstance(target, int) else " ".join(names[symbol] for symbol in target)


def _claim(out: Path, name: str, seed: int, *, ours: bool) -> None:
    """Make the folder `out`, unless it holds what is not ours or nothing can be written."""
    if seed < 0:
        raise MmfuseError(f"{name}: seed must be 0 or more, got {seed}")
    if out.exists() and not out.is_dir():
        raise MmfuseError(f"{name}: {out} is a file; name a new or empty folder")
    if out.is_dir() and any(out.iterdir()) and not ours:
        raise MmfuseError(f"{name}: {out} is not empty and not a set of {name}; name a new or empty folder")
    out.mkdir(parents=True, exist_ok=True)


def _png(image: Image.Image) -> bytes:
    info = PngInfo()
    info.add_text("Description", NOTICE)
    buffer = BytesIO()
    image.save(buffer, "PNG", pnginfo=info, compress_level=1)
    return buffer.getvalue()
