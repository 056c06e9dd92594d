"""The conformance suite passes on every registered strategy, and fails on every defect planted here."""

import pytest
import torch
import torch.nn.functional as F
from planted_fusions import Product, masked_mean, plant
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.testing import ConformanceError, check_fusion, fusion_checks
from mmfuse.types import MmfuseError

VARIANTS = [
    ("concat", {"hidden_layers": 0}),
    ("late", {"hidden_layers": 0}),
    ("text_only", {"hidden_layers": 2}),
    ("late", {"learned_weights": True}),
    ("cross_attention", {"num_layers": 2, "num_heads": 2, "out_dim": 32}),
    ("cross_attention", {"queries": "text"}),
    ("cross_attention", {"queries": "image"}),
    ("merged_attention", {"num_layers": 2}),
    ("perceiver", {"num_layers": 1}),
]


@pytest.mark.parametrize("check", fusion_checks())
@pytest.mark.parametrize("name", FUSIONS.names())
def test_registered_strategy_conforms(name, check):
    fusion_checks()[check](name)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_variant_conforms(name, options):
    check_fusion(name, **options)


def test_unknown_strategy_or_option_is_the_users_error():
    with pytest.raises(MmfuseError, match="gated"):
        check_fusion("gatd")
    with pytest.raises(MmfuseError, match="hidden_layers"):
        check_fusion("concat", hiden_layers=0)
    with pytest.raises(MmfuseError, match="num_heads"):
        check_fusion("cross_attention", num_heads=3)


def test_the_suite_leaves_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    check_fusion("text_only", out_dim=8)
    assert torch.equal(torch.rand(1), expected)


# Strategies without a defect that a careless suite would refuse.


class GateOpenedAtZero(Product):
    """Flamingo's tanh gate: at its initial value the image does not get in."""

    __doc__ = Product.__doc__

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.gate = nn.Parameter(torch.zeros(()))

    def fuse(self, a, b, text, image):
        return self.out(a + torch.tanh(self.gate) * a * b)


class MeanOfProbabilities(Product):
    """A decision-level strategy: features cannot say it, so it has branches."""

    __doc__ = Product.__doc__

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.trust = nn.Parameter(torch.zeros(2))
        del self.out

    def branches(self, text, image):
        return [f._replace(tokens=p(f.tokens), pooled=p(f.pooled)) for p, f in ((self.text, text), (self.image, image))]

    def combine(self, branch_logits):
        probabilities = torch.stack([logits.softmax(-1) for logits in branch_logits], dim=-1)
        return (probabilities @ self.trust.softmax(0)).log()

    def fuse(self, a, b, text, image):
        return a + b


class AdditiveInProbabilities(MeanOfProbabilities):
    """The same, and it says in which space it is additive."""

    __doc__ = Product.__doc__
    interaction = "additive"
    additive_in = "probabilities"


class TokenAttention(Product):
    """Text attends to image patches, keys with a bias of their own that softmax ignores."""

    __doc__ = Product.__doc__
    reads = frozenset({"pooled", "tokens"})
    interaction = "token"

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.query, self.key, self.value = (nn.Linear(out_dim, out_dim) for _ in range(3))

    def fuse(self, a, b, text, image):
        t, v = self.text(text.tokens), self.image(image.tokens)
        scores = self.query(t) @ self.key(v).mT
        weights = scores.masked_fill(~image.mask[:, None], float("-inf")).softmax(-1)
        return self.out(masked_mean(t + weights @ self.value(v), text.mask) + a + b)

    def macs(self, text_tokens, image_tokens):
        width = self.out_dim
        per_token = linear_macs(self.query)
        return (
            linear_macs(self.text) * (2 * text_tokens + 1)
            + linear_macs(self.image) * (2 * image_tokens + 1)
            + linear_macs(self.out)
            + per_token * (text_tokens + 2 * image_tokens)
            + 2 * width * text_tokens * image_tokens
        )


class Multihead(Product):
    """Text attends to image patches by `nn.MultiheadAttention`, whose code is another in training and in inference."""

    __doc__ = Product.__doc__
    reads = frozenset({"pooled", "tokens"})

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.attention = nn.MultiheadAttention(out_dim, 2, dropout=0.5, batch_first=True)

    def hidden(self, image):
        return ~image.mask

    def fuse(self, a, b, text, image):
        v = self.image(image.tokens)
        attended = self.attention(a.unsqueeze(1), v, v, key_padding_mask=self.hidden(image))[0]
        return self.out(b + attended.squeeze(1))

    def macs(self, text_tokens, image_tokens):
        d = self.out_dim
        attention = d * d * (1 + 2 * image_tokens + 1) + 2 * d * image_tokens
        heads = linear_macs(self.text) * (text_tokens + 1) + linear_macs(self.image) * (2 * image_tokens + 1)
        return heads + attention + d * d


@pytest.mark.parametrize(
    "cls", [Product, GateOpenedAtZero, MeanOfProbabilities, AdditiveInProbabilities, TokenAttention, Multihead]
)
def test_strategy_without_defect_passes(monkeypatch, cls):
    plant(monkeypatch, cls)
    check_fusion("planted")


# One defect each.


class NoReference(Product):
    """The product of two projections."""


class SwallowsTypos(Product):
    def __init__(self, text_dim, image_dim, **options):
        super().__init__(text_dim, image_dim)


class WrongWidth(Product):
    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.out = nn.Linear(out_dim, 2 * out_dim)


class FloatMask(Product):
    def forward(self, text, image):
        out = super().forward(text, image)
        return out._replace(mask=out.mask.float())


class FactorsInAPlainList(Product):
    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.factors = [nn.Parameter(torch.randn(out_dim, out_dim)) for _ in range(2)]

    def fuse(self, a, b, text, image):
        return self.out((a @ self.factors[0]) * (b @ self.factors[1]))


class ProjectionMadeAnew(Product):
    def fuse(self, a, b, text, image):
        return nn.Linear(self.out_dim, self.out_dim)(a * b)


class NeverUsed(Product):
    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.spare = nn.Linear(out_dim, out_dim)


class SingleKey(Product):
    """The text asks a single image vector, own query and key; a residual and a deep `out` hide it."""

    __doc__ = Product.__doc__

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.query, self.key = nn.Linear(out_dim, out_dim), nn.Linear(out_dim, out_dim)
        self.out = nn.Sequential(nn.GELU(), nn.Linear(out_dim, out_dim))

    def fuse(self, a, b, text, image):
        q, k, v = self.query(a)[:, None], self.key(b)[:, None], b[:, None]
        return self.out(a + F.scaled_dot_product_attention(q, k, v)[:, 0])


class SingleKeyMultihead(Product):
    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.attention = nn.MultiheadAttention(out_dim, 2, batch_first=True)
        self.out = nn.Sequential(nn.GELU(), nn.Linear(out_dim, out_dim))

    def fuse(self, a, b, text, image):
        q, k = a.unsqueeze(1), b.unsqueeze(1)
        return self.out(a + self.attention(q, k, k)[0].squeeze(1))


class SingleKeyWithoutParameters(Product):
    def fuse(self, a, b, text, image):
        return self.out(F.scaled_dot_product_attention(a[:, None], b[:, None], b[:, None])[:, 0])


class IgnoresImage(Product):
    def fuse(self, a, b, text, image):
        return self.out(a)


class UndeclaredImage(Product):
    uses = ("text",)


class NeedsTheUnused(Product):
    uses = ("text",)
    interaction = "additive"

    def fuse(self, a, b, text, image):
        return self.out(a)

    def forward(self, text, image):
        out = super().forward(text, image)
        tokens = self.text(text.tokens) + 0 * self.image(image.pooled)[:, None]
        return out._replace(tokens=tokens, mask=text.mask, present=text.present)


class AdditiveInAnotherSpace(MeanOfProbabilities):
    """It multiplies probabilities, and declares that it adds them."""

    __doc__ = Product.__doc__
    interaction = "additive"
    additive_in = "probabilities"

    def combine(self, branch_logits):
        return torch.tensordot(torch.stack(branch_logits), self.trust.softmax(0), dims=([0], [0]))


class AdditiveInProbabilitiesItDoesNotCombine(Product):
    additive_in = "probabilities"


class NormBehindTheSum(Product):
    interaction = "additive"

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.norm = nn.LayerNorm(2 * out_dim)
        self.out = nn.Linear(2 * out_dim, out_dim)

    def fuse(self, a, b, text, image):
        return self.out(self.norm(torch.cat([a, b], dim=-1)))


class SumDeclaredMultiplicative(Product):
    def fuse(self, a, b, text, image):
        return self.out(a + b)


class TokensThatNeverMeet(Product):
    reads = frozenset({"pooled", "tokens"})
    interaction = "token"

    def fuse(self, a, b, text, image):
        return self.out(a * b) + masked_mean(self.text(text.tokens), text.mask)


class UndeclaredTokens(Product):
    def fuse(self, a, b, text, image):
        return self.out(a * b + masked_mean(self.text(text.tokens), text.mask))


class DeclaresTokensInVain(Product):
    reads = frozenset({"pooled", "tokens"})


class DropsInEvalToo(Product):
    def fuse(self, a, b, text, image):
        return self.out(F.dropout(a * b, 0.5))


class AttendsAcrossTheBatch(Product):
    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.attention = nn.MultiheadAttention(out_dim, 2, batch_first=True)

    def fuse(self, a, b, text, image):
        return self.out(self.attention(a.unsqueeze(0), b.unsqueeze(0), b.unsqueeze(0))[0].squeeze(0))


class MaskOfOnes(Product):
    def forward(self, text, image):
        out = super().forward(text, image)
        return out._replace(mask=torch.ones_like(out.mask))


class PaddingInTheMean(Product):
    reads = frozenset({"pooled", "tokens"})

    def fuse(self, a, b, text, image):
        return self.out(a * b + self.text(text.tokens).mean(1))


class PaddingAttended(Multihead):
    def hidden(self, image):
        return torch.zeros_like(image.mask)


class SkipsTheMissingToken(Product):
    def fuse(self, a, b, text, image):
        if not self.training:
            a = a * text.present[:, None]
        return self.out(a + a * b + b)


class MasksTheMissingToken(Multihead):
    def hidden(self, image):
        return ~(image.mask & image.present[:, None])


class PresentIsAnd(Product):
    def forward(self, text, image):
        return super().forward(text, image)._replace(present=text.present & image.present)


class RandomTensorOutsideTheState(Product):
    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.register_buffer("signs", torch.randn(out_dim), persistent=False)

    def fuse(self, a, b, text, image):
        return self.out(a * b * self.signs)


class CancelsDigits(Product):
    def fuse(self, a, b, text, image):
        return self.out((1000.0 + a * b) - 1000.0)


class PartlyDetached(Product):
    def fuse(self, a, b, text, image):
        return self.out(a * b + a.detach())


class BranchesOnValues(Product):
    def fuse(self, a, b, text, image):
        if a.sum() > 1e9:
            a = -a
        return self.out(a * b)


class CountsRowsInPython(Product):
    def fuse(self, a, b, text, image):
        return self.out(a * b) + torch.ones(len(a), 1)


class ForgetsTokensInMacs(Product):
    def macs(self, text_tokens, image_tokens):
        return linear_macs(self)


PLANTED = [
    (NoReference, "protocol", "Reference"),
    (SwallowsTypos, "protocol", "swallows typos"),
    (WrongWidth, "protocol", r"`pooled` of its output is \(\(4, 16\), .*not \(\(4, 8\)"),
    (FloatMask, "protocol", "`mask` of its output is .*torch.float32.*torch.bool"),
    (FactorsInAPlainList, "parameters", "'factors.0' is not in parameters.*plain list"),
    (ProjectionMadeAnew, "parameters", "made anew at every forward"),
    (NeverUsed, "training", "'spare.weight' gets no gradient"),
    (SingleKey, "training", "'query.weight' gets no gradient.*single key"),
    (SingleKeyMultihead, "training", "67% of the rows of 'attention.in_proj_weight'.*single key"),
    (SingleKeyWithoutParameters, "modalities", "text is in `uses`, but does not move.*single key"),
    (IgnoresImage, "modalities", "image is in `uses`, but does not move"),
    (UndeclaredImage, "unused_modality", "image is not in `uses`, but moves"),
    (NeedsTheUnused, "unused_modality", "NoneType"),
    (AdditiveInAnotherSpace, "interaction", "'additive', but text and image interact"),
    (AdditiveInProbabilitiesItDoesNotCombine, "protocol", "`additive_in` is probabilities, but it has no `combine`"),
    (NormBehindTheSum, "interaction", "'additive', but text and image interact.*LayerNorm"),
    (SumDeclaredMultiplicative, "interaction", "is it 'additive'"),
    (TokensThatNeverMeet, "interaction", "'token', but with pooled inputs fixed"),
    (UndeclaredTokens, "reads", "`reads` has no tokens, but they move"),
    (DeclaresTokensInVain, "reads", "`reads` has tokens, but they do not move"),
    (DropsInEvalToo, "repeatable", "ignores eval"),
    (AttendsAcrossTheBatch, "batch", "batch mates"),
    (MaskOfOnes, "padding", "mask of ones"),
    (PaddingInTheMean, "padding", "padded text tokens move the output in eval mode"),
    (PaddingAttended, "padding", "padded image tokens move the output in eval mode"),
    (SkipsTheMissingToken, "missing_modality", "missing text does not reach `pooled` in eval mode"),
    (MasksTheMissingToken, "missing_modality", "not finite.*all masked"),
    (PresentIsAnd, "missing_modality", "not the OR"),
    (RandomTensorOutsideTheState, "state_dict", "neither a parameter nor a saved buffer"),
    (CancelsDigits, "bfloat16", "away from float32"),
    (PartlyDetached, "gradient", "detached"),
    (BranchesOnValues, "export", "Python branch"),
    (CountsRowsInPython, "export", "for one length alone"),
    (MaskOfOnes, "captioning", "padded tokens move a caption"),
    (ForgetsTokensInMacs, "macs", r"macs\(5, 7\) is .*, but its matrix products take"),
]


@pytest.mark.parametrize(("cls", "check", "says"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_planted_defect_is_caught(monkeypatch, cls, check, says):
    plant(monkeypatch, cls)
    with pytest.raises(ConformanceError, match=says) as caught:
        fusion_checks()[check]("planted")
    assert str(caught.value).startswith(f"fusion 'planted' fails {check}: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConformanceError):
        check_fusion("planted")
