"""Findings that a chest film report states, read off its words by rules that a radiologist can read and correct.

Two well-known labelers gave the idea; the code and the phrases are our own:

- NegEx (Chapman et al. 2001, "A simple algorithm for identifying negated findings and diseases in discharge
  summaries"): a cue negates the findings before or after it, as far as it reaches; look-alikes ("no change") do not.
- The CheXpert labeler (Irvin et al. 2019, arXiv:1901.07031): 14 categories, and a value for findings that are hedged.

Differs: no parser; a cue reaches to the end of its statement, not over a number of words; all of the report is read,
not its impression alone. These are neither CheXpert's nor CheXbert's labels: no score of them compares with a published
one.

What the rules decide:

- Of several statements of a category a positive one wins, then an uncertain one.
- "Likely" and "probable" are uncertain, as "possible" is: the reporter hedges. "Consistent with" commits, so it is
  positive. "Unlikely" is negative.
- What a prior exam showed ("Prior exam: nodule.") states nothing now, unless the clause also says what became of it
  ("the nodule seen on the prior exam is unchanged"). "History of", "evaluate for" and sentences headed "History:",
  "Indication:" and the like state nothing either.
- No category implies another: "pneumonia" alone is no Lung Opacity. Silence is No Finding, as in the CheXpert labeler.

How to read the tables: phrases are regular expressions, separated by commas, for whole words in lower case. `~` stands
for up to four words, and a word in capitals for its line in `_WORDS`. Hyphens within words count as spaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmfuse.types import MmfuseError

_WORDS = {
    "HEART": "(heart|(cardiac|heart) (silhouette|shadow|size|contours?|profile|(transverse )?diameter)|"
    "cardiothoracic ratio)",
    "LUNGS": "(lungs?|lung (fields?|zones?|bases?|parenchyma)|air ?spaces?)",
    "ANGLES": "(angles?|sulc(us|i)|sinus(es)?|recess(es)?)",
    "BONES": "(bones|(bony|osseous|skeletal) structures|bony thorax|ribs)",
    "NORMAL": "(normal|unremarkable|(with)?in normal (limits|range))",
    "WIDE": "(widen(ed|ing)|wide|enlarge(d|ment)|broaden(ed|ing))",
    "CHANGE": "(chang|increas|decreas|improv|worsen|progress|regress)(es?|ed|ing|ion|ement|ment)?",
    "SHOWS": "(show|demonstrat|reveal|depict|document)(s|ed|e|es|ing)?",
    "SEEN": "(seen|identified|visuali[sz]ed|noted|evident|appreciated|detected|demonstrated|found|observed|shown|"
    "visible|apparent|present|suspected|recogni[sz](ed|able))",
    "PRIOR": "(prior|previous|old|earlier|last|outside) (chest )?"
    "(exam(ination)?|stud(y|ies)|film|radiograph|x ray|cxr|ct|scan|image|imaging)s?",
    "CLAIM": r"(there|the|an?|possibl[ey]|probabl[ey]|likely|suspected|questionable|otherwise|residual|suggest\w+)",
    "GRADE": r"(small|tiny|trace|minimal|mild(ly)?|moderate(ly)?|large|massive|marked|severe|stable|unchanged|new|left|"
    r"right|bilateral|bibasilar|patchy|persist\w+|increas\w+|decreas\w+|improv\w+|worsening)",
}

_MENTIONS = {
    "Enlarged Cardiomediastinum": """
        WIDE( of)?( the)?( superior| upper)? (cardio)?mediastin(um|al), (cardio)?mediastin(um|al) ~ WIDE""",
    "Cardiomegaly": r"""
        cardiomegaly, cardiac enlargement, (enlarged|enlargement of|large|increased|borderline)( the)? HEART,
        HEART ~ enlarged, HEART( is| was| appears)?( \w+ly)? (large|larger|increased?|prominent|borderline)""",
    "Lung Opacity": """
        opacit(y|ies), opacif(ied|ications?), infiltrat(es?|ions?|ive), haz(e|y|iness), ground glass, ggos?,
        air ?spaces? (disease|process|changes?|shadow(s|ing)?),
        (abnormal|confluent|patchy|alveolar|interstitial|lung|pulmonary) ~ (shadow(s|ing)?|density|densities),
        (interstitial|reticular|reticulo ?nodular|nodular|alveolar) ~ (patterns?|markings|changes|disease),
        (parenchymal|pulmonary|peribronchial|septal|interstitial) ~ thickenings?, thickening of( the)? LUNGS""",
    "Lung Lesion": """
        nodules?, nodular (opacit(y|ies)|densit(y|ies)|shadows?), mass(es)?, lesions?, tumou?rs?, granulomas?,
        cavit(y|ies|ations?|ary), (lung|pulmonary) (metastas[ei]s|cancer|carcinoma|neoplasms?|abscess(es)?)""",
    "Edema": """
        o?edema, (vascular|pulmonary|venous) congestion, (heart|cardiac) failure, chf, (fluid|volume) overload,
        cephali[sz]ation, kerley( b)? lines""",
    "Consolidation": "consolidat(ions?|ed|ive|ing), condensations?",
    "Pneumonia": """
        (broncho)?pneumonias?, pneumonic, (lung|pulmonary|chest) infections?,
        infectious (process|infiltrates?|opacit(y|ies)|a?etiology)""",
    "Atelectasis": "atelecta(sis|ses|tic), volume loss, loss of volume, collapse, collapsed ~ (lung|lobe)",
    "Pneumothorax": "(hydro)?pneumothora(x|xes|ces), ptx",
    "Pleural Effusion": """
        effusions?, pleural fluid, hydro(pneumo)?thorax, blunt(ed|ing) ~ ANGLES, ANGLES ~ blunt(ed|ing)""",
    "Pleural Other": """
        pleural (effusions? (or|and) )?(thickening|plaques?|scar(s|ring)?|fibrosis|calcifications?|reaction|mass(es)?),
        (thickened|calcified|thickening of( the)?( bilateral)?) pleura, (apical|pleural) cap(s|ping)?, fibrothorax""",
    "Fracture": "fractur(es?|ed), broken ribs?",
    "Support Devices": """
        (endotracheal|tracheal|nasogastric|orogastric|enteric|feeding|ng|og|et|chest|pleural|support) tubes?, ett,
        tracheostomy, lines and tubes, tubes and lines, (intercostal|chest|pleural|pigtail) (drains?|catheters?), cvc,
        (central|venous|subclavian|jugular|dialysis|support) ~ (lines?|catheters?), picc, port ?a ?cath, swan ganz,
        dobhoff, pace ?makers?, (pacing|pacer) (wires?|leads?), defibrillators?, aicd, (sternal|sternotomy) wires,
        stents?, prosthetic ~ valves?, balloon pump""",
}
"""By category, the phrases that mention it; No Finding has none."""

_ELSEWHERE = r"""
    (pericardial|joint|knee) effusions?, (leg|ankle|pedal|peripheral|limb|cerebral|subcutaneous|soft tissue) o?edema,
    (skin|bone|bony|osseous|lytic|sclerotic|blastic|brain|cerebral) lesions?, (thyroid|breast) (nodules?|mass(es)?),
    body mass, mass (index|effect|like), tumou?r markers?, (oral|nasal|pleural|thoracic|abdominal) cavit(y|ies),
    (vertebral|circulatory|cardiovascular) collapse, mediastinal (lymph\w*|nod\w+|adenopath\w+),
    (past|prior|previous) pneumonias?"""
"""What looks like a mention, but of another organ or time."""

_DENIALS = {
    "Enlarged Cardiomediastinum": """
        (cardio)?mediastin(um|al) ~ NORMAL, cardiomediastinal ~ and ~ NORMAL, normal (cardio)?mediastin(um|al)""",
    "Cardiomegaly": """
        HEART ~ NORMAL, HEART and ~ NORMAL, normal( size of( the)?)? HEART, cardiomediastinal ~ NORMAL,
        cardiomediastinal ~ and ~ NORMAL, normal cardiomediastinal""",
    "Lung Opacity": "LUNGS ~ clear, LUNGS ~ and clear, clear LUNGS",
    "Edema": "vascula(r|ture|rity) ~ NORMAL, normal (pulmonary )?vascula(r|ture|rity)",
    "Consolidation": "LUNGS ~ clear, LUNGS ~ and clear, clear LUNGS",
    "Atelectasis": "lungs? ~ fully expanded",
    "Pneumothorax": """
        lungs? ~ fully expanded, pleural (spaces?|surfaces?) ~ (clear|NORMAL), no pleural abnormalit(y|ies)""",
    "Pleural Effusion": """
        ANGLES ~ (sharp|clear|preserved|free|NORMAL), (sharp|clear) ~ ANGLES, no pleural abnormalit(y|ies),
        pleural (spaces?|surfaces?) ~ (clear|NORMAL)""",
    "Pleural Other": "no pleural abnormalit(y|ies)",
    "Fracture": "BONES ~ (intact|NORMAL), no( acute)? (bony|osseous) abnormalit(y|ies)",
}
"""By category, what is said of a healthy chest that denies it."""

_CUES = {
    # what it does to findings, and to which: those after it (>), before it (<), or both
    "nothing": r"""
        (no|not|without)( evidence of)?( \w+){0,2} CHANGE (in|of|from|since), not( \w+ly)? CHANGE, not only, no doubt,
        no (larger|smaller|worse), if not, not( \w+)? (resolved|cleared), not (well|fully|adequately) \w+, may \d+,
        ((is|are|was|has|have|had) )?(almost|nearly?|partial(ly)?|incomplete(ly)?)( completely?)? (resol|clear)\w+,
        ((is|are|was|were) )?not SEEN (on|in) ((the|an?) )?PRIOR, (can|could) be SEEN""",
    "prior <>": "(on|in|at) ((the|an?|her|his) )?PRIOR",
    "prior >": r"PRIOR( \w+){0,2} (SHOWS|with|had), PRIOR:",
    "unsaid >": r"""
        (evaluat|assess)\w* for, (history|hx) of, h/o, risk (of|for), if, (to )?(exclude|rule out), r/o,
        to (ensure|confirm|document)""",
    "uncertain <": r"""
        (is|are|was|were) (possible|suspected|questionable|questioned|considered|not excluded|a possibility),
        (is|are|was|were) (likely|probable)(?=$|[,:]), (may|might|could) be present,
        (cannot|can not|could not|not)( be)?( \w+ly)? (excluded|ruled out)""",
    "uncertain >": r"""
        (cannot|can not|could not|not)( \w+ly)? (exclude|rule out), possib(le|ly|ility of), probabl[ey], likely, may,
        might, could, perhaps, suspect(ed)?, suspicious (for|areas? of), suspicion (of|for), suggest(s|ed|ing|ive of)?,
        concern(ing)? (for|about|of), worrisome for, question(able)?, equivocal, presum(ed|ably), favou?r(s|ed|ing)?,
        borderline, consider, less likely, differential, either""",
    "uncertain <>": "versus",
    "negative <": r"""
        ((is|are|was|were) )?(not|no longer)( \w+ly)? (SEEN|likely), no longer(?! SHOWS), none,
        ((is|are|was|were) )?(absent|unlikely(?! to)|ruled out|excluded),
        ((is|are|was|were|has|have|had) )?((\w+ly|now|since|been) )*(resolved|disappeared|removed|cleared)""",
    "negative >": """
        no longer SHOWS, no, not, without, w/o, nor, neither, never, unlikely, denies, rather than, instead of,
        (free|clear|absence|lack|resolution|removal|disappearance) of, negative for, exclud(es|ing), rul(es|ing) out,
        fail(s|ed) to""",
    # where the reach of a cue ends: "no effusion, small pneumothorax"; a joint does not end that of a cue that reaches
    # back or tells of a prior exam: "the effusion and the pneumothorax have resolved"
    "stop": r",(?= ((and|with) )?(CLAIM|GRADE(?!.* n?or )) ), (is|are|was|were) SEEN(?=,| and)",
    "joint": r"\s(and|with)(?= (CLAIM|GRADE(?!.* n?or )) )",
}
"""Of cues that overlap the one that begins first counts, then the first here."""

_NOW = r"""
    unchanged, stable, persist\w*, again, still, remain\w*, CHANGE, larger, smaller, resol\w+, no longer, now, today,
    new, similar, than, since, current\w*"""
"""What tells that a clause on a prior exam is on the present, too."""

_CLAUSE_END = "but, however, although, though, except, apart from, aside from, other than, whereas, while"
_HEADER = r"\b(?:findings|impression|conclusion|history|indication|information|comparison|technique)\s?:"
_SENTENCE_END = re.compile(rf"[.;](?!\d)|[!?](?=\s|$)|\n\s*\n|(?={_HEADER})")
_UNSAID_HEADER = re.compile(r"(history|indication|information|comparison|technique|reason for (the )?exam\w*)\s?:")

CATEGORIES = ("No Finding", *_MENTIONS)
COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five categories of the CheXpert competition."""


def _compiled(phrases: str) -> re.Pattern[str]:
    """The pattern of a table's entry."""
    for word, meaning in _WORDS.items():
        phrases = phrases.replace(word, meaning)
    phrases = re.sub(r",\s+", "|", phrases.strip()).replace(" ~ ", r":?(?: (?!(?:and|or)\b)[\w':]+){0,4} ")
    phrases = re.sub(r"\((?!\?)", "(?:", phrases)
    return re.compile(rf"(?:(?<!\w)|(?=\W))(?:{phrases})(?!\w)")


_PATTERNS = [
    (category, usual, _compiled(phrases))
    for usual, table in (("positive", _MENTIONS), ("negative", _DENIALS))
    for category, phrases in table.items()
]
_CUE_PATTERN = re.compile("|".join(f"({_compiled(phrases).pattern})" for phrases in _CUES.values()))
_ELSEWHERE_PATTERN, _NOW_PATTERN, _CLAUSE_END_PATTERN = map(_compiled, (_ELSEWHERE, _NOW, _CLAUSE_END))


def label_report(text: str) -> dict[str, str]:
    """What a report says of each of the `CATEGORIES`: "positive", "uncertain", "negative", or "absent" if nothing.

    No Finding is positive if no other category but Support Devices is positive or uncertain, else absent.

    Reference: Irvin et al. 2019, arXiv:1901.07031, for the categories.
    Differs: see the module; these are not CheXpert's labels.
    Prefer when: a report must be scored without a model, or a label must be explained by a phrase.
    """
    said = {category: {"absent"} for category in CATEGORIES}
    for clause in _clauses(text):
        for category, status in _statements(clause):
            said[category].add(status)
    ranks = ("positive", "uncertain", "negative", "absent")
    labels = {category: min(statuses, key=ranks.index) for category, statuses in said.items()}
    found = any(labels[category] in ranks[:2] for category in CATEGORIES if category != "Support Devices")
    return {**labels, "No Finding": "absent" if found else "positive"}


def rule_label_counts(
    candidates: Sequence[str], references: Sequence[str], uncertain: str = "positive"
) -> NDArray[np.int64]:
    """Compare the positive labels of written reports with those of their references, row by row.

    Args:
        candidates: N reports.
        references: N reports, in the same order.
        uncertain: "positive" or "negative", what an uncertain label counts as.

    Returns:
        `(N, 14, 3)`, by row and category: true positive, false positive, false negative; each 0 or 1.

    Raises:
        MmfuseError: The numbers of reports differ, or `uncertain` is not legal.
    """
    if len(candidates) != len(references):
        raise MmfuseError(f"{len(candidates)} candidates and {len(references)} references: each needs its own")
    if uncertain not in ("positive", "negative"):
        raise MmfuseError(f"uncertain is {uncertain!r}; legal: 'positive', 'negative'")
    yes = ("positive", "uncertain") if uncertain == "positive" else ("positive",)
    written, true = (
        np.array([[label in yes for label in label_report(text).values()] for text in texts], bool).reshape(-1, 14)
        for texts in (candidates, references)
    )
    return np.stack([written & true, written & ~true, ~written & true], axis=-1).astype(np.int64)


def rule_label_f1(candidates: Sequence[str], references: Sequence[str], uncertain: str = "positive") -> dict[str, Any]:
    """F1 of the positive labels of written reports against those of their references, both read off by `label_report`.

    Reference: Irvin et al. 2019, arXiv:1901.07031, for the 14 categories and the 5 of the competition.
    Differs: the labels are our rules', so it does not compare with an F1 of CheXpert's or CheXbert's.
    Prefer when: a difference must be traced to a phrase, or no labeling model may be used.

    Args:
        candidates: N reports.
        references: N reports, in the same order.
        uncertain: "positive" or "negative", what an uncertain label counts as.

    Returns:
        `rule_label_f1_micro_14`, `rule_label_f1_macro_14`, `rule_label_f1_micro_5`, `rule_label_f1_macro_5`;
        `per_label`, the F1 of each category, None if neither side has it positive (macro means leave it out, and are
        None without any category); and `uncertain`.

    Raises:
        MmfuseError: The numbers of reports differ, or `uncertain` is not legal.
    """
    counts = rule_label_counts(candidates, references, uncertain).sum(axis=0)
    per_label = {category: _f1(row) for category, row in zip(CATEGORIES, counts, strict=True)}
    result = {}
    for chosen in (CATEGORIES, COMPETITION):
        defined = [value for category in chosen if (value := per_label[category]) is not None]
        rows = [CATEGORIES.index(category) for category in chosen]
        result[f"rule_label_f1_micro_{len(chosen)}"] = _f1(counts[rows].sum(axis=0))
        result[f"rule_label_f1_macro_{len(chosen)}"] = float(np.mean(defined)) if defined else None
    return {**result, "per_label": per_label, "uncertain": uncertain}


def _f1(counts: NDArray[np.int64]) -> float | None:
    """F1 from true positives, false positives and false negatives; None without any."""
    hits, false_alarms, misses = (int(count) for count in counts)
    return 2 * hits / (2 * hits + false_alarms + misses) if counts.any() else None


def _clauses(text: str) -> Iterator[str]:
    """The parts of a report that no cue reaches beyond, without the sentences that state nothing."""
    text = re.sub(r"(?<=\w)-(?=\w)", " ", text.lower().replace("vs.", "versus").replace(" vs ", " versus "))
    text = re.sub(r"(?<!\S)\?(?=[a-z])", "possible ", text)
    for sentence in _SENTENCE_END.split(text):
        sentence = " ".join(sentence.split())
        if not _UNSAID_HEADER.search(sentence):
            yield from _CLAUSE_END_PATTERN.split(_ELSEWHERE_PATTERN.sub("something", sentence))


class _Cue(NamedTuple):
    """A phrase of `_CUES` where it stands in a clause."""

    effect: str
    reach: str
    text: str
    start: int
    end: int


def _statements(clause: str) -> Iterator[tuple[str, str]]:
    """Each category that a clause speaks of, with what it says."""
    kinds = [kind.partition(" ") for kind in _CUES]
    found = [(kinds[(match.lastindex or 0) - 1], match) for match in _CUE_PATTERN.finditer(clause)]
    cues = [_Cue(effect, reach, match[0], *match.span()) for (effect, _, reach), match in found]
    silent = {"unsaid"} if _NOW_PATTERN.search(clause) else {"unsaid", "prior"}
    for category, usual, pattern in _PATTERNS:
        for mention in pattern.finditer(clause):
            effects = {cue.effect for cue in cues if _reaches(cue, mention, cues)}
            inside = {cue.effect for cue in cues if mention.start() < cue.start < mention.end()}
            if effects & silent or (usual == "negative" and inside & {"negative", "uncertain"}):
                continue
            weakened = (status for status in ("negative", "uncertain") if status in effects)
            yield category, usual if usual == "negative" else next(weakened, usual)


def _reaches(cue: _Cue, mention: re.Match[str], cues: list[_Cue]) -> bool:
    """Whether a cue is about a mention: before it, after it, or in it ("the heart is not enlarged")."""
    start, end = mention.span()
    follows = cue.start >= end
    left, right = (end, cue.start) if follows else (cue.end, start)
    ends = {"stop", "negative"} if follows else {"stop"} if cue.effect == "prior" else {"stop", "joint"}
    if follows and cue.text.startswith(("is ", "was ", "has ")) and " and " in mention.string[left:right]:
        return False  # in the singular it is about what stands behind the last "and"
    between = {other.effect for other in cues if left <= other.start < right}
    return ("<" if follows else ">") in cue.reach and not between & ends
