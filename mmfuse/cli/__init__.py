"""The command line: thin, and heavy imports only inside the commands."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import mmfuse
from mmfuse.cli import benchmark, cache, data, names, predict, train
from mmfuse.cli.ending import is_first_to_tell, lost_another, sigterm_interrupts, tell_kept
from mmfuse.cli.shared import INTERRUPTED, TERMINATED
from mmfuse.types import MmfuseError

app = typer.Typer(
    name="mmfuse",
    help="Text-image fusion: train joint models, predict with them, compare them honestly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for part in (train, predict, benchmark, names):
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
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Options that stand before any command."""
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 and "LOCAL_RANK" in os.environ:
        _join(str(context.invoked_subcommand))


def _join(command: str) -> None:
    """Join the processes that a launcher has started, before anything can fail in all of them."""
    if command in ("train", "evaluate"):
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
    """Run the command line; an error of the user is one line, and exit code 2."""
    came: list[int] = []
    try:
        with sigterm_interrupts() as came:
            app()
    except (MmfuseError, OSError) as error:  # OSError: a folder that is a file, a full disk
        if "--debug" in sys.argv[1:]:
            raise
        if is_first_to_tell():
            typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except SystemExit as leaving:
        if leaving.code != INTERRUPTED:
            raise
        if "--worker" not in sys.argv[1:] and is_first_to_tell():  # who started it says so
            typer.echo(tell_kept(leaving), err=True)
        sys.exit(TERMINATED if came else INTERRUPTED)
    except Exception as error:
        if is_first_to_tell():
            if not lost_another(error):
                raise
            typer.echo(f"error: another process of this launch went away: {str(error).splitlines()[0]}", err=True)
        sys.exit(1)
    finally:
        _leave_processes()


def _leave_processes() -> None:
    """Tell the other processes of this launch, if there are any, that this one is done."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
