"""No public op makes the host wait for a GPU, so that a CUDA graph can hold it; the exceptions are listed with reasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from call_table import CALLS, Call, with_tensors
from op_case import Case
from op_cases import CASES
from pretended_gpu import CUDA, HostWaitsError, PretendedGPU, backward
from torch.utils._pytree import tree_leaves

from dettriton import ops
from dettriton.errors import InputError
from dettriton.ops._elementwise import _map1_kernel, evaluate
from dettriton.ops.relu import RELU

MAKES_TENSORS = ("rand", "randn", "randint", "randperm")
"""Ops that are told their device."""


class Waiting(NamedTuple):
    """Uses of an op that need the host: why, which of its cases, and which of its calls, by their arguments."""

    op: str
    why: str
    cases: tuple[str, ...]
    calls: Callable[[tuple], bool]


def _joined(args: tuple) -> bool:
    return args[0].dim() == 3 and args[1].dim() == 1


def _lengths_on_the_host(args: tuple) -> bool:
    return not all(isinstance(lengths, torch.Tensor) for lengths in args[2:4])


def _masked(args: tuple) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])


NEED_THE_HOST = (
    Waiting("bincount", "its result is as long as its largest value", ("counts", "weights"), lambda _: True),
    Waiting("ctc_loss", "targets one after the other are padded to the longest, whose length is data", (), _joined),
    Waiting("ctc_loss", "lengths given on the host are copied to the device", ("joined",), _lengths_on_the_host),
    Waiting("index_put", "the count of a mask is data; on a GPU masks are refused", (), _masked),
)
"""All others must not make the host wait, and these must, so that the list stays true."""


def results_and_gradients(fn: Callable, *args: Any, **kwargs: Any) -> set[str]:
    """Run on the pretended GPU; the names of the ATen operations used."""
    gpu = PretendedGPU()
    args, kwargs = with_tensors((args, kwargs), lambda t: gpu.tensor(t, t.requires_grad))
    with gpu.watched() as watch:
        results = [r for r in tree_leaves(fn(*args, **kwargs)) if isinstance(r, torch.Tensor)]
        assert {r.device for r in results} <= {CUDA}
        sloped = [r for r in results if r.requires_grad and r.grad_fn is not None]
        if sloped:
            backward(sloped)
    return watch.used


def run_case(case: Case) -> None:
    given = case.inputs()
    for name in case.leaves:
        given[name].requires_grad_()
    results_and_gradients(case.fn, **given)


def run_call(call: Call) -> None:
    device = {"device": CUDA} if call.op in MAKES_TENSORS else {}
    results_and_gradients(getattr(ops, call.op), *call.args, **{**call.kwargs, **device})


def waits_where(expected: bool, run: Callable, use: Case | Call) -> bool:
    """Whether it waits where it is expected to; anything else that goes wrong is raised."""
    try:
        run(use)
    except (HostWaitsError, InputError):
        if not expected:
            raise
        return True
    return not expected


@pytest.mark.parametrize("op", sorted(ops.__all__))
def test_verify_the_host_does_not_wait(op: str):
    waiting = [w for w in NEED_THE_HOST if w.op == op]
    cases = [c for c in CASES if c.op == op and not c.large and "hard" not in c.configuration]
    assert cases
    for case in cases:
        assert waits_where(any(case.configuration in w.cases for w in waiting), run_case, case), case.name
    for call in (c for c in CALLS if c.op == op):
        assert waits_where(any(w.calls(call.args) for w in waiting), run_call, call), call


def _written(x: torch.Tensor, key: Any, value: Any) -> torch.Tensor:
    y = x.detach().clone()
    y[key] = value
    return y


WAIT: dict[str, Callable[[torch.Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.sum()),
    "bool": lambda x: bool((x > 0).all()),
    "if": lambda x: x if x.sum() > 0 else -x,
    "index by a tensor": lambda x: [1, 2][x.sum().long()],
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.detach().numpy(),
    "format": lambda x: f"{x.sum():.3f}",
    "str": lambda x: str(x),
    "Python's max": lambda x: max(x[0]),
    "in": lambda x: 1.0 in x,
    "nonzero": lambda x: x.nonzero(),
    "where of one": lambda x: torch.where(x > 0),
    "mask read": lambda x: x[x > 0],
    "mask written": lambda x: _written(x, x > 0, x[0, :1]),
    "mask filled": lambda x: _written(x, x > 0, 1.0),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: torch.unique(x),
    "unique_consecutive": lambda x: torch.unique_consecutive(x),
    "repeat_interleave": lambda x: torch.repeat_interleave(x[0].long()),
    "bincount": lambda x: torch.bincount(x[0].long()),
    "histc": lambda x: torch.histc(x.detach()),
    "multinomial": lambda x: torch.multinomial(x, 1),
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "cpu": lambda x: x.cpu(),
    "to the host": lambda x: x.to("cpu", non_blocking=True),
    "copied to the host": lambda x: torch.empty(x.shape).copy_(x),
    "copied from the host": lambda x: x.detach().clone().copy_(torch.ones(x.shape)),
    "torch.tensor": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "torch.tensor of a number": lambda x: torch.tensor(1.0, device=x.device),
    "torch.as_tensor": lambda x: torch.as_tensor([1, 2], device=x.device),
    "torch.asarray": lambda x: torch.asarray([1, 2], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1.0, 2.0]),
    "torch.tensor moved": lambda x: torch.tensor([1.0, 2.0]).to(x.device),
    "from_numpy": lambda x: torch.from_numpy(np.ones(2)).to(x.device),
    "list index": lambda x: x[[0, 1]],
    "list index written": lambda x: _written(x, [0, 1], 1.0),
    "host scalar added": lambda x: x + torch.full((), 2.0),
    "host scalar chosen": lambda x: torch.where(x > 0, x, torch.zeros(())),
    "host scalar written": lambda x: _written(x, 0, torch.zeros(())),
    "synchronize": lambda x: torch.cuda.synchronize(),
    "kernel with a host tensor": lambda x: _kernel_with(torch.ones(2)),
    "in a gradient": lambda x: _WaitsInGradient.apply(x),
}  # fmt: skip


class _WaitsInGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2.0

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * grad.sum().item()


def _kernel_with(x: torch.Tensor) -> None:
    _map1_kernel((1,), x, x, 2, 0.0, 0.0, FORMULA=RELU.device, SCALARS=0)


DO_NOT_WAIT: dict[str, Callable[[torch.Tensor], Any]] = {
    "arithmetic with numbers": lambda x: torch.where(x > 0, x * 2.0 + 1, 0.0) / 3,
    "filled on the device": lambda x: x + torch.full((), 2.0, device=x.device) + torch.arange(4, device=x.device),
    "indexed on the device": lambda x: x.detach()[torch.arange(2, device=x.device), None],
    "a kernel": lambda x: evaluate(RELU, x),
    "numbers of the host": lambda x: x * float(torch.tensor(0.1)),
}


@pytest.mark.parametrize("kind", WAIT)
def test_what_waits_is_refused(kind: str):
    with pytest.raises(HostWaitsError):
        results_and_gradients(WAIT[kind], torch.ones(3, 4).requires_grad_())


@pytest.mark.parametrize("kind", DO_NOT_WAIT)
def test_what_does_not_wait_is_not_refused(kind: str):
    assert results_and_gradients(DO_NOT_WAIT[kind], torch.ones(3, 4).requires_grad_())
