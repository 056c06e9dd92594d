"""What a strategy remembers: nothing but what a checkpoint keeps, and no more after 50 forwards than after ten."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmfuse.testing.fusion.subject import EQUAL, build, example, features_gap, gap, random_rows, run, run_by, take
from mmfuse.testing.suite import Candidate, require
from mmfuse.types import MODALITIES, Features

_FORWARDS = 50


def repeatable(candidate: Candidate) -> None:
    """The same input gives the same bits: always in eval mode, from one seed in train mode. Inputs stay as they are."""
    subject = build(candidate)
    state = {name: tensor.clone() for name, tensor in subject.state_dict().items()}
    first, second = (run_by(seed, subject, **example()) for seed in range(2))
    require(
        _same(first, second),
        "two forwards in eval mode differ: is there a dropout that ignores eval(), or a layer made anew?",
    )
    for name, tensor in subject.state_dict().items():
        require(torch.equal(state[name], tensor), f"a forward in eval mode changes {name!r}")
    others = _other_generators()
    again = build(candidate).state_dict()
    equal = again.keys() == state.keys() and all(torch.equal(state[name], again[name]) for name in state)
    require(equal, "built twice from one seed it differs: does it draw from another generator than torch's?")
    for training in (False, True):
        given, kept = example(), example()
        run(subject.train(training), **given)
        for modality in MODALITIES:
            unchanged = all(map(torch.equal, given[modality], kept[modality]))
            require(unchanged, f"it changes its {modality} input in place, which others read: copy it first")
    first, second = (run(subject.train(), **example()) for _ in range(2))
    require(
        others == _other_generators(),
        "it draws from Python's or numpy's global generator: no resumed run repeats it; draw from torch's",
    )
    require(
        _same(first, second),
        "two forwards in train mode from one seed differ: does it remember the first one?",
    )


def _other_generators() -> tuple[Any, ...]:
    """The states of Python's and of numpy's."""
    of_numpy: Any = np.random.get_state()
    return random.getstate(), of_numpy[1].tobytes(), *of_numpy[2:]


def _same(a: Features, b: Features) -> bool:
    return torch.equal(a.pooled, b.pooled) and torch.equal(a.tokens, b.tokens)


def state_dict(candidate: Candidate) -> None:
    """Written to safetensors and read into another instance, the weights give the same bits."""
    one, other = build(candidate, torch.float32, seed=0), build(candidate, torch.float32, seed=1)
    strange = [name for name, value in one.state_dict().items() if not isinstance(value, Tensor)]
    require(not strange, f"{strange and strange[0]!r} in its state_dict is no tensor: no model folder can hold it")
    state = {name: tensor.contiguous() for name, tensor in one.state_dict().items()}
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)))
    a, b = (run(subject, **example(dtype=torch.float32)) for subject in (one, other))
    require(
        _same(a, b),
        "the output changes over a state_dict round trip: is a random tensor neither a parameter nor a saved buffer?",
    )


def checkpoint(candidate: Candidate) -> None:
    """After some forwards, one that is built anew from its weights goes on as it does: all it remembers is saved."""
    one, other = (build(candidate, seed=seed, dropout=False) for seed in range(2))
    before = _attributes(one)
    seen = [{m: take(f, [3, 2, 1, 0]) for m, f in example(seed=5).items()}, example(seed=6)]
    for training in (True, False, True):
        for given in seen:
            one.train(training)(**given)
    other.load_state_dict(one.state_dict())
    changed = sorted(name for name, value in _attributes(one).items() if not _alike(before.get(name), value))
    buffers = _unsaved_buffers(one)
    suspects = ", ".join(dict.fromkeys([*changed, *buffers])) or "something outside of the module"
    for training in (False, True):
        a, b = (_output(subject.train(training)) for subject in (one, other))
        require(
            features_gap(a[0], b[0]) <= EQUAL and gap(a[1], b[1]) <= EQUAL,
            f"after some forwards it differs from one with the same state_dict in {'train' if training else 'eval'} "
            f"mode: {suspects} is neither a parameter nor a saved buffer, and matters",
        )
    _counters_do_not_matter(one, changed)


def _output(subject: Any) -> tuple[Features, Tensor]:
    """What it gives, with its own loss."""
    out = run(subject, **example())
    own = subject.fusion.auxiliary_loss() if hasattr(subject.fusion, "auxiliary_loss") else torch.zeros(())
    return out, own.detach()


def _attributes(module: nn.Module) -> dict[str, Any]:
    """By name, a copy of every plain attribute of a module and of those in it."""
    found = {}
    for prefix, part in module.named_modules():
        for key in vars(part).keys() - vars(nn.Module()).keys():
            found[f"{prefix}.{key}".removeprefix("fusion.")] = _copy(vars(part)[key])
    return found


def _copy(value: Any) -> Any:
    """A copy that later changes of the original do not reach; of what cannot be copied, itself."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, Features):
        return [_copy(item) for item in value]
    return value


def _alike(a: Any, b: Any) -> bool:
    """Whether two copies of an attribute are the same."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    return a is b or (type(a) is type(b) and not isinstance(a, Tensor) and bool(np.all(a == b)))


def _unsaved_buffers(module: nn.Module) -> Iterator[str]:
    kept = module.state_dict().keys()
    return (name.removeprefix("fusion.") for name, _ in module.named_buffers() if name not in kept)


def _counters_do_not_matter(subject: Any, changed: list[str]) -> None:
    """A number that forwards count may be of no use yet: it is set to what a long training would make it."""
    for name in changed:
        prefix, _, key = f"fusion.{name}".rpartition(".")
        module = subject.get_submodule(prefix)
        value = getattr(module, key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        for training in (False, True):
            outputs = []
            for number in (value, 1_000, 1_000_000):
                setattr(module, key, type(value)(number))
                outputs.append(run(subject.train(training), **example()))
            setattr(module, key, value)
            require(
                all(features_gap(outputs[0], out) <= EQUAL for out in outputs[1:]),
                f"{name} is counted by forwards, is neither a parameter nor a saved buffer, and matters later on",
            )


class _Storages(TorchDispatchMode):
    """Remembers, without keeping them alive, the storages of all tensors that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor) and value.layout is torch.strided:
                reference = StorageWeakRef(value.untyped_storage())
                self.made[reference.cdata] = reference
        return out

    def alive(self) -> int:
        """How many of them are."""
        self.made = {key: reference for key, reference in self.made.items() if not reference.expired()}
        return len(self.made)


def memory(candidate: Candidate) -> None:
    """It holds no more after 50 forwards of four shapes than after ten, in train mode and in eval mode."""
    subject = build(candidate, torch.float32)
    shapes = [([2, 1], [1, 2]), ([1, 1], [3, 1]), ([2, 3], [1, 1]), ([4, 1], [2, 2])]
    storages, held, entries = _Storages(), [], []
    for step in range(_FORWARDS):
        given = random_rows(*shapes[step % len(shapes)], seed=step, dtype=torch.float32)
        with storages:
            subject.train(step % 2 == 0)(**given)
        if step + 1 in (10, 30, _FORWARDS):
            held.append(storages.alive())
            entries.append(_entries(subject))
    if held[2] - held[1] >= 10:
        gc.collect()  # what only circles of references hold is no leak
        held[2] = storages.alive()
    grown = held[2] - held[1]
    require(
        grown < 10,
        f"20 forwards leave {grown} tensors behind: does it keep outputs or graphs in a list or a cache without bound?",
    )
    names = [name for name, size in entries[2].items() if size - entries[1].get(name, 0) >= 10]
    require(
        not names,
        f"{', '.join(names)} has {names and entries[2][names[0]]} entries after {_FORWARDS} forwards: it grows",
    )


def _entries(module: nn.Module) -> dict[str, int]:
    """By name, how much every list, dict or set among the attributes of a module holds."""
    found = {}
    for prefix, part in module.named_modules():
        for key in vars(part).keys() - vars(nn.Module()).keys():
            value = vars(part)[key]
            if hasattr(value, "__len__") and not isinstance(value, str | bytes | Tensor):
                found[f"{prefix}.{key}".removeprefix("fusion.")] = len(value)
    return found
