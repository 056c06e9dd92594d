import csv
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score

from mmfuse.data.synthetic import phantom, phantom_study
from mmfuse.data.synthetic.phantom_film import read_symbols, render
from mmfuse.data.synthetic.phantom_study import LABELS, bayes_auroc, bayes_scores, make_study, write_report
from mmfuse.types import MmfuseError

pytestmark = pytest.mark.heavy

MODALITIES = ("text", "image", "both")

# A report reader that knows the words and nothing of the templates: what a sentence is about, and how it says no.
ABOUT = {
    "risk": r"smok|asbestos|tobacco",
    "prior_nodule": r"prior",
    "opacity": r"opacity|airspace",
    "effusion": r"effusion|costophrenic",
    "pneumothorax": r"pneumothorax|expanded",
}
DENIES = r"\b(no|never|non|absent|clear|sharp|expanded|unremarkable|normal|healthy)\b"


@pytest.fixture(scope="module")
def studies():
    return [make_study(11, index) for index in range(40_000)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "set"
    assert phantom.write_phantom(out, studies=150, seed=3) == out / "manifest.yaml"
    return out


def rows_of(folder):
    with (folder / "data.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flipped(symbols, *names):
    return {name: value ^ (name in names) for name, value in symbols.items()}


def auroc_and_error(truth, scores):
    """AUROC by scikit-learn and its standard error (DeLong 1988: the variance of both classes' placements)."""
    yes, no = np.sort(scores[truth]), np.sort(scores[~truth])

    def placements(values, others):
        below, up_to = np.searchsorted(others, values, "left"), np.searchsorted(others, values, "right")
        return (below + up_to) / 2 / len(others)

    variance = placements(yes, no).var() / len(yes) + placements(no, yes).var() / len(no)
    return roc_auc_score(truth, scores), variance**0.5


# ------------------------------------------------------------------------------------------------- the known answers


def test_a_single_symbol_gives_one_minus_its_noise():
    # Sensitivity and specificity are both 1 - e, and the AUROC of a yes/no score is their mean.
    answers = bayes_auroc()
    for kind, noise in phantom_study.NOISE.items():
        for label in set(noise) & set(LABELS):
            assert answers[label][kind] == pytest.approx(1 - noise[label], abs=1e-12)


def test_changed_needs_both_and_then_errs_where_exactly_one_symbol_does():
    shown, told = phantom_study.NOISE["image"]["nodule"], phantom_study.NOISE["text"]["prior_nodule"]
    right = (1 - shown) * (1 - told) + shown * told
    assert bayes_auroc()["changed"] == {"text": 0.5, "image": 0.5, "both": pytest.approx(right, abs=1e-12)}


def test_the_answers_follow_the_origin():
    answers = bayes_auroc()
    assert tuple(answers) == tuple(phantom_study.ORIGIN) == LABELS
    for label, origin in phantom_study.ORIGIN.items():
        text, image, both = (answers[label][modality] for modality in MODALITIES)
        if origin == "redundant":
            assert both > max(text, image) + 0.02
            assert min(text, image) > 0.8
            assert text != image
        elif origin in ("text", "image"):
            silent = image if origin == "text" else text
            assert silent == 0.5
            assert both == answers[label][origin] > 0.8


def test_bayes_scores_reach_bayes_auroc(studies):
    scores = [bayes_scores(study) for study in studies]
    for label, answers in bayes_auroc().items():
        truth = np.array([study.truth[label] for study in studies])
        for modality in MODALITIES:
            found, error = auroc_and_error(truth, np.array([score[label][modality] for score in scores]))
            assert abs(found - answers[modality]) <= 3 * error + 1e-9, (label, modality)


def test_bayes_scores_are_calibrated(studies):
    hits = {}
    for study in studies[:10_000]:
        for label, scores in bayes_scores(study).items():
            for modality, score in scores.items():
                hits.setdefault((label, modality, score), []).append(study.truth[label])
    for (*_, score), truths in hits.items():
        assert abs(np.mean(truths) - score) <= 4 * (score * (1 - score) / len(truths)) ** 0.5


def test_changed_is_an_xor_that_no_sum_of_the_two_symbols_orders(studies):
    assert all(s.truth["changed"] == (s.truth["nodule"] != s.truth["prior_nodule"]) for s in studies)
    truth = np.array([study.truth["changed"] for study in studies])
    shown = np.array([study.shown["nodule"] for study in studies], dtype=float)
    told = np.array([study.told["prior_nodule"] for study in studies], dtype=float)
    for weight in (1.0, -1.0, 0.5, -0.5):
        found, error = auroc_and_error(truth, shown + weight * told)
        assert abs(found - 0.5) <= 3.5 * error


def test_latents_and_errors_are_independent_with_their_rates(studies):
    columns = {("truth", name): [s.truth[name] for s in studies] for name in phantom_study.PREVALENCE}
    expected = list(phantom_study.PREVALENCE.values())
    for field, kind in (("shown", "image"), ("told", "text")):
        for name, rate in phantom_study.NOISE[kind].items():
            columns[field, name] = [getattr(s, field)[name] != s.truth[name] for s in studies]
            expected.append(rate)
    for name in ("opacity", "nodule"):
        columns["zone", name] = [s.places[name].zone == "upper" for s in studies]
    for name in ("opacity", "effusion", "pneumothorax", "nodule"):
        columns["side", name] = [s.places[name].side == "left" for s in studies]
    expected += [0.5] * 6
    table = np.array(list(columns.values()), dtype=float)
    rates = np.array(expected)
    assert np.all(np.abs(table.mean(1) - rates) <= 4 * np.sqrt(rates * (1 - rates) / len(studies)))
    between = np.corrcoef(table)[np.triu_indices(len(table), 1)]
    assert np.abs(between).max() <= 4.5 / len(studies) ** 0.5


# ---------------------------------------------------------------------------------------------------------- the image


def test_the_oracle_reads_every_shown_symbol(studies):
    some = studies[:2000]
    errors = Counter(
        name for study in some for name, seen in read_symbols(render(study)).items() if seen != study.shown[name]
    )
    assert set(read_symbols(render(some[0]))) == set(phantom_study.NOISE["image"])
    assert all(count <= len(some) / 1000 for count in errors.values()), errors


def test_the_image_tells_only_what_is_shown(studies):
    for study in studies[:20]:
        film = render(study)
        assert (film.mode, film.size) == ("L", (64, 64))
        other = replace(
            study, told=flipped(study.told, *study.told), truth=flipped(study.truth, *study.truth), patient="x", sex="x"
        )
        assert render(other).tobytes() == film.tobytes()
        for name in study.shown:
            assert render(replace(study, shown=flipped(study.shown, name))).tobytes() != film.tobytes()


@pytest.mark.parametrize("name", ["opacity", "effusion", "pneumothorax", "nodule"])
def test_the_patients_right_is_at_the_left_of_the_image(studies, name):
    for study in studies[:20]:
        nothing = dict.fromkeys(study.shown, False)
        without = np.asarray(render(replace(study, shown=nothing)), dtype=float)
        changed = np.abs(np.asarray(render(replace(study, shown=nothing | {name: True})), dtype=float) - without)
        halves = {"right": changed[:, :32].sum(), "left": changed[:, 32:].sum()}
        side = study.places[name].side
        assert halves[side] > 0.99 * changed.sum()


# --------------------------------------------------------------------------------------------------------- the report


def test_a_reader_of_words_reads_every_told_symbol_and_its_place(studies):
    for study in studies[:5000]:
        first, *sentences = re.findall(r"[^.]+\.", write_report(study).lower())
        assert first == "synthetic."
        assert len(sentences) == len(ABOUT)
        for name, words in ABOUT.items():
            (sentence,) = (sentence for sentence in sentences if re.search(words, sentence))
            assert study.told[name] == (not re.search(DENIES, sentence)), sentence
            if study.told[name] and name in study.places:
                said = set(re.findall(r"\b(right|left|upper|lower)\b", sentence))
                assert said <= set(study.places[name])
                assert study.places[name].side in said


def test_every_report_is_short_and_every_order_and_phrase_occurs(studies):
    reports = [write_report(study) for study in studies[:5000]]
    assert max(len(re.findall(r"\w+|[^\w\s]", report)) for report in reports) <= 40
    for name, words in ABOUT.items():
        sentences = {s.strip() for report in reports for s in re.findall(r"[^.]+\.", report.lower())}
        about = {re.sub(r"right|left|upper|lower", "_", s) for s in sentences if re.search(words, s)}
        assert 3 <= sum(bool(re.search(DENIES, s)) for s in about) <= 5, name
        assert 3 <= sum(not re.search(DENIES, s) for s in about) <= 5, name
    orders = {tuple(sorted(ABOUT, key=lambda name: re.search(ABOUT[name], r.lower()).start())) for r in reports}
    assert len(orders) == 2 * 6


def test_the_report_never_tells_what_only_the_image_shows(studies):
    for study in studies[:2000]:
        report = write_report(study)
        other = replace(
            study,
            shown=flipped(study.shown, *study.shown),
            truth=flipped(study.truth, *study.truth),
            places=study.places | dict.fromkeys(("nodule", "large_heart"), phantom_study.Place("nowhere", "nowhere")),
        )
        assert write_report(other) == report
        assert not re.search(r"heart|cardi", report, re.IGNORECASE)
        assert all("prior" in s for s in re.findall(r"[^.]+\.", report.lower()) if "nodul" in s)


# --------------------------------------------------------------------------------------------------------------- files


def test_a_study_depends_on_seed_and_index_alone():
    assert make_study(5, 123456) == make_study(5, 123456)
    assert make_study(5, 123456).id == "phantom-5-123456"
    assert make_study(0, 7).id == "phantom-0-000007"
    films = {render(make_study(seed, index)).tobytes() for seed in (0, 1) for index in (0, 1)}
    assert len(films) == 4


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_a_negative_seed_or_index_is_refused(seed, index):
    with pytest.raises(MmfuseError, match="0 or more"):
        make_study(seed, index)


def test_writing_again_gives_the_same_bytes(folder, tmp_path):
    phantom.write_phantom(tmp_path / "set", studies=180, seed=3)
    assert set(bytes_of(tmp_path / "set")) > set(bytes_of(folder))
    larger = (tmp_path / "set" / "data.csv").read_bytes()
    assert larger.startswith((folder / "data.csv").read_bytes())
    phantom.write_phantom(tmp_path / "set", studies=150, seed=3)
    assert bytes_of(tmp_path / "set") == bytes_of(folder)


def test_a_writing_cut_short_can_be_done_again_and_is_not_readable_until_then(folder, tmp_path):
    def stop(done):
        if done == 5:
            raise KeyboardInterrupt

    out = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        phantom.write_phantom(out, studies=150, seed=3, progress=stop)
    assert not (out / "data.csv").exists()
    seen = []
    phantom.write_phantom(out, studies=150, seed=3, progress=seen.append)
    assert seen == list(range(1, 151))
    assert bytes_of(out) == bytes_of(folder)


def test_the_table_tells_the_truth(folder):
    for index, row in enumerate(rows_of(folder)):
        study = make_study(3, index)
        assert (row["id"], row["patient"], row["sex"]) == (study.id, study.patient, study.sex)
        assert row["text"] == write_report(study)
        assert {label: row[label] == "yes" for label in LABELS} == {label: study.truth[label] for label in LABELS}
        assert row["findings"].split(";") == ([label for label in LABELS if study.truth[label]] or [""])
        assert row["nodule_zone"] == (study.places["nodule"].zone if study.truth["nodule"] else "")
        assert row["effusion_side"] == (study.places["effusion"].side if study.truth["effusion"] else "")
        with Image.open(folder / row["image"]) as film:
            assert film.tobytes() == render(study).tobytes()


def test_everything_says_synthetic(folder):
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text(encoding="utf-8"))
    assert manifest["about"].startswith("SYNTHETIC")
    for row in rows_of(folder):
        assert row["origin"] == "SYNTHETIC"
        assert row["text"].startswith("SYNTHETIC. ")
        with Image.open(folder / row["image"]) as film:
            assert film.text["Description"].startswith("SYNTHETIC")


def test_the_manifest_names_what_the_table_has(folder):
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text(encoding="utf-8"))
    columns = set(rows_of(folder)[0])
    named = {manifest["id"], manifest["group"], manifest["image"]["column"], manifest["splits"]["column"]}
    assert named | set(manifest["text"]["columns"]) | set(manifest["subgroups"]) <= columns
    assert (folder / manifest["rows"]).is_file()
    assert manifest["tasks"] == {
        "findings": {
            "type": "multilabel",
            "column": "findings",
            "separator": ";",
            "values": list(LABELS),
            "empty": "negative",  # a study without a finding is a target like any other, not a missing one
            "label_origin": "synthetic",
        }
    }


def test_a_patient_is_in_one_split_with_one_sex_and_age(tmp_path, monkeypatch):
    monkeypatch.setattr(phantom, "_png", lambda study: b"")  # the table alone is looked at
    phantom.write_phantom(tmp_path / "set", studies=5000, seed=1)
    rows = rows_of(tmp_path / "set")
    patients = Counter(row["patient"] for row in rows)
    assert set(patients.values()) == {1, 2}
    assert 0.08 < sum(count == 2 for count in patients.values()) / len(patients) < 0.12
    assert len({(row["patient"], row["split"], row["sex"], row["age_band"]) for row in rows}) == len(patients)
    shares = Counter(row["split"] for row in rows)
    for split, share in {"train": 0.7, "validation": 0.1, "test": 0.2}.items():
        assert shares[split] / len(rows) == pytest.approx(share, abs=0.025)


@pytest.mark.parametrize("write", [phantom.write_phantom, phantom.write_pairs])
def test_a_folder_of_something_else_is_left_alone(tmp_path, write):
    (tmp_path / "manifest.yaml").write_text("name: mine\n", encoding="utf-8")
    before = bytes_of(tmp_path)
    with pytest.raises(MmfuseError, match="not a phantom") as error:
        write(tmp_path, studies=2, seed=0)
    assert "\n" not in str(error.value)
    with pytest.raises(MmfuseError, match="is a file"):
        write(tmp_path / "manifest.yaml", studies=2, seed=0)
    with pytest.raises(MmfuseError, match="1 or more"):
        write(tmp_path / "new", studies=0, seed=0)
    assert bytes_of(tmp_path) == before


def test_pairs_are_an_image_and_a_report_of_one_name(tmp_path):
    out = phantom.write_pairs(tmp_path / "pairs", 7, 2)
    phantom.write_pairs(out, 4, 2)
    ids = [make_study(2, index).id for index in range(4)]
    assert sorted(bytes_of(out)) == sorted(f"{name}.{kind}" for name in ids for kind in ("png", "txt"))
    for index, name in enumerate(ids):
        study = make_study(2, index)
        assert (out / f"{name}.txt").read_text(encoding="utf-8").strip() == write_report(study)
        with Image.open(out / f"{name}.png") as film:
            assert film.tobytes() == render(study).tobytes()
