"""YAML files and URLs, as plain dicts and lists."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmfuse.config.parsing import NOT_YAML, exchange, stand_in
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError, first_line

_MAX_YAML_BYTES = 10 * 2**20
_MAX_YAML_NODES = 1_000_000


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file as plain dicts and lists; numbers such as 1e-4 are numbers, a key given twice is an error.

    Args:
        path: A path, or an fsspec URL (a string that contains `://`).

    Raises:
        MmfuseError: No such file, or not a YAML mapping.
    """
    mark = "$"
    try:
        text = read_small(path).decode("utf-8-sig")
        node = yaml.compose(text, yaml.SafeLoader)
        if not (node is None or isinstance(node, yaml.MappingNode)):
            raise MmfuseError(f"{path}: a mapping (key: value lines) is expected")
        if _nodes(node) > _MAX_YAML_NODES:
            raise MmfuseError(f"{path}: its aliases (*name) unfold to more than {_MAX_YAML_NODES} values")
        mark = stand_in(text)
        loaded = OmegaConf.to_container(OmegaConf.load(io.StringIO(text.replace("$", mark))))
    except RecursionError as error:
        raise MmfuseError(f"{path}: not valid YAML: nested too deep, or an alias (*name) within itself") from error
    except MmfuseError:
        raise
    except (OmegaConfBaseException, yaml.YAMLError, *NOT_YAML) as error:
        place = getattr(error, "problem_mark", None)
        line = f" line {place.line + 1}:" if place else ""
        said = str(getattr(error, "problem", None) or first_line(error)).replace(ascii(mark)[1:-1], "$")  # of a repr
        raise MmfuseError(f"{path}:{line} not valid YAML: {said.replace(mark, '$')}") from error
    return exchange(loaded, mark, "$")


def read_small(path: str | Path) -> bytes:
    """The bytes of a YAML file: a path, or an fsspec URL (a string that contains `://`).

    Raises:
        MmfuseError: No such file, or it is too large.
    """
    try:
        if isinstance(path, str) and "://" in path:
            import fsspec  # only here: most are paths, and `mmfuse --help` is to be quick

            with fsspec.open(path, "rb") as file:
                data = file.read(_MAX_YAML_BYTES + 1)  # type: ignore[union-attr]
        else:
            path = Path(path)
            if not os.path.isfile(path):  # pathlib's raises where a name is too long
                if _is_forbidden(path):
                    raise PermissionError
                if os.path.isdir(path):
                    inside = ", ".join(sorted(p.name for p in path.glob("*.y*ml"))[:9])
                    raise MmfuseError(f"{path}: a folder; name a file{f' in it: {inside}' if inside else ''}")
                there = sorted(p.name for p in path.parent.glob("*.y*ml"))
                near = f"; in that folder, {nearest(path.name, there)}" if there else ""
                raise MmfuseError(f"{path}: no such file{near}")
            with path.open("rb") as file:
                data = file.read(min(_MAX_YAML_BYTES, path.stat().st_size) + 1)
    except MmfuseError:
        raise
    except FileNotFoundError as error:
        raise MmfuseError(f"{path}: no such file") from error
    except PermissionError as error:
        raise MmfuseError(f"{path}: cannot be read (permission denied)") from error
    except Exception as error:  # every remote file system has its own exceptions
        raise MmfuseError(f"{path}: {(getattr(error, 'strerror', None) or first_line(error)).lower()}") from error
    if len(data) > _MAX_YAML_BYTES:
        raise MmfuseError(f"{path}: larger than {_MAX_YAML_BYTES} bytes")
    return data


def _is_forbidden(path: Path) -> bool:
    """Whether it may not even be known if the file is there."""
    try:
        os.stat(path)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return False


def _nodes(node: yaml.Node | None, known: dict[int, int] | None = None) -> int:
    """How many values a YAML node holds when its aliases are unfolded, which may be more than fit in memory.

    Raises:
        RecursionError: It holds itself.
    """
    known = {} if known is None else known
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
        known[id(node)] = 1 + sum(_nodes(child, known) for pair in pairs for child in pair)
    return known[id(node)]
