"""Evaluation: a model's scores on a split, each with an interval."""

from mmfuse.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
