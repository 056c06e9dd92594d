"""`mmfuse data`: look at a dataset, prepare a public one, make a synthetic one, write shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmfuse.bars import Bar
from mmfuse.cli.shared import DATA_FAILS, NOTHING_READ, PluginOption, RootOption, check_folder, load_plugins
from mmfuse.types import MmfuseError, visible

if TYPE_CHECKING:
    from mmfuse.data.audit import AuditReport
    from mmfuse.data.tables.manifest import Manifest

app = typer.Typer(help="Look at a dataset, prepare a public one, or make a synthetic one.", no_args_is_help=True)


@app.command("check", epilog="Example: mmfuse data check studies.yaml --out audit --strict")
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
    groups: Annotated[
        Path | None, typer.Option(help="New csv of id and group that joins copies and near copies, for the manifest.")
    ] = None,
    drop: Annotated[
        str | None, typer.Option(help="copies: --out gets the rows without them too, and their manifest.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Say what is in a dataset and what is wrong with it; exit code 4 if there is an error (--strict: or a warning)."""
    import json

    from mmfuse.data.audit import audit
    from mmfuse.data.audit.identifiers import find_by_rules, presidio_finder
    from mmfuse.data.audit.page import page
    from mmfuse.data.audit.redact import redact_rows
    from mmfuse.data.tables.manifest import is_shards, load_manifest
    from mmfuse.registry import nearest

    finders = {"rules": lambda: find_by_rules, "presidio": presidio_finder, "off": lambda: None}
    if identifiers not in finders:
        raise MmfuseError(f"--identifiers {identifiers!r} is not legal; {nearest(identifiers, finders)}")
    find = finders[identifiers]()
    if redact is not None and find is None:
        raise MmfuseError("--redact needs identifiers to be found: --identifiers rules or presidio")
    _check_outputs(groups, drop, out)
    check_folder(redact, "--redact")
    load_plugins(plugin)
    loaded = load_manifest(manifest, data_root)
    if any(task.report_metrics for task in loaded.tasks.values()) and not is_shards(loaded.rows):
        from mmfuse.evaluation.report_metrics import check_report_metrics

        check_report_metrics(loaded)
    with Bar("checking") as bar:
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
        with Bar("redacting") as bar:
            path, counts = redact_rows(loaded, redact, find, progress=lambda done, total: bar.update(done, total))
        told = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())) or "nothing"
        typer.echo(f"written: {path}; replaced: {told}")
    if report.groups:
        _repair(loaded, report, groups, out if drop else None)
    if report.fails(strict):
        raise typer.Exit(DATA_FAILS)


def _check_outputs(groups: Path | None, drop: str | None, out: Path | None) -> None:
    """Refuse before the audit what could not be written after it."""
    check_folder(out, "--out")
    check_folder(groups and groups.parent, "--groups")
    if drop not in (None, "copies"):
        raise MmfuseError(f"--drop {drop!r} is not legal; legal: copies")
    if drop and out is None:
        raise MmfuseError("--drop copies: name with --out the folder that gets the rows without them")
    made = [groups] if groups else []
    made += [out / "manifest.yaml", *out.glob("rows.*"), out / "rows"] if drop and out else []
    for path in made:
        if path.exists():
            raise MmfuseError(f"{path} exists already: name another; nothing is overwritten")


def _repair(manifest: Manifest, report: AuditReport, groups: Path | None, out: Path | None) -> None:
    """Write what --groups and --drop ask for, and say how it is used."""
    from collections import Counter

    from mmfuse.data.audit.repair import drop_copies, write_groups

    if groups is not None:
        write_groups(report, groups)
        sizes = Counter(report.groups.values())
        typer.echo(f"written: {groups}: {len(sizes)} groups, the largest of {max(sizes.values())} rows")
        typer.echo(f"next:  in {manifest.source}, group: {{file: {groups.resolve()}}}")
        if manifest.splits.column:
            typer.echo(f"       and splits by ratios or folds: now the column {manifest.splits.column!r} decides")
    if out is not None:
        path, dropped = drop_copies(manifest, report, out)
        typer.echo(f"written: {path}: {len(report.groups) - dropped} rows, without {dropped} copies")
        typer.echo(f"next:  mmfuse data check {path}")


@app.command("shard", epilog="Example: mmfuse data shard studies.yaml --out s3://bucket/studies --size 256MB")
def data_shard(
    manifest: Annotated[str, typer.Argument(help="Data manifest: a path or a URL.")],
    out: Annotated[str, typer.Option(help="New folder for the shards: a path or a URL; a bucket must exist.")],
    size: Annotated[str, typer.Option(help="Of a shard: 1KB to 1GiB; with KB, MB, GB, KiB, MiB or GiB.")] = "128MB",
    data_root: RootOption = None,
    fold: Annotated[int | None, typer.Option(help="Which fold is the test set, where the manifest says folds.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace shards of other data.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Write a dataset as shards, parquet files with the images inside, and their manifest. Goes on where it was killed.

    Every image is decoded once; a row with one that cannot be read goes to errors.jsonl, with the reason.
    """
    load_plugins(plugin)
    from mmfuse.data.shards.write import parse_size, write_shards
    from mmfuse.data.tables.blocks import open_blocks
    from mmfuse.data.tables.manifest import is_shards, load_manifest

    wanted, loaded = parse_size(size), load_manifest(manifest, data_root)
    if is_shards(loaded.rows):
        raise MmfuseError(f"{manifest}: its rows are shards already")
    with Bar("sharding") as bar:
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


@app.command("verify", epilog="Example: mmfuse data verify s3://bucket/studies")
def data_verify(
    shards: Annotated[str, typer.Argument(help="Folder of shards: a path or a URL.")],
) -> None:
    """Read all of every shard and check its size, sha256 and rows; exit code 4 if one is not whole.

    Damage that a shard's size does not show is noted in shards.damaged.json beside them: training and prediction refuse
    such a shard from then on, or go on without (damaged: skip).
    """
    from mmfuse.data.shards.folder import verify_shards

    with Bar("verifying") as bar:
        found = verify_shards(
            shards, lambda done, total: bar.update(done, total), lambda line: typer.echo(line, err=True)
        )
    for file, (shard, what) in found.damaged.items():
        typer.echo(visible(f"{found.url}/{file} ({shard.rows} rows): {what}"))
    whole, rows = len(found.shards), sum(shard.rows for shard in found.shards)
    if found.damaged:
        lost = sum(shard.rows for shard, _ in found.damaged.values())
        typer.echo(f"{whole} shards, {rows} rows: whole; {len(found.damaged)} shards, {lost} rows: damaged")
        raise typer.Exit(DATA_FAILS)
    typer.echo(f"{whole} shards, {rows} rows: all whole")


@app.command("phantom", epilog="Example: mmfuse data phantom data/phantom --studies 3000")
def data_phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write: images, data.csv, manifest.yaml.")],
    studies: Annotated[int, typer.Option(min=1, help="How many.")] = 3000,
    seed: Annotated[int, typer.Option(min=0, help="Another one gives other studies.")] = 0,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Instead: a folder of ID.png and ID.txt, for predict.")
    ] = False,
    dose: Annotated[
        bool, typer.Option("--dose", help="Instead: a number to predict, from a mass in the film and a dose in words.")
    ] = False,
) -> None:
    """Write the SYNTHETIC chest phantom: pairs whose best possible scores are known."""
    from mmfuse.data.synthetic.phantom import write_pairs, write_phantom
    from mmfuse.data.synthetic.phantom_dose import write_doses
    from mmfuse.data.synthetic.phantom_findings import write_language

    if dose and pairs:
        raise MmfuseError("--dose and --pairs: give one of them")
    with Bar("drawing") as bar:
        if dose:
            written = [write_doses(out, studies, seed, progress=lambda done: bar.update(done, studies))]
        elif pairs:
            written = [write_pairs(out, studies, seed)]
        else:
            written = [write_phantom(out, studies, seed, progress=lambda done: bar.update(done, studies))]
            written += write_language(out, seed)
    for path in written:
        typer.echo(f"written: {path}")


@app.command("interactions", epilog="Example: mmfuse data interactions data/interactions --train 40000")
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
    from mmfuse.data.synthetic.interactions import write_interactions, write_symbols

    with Bar("drawing") as bar:
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


@app.command("sources", epilog="Example: mmfuse data sources mimic_cxr")
def data_sources(
    name: Annotated[str | None, typer.Argument(help="One of them; default: a line on each.")] = None,
    plugin: PluginOption = None,
) -> None:
    """The public datasets that `prepare` reads: licence, citation, how to get them, split, known traps."""
    load_plugins(plugin)
    from mmfuse.data.public.cards import card_text, source_lines

    typer.echo(card_text(name) if name else "\n".join(source_lines()))


@app.command("prepare", epilog="Example: mmfuse data prepare flickr8k --from ~/flickr8k --out data/flickr8k")
def data_prepare(
    name: Annotated[str, typer.Argument(help="Which dataset (mmfuse data sources).")],
    source: Annotated[Path, typer.Option("--from", help="Folder of the download, unpacked.")],
    out: Annotated[Path, typer.Option(help="Folder to write: rows.parquet, images, manifest.yaml, skipped.jsonl.")],
    plugin: PluginOption = None,
) -> None:
    """Turn a public dataset, as it is downloaded, into rows, images and a manifest. Goes on where it was killed.

    Images become hard links to the download, or copies where the file system has none: do not edit them in place.
    """
    load_plugins(plugin)
    from mmfuse.data.public.prepare import prepare

    with Bar("reading images") as bar:
        done = prepare(name, source, out, progress=lambda read, total: bar.update(read, total))
    skipped = sum(done.skipped.values())
    if done.already:
        typer.echo(f"{out}: finished before, and the download has not changed: nothing to do")
    typer.echo(f"{done.rows + skipped} rows in {source} = {done.rows} in {out / 'rows.parquet'} + {skipped} skipped")
    for reason, count in done.skipped.items():
        typer.echo(visible(f"    {count} skipped: {reason}"))
    if skipped:
        typer.echo(f"which: {out / 'skipped.jsonl'}")
    for note in done.notes:
        typer.echo(visible(f"note:  {note}"))
    typer.echo(f"next:  mmfuse data check {done.manifest}")
