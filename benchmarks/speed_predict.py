"""Sides of `speed.py` that predict: the baseline, and mmfuse by each engine and precision."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from speed_train import peak_mib

NEEDED = {"openvino": ("openvino",), "int8": ("nncf",)}
"""Libraries that an engine or a precision asks for."""


def absent(engine: str, precision: str) -> str | None:
    """Why this cannot be measured here; None if it can."""
    for name in (*NEEDED.get(engine, ()), *NEEDED.get(precision, ())):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    return None


def naive_predict(job: dict) -> dict:
    """The baseline as it is."""
    import contextlib
    import io

    import naive_predict as baseline

    sys.argv = ["naive_predict.py", "--folder", str(make_pairs(job)), "--text-model", f"{job['pretrained']}/minilm"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        baseline.main()
    return json.loads(printed.getvalue().splitlines()[-1])


def mmfuse_predict(job: dict) -> dict:
    """A folder of pairs to a file of predictions; then, untimed, what is said of the test rows."""
    from mmfuse.memory import keep_memory
    from mmfuse.predict import open_studies, predict_to_file

    keep_memory()
    predictor = load(job)
    folder, out = make_pairs(job), Path(job["work"]) / f"predictions_{os.getpid()}.jsonl"
    start = time.perf_counter()
    counts = predict_to_file(predictor, open_studies(str(folder)), out, overwrite=True)
    seconds = time.perf_counter() - start
    peak = peak_mib()
    right, labels = said_of_test(predictor, Path(job["manifest"]).parent, Path(job["data"]) / job["set"])
    return {
        "pairs": counts.predictions,
        "seconds": seconds,
        "pairs_per_s": counts.predictions / seconds,
        "peak_mib": peak,
        "accuracy": sum(a == b for a, b in zip(right, labels, strict=True)) / len(right),
        "labels": labels,
    }


def load(job: dict) -> Any:
    """The predictor of a side; what an engine needs beside the model is made here, and not timed."""
    from mmfuse.predict import Predictor
    from mmfuse.registry import load_plugin

    load_plugin(Path(__file__).with_name("tutorial_concat.py"))
    if job["engine"] == "local":
        precision = {} if job["precision"] == "fp32" else {"precision": job["precision"]}
        return Predictor.from_pretrained(job["model"], **precision)
    from mmfuse.deploy import export_model, load_predictor
    from mmfuse.types import MmfuseError

    try:
        return load_predictor(job["model"], job["engine"], job["precision"])
    except MmfuseError:
        if job["precision"] != "int8":
            raise
        export_model(job["model"], to=job["engine"], precision="int8", calibrate=job["manifest"], tolerance=1.0)
        return load_predictor(job["model"], job["engine"], job["precision"])


def said_of_test(predictor: Any, rows: Path, images: Path) -> tuple[list[str], list[str]]:
    """Right labels and predicted ones of the test rows."""
    import pandas as pd

    test = pd.read_csv(rows / "rows.csv", dtype=str).query("split == 'test'")
    samples = ({"id": r["id"], "text": r["text"], "image": str(images / r["image"])} for r in test.to_dict("records"))
    return list(test["category"]), [found.tasks["category"]["label"] for found in predictor(samples)]


def make_pairs(job: dict) -> Path:
    """The first rows of a set as a folder of ID.jpg and ID.txt."""
    import shutil

    import pandas as pd

    folder = Path(job["work"]) / f"pairs_{job['set']}_{job['limit']}"
    if not folder.exists():
        scratch = folder.with_suffix(".tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for _, row in pd.read_csv(f"{job['data']}/{job['set']}/data.csv").head(job["limit"]).iterrows():
            shutil.copyfile(f"{job['data']}/{job['set']}/{row['image']}", scratch / f"{row['id']}.jpg")
            (scratch / f"{row['id']}.txt").write_text(row["text"])
        scratch.rename(folder)
    return folder
