"""Golden vectors: what a released model computes on a fixed batch, compared bit for bit."""

import math

import torch

from dettriton import ops
from dettriton.data.dataset import MULTI_LABEL, DatasetInfo, to_float
from dettriton.data.signals import SignalInfo
from dettriton.errors import InputError
from dettriton.exact.philox import Stream, random_bits

SAMPLES = 8
GOLDEN_STREAM = 0x474C444E

_LAYERS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Linear)


def golden_input(info: DatasetInfo | SignalInfo) -> tuple[torch.Tensor, torch.Tensor]:
    """Random samples of a dataset's shape, the same everywhere, from the Philox words of ``Stream(0, GOLDEN_STREAM)``.

    Returns:
        What is kept and the binary32 network input made of it. Images: (8, C, H, W) uint8, the low byte of each word,
        and :func:`dettriton.data.to_float` of them. Signals: (8, C, L) int16, the low 12 bits minus 2048, over 512.
    """
    images = isinstance(info, DatasetInfo)
    shape = (SAMPLES, *(info.image_shape if images else info.signal_shape))
    words = random_bits(Stream(0, GOLDEN_STREAM), math.prod(shape)).reshape(shape)
    if images:
        pixels = (words & 0xFF).to(torch.uint8)
        return pixels, to_float(pixels, info.scale)
    steps = ((words & 0xFFF) - 2048).to(torch.int16)
    return steps, steps.to(torch.float32) * 2.0**-9


def golden_vectors(model: torch.nn.Module, info: DatasetInfo | SignalInfo) -> dict[str, torch.Tensor]:
    """What the model computes on :func:`golden_input` in evaluation mode.

    Args:
        model: its first convolution (or linear layer) and its last linear layer are looked at.
        info: the dataset it was trained on.

    Returns:
        On the CPU: ``input``, as kept; ``logits`` (n, classes); ``feature``, the first layer's output for the first
        sample; and ``gradient`` of the last linear layer's weight, for the loss of the dataset's task where sample i has
        class ``i mod classes``.
    """
    kept, inputs = golden_input(info)
    device = next(model.parameters()).device
    layers = [m for m in model.modules() if isinstance(m, _LAYERS)]
    heads = [m for m in layers if isinstance(m, torch.nn.Linear)]
    if not heads:
        raise InputError("golden vectors need a model with a linear layer")
    features: list[torch.Tensor] = []
    handle = layers[0].register_forward_hook(lambda module, args, output: features.append(output.detach()[0]))
    model.eval()
    try:
        logits = model(inputs.to(device))
    finally:
        handle.remove()
    labels = torch.arange(SAMPLES, device=device) % logits.shape[1]
    if info.task == MULTI_LABEL:
        one_hot = (labels[:, None] == torch.arange(logits.shape[1], device=device)).to(torch.float32)
        loss = ops.binary_cross_entropy_with_logits(logits, one_hot)
    else:
        loss = ops.cross_entropy(logits, labels)
    (gradient,) = torch.autograd.grad(loss, heads[-1].weight)
    vectors = {"logits": logits.detach(), "feature": features[0], "gradient": gradient}
    return {"input": kept} | {name: t.cpu().contiguous() for name, t in vectors.items()}
