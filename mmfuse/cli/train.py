"""`mmfuse train`, `mmfuse report` and `mmfuse evaluate`."""

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
    read_names,
    tell_required,
    told_peak,
)

app = typer.Typer()


@app.command(epilog="Example: mmfuse train train.yaml training.epochs=3 seed=1")
def train(
    config: Annotated[Path, typer.Argument(help="YAML file; `mmfuse config` prints the schema.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, on top of the file.")] = None,
    data_root: RootOption = None,
    plugin: PluginOption = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard the content of the run's folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print steps, time, memory and disk space; write nothing.")
    ] = False,
) -> None:
    """Train a model, or resume an interrupted run; writes runs/NAME, the model folder is runs/NAME/model."""
    from mmfuse.config import load_config

    loaded = load_config(config, overrides or [])
    loaded.data.root = data_root or loaded.data.root
    loaded.plugins += [str(p) for p in plugin or []]
    quiet_libraries()
    if dry_run:
        from mmfuse.training.estimate import estimate_training

        estimate = estimate_training(loaded)
        if is_main_process():
            typer.echo(estimate.text())
        return
    from mmfuse.evaluation.evaluate import format_report
    from mmfuse.training import train as run_training

    run = run_training(loaded, restart=restart)
    if is_main_process():
        typer.echo(format_report(run.report))
        page = run.dir / "report.html"
        typer.echo(
            f"model:  {run.model_dir}\nreport: {run.dir / run.report['split']}\ncurve:  "
            f"{run.dir / 'learning_curve.png'}" + (f"\npage:   {page}" if page.is_file() else "")
        )
        typer.echo(told_peak())


@app.command(epilog="Example: mmfuse report runs/phantom --with-examples")
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    with_examples: Annotated[
        bool,
        typer.Option(
            "--with-examples", help="Show the worst errors and surest successes: pictures and texts of the data."
        ),
    ] = False,
) -> None:
    """Write the page of a finished run anew: RUN/report.html."""
    quiet_libraries()
    from mmfuse.evaluation.run_page import write_page

    typer.echo(f"page: {write_page(run, with_examples=with_examples)}")


@app.command(
    epilog="Examples: mmfuse evaluate runs/phantom/model data/phantom/manifest.yaml --split test; as a gate: "
    'mmfuse evaluate MODEL MANIFEST --require "findings/auroc_macro >= 0.8" --require "findings/ece <= 0.1". '
    "Exit codes: 0 done, and all that is required holds; 5 done, but something does not; 2 an error, told in one line."
)
def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.")],
    manifest: Annotated[str, typer.Argument(help="Data manifest: a path or a URL.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    fold: Annotated[int | None, typer.Option(help="Which fold is the test set, where the manifest says folds.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, predictions.jsonl and figures.")] = Path(
        "evaluation"
    ),
    data_root: RootOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per forward pass.")] = 64,
    metrics: Annotated[
        str, typer.Option(help="More of them, such as mcc,recall or '{name: NAME, OPTION: 2}' (mmfuse list metrics).")
    ] = "",
    operating_point: Annotated[
        str | None, typer.Option(help="One of the model's, by name, to decide at; default: its usual thresholds.")
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache", help="Share features of encoders that were frozen in training.")
    ] = False,
    analyses: Annotated[
        str | None,
        typer.Option(
            help="What is asked of the scored rows, NAME,NAME (mmfuse list analyses); default: those that are asked by "
            "themselves, '' for none."
        ),
    ] = None,
    require: RequireOption = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, bf16, or auto: what is faster here, timed on a CPU; default: as the model's own report, which "
            "is fp32 unless it was trained with mixed_precision: auto."
        ),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Score a model on a split, each score with a 95 % interval."""
    check_folder(out, "--out")
    load_plugins(plugin)
    quiet_libraries()
    from mmfuse.data.tables.manifest import load_manifest
    from mmfuse.evaluation.evaluate import evaluate as run_evaluation
    from mmfuse.evaluation.evaluate import format_report

    described = load_manifest(manifest, data_root)
    with Bar("evaluating") as bar:
        report = run_evaluation(
            model,
            described,
            split=split,
            fold=fold,
            out=out,
            batch_size=batch_size,
            metrics=read_names(metrics, "--metrics"),
            operating_point=operating_point,
            cache=cache,
            analyses=None if analyses is None else read_names(analyses, "--analyses"),
            require=require or (),
            precision=precision,
            progress=lambda done, total: bar.update(done, total),
        )
    if is_main_process():
        typer.echo(format_report(report))
        typer.echo(f"written to {out}")
        tell_required(report)
    end_by_required(report)
