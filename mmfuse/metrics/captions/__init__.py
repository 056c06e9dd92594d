"""Written captions and reports: their tokens, their scores, and two baselines that know no decoder."""

from mmfuse.metrics.captions.baselines import consensus_caption, retrieve_captions
from mmfuse.metrics.captions.languages import begins_unspaced, tell_words, tokens_of
from mmfuse.metrics.captions.scores import (
    CAPTION_METRICS,
    RANGES,
    captioning_replicates,
    compare_captioning,
    meteor_lite,
    rouge_l_rows,
    score_captioning,
    score_captions,
)
from mmfuse.metrics.captions.tokenizer import tokenize_caption

__all__ = [
    "CAPTION_METRICS",
    "RANGES",
    "begins_unspaced",
    "captioning_replicates",
    "compare_captioning",
    "consensus_caption",
    "meteor_lite",
    "retrieve_captions",
    "rouge_l_rows",
    "score_captioning",
    "score_captions",
    "tell_words",
    "tokenize_caption",
    "tokens_of",
]
