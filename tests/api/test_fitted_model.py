"""`mmfuse.Model`: tables in which nothing is lost, and vectors that the heads see."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mmfuse
from mmfuse.model import FusionModel


def test_a_frame_is_predicted_in_its_order_with_its_index_and_as_the_command_line_does(model, frame, tmp_path, mmfuse):
    shuffled = frame.sample(frac=1, random_state=0)
    found = model.predict(shuffled)
    assert list(found.index) == list(shuffled.index)
    assert list(found["id"]) == list(shuffled["id"])
    assert found["error"].isna().all()
    shuffled.to_csv(tmp_path / "rows.csv", index=False)
    code, _, said = mmfuse("predict", model.folder, tmp_path / "rows.csv", "--out", tmp_path / "out.parquet")
    assert code == 0, said
    told = pd.read_parquet(tmp_path / "out.parquet").set_index("id").loc[found["id"]].reset_index()
    pd.testing.assert_frame_equal(found[told.columns].reset_index(drop=True), told, check_dtype=False, check_exact=True)
    by_path = model.predict(tmp_path / "rows.csv")
    pd.testing.assert_frame_equal(by_path, found.reset_index(drop=True), check_dtype=False, check_exact=True)


def test_a_row_that_cannot_be_predicted_is_a_row_with_the_reason(model, frame, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    rows = frame.head(4).assign(image=[frame["image"][0], str(broken), None, "/nowhere.png"])
    found = model.predict(rows)
    assert len(found) == 4
    assert found["error"].isna().tolist() == [True, False, False, False]
    assert found["error"][2].startswith("no image, and the model was trained without missing image")
    assert found["sex.label"].isna().tolist() == [False, True, True, True]
    assert found["sex.p.F"].dtype == float


def test_ids_are_the_column_else_the_index(model, frame):
    named = frame.drop(columns="id").set_axis(frame["id"])
    assert list(model.predict(named.head(2))["id"]) == list(frame["id"][:2])
    assert list(model.predict(frame.drop(columns="id")[3:5])["id"]) == [3, 4]
    repeated = pd.concat([frame.head(1)] * 2)
    assert list(model.predict(repeated)["id"]) == [frame["id"][0]] * 2


def test_no_rows_give_no_predictions(model, frame):
    found = model.predict(frame.head(0))
    assert len(found) == 0
    assert [*found.columns] == [*model.predict(frame.head(1)).columns]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model, frame: model.predict(frame, mising="allow"), "predict: mising: no such argument.*'missing'"),
        (lambda model, frame: model.predict(frame.drop(columns="text")), "data: the model's text: .*no column 'text'"),
        (lambda model, frame: model.embed(frame, "fusd"), "what: 'fusd': the model has no such vectors.*'fused'"),
        (lambda model, frame: model.encode(frame.assign(text="")), "row 0: no text, and the model was trained"),
        (lambda model, frame: mmfuse.Model.load(model.run.parent), "no model and no run"),
        (lambda model, frame: model.evaluate(frame, root="films"), "evaluate: root: no such argument"),
        (lambda model, frame: model.evaluate(frame.drop(columns="sex")), "tasks.sex: the rows have no column 'sex'"),
    ],
)
def test_what_is_not_legal_is_told_in_one_line(model, frame, call, said):
    with pytest.raises(mmfuse.MmfuseError, match=said):
        call(model, frame)


def test_vectors_are_what_the_head_sees(model, frame):
    """The head's own weights on them give the probabilities of the predictions."""
    vectors = model.embed(frame)
    loaded = FusionModel.from_pretrained(model.folder)
    head: Any = loaded.heads["sex"]
    with torch.inference_mode():
        said = head.probabilities(head(_features(vectors)).numpy())
    predicted = model.predict(frame)
    np.testing.assert_allclose(said, predicted[["sex.p.F", "sex.p.M"]], atol=1e-6)


def _features(vectors):
    pooled = torch.from_numpy(vectors)
    there = torch.ones(len(pooled), dtype=torch.bool)
    return mmfuse.Features(pooled[:, None], there[:, None], pooled, there)


def test_vectors_of_a_tower_are_its_features(model, frame):
    text, image = model.encode(frame)
    np.testing.assert_allclose(model.embed(frame, "text"), text.pooled, atol=1e-6)
    np.testing.assert_allclose(model.embed(frame, "image"), image.pooled, atol=1e-6)


def test_a_thousand_rows_are_embedded_in_one_call(model, frame):
    many = pd.concat([frame.head(50)] * 20)
    vectors = model.embed(many, "text")
    assert vectors.shape == (1000, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[:50], vectors[950:], atol=1e-6)


def test_a_row_without_what_is_embedded_is_nan_and_told(model, frame, capsys):
    rows = frame.head(4).assign(text=["", *frame["text"][1:4]], image=[*frame["image"][:3], "/nowhere.png"])
    assert np.isnan(model.embed(rows, "text")).any(axis=1).tolist() == [True, False, False, False]
    assert "1 of 4 rows have no vector (NaN); the first: no text" in capsys.readouterr().err
    assert np.isnan(model.embed(rows, "image")).any(axis=1).tolist() == [False, False, False, True]
    assert np.isnan(model.embed(rows)).any(axis=1).tolist() == [True, False, False, True]


def test_scores_of_rows_are_those_of_their_split(model, frame):
    splits = pd.read_csv(model.run / "splits.csv").set_index("id")["split"]
    kept = json.loads((model.run / "test" / "metrics.json").read_text())
    found = model.evaluate(frame[(splits[frame["id"]] == "test").to_numpy()])
    assert found["tasks"]["sex"]["metrics"] == kept["tasks"]["sex"]["metrics"]
    assert found["rows"] == kept["rows"]
