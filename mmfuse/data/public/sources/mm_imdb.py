"""MM-IMDb: movie posters, plots and genres.

Layouts as read by public scripts (searched 2026-11): `split.json`, `dataset/ID.json` with plot and genres,
`dataset/ID.jpeg`; or `labels/ID.json` and `images/ID.jpeg`, where the ids may have one more leading zero. IMDbPY, which
the plots were got with, writes TEXT::AUTHOR. Described in https://arxiv.org/abs/1702.01992. From memory: the sizes of
the split, the list of genres, and that no licence is stated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.public.sources import SOURCES, Card, Layout, Note, Row
from mmfuse.data.public.sources.files import find, need, read_json, text_of
from mmfuse.types import MmfuseError

_SPLIT = ("split.json", "mmimdb/split.json")
_APART = (("labels/*.json", "mmimdb/labels/*.json"), ("images/*.jpeg", "mmimdb/images/*.jpeg", "images/*.jpg"))
_DATASET = ("dataset/*.json", "mmimdb/dataset/*.json")
_AUTHOR = 120
"""Longest text after `::` that is taken for a plot's author, in characters."""
GENRES = (
    *("Drama", "Comedy", "Romance", "Thriller", "Crime", "Action", "Adventure", "Horror", "Documentary", "Mystery"),
    *("Sci-Fi", "Fantasy", "Family", "Biography", "War", "History", "Music", "Animation", "Musical", "Western"),
    *("Sport", "Short", "Film-Noir"),
)
"""The 23 genres of the paper; News, Adult, Talk-Show and Reality-TV are left out."""


@SOURCES.register("mm_imdb")
class MmImdb:
    """MM-IMDb; a row is a movie."""

    card = Card(
        about="25,959 movies with poster, plot and 23 genres, several a movie.",
        homepage="https://github.com/johnarevalo/gmu-mmimdb",
        licence="none is stated; posters belong to their studios and plots to IMDb's authors: research only",
        citation="Arevalo et al. 2017, Gated Multimodal Units for Information Fusion, arXiv 1702.01992",
        obtain=(
            "mmimdb.tar.gz from https://archive.org/details/mmimdb; unpacked it is mmimdb/split.json and "
            "mmimdb/dataset/"
        ),
        split="split.json: train 15,552, dev 2,608, test 7,799.",
        traps=(
            "A movie has several plots: the longest is taken, as in the paper's code.",
            "News, Adult, Talk-Show and Reality-TV are no labels here; scripts that drop their movies count fewer "
            "rows.",
            "Genres are unlike in number (Drama beside Film-Noir): tell the macro F1 too.",
            "Sequels share posters' style, and plots name the genre now and then; there is no group for a series.",
        ),
        files=(_SPLIT, _DATASET),
        layouts=(
            Layout("MM-IMDb as images/ and labels/", (*_APART, _SPLIT)),
            Layout("MM-IMDb as images/ and labels/, without split.json", _APART),
            Layout("MM-IMDb's folder dataset/ without split.json", (_DATASET,)),
        ),
    )

    def rows(self, folder: Path) -> Iterator[Row | Note]:
        """A row a movie, in the order of split.json; then what is in none of its lists."""
        movies = _Movies(folder)
        split = find(folder, _SPLIT)
        if split is None:
            yield Note(
                "split.json is not here: 60 / 10 / 30 by hash of the movie, so scores compare with no published ones"
            )
            for path in movies.all():
                yield movies.row(path.stem, "")
            return
        parts, listed = read_json(split), set()
        if not isinstance(parts, dict) or not all(isinstance(names, list) for names in parts.values()):
            raise MmfuseError(f"{split}: lists of movies by split are expected")
        for part, names in parts.items():
            for name in map(str, names):
                listed.add(movies.path(name))
                yield movies.row(name, part)
        for path in movies.all():
            if path not in listed:
                yield Row(path.stem, problem="in none of the lists of split.json", path=path)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Genres, from poster and plot."""
        official = folder is None or find(folder, _SPLIT) is not None
        by_hash = {"ratios": {"train": 0.6, "validation": 0.1, "test": 0.3}}
        genres = {
            "type": "multilabel",
            "column": "genres",
            "separator": ";",
            "values": list(GENRES),
            "other": "missing",
        }
        told = {} if official else {"split_is": "split.json is not here: 60 / 10 / 30 by hash of the movie."}
        return {
            **told,
            "text": {"columns": ["plot"]},
            "tasks": {"genres": {**genres, "label_origin": "human"}},
            "splits": {"column": "split", "names": {"dev": "validation"}} if official else by_hash,
        }


class _Movies:
    """Where the movies' files are."""

    def __init__(self, folder: Path):
        self.images = self.labels = need(folder, (*_DATASET, *_APART[0])).parent
        self.suffix = ".jpeg"
        if self.labels.name == "labels":
            image = need(folder, _APART[1])
            self.images, self.suffix = image.parent, image.suffix
        self.known = {path.stem.lstrip("0"): path for path in self.all()} if self.labels.name == "labels" else {}

    def all(self) -> list[Path]:
        """Their JSON files, in the order of their names."""
        return sorted(self.labels.glob("*.json"))

    def path(self, name: str) -> Path:
        """The JSON file of a movie; in some copies its name has another number of leading zeros."""
        path = self.labels / f"{name}.json"
        return path if os.path.exists(path) else self.known.get(name.lstrip("0"), path)

    def row(self, name: str, split: str) -> Row:
        """A movie by its name in split.json."""
        path = self.path(name)
        try:
            movie = read_json(path)
        except MmfuseError as error:
            return Row(name, problem=str(error).removeprefix(f"{path}: "), path=path)
        problem = None if isinstance(movie, dict) else "an object is expected"
        problem = problem or next((f"no {key}" for key in ("plot", "genres") if key not in movie), None)
        if problem:
            return Row(name, problem=problem, path=path)
        columns = {"split": split, "title": text_of(movie, "title")}
        columns["plot"] = max(map(_without_author, _texts(movie, "plot")), key=len, default="")
        columns["genres"] = ";".join(_texts(movie, "genres"))
        return Row(name, columns, (self.images / f"{path.stem}{self.suffix}",), path=path)


def _without_author(plot: str) -> str:
    """A plot without `::AUTHOR <address>` at its end: who wrote it is no text of the movie."""
    text, mark, author = plot.rpartition("::")
    while mark and len(author) <= _AUTHOR:
        plot = text
        text, mark, author = plot.rpartition("::")
    return plot.strip()


def _texts(movie: dict[str, Any], key: str) -> list[str]:
    value = movie.get(key)
    return [str(item) for item in value] if isinstance(value, list) else [text_of(movie, key)]
