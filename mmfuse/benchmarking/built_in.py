"""The built-in benchmark dataset `interactions`: made on the spot, with small encoders that learn to read it here.

The encoders are trained to read symbols, each modality alone, then frozen: what a fusion adds can then only be what
both modalities say together. The report says so. They see pictures and sentences as full as the benchmark's, whose
symbols are clean and unrelated. Of objects they are asked only which shapes and which colours there are, so that an
image's tokens tell shape and colour, and its pooled vector as little as possible of which goes with which.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from mmfuse.benchmarking.config import BenchmarkConfig
from mmfuse.config import Config, DataConfig, ImageEncoderConfig, TaskConfig, TextEncoderConfig, TrainingConfig
from mmfuse.data.synthetic.interactions import write_interactions, write_symbols
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.training.run import train

TOWERS = {
    "text": {"name": "text_only", "hidden_layers": 0},
    "image": {"name": "image_only", "hidden_layers": 0},
}
MONITOR = {"text": "text_shape/nll", "image": "image_colours/nll"}
"""What chooses the epoch: accuracies are 1 soon, the losses still fall."""
WEIGHTS = {"image_shapes": 8.0, "image_colours": 4.0}
"""Of the losses that are means over eight labels where the others are one choice of eight."""


def prepare_interactions(config: BenchmarkConfig, report: Callable[[str], None]) -> BenchmarkConfig:
    """The same config on a manifest and on frozen encoders, both made in the benchmark's folder if they are not there.

    Args:
        config: With `data.manifest: interactions`; its encoders say which architectures are trained to read symbols.
        report: Told what is being done.
    """
    folder, sizes = config.run_dir / "built_in", config.built_in
    folder.mkdir(parents=True, exist_ok=True)
    # What is there may be in use by other processes, so it is never written again: other sizes have another folder.
    data = folder / f"interactions_{sizes.train}_{sizes.validation}_{sizes.test}"
    symbols = folder / f"symbols_{sizes.symbols}"
    with FileLock(folder / "lock"):
        if not (data / "data.csv").is_file():
            report(f"drawing {sizes.train + sizes.validation + sizes.test} examples of interactions")
            write_interactions(data, train=sizes.train, validation=sizes.validation, test=sizes.test)
        if not (symbols / "data.csv").is_file():
            report(f"drawing {sizes.symbols} pairs of symbols")
            write_symbols(symbols, sizes.symbols)
        models = {
            modality: _train_to_read(config, folder, symbols / "manifest.yaml", modality, report) for modality in TOWERS
        }
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, manifest=str(data / "manifest.yaml"), root=None),
        text_encoder=TextEncoderConfig(name=f"mmfuse-model:{models['text']}", frozen=True),
        image_encoder=ImageEncoderConfig(name=f"mmfuse-model:{models['image']}", frozen=True),
    )


def _train_to_read(
    config: BenchmarkConfig, folder: Path, symbols: Path, modality: str, report: Callable[[str], None]
) -> Path:
    """The model folder of a tower that reads the symbols of its modality; trained unless it is there."""
    tasks = [task for task in load_manifest(symbols).tasks if task.startswith(f"{modality}_")]
    width = config.text_encoder.options.get("hidden_size", 64)
    wanted = Config(
        name=f"{modality}_encoder",
        data=DataConfig(manifest=symbols.parent.name, tasks=tasks),
        text_encoder=dataclasses.replace(config.text_encoder, frozen=False),
        image_encoder=dataclasses.replace(config.image_encoder, frozen=False),
        fusion={**TOWERS[modality], "out_dim": width},
        tasks={task: TaskConfig(weight=WEIGHTS[task]) for task in tasks if task in WEIGHTS},
        training=TrainingConfig(
            epochs=config.built_in.encoder_epochs,
            batch_size=128,
            learning_rate=3e-3,
            weight_decay=0.1,
            patience=None,
            monitor=MONITOR[modality],
            trackers=[],
        ),
    )
    digest = hashlib.sha256(repr(wanted).encode()).hexdigest()[:8]
    run = folder / f"{modality}_encoder_{digest}"
    if not (run / "model").is_dir():
        report(f"training the {modality} encoder to read symbols")
        data = dataclasses.replace(wanted.data, manifest=str(symbols), num_workers=config.data.num_workers)
        train(dataclasses.replace(wanted, output_dir=str(run), data=data))
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return run / "model"
