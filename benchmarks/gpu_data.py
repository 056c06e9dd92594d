"""What gpu.py measures on: pairs that it draws, towers with random weights, and batches that lie on the card."""

from __future__ import annotations

import csv
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from mmfuse.predict import default_workers

LABELS = [f"class {i}" for i in range(10)]
WORDS = 1728
"""That the drawn texts are made of: all of three syllables."""


@dataclass(frozen=True)
class Sizes:
    """How large all is.

    Attributes:
        rows: JPEGs; a batch of them is for validation, and one for test.
        shape: (width, height) of a JPEG.
        batch: Rows.
        image: timm's name.
        pixels: Height and width of the image tower's input.
        bert: Options of the text tower.
        tokens: Of a text.
        product: Rows and columns of the matrices of the ceiling.
        copied: Bytes of the copy of the ceiling.
        steps: Timed steps of a loop.
        epochs: Of the trainer, of cached pooled features and of cached tokens.
        caption: Decoder's width and layers, tokens of its memory, of a caption, and rows.
    """

    rows: int = 4096
    shape: tuple[int, int] = (500, 375)
    batch: int = 256
    image: str = "resnet50"
    pixels: int = 224
    bert: tuple[tuple[str, Any], ...] = (("vocab_size", 30522),)
    tokens: int = 128
    product: int = 8192
    copied: int = 2**32
    steps: int = 10
    epochs: tuple[int, int, int] = (3, 30, 8)
    caption: tuple[int, int, int, int, tuple[int, ...]] = (384, 4, 198, 40, (8, 32, 256))


TINY_BERT = (("hidden_size", 16), ("num_hidden_layers", 1), ("num_attention_heads", 2), ("intermediate_size", 32))
SMALL = Sizes(
    rows=56,
    shape=(50, 38),
    batch=4,
    image="test_resnet",
    pixels=32,
    bert=(("vocab_size", 2000), *TINY_BERT),
    tokens=16,
    product=64,
    copied=2**16,
    steps=1,
    epochs=(2, 2, 2),
    caption=(32, 1, 5, 4, (2,)),
)


def write_data(folder: Path, sizes: Sizes) -> int:
    """Draw the pairs, `ID.jpg` and `ID.txt`, with their manifest beside the folder; the bytes of all JPEGs."""
    pairs = folder / "pairs"
    shutil.rmtree(folder, ignore_errors=True)
    pairs.mkdir(parents=True)
    with ProcessPoolExecutor(max(1, default_workers())) as pool:
        written = sum(pool.map(partial(_write_pair, pairs, sizes), range(sizes.rows), chunksize=64))
    held = [*["validation"] * sizes.batch, *["test"] * sizes.batch]
    splits = [*["train"] * (sizes.rows - len(held)), *held]
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "text", "label", "split"])
        for row, split in enumerate(splits):
            text = (pairs / f"{row:05d}.txt").read_text()
            writer.writerow([f"{row:05d}", f"pairs/{row:05d}.jpg", text, LABELS[row % len(LABELS)], split])
    manifest = {"name": "gpu", "version": 1, "about": "SYNTHETIC noise", "licence": "CC0-1.0", "rows": "rows.csv"}
    manifest |= {"id": "id", "image": {"column": "image"}, "text": {"columns": ["text"]}, "splits": {"column": "split"}}
    task = {"type": "classification", "column": "label", "values": LABELS, "label_origin": "synthetic"}
    (folder / "manifest.yaml").write_text(yaml.safe_dump({**manifest, "tasks": {"label": task}}))
    return written


def _write_pair(folder: Path, sizes: Sizes, row: int) -> int:
    """Shapes with some noise, so that a JPEG is about as large as a photograph's; more words than there are tokens."""
    generator = np.random.default_rng(row)
    coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(sizes.shape, Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + generator.integers(-12, 13, smooth.shape, dtype=np.int16)
    path = folder / f"{row:05d}.jpg"
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=85)
    words = generator.integers(0, WORDS, sizes.tokens)
    path.with_suffix(".txt").write_text(" ".join(map(_word, words)))
    return path.stat().st_size


def _word(number: int) -> str:
    """One of `WORDS`."""
    letters = "bdfgklmnprst"
    return "".join(letters[(number // 12**place) % 12] + "aeiou"[(number + place) % 5] for place in range(3))


def config_of(folder: Path, run: Path, sizes: Sizes, **changes: dict[str, Any]) -> dict[str, Any]:
    """A run's config, with sections changed key by key."""
    text = {"name": "bert", "pretrained": False, "options": dict(sizes.bert), "max_length": sizes.tokens}
    values: dict[str, Any] = {
        "name": "gpu",
        "output_dir": str(run),
        "data": {"manifest": str(folder / "manifest.yaml")},
        "text_encoder": text,
        "image_encoder": {"name": sizes.image, "pretrained": False, "size": [sizes.pixels] * 2},
        "fusion": {"name": "concat", "out_dim": 256},
        "training": {"batch_size": sizes.batch, "learning_rate": 1e-4, "patience": None, "mixed_precision": "bf16"},
        "evaluation": {"analyses": []},
        "cache": {"dir": str(run.parent / "features")},
    }
    for section, keys in changes.items():
        values[section] = {**values[section], **keys}
    return values


def resident_batches(sizes: Sizes, device: torch.device) -> list[dict[str, Any]]:
    """Two packed batches of random pixels and tokens, with a text, an image and a label in each row, on the device."""
    generator = torch.Generator().manual_seed(0)
    B, words = sizes.batch, dict(sizes.bert)["vocab_size"]
    rows, found = torch.arange(B), []
    for _ in range(2):
        batch = {
            "row_ids": rows,
            "text_row": rows,
            "input_ids": torch.randint(5, words, (B, sizes.tokens), generator=generator),
            "text_mask": torch.ones(B, sizes.tokens, dtype=torch.bool),
            "image_row": rows,
            "image_view": torch.zeros(B, dtype=torch.long),
            "pixels": torch.randint(0, 256, (B, 3, sizes.pixels, sizes.pixels), dtype=torch.uint8, generator=generator),
            "target.label": torch.randint(0, len(LABELS), (B,), generator=generator),
        }
        found.append({name: value.to(device) for name, value in batch.items()})
    return found
