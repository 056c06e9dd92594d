"""The vectors of samples: what a tower gives of them, or what the heads see; in memory, and committed to a file."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mmfuse.data.batches.loader import move_batch
from mmfuse.model import FusionModel
from mmfuse.precision import at_precision
from mmfuse.predict.files import Counts, Kept, commit, publish, run_identity, sync
from mmfuse.predict.loop import in_eval_mode, join_features
from mmfuse.predict.names import Names, alone, scratch_of
from mmfuse.predict.predictor import Predictor, Prepared
from mmfuse.predict.samples import to_sample
from mmfuse.predict.studies import Studies
from mmfuse.registry import nearest
from mmfuse.types import Failure, Features, MmfuseError, Prediction, Sample

VECTOR = "vector"
"""Of a result's `tasks["embedding"]`, the base64 of its numbers: float32, little-endian."""
_SUFFIXES = (".parquet", ".npy")


class Embedder:
    """Samples to vectors; one that has none gives a `Failure` with its reason, and none is lost.

    Args:
        predictor: Reads the samples and runs the model. One of a single modality never opens the files of the other.
        what: "text" or "image": pooled by that tower, before the fusion; "fused": what the heads of labels and numbers
            see.

    Attributes:
        dim: Numbers a vector.

    Raises:
        MmfuseError: The model has no such vectors.
    """

    def __init__(self, predictor: Predictor, what: str = "fused"):
        self.model: FusionModel = predictor.model
        check_what(self.model, what)
        if predictor.forward is not None:
            raise MmfuseError("vectors are computed by torch alone, and not by another engine")
        self.what = what
        self._predictor = predictor if what == "fused" else _reading_anything(predictor)
        self.chunk, self.batch_size, self.precision = predictor.chunk, predictor.batch_size, predictor.precision
        tower: Any = self.model.fusion if what == "fused" else getattr(self.model, f"{what}_encoder")
        self.dim: int = tower.out_dim if what == "fused" else tower.dim

    def __call__(self, samples: Iterable[Sample | Mapping[str, Any]]) -> Iterator[np.ndarray | Failure]:
        """Vectors `(dim,)` float32 or failures, in the order of the samples."""
        for _, vectors in self._chunks(samples):
            yield from vectors

    def chunks(self, samples: Iterable[Sample | Mapping[str, Any]]) -> Iterator[list[Prediction | Failure]]:
        """The same as results that can be committed (`mmfuse.predict.files.commit`)."""
        for prepared, vectors in self._chunks(samples):
            yield [
                vector
                if isinstance(vector, Failure)
                else Prediction(sample.id, {"embedding": {VECTOR: _packed(vector)}}, notices=notices)
                for (sample, _, notices), vector in zip(prepared, vectors, strict=True)
            ]

    def _chunks(self, samples: Any) -> Iterator[tuple[list[Prepared], list[np.ndarray | Failure]]]:
        source: Any = samples
        if self.what != "fused" and not isinstance(samples, (Sample, Mapping, str, bytes)):
            source = (self._only(to_sample(given, position)) for position, given in enumerate(samples))
        for prepared in self._predictor.prepared(source):
            found: dict[int, np.ndarray] = {}
            with at_precision(self.model, self.precision):
                for rows, vectors in in_eval_mode(self.model, self._embed, self._predictor.batches(prepared)):
                    found |= zip(rows, vectors, strict=True)
            yield prepared, [self._of(one, found) for one in prepared]

    def _only(self, sample: Sample) -> Sample:
        """The sample without the other modality, and with a problem where it lacks this one."""
        sample = replace(sample, images=()) if self.what == "text" else replace(sample, text=None)
        there = bool(sample.text and sample.text.strip()) if self.what == "text" else bool(sample.images)
        return sample if there or sample.problem else replace(sample, problem=f"no {self.what}")

    def _embed(self, batch: Any) -> tuple[list[int], np.ndarray]:
        vectors = self.model.embed(move_batch(batch, self._predictor.device), self.what)
        return batch["row_ids"].tolist(), vectors.float().cpu().numpy()

    def _of(self, one: Prepared, found: Mapping[int, np.ndarray]) -> np.ndarray | Failure:
        sample, item, _ = one
        if isinstance(item, Failure):
            return item
        vector = found[item.row]
        if not np.isfinite(vector).all():
            return Failure(sample.id, "the model gives no finite number: damaged weights, or half precision?")
        return vector


def encode_samples(
    predictor: Predictor, samples: Iterable[Sample | Mapping[str, Any]]
) -> tuple[Features | None, Features | None]:
    """Text and image `Features` of all samples, in their order, on the CPU; None for a modality that is not used.

    Raises:
        MmfuseError: One cannot be read, or there is none.
    """
    model = predictor.model
    places: list[torch.Tensor] = []
    parts: list[list[Features | None]] = []
    first = 0

    def encode(batch: Any) -> tuple[torch.Tensor, list[Features | None]]:
        found = model.encode(move_batch(batch, predictor.device))
        return batch["row_ids"] + first, [one and Features(*(part.cpu() for part in one)) for one in found]

    for prepared in predictor.prepared(samples):
        failed = next((item for _, item, _ in prepared if isinstance(item, Failure)), None)
        if failed is not None:
            raise MmfuseError(f"row {failed.id}: {failed.reason}")
        with at_precision(model, predictor.precision):
            for rows, found in in_eval_mode(model, encode, predictor.batches(prepared)):
                places.append(rows)
                parts.append(found)
        first += len(prepared)
    if not parts:
        raise MmfuseError("data: no rows")
    text, image = zip(*parts, strict=True)
    with torch.inference_mode():
        return join_features(places, text), join_features(places, image)


def check_what(model: FusionModel, what: str) -> None:
    """Refuse vectors that a model does not have.

    Raises:
        MmfuseError: It names those that it has.
    """
    legal = [*model.uses, "fused"]
    if what == "fused" and hasattr(model.fusion, "combine"):
        name = model.fusion_config["name"]
        raise MmfuseError(
            f"what: the heads of fusion {name!r} see each modality by itself, and no fused vector; legal: "
            f"{', '.join(model.uses)}"
        )
    if what not in legal:
        raise MmfuseError(f"what: {what!r}: the model has no such vectors; {nearest(what, legal)}")


def embed_to_file(
    embedder: Embedder,
    studies: Studies,
    out: Path,
    *,
    fingerprint: str = "",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Counts:
    """The vectors of studies into `out`, and those that have none into `STEM.errors.jsonl`, each with its reason.

    It is committed as predictions are (`predict_to_file`), so that an interrupted run is gone on with.

    Args:
        embedder: Makes them, a chunk at a time.
        studies: The inputs, in the order of the results.
        out: A .parquet file (`id`, `vector`, `notices`), or .npy: `(rows, dim)` float32, with the rows' ids in
            `STEM.ids.jsonl`, a JSON string a line.
        fingerprint: Of the model and of options that change its vectors.
        overwrite: Replace a finished `out`, and forget a killed run.
        progress: Called with (done, errors so far).

    Raises:
        MmfuseError: As `predict_to_file`.
    """
    check_suffix(out)
    identity = run_identity(json.dumps([fingerprint, "embedding", embedder.what]), embedder, studies)
    write = _write_parquet if out.suffix == ".parquet" else _write_npy

    def finish(names: Names) -> None:
        ids = out.with_suffix(".ids.jsonl")
        if out.suffix == ".npy":
            with names.partial.open("rb") as lines, scratch_of(ids).open("wb") as scratch:
                scratch.writelines((json.dumps(json.loads(line)["id"]) + "\n").encode() for line in lines)
                sync(scratch)
            scratch_of(ids).replace(ids)
        publish(names, partial(write, dim=embedder.dim))

    with alone(Names.of(out)) as names:
        return commit(names, embedder, studies, Kept(identity, finish), overwrite, progress=progress)


def check_suffix(out: Path) -> None:
    """Refuse a name that does not tell a format of vectors.

    Raises:
        MmfuseError: It names those that are legal.
    """
    if out.suffix not in _SUFFIXES:
        said = out.suffix or "a name without a suffix"
        raise MmfuseError(f"--out {out}: what {said} means is unknown; legal: {', '.join(_SUFFIXES)}")


def _reading_anything(predictor: Predictor) -> Predictor:
    """The same model, for samples of which one modality is left out on purpose."""
    return Predictor(
        predictor.model,
        batch_size=predictor.batch_size,
        missing="allow",
        device=str(predictor.device),
        threads=predictor.threads,
        chunk=predictor.chunk,
        precision=predictor.precision,
    )


def _packed(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _rows(lines: Iterable[bytes]) -> Iterator[tuple[str, np.ndarray, str]]:
    """Id, vector and notices of committed lines."""
    for line in lines:
        found = json.loads(line.decode("utf-8", "surrogateescape"))
        vector = np.frombuffer(base64.b64decode(found["tasks"]["embedding"][VECTOR]), "<f4")
        yield found["id"].encode("utf-8", "backslashreplace").decode(), vector, "; ".join(found["notices"])


def _write_parquet(handle: Any, lines: Iterable[bytes], dim: int) -> None:
    vector = pa.list_(pa.float32(), dim)
    schema = pa.schema([("id", pa.string()), (VECTOR, vector), ("notices", pa.string())])
    rows = _rows(lines)
    with pq.ParquetWriter(handle, schema) as writer:
        while block := list(islice(rows, 10_000)):
            ids, vectors, notices = zip(*block, strict=True)
            packed = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors), pa.float32()), type=vector)
            writer.write_batch(pa.record_batch([pa.array(ids), packed, pa.array(notices, pa.string())], schema=schema))


def _write_npy(handle: Any, lines: Iterable[bytes], dim: int) -> None:
    start, rows = handle.tell(), 0
    header = {"descr": "<f4", "fortran_order": False}
    np.lib.format.write_array_header_1_0(handle, {**header, "shape": (10**15, dim)})  # as long as any
    begin = handle.tell()
    for _, vector, _ in _rows(lines):
        handle.write(vector.tobytes())
        rows += 1
    end = handle.tell()
    handle.seek(start)
    np.lib.format.write_array_header_1_0(handle, {**header, "shape": (rows, dim)})
    if handle.tell() != begin:
        raise AssertionError("numpy's header has another length")
    handle.seek(end)
