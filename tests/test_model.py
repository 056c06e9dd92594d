"""Encoders, a fusion and heads in one: what is absent, what is packed, and the folder it lives in."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.data.batches.collate import Item, collate
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import TextEncoder, build_text_encoder
from mmfuse.fusion import FUSIONS
from mmfuse.fusion.concat import ConcatFusion
from mmfuse.model import FusionModel
from mmfuse.precision import BF16, at_precision
from mmfuse.training.objectives.uncertainty import Uncertainty
from mmfuse.types import Features, MmfuseError

BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXTS = ["heart size is normal", "small right pleural effusion", "no effusion"] * 3
TASKS = {"y": {"type": "classification", "labels": ["u", "v"]}, "z": {"type": "multilabel", "labels": ["p", "q", "r"]}}
MODALITIES = ("text", "image")


def towers():
    torch.manual_seed(0)
    text = TextEncoderConfig(name="bert", pretrained=False, options=BERT, vocab_size=200, max_length=12)
    image = ImageEncoderConfig(name="resnet10t", pretrained=False, size=[64, 64])
    return build_text_encoder(text, TEXTS), build_image_encoder(image)


def model_of(name="cross_attention", **options):
    text, image = towers()
    torch.manual_seed(1)
    model = FusionModel(text, image, {"name": name, "out_dim": 16, **options}, TASKS).eval()
    with torch.no_grad():  # so that a token that is put in the place of a modality is seen
        for token in model.missing_tokens.values():
            token.normal_()
        for parameter in model.fusion.parameters():
            if parameter.ndim == 0:  # a gate that training opens from 0
                parameter.fill_(0.5)
    return model


@pytest.fixture(scope="module")
def models():
    return {name: model_of(name) for name in FUSIONS.names()}


# Rows of (text or None, seeds of images): both, one, several, none of the two.
ROWS = [
    ("heart size is normal", [1]),
    (None, [2, 3]),
    ("no effusion", []),
    ("effusion right " * 3, [4, 5, 6]),
    (None, [7]),
]


def items_of(model, rows=ROWS):
    tokenizer, items = towers_tokenizer(model), []
    for i, (text, seeds) in enumerate(rows):
        pixels = [np.random.default_rng(s).integers(0, 255, (3, 64, 64), dtype=np.uint8) for s in seeds]
        items.append(Item(i, f"r{i}", input_ids=tokenizer([text])[0][0] if text else None, pixels=pixels))
    return items


def towers_tokenizer(model):
    return model.text_encoder.tokenize if model.text_encoder else lambda texts: ([[0] for _ in texts], None)


def run(model, rows=ROWS):
    with torch.no_grad():
        return model(collate(items_of(model, rows)))


def alone(model, row):
    """A row's `Features` by modality, computed from its own items one at a time; None where it has none."""
    (item,) = items_of(model, [row])
    found = {}
    with torch.no_grad():
        if item.input_ids is not None:
            ids = torch.tensor([item.input_ids])
            found["text"] = [model.text_encoder(ids, torch.ones_like(ids, dtype=torch.bool))]
        if item.pixels:
            found["image"] = [model.image_encoder(torch.from_numpy(p[None])) for p in item.pixels]
    return found


@pytest.mark.parametrize("name", ["cross_attention", "concat"])
def test_packed_features_are_spread_as_a_loop_over_rows_would(models, name):
    model = models[name]
    with torch.no_grad():
        spread = dict(zip(MODALITIES, model.encode(collate(items_of(model))), strict=True))
    for i, row in enumerate(ROWS):
        own = alone(model, row)
        for modality in MODALITIES:
            features, missing = spread[modality], model.missing_tokens[modality].detach()
            found = features.tokens[i][features.mask[i]]
            assert features.present[i] == (modality in own)
            if modality not in own:
                expected, pooled = missing[None], missing
            else:
                parts = own[modality]
                pooled = torch.stack([p.pooled[0] for p in parts]).mean(0)
                expected = torch.cat([p.tokens[0] if "tokens" in model.reads else p.pooled for p in parts])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(features.pooled[i], pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS.names())
def test_a_rows_logits_do_not_depend_on_its_batch(models, name):
    model = models[name]
    together = run(model)
    backwards = run(model, ROWS[::-1])
    for i, row in enumerate(ROWS):
        for task, logits in run(model, [row]).items():
            torch.testing.assert_close(together[task][i : i + 1], logits, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(backwards[task][len(ROWS) - 1 - i], logits[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS.names())
def test_in_bf16_every_fusion_says_nearly_the_same(models, name):
    """With missing modalities and several images; features that go from part to part are float32."""
    model = models[name]
    exact = run(model)
    with at_precision(model, BF16):
        near, kept = run(model), model.run(collate(items_of(model)), keep=("text", "image", "fused"))
    for task, logits in exact.items():
        apart = (near[task].float() - logits).abs().max()
        assert 0 < apart < 0.03 * logits.abs().max().clamp_min(1.0), (task, apart)
    for features in (kept.text, kept.image, kept.fused):
        assert features is None or features.pooled.dtype == features.tokens.dtype == torch.float32
    if hasattr(model.fusion, "combine"):  # logarithms of probabilities
        assert all(logits.dtype == torch.float32 for logits in near.values())


@pytest.mark.parametrize("name", FUSIONS.names())
def test_the_order_of_a_rows_images_means_nothing(models, name):
    """Of pooled strategies by construction; attention to tokens has no positions either."""
    rows = [("no effusion", [1, 2, 3]), ("no effusion", [3, 1, 2])]
    for logits in run(models[name], rows).values():
        torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-5)
    if "image" in models[name].uses:
        first, other = run(models[name], [("no effusion", [1, 2, 3]), ("no effusion", [1, 2, 4])])["y"]
        assert not torch.allclose(first, other, atol=1e-5)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", FUSIONS.names())
def test_a_missing_modality_is_its_learned_token(name, training):
    model = model_of(name)
    for module in model.fusion.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for module in (model.text_encoder, model.image_encoder):
        if module is not None:
            module.freeze(True)
    model.train(training)
    for modality in model.uses:
        before = run(model)
        with torch.no_grad():
            model.missing_tokens[modality] += torch.randn_like(model.missing_tokens[modality])
        after = run(model)
        for i, (text, images) in enumerate(ROWS):
            absent = not (text if modality == "text" else images)
            for task in TASKS:
                assert torch.allclose(before[task][i], after[task][i], atol=1e-6) != absent


@pytest.mark.parametrize("name", FUSIONS.names())
def test_whoever_is_missing_gets_a_gradient_and_towers_without_input_none(name):
    model = model_of(name).train()
    rows = [("no effusion", [])] * 3  # not one image in the batch
    batch = collate(items_of(model, rows))
    sum(logits.square().sum() for logits in model(batch).values()).backward()
    for modality in model.uses:
        grad = model.missing_tokens[modality].grad
        assert grad is not None
        assert (grad.abs().sum() > 0) == (modality == "image")
    if "image" in model.uses:
        assert all(p.grad is None for p in model.image_encoder.parameters())
    if "text" in model.uses:
        assert all(p.grad is not None for p in model.text_encoder.parameters())


@pytest.mark.parametrize("rows", [[(None, [])], [("no effusion", []), (None, [])], [(None, []), (None, [1])]], ids=str)
@pytest.mark.parametrize("name", FUSIONS.names())
def test_a_batch_may_lack_anything(models, name, rows):
    for task, logits in run(models[name], rows).items():
        assert logits.shape == (len(rows), len(TASKS[task]["labels"]))
        assert logits.isfinite().all()


@pytest.mark.parametrize("name", FUSIONS.names())
def test_a_tower_that_is_not_used_is_not_there(models, name):
    model = models[name]
    assert (model.text_encoder is not None) == ("text" in model.uses)
    assert (model.image_encoder is not None) == ("image" in model.uses)
    assert set(model.missing_tokens) == set(model.uses)


def test_features_from_a_cache_take_the_place_of_the_towers(models):
    model = models["cross_attention"]
    batch, own = collate(items_of(model)), [alone(model, row) for row in ROWS]
    cached = {k: v for k, v in batch.items() if k not in ("input_ids", "text_mask", "pixels")}
    for m in MODALITIES:
        each = [f for found in own for f in found.get(m, [])]
        longest = max(f.tokens.shape[1] for f in each)
        padded = [f._replace(tokens=F.pad(f.tokens, (0, 0, 0, longest - f.tokens.shape[1])),
                             mask=F.pad(f.mask, (0, longest - f.mask.shape[1]))) for f in each]  # fmt: skip
        cached[f"{m}_features"] = Features(*(torch.cat(parts) for parts in zip(*padded, strict=True)))
    with torch.no_grad():
        live, found = model(batch), model(cached)
    for task in TASKS:
        torch.testing.assert_close(found[task], live[task], rtol=1e-4, atol=1e-5)


class Votes(ConcatFusion):
    """A decision-level strategy: each branch votes, and the larger vote counts."""

    __doc__ = ConcatFusion.__doc__

    def branches(self, text, image):
        return [f._replace(tokens=p(f.tokens), pooled=p(f.pooled)) for p, f in ((self.text, text), (self.image, image))]

    def combine(self, branch_logits):
        return torch.stack(branch_logits).amax(0)


@pytest.fixture
def votes(monkeypatch):
    monkeypatch.setitem(FUSIONS._classes, "votes", Votes)


def test_a_decision_level_strategy_combines_the_branches_logits(votes):
    model = model_of("votes")
    with torch.no_grad():
        text, image = model.encode(collate(items_of(model)))
        found = run(model)
        for task, head in model.heads.items():
            each = [
                head(f._replace(pooled=p(f.pooled)))
                for p, f in ((model.fusion.text, text), (model.fusion.image, image))
            ]
            assert torch.equal(found[task], torch.maximum(*each))


def test_late_probability_says_the_mean_of_the_branches_probabilities():
    model = model_of("late_probability")
    with torch.no_grad():
        branches = model.fusion.branches(*model.encode(collate(items_of(model))))
        found = run(model)
        for task, head in model.heads.items():
            activate = torch.sigmoid if not head.task.exclusive else lambda z: z.softmax(-1)
            mean = sum(activate(head(branch)) for branch in branches) / 2
            torch.testing.assert_close(activate(found[task]), mean)


@pytest.mark.parametrize(
    ("fusion", "tasks", "message"),
    [
        ({"name": "gatd"}, TASKS, "unknown fusion 'gatd'; .*did you mean 'gated'"),
        ({"name": "gated", "droput": 0.1}, TASKS, "fusion.droput is not an option of fusion 'gated'"),
        ({"name": "gated", "text_dim": 3}, TASKS, "fusion.text_dim is not an option"),
        ({"name": "gated"}, {"y": {"type": "clasification", "labels": ["u", "v"]}}, "unknown head 'clasification'"),
        ({"name": "gated"}, {"y": {"type": "multilabel", "labels": ["u"], "x": 1}}, "head.x is not an option"),
    ],
)
def test_what_cannot_be_built_says_why(fusion, tasks, message):
    text, image = towers()
    with pytest.raises(MmfuseError, match=message):
        FusionModel(text, image, fusion, tasks)


@pytest.mark.parametrize("absent", MODALITIES)
def test_a_strategy_needs_the_towers_it_uses(absent):
    given = dict(zip(MODALITIES, towers(), strict=True)) | {absent: None}
    with pytest.raises(MmfuseError, match=f"fusion 'gated' uses the {absent}, but there is no {absent}"):
        FusionModel(given["text"], given["image"], {"name": "gated"}, TASKS)
    other = "image_only" if absent == "text" else "text_only"
    assert FusionModel(given["text"], given["image"], {"name": other}, TASKS).uses == (MODALITIES[absent == "text"],)


# The folder.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder, moved since it was written, and the model."""
    model = model_of()
    model.heads["y"].temperature, model.heads["z"].temperature = 1.7, 0.9
    model.heads["z"].thresholds = [0.2, 0.5, 0.7]
    model.accepts_missing = ["image"]
    model.metrics = {"rows": 3}
    model.card = "---\nlibrary_name: mmfuse\n---\n\n# A card\n"
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder / "here")
    shutil.move(folder / "here", folder / "there")
    return folder / "there", model


@pytest.mark.parametrize("name", FUSIONS.names())
def test_a_moved_folder_gives_the_same_bits(models, tmp_path, name):
    model = models[name]
    model.save_pretrained(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    torch.manual_seed(99)
    loaded = FusionModel.from_pretrained(tmp_path / "there")
    assert not any(module.training for module in loaded.modules())
    assert loaded.config() == model.config()
    for task, logits in run(model).items():
        assert torch.equal(run(loaded)[task], logits)


def test_a_folder_keeps_decisions_card_and_metrics_and_nothing_else(saved):
    folder, model = saved
    loaded = FusionModel.from_pretrained(str(folder))
    assert {t: (h.temperature, h.thresholds, h.labels) for t, h in loaded.heads.items()} == {
        "y": (1.7, None, ["u", "v"]),
        "z": (0.9, [0.2, 0.5, 0.7], ["p", "q", "r"]),
    }
    assert loaded.accepts_missing == ["image"]
    assert json.loads((folder / "metrics.json").read_text()) == {"rows": 3}
    assert (folder / "README.md").read_text() == model.card
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {name for name in files if not name.startswith("tokenizer/")} == {
        *("config.json", "model.safetensors", "metrics.json", "README.md"),
    }
    assert str(folder.parent) not in (folder / "config.json").read_text()


def test_a_model_saved_over_another_takes_its_place(saved, tmp_path):
    folder = shutil.copytree(saved[0], tmp_path / "model")
    model = model_of("image_only")
    model.save_pretrained(folder)
    assert FusionModel.from_pretrained(folder).uses == ("image",)
    assert not (folder / "metrics.json").exists()  # they were the other's
    assert (folder / "README.md").read_text() != saved[1].card


def refusal(folder):
    with pytest.raises(MmfuseError) as error:
        FusionModel.from_pretrained(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


def rewrite(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_tensor(folder):
    state = load_file(folder / "model.safetensors")
    del state["fusion.pool.weight"]
    save_file(state, folder / "model.safetensors")


def add_tensor(folder):
    save_file(load_file(folder / "model.safetensors") | {"extra": torch.zeros(1)}, folder / "model.safetensors")


def reshape_tensor(folder):
    state = load_file(folder / "model.safetensors")
    save_file(state | {"fusion.pool.bias": torch.zeros(3)}, folder / "model.safetensors")


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


REFUSED = {
    "no config.json": (lambda f: (f / "config.json").unlink(), "no model folder: config.json is missing"),
    "config.json is cut": (lambda f: (f / "config.json").write_text('{"format_version"'), "config.json: damaged: "),
    "config.json is not text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "config.json: damaged: "),
    "another library's": (lambda f: (f / "config.json").write_text("{}"), "not a model of mmfuse"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "not a model of mmfuse"),
    "newer": (
        lambda f: rewrite(f, format_version=99, mmfuse_version="9.9"),
        "written by mmfuse 9.9 in format 99; this mmfuse .* reads up to 1: upgrade mmfuse",
    ),
    "part of the config is missing": (
        lambda f: (f / "config.json").write_text('{"format_version": 1, "text_encoder": null}'),
        "config.json: damaged: image_encoder is missing",
    ),
    "a task without a type": (
        lambda f: rewrite(f, tasks={"y": {}}),
        "config.json: no model can be built of it .KeyError",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "incomplete: model.safetensors is missing"),
    "weights are cut": (truncate, "model.safetensors: damaged: "),
    "weights are empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors: damaged: "),
    "weights are a pickle": (lambda f: torch.save({}, f / "model.safetensors"), "model.safetensors: damaged: "),
    "a tensor is missing": (drop_tensor, r"does not fit config.json: fusion.pool.weight \(1 tensor"),
    "a tensor too many": (add_tensor, r"does not fit config.json: extra \(1 tensor"),
    "a tensor of another shape": (reshape_tensor, r"does not fit config.json: fusion.pool.bias \(1 tensor"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "incomplete: tokenizer is missing"),
    "half a tokenizer": (
        lambda f: (f / "tokenizer" / "tokenizer_config.json").unlink(),
        "incomplete: tokenizer/tokenizer_config.json is missing",
    ),
    "a damaged tokenizer": (lambda f: (f / "tokenizer" / "tokenizer.json").write_text("{}"), "tokenizer: damaged: "),
    "an unknown architecture": (
        lambda f: rewrite(f, text_encoder={"architecture": {"model_type": "brt"}, "max_length": 8, "pooling": "mean"}),
        "config.json: model_type 'brt': transformers has no such architecture",
    ),
}


@pytest.mark.parametrize(("damage", "message"), REFUSED.values(), ids=REFUSED)
def test_a_folder_that_is_incomplete_damaged_or_newer_is_refused_in_one_line(saved, tmp_path, damage, message):
    folder = shutil.copytree(saved[0], tmp_path / "model")
    damage(folder)
    assert re.search(message, refusal(folder))


def test_tasks_called_like_torchs_methods_are_trained_and_saved(tmp_path):
    tasks = dict.fromkeys(("type", "values", "half"), TASKS["y"])
    model = FusionModel(*towers(), {"name": "concat", "out_dim": 16}, tasks)
    weights = Uncertainty(model)
    assert {name for name, _ in weights.named_parameters()} == {f"log_variances.{task}" for task in tasks}
    items = items_of(model, ROWS[:2])
    assert set(model.train()(collate(items))) == set(tasks)
    model.eval().save_pretrained(tmp_path)
    loaded = FusionModel.from_pretrained(tmp_path)
    for task, logits in model(collate(items)).items():
        assert loaded(collate(items))[task].equal(logits)


def test_an_absent_plugin_is_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Votes, "__module__", "mmfuse_plugin_votes_of_mine")
        patch.setitem(FUSIONS._classes, "votes", Votes)
        model = model_of("votes")
        model.save_pretrained(tmp_path)
        assert torch.equal(run(FusionModel.from_pretrained(tmp_path))["y"], run(model)["y"])
    message = refusal(tmp_path)
    assert (
        "this model needs the 'fusion votes' from the plug-in 'votes_of_mine': load it with --plugin FILE.py" in message
    )


@pytest.mark.parametrize("name", ["nowhere", "./nowhere/model", "/nowhere", "nobody/nothing"])
def test_a_model_that_is_nowhere_is_one_line(name):
    with pytest.raises(MmfuseError, match="no such") as error:
        FusionModel.from_pretrained(name)
    assert "\n" not in str(error.value)


def test_features_of_a_row_without_tokens_are_never_all_padding(models):
    with torch.no_grad():
        for features in models["cross_attention"].encode(
            collate(items_of(models["cross_attention"], [*ROWS, (None, [])]))
        ):
            assert isinstance(features, Features)
            assert features.mask.any(1).all()


def test_push_to_hub_uploads_the_model_folder(saved, monkeypatch):
    """huggingface_hub's mixin saves the folder as `save_pretrained` does and uploads that."""
    from huggingface_hub import hub_mixin

    uploaded = {}

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, **_):
            return type("Repo", (), {"repo_id": repo_id})()

        def upload_folder(self, *, repo_id, folder_path, **_):
            uploaded[repo_id] = {path.name: path.is_file() for path in folder_path.iterdir()}
            return "url"

    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    assert FusionModel.from_pretrained(saved[0]).push_to_hub("me/model") == "url"
    assert set(uploaded["me/model"]) >= {"config.json", "model.safetensors", "README.md", "tokenizer"}


def test_a_saved_models_towers_can_be_taken_as_they_are(models, tmp_path):
    model = models["cross_attention"]
    model.save_pretrained(tmp_path / "model")
    text = build_text_encoder(TextEncoderConfig(name=f"mmfuse-model:{tmp_path}/model", frozen=True), [])
    image = build_image_encoder(ImageEncoderConfig(name=f"mmfuse-model:{tmp_path}/model", frozen=True))
    assert text.frozen
    assert image.frozen
    assert (text.spec(), image.spec()) == (model.text_encoder.spec(), model.image_encoder.spec())
    other = FusionModel(text, image, model.fusion_config, TASKS).eval()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.text_encoder.state_dict(), text.state_dict())
    for task, logits in run(other).items():
        torch.testing.assert_close(logits, run(model)[task])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "is not a complete model folder"),
        ("text", "has no image encoder"),
        ("half", "is not a complete model folder"),
    ],
)
def test_a_folder_without_the_tower_is_one_line(models, tmp_path, name, message):
    models["text_only"].save_pretrained(tmp_path / "text")
    shutil.copytree(tmp_path / "text", tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(MmfuseError, match=message) as error:
        build_image_encoder(ImageEncoderConfig(name=f"mmfuse-model:{tmp_path}/{name}"))
    assert "\n" not in str(error.value)


def test_towers_stand_on_the_files_tensors_and_draw_nothing(models, tmp_path):
    model = models["concat"]
    weights = {name: tensor.clone() for name, tensor in model.text_encoder.state_dict().items()}
    model.text_encoder.save_tokenizer(tmp_path)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    text = TextEncoder.from_spec(model.text_encoder.spec(), tmp_path, weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert {n: p.data_ptr() for n, p in text.named_parameters()} == {n: t.data_ptr() for n, t in weights.items()}
    assert all(p.requires_grad for p in text.parameters())


def test_a_model_is_saved_over_the_file_that_its_weights_lie_in(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "model")
    loaded = FusionModel.from_pretrained(tmp_path / "model")
    wanted = run(loaded)
    with torch.no_grad():
        for parameter in loaded.parameters():  # a change of the weights is none of the file
            parameter.mul_(2)
    assert_same(run(FusionModel.from_pretrained(tmp_path / "model")), wanted)
    changed = run(loaded)
    loaded.save_pretrained(tmp_path / "model")
    assert_same(run(loaded), changed)
    assert_same(run(FusionModel.from_pretrained(tmp_path / "model")), changed)


def test_weights_in_half_precision_are_read_as_the_numbers_they_are(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    half = {n: t.bfloat16() if t.is_floating_point() else t for n, t in weights.items()}
    save_file(half, tmp_path / "half.safetensors")  # `weights` lie in the other file
    (tmp_path / "half.safetensors").replace(tmp_path / "model" / "model.safetensors")
    loaded = FusionModel.from_pretrained(tmp_path / "model").state_dict()
    assert all(
        torch.equal(loaded[n], t.to(torch.bfloat16).to(t.dtype)) for n, t in weights.items() if t.is_floating_point()
    )


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[task], wanted[task]) for task in wanted)
