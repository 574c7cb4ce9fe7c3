"""Dropout: torch.nn's, with masks from Philox instead of the device's random state."""

import torch

from dettriton import ops
from dettriton.nn._random import Drawing


class Dropout(Drawing, torch.nn.Dropout):
    """:class:`torch.nn.Dropout` whose mask is a function of (seed, stream, step, element), on any device.

    ``step`` is a plain integer that each training forward uses and then raises by one; evaluation leaves it alone.
    It is not part of ``state_dict``: a loop that resumes sets it with :func:`dettriton.nn.set_random_state`.

    Args:
        p: probability of a zero.
        inplace: as in :func:`dettriton.ops.dropout`.
        seed, stream: the key of this module's masks; two modules with the same key drop the same elements.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, seed: int = 0, stream: int = 0) -> None:
        super().__init__(p, inplace)
        self.seeded(seed, stream)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rng = self.next_numbers(advance=self.training)
        return ops.dropout(input, self.p, self.training, self.inplace, rng=rng)
