"""Samples to predictions; a sample that cannot be predicted gives its reason, and none is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmfuse.config import GenerationConfig, parse
from mmfuse.data.batches.collate import Item, collate
from mmfuse.data.batches.loader import move_batch
from mmfuse.data.batches.order import ordered_batches
from mmfuse.data.files.locations import own_urls
from mmfuse.data.readers.features import FeatureOptions, from_text, read_features
from mmfuse.data.readers.frames import frames_notice
from mmfuse.data.readers.images import ImageError, ImageOptions, read_first_frame
from mmfuse.effect import check_generation
from mmfuse.encoders.image import ImageEncoder
from mmfuse.encoders.text import TextEncoder
from mmfuse.heads import decide_rows
from mmfuse.model import FusionModel
from mmfuse.precision import Precision, at_precision
from mmfuse.predict.abstain import plan_abstention
from mmfuse.predict.loop import Forward, run_batches
from mmfuse.predict.operating import use_operating_point
from mmfuse.predict.precision import settle
from mmfuse.predict.processes import default_workers
from mmfuse.predict.reading import image_options, text_values
from mmfuse.predict.samples import to_sample
from mmfuse.sections import select_sections
from mmfuse.types import MODALITIES, Batch, Failure, MmfuseError, Prediction, Sample, first_line

CHUNK = 512
_WINDOW = 64
"""Samples of a chunk whose encoded images, where they are bytes, are in memory at once."""
TRUNCATED = "report truncated at"
"""How the notice of a cut report begins."""
Prepared = tuple[Sample, Item | Failure, tuple[str, ...]]
"""A sample without its images' bytes, what is predicted of it or why it cannot be, and what is to be noticed."""


class Predictor:
    """Samples to predictions, in their order; a sample that cannot be predicted gives a `Failure` with its reason.

    A sample is a `Sample` or a dict with `text` and `image` or `images`, and perhaps an `id` (else its position is).
    Images are paths, URLs, encoded bytes, PIL images or numpy arrays, (H, W) or (H, W, 3) of uint8 or of floats in
    [0, 1]; None and NaN are what is missing (`mmfuse.predict.samples`).

    Args:
        model: A trained model.
        batch_size: Samples per forward pass.
        missing: "error": a modality that is missing now but was not in training makes a failure; "allow": it is
            predicted.
        device: Where it runs; default: the first GPU, else the CPU.
        threads: That decode images; default: one per core, at most 8.
        chunk: Samples that are read and predicted together; what is in memory at once.
        abstain: Accuracy that the decisions it stands by had on validation rows, in (0, 1]; the others are marked
            `abstained` (see `mmfuse.predict.abstain`). Default: it stands by all, and nothing is marked.
        operating_point: One of the model's, by name, to decide at; default: its usual thresholds.
        generation: Keys of `mmfuse.config.GenerationConfig` that replace those the model was saved with.
        precision: "fp32", "bf16", "auto" (what is fast on the device: on a CPU both are timed for a few passes of each
            tower, which two runs may find different), or what an earlier one chose.
        forward: Another runtime's forward pass of this model, in place of torch's (`mmfuse.deploy.load_predictor`).

    Attributes:
        precision: The one that holds, a `mmfuse.precision.Precision`.
        chose: Why `auto` chose it, or what is wrong with the one that was asked; None where there is nothing to tell.
        decides_at: A line for each task that has the operating point, to be told.

    Raises:
        MmfuseError: A value is not legal.

    Example:
        predictor = Predictor.from_pretrained("runs/covid/model")
        for prediction in predictor([{"id": "1", "image": "film.jpg", "text": "Cough and fever."}]):
            print(prediction)
    """

    def __init__(
        self,
        model: FusionModel,
        *,
        batch_size: int = 16,
        missing: str = "error",
        device: str | None = None,
        threads: int | None = None,
        chunk: int = CHUNK,
        abstain: float | None = None,
        operating_point: str | None = None,
        generation: dict[str, Any] | None = None,
        precision: str | Precision = "fp32",
        forward: Forward | None = None,
    ):
        if missing not in ("error", "allow"):
            raise MmfuseError(f"missing: {missing!r} is not legal; legal: error, allow")
        if batch_size < 1:
            raise MmfuseError(f"batch_size: {batch_size} is out of range; it must be at least 1")
        self.device, self.model = _to_device(model, device)
        self.precision, self.chose = settle(precision, model, self.device)
        self.forward = forward
        if generation:
            _change_generation(self.model, generation)
        if abstain is not None and operating_point is not None:
            raise MmfuseError(
                "--abstain cannot be combined with --operating-point: confidences are those of the usual thresholds"
            )
        self.decides_at = [] if operating_point is None else use_operating_point(model, operating_point)
        self.abstentions = {} if abstain is None else plan_abstention(model, abstain)
        self.batch_size = batch_size
        self.missing = missing
        self.chunk = chunk
        self.threads = threads or max(1, min(8, default_workers() + 1))
        self._options, self._text_values = image_options(model), text_values(model)

    @classmethod
    def from_pretrained(cls, model: str | Path, **options: Any) -> Predictor:
        """A predictor of a model folder or Hub id; `options` are the constructor's.

        The loaded model is the predictor's own, so batch norms are folded into convolutions.

        Raises:
            MmfuseError: As `FusionModel.from_pretrained`.
        """
        return cls(load_to_predict(model), **options)

    def __call__(self, samples: Iterable[Sample | Mapping[str, Any]]) -> Iterator[Prediction | Failure]:
        """Predictions or failures, in the order of the samples; at most two chunks of them are in memory.

        Raises:
            MmfuseError: It is one sample, and not several.
        """
        for chunk in self.chunks(samples):
            yield from chunk

    def chunks(self, samples: Iterable[Sample | Mapping[str, Any]]) -> Iterator[list[Prediction | Failure]]:
        """The same, chunk by chunk: the next one is read while this one is predicted."""
        return map(self._predict, self.prepared(samples))

    def prepared(self, samples: Iterable[Sample | Mapping[str, Any]]) -> Iterator[list[Prepared]]:
        """The samples chunk by chunk, as they are read: what is predicted, or why it cannot be, and what to notice.

        Raises:
            MmfuseError: It is one sample, and not several.
        """
        if isinstance(samples, (Sample, Mapping, str, bytes)):
            raise MmfuseError(f"a list of samples is expected, not a {type(samples).__name__}: give [sample]")
        source = (to_sample(given, position) for position, given in enumerate(samples))
        with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(self.threads) as pool:

            def read_next() -> list[Prepared]:
                return self._read(source, pool)

            waiting: Future = ahead.submit(read_next)
            while prepared := waiting.result():
                waiting = ahead.submit(read_next)
                yield prepared

    def batches(self, prepared: Sequence[Prepared]) -> Iterator[Batch]:
        """The packed batches of those that can be predicted, on the CPU; `row_ids` are places among `prepared`."""
        good = {item.row: item for _, item, _ in prepared if isinstance(item, Item)}
        lengths = np.array([len(item.input_ids or ()) if isinstance(item, Item) else 0 for _, item, _ in prepared])
        for rows in ordered_batches(list(good), lengths, self.batch_size):
            yield collate([good[row] for row in rows], self._pad())

    def lacking(self, there: dict[str, bool]) -> str | None:
        """Why nothing can be predicted where only these modalities are there; None if it can."""
        for modality in self.model.uses:
            if not there[modality] and self.missing == "error" and modality not in self.model.accepts_missing:
                wanted = self.model.text_sections if modality == "text" else []
                what = f"{modality} ({' or '.join(wanted)} of a report)" if wanted else modality
                return f"no {what}, and the model was trained without missing {modality} (--missing allow)"
        if not any(there[modality] for modality in self.model.uses):
            return f"nothing to predict from: no {' and no '.join(self.model.uses)}"
        return None

    def prepare(self, sample: Sample | Mapping[str, Any]) -> Batch:
        """The packed batch of one sample, on the predictor's device.

        Raises:
            MmfuseError: It cannot be predicted; the message is its id and the reason.
        """
        with ThreadPoolExecutor(1) as pool:
            ((_, item, _),) = self._read(iter([to_sample(sample, 0)]), pool)
        if isinstance(item, Failure):
            raise MmfuseError(f"{item.id}: {item.reason}")
        return move_batch(collate([item], self._pad()), self.device)

    def _pad(self) -> int:
        text = self.model.text_encoder
        return int(text.tokenizer.pad_token_id or 0) if isinstance(text, TextEncoder) else 0  # type: ignore[arg-type]

    def _read(self, source: Iterator[Sample], pool: ThreadPoolExecutor) -> list[Prepared]:
        """Decide for each sample of a chunk whether it can be predicted, and prepare it; no batch is formed before."""
        samples: list[Sample] = []
        items: list[Item | Failure] = []
        notices: list[tuple[str, ...]] = []
        while window := list(islice(source, min(_WINDOW, self.chunk - len(samples)))):
            window = [self._cut_out_sections(sample) for sample in window]
            for item, said in pool.map(self._read_one, range(len(samples), len(samples) + len(window)), window):
                items.append(item)
                notices.append(said)
            samples += map(_without_bytes, window)
        text = self.model.text_encoder
        if isinstance(text, TextEncoder):
            there = [i for i, item in enumerate(items) if isinstance(item, Item) and _has_text(samples[i])]
            ids, cut = text.tokenize([_tokenizable(samples[i].text or "") for i in there]) if there else ([], [])
            for i, row, was_cut in zip(there, ids, cut, strict=True):
                items[i].input_ids = row  # type: ignore[union-attr]
                if was_cut:
                    kept = "" if text.truncation == "head" else f" ({text.truncation} kept)"
                    notices[i] = (f"{TRUNCATED} {text.max_length} tokens{kept}", *notices[i])
        return list(zip(samples, items, notices, strict=True))

    def _cut_out_sections(self, sample: Sample) -> Sample:
        """As in training, a report without any of the sections that the model reads is a missing text."""
        if not self.model.text_sections or not sample.text or not sample.whole_text:
            return sample
        return replace(sample, text=select_sections(sample.text, self.model.text_sections) or None)

    def _read_one(self, row: int, sample: Sample) -> tuple[Item | Failure, tuple[str, ...]]:
        """The item, with its images but without its text; and what is to be noticed of the images."""
        if sample.problem is not None:
            return Failure(sample.id, _in_one_line(sample.problem)), ()
        item, notices = Item(row, sample.id), []
        there = {"text": _has_text(sample), "image": bool(sample.images)}
        if (lacking := self.lacking(there)) is not None:
            return Failure(sample.id, lacking), ()
        try:
            item.values |= self._values(sample)
        except ImageError as error:
            return Failure(sample.id, str(error)), ()
        live = isinstance(self._options, ImageOptions)
        for number, source in enumerate(sample.images if live else (), start=1):
            place = f"{number} of {len(sample.images)}" if len(sample.images) > 1 else ""
            name = _in_one_line(Path(source).name) if isinstance(source, str) else place
            try:
                urls = own_urls(source) if sample.urls is None else sample.urls
                pixels, frames = read_first_frame(source, self._options, urls)  # type: ignore[arg-type]
            except ImageError as error:
                return Failure(sample.id, f"{f'image {name}'.strip()}: {error}"), ()
            item.pixels.append(pixels.transpose(2, 0, 1))
            if frames > 1:
                notices.append(frames_notice(name, frames))
        return item, tuple(notices)

    def _values(self, sample: Sample) -> dict[str, np.ndarray | None]:
        """What stands in for the sample's text and image, where the model reads features.

        Raises:
            ImageError: It is no features, or of another width.
        """
        found: dict[str, np.ndarray | None] = {}
        if self._text_values is not None:
            found["text"] = None
            if _has_text(sample):
                try:
                    found["text"] = from_text(sample.text or "", self._text_values)
                except ImageError as error:
                    raise ImageError(f"text.features: {error}") from error
        if isinstance(self._options, FeatureOptions):
            found["image"] = None
            if len(sample.images) > 1:
                raise ImageError(f"image.features: {len(sample.images)} of them; one is expected")
            for source in sample.images:
                name = f" {_in_one_line(Path(source).name)}" if isinstance(source, str) else ""
                try:
                    urls = own_urls(source) if sample.urls is None else sample.urls
                    found["image"] = read_features(source, self._options, urls)
                except ImageError as error:
                    raise ImageError(f"image.features{name}: {error}") from error
        return found

    def _predict(self, prepared: list[Prepared]) -> list[Prediction | Failure]:
        said: dict[int, dict[str, Any]] = {item.row: {} for _, item, _ in prepared if isinstance(item, Item)}
        broken: set[int] = set()
        with at_precision(self.model, self.precision):
            for rows, found in run_batches(self.forward, self.model, self.batches(prepared), self.device):
                for task, values in found.items():
                    broken |= {int(row) for row, value in zip(rows, values, strict=True) if not _is_finite(value)}
                    for row, decision in zip(rows, self._decide(task, values), strict=True):
                        said[int(row)][task] = decision
        results: list[Prediction | Failure] = []
        for sample, item, notices in prepared:
            if isinstance(item, Failure):
                results.append(item)
                continue
            if item.row in broken:
                results.append(
                    Failure(sample.id, "the model gives no finite number: damaged weights, or half precision?")
                )
                continue
            there = {"text": _has_text(sample), "image": bool(sample.images)}
            present = tuple(m for m in MODALITIES if m in self.model.uses and there[m])
            results.append(Prediction(sample.id, said[item.row], present, notices))
        return results

    def _decide(self, task: str, values: np.ndarray) -> Iterator[dict[str, Any]]:
        head: Any = self.model.heads[task]
        decisions = decide_rows(head, values)
        if task not in self.abstentions:
            return decisions
        marks = self.abstentions[task].mark(head, head.probabilities(values))
        return ({**said, "abstained": mark} for said, mark in zip(decisions, marks, strict=True))


def load_to_predict(model: str | Path) -> FusionModel:
    """A model folder or Hub id as it predicts: batch norms are folded into convolutions.

    Raises:
        MmfuseError: As `FusionModel.from_pretrained`.
    """
    loaded = FusionModel.from_pretrained(model)
    if isinstance(loaded.image_encoder, ImageEncoder):
        try:
            loaded.image_encoder.fold_batch_norm()
        except MmfuseError as error:
            raise MmfuseError(f"{model}: {error}") from error
    return loaded


def _to_device(model: FusionModel, name: str | None) -> tuple[torch.device, FusionModel]:
    """The device of this name (default: a GPU if there is one), and the model there, to be evaluated."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "meta":
            raise NotImplementedError("it computes nothing")
        return device, model.to(device).eval()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if name is None or "out of memory" in str(error):
            raise
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise MmfuseError(
            f"device: {name!r} cannot be used: {first_line(error)[:150]}; available: {', '.join(['cpu', *gpus])}"
        ) from error


def _change_generation(model: FusionModel, values: dict[str, Any]) -> None:
    if not model.captioning:
        raise MmfuseError(f"generation: the model writes no captions; its tasks: {', '.join(model.heads)}")
    for task in model.captioning:
        head: Any = model.heads[task]
        generation = parse(GenerationConfig, [("generation", {**asdict(head.generation), **values})])
        check_generation(values, generation)
        head.set_generation(generation)


def _in_one_line(name: str) -> str:
    """A file's name as it can be written anywhere: line breaks and bytes that are not UTF-8 escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _tokenizable(text: str) -> str:
    """The text without halves of UTF-16 pairs, which JSON can hold and no tokenizer takes."""
    return text.strip().encode(errors="replace").decode()


def _without_bytes(sample: Sample) -> Sample:
    """What is asked of a sample once its images are decoded."""
    if all(isinstance(image, str) for image in sample.images):
        return sample
    return replace(sample, images=("",) * len(sample.images))


def _is_finite(said: np.ndarray | np.void) -> bool:
    """Of a row's logits, or of a caption's record."""
    return bool(np.isfinite(said["score"] if said.dtype.names else said).all())


def _has_text(sample: Sample) -> bool:
    return bool(sample.text and sample.text.strip())
