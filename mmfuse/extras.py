"""What only some need is an extra of pyproject.toml; where it is missing, one line says how to install it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmfuse.types import MmfuseError


@contextmanager
def extra(name: str, wanted: str, kind: type[MmfuseError] = MmfuseError) -> Iterator[None]:
    """Stand around imports of what an extra brings.

    Args:
        name: Of the extra.
        wanted: What cannot be had without it, as the error begins.
        kind: Of the error.

    Raises:
        MmfuseError: It is not installed; of `kind`.
    """
    try:
        yield
    except ImportError as error:
        raise kind(f"{wanted}: {install(name)}") from error


def install(name: str) -> str:
    """The command that installs an extra."""
    return f'pip install "mmfuse[{name}]"'
