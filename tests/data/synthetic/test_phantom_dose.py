"""The answers that the phantom with a number claims to know, measured."""

import csv
import re

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from mmfuse.cli import app
from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.data.synthetic.phantom_dose import DOSES, bayes_r2, bayes_rmse, treat, write_doses, write_note
from mmfuse.data.synthetic.phantom_film import render
from mmfuse.data.synthetic.phantom_study import make_study
from mmfuse.types import MmfuseError

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def treated():
    return [treat(make_study(7, index)) for index in range(20_000)]


def r2(target, predicted):
    return 1 - ((target - predicted) ** 2).mean() / target.var()


def test_the_best_scores_are_the_ones_that_are_told(treated):
    level = np.array([study.level for study in treated])
    expected = {name: np.array([study.expected[name] for study in treated]) for name in ("text", "image", "both")}
    for name, said in expected.items():
        assert r2(level, said) == pytest.approx(bayes_r2()[name], abs=0.02)
        assert np.sqrt(((level - said) ** 2).mean()) == pytest.approx(bayes_rmse()[name], rel=0.02)
    additive = expected["text"] + expected["image"] - 100
    assert r2(level, additive) == pytest.approx(bayes_r2()["additive"], abs=0.02)
    assert (bayes_r2()["both"], bayes_r2()["text"] <= 0.55, bayes_r2()["image"] <= 0.55) == (0.9, True, True)


def test_no_other_function_of_one_modality_does_better(treated):
    """The best any function can do is the mean within narrow bins of what is seen."""
    level = np.array([study.level for study in treated])
    for seen, best in (([s.dose for s in treated], "text"), ([round(s.size, 1) for s in treated], "image")):
        _, of = np.unique(seen, return_inverse=True)
        means = np.bincount(of, weights=level) / np.bincount(of)
        assert r2(level, means[of]) == pytest.approx(bayes_r2()[best], abs=0.02)
    assert set(DOSES) == {s.dose for s in treated}


def test_the_film_shows_the_size_and_the_note_says_the_dose():
    area, size = [], []
    for index in range(60):
        study = make_study(7, index)
        found = treat(study)
        film, without = (np.asarray(render(study, mass), float) / 255 for mass in (found.size, 0.01))
        area.append(((film - without).clip(0) > 0.12).sum())
        size.append(found.size)
        assert re.findall(r"\d+", write_note(study, found.dose)) == [str(found.dose)]
    assert np.corrcoef(np.sqrt(area), size)[0, 1] > 0.98


def test_the_files_say_what_is_known(tmp_path):
    manifest = write_doses(tmp_path / "set", studies=30, seed=3)
    described = yaml.safe_load(manifest.read_text())
    assert described["tasks"]["level"]["type"] == "regression"
    assert "RMSE 4.743 mg/L" in described["about"]
    with (tmp_path / "set" / "data.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    found = [treat(make_study(3, index)) for index in range(30)]
    assert [float(row["level"]) for row in rows] == pytest.approx([study.level for study in found], abs=1e-3)
    assert [float(row["expected"]) for row in rows] == pytest.approx([s.expected["both"] for s in found], abs=1e-3)
    assert len(list((tmp_path / "set" / "images").iterdir())) == 30
    write_phantom(tmp_path / "set", studies=2)  # either replaces the other
    assert len(list((tmp_path / "set" / "images").iterdir())) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(MmfuseError, match="not empty and not a phantom"):
        write_doses(tmp_path / "mine", studies=2)


def test_the_command_writes_it_and_refuses_two_sets_at_once(tmp_path):
    done = CliRunner().invoke(app, ["data", "phantom", str(tmp_path / "set"), "--dose", "--studies", "2"])
    assert done.exit_code == 0
    assert "phantom_dose" in (tmp_path / "set" / "manifest.yaml").read_text()
    both = CliRunner().invoke(app, ["data", "phantom", str(tmp_path / "two"), "--dose", "--pairs"])
    assert "--dose and --pairs: give one of them" in str(both.exception) + both.output
