"""What a resumed run must find as it was: its rows, and all that training never changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

import numpy as np

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.encoders.text import TextEncoder
from mmfuse.model import FusionModel

_ROWS = 4096
"""Rows that are hashed at once."""


def rows_identity(pairs: PairDataset, order: str = "") -> str:
    """sha256 of all rows as an epoch's plan and its targets depend on them; where images lie is not in it.

    Args:
        pairs: The rows.
        order: The identity of an order that depends on more.
    """
    table = pairs.table
    digest = hashlib.sha256(json.dumps(table.labels).encode())
    for start in range(0, len(table), _ROWS):
        part = slice(start, start + _ROWS)
        digest.update(json.dumps([pairs.ids[part], table.splits[part], table.rows["text"][part]]).encode())
    digest.update(np.asarray(pairs.lengths(), dtype=np.int64).tobytes())
    for task, targets in table.targets.items():
        captions = targets.dtype == object
        digest.update(task.encode() + (json.dumps(targets.tolist()).encode() if captions else targets.tobytes()))
    digest.update(order.encode())
    return digest.hexdigest()


def frozen_identity(model: FusionModel, trained: Collection[str]) -> str:
    """sha256 of the vocabulary, and of the weights that are not among the `trained` ones."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if name not in trained:
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    if isinstance(model.text_encoder, TextEncoder):
        vocabulary: Any = model.text_encoder.tokenizer.get_vocab()
        digest.update(json.dumps(sorted(vocabulary.items())).encode())
    return digest.hexdigest()
