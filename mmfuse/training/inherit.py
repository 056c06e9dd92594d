"""A run that begins from a finished model: what is taken over from it, and what is told or refused."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mmfuse.config import Config, DecoderConfig, GenerationConfig, TaskConfig
from mmfuse.data.tables.table import Table
from mmfuse.effect import SAVED_TOWER
from mmfuse.encoders.saved import check_fit
from mmfuse.heads.classification import ClassificationHead
from mmfuse.heads.multilabel import MultilabelHead
from mmfuse.heads.regression import RegressionHead
from mmfuse.model import FusionModel
from mmfuse.model_folder import folder_config
from mmfuse.types import MmfuseError

_TRAINED_ANEW = ("label_smoothing", "scheduled_sampling", "learning_rate")
"""Keys of a decoder that say how it is trained, not what it is."""
_NAMED = 5
"""Labels that are told by name."""


def inherit(config: Config) -> Config:
    """The config with the towers and the fusion of the model that it begins from; the same one where it begins anew.

    Args:
        config: A run's.

    Raises:
        MmfuseError: There is no such model folder, it lies in the run's own, or the config asks for another fusion.
    """
    if config.init_from is None:
        return config
    folder = Path(config.init_from)
    if folder.resolve().is_relative_to(config.run_dir.resolve()):
        raise MmfuseError(f"init_from: {folder} lies in the run's own folder; choose another name or output_dir")
    theirs = folder_config(folder)["fusion"]
    for name, value in config.fusion.items():
        if name not in theirs or theirs[name] != value:
            has = f"{theirs[name]!r:.60}" if name in theirs else "none"
            raise MmfuseError(
                f"fusion.{name}: {value!r:.60} is asked for, but the model in {folder} has {has}: it is trained on as "
                "it is; leave fusion out"
            )
    name = f"{SAVED_TOWER}{config.init_from}"
    return dataclasses.replace(
        config,
        fusion=dict(theirs),
        text_encoder=dataclasses.replace(config.text_encoder, name=name),
        image_encoder=dataclasses.replace(config.image_encoder, name=name),
    )


def parent_of(config: Config, table: Table) -> FusionModel | None:
    """The model that a run begins from; None where it begins anew.

    Args:
        config: As `inherit` gives it.
        table: The new rows.

    Raises:
        MmfuseError: The folder is incomplete or damaged, or the model reads something else than these rows have.
    """
    if config.init_from is None:
        return None
    parent = FusionModel.from_pretrained(config.init_from)
    for modality in parent.uses:
        spec = getattr(table.manifest, modality)
        theirs = "tower" in getattr(parent, f"{modality}_encoder").spec()
        if spec is not None and theirs != (spec.features is not None):
            has, reads = (f"{modality}s", "features in their place") if theirs else ("features", f"{modality}s")
            raise MmfuseError(
                f"init_from: {table.manifest.source} gives {has}, and the model in {config.init_from} reads {reads}"
            )
    return parent


def parent_hash(folder: str) -> str:
    """sha256 of the weights in a model folder."""
    with (Path(folder) / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inherited_options(parent: FusionModel, task: str, kind: str, own: TaskConfig) -> dict[str, Any]:
    """The options of a head that the parent has too, with those that the config says.

    Args:
        parent: Has a head for this task.
        task: Its name.
        kind: What the manifest says that it is.
        own: What the config says of it.

    Raises:
        MmfuseError: It is of another kind, or the config asks for another decoder.
    """
    theirs: Any = parent.heads[task]
    was = parent.task_config[task]["type"]
    if was != kind:
        raise MmfuseError(f"init_from: tasks.{task} is {kind} here, and {was} in the model: give one another name")
    if not theirs.generates:
        given = {k: v for k, v in parent.task_config[task].items() if k not in ("type", "labels", "options")}
        return {**given, **own.head}
    default = DecoderConfig()
    for item in dataclasses.fields(own.decoder):
        if item.name not in _TRAINED_ANEW and getattr(own.decoder, item.name) != getattr(default, item.name):
            raise MmfuseError(f"tasks.{task}.decoder.{item.name} has no effect with init_from: remove it")
    return {
        "decoder": theirs.decoder,
        "label_smoothing": own.decoder.label_smoothing,
        "scheduled_sampling": own.decoder.scheduled_sampling,
        "generation": theirs.generation if own.generation == GenerationConfig() else own.generation,
    }


def take_over(model: FusionModel, parent: FusionModel, tell: Callable[[str], None]) -> None:
    """Give a new model, which has the parent's towers already, its fusion, missing tokens and what fits of its heads.

    Args:
        model: Its heads know the new labels and scales.
        parent: The model that it begins from.
        tell: Told what is new and what is gone, a line for each task.

    Raises:
        MmfuseError: A head cannot be taken over.
    """
    for part in ("fusion", "missing_tokens"):
        own, theirs = getattr(model, part), getattr(parent, part).state_dict()
        check_fit(own.state_dict(), theirs)
        own.load_state_dict(theirs)
    for task, head in model.heads.items():
        if task in parent.heads:
            _take_head(task, head, parent.heads[task], tell)
        else:
            tell(f"init_from: {task}: the model has no such task; its head is new")
    for task in parent.heads:
        if task not in model.heads:
            tell(f"init_from: {task}: no such task here; the model's head is left out")
    if model.text_sections != parent.text_sections:
        then, now = (", ".join(each.text_sections) or "the whole report" for each in (parent, model))
        tell(f"init_from: the model read {then}, and is now trained on {now}")
    lost = [modality for modality in parent.accepts_missing if modality not in model.accepts_missing]
    if lost:
        tell(
            f"init_from: the model accepts rows without {' or '.join(lost)}; here none is missing in training, so the "
            "new one will not (training.modality_dropout)"
        )


def _take_head(task: str, head: Any, theirs: Any, tell: Callable[[str], None]) -> None:
    """Give a head the weights of the parent's, label by label."""
    if head.labels == theirs.labels:
        if isinstance(head, RegressionHead) and head.task.transform != theirs.task.transform:
            was = theirs.task.transform
            raise MmfuseError(f"init_from: tasks.{task}: transform is {head.task.transform}, and {was} in the model")
        check_fit(head.state_dict(), theirs.state_dict())
        head.load_state_dict(theirs.state_dict())
        if isinstance(head, RegressionHead):
            _change_scale(head, theirs)
        return
    if type(head) not in (ClassificationHead, MultilabelHead):
        raise MmfuseError(
            f"init_from: tasks.{task}: the labels are not the model's, and a {type(head).__name__} does not say which "
            "of its weights belong to which label"
        )
    place = {label: row for row, label in enumerate(theirs.labels)}
    kept = [(row, place[label]) for row, label in enumerate(head.labels) if label in place]
    with torch.no_grad():
        for row, before in kept:
            head.linear.weight[row] = theirs.linear.weight[before]
            head.linear.bias[row] = theirs.linear.bias[before]
    parts = {
        "new": [label for label in head.labels if label not in place],
        "gone": [label for label in theirs.labels if label not in head.labels],
    }
    said = [f"{len(names)} {what} ({_names(names)})" for what, names in parts.items() if names]
    order = [] if said else ["in another order"]
    tell(f"init_from: {task}: {', '.join([f'{len(kept)} labels keep their weights', *said, *order])}")


def _change_scale(head: Any, theirs: Any) -> None:
    """Let a regression say the same numbers on a scale that new targets have set."""
    new, old = head.task, theirs.task
    with torch.no_grad():
        head.linear.weight.mul_(old.scale / new.scale)
        head.linear.bias.mul_(old.scale / new.scale).add_((old.center - new.center) / new.scale)


def _names(names: Sequence[str]) -> str:
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"{name!r:.40}" for name in names[:_NAMED]) + more
