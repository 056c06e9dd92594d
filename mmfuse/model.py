"""FusionModel: encoders, a fusion and heads; the folder it lives in is `model_folder`'s."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

import mmfuse
from mmfuse.data.tables.inputs import TableInputs
from mmfuse.encoders.features import FeatureTower
from mmfuse.encoders.text import TextEncoder
from mmfuse.encoders.towers import TOWERS, Tower, tower_inputs
from mmfuse.fusion import FUSIONS, build_fusion
from mmfuse.heads import HEADS, Heads, build_head
from mmfuse.metrics.operating import OperatingPoint
from mmfuse.model_folder import FORMAT_VERSION, find_folder, read_folder, write_folder
from mmfuse.precision import Precision, computing
from mmfuse.tasks import TASKS
from mmfuse.types import Batch, Features, MmfuseError, Outputs, SelectiveCurve

_OF_THE_TASK = ("type", "labels", "options")


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
        tasks: By task name, `{"type": kind, "labels": [...]}`, `options` of the task's kind, and those of its head
            beside them.

    Attributes:
        captioning: The tasks whose heads generate: captions.
        text_sections: Sections of a report (`mmfuse.sections`) that are its text; empty: the report is.
        accepts_missing: Modalities that were missing in training, so that a row without them can be predicted.
        inputs: Which columns of a table the inputs were made of, and how; None of models that do not say.
        selective: By label task, what abstaining keeps on validation rows: one curve, or of a multi-label task one a
            label (None where none of its rows is labelled). A task without labelled rows is not in it.
        operating_points: By task those that were chosen on validation rows, by name.
        precision: What its parts compute in (`mmfuse.precision.at_precision`); None: what surrounds it says, else fp32.
        scored_in: What the parts computed in when the model's own report was made; None: fp32.
        card: Text of the model folder's README.md, and
        metrics: its scores, both written by `save_pretrained` where they are set.

    Raises:
        MmfuseError: The fusion or a head does not exist, has no such option, or a tower is missing that the fusion
            uses.
    """

    def __init__(
        self,
        text_encoder: Tower | None,
        image_encoder: Tower | None,
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
            head_options = {k: v for k, v in given.items() if k not in _OF_THE_TASK}
            own = (given["labels"], head_options, given.get("options"))
            head = self.heads[task] = build_head(given["type"], self.fusion.out_dim, *own)
            if hasattr(self.fusion, "combine") and not (head.task.has_labels or head.generates):
                raise MmfuseError(
                    f"fusion {fusion['name']!r} combines decisions between labels, and task {task!r} has none"
                )
        self.task_config = {task: _task_spec(self.heads[task], given) for task, given in tasks.items()}
        self.captioning = [task for task, head in self.heads.items() if head.generates]
        self.uses = uses
        self.reads: frozenset[str] = self.fusion.reads.union(*(head.reads for head in self.heads.values()))  # type: ignore[arg-type]
        self.missing_tokens = nn.ParameterDict(
            {
                m: nn.Parameter(0.02 * torch.randn(dim))
                for m, dim in (("text", text_dim), ("image", image_dim))
                if m in uses
            }
        )
        self.text_sections: list[str] = []
        self.accepts_missing: list[str] = []
        self.inputs: TableInputs | None = None
        self.selective: dict[str, list[SelectiveCurve | None]] = {}
        self.operating_points: dict[str, dict[str, OperatingPoint]] = {}
        self.precision: Precision | None = None
        self.scored_in: Precision | None = None
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
        return self.run(batch, predict).logits

    def run(self, batch: Batch, predict: bool = False, keep: Collection[str] = ()) -> Outputs:
        """What `forward` gives, with the features that it comes from.

        Args:
            batch: As in `forward`.
            predict: As in `forward`.
            keep: What is asked for, of "text", "image" and "fused"; a decision-level strategy fuses features for it.
        """
        text, image = self.encode(batch)
        found: dict[str, Any] = {}
        fused = None
        needed = self.captioning or "fused" in keep  # a decision-level strategy has features too
        with self._computing("rest"):
            if needed or not hasattr(self.fusion, "combine"):
                fused = self.fusion(text, image)
            if len(self.captioning) < len(self.heads):
                found = self.fuse(text, image, fused)
            for task in self.captioning:
                head: Any = self.heads[task]
                target = batch.get(f"target.{task}")
                found[task] = head.predict(fused, target) if predict else head(fused, target)
        if self.precision is not None and fused is not None:  # objectives compute with it, outside of autocast
            fused = fused._replace(tokens=fused.tokens.float(), pooled=fused.pooled.float())
        return Outputs(text, image, fused, found)

    def fuse(self, text: Features | None, image: Features | None, fused: Features | None = None) -> dict[str, Tensor]:
        """Logits by label task, `(B, L)` each, of rows that `encode` made `Features` of; any text may meet any image.

        `fused` is what the fusion gives of them, if that is known already.
        """
        heads = {task: head for task, head in self.heads.items() if task not in self.captioning}
        with self._computing("rest"):
            if hasattr(self.fusion, "combine"):
                branches = self.fusion.branches(text, image)
                said: dict[str, Any] = {task: [head(branch) for branch in branches] for task, head in heads.items()}
                if self.precision is not None:  # probabilities near 1 have their logarithm in the last bits
                    said = {task: [logits.float() for logits in own] for task, own in said.items()}
                return {task: head.combine(said[task], self.fusion.combine) for task, head in heads.items()}  # type: ignore[operator]
            fused = self.fusion(text, image) if fused is None else fused
            return {task: head(fused) for task, head in heads.items()}

    def encode(self, batch: Batch) -> tuple[Features | None, Features | None]:
        """Text and image `Features` of every row, the missing token where one is absent; None if it is not used."""
        rows = len(batch["row_ids"])
        text = image = None
        if self.text_encoder is not None:
            packed = self._packed("text", self.text_encoder, batch)
            text = self._spread("text", packed, batch["text_row"], rows, most=1)
        if self.image_encoder is not None:
            packed = self._packed("image", self.image_encoder, batch)
            image = self._spread("image", packed, batch["image_row"], rows, most=batch.get("most_images"))
        return text, image

    def embed(self, batch: Batch, what: str) -> Tensor:
        """Vectors `(B, D)` of the rows: what a tower gives (`what`: "text", "image"), or what heads see ("fused")."""
        text, image = self.encode(batch)
        found = {"text": text, "image": image}.get(what)
        if what == "fused":
            with self._computing("rest"):
                found = self.fusion(text, image)
        if found is None:
            raise MmfuseError(
                f"what: {what!r}: the model has no such features; legal: {', '.join((*self.uses, 'fused'))}"
            )
        return found.pooled

    def _packed(self, modality: str, tower: Tower, batch: Batch) -> Features | None:
        """The cached features of a batch's items, or those that the tower gives; None where it has no item."""
        packed = batch.get(f"{modality}_features")
        inputs = tower_inputs(tower, batch, modality) if packed is None else None
        if inputs is None:
            return packed
        known = {"full": batch.get("text_full", False)} if isinstance(tower, TextEncoder) else {}
        with self._computing(modality):
            return self.only_what_is_read(tower(*inputs, *_shift(batch, modality), **known))

    def _computing(self, part: str) -> AbstractContextManager[Any]:
        return computing(self.precision, part, self.missing_tokens[self.uses[0]].device)

    def missing(self, modality: str, rows: int) -> Features:
        """`Features` of rows that all lack a modality: its learned token in each."""
        tokens = self.missing_tokens[modality].expand(rows, 1, -1)
        absent = torch.zeros(rows, dtype=torch.bool, device=tokens.device)
        return Features(tokens, ~absent.unsqueeze(1), tokens[:, 0], absent)

    def only_what_is_read(self, features: Features) -> Features:
        """Where nobody reads tokens, the pooled vector stands in for them: the fusion then spends nothing on tokens."""
        if "tokens" in self.reads:
            return features
        return Features(features.pooled.unsqueeze(1), features.present.unsqueeze(1), features.pooled, features.present)

    def _spread(self, modality: str, packed: Features | None, row: Tensor, rows: int, most: int | None) -> Features:
        """From packed items to rows: a row's items one behind the other, pooled by their mean, or the missing token.

        `most` is how many the row with the most of them has; None: not known, so that the device is asked.
        """
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
        most = max(1, int(count.max()) if most is None else most)
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
            "tasks": {task: _task_spec(self.heads[task], given) for task, given in self.task_config.items()},
            "decisions": {task: head.task.state() for task, head in self.heads.items()},  # type: ignore[union-attr]
            "selective": {
                task: [curve and asdict(curve) for curve in curves] for task, curves in self.selective.items()
            },
            **({"operating_points": self._points()} if any(self.operating_points.values()) else {}),
            "text_sections": self.text_sections,
            "accepts_missing": self.accepts_missing,
            **({"inputs": self.inputs.to_dict()} if self.inputs else {}),  # not a null: a run of before goes on
            **({"precision": self.scored_in.to_dict()} if self.scored_in else {}),
            "plugins": {
                f"{registry.kind} {name}": registry.origin(name)
                for registry, name in [
                    (FUSIONS, self.fusion_config["name"]),
                    *((TOWERS, t.name) for t in (self.text_encoder, self.image_encoder) if isinstance(t, FeatureTower)),
                    *((HEADS, options["type"]) for options in self.task_config.values()),
                    *((TASKS, options["type"]) for options in self.task_config.values()),
                ]
                if registry.origin(name)
            },
        }

    def _points(self) -> dict[str, dict[str, Any]]:
        return {
            task: {name: asdict(point) for name, point in points.items()}
            for task, points in self.operating_points.items()
            if points
        }

    def _save_pretrained(self, save_directory: Path) -> None:
        write_folder(self, self.state_dict(), save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> FusionModel:
        """Load a model folder, or a repository of the Hub.

        Args:
            pretrained_model_name_or_path: A folder that `save_pretrained` wrote, or a Hub id.
            options: Of `huggingface_hub.snapshot_download`: revision, token, cache_dir, local_files_only, ...

        Raises:
            MmfuseError: The folder is incomplete, damaged, newer than this mmfuse, or needs an absent plug-in.
        """
        return read_folder(find_folder(str(pretrained_model_name_or_path), options), cls)


def _task_spec(head: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """A task and its head as JSON; the head's options as it says them, else as they were given."""
    own = head.spec() if hasattr(head, "spec") else {k: v for k, v in given.items() if k not in _OF_THE_TASK}
    options = {"options": dict(given["options"])} if given.get("options") else {}  # not an empty one: as before
    return {"type": given["type"], "labels": list(given["labels"]), **options, **own}


def _shift(batch: Batch, modality: str) -> list[Tensor]:
    """What a tower is to add to its input, where a batch says so; a tower of before takes no such argument."""
    return [batch[f"{modality}_shift"]] if f"{modality}_shift" in batch else []


def _position_in_row(row: Tensor, count: Tensor) -> Tensor:
    """Which item of its row each packed item is; items of a row stand one behind the other."""
    start = count.cumsum(0) - count
    return torch.arange(len(row), device=row.device) - start[row]
