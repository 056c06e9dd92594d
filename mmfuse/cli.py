"""The command line: thin, and heavy imports only inside the commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import mmfuse
from mmfuse.types import MmfuseError

app = typer.Typer(
    name="mmfuse",
    help="Text-image fusion: train joint models, predict with them, compare them honestly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
data_app = typer.Typer(help="Look at a dataset, prepare a public one, or make a synthetic one.", no_args_is_help=True)
app.add_typer(data_app, name="data")
cache_app = typer.Typer(help="What is kept of frozen encoders' features.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")

NOTHING_READ = 3
DATA_FAILS = 4
INTERRUPTED = 130

PluginOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file that registers fusions, heads, report metrics or sources."),
]
MissingOption = Annotated[
    str, typer.Option("--missing", help="A modality that never was missing in training: error or allow.")
]
GenerationOption = Annotated[
    list[str] | None,
    typer.Option("--generation", help="How captions are written, such as num_beams=4 (see mmfuse config)."),
]
RootOption = Annotated[str | None, typer.Option("--data-root", help="What ${data_root} stands for in the manifest.")]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"mmfuse {mmfuse.__version__}")
        raise typer.Exit


@app.command(epilog="Example: mmfuse train configs/phantom.yaml training.epochs=3 seed=1")
def train(
    config: Annotated[Path, typer.Argument(help="YAML file; `mmfuse config` prints the schema.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, on top of the file.")] = None,
    data_root: RootOption = None,
    plugin: PluginOption = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what is in the run's folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell steps, time, memory and disk; write nothing.")
    ] = False,
) -> None:
    """Train a model, or go on where a run was interrupted; writes runs/NAME, the model folder is runs/NAME/model."""
    from mmfuse.config import load_config

    loaded = load_config(config, overrides or [])
    loaded.data.root = data_root or loaded.data.root
    loaded.plugins += [str(p) for p in plugin or []]
    _quiet_libraries()
    if dry_run:
        from mmfuse.training.estimate import estimate_training

        estimate = estimate_training(loaded)
        if _is_main_process():
            typer.echo(estimate.text())
        return
    from mmfuse.evaluation.evaluate import format_report
    from mmfuse.training import train as run_training

    run = run_training(loaded, restart=restart)
    if _is_main_process():
        typer.echo(format_report(run.report))
        typer.echo(
            f"model:  {run.model_dir}\nreport: {run.dir / run.report['split']}\ncurve:  "
            f"{run.dir / 'learning_curve.png'}"
        )


@app.command(epilog="Example: mmfuse evaluate runs/phantom/model data/phantom/manifest.yaml --split test")
def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.")],
    manifest: Annotated[str, typer.Argument(help="Data manifest: a path or a URL.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    fold: Annotated[int | None, typer.Option(help="Which fold is the test set, where the manifest says folds.")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for metrics.json, predictions.jsonl and confusion matrices.")
    ] = Path("evaluation"),
    data_root: RootOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per forward pass.")] = 64,
    cache: Annotated[
        bool, typer.Option("--cache", help="Share features of encoders that were frozen in training.")
    ] = False,
    plugin: PluginOption = None,
) -> None:
    """Score a model on a split, each score with a 95 % interval."""
    _load_plugins(plugin)
    _quiet_libraries()
    from mmfuse.evaluation.evaluate import evaluate as run_evaluation
    from mmfuse.evaluation.evaluate import format_report

    with _Bar("evaluating") as bar:
        report = run_evaluation(
            model,
            manifest,
            split=split,
            fold=fold,
            data_root=data_root,
            out=out,
            batch_size=batch_size,
            cache=cache,
            progress=lambda done, total: bar.update(done, total),
        )
    if _is_main_process():
        typer.echo(format_report(report))
        typer.echo(f"written to {out}")


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
            help="Folder of images and reports; csv, tsv, jsonl or parquet table; folder of shards. "
            "Of the last two also a URL: s3://..."
        ),
    ],
    out: Annotated[str, typer.Option(help="predictions.jsonl, .csv or .parquet; also at a URL.")] = "predictions.jsonl",
    layout: Annotated[str, typer.Option(help="Pair by stem, by study folder, or find out: auto.")] = "auto",
    missing: MissingOption = "error",
    batch_size: Annotated[int, typer.Option(min=1, help="Studies per forward pass.")] = 16,
    id_column: Annotated[str, typer.Option(help="Of a table.")] = "id",
    image_column: Annotated[str, typer.Option(help="Of a table; paths are relative to it.")] = "image",
    text_column: Annotated[str, typer.Option(help="Of a table.")] = "text",
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
    _load_plugins(plugin)
    _quiet_libraries()
    from mmfuse.config import read_overrides
    from mmfuse.data.stores import is_local, local_path
    from mmfuse.predict import (
        FolderStudies,
        Predictor,
        SampleStudies,
        Studies,
        fingerprint,
        open_studies,
        predict_to_chunks,
        predict_to_file,
        tell_cut_texts,
        watch_folder,
    )

    of_ray = {"--actors": actors, "--gpus-per-actor": gpus_per_actor, "--cpus-per-actor": cpus_per_actor}
    in_chunks = _check_engine(engine, of_ray) or not is_local(out)
    if in_chunks and (watch or captions_dir):
        other = "--engine ray" if engine == "ray" else f"--out {out}"
        raise MmfuseError(f"{'--watch' if watch else '--captions-dir'} does not go with {other}")
    if engine == "ray":  # its actors start in folders of their own
        from mmfuse.predict.ray import Actors, Work, run_on_ray

        source, model = (os.path.abspath(name) if os.path.exists(name) else name for name in (source, model))
    studies: Studies = SampleStudies([])
    if watch:
        if dry_run:
            raise MmfuseError("--watch: how many studies will come is not known; leave --dry-run out")
        if captions_dir or not os.path.isdir(source):
            wrong = "does not go with --captions-dir" if captions_dir else f"{source} is not a folder"
            raise MmfuseError(f"--watch: {wrong}")
    else:
        studies = open_studies(source, layout, id_column, image_column, text_column, damaged)
        if isinstance(studies, FolderStudies) and studies.ignored:
            typer.echo(f"{len(studies.ignored)} file(s) ignored, such as {studies.ignored[0]!r}", err=True)
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "missing": missing,
        "abstain": abstain,
        "generation": read_overrides(generation or []),
    }
    predictor = Predictor.from_pretrained(model, device="cpu" if engine == "ray" else device, **options)
    for plan in predictor.abstentions.values():
        typer.echo(plan.about, err=True)
    if dry_run:
        from mmfuse.predict.estimate import estimate_predictions

        typer.echo(estimate_predictions(predictor, studies).text())
        return
    identity = fingerprint(predictor.model, missing, abstain)
    if watch:
        seen = watch_folder(
            predictor,
            Path(source),
            local_path(out),
            layout="stem" if layout == "auto" else layout,  # type: ignore[arg-type]
            settle=settle,
            fingerprint=identity,
            overwrite=overwrite,
            tell=lambda line: typer.echo(line, err=True),
        )
        _tell_counts(seen.counts, out)
        if seen.left:
            id, reason = next(iter(seen.left.items()))
            typer.echo(f"{len(seen.left)} studies left, such as {id!r}: {reason}")
        raise typer.Exit(INTERRUPTED)
    run = None
    if engine == "ray":
        plugins = tuple(os.path.abspath(path) for path in plugin or [])
        work = Work(model, studies, identity, {**options, "device": device}, plugins)
        run = run_on_ray(work, Actors(actors, gpus_per_actor, cpus_per_actor), lambda line: typer.echo(line, err=True))
    with _Bar("predicting") as bar:
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


def _check_engine(engine: str, of_ray: dict[str, Any]) -> bool:
    """Whether it is Ray."""
    if engine not in ("local", "ray"):
        raise MmfuseError(f"--engine {engine!r} is not legal; legal: local, ray")
    given = [name for name, value in of_ray.items() if value is not None]
    if given and engine == "local":
        raise MmfuseError(f"{given[0]} goes with --engine ray only")
    return engine == "ray"


def _tell_counts(counts: Any, out: str) -> None:
    errors = f"{os.path.splitext(out)[0]}.errors.jsonl"
    typer.echo(
        f"{counts.predictions + counts.errors} studies: {counts.predictions} predictions in {out}, {counts.errors} "
        f"errors in {errors}"
    )
    for task, held in counts.abstained.items():
        typer.echo(f"abstained, {task}: {held} decision(s)")


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
    _load_plugins(plugin)
    _quiet_libraries()
    from mmfuse.config import read_overrides
    from mmfuse.data.folder import find_study
    from mmfuse.evaluation.explain import explain as run
    from mmfuse.predict import Predictor

    sample = find_study(study).sample()
    predictor = Predictor.from_pretrained(model, missing=missing, generation=read_overrides(generation or []))
    for path in run(predictor, sample, out):
        typer.echo(f"written: {path}")


@app.command(epilog="Example: mmfuse benchmark configs/benchmark_interactions.yaml preset=quick --dry-run")
def benchmark(
    config: Annotated[Path, typer.Argument(help="Config of the benchmark (YAML).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, as in seeds=5.")] = None,
    data_root: RootOption = None,
    plugin: PluginOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell rows, cells, time and disk; run nothing.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what is in the folder.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Go on though rows leak between splits.")] = False,
    worker: Annotated[bool, typer.Option("--worker", hidden=True)] = False,
) -> None:
    """Compare fusion strategies on equal terms; a second start goes on where the first one ended."""
    _quiet_libraries()
    from mmfuse.benchmarking.run import benchmark as run
    from mmfuse.benchmarking.run import dry_run as plan
    from mmfuse.benchmarking.run import work

    if worker:
        work(config.parent, force)
        return
    chosen = list(overrides or [])
    chosen += [f"data.root={data_root}"] if data_root else []
    if plugin:
        from mmfuse.benchmarking.config import load_benchmark_config

        paths = [*load_benchmark_config(config, chosen).plugins, *(str(path) for path in plugin)]
        chosen.append(f"plugins=[{', '.join(dict.fromkeys(paths))}]")
    if dry_run:
        typer.echo(plan(config, chosen, force=force))
        return
    done = run(config, chosen, restart=restart, force=force)
    for task, found in done.summary["tasks"].items():
        typer.echo(f"{task}: {found['verdict']}")
    typer.echo(f"report: {done.dir / 'report.html'}")
    typer.echo(f"table:  {done.dir / 'table.md'}")


@app.command(epilog="Example: mmfuse compare runs/frozen runs/finetuned")
def compare(
    one: Annotated[Path, typer.Argument(help="Folder of a finished benchmark.")],
    other: Annotated[Path, typer.Argument(help="Another one.")],
) -> None:
    """Set two finished benchmarks side by side."""
    from mmfuse.benchmarking.compare import compare_benchmarks

    typer.echo(compare_benchmarks(one, other))


@app.command(epilog="Example: mmfuse check my_fusion --plugin my_fusion.py")
def check(
    name: Annotated[str, typer.Argument(help="A registered fusion.")],
    plugin: PluginOption = None,
) -> None:
    """Run the conformance suite over a fusion strategy."""
    _load_plugins(plugin)
    from mmfuse.fusion import FUSIONS
    from mmfuse.testing import ConformanceError, fusion_checks

    FUSIONS.get(name)
    failed = 0
    for title, run in fusion_checks().items():
        try:
            run(name)
            typer.echo(f"ok      {title}")
        except ConformanceError as error:
            failed += 1
            typer.echo(f"FAILED  {title}: {error}")
    if failed:
        raise MmfuseError(f"{name}: {failed} check(s) failed")


@app.command("list", epilog="Example: mmfuse list fusions")
def list_names(
    kind: Annotated[str, typer.Argument(help="fusions, heads or report_metrics.")],
    plugin: PluginOption = None,
) -> None:
    """What can be named in a config, with its options and one line on each."""
    import inspect

    from mmfuse.registry import nearest

    kinds = ("fusions", "heads", "report_metrics")
    if kind not in kinds:
        raise MmfuseError(f"{kind!r} is not legal; {nearest(kind, kinds)}")
    _load_plugins(plugin)
    from mmfuse.evaluation.report_metrics import REPORT_METRICS
    from mmfuse.fusion import FUSIONS
    from mmfuse.heads import HEADS

    registry = dict(zip(kinds, (FUSIONS, HEADS, REPORT_METRICS), strict=True))[kind]
    for name in registry.names():
        cls = registry.get(name)
        options = [str(p) for p in inspect.signature(cls).parameters.values() if p.default is not p.empty]
        typer.echo(f"{name}: {(inspect.getdoc(cls) or '').splitlines()[0]}")
        typer.echo(f"    options: {', '.join(options).replace(': int', '').replace(': float', '') or 'none'}")


@app.command()
def config() -> None:
    """Print the schema of a run's config, with defaults and what each key means."""
    from mmfuse.config import schema

    typer.echo(schema(), nl=False)


@data_app.command("check", epilog="Example: mmfuse data check studies.yaml --out audit --strict")
def data_check(
    manifest: Annotated[str, typer.Argument(help="Data manifest: a path or a URL.")],
    data_root: RootOption = None,
    fold: Annotated[int | None, typer.Option(help="Where the manifest says folds; default: the first.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that gets audit.html and audit.json.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="What the text encoder is going to read.")] = 512,
    identifiers: Annotated[str, typer.Option(help="Personal identifiers by rules, presidio, or off.")] = "rules",
    redact: Annotated[
        Path | None, typer.Option(help="New folder for a copy of the rows without the identifiers found.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
) -> None:
    """Say what is in a dataset and what is wrong with it; exit code 4 if there is an error (--strict: or a warning)."""
    import json

    from mmfuse.data.audit import audit
    from mmfuse.data.audit.page import page
    from mmfuse.data.audit.redact import redact_rows
    from mmfuse.data.identifiers import find_by_rules, presidio_finder
    from mmfuse.data.manifest import TASK_TYPES, load_manifest
    from mmfuse.registry import nearest

    finders = {"rules": lambda: find_by_rules, "presidio": presidio_finder, "off": lambda: None}
    if identifiers not in finders:
        raise MmfuseError(f"--identifiers {identifiers!r} is not legal; {nearest(identifiers, finders)}")
    find = finders[identifiers]()
    if redact is not None and find is None:
        raise MmfuseError("--redact needs identifiers to be found: --identifiers rules or presidio")
    loaded = load_manifest(manifest, data_root)
    for name, task in loaded.tasks.items():
        if task.type not in TASK_TYPES:  # a plug-in's, or none: only then is torch worth its seconds
            from mmfuse.heads import HEADS

            if task.type not in HEADS.names():
                raise MmfuseError(f"{manifest}: tasks.{name}.type: {task.type!r}; {nearest(task.type, HEADS.names())}")
    with _Bar("checking") as bar:
        report = audit(
            loaded,
            fold=fold,
            max_tokens=max_tokens,
            find=find,
            progress=lambda what, done, total: bar.update(done, total, what),
        )
    typer.echo(report.text())
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "audit.json").write_text(json.dumps(report.as_json(), indent=1), encoding="utf-8")
        (out / "audit.html").write_text(page(report), encoding="utf-8", errors="replace")
        typer.echo(f"written: {out / 'audit.html'}, {out / 'audit.json'}")
    if redact is not None and find is not None:
        with _Bar("redacting") as bar:
            path, counts = redact_rows(loaded, redact, find, progress=lambda done, total: bar.update(done, total))
        told = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())) or "nothing"
        typer.echo(f"written: {path}; replaced: {told}")
    if report.fails(strict):
        raise typer.Exit(DATA_FAILS)


@data_app.command("shard", epilog="Example: mmfuse data shard studies.yaml --out s3://bucket/studies --size 256MB")
def data_shard(
    manifest: Annotated[str, typer.Argument(help="Data manifest: a path or a URL.")],
    out: Annotated[str, typer.Option(help="New folder for the shards: a path or a URL; a bucket must exist.")],
    size: Annotated[str, typer.Option(help="Of a shard: 1KB to 1GiB; with KB, MB, GB, KiB, MiB or GiB.")] = "128MB",
    data_root: RootOption = None,
    fold: Annotated[int | None, typer.Option(help="Which fold is the test set, where the manifest says folds.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace shards of other data.")] = False,
) -> None:
    """Write a dataset as shards, parquet files with the images inside, and their manifest. Goes on where it was killed.

    Every image is decoded once; a row with one that cannot be read goes to errors.jsonl, with the reason.
    """
    from mmfuse.data.blocks import open_blocks
    from mmfuse.data.manifest import load_manifest
    from mmfuse.data.sharding import parse_size, write_shards
    from mmfuse.data.shards import is_shards

    wanted, loaded = parse_size(size), load_manifest(manifest, data_root)
    if is_shards(loaded.rows):
        raise MmfuseError(f"{manifest}: its rows are shards already")
    with _Bar("sharding") as bar:
        shards = write_shards(
            open_blocks(loaded, fold, tell=lambda line: typer.echo(line, err=True)),
            out,
            size=wanted,
            overwrite=overwrite,
            progress=lambda done, total, errors: bar.update(done, total, f"{errors} errors"),
            tell=lambda line: typer.echo(line, err=True),
        )
    rows = sum(shard.rows for shard in shards.shards)
    typer.echo(f"{rows + shards.errors} rows = {rows} in {len(shards.shards)} shards + {shards.errors} errors")
    if shards.errors:
        typer.echo(f"which: {shards.url}/errors.jsonl")
    if not rows:
        raise typer.Exit(NOTHING_READ)
    typer.echo(f"next:  data.manifest={shards.url}/manifest.yaml")


@data_app.command("verify", epilog="Example: mmfuse data verify s3://bucket/studies")
def data_verify(
    shards: Annotated[str, typer.Argument(help="Folder of shards: a path or a URL.")],
) -> None:
    """Read all of every shard and check its size, sha256 and rows; exit code 4 if one is not whole."""
    from mmfuse.data.shards import verify_shards

    with _Bar("verifying") as bar:
        found = verify_shards(shards, lambda done, total: bar.update(done, total))
    for file, (shard, what) in found.damaged.items():
        typer.echo(f"{found.url}/{file} ({shard.rows} rows): {what}")
    whole, rows = len(found.shards), sum(shard.rows for shard in found.shards)
    if found.damaged:
        lost = sum(shard.rows for shard, _ in found.damaged.values())
        typer.echo(f"{whole} shards, {rows} rows: whole; {len(found.damaged)} shards, {lost} rows: damaged")
        raise typer.Exit(DATA_FAILS)
    typer.echo(f"{whole} shards, {rows} rows: all whole")


@data_app.command("phantom", epilog="Example: mmfuse data phantom data/phantom --studies 3000")
def data_phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write: images, data.csv, manifest.yaml.")],
    studies: Annotated[int, typer.Option(min=1, help="How many.")] = 3000,
    seed: Annotated[int, typer.Option(min=0, help="Another one gives other studies.")] = 0,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Instead: a folder of ID.png and ID.txt, for predict.")
    ] = False,
) -> None:
    """Write the SYNTHETIC chest phantom: pairs whose best possible scores are known."""
    from mmfuse.data.phantom import write_pairs, write_phantom
    from mmfuse.data.phantom_findings import write_language

    with _Bar("drawing") as bar:
        if pairs:
            written = [write_pairs(out, studies, seed)]
        else:
            written = [write_phantom(out, studies, seed, progress=lambda done: bar.update(done, studies))]
            written += write_language(out, seed)
    for path in written:
        typer.echo(f"written: {path}")


@data_app.command("interactions", epilog="Example: mmfuse data interactions data/interactions --train 40000")
def data_interactions(
    out: Annotated[Path, typer.Argument(help="Folder to write: images, data.csv, manifest.yaml.")],
    train: Annotated[int, typer.Option(min=0, help="Examples to train on.")] = 40_000,
    validation: Annotated[int, typer.Option(min=0, help="Examples to choose by.")] = 5_000,
    test: Annotated[int, typer.Option(min=0, help="Examples to report.")] = 15_000,
    seed: Annotated[int, typer.Option(min=0, help="Another one gives other examples.")] = 0,
    symbols: Annotated[
        int | None, typer.Option(min=1, help="Instead: this many pairs to train encoders on reading symbols.")
    ] = None,
) -> None:
    """Write the SYNTHETIC interactions: six tasks, each needing one known interaction of text and image."""
    from mmfuse.data.interactions import write_interactions, write_symbols

    with _Bar("drawing") as bar:
        if symbols is not None:
            written = write_symbols(out, symbols, seed, progress=lambda done: bar.update(done, symbols))
        else:
            total = train + validation + test
            written = write_interactions(
                out,
                train=train,
                validation=validation,
                test=test,
                seed=seed,
                progress=lambda done: bar.update(done, total),
            )
    typer.echo(f"written: {written}")


@data_app.command("sources", epilog="Example: mmfuse data sources mimic_cxr")
def data_sources(
    name: Annotated[str | None, typer.Argument(help="One of them; default: a line on each.")] = None,
    plugin: PluginOption = None,
) -> None:
    """The public datasets that `prepare` reads: licence, citation, how to get them, split, known traps."""
    _load_plugins(plugin)
    from mmfuse.data.prepare import card_text, source_lines

    typer.echo(card_text(name) if name else "\n".join(source_lines()))


@data_app.command("prepare", epilog="Example: mmfuse data prepare flickr8k --from ~/flickr8k --out data/flickr8k")
def data_prepare(
    name: Annotated[str, typer.Argument(help="Which dataset (mmfuse data sources).")],
    source: Annotated[Path, typer.Option("--from", help="Folder of the download, unpacked.")],
    out: Annotated[Path, typer.Option(help="Folder to write: rows.parquet, images, manifest.yaml, skipped.jsonl.")],
    plugin: PluginOption = None,
) -> None:
    """Turn a public dataset, as it is downloaded, into rows, images and a manifest. Goes on where it was killed.

    Images become hard links to the download, or copies where the file system has none: do not edit them in place.
    """
    _load_plugins(plugin)
    from mmfuse.data.prepare import prepare

    with _Bar("reading images") as bar:
        done = prepare(name, source, out, progress=lambda read, total: bar.update(read, total))
    skipped = sum(done.skipped.values())
    if done.already:
        typer.echo(f"{out}: finished before, and the download has not changed: nothing to do")
    typer.echo(f"{done.rows + skipped} rows in {source} = {done.rows} in {out / 'rows.parquet'} + {skipped} skipped")
    for reason, count in done.skipped.items():
        typer.echo(f"    {count} skipped: {reason}")
    if skipped:
        typer.echo(f"which: {out / 'skipped.jsonl'}")
    typer.echo(f"next:  mmfuse data check {done.manifest}")


CacheOption = Annotated[str | None, typer.Option("--dir", help="Default: $MMFUSE_CACHE or ~/.cache/mmfuse.")]


@cache_app.command("show", epilog="Example: mmfuse cache show")
def cache_show(cache_dir: CacheOption = None) -> None:
    """What the feature cache holds, that used last first."""
    from mmfuse.encoders.cache import cache_root, list_cache

    root = cache_root(cache_dir)
    entries = list_cache(root)
    for entry in entries:
        typer.echo(_cache_line(entry))
    typer.echo(f"{root}: {len(entries)} encoder(s), {sum(entry.mib for entry in entries):.1f} MiB")


@cache_app.command("prune", epilog="Example: mmfuse cache prune --unused-days 30")
def cache_prune(
    cache_dir: CacheOption = None,
    unused_days: Annotated[float, typer.Option(min=0, help="Delete what was not used for so long; 0: all.")] = 30.0,
) -> None:
    """Delete features that were not used for some days; they can be computed again."""
    from mmfuse.encoders.cache import cache_root, prune_cache

    root = cache_root(cache_dir)
    gone = prune_cache(root, unused_days)
    for entry in gone:
        typer.echo(f"deleted: {_cache_line(entry)}")
    typer.echo(f"{root}: {len(gone)} deleted, {sum(entry.mib for entry in gone):.1f} MiB")


def _cache_line(entry: Any) -> str:
    import datetime

    used = datetime.datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
    what = "tokens and pooled" if entry.tokens else "pooled"
    return f"{entry.folder.name}  {entry.tower} {entry.name}: {entry.items} items, {what}, {entry.dtype}, " + (
        f"{entry.mib:.1f} MiB, used {used}"
    )


class _Bar:
    """A progress bar on standard error, where that is a terminal."""

    def __init__(self, title: str):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        columns = (
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self.bar = Progress(
            *columns, TextColumn("left"), TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        self.task = self.bar.add_task("", total=None, note="")

    def __enter__(self) -> _Bar:
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def update(self, done: int, total: int, note: str = "") -> None:
        self.bar.update(self.task, completed=done, total=total, note=note)


def _load_plugins(paths: list[Path] | None) -> None:
    from mmfuse.registry import load_plugin

    for path in paths or []:
        load_plugin(path)


def _is_main_process() -> bool:
    from accelerate import PartialState

    return PartialState().is_main_process


def _quiet_libraries() -> None:
    """Their reports on loading weights are not the user's business."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def main() -> None:
    """Run the command line; an error of the user is one line, and exit code 2."""
    try:
        app()
    except (MmfuseError, OSError) as error:  # OSError: a folder that is a file, a full disk
        if "--debug" in sys.argv[1:]:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED and "--worker" not in sys.argv[1:]:  # who started it says so
            typer.echo("interrupted; the same command goes on from the last checkpoint or chunk", err=True)
        raise
    finally:
        _leave_processes()


def _leave_processes() -> None:
    """Tell the other processes of this launch, if there are any, that this one is done."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
