"""A training run from its config to its model folder."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import GradientAccumulationPlugin
from rich.console import Console

import mmfuse
from mmfuse.config import (
    Config,
    DecoderConfig,
    GenerationConfig,
    TaskConfig,
    config_from_dict,
    load_config,
    read_small,
)
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.batches.stream import Stream, StreamPlan, plan_stream, workers_of
from mmfuse.data.load import load_table
from mmfuse.data.shards.folder import index_bytes
from mmfuse.data.shards.table import ShardedTable
from mmfuse.data.tables.gaps import refuse_gaps, scored_split
from mmfuse.data.tables.inputs import TableInputs
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.data.tables.table import Table
from mmfuse.encoders.image import ImageEncoder, build_image_encoder
from mmfuse.encoders.text import TextEncoder, build_text_encoder, train_wordpiece
from mmfuse.evaluation.calibration import fit_temperature, selective_curve, tune_thresholds
from mmfuse.evaluation.evaluate import add_caption_baselines, score_rows, write_report
from mmfuse.evaluation.plots import plot_learning_curve
from mmfuse.evaluation.report_metrics import check_report_metrics
from mmfuse.fusion import FUSIONS, RESERVED
from mmfuse.heads import confidences
from mmfuse.heads.decoder import build_decoder
from mmfuse.model import FusionModel
from mmfuse.predict import (
    count_cut_texts,
    default_workers,
    join_processes,
    pair_reader,
    prepare_pairs,
    table_logits,
    tell_cut_texts,
)
from mmfuse.pulse import now
from mmfuse.registry import load_plugin, nearest
from mmfuse.training.batch_norm import check_images, check_sync
from mmfuse.training.card import model_card
from mmfuse.training.checkpoint import room_in
from mmfuse.training.claim import claimed
from mmfuse.training.launch import check_precision, heed_launch
from mmfuse.training.lone_images import check_lone_images
from mmfuse.training.loop import Trainer
from mmfuse.training.monitor import check_monitor
from mmfuse.training.optimization import checkpoint_gradients, is_frozen_for_good
from mmfuse.training.sharded import shard_on_cpu, tell_sharding
from mmfuse.training.zero import check_zero, tell_zero
from mmfuse.types import MISSING_CLASS, MmfuseError, SelectiveCurve


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        dir: The run's folder.
        model_dir: The model folder in it.
        report: What `evaluate` says of the test split (of the validation split where no test row has a target).
        steps: Optimiser steps that were done.
        best_step: The step whose weights were kept.
    """

    dir: Path
    model_dir: Path
    report: dict[str, Any]
    steps: int
    best_step: int


def train(config: Config | str | Path | dict[str, Any], *, restart: bool = False) -> Run:
    """Train a model, or go on with a run that was interrupted.

    Args:
        config: A config, the path of one, or its values.
        restart: Throw away what is in the run's folder.

    Returns:
        The run, with the test scores. Its folder holds the resolved config, the manifest, the splits, versions,
        `metrics.jsonl`, the learning curve, the test report and the model folder.

    Raises:
        MmfuseError: The config, the manifest or the data are not legal, or the folder holds another run.
    """
    if not isinstance(config, Config):
        config = config_from_dict(config) if isinstance(config, dict) else load_config(config)
    for plugin in config.plugins:
        load_plugin(plugin)
    config, asked = heed_launch(config), config
    run_dir = config.run_dir
    with (
        open_accelerator(config) as accelerator,
        room_in(run_dir),
        claimed(run_dir, config, restart, accelerator) as begin,
    ):
        console = Console(stderr=True, quiet=not accelerator.is_main_process, highlight=False, soft_wrap=True)
        if config != asked:
            precision = config.training.mixed_precision
            console.print(f"training.mixed_precision: {precision}, as ACCELERATE_MIXED_PRECISION says")
        workers = default_workers() if config.data.num_workers is None else config.data.num_workers
        table, model, pairs, stream = set_up(config, accelerator, workers, console)
        if accelerator.is_main_process:
            _describe(run_dir, config, table)
        workers = workers_of(stream.plan, workers) if stream else workers if pairs.live_images else 0
        trainer = Trainer(model, pairs, config, accelerator, run_dir, workers, stream=stream)
        if accelerator.is_fsdp2:
            console.print(tell_sharding(trainer.model))
        if trainer.zero:
            console.print(tell_zero(accelerator))
        accelerator.init_trackers(config.name)
        begin()
        state = trainer.fit()
        for tracker in accelerator.trackers:  # end_training() would also leave the process group, still needed here
            tracker.finish()
        report = _finish(trainer.model, pairs, trainer, run_dir, config, accelerator)
        return Run(run_dir, run_dir / "model", report, state.step, state.best_step)


def set_up(
    config: Config, accelerator: Accelerator, workers: int, console: Console
) -> tuple[Table, FusionModel, PairDataset, Stream | None]:
    """Rows, model, and the rows as it reads them: all that can be wrong before training begins."""
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
    model = build_model(config, table)
    check_monitor(config.training.monitor, model, table)
    if model.image_encoder is not None:
        check_images(config, accelerator.num_processes, table.lacks("train")["image"] > 0)
    console.print("\n".join([_summary(model, table, accelerator), *map(str, gaps)]))
    if isinstance(table, ShardedTable) and plan is not None:
        console.print(_tell_stream(table, plan, config, workers, model))
        pairs, stream = _prepare_stream(model.to(accelerator.device), table, config, plan, console)
    else:
        with accelerator.main_process_first():
            pairs, stream = prepare(model.to(accelerator.device), table, config, workers, console), None
    check_lone_images(model, pairs, config, accelerator.num_processes, stream)
    return table, model, pairs, stream


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
    held = min(window * own, plan.rows) * sum(shard.bytes for shard in train) / plan.rows
    asked = f" (data.lanes {config.data.lanes}, for {plan.world} processes)" if plan.lanes != config.data.lanes else ""
    lowered = f" (of {workers}, to share {own} lanes evenly)" if used < workers else ""
    lines = [
        f"streamed from {shards.url}: {len(train)} shards, {plan.lanes} lanes{asked}, windows of {window} rows, "
        f"num_workers {used}{lowered}; about {held / 2**20:.0f} MiB of encoded rows are held a process"
    ]
    lines += [
        f"left out, damaged: {file} ({shard.rows} rows): {what}" for file, (shard, what) in shards.damaged.items()
    ]
    if config.cache.enabled and any(is_frozen_for_good(own) for own in (config.text_encoder, config.image_encoder)):
        lines.append("frozen encoders run live: features of streamed rows are not kept")
    if model.captioning:
        lines.append("no caption baselines: they compare with every training row, and these are streamed")
    return "\n".join(lines)


def _prepare_stream(
    model: FusionModel, table: ShardedTable, config: Config, plan: StreamPlan, console: Console
) -> tuple[PairDataset, Stream]:
    """The evaluated rows and the streamed ones, as the model reads them."""
    _freeze_for_good(model, config)
    dropout, augmentation = dataclasses.asdict(config.training.modality_dropout), config.training.augmentation
    pairs = prepare_pairs(model, table, augmentation=augmentation)  # refuses what cannot be done
    cut = count_cut_texts(model, pairs, range(len(table)))
    if cut is not None:
        console.print(f"validation and test: {tell_cut_texts(cut)}")
    return pairs, Stream(table, pair_reader(model, dropout, augmentation, config.seed), plan, config.seed)


@contextmanager
def open_accelerator(config: Config):
    """An Accelerator of its own; the next run in this process may ask for another precision."""
    there = [str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()]
    for name in config.training.trackers:  # Accelerate leaves out in silence what is not installed
        if name not in there:
            raise MmfuseError(f"training.trackers: {name!r} is not installed or not known; {nearest(name, there)}")
    check_zero(config)
    plain = join_processes().distributed_type
    kwargs = DistributedDataParallelKwargs(find_unused_parameters=True)
    try:
        accelerator = Accelerator(
            mixed_precision=config.training.mixed_precision or "no",
            log_with=list(config.training.trackers) or None,  # type: ignore[arg-type]
            project_dir=str(config.run_dir),
            kwargs_handlers=[kwargs],
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # the loop's own, or it is done twice
        )
    except (ValueError, ImportError) as error:
        raise MmfuseError(f"training.trackers or training.mixed_precision: {str(error).splitlines()[0]}") from error
    try:
        shard_on_cpu(accelerator)
        check_precision(config, accelerator.device)
        check_sync(config, accelerator)
        yield accelerator
    finally:
        accelerator.free_memory()
        AcceleratorState._reset_state()
        PartialState().distributed_type = plain  # Accelerate leaves FSDP there, and then takes its plug-in for set


def build_model(config: Config, table: Table) -> FusionModel:
    """The model a config asks for, initialised from its seed.

    Each part has a seed of its own, so that two strategies start from the same encoders.

    Raises:
        MmfuseError: An encoder, the fusion or a head cannot be built.
    """
    name = str(config.fusion.get("name"))
    uses = FUSIONS.get(name).uses  # type: ignore[attr-defined]
    FUSIONS.check_options(name, {k: v for k, v in config.fusion.items() if k != "name"}, RESERVED)
    return assemble(config, table, *build_towers(config, table, uses))


def build_towers(config: Config, table: Table, uses: tuple[str, ...]) -> tuple[TextEncoder | None, ImageEncoder | None]:
    """The text and the image encoder of a config, initialised from its seed; None for one that is not in `uses`.

    Raises:
        MmfuseError: An encoder cannot be built.
    """
    text = image = None
    if "text" in uses and table.manifest.text is not None:
        torch.manual_seed(config.seed)
        text = build_text_encoder(config.text_encoder, table.texts("train"))
    if "image" in uses and table.manifest.image is not None:
        torch.manual_seed(config.seed + 1)
        image = build_image_encoder(config.image_encoder)
    return text, image


def assemble(config: Config, table: Table, text: TextEncoder | None, image: ImageEncoder | None) -> FusionModel:
    """The model of a config on these encoders; fusion and heads are initialised from its seed.

    Raises:
        MmfuseError: The fusion or a head cannot be built.
    """
    torch.manual_seed(config.seed + 3)
    tasks = {
        task: {"type": table.manifest.tasks[task].type, "labels": names, **_head_options(config, table, task, text)}
        for task, names in table.labels.items()
    }
    if not tasks:
        raise MmfuseError(f"{table.manifest.source}: tasks: there is none to train")
    torch.manual_seed(config.seed + 2)
    model = FusionModel(text, image, config.fusion, tasks)
    if config.training.task_weights == "uncertainty":
        model.learn_task_weights()
    if config.training.gradient_checkpointing:
        checkpoint_gradients(model, config)
    heads: dict[str, Any] = dict(model.heads.items())
    for task, head in heads.items():
        if task in config.tasks and config.tasks[task].class_weights == "balanced":
            head.weigh(table.targets_of(task, "train"))
    model.text_sections = table.manifest.text.sections if table.manifest.text else []
    model.inputs = TableInputs.of(table.manifest, model.uses)
    dropout = dataclasses.asdict(config.training.modality_dropout)
    lacks = table.lacks("train")
    learns = len(model.uses) > 1  # modality dropout never hides a row's only modality
    model.accepts_missing = [m for m in model.uses if (learns and dropout[m] > 0) or lacks[m]]
    return model


def _head_options(config: Config, table: Table, task: str, text: TextEncoder | None) -> dict[str, Any]:
    """What a head's constructor takes beside its labels: a captioning head its decoder."""
    own = config.tasks.get(task, TaskConfig())
    if table.manifest.tasks[task].type != "captioning":
        for name, default in (("decoder", DecoderConfig()), ("generation", GenerationConfig())):
            if getattr(own, name) != default:
                raise MmfuseError(f"tasks.{task}.{name}: only a captioning task has one")
        return {}
    captions = table.captions(task, "train")
    if next(iter(captions), None) is None:
        raise MmfuseError(f"{table.manifest.source}: tasks.{task}: no row of the training split has a caption")
    decoder = build_decoder(
        own.decoder,
        lambda: train_wordpiece(captions, own.decoder.vocab_size, own.decoder.max_length),
        text,
        f"tasks.{task}.decoder",
    )
    return {
        "decoder": decoder,
        "label_smoothing": own.decoder.label_smoothing,
        "scheduled_sampling": own.decoder.scheduled_sampling,
        "generation": own.generation,
    }


def prepare(
    model: FusionModel,
    table: Table,
    config: Config,
    workers: int,
    console: Console,
    progress: Callable[[str, int, int], None] | None = None,
) -> PairDataset:
    """The rows as the model reads them; what is said of them goes to the console, also without `progress`."""
    _freeze_for_good(model, config)

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


def _freeze_for_good(model: FusionModel, config: Config) -> None:
    for tower, own in ((model.text_encoder, config.text_encoder), (model.image_encoder, config.image_encoder)):
        if tower is not None:  # one that is trained later is not cached
            tower.freeze(is_frozen_for_good(own))


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


def _describe(run_dir: Path, config: Config, table: Table) -> None:
    """Write what a reader needs to know how this run came about."""
    manifest = table.manifest
    (run_dir / "manifest.yaml").write_bytes(read_small(manifest.source))
    if isinstance(table, ShardedTable):  # which rows are in which split, the shards' names and hashes say
        used = table.shards
        (run_dir / "shards.json").write_bytes(
            index_bytes(used.shards, used.labels, used.tasks, used.source, used.errors)
        )
    else:
        table.save_splits(run_dir / "splits.csv")
    synonyms = config.training.augmentation.text.synonyms
    if synonyms:
        shutil.copyfile(synonyms, run_dir / "synonyms.yaml")
    facts = {
        "command": sys.argv,
        "manifest": {
            "path": manifest.source,
            "sha256": manifest.sha256,
            "version": manifest.version,
            "rows": sum(table.counts().values()),
        },
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "versions": {
            name: version(name)
            for name in ("mmfuse", "torch", "transformers", "timm", "accelerate", "pillow", "datasets", "numpy")
        },
    }
    if isinstance(table, ShardedTable):
        damaged = {file: what for file, (_, what) in table.shards.damaged.items()}
        facts["shards"] = {"url": table.shards.url, "identity": table.shards.identity, "damaged": damaged}
    (run_dir / "environment.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def commit() -> str | None:
    """The commit of the mmfuse that runs, where it runs from a checkout."""
    command = ["git", "-C", str(Path(mmfuse.__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None


def _finish(
    model: FusionModel, pairs: PairDataset, trainer: Trainer, run_dir: Path, config: Config, accelerator: Accelerator
) -> dict[str, Any]:
    """Calibrate on validation, score the test split, write the model folder."""
    options: Any = {"batch_size": 2 * config.training.batch_size, "num_workers": trainer.num_workers}
    model.eval()
    if trainer.validation_rows:
        calibrate(model, pairs, trainer.validation_rows, table_logits(model, pairs, trainer.validation_rows, **options))
    split = scored_split(pairs.table)
    rows = pairs.table.indices(split)
    logits = table_logits(model, pairs, rows, **options)
    scores = score_rows(model, pairs, rows, logits)
    add_caption_baselines(scores, model, pairs, rows, logits)
    missing = {"text": int((~pairs.table.has_text()[rows]).sum()), "image": int((~pairs.table.has_image()[rows]).sum())}
    report: dict[str, Any] = {"split": split, "rows": len(rows), "missing": missing, "tasks": scores}
    report["cut_texts"] = count_cut_texts(model, pairs, rows)
    now("writing report and model")
    if accelerator.is_main_process:
        write_report(run_dir / split, report, model, pairs, rows, logits)
        model.metrics = report
        model.card = model_card(model, pairs.table, config, report)
        scratch = run_dir / "model.tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        model.save_pretrained(scratch)
        shutil.rmtree(run_dir / "model", ignore_errors=True)
        scratch.rename(run_dir / "model")
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        plot_learning_curve(lines, run_dir / "learning_curve.png", trainer.monitored_name())
    accelerator.wait_for_everyone()
    return report


def calibrate(model: FusionModel, pairs: PairDataset, rows: list[int], logits: dict[str, np.ndarray]) -> None:
    """Set each head's temperature and thresholds by these (validation) rows, and what abstaining would keep of them."""
    heads: dict[str, Any] = dict(model.heads.items())
    for task, head in heads.items():
        if head.kind == "captioning":
            continue
        target = pairs.table.targets[task][rows]
        head.temperature = fit_temperature(logits[task], target, head.kind)
        if head.thresholds is not None:
            head.thresholds = [float(t) for t in tune_thresholds(head.probabilities(logits[task]), target)]
        curves = _selective_curves(head, head.probabilities(logits[task]), target)
        if any(curves):
            model.selective[task] = curves


def _selective_curves(head: Any, probabilities: np.ndarray, target: np.ndarray) -> list[SelectiveCurve | None]:
    """What abstaining keeps of these rows: one curve of a class, one a label of labels."""
    if head.kind == "classification":
        right = np.where(target == MISSING_CLASS, np.nan, probabilities.argmax(axis=1) == target)[:, None]
    else:
        right = np.where(np.isnan(target), np.nan, (probabilities >= head.thresholds) == target)
    return [selective_curve(*column) for column in zip(confidences(head, probabilities).T, right.T, strict=True)]
