"""How exact products are cut into tiles: the one place where shapes choose tiles, warps, stages and splits.

A plan is chosen by shapes and by what a device's shared memory holds. All plans have the same bits: sums are integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from dettriton._rehearsal import current_rehearsal
from dettriton.ops._launch import Variant, blocks

MOST_TERMS = 1 << 17
"""Terms an int32 accumulator can hold: three products of at most 2**12 a term, and the carry of the digit below."""

MULTIPROCESSORS = 132
"""Programs that keep a large GPU busy; fewer are worth smaller tiles and a split of the terms."""

SPLIT_TERMS = 2048
"""Terms worth a program of their own where the tiles are too few."""

PADDING = 128
"""Terms of digit planes end at a multiple of this, so that no tile needs a mask along them."""


@dataclass(frozen=True)
class Plan:
    """The tile of one program and how it is pipelined.

    Attributes:
        block_m, block_n: results of a tile.
        block_k: terms loaded at a time, a divisor of :data:`PADDING`.
        num_warps: of each program.
        num_stages: tiles of terms on their way at a time.
        split_terms: terms of one program at most, or None to choose by shape.
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    split_terms: int | None = None

    @property
    def constants(self) -> dict[str, int]:
        return {"BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "BLOCK_K": self.block_k, "PARTS": self.parts}

    @property
    def parts(self) -> int:
        """How many runs of columns are finished one after another, so that 64-bit totals never fill the registers."""
        results = self.block_m * self.block_n // (32 * self.num_warps)
        return 8 if results >= 64 else 2 if results >= 32 else 1

    @property
    def options(self) -> dict[str, int]:
        return {"num_warps": self.num_warps, "num_stages": self.num_stages}

    def tiles(self, rows: int, columns: int) -> int:
        return blocks(rows, self.block_m) * blocks(columns, self.block_n)

    def shared_bytes(self, digits: int) -> int:
        return self.num_stages * digits * (self.block_m + self.block_n) * self.block_k


LARGE = {3: Plan(128, 64, 128, 8, 3), 2: Plan(128, 128, 128, 8, 3)}
"""By digits. All accumulators of a tile stay in registers, five of 128 x 64 or three of 128 x 128, so that every digit
is loaded once for all the products it takes part in: 256 operations for each byte read."""

SMALL = {3: Plan(64, 64, 64, 4, 3), 2: Plan(64, 64, 64, 4, 3)}
"""Where larger tiles would leave multiprocessors idle or be half empty."""

NARROW = {3: Plan(64, 32, 64, 4, 3), 2: Plan(64, 64, 64, 4, 3)}
"""Where blocks have less shared memory: operands of those GPUs' matrix instructions take registers too."""

FORCED: Plan | None = None
"""Replaces every choice: proofs that no plan moves a bit set it."""


def planned(plan: Plan, constants: Mapping[str, Any]) -> Variant:
    """What to compile ahead of time for a plan."""
    return Variant({**constants, **plan.constants}, plan.num_warps, plan.options)


def shared_limit(device: torch.device) -> int:
    """Bytes of shared memory that one block may take on this device, or on the one that a rehearsal stands for."""
    rehearsed = current_rehearsal()
    return _shared_limit(device) if rehearsed is None else rehearsed.gpu.shared_bytes


@cache
def _shared_limit(device: torch.device) -> int:
    if device.type != "cuda":
        return 1 << 30
    properties = torch.cuda.get_device_properties(device)
    return getattr(properties, "shared_memory_per_block_optin", 0) or properties.shared_memory_per_block


def _fitting(digits: int, device: torch.device) -> Plan:
    """The largest tile for a device."""
    plan = LARGE[digits]
    if plan.shared_bytes(digits) > shared_limit(device):
        return NARROW[digits]
    # Triton keeps one more stage on Blackwell, so blocks are shorter there.
    return for_runs(plan, PADDING // 2) if generation(device) == 10 else plan


def generation(device: torch.device) -> int:
    """The first number of the compute capability of this device, or of the one that a rehearsal stands for."""
    rehearsed = current_rehearsal()
    return _generation(device) if rehearsed is None else rehearsed.gpu.generation


@cache
def _generation(device: torch.device) -> int:
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0


def choose(
    digits: int, rows: int, columns: int, terms: int, device: torch.device, *, problems: int = 1, run: int | None = None
) -> Plan:
    """The plan of ``problems`` products of (rows, terms) with (terms, columns), its ``split_terms`` filled in.

    ``run`` is for terms that come in runs, each padded to whole blocks: see :func:`for_runs`.
    """
    if FORCED is not None:
        plan = FORCED
    else:
        plan = _fitting(digits, device)
        programs = plan.tiles(rows, columns) * problems * max(terms // SPLIT_TERMS, 1)
        half_empty = rows <= plan.block_m // 2 or columns <= plan.block_n // 2
        if plan != NARROW[digits] and (programs < MULTIPROCESSORS or half_empty):
            plan = SMALL[digits]
        if run is not None:
            plan = for_runs(plan, run)
    each = plan.split_terms
    if each is None:
        wanted = MULTIPROCESSORS // max(plan.tiles(rows, columns) * problems, 1)
        each = max(blocks(terms, max(wanted, 1)), SPLIT_TERMS)
    each = max(min(each, MOST_TERMS), 1)
    return replace(plan, split_terms=blocks(each, plan.block_k) * plan.block_k)


def for_runs(plan: Plan, run: int) -> Plan:
    """The plan with the block that pads runs of so many terms least, the larger of equals."""
    sizes = (k for k in (PADDING, PADDING // 2, PADDING // 4) if k <= plan.block_k)
    block_k = min(sizes, key=lambda k: (blocks(run, k) * k, -k))
    return plan if block_k == plan.block_k else replace(plan, block_k=block_k, num_stages=plan.num_stages + 1)
