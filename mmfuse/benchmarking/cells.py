"""One cell of a benchmark: the dataset as every cell meets it, a training, and what is measured of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from mmfuse.benchmarking.config import BUILT_IN, BenchmarkConfig
from mmfuse.benchmarking.covariates import predict_covariates
from mmfuse.benchmarking.plan import COVARIATES, Cell, Plan, Widths
from mmfuse.config import Config
from mmfuse.data.batches.collate import pad_values
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.batches.values import feature_values
from mmfuse.data.load import load_table
from mmfuse.data.synthetic.interaction_examples import bayes_accuracy
from mmfuse.data.tables.gaps import refuse_gaps
from mmfuse.data.tables.leaks import find_leaks
from mmfuse.data.tables.manifest import is_shards, load_manifest
from mmfuse.data.tables.table import Table
from mmfuse.encoders.features import FeatureTower
from mmfuse.encoders.text import TextEncoder
from mmfuse.encoders.timing import Choice, choose_precision
from mmfuse.encoders.towers import blank_item
from mmfuse.evaluation.analyses import Scored, choose_analyses, run_analyses
from mmfuse.evaluation.chosen import Chosen, add_chosen, chosen_metrics
from mmfuse.evaluation.contribution import emap, encode_rows, missing_curve, permutation_scores, shapley
from mmfuse.evaluation.evaluate import score_rows
from mmfuse.model import FusionModel
from mmfuse.precision import FP32
from mmfuse.predict import prepare_pairs, table_logits
from mmfuse.pulse import now
from mmfuse.training.accelerator import open_accelerator
from mmfuse.training.build import assemble, build_towers
from mmfuse.training.calibrate import calibrate
from mmfuse.training.checkpoint import room_in
from mmfuse.training.lone_images import check_lone_images
from mmfuse.training.loop import Trainer
from mmfuse.training.precision import KEPT, keep_choice
from mmfuse.types import MmfuseError

BATCH_OF_INFERENCE = 512


class Workshop:
    """The dataset as every cell meets it: tables by fold, towers and their features, prepared once a process.

    Args:
        config: The benchmark's.
        report: Told what is being done, a line each.
        allow_leaks: Go on where groups or exact duplicates are in two splits.

    Attributes:
        folds: All that are test sets; [None] where the manifest has no folds.
        leaks: What leaks were allowed, in sentences.
        encoder_seconds: Spent in getting features, on this process.
        precision: What `training.mixed_precision: auto` is for all cells, and why; None where it is not asked.
    """

    def __init__(self, config: BenchmarkConfig, report: Callable[[str], None], allow_leaks: bool = False):
        self.config, self.report, self.allow_leaks = config, report, allow_leaks
        self.leaks: list[str] = []
        self.manifest = load_manifest(config.data.manifest, config.data.root)
        if is_shards(self.manifest.rows):
            raise MmfuseError(
                f"{self.manifest.source}: rows: a benchmark reads all rows many times: name the table that the "
                "shards were made of"
            )
        splits = self.manifest.splits
        self.folds: list[int | None] = [None]
        if splits.folds and config.data.fold is not None:
            self.folds = [config.data.fold]
        elif splits.folds and splits.repeats > 1:
            raise MmfuseError(
                f"{self.manifest.source}: splits.repeats is {splits.repeats}: a benchmark repeats by seeds; set it to 1"
            )
        elif splits.folds:
            self.folds = list(range(splits.folds))
        self._tables: dict[int | None, Table] = {}
        self._pairs: dict[tuple[int | None, bool, tuple[str, ...]], PairDataset] = {}
        self._towers: dict[int | None, tuple[Any, Any]] = {}
        self.encoder_seconds = 0.0
        self.precision: Choice | None = None

    def choose_precision(self, folder: Path) -> None:
        """Find what `auto` is for all cells in the benchmark's folder, else choose it and keep it there."""
        if self.config.training.mixed_precision != "auto":
            return
        text, image = self.towers(self.config.run_config({}, 0, Path(".")), self.folds[0])
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for tower, own in ((text, self.config.text_encoder), (image, self.config.image_encoder)):
            if tower is not None:
                tower.to(device).freeze(own.first_trained is None)
        with FileLock(folder / "lock"):
            self.precision = keep_choice(folder / KEPT, lambda: choose_precision(text, image, device))
        self.report(f"training.mixed_{self.precision.why}; for all cells")

    def table(self, fold: int | None) -> Table:
        """The rows, with the splits of a fold."""
        if fold not in self._tables:
            table = load_table(self.manifest, tasks=self.config.data.tasks, fold=fold, allow_leaks=self.allow_leaks)
            refuse_gaps(table)
            self._tables[fold] = table
            if self.allow_leaks:
                self.leaks += [leak for leak in find_leaks(table) if leak not in self.leaks]
        return self._tables[fold]

    def towers(self, config: Config, fold: int | None) -> tuple[Any, Any]:
        """Text and image encoder: the same ones for all cells where nothing in them is trained, else new ones."""
        if not self.frozen:
            return build_towers(config, self.table(fold), ("text", "image"))
        if fold not in self._towers:  # the same ones whichever cell a process meets first
            config = dataclasses.replace(config, seed=0)
            self._towers[fold] = build_towers(config, self.table(fold), ("text", "image"))
            for tower in self._towers[fold]:
                if tower is not None:
                    tower.freeze(True)
        return self._towers[fold]

    def fingerprint(self) -> str:
        """sha256 of the manifest and of all rows: ids, groups, texts, targets and, fold by fold, splits."""
        digest = hashlib.sha256(self.manifest.sha256.encode())
        for fold in self.folds:
            table = self.table(fold)
            if fold == self.folds[0]:
                for column in ("id", "group", "text"):
                    digest.update(json.dumps(table.rows[column][:]).encode())
                for task, target in table.targets.items():
                    digest.update(
                        json.dumps([task, table.labels[task]]).encode() + np.ascontiguousarray(target).tobytes()
                    )
            digest.update(json.dumps(table.splits).encode())
        return digest.hexdigest()

    @property
    def built_in(self) -> bool:
        """Whether the rows are those of the built-in dataset, whose answers are known."""
        return self.manifest.name == BUILT_IN

    def bayes(self, task: str) -> dict[str, float] | None:
        """The best possible accuracy from `text`, `image` and `both`, where that is known."""
        return bayes_accuracy()[task] if self.built_in else None

    @property
    def frozen(self) -> bool:
        """Whether both encoders stay as they are: then their features are computed once."""
        return self.config.text_encoder.first_trained is None and self.config.image_encoder.first_trained is None

    def pairs(self, model: FusionModel, fold: int | None, seed: int) -> PairDataset:
        """The rows as this model reads them, in batches that are the same for every strategy."""
        reads_tokens = "tokens" in model.reads
        known = (fold, reads_tokens, model.uses)
        if known not in self._pairs or not self.frozen:
            start = time.perf_counter()
            pairs = prepare_pairs(
                model,
                self.table(fold),
                cache=(self.config.cache.dir or True) if self.config.cache.enabled else False,
                cache_dtype=self.config.cache.dtype,
                augmentation=self.config.training.augmentation,
                num_workers=self.config.data.num_workers,
                progress=self._tell,
            )
            self.encoder_seconds += time.perf_counter() - start
            self._pairs[known] = pairs.view(order_by=self.lengths(fold))
        dropout = dataclasses.asdict(self.config.training.modality_dropout)
        return self._pairs[known].view(modality_dropout=dropout, seed=seed)

    def _tell(self, modality: str, done: int, total: int) -> None:
        now(f"{modality} features", done, total)
        if done >= total:
            self.report(f"{modality} features: {done} of {total}")

    def lengths(self, fold: int | None) -> np.ndarray:
        """`(rows,)` words of each row's text: what rows are grouped by, for strategies that read no text as well."""
        texts: list[str | None] = self.table(fold).rows["text"][:]
        return np.array([len((text or "").split()) for text in texts], dtype=np.int64)

    def widths(self) -> Widths:
        """Widths of the features, and the mean number of tokens of some rows."""
        fold = self.folds[0]
        config = self.config.run_config({"name": "cross_attention", "num_heads": 1, "out_dim": 4}, 0, Path("."))
        text, image = self.towers(config, fold)
        for modality, tower in (("text", text), ("image", image)):
            if tower is None:
                raise MmfuseError(
                    f"{self.config.data.manifest}: a benchmark of fusion needs both; there is no {modality}"
                )
        return Widths(text.dim, image.dim, self._tokens("text", text), self._tokens("image", image))

    def _tokens(self, modality: str, tower: Any) -> int:
        """The mean number of tokens of some rows' texts, or of their images."""
        table = self.table(self.folds[0])
        if isinstance(tower, TextEncoder):
            texts = [t for t in table.rows["text"][:256] if t]
            ids, _ = tower.tokenize(texts) if texts else ([[0]], [])
            return round(float(np.mean([len(i) for i in ids])))
        tower.eval()
        if not isinstance(tower, FeatureTower):
            with torch.no_grad():
                return tower(*blank_item(tower, modality, torch.device("cpu")).values()).tokens.shape[1]
        items = list(feature_values(table, modality, range(min(256, len(table)))))
        with torch.no_grad():
            mask = tower(*pad_values(items)).mask if items else torch.ones(1, 1)
        return round(float(mask.sum(1).float().mean()))


def run_cell(workshop: Workshop, plan: Plan, cell: Cell, folder: Path, best_trial: dict[str, Any]) -> dict[str, Any]:
    """Train one cell and measure all that the report says of it.

    Args:
        workshop: Rows, towers and features.
        plan: Its rows.
        cell: Which.
        folder: For checkpoints while it trains, and for `test.npz`.
        best_trial: Training options that tuning chose for this row.

    Returns:
        The line for `results.jsonl`, without its bookkeeping.
    """
    if cell.row == COVARIATES:
        return run_covariates(workshop, plan.rows[cell.row].uses, cell, folder)
    row, benchmark = plan.rows[cell.row], workshop.config
    options = plan.trials[cell.trial] if cell.trial is not None else best_trial
    config = benchmark.run_config(row.fusion, cell.seed, folder / "run", **options, trackers=[])
    table = workshop.table(cell.fold)
    (folder / "run").mkdir(parents=True, exist_ok=True)
    _reset_peak()
    with open_accelerator(config) as accelerator, room_in(benchmark.run_dir):
        model = assemble(config, table, *workshop.towers(config, cell.fold)).to(accelerator.device)
        if workshop.precision is not None and workshop.precision.precision != FP32:
            model.precision = workshop.precision.precision
        pairs = workshop.pairs(model, cell.fold, cell.seed)
        check_lone_images(model, pairs, config)
        trainer = Trainer(model, pairs, config, accelerator, folder / "run", 1 if pairs.live_images else 0, quiet=True)
        state = trainer.fit()
        model.eval()
        samples, seconds = _trained(folder / "run")
        result: dict[str, Any] = {
            "steps": state.step,
            "best_step": state.best_step,
            "seconds": round(seconds, 2),
            "samples_per_s": round(samples / max(seconds, 1e-9), 1),
            "peak_mib": _peak_mib(),
            "validation": state.best,
            "options": options,
        }
        if cell.trial is None:
            result |= _measure(workshop, model, pairs, cell, folder)
    return result


def _measure(workshop: Workshop, model: FusionModel, pairs: PairDataset, cell: Cell, folder: Path) -> dict[str, Any]:
    """Scores of the test split before and after calibration; logits and targets go to `test.npz`."""
    table = pairs.table
    validation = [i for i, name in enumerate(table.splits) if name == "validation"]
    test = table.indices("test")
    logits = table_logits(model, pairs, test, batch_size=BATCH_OF_INFERENCE)
    on_validation = table_logits(model, pairs, validation, batch_size=BATCH_OF_INFERENCE) if validation else {}
    now("scoring the cell")
    first = cell.seed == 0 and cell.fold == workshop.folds[0]
    return {
        **_score(workshop, model, pairs, (test, logits), (validation, on_validation), folder),
        "diagnostics": _diagnose(workshop, model, pairs, test) if first else {},
        **(_analyse(workshop, model, pairs, test, logits) if first else {}),
    }


_Said = tuple[list[int], dict[str, np.ndarray]]
"""Rows, and by task what was said of them."""


def _score(
    workshop: Workshop, model: Any, pairs: Any, on_test: _Said, on_validation: _Said, folder: Path
) -> dict[str, Any]:
    """Scores before and after calibration by the validation rows; of the model heads and task kinds are enough."""
    (test, logits), (validation, found) = on_test, on_validation
    chosen = _chosen(workshop, model)

    def scores(rows: list[int], said: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
        found = score_rows(model, pairs, rows, said, resamples=0)
        add_chosen(found, chosen, model, pairs, rows, said, resamples=0)
        return found

    before = scores(test, logits)
    validated = {}
    if validation:
        validated = scores(validation, found)
        calibrate(model, pairs, validation, found)
    after = scores(test, logits)
    arrays: dict[str, np.ndarray] = {"rows": np.array(test)}
    for task, values in logits.items():
        arrays[f"logits.{task}"] = values.astype(np.float32)
    np.savez(folder / "test.npz", **arrays)  # type: ignore[arg-type]
    heads: dict[str, Any] = dict(model.heads.items())
    return {
        "metrics": {task: _plain(after[task]) for task in after},
        "uncalibrated": {
            task: {name: plain[name] for name in ("ece", "nll", "brier") if name in plain}
            for task, plain in ((task, _plain(scores)) for task, scores in before.items())
        },
        "validation_metrics": {task: _plain(scores) for task, scores in validated.items()},
        "per_label": {task: scores.get("per_label", {}) for task, scores in after.items()},
        "decisions": {task: head.task.state() for task, head in heads.items()},
    }


def run_covariates(workshop: Workshop, columns: Sequence[str], cell: Cell, folder: Path) -> dict[str, Any]:
    """The cell of the row that sees covariates alone; as `run_cell`, which trains nothing here."""
    start, table = time.perf_counter(), workshop.table(cell.fold)
    _reset_peak()
    kinds = {task: table.kind(task) for task in table.labels}
    balanced = [task for task, own in workshop.config.tasks.items() if own.class_weights == "balanced"]
    said = predict_covariates(table, columns, kinds, balanced)
    seconds = time.perf_counter() - start
    rows = {name: [i for i, split in enumerate(table.splits) if split == name] for name in ("validation", "test")}
    on_validation, on_test = ({task: of[rows[name]] for task, of in said.items()} for name in ("validation", "test"))
    stands_for = SimpleNamespace(  # a model, as far as scores and calibration ask
        heads={task: SimpleNamespace(task=kind) for task, kind in kinds.items()},
        task_config={task: {"type": table.manifest.tasks[task].type} for task in kinds},
        selective={},
    )
    pairs = SimpleNamespace(table=table, ids=table.rows["id"][:])
    found = _score(workshop, stands_for, pairs, (rows["test"], on_test), (rows["validation"], on_validation), folder)
    return {
        "steps": 0,
        "best_step": 0,
        "seconds": round(seconds, 2),
        "peak_mib": _peak_mib(),
        "validation": None,
        "options": {},
        **found,
        "diagnostics": {},
    }


def _chosen(workshop: Workshop, model: FusionModel) -> Chosen:
    """The metrics of the config's tasks, and what is compared where no report has it."""
    config = workshop.config
    compared = "" if config.metric is None else " + ".join(f"{task}/{config.metric}" for task in model.heads)
    return chosen_metrics(model, config.tasks, compared)


def _analyse(
    workshop: Workshop, model: FusionModel, pairs: PairDataset, test: list[int], logits: dict[str, np.ndarray]
) -> dict[str, Any]:
    """`analyses`: what those that the config names find of the test rows; nothing where it names none."""
    asked = choose_analyses(workshop.config.evaluation.analyses or [])
    if not asked:
        return {}
    report: dict[str, Any] = {"tasks": score_rows(model, pairs, test, logits)}
    run_analyses(asked, Scored(model, pairs, test, logits, report["tasks"], score_rows), report)
    return {"analyses": report.get("analyses", {})}


def _diagnose(workshop: Workshop, model: FusionModel, pairs: PairDataset, test: list[int]) -> dict[str, Any]:
    """What each modality contributes, on test rows drawn once for all strategies; of the first seed and fold alone."""
    config, table = workshop.config, pairs.table
    if not config.diagnostic_rows:
        return {}
    order = np.random.default_rng(0).permutation(test)[: max(config.diagnostic_rows, config.emap_rows)].tolist()
    data = encode_rows(model, pairs, order, batch_size=BATCH_OF_INFERENCE)
    targets = {task: table.targets[task][table.indices("train")] for task in model.heads}
    found = {
        "permutation": permutation_scores(model, data, targets),
        "shapley": shapley(model, data, targets),
        "missing": missing_curve(model, data),
    }
    if config.emap_rows:
        found["emap"] = emap(model, data, rows=config.emap_rows)
    return found


def _plain(scores: dict[str, Any]) -> dict[str, float | None]:
    return {name: score["value"] for name, score in scores["metrics"].items()}


def _trained(run: Path) -> tuple[int, float]:
    """Samples, and seconds of the steps they were in: evaluations are not in it, what a killed process did is."""
    steps = [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "samples" in line]
    return sum(line["samples"] for line in steps), sum(line["seconds"] for line in steps)


_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _reset_peak() -> None:
    """Begin to measure the peak anew, where the system can: on a GPU, and on Linux."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif os.access(_CLEAR, os.W_OK):
        _CLEAR.write_text("5")


def _peak_mib() -> float:
    """Peak memory since `_reset_peak`: of the GPU, else of the process; on macOS, of the process since it began."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 2**10, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)  # macOS counts bytes
