"""dropout: ``y = x * scale`` where the element's random word is at least ``floor(p * 2**32)``, ``+0`` elsewhere.

``scale`` is ``1 / (1 - p)`` in binary64, rounded to binary32; the product is rounded once (R1). The word is Philox's
for the element's row-major place in the whole tensor, so strides, devices and launches cannot move the mask. The
gradient is the same function of the upstream gradient: the mask is computed again, never stored.

A dropped element is +0 whatever it held, NaN and infinities included.
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact._jit import compiles
from dettriton.exact.philox import Stream, drop_threshold, keep_mask
from dettriton.ops._contract import contract
from dettriton.ops._device_philox import philox_word
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._launch import blocks, kernel, tl

BLOCK = 1024


@kernel("*fp32 *fp32 i64 i64 fp32 i64 i64 i64 i64")
def _dropout_kernel(
    x_ptr, y_ptr, n, threshold, scale, seed, stream, step_low, step_high, BLOCK: tl.constexpr = BLOCK
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    keep = philox_word(offsets, seed, stream, step_low, step_high).to(tl.int64) >= threshold
    x = tl.load(x_ptr + offsets, mask=mask & keep, other=0.0)
    tl.store(y_ptr + offsets, tl.where(keep, x * scale, 0.0), mask=mask)


def scale_of(p: float) -> float:
    """``1 / (1 - p)`` rounded to binary32; 0 for ``p = 1``, which keeps nothing to scale."""
    return torch.tensor(1.0 / (1.0 - p) if p < 1 else 0.0, dtype=torch.float32).item()


def dropout_torch(x: torch.Tensor, p: float, rng: Stream) -> torch.Tensor:
    if compiles():
        from dettriton.exact.compiled_elementwise import dropped

        return dropped(x, drop_threshold(p), scale_of(p), (rng.seed, rng.stream, rng.step & 0xFFFFFFFF, rng.step >> 32))
    keep = keep_mask(rng, x.numel(), p).view(x.shape)
    scaled = x * torch.tensor(scale_of(p), dtype=torch.float32)
    return torch.where(keep, scaled, torch.zeros((), dtype=x.dtype))


def dropout_triton(x: torch.Tensor, p: float, rng: Stream) -> torch.Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    words = (rng.seed, rng.stream, rng.step & 0xFFFFFFFF, rng.step >> 32)
    _dropout_kernel((blocks(x.numel(), BLOCK),), x, y, x.numel(), drop_threshold(p), scale_of(p), *words)
    return y


FORWARD = {"torch": dropout_torch, "triton": dropout_triton}


class Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, p: float, rng: Stream) -> torch.Tensor:
        ctx.p, ctx.rng = p, rng
        return FORWARD[engine_for(x)](x, p, rng)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return FORWARD[engine_for(grad)](grad, ctx.p, ctx.rng), None, None


@contract(
    "Random numbers",
    definition="x * scale where Philox word i is at least floor(p * 2**32), else +0; gradient: the same of g",
    error="half an ulp",
    batch_invariant=False,
    kernels=True,
    mirrors="nn.functional.dropout",
)
def dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, rng: Stream | None = None
) -> torch.Tensor:
    """Zero random elements and scale the others, as :func:`torch.nn.functional.dropout` with an explicit generator.

    Element ``i``, counted in row-major order whatever the strides, is kept where word ``i`` of the stream
    (Philox4x32-10, Salmon et al., SC 2011) is at least ``floor(p * 2**32)``. A kept element gives ``x * scale``,
    rounded once to binary32, with ``scale = 1 / (1 - p)`` computed in binary64 and rounded to binary32; a dropped one
    gives +0. The gradient applies the same mask and scale to the upstream gradient. Error: half an ulp beside the error
    of ``scale``.

    Args:
        input: binary32, any shape.
        p: probability of dropping an element, in [0, 1]; the realised one is below it by less than 2**-32.
        training: whether to drop at all.
        inplace: accepted for compatibility; the input is never overwritten.
        rng: the stream of this layer at this training step, as ``Stream(seed, layer, step)``. Every use of dropout
            needs a stream or a step of its own: the same stream gives the same mask.

    Returns:
        A tensor of the input's shape; the input itself when not training or when ``p`` is 0.

    Raises:
        InputError: ``input`` is not binary32, ``p`` is not in [0, 1], or ``rng`` is missing when it is needed.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("dropout", input=input)
    drop_threshold(p)
    if not training or p == 0:
        return input
    if not isinstance(rng, Stream):
        raise InputError(
            f"dropout: rng must be a dettriton.exact.philox.Stream, got {rng!r}; "
            "pass rng=Stream(seed, layer, step), a different one for each layer and step"
        )
    return Dropout.apply(input, float(p), rng)
