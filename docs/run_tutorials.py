"""`make tutorials`: run the notebooks of docs/tutorials/, each in an empty folder, and keep what they print."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent / "tutorials"
MOST_LINES = 25
"""Of what a cell prints; the middle of more is left out."""


def shortened(text: str) -> str:
    """The first and the last lines of a long text."""
    lines = text.splitlines(keepends=True)
    half = MOST_LINES // 2
    return text if len(lines) <= MOST_LINES else "".join([*lines[:half], "...\n", *lines[-half:]])


def run(path: Path) -> None:
    """Run a notebook, and write it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = shortened(output.text)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `!mmfuse` is this one
    for name in sys.argv[1:] or sorted(path.name for path in FOLDER.glob("*.ipynb")):
        run(FOLDER / name)
