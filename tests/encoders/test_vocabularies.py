"""Vocabularies that are trained on a run's texts: exact where they must be, and the same for the same texts."""

import hashlib
import json
import unicodedata

import pytest
from languages import SENTENCES

from mmfuse.config import VOCABULARIES
from mmfuse.encoders.vocabularies import train_vocabulary
from mmfuse.untrusted import load_tokenizer

ENGLISH = [sentence for sentence in SENTENCES["en"] if sentence.isascii()]


def written(tokenizer, text):
    return tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)


def pieces(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_there_are_twelve_languages_and_no_sentence_is_in_both_halves():
    assert len(SENTENCES) == 12
    for sentences in SENTENCES.values():
        assert len(sentences) == len(set(sentences)) == 40


@pytest.mark.parametrize("language", SENTENCES)
def test_bytes_write_sentences_exactly_that_they_were_not_trained_on(language, tmp_path):
    learned, held_out = SENTENCES[language][::2], SENTENCES[language][1::2]
    trained = train_vocabulary("byte_bpe", learned, 8000, 64)
    trained.save_pretrained(str(tmp_path / "tokenizer"))
    for tokenizer in (trained, load_tokenizer(tmp_path / "tokenizer")):
        assert [written(tokenizer, sentence) for sentence in held_out] == held_out
    shorter = sum(len(trained(sentence)["input_ids"]) - 2 for sentence in learned)
    assert shorter < 0.8 * sum(len(sentence.encode()) for sentence in learned)  # it has learned something


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        " a",
        "a  b ",
        "x\n\ny\tz",
        "[SEP] is said, [PAD] too",
        "a\u0301 ä \u1112\u1161\u11ab",
        "👩‍⚕️",
        "\u200bم",
        "e\u0301\u0327",
    ],
)
def test_bytes_write_any_text_exactly(text):
    assert written(train_vocabulary("byte_bpe", ENGLISH, 300, 64), text) == text


def test_bytes_merge_within_words_with_their_marks():
    """GPT-2's own pattern would cut a word of Thai or Hindi before each of its marks."""
    for word in ("เล็ก", "फेफड़े"):
        assert len(pieces(train_vocabulary("byte_bpe", [word] * 9, 8000, 64), word)) == 1
    assert len(pieces(train_vocabulary("byte_bpe", ["mild mild"] * 9, 8000, 64), "mild mild")) == 2


def test_a_sentence_without_spaces_is_not_one_token():
    sentence = SENTENCES["th"][4]
    found = pieces(train_vocabulary("byte_bpe", [sentence] * 9, 8000, 64), sentence)
    assert max(map(len, found)) <= 25
    assert len(found) < len(sentence) / 2


def test_the_first_word_has_the_token_that_it_has_elsewhere():
    one, other = pieces(train_vocabulary("byte_bpe", ["mild oedema, mild"] * 9, 8000, 64), "mild mild")
    assert one == other == "Ġmild"


MANY_TIES = ["".join(chr(0x4E00 + (7 * i + j) % 1500) for j in range(30)) for i in range(0, 1500, 4)] + [
    " ".join("".join("abcdefghijkl"[(i * (j + 3) + j * j) % 12] for j in range(2 + i % 5)) for i in range(300))
] * 2


@pytest.mark.parametrize("kind", ["byte_bpe", "wordpiece"])
@pytest.mark.parametrize("vocab_size", [80, 3000])
def test_the_same_texts_train_the_same_vocabulary(kind, vocab_size):
    first, *others = (train_vocabulary(kind, iter(MANY_TIES), vocab_size, 16).get_vocab() for _ in range(4))
    assert [other == first for other in others] == [True] * 3


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_special_tokens(kind):
    tokenizer = train_vocabulary(kind, ENGLISH, 400, 16)
    special = [tokenizer.pad_token, tokenizer.unk_token, tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token]
    assert special == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert [tokenizer.convert_tokens_to_ids(token) for token in special] == [0, 1, 2, 3, 4]
    assert set(tokenizer.all_special_tokens) == set(special)
    first, *_, last = tokenizer("The heart is normal.")["input_ids"]
    assert (first, last) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.unk_token_id not in tokenizer(" ".join(ENGLISH))["input_ids"]
    assert len(tokenizer) <= 400


class TestWordPieces:
    @pytest.mark.parametrize("kind", ["wordpiece", "wordpiece_cased"])
    @pytest.mark.parametrize("language", SENTENCES)
    def test_letters_are_kept(self, kind, language):
        """Spaces around Chinese characters and before signs are BERT's; every letter and mark is there."""
        sentences = SENTENCES[language]
        tokenizer = train_vocabulary(kind, sentences, 8000, 64)
        for sentence in sentences:
            wanted = unicodedata.normalize("NFC", sentence if kind == "wordpiece_cased" else sentence.lower())
            assert "".join(written(tokenizer, sentence).split()) == "".join(wanted.split())

    def test_composed_and_decomposed_texts_are_the_same(self):
        tokenizer = train_vocabulary("wordpiece", SENTENCES["ko"] + SENTENCES["fr"], 8000, 64)
        for sentence in SENTENCES["ko"] + SENTENCES["fr"]:
            assert tokenizer(unicodedata.normalize("NFD", sentence))["input_ids"] == tokenizer(sentence)["input_ids"]

    def test_case_is_the_configs(self):
        texts = ["Der Weg ist weg"] * 5
        assert len({*pieces(train_vocabulary("wordpiece", texts, 400, 16), "Weg weg")}) == 1
        assert len({*pieces(train_vocabulary("wordpiece_cased", texts, 400, 16), "Weg weg")}) == 2

    def test_a_thousand_syllables_are_not_all_of_korean(self):
        syllables = [chr(0xAC00 + 7 * i) for i in range(1500)]
        tokenizer = train_vocabulary("wordpiece", syllables * 2, 8000, 64)
        assert tokenizer.unk_token_id not in tokenizer(" ".join(syllables))["input_ids"]

    def test_the_stripped_one_is_that_of_mmfuse_0_1(self):
        """So that runs of then can be gone on with: the hash was taken of what commit 6448b97 trains."""
        texts = [sentence for language in ("de", "ko", "en") for sentence in SENTENCES[language]]
        tokenizer = train_vocabulary("wordpiece_stripped", texts, 600, 64)
        listed = json.dumps(sorted(tokenizer.get_vocab().items())).encode()
        assert hashlib.sha256(listed).hexdigest()[:16] == "3ad7f79cbed59acd"
        ids = [2, 592, 11, 387, 49, 57, 187, 93, 407, 11, 3]
        assert tokenizer("Größe 우폐에 café")["input_ids"] == ids

    def test_of_plain_english_nothing_has_changed(self):
        now, then = (train_vocabulary(kind, ENGLISH, 400, 16) for kind in ("wordpiece", "wordpiece_stripped"))
        assert now.get_vocab() == then.get_vocab()
        assert now(ENGLISH)["input_ids"] == then(ENGLISH)["input_ids"]
