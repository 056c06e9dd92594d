"""Features from the cache are those computed live, and nothing that they depend on can change unseen."""

import csv
import dataclasses
import errno
import multiprocessing
import os
import resource
import shutil
import signal
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from child_processes import HANG
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.encoders.cache import build_cache, cache_root, list_cache, prune_cache, weights_hash
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.fusion import FUSIONS
from mmfuse.model import FusionModel
from mmfuse.predict import prepare_pairs, table_logits
from mmfuse.types import Features, MmfuseError

pytestmark = pytest.mark.heavy

TEXTS = ["heart size is normal", "small right pleural effusion", "", "heart size is normal", "no effusion", "nodule"]
IMAGES = ["a.png", "", "b.png", "a.png;b.png;c.png", "copy_of_a.png", "c.png;a.png"]
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TASKS = {"y": {"type": "classification", "labels": ["u", "v"]}, "z": {"type": "multilabel", "labels": ["p", "q", "r"]}}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Six rows: without a text, without an image, with several, with the same."""
    folder = tmp_path_factory.mktemp("cohort")
    for i, name in enumerate("abc"):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 30 + i, 3), dtype=np.uint8)).save(
            folder / f"{name}.png"
        )
    shutil.copyfile(folder / "a.png", folder / "copy_of_a.png")
    write_rows(folder, TEXTS)
    manifest = {
        "name": "cohort",
        "rows": "rows.csv",
        "id": "id",
        "text": {"columns": ["text"]},
        "image": {"column": "image", "separator": ";"},
        "splits": {"ratios": {"train": 1.0}},
    }
    (folder / "m.yaml").write_text(yaml.safe_dump(manifest))
    return folder


def write_rows(folder, texts):
    with (folder / "rows.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerows(
            [["id", "text", "image"], *([f"r{i}", *row] for i, row in enumerate(zip(texts, IMAGES, strict=True)))]
        )


@pytest.fixture
def cohort(original, tmp_path):
    return shutil.copytree(original, tmp_path / "cohort")


def table_of(folder):
    return load_table(load_manifest(folder / "m.yaml"))


def towers(**image):
    torch.manual_seed(0)
    text = TextEncoderConfig(name="bert", pretrained=False, options=BERT, vocab_size=200, max_length=8, frozen=True)
    values = {"name": "resnet10t", "pretrained": False, "size": [32, 32], "frozen": True, **image}
    return build_text_encoder(text, TEXTS * 3), build_image_encoder(ImageEncoderConfig(**values))


def model_of(name="cross_attention", encoders=None):
    text, image = encoders or towers()
    torch.manual_seed(1)
    options = {"num_heads": 2} if name == "cross_attention" else {}
    return FusionModel(text, image, {"name": name, "out_dim": 16, **options}, TASKS).eval()


def folders(root):
    return sorted(path.name for path in (root / "features").iterdir())


def cached_pairs(model, folder, root):
    encoded = []
    pairs = prepare_pairs(
        model,
        table_of(folder),
        cache=str(root),
        num_workers=0,
        progress=lambda m, done, total: encoded.append((m, done)),
    )
    return pairs, dict(encoded)


@pytest.mark.parametrize(
    "image", [{}, {"name": "vit_tiny_patch16_224", "options": {"depth": 2, "embed_dim": 48, "num_heads": 3}}]
)
@pytest.mark.parametrize("name", FUSIONS.names())
def test_cached_and_live_logits_are_the_same(original, tmp_path, name, image):
    model = model_of(name, towers(**image))
    live = prepare_pairs(model, table_of(original), cache=False)
    pairs, _ = cached_pairs(model, original, tmp_path)
    assert (pairs.text_cache is not None) == ("text" in model.uses)
    assert (pairs.image_cache is not None) == ("image" in model.uses)
    rows = list(range(len(TEXTS)))
    expected, found = (table_logits(model, p, rows, batch_size=4) for p in (live, pairs))
    for task, logits in expected.items():
        assert np.ptp(logits, axis=0).max() > 1e-3  # rows differ, so that a mix-up shows
        assert np.abs(found[task] - logits).max() < 1e-4 * np.abs(logits).max()


@pytest.mark.parametrize("frozen", ["text", "image"])
def test_one_tower_may_be_cached_beside_a_live_one(original, tmp_path, frozen):
    model = model_of()
    (model.image_encoder if frozen == "text" else model.text_encoder).freeze(False)
    pairs, encoded = cached_pairs(model, original, tmp_path)
    assert list(encoded) == [frozen]
    rows = list(range(len(TEXTS)))
    live = table_logits(model, prepare_pairs(model, table_of(original)), rows)
    for task, logits in table_logits(model, pairs, rows).items():
        np.testing.assert_allclose(logits, live[task], atol=1e-4 * np.abs(live[task]).max())


def test_items_alike_are_encoded_once_and_only_the_first_time(original, tmp_path):
    model = model_of()
    _, encoded = cached_pairs(model, original, tmp_path)
    assert encoded == {"text": 4, "image": 3}  # of 5 texts and 8 images
    assert cached_pairs(model, original, tmp_path)[1] == {}
    assert len(folders(tmp_path)) == 2


def change_content(model, folder):
    image = Image.open(folder / "b.png")
    image.putpixel((3, 3), (1, 2, 3))
    image.save(folder / "b.png")


def change_text(model, folder):
    write_rows(folder, ["heart size is not normal", *TEXTS[1:]])


def change_text_weights(model, folder):
    with torch.no_grad():
        model.text_encoder.model.encoder.layer[1].output.dense.bias[0] += 1e-4


def change_image_weights(model, folder):
    with torch.no_grad():
        model.image_encoder.model.layer4[0].conv1.weight[0, 0, 0, 0] += 1e-4


def change_batch_statistics(model, folder):
    model.image_encoder.model.bn1.running_mean[0] += 1e-4


def change_image_pooling(model, folder):
    model.image_encoder.pooling = "cls"


def change_text_pooling(model, folder):
    model.text_encoder.pooling = "cls"


def change_max_length(model, folder):
    model.text_encoder.max_length = 5


def change_preprocessing(**changes):
    def change(model, folder):
        model.image_encoder.preprocessing = dataclasses.replace(model.image_encoder.preprocessing, **changes)

    return change


CHANGES = {
    "an image's content": ("image", change_content),
    "a text": ("text", change_text),
    "weights of the text tower": ("text", change_text_weights),
    "weights of the image tower": ("image", change_image_weights),
    "batch statistics": ("image", change_batch_statistics),
    "pooling of the image tower": ("image", change_image_pooling),
    "pooling of the text tower": ("text", change_text_pooling),
    "max_length": ("text", change_max_length),
    "size": ("image", change_preprocessing(size=(64, 32))),
    "resize": ("image", change_preprocessing(resize="pad")),
    "interpolation": ("image", change_preprocessing(interpolation="bilinear")),
    "background": ("image", change_preprocessing(background="black")),
    "mean": ("image", change_preprocessing(mean=(0.5, 0.5, 0.5))),
}


@pytest.mark.parametrize(("modality", "change"), CHANGES.values(), ids=CHANGES)
def test_whatever_features_depend_on_makes_them_anew(cohort, tmp_path, modality, change):
    model = model_of()
    cached_pairs(model, cohort, tmp_path)
    before = folders(tmp_path)
    change(model, cohort)
    _, encoded = cached_pairs(model, cohort, tmp_path)
    assert list(encoded) == [modality]
    if change in (change_content, change_text):  # one item is new, the tower is the same
        assert encoded == {modality: 1}
        assert folders(tmp_path) == before
    else:
        assert encoded[modality] >= 3
        assert len(set(folders(tmp_path)) - set(before)) == 1


def test_what_features_do_not_depend_on_changes_nothing(cohort, tmp_path):
    cached_pairs(model_of(), cohort, tmp_path)
    (cohort / "b.png").rename(cohort / "moved.png")
    rows = (cohort / "rows.csv").read_text().replace("b.png", "moved.png").splitlines()
    (cohort / "rows.csv").write_text("\n".join([rows[0], *reversed(rows[1:])]))
    other = model_of("late")  # another strategy on the same towers, which reads no tokens
    assert cached_pairs(other, cohort, tmp_path)[1] == {}


def test_a_cache_of_pooled_vectors_is_not_enough_for_a_strategy_that_reads_tokens(original, tmp_path):
    assert cached_pairs(model_of("late"), original, tmp_path)[1] == {"text": 4, "image": 3}
    assert cached_pairs(model_of("cross_attention"), original, tmp_path)[1] == {"text": 4, "image": 3}


# The files.


def features_of(keys):
    """Features that tell their key: `len(key)` tokens of it, each one more."""
    longest = max(len(key) for key in keys)
    tokens, mask = torch.full((len(keys), longest, 2), np.nan), torch.zeros(len(keys), longest, dtype=torch.bool)
    for i, key in enumerate(keys):
        tokens[i, : len(key)] = value(key) + torch.arange(len(key))[:, None]
        mask[i, : len(key)] = True
    pooled = torch.tensor([[value(key), -value(key)] for key in keys])
    return Features(tokens, mask, pooled, torch.ones(len(keys), dtype=torch.bool))


def value(key):
    return float(sum(ord(c) * 31**i for i, c in enumerate(key)) % 9973)


def encoder_of(keys, batch_size, seen):
    def encode(items):
        order = sorted(items, key=lambda i: (-len(keys[i]), i))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            seen.extend(keys[i] for i in batch)
            yield batch, features_of([keys[i] for i in batch])

    return encode


def refuse(items):
    raise AssertionError("features are computed again")


KEYS = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=12)


def assert_holds(cache, keys, tokens):
    found = cache.gather(range(len(keys)))
    assert found.present.tolist() == [True] * len(keys)
    for i, key in enumerate(keys):
        pooled = [value(key), -value(key)]
        assert found.pooled[i].tolist() == pooled
        expected = [[value(key) + t] * 2 for t in range(len(key))] if tokens else [pooled]
        assert found.tokens[i][found.mask[i]].tolist() == expected
        assert not found.tokens[i][~found.mask[i]].any()


@settings(deadline=None, max_examples=30)
@given(keys=KEYS, batch_size=st.integers(1, 5), tokens=st.booleans(), data=st.data())
def test_every_item_gets_its_own_features(tmp_path_factory, keys, batch_size, tokens, data):
    root, seen = tmp_path_factory.mktemp("cache"), []
    assert_holds(build_cache(root, {"a": 1}, keys, encoder_of(keys, batch_size, seen), tokens), keys, tokens)
    assert sorted(seen) == sorted(set(keys))
    shuffled = data.draw(st.permutations(keys))
    assert_holds(build_cache(root, {"a": 1}, shuffled, refuse, tokens), shuffled, tokens)
    if tokens:  # those who need the pooled vector alone read it from there
        assert_holds(build_cache(root, {"a": 1}, keys, refuse, False), keys, False)


def test_nothing_to_encode_is_a_cache_too(tmp_path):
    for tokens in (True, False):
        build_cache(tmp_path, {"a": tokens}, [], lambda items: iter(()), tokens)


def shards(root):
    return sorted(path.name for path in (root / "features").glob("*/*-*"))


@settings(deadline=None, max_examples=30)
@given(keys=KEYS, others=KEYS, order=st.randoms(use_true_random=False))
def test_another_run_adds_only_what_is_not_there(tmp_path_factory, monkeypatch_shards, keys, others, order):
    root, seen = tmp_path_factory.mktemp("cache"), []
    build_cache(root, {"a": 1}, keys, encoder_of(keys, 2, []), True)
    both = keys + others
    order.shuffle(both)
    assert_holds(build_cache(root, {"a": 1}, both, encoder_of(both, 2, seen), True), both, True)
    assert sorted(seen) == sorted(set(others) - set(keys))


@pytest.fixture(scope="module")
def monkeypatch_shards():
    """Shards of a few items, so that a handful of items fills several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmfuse.encoders.cache.SHARD_BYTES", 40)
        yield


def test_what_a_killed_build_had_written_is_kept_and_the_rest_swept_away(tmp_path, monkeypatch_shards):
    keys = ["a", "bb", "ccc"]

    def killed_after_two(items):
        for i in list(items)[:2]:
            yield [i], features_of([keys[i]])
            yield [], features_of(["a"])._replace(**{p: getattr(features_of(["a"]), p)[:0] for p in Features._fields})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(tmp_path, {"a": 1}, keys, killed_after_two, True)
    done = len(shards(tmp_path))
    assert done >= 1
    (folder,) = (tmp_path / "features").iterdir()
    left = folder / "building-x"
    shutil.copytree(folder / shards(tmp_path)[0], left)
    (left / "pooled.npy").write_bytes(b"half")
    seen = []
    assert_holds(build_cache(tmp_path, {"a": 1}, keys, encoder_of(keys, 2, seen), True), keys, True)
    assert 1 <= len(seen) <= 3 - done
    assert not left.exists()


def test_a_damaged_shard_is_one_line_that_says_what_to_delete(tmp_path):
    build_cache(tmp_path, {"a": 1}, ["a"], encoder_of(["a"], 2, []), True)
    (shard,) = (tmp_path / "features").glob("*/shard-*")
    (shard / "pooled.npy").write_bytes(b"half")
    with pytest.raises(MmfuseError, match=rf"{shard}: damaged .*delete this folder"):
        build_cache(tmp_path, {"a": 1}, ["a"], refuse, True)


def build_slowly(root, keys, start, log):
    def encode(items):
        for i in items:
            time.sleep(0.01)
            log.put(keys[i])
            yield [i], features_of([keys[i]])

    start.wait()
    assert_holds(build_cache(root, {"a": 1}, keys, encode, True), keys, True)


def test_two_processes_at_once_encode_each_item_once(tmp_path, monkeypatch_shards):
    context = multiprocessing.get_context("fork")
    keys, start, log = [f"{i:02}" for i in range(20)], context.Barrier(3), context.Queue()
    processes = [context.Process(target=build_slowly, args=(tmp_path, keys, start, log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(HANG)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(log.get(timeout=HANG) for _ in keys) == keys
    assert log.empty()


def build_together(root, keys, start, log, dies=False):
    def encode(items):
        rest = iter(items)
        while batch := list(islice(rest, 2)):
            time.sleep(0.02)
            if dies and len(done) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(batch)
            yield batch, features_of([keys[i] for i in batch])

    done = []
    start.wait()
    assert_holds(build_cache(root, {"a": 1}, keys, encode, True, part=4), keys, True)
    log.put(done)


@pytest.mark.parametrize("dies", [False, True])
def test_processes_share_the_work_in_the_batches_of_one(tmp_path, monkeypatch_shards, dies):
    """One that is killed leaves its part to the others."""
    context = multiprocessing.get_context("fork")
    keys, start, log = [f"{i:02}" for i in range(60)], context.Barrier(3), context.Queue()
    each = [
        context.Process(target=build_together, args=(tmp_path, keys, start, log, dies and i == 1)) for i in (0, 1, 2)
    ]
    for process in each:
        process.start()
    found = [log.get(timeout=HANG) for _ in range(3 - dies)]
    for process in each:
        process.join(HANG)
    assert [process.exitcode for process in each] == [0, -signal.SIGKILL if dies else 0, 0]
    assert sum(map(bool, found)) > 1
    if not dies:
        expected = [[i, i + 1] for i in sorted(range(0, 60, 2))]
        assert sorted(sorted(batch) for done in found for batch in done) == expected
    left = {path.name.split("-")[0] for path in (tmp_path / "features").glob("*/*")}
    assert left == {"identity.json", "lock", "shard"}


@pytest.mark.parametrize("name", ["concat", "cross_attention"])
def test_half_precision_is_near_and_half_the_size(original, tmp_path, name):
    model = model_of(name)
    live = prepare_pairs(model, table_of(original), cache=False)
    half = prepare_pairs(model, table_of(original), cache=str(tmp_path), cache_dtype="float16", num_workers=0)
    rows = list(range(len(TEXTS)))
    found = table_logits(model, half, rows)
    for task, logits in table_logits(model, live, rows).items():
        gap = np.abs(found[task] - logits).max() / np.abs(logits).max()
        assert 0 < gap < 1e-2
    assert {entry.dtype for entry in list_cache(tmp_path)} == {"float16"}
    cached_pairs(model, original, tmp_path)  # float32 is another identity
    assert len(folders(tmp_path)) == 4


def test_the_cache_can_be_listed_and_pruned(original, tmp_path):
    cached_pairs(model_of(), original, tmp_path)
    entries = list_cache(tmp_path)
    assert {(e.tower, e.items, e.tokens, e.dtype) for e in entries} == {
        ("text", 4, True, "float32"),
        ("image", 3, True, "float32"),
    }
    assert all(e.mib > 0 for e in entries)
    old = entries[0].folder / "identity.json"
    os.utime(old, (0, time.time() - 10 * 86400))
    assert [e.folder for e in prune_cache(tmp_path, unused_days=5)] == [entries[0].folder]
    with FileLock(entries[1].folder / "lock"):
        assert prune_cache(tmp_path) == []  # in use
    assert len(prune_cache(tmp_path)) == 1
    assert folders(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        MmfuseError, match=r"cache.dir: .*file cannot be written: Not a dir.*cache.enabled=false"
    ) as error:
        build_cache(tmp_path / "file", {}, ["a"], refuse, True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_all_of_it_follows_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        build_cache(tmp_path / "cache", {"a": 1}, ["a"], encoder_of(["a"], 2, []), True)
    finally:
        os.umask(before)
    found = [path for path in (tmp_path / "cache").rglob("*") if path.name != "lock"]
    assert {path.name.split("-")[0] for path in found} >= {"shard", "identity.json", "keys.npy", "tokens.npy"}
    for path in found:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_a_disk_that_takes_no_more_is_told_as_such_and_leaves_no_half_shard(tmp_path):
    """A limit on the size of files, which the system sets for all who write, serves as one."""
    keys = [f"{i:04}" for i in range(400)]
    build_cache(tmp_path, {"a": 1}, keys[:2], encoder_of(keys[:2], 2, []), True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(MmfuseError, match=rf"cache.dir: {tmp_path} cannot be written: File too large; choose"):
            build_cache(tmp_path, {"a": 1}, keys, encoder_of(keys, 400, []), True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (folder,) = (tmp_path / "features").iterdir()
    there = {path.name.split("-")[0] for path in folder.iterdir()} - {"lock"}  # filelock 3.24 deletes it, others do not
    assert there == {"identity.json", "shard"}
    seen = []
    assert_holds(build_cache(tmp_path, {"a": 1}, keys, encoder_of(keys, 400, seen), True), keys, True)
    assert len(seen) == 398


@pytest.mark.parametrize("file", ["offsets.npy", "tokens.npy", "keys.npy", "pooled.npy"])
def test_what_may_not_be_read_is_told_with_a_remedy(tmp_path, monkeypatch, file):
    """The superuser may read all, so the refusal is planted."""
    build_cache(tmp_path, {"a": 1}, ["a"], encoder_of(["a"], 2, []), True)
    load = np.load

    def refused(path, *args, **options):
        if path.name == file:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return load(path, *args, **options)

    monkeypatch.setattr(np, "load", refused)
    told = r"cache.dir: .*/shard-\w+ cannot be read; let its owner run chmod -R g\+rX .*another cache.dir"
    with pytest.raises(MmfuseError, match=told):
        build_cache(tmp_path, {"a": 1}, ["a"], refuse, True)
    (entry,) = list_cache(tmp_path)
    assert bool(entry.problem) == (file in ("keys.npy", "pooled.npy"))  # only these are read to list it


def test_a_cache_that_is_closed_as_a_whole_is_one_line_too(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(MmfuseError, match=r"cache.dir: .*features/\w+ cannot be read; let its owner"):
        build_cache(tmp_path, {"a": 1}, ["a"], refuse, True)


def test_a_closed_folder_is_one_line_too(tmp_path, monkeypatch):
    build_cache(tmp_path, {"a": 1}, ["a"], encoder_of(["a"], 2, []), True)

    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(MmfuseError, match=r"cache.dir: .*shard-\w+ cannot be read"):
        build_cache(tmp_path, {"a": 1}, ["a"], refuse, True)


def test_what_cannot_be_deleted_is_told_and_the_rest_is_deleted(tmp_path, monkeypatch):
    for a in range(2):
        build_cache(tmp_path, {"a": a}, ["a"], encoder_of(["a"], 2, []), True)
    kept = folders(tmp_path)[0]
    rmtree = shutil.rmtree

    def refused(path):
        if path.name == kept:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        rmtree(path)

    monkeypatch.setattr(shutil, "rmtree", refused)
    problems = {entry.folder.name: entry.problem for entry in prune_cache(tmp_path)}
    assert "cannot be deleted: Permission denied" in problems.pop(kept)
    assert list(problems.values()) == [""]
    assert folders(tmp_path) == [kept]


def test_a_user_without_a_home_names_the_folder(monkeypatch):
    for name in ("MMFUSE_CACHE", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 5)
    with pytest.raises(MmfuseError, match=r"cache.dir: there is no home folder; set it, or MMFUSE_CACHE or HOME"):
        cache_root(None)


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MMFUSE_CACHE", str(tmp_path / "env"))
    assert cache_root("given") == Path("given")
    assert cache_root(None) == tmp_path / "env"
    monkeypatch.delenv("MMFUSE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root(None) == tmp_path / ".cache" / "mmfuse"


def test_the_hash_of_weights_sees_values_names_types_and_buffers():
    first = torch.nn.BatchNorm1d(3)
    assert weights_hash(first) == weights_hash(torch.nn.BatchNorm1d(3))
    others = [torch.nn.BatchNorm1d(3) for _ in range(2)] + [torch.nn.BatchNorm1d(3).half(), torch.nn.Sequential(first)]
    others[0].weight.data[1] += 1e-6
    others[1].running_var[2] += 1e-6
    assert len({weights_hash(module) for module in (first, *others)}) == 5
