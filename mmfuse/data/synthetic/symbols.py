"""The pictures and sentences of the built-in dataset `interactions`: what can be shown, said, and read back.

A picture is 64x64 RGB, 4x4 cells of 16 px: the top row is a banner, the second row holds a letter in a border, dots, an
arrow and an item, and each of the eight cells below is empty or holds a coloured object. A sentence has a clause for
each thing that it tells. Every alphabet has eight symbols, 0 to 7; in a text no word belongs to two of them.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

LETTERS = tuple("hklmstxz")
CUES = ("clearly", "possibly")
ITEMS = ("boat", "cup", "fish", "heart", "house", "key", "tree", "umbrella")
DIRECTIONS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
NUMBERS = ("eight", "one", "two", "three", "four", "five", "six", "seven")
COLOURS = {
    "red": (225, 25, 25),
    "orange": (255, 140, 0),
    "yellow": (250, 240, 30),
    "green": (30, 180, 40),
    "aqua": (0, 225, 235),
    "blue": (40, 60, 255),
    "pink": (255, 60, 220),
    "white": (255, 255, 255),
}
SHAPES = ("circle", "square", "triangle", "cross", "star", "ring", "diamond", "bar")
OBJECT_CELLS = tuple(range(8, 16))
"""Where objects can be; cells are counted from 0 to 15, row by row."""


class Thing(NamedTuple):
    """An object of a picture: which shape, which colour (both 0 to 7), in which of `OBJECT_CELLS`."""

    shape: int
    colour: int
    cell: int


class Shown(NamedTuple):
    """What a picture shows; None is what it does not.

    Attributes:
        letter: In `LETTERS`.
        cue: Of the letter: 0 for a solid border, 1 for a dashed one.
        count: Dots; 0 stands for eight of them.
        direction: Of the arrow, in `DIRECTIONS`.
        item: In `ITEMS`.
        banner: Its colour, in `COLOURS`.
        objects: Each in a cell of its own.
    """

    letter: int | None = None
    cue: int | None = None
    count: int | None = None
    direction: int | None = None
    item: int | None = None
    banner: int | None = None
    objects: tuple[Thing, ...] = ()


class Told(NamedTuple):
    """What a sentence says; None is what it does not.

    Attributes:
        letter: In `LETTERS`.
        cue: Of the letter: 0 for "clearly", 1 for "possibly".
        item: In `ITEMS`.
        number: In `NUMBERS`; 0 is said as "eight".
        banner: The colour it has, the sentence says; in `COLOURS`.
        shape: That is asked for, in `SHAPES`.
        direction: In `DIRECTIONS`.
    """

    letter: int | None = None
    cue: int | None = None
    item: int | None = None
    number: int | None = None
    banner: int | None = None
    shape: int | None = None
    direction: int | None = None


# -------------------------------------------------------------------------------------------------------- the sentence

_WORDS: dict[str, tuple[str, ...]] = {
    "letter": LETTERS,
    "item": ITEMS,
    "number": NUMBERS,
    "banner": tuple(COLOURS),
    "shape": SHAPES,
    "direction": DIRECTIONS,
}
_TEMPLATES = {
    "letter": ("{cue} letter {}", "letter {} {cue}", "{cue} reads {}", "reads {cue} {}", "{cue} marked {}", "{} {cue}"),
    "item": ("item {}", "carries {}", "holding the {}", "{} in bag", "owns this {}", "brought {}"),
    "number": ("number {}", "plus {}", "add {}", "{} more", "adding {} on", "{} extra"),
    "banner": ("banner {}", "{} banner", "banner is {}", "{} flag", "flag looks {}", "top in {}"),
    "shape": ("find the {}", "which {}", "what colour {}", "ask for {}", "{} wanted", "query {}"),
    "direction": ("facing {}", "heading {}", "wind from {}", "{} wind", "towards {}", "going {}"),
}
"""By clause: how it is said, in two or three words. None of them is a symbol's."""


def say(told: Told, rng: np.random.Generator) -> str:
    """Say one clause for each thing told, in random order and words, without punctuation: at most 18 words.

    Args:
        told: What to say; the cue goes with the letter, both or neither.
        rng: Chooses templates and order, drawing the same whatever is told.
    """
    choices = rng.integers(6, size=len(_WORDS))
    order = rng.permutation(len(_WORDS))
    clauses = []
    for slot, choice in zip(_WORDS, choices, strict=True):
        symbol = getattr(told, slot)
        if symbol is None:
            clauses.append("")
            continue
        cue = "" if told.cue is None else CUES[told.cue]
        clauses.append(_TEMPLATES[slot][choice].format(_WORDS[slot][symbol], cue=cue))
    return " ".join(clauses[i] for i in order if clauses[i])


# --------------------------------------------------------------------------------------------------------- the picture

_ART = {
    "letter": """
............ ............ ............ ............ ............ ............ ............ ............
..##....##.. ..##....##.. ..##........ ..##....##.. ...######... ..########.. ..##....##.. ..########..
..##....##.. ..##...##... ..##........ ..###..###.. ..########.. ..########.. ..##....##.. ..########..
..##....##.. ..##..##.... ..##........ ..########.. ..##........ .....##..... ...##..##... .......##...
..##....##.. ..##.##..... ..##........ ..########.. ..##........ .....##..... ....####.... ......##....
..########.. ..####...... ..##........ ..##.##.##.. ..#######... .....##..... .....##..... .....##.....
..########.. ..####...... ..##........ ..##.##.##.. ...#######.. .....##..... .....##..... .....##.....
..##....##.. ..##.##..... ..##........ ..##....##.. ........##.. .....##..... ....####.... ....##......
..##....##.. ..##..##.... ..##........ ..##....##.. ........##.. .....##..... ...##..##... ...##.......
..##....##.. ..##...##... ..########.. ..##....##.. ..########.. .....##..... ..##....##.. ..########..
..##....##.. ..##....##.. ..########.. ..##....##.. ...######... .....##..... ..##....##.. ..########..
............ ............ ............ ............ ............ ............ ............ ............
""",
    "item": """
......#..... ............ ............ ............ .....##..... ............ .....##..... .....##.....
.....##..... .########... ............ ..##....##.. ....####.... ............ ....####.... ...######...
.....####... .########... ...#####...# .####..####. ...######... ............ ...######... ..########..
.....######. .########### .########.## ############ ..########.. .####....... ..########.. .##########.
.....####### .########.## ##..######## ############ .##########. ##..##...... ....####.... ############
.....######. .########.## ##..######## ############ ############ #....####### ...######... ##.##..##.##
.....##..... .########.## ############ .##########. .##########. #....####### ..########.. .....##.....
.....##..... .########### .########.## ..########.. .##..##..##. ##..##..#.## .##########. .....##.....
############ .########... ...#####...# ...######... .##..##..##. .####...#.## ############ .....##.....
.##########. .########... ............ ....####.... .######..##. ........#... .....##..... ..#..##.....
..########.. ..######.... ............ .....##..... .######..##. ............ .....##..... ..##.##.....
............ ############ ............ ............ .######..##. ............ .....##..... ...####.....
""",
    "shape": """
....####.... ............ ............ ....####.... .....##..... ....####.... .....##..... ............
..########.. .##########. .....##..... ....####.... .....##..... ..########.. ....####.... ............
.##########. .##########. .....##..... ....####.... .....##..... .####..####. ...######... ............
.##########. .##########. ....####.... ....####.... ....####.... .##......##. ..########.. ............
############ .##########. ....####.... ############ ############ ###......### .##########. ############
############ .##########. ...######... ############ .##########. ##........## ############ ############
############ .##########. ...######... ############ ..########.. ##........## ############ ############
############ .##########. ..########.. ############ ...######... ###......### .##########. ############
.##########. .##########. ..########.. ....####.... ...######... .##......##. ..########.. ............
.##########. .##########. .##########. ....####.... ..###..###.. .####..####. ...######... ............
..########.. .##########. .##########. ....####.... ..##....##.. ..########.. ....####.... ............
....####.... ............ ############ ....####.... .#........#. ....####.... .....##..... ............
""",
    "arrow": """
.....##..... ....########
....####.... .....#######
...######... ......######
..########.. ......######
.##########. .....#######
....####.... ....####.###
....####.... ...####...##
....####.... ..####.....#
....####.... .####.......
....####.... .###........
....####.... ............
............ ............
""",
}
"""The glyphs, 12x12 each, in the order of their alphabets; arrows to the north and northeast, the others are turned."""

_DOTS = ("xxxx xxxx", "    x    ", "x       x", "x   x   x", "x x   x x", "x x x x x", "x xx xx x", "x xxxxx x")
"""By count (0 for eight): which places of a 3x3 grid hold a dot."""

_INK, _NOISE = 160, 8
_CELL = {"letter": 4, "count": 5, "direction": 6, "item": 7}
_JITTERS = tuple((down, across) for down in (-1, 0, 1) for across in (-1, 0, 1))


def _masks(name: str) -> list[np.ndarray]:
    """The glyphs of `_ART[name]` as `(14, 14)` bool: each with a margin of a pixel."""
    lines = [line.split() for line in _ART[name].strip().splitlines()]
    return [
        np.pad(np.array([[pixel == "#" for pixel in row] for row in glyph]), 1) for glyph in zip(*lines, strict=True)
    ]


def _border(dashed: bool) -> np.ndarray:
    """`(14, 14)` bool: a line around it, without a gap or two pixels on and two off."""
    row, column = np.indices((14, 14))
    edge = (row % 13 == 0) | (column % 13 == 0)
    return edge & ((row + column) % 4 < 2) if dashed else edge


@cache
def _stamps() -> dict[str, np.ndarray]:
    """By kind of thing, the `(symbols, 14, 14)` bool masks; a letter's symbol is `8 * cue + letter`."""
    letters, items, shapes, (north, northeast) = (_masks(name) for name in _ART)
    dots = np.zeros((len(_DOTS), 14, 14), bool)
    for mask, places in zip(dots, _DOTS, strict=True):
        for place in np.flatnonzero([mark == "x" for mark in places]):
            row, column = divmod(int(place), 3)
            mask[5 * row : 5 * row + 3, 5 * column : 5 * column + 3] = True
    return {
        "letter": np.stack([letter | _border(dashed) for dashed in (False, True) for letter in letters]),
        "count": dots,
        "direction": np.stack([np.rot90(arrow, -turn) for turn in range(4) for arrow in (north, northeast)]),
        "item": np.stack(items),
        "shape": np.stack(shapes),
    }


_PALETTE = np.array(list(COLOURS.values()), np.float32)


def draw(shown: Shown, rng: np.random.Generator) -> Image.Image:
    """Draw what is shown as a `(64, 64)` mode "RGB" picture on a dim background, with a pixel of jitter and with noise.

    Args:
        shown: What to draw; the cue goes with the letter, both or neither.
        rng: Chooses background, jitter and noise, drawing the same whatever is shown.
    """
    background = rng.integers(8, 57, 3)
    corners = rng.integers(-1, 2, (16, 2)) + 1
    noise = rng.standard_normal((64, 64, 3), dtype=np.float32)
    canvas = np.empty((64, 64, 3), np.float32)
    canvas[:] = background

    def stamp(cell: int, mask: np.ndarray, ink: np.ndarray | int) -> None:
        top, left = corners[cell] + (cell // 4 * 16, cell % 4 * 16)
        canvas[top : top + 14, left : left + 14][mask] = ink

    stamps = _stamps()
    if shown.banner is not None:
        top, left = corners[0] + 1
        canvas[top : top + 12, left : left + 60] = _PALETTE[shown.banner]
    for name, cell in _CELL.items():
        symbol = getattr(shown, name)
        if symbol is not None:
            symbol += len(LETTERS) * bool(shown.cue) if name == "letter" else 0
            stamp(cell, stamps[name][symbol], _INK)
    for thing in shown.objects:
        stamp(thing.cell, stamps["shape"][thing.shape], _PALETTE[thing.colour])
    canvas += _NOISE * noise
    return Image.fromarray(canvas.clip(0, 255).round().astype(np.uint8))


# ---------------------------------------------------------------------------------------------------------- the reader

_NOTHING = 20_000.0
"""Less energy than this in a cell's best template is noise; nine faint pixels of ink have four times as much."""


@cache
def _templates(name: str) -> np.ndarray:
    """Every stamp of a kind in each of its nine places in a cell, `(symbols * 9, 256)` float32 of unit length."""
    stamps = _stamps()[name]
    cells = np.zeros((len(stamps), len(_JITTERS), 16, 16), np.float32)
    for place, (down, across) in enumerate(_JITTERS):
        cells[:, place, 1 + down : 15 + down, 1 + across : 15 + across] = stamps
    flat = cells.reshape(-1, 256)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def _read_cell(name: str, cell: np.ndarray) -> tuple[int, np.ndarray] | None:
    """The symbol of the template nearest to a cell in any ink, and that ink; None if the cell is empty.

    Args:
        name: The kind of thing that it may hold.
        cell: `(16, 16, 3)` less the background.
    """
    templates = _templates(name)
    amounts = templates @ cell.reshape(256, 3)
    energy = np.square(amounts).sum(1)
    best = int(energy.argmax())
    if energy[best] < _NOTHING:
        return None
    return best // len(_JITTERS), amounts[best] * templates[best].max()


def _nearest_colour(ink: np.ndarray) -> int:
    return int(np.square(_PALETTE - ink).sum(1).argmin())


def read_symbols(image: Image.Image) -> dict[str, Any]:
    """Read off a picture's pixels what it shows, by the nearest template; as `Shown`, by attribute.

    Args:
        image: `(64, 64)` mode "RGB", as `draw` gives it.
    """
    pixels = np.asarray(image, np.float32)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    rest = pixels - background
    cells = rest.reshape(4, 16, 4, 16, 3).swapaxes(1, 2).reshape(16, 16, 16, 3)
    found = {name: _read_cell(name, cells[cell]) for name, cell in _CELL.items()}
    seen: dict[str, Any] = {name: None if read is None else read[0] for name, read in found.items()}
    cue = None
    if seen["letter"] is not None:
        cue, seen["letter"] = divmod(seen["letter"], len(LETTERS))
    banner = rest[4:12, 4:60].mean((0, 1))
    things = [(cell, _read_cell("shape", cells[cell])) for cell in OBJECT_CELLS]
    return Shown(
        **seen,
        cue=cue,
        banner=_nearest_colour(banner + background) if np.abs(banner).max() > 40 else None,
        objects=tuple(
            Thing(read[0], _nearest_colour(read[1] + background), cell) for cell, read in things if read is not None
        ),
    )._asdict()
