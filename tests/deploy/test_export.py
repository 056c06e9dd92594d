import json
import shutil

import numpy as np
import pytest
import torch
from tiny_models import SHAPES, build, draw, needs_onnx, needs_openvino

from mmfuse.deploy import export_model
from mmfuse.deploy.dense import DenseModel
from mmfuse.deploy.verify import differences, forward_of, judge
from mmfuse.fusion import FUSIONS
from mmfuse.predict import load_to_predict
from mmfuse.types import Features, MmfuseError

pytestmark = needs_onnx


def forwards(model, folder):
    """Both runtimes' forward passes of `model.onnx` in a folder."""
    from mmfuse.deploy.onnx import OnnxEngine
    from mmfuse.deploy.openvino import OpenVinoEngine, convert

    dense = DenseModel(model)
    convert(folder / "model.onnx", folder)
    return OnnxEngine(dense, folder), OpenVinoEngine(dense, folder, "fp32")


def largest(model, forward) -> float:
    """Over batches of several sizes, the largest difference to torch."""
    worst = 0.0
    for seed, shape in enumerate(SHAPES):
        batch = draw(model, *shape, seed)
        found = differences(model, forward_of(model)(batch), forward(batch))
        worst = max(worst, *(of["largest_difference"] for of in found.values()))
    return worst


@needs_openvino
def test_batch_text_and_images_may_have_any_length(model_dir, onnx_dir, tmp_path):
    shutil.copytree(onnx_dir, tmp_path / "onnx")
    model = load_to_predict(model_dir)
    for forward in forwards(model, tmp_path / "onnx"):
        assert largest(model, forward) < 1e-5


@needs_openvino
@pytest.mark.slow
@pytest.mark.parametrize(("text", "image"), [("bert", "vit"), ("roberta", "resnet")])
@pytest.mark.parametrize("fusion", FUSIONS.names())
def test_every_fusion_over_two_pairs_of_towers(tmp_path, fusion, text, image):
    from mmfuse.deploy.onnx import write_onnx

    model = build(fusion, text=text, image=image)
    write_onnx(DenseModel(model), tmp_path / "model.onnx")
    found = [largest(model, forward) for forward in forwards(model, tmp_path)]
    print(f"{fusion}, {text} + {image}: ONNX Runtime {found[0]:.1e}, OpenVINO {found[1]:.1e}")  # the table, with -s
    assert max(found) < 1e-5


class TakesOneBatch(torch.nn.Module):
    """Fuses by a number that Python has read off the batch."""

    uses, reads, interaction, size, out_dim = ("text", "image"), frozenset({"pooled"}), "additive", None, 16

    def __init__(self, text_dim: int, image_dim: int):
        super().__init__()

    def forward(self, text, image):
        pooled = (text.pooled + image.pooled) * torch.ones(len(text.pooled), 1)
        return Features(pooled[:, None], text.mask[:, :1], pooled, text.present | image.present)

    def macs(self, text_tokens, image_tokens):
        return 0


def test_a_fusion_for_one_size_of_batch_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(FUSIONS._classes, "takes_one_batch", TakesOneBatch)
    build("takes_one_batch").save_pretrained(tmp_path / "model")
    with pytest.raises(MmfuseError, match=r"^export: 'takes_one_batch': works for one length of B alone.* len\(x\)"):
        export_model(tmp_path / "model", tmp_path / "out", to="onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_folder_has_what_a_runtime_needs(model_dir, exports, tmp_path, mmfuse):
    code, said, complained = mmfuse("export", model_dir, "--to", "onnx", "--out", tmp_path / "out")
    assert code == 0, complained
    assert "kind, 8 rows of random inputs: largest difference to torch" in said
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"model.onnx", "export.json", "config.json", "tokenizer", "README.md"}
    recipe = json.loads((tmp_path / "out" / "export.json").read_text())
    assert recipe["outputs"] == ["kind", "signs", "size"]
    assert [each["axes"][:2] for each in recipe["inputs"]] == [["B", "T"], ["B", "T"], ["B", "V"], ["B", "V"]]
    of = recipe["verified"]["fp32"]["tasks"]["kind"]
    assert 0 < of["largest_difference"] < 1e-5 < of["largest_logit"]
    assert recipe["made_with"]["torch"] == torch.__version__.partition("+")[0]
    assert str(tmp_path) not in json.dumps(recipe)
    code, _, complained = mmfuse("export", model_dir, "--to", "onnx", "--out", tmp_path / "out")
    assert (code, "exists already" in complained) == (2, True)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--to", "tensorrt"], "--to 'tensorrt' is not legal; legal: onnx, openvino"),
        (["--to", "onnx", "--precision", "int8"], "--precision 'int8' is not legal with --to onnx; legal: fp32"),
        (["--to", "openvino", "--precision", "int8"], "--precision int8 requires --calibrate MANIFEST"),
        (["--to", "openvino", "--tolerance", "5"], "--tolerance 5 is out of range"),
        (["--to", "onnx", "--tolerance", "0.1"], "--tolerance requires --verify MANIFEST"),
        (["--to", "onnx", "--fold", "1"], "--fold requires --verify MANIFEST"),
    ],
)
def test_what_is_not_legal_is_told_before_a_model_is_loaded(mmfuse, asked, told):
    code, _, complained = mmfuse("export", "no/such/model", *asked)
    assert code == 2
    assert complained.startswith(f"error: {told}")


@pytest.mark.parametrize(("out", "told"), [(".", "is the folder you are in"), ("link", "is a link")])
def test_a_folder_that_cannot_be_replaced_is_refused_before_the_work(
    model_dir, exports, tmp_path, monkeypatch, mmfuse, out, told
):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path)
    (tmp_path / "export.json").touch()
    monkeypatch.chdir(tmp_path if out == "." else tmp_path / "here")
    code, _, complained = mmfuse("export", model_dir, "--to", "onnx", "--out", out, "--overwrite")
    assert code == 2
    assert complained.startswith(f"error: --out {out}: {told}")
    assert not exports
    assert (tmp_path / "here" / "link").is_symlink()


def test_what_is_tolerated_is_a_share_of_the_largest_logit_or_of_decisions():
    found = {"kind": {"rows": 100, "largest_logit": 10.0, "largest_difference": 5e-4, "changed": 0.04}}
    judge(found, "fp32", None, on_rows=True)
    judge(found, "int8", None, on_rows=True)
    with pytest.raises(MmfuseError, match=r"int8 changes 4\.0% of the decisions on 100 rows; up to 3\.0%"):
        judge(found, "int8", 0.03, on_rows=True)
    with pytest.raises(MmfuseError, match=r"bf16 changes 4\.0% .*; up to 2\.0%"):
        judge(found, "bf16", None, on_rows=True)
    found["kind"]["largest_difference"] = 2e-3
    with pytest.raises(MmfuseError, match=r"fp32 differs from torch by 0\.002 in a logit.*; up to 0\.001 is tolerated"):
        judge(found, "fp32", None, on_rows=False)


def test_decisions_are_those_that_are_written():
    model = build("concat")
    ours = {"kind": np.array([[2.0, 1, 0], [0, 1, 2]]), "signs": np.array([[1.0, -1], [1, 1]])}
    ours["size"] = np.array([[0.0], [1.0]])
    theirs = {"kind": ours["kind"] + [[0, 2, 0]], "signs": -ours["signs"], "size": ours["size"] + 0.04}
    model.heads["signs"].thresholds = [0.5, 0.99]  # the second label is never said
    found = differences(model, ours, theirs)
    assert [found[task]["changed"] for task in ours] == [1.0, 0.5, 0.0]
    theirs["size"] = ours["size"] + 0.06
    assert differences(model, ours, theirs)["size"]["changed"] == 1.0
    theirs["kind"] = ours["kind"] * np.nan
    with pytest.raises(MmfuseError, match="task 'kind': the exported model gives no finite number"):
        differences(model, ours, theirs)


def test_a_missing_extra_is_told_with_its_command(model_dir, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    shutil.copytree(model_dir, tmp_path / "model", ignore=shutil.ignore_patterns("exported"))
    with pytest.raises(MmfuseError, match=r'^export: pip install "mmfuse\[onnx\]"'):
        export_model(tmp_path / "model", tmp_path / "out", to="onnx")
