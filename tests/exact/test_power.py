import mpmath
import numpy as np
import pytest
import torch
from bits import INF, NAN, raw, same_bits

from dettriton.engine import use_engine
from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.exact.philox import Stream, random_bits
from dettriton.exact.power import pow, rsqrt
from dettriton.ops._elementwise import evaluate
from dettriton.ops.elementary import POW

BOUND = 0.501
SPECIAL = [
    *(0.0, 1.0, 0.5, 2.0, 3.0, 1.5, 4.0, 1e-45, 1e-38, 3.4e38, 1.0000001, 0.99999994, 1e10, 127.0, 128.0, 149.0, 150.0),
    *(16777215.0, 16777216.0, 8388607.5, 33554432.0, INF),
]


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    """Every pair of special values of both signs and NaN."""
    values = torch.tensor([*SPECIAL, *(-v for v in SPECIAL), NAN])
    n = len(values)
    return values[:, None].expand(n, n).reshape(-1), values.expand(n, n).reshape(-1)


def patterns(n: int, seed: int) -> torch.Tensor:
    return random_bits(Stream(seed), n).to(torch.int32).view(torch.float32)


def pairs(kind: str, n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    if kind == "patterns":
        return patterns(n, seed + 2), patterns(n, seed + 3)
    if kind == "every result":
        x = patterns(n, seed + 4).abs()
        y = (torch.rand(n, generator=g, dtype=torch.float64) * 300 - 150) / torch.log2(x.to(torch.float64))
        return x, y.to(torch.float32)
    if kind == "near one":
        return torch.randn(n, generator=g) * 1e-3 + 1, torch.randn(n, generator=g) * 3e4
    return torch.randn(n, generator=g) * 10, torch.randint(-30, 31, (n,), generator=g).float()


KINDS = ("patterns", "every result", "near one", "integers")


def errors_in_ulp(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """|result - exact| in units in the last place of the exact value; Inf where NaN, Inf or the sign is wrong."""
    found = pow(x, y)
    with np.errstate(all="ignore"):
        exact = np.power(x.numpy().astype(np.longdouble), y.numpy().astype(np.longdouble))
        exponent = np.clip(np.frexp(exact)[1] - 1, -126, 127)
        units = np.abs(np.ldexp(found.numpy().astype(np.longdouble) - exact, 23 - exponent))
        expected = torch.from_numpy(exact.astype(np.float32))
    finite = expected.isfinite()
    same_sign = found.isfinite() & (found.signbit() == expected.signbit())
    other = torch.where(expected.isnan(), raw(found) == CANONICAL_NAN_BITS, found == expected)
    errors = torch.from_numpy(units.astype(np.float64)).masked_fill(~finite, 0.0)
    return errors.masked_fill(~torch.where(finite, same_sign, other), INF)


@pytest.mark.parametrize("kind", KINDS)
def test_validate_error_is_within_the_stated_bound(kind):
    x, y = pairs(kind, 50_000)
    errors = errors_in_ulp(x, y)
    assert 0.49 < float(errors.max()) <= BOUND
    worst = errors.topk(50).indices
    with mpmath.workprec(200):
        for a, b, result in zip(x[worst].tolist(), y[worst].tolist(), pow(x, y)[worst].tolist(), strict=True):
            exact = mpmath.power(a, b)
            unit = mpmath.mpf(2) ** (max(mpmath.frexp(exact)[1] - 1, -126) - 23)
            assert abs(result - exact) <= BOUND * unit


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_validate_error_over_many_pairs(kind):
    assert max(float(errors_in_ulp(*pairs(kind, 500_000, 10 * k)).max()) for k in range(20)) <= BOUND


def test_validate_special_values_are_those_of_c99():
    x, y = grid()
    expected = torch.pow(x.to(torch.float64), y.to(torch.float64)).to(torch.float32)
    found = pow(x, y)
    limit = expected.isnan() | ~expected.isfinite() | (expected == 0) | (expected.abs() == 1)
    assert int(limit.sum()) > 1000
    assert same_bits(found[limit], expected[limit], any_nan=True)
    assert float(errors_in_ulp(x, y).max()) <= BOUND


@pytest.mark.parametrize(
    ("x", "y", "result"),
    [
        *((x, y, 1.0) for x in (NAN, INF, -INF, 0.0, -2.0) for y in (0.0, -0.0)),
        *((1.0, y, 1.0) for y in (NAN, INF, -INF, 3e38)),
        *((-1.0, y, 1.0) for y in (INF, -INF, 2.0, 2.0**24, 3e38)),
        *((-1.0, y, NAN) for y in (0.5, NAN)),
        *((0.0, -3.0, INF), (-0.0, -3.0, -INF), (-0.0, -2.0, INF), (-0.0, -INF, INF), (-0.0, 3.0, -0.0)),
        *((-0.0, 2.5, 0.0), (-INF, -3.0, -0.0), (-INF, -2.0, 0.0), (-INF, 3.0, -INF), (-INF, 0.5, INF)),
        *((0.5, INF, 0.0), (0.5, -INF, INF), (-2.0, INF, INF), (-2.0, -INF, 0.0), (INF, -1e-45, 0.0)),
        *((3.0, 4.0, 81.0), (-2.0, 127.0, -(2.0**127)), (2.0, -149.0, 2.0**-149), (-2.0, -149.0, -(2.0**-149))),
        *((16.0, 0.25, 2.0), (1e10, 10.0, INF), (-1e10, 11.0, -INF), (1e-10, 11.0, 0.0), (-1e-10, 11.0, -0.0)),
    ],
)
def test_verify_special_values(x, y, result):
    assert same_bits(pow(torch.tensor([x]), torch.tensor([y])), torch.tensor([result]))


@pytest.mark.parametrize("kind", ["grid", *KINDS])
def test_verify_kernel_gives_the_bits_of_torch(kind):
    x, y = grid() if kind == "grid" else pairs(kind, 5000)
    with use_engine("triton"):
        found = evaluate(POW, x, y)
    assert same_bits(found, pow(x, y))


def test_verify_coefficients_rounded_to_binary32_would_be_seen(monkeypatch):
    x, y = pairs("near one", 20_000)
    ours = pow(x, y)
    from dettriton.exact import power

    monkeypatch.setattr(power, "LOG2_POLYNOMIAL", tuple(np.float32(c).item() for c in power.LOG2_POLYNOMIAL))
    assert not same_bits(pow(x, y), ours)
    assert float(errors_in_ulp(x, y).max()) > 2


def test_verify_the_function_of_torch_would_be_seen():
    x, y = pairs("every result", 20_000)
    assert not same_bits(pow(x, y), torch.pow(x, y))


@pytest.mark.heavy
def test_validate_rsqrt_of_every_significand():
    """1 / sqrt(x) against the neighbouring midpoints in integers: two of 2**24 results are the other neighbour."""
    x = torch.arange(0x3F800000, 0x40800000, dtype=torch.int32).view(torch.float32)
    root = (rsqrt(x).to(torch.float64) * 2**25).to(torch.int64)
    significand = (x.to(torch.float64) * 2**23).to(torch.int64)

    def above(h: torch.Tensor) -> torch.Tensor:
        """Whether 1 / sqrt(x) > h * 2**-25, that is, h**2 * significand < 2**73."""
        square = h * h
        high, low = (square >> 26) * significand, (square & (2**26 - 1)) * significand
        return high + (low >> 26) < 2**47

    lower = torch.where(root == 2**24, root, root - 1)
    assert int((above(root + 1) | ~above(lower)).sum()) == 2


def test_validate_bad_arguments_are_refused():
    x = torch.zeros(3)
    with pytest.raises(InputError, match="shapes differ"):
        pow(x, torch.zeros(2))
    for pair in ((x.double(), x), (x, x.to(torch.int32))):
        with pytest.raises(InputError, match=r"pow is defined on torch\.float32"):
            pow(*pair)
