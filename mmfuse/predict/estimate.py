"""What a run over many studies would take: time, memory and bytes, from a measured sample; nothing is written."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from mmfuse.memory import peak_memory
from mmfuse.predict.files import FRESH, append
from mmfuse.predict.predictor import Predictor
from mmfuse.predict.studies import Studies
from mmfuse.types import Failure, Sample

SAMPLED_CHUNKS = 4
"""The first fills the pipeline, the others are timed."""


@dataclass(frozen=True)
class PredictionEstimate:
    """What predicting would take.

    Attributes:
        studies: How many there are.
        sampled: How many of them were predicted.
        failed: How many of these cannot be predicted.
        bytes_in: Of images and texts.
        bytes_out: Of predictions and errors, as JSON lines.
        unsized: Images of the sample whose size was not asked, as they are behind a URL.
        memory: Bytes of this process at its peak: libraries, model, listing of all studies, chunks.
        seconds: Of predicting, without the start.
        device: Where it was measured.
    """

    studies: int
    sampled: int
    failed: int
    bytes_in: int
    bytes_out: int
    unsized: int
    memory: int
    seconds: float
    device: str

    def text(self) -> str:
        """All of it in lines."""
        lines = [
            f"studies:  {self.studies}",
            f"in:       about {tell_bytes(self.bytes_in)}"
            + (f", without {self.unsized} images of the sample that are behind URLs" if self.unsized else ""),
            f"out:      about {tell_bytes(self.bytes_out)}, as JSON lines",
            f"memory:   {tell_bytes(self.memory)} at the peak of this process",
            f"time:     about {tell_seconds(self.seconds)}, {self.studies / max(self.seconds, 1e-9):.1f} studies/s; "
            f"one process on {self.device}, without its start",
            f"measured: {self.sampled} studies, spread over all; {self.failed} of them cannot be predicted",
            "nothing was written",
        ]
        return "\n".join(lines)


def estimate_predictions(predictor: Predictor, studies: Studies) -> PredictionEstimate:
    """Predict four chunks of the studies, spread over all, after one batch that warms the model up.

    Args:
        predictor: As it would be used.
        studies: All of them.
    """
    chosen = _sample(len(studies), predictor.chunk)
    warm = [
        sample
        for start, _ in chosen[:1]
        for sample in studies.read(start, min(start + predictor.batch_size, len(studies)))
    ]
    list(predictor(warm))
    sizes, unsized = [], 0

    def samples():
        nonlocal unsized
        for start, stop in chosen:
            for sample in studies.read(start, stop):
                size, unknown = _size(sample)
                sizes.append(size)
                unsized += unknown
                yield sample

    out, failed, ends, counts = io.BytesIO(), 0, [time.perf_counter()], [0]
    errors, state = io.BytesIO(), {**deepcopy(FRESH), "done": 0}
    for results in predictor.chunks(samples()):
        for result in results:
            append(result, out, errors, state)
            failed += isinstance(result, Failure)
        ends.append(time.perf_counter())
        counts.append(counts[-1] + len(results))
    first = 1 if len(ends) > 2 else 0
    each = (ends[-1] - ends[first]) / max(1, counts[-1] - counts[first])
    sampled = max(1, len(sizes))
    return PredictionEstimate(
        studies=len(studies),
        sampled=len(sizes),
        failed=failed,
        bytes_in=round(sum(sizes) / sampled * len(studies)),
        bytes_out=round((out.tell() + errors.tell()) / sampled * len(studies)),
        unsized=unsized,
        memory=peak_memory(predictor.device),
        seconds=each * len(studies),
        device=str(predictor.device),
    )


def _sample(total: int, chunk: int) -> list[tuple[int, int]]:
    """Beginnings and ends of the chunks that are sampled."""
    last = max(0, (total - 1) // chunk)
    numbers: Sequence[int] = np.unique(np.linspace(0, last, SAMPLED_CHUNKS).astype(int)).tolist()
    return [(n * chunk, min((n + 1) * chunk, total)) for n in numbers]


def _size(sample: Sample) -> tuple[int, int]:
    """Bytes of a sample's images and text, and how many images are behind URLs."""
    size, unknown = len((sample.text or "").encode("utf-8", "replace")), 0
    for image in sample.images:
        if isinstance(image, bytes):
            size += len(image)
        elif isinstance(image, str) and "://" in image:
            unknown += 1
        elif isinstance(image, str) and os.path.isfile(image):
            size += os.path.getsize(image)
    return size, unknown


def tell_bytes(size: float) -> str:
    """Such as `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1024
    return f"{size:.3g} TiB"


def tell_seconds(seconds: float) -> str:
    """Such as `35 ms`, `45 s`, `12 min` or `3.4 h`."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
