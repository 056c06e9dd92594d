"""`mmfuse benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmfuse.cli.shared import PluginOption, RootOption, quiet_libraries
from mmfuse.precision import PRECISIONS
from mmfuse.types import MmfuseError

app = typer.Typer()


@app.command(
    epilog="Examples: mmfuse benchmark benchmark.yaml preset=quick --dry-run; faster on a CPU with avx512_bf16: "
    "mmfuse benchmark benchmark.yaml --precision auto"
)
def benchmark(
    config: Annotated[Path, typer.Argument(help="Config of the benchmark (YAML).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, as in seeds=5.")] = None,
    data_root: RootOption = None,
    plugin: PluginOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell rows, cells, time and disk; run nothing.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Discard the content of the folder.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Go on though rows leak between splits.")] = False,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, bf16 or auto, in place of training.mixed_precision; one choice for all cells, so that a "
            "difference of strategies is none of precisions."
        ),
    ] = None,
    worker: Annotated[bool, typer.Option("--worker", hidden=True)] = False,
) -> None:
    """Compare fusion strategies on equal terms; the same command resumes an interrupted benchmark."""
    quiet_libraries()
    from mmfuse.benchmarking.run import benchmark as run
    from mmfuse.benchmarking.run import dry_run as plan
    from mmfuse.benchmarking.run import work

    if worker:
        work(config.parent, force)
        return
    chosen = list(overrides or [])
    chosen += [f"data.root={data_root}"] if data_root else []
    if precision is not None:
        if precision not in PRECISIONS["local"]:
            raise MmfuseError(f"--precision {precision!r} is not legal; legal: {', '.join(PRECISIONS['local'])}")
        chosen.append(f"training.mixed_precision={'null' if precision == 'fp32' else precision}")
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
