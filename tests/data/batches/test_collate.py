"""Rows to packed batches, and the order in which rows are read: any set of rows, each exactly once."""

import csv
import pickle

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmfuse.data.batches.collate import Item, collate, pad_tokens
from mmfuse.data.batches.loader import make_loader, move_batch
from mmfuse.data.batches.order import epoch_batches, ordered_batches
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.batches.tokens import TokenLists
from mmfuse.data.load import load_table
from mmfuse.data.readers.images import ImageOptions, read_image
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import Features, MmfuseError

DIM = 3


@st.composite
def rows_of_a_batch(draw):
    """Items with 0 or 1 texts and 0 to 3 images each, their positions in the dataset in any order."""
    numbers = draw(st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True))
    items = []
    for number in numbers:
        length, images = draw(st.none() | st.integers(1, 9)), draw(st.integers(0, 3))
        items.append(
            Item(
                number,
                f"row {number}",
                input_ids=None if length is None else list(range(1, length + 1)),
                pixels=[np.full((3, 2, 4), 10 * number % 200 + v, dtype=np.uint8) for v in range(images)],
            )
        )
    return items


@given(items=rows_of_a_batch(), pad=st.integers(0, 7))
def test_a_batch_holds_what_exists_and_says_whose_it_is(items, pad):
    batch = collate(items, pad)
    assert next(iter(batch)) == "row_ids"
    assert list(batch)[-1] == "ids"
    assert batch["row_ids"].tolist() == [item.row for item in items]
    assert batch["ids"] == [item.id for item in items]
    texts = [(i, item.input_ids) for i, item in enumerate(items) if item.input_ids is not None]
    assert batch["text_row"].tolist() == [i for i, _ in texts]
    assert (
        batch["input_ids"].shape == batch["text_mask"].shape == (len(texts), max((len(t) for _, t in texts), default=0))
    )
    for (_, ids), row, mask in zip(texts, batch["input_ids"], batch["text_mask"], strict=True):
        assert row[mask].tolist() == ids
        assert mask.tolist() == [True] * len(ids) + [False] * (len(row) - len(ids))
        assert set(row[~mask].tolist()) <= {pad}
    images = [(i, v, p) for i, item in enumerate(items) for v, p in enumerate(item.pixels)]
    assert list(zip(batch["image_row"].tolist(), batch["image_view"].tolist(), strict=True)) == [
        (i, v) for i, v, _ in images
    ]
    assert batch["pixels"].dtype == torch.uint8
    assert len(batch["pixels"]) == len(images)
    for (_, _, expected), found in zip(images, batch["pixels"], strict=True):
        assert np.array_equal(found, expected)


def test_tokens_are_padded_to_the_longest_of_the_batch_and_no_further():
    ids, mask = pad_tokens([[5, 6], [7]], 9)
    assert (ids.tolist(), mask.tolist()) == ([[5, 6], [7, 9]], [[True, True], [True, False]])
    ids, mask = pad_tokens([], 9)
    assert ids.shape == mask.shape == (0, 0)


# The order of rows.

PLAN = {
    "lengths": st.lists(st.integers(0, 60), min_size=1, max_size=70).map(np.array),
    "batch_size": st.integers(1, 5),
    "seed": st.integers(0, 9),
    "epoch": st.integers(0, 9),
}


@settings(deadline=None)
@given(world=st.integers(1, 4), **PLAN)
def test_an_epoch_has_each_row_once_and_no_process_goes_without(world, lengths, batch_size, seed, epoch):
    rows = np.flatnonzero(np.arange(len(lengths)) % 3).tolist()
    plan = epoch_batches(rows, lengths, batch_size, world, seed, epoch)
    seen = [row for ranks in plan for batch in ranks for row in batch]
    assert len(seen) == len(set(seen))
    assert set(seen) <= set(rows)
    assert len(seen) > len(rows) - world
    for ranks in plan:
        assert len(ranks) == world
        assert all(1 <= len(batch) <= batch_size for batch in ranks)
        assert max(map(len, ranks)) - min(map(len, ranks)) <= 1


@settings(deadline=None)
@given(**PLAN)
def test_a_step_has_the_same_rows_for_any_number_of_processes(lengths, batch_size, seed, epoch):
    rows = range(len(lengths) - len(lengths) % 2)
    one = epoch_batches(rows, lengths, 2 * batch_size, 1, seed, epoch)
    two = epoch_batches(rows, lengths, batch_size, 2, seed, epoch)
    assert [sorted(a + b) for a, b in two] == [sorted(a) for (a,) in one]


def test_an_epochs_order_depends_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(1, 60, 100)
    first = epoch_batches(range(100), lengths, 8, 1, 0, 0)
    np.random.seed(5)
    assert epoch_batches(range(100), lengths, 8, 1, 0, 0) == first
    assert epoch_batches(range(100), lengths, 8, 1, 0, 1) != first
    assert epoch_batches(range(100), lengths, 8, 1, 1, 0) != first


def test_grouping_by_length_saves_padding_and_keeps_chance():
    lengths = np.random.default_rng(0).integers(1, 128, 2000)
    plan = [batch for (batch,) in epoch_batches(range(2000), lengths, 16, 1, 0, 0)]
    padded = sum(len(batch) * lengths[batch].max() for batch in plan)
    at_random = sum(lengths[i : i + 16].max() * 16 for i in range(0, 2000, 16))
    assert padded / lengths.sum() < 1.15
    assert at_random / lengths.sum() > 1.7
    trends = []
    for epoch in range(20):  # one window each, in which batches are cut from sorted rows
        longest = [lengths[batch].max() for (batch,) in epoch_batches(range(256), lengths, 16, 1, 0, epoch)]
        trends.append(np.corrcoef(longest, range(16))[0, 1])
    assert abs(np.mean(trends)) < 0.3


@given(lengths=PLAN["lengths"], batch_size=PLAN["batch_size"])
def test_inference_reads_each_row_once_the_longest_first(lengths, batch_size):
    rows = list(range(len(lengths)))[::-1]
    batches = list(ordered_batches(rows, lengths, batch_size))
    order = [row for batch in batches for row in batch]
    assert sorted(order) == sorted(rows)
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert order == sorted(order, key=lambda row: (-lengths[row], row))


# Rows of a table.


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Sixty rows: 0 to 2 images, every seventh without a text."""
    folder = tmp_path_factory.mktemp("pairs")
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (6 + i, 8, 3), dtype=np.uint8)).save(
            folder / f"{i}.png"
        )
    with (folder / "rows.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "image", "text", "y"])
        for i in range(60):
            images = ";".join(f"{(i + v) % 4}.png" for v in range(i % 3))
            writer.writerow([f"r{i}", images, "" if i % 7 == 0 else f"text {i}", "ab"[i % 2]])
    manifest = {
        "name": "pairs",
        "rows": "rows.csv",
        "id": "id",
        "text": {"columns": ["text"]},
        "image": {"column": "image", "separator": ";"},
        "tasks": {"y": {"column": "y"}},
        "splits": {"ratios": {"train": 1.0}},
    }
    (folder / "m.yaml").write_text(yaml.safe_dump(manifest))
    return load_table(load_manifest(folder / "m.yaml"))


def pairs_of(table, **options):
    token_ids = TokenLists(None if text is None else [1] * (1 + i % 5) for i, text in enumerate(table.rows["text"]))
    return PairDataset(table, **{"token_ids": token_ids, "image_options": ImageOptions(size=(4, 6)), **options})


def test_a_batch_of_rows_is_their_files_read(table):
    pairs = pairs_of(table, pad_token_id=3)
    batch = pairs[[2, 7, 5, 0]]
    assert batch["ids"] == ["r2", "r7", "r5", "r0"]
    assert batch["image_row"].tolist() == [0, 0, 1, 2, 2]
    paths = [path for row in (2, 7, 5, 0) for path in table.rows["images"][row]]
    for path, pixels in zip(paths, batch["pixels"], strict=True):
        assert np.array_equal(pixels.permute(1, 2, 0), read_image(path, ImageOptions(size=(4, 6))))
    assert batch["text_row"].tolist() == [0, 2]
    assert (batch["most_images"], pairs[[1, 4]]["most_images"], pairs[[0, 3]]["most_images"]) == (2, 1, 0)
    assert (batch["text_full"], pairs[[1, 6]]["text_full"]) == (False, True)
    assert batch["target.y"].tolist() == [0, 1, 1, 0]
    assert (next(iter(batch)), list(batch)[-1]) == ("row_ids", "ids")
    assert pairs.lengths().tolist() == [0 if i % 7 == 0 else 1 + i % 5 for i in range(60)]


def test_a_modality_that_is_not_used_is_not_read(table):
    batch = pairs_of(table, image_options=None)[[1, 2]]
    assert len(batch["image_row"]) == 0
    pairs = pairs_of(table, token_ids=None)
    assert len(pairs[[1, 2]]["text_row"]) == 0
    assert pairs.lengths().tolist() == [0] * 60


def test_cached_features_take_the_place_of_files(table):
    def features(kind):
        def gather(numbers):
            tokens = torch.tensor(numbers, dtype=torch.float32)[:, None, None].expand(-1, 2, DIM)
            there = torch.ones(len(numbers), dtype=torch.bool)
            return Features(tokens, there[:, None].expand(-1, 2), torch.full((len(numbers), DIM), float(kind)), there)

        return gather

    pairs = pairs_of(table).view(text_cache=features(1), image_cache=features(2))
    batch = pairs[[8, 5]]
    first = sum(i % 3 for i in range(8))
    assert batch["text_features"].tokens[:, 0, 0].tolist() == [8, 5]
    assert batch["image_features"].tokens[:, 0, 0].tolist() == [first, first + 1, first - 3, first - 2]
    assert set(batch["image_features"].pooled.flatten().tolist()) == {2.0}
    assert (batch["text_row"].tolist(), batch["image_row"].tolist()) == ([0, 1], [0, 0, 1, 1])
    assert batch["image_view"].tolist() == [0, 1, 0, 1]
    assert (batch["most_images"], pairs[[8, 4]]["most_images"], pairs[[0, 3]]["most_images"]) == (2, 2, 0)
    assert (next(iter(batch)), list(batch)[-1]) == ("row_ids", "ids")


def test_an_image_that_cannot_be_read_names_the_row_and_the_file(table):
    pairs = pairs_of(table).view(images=[["/nothing/here.png"] for _ in range(60)])
    with pytest.raises(MmfuseError, match=r"^row 'r3': image /nothing/here.png: ") as error:
        pairs[[3]]
    assert "\n" not in str(error.value)


DROPOUT = {"text": 0.3, "image": 0.2}


def hidden_in(pairs):
    return [pairs.hidden(row) for row in range(len(pairs))]


def test_modality_dropout_hides_one_of_two_and_never_the_only_one(table):
    pairs = pairs_of(table, modality_dropout=DROPOUT)
    both = [row for row in range(60) if pairs.images[row] and pairs.token_ids[row] is not None]
    counts = dict.fromkeys(["text", "image", None], 0)
    for epoch in range(100):
        for row, hidden in enumerate(hidden_in(pairs.at(epoch))):
            assert hidden is None or row in both
            counts[hidden] += row in both
    total = 100 * len(both)
    for modality, share in (("text", 0.3), ("image", 0.2)):  # five standard deviations of a binomial
        assert abs(counts[modality] - share * total) < 5 * (total * share * (1 - share)) ** 0.5


def test_modality_dropout_is_a_hash_of_seed_epoch_and_row(table):
    pairs = pairs_of(table, modality_dropout=DROPOUT, seed=1)
    first = hidden_in(pairs)
    torch.manual_seed(3)
    np.random.seed(3)
    assert [pairs.hidden(row) for row in reversed(range(60))] == first[::-1]
    assert hidden_in(pairs_of(table, modality_dropout=DROPOUT, seed=1)) == first
    assert hidden_in(pairs_of(table, modality_dropout=DROPOUT, seed=2)) != first
    assert hidden_in(pairs.at(1)) != first
    assert hidden_in(pairs) == first
    assert set(hidden_in(pairs.plain())) == {None}


def test_what_is_hidden_is_not_in_the_batch_and_workers_change_nothing(table):
    pairs = pairs_of(table, modality_dropout=DROPOUT).at(3)
    rows = [list(range(i, i + 20)) for i in range(0, 60, 20)]
    here = list(make_loader(pairs, rows, 0))
    for numbers, batch in zip(rows, here, strict=True):
        hidden = [pairs.hidden(row) for row in numbers]
        assert {"text", "image"} <= set(hidden)
        for i, (row, what) in enumerate(zip(numbers, hidden, strict=True)):
            assert (i in batch["text_row"]) == (pairs.token_ids[row] is not None and what != "text")
            assert (i in batch["image_row"]) == (bool(pairs.images[row]) and what != "image")
    for a, b in zip(here, make_loader(pairs, rows, 1), strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"ids"}:
            assert torch.equal(torch.as_tensor(a[name]), torch.as_tensor(b[name]))


def test_without_modality_dropout_nothing_is_hidden(table):
    assert set(hidden_in(pairs_of(table))) == {None}
    assert set(hidden_in(pairs_of(table, modality_dropout={"text": 0.0, "image": 0.0}))) == {None}


def test_a_batch_moves_with_the_features_in_it():
    features = Features(
        torch.ones(1, 2, DIM), torch.ones(1, 2, dtype=torch.bool), torch.ones(1, DIM), torch.ones(1, dtype=torch.bool)
    )
    target = torch.tensor([2])
    batch = {"row_ids": torch.zeros(1), "text_features": features, "text_full": True, "target.y": target, "ids": ["a"]}
    moved = move_batch(batch, "meta")
    assert moved["target.y"].device.type == "meta"
    assert {task: here.tolist() for task, here in moved["targets_here"].items()} == {"y": [2]}
    assert moved["text_full"] is True
    assert isinstance(moved["text_features"], Features)
    assert {t.device.type for t in (moved["row_ids"], *moved["text_features"])} == {"meta"}
    assert moved["ids"] == ["a"]
    assert move_batch(batch, "cpu") is batch


def test_packed_tokens_are_the_lists_they_were():
    lists = [[5, 2**31 - 1], None, [], [7]]
    packed = TokenLists(lists[:1])
    packed.extend(lists[1:])
    assert list(pickle.loads(pickle.dumps(packed))) == lists
    assert (packed[-1], packed[np.int64(1)], len(packed)) == ([7], None, 4)
    assert packed.lengths().tolist() == [2, 0, 0, 1]
    with pytest.raises(IndexError):
        packed[4]
