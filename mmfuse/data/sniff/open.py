"""What the data is: a file of rows, a folder, or a dataset of Hugging Face."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from mmfuse.data.public.downloads import known_as
from mmfuse.data.rows.blocks import blocks_of
from mmfuse.data.rows.hugging_face import PREFIX, is_dataset, split_name
from mmfuse.data.rows.read import find_files
from mmfuse.data.sniff.download import guess_download
from mmfuse.data.sniff.files import MOST_ROWS, Opened, open_file, take_frames
from mmfuse.data.sniff.folders import open_folder
from mmfuse.data.sniff.guessed import Given, Guess
from mmfuse.types import MmfuseError

_SAVED = ("state.json", "dataset_dict.json")
"""What `save_to_disk` writes into a folder."""


def open_data(data: str, given: Given, most: int | None = MOST_ROWS) -> Opened | Guess:
    """Open what people have.

    Args:
        data: A file of rows, a folder, or `hf:NAME@split`.
        given: What the user has named.
        most: How many rows of a table are looked at; None: all.

    Raises:
        MmfuseError: It is not there, or nothing that is known.
    """
    if is_dataset(data):
        return _open_dataset(data, most)
    if not os.path.lexists(data):
        raise MmfuseError(f"{data}: no such file or folder")
    if not os.path.isdir(data):
        return open_file(Path(data), most)
    if any(os.path.isfile(os.path.join(data, name)) for name in _SAVED):
        return _open_dataset(f"{PREFIX}{data}", most)
    known = known_as(Path(data))
    if len(known) == 1:
        public = guess_download(known[0], Path(data), given)
        if public is not None:
            return public
    opened = open_folder(Path(data), most)
    if known:
        opened.unsure.append(f"rows: mmfuse data prepare reads {' or '.join(known)} as downloaded, and more of it")
    return opened


def _open_dataset(data: str, most: int | None) -> Opened:
    """The rows of `hf:NAME@split`; where no split is named, those of all, and a column that says of which."""
    name, splits = split_name(data)
    local = os.path.isdir(name)
    rows = f"{PREFIX}{os.path.abspath(name) if local else name}{f'@{splits}' if splits else ''}"
    opened = Opened(pd.DataFrame(), rows, Path(name if local else ".").resolve(), Path(name).name, most=most)
    files = find_files(rows, data)
    take_frames(opened, (block for file in files for block in blocks_of(file)))
    opened.said.append(f"rows: a dataset of Hugging Face, {len(files)} file(s)")
    return opened
