"""A folder: of tables and images, of pairs, of a folder for each label, or a public data set as it is downloaded."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmfuse.data.readers.texts import TextError, read_text
from mmfuse.data.sniff.columns import count_words
from mmfuse.data.sniff.files import TABLES, Opened, frame_of, open_file
from mmfuse.data.sniff.images import Files
from mmfuse.data.sniff.roles import split_of
from mmfuse.types import MmfuseError

_TEXTS = (".txt", ".text", ".report")
_FIRST = ("labels", "metadata", "data", "train", "index", "annotations", "captions", "dataset")
_ASIDE = re.compile(r"(readme|licen[cs]e|requirements|source|changelog|skipped|.*\.errors)\b", re.IGNORECASE)
_MOST_TABLES = 200
_SPLIT_WORDS = re.compile(r"[^\W\d_]+")


def open_folder(folder: Path, most: int | None = None) -> Opened:
    """Rows of what lies in a folder.

    Args:
        folder: It.
        most: How many rows of a table in it are looked at; None: all.

    Raises:
        MmfuseError: There is nothing that is known.
    """
    tables = Files(folder, (*TABLES, ".gz", ".txt"), every=True).paths
    tables = [path for path in tables if not _ASIDE.match(os.path.basename(path))]
    images = Files(folder, every=True)
    stems = {os.path.splitext(path)[0] for path in images.paths}
    sidecars = [path for path in tables if os.path.splitext(path)[0] in stems]
    tables = [path for path in tables if path not in set(sidecars)]
    notes = [path for path in sidecars if path.endswith(".json")]
    if len(notes) > 0.5 * len(images.paths) and images.paths:
        return _of_notes(folder, notes, images)
    texts = [path for path in sidecars if path.endswith(_TEXTS)]
    found = _tables(folder, tables, most)
    if found:
        return _of_tables(folder, found, texts, images)
    if images.paths or texts:
        return _of_files(folder, images.paths, texts or [path for path in tables if path.endswith(_TEXTS)])
    raise MmfuseError(f"{folder}: no table (csv, tsv, xlsx, json, jsonl, parquet), no images and no texts are in it")


def _tables(folder: Path, paths: Sequence[str], most: int | None) -> list[tuple[str, Opened]]:
    """The tables that can be read; of .txt files those that look like one."""
    named = [p for p in paths if not p.endswith(".txt")]
    plain = [p for p in paths if p.endswith(".txt")]
    plain = plain if len(plain) <= 20 else []  # reports, not tables
    found = []
    for path in (named + plain)[:_MOST_TABLES]:
        try:
            opened = open_file(folder / path, most)
        except MmfuseError:
            continue
        if path.endswith(".txt") and len(opened.frame.columns) < 2:
            continue
        found.append((path, opened))
    return found


def _family(path: str) -> tuple[str, str | None]:
    """A file's name without the word of a split, and that split."""
    stem = os.path.basename(path).partition(".")[0]
    split = split_of(stem)
    if split is None:
        above = os.path.basename(os.path.dirname(path))
        return (path, None) if split_of(above) is None else (f"*/{os.path.basename(path)}", split_of(above))
    rest = [word for word in _SPLIT_WORDS.findall(stem) if split_of(word) is None and word not in ("seen", "unseen")]
    return f"{os.path.dirname(path)}/{'_'.join(rest)}", split


def _of_tables(folder: Path, found: list[tuple[str, Opened]], texts: Sequence[str], images: Files) -> Opened:
    """The table, or the tables of the splits, that most speaks for; others are told."""
    families: dict[str, list[tuple[str, str | None, Opened]]] = defaultdict(list)
    for path, opened in found:
        family, split = _family(path)
        families[family].append((path, split, opened))

    def weight(members: list[tuple[str, str | None, Opened]]) -> tuple:
        path, _, opened = members[0]
        first = (
            _FIRST.index(stem) if (stem := os.path.basename(path).partition(".")[0].lower()) in _FIRST else len(_FIRST)
        )
        wide = max(len(opened.frame.columns) for *_, opened in members)
        rows = sum(len(opened.frame) for *_, opened in members)
        return _names_images(opened, images), -path.count("/"), -first, wide > 2, rows, wide

    best = max(families.values(), key=weight)
    if len(best) > 1 and {split for _, split, _ in best} >= {"train"}:
        opened = _join_splits(best)
    else:
        _, _, opened = max(best, key=lambda one: (one[1] == "train", len(one[2].frame)))
    opened.base = folder.resolve()
    opened.name = folder.resolve().name if opened.name.lower() in _FIRST or len(best) > 1 else opened.name
    opened.said.insert(0, f"rows: {', '.join(path for path, *_ in best[:6])} in {folder}")
    others = [path for path, _ in found if path not in {p for p, *_ in best}]
    if others:
        more = f" and {len(others) - 6} more" if len(others) > 6 else ""
        opened.unsure.append(
            f"rows: other tables are not read: {', '.join(others[:6])}{more}; name one instead of the folder"
        )
    return _with_texts(folder, opened, texts)


def _names_images(opened: Opened, images: Files) -> bool:
    for name in opened.frame.columns:
        some = [cell for cell in opened.frame[name][:40] if isinstance(cell, str) and cell]
        if some and sum(images.find(cell) is not None for cell in some) > len(some) / 2:
            return True
    return False


def _join_splits(members: list[tuple[str, str | None, Opened]]) -> Opened:
    """Tables of one make, a split each, as one with a column `split`."""
    first = next(opened for _, split, opened in members if split == "train")
    order = {"train": 0, "validation": 1, "test": 2}
    known = [one for one in members if one[1] is not None]
    known.sort(key=lambda one: (order[one[1]], one[0]))  # type: ignore[index]
    column = "split" if "split" not in first.frame.columns else "split_of_file"
    frames = [opened.frame.assign(**{column: split}) for _, split, opened in known]
    joined = pd.concat(frames, ignore_index=True).fillna("")
    first.frame, first.made, first.csv = joined, True, {}
    first.whole = all(opened.whole for *_, opened in known)
    first.told["split"] = column
    first.said.append(f"splits: the column {column} is made of the files' names")
    for name in joined.columns:
        values = list(joined[name])
        if str(name).lower() in ("id", "uid") and all(isinstance(value, str) for value in values):
            if len(set(values)) == len(values):
                break
            kept = joined.drop_duplicates(name)
            first.unsure.append(
                f"rows: {len(joined) - len(kept)} rows have the {name} of an earlier one, and are left out"
            )
            first.frame = kept.reset_index(drop=True)
            break
    return first


def _with_texts(folder: Path, opened: Opened, texts: Sequence[str]) -> Opened:
    """With the texts of files that are named like the rows of the table."""
    if not texts:
        return opened
    by_stem = {os.path.splitext(os.path.basename(path))[0].lower(): path for path in texts}
    for name in opened.frame.columns:
        stems = [
            os.path.splitext(os.path.basename(cell.strip()))[0].lower() if isinstance(cell, str) else ""
            for cell in opened.frame[name]
        ]
        if sum(stem in by_stem for stem in stems) > 0.5 * len(stems):
            column = "text" if "text" not in opened.frame.columns else "text_of_file"
            read = _read_texts([folder / by_stem[stem] if stem in by_stem else None for stem in stems], opened.unsure)
            opened.frame = opened.frame.assign(**{column: read})
            opened.made = True
            opened.told["text"] = column
            opened.said.append(f"text: read from files that are named like {name}, such as {texts[0]}")
            break
    return opened


def _read_texts(paths: Sequence[Path | None], unsure: list[str]) -> list[str]:
    """The texts of files, "" where there is none; what cannot be read is told."""
    texts, damaged = [], []
    for path in paths:
        try:
            texts.append(read_text(path) if path is not None else "")
        except TextError as error:
            texts.append("")
            damaged.append(f"{path.name if path else ''}: {error}")
    if damaged:
        unsure.append(f"text: {len(damaged)} files cannot be read and count as no text, such as {damaged[0]}")
    return texts


def _of_notes(folder: Path, notes: Sequence[str], images: Files) -> Opened:
    """A JSON file beside each image: its fields are columns."""
    by_stem = {os.path.splitext(path)[0]: path for path in images.paths}
    records, damaged = [], 0
    for path in notes:
        try:
            value = json.loads((folder / path).read_bytes())
        except ValueError:
            value = None
        if not isinstance(value, dict):
            damaged += 1
            continue
        stem = os.path.splitext(path)[0]
        own = {"id": stem.rpartition("/")[2], "image": by_stem[stem]}
        records.append({**{k: v for k, v in value.items() if k not in own}, **own})
    _take_longest(records)
    opened = _made(folder, frame_of(records), {"id": "id", "image": "image"})
    opened.said.append(f"rows: {len(records)} images with a JSON file each, whose fields are columns")
    if damaged:
        opened.unsure.append(f"rows: {damaged} JSON files hold no object, and are left out")
    return opened


def _take_longest(records: list[dict[str, Any]]) -> None:
    """Of fields that are lists of texts, several wordings of one thing, the longest: one is read."""
    for name in {name for record in records for name in record}:
        lists = [record[name] for record in records if isinstance(record.get(name), list)]
        items = [item for found in lists for item in found if isinstance(item, str)]
        if items and sum(map(count_words, items)) >= 2 * len(items) and len(items) == sum(map(len, lists)):
            for record in records:
                if isinstance(record.get(name), list):
                    record[name] = max(record[name], key=len, default="")


def _made(folder: Path, frame: pd.DataFrame, told: dict[str, str]) -> Opened:
    place = folder.resolve()
    return Opened(frame, str(place), place, place.name, made=True, told=told)


def _of_files(folder: Path, images: Sequence[str], texts: Sequence[str]) -> Opened:
    """Images and texts paired by their names, with the label and the split that their folders tell."""
    pairs: dict[str, dict[str, str]] = defaultdict(dict)
    for path in images:
        pairs[os.path.splitext(path)[0]].setdefault("image", path)
    for path in texts:
        pairs[os.path.splitext(path)[0]].setdefault("text", path)
    ids = sorted(pairs)
    rows: dict[str, list[str]] = {"id": ids, "image": [pairs[i].get("image", "") for i in ids]}
    told = {"id": "id", "image": "image"}
    unsure: list[str] = []
    if texts:
        rows["text"] = _read_texts([folder / pairs[i]["text"] if "text" in pairs[i] else None for i in ids], unsure)
        told["text"] = "text"
    if not images:
        del rows["image"], told["image"]
    split, label = _levels([i.split("/")[:-1] for i in ids])
    for role, level, name in (("split", split, "split"), ("target", label, "label")):
        if level is not None:
            rows[name] = [i.split("/")[level] for i in ids]
            told[role] = name
    opened = _made(folder, pd.DataFrame(rows, dtype="object"), told)
    opened.unsure += unsure
    what = "images" if not texts else "texts" if not images else "images and texts, paired by their names"
    opened.said.append(f"rows: {len(ids)} {what}; the id is the path without suffix")
    if label is None:
        raise MmfuseError(
            f"{folder}: {len(ids)} {what}, but nothing tells a label: put a labels.csv into it with the columns id and "
            "label, or the files of each label into a folder of its own"
        )
    opened.said.append("target: the folder that a file is in")
    if split is not None:
        opened.said.append("splits: a folder of each split")
    return opened


def _levels(folders: Sequence[Sequence[str]]) -> tuple[int | None, int | None]:
    """Which level of folders says the split, and which the label."""
    depth = min(map(len, folders), default=0)
    counts = [Counter(parts[level] for parts in folders) for level in range(depth)]
    split = next((i for i, names in enumerate(counts) if len(names) > 1 and _are_splits(names)), None)
    levels = [i for i, names in enumerate(counts) if i != split and 2 <= len(names) <= max(2, len(folders) / 2)]
    return split, levels[-1] if levels else None


def _are_splits(names: Iterable[str]) -> bool:
    found = [split_of(name) for name in names]
    return None not in found and "train" in found
