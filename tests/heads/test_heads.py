"""What every head keeps, and each loss against its formula in numpy."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmfuse.heads import HEADS, Head, Heads, build_head
from mmfuse.tasks import TASKS
from mmfuse.types import MISSING_CLASS, Features, MmfuseError

DIM, LABELS = 5, ["a", "b", "c"]
LABEL_HEADS = [name for name in HEADS.names() if TASKS.get(name).has_labels]


def head_of(name) -> Any:
    torch.manual_seed(0)
    return build_head(name, DIM, LABELS)


def features(rows=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(rows, 2, DIM, generator=generator)
    pooled = torch.randn(rows, DIM, generator=generator, requires_grad=True)
    return Features(tokens, torch.ones(rows, 2, dtype=torch.bool), pooled, torch.ones(rows, dtype=torch.bool))


def targets(head, rows=4, missing=(), seed=0):
    """Encoded targets as `load_table` gives them; the rows of `missing` have none."""
    rng = np.random.default_rng(seed)
    if head.task.exclusive:
        target = rng.integers(0, len(LABELS), rows)
        target[list(missing)] = MISSING_CLASS
    else:
        target = rng.integers(0, 2, (rows, len(LABELS))).astype(np.float32)
        target[list(missing)] = np.nan
    return torch.from_numpy(target)


def log_softmax(z):
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("name", LABEL_HEADS)
class TestEveryHead:
    def test_it_keeps_the_protocol(self, name):
        head = head_of(name)
        assert isinstance(head, Head)
        assert isinstance(head.task, TASKS.get(name))
        assert head.reads <= {"pooled", "tokens"}
        assert head.labels == LABELS
        assert head.temperature == 1.0
        for section in ("Reference:", "Differs:", "Prefer when:"):
            assert section in type(head).__doc__

    def test_logits_are_linear_on_pooled_and_on_nothing_else(self, name):
        head, given = head_of(name), features()
        weight, bias = (p.detach().numpy() for p in head.linear.parameters())
        expected = given.pooled.detach().numpy() @ weight.T + bias
        np.testing.assert_allclose(head(given).detach(), expected, rtol=1e-5, atol=1e-6)
        others = given._replace(tokens=given.tokens + 1, mask=~given.mask)
        assert torch.equal(head(others), head(given))
        assert sum(p.numel() for p in head.parameters()) == DIM * 3 + 3

    def test_a_missing_target_adds_nothing(self, name):
        head, logits = head_of(name), torch.randn(6, 3)
        missing = [1, 4]
        known = [i for i in range(6) if i not in missing]
        whole, masked = targets(head, 6), targets(head, 6, missing)
        torch.testing.assert_close(head.loss(logits, masked), head.loss(logits[known], whole[known]))
        assert head.count(masked) == head.count(whole[known])
        changed = logits.clone()
        changed[missing] += 100
        assert head.loss(changed, masked) == head.loss(logits, masked)

    def test_a_batch_without_any_target_has_loss_0_and_a_gradient_of_0(self, name):
        head, given = head_of(name), features()
        target = targets(head, missing=range(4))
        loss = head.loss(head(given), target)
        loss.backward()
        assert loss == 0
        assert head.count(target) == 0
        assert not given.pooled.grad.any()
        assert not head.linear.weight.grad.any()

    def test_the_loss_is_a_sum_so_that_batches_add_up(self, name):
        head, logits, target = head_of(name), torch.randn(6, 3), targets(head_of(name), 6, [2])
        parts = head.loss(logits[:2], target[:2]) + head.loss(logits[2:], target[2:])
        torch.testing.assert_close(head.loss(logits, target), parts)
        assert head.count(target) == head.count(target[:2]) + head.count(target[2:])

    def test_the_loss_is_computed_in_single_precision(self, name):
        head, logits, target = head_of(name), torch.randn(4, 3), targets(head_of(name))
        assert head.loss(logits.bfloat16(), target).dtype == torch.float32

    def test_every_parameter_gets_a_gradient(self, name):
        head = head_of(name)
        head.loss(head(features()), targets(head)).backward()
        assert all(p.grad is not None and p.grad.any() for p in head.parameters())

    @settings(deadline=None, max_examples=30)
    @given(
        logits=hnp.arrays(np.float32, (3, 3), elements=st.floats(-1e4, 1e4, width=32)), temperature=st.floats(0.05, 20)
    )
    def test_probabilities_are_probabilities_and_a_temperature_keeps_their_order(self, name, logits, temperature):
        head = head_of(name)
        head.temperature = temperature
        found = head.probabilities(logits)
        assert ((found >= 0) & (found <= 1)).all()
        np.testing.assert_allclose(
            found, type(head).probabilities(head_of(name), logits.astype(float) / temperature), atol=1e-12
        )
        for row, p in zip(logits, found, strict=True):
            assert (np.diff(p[np.argsort(row, kind="stable")]) >= 0).all()

    def test_a_decision_is_json_and_tells_every_labels_probability(self, name):
        head = head_of(name)
        probabilities = head.probabilities(np.array([[2.0, -1.0, 0.5]]))[0]
        decision = json.loads(json.dumps(head.decide(probabilities)))
        assert decision["probabilities"] == {n: round(float(p), 6) for n, p in zip(LABELS, probabilities, strict=True)}
        assert list(decision["probabilities"]) == LABELS

    def test_weights_of_the_loss_are_no_part_of_the_model(self, name):
        head = head_of(name)
        before = head.state_dict().keys()
        head.weigh(targets(head, 40).numpy())
        assert head.state_dict().keys() == before

    def test_an_unknown_option_is_refused(self, name):
        with pytest.raises(MmfuseError, match=rf"head.hiden is not an option of head '{name}'; legal: name"):
            build_head(name, DIM, LABELS, {"hiden": 3})


def test_an_unknown_head_is_refused():
    with pytest.raises(MmfuseError, match=r"unknown head 'clasification'.*did you mean 'classification'"):
        build_head("clasification", DIM, LABELS)


# Formulas.

WEIGHTS = np.array([0.5, 2.0, 1.5], dtype=np.float32)


@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(weighted):
    head = head_of("classification")
    weights = WEIGHTS if weighted else np.ones(3)
    head.class_weights = torch.tensor(weights, dtype=torch.float32)
    logits, target = torch.randn(7, 3), torch.tensor([0, 1, MISSING_CLASS, 2, 2, MISSING_CLASS, 1])
    known = target.numpy() != MISSING_CLASS
    z, t = logits.numpy()[known], target.numpy()[known]
    expected = -(weights[t] * log_softmax(z)[np.arange(len(t)), t]).sum()
    np.testing.assert_allclose(head.loss(logits, target), expected, rtol=1e-5)
    np.testing.assert_allclose(head.count(target), weights[t].sum(), rtol=1e-6)


def test_targets_are_counted_here_with_weights_that_a_subclass_has_set():
    """On another device, whose weights would be waited for."""
    head = head_of("classification")
    head.class_weights = torch.from_numpy(WEIGHTS)  # not by `weigh`
    head.to("meta")
    assert head.count(torch.tensor([0, 1, MISSING_CLASS, 1])) == 4.5


@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy(weighted):
    head = head_of("multilabel")
    weights = WEIGHTS if weighted else np.ones(3)
    head.pos_weight = torch.tensor(weights, dtype=torch.float32)
    logits, target = torch.randn(4, 3), targets(head)
    target[0, 1] = target[2, 2] = np.nan
    p, t = sigmoid(logits.double().numpy()), target.numpy()
    each = -(weights * t * np.log(p) + (1 - t) * np.log(1 - p))
    np.testing.assert_allclose(head.loss(logits, target), np.nansum(each), rtol=1e-5)
    assert head.count(target) == 10


def test_a_label_that_is_not_known_moves_none_of_the_others():
    head, logits = head_of("multilabel"), torch.randn(1, 3, requires_grad=True)
    head.loss(logits, torch.tensor([[1.0, torch.nan, 0.0]])).backward()
    assert logits.grad[0, 1] == 0
    assert logits.grad[0, 0] < 0 < logits.grad[0, 2]


def test_probabilities_are_softmax_and_sigmoid_of_logits_over_the_temperature():
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    one, several = head_of("classification"), head_of("multilabel")
    one.temperature = several.temperature = 2.5
    np.testing.assert_allclose(one.probabilities(logits), np.exp(log_softmax(logits / 2.5)), rtol=1e-6)
    np.testing.assert_allclose(several.probabilities(logits), sigmoid(logits / 2.5), rtol=1e-6)


def test_the_decision_is_the_likeliest_class_or_all_labels_above_their_thresholds():
    one, several = head_of("classification"), head_of("multilabel")
    assert one.decide(np.array([0.2, 0.5, 0.3]))["label"] == "b"
    assert several.thresholds == [0.5] * 3
    assert several.decide(np.array([0.5, 0.49, 0.9]))["labels"] == ["a", "c"]
    several.thresholds = [0.6, 0.1, 0.95]
    assert several.decide(np.array([0.5, 0.49, 0.9]))["labels"] == ["b"]
    assert several.decide(np.zeros(3))["labels"] == []


@settings(deadline=None, max_examples=30)
@given(target=hnp.arrays(np.int64, st.integers(1, 30), elements=st.sampled_from([MISSING_CLASS, 0, 1, 2])))
def test_balanced_classes_weigh_alike_in_sum_and_one_on_average(target):
    head = head_of("classification")
    head.weigh(target)
    weights, known = head.class_weights.numpy(), target[target != MISSING_CLASS]
    counts = np.bincount(known, minlength=3)
    assert (weights[counts == 0] == 1).all()
    if len(known):
        np.testing.assert_allclose((weights * counts)[counts > 0], len(known) / (counts > 0).sum(), rtol=1e-5)
        np.testing.assert_allclose(weights[known].mean(), 1, rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    target=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.sampled_from([np.nan, 0.0, 1.0])
    )
)
def test_a_labels_positive_weight_is_negatives_per_positive_at_most_10(target):
    head = head_of("multilabel")
    head.weigh(target)
    for found, column in zip(head.pos_weight.tolist(), target.T, strict=True):
        positives, negatives = (column == 1).sum(), (column == 0).sum()
        expected = min(negatives / positives, 10) if positives and negatives else 1
        assert found == pytest.approx(expected)


def test_a_rare_label_weighs_ten_times_at_most():
    head = head_of("multilabel")
    target = np.zeros((100, 3), dtype=np.float32)
    target[:1, 0] = target[:25, 1] = target[:80, 2] = 1
    head.weigh(target)
    assert head.pos_weight.tolist() == [10.0, 3.0, 0.25]


def test_a_task_may_be_called_like_a_method_of_torchs_modules():
    """All its names but `training`, which manifests refuse; the state's keys are the names, as with any other."""
    names = [name for name in dir(torch.nn.ModuleDict) if not name.startswith("_")]
    assert {"type", "keys", "values", "items", "update", "pop", "train", "half"} <= set(names)
    heads = Heads()
    for i, name in enumerate(names):
        heads[name] = build_head("classification", DIM, [str(label) for label in range(i + 2)])
    assert list(heads) == names
    assert [len(head.labels) for head in heads.values()] == [i + 2 for i in range(len(names))]
    assert "type.linear.weight" in heads.state_dict()
    for act in ("float", "eval", "train", "zero_grad"):
        getattr(heads, act)()
    again = copy.deepcopy(heads)
    again.load_state_dict(heads.state_dict())
    assert not torch.equal(heads["type"].linear.weight, again["values"].linear.weight)
