"""The file of records of `speed.py`: one line of JSON a run, and how a table compares with the last one of its kind."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
RECORDS = Path(__file__).with_name("records.jsonl")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm", "sve")
"""Of a processor, those that decide how fast a model runs."""
LESS = 0.95
"""A ratio below this share of the last record's is called slower: repeated runs differ by a few percent."""


@dataclass
class Row:
    """One line of the table.

    Attributes:
        name: What was measured: section, set, tower, precision.
        values: `ratio` to the other side, or another number, and what goes with it.
        target: What the ratio should reach, if anything.
        skipped: Why it was not measured.
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    target: float | None = None
    skipped: str | None = None


def machine(threads: int) -> dict[str, Any]:
    """The kind of this machine, as a record names it."""
    import torch

    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    facts = dict(
        (part.strip() for part in line.split(":", 1)) for line in text.partition("\n\n")[0].splitlines() if ":" in line
    )
    has = (facts.get("flags") or facts.get("Features") or "").split()
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "flags": [flag for flag in FLAGS if flag in has],
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
    }


def code() -> tuple[str, bool]:
    """The commit that is measured, and whether the working tree differs from it."""
    commit = _git("rev-parse", "--short=12", "HEAD").strip()
    return commit, bool(_git("status", "--porcelain", "--", "mmfuse", "benchmarks", f":!benchmarks/{RECORDS.name}"))


def code_id() -> str:
    """The same in one word, other for every state of the working tree."""
    commit, dirty = code()
    return (
        f"{commit}-{hashlib.sha256(_git('diff', 'HEAD', '--', 'mmfuse').encode()).hexdigest()[:8]}" if dirty else commit
    )


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


def record(rows: list[Row], settings: dict[str, Any], threads: int) -> dict[str, Any]:
    """The line of a run."""
    commit, dirty = code()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": commit,
        "dirty": dirty,
        "machine": machine(threads),
        "settings": settings,
        "rows": {row.name: row.values for row in rows if row.skipped is None},
    }


def append(line: dict[str, Any], path: Path) -> None:
    """Write one more record."""
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(line) + "\n")


def last_of_kind(name: str, line: dict[str, Any], path: Path) -> dict[str, Any] | None:
    """The last record before `line` that has this row, of the same kind of machine and settings."""

    def kind(one: dict[str, Any]) -> Any:
        return {k: v for k, v in one["machine"].items() if k != "torch"}, one["settings"]

    there = map(json.loads, path.read_text(encoding="utf-8").splitlines()) if path.exists() else ()
    alike = [one for one in there if name in one["rows"] and kind(one) == kind(line)]
    return alike[-1] if alike else None


def table(rows: list[Row], line: dict[str, Any], path: Path) -> str:
    """All rows for a reader: the number, what it should be, what it was, and the rest.

    Args:
        rows: What was measured, or not.
        line: Their record, not yet in the file.
        path: The file of records.
    """
    lines = [("row", "number", "target", "last record of this kind", "")]
    for row in rows:
        if row.skipped is not None:
            lines.append((row.name, "-", "", "", f"skipped: {row.skipped}"))
            continue
        rest = dict(row.values)
        number = rest.pop("ratio", None)
        reached = "" if row.target is None or number is None else "  met" if number >= row.target else "  MISSED"
        lines.append(
            (
                row.name,
                "-" if number is None else f"{number:.2f}",
                "" if row.target is None else f">= {row.target:g}{reached}",
                _against(row, line, path),
                ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in rest.items()),
            )
        )
    widths = [max(len(cells[i]) for cells in lines) for i in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)), cells[4]]).rstrip()
        for cells in lines
    )


def _against(row: Row, line: dict[str, Any], path: Path) -> str:
    before = last_of_kind(row.name, line, path)
    now = row.values.get("ratio")
    then = before["rows"][row.name].get("ratio") if before else None
    if before is None or now is None or not then:
        return "none"
    slower = "  SLOWER" if now < LESS * then else ""
    other = "" if before["machine"]["torch"] == line["machine"]["torch"] else f", torch {before['machine']['torch']}"
    return f"{then:.2f} ({before['commit'][:7]}{other}): {now / then - 1:+.1%}{slower}"
