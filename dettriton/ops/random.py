"""rand, randn, randint, bernoulli, randperm: Philox4x32-10 by logical element (Salmon et al., SC 2011).

An element's number is a function of the stream (seed, stream, step) and the element's place alone, so a tensor drawn in
pieces, on any device, by any launch, holds the same numbers. With ``w`` the stream's 32-bit words::

    rand       element i is  (w[i] >> 8) * 2**-24                                      exact
    randn      elements 2i, 2i + 1 are  r * cos(a), r * sin(a)  with r = sqrt(-2 * log(u)),
               u = float32(w[2i] + 1) * 2**-32 and a = ((w[2i + 1] >> 8) * 2**-24) * float32(2 pi):
               Box and Muller (1958), our log, cos and sin (R3)
    randint    element i is  low + ((w[2i] * 2**32 + w[2i + 1]) * (high - low) >> 64)  exact
    bernoulli  element i is  1 where w[i] < floor(p[i] * 2**32), else 0                exact
    randperm   the places of n 64-bit keys w[2i] * 2**32 + w[2i + 1] in ascending order, ties by place   exact
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact.philox import Stream, random_bits
from dettriton.ops._contract import contract
from dettriton.ops._device_philox import philox_word
from dettriton.ops._elementwise import evaluate
from dettriton.ops._function import require_float32
from dettriton.ops._launch import blocks, kernel, tl
from dettriton.ops.elementary import COS, LOG, SIN, SQRT

BLOCK = 1024
TWO_PI = 6.2831854820251465
"""The binary32 nearest to 2 pi."""


@kernel("*i64 i64 i64 i64 i64 i64 i64")
def _random_words_kernel(out_ptr, n, offset, seed, stream, step_low, step_high, BLOCK: tl.constexpr = BLOCK):
    elements = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    words = philox_word(elements + offset, seed, stream, step_low, step_high).to(tl.int64)
    tl.store(out_ptr + elements, words, mask=elements < n)


def random_words(rng: Stream, n: int, offset: int, device: torch.device) -> torch.Tensor:
    """:func:`dettriton.exact.philox.random_bits` on the engine of ``device``."""
    out = torch.empty(n, dtype=torch.int64, device=device)
    if engine_for(out) == "torch":
        return random_bits(rng, n, offset, device)
    words = (rng.seed, rng.stream, rng.step & 0xFFFFFFFF, rng.step >> 32)
    _random_words_kernel((blocks(n, BLOCK),), out, n, offset, *words)
    return out


def _pairs(rng: Stream, n: int, offset: int, device: torch.device) -> torch.Tensor:
    """Words ``2i`` and ``2i + 1`` of elements ``offset .. offset + n - 1``: (2, n)."""
    return random_words(rng, 2 * n, 2 * offset, device).view(n, 2).t()


def _joined(size: tuple) -> tuple[int, ...]:
    return tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else size


def _floats(*size: int, device: torch.device | str = "cpu", **_: Any) -> torch.Tensor:
    return torch.empty(_joined(size), dtype=torch.float32, device=device)


def _shape(op: str, size: tuple) -> tuple[int, ...]:
    shape = _joined(size)
    if not all(isinstance(s, int) and s >= 0 for s in shape):
        raise InputError(f"{op}: size must be non-negative integers, got {shape}")
    return shape


def _check(op: str, rng: Stream, dtype: torch.dtype | None, allowed: torch.dtype, offset: int) -> None:
    if not isinstance(rng, Stream):
        raise InputError(f"{op}: rng must be a dettriton.exact.philox.Stream, got {rng!r}; pass rng=Stream(seed)")
    if dtype not in (None, allowed):
        raise InputError(f"{op}: results are {allowed}, got dtype={dtype}; convert the result with .to(dtype)")
    if not isinstance(offset, int) or offset < 0:
        raise InputError(f"{op}: offset must be a non-negative integer, got {offset!r}")


def _count(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


@contract(
    "Random numbers",
    definition="(w[i] >> 8) * 2**-24 of Philox word i",
    error="exact",
    batch_invariant=False,
    kernels=True,
    mirrors="rand",
    fake=_floats,
)
def rand(
    *size: int, rng: Stream, offset: int = 0, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Uniform numbers in [0, 1), as :func:`torch.rand` with an explicit generator.

    Args:
        size: the shape, as integers or one tuple.
        rng: the stream; every use needs a stream or a step of its own.
        offset: the place of the first element, to draw a large tensor in pieces.
        dtype: None or ``torch.float32``.
        device: where to draw; it does not change the numbers.

    Returns:
        Binary32 of that shape: element ``i`` in row-major order is ``(w[offset + i] >> 8) * 2**-24``.

    Raises:
        InputError: ``size`` or ``offset`` is negative, or ``rng`` is not a stream.
    """
    shape = _shape("rand", size)
    _check("rand", rng, dtype, torch.float32, offset)
    words = random_words(rng, _count(shape), offset, torch.device(device))
    return ((words >> 8).to(torch.float32) * 2.0**-24).view(shape)


@contract(
    "Random numbers",
    definition="Box-Muller pairs: sqrt(-2 log(u)) times cos and sin of 2 pi v, from words 2i and 2i + 1",
    error="5e-7 of the radius, absolute, and 4 ulp",
    batch_invariant=False,
    kernels=True,
    mirrors="randn",
    fake=_floats,
)
def randn(
    *size: int, rng: Stream, offset: int = 0, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Standard normal numbers, as :func:`torch.randn` with an explicit generator.

    Args:
        size, rng, offset, dtype, device: as in :func:`rand`.

    Returns:
        Binary32 of that shape by the transform in this module's text; magnitudes are at most 6.67. Error against the
        exact transform of its uniforms: ``2**-21`` of the radius for the rounded angle, and 4 ulp.

    Raises:
        InputError: ``size`` or ``offset`` is negative, or ``rng`` is not a stream.
    """
    shape = _shape("randn", size)
    _check("randn", rng, dtype, torch.float32, offset)
    first, odd = offset // 2, offset % 2
    pairs = (_count(shape) + odd + 1) // 2
    w0, w1 = _pairs(rng, pairs, first, torch.device(device))
    radius = evaluate(SQRT, evaluate(LOG, (w0 + 1).to(torch.float32) * 2.0**-32) * -2.0)
    angle = ((w1 >> 8).to(torch.float32) * 2.0**-24) * TWO_PI
    both = torch.stack((radius * evaluate(COS, angle), radius * evaluate(SIN, angle)), dim=1).reshape(-1)
    return both[odd : odd + _count(shape)].reshape(shape)


@contract(
    "Random numbers",
    definition="low + (64-bit word * (high - low) >> 64), words 2i and 2i + 1",
    error="exact",
    batch_invariant=False,
    kernels=True,
    mirrors="randint",
)
def randint(
    low: int,
    high: int,
    size: tuple[int, ...],
    *,
    rng: Stream,
    offset: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Integers in [low, high), as :func:`torch.randint` with an explicit generator.

    Args:
        low, high: bounds at most ``2**31`` apart.
        size: the shape.
        rng, offset, device: as in :func:`rand`.
        dtype: None or ``torch.int64``.

    Returns:
        int64 of that shape; each value's probability differs from ``1 / (high - low)`` by less than ``2**-64``.

    Raises:
        InputError: ``high - low`` is not in [1, 2**31], or another argument is wrong as in :func:`rand`.
    """
    shape = _shape("randint", (size,))
    _check("randint", rng, dtype, torch.int64, offset)
    if not 1 <= high - low <= 2**31:
        raise InputError(f"randint: high - low must be in [1, 2**31], got low={low} and high={high}")
    w0, w1 = _pairs(rng, _count(shape), offset, torch.device(device))
    span = high - low
    return (((w0 * span + ((w1 * span) >> 32)) >> 32) + low).view(shape)


@contract(
    "Random numbers",
    definition="1 where word i is below floor(p * 2**32)",
    error="exact",
    batch_invariant=False,
    kernels=True,
    mirrors="bernoulli",
    differentiable=False,
)
def bernoulli(input: torch.Tensor, *, rng: Stream, offset: int = 0) -> torch.Tensor:
    """Zeros and ones with the given probabilities of a one, as :func:`torch.bernoulli` with an explicit generator.

    Args:
        input: binary32 probabilities, any shape; on the CPU they are checked to lie in [0, 1].
        rng, offset: as in :func:`rand`; element ``i`` of the row-major order uses word ``offset + i``.

    Returns:
        Binary32 of the input's shape, without a gradient. The realised probability is below ``p`` by less than 2**-32.

    Raises:
        InputError: ``input`` is not binary32, a probability is outside [0, 1], or ``rng`` is not a stream.
    """
    require_float32("bernoulli", input=input)
    _check("bernoulli", rng, None, torch.float32, offset)
    p = input.detach()
    if p.device.type == "cpu" and not bool(((p >= 0) & (p <= 1)).all()):
        raise InputError(
            "bernoulli: every probability must lie in [0, 1]; check the input, which may hold logits or NaN"
        )
    words = random_words(rng, p.numel(), offset, p.device).view(p.shape)
    return (words < (p.to(torch.float64) * 2.0**32).to(torch.int64)).to(torch.float32)


@contract(
    "Random numbers",
    definition="places of 64-bit keys in ascending order, ties by place",
    error="exact",
    batch_invariant=False,
    kernels=True,
    mirrors="randperm",
)
def randperm(
    n: int, *, rng: Stream, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """A random permutation of ``0 .. n - 1``, as :func:`torch.randperm` with an explicit generator.

    Args:
        n: its length.
        rng, device: as in :func:`rand`.
        dtype: None or ``torch.int64``.

    Returns:
        int64 ``(n,)``: the places of ``n`` 64-bit random keys in ascending order, equal keys by their place.

    Raises:
        InputError: ``n`` is negative, or ``rng`` is not a stream.
    """
    (n,) = _shape("randperm", (n,))
    _check("randperm", rng, dtype, torch.int64, 0)
    w0, w1 = _pairs(rng, n, 0, torch.device(device))
    # Two words make a signed key: with its top bit flipped, signed order is that of the unsigned 64-bit numbers.
    keys = ((w0 ^ (1 << 31)) << 32) | w1
    return torch.sort(keys, stable=True).indices
