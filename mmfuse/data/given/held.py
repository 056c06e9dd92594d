"""What callers of Python hold: rows in memory, or where rows lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import datasets
import pandas as pd

from mmfuse.data.rows.frames import with_index
from mmfuse.types import MmfuseError


def is_in_memory(data: Any, where: str = "data") -> bool:
    """Whether rows are in memory, a DataFrame or a `datasets.Dataset`, and not in files that a str or Path names.

    Raises:
        MmfuseError: It is anything else; the message says how to make of it what is legal.
    """
    if isinstance(data, (pd.DataFrame, datasets.Dataset)):
        return True
    if isinstance(data, (str, os.PathLike)):
        return False
    kind = type(data).__name__
    ways = {
        "DatasetDict": "give its parts: data=d['train'], valid=d['validation'], test=d['test']",
        "IterableDataset": "it cannot be read twice; datasets.Dataset.from_generator(lambda: iter(d)) keeps it",
        "list": "pandas.DataFrame(rows) makes one of a list of dicts",
        "dict": "pandas.DataFrame(columns) makes one of a dict of columns",
        "Table": "table.to_pandas() makes one",
        "LazyFrame": "frame.collect().to_pandas() makes one",
        "DataFrame": "frame.to_pandas() makes one",
    }
    way = f"; {ways[kind]}" if kind in ways else ""
    raise MmfuseError(f"{where}: a pandas DataFrame, a datasets.Dataset or a path is expected, not {kind}{way}")


def column_names(data: Any) -> list[str]:
    """The columns of rows in memory, and the index where it is one of them."""
    return [str(name) for name in (with_index(data).columns if isinstance(data, pd.DataFrame) else data.column_names)]


def column(data: Any, name: str) -> list[Any]:
    """The values of one of them."""
    return list(with_index(data)[name]) if isinstance(data, pd.DataFrame) else list(data[name])


def select_columns(data: Any, names: list[str]) -> Any:
    """Rows in memory with these columns alone."""
    if isinstance(data, pd.DataFrame):
        whole = with_index(data).reset_index(drop=True)
        return whole.drop(columns=[name for name in whole.columns if str(name) not in names]).rename(columns=str)
    return data.select_columns(names)


def location(data: str | os.PathLike[str]) -> str:
    """Where rows lie, so that it is found from anywhere: an absolute path, a URL or `hf:...` as it is."""
    text = os.fspath(data)
    return text if "://" in text or text.startswith("hf:") else str(Path(text).expanduser().absolute())
