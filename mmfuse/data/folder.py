"""A folder of images and reports -> studies, by names; a report is read when its `Entry` is asked."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from mmfuse.data.dicom import is_dicom_file, is_structured_report
from mmfuse.data.documents import read_report
from mmfuse.data.texts import TextError
from mmfuse.types import MmfuseError, Sample

_PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm")
IMAGE_SUFFIXES = (*_PICTURES, ".dcm", ".dicom")
TEXT_SUFFIXES = (".txt", ".text", ".report", ".xml", ".html", ".htm", ".json", ".rtf", ".sr")

Layout = Literal["auto", "stem", "study"]

_CLUTTER = {"thumbs.db", "desktop.ini", "__macosx", "dicomdir"}  # and all that begins with a dot
_BARE = re.compile(r"[^.]+|[\d.]+")  # how DICOM files without suffix are named: IM000001, or 1.2.840.113619.2.5


@dataclass(frozen=True)
class Entry:
    """One study of a folder, with its report not yet read.

    Attributes:
        id: Path within the folder, with `/`; without the suffix where files are paired by their stem.
        images: Paths.
        texts: Paths of the report, or of its parts.
        problem: Why it is no sample, if its names show that already.
    """

    id: str
    images: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    problem: str | None = None

    def files(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Its images and its texts; a DICOM file that is a structured report, by its first bytes, is a text."""
        reports = [p for p in self.images if not p.lower().endswith(_PICTURES) and is_structured_report(p)]
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
    """The names that one folder holds itself, each list sorted."""

    images: list[str]
    texts: list[str]
    others: list[str]


def pair_folder(folder: str | Path, layout: Layout = "auto") -> tuple[list[Entry], list[str]]:
    """Find the studies in a folder and its sub-folders, by names.

    - `stem`: an image and a text of one folder with the same name but for the suffix are one study; its id is that name
      with its folder, `ward/a` for `ward/a.png` and `ward/a.txt`. An image or a text alone is a study that lacks the
      other. Two images, or two texts, of one name are a problem.
    - `study`: each sub-folder that holds images or texts itself is one study, with all its images and all its texts, in
      the order of their names; its id is the sub-folder. Images and texts outside of any sub-folder are ignored.
    - `auto`: `study` if all images are in sub-folders, and some sub-folder holds images and texts that are not just one
      pair of the same name, and none holds two such pairs; else `stem`.

    Suffixes may be in upper or lower case. A file without suffix, or with a name of digits and dots, is an image if it
    begins as DICOM does: of these files alone, the first bytes are read. Hidden files and folders, and the clutter of
    Windows, macOS and DICOM media, are passed over in silence. Links are followed, but no folder is visited twice, nor
    one that the folder itself is in.

    Args:
        folder: Where to look.
        layout: `auto`, `stem` or `study`.

    Returns:
        The studies, sorted by id (a sub-folder that cannot be read is one with a `problem`, its id ends with `/`); and
        the ignored files, relative to the folder.

    Raises:
        MmfuseError: The layout is none of these, or the folder is missing, unreadable, or without any image and text.
    """
    entries, ignored = iter_folder(folder, layout)
    return sorted(entries, key=lambda entry: entry.id), ignored


def iter_folder(folder: str | Path, layout: Layout = "auto") -> tuple[Iterator[Entry], list[str]]:
    """As `pair_folder`, with the studies made one by one, in no order.

    Raises:
        MmfuseError: As `pair_folder`, all of it before the first study is given.
    """
    expected = f"expected a folder of images ({' '.join(IMAGE_SUFFIXES)}) and reports ({' '.join(TEXT_SUFFIXES)})"
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
    by_study = layout == "study" or (layout == "auto" and _are_studies(places))
    ignored = [_join(name, other) for name, place in places.items() for other in place.others]
    if by_study:
        ignored += places[""].images + places[""].texts
    broken = (Entry(f"{_printable(name)}/", problem=f"folder: {reason}") for name, reason in unreadable.items())
    studies = _one_study if by_study else _pairs
    found = (studies(os.path.join(folder, name), name, place) for name, place in places.items())
    return chain(broken, chain.from_iterable(found)), sorted(map(_printable, ignored))


def find_study(path: str | Path) -> Entry:
    """One study by its folder, by its image or report, or by their common path without suffix.

    Raises:
        MmfuseError: Nothing is there.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    try:
        names = sorted(item.name for item in os.scandir(folder) if not item.name.startswith("."))
    except OSError as error:
        raise MmfuseError(f"{path}: {_reason(error)}") from error
    if not path.is_dir():
        names = [name for name in names if _stem(name) == _stem(path.name)]
    place = _Place([], [], [])
    for name in names:
        _list_of(place, str(folder), name).append(name)
    if not place.images and not place.texts:
        raise MmfuseError(f"{path}: no image and no report of this name; expected a study's folder, image or report")
    if path.is_dir():
        return Entry(_printable(path.name), _paths(str(folder), place.images), _paths(str(folder), place.texts))
    return next(_pairs(str(folder), "", place))


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
        places[name] = place = _Place([], [], [])
        for item in items:
            if item.name.startswith(".") or item.name.lower() in _CLUTTER:
                continue
            if _is_folder(item):
                (linked if item.is_symlink() else real).append(_join(name, item.name))
            else:
                _list_of(place, path, item.name).append(item.name)
    return places, unreadable


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # such as a link to itself: as a file, it is reported when it is read
        return False


def _list_of(place: _Place, folder: str, name: str) -> list[str]:
    suffix = os.path.splitext(name)[1].lower()
    if suffix in TEXT_SUFFIXES:
        return place.texts
    bare = _BARE.fullmatch(name) and is_dicom_file(os.path.join(folder, name))
    return place.images if suffix in IMAGE_SUFFIXES or bare else place.others


def _are_studies(places: dict[str, _Place]) -> bool:
    found = False
    for name, place in places.items():
        pairs = {_stem(image) for image in place.images} & {_stem(text) for text in place.texts}
        if len(pairs) > 1 or (name == "" and place.images):
            return False
        one_pair = len(pairs) == len(place.images) == len(place.texts) == 1
        found = found or bool(name and place.images and place.texts and not one_pair)
    return found


def _one_study(root: str, name: str, place: _Place) -> Iterator[Entry]:
    if name and (place.images or place.texts):
        yield Entry(_printable(name), _paths(root, place.images), _paths(root, place.texts))


def _pairs(root: str, name: str, place: _Place) -> Iterator[Entry]:
    studies: dict[str, _Place] = defaultdict(lambda: _Place([], [], []))
    for file in place.images:
        studies[_stem(file)].images.append(file)
    for file in place.texts:
        studies[_stem(file)].texts.append(file)
    for stem, (images, texts, _) in studies.items():
        problems = [
            f"{len(files)} {kind} of the same name: {_printable(', '.join(files))}"
            for kind, files in (("images", images), ("texts", texts))
            if len(files) > 1
        ]
        yield Entry(
            _printable(_join(name, stem)),
            _paths(root, images),
            _paths(root, texts),
            "; ".join(problems) or None,
        )


def _paths(root: str, names: list[str]) -> tuple[str, ...]:
    return tuple(os.path.join(root, name) for name in names)


def _stem(name: str) -> str:
    """Give a name without its suffix, if it is a known one; accents composed, since macOS stores them decomposed."""
    stem, suffix = os.path.splitext(name)
    return unicodedata.normalize("NFC", stem if suffix.lower() in IMAGE_SUFFIXES + TEXT_SUFFIXES else name)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _printable(name: str) -> str:
    """Make a file name legal Unicode: one that is not UTF-8 could not be written into any report."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
