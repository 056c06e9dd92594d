"""The wheel alone, in an environment of its own, does what the README's five minutes say.

The environment holds the wheel and what the wheel's metadata asks for, no extra: packages are links to those of this
environment, so that nothing is fetched. Commands run outside the repository.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

pytest.importorskip("build", reason="the wheel is built by the package build")

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXTRAS = {
    "nltk",
    "defusedxml",
    "striprtf",
    "tensorboard",
    "imagehash",
    "pydicom",
    "pillow_heif",
    "s3fs",
    "ray",
    "pytest",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def run(*command, cwd: Path) -> str:
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    found = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=env | {"PYTHONNOUSERSITE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, f"{command}: {found.stdout[-3000:]}\n{found.stderr[-3000:]}"
    return found.stdout


def asked_for(wheel: Distribution) -> list[Distribution]:
    """All that pip would install with it."""
    found: dict[tuple[str, frozenset[str]], Distribution] = {}
    waiting: list[tuple[Distribution, tuple[str, ...]]] = [(wheel, ())]
    while waiting:
        dist, extras = waiting.pop()
        for need in map(Requirement, dist.requires or []):
            key = (need.name, frozenset(need.extras))
            if key not in found and (not need.marker or any(need.marker.evaluate({"extra": e}) for e in ("", *extras))):
                found[key] = distribution(need.name)
                waiting.append((found[key], tuple(need.extras)))
    return list(found.values())


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The bin folder of an environment with nothing but the wheel, built from the source archive, and its needs."""
    root = tmp_path_factory.mktemp("wheel")
    for name in ("mmfuse", "configs", "data_manifests"):
        shutil.copytree(ROOT / name, root / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / "source" / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", root / "dist", cwd=root / "source")
    venv.create(root / "env", symlinks=True)
    python = root / "env" / "bin" / "python"
    wheel = next((root / "dist").glob("*.whl"))
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=root)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(root / "env")}))
    for dist in asked_for(next(iter(distributions(path=[str(site)], name="mmfuse")))):
        for name in {file.parts[0] for file in dist.files or []} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(str(dist.locate_file(name)))
    return python.parent


@pytest.fixture(scope="module")
def work(installed, tmp_path_factory) -> Path:
    """The folder that the README begins with, of SYNTHETIC studies, and its two files; encoders are small ones."""
    work = tmp_path_factory.mktemp("work")
    run(installed / "mmfuse", "data", "phantom", "phantom", "--studies", 60, cwd=work)
    run(installed / "mmfuse", "data", "phantom", "new_films", "--pairs", "--studies", 6, "--seed", 1, cwd=work)
    (work / "films").symlink_to(work / "phantom" / "images")
    with (work / "phantom" / "data.csv").open(newline="") as file, (work / "studies.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "patient", "film", "note", "finding"])
        for r in csv.DictReader(file):
            writer.writerow([r["id"], r["patient"], Path(r["image"]).name, r["text"], r["findings"]])
    manifest, train = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[:2]
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2}
    small = {
        "text_encoder": {"name": "bert", "pretrained": False, "options": sizes, "max_length": 48},
        "image_encoder": {"name": "vit_tiny_patch16_224", "pretrained": False, "size": [32, 32], "options": vit},
    }
    (work / "studies.yaml").write_text(manifest)
    (work / "train.yaml").write_text(yaml.safe_dump(yaml.safe_load(train) | small))
    return work


def test_the_readmes_five_minutes(installed, work):
    commands = re.search(r"^Then:\n\n```sh\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    lines = [line.partition("#")[0].split() for line in commands[1].splitlines()]
    assert [words[:2] for words in lines] == [["mmfuse", "data"], ["mmfuse", "train"], ["mmfuse", "predict"]]
    for command, *words in lines:
        run(installed / command, *words, *(["training.epochs=1"] if words[0] == "train" else []), cwd=work)
    predicted = [json.loads(line) for line in (work / "predictions.jsonl").read_text().splitlines()]
    assert len(predicted) == 6
    assert (work / "predictions.errors.jsonl").read_text() == ""


def test_nothing_of_it_came_from_the_checkout_or_from_an_extra(installed, tmp_path):
    code = (
        "import mmfuse, importlib.util as u, sys; print(mmfuse.__file__, [m for m in sys.argv[1:] if u.find_spec(m)])"
    )
    where, there = run(installed / "python", "-c", code, *sorted(EXTRAS), cwd=tmp_path).split(maxsplit=1)
    assert Path(where).is_relative_to(installed.parent)
    assert there.strip() == "[]"


def test_its_configs_can_be_copied(installed, tmp_path):
    run(installed / "mmfuse", "config", "--copy", "emoji_google", cwd=tmp_path)
    run(installed / "mmfuse", "config", "--copy", "accelerate/fsdp2", cwd=tmp_path)
    copied = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.yaml")}
    named = ("configs/emoji_google.yaml", "data_manifests/emoji_google.yaml", "configs/accelerate/fsdp2.yaml")
    assert copied == {Path(name) for name in named}
    assert all((tmp_path / path).read_bytes() == (ROOT / path).read_bytes() for path in copied)
    listed = run(installed / "mmfuse", "config", cwd=tmp_path)
    for path in (*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "data_manifests").rglob("*.yaml")):
        name = path.relative_to(ROOT).with_suffix("").as_posix().removeprefix("configs/")
        assert f"#   {name} " in listed
