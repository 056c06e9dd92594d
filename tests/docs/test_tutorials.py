"""The notebooks of docs/tutorials/ run from top to bottom, on few rows; what they keep is small and whole."""

import contextlib
import io
import json
import shlex

import pytest
from doc_pages import ROOT
from typer.testing import CliRunner

from mmfuse import cli

NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
FEW = {"STUDIES": 40, "PRODUCTS": 40, "EPOCHS": 1}
ENDS = {"data check": (0, 4)}
"""Commands that may end otherwise than with 0: an audit of films whose reports name the findings."""
LARGEST = 200_000


def cells(path, kind):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def run(source, names):
    """A cell: a command where it begins with `!`, else Python."""
    if source.startswith("!"):
        program, *words = shlex.split(source[1:].format(**names))
        assert program == "mmfuse"
        done = CliRunner().invoke(cli.app, words)
        assert done.exit_code in ENDS.get(" ".join(words[:2]), (0,)), (source, done.output, done.exception)
    else:
        exec(compile(source, "cell", "exec"), names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "notebook"}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in cells(path, "code"):
            run("".join(cell["source"]), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                assert set(names) & set(FEW)
                names |= {name: value for name, value in FEW.items() if name in names}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_small_and_of_a_whole_run(path):
    assert path.stat().st_size < LARGEST
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error"]
    kept = json.dumps(outputs)
    assert str(ROOT) not in kept
    assert "/tmp/" not in kept


def test_there_are_three():
    assert {path.stem for path in NOTEBOOKS} == {"chest_films", "products", "captions"}
