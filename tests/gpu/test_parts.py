"""Every fusion, head, decoder and tower on a card against the same on the CPU: outputs and gradients."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from side_by_side import BF16, CPU, FP32, TF32, apart, compare, moved

from mmfuse.config import DecoderConfig, ImageEncoderConfig, TextEncoderConfig
from mmfuse.data.batches.collate import Item, collate, pad_tokens
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.encoders.vocabularies import train_vocabulary
from mmfuse.fusion import FUSIONS, build_fusion
from mmfuse.heads import build_head
from mmfuse.heads.decoder import build_decoder
from mmfuse.model import FusionModel
from mmfuse.types import MISSING_CLASS, Features

pytestmark = pytest.mark.gpu

TEXT_DIM, IMAGE_DIM, WIDTH = 12, 20, 16
OPTIONS: dict[str, dict[str, Any]] = {"late": {"learned_weights": True}}
"""What brings more of a strategy into play than its defaults."""
CAPTIONS = ["No opacity. Left pleural effusion.", "There is a new nodule.", "Cardiomegaly.", "Clear lungs today."]
DECODERS = [("gpt2", "cross_attention"), ("bert", "cross_attention"), ("bart", "cross_attention")]
DECODERS += [("gpt2", "prefix"), ("bert", "prefix")]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def features(dim: int, lengths: list[int], seed: int) -> Features:
    """Of rows of these numbers of tokens; a row of one token is one that lacks the modality."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(lengths), max(lengths), dim, generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Features(tokens, mask, torch.randn(len(lengths), dim, generator=generator), torch.tensor(lengths) > 1)


def both(rows: int = 5) -> list[Features]:
    return [features(TEXT_DIM, [7, 1, 4, 7, 2][:rows], 0), features(IMAGE_DIM, [9, 9, 1, 27, 9][:rows], 1)]


def flat(found: Features) -> torch.Tensor:
    """All that a fusion says, what is masked as zeros."""
    tokens = torch.where(found.mask[..., None], found.tokens, 0.0)
    return torch.cat([tokens.flatten(), found.pooled.flatten()])


@pytest.mark.parametrize("name", sorted(FUSIONS.names()))
def test_fusion(side, name):
    """In fp32, with TF32 and under autocast; with rows that lack a modality, and one of three images."""
    torch.manual_seed(0)
    fusion: Any = build_fusion(name, TEXT_DIM, IMAGE_DIM, {"out_dim": WIDTH, **OPTIONS.get(name, {})}).eval()

    def call(module, given):
        if hasattr(module, "combine"):
            return torch.cat([flat(branch) for branch in module.branches(*given)])
        return flat(module(*given))

    compare(side, fusion, call, both(), (FP32, TF32, BF16))


TARGETS = {
    "classification": torch.tensor([0, 2, MISSING_CLASS, 1, 1]),
    "multilabel": torch.tensor([[1.0, 0.0, 1.0], [float("nan")] * 3, [0.0, 1.0, float("nan")], [1.0] * 3, [0.0] * 3]),
    "regression": torch.tensor([1.0, 20.0, float("nan"), 3.0, -4.0]),
}
WEIGHED = {"classification": np.array([0, 0, 0, 1, 2]), "multilabel": np.array([[1, 0, 1], [0, 1, 0], [0, 0, 1]])}


@pytest.mark.parametrize("kind", TARGETS)
def test_label_head_and_its_loss(side, kind):
    """With missing targets, and balanced weights that must have moved with the head."""
    torch.manual_seed(0)
    head = build_head(kind, WIDTH, [] if kind == "regression" else ["a", "b", "c"])
    head.task.fit(lambda: TARGETS[kind].numpy())
    if kind in WEIGHED:
        head.weigh(WEIGHED[kind])
    given = [features(WIDTH, [3, 1, 2, 3, 3], 2), TARGETS[kind]]
    compare(side, head, lambda module, x: module(x[0]), given, (FP32, TF32, BF16))
    compare(side, head, lambda module, x: module.loss(module(x[0]), x[1]), given, (FP32, TF32, BF16))
    own = side.own(head)
    assert float(own.count(TARGETS[kind].to(side.device))) == pytest.approx(float(head.count(TARGETS[kind])))
    said = head(given[0]).detach().numpy()
    wanted = head.said_loss(said, TARGETS[kind].numpy(), CPU)
    assert own.said_loss(said, TARGETS[kind].numpy(), side.device) == pytest.approx(wanted, rel=FP32)


def captioner(name: str, mode: str, **generation: Any) -> Any:
    torch.manual_seed(0)
    given = DecoderConfig(name=name, mode=mode, hidden_dim=32, num_layers=2, num_heads=4, max_length=24)
    words = train_vocabulary("wordpiece_stripped", CAPTIONS * 3, 200, 24)
    head: Any = build_head(
        "captioning", WIDTH, [], {"decoder": build_decoder(given, lambda: words, None, "decoder")}
    ).eval()
    head.set_generation(replace(head.generation, **generation))
    return head


def caption_input(head: Any) -> list[Any]:
    words = [head.decoder.encode(caption) for caption in CAPTIONS] + [[]]
    return [features(WIDTH, [7, 7, 4, 1, 2], 3), pad_tokens(words, MISSING_CLASS)[0]]


@pytest.mark.parametrize(("name", "mode"), DECODERS)
def test_decoder_and_its_loss(side, name, mode):
    head = captioner(name, mode)
    given = caption_input(head)
    compare(side, head, lambda module, x: module.loss(module(*x), x[1]), given, (FP32, TF32, BF16))
    with torch.no_grad(), side.at(FP32):
        assert apart(side.own(head)(*moved(given, side.device)), head(*given)) <= FP32


@pytest.mark.parametrize(("name", "mode"), DECODERS)
@pytest.mark.parametrize("beams", [1, 3])
@torch.inference_mode()
def test_captions_are_those_of_generate_and_of_the_cpu(side, name, mode, beams):
    """`use_cache=False` is transformers' `generate`, without a cache."""
    head = captioner(name, mode, num_beams=beams)
    fused, target = caption_input(head)
    own, there = side.own(head), moved([fused, target], side.device)
    with side.at(FP32):
        said, generated, wanted = own.predict(*there), own.predict(*there, use_cache=False), head.predict(fused, target)
    for other in (generated, wanted):
        assert (said["ids"] == other["ids"]).all()
        for what in ("log_probabilities", "score", "target_loss", "target_tokens"):
            assert apart(said[what], other[what]) <= 10 * FP32


@torch.inference_mode()
def test_sampled_captions_follow_from_their_seed_alone(side):
    head = side.own(captioner("gpt2", "cross_attention", do_sample=True, seed=3))
    fused = moved(caption_input(head)[0], side.device)
    torch.manual_seed(1)
    first, drawn = head.predict(fused, None), torch.rand(4, device=side.device)
    torch.manual_seed(2)
    torch.rand(7, device=side.device)
    assert (head.predict(fused, None)["ids"] == first["ids"]).all()
    torch.manual_seed(1)
    assert torch.equal(torch.rand(4, device=side.device), drawn)


def image_tower(name: str = "vit_tiny_patch16_224", **options: Any) -> Any:
    torch.manual_seed(0)
    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2}
    given = vit if name.startswith("vit") else {}
    return build_image_encoder(ImageEncoderConfig(name=name, pretrained=False, size=[32, 32], options=given, **options))


def text_tower() -> Any:
    torch.manual_seed(0)
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = TextEncoderConfig(name="bert", pretrained=False, options=SIZES | dropout, max_length=32)
    return build_text_encoder(config, CAPTIONS * 3)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet10t"])
def test_image_tower(side, name):
    """ResNet trains its batch norm in the first step, and its running statistics must be those of the CPU's."""
    tower = image_tower(name)
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        compare(side, tower.train(training), lambda module, x: flat(module(x)), pixels)
    reference, own = tower.train(), side.own(tower)
    with side.at(FP32), torch.no_grad():
        own(pixels.to(side.device))
        reference(pixels)
    for (_, a), (_, b) in zip(own.named_buffers(), reference.named_buffers(), strict=True):
        assert apart(a.float(), b.float()) <= FP32


def test_text_tower(side):
    """Of texts with padding and without, as attention takes another way where nothing is masked."""
    tower = text_tower()
    for words in (CAPTIONS, CAPTIONS[:1] * 3):
        ids, mask = pad_tokens(tower.tokenize(words)[0], 0)
        compare(side, tower, lambda module, x: flat(module(*x)), [ids, mask], (FP32, TF32, BF16))


def batch_of(texts: list[str | None], images: list[int]) -> dict[str, Any]:
    """A packed batch of rows with these texts and numbers of images."""
    generator = np.random.default_rng(0)
    there = [text for text in texts if text]
    found = iter(text_tower().tokenize(there)[0] if there else [])
    ids = [next(found) if text else None for text in texts]
    pixels = [[generator.integers(0, 256, (3, 32, 32), dtype=np.uint8) for _ in range(count)] for count in images]
    return collate([Item(i, str(i), ids[i], pixels[i]) for i in range(len(texts))])


def model_of(fusion: str) -> FusionModel:
    tasks: dict[str, Any] = {kind: {"type": kind, "labels": ["a", "b", "c"]} for kind in list(TARGETS)[:2]}
    torch.manual_seed(4)
    return FusionModel(text_tower(), image_tower(), {"name": fusion, "out_dim": WIDTH}, tasks).eval()


@pytest.mark.parametrize("fusion", ["concat", "cross_attention", "late_probability"])
@pytest.mark.parametrize(
    ("texts", "images"),
    [
        ([CAPTIONS[0], None, CAPTIONS[1], CAPTIONS[2]], [1, 1, 0, 3]),
        (CAPTIONS[:3], [3, 3, 3]),
        (CAPTIONS[:2], [0, 0]),
        ([None, None], [1, 2]),
    ],
    ids=["some missing", "three images a row", "no image at all", "no text at all"],
)
def test_model_with_missing_modalities_and_many_images(side, fusion, texts, images):
    def call(model, batch):
        return torch.cat([logits.flatten() for logits in model(batch).values()])

    compare(side, model_of(fusion), call, batch_of(texts, images))
