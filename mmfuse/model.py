"""FusionModel: encoders, a fusion and heads; and the folder it lives in."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file
from torch import Tensor, nn

import mmfuse
from mmfuse.data.files.read import read_bytes
from mmfuse.data.readers.sections import SECTIONS
from mmfuse.data.tables.inputs import TableInputs
from mmfuse.encoders.bounds import no_larger_than, weights_file
from mmfuse.encoders.image import ImageEncoder
from mmfuse.encoders.saved import check_fit, write_tensors
from mmfuse.encoders.text import TextEncoder
from mmfuse.fusion import FUSIONS, build_fusion
from mmfuse.heads import HEADS, Heads, TaskParameters, build_head
from mmfuse.registry import nearest
from mmfuse.types import Batch, Features, MmfuseError, SelectiveCurve
from mmfuse.untrusted import check_files, check_readable

FORMAT_VERSION = 1
LOG_VARIANCES = "log_variances"
"""Beside the tasks' logits in training, where the weights of their losses are learned."""
_MAX_CONFIG_BYTES = 100 * 2**20
MODALITIES: tuple[str, ...] = ("text", "image")


class FusionModel(
    nn.Module,
    ModelHubMixin,
    library_name="mmfuse",
    tags=["mmfuse", "multimodal", "text-image-fusion"],
    model_card_template="{{ card_data }}\n",
):
    """Encode text and images, fuse them, and let each head say its part.

    Args:
        text_encoder: The text tower, or None where the fusion does not use it.
        image_encoder: The image tower, or None where the fusion does not use it.
        fusion: `{"name": ..., options}` of a registered strategy.
        tasks: By task name, `{"type": head, "labels": [...]}`, options of the head beside them.

    Attributes:
        captioning: The captioning tasks.
        text_sections: Sections of a report (`mmfuse.data.readers.sections`) that are its text; empty: the report is.
        accepts_missing: Modalities that were missing in training, so that a row without them can be predicted.
        inputs: Which columns of a table the inputs were made of, and how; None of models that do not say.
        selective: By label task, what abstaining keeps on validation rows: one curve, or of a multi-label task one a
            label (None where none of its rows is labelled). A task without labelled rows is not in it.
        card: Text of the model folder's README.md, and
        metrics: its scores, both written by `save_pretrained` where they are set.

    Raises:
        MmfuseError: The fusion or a head does not exist, has no such option, or a tower is missing that the fusion
            uses.
    """

    def __init__(
        self,
        text_encoder: TextEncoder | None,
        image_encoder: ImageEncoder | None,
        fusion: Mapping[str, Any],
        tasks: Mapping[str, Mapping[str, Any]],
    ):
        super().__init__()
        self.fusion_config = dict(fusion)
        options = {k: v for k, v in fusion.items() if k != "name"}
        uses: tuple[str, ...] = FUSIONS.get(fusion["name"]).uses  # type: ignore[attr-defined]
        for modality, encoder in (("text", text_encoder), ("image", image_encoder)):
            if modality in uses and encoder is None:
                raise MmfuseError(
                    f"fusion {fusion['name']!r} uses the {modality}, but there is no {modality} (see the manifest)"
                )
        self.text_encoder = text_encoder if "text" in uses else None
        self.image_encoder = image_encoder if "image" in uses else None
        text_dim = self.text_encoder.dim if self.text_encoder else 1
        image_dim = self.image_encoder.dim if self.image_encoder else 1
        self.fusion: Any = build_fusion(fusion["name"], text_dim, image_dim, options)
        self.heads = Heads()
        for task, given in tasks.items():
            head_options = {k: v for k, v in given.items() if k not in ("type", "labels")}
            self.heads[task] = build_head(given["type"], self.fusion.out_dim, given["labels"], head_options)
        self.task_config = {
            task: {"type": given["type"], "labels": list(given["labels"]), **_head_spec(self.heads[task], given)}
            for task, given in tasks.items()
        }
        self.captioning = [task for task, head in self.heads.items() if head.kind == "captioning"]
        self.uses = uses
        self.reads: frozenset[str] = self.fusion.reads.union(*(head.reads for head in self.heads.values()))  # type: ignore[arg-type]
        self.missing_tokens = nn.ParameterDict(
            {
                m: nn.Parameter(0.02 * torch.randn(dim))
                for m, dim in (("text", text_dim), ("image", image_dim))
                if m in uses
            }
        )
        self.log_variances = TaskParameters()
        self.text_sections: list[str] = []
        self.accepts_missing: list[str] = []
        self.inputs: TableInputs | None = None
        self.selective: dict[str, list[SelectiveCurve | None]] = {}
        self.card: str | None = None
        self.metrics: dict[str, Any] | None = None

    def forward(self, batch: Batch, predict: bool = False) -> dict[str, Any]:
        """What the heads say of a packed batch (see `mmfuse.types.Batch`).

        Args:
            batch: With the targets of captioning tasks, except where it is predicted.
            predict: Write captions, instead of giving the likelihood of the right ones.

        Returns:
            By task, logits `(B, L)`; of a captioning task logits `(B, U - 1, vocabulary)`, or with `predict` the
            records `(B,)` of `CaptioningHead.predict`.
        """
        text, image = self.encode(batch)
        found: dict[str, Any] = {}
        fused = None
        if self.captioning or not hasattr(self.fusion, "combine"):  # a decision-level strategy has features too
            fused = self.fusion(text, image)
        if len(self.captioning) < len(self.heads):
            found = self.fuse(text, image, fused)
        for task in self.captioning:
            head: Any = self.heads[task]
            target = batch.get(f"target.{task}")
            found[task] = head.predict(fused, target) if predict else head(fused, target)
        if self.training and self.log_variances:
            found[LOG_VARIANCES] = torch.cat([self.log_variances[task] for task in self.heads])
        return found

    def fuse(self, text: Features | None, image: Features | None, fused: Features | None = None) -> dict[str, Tensor]:
        """Logits by label task, `(B, L)` each, of rows that `encode` made `Features` of; any text may meet any image.

        `fused` is what the fusion gives of them, if that is known already.
        """
        heads = {task: head for task, head in self.heads.items() if task not in self.captioning}
        if hasattr(self.fusion, "combine"):
            branches = self.fusion.branches(text, image)
            return {task: self._combine(head, branches) for task, head in heads.items()}
        fused = self.fusion(text, image) if fused is None else fused
        return {task: head(fused) for task, head in heads.items()}

    def learn_task_weights(self) -> None:
        """Give each task a learned log variance, from 0; they are for training only, and not saved with the model."""
        self.log_variances = TaskParameters({task: nn.Parameter(torch.zeros(1)) for task in self.heads})

    def _combine(self, head: Any, branches: list[Features]) -> Tensor:
        """A decision-level strategy's logits: to `combine`, a label of several is a choice between yes and no."""
        logits = [head(branch) for branch in branches]
        if head.kind != "multilabel":
            return self.fusion.combine(logits)
        pairs = self.fusion.combine([torch.stack([z, torch.zeros_like(z)], dim=-1) for z in logits])
        return pairs[..., 0] - pairs[..., 1]

    def encode(self, batch: Batch) -> tuple[Features | None, Features | None]:
        """Text and image `Features` of every row, the missing token where one is absent; None if it is not used."""
        rows = len(batch["row_ids"])
        text = image = None
        if self.text_encoder is not None:
            packed = batch.get("text_features")
            if packed is None and len(batch["input_ids"]):
                packed = self._only_what_is_read(self.text_encoder(batch["input_ids"], batch["text_mask"]))
            text = self._spread("text", packed, batch["text_row"], rows)
        if self.image_encoder is not None:
            packed = batch.get("image_features")
            if packed is None and len(batch["pixels"]):
                packed = self._only_what_is_read(self.image_encoder(batch["pixels"]))
            image = self._spread("image", packed, batch["image_row"], rows)
        return text, image

    def missing(self, modality: str, rows: int) -> Features:
        """`Features` of rows that all lack a modality: its learned token in each."""
        tokens = self.missing_tokens[modality].expand(rows, 1, -1)
        absent = torch.zeros(rows, dtype=torch.bool, device=tokens.device)
        return Features(tokens, ~absent.unsqueeze(1), tokens[:, 0], absent)

    def _only_what_is_read(self, features: Features) -> Features:
        """Where nobody reads tokens, the pooled vector stands in for them: the fusion then spends nothing on tokens."""
        if "tokens" in self.reads:
            return features
        return Features(features.pooled.unsqueeze(1), features.present.unsqueeze(1), features.pooled, features.present)

    def _spread(self, modality: str, packed: Features | None, row: Tensor, rows: int) -> Features:
        """From packed items to rows: a row's items one behind the other, pooled by their mean, or the missing token."""
        if packed is None:
            return self.missing(modality, rows)
        if not len(row):  # a blank one that no row refers to (mmfuse.training.sharded): in the graph, with nothing
            nothing = packed.tokens[:0].sum() + packed.pooled[:0].sum()
            found = self.missing(modality, rows)
            return found._replace(tokens=found.tokens + nothing, pooled=found.pooled + nothing)
        missing = self.missing_tokens[modality]
        packed = Features(packed.tokens.to(missing.dtype), packed.mask, packed.pooled.to(missing.dtype), packed.present)
        _, length, dim = packed.tokens.shape
        count = torch.zeros(rows, dtype=torch.long, device=row.device).index_add_(0, row, torch.ones_like(row))
        most = max(1, int(count.max()))
        position = _position_in_row(row, count)
        tokens = packed.tokens.new_zeros(rows, most, length, dim)
        mask = packed.mask.new_zeros(rows, most, length)
        tokens = tokens.index_put((row, position), packed.tokens).flatten(1, 2)
        mask = mask.index_put((row, position), packed.mask).flatten(1, 2)
        pooled = packed.pooled.new_zeros(rows, dim).index_add(0, row, packed.pooled)
        present = count > 0
        pooled = torch.where(present[:, None], pooled / count.clamp_min(1)[:, None], missing)
        first = torch.arange(mask.shape[1], device=row.device) == 0
        use_missing = ~present[:, None] & first
        tokens = torch.where(use_missing[:, :, None], missing, tokens)
        return Features(tokens, mask | use_missing, pooled, present)

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes of the towers' and decoders' layers, which Accelerate may shard one by one (its name for them)."""
        towers = [self.text_encoder, self.image_encoder, *(self.heads[task] for task in self.captioning)]
        lists = [
            m for tower in towers if tower for m in tower.modules() if isinstance(m, (nn.ModuleList, nn.Sequential))
        ]
        layers = [layer for each in lists for layer in each if not isinstance(layer, (nn.ModuleList, nn.Sequential))]
        return sorted({type(layer).__name__ for layer in layers if any(True for _ in layer.children())})

    def config(self) -> dict[str, Any]:
        """What `config.json` says: all that is needed to rebuild this model without its weights."""
        return {
            "format_version": FORMAT_VERSION,
            "mmfuse_version": mmfuse.__version__,
            "text_encoder": self.text_encoder.spec() if self.text_encoder else None,
            "image_encoder": self.image_encoder.spec() if self.image_encoder else None,
            "fusion": self.fusion_config,
            "tasks": {
                task: {"type": given["type"], "labels": given["labels"], **_head_spec(self.heads[task], given)}
                for task, given in self.task_config.items()
            },
            "decisions": {
                task: {"temperature": head.temperature, "thresholds": head.thresholds}
                for task, head in self.heads.items()
            },
            "selective": {
                task: [curve and asdict(curve) for curve in curves] for task, curves in self.selective.items()
            },
            "text_sections": self.text_sections,
            "accepts_missing": self.accepts_missing,
            **({"inputs": self.inputs.to_dict()} if self.inputs else {}),  # not a null: a run of before goes on
            "plugins": {
                f"{registry.kind} {name}": registry.origin(name)
                for registry, name in [
                    (FUSIONS, self.fusion_config["name"]),
                    *((HEADS, options["type"]) for options in self.task_config.values()),
                ]
                if registry.origin(name)
            },
        }

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {
            name: tensor.contiguous()
            for name, tensor in self.state_dict().items()
            if not name.startswith(f"{LOG_VARIANCES}.")
        }
        scratch = save_directory / "model.safetensors.tmp"  # the old file may be what this model's weights lie in
        write_tensors(state, scratch)
        scratch.replace(save_directory / "model.safetensors")
        if self.text_encoder is not None:
            self.text_encoder.save_tokenizer(save_directory)
        for task in self.captioning:
            head: Any = self.heads[task]
            head.save_files(save_directory / f"tokenizer_{task}")
        (save_directory / "metrics.json").unlink(missing_ok=True)
        if self.metrics is not None:
            (save_directory / "metrics.json").write_text(json.dumps(self.metrics, indent=2) + "\n", encoding="utf-8")
        card = (
            self.card
            or "---\nlibrary_name: mmfuse\n---\n\n# A text-image fusion model of mmfuse\n\nNo card was written.\n"
        )
        (save_directory / "README.md").write_text(card, encoding="utf-8")
        (save_directory / "config.json").write_text(json.dumps(self.config(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> FusionModel:
        """Load a model folder, or a repository of the Hub.

        Args:
            pretrained_model_name_or_path: A folder that `save_pretrained` wrote, or a Hub id.
            options: Of `huggingface_hub.snapshot_download`: revision, token, cache_dir, local_files_only, ...

        Raises:
            MmfuseError: The folder is incomplete, damaged, newer than this mmfuse, or needs an absent plug-in.
        """
        folder = Path(pretrained_model_name_or_path)
        if not os.path.isdir(folder):  # pathlib's raises where a name is too long
            check_readable(folder)
            if str(pretrained_model_name_or_path).count("/") != 1 or str(pretrained_model_name_or_path).startswith(
                (".", "/")
            ):
                raise MmfuseError(f"{folder}: no such model folder")
            try:
                folder = Path(snapshot_download(str(pretrained_model_name_or_path), **options))
            except (HfHubHTTPError, OSError, ValueError) as error:
                raise MmfuseError(
                    f"{pretrained_model_name_or_path}: no such folder here, and the Hub gives no such model "
                    f"({type(error).__name__})"
                ) from error
        check_files(folder)
        config = _read_config(folder)
        weights = folder / "model.safetensors"
        with weights_file(weights):
            state = load_file(weights)
        try:
            with no_larger_than(weights):
                model = cls._from_config(config, folder, state)
        except MmfuseError as error:
            where = "" if str(folder) in str(error) else f"{folder}/config.json: "
            raise MmfuseError(f"{where}{error}") from error
        except Exception as error:  # whatever timm, transformers or a constructor says of values that are not theirs
            reason = str(error).strip().partition("\n")[0][:160]
            raise MmfuseError(
                f"{folder}/config.json: no model can be built of it ({type(error).__name__}: {reason}): it is damaged, "
                "or the installed timm or transformers does not know this architecture"
            ) from error
        model._load_weights(weights, state)
        return model.eval()

    @classmethod
    def _from_config(cls, config: dict[str, Any], folder: Path, state: dict[str, Tensor]) -> FusionModel:
        for what, origin in config["plugins"].items():
            kind, name = what.split(" ", 1)
            if name not in (FUSIONS if kind == "fusion" else HEADS).names():
                raise MmfuseError(
                    f"{folder}: this model needs the {what!r} from the plug-in {origin!r}: load it with --plugin "
                    f"FILE.py"
                )
        _check_config(config)
        text, image = config["text_encoder"], config["image_encoder"]
        model = cls(
            TextEncoder.from_spec(text, folder, _part(state, "text_encoder.")) if text else None,
            ImageEncoder.from_spec(image, _part(state, "image_encoder.")) if image else None,
            config["fusion"],
            {task: _read_task(given, folder / f"tokenizer_{task}") for task, given in config["tasks"].items()},
        )
        if model.text_encoder is not None:  # what no constructor reads of a damaged config is found here
            _try_text(model.text_encoder)
        for task, decision in config["decisions"].items():
            head: Any = model.heads[task]
            head.temperature = decision["temperature"]
            if decision["thresholds"] is not None:
                head.thresholds = decision["thresholds"]
        model.selective = {  # models of older versions have none, and cannot abstain
            task: [curve and SelectiveCurve(**curve) for curve in curves]
            for task, curves in config.get("selective", {}).items()
        }
        model.text_sections = list(config.get("text_sections", []))  # older models have none
        model.accepts_missing = list(config["accepts_missing"])
        if config.get("inputs") is not None:  # older models have none, and older versions pass it over
            model.inputs = TableInputs.from_dict(config["inputs"], model.uses)
        return model

    def _load_weights(self, path: Path, state: dict[str, Tensor]) -> None:
        """Load what the towers, which stand on these very tensors, do not have yet; and look through all of them."""
        try:
            check_fit(self.state_dict(), state)
        except MmfuseError as error:
            raise MmfuseError(f"{path}: {error}") from error
        spoilt = [n for n, tensor in state.items() if tensor.is_floating_point() and bool(tensor.isnan().any())]
        if spoilt:
            raise MmfuseError(f"{path}: damaged: {spoilt[0]} holds what is not a number (NaN)")
        rest = {n: tensor for n, tensor in state.items() if not n.startswith(("text_encoder.", "image_encoder."))}
        self.load_state_dict(rest, strict=False)


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _head_spec(head: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """A head's options as JSON: as it says them, else as they were given."""
    if hasattr(head, "spec"):
        return head.spec()
    return {name: value for name, value in given.items() if name not in ("type", "labels")}


def _read_task(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A task's options as the head's constructor takes them."""
    cls: Any = HEADS.get(given["type"])
    if not hasattr(cls, "read_options"):
        return given
    spec = {name: value for name, value in given.items() if name not in ("type", "labels")}
    return {"type": given["type"], "labels": given["labels"], **cls.read_options(spec, folder)}


def _position_in_row(row: Tensor, count: Tensor) -> Tensor:
    """Which item of its row each packed item is; items of a row stand one behind the other."""
    start = count.cumsum(0) - count
    return torch.arange(len(row), device=row.device) - start[row]


def _try_text(encoder: TextEncoder) -> None:
    words: Any = encoder.model.get_input_embeddings()  # type: ignore[operator]
    largest = max(encoder.tokenizer.get_vocab().values(), default=0)
    if largest >= words.num_embeddings:
        raise MmfuseError(f"the tokenizer has a token {largest}, the text encoder {words.num_embeddings} of them")
    ids = torch.tensor(encoder.tokenize(["a"])[0])
    with torch.no_grad():
        encoder.eval()(ids, torch.ones_like(ids, dtype=torch.bool))


def _check_config(config: dict[str, Any]) -> None:
    """Refuse values that `FusionModel.config` never writes, and that nobody else would see."""
    if not config["tasks"]:
        raise MmfuseError("tasks: there is none")
    for task, given in config["tasks"].items():
        if set(task) & set("/\\.") or not task.isprintable():  # it is part of a folder's name, and told
            raise MmfuseError(f"tasks: {task[:60]!r} cannot be a task's name")
        labels = given["labels"]
        if not isinstance(labels, list) or not all(map(_is_text, labels)) or len(set(labels)) < len(labels):
            raise MmfuseError(f"tasks.{task}.labels: {labels!r:.100}: names are expected, each once")
    for task, given in config["decisions"].items():
        if task not in config["tasks"]:
            raise MmfuseError(f"decisions.{task}: no such task; {nearest(task, config['tasks'])}")
        temperature, thresholds = given["temperature"], given["thresholds"]
        if not (_is_number(temperature) and temperature > 0):
            raise MmfuseError(f"decisions.{task}.temperature: {temperature!r:.100}: a number above 0 is expected")
        labels = config["tasks"][task]["labels"]
        if thresholds is not None and not (len(thresholds) == len(labels) and all(map(_is_number, thresholds))):
            raise MmfuseError(f"decisions.{task}.thresholds: {thresholds!r:.100}: {len(labels)} numbers are expected")
    accepts = config["accepts_missing"]
    if not isinstance(accepts, list) or set(accepts) - set(MODALITIES):
        raise MmfuseError(f"accepts_missing: {accepts!r:.100}: a list is expected, of {', '.join(MODALITIES)}")
    sections = config.get("text_sections", [])
    if not isinstance(sections, list) or not all(section in SECTIONS for section in sections):
        raise MmfuseError(f"text_sections: {sections!r:.100}: a list is expected, of {', '.join(SECTIONS)}")
    for task, curves in config.get("selective", {}).items():
        if task not in config["tasks"] or not all(curve is None or _is_curve(curve) for curve in curves):
            raise MmfuseError(f"selective.{task}: {curves!r:.100}: curves of a task are expected")


def _is_curve(values: Any) -> bool:
    curve = SelectiveCurve(**values)
    columns = (curve.confidence, curve.coverage, curve.accuracy)
    return len({len(column) for column in columns}) == 1 and all(_is_number(v) for column in columns for v in column)


def _is_text(value: Any) -> bool:
    """Whether it is a text, without halves of UTF-16 pairs, which JSON can hold and no file of predictions."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not os.path.lexists(path):
        raise MmfuseError(f"{folder}: no model folder: config.json is missing")
    check_readable(path)
    try:
        config = json.loads(read_bytes(path, _MAX_CONFIG_BYTES))
    except (ValueError, RecursionError) as error:  # MmfuseError is a ValueError
        raise MmfuseError(f"{path}: damaged: {error}") from error
    version = config.get("format_version") if isinstance(config, dict) else None
    if type(version) is not int or version < 1:
        raise MmfuseError(f"{path}: not a model of mmfuse (it has no format_version)")
    if version > FORMAT_VERSION:
        raise MmfuseError(
            f"{folder}: written by mmfuse {str(config.get('mmfuse_version'))[:20]} in format {str(version)[:20]}; "
            f"this mmfuse {mmfuse.__version__} reads up to {FORMAT_VERSION}: upgrade mmfuse"
        )
    wanted = ("text_encoder", "image_encoder", "fusion", "tasks", "decisions", "accepts_missing", "plugins")
    absent = [name for name in wanted if name not in config]
    if absent:
        raise MmfuseError(f"{path}: damaged: {absent[0]} is missing")
    return config
