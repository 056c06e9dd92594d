"""Every YAML that is shipped loads, and fits the code and its neighbours."""

from pathlib import Path

import pytest

from mmfuse.benchmarking.config import is_built_in, load_benchmark_config
from mmfuse.config import load_config
from mmfuse.data.tables.manifest import TASK_TYPES, load_manifest
from mmfuse.fusion import FUSIONS, RESERVED
from mmfuse.heads import HEADS

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "configs").glob("*.y*ml"))
BENCHMARKS = [path for path in SHIPPED if path.stem.startswith("benchmark_")]
CONFIGS = [path for path in SHIPPED if path not in BENCHMARKS]
MANIFESTS = sorted((ROOT / "data_manifests").glob("*.y*ml"))
DATA_ROOT = "/somewhere"


def name_of(path):
    return path.stem


def test_there_is_something_to_load():
    assert CONFIGS
    assert BENCHMARKS
    assert MANIFESTS


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_loads_and_its_strategy_takes_its_options(path):
    config = load_config(path)
    assert config.name == path.stem
    options = {key: value for key, value in config.fusion.items() if key != "name"}
    FUSIONS.check_options(config.fusion["name"], options, RESERVED)


@pytest.mark.parametrize("path", BENCHMARKS, ids=name_of)
def test_a_benchmarks_config_loads(path):
    config = load_benchmark_config(path, ["preset=quick"])
    assert config.name == path.stem
    assert is_built_in(config) or config.data.manifest.startswith("data_manifests/")


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_a_config_begins_with_what_it_does(path):
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_configs_manifest_has_its_tasks(path):
    config = load_config(path)
    manifest = ROOT / config.data.manifest
    if manifest.parent != ROOT / "data_manifests":
        assert "phantom" in config.data.manifest  # written by `mmfuse data phantom`
        return
    tasks = load_manifest(manifest, DATA_ROOT).tasks
    assert set(config.data.tasks or tasks) <= set(tasks)
    assert set(config.tasks) <= set(config.data.tasks or tasks)


@pytest.mark.parametrize("path", MANIFESTS, ids=name_of)
def test_a_manifest_loads_and_says_what_a_user_must_know(path):
    manifest = load_manifest(path, DATA_ROOT)
    assert manifest.name == path.stem
    assert manifest.rows.startswith(DATA_ROOT)
    for field in ("about", "homepage", "licence", "citation", "obtain"):
        assert getattr(manifest, field), f"{field} is empty"
    for task in manifest.tasks.values():
        assert task.type in HEADS.names()


def test_the_task_types_that_a_manifest_may_name_are_the_heads():
    assert list(TASK_TYPES) == HEADS.names()
