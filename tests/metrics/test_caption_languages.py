"""Scores of captions in other languages than English: what is right scores 1, and sacrebleu says the same."""

import random
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
import sacrebleu
from languages import SENTENCES
from sacrebleu.tokenizers import tokenizer_ja_mecab, tokenizer_ko_mecab

from mmfuse.data.audit.texts import estimate_tokens
from mmfuse.evaluation.evaluate import format_report
from mmfuse.metrics.captions import (
    CAPTION_METRICS,
    begins_unspaced,
    compare_captioning,
    consensus_caption,
    retrieve_captions,
    rouge_l_rows,
    score_captioning,
    score_captions,
    tell_words,
    tokens_of,
)
from mmfuse.tasks.captioning import Captioning
from mmfuse.types import MmfuseError

ONE = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "chrf")
SACREBLEU = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab", "th": "char", "de": "intl", "hi": "intl", "ru": "intl"}


def damaged(sentences, seed=0):
    """Sentences with a part of some of them in another order, and one that is empty."""
    drawn, found = random.Random(seed), []
    for sentence in sentences:
        at = drawn.randrange(len(sentence))
        found.append(drawn.choice([sentence, sentence[at:] + sentence[:at], sentence[:at], sentence + sentence[at:]]))
    return ["", *found[1:]]


@pytest.mark.parametrize("told", [False, True], ids=["language not said", "language said"])
@pytest.mark.parametrize("language", SENTENCES)
def test_what_is_right_scores_one(language, told):
    held_out = SENTENCES[language][1::2]
    if told and language in ("ja", "ko"):
        pytest.importorskip({"ja": "MeCab", "ko": "mecab_ko"}[language])
    scores = score_captions(held_out, [[sentence] for sentence in held_out], language if told else None)
    assert {name: scores[name] for name in ONE} == pytest.approx(dict.fromkeys(ONE, 1.0), abs=1e-9)
    if told:
        assert scores["cider_d"] == pytest.approx(10.0)


@pytest.mark.parametrize("language", [None, "ko"])
def test_composed_or_not_it_is_the_same_text(language):
    """What a vocabulary of mmfuse 0.1 wrote of Korean was decomposed, and scored 0."""
    pytest.importorskip("mecab_ko")
    right = SENTENCES["ko"]
    said = [unicodedata.normalize("NFD", sentence) for sentence in right]
    assert said != right
    scores = score_captions(said, [[sentence] for sentence in right], language)
    assert {name: scores[name] for name in ONE} == pytest.approx(dict.fromkeys(ONE, 1.0), abs=1e-9)


@pytest.mark.parametrize("language", SENTENCES)
def test_chrf_is_sacrebleus(language):
    right = SENTENCES[language]
    said, references = damaged(right), [[a, b] for a, b in zip(right, damaged(right, 1), strict=True)]
    ours = score_captions(said, references)["chrf"]
    columns = [[row[i] for row in references] for i in range(2)]
    assert ours == pytest.approx(sacrebleu.corpus_chrf(said, columns).score / 100, abs=1e-9)
    assert 0.1 < ours < 0.99


@pytest.mark.parametrize("language", SACREBLEU)
def test_bleu_is_sacrebleus(language):
    if language in ("ja", "ko"):
        pytest.importorskip({"ja": "MeCab", "ko": "mecab_ko"}[language])
    right = SENTENCES[language]
    said = damaged(right)
    theirs = sacrebleu.corpus_bleu(said, [right], lowercase=True, tokenize=SACREBLEU[language]).score / 100
    assert score_captions(said, [[sentence] for sentence in right], language)["bleu4"] == pytest.approx(
        theirs, abs=1e-6
    )


def test_every_function_counts_words_of_the_language():
    """Two Chinese captions that differ in one character: by default all or nothing, by characters nearly right."""
    right, said = ["右肺可见一圆形阴影", "左肺可见一圆形阴影"], ["右肺可见一圆形阴影", "右肺可见一圆形阴影"]
    references = [[caption] for caption in right]
    assert rouge_l_rows(said, references).tolist() == [1, 0]
    assert rouge_l_rows(said, references, "zh")[1] > 0.8
    plain, own = (score_captioning(said, references, ["a", "b"], 20, 0, code)["metrics"] for code in (None, "zh"))
    assert plain["rouge_l"]["value"] == 0.5
    assert own["rouge_l"]["value"] > 0.9
    assert plain["chrf"] == own["chrf"]
    assert score_captioning(said, references, ["a", "b"], 0)["metrics"]["chrf"]["value"] == plain["chrf"]["value"]
    difference = compare_captioning(said, right, references, ["a", "b"], 20, 0, "zh")
    assert set(difference) == set(CAPTION_METRICS) - {"reference_length"}
    assert difference["bleu1"]["value"] == pytest.approx(-1 / 18)
    captions = [["甲乙丙丁戊"], ["甲乙丙丁己"], ["庚辛壬癸子"]]
    assert consensus_caption(captions, "zh") == "甲乙丙丁戊"
    three = [["庚辛壬癸子", "甲乙丙丁戊", "甲乙丙丁己"], ["子丑寅卯辰"]]
    keys = np.eye(2)
    assert retrieve_captions(keys[:1], keys, three) == ["庚辛壬癸子"]
    assert retrieve_captions(keys[:1], keys, three, "zh") == ["甲乙丙丁戊"]


def test_stems_are_english_alone():
    said, right = ["the dogs are running"], [["the dog is running"]]
    assert score_captions(said, right, "de")["meteor_lite"] < score_captions(said, right)["meteor_lite"]
    assert score_captions(said, right, "en") == score_captions(said, right)


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("german", "'german' is no code of a language; two letters are expected"),
        ("kr", "did you mean ko"),
        ("False", "did you mean .no.. write it in quotes"),
        ("", "is no code of a language"),
        ("DE", "is no code of a language"),
    ],
)
def test_what_is_no_language(language, words):
    with pytest.raises(MmfuseError, match=words):
        tokens_of(language)


def test_a_region_changes_nothing():
    assert tokens_of("zh-TW")("右肺。") == tokens_of("zh")("右肺。") == ["右", "肺", "。"]


@pytest.mark.parametrize(("language", "module"), [("ja", tokenizer_ja_mecab), ("ko", tokenizer_ko_mecab)])
def test_an_extra_that_is_missing(language, module, monkeypatch):
    monkeypatch.setattr(module, "MeCab", None)
    tokens_of.cache_clear()
    with pytest.raises(MmfuseError, match=rf'split by MeCab: pip install "mmfuse\[{language}\]"'):
        tokens_of(language)


@pytest.mark.parametrize(
    ("language", "said", "words"),
    [
        ("zh", None, "have no spaces between words, and all metrics but chrf"),
        ("ja", None, "have no spaces between words"),
        ("th", None, "have no spaces between words"),
        ("th", "de", "have no spaces between words"),
        ("zh", "zh", "words here are single characters"),
        ("th", "th", "words here are single characters"),
        ("hi", None, "are cut at the marks"),
        ("hi", "hi", None),
        ("ja", "ja", None),
        ("ko", None, None),
        ("de", None, None),
        ("en", None, None),
        ("ar", None, None),
    ],
)
def test_what_is_told_of_words(language, said, words):
    found = tell_words(SENTENCES[language], said)
    assert (found is None) == (words is None)
    assert words is None or words in str(found)


def test_which_letters_need_no_space_before_them():
    assert all(map(begins_unspaced, ("肺", "カ", "ป", "ພ")))
    assert not any(map(begins_unspaced, ("폐", "a", "फ", "", " 肺", "็")))


@pytest.mark.parametrize(
    ("text", "caption", "copied"),
    [
        ("Befund: 右肺可见一圆形阴影，边缘清楚。", "右肺可见一圆形阴影", True),
        ("左肺可见一圆形阴影，边缘清楚。", "右肺可见一圆形阴影", False),
        ("右肺可见，边缘清楚。", "右肺可见", False),  # of four characters anything may hold it
        ("ปอดข้างขวามีเงากลม ไม่พบสิ่งผิดปกติ", "ปอดข้างขวามีเงากลม", True),
        ("ปอดข้างขวามีเงากลม", "ปอดข้างขวามเงากลม", False),  # a mark is a letter
        ("दाएँ फेफड़े में", "दाएँ फेफड़े में", False),  # three words
        ("क दाएँ फेफड़े में गोल धब्बा दिखता है।", "दाएँ फेफड़े में गोल धब्बा", True),
        ("The lungs are clear, no effusion.", "the lungs are clear", True),
        ("Les poumons sont cle\u0301s ici", "poumons sont cl\u00e9s ici", True),
    ],
)
def test_a_caption_that_stands_in_the_text_is_found_in_every_script(text, caption, copied):
    assert Captioning().stated(text, (caption,)) is copied


def test_tokens_of_scripts_without_spaces_are_estimated_by_their_characters():
    assert estimate_tokens("右肺可见一圆形阴影") == 2 + 9
    assert estimate_tokens("CT 右肺") == 2 + 3


@pytest.mark.parametrize(("language", "words"), [(None, "have no spaces"), ("th", "single characters")])
def test_a_report_says_what_its_words_are(language, words):
    kind = Captioning()
    kind.decoder = SimpleNamespace(decode=lambda ids: SENTENCES["th"][ids[0]])
    said = np.zeros(3, dtype=[("ids", np.int32, (1,)), ("target_loss", np.float32), ("target_tokens", np.int32)])
    said["ids"][:, 0], said["target_tokens"] = range(3), 4
    target = np.empty(3, dtype=object)
    target[:] = [(sentence,) for sentence in SENTENCES["th"][:3]]
    scores = kind.score(said, target, ["a", "b", "c"], 0, language=language)
    assert words in scores["words"]
    assert scores["metrics"]["chrf"]["value"] == pytest.approx(1.0)
    assert scores["words"] in format_report({"split": "test", "tasks": {"report": scores}, "missing": {}})
    plain = np.array([None] * 3)
    plain[:] = [(sentence,) for sentence in SENTENCES["en"][:3]]
    assert "words" not in kind.score(said, plain, ["a", "b", "c"], 0)
