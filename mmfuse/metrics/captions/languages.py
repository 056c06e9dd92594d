"""What a language takes for a word: tokens of captions by language, and scripts that are written without spaces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any

from mmfuse.extras import extra
from mmfuse.metrics.captions.tokenizer import tokenize_caption
from mmfuse.types import MmfuseError

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana and Han
)
"""Characters of scripts without spaces between words, as they stand within `[]` of a pattern."""

_UNSPACED = re.compile(f"[{UNSPACED}]")
_CODE = re.compile(r"([a-z]{2,3})(?:[-_][A-Za-z0-9]+)*")
_MISTAKEN = {"jp": "ja", "kr": "ko", "cn": "zh"}
_TOKENIZERS = {
    "zh": "zh.TokenizerZh",
    "ja": "ja_mecab.TokenizerJaMecab",
    "ko": "ko_mecab.TokenizerKoMecab",
    **dict.fromkeys(("th", "lo", "km", "my"), "char.TokenizerChar"),
}
_OTHERS = "intl.TokenizerV14International"
_EXTRAS = {"ja": "ja", "ko": "ko"}
_MANY_MARKS = 0.1
"""Of the letters: English and French have none once they are composed, Hindi has one for two letters."""


def is_english(language: str | None) -> bool:
    """Whether captions are split as the COCO scorer does; so are those of which no language is said."""
    return language is None or code_of(language) == "en"


def code_of(language: str) -> str:
    """The language's two or three letters (ISO 639), without what stands behind a hyphen.

    Raises:
        MmfuseError: There are none.
    """
    found = _CODE.fullmatch(language)
    if not found or found[1] in _MISTAKEN:
        meant = f" (did you mean {_MISTAKEN[language[:2]]}?)" if language[:2] in _MISTAKEN else ""
        if language == "False":  # what YAML makes of Norwegian
            meant = " (did you mean 'no'? write it in quotes)"
        raise MmfuseError(
            f"{language!r} is no code of a language{meant}; two letters are expected: en, de, zh, ja, ko, th, ..."
        )
    return found[1]


@lru_cache
def tokens_of(language: str | None) -> Callable[[str], list[str]]:
    """What splits captions of a language into tokens of lower case.

    English, and where no language is said: `tokenize_caption`. Others by sacrebleu: Chinese into single characters
    (`zh`), Japanese and Korean by MeCab (`ja-mecab`, `ko-mecab`), Thai, Lao, Khmer and Burmese into characters
    (`char`), any other one at spaces and signs (`intl`). There signs are tokens too.

    Reference: Post 2018, "A Call for Clarity in Reporting BLEU Scores".

    Raises:
        MmfuseError: There is no such language, or what splits it is not installed.
    """
    if is_english(language):
        return tokenize_caption
    assert language is not None
    code = code_of(language)
    module, name = _TOKENIZERS.get(code, _OTHERS).split(".")
    with extra("captions", f"captions in {language!r} are split by sacrebleu"):
        found = import_module(f"sacrebleu.tokenizers.tokenizer_{module}")
    try:
        split: Any = getattr(found, name)()
    except RuntimeError as error:  # its extra is not installed
        with extra(_EXTRAS.get(code, "captions"), f"captions in {language!r} are split by MeCab"):
            raise ImportError from error
    return lambda text: split(unicodedata.normalize("NFC", text).lower()).split()


def tell_words(texts: Iterable[str], language: str | None) -> str | None:
    """What is to be known of metrics that count words where texts have no spaces between them; or None.

    Args:
        texts: The references.
        language: As it was said.
    """
    together = unicodedata.normalize("NFC", "".join(texts))
    letters = sum(map(str.isalnum, together))
    code = "en" if language is None else code_of(language)
    if 2 * len(_UNSPACED.findall(together)) < letters:
        marks = 0 if together.isascii() else sum(unicodedata.category(c)[0] == "M" for c in together)
        if code != "en" or marks < _MANY_MARKS * letters:
            return None
        return "words of these captions are cut at the marks of their letters: name the task's language in the manifest"
    if code in _EXTRAS:
        return None
    if code in _TOKENIZERS:
        return "words here are single characters: these scores are not to be compared with those over words; see chrf"
    return (
        "these captions have no spaces between words, and all metrics but chrf take what stands between spaces for a "
        "word: read chrf, or name the task's language in the manifest (zh, ja, th, ...)"
    )


class _Words(dict[int, str]):
    """For `str.translate`: letters, marks and digits stay, those of scripts without spaces apart; the rest is space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        stays = character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"
        self[code] = f" {character} " if _UNSPACED.match(character) else character if stays else " "
        return self[code]


_WORDS = _Words()


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without signs; of scripts without spaces its characters."""
    return unicodedata.normalize("NFC", text).lower().translate(_WORDS).split()


def count_words(words: Iterable[str]) -> float:
    """About how many words of English they are: a Chinese or Thai character is half of one."""
    return sum(0.5 if _UNSPACED.match(word) else 1 for word in words)


def begins_unspaced(text: str) -> bool:
    """Whether a text begins with a letter of a script without spaces, which needs none before it."""
    return bool(_UNSPACED.match(text)) and unicodedata.category(text[0])[0] != "M"
