import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pycocoevalcap
import pytest
from child_processes import HANG
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

from mmfuse.metrics.basis import basis_of_rows
from mmfuse.metrics.bootstrap import GroupBootstrap, GroupJackknife
from mmfuse.metrics.captions import (
    CAPTION_METRICS,
    baselines,
    compare_captioning,
    consensus_caption,
    retrieve_captions,
    score_captioning,
    score_captions,
    tokenize_caption,
)
from mmfuse.metrics.captions.cider import CiderVectors, ngrams
from mmfuse.metrics.intervals import score_of
from mmfuse.types import MmfuseError

COCO = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d")
JAR = Path(next(iter(pycocoevalcap.__path__)), "tokenizer", "stanford-corenlp-3.4.1.jar")

AS_THE_JAR = {
    "A tri-colored dog isn't running , it's jumping .": "a tri-colored dog is n't running it 's jumping",
    'A man in a "Rangers" jersey ; he cannot skate !': "a man in a rangers jersey he can not skate",
    "Two girls' hats and the boy's T-shirt: don't, won't, he'd, I'm, they've, we'll.": (
        "two girls hats and the boy 's t-shirt do n't wo n't he 'd i 'm they 've we 'll"
    ),
    "1.5 cm nodule (unchanged) in the left-sided lung.": ("1.5 cm nodule -lrb- unchanged -rrb- in the left-sided lung"),
    "AP/lateral views w/o effusion, s/p CABG and/or PICC.": "ap/lateral views w/o effusion s/p cabg and/or picc",
    "St. Mary vs. Dr. Smith's Jan. 5 exam, approx., No. 5, fig. 2; no. There is no.": (
        "st. mary vs. dr. smith 's jan. 5 exam approx. no. 5 fig. 2 no there is no"
    ),
    "No pneumothorax.Heart size normal... Stable?! XXXX-year-old -- really!!": (
        "no pneumothorax.heart size normal stable ?! xxxx-year-old really !!"
    ),
    "T8-T9, C5/6, L5-S1. SpO2 98.6% at 37°C, 1,000 mL, 10:30 a.m., 12/31/2010, 3-4 x 2.5x1.5cm": (
        "t8-t9 c5/6 l5-s1 spo2 98.6 % at 37 ° c 1,000 ml 10:30 a.m. 12/31/2010 3-4 x 2.5 x1 .5 cm"
    ),
    "R. lung clear. Grade A. The heart. Grade a. lung. U.S.-based J. Smith, Ph.D., e.g. R&D in the U.S. today": (
        "r. lung clear grade a the heart grade a. lung u.s.-based j. smith ph.d. e.g. r&d in the u.s. today"
    ),
    "[bracket] {curly} <unk> <5 mm >3 #1 50% + = & * ~ @ ___ a_b": (
        "-lsb- bracket -rsb- -lcb- curly -rcb- <unk> < 5 mm > 3 # 1 50 % + = & * ~ @ ___ a_b"
    ),
    "'single' ``tex'' “curly” ‘quotes’ it’s — – … ½ 1 1/2 1-1/2 cm² €5 £3 é": (
        "single tex curly quotes it 's 1/2 1 1/2 1-1/2 cm ² $ 5 # 3 é"
    ),
    "O'Brien at 5 o'clock in the '90s, 1990's rock 'n' roll, y'all 'tis gonna gimme": (
        "o'brien at 5 o'clock in the '90s 1990 's rock 'n' roll y' all 't is gon na gim me"
    ),
    "Wash. the Ark. x-ray., wash. it 5. x (5) -3 +5 3-mm 1.5-cm 5/1.5": (
        "wash. the ark. x-ray. wash it 5 x -lrb- 5 -rrb- -3 +5 3-mm 1.5-cm 5/1 .5"
    ),
    "see https://a.org/x?y=1. mail a.b@c.org @user #tag 1 😀 two 5 12/31/2010": (
        "see https://a.org/x?y=1 mail a.b@c.org @user #tag 1 two 5 12/31 / 2010"
    ),
    "jan. feb. sun. sat. mon. cm. pt. yr. al. est. mo.": "jan. feb. sun sat mon. cm pt yr al. est. mo.",
    "Grade B. The": "grade b the",
    "Grade B. Theory": "grade b. theory",
    "he said : - yes , ; ok": "he said yes ok",
    "": "",
    " . ": "",
}

ROWS = {
    "five references, and one": (
        ["a dog runs on the grass", "two men play soccer in a green field"],
        [
            ["a brown dog runs on grass", "the dog is running", "a dog", "dogs run on the grass", "grass"],
            ["two men play football in a field"],
        ],
    ),
    "an empty candidate": (["", "a red ball"], [["a dog", "a cat sits"], ["a red ball on a table", "the ball"]]),
    "no candidate says anything": (["", "."], [["a dog"], ["a cat"]]),
    "an empty reference": (["a dog", ""], [["", "a dog runs"], ["a cat", "."]]),
    "shorter than four": (["dog", "a cat"], [["dog"], ["a cat", "cat"]]),
    "words said again and again": (
        ["the the the the the", "a a dog a a dog a a dog", "red"],
        [["the cat the dog", "a the"], ["a dog a dog and a dog", "a dog"], ["red red red red"]],
    ),
    "nothing in common": (["xx yy zz ww", "vv uu"], [["a dog runs fast"], ["a cat"]]),
    "equally close lengths": (["a b c d"], [["a b c", "a b c d e", "x"]]),
    "one image": (["a dog runs on the grass"], [["a dog runs on the grass", "the dog"]]),
    "reports": (
        ["Heart size is normal. The lungs are clear.", "There is a 1.5 cm nodule (unchanged). No effusion."],
        [["Heart size within normal limits. Lungs are clear."], ["A 1.5 cm nodule is unchanged. No pleural effusion."]],
    ),
}

words = st.sampled_from(["a", "the", "dog", "dogs", "runs", "running", "red", "it's", ".", ",", "1.5", "(x)", "on"])
sentences = st.lists(words, max_size=12).map(" ".join)
corpora = st.lists(st.tuples(sentences, st.lists(sentences, min_size=1, max_size=4)), min_size=1, max_size=7)

NOUNS, VERBS, PLACES = ["dog", "cat", "man", "girl", "bird"], ["runs", "sits", "plays"], ["grass", "snow", "street"]


def written(seed=0, rows=40):
    """Captions with much in common, of one to four references; several rows a group."""
    rng = np.random.default_rng(seed)

    def caption():
        parts = (rng.choice(x) for x in (["a", "the", "a small"], NOUNS, VERBS, ["on", "in"], ["the", "a"], PLACES))
        return " ".join([*parts, *rng.choice(["with", "a", "red", "ball", "a"], rng.integers(0, 5))])

    references = [[caption() for _ in range(rng.integers(1, 5))] for _ in range(rows)]
    return [caption() for _ in range(rows)], references, rng.integers(0, rows // 3, rows).astype(str).tolist()


def joined(caption):
    return " ".join(tokenize_caption(caption))


def official(candidates, references):
    """BLEU, ROUGE-L and CIDEr-D by pycocoevalcap, and the CIDEr-D of each row."""
    right = {row: [joined(caption) for caption in captions] for row, captions in enumerate(references)}
    said = {row: [joined(caption)] for row, caption in enumerate(candidates)}
    bleu, _ = Bleu(4).compute_score(right, said, verbose=0)
    rouge, _ = Rouge().compute_score(right, said)
    # Its assertion on document frequencies fails where no reference has any token; there is nothing to agree in then.
    cider, by_row = Cider().compute_score(right, said) if any(map(any, right.values())) else (0.0, np.zeros(len(said)))
    return dict(zip(COCO, [*bleu, rouge, cider], strict=True)), by_row


def assert_official(candidates, references):
    ours, (theirs, _) = score_captions(candidates, references), official(candidates, references)
    for name in COCO:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-6), name


def by_the_jar(texts):
    """The tokens Stanford's tokenizer gives, less the scorer's punctuation; each text for itself."""
    lines = "\n".join(line for text in texts for line in (text.replace("\n", " "), "x"))  # a line can show in the next
    java = ["java", "-Dfile.encoding=UTF-8", "-cp", str(JAR), "edu.stanford.nlp.process.PTBTokenizer"]
    done = subprocess.run(
        [*java, "-preserveLines", "-lowerCase"], input=lines.encode(), capture_output=True, check=True, timeout=HANG
    )
    found = done.stdout.decode().split("\n")[0 : 2 * len(texts) : 2]
    return [[token for token in line.split() if token not in PUNCTUATIONS] for line in found]


needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed")


@pytest.mark.parametrize(("text", "tokens"), AS_THE_JAR.items())
def test_tokens_are_those_the_jar_gave(text, tokens):
    assert tokenize_caption(text) == tokens.split()


@needs_java
def test_tokens_are_those_the_jar_gives():
    rng = np.random.default_rng(0)
    pool = " ".join(AS_THE_JAR).split()
    mixed = [" ".join(rng.choice(pool, 12)) for _ in range(300)]
    texts = [*AS_THE_JAR, *mixed]
    theirs = by_the_jar(texts)
    assert [tokenize_caption(text) for text in texts] == theirs
    assert theirs[: len(AS_THE_JAR)] == [tokens.split() for tokens in AS_THE_JAR.values()]


@needs_java
@pytest.mark.parametrize("name", ["flickr8k_1000", "covid_cxr"])
def test_tokens_of_real_captions_and_reports_are_those_the_jar_gives(test_data, name):
    texts = pd.read_csv(test_data / "data" / name / "data.csv")["text"].dropna().unique().tolist()
    assert [tokenize_caption(text) for text in texts] == by_the_jar(texts)


def test_tokens_of_one_line_do_not_depend_on_white_space():
    assert tokenize_caption("\n A \t dog\u00a0runs \r\n") == ["a", "dog", "runs"]


@pytest.mark.parametrize("name", ROWS)
def test_scores_are_the_coco_scorers(name):
    assert_official(*ROWS[name])


@pytest.mark.heavy
@settings(max_examples=150, deadline=None)
@given(corpora)
def test_scores_of_any_captions_are_the_coco_scorers(rows):
    candidates, references = zip(*rows, strict=True)
    assert_official(candidates, references)


def test_scores_of_many_captions_are_the_coco_scorers():
    candidates, references, _ = written(rows=200)
    scores = score_captions(candidates, references)
    assert_official(candidates, references)
    assert 0.1 < scores["bleu4"] < 0.9
    assert 0.5 < scores["cider_d"] < 9


def test_a_perfect_caption():
    _, references, _ = written()
    scores = score_captions([captions[0] for captions in references], references)
    assert scores["bleu4"] == pytest.approx(1)
    assert scores["rouge_l"] == pytest.approx(1)
    alone = score_captions([captions[0] for captions in references], [captions[:1] for captions in references])
    assert alone["cider_d"] == pytest.approx(10)


def test_cider_d_of_one_image_is_zero_even_for_a_perfect_caption():
    assert score_captions(["a dog runs on grass"], [["a dog runs on grass"]])["cider_d"] == 0


@pytest.mark.parametrize(
    ("candidate", "references", "expected"),
    [
        # dogs-dog and run-runs by stem: P = 2/3, R = 2/4, F = PR / (.9 P + .1 R), one chunk of two matches
        ("the dogs run", ["a dog runs fast"], (1 / 3) / (0.9 * 2 / 3 + 0.1 * 1 / 2) * (1 - 0.5 * (1 / 2) ** 3)),
        # the better of two
        ("the dogs run", ["no match", "the dogs run"], 1 - 0.5 * (1 / 3) ** 3),
        # red and ball in two chunks: P = R = 2/2, or rather F = 1
        ("ball red", ["red ball"], 1 - 0.5 * (2 / 2) ** 3),
        ("a car", ["one automobile"], 0),  # a synonym is no match
        ("", ["a dog"], 0),
        ("a dog", [""], 0),
    ],
)
def test_meteor_lite_by_hand(candidate, references, expected):
    assert score_captions([candidate], [references])["meteor_lite"] == pytest.approx(expected)


def test_distinct_n_and_lengths_by_hand():
    scores = score_captions(["a dog runs .", "a dog sits", ""], [["a b", "a b c d"], ["a"], ["a b c d e"]])
    assert scores["distinct1"] == pytest.approx(4 / 6)  # a, dog, runs, sits
    assert scores["distinct2"] == pytest.approx(3 / 4)  # a dog, dog runs, dog sits
    assert scores["length"] == pytest.approx(2)
    assert scores["reference_length"] == pytest.approx((3 + 1 + 5) / 3)
    nothing = score_captions([""], [["a dog"]])
    assert (nothing["distinct1"], nothing["distinct2"], nothing["length"]) == (0, 0, 0)


def test_blank_references_and_rows_without_others_are_left_out():
    candidates, references, groups = written()
    kept = [row for row in range(40) if row not in (3, 7)]
    references[3], references[7] = [], [" ", ""]
    references[9] = ["a dog sits", "the dog"]
    expected = score_captions([candidates[row] for row in kept], [references[row] for row in kept])
    references[9] = ["a dog sits", " ", "the dog", ""]
    result = score_captioning(candidates, references, groups, resamples=0)
    assert tuple(result["metrics"]) == tuple(expected) == CAPTION_METRICS
    for name, score in result["metrics"].items():
        assert score == {"value": pytest.approx(expected[name]), "low": None, "high": None}
    assert result["n"] == 38
    assert result["groups"] == len({groups[row] for row in kept})
    json.dumps(result, allow_nan=False)


def replicates(candidates, references, bootstrap):
    """Each metric on the rows of each resample, read anew; CIDEr-D with the document frequencies of all rows."""
    _, cider = official(candidates, references)
    found = []
    for replicate in range(bootstrap.resamples):
        times = bootstrap.multiplicities(replicate, replicate + 1)[0].astype(int)
        rows = np.repeat(np.arange(len(candidates)), times[bootstrap.row_group])
        scores = score_captions([candidates[row] for row in rows], [references[row] for row in rows])
        found.append({**scores, "cider_d": cider[rows].mean()})
    return found


def test_intervals_are_those_of_rows_without_each_group():
    candidates, references, groups = written()
    result = score_captioning(candidates, references, groups)
    jackknife = GroupJackknife(groups)
    left_out = replicates(candidates, references, jackknife)
    assert len(left_out) == jackknife.num_groups == result["groups"]
    for name in CAPTION_METRICS:
        score = result["metrics"][name]
        if name.startswith("distinct"):
            assert (score["low"], score["note"]) == (None, "it falls with the number of rows")
            continue
        bounds = (0, math.inf) if "length" in name else (0, 10 if name == "cider_d" else 1)
        expected = score_of(score["value"], [scores[name] for scores in left_out], basis_of_rows(jackknife), bounds)
        assert score == pytest.approx(expected), name
        assert score["low"] < score["value"] < score["high"]


def test_one_group_has_no_interval():
    candidates, references, _ = written()
    result = score_captioning(candidates, references, ["g"] * 40, resamples=50)
    assert result["groups"] == 1
    assert all(score["low"] is None and score["value"] is not None for score in result["metrics"].values())
    differences = compare_captioning(candidates, candidates, references, ["g"] * 40, resamples=50)
    assert differences["bleu4"] == {"value": 0, "low": None, "high": None, "p": None}


@pytest.mark.heavy
def test_differences_are_paired():
    a, references, groups = written()
    b = written(seed=1)[0]
    references[5] = []
    kept = [row for row in range(40) if row != 5]
    differences = compare_captioning(a, b, references, groups, resamples=30)
    a, b, right, chosen = (np.array(x, dtype=object)[kept].tolist() for x in (a, b, references, groups))
    drawn_a, drawn_b = (replicates(of, right, GroupBootstrap(chosen, 30)) for of in (a, b))
    value_a, value_b = score_captions(a, right), score_captions(b, right)
    assert set(differences) == set(CAPTION_METRICS) - {"reference_length"}
    for name, score in differences.items():
        assert score["value"] == pytest.approx(value_a[name] - value_b[name])
        if name.startswith("distinct"):
            assert (score["low"], score["high"], score["p"]) == (None, None, None)
            continue
        drawn = [x[name] - y[name] for x, y in zip(drawn_a, drawn_b, strict=True)]
        assert (score["low"], score["high"]) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    json.dumps(differences, allow_nan=False)


def test_a_model_differs_in_nothing_from_itself():
    candidates, references, groups = written()
    same = compare_captioning(candidates, candidates, references, groups, resamples=20)["cider_d"]
    assert same == {"value": 0, "low": 0, "high": 0, "p": 1}


def best_by_the_scorer(options, images):
    """The mean over images of the CIDEr-D of each option written for every image, by pycocoevalcap."""
    right = {row: [joined(caption) for caption in captions] for row, captions in enumerate(images)}
    return [Cider().compute_score(right, {row: [joined(option)] for row in right})[0] for option in options]


def of_any_length(seed, rows=10):
    """Images with references of 4 to 24 words each, so that the penalty for length decides."""
    rng = np.random.default_rng(seed)
    pool = ["a", "the", "dog", "red", "ball", "runs", "on", "snow"]
    return [[" ".join(rng.choice(pool, rng.integers(4, 25))) for _ in range(rng.integers(1, 4))] for _ in range(rows)]


@pytest.mark.parametrize("images", [written(0)[1][:12], written(1)[1][:12], of_any_length(0), of_any_length(1)])
def test_consensus_is_the_caption_with_the_highest_mean_cider_d(images):
    options = [caption for captions in images for caption in captions]
    means = best_by_the_scorer(options, images)
    assert means[options.index(consensus_caption(images))] == pytest.approx(max(means))


def test_consensus_clips_counts_and_weighs_images_alike():
    chant = "red ball red ball red ball red ball red ball"
    images = [["a red ball", "the red ball lies here"], [chant], ["a blue cup", "the cup", "a cup", "cup", "a cup"]]
    options = [caption for captions in images for caption in captions]
    means = best_by_the_scorer(options, images)
    assert consensus_caption(images) == options[int(np.argmax(means))]
    vectors = CiderVectors.of(
        [ngrams(tokenize_caption(option)) for option in options],
        [[ngrams(tokenize_caption(option)) for option in row] for row in images],
    )
    every = np.arange(len(options))
    ours = [
        np.mean([np.mean(vectors.scores(np.full(len(own), i), own)) for own in (every[:2], every[2:3], every[3:])])
        for i in every
    ]
    assert ours == pytest.approx(means)


def test_consensus_leaves_out_images_without_captions():
    _, images, _ = written(rows=12)
    assert consensus_caption([[], *images, [""]]) == consensus_caption(images)
    assert consensus_caption([["", "one dog", "two dogs"]]) == "one dog"


def test_retrieval_takes_the_nearest_by_cosine():
    keys = np.array([[10.0, 1.0], [0.1, 0.1], [0.0, 5.0], [3.0, -3.0]])
    queries = np.array([[1.0, 1.1], [5.0, 0.4], [-0.1, 9.0], [0.5, -0.7]])
    references = [["first"], [" ", "second"], ["third"], [" "]]
    assert retrieve_captions(queries, keys, references) == ["second", "first", "third", "first"]
    assert retrieve_captions(queries[:0], keys, references) == []


def test_retrieval_in_chunks_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(50, 4)), rng.normal(size=(40, 4))
    _, references, _ = written()
    at_once = retrieve_captions(queries, keys, references)
    monkeypatch.setattr(baselines, "CHUNK", 7)
    assert retrieve_captions(queries, keys, references) == at_once
    assert len(set(at_once)) > 10


@pytest.mark.heavy
def test_retrieval_writes_the_keys_own_consensus():
    _, references, _ = written(rows=30)
    chosen = retrieve_captions(np.eye(30), np.eye(30), references)
    right = {row: [joined(caption) for caption in captions] for row, captions in enumerate(references)}
    for row, own in enumerate(references):
        # written for its image, a caption adds 10 with itself: the order of the means is that of those to the others
        scores = [Cider().compute_score(right, {**right_but(right), row: [joined(option)]})[1][row] for option in own]
        assert scores[own.index(chosen[row])] == pytest.approx(max(scores))
    assert any(caption != own[0] for caption, own in zip(chosen, references, strict=True))


def right_but(right):
    return {row: options[:1] for row, options in right.items()}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: score_captions(["a"], [["a"], ["b"]]), "1 captions, but references of 2 rows"),
        (lambda: score_captions([], []), "nothing to score"),
        (lambda: score_captions(["a", "b"], [["a"], []]), "references of row 1 are empty"),
        (lambda: score_captions(["a"], ["a dog"]), "references of row 0 are a string, 'a dog'"),
        (lambda: score_captioning(["a"], [["a"]], ["g", "h"]), "2 groups, but references of 1 rows"),
        (lambda: score_captioning(["a"], [[" "]], ["g"]), "none of the 1 rows has a reference"),
        (lambda: compare_captioning(["a"], [], [["a"]], ["g"]), "0 captions, but references of 1 rows"),
        (lambda: consensus_caption([[], [" "]]), "no training caption"),
        (lambda: consensus_caption(["a dog"]), "are a string"),
        (lambda: retrieve_captions([[1.0]], [[1.0]], [[]]), "no key has a reference"),
        (lambda: retrieve_captions([[1.0]], [[1.0]], []), "1 keys, but references of 0 rows"),
        (lambda: retrieve_captions([[1.0, 2.0]], [[1.0]], [["a"]]), "the same width"),
        (lambda: retrieve_captions([[np.nan]], [[1.0]], [["a"]]), "queries are .* all finite"),
        (lambda: retrieve_captions([[1.0]], [1.0], [["a"]]), "keys are .* all finite"),
    ],
)
def test_what_cannot_be_scored_is_said_in_a_line(call, message):
    with pytest.raises(MmfuseError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
