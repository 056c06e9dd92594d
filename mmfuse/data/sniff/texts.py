"""Which column the text encoder reads: one, that does not tell the label."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from mmfuse.data.sniff.columns import Column
from mmfuse.data.sniff.targets import Target
from mmfuse.data.sniff.telling import tells

_BY_NAME = (
    (6, "text texts report reports description note notes tweet review reviews body content story article document"),
    (6, "caption captions comment comments message question abstract plot summary narrative transcript prompt query"),
    (6, "befund bericht texte beschreibung rapport descripcion descripción informe sentence indication history"),
    (5, "title headline findings impression claim post utterance overview lyrics"),
    (2, "name product specifications details keywords other"),
    (-6, "label labels class category categories target split url link licence license doi source filename file path"),
    (-6, "id ids date time location address author email"),
)
_SPEAKS = {word: weight for weight, words in _BY_NAME for word in words.split()}
_PATHS = re.compile(r"\S*[\\/]?\S+\.\w{2,5}")
_CODE = re.compile(r"[\w.\-/#:]+")


@dataclass
class Text:
    """The text of a table.

    Attributes:
        columns: Which it is made of; none where there is none.
        said: Which were taken and left out, and why.
        unsure: What may be wrong.
        others: Columns that could be added.
    """

    columns: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def find_text(columns: Mapping[str, Column], named: list[str], apart: Collection[str], target: Target | None) -> Text:
    """The column of texts.

    Args:
        columns: Of the table.
        named: Those that the user has named; they are taken, and told where they tell the label.
        apart: Columns that are something else.
        target: What is to be predicted, of which no text may tell.
    """
    found = Text()
    if named:
        found.columns = list(named)
        for name in named:
            why = _tells(columns[name], target)
            if why:
                found.unsure.append(f"text: {name} tells the target: {why}; it was named, so it is read")
        found.said.append(f"text: {' and '.join(named)}, as was named")
        return found
    wanted = sorted(
        ((score, name) for name, column in columns.items() if name not in apart and (score := _score(column)) > 0),
        key=lambda one: -one[0],
    )
    telling = []
    for _, name in wanted:
        why = _tells(columns[name], target)
        if why:
            telling.append(f"text: {name} is left out: it tells the target, {why}")
        elif not found.columns:
            column = columns[name]
            found.columns = [name]
            found.said.append(f"text: {name}: {column.length:.0f} words in the mean, in {column.share:.0%} of the rows")
        else:
            found.others.append(name)
    if found.others:
        more = ", ".join(found.others[:6])
        found.said.append(f"text: one column is read; others that could be, with --text or text.columns: {more}")
    found.said += telling
    if wanted and not found.columns:
        found.unsure.append(
            f"text: none is read, as all that could be tell the target; --text {wanted[0][1]} reads it all the same"
        )
    return found


def _score(column: Column) -> float:
    """How much speaks for a column as a text; 0 or less: it is none."""
    if column.kind != "text" or not column.counts or column.numbers or column.is_url or column.is_date:
        return 0
    weights = [_SPEAKS.get(word, 0) for word in column.words]
    by_name = max(weights, default=0) + min(0, min(weights, default=0))
    least = 1.5 if by_name > 3 else 2.0
    varied = len(column.counts) > 20 or column.distinct > 0.5
    varied = varied or (by_name >= 5 and len(column.counts) > 1)  # such as a question that is asked of many images
    if column.length < least or not varied or column.mostly(_PATHS) or column.mostly(_CODE, 0.95):
        return 0
    return by_name + 2 * math.log2(column.length) + 4 * column.share + 2 * column.distinct - 4


def _tells(column: Column, target: Target | None) -> str | None:
    return None if target is None else tells(column.texts, target.labels, target.kind)
