"""Which torch operations a network runs outside dettriton's own ops, and whether all of those are exact."""

import sys
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

import dettriton

OWN = tuple(str(Path(dettriton.__file__).parent / part) for part in ("ops", "exact"))

EXACT = {
    *("add.Tensor", "add_.Tensor", "mul.Tensor", "div.Tensor"),
    *("view", "_unsafe_view", "transpose.int", "permute", "unsqueeze", "squeeze.dim", "slice.Tensor", "select.int"),
    *("select_backward", "slice_backward", "unbind.int", "stack", "cat", "clone", "copy_", "detach", "constant_pad_nd"),
    *("new_empty_strided", "ones", "ones_like"),
}
"""Data movement, and R1 operations of two tensors whose gradients torch cannot write in two ways."""


def _inside_own_ops() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(OWN):
            return True
        frame = frame.f_back
    return False


class ForeignOps(TorchDispatchMode):
    """Collects the names of the aten operations that did not come from dettriton.ops, forward and backward."""

    def __init__(self):
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if not _inside_own_ops():
            name = str(func).removeprefix("aten.").removesuffix(".default")
            fused = (kwargs or {}).get("alpha", 1) != 1
            self.seen.add(f"{name} with alpha" if fused else name)
        return func(*args, **(kwargs or {}))
