"""What a run's page says of tasks with labels: by label, thresholds, calibration, confusion, abstention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from mmfuse.evaluation.run_page.folder import Scores
from mmfuse.metrics.calibration import equal_mass_bins, selective_curve
from mmfuse.pages.markup import DASH, Content, Html, cell, header, interval_of, score, table, tag
from mmfuse.pages.plots import Path, Points, plot, thinned

MOST_PLOTTED = 24
"""Labels that are drawn, those with the most rows."""
FEW_LABELS = 3
MOST_OF_CONFUSION = 16
BINS = 10


class Answers:
    """A task's answers on the scored rows.

    Args:
        task: Of kind with labels.

    Attributes:
        probabilities: `(n, L)`.
        truth: `(n, L)` 0, 1 or NaN where it is not known.
        said: `(n, L)` 0 or 1: what was decided.
    """

    def __init__(self, task: Scores):
        kind, L = task.kind, len(task.kind.labels)
        self.probabilities = kind.reread_probabilities(task.told)
        known = np.broadcast_to(kind.known(task.target), self.probabilities.shape)
        self.truth = np.where(known, kind.one_hot(task.target), np.nan)
        if kind.exclusive:
            place = {name: i for i, name in enumerate(kind.labels)}
            self.said = np.eye(L)[[place[told["label"]] for told in task.told]]
        else:
            self.said = np.array([[name in told["labels"] for name in kind.labels] for told in task.told], float)
        self.exclusive = bool(kind.exclusive)

    def decisions(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each decision how sure it is, and whether it is right: of classes a row, else a known label of a row."""
        if self.exclusive:
            sure = (self.probabilities * self.said).sum(axis=1)
            return sure, (self.truth * self.said).sum(axis=1)
        known = ~np.isnan(self.truth)
        sure = np.where(self.said > 0, self.probabilities, 1 - self.probabilities)[known]
        return sure, (self.said == self.truth)[known].astype(float)


def label_sections(task: Scores) -> Iterator[tuple[str, Content]]:
    """Titles and contents."""
    answers = Answers(task)
    yield "By label", _by_label(task, answers)
    yield "Ranking: ROC, precision and recall", _curves(task, answers)
    yield "Calibration", _reliability(task, answers)
    if answers.exclusive:
        yield "Which class is taken for which", _confusion(task)
    yield "If unsure decisions are held back", _abstention(answers)


def _by_label(task: Scores, answers: Answers) -> Content:
    usual = {"auroc": "AUROC", "average_precision": "average precision", "f1": "F1"}
    more = () if answers.exclusive else ("threshold",)
    counts = ("true positive", "false positive", "false negative", "true negative")
    rows = []
    for i, (name, of) in enumerate(task.scores["per_label"].items()):
        known = ~np.isnan(answers.truth[:, i])
        truth, said = answers.truth[known, i] > 0, answers.said[known, i] > 0
        cells = [cell(score(of[m]["value"]), interval_of(of[m]["low"], of[m]["high"], score)) for m in usual]
        cells += [cell(f"{task.kind.thresholds[i]:.3f}")] if more else []
        found = (truth & said, ~truth & said, truth & ~said, ~truth & ~said)
        cells += [cell(f"{int(part.sum()):,}") for part in found]
        rows.append(tag("tr", tag("th", name, scope="row"), cell(f"{of['positives']:,}"), cells))
    decided = "A class is said where it is the most probable one." if answers.exclusive else (
        "A label is said from its threshold on, which was chosen on validation rows for the highest F1."
    )  # fmt: skip
    head = header("label", "rows", *usual.values(), *more, *counts)
    return [tag("p", f"One label against all others. {decided}", class_="note"), table([head], [rows], "By label")]


def _curves(task: Scores, answers: Answers) -> Content:
    scores = task.scores["per_label"]
    names = sorted(scores, key=lambda name: -scores[name]["positives"])
    drawable = [n for n in names if scores[n]["auroc"]["value"] is not None]
    drawn = drawable[:MOST_PLOTTED]
    figures = [_pair(task, answers, name) for name in drawn]
    figures = [tag("div", tag("h4", name), tag("div", pair, class_="pair"), class_="of-label")
               for name, pair in zip(drawn, figures, strict=True)]  # fmt: skip
    note = "The dot is where the model decides. The dotted line is what chance gives."
    left = [f" {len(drawable) - len(drawn)} rarer labels are not drawn." if len(drawable) > len(drawn) else ""]
    left += [f" Without rows of both kinds: {', '.join(n for n in names if n not in drawable)[:300]}."
             if len(drawable) < len(names) else ""]  # fmt: skip
    if len(figures) > FEW_LABELS:
        rest = tag("details", tag("summary", f"{len(figures) - 1} more labels"), figures[1:])
        return [tag("p", note, *left, class_="note"), figures[0], rest]
    return [tag("p", note, *left, class_="note"), figures]


def _pair(task: Scores, answers: Answers, name: str) -> list[Html]:
    i = task.kind.labels.index(name)
    known = ~np.isnan(answers.truth[:, i])
    truth, likely = answers.truth[known, i] > 0, answers.probabilities[known, i]
    said = answers.said[known, i] > 0
    false, hits, _ = roc_curve(truth, likely)
    precision, recall, _ = precision_recall_curve(truth, likely)
    hit = float((said & truth).sum() / truth.sum())
    alarm = float((said & ~truth).sum() / max((~truth).sum(), 1))
    right = float((said & truth).sum() / said.sum()) if said.any() else None
    of = task.scores["per_label"][name]
    share = float(truth.mean())
    area, average = score(of["auroc"]["value"]), score(of["average_precision"]["value"])
    x, y = thinned(false, hits)
    roc = plot([Path("", x, y), Points([alarm], [hit], "kept", radius=5)], (0, 1), (0, 1),
               ("false alarms (1 − specificity)", "sensitivity"), f"ROC of {name}: area {area}; the model decides at "
               f"sensitivity {hit:.2f} and specificity {1 - alarm:.2f}", diagonal=True)  # fmt: skip
    x, y = thinned(recall, precision)
    at = [Points([hit], [right], "kept", radius=5)] if right is not None else []
    ranked = plot([Path("chance", [0, 1], [share, share], "chance"), Path("", x, y), *at], (0, 1), (0, 1),
                  ("recall", "precision"), f"Precision and recall of {name}: average precision {average}; chance is "
                  f"{share:.2f}")  # fmt: skip
    return [tag("figure", roc, tag("figcaption", f"AUROC {area}")),
            tag("figure", ranked, tag("figcaption", f"Average precision {average}; chance {share:.3f}"))]  # fmt: skip


def _reliability(task: Scores, answers: Answers) -> Content:
    if answers.exclusive:
        sure, right = answers.decisions()
        axes = "probability of the class that was said", "share that is right"
    else:
        known = ~np.isnan(answers.truth)
        sure, right = answers.probabilities[known], answers.truth[known]
        axes = "probability of a label", "share that has it"
    bins = equal_mass_bins(sure, BINS)
    points = [(sure[bins == b].mean(), right[bins == b].mean(), int((bins == b).sum())) for b in np.unique(bins)]
    ends = [_wilson(share, n) for _, share, n in points]
    told = [f"{share:.2f} of {n:,} at probability {x:.2f}" for x, share, n in points]
    ece = task.scores["metrics"]["ece"]
    low, high = zip(*ends, strict=True)
    chart = plot(
        [Points([p[0] for p in points], [p[1] for p in points], "one", low, high, told)],
        (0, 1), (0, 1), axes, f"Reliability: {'; '.join(told)}", diagonal=True,
    )  # fmt: skip
    note = (
        f"Ten groups of {'rows' if answers.exclusive else 'answers'}, of equal size, by probability: on the dotted "
        f"line a probability is as often right as it says; below it it is too sure. Bars: 95 % (Wilson, as if rows "
        f"were independent). Mean distance (ECE): {score(ece['value'])}"
        + (f" [{score(ece['low'])}, {score(ece['high'])}]." if ece["low"] is not None else ".")
    )
    return tag("div", tag("figure", chart), tag("p", note, class_="note"), class_="pair")


def _wilson(share: float, n: int) -> tuple[float, float]:
    z = 1.96
    middle, reach = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (middle - reach) / (1 + z * z / n)), min(1.0, (middle + reach) / (1 + z * z / n))


def _confusion(task: Scores) -> Content:
    counts, names = np.asarray(task.scores["confusion"]), task.kind.labels
    if len(names) > MOST_OF_CONFUSION:
        wrong = counts.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:20]
        rows = []
        for true, said in zip(*np.unravel_index(order, wrong.shape), strict=True):
            if n := int(wrong[true, said]):
                share = n / counts[true].sum()
                rows.append(tag("tr", tag("th", names[true], scope="row"), tag("td", names[said]), cell(f"{n:,}"),
                                cell(f"{share:.0%}")))  # fmt: skip
        note = f"Of {len(names)} classes the pairs that are confused most often."
        head = header("true", "taken for", "rows", "of the class", left=("taken for",))
        return [tag("p", note, class_="note"), table([head], [rows], "Confused most often", class_="small")]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [
        tag("tr", tag("th", name, scope="row"),
            [tag("td", f"{n:,}" if n else "·", class_="n heat", style=f"--share:{share:.2f}")
             for n, share in zip(counts[i].tolist(), shares[i].tolist(), strict=True)],
            cell(f"{shares[i, i]:.0%}" if counts[i].sum() else DASH))
        for i, name in enumerate(names)
    ]  # fmt: skip
    head = header("true, below; said →", *names, "right")
    note = "Rows; the darker, the larger the share of the true class."
    return [tag("p", note, class_="note"), table([head], [rows], "Confusion", class_="small")]


def _abstention(answers: Answers) -> Content:
    sure, right = answers.decisions()
    curve = selective_curve(sure, right)
    if curve is None:
        return None
    kept, accuracy = curve.coverage[::-1], curve.accuracy[::-1]
    low = max(0.0, min(accuracy) - 0.05)
    rows = []
    for share in (1.0, 0.9, 0.8, 0.7, 0.5):
        i = min(range(len(curve.coverage)), key=lambda i: (abs(curve.coverage[i] - share), -curve.coverage[i]))
        rows.append(tag("tr", tag("th", f"{curve.coverage[i]:.0%}", scope="row"), cell(f"{curve.confidence[i]:.3f}"),
                        cell(score(curve.accuracy[i]))))  # fmt: skip
    rows = list(dict.fromkeys(rows))
    what = "decisions" if answers.exclusive else "decisions (a label of a row each)"
    name = f"Accuracy of the {what} that are kept, from {accuracy[-1]:.3f} of all to {accuracy[0]:.3f} of the surest"
    chart = plot([Path("", kept, accuracy)], (0, 1), (low, 1.0), ("share that is kept", "accuracy"), name,
                 write=(lambda v: f"{v:.0%}", None))  # fmt: skip
    note = "On the scored rows. mmfuse predict --abstain ACCURACY chooses the confidence on validation rows."
    head = header("kept", "from confidence", "accuracy")
    beside = table([head], [rows], "Abstention", class_="small")
    return [tag("p", note, class_="note"), tag("div", tag("figure", chart), beside, class_="pair")]


def wrongness(task: Scores) -> list[tuple[float, bool, str]]:
    """Of each row how wrong it is (below 0 where right, the lower the surer), whether right, and what was said."""
    answers = Answers(task)
    found = []
    for row, told in enumerate(task.told):
        p, truth, said = answers.probabilities[row], answers.truth[row], answers.said[row]
        known = ~np.isnan(truth)
        right = bool((said[known] == truth[known]).all())
        if answers.exclusive:
            sure = float(p[said > 0][0])
            words = f"said {told['label']} ({sure:.2f}), true {told['target']}"
            found.append((-sure if right else sure, right, words))
            continue
        surprise = float(-np.log(np.where(truth > 0, p, 1 - p)[known].clip(1e-12)).mean())
        words = f"said {', '.join(told['labels']) or 'nothing'}; true {', '.join(_true(told, task)) or 'nothing'}"
        found.append((surprise if not right else surprise - 100, right, words))
    return found


def _true(told: dict[str, Any], task: Scores) -> list[str]:
    true = told["target"]
    said = true.get("labels", true) if isinstance(true, dict) else true
    return [name for name in task.kind.labels if name in said]
