"""Radiology reports in many styles, cut at their headers; what is under no header is in no section."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfuse.sections import SECTIONS, section_of, select_sections, split_sections

MIMIC = """\
                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough
  and fever  // pneumonia?

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  ___

 FINDINGS:

 Heart size is normal.

 There is no effusion.

 IMPRESSION:

 No acute process.

 NOTIFICATION:   Told to Dr. ___ by phone."""
CHEXPERT = """\
NARRATIVE:
RADIOGRAPHIC EXAMINATION OF THE CHEST: 1/2/2003

CLINICAL HISTORY: 54 years old, chest pain.

COMPARISON: None.

PROCEDURE COMMENTS: One view.

FINDINGS: The lungs are clear.

IMPRESSION:

1. Lungs clear.

END OF IMPRESSION:

SUMMARY: 1-NORMAL"""

EXAMPLES = {
    # Styles.
    "mimic": (
        MIMIC,
        {
            "examination": "CHEST (PA AND LAT)",
            "indication": "___F with cough\nand fever  // pneumonia?",
            "technique": "Chest PA and lateral",
            "comparison": "___",
            "findings": "Heart size is normal.\n\nThere is no effusion.",
            "impression": "No acute process.",
            "other": "Told to Dr. ___ by phone.",
        },
    ),
    "chexpert plus": (
        CHEXPERT,
        {
            "": "RADIOGRAPHIC EXAMINATION OF THE CHEST: 1/2/2003",
            "indication": "54 years old, chest pain.",
            "comparison": "None.",
            "technique": "One view.",
            "findings": "The lungs are clear.",
            "impression": "1. Lungs clear.",
            "other": "1-NORMAL",
        },
    ),
    "open-i": (
        "COMPARISON: None.\nINDICATION: Positive TB test\nFINDINGS: Normal heart.\nIMPRESSION: Normal chest.",
        {
            "comparison": "None.",
            "indication": "Positive TB test",
            "findings": "Normal heart.",
            "impression": "Normal chest.",
        },
    ),
    "no headers": ("The heart is normal. No effusion.", {"": "The heart is normal. No effusion."}),
    "empty": ("", {}),
    "blank": (" \r\n\t\n", {}),
    "text before": (
        "Chest X-ray, two views.\nFindings: clear.",
        {"": "Chest X-ray, two views.", "findings": "clear."},
    ),
    "one line": (
        "INDICATION: cough. COMPARISON: none. FINDINGS: clear. IMPRESSION: normal.",
        {"indication": "cough.", "comparison": "none.", "findings": "clear.", "impression": "normal."},
    ),
    "one line without full stops": (
        "Indication cough COMPARISON: None FINDINGS: clear IMPRESSION: normal",
        {"": "Indication cough", "comparison": "None", "findings": "clear", "impression": "normal"},
    ),
    "no space": ("FINDINGS:clear\nIMPRESSION:normal", {"findings": "clear", "impression": "normal"}),
    "space before the colon": ("Findings : clear", {"findings": "clear"}),
    "windows": ("FINDINGS:\r\nclear\r\n\r\nIMPRESSION:\r\nnormal\r\n", {"findings": "clear", "impression": "normal"}),
    "old mac": ("FINDINGS:\rclear\rIMPRESSION: normal", {"findings": "clear", "impression": "normal"}),
    # Headers without a colon.
    "alone in capitals": ("FINDINGS\nclear\nIMPRESSION\nnormal", {"findings": "clear", "impression": "normal"}),
    "alone with a capital": ("Clinical history\ncough\nFindings\nclear", {"indication": "cough", "findings": "clear"}),
    "alone in small letters": ("findings\nclear", {"": "findings\nclear"}),
    "dash": ("IMPRESSION - normal", {"impression": "normal"}),
    "dash in prose": ("Findings - as before", {"": "Findings - as before"}),
    # Bold, numbers, lists.
    "bold, colon within": ("**FINDINGS:** clear", {"findings": "clear"}),
    "bold, colon behind": ("**Findings**: clear", {"findings": "clear"}),
    "bold, alone": ("**findings**\nclear\n\n__Impression__\nnormal", {"findings": "clear", "impression": "normal"}),
    "markdown heading": ("## Findings\nclear\n### Impression\nnormal", {"findings": "clear", "impression": "normal"}),
    "bold within a line": ("Seen. **Impression:** normal", {"": "Seen.", "impression": "normal"}),
    "numbered": ("1. INDICATION: cough\n2) FINDINGS: clear", {"indication": "cough", "findings": "clear"}),
    "roman": ("I. Indication: cough\nIV. Impression: normal", {"indication": "cough", "impression": "normal"}),
    "bullets": ("- Findings: clear\n• Impression: normal", {"findings": "clear", "impression": "normal"}),
    "list in a section": ("IMPRESSION:\n1. Edema.\n\n2. Effusion.", {"impression": "1. Edema.\n\n2. Effusion."}),
    # Names.
    "conclusion": ("Conclusion: normal", {"impression": "normal"}),
    "opinion": ("OPINION: normal", {"impression": "normal"}),
    "reason for this examination": ("REASON FOR THIS EXAMINATION:\n r/o ptx", {"indication": "r/o ptx"}),
    "clinical information": ("Clinical Information: cough", {"indication": "cough"}),
    "prior studies": ("Prior studies: none", {"comparison": "none"}),
    "plural in brackets": ("RECOMMENDATION(S): CT", {"recommendation": "CT"}),
    "plural": ("Impressions: normal", {"impression": "normal"}),
    "adjective": ("FINAL IMPRESSION: normal", {"impression": "normal"}),
    "in brackets": ("FINDINGS (CHEST): clear", {"findings": "clear"}),
    "two names": ("FINDINGS AND IMPRESSION: clear", {"findings": "clear"}),
    "two names with a slash": ("Impression/Recommendations: clear", {"impression": "clear"}),
    "two names of one section": ("HISTORY AND INDICATION: cough", {"indication": "cough"}),
    "twice": ("HISTORY: cough\nFINDINGS: clear\nHISTORY: fever", {"indication": "cough\nfever", "findings": "clear"}),
    "without text": ("FINDINGS:\nIMPRESSION: normal", {"impression": "normal"}),
    "lower case": ("indication: cough\nfindings: clear", {"indication": "cough", "findings": "clear"}),
    "behind a full stop": ("No change. findings: clear", {"": "No change.", "findings": "clear"}),
    # No headers.
    "name in a sentence": ("There is an impression of a nodule.", {"": "There is an impression of a nodule."}),
    "name with a colon in a sentence": ("The main finding: a nodule", {"": "The main finding: a nodule"}),
    "sentence of capitals": ("FINDINGS CONSISTENT WITH EDEMA", {"": "FINDINGS CONSISTENT WITH EDEMA"}),
    "prose at the beginning of a line": ("Comparison is made to 2019.", {"": "Comparison is made to 2019."}),
    "letters that only look alike": (
        "F\u0131nding\u017f: x. Impre\u017fs\u0131on: y",
        {"": "F\u0131nding\u017f: x. Impre\u017fs\u0131on: y"},
    ),
    "part of a word": ("Historyless: x. Overviews: y", {"": "Historyless: x. Overviews: y"}),
    "subheadings": ("FINDINGS:\nLUNGS: clear\nHEART: normal", {"findings": "LUNGS: clear\nHEART: normal"}),
    # What is under no header is in no section.
    "paragraph behind an indication": (
        "INDICATION: cough\n\nThe lungs are clear.",
        {"indication": "cough", "": "The lungs are clear."},
    ),
    "indication below its header": ("INDICATION:\n\ncough\n\nClear.", {"indication": "cough", "": "Clear."}),
    "unknown header behind a comparison": (
        "COMPARISON: none\nPA AND LATERAL CHEST: clear",
        {"comparison": "none", "": "PA AND LATERAL CHEST: clear"},
    ),
    "signature": (
        "IMPRESSION: normal\nElectronically signed by: Dr. Roe",
        {"impression": "normal", "other": "Dr. Roe"},
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_report_is_cut_at_its_headers(name):
    report, sections = EXAMPLES[name]
    assert split_sections(report) == sections


def test_sections_come_in_the_order_asked_for():
    assert select_sections(MIMIC, ["impression", "indication"]) == (
        "No acute process.\n___F with cough\nand fever  // pneumonia?"
    )
    assert select_sections(MIMIC, ["recommendation"]) == ""


def test_a_name_is_known_as_a_tag_or_a_key():
    names = [
        "clinicalHistory",
        "clinical_history",
        "Findings:",
        "Reason for exam",
        "findings of note",
        "text",
        "study2",
    ]
    assert [section_of(name) for name in names] == ["indication", "indication", "findings", "indication", None] + (
        [None] * 2
    )
    assert all(section_of(name) == name for name in SECTIONS)


PIECES = [
    "FINDINGS:",
    "Impression:",
    "**History**",
    "clear",
    "no change.",
    "\n",
    "\n\n",
    "\r\n",
    " ",
    "AP CHEST:",
    "1. ",
]


@settings(deadline=None, max_examples=300)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=20))
def test_no_word_is_lost_or_in_two_sections(pieces):
    report = "".join(f"{piece} w{i} " for i, piece in enumerate(pieces))
    words = re.findall(r"w\d+", " ".join(split_sections(report).values()))
    assert sorted(words) == sorted(f"w{i}" for i in range(len(pieces)))


@pytest.mark.parametrize(
    "piece", ["a", " ", "*", "FINDINGS", "FINDINGS ", "FINDINGS, ", ". ", "A:", "1. ", "IMPRESSION: "]
)
def test_a_long_line_of_anything_takes_its_length(piece):
    start = time.process_time()
    split_sections(piece * (200_000 // len(piece)))
    assert time.process_time() - start < 4
