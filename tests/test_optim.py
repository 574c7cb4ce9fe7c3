import copy
import functools
import inspect
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from bits import same_bits

from dettriton import optim
from dettriton.engine import use_engine
from dettriton.errors import InputError
from dettriton.exact import _loops
from dettriton.ops import _optim_kernels
from dettriton.ops.norm import total_norm

SHAPES = [(3, 4), (), (5,), (2, 3, 1, 2), (1,)]
SETTINGS = {
    "sgd": ("SGD", {"lr": 0.05}),
    "sgd_decay": ("SGD", {"lr": 0.05, "weight_decay": 0.03}),
    "sgd_momentum": ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}),
    "sgd_dampening": ("SGD", {"lr": 0.05, "momentum": 0.7, "dampening": 0.3}),
    "sgd_nesterov": ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    "adam": ("Adam", {}),
    "adam_decay": ("Adam", {"lr": 3e-3, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    "adam_decoupled": ("Adam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "adam_no_memory": ("Adam", {"betas": (0.0, 0.0)}),
    "adamw": ("AdamW", {}),
    "adamw_strong": ("AdamW", {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.5}),
}
two_capabilities = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="this CPU has no AVX2 to compare with"
)
EACH_SETTING = pytest.mark.parametrize("setting", SETTINGS)


def parameters(dtype=torch.float32) -> list[torch.nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(s, generator=g).to(dtype)) for s in SHAPES]


def gradients(step: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(step + 1)
    return [torch.randn(s, generator=g) * 10.0 ** (step % 5 - 2) for s in SHAPES]


def train(params, optimizer, steps):
    for step in steps:
        for p, g in zip(params, gradients(step), strict=True):
            p.grad = g.to(p.dtype)
        optimizer.step()
    return [p.detach() for p in params]


def trained(setting: str, steps: int = 20, module=optim, dtype=torch.float32) -> list[torch.Tensor]:
    name, options = SETTINGS[setting]
    params = parameters(dtype)
    return train(params, getattr(module, name)(params, **options), range(steps))


def agree(first, second):
    return all(same_bits(a, b) for a, b in zip(first, second, strict=True))


def numpy_sgd(p, grads, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    lr, mu, rest, decay = (np.float32(c) for c in (lr, momentum, 1 - dampening, weight_decay))
    b = None
    for g in grads:
        g = g + decay * p if decay else g
        if mu:
            b = g if b is None else mu * b + rest * g
            g = g + mu * b if nesterov else b
        p = p - lr * g
    return p


def numpy_adam(p, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False):
    (b1, b2), f = betas, np.float32
    power1 = power2 = 1.0
    m = v = p * f(0)
    for g in grads:
        power1, power2 = power1 * b1, power2 * b2
        if weight_decay and decoupled_weight_decay:
            p = p * f(1 - lr * weight_decay)
        elif weight_decay:
            g = g + f(weight_decay) * p
        m = f(b1) * m + f(1 - b1) * g
        v = f(b2) * v + f(1 - b2) * (g * g)
        p = p - f(lr / (1 - power1)) * (m / (np.sqrt(v) / f(math.sqrt(1 - power2)) + f(eps)))
    return p


@EACH_SETTING
def test_validate_bits_against_numpy(setting):
    name, options = SETTINGS[setting]
    if name == "AdamW":
        options = {"weight_decay": 1e-2, **options, "decoupled_weight_decay": True}
    reference = numpy_sgd if name == "SGD" else numpy_adam
    history = [gradients(step) for step in range(20)]
    for i, (ours, start) in enumerate(zip(trained(setting), parameters(), strict=True)):
        expected = reference(start.detach().numpy(), [grads[i].numpy() for grads in history], **options)
        assert same_bits(ours, torch.as_tensor(expected, dtype=torch.float32).reshape(ours.shape))


@EACH_SETTING
def test_corroborate_torch_in_binary64(setting):
    for ours, stock in zip(trained(setting), trained(setting, 20, torch.optim, torch.float64), strict=True):
        torch.testing.assert_close(ours.double(), stock, rtol=2e-5, atol=2e-5)


@EACH_SETTING
def test_verify_resume_gives_the_same_bits(setting):
    name, options = SETTINGS[setting]
    params = parameters()
    first = getattr(optim, name)(params, **options)
    train(params, first, range(9))
    saved = copy.deepcopy(first.state_dict())
    optim.repeated_power(0.9, 5000)
    resumed = [torch.nn.Parameter(p.detach().clone()) for p in params]
    second = getattr(optim, name)(resumed)
    second.load_state_dict(saved)
    assert agree(train(resumed, second, range(9, 20)), trained(setting))


@EACH_SETTING
def test_verify_packing_does_not_matter(setting, monkeypatch):
    in_loops = trained(setting, 5)
    monkeypatch.setattr(optim, "compiles", lambda: False)
    packed = trained(setting, 5)
    assert agree(packed, in_loops)
    for limit in (1, 14):
        monkeypatch.setattr(optim, "_PACK_ELEMENTS", limit)
        assert agree(trained(setting, 5), packed)


@EACH_SETTING
def test_verify_threads_do_not_matter(setting, monkeypatch):
    alone = trained(setting, 5)
    monkeypatch.setattr(_loops, "SHARED_ELEMENTS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert agree(trained(setting, 5), alone)


@EACH_SETTING
def test_verify_memory_layout_does_not_matter(setting):
    name, options = SETTINGS[setting]
    g = torch.Generator().manual_seed(3)
    start, grads = torch.randn(2, 3, 4, 5, generator=g), torch.randn(6, 2, 3, 4, 5, generator=g)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        p = torch.nn.Parameter(start.clone().contiguous(memory_format=layout))
        optimizer = getattr(optim, name)([p], **options)
        for i, grad in enumerate(grads):
            p.grad = grad.contiguous(memory_format=layout if i % 2 else torch.contiguous_format)
            optimizer.step()
        results.append(p.detach().contiguous())
    assert agree(results[:1], results[1:])


@EACH_SETTING
def test_verify_parameters_are_independent(setting):
    """One without a gradient stays as it is, and one that starts late is like one that starts at once."""
    name, options = SETTINGS[setting]
    late, idle = parameters()[:2]
    early = torch.nn.Parameter(late.detach().clone())
    optimizer = getattr(optim, name)([late, idle, early], **options)
    before = idle.detach().clone()
    for step in range(6):
        for p, active in ((early, step < 3), (late, step >= 3)):
            p.grad = gradients(step % 3)[0] if active else None
        optimizer.step()
    assert same_bits(late.detach(), early.detach()) and same_bits(idle.detach(), before)


@EACH_SETTING
def test_verify_gradients_are_left_alone(setting):
    name, options = SETTINGS[setting]
    p = torch.nn.Parameter(torch.ones(7))
    optimizer = getattr(optim, name)([p], **options)
    for _ in range(2):
        p.grad = torch.linspace(-1, 1, 7)
        optimizer.step()
        assert same_bits(p.grad, torch.linspace(-1, 1, 7))


DIGESTS_OF_RUNS = """
import hashlib, torch
from dettriton import optim
g = torch.Generator().manual_seed(0)
start, grads = torch.randint(-2**23, 2**23, (2, 4099), generator=g).float() / 2**21
grads = grads * torch.tensor(0.37)
for module in (optim, torch.optim):
    for name, options in (("AdamW", {}), ("SGD", dict(lr=0.1, momentum=0.9, weight_decay=5e-4))):
        p = torch.nn.Parameter(start.clone())
        optimizer = getattr(module, name)([p], **options)
        for step in range(5):
            p.grad = grads * float(step + 1) if step % 2 else grads
            optimizer.step()
        print(hashlib.sha256(p.detach().numpy().tobytes()).hexdigest())
"""


@functools.cache
def digests(capability: str) -> tuple[list[str], list[str]]:
    """Hashes of the trained weights, ours and stock torch's, in a process with this CPU capability."""
    env = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DIGESTS_OF_RUNS]
    hashes = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    return hashes[:2], hashes[2:]


@pytest.mark.heavy
@two_capabilities
def test_verify_cpu_capability_does_not_matter():
    assert digests("default")[0] == digests("avx2")[0]


@pytest.mark.heavy
@two_capabilities
def test_stock_optimizers_do_depend_on_the_cpu():
    assert all(a != b for a, b in zip(digests("default")[1], digests("avx2")[1], strict=True))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_signatures_are_torchs(name):
    ours, stock = (inspect.signature(getattr(m, name)).parameters for m in (optim, torch.optim))
    assert list(ours) == list(stock)
    assert [(p.default, p.kind) for p in ours.values()] == [(p.default, p.kind) for p in stock.values()]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_torch_state_loads(name):
    options = {"momentum": 0.9} if name == "SGD" else {}
    ours, stock = parameters(), parameters()
    stock_optimizer = getattr(torch.optim, name)(stock, **options)
    train(stock, stock_optimizer, range(3))
    optimizer = getattr(optim, name)(ours)
    optimizer.load_state_dict(copy.deepcopy(stock_optimizer.state_dict()))
    for p, q in zip(ours, stock, strict=True):
        p.data.copy_(q.data)
    for p, q in zip(train(ours, optimizer, range(3, 6)), train(stock, stock_optimizer, range(3, 6)), strict=True):
        torch.testing.assert_close(p, q)


def test_groups_and_closure():
    params = parameters()[:2]
    optimizer = optim.SGD([{"params": params[:1], "lr": 1.0}, {"params": params[1:]}], lr=0.5)
    before = [p.detach().clone() for p in params]

    def closure():
        optimizer.zero_grad()
        loss = sum(p.sum() for p in params)
        loss.backward()
        return loss

    assert optimizer.step(closure) == sum(b.sum() for b in before)
    assert agree([p.detach() for p in params], [before[0] - 1.0, before[1] - 0.5])


def test_verify_repeated_power():
    optim.repeated_power(0.999, 100)
    for n in (0, 1, 7, 250, 30, 1001):
        value = 1.0
        for _ in range(n):
            value *= 0.999
        assert optim.repeated_power(0.999, n) == value


REFUSED = [
    ("SGD", {"lr": -1.0}),
    ("SGD", {"lr": torch.tensor(0.1)}),
    ("SGD", {"momentum": -0.1}),
    ("SGD", {"weight_decay": float("nan")}),
    ("SGD", {"nesterov": True}),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    ("SGD", {"maximize": True}),
    ("SGD", {"foreach": True}),
    ("Adam", {"amsgrad": True}),
    ("Adam", {"betas": (0.9, 1.0)}),
    ("Adam", {"betas": (0.9,)}),
    ("Adam", {"capturable": True}),
    ("AdamW", {"eps": -1e-8}),
    ("AdamW", {"fused": True}),
    ("AdamW", {"differentiable": True}),
]


@pytest.mark.parametrize("name, options", REFUSED, ids=str)
def test_bad_options_are_refused(name, options):
    with pytest.raises(InputError, match=next(iter(options))):
        getattr(optim, name)(parameters(), **options)


def test_bad_parameters_and_states_are_refused():
    p = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    p.grad = torch.zeros_like(p)
    with pytest.raises(InputError, match="float64"):
        optim.SGD([p]).step()
    stock = torch.optim.Adam(parameters(), amsgrad=True)
    with pytest.raises(InputError, match="amsgrad"):
        optim.Adam(parameters()).load_state_dict(stock.state_dict())


@EACH_SETTING
def test_verify_kernels_give_the_same_bits(setting):
    reference = trained(setting, 4)
    with use_engine("triton"):
        assert agree(trained(setting, 4), reference)


@pytest.mark.parametrize("setting", ["sgd_nesterov", "adam_decay"])
def test_verify_engines_can_change_during_training(setting):
    name, options = SETTINGS[setting]
    params = parameters()
    optimizer = getattr(optim, name)(params, **options)
    for step in range(6):
        with use_engine("triton" if step % 2 else "torch"):
            train(params, optimizer, [step])
    assert agree([p.detach() for p in params], trained(setting, 6))


@pytest.mark.parametrize("setting", ["sgd_momentum", "adamw"])
def test_verify_kernels_on_any_size_and_memory_layout(setting):
    """Chunks and their tails, empty tensors, other memory orders, and a view with gaps, which no kernel takes."""
    name, options = SETTINGS[setting]
    sizes = [_optim_kernels.CHUNK + 1025, 0, 1]

    def run():
        g = torch.Generator().manual_seed(5)
        params = [torch.randn(n, generator=g) for n in sizes]
        params.append(torch.randn(2, 3, 4, 5, generator=g).contiguous(memory_format=torch.channels_last))
        params.append(torch.randn(6, 8, generator=g)[:, ::2])
        params = [torch.nn.Parameter(p) for p in params]
        optimizer = getattr(optim, name)(params, **options)
        for step in range(3):
            for p in params:
                p.grad = torch.randn(p.shape, generator=g) if step else torch.randn((), generator=g).expand(p.shape)
            optimizer.step()
        return [p.detach().contiguous() for p in params]

    with use_engine("triton"):
        kernels = run()
    assert agree(kernels, run())


def test_verify_tables_follow_the_addresses():
    params = parameters()[:2]
    rows = [[p, torch.ones_like(p)] for p in params]
    tables = _optim_kernels.tables_for(rows)
    assert _optim_kernels.tables_for(rows) is tables
    assert tables.addresses.tolist() == [[p.numel(), p.data_ptr(), g.data_ptr()] for p, g in rows]
    assert tables.chunks.tolist() == [[0, 0], [1, 0]]
    moved = [[p, g.clone()] for p, g in rows]
    assert _optim_kernels.tables_for(moved) is not tables
    for i in range(2 * _optim_kernels.KEPT_TABLES):
        _optim_kernels.tables_for([[torch.zeros(i + 1)]])
    assert len(_optim_kernels._tables) == _optim_kernels.KEPT_TABLES


@pytest.mark.parametrize("engine", ["torch", "triton"])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_autograd_sees_what_was_changed(name, engine):
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    loss = p.square().sum()
    with use_engine(engine):
        getattr(optim, name)([p]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def with_gradients(*values):
    found = []
    for v in values:
        p = torch.nn.Parameter(torch.zeros_like(v))
        p.grad = v.clone()
        found.append(p)
    return found


def spread_gradients():
    g = torch.Generator().manual_seed(2)
    return [torch.randn(s, generator=g) * 10.0**i for i, s in enumerate([(3, 4), (), (5,), (0,), (2, 3)])]


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.7, 1e9])
def test_verify_clipping_by_norm(norm_type, max_norm):
    values = spread_gradients()
    expected_norm = total_norm(values, norm_type)
    factor = torch.tensor(max_norm) / (expected_norm + torch.tensor(1e-6))
    scaled = [v * torch.where(factor > 1, torch.tensor(1.0), factor) for v in values]
    stock = with_gradients(*(v for v in values if v.numel()))
    stock_norm = torch.nn.utils.clip_grad_norm_(stock, max_norm, norm_type)
    for engine in ("torch", "triton"):
        params = with_gradients(*values)
        with use_engine(engine):
            norm = optim.clip_grad_norm_(iter(params), max_norm, norm_type)
        assert same_bits(norm, expected_norm) and agree([p.grad for p in params], scaled)
        torch.testing.assert_close(norm, stock_norm, rtol=1e-6, atol=0)
        for p, q in zip((p for p in params if p.numel()), stock, strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=0)


def test_verify_clipping_does_not_depend_on_how_gradients_are_cut_or_stored():
    whole = torch.randn(6, 40, generator=torch.Generator().manual_seed(3))
    (together,) = with_gradients(whole)
    parts = with_gradients(*whole)
    strided = with_gradients(whole)[0]
    strided.grad = torch.zeros(6, 80)[:, ::2].copy_(whole)
    norms = []
    for params in ([together], parts, [strided]):
        with use_engine("triton"):
            norms.append(optim.clip_grad_norm_(params, 1.0))
    assert agree(norms[1:], norms[:1] * 2)
    assert same_bits(torch.stack([p.grad for p in parts]), together.grad)
    assert same_bits(strided.grad.contiguous(), together.grad)
    assert not same_bits(together.grad, whole)


def test_clipping_without_gradients_or_with_infinite_ones():
    assert optim.clip_grad_norm_([torch.nn.Parameter(torch.zeros(3))], 1.0) == 0
    params = with_gradients(torch.tensor([1.0, math.inf]))
    with pytest.raises(InputError, match="error_if_nonfinite=False"):
        optim.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert params[0].grad.tolist() == [1.0, math.inf]
    optim.clip_grad_norm_(params[0], 1.0)
    assert bool(params[0].grad[1].isnan())


@pytest.mark.parametrize("engine", ["torch", "triton"])
def test_verify_clipping_by_value(engine):
    values = torch.tensor([-3.0, -0.3, -0.0, 0.0, 0.2, math.inf, -math.inf, math.nan])
    (p,) = with_gradients(values)
    with use_engine(engine):
        assert optim.clip_grad_value_(p, 0.3) is None
    limit = float(torch.tensor(0.3))
    assert same_bits(p.grad[:-1], torch.tensor([-limit, -0.3, -0.0, 0.0, 0.2, limit, -limit]))
    assert bool(p.grad[-1].isnan())


@pytest.mark.parametrize("name", ["clip_grad_norm_", "clip_grad_value_"])
def test_clipping_is_torchs_signature_and_refuses_what_it_cannot(name):
    ours, stock = (inspect.signature(f).parameters for f in (getattr(optim, name), getattr(torch.nn.utils, name)))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in stock.values()]
    clip = getattr(optim, name)
    with pytest.raises(InputError, match="foreach"):
        clip(parameters(), 1.0, foreach=True)
    half = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    half.grad = torch.zeros_like(half)
    with pytest.raises(InputError, match="float64"):
        clip([half], 1.0)
    with pytest.raises(InputError, match="clip_value must be at least 0"):
        optim.clip_grad_value_(parameters(), -1.0)
