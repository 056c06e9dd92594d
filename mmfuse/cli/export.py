"""`mmfuse export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmfuse.bars import Bar
from mmfuse.cli.shared import PluginOption, RootOption, load_plugins, quiet_libraries, told_peak
from mmfuse.types import visible

app = typer.Typer()


@app.command(
    epilog="Examples: mmfuse export runs/shop/model --to onnx --out shop_onnx; three times as fast on a CPU: mmfuse "
    "export runs/shop/model --to openvino --precision int8 --calibrate shop.yaml, then mmfuse predict runs/shop/model "
    "FOLDER --engine openvino --precision int8"
)
def export(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.")],
    to: Annotated[str, typer.Option(help="onnx or openvino.")],
    precision: Annotated[str, typer.Option(help="fp32; with openvino also bf16 and int8.")] = "fp32",
    out: Annotated[
        Path | None, typer.Option(help="Folder for it; default: in the model folder, where predict --engine finds it.")
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option(help="int8: manifest whose training rows give the ranges of numbers.")
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(
            help="Manifest on whose test rows it is compared with torch; default: that of --calibrate, else random "
            "inputs."
        ),
    ] = None,
    data_root: RootOption = None,
    fold: Annotated[int | None, typer.Option(help="Of the manifests, which one is the test set.")] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Share of decisions that may change, else it is refused; default: bf16 0.02, int8 0.05."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was exported to --out.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Write a model in another runtime's format, compared with torch before it is kept; captions are not exported."""
    load_plugins(plugin)
    quiet_libraries()
    from mmfuse.data.tables.manifest import load_manifest
    from mmfuse.deploy.export import Wanted, export_model, told

    Wanted(to, precision, calibrate, verify, fold, tolerance).check()
    named = (("calibrate", calibrate), ("verify", verify))
    manifests = {name: load_manifest(path, data_root) if path else None for name, path in named}
    with Bar("comparing with torch") as bar:
        found = export_model(
            model,
            out,
            to=to,
            precision=precision,
            **manifests,
            fold=fold,
            tolerance=tolerance,
            overwrite=overwrite,
            progress=lambda done, total: bar.update(done, total),
        )
    for line in told(found):
        typer.echo(visible(line))
    typer.echo(told_peak())
