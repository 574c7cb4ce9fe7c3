import math

import oracle64
import pytest
import torch

from dettriton.exact import root64
from dettriton.exact.root64 import sqrt64


def inputs() -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    anything = torch.randint(1, 0x7FF0 << 48, (3000,), generator=g, dtype=torch.int64).view(torch.float64)
    subnormal = torch.randint(1, 1 << 52, (200,), generator=g, dtype=torch.int64).view(torch.float64)
    near_one = 1.0 + torch.arange(-500, 500, dtype=torch.float64) * 2.0**-52
    squares = torch.arange(1, 300, dtype=torch.float64).square()
    ends = torch.tensor([5e-324, 2.0**-1022, 2.0**-1000, 4.0, 1.7976931348623157e308], dtype=torch.float64)
    # Just around the square of a midpoint between two roots: the hardest to round.
    roots = torch.randint(1 << 52, 1 << 53, (500,), generator=g).tolist()
    hard = [float(((2 * r + 1) ** 2) >> 2) for r in roots]
    return torch.cat((anything, subnormal, near_one, squares, ends, torch.tensor(hard, dtype=torch.float64)))


def test_validate_against_integer_roots():
    x = inputs()
    assert sqrt64(x).tolist() == [oracle64.sqrt64(v) for v in x.tolist()]


@pytest.mark.parametrize("ulps", [-1, 1])
def test_verify_a_guess_off_by_an_ulp_gives_the_same_bits(ulps, monkeypatch):
    """Whatever square root the machine has, within an ulp."""
    x = inputs()
    expected = sqrt64(x)

    def away(t: torch.Tensor) -> torch.Tensor:
        rounded = torch.tensor([math.sqrt(v) for v in t.tolist()], dtype=torch.float64)
        return (rounded.view(torch.int64) + ulps).view(torch.float64)

    monkeypatch.setattr(root64.torch.Tensor, "sqrt", away)
    assert torch.equal(sqrt64(x), expected)


def test_a_root_that_is_off_is_noticed():
    x = inputs()
    off = (sqrt64(x).view(torch.int64) + 1).view(torch.float64)
    assert off.tolist() != [oracle64.sqrt64(v) for v in x.tolist()]


def test_special_values_are_ieees():
    x = torch.tensor([0.0, -0.0, math.inf, -1.0, math.nan, -math.inf], dtype=torch.float64)
    assert torch.equal(sqrt64(x)[:3].view(torch.int64), x[:3].view(torch.int64)) and sqrt64(x)[3:].isnan().all()
    assert (
        sqrt64(torch.zeros(0, dtype=torch.float64)).shape == (0,)
        and sqrt64(torch.full((2, 1), 9.0).double()).sum() == 6
    )
