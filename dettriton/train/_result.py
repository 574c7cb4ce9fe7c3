"""What a finished training leaves: its weights and what they are, in files and in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dettriton import BITSPEC
from dettriton.data import dataset_sha256
from dettriton.digest import canonical_json, digest, file_sha256
from dettriton.files import atomic_write, save_safetensors
from dettriton.train._directory import RESULT, WEIGHTS
from dettriton.train._run import Run
from dettriton.train.checkpoint import EpochScores
from dettriton.train.evaluate import Scores, score


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        weights_digest: :func:`dettriton.digest.digest` of the released weights: the state after the best epoch.
        init_digest: of the model before step 0.
        recipe_digest: of the recipe.
        dataset_sha256: of the data, all splits.
        trace_link: the last link of the trace's chain.
        best_epoch: counted from 0; the highest validation AUC, the earliest among equals.
        validation, test: metrics of the released weights.
        steps: optimizer steps in all.
        weights_path, weights_sha256: the released weights' file.
        seconds: time this process took, loading included.
    """

    weights_digest: str
    init_digest: str
    recipe_digest: str
    dataset_sha256: str
    trace_link: str
    best_epoch: int
    validation: Scores
    test: Scores
    steps: int
    weights_path: Path
    weights_sha256: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """All that is the same on every machine, as JSON data."""
        return {
            "bitspec": BITSPEC,
            "weights_digest": self.weights_digest,
            "weights_sha256": self.weights_sha256,
            "init_digest": self.init_digest,
            "recipe_digest": self.recipe_digest,
            "dataset_sha256": self.dataset_sha256,
            "trace": self.trace_link,
            "steps": self.steps,
            "best_epoch": self.best_epoch,
            "validation": self.validation.to_dict(),
            "test": self.test.to_dict(),
        }


def finish(
    run: Run,
    directory: Path,
    best: EpochScores,
    best_state: Mapping[str, torch.Tensor],
    recipe_digest: str,
    trace_link: str,
    seconds: float,
) -> TrainResult:
    """Write the weights after the best epoch, score them on the test split, and write the result beside them.

    Args:
        run: after its last step; its model is left with the released weights.
        directory: of the run.
        best, best_state: the best epoch and the model's state after it.
        recipe_digest, trace_link: of the recipe and of the whole trace.
        seconds: time this process took.
    """
    run.model.load_state_dict(dict(best_state))
    weights_digest = digest(best_state)
    path = directory / WEIGHTS
    metadata = {
        "bitspec": BITSPEC,
        "recipe": run.recipe.to_dict(),
        "init_digest": run.init_digest,
        "weights_digest": weights_digest,
        "best_epoch": best.epoch,
        **run.splits["train"].metadata(),
    }
    save_safetensors(path, best_state, metadata)
    result = TrainResult(
        weights_digest=weights_digest,
        init_digest=run.init_digest,
        recipe_digest=recipe_digest,
        dataset_sha256=dataset_sha256(run.splits),
        trace_link=trace_link,
        best_epoch=best.epoch,
        validation=Scores(best.auc, best.accuracy),
        test=score(run.model, run.splits["test"]),
        steps=run.total_steps,
        weights_path=path,
        weights_sha256=file_sha256(path),
        seconds=seconds,
    )
    atomic_write(directory / RESULT, canonical_json(result.to_dict()) + b"\n")
    return result
