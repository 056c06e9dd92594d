"""The SYNTHETIC phantom with a number to predict: the size of a mass in the film, a dose in the note, a blood level.

`level = 100 + 15 (-a s + a d - b s d + c e)`, in mg/L: `s` is the radius of the mass and `d` the dose, each with mean 0
and variance 1, `e` a standard normal that nothing shows. The shares of the variance are a² = .35 each for size and dose
alone, b² = .20 for what only both together tell, and c² = .10 that nobody can know (`bayes_r2`, `bayes_rmse`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmfuse.data.synthetic.phantom import name_study, write_set
from mmfuse.data.synthetic.phantom_film import render
from mmfuse.data.synthetic.phantom_study import NOTICE, Study, say

SHARES = {"size": 0.35, "dose": 0.35, "both": 0.20, "noise": 0.10}
"""Of the level's variance."""
MEAN, SPREAD = 100.0, 15.0
"""Of the level, mg/L."""
SMALLEST, LARGEST = 2.0, 6.5
"""Radius of the mass, pixels; uniform."""
DOSES = tuple(range(10, 101, 10))
"""mg; each equally often."""

_MASS = 5
"""The random stream of a study, behind those of the other phantoms."""
_PHRASES = ("Dose: {dose} mg.", "{dose} mg daily.", "Given {dose} mg a day.")

_MANIFEST = """\
name: phantom_dose
version: 1
about: >-
  {notice}
  {studies} rendered chest films with short notes (seed {seed}), written by `mmfuse data phantom --dose`. The level
  depends on the size of the mass in the film, on the dose in the note, and on both together. By construction the best
  R2 is {both:.2f} (RMSE {rmse:.3f} mg/L), {text:.2f} from the text alone, {image:.2f} from the image alone and
  {additive:.2f} without interaction; `expected` is the best prediction of each row.
licence: CC0-1.0
rows: data.csv
id: id
group: patient
image: {{column: image}}
text: {{columns: [text]}}
tasks:
  level: {{type: regression, column: level, unit: mg/L, label_origin: synthetic}}
splits: {{column: split}}
subgroups: [sex, age_band]
"""


class Treated(NamedTuple):
    """What is true of a study.

    Attributes:
        size: Radius of the mass in its film, pixels.
        dose: In its note, mg.
        level: What is to be predicted, mg/L.
        expected: By "text", "image" and "both", the level's mean given what these show: no prediction is better.
    """

    size: float
    dose: int
    level: float
    expected: dict[str, float]


def treat(study: Study) -> Treated:
    """Draw a study's mass, dose and level; they follow from its seed and index."""
    rng = np.random.default_rng((study.seed, study.index, _MASS))
    size, dose = rng.uniform(SMALLEST, LARGEST), int(rng.choice(DOSES))
    s = (size - (SMALLEST + LARGEST) / 2) / ((LARGEST - SMALLEST) / math.sqrt(12))
    d = (dose - np.mean(DOSES)) / np.std(DOSES)
    of_size, of_dose, of_both, noise = (SPREAD * math.sqrt(share) for share in SHARES.values())
    image, text = MEAN - of_size * s, MEAN + of_dose * d
    both = image + text - MEAN - of_both * s * d
    expected = {"text": float(text), "image": float(image), "both": float(both)}
    return Treated(size, dose, float(both + noise * rng.normal()), expected)


def bayes_r2() -> dict[str, float]:
    """The best R2 that any model can expect from "text", "image" or "both", and that of the best "additive" one."""
    alone = {"text": SHARES["dose"], "image": SHARES["size"]}
    return {**alone, "both": 1 - SHARES["noise"], "additive": sum(alone.values())}


def bayes_rmse() -> dict[str, float]:
    """The smallest RMSE that any model can expect, in mg/L, as `bayes_r2`."""
    return {name: SPREAD * math.sqrt(1 - share) for name, share in bayes_r2().items()}


def write_note(study: Study, dose: int) -> str:
    """The study's note: risk, prior exam and dose, in random order and words; "SYNTHETIC." comes first."""
    rng = np.random.default_rng((study.seed, study.index, _MASS, 1))
    said = [say(study, name, rng.random()) for name in ("risk", "prior_nodule")]
    said.append(_PHRASES[rng.integers(len(_PHRASES))].format(dose=dose))
    return " ".join(["SYNTHETIC.", *rng.permutation(said)])


def write_doses(out: Path, studies: int = 3000, seed: int = 0, progress: Callable[[int], None] | None = None) -> Path:
    """Write `images/ID.png`, `data.csv` and `manifest.yaml`, and return the manifest's path; see `write_phantom`.

    Raises:
        MmfuseError: As `write_phantom`.
    """

    def draw(study: Study):
        found = treat(study)
        row = name_study(study, write_note(study, found.dose))
        row |= {"size": f"{found.size:.4f}", "dose": str(found.dose), "level": f"{found.level:.3f}"}
        row |= {"expected": f"{found.expected['both']:.3f}"}
        return render(study, found.size), row | {"sex": study.sex, "age_band": study.age_band, "origin": "SYNTHETIC"}

    about = _MANIFEST.format(notice=NOTICE, studies=studies, seed=seed, rmse=bayes_rmse()["both"], **bayes_r2())
    return write_set(Path(out), about, studies, seed, draw, progress)
