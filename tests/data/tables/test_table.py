"""A manifest's rows as one table: nothing guessed, nothing missing turned into a negative, nothing leaked."""

import csv
import io
import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mmfuse.data.tables.leaks
from mmfuse.data.audit import audit
from mmfuse.data.load import load_table
from mmfuse.data.rows.read import read_rows
from mmfuse.data.tables.blocks import open_blocks
from mmfuse.data.tables.gaps import refuse_gaps
from mmfuse.data.tables.leaks import find_leaks
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.tasks import build_task
from mmfuse.types import MISSING_CLASS, MmfuseError

ALL_TRAIN = {"ratios": {"train": 1.0}}
NAN = np.nan


def write_csv(path, rows, separator=","):
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def table(tmp_path):
    """Rows (without ids) and parts of a manifest to a table."""

    def make(rows, options=None, **manifest):
        rows = [{"id": f"r{i}", "report": f"text {i}", **row} for i, row in enumerate(rows)]
        write_csv(tmp_path / "rows.csv", rows)
        values = {"name": "set", "rows": "rows.csv", "id": "id", "text": {"columns": ["report"]}, "splits": ALL_TRAIN}
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(values | manifest, sort_keys=False), encoding="utf-8")
        return load_table(load_manifest(tmp_path / "m.yaml"), **(options or {}))

    return make


def column(name, values):
    return [{name: value} for value in values]


def refusal(make, *args, **kwargs):
    with pytest.raises(MmfuseError) as error:
        make(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


# Rows, as they are.


@pytest.mark.parametrize("word", ["007", "NA", "None", "null", "nan", "1e5", "12:30", "yes", "1.0", " x "])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_what_stands_in_a_cell_is_what_it_says(tmp_path, kind, word):
    path = write_rows(tmp_path, kind, [{"id": "a", "x": word}, {"id": "b", "x": ""}])
    assert read_rows(str(path), "m").to_dict("records") == [{"id": "a", "x": word}, {"id": "b", "x": ""}]


def write_rows(folder, kind, rows):
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        pd.DataFrame(rows, dtype="str").to_parquet(path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8", newline="\n")
    else:
        write_csv(path, rows, "," if kind == "csv" else "\t")
    return path


CELL = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), include_characters='\n\t,;"\x85\u2028'))


@settings(max_examples=25, deadline=None)
@given(cells=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
def test_all_formats_give_the_same_table(tmp_path_factory, cells):
    folder = tmp_path_factory.mktemp("formats")
    rows = [{"id": str(i), "a": a, "b": b} for i, (a, b) in enumerate(cells)]
    for kind in ("csv", "tsv", "jsonl", "parquet"):
        assert read_rows(str(write_rows(folder, kind, rows)), "m").to_dict("records") == rows


def test_a_glob_is_its_files_in_order_of_name(tmp_path):
    rows = [{"id": str(i), "x": f"text {i}"} for i in range(6)]
    for i in (2, 0, 1):
        write_csv(tmp_path / f"part{i}.csv", rows[2 * i : 2 * i + 2])
    whole = write_csv(tmp_path / "whole.csv", rows)
    assert read_rows(str(tmp_path / "part*.csv"), "m").equals(read_rows(str(whole), "m"))


def test_typed_values_become_what_they_say(tmp_path):
    path = tmp_path / "rows.parquet"
    frame = pd.DataFrame(
        {"id": [1, 2], "whole": pd.array([7, None], dtype="Int64"), "part": [0.5, None], "flag": [True, False]}
    )
    frame.to_parquet(path)
    expected = [
        {"id": "1", "whole": "7", "part": "0.5", "flag": "True"},
        {"id": "2", "whole": "", "part": "", "flag": "False"},
    ]
    assert read_rows(str(path), "m").to_dict("records") == expected
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"id": 1, "whole": 7, "part": 0.5, "flag": true}\r\n\n{"id": 2, "part": null, "flag": false}\n')
    assert read_rows(str(lines), "m").to_dict("records") == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", b"id,x\n1,a,b\n2,c\n", "line 2: 3 field(s), but the header has 2"),
        ("r.csv", b"id,x\n1,a,\n2,b,\n", "line 2: 3 field(s), but the header has 2"),
        ("r.csv", b"id,x\n1,a\n2,b,c\n", "line 3: 3 field(s), but the header has 2"),
        ("r.csv", b'id,x\n1,"a\n', "line 2: a field begins with a quote that nothing ends"),
        ("r.csv", b"id,x\n1,\xfc\n", "line 2: not UTF-8: save it as UTF-8, or say csv: {encoding: cp1252}"),
        ("r.csv", b"", "an empty file"),
        ("r.csv", b"id,x\n", "no rows"),
        ("r.jsonl", b'{"a": 1}\n{"a"\n', "line 2: not JSON"),
        ("r.jsonl", b'{"a": 1}\n[1]\n', "line 2: an object"),
        ("r.parquet", b"PAR1", "r.parquet: "),
        ("r.xlsx", b"x", "cannot tell what .xlsx is; legal: csv, tsv, jsonl, parquet"),
        ("r.csv", None, "r.csv: no such file"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert message in refusal(read_rows, str(path), "m.yaml")


@pytest.mark.parametrize("pattern", ["none*.csv", "foo://rows.csv"])
def test_a_pattern_without_files_is_one_line(tmp_path, pattern):
    assert pattern.split("*")[0] in refusal(
        read_rows, pattern if "://" in pattern else str(tmp_path / pattern), "m.yaml"
    )


# Columns.


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"id": "ids"}, "id: the rows have no column 'ids'; .*did you mean 'id'"),
        ({"group": "patiant"}, "group: the rows have no column 'patiant'; .*did you mean 'patient'"),
        ({"text": {"columns": ["reprot"]}}, "text.columns: .*did you mean 'report'"),
        ({"image": {"column": "imag"}}, "image.column: .*did you mean 'image'"),
        ({"image": {"columns": ["image", "lateral"]}}, "image.columns: .*no column 'lateral'"),
        ({"tasks": {"t": {"column": "veiw"}}}, "tasks.t: .*did you mean 'view'"),
        ({"splits": {"column": "splt"}}, "splits.column: .*no column 'splt'"),
        ({"subgroups": ["sexe"]}, "subgroups: .*did you mean 'sex'"),
    ],
)
def test_a_missing_column_names_the_nearest(table, manifest, message):
    with pytest.raises(MmfuseError, match=message):
        table([{"patient": "p", "image": "i.png", "view": "a", "sex": "f"}], **manifest)


def test_texts_are_stripped_joined_and_absent_where_nothing_is_said(table):
    rows = [
        {"report": " heart normal ", "history": "cough"},
        {"report": "", "history": "fever"},
        {"report": "   ", "history": "NONE"},
        {"report": "None", "history": ""},
    ]
    made = table(rows, text={"columns": ["report", "history"], "missing": ["NONE"]})
    assert made.rows["text"][:] == ["heart normal\ncough", "fever", None, "None"]
    assert made.has_text().tolist() == [True, True, False, True]


def test_a_template_is_filled_once(table):
    rows = [{"report": "see {history}", "history": "cough"}, {"report": "", "history": ""}]
    made = table(rows, text={"columns": ["report", "history"], "template": "History: {history}. {report}"})
    assert made.rows["text"][:] == ["History: cough. see {history}", None]


def test_a_study_has_its_images_in_order(table, tmp_path):
    rows = column("image", ["a.png; b.png;", "", "http://host/c.png;/abs/d.png"])
    made = table(rows, image={"column": "image", "separator": ";", "root": "pictures"})
    root = tmp_path / "pictures"
    assert made.rows["images"][:] == [[f"{root}/a.png", f"{root}/b.png"], [], ["http://host/c.png", "/abs/d.png"]]
    assert made.has_image().tolist() == [True, False, True]
    views = [{"front": "f.png", "side": "s.png"}, {"front": "", "side": "t.png"}]
    made = table(views, image={"columns": ["front", "side"], "root": "/r"})
    assert made.rows["images"][:] == [["/r/f.png", "/r/s.png"], ["/r/t.png"]]


@pytest.mark.parametrize(
    ("ids", "message"),
    [(["a", " a "], "'a' stands in 2 rows"), (["a", ""], "a row has none"), (["", ""], "a row has none")],
)
def test_an_id_names_one_row(table, ids, message):
    assert message in refusal(table, column("id", ids))


def test_a_row_is_its_own_group_where_none_is_given(table):
    assert table(column("x", "ab")).rows["group"][:] == ["r0", "r1"]
    assert table(column("patient", ["p", ""]), group="patient").rows["group"][:] == ["p", "row r1"]


def test_a_row_as_a_sample(table):
    made = table(
        [{"image": "i.png", "sex": "f", "patient": "p"}], group="patient", image={"column": "image"}, subgroups=["sex"]
    )
    sample = made.sample(0)
    assert (sample.id, sample.text, sample.group, sample.subgroups) == ("r0", "text 0", "p", {"sex": "f"})
    assert sample.images == (made.rows["images"][0][0],)


# Targets.


def encoded(table, cells, options=None, **task):
    made = table(column("y", cells), options, tasks={"t": {"column": "y", **task}})
    return made.labels["t"], made.targets["t"].tolist()


def test_classes_are_in_sorted_order_and_an_empty_target_is_missing(table):
    labels, target = encoded(table, ["pa", " ap ", "", "pa"])
    assert (labels, target) == (["ap", "pa"], [1, 0, MISSING_CLASS, 1])


def test_a_declared_missing_word_is_missing_and_never_a_class(table):
    labels, target = encoded(table, ["a", "NA", "b", "unclear"], missing=["NA", "unclear"])
    assert (labels, target) == (["a", "b"], [0, MISSING_CLASS, 1, MISSING_CLASS])


def test_values_say_which_classes_there_are_in_which_order(table):
    labels, target = encoded(table, ["Y", "N", "Y"], values={"Y": "yes", "N": "no"})
    assert (labels, target) == (["yes", "no"], [0, 1, 0])
    labels, target = encoded(table, ["b", "b"], values=["c", "b"])
    assert (labels, target) == (["c", "b"], [1, 1])


def test_another_value_is_an_error_unless_it_is_declared_missing(table):
    message = refusal(encoded, table, ["Y", "Yes", "N"], values={"Y": "yes", "N": "no"})
    assert "tasks.t: row 2: 'Yes' is not in values; legal: Y, N (or other: missing)" in message
    _, target = encoded(table, ["Y", "Yes", "N"], values={"Y": "yes", "N": "no"}, other="missing")
    assert target == [0, MISSING_CLASS, 1]


@pytest.mark.parametrize("values", [None, ["a", "b", "c", "d"]])
def test_rows_of_a_rare_class_are_missing(table, values):
    labels, target = encoded(table, ["a", "b", "a", "c", "b"], min_count=2, **({"values": values} if values else {}))
    assert (labels, target) == (["a", "b"], [0, 1, 0, MISSING_CLASS, 1])


def test_one_class_is_no_classification(table):
    assert "only ['a'] is left as label" in refusal(encoded, table, ["a", "a", "b"], min_count=2)


def test_lists_of_labels(table):
    task = {"type": "multilabel", "separator": ", "}
    labels, target = encoded(table, ["b, a", "", "a,b", "c"], **task)
    assert labels == ["a", "b", "c"]
    assert np.array_equal(target, [[1, 1, 0], [NAN] * 3, [1, 1, 0], [0, 0, 1]], equal_nan=True)
    _, target = encoded(table, ["b, a", "", "a,b", "c"], empty="negative", **task)
    assert target[1] == [0, 0, 0]
    labels, target = encoded(table, ["b, a", "NA", "a,b", "c"], min_count=2, missing=["NA"], **task)
    assert labels == ["a", "b"]
    assert np.array_equal(target, [[1, 1], [NAN, NAN], [1, 1], [0, 0]], equal_nan=True)


def test_lists_of_labels_with_declared_values(table):
    task = {"type": "multilabel", "separator": ";", "values": {"eff": "effusion", "nod": "nodule"}}
    labels, target = encoded(table, ["eff;nod", "nod"], **task)
    assert (labels, target) == (["effusion", "nodule"], [[1, 1], [0, 1]])
    assert "row 2: 'node' is not in values" in refusal(encoded, table, ["eff;nod", "node"], **task)
    _, target = encoded(table, ["eff;nod", "node"], other="missing", **task)
    assert target == [[1, 1], [0, 0]]
    assert "no row has a label" in refusal(encoded, table, ["", ""], empty="negative", **task)


@pytest.mark.parametrize(("policy", "value"), [("mask", NAN), ("positive", 1.0), ("negative", 0.0)])
def test_uncertain_is_a_declared_choice(table, policy, value):
    rows = [{"p": "1.0", "q": "0"}, {"p": "-1", "q": "yes"}, {"p": "", "q": "-1.0"}, {"p": "0", "q": "NA"}]
    task = {"type": "multilabel", "columns": ["q", "p"], "uncertain": policy, "missing": ["NA"]}
    made = table(rows, tasks={"t": task})
    expected = [[1, 0], [value, 1], [NAN, value], [0, NAN]]
    assert made.labels["t"] == ["p", "q"]
    assert np.array_equal(made.targets["t"], expected, equal_nan=True)


def test_uncertain_is_masked_by_default(table):
    made = table(column("p", ["1", "-1", "0"]), tasks={"t": {"type": "multilabel", "columns": ["p"]}})
    assert np.array_equal(made.targets["t"], [[1], [NAN], [0]], equal_nan=True)


@pytest.mark.parametrize(("policy", "value"), [("missing", NAN), ("negative", 0.0)])
def test_an_empty_label_column_is_a_declared_choice(table, policy, value):
    rows = [{"p": "1", "q": ""}, {"p": " ", "q": "1"}, {"p": "NA", "q": "0"}]
    task = {"type": "multilabel", "columns": ["p", "q"], "empty": policy, "missing": ["NA"]}
    made = table(rows, tasks={"t": task})
    assert np.array_equal(made.targets["t"], [[1, value], [value, 1], [NAN, 0]], equal_nan=True)


def test_label_columns_of_another_value_or_too_few_positives(table):
    rows = [{"p": "1", "q": "1"}, {"p": "1", "q": "maybe"}]
    task = {"type": "multilabel", "columns": ["p", "q"]}
    assert "column 'q', row 2: 'maybe'; legal: 1, 0, -1" in refusal(table, rows, tasks={"t": task})
    assert table(rows, tasks={"t": {**task, "missing": ["maybe"], "min_count": 2}}).labels["t"] == ["p"]


@pytest.mark.parametrize(
    ("rows", "task"),
    [
        (column("y", ["b", "a", "", "b"]), {"column": "y"}),
        (column("y", ["b;a", "a", "", "b"]), {"type": "multilabel", "column": "y", "separator": ";"}),
        ([{"a": "1", "b": "0"}, {"a": "", "b": "1"}], {"type": "multilabel", "columns": ["a", "b"]}),
    ],
    ids=["classes", "lists", "columns"],
)
class TestLabelsOfAModel:
    """A table encoded for a model has that model's labels, in its order."""

    def test_its_order_is_kept_and_what_does_not_occur_too(self, table, rows, task):
        own = table(rows, tasks={"t": task})
        other = table(rows, {"labels": {"t": ["c", "b", "a"]}}, tasks={"t": task})
        assert own.labels["t"] == ["a", "b"]
        assert other.labels["t"] == ["c", "b", "a"]
        known, hot = (made.kind("t").one_hot(made.targets["t"]) for made in (own, other))
        assert np.array_equal(hot, np.stack([0 * known[:, 0], known[:, 1], known[:, 0]], 1))

    def test_any_other_label_is_an_error(self, table, rows, task):
        message = refusal(table, rows, {"labels": {"t": ["a", "c"]}}, tasks={"t": task})
        assert "tasks.t: label 'b' is not one of the model's; legal: a, c" in message

    def test_what_min_count_leaves_out_is_no_error(self, table, rows, task):
        made = table(rows, {"labels": {"t": ["c", "a"]}}, tasks={"t": {**task, "min_count": 3}})
        assert made.labels["t"] == ["c", "a"]
        assert made.kind("t").one_hot(made.targets["t"])[:, 1].sum() >= 1


@given(
    target=st.lists(st.sampled_from([MISSING_CLASS, 0, 1, 2]), min_size=1, max_size=10),
)
def test_a_missing_class_counts_for_none(target):
    hot = build_task("classification", list("abc")).one_hot(np.array(target))
    assert hot.tolist() == [[float(t == c) for c in range(3)] for t in target]


def test_only_the_tasks_that_are_wanted_are_read(table):
    rows = [{"a": "x", "b": "only"}, {"a": "y", "b": "only"}]
    tasks = {"a": {"column": "a"}, "b": {"column": "b"}}
    assert list(table(rows, {"tasks": ["a"]}, tasks=tasks).labels) == ["a"]
    with pytest.raises(MmfuseError, match="no task 'aa'; legal: a, b"):
        table(rows, {"tasks": ["aa"]}, tasks=tasks)


# Splits.


def test_a_column_says_the_split_in_its_own_words(table):
    made = table(column("s", ["train", "val", " test "]), splits={"column": "s", "names": {"val": "validation"}})
    assert made.splits == ["train", "validation", "test"]
    assert (made.indices("validation"), made.indices("test")) == ([1], [2])
    message = refusal(table, column("s", ["train", "dev"]), splits={"column": "s"})
    assert "row 'r1' says 'dev'; legal: train, validation, test (splits.names translates" in message


def test_an_empty_split_is_an_error_that_counts_the_others(table):
    with pytest.raises(MmfuseError, match=r"no row is in split 'test'; rows a split: train 3"):
        table(column("x", "abc")).indices("test")


def test_splits_by_hash_are_the_default_and_of_seven_one_two(table):
    made = table(column("x", range(600)), splits={})
    counts = Counter(made.splits)
    assert abs(counts["train"] - 420) < 60
    assert abs(counts["validation"] - 60) < 40
    grown = table(column("x", range(700)), splits={})
    assert grown.splits[:600] == made.splits


def test_saved_splits_name_every_row(table, tmp_path):
    made = table(column("patient", ["p", "p", "q,"]), group="patient")
    made.save_splits(tmp_path / "splits.csv")
    with (tmp_path / "splits.csv").open(newline="") as handle:
        assert list(csv.reader(handle)) == [
            ["id", "group", "split"],
            *map(list, zip(["r0", "r1", "r2"], ["p", "p", "q,"], made.splits, strict=True)),
        ]


def cohort(rows, seed):
    rng = np.random.default_rng(seed)
    return [
        {"patient": f"p{rng.integers(rows // 2)}", "y": rng.choice(["a", "b", "c"], p=[0.6, 0.3, 0.1])}
        for _ in range(rows)
    ]


@pytest.mark.parametrize("stratify", [None, "t"])
def test_folds_put_every_row_in_one_test_set(table, stratify):
    rows = cohort(90, 0)
    splits = {"folds": 3, "repeats": 2, "validation": 0.2}
    manifest = {
        "group": "patient",
        "tasks": {"t": {"column": "y"}},
        "splits": splits | ({"stratify": stratify} if stratify else {}),
    }
    made = [table(rows, {"fold": fold}, **manifest) for fold in range(6)]
    for repeat in (made[:3], made[3:]):
        assert np.stack([np.array(t.splits) == "test" for t in repeat]).sum(0).tolist() == [1] * 90
        for t in repeat:
            assert set(t.splits) == {"train", "validation", "test"}
            assert len(set(zip(t.rows["group"], t.splits, strict=True))) == len(set(t.rows["group"]))
    assert made[0].splits != made[3].splits
    if stratify:
        for t in made:
            hot = t.kind("t").one_hot(t.targets["t"])
            share = hot[np.array(t.splits) == "test"].sum(0) / hot.sum(0)
            assert np.abs(share - 1 / 3).max() < 0.12


def test_a_fold_must_be_chosen_and_must_exist(table):
    splits = {"folds": 3, "repeats": 2}
    for fold in (None, 6, -1):
        with pytest.raises(MmfuseError, match=r"the manifest says 6 folds: choose one with data.fold=0 to 5"):
            table(column("x", "abcdef"), {"fold": fold}, splits=splits)
    with pytest.raises(MmfuseError, match=r"data.fold is given, but splits.folds is not"):
        table(column("x", "abc"), {"fold": 0})


def test_stratifying_by_a_task_that_is_not_trained(table):
    rows = [{"a": "xy"[i % 2], "y": "uv"[i % 5 == 0]} for i in range(100)]
    tasks = {"a": {"column": "a"}, "t": {"column": "y"}}
    splits = {"ratios": {"train": 0.8, "test": 0.2}, "stratify": "t"}
    made = table(rows, {"tasks": ["a"]}, tasks=tasks, splits=splits)
    rare = [split for split, row in zip(made.splits, rows, strict=True) if row["y"] == "v"]
    assert Counter(rare) == {"train": 16, "test": 4}


# Leaks.


def test_a_group_in_two_splits_is_refused(table):
    rows = [{"patient": "p", "s": "train"}, {"patient": "q", "s": "test"}, {"patient": "p", "s": "test"}]
    message = refusal(table, rows, group="patient", splits={"column": "s"})
    assert "group 'p' is in two splits: row 'r0' is train, row 'r2' is test" in message


@pytest.fixture
def pictures(tmp_path):
    for name, level in (("a", 0), ("copy_of_a", 0), ("b", 255)):
        Image.new("L", (4, 4), level).save(tmp_path / f"{name}.png")


@pytest.mark.parametrize(
    ("second", "leaks"),
    [
        ({"report": "same", "image": "copy_of_a.png"}, True),
        ({"report": "same", "image": "a.png"}, True),
        ({"report": "same", "image": "b.png"}, False),
        ({"report": "same", "image": ""}, False),
        ({"report": "other", "image": "copy_of_a.png"}, False),
        ({"report": "same", "image": "copy_of_a.png", "s": "train"}, False),
    ],
)
def test_exact_duplicates_across_splits_are_found_by_content(table, pictures, second, leaks):
    rows = [{"report": "same", "image": "a.png", "s": "train"}, {"s": "test", **second}]
    manifest = {"image": {"column": "image"}, "splits": {"column": "s"}}
    if not leaks:
        assert len(table(rows, **manifest)) == 2
        return
    message = refusal(table, rows, **manifest)
    assert "1 exact duplicate(s) across splits, such as rows 'r0' and 'r1'" in message
    assert "same" not in message.split("such as")[1].split(":")[0]


def test_duplicates_without_a_text_are_found_too(table, pictures):
    rows = [{"report": "", "image": "a.png", "s": "train"}, {"report": "", "image": "copy_of_a.png", "s": "test"}]
    assert "exact duplicate" in refusal(table, rows, image={"column": "image"}, splits={"column": "s"})


@pytest.mark.parametrize("image", ["absent.png", "foo://x.png"])
def test_an_image_that_cannot_be_opened_counts_as_itself(table, image):
    rows = [
        {"report": "same", "image": f"/{i}/{image}" if i else image, "s": s} for i, s in enumerate(["train", "test"])
    ]
    assert len(table(rows, image={"column": "image"}, splits={"column": "s"})) == 2


def test_leaks_may_be_allowed_and_are_then_told(table, pictures):
    rows = [
        {"patient": "p", "report": "same", "image": "a.png", "s": "train"},
        {"patient": "p", "report": "same", "image": "copy_of_a.png", "s": "test"},
    ]
    given = {"group": "patient", "image": {"column": "image"}, "splits": {"column": "s"}}
    made = table(rows, {"allow_leaks": True}, **given)
    group, duplicate = find_leaks(made)
    assert "group 'p' is in two splits" in group
    assert "1 exact duplicate(s) across splits" in duplicate
    made.splits[1] = "train"
    assert find_leaks(made) == []


def test_equal_hashes_alone_are_no_leak(table, pictures, monkeypatch):
    rows = [{"image": "a.png", "s": s} for s in ("train", "test")]  # other texts, other groups
    made = table(rows, image={"column": "image"}, splits={"column": "s"})
    monkeypatch.setattr(mmfuse.data.tables.leaks, "_hashes", lambda values: np.zeros(len(list(values)), dtype=np.int64))
    assert find_leaks(made) == []


def test_the_audit_tells_what_is_there_and_what_is_wrong(table, pictures, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows = [
        {"image": "a.png", "y": "u", "s": "train"},
        {"image": "b.png", "y": "v", "s": "test"},
        {"image": "broken.png", "y": "u", "s": "train"},
        {"image": "", "report": "", "y": "", "s": "train"},
    ]
    made = table(rows, image={"column": "image"}, tasks={"t": {"column": "y"}}, splits={"column": "s"})
    seen = []
    report = audit(made, progress=lambda *done: seen.append(done))
    assert ("images", 3, 3) in seen
    assert "set: 4 rows, 4 groups; train 3, validation 0, test 1" in report.facts
    assert "text: 3 rows, 1 without; image: 3 rows, 1 without" in report.facts
    assert any("3 rows with a target" in line for line in report.facts)
    wrong = {found.check: found.rows for found in report.of("error")}
    assert wrong == {
        "rows.empty": (("r3",),),
        "images.unreadable": (("r2",),),
        "labels.never_in_training": (),
    }
    assert report.text().count("ERROR") == 3


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    text = io.StringIO()
    csv.writer(text).writerows([["id", "x"], ["1", "a"]])
    (tmp_path / "r.csv").write_text(text.getvalue(), encoding="utf-8-sig")
    assert list(read_rows(str(tmp_path / "r.csv"), "m").columns) == ["id", "x"]


def test_labels_that_a_split_lacks_are_told_before_training(table):
    splits = ["train"] * 3 + ["validation"] * 2 + ["test"] * 2
    rows = [{"y": y, "split": split} for y, split in zip("abcabab", splits, strict=True)]
    made = table(rows, tasks={"y": {"type": "classification", "column": "y"}}, splits={"column": "split"})
    told = [gap.message for gap in refuse_gaps(made)]
    assert told == [
        f"tasks.y: no row of the {split} split has 'c': their scores are undefined there, and macro averages are over "
        "2 of 3 labels at most"
        for split in ("validation", "test")
    ]


def test_the_number_of_a_row_is_its_id_where_no_column_is_called_row(tmp_path):
    rows = [{"text": f"a text {i}", "y": "ab"[i % 2]} for i in range(12)]
    write_csv(tmp_path / "a.csv", rows)
    values = {"name": "x", "rows": "a.csv", "id": "row", "text": {"columns": ["text"]}, "tasks": {"y": {"column": "y"}}}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(values))
    manifest = load_manifest(tmp_path / "m.yaml")
    assert load_table(manifest).rows["id"][:] == [str(i) for i in range(1, 13)]
    told = []
    blocks = open_blocks(manifest, tell=told.append)
    assert [i for block in blocks.blocks() for i in block["id"]] == [str(i) for i in range(1, 13)]
    assert "id: row needs all rows in memory" in told[0]
    write_csv(tmp_path / "a.csv", [{"row": f"r{i}", **row} for i, row in enumerate(rows)])
    assert load_table(manifest).rows["id"][:] == [f"r{i}" for i in range(12)]
