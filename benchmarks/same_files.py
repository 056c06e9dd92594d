"""Two folders of results, file by file: which differ, and where first.

A key of JSON or YAML that only the second folder's file has is no difference: it says more, and is told as new. So are
lines of a page, which shows the keys of its config.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

ARTEFACTS = {  # the first with a pattern that a file's path matches; * goes across folders
    "losses": ("*metrics.jsonl",),
    "weights": ("*.safetensors",),
    "predictions": ("*predictions*", "texts/*"),
    "table": ("table.md",),
    "results": ("results.jsonl", "summary.json"),
    "test report": ("test/*", "run/test/*"),
    "other files": ("*",),
}
MEASURED = ("seconds", "samples_per_s", "peak_mib")
"""Keys of JSON that a benchmark's report draws, though no two runs share them."""
OWN = {*MEASURED, "waited", "commit", "command"}
"""All that no two runs share: times, memory, and which code ran."""


@dataclass
class Finding:
    """Of one artefact of a run."""

    artefact: str
    files: int = 0
    differing: int = 0
    first: str = ""
    relative: float = 0.0
    """The largest difference of two numbers; infinite where more than numbers differ."""
    new: set[str] = field(default_factory=set)
    """Keys that only the second folder's files have."""


def compare_folders(first: Path, second: Path, renamed: Mapping[str, str] | None = None) -> list[Finding]:
    """By artefact, what two folders hold, but for those that neither has; `renamed` is of how tensors' names begin."""
    findings = {name: Finding(name) for name in ARTEFACTS}
    there = [{str(p.relative_to(side)) for p in side.rglob("*") if p.is_file()} for side in (first, second)]
    for name in sorted(there[0] | there[1]):
        finding = findings[next(a for a, patterns in ARTEFACTS.items() if any(fnmatch(name, p) for p in patterns))]
        finding.files += 1
        if name in there[0] - there[1] and is_dropped(second / name):
            found = []
        elif name in there[0] and name in there[1]:
            said = list(differences(name, first, second, renamed or {}))
            finding.new |= {where for where, relative in said if relative is None}
            found = [(where, relative) for where, relative in said if relative is not None]
        else:
            found = [(f"only {(first if name in there[0] else second).parent.name} has it", math.inf)]
        if found:
            finding.differing += 1
            finding.first = finding.first or f"{name}: {found[0][0]}"
            finding.relative = max(finding.relative, *(relative for _, relative in found))
    return [finding for finding in findings.values() if finding.files]


def is_dropped(path: Path) -> bool:
    """Whether a checkpoint no longer has this file when its run has ended: moments, and weights again."""
    state = path.with_name("state.json")
    return path.suffix == ".safetensors" and state.is_file() and bool(json.loads(state.read_text()).get("finished"))


def differences(name: str, first: Path, second: Path, renamed: Mapping[str, str]) -> Iterator[tuple[str, float | None]]:
    """Where a file differs, and by how much relative to the larger number; what is in OWN is passed over.

    None in place of a number is for a key that is new in the second.
    """
    one, two = first / name, second / name
    if one.read_bytes() == two.read_bytes():
        return
    if one.suffix == ".safetensors":
        yield from weights_apart(one, two, renamed)
    elif one.suffix in (".json", ".jsonl", ".yaml"):
        yield from values_apart(parse(one, first.parent), parse(two, second.parent), "")
    else:
        yield from lines_apart(one, two)


def weights_apart(first: Path, second: Path, renamed: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """Tensors that differ; the file's own words, if only these do."""
    one, two = load_file(first), load_file(second)
    called = {
        name: next((new + name[len(old) :] for old, new in renamed.items() if name.startswith(old)), name)
        for name in one
    }
    moved = any(name != now for name, now in called.items())
    one = {called[name]: tensor for name, tensor in one.items()}
    if one.keys() != two.keys():
        yield f"tensor {sorted(one.keys() ^ two.keys())[0]} is in one only", math.inf
        return
    equal = True
    for name, a in sorted(one.items()):
        b = two[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            yield f"{name}: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}", math.inf
        elif not torch.equal(a.flatten().view(torch.uint8), b.flatten().view(torch.uint8)):
            apart = (a.double() - b.double()).abs().max() / b.double().abs().max()
            yield f"{name}: by {apart:.1e} of its largest number", float(apart.nan_to_num(math.inf))
        else:
            continue
        equal = False
    if equal and not moved:
        yield "the same tensors in other bytes", math.inf


def parse(path: Path, side: Path) -> Any:
    """A JSON or YAML file's value, or the list of its lines' values; paths below `side` are relative to it."""
    text = path.read_text().replace(f"{side}/", "")
    if path.suffix == ".yaml":
        return yaml.safe_load(text)
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def values_apart(one: Any, two: Any, where: str) -> Iterator[tuple[str, float | None]]:
    """Where two values of JSON or YAML differ."""
    if isinstance(one, dict) and isinstance(two, dict):
        yield from ((f"{where}.{key}".lstrip("."), None) for key in two.keys() - one.keys())
        if list(one) != [key for key in two if key in one]:
            yield f"{where or 'top'}: other keys: {', '.join(sorted(set(one) - set(two))) or 'their order'}", math.inf
        for key in (key for key in one if key in two and key not in OWN):
            yield from values_apart(one[key], two[key], f"{where}.{key}" if where else key)
    elif isinstance(one, list) and isinstance(two, list):
        if len(one) != len(two):
            yield f"{where or 'top'}: {len(one)} and {len(two)} entries", math.inf
        for i, (a, b) in enumerate(zip(one, two, strict=False)):
            yield from values_apart(a, b, f"{where}[{i}]")
    elif repr(one) != repr(two):
        apart = math.inf
        if isinstance(one, float) and isinstance(two, float) and math.isfinite(one) and math.isfinite(two):
            apart = abs(one - two) / max(abs(one), abs(two), sys.float_info.min)
        yield f"{where}: {one!r} and {two!r}"[:160], apart


def lines_apart(first: Path, second: Path) -> Iterator[tuple[str, float | None]]:
    """The first line that differs, of text; the first byte, of anything else. A commit is no difference."""
    one, two = (re.sub(rb"\b[0-9a-f]{40}\b", b"COMMIT", path.read_bytes()) for path in (first, second))
    if one == two:
        return
    try:
        lines = [text.decode().splitlines(keepends=True) for text in (one, two)]
    except UnicodeDecodeError:
        at = next(i for i, (a, b) in enumerate(zip_longest(one, two)) if a != b)
        yield f"byte {at} of {len(one)} and {len(two)}", math.inf
        return
    if first.suffix == ".html":
        more = iter(lines[1])
        if all(line in more for line in lines[0]):
            yield f"{len(lines[1]) - len(lines[0])} lines of {first.name}", None
            return
    at, a, b = next((i, a, b) for i, (a, b) in enumerate(zip_longest(*lines), 1) if a != b)
    yield f"line {at}: {a!r:.70} and {b!r:.70}", math.inf
