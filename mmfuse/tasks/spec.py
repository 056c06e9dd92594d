"""What a manifest says of one task."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from mmfuse.config import key


@dataclass
class TaskSpec:
    """One task: which column is the target, and what its values mean."""

    type: str = key("classification", "kind of task (mmfuse list tasks)")
    column: str | None = key(None, "target column")
    columns: list[str] | None = key(
        None, "instead of one column; multilabel: a 0/1 column per label; captioning: a column per reference"
    )
    separator: str | None = key(
        None, "what stands between the labels (multilabel) or references (captioning) of one column"
    )
    values: Any = field(default=None, metadata={"help": 'legal values as a list, or raw value -> label: {"Y": "yes"}'})
    other: str = key("error", "what any other value is", choices=("error", "missing"))
    missing: list[str] = key([], "values that mean there is no target (an empty one does, see empty)")
    empty: str = key("missing", "multilabel: what an empty column is", choices=("missing", "negative"))
    min_count: int = key(
        1, "leave out labels with fewer positives than this; rows of a class left out are missing", low=1
    )
    uncertain: str = key("mask", "multilabel columns: what -1 is", choices=("mask", "positive", "negative"))
    report_metrics: list[str] = key([], "captioning: metrics of findings, chest_rules or chexbert:FOLDER")
    language: str | None = key(None, "captioning: of the captions, such as de, zh or ko; their scores count its words")
    section: str | None = key(None, "captioning: the column holds whole reports, and this section is the target")
    allow_copies: bool = key(False, "captioning: train though the input text contains the caption of some rows")
    label_origin: str = key(
        "human", "who labelled", choices=("human", "mined_from_text", "model", "synthetic", "metadata")
    )
    options: dict[str, Any] = key({}, "set when read: keys of the kind's own")

    @property
    def named(self) -> list[str]:
        """The columns."""
        return [self.column] if self.column else list(self.columns or [])

    @property
    def value_map(self) -> dict[str, str] | None:
        """Raw value -> label, or None where every value is its own label."""
        return {v: v for v in self.values} if isinstance(self.values, list) else self.values

    def changed(self) -> list[str]:
        """The keys whose values are not their defaults, but for the kind's own."""
        empty = TaskSpec()
        return [name for name in KEYS if getattr(self, name) != getattr(empty, name)]

    def to_dict(self) -> dict[str, Any]:
        """All keys as a manifest has them, the kind's own among them."""
        values = dataclasses.asdict(self)
        return {**{name: values[name] for name in KEYS}, **values["options"]}


KEYS = tuple(f.name for f in dataclasses.fields(TaskSpec) if f.name != "options")
"""The keys that any manifest may hold of a task; each kind says which of them it reads."""
