"""The rows of a table as a model reads them: by the recipe of its training, by a manifest, or by options."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from mmfuse import cells
from mmfuse.data.files.locations import check_urls
from mmfuse.data.rows.delimited import CsvSpec
from mmfuse.data.rows.read import need_columns, read_frames
from mmfuse.data.tables.inputs import TableInputs
from mmfuse.data.tables.manifest import (
    ImageSpec,
    Manifest,
    TextSpec,
    image_key,
    is_numbered,
    row_numbers,
    text_key,
)
from mmfuse.data.tables.recipe import Recipe
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError, Sample

ID, IMAGE, TEXT = "id", "image", "text"
"""The columns of a table of which nothing else is known."""


@dataclass(frozen=True)
class TableOptions:
    """What the user says of a table; None is what the model folder says, or the usual name.

    Attributes:
        id_column: Of the ids.
        image_column: Of the images, in place of those of the training.
        text_column: Of the texts, in place of what the training made them of.
        image_root: What paths are relative to: a path or a URL; default: the table's folder, or what was below it.
        image_urls: Which URLs may stand in the table, as `image.urls` of a manifest; default: none.
    """

    id_column: str | None = None
    image_column: str | None = None
    text_column: str | None = None
    image_root: str | None = None
    image_urls: Sequence[str] = ()


@dataclass(frozen=True)
class Reading:
    """How the rows of a table are read.

    Attributes:
        id: The column of the ids.
        recipe: How a row becomes a text and images.
        csv: How csv and tsv files are written.
        where: By "id", "text" and "image", what named the columns; for errors.
        usual: Columns that nothing named: they may be absent, but not all of the recipe's.
        remedy: What to do where another column is not there.
        about: Which columns are read, in a line.
    """

    id: str
    recipe: Recipe
    csv: CsvSpec
    where: dict[str, str]
    usual: frozenset[str] = frozenset()
    remedy: str = ""
    about: str = ""

    @property
    def cuts_sections(self) -> bool:
        """Whether its texts are sections of reports already."""
        return self.recipe.text is not None and bool(self.recipe.text.sections)

    def columns(self) -> list[str]:
        """All that are read."""
        return list(dict.fromkeys([self.id, *self.recipe.columns()]))

    def check_columns(self, found: Sequence[str], file: str) -> None:
        """Refuse a file that lacks a column, whatever may be missing in it.

        Raises:
            MmfuseError: It names the column, the nearest that there is, and what to do.
        """
        if not is_numbered(self.id, found):
            need_columns(found, [self.id], self.where["id"], file)
        text, image = self.recipe.text, self.recipe.image
        for modality, names in (("image", image.named if image else []), ("text", text.named if text else [])):
            for name in names:
                if name not in found and not (name in self.usual and set(found) & set(self.recipe.columns())):
                    raise MmfuseError(
                        f"{file}: {self.where[modality]}: the rows have no column {name!r}; "
                        f"{nearest(name, map(str, found))}{self.remedy}"
                    )


def plan_reading(table: str, options: TableOptions, trained: TableInputs | None) -> Reading:
    """How a table is read: by its options, else as in training, else by the usual names.

    Args:
        table: An absolute path or a URL.
        options: What the user says.
        trained: What the model folder says; None of a model that keeps nothing.

    Raises:
        MmfuseError: An option is for what the model does not read, or not legal.
    """
    known = trained or TableInputs(ID, Recipe(TextSpec(columns=[TEXT]), ImageSpec(column=IMAGE)))
    text, image = known.recipe.text, known.recipe.image
    where = {name: f"--{name}-column" for name in ("id", "text", "image")}
    usual = set() if trained else {TEXT, IMAGE}
    if trained is not None:
        where |= {name: f"the model's {name}" for name in ("text", "image")}
    if options.text_column is not None:
        text = _elsewhere(_read(text, "--text-column"), options.text_column)
        where["text"] = "--text-column"
        usual.discard(TEXT)
    if options.image_column is not None:
        image = _elsewhere(_read(image, "--image-column"), options.image_column)
        where["image"] = "--image-column"
        usual.discard(IMAGE)
    check_urls(options.image_urls, "--image-urls")
    if image is not None:
        image = replace(image, root=_root(table, image, options), urls=list(options.image_urls))
    elif options.image_root is not None or options.image_urls:
        raise MmfuseError("--image-root, --image-urls: the model reads no images")
    if text is not None and text.files is not None:
        text = replace(text, root=_below(os.path.dirname(table), text.root))
    text, image = (spec and _with_file(table, spec) for spec in (text, image))
    id = options.id_column or known.id
    reading = Reading(id, Recipe(text, image, id), known.csv, where, frozenset(usual))
    if trained is None:
        return replace(reading, about=f"{_tell(reading)}; the model folder does not say which it was trained on")
    remedy = "; where there is nothing, let it be empty, or name another with --text-column or --image-column"
    return replace(reading, remedy=remedy, about=f"{_tell(reading)}{_tell_changed(reading, trained)}")


def plan_manifest(manifest: Manifest, uses: Sequence[str], trained: TableInputs | None) -> Reading:
    """How a manifest's rows are read, which is as it says.

    Args:
        manifest: The user's.
        uses: The model's modalities.
        trained: What the model folder says; None of a model that keeps nothing.

    Raises:
        MmfuseError: It does not say where a modality is that the model reads.
    """
    for name in uses:
        if getattr(manifest, name) is None:
            raise MmfuseError(
                f"{manifest.source}: {name}: the model reads it, and the manifest does not say where it is"
            )
        was = trained and getattr(trained.recipe, name)
        if was and (was.features is None) != (getattr(manifest, name).features is None):
            said, wanted = (f"{name}s", "features") if was.features else ("features", f"{name}s")
            raise MmfuseError(f"{manifest.source}: {name}: the manifest gives {said}, and the model reads {wanted}")
    text, image = (getattr(manifest, name) if name in uses else None for name in ("text", "image"))
    if image is not None:
        image = replace(image, root=_absolute(image.root))
    if text is not None:
        text = replace(text, root=_absolute(text.root)) if text.files is not None else text
    where = {"id": "id", "text": text_key(text) if text else "", "image": image_key(image) if image else ""}
    reading = Reading(manifest.id, Recipe(text, image, manifest.id), manifest.csv, where)
    return replace(reading, about=f"{_tell(reading)}{_tell_changed(reading, trained) if trained else ''}")


def iter_rows(files: Sequence[str], reading: Reading) -> Iterator[tuple[Any, ...]]:
    """Id, images and text of each row, in the table's order; some thousand rows are in memory at once.

    A row with something else than texts and images in a column has neither, but a fourth item: what is wrong with it.

    Args:
        files: Of csv, tsv, jsonl or parquet, paths or URLs; a remote one is first copied to a temporary file.
        reading: How they are read.

    Raises:
        MmfuseError: A file cannot be read or lacks a column, a row has no id, or no row is legal; what depends on all
            rows of a file is told after the last one.
    """
    rows, nameless = 0, None
    first, legal = None, False
    seen: dict[str, dict[str, None]] = {}
    for file, frame in read_frames(files, reading.columns(), reading.csv):
        if file not in seen:
            _check_seen(seen, reading)
            seen = {file: {}}
        seen[file] |= dict.fromkeys(frame.columns)  # of jsonl, any row may bring a column
        numbers = row_numbers(rows, len(frame)) if is_numbered(reading.id, frame.columns) else None
        frame = frame.reindex(columns=reading.columns(), fill_value="").fillna("")
        named = numbers or cells.texts(frame, reading.id, file, reading.where["id"], rows)
        ids = [id.strip() for id in named]
        if nameless is None and "" in ids:
            nameless = rows + ids.index("") + 1
        try:
            texts, images = reading.recipe.texts(frame, file, rows), reading.recipe.images(frame, file, rows)
        except MmfuseError as error:
            for i, id in enumerate(ids):
                row = _read_row(id, frame.iloc[i : i + 1], file, reading)
                first = first or error
                legal = legal or len(row) == 3
                yield row
        else:
            legal = True
            yield from zip(ids, images, texts, strict=True)
        rows += len(frame)
    if not rows:
        raise MmfuseError(f"{files[0]}: no rows")
    _check_seen(seen, reading)
    if first is not None and not legal:
        raise first
    if nameless is not None:
        raise MmfuseError(f"{files[0]}: {reading.where['id']} {reading.id}: row {nameless} has no id")


def row_samples(files: Sequence[str], reading: Reading) -> Iterator[Sample]:
    """The rows as samples, in the table's order; what is wrong with one is its `problem`.

    Raises:
        MmfuseError: As `iter_rows`.
    """
    urls, whole = reading.recipe.permitted(), not reading.cuts_sections
    for id, images, text, *problem in iter_rows(files, reading):
        wrong = next(iter(problem), None)
        yield Sample(id, tuple(images), text, group=id, problem=wrong, urls=urls, whole_text=whole)


def _read_row(id: str, row: pd.DataFrame, file: str, reading: Reading) -> tuple[Any, ...]:
    """One row of a frame in which some cannot be read."""
    try:
        (text,), (images,) = reading.recipe.texts(row, file), reading.recipe.images(row, file)
    except MmfuseError as error:
        return id, [], None, str(error).removeprefix(f"{file}: ").replace(", row 1: ", ": ", 1)
    return id, images, text


def _check_seen(seen: dict[str, dict[str, None]], reading: Reading) -> None:
    for file, columns in seen.items():
        reading.check_columns(list(columns), file)


def _read(spec: Any, option: str) -> Any:
    if spec is None:
        raise MmfuseError(f"{option}: the model reads no {'text' if option == '--text-column' else 'images'}")
    return spec


def _elsewhere(spec: Any, column: str) -> Any:
    """The same, out of another column."""
    if spec.features is not None:
        return replace(spec, features=replace(spec.features, column=column, columns=None, file=None))
    if isinstance(spec, TextSpec):
        return replace(spec, columns=[column], template=None, files=None, root=".")
    return replace(spec, column=column, columns=None, template=None)


def _with_file(table: str, spec: Any) -> Any:
    """With a file of features where it lies beside this table."""
    if spec.features is None or spec.features.file is None:
        return spec
    return replace(spec, features=replace(spec.features, file=f"{os.path.dirname(table)}/{spec.features.file}"))


def _root(table: str, image: ImageSpec, options: TableOptions) -> str:
    if options.image_root is not None:
        return _absolute(options.image_root)
    return _below(os.path.dirname(table), image.root)


def _below(folder: str, root: str) -> str:
    return folder if root == "." else f"{folder.rstrip('/')}/{root}"


def _absolute(location: str) -> str:
    return location if "://" in location else os.path.abspath(location)


def _tell(reading: Reading) -> str:
    text, image = reading.recipe.text, reading.recipe.image
    parts = [f"read: id from {reading.id}"]
    if text is not None:
        parts.append(f"text from {_told(text)}")
    if image is not None:
        what = _told_features(image, "an image") if image.features else f"images from {', '.join(image.named)}"
        parts.append(f"{what}, below {image.root}")
    if reading.csv != CsvSpec():
        kept = {name: value for name, value in asdict(reading.csv).items() if value is not None}
        parts.append(f"csv: {json.dumps(kept)}")
    return "; ".join(parts)


def _tell_changed(reading: Reading, trained: TableInputs) -> str:
    """What is read otherwise than in training."""
    (text, image), (was, shown) = ((r.text, r.image) for r in (reading.recipe, trained.recipe))
    parts = []
    if text is not None and was is not None and _differ(text, was):
        parts.append(f"the text from {_told(was)}")
    if image is not None and shown is not None and image.named != shown.named:
        parts.append(f"the images from {', '.join(shown.named)}")
    return f"; in training {' and '.join(parts)}" if parts else "; as in training"


def _differ(one: TextSpec, other: TextSpec) -> bool:
    """Whether texts are made otherwise; files that lie beside another table are no difference."""
    one = replace(one, root=other.root)
    return one != other if one.features is None else _told(one, short=True) != _told(other, short=True)


def _told_features(spec: TextSpec | ImageSpec, slot: str, short: bool = False) -> str:
    assert spec.features is not None
    file = spec.features.file or ""
    return f"features in place of {slot} from {', '.join(spec.named) or (os.path.basename(file) if short else file)}"


def _told(text: TextSpec, short: bool = False) -> str:
    """What a text is made of; `short`: a file by its name alone."""
    if text.features is not None:
        return _told_features(text, "a text", short)
    how = ["by a template"] if text.template else []
    how += [", ".join(text.sections)] if text.sections else []
    how += [f"missing: {', '.join(text.missing)}"] if text.missing else []
    named = f"the files of {text.files}" if text.files is not None else ", ".join(text.columns)
    return named + (f" ({'; '.join(how)})" if how else "")
