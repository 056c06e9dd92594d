"""The built-in SYNTHETIC dataset with known answers: 64x64 chest phantoms, short reports, seven labels.

What each label can be learnt from is known by construction (`ORIGIN`), and the best AUROC that any model can reach from
the text, the image or both is known exactly (`bayes_auroc`), because every symbol that an image shows or a report tells
is its label's truth, flipped with a known probability:

- opacity, effusion, pneumothorax: shown and told, with independent errors, so that both together beat either;
- nodule, large_heart: only shown. risk: only told, in the history;
- changed = nodule XOR prior_nodule: the nodule is only shown, the prior one only told. Nothing additive can learn it.

All of a study follows from `(seed, index)`, so a larger set contains the smaller one. Labels are the truth; only numpy
and Pillow are needed.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmfuse.types import MmfuseError

LABELS = ("opacity", "effusion", "pneumothorax", "nodule", "large_heart", "risk", "changed")
ORIGIN = {
    "opacity": "redundant",
    "effusion": "redundant",
    "pneumothorax": "redundant",
    "nodule": "image",
    "large_heart": "image",
    "risk": "text",
    "changed": "synergy",
}
PREVALENCE = {
    "opacity": 0.4,
    "effusion": 0.35,
    "pneumothorax": 0.3,
    "nodule": 0.5,
    "large_heart": 0.35,
    "risk": 0.4,
    "prior_nodule": 0.5,
}
NOISE = {
    "image": {"opacity": 0.15, "effusion": 0.10, "pneumothorax": 0.12, "nodule": 0.05, "large_heart": 0.08},
    "text": {"opacity": 0.10, "effusion": 0.15, "pneumothorax": 0.08, "risk": 0.08, "prior_nodule": 0.05},
}
MODALITIES = {"text": ("text",), "image": ("image",), "both": ("text", "image")}
SIDES = ("right", "left")
ZONES = ("upper", "lower")
NOTICE = "SYNTHETIC chest phantom made by mmfuse; not a patient, not for medical use."

_STUDY, _IMAGE, _TEXT = range(3)
"""The random streams of a study: what one draws never moves another."""


# ---------------------------------------------------------------------------------------------------------- the latents


class Place(NamedTuple):
    """Where a finding is: the patient's side and the zone, each empty if the finding has none."""

    side: str = ""
    zone: str = ""


_ZONED = tuple(Place(side, zone) for side in SIDES for zone in ZONES)
_SIDED = tuple(Place(side) for side in SIDES)
_PLACES = {"opacity": _ZONED, "effusion": _SIDED, "pneumothorax": _SIDED, "nodule": _ZONED, "large_heart": (Place(),)}
"""By finding of the image: everywhere that it can be."""


@dataclass(frozen=True)
class Study:
    """One study, known completely: what is true, what its image shows and what its report tells.

    Attributes:
        seed: Of the set it belongs to.
        index: In that set.
        patient: About one patient in ten has two studies, neighbours in the set.
        sex: "F" or "M"; independent of everything else, as `age_band` is.
        age_band: "18-39", "40-64" or "65+".
        truth: By label, and `prior_nodule`.
        shown: By finding that an image can show: does this one?
        told: By statement that a report makes: does it say yes?
        places: By finding, where it is if it is there at all.
    """

    seed: int
    index: int
    patient: str
    sex: str
    age_band: str
    truth: dict[str, bool]
    shown: dict[str, bool]
    told: dict[str, bool]
    places: dict[str, Place]

    @property
    def id(self) -> str:
        """The name that tells seed and index, such as `phantom-0-000123`."""
        return f"phantom-{self.seed}-{self.index:06d}"


def make_study(seed: int, index: int) -> Study:
    """Draw study `index` of the set `seed`.

    Args:
        seed: At least 0.
        index: At least 0.
    """
    if seed < 0 or index < 0:
        raise MmfuseError(f"phantom: seed and index must be 0 or more, got seed={seed}, index={index}")
    rng = np.random.default_rng((seed, index, _STUDY))
    truth = {name: bool(rng.random() < p) for name, p in PREVALENCE.items()}
    shown = {name: truth[name] ^ bool(rng.random() < p) for name, p in NOISE["image"].items()}
    told = {name: truth[name] ^ bool(rng.random() < p) for name, p in NOISE["text"].items()}
    places = {name: options[rng.integers(len(options))] for name, options in _PLACES.items()}
    patient = _patient(seed, index)
    return Study(
        seed=seed,
        index=index,
        patient=patient,
        sex=("F", "M")[int(_fraction(f"{patient} sex") * 2)],
        age_band=("18-39", "40-64", "65+")[int(_fraction(f"{patient} age") * 3)],
        truth={**truth, "changed": truth["nodule"] ^ truth["prior_nodule"]},
        shown=shown,
        told=told,
        places=places,
    )


def _patient(seed: int, index: int) -> str:
    """Who study `index` is of: in 2 of 11 pairs of neighbours both are of one, hence of 1 patient in 10."""
    first = index - index % 2
    shared = _fraction(f"phantom-{seed} pair {first}") < 2 / 11
    return f"phantom-{seed}-p{first if shared else index:06d}"


def _fraction(key: str) -> float:
    """A number in [0, 1) that depends on `key` only."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48


# -------------------------------------------------------------------------------------------------- the known answers


def _latents(label: str) -> tuple[str, ...]:
    """What a label is the XOR of."""
    return ("nodule", "prior_nodule") if label == "changed" else (label,)


def _symbols(label: str, modality: str) -> list[tuple[str, str]]:
    """The `("text" | "image", latent)` of each symbol in a modality that bears on a label."""
    return [(kind, name) for kind in MODALITIES[modality] for name in _latents(label) if name in NOISE[kind]]


@cache
def _joint(label: str, modality: str) -> dict[tuple[bool, ...], tuple[float, float]]:
    """`P(observation, label = no)` and `P(observation, label = yes)`, by observation of the symbols that bear on it."""
    symbols = _symbols(label, modality)
    joint = {seen: [0.0, 0.0] for seen in product((False, True), repeat=len(symbols))}
    for values in product((False, True), repeat=len(_latents(label))):
        true = dict(zip(_latents(label), values, strict=True))
        prior = math.prod(PREVALENCE[name] if there else 1 - PREVALENCE[name] for name, there in true.items())
        for seen, masses in joint.items():
            flips = [
                (NOISE[kind][name], symbol != true[name]) for (kind, name), symbol in zip(symbols, seen, strict=True)
            ]
            masses[sum(values) % 2] += prior * math.prod(p if flipped else 1 - p for p, flipped in flips)
    return {seen: (no, yes) for seen, (no, yes) in joint.items()}


def _posterior(masses: tuple[float, float]) -> float:
    """`P(label = yes | observation)`, rounded so that posteriors that are equal compare equal."""
    return round(masses[1] / sum(masses), 12)


def bayes_auroc() -> dict[str, dict[str, float]]:
    """The best AUROC that any model can have, by label and modality ("text", "image", "both"), by exact enumeration."""
    return {label: {modality: _auroc(_joint(label, modality).values()) for modality in MODALITIES} for label in LABELS}


def _auroc(joint: Iterable[tuple[float, float]]) -> float:
    """`P(s1 > s0) + P(s1 = s0) / 2` for the posteriors s1 of a random yes and s0 of a random no."""
    cells = [(_posterior(masses), *masses) for masses in joint]
    wins = sum(yes * no * ((score > other) + (score == other) / 2) for score, _, yes in cells for other, no, _ in cells)
    return wins / (sum(yes for _, _, yes in cells) * sum(no for _, no, _ in cells))


def bayes_scores(study: Study) -> dict[str, dict[str, float]]:
    """The posterior of each label given what this study shows and tells, by label and modality."""
    observed = {"text": study.told, "image": study.shown}
    return {
        label: {
            modality: _posterior(_joint(label, modality)[tuple(observed[k][n] for k, n in _symbols(label, modality))])
            for modality in MODALITIES
        }
        for label in LABELS
    }


# --------------------------------------------------------------------------------------------------------- the report

_PHRASES = {
    "risk": (
        ("History: never smoked.", "History: no asbestos.", "Lifelong non-smoker.", "No tobacco, no asbestos."),
        ("History: heavy smoker.", "History: asbestos exposure.", "Smokes two packs a day.", "Worked with asbestos."),
    ),
    "prior_nodule": (
        ("Prior exam: unremarkable.", "Prior exam was normal.", "Healthy lungs on the prior exam."),
        ("Prior exam: nodule present.", "Prior exam showed a nodule.", "Nodule seen on the prior exam."),
    ),
    "opacity": (
        ("No opacity.", "No airspace opacity.", "Airspaces are clear.", "Opacity is absent."),
        (
            "{Side} {zone} zone opacity.",
            "Patchy opacity in the {side} {zone} zone.",
            "Hazy {side} {zone} zone opacity.",
        ),
    ),
    "effusion": (
        ("No effusion.", "No pleural effusion.", "Costophrenic angles are sharp.", "Effusion is absent."),
        ("{Side} pleural effusion.", "Blunted {side} angle from effusion.", "Effusion layering on the {side}."),
    ),
    "pneumothorax": (
        ("No pneumothorax.", "No sign of pneumothorax.", "Lungs fully expanded.", "Pneumothorax is absent."),
        ("{Side} apical pneumothorax.", "Pneumothorax on the {side}.", "Collapsed {side} apex from pneumothorax."),
    ),
}
"""By statement: how a report says no, and how it says yes."""


def write_report(study: Study) -> str:
    """The study's report: history and prior exam, then the findings, in partly random order; "SYNTHETIC." comes first.

    It depends on `told` and `places` alone. The current nodule and the heart are never mentioned.
    """
    rng = np.random.default_rng((study.seed, study.index, _TEXT))
    sentences = {name: say(study, name, rng.random()) for name in _PHRASES}
    background = rng.permutation(["risk", "prior_nodule"])
    findings = rng.permutation(["opacity", "effusion", "pneumothorax"])
    return " ".join(["SYNTHETIC.", *(sentences[name] for name in (*background, *findings))])


def say(study: Study, name: str, choice: float) -> str:
    """How a report tells one statement, `choice` in [0, 1) chooses among the phrases."""
    phrases = _PHRASES[name][study.told[name]]
    place = study.places.get(name, Place())
    phrase = phrases[int(choice * len(phrases))]
    return phrase.format(side=place.side, Side=place.side.capitalize(), zone=place.zone)


# ---------------------------------------------------------------------------------------------------------- the image

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


class _Spot(NamedTuple):
    """How one opacity or nodule differs from the average one: its offset in pixels and its size."""

    dx: float = 0.0
    dy: float = 0.0
    size: float = 1.0


def render(study: Study) -> Image.Image:
    """The study's chest film, `(64, 64)` mode "L"; the patient's right is at the left of the image.

    It depends on `shown` and `places` alone. What a flipped symbol does not touch stays as it was.
    """
    rng = np.random.default_rng((study.seed, study.index, _IMAGE))
    body = _Body(*(spread * rng.uniform(-1, 1) for spread in vars(_SPREAD).values()))
    spots = {
        "opacity": _Spot(rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5), rng.uniform(0.9, 1.15)),
        "nodule": _Spot(rng.uniform(-2.5, 2.5), rng.uniform(-2.5, 2.5), rng.uniform(0.9, 1.1)),
    }
    contrast, brightness, grain = rng.uniform(0.92, 1.08), rng.uniform(-0.03, 0.03), rng.uniform(0.012, 0.03)
    noise = _BLUR @ rng.normal(0, 0.01, (16, 16)) @ _BLUR.T + rng.normal(0, grain, (64, 64))
    places = {name: study.places[name] for name, there in study.shown.items() if there}
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
        return 0.38 * _step(2.3 * spot.size - np.hypot(dx, dy), 0.4)
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
    templates += [(name, _paint(_Body(), {name: place}, spots) - plain) for name in _PLACES for place in _PLACES[name]]
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


# ---------------------------------------------------------------------------------------------------------- the files

_MANIFEST = """\
name: phantom
version: 1
about: >-
  {notice}
  {studies} rendered chest films with short reports and known answers (seed {seed}), written by mmfuse/data/phantom.py.
  Opacity, effusion and pneumothorax are in the image and in the report, nodule and large_heart only in the image, risk
  only in the report; changed is the XOR of the image's nodule and the report's prior nodule.
licence: CC0-1.0
rows: data.csv
id: id
group: patient
image: {{column: image}}
text: {{columns: [text]}}
tasks:
  findings:
    type: multilabel
    column: findings
    separator: ";"
    values: [{labels}]
    empty: negative
    label_origin: synthetic
splits: {{column: split}}
subgroups: [sex, age_band]
"""
_HEAD = b"name: phantom\nversion: 1\nabout: >-\n  SYNTHETIC"
_OURS = re.compile(r"phantom-\d+-\d{6,}\.(png|txt)")


def write_phantom(out: Path, studies: int = 3000, seed: int = 0, progress: Callable[[int], None] | None = None) -> Path:
    """Write `images/ID.png`, `data.csv` and `manifest.yaml`, and return the manifest's path.

    Args:
        out: A new or empty folder, or an earlier phantom, which is replaced.
        studies: At least 1.
        seed: At least 0.
        progress: Called after each study with how many are done.

    Raises:
        MmfuseError: `out` holds something else, or a number is out of range.
    """
    out = Path(out)
    manifest, table, images = out / "manifest.yaml", out / "data.csv", out / "images"
    _claim(out, studies, seed, ours=manifest.is_file() and manifest.read_bytes().startswith(_HEAD))
    # The manifest first and the table last: if the writing is cut short, the folder is known as ours, and not readable.
    table.unlink(missing_ok=True)
    about = _MANIFEST.format(notice=NOTICE, studies=studies, seed=seed, labels=", ".join(LABELS))
    manifest.write_text(about, encoding="utf-8", newline="\n")
    images.mkdir(exist_ok=True)
    rows = []
    for index in range(studies):
        study = make_study(seed, index)
        (images / f"{study.id}.png").write_bytes(_png(study))
        rows.append(_row(study))
        if progress:
            progress(index + 1)
    kept = {out / row["image"] for row in rows}
    for path in images.iterdir():
        if path not in kept and _OURS.fullmatch(path.name):
            path.unlink()
    part = out / "data.csv.part"
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(table)
    return manifest


def write_pairs(out: Path, studies: int, seed: int) -> Path:
    """Write `ID.png` and `ID.txt` of each study into the folder `out`, to predict on, and return `out`.

    Raises:
        MmfuseError: `out` holds something else, or a number is out of range.
    """
    out = Path(out)
    ours = out.is_dir() and all(_OURS.fullmatch(path.name) for path in out.iterdir())
    _claim(out, studies, seed, ours=ours)
    for stale in out.iterdir():
        stale.unlink()
    for index in range(studies):
        study = make_study(seed, index)
        (out / f"{study.id}.png").write_bytes(_png(study))
        (out / f"{study.id}.txt").write_text(write_report(study) + "\n", encoding="utf-8", newline="\n")
    return out


def _claim(out: Path, studies: int, seed: int, *, ours: bool) -> None:
    """Make the folder `out`, unless it holds what is not ours or nothing can be written."""
    if studies < 1 or seed < 0:
        raise MmfuseError(f"phantom: studies must be 1 or more and seed 0 or more, got {studies} and {seed}")
    if out.exists() and not out.is_dir():
        raise MmfuseError(f"phantom: {out} is a file; name a new or empty folder")
    if out.is_dir() and any(out.iterdir()) and not ours:
        raise MmfuseError(f"phantom: {out} is not empty and not a phantom; name a new or empty folder")
    out.mkdir(parents=True, exist_ok=True)


def _png(study: Study) -> bytes:
    info = PngInfo()
    info.add_text("Description", NOTICE)
    buffer = BytesIO()
    render(study).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _row(study: Study) -> dict[str, str]:
    """The study's row of `data.csv`; a place is empty where the finding is not truly there."""
    fraction = _fraction(f"{study.patient} split")
    row = {
        "id": study.id,
        "patient": study.patient,
        "image": f"images/{study.id}.png",
        "text": write_report(study),
        "split": "train" if fraction < 0.7 else "validation" if fraction < 0.8 else "test",
    }
    row |= {label: "yes" if study.truth[label] else "no" for label in LABELS}
    row["findings"] = ";".join(label for label in LABELS if study.truth[label])
    for name, place in study.places.items():
        for kind, where in place._asdict().items():
            if where:
                row[f"{name}_{kind}"] = where if study.truth[name] else ""
    return row | {"sex": study.sex, "age_band": study.age_band, "origin": "SYNTHETIC"}
