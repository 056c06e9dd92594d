import ctypes
import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_models import build


class _Stack(ctypes.Structure):
    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def _signal_stack() -> tuple[int | None, int]:
    found = _Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.place, found.size


@pytest.fixture
def signal_stack() -> Iterator[None]:
    """Signals have the same stack after a test as before: where it is gone, the next signal ends the process."""
    from mmfuse.deploy.openvino import can_bf16

    can_bf16()
    before = _signal_stack()
    yield
    gc.collect()
    assert _signal_stack() == before


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
