"""What a benchmark asks of the test rows, settled before they are seen: references, and the contrast that comes first.

Nothing here reads a test score, not even to break a tie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmfuse.benchmarking.plan import COVARIATES, NO_FUSION, UNIMODAL


class Declared(NamedTuple):
    """What is asked.

    Attributes:
        references: By role the row that all others are compared with: `best_unimodal`, `late`, `concat`,
            `covariates_only`, and the fusion that was chosen, `declared`.
        first: The fusion and the modality alone that were best on validation, whose contrast is tested first and alone;
            None where either is unknown.
    """

    references: dict[str, str]
    first: tuple[str, str] | None


def declare(names: Sequence[str], macs: Mapping[str, int], validation: Mapping[str, float | None]) -> Declared:
    """Choose by validation scores; of equal fusions the one with the fewest MACs.

    Args:
        names: Of the rows that have a score.
        macs: By row.
        validation: By row its score on the validation rows, of which more is better; None where there is none.
    """

    def on_validation(name: str) -> float:
        value = validation[name]
        return -math.inf if value is None else value

    unimodal = [name for name in UNIMODAL if name in names]
    fusions = [name for name in names if name not in NO_FUSION and validation[name] is not None]
    references = {"best_unimodal": max(unimodal, key=on_validation)} if unimodal else {}
    references |= {name: name for name in ("late", "concat", COVARIATES) if name in names}
    if not fusions or not unimodal or any(validation[name] is None for name in unimodal):
        return Declared(references, None)
    best = min(fusions, key=lambda name: (-on_validation(name), macs[name], name))
    return Declared({**references, "declared": best}, (best, references["best_unimodal"]))
