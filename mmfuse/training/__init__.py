"""Training: a config in, a run folder with a model folder out."""

from mmfuse.training.run import Run, train

__all__ = ["Run", "train"]
