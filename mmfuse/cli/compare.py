"""`mmfuse compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmfuse.bars import Bar
from mmfuse.cli.shared import (
    PluginOption,
    RequireOption,
    RootOption,
    check_folder,
    end_by_required,
    is_main_process,
    load_plugins,
    quiet_libraries,
)
from mmfuse.types import MmfuseError

app = typer.Typer()


@app.command(
    epilog="Examples: two models: mmfuse compare runs/old/model runs/new/model data/manifest.yaml; what evaluate wrote "
    "of each: mmfuse compare old/predictions.jsonl new/predictions.jsonl; what predict wrote: "
    "mmfuse compare old.csv new.csv data/manifest.yaml; as a gate, not worse by more than a point: "
    'mmfuse compare OLD NEW MANIFEST --require "finding/accuracy >= -0.01"; two benchmarks: '
    "mmfuse compare runs/frozen runs/finetuned. "
    "Exit codes: 0 done, and all that is required holds; 5 done, but something does not; 2 an error, told in one line."
)
def compare(
    one: Annotated[
        str, typer.Argument(help="a: model folder or Hub id, predictions (.jsonl, .csv, .parquet), or a benchmark.")
    ],
    other: Annotated[str, typer.Argument(help="b: another one; every difference is b - a.")],
    manifest: Annotated[
        str | None, typer.Argument(help="Of the rows; not of benchmarks, nor of what evaluate wrote.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    fold: Annotated[int | None, typer.Option(help="Which fold is the test set, where the manifest says folds.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for comparison.json and flips.jsonl.")] = Path("comparison"),
    data_root: RootOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per forward pass.")] = 64,
    metrics: Annotated[
        str, typer.Option(help="More of them, such as mcc: names with commas between (mmfuse list metrics).")
    ] = "",
    margin: Annotated[
        float | None,
        typer.Option(help="Tell of each metric whether b is worse by less than this, in the metric's own unit."),
    ] = None,
    require: RequireOption = None,
    cache: Annotated[
        bool, typer.Option("--cache", help="Share features of encoders that were frozen in training.")
    ] = False,
    plugin: PluginOption = None,
) -> None:
    """Compare two models on the same rows: differences with intervals, and decisions that flip; or two benchmarks."""
    if manifest is None and _is_benchmark(one) and _is_benchmark(other):
        if margin is not None or require or metrics:
            raise MmfuseError("compare: --margin, --require and --metrics are for two models, not for benchmarks")
        from mmfuse.benchmarking.compare import compare_benchmarks

        typer.echo(compare_benchmarks(one, other))
        return
    check_folder(out, "--out")
    load_plugins(plugin)
    quiet_libraries()
    from mmfuse.data.tables.manifest import load_manifest
    from mmfuse.evaluation.compare import compare as run
    from mmfuse.evaluation.compare.lines import format_comparison

    with Bar("comparing") as bar:
        found = run(
            one,
            other,
            None if manifest is None else load_manifest(manifest, data_root),
            split=split,
            fold=fold,
            out=out,
            metrics=[name.strip() for name in metrics.split(",") if name.strip()],
            margin=margin,
            require=require or (),
            batch_size=batch_size,
            cache=cache,
            progress=lambda done, total: bar.update(done, total),
        )
    if is_main_process():
        typer.echo(format_comparison(found))
        typer.echo(f"written to {out}")
    end_by_required(found)


def _is_benchmark(source: str) -> bool:
    """Whether a folder is no model's, so that it must be a benchmark's."""
    return Path(source).is_dir() and not (Path(source) / "config.json").is_file()
