"""What a training step reads: which samples, how their pixels are moved, how much positives weigh. Integers decide."""

from collections.abc import Iterator
from fractions import Fraction

import torch
import torch.nn.functional as F

from dettriton.exact.philox import Stream, random_bits
from dettriton.exact.rational import nearest_binary32_root
from dettriton.train.recipe import Augment

AUGMENT_STREAM = 0x4155474D
"""Philox stream of the augmentation; dropout takes the streams 0, 1, 2, ... of the same seed."""

_WORDS = 4


def batch_bounds(n: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each batch in an epoch's order of ``n`` samples.

    Batches are consecutive and the last one may be smaller. If it would hold a single sample it is left out, because
    batch normalisation of one value is no normalisation; a batch size of 1 is taken as asked.
    """
    for begin in range(0, n, batch_size):
        end = min(begin + batch_size, n)
        if end - begin > 1 or batch_size == 1 or n == 1:
            yield begin, end


def augmentation(augment: Augment, n: int, epoch: int, seed: int) -> torch.Tensor | None:
    """The random choices of an epoch for every sample of the training set, or None if the recipe makes none.

    With ``w`` the Philox words of ``Stream(seed, AUGMENT_STREAM, epoch)``, ``i`` the index of the sample in the data
    and ``m = 2 * crop_padding + 1``: the sample is flipped where ``w[4i] >= 2**31``, and cropped at row
    ``(w[4i+1] * m) >> 32`` and column ``(w[4i+2] * m) >> 32`` of the padded image.

    Returns:
        (n, 3) int64: flip (0 or 1), row, column.
    """
    if not augment.hflip and augment.crop_padding == 0:
        return None
    words = random_bits(Stream(seed, AUGMENT_STREAM, epoch), _WORDS * n).view(n, _WORDS)
    flips = (words[:, :1] >> 31) * int(augment.hflip)
    corners = (words[:, 1:3] * (2 * augment.crop_padding + 1)) >> 32
    return torch.cat((flips, corners), dim=1)


def move_pixels(images: torch.Tensor, choices: torch.Tensor, crop_padding: int) -> torch.Tensor:
    """Crop images, padded by zeros, to their own size, then flip them left to right, as chosen.

    Args:
        images: (b, C, H, W) uint8, any device.
        choices: (b, 3) int64 rows of :func:`augmentation`, on the same device.
        crop_padding: zeros added on every side before cropping.
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (crop_padding,) * 4)
    flip, row, column = choices.unbind(1)
    across = torch.arange(width, device=images.device)
    across = torch.where(flip[:, None] == 1, width - 1 - across, across) + column[:, None]
    down = torch.arange(height, device=images.device) + row[:, None]
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[sample, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2).contiguous()


def pos_weight(kind: str, labels: torch.Tensor) -> torch.Tensor | None:
    """The factor of each label's positives in the loss, so that rare labels count.

    ``"sqrt"``, as Shkolnikov (arXiv 2603.28040): ``sqrt(N / n)`` for ``N`` samples, ``n`` of them with the label, the
    exact root rounded to binary32 once. A label that no sample has weighs 1: no loss reads it.

    Args:
        kind: one of :data:`dettriton.train.recipe.POS_WEIGHTS`.
        labels: (N, classes) of 0 and 1, of the training split.

    Returns:
        (classes,) binary32 on the CPU, or None for ``"none"``.
    """
    if kind == "none":
        return None
    positives = (labels == 1).sum(0).tolist()
    roots = [nearest_binary32_root(Fraction(len(labels), n)) if n else 1.0 for n in positives]
    return torch.tensor(roots, dtype=torch.float32)
