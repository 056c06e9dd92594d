"""Text tower: any transformers encoder, pretrained or built from its config."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from mmfuse.config import TextEncoderConfig
from mmfuse.effect import SAVED_TOWER
from mmfuse.encoders.adapters import keep_to_adapter
from mmfuse.encoders.saved import damaged_tower, read_tower, stand_on, without_parameters
from mmfuse.encoders.vocabularies import train_vocabulary
from mmfuse.types import Features, MmfuseError
from mmfuse.unasked import masks_unasked
from mmfuse.untrusted import architecture_of, check_architecture, config_of, load_tokenizer, reason

_CHARACTERS_PER_TOKEN = 64
"""A text is cut to `max_length` times this before it is tokenised, so that a report of megabytes costs nothing."""

_MOST_TOKENS = 1_000_000
_LEGAL = {"pooling": ("mean", "cls"), "truncation": ("head", "tail", "head_tail")}
"""Of a model folder's text tower."""


class TextEncoder(nn.Module):
    """A transformers encoder with its tokenizer.

    Args:
        model: The encoder, without a pooler.
        tokenizer: Its tokenizer.
        max_length: Tokens a text is cut to, special ones included.
        pooling: "mean" over real tokens, or "cls", the first one.
        truncation: What is kept of a longer text: its "head", its "tail", or "head_tail", half of the tokens from each
            (of an odd number, one more from the head).

    Attributes:
        dim: Width of the features.
        frozen: Whether it stays in eval mode and gets no gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        pooling: str = "mean",
        truncation: str = "head",
    ):
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pooling = pooling
        self.truncation = truncation
        self.dim: int = model.config.hidden_size  # type: ignore[union-attr,assignment]
        self.frozen = False

    def forward(self, input_ids: Tensor, mask: Tensor, shift: Tensor | None = None, full: bool = False) -> Features:
        """Encode texts.

        Args:
            input_ids: `(B, T)` int64.
            mask: `(B, T)` bool, True on real tokens.
            shift: What is added to the word embeddings, of the shape of `zero_shift`.
            full: Whether all tokens are known to be real; a GPU is not asked.

        Returns:
            `tokens` is the last hidden state `(B, T, D)`; `present` is True.
        """
        with (
            torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen),
            self._shifted(shift),
            masks_unasked(mask.device, full),
        ):
            tokens = self.model(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "cls":
            pooled = tokens[:, 0]
        else:
            weight = mask.unsqueeze(-1).to(tokens.dtype)
            pooled = (tokens * weight).sum(1) / weight.sum(1).clamp_min(1.0)
        return Features(tokens, mask, pooled, torch.ones_like(mask[:, 0]))

    def zero_shift(self, input_ids: Tensor) -> Tensor:
        """`(B, T, E)` zeros: what may be added to the word embeddings of these texts."""
        words: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        return torch.zeros(*input_ids.shape, words.embedding_dim, device=input_ids.device)

    @contextmanager
    def _shifted(self, shift: Tensor | None) -> Iterator[None]:
        """Add to what the word embeddings give; by `inputs_embeds`, some architectures count positions otherwise."""
        if shift is None:
            yield
            return
        words: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        hook = words.register_forward_hook(lambda _module, _given, found: found + shift.to(found.dtype))
        try:
            yield
        finally:
            hook.remove()

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Token ids of each text, special tokens included, and whether the text was cut."""
        shorter = [self._shorten(text) for text in texts]
        found: Any = self.tokenizer(
            [text for text, _ in shorter],
            truncation=False,
            return_attention_mask=False,
            return_special_tokens_mask=True,
            verbose=False,
        )
        rows = list(zip(found["input_ids"], found["special_tokens_mask"], strict=True))
        cut = [lost or len(ids) > self.max_length for (_, lost), (ids, _) in zip(shorter, rows, strict=True)]
        return [ids if len(ids) <= self.max_length else self._cut(ids, special) for ids, special in rows], cut

    def _shorten(self, text: str) -> tuple[str, bool]:
        """The characters of a very long text that its tokens come from, and whether more than spaces was lost."""
        limit = self.max_length * _CHARACTERS_PER_TOKEN
        if self.truncation == "head":
            return text[:limit], bool(text[limit:].strip())
        if self.truncation == "tail":
            return text[-limit:], bool(text[:-limit].strip())
        if len(text) <= 2 * limit:
            return text, False
        return f"{text[:limit]} {text[-limit:]}", bool(text[limit:-limit].strip())

    def _cut(self, ids: list[int], special: list[int]) -> list[int]:
        """The `max_length` tokens that are kept: those the tokenizer puts around every text, and some of the text's."""
        before = special.index(0)
        behind = special[::-1].index(0)
        text = ids[before : len(ids) - behind]
        room = self.max_length - before - behind
        tail = {"head": 0, "tail": room, "head_tail": room // 2}[self.truncation]
        return ids[:before] + text[: room - tail] + text[len(text) - tail :] + ids[len(ids) - behind :]

    def freeze(self, frozen: bool) -> None:
        """Freeze or release the weights; frozen, it also stays in eval mode."""
        self.frozen = frozen
        self.requires_grad_(not frozen)
        keep_to_adapter(self)
        self.train(self.training)

    def checkpoint_gradients(self) -> None:
        """Keep only each layer's input while training, and compute its inside again in the backward pass.

        Raises:
            MmfuseError: The architecture cannot.
        """
        checkpoint_layers(self.model, "text_encoder")

    def train(self, mode: bool = True) -> TextEncoder:
        """Training mode, except where it is frozen."""
        return super().train(mode and not self.frozen)

    def spec(self) -> dict[str, Any]:
        """What `from_spec` builds the same architecture from; JSON."""
        config: Any = self.model.config
        options = {"max_length": self.max_length, "pooling": self.pooling, "truncation": self.truncation}
        return {"architecture": architecture_of(config), **options}

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files to `folder/tokenizer`."""
        self.tokenizer.save_pretrained(str(folder / "tokenizer"))

    @classmethod
    def from_spec(cls, spec: dict[str, Any], folder: Path, weights: dict[str, Tensor] | None = None) -> TextEncoder:
        """Rebuild from `spec` and `folder/tokenizer`, on `weights` as they are (see `stand_on`); default: random ones.

        Raises:
            MmfuseError: A value in `spec` is not legal, the tokenizer's files are missing or damaged, or the weights do
                not fit.
        """
        config = config_of(spec["architecture"])
        _check_spec(spec, config)
        tokenizer = load_tokenizer(folder / "tokenizer")
        options = {"max_length": spec["max_length"], "pooling": spec["pooling"]}
        options["truncation"] = spec.get("truncation", "head")  # older models have none
        if weights is None:
            return cls(_from_config(config), tokenizer, **options)
        with without_parameters():
            model = _from_config(config)
        return cls(stand_on(model, weights), tokenizer, **options)


def build_text_encoder(config: TextEncoderConfig, training_texts: Iterable[str]) -> TextEncoder:
    """The text tower a run asks for.

    Args:
        config: The run's.
        training_texts: Only read to train a vocabulary, with `pretrained: false` and a model type as name.

    Raises:
        MmfuseError: There is no such model, it is no encoder, or `max_length` is more than it can read.
    """
    if config.name.startswith(SAVED_TOWER):
        folder, spec, weights = read_tower(config.name, "text_encoder")
        with damaged_tower(config.name, "text_encoder"):
            encoder = TextEncoder.from_spec(spec, folder, weights)
        encoder.freeze(config.frozen)
        return encoder
    try:
        if config.pretrained:
            tokenizer = AutoTokenizer.from_pretrained(config.name, trust_remote_code=False)
            options = _encoder_options(AutoConfig.from_pretrained(config.name, trust_remote_code=False))
            model = AutoModel.from_pretrained(config.name, dtype=torch.float32, trust_remote_code=False, **options)
        elif Path(config.name).is_dir() or "/" in config.name:
            tokenizer = AutoTokenizer.from_pretrained(config.name, trust_remote_code=False)
            options = {**config.options, "trust_remote_code": False}
            model = _from_config(AutoConfig.from_pretrained(config.name, **options))
        else:
            tokenizer = train_vocabulary(config.vocabulary, training_texts, config.vocab_size, config.max_length)
            sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id} | config.options
            _check_options(config)
            model = _from_config(AutoConfig.for_model(config.name, **sizes))
        config_of(architecture_of(model.config))  # type: ignore[arg-type] - or nobody could load the model
    except MmfuseError:
        raise
    except (
        Exception
    ) as error:  # transformers raises whatever the architecture's config, its constructor or the hub does
        raise MmfuseError(
            f"text_encoder.name: {config.name!r} cannot be loaded ({reason(error)}); a "
            "Hub name, a local folder with config.json, or with pretrained: false a model type such as bert is expected"
        ) from error
    limit = _longest(model)
    if limit is not None and config.max_length > limit:
        raise MmfuseError(
            f"text_encoder.max_length: {config.max_length} is more than the {limit} tokens that {config.name!r} reads"
        )
    options = {"pooling": config.pooling, "truncation": config.truncation}
    encoder = TextEncoder(model, tokenizer, max_length=config.max_length, **options)
    encoder.freeze(config.frozen)
    return encoder


def checkpoint_layers(model: Any, where: str) -> None:
    """Gradient checkpointing of a transformers model.

    Raises:
        MmfuseError: Its architecture cannot; the message begins with `where`.
    """
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable  # till 5.22
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise MmfuseError(
            f"training.gradient_checkpointing: {where}: a {model.config.model_type} model cannot; set it to false"
        ) from error


def _check_spec(spec: dict[str, Any], config: PreTrainedConfig) -> None:
    """Refuse what `TextEncoder.spec` never writes."""
    for key, legal in _LEGAL.items():
        if spec.get(key, legal[0]) not in legal:
            raise MmfuseError(f"text {key} {spec[key]!r:.60}: one of {', '.join(legal)} is expected")
    length, limit = spec["max_length"], getattr(config, "max_position_embeddings", None)
    limit = _MOST_TOKENS if limit is None else limit
    if type(length) is not int or not 1 <= length <= limit:
        raise MmfuseError(f"text max_length {length!r:.60}: a number from 1 to {limit} is expected")


def _check_options(config: TextEncoderConfig) -> None:
    """Refuse what is no option of the architecture: transformers would keep it and never read it."""
    default = AutoConfig.for_model(config.name)
    legal = sorted({*default.to_dict(), *default.attribute_map})
    for name in config.options:
        if name not in legal:
            close = difflib.get_close_matches(name, legal, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise MmfuseError(f"text_encoder.options.{name} is not an option of a {config.name} model{hint}")


def _from_config(config: PreTrainedConfig) -> nn.Module:
    return AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False, **_encoder_options(config))


def _encoder_options(config: PreTrainedConfig) -> dict[str, Any]:
    """Leave the pooler out where the class has one: it would never be trained.

    Raises:
        MmfuseError: The model is not an encoder.
    """
    cls: Any = MODEL_MAPPING.get(type(config), nn.Module)
    reads_text = {"input_ids", "attention_mask"} <= set(inspect.signature(cls.forward).parameters)
    if config.is_encoder_decoder or not reads_text or not hasattr(config, "hidden_size"):
        raise MmfuseError(
            f"text_encoder.name: a {config.model_type} model is not a text encoder; BERT, DistilBERT, RoBERTa, ... are"
        )
    check_architecture(type(config), cls)
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(cls.__init__).parameters else {}


def _longest(model: nn.Module) -> int | None:
    """Tokens that fit in the position embeddings; those of RoBERTa's kin begin behind the padding's."""
    for name, module in model.named_modules():
        if name.split(".")[-1] == "position_embeddings" and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return getattr(model.config, "max_position_embeddings", None)
