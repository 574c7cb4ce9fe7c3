"""One run of a study: training, and the figures that are kept of it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dettriton import data, metrics
from dettriton.environment import environment, one_line
from dettriton.errors import NonFiniteError
from dettriton.files import load_safetensors
from dettriton.train._run import make_model
from dettriton.train.evaluate import probabilities
from dettriton.train.recipe import Recipe, parse_recipe
from dettriton.train.trainer import TrainResult, train


@dataclass(frozen=True)
class Task:
    """What a process needs to know to carry out a run.

    Attributes:
        recipe: the tables of the run's recipe.
        folder: the run's directory.
        device, data_dir: as for :func:`dettriton.train.train`.
        threads: that torch may use.
    """

    recipe: dict[str, Any]
    folder: str
    device: str
    data_dir: str | None
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """The task as JSON data."""
        return asdict(self)


def carry_out(task: Task, progress: bool) -> dict[str, Any]:
    """Train, or go on training, and score the test split.

    Returns:
        ``run``, what is the same on every machine (``{"problem": ...}`` if a NaN or an infinity came up, which is as
        reproducible as a result), and ``circumstances``.

    Raises:
        DettritonError: it could not be trained, for a reason outside of the run.
        KeyboardInterrupt: it was stopped, with a checkpoint.
    """
    recipe = parse_recipe(task.recipe)
    seconds = None
    try:
        splits = data.load(recipe.data.name, task.data_dir)
        result = train(recipe, task.folder, task.device, resume=True, progress=progress, splits=splits)
        seconds = round(result.seconds, 1)
        run = _figures(recipe, result, splits["test"], task.device)
    except NonFiniteError as error:
        run = {"problem": str(error)}
    return {
        "run": run,
        "circumstances": {"seconds": seconds, "environment": one_line(environment(), task.device)},
    }


def _figures(recipe: Recipe, result: TrainResult, split: data.Dataset, device: str) -> dict[str, Any]:
    kept = result.to_dict()
    names = ("weights_digest", "init_digest", "recipe_digest", "trace", "steps", "best_epoch", "validation")
    return {name: kept[name] for name in names} | {
        "test": kept["test"] | _more_figures(recipe, result.weights_path, split, device)
    }


def _more_figures(recipe: Recipe, weights: Path, split: data.Dataset, device: str) -> dict[str, Any]:
    """Of the test split: the AUC of each class, None where it has no positive or no negative sample, and macro F1."""
    model = make_model(recipe)
    model.load_state_dict(load_safetensors(weights)[0])
    scores = probabilities(model.to(device), split)
    areas = metrics.class_aucs(scores, split.labels, split.task)
    return {
        "class_auc": [None if area is None else float(area) for area in areas],
        "f1": float(metrics.macro_f1(scores, split.labels, split.task).value),
    }
