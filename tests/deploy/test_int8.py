import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_models import TASKS, needs_openvino

from mmfuse.deploy import export_model, load_predictor
from mmfuse.deploy.dense import DenseModel
from mmfuse.deploy.openvino import OpenVinoEngine
from mmfuse.types import MmfuseError

pytestmark = [needs_openvino, pytest.mark.usefixtures("signal_stack")]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """30 rows with a text and a picture, of which 20 are for training and 10 for the test."""
    folder, rng = tmp_path_factory.mktemp("rows"), np.random.default_rng(0)
    with (folder / "rows.csv").open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["id", "image", "text", "kind", "x", "y", "size", "split"])
        for i in range(30):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
            split = "test" if i % 3 == 0 else "train"
            rows.writerow([i, f"{i}.png", f"word {i} of it", "abc"[i % 3], i % 2, (i + 1) % 2, i / 3, split])
    tasks = {"kind": {"type": "classification", "column": "kind"}}
    tasks |= {"signs": {"type": "multilabel", "columns": ["x", "y"]}, "size": {"type": "regression", "column": "size"}}
    assert list(tasks) == list(TASKS)
    described = {"name": "tiny", "rows": "rows.csv", "id": "id", "image": {"column": "image"}, "tasks": tasks}
    described |= {"text": {"columns": ["text"]}, "splits": {"column": "split"}}
    (folder / "manifest.yaml").write_text(json.dumps(described))
    return folder / "manifest.yaml"


@pytest.fixture
def model(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "model")
    return tmp_path / "model"


def test_int8_is_calibrated_on_training_rows_and_kept_beside_the_model(model, exports, manifest, mmfuse):
    asked = ("--to", "openvino", "--precision", "int8", "--calibrate", manifest, "--tolerance", "1")
    code, said, complained = mmfuse("export", model, *asked)
    assert code == 0, complained
    lines = said.splitlines()
    assert lines[:2] == [
        f"openvino, int8: {model / 'exported' / 'openvino-int8'}",
        "ranges of 20 training rows of tiny",
    ]
    assert lines[2].startswith("kind, 10 rows of tiny, test: largest difference to torch ")
    assert "% of decisions changed" in lines[2]
    recipe = json.loads((model / "exported" / "openvino-int8" / "export.json").read_text())
    assert recipe["calibration"] == {"manifest": "tiny", "split": "train", "rows": 20}
    of = recipe["verified"]["int8"]["tasks"]["kind"]
    assert of["rows"] == 10
    assert 1e-4 < of["largest_difference"] < 0.5 * of["largest_logit"]
    ours, theirs = of["scores"]["accuracy"]
    assert 0 <= ours <= 1
    assert 0 <= theirs <= 1
    predictor = load_predictor(model, precision="int8")
    [found] = predictor([{"id": "1", "image": str(manifest.parent / "1.png"), "text": "word 1"}])
    assert sum(found.tasks["kind"]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    form = model / "exported" / "openvino-int8"
    (form / "openvino.xml").write_text((form / "openvino.xml").read_text() + "\n")  # as of other rows
    dense = DenseModel(predictor.model)
    assert OpenVinoEngine(dense, form, "int8").name != predictor.forward.name  # or a resumed run would mix them


def test_one_that_changes_too_many_decisions_is_not_kept(model, exports, manifest, monkeypatch):
    from mmfuse.deploy import export

    def quantize(dense, source, pairs, rows, folder):
        for path in source.glob("openvino.*"):
            shutil.copy(path, folder)

    def compare(model, forward, pairs, rows, progress):
        return {"kind": {"rows": 10, "largest_logit": 1.0, "largest_difference": 0.2, "changed": 0.1}}

    monkeypatch.setattr(export, "quantize", quantize)
    monkeypatch.setattr(export, "compare_on_rows", compare)
    with pytest.raises(MmfuseError, match=r"int8 changes 10\.0% of the decisions on 10 rows; up to 5\.0% is tolerated"):
        export_model(model, to="openvino", precision="int8", calibrate=manifest)
    assert [path.name for path in (model / "exported").iterdir()] == ["lock"]


def test_a_manifest_of_other_tasks_is_refused_by_the_option(model, exports, manifest, tmp_path):
    described = json.loads(manifest.read_text())
    described["tasks"] = {"other": described["tasks"]["kind"]}
    other = manifest.with_name("other.yaml")
    other.write_text(json.dumps(described))
    with pytest.raises(MmfuseError, match=r"^--verify: .*other\.yaml: the model's task 'kind' is not in it"):
        export_model(model, tmp_path / "out", to="onnx", verify=other)
    assert not (tmp_path / "out").exists()
