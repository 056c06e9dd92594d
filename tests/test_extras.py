"""What is an extra is missing in one line, and nothing else misses it."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from public_sets import open_i

import mmfuse
from mmfuse.data.public.prepare import prepare
from mmfuse.data.readers.documents import decode_report
from mmfuse.data.readers.texts import TextError
from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.data.synthetic.phantom_findings import write_language
from mmfuse.extras import extra
from mmfuse.training import accelerator
from mmfuse.types import MmfuseError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def hide(monkeypatch):
    """Make a package as if it were not installed."""

    def hidden(name):
        for module in [name, *(m for m in sys.modules if m.startswith(f"{name}."))]:
            monkeypatch.setitem(sys.modules, module, None)

    return hidden


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions")
    write_phantom(folder, 40, seed=0)
    return write_language(folder, 0)[0]


def config(manifest, output_dir, **training):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2}
    return mmfuse.config.config_from_dict(
        {
            "name": "run",
            "output_dir": str(output_dir),
            "data": {"manifest": str(manifest), "num_workers": 0},
            "text_encoder": {"name": "bert", "pretrained": False, "options": sizes, "max_length": 48},
            "image_encoder": {"name": "vit_tiny_patch16_224", "pretrained": False, "size": [32, 32], "options": vit},
            "fusion": {"name": "concat", "out_dim": 16},
            "training": {"max_steps": 1, "batch_size": 8, **training},
        }
    )


@pytest.mark.parametrize(
    ("package", "data", "message"),
    [
        ("striprtf", rb"{\rtf1 No effusion.}", 'an RTF file: pip install "mmfuse[documents]"'),
        ("defusedxml", b"<report><text>No effusion.</text></report>", 'an XML file: pip install "mmfuse[documents]"'),
        ("pydicom", b"\0" * 128 + b"DICM" + b"\0" * 64, 'a DICOM file: pip install "mmfuse[dicom]"'),
    ],
)
def test_a_report_of_a_kind_whose_reader_is_missing(hide, package, data, message):
    hide(package)
    with pytest.raises(TextError) as told:
        decode_report(data)
    assert str(told.value) == message
    assert decode_report(b"<html><body>No effusion.</body></html>") == "No effusion."
    assert decode_report(b'{"report": "No effusion."}') == "No effusion."


def test_open_i_without_a_reader_of_xml(hide, tmp_path):
    open_i(tmp_path / "d")
    hide("defusedxml")
    with pytest.raises(MmfuseError) as told:
        prepare("open_i", tmp_path / "d", tmp_path / "out")
    assert str(told.value) == 'Open-I\'s reports are XML: pip install "mmfuse[documents]"'


def test_captions_without_nltk_are_refused_before_training(hide, captions, tmp_path):
    hide("nltk")
    with pytest.raises(MmfuseError) as told:
        mmfuse.train(config(captions, tmp_path / "run"))
    assert str(told.value) == 'a captioning task is scored by METEOR of nltk: pip install "mmfuse[captions]"'
    assert not (tmp_path / "run").exists()


def test_labels_train_without_any_extra(hide, monkeypatch, captions, tmp_path):
    """The default tracks nothing but `metrics.jsonl`, and a captioning task that is left out needs nothing."""
    for package in ("nltk", "tensorboard", "tensorboardX", "defusedxml", "striprtf", "imagehash"):
        hide(package)
    wanted = config(captions, tmp_path / "run")
    wanted.data.tasks = ["findings"]
    assert mmfuse.train(wanted).steps == 1
    monkeypatch.setattr(accelerator, "get_available_trackers", list)  # Accelerate looked when it was imported
    with pytest.raises(MmfuseError) as told:
        mmfuse.train(config(captions, tmp_path / "other", trackers=["tensorboard"]))
    assert str(told.value) == 'training.trackers: tensorboard is not installed: pip install "mmfuse[tensorboard]"'


def test_a_run_that_was_tracked_is_resumed_without(captions, tmp_path):
    """Old runs began with tensorboard as the default."""
    began = config(captions, tmp_path / "run", trackers=["tensorboard"], checkpoint_every=1)
    began.data.tasks = ["findings"]
    assert mmfuse.train(began).steps == 1
    now = config(captions, tmp_path / "run", checkpoint_every=1)
    now.data.tasks = ["findings"]
    assert mmfuse.train(now).steps == 1


def test_another_error_of_an_import_is_left_alone():
    with pytest.raises(RuntimeError), extra("captions", "a"):
        raise RuntimeError("damaged")


def test_every_extra_that_a_message_names_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "mmfuse").rglob("*.py")]
    docs = [path.read_text(encoding="utf-8") for path in (*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"))]
    named = set(re.findall(r"(?:\bextra|\binstall)\([\"'](\w+)[\"']", "\n".join(texts)))
    assert {"captions", "dicom", "documents", "heic", "ray"} <= named
    in_docs = re.findall(r"mmfuse\[([\w,]+)\]", "\n".join(docs))
    named |= {name for names in in_docs for name in names.split(",")}
    assert named <= set(project["optional-dependencies"])
    assert sum(text.count("pip install") for text in texts) == 1, "mmfuse.extras alone says how"
