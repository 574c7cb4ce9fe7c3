"""Training by recipe: validated recipes, the trainer, checkpoints and traces.

Names load on first use, so that reading a recipe does not import torch.
"""

from dettriton._lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
