import json
import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_models import needs_openvino

from mmfuse.cli.request import Request
from mmfuse.deploy import export_model, load_predictor
from mmfuse.deploy.openvino import can_bf16
from mmfuse.predict import Predictor
from mmfuse.types import Failure, MmfuseError, Sample

pytestmark = [needs_openvino, pytest.mark.usefixtures("signal_stack")]


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    """Rows with one or several images, without a text or an image, without either, and with a broken image."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = []
    for i in range(8):
        paths.append(str(folder / f"{i}.png"))
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(paths[-1])
    (folder / "broken.png").write_bytes(b"no picture")
    found = [Sample(str(i), (path,), f"word {i} of the text") for i, path in enumerate(paths)]
    found += [Sample("several", tuple(paths[:3]), "word"), Sample("no text", (paths[0],), None)]
    found += [Sample("no image", (), "word 3"), Sample("nothing"), Sample("broken", (str(folder / "broken.png"),), "a")]
    return found


def probabilities(predictions) -> np.ndarray:
    return np.array([p.tasks["kind"]["probabilities"]["a"] for p in predictions if not isinstance(p, Failure)])


def test_predictions_are_torchs_and_all_else_is_unchanged(exported_dir, samples):
    ours, theirs = (list(p(samples)) for p in (Predictor.from_pretrained(exported_dir), load_predictor(exported_dir)))
    assert [type(p) for p in ours] == [type(p) for p in theirs]
    assert [p.reason for p in ours if isinstance(p, Failure)] == [p.reason for p in theirs if isinstance(p, Failure)]
    assert [p.id for p in theirs if isinstance(p, Failure)] == ["nothing", "broken"]
    assert np.abs(probabilities(ours) - probabilities(theirs)).max() < 2e-6
    assert len({*probabilities(theirs)}) > 8
    again = list(load_predictor(exported_dir)(samples))
    assert again == theirs


def test_bf16_is_the_same_form_computed_otherwise(exported_dir, samples):
    if not can_bf16():
        with pytest.raises(MmfuseError, match="this processor has no instructions for it"):
            load_predictor(exported_dir, precision="bf16")
        return
    told: list[str] = []
    exact, rough = (load_predictor(exported_dir, precision=p, tell=told.append) for p in ("fp32", "bf16"))
    difference = np.abs(probabilities(exact(samples)) - probabilities(rough(samples))).max()
    assert 1e-6 < difference < 0.02
    assert not told
    assert exact.forward.name != rough.forward.name


def test_a_form_is_made_once_and_again_for_other_weights(exported_dir, exports, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(exported_dir, model)
    told: list[str] = []
    before = (model / "exported" / "openvino-fp32" / "openvino.bin").stat().st_mtime_ns
    load_predictor(model, tell=told.append)
    assert not told
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-3] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    assert not exports
    (model / "exported" / "openvino-fp32.building-killed").mkdir()
    load_predictor(model, tell=told.append)
    assert told == [f"exporting the model for OpenVINO, once: {model / 'exported' / 'openvino-fp32'}"]
    assert (model / "exported" / "openvino-fp32" / "openvino.bin").stat().st_mtime_ns > before
    assert sorted(os.listdir(model / "exported")) == ["lock", "openvino-fp32"]


@pytest.mark.parametrize("name", ["openvino.bin", "openvino.xml"])
def test_a_form_whose_files_have_changed_is_refused(exported_dir, tmp_path, name):
    model = tmp_path / "model"
    shutil.copytree(exported_dir, model)
    file = model / "exported" / "openvino-fp32" / name
    file.write_bytes(file.read_bytes()[:-4] + b"\n" * 4)  # of the same size: OpenVINO may read it
    with pytest.raises(MmfuseError, match=r"openvino-fp32: damaged: not the files .*; delete the folder, and export"):
        load_predictor(model)


def test_a_folder_that_may_not_be_written_has_its_form_in_the_cache(exported_dir, tmp_path, monkeypatch):
    from mmfuse.deploy import kept

    model = tmp_path / "snapshots" / "model"
    shutil.copytree(exported_dir, model, ignore=shutil.ignore_patterns("exported"))
    monkeypatch.setenv("MMFUSE_CACHE", str(tmp_path / "cache"))
    made: list[str] = []

    def make(folder, dense, place, identity):
        made.append(str(place))
        shutil.copytree(exported_dir / "exported" / "openvino-fp32", place)

    monkeypatch.setattr(kept, "_make", make)
    for _ in range(2):
        load_predictor(model)
    assert len(made) == 1
    assert made[0].startswith(f"{tmp_path}/cache/exported/")
    assert not (model / "exported").exists()


def test_int8_needs_a_form_of_its_own(exported_dir):
    with pytest.raises(MmfuseError, match=r"no such form of these weights: .* --precision int8 --calibrate MANIFEST"):
        load_predictor(exported_dir, precision="int8")


def test_the_command_gives_the_same_bytes_each_time(exported_dir, tmp_path, samples, mmfuse):
    for sample in samples[:8]:
        shutil.copy(sample.images[0], tmp_path / f"{sample.id}.png")
        (tmp_path / f"{sample.id}.txt").write_text(sample.text)
    found = []
    for name in ("a.jsonl", "b.jsonl"):
        code, _, complained = mmfuse(
            "predict", exported_dir, tmp_path, "--out", tmp_path / name, "--engine", "openvino"
        )
        assert code == 0, complained
        found.append((tmp_path / name).read_bytes())
    assert found[0] == found[1]
    assert len(found[0].splitlines()) == 8


def test_a_run_is_told_apart_by_engine_and_precision(exported_dir):
    precisions = ["fp32", "bf16"] if can_bf16() else ["fp32"]
    predictors = [Predictor.from_pretrained(exported_dir)]
    predictors += [load_predictor(exported_dir, precision=precision) for precision in precisions]
    command = dict.fromkeys(Request.__dataclass_fields__)
    found = {Request(**command).fingerprint(predictor) for predictor in predictors}
    assert len(found) == len(predictors)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--device", "cuda"], "--device cuda: --engine openvino computes on the CPU; leave it out"),
        (["--precision", "fp16"], "--precision 'fp16' is not legal"),
    ],
)
def test_what_does_not_go_together_is_told(exported_dir, tmp_path, mmfuse, asked, told):
    code, _, complained = mmfuse("predict", exported_dir, tmp_path, "--engine", "openvino", *asked)
    assert code == 2
    assert complained.startswith(f"error: {told}")


def test_a_missing_extra_is_told_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MmfuseError, match=r'^--engine openvino: pip install "mmfuse\[openvino\]"$'):
        load_predictor("no/such/model")


def test_openvino_reports_to_nobody(exported_dir):
    load_predictor(exported_dir)
    assert sys.modules["openvino_telemetry"] is None


def test_the_recipe_says_how_both_precisions_differ(exported_dir):
    recipe = json.loads((exported_dir / "exported" / "openvino-fp32" / "export.json").read_text())
    assert list(recipe["verified"]) == (["fp32", "bf16"] if can_bf16() else ["fp32"])
    assert recipe["verified"]["fp32"]["tasks"]["size"]["largest_difference"] < 1e-5


def test_export_verifies_both_precisions_of_the_form_it_leaves_beside_a_model(exported_dir, exports, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(exported_dir, model, ignore=shutil.ignore_patterns("exported"))
    both = ["bf16", "fp32"] if can_bf16() else ["fp32"]
    recipe = export_model(model, to="openvino", precision=both[0]).recipe
    assert sorted(recipe["verified"]) == both
    assert recipe["verified"]["fp32"]["tasks"]["size"]["largest_difference"] < 1e-5


def test_a_dry_run_leaves_no_form(exported_dir, exports, tmp_path, samples, mmfuse):
    model = tmp_path / "model"
    shutil.copytree(exported_dir, model, ignore=shutil.ignore_patterns("exported"))
    (tmp_path / "in").mkdir()
    shutil.copy(samples[0].images[0], tmp_path / "in" / "a.png")
    (tmp_path / "in" / "a.txt").write_text("word")
    code, said, complained = mmfuse("predict", model, tmp_path / "in", "--engine", "openvino", "--dry-run")
    assert code == 0, complained
    assert "nothing was written" in said
    assert len(exports) == 1
    assert sorted(os.listdir(tmp_path)) == ["in", "model"]
    assert not (model / "exported").exists()
