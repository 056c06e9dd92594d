"""The checks of fusion strategies.

Each check exists because public code fails it, and is ranked in benchmarks all the same. Comparisons are made in
float64, from parameters perturbed by N(0, 0.02): a gate that opens at 0 is then open, and rounding is far below any
effect.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmfuse.config import DecoderConfig
from mmfuse.fusion import FUSIONS, RESERVED
from mmfuse.heads import build_head
from mmfuse.heads.decoder import build_decoder
from mmfuse.testing.suite import Candidate, ConformanceError, Suite, require, require_docstring, require_named_options
from mmfuse.types import MODALITIES, Features

TEXT_DIM, IMAGE_DIM = 16, 24
TEXT_LENGTHS, IMAGE_LENGTHS = (5, 3, 1, 4), (2, 7, 6, 1)
SINGLE_KEY = "an attention over a single key, whose softmax is always 1"
EQUAL = 1e-10
"""In float64, a relative difference below it is rounding, and one above it is an effect."""


SUITE = Suite(FUSIONS)


def _build(candidate: Candidate, dtype: torch.dtype = torch.float64, *, seed: int = 0, dropout: bool = True) -> Any:
    """The strategy as `FusionModel` runs it, in eval mode; without `dropout`, train mode does not drop anything."""
    torch.manual_seed(seed)
    options = dict(candidate.options)
    if not dropout and "dropout" in inspect.signature(candidate.cls).parameters:
        options["dropout"] = 0.0
    subject = _Fused(candidate.cls(TEXT_DIM, IMAGE_DIM, **options))
    with torch.no_grad():
        for parameter in subject.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    for module in () if dropout else subject.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return subject.to(dtype).eval()


class _Fused(nn.Module):
    """A fusion as `FusionModel` runs it: for a decision-level one, `pooled` is the logits that `combine` gives.

    Args:
        fusion: The strategy.
    """

    def __init__(self, fusion: Any):
        super().__init__()
        self.fusion = fusion
        self.head = nn.Linear(fusion.out_dim, 3).requires_grad_(False)

    def forward(self, text: Features | None, image: Features | None) -> Features:
        fused = self.fusion(text, image)
        if hasattr(self.fusion, "combine"):
            logits = [self.head(branch.pooled) for branch in self.fusion.branches(text, image)]
            fused = fused._replace(pooled=self.fusion.combine(logits))
        return fused


def _example(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Features]:
    """Random `text` and `image` of four rows with unequal lengths; `pooled` is drawn apart from the tokens."""
    generator = torch.Generator().manual_seed(seed)

    def draw(lengths: tuple[int, ...], dim: int) -> Features:
        tokens = torch.randn(len(lengths), max(lengths), dim, generator=generator).to(dtype)
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        pooled = torch.randn(len(lengths), dim, generator=generator).to(dtype)
        return Features(tokens, mask, pooled, torch.ones(len(lengths), dtype=torch.bool))

    return {"text": draw(TEXT_LENGTHS, TEXT_DIM), "image": draw(IMAGE_LENGTHS, IMAGE_DIM)}


@torch.no_grad()
def _run(subject: nn.Module, text: Features | None, image: Features | None) -> Features:
    """The output without autograd, as in inference; it must be finite."""
    out = subject(text, image)
    for part in ("pooled", "tokens"):
        finite = getattr(out, part).isfinite().all()
        require(finite, f"`{part}` is not finite: is there an attention whose keys are all masked, or an overflow?")
    return out


def _gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where the shapes disagree."""
    if a.shape != b.shape:
        return float("inf")
    scale = torch.maximum(a.abs().max(), b.abs().max()).clamp_min(1e-30)
    return float((a - b).abs().max() / scale)


def _features_gap(a: Features, b: Features) -> float:
    """The largest `_gap` of `pooled` and of real tokens; infinite where `present` or the tokens' number disagree."""
    if not torch.equal(a.mask.sum(1), b.mask.sum(1)) or not torch.equal(a.present, b.present):
        return float("inf")
    return max(_gap(a.pooled, b.pooled), _gap(a.tokens[a.mask], b.tokens[b.mask]))


@SUITE.check
def _protocol(candidate: Candidate) -> None:
    """Constructor, attributes, docstring, and the output's shapes and dtypes."""
    cls = candidate.cls
    require(issubclass(cls, nn.Module), "it is not an nn.Module")
    parameters = inspect.signature(cls).parameters
    require(list(parameters)[:2] == ["text_dim", "image_dim"], "its constructor starts not with `text_dim, image_dim`")
    require_named_options(cls)
    uses, reads = getattr(cls, "uses", None), getattr(cls, "reads", None)
    legal = (("text",), ("image",), MODALITIES)
    require(uses in legal, f"class attribute `uses` is {uses!r}: legal are {legal}")
    legal = (frozenset({"pooled"}), frozenset({"pooled", "tokens"}))
    require(reads in legal and isinstance(reads, frozenset), f"class attribute `reads` is {reads!r}: legal are {legal}")
    require_docstring(cls)
    fusion = cls(TEXT_DIM, IMAGE_DIM, **candidate.options)
    interaction, size, out_dim = (getattr(fusion, key, None) for key in ("interaction", "size", "out_dim"))
    legal = ("additive", "multiplicative", "token")
    require(interaction in legal, f"`interaction` is {interaction!r}: legal are {legal}")
    legal = (None, *(key for key in parameters if key not in RESERVED))
    require(hasattr(fusion, "size") and size in legal, f"`size` is {size!r}: legal are its options and None: {legal}")
    require(isinstance(out_dim, int) and out_dim > 0, f"`out_dim` is {out_dim!r}: it must be a positive int")
    space, legal = getattr(fusion, "additive_in", "logits"), ("logits", "probabilities")
    require(space in legal, f"`additive_in` is {space!r}: legal are {legal}")
    require(space == "logits" or hasattr(fusion, "combine"), "`additive_in` is probabilities, but it has no `combine`")
    _output_is_legal(fusion, out_dim)


def _output_is_legal(fusion: Any, out_dim: Any) -> None:
    """Shapes and dtypes of what `fusion` gives: `Features`, branches and auxiliary loss."""
    rows, example = len(TEXT_LENGTHS), _example(dtype=torch.float32)
    outputs = {"its output": fusion(**example)}
    for method, other in (("combine", "branches"), ("branches", "combine")):
        require(hasattr(fusion, other) or not hasattr(fusion, method), f"it has `{method}`, but no `{other}`")
    if hasattr(fusion, "branches"):
        outputs |= {f"branch {i}": branch for i, branch in enumerate(fusion.branches(**example))}
    for what, out in outputs.items():
        require(isinstance(out, Features), f"{what} is not a `Features`, but {type(out).__name__}")
        length = out.tokens.shape[1] if out.tokens.ndim == 3 else "S"
        for part, shape, dtype in (
            ("pooled", (rows, out_dim), torch.float32),
            ("tokens", (rows, length, out_dim), torch.float32),
            ("mask", (rows, length), torch.bool),
            ("present", (rows,), torch.bool),
        ):
            found = tuple(getattr(out, part).shape), getattr(out, part).dtype
            require(found == (shape, dtype), f"`{part}` of {what} is {found}, not {(shape, dtype)}")
        require(out.mask.any(1).all(), f"`mask` of {what} leaves rows without any real token")
    if hasattr(fusion, "combine"):
        require(_Fused(fusion)(**example).pooled.shape == (rows, 3), "`combine` does not keep the shape of the logits")
    if hasattr(fusion, "auxiliary_loss"):
        require(fusion.auxiliary_loss().shape == (), "`auxiliary_loss()` is not a scalar")


@SUITE.check
def _parameters(candidate: Candidate) -> None:
    """All that is trained is in `parameters()`, and lives longer than one forward."""
    subject = _build(candidate, torch.float32)
    known = {id(parameter) for parameter in subject.parameters()}
    for name, tensor in _hidden_tensors(subject.fusion):
        require(id(tensor) in known, f"parameter {name!r} is not in parameters(): is it kept in a plain list or dict?")
    first, second = (subject(**_example(dtype=torch.float32)) for _ in range(2))
    before = {id(leaf) for leaf in _leaves(first)}
    for leaf in _leaves(second):
        what = f"a tensor {tuple(leaf.shape)} that needs a gradient"
        require(id(leaf) in known | before, f"{what} is made anew at every forward: make its layer in the constructor")
        require(id(leaf) in known, f"{what} is not in parameters(): make it an nn.Parameter of the module")


def _hidden_tensors(fusion: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that need a gradient and hang on plain attributes, with their names."""
    for prefix, module in fusion.named_modules():
        for key in sorted(vars(module).keys() - vars(nn.Module()).keys()):
            yield from _tensors_in(vars(module)[key], f"{prefix}.{key}".lstrip("."))


def _tensors_in(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor) and value.requires_grad and value.is_leaf:
        yield name, value
    elif isinstance(value, nn.Module):
        yield from ((f"{name}.{key}", parameter) for key, parameter in value.named_parameters())
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors_in(item, f"{name}.{key}")


def _leaves(out: Features) -> list[Tensor]:
    """The tensors at which the autograd graph of `out` ends."""
    found, seen, stack = [], set(), [out.pooled.grad_fn, out.tokens.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.append(leaf)
        stack.extend(following for following, _ in node.next_functions)
    return found


@SUITE.check
def _training(candidate: Candidate) -> None:
    """Five steps of Adam on several batches, with a loss on `pooled` and `tokens`, change every parameter."""
    subject = _build(candidate, dropout=False).train()
    parameters = dict(subject.fusion.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    largest = {name: torch.zeros_like(p) for name, p in parameters.items()}
    if not parameters:
        return
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-2, eps=1e-30)
    for step in range(5):
        out = subject(**_example(seed=step))
        loss = F.mse_loss(out.pooled, torch.randn_like(out.pooled))
        loss = loss + F.mse_loss(out.tokens[out.mask], torch.randn_like(out.tokens[out.mask]))
        if hasattr(subject.fusion, "auxiliary_loss"):
            loss = loss + subject.fusion.auxiliary_loss()
        optimizer.zero_grad()
        loss.backward()
        for name, p in parameters.items():
            require(p.grad is not None, f"parameter {name!r} gets no gradient: is it used in `pooled` or `tokens`?")
            largest[name] = torch.maximum(largest[name], p.grad.abs())
        optimizer.step()
    floor = 1e-11 * max(float(g.max()) for g in largest.values())
    linear = _linear_weights(subject.fusion)
    for name, p in parameters.items():
        # An attention key's bias has no effect by mathematics (softmax ignores a shift): for vectors, noise will do.
        rows = largest[name].flatten(1).amax(1) > floor if p.ndim > 1 else largest[name] > 0.0
        dead = 1.0 - float(rows.double().mean())
        require(
            dead < 1.0 and not torch.equal(before[name], p),
            f"parameter {name!r} gets no gradient and does not change: is it never used, or part of {SINGLE_KEY}?",
        )
        require(
            dead < 0.25 or name not in linear,
            f"{dead:.0%} of the rows of {name!r} get no gradient: are they never used, or part of {SINGLE_KEY}?",
        )


def _linear_weights(module: nn.Module) -> set[str]:
    """Names of matrices of which every row should learn, unlike an embedding's."""
    names = set()
    for prefix, part in module.named_modules():
        if isinstance(part, nn.Linear):
            names.add(f"{prefix}.weight")
        if isinstance(part, nn.MultiheadAttention):
            names.add(f"{prefix}.in_proj_weight")
    return names


@SUITE.check
def _modalities(candidate: Candidate) -> None:
    """Each modality in `uses` moves `pooled` and gets a gradient from it."""
    subject = _build(candidate)
    one, other = _example(seed=0), _example(seed=1)
    base = _run(subject, **one)
    for modality in candidate.cls.uses:
        moved = _run(subject, **(one | {modality: other[modality]}))
        require(
            _gap(base.pooled, moved.pooled) > EQUAL,
            f"{modality} is in `uses`, but does not move `pooled`: is it ignored, or only the query of {SINGLE_KEY}?",
        )
        inputs = [getattr(one[modality], part).clone().requires_grad_() for part in ("tokens", "pooled")]
        given = one[modality]._replace(tokens=inputs[0], pooled=inputs[1])
        pooled = subject(**(one | {modality: given})).pooled
        loss = (pooled * torch.randn_like(pooled)).sum()
        grads = torch.autograd.grad(loss, inputs, allow_unused=True) if loss.requires_grad else ()
        require(
            any(g is not None and float(g.abs().max()) > EQUAL for g in grads),
            f"{modality} is in `uses`, but gets no gradient from `pooled`: is it detached, or rounded?",
        )


@SUITE.check
def _unused_modality(candidate: Candidate) -> None:
    """A modality that is not in `uses` moves nothing, and may be None and of width 1, as in `FusionModel`."""
    subject = _build(candidate)
    one, other = _example(seed=0), _example(seed=1)
    for modality in set(MODALITIES) - set(candidate.cls.uses):
        base = _run(subject, **one)
        for instead in (other[modality], None):
            gap = _features_gap(base, _run(subject, **(one | {modality: instead})))
            require(gap <= EQUAL, f"{modality} is not in `uses`, but moves the output: declare it")
        widths = {"text": TEXT_DIM, "image": IMAGE_DIM} | {modality: 1}
        candidate.cls(widths["text"], widths["image"], **candidate.options)


def _mixed_difference(subject: nn.Module, one: dict[str, Features], other: dict[str, Features]) -> float:
    """The largest `|f(t1,v1) - f(t1,v2) - f(t2,v1) + f(t2,v2)|`, relative to the largest `|f|`.

    `f` is `pooled`, or the probabilities of a decision-level strategy that is additive in them.
    """
    f = [_run(subject, t["text"], v["image"]).pooled for t, v in itertools.product((one, other), repeat=2)]
    if getattr(subject.fusion, "additive_in", "logits") == "probabilities":
        f = [x.softmax(-1) for x in f]
    return float((f[0] - f[1] - f[2] + f[3]).abs().max() / max(float(x.abs().max()) for x in f))


@SUITE.check
def _interaction(candidate: Candidate) -> None:
    """`pooled` is additive where, and only where, that is declared; in a "token" strategy, tokens interact too."""
    subject = _build(candidate)
    declared = subject.fusion.interaction
    one, other = _example(seed=0), _example(seed=1)
    mixed = _mixed_difference(subject, one, other)
    if declared == "additive":
        require(
            mixed <= EQUAL,
            f"it declares 'additive', but text and image interact in `pooled` (mixed difference {mixed:.1e}): is there "
            "a LayerNorm or another non-linearity behind where they meet?",
        )
        return
    require(
        mixed > EQUAL,
        f"it declares {declared!r}, but `pooled` is a function of the text plus a function of the image: is it "
        f"'additive', or {SINGLE_KEY}?",
    )
    same_pooled = {m: other[m]._replace(pooled=one[m].pooled) for m in MODALITIES}
    if declared == "token":
        require(
            _mixed_difference(subject, one, same_pooled) > EQUAL,
            "it declares 'token', but with pooled inputs fixed, the tokens of one modality do not change what those of "
            "the other do: do they meet only pooled vectors?",
        )


@SUITE.check
def _reads(candidate: Candidate) -> None:
    """What `reads` leaves out may be left out: a feature cache does not keep it."""
    subject = _build(candidate)
    full, other = _example(seed=0), _example(seed=1)
    base = _run(subject, **full)
    if "tokens" in candidate.cls.reads:
        moved = _run(subject, **{m: other[m]._replace(pooled=full[m].pooled) for m in MODALITIES})
        require(
            _gap(base.pooled, moved.pooled) > EQUAL, "`reads` has tokens, but they do not move `pooled`: leave them out"
        )
        return
    lean = {m: f._replace(tokens=f.pooled.unsqueeze(1), mask=f.present.unsqueeze(1)) for m, f in full.items()}
    moved = _run(subject, **lean)
    require(_gap(base.pooled, moved.pooled) <= EQUAL, "`reads` has no tokens, but they move `pooled`: add them")


@SUITE.check
def _repeatable(candidate: Candidate) -> None:
    """In eval mode the same input gives the same bits, and a forward changes no state."""
    subject = _build(candidate)
    state = {name: tensor.clone() for name, tensor in subject.state_dict().items()}
    first, second = (_run(subject, **_example()) for _ in range(2))
    same = torch.equal(first.pooled, second.pooled) and torch.equal(first.tokens, second.tokens)
    require(same, "two forwards in eval mode differ: is there a dropout that ignores eval(), or a layer made anew?")
    for name, tensor in subject.state_dict().items():
        require(torch.equal(state[name], tensor), f"a forward in eval mode changes {name!r}")


@SUITE.check
def _batch(candidate: Candidate) -> None:
    """A row's output depends neither on its batch mates, nor on their order, nor on there being any."""
    subject = _build(candidate)
    example = _example()
    base = _run(subject, **example)
    rows = len(TEXT_LENGTHS)
    for order in (list(reversed(range(rows))), *([row] for row in range(rows))):
        out = _run(subject, **{m: Features(*(part[order] for part in f)) for m, f in example.items()})
        require(
            _features_gap(Features(*(part[order] for part in base)), out) <= EQUAL,
            "a row's output depends on its batch mates: does attention or a normalisation run across the batch axis?",
        )


@SUITE.check
def _padding(candidate: Candidate) -> None:
    """Neither the number of padded tokens nor what is in them is seen, in eval and in train mode without dropout."""
    subject = _build(candidate, dropout=False)
    example = _example()
    for training, padded in itertools.product((False, True), (("text",), ("image",), MODALITIES)):
        base = _run(subject.train(training), **example)
        what, mode = f"padded {' and '.join(padded)} tokens", "train" if training else "eval"
        for length in (13, 1, 0):
            out = _run(subject, **(example | {m: _padded(example[m], length) for m in padded}))
            same_number = torch.equal(base.mask.sum(1), out.mask.sum(1))
            require(same_number, f"{what} are True in the mask it gives: is that a mask of ones?")
            hint = "is the mask left out of an attention or a mean?"
            require(_features_gap(base, out) <= EQUAL, f"{what} move the output in {mode} mode: {hint}")


def _padded(features: Features, length: int) -> Features:
    """`features` with `length` more padded tokens, and garbage in all of them."""
    tokens, mask = F.pad(features.tokens, (0, 0, 0, length)), F.pad(features.mask, (0, length), value=False)
    tokens = torch.where(mask.unsqueeze(-1), tokens, 100.0 * torch.randn_like(tokens))
    return features._replace(tokens=tokens, mask=mask)


@SUITE.check
def _missing_modality(candidate: Candidate) -> None:
    """Rows that lack modalities give finite output and gradient, and their learned token is used, in eval mode too."""
    uses, subject = candidate.cls.uses, _build(candidate, dropout=False)
    full = _example()
    learned = {m: (0.02 * torch.randn(f.pooled.shape[1]).double()).requires_grad_() for m, f in full.items()}
    lacking = {"text": [1, 3], "image": [2, 3]}
    some = {m: _without(f, lacking[m], learned[m]) for m, f in full.items()}
    all_rows = {m: _without(f, [0, 1, 2, 3], learned[m]) for m, f in full.items()}
    none = {m: f._replace(tokens=f.tokens[:, :1], mask=f.mask[:, :1]) for m, f in all_rows.items()}
    present = functools.reduce(torch.logical_or, (some[m].present for m in uses))
    for training in (False, True):
        _run(subject.train(training), **none)
        out = _run(subject, **some)
        require(torch.equal(out.present, present), "`present` is not the OR of `present` over the inputs it uses")
        pooled = subject(**some).pooled
        for modality in uses:
            row, mode = lacking[modality][0], "train" if training else "eval"
            inputs = [learned[modality], *subject.fusion.parameters()]
            loss = (pooled[row] * torch.randn_like(pooled[row])).sum()
            grads = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
            finite = all(g is None or g.isfinite().all() for g in grads)
            require(
                finite, f"the gradient of a row without {modality} is not finite: is there a division or root of 0?"
            )
            require(
                grads[0] is not None and float(grads[0].abs().max()) > EQUAL,
                f"the learned token of a missing {modality} does not reach `pooled` in {mode} mode: is it skipped?",
            )


def _without(features: Features, rows: list[int], token: Tensor) -> Features:
    """`features` as `FusionModel` gives them where `rows` lack the modality: one learned token."""
    gone = torch.zeros_like(features.present)
    gone[rows] = True
    first = torch.arange(features.mask.shape[1]) == 0
    tokens = torch.where(gone[:, None, None], torch.zeros_like(features.tokens), features.tokens)
    tokens = torch.where((gone[:, None] & first)[:, :, None], token, tokens)
    mask = torch.where(gone[:, None], first, features.mask)
    return Features(tokens, mask, torch.where(gone[:, None], token, features.pooled), ~gone)


@SUITE.check
def _state_dict(candidate: Candidate) -> None:
    """Written to safetensors and read into another instance, the weights give the same bits."""
    one, other = _build(candidate, torch.float32, seed=0), _build(candidate, torch.float32, seed=1)
    state = {name: tensor.contiguous() for name, tensor in one.state_dict().items()}
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)))
    a, b = (_run(subject, **_example(dtype=torch.float32)) for subject in (one, other))
    require(
        torch.equal(a.pooled, b.pooled) and torch.equal(a.tokens, b.tokens),
        "the output changes over a state_dict round trip: is a random tensor neither a parameter nor a saved buffer?",
    )


@SUITE.check
def _bfloat16(candidate: Candidate) -> None:
    """In bfloat16 and under autocast, the output is near to float32's."""
    base = _run(_build(candidate, torch.float32), **_example(dtype=torch.float32))
    half = _run(_build(candidate, torch.bfloat16), **_example(dtype=torch.bfloat16))
    require(half.pooled.dtype == half.tokens.dtype == torch.bfloat16, "bfloat16 in does not give bfloat16 out")
    with torch.autocast("cpu", torch.bfloat16):
        auto = _run(_build(candidate, torch.float32), **_example(dtype=torch.float32))
    for what, out in (("bfloat16", half), ("bfloat16 autocast", auto)):
        for part in ("pooled", "tokens"):
            exact = getattr(base, part)
            gap = float((getattr(out, part).float() - exact).norm() / exact.norm())
            require(gap < 0.05, f"`{part}` in {what} is {gap:.0%} away from float32: are large values cancelled?")


@SUITE.check
def _gradient(candidate: Candidate) -> None:
    """The gradient by the inputs is the derivative (gradcheck, float64)."""
    subject = _build(candidate)
    example = _example()
    parts = [(m, part) for m in candidate.cls.uses for part in ("tokens", "pooled")]

    def output(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(example)
        for (modality, part), tensor in zip(parts, inputs, strict=True):
            given[modality] = given[modality]._replace(**{part: tensor})
        out = subject(**given)
        return out.pooled, out.tokens[out.mask]

    inputs = [getattr(example[m], part).clone().requires_grad_() for m, part in parts]
    right = torch.autograd.gradcheck(output, inputs, fast_mode=True, raise_exception=False)
    require(right, "the gradient by the inputs is not the derivative of the output: is something detached?")


@SUITE.check
def _export(candidate: Candidate) -> None:
    """`torch.export` takes it, and what it exports gives the same output on other inputs."""
    subject = _build(candidate, torch.float32)
    one, other = _example(0, torch.float32), _example(1, torch.float32)
    try:
        program = torch.export.export(subject, (one["text"], one["image"]), strict=False).module()
    except Exception as error:
        raise ConformanceError(
            f"torch.export does not take it ({type(error).__name__}): does a Python branch depend on a tensor's values?"
        ) from error
    gap = _features_gap(_run(subject, **other), _run(program, **other))
    require(gap < 1e-5, "the exported program gives another output: does a Python branch depend on the inputs' values?")


class _Words:
    """A vocabulary of twelve words: all that a decoder must know of a tokenizer to be trained."""

    bos_token_id, eos_token_id, pad_token_id = 1, 2, 0
    cls_token_id = sep_token_id = None

    def __len__(self) -> int:
        return 12

    def get_vocab(self) -> dict[str, int]:
        return {str(i): i for i in range(len(self))}

    def __call__(self, text: str, **_options: object) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}


@SUITE.check
def _captioning(candidate: Candidate) -> None:
    """A caption decoder on its output learns 8 captions, reads every modality in `uses`, and sees no padding."""
    fusion = _build(candidate, dropout=False).fusion
    config = DecoderConfig(hidden_dim=32, num_layers=1, num_heads=4, max_length=8, tokenizer="own")
    config.options = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    decoder = build_decoder(config, lambda: _Words(), None, "decoder")  # type: ignore[arg-type,return-value]
    head: Any = build_head("captioning", fusion.out_dim, [], {"decoder": decoder}).double()
    captions = torch.randint(3, 12, (8, 6))
    captions[:, 0], captions[:, -1] = 1, 2
    examples = [_example(seed=seed) for seed in range(2)]
    batches = list(zip(examples, captions.split(len(TEXT_LENGTHS)), strict=True))

    def loss() -> Tensor:
        total = sum(head.loss(head(fusion(**example), target), target) for example, target in batches)
        return total / head.count(captions)  # type: ignore[return-value]

    before = loss().item()
    optimizer = torch.optim.Adam([*fusion.parameters(), *head.parameters()], lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        now = loss()
        now.backward()
        optimizer.step()
    after = loss().item()
    require(
        after < 0.25 * before,
        f"a caption decoder does not learn 8 captions from its tokens and `pooled` (loss {before:.2f}, then "
        f"{after:.2f}): do they distinguish the rows?",
    )
    (one, target), (other, _) = batches
    for part in (fusion, head):
        part.eval()

    def logits(example: dict[str, Features]) -> Tensor:
        with torch.no_grad():
            return head(fusion(**example), target)

    base = logits(one)
    for modality in candidate.cls.uses:
        require(_gap(base, logits(one | {modality: other[modality]})) > EQUAL, f"{modality} does not move a caption")
    padded = {m: _padded(features, 5) for m, features in one.items()}
    require(_gap(base, logits(padded)) <= EQUAL, "padded tokens move a caption: is `mask` right?")


@SUITE.check
def _macs(candidate: Candidate) -> None:
    """`macs` is what a counter finds, for any number of tokens."""
    fusion = _build(candidate, torch.float32).fusion
    run = fusion.branches if hasattr(fusion, "branches") else fusion
    example = _example(dtype=torch.float32)
    for lengths in ((5, 7), (2, 1)):
        given = {
            m: Features(f.tokens[:1, :length], torch.ones(1, length, dtype=torch.bool), f.pooled[:1], f.present[:1])
            for (m, f), length in zip(example.items(), lengths, strict=True)
        }
        # The counter knows no attention kernel of the CPU, so attention runs as matrix products.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run(**given)
        said, counted = fusion.macs(*lengths), counter.get_total_flops() / 2
        require(type(said) is int and said > 0, f"macs() gives {said!r}, not a positive int")
        require(
            abs(said - counted) <= 0.01 * counted,
            f"macs{lengths} is {said:,}, but its matrix products take {counted:,.0f} multiply-accumulates: are the "
            "projections of all tokens counted?",
        )
