"""`make tutorials`: run the notebooks of docs/tutorials/, each in an empty folder, and keep what they print."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_output

FOLDER = Path(__file__).parent / "tutorials"
MOST_LINES = 25
"""Of what a cell prints; the middle of more is left out."""


_COLOURS = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")


def shown(text: str, folder: str) -> str:
    """What is left on the screen: no colours, no bars, and of many lines the first and the last."""
    lines = _COLOURS.sub("", text).replace("\r\n", "\n").split("\n")
    lines = [line.rpartition("\r")[2].replace(f"{folder}/", "") for line in lines]
    lines = [line for line in lines if line.strip() and not re.search("[━╸╺]|^step ", line)]
    half = MOST_LINES // 2
    lines = lines if len(lines) <= MOST_LINES else [*lines[:half], "...", *lines[-half:]]
    return "\n".join(lines) + "\n"


def tidy(outputs: list[Any], folder: str) -> list[Any]:
    """Lines that were printed as one output, without what libraries warn of; then tables."""
    printed = "".join(
        one.text if one.output_type == "stream" else one.data["text/plain"]
        for one in outputs
        if one.get("name") == "stdout" or (one.output_type == "display_data" and "image/png" not in one.data)
    )
    rest = [one for one in outputs if one.output_type == "execute_result"]
    return [*([new_output("stream", name="stdout", text=shown(printed, folder))] if printed else []), *rest]


def run(path: Path) -> None:
    """Run a notebook, and write it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = tidy(cell.outputs, folder)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `!mmfuse` is this one
    for name in sys.argv[1:] or sorted(path.name for path in FOLDER.glob("*.ipynb")):
        run(FOLDER / name)
