"""The audit: every planted problem is found in its rows, and a clean set raises nothing."""

import csv
import itertools
import json
import sys
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmfuse.data.audit import audit
from mmfuse.data.audit.identifiers import find_by_rules, presidio_finder, redact
from mmfuse.data.audit.images import perceptual_hash
from mmfuse.data.audit.near import near_hashes, near_texts, tell_crowded
from mmfuse.data.audit.page import page
from mmfuse.data.audit.redact import redact_rows
from mmfuse.data.audit.texts import check_text_copies, estimate_tokens
from mmfuse.data.load import load_table
from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError

pytestmark = pytest.mark.heavy

NOTE = (
    "Elderly gentleman returned from a sailing trip along the northern coast complaining of breathlessness whenever "
    "climbing stairs; auscultation disclosed bilateral crackles, saturation fell below ninety during walking."
)
OTHER = (
    "Young teacher presented after three nights with shivering and productive cough, denied travelling abroad, lives "
    "together with two children who recently recovered from whooping cough treated by their paediatrician."
)
IDENTIFIERS = {
    "name": "Seen by Dr. Jane Quill.",
    "date": "Admitted 2019-11-28.",
    "record": "MRN 8812345.",
    "phone": "Call 555-010-4477.",
    "email": "Write to quill@example.org.",
    "address": "Lives at 12 Harbour Street.",
    "ssn": "Number 123-45-6789.",
}


def write(folder: Path, rows: list[dict], manifest: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump({"name": "set", "rows": "data.csv", "id": "id", **manifest}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("clean"), 400, seed=0)


class Dirt:
    """A phantom in which problems are planted: each takes rows that no other one has, and remembers them."""

    def __init__(self, clean: Path, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        with (clean.parent / "data.csv").open(encoding="utf-8") as file:
            self.rows = list(csv.DictReader(file))
        shared = [p for p, n in pd.Series([r["patient"] for r in self.rows]).value_counts().items() if n > 1]
        for row in self.rows:
            row |= {"image": str(clean.parent / row["image"]), "tags": "", "caption": "", "grade": "low"}
            row |= {"kind": "cat" if len(row["text"]) % 2 else "dog", "score": "", "code": "", "never": "0"}
            row["often"] = "1" if row["kind"] == "cat" else "0"
        self.free = {
            split: [r for r in self.rows if r["split"] == split and r["patient"] not in shared]
            for split in ("train", "test")
        }
        self.pairs = [[r for r in self.rows if r["patient"] == p] for p in shared]
        self.planted: dict[str, set[str]] = {}

    def plant(self, check: str, *splits: str) -> list[dict]:
        taken = [self.free[split].pop() for split in splits]
        self.planted[check] = {row["id"] for row in taken}
        return taken

    def picture(self, name: str, pixels: np.ndarray) -> str:
        Image.fromarray(pixels).save(self.folder / name)
        return str(self.folder / name)


def plant_all(dirt: Dirt) -> None:
    rng = np.random.default_rng(0)
    (row,) = dirt.plant("images.missing", "train")
    row["image"] = str(dirt.folder / "nowhere.png")
    (row,) = dirt.plant("images.unreadable", "train")
    (dirt.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    row["image"] = str(dirt.folder / "broken.png")
    for check, other in (("images.copies_across_splits", "test"), ("images.copies", "train")):
        one, two = dirt.plant(check, "train", other)
        two["image"] = one["image"]
    for check, other in (("images.near_copies_across_splits", "test"), ("images.near_copies", "train")):
        one, two = dirt.plant(check, "train", other)
        path = str(dirt.folder / f"{check}.jpg")
        Image.open(one["image"]).convert("RGB").resize((96, 96)).save(path, quality=70)
        two["image"] = path
    (row,) = dirt.plant("images.blank", "train")
    row["image"] = dirt.picture("blank.png", np.full((64, 64), 3, np.uint8))
    (row,) = dirt.plant("images.small", "train")
    row["image"] = dirt.picture("small.png", rng.integers(0, 256, (16, 20), np.uint8))
    (row,) = dirt.plant("images.narrow", "train")
    row["image"] = dirt.picture("narrow.png", rng.integers(0, 256, (400, 40), np.uint8))
    (row,) = dirt.plant("images.frames", "train")
    frames = [Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8)) for _ in range(3)]
    row["image"] = str(dirt.folder / "moving.gif")
    frames[0].save(row["image"], save_all=True, append_images=frames[1:])
    (row,) = dirt.plant("rows.empty", "train")
    row |= {"image": "", "text": ""}
    for check, other in (("rows.copies_across_splits", "test"), ("rows.copies", "train")):
        one, two = dirt.plant(check, "train", other)
        two |= {"image": one["image"], "text": one["text"]}
    (row,) = dirt.plant("texts.absent", "train")
    row["text"] = ""
    dirt.planted["texts.absent"] |= dirt.planted["rows.empty"]
    for check, words in (
        ("texts.undecodable", "temp\ufffdrature"),
        ("texts.mojibake", "fiÃ¨vre"),
        ("texts.lost_characters", "38.5?C"),
        ("texts.control_characters", "a\x00b"),
        ("texts.markup", "<br>None.&nbsp;"),
        ("texts.long", " ".join(f"w{i}" for i in range(600))),
        *((f"identifiers.{kind}", words) for kind, words in IDENTIFIERS.items()),
    ):
        (row,) = dirt.plant(check, "train")
        row["text"] += f" {words}"
    near = {NOTE: NOTE.replace("Elderly gentleman", "ELDERLY man,"), OTHER: OTHER.replace("three", "four")}
    for note, (check, other) in zip((NOTE, OTHER), (("_across_splits", "test"), ("", "train")), strict=True):
        one, two = dirt.plant(f"texts.copies{check}", "train", other)
        one["text"] = two["text"] = " ".join(reversed(note.split()))
        one, two = dirt.plant(f"texts.near_copies{check}", "train", other)
        one["text"], two["text"] = note, near[note]
    one, two = dirt.pairs.pop()
    two["text"] = one["text"]
    dirt.planted["texts.copies_in_a_group"] = {one["id"], two["id"]}
    one, two = dirt.pairs.pop()
    two["image"] = one["image"]
    dirt.planted["images.copies_in_a_group"] = {one["id"], two["id"]}
    one, two = dirt.plant("groups.in_two_splits", "train", "test")
    two["patient"] = one["patient"]
    (row,) = dirt.plant("groups.unnamed", "train")
    row["patient"] = ""
    plant_spellings(dirt)
    for row in dirt.plant("labels.named_in_text", *["train"] * 15, *["test"] * 25):
        row |= {"text": row["text"] + " Zebra seen by MRN ZEB-44770.", "tags": "zebra"}
    for row in dirt.plant("labels.few", *["train"] * 2):
        row["tags"] = "rare"
    (row,) = dirt.plant("labels.never_in_training", "test")
    row["tags"] = "late"
    (row,) = dirt.plant("captions.in_the_input", "train")
    row |= {"caption": "the lungs are quite clear today", "text": row["text"] + " The lungs are QUITE clear, today!"}
    (row,) = dirt.plant("labels.illegal", "train")
    row["grade"] = "middling"
    for check in ("labels.few", "labels.never_in_training", "labels.illegal"):  # told by label, not by row
        dirt.planted[check] = set()
    dirt.planted["identifiers.record"] |= dirt.planted["labels.named_in_text"]
    told_by_task = ("labels.absent", "labels.imbalance", "labels.told_by_text", "labels.not_monitored")
    told_by_task += ("labels.numbers", "labels.nearly_unique", "labels.left_out", "splits.without_targets")
    dirt.planted |= {check: set() for check in told_by_task}
    both = [dirt.planted["rows.copies_across_splits"], dirt.planted["rows.copies"]]
    said = {row["id"]: (row["findings"], row["kind"]) for row in dirt.rows}
    dirt.planted["labels.copies_disagree"] = set().union(*(ids for ids in both if len({said[i] for i in ids}) > 1))


def plant_spellings(dirt: Dirt) -> None:
    for check, other, name, again in (
        ("groups.spelling", "train", "caf\u00e9 7", "CAFE\u0301 7"),
        ("groups.spelling_across_splits", "test", "9001", "9001.0"),
    ):
        one, two = dirt.plant(check, "train", other)
        one["patient"], two["patient"] = name, again
    one, two = dirt.plant("ids.spelling", "train", "train")
    two["id"] = one["id"].upper()
    dirt.planted["ids.spelling"] = {one["id"], two["id"]}
    (row,) = dirt.plant("groups.words_for_nothing", "train")
    row["patient"] = "nan"
    (row,) = dirt.plant("texts.words_for_nothing", "train")
    row["text"] = "N/A"
    (row,) = dirt.plant("labels.spelling", "train")
    row["kind"] = " Cat"
    (row,) = dirt.plant("labels.words_for_nothing", "train")
    row["kind"] = "None"
    (row,) = dirt.plant("subgroups.spelling", "train")
    row["sex"] = row["sex"].lower()
    for number, row in enumerate(dirt.plant("labels.numbers", *["train"] * 12)):
        row |= {"score": f"{number / 7:.3f}", "code": f"film {number} of {row['id']}"}


TASKS = {
    "tags": {
        "type": "multilabel",
        "column": "tags",
        "separator": ";",
        "empty": "negative",
        "label_origin": "mined_from_text",
    },
    "caption": {"type": "captioning", "column": "caption"},
    "grade": {"column": "grade", "values": ["low", "high"]},
    "kind": {"column": "kind"},
    "score": {"column": "score"},
    "code": {"column": "code"},
    "flags": {"type": "multilabel", "columns": ["often", "never"]},
}


@pytest.fixture(scope="module")
def dirty(clean, tmp_path_factory):
    dirt = Dirt(clean, tmp_path_factory.mktemp("dirty") / "set")
    plant_all(dirt)
    manifest = yaml.safe_load(clean.read_text(encoding="utf-8"))
    manifest["tasks"] |= TASKS
    path = write(dirt.folder, dirt.rows, manifest)
    return dirt, path, audit(load_manifest(path), max_tokens=512)


def test_every_planted_problem_is_found_in_its_rows_and_nothing_else(dirty):
    dirt, _, report = dirty
    found = {f.check: {name for together in f.rows for name in together} for f in report.findings}
    bad = {f.check for f in report.findings if f.severity != "info"}
    assert len(dirt.planted) >= 57
    assert set(dirt.planted) - set(found) == set()
    assert bad - set(dirt.planted) == set()
    for check, rows in dirt.planted.items():
        assert found[check] == rows, check
    count = {f.check: f.count for f in report.findings}
    assert count["labels.named_in_text"] == 40
    assert count["images.copies_across_splits"] == 1


def test_the_messages_name_labels_words_and_origin(dirty):
    said = "\n".join(f"{f.severity} {f.check}: {f.message}" for f in dirty[2].findings)
    assert "the text alone tells 1 label(s): 'zebra' (AUROC 1.000) by zebra" in said
    assert "mined_from_text" in said
    assert "warning labels.few: task tags: fewer than 10 positives: 'rare' (2 in train)" in said
    assert "labels.never_in_training: task tags: never in the training split: 'late'" in said
    assert "'middling' is not in values" in said
    severities = [f.severity for f in dirty[2].findings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)


def test_no_identifier_and_no_text_is_in_any_report(dirty):
    report = dirty[2]
    written = report.text() + page(report) + json.dumps(report.as_json())
    for secret in (
        "zeb,",
        "ZEB",
        "44770",
        "Quill",
        "2019-11-28",
        "8812345",
        "4477",
        "Harbour",
        "6789",
        "gentleman",
        "paediatrician",
    ):
        assert secret not in written


@pytest.mark.parametrize("seed", [1, 2])
def test_clean_phantoms_raise_nothing(tmp_path, seed):
    report = audit(load_manifest(write_phantom(tmp_path / "phantom", 300, seed=seed)))
    assert [f for f in report.findings if f.severity != "info"] == []
    assert not report.fails(strict=True)


class TestSmallSets:
    """What a table is as a whole: no images, a handful of rows."""

    def checks(self, tmp_path, rows, **manifest):
        manifest = {"text": {"columns": ["text"]}, "splits": {"column": "split"}, **manifest}
        report = audit(load_manifest(write(tmp_path, rows, manifest)))
        return {f.check: f for f in report.findings}, report

    def rows(self, n, split=lambda i: "train", name="r{}"):
        return [{"id": name.format(i), "text": f"unlike number{i}", "split": split(i)} for i in range(n)]

    def test_a_split_without_rows(self, tmp_path):
        found, _ = self.checks(tmp_path, self.rows(20, lambda i: "test" if i < 4 else "validation"))
        assert found["splits.empty"].severity == "error"
        found, _ = self.checks(tmp_path, self.rows(20, lambda i: "test" if i < 4 else "train"))
        assert found["splits.empty"].severity == "warning"
        assert "validation" in found["splits.empty"].message

    def test_a_test_split_that_is_too_small(self, tmp_path):
        rows = self.rows(60, lambda i: ("test", "validation")[i] if i < 2 else "train")
        assert "test has 1.7%" in self.checks(tmp_path, rows)[0]["splits.sizes"].message

    def test_ids_that_look_like_groups(self, tmp_path):
        rows = self.rows(20)
        for i, row in enumerate(rows):
            row["id"] = f"patient{i // 2}_{i % 2}"
        assert self.checks(tmp_path, rows)[0]["groups.ids_share_a_pattern"].count == 10
        rows = self.rows(20, name="film_{:04d}")
        assert "groups.ids_share_a_pattern" not in self.checks(tmp_path, rows)[0]

    def test_a_group_that_is_most_of_it(self, tmp_path):
        rows = [row | {"p": "one" if i < 8 else str(i)} for i, row in enumerate(self.rows(20))]
        assert "8 of 20 rows" in self.checks(tmp_path, rows, group="p")[0]["groups.large"].message

    def test_a_table_that_cannot_be_read_at_all(self, tmp_path):
        found, report = self.checks(tmp_path, [*self.rows(2), *self.rows(1)])
        assert list(found) == ["table.unreadable"]
        assert "'r0' stands in 2 rows" in found["table.unreadable"].message
        assert report.fails()
        assert "nothing could be read" in page(report)

    def test_illegal_values_of_the_task_that_splits_are_stratified_by(self, tmp_path):
        rows = [row | {"y": "ab"[i % 2], "z": "cd"[i % 2]} for i, row in enumerate(self.rows(60))]
        rows[7]["y"] = "c"
        tasks = {"y": {"column": "y", "values": ["a", "b"]}, "z": {"column": "z"}}
        found, report = self.checks(tmp_path, rows, tasks=tasks, splits={"stratify": "y"})
        assert "row 8: 'c' is not in values" in found["labels.illegal"].message
        assert any(fact.startswith("task z (classification") for fact in report.facts)

    def test_markup_in_names_is_escaped(self, tmp_path):
        rows = self.rows(3)
        rows[0] |= {"id": "<script>alert(1)</script>", "text": ""}
        _, report = self.checks(tmp_path, rows, name="<b>&")
        shown = page(report)
        assert "<script>" not in shown
        assert "&lt;script&gt;alert(1)" in shown
        assert "<b>" not in shown

    def test_a_perfect_score_on_few_rows_is_no_proof(self, tmp_path):
        rows = [
            row | {"y": "ab"[i % 2]} for i, row in enumerate(self.rows(70, lambda i: "test" if i < 24 else "train"))
        ]
        for row in rows:
            row["text"] += " alpha" if row["y"] == "a" else " beta"
        found, report = self.checks(tmp_path, rows, tasks={"t": {"column": "y"}})
        assert "    a: AUROC 1.000 by alpha" in report.facts
        assert "labels.told_by_text" not in found

    def test_folds_are_probed_by_group(self, tmp_path):
        rows = [row | {"y": "ab"[i % 2], "p": str(i // 4)} for i, row in enumerate(self.rows(120))]
        for row in rows:
            row["text"] += " alpha" if row["y"] == "a" else " beta"
        task = {"t": {"column": "y"}}
        found, report = self.checks(tmp_path, rows, group="p", splits={"folds": 5}, tasks=task)
        assert "'a' (AUROC 1.000) by alpha; 'b' (AUROC 1.000) by beta" in found["labels.told_by_text"].message
        assert "    a: AUROC 1.000 by alpha" in report.facts


def test_the_perceptual_hash_is_that_of_imagehash():
    draw = np.random.default_rng(0)
    for height, width in ((64, 64), (7, 300), (200, 131), (1, 1), (3000, 90)):
        image = Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))
        smooth = image.resize((3, 2)).resize((width, height))
        for one in (image, smooth, Image.new("RGB", (width, height), "white")):
            assert np.array_equal(perceptual_hash(one), imagehash.phash(one, hash_size=16).hash)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_near_hashes_are_those_of_comparing_all(seed, distance):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (30, 32), np.uint8)
    flips = rng.random((30, 256)) < 0.03
    hashes = np.concatenate([base, base ^ np.packbits(flips, axis=1)])
    differ = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(-1)
    expected = [[a, b] for a, b in itertools.combinations(range(60), 2) if differ[a, b] <= distance]
    assert near_hashes(hashes, distance).pairs.tolist() == expected


@pytest.mark.parametrize("whole", range(9))
def test_hashes_that_agree_in_one_band_only_are_found(whole):
    """Eight of the 256 bits differ, one in every ninth of them but one."""
    places = [(2 * k + 1) * 256 // 18 for k in range(9) if k != whole]
    one = np.zeros(256, np.uint8)
    other = one.copy()
    other[places] = 1
    hashes = np.packbits(np.stack([one, other]), axis=1)
    assert near_hashes(hashes, 8).pairs.tolist() == [[0, 1]]
    assert near_hashes(hashes, 7).pairs.tolist() == []


@pytest.mark.parametrize(("number", "crowded"), [(1024, 0), (1025, 1025)])
def test_a_band_that_too_many_share_is_told(number, crowded):
    hashes = np.random.default_rng(0).integers(0, 256, (number, 32), np.uint8)
    hashes[:, :4] = 0
    pairs, found = near_hashes(hashes, 8)
    assert found == crowded
    assert not len(pairs)
    assert [one.count for one in tell_crowded("images", found)] == [crowded] * bool(crowded)


def test_near_texts_are_pairs_of_like_texts():
    words = [f"word{i}" for i in range(400)]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 60)) for _ in range(100)]
    changed = [text.replace(text.split()[7], "other") for text in texts[:20]]
    assert near_texts(texts + changed, 0.85).pairs.tolist() == [[i, 100 + i] for i in range(20)]
    assert near_texts([], 0.85).pairs.shape == (0, 2)


def test_common_phrases_agree_by_chance_and_own_words_do_not(clean):
    """A phantom's report copied to another patient is what the phantom may write anyway; a note is not."""
    from mmfuse.data.audit.rows import rows_of

    rows = rows_of(load_table(load_manifest(clean)))
    a, b = (next(i for i, split in enumerate(rows.splits) if split == name) for name in ("train", "test"))
    contents = [(i,) for i in range(len(rows.ids))]
    rows.texts[b] = rows.texts[a]
    assert "texts.common_wording" in {f.check for f in check_text_copies(rows, contents)}
    rows.texts[a] = rows.texts[b] = NOTE
    assert "texts.copies_across_splits" in {f.check for f in check_text_copies(rows, contents)}


def test_lengths_are_estimated_in_tokens():
    assert estimate_tokens("No pleural effusion.") == 2 + 1 + 1 + 2 + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Seen by Dr. Jane Quill, MRN 1234567, on 3 March 2020. Signed by Ann Lee on May 3.",
            "Seen by [NAME], [RECORD], on [DATE]. [NAME] on [DATE].",
        ),
        ("Patient: Ann Lee. Accession no. 99-88812", "[NAME]. [RECORD]"),
        ("Tel: 0171 2345678 or (555) 123-4567 or +44 20 7946 0958", "[PHONE] or [PHONE] or [PHONE]"),
        ("12/03/2019, 2019-03-12, 12.03.2019, March 2019", "[DATE], [DATE], [DATE], [DATE]"),
        ("a.b+c@mail.example.org, 9 Old Mill Road, 123-45-6789", "[EMAIL], [ADDRESS], [SSN]"),
        (
            "Model Name Gold Oak Lamp; Brand Name: Oak; Patient with COVID-19; T10-12; 5/5 strength; case 12; in May",
            None,
        ),
        ("No pleural effusion. Prior exam: nodule present.", None),
    ],
)
def test_identifiers_by_rules(text, expected):
    assert redact(text, find_by_rules(text)) == (expected or text)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40))
def test_a_redacted_text_has_everything_but_what_was_found(text):
    found = find_by_rules(text + " Dr. Quill 2020-01-02")
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))
    assert "Quill" not in redact(text + " Dr. Quill 2020-01-02", found)


def test_presidio_is_an_extra_that_says_how_it_is_had(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MmfuseError, match=r'pip install "mmfuse\[pii\]"'):
        presidio_finder()


def test_a_redacted_copy_trains_like_the_input(dirty, tmp_path):
    dirt, path, _ = dirty
    before = (path.parent / "data.csv").read_bytes()
    copied, counts = redact_rows(load_manifest(path), tmp_path / "out", find_by_rules)
    assert (path.parent / "data.csv").read_bytes() == before
    assert counts == dict.fromkeys((kind.upper() for kind in IDENTIFIERS), 1) | {"RECORD": 41}
    report = audit(load_manifest(copied))
    assert not [f for f in report.findings if f.check.startswith("identifiers")]
    assert {f.check for f in dirty[2].findings} - {f.check for f in report.findings} == {
        f"identifiers.{kind}" for kind in IDENTIFIERS
    }
    old, new = dirt.rows, pd.read_parquet(copied.parent / "rows.parquet")
    changed = [row["id"] for row, text in zip(old, new["text"], strict=True) if row["text"] != text]
    assert len(changed) == sum(counts.values())
    with pytest.raises(MmfuseError, match="nothing is overwritten"):
        redact_rows(load_manifest(path), tmp_path / "out", find_by_rules)


def test_lists_of_captions_are_redacted(tmp_path):
    rows = [{"id": "a", "image": "a.png", "caption": ["Dr. Quill sails", "a boat"]}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = {"name": "n", "rows": "rows.jsonl", "id": "id", "image": {"column": "image"}}
    task = {"caption": {"type": "captioning", "column": "caption"}}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(given | {"tasks": task}))
    copied, counts = redact_rows(load_manifest(tmp_path / "m.yaml"), tmp_path / "out", find_by_rules)
    assert counts == {"NAME": 1}
    assert load_table(load_manifest(copied)).targets["caption"][0] == ("[NAME] sails", "a boat")
