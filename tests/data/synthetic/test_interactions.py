import csv
import hashlib
from collections import Counter
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.stats import chi2_contingency, chisquare
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from typer.testing import CliRunner

from mmfuse import cli
from mmfuse.data.synthetic import interactions, symbols
from mmfuse.data.synthetic.interaction_examples import (
    CLASSES,
    INTERACTION,
    NUM_CLASSES,
    SEVERAL,
    SPLIT_START,
    SYMBOL_CLASSES,
    TASKS,
    bayes_accuracy,
    bayes_predictions,
    make_example,
    make_symbols,
    render,
    write_text,
)
from mmfuse.data.synthetic.interactions import write_interactions, write_symbols
from mmfuse.data.synthetic.symbols import (
    COLOURS,
    CUES,
    DIRECTIONS,
    ITEMS,
    LETTERS,
    NUMBERS,
    OBJECT_CELLS,
    SHAPES,
    Shown,
    Told,
    read_symbols,
)
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError

pytestmark = pytest.mark.heavy

MODALITIES = ("text", "image", "both")
SEED = 5
TRAIN, TEST = 5000, 3000

# A reader of sentences that knows the words and nothing of the templates.
WORDS = {
    "letter": LETTERS,
    "cue": CUES,
    "item": ITEMS,
    "number": NUMBERS,
    "banner": tuple(COLOURS),
    "shape": SHAPES,
    "direction": DIRECTIONS,
}


def read_words(text):
    """As `Told`: by slot, the one word of its vocabulary that is said."""
    said = {}
    for slot, words in WORDS.items():
        found = [words.index(word) for word in text.split() if word in words]
        assert len(found) <= 1, text
        said[slot] = found[0] if found else None
    return Told(**said)


@pytest.fixture(scope="module")
def examples():
    return [make_example(SEED, index) for index in range(20_000)]


@pytest.fixture(scope="module")
def drawn():
    """Examples of the training and the test range, each with its picture and its sentence: `(train, test)`."""
    return tuple(
        [
            (example, render(example), write_text(example))
            for index in range(SPLIT_START[split], SPLIT_START[split] + count)
            for example in [make_example(SEED, index)]
        ]
        for split, count in (("train", TRAIN), ("test", TEST))
    )


@pytest.fixture(scope="module")
def features(drawn):
    """By modality, all that can be read off a picture or a sentence, `(train, test)` of `(rows, features)`."""
    return {
        "text": tuple(np.stack([text_features(text) for _, _, text in part]) for part in drawn),
        "image": tuple(np.stack([image_features(image) for _, image, _ in part]) for part in drawn),
    }


WORDING = {
    slot: sorted({word for template in templates for word in template.split() if "{" not in word})
    for slot, templates in symbols._TEMPLATES.items()
}


def text_features(text):
    """Symbols one-hot, and what should tell nothing: the wording and the order of the clauses."""
    told, words = read_words(text), text.split()
    symbols_said = np.concatenate([np.eye(len(WORDS[slot]))[symbol] for slot, symbol in told._asdict().items()])
    wording = [word in words for ours in WORDING.values() for word in ours]
    places = [words.index(WORDS[slot][symbol]) / len(words) for slot, symbol in told._asdict().items()]
    return np.concatenate([symbols_said, wording, places])


def image_features(image):
    """Symbols one-hot, how many objects have each colour, what is where, and the mean colour of cells and corners."""
    seen = read_symbols(image)
    single = [np.eye(8)[seen[name]] for name in ("letter", "count", "direction", "item", "banner")]
    objects, colours = np.zeros((8, 8)), np.zeros((8, 4))
    for thing in seen["objects"]:
        objects[thing.shape, thing.colour] = 1
    counts = objects.sum(0)
    colours[np.arange(8), np.minimum(counts.astype(int), 3)] = 1
    cells = [float(any(thing.cell == cell for thing in seen["objects"])) for cell in OBJECT_CELLS]
    pixels = np.asarray(image, float) / 255 - 0.15
    background = np.median(pixels.reshape(-1, 3), 0) * 10
    means = pixels.reshape(4, 16, 4, 16, 3).mean((1, 3)).ravel()
    return np.concatenate([*single, [seen["cue"]], objects.sum(1), colours.ravel(), cells, background, means])


def targets_of(part, task):
    return np.array([example.targets[task] for example, *_ in part])


def standard_error(accuracy, count):
    return (accuracy * (1 - accuracy) / count) ** 0.5


def rows_of(folder):
    with (folder / "data.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("interactions") / "set"
    assert write_interactions(out, train=60, validation=20, test=30, seed=3) == out / "manifest.yaml"
    return out


# ------------------------------------------------------------------------------------------------- the known answers


def closed_forms():
    """The formulas of the specification, by task: text, image, both."""

    def right(eps):
        return 1 - eps + eps / 8

    qt, qv, low, high = right(0.10), right(0.20), right(0.05), right(0.60)
    ot, ov = (1 - qt) / 7, (1 - qv) / 7
    agree = qt * qv + (1 - qt) * (1 - qv) / 7
    by_chance = qt * ov + ot * qv + 6 * ot * ov
    most = np.mean([max(map(colours.count, colours)) for colours in product(range(8), repeat=4)]) / 4
    letter = (low + high) / 2
    return {
        "redundant": (letter, letter, 0.75 * low + 0.25 * high),
        "unique_text": (qt, 1 / 8, qt),
        "unique_image": (1 / 8, qv, qv),
        "modular_sum": (1 / 8, 1 / 8, agree),
        "match": (1 / 2, 1 / 2, (agree + 1 - by_chance) / 2),
        "binding": (1 / 8, most * qv + (1 - most) * ov, qv),
    }


def test_the_answers_are_the_closed_forms():
    answers = bayes_accuracy()
    assert tuple(answers) == TASKS
    for task, expected in closed_forms().items():
        assert [answers[task][m] for m in MODALITIES] == pytest.approx(expected, abs=1e-12), task


def test_the_answers_are_the_published_figures():
    """Those of SynthRUS, to their four digits; binding from the image is published from 400,000 draws."""
    published = {
        "redundant": (0.7156, 0.7156, 0.8359),
        "unique_text": (0.9125, 0.1250, 0.9125),
        "unique_image": (0.1250, 0.8250, 0.8250),
        "modular_sum": (0.1250, 0.1250, 0.7550),
        "match": (0.5000, 0.5000, 0.8600),
        "binding": (0.1250, 0.3558, 0.8250),
    }
    answers = bayes_accuracy()
    for task, figures in published.items():
        for modality, figure in zip(MODALITIES, figures, strict=True):
            sampled = (task, modality) == ("binding", "image")
            tolerance = 3 * standard_error(figure, 400_000) if sampled else 0.5e-4 + 1e-9
            assert abs(answers[task][modality] - figure) <= tolerance, (task, modality)


def test_the_answers_follow_the_interaction():
    for task, answers in bayes_accuracy().items():
        chance, best = 1 / NUM_CLASSES[task], max(answers["text"], answers["image"])
        says = {m for m in ("text", "image") if answers[m] > chance + 1e-9}
        expected = {"redundant": {"text", "image"}, "text": {"text"}, "image": {"image"}, "binding": {"image"}}
        assert says == expected.get(INTERACTION[task], set())
        assert (answers["both"] > best + 0.1) == (INTERACTION[task] not in ("text", "image"))


def test_gate_c_the_oracle_reaches_the_answers(examples):
    predictions = [bayes_predictions(example) for example in examples]
    for task, answers in bayes_accuracy().items():
        truth = np.array([example.targets[task] for example in examples])
        assert set(truth) == set(range(NUM_CLASSES[task]))
        for modality, answer in answers.items():
            found = np.mean([p[task][modality] for p in predictions] == truth)
            assert abs(found - answer) <= 3 * standard_error(answer, len(truth)), (task, modality, found)


def test_the_oracle_decides_as_one_would(examples):
    for example in examples[:2000]:
        told, shown, decided = example.told, example.shown, bayes_predictions(example)
        trusted = told.letter if told.cue < shown.cue else shown.letter
        if told.cue != shown.cue or told.letter == shown.letter:
            assert decided["redundant"]["both"] == trusted
        assert decided["modular_sum"]["both"] == (told.number + shown.count) % 8
        assert decided["match"]["both"] == (told.banner == shown.banner)
        assert [t.colour for t in shown.objects if t.shape == told.shape] == [decided["binding"]["both"]]
        counts = Counter(thing.colour for thing in shown.objects)
        assert counts[decided["binding"]["image"]] == max(counts.values())


# --------------------------------------------------------------------------------------------------------- the latents


def test_the_targets_are_the_latents(examples):
    for example in examples[:2000]:
        true, targets = example.latents, example.targets
        assert tuple(targets) == TASKS
        assert targets["redundant"] == true["letter"]
        assert (targets["unique_text"], targets["unique_image"]) == (true["item"], true["direction"])
        assert targets["modular_sum"] == (true["number"] + true["count"]) % 8
        assert targets["match"] == (true["told_banner"] == true["shown_banner"])
        shapes = [thing.shape for thing in example.shown.objects]
        assert len(set(shapes)) == len({thing.cell for thing in example.shown.objects}) == 4
        assert targets["binding"] == example.colours[shapes.index(example.told.shape)]
        assert {thing.cell for thing in example.shown.objects} <= set(OBJECT_CELLS)


def copies_of(examples):
    """By symbol that is told or shown: the truth and the copy, `(2, examples)`, and how often it is to be replaced."""
    told = {"letter": None, "item": 0.1, "number": 0.1, "banner": 0.1}
    shown = {"letter": None, "direction": 0.2, "count": 0.2, "banner": 0.2}
    found = {}
    for kind, eps_by_name in (("told", told), ("shown", shown)):
        for name, eps in eps_by_name.items():
            latent = f"{kind}_banner" if name == "banner" else name
            copies = np.array([(e.latents[latent], getattr(getattr(e, kind), name)) for e in examples]).T
            if eps is None:
                cues = np.array([getattr(e, kind).cue for e in examples])
                eps = np.where(cues == 1, 0.6, 0.05)
            found[kind, name] = copies, np.broadcast_to(eps, copies.shape[1])
    for i in range(4):
        copies = np.array([(e.colours[i], e.shown.objects[i].colour) for e in examples]).T
        found["shown", i] = copies, np.full(copies.shape[1], 0.2)
    return found


def test_symbols_are_replaced_at_their_rates_independently_and_uniformly(examples):
    residuals = []
    for name, ((true, copy), eps) in copies_of(examples).items():
        wrong, expected = true != copy, eps * 7 / 8
        for rate in np.unique(expected):
            some = wrong[expected == rate]
            assert abs(some.mean() - rate) <= 4 * standard_error(rate, len(some)), name
        assert chisquare(np.bincount((copy - true)[wrong] % 8, minlength=8)[1:]).pvalue > 1e-3, name
        assert chisquare(np.bincount(true)).pvalue > 1e-3, name
        residuals.append((wrong - expected) / np.sqrt(expected * (1 - expected)))
    between = np.corrcoef(residuals)[np.triu_indices(len(residuals), 1)]
    assert np.abs(between).max() <= 4.5 / len(examples) ** 0.5
    for kind in ("told", "shown"):
        cues = np.mean([getattr(example, kind).cue for example in examples])
        assert abs(cues - 0.5) <= 4 * standard_error(0.5, len(examples))


def test_the_picture_does_not_tell_which_object_is_asked_for(examples):
    """Of the four: as often any in reading order, in the order of shapes and in that of colours."""
    for rank_by in ("cell", "shape", "colour"):
        ranks = Counter()
        for example in examples:
            order = sorted(example.shown.objects, key=lambda thing: (getattr(thing, rank_by), thing.cell))
            ranks[[thing.shape for thing in order].index(example.told.shape)] += 1
        assert chisquare(list(ranks.values())).pvalue > 1e-3, rank_by


BEARS = {"redundant": ("letter", "letter"), "unique_text": ("item", ""), "unique_image": ("", "direction")}
"""By task, the slots of text and image that alone tell of it; all others must be independent of it."""


def test_gate_b_what_should_say_nothing_is_independent_of_the_target(examples):
    found = {}
    for task in TASKS:
        truth = np.array([example.targets[task] for example in examples])
        for kind, bears in zip(("told", "shown"), BEARS.get(task, ("", "")), strict=True):
            for slot in getattr(examples[0], kind)._fields:
                if slot in (bears, "objects"):
                    continue
                table = np.zeros((NUM_CLASSES[task], 8))
                np.add.at(table, (truth, [getattr(getattr(example, kind), slot) for example in examples]), 1)
                found[task, kind, slot] = chi2_contingency(table[:, table.any(0)]).pvalue
    assert {("modular_sum", "told", "number"), ("match", "shown", "banner"), ("binding", "told", "shape")} <= set(found)
    worst = min(found, key=lambda which: found[which])
    assert found[worst] > 0.01 / len(found), worst


# ---------------------------------------------------------------------------------------------------------- the image


def test_gate_a_the_nearest_template_reads_every_symbol(drawn):
    some = drawn[1]
    wrong = Counter()
    for example, image, _ in some:
        seen = read_symbols(image)
        wrong.update(
            name for name, symbol in seen.items() if name != "objects" and symbol != getattr(example.shown, name)
        )
        if sorted(seen["objects"]) != sorted(example.shown.objects):
            wrong["objects"] += 1
    assert all(count <= len(some) / 1000 for count in wrong.values()), wrong


def test_the_picture_tells_only_what_is_shown(examples):
    for example in examples[:20]:
        image = render(example)
        assert (image.mode, image.size) == ("RGB", (64, 64))
        other = replace(
            example,
            latents=dict.fromkeys(example.latents, 0),
            colours=(0, 0, 0, 0),
            told=Told(*(0,) * 7),
            targets=dict.fromkeys(TASKS, 0),
        )
        assert render(other).tobytes() == image.tobytes()


@pytest.mark.parametrize("name", ["letter", "cue", "count", "direction", "item", "banner", "objects"])
def test_a_symbol_is_drawn_in_its_own_place(examples, name):
    rows = {"banner": range(16), "objects": range(32, 64)}.get(name, range(16, 32))
    columns = {"letter": 0, "cue": 0, "count": 1, "direction": 2, "item": 3}
    inside = np.zeros((64, 64), bool)
    left = columns.get(name, 0) * 16
    inside[rows.start : rows.stop, left : left + 16 if name in columns else 64] = True
    for example in examples[:20]:
        value = getattr(example.shown, name)
        if name == "objects":
            changed = tuple(thing._replace(colour=(thing.colour + 1) % 8) for thing in value)
        else:
            changed = 1 - value if name == "cue" else (value + 1) % 8
        other = replace(example, shown=example.shown._replace(**{name: changed}))
        differs = (np.asarray(render(example)) != np.asarray(render(other))).any(2)
        assert differs.any()
        assert not differs[~inside].any()


# --------------------------------------------------------------------------------------------------------- the sentence


def test_the_words_of_a_sentence_say_what_is_told_and_fit_24_tokens(examples):
    shapes = Counter()
    for example in examples[:5000]:
        text = write_text(example)
        assert read_words(text) == example.told
        assert all(word.isascii() and word.isalpha() and word.islower() for word in text.split())
        shapes[len(text.split())] += 1
    assert max(shapes) <= 18  # words are whole tokens, and two special ones come on top


def test_no_word_belongs_to_two_slots_or_to_a_template():
    said = [word for words in WORDS.values() for word in words]
    assert len(said) == len(set(said)) == 6 * 8 + 2
    assert not set(said) & {word for words in WORDING.values() for word in words}
    assert all(len(set(templates)) == 6 for templates in symbols._TEMPLATES.values())


def test_every_order_and_wording_occurs(examples):
    texts = [write_text(example) for example in examples[:8000]]
    words = Counter(word for text in texts for word in text.split())
    assert all(words[word] > 900 for ours in WORDING.values() for word in ours)
    slot_of = {word: slot for slot, words in WORDS.items() if slot != "cue" for word in words}
    orders = Counter(tuple(slot_of[word] for word in text.split() if word in slot_of) for text in texts)
    assert len(orders) == 720


def test_the_sentence_tells_only_what_is_told(examples):
    for example in examples[:500]:
        other = replace(
            example,
            latents=dict.fromkeys(example.latents, 0),
            colours=(0, 0, 0, 0),
            shown=Shown(),
            targets=dict.fromkeys(TASKS, 0),
        )
        assert write_text(other) == write_text(example)


# --------------------------------------------------------------------------------------- nothing can be learnt besides


@pytest.mark.parametrize("modality", ["text", "image"])
@pytest.mark.parametrize("task", TASKS)
def test_gate_d_one_modality_cannot_beat_its_bayes_accuracy(drawn, features, task, modality):
    train, test = features[modality]
    model = LogisticRegression(C=0.1, tol=1e-2, max_iter=300).fit(train, targets_of(drawn[0], task))
    found, best = model.score(test, targets_of(drawn[1], task)), bayes_accuracy()[task][modality]
    assert found <= best + 2 * standard_error(best, TEST)
    assert found >= best - 0.05  # or it has not looked


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("modality", ["text", "image"])
@pytest.mark.parametrize("task", ["modular_sum", "match", "binding"])
def test_gate_d_nor_can_a_network_that_multiplies(drawn, features, task, modality):
    train, test = features[modality]
    network = MLPClassifier((64,), batch_size=100, learning_rate_init=3e-3, max_iter=6, random_state=0)
    found = network.fit(train, targets_of(drawn[0], task)).score(test, targets_of(drawn[1], task))
    best = bayes_accuracy()[task][modality]
    assert found <= best + 2 * standard_error(best, TEST)


@pytest.mark.parametrize("task", TASKS)
def test_gate_e_permuted_targets_cannot_be_learnt(drawn, features, task):
    train, test = (np.concatenate([features[m][part] for m in ("text", "image")], axis=1) for part in (0, 1))
    permuted = np.random.default_rng(0).permutation(targets_of(drawn[0], task))
    model = LogisticRegression(C=0.1, tol=1e-2, max_iter=300).fit(train, permuted)
    chance = 1 / NUM_CLASSES[task]
    assert abs(model.score(test, targets_of(drawn[1], task)) - chance) <= 3 * standard_error(chance, TEST)


def test_gate_f_no_pair_is_in_two_splits(drawn, folder):
    pairs = Counter((text, hashlib.sha256(image.tobytes()).digest()) for part in drawn for _, image, text in part)
    assert set(pairs.values()) == {1}
    rows = rows_of(folder)
    written = {(row["text"], hashlib.sha256((folder / row["image"]).read_bytes()).digest()) for row in rows}
    assert len(written) == len({row["id"] for row in rows}) == 110


# --------------------------------------------------------------------------------------------------------------- files


def test_an_example_depends_on_seed_and_index_alone():
    assert make_example(5, 123456) == make_example(5, 123456)
    assert make_example(5, 123456).id == "interactions-5-00123456"
    some = [make_example(seed, index) for seed in (0, 1) for index in (0, 1)]
    assert len({render(example).tobytes() for example in some}) == len({write_text(example) for example in some}) == 4
    with pytest.raises(MmfuseError, match="0 or more"):
        make_example(-1, 0)
    with pytest.raises(MmfuseError, match="0 or more"):
        make_example(0, -1)


def test_the_splits_are_apart():
    assert sorted(SPLIT_START.values())[0] == 0
    assert np.diff(sorted(SPLIT_START.values())).min() == 10**7
    with pytest.raises(MmfuseError, match="0 to 10000000"):
        write_interactions("never", train=10**7 + 1)


def test_a_larger_set_contains_the_smaller_and_writing_again_gives_the_same_bytes(folder, tmp_path):
    out = tmp_path / "set"
    write_interactions(out, train=70, validation=25, test=31, seed=3)
    small, large = ({row["id"]: row for row in rows_of(path)} for path in (folder, out))
    assert small.items() < large.items()
    assert all(bytes_of(out)[name] == data for name, data in bytes_of(folder).items() if name.startswith("images"))
    write_interactions(out, train=60, validation=20, test=30, seed=3)
    assert bytes_of(out) == bytes_of(folder)


def test_a_writing_cut_short_can_be_done_again_and_is_not_readable_until_then(folder, tmp_path):
    def stop(done):
        if done == 5:
            raise KeyboardInterrupt

    out = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        write_interactions(out, train=60, validation=20, test=30, seed=3, progress=stop)
    assert not (out / "data.csv").exists()
    seen = []
    write_interactions(out, train=60, validation=20, test=30, seed=3, progress=seen.append)
    assert seen == list(range(1, 111))
    assert bytes_of(out) == bytes_of(folder)


def test_the_table_tells_the_truth(folder):
    rows = rows_of(folder)
    assert Counter(row["split"] for row in rows) == {"train": 60, "validation": 20, "test": 30}
    for row in rows:
        example = make_example(3, int(row["id"].rsplit("-", 1)[1]))
        assert row["id"] == example.id
        assert SPLIT_START[row["split"]] <= example.index < SPLIT_START[row["split"]] + 60
        assert row["text"] == write_text(example)
        assert {task: CLASSES[task].index(row[task]) for task in TASKS} == example.targets
        with Image.open(folder / row["image"]) as image:
            assert image.tobytes() == render(example).tobytes()


@pytest.mark.parametrize("kind", ["interactions", "symbols"])
def test_everything_says_synthetic(folder, tmp_path, kind):
    out = folder if kind == "interactions" else write_symbols(tmp_path / "set", 3).parent
    manifest = yaml.safe_load((out / "manifest.yaml").read_text(encoding="utf-8"))
    assert manifest["about"].startswith("SYNTHETIC")
    assert {spec["label_origin"] for spec in manifest["tasks"].values()} == {"synthetic"}
    for row in rows_of(out):
        assert row["origin"] == "SYNTHETIC"
        with Image.open(out / row["image"]) as image:
            assert image.text["Description"].startswith("SYNTHETIC")


def write_two(out):
    return write_interactions(out, train=1, validation=1, test=0)


@pytest.mark.parametrize("write", [write_two, lambda out: write_symbols(out, 2)])
def test_a_folder_of_something_else_is_left_alone(tmp_path, write, folder):
    (tmp_path / "manifest.yaml").write_text("name: mine\n", encoding="utf-8")
    before = bytes_of(tmp_path)
    with pytest.raises(MmfuseError, match="not a set of") as error:
        write(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(MmfuseError, match="is a file"):
        write(tmp_path / "manifest.yaml")
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("numbers", [{"train": -1}, {"train": 0, "validation": 0, "test": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(tmp_path, numbers):
    with pytest.raises(MmfuseError, match="got"):
        write_interactions(tmp_path / "new", **{"train": 1, "validation": 0, "test": 0} | numbers)
    with pytest.raises(MmfuseError, match="1 or more"):
        write_symbols(tmp_path / "new", 0)
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------------------------------- symbols, to train encoders on


def test_the_targets_of_symbols_are_all_that_can_be_read_and_nothing_of_two_together(tmp_path):
    out = write_symbols(tmp_path / "set", 200, seed=2).parent
    for index, row in enumerate(rows_of(out)):
        pair = make_symbols(2, index)
        assert row["id"] == pair.id
        assert row["split"] == {8: "validation", 9: "test"}.get(index % 10, "train")
        with Image.open(out / row["image"]) as image:
            seen = read_symbols(image)
        objects = {thing.cell: thing for thing in seen.pop("objects")}
        assert objects == {thing.cell: thing for thing in pair.shown.objects}
        targets = {f"image_{name}": symbol for name, symbol in seen.items()}
        targets |= {f"text_{name}": symbol for name, symbol in read_words(row["text"])._asdict().items()}
        for task, symbol in targets.items():
            assert SYMBOL_CLASSES[task].index(row[task]) == symbol == pair.targets[task]
        assert set(SYMBOL_CLASSES) == {*targets, *SEVERAL} == set(pair.targets)
        for task, kind in (("image_shapes", "shape"), ("image_colours", "colour")):
            shown = sorted({getattr(thing, kind) for thing in objects.values()})  # sorted: no order can tell a pairing
            assert [SYMBOL_CLASSES[task].index(name) for name in row[task].split()] == shown
            assert pair.targets[task] == tuple(shown)
    before = bytes_of(out)
    write_symbols(out, 200, seed=2)
    assert bytes_of(out) == before


@pytest.fixture(scope="module")
def pairs():
    return [make_symbols(0, index) for index in range(10_000)]


def test_symbols_are_uniform_and_independent_of_each_other_and_of_the_other_modality(pairs):
    slots = {task: np.array([pair.targets[task] for pair in pairs]) for task in SYMBOL_CLASSES if task not in SEVERAL}
    first = [pair.shown.objects[0] for pair in pairs]
    slots |= {f"first {kind}": np.array([getattr(thing, kind) for thing in first]) for kind in ("shape", "colour")}
    slots["first cell"] = np.array([OBJECT_CELLS.index(thing.cell) for thing in first])
    p_values = [chisquare(np.bincount(symbols)).pvalue for symbols in slots.values()]
    for one, other in combinations(slots.values(), 2):
        table = np.zeros((one.max() + 1, other.max() + 1))
        np.add.at(table, (one, other), 1)
        p_values.append(chi2_contingency(table).pvalue)
    sizes = {name: symbols.max() + 1 for name, symbols in slots.items()}
    assert sizes == dict.fromkeys(slots, 8) | {"image_cue": 2, "text_cue": 2}
    assert min(p_values) > 0.01 / len(p_values)


def test_the_objects_of_symbols_differ_in_shape_and_cell_and_not_in_colour(pairs):
    colours = Counter()
    for pair in pairs:
        shapes, seen, cells = zip(
            *((thing.shape, thing.colour, thing.cell) for thing in pair.shown.objects), strict=True
        )
        assert len(shapes) == len(set(shapes)) == len(set(cells)) == 4
        colours[seen[0] == seen[1]] += 1
    assert abs(colours[True] / colours.total() - 1 / 8) < 4 * standard_error(1 / 8, colours.total())


def test_symbols_are_another_stream_than_the_examples_of_their_seed(pairs, examples):
    agree = np.mean([pair.shown.letter == example.shown.letter for pair, example in zip(pairs, examples, strict=False)])
    assert abs(agree - 1 / 8) < 4 * standard_error(1 / 8, len(pairs))


# ------------------------------------------------------------------------------------------------------- together with


def test_the_command_writes_sets_that_load(tmp_path):
    from mmfuse.data.load import load_table

    def run(*arguments):
        result = CliRunner().invoke(cli.app, ["data", "interactions", *map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0
        assert result.output.strip() == f"written: {arguments[0] / 'manifest.yaml'}"
        return load_table(load_manifest(arguments[0] / "manifest.yaml"))

    table = run(tmp_path / "a", "--train", 40, "--validation", 10, "--test", 20, "--seed", 4)
    assert {split: len(table.indices(split)) for split in SPLIT_START} == {"train": 40, "validation": 10, "test": 20}
    assert table.labels == {task: list(names) for task, names in CLASSES.items()}
    first = make_example(4, SPLIT_START["test"])
    assert {task: table.targets[task][50] for task in TASKS} == first.targets

    table = run(tmp_path / "b", "--symbols", 50)
    assert table.labels == {task: list(names) for task, names in SYMBOL_CLASSES.items()}
    for index in range(50):
        for task, target in make_symbols(0, index).targets.items():
            encoded = table.targets[task][index]
            assert tuple(np.flatnonzero(encoded)) == target if task in SEVERAL else encoded == target
    with pytest.raises(MmfuseError, match="not a set of interactions"):
        interactions.write_interactions(tmp_path / "b", train=1, validation=0, test=0)
