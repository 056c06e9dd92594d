"""Scores of written captions and reports, with intervals that respect groups, and two captions that need no decoder.

BLEU, ROUGE-L and CIDEr-D are those of the COCO caption scorer (pycocoevalcap), tokens included. Our own code computes
them from what each row adds to them, so that a resample of groups is a weighted sum and reads no caption again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, permutations
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from mmfuse.evaluation.metrics import GroupBootstrap, interval, paired_difference
from mmfuse.extras import extra
from mmfuse.types import MmfuseError

CAPTION_METRICS = (
    *("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d", "meteor_lite"),
    *("distinct1", "distinct2", "length", "reference_length"),
)
MAX_N = 4
"""BLEU and CIDEr-D count n-grams of 1 to 4 tokens."""
CHUNK = 1024
"""Queries whose cosines with all keys are in memory at once."""

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Grams = Counter[tuple[str, ...]]

_DROPPED = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
) | {'"', "---", "----"}
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_COMPOUNDS = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "gimme": ("gim", "me"),
    "lemme": ("lem", "me"),
}
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("‘’", "'"),
        **dict.fromkeys("“”«»", '"'),
        **dict.fromkeys("–—", " -- "),
        "½": " 1/2 ",
        "¼": " 1/4 ",
        "¾": " 3/4 ",
        "²": " ² ",
        "³": " ³ ",
        "…": " ... ",
        "€": " $ ",
        "£": " # ",
        "\N{SOFT HYPHEN}": None,
    }
)
_ABBREVIATIONS = (
    r"al|ala|alex|apr|assn|assoc|asst|aug|ave|bldg|blvd|brig|bros|capt|cf|cmdr|co|col|corp|cpl|ct|dec|dept|det|dr|ed\.d|"
    r"esq|est|etc|ext|feb|ft|ga|gen|gov|hon|inc|ind|insp|intl|jan|jr|jul|jun|kan|ky|lieut|lt|ltd|maj|mar|md|messrs|mfg|"
    r"mo|mon|mont|mr|mrs|ms|msgr|mt|mtg|natl|nov|oct|penn|pfc|ph|ph\.d|plc|pres|prof|pvt|rd|rep|reps|rev|rt|sen|sens|"
    r"sep|sept|sgt|sq|sr|st|ste|supt|tel|treas|univ|va|vs|vt|wed|wm"
)
_STATES = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
_OPENERS = (
    "A|About|According|Additionally|After|An|As|At|But|Earlier|He|Her|Here|However|If|In|It|Last|Many|More|Now|Once|One|"
    "Other|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|What|When|While|Yet|You"
)
_WORD = r"[^\W\d_][^\W_]*(?:[.!?][^\W\d_][^\W_]*)*"
_HYPHENATED = r"(?:[DLOdlo]'(?=[^\W\d_]{2}))?[^\W_]+(?:[-_][^\W_]+)*"
_PART = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_PLAIN = re.compile(r"\s*([A-Za-z]+)(?=\s|$)")
_PATTERNS = [
    re.compile(pattern)
    for pattern in (
        rf"({_WORD})",  # limits.No
        rf"({_HYPHENATED})",  # x-ray, T8-T9, O'Brien
        rf"((?:{_WORD}|{_HYPHENATED}|[0-9]+)\.)[,;:]",  # approx.,
        r"([A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:(?:[A-Za-z]\.){2,}|[A-Za-z0-9]+))+)",  # U.S.-based, 1.5-cm
        rf"({_PART}(?:\\?/{_PART}){{1,2}})",  # AP/lateral, w/o, 12/31/2010
        r"([0-9]{1,4}[- \xa0][0-9]{1,4}/[0-9]{1,4})",  # 1-1/2, 1 1/2
        r"([-+]?(?:[0-9]*(?:[.:,][0-9]+)+|[0-9]+))",  # 1.5, 1,000, -3, 10:30
        r"((?:[A-Za-z]\.)+)",  # U.S., a.m., R. of "R. lung"
        rf"([A-Za-z])\.\s+(?:(?:{_OPENERS})(?:\s|$)|<[A-Za-z])",  # A of "grade A. The heart"
        rf"((?i:{_ABBREVIATIONS})\.|(?:{_STATES}|{_STATES.upper()})\.)",  # Dr.
        r"((?i:art|ca|figs?|nos?|op|pp|prop)\.) ?[0-9]",  # No. of "No. 5"
        r"([A-Z]+(?:[+&][A-Z]+)+|[Cc]\+\+|[CF]#)",  # R&D
        r"((?i:[a-z]*[a-mo-z]))(?i:n't)",  # is of "isn't"
        r"((?i:n't)|(?i:'(?:[smd]|ll|ve|re))(?![A-Za-z]))",  # n't, 's
        r"((?i:'t))(?i:is|was)",  # 't of "'tis"
        r"((?i:'(?:em|til|cause)\b|'n'|'n\b|ma'am|c'mon|hallowe'en)|'[0-9]0[Ss]|'[0-9]{2}(?=\s|$))",
        r"([DLYdly]')[A-Za-z]",  # y' of "y'all"
        r"(#[A-Za-z]+|@\w+|[A-Za-z0-9][\w.-]*@\w[\w.-]*\w|https?://[^\s<>\"]*[^\s<>\".,;:!?)])",
        r"(</?[A-Za-z][^<>\s]*>)",  # <unk>
        r"([?!]{2,}|-{2,}|\*+|_+|#+)",
    )
]
"""A token is what the first group has of the pattern that reaches furthest, the first of equal ones."""


def tokenize_caption(text: str) -> list[str]:
    """Split a text into lower-case tokens without punctuation, as the COCO caption scorer does.

    That is Stanford's PTBTokenizer (CoreNLP 3.4.1, `-preserveLines -lowerCase`) on a line with this text, whatever the
    next line is, less a list of punctuation. The scorer's list has brackets in upper case, so `-lrb-` and its like stay
    tokens there and here; `!!`, `%`, `/` and `&` stay, too. An abbreviation keeps its period ("st. mary", "no. 5").

    Reference: Marcus et al. 1993, "Building a Large Annotated Corpus of English: The Penn Treebank".
    Differs: emoticons, HTML entities, telephone numbers, curly apostrophes inside a token, what follows an
        abbreviation's period ("jan.-r") or "n't" without a space, and signs and scripts outside Latin, Greek and
        Cyrillic come out otherwise. A mixed fraction ("1 1/2") is two tokens: it is one with a no-break space there,
        which the scorer's BLEU and CIDEr-D split and its ROUGE-L does not.
    Prefer when: scores are to compare with published ones.
    """
    text = text.translate(_SIGNS).rstrip()
    tokens: list[str] = []
    start = 0
    while start < len(text):
        plain = _PLAIN.match(text, start)
        if plain:
            token, start = plain[1], plain.end()
        elif text[start].isspace():
            start += 1
            continue
        else:
            token, known = _next_token(text, start)
            start += len(token)
            if not known:
                continue
        token = token.lower()
        tokens += _COMPOUNDS.get(token) or _BRACKETS.get(token, token).split()
    return [token for token in tokens if token not in _DROPPED]


def _next_token(text: str, start: int) -> tuple[str, bool]:
    """The token there, and whether the tokenizer knows such a character; what it does not know it leaves out."""
    found = [match for pattern in _PATTERNS if (match := pattern.match(text, start))]
    if found:
        return max(found, key=lambda match: match.end())[1], True
    character = text[start]
    return character, character.isprintable() and character <= "\uffff" and character != "\N{REPLACEMENT CHARACTER}"


def score_captions(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Score captions against the references of their images.

    - `bleu1` to `bleu4`: of the corpus, with the length of each row's closest reference, the shorter of two. As in the
      scorer a BLEU without any match is not quite 0.
    - `rouge_l`: mean over rows; beta 1.2, the highest precision and the highest recall are each taken over references.
    - `cider_d`: mean over rows, 0 to 10. The idf is that of these references, so the score depends on which rows are
      scored together: never compare it across subsets. With one row, or where all rows share all their n-grams, it is 0
      even for a perfect caption.
    - `meteor_lite`: mean over rows of the best over references: tokens matched exactly, then by Porter stem (alpha 0.9,
      beta 3, gamma 0.5). Without synonyms, paraphrases and function words it is not comparable to METEOR 1.5.
    - `distinct1`, `distinct2`: distinct n-grams of all candidates, by their number.
    - `length`, `reference_length`: mean tokens of a candidate, and of a row's references.

    Reference: Papineni et al. 2002 (BLEU); Lin 2004 (ROUGE-L); Vedantam et al. 2015, arXiv:1411.5726 (CIDEr-D); Lavie
        and Agarwal 2007 (METEOR); Li et al. 2016, arXiv:1510.03055 (distinct-n).
    Differs: BLEU, ROUGE-L and CIDEr-D are pycocoevalcap's; `meteor_lite` is nltk's METEOR without WordNet, which
        matches from the end of the caption and need not find the fewest chunks.
    Prefer when: captions are compared with references in words. For what a report finds, see `report_labels`.

    Args:
        candidates: One a row; it may be empty.
        references: Those of each row, one or more.

    Returns:
        Each of `CAPTION_METRICS`.

    Raises:
        MmfuseError: There are no rows, a row has no reference, or the numbers of rows differ.
    """
    _check_number("captions", len(candidates), len(references))
    references = _as_lists(references)
    for row, right in enumerate(references):
        if not right:
            raise MmfuseError(f"references of row {row} are empty; leave the row out, or use score_captioning")
    if not candidates:
        raise MmfuseError("nothing to score: there are no captions")
    return _values(_statistics(candidates, references))


def score_captioning(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    groups: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score captions as `score_captions` does, with 95 % intervals.

    Blank references are left out, and so are rows without any other. Intervals keep the document frequencies of CIDEr-D
    as they are in all rows. `distinct1` and `distinct2` have none: a resample repeats rows, and a repeated row is never
    distinct.

    Reference: Field and Welsh 2007, "Bootstrapping clustered data", for intervals.
    Differs: nothing; intervals are percentiles.
    Prefer when: scores are reported. Without resamples it takes no longer than `score_captions`.

    Args:
        candidates: One a row; it may be empty.
        references: Those of each row.
        groups: `(N,)`; rows of one group are resampled together.
        resamples: Of the groups; 0 for no intervals.
        seed: Of the resampling.

    Returns:
        `n` rows with references, their `groups`, and `metrics`: for each of `CAPTION_METRICS` a
        `{"value", "low", "high"}`, None where undefined. One group has no spread, so no interval.

    Raises:
        MmfuseError: No row has a reference, or the numbers of rows differ.
    """
    (said,), references, bootstrap = _check_rows([candidates], references, groups, resamples, seed)
    statistics = _statistics(said, references)
    replicates = _replicates(statistics, bootstrap)
    metrics = {}
    for name, value in _values(statistics).items():
        low, high = interval(replicates.get(name, []))
        metrics[name] = _defined({"value": value, "low": low, "high": high})
    return {"n": len(references), "groups": bootstrap.num_groups, "metrics": metrics}


def compare_captioning(
    candidates_a: Sequence[str],
    candidates_b: Sequence[str],
    references: Sequence[Sequence[str]],
    groups: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """Compare two models' captions of the same rows under the same resamples of groups.

    Args:
        candidates_a: The captions of one model.
        candidates_b: Those of the other.
        references: Those of each row; blank ones, and rows without others, are left out.
        groups: `(N,)`; rows of one group are resampled together.
        resamples: Of the groups.
        seed: Of the resampling.

    Returns:
        For each of `CAPTION_METRICS` but `reference_length`: `value`, `low` and `high` of a - b, and `p`, as
        `paired_difference` gives them; None where undefined (see `score_captioning`).

    Raises:
        MmfuseError: No row has a reference, or the numbers of rows differ.
    """
    said, references, bootstrap = _check_rows([candidates_a, candidates_b], references, groups, resamples, seed)
    a, b = (_statistics(captions, references) for captions in said)
    values_a, values_b = _values(a), _values(b)
    drawn_a, drawn_b = _replicates(a, bootstrap), _replicates(b, bootstrap)
    return {
        name: _defined(paired_difference(drawn_a.get(name, []), drawn_b.get(name, []), values_a[name] - values_b[name]))
        for name in CAPTION_METRICS
        if name != "reference_length"
    }


def consensus_caption(train_references: Sequence[Sequence[str]]) -> str:
    """Find the training caption that agrees best with all training images: what to write without looking.

    That is the one with the highest mean over images of CIDEr-D, its own image among them; the first of equal ones, and
    so the first caption of all if there is one image only. Exact, in time linear in the number of tokens: see
    `_CiderVectors` for how a clipped count becomes a product; as the rest of a score depends on a reference's length
    alone, references of one length are added up before anything is multiplied.

    Args:
        train_references: Those of each image; blank ones, and images without others, are left out.

    Raises:
        MmfuseError: There is no caption.
    """
    images = [captions for captions in _without_blank(train_references) if captions]
    captions = list(chain.from_iterable(images))
    if not captions:
        raise MmfuseError("no consensus: there is no training caption")
    grams = [[_ngrams(tokenize_caption(caption)) for caption in captions] for captions in images]
    vectors = _CiderVectors.of(list(chain.from_iterable(grams)), grams)
    sizes = np.array([len(captions) for captions in images])
    shares = np.repeat(1 / sizes, sizes)
    lengths, length = np.unique(vectors.bigrams, return_inverse=True)
    added = csr_array((shares, (length, np.arange(len(captions))))) @ vectors.weight  # (lengths, columns)
    products = csr_array(vectors.clip @ added.T).toarray()
    agreement = products * _length_penalty(vectors.bigrams[:, None] - lengths)
    return captions[int(agreement.sum(axis=1).argmax())]


def retrieve_captions(queries: ArrayLike, keys: ArrayLike, key_references: Sequence[Sequence[str]]) -> list[str]:
    """Write for each query a caption of the key nearest by cosine (the first of equally near ones).

    Of that key's references it is their own consensus: the one with the highest mean CIDEr-D to the others (idf of all
    keys), the first of equal ones. An annotator's odd caption is thus seldom chosen.

    Args:
        queries: `(Q, D)`, finite.
        keys: `(K, D)`, finite.
        key_references: The K keys' references; blank ones, and keys without others, are left out.

    Returns:
        Q captions.

    Raises:
        MmfuseError: Shapes do not match, a number is not finite, or no key has a reference.
    """
    queries, keys = _unit_length(queries, "queries"), _unit_length(keys, "keys")
    if queries.shape[1] != keys.shape[1]:
        raise MmfuseError(f"queries are {queries.shape} and keys {keys.shape}; both must have the same width")
    _check_number("keys", len(keys), len(key_references))
    key_references = _without_blank(key_references)
    used = [key for key, captions in enumerate(key_references) if captions]
    if not used:
        raise MmfuseError("nothing to retrieve: no key has a reference")
    keys = keys[used]
    chunks = (queries[start : start + CHUNK] for start in range(0, len(queries), CHUNK))
    nearest = [(chunk @ keys.T).argmax(axis=1) for chunk in chunks]
    own = _own_consensus([key_references[key] for key in used])
    return [own[key] for key in chain.from_iterable(nearest)]


def _own_consensus(references: list[list[str]]) -> list[str]:
    """Of each image's references the one most like the others."""
    sizes = np.array([len(captions) for captions in references])
    if sizes.max() == 1:
        return [captions[0] for captions in references]
    grams = [[_ngrams(tokenize_caption(caption)) for caption in captions] for captions in references]
    vectors = _CiderVectors.of(list(chain.from_iterable(grams)), grams)
    starts = sizes.cumsum() - sizes
    pairs = [
        (start + i, start + j)
        for start, size in zip(starts, sizes, strict=True)
        for i, j in permutations(range(size), 2)
    ]
    one, other = np.array(pairs).T
    agreement = np.bincount(one, vectors.scores(one, other), minlength=sizes.sum())
    own = np.split(agreement, starts[1:])
    return [captions[int(scores.argmax())] for captions, scores in zip(references, own, strict=True)]


def _unit_length(vectors: ArrayLike, name: str) -> Array:
    found = np.asarray(vectors, np.float64)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise MmfuseError(f"{name} are {found.shape}; they must be (rows, width), all finite")
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float64).tiny)


class _Statistics(NamedTuple):
    """What captions are scored from: of each row what is added up, `(N,)` or `(N, 4)`; of all, what cannot be."""

    rows: dict[str, Array]
    distinct: dict[str, float]


def _statistics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> _Statistics:
    said = [tokenize_caption(caption) for caption in candidates]
    right = [[tokenize_caption(caption) for caption in captions] for captions in references]
    said_grams = [_ngrams(tokens) for tokens in said]
    right_grams = [[_ngrams(tokens) for tokens in captions] for captions in right]
    meteor = meteor_lite()
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
        "cider_d": _cider_d(said_grams, right_grams),
        "meteor_lite": np.array([max(meteor(other, tokens) for other in captions) for tokens, captions in pairs]),
    }
    return _Statistics(rows, {f"distinct{n}": _distinct(said_grams, n) for n in (1, 2)})


def _of_corpus(sums: Mapping[str, Array]) -> dict[str, Array]:
    """The metrics of any number of corpora, from the sums `(...)` or `(..., 4)` over the rows of each."""
    tiny, small = 1e-15, 1e-9  # the scorer's, which show where nothing matches
    precision = (sums["matches"] + tiny) / (sums["possible"] + small)
    ratio = (sums["length"] + tiny) / (sums["closest_length"] + small)
    brevity = np.exp(np.minimum(0, 1 - 1 / ratio))
    bleu = precision.cumprod(axis=-1) ** (1 / np.arange(1, MAX_N + 1)) * brevity[..., None]
    means = ("rouge_l", "cider_d", "meteor_lite", "length", "reference_length")
    return {
        **{f"bleu{n}": bleu[..., n - 1] for n in range(1, MAX_N + 1)},
        **{name: sums[name] / sums["rows"] for name in means},
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


def _ngrams(tokens: Sequence[str]) -> Grams:
    runs = (zip(*(tokens[i:] for i in range(n)), strict=False) for n in range(1, MAX_N + 1))
    return Counter(chain.from_iterable(runs))


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


def meteor_lite() -> Callable[[Sequence[str], Sequence[str]], float]:
    """METEOR of a reference and a candidate without WordNet: its stand-in knows no synonym of any word.

    Raises:
        MmfuseError: nltk is not installed.
    """
    with extra("captions", "a captioning task is scored by METEOR of nltk"):  # takes more than a second to import
        from nltk.stem.porter import PorterStemmer
        from nltk.translate.meteor_score import single_meteor_score

    stemmer: Any = SimpleNamespace(stem=lru_cache(maxsize=None)(PorterStemmer().stem))
    no_synonyms: Any = SimpleNamespace(synsets=lambda word: [])
    return lambda reference, said: single_meteor_score(reference, said, stemmer=stemmer, wordnet=no_synonyms)


def _cider_d(candidates: Sequence[Grams], references: Sequence[Sequence[Grams]]) -> Array:
    """CIDEr-D of each row, `(N,)`."""
    right = list(chain.from_iterable(references))
    vectors = _CiderVectors.of([*candidates, *right], references)
    sizes = np.array([len(captions) for captions in references])
    row = np.repeat(np.arange(len(sizes)), sizes)
    scores = vectors.scores(row, len(sizes) + np.arange(len(right)))
    return np.bincount(row, scores, minlength=len(sizes)) / sizes


class _CiderVectors(NamedTuple):
    """Captions as the candidates (`clip`) and the references (`weight`) of CIDEr-D, `(captions, columns)`.

    Its clipped products sum min(a, b) b idf^2 over n-grams said a times by the candidate and b times by the reference:
    no dot product of counts. But min(a, b) is the number of k up to a and b. So n-gram g has a column (g, k) for each
    k; the candidate has 1 in those up to a, the reference b idf^2 in those up to b, and their dot product is the sum.
    Both are divided by the norm of their n-grams' vector, and `bigrams (captions,)` are the lengths that count.
    """

    clip: csr_array
    weight: csr_array
    bigrams: Array

    @classmethod
    def of(cls, captions: Sequence[Grams], images: Sequence[Sequence[Grams]]) -> _CiderVectors:
        """Of any captions, with the document frequencies of the images' references."""
        frequency = Counter(chain.from_iterable(set().union(*references) for references in images))
        numbers: dict[tuple[tuple[str, ...], int], int] = {}
        entries = [
            (row, numbers.setdefault((gram, k), len(numbers)), len(gram) - 1, count, frequency[gram])
            for row, grams in enumerate(captions)
            for gram, count in grams.items()
            for k in range(count)
        ]
        rows, columns, order, counts, documents = np.array(entries, dtype=np.int64).reshape(-1, 5).T
        weights = counts * (np.log(len(images)) - np.log(np.maximum(documents, 1))) ** 2
        norms = np.sqrt(np.bincount(rows * MAX_N + order, weights, minlength=len(captions) * MAX_N))  # b times b idf^2
        scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)[rows * MAX_N + order]
        bigrams = np.bincount(rows, order == 1, minlength=len(captions)).astype(np.float64)
        clip, weight = (
            csr_array((values, (rows, columns)), shape=(len(captions), len(numbers)))
            for values in (scale, weights * scale)
        )
        return cls(clip, weight, bigrams)

    def scores(self, candidates: Ints, references: Ints) -> Array:
        """CIDEr-D of each pair of a candidate and a reference, by their numbers `(P,)`."""
        products = self.clip[candidates].multiply(self.weight[references]).sum(axis=1)
        return 10 / MAX_N * products * _length_penalty(self.bigrams[candidates] - self.bigrams[references])


def _length_penalty(difference: Array) -> Array:
    return np.exp(-(difference**2) / (2 * 6**2))


def _as_lists(references: Sequence[Sequence[str]]) -> list[list[str]]:
    for row, captions in enumerate(references):
        if isinstance(captions, str):
            raise MmfuseError(f"references of row {row} are a string, {captions[:40]!r}; they must be a list of them")
    return [list(captions) for captions in references]


def _without_blank(references: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[caption for caption in captions if caption.strip()] for captions in _as_lists(references)]


def _check_number(name: str, number: int, rows: int) -> None:
    if number != rows:
        raise MmfuseError(f"there are {number} {name}, but references of {rows} rows")


def _check_rows(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    groups: Sequence[str],
    resamples: int,
    seed: int,
) -> tuple[list[list[str]], list[list[str]], GroupBootstrap]:
    """What is scored of the captions of each model: rows with references."""
    for name, found in [*(("captions", captions) for captions in candidates), ("groups", groups)]:
        _check_number(name, len(found), len(references))
    references = _without_blank(references)
    used = [row for row, captions in enumerate(references) if captions]
    if not used:
        raise MmfuseError(f"nothing to score: none of the {len(references)} rows has a reference")
    bootstrap = GroupBootstrap([groups[row] for row in used], resamples, seed)
    return [[captions[row] for row in used] for captions in candidates], [references[row] for row in used], bootstrap
