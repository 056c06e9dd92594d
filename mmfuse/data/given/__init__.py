"""What a caller of Python holds, frames and files, as a manifest and the rows that it names."""

from mmfuse.data.given.describe import Columns, Described, Named, described
from mmfuse.data.given.held import column, column_names, is_in_memory, location, select_columns
from mmfuse.data.given.own import MANIFEST, ROWS, OwnData, read_here
from mmfuse.data.given.swap import anchored, in_place_of_rows

__all__ = [
    "MANIFEST",
    "ROWS",
    "Columns",
    "Described",
    "Named",
    "OwnData",
    "anchored",
    "column",
    "column_names",
    "described",
    "in_place_of_rows",
    "is_in_memory",
    "location",
    "read_here",
    "select_columns",
]
