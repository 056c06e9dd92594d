"""A training run from its config to its model folder."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from rich.console import Console

import mmfuse
from mmfuse.config import (
    Config,
    DecoderConfig,
    GenerationConfig,
    TaskConfig,
    config_from_dict,
    config_to_dict,
    load_config,
    read_small,
)
from mmfuse.data.manifest import load_manifest
from mmfuse.data.pairs import PairDataset
from mmfuse.data.table import Table, load_table
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
from mmfuse.predict import count_cut_texts, default_workers, prepare_pairs, table_logits, tell_cut_texts
from mmfuse.registry import load_plugin, nearest
from mmfuse.training.card import model_card
from mmfuse.training.loop import Trainer
from mmfuse.training.optimization import is_frozen_for_good
from mmfuse.types import MISSING_CLASS, MmfuseError, SelectiveCurve


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        dir: The run's folder.
        model_dir: The model folder in it.
        report: What `evaluate` says of the test split (of the validation split where there is no test split).
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
    run_dir = config.run_dir
    with open_accelerator(config) as accelerator:
        console = Console(stderr=True, quiet=not accelerator.is_main_process, highlight=False, soft_wrap=True)
        claimed = accelerator.is_main_process and _claim(run_dir, config, restart)
        accelerator.wait_for_everyone()
        workers = default_workers() if config.data.num_workers is None else config.data.num_workers
        try:
            table, model, pairs = _set_up(config, accelerator, workers, console)
        except MmfuseError:
            if claimed:  # nothing was begun: the mended config may have the folder
                (run_dir / "config.yaml").unlink()
            raise
        if accelerator.is_main_process:
            _describe(run_dir, config, table)
        live_images = pairs.image_options is not None and pairs.image_cache is None
        trainer = Trainer(model, pairs, config, accelerator, run_dir, workers if live_images else 0)
        accelerator.init_trackers(config.name)
        state = trainer.fit()
        for tracker in accelerator.trackers:  # end_training() would also leave the process group, still needed here
            tracker.finish()
        report = _finish(model, pairs, trainer, run_dir, config, accelerator)
        return Run(run_dir, run_dir / "model", report, state.step, state.best_step)


def _set_up(
    config: Config, accelerator: Accelerator, workers: int, console: Console
) -> tuple[Table, FusionModel, PairDataset]:
    """Rows, model, and the rows as it reads them: all that can be wrong before training begins."""
    manifest = load_manifest(config.data.manifest, config.data.root)
    unknown = sorted(set(config.tasks) - set(manifest.tasks))  # one that data.tasks leaves out is no mistake
    if unknown:
        raise MmfuseError(
            f"tasks.{unknown[0]}: no such task in {config.data.manifest}; legal: {', '.join(manifest.tasks)}"
        )
    check_report_metrics(manifest)
    table = load_table(manifest, tasks=config.data.tasks, fold=config.data.fold)
    model = build_model(config, table)
    console.print(_summary(model, table, accelerator))
    with accelerator.main_process_first():
        return table, model, _prepare(model.to(accelerator.device), table, config, workers, console)


@contextmanager
def open_accelerator(config: Config):
    """An Accelerator of its own; the next run in this process may ask for another precision."""
    there = [str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()]
    for name in config.training.trackers:  # Accelerate leaves out in silence what is not installed
        if name not in there:
            raise MmfuseError(f"training.trackers: {name!r} is not installed or not known; {nearest(name, there)}")
    kwargs = DistributedDataParallelKwargs(find_unused_parameters=True)
    try:
        accelerator = Accelerator(
            mixed_precision=config.training.mixed_precision or "no",
            log_with=list(config.training.trackers) or None,  # type: ignore[arg-type]
            project_dir=str(config.run_dir),
            kwargs_handlers=[kwargs],
        )
    except (ValueError, ImportError) as error:
        raise MmfuseError(f"training.trackers or training.mixed_precision: {str(error).splitlines()[0]}") from error
    try:
        yield accelerator
    finally:
        accelerator.free_memory()
        AcceleratorState._reset_state()


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
        texts: list[str | None] = table.rows["text"][:]
        text = build_text_encoder(config.text_encoder, (texts[i] or "" for i in table.indices("train")))
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
    train_rows = table.indices("train")
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
    heads: dict[str, Any] = dict(model.heads.items())
    for task, head in heads.items():
        if task in config.tasks and config.tasks[task].class_weights == "balanced":
            head.weigh(table.targets[task][train_rows])
    model.text_sections = table.manifest.text.sections if table.manifest.text else []
    dropout = dataclasses.asdict(config.training.modality_dropout)
    has = {"text": table.has_text()[train_rows], "image": table.has_image()[train_rows]}
    learns = len(model.uses) > 1  # modality dropout never hides a row's only modality
    model.accepts_missing = [m for m in model.uses if (learns and dropout[m] > 0) or not has[m].all()]
    return model


def _head_options(config: Config, table: Table, task: str, text: TextEncoder | None) -> dict[str, Any]:
    """What a head's constructor takes beside its labels: a captioning head its decoder."""
    own = config.tasks.get(task, TaskConfig())
    if table.manifest.tasks[task].type != "captioning":
        for name, default in (("decoder", DecoderConfig()), ("generation", GenerationConfig())):
            if getattr(own, name) != default:
                raise MmfuseError(f"tasks.{task}.{name}: only a captioning task has one")
        return {}
    captions = [caption for row in table.indices("train") for caption in table.targets[task][row]]
    if not captions:
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


def _prepare(model: FusionModel, table: Table, config: Config, workers: int, console: Console) -> PairDataset:
    for tower, own in ((model.text_encoder, config.text_encoder), (model.image_encoder, config.image_encoder)):
        if tower is not None:  # one that is trained later is not cached
            tower.freeze(is_frozen_for_good(own))

    def report(modality: str, done: int, total: int) -> None:
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


def _claim(run_dir: Path, config: Config, restart: bool) -> bool:
    """Make the run's folder ours: new (True), or of the same config, to be gone on with (False)."""
    values = config_to_dict(config)
    path = run_dir / "config.yaml"
    if restart and path.is_file():
        shutil.rmtree(run_dir)
    if path.is_file():
        then, now = flat_config(yaml.safe_load(path.read_text(encoding="utf-8"))), flat_config(values)
        differs = [key for key in now if now[key] != then.get(key)]
        if differs:
            was, is_now = then.get(differs[0]), now[differs[0]]
            raise MmfuseError(
                f"{run_dir}: holds a run with another config ({differs[0]} was {was!r}, is now {is_now!r}); choose "
                "another name or output_dir, or --restart to throw it away"
            )
        return False
    if run_dir.is_dir() and any(run_dir.iterdir()):
        raise MmfuseError(f"{run_dir}: not empty, and not a run of mmfuse; choose another output_dir")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise MmfuseError(f"output_dir: {run_dir} cannot be written: {error.strerror}") from error
    return True


_WHERE = ("output_dir", "data.num_workers", "cache.dir", "cache.enabled", "processes")


def flat_config(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as `a.b.c` -> value; what only says where things are, and how fast, is left out."""
    if not isinstance(values, dict):
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat_config(value, f"{prefix}.{key}" if prefix else str(key))
    return {k: v for k, v in found.items() if k not in _WHERE}


def _summary(model: FusionModel, table: Table, accelerator: Accelerator) -> str:
    counts = Counter(table.splits)
    sizes = {
        "all": sum(p.numel() for p in model.parameters()),
        "fusion": sum(p.numel() for p in model.fusion.parameters()),
    }
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return (
        f"{table.manifest.name}: {', '.join(f'{n} {name}' for name, n in counts.items())} rows; tasks: "
        f"{', '.join(table.labels)}\n"
        f"{model.fusion_config['name']}: {sizes['all'] / 1e6:.2f} M parameters, {trained / 1e6:.2f} M trained, "
        f"{sizes['fusion'] / 1e6:.2f} M in the fusion; {accelerator.device}, num_processes: {accelerator.num_processes}"
    )


def _describe(run_dir: Path, config: Config, table: Table) -> None:
    """Write what a reader needs to know how this run came about."""
    manifest = table.manifest
    (run_dir / "manifest.yaml").write_bytes(read_small(manifest.source))
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
            "rows": len(table),
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
    split = next(s for s in ("test", "validation", "train") if s in pairs.table.splits)
    rows = pairs.table.indices(split)
    logits = table_logits(model, pairs, rows, **options)
    scores = score_rows(model, pairs, rows, logits)
    add_caption_baselines(scores, model, pairs, rows, logits)
    missing = {"text": int((~pairs.table.has_text()[rows]).sum()), "image": int((~pairs.table.has_image()[rows]).sum())}
    report: dict[str, Any] = {"split": split, "rows": len(rows), "missing": missing, "tasks": scores}
    report["cut_texts"] = count_cut_texts(model, pairs, rows)
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
