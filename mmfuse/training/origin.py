"""What a reader needs to know how a run came about."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

import mmfuse
from mmfuse.config import Config, read_small
from mmfuse.data.given import MANIFEST, read_here
from mmfuse.data.shards.folder import index_bytes
from mmfuse.data.shards.table import ShardedTable
from mmfuse.data.tables.table import Table
from mmfuse.training.inherit import parent_hash


def describe(run_dir: Path, config: Config, table: Table) -> None:
    """Write what a reader needs to know how this run came about."""
    manifest = table.manifest
    if not read_here(run_dir, manifest.source):
        (run_dir / MANIFEST).write_bytes(read_small(manifest.source))
    if isinstance(table, ShardedTable):  # which rows are in which split, the shards' names and hashes say
        used = table.shards
        (run_dir / "shards.json").write_bytes(
            index_bytes(used.shards, used.labels, used.tasks, used.source, used.errors)
        )
    else:
        table.save_splits(run_dir / "splits.csv")
    synonyms = config.training.augmentation.text.synonyms
    if synonyms:
        shutil.copyfile(synonyms, run_dir / "synonyms.yaml")
    facts = {
        "command": sys.argv,
        "manifest": {
            "path": manifest.source,
            "sha256": manifest.sha256,
            "version": manifest.version,
            "rows": sum(table.counts().values()),
        },
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "versions": {
            name: version(name)
            for name in ("mmfuse", "torch", "transformers", "timm", "accelerate", "pillow", "datasets", "numpy")
        },
    }
    if config.init_from is not None:
        facts["init_from"] = {"path": config.init_from, "sha256": parent_hash(config.init_from)}
    if isinstance(table, ShardedTable):
        damaged = {file: what for file, (_, what) in table.shards.damaged.items()}
        facts["shards"] = {"url": table.shards.url, "identity": table.shards.identity, "damaged": damaged}
    (run_dir / "environment.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def commit() -> str | None:
    """The commit of the mmfuse that runs, where it runs from a checkout."""
    command = ["git", "-C", str(Path(mmfuse.__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None
