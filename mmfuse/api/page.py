"""The page of a run, as a script and a notebook take it."""

from __future__ import annotations

import html
import os
from pathlib import Path

from mmfuse.evaluation.run_page.write import PAGE, write_page

_HEIGHT = 900


class Page(os.PathLike[str]):
    """A page that is written: in a notebook it shows itself, elsewhere it is its path.

    Attributes:
        path: Of the HTML file.
    """

    def __init__(self, path: Path):
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that its styles are none of the notebook's."""
        page = html.escape(self.path.read_text(encoding="utf-8"), quote=True)
        return (
            f'<iframe title="{html.escape(str(self.path))}" srcdoc="{page}" width="100%" height="{_HEIGHT}"></iframe>'
        )


def page_of(run: Path, with_examples: bool = False) -> Page:
    """The page of a run, written where there is none yet.

    Args:
        run: Its folder, with a finished model.
        with_examples: Write it with pictures and texts of rows.

    Raises:
        MmfuseError: Examples are asked for, and the data cannot be read.
    """
    path = run / PAGE
    return Page(write_page(run, with_examples=with_examples) if with_examples or not path.is_file() else path)
