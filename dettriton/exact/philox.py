"""Random numbers by counter, in integer operations only: a number depends on what it is for, never on who computes it.

The generator is Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
"""

import math
from dataclasses import dataclass, replace

import torch

from dettriton.errors import InputError
from dettriton.exact._jit import compiles

MULTIPLIER_0 = 0xD2511F53
MULTIPLIER_1 = 0xCD9E8D57
WEYL_0 = 0x9E3779B9
WEYL_1 = 0xBB67AE85
ROUNDS = 10

_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Stream:
    """A named sequence of random words, one for each logical element 0, 1, 2, ...

    Element ``i`` is lane ``i % 4`` of the Philox block with key ``(seed, stream)`` and counter
    ``(low 32 bits of i//4, high 32 bits of i//4, low 32 bits of step, high 32 bits of step)``.

    Args:
        seed: the user's seed, in [0, 2**32).
        stream: what the numbers are for (a layer, an initialiser), in [0, 2**32).
        step: when they are used (a training step, an epoch), in [0, 2**64).

    Raises:
        InputError: a field is not an integer of its range.
    """

    seed: int
    stream: int = 0
    step: int = 0

    def __post_init__(self):
        for name, bits in (("seed", 32), ("stream", 32), ("step", 64)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**bits:
                raise InputError(f"Stream.{name} must be an integer in [0, 2**{bits}), got {value!r}")

    def at(self, step: int) -> "Stream":
        """The same stream at another step."""
        return replace(self, step=step)


def philox4x32(counter: torch.Tensor | tuple[torch.Tensor, ...], key: tuple[int, int]) -> torch.Tensor:
    """The Philox4x32-10 block function.

    Args:
        counter: (..., 4) int64 on any device, or four int64 tensors of one shape; values in [0, 2**32).
        key: two integers in [0, 2**32).

    Returns:
        (..., 4) int64 with values in [0, 2**32).

    Raises:
        InputError: the counter does not hold four int64 words, or a key word is out of range.
    """
    words = torch.atleast_1d(counter).unbind(-1) if isinstance(counter, torch.Tensor) else tuple(counter)
    if len(words) != 4 or any(w.dtype != torch.int64 for w in words):
        raise InputError("a Philox counter is four words: pass an int64 tensor of shape (..., 4) or four int64 tensors")
    if len(key) != 2 or not all(0 <= k <= _MASK for k in key):
        raise InputError(f"a Philox key is two integers in [0, 2**32), got {key!r}")
    c0, c1, c2, c3 = words
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c0, MULTIPLIER_0)
        high1, low1 = _multiply(c2, MULTIPLIER_1)
        c0, c1, c2, c3 = high1.bitwise_xor_(c1).bitwise_xor_(k0), low1, high0.bitwise_xor_(c3).bitwise_xor_(k1), low0
        k0, k1 = (k0 + WEYL_0) & _MASK, (k1 + WEYL_1) & _MASK
    return torch.stack((c0, c1, c2, c3), dim=-1)


def random_bits(stream: Stream, n: int, offset: int = 0, device: torch.device | str = "cpu") -> torch.Tensor:
    """The 32-bit words of logical elements ``offset .. offset + n - 1``.

    Returns:
        (n,) int64 with values in [0, 2**32).

    Raises:
        InputError: ``n`` or ``offset`` is negative, or ``offset + n`` exceeds 2**62.
    """
    if n < 0 or offset < 0 or offset + n > 2**62:
        raise InputError(f"random elements are numbered 0 to 2**62 - 1, got n={n} and offset={offset}")
    first = offset // 4
    if compiles() and torch.device(device).type == "cpu":
        from dettriton.exact.compiled_philox import words_of_blocks

        count = (offset + n + 3) // 4 - first
        key = stream.seed, stream.stream, stream.step & _MASK, stream.step >> 32
        return words_of_blocks(first, count, *key)[offset - 4 * first :][:n]
    block = torch.arange(first, (offset + n + 3) // 4, dtype=torch.int64, device=device)
    step_low, step_high = (torch.full_like(block, word) for word in (stream.step & _MASK, stream.step >> 32))
    words = philox4x32((block & _MASK, block >> 32, step_low, step_high), (stream.seed, stream.stream))
    return words.reshape(-1)[offset - 4 * first :][:n]


def uniform(stream: Stream, n: int, offset: int = 0, device: torch.device | str = "cpu") -> torch.Tensor:
    """(n,) binary32 in [0, 1): the word's top 24 bits times 2**-24, exact; element i uses word i."""
    return (random_bits(stream, n, offset, device) >> 8).to(torch.float32) * 2.0**-24


def uniform64(stream: Stream, n: int, offset: int = 0, device: torch.device | str = "cpu") -> torch.Tensor:
    """(n,) binary64 in [0, 1): ``((w0 >> 5) * 2**26 + (w1 >> 6)) * 2**-53``, exact; element i uses words 2i, 2i+1."""
    w0, w1 = _word_pairs(stream, n, offset, device)
    return (((w0 >> 5) << 26) + (w1 >> 6)).to(torch.float64) * 2.0**-53


def randint(stream: Stream, n: int, bound: int, offset: int = 0, device: torch.device | str = "cpu") -> torch.Tensor:
    """Integers in [0, bound): ``(w * bound) >> 64`` of the 64-bit word ``w = w0 * 2**32 + w1``.

    Element i uses words 2i and 2i+1. The probability of each value differs from ``1 / bound`` by less than 2**-64.

    Args:
        bound: in [1, 2**31].

    Returns:
        (n,) int64.

    Raises:
        InputError: ``bound`` is out of range.
    """
    if not 1 <= bound <= 2**31:
        raise InputError(f"randint draws below a bound in [1, 2**31], got {bound}")
    w0, w1 = _word_pairs(stream, n, offset, device)
    return (w0 * bound + ((w1 * bound) >> 32)) >> 32


def keep_mask(stream: Stream, n: int, p: float, offset: int = 0, device: torch.device | str = "cpu") -> torch.Tensor:
    """Which elements dropout keeps: True where ``word >= floor(p * 2**32)``; element i uses word i.

    Args:
        p: probability of dropping, in [0, 1]; the realised one is below it by less than 2**-32.

    Returns:
        (n,) bool.

    Raises:
        InputError: ``p`` is out of range or NaN.
    """
    return random_bits(stream, n, offset, device) >= drop_threshold(p)


def drop_threshold(p: float) -> int:
    """``floor(p * 2**32)``, the first word that dropout with probability ``p`` keeps; 2**32 keeps none.

    Raises:
        InputError: ``p`` is not in [0, 1].
    """
    if not 0.0 <= p <= 1.0:
        raise InputError(f"a dropout probability lies in [0, 1], got {p}")
    return math.floor(p * 2.0**32)


def _multiply(x: torch.Tensor, constant: int) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low 32 bits of ``x * constant``; by 16-bit halves, so that no int64 overflows."""
    low = (x & 0xFFFF).mul_(constant)
    high = (x >> 16).mul_(constant)
    low_word = ((high & 0xFFFF) << 16).add_(low).bitwise_and_(_MASK)
    return low.bitwise_right_shift_(16).add_(high).bitwise_right_shift_(16), low_word


def _word_pairs(stream: Stream, n: int, offset: int, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(random_bits(stream, 2 * n, 2 * offset, device).view(n, 2).unbind(-1))
