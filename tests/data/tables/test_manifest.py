"""A manifest is legal, or refused in one line that names the key and the fix."""

import hashlib

import pytest

from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError

BASE = "name: set\nrows: rows.csv\nid: id\ntext: {columns: [report]}\n"
TASK = "tasks: {view: {column: view}}\n"


@pytest.fixture
def load(tmp_path):
    def load(text, root=None):
        path = tmp_path / "m.yaml"
        path.write_text(text, encoding="utf-8")
        return load_manifest(path, root)

    return load


def assert_refused(load, text, message, root=None):
    with pytest.raises(MmfuseError, match=message) as error:
        load(text, root)
    assert "m.yaml: " in str(error.value)
    assert "\n" not in str(error.value)


def test_paths_are_relative_to_the_manifest_and_its_bytes_are_hashed(load, tmp_path):
    text = f"{BASE}image: {{column: image, root: pictures}}\n{TASK}"
    manifest = load(text)
    assert manifest.rows == str(tmp_path / "rows.csv")
    assert manifest.image.root == str(tmp_path / "pictures")
    assert manifest.source == str(tmp_path / "m.yaml")
    assert manifest.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (manifest.tasks["view"].type, manifest.tasks["view"].label_origin) == ("classification", "human")


@pytest.mark.parametrize("rows", ["/abs/rows.csv", "s3://bucket/rows.csv", "https://host/rows.jsonl"])
def test_absolute_paths_and_urls_stay(load, rows):
    assert load(BASE.replace("rows.csv", rows)).rows == rows


def test_data_root_is_where_the_user_says(load, tmp_path, monkeypatch):
    text = BASE.replace("rows.csv", "${data_root}/rows.csv") + 'image: {column: image, root: "${data_root}"}\n'
    assert load(text, "/data").rows == "/data/rows.csv"
    assert load(text, "s3://bucket").rows == "s3://bucket/rows.csv"
    monkeypatch.setenv("MMFUSE_DATA_ROOT", "/env")
    assert load(text).image.root == "/env"
    assert load(text, "/data").image.root == "/data"
    monkeypatch.chdir(tmp_path.parent)
    assert load(text, "data").rows == str(tmp_path.parent / "data" / "rows.csv")


def test_an_unknown_data_root_tells_how_to_give_it(load, monkeypatch):
    monkeypatch.delenv("MMFUSE_DATA_ROOT", raising=False)
    assert_refused(
        load, BASE.replace("rows.csv", "${data_root}/r.csv"), r"\$\{data_root\} is not known: give --data-root"
    )
    assert_refused(load, BASE.replace("rows.csv", "${home}/r.csv"), r"only \$\{data_root\} can stand", root="/data")


@pytest.mark.parametrize("word", ["yes", "no", "on", "1", "12:30", "1e5", "1.0", "007"])
@pytest.mark.parametrize(
    "place",
    [
        "tasks: {view: {column: view, values: {WORD: a, b: b}}}",
        "tasks: {view: {column: view, values: {a: WORD, b: b}}}",
        "tasks: {view: {column: view, values: [WORD, b]}}",
        "tasks: {view: {column: view, missing: [WORD]}}",
        "splits: {column: split, names: {WORD: test}}",
    ],
)
def test_what_stands_for_a_columns_text_must_be_quoted(load, word, place):
    owner = "splits.names" if "names" in place else "tasks.view.(values|missing)"
    assert_refused(load, BASE + place.replace("WORD", word), f'{owner}: .* is not a string .* in quotes, as in "yes"')
    load(BASE + place.replace("WORD", f'"{word}"'))


def test_the_texts_missing_words_must_be_quoted(load):
    assert_refused(load, BASE.replace("[report]}", "[report], missing: [no]}"), "text.missing: False is not a string")
    assert load(BASE.replace("[report]}", '[report], missing: ["no"]}')).text.missing == ["no"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("taks: {}", "taks: no such key; .*did you mean 'tasks'"),
        ("tasks: {view: {colum: view}}", "tasks.view.colum: no such key; .*did you mean 'column'"),
        ("tasks: [view]", "tasks: a mapping"),
        ("tasks: {view: view}", "tasks.view: a mapping"),
        ("tasks:", "tasks: a mapping"),
        ("source: x", "source: no such key"),
        ("sha256: x", "sha256: no such key"),
        ("tasks: {view: {column: view, other: mising}}", "tasks.view.other: 'mising' is not legal; .*'missing'"),
        ("tasks: {view: {column: view, min_count: 0}}", "tasks.view.min_count: 0 is out of range"),
        ("tasks: {view: {column: view, label_origin: guessed}}", "label_origin: 'guessed' is not legal"),
        ("tasks: {view: {}}", "tasks.view: give either column or columns"),
        ("tasks: {view: {column: a, columns: [b]}}", "tasks.view: give either column or columns"),
        ("tasks: {view: {columns: [a, b]}}", "tasks.view: a classification needs column"),
        ("tasks: {view: {column: view, values: a}}", "tasks.view.values: a list, or a mapping"),
        ("tasks: {view: {column: report}}", "'report' is the target and a text column too"),
        ("tasks: {view: {type: multilabel, columns: [a, report]}}", "'report' is the target and a text column too"),
        ("tasks: {view: {column: view, section: findings}}", "view.section: 'findings' is not legal; only captioning"),
        (
            "tasks: {t: {type: captioning, column: a, section: finding}}",
            "t.section: 'finding' .*did you mean 'findings'",
        ),
        ("tasks: {t: {type: captioning, column: report, section: findings}}", "too: .* text.section and another one"),
        (
            'tasks: {"a.b": {column: view}}',
            r"tasks: 'a.b' cannot be a task's name; .*no dot, slash, backslash or line br",
        ),
        ('tasks: {"a/b": {column: view}}', "tasks: 'a/b' cannot be a task's name"),
        ('tasks: {"a\\\\b": {column: view}}', "cannot be a task's name"),
        ('tasks: {"a\\nb": {column: view}}', "cannot be a task's name"),
        ('tasks: {"": {column: view}}', "tasks: '' cannot be a task's name"),
        ('tasks: {" ": {column: view}}', "tasks: ' ' cannot be a task's name"),
        (f"tasks: {{{'n' * 101}: {{column: view}}}}", "cannot be a task's name; at most 100 bytes"),
        ("tasks: {1: {column: view}}", "tasks.1: Key 1"),
        ("tasks: {training: {column: view}}", "tasks.training: this name is taken"),
        ("tasks: {log_variances: {column: view}}", "tasks.log_variances: this name is taken"),
        ("image: {root: x}", "image: give either column or columns"),
        ("image: {column: a, columns: [b]}", "image: give either column or columns"),
        ("splits: {column: s, folds: 3}", "give one of column, ratios and folds, not column and folds"),
        ("splits: {ratios: {train: 1.0}, folds: 3}", "give one of column, ratios and folds, not ratios and folds"),
        ("splits: {ratios: {train: 0.7, test: 0.2}}", "splits.ratios: they sum to 0.9, not 1"),
        (
            "splits: {ratios: {train: 0.7, dev: 0.3}}",
            "splits.ratios.dev: no such split; legal: train, validation, test",
        ),
        ("splits: {ratios: {train: 1.2, test: -0.2}}", "splits.ratios.train: 1.2 is out of range"),
        ("splits: {folds: 1}", "splits.folds: 1 is out of range"),
    ],
)
def test_what_is_not_legal_names_the_key_and_the_fix(load, lines, message):
    assert_refused(load, f"{BASE}{lines}\n", message)


def test_stratify_names_a_task(load):
    assert_refused(
        load, f"{BASE}{TASK}splits: {{stratify: veiw}}\n", "splits.stratify: 'veiw' is not a task; legal: view"
    )
    assert load(f"{BASE}{TASK}splits: {{folds: 5, stratify: view}}\n").splits.stratify == "view"


def test_there_is_something_to_read(load):
    no_text = BASE.replace("text: {columns: [report]}\n", "")
    assert_refused(load, no_text, "neither image nor text is given")
    assert_refused(load, BASE.replace("[report]", "[]"), "text.columns: name the columns")
    assert load(f"{no_text}image: {{column: image}}\n").text is None


def test_a_template_names_its_columns(load):
    text = BASE.replace("[report]}", "[report, history], template: 'History: {hystory} {report}'}")
    assert_refused(load, text, r"text.template: \{hystory\} is none of its columns; .*did you mean 'history'")
    assert load(text.replace("hystory", "history")).text.template == "History: {history} {report}"


@pytest.mark.parametrize(("value", "names"), [("indication", 1), ("[indication, comparison]", 2), ("[]", 0)])
def test_a_section_or_several_are_read(load, value, names):
    assert (
        load(BASE.replace("[report]}", f"[report], section: {value}}}")).text.sections
        == (["indication", "comparison"][:names])
    )


@pytest.mark.parametrize("value", ["indicaton", "[findings, 7]", "{a: b}", "7"])
def test_a_section_is_one_that_is_known(load, value):
    text = BASE.replace("[report]}", f"[report], section: {value}}}")
    assert_refused(load, text, "text.section: .* is not a section; legal: findings, impression, indication")


@pytest.mark.parametrize("task", [", section: findings", ", section: impression", ""])
@pytest.mark.parametrize("section", ["indication", "[indication, findings]"])
def test_a_column_may_be_text_and_target_in_different_sections_only(load, section, task):
    text = BASE.replace("[report]}", f"[report], section: {section}}}")
    text += f"tasks: {{report: {{type: captioning, column: report{task}}}}}\n"
    if task == "" or (section != "indication" and "findings" in task):
        assert_refused(load, text, "'report' is the target and a text column too")
    else:
        assert load(text).tasks["report"].section == task.split()[-1]


@pytest.mark.parametrize("key", ["name", "rows", "id"])
def test_what_has_no_default_must_be_given(load, key):
    text = "\n".join(line for line in BASE.splitlines() if not line.startswith(f"{key}:"))
    assert_refused(load, text, f"{key} is missing")


def test_a_missing_manifest_is_one_line(tmp_path):
    with pytest.raises(MmfuseError, match=r"none.yaml: no such file$"):
        load_manifest(tmp_path / "none.yaml")
