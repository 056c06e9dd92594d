import shutil
from pathlib import Path

import pytest
from tiny_models import build


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("deploy") / "model"
    model = build("perceiver", out_dim=16, num_layers=1)
    model.accepts_missing = ["text", "image"]
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def onnx_dir(model_dir) -> Path:
    """`model.onnx` of that model: torch takes seconds to export the smallest one."""
    from mmfuse.deploy.dense import DenseModel
    from mmfuse.deploy.onnx import write_onnx
    from mmfuse.predict import load_to_predict

    folder = model_dir.parent / "onnx"
    folder.mkdir()
    write_onnx(DenseModel(load_to_predict(model_dir)), folder / "model.onnx")
    return folder


@pytest.fixture
def exports(monkeypatch, onnx_dir) -> list[Path]:
    """Exports are copies of that file; gives where they were written."""
    return _copy_exports(monkeypatch, onnx_dir)


@pytest.fixture(scope="session")
def exported_dir(onnx_dir, model_dir) -> Path:
    """The model's folder, with its form for OpenVINO beside it."""
    from mmfuse.deploy import load_predictor

    folder = model_dir.parent / "exported" / "model"
    shutil.copytree(model_dir, folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        _copy_exports(monkeypatch, onnx_dir)
        load_predictor(folder)
    return folder


def _copy_exports(monkeypatch, onnx_dir) -> list[Path]:
    from mmfuse.deploy import export, kept

    written: list[Path] = []

    def write_onnx(dense, path):
        written.append(path)
        shutil.copytree(onnx_dir, path.parent, dirs_exist_ok=True)

    monkeypatch.setattr(export, "write_onnx", write_onnx)
    monkeypatch.setattr(kept, "write_onnx", write_onnx)
    return written
