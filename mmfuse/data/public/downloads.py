"""Which download a folder is: checked against what a source reads, and if it is none of that, named by its looks."""

from __future__ import annotations

from pathlib import Path

from mmfuse.data.public.sources import SOURCES, Card, Layout, Source
from mmfuse.data.public.sources.files import find
from mmfuse.data.public.sources.parquet import PARQUET, tables
from mmfuse.types import MmfuseError

_ARCHIVES = ("*.zip", "*.tar", "*.tar.gz", "*.tgz", "*.tar.part-*", "*.rar", "*.7z")
_KNOWN: tuple[tuple[tuple[str, ...], str], ...] = (
    (("multimodal_imdb.hdf5", "*/multimodal_imdb.hdf5"), "MM-IMDb as hdf5 (scaled posters, plots as numbers)"),
    (("metadata.npy",), "MM-IMDb as hdf5 (scaled posters, plots as numbers)"),
    (("df_chexpert_plus_*.csv", "*/df_chexpert_plus_*.csv"), "CheXpert Plus"),
    (("Data_Entry_2017*.csv",), "NIH ChestX-ray14"),
    (("PADCHEST_*.csv", "PADCHEST_*.csv.gz"), "PadChest"),
    (("meta/classes.txt", "food-101/meta/classes.txt"), "the ETHZ Food-101, which has no texts"),
    (("crisismmd_datasplit_agreed_label", "*/crisismmd_datasplit_agreed_label"), "CrisisMMD's rows with agreed labels"),
    (("annotations/*_final_data.tsv", "*/annotations/*_final_data.tsv"), "CrisisMMD v2.0 without its split's files"),
    (("annotations/instances_*.json",), "COCO's boxes and masks, without captions"),
    (("dataset_dict.json", "*/dataset_dict.json"), "a dataset saved by datasets.save_to_disk, which has no parquet"),
    (("*.arrow", "*/*.arrow"), "a dataset saved by datasets.save_to_disk, which has no parquet"),
    (("metadata.csv", "*/metadata.csv", "*/metadata.jsonl"), "an image folder of Hugging Face, with metadata"),
    (("*.tfrecord*", "*/*.tfrecord*"), "a copy of TensorFlow Datasets"),
    (("cxr-record-list.csv*", "mimic-cxr-reports.zip"), "MIMIC-CXR without the JPEG files of MIMIC-CXR-JPG"),
)
"""What is known by its files, but not read."""
_KNOWN_COLUMNS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"image", "label"}), "the ETHZ Food-101 or another set of pictures without texts"),
    (frozenset({"event_name", "tweet_id"}), "CrisisMMD with one label for text and picture together"),
    (frozenset({"messages"}), "a set made into conversations"),
    (frozenset({"conversations"}), "a set made into conversations"),
    (frozenset({"question", "answer"}), "questions and answers on pictures"),
)
"""The same for the columns of parquet files: exactly these two, or these among others."""


def locate(name: str, source: Source, folder: Path) -> Path:
    """The folder that a source's download is in: the given one, or where the source says it is.

    Raises:
        MmfuseError: It is not there; the message says what is missing, and what the folder looks like instead.
    """
    card = source.card
    expected = ", ".join(patterns[0] for patterns in card.files)
    if not folder.is_dir():
        raise MmfuseError(f"{folder}: no such folder; expected is the download of {name}, with {expected}")
    root = getattr(source, "root", None)  # an adapter's own, where a release lies in folders beside each other
    folder = root(folder) if root else folder
    if _fits(card, folder) or any(_fits(layout, folder) for layout in card.layouts):
        return folder
    others = "".join(f", or {layout.about}" for layout in card.layouts)
    raise MmfuseError(
        f"{folder}: not the download of {name}: no {_missing(card, folder)[0]}; expected are {expected}{others}"
        f"{_looks_like(name, card, folder)}"
    )


def known_as(folder: Path) -> list[str]:
    """The sources whose download a folder is, by files of their own; what is parquet files may be anything."""
    found = []
    for name in SOURCES.names():
        source: Source = SOURCES.get(name)()
        root = getattr(source, "root", None)
        place = root(folder) if root else folder
        if any(not _is_parquet(layout) and _fits(layout, place) for layout in (source.card, *source.card.layouts)):
            found.append(name)
    return found


def _missing(layout: Card | Layout, folder: Path) -> list[str]:
    return [" or ".join(patterns) for patterns in layout.files if find(folder, patterns) is None]


def _fits(layout: Card | Layout, folder: Path) -> bool:
    if _missing(layout, folder):
        return False
    if not isinstance(layout, Layout) or not layout.columns:
        return True
    table = next(iter(tables(folder)))
    return bool(table.images()) and all(table.first(names) is not None for names in layout.columns)


def _looks_like(name: str, card: Card, folder: Path) -> str:
    """What a folder seems to be that is not the download of a source; "" if that cannot be told."""
    for layout in card.layouts:
        if not _is_parquet(layout) and find(folder, layout.files[0]) is not None:
            return f". This looks like {layout.about}, but has no {_missing(layout, folder)[0]}"
    fit, nearly = [], []
    for other in SOURCES.names():
        whole: Card = SOURCES.get(other).card
        for about, layout in [(whole.about.split(". ")[0], whole), *((more.about, more) for more in whole.layouts)]:
            missing = len(_missing(layout, folder))
            told = [pattern for pattern in layout.files[0] if not pattern.startswith("*.")]  # not by any XML file
            if other != name and not _is_parquet(layout) and find(folder, told) is not None:
                (fit if not missing else nearly if missing <= len(layout.files) / 2 else []).append((other, about))
    if fit or nearly:
        found = dict(reversed(fit or nearly))  # of each set the first layout
        about = " or ".join(f"{other} ({found[other]})" for other in sorted(found))
        return f". This looks like {about}: mmfuse data prepare {', or '.join(sorted(found))}"
    known = next((what for patterns, what in _KNOWN if find(folder, patterns) is not None), None)
    if known is not None:
        return f". This looks like {known}; that is not read"
    if find(folder, PARQUET) is not None:
        return _columns_of(folder)
    deeper = next((child for child in sorted(folder.iterdir()) if child.is_dir() and _fits_any(card, child)), None)
    if deeper is not None:
        return f". It is one folder deeper: --from '{deeper}'"
    archive = find(folder, _ARCHIVES)
    return f". {archive.name} is not unpacked" if archive is not None else ""


def _columns_of(folder: Path) -> str:
    """What parquet files are that a source does not read."""
    table = next(iter(tables(folder)))
    columns = table.schema.names
    known = next((what for names, what in _KNOWN_COLUMNS if _are(names, columns)), None)
    fit = [
        other
        for other in SOURCES.names()
        if any(_is_parquet(layout) and _fits(layout, folder) for layout in SOURCES.get(other).card.layouts)
    ]
    what = f"it looks like {known}" if known else f"they may be of {' or '.join(fit)}" if fit else "they are not known"
    images = "" if table.images() else ", and no images inside"
    return f". It has parquet files with the columns {', '.join(columns)}{images}; {what}"


def _are(names: frozenset[str], columns: list[str]) -> bool:
    return set(columns) == names if "image" in names else names <= set(columns)


def _fits_any(card: Card, folder: Path) -> bool:
    return any(_fits(layout, folder) for layout in (card, *card.layouts))


def _is_parquet(layout: Card | Layout) -> bool:
    return PARQUET in layout.files
