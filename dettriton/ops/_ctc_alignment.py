"""What ctc_loss aligns to: the states of a batch of targets, with their arguments checked."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from dettriton.errors import InputError


class Alignment(NamedTuple):
    """What a batch is aligned to.

    Attributes:
        classes: (N, L) int64, the class of each state; the blank beyond a target.
        skips: (N, L) bool, whether a state can be entered from the one two below.
        input_lengths, target_lengths: (N,) int64.
    """

    classes: torch.Tensor
    skips: torch.Tensor
    input_lengths: torch.Tensor
    target_lengths: torch.Tensor

    @property
    def states(self) -> torch.Tensor:
        """How many states each sample has, (N,)."""
        return self.target_lengths * 2 + 1

    def steps_inside(self, steps: int) -> torch.Tensor:
        """(T, N), which steps count."""
        return torch.arange(steps, device=self.classes.device)[:, None] < self.input_lengths


def alignment_of(
    x: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: torch.Tensor | Sequence[int],
    target_lengths: torch.Tensor | Sequence[int],
    blank: int,
) -> Alignment:
    """The states of a batch, its arguments checked."""
    steps, samples, classes = x.shape
    if targets.dtype not in (torch.int32, torch.int64) or targets.dim() not in (1, 2):
        raise InputError(
            f"ctc_loss: targets must be int32 or int64, (N, S) or one after the other, got {targets.dtype} of shape "
            f"{tuple(targets.shape)}"
        )
    if targets.dim() == 2 and len(targets) != samples:
        raise InputError(f"ctc_loss: padded targets must have a row per sample, {samples}, got {len(targets)}")
    targets = targets.to(torch.int64)
    on_host = _lengths("target_lengths", target_lengths, samples)
    input_lengths = _lengths("input_lengths", input_lengths, samples)
    if targets.dim() == 1:
        on_host = on_host.cpu()
        most = int(on_host.max()) if samples else 0
        if int(on_host.sum()) != len(targets) or int(on_host.min() if samples else 0) < 0:
            raise InputError(
                f"ctc_loss: target_lengths must add up to the {len(targets)} targets, got {on_host.tolist()}"
            )
    else:
        most = targets.shape[1]
    if x.device.type == "cpu":
        _check_range("input_lengths", input_lengths, 0, steps)
        _check_range("target_lengths", on_host, 0, most)
    target_lengths = on_host.to(x.device).clamp(0, most)
    input_lengths = input_lengths.to(x.device).clamp(0, steps)
    place = torch.arange(most, device=x.device)
    if targets.dim() == 1:
        first = target_lengths.cumsum(0) - target_lengths
        within = (first[:, None] + place).clamp(max=max(len(targets) - 1, 0))
        targets = targets[within] if len(targets) else within
    targets = torch.where(place < target_lengths[:, None], targets, blank)
    if x.device.type == "cpu":
        _check_range("targets", targets, 0, classes - 1)
    states = torch.full((samples, 2 * most + 1), blank, dtype=torch.int64, device=x.device)
    states[:, 1::2] = targets.clamp(0, classes - 1)
    skips = torch.zeros_like(states, dtype=torch.bool)
    skips[:, 2:] = states[:, 2:] != states[:, :-2]
    return Alignment(states, skips, input_lengths, target_lengths)


def _lengths(name: str, lengths: torch.Tensor | Sequence[int], samples: int) -> torch.Tensor:
    found = lengths if isinstance(lengths, torch.Tensor) else torch.tensor(lengths, dtype=torch.int64)
    if found.is_floating_point() or found.numel() != samples or found.dim() > 1:
        raise InputError(
            f"ctc_loss: {name} must hold {samples} integers, got {found.dtype} of shape {tuple(found.shape)}"
        )
    return found.reshape(-1).to(torch.int64)


def _check_range(name: str, values: torch.Tensor, low: int, high: int) -> None:
    wrong = (values < low) | (values > high)
    if bool(wrong.any()):
        raise InputError(f"ctc_loss: {name} must be {low} to {high}, got {int(values[wrong][0])}")
