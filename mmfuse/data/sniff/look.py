"""All that is guessed of a set of rows, in the order in which one guess needs another."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfuse.data.sniff.columns import Column, columns_of
from mmfuse.data.sniff.files import MOST_ROWS, Opened
from mmfuse.data.sniff.guessed import Given, Guess
from mmfuse.data.sniff.images import FOUND, Images, find_images
from mmfuse.data.sniff.open import open_data
from mmfuse.data.sniff.roles import find_group, find_id, find_split, owners_in_paths
from mmfuse.data.sniff.targets import (
    CAPTIONS,
    Target,
    flag_columns,
    kind_of_target,
    possible_targets,
    target_of_flags,
)
from mmfuse.data.sniff.texts import Text, find_text
from mmfuse.data.tables.manifest import CONTENT, ROW
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError

_RATIOS = {"train": 0.7, "validation": 0.1, "test": 0.2}
_GENERIC = re.compile(
    r"(data|train|test|all|labels?|metadata|rows|dataset|index|annotations|images?|img|texts?|list|results)"
    r"([-_ .]?\d.*)?",
    re.IGNORECASE,
)
_FEWEST_FLAGS = 3
_LIKELY = 8


def guess(data: str | Path, given: Given | None = None, base: Path | None = None) -> Guess:
    """A manifest for what people have, and what was guessed in it and why.

    Args:
        data: A file of rows, a folder, or `hf:NAME@split`.
        given: What the user has named.
        base: Where files are looked for that the rows name; default: where the data is.

    Raises:
        MmfuseError: Nothing can be made of it, or a column that is named is not there, or no column could be a target.
    """
    given = given or Given()
    found, opened = _look(str(data), given, base, MOST_ROWS)
    if opened is not None and opened.made and not opened.whole:  # rows that are written anew are written whole
        found, _ = _look(str(data), given, base, None)
    return found


def _look(data: str, given: Given, base: Path | None, most: int | None) -> tuple[Guess, Opened | None]:
    """What is guessed of so many rows, and the rows, if any were opened."""
    opened = open_data(data, given, most)
    if isinstance(opened, Guess):
        return opened, None
    opened.base = opened.base if base is None else base
    return _Looking(opened, given).guess(), opened


def _hardly_recurs(target: Target) -> bool:
    """Whether most labels are of one row only, or two."""
    if not target.kind.has_labels:
        return False
    counts = Counter(label for labels in target.labels for label in labels or ())
    return 2 * len(counts) > sum(counts.values())


@dataclass
class _Looking:
    """What is known so far of one set of rows."""

    opened: Opened
    given: Given
    said: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)

    def guess(self) -> Guess:
        """All of it."""
        opened, told = self.opened, self.opened.told
        self.columns = columns_of(opened.frame)
        self.said += opened.said
        self.unsure += opened.unsure
        self.where = opened.rows
        self.asked = {role: self._named(role) or told.get(role) for role in ("target", "image", "group", "id", "split")}
        self.texts = [self._column(name, "text") for name in self.given.texts]
        split = find_split(self.columns, self.asked["split"])
        if self.asked["split"] and split is None:
            raise MmfuseError(
                f"{self.where}: split: {self.asked['split']!r} does not say train and another split in every row"
            )
        target = self._target(None) if self.asked["target"] else None
        apart = {split[0]} if split else set()
        apart |= set(target.columns) if target else set()
        image = find_images(self.columns, opened.base, self.asked["image"], [*apart, *self.texts])
        if image is not None and image.made is not None:
            self._add(FOUND, image.made)
            apart |= {FOUND} if image.column != FOUND else set()
        id = self.asked["id"] or find_id(self.columns, image and image.column, {*apart, *self.texts})
        taken = {name for name in (id, image and image.column) if name}
        if target is None:
            target = self._likeliest({*apart, *taken, *self.texts}, image)
            apart |= set(target.columns)
        elif image is not None and not target.kind.is_text:
            target = self._target(image.paths)
        group = self._group({*apart, *taken, *self.texts}, image)
        owners = set(group if isinstance(group, list) else [group] if group else [])
        text = self._text(target, {*apart, *taken, *owners})
        if image is None and not text.columns:
            raise MmfuseError(f"{self.where}: no column of images or texts is found; name one with --image or --text")
        if group is None:
            group = self._group_by_text({*apart, *taken, *text.columns}, text)
        return self._assemble(id, image, text, group, target, split)

    def _named(self, role: str) -> str | None:
        name = getattr(self.given, role)
        if name is None:
            return None
        if role == "target" and name not in self.columns and flag_columns(self.columns, name):
            return name
        return self._column(name, role)

    def _column(self, name: str, role: str) -> str:
        if name in self.columns:
            return name
        bare = [known for known in self.columns if known.strip() == name.strip()]
        if len(bare) == 1:
            return bare[0]
        raise MmfuseError(f"{self.where}: {role}: no column {name!r}; {nearest(name, self.columns)}")

    def _target(self, images: dict[int, str] | None) -> Target:
        name = self.asked["target"] or ""
        if name not in self.columns:
            return target_of_flags(name, flag_columns(self.columns, name), self.columns)
        try:
            return kind_of_target(self.columns[name], images)
        except MmfuseError as error:
            raise MmfuseError(f"{self.where}: target: {error}") from error

    def _likeliest(self, apart: set[str], image: Images | None) -> Target:
        """The target where none is named: the likeliest column, and which others there are."""
        flags = flag_columns(self.columns)
        ranked = possible_targets(self.columns, apart | (set(flags) if len(flags) >= _FEWEST_FLAGS else set()))
        if len(flags) >= _FEWEST_FLAGS:
            ranked.append((14, ""))  # many columns of 0 and 1 are hardly anything else than labels
        if image is not None:
            ranked += [(4, c.name) for c in self._sentences(apart) if c.name not in {name for _, name in ranked}]
        tried = []
        for score, name in ranked:
            try:
                target = kind_of_target(self.columns[name], image and image.paths) if name else None
            except MmfuseError:
                continue
            if target is None:
                target = target_of_flags("labels", flags, self.columns)
            elif target.kind.is_text and not CAPTIONS & set(self.columns[name].words):
                score = 1  # any text can be written, so a class is likelier
            elif _hardly_recurs(target):
                score = 0
            tried.append((score, name, target))
        found, others = None, []
        for score, name, target in sorted(tried, key=lambda one: -one[0]):
            if found is None:
                found = target
                sure = "likely" if score >= _LIKELY else "little speaks for it"
                self.unsure.append(f"target: none was named; {name or 'the columns of 0 and 1'} is taken ({sure})")
            else:
                others.append(name or "labels")
        if found is None:
            raise MmfuseError(
                f"{self.where}: no column looks like a target; name one with --target: {', '.join(self.columns)}"
            )
        if others:
            self.unsure.append(f"target: others that could be, with --target: {', '.join(others[:8])}")
        return found

    def _sentences(self, apart: set[str]) -> Iterable[Column]:
        found = [c for name, c in self.columns.items() if name not in apart and c.kind == "text" and c.length >= 3]
        return sorted(found, key=lambda c: not CAPTIONS & set(c.words))

    def _group(self, apart: set[str], image: Images | None) -> Any:
        if self.asked["group"]:
            self.said.append(f"group: {self.asked['group']}, as was named")
            return self.asked["group"]
        pictures = self.columns[image.manifest.get("column", image.column)] if image else None
        found = find_group(self.columns, apart, pictures if pictures and pictures.kind == "text" else None, None)
        if found is None and pictures is not None and pictures.kind in ("bytes", "object"):
            return self._group_of_pictures(pictures)
        if found is None and image is not None:
            return self._group_of_paths(image)
        if found is None:
            return None
        name = " and ".join(found[0]) if isinstance(found[0], list) else found[0]
        self.said.append(f"group: {name}: {found[1]}")
        return found[0]

    def _group_of_pictures(self, pictures: Column) -> str | None:
        """Rows that are alike, where encoded images stand in several rows, as with a row for each caption."""
        there = [repr(cell) for cell in pictures.cells if cell not in ("", [], {})]
        repeated = len(there) - len(set(there))
        if not repeated or CONTENT in self.columns:
            return None
        self.said.append(f"group: {CONTENT}: {repeated} of {len(there)} rows repeat an image of {pictures.name}")
        return CONTENT

    def _group_of_paths(self, image: Images) -> str | None:
        """A column that is made of the folder of a patient or the like in the images' paths."""
        texts = self.columns[image.column].texts
        found = owners_in_paths(image.paths, texts)
        if found is None:
            return None
        place, example = found
        parts = [text.replace("\\", "/").split("/")[:-1] for text in texts]
        owners = [part[place] if len(part) >= -place else "" for part in parts]
        name = re.sub(r"[\W\d_]", "", example).lower()
        name = {"p": "patient", "s": "study", "pat": "patient", "sub": "subject"}.get(name, name)
        self._add(name, owners)
        self.said.append(f"group: {name}: made of the part {example} of {image.column}")
        return name

    def _add(self, name: str, values: list[str]) -> None:
        self.opened.frame = self.opened.frame.assign(**{name: values})
        self.columns[name] = Column(name, values)
        self.opened.made = True

    def _group_by_text(self, apart: set[str], text: Text) -> Any:
        column = self.columns[text.columns[0]] if text.columns else None
        found = find_group(self.columns, apart, None, column)
        if found is None:
            self.said.append("group: none: no column of patients or the like, and no input that repeats")
            return None
        self.said.append(f"group: {found[0]}: {found[1]}")
        return found[0]

    def _text(self, target: Target, apart: set[str]) -> Text:
        if not self.texts and self.opened.told.get("text"):
            self.texts = [self.opened.told["text"]]
        text = find_text(self.columns, self.texts, apart, target)
        self.said += text.said
        self.unsure += text.unsure
        return text

    def _assemble(
        self,
        id: str | None,
        image: Images | None,
        text: Text,
        group: Any,
        target: Target,
        split: tuple[str, dict[str, str]] | None,
    ) -> Guess:
        manifest: dict[str, Any] = {"name": self._name()}
        if image is not None:
            self.said += image.said
            self.unsure += image.unsure
        manifest["rows"] = f"{manifest['name']}.rows.parquet" if self.opened.made else self.opened.rows
        manifest |= {"csv": self.opened.csv} if self.opened.csv else {}
        manifest["id"] = id or ROW
        how = "as was named" if self.given.id else "it names each row once"
        self.said.append(f"id: {id}: {how}" if id else "id: no column names each row once, so it is the row's number")
        manifest |= {"group": group} if group is not None else {}
        manifest |= {"image": image.manifest} if image is not None else {}
        manifest |= {"text": {"columns": text.columns}} if text.columns else {}
        manifest["tasks"] = {self._task_name(target.name): target.spec}
        self.said.append(f"target: {target.said}")
        self.unsure += target.unsure
        manifest["splits"] = self._splits(split, group, target)
        made = self.opened.whole_frame() if self.opened.made else None
        return Guess(manifest, self.said, self.unsure, self._comments(), made)

    def _comments(self) -> dict[str, str]:
        keys = {"rows": "rows", "id": "id", "group": "group", "image": "image", "text": "text", "target": "tasks"}
        comments: dict[str, list[str]] = {}
        for line, mark in [(line, "") for line in self.said] + [(line, "UNSURE: ") for line in self.unsure]:
            role, _, rest = line.partition(": ")
            key = keys.get(role.partition(".")[0], role.partition(".")[0])
            comments.setdefault(key, []).append(f"{mark}{rest}")
        return {key: "\n".join(lines) for key, lines in comments.items()}

    def _name(self) -> str:
        names = [self.opened.name, self.opened.base.name, self.opened.base.parent.name]
        name = next((name for name in names if name and not _GENERIC.fullmatch(name)), names[0])
        return re.sub(r"[^\w\-]+", "_", name).strip("_") or "data"

    def _task_name(self, name: str) -> str:
        plain = re.sub(r"[./\\\s]+", "_", name).strip("_")[:60] or "target"
        return f"{plain}_" if plain in ("log_variances", "monitored", "training") else plain

    def _splits(self, split: tuple[str, dict[str, str]] | None, group: Any, target: Target) -> dict[str, Any]:
        if split is not None:
            name, names = split
            words = set(self.columns[name].counts)
            there = {names.get(word, word) for word in words}
            shared = self._shared(name, group)
            if not shared:
                self.said.append(f"splits: {name} says {', '.join(sorted(words))}")
                if "validation" not in there:
                    self.unsure.append(f"splits: {name} has no validation part: nothing stops the training early")
                return {"column": name, **({"names": names} if names else {})}
            self.unsure.append(f"splits: {name} is not followed: {shared} values of {group} are in two of its splits")
        stratify = {"stratify": self._task_name(target.name)} if target.kind.has_labels else {}
        alike = ", each with the same share of every label" if target.kind.has_labels else ""
        self.said.append(f"splits: 70 % to train, 10 % validation, 20 % test{alike}")
        return {"ratios": dict(_RATIOS), **stratify}

    def _shared(self, split: str, group: Any) -> int:
        if not isinstance(group, str) or group not in self.columns:  # such as content
            return 0
        splits: dict[str, set[str]] = {}
        for owner, part in zip(self.columns[group].texts, self.columns[split].texts, strict=True):
            if owner:
                splits.setdefault(owner, set()).add(part)
        return sum(len(parts) > 1 for parts in splits.values())
