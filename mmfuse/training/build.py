"""A model from its config, initialised from the config's seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from mmfuse.config import Config, DecoderConfig, GenerationConfig, TaskConfig
from mmfuse.data.batches.values import feature_values
from mmfuse.data.tables.inputs import TableInputs
from mmfuse.data.tables.table import Table
from mmfuse.encoders.text import TextEncoder
from mmfuse.encoders.towers import GivenFeatures, Tower, build_tower
from mmfuse.encoders.vocabularies import train_vocabulary
from mmfuse.fusion import FUSIONS
from mmfuse.heads import HEADS
from mmfuse.heads.decoder import build_decoder
from mmfuse.model import FusionModel
from mmfuse.training.inherit import inherited_options, parent_of, take_over
from mmfuse.training.optimization import checkpoint_gradients
from mmfuse.types import MmfuseError


def build_model(config: Config, table: Table, tell: Callable[[str], None] = lambda _: None) -> FusionModel:
    """The model a config asks for, initialised from its seed, or from another model (`init_from`).

    Each part has a seed of its own, so that two strategies start from the same encoders.

    Args:
        config: As `inherit` gives it.
        table: The rows.
        tell: Told what of another model is not taken over, a line each.

    Raises:
        MmfuseError: An encoder, the fusion or a head cannot be built.
    """
    name = str(config.fusion.get("name"))
    uses = FUSIONS.get(name).uses  # type: ignore[attr-defined]
    FUSIONS.check_options(name, {k: v for k, v in config.fusion.items() if k != "name"})
    parent = parent_of(config, table)
    model = assemble(config, table, *build_towers(config, table, uses), parent)
    if parent is not None:
        take_over(model, parent, tell)
    return model


def build_towers(config: Config, table: Table, uses: tuple[str, ...]) -> tuple[Tower | None, Tower | None]:
    """The text and the image encoder of a config, initialised from its seed; None for one that is not in `uses`.

    Raises:
        MmfuseError: An encoder cannot be built.
    """
    text = image = None
    if "text" in uses and table.manifest.text is not None:
        torch.manual_seed(config.seed)
        text = build_tower("text", config.text_encoder, lambda: table.texts("train"), _features(table, "text"))
    if "image" in uses and table.manifest.image is not None:
        torch.manual_seed(config.seed + 1)
        image = build_tower("image", config.image_encoder, lambda: table.texts("train"), _features(table, "image"))
    return text, image


def _features(table: Table, modality: str) -> GivenFeatures | None:
    """What stands in for a modality, if anything does."""
    spec = getattr(table.manifest, modality)
    if spec.features is None:
        return None
    streamed = table.block is not None
    items = None if streamed else lambda: feature_values(table, modality, table.indices("train"))
    return GivenFeatures(spec.features.width, items)


def assemble(
    config: Config, table: Table, text: Tower | None, image: Tower | None, parent: FusionModel | None = None
) -> FusionModel:
    """The model of a config on these encoders; fusion and heads are initialised from its seed.

    Args:
        config: The run's.
        table: The rows.
        text: The text encoder.
        image: The image encoder.
        parent: Tells the options of the heads that it has too.

    Raises:
        MmfuseError: The fusion or a head cannot be built.
    """
    torch.manual_seed(config.seed + 3)
    tasks = {task: {**_task(table, task), **_head_options(config, table, task, text, parent)} for task in table.labels}
    if not tasks:
        raise MmfuseError(f"{table.manifest.source}: tasks: there is none to train")
    torch.manual_seed(config.seed + 2)
    model = FusionModel(text, image, config.fusion, tasks)
    if config.training.gradient_checkpointing:
        checkpoint_gradients(model, config)
    heads: dict[str, Any] = dict(model.heads.items())
    for task, head in heads.items():
        head.task.fit(partial(table.targets_of, task, "train"))
        if task in config.tasks and config.tasks[task].class_weights == "balanced":
            ours = type(head).weigh.__module__.startswith("mmfuse.heads")  # another may need more than counts
            head.weigh((table.counted_targets if ours else table.targets_of)(task, "train"))
    model.text_sections = table.manifest.text.sections if table.manifest.text else []
    model.inputs = TableInputs.of(table.manifest, model.uses)
    dropout = dataclasses.asdict(config.training.modality_dropout)
    lacks = table.lacks("train")
    learns = len(model.uses) > 1  # modality dropout never hides a row's only modality
    model.accepts_missing = [m for m in model.uses if (learns and dropout[m] > 0) or lacks[m]]
    return model


def _task(table: Table, task: str) -> dict[str, Any]:
    """What the manifest says of a task, as `FusionModel` takes it."""
    spec = table.manifest.tasks[task]
    return {"type": spec.type, "labels": table.labels[task], **({"options": spec.options} if spec.options else {})}


def _head_options(
    config: Config, table: Table, task: str, text: Tower | None, parent: FusionModel | None
) -> dict[str, Any]:
    """What a head's constructor takes beside its labels: a captioning head its decoder."""
    own = config.tasks.get(task, TaskConfig())
    cls: Any = HEADS.get(table.manifest.tasks[task].type)
    if not cls.generates:
        for name, default in (("decoder", DecoderConfig()), ("generation", GenerationConfig())):
            if getattr(own, name) != default:
                raise MmfuseError(f"tasks.{task}.{name}: only a captioning task has one")
    elif own.head:
        raise MmfuseError(f"tasks.{task}.head: a captioning task has none; its options are in decoder and generation")
    if parent is not None and task in parent.heads:
        return inherited_options(parent, task, table.manifest.tasks[task].type, own)
    if not cls.generates:
        return dict(own.head)
    captions = table.captions(task, "train")
    if next(iter(captions), None) is None:
        raise MmfuseError(f"{table.manifest.source}: tasks.{task}: no row of the training split has a caption")
    decoder = build_decoder(
        own.decoder,
        lambda: train_vocabulary(
            caption_vocabulary(config, own.decoder), captions, own.decoder.vocab_size, own.decoder.max_length
        ),
        text if isinstance(text, TextEncoder) else None,
        f"tasks.{task}.decoder",
    )
    return {
        "decoder": decoder,
        "label_smoothing": own.decoder.label_smoothing,
        "scheduled_sampling": own.decoder.scheduled_sampling,
        "generation": own.generation,
    }


def caption_vocabulary(config: Config, decoder: DecoderConfig) -> str:
    """What is trained on the captions: by default bytes, but what was in a run that is to be as those of mmfuse 0.1."""
    stripped = config.text_encoder.vocabulary == "wordpiece_stripped"
    return decoder.vocabulary or ("wordpiece_stripped" if stripped else "byte_bpe")
