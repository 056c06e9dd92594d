"""Splits: groups whole, old rows never moved, labels spread as the shares say."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfuse.data.tables.splits import split_by_hash, split_stratified
from mmfuse.seeds import unit_hash

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
GROUPS = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=40)


@st.composite
def labelled_groups(draw):
    groups = draw(GROUPS)
    labels = draw(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=len(groups), max_size=len(groups)))
    return groups, np.array(labels, dtype=float)


def assert_groups_are_whole(groups, parts):
    assert len(parts) == len(groups)
    assert len(set(zip(groups, parts, strict=True))) == len(set(groups))


@given(seed=st.integers(0, 2**31), name=st.text())
def test_unit_hash_is_the_leading_bits_of_a_sha256(seed, name):
    bits = hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
    assert unit_hash(seed, name) == int(bits, 16) // 2**200 / 2**56
    assert 0 <= unit_hash(seed, name) < 1


@settings(deadline=None)
@given(old=GROUPS, new=GROUPS, seed=st.integers(0, 9))
def test_new_rows_never_move_an_old_one(old, new, seed):
    parts = split_by_hash(old, SHARES, seed)
    assert split_by_hash([*new, *old], SHARES, seed)[len(new) :] == parts
    assert_groups_are_whole(old, parts)


@settings(deadline=None)
@given(data=labelled_groups(), seed=st.integers(0, 9))
def test_stratified_groups_are_whole_and_rows_may_stand_in_any_order(data, seed):
    groups, labels = data
    parts = split_stratified(groups, labels, SHARES, seed)
    assert_groups_are_whole(groups, parts)
    assert split_stratified(groups[::-1], labels[::-1], SHARES, seed) == parts[::-1]


@pytest.mark.parametrize("seed", [0, 1])
def test_hashed_shares_are_near_the_wanted_ones(seed):
    counts = Counter(split_by_hash([str(i) for i in range(4000)], SHARES, seed))
    for name, share in SHARES.items():  # five standard deviations of a binomial
        assert abs(counts[name] - 4000 * share) < 5 * (4000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("split", ["hash", "stratified"])
def test_another_seed_gives_another_split(split):
    groups, labels = [str(i) for i in range(200)], np.ones((200, 1))
    first, second = (
        split_by_hash(groups, SHARES, seed) if split == "hash" else split_stratified(groups, labels, SHARES, seed)
        for seed in (0, 1)
    )
    assert sum(a != b for a, b in zip(first, second, strict=True)) > 40


@pytest.mark.parametrize("shares", [{"train": 1.0, "test": 0.0}, {"train": 0.0, "test": 1.0}])
def test_a_share_of_nothing_gets_nothing(shares):
    full = max(shares, key=shares.get)
    groups = [str(i) for i in range(300)]
    assert set(split_by_hash(groups, shares, 0)) == {full}
    assert set(split_stratified(groups, np.eye(3)[np.arange(300) % 3], shares, 0)) == {full}


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(10, 120), min_size=2, max_size=5),
    shares=st.sampled_from([SHARES, {str(k): 0.2 for k in range(5)}, {"train": 0.9, "validation": 0.1}]),
    seed=st.integers(0, 9),
)
def test_each_class_is_spread_as_the_shares_say(sizes, shares, seed):
    target = np.repeat(np.arange(len(sizes)), sizes)
    parts = np.array(split_stratified([str(i) for i in range(len(target))], np.eye(len(sizes))[target], shares, seed))
    for name, share in shares.items():
        for c, size in enumerate(sizes):
            assert abs((parts[target == c] == name).sum() - share * size) <= 2
        assert abs((parts == name).sum() - share * len(target)) <= 1 + len(sizes)


def test_labels_of_uneven_groups_are_spread_too():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 200)
    groups = np.repeat([f"patient {i}" for i in range(200)], sizes).tolist()
    labels = (rng.random((len(groups), 3)) < [0.5, 0.2, 0.05]).astype(float)
    parts = np.array(split_stratified(groups, labels, SHARES, 0))
    assert_groups_are_whole(groups, parts.tolist())
    for name, share in SHARES.items():
        found = labels[parts == name].sum(0) / labels.sum(0)
        assert np.abs(found - share).max() < 0.03
        assert abs((parts == name).mean() - share) < 0.02


def test_rows_that_count_for_no_label_are_spread_as_well():
    parts = split_stratified([str(i) for i in range(100)], np.zeros((100, 2)), SHARES, 0)
    assert {name: abs(parts.count(name) - 100 * share) <= 1 for name, share in SHARES.items()} == dict.fromkeys(
        SHARES, True
    )
