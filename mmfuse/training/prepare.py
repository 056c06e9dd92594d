"""Rows, model, and the rows as the model reads them: all that a run has before its first step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from accelerate import Accelerator
from rich.console import Console

from mmfuse.config import Config
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.batches.stream import Stream, StreamPlan, plan_stream, workers_of
from mmfuse.data.load import load_table
from mmfuse.data.shards.table import ShardedTable
from mmfuse.data.tables.gaps import refuse_gaps
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.data.tables.table import Table
from mmfuse.evaluation.chosen import check_operating_points, chosen_metrics
from mmfuse.evaluation.report_metrics import check_report_metrics
from mmfuse.heads.captioning import CaptioningHead
from mmfuse.heads.decoder import CaptionDecoder
from mmfuse.metrics.captions import meteor_lite, tokens_of
from mmfuse.model import FusionModel
from mmfuse.predict import count_cut_texts, pair_reader, prepare_pairs, tell_cut_texts, wait_for_all
from mmfuse.pulse import now
from mmfuse.training.batch_norm import check_images
from mmfuse.training.build import build_model
from mmfuse.training.choices import check_choices
from mmfuse.training.lone_images import check_lone_images
from mmfuse.training.monitor import check_monitor
from mmfuse.training.precision import set_precision
from mmfuse.training.trained import freeze_towers
from mmfuse.types import MmfuseError


def set_up(
    config: Config, accelerator: Accelerator, workers: int, console: Console, folder: Path | None = None
) -> tuple[Table, FusionModel, PairDataset, Stream | None]:
    """Rows, model, and the rows as it reads them: all that can be wrong before training begins.

    Args:
        config: The run's.
        accelerator: Its.
        workers: Processes that read images.
        console: Told what was found.
        folder: The run's, where a chosen precision is kept; None: it is not.
    """
    manifest = load_manifest(config.data.manifest, config.data.root)
    now("reading the rows")
    unknown = sorted(set(config.tasks) - set(manifest.tasks))  # one that data.tasks leaves out is no mistake
    if unknown:
        raise MmfuseError(
            f"tasks.{unknown[0]}: no such task in {config.data.manifest}; legal: {', '.join(manifest.tasks)}"
        )
    check_report_metrics(manifest)
    table = load_table(manifest, tasks=config.data.tasks, fold=config.data.fold, damaged=config.data.damaged)
    plan = _plan(table, config, accelerator.num_processes) if isinstance(table, ShardedTable) else None
    gaps = refuse_gaps(table)
    now("building the model")
    told: list[str] = []
    model = build_model(config, table, told.append)
    for task in model.captioning:  # else what scores captions would be missed after the training
        meteor_lite()
        tokens_of(manifest.tasks[task].language)
    check_monitor(config.training.monitor, model, table)
    check_choices(config, model, table)
    chosen_metrics(model, config.tasks, config.training.monitor)
    check_operating_points(model, config.tasks, table)
    if model.image_encoder is not None:
        check_images(config, accelerator.num_processes, table.lacks("train")["image"] > 0)
    told = [_summary(model, table, accelerator), *told, *map(str, gaps), *_tell_cut_captions(model, table)]
    console.print("\n".join(told))
    set_precision(model.to(accelerator.device), config, accelerator, console, folder)
    if isinstance(table, ShardedTable) and plan is not None:
        console.print(_tell_stream(table, plan, config, workers, model))
        pairs, stream = _prepare_stream(model, table, config, plan, console)
    else:
        pairs, stream = prepare(model, table, config, workers, console), None
        wait_for_all()  # a machine with a cache of its own may have computed for hours
    check_lone_images(model, pairs, config, accelerator.num_processes, stream)
    return table, model, pairs, stream


def _tell_cut_captions(model: FusionModel, table: Table) -> Iterator[str]:
    """Of each task with training captions longer than its decoder writes, how many there are."""
    for task, head in model.heads.items():
        if not isinstance(head, CaptioningHead):
            continue
        decoder = cast(CaptionDecoder, head.decoder)
        lengths = decoder.lengths(table.captions(task, "train"))
        cut = sum(length > decoder.max_length for length in lengths)
        if cut:
            yield (
                f"{task}: {cut} of {len(lengths)} training captions are longer than decoder.max_length "
                f"{decoder.max_length} and cut; the longest has {max(lengths)} tokens"
            )


def _plan(table: ShardedTable, config: Config, world: int) -> StreamPlan:
    """The plan of a stream of the table's training rows."""
    counts, where = table.counts(), table.shards.url
    if not counts.get("train"):
        raise MmfuseError(f"{where}: no shard is of split train")
    data = config.data
    return plan_stream(counts["train"], data.lanes, data.shuffle_buffer, config.training.batch_size, world)


def _tell_stream(table: ShardedTable, plan: StreamPlan, config: Config, workers: int, model: FusionModel) -> str:
    """How the training rows are read, in words; damaged shards are named."""
    shards, own, used = table.shards, plan.lanes // plan.world, workers_of(plan, workers)
    train, window = shards.of("train"), plan.window * plan.batch_size
    held = max(1, used // own) * min(window * own, plan.rows) * sum(shard.bytes for shard in train) / plan.rows
    asked = f" (data.lanes {config.data.lanes}, for {plan.world} processes)" if plan.lanes != config.data.lanes else ""
    lowered = f" (of {workers}, to share {own} lanes evenly)" if used < workers else ""
    lowered += (
        f" ({used // own} to a lane: each reads it all; more data.lanes would be read once)" if used > own else ""
    )
    lines = [
        f"streamed from {shards.url}: {len(train)} shards, {plan.lanes} lanes{asked}, windows of {window} rows, "
        f"num_workers {used}{lowered}; about {held / 2**20:.0f} MiB of encoded rows are held a process"
    ]
    lines += [
        f"left out, damaged: {file} ({shard.rows} rows): {what}" for file, (shard, what) in shards.damaged.items()
    ]
    if config.cache.enabled and None in (config.text_encoder.first_trained, config.image_encoder.first_trained):
        lines.append("frozen encoders run live: features of streamed rows are not kept")
    if model.captioning:
        lines.append("no caption baselines: they compare with every training row, and these are streamed")
    return "\n".join(lines)


def _prepare_stream(
    model: FusionModel, table: ShardedTable, config: Config, plan: StreamPlan, console: Console
) -> tuple[PairDataset, Stream]:
    """The evaluated rows and the streamed ones, as the model reads them."""
    freeze_towers(model, config)
    dropout, augmentation = dataclasses.asdict(config.training.modality_dropout), config.training.augmentation
    pairs = prepare_pairs(model, table, augmentation=augmentation)  # refuses what cannot be done
    cut = count_cut_texts(model, pairs, range(len(table)))
    if cut is not None:
        console.print(f"validation and test: {tell_cut_texts(cut)}")
    return pairs, Stream(table, pair_reader(model, dropout, augmentation, config.seed), plan, config.seed)


def prepare(
    model: FusionModel,
    table: Table,
    config: Config,
    workers: int,
    console: Console,
    progress: Callable[[str, int, int], None] | None = None,
) -> PairDataset:
    """The rows as the model reads them; what is said of them goes to the console, also without `progress`."""
    freeze_towers(model, config)  # one that is trained later is not cached

    def report(modality: str, done: int, total: int) -> None:
        now(f"features of the frozen {modality} encoder", done, total)
        if progress is not None:
            progress(modality, done, total)
        if done >= total:
            console.print(f"features of the frozen {modality} encoder: {total} computed")

    pairs = prepare_pairs(
        model,
        table,
        cache=(config.cache.dir or True) if config.cache.enabled else False,
        cache_dtype=config.cache.dtype,
        modality_dropout=dataclasses.asdict(config.training.modality_dropout),
        augmentation=config.training.augmentation,
        seed=config.seed,
        num_workers=workers,
        progress=report,
    )
    cut = count_cut_texts(model, pairs, range(len(table)))
    if cut is not None:
        console.print(tell_cut_texts(cut))
    if config.training.augmentation.flip == "swap" and pairs.augmentation is not None:
        able, rows = int(pairs.augmentation.can_flip.sum()), len(table.indices("train"))
        others = "; the words of the others have no mirror image" if able < rows else ""
        console.print(f"flip: swap: {able} of {rows} training rows can be flipped{others}")
    return pairs


def _summary(model: FusionModel, table: Table, accelerator: Accelerator) -> str:
    sizes = {
        "all": sum(p.numel() for p in model.parameters()),
        "fusion": sum(p.numel() for p in model.fusion.parameters()),
    }
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return (
        f"{table.manifest.name}: {', '.join(f'{n} {name}' for name, n in table.counts().items())} rows; tasks: "
        f"{', '.join(table.labels)}\n"
        f"{model.fusion_config['name']}: {sizes['all'] / 1e6:.2f} M parameters, {trained / 1e6:.2f} M trained, "
        f"{sizes['fusion'] / 1e6:.2f} M in the fusion; {accelerator.device}, num_processes: {accelerator.num_processes}"
    )
