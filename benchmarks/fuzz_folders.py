"""Damaged manifests, configs, tables and model folders: each is read or refused, in bounded time and memory.

    python benchmarks/fuzz_folders.py --what manifest --minutes 10 [--first 0] [--keep FOUND]

A case is a number: it changes the bytes of a good file, or the values of what the file says (another kind of value, one
that is gone, twice, or too large). The same number is the same case. They run in a process of their own, so that a
crash, a case of more than 10 s, one that takes more than 1 GB, another exception, a warning and a message of several
lines are all found; each is kept as a folder.
"""

from __future__ import annotations

import copy
import io
import json
import math
import resource
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from fuzzing import run
from numpy.random import Generator

from mmfuse.config import load_config, schema
from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.predict import TableStudies
from mmfuse.types import Failure, MmfuseError, Sample

SECONDS, MEGABYTES = 10, 1024
ROWS = "id,image,text,y,labels,split\n" + "".join(
    f"{i},,{'no ' * (i % 3)}finding {i},{'uv'[i % 2]},{'a;b' if i % 3 else 'b'},{'train' if i % 4 else 'test'}\n"
    for i in range(24)
)
MANIFESTS = [
    {"name": "m", "rows": "rows.csv", "id": "id", "text": {"columns": ["text"]}, "tasks": {"t": {"column": "y"}}},
    {
        "name": "m",
        "rows": "rows.csv",
        "id": "id",
        "group": "y",
        "version": 2,
        "subgroups": ["split"],
        "image": {"column": "image", "separator": ";", "root": "."},
        "text": {"columns": ["text", "image"], "template": "{text} / {image}", "missing": ["none"]},
        "tasks": {
            "t": {"column": "y", "values": {"u": "yes", "v": "no "}, "other": "missing", "min_count": 1},
            "l": {"type": "multilabel", "column": "labels", "separator": ";", "empty": "negative"},
            "c": {"type": "captioning", "column": "y", "allow_copies": True},
        },
        "splits": {"ratios": {"train": 0.5, "test": 0.5}, "stratify": "t", "seed": 3},
    },
    {
        "name": "m",
        "rows": "rows.csv",
        "id": "id",
        "text": {"columns": ["text"]},
        "tasks": {"t": {"column": "y", "values": ["u", "v"]}},
        "splits": {"column": "split", "names": {"dev": "validation"}},
    },
]
STRANGE: list[Any] = [
    *(None, True, False, 0, -1, 1, 3.5, 10**6, 2**31, 2**63, 10**400, 1e308, -0.0, math.nan, math.inf),
    *(
        "",
        " ",
        "id",
        "text",
        "y",
        "???",
        "${x}",
        "${data_root}",
        "{text}",
        "\0",
        "\ud83d",
        "é\n",
        "w" * 5000,
        "1",
        "no",
    ),
    *(
        [],
        {},
        [None],
        [[]],
        ["id"],
        [1, "a"],
        {"id": "id"},
        {"": None},
        {"a": {"b": []}},
        "../..",
        "/dev/zero",
        "x://y",
    ),
]


class Reader(NamedTuple):
    """What writes the case of a random generator into an empty folder, and what reads it."""

    write: Callable[[Path, Generator], None]
    read: Callable[[Path], object]


def pick(rng: Generator, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) within."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


def change_values(values: Any, rng: Generator) -> Any:
    """Change a few of the values, kinds, keys and lengths of nested dicts and lists."""
    values = copy.deepcopy(values)
    for _ in range(rng.integers(1, 4)):
        found = places(values)
        if not found:
            break
        container, key = pick(rng, found)
        match pick(rng, ["replace", "replace", "number", "delete", "rename", "exchange", "wrap", "grow"]):
            case "replace":
                container[key] = copy.deepcopy(pick(rng, STRANGE))
            case "number":
                numbers = [(c, k) for c, k in found if isinstance(c[k], (int, float))] or [(container, key)]
                container, key = pick(rng, numbers)
                container[key] = pick(rng, [v for v in STRANGE if isinstance(v, (int, float))])
            case "delete":
                del container[key]
            case "rename" if isinstance(container, dict):
                container[str(pick(rng, STRANGE))[:50]] = container.pop(key)
            case "exchange":
                other, place = pick(rng, found)
                container[key] = copy.deepcopy(other[place])
            case "wrap":
                container[key] = [container[key]] if rng.random() < 0.5 else {str(key): container[key]}
            case "grow" if isinstance(container, list):
                container.extend(copy.deepcopy(container) * int(rng.integers(1, 50)))
    return values


def change_bytes(data: bytes, rng: Generator) -> bytes:
    """Flip, overwrite, cut, remove and repeat bytes."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        if len(changed) < 2:
            break
        place = int(rng.integers(min(len(changed), pick(rng, [64, 1024, len(changed)]))))
        length = pick(rng, [1, 2, 8, 64, 512])
        match pick(rng, ["flip", "byte", "sign", "cut", "delete", "copy", "number"]):
            case "flip":
                changed[place] ^= 1 << int(rng.integers(8))
            case "byte":
                changed[place] = int(rng.integers(256))
            case "sign":
                changed[place : place + 1] = pick(rng, list("\"'{}[]:,;-&*!%@`\n\r\t #|>~\\")).encode()
            case "cut":
                del changed[int(rng.integers(len(changed))) :]
            case "delete":
                del changed[place : place + length]
            case "copy":
                changed[place:place] = changed[place : place + length] * int(rng.integers(1, 20))
            case "number":
                changed[place : place + 8] = int(pick(rng, [0, 1, 2**31, 2**63, 2**64 - 1])).to_bytes(8, "little")
    return bytes(changed)


def dump(values: Any, rng: Generator) -> bytes:
    if rng.random() < 0.5:
        return json.dumps(values).encode()  # which is YAML too
    return yaml.safe_dump(json.loads(json.dumps(values)), allow_unicode=True).encode(errors="replace")


def changed_file(values: Any, rng: Generator) -> bytes:
    if rng.random() < 0.7:
        return dump(change_values(values, rng), rng)
    return change_bytes(dump(values, rng), rng)


def write_manifest(folder: Path, rng: Generator) -> None:
    (folder / "case.yaml").write_bytes(changed_file(pick(rng, MANIFESTS), rng))
    rows = ROWS.encode()
    (folder / "rows.csv").write_bytes(change_bytes(rows, rng) if rng.random() < 0.3 else rows)


def read_manifest(folder: Path) -> None:
    manifest = load_manifest(folder / "case.yaml")
    table = load_table(manifest, fold=0 if manifest.splits.folds else None)
    assert len(table) == len(table.splits)
    assert all(len(target) == len(table) for target in table.targets.values())


def write_config(folder: Path, rng: Generator) -> None:
    values = yaml.safe_load(schema().replace("???", "x"))
    chosen = {key: values[key] for key in values if rng.random() < 0.4}
    (folder / "case.yaml").write_bytes(changed_file({"name": "run", "data": {"manifest": "m.yaml"}} | chosen, rng))


def write_table(folder: Path, rng: Generator) -> None:
    frame = pd.read_csv(io.StringIO(ROWS), keep_default_na=False)
    rows = frame.to_dict("records")
    match pick(rng, ["csv", "jsonl", "values", "parquet", "types"]):
        case "csv":
            (folder / pick(rng, ["case.csv", "case.tsv"])).write_bytes(change_bytes(ROWS.encode(), rng))
        case "jsonl":
            (folder / "case.jsonl").write_bytes(change_bytes("\n".join(map(json.dumps, rows)).encode(), rng))
        case "values":
            changed: Any = change_values(rows[:6], rng)
            (folder / "case.jsonl").write_text("\n".join(map(json.dumps, changed)))
        case "parquet":
            out = io.BytesIO()
            frame.to_parquet(out)
            (folder / "case.parquet").write_bytes(change_bytes(out.getvalue(), rng))
        case "types":
            kinds = [[b"\xff"], [1.5], [True], [["a"]], [{"a": 1}], [pd.Timestamp("2020-01-01")], [None], [2**62]]
            n, names = int(rng.integers(1, 4)), list(frame.columns)
            columns = [pick(rng, kinds) * n if rng.random() < 0.4 else list(frame[name][:n]) for name in names]
            names[int(rng.integers(len(names)))] = pick(rng, ["x", "", *names])
            pq.write_table(pa.Table.from_arrays([pa.array(c) for c in columns], names=names), folder / "case.parquet")


def read_table(folder: Path) -> None:
    (path,) = folder.glob("case.*")
    studies = TableStudies(str(path))
    assert len(set(studies.ids())) == len(studies)
    (folder / "manifest.yaml").write_text(json.dumps(MANIFESTS[0] | {"rows": path.name}))
    load_table(load_manifest(folder / "manifest.yaml"))


def write_good_model(folder: Path) -> None:
    """An untrained model, tiny."""
    from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
    from mmfuse.encoders.image import build_image_encoder
    from mmfuse.encoders.text import build_text_encoder
    from mmfuse.model import FusionModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = TextEncoderConfig(name="bert", pretrained=False, options=sizes, max_length=32, vocab_size=200)
    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2}
    image = ImageEncoderConfig(name="vit_tiny_patch16_224", pretrained=False, size=[32, 32], options=vit)
    towers = build_text_encoder(text, ["no finding"] * 9), build_image_encoder(image)
    tasks = {
        "l": {"type": "multilabel", "labels": ["a", "b"]},
        "t": {"type": "classification", "labels": ["u", "v"]},
    }
    model = FusionModel(*towers, {"name": "concat", "out_dim": 16}, tasks)
    model.accepts_missing = ["image"]
    model.save_pretrained(folder)


_good: dict[str, bytes] = {}


def write_model(folder: Path, rng: Generator) -> None:
    if not _good:
        with tempfile.TemporaryDirectory() as made:
            write_good_model(Path(made))
            files = (path for path in sorted(Path(made).rglob("*")) if path.is_file())
            _good.update({str(path.relative_to(made)): path.read_bytes() for path in files})
    for name, data in _good.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    tokenizer = [name for name in _good if name.startswith("tokenizer")]
    name = pick(rng, ["config.json"] * 4 + ["model.safetensors"] * 2 + tokenizer)
    if name.endswith(".json") and rng.random() < 0.8:
        (folder / name).write_text(json.dumps(change_values(json.loads(_good[name]), rng)))
    elif name.endswith(".safetensors") and rng.random() < 0.5:
        size = int.from_bytes(_good[name][:8], "little")
        header = json.dumps(change_values(json.loads(_good[name][8 : 8 + size]), rng)).encode()
        (folder / name).write_bytes(len(header).to_bytes(8, "little") + header + _good[name][8 + size :])
    else:
        (folder / name).write_bytes(change_bytes(_good[name], rng))


def read_model(folder: Path) -> None:
    from mmfuse.predict import Predictor

    (said,) = Predictor.from_pretrained(folder)([Sample("1", text="no finding")])
    if isinstance(said, Failure):
        raise MmfuseError(said.reason)
    for task in said.tasks.values():
        assert all(0 <= p <= 1 for p in task["probabilities"].values()), task


READERS = {
    "manifest": Reader(write_manifest, read_manifest),
    "config": Reader(write_config, lambda folder: load_config(folder / "case.yaml")),
    "table": Reader(write_table, read_table),
    "model": Reader(write_model, read_model),
}


def write_case(what: str, number: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    READERS[what].write(folder, np.random.default_rng(number))


def work(what: str, first: int, current: Any, found: Any) -> None:
    """Read case after case; `current` holds the number of the one that is being read."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("error")
    root = Path(tempfile.mkdtemp())
    if what == "model":  # what is slow at first: imports, and the good folder
        write_good_model(root / "good")
        read_model(root / "good")
        write_case(what, first, root / "first")
    for number in range(first, 2**62):
        current.value = number
        write_case(what, number, root / str(number))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            READERS[what].read(root / str(number))
            found.put(("read", number))
        except MmfuseError as error:
            several = len(str(error).splitlines()) != 1 or len(str(error)) > 20_000
            found.put((f"not one line: {str(error)[:300]!r}" if several else "refused", number))
        except Exception:
            found.put((traceback.format_exc(limit=-4), number))
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > MEGABYTES * 1024:
            found.put(("memory", number))
        shutil.rmtree(root / str(number))


if __name__ == "__main__":
    run(__doc__, READERS, SECONDS, work, write_case)
