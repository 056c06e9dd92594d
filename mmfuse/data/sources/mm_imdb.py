"""MM-IMDb: movie posters, plots and genres.

Layout (`split.json`, `dataset/ID.json` with plot and genres, `dataset/ID.jpeg`) as read by MMBT's and other public
scripts (searched 2026-11); described in https://arxiv.org/abs/1702.01992. From memory: the sizes of the split, the list
of genres, and that no licence is stated.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.sources import SOURCES, Card, Row
from mmfuse.data.sources.files import need, read_json, text_of
from mmfuse.types import MmfuseError

_SPLIT = ("split.json", "mmimdb/split.json")
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
        files=(_SPLIT, ("dataset/*.json", "mmimdb/dataset/*.json")),
    )

    def rows(self, folder: Path) -> Iterator[Row]:
        """A row a movie, in the order of split.json; then what is in none of its lists."""
        split = need(folder, _SPLIT)
        dataset, parts, listed = split.parent / "dataset", read_json(split), set()
        if not isinstance(parts, dict) or not all(isinstance(names, list) for names in parts.values()):
            raise MmfuseError(f"{split}: lists of movies by split are expected")
        for part, names in parts.items():
            for name in map(str, names):
                listed.add(name)
                yield _row(name, part, dataset)
        for path in sorted(dataset.glob("*.json")):
            if path.stem not in listed:
                yield Row(path.stem, problem="in none of the lists of split.json", path=path)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Genres, from poster and plot."""
        del folder
        genres = {
            "type": "multilabel",
            "column": "genres",
            "separator": ";",
            "values": list(GENRES),
            "other": "missing",
        }
        return {
            "text": {"columns": ["plot"]},
            "tasks": {"genres": {**genres, "label_origin": "human"}},
            "splits": {"column": "split", "names": {"dev": "validation"}},
        }


def _row(name: str, split: str, dataset: Path) -> Row:
    path = dataset / f"{name}.json"
    try:
        movie = read_json(path)
    except MmfuseError as error:
        return Row(name, problem=str(error).removeprefix(f"{path}: "), path=path)
    if not isinstance(movie, dict):
        return Row(name, problem="an object is expected", path=path)
    columns = {"split": split, "title": text_of(movie, "title")}
    columns["plot"] = max(_texts(movie, "plot"), key=len, default="").strip()
    columns["genres"] = ";".join(_texts(movie, "genres"))
    return Row(name, columns, (dataset / f"{name}.jpeg",))


def _texts(movie: dict[str, Any], key: str) -> list[str]:
    value = movie.get(key)
    return [str(item) for item in value] if isinstance(value, list) else [text_of(movie, key)]
