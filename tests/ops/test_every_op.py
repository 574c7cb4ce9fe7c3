"""What every public op promises, shown over the list of cases: any strides, torch.compile, a whole contract."""

import inspect
from collections.abc import Callable

import pytest
import torch
from gpu_parts import SAME, Side, compare_case
from op_case import Case
from op_cases import CASES

from dettriton import ops
from dettriton.ops._contract import CONTRACTS, FAMILIES

SMALL = [c for c in CASES if not c.large]
OF_OPS = [c for c in SMALL if c.op in ops.__all__]
ONE_EACH = list({c.op: c for c in reversed(OF_OPS)}.values())
A_QUARTER = ONE_EACH + [c for c in OF_OPS[::4] if c not in ONE_EACH]
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


def those_that_differ(cases: list[Case], layout: Callable) -> list[str]:
    return [c.name for c in cases if "hard" not in c.name and case_differs(c, layout=layout)]


def test_verify_strides_do_not_matter():
    assert those_that_differ(A_QUARTER, reversed_dims) == []


@pytest.mark.heavy
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_verify_strides_do_not_matter_to_any_case(layout: Callable):
    assert those_that_differ(OF_OPS, layout) == []


@pytest.mark.heavy
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@name_of
def test_verify_strides_do_not_matter_to_kernels(chosen: Case, layout: Callable):
    assert case_differs(chosen, engine="triton", layout=layout) is None


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
