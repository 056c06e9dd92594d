"""Draws that depend on what they are for alone: not on what was drawn before, nor on who draws."""

from __future__ import annotations

import hashlib

import numpy as np


def unit_hash(seed: int, name: str) -> float:
    """A number in [0, 1) that depends on nothing but the seed and the name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big") / 2**56


def step_seed(seed: int, step: int, rank: int = 2**31) -> int:
    """A seed of 63 bits for a step of a process; without `rank`, for what all processes draw alike."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for a step of a process: a resumed run draws the same."""
    import torch  # splits do without

    torch.manual_seed(step_seed(seed, step, rank))
