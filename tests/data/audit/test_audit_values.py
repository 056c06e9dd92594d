"""What cells say in several spellings, words for nothing, and numbers or ids as classes: told, and never changed."""

import json
import unicodedata

import pytest
import yaml

from mmfuse.data.audit import audit
from mmfuse.data.audit.values import alike, is_nothing, spelled, ways_apart
from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import load_manifest


@pytest.fixture
def look(tmp_path):
    """The findings of rows by kind; a row's columns may be given as cells of jsonl."""

    def check(rows, **manifest):
        rows = [{"id": f"r{i}", "text": f"unlike number{i}", **row} for i, row in enumerate(rows)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = {"name": "set", "rows": "rows.jsonl", "id": "id", "text": {"columns": ["text"]}}
        values |= {"splits": {"ratios": {"train": 1.0}}, **manifest}
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(values, allow_unicode=True))
        return {found.check: found for found in audit(load_manifest(tmp_path / "m.yaml"), find=None).findings}

    return check


NFD = unicodedata.normalize("NFD", "Ödème")


@pytest.mark.parametrize(
    ("one", "other", "way"),
    [
        ("Positive", "positive", "case"),
        ("STRASSE", "straße", "case"),
        ("True", "true", "case"),
        ("3", "3.0", "numbers"),
        ("3.50", "3.5", "numbers"),
        ("007", "7", "numbers"),
        ("-0.0", "0", "numbers"),
        ("+2", "2.", "numbers"),
        ("lower  lobe", "lower lobe", "spaces"),
        ("lower lobe", "lowerlobe", "spaces"),
        ("lower\u00a0lobe", "lower lobe", "characters"),
        ("a\u200bb", "ab", "characters"),
        (NFD, unicodedata.normalize("NFC", NFD), "characters"),
        ("３", "3", "characters"),
        ("Ａ１", "A1", "characters"),
        ("T–cell", "T-cell", "characters"),
    ],
)
def test_two_spellings_are_one_and_the_way_is_told(one, other, way):
    assert alike([one, "else", other]) == [[one, other]]
    assert way in ways_apart([[one, other]])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3", "30"),
        ("p 1 12", "p 11 2"),
        ("1 0", "10"),
        ("-3", "3"),
        ("a-b", "ab"),
        ("1.5", "15"),
        ("é", "e"),
        ("", "0"),
    ],
)
def test_what_differs_otherwise_is_two(one, other):
    assert spelled(one) != spelled(other)


@pytest.mark.parametrize(
    "word", ["nan", "NaN", "None", "N/A", "n.a.", "NULL", "-", "--", "?", "<NA>", "NaT", "[]", "."]
)
def test_words_for_nothing(word):
    assert is_nothing(word)


@pytest.mark.parametrize("word", ["No", "none seen", "nano", "Nan Bread", "-1", "", "0", "normal", "None.", "x" * 30])
def test_words_that_say_something(word):
    assert not is_nothing(word)


def test_classes_of_several_spellings_are_told_with_counts_and_what_to_do(look):
    cells = ["Positive"] * 4 + ["positive", "POSITIVE ", "negative"] + [True, "true", "nan", None, 3, 3.0, "３"]
    found = look([{"y": cell} for cell in cells], tasks={"y": {"column": "y"}})
    told = found["labels.spelling"]
    assert (told.severity, told.count) == ("warning", 3)
    assert "'POSITIVE' (1), 'Positive' (4), 'positive' (1); 'True' (1), 'true' (1); '3' (1), '3.0' (1), '３' (1)" in (
        told.message
    )
    assert "case or the form of numbers (.0) or the form of characters" in told.message
    assert (
        'tasks.y.values, such as {"Positive": "Positive", "positive": "Positive", "POSITIVE": "Positive"}' in told.fix
    )
    assert [name for (name,) in told.rows] == ["r4", "r5", "r8", "r12", "r13"]
    nothing = found["labels.words_for_nothing"]
    assert "'nan' (1)" in nothing.message
    assert 'tasks.y.missing: ["nan"]' in nothing.fix
    assert nothing.rows == (("r9",),)


def test_what_the_manifest_says_of_values_is_heeded(look):
    rows = [{"y": cell} for cell in ["Yes", "yes", "None", "no"] * 5]
    task = {"column": "y", "values": {"Yes": "yes", "yes": "yes", "no": "no", "None": "none"}}
    assert not {"labels.spelling", "labels.words_for_nothing"} & set(look(rows, tasks={"y": task}))
    found = look(rows, tasks={"y": {"column": "y", "values": ["Yes", "no"], "other": "missing"}})
    assert "'Yes' (5), 'yes' (5, read as missing)" in found["labels.spelling"].message
    found = look(rows, tasks={"y": {"column": "y", "missing": ["None"], "min_count": 5}})
    assert "labels.words_for_nothing" not in found
    assert "'Yes' (5), 'yes' (5)" in found["labels.spelling"].message


@pytest.mark.parametrize(
    ("cells", "task"),
    [
        ([["Drama", "comedy"], ["drama"], ["None"]], {}),
        (["Drama;comedy", "drama ", "None"], {"separator": ";"}),
        (["['Drama', 'comedy']", "['drama']", "['None']"], {"separator": ";"}),
    ],
)
def test_labels_of_lists(look, cells, task):
    found = look([{"y": cell} for cell in cells * 3], tasks={"y": {"type": "multilabel", "column": "y", **task}})
    assert "'Drama' (3), 'drama' (3)" in found["labels.spelling"].message
    assert found["labels.words_for_nothing"].rows == (("r2",), ("r5",), ("r8",))


def test_label_columns_of_two_spellings(look):
    task = {"type": "multilabel", "columns": ["Mass", "mass "]}
    found = look([{"Mass": i % 2, "mass ": 1 - i % 2} for i in range(6)], tasks={"y": task})
    assert "'Mass' (0), 'mass ' (0)" in found["labels.spelling"].message


def test_captions_that_say_nothing(look):
    rows = [{"c": ["a dog", "nan"]}, {"c": "N/A"}, {"c": "a cat"}]
    found = look(rows, tasks={"c": {"type": "captioning", "column": "c"}})
    assert found["labels.words_for_nothing"].rows == (("r0",), ("r1",))
    assert 'tasks.c.missing: ["nan", "N/A"]' in found["labels.words_for_nothing"].fix


def test_texts_that_say_nothing(look):
    rows = [{"a": "nan", "text": "nan"}, {"a": " N/A ", "text": "cough"}, {"a": "fever", "text": "none"}, {"a": "-"}]
    found = look(rows, text={"columns": ["a", "text"], "template": "{a}: {text}", "missing": ["-"]})
    assert found["texts.words_for_nothing"].rows == (("r0",), ("r1",), ("r2",))
    assert "'nan' (2), 'N/A' (1), 'none' (1)" in found["texts.words_for_nothing"].message
    assert 'text.missing: ["nan", "N/A", "none"]' in found["texts.words_for_nothing"].fix


SPLIT = {"column": "s"}


@pytest.mark.parametrize(
    ("one", "other"), [("3", "3.0"), ("P7", "p7"), ("Ann  Lee", "Ann Lee"), ("３", "3"), (3, "03"), (NFD, "ödème")]
)
def test_groups_of_two_spellings_in_two_splits_are_an_error(look, one, other):
    rows = [{"p": one, "s": "train"}, {"p": other, "s": "test"}, {"p": "x", "s": "train"}, {"p": "X", "s": "train"}]
    found = look(rows, group="p", splits=SPLIT)
    assert (found["groups.spelling_across_splits"].severity, found["groups.spelling"].severity) == ("error", "warning")
    assert set(found["groups.spelling_across_splits"].rows[0]) == {"r0", "r1"}
    assert found["groups.spelling"].rows == (("r2", "r3"),)
    assert "--groups" in found["groups.spelling"].fix


def test_ids_are_groups_where_none_are_named(look):
    ids = [{"id": i, "s": s} for i, s in (("3", "train"), ("3.0", "test"), ("aB", "train"), ("Ab", "test"))]
    found = look(ids, splits=SPLIT)
    assert (found["ids.spelling_across_splits"].severity, found["ids.spelling"].severity) == ("error", "warning")
    assert found["ids.spelling_across_splits"].rows == (("3", "3.0"),)
    found = look([row | {"p": "q"} for row in ids[:1] + ids[2:3]] + [{"id": "3.0", "s": "train", "p": "z"}], group="p")
    assert found["ids.spelling"].rows == (("3", "3.0"),)


def test_a_group_called_nan(look):
    found = look([{"p": p} for p in ("nan", "a", "nan", "")], group="p")
    assert found["groups.words_for_nothing"].rows == (("r0",), ("r2",))
    assert "groups.words_for_nothing" not in look([{"p": p} for p in ("", "a", "")], group="p")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([f"{i / 7:.4f}" for i in range(42)], "labels.numbers"),
        ([i * 0.1 for i in range(42)], "labels.numbers"),
        ([f"{i},5" for i in range(42)], "labels.numbers"),
        ([f"{i}e-3" for i in range(42)], "labels.numbers"),
        ([f"$1,{100 + i}.50" for i in range(42)], "labels.numbers"),
        ([f"{i}.5 %" for i in range(42)], "labels.numbers"),
        ([str(18 + i % 60) for i in range(240)], "labels.numbers"),
        ([f"film-{i:04}" for i in range(42)], "labels.nearly_unique"),
        ([f"case {i % 25}" for i in range(40)], "labels.nearly_unique"),
        ([str(i % 5) for i in range(42)], None),
        ([str(i % 40) for i in range(800)], None),
        (["cat", "dog"] * 21, None),
    ],
)
def test_numbers_and_ids_as_classes(look, cells, expected):
    found = look([{"y": cell} for cell in cells], tasks={"y": {"column": "y"}})
    assert {"labels.numbers", "labels.nearly_unique"} & set(found) == ({expected} if expected else set())
    if expected == "labels.numbers":
        assert "regression" in found[expected].fix


@pytest.mark.parametrize(
    "text",
    ["<p>a</p>", "<IMG src='x'>", "a<br/>b", "x &eacute; y", "&#xe9;", "<!-- a -->", "<script>x</script>", "&rsquo;"],
)
def test_markup_is_told(look, text):
    assert "texts.markup" in look([{"text": text}, {}])


@pytest.mark.parametrize(
    "text", ["a < b and c > d", "p<0.05", "AT&T; R&D", "<3", "x & y;", "if (a<b) then", "salt&pepper"]
)
def test_what_is_no_markup(look, text):
    assert "texts.markup" not in look([{"text": text}, {}])


def test_the_cut_is_told_by_dates(look, tmp_path):
    look([{"day": f"2020-01-{i + 1:02}"} for i in range(20)], splits={"time": "day"})
    facts = audit(load_table(load_manifest(tmp_path / "m.yaml")), find=None).facts
    assert "    train: 2020-01-01 to 2020-01-14" in facts
    assert "    validation: 2020-01-15 to 2020-01-16" in facts
    assert "    test: 2020-01-17 to 2020-01-20" in facts
