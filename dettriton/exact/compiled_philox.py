"""Philox words on the CPU by compiled loops."""

from __future__ import annotations

import torch

from dettriton.exact._loops import flat, spread
from dettriton.exact._philox_loops import blocks_of_words


def words_of_blocks(start: int, count: int, seed: int, stream: int, step_low: int, step_high: int) -> torch.Tensor:
    """(4 * count,) int64: the words of the blocks from ``start`` on."""
    words = torch.empty(4 * count, dtype=torch.int64)
    into = flat(words)

    def of_blocks(first: int, last: int) -> None:
        blocks_of_words(start, first, last, seed, stream, step_low, step_high, into)

    # Ten rounds cost as much as many elementwise operations.
    spread(of_blocks, count, 64 * count)
    return words
