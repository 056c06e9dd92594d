"""`mmfuse init`: from a table or a folder to a manifest and a config."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmfuse.types import MmfuseError, visible

if TYPE_CHECKING:
    from mmfuse.data.sniff import Guess

app = typer.Typer()


@app.command(epilog="Examples: mmfuse init studies.csv --target finding; mmfuse init photos/ --out trees")
def init(
    data: Annotated[
        str, typer.Argument(help="A csv, tsv, xlsx, json, jsonl or parquet file, a folder, or hf:NAME@split.")
    ],
    target: Annotated[str | None, typer.Option(help="Column to predict; default: the likeliest.")] = None,
    image: Annotated[str | None, typer.Option(help="Column of images.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Column of texts; repeatable.")] = None,
    group: Annotated[str | None, typer.Option(help="Column that is never in two splits, such as patient.")] = None,
    id: Annotated[str | None, typer.Option(help="Column that names a row.")] = None,
    split: Annotated[str | None, typer.Option(help="Column that says train, validation or test.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path(),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Look at data, and write a manifest and a config for it: what was guessed is said, and what is unsure."""
    from mmfuse.cli.shared import check_folder
    from mmfuse.data.sniff import Given, guess
    from mmfuse.data.sniff.config import config_text

    check_folder(out, "--out")
    found = guess(data, Given(target, image, tuple(text) if text else None, group, id, split))
    name = found.manifest["name"]
    config = out / f"{name}.train.yaml"
    manifest = out / ("data/manifest.yaml" if found.prepare else f"{name}.yaml")
    made = [config] if found.prepare else [manifest, config]
    made += [out / found.rows_file] if found.made is not None else []
    _refuse_taken(made, overwrite)
    for line in found.said:
        typer.echo(visible(line))
    for line in found.unsure:
        typer.echo(visible(f"UNSURE  {line}"))
    written = [] if found.prepare else found.write(out, manifest.name)
    out.mkdir(parents=True, exist_ok=True)
    config.write_text(config_text(found, str(manifest)), encoding="utf-8")
    for path in [*written, config]:
        typer.echo(visible(f"written: {path}"))
    for mark, command in zip(("next:  ", "       ", "       "), _next(found, data, manifest, config), strict=True):
        typer.echo(visible(f"{mark}{command}"))


def _refuse_taken(paths: list[Path], overwrite: bool) -> None:
    """Nothing is overwritten in silence."""
    for path in paths:
        if os.path.lexists(path) and not overwrite:
            raise MmfuseError(f"{path} is there already: give --overwrite to replace it, or another folder with --out")


def _next(guess: Guess, data: str, manifest: Path, config: Path) -> list[str]:
    """The commands that come next."""
    train = f"mmfuse train {shlex.quote(str(config))}"
    check = f"mmfuse data check {shlex.quote(str(manifest))}"
    if guess.prepare is not None:
        source, _ = guess.prepare
        prepare = f"mmfuse data prepare {source} --from {shlex.quote(data)} --out {shlex.quote(str(manifest.parent))}"
        return [prepare, check, train]
    name = guess.manifest["name"]
    rows = str(manifest.parent / guess.rows_file) if guess.made is not None else data
    return [check, train, f"mmfuse predict runs/{name}/model {shlex.quote(rows)} --out predictions.jsonl"]
