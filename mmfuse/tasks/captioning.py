from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mmfuse import cells
from mmfuse.cells import Cell
from mmfuse.registry import nearest
from mmfuse.sections import SECTIONS, select_sections
from mmfuse.tasks import TASKS
from mmfuse.tasks.kind import TaskKind
from mmfuse.tasks.spec import KEYS, TaskSpec
from mmfuse.types import MmfuseError

if TYPE_CHECKING:
    from mmfuse.metrics.scored import Scored

_SHORTEST_COPY = 4


@TASKS.register("captioning")
class Captioning(TaskKind):
    """A text: a target is the tuple of its references, empty where missing; what is said is a record of tokens.

    Reference: Chen et al. 2015, "Microsoft COCO Captions", arXiv 1504.00325, for several references and their metrics.
    Differs: METEOR is the one of nltk.
    Prefer when: the answer is a sentence: a report, a caption, an answer to a question.

    Attributes:
        decoder: Knows the words of tokens (`decode`, `token`, `pad`, `eos`); a captioning head sets its own.
    """

    keys = frozenset(KEYS) - {"values", "min_count"}
    is_text = True
    lower_is_better = frozenset({"nll"})
    monitor = "rouge_l"
    temperature = 1.0
    thresholds = None
    fields: ClassVar[dict[str, pa.DataType]] = {"caption": pa.string(), "score": pa.float64()}

    def __init__(self, labels: Sequence[str] = ()):
        super().__init__(labels)
        self.decoder: Any = None

    @classmethod
    def example(cls) -> tuple[dict[str, Any], dict[str, Sequence[str]]]:
        """One or two references a row."""
        texts = [f"a film of type {i % 3} | film {i}" if i % 2 else f"nothing is seen on film {i}" for i in range(14)]
        return {"column": "y", "separator": "|"}, {"y": [*texts[:2], "", *texts[3:]]}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of `mmfuse.metrics.captions`, and the likelihood of the right captions."""
        from mmfuse.metrics.captions import CAPTION_METRICS

        return (*CAPTION_METRICS, "nll")

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Of them."""
        from mmfuse.metrics.captions import RANGES

        return RANGES

    @classmethod
    def check_keys(cls, spec: TaskSpec, where: str) -> None:
        """As of all kinds, in words of their own."""
        if spec.values is not None or spec.min_count > 1:
            raise MmfuseError(f"{where}: values and min_count are not for captioning")
        super().check_keys(spec, where)

    def check(self, spec: TaskSpec, where: str) -> None:
        """A section is one that is known, and a language is written as one."""
        from mmfuse.metrics.captions.languages import code_of

        if spec.language is not None:
            try:
                code_of(spec.language)
            except MmfuseError as error:
                raise MmfuseError(f"{where}.language: {error}") from error
        if spec.section is not None and spec.section not in SECTIONS:
            raise MmfuseError(f"{where}.section: {spec.section!r} is not legal; {nearest(spec.section, SECTIONS)}")

    def read(self, frame: pd.DataFrame, spec: TaskSpec, where: str, first: int = 0) -> np.ndarray:
        """By row its references: of a list, of a column with a separator, or of several columns."""
        absent = {"", *spec.missing}
        found = np.empty(len(frame), dtype=object)
        for row, values in enumerate(zip(*(frame[name] for name in spec.named), strict=True)):
            parts: list[str] = []
            for value in values:
                listed = _listed(value, where, first + row)
                parts += listed if listed is not None else value.split(spec.separator) if spec.separator else [value]
            if spec.section:
                parts = [select_sections(report, [spec.section]) for report in parts]
            found[row] = tuple(dict.fromkeys(" ".join(p.split()) for p in parts if p.strip() not in absent))
        return found

    def written(self, frame: pd.DataFrame, spec: TaskSpec, where: str, first: int = 0) -> np.ndarray:
        """The references."""
        return self.read(frame, spec, where, first)

    def describe(self, target: np.ndarray) -> str:
        """How many captions, of how many words."""
        captioned = [found for found in target if found]
        words = [len(caption.split()) for found in captioned for caption in found]
        return (
            f"{len(captioned)} rows with {len(words)} captions of {np.mean(words):.1f} words, {max(words)} at most; "
            f"{len({c for found in captioned for c in found})} different ones"
        )

    def count(self, found: Any, spec: TaskSpec) -> Counter[str]:
        """How many rows have any caption."""
        return Counter(captions=sum(map(bool, found)))

    def choose(
        self, counts: Counter[str], spec: TaskSpec, where: str, labels: Sequence[str] | None = None
    ) -> list[str]:
        """None: a caption has no labels."""
        if not counts["captions"]:
            raise MmfuseError(f"{where}: no row has a caption")
        return []

    def encode(self, found: Any, spec: TaskSpec) -> np.ndarray:
        """`(rows,)` objects, the tuples of references."""
        return found

    def labelled(self, target: np.ndarray) -> NDArray[np.bool_]:
        """`(rows,)` bool."""
        return np.array([bool(captions) for captions in target], dtype=bool)

    def shown(self, target: Any) -> list[str] | None:
        """The references."""
        return list(target) or None

    def stated(self, text: str, target: Any) -> bool:
        """Whether a reference stands in a text: case, punctuation and spaces do not count.

        A reference of fewer than 4 words, or 8 characters of a script without spaces, does not either.
        """
        from mmfuse.metrics.captions.languages import count_words, words_of

        plain = f" {' '.join(words_of(text))} "
        references = map(words_of, target)
        return any(count_words(w) >= _SHORTEST_COPY and f" {' '.join(w)} " in plain for w in references)

    @property
    def arrow(self) -> pa.DataType:
        """A list of texts."""
        return pa.list_(pa.string())

    def from_arrow(self, column: pa.ChunkedArray) -> np.ndarray:
        """`(rows,)` objects."""
        found = np.empty(len(column), dtype=object)
        found[:] = [tuple(captions) for captions in column.to_pylist()]
        return found

    def state(self) -> dict[str, Any]:
        """As of kinds with labels, so that model folders are alike."""
        return {"temperature": self.temperature, "thresholds": self.thresholds}

    def predictions(self, said: np.ndarray) -> np.ndarray:
        """The records, as they are said."""
        return said

    def text(self, said: np.void) -> str:
        """The caption of one record."""
        return self.decoder.decode(said["ids"].tolist())

    def decide(self, predicted: np.void) -> dict[str, Any]:
        """`caption`, its `score` and its `tokens` with their log probabilities, of one record."""
        ids = predicted["ids"].tolist()
        length = next((i + 1 for i, id in enumerate(ids) if id == self.decoder.eos), None)
        length = sum(id != self.decoder.pad for id in ids) if length is None else length
        return {
            "caption": self.text(predicted),
            "score": round(float(predicted["score"]), 4),
            "tokens": [
                [self.decoder.token(id), round(float(p), 4)]
                for id, p in zip(ids[:length], predicted["log_probabilities"], strict=False)
            ],
        }

    def unshown(self, shown: Sequence[Any]) -> np.ndarray:
        """As of all kinds."""
        targets = np.empty(len(shown), dtype=object)
        targets[:] = [tuple(references or ()) for references in shown]
        return targets

    def reread(self, told: Sequence[Mapping[str, Any]], target: np.ndarray) -> Scored:
        """As of all kinds."""
        captions = [one["caption"] for one in told]
        if not all(isinstance(caption, str) for caption in captions):
            raise MmfuseError("a caption is no text")
        return self._scored(captions, target)

    def weighted(self, scored: Scored, bootstrap: Any, language: str | None = None) -> dict[str, Any]:
        """As of all kinds; without the likelihood, which is no caption's.

        Args:
            scored: The captions.
            bootstrap: Over their groups.
            language: Of the captions.
        """
        from mmfuse.metrics.captions import captioning_replicates

        return captioning_replicates(scored.decided.tolist(), scored.target.tolist(), bootstrap, language)

    def scored(self, predicted: np.ndarray, target: np.ndarray) -> Scored:
        """Captions and the tuples of their references, as objects."""
        return self._scored([self.text(row) for row in predicted], target)

    def _scored(self, captions: Sequence[str], target: np.ndarray) -> Scored:
        from mmfuse.metrics.scored import Scored

        rows = np.flatnonzero(self.labelled(target))
        return Scored(target[rows], np.array(captions, dtype=object)[rows], (), None, rows)

    def score(
        self,
        predicted: np.ndarray,
        target: np.ndarray,
        groups: Sequence[str],
        resamples: int = 1000,
        seed: int = 0,
        reports: Sequence[str] = (),
        language: str | None = None,
    ) -> dict[str, Any]:
        """What `mmfuse.metrics.captions.score_captioning` gives, with the likelihood of the right captions.

        Args:
            predicted: `(rows,)` records.
            target: `(rows,)` tuples of references.
            groups: `(rows,)`.
            resamples: Of the groups.
            seed: Of the resampling.
            reports: Report metrics by name (`mmfuse.metrics.reports`), of each row against its first reference.
            language: Of the captions.
        """
        from mmfuse.metrics.basis import score_of_mean
        from mmfuse.metrics.bootstrap import GroupJackknife
        from mmfuse.metrics.captions import score_captioning, tell_words
        from mmfuse.metrics.reports import score_reports

        candidates, references = [self.text(row) for row in predicted], list(target)
        scores = score_captioning(candidates, references, groups, resamples, seed, language)
        tokens = predicted["target_tokens"].astype(np.float64)
        if tokens.any():
            told = np.divide(predicted["target_loss"], tokens, out=np.zeros(len(tokens)), where=tokens > 0)
            jackknife = GroupJackknife(groups, resamples, seed)
            scores["metrics"]["nll"] = score_of_mean(told, jackknife, (0.0, math.inf), tokens)
            scores["metrics"]["nll"]["value"] = float(predicted["target_loss"].sum() / tokens.sum())
        there = [i for i, captions in enumerate(references) if captions]
        chosen, first = [candidates[i] for i in there], [references[i][0] for i in there]
        words = tell_words(first, language)
        if words:
            scores["words"] = words
        for name in reports:
            scores["metrics"] |= score_reports(name, chosen, first, [groups[i] for i in there], resamples)
        return scores


def _listed(value: Cell, where: str, row: int) -> list[str] | None:
    try:
        return cells.captions(value)
    except MmfuseError as error:
        raise MmfuseError(f"{where}: row {row + 1}: {error}") from error
