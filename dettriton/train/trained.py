"""A trained model with what its evaluation needs; from a run's directory, digests checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dettriton import BITSPEC
from dettriton.data.signals import Normalisation
from dettriton.digest import digest, file_sha256
from dettriton.errors import InputError, IntegrityError
from dettriton.files import load_safetensors
from dettriton.train._directory import RECIPE, RESULT, WEIGHTS, read_result, read_run_recipe
from dettriton.train._run import make_model
from dettriton.train.recipe import Recipe, parse_recipe


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model.

    Attributes:
        name: of the released model, or of the run's directory.
        model: in evaluation mode, on the CPU.
        recipe: that it was trained by.
        weights_digest: :func:`dettriton.digest.digest` of its parameters and buffers.
        metadata: what the trainer wrote beside the weights.
    """

    name: str
    model: torch.nn.Module
    recipe: Recipe
    weights_digest: str
    metadata: Mapping[str, Any]

    @property
    def normalisation(self) -> Normalisation | None:
        """Of the signals it was trained on, which belongs to the model; None for a model of images."""
        kept = self.metadata.get("normalisation")
        if kept is None:
            return None
        return Normalisation(**{name: torch.tensor(v, dtype=torch.float32) for name, v in kept.items()})


def load_run(directory: str | Path) -> Trained:
    """The model of a finished training.

    Args:
        directory: the ``--out`` directory of ``dettriton train``; ``recipe.json``, ``result.json`` and
            ``weights.safetensors`` of it are read.

    Raises:
        InputError: the directory holds no finished training, or one of another bitspec.
        IntegrityError: recipe or weights do not have the digest of the result.
    """
    directory = Path(directory)
    tables, result = read_run_recipe(directory), read_result(directory)
    recipe = parse_recipe(tables, str(directory / RECIPE))
    if result["bitspec"] != BITSPEC:
        raise InputError(f"the run in {directory} follows bitspec {result['bitspec']}, not {BITSPEC}; train it again")
    if recipe.digest() != result["recipe_digest"]:
        raise IntegrityError(f"the recipe in {directory} is not the one of its {RESULT}; train it again")
    path = directory / WEIGHTS
    tensors, metadata = load_safetensors(path)
    # the file's digest covers the metadata, the tensors' digest is the one that is published
    found = {"weights_digest": digest(tensors), "weights_sha256": file_sha256(path)}
    for name, value in found.items():
        if value != result[name]:
            raise IntegrityError(
                f"{path} is not what its training wrote: its {name} is {value}, {RESULT} says {result[name]}. Train it "
                "again, or fetch the directory again"
            )
    model = make_model(recipe)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            f"the weights in {directory} do not fit {recipe.model.name} of this version: {error}"
        ) from None
    return Trained(directory.resolve().name, model.eval(), recipe, result["weights_digest"], metadata)
