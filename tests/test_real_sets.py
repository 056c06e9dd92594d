"""The shipped manifests on the real sets, and a fusion on real encoders; skipped where MMFUSE_TEST_DATA is not set."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import mmfuse
from mmfuse.data.audit import audit
from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import load_manifest

MANIFESTS = Path(__file__).parent.parent / "data_manifests"
SETS = {"emoji_google": 1906, "covid_cxr": 486, "flipkart_1050": 1047}


@pytest.mark.parametrize("name", SETS)
def test_the_five_folds_cover_a_set_once(test_data, name):
    manifest = load_manifest(MANIFESTS / f"{name}.yaml", str(test_data / "data"))
    tables = [load_table(manifest, fold=fold) for fold in range(5)]
    assert len(tables[0]) == SETS[name]
    tested = Counter(i for table in tables for i in table.indices("test"))
    assert set(tested.values()) == {1}
    assert len(tested) == SETS[name]
    task = manifest.splits.stratify
    target = tables[0].targets[task]
    for table in tables:
        groups = table.rows["group"][:]
        parts = [{groups[i] for i in table.indices(s)} for s in ("train", "validation", "test")]
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
        shares = np.bincount(target[table.indices("test")]) / np.bincount(target)
        assert np.abs(shares - 0.2).max() < 0.15


def test_every_image_of_the_chest_films_reads(test_data):
    manifest = load_manifest(MANIFESTS / "covid_cxr.yaml", str(test_data / "data"))
    report = audit(load_table(manifest, tasks=["view"], fold=0), find=None)
    assert not {"images.missing", "images.unreadable"} & {found.check for found in report.findings}


def test_a_fusion_of_real_encoders_learns_emoji(test_data, pretrained, tmp_path):
    """Four categories, 40 pictures each, frozen encoders: far above chance in seconds."""
    root = test_data / "data" / "emoji_google"
    rows = pd.read_csv(root / "data.csv", keep_default_na=False)
    few = ["Flags", "Food & Drink", "People & Body", "Animals & Nature"]
    rows = rows[rows.category.isin(few)].groupby("category").sample(40, random_state=0)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    manifest = yaml.safe_load((MANIFESTS / "emoji_google.yaml").read_text())
    manifest |= {"rows": str(tmp_path / "rows.csv"), "image": {"column": "image", "root": str(root)}}
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    run = mmfuse.train(
        {
            "name": "emoji",
            "output_dir": str(tmp_path / "run"),
            "data": {"manifest": str(tmp_path / "manifest.yaml"), "fold": 0, "num_workers": 0},
            "text_encoder": {"name": str(pretrained / "minilm"), "max_length": 16, "frozen": True},
            "image_encoder": {"name": f"local-dir:{pretrained}/efficientnet_lite0", "size": [96, 96], "frozen": True},
            "fusion": {"name": "gated", "out_dim": 32},
            "training": {"epochs": 15, "batch_size": 16, "learning_rate": 0.003, "trackers": []},
        }
    )
    assert run.report["tasks"]["category"]["metrics"]["accuracy"]["value"] > 0.8
    predictor = mmfuse.Predictor.from_pretrained(run.model_dir)
    row = rows.iloc[0]
    result = next(iter(predictor([mmfuse.Sample(row.id, (str(root / row.image),), row.text)])))
    assert set(result.tasks["category"]["probabilities"]) == set(few)
