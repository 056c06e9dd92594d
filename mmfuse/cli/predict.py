"""`mmfuse predict` and `mmfuse explain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mmfuse.cli.shared import (
    INTERRUPTED,
    NOTHING_READ,
    Bar,
    GenerationOption,
    MissingOption,
    PluginOption,
    load_plugins,
    quiet_libraries,
)
from mmfuse.pulse import now, rest
from mmfuse.types import MmfuseError, visible

app = typer.Typer()


@app.command(
    epilog="Examples: mmfuse predict runs/phantom/model folder/ --out predictions.jsonl; "
    "mmfuse predict MODEL table.csv --image-column film --text-column note --out predictions.csv; "
    "as studies come in: mmfuse predict MODEL inbox/ --out predictions.jsonl --watch; "
    "in a crontab, at one each night: 0 1 * * * mmfuse predict MODEL inbox/ --out night.csv --overwrite --abstain 0.95"
    "; on many machines: mmfuse predict MODEL s3://bucket/shards --out s3://bucket/out.parquet --engine ray"
)
def predict(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.")],
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of images and reports; csv, tsv, jsonl or parquet table; manifest.yaml; folder of shards. "
            "Of the last three also a URL: s3://..."
        ),
    ],
    out: Annotated[str, typer.Option(help="predictions.jsonl, .csv or .parquet; also at a URL.")] = "predictions.jsonl",
    layout: Annotated[str, typer.Option(help="Pair by stem, by study folder, or find out: auto.")] = "auto",
    missing: MissingOption = "error",
    batch_size: Annotated[int, typer.Option(min=1, help="Studies per forward pass.")] = 16,
    id_column: Annotated[str | None, typer.Option(help="Of a table; default: as in training.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Of a table; default: as in training.")] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Of a table, in place of the columns that the text was made of in training.")
    ] = None,
    image_root: Annotated[
        str | None, typer.Option(help="What a table's paths are relative to; default: its folder.")
    ] = None,
    image_urls: Annotated[
        list[str] | None, typer.Option(help="URLs that may stand in a table: https, s3, or https://HOST; repeatable.")
    ] = None,
    damaged: Annotated[
        str, typer.Option(help="A shard that is damaged or missing: error, or skip: its rows become errors.")
    ] = "error",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: a GPU if there is one.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell time, memory and bytes; write nothing.")] = False,
    captions_dir: Annotated[
        Path | None, typer.Option(help="Folder that gets each caption as a text file, ID.txt.")
    ] = None,
    abstain: Annotated[
        float | None,
        typer.Option(help="Mark as abstained what the model is not sure of, for this accuracy on validation: 0.95."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Predict what appears in the folder, until Ctrl-C; auto means stem.")
    ] = False,
    settle: Annotated[
        float, typer.Option(min=0.1, help="Watching: seconds that a study's files must not have changed.")
    ] = 5.0,
    engine: Annotated[
        str, typer.Option(help="local, or ray: actors on the cluster of RAY_ADDRESS, or else on this machine.")
    ] = "local",
    actors: Annotated[
        int | None, typer.Option(min=1, help="Ray: how many; default: one a GPU, where there is none one per 4 CPUs.")
    ] = None,
    gpus_per_actor: Annotated[float | None, typer.Option(min=0, help="Ray: may be a share, such as 0.25.")] = None,
    cpus_per_actor: Annotated[
        float | None, typer.Option(min=0.01, help="Ray: as many threads compute, if OMP_NUM_THREADS is not set.")
    ] = None,
    generation: GenerationOption = None,
    plugin: PluginOption = None,
) -> None:
    """Predict for every study; what cannot be read goes to OUT.errors.jsonl. Goes on where a run was killed."""
    load_plugins(plugin)
    quiet_libraries()
    from mmfuse.config import read_overrides
    from mmfuse.data.files.stores import is_local, local_path
    from mmfuse.predict import (
        Predictor,
        TableOptions,
        fingerprint,
        predict_to_chunks,
        predict_to_file,
        tell_cut_texts,
    )

    of_ray = {"--actors": actors, "--gpus-per-actor": gpus_per_actor, "--cpus-per-actor": cpus_per_actor}
    in_chunks = _check_engine(engine, of_ray) or not is_local(out)
    if in_chunks and (watch or captions_dir):
        other = "--engine ray" if engine == "ray" else f"--out {out}"
        raise MmfuseError(f"{'--watch' if watch else '--captions-dir'} does not go with {other}")
    if layout not in ("auto", "stem", "study"):
        raise MmfuseError(f"--layout {layout!r} is not legal; legal: auto, stem, study")
    if captions_dir and captions_dir.resolve().is_relative_to(Path(source).resolve()):
        raise MmfuseError(f"--captions-dir {captions_dir}: is in {source}, where captions would be taken for reports")
    if engine == "ray":  # its actors start in folders of their own
        from mmfuse.predict.ray import Actors, Work, run_on_ray

        source, model = (os.path.abspath(name) if os.path.exists(name) else name for name in (source, model))
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "missing": missing,
        "abstain": abstain,
        "generation": read_overrides(generation or []),
    }

    def load() -> Predictor:
        now("loading the model")
        predictor = Predictor.from_pretrained(model, device="cpu" if engine == "ray" else device, **options)
        for plan in predictor.abstentions.values():
            typer.echo(visible(plan.about), err=True)
        return predictor

    table = TableOptions(id_column, image_column, text_column, image_root, tuple(image_urls or ()))
    if watch:
        if dry_run:
            raise MmfuseError("--watch: how many studies will come is not known; leave --dry-run out")
        if captions_dir or table != TableOptions() or not os.path.isdir(source):
            wrong = "does not go with --captions-dir" if captions_dir else f"{source} is not a folder"
            wrong = (
                wrong if table == TableOptions() else "a folder has no columns; leave --...-column and --image-... out"
            )
            raise MmfuseError(f"--watch: {wrong}")
        predictor = load()
        _tell_whole_texts(predictor)
        _watch(predictor, source, out, layout, settle, fingerprint(predictor.model, missing, abstain), overwrite)
        raise typer.Exit(INTERRUPTED)
    _check_there(source)
    predictor = load()
    now("listing the studies")
    studies = _open(predictor, source, layout, table, damaged)
    if engine == "ray" and getattr(studies, "holds_images", False):
        raise MmfuseError(f"--engine ray: {source} holds images themselves: make shards of it (mmfuse data shard)")
    if dry_run:
        from mmfuse.predict.estimate import estimate_predictions

        typer.echo(estimate_predictions(predictor, studies).text())
        if engine == "ray":
            typer.echo("ray:      N actors like this process take an Nth of the time; the cluster was not asked")
        return
    identity, run = fingerprint(predictor.model, missing, abstain), None
    if engine == "ray":
        plugins = tuple(os.path.abspath(path) for path in plugin or [])
        work = Work(model, studies, identity, {**options, "device": device}, plugins)
        run = run_on_ray(work, Actors(actors, gpus_per_actor, cpus_per_actor), lambda line: typer.echo(line, err=True))
    with Bar("predicting") as bar:
        common: dict[str, Any] = {
            "fingerprint": identity,
            "overwrite": overwrite,
            "progress": lambda done, errors: bar.update(done, len(studies), f"{errors} errors"),
        }
        if in_chunks:
            where = out if "://" in out else os.path.abspath(out)
            counts = predict_to_chunks(predictor, studies, where, run=run, **common)
        else:
            counts = predict_to_file(predictor, studies, local_path(out), captions_dir=captions_dir, **common)
    _tell_counts(counts, out)
    if counts.cut:
        encoder: Any = predictor.model.text_encoder
        limit = {"max_length": encoder.max_length, "truncation": encoder.truncation}
        typer.echo(tell_cut_texts({"texts": counts.texts, "cut": counts.cut, **limit}))
    if counts.predictions == 0:
        raise typer.Exit(NOTHING_READ)


def _check_there(source: str) -> None:
    """Refuse a path where nothing is before a model is loaded."""
    try:
        if "://" not in source:
            os.stat(source)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise MmfuseError(f"{source}: {reason}; expected a folder, a table, a manifest or shards") from error


def _open(predictor: Any, source: str, layout: str, table: Any, damaged: str) -> Any:
    """The studies, and a line that says what of them is read."""
    from mmfuse.predict import FolderStudies, TableStudies, open_studies
    from mmfuse.predict.folder import tell_ignored

    studies = open_studies(source, layout, table, damaged, predictor.model)
    if layout != "auto" and not isinstance(studies, FolderStudies):
        raise MmfuseError(f"--layout {layout}: {source} is no folder of files; leave it out")
    if isinstance(studies, TableStudies):
        typer.echo(visible(studies.reading.about), err=True)
    elif table != type(table)():
        raise MmfuseError(f"{source}: no table: --id-column, --image-... and --text-column are for one")
    if isinstance(studies, FolderStudies):
        _tell_whole_texts(predictor)
        if studies.ignored:
            typer.echo(visible(tell_ignored(studies.ignored)), err=True)
    return studies


def _tell_whole_texts(predictor: Any) -> None:
    """Say it where a folder's reports are not what the model's texts were made of."""
    spec = predictor.model.inputs and predictor.model.inputs.recipe.text
    if spec and (len(spec.columns) > 1 or spec.template):
        typer.echo(
            f"each report is the text as it is; in training it was made of {visible(', '.join(spec.columns))}"
            f"{' by a template' if spec.template else ''}",
            err=True,
        )


def _watch(
    predictor: Any, source: str, out: str, layout: str, settle: float, fingerprint: str, overwrite: bool
) -> None:
    """Predict what appears in the folder, until it is interrupted."""
    from mmfuse.data.files.stores import local_path
    from mmfuse.predict import watch_folder

    rest()
    seen = watch_folder(
        predictor,
        Path(source),
        local_path(out),
        layout="stem" if layout == "auto" else layout,  # type: ignore[arg-type]
        settle=settle,
        fingerprint=fingerprint,
        overwrite=overwrite,
        tell=lambda line: typer.echo(line, err=True),
    )
    _tell_counts(seen.counts, out)
    if seen.left:
        id, reason = next(iter(seen.left.items()))
        typer.echo(visible(f"{len(seen.left)} studies left, such as {id!r}: {reason}"))


def _check_engine(engine: str, of_ray: dict[str, Any]) -> bool:
    """Whether it is Ray."""
    if engine not in ("local", "ray"):
        raise MmfuseError(f"--engine {engine!r} is not legal; legal: local, ray")
    given = [name for name, value in of_ray.items() if value is not None]
    if given and engine == "local":
        raise MmfuseError(f"{given[0]} goes with --engine ray only")
    return engine == "ray"


def _tell_counts(counts: Any, out: str) -> None:
    from mmfuse.predict.reasons import tell_kinds

    errors = f"{os.path.splitext(out)[0]}.errors.jsonl"
    typer.echo(
        f"{counts.predictions + counts.errors} studies: {counts.predictions} predictions in {out}, {counts.errors} "
        f"errors in {errors}"
    )
    if counts.reasons:
        typer.echo(f"errors: {tell_kinds(counts.reasons)}")
    for task, held in counts.abstained.items():
        typer.echo(visible(f"abstained, {task}: {held} decision(s)"))


@app.command(epilog="Example: mmfuse explain runs/phantom_captions/model studies/phantom-0-000007 --out explained")
def explain(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id, with a captioning task.")],
    study: Annotated[
        Path, typer.Argument(help="An image, whose text has the same name; their path without suffix; or a folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("explained"),
    missing: MissingOption = "error",
    generation: GenerationOption = None,
    plugin: PluginOption = None,
) -> None:
    """Draw where a caption's words come from: the decoder's attention over the image, word by word."""
    load_plugins(plugin)
    quiet_libraries()
    from mmfuse.config import read_overrides
    from mmfuse.evaluation.explain import explain as run
    from mmfuse.predict import Predictor
    from mmfuse.predict.folder import find_study

    sample = find_study(study).sample()
    predictor = Predictor.from_pretrained(model, missing=missing, generation=read_overrides(generation or []))
    for path in run(predictor, sample, out):
        typer.echo(f"written: {path}")
