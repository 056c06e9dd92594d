"""The checks of adapters, on a small text tower and small image towers: attention, and convolutions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.encoders.adapters import ADAPTERS, adapt, adapted_names, merge_adapter
from mmfuse.encoders.features import PrecomputedFeatures
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.testing.suite import Candidate, Suite, require, require_docstring, require_named_options
from mmfuse.types import MmfuseError

EQUAL = 1e-6
_ROUNDING = 1e-12
"""Of features in float64."""
_TEXTS = ("a cough and a fever", "fever")
_BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
_VIT = {"depth": 1, "embed_dim": 16, "num_heads": 2}

SUITE = Suite(ADAPTERS)


def _towers() -> Iterator[tuple[str, Any, tuple[Tensor, ...]]]:
    """Towers with what they read, in float64."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 100, "max_length": 12, "options": _BERT}
    text = build_text_encoder(TextEncoderConfig("bert", False, **sizes), _TEXTS)
    ids = torch.tensor([text.tokenize([_TEXTS[0]])[0][0]] * 2)
    yield "a BERT", _perturbed(text), (ids, torch.ones_like(ids, dtype=torch.bool))
    pixels = torch.randint(0, 256, (2, 3, 32, 32)).to(torch.uint8)
    for name, options in (("vit_tiny_patch16_224", _VIT), ("test_efficientnet", {})):
        config = ImageEncoderConfig(name, False, options=options, size=[32, 32], batch_norm="frozen")
        yield f"the {name} of timm", _perturbed(build_image_encoder(config)), (pixels,)


def _perturbed(tower: Any) -> Any:
    """As after a training: a new tower's biases are all 0, and what is forgotten of them would not be seen."""
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return tower.double().eval()


def _adapted(candidate: Candidate) -> Iterator[tuple[str, Any, Any, tuple[Tensor, ...]]]:
    """By tower that it adapts: what it is, as it was, adapted, and what it reads."""
    refused, found = [], False
    for what, tower, inputs in _towers():
        plain = copy.deepcopy(tower)
        torch.manual_seed(1)
        try:
            adapt(tower, {"name": candidate.name, **candidate.options}, "adapter")
        except MmfuseError as error:
            refused.append(f"{what}: {error}")
            continue
        found = True
        yield what, plain, tower.double(), inputs
    require(found, f"it adapts none of the towers: {'; '.join(refused)}")


@torch.no_grad()
def _pooled(tower: Any, inputs: tuple[Tensor, ...]) -> Tensor:
    return tower.eval()(*inputs).pooled


@SUITE.check
def _protocol(candidate: Candidate) -> None:
    """Constructor, methods and docstring."""
    require_named_options(candidate.cls)
    require_docstring(candidate.cls)
    for method in ("apply", "merge"):
        require(callable(getattr(candidate.cls, method, None)), f"it has no `{method}`")
    require(isinstance(getattr(candidate.cls, "starts_equal", None), bool), "class attribute `starts_equal` is no bool")


@SUITE.check
def _start(candidate: Candidate) -> None:
    """Before the first step the features are those of the tower, where it claims so."""
    for what, plain, tower, inputs in _adapted(candidate):
        gap = float((_pooled(tower, inputs) - _pooled(plain, inputs)).abs().max())
        near = gap < _ROUNDING or not candidate.cls.starts_equal
        require(near, f"{what} begins {gap:.1e} off, though `starts_equal`")


@SUITE.check
def _trains(candidate: Candidate) -> None:
    """Its parameters learn, and nothing else of the tower does, however often the tower is released."""
    for what, plain, tower, inputs in _adapted(candidate):
        names = adapted_names(tower) or frozenset()
        buffers = {name for name, _ in tower.named_buffers()} - {name for name, _ in plain.named_buffers()}
        require(not buffers, f"{what}: it adds the buffer {next(iter(buffers), '')}, which no checkpoint would hold")
        tower.freeze(True)
        require(not any(p.requires_grad for p in tower.parameters()), f"{what}: frozen, a parameter still learns")
        tower.freeze(False)
        released = {name for name, p in tower.named_parameters() if p.requires_grad}
        require(released == names, f"{what}: released, {len(released)} parameters learn instead of {len(names)}")
        everything = sum(p.numel() for p in plain.parameters())
        own = sum(p.numel() for p in tower.parameters() if p.requires_grad)
        require(own < everything / 2, f"{what}: it trains {own} numbers of a tower of {everything}")
        before = {name: p.detach().clone() for name, p in tower.named_parameters()}
        require(_step(tower, inputs), f"{what}: none of its parameters gets a gradient")
        moved = {name for name, p in tower.named_parameters() if not torch.equal(p, before[name])}
        require(moved, f"{what}: the gradient of its parameters is 0")
        require(moved <= names, f"{what}: {next(iter(moved - names), '')} moved, which is not the adapter's")


def _step(tower: Any, inputs: tuple[Tensor, ...]) -> bool:
    """A step of plain gradient descent on a loss of the features; False where they have no gradient."""
    features = tower.train()(*inputs)
    weight = torch.linspace(-1, 1, features.pooled.shape[1], dtype=torch.float64)
    loss = (features.pooled * weight).sum() + (features.tokens * weight).square().sum()
    if not loss.requires_grad:
        return False
    loss.backward()
    with torch.no_grad():
        for parameter in tower.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad
                parameter.grad = None
    return True


@SUITE.check
def _rows(candidate: Candidate) -> None:
    """In train mode a row sees no other row, and forwards leave nothing behind that no checkpoint would hold."""
    for what, _plain, tower, inputs in _adapted(candidate):
        with torch.no_grad():
            for parameter in tower.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
        before = _pooled(tower, inputs)
        other = tuple(part.flip(-1) if part.ndim > 1 and part.dtype != torch.bool else part for part in inputs)
        beside = tuple(torch.cat([a[:1], b[1:]]) for a, b in zip(inputs, other, strict=True))
        first, second = (_trained(tower, given)[0] for given in (inputs, beside))
        gap = float((first - second).abs().max() / first.abs().max())
        require(gap < EQUAL, f"{what}: in train mode a row's features depend on its batch mates: is there a BatchNorm?")
        alone = _trained(tower, tuple(part[:1] for part in inputs))
        require(bool(alone.isfinite().all()), f"{what}: in train mode, a batch of one row is not finite")
        same = torch.equal(_pooled(tower, inputs), before)
        require(same, f"{what}: forwards in train mode change it, and no checkpoint would hold that")


@torch.no_grad()
def _trained(tower: Any, inputs: tuple[Tensor, ...]) -> Tensor:
    """`pooled` in train mode, which draws the same each time."""
    torch.manual_seed(2)
    return tower.train()(*inputs).pooled


@SUITE.check
def _merges(candidate: Candidate) -> None:
    """Merged, the tower has a plain tower's weights by name, and gives what the adapted one gave."""
    for what, plain, tower, inputs in _adapted(candidate):
        with torch.no_grad():
            for parameter in tower.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
        said = _pooled(tower, inputs)
        require(not torch.equal(said, _pooled(plain, inputs)), f"{what}: its parameters change nothing")
        merge_adapter(tower)
        keys, wanted = tower.state_dict(), plain.state_dict()
        strange = sorted(set(keys) ^ set(wanted)) or [n for n in wanted if keys[n].shape != wanted[n].shape]
        require(not strange, f"{what}: merged, {strange and strange[0]} is none of a plain tower's, or absent")
        gap = float((_pooled(tower, inputs) - said).abs().max() / said.abs().max())
        require(gap < EQUAL, f"{what}: merged, its features differ by {gap:.1e}")
        plain.load_state_dict(keys)
        gap = float((_pooled(plain, inputs) - said).abs().max() / said.abs().max())
        require(gap < EQUAL, f"{what}: saved and loaded into a plain tower, its features differ by {gap:.1e}")


@SUITE.check
def _draws(candidate: Candidate) -> None:
    """Applied twice from one seed, it is the same."""
    for (what, _, one, _), (_, _, other, _) in zip(_adapted(candidate), _adapted(candidate), strict=True):
        same = all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
        require(same, f"{what}: from one seed it begins in two ways: does it draw from another generator?")


@SUITE.check
def _refuses(candidate: Candidate) -> None:
    """A tower in which there is nothing to adapt is refused by name."""
    try:
        adapt(PrecomputedFeatures(3), {"name": candidate.name, **candidate.options}, "adapter")
    except MmfuseError:
        return
    require(False, "a tower without weights is adapted: raise MmfuseError where nothing is found")
