"""The film of a study, 64x64, and the oracle that reads of it what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmfuse.data.synthetic.phantom_study import IMAGE_STREAM, NOISE, PLACES, Place, Study

_Y, _X = np.mgrid[-31.5:32, -31.5:32]


@dataclass(frozen=True)
class _Body:
    """How one body differs from the average one, in pixels or as a fraction; the average is all zeros.

    Attributes:
        shift_x: To the right of the image.
        shift_y: Downwards.
        width: Of everything, as a fraction.
        height: Of everything, as a fraction.
        heart: Of the heart's width, as a fraction of what makes a heart large.
        diaphragm: Downwards.
        ribs: Phase of the ribs, downwards.
    """

    shift_x: float = 0.0
    shift_y: float = 0.0
    width: float = 0.0
    height: float = 0.0
    heart: float = 0.0
    diaphragm: float = 0.0
    ribs: float = 0.0


_SPREAD = _Body(shift_x=1.0, shift_y=1.0, width=0.03, height=0.03, heart=0.15, diaphragm=0.7, ribs=1.0)
"""Half the range that each property of a body varies in."""

_CENTRE = {
    ("opacity", "upper"): (14.0, -12.0),
    ("opacity", "lower"): (17.5, 0.5),
    ("nodule", "upper"): (14.5, -10.0),
    ("nodule", "lower"): (17.0, 0.5),
}
"""Distance from the midline and height of a finding, by finding and zone."""
_NODULE_RADIUS = 2.3


class _Spot(NamedTuple):
    """How one opacity or nodule differs from the average one: its offset in pixels and its size."""

    dx: float = 0.0
    dy: float = 0.0
    size: float = 1.0


def render(study: Study, mass: float | None = None) -> Image.Image:
    """The study's chest film, `(64, 64)` mode "L"; the patient's right is at the left of the image.

    It depends on `shown` and `places` alone. What a flipped symbol does not touch stays as it was.

    Args:
        study: What is on it.
        mass: In pixels: instead of the nodule, a round mass of this radius lies in the upper zone of its side.
    """
    rng = np.random.default_rng((study.seed, study.index, IMAGE_STREAM))
    body = _Body(*(spread * rng.uniform(-1, 1) for spread in vars(_SPREAD).values()))
    spots = {
        "opacity": _Spot(rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5), rng.uniform(0.9, 1.15)),
        "nodule": _Spot(rng.uniform(-2.5, 2.5), rng.uniform(-2.5, 2.5), rng.uniform(0.9, 1.1)),
    }
    contrast, brightness, grain = rng.uniform(0.92, 1.08), rng.uniform(-0.03, 0.03), rng.uniform(0.012, 0.03)
    noise = _BLUR @ rng.normal(0, 0.01, (16, 16)) @ _BLUR.T + rng.normal(0, grain, (64, 64))
    places = {name: study.places[name] for name, there in study.shown.items() if there}
    if mass is not None:  # in pixels of the film: a larger body has no larger one
        places["nodule"] = study.places["nodule"]._replace(zone="upper")
        size = mass / _NODULE_RADIUS / np.sqrt((1 + body.width) * (1 + body.height))
        spots["nodule"] = spots["nodule"]._replace(size=size)
    film = _paint(body, places, spots)
    film = 0.45 + contrast * (film - 0.45) + brightness + noise
    return Image.fromarray((film.clip(0, 1) * 255).round().astype(np.uint8), mode="L")


def _step(distance: np.ndarray, softness: float = 0.7) -> np.ndarray:
    """0 where `distance` (pixels) is negative, 1 where it is positive, soft in between."""
    return 1 / (1 + np.exp(-(distance / softness).clip(-30, 30)))


def _bump(distance: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-0.5 * (distance / width) ** 2)


_BLUR = _bump(np.arange(64)[:, None] - np.arange(1.5, 64, 4), 2.5)
"""Spreads 16 values over 64 pixels."""


def _paint(body: _Body, places: dict[str, Place], spots: dict[str, _Spot]) -> np.ndarray:
    """A film without noise, `(64, 64)` float in [0, 1], bright where dense, that shows the findings in `places`."""
    x = (_X - body.shift_x) / (1 + body.width)
    y = (_Y - body.shift_y) / (1 + body.height)
    across = np.abs(x)
    wall = 26.0 - 11.5 * ((-6 - y).clip(0) / 18) ** 2 + 0.05 * y.clip(0)  # the chest wall: rounded at the top
    dome = 12.0 + body.diaphragm + 1.5 * _step(x) + np.where(across > 14, 5.0, 1.5) * ((across - 14) / 11) ** 2
    lung = _step(wall - across) * _step(across - 5.0, 0.9) * _step(y + 24.5) * _step(dome - y)

    film = _soft_tissue(x, y, across, dome)
    film = film * (1 - lung) + lung * _lung_markings(x, y, across)
    film = film + _bones(x, y, across, wall, body.ribs)
    side = {name: -1.0 if place.side == "right" else 1.0 for name, place in places.items()}
    if "pneumothorax" in places:
        film = _with_pneumothorax(film, lung * (x * side["pneumothorax"] > 0), wall - across, y)
    film = _with_heart(film, x, y, body.heart + ("large_heart" in places))
    for name in ("opacity", "nodule"):
        if name in places:
            film = film + _spot(name, places[name], spots[name], x, y)
    if "effusion" in places:
        level = 12.0 - 7.0 * ((across - 6).clip(0) / 20) ** 2
        fluid = _step(y - level, 0.9) * _step(wall - across) * _step(dome + 3 - y) * (x * side["effusion"] > 4)
        film = film + fluid * (0.72 - film).clip(0)
    return film.clip(0, 1)


def _soft_tissue(x: np.ndarray, y: np.ndarray, across: np.ndarray, dome: np.ndarray) -> np.ndarray:
    """Shoulders, chest wall, abdomen with the gas in the stomach, and the mediastinum."""
    outline = _step(7.5 + 24.5 * _step(y + 25, 1.8) - across, 0.8)
    film = outline * (0.40 + 0.12 * (1 - (across / 32) ** 2))
    film = film + outline * 0.20 * _step(y - dome, 0.9) * _step(27 - across, 1.5)
    film = film - 0.15 * _bump(x - 13, 3.5) * _bump(y - dome.min() - 10.0, 2.0)
    film = film + 0.16 * _step(5.5 - across, 1.0) + 0.12 * _step(4.0 - np.hypot(x - 5.0, y + 9), 0.8)
    return film - 0.17 * _step(1.7 - across, 0.6) * _step(-9 - y, 1.0)


def _lung_markings(x: np.ndarray, y: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Aerated lung: dark, denser at the hila, with vessels that fan out of them."""
    dx, dy = across - 6.5, y + 2.0
    far = np.hypot(dx, dy)
    vessels = np.cos(9 * np.arctan2(dy, dx) + 0.25 * far + (x > 0)).clip(0) ** 2 * np.exp(-far / 9)
    return 0.17 + 0.03 * (y + 20).clip(0) / 35 + 0.20 * _bump(far, 3.2) + 0.09 * vessels


def _bones(x: np.ndarray, y: np.ndarray, across: np.ndarray, wall: np.ndarray, phase: float) -> np.ndarray:
    """What ribs, clavicles and spine add."""
    behind = np.cos(2 * np.pi * (y - phase + 1.0 - 0.012 * (across - 8) ** 2) / 6.5).clip(0) ** 2
    front = np.cos(2 * np.pi * (y - phase - 0.45 * across) / 7.5).clip(0) ** 2
    cage = _step(wall + 1.5 - across, 0.8) * _step(across - 4, 1.0) * _step(y + 25) * _step(15 - y, 1.5)
    clavicles = _bump(y + 16.5 + 0.30 * (across - 3), 0.9) * _step(across - 3) * _step(24 - across, 1.0)
    discs = np.cos(2 * np.pi * y / 4.6) * _step(3.2 - across) * _step(y + 28)
    return cage * (0.075 * behind + 0.035 * front) + 0.13 * clavicles + 0.02 * discs


def _spot(name: str, place: Place, spot: _Spot, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How dense an opacity (wide and hazy) or a nodule (small and sharp) is, in [0, 1]."""
    side = -1.0 if place.side == "right" else 1.0
    centre_x, centre_y = _CENTRE[name, place.zone]
    dx, dy = x - side * centre_x - spot.dx, y - centre_y - spot.dy
    if name == "nodule":
        return 0.38 * _step(_NODULE_RADIUS * spot.size - np.hypot(dx, dy), 0.4)
    texture = 1 + 0.15 * np.sin(1.1 * dx + dy) * np.sin(0.9 * dy + 1)
    return 0.31 * texture * _bump(np.hypot(dx, dy * 0.9), 4.2 * spot.size)


def _with_pneumothorax(film: np.ndarray, lung: np.ndarray, depth: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Air between the chest wall and the lung, widest at the apex: black, without markings, edged by a thin line."""
    edge = 4.8 + 3.0 * _step(-13 - y, 2.0) - depth
    height = _step(7 - y, 2.0)
    film = film * (1 - 0.75 * lung * _step(edge, 0.5) * height)
    return film + 0.16 * lung * _bump(edge + 0.4, 0.6) * height


def _with_heart(film: np.ndarray, x: np.ndarray, y: np.ndarray, large: float) -> np.ndarray:
    """The heart on top of the film; `large` is 0 for a normal width (half the chest's), 1 for a large one."""
    reach = np.where(x > 0, 13.0 + 6.5 * large, 7.5 + 2.5 * large)
    tall = 9.0 + 1.5 * large
    radius = np.hypot(x / reach, (y - 9.5 - 0.12 * x) / tall)
    shape = _step((1 - radius) * tall, 0.8)
    return film + shape * (0.66 - film).clip(0)


# --------------------------------------------------------------------------------------------------------- the oracle


@cache
def _matched_filters() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Filters `(K, 4096)` that read K amounts off a film by least squares, their templates `(K, 4096)`, K names.

    The templates are the average body, what changes when each of its properties does, and every finding in each of its
    places. The width of the heart is itself the finding.
    """
    spots = {"opacity": _Spot(), "nodule": _Spot()}
    plain = _paint(_Body(), {}, spots)
    templates = [("light", np.ones_like(plain)), ("film", plain)]
    for name, spread in vars(_SPREAD).items():
        if name != "heart":
            more, less = (_paint(_Body(**{name: sign * spread / 2}), {}, spots) for sign in (1, -1))
            templates.append((name, more - less))
    templates += [(name, _paint(_Body(), {name: place}, spots) - plain) for name in PLACES for place in PLACES[name]]
    basis = np.stack([template.ravel() for _, template in templates])
    return np.linalg.pinv(basis).T, basis, tuple(name for name, _ in templates)


@cache
def _spot_filter() -> tuple[np.ndarray, np.ndarray]:
    """The nodule's filter, a disc less the ring around it, as a Fourier transform; and where nodules can be."""
    radius = np.hypot(_X - 0.5, _Y - 0.5)
    disc, ring = radius < 2.2, (radius > 3.5) & (radius < 5.5)
    kernel = np.roll(disc / disc.sum() - ring / ring.sum(), (32, 32), (0, 1))
    near = np.zeros((64, 64), bool)
    for (name, _), (centre_x, centre_y) in _CENTRE.items():
        if name == "nodule":
            near |= np.hypot(np.abs(_X) - centre_x, _Y - centre_y) < 6
    return np.fft.rfft2(kernel), near


def _measured(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The film, `(64, 64)` float in [0, 1], and how much of each template is in it."""
    film = np.asarray(image, dtype=np.float64) / 255
    return film, _matched_filters()[0] @ film.ravel()


def _moved_back(image: Image.Image, amounts: dict[str, float]) -> Image.Image:
    """The film with the body's shift and size, as measured by the matched filters, undone."""
    by = {name: amounts[name] / amounts["film"] * spread for name, spread in vars(_SPREAD).items() if name in amounts}
    across, down = 1 + by["width"], 1 + by["height"]
    start = (32 - 32 * across + by["shift_x"], 32 - 32 * down + by["shift_y"])
    matrix = (across, 0.0, start[0], 0.0, down, start[1])
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def read_symbols(image: Image.Image) -> dict[str, bool]:
    """Read off a phantom's pixels what it shows: fit the average body to it, then match the findings' templates.

    Args:
        image: `(64, 64)` mode "L", as `render` gives it.
    """
    _, basis, names = _matched_filters()
    for _ in range(2):
        image = _moved_back(image, dict(zip(names, _measured(image)[1], strict=True)))
    film, amounts = _measured(image)
    shows = {name: bool(max(amounts[[known == name for known in names]]) > 0.5) for name in NOISE["image"]}
    other = [known != "nodule" for known in names]
    rest = film - (amounts[other] @ basis[other]).reshape(64, 64)
    kernel, near = _spot_filter()
    shows["nodule"] = bool(np.fft.irfft2(np.fft.rfft2(rest) * kernel)[near].max() > 0.15)
    return shows
