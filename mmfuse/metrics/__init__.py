"""Scores of what a model says against what is right, torch-free: by kind of task, with intervals over groups."""
