"""Train, then predict the very table: the test rows are predicted as the run's own report has them, in every layout."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import mmfuse as library

WORDS = ["cough", "fever", "pain", "fall", "trauma", "dyspnea", "edema", "syncope"]
ROWS = 16


def picture(i, view=0) -> Image.Image:
    return Image.fromarray(np.random.default_rng([i, view]).integers(0, 256, (32, 32), dtype=np.uint8))


def encoded(i, view=0) -> bytes:
    data = io.BytesIO()
    picture(i, view).save(data, "PNG")
    return data.getvalue()


def columns(i) -> dict:
    words = " ".join(WORDS[(i * k) % 8] for k in (1, 3, 5))
    return {
        "study": f"s{i:02}",
        "title": "NA" if i == 3 else f"{words} {i}",
        "body": f"the body of {words[::-1]}",
        "report": "All is well." if i == 7 else f"INDICATION: {words}\n\nFINDINGS: Clear {i}.\nIMPRESSION: {words}.",
        "y": "ab"[i // 4 % 2],
        "split": ("train", "train", "validation", "test")[i % 4],
    }


def template(folder):
    for i in range(ROWS):
        picture(i).save(folder / "films" / f"{i}.png")
    frame = pd.DataFrame([{**columns(i), "film": f"{i}.png"} for i in range(ROWS)])
    frame.to_csv(folder / "rows.csv", index=False)
    text = {"columns": ["title", "body"], "template": "{body} of {title}", "missing": ["NA"]}
    return "rows.csv", text, {"column": "film", "root": "films"}


def sections(folder):
    for i in range(ROWS):
        picture(i).save(folder / f"{i}.png")
    frame = pd.DataFrame([{**columns(i), "film": f"{i}.png"} for i in range(ROWS)])
    frame.to_csv(folder / "rows.tsv", index=False, sep="\t")
    return "rows.tsv", {"columns": ["report"], "section": ["impression", "indication"]}, {"column": "film"}


def lists(folder):
    for i in range(ROWS):
        for view in range(3):
            picture(i, view).save(folder / "films" / f"{i}-{view}.png")
    rows = [{**columns(i), "films": [f"{i}-{view}.png" for view in range(i % 4)]} for i in range(ROWS)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "rows.jsonl", {"columns": ["title", "body"], "missing": ["NA"]}, {"column": "films", "root": "films"}


def in_parquet(folder):
    rows = [{**columns(i), "image": {"bytes": encoded(i), "path": f"{i}.png"}} for i in range(ROWS)]
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet", row_group_size=5)
    return "rows.parquet", {"columns": ["title"]}, {"column": "image"}


def files(folder):
    for i in range(ROWS):
        picture(i).save(folder / "films" / f"s{i:02}.png")
        (folder / "films" / f"s{i:02}.txt").write_text(columns(i)["report"])
    frame = pd.DataFrame([{**columns(i), "film": f"films/s{i:02}.png"} for i in range(ROWS)])
    frame.to_csv(folder / "rows.csv", index=False)
    return "films", {"columns": ["report"]}, {"column": "film"}


def train(folder: Path, layout) -> tuple[Path, Path]:
    """What is predicted, and the run's folder."""
    (folder / "films").mkdir()
    source, text, image = layout(folder)
    manifest = {
        "name": layout.__name__,
        "rows": source if "." in source else "rows.csv",
        "id": "study",
        "image": image,
        "text": text,
        "tasks": {"y": {"column": "y"}},
        "splits": {"column": "split"},
    }
    (folder / "m.yaml").write_text(yaml.safe_dump(manifest))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2}
    config = {
        "name": layout.__name__,
        "output_dir": str(folder / "run"),
        "data": {"manifest": str(folder / "m.yaml"), "num_workers": 0},
        "text_encoder": {"name": "bert", "pretrained": False, "options": sizes, "max_length": 48},
        "image_encoder": {"name": "vit_tiny_patch16_224", "pretrained": False, "size": [32, 32], "options": vit},
        "training": {"max_steps": 1, "batch_size": 8, "trackers": [], "modality_dropout": {"text": 0.2, "image": 0.2}},
    }
    return folder / source, library.train(config).dir


def probabilities(path: Path) -> dict[str, list[float]]:
    rows = map(json.loads, path.read_text().splitlines())
    return {row["id"]: list(row["tasks"]["y"]["probabilities"].values()) for row in rows}


@pytest.mark.parametrize("layout", [template, sections, lists, in_parquet, files])
def test_the_test_rows_are_predicted_as_in_the_runs_report(mmfuse, tmp_path, layout):
    source, run = train(tmp_path, layout)
    reported = probabilities(run / "test" / "predictions.jsonl")
    assert len(reported) == ROWS // 4
    for name, given in (("table", source), ("manifest", tmp_path / "m.yaml")):
        code, _, err = mmfuse("predict", run / "model", given, "--out", tmp_path / f"{name}.jsonl")
        assert code == 0, err
        found = probabilities(tmp_path / f"{name}.jsonl")
        assert len(found) == ROWS
        for id, expected in reported.items():
            np.testing.assert_allclose(found[id], expected, rtol=0, atol=1.001e-6)  # both are rounded to six digits
    if layout is not files:
        assert "as in training" in err
