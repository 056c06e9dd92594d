"""The text tower gives what transformers gives, whatever stands beside a text in its batch."""

import json
import shutil
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from mmfuse.config import TextEncoderConfig
from mmfuse.data.batches.collate import pad_tokens
from mmfuse.encoders.text import TextEncoder, build_text_encoder
from mmfuse.types import MmfuseError

TEXTS = [
    "heart size is normal",
    "small right pleural effusion",
    "no effusion",
    "left lower lobe nodule, heart enlarged",
] * 3
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ARCHITECTURES = {
    "bert": BERT,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "roberta": BERT,
}


def build(name="bert", texts=TEXTS, **options) -> Any:
    torch.manual_seed(0)
    values = {"options": ARCHITECTURES.get(name, {}), "max_length": 16, "vocab_size": 200, **options}
    return build_text_encoder(TextEncoderConfig(name=name, pretrained=False, **values), texts)


@pytest.fixture(scope="module")
def encoders():
    return {name: build(name).eval() for name in ARCHITECTURES}


def encode(encoder, texts):
    ids, _ = encoder.tokenize(texts)
    with torch.no_grad():
        return encoder(*pad_tokens(ids, encoder.tokenizer.pad_token_id))


def refusal(**options):
    with pytest.raises(MmfuseError) as error:
        build(**options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_features_are_the_librarys_own_output(encoders, monkeypatch, name, pooling):
    encoder = encoders[name]
    monkeypatch.setattr(encoder, "pooling", pooling)
    inputs = encoder.tokenizer(TEXTS[:4], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = encoder.model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state.numpy()
    found, mask = encode(encoder, TEXTS[:4]), inputs["attention_mask"].numpy()
    assert np.array_equal(found.mask, mask.astype(bool))
    np.testing.assert_array_equal(found.tokens, hidden)
    mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
    np.testing.assert_allclose(found.pooled, hidden[:, 0] if pooling == "cls" else mean, rtol=1e-5, atol=1e-6)
    assert found.present.all()
    assert encoder.dim == found.tokens.shape[-1] == 32


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padding_is_invisible(encoders, name):
    encoder = encoders[name]
    alone, ids = encode(encoder, [TEXTS[2]]), encoder.tokenize([TEXTS[2]])[0]
    for other in (TEXTS[3], TEXTS[0]):
        beside = encode(encoder, [other, TEXTS[2]])
        torch.testing.assert_close(beside.pooled[1:], alone.pooled)
        torch.testing.assert_close(beside.tokens[1, : len(ids[0])], alone.tokens[0])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_architecture_is_that_of_the_config_and_has_no_pooler(encoders, name):
    encoder = encoders[name]
    for key, value in ARCHITECTURES[name].items():
        assert getattr(encoder.model.config, key) == value
    assert [n for n, _ in encoder.named_parameters() if "pooler" in n] == []
    vocabulary = encoder.model.get_input_embeddings().weight
    assert len(vocabulary) == len(encoder.tokenizer)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_gets_a_gradient(name):
    encoder = build(name).train()
    encoder(*pad_tokens(encoder.tokenize(TEXTS)[0], 0)).tokens.square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_a_frozen_tower_stays_in_eval_mode_and_gets_no_gradient():
    encoder = build(frozen=True)
    model = torch.nn.Sequential(encoder).train()
    assert model.training
    assert not any(module.training for module in encoder.modules())
    ids, mask = pad_tokens(encoder.tokenize(TEXTS)[0], 0)
    first = encoder(ids, mask)
    assert not first.tokens.requires_grad
    assert torch.equal(first.pooled, encoder(ids, mask).pooled)
    encoder.freeze(False)
    model.train()
    assert all(module.training for module in encoder.modules())
    released = encoder(ids, mask)
    assert released.tokens.requires_grad
    assert not torch.equal(released.pooled, first.pooled)  # dropout is back


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_spec_and_the_tokenizer_rebuild_the_tower(encoders, name, tmp_path):
    encoder = encoders[name]
    encoder.save_tokenizer(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    rebuilt = TextEncoder.from_spec(json.loads(json.dumps(encoder.spec())), tmp_path / "there").eval()
    rebuilt.load_state_dict(encoder.state_dict())
    text = ["Heart size is NORMAL; unseenword!", *TEXTS]
    assert rebuilt.tokenize(text) == encoder.tokenize(text)
    assert (rebuilt.max_length, rebuilt.pooling) == (encoder.max_length, encoder.pooling)
    for a, b in zip(encode(rebuilt, text), encode(encoder, text), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("missing", ["tokenizer", "tokenizer/tokenizer_config.json", "tokenizer/tokenizer.json"])
def test_a_tokenizer_that_is_incomplete_or_damaged_is_refused(encoders, tmp_path, missing):
    encoder = encoders["bert"]
    encoder.save_tokenizer(tmp_path)
    path = tmp_path / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MmfuseError, match=f"{tmp_path}.*(incomplete: {missing}|damaged)"):
        TextEncoder.from_spec(encoder.spec(), tmp_path)


@pytest.mark.parametrize("content", ["{", "{}", ""])
def test_a_damaged_tokenizer_is_refused_in_one_line(encoders, tmp_path, content):
    encoders["bert"].save_tokenizer(tmp_path)
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(content)
    with pytest.raises(MmfuseError, match="tokenizer: damaged: ") as error:
        TextEncoder.from_spec(encoders["bert"].spec(), tmp_path)
    assert "\n" not in str(error.value)


# Tokens.


@settings(deadline=None, max_examples=40)
@given(words=st.lists(st.sampled_from(["heart", "effusion", "no", "zebra", ",", "  "]), max_size=20))
def test_ids_are_the_tokenizers_own_and_only_what_was_cut_is_flagged(encoders, words):
    encoder, text = encoders["bert"], " ".join(words)
    ids, cut = encoder.tokenize([text])
    whole = encoder.tokenizer(text)["input_ids"]
    assert cut == [len(whole) > 16]
    assert ids == [encoder.tokenizer(text, truncation=True, max_length=16)["input_ids"]]
    assert (ids[0][0], ids[0][-1]) == (encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id)


def test_a_text_of_exactly_max_length_is_whole(encoders):
    encoder = encoders["bert"]
    texts = [" ".join(["no"] * n) for n in (13, 14, 15)]
    ids, cut = encoder.tokenize(texts)
    assert ([len(row) for row in ids], cut) == ([15, 16, 16], [False, False, True])
    assert encoder.tokenize([texts[1] + " " * 100_000])[1] == [False]


def test_a_report_of_a_megabyte_costs_nothing_and_is_flagged(encoders):
    encoder, report = encoders["bert"], "small right pleural effusion. " * 35_000
    start = time.process_time()
    ids, cut = encoder.tokenize([report] * 20)
    assert time.process_time() - start < 1
    assert ids == encoder.tokenize([report[:2000]] * 20)[0]
    assert cut == [True] * 20


def test_what_stands_behind_a_long_word_is_not_lost_in_silence(encoders):
    assert encoders["bert"].tokenize(["x" * 10_000 + " effusion", "effusion"])[1] == [True, False]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail"])
@pytest.mark.parametrize("max_length", [8, 9])
def test_what_is_kept_of_a_long_text(encoders, monkeypatch, name, truncation, max_length):
    encoder = encoders[name]
    monkeypatch.setattr(encoder, "truncation", truncation)
    monkeypatch.setattr(encoder, "max_length", max_length)
    text = " ".join(f"{TEXTS[i % 4]}," for i in range(20))
    (first, *whole, last), room = encoder.tokenizer(text)["input_ids"], max_length - 2
    kept = {"head": whole[:room], "tail": whole[-room:], "head_tail": whole[: (room + 1) // 2] + whole[-(room // 2) :]}
    assert encoder.tokenize([text, "no"]) == (
        [[first, *kept[truncation], last], encoder.tokenizer("no")["input_ids"]],
        [True, False],
    )


@pytest.mark.parametrize("truncation", ["tail", "head_tail"])
def test_the_end_of_a_report_of_a_megabyte_is_kept(encoders, monkeypatch, truncation):
    encoder = encoders["bert"]
    monkeypatch.setattr(encoder, "truncation", truncation)
    start = time.process_time()
    ids, cut = encoder.tokenize(["small effusion. " * 60_000 + "heart enlarged", " " * 100_000 + "heart"])
    assert time.process_time() - start < 1
    assert encoder.tokenizer.decode(ids[0]).endswith("heart enlarged [SEP]")
    assert (len(ids[0]), cut) == (16, [True, False])
    assert ids[1] == encoder.tokenizer("heart")["input_ids"]


def test_the_truncation_is_the_configs_and_saved_and_an_older_model_cuts_the_end_off(tmp_path):
    encoder = build(truncation="tail")
    encoder.save_tokenizer(tmp_path)
    spec = encoder.spec()
    assert TextEncoder.from_spec(spec, tmp_path).truncation == "tail"
    del spec["truncation"]
    assert TextEncoder.from_spec(spec, tmp_path).truncation == "head"


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "brt"}, "text_encoder.name: 'brt' cannot be loaded"),
        ({"name": "t5"}, "a t5 model is not a text encoder; BERT, DistilBERT, RoBERTa"),
        ({"name": "clip"}, "a clip model is not a text encoder"),
        ({"name": "vit"}, "a vit model is not a text encoder"),
        ({"name": "/nowhere/bert"}, "text_encoder.name: '/nowhere/bert' cannot be loaded"),
        (
            {"options": {"hiden_size": 32}},
            "text_encoder.options.hiden_size is not an option of a bert model (did you mean 'hidden_size'?)",
        ),
        ({"options": {**BERT, "hidden_size": "wide"}}, "text_encoder.name: 'bert' cannot be loaded ("),
        ({"options": {**BERT, "num_attention_heads": 5}}, "not a multiple of the number of attention heads"),
    ],
)
def test_what_cannot_be_built_is_one_line(options, message):
    assert message in refusal(**options)


def test_a_model_that_is_neither_here_nor_on_the_hub_is_one_line():
    with pytest.raises(MmfuseError, match=r"text_encoder.name: 'nobody/nothing' cannot be loaded") as error:
        build_text_encoder(TextEncoderConfig(name="nobody/nothing"), [])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "offset"), [("bert", 0), ("distilbert", 0), ("roberta", 1), ("mpnet", 2)])
def test_max_length_is_at_most_what_the_positions_hold(name, offset):
    options = {**ARCHITECTURES.get(name, BERT), "max_position_embeddings": 12}
    encoder = build(name, options=options, max_length=12 - offset).eval()
    ids, cut = encoder.tokenize(["no effusion " * 9])
    assert (len(ids[0]), cut) == (12 - offset, [True])
    assert encode(encoder, ["no effusion " * 9]).pooled.isfinite().all()
    message = refusal(name=name, options=options, max_length=13 - offset)
    assert (
        f"text_encoder.max_length: {13 - offset} is more than the {12 - offset} tokens that '{name}' reads" in message
    )


# Folders.


@pytest.fixture
def folder(tmp_path):
    """A small pretrained encoder, as it lies on a disk."""
    encoder = build()
    encoder.model.half().save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_pretrained_folder_is_loaded_with_its_weights_in_single_precision(folder):
    encoder = build_text_encoder(TextEncoderConfig(name=str(folder), max_length=16), iter(()))
    stored = AutoModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32).state_dict()
    assert encoder.model.state_dict().keys() == stored.keys()
    assert all(torch.equal(p, stored[n]) and p.dtype == torch.float32 for n, p in encoder.model.named_parameters())


def test_a_folder_without_pretrained_gives_its_architecture_and_tokenizer(folder):
    config = TextEncoderConfig(name=str(folder), pretrained=False, options={"num_hidden_layers": 1}, max_length=16)
    encoder = build_text_encoder(config, iter(()))
    assert encoder.model.config.num_hidden_layers == 1
    assert encoder.tokenizer.get_vocab() == AutoTokenizer.from_pretrained(folder).get_vocab()


def test_the_real_minilm_gives_the_librarys_own_output(pretrained):
    """Texts of sentence-transformers/all-MiniLM-L6-v2, which pools by the mean over real tokens."""
    folder = pretrained / "minilm"
    encoder = build_text_encoder(TextEncoderConfig(name=str(folder), max_length=64, frozen=True), iter(()))
    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS[:4], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    found = encode(encoder, TEXTS[:4])
    torch.testing.assert_close(found.tokens, hidden)
    torch.testing.assert_close(found.pooled, (hidden * mask).sum(1) / mask.sum(1))
    assert encoder.dim == 384
