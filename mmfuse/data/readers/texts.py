"""Any report file -> str, safely."""

from __future__ import annotations

import codecs
import re
from itertools import pairwise
from pathlib import Path

from mmfuse.data.files.read import read_bytes
from mmfuse.types import MmfuseError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The most common first: where charset-normalizer sees no difference between two, the first is right more often.
LATIN = ("cp1252", "latin_1", "cp1250", "cp1254", "cp1257")
OTHER = (
    *("gb18030", "cp1251", "shift_jis", "euc_kr", "big5", "euc_jp"),
    *("koi8_r", "koi8_u", "cp1253", "cp1256", "cp1255", "cp874"),
)
BINARY = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_HIGH = re.compile(rb"[\x80-\xff]")
_HIGH_RUN = re.compile(rb"[\x80-\xff]{3,}")
_SAMPLE_BYTES = 16_384


class TextError(MmfuseError):
    """A report that cannot be read; the message is the reason, never the report's text or path."""


def read_text(source: str | Path, max_bytes: int = 10_000_000) -> str:
    """Read a report file of any common encoding.

    Args:
        source: A path, or an fsspec URL (contains `://`).
        max_bytes: A larger file is refused before it is read.

    Returns:
        The text as `decode_text` gives it; "" for an empty file, which is a missing modality.

    Raises:
        TextError: The file is missing, unreadable, no regular file, larger than `max_bytes`, or not text.
    """
    try:
        data = read_bytes(source, max_bytes)
    except TextError:
        raise
    except MmfuseError as error:
        raise TextError(str(error)) from error
    return decode_text(data)


def decode_text(data: bytes) -> str:
    r"""Decode the bytes of a report whose encoding is unknown.

    In this order: a byte order mark (UTF-8, UTF-16, UTF-32); strict UTF-8; UTF-16 without a mark where the zero bytes
    leave no doubt; else charset-normalizer's best guess among the legacy encodings of reports. A guess can be wrong in
    a short text: cp1252 (Western European) wins a tie.

    Returns:
        The text with line ends as "\n", stripped at both ends, otherwise untouched.

    Raises:
        TextError: It is binary, or damaged, or in no encoding that is known here.
    """
    text = _decode(data)
    if BINARY.search(text):
        raise TextError("binary, not text")
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _decode(data: bytes) -> str:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                raise TextError(f"damaged {encoding.removesuffix('-sig').upper()} text") from None
    if b"\0" in data:
        return _decode_utf16(data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_legacy(data)


def _decode_utf16(data: bytes) -> str:
    """Decode UTF-16 without a byte order mark, if at least half of its characters are Latin-1: a high byte of zero."""
    for encoding, high in (("utf-16-le", data[1::2]), ("utf-16-be", data[::2])):
        if 4 * high.count(0) >= len(data):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                break
    raise TextError("binary, not text")


def _decode_legacy(data: bytes) -> str:
    if BINARY.search(data.decode("latin_1")):
        raise TextError("binary, not text")
    encoding = guess_legacy(data)
    if encoding is None:
        raise TextError("unknown text encoding: save it as UTF-8")
    return data.decode(encoding)


def guess_legacy(data: bytes) -> str | None:
    """The legacy encoding that bytes most likely have; None where none is known in which they are a text."""
    from charset_normalizer import from_bytes  # only here: most reports are UTF-8

    # Accented letters stand alone between ASCII letters; other scripts come in runs of high bytes. Knowing which of the
    # two it is, the guess is right for a text of three words too.
    in_runs = sum(map(len, _HIGH_RUN.findall(data)))
    candidates = LATIN if 2 * in_runs < len(_HIGH.findall(data)) else OTHER
    guesses = [
        (int(match.chaos * 20), _oddities(str(match)[:_SAMPLE_BYTES]), -match.coherence, candidates.index(encoding))
        for match in from_bytes(_sample(data), cp_isolation=list(candidates))
        for encoding in match.could_be_from_charset  # all that give the same text, for this sample
        if encoding in candidates
    ]
    for guess in sorted(guesses):
        try:
            data.decode(candidates[guess[-1]])
        except UnicodeDecodeError:
            continue
        return candidates[guess[-1]]
    return None


def _oddities(text: str) -> int:
    """Count signs of a wrong guess: capitals after a small letter (Russian), katakana of half width (anything)."""
    humps = sum(a.islower() and b.isupper() for a, b in pairwise(text))
    return humps + sum("\uff61" <= character <= "\uff9f" for character in text)


def _sample(data: bytes) -> bytes:
    """Give the lines that tell encodings apart, as much as a guess needs."""
    lines: list[bytes] = []
    size = 0
    for line in data.splitlines():
        if not line.isascii():
            lines.append(line)
            size += len(line)
        if size > _SAMPLE_BYTES:
            break
    return b"\n".join(lines)
