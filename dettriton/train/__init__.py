"""Training by recipe: validated recipes, the trainer, checkpoints and traces.

Names load on first use, so that reading a recipe does not import torch.
"""

import importlib

_HOMES = {
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "parse_recipe": "recipe",
    "TrainResult": "trainer",
    "train": "trainer",
    "Scores": "evaluate",
    "score": "evaluate",
    "predict": "evaluate",
    "probabilities": "evaluate",
    "Report": "report",
    "make_report": "report",
    "Trained": "trained",
    "load_run": "trained",
    "Checkpoint": "checkpoint",
    "load_checkpoint": "checkpoint",
    "read_trace": "trace",
    "first_difference": "trace",
}

__all__ = [*_HOMES]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"dettriton.train.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dettriton.train' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOMES])
