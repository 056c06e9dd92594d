"""`mmfuse export`: a model in another runtime's format, verified against torch before it is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import Manifest, load_manifest
from mmfuse.deploy.calibrate import calibration_rows, quantize
from mmfuse.deploy.dense import DenseModel
from mmfuse.deploy.folder import RECIPE, copy_beside, model_identity, write_recipe, written_whole
from mmfuse.deploy.kept import form_name, form_place, verify_on_random
from mmfuse.deploy.onnx import OnnxEngine, write_onnx
from mmfuse.deploy.openvino import OpenVinoEngine, check_precision, convert
from mmfuse.deploy.verify import compare_on_random, compare_on_rows, judge
from mmfuse.evaluation.evaluate import check_tasks, summed
from mmfuse.model import FusionModel
from mmfuse.model_folder import find_folder
from mmfuse.precision import PRECISIONS
from mmfuse.predict import Forward, load_to_predict, prepare_pairs
from mmfuse.pulse import now
from mmfuse.types import MmfuseError

TARGETS = {"onnx": ("fp32",), "openvino": PRECISIONS["openvino"]}
"""What a model is exported to, and in which precision."""
SPLIT = "test"


@dataclass(frozen=True)
class Wanted:
    """An export that was asked for.

    Attributes:
        to: "onnx" or "openvino".
        precision: "fp32", "bf16" or "int8".
        calibrate: Manifest whose training rows give the ranges of int8.
        verify: Manifest whose test rows both sides are scored on; of int8 by default that of `calibrate`.
        fold: Of the manifest, which one is the test set.
        tolerance: The share of decisions that may change; default: of the precision (`mmfuse.deploy.verify`).
    """

    to: str
    precision: str = "fp32"
    calibrate: str | Path | Manifest | None = None
    verify: str | Path | Manifest | None = None
    fold: int | None = None
    tolerance: float | None = None

    def check(self) -> None:
        """Refuse what is not legal before a model is loaded.

        Raises:
            MmfuseError: There is such a thing.
        """
        if self.to not in TARGETS:
            raise MmfuseError(f"--to {self.to!r} is not legal; legal: {', '.join(TARGETS)}")
        if self.precision not in TARGETS[self.to]:
            raise MmfuseError(
                f"--precision {self.precision!r} is not legal with --to {self.to}; legal: {', '.join(TARGETS[self.to])}"
            )
        if (self.calibrate is not None) != (self.precision == "int8"):
            raise MmfuseError(
                "--precision int8 requires --calibrate MANIFEST, of whose training rows it takes the ranges"
                if self.precision == "int8"
                else "--calibrate requires --precision int8"
            )
        if self.tolerance is not None and not 0 <= self.tolerance <= 1:
            raise MmfuseError(f"--tolerance {self.tolerance:g} is out of range; a share in [0, 1] is expected")
        for option, value in (("--fold", self.fold), ("--tolerance", self.tolerance)):
            if value is not None and self.rows_of is None:
                raise MmfuseError(f"{option} requires --verify MANIFEST: it says nothing of random inputs")
        if self.to == "openvino":
            check_precision(self.precision)

    @property
    def rows_of(self) -> str | Path | Manifest | None:
        """The manifest that it is verified on; None for random inputs."""
        return self.calibrate if self.verify is None else self.verify


@dataclass(frozen=True)
class Exported:
    """What came of it.

    Attributes:
        folder: Where it is.
        recipe: What `export.json` says.
    """

    folder: Path
    recipe: dict[str, Any] = field(repr=False)


def export_model(
    model: str | Path,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **wanted: Any,
) -> Exported:
    """Export a model, and verify it against torch before it is kept.

    Args:
        model: A model folder or Hub id.
        out: Folder for it; default: beside the model (`exported/`), where `predict --engine` finds it.
        overwrite: Replace an exported model in `out`.
        progress: Called with (rows done, rows) while both sides are scored.
        **wanted: See `Wanted`: `to`, `precision`, `calibrate`, `verify`, `fold`, `tolerance`.

    Raises:
        MmfuseError: An extra is not installed, the model cannot be exported, or differs from torch by more than is
            tolerated; nothing is kept then.

    Example:
        export_model("runs/shop/model", to="openvino", precision="int8", calibrate="shop.yaml")
    """
    asked = Wanted(**wanted)
    asked.check()
    folder = find_folder(str(model), {})
    target = None if out is None else Path(out)
    if target is not None:
        _check_free(target, overwrite)
    loaded = load_to_predict(folder)
    dense = DenseModel(loaded)
    identity = model_identity(folder)
    where: AbstractContextManager[Path] = (
        form_place(folder, identity, form_name(asked.to, asked.precision)) if target is None else nullcontext(target)
    )
    with where as place, written_whole(place) as scratch:
        said = _write(dense, scratch, asked, progress)
        copy_beside(folder, scratch)
        recipe = write_recipe(scratch, dense, asked.to, asked.precision, identity, said)
    return Exported(place, recipe)


def _write(
    dense: DenseModel, scratch: Path, asked: Wanted, progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    """The model's files, verified; gives what the recipe says of both."""
    said: dict[str, Any] = {}
    now("exporting the model")
    if asked.to == "onnx":
        write_onnx(dense, scratch / "model.onnx")
        forward: Forward = OnnxEngine(dense, scratch)
    else:
        with tempfile.TemporaryDirectory(dir=scratch) as below:
            write_onnx(dense, Path(below) / "model.onnx")
            convert(Path(below) / "model.onnx", Path(below) if asked.precision == "int8" else scratch)
            if asked.precision == "int8":
                said["calibration"] = _calibrated(dense, Path(below), scratch, asked)
        forward = OpenVinoEngine(dense, scratch, asked.precision)
    said["verified"] = {asked.precision: _verified(dense.model, forward, asked, progress)}
    if asked.to == "openvino" and asked.precision != "int8":  # predict takes this form for both
        said["verified"] |= verify_on_random(dense, scratch, but=asked.precision)
    return said


def _calibrated(dense: DenseModel, source: Path, folder: Path, asked: Wanted) -> dict[str, Any]:
    assert asked.calibrate is not None
    pairs = _pairs(dense.model, asked.calibrate, asked.fold, "--calibrate")
    rows = calibration_rows(pairs)
    quantize(dense, source, pairs, rows, folder)
    return {"manifest": pairs.table.manifest.name, "split": "train", "rows": len(rows)}


def _verified(
    model: FusionModel, forward: Forward, asked: Wanted, progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    noise = compare_on_random(model, forward)
    judge(noise, asked.precision, asked.tolerance, on_rows=False)
    if asked.rows_of is None:
        return {"on": "random inputs", "tasks": noise}
    pairs = _pairs(model, asked.rows_of, asked.fold, "--verify")
    rows = pairs.table.indices(SPLIT)
    if not rows:
        raise MmfuseError(f"--verify: {pairs.table.manifest.source}: there are no {SPLIT} rows")
    found = compare_on_rows(model, forward, pairs, rows, summed(progress, len(rows)))
    judge(found, asked.precision, asked.tolerance, on_rows=True)
    return {"on": f"{pairs.table.manifest.name}, {SPLIT}", "tasks": found}


def _pairs(model: FusionModel, source: str | Path | Manifest, fold: int | None, option: str) -> PairDataset:
    """A manifest's rows as the model reads them."""
    manifest = source if isinstance(source, Manifest) else load_manifest(source)
    labels = {task: list(options["labels"]) for task, options in model.task_config.items()}
    try:
        check_tasks(model, manifest, list(labels))
        return prepare_pairs(model, load_table(manifest, tasks=list(labels), labels=labels, fold=fold))
    except MmfuseError as error:
        raise MmfuseError(f"{option}: {error}") from error


def _check_free(out: Path, overwrite: bool) -> None:
    if out.is_symlink():  # the link would be replaced, not what it leads to
        raise MmfuseError(f"--out {out}: is a link; name the folder itself")
    if not out.exists():
        return
    if Path.cwd().is_relative_to(out.resolve()):
        raise MmfuseError(f"--out {out}: is the folder you are in, which would be replaced; name a new one")
    if not out.is_dir() or (any(out.iterdir()) and not (out / RECIPE).is_file()):
        raise MmfuseError(f"--out {out}: there is something else; choose another folder")
    if (out / RECIPE).is_file() and not overwrite:
        raise MmfuseError(f"--out {out}: exists already; choose another folder, or --overwrite")


def told(exported: Exported) -> list[str]:
    """Lines on what was exported, for a terminal."""
    recipe = exported.recipe
    lines = [f"{recipe['target']}, {recipe['precision']}: {exported.folder}"]
    if "calibration" in recipe:
        of = recipe["calibration"]
        lines.append(f"ranges of {of['rows']} training rows of {of['manifest']}")
    for verified in recipe["verified"].values():
        for task, of in verified["tasks"].items():
            changed = f", {of['changed']:.2%} of decisions changed" if "scores" in of else ""
            lines.append(
                f"{task}, {of['rows']} rows of {verified['on']}: largest difference to torch "
                f"{of['largest_difference']:.2g} in logits up to {of['largest_logit']:.3g}{changed}"
            )
            for name, (ours, theirs) in of.get("scores", {}).items():
                if ours is not None and theirs is not None:
                    lines.append(f"  {name}: torch {ours:.4f}, exported {theirs:.4f}")
    return lines
