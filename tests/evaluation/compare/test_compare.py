"""Two models on the same rows: metrics, flips, subgroups, files of predictions, gates."""

import csv
import json
import math
import re
import shutil
import sys

import numpy as np
import pytest
from typed_results import assert_described, assert_typed

import mmfuse as library
from mmfuse.evaluation import evaluate
from mmfuse.evaluation.compare.lines import format_comparison
from mmfuse.metrics import compared
from mmfuse.metrics.requirements import requirement_lines
from mmfuse.types import MmfuseError

DIGITS = 5e-3
"""Files keep six digits of probabilities, so that rows may tie that did not."""


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def found(pair, tmp_path_factory):
    out = tmp_path_factory.mktemp("found")
    options = {"metrics": ["recall_macro"], "margin": 0.05, "num_workers": 0}
    return library.compare(pair.a, pair.b, pair.manifest, out=out, **options), out


def test_the_result_is_what_its_type_says(found):
    report, out = found
    assert_typed(report, compared.Comparison)
    assert json.loads((out / "comparison.json").read_text()) == report
    for hint in vars(compared).values():
        if isinstance(hint, type) and hint.__module__ == compared.__name__:
            assert_described(hint)


def test_each_metric_is_that_of_evaluate(found, pair):
    report, _ = found
    for side, model in (("a", pair.a), ("b", pair.b)):
        scores = evaluate(model, pair.manifest, resamples=0, analyses=[], metrics=["recall_macro"], num_workers=0)
        for task, of in report["tasks"].items():
            assert of["n"] == scores["tasks"][task]["n"]
            for name, one in of["metrics"].items():
                assert one[side] == pytest.approx(scores["tasks"][task]["metrics"][name]["value"], abs=1e-9), name
    assert {"recall_macro", "auroc_macro"} <= report["tasks"]["findings"]["metrics"].keys()
    assert report["tasks"]["age"]["metrics"].keys() == {"r2", "rmse", "mae", "spearman"}


def test_flips_are_those_of_the_predictions_row_by_row(found, pair):
    report, out = found
    expected = {"findings": {}, "sex": {}}
    for one, other in zip(read(pair.of_a), read(pair.of_b), strict=True):
        a, b = one["tasks"]["sex"], other["tasks"]["sex"]
        if a["target"] is not None and a["label"] != b["label"]:
            way = "right -> wrong" if a["label"] == a["target"] else "wrong -> right"
            expected["sex"][one["id"], None] = way, a["label"], b["label"]
        a, b = one["tasks"]["findings"], other["tasks"]["findings"]
        for label in a["probabilities"]:
            said, now, true = (label in named for named in (a["labels"], b["labels"], a["target"]["labels"]))
            if said != now:
                expected["findings"][one["id"], label] = (
                    "right -> wrong" if said == true else "wrong -> right",
                    said,
                    now,
                )
    lines = read(out / "flips.jsonl")
    for task, flips in expected.items():
        own = {
            (line["id"], line.get("label")): (line["flip"], line["a"]["said"], line["b"]["said"])
            for line in lines
            if line["task"] == task
        }
        assert own == flips
        counts = report["tasks"][task]["flips"]
        for name, way in (("right_to_wrong", "right -> wrong"), ("wrong_to_right", "wrong -> right")):
            assert counts[name] == sum(flip[0] == way for flip in flips.values()) > 0
    assert sum(len(flips) for flips in expected.values()) == len(lines)
    by_label = report["tasks"]["findings"]["label_flips"]
    assert (
        sum(one["wrong_to_right"] for one in by_label.values())
        == report["tasks"]["findings"]["flips"]["wrong_to_right"]
    )
    assert "flips" not in report["tasks"]["age"]


def test_subgroups_divide_rows_and_flips(found, pair):
    report, _ = found
    band = {
        row["id"]: row["age_band"]
        for row in csv.DictReader((pair.manifest.parent / "data.csv").read_text().splitlines())
    }
    for task, of in report["tasks"].items():
        subgroups = of["subgroups"]["age_band"]["subgroups"]
        assert set(subgroups) == set(band.values())
        assert sum(one["n"] for one in subgroups.values()) == of["n"]
        if "flips" in of:
            for name, number in of["flips"].items():
                assert sum(one["flips"][name] for one in subgroups.values()) == number, (task, name)


def test_files_of_predictions_say_the_same_as_the_models(found, pair, tmp_path):
    report, out = found
    files = library.compare(pair.of_a, pair.of_b, out=tmp_path)
    assert files["split"] is None
    for task, of in report["tasks"].items():
        assert files["tasks"][task]["n"] == of["n"]
        assert files["tasks"][task].get("flips") == of.get("flips")
        for name, one in files["tasks"][task]["metrics"].items():
            for key in ("value", "low", "high", "p"):
                assert one["difference"][key] == pytest.approx(of["metrics"][name]["difference"][key], abs=DIGITS), name
    assert read(tmp_path / "flips.jsonl") == read(out / "flips.jsonl")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_of_predictions_are_joined_to_the_manifest(found, pair, tmp_path, suffix):
    from mmfuse.model import FusionModel
    from mmfuse.predict.files import write_rows
    from mmfuse.predict.predictor import Predictor

    report, _ = found
    paths = []
    for model, said in ((pair.a, pair.of_a), (pair.b, pair.of_b)):
        rows = [{**row, "present": [], "notices": []} for row in read(said)]
        path = tmp_path / f"{model.name}{suffix}"
        with path.open("wb") as handle:
            lines = (json.dumps(row).encode() for row in rows[::-1])
            write_rows(handle, lines, suffix, Predictor(FusionModel.from_pretrained(model)))
        paths.append(path)
    tables = library.compare(paths[0], paths[1], pair.manifest)
    assert tables["rows"] == {"both": 60, "only_a": 0, "only_b": 0, "unanswered": 0}
    for task, of in report["tasks"].items():
        assert tables["tasks"][task].get("flips") == of.get("flips")
        assert tables["tasks"][task]["subgroups"].keys() == {"age_band"}
        for name, one in tables["tasks"][task]["metrics"].items():
            assert one["difference"]["low"] == pytest.approx(of["metrics"][name]["difference"]["low"], abs=DIGITS)


def test_rows_of_one_side_alone_are_told_and_left_out(pair, tmp_path):
    rows = read(pair.of_a)
    a, b = write(tmp_path / "a.jsonl", rows[:40]), write(tmp_path / "b.jsonl", [{**r} for r in read(pair.of_b)[10:]])
    found = library.compare(a, b)
    assert found["rows"] == {"both": 30, "only_a": 10, "only_b": 20, "unanswered": 0}
    assert "Left out: 10 of a alone, 20 of b alone." in format_comparison(found)
    found = library.compare(a, pair.b, pair.manifest, num_workers=0)
    assert found["rows"] == {"both": 40, "only_a": 0, "only_b": 0, "unanswered": 20}
    assert "20 of split test that not both answer" in format_comparison(found)
    elsewhere = write(tmp_path / "c.jsonl", [{**row, "id": f"x{row['id']}"} for row in rows])
    with pytest.raises(MmfuseError, match="have no row in common"):
        library.compare(a, elsewhere)


def test_a_model_and_itself_are_the_same(pair):
    found = library.compare(pair.of_a, pair.of_a)
    for of in found["tasks"].values():
        assert of["identical"]
        assert {one["difference"]["value"] for one in of["metrics"].values()} == {0.0}
        assert {one["better"] for one in of["metrics"].values()} == {None}
    assert found["tasks"]["sex"]["metrics"]["accuracy"]["difference"]["low"] < 0
    assert found["tasks"]["sex"]["flips"]["right_to_wrong"] == 0
    assert "a and b give the same answer to each of the" in format_comparison(found)


def test_non_inferiority_is_of_the_worse_side_of_each_metric(pair):
    wide = library.compare(pair.of_a, pair.of_b, margin=10.0)["tasks"]
    narrow = library.compare(pair.of_a, pair.of_b, margin=1e-9)["tasks"]
    assert all(one["non_inferior"] for of in wide.values() for one in of["metrics"].values())
    for of in narrow.values():
        for name, one in of["metrics"].items():
            lower = name in ("ece", "brier", "nll", "rmse", "mae")
            end = -one["difference"]["high"] if lower else one["difference"]["low"]
            assert one["non_inferior"] == (end > -1e-9), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["tasks"].update(sex={**row["tasks"]["sex"], "target": "F"}), "target of sex of row"),
        (lambda row: row.update(group="another"), "group of row"),
        (lambda row: row["tasks"]["sex"].pop("target"), "lacks 'target'|have no targets"),
        (lambda row: row.update(tasks={"other": row["tasks"]["sex"]}), "share no task: findings, sex, age; other"),
        (lambda row: row["tasks"]["sex"].update(probabilities={"F": 0.5, "X": 0.5}), "of the labels F, X; F, M are"),
        (lambda row: row["tasks"]["sex"].update(label="X"), "'X' is none of the classes; legal: F, M"),
        (lambda row: row["tasks"]["sex"].pop("label"), "b.jsonl: predictions of sex: a row lacks 'label'"),
        (lambda row: row["tasks"]["sex"].pop("probabilities"), "sex: a row lacks 'probabilities'"),
        (lambda row: row["tasks"]["sex"]["probabilities"].update(F=1.7), "sex: 1.7 is no probability"),
        (lambda row: row["tasks"]["sex"]["probabilities"].update(F=math.nan), "sex: nan is no probability"),
        (lambda row: row["tasks"]["sex"]["probabilities"].update(F="high"), "sex: could not convert string to float"),
        (lambda row: row["tasks"]["sex"].update(probabilities=None), "predictions of sex: "),
        (lambda row: row["tasks"]["findings"].update(labels=None), "predictions of findings: "),
        (lambda row: row["tasks"]["age"].update(value=math.inf), "predictions of age: inf is not a finite number"),
        (lambda row: row.update(tasks=[1]), "tasks of row .* are no mappings"),
    ],
)
def test_files_that_are_not_of_the_same_rows_are_refused(pair, tmp_path, change, message):
    rows = read(pair.of_b)
    for row in rows:
        change(row)
    with pytest.raises(MmfuseError, match=message):
        library.compare(pair.of_a, write(tmp_path / "b.jsonl", rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "there is no prediction in it"),
        (lambda text: text.replace(",", "\t"), "a row has no id, but 'id.tsex.label"),
        (lambda text: text[: len(text) // 2].rpartition(",")[0], "damaged: a row has more or fewer cells"),
        (lambda text: text.replace("id,", "\ufeffid,", 1), None),  # as Excel saves UTF-8
    ],
)
def test_a_table_that_is_none_is_refused(pair, tmp_path, change, message):
    lines = ["id,sex.label,sex.p.F,sex.p.M"]
    for row in read(pair.of_a):
        said = row["tasks"]["sex"]
        lines.append(",".join(map(str, [row["id"], said["label"], *said["probabilities"].values()])))
    table = tmp_path / "a.csv"
    table.write_text(change("\n".join(lines)), encoding="utf-8")
    if message is None:
        assert library.compare(table, pair.of_b, pair.manifest)["rows"]["both"] == 60
        return
    with pytest.raises(MmfuseError, match=message):
        library.compare(table, pair.of_b, pair.manifest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("manifest", "b", "manifest"), "manifest.yaml: a model folder, or predictions .* is expected"),
        (("a", "b"), "name their manifest after the two models"),
        (("a", "of_b"), "name their manifest after the two models"),
        (
            ("a", "b", "manifest", "--require", "sex/acuracy >= 0"),
            r"no metric 'acuracy'; legal: .*did you mean 'accuracy'",
        ),
        (("a", "b", "manifest", "--require", "six/accuracy >= 0"), r"no task 'six'; .*did you mean 'sex'"),
        (("a", "b", "manifest", "--metrics", "mccc"), "metrics: mccc is for no task that both have"),
        (("a", "b", "manifest", "--margin", "-1"), "margin: -1.0: a number above 0 is expected"),
    ],
)
def test_what_cannot_be_compared_is_one_line_before_anything_is_run(
    pair, mmfuse, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmfuse.evaluation.compare.pairing.read_and_run", None)
    code, _, said = mmfuse("compare", *(getattr(pair, word, word) for word in arguments))
    assert code == 2
    (line,) = said.strip().splitlines()
    assert re.search(message, line)
    assert not (tmp_path / "comparison").exists()


def test_the_gate_of_a_comparison_ends_with_0_or_5(pair, mmfuse, tmp_path):
    files = (pair.of_a, pair.of_b, "--out", tmp_path / "out")
    code, said, _ = mmfuse("compare", *files, "--require", "sex/accuracy >= -0.99", "--require", "age/rmse <= 99")
    assert code == 0
    assert "passed: sex/accuracy >= -0.99: " in said
    code, said, _ = mmfuse("compare", *files, "--require", "sex/accuracy >= -0.99", "--require", "age/rmse <= -99")
    assert code == 5
    assert "failed: age/rmse <= -99: " in said
    told = json.loads((tmp_path / "out" / "comparison.json").read_text())["requirements"]
    assert [one["passed"] for one in told] == [True, False]


def test_the_gate_of_an_evaluation_ends_with_0_or_5(pair, mmfuse, tmp_path, monkeypatch):
    run = ("evaluate", pair.a, pair.manifest, "--out", tmp_path / "out", "--analyses", "")
    met = ("--require", "sex/accuracy >= 0.01", "--require", "findings/recall_macro >= 0.001")
    code, said, _ = mmfuse(*run, *met)
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert code == 0, said
    assert report["tasks"]["findings"]["metrics"]["recall_macro"]["low"] >= 0.001  # required, and so computed
    lines = requirement_lines(report["requirements"])
    assert len(lines) == 2
    assert all(line in said for line in lines)
    value = report["tasks"]["sex"]["metrics"]["accuracy"]["value"]
    code, said, _ = mmfuse(*run, *met, "--require", f"sex/accuracy >= {value}")  # reached by the value alone
    assert code == 5
    assert f"failed: sex/accuracy >= {value}: " in said
    monkeypatch.setattr(sys.modules["mmfuse.evaluation.evaluate"], "read_and_run", None)
    code, _, said = mmfuse(*run, "--require", "sex/mccc >= 0.8")
    assert code == 2
    assert "sex has no metric 'mccc'" in said
    assert "did you mean 'mcc'" in said


def test_captions_are_compared_from_files(tmp_path):
    rng, words = np.random.default_rng(0), ["a", "red", "circle", "above", "the", "blue", "square"]
    right = [[" ".join(rng.choice(words, 6))] for _ in range(30)]

    def said(how_many):
        return [
            {
                "id": str(i),
                "group": f"g{i // 2}",
                "tasks": {"report": {"target": target, **caption(target[0], i < how_many)}},
            }
            for i, target in enumerate(right)
        ]

    def caption(target, whole):
        return {"caption": target if whole else " ".join(target.split()[:4]), "score": -1.0, "tokens": []}

    a, b = write(tmp_path / "a.jsonl", said(5)), write(tmp_path / "b.jsonl", said(25))
    of = library.compare(a, b)["tasks"]["report"]
    assert (of["n"], of["groups"]) == (30, 15)
    assert of["metrics"]["rouge_l"]["better"] == of["metrics"]["bleu2"]["better"] == "b"
    assert of["metrics"]["rouge_l"]["difference"]["low"] > 0
    assert "flips" not in of
    assert library.compare(a, shutil.copy(a, tmp_path / "c.jsonl"))["tasks"]["report"]["identical"]
