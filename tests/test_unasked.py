"""Masks that are made without looking into them are those that transformers makes."""

import threading

import pytest
import torch
from transformers import AutoConfig, AutoModel

from mmfuse.unasked import masks_unasked

CARD = torch.device("meta")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(params=["sdpa", "eager"])
def model(request):
    torch.manual_seed(0)
    return AutoModel.from_config(AutoConfig.for_model("bert", **SIZES), attn_implementation=request.param).eval()


@torch.no_grad()
def said(model, mask):
    ids = torch.arange(1, 1 + mask.numel()).view(mask.shape)
    return model(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask]


PADDED = torch.arange(6) < torch.tensor([6, 3, 1])[:, None]
FULL = torch.ones(3, 6, dtype=torch.bool)


def test_the_same_is_said(model):
    padded, full = said(model, PADDED), said(model, FULL)
    with masks_unasked(CARD, full=False):
        assert torch.equal(said(model, PADDED), padded)
        assert torch.allclose(said(model, FULL), full, atol=1e-6)
    with masks_unasked(CARD, full=True):
        assert torch.equal(said(model, FULL), full)
        assert not torch.allclose(said(model, PADDED), padded, atol=1e-3)  # it is believed
    assert torch.equal(said(model, PADDED), padded)
    with masks_unasked(torch.device("cpu"), full=True):
        assert torch.equal(said(model, PADDED), padded)


def test_another_thread_is_not_told(model):
    wanted, found = said(model, PADDED), []
    with masks_unasked(CARD, full=True):
        thread = threading.Thread(target=lambda: found.append(said(model, PADDED)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], wanted)
