"""The captioning head: its decoders, its loss against the formula, and what it writes."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from mmfuse.config import DecoderConfig, GenerationConfig
from mmfuse.data.batches.collate import pad_tokens
from mmfuse.encoders.vocabularies import train_vocabulary
from mmfuse.heads import build_head, decide_rows
from mmfuse.heads.decoder import build_decoder
from mmfuse.types import MISSING_CLASS, Features, MmfuseError

DIM, ROWS = 6, 3
CAPTIONS = ["No opacity. Left pleural effusion.", "There is a new nodule.", "Cardiomegaly."]
DECODERS = [("gpt2", "cross_attention"), ("bert", "cross_attention"), ("bart", "cross_attention")]
DECODERS += [("gpt2", "prefix"), ("bert", "prefix")]


def tokenizer():
    return train_vocabulary("wordpiece_stripped", CAPTIONS * 3, 200, 24)


def make(name="gpt2", mode="cross_attention", seed=0, options=None, **config) -> Any:
    torch.manual_seed(seed)
    given = DecoderConfig(
        name=name, mode=mode, hidden_dim=32, num_layers=2, num_heads=4, max_length=24, options=options or {}
    )
    decoder = build_decoder(given, tokenizer, None, "tasks.report.decoder")
    return build_head("captioning", DIM, [], {"decoder": decoder, **config}).eval()


def features(seed=0, rows=ROWS, length=7):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(rows, length, DIM, generator=generator)
    mask = torch.ones(rows, length, dtype=torch.bool)
    mask[1, 4:] = False
    mask[2, 2:4] = False  # padding may stand in the middle: text first, image behind it
    pooled = torch.randn(rows, DIM, generator=generator)
    return Features(tokens, mask, pooled, torch.ones(rows, dtype=torch.bool))


def target_of(head, captions=CAPTIONS):
    return pad_tokens([head.decoder.encode(caption) if caption else [] for caption in captions], MISSING_CLASS)[0]


def with_generation(head, **options):
    head.set_generation(replace(head.generation, **options))
    return head


@torch.inference_mode()
def written(head, given=None, **kwargs):
    return head.predict(given or features(), None, **kwargs)


@pytest.mark.parametrize(("name", "mode"), DECODERS)
class TestEveryDecoder:
    def test_padding_is_not_seen(self, name, mode):
        head, one = make(name, mode), features()
        garbage = torch.where(one.mask[..., None], one.tokens, 100.0)
        target = target_of(head)
        torch.testing.assert_close(head(one._replace(tokens=garbage), target), head(one, target))
        longer = Features(
            torch.cat([one.tokens, torch.full((ROWS, 4, DIM), 50.0)], 1),
            torch.cat([one.mask, torch.zeros(ROWS, 4, dtype=torch.bool)], 1),
            one.pooled,
            one.present,
        )
        torch.testing.assert_close(head(longer, target), head(one, target), rtol=1e-4, atol=1e-5)

    def test_fused_tokens_and_pooled_are_read(self, name, mode):
        head, one, other = make(name, mode), features(0), features(1)
        base = head(one, target_of(head))
        for part in ("tokens", "pooled"):
            moved = head(one._replace(**{part: getattr(other, part)}), target_of(head))
            assert (moved - base).abs().max() > 1e-4

    def test_a_word_is_not_seen_before_it_is_said(self, name, mode):
        head = make(name, mode)
        target = target_of(head)
        changed = target.clone()
        changed[0, 5] = (changed[0, 5] + 1) % 40 + 5
        base, moved = head(features(), target)[0], head(features(), changed)[0]
        torch.testing.assert_close(base[:5], moved[:5])
        assert (base[5] - moved[5]).abs().max() > 1e-4

    @pytest.mark.parametrize("beams", [1, 3])
    def test_cached_equals_uncached(self, name, mode, beams):
        head = with_generation(make(name, mode), num_beams=beams)
        cached, uncached = written(head), written(head, use_cache=False)
        assert (cached["ids"] == uncached["ids"]).all()
        np.testing.assert_allclose(cached["log_probabilities"], uncached["log_probabilities"], atol=1e-5)
        np.testing.assert_allclose(cached["score"], uncached["score"], atol=1e-5)

    @pytest.mark.parametrize("beams", [1, 3])
    def test_log_probabilities_are_those_of_teacher_forcing(self, name, mode, beams):
        head = with_generation(make(name, mode), num_beams=beams, length_penalty=0.7)
        for row, said in enumerate(written(head)):
            ids = said["ids"].tolist()
            length = ids.index(head.decoder.eos) + 1 if head.decoder.eos in ids else sum(i != 0 for i in ids)
            target = torch.tensor([[head.decoder.bos, *ids[:length]]])
            one = Features(*(part[row : row + 1] for part in features()))
            with torch.inference_mode():
                logits = head(one, target)[0].log_softmax(-1)
            wanted = logits.gather(1, target[0, 1:, None])[:, 0].numpy()
            np.testing.assert_allclose(said["log_probabilities"][:length], wanted, atol=1e-4)
            assert (said["log_probabilities"][length:] == 0).all()
            assert said["score"] == pytest.approx(wanted.sum() / length**0.7, abs=1e-3)

    def test_a_row_is_written_alike_alone_and_with_others(self, name, mode):
        head = make(name, mode)
        together = written(head)
        for row in range(ROWS):
            alone = written(head, Features(*(part[row : row + 1] for part in features())))
            assert (alone["ids"][0] == together["ids"][row]).all()

    def test_weights_survive_safetensors(self, name, mode):
        head, other = make(name, mode), make(name, mode, seed=1)
        other.load_state_dict(load(save({n: t.contiguous() for n, t in head.state_dict().items()})))
        target = target_of(head)
        assert torch.equal(head(features(), target), other(features(), target))
        assert (written(head)["ids"] == written(other)["ids"]).all()

    @pytest.mark.heavy
    def test_it_learns_to_write_what_it_is_taught(self, name, mode):
        off = {"gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"), "bart": ("dropout",)}
        off["bert"] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
        head = make(name, mode, options=dict.fromkeys(off[name], 0.0)).train()
        target = target_of(head)
        optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
        for _ in range(80):
            optimizer.zero_grad()
            loss = head.loss(head(features(), target), target) / head.count(target)
            loss.backward()
            optimizer.step()
        found = [said["caption"] for said in decide_rows(head, written(head.eval()))]
        assert found == ["no opacity. left pleural effusion.", "there is a new nodule.", "cardiomegaly."]


def test_the_loss_is_the_formula():
    head = make(label_smoothing=0.2)
    target = target_of(head, ["Cardiomegaly.", "", "There is a new nodule."])
    logits = head(features(), target)
    log_p = logits.detach().double().log_softmax(-1).numpy()
    wanted, words = 0.0, 0
    for row, ids in enumerate(target.tolist()):
        for position, id in enumerate(ids[1:]):
            if id != MISSING_CLASS:
                wanted -= 0.8 * log_p[row, position, id] + 0.2 * log_p[row, position].mean()
                words += 1
    assert float(head.loss(logits, target).detach()) == pytest.approx(wanted, rel=1e-5)
    assert float(head.count(target)) == words
    assert not (target[1] != MISSING_CLASS).any()


def test_a_batch_without_any_caption_has_a_finite_loss_of_zero():
    head = make()
    target = torch.full((ROWS, 2), MISSING_CLASS)
    logits = head(features(), target)
    loss = head.loss(logits, target)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


def test_a_record_has_the_likelihood_of_the_right_caption():
    head = make()
    target = target_of(head, ["Cardiomegaly.", "", "There is a new nodule."])
    with torch.inference_mode():
        said = head.predict(features(), target)
        loss = head.loss(head(features(), target), target)
    assert said["target_loss"].sum() == pytest.approx(float(loss), rel=1e-5)
    assert said["target_tokens"].tolist() == [(row[1:] != MISSING_CLASS).sum() for row in target]
    assert (written(head)["target_tokens"] == 0).all()


class TestScheduledSampling:
    def test_only_while_training(self):
        plain, sampled = make(), make(scheduled_sampling=1.0)
        target = target_of(plain)
        assert torch.equal(plain(features(), target), sampled(features(), target))

    def test_the_models_own_words_are_read(self):
        options = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        head = make(scheduled_sampling=1.0, options=options).train()
        target = target_of(head)
        first = make(options=options).train()(features(), target)
        ids = torch.cat([target[:, :1], first.argmax(-1)[:, :-1]], 1)
        own = torch.where(target[:, :-1] == MISSING_CLASS, target[:, :-1], ids)
        own = torch.cat([own, target[:, -1:]], 1)
        wanted = make(options=options).train()(features(), own)
        torch.testing.assert_close(head(features(), target), wanted)


class TestGeneration:
    def test_lengths(self):
        head = with_generation(make(), max_length=5)
        assert ((written(head)["ids"] != head.decoder.pad).sum(1) <= 5).all()
        head = with_generation(make(), min_length=9, max_length=12)
        assert ((written(head)["ids"] != head.decoder.pad).sum(1) >= 9).all()

    def test_a_gpu_is_asked_seldom_whether_all_have_ended_and_the_same_is_written(self, monkeypatch):
        """Words behind the last end are thrown away, and captions that never end are whole."""
        lengths = set()
        for seed in range(6):
            decoder, memory = make(seed=seed).decoder, torch.randn(ROWS, 5, 32)
            decoder.model.lm_head.weight.data[decoder.eos] *= 3
            mask, options = torch.ones(ROWS, 5, dtype=torch.bool), GenerationConfig(max_length=20)
            wanted = decoder.generate(memory, mask, options)
            lengths.add(wanted[0].shape[1])
            with monkeypatch.context() as patched:
                patched.setattr("mmfuse.heads.decoder._asked_every", lambda _: 7)
                found = decoder.generate(memory, mask, options)
            assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        assert len(lengths) > 1, lengths

    def test_bf16_on_a_cpu_is_for_what_is_read_and_not_for_what_is_written(self):
        """The words are those of float32, of a memory in bf16."""
        decoder = make().decoder
        memory, mask = torch.randn(ROWS, 5, 32).bfloat16(), torch.ones(ROWS, 5, dtype=torch.bool)
        options = GenerationConfig(max_length=20)
        with torch.autocast("cpu", torch.bfloat16):
            found = decoder.generate(memory, mask, options)
        wanted = decoder.generate(memory.float(), mask, options)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))

    def test_a_prefix_begins_every_caption_and_counts_no_probability(self):
        head = with_generation(make(), prefix="There is", max_length=8)
        said = written(head)
        assert all(row["caption"].startswith("there is") for row in decide_rows(head, said))
        assert (said["log_probabilities"][:, :2] == 0).all()
        assert (said["log_probabilities"][:, 2] < 0).all()

    def test_no_pair_of_words_twice(self):
        def pairs(head):
            return [list(pairwise(row)) for row in written(head)["ids"].tolist()]

        assert any(len(set(found)) < len(found) for found in pairs(with_generation(make(), max_length=20)))
        blocked = pairs(with_generation(make(), max_length=20, no_repeat_ngram_size=2))
        pad = make().decoder.pad
        for found in blocked:
            kept = [pair for pair in found if pad not in pair]
            assert len(set(kept)) == len(kept)

    def test_sampling_is_repeatable_and_depends_on_the_seed(self):
        head = with_generation(make(), do_sample=True)
        one, same = written(head), written(head)
        other = written(with_generation(head, seed=1))
        assert (one["ids"] == same["ids"]).all()
        assert (one["ids"] != other["ids"]).any()

    def test_more_beams_find_a_caption_at_least_as_likely(self):
        greedy = with_generation(make(), length_penalty=0.0, max_length=6)
        one = written(greedy)["score"]
        beams = written(with_generation(greedy, num_beams=8))["score"]
        assert (beams >= one - 1e-4).all()

    def test_attention_sums_to_one_and_leaves_padding_out(self):
        head = make()
        memory, mask = head.memory(features())
        ids = torch.full((ROWS, 4), head.decoder.bos)
        with torch.inference_mode():
            weights = head.decoder.attention(memory, mask, ids, torch.ones_like(ids, dtype=torch.bool))
        assert weights.shape == (ROWS, 4, 8)
        torch.testing.assert_close(weights.sum(-1), torch.ones(ROWS, 4))
        assert float(weights.transpose(1, 2)[~mask].abs().max()) == 0.0
        assert head.decoder.model.config._attn_implementation != "eager"


def by_bytes(texts):
    given = DecoderConfig(hidden_dim=16, num_layers=1, num_heads=2, max_length=24)
    return build_decoder(given, lambda: train_vocabulary("byte_bpe", texts, 600, 24), None, "decoder")


class TestBytes:
    @pytest.mark.parametrize(("text", "words"), [
        ("Größe im Röntgenbild", ["Größe", "im", "Röntgenbild"]),
        ("우폐에 결절이 있음", ["우폐에", "결절이", "있음"]),
        ("CT 폐 nodule", ["CT", "폐", "nodule"]),
        ("अच्छा है", ["अच्छा", "है"]),
    ])  # fmt: skip
    @pytest.mark.parametrize("learned", [True, False], ids=["whole words", "single bytes"])
    def test_words_are_joined_of_their_bytes(self, text, words, learned):
        decoder = by_bytes([text] * 9 if learned else ["x"])
        ids = decoder.encode(text)[1:] if learned else [*decoder._words(text), decoder.eos]
        found = decoder.words(ids)
        assert [word for word, _ in found] == [*words, "(end)"]
        assert [position for _, positions in found for position in positions] == list(range(len(ids)))
        assert decoder.decode(ids) == text

    def test_where_there_are_no_spaces_a_token_is_a_word(self):
        decoder = by_bytes(["右肺", "可见", "结节"] * 9)
        ids = decoder._words("右肺可见CT结节")
        first, *others = [word for word, _ in decoder.words(ids)]
        assert first == "右肺"
        assert len(others) > 1
        assert "".join(others) == "可见CT结节"

    def test_a_token_is_told_as_the_characters_that_it_is(self):
        decoder = by_bytes(["폐 결절 nodule"] * 9)
        assert [decoder.token(id) for id in decoder._words("폐 결절 nodule")] == ["Ġ폐", "Ġ결절", "Ġnodule"]
        assert [decoder.token(id) for id in decoder._words("é")] == ["Ġ", "Ã", "©"]  # halves of a character
        assert decoder.token(decoder.eos) == "[SEP]"

    def test_a_caption_that_is_cut_within_a_character_is_text(self):
        decoder = by_bytes(["x"])
        assert decoder.decode(decoder._words("폐")[:-1]) == "\ufffd"

    def test_lengths_are_those_before_a_caption_is_cut(self):
        decoder = by_bytes(["x"])
        assert decoder.lengths(["x" * 50, "폐"]) == [53, 6]
        assert len(decoder.encode("x" * 50)) == 24


class TestErrors:
    @pytest.mark.parametrize(
        ("generation", "words"),
        [
            ({"max_length": 25}, "max_length: 25 is more than the 24 tokens"),
            ({"max_length": 3, "prefix": "there is a new nodule"}, "prefix: its 5 tokens leave none"),
            ({"max_length": 8, "min_length": 9}, "min_length: 9 is more than the 8 tokens"),
        ],
    )
    def test_lengths_that_cannot_be(self, generation, words):
        head = make()
        with pytest.raises(MmfuseError, match=words):
            head.set_generation(replace(head.generation, **generation))

    def test_the_longest_caption_that_can_be(self):
        said = written(with_generation(make(), max_length=24, min_length=24))
        assert (said["ids"] != 0).all()

    def test_more_fused_tokens_than_a_prefix_can_hold(self):
        head = make(mode="prefix")
        many = features(length=1001)._replace(mask=torch.ones(ROWS, 1001, dtype=torch.bool))
        with pytest.raises(MmfuseError, match="fused tokens and caption are 1025 together"):
            written(head, many)
        with pytest.raises(MmfuseError, match="the decoder holds 1024"):
            head(features(length=1020)._replace(mask=torch.ones(ROWS, 1020, dtype=torch.bool)), target_of(head))

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"name": "gpt3"}, "legal: gpt2, bert, bart"),
            ({"num_heads": 5}, "does not divide"),
            ({"options": {"n_layers": 2}}, "not an option of a gpt2 model"),
            ({"tokenizer": "encoder"}, "uses no text"),
            ({"embeddings": "encoder"}, "uses no text"),
            ({"name": "bart", "mode": "prefix"}, "cannot read a prefix"),
            ({"name": "/no/such/folder", "pretrained": True}, "cannot be built"),
        ],
    )
    def test_a_decoder_that_cannot_be_built(self, config, words):
        given = DecoderConfig(**{"hidden_dim": 32, "num_layers": 1, "num_heads": 4, "max_length": 24} | config)
        with pytest.raises(MmfuseError, match=words) as caught:
            build_decoder(given, tokenizer, None, "tasks.report.decoder")
        assert "tasks.report.decoder" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_no_attention_in_prefix_mode(self):
        head = make(mode="prefix")
        with pytest.raises(MmfuseError, match="prefix mode"):
            head.decoder.attention(*head.memory(features()), torch.ones(ROWS, 1).long(), torch.ones(ROWS, 1).bool())
