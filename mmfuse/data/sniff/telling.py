"""Whether a text tells the label: by its name, by a part of it that goes with one label, or by a word."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

from mmfuse.data.audit.near import plain
from mmfuse.tasks.kind import TaskKind

_LEAST = 10
"""Rows with a text and labels: of fewer nothing is concluded, but where their names stand in the texts."""
_MOST = 20_000
_NAMED, _RATIO, _NAMED_ROWS = 0.8, 4.0, 4
"""A text names its labels where so large a share of rows, and so many, have their own, and so much more often than
others."""
_TOLD = 0.97
_PARTS = re.compile(r"\s*(?:>+|/|\||»|:|;|,|\s-\s|=)\s*")
_DIGITS = re.compile(r"[\d_\W]+")
_WORD = re.compile(r"\w+")

Labels = Sequence[Sequence[str] | None]


def tells(texts: Sequence[str], labels: Labels, kind: type[TaskKind]) -> str | None:
    """Why a column of texts tells the target, in words; None where it does not do so by itself.

    What is meant is a text that states the answer, such as a category's path, a title made of the label, or
    `finding=...`. A description from which the label can be concluded is none: the audit measures that.

    Args:
        texts: By row, "" where there is none.
        labels: By row those of the target, None where it is missing; of numbers and captions its text.
        kind: What a target is.
    """
    step = max(1, len(texts) // _MOST)
    chosen = [i for i in range(0, len(texts), step) if texts[i] and labels[i]]
    said, truth = [texts[i] for i in chosen], [tuple(sorted(set(labels[i] or ()))) for i in chosen]
    if not kind.has_labels:
        return _states(said, truth, kind)
    named = _named(said, truth)
    if named or len(said) < _LEAST or not kind.exclusive:
        return named
    one = [label[0] for label in truth]
    for cut, what in _CUTS:
        if _determines([cut(text) for text in said], one):
            return f"{what} goes with one label"
    return _by_word(said, one)


def _states(texts: Sequence[str], truth: Sequence[Sequence[str]], kind: type[TaskKind]) -> str | None:
    """Whether texts hold what is to be written or calculated."""
    if not kind.is_text:
        held = sum(_number_stands(label[0], text) for text, label in zip(texts, truth, strict=True))
        other = sum(_number_stands(label[0], text) for text, label in zip(texts, [*truth[1:], *truth[:1]], strict=True))
    else:
        held = sum(any(plain(one) in plain(text) for one in label) for text, label in zip(texts, truth, strict=True))
        other = 0
    if held >= max(1, 0.2 * len(texts)) and held >= _RATIO * other:
        return f"it holds the answer in {held / len(texts):.0%} of the rows"
    return None


def _number_stands(label: str, text: str) -> bool:
    bare = re.escape(label.removesuffix(".0"))
    return bool(re.search(rf"(?<![\d.,]){bare}(?:\.0+)?(?![\d]|[.,]\d)", text.replace(",", "")))


def _bare(text: str) -> str:
    """Words in lower case without digits and what joins names: `Apple_pie-12.jpg` is `apple pie jpg`."""
    return f" {' '.join(_DIGITS.sub(' ', text.lower()).split())} "


def _named(texts: Sequence[str], truth: Sequence[Sequence[str]]) -> str | None:
    names = {name: form for label in truth for name in label if len(form := _bare(name)) > 4}
    counts = Counter(name for label in truth for name in label if name in names)
    if len(counts) < 2:
        return None
    often = [name for name, _ in counts.most_common(60)]
    own = own_of = other = other_of = 0
    for text, label in zip(texts, truth, strict=True):
        whole, there = f"{_bare(text)}", set(label)
        for name in often:
            stands = names[name] in whole or names[name].replace(" ", "") in whole.split()
            if name in there:
                own, own_of = own + stands, own_of + 1
            else:
                other, other_of = other + stands, other_of + 1
    share, chance = own / max(1, own_of), other / max(1, other_of)
    if own >= _NAMED_ROWS and share >= _NAMED and share >= _RATIO * chance:
        return f"it names the label in {share:.0%} of the rows"
    return None


def _determines(parts: Sequence[str], truth: Sequence[str]) -> bool:
    """Whether equal parts have equal labels: those of the other rows tell a row's own in nearly all rows."""
    together: dict[str, Counter[str]] = defaultdict(Counter)
    for part, label in zip(parts, truth, strict=True):
        together[part][label] += 1
    right = 0
    for part, label in zip(parts, truth, strict=True):
        counts = together[part]
        others = counts[label] - 1, max((n for other, n in counts.items() if other != label), default=0)
        right += others[0] > others[1]
    usual = max(Counter(truth).values()) / len(truth)
    return right >= _TOLD * len(truth) and right / len(truth) > usual + 0.5 * (1 - usual)


def _first_part(text: str) -> str:
    return _PARTS.split(text.strip(" [\"'"))[0].lower()


def _last_part(text: str) -> str:
    return _PARTS.split(text.strip(" ]\"'"))[-1].lower()


def _first_word(text: str) -> str:
    return next(iter(_bare(text).split()), "")


def _last_word(text: str) -> str:
    return next(iter(reversed(_bare(text).split())), "")


_CUTS: tuple[tuple[Callable[[str], str], str], ...] = (
    (lambda text: text, "its value"),
    (lambda text: _bare(text), "its value without digits"),
    (_first_part, "its first part"),
    (_last_part, "its last part"),
    (_first_word, "its first word"),
    (_last_word, "its last word"),
)


def _by_word(texts: Sequence[str], truth: Sequence[str]) -> str | None:
    """Whether each label has a word, or two in a row, that stands in its texts and in no others."""
    counts = Counter(truth)
    usual = [label for label, n in counts.items() if n >= 3]
    if len(usual) < 2 or len(usual) > 200:
        return None
    holds: dict[str, Counter[str]] = defaultdict(Counter)
    for text, label in zip(texts, truth, strict=True):
        words = _WORD.findall(text.lower())[:400]
        for word in {*words, *(f"{a} {b}" for a, b in pairwise(words))}:
            holds[word][label] += 1
    best: dict[str, float] = dict.fromkeys(usual, 0.0)
    for of_label in holds.values():
        label, n = of_label.most_common(1)[0]
        if label in best and n >= 0.98 * of_label.total():
            best[label] = max(best[label], n / counts[label])
    told = sum(counts[label] * share for label, share in best.items())
    least = sorted(best.values())
    # Of two labels one may be without any word of its own: then the other's tells it too.
    if len(usual) == 2 and least[1] >= _TOLD:
        return "a word stands in all texts of one label, and in no others"
    return "each label has a word of its own in its texts" if told >= _TOLD * len(texts) else None
