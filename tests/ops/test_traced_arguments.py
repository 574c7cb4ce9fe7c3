"""Public ops under torch.compile: the same results, gradients, types and changes in place, whatever the arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from call_table import CALLS, Call, with_tensors
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from dettriton import nn, ops
from dettriton.digest import digest
from dettriton.exact.philox import Stream
from dettriton.ops._compile import OPAQUE, Values, registered, written

OPS = sorted({c.op for c in CALLS})

LENGTH_DEPENDS_ON_DATA = ("bincount",)
"""Ops whose fake results have a length that only a graph has a symbol for."""


def compiled(fn: Callable) -> Callable:
    torch._dynamo.reset()
    return torch.compile(fn, fullgraph=True, backend="aot_eager")


def fresh(call: Call) -> tuple[tuple, dict[str, Any]]:
    return with_tensors((call.args, call.kwargs), lambda t: t.detach().clone().requires_grad_(t.requires_grad))


def tensors_of(values: Any) -> list[torch.Tensor]:
    return [v for v in tree_leaves(values) if isinstance(v, torch.Tensor)]


def gradients(results: Any, arguments: Any) -> list[torch.Tensor]:
    sloped = [r for r in tensors_of(results) if r.requires_grad]
    leaves = [t for t in tensors_of(arguments) if t.requires_grad]
    slopes = [torch.linspace(0.5, 1.5, r.numel()).view(r.shape).to(r.dtype) for r in sloped]
    found = torch.autograd.grad(sloped, leaves, slopes, allow_unused=True) if sloped and leaves else []
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=False)]


def described(values: Any) -> list[tuple]:
    return [(tuple(t.shape), t.dtype) for t in tensors_of(values)]


def bits(values: Any) -> str:
    return digest({str(i): t.detach() for i, t in enumerate(tensors_of(values))})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op", OPS)
def test_verify_a_graph_takes_the_arguments_of_the_op(op: str):
    calls = [c for c in CALLS if c.op == op]
    eager, traced = [fresh(c) for c in calls], [fresh(c) for c in calls]
    fn = getattr(ops, op)

    def every(arguments):
        return [fn(*args, **kwargs) for args, kwargs in arguments]

    ours, theirs = every(eager), compiled(every)(traced)
    for number, call in enumerate(calls):
        where = f"{op}, call {number}: {call}"
        a, b = ours[number], theirs[number]
        assert type(a) is type(b), where
        assert described(a) == described(b), where
        assert [r.requires_grad for r in tensors_of(a)] == [r.requires_grad for r in tensors_of(b)], where
        assert bits(a) == bits(b), where
    for number, (a, b) in enumerate(zip(gradients(ours, eager), gradients(theirs, traced), strict=True)):
        assert described(a) == described(b) and bits(a) == bits(b), f"{op}: gradient of leaf {number}"
    assert bits(eager) == bits(traced), "changed in place"
    assert [t.requires_grad for t in tensors_of(eager)] == [t.requires_grad for t in tensors_of(traced)]


def operator_results(call: Call, layout: Callable[[torch.Tensor], torch.Tensor]) -> tuple[list, list, list]:
    """What the opaque operator is given, what it returns, and its fake results."""
    opaque = OPAQUE[call.op]
    registered(call.op)
    args, kwargs = with_tensors((call.args, call.kwargs), lambda t: layout(t.detach()).requires_grad_(t.requires_grad))
    values = Values([], [], [])
    text = written((args, kwargs), values)
    changed = opaque.changed(args, kwargs)
    places = [i for i, t in enumerate(values.tensors) if any(t is c for c in changed)]
    operator = getattr(torch.ops.dettriton, call.op)
    detached = [t.detach() for t in values.tensors]
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(t) for t in detached]
        fake = operator(text, fakes, values.integers, values.floats, places)
    return values.tensors, operator(text, values.tensors, values.integers, values.floats, places), fake


def channels_last(t: torch.Tensor) -> torch.Tensor:
    return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t.clone()


@pytest.mark.parametrize("layout", [torch.clone, channels_last], ids=["contiguous", "channels last"])
def test_verify_fake_results_are_like_the_real_ones_which_alias_nothing(layout: Callable):
    for number, call in enumerate(CALLS):
        if call.op in LENGTH_DEPENDS_ON_DATA:
            continue
        given, real, fake = operator_results(call, layout)
        where = f"{number}: {call}"
        assert described(real) == described(fake), where
        assert [r.stride() for r in real] == [r.stride() for r in fake], where
        memory = [t.untyped_storage().data_ptr() for t in (*given, *real) if t.numel()]
        assert len(set(memory)) == len(memory), where


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op", ["relu", "pad", "dropout", "batch_norm", "interpolate", "adaptive_avg_pool2d"])
def test_verify_gradients_keep_the_fakes_layout(op: str):
    """A gradient that came back in other strides than a compiler was told would be read as other numbers."""
    registered(op)
    operator = getattr(torch.ops.dettriton, f"{op}_gradient")
    arguments = {
        "pad": "((T[0],(I[0],I[0],),),{})",
        "dropout": "((T[0],F[0],),{'rng':Stream(I[0],I[0],I[0],)})",
        "batch_norm": "((T[0],None,None,),{'training':True,})",
        "interpolate": "((T[0],(I[1],I[2],),),{})",
        "adaptive_avg_pool2d": "((T[0],(I[1],I[2],),),{})",
    }.get(op, "((T[0],),{})")
    given = (channels_last(torch.randn(2, 3, 4, 5)), channels_last(torch.randn(2, 3, 4, 5)))
    real = operator(arguments, [given[0]], [0, 4, 5], [0.5], [given[1]], [True], [True])
    with FakeTensorMode() as mode:
        x, g = map(mode.from_tensor, given)
        fake = operator(arguments, [x], [0, 4, 5], [0.5], [g], [True], [True])
    assert [r.stride() for r in real] == [r.stride() for r in fake]
    assert not {r.untyped_storage().data_ptr() for r in real} & {t.untyped_storage().data_ptr() for t in given}


@pytest.mark.parametrize("op", ["max", "min", "median", "nanmedian"])
def test_named_results_keep_their_names(op: str):
    fn = getattr(ops, op)

    def named(x):
        found = fn(x, dim=1)
        values, indices = found
        return found.values + values, found.indices, indices, isinstance(found, getattr(torch.return_types, op)), found

    x = torch.randn(3, 4)
    eager, traced = named(x), compiled(named)(x)
    assert eager[3] and traced[3] and type(eager[4]) is type(traced[4])
    assert bits(eager) == bits(traced)


NUMBERS = {
    "floats": (lambda x, v: ops.leaky_relu(x, v), (0.1, 0.2, -0.3, float("inf"))),
    "dimensions": (lambda x, v: ops.softmax(x, v), (0, 1, -1)),
    "sizes": (lambda x, v: ops.pad(x, (v, 2 * v)), (1, 2, 3, 5)),
    "flags": (lambda x, v: ops.sum(x, 1, keepdim=v), (True, False)),
    "steps": (lambda x, v: ops.dropout(x, 0.5, rng=Stream(1, 2, v)), (0, 1, 2, 3, 2**40)),
    "shapes": (lambda x, v: ops.rand(*x[:v].shape, rng=Stream(4), device=x.device), (1, 2, 3, 4)),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_verify_numbers_may_change_between_calls(kind: str):
    fn, values = NUMBERS[kind]
    traced = compiled(fn)
    x = torch.randn(4, 5)
    for value in values:
        assert bits(fn(x, value)) == bits(traced(x, value)), value


def test_verify_shapes_may_change_between_calls():
    def fn(x, w):
        y = ops.interpolate(ops.conv2d(x, w, padding=1), size=(x.shape[2] * 2, x.shape[3] + 1), mode="bilinear")
        return ops.layer_norm(ops.max(y, 1).values, y.shape[-1:])

    traced = compiled(fn)
    w = torch.randn(3, 2, 3, 3)
    for shape in ((1, 2, 4, 5), (3, 2, 4, 5), (2, 2, 6, 7), (5, 2, 3, 8)):
        x = torch.randn(shape)
        assert bits(fn(x, w)) == bits(traced(x, w)), shape


def test_a_stream_that_moves_on_does_not_make_a_graph_for_each_step():
    graphs = []

    def counting(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    fn = torch.compile(lambda x, step: ops.dropout(x, 0.5, rng=Stream(1, 2, step)), fullgraph=True, backend=counting)
    x = torch.randn(4, 5)
    for step in range(2, 12):
        assert bits(fn(x, step)) == bits(ops.dropout(x, 0.5, rng=Stream(1, 2, step)))
    assert len(graphs) <= 2, "one for the first step, one for any other"


TRACKING = {
    "batch_norm": lambda x, mean, var: ops.batch_norm(x, mean, var, training=True),
    "batch_norm_relu": lambda x, mean, var: ops.batch_norm_relu(x, mean, var, None, None, True),
    "instance_norm": lambda x, mean, var: ops.instance_norm(x, mean, var),
}


@pytest.mark.parametrize("op", TRACKING)
def test_verify_statistics_are_tracked_over_steps(op: str):
    eager, traced = ([torch.zeros(3), torch.ones(3)] for _ in range(2))
    fn = compiled(TRACKING[op])
    for step in range(3):
        x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(step))
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        TRACKING[op](ours, *eager).square().sum().backward()
        fn(theirs, *traced).square().sum().backward()
        assert bits([ours.grad, *eager]) == bits([theirs.grad, *traced])
    assert not any(t.requires_grad for t in traced), "statistics are not part of a graph of gradients"
    assert bits(traced) != bits([torch.zeros(3), torch.ones(3)])


def test_defaults_say_what_is_changed():
    given = torch.randn(2, 3, 5), torch.zeros(3), torch.ones(3)
    named = {"input": given[0], "running_mean": given[1], "running_var": given[2]}
    tracked = [given[1], given[2]]

    def changed(op: str, args: tuple, kwargs: dict) -> list:
        return [id(t) for t in OPAQUE[op].changed(args, kwargs)]

    for op, default in {"instance_norm": True, "batch_norm": False, "batch_norm_relu": False}.items():
        flag = OPAQUE[op].mutation.while_
        assert changed(op, given, {}) == changed(op, (), named) == ([id(t) for t in tracked] if default else [])
        assert changed(op, given, {flag: True}) == changed(op, (*given, None, None, True), {}) == list(map(id, tracked))
        assert changed(op, given, {flag: False}) == changed(op, (*given, None, None, False), {}) == []
        assert changed(op, (given[0], None, None), {flag: True}) == []
    assert changed("relu", given[:1], {}) == []


def test_a_module_with_dropout_and_normalisation_trains_in_a_graph():
    def model():
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3, seed=5), nn.Linear(6, 2))

    eager, traced = model(), model()
    traced.load_state_dict(eager.state_dict())
    fn = compiled(traced)
    torch._dynamo.utils.counters.clear()
    x = torch.randn(8, 4)
    # Otherwise torch makes a graph for every value of a module's integer, here the step.
    with torch._dynamo.config.patch(allow_unspec_int_on_nn_module=True):
        for _ in range(12):
            eager(x).square().sum().backward()
            fn(x).square().sum().backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2
    assert bits([p.grad for p in eager.parameters()]) == bits([p.grad for p in traced.parameters()])
    assert bits(eager.state_dict()) == bits(traced.state_dict())
    assert eager[3].step == traced[3].step == 12
