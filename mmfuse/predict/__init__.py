"""Inference: the one loop, the Predictor, and files that lose nothing."""

from mmfuse.predict.files import fingerprint, predict_to_file
from mmfuse.predict.loop import default_workers, prepare_pairs, table_features, table_logits
from mmfuse.predict.predictor import Predictor
from mmfuse.predict.watch import watch_folder

__all__ = [
    "Predictor",
    "default_workers",
    "fingerprint",
    "predict_to_file",
    "prepare_pairs",
    "table_features",
    "table_logits",
    "watch_folder",
]
