"""Examples of the SYNTHETIC dataset with one known interaction a task: pictures of symbols, and sentences.

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

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

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
    say,
)
from mmfuse.types import MmfuseError

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

_EXAMPLE, SYMBOLS_STREAM, IMAGE_STREAM, TEXT_STREAM = range(4)
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
    rng = stream(seed, index, _EXAMPLE)
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


def stream(seed: int, index: int, *tags: int) -> np.random.Generator:
    """The random numbers of a use of an example."""
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
    return draw(example.shown, stream(example.seed, example.index, _EXAMPLE, IMAGE_STREAM))


def write_text(example: Example) -> str:
    """The example's sentence, at most 18 lower-case words; it depends on `told` alone, besides seed and index."""
    return say(example.told, stream(example.seed, example.index, _EXAMPLE, TEXT_STREAM))


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
    rng = stream(seed, index, SYMBOLS_STREAM)
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
