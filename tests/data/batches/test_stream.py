"""The order of a stream is arithmetic; what it reads are the rows of its shards, each once an epoch."""

import dataclasses
import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmfuse.data.batches.loader import make_loader
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.batches.stream import Stream, plan_stream, workers_of
from mmfuse.data.batches.tokens import TokenLists
from mmfuse.data.load import load_table
from mmfuse.data.readers.images import ImageOptions
from mmfuse.data.shards.folder import ROW_GROUP, open_shards, verify_shards
from mmfuse.data.shards.table import ShardedTable, ShardRows, load_shards
from mmfuse.data.shards.write import write_shards
from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.data.tables.table import Table
from mmfuse.types import MmfuseError

pytestmark = pytest.mark.heavy

shapes = st.tuples(
    st.integers(1, 400),  # rows
    st.integers(1, 12),  # lanes
    st.integers(1, 33),  # batch size
    st.integers(1, 70),  # shuffle buffer
    st.integers(1, 4),  # processes
).filter(lambda shape: shape[0] >= -(-shape[1] // shape[4]) * shape[4])


@given(shapes)
def test_every_row_is_in_one_micro_batch_and_all_processes_end_together(shape):
    rows, lanes, batch_size, buffer, world = shape
    plan = plan_stream(rows, lanes, buffer, batch_size, world)
    steps = list(plan)
    assert len(steps) == len(plan)
    assert all(len(ranks) == world and all(ranks) for ranks in steps)
    assert sorted(p for ranks in steps for positions in ranks for p in positions) == list(range(rows))
    assert max(len(positions) for ranks in steps for positions in ranks) <= batch_size + 1
    for number, positions in enumerate(p for ranks in steps for p in ranks):
        for position in (positions.start, positions.stop - 1):
            assert plan.locate(position) == (number % plan.lanes, number // plan.lanes)


@given(shapes)
def test_windows_are_the_parts_of_a_lane(shape):
    rows, lanes, batch_size, buffer, world = shape
    plan = plan_stream(rows, lanes, buffer, batch_size, world)
    for lane in range(plan.lanes):
        windows = list(dict.fromkeys(plan.window_of(lane, number) for number in range(plan.per_lane)))
        assert [number for window in windows for number in window] == list(range(plan.per_lane))
        assert all(len(window) <= plan.window for window in windows)


@given(shapes, st.integers(0, 9))
def test_a_worker_has_the_same_lanes_whatever_step_it_begins_at(shape, wanted):
    rows, lanes, batch_size, buffer, world = shape
    plan = plan_stream(rows, lanes, buffer, batch_size, world)
    workers = workers_of(plan, wanted)
    assert workers <= wanted
    assert (workers == 0) == (wanted == 0)
    for rank in range(world):
        for begun in (0, 1, len(plan) // 2):
            owners: dict[int, set[int]] = {}
            lanes_of: dict[int, set[int]] = {}
            for i, step in enumerate(range(begun, len(plan))):  # DataLoader gives the i-th to worker i modulo n
                lane, _ = plan.locate(plan[step][rank].start)
                assert lane % world == rank
                owners.setdefault(lane, set()).add(i % max(1, workers))
                lanes_of.setdefault(i % max(1, workers), set()).add(lane)
            alone, share = ({len(found) for found in either.values()} for either in (owners, lanes_of))
            assert alone <= {1} or (share == {1} and max(alone) <= 4)


@given(st.integers(1, 300), st.sampled_from([1, 2, 4, 8]), st.integers(1, 9))
def test_micro_batches_are_the_same_for_any_number_of_processes(rows, world, batch_size):
    one, many = (plan_stream(rows + 8, 8, 32, batch_size, n) for n in (1, world))
    assert [p for ranks in one for p in ranks] == [p for ranks in many for p in ranks]


def test_a_plan_of_a_hundred_million_rows_is_six_numbers():
    plan = plan_stream(10**8, 8, 512, 32, 2)
    assert len(pickle.dumps(plan)) < 200
    assert sum(map(len, plan[len(plan) - 1])) == sum(map(len, plan[12345])) == 64
    assert plan.locate(plan[len(plan) - 1][1].stop - 1) == (7, plan.per_lane - 1)


def test_lanes_are_rounded_up_to_the_processes():
    assert plan_stream(100, 8, 16, 4, 3).lanes == 9
    with pytest.raises(MmfuseError, match=r"5 rows for 8 lanes and 1 processes: lower data\.lanes"):
        plan_stream(5, 8, 16, 4, 1)
    plan = plan_stream(100, 12, 16, 4, 2)
    assert [workers_of(plan, wanted) for wanted in (5, 6, 11, 12, 40)] == [3, 6, 6, 12, 24]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Table:
    """300 SYNTHETIC studies, a fifth of them without text, a fifth without image."""
    manifest = load_manifest(write_phantom(tmp_path_factory.mktemp("phantom"), 300, seed=0))
    whole = load_table(manifest)
    texts = [None if i % 5 == 1 else text for i, text in enumerate(whole.rows["text"])]
    images = [[] if i % 5 == 3 else images for i, images in enumerate(whole.rows["images"])]
    whole.rows = whole.rows.remove_columns(["text", "images"]).add_column("text", texts).add_column("images", images)
    return whole


@pytest.fixture(scope="module")
def folder(table, tmp_path_factory):
    """Its shards, of 20 to 30 rows each."""
    out = tmp_path_factory.mktemp("shards") / "out"
    write_shards(table, str(out), size=80_000)
    return out


@pytest.fixture
def sharded(folder) -> ShardedTable:
    found = load_table(load_manifest(folder / "manifest.yaml"))
    assert isinstance(found, ShardedTable)
    assert len(found.shards.of("train")) > 4
    return found


def prepare(table: Table) -> PairDataset:
    """A token a letter."""
    texts = table.rows["text"]
    token_ids = TokenLists(None if text is None else [ord(letter) % 99 for letter in text] for text in texts)
    return PairDataset(table, token_ids=token_ids, image_options=ImageOptions(size=(16, 16)))


def stream(sharded: ShardedTable, world: int = 1, lanes: int = 4, seed: int = 0) -> Stream:
    return Stream(sharded, prepare, plan_stream(sharded.counts()["train"], lanes, 24, 8, world), seed)


def read(found: Stream, num_workers: int = 0, begun: int = 0) -> list[dict]:
    """All micro-batches of an epoch from a step on, those of every process."""
    steps = [
        list(make_loader(found, [ranks[r] for ranks in list(found.plan)[begun:]], num_workers))
        for r in range(found.plan.world)
    ]
    return [batch for ranks in zip(*steps, strict=True) for batch in ranks]


def same(first: list[dict], second: list[dict]) -> bool:
    def plain(batch):
        return {k: (v.shape, v.numpy().tobytes()) if torch.is_tensor(v) else v for k, v in batch.items()}

    return len(first) == len(second) and all(plain(a) == plain(b) for a, b in zip(first, second, strict=True))


def test_batches_are_those_of_the_table_itself(table, sharded):
    """Images, tokens and targets of each row are what the map-style dataset gives for the same ids."""
    batches, whole, row_of = read(stream(sharded)), prepare(table), {name: i for i, name in enumerate(table.rows["id"])}
    ids = [name for batch in batches for name in batch["ids"]]
    assert Counter(ids) == Counter(table.rows["id"][i] for i in table.indices("train"))
    assert all(len(batch["ids"]) <= 9 for batch in batches)
    for batch in batches:
        expected = whole[[row_of[name] for name in batch["ids"]]]
        del batch["row_ids"], expected["row_ids"]  # the row's place in its window
        assert same([batch], [expected])


def test_processes_workers_and_resuming_change_nothing(sharded):
    one = read(stream(sharded))
    assert same(one, read(stream(sharded, world=2)))
    assert same(one, read(stream(sharded), num_workers=2))
    assert same(one[7:], read(stream(sharded), begun=7))
    assert same(one[14:], read(stream(sharded, world=2), num_workers=2, begun=7))


def test_another_epoch_or_seed_is_another_order(sharded):
    def order(seed: int, epoch: int) -> list[str]:
        found = stream(sharded, seed=seed).at(epoch)
        return [name for batch in read(found) for name in batch["ids"]]

    orders = [order(0, 0), order(0, 1), order(1, 0)]
    assert len({tuple(o) for o in orders}) == 3
    assert len({tuple(sorted(o)) for o in orders}) == 1
    assert order(0, 1) == orders[1]


def test_texts_of_like_length_are_together(sharded):
    found = stream(sharded)
    lengths = [batch["text_mask"].sum(1).numpy() for batch in read(found)]
    shuffled = np.random.default_rng(0).permutation(np.concatenate(lengths))
    apart = [np.ptp(part) for part in np.array_split(shuffled, len(lengths))]
    assert np.mean([np.ptp(part) for part in lengths if len(part)]) < 0.7 * np.mean(apart)


def test_a_process_holds_one_window_a_lane(sharded, monkeypatch):
    """Row groups that straddle two windows aside, nothing is read twice, and no more than lanes x window is held."""
    found, taken = stream(sharded), 0
    original = type(sharded.shards).read

    def counting(self, shard, start, stop, columns=None):
        nonlocal taken
        taken += stop - start
        return original(self, shard, start, stop, columns)

    monkeypatch.setattr(type(sharded.shards), "read", counting)
    held = 0
    for ranks in found.plan:
        found[ranks[0]]
        held = max(held, sum(len(window.pairs) for window in found._windows.values()))
    assert taken == sharded.counts()["train"]
    assert held <= found.plan.lanes * found.plan.window * found.plan.batch_size
    assert not pickle.loads(pickle.dumps(found))._windows


def test_the_evaluated_rows_are_those_of_the_table(table, sharded):
    for split in ("validation", "test"):
        ours, theirs = sharded.indices(split), table.indices(split)
        id_of, row_of = sharded.rows["id"], {table.rows["id"][row]: row for row in theirs}
        assert {id_of[row] for row in ours} == set(row_of)
        same_rows = [row_of[id_of[row]] for row in ours]
        for column in ("group", "text", *(name for name in table.rows.column_names if name.startswith("subgroup"))):
            assert [sharded.rows[column][i] for i in ours] == [table.rows[column][i] for i in same_rows]
        for task, targets in table.targets.items():
            assert np.array_equal(sharded.targets[task][ours], targets[same_rows], equal_nan=True)
        assert (sharded.has_image()[ours] == table.has_image()[same_rows]).all()
        assert (sharded.has_text()[ours] == table.has_text()[same_rows]).all()
        assert sharded.lacks(split) == table.lacks(split)
        a, b = prepare(sharded)[ours[:9]], prepare(table)[same_rows[:9]]
        assert (a["pixels"] == b["pixels"]).all()
        assert (a["image_row"] == b["image_row"]).all()


def test_what_is_said_of_training_rows_is_counted_in_the_shards(table, sharded):
    assert sharded.counts() == table.counts()
    assert sharded.lacks("train") == table.lacks("train")
    texts = sharded.texts("train")
    assert sorted(texts) == sorted(texts) == sorted(table.texts("train"))  # twice: a vocabulary goes through them twice
    for task in table.targets:
        ours, theirs = sharded.targets_of(task, "train"), table.targets_of(task, "train")
        assert (np.sort(ours, axis=0) == np.sort(theirs, axis=0)).all()
        assert ours.dtype == theirs.dtype
    with pytest.raises(MmfuseError, match="split train is in shards: its rows are streamed"):
        sharded.indices("train")


def test_evaluation_reads_each_block_once(sharded, monkeypatch):
    monkeypatch.setattr("mmfuse.data.shards.table.BLOCK", 16)
    monkeypatch.setattr(ShardedTable, "block", 16)
    pairs, rows = prepare(sharded), sharded.indices("test")
    for world, workers in ((1, 0), (2, 0), (2, 2)):
        shares = [pairs.batches(rows, 5, rank, world, workers) for rank in range(world)]
        assert sorted(row for share in shares for batch in share for row in batch) == rows
        for share in shares:
            for worker in range(max(1, workers)):
                blocks = [row // 16 for batch in share[worker :: max(1, workers)] for row in batch]
                changes = sum(a != b for a, b in itertools.pairwise(blocks))
                assert changes <= len(set(blocks)) + (2 if workers else -1)


def test_a_manifest_that_says_otherwise_than_the_shards_is_refused(folder):
    def changed(**values):
        manifest = load_manifest(folder / "manifest.yaml")
        manifest.tasks["findings"] = dataclasses.replace(manifest.tasks["findings"], **values)
        return manifest

    with pytest.raises(MmfuseError, match=r"tasks\.findings\.empty is 'missing', but .* 'negative': .*shard again"):
        load_table(changed(empty="missing"))
    assert load_table(changed(label_origin="human")).labels == load_table(changed()).labels
    manifest = changed()
    manifest.tasks["other"] = manifest.tasks["findings"]
    with pytest.raises(MmfuseError, match=r"tasks\.other: it is not in the shards"):
        load_table(manifest)
    assert list(load_table(manifest, tasks=["findings"]).labels) == ["findings"]
    for name, value in (
        ("group", None),
        ("subgroups", ["age"]),
        ("splits", dataclasses.replace(manifest.splits, seed=9)),
    ):
        manifest = changed()
        setattr(manifest, name, value)
        with pytest.raises(MmfuseError, match=rf"{name}: not as in .*manifest\.yaml, by which .* shard again"):
            load_table(manifest)
    with pytest.raises(MmfuseError, match=r"the model's are \['a'\]"):
        load_table(changed(), labels={"findings": ["a"]})
    with pytest.raises(MmfuseError, match=r"data\.fold: shards have their splits"):
        load_table(changed(), fold=1)


def test_a_truncated_shard_is_refused_or_left_out(table, tmp_path):
    write_shards(table, str(tmp_path), size=80_000)
    shard = open_shards(str(tmp_path)).of("train")[2]
    (tmp_path / shard.file).write_bytes((tmp_path / shard.file).read_bytes()[:-1])
    manifest = load_manifest(tmp_path / "manifest.yaml")
    with pytest.raises(MmfuseError, match=rf"{shard.file}: .* bytes, but .* were written"):
        load_table(manifest)
    found = load_table(manifest, damaged="skip")
    assert isinstance(found, ShardedTable)
    assert list(found.shards.damaged) == [shard.file]
    gone = {name for name, split in zip(table.rows["id"], table.splits, strict=True) if split == "train"}
    ids = [name for batch in read(stream(found)) for name in batch["ids"]]
    assert len(ids) == len(set(ids)) == len(gone) - shard.rows
    assert set(ids) < gone


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_rotten_shard_ends_training_with_the_way_on(split, table, tmp_path):
    write_shards(table, str(tmp_path), size=80_000)
    shard = open_shards(str(tmp_path)).of(split)[0]
    data = bytearray((tmp_path / shard.file).read_bytes())
    data[200] ^= 1
    (tmp_path / shard.file).write_bytes(data)
    manifest = load_manifest(tmp_path / "manifest.yaml")
    way = (
        rf"{shard.file}: cannot be read: .*`mmfuse data verify {tmp_path}` notes .* data\.damaged=skip leaves them out"
    )
    with pytest.raises(MmfuseError, match=way):
        read(stream(load_shards(manifest)))
    verify_shards(tmp_path)
    assert sum(len(batch["ids"]) for batch in read(stream(load_shards(manifest, damaged="skip"))))


def test_a_damaged_image_is_told_by_row_and_place(sharded):
    pairs = prepare(sharded).view(images=[[b"", b"no image"]] * len(sharded))
    with pytest.raises(MmfuseError, match=f"row '{pairs.ids[3]}': image 2: ") as error:
        pairs.read_pixels(3, b"no image", 1)
    assert "no image'" not in str(error.value)


def test_windows_need_not_begin_with_a_row_group(sharded):
    """A lane begins anywhere: rows are found across row groups and shards."""
    order = sharded.shards.of("train")
    ids = [name for shard in order for name in sharded.shards.read(shard, 0, shard.rows, ["id"])["id"].to_pylist()]
    rows = ShardRows(sharded.shards, order)
    for start, stop in ((0, len(ids)), (17, 18), (21, 21 + ROW_GROUP), (order[0].rows - 1, order[0].rows + 1)):
        assert rows.read(start, stop, ["id"])["id"].to_pylist() == ids[start:stop]


def test_the_identity_is_of_the_rows_and_their_order(sharded):
    plain = stream(sharded).identity
    assert plain == stream(sharded).identity
    assert plain == stream(sharded, world=2).identity  # which divides the lanes
    others = [stream(sharded, world=3), stream(sharded, lanes=5), stream(sharded, seed=1)]
    assert len({plain, *(other.identity for other in others)}) == 4
