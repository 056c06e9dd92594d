"""A data manifest: the YAML that says all the code must know of a dataset."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfuse.config import key, parse, read_small, read_yaml
from mmfuse.data.files.locations import check_urls
from mmfuse.data.rows.delimited import CsvSpec
from mmfuse.data.rows.hugging_face import PREFIX, is_dataset, split_name
from mmfuse.data.tables.features import FeaturesSpec, check_features
from mmfuse.data.tables.paths import PLACEHOLDER, template_columns
from mmfuse.registry import nearest
from mmfuse.sections import SECTIONS
from mmfuse.tasks import TASKS, check_spec, kind_of
from mmfuse.tasks.spec import KEYS, TaskSpec
from mmfuse.types import MmfuseError

CONTENT = "content"
"""As `group`, where no column has this name: rows that are alike."""
ROW = "row"
"""As `id`, where no column has this name: a row's number, from 1."""
INDEX = "shards.json"
"""As `rows`: the index of a folder of shards."""


@dataclass
class ImageSpec:
    """Where the images are."""

    column: str | None = key(None, "column with a path")
    columns: list[str] | None = key(None, "columns with a path each: the views of a study")
    separator: str | None = key(None, "with column or a template of one: what stands between the paths of one study")
    root: str = key(".", "what the paths are relative to; itself relative to the manifest")
    urls: list[str] = key([], "URLs that may stand in the column: [https, s3], or with a host: [https://host:8080]")
    features: FeaturesSpec | None = key(None, "instead of images: numbers that were computed before")
    template: str | None = key(None, 'instead of column: the path, made of columns, such as "{id}.jpg"')

    @property
    def named(self) -> list[str]:
        """The columns."""
        if self.features is not None:
            return self.features.named
        if self.template is not None:
            return template_columns(self.template)
        return self.columns or ([self.column] if self.column else [])

    @property
    def permitted(self) -> tuple[str, ...]:
        """What may be opened beside paths (`mmfuse.data.files.locations`): the URLs, and all below a URL as root."""
        return (*self.urls, self.root) if "://" in self.root else tuple(self.urls)


@dataclass
class TextSpec:
    """What the text encoder reads."""

    columns: list[str] = key([], "columns it is made of")
    template: str | None = key(None, 'how, such as "{indication} {history}"; default: the columns, a line each')
    missing: list[str] = key([], "contents that mean there is no text (an empty one always does)")
    section: Any = field(
        default=None,
        metadata={"help": f"of radiology reports in the columns, one section or a list: {', '.join(SECTIONS)}"},
    )
    features: FeaturesSpec | None = key(None, "instead of texts: numbers that were computed before")
    files: str | None = key(
        None, 'instead of columns: column with the path of a text file, or the path made of columns: "{id}.txt"'
    )
    root: str = key(".", "with files: what the paths are relative to; itself relative to the manifest")

    @property
    def named(self) -> list[str]:
        """The columns."""
        if self.files is not None:
            return template_columns(self.files) or [self.files]
        return self.features.named if self.features is not None else self.columns

    @property
    def sections(self) -> list[str]:
        """The sections that are read; empty: all of the text."""
        return list(self.section or []) if isinstance(self.section, list | None) else [self.section]


@dataclass
class SplitSpec:
    """Which row is for what: a column, ratios by hash of the group, or folds."""

    column: str | None = key(None, "column that says train, validation or test")
    time: str | None = key(
        None, "column of dates (ISO 8601) or numbers: train before validation before test, in the shares of ratios"
    )
    names: dict[str, str] = key({}, "that column's own words: {val: validation}")
    ratios: dict[str, float] = key({}, "shares such as {train: 0.7, validation: 0.1, test: 0.2}")
    folds: int | None = key(None, "instead of ratios: cross-validation with this many folds", low=2)
    repeats: int = key(1, "of the folds, each with another seed; fold runs to folds * repeats", low=1)
    validation: float = key(0.1, "with folds: share of the rest that is validation", low=0.0, high=0.9)
    stratify: str | None = key(None, "task whose labels every split shares alike; then new rows may move old ones")
    exact: bool = key(False, "the shares are met to the row, as with stratify; then new rows may move old ones")
    seed: int = key(0, "another one gives another split", low=0)


@dataclass
class Manifest:
    """All of a manifest."""

    rows: str = key(
        "???",
        "csv, tsv, jsonl or parquet file(s): a path, a glob, or a URL; a folder of images and texts; or a Hugging Face "
        "dataset: hf:NAME@split",
    )
    id: str = key("???", "column that names a row; unique; row: its number from 1, where no column has this name")
    tasks: dict[str, TaskSpec] = key({}, "by name")
    name: str = key("???", "of the dataset")
    version: int = key(1, "counts up when the rows or their meaning change", low=1)
    about: str = key("", "a paragraph on what it is")
    homepage: str = key("", "where it is described")
    licence: str = key("", "under which it may be used")
    citation: str = key("", "what to cite")
    obtain: str = key("", "how to get it")
    notes: list[str] = key([], "what must be known of these very rows; `data check` repeats it")
    csv: CsvSpec = field(default_factory=CsvSpec)
    group: Any = field(
        default=None,
        metadata={
            "help": "column that is never in two splits (a patient); content: rows that are alike; a list: rows that "
            "have any of these in common; {file: groups.csv}: a table of id and group; default: the id"
        },
    )
    image: ImageSpec | None = key(None, "where the images are; absent: none")
    text: TextSpec | None = key(None, "what the text encoder reads; absent: nothing")
    splits: SplitSpec = field(default_factory=SplitSpec)
    subgroups: list[str] = key([], "columns to break metrics down by")

    source: str = key("", "set when read: the manifest's own path")
    sha256: str = key("", "set when read: hash of the manifest's own bytes")

    @property
    def group_names(self) -> list[str]:
        """The columns that name a row's groups, or `content`."""
        return self.group if isinstance(self.group, list) else [self.group] if isinstance(self.group, str) else []

    @property
    def group_file(self) -> str | None:
        """Where the table of groups lies, if there is one."""
        return _beside(self.source, self.group["file"]) if isinstance(self.group, dict) else None

    def columns(self, tasks: Iterable[str]) -> dict[str, list[str]]:
        """By key the columns that it names, of its tasks those of `tasks`; `content` as a group may be none."""
        image, text, splits = self.image, self.text, self.splits
        named = {"id": [self.id], "group": self.group_names}
        if image is not None:
            named[image_key(image)] = image.named
        if text is not None:
            named[text_key(text)] = text.named
        named["subgroups"] = self.subgroups
        named |= {f"tasks.{task}": self.tasks[task].named for task in tasks}
        named |= {"splits.column": [splits.column or ""], "splits.time": [splits.time or ""]}
        return {key: [name for name in names if name] for key, names in named.items()}

    @property
    def urls(self) -> tuple[str, ...]:
        """Which URLs may be opened as images (see `mmfuse.data.files.locations`)."""
        return self.image.permitted if self.image else ()


def image_key(image: ImageSpec) -> str:
    """The key that names the columns of images, for errors."""
    keys = ("features", "template", "column")
    return f"image.{next((name for name in keys if getattr(image, name)), 'columns')}"


def text_key(text: TextSpec) -> str:
    """The key that names the columns of texts, for errors."""
    return f"text.{next((name for name in ('features', 'files') if getattr(text, name)), 'columns')}"


def load_manifest(path: str | Path, root: str | None = None) -> Manifest:
    """Read a data manifest; its relative paths become relative to its own folder.

    Args:
        path: A YAML file: a path, or an fsspec URL (a string that contains `://`).
        root: What `${data_root}` stands for; default: the environment variable MMFUSE_DATA_ROOT.

    Raises:
        MmfuseError: The file is missing or not legal; the message names the key and the fix.
    """
    values = read_yaml(path)
    for reserved in ("source", "sha256"):
        if reserved in values:
            raise MmfuseError(f"{path}: {reserved}: no such key; it is set when the manifest is read")
    _check_quoting(values, str(path))
    manifest = manifest_at(path, resolve_root(values, root, str(path)))
    manifest.sha256 = hashlib.sha256(read_small(path)).hexdigest()
    return manifest


def manifest_at(path: str | Path, values: dict[str, Any]) -> Manifest:
    """A manifest of its plain values, as if they stood in a file, to whose folder their relative paths are relative.

    Raises:
        MmfuseError: A key or a value is not legal.
    """
    manifest = parse_manifest(values, str(path))
    manifest.source = str(path)
    manifest.rows = _beside(path, manifest.rows)
    if manifest.image is not None:
        manifest.image.root = _beside(path, manifest.image.root)
    if manifest.text is not None and manifest.text.files is not None:
        manifest.text.root = _beside(path, manifest.text.root)
    for spec in (manifest.text, manifest.image):
        if spec is not None and spec.features is not None and spec.features.file is not None:
            spec.features.file = _beside(path, spec.features.file)
    _check(manifest)
    return manifest


def parse_manifest(values: dict[str, Any], where: str) -> Manifest:
    """A manifest of its plain values; keys of a task that are its kind's own become its `options`.

    Raises:
        MmfuseError: A key or a value is not legal.
    """
    tasks = values.get("tasks")
    if isinstance(tasks, dict):
        values = {**values, "tasks": {name: _own_apart(spec, f"{where}: tasks.{name}") for name, spec in tasks.items()}}
    return parse(Manifest, [(where, values)])


def _own_apart(spec: Any, where: str) -> Any:
    if not isinstance(spec, dict):
        return spec
    kind = spec.get("type", TaskSpec.type)
    own = {name: value for name, value in spec.items() if name not in KEYS}
    legal = TASKS.options(kind) if isinstance(kind, str) and kind in TASKS.names() else None
    for name in own:
        if legal is not None and name not in legal:
            raise MmfuseError(f"{where}.{name}: no such key; {nearest(str(name), [*KEYS, *legal])}")
    known = {name: value for name, value in spec.items() if name in KEYS}
    return {**known, "options": own} if own else known


def is_shards(location: str) -> bool:
    """Whether a manifest's `rows`, or what is to be predicted, names an index of shards."""
    return location == INDEX or location.endswith(f"/{INDEX}")


def is_numbered(id: str, columns: Collection[str]) -> bool:
    """Whether a row's number is its id, as no column is.

    Args:
        id: The manifest's.
        columns: Of the rows.
    """
    return id == ROW and ROW not in columns


def row_numbers(first: int, count: int) -> list[str]:
    """The ids of rows that are numbered: of so many behind the first so many, from 1."""
    return [str(number) for number in range(first + 1, first + count + 1)]


def _beside(manifest: str | Path, location: str) -> str:
    if is_dataset(location):  # a folder beside the manifest, else a name on the Hub
        name, splits = split_name(location)
        folder = _beside(manifest, name)
        return f"{PREFIX}{folder if os.path.isdir(folder) else name}{f'@{splits}' if splits else ''}"
    if "://" in location or os.path.isabs(location):
        return location
    if isinstance(manifest, Path) or "://" not in manifest:
        return str(Path(manifest).parent / location)
    protocol, _, path = manifest.partition("://")  # a store's names know no "." and no ".."
    return f"{protocol}://{posixpath.normpath(posixpath.join(posixpath.dirname(path), location))}"


def resolve_root(values: Any, root: str | None, where: str) -> Any:
    """A manifest's plain values with what `${data_root}` stands for.

    Raises:
        MmfuseError: It is not known.
    """
    if isinstance(values, dict):
        return {name: resolve_root(value, root, where) for name, value in values.items()}
    if isinstance(values, list):
        return [resolve_root(value, root, where) for value in values]
    if not isinstance(values, str) or "${" not in values:
        return values
    root = root or os.environ.get("MMFUSE_DATA_ROOT")
    if root and "://" not in root:
        root = os.path.abspath(root)  # relative to where the user is, not to the manifest
    if "${data_root}" in values and not root:
        raise MmfuseError(
            f"{where}: ${{data_root}} is not known: give --data-root DIR (data.root=DIR) or set MMFUSE_DATA_ROOT"
        )
    values = values.replace("${data_root}", root or "")
    if "${" in values:
        raise MmfuseError(f"{where}: {values!r:.200}: only ${{data_root}} can stand in a manifest")
    return values


def _check_quoting(values: dict[str, Any], where: str) -> None:
    """YAML turns `yes`, `12:30` and `1e5` into other things, so what stands for a column's text must be quoted."""
    tasks = values.get("tasks")
    owners = {f"tasks.{name}": spec for name, spec in tasks.items()} if isinstance(tasks, dict) else {}
    owners |= {"text": values.get("text"), "splits": values.get("splits")}
    for owner, spec in owners.items():
        for name in ("values", "missing", "names"):
            table = spec.get(name) if isinstance(spec, dict) else None
            items = [*table, *table.values()] if isinstance(table, dict) else table if isinstance(table, list) else []
            for item in items:
                if not isinstance(item, str):
                    raise MmfuseError(
                        f"{where}: {owner}.{name}: {item!r} is not a string (YAML reads yes, no, 1 or 12:30 as other "
                        'things); put it in quotes, as in "yes"'
                    )


def check_image(image: ImageSpec | None, where: str) -> None:
    """Refuse what is not legal of where images are.

    Raises:
        MmfuseError: The message begins with `where`, and names the key and the fix.
    """
    if image is None:
        return
    if image.features is not None:
        others = [image.column, image.columns, image.separator, image.template]
        check_features(image.features, "image", others, where)
    elif not image.named or sum(map(bool, (image.column, image.columns, image.template))) != 1:
        way = ": a column in braces is expected" if image.template is not None and not image.named else ""
        raise MmfuseError(f"{where}: image: give either column or columns (or template){way}")
    check_urls(image.urls, where)


def check_text(text: TextSpec | None, where: str) -> None:
    """Refuse what is not legal of what the text encoder reads.

    Raises:
        MmfuseError: The message begins with `where`, and names the key and the fix.
    """
    if text is None:
        return
    if text.features is not None:
        others = [text.columns, text.template, text.missing, text.section, text.files]
        check_features(text.features, "text", others, where)
        return
    if text.files is not None and (text.columns or text.template):
        raise MmfuseError(f"{where}: text.files: the files are the text: leave columns and template out")
    if not text.columns and not text.files:
        raise MmfuseError(f"{where}: text.columns: name the columns that the text encoder reads")
    for name in PLACEHOLDER.findall(text.template or ""):
        if name not in text.columns:
            raise MmfuseError(
                f"{where}: text.template: {{{name}}} is none of its columns; {nearest(name, text.columns)}"
            )
    for name in text.sections:
        if name not in SECTIONS:
            raise MmfuseError(f"{where}: text.section: {name!r} is not a section; {nearest(str(name), SECTIONS)}")


def _check(manifest: Manifest) -> None:
    where = manifest.source
    image, text, splits = manifest.image, manifest.text, manifest.splits
    _check_group(manifest.group, where)
    if image is None and text is None:
        raise MmfuseError(f"{where}: neither image nor text is given; at least one is needed")
    check_image(image, where)
    check_text(text, where)
    read_sections = text.sections if text is not None else []
    for name, task in manifest.tasks.items():
        _check_name(name, where)
        check_spec(task, f"{where}: tasks.{name}")
        targets = [task.column] if task.column else task.columns or []
        apart = bool(task.section and read_sections and task.section not in read_sections)
        for slot, spec in (("text", text), ("image", image)):
            taken = [column for column in (spec.features.named if spec and spec.features else ()) if column in targets]
            if taken:
                raise MmfuseError(
                    f"{where}: tasks.{name}: {taken[0]!r} is the target and in {slot}.features too: the model would "
                    "read the answer"
                )
        for column in targets:
            if text is not None and column in (text.columns or text.named) and not apart:
                raise MmfuseError(
                    f"{where}: tasks.{name}: {column!r} is the target and a text column too: the model would read the "
                    f"answer (of whole reports, give text.section and another one as tasks.{name}.section)"
                )
    chosen = [name for name in ("column", "ratios", "folds") if getattr(splits, name)]
    if len(chosen) > 1:
        raise MmfuseError(f"{where}: splits: give one of column, ratios and folds, not {' and '.join(chosen)}")
    for name in ("column", "folds", "stratify", "exact"):
        if splits.time and getattr(splits, name):
            raise MmfuseError(f"{where}: splits: time goes with ratios, not with {name}: what is when decides alone")
    if splits.ratios and abs(sum(splits.ratios.values()) - 1) > 1e-6:
        raise MmfuseError(f"{where}: splits.ratios: they sum to {sum(splits.ratios.values()):g}, not 1")
    for name, share in splits.ratios.items():
        if name not in ("train", "validation", "test"):
            raise MmfuseError(f"{where}: splits.ratios.{name}: no such split; legal: train, validation, test")
        if not 0 <= share <= 1:
            raise MmfuseError(
                f"{where}: splits.ratios.{name}: {share:g} is out of range; it must be at least 0 and at most 1"
            )
    if splits.stratify is not None and splits.stratify not in manifest.tasks:
        raise MmfuseError(
            f"{where}: splits.stratify: {splits.stratify!r} is not a task; legal: {', '.join(manifest.tasks)}"
        )
    if splits.stratify is not None and not kind_of(manifest.tasks[splits.stratify]).has_labels:
        kind = manifest.tasks[splits.stratify].type
        raise MmfuseError(f"{where}: splits.stratify: {splits.stratify!r} is {kind}, which has no labels")


def _check_name(task: str, where: str) -> None:
    """Refuse what cannot be part of a file's name, of a key such as `tasks.NAME.weight` or of `NAME/METRIC`."""
    if task in ("log_variances", "monitored", "training"):
        raise MmfuseError(f"{where}: tasks.{task}: this name is taken (by mmfuse or torch); choose another")
    if not task.strip() or set(task) & set("./\\") or not task.isprintable() or len(task.encode()) > 100:
        raise MmfuseError(
            f"{where}: tasks: {task!r:.120} cannot be a task's name; at most 100 bytes, and no dot, slash, backslash "
            "or line break, are legal"
        )


def _check_group(group: Any, where: str) -> None:
    names = group if isinstance(group, list) else [group]
    if isinstance(group, dict):
        if list(group) != ["file"] or not isinstance(group["file"], str):
            raise MmfuseError(f"{where}: group: of mappings, only {{file: groups.csv}} is legal")
    elif not names or not all(isinstance(name, str) and name for name in names if group is not None):
        raise MmfuseError(f"{where}: group: {group!r}: the name of a column, a list of names, or {{file: groups.csv}}")
