"""Where a run goes that names no folder."""

from __future__ import annotations

import os
import re
from pathlib import Path


def run_folder(out: str | os.PathLike[str] | None, name: str) -> Path:
    """The absolute path of a run's folder; without `out` runs/NAME, as far as the name can be a folder's."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip("._") or "run"
    return Path(out).expanduser().absolute() if out is not None else Path("runs", plain).absolute()
