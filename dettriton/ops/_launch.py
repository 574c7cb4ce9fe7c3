"""Declaring and launching Triton kernels: the one place where they are compiled, so that no launch can fuse or forget.

Every kernel is launched with ``enable_fp_fusion=False`` (R1: no fused multiply-add) and is kept in :data:`KERNELS`
with a signature, so that it can be compiled ahead of time for a GPU that this machine does not have.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from dettriton._rehearsal import current_rehearsal
from dettriton.errors import EngineError

try:
    import triton
    import triton.language as tl
except ImportError:  # Triton has no wheels for this platform: the torch engine still works
    triton = None
    tl = SimpleNamespace(constexpr=lambda value: SimpleNamespace(value=value))

INTEGER = "i64"
"""The type of every size and stride that a kernel takes."""

FP_FUSION = {"enable_fp_fusion": False}

ALIGNMENT = 16
"""Bytes; Triton compiles anew for memory that does not begin at a multiple."""

UNALIGNED = " unaligned"

TYPE_NAMES = {
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "i1",
}
"""Triton's names of torch's types."""


def jit(fn: Callable, **options: Any) -> Callable:
    """``triton.jit``, or the plain function where Triton is not installed."""
    return fn if triton is None else triton.jit(fn, **options)


@dataclass(frozen=True)
class Variant:
    """One way to compile a kernel ahead of time: its compile-time constants, number of warps and other launch options."""

    constants: Mapping[str, Any]
    num_warps: int = 4
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeviceFunction:
    """A function that a kernel takes as a constant, by name, so that other processes can be told of it."""

    module: str
    name: str

    @classmethod
    def of(cls, value: Any) -> Any:
        """The name of a jitted function; any other constant as it is."""
        function = value if triton is None or not hasattr(value, "fn") else value.fn
        return cls(function.__module__, function.__qualname__) if callable(function) else value

    def load(self) -> Any:
        """The jitted function."""
        return vars(importlib.import_module(self.module))[self.name]


@dataclass(frozen=True)
class Launch:
    """What decides which code a launch needs: everything but the values of its arguments and its grid.

    Attributes:
        kernel: its name in :data:`KERNELS`.
        arguments: for each run-time argument its type, such as ``"i64"``, ``"*fp32"``, or ``"*fp32 unaligned"`` for
            memory that does not begin at a multiple of :data:`ALIGNMENT`.
        options: sorted constants and launch options, functions as :class:`DeviceFunction`.
    """

    kernel: str
    arguments: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, kernel: Kernel, arguments: Sequence[str], options: Mapping[str, Any]) -> Launch:
        """A launch of a kernel with argument types and the options of :meth:`Kernel.options`."""
        named = ((name, DeviceFunction.of(value)) for name, value in sorted(options.items()))
        return cls(kernel.name, tuple(arguments), tuple(named))

    @staticmethod
    def distinct(launches: Iterable[Launch]) -> list[Launch]:
        """Those that need different code, in the order of their first appearance."""
        found: dict[str, Launch] = {}
        for launch in launches:
            # by what is written: as a constant, True is another one than the equal 1
            found.setdefault(repr(launch), launch)
        return list(found.values())

    def functions(self) -> list[DeviceFunction]:
        """The functions that the kernel takes as constants."""
        return [value for _, value in self.options if isinstance(value, DeviceFunction)]


@dataclass
class Kernel:
    """A Triton kernel with what is needed to launch it and to compile it for any target.

    ``defaults`` are the constants that a launch need not name. ``overrides`` replaces them, ``num_warps`` and
    ``num_stages`` at every launch of this process: proofs that no launch option moves a bit fill it. A constant that a
    launch names is the host's plan and stays.
    """

    name: str
    fn: Any
    signature: Mapping[str, str]
    variants: tuple[Variant, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)

    def __call__(self, grid: tuple[int, ...], *args: Any, num_warps: int = 4, **constants: Any) -> None:
        """Launch over ``grid``; an empty grid launches nothing."""
        if triton is None:
            raise EngineError("Triton is not installed here; use engine 'torch' (tensors on the CPU)")
        if math.prod(grid) == 0:
            return
        options = self.options(num_warps, constants)
        rehearsed = current_rehearsal()
        if rehearsed is not None:
            rehearsed.launches.append(Launch.of(self, self._types_of(args), options))
            return
        device = next(a.device for a in args if isinstance(a, torch.Tensor))
        if device.type == "cuda":
            with torch.cuda.device(device):
                self.fn[grid](*args, **options)
        else:
            self.fn[grid](*args, **options)

    def options(self, num_warps: int, constants: Mapping[str, Any]) -> dict[str, Any]:
        """All constants and options of a launch that names these constants."""
        # The defaults are named, because Triton's interpreter evaluates them anew, when it first runs the kernel.
        return {**self.defaults, "num_warps": num_warps, **self.overrides, **constants, **FP_FUSION}

    def _types_of(self, args: Sequence[Any]) -> list[str]:
        return [
            _pointer_type(arg) if isinstance(arg, torch.Tensor) else declared
            for arg, declared in zip(args, self.signature.values(), strict=False)
        ]


def _pointer_type(tensor: torch.Tensor) -> str:
    """The type of a tensor's first element, whose memory is taken to begin at a multiple of :data:`ALIGNMENT`."""
    begins = tensor.storage_offset() * tensor.element_size()
    return f"*{TYPE_NAMES[tensor.dtype]}{UNALIGNED if begins % ALIGNMENT else ''}"


KERNELS: dict[str, Kernel] = {}


def kernel(signature: str, *variants: Variant) -> Callable[[Callable], Kernel]:
    """Declare a kernel.

    Args:
        signature: types of the run-time arguments in order, such as ``"*fp32 *i64 i64"``; the remaining arguments
            are compile-time constants.
        variants: the constants to compile it with ahead of time, at least one.
    """

    def declare(fn: Callable) -> Kernel:
        types = signature.split()
        names = fn.__code__.co_varnames[: fn.__code__.co_argcount]
        typed = dict(zip(names, types, strict=False))
        defaults = {n: p.default for n, p in inspect.signature(fn).parameters.items() if p.default is not p.empty}
        sizes = [name for name, type_ in typed.items() if type_ == INTEGER]
        # Left alone, Triton takes sizes below 2**31 as 32-bit, whose products overflow, and compiles anew for sizes of
        # 1 and multiples of 16. This way what is compiled ahead of time is what runs.
        fn.__annotations__ |= dict.fromkeys(sizes, INTEGER)
        compiled = jit(fn, do_not_specialize=sizes)
        declared = Kernel(fn.__name__, compiled, typed, variants or (Variant({}),), defaults)
        KERNELS[fn.__name__] = declared
        return declared

    return declare


def blocks(n: int, block: int) -> int:
    """How many blocks of ``block`` cover ``n``."""
    return -(-n // block)
