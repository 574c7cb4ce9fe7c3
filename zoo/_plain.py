"""How far the logits of a plain model may be from the released ones."""

import torch

TOLERANCE = {"high": 1e-4, "medium": 1e-2}
"""Largest difference allowed, as a fraction of the batch's largest logit or of 1, by the precision of the training.

A dot product rounds each operand to a grid of 20 bits (``"high"``) or 13 (``"medium"``) below the largest that shares the
grid; torch multiplies all 24 bits of each and rounds its sums in an order of its own. A network's layers pass this on: at
most 1.6e-5 was measured for ``"high"`` and 1.5e-3 for ``"medium"``, over the golden batch and the test split of each
release (of the latter, for ``"medium"``, 200 samples). The rest is room for other networks and other machines' sums.
"""


def largest_difference(logits: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest difference of two batches of logits, as a fraction of the larger of ``max|exact|`` and 1."""
    return ((logits - exact).abs().max() / exact.abs().max().clamp(min=1.0)).item()
