"""From the heart's dipole to twelve leads in microvolts: lead vectors, gains, noise of the body and the electrodes.

Eight leads are independent; the other four follow from I and II by the relations of Einthoven and Goldberger. All of it
is integer arithmetic in units of 2**-13 microvolts, rounded once. Nothing here knows the rhythm.
"""

import torch

from dettriton.data._heart_waves import SAMPLES
from dettriton.data._rhythm_draws import Draws, Purpose, breathing, record_words
from dettriton.data._splines import spline
from dettriton.exact.trigonometric import sin

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

DOWER = (
    (632, -235, 59),
    (235, 1066, -132),
    (-515, 157, -917),
    (44, 164, -1387),
    (882, 98, -1277),
    (1213, 127, -601),
    (1125, 127, -86),
    (831, 76, 230),
)
"""Lead vectors of I, II, V1 to V6 in thousandths, by Frank's x, y, z: Dower, Machado and Osborne 1980 (Clin. Cardiol.
3:87), whose inverse is that of Edenbrandt and Pahlm 1988 (J. Electrocardiol. 21:361)."""

CHANNELS = len(DOWER)
UNIT_BITS = 13
"""A microvolt is 2**13 units: 2**3 of the dipole times 2**10 of a lead vector."""

DRIFT_SPACING, MOTION_SPACING, BURST_SPACING = 250, 10, 100
"""Samples between the knots of the baseline's drift, of electrode motion and of the muscles' tension."""

_DRIFT_KNOTS = SAMPLES // DRIFT_SPACING + 3
_MOTION_KNOTS = SAMPLES // MOTION_SPACING + 3
_BURST_KNOTS = SAMPLES // BURST_SPACING + 3
_COLUMNS = 5 + 3 * CHANNELS + CHANNELS * _DRIFT_KNOTS + _BURST_KNOTS
_MOTION_BYTES = CHANNELS * _MOTION_KNOTS
_MUSCLE_BYTES = 2 * CHANNELS * (SAMPLES + 1)


def record_leads(dipole: torch.Tensor, records: torch.Tensor, seed: int) -> torch.Tensor:
    """The leads that see this dipole.

    Args:
        dipole: (N, 3, SAMPLES) int32 in eighths of a microvolt, magnitudes below 2**17.
        records: (N,) int64 record numbers.
        seed: in [0, 2**32).

    Returns:
        (N, 12, SAMPLES) int16 in microvolts, in the order of :data:`LEADS`. I - II + III = 0 exactly; the augmented leads
        are rounded half up from the rounded I and II. The heart's part of each lead has the mean zero, as behind an
        amplifier that passes no constant voltage.
    """
    dipole = dipole - dipole.sum(dim=2, keepdim=True).div(SAMPLES, rounding_mode="floor").to(torch.int32)
    draws = Draws(seed, Purpose.ELECTRODES, records, _COLUMNS)
    gain = draws.between(0.92, 1.08, CHANNELS)
    matrix = (gain[:, :, None] * (torch.tensor(DOWER, dtype=torch.float32) * 1.024)).round().to(torch.int32)
    x, y, z = (dipole[:, None, i] for i in range(3))
    units = (matrix[:, :, 0, None] * x + matrix[:, :, 1, None] * y) + matrix[:, :, 2, None] * z
    units += _baseline(draws, records, seed)
    units += _noise(draws, records, seed)
    channels = (units + (1 << (UNIT_BITS - 1))) >> UNIT_BITS
    first, second = channels[:, 0], channels[:, 1]
    limbs = (
        first,
        second,
        second - first,
        (1 - first - second) >> 1,
        (2 * first - second + 1) >> 1,
        (2 * second - first + 1) >> 1,
    )
    return torch.cat((torch.stack(limbs, dim=1), channels[:, 2:]), dim=1).to(torch.int16)


def _baseline(draws: Draws, records: torch.Tensor, seed: int) -> torch.Tensor:
    """Breathing moves the baseline by up to 80 microvolts, the skin's potential by up to 200, each lead its own way."""
    rate, phase = breathing(seed, records)
    time = torch.arange(SAMPLES).to(torch.float32) * 0.01
    breath = (sin(time * rate + phase) * 1024.0).round().to(torch.int32)
    depth = (draws.between(0.0, 80.0) * draws.between(-1.0, 1.0, CHANNELS) * 8.0).round().to(torch.int32)
    drift = draws.between(5.0, 200.0) * draws.between(-1.0, 1.0, CHANNELS * _DRIFT_KNOTS)
    knots = (drift * 1024.0).round().to(torch.int32).view(-1, CHANNELS, _DRIFT_KNOTS)
    return breath[:, None] * depth[:, :, None] + (spline(knots, DRIFT_SPACING) << 3)


def _noise(draws: Draws, records: torch.Tensor, seed: int) -> torch.Tensor:
    """Muscle noise of 5 to 40 microvolts (rms), stronger and weaker within the strip, and electrode motion below 10 Hz.

    Muscle noise is a white triangular number, the difference of two bytes, less half of its predecessor: most of it is
    above 20 Hz.
    """
    count = _MUSCLE_BYTES + _MOTION_BYTES
    words = record_words(seed, Purpose.NOISE, records, (count + 3) // 4)
    octets = torch.stack([(words >> shift) & 0xFF for shift in (0, 8, 16, 24)], dim=-1).to(torch.int32).flatten(1)
    pairs = octets[:, :_MUSCLE_BYTES].view(-1, CHANNELS, SAMPLES + 1, 2)
    white = pairs[..., 0] - pairs[..., 1]
    muscle = white[..., 1:] - (white[..., :-1] >> 1)
    burst = spline(draws.integer(100, 412, _BURST_KNOTS).to(torch.int32), BURST_SPACING)
    # white has the standard deviation 104.5, muscle 1.118 times that
    loudness = draws.between(0.35, 1.0) * draws.between(0.35, 1.0) * 40.0
    level = (loudness * draws.between(0.6, 1.4, CHANNELS) * (8192.0 / 117.0)).round().to(torch.int32)
    motion = octets[:, _MUSCLE_BYTES:count].view(-1, CHANNELS, _MOTION_KNOTS) - 128
    swing = (draws.between(2.0, 10.0) * (8192.0 / 128.0)).round().to(torch.int32)
    steady = (muscle * burst[:, None]) * level[:, :, None]
    moving = spline(motion << 6, MOTION_SPACING) * swing[:, :, None]
    return (steady >> 8) + (moving >> 6)
