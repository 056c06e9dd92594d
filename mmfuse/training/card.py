"""The model folder's README.md."""

from __future__ import annotations

from typing import Any

from mmfuse.config import Config
from mmfuse.data.tables.table import Table
from mmfuse.encoders.features import FeatureTower
from mmfuse.encoders.text import TextEncoder
from mmfuse.evaluation.evaluate import format_report
from mmfuse.evaluation.markdown import code, plain, prose
from mmfuse.model import FusionModel
from mmfuse.training.inherit import parent_hash
from mmfuse.training.trained import towers


def model_card(model: FusionModel, table: Table, config: Config, report: dict) -> str:
    """What the model is, what it was trained on, how well it does and what it does not know; Markdown."""
    manifest = table.manifest
    counts = table.counts()
    origins = {task: manifest.tasks[task].label_origin for task in table.labels}
    mined = [task for task, origin in origins.items() if origin == "mined_from_text"]
    lines = [
        "---",
        "library_name: mmfuse",
        "tags: [mmfuse, multimodal, text-image-fusion]",
        "---",
        "",
        f"# {plain(config.name)}",
        "",
        f"A {code(model.fusion_config['name'])} fusion of text and images, trained with mmfuse on "
        f"**{plain(manifest.name)}** (version {plain(manifest.version)}, manifest sha256 `{manifest.sha256[:16]}`).",
        "",
        "## Parts",
        "",
        *(f"- {name.removesuffix('_encoder')}: " + _told(module, own) for name, module, own in towers(model, config)),
        *([f"- of each report, the text is: {', '.join(model.text_sections)}"] if model.text_sections else []),
        *(
            [f"- texts longer than {model.text_encoder.max_length} tokens are cut ({model.text_encoder.truncation})"]
            if isinstance(model.text_encoder, TextEncoder)
            else []
        ),
        f"- fusion: {code(model.fusion_config)}",
        *_begun_from(config.init_from),
        *_precision(model, config),
        *(
            f"- task {code(task)}: {plain(o['type'])}"
            + (f", labels {plain(', '.join(o['labels']))}" if o["labels"] else "")
            for task, o in model.task_config.items()
        ),
        "",
        "## Data",
        "",
        prose(manifest.about) or "The manifest says nothing about it.",
        "",
        f"- licence of the data: {plain(manifest.licence or 'not stated')}",
        f"- rows: {', '.join(f'{name} {n}' for name, n in sorted(counts.items()))}; groups are never in two splits",
        f"- who labelled: {plain(', '.join(f'{task}: {origin}' for task, origin in origins.items()))}",
        "",
        "## Scores",
        "",
        format_report(report, plain),
        "",
        "## Limits",
        "",
        f"- Missing in training, so allowed to be missing: {', '.join(model.accepts_missing) or 'nothing'}.",
        *(
            f"- The labels of {code(task)} were mined from the text: scores with that text are no evidence."
            for task in mined
        ),
        *(["- SYNTHETIC data: nothing here says anything about patients."] if "synthetic" in origins.values() else []),
        "- Scores hold for data like these splits. It is not a medical device.",
        "",
        "## Use",
        "",
        "```\nmmfuse predict THIS_FOLDER FOLDER_OF_PAIRS --out predictions.jsonl\n```",
        "",
    ]
    return "\n".join(lines)


def _told(tower: Any, own: Any) -> str:
    """What a tower is, and whether it was trained."""
    if isinstance(tower, FeatureTower):
        what = f"features of {tower.width} numbers in its place, read by {code(tower.name)}"
        return f"{what}, {_trained(own.first_trained)}" if any(True for _ in tower.parameters()) else what
    how = "pretrained" if own.pretrained else "from random weights"
    adapter = own.adapter["name"] if isinstance(own.adapter, dict) else own.adapter
    adapted = f" by the adapter {code(adapter)}" if adapter is not None else ""
    return f"{code(own.name)}, {_trained(own.first_trained)}{adapted}, {how}"


def _begun_from(parent: str | None) -> list[str]:
    """Which model it was trained on from, if from one."""
    if parent is None:
        return []
    return [f"- begun from the model {code(parent)}, whose weights have sha256 `{parent_hash(parent)}`"]


def _trained(first: int | None) -> str:
    """Whether a tower was trained, by its `first_trained`."""
    if first is None:
        return "frozen"
    return f"frozen until epoch {first} (the first is 0)" if first else "trained"


def _precision(model: FusionModel, config: Config) -> list[str]:
    """In what it was trained, where that was not fp32 alone."""
    asked = config.training.mixed_precision
    if asked == "auto":
        return [f"- trained and scored in: {model.scored_in or 'fp32'}"]
    return [f"- trained in: {asked}, scored in: fp32"] if asked else []
