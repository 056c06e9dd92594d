"""`mmfuse check`, `mmfuse list` and `mmfuse config`: what can be named in a config."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from mmfuse.cli.shared import PluginOption, load_plugins
from mmfuse.types import MmfuseError

app = typer.Typer()


KINDS = {
    "analyses": "mmfuse.evaluation.analyses:ANALYSES",
    "fusions": "mmfuse.fusion:FUSIONS",
    "adapters": "mmfuse.encoders.adapters:ADAPTERS",
    "towers": "mmfuse.encoders.towers:TOWERS",
    "tasks": "mmfuse.tasks:TASKS",
    "heads": "mmfuse.heads:HEADS",
    "optimizers": "mmfuse.training.optimizers:OPTIMIZERS",
    "objectives": "mmfuse.training.objectives:OBJECTIVES",
    "orders": "mmfuse.training.orders:ORDERS",
    "methods": "mmfuse.training.methods:METHODS",
    "metrics": "mmfuse.metrics:METRICS",
    "report_metrics": "mmfuse.metrics.reports:REPORT_METRICS",
}
"""By what `mmfuse list` calls them, where the registry of each kind is; it is imported when asked for."""


def _registry(kind: str) -> Any:
    from mmfuse.registry import nearest

    if kind not in KINDS:
        raise MmfuseError(f"{kind!r} is not legal; {nearest(kind, KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    return getattr(importlib.import_module(module), name)


@app.command(epilog="Example: mmfuse check my_fusion --plugin my_fusion.py")
def check(
    name: Annotated[str, typer.Argument(help="What is registered, by name.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Options of it, as a config has them.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Of which kind, as in mmfuse list KIND; needed where two kinds have the name.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Run the conformance suite over a fusion strategy, a task, an objective, or what else is one file."""
    load_plugins(plugin)
    from mmfuse.config import read_overrides
    from mmfuse.registry import nearest
    from mmfuse.testing import SUITES, ConformanceError

    by_plural = {suite.registry.plural: suite for suite in SUITES.values()}
    if kind is not None and kind not in by_plural:
        raise MmfuseError(f"--kind {kind}: it has no conformance suite; {nearest(kind, by_plural)}")
    suites = [by_plural[kind]] if kind else [suite for suite in by_plural.values() if name in suite.registry.names()]
    if len(suites) > 1:
        kinds = ", ".join(suite.registry.plural for suite in suites)
        raise MmfuseError(f"{name!r} is one of {kinds}; say which with --kind")
    if not suites:
        known = [other for suite in by_plural.values() for other in suite.registry.names()]
        raise MmfuseError(f"nothing is registered as {name!r}; {nearest(name, known)}; yours needs --plugin FILE.py")
    told: dict[str, str] = {}
    chosen, failed = read_overrides(options or []), 0
    for title, run in suites[0].checks.items():
        try:
            run(name, **chosen)
            typer.echo(f"ok      {title}")
        except ConformanceError as error:
            failed += 1
            _, _, what = str(error).partition(f" fails {title}: ")
            typer.echo(f"FAILED  {title}: {f'as {told[what]}' if what in told else error}")
            told.setdefault(what, title)
    if failed:
        raise MmfuseError(f"{name}: {failed} check(s) failed")


@app.command("list", epilog="Example: mmfuse list fusions")
def list_names(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)}.")],
    plugin: PluginOption = None,
) -> None:
    """What can be named in a config, with its options and one line on each."""
    import inspect

    registry = _registry(kind)
    load_plugins(plugin)
    for name in registry.names():
        options = [key if p.default is p.empty else f"{key}={p.default!r}" for key, p in registry.options(name).items()]
        typer.echo(f"{name}: {(inspect.getdoc(registry.get(name)) or 'no docstring').splitlines()[0]}")
        typer.echo(f"    options: {', '.join(options) or 'none'}")


@app.command(epilog="Example: mmfuse config --copy demo")
def config(
    copy: Annotated[
        str | None, typer.Option("--copy", metavar="NAME", help="Copy a ready one here, with the manifest it reads.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="Print what a preset sets: quick or balanced.")
    ] = None,
) -> None:
    """Print the schema of a run's config, with defaults and what each key means, and the names of ready ones."""
    from mmfuse.cli.shipped import copy_shipped, shipped_lines
    from mmfuse.config import schema
    from mmfuse.config.presets import preset_text

    if preset is not None:
        typer.echo(preset_text(preset).rstrip())
        return
    if copy is None:
        typer.echo("\n".join([schema(), *shipped_lines()]))
        return
    for path in copy_shipped(copy, Path()):
        typer.echo(f"written: {path}")
