"""A folder of images and reports -> studies, by names; a report is read when its `Entry` is asked."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from mmfuse.data.readers.dicom import is_structured_report
from mmfuse.data.readers.documents import read_report
from mmfuse.data.readers.kinds import (
    FORMATS,
    IMAGE_SUFFIXES,
    PICTURES,
    TEXT_SUFFIXES,
    Kind,
    head_of,
    is_picture,
    kind_of,
    stem_of,
    suffix_of,
)
from mmfuse.data.readers.texts import TextError
from mmfuse.types import MmfuseError, Sample

Layout = Literal["auto", "stem", "study"]

_CLUTTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "dicomdir", "@eadir", "$recycle.bin", "#recycle"}
"""Passed over, with all that begins with a dot."""
_READ = f"images ({FORMATS}) and reports ({' '.join(TEXT_SUFFIXES)})"
_NAMED = 3  # files that a message names


@dataclass(frozen=True)
class Entry:
    """One study of a folder, with its report not yet read.

    Attributes:
        id: Path within the folder, with `/`; without the suffix where files are paired by their stem.
        images: Paths.
        texts: Paths of the report, or of its parts.
        problem: Why it is no sample, if its names show that already.
        unread: Paths of what belongs to it and is not read, which is its problem.
    """

    id: str
    images: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    problem: str | None = None
    unread: tuple[str, ...] = ()

    def files(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Its images and its texts; a DICOM file that is a structured report, by its first bytes, is a text."""
        reports = [p for p in self.images if suffix_of(p) not in PICTURES and is_structured_report(head_of(p))]
        return tuple(p for p in self.images if p not in reports), (*self.texts, *reports)

    def sample(self) -> Sample:
        """Read the report.

        Returns:
            The sample. Several texts are joined by a blank line, empty ones are a missing text (None), and one that
            cannot be read is the sample's `problem`.
        """
        (images, texts), text, problem = self.files(), None, self.problem
        if problem is None:
            try:
                text = "\n\n".join(filter(None, map(read_report, texts))) or None
            except TextError as error:
                problem = f"text: {error}"
        return Sample(id=self.id, images=images, text=text, group=self.id, problem=problem)


class _Place(NamedTuple):
    """The names that one folder holds itself, or those of one study in it, each list sorted."""

    images: list[str]
    texts: list[str]
    unread: list[str]
    aside: list[str]
    others: list[str]

    @classmethod
    def empty(cls) -> _Place:
        return cls([], [], [], [], [])

    def put(self, name: str, kind: Kind) -> None:
        self[_KINDS.index(kind)].append(name)


_KINDS: tuple[Kind, ...] = ("image", "text", "unread", "aside", "other")
"""Of the lists of a place, in their order."""


def pair_folder(folder: str | Path, layout: Layout = "auto") -> tuple[list[Entry], list[str]]:
    """Find the studies in a folder and its sub-folders, by names.

    - `stem`: an image and a text of one folder with the same name but for the suffix are one study; its id is that name
      with its folder, `ward/a` for `ward/a.png` and `ward/a.txt`. An image or a text alone is a study that lacks the
      other. Two images, or two texts, of one name are a problem.
    - `study`: each sub-folder that holds images or texts itself is one study, with all its images and all its texts, in
      the order of their names; its id is the sub-folder. Images and texts outside of any sub-folder are ignored.
    - `auto`: `study` if all images are in sub-folders, and some sub-folder holds images and texts that are not just one
      pair of the same name, and none holds two such pairs; else `stem`.

    Suffixes may be in upper or lower case. A file whose suffix is not known, or that has none, is an image if it begins
    as one: of these files alone, the first bytes are read. What is in a study and is not read, such as a `.jxl`, a
    `.pdf` or a film, is its problem, and a study of its own where it stands alone; so are notes (`.md`), archives and
    arrays where the study lacks an image or a text. Names that look the same (`E.jpg` beside `e.txt`) are a problem of
    both where neither has all. Hidden files and folders, and the clutter of Windows, macOS, network disks and DICOM
    media, are passed over in silence. Links are followed, but no folder is visited twice, nor one that the folder
    itself is in.

    Args:
        folder: Where to look.
        layout: `auto`, `stem` or `study`.

    Returns:
        The studies, sorted by id (a sub-folder that cannot be read is one with a `problem`, its id ends with `/`); and
        the ignored files, relative to the folder.

    Raises:
        MmfuseError: The layout is none of these, or `auto` cannot tell it for a file that is not read; or the folder is
            missing, unreadable, or without any image and text.
    """
    entries, ignored = iter_folder(folder, layout)
    return sorted(entries, key=lambda entry: entry.id), ignored


def iter_folder(folder: str | Path, layout: Layout = "auto") -> tuple[Iterator[Entry], list[str]]:
    """As `pair_folder`, with the studies made one by one, in no order.

    Raises:
        MmfuseError: As `pair_folder`, all of it before the first study is given.
    """
    expected = f"expected a folder of {_READ}"
    try:
        entries, ignored = _scan(folder, layout)
    except MmfuseError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise MmfuseError(f"{folder}: {_reason(error)}; {expected}") from error
    first = next(entries, None)
    if first is None:
        missing = "sub-folder with an image or a report" if layout == "study" else "image and no report"
        raise MmfuseError(f"{folder}: no {missing} in it; {expected}")
    return chain([first], entries), ignored


def scan_folder(folder: str | Path, layout: Layout = "auto") -> tuple[list[Entry], list[str]]:
    """As `pair_folder`, for a folder that may be empty.

    Raises:
        MmfuseError: The layout is not legal.
        OSError: The folder is missing or cannot be read.
    """
    entries, ignored = _scan(folder, layout)
    return sorted(entries, key=lambda entry: entry.id), ignored


def _scan(folder: str | Path, layout: Layout) -> tuple[Iterator[Entry], list[str]]:
    """The studies in no order, and the ignored files; all of the file system is read before this returns."""
    if layout not in get_args(Layout):
        raise MmfuseError(f"layout {layout!r}: expected one of {', '.join(get_args(Layout))}")
    places, unreadable = _walk(os.fspath(folder))
    by_study = layout == "study" or (layout == "auto" and _tell_layout(places))
    for name, place in places.items():
        _set_aside(place, by_study, bool(name))
    ignored = [_join(name, other) for name, place in places.items() for other in place.others]
    if by_study:
        top = places.pop("")
        ignored += top.images + top.texts + top.unread
    broken = (Entry(f"{_printable(name)}/", problem=f"folder: {reason}") for name, reason in unreadable.items())
    if by_study:
        twins = _twins(places, {name: [name] for name in places})
        found = (_one_study(os.path.join(folder, name), name, place, twins) for name, place in places.items())
    else:
        found = (_pairs(os.path.join(folder, name), name, place) for name, place in places.items())
    return chain(broken, chain.from_iterable(found)), sorted(map(_printable, ignored))


def tell_ignored(ignored: Sequence[str]) -> str:
    """One line about files that are no image and no report; there is at least one."""
    return f"{len(ignored)} file(s) ignored: {_list(ignored)}"


def find_study(path: str | Path) -> Entry:
    """One study by its folder, by its image or report, or by their common path without suffix.

    Raises:
        MmfuseError: Nothing is there.
    """
    path = Path(path)
    is_folder = path.is_dir()
    folder = path if is_folder else path.parent
    try:
        names = sorted(item.name for item in os.scandir(folder) if not item.name.startswith("."))
    except OSError as error:
        raise MmfuseError(f"{path}: {_reason(error)}") from error
    if not is_folder:
        names = [name for name in names if _looks(name).split(".")[0] == _looks(path.name).split(".")[0]]
    place = _Place.empty()
    stem = _stem(path.name)
    for name in names:
        kind = kind_of(folder / name)
        place.put(name, kind)
        stem = _stem(name, kind) if name == path.name else stem
    _set_aside(place, is_folder, True)
    name = path.name if is_folder else ""
    studies = _one_study(str(folder), name, place, {}) if is_folder else _pairs(str(folder), "", place)
    found = next((study for study in studies if is_folder or study.id == _printable(stem)), None)
    if found is None:
        raise MmfuseError(f"{path}: no image and no report of this name; expected a study's folder, image or report")
    return found


def _walk(root: str) -> tuple[dict[str, _Place], dict[str, str]]:
    """List what each folder holds, by its path relative to the root (""); and why others cannot be read."""
    places: dict[str, _Place] = {}
    unreadable: dict[str, str] = {}
    # A link up to a folder around the root would bring in what the user did not name, and the root once more.
    seen = {_identity(parent) for parent in Path(os.path.realpath(root)).parents}
    real, linked = [""], []  # folders that are reached by a link come last: their own names win
    while real or linked:
        name = real.pop() if real else linked.pop(0)
        path = os.path.join(root, name)
        try:
            identity = _identity(path)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(path) as found:
                items = sorted(found, key=lambda item: item.name)
        except OSError as error:
            if name == "":
                raise
            unreadable[name] = _reason(error)
            continue
        places[name] = place = _Place.empty()
        for item in items:
            if item.name.startswith(".") or item.name.lower() in _CLUTTER:
                continue
            if _is_folder(item):
                (linked if item.is_symlink() else real).append(_join(name, item.name))
            else:
                place.put(item.name, kind_of(item.path))
    return places, unreadable


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # such as a link to itself: as a file, it is reported when it is read
        return False


def _tell_layout(places: Mapping[str, _Place]) -> bool:
    """Whether each sub-folder is a study, of whatever kinds its files are."""
    by_study = _are_studies(places)
    unread = {name: place for name, place in places.items() if place.unread}
    if unread:
        as_if = {
            name: place._replace(
                images=place.images + [file for file in place.unread if is_picture(file)],
                texts=place.texts + [file for file in place.unread if not is_picture(file)],
            )
            for name, place in places.items()
        }
        if _are_studies(as_if) != by_study:
            name, place = next(iter(unread.items()))
            raise MmfuseError(
                f"layout auto: {_printable(_join(name, place.unread[0]))} is of a kind that is not read, so whether "
                "each sub-folder is a study cannot be told; say stem or study (--layout), or move such files away"
            )
    return by_study


def _are_studies(places: Mapping[str, _Place]) -> bool:
    found = False
    for name, place in places.items():
        pairs = {_stem(image, "image") for image in place.images} & {_stem(text) for text in place.texts}
        if len(pairs) > 1 or (name == "" and place.images):
            return False
        one_pair = len(pairs) == len(place.images) == len(place.texts) == 1
        found = found or bool(name and place.images and place.texts and not one_pair)
    return found


def _set_aside(place: _Place, by_study: bool, in_folder: bool) -> None:
    """Decide of each file that may be a part of a study whether it is: where an image or a text is missing."""
    if not place.aside:
        return
    images = {_stem(name, "image") for name in place.images}
    texts = {_stem(name) for name in place.texts}
    for name in place.aside:
        is_missed = in_folder and bool(images) != bool(texts) if by_study else _stem(name, "unread") in images ^ texts
        (place.unread if is_missed else place.others).append(name)
    place.aside.clear()


def _one_study(root: str, name: str, place: _Place, twins: Mapping[str, str]) -> Iterator[Entry]:
    if place.images or place.texts or place.unread:
        problems = [*_of_unread(place.unread), *filter(None, [twins.get(name)])]
        lists = (_paths(root, names) for names in (place.images, place.texts, place.unread))
        images, texts, unread = lists
        yield Entry(_printable(name), images, texts, "; ".join(problems) or None, unread)


def _pairs(root: str, name: str, place: _Place) -> Iterator[Entry]:
    studies: dict[str, _Place] = defaultdict(_Place.empty)
    kinds: tuple[tuple[Kind, list[str]], ...] = (
        ("image", place.images),
        ("text", place.texts),
        ("unread", place.unread),
    )
    for kind, files in kinds:
        for file in files:
            studies[_stem(file, kind)].put(file, kind)
    twins = _twins(studies, {stem: [*found.images, *found.texts] for stem, found in studies.items()})
    for stem, found in studies.items():
        problems = [
            f"{len(files)} {kind} of the same name: {_printable(', '.join(files))}"
            for kind, files in (("images", found.images), ("texts", found.texts))
            if len(files) > 1
        ]
        problems += [*_of_unread(found.unread), *filter(None, [twins.get(stem)])]
        images, texts, unread = (_paths(root, names) for names in (found.images, found.texts, found.unread))
        yield Entry(_printable(_join(name, stem)), images, texts, "; ".join(problems) or None, unread)


def _of_unread(names: Sequence[str]) -> Iterator[str]:
    """What to say of files that belong to a study and are not read."""
    if names:
        what = "is of a kind that is not read" if len(names) == 1 else "are of kinds that are not read"
        yield f"{_list(names)} {what}; convert or move away; read are {_READ}"


def _twins(studies: Mapping[str, _Place], names: Mapping[str, list[str]]) -> dict[str, str]:
    """What to say of studies whose names look the same, where one may be the other's missing half."""
    lacking = {key for key, place in studies.items() if not (place.images and place.texts)}
    if not lacking:
        return {}
    alike: dict[str, list[str]] = defaultdict(list)
    for key, place in studies.items():
        if place.images or place.texts:
            alike[_looks(key)].append(key)
    said = {}
    for keys in alike.values():
        places = [studies[key] for key in keys]
        is_split = any(place.images for place in places) and any(place.texts for place in places)
        if len(keys) > 1 and is_split and not lacking.isdisjoint(keys):
            files = _list(sorted(f"'{name}'" for key in keys for name in names[key]))
            why = f"one study or several? {files} differ in case, spaces or suffixes alone; rename them"
            said |= dict.fromkeys(keys, why)
    return said


def _looks(name: str) -> str:
    """A name without what is easily overlooked: case, spaces, invisible characters, suffixes."""
    if not name.isascii():
        name = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    name = " ".join(name.casefold().split())
    while suffix_of(name) in IMAGE_SUFFIXES + TEXT_SUFFIXES:
        name = os.path.splitext(name)[0].rstrip()
    return name


def _paths(root: str, names: list[str]) -> tuple[str, ...]:
    return tuple(os.path.join(root, name) for name in names)


def _stem(name: str, kind: Kind | None = None) -> str:
    """As `stem_of`, with accents composed, since macOS stores them decomposed."""
    return unicodedata.normalize("NFC", stem_of(name, kind))


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    shown = _printable(", ".join(names[:_NAMED]))
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown) + more


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _printable(name: str) -> str:
    """Make a file name legal Unicode: one that is not UTF-8 could not be written into any report."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
