"""What `training.augmentation.text` does to a text and its tokens."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mmfuse.types import MmfuseError

_WHERE = "training.augmentation.text.synonyms"


def mask_tokens(
    ids: Sequence[int], share: float, mask_id: int, special_ids: Collection[int], rng: np.random.Generator
) -> list[int]:
    """Each token but special ones is replaced by `mask_id` with probability `share`."""
    hit = rng.random(len(ids)) < share
    return [mask_id if masked and i not in special_ids else i for i, masked in zip(ids, hit, strict=True)]


_END = re.compile(
    r"(?<=[.!?])(?<!\b(?:Dr|Mr|Ms|St|vs|cm|mm)\.)(?<!\b(?:Mrs|e\.g|i\.e)\.)(?<!\b[A-Z]\.)\s+|\s*\n\s*\n\s*"
)
"""Where a sentence ends: not behind an initial or a usual abbreviation, and not where a line is merely wrapped."""


def shuffle_sentences(text: str, rng: np.random.Generator) -> str:
    """The text with its sentences in another order; all words stay."""
    sentences = [part for part in _END.split(text) if part]
    return " ".join(sentences[i] for i in rng.permutation(len(sentences)))


class Synonyms:
    """Phrases that mean the same.

    Args:
        groups: Each a list of at least two phrases.
        where: Named in errors.

    Raises:
        MmfuseError: There is no group, one has fewer than two phrases, or a phrase stands twice.
    """

    def __init__(self, groups: Any, where: str):
        self.others: dict[str, list[str]] = {}
        for group in groups if isinstance(groups, list) else []:
            strings = isinstance(group, list) and all(isinstance(p, str) and p.strip() for p in group)
            if not strings or len(group) < 2:
                raise MmfuseError(f"{where}: {group!r}: a list of at least two phrases is expected; quote yes and no")
            for phrase in group:
                name = _plain(phrase)
                if name in self.others:
                    raise MmfuseError(f"{where}: {phrase!r} is listed twice; a phrase belongs to one list")
                self.others[name] = [" ".join(other.split()) for other in group if other is not phrase]
        if not self.others:
            raise MmfuseError(f"{where}: a list of lists of phrases is expected")
        longest_first = sorted(self.others, key=len, reverse=True)
        phrases = "|".join(re.escape(phrase).replace(r"\ ", r"\s+") for phrase in longest_first)
        self.pattern = re.compile(rf"(?<!\w)(?:{phrases})(?!\w)", re.IGNORECASE)

    @classmethod
    def read(cls, path: str) -> Synonyms:
        """Those of a YAML file.

        Raises:
            MmfuseError: No such file, not YAML, or not a list of lists of phrases.
        """
        where = f"{_WHERE}: {path}"
        try:
            return cls(yaml.safe_load(Path(path).read_text(encoding="utf-8")), where)
        except OSError as error:
            raise MmfuseError(f"{where}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise MmfuseError(f"{where}: not YAML in UTF-8: {str(error).splitlines()[0]}") from error

    def exchange(self, text: str, rng: np.random.Generator) -> str:
        """Each phrase that is found as whole words is replaced by another of its list with probability 0.5.

        A capital at its beginning stays one; else the other phrase is written as in the list.
        """

        def other(found: re.Match[str]) -> str:
            choices = self.others[_plain(found[0])]
            keep, choice = rng.random(2)
            if keep < 0.5:
                return found[0]
            phrase = choices[int(choice * len(choices))]
            return phrase[0].upper() + phrase[1:] if found[0][0].isupper() else phrase

        return self.pattern.sub(other, text)


def _plain(phrase: str) -> str:
    return " ".join(phrase.lower().split())
