import csv
import re
from collections import Counter
from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mmfuse.config import AugmentationConfig, TextAugmentationConfig, check_live, config_from_dict
from mmfuse.data.batches.augment import Augmentation
from mmfuse.data.batches.change_images import preset
from mmfuse.data.batches.change_texts import Synonyms, mask_tokens, shuffle_sentences
from mmfuse.data.batches.loader import make_loader
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.batches.tokens import TextReader, TokenLists
from mmfuse.data.load import load_table
from mmfuse.data.readers.images import ImageOptions
from mmfuse.data.synthetic.phantom_film import render
from mmfuse.data.synthetic.phantom_findings import read_findings, true_findings, write_findings
from mmfuse.data.synthetic.phantom_study import _PHRASES, SIDES, ZONES, Place, Study, make_study, say, write_report
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError

pytestmark = pytest.mark.heavy

PAD, CLS, SEP, MASK = range(4)
SIDED = ("opacity", "effusion", "pneumothorax", "nodule")
SYNONYMS = [["pleural effusion", "pleural fluid"], ["hazy", "patchy"], ["non-smoker", "never smoker"]]


class Words:
    """A tokenizer of whole words that can be undone."""

    def __init__(self):
        self.words = {MASK: "[MASK]"}

    def encode(self, text):
        numbers = [(4 + crc32(word.encode()), word) for word in text.split()]
        self.words |= dict(numbers)
        return [CLS, *(number for number, _ in numbers), SEP]

    def tokenize(self, texts):
        return [self.encode(text) for text in texts], [False] * len(texts)

    def decode(self, ids):
        return " ".join(self.words[i] for i in ids if i > SEP)


def write_table(folder, rows, tasks):
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    manifest = {"name": "made", "rows": "rows.csv", "id": "id", "splits": {"column": "split"}, "tasks": tasks}
    manifest |= {"text": {"columns": ["text"]}, "image": {"column": "image", "separator": ";"}}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")
    return load_table(load_manifest(folder / "manifest.yaml"))


def pairs_of(table, config, seed=0, epoch=0):
    captions = {t: v for t, v in table.targets.items() if table.manifest.tasks[t].type == "captioning"}
    texts, words = table.rows["text"][:], Words()
    reader = TextReader(words.tokenize, MASK, frozenset({PAD, CLS, SEP}))
    pairs = PairDataset(
        table,
        token_ids=TokenLists(None if text is None else words.encode(text) for text in texts),
        captions={task: [[words.encode(c) for c in row] for row in found] for task, found in captions.items()},
        image_options=ImageOptions(size=(64, 64)),
        augmentation=Augmentation(config, table, reader, dict.fromkeys(captions, words.encode)),
        seed=seed,
    )
    return pairs.at(epoch), words


def changes_of(pairs, row):
    assert pairs.augmentation is not None
    return pairs.augmentation.changes(row, pairs.ids[row], pairs.seed, pairs.epoch)


# ------------------------------------------------------------------------------- SYNTHETIC studies, their truth known

STUDIES = 1000


def shown_labels(study: Study) -> list[str]:
    """What the film shows, with its side."""
    found = [f"{study.places[name].side} {name}" for name in SIDED if study.shown[name]]
    return found + ["large heart"] * study.shown["large_heart"]


LABELS = [f"{side} {name}" for name in SIDED for side in SIDES] + ["large heart"]
CLASSES = ["nodule_left", "nodule_right", "none"]


def nodule_class(study: Study) -> str:
    return f"nodule_{study.places['nodule'].side}" if study.shown["nodule"] else "none"


@pytest.fixture(scope="module")
def studies():
    return [make_study(5, i) for i in range(STUDIES)]


@pytest.fixture(scope="module")
def phantoms(studies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    rows = []
    for study in studies:
        render(study).save(folder / f"{study.id}.png", compress_level=1)
        rows.append(
            {
                "id": study.id,
                "image": f"{study.id}.png",
                "text": write_report(study),
                "report": write_findings(study),
                "labels": ";".join(shown_labels(study)),
                "side": nodule_class(study),
                "split": "train",
            }
        )
    tasks = {
        "labels": {"type": "multilabel", "column": "labels", "separator": ";", "values": LABELS, "empty": "negative"},
        "side": {"type": "classification", "column": "side", "values": CLASSES},
        "report": {"type": "captioning", "column": "report"},
    }
    return write_table(folder, rows, tasks)


def mirrored(study: Study) -> Study:
    """The same study, every finding on the other side."""
    other = {"left": "right", "right": "left", "": ""}
    return replace(study, places={name: Place(other[p.side], p.zone) for name, p in study.places.items()})


def plain(sentence: str) -> str:
    """A sentence with the first phrase of every list of synonyms, in small letters."""
    sentence = sentence.lower().strip(" .")
    for first, *others in SYNONYMS:
        for other in others:
            sentence = sentence.replace(other, first)
    return sentence


def template_oracle() -> dict[str, tuple[str, bool, Place]]:
    """By sentence that a report can have: which statement it makes, yes or no, and where."""
    known = {}
    for name, phrases in _PHRASES.items():
        for told in (False, True):
            for side in SIDES:
                for zone in ZONES:
                    place = Place(side, zone if name == "opacity" else "")
                    study = replace(make_study(0, 0), told={name: told}, places={name: place})
                    for choice in range(len(phrases[told])):
                        sentence = say(study, name, (choice + 0.5) / len(phrases[told]))
                        known[plain(sentence)] = (
                            name,
                            told,
                            place if "{side}" in phrases[told][choice].lower() else Place(),
                        )
    return known


def side_of_change(before: np.ndarray, after: np.ndarray) -> str:
    """The patient's side where two films differ: his right is at the left of the film."""
    weight = ((before.astype(float) - after) ** 2).sum((0, 1))
    return "right" if (weight * (np.arange(len(weight)) - (len(weight) - 1) / 2)).sum() < 0 else "left"


def as_pixels(study: Study) -> np.ndarray:
    return np.repeat(np.asarray(render(study))[None], 3, axis=0)


def test_a_thousand_augmented_pairs_are_true(studies, phantoms, tmp_path):
    """Text, caption, labels and film of each pair, all changes on, say what the mirrored or the same study says."""
    (tmp_path / "synonyms.yaml").write_text(yaml.safe_dump(SYNONYMS))
    text = TextAugmentationConfig(mask_tokens=0.1, shuffle_clauses=0.8, synonyms=str(tmp_path / "synonyms.yaml"))
    pairs, words = pairs_of(phantoms, AugmentationConfig("radiograph", "swap", text), seed=1, epoch=3)
    assert pairs.augmentation is not None
    assert pairs.augmentation.can_flip.all()
    batch = pairs[range(STUDIES)]
    oracle, checked, flips, changed = template_oracle(), Counter(), 0, Counter()
    for i, study in enumerate(studies):
        changes = changes_of(pairs, i)
        flips += changes.flipped
        true = mirrored(study) if changes.flipped else study
        side = "flipped" if changes.flipped else "kept"

        caption = words.decode(batch["target.report"][i].tolist())
        assert read_findings(caption) == true_findings(true)

        assert {LABELS[k] for k in batch["target.labels"][i].nonzero()} == set(shown_labels(true))
        assert CLASSES[batch["target.side"][i]] == nodule_class(true)

        said = words.decode(batch["input_ids"][i].tolist())
        changed["text"] += said != phantoms.rows["text"][i]
        for sentence in re.split(r"(?<=\.) ", said):
            if "[MASK]" in sentence or sentence == "SYNTHETIC.":
                continue
            name, told, place = oracle[plain(sentence)]
            assert told == true.told[name]
            assert place in (Place(), true.places.get(name))
            checked[side, bool(place.side)] += 1

        film = batch["pixels"][i].numpy()
        for name in [name for name in SIDED if study.shown[name]][i % 2 :: 2]:
            without = changes.image(as_pixels(replace(study, shown={**study.shown, name: False})), 0)
            assert side_of_change(film, without) == true.places[name].side, (i, name)
            checked[side, name] += 1
    assert 430 < flips < 570
    assert changed["text"] > 900
    assert min(checked[side, told] for side in ("flipped", "kept") for told in (True, False)) > 150, checked
    assert min(checked[side, name] for side in ("flipped", "kept") for name in SIDED) > 50, checked


def test_a_flip_alone_is_the_mirrored_file_in_all_views(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        for view in "ab":
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{i}{view}.png")
        rows.append(
            {"id": f"r{i}", "image": f"{i}a.png;{i}b.png", "text": "right lung", "y": "ab"[i % 2], "split": "train"}
        )
    table = write_table(tmp_path, rows, {"y": {"column": "y"}})
    for flip in ("swap", "free"):
        pairs, words = pairs_of(table, AugmentationConfig(flip=flip))
        batch = pairs[range(40)]
        flipped = np.array([changes_of(pairs, i).flipped for i in range(40)])
        assert 8 < flipped.sum() < 32
        for k, (row, view) in enumerate(zip(batch["image_row"], batch["image_view"], strict=True)):
            as_read = pairs.read_pixels(int(row), pairs.images[row][view])
            assert np.array_equal(batch["pixels"][k], as_read[..., ::-1] if flipped[row] else as_read)
        swapped = [words.decode(ids.tolist()) == "left lung" for ids in batch["input_ids"]]
        assert swapped == (flipped.tolist() if flip == "swap" else [False] * 40)
        assert batch["target.y"].tolist() == [0, 1] * 20


def test_views_of_a_row_are_changed_each_in_its_own_way_and_mirrored_together(tmp_path):
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    picture[:, 40:] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    rows = [{"id": f"r{i}", "image": "a.png;a.png", "text": "x", "y": "ab"[i % 2], "split": "train"} for i in range(10)]
    pairs, _ = pairs_of(write_table(tmp_path, rows, {"y": {"column": "y"}}), AugmentationConfig("natural", "free"))
    views = pairs[range(10)]["pixels"].unflatten(0, (10, 2)).float()
    assert all(not torch.equal(first, second) for first, second in views)
    bright_side = (views[..., 32:].mean((2, 3, 4)) > views[..., :32].mean((2, 3, 4))).tolist()
    assert {tuple(pair) for pair in bright_side} == {(False, False), (True, True)}


def test_a_row_whose_words_have_no_mirror_image_is_not_flipped(tmp_path):
    texts = ["left lung", "right middle lobe", "He left.", "clear"]
    captions = ["right lung", "clear", "clear", "RML pneumonia|left lung"]
    rows = [
        {"id": f"{k}-{i}", "image": "", "text": text, "report": caption, "split": "train"}
        for k in range(20)
        for i, (text, caption) in enumerate(zip(texts, captions, strict=True))
    ]
    table = write_table(tmp_path, rows, {"report": {"type": "captioning", "column": "report", "separator": "|"}})
    pairs, words = pairs_of(table, AugmentationConfig(flip="swap"))
    assert pairs.augmentation is not None
    assert pairs.augmentation.can_flip.tolist() == [True, False, False, False] * 20
    batch = pairs[range(80)]
    found = {
        (words.decode(a), words.decode(b))
        for a, b in zip(batch["input_ids"].tolist(), batch["target.report"].tolist(), strict=True)
    }
    assert {pair for pair in found if "lobe" not in pair[0] and "He" not in pair[0] and pair[0] != "clear"} == {
        ("left lung", "right lung"),
        ("right lung", "left lung"),
    }


def test_labels_change_sides_and_missing_ones_stay_missing(tmp_path):
    rows = [
        {"id": f"r{i}", "image": "", "text": "x", "l": left, "m": m, "r": "1", "c": c, "split": "train"}
        for i, (left, m, c) in enumerate(
            [("1", "0", "left arm"), ("0", "1", "leg"), ("", "1", ""), ("1", "-1", "right arm")] * 8
        )
    ]
    tasks = {
        "sides": {"type": "multilabel", "columns": ["l", "m", "r"]},
        "arm": {"column": "c", "values": ["left arm", "leg", "right arm"]},
    }
    table = write_table(tmp_path, rows, tasks)
    table.labels["sides"] = ["effusion left", "nodule", "effusion right"]
    pairs, _ = pairs_of(table, AugmentationConfig(flip="swap"))
    batch = pairs[range(32)]
    nan = float("nan")
    kept = [[1, 0, 1], [0, 1, 1], [nan, 1, 1], [1, nan, 1]]
    flipped = [[1, 0, 1], [1, 1, 0], [1, 1, nan], [1, nan, 1]]
    classes = [(0, 2), (1, 1), (-100, -100), (2, 0)]
    seen = set()
    for i in range(32):
        side = changes_of(pairs, i).flipped
        seen.add((i % 4, side))
        np.testing.assert_array_equal(batch["target.sides"][i], (flipped if side else kept)[i % 4])
        assert batch["target.arm"][i] == classes[i % 4][side]
    assert len(seen) == 8
    table.labels["arm"] = ["left arm", "leg", "foot"]
    with pytest.raises(MmfuseError, match=r"tasks.arm: label 'left arm' has a side, but there is no label 'right arm'"):
        pairs_of(table, AugmentationConfig(flip="swap"))


# ------------------------------------------------------------------------------------------------------- which and when


@pytest.fixture(scope="module")
def everything(phantoms, tmp_path_factory):
    """All changes on, for 60 rows of which some are not of the training split."""
    path = tmp_path_factory.mktemp("synonyms") / "synonyms.yaml"
    path.write_text(yaml.safe_dump(SYNONYMS))
    table = replace(phantoms, splits=["train" if i % 3 else "validation" for i in range(STUDIES)])
    return table, AugmentationConfig("natural", "swap", TextAugmentationConfig(0.2, 0.5, str(path)))


def same(a, b) -> bool:
    return all(torch.equal(a[name], b[name]) if isinstance(a[name], torch.Tensor) else a[name] == b[name] for name in a)


def test_neither_workers_nor_global_state_change_a_batch(everything):
    pairs, _ = pairs_of(*everything, epoch=1)
    rows = [list(range(i, i + 15)) for i in range(0, 60, 15)]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    alone = list(make_loader(pairs, rows, 0))
    torch.manual_seed(1)
    again, shared = list(make_loader(pairs, rows, 0)), list(make_loader(pairs, rows, 2))
    assert all(same(a, b) and same(a, c) for a, b, c in zip(alone, again, shared, strict=True))
    torch.manual_seed(0)
    pairs[rows[0]]
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(alone[0], pairs.at(2)[rows[0]])
    other, _ = pairs_of(*everything, seed=1, epoch=1)
    assert not same(alone[0], other[rows[0]])


def test_only_rows_of_the_training_split_change_and_only_while_training(everything):
    table, _ = everything
    pairs, _ = pairs_of(*everything)
    bare = pairs.view(augmentation=None)
    others = [i for i in range(60) if table.splits[i] != "train"]
    assert same(pairs[others], bare[others])
    assert same(pairs.plain()[range(60)], bare.plain()[range(60)])


def test_nothing_is_changed_by_default():
    config = config_from_dict({"name": "x", "data": {"manifest": "m.yaml"}})
    assert config.training.augmentation == AugmentationConfig()
    assert AugmentationConfig() == AugmentationConfig("none", "none", TextAugmentationConfig(0.0, 0.0, None))
    for wrong in ("image=photo", "flip=always", "text.mask_tokens=1.5", "text.shuffle=1"):
        with pytest.raises(MmfuseError, match=rf"training.augmentation.{wrong.split('=')[0]}: "):
            config_from_dict({"name": "x", "data": {"manifest": "m.yaml"}}, [f"training.augmentation.{wrong}"])


@pytest.mark.parametrize(
    ("config", "modality", "named"),
    [
        (AugmentationConfig(image="natural"), "image", "image"),
        (AugmentationConfig(flip="free"), "image", "flip"),
        (AugmentationConfig(flip="swap"), "text", "flip"),
        (AugmentationConfig(text=TextAugmentationConfig(mask_tokens=0.1)), "text", "text.mask_tokens"),
    ],
)
def test_inputs_whose_features_are_kept_cannot_be_changed(config, modality, named):
    with pytest.raises(
        MmfuseError, match=rf"training.augmentation.{named}: .*{modality}_encoder.frozen=false or cache"
    ):
        check_live(config, [modality])
    check_live(config, [])
    check_live(AugmentationConfig(flip="free"), ["text"])


def test_a_config_that_wants_both_is_refused_unless_the_tower_is_trained_some_day():
    values = {"name": "x", "data": {"manifest": "m.yaml"}, "training": {"augmentation": {"image": "natural"}}}
    with pytest.raises(MmfuseError, match=r"training.augmentation.image: features of the frozen image encoder"):
        config_from_dict(values, ["image_encoder.frozen=true"])
    config_from_dict(values, ["image_encoder.frozen=true", "image_encoder.unfreeze_epoch=1"])
    config_from_dict(values, ["image_encoder.frozen=true", "cache.enabled=false"])
    config_from_dict(values, ["text_encoder.frozen=true"])


def test_what_a_table_does_not_have_cannot_be_changed(everything):
    table, _ = everything
    config = AugmentationConfig(text=TextAugmentationConfig(mask_tokens=0.1))
    with pytest.raises(MmfuseError, match="no mask token and no unknown token"):
        Augmentation(config, table, TextReader(Words().tokenize, None, frozenset()), {})
    table = replace(table, manifest=replace(table.manifest, image=None))
    with pytest.raises(MmfuseError, match=r"training.augmentation.flip: .* has no image to change"):
        Augmentation(AugmentationConfig(flip="free"), table, None, {})


# -------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("name", ["natural", "radiograph"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_a_preset_keeps_the_picture_recognisable_and_its_sides(name, size):
    """An F in one corner: more like itself than like its mirror image, whatever is drawn."""
    picture = torch.full((3, *size), 40, dtype=torch.uint8)
    picture[:, size[0] // 8 : -size[0] // 8, size[1] // 4 : size[1] // 3] = 220
    picture[:, size[0] // 8 : size[0] // 4, size[1] // 4 : size[1] // 2] = 220
    plain = picture.float() - picture.float().mean()
    seen = set()
    for seed in range(60):
        torch.manual_seed(seed)
        changed = preset(name, *size)(picture)
        assert (changed.shape, changed.dtype) == (picture.shape, torch.uint8)
        seen.add(changed.numpy().tobytes())
        if name == "radiograph":
            assert torch.equal(changed[0], changed[1])
            assert torch.equal(changed[0], changed[2])
        centred = changed.float() - changed.float().mean()
        assert (centred * plain).sum() > 1.3 * (centred * plain.flip(-1)).sum()
        assert float(centred.std()) > 0.5 * float(plain.std())
    assert len(seen) == 60


# --------------------------------------------------------------------------------------------------------------- texts


def test_special_tokens_are_never_masked_and_the_rest_at_its_rate():
    ids = [CLS, *range(10, 1010), SEP, PAD]
    hits = 0
    for seed in range(20):
        masked = mask_tokens(ids, 0.15, MASK, {CLS, SEP, PAD}, np.random.default_rng(seed))
        assert [masked[0], *masked[-2:]] == [CLS, SEP, PAD]
        assert all(new in (old, MASK) for new, old in zip(masked, ids, strict=True))
        hits += masked.count(MASK)
    assert abs(hits - 3000) < 5 * (20000 * 0.15 * 0.85) ** 0.5


def test_sentences_change_places_and_keep_their_words():
    text = "Dr. Smith saw 2.5 cm nodules.  No effusion, e.g. small. J. Doe agreed!\nNo evidence\nof air."
    text += " \n\nFINDINGS: clear"
    orders = set()
    for seed in range(40):
        shuffled = shuffle_sentences(text, np.random.default_rng(seed))
        assert Counter(shuffled.split()) == Counter(text.split())
        for whole in (
            "Dr. Smith saw 2.5 cm nodules.",
            "No effusion, e.g. small.",
            "J. Doe agreed!",
            "No evidence\nof air.",
        ):
            assert whole in shuffled
        orders.add(shuffled)
    assert len(orders) > 20


def test_synonyms_are_exchanged_as_whole_words_half_of_the_time():
    table = Synonyms([["heart", "cardiac silhouette"], ["effusion", "fluid", "CHF fluid"]], "here")
    text = "Heart large, heartless; sweet heart.  EFFUSION"
    found = Counter(table.exchange(text, np.random.default_rng(seed)) for seed in range(400))
    first, second, third = (
        ("Heart", "Cardiac silhouette"),
        ("heart", "cardiac silhouette"),
        ("EFFUSION", "Fluid", "CHF fluid"),
    )
    assert set(found) == {f"{a} large, heartless; sweet {b}.  {c}" for a in first for b in second for c in third}
    for place, word in enumerate(("Heart", "sweet heart", "EFFUSION")):
        assert abs(sum(n for said, n in found.items() if word in said) - 200) < 50, place


def test_a_longer_phrase_goes_first():
    table = Synonyms([["pleural effusion", "long"], ["effusion", "short"]], "here")
    found = {table.exchange("a pleural\neffusion", np.random.default_rng(seed)) for seed in range(40)}
    assert found == {"a pleural\neffusion", "a long"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{a: b}", "a list of lists of phrases is expected"),
        ("[]", "a list of lists of phrases is expected"),
        ("- [left]", "at least two phrases"),
        ("- [yes, no]", "quote yes and no"),
        ("- [a, b]\n- [c, A]", "'A' is listed twice"),
        ("- [a, b", "not YAML"),
        ("- [a, '  ']", "at least two phrases"),
    ],
)
def test_a_wrong_table_of_synonyms_is_refused(tmp_path, content, complaint):
    path = tmp_path / "s.yaml"
    path.write_text(content)
    with pytest.raises(MmfuseError, match=rf"training.augmentation.text.synonyms: .*s.yaml: .*{complaint}"):
        Synonyms.read(str(path))
    with pytest.raises(MmfuseError, match=r"nope.yaml: No such file"):
        Synonyms.read(str(tmp_path / "nope.yaml"))
