"""What the results of a study say: spread by arm and class, and comparisons between arms."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from dettriton.errors import InputError
from dettriton.study._plan import Arm
from dettriton.study._results import Results
from dettriton.study._statistics import (
    PValue,
    Spread,
    differences,
    equal_variance,
    equivalence,
    friedman,
    holm,
    spread,
    wilcoxon,
)

MARGIN = 0.01
LEVEL = 0.05
TESTS = ("wilcoxon", "equivalence", "variance")

Runs = dict[int, dict[str, Any]]


@dataclass(frozen=True)
class ArmSummary:
    """The finished runs of an arm.

    Attributes:
        arm: the arm.
        seeds: of the finished runs.
        auc, acc, f1: on the test split.
        classes: class name to its test AUC over the runs in which it is defined; None if it is in none.
    """

    arm: Arm
    seeds: tuple[int, ...]
    auc: Spread
    acc: Spread
    f1: Spread
    classes: dict[str, Spread | None]


@dataclass(frozen=True)
class Comparison:
    """Test AUC of two arms that differ in one thing, over the seeds that both have.

    Attributes:
        first, second: the arms.
        n: number of pairs.
        difference: mean AUC of the first minus that of the second.
        sds: standard deviations over these seeds; None for one pair.
        wilcoxon, equivalence, variance: see :mod:`dettriton.study._statistics`.
        adjusted: the p of each test by its name, adjusted by Holm's method over all comparisons.
    """

    first: Arm
    second: Arm
    n: int
    difference: float
    sds: tuple[float | None, float | None]
    wilcoxon: PValue
    equivalence: PValue
    variance: PValue
    adjusted: dict[str, float | None]

    @property
    def sd_ratio(self) -> float | None:
        """Standard deviation of the first by that of the second."""
        first, second = self.sds
        return first / second if first is not None and second else None


@dataclass(frozen=True)
class Group:
    """Friedman's test over three or more arms that differ in one thing, over the seeds that all have."""

    arms: tuple[Arm, ...]
    n: int
    test: PValue


@dataclass(frozen=True)
class Summary:
    """All that a report says.

    Attributes:
        study: what all runs share, from the results file.
        margin: of the equivalence tests.
        arms: in the order of their names.
        comparisons: each pair of arms with the same order or the same initialisation and a common seed.
        groups: all arms of one order, or of one initialisation, if they are three or more.
        problems: run name to message, of runs that diverged.
    """

    study: dict[str, Any]
    margin: float
    arms: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]
    groups: tuple[Group, ...]
    problems: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON data."""
        return {
            "study": self.study,
            "margin": self.margin,
            "arms": {str(a.arm): _arm_to_dict(a) for a in self.arms},
            "comparisons": [
                asdict(c) | {"first": str(c.first), "second": str(c.second), "sd_ratio": c.sd_ratio}
                for c in self.comparisons
            ],
            "friedman": [{"arms": [*map(str, g.arms)], "n": g.n, **asdict(g.test)} for g in self.groups],
            "problems": self.problems,
        }


def summarise(results: Results, margin: float = MARGIN) -> Summary:
    """The statistics of a study's finished runs.

    Args:
        results: from :func:`dettriton.study.load_results` or :func:`dettriton.study.run_study`.
        margin: AUC means whose difference is shown to be smaller count as equivalent.

    Raises:
        InputError: the margin is not above 0.
    """
    if not margin > 0:
        raise InputError(f"means are equivalent within a margin above 0, got {margin}")
    finished = results.finished()
    classes = results.study["classes"]
    return Summary(
        study=results.study,
        margin=margin,
        arms=tuple(_summarise_arm(arm, runs, classes) for arm, runs in finished.items()),
        comparisons=_compare(finished, margin),
        groups=tuple(_groups(finished)),
        problems={
            f"{arm}/{seed}": message
            for arm, messages in results.problems().items()
            for seed, message in messages.items()
        },
    )


def _summarise_arm(arm: Arm, runs: Runs, classes: Sequence[str]) -> ArmSummary:
    tests = [run["test"] for run in runs.values()]
    auc, acc, f1 = (spread([test[name] for test in tests]) for name in ("auc", "acc", "f1"))
    by_class = {}
    for k, name in enumerate(classes):
        values = [test["class_auc"][k] for test in tests if test["class_auc"][k] is not None]
        by_class[name] = spread(values) if values else None
    return ArmSummary(arm, tuple(runs), auc, acc, f1, by_class)


def _compare(finished: dict[Arm, Runs], margin: float) -> tuple[Comparison, ...]:
    found = []
    for first, second in combinations(finished, 2):
        seeds = _common_seeds(finished, (first, second))
        if not seeds or (first.init != second.init and first.order != second.order):
            continue
        one, other = (_aucs(finished[arm], seeds) for arm in (first, second))
        tests = {
            "wilcoxon": wilcoxon(one, other),
            "equivalence": equivalence(one, other, margin),
            "variance": equal_variance(one, other),
        }
        difference = spread(differences(one, other)).mean
        found.append((first, second, len(seeds), difference, (spread(one).sd, spread(other).sd), tests))
    adjusted = {name: holm([c[-1][name].p for c in found]) for name in TESTS}
    return tuple(
        Comparison(*c[:-1], **c[-1], adjusted={name: ps[i] for name, ps in adjusted.items()})
        for i, c in enumerate(found)
    )


def _groups(finished: dict[Arm, Runs]) -> Iterator[Group]:
    for thing in ("order", "init"):
        for value in dict.fromkeys(getattr(arm, thing) for arm in finished):
            arms = tuple(arm for arm in finished if getattr(arm, thing) == value)
            seeds = _common_seeds(finished, arms)
            if len(arms) >= 3 and seeds:
                test = friedman([_aucs(finished[arm], seeds) for arm in arms])
                yield Group(arms, len(seeds), test)


def _common_seeds(finished: dict[Arm, Runs], arms: Sequence[Arm]) -> list[int]:
    return sorted(set.intersection(*(set(finished[arm]) for arm in arms)))


def _aucs(runs: Runs, seeds: Sequence[int]) -> list[float]:
    return [runs[seed]["test"]["auc"] for seed in seeds]


def _arm_to_dict(summary: ArmSummary) -> dict[str, Any]:
    figures = {name: getattr(summary, name).to_dict() for name in ("auc", "acc", "f1")}
    classes = {name: None if s is None else s.to_dict() for name, s in summary.classes.items()}
    return {"seeds": list(summary.seeds), **figures, "class_auc": classes}
