"""What a modality contributes: against games solved by hand, naive loops, and the model run on rows that lack it."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import nn

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.data.load import load_table
from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.evaluation import contribution
from mmfuse.evaluation.contribution import (
    SHARES,
    EncodedRows,
    emap,
    encode_rows,
    missing_curve,
    permutation_scores,
    shapley,
    worse_than_unimodal,
)
from mmfuse.fusion import FUSIONS, build_fusion
from mmfuse.model import FusionModel
from mmfuse.predict import prepare_pairs, table_logits
from mmfuse.seeds import unit_hash
from mmfuse.types import Features, MmfuseError

pytestmark = pytest.mark.heavy

TASKS = {
    "y": {"type": "classification", "labels": ["u", "v", "w"]},
    "z": {"type": "multilabel", "labels": ["p", "q"]},
}
MODALITIES = ("text", "image")
DIMS = {"text": 5, "image": 7}


# Games solved by hand: a text is a, an image is b, each +1 or -1, and a missing one is 0.


class Tower(nn.Module):
    """All that a model asks of an encoder whose features are given."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim


class Formula(nn.Module):
    """`pooled` as a formula of a and b says; a scratch strategy."""

    uses = MODALITIES
    reads = frozenset({"pooled"})
    size = None
    out_dim = 1

    def __init__(self, text_dim, image_dim):
        super().__init__()

    formula: Any

    def forward(self, text, image):
        return Features(text.tokens, text.mask, self.formula(text.pooled, image.pooled), text.present)


class Xor(Formula):
    interaction = "multiplicative"

    def formula(self, a, b):
        return -a * b


class Additive(Formula):
    interaction = "additive"

    def formula(self, a, b):
        return 2 * a + b


class TextAlone(Formula):
    uses = ("text",)
    interaction = "additive"

    def forward(self, text, image=None):
        return text


@pytest.fixture
def formula_model(monkeypatch):
    """A model whose only logit is its formula: class "yes" against a constant 0, or the label "yes"."""

    def make(cls, kind="classification"):
        monkeypatch.setitem(FUSIONS._classes, "formula", cls)
        labels = ["no", "yes"] if kind == "classification" else ["yes"]
        model = FusionModel(Tower(1), Tower(1), {"name": "formula"}, {"y": {"type": kind, "labels": labels}}).eval()
        with torch.no_grad():
            head: Any = model.heads["y"]
            head.linear.weight.copy_(torch.tensor([[0.0], [1.0]])[-len(labels) :])
            head.linear.bias.zero_()
            for token in model.missing_tokens.values():
                token.zero_()
        return model

    return make


def signs(values):
    values = torch.tensor(values, dtype=torch.float32)[:, None]
    there = torch.ones(len(values), dtype=torch.bool)
    return Features(values[:, None], there[:, None], values, there)


def rows_of(a, b, target, has=None, ids=None):
    n = len(a)
    has = has or {m: np.ones(n, dtype=bool) for m in MODALITIES}
    return EncodedRows(ids or [f"r{i}" for i in range(n)], signs(a), signs(b), has, {"y": np.asarray(target)})


A, B = [1, 1, -1, -1, 1, 1, 1, -1, -1, -1], [1, 1, -1, -1, -1, -1, -1, 1, 1, 1]
UNEQUAL = [int(a != b) for a, b in zip(A, B, strict=True)]  # 6 of 10; a alone and b alone say nothing of it
POSITIVE = [int(a > 0) for a in A]
MOSTLY_YES = {"y": np.array([1, 1, 0, -100])}


def test_the_projection_of_xor_knows_nothing(formula_model):
    """Every mean over texts or images is 0, so the projection is: it says the first class, right in 4 rows of 10."""
    found = emap(formula_model(Xor), rows_of(A, B, UNEQUAL))
    assert (found["rows"], found["space"], found["tasks"]["y"]["n"]) == (10, "logits", 10)
    assert found["tasks"]["y"]["model"] == {"accuracy": 1.0, "f1_macro": 1.0}
    f1_macro = (2 * 4 / (4 + 10) + 0) / 2  # of the class it always says, and of the one it never does
    assert found["tasks"]["y"]["projection"] == pytest.approx({"accuracy": 0.4, "f1_macro": f1_macro})
    assert found["tasks"]["y"]["gap"] == pytest.approx({"accuracy": 0.6, "f1_macro": 1 - f1_macro})


def test_an_additive_formula_is_its_own_projection(formula_model):
    found = emap(formula_model(Additive), rows_of(A, B, POSITIVE))
    assert found["tasks"]["y"]["gap"] == {"accuracy": 0.0, "f1_macro": 0.0}
    assert found["tasks"]["y"]["projection"]["accuracy"] == 1.0


def test_xor_is_shared_equally_and_is_all_interaction(formula_model):
    """One modality alone says 0, the first class: 4 of 10; the training rows' majority is the second: 6 of 10."""
    found = shapley(formula_model(Xor), rows_of(A, B, UNEQUAL), MOSTLY_YES)
    assert found["tasks"]["y"]["accuracy"] == pytest.approx(
        {
            "none": 0.6,
            "text": 0.4,
            "image": 0.4,
            "both": 1.0,
            "phi_text": 0.2,
            "phi_image": 0.2,
            "interaction": 0.8,
        }
    )


def test_an_additive_game_gives_the_text_its_due(formula_model):
    """2a + b has a's sign: the text alone is right always, the image alone where b = a, and the prior in half."""
    found = shapley(formula_model(Additive), rows_of(A, B, POSITIVE), MOSTLY_YES)
    assert found["tasks"]["y"]["accuracy"] == pytest.approx(
        {
            "none": 0.5,
            "text": 1.0,
            "image": 0.4,
            "both": 1.0,
            "phi_text": 0.55,
            "phi_image": -0.05,
            "interaction": 0.1,
        }
    )


def test_a_modality_that_is_not_used_is_no_player(formula_model):
    model, data = formula_model(TextAlone), rows_of(A, B, POSITIVE)
    found = shapley(model, data, MOSTLY_YES)["tasks"]["y"]["accuracy"]
    assert (found["phi_text"], found["phi_image"], found["interaction"]) == (0.5, 0.0, 0.0)
    assert found["image"] == found["none"] == 0.5
    drops = permutation_scores(model, data, MOSTLY_YES)["tasks"]["y"]
    assert drops["image"]["accuracy"] == {"values": [1.0] * 5, "drop": 0.0, "drop_of_score": 0.0, "drop_of_range": 0.0}
    assert drops["text"]["accuracy"]["drop"] > 0
    curve = missing_curve(model, data)["tasks"]["y"]
    assert curve["image"]["accuracy"] == {"values": [1.0] * 11, "mean": 1.0}
    assert emap(model, data)["tasks"]["y"]["gap"]["accuracy"] == 0.0


def test_rows_that_lack_a_modality_play_no_game(formula_model):
    """They would be scored on two missing tokens, which no training has seen."""
    has = {"text": np.array([True] * 8 + [False] * 2), "image": np.array([False] + [True] * 9)}
    found = shapley(formula_model(Xor), rows_of(A, B, UNEQUAL, has), MOSTLY_YES)
    assert (found["rows"], found["left_out"]) == (7, 3)
    assert found["tasks"] == shapley(formula_model(Xor), rows_of(A[1:8], B[1:8], UNEQUAL[1:8]), MOSTLY_YES)["tasks"]


def test_a_prior_of_labels_is_decided_by_majority_not_by_the_models_thresholds(formula_model):
    model = formula_model(Xor, "multilabel")
    model.heads["y"].thresholds = [0.2]
    data = rows_of(A, B, np.zeros((10, 1), dtype=np.float32))
    train = {"y": np.array([[1.0], [0.0], [0.0], [np.nan]])}  # a third is above the threshold, and below a half
    found = shapley(model, data, train)["tasks"]["y"]
    assert found["accuracy"]["none"] == 1.0
    assert set(found["auroc_macro"].values()) == {None}  # no positives


@pytest.mark.parametrize("train", [{}, {"y": np.array([-100, -100])}], ids=["no task", "no target"])
def test_without_training_targets_there_is_no_prior(formula_model, train):
    for ask in (shapley, permutation_scores):
        with pytest.raises(MmfuseError, match="train_targets: task 'y' has no target"):
            ask(formula_model(Xor), rows_of(A, B, UNEQUAL), train)


def test_a_permutation_deals_out_each_rows_features_once(formula_model):
    model, data = formula_model(Additive), rows_of(A, B, POSITIVE)
    found = permutation_scores(model, data, MOSTLY_YES, permutations=80, seed=1)
    text, image = (found["tasks"]["y"][m]["accuracy"] for m in MODALITIES)
    assert image["values"] == [1.0] * 80  # b never changes the sign of 2a + b
    assert image["drop"] == 0.0
    right = np.array(text["values"]) * 10
    assert np.allclose(right % 2, 0)  # five rows of a = 1 remain five, so rights come in twos; not so if drawn anew
    assert np.std(right) > 0
    assert np.mean(text["values"]) == pytest.approx(0.5, abs=4 * np.std(text["values"]) / np.sqrt(80))
    assert text["drop"] == pytest.approx(1 - np.mean(text["values"]))
    assert text["drop_of_score"] == pytest.approx(text["drop"] / 1.0)
    assert found["tasks"]["y"]["prior"]["accuracy"] == 0.5
    assert text["drop_of_range"] == pytest.approx(text["drop"] / (1 - 0.5))


def test_permutations_follow_the_ids_and_the_seed(formula_model):
    model = formula_model(Xor)
    one = permutation_scores(model, rows_of(A, B, UNEQUAL), MOSTLY_YES)
    order = np.random.default_rng(0).permutation(10)
    a, b, y = (np.array(values)[order] for values in (A, B, UNEQUAL))
    assert permutation_scores(model, rows_of(a, b, y, ids=[f"r{i}" for i in order]), MOSTLY_YES) == one
    assert permutation_scores(model, rows_of(A, B, UNEQUAL), MOSTLY_YES, seed=1) != one
    with pytest.raises(ValueError, match="permutations is 0"):
        permutation_scores(model, rows_of(A, B, UNEQUAL), MOSTLY_YES, permutations=0)


def test_a_row_that_lacks_the_text_at_some_share_lacks_it_at_all_larger_ones(formula_model):
    """Each row is scored alone: with its text it is right, without it wrong."""
    model, n = formula_model(TextAlone), 12
    gone_from = []
    for row in range(n):
        target = [1 if i == row else -100 for i in range(n)]
        values = missing_curve(model, rows_of([1] * n, [1] * n, target))["tasks"]["y"]["text"]["accuracy"]["values"]
        assert values == sorted(values, reverse=True)
        assert (values[0], values[-1]) == (1.0, 0.0)
        gone_from.append(values.index(0.0))
    assert len(set(gone_from)) > 3
    expected = [
        next(i for i, share in enumerate(SHARES) if unit_hash(0, f"missing:r{row}") < share) for row in range(n)
    ]
    assert gone_from == expected


def test_what_is_missing_is_counted(formula_model):
    has = {"text": np.array([True] * 8 + [False] * 2), "image": np.array([False] + [True] * 9)}
    found = missing_curve(formula_model(Xor), rows_of(A, B, UNEQUAL, has))
    assert found["shares"] == pytest.approx(np.arange(11) / 10)
    assert (found["lacking"]["text"][0], found["lacking"]["text"][-1]) == (0.2, 1.0)
    assert (found["lacking"]["image"][0], found["lacking"]["image"][-1]) == (0.1, 1.0)
    assert (found["empty"]["text"][0], found["empty"]["text"][-1]) == (0.0, 0.1)
    assert (found["empty"]["image"][0], found["empty"]["image"][-1]) == (0.0, 0.2)
    assert found["untrained"] == ["text", "image"]
    values = found["tasks"]["y"]["text"]["accuracy"]["values"]
    assert found["tasks"]["y"]["text"]["accuracy"]["mean"] == pytest.approx(sum(values) / 11)


def test_a_token_that_training_has_seen_is_not_called_untrained(formula_model):
    model = formula_model(Xor)
    model.accepts_missing = ["image"]
    assert shapley(model, rows_of(A, B, UNEQUAL), MOSTLY_YES)["untrained"] == ["text"]


def test_worse_than_unimodal_looks_at_the_end_of_the_curve(formula_model):
    curve = missing_curve(formula_model(Xor), rows_of(A, B, UNEQUAL))["tasks"]["y"]["image"]["accuracy"]
    assert curve["values"][-1] == 0.4
    assert worse_than_unimodal(curve, 0.5) is True
    assert worse_than_unimodal(curve, 0.5, margin=0.2) is False
    assert worse_than_unimodal(curve, 0.4) is False
    assert worse_than_unimodal(curve, None) is None
    assert worse_than_unimodal({"values": [0.5, None]}, 0.5) is None


def test_undefined_metrics_are_none_and_tasks_without_targets_left_out(formula_model):
    model = formula_model(Xor, "multilabel")
    found = emap(model, rows_of(A, B, np.ones((10, 1), dtype=np.float32)))["tasks"]["y"]
    assert [found[part]["auroc_macro"] for part in ("model", "projection", "gap")] == [None] * 3
    assert found["gap"]["accuracy"] is not None
    nothing = rows_of(A, B, np.full((10, 1), np.nan, dtype=np.float32))
    for result in (emap(model, nothing), shapley(model, nothing, {}), missing_curve(model, nothing)):
        assert result["tasks"] == {}


# Random models of every strategy on ragged features, against the model itself.

N = 24
TARGETS = {
    "y": np.random.default_rng(1).integers(0, 3, N),
    "z": np.random.default_rng(2).integers(0, 2, (N, 2)).astype(np.float32),
}
TARGETS["y"][3] = -100
TARGETS["z"][5, 1] = np.nan
IDS = [f"row {i}" for i in range(N)]


def random_model(name, **options):
    torch.manual_seed(0)
    model = FusionModel(Tower(5), Tower(7), {"name": name, "out_dim": 8, **options}, TASKS).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # opens gates at 0, and makes weights large enough to interact
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.heads["y"].temperature, model.heads["z"].temperature = 1.7, 0.6
    model.heads["z"].thresholds = [0.3, 0.6]
    return model


@dataclass
class Row:
    """One row as a cache gives it: `(tokens (S, D), pooled (D,))` of its text, None without one, and of each image."""

    row: int
    id: str
    text_features: tuple | None = None
    image_features: list = field(default_factory=list)


def batch_of(rows):
    """The packed batch of such rows."""
    texts = [(i, r.text_features) for i, r in enumerate(rows) if r.text_features is not None]
    images = [(i, f) for i, r in enumerate(rows) for f in r.image_features]
    batch = {"row_ids": torch.tensor([r.row for r in rows])}
    for name, found in (("text", texts), ("image", images)):
        batch[f"{name}_row"] = torch.tensor([i for i, _ in found], dtype=torch.long)
        batch[f"{name}_features"] = packed([f for _, f in found]) if found else None
    batch["input_ids"], batch["pixels"] = torch.zeros(0, 0), torch.zeros(0, 3, 1, 1)
    return batch


def packed(found):
    longest = max(len(tokens) for tokens, _ in found)
    tokens = np.stack([np.pad(tokens, ((0, longest - len(tokens)), (0, 0))) for tokens, _ in found])
    mask = torch.arange(longest) < torch.tensor([len(tokens) for tokens, _ in found])[:, None]
    pooled = torch.from_numpy(np.stack([pooled for _, pooled in found]))
    return Features(torch.from_numpy(tokens), mask, pooled, torch.ones(len(found), dtype=torch.bool))


def items():
    """Texts of 1 to 4 tokens; 1 or 2 images of different numbers of tokens, so that masks have holes."""
    rng = np.random.default_rng(0)

    def made(dim):
        return rng.normal(size=(rng.integers(1, 5), dim)).astype("f"), rng.normal(size=dim).astype("f")

    return [Row(i, IDS[i], text_features=made(5), image_features=[made(7) for _ in range(1 + i % 2)]) for i in range(N)]


def without(item, *gone):
    return Row(
        item.row,
        item.id,
        text_features=None if "text" in gone else item.text_features,
        image_features=[] if "image" in gone else item.image_features,
    )


def encoded(model, given=None):
    given = given or items()
    with torch.no_grad():
        text, image = model.encode(batch_of(given))
    has = {"text": [i.text_features is not None for i in given], "image": [bool(i.image_features) for i in given]}
    return EncodedRows(IDS, text, image, {m: np.array(there) for m, there in has.items()}, dict(TARGETS))


def live(model, given):
    with torch.no_grad():
        return {task: logits.numpy() for task, logits in model(batch_of(given)).items()}


def scores(logits, model):
    """Accuracy and monitor metric by scikit-learn."""
    there, known = TARGETS["y"] != -100, ~np.isnan(TARGETS["z"])
    logits = {task: values.astype(np.float64) for task, values in logits.items()}
    said, truth = logits["y"].argmax(1)[there], TARGETS["y"][there]
    head = model.heads["z"]
    p = expit(logits["z"] / head.temperature)
    auroc = [roc_auc_score(TARGETS["z"][k, i], p[k, i]) for i, k in enumerate(known.T)]
    return {
        "y": {"accuracy": accuracy_score(truth, said), "f1_macro": f1_score(truth, said, average="macro")},
        "z": {
            "accuracy": np.mean(((p >= head.thresholds) == TARGETS["z"])[known]),
            "auroc_macro": np.mean(auroc),
        },
    }


def naive_projection(model, data, space):
    """The paper's sums, one pair at a time."""
    table = {task: np.zeros((N, N, len(options["labels"]))) for task, options in TASKS.items()}
    with torch.no_grad():
        for i in range(N):
            for j in range(N):
                text = data.text and Features(*(part[i : i + 1] for part in data.text))
                image = data.image and Features(*(part[j : j + 1] for part in data.image))
                for task, logits in model.fuse(text, image).items():
                    table[task][i, j] = logits[0].numpy()
    result = {}
    for task, f in table.items():
        if space == "probabilities":
            f = softmax(f, axis=2) if task == "y" else expit(f)
        elif task == "y":
            f = f - f.mean(axis=2, keepdims=True)
        projected = np.stack([f[i].mean(0) + f[:, i].mean(0) - f.mean((0, 1)) for i in range(N)])
        if space == "probabilities":
            projected = projected.clip(1e-300, 1 - 1e-16 if task == "z" else None)
            projected = np.log(projected) - (np.log1p(-projected) if task == "z" else 0)
        result[task] = projected
    return result


ADDITIVE = [
    (name, options)
    for name, options in [
        *((name, {}) for name in FUSIONS.names()),
        ("concat", {"hidden_layers": 0}),
        ("late", {"hidden_layers": 0}),
        ("late", {"learned_weights": True}),
        ("text_only", {"hidden_layers": 0}),
    ]
    if build_fusion(name, 5, 7, {"out_dim": 8, **options}).interaction == "additive"
]
INTERACTING = ["concat", "gated", "tensor", "cross_attention", "merged_attention", "bottleneck"]


def test_the_additive_strategies_are_those_we_know():
    names = {name for name, _ in ADDITIVE}
    assert names >= {"concat", "late", "late_probability", "text_only", "image_only", "sum", "weighted_concat"}


@pytest.mark.parametrize(("name", "options"), ADDITIVE, ids=str)
def test_no_additive_strategy_has_a_gap(name, options):
    model = random_model(name, **options)
    found = emap(model, encoded(model))
    assert found["space"] == ("probabilities" if name == "late_probability" else "logits")
    expected = scores(live(model, items()), model)
    for task, each in found["tasks"].items():
        assert each["model"] == pytest.approx(expected[task])
        assert all(abs(gap) <= 1e-6 for gap in each["gap"].values()), each["gap"]


@pytest.mark.parametrize("name", ["late_probability", *INTERACTING, "text_only"])
def test_emap_is_the_papers_double_loop(name):
    model = random_model(name)
    data = encoded(model)
    found = emap(model, data)
    logits = naive_projection(model, data, found["space"])
    expected = scores(logits, model)
    for task, each in found["tasks"].items():
        assert each["projection"] == pytest.approx(expected[task])
    ours = contribution._own_and_projected(model, data, np.arange(N), found["space"], None)
    for task, (own, projected) in ours.items():
        assert np.allclose(own, live(model, items())[task], atol=1e-4)
        shift = (projected - logits[task]).mean(1, keepdims=True) if task == "y" else 0
        assert np.allclose(projected - shift, logits[task], atol=1e-4)
        if name in INTERACTING:
            assert not np.allclose(softmax(own, axis=1), softmax(projected, axis=1), atol=1e-3)


def test_in_the_other_space_an_additive_strategy_seems_to_interact():
    model = random_model("late_probability")
    data = encoded(model)
    right = contribution._own_and_projected(model, data, np.arange(N), "probabilities", None)["y"]
    wrong = contribution._own_and_projected(model, data, np.arange(N), "logits", None)["y"]
    assert np.allclose(*(softmax(z, axis=1) for z in right), atol=1e-5)
    assert not np.allclose(*(softmax(z, axis=1) for z in wrong), atol=1e-3)
    assert emap(model, data, space="logits")["space"] == "logits"
    with pytest.raises(ValueError, match="space is 'logit'; legal"):
        emap(model, data, space="logit")


def test_emap_takes_the_same_labelled_rows_of_any_order():
    model = random_model("gated")
    data = encoded(model)
    data.targets["z"] = np.full_like(TARGETS["z"], np.nan)
    found = emap(model, data, rows=8)
    assert (found["rows"], found["tasks"]["y"]["n"]) == (8, 8)
    order = np.random.default_rng(0).permutation(N)
    shuffled = EncodedRows(
        [IDS[i] for i in order],
        Features(*(part[order] for part in data.text)),
        Features(*(part[order] for part in data.image)),
        {m: there[order] for m, there in data.has.items()},
        {task: values[order] for task, values in data.targets.items()},
    )
    assert emap(model, shuffled, rows=8) == found
    assert emap(model, data, rows=8, seed=1) != found
    assert emap(model, data)["rows"] == N - 1  # one has no target now


@pytest.mark.parametrize("name", ["gated", "cross_attention", "late_probability", "text_only"])
def test_the_curve_is_the_model_on_rows_without(name):
    model, given = random_model(name), items()
    given[4], given[7] = without(given[4], "text"), without(given[7], "image")
    curves = missing_curve(model, encoded(model, given))["tasks"]
    for modality in MODALITIES:
        for place, share in [(0, 0.0), (3, 0.3), (10, 1.1)]:
            lacking = [without(i, modality) if unit_hash(0, f"missing:{i.id}") < share else i for i in given]
            for item in (4, 7):  # what they lack already, they lack anyhow
                own = {"text": given[item].text_features, "image": given[item].image_features}
                lacking[item] = without(lacking[item], *(m for m in MODALITIES if not own[m]))
            expected = scores(live(model, lacking), model)
            for task, by_metric in expected.items():
                found = {metric: curves[task][modality][metric]["values"][place] for metric in by_metric}
                assert found == pytest.approx(by_metric), (modality, share)


@pytest.mark.parametrize("name", ["gated", "cross_attention", "late_probability", "image_only"])
def test_shapley_values_share_out_what_is_above_the_prior(name):
    model = random_model(name)
    found = shapley(model, encoded(model), TARGETS)
    alone = {m: scores(live(model, [without(i, o) for i in items()]), model) for m, o in (MODALITIES, MODALITIES[::-1])}
    both = scores(live(model, items()), model)
    for task, by_metric in both.items():
        for metric, value in by_metric.items():
            each = found["tasks"][task][metric]
            assert each["both"] == pytest.approx(value)
            assert each["phi_text"] + each["phi_image"] == pytest.approx(each["both"] - each["none"])
            index = each["both"] - each["text"] - each["image"] + each["none"]
            assert each["interaction"] == pytest.approx(index)
            for modality in model.uses:
                assert each[modality] == pytest.approx(alone[modality][task][metric])
            assert metric != "auroc_macro" or each["none"] == 0.5


@pytest.mark.parametrize("name", ["cross_attention", "late_probability"])
def test_chunks_change_nothing(name):
    model = random_model(name)
    data = encoded(model)
    asked = {
        "emap": lambda chunk: emap(model, data, chunk_rows=chunk),
        "permutation": lambda chunk: permutation_scores(model, data, TARGETS, permutations=2, chunk_rows=chunk),
        "shapley": lambda chunk: shapley(model, data, TARGETS, chunk_rows=chunk),
        "curve": lambda chunk: missing_curve(model, data, chunk_rows=chunk),
    }
    for ask in asked.values():
        whole = ask(None)
        assert ask(7) == whole
        assert json.loads(json.dumps(whole, allow_nan=False)) == whole


def test_a_forward_pass_is_bounded_by_its_tokens(monkeypatch):
    model = random_model("cross_attention")
    data = encoded(model)
    seen = []
    fuse = model.fuse
    monkeypatch.setattr(contribution, "CHUNK_TOKENS", 60)
    monkeypatch.setattr(model, "fuse", lambda text, image: seen.append((text, image)) or fuse(text, image))
    emap(model, data)
    assert sum(len(text.mask) for text, _ in seen) == N**2
    assert max(text.mask.numel() + image.mask.numel() for text, image in seen) <= 60
    assert all(text.mask[:, -1].any() and image.mask[:, -1].any() for text, image in seen)  # no needless padding
    seen.clear()
    monkeypatch.setattr(contribution, "CHUNK_TOKENS", 10**9)
    monkeypatch.setattr(contribution, "LARGEST_CHUNK", 50)
    emap(model, data)
    assert max(len(text.mask) for text, _ in seen) == 50


def test_the_model_is_asked_in_eval_mode_and_left_as_it_was():
    model = random_model("concat", dropout=0.5).train()
    data = encoded(model)
    assert emap(model, data) == emap(model, data)
    assert model.training
    assert all(module.training for module in model.modules())


# A real model's tables: live encoders and cached features.


@pytest.mark.parametrize("cached", [False, True], ids=["live", "cached"])
@pytest.mark.parametrize("name", ["cross_attention", "gated", "image_only"])
def test_encoded_rows_fuse_to_what_the_table_gives(tmp_path, name, cached):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2}
    table = load_table(load_manifest(write_phantom(tmp_path / "phantom", 24, seed=0)))
    rows = table.rows.to_dict()
    rows["text"][3], rows["images"][5], rows["images"][6] = None, [], rows["images"][6] + rows["images"][7]
    table.rows = type(table.rows).from_dict(rows, features=table.rows.features)
    torch.manual_seed(0)
    text = build_text_encoder(
        TextEncoderConfig(name="bert", pretrained=False, options=sizes, max_length=48), [t or "" for t in rows["text"]]
    )
    image = build_image_encoder(
        ImageEncoderConfig(name="vit_tiny_patch16_224", pretrained=False, size=[32, 32], options=vit)
    )
    tasks = {task: {"type": "multilabel", "labels": labels} for task, labels in table.labels.items()}
    model = FusionModel(text, image, {"name": name, "out_dim": 16}, tasks).eval()
    for tower in (text, image):
        tower.freeze(cached)
    pairs = prepare_pairs(
        model, table, cache=str(tmp_path / "cache") if cached else False, modality_dropout={"text": 0.5, "image": 0.5}
    )
    rows = [5, 2, 3, 17, 6, 11, 8]
    data = encode_rows(model, pairs, rows, batch_size=3)
    with torch.no_grad():
        found = model.fuse(data.text, data.image)
    for task, logits in table_logits(model, pairs, rows).items():
        assert np.allclose(found[task].numpy(), logits, atol=1e-5)
        assert np.array_equal(data.targets[task], table.targets[task][rows], equal_nan=True)
    assert data.ids == [table.rows["id"][row] for row in rows]
    assert data.has["text"].tolist() == [row != 3 for row in rows]
    assert data.has["image"].tolist() == [row != 5 for row in rows]
    for modality, features in (("text", data.text), ("image", data.image)):
        assert (features is None) == (modality not in model.uses)
        assert features is None or features.present.tolist() == data.has[modality].tolist()  # no dropout
    assert pairs.modality_dropout == {"text": 0.5, "image": 0.5}
    found = shapley(model, data, table.targets)
    assert (found["rows"], found["left_out"]) == (5, 2)
    assert set(next(iter(found["tasks"].values()))) == {"n", "accuracy", "auroc_macro"}
