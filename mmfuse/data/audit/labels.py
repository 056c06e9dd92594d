"""What the targets are, how they are spread, and whether the text alone states them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from mmfuse.data.audit.findings import Finding, Severity, finding
from mmfuse.data.audit.near import plain
from mmfuse.data.audit.rows import Rows
from mmfuse.data.tables.leaks import find_copies
from mmfuse.data.tables.splits import SPLITS
from mmfuse.data.tables.table import Table

FEW = 10
IMBALANCE = 10.0
GIVEN_AWAY = 0.95
"""A label counts as stated in the text where the 95 % interval of the text's AUROC lies above this."""
_NAMED_SHARE, _NAMED_RATIO, _NAMED_ROWS = 0.2, 5.0, 5
_PROBE_ROWS, _SCORED_ROWS = 20_000, 4096
_FOLDS = 5
_WORDS = 6
_WORD = r"(?u)\b[^\W\d_]{2,}\b"
_WORD_ROWS = 5


def check_labels(table: Table, rows: Rows) -> tuple[list[str], list[Finding]]:
    """Facts on every task and label, and what is wrong with their numbers."""
    facts, found = [], []
    copies = find_copies(table)
    split = np.array(rows.splits)
    for task, names in table.labels.items():
        spec, target = table.manifest.tasks[task], table.targets[task]
        kind = table.kind(task)
        if not kind.has_labels:
            facts.append(f"task {task} ({spec.type}): {kind.describe(target)}")
            if task in copies:
                found.append(_copied(rows, task, copies[task], spec.allow_copies))
            continue
        known = kind.known(target)
        facts.append(
            f"task {task} ({spec.type}, labels {spec.label_origin}): {int(known.any(1).sum())} rows with a target"
        )
        hot = kind.one_hot(target)
        counts = {s: hot[split == s].sum(0).astype(int) for s in SPLITS if (split == s).any()}
        facts += [
            f"    {name}: " + ", ".join(f"{s} {counts[s][i] if s in counts else 0}" for s in SPLITS)
            for i, name in enumerate(names)
        ]
        found += _numbers(task, names, counts, hot.sum(0))
    return facts, found


def _numbers(task: str, names: Sequence[str], counts: dict[str, np.ndarray], total: np.ndarray) -> list[Finding]:
    """What is wrong with the positives of a task: `counts` by split and label, `total` by label."""
    kinds: dict[tuple[str, Severity], list[str]] = defaultdict(list)
    for i, name in enumerate(names):
        absent = [s for s, n in counts.items() if not n[i]]
        few = [s for s, n in counts.items() if 0 < n[i] < FEW]
        if "train" in absent:
            kinds["labels.never_in_training", "error"].append(repr(name))
        elif absent:
            kinds["labels.absent", "warning"].append(f"{name!r} in {' and '.join(absent)}")
        if few:
            severity = "warning" if "train" in few else "info"
            kinds["labels.few", severity].append(f"{name!r} ({', '.join(f'{counts[s][i]} in {s}' for s in few)})")
    found = []
    for (check, severity), labels in kinds.items():
        message = f"task {task}: {_NUMBERS[check][0]}: {', '.join(labels)}"
        found.append(Finding(check, severity, message, _NUMBERS[check][1], count=len(labels)))
    rare, common = int(np.argmin(total)), int(np.argmax(total))
    if len(names) > 1 and total[common] >= IMBALANCE * max(1, total[rare]):
        share = total[common] / total.sum()
        found.append(
            finding(
                "labels.imbalance",
                "warning",
                f"task {task}: {names[common]!r} has {int(total[common])} positives ({share:.0%} of all), "
                f"{names[rare]!r} has {int(total[rare])}",
                "look at macro scores and at each label's own; accuracy would praise who always says the common one",
            )
        )
    return found


_NUMBERS = {
    "labels.never_in_training": (
        "never in the training split",
        "leave the labels out (values, min_count), or stratify the splits by this task",
    ),
    "labels.absent": (
        "never in a split, so without a score there",
        "stratify the splits by this task, or leave the labels out (values, min_count)",
    ),
    "labels.few": (
        f"fewer than {FEW} positives",
        "their scores say little: use folds, bring more rows, or leave the labels out (min_count)",
    ),
}


def _copied(rows: Rows, task: str, copied: Sequence[int], allowed: bool) -> Finding:
    return finding(
        "captions.in_the_input",
        "warning" if allowed else "error",
        f"task {task}: the input text of {len(copied)} row(s) contains the caption",
        f"take that text out of text.columns; tasks.{task}.allow_copies trains in spite of it",
        rows.names(copied),
    )


def check_stated(table: Table, rows: Rows) -> tuple[list[str], list[Finding]]:
    """Whether the text alone tells the labels: by a probe, and by their names standing in it.

    The probe is a logistic regression on TF-IDF of words and word pairs, fitted on the training split (at most 20,000
    rows) and scored on the others, or over five folds of whole groups where the manifest says folds. A label needs 10
    positives and 10 negatives on both sides.
    """
    texts = [text or "" for text in rows.texts]
    there = np.array([bool(text) for text in texts])
    facts: list[str] = []
    found: list[Finding] = []
    if not there.any():
        return facts, found
    for task, names in table.labels.items():
        spec, kind = table.manifest.tasks[task], table.kind(task)
        if not kind.has_labels:
            continue
        hot = kind.one_hot(table.targets[task]).astype(bool)
        known = np.broadcast_to(kind.known(table.targets[task]), hot.shape) & there[:, None]
        scores = _probe(table, rows, texts, hot, known)
        if scores:
            mean = np.mean([auroc for auroc, _, _ in scores.values()])
            facts.append(
                f"text alone, task {task}: AUROC {mean:.3f} (mean of {len(scores)} label(s) that can be probed)"
            )
        facts += [f"    {names[i]}: AUROC {auroc:.3f} by {', '.join(words)}" for i, (auroc, _, words) in scores.items()]
        told = {i: words for i, (_, low, words) in scores.items() if low > GIVEN_AWAY}
        if told:
            which = "; ".join(f"{names[i]!r} (AUROC {scores[i][0]:.3f}) by {', '.join(told[i])}" for i in told)
            message = f"task {task}: the text alone tells {len(told)} label(s): {which}{_mined(spec.label_origin)}"
            fix = "compare with text_only before praising a fusion; leave out columns that state the answer"
            found.append(Finding("labels.told_by_text", "warning", message, fix, count=len(told)))
        for i, (name, named) in enumerate(zip(names, _named(texts, names).T, strict=True)):
            positive, negative = hot[:, i] & known[:, i], ~hot[:, i] & known[:, i]
            of_positive = np.count_nonzero(named & positive) / max(1, positive.sum())
            of_negative = np.count_nonzero(named & negative) / max(1, negative.sum())
            if (
                np.count_nonzero(named & positive) >= _NAMED_ROWS
                and of_positive >= _NAMED_SHARE
                and of_positive >= _NAMED_RATIO * of_negative
            ):
                found.append(
                    finding(
                        "labels.named_in_text",
                        "warning",
                        f"task {task}: {name!r} stands in the text of {of_positive:.0%} of its rows and "
                        f"{of_negative:.0%} of the others" + _mined(spec.label_origin),
                        "take the sentence or column that states the answer out of the text, or mask the word",
                        rows.names(np.flatnonzero(named & positive)),
                    )
                )
    return facts, found


def _named(texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """`(texts, names)` bool: whether a name stands in a text; case, punctuation and spaces do not count."""
    words = [f" {plain(name)} " for name in names]
    found = np.zeros((len(texts), len(names)), dtype=bool)
    for row, text in enumerate(texts):
        whole = f" {plain(text)} "
        found[row] = [word in whole for word in words]
    return found


def _mined(origin: str) -> str:
    return (
        "; the labels are mined_from_text: the model may learn the rule that mined them"
        if origin == "mined_from_text"
        else ""
    )


def _probe(
    table: Table, rows: Rows, texts: Sequence[str], hot: np.ndarray, known: np.ndarray
) -> dict[int, tuple[float, float, list[str]]]:
    """By number of a label: AUROC, the lower end of its interval, and the words that speak most for it."""
    from sklearn.metrics import roc_auc_score

    usable = np.any(known, axis=1)
    logits = np.full(hot.shape, np.nan)
    weights: dict[int, Counter[str]] = {}
    for fitted, scored in _parts(table, rows, usable):
        for i, (decision, words) in _fit(texts, hot, known, fitted, scored).items():
            logits[scored, i] = decision
            weights.setdefault(i, Counter()).update(words)
    scores = {}
    for i in weights:
        chosen = known[:, i] & ~np.isnan(logits[:, i])
        positive = int(hot[chosen, i].sum())
        if min(positive, chosen.sum() - positive) < FEW:
            continue
        auroc = float(roc_auc_score(hot[chosen, i], logits[chosen, i]))
        error = _standard_error(auroc, positive, int(chosen.sum()) - positive)
        scores[i] = auroc, auroc - 1.96 * error, [word for word, _ in weights[i].most_common(_WORDS)]
    return scores


def _parts(table: Table, rows: Rows, usable: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit on and rows to score."""
    from sklearn.model_selection import GroupKFold

    if table.manifest.splits.folds is None:
        train = np.array([split == "train" for split in rows.splits])
        parts = [(np.flatnonzero(train & usable), np.flatnonzero(~train & usable))]
    else:
        chosen = np.flatnonzero(usable)
        groups = [rows.groups[i] for i in chosen]
        if len(set(groups)) < _FOLDS:
            return []
        folds = GroupKFold(_FOLDS, shuffle=True, random_state=0).split(chosen, groups=groups)
        parts = [(chosen[fitted], chosen[scored]) for fitted, scored in folds]
    rng = np.random.default_rng(0)
    return [(rng.permutation(fitted)[:_PROBE_ROWS], scored) for fitted, scored in parts if len(fitted) and len(scored)]


def _fit(
    texts: Sequence[str], hot: np.ndarray, known: np.ndarray, fitted: np.ndarray, scored: np.ndarray
) -> dict[int, tuple[np.ndarray, dict[str, float]]]:
    """By number of a label that has enough rows: logits of the scored rows, and the weight of each frequent word."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, max_features=50_000, sublinear_tf=True, token_pattern=_WORD
    )
    try:
        read = vectorizer.fit_transform([texts[i] for i in fitted])
    except ValueError:  # no word is in two texts: nothing can be learnt from words
        return {}
    words = vectorizer.get_feature_names_out()
    often = np.flatnonzero((np.asarray((read > 0).sum(axis=0)).ravel() >= _WORD_ROWS) & [" " not in w for w in words])
    models, found = {}, {}
    for i in range(hot.shape[1]):
        usable = known[fitted, i]
        answers = hot[fitted, i][usable]
        if min(answers.sum(), (~answers).sum()) < FEW:
            continue
        model = LogisticRegression(C=10.0, solver="liblinear", random_state=0).fit(read[usable], answers)
        weight = model.coef_[0][often]
        best = [k for k in np.argsort(-weight)[: 3 * _WORDS] if weight[k] > 0]
        models[i] = model
        found[i] = np.zeros(len(scored)), {str(words[often[k]]): float(weight[k]) for k in best}
    for start in range(0, len(scored), _SCORED_ROWS):
        part = slice(start, start + _SCORED_ROWS)
        other = vectorizer.transform([texts[i] for i in scored[part]])
        for i, model in models.items():
            found[i][0][part] = model.decision_function(other)
    return found


def _standard_error(auroc: float, positives: int, negatives: int) -> float:
    """Of an AUROC, after Hanley and McNeil 1982 (Radiology 143:29).

    Theirs is 0 at an AUROC of 1, however few the rows; here half a row of the rarer kind counts as mistaken.
    """
    auroc = min(auroc, 1 - 0.5 / min(positives, negatives))
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc) + (positives - 1) * (q1 - auroc**2) + (negatives - 1) * (q2 - auroc**2)
    return math.sqrt(max(0.0, variance) / (positives * negatives))
