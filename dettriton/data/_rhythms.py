"""When hearts beat: R-peak times and kinds of beats for each of the twelve rhythms, as integers of microseconds.

Sinus rhythms follow the tachogram of McSharry et al. 2003 (IEEE TBME 50:289): a mean interval modulated by breathing and
by a slow wave near 0.1 Hz. Rates and intervals of the others are those of cardiology's usual definitions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch

from dettriton.data._rhythm_draws import TWO_PI, Draws, Purpose, breathing
from dettriton.exact.elementary import exp
from dettriton.exact.trigonometric import sin

CLASSES = ("SR", "AFIB", "STACH", "SARRH", "SBRAD", "PACE", "SVARR", "BIGU", "AFLT", "SVTAC", "PSVT", "TRIGU")
"""The rhythm statements of PTB-XL, by falling number of records."""

BEATS = 44
"""Of a schedule: enough for 10.7 s at 220 a minute, from the first beat before the strip on."""
LEAD_IN = 0.3
"""Seconds from the latest possible first beat to the strip's start: its T wave is partly seen."""
REFRACTORY = 0.28
"""Seconds before which no premature or conducted beat follows another."""

_COLUMNS = 6 * BEATS
_SLOW_WAVE = 0.1 * TWO_PI


class Beat(IntEnum):
    """Kinds of beats, by where they start."""

    SINUS = 0
    ECTOPIC_ATRIAL = 1
    HIDDEN_P = 2
    RETROGRADE_P = 3
    VENTRICULAR = 4
    PACED_ATRIUM = 5
    PACED_VENTRICLE = 6
    PACED_BOTH = 7


@dataclass(frozen=True)
class Schedule:
    """The beats of N records.

    Attributes:
        times: (N, BEATS) int64, R peaks in microseconds from the strip's start, ascending; the first is negative.
        kinds: (N, BEATS) int64, values of :class:`Beat`.
        flutter: (N,) int64, the period of flutter waves in microseconds; 0 where there are none.
    """

    times: torch.Tensor
    kinds: torch.Tensor
    flutter: torch.Tensor


@dataclass(frozen=True)
class _Rhythm:
    """Intervals in seconds, (n, BEATS) binary32: number k follows beat k; kinds and flutter as in Schedule."""

    intervals: torch.Tensor
    kinds: torch.Tensor
    flutter: torch.Tensor | None = None


@dataclass(frozen=True)
class _Source:
    """What a rhythm is made from: random numbers and the records' breathing."""

    draws: Draws
    breath_rate: torch.Tensor
    breath_phase: torch.Tensor

    def kinds(self, kind: Beat) -> torch.Tensor:
        return torch.full((len(self.breath_rate), BEATS), int(kind))

    def mean_interval(self, lowest: float, highest: float) -> torch.Tensor:
        """(n, 1) seconds, for a rate between two rates a minute."""
        rate = self.draws.between(lowest, highest)
        return torch.full_like(rate, 60.0) / rate

    def sinus(self, mean: torch.Tensor, depth: torch.Tensor, slow: float = 0.012) -> torch.Tensor:
        """Intervals around ``mean`` that breathing changes by ``depth`` seconds either way; (n, BEATS)."""
        nominal = torch.arange(BEATS) * mean
        breath = sin(nominal * self.breath_rate + self.breath_phase)
        wave = sin(nominal * _SLOW_WAVE + self.draws.between(0.0, TWO_PI))
        height = self.draws.between(0.0, slow)
        jitter = self.draws.between(-0.005, 0.005, BEATS)
        return ((mean + breath * depth) + wave * height) + jitter


def beat_schedule(labels: torch.Tensor, records: torch.Tensor, seed: int) -> Schedule:
    """The beats of each record, a function of its label, its number and the seed.

    Args:
        labels: (N,) int64 class numbers.
        records: (N,) int64 record numbers.
        seed: in [0, 2**32).
    """
    times = torch.zeros(len(labels), BEATS, dtype=torch.int64)
    kinds, flutter = torch.zeros_like(times), torch.zeros(len(labels), dtype=torch.int64)
    for number, name in enumerate(CLASSES):
        rows = (labels == number).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        draws = Draws(seed, Purpose.BEATS, records[rows], _COLUMNS)
        start = draws.between(0.0, 1.0)
        rhythm = RHYTHMS[name](_Source(draws, *breathing(seed, records[rows])))
        intervals = microseconds(rhythm.intervals)
        first = microseconds(start * -rhythm.intervals[:, :1] - LEAD_IN)
        times[rows] = first + intervals.cumsum(dim=1) - intervals
        kinds[rows] = rhythm.kinds
        if rhythm.flutter is not None:
            flutter[rows] = rhythm.flutter
    return Schedule(times, kinds, flutter)


def microseconds(seconds: torch.Tensor) -> torch.Tensor:
    """Binary32 seconds as int64 microseconds, rounded to nearest even."""
    return (seconds * 1e6).round().to(torch.int64)


def _premature(
    intervals: torch.Tensor, places: torch.Tensor, coupling: torch.Tensor, pause: torch.Tensor | None = None
) -> torch.Tensor:
    """Intervals in which the beats at ``places`` come early: after ``coupling`` times the interval before them.

    The interval after one is ``pause`` times its own, or without ``pause`` the one that leaves the sum of both as it
    was: the fully compensatory pause of a beat that does not reset the sinus node.
    """
    early = (coupling * intervals).clamp(min=REFRACTORY)
    after = (intervals.roll(1, 1) + intervals) - early.roll(1, 1) if pause is None else pause * intervals
    return torch.where(places.roll(-1, 1), early, torch.where(places, after, intervals))


def _with_occasional_beat(source: _Source, intervals: torch.Tensor) -> _Rhythm:
    """A sinus rhythm, in one record of eight with a single premature beat: ventricular in half of them, else atrial."""
    ventricular = source.draws.chance(0.5)
    place = torch.where(source.draws.chance(1 / 8), source.draws.integer(2, 7), BEATS)
    places = torch.arange(BEATS) == place
    coupling = source.draws.between(0.58, 0.80)
    compensated = _premature(intervals, places, coupling)
    reset = _premature(intervals, places, coupling, source.draws.between(1.0, 1.15))
    kind = torch.where(ventricular, int(Beat.VENTRICULAR), int(Beat.ECTOPIC_ATRIAL))
    kinds = torch.where(places, kind, source.kinds(Beat.SINUS))
    return _Rhythm(torch.where(ventricular, compensated, reset), kinds)


def _normal(source: _Source) -> _Rhythm:
    mean = source.mean_interval(61.0, 99.0)
    return _with_occasional_beat(source, source.sinus(mean, source.draws.between(0.005, 0.040)))


def _tachycardia(source: _Source) -> _Rhythm:
    skew = source.draws.between(0.0, 1.0)
    rate = (skew * skew) * 53.0 + 102.0
    mean = torch.full_like(rate, 60.0) / rate
    return _with_occasional_beat(source, source.sinus(mean, source.draws.between(0.002, 0.012), slow=0.006))


def _arrhythmia(source: _Source) -> _Rhythm:
    mean = source.mean_interval(55.0, 90.0)
    depth = torch.minimum(source.draws.between(0.09, 0.20), mean * 0.22)
    return _with_occasional_beat(source, source.sinus(mean, depth))


def _bradycardia(source: _Source) -> _Rhythm:
    mean = source.mean_interval(38.0, 58.0)
    return _with_occasional_beat(source, source.sinus(mean, source.draws.between(0.005, 0.040)))


def _fibrillation(source: _Source) -> _Rhythm:
    mean = source.mean_interval(55.0, 150.0)
    spread = source.draws.between(0.17, 0.30)
    intervals = (exp(source.draws.normal(BEATS) * spread) * mean).clamp(REFRACTORY, 2.2)
    ventricular = source.draws.chance(1 / 16) & (torch.arange(BEATS) == source.draws.integer(2, 7))
    return _Rhythm(intervals, source.kinds(Beat.HIDDEN_P).masked_fill(ventricular, int(Beat.VENTRICULAR)))


def _flutter(source: _Source) -> _Rhythm:
    """Two, three or four flutter waves a beat, or a mixture of them."""
    period = source.mean_interval(245.0, 340.0)
    which = source.draws.integer(0, 20)
    fixed = torch.where(which < 8, 2, torch.where(which < 11, 3, 4))
    waves = torch.where(which < 16, fixed, source.draws.integer(2, 5, BEATS))
    delay = source.draws.between(-0.004, 0.004, BEATS)
    intervals = period * waves + (delay - delay.roll(1, 1))
    return _Rhythm(intervals, source.kinds(Beat.HIDDEN_P), microseconds(period)[:, 0])


def _supraventricular_beats(source: _Source) -> _Rhythm:
    """Premature atrial beats at distances of two to five beats, never twice the same; they reset the sinus node."""
    mean = source.mean_interval(60.0, 100.0)
    intervals = source.sinus(mean, source.draws.between(0.005, 0.030))
    gaps = source.draws.integer(2, 4, BEATS // 2) + torch.tensor([0, 2]).repeat(BEATS // 4)
    places = source.draws.integer(0, 2) + gaps.cumsum(dim=1)
    premature = (torch.arange(BEATS)[:, None] == places[:, None, :]).any(dim=-1)
    coupling = source.draws.between(0.55, 0.82, BEATS)
    pause = source.draws.between(1.0, 1.15, BEATS)
    kinds = source.kinds(Beat.SINUS).masked_fill(premature, int(Beat.ECTOPIC_ATRIAL))
    return _Rhythm(_premature(intervals, premature, coupling, pause), kinds)


def _reentry_kinds(source: _Source) -> torch.Tensor:
    """No P wave to be seen, or one after the QRS complex."""
    retrograde = source.draws.chance(0.5)
    return torch.where(retrograde, int(Beat.RETROGRADE_P), source.kinds(Beat.HIDDEN_P))


def _reentry(source: _Source) -> _Rhythm:
    mean = source.mean_interval(152.0, 218.0)
    return _Rhythm(mean + source.draws.between(-0.004, 0.004, BEATS), _reentry_kinds(source))


def _paroxysm(source: _Source) -> _Rhythm:
    """Re-entry that starts in the strip (a third), ends in it, or both; a premature beat starts it, a pause ends it."""
    slow_mean, fast_mean = source.mean_interval(64.0, 100.0), source.mean_interval(152.0, 218.0)
    slow = source.sinus(slow_mean, source.draws.between(0.005, 0.030))
    fast = fast_mean + source.draws.between(-0.004, 0.004, BEATS)
    which = source.draws.integer(0, 3)
    start = torch.where(which == 1, 0.0, source.draws.between(3.0, torch.where(which == 0, 6.4, 3.8)))
    length = torch.where(which == 0, 99.0, source.draws.between(2.8, torch.where(which == 1, 7.0, 4.2)))
    first = torch.where(which == 1, 0, (start / slow_mean).floor().to(torch.int64) + 1)
    last = first + (length / fast_mean).floor().to(torch.int64)
    beat = torch.arange(BEATS)
    inside = (beat >= first) & (beat < last)
    starting, ending = beat == first - 1, beat == last
    intervals = torch.where(inside, fast, slow)
    intervals = torch.where(starting, slow * source.draws.between(0.55, 0.75), intervals)
    intervals = torch.where(ending, slow * source.draws.between(1.1, 1.6), intervals)
    kinds = torch.where(inside | ending, _reentry_kinds(source), source.kinds(Beat.SINUS))
    return _Rhythm(intervals, torch.where((beat == first) & (which != 1), int(Beat.ECTOPIC_ATRIAL), kinds))


def _pacemaker(source: _Source) -> _Rhythm:
    """Pacing of the atrium (a fifth), of the ventricle (a half) or of both, without a beat of the patient's own."""
    mean = source.mean_interval(50.0, 90.0)
    which = source.draws.integer(0, 10)
    both = torch.where(which < 7, int(Beat.PACED_VENTRICLE), int(Beat.PACED_BOTH))
    kind = torch.where(which < 2, int(Beat.PACED_ATRIUM), both)
    return _Rhythm(mean + source.draws.between(-0.001, 0.001, BEATS), kind.expand(-1, BEATS))


def _every(period: int) -> Callable[[_Source], _Rhythm]:
    """A sinus rhythm whose every ``period``-th beat is a premature ventricular one."""

    def rhythm(source: _Source) -> _Rhythm:
        mean = source.mean_interval(60.0, 100.0)
        intervals = source.sinus(mean, source.draws.between(0.005, 0.020), slow=0.006)
        places = (torch.arange(BEATS) + source.draws.integer(0, period)) % period == 0
        coupling = source.draws.between(0.56, 0.72) + source.draws.between(-0.015, 0.015, BEATS)
        kinds = source.kinds(Beat.SINUS).masked_fill(places, int(Beat.VENTRICULAR))
        return _Rhythm(_premature(intervals, places, coupling), kinds)

    return rhythm


RHYTHMS: dict[str, Callable[[_Source], _Rhythm]] = {
    "SR": _normal,
    "AFIB": _fibrillation,
    "STACH": _tachycardia,
    "SARRH": _arrhythmia,
    "SBRAD": _bradycardia,
    "PACE": _pacemaker,
    "SVARR": _supraventricular_beats,
    "BIGU": _every(2),
    "AFLT": _flutter,
    "SVTAC": _reentry,
    "PSVT": _paroxysm,
    "TRIGU": _every(3),
}
