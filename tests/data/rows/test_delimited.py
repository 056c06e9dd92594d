"""csv and tsv: what is well-formed is read as it is, what is not is refused with its line and what mends it."""

import csv
import io
import time

import pandas as pd
import pytest
import yaml

from mmfuse.data.load import load_table
from mmfuse.data.rows.blocks import BLOCK
from mmfuse.data.rows.delimited import CsvSpec
from mmfuse.data.rows.read import RowFiles, read_rows
from mmfuse.data.tables.blocks import FileBlocks
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError

HEAD = "id,text,y\n"
ROWS = [f"s{i},lungs clear {i},{'uv'[i % 2]}" for i in range(10)]


def write(folder, content, name="rows.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return str(path)


def refusal(call, *args, **kwargs):
    with pytest.raises(MmfuseError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def edited(**lines):
    return HEAD + "".join(f"{lines.get(f's{i}', row)}\n" for i, row in enumerate(ROWS))


MALFORMED = {
    "lone quotes before two texts": (edited(s4='s4,"tube 3,u', s9='s9,"mass 2,v'), "lines 6 to 11: text follows"),
    "a lone quote before and one behind": (
        edited(s4='s4,"tube 3,u', s8='s8,mass 2",v'),
        "lines 6 to 10: .* look like rows",
    ),
    "over one line": (edited(s4='s4,"tube 3,u', s5='s5,mass 2",v'), "lines 6 to 7: .* look like rows"),
    "in the first column": (edited(s4='"s4,tube 3,u', s7='s7",mass 2,v'), "lines 6 to 9: .* look like rows"),
    "in the last column": (edited(s4='s4,tube 3,"u', s7='s7,mass 2,v"'), "lines 6 to 9: .* look like rows"),
    "one quote alone": (edited(s4='s4,"tube 3,u'), "line 6: a field begins with a quote that nothing ends"),
    "a quote in quotes": (edited(s4='s4,"a "sharp" pain",u'), "line 6: text follows .* written twice"),
    "a backslash before a quote": (edited(s4='s4,"a \\"sharp\\" pain",u'), "line 6: text follows"),
    "a space behind a quote": (edited(s4='s4,"a pain" ,u'), "line 6: text follows"),
    "fewer fields": (edited(s4="s4,tube"), r"line 6: 2 field\(s\), but the header has 3"),
    "more fields": (edited(s4="s4,tube, clear,u"), r"line 6: 4 field\(s\), but the header has 3"),
    "a separator at the end": (edited(s4="s4,tube,u,"), r"line 6: 4 field\(s\)"),
    "a quote behind a space": (edited(s4='s4, "tube, clear",u'), r"line 6: 4 field\(s\)"),
    "after lines in quotes": (edited(s2='s2,"a\nb",u', s4="s4,tube"), r"line 7: 2 field\(s\)"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_rows_are_refused_with_their_line(tmp_path, name):
    content, words = MALFORMED[name]
    for text in (content, content.replace("\n", "\r\n")):
        path = write(tmp_path, text)
        with pytest.raises(MmfuseError, match=f"rows.csv: {words}"):
            read_rows(path, "m")
        with pytest.raises(MmfuseError, match=words):
            list(RowFiles(path, "m").blocks(["id"], 4))


@pytest.mark.parametrize(
    "text",
    [
        '5" film',
        "a 'b' c",
        'one\ntwo, three ""four""',
        "No effusion.\nLungs, heart and bones are normal.",
        "Clear,\nno effusion,\nno mass,",
        "line one\n\nline, two\n",
        "a\rb",
        '""',
        "s5,clear,u",
        "word " * 50_000,
    ],
)
def test_what_is_well_formed_is_read_as_it_is(tmp_path, text):
    quoted = '"' + text.replace('""', '"').replace('"', '""') + '"'
    expected = text.replace('""', '"')
    path = write(tmp_path, edited(s4=f"s4,{quoted},u"))
    assert read_rows(path, "m")["text"][4] == expected
    assert pd.read_csv(path, dtype="object", keep_default_na=False)["text"].tolist()[4] == expected


def test_a_quote_within_a_bare_field_is_a_quote(tmp_path):
    assert list(read_rows(write(tmp_path, edited(s4='s4,5" film,u')), "m")["text"])[4] == '5" film'


def test_all_line_ends_blank_lines_a_mark_and_columns_without_a_name(tmp_path):
    text = "\ufeff\n" + HEAD.replace("id", "") + "\n1, a ,\n\n  \n2,,x\n,,\n"
    for ends in ("\n", "\r\n", "\r"):
        path = write(tmp_path, text.replace("\n", ends))
        found = read_rows(path, "m")
        assert found.columns.tolist() == ["Unnamed: 0", "text", "y"]
        assert found.to_numpy().tolist() == [["1", " a ", ""], ["2", "", "x"], ["", "", ""]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("r.csv", HEAD.replace(",", ";") + "1;a;u\n", "separated by ';', not ',': .*csv: {separator: .;.}"),
        ("r.csv", HEAD.replace(",", "\t"), "separated by tabs, not ',': .*{separator: ..t.} .*name it .tsv"),
        ("r.csv", HEAD.replace(",", "|"), "separated by '|'"),
        ("r.txt", HEAD + "1,a,u\n", r"separated by ',', not tabs: .*or name it .csv"),
        ("r.tsv", HEAD.replace(",", ";"), "separated by ';', not tabs: .* in the manifest$"),
        ("r.csv", "sep=;\n" + HEAD.replace(",", ";"), "line 1: 'sep=;' is for Excel"),
        ("r.csv", "sep=,\n" + HEAD, "line 1: 'sep=,' is for Excel"),
        ("r.csv", HEAD.encode("utf-32"), "it is UTF-32"),
        ("r.csv", '{"id": 1, "text": "a"}\n', "it is JSON: name it .jsonl"),
        ("r.txt", '\ufeff[\n {\n "id": 1}]', "it is JSON"),
        ("r.csv", HEAD.encode("utf-16"), "it is UTF-16: save it as UTF-8, or say csv: {encoding: utf-16}"),
        ("r.csv", HEAD.encode("utf-16-le"), "NUL bytes: no text, or UTF-16"),
        ("r.jsonl", '{"id": 1}'.encode("utf-16"), "it is UTF-16: save it as UTF-8$"),
        (
            "r.csv",
            (HEAD + "1,a,u\n2,Erguß größer,u\n").encode("cp1252"),
            "line 3: not UTF-8: .*csv: {encoding: cp1252}",
        ),
        (
            "r.csv",
            (HEAD + "1,右肺上叶见结节影，边界清楚,u\n").encode("gb18030"),
            "line 2: not UTF-8: .*encoding: gb18030}",
        ),
        ("r.csv", b"PK\x03\x04xx", "a spreadsheet .*save its sheet as CSV UTF-8"),
        ("r.xlsx", b"PK\x03\x04xx", "a spreadsheet"),
        ("r.xls", b"\xd0\xcf\x11\xe0xx", "an old spreadsheet"),
        ("r.csv", b"PAR1xx", "it is parquet: name it .parquet"),
        ("r.csv", "<!DOCTYPE html><table></table>", "a web page"),
        ("r.xls", "\n<html><table></table>", "a web page"),
        ("r.csv", "version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("r.parquet", "version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("r.parquet", HEAD, "no parquet file: it is text; name it .csv"),
        ("r.csv.gz", b"\x1f\x8bxx", "compressed .gzip.: unpack it"),
        ("r.jsonl", '{"id": 1}\n{"id": "größer"}'.encode("cp1252"), "line 2: not UTF-8, as JSON is"),
        ("r.jsonl", '[{"id": 1}]', "a JSON array: an object a line"),
        ("r.json", '{"id": 1}', "cannot tell what .json is; .*an object a line"),
        ("r.csv", "", "an empty file"),
        ("r.parquet", "", "an empty file"),
        ("r.csv", "\n\n", "nothing but line ends"),
    ],
)
def test_what_a_file_is_instead_is_told_by_name(tmp_path, name, content, words):
    path = write(tmp_path, content, name)
    for read in (lambda: read_rows(path, "m"), lambda: RowFiles(path, "m")):
        with pytest.raises(MmfuseError, match=f"m: rows: .*{words.replace('|', chr(92) + '|')}"):
            read()


def test_a_folder_is_told(tmp_path):
    assert f"{tmp_path}: a directory; name its files, such as {tmp_path}/*.csv" in refusal(
        read_rows, str(tmp_path), "m"
    )


@pytest.fixture
def manifest(tmp_path):
    def make(rows="rows.csv", **keys):
        values = {
            "name": "s",
            "rows": rows,
            "id": "id",
            "text": {"columns": ["text"]},
            "splits": {"ratios": {"train": 1.0}},
        }
        values["tasks"] = {"t": {"column": "y"}}
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(values | keys))
        return load_manifest(tmp_path / "m.yaml")

    return make


@pytest.mark.parametrize(
    ("separator", "encoding", "name"),
    [
        (";", "cp1252", "rows.csv"),
        ("\t", "utf-16", "rows.txt"),
        ("|", "utf-8", "rows.csv"),
        (",", "gb18030", "rows.txt"),
    ],
)
def test_the_manifest_may_say_how_it_is_written(tmp_path, manifest, separator, encoding, name):
    text = "größer" if encoding == "cp1252" else "右肺 größer" if encoding != "gb18030" else "右肺上叶"
    content = "".join(
        separator.join([*row]) + "\r\n" for row in (("id", "text", "y"), ("1", text, "u"), ("2", "b", "v"))
    )
    write(tmp_path, content, name, encoding)
    made = manifest(name, csv={"separator": separator, "encoding": encoding})
    assert load_table(made).rows["text"][:] == [text, "b"]
    assert [block["text"] for block in FileBlocks(made).blocks()] == [[text, "b"]]


@pytest.mark.parametrize("encoding", ["cp1252", "gb18030"])
@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig"])
def test_utf8_is_not_read_as_another_encoding(tmp_path, encoding, mark):
    spec = CsvSpec(encoding=encoding)
    text = HEAD + "1,plain,u\n" + "2,größer 病例报告 是,u\n"
    path = write(tmp_path, text.encode(mark), "r.csv")
    with pytest.raises(MmfuseError, match=f"(it is UTF-8, not|not) {encoding.upper()}, as csv.encoding"):
        read_rows(path, "m", csv=spec)
    path = write(tmp_path, (HEAD + "1,größer,u\n").encode(encoding), "s.csv")
    assert read_rows(path, "m", csv=spec)["text"].tolist() == ["größer"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [({"separator": ":"}, "csv.separator"), ({"encoding": "utf-7"}, "csv.encoding"), ({"quote": "'"}, "csv")],
)
def test_only_what_is_legal_can_be_said(tmp_path, manifest, spec, words):
    assert words in refusal(manifest, csv=spec)


def test_a_file_of_several_that_lacks_a_named_column_is_refused(tmp_path, manifest):
    write(tmp_path, "id,text,y,more\n1,a,u,x\n2,b,v,x\n", "a1.csv")
    write(tmp_path, "id,text,y\n3,a,u\n", "a2.csv")
    assert len(load_table(manifest("a*.csv"))) == 3
    write(tmp_path, "id,text,label\n4,a,u\n", "a3.csv")
    for read in (load_table, FileBlocks):
        assert "a3.csv: no column 'y', which " in refusal(read, manifest("a*.csv"))
    assert "no column 'z'; " in refusal(load_table, manifest("a*.csv", tasks={"t": {"column": "z"}}))
    write(tmp_path, '{"id": 5, "text": "c"}\n', "a4.jsonl")
    assert "a4.jsonl: no column 'y'" in refusal(load_table, manifest("a[124].*"))


@pytest.mark.parametrize(
    ("cells", "task", "words"),
    [
        ("", {"column": "y"}, "tasks.t: no row has a label: y is empty"),
        ("", {"column": "y", "values": ["u", "v"]}, "tasks.t: no row has a label"),
        ("n/a", {"column": "y", "missing": ["n/a"]}, "tasks.t: no row has a label"),
        ("", {"column": "y", "type": "multilabel", "empty": "negative"}, "tasks.t: no row has a label"),
        ("", {"columns": ["y"], "type": "multilabel"}, "tasks.t: no row has a label"),
        (
            "0",
            {"columns": ["y"], "type": "multilabel"},
            "tasks.t: no row has a label: y is empty or negative in every row",
        ),
        ("", {"column": "y", "type": "captioning"}, "tasks.t: no row has a caption"),
    ],
)
def test_labels_that_are_empty_everywhere_are_refused(tmp_path, manifest, cells, task, words):
    write(tmp_path, HEAD + "".join(f"{i},text {i},{cells}\n" for i in range(4)))
    made = manifest(tasks={"t": task})
    for read in (load_table, FileBlocks):
        assert words in refusal(read, made)


def test_a_word_that_could_be_utf8_in_a_later_block_is_read_as_the_file_is(tmp_path):
    said = [*["男"], *["a"] * BLOCK, "女"]  # the latter's bytes in GB18030 are a letter of UTF-8 too
    path = write(tmp_path, "id,sex\n" + "".join(f"{i},{word}\n" for i, word in enumerate(said)), encoding="gb18030")
    assert list(read_rows(path, "m", csv=CsvSpec(encoding="gb18030"))["sex"]) == said


def test_a_column_of_texts_of_several_lines_takes_no_longer_than_its_length(tmp_path):
    path = write(tmp_path, "x\n" + '"a\nb"\n' * BLOCK)
    begun = time.process_time()
    assert len(read_rows(path, "m")) == BLOCK
    assert time.process_time() - begun < 1.5


def test_rows_are_checked_in_every_block(tmp_path):
    lines = [HEAD, *(f"s{i},a,u\n" for i in range(2 * BLOCK)), "s,b\n"]
    assert f"line {2 * BLOCK + 2}: 2 field(s)" in refusal(read_rows, write(tmp_path, "".join(lines)), "m")


@pytest.mark.heavy
def test_speed_is_near_that_of_pandas(tmp_path):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "text", "y", "image"])
    writer.writerows([f"s{i}", "lungs clear, no effusion " * 8, "uv"[i % 2], f"films/{i}.png"] for i in range(20_000))
    path = write(tmp_path, text.getvalue())

    def seconds(read):
        times = []
        for _ in range(3):
            start = time.process_time()
            read()
            times.append(time.process_time() - start)
        return min(times)

    ours = seconds(lambda: read_rows(path, "m"))
    theirs = seconds(lambda: pd.read_csv(path, dtype="object", keep_default_na=False, na_filter=False))
    assert ours < 5 * theirs + 0.2
