"""Every strategy against its formula, written out in numpy from the papers, row by row and head by head."""

import numpy as np
import pytest
import torch
from scipy.special import erf, expit, softmax

from mmfuse.fusion import FUSIONS, build_fusion
from mmfuse.types import Features

TEXT_DIM, IMAGE_DIM, OUT_DIM = 5, 7, 8
TEXT_LENGTHS, IMAGE_LENGTHS = (4, 1, 2), (3, 3, 1)


def features(dim, lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(lengths), max(lengths), dim, generator=generator, dtype=torch.float64)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    pooled = torch.randn(len(lengths), dim, generator=generator, dtype=torch.float64)
    return Features(tokens, mask, pooled, torch.ones(len(lengths), dtype=torch.bool))


class Weights:
    """The parameters of a module as numpy arrays, and the three layers that all strategies are made of."""

    def __init__(self, module):
        self.arrays = {name: p.detach().numpy() for name, p in module.named_parameters()}

    def linear(self, name, x):
        return x @ self.arrays[f"{name}.weight"].T + self.arrays[f"{name}.bias"]

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.arrays[f"{name}.weight"] + self.arrays[f"{name}.bias"]

    def project(self, name, x):
        return self.linear(f"{name}.1", self.norm(f"{name}.0", x))

    def mlp(self, name, x, hidden_layers):
        for i in range(hidden_layers):
            x = self.linear(f"{name}.{i}.2", gelu(x))
        return x


def gelu(x):
    return x * 0.5 * (1.0 + erf(x / np.sqrt(2.0)))


def text_only(w, t, v, hidden_layers=1):
    return w.mlp("hidden", w.project("project", t.pooled), hidden_layers)


def image_only(w, t, v, hidden_layers=1):
    return w.mlp("hidden", w.project("project", v.pooled), hidden_layers)


def late(w, t, v, hidden_layers=1):
    f = w.mlp("text.hidden", w.project("text.project", t.pooled), hidden_layers)
    g = w.mlp("image.hidden", w.project("image.project", v.pooled), hidden_layers)
    return f + g


def concat(w, t, v, hidden_layers=1):
    pair = np.concatenate([w.project("text", t.pooled), w.project("image", v.pooled)], axis=-1)
    return w.mlp("hidden", w.linear("first", pair), hidden_layers)


def gated(w, t, v):
    a, b = w.project("text", t.pooled), w.project("image", v.pooled)
    z = expit(w.linear("gate", np.concatenate([a, b], axis=-1)))
    return z * np.tanh(b) + (1.0 - z) * np.tanh(a)


def cross_attention(w, t, v, num_layers=1, num_heads=4):
    return np.stack([one_pair(w, t, v, row, num_layers, num_heads) for row in range(len(t.pooled))])


def one_pair(w, t, v, row, num_layers, num_heads):
    """One row's `pooled`, from its real tokens only: no masks are needed."""
    x = w.project("text", np.concatenate([t.pooled[row : row + 1], t.tokens[row][t.mask[row]]]))
    y = w.project("image", np.concatenate([v.pooled[row : row + 1], v.tokens[row][v.mask[row]]]))
    for layer in range(num_layers):
        x, y = (
            attend(w, f"text_layers.{layer}", x, y, num_heads),
            attend(w, f"image_layers.{layer}", y, x, num_heads),
        )
    return w.linear("pool", np.concatenate([w.norm("norm", x).max(0), w.norm("norm", y).max(0)]))


def attend(w, name, queries, keys, num_heads):
    """`x + MHA(x, y)`, then `x + FFN(x)`; both normalise first."""
    q = w.linear(f"{name}.query", w.norm(f"{name}.query_norm", queries))
    k, v = np.split(w.linear(f"{name}.key_value", w.norm(f"{name}.key_norm", keys)), 2, axis=-1)
    width = q.shape[-1] // num_heads
    heads = [slice(i * width, (i + 1) * width) for i in range(num_heads)]
    attended = [softmax(q[:, h] @ k[:, h].T / np.sqrt(width), axis=-1) @ v[:, h] for h in heads]
    x = queries + w.linear(f"{name}.out", np.concatenate(attended, axis=-1))
    hidden = gelu(w.linear(f"{name}.mlp.0", w.norm(f"{name}.mlp_norm", x)))
    return x + w.linear(f"{name}.mlp.2", hidden)


FORMULAS = {
    "text_only": text_only,
    "image_only": image_only,
    "late": late,
    "concat": concat,
    "gated": gated,
    "cross_attention": cross_attention,
}
OWN = [name for name in FUSIONS.names() if not FUSIONS.origin(name)]
VARIANTS = [
    *((name, {}) for name in OWN),
    *((name, {"hidden_layers": n}) for name in ("text_only", "image_only", "late", "concat") for n in (0, 2)),
    ("cross_attention", {"num_layers": 2, "num_heads": 2}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_pooled_is_the_formula(name, options):
    assert name in FORMULAS, f"write the formula of {name!r} out in numpy here"
    torch.manual_seed(0)
    fusion = build_fusion(name, TEXT_DIM, IMAGE_DIM, {"out_dim": OUT_DIM, **options}).double().eval()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    text, image = features(TEXT_DIM, TEXT_LENGTHS, 0), features(IMAGE_DIM, IMAGE_LENGTHS, 1)

    pooled = fusion(text, image).pooled.detach().numpy()

    t, v = (Features(*(part.numpy() for part in f)) for f in (text, image))
    np.testing.assert_allclose(pooled, FORMULAS[name](Weights(fusion), t, v, **options), rtol=1e-9, atol=1e-11)


def test_late_logits_are_the_sum_of_two_unimodal_models_logits():
    torch.manual_seed(0)
    fusion = build_fusion("late", TEXT_DIM, IMAGE_DIM, {"out_dim": OUT_DIM}).double().eval()
    head = torch.nn.Linear(OUT_DIM, 3, dtype=torch.float64)
    text, image = features(TEXT_DIM, TEXT_LENGTHS, 0), features(IMAGE_DIM, IMAGE_LENGTHS, 1)

    branches = head(fusion.text(text, None).pooled) + head(fusion.image(None, image).pooled) - head.bias

    torch.testing.assert_close(head(fusion(text, image).pooled), branches)


def test_gate_chooses_one_modality_when_it_is_saturated():
    fusion = build_fusion("gated", TEXT_DIM, IMAGE_DIM, {"out_dim": OUT_DIM}).double().eval()
    text, image = features(TEXT_DIM, TEXT_LENGTHS, 0), features(IMAGE_DIM, IMAGE_LENGTHS, 1)
    torch.nn.init.zeros_(fusion.gate.weight)
    for bias, chosen in (
        (100.0, torch.tanh(fusion.image(image.pooled))),
        (-100.0, torch.tanh(fusion.text(text.pooled))),
    ):
        torch.nn.init.constant_(fusion.gate.bias, bias)
        torch.testing.assert_close(fusion(text, image).pooled, chosen)
