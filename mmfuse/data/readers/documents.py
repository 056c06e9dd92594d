"""Any report file -> its text: plain, XML, HTML, JSON, RTF or a DICOM structured report, told apart by content."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError
from xml.parsers.expat import ErrorString

from mmfuse.data.files.read import read_bytes
from mmfuse.data.readers.kinds import HEAD, format_of
from mmfuse.data.readers.quiet import quiet
from mmfuse.data.readers.texts import BINARY, LATIN, OTHER, TextError, decode_text
from mmfuse.extras import extra
from mmfuse.sections import section_of
from mmfuse.types import MmfuseError

_MAX_BYTES = 10_000_000
_MAX_DEPTH = 100
_MAX_FONTS, _MAX_FONT = 200_000, 1000
"""Characters of an RTF's font table, and of one font in it: striprtf's search in it takes the square of the latter."""

_INLINE = {
    "a",
    "abbr",
    "b",
    "big",
    "center",
    "cite",
    "code",
    "content",
    "del",
    "em",
    "font",
    "i",
    "ins",
    "kbd",
    "label",
}
_INLINE |= {"mark", "q", "s", "small", "span", "strike", "strong", "sub", "sup", "tt", "u", "var", "wbr"}
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "pre"}
_HTML = _INLINE | _PARAGRAPHS | {"html", "head", "body", "div", "br", "hr", "meta", "style", "script", "title"}
_HIDDEN = {"script", "style", "title", "template", "noscript"}
_REPORT = {"abstracttext", "structuredbody"}

_HTML_TAG = re.compile(r"<(/?)([A-Za-z][\w.:-]*+)[^<>]*+>")
_DECLARATION = re.compile(r"<[!?][^<>]*+>")
_FIRST_TAG = re.compile(r"<(?:[\w.-]{1,100}:)?([A-Za-z_][\w.-]{0,100})(?:\s[^<>]*)?(/?)>")
_IS_HTML = re.compile(r"<(?:!doctype\s+)?html\b", re.IGNORECASE)
_IS_JSON = re.compile(r'\{\s*["}]|\[\s*[\[{"]')
_CHARSET = re.compile(rb"""(?:encoding|charset)\s*=\s*["']?([A-Za-z0-9_-]{1,30})""")
_CODE_PAGE = re.compile(rb"\\ansicpg([0-9]{3,5})")

_STRUCTURED_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def read_report(source: str | Path, max_bytes: int = _MAX_BYTES) -> str:
    """Read a report file of any kind.

    Args:
        source: A path, or an fsspec URL (contains `://`).
        max_bytes: A larger file is refused before it is read.

    Returns:
        The text as `decode_report` gives it; "" for an empty file, which is a missing modality.

    Raises:
        TextError: The file is missing, unreadable, no regular file, larger than `max_bytes`, damaged, or no report.
    """
    try:
        data = read_bytes(source, max_bytes)
    except MmfuseError as error:
        raise TextError(str(error)) from error
    return decode_report(data)


def decode_report(data: bytes) -> str:
    r"""Take the text out of a report's bytes; how they begin tells what they are.

    - DICOM (`DICM` at byte 128): a structured report's content tree (DICOM PS3.3, C.17.3): headings, texts, codes and
      numbers, each behind the name of its concept. Nothing of the patient module, no persons' names, no dates.
    - RTF (`{\rtf`): its text.
    - HTML: what is seen, a block a line.
    - XML: the text of its elements, a block a line; behind `FINDINGS: ` where the element's name or its `Label` is that
      of a section. Where there are `AbstractText` (Open-I, PubMed) or `structuredBody` (HL7 CDA) elements, only they
      are read. Entities of a document's own are refused.
    - JSON: a string; or the string `report` of an object, else `text`, else its sections as `FINDINGS: ...` lines.
    - Anything else is plain text, see `decode_text`.

    Returns:
        The text with line ends as "\n", stripped at both ends.

    Raises:
        TextError: It is damaged, too deep, or no report; the message quotes nothing of it.
    """
    form, _ = format_of(data[:HEAD]) or (None, None)
    if data[128:132] == b"DICM":
        text = _from_dicom(data)
    elif form not in (None, "DICOM"):
        raise TextError(f"binary, not text: {form}")
    elif data.lstrip().startswith(rb"{\rtf"):
        text = _from_rtf(data)
    else:
        text = _from_text(_decode(data))
    # RTF and JSON may hold halves of UTF-16: a pair of them is a character, one alone becomes a replacement character.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if BINARY.search(text):
        raise TextError("binary, not text")
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _decode(data: bytes) -> str:
    """Decode text, by the encoding that markup names where it is not UTF-8 and the name is one we know."""
    named = _CHARSET.search(data[:1000]) if data.lstrip().startswith(b"<") else None
    encoding = named[1].decode().lower().replace("-", "_") if named else ""
    encoding = {"iso_8859_1": "cp1252", "windows_" + encoding[-4:]: f"cp{encoding[-4:]}"}.get(encoding, encoding)
    if encoding in LATIN + OTHER:
        try:
            data.decode()
        except UnicodeDecodeError:
            try:
                return data.decode(encoding).strip()
            except UnicodeDecodeError:
                raise TextError(f"damaged {encoding} text") from None
    return decode_text(data)


def _from_text(text: str) -> str:
    if text.startswith("<"):
        first = _FIRST_TAG.match(text)
        is_fragment = first is not None and (bool(first[2]) or "</" in text)  # "<5 mm nodule" is none
        if _IS_HTML.search(text, 0, 1000) or (first and is_fragment and first[1].lower() in _HTML):
            return _from_html(text)
        if is_fragment or text.startswith(("<?xml", "<!DOCTYPE")):
            return _from_xml(text)
    if _IS_JSON.match(text):
        return _from_json(text)
    if text.startswith('"') and text.endswith('"'):
        try:
            return json.loads(text)
        except ValueError:  # a report that begins and ends with a quotation
            return text
    return text


class _Lines:
    """Puts pieces of text together to lines."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.breaks = 2  # line breaks since the last text; at the beginning, no more are needed

    def add(self, text: str) -> None:
        text = text if not self.breaks else text.lstrip()
        if text:
            self.pieces.append(text)
            self.breaks = 0

    def end(self, breaks: int = 1) -> None:
        """End the line, with 2 the paragraph too, if that is not done already."""
        self.pieces.append("\n" * (breaks - self.breaks))
        self.breaks = max(breaks, self.breaks)

    def text(self) -> str:
        return "\n".join(" ".join(line.split()) for line in "".join(self.pieces).split("\n"))


def _from_html(text: str) -> str:
    """What is seen of HTML.

    Not by html.parser: on unclosed markup it takes the square of its length in older releases of Python 3.11 to 3.13
    (CVE-2025-6069).
    """
    lines, hidden, position = _Lines(), "", 0
    text = _DECLARATION.sub(" ", _without_comments(text))
    for tag in _HTML_TAG.finditer(text):
        if not hidden:
            lines.add(re.sub(r"\s+", " ", html.unescape(text[position : tag.start()])))
        position, name = tag.end(), tag[2].lower()
        if hidden:
            hidden = "" if tag[1] and name == hidden else hidden
        elif name in _HIDDEN and not tag[1]:
            hidden = name
        elif name == "br":
            lines.end(lines.breaks + 1)
        elif name in ("td", "th"):
            lines.add(" ")
        elif name not in _INLINE:
            lines.end(2 if name in _PARAGRAPHS else 1)
    if hidden:
        raise TextError(f"damaged HTML: <{hidden}> is not closed")
    lines.add(re.sub(r"\s+", " ", html.unescape(text[position:])))
    return lines.text()


def _without_comments(text: str) -> str:
    pieces, position = [], 0
    while (start := text.find("<!--", position)) >= 0:
        pieces.append(text[position:start])
        end = text.find("-->", start + 4)
        if end < 0:
            raise TextError("damaged HTML: a comment is not closed")
        position = end + 3
    return "".join([*pieces, text[position:]])


class _XmlText:
    """Takes what an XML parser finds; the text of the whole document, and that of the elements in `_REPORT`."""

    def __init__(self) -> None:
        self.whole, self.report = _Lines(), _Lines()
        self.depth = 0
        self.report_depth = 0  # of the element in `_REPORT` that is open
        self.waiting: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._flush()
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise TextError(f"XML nested deeper than {_MAX_DEPTH} elements")
        name = _local(tag)
        if name.lower() in _REPORT and not self.report_depth:
            self.report_depth = self.depth
        self._break(name)
        label = attributes.get("Label") or attributes.get("label") or name
        if section_of(label):
            self._add(_heading(label))

    def data(self, text: str) -> None:
        self.waiting.append(text)

    def end(self, tag: str) -> None:
        self._flush()
        self._break(_local(tag))
        self.depth -= 1
        if self.depth < self.report_depth:
            self.report_depth = 0

    def close(self) -> str:
        found = self.report.text()
        return found if found.strip() else self.whole.text()

    def _add(self, text: str) -> None:
        for lines in (self.whole, self.report) if self.report_depth else (self.whole,):
            lines.add(text)

    def _break(self, name: str) -> None:
        if name.lower() not in _INLINE:
            self.whole.end()
            self.report.end()

    def _flush(self) -> None:
        text = "".join(self.waiting)
        self.waiting.clear()
        self._add(text if text.strip() else text and " ")


def _local(tag: str) -> str:
    """An element's name without its namespace."""
    return tag.rpartition("}")[2].rpartition(":")[2]


def _heading(name: str) -> str:
    """`clinicalHistory` to `CLINICAL HISTORY: `."""
    return f"{re.sub('(?<=[a-z])(?=[A-Z])|_', ' ', name).strip(' :').upper()}: "


def _from_xml(text: str) -> str:
    with extra("documents", "an XML file", TextError):
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import DefusedXMLParser
    parser: Any = DefusedXMLParser(target=_XmlText())
    try:
        parser.feed(text)
        return parser.close()
    except ParseError as error:  # its own words may hold the name of an entity
        raise TextError(f"damaged XML: {ErrorString(error.code)}, line {error.position[0]}") from None
    except DefusedXmlException:
        raise TextError("XML that declares entities, which are not read") from None


def _from_json(text: str) -> str:
    try:
        found: Any = json.loads(text, object_pairs_hook=tuple)  # so that a key may stand there twice
    except RecursionError:
        raise TextError("JSON nested too deep") from None
    except ValueError:
        raise TextError("damaged JSON") from None
    pairs = [(str(key), value) for key, value in found if value is not None] if isinstance(found, tuple) else []
    for wanted in ("report", "text"):
        whole = [value for key, value in pairs if key.lower() == wanted]
        if whole:
            return _string(whole[0], wanted)
    sections = [(key, section_of(key), value) for key, value in pairs]
    lines = [_heading(key) + _string(value, name) for key, name, value in sections if name]
    if not lines:
        raise TextError(
            "JSON without a report: a string, or an object with the key report or text, or with sections such as "
            "findings, is expected"
        )
    return "\n".join(lines)


def _string(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise TextError(f"JSON: {key}: a string is expected")
    return value


def _from_rtf(data: bytes) -> str:
    with extra("documents", "an RTF file", TextError):
        from striprtf.striprtf import font_table_group, rtf_to_text
    page = _CODE_PAGE.search(data[:1000])
    try:
        text = data.decode()
    except UnicodeDecodeError:
        try:
            text = data.decode(f"cp{page[1].decode()}" if page else "cp1252")
        except (UnicodeDecodeError, LookupError):
            raise TextError("damaged RTF: bytes that are none of its code page") from None
    text = text.replace("\0", "").strip()
    if not text.endswith("}"):
        raise TextError("damaged RTF: its end is missing")
    fonts = font_table_group(text)
    if len(fonts) > _MAX_FONTS or max(map(len, fonts.split(";"))) > _MAX_FONT:
        raise TextError("damaged RTF: font table")
    # Line breaks mean nothing in RTF, but end the search of striprtf's regular expressions for fonts and links.
    text = re.sub(r"(;)|(\\fldinst)", r"\1\n\2", text, flags=re.IGNORECASE)
    try:
        return rtf_to_text(text, errors="replace")
    except Exception as error:  # striprtf checks none of the numbers and names it takes from the file
        raise TextError(f"damaged RTF ({type(error).__name__})") from None


def _from_dicom(data: bytes) -> str:
    with extra("dicom", "a DICOM file", TextError):
        from pydicom import dcmread
        from pydicom.config import disable_value_validation
    try:
        with quiet(), disable_value_validation():  # its warnings quote values
            if _DEFLATED in data:  # may be a bomb
                raise TextError("a deflated DICOM file, which is not read")
            found = dcmread(io.BytesIO(data), specific_tags=["SpecificCharacterSet", "SOPClassUID", *_CONTENT])
            if not str(found.get("SOPClassUID", "")).startswith(_STRUCTURED_REPORTS):
                raise TextError("DICOM, but no structured report")
            return "\n".join(_content(found, 0))
    except TextError:
        raise
    except Exception as error:  # pydicom raises whatever its converters of values do
        raise TextError(f"damaged DICOM ({type(error).__name__})") from None


_CONTENT = ("ContentSequence", "ValueType", "ConceptNameCodeSequence")


def _content(item: Any, depth: int) -> Iterator[str]:
    """Lines of a content item and those below it."""
    if depth > _MAX_DEPTH:
        raise TextError(f"DICOM content nested deeper than {_MAX_DEPTH} items")
    name, kind = _meaning(item.get("ConceptNameCodeSequence")), item.get("ValueType")
    value = ""
    if kind == "TEXT":
        value = str(item.get("TextValue") or "")
    elif kind == "CODE":
        value = _meaning(item.get("ConceptCodeSequence"))
    elif kind == "NUM":
        for measured in (item.get("MeasuredValueSequence") or [])[:1]:
            unit = _meaning(measured.get("MeasurementUnitsCodeSequence"))
            value = f"{measured.get('NumericValue', '')} {unit}".strip()
    if value or (kind == "CONTAINER" and name and depth):
        yield f"{name}: {value}".strip() if name else value
    for below in item.get("ContentSequence") or []:
        yield from _content(below, depth + 1)


def _meaning(codes: Any) -> str:
    return str(codes[0].get("CodeMeaning") or "").strip() if codes else ""
