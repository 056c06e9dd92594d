"""Vocabularies that are trained on the texts of a run, for a text encoder or a caption decoder from random weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import (
    BertWordPieceTokenizer,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers.processors import BertProcessing
from transformers import PreTrainedTokenizerFast

_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_ALPHABET = 1000
"""Characters that a WordPiece vocabulary knows at least, the most frequent ones; any other makes its word [UNK]."""

_PIECES = r" ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"
"""What BPE merges within: words, numbers, signs. It is GPT-2's pattern without English endings, and with the marks that
are half of the letters of Thai and Hindi."""
_LONGEST = 25
"""Bytes of a BPE token: a space and eight characters of Thai or Chinese, whose sentences would else be tokens."""


def train_vocabulary(kind: str, texts: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer with a vocabulary trained on `texts`; the same texts give the same one.

    - `byte_bpe` merges bytes: `decode(encode(x)) == x` for every text, whatever the training texts hold.
    - `wordpiece` is BERT's: words of lower case, accents and other marks kept, composed (NFC). `wordpiece_cased` keeps
      the case.
    - `wordpiece_stripped` is that of BERT's uncased models, and of mmfuse 0.1: it strips accents, and takes Korean
      apart.

    Reference: Sennrich et al. 2016, arXiv 1508.07909, over bytes as in Radford et al. 2019 (BPE); Schuster and Nakajima
        2012 (WordPiece).

    Args:
        kind: One of `mmfuse.config.VOCABULARIES`.
        texts: What it is trained on.
        vocab_size: Most tokens, special ones, and the 256 bytes of `byte_bpe`, included.
        max_length: Kept with the tokenizer.
    """
    if kind == "byte_bpe":
        return _finished(_train_bytes(texts, vocab_size), max_length, split_special_tokens=True)
    return _finished(_train_wordpiece(kind, texts, vocab_size), max_length)


def _finished(backend: Any, max_length: int, **options: Any) -> PreTrainedTokenizerFast:
    names = {name: backend.token_to_id(name) for name in _SPECIAL.values()}
    backend.post_processor = BertProcessing(("[SEP]", names["[SEP]"]), ("[CLS]", names["[CLS]"]))
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=max_length, **_SPECIAL, **options)


def _train_bytes(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE. A space is put before every text, and taken off again, so that its first word is as any other."""
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    split: Any = pre_tokenizers.Split(Regex(_PIECES), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer: Any = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(_SPECIAL.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=_LONGEST,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_wordpiece(kind: str, texts: Iterable[str], vocab_size: int) -> Any:
    """WordPiece, made deterministic.

    `tokenizers` numbers the `##` characters in the order of a hash map, and breaks ties by these numbers (its issue
    1794), so they are given to it sorted; so is the alphabet.
    """
    texts = list(texts) if isinstance(texts, Iterator) else texts  # gone through twice
    special = list(_SPECIAL.values())
    trained = _wordpiece(kind)
    backend: Any = trained._tokenizer
    normalize = backend.normalizer.normalize_str
    words = Counter(word for text in texts for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalize(text)))
    counts: Counter[str] = Counter()
    for word, n in words.items():
        counts.update(dict.fromkeys(word, n))
    most = _ALPHABET if kind == "wordpiece_stripped" else max(_ALPHABET, vocab_size // 3)  # Korean has 11,172 syllables
    alphabet = sorted(counts, key=lambda c: (-counts[c], c))[:most]
    inner = sorted({f"##{c}" for word in words for c in word[1:]} & {f"##{c}" for c in alphabet})
    trained.train_from_iterator(
        texts,
        vocab_size=vocab_size,
        min_frequency=2,
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        special_tokens=special + inner,
        show_progress=False,
    )
    return _wordpiece(kind, trained.get_vocab())._tokenizer


def _wordpiece(kind: str, vocabulary: dict[str, int] | None = None) -> BertWordPieceTokenizer:
    """BERT's tokenizer, as `kind` says; without `vocabulary` to be trained."""
    if kind == "wordpiece_stripped":
        return BertWordPieceTokenizer(vocab=vocabulary, lowercase=True)
    found = BertWordPieceTokenizer(vocab=vocabulary, lowercase=kind == "wordpiece", strip_accents=False)
    backend: Any = found._tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), backend.normalizer])
    return found
