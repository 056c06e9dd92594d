"""The configs, manifests and Accelerate files that come with mmfuse: listed, and copied into a folder of the user's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

import mmfuse
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError


def shipped() -> dict[str, Path]:
    """By name, such as `demo`, `accelerate/fsdp2` or `data_manifests/covid_cxr`, each file."""
    root = _root()
    paths = [path for folder in ("configs", "data_manifests") for path in sorted((root / folder).rglob("*.yaml"))]
    return {path.relative_to(root).with_suffix("").as_posix().removeprefix("configs/"): path for path in paths}


def shipped_lines() -> Iterator[str]:
    """What can be copied, as comments of YAML: a line each, with what the file says of itself."""
    yield "# Ready ones, each for `mmfuse config --copy NAME`:"
    for name, path in shipped().items():
        text = path.read_text(encoding="utf-8")
        about = text.splitlines()[0].removeprefix("# ").rstrip(":,") if text.startswith("# ") else "a data manifest"
        yield f"#   {name}".ljust(40) + f"  # {about}"


def copy_shipped(name: str, to: Path) -> list[Path]:
    """Copy a file to the place under `to` that docs and configs name, and with a config the manifest that it reads.

    Args:
        name: As in `shipped`, or the file's path, such as `configs/demo.yaml`.
        to: A folder.

    Returns:
        What was written: the file, and its manifest unless that is there already.

    Raises:
        MmfuseError: There is no such name, or the file is there already; nothing is written.
    """
    known = shipped()
    wanted = name.removeprefix("configs/").removesuffix(".yaml")
    if wanted not in known:
        raise MmfuseError(f"--copy {name!r}: there is none; {nearest(wanted, known)}")
    root = _root()
    chosen = known[wanted]
    target = to / chosen.relative_to(root)
    if target.exists():
        raise MmfuseError(f"--copy {name}: {target} is there already; remove it, or copy in another folder")
    read = (yaml.safe_load(chosen.read_text(encoding="utf-8")).get("data") or {}).get("manifest")
    manifest = [path for path in known.values() if path.relative_to(root).as_posix() == read]
    copies = {target: chosen} | {to / path.relative_to(root): path for path in manifest}
    new = {goal: path for goal, path in copies.items() if not goal.exists()}
    for goal, path in new.items():
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, goal)
    return list(new)


def _root() -> Path:
    """The folder of `configs/` and `data_manifests/`: the package's in a wheel, in a checkout the one above."""
    package = Path(mmfuse.__file__).parent
    return package if (package / "configs").is_dir() else package.parent
