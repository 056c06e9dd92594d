"""What the data is: a file of rows, a folder, or a dataset of Hugging Face."""

from __future__ import annotations

import os
from pathlib import Path

from mmfuse.data.public.downloads import known_as
from mmfuse.data.sniff.download import guess_download
from mmfuse.data.sniff.files import Opened, open_file
from mmfuse.data.sniff.folders import open_folder
from mmfuse.data.sniff.guessed import Given, Guess
from mmfuse.data.sniff.hugging_face import PREFIX, is_saved, open_dataset
from mmfuse.types import MmfuseError


def open_data(data: str, given: Given) -> Opened | Guess:
    """Open what people have.

    Args:
        data: A file of rows, a folder, or `hf:NAME@split`.
        given: What the user has named.

    Raises:
        MmfuseError: It is not there, or nothing that is known.
    """
    if data.startswith(PREFIX):
        return open_dataset(data)
    if not os.path.lexists(data):
        raise MmfuseError(f"{data}: no such file or folder")
    if not os.path.isdir(data):
        return open_file(Path(data))
    if is_saved(Path(data)):
        return open_dataset(f"{PREFIX}{data}")
    known = known_as(Path(data))
    if len(known) == 1:
        public = guess_download(known[0], Path(data), given)
        if public is not None:
            return public
    opened = open_folder(Path(data))
    if known:
        opened.unsure.append(f"rows: mmfuse data prepare reads {' or '.join(known)} as downloaded, and more of it")
    return opened
