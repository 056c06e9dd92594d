"""Whether a row's output depends on that row alone, however many tokens it has and whatever is beside it."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from mmfuse.testing.fusion.subject import (
    EQUAL,
    ROWS,
    build,
    example,
    features_gap,
    gap,
    in_both_modes,
    padded,
    random_rows,
    run,
    run_by,
    take,
)
from mmfuse.testing.suite import Candidate, ConformanceError, require
from mmfuse.types import MODALITIES, Features

_LONG, _TAIL = 600, 50
_NEAR = 1e-4
"""In float32, over 600 tokens: a relative difference below it is rounding."""


def batch(candidate: Candidate) -> None:
    """A row's output depends neither on its batch mates, nor on their order, nor on there being any."""
    given, other = example(), example(seed=1)
    backwards = list(reversed(range(ROWS)))
    for subject, mode in in_both_modes(candidate):
        why = f"a row's output depends on its batch mates in {mode} mode: "
        why += "does attention, a BatchNorm, a roll or a mixing of rows run across the batch axis?"
        base = run(subject, **given)
        for row in (0, ROWS - 1):
            beside = {m: _replaced(take(other[m], backwards), given[m], row) for m in MODALITIES}
            require(_row_gap(base, row, run(subject, **beside), row) <= EQUAL, why)
        # What draws in train mode draws otherwise for other rows; what stands beside a row is all that can be asked.
        draws = features_gap(base, run_by(1, subject, **given)) > EQUAL
        for order in (backwards, *([row] for row in range(ROWS))):
            out = _alone(subject, {m: take(f, order) for m, f in given.items()}, mode)
            require(draws or features_gap(take(base, order), out) <= EQUAL, why)
        _gradient_stays_in_its_row(subject, mode)


def _replaced(other: Features, own: Features, row: int) -> Features:
    """`other`, but for one row of `own`."""
    parts = [part.clone() for part in other]
    for part, value in zip(parts, own, strict=True):
        part[row] = value[row]
    return Features(*parts)


def _row_gap(one: Features, i: int, other: Features, j: int) -> float:
    return features_gap(take(one, [i]), take(other, [j]))


def _alone(subject: Any, given: dict[str, Features], mode: str) -> Features:
    """Run a few rows; what refuses a single one is told."""
    rows, why = len(given["text"].present), "is there a BatchNorm, or a squeeze() that takes the batch axis?"
    try:
        out = run(subject, **given)
    except ConformanceError:
        raise
    except Exception as error:
        first_line = str(error).splitlines()[0]
        raise ConformanceError(f"{rows} row(s) in {mode} mode: {type(error).__name__}: {first_line}: {why}") from error
    require(
        out.pooled.ndim == 2 and len(out.pooled) == rows,
        f"{rows} row(s) in {mode} mode give {tuple(out.pooled.shape)}: {why}",
    )
    return out


def _gradient_stays_in_its_row(subject: Any, mode: str) -> None:
    """What a row gives has no gradient by another row's input."""
    given = example()
    inputs = [getattr(given[m], part).clone().requires_grad_() for m in MODALITIES for part in ("tokens", "pooled")]
    fed = {m: given[m]._replace(tokens=inputs[2 * i], pooled=inputs[2 * i + 1]) for i, m in enumerate(MODALITIES)}
    out = subject(**fed)
    loss = out.pooled[0].sum() + out.tokens[0][out.mask[0]].square().sum()
    if not loss.requires_grad:
        return
    for gradient in torch.autograd.grad(loss, inputs, allow_unused=True):
        require(
            gradient is None or float(gradient[1:].abs().max()) <= EQUAL * float(gradient.abs().max()),
            f"a row's gradient reaches its batch mates in {mode} mode: does something run across the batch axis?",
        )


def padding(candidate: Candidate) -> None:
    """Neither the number of padded tokens nor what is in them is seen, in eval and in train mode without dropout."""
    given = example()
    for subject, mode in in_both_modes(candidate):
        base = run(subject, **given)
        for which in (("text",), ("image",), MODALITIES):
            what = f"padded {' and '.join(which)} tokens"
            for length in (13, 1, 0):
                out = run(subject, **(given | {m: padded(given[m], length) for m in which}))
                same_number = torch.equal(base.mask.sum(1), out.mask.sum(1))
                require(same_number, f"{what} are True in the mask it gives: is that a mask of ones?")
                hint = "is the mask left out of an attention or a mean?"
                require(features_gap(base, out) <= EQUAL, f"{what} move the output in {mode} mode: {hint}")


def lengths(candidate: Candidate) -> None:
    """From 1 to 600 tokens and patches it runs, gives a row what it gives it alone, and cuts nothing off."""
    subject = build(candidate, torch.float32)
    pairs = ((1, 1), (_LONG, 1), (1, _LONG))
    rows = random_rows([t for t, _ in pairs], [v for _, v in pairs], dtype=torch.float32)
    alone = [_of_length(subject, rows, row, pair) for row, pair in enumerate(pairs)]
    both = run(subject, **rows)
    for row, (pair, one) in enumerate(zip(pairs, alone, strict=True)):
        require(
            features_gap(take(both, [row]), one) <= _NEAR,
            f"{_told(pair)} give something else beside a row of {_LONG}: is padding counted, or a length of the batch?",
        )
    for modality, row in (("text", 1), ("image", 2)):
        _nothing_is_cut_off(subject, modality, rows, both, row)


def _of_length(subject: Any, rows: dict[str, Features], row: int, pair: tuple[int, int]) -> Features:
    """A row alone and without padding."""
    given = {m: take(rows[m], [row]) for m in MODALITIES}
    short = {
        m: f._replace(tokens=f.tokens[:, :n], mask=f.mask[:, :n]) for (m, f), n in zip(given.items(), pair, strict=True)
    }
    try:
        return run(subject, **short)
    except ConformanceError as error:
        raise ConformanceError(f"{_told(pair)}: {error}") from None
    except Exception as error:
        raise ConformanceError(
            f"{_told(pair)}: {type(error).__name__}: {str(error).splitlines()[0]}: is there a table of positions, or a "
            "least number of tokens?"
        ) from error


def _told(pair: tuple[int, int]) -> str:
    return f"{pair[0]} text token(s) with {pair[1]} patch(es)"


def _nothing_is_cut_off(subject: Any, modality: str, rows: dict[str, Features], base: Features, row: int) -> None:
    """The last of 600 tokens matter wherever the last of a few do."""
    few = random_rows([4] * ROWS, [4] * ROWS, dtype=torch.float32)
    short = run(subject, **few), run(subject, **(few | {modality: _other_tail(few[modality], 1)}))
    wanted = {part for part in ("pooled", "tokens") if gap(getattr(short[0], part), getattr(short[1], part)) > _NEAR}
    for seed in range(8):  # of 600 tokens a maximum may take none of the last
        moved = run(subject, **(rows | {modality: _other_tail(rows[modality], _TAIL, seed)}))
        wanted -= {part for part in wanted if not torch.equal(getattr(base, part)[row], getattr(moved, part)[row])}
        if not wanted:
            return
    what = f"the last of 4 {modality} tokens moves `{min(wanted)}`, the last {_TAIL} of {_LONG} do not"
    require(False, f"{what}: is it cut off?")


def _other_tail(features: Features, tail: int, seed: int = 9) -> Features:
    """`features` with other values in the last tokens of its longest row."""
    tokens = features.tokens.clone()
    tokens[:, -tail:] = torch.randn(tokens[:, -tail:].shape, generator=torch.Generator().manual_seed(seed)).to(tokens)
    return features._replace(tokens=tokens)


def missing_modality(candidate: Candidate) -> None:
    """Rows that lack modalities give finite output and gradient, and their learned token is used, in eval mode too."""
    uses, subject = candidate.cls.uses, build(candidate, dropout=False)
    full = example()
    learned = {m: (0.02 * torch.randn(f.pooled.shape[1]).double()).requires_grad_() for m, f in full.items()}
    lacking = {"text": [1, 3], "image": [2, 3]}
    some = {m: _without(f, lacking[m], learned[m]) for m, f in full.items()}
    all_rows = {m: _without(f, [0, 1, 2, 3], learned[m]) for m, f in full.items()}
    none = {m: f._replace(tokens=f.tokens[:, :1], mask=f.mask[:, :1]) for m, f in all_rows.items()}
    present = functools.reduce(torch.logical_or, (some[m].present for m in uses))
    for training in (False, True):
        run(subject.train(training), **none)
        out = run(subject, **some)
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
