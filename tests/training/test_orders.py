"""Orders of a run: what balanced draws, and what is refused."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

import mmfuse
from mmfuse.data.load import load_table
from mmfuse.data.shards.write import write_shards
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.training.orders import Given
from mmfuse.training.orders.balanced import Balanced
from mmfuse.types import MISSING_CLASS, MmfuseError


def given(classes, groups=None, **tasks) -> Given:
    """Training rows of these classes, all of them; other tasks by their kind."""
    rows = {"group": groups or [str(i) for i in range(len(classes))], "subgroup.sex": ["f", "m"] * (len(classes) // 2)}
    targets = {"kind": np.array(classes), **{task: np.zeros((len(classes), 2)) for task in tasks}}
    kinds = {"kind": "classification", **tasks}
    specs = {task: SimpleNamespace(type=kind) for task, kind in kinds.items()}
    manifest = SimpleNamespace(tasks=specs, subgroups=["sex"], source="x")
    table = SimpleNamespace(rows=rows, targets=targets, manifest=manifest)
    return Given(table, list(range(len(classes))), np.ones(len(classes), int), 4, 1, 0)


def drawn(order, epoch) -> Counter:
    return Counter(row for (batch,) in order.plan(epoch) for row in batch)


def test_classes_come_equally_often():
    """Of 24 rows 18 are of class 0, 4 of class 1, 1 of class 2, and one is not known: 23 are drawn, 7 or 8 of each."""
    classes = np.array([0] * 18 + [1] * 4 + [2, MISSING_CLASS])
    order, seen, sizes = Balanced(given(classes)), set(), Counter()
    for epoch in range(30):
        found = drawn(order, epoch)
        assert sum(found.values()) == 23
        of = {kind: {row: n for row, n in found.items() if classes[row] == kind} for kind in (0, 1, 2)}
        counts = {kind: sum(rows.values()) for kind, rows in of.items()}
        assert set(counts.values()) <= {7, 8}
        assert set(of[0].values()) == {1}  # none twice, where there are enough
        assert max(of[1].values()) - min(of[1].values()) <= 1
        assert 23 not in found
        seen |= set(of[0])
        sizes.update(kind for kind, count in counts.items() if count == 8)
    assert seen == set(range(18))  # in one epoch or another
    assert min(sizes.values()) > 10  # none has the odd one always


def test_groups_and_subgroups_come_equally_often():
    groups = ["a"] * 5 + ["b"] * 2 + ["", "c"]
    found = drawn(Balanced(given([0] * 9, groups), by="group"), 0)
    counts = Counter()
    for row, n in found.items():
        counts[groups[row]] += n
    assert sorted(counts.values()) == [2, 3, 3]
    assert "" not in counts


def test_identity_is_of_the_parts():
    one, same, other = (Balanced(given(classes)).identity for classes in ([0, 1, 1], [0, 2, 2], [0, 0, 1]))
    assert one == same != other


@pytest.mark.parametrize(
    ("rows", "by", "message"),
    [
        (given([0, 1], signs="multilabel"), "signs", "task 'signs' is multilabel.*tasks.signs.class_weights: balanced"),
        (given([0, 1], age="regression"), "age", "task 'age' is regression"),
        (given([0, 1]), "kinds", "by: legal: kind, group, sex .did you mean 'kind'"),
        (given([1, 1]), "kind", "the training rows have 1 value of 'kind'"),
        (given([0, 1], other="classification"), None, "by: one of kind, other, group, sex is expected"),
    ],
)
def test_what_cannot_be_balanced_is_refused(rows, by, message):
    with pytest.raises(MmfuseError, match=message):
        Balanced(rows, by=by)


def test_a_stream_has_an_order_of_its_own(tiny, phantom, tmp_path):
    write_shards(load_table(load_manifest(phantom)), str(tmp_path / "out"), size=40_000)
    shards = f"data.manifest={tmp_path / 'out' / 'manifest.yaml'}"
    with pytest.raises(MmfuseError, match="balanced: rows that are streamed from shards come in"):
        mmfuse.train(tiny(shards, "data.lanes=2", "training.order={name: balanced, by: group}"))
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_must_balance_by_the_same(tiny, tmp_path, phantom, kill_at):
    """By a column that is in no other identity."""
    copy = tmp_path / "copy"
    copy.mkdir()
    text = phantom.read_text().replace("{column: image}", f"{{column: image, root: {phantom.parent}}}")
    (copy / "manifest.yaml").write_text(text)
    rows = (phantom.parent / "data.csv").read_text()
    (copy / "data.csv").write_text(rows)
    config = tiny(
        f"data.manifest={copy / 'manifest.yaml'}",
        "training.order={name: balanced, by: sex}",
        "training.checkpoint_every=2",
    )
    kill_at(config, 3)
    head, *lines = rows.splitlines()
    at = next(i for i, line in enumerate(lines) if ",train," in line and ",M," in line)
    lines[at] = lines[at].replace(",M,", ",F,")
    (copy / "data.csv").write_text("\n".join([head, *lines, ""]))
    with pytest.raises(MmfuseError, match="cannot resume: the rows"):
        mmfuse.train(config)
