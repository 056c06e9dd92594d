"""The checks of towers: what turns a row's text, image or features into `Features`.

A tower over features is built at a small width, fitted to some rows where it fits, and compared in float64.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.encoders.features import FeatureTower, check_class
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.encoders.towers import OWN, TOWERS, blank_item, build_feature_tower, tower_from_spec, tower_inputs
from mmfuse.testing.suite import Candidate, ConformanceError, Suite, require, require_docstring, require_named_options
from mmfuse.types import Features, MmfuseError

WIDTH = 3
LENGTHS = (4, 1, 2, 3)
EQUAL = 1e-10
"""In float64; the texts' and images' own towers compute their constants in float32."""
_TEXTS = ("a cough and a fever", "fever", "a cough", "no cough and no fever at all")
_BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
_VIT = {"depth": 1, "embed_dim": 16, "num_heads": 2}

SUITE = Suite(TOWERS)


def _items(width: int) -> list[np.ndarray]:
    """Four rows' features, of unequal lengths and not centred."""
    draws = np.random.default_rng(0)
    return [draws.normal(40.0, 7.0, (length, width)).astype(np.float32) for length in LENGTHS]


def _build(candidate: Candidate) -> Any:
    """The tower in float64 and eval mode, fitted."""
    torch.manual_seed(0)
    if candidate.name == OWN["text"]:
        sizes = {"vocab_size": 100, "max_length": 12, "options": _BERT}
        tower: Any = build_text_encoder(TextEncoderConfig("bert", False, **sizes, **candidate.options), _TEXTS)
    elif candidate.name == OWN["image"]:
        options: dict[str, Any] = {"batch_norm": "train", **candidate.options}
        tower = build_image_encoder(
            ImageEncoderConfig("vit_tiny_patch16_224", False, options=_VIT, size=[32, 32], **options)
        )
    else:
        width = _width(candidate)
        tower = build_feature_tower(candidate.name, width, dict(candidate.options))
        tower.fit(_items(width))
    return tower.double().eval()


def _width(candidate: Candidate) -> int:
    """A width that the tower takes: some take single numbers only."""
    try:
        build_feature_tower(candidate.name, WIDTH, dict(candidate.options))
    except MmfuseError:
        return 1
    return WIDTH


def _inputs(tower: Any, rows: Sequence[int], padding: int = 0) -> tuple[Tensor, ...]:
    """What the tower takes of these of four rows, padded to the longest of all and some more."""
    if isinstance(tower, FeatureTower):
        items = _items(tower.width)
        values = torch.zeros(len(rows), max(LENGTHS) + padding, tower.width, dtype=torch.float64)
        for i, row in enumerate(rows):
            values[i, : LENGTHS[row]] = torch.from_numpy(items[row])
        return values, torch.arange(values.shape[1]) < torch.tensor([LENGTHS[row] for row in rows])[:, None]
    if hasattr(tower, "tokenizer"):
        ids, _ = tower.tokenize(list(_TEXTS))
        longest = max(map(len, ids)) + padding
        padded = torch.tensor([ids[row] + [0] * (longest - len(ids[row])) for row in rows])
        return padded, torch.arange(longest) < torch.tensor([len(ids[row]) for row in rows])[:, None]
    pixels = torch.randint(0, 256, (len(LENGTHS), 3, 32, 32), generator=torch.Generator().manual_seed(0))
    return (pixels.to(torch.uint8)[list(rows)],)


@torch.no_grad()
def _run(tower: Any, rows: Sequence[int], padding: int = 0) -> Features:
    return tower(*_inputs(tower, rows, padding))


def _gap(a: Features, b: Features) -> float:
    """The largest difference of `pooled` and of real tokens, relative; infinite where they are of other shapes."""
    if a.pooled.shape != b.pooled.shape or not torch.equal(a.mask.sum(1), b.mask.sum(1)):
        return float("inf")
    pairs = ((a.pooled, b.pooled), (a.tokens[a.mask], b.tokens[b.mask]))
    return max(float((x - y).abs().max() / y.abs().max().clamp_min(1e-30)) for x, y in pairs)


@SUITE.check
def _protocol(candidate: Candidate) -> None:
    """Constructor and docstring."""
    if candidate.name in OWN.values():
        return
    check_class(candidate.name, candidate.cls)
    require_named_options(candidate.cls)
    require_docstring(candidate.cls)


@SUITE.check
def _shapes(candidate: Candidate) -> None:
    """`Features` of the promised shapes and types, finite, with a real token in each row."""
    tower = _build(candidate)
    found = _run(tower, range(4))
    require(isinstance(found, Features), f"it gives {type(found).__name__}, not Features")
    rows, length = found.mask.shape
    require(rows == 4, f"4 items give {rows} rows")
    expected = {"tokens": (4, length, tower.dim), "pooled": (4, tower.dim), "present": (4,)}
    for part, shape in expected.items():
        there = tuple(getattr(found, part).shape)
        require(there == shape, f"`{part}` is {there}, not {shape}: is `dim` its width?")
    require(found.mask.dtype == found.present.dtype == torch.bool, "`mask` and `present` are not bool")
    require(bool(found.present.all()), "`present` is False for an item that is there")
    require(bool(found.mask.any(1).all()), "a row has no real token: no attention can read it")
    finite = found.pooled.isfinite().all() and found.tokens[found.mask].isfinite().all()
    require(bool(finite), "its features are not finite")
    require(float(found.pooled.std(0).max()) > 0, "all rows get the same features")


@SUITE.check
def _padding(candidate: Candidate) -> None:
    """What stands behind an item's end changes nothing."""
    tower = _build(candidate)
    gap = _gap(_run(tower, range(4), padding=3), _run(tower, range(4)))
    require(gap < EQUAL, f"padding changes the features by {gap:.1e}: is the mask used, in the mean too?")


@SUITE.check
def _rows(candidate: Candidate) -> None:
    """A row's features do not depend on the rows beside it, nor on their order."""
    tower = _build(candidate)
    whole, turned = _run(tower, range(4)), _run(tower, (3, 2, 1, 0))
    alone = [_run(tower, [row]) for row in range(4)]
    gaps = [_gap(one, _row(whole, row)) for row, one in enumerate(alone)]
    gaps += [_gap(_row(turned, 3 - row), _row(whole, row)) for row in range(4)]
    require(
        max(gaps) < EQUAL, f"beside other rows a row's features differ by {max(gaps):.1e}: statistics of the batch?"
    )


@SUITE.check
def _train_mode(candidate: Candidate) -> None:
    """In train mode, too, a row sees no other row, and may be alone; what that leaves behind is saved."""
    tower = _build(candidate).train()
    whole, beside = (_drawn(tower, rows) for rows in ((0, 1, 2, 3), (0, 3, 1, 1)))
    gap = _gap(_row(beside, 0), _row(whole, 0))
    require(gap < EQUAL, f"in train mode, beside other rows a row's features differ by {gap:.1e}: a BatchNorm, a roll?")
    for row in range(4):
        try:
            alone = _drawn(tower, [row])
        except Exception as error:
            why = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            raise ConformanceError(f"in train mode, a batch of one row fails ({why}): is there a BatchNorm?") from error
        finite = alone.pooled.isfinite().all() and alone.tokens[alone.mask].isfinite().all()
        require(bool(finite), "in train mode, a batch of one row is not finite: is there a spread of a single row?")
    other = _build(candidate)
    other.load_state_dict(tower.state_dict())
    for training in (False, True):
        gap = _gap(_drawn(other.train(training), range(4)), _drawn(tower.train(training), range(4)))
        require(gap < EQUAL, f"what it remembers of forwards changes its features by {gap:.1e}, and is no saved buffer")


@torch.no_grad()
def _drawn(tower: Any, rows: Sequence[int]) -> Features:
    """Its features of some rows, which draw as they draw each time; what it writes into buffers is taken back."""
    kept = [(buffer, buffer.clone()) for buffer in tower.buffers()]
    torch.manual_seed(0)
    found = tower(*_inputs(tower, rows))
    for buffer, value in kept:
        buffer.copy_(value)
    return found


def _row(features: Features, row: int) -> Features:
    return Features(*(part[row : row + 1] for part in features))


@SUITE.check
def _repeats(candidate: Candidate) -> None:
    """In eval mode the same rows give the same features, and so do two towers of one seed."""
    tower = _build(candidate)
    require(_gap(_run(tower, range(4)), _run(tower, range(4))) == 0, "in eval mode it draws at random: a dropout?")
    gap = _gap(_run(_build(candidate), range(4)), _run(tower, range(4)))
    require(gap == 0, "built twice from one seed it differs: does it draw from another generator?")


@SUITE.check
def _saves(candidate: Candidate) -> None:
    """Rebuilt from `spec`, through JSON, and its weights, it gives the same features."""
    tower = _build(candidate)
    if candidate.name == OWN["text"]:
        require(json.loads(json.dumps(tower.spec())) == tower.spec(), "`spec` is no plain JSON")
        return
    spec = json.loads(json.dumps(tower.spec()))
    torch.manual_seed(1)
    weights = {name: tensor.clone().contiguous() for name, tensor in tower.state_dict().items()}
    again = tower_from_spec("image", spec, Path(), weights).double().eval()
    gap = _gap(_run(again, range(4)), _run(tower, range(4)))
    require(
        gap < 1e-6, f"loaded again, its features differ by {gap:.1e}: is a fitted value no buffer, or an option lost?"
    )


@SUITE.check
def _missing(candidate: Candidate) -> None:
    """A batch without any item is none to it, and a blank item, which sharded training gives it, is finite."""
    tower = _build(candidate)
    slots = [slot for slot, name in OWN.items() if name == candidate.name] or list(OWN)
    for slot in slots:
        nothing = {"input_ids": torch.zeros(0, 0), "text_mask": torch.zeros(0, 0), "pixels": torch.zeros(0, 3, 1, 1)}
        for batch in (
            nothing,
            nothing | {f"{slot}_values": torch.zeros(0, 0, 0), f"{slot}_values_mask": torch.zeros(0, 0)},
        ):
            require(
                tower_inputs(tower, batch, slot) is None, f"of a batch without any {slot} it wants to read something"
            )
        blank = blank_item(tower, slot, torch.device("cpu"))
        inputs = tower_inputs(tower, nothing | blank, slot)
        require(inputs is not None, f"a blank {slot} is nothing to it")
        found = tower(*(x.double() if x.is_floating_point() else x for x in inputs or ()))
        finite = bool(found.pooled.isfinite().all() and found.tokens.isfinite().all())
        require(finite, "a blank item, all 0, gives no finite features: a division by its length?")


@SUITE.check
def _freezes(candidate: Candidate) -> None:
    """Frozen, it has no gradient and stays in eval mode; released, each of its weights can learn."""
    tower = _build(candidate)
    tower.freeze(True)
    tower.train()
    require(not any(module.training for module in tower.modules()), "frozen, it goes into training mode")
    require(not any(p.requires_grad for p in tower.parameters()), "frozen, a parameter still requires a gradient")
    require(not tower(*_inputs(tower, range(4))).pooled.requires_grad, "frozen, its features carry a gradient")
    tower.freeze(False)
    found = tower.eval()(*_inputs(tower, range(4)))
    wanted = {name: p for name, p in tower.named_parameters() if p.requires_grad}
    if not wanted:
        return
    weight = torch.randn_like(found.tokens)
    loss = (found.tokens * weight * found.mask.unsqueeze(-1)).sum() + (found.pooled * weight[:, 0]).sum()
    gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    unused = [name for name, gradient in zip(wanted, gradients, strict=True) if gradient is None]
    require(not unused, f"{unused and unused[0]} has no part in the features: distributed training would wait for it")
