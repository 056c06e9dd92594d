"""Captions in a manifest: lists of references, and no way for the answer to be read."""

import json
import re

import pytest
import yaml

from mmfuse.data.audit import audit
from mmfuse.data.load import load_table
from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.data.synthetic.phantom_findings import (
    ANSWERS,
    FINDINGS,
    answer,
    ask,
    read_findings,
    slot_accuracy,
    slot_ceiling,
    true_findings,
    write_findings,
    write_history,
    write_language,
)
from mmfuse.data.synthetic.phantom_study import make_study
from mmfuse.data.tables.leaks import find_copies
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError


@pytest.fixture
def table(tmp_path):
    """Rows and a captioning task's keys to a table."""

    def make(rows, task=None, **manifest):
        rows = [{"id": f"r{i}", "note": f"note {i}", "film": f"{i}.png", **row} for i, row in enumerate(rows)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        values = {
            "name": "set",
            "rows": "rows.jsonl",
            "id": "id",
            "text": {"columns": ["note"]},
            "image": {"column": "film"},
            "tasks": {"caption": {"type": "captioning", "column": "caption", **(task or {})}},
            "splits": {"ratios": {"train": 1.0}},
        }
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(values | manifest), encoding="utf-8")
        return load_table(load_manifest(tmp_path / "m.yaml"))

    return make


def references(table):
    return [list(found) for found in table.targets["caption"]]


class TestReferences:
    def test_a_list(self, table):
        found = table([{"caption": ["A dog .", "A  dog\nruns."]}, {"caption": []}, {"caption": None}])
        assert references(found) == [["A dog .", "A dog runs."], [], []]
        assert found.labels == {"caption": []}

    def test_a_text_and_what_means_none(self, table):
        found = table([{"caption": "[sic] a dog"}, {"caption": "n/a"}, {"caption": "  "}], {"missing": ["n/a"]})
        assert references(found) == [["[sic] a dog"], [], []]

    def test_a_separator(self, table):
        assert references(table([{"caption": "a dog|two dogs|a dog"}], {"separator": "|"})) == [["a dog", "two dogs"]]

    def test_a_column_each(self, table):
        task = {"column": None, "columns": ["one", "two"]}
        rows = [{"one": "a dog", "two": ""}, {"one": "a", "two": "b"}]
        assert references(table(rows, task)) == [["a dog"], ["a", "b"]]

    def test_none_at_all_is_refused(self, table):
        with pytest.raises(MmfuseError, match=r"tasks\.caption: no row has a caption"):
            table([{"caption": ""}])

    def test_a_list_of_something_else_is_refused(self, table):
        with pytest.raises(MmfuseError, match="row 2: a list of captions"):
            table([{"caption": ["a"]}, {"caption": [1]}])


class TestLeaks:
    def test_the_target_cannot_be_the_text(self, table):
        with pytest.raises(MmfuseError, match="'caption' is the target and a text column too"):
            table([{"caption": "a dog"}], text={"columns": ["note", "caption"]})

    def test_one_section_is_the_text_and_another_the_target(self, table):
        rows = [
            {"caption": "INDICATION: Cough.\n\nFINDINGS: The heart is\n normal. IMPRESSION: Well."},
            {"caption": "Indication: n/a\nFINDINGS AND IMPRESSION: clear"},
            {"caption": "All is well."},
        ]
        found = table(
            rows, {"section": "findings"}, text={"columns": ["caption"], "section": "indication", "missing": ["n/a"]}
        )
        assert found.rows["text"][:] == ["Cough.", None, None]
        assert references(found) == [["The heart is normal."], ["clear"], []]

    def test_a_copy_in_the_text_stops(self, table):
        rows = [
            {"caption": "The heart is enlarged.", "note": "Seen: the HEART is\nenlarged, says the clerk"},
            {"caption": "The heart is small.", "note": "cough"},
        ]
        with pytest.raises(MmfuseError, match=r"input text of 1 row\(s\), such as 'r0', contains the caption"):
            table(rows)
        found = table(rows, {"allow_copies": True})
        assert find_copies(found) == {"caption": [0]}
        told = [(f.severity, f.rows) for f in audit(found).findings if f.check == "captions.in_the_input"]
        assert told == [("warning", (("r0",),))]

    def test_short_answers_and_other_words_are_no_copies(self, table):
        rows = [
            {"caption": "yes", "note": "yes or no?"},
            {"caption": "the heart is large today", "note": "the heart is larger today"},
        ]
        assert find_copies(table(rows)) == {}

    def test_captions_of_one_image_are_in_one_split(self, table):
        rows = [{"caption": f"a dog {i}", "film": "same.png", "split": "train" if i else "test"} for i in range(2)]
        with pytest.raises(MmfuseError, match=r"image same\.png is captioned in two splits.*give `group`"):
            table(rows, splits={"column": "split"})
        grouped = table(rows, group="film", splits={"ratios": {"train": 0.5, "test": 0.5}})
        assert len(set(grouped.splits)) == 1

    def test_label_tasks_may_share_an_image(self, table):
        rows = [{"x": "ab"[i % 2], "film": "same.png", "split": ("train", "test")[i // 2]} for i in range(4)]
        found = table(rows, {"type": "classification", "column": "x"}, splits={"column": "split"})
        assert found.splits == ["train", "train", "test", "test"]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"values": ["a"]}, "values and min_count are not for captioning"),
        (
            {"type": "classification", "report_metrics": ["chest_rules"]},
            "report_metrics and allow_copies are for captioning",
        ),
    ],
)
def test_a_manifest_that_makes_no_sense(table, task, words):
    with pytest.raises(MmfuseError, match=words):
        table([{"caption": "a dog"}], task)


def test_captions_have_no_labels_to_stratify_by(table):
    with pytest.raises(MmfuseError, match=r"splits\.stratify: 'caption' is captioning"):
        table([{"caption": "a dog"}], splits={"ratios": {"train": 1.0}, "stratify": "caption"})


def test_exact_shares(table):
    rows = [{"caption": f"dog {i}"} for i in range(50)]
    found = table(rows, splits={"ratios": {"train": 0.8, "validation": 0.1, "test": 0.1}, "exact": True})
    assert [found.splits.count(name) for name in ("train", "validation", "test")] == [40, 5, 5]


STUDIES = [make_study(0, i) for i in range(300)]


class TestPhantomFindings:
    def test_what_is_written_is_read_back(self):
        for study in STUDIES:
            assert read_findings(write_findings(study)) == true_findings(study)

    def test_the_history_tells_the_prior_exam_and_nothing_of_the_film(self):
        for study in STUDIES:
            history = write_history(study)
            assert bool(re.search("nodule", history, re.IGNORECASE)) == study.told["prior_nodule"]
            assert not re.search("opacity|effusion|pneumothorax|heart|right|left", history, re.IGNORECASE)

    def test_slots_count_side_and_zone(self):
        study = next(s for s in STUDIES if s.truth["opacity"] and s.places["opacity"] == ("left", "upper"))
        rest = write_findings(study).split(".", 1)[1]
        scores = [slot_accuracy([said + rest], [study])["opacity"] for said in (
            "left upper zone opacity.", "Right upper zone opacity.", "Left lower zone opacity.", "No opacity.", ""
        )]  # fmt: skip
        assert scores == [1.0, 0.0, 0.0, 0.0, 0.0]

    def test_what_contradicts_itself_is_not_said(self):
        assert "opacity" not in read_findings("No opacity. Left upper zone opacity.")

    def test_writing_what_is_shown_reaches_the_ceiling(self):
        from dataclasses import replace

        many = [make_study(1, i) for i in range(6000)]
        shown = [write_findings(replace(s, truth={**s.truth, **s.shown})) for s in many]
        scores, ceiling = slot_accuracy(shown, many), slot_ceiling()
        for name in (*FINDINGS, "all"):
            assert scores[name] == pytest.approx(ceiling[name], abs=0.015)

    def test_answers(self):
        seen = set()
        for study in STUDIES:
            for question, said in ask(study, 6):
                assert said in ANSWERS
                assert said == answer(study, question)
                seen.add(said)
            new = answer(study, "Is the nodule new?") == "yes"
            assert new == (study.shown["nodule"] and not study.told["prior_nodule"])
        assert seen == set(ANSWERS)

    def test_files(self, tmp_path):
        write_phantom(tmp_path / "phantom", 30, seed=3)
        captions, questions = write_language(tmp_path / "phantom", 3)
        found, asked = load_table(load_manifest(captions)), load_table(load_manifest(questions))
        assert [r[0] for r in found.targets["report"]] == [write_findings(make_study(3, i)) for i in range(30)]
        assert len(asked) == 60
        assert [asked.labels["answer"][i] for i in asked.targets["answer"]] == [
            r[0] for r in asked.targets["written_answer"]
        ]
