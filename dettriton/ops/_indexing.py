"""What the indexing ops share: checked indices, the flat slots that an index along a dimension names, integer scatters.

Indices are looked at on the CPU alone. On a GPU, where looking would stall the device, an index out of range is left
out by what adds (its slot becomes SKIP), and stops the device in what only moves data, as in torch.
"""

import math

import torch

from dettriton.errors import InputError
from dettriton.ops._index_sum import SKIP


def dimension(op: str, x: torch.Tensor, dim: int) -> int:
    """``dim`` as a non-negative dimension of ``x``; a 0-dim tensor counts as one of a single dimension."""
    rank = max(x.dim(), 1)
    if not isinstance(dim, int) or not -rank <= dim < rank:
        raise InputError(f"{op}: dimension {dim} is out of range for a tensor of {x.dim()} dimensions")
    return dim % rank


def checked_index(op: str, index: torch.Tensor, size: int | None, name: str = "index") -> torch.Tensor:
    """``index`` as int64; on the CPU its values must lie in [0, size), or be any that is not negative for None."""
    if index.dtype not in (torch.int64, torch.int32):
        raise InputError(f"{op}: {name} must be torch.int64 or torch.int32, got {index.dtype}")
    index = index.to(torch.int64)
    if index.device.type != "cpu" or index.numel() == 0:
        return index
    low, high = (int(v) for v in torch.aminmax(index))
    if low < 0 or (size is not None and high >= size):
        flat = index.reshape(-1)
        wrong = (flat < 0) if size is None else (flat < 0) | (flat >= size)
        position = int(wrong.nonzero()[0])
        limit = "0 or more" if size is None else f"in [0, {size - 1}]" if size else "absent, as nothing can be indexed"
        raise InputError(
            f"{op}: {name} {int(flat[position])} at position {position} is out of range; it must be {limit}"
        )
    return index


def checked_along(op: str, index: torch.Tensor, dim: int, **others: torch.Tensor) -> torch.Tensor:
    """An index as gather and scatter take it: checked against ``input``'s size along ``dim``.

    Elsewhere it must not be larger than ``input``, and nowhere larger than the other tensors.
    """
    target = others.pop("input")
    for name, x in {"input": target, **others}.items():
        if max(x.dim(), 1) != max(index.dim(), 1):
            raise InputError(f"{op}: index has {index.dim()} dimensions and {name} has {x.dim()}; they must be equal")
        pairs = list(zip(index.shape, x.shape, strict=False))
        if any(i > s for d, (i, s) in enumerate(pairs) if d != dim or name != "input") and index.numel():
            raise InputError(
                f"{op}: index of shape {tuple(index.shape)} is larger than {name} of shape {tuple(x.shape)}"
            )
    return checked_index(op, index, target.shape[dim] if target.dim() else 1)


def flat_slots(index: torch.Tensor, dim: int, shape: torch.Size) -> torch.Tensor:
    """For each index, in row-major order, its element's place in a row-major tensor of ``shape``; (N,) int64.

    ``index`` holds positions along ``dim`` and sits at the origin of the other dimensions.
    """
    if index.dim() == 0 or not shape:
        index, shape = index.reshape(-1), torch.Size((1,))
    steps = [math.prod(shape[d + 1 :]) for d in range(index.dim())]
    place = index * steps[dim]
    for d in range(index.dim()):
        if d != dim:
            across = torch.arange(index.shape[d], dtype=torch.int64, device=index.device) * steps[d]
            place += across.view([-1 if e == d else 1 for e in range(index.dim())])
    if index.device.type != "cpu":
        # On a CPU they were all found in range; elsewhere nobody could look without stalling the device.
        place = torch.where((index >= 0) & (index < shape[dim]), place, SKIP)
    return place.reshape(-1)


def scatter_integers(start: torch.Tensor, slots: torch.Tensor, values: torch.Tensor, reduce: str) -> torch.Tensor:
    """``start`` (S,) with the integers of ``slots`` reduced into it by ``"sum"``, ``"amax"`` or ``"amin"``."""
    spilled = torch.cat((start, start.new_zeros(1)))
    place = torch.where((slots < 0) | (slots >= len(start)), len(start), slots)
    if reduce == "sum":
        return spilled.scatter_add_(0, place, values)[:-1]
    return spilled.scatter_reduce_(0, place, values, reduce)[:-1]


def count_slots(slots: torch.Tensor, size: int) -> torch.Tensor:
    """How many times each of ``size`` slots is named, as int64."""
    return scatter_integers(
        torch.zeros(size, dtype=torch.int64, device=slots.device), slots, torch.ones_like(slots), "sum"
    )


def last_writers(slots: torch.Tensor, size: int) -> torch.Tensor:
    """For each slot the highest position that names it, -1 for none."""
    nobody = torch.full((size,), -1, dtype=torch.int64, device=slots.device)
    return scatter_integers(nobody, slots, torch.arange(len(slots), dtype=torch.int64, device=slots.device), "amax")


def take(rows: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """The rows that ``slots`` names, zeros for SKIP or any other slot that there is not."""
    if rows.shape[0] == 0:
        return rows.new_zeros((len(slots), *rows.shape[1:]))
    taken = rows.index_select(0, slots.clamp(0, rows.shape[0] - 1))
    named = ((slots >= 0) & (slots < rows.shape[0])).view(-1, *(1 for _ in rows.shape[1:]))
    return torch.where(named, taken, torch.zeros((), dtype=rows.dtype, device=rows.device))


def rows_along(x: torch.Tensor, dim: int) -> torch.Tensor:
    """``x`` as a matrix whose rows are its slices along ``dim``."""
    moved = x.movedim(dim, 0)
    return moved.reshape(moved.shape[0], math.prod(moved.shape[1:]))


def from_rows(rows: torch.Tensor, dim: int, shape: torch.Size) -> torch.Tensor:
    """Undo :func:`rows_along` for a tensor of ``shape`` but for its size along ``dim``."""
    others = [s for d, s in enumerate(shape) if d != dim]
    return rows.view(rows.shape[0], *others).movedim(0, dim)
