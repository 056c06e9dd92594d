"""The built-in SYNTHETIC dataset with one known interaction a task: 64x64 pictures of symbols, and sentences.

Six tasks are asked of every pair. Each rests on latent symbols, uniform over eight and independent, of which picture
and sentence give their own noisy copies: with a known probability a copy is replaced by a uniform symbol. So the best
accuracy that any model can reach from the text, the image or both is known exactly (`bayes_accuracy`):

- redundant: a letter, shown and said; a border and a cue word tell, example by example, how far to trust each copy;
- unique_text: an item, only said (the one shown is another); unique_image: a direction, only shown (likewise);
- modular_sum: (the number said + the dots shown) mod 8, of which each alone says nothing;
- match: is the banner's colour the one that is said? Each alone says nothing here too;
- binding: of four coloured shapes, which colour has the one that is asked for? A list of shapes and a list of colours
  do not tell: which goes with which must be seen.

All of an example follows from `(seed, index)`, so a larger set contains the smaller one. Targets are the latent truth,
the objects' shapes and the one asked for are without noise. Only numpy and Pillow are needed.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmfuse.data.synthetic.symbols import (
    COLOURS,
    CUES,
    DIRECTIONS,
    ITEMS,
    LETTERS,
    NUMBERS,
    OBJECT_CELLS,
    SHAPES,
    Shown,
    Thing,
    Told,
    draw,
    read_symbols,
    say,
)
from mmfuse.types import MmfuseError

__all__ = [
    "CLASSES",
    "INTERACTION",
    "NUM_CLASSES",
    "SEVERAL",
    "SPLIT_START",
    "SYMBOL_CLASSES",
    "TASKS",
    "Example",
    "SymbolPair",
    "bayes_accuracy",
    "bayes_predictions",
    "make_example",
    "make_symbols",
    "read_symbols",
    "render",
    "write_interactions",
    "write_symbols",
    "write_text",
]

TASKS = ("redundant", "unique_text", "unique_image", "modular_sum", "match", "binding")
INTERACTION = dict(zip(TASKS, ("redundant", "text", "image", "synergy", "synergy", "binding"), strict=True))
CLASSES = {
    "redundant": LETTERS,
    "unique_text": ITEMS,
    "unique_image": DIRECTIONS,
    "modular_sum": tuple("01234567"),
    "match": ("no", "yes"),
    "binding": tuple(COLOURS),
}
"""By task, the names of its classes; a target is a place in them."""
NUM_CLASSES = {task: len(names) for task, names in CLASSES.items()}

K = 8
"""Symbols in every alphabet."""
N_OBJECTS = 4
EPS_TEXT, EPS_IMAGE = 0.10, 0.20
EPS_CUE = (0.05, 0.60)
"""How probably the letter is replaced where its cue says it can be trusted, and where not."""

SPLIT_START = {"train": 0, "validation": 10**7, "test": 2 * 10**7}
"""The index of each split's first example; a split holds at most 10^7."""
NOTICE = "SYNTHETIC symbols made by mmfuse; nothing in it was seen or said by anyone."

_EXAMPLE, _SYMBOLS, _IMAGE, _TEXT = 0, 1, 2, 3
"""The random streams: `(seed, index, set)` makes what is shown and told, `(..., set, modality)` draws or words it."""


# ---------------------------------------------------------------------------------------------------------- the latents


@dataclass(frozen=True)
class Example:
    """One example, known completely: what is true, what its picture shows and what its sentence tells.

    Attributes:
        seed: Of the set it belongs to.
        index: In that set.
        latents: The true symbols, each 0 to 7: letter, item, direction, number, count, and the two colours that match
            compares, `told_banner` and `shown_banner`.
        colours: The true colours of the four objects, in the order of `shown.objects`.
        shown: All that the picture shows.
        told: All that the sentence tells.
        targets: By task, the class.
    """

    seed: int
    index: int
    latents: dict[str, int]
    colours: tuple[int, ...]
    shown: Shown
    told: Told
    targets: dict[str, int]

    @property
    def id(self) -> str:
        """The name that tells seed and index, such as `interactions-0-00000123`."""
        return f"interactions-{self.seed}-{self.index:08d}"


def make_example(seed: int, index: int) -> Example:
    """Draw example `index` of the set `seed`.

    Args:
        seed: At least 0.
        index: At least 0.

    Raises:
        MmfuseError: One of them is negative.
    """
    rng = _stream(seed, index, _EXAMPLE)
    letter, item, direction, number, count, told_banner, other_item, other_direction = _uniform(rng, 8)
    letter_cues = [int(cue) for cue in rng.integers(2, size=2)]
    match, apart = int(rng.integers(2)), int(rng.integers(1, K))
    shown_banner = told_banner if match else (told_banner + apart) % K
    shapes = [int(shape) for shape in rng.permutation(K)[:N_OBJECTS]]
    cells = [OBJECT_CELLS[place] for place in rng.permutation(len(OBJECT_CELLS))[:N_OBJECTS]]
    colours = _uniform(rng, N_OBJECTS)
    asked = int(rng.integers(N_OBJECTS))

    told_symbols = (letter, item, number, told_banner)
    told_eps = (EPS_CUE[letter_cues[0]], EPS_TEXT, EPS_TEXT, EPS_TEXT)
    shown_symbols = (letter, direction, count, shown_banner, *colours)
    shown_eps = (EPS_CUE[letter_cues[1]], *[EPS_IMAGE] * (3 + N_OBJECTS))
    copies = _corrupt(rng, (*told_symbols, *shown_symbols), (*told_eps, *shown_eps))
    told, shown, seen_colours = copies[:4], copies[4:8], copies[8:]
    return Example(
        seed=seed,
        index=index,
        latents={
            "letter": letter,
            "item": item,
            "direction": direction,
            "number": number,
            "count": count,
            "told_banner": told_banner,
            "shown_banner": shown_banner,
        },
        colours=tuple(colours),
        shown=Shown(
            letter=shown[0],
            cue=letter_cues[1],
            count=shown[2],
            direction=shown[1],
            item=other_item,
            banner=shown[3],
            objects=tuple(Thing(*thing) for thing in zip(shapes, seen_colours, cells, strict=True)),
        ),
        told=Told(
            letter=told[0],
            cue=letter_cues[0],
            item=told[1],
            number=told[2],
            banner=told[3],
            shape=shapes[asked],
            direction=other_direction,
        ),
        targets={
            "redundant": letter,
            "unique_text": item,
            "unique_image": direction,
            "modular_sum": (number + count) % K,
            "match": match,
            "binding": colours[asked],
        },
    )


def _stream(seed: int, index: int, *tags: int) -> np.random.Generator:
    if seed < 0 or index < 0:
        raise MmfuseError(f"interactions: seed and index must be 0 or more, got seed={seed}, index={index}")
    return np.random.default_rng((seed, index, *tags))


def _uniform(rng: np.random.Generator, count: int) -> list[int]:
    return rng.integers(K, size=count).tolist()


def _corrupt(rng: np.random.Generator, symbols: tuple[int, ...], eps: tuple[float, ...]) -> list[int]:
    """The symbols, each replaced with its own probability by a uniform one (which may be the same)."""
    replaced = rng.random(len(symbols)) < np.array(eps)
    return np.where(replaced, rng.integers(K, size=len(symbols)), symbols).tolist()


def render(example: Example) -> Image.Image:
    """The example's picture, `(64, 64)` mode "RGB"; it depends on `shown` alone, besides seed and index."""
    return draw(example.shown, _stream(example.seed, example.index, _EXAMPLE, _IMAGE))


def write_text(example: Example) -> str:
    """The example's sentence, at most 18 lower-case words; it depends on `told` alone, besides seed and index."""
    return say(example.told, _stream(example.seed, example.index, _EXAMPLE, _TEXT))


# -------------------------------------------------------------------------------------------------- the known answers


def _channel(eps: float) -> np.ndarray:
    """`P(copy | symbol)`, `(K, K)`."""
    return (1 - eps) * np.eye(K) + eps / K


@cache
def _joint(task: str) -> np.ndarray:
    """`P(class, text observation, image observation)` of the symbols that bear on a task, `(classes, T, I)`.

    By enumeration of the latents. Observations are numbered as `_observed` does; a modality that bears nothing has one.
    """
    said, seen = _channel(EPS_TEXT), _channel(EPS_IMAGE)
    uniform = np.full(K, 1 / K)
    if task == "redundant":
        cued = np.concatenate([_channel(eps) / 2 for eps in EPS_CUE], axis=1)  # (letter, cue and copy)
        return np.einsum("y,yt,yi->yti", uniform, cued, cued)
    if task == "unique_text":
        return np.einsum("y,yt->yt", uniform, said)[:, :, None]
    if task == "unique_image":
        return np.einsum("y,yi->yi", uniform, seen)[:, None, :]
    if task == "modular_sum":
        number, count = np.indices((K, K))
        sums = (number + count) % K == np.arange(K)[:, None, None]
        return np.einsum("yab,at,bi->yti", sums / K**2, said, seen)
    if task == "match":
        same = np.eye(K) / K
        apart = (1 - np.eye(K)) / (K * (K - 1))
        return np.einsum("yab,at,bi->yti", np.stack([apart, same]) / 2, said, seen)
    # Binding: which of the objects is asked for, and the colours that they show in all K^4 ways.
    shown = np.indices((K,) * N_OBJECTS).reshape(N_OBJECTS, -1)
    return seen[:, shown] / N_OBJECTS / K**N_OBJECTS


def _observed(task: str, example: Example) -> tuple[int, int]:
    """What the text and the image of an example say on a task, as places in `_joint(task)`."""
    told, shown = example.told._asdict(), example.shown._asdict()
    if task == "redundant":
        return K * told["cue"] + told["letter"], K * shown["cue"] + shown["letter"]
    if task == "binding":
        # The text says only the shape. Over all images, each object has it as often: alone it is worth nothing.
        asked = [thing.shape for thing in shown["objects"]].index(told["shape"])
        place = 0
        for thing in shown["objects"]:
            place = K * place + thing.colour
        return asked, place
    if task == "unique_text":
        return told["item"], 0
    if task == "unique_image":
        return 0, shown["direction"]
    return (told["number"], shown["count"]) if task == "modular_sum" else (told["banner"], shown["banner"])


def _marginals(task: str) -> dict[str, np.ndarray]:
    """`P(class, observation)` by modality, each `(classes, T, I)` with 1 for what is not seen."""
    joint = _joint(task)
    return {"text": joint.sum(2, keepdims=True), "image": joint.sum(1, keepdims=True), "both": joint}


def bayes_accuracy() -> dict[str, dict[str, float]]:
    """The best accuracy that any model can have, by task and modality ("text", "image", "both"), by exact enumeration.

    It is the expected probability of the most probable class: the sum over observations of `max P(class, observation)`.
    From the image alone, binding is best answered by the most frequent of the four colours shown; all 8^4 are counted.
    """
    return {
        task: {modality: float(joint.max(0).sum()) for modality, joint in _marginals(task).items()} for task in TASKS
    }


@cache
def _decisions(task: str) -> dict[str, np.ndarray]:
    """The most probable class by modality, `(T, I)` with 1 for what is not seen; of equals, the first."""
    return {modality: joint.round(12).argmax(0) for modality, joint in _marginals(task).items()}


def bayes_predictions(example: Example) -> dict[str, dict[str, int]]:
    """The most probable class given what the example tells and shows, by task and modality; of equals, the first."""
    predictions = {}
    for task in TASKS:
        text, image = _observed(task, example)
        by = _decisions(task)
        predictions[task] = {
            "text": int(by["text"][text, 0]),
            "image": int(by["image"][0, image]),
            "both": int(by["both"][text, image]),
        }
    return predictions


# ---------------------------------------------------------------------------------------- symbols, to train encoders on

SYMBOL_CLASSES: dict[str, tuple[str, ...]] = {
    "image_letter": LETTERS,
    "image_cue": CUES,
    "image_count": NUMBERS,
    "image_direction": DIRECTIONS,
    "image_item": ITEMS,
    "image_banner": tuple(COLOURS),
    "image_shapes": SHAPES,
    "image_colours": tuple(COLOURS),
    "text_letter": LETTERS,
    "text_cue": CUES,
    "text_item": ITEMS,
    "text_number": NUMBERS,
    "text_banner": tuple(COLOURS),
    "text_shape": SHAPES,
    "text_direction": DIRECTIONS,
}
"""By task of a set of symbols, the names of its classes."""
SEVERAL = frozenset({"image_shapes", "image_colours"})
"""Of these, the tasks in which a row can have several: the objects', and never which shape has which colour."""


@dataclass(frozen=True)
class SymbolPair:
    """A full picture beside a full but unrelated sentence: all symbols are uniform, independent and without noise.

    Attributes:
        seed: Of the set it belongs to.
        index: In that set.
        shown: As much as an example of interactions shows.
        told: As much as an example of interactions tells.
    """

    seed: int
    index: int
    shown: Shown
    told: Told

    @property
    def id(self) -> str:
        """The name that tells seed and index, such as `symbols-0-00000123`."""
        return f"symbols-{self.seed}-{self.index:08d}"

    @property
    def targets(self) -> dict[str, int | tuple[int, ...]]:
        """By task, the class, or for `SEVERAL` the classes in order: each symbol by itself, nothing of two together."""
        seen = {f"image_{name}": symbol for name, symbol in self.shown._asdict().items() if name != "objects"}
        said = {f"text_{name}": symbol for name, symbol in self.told._asdict().items()}
        objects = self.shown.objects
        several = {
            "image_shapes": tuple(sorted({thing.shape for thing in objects})),
            "image_colours": tuple(sorted({thing.colour for thing in objects})),
        }
        return seen | several | said


def make_symbols(seed: int, index: int) -> SymbolPair:
    """Draw pair `index` of the set of symbols `seed`; both at least 0."""
    rng = _stream(seed, index, _SYMBOLS)
    letter, count, direction, item, banner = _uniform(rng, 5)
    told_letter, told_item, number, told_banner, shape, told_direction = _uniform(rng, 6)
    shown_cue, told_cue = rng.integers(2, size=2).tolist()
    shapes, cells = rng.permutation(K)[:N_OBJECTS].tolist(), rng.permutation(OBJECT_CELLS)[:N_OBJECTS].tolist()
    things = zip(shapes, _uniform(rng, N_OBJECTS), cells, strict=True)
    return SymbolPair(
        seed=seed,
        index=index,
        shown=Shown(letter, shown_cue, count, direction, item, banner, tuple(Thing(*thing) for thing in things)),
        told=Told(told_letter, told_cue, told_item, number, told_banner, shape, told_direction),
    )


# ---------------------------------------------------------------------------------------------------------- the files

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
        "mmfuse/data/interactions.py.\n  Redundant is in both modalities, unique_text and unique_image in one, "
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
            image = draw(pair.shown, _stream(seed, index, _SYMBOLS, _IMAGE))
            text = say(pair.told, _stream(seed, index, _SYMBOLS, _TEXT))
            split = {8: "validation", 9: "test"}.get(index % 10, "train")
            yield _Row(pair.id, split, image, text, pair.targets)

    about = (
        f"{count} pictures, each beside an unrelated sentence (seed {seed}), by mmfuse/data/interactions.py.\n  "
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
