"""Text-image fusion: train, predict with and honestly compare joint models of text and images.

Names are loaded when first used, so `import mmfuse` imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mmfuse.api.benchmark import benchmark
    from mmfuse.api.fit import fit
    from mmfuse.api.model import Model
    from mmfuse.config import load_config
    from mmfuse.data.tables.manifest import load_manifest
    from mmfuse.evaluation import evaluate
    from mmfuse.evaluation.compare import compare
    from mmfuse.fusion import FUSIONS
    from mmfuse.heads import HEADS
    from mmfuse.model import FusionModel
    from mmfuse.predict import Predictor
    from mmfuse.testing import check_fusion
    from mmfuse.training import train
    from mmfuse.types import Batch, Features, MmfuseError, Prediction, Sample

_HOME = {
    "FUSIONS": "mmfuse.fusion",
    "HEADS": "mmfuse.heads",
    "Batch": "mmfuse.types",
    "Features": "mmfuse.types",
    "FusionModel": "mmfuse.model",
    "MmfuseError": "mmfuse.types",
    "Model": "mmfuse.api.model",
    "Prediction": "mmfuse.types",
    "Predictor": "mmfuse.predict",
    "Sample": "mmfuse.types",
    "benchmark": "mmfuse.api.benchmark",
    "check_fusion": "mmfuse.testing",
    "compare": "mmfuse.evaluation.compare",
    "evaluate": "mmfuse.evaluation",
    "fit": "mmfuse.api.fit",
    "load_config": "mmfuse.config",
    "load_manifest": "mmfuse.data.tables.manifest",
    "train": "mmfuse.training",
}

__all__ = [
    "FUSIONS",
    "HEADS",
    "Batch",
    "Features",
    "FusionModel",
    "MmfuseError",
    "Model",
    "Prediction",
    "Predictor",
    "Sample",
    "benchmark",
    "check_fusion",
    "compare",
    "evaluate",
    "fit",
    "load_config",
    "load_manifest",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mmfuse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
