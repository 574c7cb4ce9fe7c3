"""What compiled code takes of a multiprocessor: registers, stack, shared memory, and how many warps then fit on it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dettriton.errors import EngineError
from dettriton.ops._launch import triton

INSTRUCTIONS = {
    "wgmma": re.compile(r"wgmma\.mma_async\S*\.s8\.s8"),
    "tcgen05": re.compile(r"tcgen05\.mma\S*i8"),
    "mma": re.compile(r"mma\.sync\S*\.s8\.s8"),
    "mfma": re.compile(r"v_mfma_i32_\w*i8"),
}
"""The integer matrix instructions that int8 dots must become: of Hopper, Blackwell, Ampere and AMD."""


@dataclass(frozen=True)
class Multiprocessor:
    """The limits of one multiprocessor of an NVIDIA GPU, from the table of compute capabilities in its guide to CUDA.

    ``shared_bytes`` is for all blocks together, of which each takes ``reserved_bytes`` more than it asks for.
    """

    shared_bytes: int
    registers: int = 1 << 16
    warps: int = 64
    blocks: int = 32
    reserved_bytes: int = 1 << 10

    WARP = 32
    REGISTER_UNIT = 256
    WARP_UNIT = 4
    SHARED_UNIT = 128


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(164 << 10),
    "sm_90": Multiprocessor(228 << 10),
    "sm_100": Multiprocessor(228 << 10),
}


@dataclass(frozen=True)
class Occupancy:
    """How many blocks and warps of a kernel one multiprocessor holds at a time, and the share of its warps."""

    blocks: int
    warps: int
    share: float


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes.

    Attributes:
        registers: of each thread.
        stack_bytes: of each thread, which are spilled registers, because no kernel has arrays of its own.
        shared_bytes: of each block.
        num_warps: of each block.
        matrix_instructions: names of :data:`INSTRUCTIONS` in the code.
    """

    registers: int
    stack_bytes: int
    shared_bytes: int
    num_warps: int
    matrix_instructions: tuple[str, ...]

    def occupancy(self, target: str) -> Occupancy:
        """Blocks and warps on one multiprocessor of a target of :data:`MULTIPROCESSORS`.

        The rules are those of the CUDA C++ Programming Guide (compute capabilities) and of the occupancy calculator:
        registers are given to a warp in units of 256 and to warps in fours, shared memory to a block in units of 128
        bytes with 1 KiB more for the system, and no more than 64 warps or 32 blocks stay on a multiprocessor.

        Raises:
            EngineError: the limits of the target are not known.
        """
        if target not in MULTIPROCESSORS:
            known = ", ".join(MULTIPROCESSORS)
            raise EngineError(f"occupancy on {target} is not known; ask for one of {known}")
        of = MULTIPROCESSORS[target]
        a_warp = _up(max(self.registers, 1) * of.WARP, of.REGISTER_UNIT)
        warps = of.registers // a_warp // of.WARP_UNIT * of.WARP_UNIT
        a_block = _up(self.shared_bytes, of.SHARED_UNIT) + of.reserved_bytes
        blocks = min(of.blocks, min(warps, of.warps) // self.num_warps, of.shared_bytes // a_block)
        return Occupancy(blocks, blocks * self.num_warps, blocks * self.num_warps / of.warps)


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def matrix_instructions(code: str) -> tuple[str, ...]:
    """The names of the integer matrix instructions in PTX or AMD assembly, in the order of :data:`INSTRUCTIONS`."""
    return tuple(name for name, pattern in INSTRUCTIONS.items() if pattern.search(code))


def resources(asm: Mapping[str, str | bytes], shared_bytes: int, num_warps: int) -> Resources:
    """Read what a kernel takes from its code: a cubin of NVIDIA or assembly of AMD.

    Raises:
        EngineError: the code does not say, or Triton's own cuobjdump cannot read it.
    """
    if "amdgcn" in asm:
        said, code = asm["amdgcn"], asm["amdgcn"]
        registers, stack = r"\.vgpr_count:\s*(\d+)", r"\.private_segment_fixed_size:\s*(\d+)"
    else:
        said, code = _resource_usage(asm["cubin"]), asm["ptx"]
        registers, stack = r"\bREG:(\d+)", r"\bSTACK:(\d+)"
    found = [re.search(pattern, said) for pattern in (registers, stack)]
    if not all(found):
        raise EngineError(f"the compiled code does not tell its registers and stack: {said[-300:]!r}")
    return Resources(*(int(match[1]) for match in found), shared_bytes, num_warps, matrix_instructions(code))


def _resource_usage(cubin: bytes) -> str:
    tool = triton.knobs.nvidia.cuobjdump.path
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        done = subprocess.run([tool, "-res-usage", str(path)], capture_output=True, text=True)
    if done.returncode != 0:
        raise EngineError(f"{tool} could not read a cubin: {(done.stdout + done.stderr).strip()}")
    return done.stdout
