import hashlib
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from dettriton.data._resample import _divided, kernel
from dettriton.data.signals import resample
from dettriton.errors import InputError

RATES = [500, 360, 250, 257, 1000, 50]


def ratio(rate: int) -> tuple[int, int]:
    divisor = math.gcd(100, rate)
    return 100 // divisor, rate // divisor


def oracle_weights(up: int, down: int, phase: int) -> dict[int, int]:
    """Of each input sample ``base + m``, from the definition in real numbers."""
    with mpmath.workdps(60):
        values = {}
        for m in range(-16 * max(up, down) // up - 2, 16 * max(up, down) // up + 3):
            u = mpmath.mpf(m * up - phase) / max(up, down)
            if abs(u) < 16:
                turn = mpmath.pi * u / 16
                window = mpmath.mpf("0.42") + mpmath.mpf("0.5") * mpmath.cos(turn)
                window += mpmath.mpf("0.08") * mpmath.cos(2 * turn)
                values[m] = window * (mpmath.sin(mpmath.pi * u) / (mpmath.pi * u) if u else 1)
        total = sum(values.values())
        weights = {m: int(mpmath.nint(v / total * 2**24)) for m, v in values.items()}
    first_largest = max(weights, key=lambda m: (weights[m], -m))
    weights[first_largest] += 2**24 - sum(weights.values())
    return weights


def oracle_output(signal: list[int], up: int, down: int, k: int) -> int:
    base, phase = divmod(k * down, up)
    weights = oracle_weights(up, down, phase)
    held = (signal[min(max(base + m, 0), len(signal) - 1)] * w for m, w in weights.items())
    return min(max(round(Fraction(sum(held), 2**24)), -32768), 32767)


@pytest.mark.parametrize("rate", [500, 360, 250, 50])
def test_validate_kernel_and_outputs_against_the_definition(rate):
    up, down = ratio(rate)
    weights = kernel(up, down)
    radius = weights.shape[1] // 2
    for phase in range(up):
        expected = oracle_weights(up, down, phase)
        found = {m: int(w) for m, w in zip(range(-radius, radius + 1), weights[phase], strict=True)}
        assert {m: w for m, w in found.items() if w} == {m: w for m, w in expected.items() if w}
        assert sum(found.values()) == 2**24
    signal = np.random.default_rng(rate).integers(-32768, 32768, 400).astype(np.int16)
    out = resample(signal, rate)
    for k in (0, 1, len(out) // 2, len(out) - 2, len(out) - 1):
        assert out[k] == oracle_output(signal.tolist(), up, down, k)


def test_validate_saturation_and_ties():
    square = np.repeat(np.array([-32768, 32767], dtype=np.int16), 60)
    up, down = ratio(250)
    out = resample(square, 250)
    assert out.tolist() == [oracle_output(square.tolist(), up, down, k) for k in range(len(out))]
    assert out.min() == -32768 and out.max() == 32767
    half = 1 << 23
    totals = np.array([half, 3 * half, -half, -3 * half, half - 1, half + 1, -half - 1, -half + 1], dtype=np.int64)
    assert _divided(totals).tolist() == [round(Fraction(int(t), 1 << 24)) for t in totals]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (500, "eb6bb9179d491f43"),
        (360, "b257f45c507debc3"),
        (250, "adf72069d51c1037"),
        (257, "bd2e8f29f189ebec"),
        (1000, "fd0ae6a7f262ad3a"),
        (50, "a190cd0474d8378f"),
    ],
)
def test_verify_published_outputs(rate, expected):
    steps = (np.arange(2 * 12 * 2600, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(51)
    signals = (steps.astype(np.int64) - 4096).astype(np.int16).reshape(2, 12, 2600)
    out = resample(signals, rate)
    assert out.shape == (2, 12, math.ceil(2600 * 100 / rate))
    assert hashlib.sha256(out.astype("<i2").tobytes()).hexdigest()[:16] == expected
    for length in (1, 333, 10**6):
        assert np.array_equal(resample(signals, rate, length=length), out[..., :length])
    assert np.array_equal(resample(signals[1, ::-3], rate), out[1, ::-3])


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("value", [-32768, -1, 0, 7, 32767])
def test_verify_constants_stay(rate, value):
    signal = np.full(700, value, dtype=np.int16)
    assert (resample(signal, rate) == value).all()


def test_verify_equal_rates_copy():
    signal = np.arange(10, dtype=np.int16)
    out = resample(signal, 100)
    assert np.array_equal(out, signal)
    out[0] = 5
    assert signal[0] == 0
    assert np.array_equal(resample(signal, Fraction(100), length=4), signal[:4])


def test_corroborate_frequency_response():
    seconds = np.arange(5000) / 500
    for hertz, low, high in ((1, 0.999, 1.001), (40, 0.999, 1.001), (50, 0.49, 0.51), (60, 0, 4e-4), (180, 0, 4e-4)):
        wave = np.round(20000 * np.sin(2 * np.pi * hertz * seconds + 0.3)).astype(np.int16)
        middle = resample(wave, 500)[200:800].astype(np.float64)
        phase = 2 * np.pi * hertz * np.arange(200, 800) / 100
        basis = np.stack([np.sin(phase), np.cos(phase)], axis=1)
        amplitude = (
            np.abs(middle).max() if hertz >= 50 else np.linalg.norm(np.linalg.lstsq(basis, middle, rcond=None)[0])
        )
        reference = 20000 * (abs(np.sin(0.3)) if hertz == 50 else 1)
        assert low <= amplitude / reference <= high, hertz


@pytest.mark.parametrize(
    ("signals", "rate"),
    [
        (np.zeros(5, dtype=np.int32), 500),
        (np.zeros((2, 0), dtype=np.int16), 500),
        (np.zeros(5, dtype=np.int16), 0),
        (np.zeros(5, dtype=np.int16), -500),
        (np.zeros(5, dtype=np.int16), Fraction(1, 3000)),
        (np.zeros(5, dtype=np.int16), 1_000_003),
    ],
)
def test_validate_resample_refusals(signals, rate):
    with pytest.raises(InputError):
        resample(signals, rate)
