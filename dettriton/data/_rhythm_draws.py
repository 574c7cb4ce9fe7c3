"""The random numbers of the rhythm simulator: by (seed, purpose, record, element), whoever computes them.

Element ``j`` of record ``i`` is 32-bit word ``j`` of ``Stream(seed, purpose, step=i)``: see :mod:`dettriton.exact.philox`.
"""

from enum import IntEnum

import torch

from dettriton.exact.philox import philox4x32

BREATH_COLUMNS = 2
TWO_PI = 6.2831854820251465
"""The binary32 nearest to 2 pi."""

_MASK = 0xFFFFFFFF


class Purpose(IntEnum):
    """Philox streams of the simulator."""

    BREATH = 0x52485942
    BEATS = 0x52485954
    HEART = 0x52485948
    ATRIA = 0x52485941
    ELECTRODES = 0x52485945
    NOISE = 0x5248594E


def record_words(seed: int, purpose: Purpose, records: torch.Tensor, count: int) -> torch.Tensor:
    """Words 0 to ``count - 1`` of each record.

    Args:
        seed: in [0, 2**32).
        records: (N,) int64 record numbers, not negative.

    Returns:
        (N, count) int64 with values in [0, 2**32).
    """
    shape = (len(records), (count + 3) // 4)
    block = torch.arange(shape[1]).expand(shape)
    steps = [word[:, None].expand(shape) for word in (records & _MASK, records >> 32)]
    words = philox4x32((block, torch.zeros_like(block), *steps), (seed, int(purpose)))
    return words.reshape(shape[0], 4 * shape[1])[:, :count]


class Draws:
    """Random numbers of a set of records; each call takes the next columns of :func:`record_words`.

    Every method returns (N, n) tensors, n = 1 unless told.
    """

    def __init__(self, seed: int, purpose: Purpose, records: torch.Tensor, columns: int):
        self._words = record_words(seed, purpose, records, columns)
        self._taken = 0

    def between(self, low: float | torch.Tensor, high: float | torch.Tensor, n: int = 1) -> torch.Tensor:
        """Binary32 in [low, high): ``low + (high - low) * u`` with ``u`` the word's top 24 bits times 2**-24."""
        u = (self._take(n) >> 8).to(torch.float32) * 2.0**-24
        return u * (high - low) + low

    def integer(self, low: int, high: int, n: int = 1) -> torch.Tensor:
        """int64 in [low, high): ``low + (word * (high - low) >> 32)``."""
        return ((self._take(n) * (high - low)) >> 32) + low

    def chance(self, p: float, n: int = 1) -> torch.Tensor:
        """True with probability ``p``, to 2**-32."""
        return self._take(n) < int(p * 2.0**32)

    def normal(self, n: int = 1) -> torch.Tensor:
        """About standard normal, at most 4.9: the sum of the 16-bit halves of four words, scaled to unit variance."""
        words = self._take(4 * n).reshape(-1, n, 4)
        total = ((words & 0xFFFF) + (words >> 16)).sum(dim=-1)
        # eight halves: mean 8 * 65535 / 2, variance 8 * (2**32 - 1) / 12
        return (total - 4 * 0xFFFF).to(torch.float32) * 1.8688124e-05

    def _take(self, n: int) -> torch.Tensor:
        start, self._taken = self._taken, self._taken + n
        if self._taken > self._words.shape[1]:
            raise RuntimeError(f"{self._taken} random columns are needed, {self._words.shape[1]} were drawn")
        return self._words[:, start : self._taken]


def breathing(seed: int, records: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each record's breathing: (N, 1) binary32 angular frequency in radians a second (9 to 18 breaths a minute) and
    phase in radians at time 0."""
    draws = Draws(seed, Purpose.BREATH, records, BREATH_COLUMNS)
    return draws.between(0.15, 0.30) * TWO_PI, draws.between(0.0, TWO_PI)
