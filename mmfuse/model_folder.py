"""The folder a model lives in: what is written there, and what is refused of one before a model is built of it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file
from torch import Tensor, nn

import mmfuse
from mmfuse.data.files.read import read_bytes
from mmfuse.data.tables.inputs import TableInputs
from mmfuse.encoders.bounds import no_larger_than, weights_file
from mmfuse.encoders.saved import check_fit, write_tensors
from mmfuse.encoders.text import TextEncoder
from mmfuse.encoders.towers import TOWERS, tower_from_spec
from mmfuse.fusion import FUSIONS
from mmfuse.heads import HEADS
from mmfuse.metrics.operating import read_point
from mmfuse.precision import Precision
from mmfuse.registry import nearest
from mmfuse.sections import SECTIONS
from mmfuse.tasks import TASKS
from mmfuse.types import MODALITIES, MmfuseError, SelectiveCurve
from mmfuse.untrusted import check_files, check_readable

FORMAT_VERSION = 1
_MAX_CONFIG_BYTES = 100 * 2**20
M = TypeVar("M", bound=nn.Module)


def write_folder(model: Any, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write a model's weights, tokenizers, scores, card and config.

    Args:
        model: A FusionModel.
        state: The weights that are kept.
        folder: It is there; what it holds of an older model is replaced.
    """
    scratch = folder / "model.safetensors.tmp"  # the old file may be what this model's weights lie in
    write_tensors({name: tensor.contiguous() for name, tensor in state.items()}, scratch)
    scratch.replace(folder / "model.safetensors")
    if isinstance(model.text_encoder, TextEncoder):
        model.text_encoder.save_tokenizer(folder)
    for task in model.captioning:
        head: Any = model.heads[task]
        head.save_files(folder / f"tokenizer_{task}")
    (folder / "metrics.json").unlink(missing_ok=True)
    if model.metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(model.metrics, indent=2) + "\n", encoding="utf-8")
    card = (
        model.card
        or "---\nlibrary_name: mmfuse\n---\n\n# A text-image fusion model of mmfuse\n\nNo card was written.\n"
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(model.config(), indent=2) + "\n", encoding="utf-8")


def find_folder(name: str, options: dict[str, Any]) -> Path:
    """The model folder of that name, downloaded where it is a repository of the Hub.

    Args:
        name: A folder or a Hub id.
        options: Of `snapshot_download`.

    Raises:
        MmfuseError: There is none.
    """
    folder = Path(name)
    if not os.path.isdir(folder):  # pathlib's raises where a name is too long
        check_readable(folder)
        if name.count("/") != 1 or name.startswith((".", "/")):
            raise MmfuseError(f"{folder}: no such model folder")
        try:
            folder = Path(snapshot_download(name, **options))
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise MmfuseError(
                f"{name}: no such folder here, and the Hub gives no such model ({type(error).__name__})"
            ) from error
    return folder


def read_folder(folder: Path, build: Callable[..., M]) -> M:
    """The model in a folder, in eval mode.

    Args:
        folder: A model folder; nothing in it is trusted.
        build: Makes the model of its towers, its fusion's options and its tasks (`FusionModel`).

    Raises:
        MmfuseError: The folder is incomplete, damaged, newer than this mmfuse, or needs an absent plug-in.
    """
    check_files(folder)
    config = _read_config(folder)
    weights = folder / "model.safetensors"
    with weights_file(weights):
        state = load_file(weights)
    try:
        with no_larger_than(weights):
            model = _build_model(config, folder, state, build)
    except MmfuseError as error:
        where = "" if str(folder) in str(error) else f"{folder}/config.json: "
        raise MmfuseError(f"{where}{error}") from error
    except Exception as error:  # whatever timm, transformers or a constructor says of values that are not theirs
        reason = str(error).strip().partition("\n")[0][:160]
        raise MmfuseError(
            f"{folder}/config.json: no model can be built of it ({type(error).__name__}: {reason}): it is damaged, "
            "or the installed timm or transformers does not know this architecture"
        ) from error
    _load_weights(model, weights, state)
    return model.eval()


def folder_config(folder: Path) -> dict[str, Any]:
    """What `config.json` of a model folder says; its `fusion` is a mapping with a name, all else is as it was found.

    Raises:
        MmfuseError: It is no model folder, damaged, or newer than this mmfuse.
    """
    check_files(folder)
    config = _read_config(folder)
    fusion = config["fusion"]
    if not isinstance(fusion, dict) or not isinstance(fusion.get("name"), str):
        raise MmfuseError(f"{folder}/config.json: fusion {str(fusion)[:60]!r}: a name with options is expected")
    return config


def _build_model(config: dict[str, Any], folder: Path, state: dict[str, Tensor], build: Callable[..., M]) -> M:
    """The model that `config.json` says, on towers that stand on the tensors of `state`."""
    _check_plugins(config, folder)
    _check_config(config)
    text, image = config["text_encoder"], config["image_encoder"]
    model: Any = build(
        tower_from_spec("text", text, folder, _part(state, "text_encoder.")) if text else None,
        tower_from_spec("image", image, folder, _part(state, "image_encoder.")) if image else None,
        config["fusion"],
        {task: _read_task(given, folder / f"tokenizer_{task}") for task, given in config["tasks"].items()},
    )
    if isinstance(model.text_encoder, TextEncoder):  # what no constructor reads of a damaged config is found here
        _try_text(model.text_encoder)
    for task, decision in config["decisions"].items():
        head: Any = model.heads[task]
        head.task.load_state(decision, f"decisions.{task}")
    model.selective = {  # models of older versions have none, and cannot abstain
        task: [curve and SelectiveCurve(**curve) for curve in curves]
        for task, curves in config.get("selective", {}).items()
    }
    model.operating_points = {
        task: {
            name: read_point(given, *_labels_of(model, task), f"operating_points.{task}.{name}")
            for name, given in points.items()
        }
        for task, points in config.get("operating_points", {}).items()
    }
    model.text_sections = list(config.get("text_sections", []))  # older models have none
    model.accepts_missing = list(config["accepts_missing"])
    if config.get("inputs") is not None:  # older models have none, and older versions pass it over
        model.inputs = TableInputs.from_dict(config["inputs"], model.uses)
    if "precision" in config:
        model.scored_in = Precision.read(config["precision"], "precision")
    return model


def _check_plugins(config: dict[str, Any], folder: Path) -> None:
    """Refuse a model whose fusion or head is a plug-in's that is not loaded."""
    for what, origin in config["plugins"].items():
        kind, name = what.split(" ", 1)
        registry = next((r for r in (FUSIONS, TASKS, TOWERS) if r.kind == kind), HEADS)
        if name not in registry.names():
            raise MmfuseError(
                f"{folder}: this model needs the {what!r} from the plug-in {origin!r}: load it with --plugin FILE.py"
            )


def _load_weights(model: nn.Module, path: Path, state: dict[str, Tensor]) -> None:
    """Load what the towers, which stand on these very tensors, do not have yet; and look through all of them."""
    try:
        check_fit(model.state_dict(), state)
    except MmfuseError as error:
        raise MmfuseError(f"{path}: {error}") from error
    spoilt = [n for n, tensor in state.items() if tensor.is_floating_point() and bool(tensor.isnan().any())]
    if spoilt:
        raise MmfuseError(f"{path}: damaged: {spoilt[0]} contains NaN")
    rest = {n: tensor for n, tensor in state.items() if not n.startswith(("text_encoder.", "image_encoder."))}
    model.load_state_dict(rest, strict=False)


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _read_task(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A task's options as the head's constructor takes them."""
    cls: Any = HEADS.get(given["type"])
    if not hasattr(cls, "read_options"):
        return given
    kept = {name: given[name] for name in ("type", "labels", "options") if name in given}
    return {**kept, **cls.read_options({name: v for name, v in given.items() if name not in kept}, folder)}


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
    for task in config["decisions"]:
        if task not in config["tasks"]:
            raise MmfuseError(f"decisions.{task}: no such task; {nearest(task, config['tasks'])}")
    accepts = config["accepts_missing"]
    if not isinstance(accepts, list) or set(accepts) - set(MODALITIES):
        raise MmfuseError(f"accepts_missing: {accepts!r:.100}: a list is expected, of {', '.join(MODALITIES)}")
    sections = config.get("text_sections", [])
    if not isinstance(sections, list) or not all(section in SECTIONS for section in sections):
        raise MmfuseError(f"text_sections: {sections!r:.100}: a list is expected, of {', '.join(SECTIONS)}")
    for task, curves in config.get("selective", {}).items():
        if task not in config["tasks"] or not all(curve is None or _is_curve(curve) for curve in curves):
            raise MmfuseError(f"selective.{task}: {curves!r:.100}: curves of a task are expected")


def _labels_of(model: Any, task: str) -> tuple[list[str], bool]:
    if task not in model.heads:
        raise MmfuseError(f"operating_points.{task}: no such task; {nearest(task, model.heads)}")
    return model.heads[task].labels, model.heads[task].task.exclusive


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
        meant = folder / "model"
        hint = f" (did you mean {meant}?)" if (meant / "config.json").is_file() else ""
        raise MmfuseError(f"{folder}: no model folder: config.json is missing{hint}")
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
