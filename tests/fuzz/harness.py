"""Running a reader on many inputs: each is read or refused with an error of ours, in a bounded time and memory."""

import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from fuzz.mutation import Form
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from dettriton.errors import DettritonError

LONGEST_SECONDS = 10.0
LONGEST_MESSAGE = 20_000
_MEBIBYTE = 1 << 20


class HangError(Exception):
    """A reader took too long."""


@dataclass
class Outcome:
    """What became of the inputs."""

    counts: Counter = field(default_factory=Counter)
    longest: float = 0.0
    seconds: float = 0.0
    grown_mebibytes: float = 0.0

    def __str__(self) -> str:
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        return (
            f"{self.counts.total()} inputs: {counted}; {self.seconds:.0f} s of CPU, the longest {self.longest:.3f} s; "
            f"memory grew by {self.grown_mebibytes:.0f} MiB"
        )


def fuzz(form: Form, read: Callable[[bytes], object], inputs: int, longest_seconds: float = LONGEST_SECONDS) -> Outcome:
    """Give a reader so many inputs, the same ones each time.

    Raises:
        whatever the reader raises that is not ours, HangError or AssertionError; the input is in its notes.
    """
    outcome = Outcome()

    @settings(
        max_examples=inputs,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(st.integers(0, 2**64 - 1))
    def one(seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = form.make(Random(seed))
        note(f"the input: {content[:2000]!r}")
        started = time.process_time()
        with _limited(longest_seconds):
            kind = _outcome(read, content)
        outcome.counts[kind] += 1
        outcome.longest = max(outcome.longest, time.process_time() - started)

    started, before = time.process_time(), _peak()
    one()
    outcome.seconds, outcome.grown_mebibytes = time.process_time() - started, _peak() - before
    return outcome


def _outcome(read: Callable[[bytes], object], content: bytes) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(content)
    except DettritonError as error:
        assert 0 < len(str(error)) < LONGEST_MESSAGE, f"a message of {len(str(error))} characters"
        return f"refused ({type(error).__name__})"
    return "read"


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise HangError(f"it took longer than {seconds} s")

    # seconds of this process, so that a busy machine does not look like a hang
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _peak() -> float:
    """The largest memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MEBIBYTE if sys.platform == "darwin" else 1024)
