"""Every strategy against its formula, written out in numpy from the papers, row by row and head by head."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf, expit, softmax

from mmfuse.fusion import FUSIONS, build_fusion
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features, MmfuseError

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


def branches(w, t, v, hidden_layers):
    f = w.mlp("text.hidden", w.project("text.project", t.pooled), hidden_layers)
    g = w.mlp("image.hidden", w.project("image.project", v.pooled), hidden_layers)
    return f, g


def late(w, t, v, hidden_layers=1, learned_weights=False):
    f, g = branches(w, t, v, hidden_layers)
    if not learned_weights:
        return f + g
    trust = softmax(w.arrays["weights"])
    return trust[0] * f + trust[1] * g


def mixture_of_experts(w, t, v, hidden_layers=1):
    f, g = branches(w, t, v, hidden_layers)
    pair = np.concatenate([w.project("text.project", t.pooled), w.project("image.project", v.pooled)], axis=-1)
    trust = softmax(w.linear("gate", pair), axis=-1)
    return trust[:, :1] * f + trust[:, 1:] * g


def linear_sum(w, t, v):
    return w.project("text", t.pooled) + w.project("image", v.pooled)


def weighted_concat(w, t, v):
    trust = softmax(w.arrays["weights"])
    pair = [trust[0] * w.project("text", t.pooled), trust[1] * w.project("image", v.pooled)]
    return w.linear("first", np.concatenate(pair, axis=-1))


def film(w, t, v):
    modulation = w.project("text", t.pooled)
    return (1.0 + modulation[:, :OUT_DIM]) * w.project("image", v.pooled) + modulation[:, OUT_DIM:]


def low_rank_bilinear(w, t, v, rank=256):
    return w.linear("out", np.tanh(w.project("text", t.pooled)) * np.tanh(w.project("image", v.pooled)))


def factorized_bilinear(w, t, v, factor=5):
    """Channel i sums the products of columns i * factor ... i * factor + factor - 1."""
    a, b = w.project("text", t.pooled), w.project("image", v.pooled)
    z = np.stack([(a * b)[:, i * factor : (i + 1) * factor].sum(1) for i in range(OUT_DIM)], axis=1)
    rooted = np.sign(z) * np.abs(z) / np.sqrt(np.abs(z) + 1e-6)
    return rooted / np.sqrt((rooted**2).sum(1, keepdims=True))


def mutan(w, t, v, hidden_dim=None, rank=5):
    """The Tucker core is built whole: core[i, j, o] = Σ_r M_r[o, i] N_r[o, j], with the constants as one more input."""
    a, b = (np.concatenate([w.project(f"{m}.0", x.pooled), np.ones((3, 1))], axis=1) for m, x in pairs(t, v))
    left, right = (
        np.concatenate([w.arrays[f"{m}.2.weight"], w.arrays[f"{m}.2.bias"][:, None]], axis=1).reshape(rank, OUT_DIM, -1)
        for m in ("text", "image")
    )
    core = np.einsum("roi,roj->ijo", left, right)
    return np.einsum("bi,bj,ijo->bo", a, b, core)


def tensor(w, t, v, tensor_dim=32):
    a, b = (np.concatenate([np.ones((3, 1)), w.project(m, x.pooled)], axis=1) for m, x in pairs(t, v))
    z = np.stack([np.outer(a[row], b[row]).reshape(-1) for row in range(3)])
    return w.linear("hidden", gelu(w.linear("first", z)))


def low_rank_tensor(w, t, v, rank=4):
    """Factor by factor, on [x; 1]: the weight tensor is built whole and applied to the outer product."""
    a, b = (np.concatenate([w.norm(f"{m}.0", x.pooled), np.ones((3, 1))], axis=1) for m, x in pairs(t, v))
    factors = [
        np.concatenate([w.arrays[f"{m}.1.weight"], w.arrays[f"{m}.1.bias"][:, None]], axis=1).reshape(rank, OUT_DIM, -1)
        for m in ("text", "image")
    ]
    whole = np.einsum("r,roi,roj->ijo", w.arrays["weights"], *factors)
    return np.einsum("bi,bj,ijo->bo", a, b, whole) + w.arrays["bias"]


def squeeze_excite(w, t, v, ratio=4):
    a, b = w.project("text", t.pooled), w.project("image", v.pooled)
    squeezed = np.maximum(w.linear("squeeze", np.concatenate([a, b], axis=1)), 0.0)
    excited = w.linear("excite", squeezed)
    gated_a, gated_b = a * 2 * expit(excited[:, :OUT_DIM]), b * 2 * expit(excited[:, OUT_DIM:])
    return w.linear("first", np.concatenate([gated_a, gated_b], axis=1))


def pairs(t, v):
    return ("text", t), ("image", v)


def concat(w, t, v, hidden_layers=1):
    pair = np.concatenate([w.project("text", t.pooled), w.project("image", v.pooled)], axis=-1)
    return w.mlp("hidden", w.linear("first", pair), hidden_layers)


def gated(w, t, v):
    a, b = w.project("text", t.pooled), w.project("image", v.pooled)
    z = expit(w.linear("gate", np.concatenate([a, b], axis=-1)))
    return z * np.tanh(b) + (1.0 - z) * np.tanh(a)


def by_row(one_row):
    """A token strategy's formula, from one row's real tokens: no masks are needed."""

    def formula(w, t, v, **options):
        rows = []
        for row in range(len(t.pooled)):
            x = w.project("text", np.concatenate([t.pooled[row : row + 1], t.tokens[row][t.mask[row]]]))
            y = w.project("image", np.concatenate([v.pooled[row : row + 1], v.tokens[row][v.mask[row]]]))
            rows.append(one_row(w, x, y, **{"num_heads": 4, **options}))
        return np.stack(rows)

    return formula


@by_row
def cross_attention(w, x, y, num_heads, num_layers=1, queries="both"):
    for layer in range(num_layers):
        x, y = (
            attend(w, f"text_layers.{layer}", x, y, num_heads) if queries != "image" else x,
            attend(w, f"image_layers.{layer}", y, x, num_heads) if queries != "text" else y,
        )
    read = {"both": (x, y), "text": (x,), "image": (y,)}[queries]
    return w.linear("pool", np.concatenate([w.norm("norm", tokens).max(0) for tokens in read]))


@by_row
def merged_attention(w, x, y, num_heads, num_layers=1):
    both = np.concatenate([x, y])
    for layer in range(num_layers):
        both = attend(w, f"layers.{layer}", both, both, num_heads)
    both = w.norm("norm", both)
    return w.linear("pool", np.concatenate([both[: len(x)].max(0), both[len(x) :].max(0)]))


@by_row
def bottleneck(w, x, y, num_heads, num_layers=2, num_bottlenecks=4):
    z = w.arrays["bottlenecks"]
    for layer in range(num_layers):
        xz = attend(w, f"text_layers.{layer}", np.concatenate([x, z]), np.concatenate([x, z]), num_heads)
        yz = attend(w, f"image_layers.{layer}", np.concatenate([y, z]), np.concatenate([y, z]), num_heads)
        x, y, z = xz[: len(x)], yz[: len(y)], (xz[len(x) :] + yz[len(y) :]) / 2
    return w.linear("pool", np.concatenate([w.norm("norm", x).max(0), w.norm("norm", y).max(0)]))


@by_row
def perceiver(w, x, y, num_heads, num_layers=2, num_latents=16):
    z = w.arrays["latents"]
    for layer in range(num_layers):
        z = attend(w, f"layers.{layer}", z, np.concatenate([z, x, y]), num_heads)
    return w.linear("pool", w.norm("norm", z).mean(0))


@by_row
def gated_cross_attention(w, x, y, num_heads, num_layers=2):
    for layer in range(num_layers):
        name = f"layers.{layer}"
        gates = np.tanh(w.arrays[f"{name}.attention_gate"]), np.tanh(w.arrays[f"{name}.mlp_gate"])
        x = attend(w, name, x, y, num_heads, *gates)
    return w.linear("pool", w.norm("norm", x).max(0))


def attend(w, name, queries, keys, num_heads, attention_gate=1.0, mlp_gate=1.0):
    """`x + MHA(x, y)`, then `x + FFN(x)`; both normalise first, and a gate may stand before each."""
    q = w.linear(f"{name}.query", w.norm(f"{name}.query_norm", queries))
    k, v = np.split(w.linear(f"{name}.key_value", w.norm(f"{name}.key_norm", keys)), 2, axis=-1)
    width = q.shape[-1] // num_heads
    heads = [slice(i * width, (i + 1) * width) for i in range(num_heads)]
    attended = [softmax(q[:, h] @ k[:, h].T / np.sqrt(width), axis=-1) @ v[:, h] for h in heads]
    x = queries + attention_gate * w.linear(f"{name}.out", np.concatenate(attended, axis=-1))
    hidden = gelu(w.linear(f"{name}.mlp.0", w.norm(f"{name}.mlp_norm", x)))
    return x + mlp_gate * w.linear(f"{name}.mlp.2", hidden)


FORMULAS = {
    "bottleneck": bottleneck,
    "concat": concat,
    "cross_attention": cross_attention,
    "factorized_bilinear": factorized_bilinear,
    "film": film,
    "gated": gated,
    "gated_cross_attention": gated_cross_attention,
    "image_only": image_only,
    "late": late,
    "late_probability": late,  # of its features; what it decides is tested below
    "low_rank_bilinear": low_rank_bilinear,
    "low_rank_tensor": low_rank_tensor,
    "merged_attention": merged_attention,
    "mixture_of_experts": mixture_of_experts,
    "mutan": mutan,
    "perceiver": perceiver,
    "squeeze_excite": squeeze_excite,
    "sum": linear_sum,
    "tensor": tensor,
    "text_only": text_only,
    "weighted_concat": weighted_concat,
}
OWN = [name for name in FUSIONS.names() if not FUSIONS.origin(name)]
WITH_HIDDEN_LAYERS = ("text_only", "image_only", "late", "late_probability", "concat", "mixture_of_experts")
VARIANTS = [
    *((name, {}) for name in OWN),
    *((name, {"hidden_layers": n}) for name in WITH_HIDDEN_LAYERS for n in (0, 2)),
    ("late", {"learned_weights": True}),
    ("low_rank_bilinear", {"rank": 3}),
    ("factorized_bilinear", {"factor": 2}),
    ("mutan", {"hidden_dim": 6, "rank": 3}),
    ("tensor", {"tensor_dim": 3}),
    ("low_rank_tensor", {"rank": 2}),
    ("squeeze_excite", {"ratio": 8}),
    ("cross_attention", {"num_layers": 2, "num_heads": 2}),
    ("cross_attention", {"queries": "text"}),
    ("cross_attention", {"queries": "image", "num_layers": 2}),
    ("merged_attention", {"num_layers": 2}),
    ("bottleneck", {"num_layers": 3, "num_bottlenecks": 2}),
    ("perceiver", {"num_layers": 1, "num_latents": 3}),
    ("gated_cross_attention", {"num_layers": 1}),
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
    fusion: Any = build_fusion("late", TEXT_DIM, IMAGE_DIM, {"out_dim": OUT_DIM}).double().eval()
    head = torch.nn.Linear(OUT_DIM, 3, dtype=torch.float64)
    text, image = features(TEXT_DIM, TEXT_LENGTHS, 0), features(IMAGE_DIM, IMAGE_LENGTHS, 1)

    branches = head(fusion.text(text, None).pooled) + head(fusion.image(None, image).pooled) - head.bias

    torch.testing.assert_close(head(fusion(text, image).pooled), branches)


def test_gate_chooses_one_modality_when_it_is_saturated():
    fusion: Any = build_fusion("gated", TEXT_DIM, IMAGE_DIM, {"out_dim": OUT_DIM}).double().eval()
    text, image = features(TEXT_DIM, TEXT_LENGTHS, 0), features(IMAGE_DIM, IMAGE_LENGTHS, 1)
    torch.nn.init.zeros_(fusion.gate.weight)
    for bias, chosen in (
        (100.0, torch.tanh(fusion.image(image.pooled))),
        (-100.0, torch.tanh(fusion.text(text.pooled))),
    ):
        torch.nn.init.constant_(fusion.gate.bias, bias)
        torch.testing.assert_close(fusion(text, image).pooled, chosen)


@pytest.mark.parametrize("rows", [(2, 3), (2, 3, 2)], ids=["classes", "labels, yes and no"])
def test_late_probability_decides_by_the_mean_of_the_branches_probabilities(rows):
    fusion: Any = build_fusion("late_probability", TEXT_DIM, IMAGE_DIM, {"out_dim": OUT_DIM})
    generator = torch.Generator().manual_seed(0)
    logits = [3 * torch.randn(rows, generator=generator, dtype=torch.float64) for _ in range(2)]

    probabilities = softmax(fusion.combine(logits).numpy(), axis=-1)

    np.testing.assert_allclose(probabilities, sum(softmax(z.numpy(), axis=-1) for z in logits) / 2)


def test_flamingos_gates_start_closed_and_the_image_unseen():
    fusion = build_fusion("gated_cross_attention", TEXT_DIM, IMAGE_DIM, {"out_dim": OUT_DIM}).double().eval()
    text, image = features(TEXT_DIM, TEXT_LENGTHS, 0), features(IMAGE_DIM, IMAGE_LENGTHS, 1)

    torch.testing.assert_close(
        fusion(text, image).pooled, fusion(text, features(IMAGE_DIM, IMAGE_LENGTHS, 2)).pooled, rtol=0, atol=0
    )


@pytest.mark.parametrize("queries", ["txt", "none"])
def test_cross_attention_names_its_legal_queries(queries):
    with pytest.raises(MmfuseError, match="both, text, image"):
        build_fusion("cross_attention", TEXT_DIM, IMAGE_DIM, {"queries": queries})


@pytest.mark.parametrize("name", ["cross_attention", "merged_attention", "bottleneck", "perceiver"])
def test_attention_refuses_heads_that_do_not_divide_its_width(name):
    with pytest.raises(MmfuseError, match="num_heads 3"):
        build_fusion(name, TEXT_DIM, IMAGE_DIM, {"out_dim": 8, "num_heads": 3})


@pytest.mark.parametrize("width", [16, 1280])
def test_every_strategy_starts_from_inputs_of_variance_one(width):
    torch.manual_seed(0)
    found = Projection(width, 256)(7 + 30 * torch.randn(512, width))
    assert found.mean().item() == pytest.approx(0, abs=0.1)
    assert found.var().item() == pytest.approx(1, rel=0.15)
