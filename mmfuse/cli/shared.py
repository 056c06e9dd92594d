"""What several commands have in common: options, exit codes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mmfuse.types import MmfuseError, visible

NOTHING_READ, DATA_FAILS, NOT_REACHED, INTERRUPTED, TERMINATED = 3, 4, 5, 130, 143
"""Exit codes; that of an error which is told in one line is 2."""

PluginOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file of your own, such as a fusion, a task or a metric."),
]
MissingOption = Annotated[
    str, typer.Option("--missing", help="A modality that never was missing in training: error or allow.")
]
GenerationOption = Annotated[
    list[str] | None,
    typer.Option("--generation", help="How captions are written, such as num_beams=4 (see mmfuse config)."),
]
RequireOption = Annotated[
    list[str] | None,
    typer.Option(
        "--require",
        help='What must hold, such as "finding/auroc_macro >= 0.8", judged by the near end of the 95 % interval: '
        "else exit code 5; repeatable.",
    ),
]
RootOption = Annotated[str | None, typer.Option("--data-root", help="What ${data_root} stands for in the manifest.")]


def check_folder(path: Path | None, option: str) -> None:
    """Refuse before the work a folder that could not be made or written after it; nothing is made.

    Raises:
        MmfuseError: A file is in its place, or what it would be in may not be written.
    """
    above = path
    while above is not None and not os.path.lexists(above):
        above = above.parent
    if above is not None and not above.is_dir():
        raise MmfuseError(f"{option} {path}: {above} is not a folder; choose another name")
    if above is not None and not os.access(above, os.W_OK | os.X_OK):
        raise MmfuseError(f"{option} {path}: {above} cannot be written (permission denied); choose another folder")


def load_plugins(paths: list[Path] | None) -> None:
    """Run the files of --plugin, which register what they bring."""
    from mmfuse.registry import load_plugin

    for path in paths or []:
        load_plugin(path)


def read_names(text: str, where: str) -> list[Any]:
    """What is chosen by name: names with commas between, or `{name: ..., options}`.

    Raises:
        MmfuseError: It is neither.
    """
    import yaml

    try:
        return yaml.safe_load(f"[{text}]")
    except yaml.YAMLError as error:
        raise MmfuseError(f"{where}: {text!r:.100}: NAME,NAME or {{name: ..., options}} is expected") from error


def is_main_process() -> bool:
    """Whether this is the one process of a launch that prints."""
    from accelerate import PartialState

    return PartialState().is_main_process


def told_peak(device: Any = None) -> str:
    """The most memory that this process has had, on a `torch.device`; default: that of the launch."""
    from accelerate import PartialState

    from mmfuse.memory import peak_memory
    from mmfuse.predict.estimate import tell_bytes

    where: Any = device or PartialState().device
    return f"{tell_bytes(peak_memory(where))} of memory at the peak of this process"


def tell_required(report: Mapping[str, Any]) -> None:
    """A line for each thing that was required."""
    from mmfuse.metrics.requirements import requirement_lines

    for line in requirement_lines(report.get("requirements", ())):
        typer.echo(visible(line))


def end_by_required(report: Mapping[str, Any]) -> None:
    """End with `NOT_REACHED` where something that was required does not hold."""
    if not all(one["passed"] for one in report.get("requirements", ())):
        raise typer.Exit(NOT_REACHED)


def quiet_libraries() -> None:
    """Their reports on loading weights are not the user's business."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
