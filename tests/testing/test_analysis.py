"""The conformance suite of analyses passes on every one of mmfuse, and fails on every defect planted here."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from mmfuse.evaluation.analyses import ANALYSES, Analysis
from mmfuse.testing import SUITES, ConformanceError
from mmfuse.types import MmfuseError

SUITE = SUITES["analysis"]


@pytest.mark.parametrize("check", SUITE.checks)
@pytest.mark.parametrize("name", ANALYSES.names())
def test_registered_analysis_conforms(name, check):
    SUITE.checks[check](name)


class Plain(Analysis):
    """An analysis without defect, from which those below differ by one.

    Reference: none.
    Differs: nothing.
    Prefer when: testing.
    """

    def __init__(self, digits: int = 3):
        self.digits = digits

    def __call__(self, scored):
        ids = sorted(scored.ids)
        drawn = np.random.default_rng(scored.seed).integers(len(ids))
        return {"rows": len(ids), "one": ids[drawn], "mean": float(scored.said["findings"].mean())}

    def lines(self, found):
        return [f"{found['rows']} rows, such as {found['one']}."]

    def figures(self, found, folder):
        figure = Figure()
        figure.subplots().plot([found["mean"]], "o")
        figure.savefig(folder / "planted.png")
        return [folder / "planted.png"]


class OfNumbers(Plain):
    """It asks of numbers alone."""

    def __call__(self, scored):
        tasks = [name for name in scored.said if scored.table.manifest.tasks[name].type == "regression"]
        return (
            {"rows": len(scored.rows), "one": tasks[0], "mean": float(scored.said[tasks[0]].mean())} if tasks else None
        )


class OrderOfRows(Plain):
    def __call__(self, scored):
        return super().__call__(scored) | {"one": scored.ids[0]}


class ChangesScores(Plain):
    def __call__(self, scored):
        scored.scores["findings"]["metrics"]["auroc_macro"]["value"] = 1.0
        return super().__call__(scored)


class ChangesWhatWasSaid(Plain):
    def __call__(self, scored):
        scored.said["findings"][:] = 0
        return super().__call__(scored)


class NumpyNumbers(Plain):
    def __call__(self, scored):
        return super().__call__(scored) | {"mean": scored.said["findings"].mean()}


class NotANumber(Plain):
    def __call__(self, scored):
        return super().__call__(scored) | {"mean": float("nan")}


class NumbersAsKeys(Plain):
    """Its lines would raise on what is read from `metrics.json`."""

    def __call__(self, scored):
        return super().__call__(scored) | {"by_label": {0: 1.0}}

    def lines(self, found):
        return [*super().lines(found), str(found["by_label"][0])]


class LinesOfWhatIsNotThere(Plain):
    def lines(self, found):
        return [f"{found['row']} rows"]


class LinesByOptions(Plain):
    def lines(self, found):
        return [f"{found['mean']:.{self.digits}f}"]


class LineBreaks(Plain):
    def lines(self, found):
        return ["one\ntwo"]


class LinesChangeTheResult(Plain):
    def lines(self, found):
        return [f"{found.pop('rows')} rows"]


class GlobalRandomState(Plain):
    def __call__(self, scored):
        return super().__call__(scored) | {"drawn": float(np.random.random())}


_calls = itertools.count()


class Remembers(Plain):
    def __call__(self, scored):
        return super().__call__(scored) | {"call": next(_calls)}


class WritesOutside(Plain):
    def figures(self, found, folder):
        (path,) = super().figures(found, folder)
        return [path.rename(folder.parent / f"{folder.name}.png")]


class WritesWhereItStands(Plain):
    def figures(self, found, folder):
        with open("notes.txt", "w") as file:
            file.write("x")
        return super().figures(found, folder)


class AnyName(Plain):
    def figures(self, found, folder):
        (path,) = super().figures(found, folder)
        return [path.rename(folder / "confusion_findings.png")]


class TellsNoFigure(Plain):
    def figures(self, found, folder):
        super().figures(found, folder)
        return []


class NeedsAnOption(Plain):
    def __init__(self, digits):
        self.digits = digits


class NeverApplies(Plain):
    def __call__(self, scored):
        return None


class BesideOthers(Plain):
    beside = "metrics"


def plant(monkeypatch, cls):
    cls.__doc__ = Plain.__doc__
    monkeypatch.setitem(ANALYSES._classes, "planted", cls)


@pytest.mark.parametrize("cls", [Plain, OfNumbers])
def test_what_has_no_defect_passes(monkeypatch, cls):
    plant(monkeypatch, cls)
    SUITE.run("planted")


@pytest.mark.parametrize(
    ("cls", "options", "said"),
    [
        (OrderOfRows, {}, "order_of_rows: its answer depends on the order"),
        (ChangesScores, {}, "leaves_what_it_reads: it changes scores"),
        (ChangesWhatWasSaid, {}, "read-only"),
        (NumpyNumbers, {}, "result_is_json: its result is not JSON: .*float32"),
        (NotANumber, {}, "result_is_json: its result is not JSON"),
        (NumbersAsKeys, {}, "result_is_json: its result is another when read from JSON"),
        (LinesOfWhatIsNotThere, {}, "lines: KeyError: 'row'"),
        (LinesByOptions, {"digits": 2}, "`lines` depends on options"),
        (LineBreaks, {}, "line break"),
        (LinesChangeTheResult, {}, "`lines` changes what was found"),
        (GlobalRandomState, {}, "same_answer_twice: it draws from a global random state"),
        (Remembers, {}, "same_answer_twice: its answer .* differs from call to call"),
        (WritesOutside, {}, "writes outside of its folder"),
        (WritesWhereItStands, {}, "writes into the working directory"),
        (AnyName, {}, "confusion_findings.png does not begin with 'planted'"),
        (TellsNoFigure, {}, "does not tell what it writes: planted.png"),
        (NeedsAnOption, {"digits": 2}, "an option has no default"),
        (NeverApplies, {}, "it does not apply to the rows it is tried on"),
        (BesideOthers, {}, "`beside` is 'metrics'"),
    ],
)
def test_a_planted_defect_is_caught(monkeypatch, cls, options, said):
    plant(monkeypatch, cls)
    with pytest.raises(ConformanceError, match=said):
        SUITE.run("planted", **options)


def test_the_example_is_as_it_was_after_a_defect(monkeypatch):
    plant(monkeypatch, ChangesScores)
    with pytest.raises(ConformanceError):
        SUITE.run("planted")
    plant(monkeypatch, Plain)
    SUITE.run("planted")


def test_an_option_that_is_refused_is_the_users_error():
    with pytest.raises(MmfuseError, match="min_rows"):
        SUITE.run("subgroups", min_rows=0)
