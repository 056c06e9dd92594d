"""Methods of a run: what fgm moves and by how much, and what is refused."""

from typing import Any

import pytest
import torch

import mmfuse
from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.predict import prepare_pairs
from mmfuse.training.build import build_model
from mmfuse.training.learner import Learner
from mmfuse.training.methods import build_method
from mmfuse.training.passes import Passes
from mmfuse.types import MmfuseError, Step


def fgm(config, **options):
    """A method, the passes of a batch, the batch, and the step that it is."""
    table = load_table(load_manifest(config.data.manifest))
    model = build_model(config, table).train()
    learner = Learner(model, config)
    batch = prepare_pairs(model, table)[list(range(6))]
    method = build_method({"name": "fgm", **options})
    method.check(model, config)
    heads: Any = dict(model.heads.items())
    targets = {task: float(head.count(batch[f"target.{task}"])) for task, head in heads.items()}
    return method, Passes(learner, learner, held=False), batch, Step(0, 1, 0, 0, targets, 6.0)


def test_each_row_is_moved_by_epsilon_and_padding_is_not(tiny):
    method, passes, batch, step = fgm(tiny(), epsilon={"text": 0.5, "image": 3.0})
    given = []

    def learn(batch, step):
        given.append(batch)
        return passes.learn(batch, step)

    clean, moved = [(loss.backward(), float(loss.detach()))[1] for loss in method.losses(learn, learn, batch, step)]
    assert moved > clean  # the way the gradient points
    first, second = given
    assert first["text_shift"].abs().max() == 0
    for entry, epsilon in (("text_shift", 0.5), ("image_shift", 3.0)):
        assert torch.allclose(second[entry].flatten(1).norm(dim=1), torch.tensor(epsilon), rtol=1e-4)
    assert (second["text_shift"].abs().sum(-1) > 0).equal(batch["text_mask"])


def test_a_zero_shift_is_none(tiny):
    """Bit for bit, in both towers, although the hook and the sum are there."""
    _, passes, batch, step = fgm(tiny())
    model: Any = passes.learner.model
    zeros = {
        "text_shift": model.text_encoder.zero_shift(batch["input_ids"]),
        "image_shift": model.image_encoder.zero_shift(batch["pixels"]),
    }
    plain, shifted = (passes.learn(given, step)[0] for given in (batch, {**batch, **zeros}))
    assert plain.equal(shifted)


def test_both_passes_drop_out_the_same(tiny):
    _, passes, batch, step = fgm(tiny("fusion.dropout=0.5"))
    (first, _), (again, _), (look, _) = (p(batch, step) for p in (passes.learn, passes.learn, passes.look))
    assert first.equal(again)
    assert first.equal(look)
    other = Passes(passes.learner, passes.learner, held=False)
    assert not first.equal(other.learn(batch, step)[0])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("fgn", r"training.method: unknown method 'fgn'.*did you mean 'fgm'"),
        ({"name": "fgm", "eps": 1}, "method.eps is not an option of method 'fgm'"),
        ({"name": "fgm", "epsilon": 0}, "epsilon: 0: a positive number is expected"),
        ({"name": "fgm", "epsilon": "1"}, "epsilon: '1': a positive number is expected"),
        (
            {"name": "fgm", "epsilon": {"text": 1}, "modalities": ["text", "image"]},
            "one for each of text, image is expected",
        ),
        ({"name": "fgm", "modalities": ["txt"]}, "'txt' is not legal.*did you mean 'text'"),
        ({"name": "fgm", "modalities": "text"}, r"modalities: a list such as \[text, image\] is expected"),
    ],
)
def test_what_is_no_method_is_refused(value, message):
    with pytest.raises(MmfuseError, match=message):
        build_method(value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["text_encoder.frozen=true", "training.method=fgm"], r"text_encoder is frozen.*or modalities: \[image\]"),
        (
            ["fusion={name: image_only}", "training.method={name: fgm, modalities: [text]}"],
            "fusion 'image_only' reads no text; legal: image",
        ),
    ],
)
def test_what_fgm_cannot_do_is_refused_before_training(tiny, tmp_path, options, message):
    with pytest.raises(MmfuseError, match=message):
        mmfuse.train(tiny(*options))
    assert not (tmp_path / "run").exists()
