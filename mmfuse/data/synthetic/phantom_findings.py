"""What is written of a phantom: the findings of its film as a caption, and questions with their answers.

The findings state what is true, place by place; the film shows it with known errors (`phantom.NOISE`), so the best
accuracy that any writer can reach is known (`slot_ceiling`). Beside the film a writer reads the history: the risk and
the prior exam, which tells whether a nodule is new. Questions ask for what is shown and told, so all can be answered.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mmfuse.data.synthetic.phantom_study import LABELS, NOISE, Place, Study, make_study, say

FINDINGS = ("opacity", "effusion", "pneumothorax", "nodule", "large_heart")

_WRITING, _ASKING = 3, 4
"""The random streams of a study, behind those of `phantom`."""

_SENTENCES = {
    ("opacity", True): ("{Side} {zone} zone opacity.", "There is an opacity in the {side} {zone} zone."),
    ("opacity", False): ("No opacity.", "The lungs are free of opacity."),
    ("effusion", True): ("{Side} pleural effusion.", "There is a pleural effusion on the {side}."),
    ("effusion", False): ("No effusion.", "There is no pleural effusion."),
    ("pneumothorax", True): ("{Side} pneumothorax.", "There is a pneumothorax on the {side}."),
    ("pneumothorax", False): ("No pneumothorax.", "There is no pneumothorax."),
    ("large_heart", True): ("The heart is enlarged.", "Cardiomegaly."),
    ("large_heart", False): ("The heart is of normal size.", "No cardiomegaly."),
}
_NODULE = {
    (True, False): ("New nodule in the {side} {zone} zone.", "There is a new {side} {zone} zone nodule."),
    (True, True): ("Unchanged nodule in the {side} {zone} zone.", "The {side} {zone} zone nodule is unchanged."),
    (False, True): ("The prior nodule has resolved.", "The nodule of the prior exam is no longer seen."),
    (False, False): ("No nodule.", "There is no nodule."),
}
"""By whether there is a nodule now and was one before."""


def write_history(study: Study) -> str:
    """The text that goes with the film: risk and prior exam; "SYNTHETIC." comes first."""
    rng = np.random.default_rng((study.seed, study.index, _WRITING))
    return " ".join(["SYNTHETIC.", *(say(study, name, rng.random()) for name in ("risk", "prior_nodule"))])


def write_findings(study: Study) -> str:
    """The findings that are true of a study, a sentence each in the order of `FINDINGS`."""
    rng = np.random.default_rng((study.seed, study.index, _WRITING, 1))
    sentences = []
    for name in FINDINGS:
        true = study.truth[name]
        phrases = _NODULE[true, study.truth["prior_nodule"]] if name == "nodule" else _SENTENCES[name, true]
        place = study.places[name]
        phrase = phrases[int(rng.random() * len(phrases))]
        sentences.append(phrase.format(side=place.side, Side=place.side.capitalize(), zone=place.zone))
    return " ".join(sentences)


def true_findings(study: Study) -> dict[str, Place | None]:
    """By finding its place; None where there is none."""
    return {name: study.places[name] if study.truth[name] else None for name in FINDINGS}


_ABSENT = re.compile(r"\b(no|free of|resolved|no longer|normal size)\b")
_NAMES = {
    "opacity": re.compile(r"\bopacity\b"),
    "effusion": re.compile(r"\beffusion\b"),
    "pneumothorax": re.compile(r"\bpneumothorax\b"),
    "nodule": re.compile(r"\bnodule\b"),
    "large_heart": re.compile(r"\b(heart|cardiomegaly)\b"),
}
_SIDE, _ZONE = re.compile(r"\b(right|left)\b"), re.compile(r"\b(upper|lower)\b")


def read_findings(caption: str) -> dict[str, Place | None]:
    """What a caption says: by finding its place, None where it is said to be absent.

    A finding that is not mentioned, or in two sentences that disagree, is left out. The case does not matter.
    """
    said: dict[str, list[Place | None]] = {}
    for sentence in caption.lower().split("."):
        for name, pattern in _NAMES.items():
            if pattern.search(sentence):
                side, zone = _SIDE.search(sentence), _ZONE.search(sentence)
                place = Place(side[1] if side else "", zone[1] if zone else "")
                said.setdefault(name, []).append(None if _ABSENT.search(sentence) else place)
    return {name: places[0] for name, places in said.items() if len(set(places)) == 1}


def slot_accuracy(captions: Sequence[str], studies: Iterable[Study]) -> dict[str, float]:
    """By finding, and as their mean `all`, the share of captions that state it exactly: there or not, side, zone."""
    right: dict[str, list[bool]] = {name: [] for name in FINDINGS}
    for caption, study in zip(captions, studies, strict=True):
        said, true = read_findings(caption), true_findings(study)
        for name in FINDINGS:
            right[name].append(name in said and said[name] == true[name])
    scores = {name: float(np.mean(found)) for name, found in right.items()}
    return {**scores, "all": float(np.mean(list(scores.values())))}


def slot_ceiling() -> dict[str, float]:
    """The best `slot_accuracy` that any writer can expect, who sees the film and the history.

    A finding that is shown is more likely true than not, and one that is not shown is more likely not, so the best is
    to write what is shown: wrong only where the film is.
    """
    best = {name: 1 - NOISE["image"][name] for name in FINDINGS}
    return {**best, "all": float(np.mean(list(best.values())))}


_QUESTIONS = (
    "Is there a nodule?",
    "Is the nodule new?",
    "Is the heart large?",
    "Which side is the effusion on?",
    "Which side is the pneumothorax on?",
    "Which zone is the opacity in?",
)
ANSWERS = ("yes", "no", "right", "left", "upper", "lower", "none")


def answer(study: Study, question: str) -> str:
    """What the film shows, and for a new nodule the history tells, in one of `ANSWERS`."""
    shown, places = study.shown, study.places
    if question == "Is there a nodule?":
        return "yes" if shown["nodule"] else "no"
    if question == "Is the nodule new?":
        return "yes" if shown["nodule"] and not study.told["prior_nodule"] else "no"
    if question == "Is the heart large?":
        return "yes" if shown["large_heart"] else "no"
    name = question.split()[-2]
    if not shown[name]:
        return "none"
    return places[name].side if "side" in question else places[name].zone


def ask(study: Study, number: int = 2) -> list[tuple[str, str]]:
    """Some questions on a study, drawn without repetition, with their answers."""
    rng = np.random.default_rng((study.seed, study.index, _ASKING))
    return [(_QUESTIONS[i], answer(study, _QUESTIONS[i])) for i in rng.permutation(len(_QUESTIONS))[:number]]


# ---------------------------------------------------------------------------------------------------------- the files

_CAPTIONS = """\
name: phantom_captions
version: 1
about: >-
  SYNTHETIC chest phantoms made by mmfuse (seed {seed}); not patients, not for medical use. From the film and the
  history, write the findings; beside it, the seven labels of the phantom.
licence: CC0-1.0
rows: captions.csv
id: id
group: patient
image: {{column: image}}
text: {{columns: [history]}}
tasks:
  findings:
    type: multilabel
    column: findings
    separator: ";"
    values: [{labels}]
    empty: negative
    label_origin: synthetic
  report:
    type: captioning
    column: report
    label_origin: synthetic
splits: {{column: split}}
subgroups: [sex, age_band]
"""
_QUESTIONS_MANIFEST = """\
name: phantom_questions
version: 1
about: >-
  SYNTHETIC chest phantoms made by mmfuse (seed {seed}); not patients, not for medical use. Questions on the film and
  the history, with one word as the answer: as a class, or written by the captioning head.
licence: CC0-1.0
rows: questions.csv
id: id
group: patient
image: {{column: image}}
text: {{columns: [question, history]}}
tasks:
  answer:
    type: classification
    column: answer
    values: [{answers}]
    label_origin: synthetic
  written_answer:
    type: captioning
    column: answer
    label_origin: synthetic
splits: {{column: split}}
"""


def write_language(out: Path, seed: int) -> tuple[Path, Path]:
    """Write `captions.yaml` and `questions.yaml` with their tables into a phantom's folder, and return the two paths.

    Args:
        out: What `write_phantom` wrote.
        seed: Of the studies there.
    """
    captions, questions = [], []
    with (out / "data.csv").open(encoding="utf-8", newline="") as handle:
        studies = list(csv.DictReader(handle))
    for row in studies:
        study = make_study(seed, int(row["id"].rsplit("-", 1)[1]))
        kept = {name: row[name] for name in ("id", "patient", "image", "split", "sex", "age_band", "findings")}
        history = write_history(study)
        captions.append({**kept, "history": history, "report": write_findings(study), "origin": "SYNTHETIC"})
        for number, (question, said) in enumerate(ask(study)):
            asked = {**kept, "id": f"{study.id}-q{number}", "history": history, "question": question, "answer": said}
            questions.append({name: asked[name] for name in asked if name not in ("sex", "age_band", "findings")})
    values = {"seed": seed, "labels": ", ".join(LABELS), "answers": ", ".join(f'"{name}"' for name in ANSWERS)}
    for name, rows, text in (("captions", captions, _CAPTIONS), ("questions", questions, _QUESTIONS_MANIFEST)):
        (out / f"{name}.yaml").write_text(text.format(**values), encoding="utf-8", newline="\n")
        with (out / f"{name}.csv").open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return out / "captions.yaml", out / "questions.yaml"
