"""The heart's dipole over a strip: each beat a sum of Gaussian waves in three dimensions, as integers.

P, QRS and T are Gaussian bumps (McSharry et al. 2003, IEEE TBME 50:289) of a dipole vector in Frank's axes, x to the left,
y to the feet, z to the back (Clifford et al. 2010, Physiol. Meas. 31:595); ventricular and paced beats have waves of their
own, broader and with a T wave against the QRS complex (Sayadi et al. 2010, IEEE TBME 57:1469). Waves sit at a time from
the R peak instead of a phase; the T wave moves with the QT interval, for which the Framingham formula holds: QT = QTc -
0.154 (1 s - RR) (Sagie et al. 1992, Am. J. Cardiol. 70:797). Sizes and places are ours, set to a textbook's normal ECG.
"""

from dataclasses import dataclass

import torch

from dettriton.data._rhythm_draws import TWO_PI, Draws, Purpose
from dettriton.data._rhythms import BEATS, Beat, Schedule
from dettriton.exact.elementary import exp
from dettriton.exact.trigonometric import cos, sin

SAMPLES = 1000
SAMPLE_PERIOD = 10_000
"""Microseconds between samples."""
DIPOLE_UNIT = 8
"""Of the integer dipole: eighths of a microvolt."""

MARGIN = 64
"""Samples before and after the strip in which waves may still lie; all that is further out goes to the outermost."""
NARROW, WIDE = 28, 56
"""Samples over which a short wave (up to 35 ms) and a long one (up to 70 ms) are computed: four widths either way."""
LAST_BEAT = 10_400_000
"""Microseconds; later beats do not reach the strip."""
QRS_ONSET = 0.04
"""Seconds from the beginning of the QRS complex to the R peak."""

_COLUMNS = 40 + BEATS

# (seconds from the anchor, width in seconds, (x, y, z) in microvolts)
Wave = tuple[float, float, tuple[float, float, float]]
SINUS_P: tuple[Wave, ...] = ((-0.013, 0.019, (38, 75, -35)), (0.013, 0.020, (60, 52, 38)))
ECTOPIC_P: tuple[Wave, ...] = ((0.0, 0.021, (50, -95, -25)),)
RETROGRADE_P: tuple[Wave, ...] = ((0.095, 0.014, (-20, -75, -30)),)
QRS: tuple[Wave, ...] = (
    (-0.026, 0.0085, (-130, -70, -260)),
    (0.0, 0.0105, (1000, 780, 100)),
    (0.014, 0.011, (250, 240, 800)),
    (0.034, 0.009, (-220, -150, 240)),
)
T: tuple[Wave, ...] = ((-0.115, 0.044, (190, 150, -135)), (-0.078, 0.029, (150, 120, -100)))
WIDE_QRS: tuple[Wave, ...] = (
    (-0.020, 0.020, (0.55, 0.50, 0.35)),
    (0.010, 0.026, (1.00, 1.00, 1.00)),
    (0.062, 0.020, (-0.30, -0.20, 0.10)),
)
WIDE_T: tuple[Wave, ...] = ((-0.085, 0.058, (-0.38, -0.38, -0.38)), (-0.045, 0.036, (-0.2, -0.2, -0.2)))
SPIKE: tuple[Wave, ...] = ((0.0, 0.0045, (1.0, 1.0, 1.0)),)

RIGHT_VENTRICLE = (900.0, 850.0, 750.0)
LEFT_VENTRICLE = (-650.0, 800.0, -950.0)
"""Main vectors of beats that start there, in microvolts; half of them point upwards instead."""

HAS_SINUS_P = (Beat.SINUS, Beat.PACED_ATRIUM, Beat.PACED_BOTH)
IS_NARROW = (Beat.SINUS, Beat.ECTOPIC_ATRIAL, Beat.HIDDEN_P, Beat.RETROGRADE_P, Beat.PACED_ATRIUM)
IS_WIDE = (Beat.VENTRICULAR, Beat.PACED_VENTRICLE, Beat.PACED_BOTH)
HAS_ATRIAL_SPIKE = (Beat.PACED_ATRIUM, Beat.PACED_BOTH)
HAS_VENTRICULAR_SPIKE = (Beat.PACED_VENTRICLE, Beat.PACED_BOTH)


@dataclass(frozen=True)
class _Bank:
    """Waves of N records: (N, W) offsets and widths in seconds and (N, W, 3) vectors in microvolts."""

    offsets: torch.Tensor
    widths: torch.Tensor
    vectors: torch.Tensor


@dataclass(frozen=True)
class _Bumps:
    """M Gaussians: (M,) record rows, (M,) int64 centres in microseconds, (M,) widths in seconds, (M, 3) microvolts."""

    rows: torch.Tensor
    centres: torch.Tensor
    widths: torch.Tensor
    vectors: torch.Tensor


def heart_dipole(schedule: Schedule, records: torch.Tensor, seed: int) -> torch.Tensor:
    """The dipole of the beats.

    Args:
        schedule: the beats of N records.
        records: (N,) int64 record numbers.
        seed: in [0, 2**32).

    Returns:
        (N, 3, SAMPLES) int32 in eighths of a microvolt: an exact sum of waves, each rounded.
    """
    short, long = _bumps(schedule, Draws(seed, Purpose.HEART, records, _COLUMNS))
    dipole = torch.zeros(len(records) * 3 * (SAMPLES + 2 * MARGIN), dtype=torch.int32)
    _add(dipole, short, NARROW)
    _add(dipole, long, WIDE)
    return dipole.view(len(records), 3, -1)[..., MARGIN : MARGIN + SAMPLES]


def rotated(vectors: torch.Tensor, about_z: torch.Tensor, about_y: torch.Tensor) -> torch.Tensor:
    """(N, W, 3) vectors turned by two (N, 1) angles in radians, first about z (the frontal plane), then about y."""
    x, y, z = vectors.unbind(-1)
    c, s = cos(about_z), sin(about_z)
    x, y = x * c - y * s, x * s + y * c
    c, s = cos(about_y), sin(about_y)
    return torch.stack((x * c + z * s, y, z * c - x * s), dim=-1)


def _bumps(schedule: Schedule, draws: Draws) -> tuple[_Bumps, _Bumps]:
    """The short waves (P, QRS, spikes) and the long ones (T) of all beats that reach the strip."""
    axis = draws.between(-0.7, 0.5), draws.between(-0.45, 0.45)
    block = draws.chance(0.1)
    width = torch.where(block, draws.between(1.5, 1.9), draws.between(0.9, 1.15))
    height = draws.between(0.6, 1.5)
    qrs = _bank(QRS, height, width, axis)
    p = _bank(SINUS_P, draws.between(0.4, 1.4), draws.between(0.85, 1.15), axis)
    ectopic = _bank(ECTOPIC_P, draws.between(0.6, 1.4), draws.between(0.85, 1.1), (draws.between(-2.0, 0.6), axis[1]))
    retrograde = _bank(RETROGRADE_P, draws.between(0.4, 1.2), draws.between(0.9, 1.2), axis)
    turned = draws.chance(0.06) ^ block
    t_height = torch.where(turned, -draws.between(0.3, 0.9), draws.between(0.4, 1.35))
    t_axis = axis[0] * 0.5 + draws.between(-0.25, 0.25), axis[1] * 0.5 + draws.between(-0.25, 0.25)
    t = _bank(T, t_height, draws.between(0.85, 1.15), t_axis)
    direction = _ventricular_direction(draws, schedule)
    wide_height, wide_width = draws.between(0.75, 1.5), draws.between(0.9, 1.25)
    wide = _bank(WIDE_QRS, wide_height, wide_width, scale=direction)
    wide_t = _bank(WIDE_T, wide_height, draws.between(0.85, 1.1), scale=direction)
    spike = _bank(SPIKE, draws.between(200.0, 800.0), torch.ones_like(height), scale=_spike_direction(draws))

    rr = _recent_interval(schedule.times)
    p_time = (rr * 0.05 + draws.between(0.07, 0.135)).neg()
    t_time = ((rr - 1.0) * 0.154 + draws.between(0.38, 0.45)) - QRS_ONSET
    early_p = p_time + 0.025
    spike_before_p, spike_before_qrs = p_time - 0.06, torch.full_like(rr, -0.085)
    wide_t_time = t_time + 0.05
    size = draws.between(0.95, 1.05, BEATS)

    def of(bank: _Bank, kinds: tuple[Beat, ...], anchor: torch.Tensor) -> _Bumps:
        return _bumps_of(schedule, bank, kinds, anchor, size)

    at_r = torch.zeros_like(rr)
    short = (
        of(p, HAS_SINUS_P, p_time),
        of(ectopic, (Beat.ECTOPIC_ATRIAL,), early_p),
        of(retrograde, (Beat.RETROGRADE_P,), at_r),
        of(qrs, IS_NARROW, at_r),
        of(wide, IS_WIDE, at_r),
        of(spike, HAS_ATRIAL_SPIKE, spike_before_p),
        of(spike, HAS_VENTRICULAR_SPIKE, spike_before_qrs),
    )
    return _joined(short), _joined((of(t, IS_NARROW, t_time), of(wide_t, IS_WIDE, wide_t_time)))


def _bank(
    waves: tuple[Wave, ...],
    height: torch.Tensor,
    width: torch.Tensor,
    axis: tuple[torch.Tensor, torch.Tensor] | None = None,
    scale: torch.Tensor | None = None,
) -> _Bank:
    """One record's version of each wave: stretched in time by ``width``, in size by ``height``, turned by ``axis``."""
    offsets, widths, vectors = (torch.tensor(part, dtype=torch.float32) for part in zip(*waves, strict=True))
    vectors = height[..., None] * vectors
    if scale is not None:
        vectors = vectors * scale[:, None, :]
    return _Bank(width * offsets, width * widths, vectors if axis is None else rotated(vectors, *axis))


def _ventricular_direction(draws: Draws, schedule: Schedule) -> torch.Tensor:
    """(N, 3) microvolts: where a ventricular beat's vector points; a pacing lead lies in the right ventricle's tip."""
    paced = ((schedule.kinds == Beat.PACED_VENTRICLE) | (schedule.kinds == Beat.PACED_BOTH)).any(dim=1, keepdim=True)
    right = draws.chance(0.5) | paced
    upwards = torch.where(paced, draws.chance(0.8), draws.chance(0.5))
    main = torch.where(right, torch.tensor(RIGHT_VENTRICLE), torch.tensor(LEFT_VENTRICLE))
    flip = torch.where(upwards, torch.tensor((1.0, -1.0, 1.0)), torch.ones(3))
    return rotated((main * flip)[:, None], draws.between(-0.35, 0.35), draws.between(-0.3, 0.3))[:, 0]


def _spike_direction(draws: Draws) -> torch.Tensor:
    """(N, 3): a vector of length 1 to 1.5, anywhere in the frontal plane and a little to the front."""
    angle = draws.between(0.0, TWO_PI)
    return torch.cat((cos(angle), sin(angle), draws.between(-1.0, 0.3)), dim=1)


def _recent_interval(times: torch.Tensor) -> torch.Tensor:
    """(N, BEATS) binary32 seconds, 0.27 to 1.3: the mean of the last three intervals, of the first three early on."""
    mean = (times[:, 3:] - times[:, :-3]).to(torch.float32) * (1e-6 / 3)
    return torch.cat((mean[:, :1].expand(-1, 3), mean), dim=1).clamp_(0.27, 1.3)


def _bumps_of(
    schedule: Schedule, bank: _Bank, kinds: tuple[Beat, ...], anchor: torch.Tensor, size: torch.Tensor
) -> _Bumps:
    chosen = schedule.times < LAST_BEAT
    of_kind = torch.zeros_like(chosen)
    for kind in kinds:
        of_kind |= schedule.kinds == int(kind)
    rows, beats = (chosen & of_kind).nonzero().unbind(1)
    seconds = anchor[rows, beats][:, None] + bank.offsets[rows]
    centres = schedule.times[rows, beats][:, None] + (seconds * 1e6).round().to(torch.int64)
    vectors = bank.vectors[rows] * size[rows, beats][:, None, None]
    repeated = rows[:, None].expand_as(centres)
    return _Bumps(repeated.reshape(-1), centres.reshape(-1), bank.widths[rows].reshape(-1), vectors.reshape(-1, 3))


def _joined(parts: tuple[_Bumps, ...]) -> _Bumps:
    return _Bumps(*(torch.cat([getattr(p, name) for p in parts]) for name in ("rows", "centres", "widths", "vectors")))


def _add(dipole: torch.Tensor, bumps: _Bumps, span: int) -> None:
    """Adds each Gaussian over ``span`` samples around its centre; integers, so in any order."""
    first = bumps.centres.div(SAMPLE_PERIOD, rounding_mode="floor") - (span // 2 - 1)
    sample = first[:, None] + torch.arange(span)
    distance = (sample * SAMPLE_PERIOD - bumps.centres[:, None]).to(torch.float32)
    x = distance / (bumps.widths * 1e6)[:, None]
    shape = exp((x * x) * -0.5)
    place = (sample + MARGIN).clamp_(0, SAMPLES + 2 * MARGIN - 1)
    for component, size in enumerate((bumps.vectors * float(DIPOLE_UNIT)).unbind(1)):
        start = (bumps.rows * 3 + component) * (SAMPLES + 2 * MARGIN)
        values = (shape * size[:, None]).round().to(torch.int32)
        dipole.index_add_(0, (place + start[:, None]).reshape(-1), values.reshape(-1))
