"""Every way in which a report arrives: the right text, or one TextError that does not repeat it."""

import codecs
import os
import time

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfuse.data.files.read import read_bytes
from mmfuse.data.readers.texts import TextError, decode_text, read_text
from mmfuse.types import MmfuseError

GERMAN = "Pleuraerguß rechts, keine Verschattung."
CHINESE = "双肺纹理清晰，未见明显实质性病变。"
ENGLISH = "Frontal chest radiograph. Heart size is normal."

# By encoding: texts as short as reports really are.
LEGACY = {
    "latin_1": [
        "Pleuraerguß rechts",
        GERMAN,
        "Épanchement pleural droit.",
        "Derrame pleural à direita, sem consolidação.",
        "Sin consolidación. Corazón de tamaño normal.",
        "Hjertet er normalt stort. Ingen pleuravæske på højre side.",
    ],
    "cp1252": [
        "Patient’s heart is normal – no effusion.",
        "„Pleuraerguß“ rechts",
        "Größe für Ergüsse “…” geprüft über Äste",
        "5 µm, 37 °C, ± 2",
    ],
    "cp1250": ["Bez zmian ogniskowych w płucach. Serce niepowiększone."],
    "cp1251": ["Норма", "Легкие без очаговых изменений. Сердце не увеличено."],
    "koi8_r": ["Сердце не увеличено.", "Без патологии.", "Легкие без очаговых изменений. Сердце не увеличено."],
    "cp1253": ["Καρδιά φυσιολογικού μεγέθους. Χωρίς πλευριτική συλλογή."],
    "cp1256": ["القلب بحجم طبيعي. لا يوجد انصباب جنبي."],
    "gb18030": ["心影不大", "右侧胸腔积液。", CHINESE, "CT显示右上肺结节。建议复查。"],
    "big5": ["雙肺紋理清晰，未見明顯實質性病變。"],
    "shift_jis": ["心臓の大きさは正常。胸水なし。"],
    "euc_kr": ["심장 크기는 정상입니다. 흉수 없음."],
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", [ENGLISH, GERMAN, CHINESE, "😀 x"])
def test_unicode_with_or_without_mark(encoding, text):
    assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize("bits", ["16", "32"])
@pytest.mark.parametrize("order", ["le", "be"])
def test_both_byte_orders(bits, order):
    mark = getattr(codecs, f"BOM_UTF{bits}_{order.upper()}")
    assert decode_text(mark + CHINESE.encode(f"utf-{bits}-{order}")) == CHINESE


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("text", [ENGLISH, GERMAN])
def test_utf16_without_mark_where_it_is_clear(order, text):
    assert decode_text(text.encode(f"utf-16-{order}")) == text


@pytest.mark.parametrize(("encoding", "text"), [(e, text) for e, texts in LEGACY.items() for text in texts])
def test_legacy_encodings(encoding, text):
    assert decode_text(text.encode(encoding)) == text


def test_one_accent_in_a_long_report_counts():
    text = f"{ENGLISH}\n" * 20_000 + "Bez zmian ogniskowych w płucach. Serce niepowiększone."
    assert decode_text(text.encode("cp1250")) == text


def test_what_comes_after_the_sample_is_in_the_likelier_encoding():
    text = (
        "Größe für Ergüsse geprüft\n" * 2000 + "à droite"
    )  # the German part is the same in Western and Eastern Europe
    assert decode_text(text.encode("cp1252")) == text


@pytest.mark.parametrize("text", [f"{GERMAN} " * 200_000, CHINESE * 60_000])
def test_long_legacy_reports_are_decoded_in_seconds(text):
    start = time.process_time()
    assert decode_text(text.encode("gb18030" if text[0] == CHINESE[0] else "latin_1")) == text.strip()
    assert time.process_time() - start < 5


def test_line_ends_and_white_space():
    assert decode_text(b"\r\n\t a\r\nb\rc\nd \r\n\n") == "a\nb\nc\nd"
    assert decode_text(ENGLISH.replace(". ", ".\r\n").encode()) == ENGLISH.replace(". ", ".\n")
    odd = "a\u00a0b\u2028c\u200bd\u0085e\ff\vg\th"
    assert decode_text(odd.encode()) == odd


@pytest.mark.parametrize("data", [b"", b" \r\n\t", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, "\u00a0\u3000".encode()])
def test_nothing_is_an_empty_text(data):
    assert decode_text(data) == ""


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 8,
        b"report\0",
        b"\0" * 50,
        *(b"a%cb" % code for code in (*range(9), *range(14, 32), 127)),
        "Größe".encode("latin_1") + b"\x02",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\xff\xd8\xff\xe0\0\x10JFIF\0",
        b"%PDF-1.7\x00\x01",
        "a\0b".encode("utf-16"),
        "双肺 纹理 清晰".encode("utf-16-le"),  # UTF-16 without a mark, but not clear enough
        "é ".encode("utf-16-be") + b"\0",
    ],
)
def test_binary_is_no_text(data):
    with pytest.raises(TextError, match="binary, not text"):
        decode_text(data)


@pytest.mark.parametrize(
    "data", [codecs.BOM_UTF16_LE + b"\0\xd8", codecs.BOM_UTF8 + b"a\xff", codecs.BOM_UTF32_BE + b"a"]
)
def test_damaged_unicode_is_refused(data):
    with pytest.raises(TextError, match="damaged UTF-"):
        decode_text(data)


def test_no_error_repeats_the_report(tmp_path):
    path = tmp_path / "secret.txt"
    for data in (b"SECRET\0", codecs.BOM_UTF8 + b"SECRET\xff", codecs.BOM_UTF16_LE + b"SECRET!", b"SECRET" * 99):
        path.write_bytes(data)
        with pytest.raises(TextError) as caught:
            read_text(path, max_bytes=500)
        assert "SECRET" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


def test_files_and_urls(tmp_path):
    path = tmp_path / "ä report.txt"
    path.write_bytes(GERMAN.encode("latin_1"))
    with fsspec.open("memory://texts/a.txt", "wb") as file:
        file.write(b"remote")
    assert read_text(path) == read_text(str(path)) == read_text(f"file://{path}") == GERMAN
    assert read_text("memory://texts/a.txt") == "remote"


def test_max_bytes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 100)
    assert read_text(path, max_bytes=100) == "x" * 100
    with fsspec.open("memory://texts/long.txt", "wb") as file:
        file.write(b"x" * 100)
    for source in (path, "memory://texts/long.txt"):
        with pytest.raises(TextError, match="larger than 99 bytes"):
            read_text(source, max_bytes=99)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.txt"
    path.touch()
    os.truncate(path, 2**40)  # takes no space
    with pytest.raises(TextError, match="larger than 10000000 bytes"):
        read_text(path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    fifo = tmp_path / "fifo.txt"
    os.mkfifo(fifo)
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    for source in (fifo, f"file://{fifo}", tmp_path, "/dev/zero", loop, "a\0b", "x" * 5000, "nosuchprotocol://a"):
        with pytest.raises(TextError) as caught:
            read_text(source)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(TextError, match="no such file"):
        read_text(tmp_path / "missing.txt")


def test_read_bytes_gives_the_reason_alone(tmp_path):
    with pytest.raises(MmfuseError) as caught:
        read_bytes(tmp_path / "missing", 10)
    assert str(caught.value) == "no such file"


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_utf8_comes_back_but_for_ends_and_controls(text):
    try:
        decoded = decode_text(text.encode("utf-8-sig"))
    except TextError:
        assert any(ord(c) < 32 or ord(c) == 127 for c in text)
    else:
        assert decoded == text.replace("\r\n", "\n").replace("\r", "\n").strip()


def text_and_reason(data):
    try:
        return decode_text(data), ""
    except TextError as error:
        return "", str(error)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE]),
    st.binary(max_size=200) | st.lists(st.integers(32, 255), max_size=200).map(bytes),
)
def test_random_bytes_give_a_text_or_a_text_error(mark, data):
    text, reason = text_and_reason(mark + data)
    assert "\n" not in reason
    assert text == text.strip()
    assert "\r" not in text
    assert "\0" not in text


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([(t, e) for e, texts in LEGACY.items() for t in texts] + [(ENGLISH, "utf-16"), (CHINESE, "utf-8")]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_damaged_reports_give_a_text_or_a_text_error(case, changes):
    text, encoding = case
    data = bytearray(text.encode(encoding))
    for place, value in changes:
        data[place % len(data)] = value
    assert text[:4] not in text_and_reason(bytes(data))[1]
