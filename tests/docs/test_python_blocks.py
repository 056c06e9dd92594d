"""Every Python block on the pages is run, in a folder that has what the blocks name, with tiny encoders."""

import csv
import json
import shutil
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from doc_pages import ROOT, blocks

import mmfuse
from mmfuse.config import presets
from mmfuse.data.synthetic.phantom import write_pairs, write_phantom

ELSEWHERE = {
    'mmfuse.benchmark("': ("docs/add_a_fusion.md", "tests/benchmarking/test_add_a_fusion.py"),
    "mmfuse.benchmark(df": ("docs/python.md", "tests/api/test_api_benchmark.py"),
}
"""What a block calls, and the test that runs it in a process: a benchmark takes longer than all the rest."""
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
CONFIG = {
    "name": "studies",
    "data": {"manifest": "studies.yaml", "num_workers": 0},
    "text_encoder": {"name": "bert", "pretrained": False, "vocab_size": 200, "max_length": 16, "options": TINY},
    "image_encoder": {"name": "resnet10t", "pretrained": False, "size": [32, 32]},
    "fusion": {"name": "concat", "out_dim": 8},
    "training": {"epochs": 1, "batch_size": 16, "max_steps": 1},
}
THEIRS = {"docs/coming_from.md": 3}
"""By page, how many blocks are marked ```python theirs: code of other libraries, which are not installed."""
RUN = [b for b in blocks("python") if b.info != "theirs" and not any(call in b.text for call in ELSEWHERE)]


def film(path):
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder that blocks run in, and in it a run of `train.yaml`."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_phantom(Path(), 40, 0)
        Path("manifest.yaml").rename("studies.yaml")
        shutil.copy("data.csv", "studies.csv")
        write_pairs(Path("new_films"), 2, 1)
        Path("train.yaml").write_text(yaml.safe_dump(CONFIG))
        film("film.png")
        mmfuse.train("train.yaml")
        for copy in ("old", "new"):
            shutil.copytree("runs/studies/model", Path("runs", copy, "model"))
        said = [{"target": label, "label": label} for label in ("cup", "watch")]
        Path("runs/recipe_finetune/test").mkdir(parents=True)
        lines = "\n".join(json.dumps({"id": "1", "tasks": {"category": one}}) for one in said)
        Path("runs/recipe_finetune/test/predictions.jsonl").write_text(lines)
        Path("FOLDER").mkdir()
        weights()
    return folder


def weights():
    import torch

    torch.save({"model_state_dict": {"module.bert.weight": torch.zeros(2)}}, "chexbert.pth")


@pytest.fixture
def names(trained, tmp_path, monkeypatch):
    """The names that blocks may use without defining them, in a copy of the folder."""
    import pandas as pd

    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    with open("studies.csv", newline="", encoding="utf-8") as handle:
        frame = pd.DataFrame(list(csv.DictReader(handle)))
    small = {name: CONFIG[name] for name in ("text_encoder", "image_encoder", "fusion", "training")}
    small["data"] = {"num_workers": 0}
    monkeypatch.setattr(presets, "PRESETS", dict.fromkeys(presets.PRESETS, ("as small as can be", small)))
    return {"__name__": "block", "film": np.zeros((32, 32), np.uint8), "df": frame, "df_new": frame[:5]}


@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_block_runs(block, names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile("\n" * block.line + block.text, str(block.page), "exec", dont_inherit=True), names)


def test_only_other_libraries_code_is_not_run():
    found = Counter(str(block).partition(":")[0] for block in blocks("python") if block.info == "theirs")
    assert found == THEIRS
    for block in blocks("python"):
        compile(block.text, str(block), "exec")
        assert block.info in ("", "theirs")


def test_those_that_are_run_elsewhere_are():
    for call, (page, test) in ELSEWHERE.items():
        assert [str(b).partition(":")[0] for b in blocks("python") if call in b.text] == [page]
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")


def test_a_wrong_block_is_found(names):
    with pytest.raises(AttributeError, match="predicter"):
        exec("import mmfuse\nmmfuse.predicter", names)
