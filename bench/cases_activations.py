"""Cases of the activations and of the random numbers."""

from __future__ import annotations

from functools import partial

import torch
from op_case import Case, case, hard_cases, positive

from dettriton.exact.philox import Stream
from dettriton.ops.activation import elu, hardsigmoid, hardswish, leaky_relu, relu6
from dettriton.ops.random import bernoulli, rand, randint, randn, randperm
from dettriton.ops.smooth_activation import gelu, glu, mish, silu, softplus

RNG = Stream(11, 5, 2**34 + 3)
ACTIVATIONS = {
    "relu6": relu6,
    "leaky_relu": leaky_relu,
    "elu": partial(elu, alpha=0.7),
    "hardsigmoid": hardsigmoid,
    "hardswish": hardswish,
    "gelu": gelu,
    "silu": silu,
    "mish": mish,
    "softplus": softplus,
    "glu": glu,
}


def _activations() -> list[Case]:
    found = []
    for op, fn in ACTIVATIONS.items():
        found += [
            case(op, "tail", fn, "input", input=(3, 1026)),
            case(op, "transposed", lambda x, f=fn: f(x.t()), "x", x=(34, 20)),
            *hard_cases(op, fn, "input", 60),
        ]
    return [
        *found,
        case("gelu", "tanh", partial(gelu, approximate="tanh"), "input", input=(2000,)),
        case("softplus", "steep", partial(softplus, beta=3.0, threshold=5.0), "input", input=(500,)),
        case("glu", "channels", partial(glu, dim=1), "input", input=(2, 6, 5)),
    ]


def _random() -> list[Case]:
    """The unused input places the numbers on the device of the check."""
    return [
        case("rand", "plain", lambda x: rand(5, 401, rng=RNG, device=x.device), x=(1,)),
        case("rand", "later", lambda x: rand(999, rng=RNG, offset=2**33 + 7, device=x.device), x=(1,)),
        case("randn", "plain", lambda x: randn(2049, rng=RNG, device=x.device), x=(1,)),
        case("randn", "odd", lambda x: randn(10, rng=RNG, offset=5, device=x.device), x=(1,)),
        case("randint", "plain", lambda x: randint(-3, 1000, (50, 31), rng=RNG, device=x.device), x=(1,)),
        case("bernoulli", "plain", lambda p: bernoulli(p - 0.5, rng=RNG), p=positive(2000)),
        case("bernoulli", "certain", lambda p: bernoulli(torch.floor(p), rng=RNG), p=positive(50)),
        case("randperm", "plain", lambda x: randperm(1500, rng=RNG, device=x.device), x=(1,)),
    ]


CASES: list[Case] = [*_activations(), *_random()]
