"""What a training recorded, compared with what its recipe gives on this machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from dettriton.compare._observed import ObservedRun
from dettriton.compare._sides import Side
from dettriton.compare._state import OPTIMIZER, names_of_model, optimizer_group
from dettriton.digest import tensor_digest
from dettriton.train.trace import float_bits


@dataclass(frozen=True)
class Disagreement:
    """The first thing a training recorded that its recipe does not give here.

    Attributes:
        step: counted from 0; None for what is known before step 0.
        what: ``"loss"``, ``"initial weights"``, ``"gradient NAME"``, or ``"tensor NAME"`` or ``"optimizer state NAME"``
            after the step.
        recorded, here: bits of the loss, or digests.
    """

    step: int | None
    what: str
    recorded: str
    here: str

    def __str__(self) -> str:
        where = "before step 0" if self.step is None else f"at step {self.step}"
        return f"{where} ({self.what}: recorded {self.recorded[:16]}, here {self.here[:16]})"


@dataclass
class Witness:
    """Compares a re-run with what its training recorded, until the first disagreement.

    Attributes:
        side: the training.
        run: the re-run.
        found: the first disagreement.
        computed: how many steps were.
        checked: how many recorded losses and sets of digests were compared.
        tensors, gradients, optimizer: recorded digests by step and name.
    """

    side: Side
    run: ObservedRun
    found: Disagreement | None = None
    computed: int = 0
    checked: int = 0
    tensors: dict[int, Mapping[str, str]] = field(default_factory=dict)
    gradients: dict[int, Mapping[str, str]] = field(default_factory=dict)
    optimizer: dict[int, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self):
        names = names_of_model(self.run.model)
        self.losses = {r["step"]: r["loss"] for r in self.side.trace or ()}
        for step, checkpoint in self.side.checkpoints.items():
            self.tensors[step - 1] = _digests(checkpoint.model)
            state = optimizer_group(checkpoint.optimizer, checkpoint.optimizer_scalars, names)
            self.optimizer[step - 1] = _digests(state)
        self.tensors |= {r["step"]: r["tensors"] for r in self.side.trace or () if "tensors" in r}
        self.optimizer |= {r["step"]: r["optimizer"] for r in self.side.trace or () if "optimizer" in r}
        # as backward goes, so that the first one that differs is the first one that was computed
        self.gradients = {r["step"]: dict(reversed(r["gradients"])) for r in self.side.trace or () if "gradients" in r}

    def check_start(self) -> None:
        """Compare the weights before step 0."""
        recorded, here = self.side.init_digest, self.run.init_digest
        if recorded is not None and recorded != here:
            self.found = Disagreement(None, "initial weights", recorded, here)

    def check(self, step: int, loss: float) -> None:
        """Compare a step that was computed, the run in the state after it, with all that was recorded of it."""
        self.computed += 1
        if step in self.losses:
            self.checked += 1
            self._compare(step, "loss", self.losses[step], float_bits(loss))
        self._compare_all(step, "gradient", self.gradients, self._gradients)
        self._compare_all(step, "tensor", self.tensors, self.run.tensor_digests)
        self._compare_all(step, "optimizer state", self.optimizer, lambda: _digests(self.run.groups()[OPTIMIZER]))

    def _gradients(self) -> dict[str, str]:
        # they are kept until the next step
        return _digests({name: p.grad for name, p in self.run.model.named_parameters() if p.grad is not None})

    def _compare_all(
        self, step: int, what: str, records: Mapping[int, Mapping[str, str]], compute: Callable[[], Mapping[str, str]]
    ) -> None:
        if step not in records or self.found is not None:
            return
        self.checked += 1
        here = compute()
        for name, recorded in records[step].items():
            self._compare(step, f"{what} {name}", recorded, here.get(name, "missing"))

    def _compare(self, step: int, what: str, recorded: str, here: str) -> None:
        if self.found is None and recorded != here:
            self.found = Disagreement(step, what, recorded, here)


def _digests(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    return {name: tensor_digest(name, tensor) for name, tensor in tensors.items()}
