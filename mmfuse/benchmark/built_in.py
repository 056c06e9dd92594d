"""The built-in benchmark dataset `interactions`: made on the spot, with small encoders that learn to read it here.

The encoders are trained on single symbols, each modality alone, then frozen: what a fusion adds can then only be what
both modalities say together. The report says so.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from mmfuse.benchmark.config import BenchmarkConfig
from mmfuse.config import Config, DataConfig, ImageEncoderConfig, TextEncoderConfig, TrainingConfig
from mmfuse.data.interactions import write_interactions, write_symbols
from mmfuse.data.manifest import load_manifest
from mmfuse.training.run import train

TOWERS = {
    "text": {"name": "text_only", "hidden_layers": 0},
    "image": {"name": "image_only", "hidden_layers": 0},
}


def prepare_interactions(config: BenchmarkConfig, report: Callable[[str], None]) -> BenchmarkConfig:
    """The same config on a manifest and on frozen encoders, both made in the benchmark's folder if they are not there.

    Args:
        config: With `data.manifest: interactions`; its encoders say which architectures are trained to read symbols.
        report: Told what is being done.
    """
    folder, sizes = config.run_dir / "built_in", config.built_in
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        data = folder / "interactions"
        if not (data / "manifest.yaml").is_file():
            report(f"drawing {sizes.train + sizes.validation + sizes.test} examples of interactions")
        manifest = write_interactions(data, train=sizes.train, validation=sizes.validation, test=sizes.test)
        if not (folder / "symbols" / "manifest.yaml").is_file():
            report(f"drawing {sizes.symbols} single symbols")
        symbols = write_symbols(folder / "symbols", sizes.symbols)
        models = {modality: _train_to_read(config, folder, symbols, modality, report) for modality in TOWERS}
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, manifest=str(manifest), root=None),
        text_encoder=TextEncoderConfig(name=f"mmfuse-model:{models['text']}", frozen=True),
        image_encoder=ImageEncoderConfig(name=f"mmfuse-model:{models['image']}", frozen=True),
    )


def _train_to_read(
    config: BenchmarkConfig, folder: Path, symbols: Path, modality: str, report: Callable[[str], None]
) -> Path:
    """The model folder of a tower that reads single symbols of its modality; trained unless it is there."""
    run = folder / f"{modality}_encoder"
    if (run / "model").is_dir():
        return run / "model"
    report(f"training the {modality} encoder to read single symbols")
    tasks = [task for task in load_manifest(symbols).tasks if task.startswith(f"{modality}_")]
    width = config.text_encoder.options.get("hidden_size", 64)
    train(
        Config(
            name=f"{modality}_encoder",
            output_dir=str(run),
            data=DataConfig(manifest=str(symbols), tasks=tasks, num_workers=config.data.num_workers),
            text_encoder=dataclasses.replace(config.text_encoder, frozen=False),
            image_encoder=dataclasses.replace(config.image_encoder, frozen=False),
            fusion={**TOWERS[modality], "out_dim": width},
            training=TrainingConfig(
                epochs=config.built_in.encoder_epochs,
                batch_size=128,
                learning_rate=1e-3,
                weight_decay=0.01,
                patience=None,
                trackers=[],
            ),
        )
    )
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return run / "model"
