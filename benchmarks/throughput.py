"""`predict_to_file` against its own model on batches that are in memory already: what reading and writing cost.

    python benchmarks/throughput.py --data DATA --pretrained DIR --work DIR [--pairs 1000] [--rounds 5]

DATA has flickr8k_1000/ (JPEGs of 500 x 375), --pretrained minilm/. The model is ResNet-18 at 224 (random weights) and
MiniLM, `concat`, batch norm folded; both sides are one process with the same batches and threads, and alternate.
Reading the folder, tokenising, decoding images, deciding and writing are on one side only. Medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from pathlib import Path

import torch

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.data.synthetic.phantom import write_pairs
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.model import FusionModel
from mmfuse.predict import Predictor, open_studies, predict_to_file
from mmfuse.predict.loop import forward_batches
from mmfuse.types import Batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("MMFUSE_TEST_DATA")
    parser.add_argument("--data", type=Path, default=Path(shared) / "data" if shared else None)
    parser.add_argument("--pretrained", type=Path, default=os.environ.get("MMFUSE_TEST_PRETRAINED"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sets", nargs="*", default=["jpeg", "png"], choices=["jpeg", "png"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    predictor = Predictor.from_pretrained(save_model(args.work / "model", args.pretrained))
    for name in args.sets:
        folder = make_pairs(args.work / f"{name}_{args.pairs}", name, args.pairs, args.data)
        measure(predictor, name, folder, args)


def save_model(folder: Path, pretrained: Path) -> Path:
    """ResNet-18 and MiniLM, untrained where they meet."""
    if not folder.exists():
        torch.manual_seed(0)
        text = build_text_encoder(TextEncoderConfig(name=f"{pretrained}/minilm"), [])
        image = build_image_encoder(ImageEncoderConfig(name="resnet18", pretrained=False, size=[224, 224]))
        tasks = {"category": {"type": "classification", "labels": [f"c{i}" for i in range(10)]}}
        FusionModel(text, image, {"name": "concat"}, tasks).eval().save_pretrained(folder)
    return folder


def make_pairs(folder: Path, name: str, pairs: int, data: Path) -> Path:
    """Captioned photographs, or SYNTHETIC phantoms of 64 pixels."""
    if folder.exists():
        return folder
    if name == "png":
        return write_pairs(folder, pairs, 0)
    scratch = folder.with_suffix(".tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    rows = (data / "flickr8k_1000" / "captions.jsonl").read_text().splitlines()
    for row in map(json.loads, rows[:pairs]):
        shutil.copyfile(data / "flickr8k_1000" / row["image"], scratch / f"{row['id']}.jpg")
        (scratch / f"{row['id']}.txt").write_text("\n".join(row["captions"]))
    return scratch.rename(folder)


def measure(predictor: Predictor, name: str, folder: Path, args: argparse.Namespace) -> None:
    """Alternate the two sides, and print their medians."""
    batches = in_memory(predictor, folder)
    rows = sum(len(batch["row_ids"]) for batch in batches)
    alone, whole, shares = [], [], []
    for _ in range(args.rounds):
        start, spent = time.perf_counter(), time.process_time()
        for _ in forward_batches(predictor.model, batches, predictor.device):
            pass
        middle, model = time.perf_counter(), time.process_time() - spent
        counts = predict_to_file(predictor, open_studies(str(folder)), args.work / "out.jsonl", overwrite=True)
        alone.append(rows / (middle - start))
        whole.append(rows / (time.perf_counter() - middle))
        shares.append(model / (time.process_time() - spent - model))
        assert counts.predictions == rows
        print(f"{name}: model alone {alone[-1]:.1f}, predict {whole[-1]:.1f} pairs/s: {whole[-1] / alone[-1]:.3f}")
    a, b = statistics.median(alone), statistics.median(whole)
    ratio = statistics.median(y / x for x, y in zip(alone, whole, strict=True))
    print(
        f"{name}: medians: model alone {a:.1f}, predict {b:.1f} pairs/s: {b / a:.3f} (of the rounds: {ratio:.3f}); of "
        f"processor time, which other programs change less: {statistics.median(shares):.3f}"
    )


def in_memory(predictor: Predictor, folder: Path) -> list[Batch]:
    """The batches that predicting this folder gives its model."""
    found: list[Batch] = []
    handle = predictor.model.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        studies = open_studies(str(folder))
        for _ in predictor.chunks(studies.read(0, len(studies))):
            pass
    finally:
        handle.remove()
    return found


if __name__ == "__main__":
    main()
