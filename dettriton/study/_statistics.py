"""Statistics of paired runs. Where a test is not defined its p is None and a note says why."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

FEWEST_PAIRS = 6
"""With fewer, no Wilcoxon signed-rank test can give a two-sided p below 0.05."""
FEWEST_FOR_VARIANCE = 3
_DECIMALS = 12


@dataclass(frozen=True)
class Spread:
    """Figures of several runs: how many, mean, standard deviation (n - 1; None for one run), extremes."""

    n: int
    mean: float
    sd: float | None
    minimum: float
    maximum: float

    @property
    def range(self) -> float:
        """The highest minus the lowest."""
        return self.maximum - self.minimum

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON data, range included."""
        return asdict(self) | {"range": self.range}


@dataclass(frozen=True)
class PValue:
    """What a statistical test says.

    Attributes:
        p: None where it is not defined.
        statistic: of the test; None where it is not defined.
        note: why it is not defined, else empty.
    """

    p: float | None
    statistic: float | None = None
    note: str = ""


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and extremes of at least one value; the first two are correctly rounded."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.mean(values), sd, min(values), max(values))


def differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """The difference of each pair, to 12 decimals: figures are ratios of small integers, and ties must stay ties."""
    return [round(a - b, _DECIMALS) for a, b in zip(first, second, strict=True)]


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> PValue:
    """Two-sided Wilcoxon signed-rank test that paired values do not differ (Wilcoxon 1945).

    Pairs without a difference are left out. The p is exact where no differences are tied or zero and the pairs are few,
    as scipy.stats.wilcoxon decides.
    """
    apart = differences(first, second)
    if len(apart) < FEWEST_PAIRS:
        return PValue(None, note=f"not defined for fewer than {FEWEST_PAIRS} pairs")
    if not any(apart):
        return PValue(None, note="not defined: no pair differs")
    from scipy import stats

    return _tested(lambda: stats.wilcoxon(apart))


def equivalence(first: Sequence[float], second: Sequence[float], margin: float) -> PValue:
    """Two one-sided paired t-tests that the mean difference lies outside of -margin to margin (Schuirmann 1987).

    A p below 0.05 says that the means are equivalent within the margin. The statistic is the one nearer to 0.
    """
    apart = differences(first, second)
    if len(apart) < 2:
        return PValue(None, note="not defined for fewer than 2 pairs")
    error = statistics.stdev(apart) / math.sqrt(len(apart))
    if not error:
        return PValue(None, note="not defined: the difference is the same in all pairs")
    from scipy import stats

    nearer = (margin - abs(statistics.mean(apart))) / error
    return _tested(lambda: (nearer, stats.t.sf(nearer, len(apart) - 1)))


def equal_variance(first: Sequence[float], second: Sequence[float]) -> PValue:
    """Levene's test with medians (Brown and Forsythe 1974) that two sets of runs vary equally.

    It takes the sets as independent, so it makes nothing of pairs.
    """
    if min(len(first), len(second)) < FEWEST_FOR_VARIANCE:
        return PValue(None, note=f"not defined for fewer than {FEWEST_FOR_VARIANCE} runs an arm")
    if len(set(first)) == len(set(second)) == 1:
        return PValue(None, note="not defined: neither arm varies")
    from scipy import stats

    return _tested(lambda: stats.levene(first, second, center="median"))


def friedman(blocks: Sequence[Sequence[float]]) -> PValue:
    """Friedman's test (1937) that arms do not differ, given three or more arms' figures for the same seeds.

    Args:
        blocks: an arm's figures each, in the same order of seeds.
    """
    if len(blocks[0]) < 2:
        return PValue(None, note="not defined for fewer than 2 common seeds")
    if all(len(set(seed)) == 1 for seed in zip(*blocks, strict=True)):
        return PValue(None, note="not defined: all arms are equal for every seed")
    from scipy import stats

    return _tested(lambda: stats.friedmanchisquare(*blocks))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for their number by Holm's method (1979); None stays None and does not count."""
    defined = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, place) in enumerate(defined):
        highest = max(highest, min(1.0, (len(defined) - rank) * p))
        adjusted[place] = highest
    return adjusted


def _tested(test: Callable[[], Any]) -> PValue:
    import numpy as np

    # where a variance is 0 the statistic is a division by it, which numpy warns of
    with np.errstate(all="ignore"):
        statistic, p = test()
    if not (math.isfinite(statistic) and math.isfinite(p)):
        return PValue(None, note="not defined: the figures do not vary enough")
    return PValue(float(p), float(statistic))
