"""`mmfuse predict` and `mmfuse explain`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmfuse.bars import Bar
from mmfuse.cli.request import Request, check_there
from mmfuse.cli.shared import (
    INTERRUPTED,
    NOTHING_READ,
    GenerationOption,
    MissingOption,
    PluginOption,
    load_plugins,
    quiet_libraries,
    told_peak,
)
from mmfuse.pulse import now, rest
from mmfuse.types import MmfuseError, visible

if TYPE_CHECKING:
    from mmfuse.precision import Precision
    from mmfuse.predict import Predictor

app = typer.Typer()
PrecisionOption = Annotated[
    str,
    typer.Option(
        help="fp32; bf16: faster on GPUs of 2020 and later and CPUs with avx512_bf16 or amx; auto: what is faster "
        "here, on a CPU timed for each tower; int8: with openvino, of a model that mmfuse export has calibrated."
    ),
]


@app.command(
    epilog="Examples: mmfuse predict runs/phantom/model folder/ --out predictions.jsonl; "
    "mmfuse predict MODEL table.csv --image-column film --text-column note --out predictions.csv; "
    "as studies come in: mmfuse predict MODEL inbox/ --out predictions.jsonl --watch; "
    "in a crontab, at one each night: 0 1 * * * mmfuse predict MODEL inbox/ --out night.csv --overwrite --abstain 0.95"
    "; faster on a CPU with avx512_bf16: mmfuse predict MODEL folder/ --precision auto"
    "; faster still: mmfuse predict MODEL folder/ --engine openvino --precision bf16"
    "; on many machines: mmfuse predict MODEL s3://bucket/shards --out s3://bucket/out.parquet --engine ray"
)
def predict(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.")],
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of images and reports; csv, tsv, jsonl or parquet table; manifest.yaml; folder of shards; "
            "hf:NAME@split. Of tables, manifests and shards also a URL: s3://..."
        ),
    ],
    out: Annotated[str, typer.Option(help="predictions.jsonl, .csv or .parquet; also at a URL.")] = "predictions.jsonl",
    layout: Annotated[str, typer.Option(help="Pair by stem, by study folder, or find out: auto.")] = "auto",
    missing: MissingOption = "error",
    batch_size: Annotated[int, typer.Option(min=1, help="Studies per forward pass.")] = 16,
    precision: PrecisionOption = "fp32",
    id_column: Annotated[str | None, typer.Option(help="Of a table; default: as in training.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Of a table; default: as in training.")] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Of a table, in place of the columns that the text was made of in training.")
    ] = None,
    image_root: Annotated[
        str | None, typer.Option(help="What a table's paths are relative to; default: its folder.")
    ] = None,
    image_urls: Annotated[
        list[str] | None, typer.Option(help="URLs that a table may contain: https, s3, or https://HOST; repeatable.")
    ] = None,
    damaged: Annotated[
        str, typer.Option(help="A shard that is damaged or missing: error, or skip: its rows become errors.")
    ] = "error",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: a GPU if there is one.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell time, memory and bytes; write nothing.")] = False,
    captions_dir: Annotated[
        Path | None, typer.Option(help="Folder that gets each caption as a text file, ID.txt.")
    ] = None,
    abstain: Annotated[
        float | None,
        typer.Option(help="Mark as abstained what the model is not sure of, for this accuracy on validation: 0.95."),
    ] = None,
    operating_point: Annotated[
        str | None, typer.Option(help="One of the model's, by name, to decide at; default: its usual thresholds.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Predict what appears in the folder, until Ctrl-C; auto means stem.")
    ] = False,
    settle: Annotated[
        float, typer.Option(min=0.1, help="Watching: seconds that a study's files must not have changed.")
    ] = 5.0,
    engine: Annotated[
        str,
        typer.Option(
            help="local; openvino: faster on a CPU, by an exported form of the model, which is made where there is "
            "none; ray: actors on the cluster of RAY_ADDRESS, or else on this machine."
        ),
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
    """Predict for every study; what cannot be read goes to OUT.errors.jsonl. Resumes an interrupted run."""
    request = Request(**locals())
    load_plugins(plugin)
    quiet_libraries()
    request.check()
    if request.watch:
        _watch(request)
        raise typer.Exit(INTERRUPTED)
    if request.on_ray:
        request = _for_ray(request)
    _predict_all(request)


def _watch(request: Request) -> None:
    """Predict what appears in the folder, until it is interrupted."""
    from mmfuse.data.files.stores import local_path
    from mmfuse.predict import watch_folder

    predictor = request.load()
    _tell_whole_texts(predictor)
    rest()
    seen = watch_folder(
        predictor,
        Path(request.source),
        local_path(request.out),
        layout="stem" if request.layout == "auto" else request.layout,  # type: ignore[arg-type]
        settle=request.settle,
        fingerprint=request.fingerprint(predictor),
        overwrite=request.overwrite,
        tell=lambda line: typer.echo(line, err=True),
    )
    _tell_counts(seen.counts, request.out)
    if seen.left:
        id, reason = next(iter(seen.left.items()))
        typer.echo(visible(f"{len(seen.left)} studies left, such as {id!r}: {reason}"))


def _for_ray(request: Request) -> Request:
    """With absolute paths: actors start in folders of their own."""
    import mmfuse.predict.ray  # noqa: F401 - refused before a model is loaded where Ray is not installed

    source, model = (
        os.path.abspath(name) if os.path.exists(name) else name for name in (request.source, request.model)
    )
    return dataclasses.replace(request, source=source, model=model)


def _predict_all(request: Request) -> None:
    """Predict every study of the source; the exit code tells where none could be read."""
    check_there(request.source)
    predictor = request.load()
    now("listing the studies")
    studies = _open(request, predictor)
    if request.dry_run:
        _estimate(request, predictor, studies)
        return
    counts = _predict(request, predictor, studies)
    _tell_counts(counts, request.out, "" if request.on_ray else f"; {told_peak(predictor.device)}")  # actors have Ray's
    if counts.cut:
        from mmfuse.predict import tell_cut_texts

        encoder: Any = predictor.model.text_encoder
        limit = {"max_length": encoder.max_length, "truncation": encoder.truncation}
        typer.echo(tell_cut_texts({"texts": counts.texts, "cut": counts.cut, **limit}))
    if counts.predictions == 0:
        raise typer.Exit(NOTHING_READ)


def _predict(request: Request, predictor: Predictor, studies: Any) -> Any:
    """Predict the studies, here or on Ray, and count."""
    from mmfuse.data.files.stores import local_path
    from mmfuse.predict import predict_to_chunks, predict_to_file

    fingerprint = request.fingerprint(predictor)
    run = _ray_run(request, studies, fingerprint, predictor.precision) if request.on_ray else None
    with Bar("predicting") as bar:
        common: dict[str, Any] = {
            "fingerprint": fingerprint,
            "overwrite": request.overwrite,
            "progress": lambda done, errors: bar.update(done, len(studies), f"{errors} errors"),
        }
        if request.in_chunks:
            where = request.out if "://" in request.out else os.path.abspath(request.out)
            return predict_to_chunks(predictor, studies, where, run=run, **common)
        out = local_path(request.out)
        return predict_to_file(predictor, studies, out, captions_dir=request.captions_dir, **common)


def _ray_run(request: Request, studies: Any, fingerprint: str, precision: Precision) -> Callable[..., Any]:
    """What has Ray's actors predict the chunks."""
    from mmfuse.predict.ray import Actors, Work, run_on_ray

    plugins = tuple(os.path.abspath(path) for path in request.plugin or [])
    options = {**request.options, "device": request.device, "precision": precision}
    work = Work(request.model, studies, fingerprint, options, plugins)
    actors = Actors(request.actors, request.gpus_per_actor, request.cpus_per_actor)
    return run_on_ray(work, actors, lambda line: typer.echo(line, err=True))


def _estimate(request: Request, predictor: Predictor, studies: Any) -> None:
    from mmfuse.predict.estimate import estimate_predictions

    typer.echo(estimate_predictions(predictor, studies).text())
    if request.on_ray:
        typer.echo("ray:      N actors like this process take an Nth of the time; the cluster was not asked")


def _open(request: Request, predictor: Predictor) -> Any:
    """The studies, and a line that says what of them is read."""
    from mmfuse.data.rows.folder import tell_ignored
    from mmfuse.predict import FolderStudies, TableStudies, open_studies

    source, layout, table = request.source, request.layout, request.table
    studies = open_studies(source, layout, table, request.damaged, predictor.model)
    if layout != "auto" and not isinstance(studies, FolderStudies):
        raise MmfuseError(f"--layout {layout}: {source} is not a folder of files; leave the option out")
    if isinstance(studies, TableStudies):
        typer.echo(visible(studies.reading.about), err=True)
    elif table != type(table)():
        raise MmfuseError(f"{source}: not a table: --id-column, --image-... and --text-column require one")
    if isinstance(studies, FolderStudies):
        _tell_whole_texts(predictor)
        if studies.ignored:
            typer.echo(visible(tell_ignored(studies.ignored)), err=True)
    if request.on_ray and getattr(studies, "holds_images", False):
        raise MmfuseError(f"--engine ray: {source} contains images: convert it to shards (mmfuse data shard)")
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


def _tell_counts(counts: Any, out: str, memory: str = "") -> None:
    from mmfuse.predict.reasons import tell_kinds

    errors = f"{os.path.splitext(out)[0]}.errors.jsonl"
    typer.echo(
        f"{counts.predictions + counts.errors} studies: {counts.predictions} predictions in {out}, {counts.errors} "
        f"errors in {errors}{memory}"
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
    from mmfuse.data.rows.folder import find_study
    from mmfuse.evaluation.explain import explain as run
    from mmfuse.predict import Predictor

    sample = find_study(study).sample()
    predictor = Predictor.from_pretrained(model, missing=missing, generation=read_overrides(generation or []))
    for path in run(predictor, sample, out):
        typer.echo(f"written: {path}")
