"""Scores of written captions and reports, with intervals that respect groups.

BLEU, ROUGE-L and CIDEr-D are those of the COCO caption scorer (pycocoevalcap), tokens included. Our own code computes
them from what each row adds to them, so that a resample of groups is a weighted sum and reads no caption again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from mmfuse.extras import extra
from mmfuse.metrics.basis import basis_of_rows
from mmfuse.metrics.bootstrap import GroupBootstrap, GroupJackknife, paired_difference
from mmfuse.metrics.captions.chrf import MOST, chrf, chrf_counts
from mmfuse.metrics.captions.cider import MAX_N, Array, Grams, cider_d, ngrams
from mmfuse.metrics.captions.languages import is_english, tokens_of
from mmfuse.metrics.captions.references import as_lists, check_number, without_blank
from mmfuse.metrics.intervals import Basis, score_of
from mmfuse.types import MmfuseError

CAPTION_METRICS = (
    *("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d", "meteor_lite", "chrf"),
    *("distinct1", "distinct2", "length", "reference_length"),
)
RANGES = {"cider_d": (0.0, 10.0), "length": (0.0, math.inf), "reference_length": (0.0, math.inf)}
"""The lowest and highest value of those that are not shares."""


def score_captions(
    candidates: Sequence[str], references: Sequence[Sequence[str]], language: str | None = None
) -> dict[str, float]:
    """Score captions against the references of their images.

    - `bleu1` to `bleu4`: of the corpus, with the length of each row's closest reference, the shorter of two. As in the
      scorer a BLEU without any match is not quite 0.
    - `rouge_l`: mean over rows; beta 1.2, the highest precision and the highest recall are each taken over references.
    - `cider_d`: mean over rows, 0 to 10. The idf is that of these references, so the score depends on which rows are
      scored together: never compare it across subsets. With one row, or where all rows share all their n-grams, it is 0
      even for a perfect caption.
    - `meteor_lite`: mean over rows of the best over references: tokens matched exactly, then by Porter stem (alpha 0.9,
      beta 3, gamma 0.5). Without synonyms, paraphrases and function words it is not comparable to METEOR 1.5.
    - `chrf`: of the corpus, over runs of 1 to 6 characters; beta 2, case counts. It needs no words, so it is fair to
      every language.
    - `distinct1`, `distinct2`: distinct n-grams of all candidates, by their number.
    - `length`, `reference_length`: mean tokens of a candidate, and of a row's references.

    All but `chrf` count tokens; what these are depends on the language (`tokens_of`). Texts are composed first (NFC).

    Reference: Papineni et al. 2002 (BLEU); Lin 2004 (ROUGE-L); Vedantam et al. 2015, arXiv:1411.5726 (CIDEr-D); Lavie
        and Agarwal 2007 (METEOR); Popović 2015 (chrF); Li et al. 2016, arXiv:1510.03055 (distinct-n).
    Differs: BLEU, ROUGE-L and CIDEr-D are pycocoevalcap's, chrF is sacrebleu's, 0 to 1; `meteor_lite` is nltk's METEOR
        without WordNet, which matches from the end of the caption and need not find the fewest chunks, and stems
        English alone.
    Prefer when: captions are compared with references in words. For what a report finds, see `report_labels`.

    Args:
        candidates: One a row; it may be empty.
        references: Those of each row, one or more.
        language: Of the captions, as two letters; default: English.

    Returns:
        Each of `CAPTION_METRICS`.

    Raises:
        MmfuseError: There are no rows, a row has no reference, or the numbers of rows differ; or as `tokens_of`.
    """
    check_number("captions", len(candidates), len(references))
    references = as_lists(references)
    for row, right in enumerate(references):
        if not right:
            raise MmfuseError(f"references of row {row} are empty; leave the row out, or use score_captioning")
    if not candidates:
        raise MmfuseError("nothing to score: there are no captions")
    return _values(_statistics(candidates, references, language))


def score_captioning(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    groups: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
    language: str | None = None,
) -> dict[str, Any]:
    """Score captions as `score_captions` does, with 95 % intervals.

    Blank references are left out, and so are rows without any other. Intervals keep the document frequencies of CIDEr-D
    as they are in all rows. `distinct1` and `distinct2` have none: they fall with the number of rows.

    Reference: `mmfuse.metrics.intervals`.
    Differs: nothing.
    Prefer when: scores are reported. Without resamples it takes no longer than `score_captions`.

    Args:
        candidates: One a row; it may be empty.
        references: Those of each row.
        groups: `(N,)`; rows of one group are no independent ones.
        resamples: 0 for no intervals.
        seed: Of the lot by which groups are left out together, where there are many.
        language: Of the captions, as two letters; default: English.

    Returns:
        `n` rows with references, their `groups`, and `metrics`: for each of `CAPTION_METRICS` a
        `{"value", "low", "high"}`, None where undefined, and a `note` where there is something to say.

    Raises:
        MmfuseError: No row has a reference, or the numbers of rows differ.
    """
    (said,), references, row_groups = _check_rows([candidates], references, groups)
    statistics = _statistics(said, references, language)
    jackknife = GroupJackknife(row_groups, resamples, seed)
    left_out, basis = _replicates(statistics, jackknife), basis_of_rows(jackknife)
    none = Basis(None, "it falls with the number of rows" if jackknife.asked else "")
    metrics = {
        name: score_of(value, left_out.get(name, []), basis if name in left_out else none, RANGES.get(name, (0.0, 1.0)))
        for name, value in _values(statistics).items()
    }
    return {"n": len(references), "groups": jackknife.num_groups, "metrics": metrics}


def rouge_l_rows(candidates: Sequence[str], references: Sequence[Sequence[str]], language: str | None = None) -> Array:
    """`(N,)`: each row's ROUGE-L, as `score_captions` takes the mean of; NaN where all references are blank."""
    rows, split = zip(candidates, without_blank(references), strict=True), tokens_of(language)
    return np.array([_rouge_l(split(c), [split(r) for r in right]) if right else np.nan for c, right in rows])


def compare_captioning(
    candidates_a: Sequence[str],
    candidates_b: Sequence[str],
    references: Sequence[Sequence[str]],
    groups: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
    language: str | None = None,
) -> dict[str, dict[str, float | None]]:
    """Compare two models' captions of the same rows under the same resamples of groups.

    Args:
        candidates_a: The captions of one model.
        candidates_b: Those of the other.
        references: Those of each row; blank ones, and rows without others, are left out.
        groups: `(N,)`; rows of one group are resampled together.
        resamples: Of the groups.
        seed: Of the resampling.
        language: Of the captions, as two letters; default: English.

    Returns:
        For each of `CAPTION_METRICS` but `reference_length`: `value`, `low` and `high` of a - b, and `p`, as
        `paired_difference` gives them; None where undefined (see `score_captioning`).

    Raises:
        MmfuseError: No row has a reference, or the numbers of rows differ.
    """
    said, references, row_groups = _check_rows([candidates_a, candidates_b], references, groups)
    bootstrap = GroupBootstrap(row_groups, resamples, seed)
    a, b = (_statistics(captions, references, language) for captions in said)
    values_a, values_b = _values(a), _values(b)
    drawn_a, drawn_b = _replicates(a, bootstrap), _replicates(b, bootstrap)
    return {
        name: _defined(paired_difference(drawn_a.get(name, []), drawn_b.get(name, []), values_a[name] - values_b[name]))
        for name in CAPTION_METRICS
        if name != "reference_length"
    }


class _Statistics(NamedTuple):
    """What captions are scored from: of each row what is added up, `(N, ...)`; of all, what cannot be."""

    rows: dict[str, Array]
    distinct: dict[str, float]


def _statistics(candidates: Sequence[str], references: Sequence[Sequence[str]], language: str | None) -> _Statistics:
    split = tokens_of(language)
    said = [split(caption) for caption in candidates]
    right = [[split(caption) for caption in captions] for captions in references]
    said_grams = [ngrams(tokens) for tokens in said]
    right_grams = [[ngrams(tokens) for tokens in captions] for captions in right]
    meteor = meteor_lite(language)
    length = np.array([len(tokens) for tokens in said], np.float64)
    pairs = list(zip(said, right, strict=True))
    rows = {
        "rows": np.ones(len(said)),
        "length": length,
        "reference_length": np.array([np.mean([len(tokens) for tokens in captions]) for captions in right]),
        "closest_length": np.array([_closest_length(tokens, captions) for tokens, captions in pairs], np.float64),
        "possible": np.maximum(length[:, None] - np.arange(MAX_N), 0),
        "matches": np.array([_matches(*grams) for grams in zip(said_grams, right_grams, strict=True)], np.float64),
        "rouge_l": np.array([_rouge_l(tokens, captions) for tokens, captions in pairs]),
        "cider_d": cider_d(said_grams, right_grams),
        "meteor_lite": np.array([max(meteor(other, tokens) for other in captions) for tokens, captions in pairs]),
        "chrf": np.array([chrf_counts(*texts).ravel() for texts in zip(candidates, references, strict=True)]),
    }
    return _Statistics(rows, {f"distinct{n}": _distinct(said_grams, n) for n in (1, 2)})


def _of_corpus(sums: Mapping[str, Array]) -> dict[str, Array]:
    """The metrics of any number of corpora, from the sums `(..., *)` over the rows of each."""
    tiny, small = 1e-15, 1e-9  # the scorer's, which show where nothing matches
    precision = (sums["matches"] + tiny) / (sums["possible"] + small)
    ratio = (sums["length"] + tiny) / (sums["closest_length"] + small)
    brevity = np.exp(np.minimum(0, 1 - 1 / ratio))
    bleu = precision.cumprod(axis=-1) ** (1 / np.arange(1, MAX_N + 1)) * brevity[..., None]
    means = ("rouge_l", "cider_d", "meteor_lite", "length", "reference_length")
    return {
        **{f"bleu{n}": bleu[..., n - 1] for n in range(1, MAX_N + 1)},
        **{name: sums[name] / sums["rows"] for name in means},
        "chrf": chrf(sums["chrf"].reshape(*sums["chrf"].shape[:-1], 3, MOST)),
    }


def _values(statistics: _Statistics) -> dict[str, float]:
    found = _of_corpus({name: values.sum(axis=0) for name, values in statistics.rows.items()}) | statistics.distinct
    return {name: float(found[name]) for name in CAPTION_METRICS}


def _replicates(statistics: _Statistics, bootstrap: GroupBootstrap) -> dict[str, Array]:
    """The metrics, without distinct-n, on the rows of each resample: `(B,)` each."""
    by_group = {}
    for name, values in statistics.rows.items():
        by_group[name] = np.zeros((bootstrap.num_groups, *values.shape[1:]))
        np.add.at(by_group[name], bootstrap.row_group, values)
    return bootstrap.replicate(lambda times: _of_corpus({name: times @ sums for name, sums in by_group.items()}))


def _defined(score: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(number) else number for name, number in score.items()}


def _closest_length(tokens: Sequence[str], references: Sequence[Sequence[str]]) -> int:
    return min((len(other) for other in references), key=lambda length: (abs(length - len(tokens)), length))


def _matches(said: Grams, references: Sequence[Grams]) -> list[int]:
    """By n, how many n-grams are in a reference, each as often as in the one that has it most."""
    matches = [0] * MAX_N
    for gram, count in said.items():
        matches[len(gram) - 1] += min(count, max(grams.get(gram, 0) for grams in references))
    return matches


def _rouge_l(said: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    said = said or [""]  # as the scorer splits "": two empty captions agree
    common = [(_common_subsequence(said, other or [""]), len(other) or 1) for other in references]
    precision = max(length for length, _ in common) / len(said)
    recall = max(length / size for length, size in common)
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if precision else 0.0


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence, a bit for each token of a (Hyyrö 2004)."""
    where: dict[str, int] = {}
    for i, token in enumerate(a):
        where[token] = where.get(token, 0) | 1 << i
    every = (1 << len(a)) - 1
    unmatched = every
    for token in b:
        hits = unmatched & where.get(token, 0)
        unmatched = ((unmatched + hits) | (unmatched - hits)) & every
    return len(a) - unmatched.bit_count()


def _distinct(captions: Sequence[Grams], n: int) -> float:
    counts = Counter()
    for grams in captions:
        counts.update({gram: count for gram, count in grams.items() if len(gram) == n})
    return len(counts) / max(counts.total(), 1)


def meteor_lite(language: str | None = None) -> Callable[[Sequence[str], Sequence[str]], float]:
    """METEOR of a reference and a candidate without WordNet: its stand-in knows no synonym of any word.

    Args:
        language: Of the captions; Porter's stems are English, and other words match whole.

    Raises:
        MmfuseError: nltk is not installed.
    """
    with extra("captions", "a captioning task is scored by METEOR of nltk"):  # takes more than a second to import
        from nltk.stem.porter import PorterStemmer
        from nltk.translate.meteor_score import single_meteor_score

    stem = PorterStemmer().stem if is_english(language) else str
    stemmer: Any = SimpleNamespace(stem=lru_cache(maxsize=None)(stem))
    no_synonyms: Any = SimpleNamespace(synsets=lambda word: [])
    return lambda reference, said: single_meteor_score(reference, said, stemmer=stemmer, wordnet=no_synonyms)


def _check_rows(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    groups: Sequence[str],
) -> tuple[list[list[str]], list[list[str]], list[str]]:
    """What is scored of the captions of each model, and the groups: of rows with references."""
    for name, found in [*(("captions", captions) for captions in candidates), ("groups", groups)]:
        check_number(name, len(found), len(references))
    references = without_blank(references)
    used = [row for row, captions in enumerate(references) if captions]
    if not used:
        raise MmfuseError(f"nothing to score: none of the {len(references)} rows has a reference")
    said = [[captions[row] for row in used] for captions in candidates]
    return said, [references[row] for row in used], [groups[row] for row in used]
