from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from mmfuse.registry import nearest
from mmfuse.tasks import TASKS
from mmfuse.tasks.kind import Array, TaskKind
from mmfuse.types import MmfuseError

if TYPE_CHECKING:
    from mmfuse.metrics.scored import Scored

TRANSFORMS = ("standardize", "log", "none")
COVERAGE = 0.9
"""How often the truth lies between `low` and `high`."""
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_LARGEST = 1e30
"""Targets are single precision."""
_LARGEST_EXPONENT = 700.0
_WRITTEN = re.compile(r"(?<![\w.,])\d{1,3}([ ,.'\u00a0\u202f])(?:\d{2,3}\1)*\d{3}(?:[.,]\d+)?(?!\d)|\d+(?:[.,]\d+)?")
"""With separators of thousands, in India 12,34,567; or without."""
_FEWEST_DIGITS = 3


@TASKS.register("regression")
class Regression(TaskKind):
    """A number: a target is its value, NaN where missing; a head says it on a scale of its own.

    The scale is z = (t(y) - center) / scale, with t the logarithm or nothing, and mean and standard deviation of t over
    the targets of the training split. What is said is turned back into the target's unit; with `log` that is the
    exponential of a mean of logarithms: the median of a symmetric spread about it, below the mean, and scores of the
    logarithms come first (`r2_log`, `rmse_log`). Of validation rows
    the error that 90 % stay below, on the scale, gives `low` and `high` of each prediction (`conformal_radius`): of a
    group of several rows only one counts, drawn by its id, since rows of one group are not exchangeable with a new one.

    Reference: Lei et al. 2018, "Distribution-free predictive inference for regression", arXiv 1604.04173; one row a
    group after Dunn, Wasserman and Ramdas 2023, "Distribution-free prediction sets for two-layer hierarchical models".
    Differs: the validation rows also chose the epoch, so that new rows may be covered a little less often.
    Prefer when: the target is a quantity; of few levels, or where a decision follows, `classification`.

    Args:
        labels: None; a number has no names.
        unit: Of the target, said beside each prediction.
        transform: `standardize`; `log` for prices, counts and concentrations, whose errors are factors (above 0 only);
            `none` for targets that are of size 1 already.
    """

    one_a_group = True
    fields: ClassVar[dict[str, pa.DataType]] = {"value": pa.float64(), "low": pa.float64(), "high": pa.float64()}

    def __init__(self, labels: Sequence[str] = (), *, unit: str = "", transform: str = "standardize"):
        super().__init__(labels)
        if labels:
            raise MmfuseError(f"labels: {list(labels)!r:.100}: a regression has none")
        if not isinstance(unit, str):
            raise MmfuseError(f"unit: {unit!r:.60}: a text is expected, such as kg")
        if transform not in TRANSFORMS:
            raise MmfuseError(f"transform: {transform!r:.60} is not legal; {nearest(str(transform), TRANSFORMS)}")
        self.unit, self.transform = unit, transform
        self.center, self.scale = 0.0, 1.0
        self.radius: float | None = None
        own = ("r2_log", "rmse_log") if self.log else ()
        self.metrics = self.comparable = (*own, "r2", "rmse", "mae", "spearman")
        self.lower_is_better = frozenset({"rmse", "mae", "rmse_log"}) & set(self.metrics)
        self.monitor = self.metrics[0]
        self.diagnosed = (self.monitor,)
        self.units = {"rmse": unit, "mae": unit} | ({"rmse_log": "powers of e"} if self.log else {})

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of `mmfuse.metrics.regression`, imported where something is scored."""
        from mmfuse.metrics.regression import RANGES

        return RANGES

    @property
    def log(self) -> bool:
        """Whether errors are factors."""
        return self.transform == "log"

    # ---- reading

    def number(self, raw: str) -> float:
        """The number that a cell says: digits, a point, an exponent; no unit, no separator of thousands."""
        if not _NUMBER.fullmatch(raw):
            raise ValueError(
                f"{raw!r:.60} is not a number; legal: 1234, -12.5, 3e-4, without unit and separators of thousands"
            )
        value = float(raw)
        if abs(value) > _LARGEST:
            raise ValueError(f"{raw!r:.60} is out of range; legal: at most 1e30")
        if self.log and value <= 0:
            raise ValueError(
                f"{raw!r:.60} has no logarithm; legal with transform: log: numbers above 0; standardize takes all"
            )
        return value

    def undefined(self, target: np.ndarray) -> dict[str, str]:
        """Nothing of a constant can be explained or ranked."""
        known = target[self.labelled(target)]
        if known.min() < known.max():
            return {}
        return dict.fromkeys(("r2", "spearman"), "all values are equal")

    def shown(self, target: Any) -> float | None:
        """The number, as far as single precision knows it."""
        return None if np.isnan(target) else _short(target)

    def stated(self, text: str, target: Any) -> bool:
        """Whether a text says the number: as it is, or rounded to 3 digits or more; 1,449 and 1.449,00 are read too."""
        return not np.isnan(target) and any(says(written, float(target)) for written in written_numbers(text))

    # ---- what is taken from rows

    def fit(self, targets: Callable[[], np.ndarray]) -> None:
        """Set the scale by the targets of the training split.

        Raises:
            MmfuseError: None of them is known.
        """
        if self.transform == "none":
            return
        known = np.asarray(targets(), np.float64)
        known = known[~np.isnan(known)]
        if not len(known):
            raise MmfuseError("no row of the training split has a value, so that there is no scale to learn on")
        known = np.log(known) if self.log else known
        self.center, self.scale = float(known.mean()), float(known.std()) or 1.0

    def calibrate(self, said: np.ndarray, target: np.ndarray) -> None:
        """Set the reach of intervals."""
        from mmfuse.metrics.regression import conformal_radius

        there = self.labelled(target)
        errors = said[there, 0].astype(np.float64) - self.on_scale(target[there])
        self.radius = conformal_radius(errors, COVERAGE)

    def state(self) -> dict[str, Any]:
        """`center` and `scale` of the scale, `radius` of the intervals on it (None where there were too few rows)."""
        return {"center": self.center, "scale": self.scale, "radius": self.radius}

    def load_state(self, state: dict[str, Any], where: str) -> None:
        """As of all kinds."""
        lowest = {"center": -math.inf, "scale": 0.0, "radius": -1e-300}
        for name, low in lowest.items():
            value = state[name]
            if name == "radius" and value is None:
                continue
            if type(value) not in (int, float) or not (math.isfinite(value) and value > low):
                legal = "a finite number" if name == "center" else "a finite number, not negative,"
                raise MmfuseError(f"{where}.{name}: {value!r:.60}: {legal} is expected")
        self.center, self.scale, self.radius = (state[name] for name in lowest)

    # ---- saying

    def on_scale(self, values: np.ndarray) -> Array:
        """Numbers in the target's unit as numbers on the scale."""
        values = np.asarray(values, np.float64)
        return ((np.log(values) if self.log else values) - self.center) / self.scale

    def in_unit(self, scaled: np.ndarray) -> Array:
        """Numbers on the scale as numbers in the target's unit."""
        values = np.asarray(scaled, np.float64) * self.scale + self.center
        return np.exp(values.clip(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)) if self.log else values

    def predictions(self, said: np.ndarray) -> Array:
        """`(rows,)` in the target's unit."""
        return self.in_unit(said[:, 0])

    def reach(self, predicted: Array) -> tuple[Array, Array] | None:
        """The lower and upper ends of predictions' intervals; None where they are not known."""
        if self.radius is None:
            return None
        at = self.on_scale(predicted)
        return self.in_unit(at - self.radius), self.in_unit(at + self.radius)

    def figures(
        self, task: str, predicted: Array, target: np.ndarray, scores: dict[str, Any], folder: Path, plots: Any
    ) -> None:
        """Residuals."""
        name = f"{task} ({self.unit})" if self.unit else task
        path = folder / f"residuals_{task}.png"
        plots.plot_residuals(predicted, target, path, name, self.reach(predicted), self.log)

    def decide(self, predicted: Any) -> dict[str, Any]:
        """`value` in `unit`, and `low` and `high`, between which 90 % of the truths lie; None where not known."""
        ends = self.reach(np.asarray(predicted, np.float64))
        low, high = (None, None) if ends is None else map(_short, ends)
        return {"value": _short(predicted), "unit": self.unit, "low": low, "high": high}

    def measure(self, predicted: np.ndarray, target: np.ndarray, times: Array) -> dict[str, float]:
        """As of all kinds."""
        from mmfuse.metrics.regression import regression_values

        rows = np.repeat(np.arange(len(target)), times.astype(np.int64))
        return regression_values(predicted[rows], target[rows], self.log)

    def score(
        self, predicted: np.ndarray, target: np.ndarray, groups: Sequence[str], resamples: int = 1000, seed: int = 0
    ) -> dict[str, Any]:
        """What `mmfuse.metrics.regression.score_regression` gives, with what the intervals are worth.

        Returns:
            Beside `n`, `groups` and `metrics`: the `unit`, and where they are known, of `intervals` the `level` that
            they promise, their `coverage` of these rows and the median `width`.
        """
        from mmfuse.metrics.regression import interval_scores, score_regression

        scores: dict[str, Any] = {
            **score_regression(predicted, target, groups, resamples, seed, self.log),
            "unit": self.unit,
        }
        ends = self.reach(predicted)
        if ends is not None:
            scores["intervals"] = {"level": COVERAGE, **interval_scores(*ends, target, groups, resamples, seed)}
        return scores

    def told(self, scores: dict[str, Any]) -> list[str]:
        """In which unit errors are, and how often the intervals hold."""
        unit = f" {self.unit}" if self.unit else ""
        lines = [f"RMSE and MAE are in {self.unit}."] if self.unit else []
        if "intervals" in scores:
            found = scores["intervals"]
            rate = found["coverage"]
            ends = "" if rate["low"] is None else f" (95 % interval {rate['low']:.1%} to {rate['high']:.1%})"
            lines.append(
                f"Intervals that promise {found['level']:.0%} hold the truth of {rate['value']:.1%} of these rows"
                f"{ends}; their median width is {found['width']:.4g}{unit}."
            )
        return lines

    def weighted(self, scored: Scored, bootstrap: Any) -> dict[str, Array]:
        """As of all kinds."""
        from mmfuse.metrics.regression import regression_replicates

        return regression_replicates(scored.decided, scored.target, bootstrap, self.log)

    def replicates(self, metric: str, predicted: Sequence[np.ndarray], target: np.ndarray, bootstrap: Any) -> Array:
        """As of all kinds."""
        from mmfuse.metrics.regression import regression_replicates

        return np.stack([regression_replicates(each, target, bootstrap, self.log)[metric] for each in predicted])


def written_numbers(text: str) -> list[tuple[float, int]]:
    """The numbers in a text, each with its decimals; one that can be read in two ways, such as 1.449, in both."""
    found = []
    for match in _WRITTEN.finditer(text):
        raw, separator = match[0], match[1]
        plain = raw.replace(separator, "") if separator else raw
        readings = {plain.replace(",", ".")}
        if separator in (",", ".") and raw.count(separator) == 1 and plain.isdigit():
            readings.add(raw.replace(",", "."))
        if separator and separator.isspace():
            readings |= {part.replace(",", ".") for part in raw.split(separator)}
        found += [(float(reading), len(reading.partition(".")[2])) for reading in sorted(readings)]
    return found


def says(written: tuple[float, int], target: float) -> bool:
    """Whether a number with so many decimals is a target, or that rounded to 3 digits or more."""
    value, decimals = written
    if math.isclose(value, abs(target), rel_tol=1e-6):
        return True
    digits = len(f"{value:.{decimals}f}".replace(".", "").lstrip("0"))
    return digits >= _FEWEST_DIGITS and round(abs(target), decimals) == value


def _short(value: Any) -> float:
    return float(f"{float(value):.7g}")
