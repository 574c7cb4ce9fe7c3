"""Segment checkpoints: a training's whole state at regular steps, and a commitment to all of them.

A segment is the stretch of training between two kept states. Whoever has the state at its start can compute the state
at its end again, alone; the Merkle root over the states' digests binds the training to all of them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dettriton import BITSPEC
from dettriton.digest import canonical_json, digest
from dettriton.errors import InputError, IntegrityError
from dettriton.files import atomic_write, load_safetensors
from dettriton.train._commitment import Commitment, is_digest
from dettriton.train._fit import MisfitError
from dettriton.train._run import Run
from dettriton.train.checkpoint import optimizer_state, restore_optimizer
from dettriton.train.trace import Position, Trace, first_link

FOLDER = "segments"
INDEX = "segments.json"
KIND = "dettriton-segment-1"


@dataclass(frozen=True, eq=False)
class State:
    """All that a step depends on besides the recipe and the data.

    Attributes:
        step: how many steps are done.
        link: of the trace's chain after them.
        model: parameters and buffers by name.
        optimizer, optimizer_scalars: as :func:`dettriton.train.checkpoint.optimizer_state` names them.
    """

    step: int
    link: str
    model: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    optimizer_scalars: Mapping[str, int | float]

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors under one set of names: ``model.`` and ``optimizer.`` prefixes."""
        groups = {"model": self.model, "optimizer": self.optimizer}
        return {f"{group}.{name}": t for group, named in groups.items() for name, t in named.items()}

    def metadata(self) -> dict[str, Any]:
        """The rest of the state as JSON data."""
        return {
            "kind": KIND,
            "bitspec": BITSPEC,
            "step": self.step,
            "trace": self.link,
            "optimizer": dict(self.optimizer_scalars),
        }

    def digest(self) -> str:
        """:func:`dettriton.digest.digest` of :meth:`tensors` with :meth:`metadata`: a leaf of the commitment.

        How a run was traced, and when it was stopped or checkpointed, is no part of it.
        """
        return digest(self.tensors(), self.metadata())


def state_of(run: Run, step: int, link: str) -> State:
    """A copy, on the CPU, of where a run stands after ``step`` steps."""
    tensors, scalars = optimizer_state(run.optimizer)
    copied = {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
    return State(step, link, run.state(), copied, scalars)


def replay(run: Run, start: State | None, end: int, after_step: Callable[[int], None] | None = None) -> State:
    """Compute the steps from ``start`` up to ``end`` again.

    Args:
        run: fresh, of the recipe and its data.
        start: None for the recipe's own beginning.
        end: how many steps are to be done in all.
        after_step: called after each step with the number of steps done.

    Raises:
        IntegrityError: the start state does not fit the recipe's model and optimizer.
        NonFiniteError: a NaN or an infinity came up.
    """
    begin, link = 0, first_link(run.recipe.digest(), run.init_digest)
    if start is not None:
        _restore(run, start)
        begin, link = start.step, start.link
    trace = Trace(Position(link, 0), None)
    for step in range(begin, end):
        loss = run.step(step)
        ends_epoch = (step + 1) % run.steps_per_epoch == 0
        trace.append(step, loss, run.tensor_digests() if ends_epoch else None, ends_epoch=ends_epoch)
        if after_step is not None:
            after_step(step + 1)
    return state_of(run, end, trace.link)


def state_path(folder: Path, step: int) -> Path:
    """Where the state after ``step`` steps lies."""
    return folder / f"segment-{step:010d}.safetensors"


def load_state(folder: Path, step: int, leaf: str) -> State:
    """A kept state, its digest checked.

    Args:
        folder: of the segments.
        step: how many steps were done.
        leaf: the digest that was committed to.

    Raises:
        InputError: the file is missing or not a safetensors file.
        IntegrityError: it holds another state.
    """
    path = state_path(folder, step)
    tensors, metadata = load_safetensors(path)
    found = digest(tensors, metadata)
    if found != leaf:
        raise IntegrityError(f"{path} does not hold the state that was committed to: its digest is {found}, not {leaf}")
    if not _is_state(metadata) or metadata["step"] != step:
        raise IntegrityError(f"{path} does not hold the state after {step} steps of bitspec {BITSPEC}")
    model, optimizer = (
        {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        for prefix in ("model.", "optimizer.")
    )
    return State(step, metadata["trace"], model, optimizer, metadata["optimizer"])


@dataclass(frozen=True)
class Index:
    """What ``segments.json`` says: whose segments they are, and the commitment."""

    recipe_digest: str
    init_digest: str
    commitment: Commitment

    def write(self, folder: Path) -> None:
        """Write it into the folder of the segments, atomically."""
        content = {
            "bitspec": BITSPEC,
            "recipe": self.recipe_digest,
            "init": self.init_digest,
            "segments": self.commitment.to_dict(),
        }
        atomic_write(folder / INDEX, canonical_json(content) + b"\n")


def read_index(folder: Path, *, unfinished: bool = False) -> Index:
    """What a folder of segments commits to; its root is compared with its leaves.

    Args:
        folder: ``segments`` of a run's directory.
        unfinished: accept fewer segments than the training will have.

    Raises:
        InputError: there is no index, or it is not one of a finished training.
        IntegrityError: its root is not that of its leaves.
    """
    path = folder / INDEX
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or content.keys() != {"bitspec", "recipe", "init", "segments"}:
            raise InputError("it lacks bitspec, recipe, init or segments")
        if content["bitspec"] != BITSPEC or not (is_digest(content["recipe"]) and is_digest(content["init"])):
            raise InputError(f"it is not of bitspec {BITSPEC}, or its digests are not digests")
        index = Index(content["recipe"], content["init"], Commitment.parse(content["segments"], unfinished=unfinished))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is no index of a finished training's segments: {error}. Train to the end with "
            "`dettriton train RECIPE --out DIR --segments N` and name DIR/segments"
        ) from None
    index.commitment.require_root(f"the segments of {path}")
    return index


def _is_state(metadata: Mapping[str, Any]) -> bool:
    if metadata.keys() != {"kind", "bitspec", "step", "trace", "optimizer"}:
        return False
    scalars = metadata["optimizer"]
    numbers = isinstance(scalars, dict) and all(type(v) in (int, float) for v in scalars.values())
    own = (metadata["kind"], metadata["bitspec"]) == (KIND, BITSPEC)
    return own and type(metadata["step"]) is int and is_digest(metadata["trace"]) and numbers


def _restore(run: Run, start: State) -> None:
    try:
        run.require_state(start.model, start.optimizer, start.optimizer_scalars, start.step)
    except MisfitError as error:
        raise IntegrityError(
            f"the state after {start.step} steps does not fit the recipe's model and optimizer: {error}"
        ) from None
    run.model.load_state_dict(dict(start.model))
    restore_optimizer(run.optimizer, start.optimizer, start.optimizer_scalars)
