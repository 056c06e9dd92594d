"""Inference: the one loop, the Predictor, and files that lose nothing."""

from mmfuse.predict.chunks import predict_to_chunks
from mmfuse.predict.files import fingerprint, predict_to_file
from mmfuse.predict.loop import Forward, score_batches, table_features, table_logits
from mmfuse.predict.predictor import Predictor, load_to_predict
from mmfuse.predict.processes import default_workers, join_processes, wait_for_all
from mmfuse.predict.reading import count_cut_texts, pair_reader, prepare_pairs, tell_cut_texts
from mmfuse.predict.studies import (
    FolderStudies,
    SampleStudies,
    ShardStudies,
    Studies,
    TableStudies,
    open_studies,
)
from mmfuse.predict.tables import Reading, TableOptions
from mmfuse.predict.watch import watch_folder

__all__ = [
    "FolderStudies",
    "Forward",
    "Predictor",
    "Reading",
    "SampleStudies",
    "ShardStudies",
    "Studies",
    "TableOptions",
    "TableStudies",
    "count_cut_texts",
    "default_workers",
    "fingerprint",
    "join_processes",
    "load_to_predict",
    "open_studies",
    "pair_reader",
    "predict_to_chunks",
    "predict_to_file",
    "prepare_pairs",
    "score_batches",
    "table_features",
    "table_logits",
    "tell_cut_texts",
    "wait_for_all",
    "watch_folder",
]
