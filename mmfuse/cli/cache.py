"""`mmfuse cache`: what is kept of frozen encoders' features."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmfuse.types import MmfuseError

app = typer.Typer(help="What is kept of frozen encoders' features.", no_args_is_help=True)


CacheOption = Annotated[str | None, typer.Option("--dir", help="Default: $MMFUSE_CACHE or ~/.cache/mmfuse.")]


@app.command("show", epilog="Example: mmfuse cache show")
def cache_show(cache_dir: CacheOption = None) -> None:
    """What the feature cache holds, that used last first."""
    from mmfuse.encoders.cache import cache_root, list_cache

    root = cache_root(cache_dir)
    entries = list_cache(root)
    for entry in entries:
        typer.echo(_cache_line(entry))
    typer.echo(f"{root}: {len(entries)} encoder(s), {sum(entry.mib for entry in entries):.1f} MiB")
    _tell_first([entry.problem for entry in entries if entry.problem])


@app.command("prune", epilog="Example: mmfuse cache prune --unused-days 30")
def cache_prune(
    cache_dir: CacheOption = None,
    unused_days: Annotated[float, typer.Option(min=0, help="Delete what was not used for so long; 0: all.")] = 30.0,
) -> None:
    """Delete features that were not used for some days; they can be computed again."""
    from mmfuse.encoders.cache import cache_root, prune_cache

    root = cache_root(cache_dir)
    found = prune_cache(root, unused_days)
    gone = [entry for entry in found if not entry.problem]
    for entry in gone:
        typer.echo(f"deleted: {_cache_line(entry)}")
    typer.echo(f"{root}: {len(gone)} deleted, {sum(entry.mib for entry in gone):.1f} MiB")
    _tell_first([entry.problem for entry in found if entry.problem])


def _tell_first(problems: list[str]) -> None:
    if problems:
        raise MmfuseError(f"{problems[0]}{f' (and {len(problems) - 1} more)' if len(problems) > 1 else ''}")


def _cache_line(entry: Any) -> str:
    import datetime

    used = datetime.datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
    what = "tokens and pooled" if entry.tokens else "pooled"
    computed = f" of {entry.computed}" if entry.computed else ""
    return (
        f"{entry.folder.name}  {entry.tower} {entry.name}: {entry.items} items, {what}, {entry.dtype}{computed}, "
        + (f"{entry.mib:.1f} MiB, used {used}")
    )
