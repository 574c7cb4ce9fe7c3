"""A GPU that is not there: ops run on fake CUDA tensors, which have no values, and whatever would wait for it is refused.

The Python that runs is what runs on a GPU while a CUDA graph is captured. A graph can hold it if it reads no value on
the host, copies nothing between host and device, and takes its shapes from shapes. Refused are:

* every read of a value or of a shape that depends on one (``item``, ``bool``, ``tolist``, ``nonzero``, boolean masks,
  ``unique``, printing), because a fake tensor has neither;
* every ATen operation that takes or gives tensors of both devices (``cpu``, ``torch.tensor(..., device=...)``, indexing
  with a list, a host scalar beside device tensors), and kernels given a host tensor;
* waiting for streams and events;
* every ATen operation outside :data:`LAUNCHES_KERNELS_ALONE`, a list that a person keeps, because some wait inside
  (``torch.histc``, ``torch.multinomial``).

Allowed is a copy from pinned memory that nobody waits for (:func:`dettriton.ops._tables.pinned_copy`). Not seen are what
an operation on that list does inside, and what Triton does at the first launch of a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dettriton.ops import _plans, _tables
from dettriton.ops._launch import Kernel

CUDA = torch.device("cuda", 0)
SHARED_BYTES, GENERATION = 227 << 10, 9
"""Of an H100."""

MAKING = "arange empty empty_like empty_strided full full_like new_empty new_zeros ones ones_like zeros zeros_like"
VIEWING = "alias detach device expand permute select slice split squeeze t transpose unbind unsqueeze view _unsafe_view"
MOVING = (
    "cat clone constant_pad_nd copy_ fill_ gather index index_select masked_fill scatter_ slice_backward stack where"
)
COUNTING = "all amax amin cummax scatter_add_ scatter_reduce scatter_reduce_ searchsorted sort sum"
BITS = "__lshift__ __rshift__ bitwise_and bitwise_and_ bitwise_not bitwise_or bitwise_right_shift_ bitwise_xor bitwise_xor_"
ARITHMETIC = "abs add add_ clamp div floor floor_divide maximum mul mul_ neg remainder round rsub sqrt sub trunc"
COMPARING = "eq ge gt le lt ne"
CONVERTING = "_to_copy scalar_tensor"
LAUNCHES_KERNELS_ALONE = frozenset(
    " ".join((MAKING, VIEWING, MOVING, COUNTING, BITS, ARITHMETIC, COMPARING, CONVERTING)).split()
)
"""ATen operations whose CUDA code neither waits nor copies to or from the host, unless an index is a mask."""

INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
MASKS = (torch.bool, torch.uint8)
WAITS = ("torch.cuda.synchronize", "torch.cuda.Stream.synchronize", "torch.cuda.Event.synchronize")
READ_BY = ("numpy", "__array__", "__repr__", "__format__")
READS = (DataDependentOutputException, DynamicOutputShapeException)
"""What a fake tensor raises where its value is read, or where a shape depends on it."""


class HostWaitsError(Exception):
    """Something that the host would wait for, or that no CUDA graph can hold."""


class Watch(TorchDispatchMode):
    """Sees every ATen operation; ``used`` are the names of those on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.used: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in INDEXED and any(i is not None and i.dtype in MASKS and i.device == CUDA for i in args[1]):
            raise HostWaitsError(f"{name} takes a mask, whose count the host would wait for")
        try:
            result = func(*args, **kwargs)
        except READS as error:
            raise HostWaitsError(f"{name} reads a value, or makes a shape of one, on the host") from error
        devices = {v.device.type for v in tree_leaves((args, kwargs, result)) if isinstance(v, torch.Tensor)}
        if len(devices) > 1:
            raise HostWaitsError(f"{name} copies between the host and the device, or takes tensors of both")
        if "cuda" in devices:
            self.used.add(name)
            if name not in LAUNCHES_KERNELS_ALONE:
                raise HostWaitsError(f"{name} is not in the list of operations that only launch kernels")
        return result


def _launched(kernel: Kernel, grid: tuple[int, ...], *args: Any, num_warps: int = 4, **constants: Any) -> None:
    for value in (*grid, *args, *constants.values()):
        if isinstance(value, torch.Tensor) and value.device != CUDA:
            raise HostWaitsError(f"{kernel.name} is given a tensor on {value.device}")


def _refuse(*_: Any, **__: Any) -> None:
    raise HostWaitsError("the host waits for the device")


def _refused_on_the_device(read: Callable) -> Callable:
    def refusing(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return _refuse() if self.device == CUDA else read(self, *args, **kwargs)

    return refusing


def _pinned_copy(table: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return table, torch.empty_strided(table.shape, table.stride(), dtype=table.dtype, device=device)


class PretendedGPU:
    """A GPU on which a CUDA graph is being captured."""

    def __init__(self) -> None:
        self._mode = FakeTensorMode()

    def tensor(self, like: torch.Tensor, requires_grad: bool = False) -> torch.Tensor:
        """A tensor on the GPU with the shape, strides and type of one on the host."""
        with self._mode:
            made = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=CUDA)
        return made.requires_grad_(requires_grad)

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        """What runs within raises :class:`HostWaitsError` where the host would wait."""
        with ExitStack() as patches:
            for name in WAITS:
                patches.enter_context(mock.patch(name, _refuse))
            for name in READ_BY:
                read = _refused_on_the_device(getattr(torch.Tensor, name))
                patches.enter_context(mock.patch.object(torch.Tensor, name, read))
            patches.enter_context(mock.patch("torch.cuda.is_current_stream_capturing", return_value=True))
            patches.enter_context(mock.patch.object(_tables, "pinned_copy", _pinned_copy))
            patches.enter_context(mock.patch.object(_tables, "_captured", []))
            patches.enter_context(mock.patch.object(Kernel, "__call__", _launched))
            patches.enter_context(mock.patch.object(_plans, "_shared_limit", lambda _: SHARED_BYTES))
            patches.enter_context(mock.patch.object(_plans, "_generation", lambda _: GENERATION))
            patches.enter_context(self._mode)
            yield patches.enter_context(Watch())


def backward(outputs: list[torch.Tensor]) -> None:
    """Run the gradients of all outputs as autograd does, whose engine asks for a device that is there."""
    received: dict[Any, list[torch.Tensor | None]] = {}
    for y in outputs:
        _add(received, y.grad_fn, y.output_nr, torch.ones_like(y))
    for node in _from_results_on([y.grad_fn for y in outputs]):
        if not hasattr(node, "variable"):
            grads = [_zeros(m) if g is None else g for g, m in zip(received[node], node._input_metadata, strict=True)]
            with torch.no_grad():
                found = _gradients(node, grads)
            edges = [edge for edge in node.next_functions if edge[0] is not None]
            for (following, place), grad in zip(edges, found, strict=True):
                _add(received, following, place, grad)


def _gradients(node: Any, grads: list[torch.Tensor]) -> list[torch.Tensor | None]:
    """The gradients that a node sends on, one for each of its edges."""
    if isinstance(node, BackwardCFunction):
        found = node.apply(*grads)
        wanted = node.needs_input_grad
    else:
        found = node(*grads)
        wanted = [following is not None for following, _ in node.next_functions]
    found = found if isinstance(found, tuple) else (found,)
    return [grad for grad, needed in zip(found, wanted, strict=True) if needed]


def _zeros(of: Any) -> torch.Tensor:
    return torch.zeros(of.shape, dtype=of.dtype, device=of.device)


def _add(received: dict[Any, list], node: Any, place: int, grad: torch.Tensor | None) -> None:
    grads = received.setdefault(node, [None] * len(node._input_metadata))
    if grad is not None:
        grads[place] = grad if grads[place] is None else grads[place] + grad


def _from_results_on(roots: list[Any]) -> list[Any]:
    """All nodes, each before those that its gradients go to."""
    done: dict[Any, None] = {}

    def visit(node: Any) -> None:
        if node is not None and node not in done:
            for following, _ in node.next_functions:
                visit(following)
            done[node] = None

    for root in roots:
        visit(root)
    return list(reversed(done))
