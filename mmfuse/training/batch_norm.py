"""Batch statistics of the image tower over all processes (`image_encoder.batch_norm: sync`)."""

from __future__ import annotations

from accelerate import Accelerator
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfuse.config import Config
from mmfuse.encoders.image import ImageEncoder
from mmfuse.types import MmfuseError

_KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNormAct2d)
_INSTEAD = "frozen or train is expected"


def is_synchronised(config: Config, processes: int) -> bool:
    """Whether batch statistics go over several processes; one that is frozen for good has none."""
    own = config.image_encoder
    return own.batch_norm == "sync" and processes > 1 and own.first_trained is not None


def check_sync(config: Config, accelerator: Accelerator) -> None:
    """Refuse it where PyTorch cannot.

    Raises:
        MmfuseError: The processes have no GPUs.
    """
    if is_synchronised(config, accelerator.num_processes) and accelerator.device.type != "cuda":
        raise MmfuseError(
            f"image_encoder.batch_norm: sync is for GPUs, and these {accelerator.num_processes} processes have none; "
            f"{_INSTEAD}"
        )


def check_images(config: Config, processes: int, lacking: bool) -> None:
    """Refuse it where a process may have a batch without any image, for which all others would wait for ever.

    Args:
        config: The run's.
        processes: How many train.
        lacking: Whether rows of the training split have no image.

    Raises:
        MmfuseError: There may be such a batch.
    """
    hidden = config.training.modality_dropout.image > 0
    if is_synchronised(config, processes) and (hidden or lacking):
        why = "training.modality_dropout.image hides them" if hidden else "some rows of the training split have none"
        raise MmfuseError(f"image_encoder.batch_norm: sync needs images in every batch, and {why}; {_INSTEAD}")


def synchronise(tower: ImageEncoder) -> None:
    """Let a tower's batch norms take their statistics from all processes; names, weights and features stay.

    The converter is timm's: torch's own leaves out the activation that timm's norms of convolutional networks hold.

    Raises:
        MmfuseError: A norm is of a class of which the converter would lose a part.
    """
    for module in tower.modules():
        if isinstance(module, _BatchNorm) and type(module) not in _KNOWN:
            raise MmfuseError(
                f"image_encoder.batch_norm: sync: {tower.architecture['name']!r} has norms of its own "
                f"({type(module).__name__}); {_INSTEAD}"
            )
    tower.model = convert_sync_batchnorm(tower.model)
