"""Where a caption comes from: for each word, how much the decoder looks at each patch of the images."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from mmfuse.encoders.image import ImageEncoder
from mmfuse.metrics.captions import begins_unspaced
from mmfuse.model import FusionModel
from mmfuse.predict import Predictor
from mmfuse.types import Features, MmfuseError, Sample

COLUMNS, MOST_WORDS = 6, 71
INK = "#333333"


@dataclass(frozen=True)
class WordAttention:
    """One word of a caption, and where the decoder looked when it said it.

    Attributes:
        word: As it is written.
        log_probability: Of its tokens, summed.
        images: `(V, h, w)`: the share of the cross-attention that goes to each patch of each image, the mean over
            layers and heads.
        rest: The share that goes to the text, the fused vector and tokens that are no patch. All sums to 1.
    """

    word: str
    log_probability: float
    images: NDArray[np.float64]
    rest: float


def explain_caption(predictor: Predictor, sample: Sample, task: str) -> tuple[list[WordAttention], NDArray[np.uint8]]:
    """The words of a caption with their attention over the images' patches.

    Attention tells what the decoder read, not what changed its mind (Jain and Wallace 2019, arXiv 1902.10186): fused
    tokens may hold text, too.

    Args:
        predictor: Of a model with a captioning task, whose fusion gives a token for each patch.
        sample: With an image.
        task: A captioning task.

    Returns:
        The words in their order, and the images as the model saw them, `(V, H, W, 3)`.

    Raises:
        MmfuseError: The sample cannot be read, has no image, or the model has no such attention.
    """
    model = predictor.model
    if task not in model.captioning:
        raise MmfuseError(
            f"task {task!r} writes no captions; captioning tasks: {', '.join(model.captioning) or 'none'}"
        )
    if not isinstance(model.image_encoder, ImageEncoder):
        what = f"fusion {model.fusion_config['name']!r} uses no image"
        what = what if model.image_encoder is None else "the model reads features in place of images"
        raise MmfuseError(f"{what}: there are no patches to show")
    batch = predictor.prepare(sample)
    if not len(batch["image_row"]):
        raise MmfuseError(f"{sample.id}: no image to show")
    head: Any = model.heads[task]
    with torch.inference_mode():
        text, image = model.encode(batch)
        assert image is not None
        places = _patch_places(model, text, image)
        fused = model.fusion(text, image)
        said = head.predict(fused, None)[0]
        ids = _with_end(said["ids"].tolist(), head.decoder.eos, head.decoder.pad)
        given = torch.tensor([[head.decoder.bos, *ids[:-1]]], device=predictor.device)
        memory, mask = head.memory(fused)
        weights = head.decoder.attention(memory, mask, given, torch.ones_like(given, dtype=torch.bool))[0]
    on_patches = weights[:, 1 + places].double().cpu().numpy()  # the pooled vector is the memory's first token
    h, w, _ = model.image_encoder.grid
    views = on_patches.reshape(len(ids), -1, h, w)
    words = []
    for text_of, tokens in head.decoder.words(ids):
        share = views[tokens].mean(axis=0)
        log_probability = float(said["log_probabilities"][tokens].sum())
        words.append(WordAttention(text_of, log_probability, share, float(1 - share.sum())))
    pixels = batch["pixels"].permute(0, 2, 3, 1).cpu().numpy()
    return words, pixels


def _patch_places(model: FusionModel, text: Features | None, image: Features) -> Tensor:
    """Which fused tokens are the image's patches, in their order: those that are masked when the patch is.

    Raises:
        MmfuseError: The strategy's tokens are no patches.
    """
    assert isinstance(model.image_encoder, ImageEncoder)
    h, w, prefix = model.image_encoder.grid
    per_image = prefix + h * w
    full = model.fusion(text, image).mask[0]
    hidden = image.mask.clone()
    hidden[0, 1:] = False
    without = model.fusion(text, image._replace(mask=hidden)).mask[0]
    gone = (full & ~without).nonzero()[:, 0] if without.shape == full.shape else full.new_zeros(0).nonzero()[:, 0]
    wanted = torch.arange(image.mask.shape[1], device=full.device)
    if len(gone) != len(wanted) - 1:
        raise MmfuseError(
            f"fusion {model.fusion_config['name']!r} gives no token for each patch, so a caption's attention cannot be "
            "drawn on the image; cross_attention, merged_attention, concat, ... do"
        )
    places = torch.cat([gone[:1] - 1, gone])  # the first patch stands before the second
    return places[(wanted % per_image) >= prefix]


def _with_end(ids: list[int], end: int, pad: int) -> list[int]:
    for i, id in enumerate(ids):
        if id == end:
            return ids[: i + 1]
    return [id for id in ids if id != pad]


def _joined(words: Iterable[str]) -> str:
    caption = ""
    for word in words:
        caption += word if begins_unspaced(word) else f" {word}"
    return caption.strip()


def draw_caption(words: list[WordAttention], pixels: NDArray[np.uint8], path: Path, title: str = "") -> None:
    """Draw the words, each over the image that it looked at most, as a PNG.

    All panels have one scale: the largest share of any word on any patch. Under a word stands the share that goes to
    the images at all.

    Args:
        words: As `explain_caption` gives them; the first `MOST_WORDS` are drawn.
        pixels: `(V, H, W, 3)` uint8.
        path: To write.
        title: Of the figure.
    """
    shown = words[:MOST_WORDS]
    rows = math.ceil((1 + len(shown)) / COLUMNS)
    figure = Figure(figsize=(1.9 * COLUMNS, 2.25 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for panel in panels:
        panel.axis("off")
    panels[0].imshow(pixels[0])
    panels[0].set_title("image" if len(pixels) == 1 else f"image 1 of {len(pixels)}", fontsize=9, color=INK)
    highest = max((word.images.max() for word in shown), default=1.0)
    height, width = pixels.shape[1:3]
    for panel, word in zip(panels[1:], shown, strict=False):
        view = int(word.images.sum(axis=(1, 2)).argmax())
        panel.imshow(pixels[view].mean(axis=-1), cmap="gray", vmin=0, vmax=255)
        panel.imshow(
            word.images[view],
            cmap="inferno",
            alpha=0.55,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="bilinear",
            vmin=0,
            vmax=highest,
        )
        which = f", image {view + 1}" if len(pixels) > 1 else ""
        panel.set_title(f"{word.word}\n{1 - word.rest:.0%} on images{which}", fontsize=9, color=INK, parse_math=False)
    left_out = f" ({len(words) - len(shown)} more words are in the JSON)" if len(words) > len(shown) else ""
    figure.suptitle(title + left_out, fontsize=10, color=INK, wrap=True, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of a script that the font lacks: a box; the JSON has the words
        figure.savefig(path, dpi=130, format="png")


def explain(predictor: Predictor, sample: Sample, out: Path) -> list[Path]:
    """Write, for each captioning task, `ID.TASK.png` and `ID.TASK.json` with a study's words and their attention.

    Args:
        predictor: Of the model.
        sample: The study.
        out: Folder.

    Raises:
        MmfuseError: As `explain_caption`, or `out` cannot be written.
    """
    if not predictor.model.captioning:
        raise MmfuseError("the model writes no captions; there is nothing to explain yet for label tasks")
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for task in predictor.model.captioning:
            words, pixels = explain_caption(predictor, sample, task)
            stem = f"{Path(sample.id).name}.{task}"
            caption = _joined(word.word for word in words if word.word != "(end)")
            draw_caption(words, pixels, out / f"{stem}.png", f"{sample.id} · {task}: {caption}")
            lines = [
                {
                    "word": word.word,
                    "log_probability": round(word.log_probability, 4),
                    "images": word.images.round(6).tolist(),
                    "rest": round(word.rest, 6),
                }
                for word in words
            ]
            (out / f"{stem}.json").write_text(json.dumps(lines) + "\n", encoding="utf-8")
            written += [out / f"{stem}.png", out / f"{stem}.json"]
    except OSError as error:
        raise MmfuseError(f"--out {out}: cannot be written: {error.strerror or error}") from error
    return written
