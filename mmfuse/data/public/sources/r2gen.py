"""R2Gen's annotation.json, which many papers on writing reports read: for Open-I (iu_xray) and for MIMIC-CXR.

Seen in public copies (searched 2026-11): lists of objects under train, val and test, with `id`, `report`, `image_path`
(a list, relative to images/) and `split`; those of MIMIC-CXR have `subject_id` and `study_id` too, and a picture each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.public.sources import Row
from mmfuse.data.public.sources.files import bad_line, objects, read_json, text_of
from mmfuse.types import MmfuseError

_KEYS = ("id", "report", "image_path")


def read_annotation(path: Path, images: Path, also: tuple[str, ...] = ()) -> Iterator[Row]:
    """A row an entry, in the order of the file.

    Args:
        path: annotation.json.
        images: What the paths in it are relative to.
        also: More keys that become columns, before the others.

    Raises:
        MmfuseError: It is damaged, or another set's.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise MmfuseError(f"{path}: an object with train, val and test is expected")
    first = next((items[0] for items in data.values() if isinstance(items, list) and items), {})
    if isinstance(first, dict) and ("subject_id" in first) != bool(also):
        other = ("Open-I", "open_i") if also else ("MIMIC-CXR", "mimic_cxr")
        raise MmfuseError(f"{path}: this looks like R2Gen's copy of {other[0]}: mmfuse data prepare {other[1]}")
    for split, items in data.items():
        for number, item in objects(items, path, split, (*_KEYS, *also)):
            yield item if isinstance(item, Row) else _row(split, item, number, path, images, also)


def _row(split: str, item: dict[str, Any], number: int, path: Path, images: Path, also: tuple[str, ...]) -> Row:
    found = item["image_path"] if isinstance(item["image_path"], list) else [item["image_path"]]
    if not all(isinstance(name, str) for name in found):
        return bad_line(path, number, "its image_path is no list of paths")
    columns = {key: text_of(item, key) for key in also}
    columns |= {"split": split, "report": text_of(item, "report")}
    return Row(text_of(item, "id"), columns, tuple(images / name for name in found), path=path, line=number)
