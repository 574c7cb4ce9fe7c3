"""What the atria do in fibrillation and flutter, as integers added to the heart's dipole.

Both are saw-teeth, as the model of Stridh and Sörnmo 2001 (IEEE TBME 48:105) has them: a few harmonics of a phase. In
fibrillation (4 to 9 Hz) frequency and size wander and the three axes see different phases; in flutter (near 300 a minute)
the phase is that of the ventricles' beats.
"""

import torch

from dettriton.data._heart_waves import DIPOLE_UNIT, SAMPLE_PERIOD, SAMPLES
from dettriton.data._rhythm_draws import TWO_PI, Draws, Purpose
from dettriton.data._rhythms import CLASSES, Schedule
from dettriton.data._splines import spline
from dettriton.exact.trigonometric import sin

TURN = 1 << 10
"""Entries of a wave's table, one turn of its phase."""
FINE = 1 << 20
"""Units of a phase in a turn; the table is read at its upper ten bits."""

KNOT_SPACING = 25
_KNOTS = SAMPLES // KNOT_SPACING + 3
_COLUMNS = 16 + 2 * _KNOTS

FIBRILLATION_HARMONICS = (1.0, 0.45, 0.2)
FLUTTER_HARMONICS = (1.0, 0.5, 0.3, 0.12)


def atrial_dipole(schedule: Schedule, labels: torch.Tensor, records: torch.Tensor, seed: int) -> torch.Tensor:
    """The waves of the records that fibrillate or flutter, zero for the others.

    Args:
        schedule: the beats of N records.
        labels: (N,) int64 class numbers.
        records: (N,) int64 record numbers.
        seed: in [0, 2**32).

    Returns:
        (N, 3, SAMPLES) int32 in eighths of a microvolt.
    """
    dipole = torch.zeros(len(records), 3, SAMPLES, dtype=torch.int32)
    for name, waves in (("AFIB", _fibrillation), ("AFLT", _flutter)):
        rows = (labels == CLASSES.index(name)).nonzero()[:, 0]
        if len(rows):
            dipole[rows] = waves(schedule, rows, Draws(seed, Purpose.ATRIA, records[rows], _COLUMNS))
    return dipole


def _fibrillation(schedule: Schedule, rows: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Fine to coarse: 15 to 90 microvolts, largest towards V1."""
    step = draws.between(4.8, 7.7) * (FINE / 100.0)
    wander = spline((draws.between(-0.16, 0.16, _KNOTS) * step).round().to(torch.int32), KNOT_SPACING)
    turns = (step.round().to(torch.int64) + wander).cumsum(dim=1)
    swell = spline(draws.integer(400, 1600, _KNOTS).to(torch.int32), KNOT_SPACING)
    height = draws.between(15.0, 90.0)
    along = torch.cat((draws.between(-0.3, 0.5), draws.between(-0.9, 0.9), draws.between(-1.0, -0.5)), dim=1)
    phases = turns[:, None, :] + draws.integer(0, FINE, 3)[:, :, None]
    return _scaled(_saw_tooth(FIBRILLATION_HARMONICS), phases, along * height, swell)


def _flutter(schedule: Schedule, rows: torch.Tensor, draws: Draws) -> torch.Tensor:
    """60 to 180 microvolts, mostly along y: in II, III and aVF they fall slowly and rise fast."""
    time = torch.arange(SAMPLES) * SAMPLE_PERIOD - schedule.times[rows, :1]
    turns = (time * FINE).div(schedule.flutter[rows][:, None], rounding_mode="floor")
    height = draws.between(60.0, 180.0)
    along = torch.cat((draws.between(-0.15, 0.15), draws.between(0.7, 1.0), draws.between(-0.8, -0.3)), dim=1)
    phases = (turns + draws.integer(0, FINE))[:, None, :] + torch.tensor([0, 0, FINE // 3])[:, None]
    return _scaled(_saw_tooth(FLUTTER_HARMONICS), phases, along * height)


def _saw_tooth(harmonics: tuple[float, ...]) -> torch.Tensor:
    """(TURN,) int32, one turn of ``sum of h[i] sin((i + 1) angle)`` times 2**10, rounded."""
    angle = torch.arange(TURN).to(torch.float32) * (TWO_PI / TURN)
    wave = torch.zeros(TURN)
    for i, h in enumerate(harmonics):
        wave = wave + sin(angle * float(i + 1)) * h
    return (wave * 1024.0).round().to(torch.int32)


def _scaled(table: torch.Tensor, phases: torch.Tensor, sizes: torch.Tensor, swell: torch.Tensor | None = None):
    """The table at each phase times (n, 3) microvolts and, in units of 2**-10, (n, SAMPLES) ``swell``."""
    waves = table[(phases >> 10) & (TURN - 1)] * (sizes * float(DIPOLE_UNIT)).round().to(torch.int32)[:, :, None]
    waves = (waves + 512) >> 10
    return waves if swell is None else (waves * swell[:, None, :] + 512) >> 10
