"""`mmfuse embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmfuse.bars import Bar
from mmfuse.cli.request import check_there
from mmfuse.cli.shared import NOTHING_READ, MissingOption, PluginOption, load_plugins, quiet_libraries
from mmfuse.types import visible

app = typer.Typer()


@app.command(
    epilog="Examples: mmfuse embed runs/phantom/model folder/ --out vectors.parquet; "
    "mmfuse embed MODEL rows.csv --what image --out vectors.npy"
)
def embed(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.")],
    source: Annotated[str, typer.Argument(help="What mmfuse predict takes: a folder, a table, a manifest, shards.")],
    out: Annotated[
        Path, typer.Option(help="vectors.parquet: id, vector, notices; or .npy, with the ids in STEM.ids.jsonl.")
    ] = Path("vectors.parquet"),
    what: Annotated[
        str, typer.Option(help="fused: what the heads see; text, image: what that encoder gives, pooled.")
    ] = "fused",
    missing: MissingOption = "error",
    batch_size: Annotated[int, typer.Option(min=1, help="Studies per forward pass.")] = 16,
    image_root: Annotated[
        str | None, typer.Option(help="What a table's paths are relative to; default: its folder.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: a GPU if there is one.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Write a vector for every study; what has none goes to STEM.errors.jsonl. Resumes an interrupted run."""
    load_plugins(plugin)
    quiet_libraries()
    from mmfuse.predict import Predictor, TableOptions, TableStudies, fingerprint, open_studies
    from mmfuse.predict.reasons import tell_kinds
    from mmfuse.predict.vectors import Embedder, check_suffix, embed_to_file

    check_suffix(out)
    check_there(source)
    predictor = Predictor.from_pretrained(model, batch_size=batch_size, missing=missing, device=device)
    embedder = Embedder(predictor, what)
    studies = open_studies(source, options=TableOptions(image_root=image_root), model=predictor.model)
    if isinstance(studies, TableStudies):
        typer.echo(visible(studies.reading.about), err=True)
    with Bar("embedding") as bar:
        counts = embed_to_file(
            embedder,
            studies,
            out,
            fingerprint=fingerprint(predictor.model, missing),
            overwrite=overwrite,
            progress=lambda done, errors: bar.update(done, len(studies), f"{errors} errors"),
        )
    errors = out.with_suffix(".errors.jsonl")
    typer.echo(
        f"{counts.predictions + counts.errors} studies: {counts.predictions} vectors of {embedder.dim} numbers in "
        f"{out}, {counts.errors} errors in {errors}"
    )
    if counts.reasons:
        typer.echo(f"errors: {tell_kinds(counts.reasons)}")
    if counts.predictions == 0:
        raise typer.Exit(NOTHING_READ)
