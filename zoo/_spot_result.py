"""What a spot check found, and how likely it would have missed something."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from typing import Any


def miss_probability(segments: int, tampered: int, checked: int) -> Fraction:
    """How likely ``checked`` of ``segments``, chosen at random without replacement, include none of the tampered ones.

    ``C(segments - tampered, checked) / C(segments, checked)``; for one tampered segment ``1 - checked / segments``.
    """
    return Fraction(comb(segments - tampered, checked), comb(segments, checked))


@dataclass(frozen=True)
class SegmentCheck:
    """A segment that was computed again.

    Attributes:
        index: counted from 0.
        begin, end: steps done before and after it.
        expected: digest of the committed state at its end.
        got: of the state computed here; None if none came out.
        problem: the first differing tensor, or why there is no state; None on a match.
    """

    index: int
    begin: int
    end: int
    expected: str
    got: str | None
    problem: str | None

    @property
    def matches(self) -> bool:
        """Whether the segment ends in the committed state."""
        return self.got == self.expected

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON data."""
        return {
            "segment": self.index,
            "first_step": self.begin,
            "last_step": self.end - 1,
            "match": self.matches,
            "expected": self.expected,
            "got": self.got,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class SpotResult:
    """The outcome of a spot check.

    Attributes:
        name: of the released model, or the run's directory.
        root: that the training committed itself to.
        count: how many segments it has.
        seed: the public text that chose.
        device: where it ran.
        digests: data and initial weights; name to (expected, got).
        checks: one a chosen segment, ascending.
        weights_tied: whether the committed state after the best epoch holds the weights; None where no state here is
            of that step.
        trace_tied: whether the committed last state has the trace's last link; None where it is not here.
        seconds: loading included.
        environment: what it ran on.
    """

    name: str
    root: str
    count: int
    seed: str
    device: str
    digests: Mapping[str, tuple[str, str]]
    checks: tuple[SegmentCheck, ...]
    weights_tied: bool | None
    trace_tied: bool | None
    seconds: float
    environment: Mapping[str, Any]

    @property
    def matches(self) -> bool:
        """Whether nothing that was checked differs."""
        same = all(expected == got for expected, got in self.digests.values())
        tied = self.weights_tied is not False and self.trace_tied is not False
        return same and tied and all(check.matches for check in self.checks)

    @property
    def chance_of_missing_one(self) -> Fraction:
        """How likely a single tampered segment would have been missed."""
        return miss_probability(self.count, 1, len(self.checks))

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON data."""
        return {
            "name": self.name,
            "match": self.matches,
            "device": self.device,
            "seed": self.seed,
            "root": self.root,
            "segments": self.count,
            "checked": [check.to_dict() for check in self.checks],
            "digests": {k: {"expected": expected, "got": got} for k, (expected, got) in self.digests.items()},
            "weights_tied": self.weights_tied,
            "trace_tied": self.trace_tied,
            "chance_of_missing_one": float(self.chance_of_missing_one),
            "seconds": round(self.seconds, 3),
            "environment": dict(self.environment),
        }
