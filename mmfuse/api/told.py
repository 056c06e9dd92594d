"""What a call of Python has found out, told once."""

from __future__ import annotations

from collections.abc import Iterable

from mmfuse.predict import join_processes
from mmfuse.types import visible


def tell(lines: Iterable[str]) -> None:
    """Print lines on standard error, once a launch."""
    from rich.console import Console

    if join_processes().is_main_process:
        console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        console.print("\n".join(map(visible, lines)))
