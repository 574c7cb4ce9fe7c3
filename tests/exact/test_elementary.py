import hashlib
import math
from collections.abc import Sequence

import mpmath
import pytest
import torch
from bits import INF, NAN, raw, same_bits

from dettriton.engine import use_engine
from dettriton.errors import InputError
from dettriton.exact import elementary, elementary_more, power, trigonometric
from dettriton.exact import elementary_constants as constants
from dettriton.exact.ieee import CANONICAL_NAN_BITS, power_of_two
from dettriton.exact.philox import Stream, random_bits
from dettriton.ops import elementary as ops
from dettriton.ops._elementwise import evaluate

FIRST = ("exp", "log", "log1p", "sigmoid", "tanh")
MORE = ("exp2", "expm1", "log2", "atan", "erf")
WIDE = ("sin", "cos", "tan")
FUNCTIONS = {
    **{name: getattr(elementary, name) for name in FIRST},
    **{name: getattr(elementary_more, name) for name in MORE},
    **{name: getattr(trigonometric, name) for name in WIDE},
    "rsqrt": power.rsqrt,
}
NAMES = list(FUNCTIONS)
# the largest measured error in ulp, rounded up: the figures of the docstrings
BOUNDS = {
    **{"exp": 0.90, "log": 0.91, "log1p": 0.91, "sigmoid": 1.17, "tanh": 1.06},
    **{"exp2": 1.08, "expm1": 1.17, "log2": 1.25, "atan": 1.31, "erf": 1.36},
    **{"sin": 0.501, "cos": 0.501, "tan": 0.502, "rsqrt": 0.501},
}
# where it was found
WORST_INPUTS = {
    **{"exp": 0x409033D3, "log": 0x3F34E809, "log1p": 0xBE962FEE, "sigmoid": 0xC181D3D9, "tanh": 0x3F4309D0},
    **{"exp2": 0xBEFEA9B5, "expm1": 0x3EB2049C, "log2": 0x3FB37684, "atan": 0x3F8BC394, "erf": 0x3F8797D0},
    **{"sin": 0x5A6F9263, "cos": 0x403B94B0, "tan": 0x7053595D, "rsqrt": 0x407FFFFE},
}
EXACT = {
    **{name: getattr(mpmath, name) for name in NAMES if hasattr(mpmath, name)},
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "log2": lambda x: mpmath.log(x) / mpmath.log(2),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
}
BOUNDARIES = [
    *(0.0, 2.0**-149, 2.0**-126, 2.0**-64, 2.0**-24, 2.0**-12, 0.5, 1.0, 2.0, 2.0**24, 2.0**64, 3.4028234663852886e38),
    *(constants.EXP_HIGHEST, 87.336544, 103.27893, 103.97208, -constants.EXP_LOWEST),
    *(constants.TANH_POLYNOMIAL_END, 9.010913, constants.TANH_SATURATION, 16.635532, 17.328680),
    *(math.sqrt(0.5), math.sqrt(2.0), 2.0**64 * math.sqrt(2.0), math.sqrt(2.0) - 1, 1 - math.sqrt(0.5)),
    *((k + 0.5) * 0.6931471805599453 for k in (0, 1, 2, 31, 64, 125, 127, 140, 149)),
]
MORE_BOUNDARIES = [
    *(constants.ERF_SATURATION, 3.832507, 17.328680, 18.0, 88.72284, 127.5, 128.0, 148.5, 149.5, 150.0),
    *(k * math.pi / 4 for k in (1, 2, 3, 4, 5, 8, 100, 710, 104348, 10**6)),
    # among all binary32 numbers the closest to a multiple of pi / 2, and some of the largest
    *(math.ldexp(16367173, 72), 2.0**31, 2.0**63, 2.0**96, 2.0**127),
]


def from_bits(bits: torch.Tensor) -> torch.Tensor:
    return bits.to(torch.int32).view(torch.float32)


def random_patterns(n: int) -> torch.Tensor:
    return from_bits(random_bits(Stream(seed=1), n))


def hard_inputs(boundaries: Sequence[float] = BOUNDARIES, reach: int = 64) -> torch.Tensor:
    """Every boundary of both signs with its neighbours, and the non-finite values."""
    centres = raw(torch.tensor(boundaries)).to(torch.int64)[:, None]
    positive = (centres + torch.arange(-reach, reach + 1)).clamp_(0, 0x7F800000).reshape(-1)
    nans = torch.tensor([0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFC00000, 0xFFFFFFFF])
    return from_bits(torch.cat([positive, positive + 2**31, nans, torch.tensor([0x7F800000, 0xFF800000])]))


def dense_inputs() -> torch.Tensor:
    """The binades where the functions do their work, evenly in the bits."""
    step = (0x42D80000 - 0x38800000) // 100_000
    positive = torch.arange(0x38800000, 0x42D80000, step)
    return from_bits(torch.cat([positive, positive + 2**31]))


def reference(name: str, x: torch.Tensor) -> torch.Tensor:
    return getattr(torch, name)(x.to(torch.float64))


def errors_in_ulp(name: str, x: torch.Tensor) -> torch.Tensor:
    """|result - exact| in units in the last place of the exact value; Inf where NaN, Inf or its sign is wrong."""
    y, exact = FUNCTIONS[name](x), reference(name, x)
    exponent = ((exact.view(torch.int64) >> 52) & 0x7FF).sub_(1023).clamp_(-126, 127)
    error = (y - exact).abs_() * power_of_two(23 - exponent)
    expected = exact.to(torch.float32)
    finite = expected.isfinite()
    right = torch.where(finite, y.isfinite(), (y == expected) | (raw(y) == CANONICAL_NAN_BITS) & exact.isnan())
    return error.masked_fill_(~finite, 0.0).masked_fill_(~right, INF)


@pytest.mark.parametrize("name", NAMES)
def test_validate_error_is_within_the_stated_bound(name):
    worst_input = from_bits(torch.tensor([WORST_INPUTS[name]]))
    x = torch.cat([hard_inputs(), hard_inputs(MORE_BOUNDARIES), dense_inputs(), random_patterns(200_000), worst_input])
    errors = errors_in_ulp(name, x)
    assert BOUNDS[name] - 0.01 < float(errors[-1]) == float(errors.max()) <= BOUNDS[name]
    worst = errors.topk(100).indices
    y = FUNCTIONS[name](x[worst])
    with mpmath.workprec(120):
        for value, result, measured in zip(x[worst].tolist(), y.tolist(), errors[worst].tolist(), strict=True):
            exact = EXACT[name](mpmath.mpf(value))
            unit = mpmath.mpf(2) ** (max(math.frexp(float(exact))[1] - 1, -126) - 23)
            error = float(abs(result - exact) / unit)
            assert error <= BOUNDS[name]
            assert error == pytest.approx(measured, abs=1e-6)


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_validate_error_over_all_inputs_is_the_stated_bound(name):
    chunk = torch.arange(2**20)
    worst = max(float(errors_in_ulp(name, from_bits(chunk + at)).max()) for at in range(0, 2**32, 2**20))
    assert BOUNDS[name] - 0.01 < worst <= BOUNDS[name]


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        *(("exp", x, y) for x, y in [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (89.0, INF), (-104.0, 0.0)]),
        *(("exp", x, y) for x, y in [(3e38, INF), (-3e38, 0.0), (1e-45, 1.0), (-103.9, 2.0**-149), (NAN, NAN)]),
        *(("log", x, y) for x, y in [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (-1e-45, NAN)]),
        *(("log", x, y) for x, y in [(-1.0, NAN), (-3e38, NAN), (NAN, NAN)]),
        *(("log1p", x, y) for x, y in [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-INF, NAN), (-1.5, NAN)]),
        *(("log1p", x, y) for x, y in [(1e-45, 1e-45), (-1e-45, -1e-45), (-3e38, NAN), (NAN, NAN)]),
        *(("sigmoid", x, y) for x, y in [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (3e38, 1.0), (-3e38, 0.0)]),
        *(("sigmoid", x, y) for x, y in [(-103.9, 2.0**-149), (20.0, 1.0), (NAN, NAN)]),
        *(("tanh", x, y) for x, y in [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (3e38, 1.0), (-10.0, -1.0)]),
        *(("tanh", x, y) for x, y in [(1e-45, 1e-45), (-1e-45, -1e-45), (NAN, NAN)]),
        *(("exp2", x, y) for x, y in [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (128.0, INF), (-150.0, 0.0)]),
        *(("exp2", x, y) for x, y in [(-149.0, 2.0**-149), (-126.0, 2.0**-126), (127.0, 2.0**127), (10.0, 1024.0)]),
        *(("expm1", x, y) for x, y in [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0), (89.0, INF), (-18.0, -1.0)]),
        *(("expm1", x, y) for x, y in [(1e-45, 1e-45), (-1e-45, -1e-45), (-3e38, -1.0), (3e38, INF), (NAN, NAN)]),
        *(("log2", x, y) for x, y in [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (-1e-45, NAN)]),
        *(("log2", x, y) for x, y in [(2.0**-149, -149.0), (2.0**127, 127.0), (0.5, -1.0), (-1.0, NAN)]),
        *(("erf", x, y) for x, y in [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (1e-45, 1e-45), (NAN, NAN)]),
        *(("atan", x, y) for x, y in [(0.0, 0.0), (-0.0, -0.0), (INF, math.pi / 2), (-INF, -math.pi / 2)]),
        *(("atan", x, y) for x, y in [(1e-45, 1e-45), (-1e-45, -1e-45), (3e38, math.pi / 2)]),
        *((n, x, x) for n in ("sin", "tan") for x in (0.0, -0.0, 1e-45, -1e-45, 2.0**-126, -(2.0**-126))),
        *((n, x, NAN) for n in WIDE for x in (INF, -INF, NAN)),
        *(("cos", x, 1.0) for x in (0.0, -0.0, 1e-45, -(2.0**-126))),
        *(("rsqrt", x, y) for x, y in [(0.0, INF), (-0.0, -INF), (INF, 0.0), (-INF, NAN), (-1.0, NAN), (4.0, 0.5)]),
        *(("rsqrt", x, y) for x, y in [(2.0**-148, 2.0**74), (2.0**-126, 2.0**63), (-1e-45, NAN), (NAN, NAN)]),
    ],
)
def test_verify_special_values(name, x, y):
    assert same_bits(FUNCTIONS[name](torch.tensor([x])), torch.tensor([y]))


@pytest.mark.parametrize("name", NAMES)
def test_verify_every_nan_gives_the_canonical_one(name):
    nans = from_bits(torch.tensor([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFC00000, 0xFFFFFFFF]))
    assert raw(FUNCTIONS[name](nans)).tolist() == [CANONICAL_NAN_BITS] * 5


@pytest.mark.parametrize("name", ["tanh", "erf", "atan", "sin", "tan", "cos"])
def test_verify_symmetry_is_exact(name):
    fn = FUNCTIONS[name]
    x = torch.cat([hard_inputs(), dense_inputs()])
    x = x[x.isfinite()]
    assert same_bits(fn(-x), fn(x) if name == "cos" else -fn(x))


@pytest.mark.parametrize(("name", "x"), [("sigmoid", 17.5), ("tanh", 9.1), ("erf", 3.93)])
def test_verify_saturation_is_exact_to_the_largest_number(name, x):
    first, last = raw(torch.tensor([x, 3.4028234663852886e38])).tolist()
    assert bool((FUNCTIONS[name](from_bits(torch.arange(first, last, 10_007))) == 1.0).all())


@pytest.mark.parametrize("name", NAMES)
def test_verify_kernels_give_the_bits_of_torch(name):
    x = torch.cat([hard_inputs(), hard_inputs(MORE_BOUNDARIES), random_patterns(20_000), dense_inputs()[::20]])
    with use_engine("triton"):
        found = evaluate(getattr(ops, name.upper()), x)
    assert same_bits(found, FUNCTIONS[name](x))


@pytest.mark.parametrize("name", NAMES)
def test_verify_layout_and_neighbours_do_not_matter(name):
    fn = FUNCTIONS[name]
    x = random_patterns(7 * 6 * 5).reshape(7, 6, 5)
    before = x.clone()
    expected = torch.stack([fn(v) for v in x.reshape(-1)]).reshape(x.shape)
    assert same_bits(fn(x), expected)
    assert same_bits(fn(x.permute(2, 0, 1)), expected.permute(2, 0, 1))
    assert same_bits(fn(x[::2, 1::3]), expected[::2, 1::3])
    assert same_bits(fn(x[0, 0, 0].expand(3, 2)), expected[0, 0, 0].expand(3, 2))
    assert fn(x[:0]).shape == (0, 6, 5)
    assert same_bits(x, before)


# SHA-256 of the results' little-endian bits; a change of any of them raises BITSPEC
GOLDEN = {
    "exp": "1ac277df6cd287871ac77ed20879f70896f9816b9670d1ee10054f5e588f6cb3",
    "log": "04b778d0a0490184f186602ce7aefcf07c71e2dee7a1f24732ad01cb0b5d54cc",
    "log1p": "9a77a87b7f8d6fbd1ffbd4d87c2324fe7d2375d46f203c03581af74321ac584b",
    "sigmoid": "c087dbd37daac50e65248ec8a660a4a9e26c0423680fd5acc0898101e1db0385",
    "tanh": "cf117bfe370279a139258315912994328f3c5046032cc0934f679cb1c409124c",
    "exp2": "5ba985253ced989d20280ce8ca40391ab298138132869f698de75b17a8029324",
    "expm1": "ff0205113f584087bbae378444ff45dad6927a7a895d5dbd13f2b1b10b2932b2",
    "log2": "337462a00aed4f2061fc547b02cca5d8e1598162f4d5ecefda80ea24e09b8b06",
    "atan": "eeae1614d46214bfa44c8b9bcce4c57e00a423cbf1bf79995ca363f9a4d03c03",
    "erf": "21e40b9f12fd1375b25167ca66d3c85d5f53e5c9b00034867530789666e32cbb",
    "sin": "63b66fa37beaa80cbb97d8db141f12f350d87be61b12f9f2328f7c4d0ee3847d",
    "cos": "1c081007099a01662d816622e90e093fe1f7ce16dc1ce40ab80c50551af476b5",
    "tan": "9ad46ffbfa9f0687d7eed52da12c50f04f38bcdfb288932531497d2c04e1addd",
    "rsqrt": "022cf4a2dae52b8e60f82dabdad5a2a751db2d7b6e60224c4eea9ca40fc9489b",
}


@pytest.mark.parametrize("name", NAMES)
def test_verify_bits_are_those_of_bitspec_1(name):
    x = torch.cat([hard_inputs(), dense_inputs(), random_patterns(20_000)])
    y = FUNCTIONS[name](x)
    assert hashlib.sha256(y.numpy().astype("<f4").tobytes()).hexdigest() == GOLDEN[name]


def fused_polynomial(coefficients: tuple[float, ...], t: torch.Tensor) -> torch.Tensor:
    wide = t.to(torch.float64)
    p = torch.full_like(t, coefficients[-1])
    for c in coefficients[-2::-1]:
        p = (p.to(torch.float64) * wide + c).to(torch.float32)
    return p


@pytest.mark.parametrize("name", [*FIRST, *MORE])
def test_verify_a_fused_multiply_add_would_be_seen(name, monkeypatch):
    x = dense_inputs()
    ours = FUNCTIONS[name](x)
    monkeypatch.setattr(elementary, "_polynomial", fused_polynomial)
    fused = FUNCTIONS[name](x)
    assert not same_bits(ours, fused)
    assert float(errors_in_ulp(name, x).max()) <= BOUNDS[name] + 0.1


@pytest.mark.parametrize("name", [n for n in NAMES if n != "rsqrt"])
def test_verify_the_functions_of_torch_would_be_seen(name):
    x = dense_inputs()
    assert not same_bits(FUNCTIONS[name](x), getattr(torch, name)(x), any_nan=True)


@pytest.mark.parametrize("name", WIDE)
def test_verify_a_reduction_in_binary64_would_be_seen(name):
    """One rounding of 2 / pi to binary64 is not enough for large angles."""
    x = torch.tensor([1e10, 1e20, 3e38])
    turns = x.to(torch.float64) * (2 / math.pi)
    reduced = (turns - turns.round()) * (math.pi / 2)
    assert not torch.allclose(trigonometric.reduced(x)[1], reduced, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int32])
def test_validate_other_dtypes_are_refused(name, dtype):
    with pytest.raises(InputError, match=name):
        FUNCTIONS[name](torch.zeros(3, dtype=dtype))
