"""Captions to tokens, as the COCO caption scorer splits them."""

from __future__ import annotations

import re
import unicodedata

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
    Differs: text is composed first (NFC); emoticons, HTML entities, telephone numbers, curly apostrophes inside a
        token, what follows an abbreviation's period ("jan.-r") or "n't" without a space, and signs and scripts outside
        Latin, Greek and Cyrillic come out otherwise. A mixed fraction ("1 1/2") is two tokens: it is one with a
        no-break space there, which the scorer's BLEU and CIDEr-D split and its ROUGE-L does not.
    Prefer when: scores are to compare with published ones.
    """
    text = unicodedata.normalize("NFC", text).translate(_SIGNS).rstrip()
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
