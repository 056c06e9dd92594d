"""Reports in every kind of file: their text with the headers of sections, or one TextError that quotes nothing."""

import io
import json
import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

from mmfuse.data.readers.documents import decode_report, read_report
from mmfuse.data.readers.texts import TextError
from mmfuse.data.rows.folder import pair_folder
from mmfuse.sections import split_sections

OPEN_I = """<?xml version="1.0" encoding="utf-8"?><eCitation>
   <meta type="rr"/><uId id="CXR0"/><licenseType>open-access</licenseType>
   <MedlineCitation><Article><ArticleTitle>Chest X-ray Collection</ArticleTitle>
      <Abstract>
         <AbstractText Label="COMPARISON">None.</AbstractText>
         <AbstractText Label="INDICATION">Cough &amp; fever</AbstractText>
         <AbstractText Label="FINDINGS"/>
         <AbstractText Label="IMPRESSION">No acute
            disease.</AbstractText>
      </Abstract></Article>
      <MeSH><major>normal</major></MeSH></MedlineCitation>
   <parentImage id="CXR0_1"><caption>Chest PA</caption></parentImage>
</eCitation>"""
CDA = """<ClinicalDocument xmlns="urn:hl7-org:v3"><recordTarget><name>Roe</name></recordTarget><component>
<structuredBody><component><section><title>Findings</title><text>Heart <content styleCode="Bold">normal</content>.
</text></section></component></structuredBody></component></ClinicalDocument>"""
HTML = """<!DOCTYPE html>
<html><head><title>Roe, Jane</title><style>p {color: red}</style><meta name="a"></head><body>
<!-- a <p>comment</p> --><h2>Indication</h2><p>Cough&nbsp;&amp;
  fever, &lt;5 days<br>worse</p>
<script>if (a < b) document.write("<p>no</p>")</script>
<p><b>Impression:</b> normal.</p><table><tr><td>Size</td><td>5 mm</td></tr></table></body></html>"""
RTF = (
    r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fswiss\fcharset0 Arial;}{\f1\fnil\fcharset204 Times;}}"
    r"{\*\generator Word;}{\info{\author Roe}}{\pict\pngblip 89504e}"
    r"\f0\b INDICATION:\b0  Pleuraergu\'df?\par FINDINGS: \u8804?5 mm, \u-10179?\u-8704?\par}"
)


def concept(meaning):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", meaning
    return Sequence([code])


def item(kind, name=None, **values):
    """A content item; `below` are its children."""
    found = Dataset()
    found.ValueType = kind
    if name:
        found.ConceptNameCodeSequence = concept(name)
    found.ContentSequence = Sequence(values.pop("below", []))
    for key, value in values.items():
        setattr(found, key, value)
    return found


def dicom(sop_class="1.2.840.10008.5.1.4.1.1.88.11", syntax=ExplicitVRLittleEndian, content=None):
    size = Dataset()
    size.NumericValue, size.MeasurementUnitsCodeSequence = "5", concept("mm")
    below = [
        item("PNAME", "Person Observer Name", PersonName="Roe^Richard"),
        item("CONTAINER", "History", below=[item("TEXT", "History", TextValue="Cough.")]),
        item(
            "CONTAINER",
            "Findings",
            below=[
                item("TEXT", "Finding", TextValue="Herz größer."),
                item("NUM", "Diameter", MeasuredValueSequence=Sequence([size])),
                item("CODE", "Side", ConceptCodeSequence=concept("left")),
                item("IMAGE"),
            ],
        ),
    ]
    report = item("CONTAINER", "Chest X-Ray Report", below=below if content is None else content)
    report.SpecificCharacterSet = "ISO_IR 192"
    report.PatientName, report.PatientID = "Roe^Jane", "12345"
    report.SOPClassUID, report.SOPInstanceUID = sop_class, generate_uid()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = syntax
    data = io.BytesIO()
    report.save_as(data, enforce_file_format=True)
    return data.getvalue()


def refusal(data):
    with pytest.raises(TextError) as error:
        decode_report(data)
    assert "\n" not in str(error.value)
    return str(error.value)


class TestXml:
    def test_open_i(self):
        text = decode_report(OPEN_I.encode())
        assert split_sections(text) == {
            "comparison": "None.",
            "indication": "Cough & fever",
            "impression": "No acute\ndisease.",
        }

    def test_a_clinical_document_gives_its_body_alone(self):
        assert decode_report(CDA.encode()) == "Findings\nHeart normal."

    def test_elements_that_are_named_like_sections(self):
        data = (
            "<r><id>7</id><clinicalHistory>cough</clinicalHistory><x:findings xmlns:x='u'>a<b>b</b> c</x:findings></r>"
        )
        assert decode_report(data.encode()) == "7\nCLINICAL HISTORY: cough\nFINDINGS: ab c"

    def test_the_encoding_it_names_counts(self):
        data = '<?xml version="1.0" encoding="windows-1251"?><r>Норма</r>'
        assert decode_report(data.encode("cp1251")) == "Норма"
        assert decode_report(data.replace("windows-1251", "UTF-16").encode("utf-16")) == "Норма"

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ('<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a "lol"><!ENTITY b "&a;&a;">]><r>&b;</r>', "entities"),
            ('<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><r>&a;</r>', "entities"),
            ('<?xml version="1.0"?><r>secret', "damaged XML: no element found, line 1"),
            ("<r><a>secret</b></r>", "damaged XML: mismatched tag, line 1"),
            ("<r>&secret;</r>", "damaged XML: undefined entity, line 1"),
            ("<r>" * 200 + "</r>" * 200, "nested deeper than 100"),
        ],
    )
    def test_what_is_refused(self, data, message):
        found = refusal(data.encode())
        assert message in found
        assert "secret" not in found


class TestHtml:
    def test_what_is_seen(self):
        text = decode_report(HTML.encode())
        assert text == "Indication\n\nCough & fever, <5 days\nworse\n\nImpression: normal.\n\nSize 5 mm"
        assert split_sections(text)["indication"] == "Cough & fever, <5 days\nworse"

    def test_a_fragment(self):
        assert decode_report(b"<b>FINDINGS:</b> <i>clear</i><br/>end") == "FINDINGS: clear\nend"

    def test_what_is_not_closed_is_refused(self):
        assert "<script> is not closed" in refusal(b"<html><script>secret")
        assert "comment is not closed" in refusal(b"<html><!-- secret")


class TestJson:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("Heart normal.\r\nEnd", "Heart normal.\nEnd"),
            ({"id": 7, "report": "Heart normal."}, "Heart normal."),
            ({"text": "a", "Report": "b", "findings": "c"}, "b"),
            ({"clinical_history": "cough", "x": ["y"], "Findings": "clear", "impression": None},) * 2,
            ({"report": "\ud83d\ude00 \ud800"}, "😀 �"),
        ],
    )
    def test_a_string_or_an_object(self, value, text):
        if value is text:
            text = "CLINICAL HISTORY: cough\nFINDINGS: clear"
        assert decode_report(json.dumps(value).encode()) == text

    def test_a_key_twice_is_read_twice(self):
        assert decode_report(b'{"history": "a", "history": "b"}') == "HISTORY: a\nHISTORY: b"

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ('{"secret": "x"}', "an object with the key report or text, or with sections"),
            ('["secret"]', "JSON without a report"),
            ('{"report": ["secret"]}', "report: a string is expected"),
            ('{"findings": 7}', "findings: a string is expected"),
            ('{"report": "secret', "damaged JSON"),
            ('{"report":' * 100_000, "JSON"),
            ('{"report": "\\u0000"}', "binary"),
        ],
    )
    def test_what_is_refused(self, data, message):
        found = refusal(data.encode())
        assert message in found
        assert "secret" not in found


class TestRtf:
    def test_its_text(self):
        assert decode_report(RTF.encode()) == "INDICATION: Pleuraerguß?\nFINDINGS: ≤5 mm, 😀"

    def test_bytes_of_its_code_page(self):
        assert decode_report(r"{\rtf1\ansi\ansicpg1251 Норма}".encode("cp1251")) == "Норма"

    @pytest.mark.parametrize(
        "data",
        [rb"{\rtf1\ansicpg99999 \xff" + b"\xff}", rb"{\rtf1 \u99999999?}", rb"{\rtf1{\pict\bin x}}", rb"{\rtf1 cut"],
    )
    def test_damage_is_refused(self, data):
        assert "damaged RTF" in refusal(data)

    @pytest.mark.parametrize(
        "piece", [r"{\field{\*\fldinst{", r"{\FIELD{\*\FLDINST{", r"\f0", r"\f0\fcharset0 ", r"\f0;"]
    )
    def test_what_would_take_the_square_of_its_length(self, piece):
        start = time.process_time()
        for data in (piece * 30_000, rf"{{\fonttbl{piece * 30_000}"):
            try:
                decode_report(rf"{{\rtf1{data}}}".encode())
            except TextError:
                continue
        assert time.process_time() - start < 5


class TestDicom:
    def test_the_content_tree_and_nothing_of_the_patient(self):
        text = decode_report(dicom())
        assert text == ("History:\nHistory: Cough.\nFindings:\nFinding: Herz größer.\nDiameter: 5 mm\nSide: left")
        assert split_sections(text)["findings"] == "Herz größer.\nDiameter: 5 mm\nSide: left"
        assert split_sections(text)["indication"] == "Cough."

    def test_what_is_refused(self):
        assert refusal(dicom("1.2.840.10008.5.1.4.1.1.2")) == "DICOM, but no structured report"
        assert "deflated" in refusal(dicom(syntax=DeflatedExplicitVRLittleEndian))
        deep = []
        for _ in range(150):
            deep = [item("CONTAINER", "Findings", below=deep)]
        assert "nested deeper than 100" in refusal(dicom(content=deep))


class TestPlain:
    @pytest.mark.parametrize(
        "text",
        [
            "<5 mm nodule, > 2 weeks; 5/>6",
            "<unsigned> Heart normal.",
            '"Normal", said the clerk, "normal"',
            "[redacted] Heart normal.",
            "{name} has a normal heart",
            r"\rtf is a format",
            "- <",
        ],
    )
    def test_what_only_looks_like_another_kind_is_plain_text(self, text):
        assert decode_report(text.encode()) == text

    def test_a_quoted_report_is_a_string(self):
        assert decode_report(b'"Heart \\u2264 normal"') == "Heart ≤ normal"


def test_a_folder_reads_every_kind(tmp_path):
    files = {
        "a.xml": OPEN_I.encode(),
        "b.HTML": b"<p>normal</p>",
        "c.json": b'{"report": "normal"}',
        "d.rtf": rb"{\rtf1 normal}",
        "e.sr": dicom(),
        "f.htm": b"plain text",
        "g.json": b"[[1]]",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    samples = {entry.id: entry.sample() for entry in pair_folder(tmp_path)[0]}
    assert [samples[name].text for name in "bcdf"] == ["normal", "normal", "normal", "plain text"]
    assert samples["a"].text.startswith("COMPARISON: None.")
    assert "Herz größer." in samples["e"].text
    assert samples["g"].problem.startswith("text: JSON without a report")


def test_files_are_opened_as_safely_as_texts(tmp_path):
    (tmp_path / "big").write_bytes(b"a" * 101)
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("big", "larger than 100 bytes"), ("pipe", "not a regular file"), ("none", "no such file")):
        with pytest.raises(TextError, match=message):
            read_report(tmp_path / name, 100)


SEEDS = [OPEN_I.encode(), CDA.encode(), HTML.encode(), RTF.encode(), dicom(), b'{"findings": "a\\u00df", "x": [1]}']


@st.composite
def mutated(draw):
    """A report of some kind, with a few pieces of it replaced, doubled or cut out."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        end = min(len(data), start + draw(st.integers(0, 30)))
        replacement = draw(st.one_of(st.binary(max_size=8), st.just(bytes(data[start:end]) * 3)))
        data[start:end] = replacement
    return bytes(data)


@pytest.mark.heavy
@pytest.mark.filterwarnings("error")
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.one_of(mutated(), st.binary(max_size=300)))
@example(data=rb"{\rtf1\ansicpg037 a}")
@example(data=b"\0" * 128 + b"DICM")
def test_any_bytes_are_a_text_or_one_error(data):
    try:
        said = text = decode_report(data)
    except TextError as error:
        said, text = str(error), ""
        problem = len(said) > 150 or "\n" in said
    else:
        problem = text != text.strip()
    assert not problem, said
    text.encode()


def test_other_files_behind_a_texts_name_are_named():
    for data, form in ((b"%PDF-1.4\n1 0 obj", "PDF"), (b"PK\3\4word", "ZIP"), (b"\xff\xd8\xff\xe0", "JPEG")):
        with pytest.raises(TextError, match=f"binary, not text: {form}"):
            decode_report(data)
    assert decode_report(b"PK of the drug; BM normal.") == "PK of the drug; BM normal."


ELSEWHERE = "http://127.0.0.1:9/x"
LINKS = {
    "a DTD": f'<!DOCTYPE r SYSTEM "{ELSEWHERE}"><r>seen</r>',
    "a file's DTD": '<!DOCTYPE r SYSTEM "SECRET"><r>seen</r>',
    "an entity": f'<!DOCTYPE r [<!ENTITY e SYSTEM "{ELSEWHERE}">]><r>&e;</r>',
    "a file's entity": '<!DOCTYPE r [<!ENTITY e SYSTEM "file://SECRET">]><r>&e;</r>',
    "a parameter entity": f'<!DOCTYPE r [<!ENTITY % e SYSTEM "{ELSEWHERE}"> %e;]><r>seen</r>',
    "an undeclared entity": f'<!DOCTYPE r PUBLIC "-//a//b" "{ELSEWHERE}"><r>seen &e;</r>',
    "XInclude": '<r xmlns:i="http://www.w3.org/2001/XInclude">seen<i:include href="SECRET" parse="text"/></r>',
    "a style sheet": f'<?xml version="1.0"?><?xml-stylesheet href="{ELSEWHERE}" type="text/xsl"?><r>seen</r>',
    "a schema": f'<r xmlns:s="http://www.w3.org/2001/XMLSchema-instance" s:schemaLocation="a {ELSEWHERE}">seen</r>',
    "HTML": f"""<html><head><base href="{ELSEWHERE}"><link rel=stylesheet href="{ELSEWHERE}"><script src="SECRET">
        </script><meta http-equiv=refresh content="0;url={ELSEWHERE}"><style>@import "{ELSEWHERE}";</style></head><body
        style="background:url({ELSEWHERE})">seen<img src="{ELSEWHERE}"><iframe src="file://SECRET"></iframe><object
        data="SECRET"></object><embed src="SECRET"><video src="{ELSEWHERE}"></video></body></html>""",
    "SVG in HTML": f'<html><body>seen<svg><image href="{ELSEWHERE}"/><use href="SECRET#a"/></svg></body></html>',
    "JSON": f'{{"$ref": "{ELSEWHERE}", "report": "seen", "url": "SECRET", "include": "file://SECRET"}}',
    "RTF": rf'{{\rtf1 {{\*\template {ELSEWHERE}}}seen {{\field{{\*\fldinst INCLUDETEXT "SECRET"}}}}'
    rf'{{\field{{\*\fldinst INCLUDEPICTURE "{ELSEWHERE}"}}}}}}',
    "a text": f"seen file://SECRET {ELSEWHERE} \\\\host\\share @SECRET ${{SECRET}} {{{{SECRET}}}}",
}
WATCHED = {"hooked": False, "on": False}
EVENTS = []


def _note(event, arguments):
    if WATCHED["on"] and event.split(".")[0] in ("open", "socket", "urllib", "subprocess", "os", "ctypes", "exec"):
        EVENTS.append((event, arguments))


@pytest.mark.parametrize("case", LINKS)
def test_what_a_report_refers_to_is_never_opened_or_requested(case, tmp_path):
    if not WATCHED["hooked"]:
        sys.addaudithook(_note)  # stays, and does nothing but in this test
        WATCHED["hooked"] = True
    secret = tmp_path / "secret.txt"
    secret.write_text("HIDDEN")
    data = LINKS[case].replace("SECRET", str(secret)).encode()

    def read():
        try:
            return decode_report(data)
        except TextError as error:
            return str(error)

    read()  # what is imported at first is imported now
    EVENTS.clear()
    WATCHED["on"] = True
    try:
        said = read()
    finally:
        WATCHED["on"] = False
    assert EVENTS == []
    assert "HIDDEN" not in said
    assert "seen" in said or "entit" in said, said


def test_a_structured_report_among_films_is_the_studys_text(tmp_path):
    """Archives name both alike; only the class in the file's header tells them apart."""
    study = tmp_path / "study"
    study.mkdir()
    (study / "1.dcm").write_bytes(b"\0" * 128 + b"DICM and no report")
    (study / "2.dcm").write_bytes(dicom())
    (study / "3.png").write_bytes(dicom())  # by its name a picture, and one that cannot be read
    ((entry,), _) = pair_folder(tmp_path, "study")
    images, texts = entry.files()
    assert [Path(path).name for path in (*images, *texts)] == ["1.dcm", "3.png", "2.dcm"]
    assert "Herz größer." in entry.sample().text
    assert entry.sample().images == images
