"""Loops over CPU tensors as machine code, through numba, in strict IEEE arithmetic.

What is compiled here computes what plain torch operations compute, in fewer passes; it is never the only way. Without
numba, or with ``DETTRITON_NUMBA=0``, the torch operations run, with the same bits.

No fast-math flag is set, so the compiler neither reorders additions nor fuses multiplications into them, and binary32
stays binary32 where a function says so: a Python number in an expression would widen it to binary64. Loops that add
products of integers below 2**53 are the exception (:func:`jit_of_integers`): nothing there is ever rounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property, update_wrapper
from importlib.util import find_spec
from typing import Any

SWITCH = "DETTRITON_NUMBA"

_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": False}
_INTEGER_OPTIONS = {**_OPTIONS, "fastmath": {"contract", "reassoc", "nsz"}}


@cache
def compiles() -> bool:
    """Whether loops are compiled in this process."""
    return os.environ.get(SWITCH, "1") != "0" and find_spec("numba") is not None


class Jitted:
    """A function that is compiled when it is first called; other compiled functions can call it.

    The machine code is kept beside the source, or in the user's cache folder where that is read-only, and is made again
    when the source or the processor changes. Where there is no place for it, it is kept in memory.
    """

    def __init__(self, fn: Callable[..., Any], options: Mapping[str, Any] = _OPTIONS):
        self.fn = fn
        self.options = options
        update_wrapper(self, fn)

    def __call__(self, *arguments: Any) -> Any:
        return self.dispatcher(*arguments)

    @cached_property
    def dispatcher(self) -> Any:
        """What numba makes of the function."""
        return _compiled(self.fn, self.options)

    @property
    def cached(self) -> bool:
        """Whether its machine code is kept for other processes."""
        return self.dispatcher.stats.cache_path is not None

    def compile(self, types: Sequence[str]) -> bool:
        """Make it ready for arguments of these types, as numba writes them; whether no cache had it."""
        misses = self.dispatcher.stats.cache_misses.total()
        # The cache's key is what ``compile`` is given: the types themselves, as at a call.
        self.dispatcher.compile(numba_types(types))
        return self.dispatcher.stats.cache_misses.total() > misses


def numba_types(names: Sequence[str]) -> tuple[Any, ...]:
    """Numba's types of these names."""
    from numba.core.sigutils import normalize_signature

    return normalize_signature(f"({', '.join(names)},)")[0]


def jit(fn: Callable[..., Any]) -> Jitted:
    """Compile a function of NumPy arrays and numbers on its first call."""
    return Jitted(fn)


def jit_of_integers(fn: Callable[..., Any]) -> Jitted:
    """The same for sums of products that are integers below 2**53 in binary64, exact in any order and fused or not.

    Everything in the function has to be such an integer: zeros have no sign in it, and no number is rounded.
    """
    return Jitted(fn, _INTEGER_OPTIONS)


class Intrinsic:
    """LLVM instructions that a compiled loop of the same file has in it, where the compiler finds no good ones itself."""

    def __init__(self, fn: Callable[..., Any]):
        self.fn = fn
        update_wrapper(self, fn)

    @cached_property
    def dispatcher(self) -> Any:
        """What numba makes of the function."""
        from numba.extending import intrinsic

        return intrinsic(prefer_literal=True)(self.fn)


def _compiled(fn: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    import numba

    for name, value in fn.__globals__.items():
        if isinstance(value, (Jitted, Intrinsic)) and name in fn.__code__.co_names:
            # numba's cache asks whether the caller's file changed, not whether the callee's did
            if value.fn.__code__.co_filename != fn.__code__.co_filename:
                raise TypeError(f"{fn.__name__} calls {name} of another file, whose changes its cache would not see")
            fn.__globals__[name] = value.dispatcher
    try:
        return numba.njit(fn, cache=True, **options)
    except RuntimeError:
        return numba.njit(fn, **options)
