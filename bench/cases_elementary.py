"""Cases of the elementary functions: every kind of binary32, their gradients, and hard inputs."""

from __future__ import annotations

import op_inputs as inputs
import torch
from op_case import HARD, Case, case, hard, hard_cases, positive

from dettriton.ops import elementary, power, trigonometric

FUNCTIONS = {
    **{n: getattr(elementary, n) for n in ("exp", "exp2", "expm1", "log", "log1p", "log2", "sigmoid", "tanh", "erf")},
    **{n: getattr(trigonometric, n) for n in ("sin", "cos", "tan", "atan")},
    **{n: getattr(power, n) for n in ("sqrt", "rsqrt")},
}
POSITIVE = ("log", "log1p", "log2", "sqrt", "rsqrt")


def _every_kind(key: str) -> torch.Tensor:
    return inputs.every_kind(1 << 14)


def _patterns(key: str) -> torch.Tensor:
    return inputs.patterns(key, 10_000)


def _of_one() -> list[Case]:
    found = []
    for name, fn in FUNCTIONS.items():
        regular = positive(3, 401) if name in POSITIVE else (3, 401)
        found += [
            case(name, "every kind", fn, "input", input=_every_kind),
            case(name, "noise", fn, "input", input=regular),
            *hard_cases(name, fn, "input", 100),
        ]
    return found


def _powers() -> list[Case]:
    pow = power.pow
    return [
        case("pow", "patterns", pow, "input exponent", input=_patterns, exponent=_patterns),
        case("pow", "noise", pow, "input exponent", input=positive(3, 401), exponent=(3, 401)),
        case("pow", "broadcast", pow, "input exponent", input=positive(5, 1, 7), exponent=(4, 1)),
        case("pow", "square", lambda input: pow(input, 2), "input", input=(3, 401)),
        case("pow", "cube root", lambda input: pow(input, 1 / 3), "input", input=positive(1025)),
        case("pow", "base 10", lambda exponent: pow(10.0, exponent), "exponent", exponent=(1025,)),
        *(
            case("pow", f"hard {kind}", pow, "input exponent", input=hard(kind, 100), exponent=hard(kind, 100))
            for kind in HARD
        ),
    ]


CASES: list[Case] = [*_of_one(), *_powers()]
