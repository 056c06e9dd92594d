"""What `training.mixed_precision: auto` is for a run: chosen once, for all processes, and kept in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from rich.console import Console

from mmfuse.config import Config
from mmfuse.encoders.timing import Choice, choose_precision
from mmfuse.model import FusionModel
from mmfuse.precision import FP32, Precision
from mmfuse.training.trained import freeze_towers
from mmfuse.types import MmfuseError

KEPT = "precision.json"
"""In the folder of a run or a benchmark with `auto`: what was chosen, and why."""


def set_precision(
    model: FusionModel, config: Config, accelerator: Accelerator, console: Console, folder: Path | None
) -> None:
    """Have a run's model compute in what `auto` chooses: features, steps, validation and report; else nothing.

    Args:
        model: On its device.
        config: The run's.
        accelerator: Its first process decides for all.
        console: Told what was chosen, and why.
        folder: Where the choice is kept, and found by a resumed run; None: nowhere.

    Raises:
        MmfuseError: What is kept is damaged.
    """
    if config.training.mixed_precision != "auto":
        return
    found: list[Any] = [None]
    if accelerator.is_main_process:
        freeze_towers(model, config)

        def choose() -> Choice:
            return choose_precision(model.text_encoder, model.image_encoder, accelerator.device)

        found = [choose() if folder is None else keep_choice(folder / KEPT, choose)]
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    precision, why = found[0]
    console.print(f"training.mixed_{why}")
    model.precision = model.scored_in = None if precision == FP32 else precision


def keep_choice(path: Path, choose: Callable[[], Choice]) -> Choice:
    """The choice that is kept in a file, else a new one, which is then kept there.

    Raises:
        MmfuseError: The file is damaged.
    """
    if path.is_file():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return Choice(Precision.read(kept["precision"], str(path)), str(kept["why"]))
        except (ValueError, KeyError, TypeError) as error:  # MmfuseError is a ValueError
            raise MmfuseError(f"{path}: damaged; put it back, or --restart to discard the run") from error
    chosen = choose()
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps({"precision": chosen.precision.to_dict(), "why": chosen.why}) + "\n", "utf-8")
    scratch.replace(path)
    return chosen
