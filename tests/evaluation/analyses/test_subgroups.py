"""Scores by subgroup: what is compared, what is left out, what is said."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmfuse.evaluation.analyses import ANALYSES, Scored, choose_analyses, run_analyses
from mmfuse.evaluation.analyses.subgroup_values import MISSING, split_values
from mmfuse.evaluation.evaluate import format_report, score_rows
from mmfuse.evaluation.markdown import plain
from mmfuse.metrics import choose_metrics
from mmfuse.tasks import build_task
from mmfuse.types import MmfuseError


def scored(columns, n=600, gap=0.0, seed=0, kind="multilabel", resamples=100, rare=0):
    """Rows of patients with two each; positives of the first value of the first column score lower by `gap`."""
    draw = np.random.default_rng(seed)
    groups = [f"p{i // 2:04d}" for i in range(n)]
    first = next(iter(columns.values()))
    low = np.array([value == first[0] for value in first])
    if kind == "multilabel":
        target = (draw.random((n, 3)) < 0.4).astype(np.float32)
        target[rare:, 2] = np.where(draw.random(n - rare) < 0.4, 1, 0) if not rare else 0
        said = 2 * target - 1 + draw.normal(size=(n, 3)) - gap * low[:, None] * target
    elif kind == "regression":
        target = draw.normal(size=n).astype(np.float32)
        said = (target + (0.3 + gap * low) * draw.normal(size=n))[:, None]
    else:
        target = draw.integers(0, 3, n)
        said = 2 * np.eye(3)[target] * (1 - gap * low[:, None]) + draw.normal(size=(n, 3))
    task = build_task(kind, [] if kind == "regression" else ["a", "b", "c"])
    rows = {"group": groups, **{f"subgroup.{name}": values for name, values in columns.items()}}
    spec = SimpleNamespace(report_metrics=[], language=None)
    manifest = SimpleNamespace(subgroups=list(columns), source="m.yaml", tasks={"t": spec})
    table = SimpleNamespace(rows=rows, targets={"t": target}, manifest=manifest, splits=["test"] * n)
    pairs = SimpleNamespace(table=table, ids=[f"{i:04d}" for i in range(n)])
    model = SimpleNamespace(heads={"t": SimpleNamespace(task=task)}, captioning=[])
    scores = score_rows(model, pairs, list(range(n)), {"t": said}, resamples=resamples)
    return Scored(model, pairs, list(range(n)), {"t": said}, scores, score_rows, resamples)


def sexes(n=600):
    return ["F" if i // 2 % 2 else "M" for i in range(n)]


def analysis(**options):
    return ANALYSES.get("subgroups")(permutations=99, **options)


def read(found):
    return json.loads(json.dumps(found, allow_nan=False))


def test_a_planted_gap_is_found_told_and_drawn(tmp_path):
    of = scored({"sex": sexes()}, gap=1.0)
    found = read(analysis()(of))
    (gap,) = [gap for gap in found["columns"]["sex"]["gaps"] if gap["family"] == "main"]
    assert (gap["metric"], gap["highest"], gap["lowest"], gap["found"]) == ("auroc_macro", "F", "M", True)
    assert 0 < gap["low"] < gap["value"] < gap["high"]
    assert gap["value"] > gap["chance"]
    lines = analysis().lines(found)
    assert lines[0].startswith("By sex a gap is found: auroc_macro of t is 0.")
    assert "higher in F than in M" in lines[0]
    assert any(line.startswith("- The true positive rate of t, a is ") for line in lines)
    (path,) = analysis().figures(found, tmp_path)
    with Image.open(path) as image:
        assert min(image.size) > 200


def test_the_scores_are_those_of_the_subgroups_rows():
    of = scored({"sex": sexes()}, gap=1.0)
    found = analysis()(of)["columns"]["sex"]
    rows = [i for i, sex in enumerate(sexes()) if sex == "F"]
    told = found["subgroups"]["F"]
    assert (told["rows"], told["groups"]) == (300, 150)
    expected = of.score(rows)["t"]
    assert told["scores"]["t"]["metrics"]["f1_macro"] == expected["metrics"]["f1_macro"]
    target, said = of.target("t")[rows], of.said["t"][rows]
    assert told["scores"]["t"]["labels"]["a"]["positives"] == (target[:, 0] == 1).sum()
    tpr, fpr = (np.mean(said[target[:, 0] == value, 0] >= 0) for value in (1, 0))
    assert told["scores"]["t"]["labels"]["a"]["tpr"]["value"] == pytest.approx(tpr)
    assert told["scores"]["t"]["labels"]["a"]["fpr"]["value"] == pytest.approx(fpr)
    value = found["compared"]["t"]["auroc_macro"]["subgroups"]["F"]["value"]
    assert value == pytest.approx(expected["metrics"]["auroc_macro"]["value"])


def test_without_a_gap_nothing_is_found():
    ages = [str(i // 2 % 8) for i in range(600)]
    found = [read(analysis()(scored({"age": ages}, seed=seed, resamples=99))) for seed in range(5)]
    gaps = [gap for of in found for gap in of["columns"]["age"]["gaps"]]
    assert sum(gap["found"] for gap in gaps) <= 1
    assert max(gap["value"] for gap in gaps) > 0.1
    assert (
        analysis().lines(found[0])[0].startswith("No gap between subgroups is found beyond chance; the surest, by age")
    )


def test_small_subgroups_and_missing_values_are_named():
    sites = ["x" if i < 10 else "" if i < 100 else "y" if i < 300 else "z" for i in range(600)]
    found = read(analysis()(scored({"site": sites})))
    of = found["columns"]["site"]
    assert list(of["subgroups"]) == ["y", "z", MISSING]
    assert of["small"] == {"x": 10}
    assert all("x" not in gap["compared"] for gap in of["gaps"])
    assert "- Fewer than 20 rows, so not compared: x (10)." in analysis().lines(found)


def test_the_mean_is_over_labels_that_all_compared_subgroups_have():
    sites = ["y" if i < 300 else "z" for i in range(600)]
    found = read(analysis()(scored({"site": sites}, rare=250)))  # label c is in no row of z
    said = found["columns"]["site"]["compared"]["t"]["auroc_macro"]
    assert said["labels"] == ["a", "b"]
    assert list(said["subgroups"]) == ["y", "z"]
    lines = analysis().lines(found)
    assert "- auroc_macro of t is over a, b: every subgroup compared has them." in lines
    rates = {(gap["metric"], gap["label"]) for gap in found["columns"]["site"]["gaps"]}
    assert ("fpr", "c") in rates
    assert ("tpr", "c") not in rates


def test_classes_are_compared_in_accuracy_too():
    found = read(analysis()(scored({"sex": sexes()}, gap=0.8, kind="classification")))
    main = {gap["metric"]: gap["found"] for gap in found["columns"]["sex"]["gaps"] if gap["family"] == "main"}
    assert main == {"auroc_macro": True, "accuracy": True}


def test_rates_are_of_what_is_said_at_an_operating_point():
    of = scored({"sex": sexes()}, kind="classification")
    kind = of.kind("t")
    kind.labels, said = ["a", "b"], {"t": of.said["t"][:, :2].copy()}
    of.table.targets["t"] = of.table.targets["t"] % 2
    of = replace(of, said=said, scores={"t": {}})
    usual = read(analysis()(of))["columns"]["sex"]["subgroups"]["M"]["scores"]["t"]["labels"]["b"]["tpr"]["value"]
    kind.cut = (1, 0.0)
    (rate,) = {
        group["scores"]["t"]["labels"]["b"]["tpr"]["value"]
        for group in read(analysis()(of))["columns"]["sex"]["subgroups"].values()
    }
    assert usual < rate == 1.0


def test_subgroups_are_scored_by_what_was_chosen_too():
    of = scored({"sex": sexes()}, kind="multilabel")
    chosen = {"t": choose_metrics(["mcc", "npv"], "multilabel", "metrics")}
    of = replace(of, score_rows=partial(score_rows, chosen=chosen))
    for sex, found in read(analysis()(of))["columns"]["sex"]["subgroups"].items():
        rows = [i for i, value in enumerate(sexes()) if value == sex]
        assert found["scores"]["t"]["metrics"]["mcc"]["value"] == of.score(rows)["t"]["metrics"]["mcc"]["value"]


def test_a_task_without_labels_is_compared_in_its_own_metric():
    of = scored({"sex": sexes(300)}, n=300, gap=1.5, kind="regression", resamples=60)
    found = read(analysis()(of))
    (gap,) = found["columns"]["sex"]["gaps"]
    assert (gap["metric"], gap["found"]) == (of.kind("t").monitor, True)
    male = found["columns"]["sex"]["compared"]["t"][gap["metric"]]["subgroups"]["M"]
    rows = [i for i, sex in enumerate(sexes(300)) if sex == "M"]
    assert male["value"] == pytest.approx(of.score(rows)["t"]["metrics"][gap["metric"]]["value"])
    assert male["low"] < male["value"] < male["high"]
    assert "labels" not in found["columns"]["sex"]["subgroups"]["M"]["scores"]["t"]
    assert analysis().lines(found)[0].startswith("By sex a gap is found: ")


def test_columns_are_corrected_for_each_other():
    others = {
        f"c{k}": [str(int(x)) for x in np.repeat(np.random.default_rng(k).integers(0, 2, 300), 2)] for k in range(4)
    }
    of = scored({"sex": sexes(), **others}, gap=1.0)
    found = read(analysis()(of))["columns"]
    main = {name: next(g for g in c["gaps"] if g["family"] == "main") for name, c in found.items()}
    assert main["sex"]["p_corrected"] == pytest.approx(5 * main["sex"]["p_family"])
    assert main["sex"]["found"]
    least = sorted((gap["p_family"], name) for name, gap in main.items())
    corrected = [main[name]["p_corrected"] for _, name in least]
    assert corrected == sorted(corrected)
    (only,) = read(analysis(columns=["c1"])(of))["columns"]
    assert only == "c1"


def test_rows_of_a_patient_may_differ():
    sides = ["L" if i % 2 else "R" for i in range(600)]
    found = read(analysis()(scored({"side": sides}, gap=1.0)))
    assert found["columns"]["side"]["varying_groups"] == 300
    assert "- The rows of 300 groups differ in side." in analysis().lines(found)


def test_names_are_escaped_in_the_report():
    evil = "a|b<i>\x1b[2J"
    of = scored({"sex": [evil if sex == "F" else "M" for sex in sexes()]})
    report = {"split": "test", "missing": {}, "tasks": {"t": of.scores["t"]}}
    run_analyses({"subgroups": analysis()}, of, report)
    assert "\x1b" not in format_report(report)
    card = format_report(report, plain)
    assert "a\\|b&lt;i" in card
    assert "<i>" not in card


def test_without_columns_nothing_is_asked():
    of = scored({"sex": sexes()})
    of.table.manifest.subgroups = []
    report = {"tasks": of.scores}
    run_analyses({"subgroups": analysis()}, of, report)
    assert list(report) == ["tasks"]


def test_a_column_of_many_values_is_told_and_not_compared():
    wards = [f"ward {i // 2 % 14}" for i in range(600)]
    of = analysis(min_rows=2)(scored({"ward": wards, "id": [str(i) + "x" for i in range(600)]}, resamples=20))
    found = read(of)["columns"]
    assert len(found["ward"]["subgroups"]) == 14
    assert found["id"]["more_small"] == 550
    many = [f"{i // 2 % 50}x" for i in range(600)]
    found = read(analysis(min_rows=2)(scored({"many": many})))
    assert found["columns"]["many"]["skipped"].startswith("50 values have 2 rows or more, and at most 40 are compared")
    assert analysis().lines(found)[0].startswith("No gap between subgroups can be looked for by many")


def test_numbers_are_cut_at_quartiles_and_few_ones_are_values():
    many = split_values([str(i) for i in range(1, 101)] + [""])
    assert many.names == ["below 25.75", "25.75 to below 50.5", "50.5 to below 75.25", "75.25 and more", MISSING]
    assert np.bincount(many.of_row).tolist() == [25, 25, 25, 25, 1]
    assert many.binned
    few = split_values(["10", "9", "", "10", "2"])
    assert (few.names, few.binned) == (["2", "9", "10", MISSING], False)
    assert split_values(["10", "x"]).names == ["10", "x"]
    half = split_values(["0"] * 80 + [str(i) for i in range(20)])  # three cuts at the same number
    assert set(half.of_row.tolist()) == set(range(len(half.names)))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["subgrups"], "analyses: unknown analysis 'subgrups'; .*did you mean 'subgroups'"),
        ([{"name": "subgroups", "min_row": 3}], "did you mean 'min_rows'"),
        ([{"name": "subgroups", "min_rows": 0}], "subgroups.min_rows: 0: a whole number of at least 2"),
        ([{"name": "subgroups", "columns": "sex"}], "subgroups.columns: 'sex': a list of columns"),
        (["subgroups", "subgroups"], "analyses: 'subgroups' is named twice"),
        ([3], "analyses: 3: the name of a analysis|analyses: 3: the name of an? analysis"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked, said):
    with pytest.raises(MmfuseError, match=said):
        choose_analyses(asked, "analyses")


def test_a_column_that_the_manifest_does_not_name_is_refused():
    with pytest.raises(MmfuseError, match=r"m.yaml: subgroups: 'sx' is none of the manifest's; .*did you mean 'sex'"):
        analysis(columns=["sx"]).check(scored({"sex": sexes()}).table)


def test_those_that_ask_by_themselves():
    assert list(choose_analyses(None)) == ["caption_baselines", "subgroups"]
    assert choose_analyses([]) == {}
