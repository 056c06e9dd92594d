"""What `mmfuse predict` is asked for, checked as a whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mmfuse.pulse import now
from mmfuse.types import MmfuseError, visible

if TYPE_CHECKING:
    from mmfuse.precision import Precision
    from mmfuse.predict import Predictor, TableOptions


@dataclass(frozen=True)
class Request:
    """The arguments and options of `mmfuse predict`, by their names there."""

    model: str
    source: str
    out: str
    layout: str
    missing: str
    batch_size: int
    precision: str
    id_column: str | None
    image_column: str | None
    text_column: str | None
    image_root: str | None
    image_urls: list[str] | None
    damaged: str
    device: str | None
    overwrite: bool
    dry_run: bool
    captions_dir: Path | None
    abstain: float | None
    operating_point: str | None
    watch: bool
    settle: float
    engine: str
    actors: int | None
    gpus_per_actor: float | None
    cpus_per_actor: float | None
    generation: list[str] | None
    plugin: list[Path] | None

    @property
    def on_ray(self) -> bool:
        """Whether Ray's actors predict."""
        return self.engine == "ray"

    @property
    def in_chunks(self) -> bool:
        """Whether the output is written in chunks: many write it, or it is at a URL."""
        from mmfuse.data.files.stores import is_local

        return self.on_ray or not is_local(self.out)

    @property
    def table(self) -> TableOptions:
        """What is said of a table."""
        from mmfuse.predict import TableOptions

        urls = tuple(self.image_urls or ())
        return TableOptions(self.id_column, self.image_column, self.text_column, self.image_root, urls)

    @property
    def options(self) -> dict[str, Any]:
        """Of the `Predictor`, on whatever device."""
        from mmfuse.config import read_overrides

        return {
            "batch_size": self.batch_size,
            "missing": self.missing,
            "abstain": self.abstain,
            "operating_point": self.operating_point,
            "generation": read_overrides(self.generation or []),
        }

    def check(self) -> None:
        """Refuse what is not legal or does not go together, before a model is loaded.

        Raises:
            MmfuseError: There is such an option.
        """
        from mmfuse.precision import PRECISIONS

        if self.engine not in PRECISIONS:
            raise MmfuseError(f"--engine {self.engine!r} is not legal; legal: {', '.join(PRECISIONS)}")
        if self.precision not in PRECISIONS[self.engine]:
            raise MmfuseError(
                f"--precision {self.precision!r} is not legal with --engine {self.engine}; legal: "
                f"{', '.join(PRECISIONS[self.engine])}"
            )
        if self.engine == "openvino" and self.device not in (None, "cpu"):
            raise MmfuseError(f"--device {self.device}: --engine openvino computes on the CPU; leave it out")
        of_ray = {
            "--actors": self.actors,
            "--gpus-per-actor": self.gpus_per_actor,
            "--cpus-per-actor": self.cpus_per_actor,
        }
        given = [name for name, value in of_ray.items() if value is not None]
        if given and not self.on_ray:
            raise MmfuseError(f"{given[0]} requires --engine ray")
        if self.in_chunks and (self.watch or self.captions_dir):
            other = "--engine ray" if self.on_ray else f"--out {self.out}"
            raise MmfuseError(f"{'--watch' if self.watch else '--captions-dir'} cannot be combined with {other}")
        if self.layout not in ("auto", "stem", "study"):
            raise MmfuseError(f"--layout {self.layout!r} is not legal; legal: auto, stem, study")
        if self.captions_dir and self.captions_dir.resolve().is_relative_to(Path(self.source).resolve()):
            raise MmfuseError(
                f"--captions-dir {self.captions_dir}: is in {self.source}, where captions would be taken for reports"
            )
        if self.watch:
            self._check_watch()

    def _check_watch(self) -> None:
        if self.dry_run:
            raise MmfuseError("--watch: how many studies will come is not known; leave --dry-run out")
        table = self.table
        if table != type(table)():
            raise MmfuseError("--watch: a folder has no columns; leave --...-column and --image-... out")
        if self.captions_dir:
            raise MmfuseError("--watch: does not go with --captions-dir")
        if not os.path.isdir(self.source):
            raise MmfuseError(f"--watch: {self.source} is not a folder")

    def load(self) -> Predictor:
        """The model, which tells what it abstains from."""
        from mmfuse.predict import Predictor

        now("loading the model")
        if self.engine == "openvino":
            predictor = self._load_exported()
        else:
            device, precision = "cpu" if self.on_ray else self.device, self._precision()
            predictor = Predictor.from_pretrained(self.model, device=device, precision=precision, **self.options)
        if predictor.chose is not None:
            typer.echo(predictor.chose, err=True)
        for line in predictor.decides_at:
            typer.echo(visible(line), err=True)
        for plan in predictor.abstentions.values():
            typer.echo(visible(plan.about), err=True)
        return predictor

    def _load_exported(self) -> Predictor:
        from mmfuse.deploy import load_predictor

        def tell(line: str) -> None:
            typer.echo(visible(line), err=True)

        return load_predictor(self.model, self.engine, self.precision, tell, keep=not self.dry_run, **self.options)

    def _precision(self) -> str | Precision:
        """As it was asked, or for `auto` as the interrupted run has it which is gone on with."""
        from mmfuse.predict.precision import kept_precision

        if self.precision != "auto" or self.overwrite or self.dry_run:
            return self.precision
        kept = kept_precision(self.out)
        if kept is not None:
            typer.echo(f"precision auto: {kept}, as the interrupted run chose", err=True)
        return kept or self.precision

    def fingerprint(self, predictor: Predictor) -> str:
        """Of all that a prediction depends on beside its study."""
        from mmfuse.predict import fingerprint

        chosen = (self.abstain, self.operating_point, predictor.precision, getattr(predictor.forward, "name", None))
        return fingerprint(predictor.model, self.missing, *chosen)


def check_there(source: str) -> None:
    """Refuse a path where nothing is before a model is loaded.

    Raises:
        MmfuseError: Nothing is there.
    """
    try:
        if "://" not in source and not source.startswith("hf:"):
            os.stat(source)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise MmfuseError(f"{source}: {reason}; expected a folder, a table, a manifest or shards") from error
