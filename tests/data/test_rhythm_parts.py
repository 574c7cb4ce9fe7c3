"""The simulator's parts against Python integers and binary64."""

import math

import pytest
import torch

from dettriton.data._electrodes import DOWER, record_leads
from dettriton.data._heart_waves import SAMPLES, _add, _Bumps
from dettriton.data._rhythm_draws import Draws, Purpose, record_words
from dettriton.data._splines import spline
from dettriton.exact.philox import Stream, random_bits

RECORDS = torch.tensor([0, 5, 2**33 + 1])


def test_verify_words_are_those_of_the_record_streams():
    words = record_words(7, Purpose.HEART, RECORDS, 11)
    for record, row in zip(RECORDS.tolist(), words, strict=True):
        assert torch.equal(row, random_bits(Stream(7, int(Purpose.HEART), record), 11))
    assert len({int(p) for p in Purpose}) == len(Purpose)


def test_validate_draws():
    records, n = torch.arange(50), 400
    draws = Draws(1, Purpose.BEATS, records, 7 * n + 1)
    uniform, integers, normal = draws.between(-2.0, 3.0, n), draws.integer(2, 5, n), draws.normal(n)
    assert uniform.shape == integers.shape == normal.shape == (50, n)
    assert float(uniform.min()) >= -2.0 and float(uniform.max()) < 3.0
    assert abs(float(uniform.mean()) - 0.5) < 0.05
    assert set(integers.flatten().tolist()) == {2, 3, 4}
    assert abs(float(normal.mean())) < 0.03 and abs(float(normal.std()) - 1.0) < 0.03
    assert 0.2 < float(draws.chance(0.25, n).float().mean()) < 0.3
    assert not draws.chance(0.0).any()
    with pytest.raises(RuntimeError, match="random columns"):
        draws.chance(0.5)


def test_validate_spline_against_integers():
    knots = torch.tensor([[3, -7, 400, 1000, -1000, 5, 5, 5, 5]], dtype=torch.int32) * 64
    got = spline(knots, 10)[0].tolist()
    k = knots[0].tolist()
    assert len(got) == 60
    for t, value in enumerate(got):
        i, u = t // 10, t % 10 / 10
        weights = ((1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3)
        exact = sum(w * x for w, x in zip(weights, k[i : i + 4], strict=True)) / 6
        assert abs(value - exact) <= 3 * 128_000 / 1024
    assert (spline(torch.full((2, 9), -77, dtype=torch.int32), 25) == -77).all()


def test_validate_a_wave_against_binary64():
    centres, widths = torch.tensor([1_234_567, -30_000]), torch.tensor([0.021, 0.012])
    vectors = torch.tensor([[1000.0, -500.0, 3.0], [200.0, 100.0, 0.0]])
    dipole = torch.zeros(3 * (SAMPLES + 128), dtype=torch.int32)
    _add(dipole, _Bumps(torch.tensor([0, 0]), centres, widths, vectors), 28)
    strip = dipole.view(3, -1)[:, 64 : 64 + SAMPLES]
    for component in range(3):
        for t in (0, 1, 2, 117, 120, 123, 124, 130, 600):
            exact = sum(
                8 * float(v[component]) * math.exp(-(((t * 0.01 - int(c) * 1e-6) / float(w)) ** 2) / 2)
                for v, c, w in zip(vectors, centres, widths, strict=True)
            )
            assert abs(int(strip[component, t]) - exact) <= 1.01 + 8000 * 4e-6


def test_validate_leads_against_the_matrix():
    """The difference of two dipoles' leads is the lead matrix times the difference, within the gains."""
    records = torch.tensor([4])
    still, pointing = torch.zeros(1, 3, SAMPLES, dtype=torch.int32), torch.zeros(1, 3, SAMPLES, dtype=torch.int32)
    pointing[0, 0, 100], pointing[0, 1, 200], pointing[0, 2, 300] = 8000, 8000, 8000
    seen = record_leads(pointing, records, 0).to(torch.int32) - record_leads(still, records, 0)
    independent = seen[0, [0, 1, 6, 7, 8, 9, 10, 11]]
    for channel, vector in enumerate(DOWER):
        for component, coefficient in enumerate(vector):
            got = int(independent[channel, 100 * (component + 1)])
            assert abs(got - coefficient) <= 0.08 * abs(coefficient) + 4
