"""Compiling what launches will need, into Triton's own cache and under the key that a launch looks for.

Triton's key is a digest of the kernel's source, its constants, the types of its arguments, which pointers are aligned,
the launch options, the target, and Triton itself. Here Triton's own launch path computes it, up to the launch: its
arguments stand for tensors, and where there is no GPU, :func:`pretend` stands for its driver. So the entry is hit by
every launch with the same constants, types and alignment, on any GPU of the target.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch

import dettriton.optim  # noqa: F401 with its import all kernels are declared
from dettriton._rehearsal import Gpu
from dettriton.errors import EngineError
from dettriton.ops._aot import TARGETS, Compiled
from dettriton.ops._launch import (
    ALIGNMENT,
    KERNELS,
    TYPE_NAMES,
    UNALIGNED,
    DeviceFunction,
    Kernel,
    Launch,
    Variant,
    triton,
)

SHARED_BYTES = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}
"""Shared memory that one block may take, from the tables of the makers; tiles are chosen by it."""

LEAST_SHARED_BYTES = 99 << 10
"""What a block may take on NVIDIA's smaller GPUs since Ampere."""

_TYPES = {name: dtype for dtype, name in TYPE_NAMES.items()}
_SCALARS = {"i64": 2, "fp32": 0.5}


@dataclass(frozen=True)
class _Pointer:
    """What Triton asks of a tensor before it compiles."""

    dtype: torch.dtype
    address: int

    def data_ptr(self) -> int:
        return self.address

    def ptr_range(self) -> int:
        """AMD's compiler takes offsets below 2 GiB as 32-bit ones; larger tensors are compiled for anew."""
        return ALIGNMENT


@dataclass(frozen=True)
class _Driver:
    """A GPU that is not here, for as long as nothing is launched."""

    target: Any

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> str:
        """Triton keeps what it compiled by this, so no number that a GPU of this machine may have."""
        return f"pretended {self.target.arch}"

    def get_current_stream(self, device: str) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def require_compiler() -> None:
    """Raise unless this process can compile kernels.

    Raises:
        EngineError: Triton is missing or interpreting, or keeps only binaries.
    """
    if triton is not None and triton.knobs.compilation.store_binary_only:
        raise EngineError("TRITON_STORE_BINARY_ONLY keeps no code that could be checked; unset it and start again")
    if triton is None or not all(isinstance(k.fn, triton.runtime.jit.JITFunction) for k in KERNELS.values()):
        raise EngineError("compiling ahead of time needs Triton without TRITON_INTERPRET=1; unset it and start again")


def this_target() -> str:
    """The name of the GPU that is here, ``sm_90`` or ``gfx942`` for example.

    Raises:
        EngineError: there is none.
    """
    if not torch.cuda.is_available():
        raise EngineError(f"torch sees no GPU here, so name the one to compile for: --target {'|'.join(TARGETS)}")
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    if torch.version.hip:
        return properties.gcnArchName.partition(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def pretend(target: str) -> None:
    """From here on this process compiles for ``target``, and launches nothing.

    Args:
        target: one of :data:`dettriton.ops._aot.TARGETS`, or what :func:`this_target` gave.

    Raises:
        EngineError: it is neither.
    """
    from triton.backends.compiler import GPUTarget

    if target not in TARGETS and not re.fullmatch(r"sm_\d+", target):
        raise EngineError(f"kernels are not compiled for {target}; choose one of {', '.join(TARGETS)}")
    known = TARGETS.get(target) or ("cuda", int(target.removeprefix("sm_")), 32)
    triton.runtime.driver.set_active(_Driver(GPUTarget(*known)))


def gpu_of(target: str) -> Gpu:
    """What plans have to know of a GPU of a target; of one that is not known, what is true of every GPU."""
    number = re.fullmatch(r"sm_(\d+)\d", target)
    return Gpu(SHARED_BYTES.get(target, LEAST_SHARED_BYTES), int(number[1]) if number else 0)


def gpu_here() -> Gpu:
    """The same of the current GPU."""
    driver = triton.runtime.driver.active
    shared = driver.utils.get_device_properties(driver.get_current_device())["max_shared_mem"]
    return Gpu(shared, torch.cuda.get_device_capability()[0])


def variant_launch(kernel: Kernel, variant: Variant) -> Launch:
    """The launch that a declared variant stands for: whole tensors of the declared types."""
    options = kernel.options(variant.num_warps, {**variant.constants, **variant.options})
    return Launch.of(kernel, [type_ for name, type_ in kernel.signature.items() if name not in options], options)


def compile_launch(launch: Launch, target: str) -> Compiled:
    """Compile what a launch needs, or find it in Triton's cache.

    Args:
        launch: of this or another process.
        target: the name of what this process compiles for: its GPU, or what it pretends to have.
    """
    done = warm(launch)
    return Compiled(launch.kernel, target, done.asm, done.metadata.shared, done.metadata.num_warps)


def warm(launch: Launch) -> Any:
    """Triton's compiled kernel for a launch, made or taken from its cache and kept for this process's launches."""
    options = {n: v.load() if isinstance(v, DeviceFunction) else v for n, v in launch.options}
    return KERNELS[launch.kernel].fn.warmup(*map(_argument, launch.arguments), grid=(1,), **options)


def _argument(type_: str) -> Any:
    if not type_.startswith("*"):
        return _SCALARS[type_]
    name = type_.removeprefix("*").removesuffix(UNALIGNED)
    return _Pointer(_TYPES[name], 1 if type_.endswith(UNALIGNED) else ALIGNMENT)
