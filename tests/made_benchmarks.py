"""Cases of the benchmark that take no time: right ones, and ones with a planted error in their bits."""

from __future__ import annotations

import torch

from dettriton import ops
from dettriton.benchmarks import rates, session
from dettriton.benchmarks.case import FORWARD, TRAINING, OpCase
from dettriton.exact._jit import compiles


class FakeClock:
    """Runs each call and says that it took the next of the given seconds."""

    def __init__(self, *seconds: float):
        self._seconds = seconds
        self.calls = 0

    def seconds(self, run):
        run()
        self.calls += 1
        return self._seconds[(self.calls - 1) % len(self._seconds)]


def made(ours, stock=torch.relu, *, what=FORWARD, **rest) -> OpCase:
    """A case of (5, 3) samples."""
    leaves = ("input",) if what == TRAINING else ()
    rest = {"samples": ("input",), "per_sample": True, "invariant": True} | rest
    return OpCase("relu", "5x3", what, "small", ours, stock, {"input": (5, 3)}, leaves, **rest)


def right(what=FORWARD) -> OpCase:
    return made(ops.relu, what=what)


def _moved(x: torch.Tensor, moves: bool) -> torch.Tensor:
    y = ops.relu(x) + 1.0
    return torch.nextafter(y, torch.full_like(y, 9.0)) if moves else y


def by_loops(input):
    """An ulp more where compiled loops run, which the reference does without."""
    return _moved(input, compiles())


def by_threads(input):
    """An ulp more with one thread."""
    return _moved(input, torch.get_num_threads() == 1)


def by_order(input):
    """An ulp more where the batch is whole and in another order than the case's."""
    whole = made(None).inputs()["input"]
    return _moved(input, len(input) == len(whole) and not torch.equal(input, whole))


def by_company(input):
    """An ulp more in company."""
    return _moved(input, len(input) > 1)


class ByCalls:
    """An ulp more in every second call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, input):
        self.calls += 1
        return _moved(input, self.calls % 2 == 0)


def install(patch, *cases: OpCase) -> None:
    """Make ``dettriton bench`` measure these cases; ``patch`` is monkeypatch.setattr."""
    patch(session, "chosen", lambda *_: [*cases])
    patch(rates, "COPIED_BYTES", 1 << 16)
