"""Models in other runtimes' formats: exported once, verified against torch, and run in its place."""

from mmfuse.deploy.export import export_model
from mmfuse.deploy.kept import load_predictor

__all__ = ["export_model", "load_predictor"]
