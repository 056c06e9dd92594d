"""A study of the SYNTHETIC dataset with known answers: what is true, shown and told, its report, and seven labels.

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

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np

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

_STUDY, IMAGE_STREAM, _TEXT = range(3)
"""The random streams of a study: what one draws never moves another."""


# ---------------------------------------------------------------------------------------------------------- the latents


class Place(NamedTuple):
    """Where a finding is: the patient's side and the zone, each empty if the finding has none."""

    side: str = ""
    zone: str = ""


_ZONED = tuple(Place(side, zone) for side in SIDES for zone in ZONES)
_SIDED = tuple(Place(side) for side in SIDES)
PLACES = {"opacity": _ZONED, "effusion": _SIDED, "pneumothorax": _SIDED, "nodule": _ZONED, "large_heart": (Place(),)}
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
    places = {name: options[rng.integers(len(options))] for name, options in PLACES.items()}
    patient = _patient(seed, index)
    return Study(
        seed=seed,
        index=index,
        patient=patient,
        sex=("F", "M")[int(fraction(f"{patient} sex") * 2)],
        age_band=("18-39", "40-64", "65+")[int(fraction(f"{patient} age") * 3)],
        truth={**truth, "changed": truth["nodule"] ^ truth["prior_nodule"]},
        shown=shown,
        told=told,
        places=places,
    )


def _patient(seed: int, index: int) -> str:
    """Who study `index` is of: in 2 of 11 pairs of neighbours both are of one, hence of 1 patient in 10."""
    first = index - index % 2
    shared = fraction(f"phantom-{seed} pair {first}") < 2 / 11
    return f"phantom-{seed}-p{first if shared else index:06d}"


def fraction(key: str) -> float:
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
