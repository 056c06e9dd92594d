"""`mmfuse check`, `mmfuse list` and `mmfuse config`: what can be named in a config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmfuse.cli.shared import PluginOption, load_plugins
from mmfuse.types import MmfuseError

app = typer.Typer()


@app.command(epilog="Example: mmfuse check my_fusion --plugin my_fusion.py")
def check(
    name: Annotated[str, typer.Argument(help="A registered fusion.")],
    plugin: PluginOption = None,
) -> None:
    """Run the conformance suite over a fusion strategy."""
    load_plugins(plugin)
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
    load_plugins(plugin)
    from mmfuse.evaluation.report_metrics import REPORT_METRICS
    from mmfuse.fusion import FUSIONS
    from mmfuse.heads import HEADS

    registry = dict(zip(kinds, (FUSIONS, HEADS, REPORT_METRICS), strict=True))[kind]
    for name in registry.names():
        cls = registry.get(name)
        options = [str(p) for p in inspect.signature(cls).parameters.values() if p.default is not p.empty]
        typer.echo(f"{name}: {(inspect.getdoc(cls) or '').splitlines()[0]}")
        typer.echo(f"    options: {', '.join(options).replace(': int', '').replace(': float', '') or 'none'}")


@app.command(epilog="Example: mmfuse config --copy demo")
def config(
    copy: Annotated[
        str | None, typer.Option("--copy", metavar="NAME", help="Copy a ready one here, with the manifest it reads.")
    ] = None,
) -> None:
    """Print the schema of a run's config, with defaults and what each key means, and the names of ready ones."""
    from mmfuse.cli.shipped import copy_shipped, shipped_lines
    from mmfuse.config import schema

    if copy is None:
        typer.echo("\n".join([schema(), *shipped_lines()]))
        return
    for path in copy_shipped(copy, Path()):
        typer.echo(f"written: {path}")
