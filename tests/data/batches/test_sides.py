import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfuse.data.batches.sides import mirror_labels, swap_sides
from mmfuse.types import MmfuseError

SWAPPED = [
    ("Left pleural effusion.", "Right pleural effusion."),
    ("Effusion layering on the right.", "Effusion layering on the left."),
    ("There is right basilar atelectasis.", "There is left basilar atelectasis."),
    ("LEFT LUNG: CLEAR. Right lung: clear.", "RIGHT LUNG: CLEAR. Left lung: clear."),
    ("Right-sided chest tube", "Left-sided chest tube"),
    ("it was left-sided", "it was right-sided"),
    ("opacity is left sided", "opacity is right sided"),
    ("Bilateral effusions, left greater than right", "Bilateral effusions, right greater than left"),
    ("mediastinal shift leftward", "mediastinal shift rightward"),
    ("the leftmost of three men", "the rightmost of three men"),
    ("LLL consolidation, RUL clear", "RLL consolidation, LUL clear"),
    ("LUQ pain, RLE swelling", "RUQ pain, LLE swelling"),
    ("RIJ line in place", "LIJ line in place"),
    ("L lung clear", "R lung clear"),
    ("R. pleural effusion", "L. pleural effusion"),
    ("R-sided effusion", "L-sided effusion"),
    ("effusion, R>L", "effusion, L>R"),
    ("effusions L and R", "effusions R and L"),
    ("small pneumothorax on the L", "small pneumothorax on the R"),
    ("Lt. base, rt shoulder", "Rt. base, lt shoulder"),
    ("Mild levoscoliosis of the spine", "Mild dextroscoliosis of the spine"),
    ("left_lung", "right_lung"),
    ("Blunted left angle from effusion.", "Blunted right angle from effusion."),
    ("Two dogs, from left to right a poodle and a pug", "Two dogs, from right to left a poodle and a pug"),
    ("A cup to the right of the plate", "A cup to the left of the plate"),
]
KEPT = [
    "No effusion.",
    "Bilateral, contralateral, ipsilateral.",
    "The patient left the hospital.",
    "He left against medical advice.",
    "The drain was left in place.",
    "All right.",
    "Come right away, right now.",
    "R/O pneumonia",
    "2 L of oxygen, then 3L/min",
    "creatinine 3.5 mg/L, sodium 130 mmol/L",
    "L-spine films; L5 fracture",
    "RT-PCR positive",
    "Cut at right angles.",
    "a right-wing politician",
    "leftovers in bright, upright copyright boxes; her rights",
    "L'Oréal shampoo",
    "T-cell, K-wire, R-squared",
]
UNSURE = [
    "Right middle lobe opacity",
    "RML pneumonia",
    "lingular consolidation",
    "dextrocardia",
    "Situs inversus.",
    "left ventricular hypertrophy",
    "enlarged right atrium",
    "the left heart border",
    "LV dilated",
    "mass at 3 o'clock of the left breast",
    "He left after lunch.",
    "She left.",
    "The opacity left behind",
    "A cat right next to a dog",
    "The answer is right",
    "the right choice",
    "No, right?",
    "Robert L. Smith",
    "shirt, size L",
    "lEFT lung",
    "all left ribs",  # "all right ribs" would be read as "all right"
]


@pytest.mark.parametrize(("text", "mirrored"), SWAPPED)
def test_sides_are_exchanged_and_come_back(text, mirrored):
    assert swap_sides(text) == mirrored
    assert swap_sides(mirrored) == text


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_side_stays(text):
    assert swap_sides(text) == text


@pytest.mark.parametrize("text", KEPT)
def test_beside_it_a_side_is_exchanged(text):
    assert swap_sides(f"Right effusion. {text}") == f"Left effusion. {text}"


@pytest.mark.parametrize("text", UNSURE)
def test_what_has_no_sure_mirror_image_is_not_exchanged(text):
    assert swap_sides(text) is None
    assert swap_sides(f"Clear. {text} Clear.") is None


WORDS = sorted({word for text, _ in SWAPPED for word in text.split()} | {w for t in KEPT + UNSURE for w in t.split()})


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
def test_swapping_twice_gives_the_text_back(text):
    swapped = swap_sides(text)
    if swapped is not None:
        assert swap_sides(swapped) == text
        assert len(swapped.split()) == len(text.split())


@pytest.mark.parametrize(
    ("names", "mirror"),
    [
        (["left effusion", "right effusion", "nodule"], [1, 0, 2]),
        (["effusion_right", "mass", "effusion_left"], [2, 1, 0]),
        (["EffusionLeft", "LeftArm", "RightArm", "EffusionRight"], [3, 2, 1, 0]),
        (["L", "R", "none"], [1, 0, 2]),
        (["LUL opacity", "RUL opacity", "opacity_L", "opacity_R"], [1, 0, 3, 2]),
        (["LDL", "bright", "upright", "L5 fracture"], [0, 1, 2, 3]),
    ],
)
def test_labels_find_their_mirror_image(names, mirror):
    assert mirror_labels(names, "here").tolist() == mirror
    assert np.array_equal(mirror_labels(names, "here")[mirror], np.arange(len(names)))


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["left effusion", "nodule"], "label 'left effusion' has a side, but there is no label 'right effusion'"),
        (["right", "wrong"], "no label 'left'"),
        (["left lung", "Right lung"], "no label 'right lung'"),
        (["right middle lobe opacity", "left middle lobe opacity"], "has no mirror image"),
        (["dextrocardia"], "has no mirror image"),
    ],
)
def test_labels_with_one_side_alone_are_refused(names, complaint):
    with pytest.raises(MmfuseError, match=f"here: .*{complaint}"):
        mirror_labels(names, "here")
