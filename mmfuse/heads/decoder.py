"""The caption decoder: a transformers causal language model that reads fused tokens, and its tokenizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers import GenerationConfig as TransformersGeneration
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from mmfuse.config import DecoderConfig, GenerationConfig
from mmfuse.metrics.captions.languages import begins_unspaced
from mmfuse.types import MmfuseError
from mmfuse.unasked import masks_unasked
from mmfuse.untrusted import architecture_of, check_architecture, config_of, load_tokenizer, reason

if TYPE_CHECKING:
    from mmfuse.encoders.text import TextEncoder

_SIZES = {
    "gpt2": ("n_embd", "n_layer", "n_head", "n_inner", "n_positions"),
    "bert": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings"),
    "bart": ("d_model", "decoder_layers", "decoder_attention_heads", "decoder_ffn_dim", "max_position_embeddings"),
}
"""By architecture that is built from random weights: what it calls width, layers, heads, inner width, positions."""

_MOST_TOKENS = 1_000_000
PREFIX_POSITIONS = 1024
"""Positions of a decoder that is built for the prefix mode: fused tokens and caption together."""


def _asked_every(device: torch.device) -> int:
    """After how many tokens it is asked whether any row goes on: a GPU writes some too many, and does not wait."""
    return 1 if device.type == "cpu" else 16


class CaptionDecoder(nn.Module):
    """A causal language model that reads a memory, by cross-attention or as a prefix.

    Args:
        model: A transformers causal language model; with `mode` "cross_attention" one that has cross-attention.
        tokenizer: What its captions are made of.
        mode: "cross_attention", or "prefix": the memory stands before the caption.
        max_length: Tokens a caption is cut to, the first and the last special one included.

    Attributes:
        dim: Width of the memory it reads.
        bos, eos, pad: Ids of the tokens that begin and end a caption, and that fill up behind it.
        positions: Most tokens it can hold, in prefix mode those of the memory among them; None: any number.
        byte_level: Whether a token that begins a word is marked (GPT-2's), not one that goes on with it (BERT's).
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, mode: str, max_length: int):
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer
        self.mode = mode
        self.max_length = max_length
        self.dim: int = model.get_input_embeddings().embedding_dim  # type: ignore[operator]
        self.bos, self.eos, self.pad = _special_tokens(tokenizer)
        self.positions: int | None = getattr(model.config, "max_position_embeddings", None)
        self.byte_level = any(token.startswith("Ġ") for token in tokenizer.get_vocab())
        # transformers fills what we leave out from the model's own defaults: BART's would force a last token
        self.model.generation_config = TransformersGeneration(
            bos_token_id=self.bos, eos_token_id=self.eos, pad_token_id=self.pad
        )
        self.model.config.pad_token_id = None  # or it warns of rows that have ended and wait for the others
        tied = getattr(model, "_tied_weights_keys", None) or {}
        self._tied = {a: b for a, b in tied.items() if _same(model, a, b)}
        self.register_state_dict_post_hook(_leave_out_tied)
        self.register_load_state_dict_pre_hook(_put_back_tied)

    def forward(self, memory: Tensor, mask: Tensor, input_ids: Tensor, input_mask: Tensor) -> Tensor:
        """Logits of the token behind each one.

        Args:
            memory: `(B, S, dim)`.
            mask: `(B, S)` bool, True on real ones; at least one a row.
            input_ids: `(B, U)` int64, the first one `bos`.
            input_mask: `(B, U)` bool.

        Returns:
            `(B, U, vocabulary)`.
        """
        if self.mode == "cross_attention":
            with masks_unasked(memory.device, full=False):
                return self.model(
                    input_ids=input_ids,
                    attention_mask=input_mask.long(),
                    encoder_hidden_states=memory,
                    encoder_attention_mask=mask.long(),
                    use_cache=False,
                ).logits
        self._check_prefix(memory.shape[1] + input_ids.shape[1])
        both = torch.cat([mask, input_mask], dim=1).long()
        embedded = torch.cat([memory, self.model.get_input_embeddings()(input_ids)], dim=1)
        positions = (both.cumsum(1) - 1).clamp_min(0)
        with masks_unasked(memory.device, full=False):
            found = self.model(inputs_embeds=embedded, attention_mask=both, position_ids=positions, use_cache=False)
        return found.logits[:, memory.shape[1] :]

    def attention(self, memory: Tensor, mask: Tensor, input_ids: Tensor, input_mask: Tensor) -> Tensor:
        """The weights of the cross-attention to the memory, the mean over layers and heads: `(B, U, S)`.

        Raises:
            MmfuseError: The decoder reads the memory as a prefix.
        """
        if self.mode != "cross_attention":
            raise MmfuseError("a decoder in prefix mode has no cross-attention to show")
        was = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")  # the fused kernels give no weights
        try:
            found = self.model(
                input_ids=input_ids,
                attention_mask=input_mask.long(),
                encoder_hidden_states=memory,
                encoder_attention_mask=mask.long(),
                output_attentions=True,
                use_cache=False,
            )
        finally:
            self.model.set_attn_implementation(was)
        return torch.stack(list(found.cross_attentions)).mean(dim=(0, 2))

    @torch.no_grad()
    def generate(
        self, memory: Tensor, mask: Tensor, options: GenerationConfig, *, use_cache: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Write a caption for each row; finished rows wait for the others.

        Keys and values of the memory are computed once, those of the caption are kept.

        Args:
            memory: `(B, S, dim)`.
            mask: `(B, S)` bool.
            options: How.
            use_cache: False computes everything anew at every token: slow, for tests.

        Returns:
            ids: `(B, U)` int64, what follows `bos`; `eos` ends a caption, `pad` fills up.
            log_probabilities: `(B, U)` of each token, 0 behind the end.
            score: `(B,)`: their sum over the length to the power of `length_penalty`.
        """
        if memory.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):  # word by word bf16 is no faster there, and other words are said
                return self.generate(memory.float(), mask, options, use_cache=use_cache)
        prompt = torch.tensor([[self.bos, *self._words(options.prefix)]], device=memory.device)
        prompt = prompt.expand(len(memory), -1)
        given: dict[str, Any] = {}
        if self.mode == "cross_attention":
            given["encoder_hidden_states"] = memory
            if not mask.all():  # without a mask, attention takes a faster way
                given["encoder_attention_mask"] = mask.long()
            if use_cache:
                config = self.model.config
                given["past_key_values"] = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        if self.mode == "cross_attention" and use_cache and _is_plain_greedy(options):
            ids, scores = self._greedy(prompt, given, options)
        else:
            ids, scores = self._search(memory, mask, prompt, given, options, use_cache)
        written = ((ids == self.eos).cumsum(1) - (ids == self.eos).long()) == 0  # up to and with the first end
        scores = torch.where(written, scores, 0.0)
        total = scores.sum(1) / written.sum(1).clamp_min(1) ** options.length_penalty
        prefix = prompt[:, 1:]
        return torch.cat([prefix, torch.where(written, ids, self.pad)], 1), _behind(scores, prefix), total

    def _greedy(self, prompt: Tensor, given: dict[str, Any], options: GenerationConfig) -> tuple[Tensor, Tensor]:
        """What `_search` finds by taking the likeliest token each time; a fifth faster for the bookkeeping left out."""
        ids, scores, going = [], [], []
        every = _asked_every(prompt.device)
        token, alive = prompt, torch.ones(len(prompt), dtype=torch.bool, device=prompt.device)
        for step in range(self._longest(options) - (prompt.shape[1] - 1)):
            going.append(alive)
            logits = self.model(input_ids=token, use_cache=True, **given).logits[:, -1].float()
            if step < options.min_length:
                logits[:, self.eos] = -torch.inf
            best, token = logits.max(dim=1, keepdim=True)
            scores.append(best.squeeze(1) - logits.logsumexp(dim=1))
            ids.append(torch.where(alive, token.squeeze(1), self.pad))
            alive = alive & (token.squeeze(1) != self.eos)
            if (step + 1) % every == 0 and not alive.any():
                break
        written = len(ids) if every == 1 else int(torch.stack(going).any(dim=1).sum())
        return torch.stack(ids[:written], dim=1), torch.stack(scores[:written], dim=1)

    def _search(
        self,
        memory: Tensor,
        mask: Tensor,
        prompt: Tensor,
        given: dict[str, Any],
        options: GenerationConfig,
        use_cache: bool,
    ) -> tuple[Tensor, Tensor]:
        """Ids and log probabilities behind `prompt`, by transformers' `generate`."""
        given |= {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
        if self.mode == "prefix":
            self._check_prefix(memory.shape[1] + self._longest(options))
            given["inputs_embeds"] = torch.cat([memory, self.model.get_input_embeddings()(prompt)], dim=1)
            given["attention_mask"] = torch.cat([mask.long(), given["attention_mask"]], dim=1)
        watch = _TokenScores(prompt.shape[1]) if options.num_beams == 1 else None
        generation = self._generation(options, prompt.shape[1], use_cache, keep_scores=watch is None)
        with _random_state(options, memory.device):
            found = self.model.generate(
                **given, generation_config=generation, logits_processor=LogitsProcessorList([watch] if watch else [])
            )
        if watch is not None:
            scores = watch.finish(found.sequences)
        else:
            scores = self.model.compute_transition_scores(found.sequences, found.scores, found.beam_indices)
        return found.sequences[:, prompt.shape[1] :], scores

    def check_lengths(self, options: GenerationConfig) -> None:
        """Refuse captions that are longer than the decoder's positions, or shorter than they must be.

        Raises:
            MmfuseError: `max_length`, `min_length` or `prefix` is not legal; the message says what is.
        """
        longest, given = self._longest(options), len(self._words(options.prefix))
        if self.positions is not None and longest > self.positions:
            raise MmfuseError(
                f"generation.max_length: {longest} is more than the {self.positions} tokens that the decoder can hold"
            )
        if given >= longest:
            raise MmfuseError(f"generation.prefix: its {given} tokens leave none of max_length {longest} to be written")
        if options.min_length > longest - given:
            raise MmfuseError(
                f"generation.min_length: {options.min_length} is more than the {longest - given} tokens that "
                "max_length leaves"
            )

    def _longest(self, options: GenerationConfig) -> int:
        """Most tokens of a caption, without the first special one."""
        return options.max_length or self.max_length - 1

    def _check_prefix(self, length: int) -> None:
        if self.positions is not None and length > self.positions:
            raise MmfuseError(
                f"decoder.mode: prefix: fused tokens and caption are {length} together, and the decoder holds "
                f"{self.positions}: take cross_attention, or a strategy with fewer tokens, such as perceiver"
            )

    def _generation(self, options: GenerationConfig, prompt: int, cache: bool, keep_scores: bool) -> Any:
        longest = self._longest(options) - (prompt - 1)
        given: dict[str, Any] = {}
        if options.do_sample:
            given |= {"temperature": options.temperature, "top_p": options.top_p, "top_k": 0}
        if options.num_beams > 1:
            given |= {"length_penalty": options.length_penalty, "early_stopping": False}
        return TransformersGeneration(
            max_new_tokens=longest,
            min_new_tokens=options.min_length or None,
            num_beams=options.num_beams,
            do_sample=options.do_sample,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            repetition_penalty=options.repetition_penalty,
            bos_token_id=self.bos,
            eos_token_id=self.eos,
            pad_token_id=self.pad,
            use_cache=cache,
            output_scores=keep_scores,
            return_dict_in_generate=True,
            **given,
        )

    def encode(self, caption: str) -> list[int]:
        """Token ids of a caption, the first and the last special one included, at most `max_length`."""
        return [self.bos, *self._words(caption)[: self.max_length - 2], self.eos]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, up to the first end."""
        kept: list[int] = []
        for token in ids:
            if token == self.eos:
                break
            if token not in (self.pad, self.bos):
                kept.append(int(token))
        return str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip()

    def token(self, id: int) -> str:
        """One token as it is written in the vocabulary; of bytes that are whole characters, these."""
        found = str(self.tokenizer.convert_ids_to_tokens(int(id)))
        start = "Ġ" if self.byte_level and found.startswith("Ġ") else ""
        try:
            return start + _bytes_of(found.removeprefix(start)).decode() if self.byte_level else found
        except (KeyError, UnicodeDecodeError):
            return found

    def words(self, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
        """The words of a caption with the positions of their tokens; the end is a word of its own.

        In scripts without spaces every token that begins with a letter is one.
        """
        found: list[tuple[str, list[int]]] = []
        pieces = [str(self.tokenizer.convert_ids_to_tokens(int(id))) for id in ids]
        for position, (id, piece) in enumerate(zip(ids, pieces, strict=True)):
            if id == self.eos:
                found.append(("(end)", [position]))
            elif found and self._goes_on(piece, "".join(pieces[position : position + 4])):
                found[-1] = (found[-1][0] + piece.removeprefix("##"), [*found[-1][1], position])
            else:
                found.append((piece, [position]))
        return [(self._shown(word), positions) for word, positions in found]

    def _goes_on(self, piece: str, ahead: str) -> bool:
        """Whether a token goes on with the word before it; `ahead` has all bytes of its first character."""
        if not self.byte_level:
            return piece.startswith("##")
        return not piece.startswith("Ġ") and not begins_unspaced(self._shown(ahead))

    def _shown(self, piece: str) -> str:
        try:
            return _bytes_of(piece).decode(errors="replace").removeprefix(" ") if self.byte_level else piece
        except KeyError:  # a token of no bytes
            return piece

    def lengths(self, captions: Iterable[str]) -> list[int]:
        """Tokens of each caption, the first and the last special one included, before any is cut."""
        return [len(self._words(caption)) + 2 for caption in captions]

    def _words(self, text: str) -> list[int]:
        found: Any = self.tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return list(found["input_ids"])

    def spec(self) -> dict[str, Any]:
        """What `from_spec` builds the same architecture from; JSON."""
        return {"architecture": architecture_of(self.model.config), "mode": self.mode, "max_length": self.max_length}

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files to `folder`."""
        self.tokenizer.save_pretrained(str(folder))

    @classmethod
    def from_spec(cls, spec: dict[str, Any], folder: Path) -> CaptionDecoder:
        """Rebuild, with random weights, from `spec` and the tokenizer in `folder`.

        Raises:
            MmfuseError: A value in `spec` is not legal, or the tokenizer's files are missing or damaged.
        """
        config = config_of(spec["architecture"])
        length = spec["max_length"]
        if spec["mode"] not in ("cross_attention", "prefix"):
            raise MmfuseError(f"decoder mode {spec['mode']!r:.60}: cross_attention or prefix is expected")
        if type(length) is not int or not 2 <= length <= _MOST_TOKENS:
            raise MmfuseError(f"decoder max_length {length!r:.60}: a number from 2 to {_MOST_TOKENS} is expected")
        tokenizer = load_tokenizer(folder)
        return cls(_causal_model(config), tokenizer, mode=spec["mode"], max_length=spec["max_length"])


def build_decoder(
    config: DecoderConfig,
    train_tokenizer: Callable[[], PreTrainedTokenizerBase],
    text_encoder: TextEncoder | None,
    where: str,
) -> CaptionDecoder:
    """The decoder a run asks for.

    Args:
        config: The task's.
        train_tokenizer: Gives a vocabulary of the training captions, where the config asks for its own.
        text_encoder: Lends its tokenizer and its embeddings, where the config says so.
        where: The config key, for errors.

    Raises:
        MmfuseError: It cannot be built: no such model, sizes that do not fit, or no text encoder to take from.
    """
    if "encoder" in (config.tokenizer, config.embeddings) and text_encoder is None:
        raise MmfuseError(f"{where}: tokenizer or embeddings are the text encoder's, but the fusion uses no text")
    if config.embeddings == "encoder" and (config.tokenizer != "encoder" or config.pretrained):
        raise MmfuseError(f"{where}.embeddings: encoder requires tokenizer: encoder and pretrained: false")
    if config.pretrained and config.tokenizer == "encoder":
        raise MmfuseError(f"{where}.tokenizer: a pretrained decoder has its own")
    try:
        if config.pretrained:
            tokenizer = AutoTokenizer.from_pretrained(config.name, trust_remote_code=False)
            model = _pretrained_model(config)
        else:
            if config.tokenizer == "encoder":
                assert text_encoder is not None
                tokenizer = text_encoder.tokenizer
            else:
                tokenizer = train_tokenizer()
            model = _new_model(config, tokenizer, where)
        config_of(architecture_of(model.config))  # or nobody could load the model
    except MmfuseError:
        raise
    except Exception as error:  # transformers raises whatever the architecture's config, its constructor or the hub do
        raise MmfuseError(f"{where}: {config.name!r} cannot be built ({reason(error)})") from error
    decoder = CaptionDecoder(model, tokenizer, mode=config.mode, max_length=config.max_length)
    if decoder.positions is not None and config.max_length > decoder.positions:
        raise MmfuseError(
            f"{where}.max_length: {config.max_length} is more than the {decoder.positions} tokens of {config.name!r}"
        )
    if config.mode == "prefix" and not _takes_positions(model):
        raise MmfuseError(f"{where}.mode: a {model.config.model_type} decoder cannot read a prefix; gpt2 and bert can")
    if config.embeddings == "encoder":
        assert text_encoder is not None
        source: Any = text_encoder.model.get_input_embeddings()  # type: ignore[operator]
        if source.embedding_dim != decoder.dim:
            raise MmfuseError(
                f"{where}.hidden_dim: {decoder.dim}, but the text encoder's embeddings are {source.embedding_dim} wide"
            )
        with torch.no_grad():
            decoder.model.get_input_embeddings().weight.copy_(source.weight)
    return decoder


def _new_model(config: DecoderConfig, tokenizer: PreTrainedTokenizerBase, where: str) -> Any:
    if config.name not in _SIZES:
        raise MmfuseError(f"{where}.name: {config.name!r} cannot be built anew; legal: {', '.join(_SIZES)}")
    if config.hidden_dim % config.num_heads:
        raise MmfuseError(f"{where}.num_heads: {config.num_heads} does not divide hidden_dim {config.hidden_dim}")
    positions = PREFIX_POSITIONS if config.mode == "prefix" else max(config.max_length, 8)
    sizes = (config.hidden_dim, config.num_layers, config.num_heads, 4 * config.hidden_dim, positions)
    bos, eos, pad = _special_tokens(tokenizer)
    given = {"vocab_size": len(tokenizer), "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    given |= dict(zip(_SIZES[config.name], sizes, strict=True))
    given |= {"is_decoder": True, "add_cross_attention": config.mode == "cross_attention"}
    default = AutoConfig.for_model(config.name)
    legal = {*default.to_dict(), *default.attribute_map}
    for name in config.options:
        if name not in legal:
            raise MmfuseError(f"{where}.options.{name} is not an option of a {config.name} model")
    return _causal_model(AutoConfig.for_model(config.name, **(given | config.options)))


def _causal_model(config: Any) -> Any:
    check_architecture(type(config), MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _pretrained_model(config: DecoderConfig) -> Any:
    found = AutoConfig.from_pretrained(config.name, trust_remote_code=False)
    check_architecture(type(found), MODEL_FOR_CAUSAL_LM_MAPPING.get(type(found), None))
    found.is_decoder = True
    found.add_cross_attention = config.mode == "cross_attention"
    return AutoModelForCausalLM.from_pretrained(config.name, config=found, dtype=torch.float32, trust_remote_code=False)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int, int]:
    """Ids of the first and the last token of a caption and of the padding."""

    def first(*names: Any) -> int:
        found = next((id for id in names if id is not None), None)
        if found is None:
            raise MmfuseError("the decoder's tokenizer has no token that begins or ends a text")
        return int(found)

    bos = first(tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id)
    eos = first(tokenizer.eos_token_id, tokenizer.sep_token_id)
    return bos, eos, first(tokenizer.pad_token_id, eos)


def _takes_positions(model: Any) -> bool:
    return {"position_ids", "inputs_embeds"} <= set(inspect.signature(model.forward).parameters)


@lru_cache
def _byte_of() -> dict[str, int]:
    """What stands for each byte in a byte-level vocabulary: itself where it can be printed, the others from U+0100."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _bytes_of(piece: str) -> bytes:
    return bytes(_byte_of()[character] for character in piece)


def _is_plain_greedy(options: GenerationConfig) -> bool:
    changes = options.num_beams > 1 or options.do_sample or options.no_repeat_ngram_size > 0
    return not changes and options.repetition_penalty == 1


@contextmanager
def _random_state(options: GenerationConfig, device: torch.device) -> Iterator[None]:
    """Sampling draws from its own seed and leaves the random state as it was; nothing else draws."""
    if not options.do_sample:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(options.seed)
        yield


def _behind(scores: Tensor, prefix: Tensor) -> Tensor:
    """Log probabilities of a whole caption: what was given, and not said, has 0."""
    return torch.cat([torch.zeros(prefix.shape, dtype=scores.dtype, device=scores.device), scores], dim=1)


class _TokenScores(LogitsProcessor):
    """Log probabilities of the tokens that were chosen, without keeping the vocabulary's of every step.

    Args:
        prompt: Tokens that were given.
    """

    def __init__(self, prompt: int):
        self.prompt = prompt
        self._last: Tensor | None = None
        self._found: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._take(input_ids)
        self._last = scores
        return scores

    def finish(self, sequences: Tensor) -> Tensor:
        """`(B, U)` of the tokens behind the prompt."""
        self._take(sequences)
        return torch.stack(self._found, dim=1)

    def _take(self, input_ids: Tensor) -> None:
        if self._last is not None:
            chosen = self._last.gather(1, input_ids[:, -1:]).squeeze(1)
            self._found.append((chosen - self._last.logsumexp(1)).float())


def _same(model: nn.Module, one: str, other: str) -> bool:
    parameters = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    return one in parameters and other in parameters and parameters[one] is parameters[other]


def _leave_out_tied(module: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """A tensor that is another one's second name is saved once: safetensors refuses shared memory."""
    for name in module._tied:
        state.pop(f"{prefix}model.{name}", None)


def _put_back_tied(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, source in module._tied.items():
        if f"{prefix}model.{source}" in state:
            state[f"{prefix}model.{name}"] = state[f"{prefix}model.{source}"]
