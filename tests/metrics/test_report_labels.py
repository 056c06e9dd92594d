import numpy as np
import pytest

from mmfuse.data.synthetic.phantom_study import make_study, write_report
from mmfuse.metrics.report_labels import (
    CATEGORIES,
    COMPETITION,
    label_report,
    rule_label_counts,
    rule_label_f1,
)
from mmfuse.types import MmfuseError

POSITIVE = [
    # plain mentions of every category
    ("The superior mediastinum is widened.", "Enlarged Cardiomediastinum"),
    ("Wide mediastinum.", "Enlarged Cardiomediastinum"),
    ("Cardiomegaly.", "Cardiomegaly"),
    ("The heart is mildly enlarged.", "Cardiomegaly"),
    ("Enlarged cardiac silhouette.", "Cardiomegaly"),
    ("The heart size is increased.", "Cardiomegaly"),
    ("Patchy opacities in both lower lobes.", "Lung Opacity"),
    ("Ground-glass changes on the right.", "Lung Opacity"),
    ("Perihilar infiltrates.", "Lung Opacity"),
    ("Interstitial markings are prominent.", "Lung Opacity"),
    ("A 2.5 cm nodule at the apex.", "Lung Lesion"),
    ("Cavitary mass in the left lung.", "Lung Lesion"),
    ("Mild pulmonary oedema.", "Edema"),
    ("Vascular congestion.", "Edema"),
    ("Dense consolidation of the middle lobe.", "Consolidation"),
    ("Findings are consistent with pneumonia.", "Pneumonia"),
    ("Plate-like atelectasis at the base.", "Atelectasis"),
    ("Volume loss on the left.", "Atelectasis"),
    ("Tension pneumothorax.", "Pneumothorax"),
    ("Trace effusions on both sides.", "Pleural Effusion"),
    ("Blunting of the left costophrenic angle.", "Pleural Effusion"),
    ("Apical pleural thickening.", "Pleural Other"),
    ("Old healed rib fractures.", "Fracture"),
    ("NG tube ends in the stomach.", "Support Devices"),
    ("Right internal jugular central venous catheter.", "Support Devices"),
    ("Dual-lead pacemaker.", "Support Devices"),
    # what looks like a negation
    ("No change in the effusion.", "Pleural Effusion"),
    ("No significant interval change in the large effusion.", "Pleural Effusion"),
    ("Without change of the left effusion.", "Pleural Effusion"),
    ("Not significantly changed effusion.", "Pleural Effusion"),
    ("Not only effusion but also edema.", "Pleural Effusion"),
    ("The effusion has not resolved.", "Pleural Effusion"),
    ("The effusion has nearly resolved.", "Pleural Effusion"),
    ("Moderate if not large effusion.", "Pleural Effusion"),
    # where a negation ends
    ("No pneumothorax, small effusion.", "Pleural Effusion"),
    ("No pneumothorax and a small effusion.", "Pleural Effusion"),
    ("No pneumothorax but an effusion.", "Pleural Effusion"),
    ("Although there is no pneumothorax, however an effusion persists.", "Pleural Effusion"),
    ("Nothing new except an effusion.", "Pleural Effusion"),
    ("No abnormality other than an effusion.", "Pleural Effusion"),
    ("No pneumothorax is seen, effusion on the left.", "Pleural Effusion"),
    ("No pneumothorax; effusion on the left.", "Pleural Effusion"),
    ("Effusion without pneumothorax.", "Pleural Effusion"),
    ("There is an effusion and the pneumothorax has resolved.", "Pleural Effusion"),
    ("There is an effusion and pneumothorax is absent.", "Pleural Effusion"),
    ("Effusion, no consolidation, pneumothorax not seen.", "Pleural Effusion"),
    # where a doubt ends
    ("Possible pneumonia, large effusion.", "Pleural Effusion"),
    ("Possible pneumonia and stable cardiomegaly.", "Cardiomegaly"),
    ("The opacity is likely atelectasis.", "Lung Opacity"),
    ("The opacity may represent pneumonia.", "Lung Opacity"),
    # of several statements the strongest
    ("No effusion on the left. Effusion on the right.", "Pleural Effusion"),
    ("Possible effusion. Definite effusion on the right.", "Pleural Effusion"),
    # a prior exam that tells of the present
    ("The nodule seen on the prior exam is unchanged.", "Lung Lesion"),
    ("Compared with the prior exam, there is an effusion.", "Pleural Effusion"),
    ("As on the prior exam, there is an effusion.", "Pleural Effusion"),
    ("Opacity in the left base, not seen on the prior exam.", "Lung Opacity"),
    ("New nodule.", "Lung Lesion"),
]

NEGATIVE = [
    # cues before
    ("No effusion.", "Pleural Effusion"),
    ("There is no evidence of effusion.", "Pleural Effusion"),
    ("Cardiomegaly without effusion.", "Pleural Effusion"),
    ("Free of effusion.", "Pleural Effusion"),
    ("Negative for effusion.", "Pleural Effusion"),
    ("Absence of effusion.", "Pleural Effusion"),
    ("Atelectasis rather than effusion.", "Pleural Effusion"),
    ("Neither pneumothorax nor effusion.", "Pleural Effusion"),
    ("Interval resolution of the effusion.", "Pleural Effusion"),
    ("The film no longer shows the effusion.", "Pleural Effusion"),
    ("The heart is not enlarged.", "Cardiomegaly"),
    ("No opacity to suggest pneumonia.", "Pneumonia"),
    ("No nodule above 0.5 cm or effusion.", "Pleural Effusion"),
    ("INDICATION: Fever\nFINDINGS: No effusion.", "Pleural Effusion"),
    # cues after
    ("Effusion is absent.", "Pleural Effusion"),
    ("The effusion has resolved.", "Pleural Effusion"),
    ("The effusion, seen earlier, has completely resolved.", "Pleural Effusion"),
    ("Effusion is not seen.", "Pleural Effusion"),
    ("Effusion is no longer identified.", "Pleural Effusion"),
    ("Effusion: none.", "Pleural Effusion"),
    ("Pneumonia is unlikely.", "Pneumonia"),
    ("Pneumonia was ruled out.", "Pneumonia"),
    ("The chest tube has been removed.", "Support Devices"),
    # lists
    ("No effusion, pneumothorax or consolidation.", "Pleural Effusion"),
    ("No effusion, pneumothorax or consolidation.", "Pneumothorax"),
    ("No effusion, pneumothorax or consolidation.", "Consolidation"),
    ("No consolidation, large effusion, or pneumothorax.", "Pleural Effusion"),
    ("The effusion and the pneumothorax have resolved.", "Pleural Effusion"),
    ("The effusion and pneumothorax are absent.", "Pleural Effusion"),
    ("No pleural effusion or thickening.", "Pleural Other"),
    # a healthy chest
    ("Heart size is normal.", "Cardiomegaly"),
    ("The heart is of normal size.", "Cardiomegaly"),
    ("Normal cardiac silhouette.", "Cardiomegaly"),
    ("The cardiomediastinal silhouette is within normal limits.", "Cardiomegaly"),
    ("The cardiomediastinal silhouette is within normal limits.", "Enlarged Cardiomediastinum"),
    ("Lungs: clear.", "Lung Opacity"),
    ("The lungs are clear.", "Consolidation"),
    ("Lungs are fully expanded.", "Pneumothorax"),
    ("Lungs are fully expanded.", "Atelectasis"),
    ("Costophrenic angles are sharp.", "Pleural Effusion"),
    ("The pleural spaces are unremarkable.", "Pneumothorax"),
    ("Pulmonary vasculature is normal.", "Edema"),
    ("Osseous structures are intact.", "Fracture"),
    ("No acute bony abnormality.", "Fracture"),
    # a prior exam that tells of the present
    ("The nodule of the prior exam is no longer seen.", "Lung Lesion"),
    ("Effusion seen on the prior exam has resolved.", "Pleural Effusion"),
]

UNCERTAIN = [
    ("Possible pneumonia.", "Pneumonia"),
    ("Probable pneumonia.", "Pneumonia"),
    ("Likely pneumonia.", "Pneumonia"),
    ("The opacity may represent pneumonia.", "Pneumonia"),
    ("The opacity could reflect edema or pneumonia.", "Pneumonia"),
    ("Cannot exclude pneumonia.", "Pneumonia"),
    ("Opacity suspicious for pneumonia.", "Pneumonia"),
    ("Suspected pneumonia.", "Pneumonia"),
    ("Questionable pneumonia.", "Pneumonia"),
    ("?pneumonia at the base.", "Pneumonia"),
    ("Concern for pneumonia.", "Pneumonia"),
    ("Atelectasis versus pneumonia.", "Pneumonia"),
    ("Atelectasis vs. pneumonia.", "Atelectasis"),
    ("Pneumonia is possible.", "Pneumonia"),
    ("Pneumonia is likely.", "Pneumonia"),
    ("Pneumonia cannot be excluded.", "Pneumonia"),
    ("Pneumonia is not excluded.", "Pneumonia"),
    ("Borderline heart size.", "Cardiomegaly"),
    ("No effusion, possible pneumonia.", "Pneumonia"),
    ("No pneumonia on the left. Possible pneumonia on the right.", "Pneumonia"),
]

ABSENT = [
    ("Film of the chest.", "Pleural Effusion"),
    ("Prior exam showed a nodule.", "Lung Lesion"),
    ("Prior exam: nodule present.", "Lung Lesion"),
    ("Nodule seen on the prior exam.", "Lung Lesion"),
    ("The previous film showed an effusion and a nodule.", "Lung Lesion"),
    ("Clear lungs on the prior exam.", "Lung Opacity"),
    ("The previous film showed cardiomegaly but no effusion.", "Cardiomegaly"),
    ("History of pneumonia.", "Pneumonia"),
    ("History: pneumonia.", "Pneumonia"),
    ("INDICATION: Fever, pneumonia\nFINDINGS: No effusion.", "Pneumonia"),
    ("Evaluate for pneumonia.", "Pneumonia"),
    ("Rule out pneumonia.", "Pneumonia"),
    ("If pneumonia is suspected, repeat the film.", "Pneumonia"),
    ("Pericardial effusion.", "Pleural Effusion"),
    ("Ankle edema.", "Edema"),
    ("Enlarged mediastinal lymph nodes.", "Enlarged Cardiomediastinum"),
    ("The heart is hidden behind a large effusion.", "Cardiomegaly"),
    ("Behind the heart and the enlarged thyroid.", "Cardiomegaly"),
    ("Biomass smoke.", "Lung Lesion"),
    ("Massively obese.", "Lung Lesion"),
    ("The lungs are not clear.", "Lung Opacity"),
    ("The heart size may be normal.", "Cardiomegaly"),
    ("Pneumonia of the right lobe.", "Lung Opacity"),
]

CASES = [
    (sentence, category, status)
    for status, rows in (("positive", POSITIVE), ("negative", NEGATIVE), ("uncertain", UNCERTAIN), ("absent", ABSENT))
    for sentence, category in rows
]


@pytest.mark.parametrize(("sentence", "category", "status"), CASES)
def test_a_sentence_says(sentence, category, status):
    assert label_report(sentence)[category] == status


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", "positive"),
        ("Normal chest.", "positive"),
        ("No effusion. The lungs are clear.", "positive"),
        ("NG tube in place.", "positive"),
        ("Small effusion.", "absent"),
        ("Possible effusion.", "absent"),
        ("NG tube in place. Small effusion.", "absent"),
    ],
)
def test_no_finding_is_what_is_left(text, status):
    assert label_report(text)["No Finding"] == status


def test_all_categories_are_answered_in_their_order():
    assert tuple(label_report("Effusion.")) == CATEGORIES
    assert len(CATEGORIES) == 14
    assert set(COMPETITION) < set(CATEGORIES)


def test_white_space_and_case_do_not_matter():
    lower, upper = (label_report(text) for text in ("no pleural effusion", "NO  PLEURAL\n EFFUSION"))
    assert lower == upper
    assert lower["Pleural Effusion"] == "negative"


@pytest.mark.parametrize("index", range(60))
def test_phantom_reports_are_read_as_they_are_told(index):
    study = make_study(0, index)
    labels = label_report(write_report(study))
    told = {
        "Lung Opacity": study.told["opacity"],
        "Pleural Effusion": study.told["effusion"],
        "Pneumothorax": study.told["pneumothorax"],
    }
    assert {category: labels[category] for category in told} == {
        category: "positive" if there else "negative" for category, there in told.items()
    }
    assert labels["Lung Lesion"] == "absent"  # a phantom's report tells of the prior nodule alone
    assert labels["No Finding"] == ("absent" if any(told.values()) else "positive")


CANDIDATES = ["Effusion. Possible edema.", "Cardiomegaly.", "No effusion. Rib fracture."]
REFERENCES = ["Effusion. Edema.", "Effusion.", "Rib fracture."]


def test_scores_are_those_of_counts_done_by_hand():
    scores = rule_label_f1(CANDIDATES, REFERENCES)

    # true positive, false positive, false negative: effusion 1 0 1, edema 1 0 0, cardiomegaly 0 1 0, fracture 1 0 0
    defined = {"Pleural Effusion": 2 / 3, "Edema": 1.0, "Cardiomegaly": 0.0, "Fracture": 1.0}
    assert scores["per_label"] == {category: defined.get(category) for category in CATEGORIES}
    assert scores["rule_label_f1_micro_14"] == pytest.approx(6 / 8)
    assert scores["rule_label_f1_macro_14"] == pytest.approx((2 / 3 + 1 + 0 + 1) / 4)
    assert scores["rule_label_f1_micro_5"] == pytest.approx(4 / 6)
    assert scores["rule_label_f1_macro_5"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores["uncertain"] == "positive"


def test_uncertain_labels_count_as_told():
    scores = rule_label_f1(CANDIDATES, REFERENCES, uncertain="negative")

    assert scores["per_label"]["Edema"] == 0
    assert scores["uncertain"] == "negative"


def test_rows_of_counts_add_up_to_the_scores():
    counts = rule_label_counts(CANDIDATES, REFERENCES)

    assert counts.shape == (3, 14, 3)
    assert np.isin(counts, (0, 1)).all()
    assert counts.sum(axis=2).max() == 1  # a row is one of the three, or a true negative
    effusion = CATEGORIES.index("Pleural Effusion")
    assert counts[:, effusion].tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    hits, false_alarms, misses = counts.sum(axis=(0, 1))
    assert rule_label_f1(CANDIDATES, REFERENCES)["rule_label_f1_micro_14"] == pytest.approx(
        2 * hits / (2 * hits + false_alarms + misses)
    )


def test_a_report_agrees_with_itself():
    scores = rule_label_f1(REFERENCES, REFERENCES)
    assert {scores[f"rule_label_f1_{mean}_{n}"] for mean in ("micro", "macro") for n in (14, 5)} == {1.0}


def test_without_positives_scores_are_undefined():
    scores = rule_label_f1(["Normal chest."], ["Normal chest."])
    assert scores["rule_label_f1_micro_14"] == 1  # both say No Finding
    assert scores["rule_label_f1_micro_5"] is None
    assert scores["rule_label_f1_macro_5"] is None
    assert rule_label_f1([], [])["rule_label_f1_micro_14"] is None


def test_wrong_arguments_are_named():
    with pytest.raises(MmfuseError, match="2 candidates and 1 references"):
        rule_label_counts(["", ""], [""])
    with pytest.raises(MmfuseError, match="'maybe'; legal: 'positive', 'negative'"):
        rule_label_f1([""], [""], uncertain="maybe")
