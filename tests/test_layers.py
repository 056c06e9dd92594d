"""Who may import whom, what importing costs, and which names are public."""

import importlib
import sys
import tomllib
from pathlib import Path

import pytest
from child_processes import run_child

import mmfuse

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
HEAVY = {"torch", "transformers", "timm", "datasets", "pandas", "accelerate", "matplotlib"}


def run(*command):
    return run_child(command, ROOT)


def test_the_layers_of_the_design_are_kept():
    found = run(BIN / "lint-imports", "--no-cache")
    assert found.returncode == 0, found.stdout
    assert "0 broken" in found.stdout


def test_every_part_has_its_layer():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = settings["contracts"][0]["layers"]
    named = {name.strip() for layer in layers for name in layer.replace(":", "|").split("|")}
    parts = {
        f"mmfuse.{p.stem}" for p in (ROOT / "mmfuse").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert parts - {"mmfuse.__init__"} == named


@pytest.mark.parametrize(
    "code",
    [
        "import mmfuse",
        "import mmfuse; dir(mmfuse); mmfuse.__version__; mmfuse.load_config; mmfuse.Sample",
        "from mmfuse.cli import main; import sys; sys.argv = ['mmfuse', '--help']; main()",
    ],
    ids=["import", "light names", "help"],
)
def test_what_needs_no_torch_imports_none(code):
    ends = f"import atexit, sys; atexit.register(lambda: print('LOADED', *sorted({HEAVY} & set(sys.modules))))\n"
    found = run(sys.executable, "-c", ends + code)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1].split() == ["LOADED"]


PUBLIC = {
    "benchmark",
    *("FUSIONS", "HEADS", "Batch", "Features", "FusionModel", "MmfuseError", "Model", "Prediction", "Predictor"),
    *("Sample", "check_fusion", "compare", "evaluate", "fit", "load_config", "load_manifest", "train"),
}


def test_the_public_names_are_these():
    assert set(mmfuse.__all__) == PUBLIC
    assert mmfuse.__all__ == sorted(mmfuse.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert set(dir(mmfuse)) == PUBLIC | {"__version__"}


@pytest.mark.parametrize("name", mmfuse.__all__)
def test_every_public_name_is_what_its_home_says(name):
    found = getattr(mmfuse, name)
    assert found is getattr(importlib.import_module(mmfuse._HOME[name]), name)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'mmfuse' has no attribute 'fuse'"):
        _ = mmfuse.fuse


def test_the_version_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert mmfuse.__version__ == project["version"]
