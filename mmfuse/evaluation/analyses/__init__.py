"""Analyses: questions asked of rows that a model was scored on, one file each, found by name."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.tables.table import Table
from mmfuse.metrics.bootstrap import RESAMPLES
from mmfuse.model import FusionModel
from mmfuse.pulse import now
from mmfuse.registry import Registry
from mmfuse.types import MmfuseError

ANALYSES = Registry("analysis", "analyses")


@dataclass(frozen=True)
class Scored:
    """What a model said of N rows, and how it was scored.

    Attributes:
        model: Its heads make probabilities and decisions of what is said.
        pairs: All rows of the table as the model reads them, those of the training split among them.
        rows: `(N,)` numbers of the scored rows in the table.
        said: By task, a head's output `(N, L)`, or captions' records `(N,)`; they cannot be written to.
        scores: By task, what the report says of these rows.
        score_rows: `mmfuse.evaluation.evaluate.score_rows`, with what was chosen, called by `score`.
        resamples: Of the groups, for intervals.
        seed: Of whatever is drawn.
        batch_size: Rows per forward pass, where a model is asked again.
    """

    model: FusionModel
    pairs: PairDataset
    rows: Sequence[int]
    said: Mapping[str, np.ndarray]
    scores: Mapping[str, dict[str, Any]]
    score_rows: Callable[..., dict[str, dict[str, Any]]]
    resamples: int = RESAMPLES
    seed: int = 0
    batch_size: int = 64

    @property
    def table(self) -> Table:
        """All rows."""
        return self.pairs.table

    @cached_property
    def groups(self) -> list[str]:
        """By scored row its group, such as a patient."""
        return self.column("group")

    @cached_property
    def ids(self) -> list[str]:
        """By scored row its id."""
        return [self.pairs.ids[row] for row in self.rows]

    def column(self, name: str) -> list[str]:
        """By scored row, a column of `Table.rows`, such as `subgroup.sex`."""
        values: list[Any] = self.table.rows[name][:]
        return [values[row] for row in self.rows]

    def kind(self, task: str) -> Any:
        """What a task is (`mmfuse.tasks.TaskKind`): it makes probabilities, decisions and scores of what is said."""
        head: Any = self.model.heads[task]
        return head.task

    def target(self, task: str) -> np.ndarray:
        """By scored row, a task's target, as in `Table.targets`."""
        return self.table.targets[task][list(self.rows)]

    def score(
        self, places: Sequence[int], tasks: Iterable[str] | None = None, resamples: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """The scores of some of the rows, as the report scores all of them.

        Args:
            places: Positions in `rows`; one may stand there twice.
            tasks: Default: all.
            resamples: Default: as many as the report has; 0 for no intervals.
        """
        chosen = np.asarray(places, dtype=np.int64)
        said = {task: self.said[task][chosen] for task in (self.said if tasks is None else tasks)}
        number = self.resamples if resamples is None else resamples
        return self.score_rows(self.model, self.pairs, [self.rows[i] for i in chosen], said, resamples=number)


class Analysis:
    """What an analysis offers; its constructor's signature is its config schema, with a default for every option.

    What is told (`lines`, `figures`) depends on what was found alone, and so is asked of an analysis with default
    options: let what matters of the options be in what `__call__` gives.

    Attributes:
        by_itself: Whether it is asked where a config names no analyses; it says None where it does not apply.
        beside: The key beside a task's scores where its results by task are put, instead of under `analyses`.
    """

    by_itself: bool = False
    beside: str | None = None

    def check(self, table: Table) -> None:
        """Refuse, before anything is trained or predicted, what cannot be asked of this table.

        Raises:
            MmfuseError: In one line.
        """

    def __call__(self, scored: Scored) -> dict[str, Any] | None:
        """What was found, as plain JSON values; None where the analysis does not apply.

        It is called by every process of a launch alike.
        """
        raise NotImplementedError

    def lines(self, found: dict[str, Any]) -> list[str]:
        """What was found, in lines of Markdown; the first sentence says what matters.

        Args:
            found: As `__call__` gave it, read from JSON, in which names are escaped for where the lines go.
        """
        raise NotImplementedError

    def figures(self, found: dict[str, Any], folder: Path) -> list[Path]:
        """Draw PNGs whose names begin with the analysis' own into a folder, and tell which.

        Args:
            found: As `__call__` gave it, read from JSON.
            folder: That of `metrics.json`.
        """
        return []


def choose_analyses(asked: Iterable[Any] | None, where: str = "evaluation.analyses") -> dict[str, Analysis]:
    """By name the analyses that are asked for.

    Args:
        asked: Names, or `{name: ..., options}`; None: those that are asked by themselves.
        where: Named in errors.

    Raises:
        MmfuseError: Nothing is registered so, an option is not legal, or one is named twice.
    """
    if asked is None:
        return {name: ANALYSES.get(name)() for name in ANALYSES.names() if ANALYSES.get(name).by_itself}
    found: dict[str, Analysis] = {}
    for value in asked:
        name, options = ANALYSES.chosen(value, where)
        if name in found:
            raise MmfuseError(f"{where}: {name!r} is named twice")
        found[name] = ANALYSES.build(name, where, **options)
    return found


def run_analyses(chosen: Mapping[str, Analysis], scored: Scored, report: dict[str, Any]) -> None:
    """Ask analyses of scored rows; what they find goes into the report, where it is said by task beside the scores.

    Args:
        chosen: By name.
        scored: The rows.
        report: Of `evaluate`, with `tasks`; `analyses` is added where there is something in it.
    """
    for values in scored.said.values():
        values.setflags(write=False)
    for name, analysis in chosen.items():
        now(f"analysis {name}")
        try:
            found = analysis(dataclasses.replace(scored, scores=copy.deepcopy(scored.scores)))
        except Exception as error:
            error.add_note(f"in analysis {name!r} of the scored rows")
            raise
        if found is None:
            continue
        if analysis.beside is None:
            report.setdefault("analyses", {})[name] = found
        else:
            for task, of_task in found.items():
                report["tasks"][task][analysis.beside] = of_task


def told_of(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By analysis, what a report says under `analyses`."""
    return dict(report.get("analyses", {}))


def told_beside(scores: Mapping[str, Any]) -> dict[str, Any]:
    """By analysis, what a report says beside a task's scores."""
    known = {name: ANALYSES.get(name).beside for name in ANALYSES.names()}
    return {name: scores[key] for name, key in known.items() if key is not None and key in scores}


def analysis_lines(name: str, found: dict[str, Any], escape: Callable[[object], str]) -> list[str]:
    """The lines that an analysis says of what it found, every text in them escaped."""
    return ANALYSES.get(name)().lines(_escaped(found, escape))


def draw_analyses(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what a report's analyses found into its folder."""
    drawn: list[Path] = []
    by_task: dict[str, dict[str, Any]] = {}
    for task, scores in report["tasks"].items():
        for name, found in told_beside(scores).items():
            by_task.setdefault(name, {})[task] = found
    for name, found in (by_task | told_of(report)).items():
        drawn += ANALYSES.get(name)().figures(found, folder)
    return drawn


def _escaped(found: Any, escape: Callable[[object], str]) -> Any:
    if isinstance(found, dict):
        return {_escaped(key, escape): _escaped(value, escape) for key, value in found.items()}
    if isinstance(found, list):
        return [_escaped(value, escape) for value in found]
    return escape(found) if isinstance(found, str) else found


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
