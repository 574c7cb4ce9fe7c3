"""Compiling kernels ahead of time, for GPUs this machine need not have, and reading what the compiler made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dettriton.errors import EngineError
from dettriton.ops._launch import FP_FUSION, KERNELS, Kernel, Variant, triton
from dettriton.ops._resources import Resources, matrix_instructions, resources

TARGETS = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}

FORBIDDEN = {
    "ptx": {
        "fused multiply-add": re.compile(r"\bfma\.r[nzmp](\.ftz)?\.f32"),
        "approximate arithmetic": re.compile(r"\.approx\b|\bdiv\.full\.f32"),
        "flushed subnormals": re.compile(r"\.ftz\b"),
        "floating-point atomic": re.compile(r"\b(atom|red)\.\S*f(16|32|64)"),
    },
    "llir": {
        "fused multiply-add": re.compile(r"@llvm\.(fma|fmuladd)\.\S*f32"),
        "approximate arithmetic": re.compile(r"\bf(add|sub|mul|div)( \w+)* (fast|contract|afn|arcp|reassoc)\b"),
        "flushed subnormals": re.compile(r"denormal-fp-math(-f32)?\"=\"(preserve-sign|positive-zero)"),
        "floating-point atomic": re.compile(r"\batomicrmw (volatile )?f(add|sub|max|min)"),
    },
}
"""What the contract forbids in compiled code.

NVIDIA is read in PTX, whose separate multiplications and additions are never fused later. AMD is read in LLVM IR: in
its assembly, integer divisions and correctly rounded float ones are themselves made of fused steps.
"""

ZERO = re.compile(r"(%\S+) = arith\.constant (?:dense<)?0\.0+e\+00>? : ")


@dataclass(frozen=True)
class Compiled:
    """One kernel variant compiled for one target."""

    name: str
    target: str
    asm: Mapping[str, str]
    shared_bytes: int
    num_warps: int

    def violations(self) -> list[str]:
        """What in the compiled code breaks the contract, with the first instruction that does."""
        kind = "llir" if self.target.startswith("gfx") else "ptx"
        found = ((what, pattern.search(self.asm[kind])) for what, pattern in FORBIDDEN[kind].items())
        return [f"{what}: {match.group(0)}" for what, match in found if match] + self._negations()

    def _negations(self) -> list[str]:
        """Unary minus on floats, of which Triton 3.6 makes ``0 - x``, +0 for +0: kernels write ``x * -1.0``."""
        code = self.asm["ttir"]
        zeros = "|".join(re.escape(name) for name in ZERO.findall(code))
        found = re.search(rf"arith\.negf .*|arith\.subf (?:{zeros}), .*" if zeros else r"arith\.negf .*", code)
        return [f"negated float: {found.group(0)}"] if found else []

    def narrow_offsets(self) -> list[str]:
        """Where an address could wrap beyond 2**31 elements: 32 bits of a program's number, or of a 64-bit size.

        Sizes and strides are 64-bit arguments, so 32-bit offsets can otherwise only be constants, positions in a block
        and windows.
        """
        narrow: dict[str, str] = {}
        found = []
        for line in (line.strip() for line in self.asm["ttir"].splitlines()):
            if any(re.search(use, line) for use in narrow.values()):
                found.append(line)
            # Regions beside one another reuse names, so a name means what the last definition above made it.
            for name in re.findall(r"(%\S+?)(?::\d+)? = ", line):
                narrow.pop(name, None)
            if match := re.match(r"(%\S+) = tt\.get_program_id", line):
                narrow[match[1]] = rf"(?<!extsi ){re.escape(match[1])}\b(?! = )"
            elif match := re.match(r"(%\S+) = arith\.trunci \S+ : \S*i64\S* to \S*i32", line):
                narrow[match[1]] = rf"tt\.addptr %\S+, {re.escape(match[1])} "
        return found

    @property
    def uses_integer_tensor_cores(self) -> bool:
        code = self.asm["amdgcn" if self.target.startswith("gfx") else "ptx"]
        return bool(matrix_instructions(code))

    def resources(self) -> Resources:
        """Registers, stack, shared memory and matrix instructions, read from the compiled code."""
        return resources(self.asm, self.shared_bytes, self.num_warps)


def compile_kernel(kernel: Kernel, variant: Variant, target: str) -> Compiled:
    """Compile one variant of a kernel for a target of :data:`TARGETS`.

    Pointers are taken to be multiples of 16 bytes, as those of whole tensors are.

    Raises:
        EngineError: Triton is missing or interpreting.
    """
    if triton is None or not isinstance(kernel.fn, triton.runtime.jit.JITFunction):
        raise EngineError("compiling ahead of time needs Triton without TRITON_INTERPRET=1; unset it and start again")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {**kernel.defaults, **variant.constants}
    signature = {**kernel.signature, **dict.fromkeys(constants, "constexpr")}
    names = kernel.fn.arg_names
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    source = ASTSource(kernel.fn, {n: signature[n] for n in names}, constants, aligned)
    options = {**FP_FUSION, "num_warps": variant.num_warps, **variant.options}
    compiled = triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)
    return Compiled(kernel.name, target, compiled.asm, compiled.metadata.shared, compiled.metadata.num_warps)


def all_variants() -> list[tuple[Kernel, Variant]]:
    """Every declared kernel with every variant it names."""
    return [(kernel, variant) for kernel in KERNELS.values() for variant in kernel.variants]
