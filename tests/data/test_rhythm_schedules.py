"""The beats of each rhythm keep to the intervals that define it."""

import pytest
import torch

from dettriton.data._rhythms import CLASSES, Beat, beat_schedule

RECORDS = 120


def labels_of(name: str, n: int = RECORDS) -> torch.Tensor:
    return torch.full((n,), CLASSES.index(name))


def strips(name: str, seed: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each record, the R-peak times within the strip in seconds, and the kinds of those beats."""
    schedule = beat_schedule(labels_of(name), torch.arange(RECORDS), seed)
    seen = (schedule.times >= 0) & (schedule.times < 10_000_000)
    return [(t[s] / 1e6, k[s]) for t, k, s in zip(schedule.times, schedule.kinds, seen, strict=True)]


def sinus_intervals(times: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    """Intervals of seconds between sinus beats that follow one another, those after a premature beat left out."""
    sinus = kinds == int(Beat.SINUS)
    both = sinus[1:] & sinus[:-1]
    both[1:] &= sinus[:-2]
    return times.diff()[both]


@pytest.mark.parametrize(
    ("name", "slowest", "fastest"), [("SR", 60, 100), ("STACH", 100, 160), ("SARRH", 50, 100), ("SBRAD", 30, 60)]
)
def test_validate_sinus_rhythms(name, slowest, fastest):
    premature = 0
    for times, kinds in strips(name):
        intervals = sinus_intervals(times, kinds)
        rate = 60.0 / float(intervals.mean())
        spread = float(intervals.max() - intervals.min())
        ectopic = int((kinds != int(Beat.SINUS)).sum())
        premature += ectopic
        assert slowest < rate < fastest
        assert ectopic <= 1
        assert spread > 0.12 if name == "SARRH" and not ectopic else spread < (0.45 if name == "SARRH" else 0.12)
    assert 3 <= premature <= 30


def test_validate_fibrillation_is_irregular():
    lag_one = []
    for times, kinds in strips("AFIB"):
        intervals = times.diff()
        centred = intervals - intervals.mean()
        assert not ((kinds != int(Beat.HIDDEN_P)) & (kinds != int(Beat.VENTRICULAR))).any()
        assert float(intervals.std() / intervals.mean()) > 0.06
        assert float(intervals.min()) > 0.279 and float(intervals.max()) < 2.21
        lag_one.append(float((centred[1:] * centred[:-1]).mean() / (centred**2).mean()))
    # an irregular series of n intervals has a lag-one correlation of about -1 / n
    assert -0.2 < sum(lag_one) / RECORDS < 0.05


def test_validate_flutter_conducts_whole_waves():
    schedule = beat_schedule(labels_of("AFLT"), torch.arange(RECORDS), 3)
    waves = schedule.times.diff() / schedule.flutter[:, None]
    whole = waves.round()
    assert float((waves - whole).abs().max()) < 0.05
    assert set(whole.flatten().tolist()) == {2.0, 3.0, 4.0}
    fixed = (whole == whole[:, :1]).all(dim=1)
    assert {2.0, 3.0, 4.0} == set(whole[fixed, 0].tolist())
    assert 0.6 < float(fixed.float().mean()) < 0.95
    assert ((60e6 / schedule.flutter) > 244).all() and ((60e6 / schedule.flutter) < 341).all()
    others = [name for name in CLASSES if name != "AFLT"]
    assert not any(beat_schedule(labels_of(name, 2), torch.arange(2), 3).flutter.any() for name in others)


def test_validate_supraventricular_beats_are_early_and_reset_the_rhythm():
    for times, kinds in strips("SVARR"):
        intervals = times.diff()
        premature = (kinds == int(Beat.ECTOPIC_ATRIAL)).nonzero()[:, 0]
        inner = premature[(premature > 0) & (premature < len(times) - 1)]
        usual = float(sinus_intervals(times, kinds).mean())
        assert len(premature) >= 2
        assert (intervals[inner - 1] < 0.95 * intervals[inner]).all()
        assert (intervals[inner - 1] + intervals[inner] < 2.1 * usual).all()
        assert (premature.diff().diff() != 0).all()


@pytest.mark.parametrize(("name", "period"), [("BIGU", 2), ("TRIGU", 3)])
def test_validate_every_nth_beat_is_ventricular(name, period):
    for times, kinds in strips(name):
        wide = kinds == int(Beat.VENTRICULAR)
        assert (wide[period:] == wide[:-period]).all()
        assert sorted(wide[:period].tolist()) == [False] * (period - 1) + [True]
        places = wide.nonzero()[:, 0]
        inner = places[(places > 0) & (places < len(times) - 1)]
        early, late = times[inner] - times[inner - 1], times[inner + 1] - times[inner]
        assert (early < 0.65 * late).all()
        cycle = times[period:] - times[:-period]
        assert (cycle / period > 0.58).all() and (cycle / period < 1.05).all()


def test_validate_reentry_is_fast_and_regular():
    for times, kinds in strips("SVTAC"):
        intervals = times.diff()
        assert 150 < 60.0 / float(intervals.mean()) < 220
        assert float(intervals.max() - intervals.min()) < 0.012
        assert set(kinds.tolist()) <= {int(Beat.HIDDEN_P), int(Beat.RETROGRADE_P)}


def test_validate_paroxysms_start_or_end_in_the_strip():
    starts = ends = 0
    for times, kinds in strips("PSVT"):
        sinus = kinds == int(Beat.SINUS)
        fast = (times.diff() < 0.41) & ~(sinus[:-1] & sinus[1:])
        assert int(sinus.sum()) >= 2 and int(fast.sum()) >= 5
        assert int((sinus[1:] != sinus[:-1]).sum()) == int(sinus[0]) + int(sinus[-1])
        starts, ends = starts + int(sinus[0]), ends + int(sinus[-1])
        rate = 60.0 / float(times.diff()[~sinus[:-1] & ~sinus[1:]].mean())
        assert 150 < rate < 220
    assert RECORDS < starts + ends < 1.7 * RECORDS


def test_validate_pacing_is_regular():
    found = set()
    for times, kinds in strips("PACE"):
        assert float(times.diff().max() - times.diff().min()) < 0.0025
        assert 49 < 60.0 / float(times.diff().mean()) < 91
        assert len(set(kinds.tolist())) == 1
        found.add(int(kinds[0]))
    assert found == {int(Beat.PACED_ATRIUM), int(Beat.PACED_VENTRICLE), int(Beat.PACED_BOTH)}


@pytest.mark.parametrize("name", CLASSES)
def test_validate_schedules_cover_the_strip(name):
    times = beat_schedule(labels_of(name), torch.arange(RECORDS), 3).times
    assert (times[:, 0] <= -300_000).all() and (times[:, 0] > -2_500_000).all()
    assert (times[:, -1] > 10_400_000).all()
    assert int(times.diff().min()) > 260_000
