"""The command line: thin, and heavy imports only inside the commands."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import nullcontext
from typing import Annotated

import typer

import mmfuse
from mmfuse.cli import benchmark, cache, compare, data, embed, export, init, names, predict, train
from mmfuse.cli.ending import is_first_to_tell, sigterm_interrupts, tell_kept
from mmfuse.cli.faults import tell
from mmfuse.cli.shared import INTERRUPTED, TERMINATED
from mmfuse.memory import keep_memory
from mmfuse.pulse import beating
from mmfuse.types import MmfuseError

COMPUTING = ("train", "evaluate", "predict", "embed", "explain", "compare", "benchmark", "export", "report")
"""Commands that run models."""

app = typer.Typer(
    name="mmfuse",
    help="Text-image fusion: train joint models, predict with them, compare them honestly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for part in (init, train, predict, embed, export, benchmark, compare, names):
    app.add_typer(part.app)
app.add_typer(data.app, name="data")
app.add_typer(cache.app, name="cache")


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mmfuse {mmfuse.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; so does MMFUSE_DEBUG=1.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Options that stand before any command."""
    if context.invoked_subcommand in COMPUTING:
        keep_memory()
    if os.environ.get("WORLD_SIZE", "") not in ("", "0", "1") and "LOCAL_RANK" in os.environ:
        _join(str(context.invoked_subcommand))


def _join(command: str) -> None:
    """Join the processes that a launcher has started, before anything can fail in all of them."""
    if command in ("train", "evaluate", "compare"):
        from mmfuse.predict import join_processes

        join_processes()
    elif command == "predict" and os.environ.get("RANK", "0") != "0":
        raise typer.Exit(2)  # the first one says it
    elif command == "predict":
        raise MmfuseError(
            "predict: a launcher has started several processes, which would all write the same files; start it alone, "
            "or on many machines with --engine ray"
        )


def main() -> None:
    """Run the command line; an error is one line, with exit code 2, or 1 where it is a bug of mmfuse."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show ends no run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    came: list[int] = []
    try:
        with nullcontext() if "--worker" in sys.argv[1:] else beating(), sigterm_interrupts() as came:
            app()
    except SystemExit as leaving:
        if leaving.code != INTERRUPTED:
            raise
        if "--worker" not in sys.argv[1:] and is_first_to_tell():  # who started it says so
            typer.echo(tell_kept(leaving), err=True)
        sys.exit(TERMINATED if came else INTERRUPTED)
    except Exception as error:
        if "--debug" in sys.argv[1:] or os.environ.get("MMFUSE_DEBUG", "0") not in ("", "0"):
            raise
        told = tell(error)
        if is_first_to_tell():
            typer.echo(f"error: {told.line}", err=True)
        sys.exit(told.code)
    finally:
        _leave_processes()
        gc.freeze()  # Python would look through all that was imported before it ends: a second or two with torch


def _leave_processes() -> None:
    """Tell the other processes of this launch, if there are any, that this one is done."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
