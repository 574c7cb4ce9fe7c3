"""What every public op promises, shown over the list of cases: any strides, no host synchronisation, torch.compile."""

import inspect
from collections.abc import Callable

import pytest
import torch
from gpu_parts import SAME, Side, compare_case
from op_case import Case
from op_cases import CASES
from torch.utils._python_dispatch import TorchDispatchMode

from dettriton import ops
from dettriton.ops._contract import CONTRACTS, FAMILIES
from dettriton.ops._launch import triton

SMALL = [c for c in CASES if not c.large]
OF_OPS = [c for c in SMALL if c.op in ops.__all__]
ONE_EACH = list({c.op: c for c in reversed(OF_OPS)}.values())
name_of = pytest.mark.parametrize("chosen", ONE_EACH, ids=lambda c: c.name)


def every_other(x: torch.Tensor) -> torch.Tensor:
    """The same numbers with a stride of 2 in the last dimension."""
    if x.dim() == 0:
        return x
    return torch.stack((x, torch.zeros_like(x)), dim=-1).flatten(-2)[..., ::2].detach()


def reversed_dims(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, the first dimension running fastest in memory."""
    dims = tuple(reversed(range(x.dim())))
    return x.permute(dims).contiguous().permute(dims).detach()


def channels_last(x: torch.Tensor) -> torch.Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.dim()]) if x.dim() in formats else x


LAYOUTS = (every_other, reversed_dims, channels_last)


def case_differs(chosen: Case, **how) -> str | None:
    return None if chosen.digest() == digest_of(chosen, **how) else chosen.name


def digest_of(chosen: Case, **how) -> str:
    from dettriton.digest import digest

    return digest(chosen.results(**how))


@pytest.mark.parametrize(
    "layout",
    [reversed_dims, pytest.param(every_other, marks=pytest.mark.heavy), channels_last],
    ids=lambda f: f.__name__,
)
def test_verify_strides_do_not_matter(layout: Callable):
    assert [c.name for c in OF_OPS if "hard" not in c.name and case_differs(c, layout=layout)] == []


@pytest.mark.heavy
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@name_of
def test_verify_strides_do_not_matter_to_kernels(chosen: Case, layout: Callable):
    assert case_differs(chosen, engine="triton", layout=layout) is None


SYNCHRONISING = ("nonzero", "masked_select", "equal", "unique_dim", "_unique2")
"""ATen operations whose result's shape is data, so that they wait for the device and no CUDA graph can hold them.

Reads of single numbers are not watched: on CPU tensors the ops check indices and prepare scalars with them, and which of
these reads would happen on a GPU cannot be seen here.
"""

ALLOWED = {
    "bincount": "the length of its result depends on its input",
}


class Watching(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = [i for i in args[1] if i is not None and i.dtype == torch.bool] if name == "index" else []
        if name in SYNCHRONISING or masks:
            self.seen.add(name)
        return func(*args, **(kwargs or {}))


@name_of
def test_verify_no_shape_depends_on_data(chosen: Case):
    given = chosen.inputs()
    for name in chosen.leaves:
        given[name].requires_grad_()
    from dettriton.engine import use_engine

    with use_engine("triton"), Watching() as watching:
        out = chosen.fn(**given)
        outputs = [y for y in (out.values() if isinstance(out, dict) else [out]) if y.requires_grad]
        if outputs:
            torch.autograd.backward(outputs, [torch.ones_like(y) for y in outputs])
    assert not watching.seen or chosen.op in ALLOWED, watching.seen


def compiled(fn: Callable) -> Callable:
    torch._dynamo.reset()
    return torch.compile(fn, fullgraph=True, backend="aot_eager")


COMPILED_IN_CI = ("relu", "matmul", "conv2d", "batch_norm", "layer_norm", "cross_entropy", "max_pool2d", "embedding")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "chosen",
    [pytest.param(c, marks=[] if c.op in COMPILED_IN_CI else pytest.mark.heavy) for c in ONE_EACH],
    ids=lambda c: c.name,
)
def test_verify_compiled_graphs_keep_the_bits(chosen: Case):
    assert case_differs(chosen, wrap=compiled) is None


def test_every_public_op_has_a_contract():
    assert {name: c.name for name, c in CONTRACTS.items() if name in ops.__all__} == {n: n for n in ops.__all__}
    assert set(CONTRACTS) == set(ops.__all__)


@pytest.mark.parametrize("op", sorted(ops.__all__))
def test_every_contract_is_whole(op: str):
    contract = CONTRACTS[op]
    assert contract.family in FAMILIES and contract.function is getattr(ops, op)
    assert contract.definition and contract.error and "|" not in contract.definition + contract.error
    text = inspect.getdoc(contract.function)
    assert text and all(part in text for part in ("Args:", "Returns:", "Raises:")), "its docstring lacks a part"


def test_two_sides_really_differ_where_they_should():
    """The comparison that the tests above rest on finds an op that looks at its strides."""
    broken = Case("relu", "strides", lambda x: x + float(x.stride(-1)), {"x": (3, 4)}, (), (), False)
    assert case_differs(broken, layout=every_other) == "relu/strides"
    assert compare_case(broken, Side("cpu", "triton"))["verdict"] == SAME


@pytest.mark.skipif(triton is None, reason="Triton is not installed")
def test_the_watch_sees_a_synchronisation():
    with Watching() as watching:
        x = torch.ones(3)
        x[x > 0]
        x.nonzero()
    assert watching.seen >= {"index", "nonzero"}
