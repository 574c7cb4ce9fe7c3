"""What tracing costs: CPU time spent in it at each detail, against the rest of the same training.

    python bench/trace_overhead.py [--recipe zoo/recipes/med_cnn.digits.toml] [--rounds 5] [--epochs 2] [--json FILE]

In one process and one thread, each round trains once with each setting, every round in another order. Times are CPU
times (time.process_time), so that other work on the machine does not count, nor does waiting for the disk. ``overhead``
is the time inside the tracing functions divided by the rest of that training, less what it is without a trace (the
chain's own): both parts of a ratio come from one training, because whole trainings on a loaded machine differ by more
than tracing costs. ``whole`` is the ratio of whole trainings to that of the same round without a trace, less 1, as a
check. Both are medians over the rounds.
Exit code 0: step detail costs less than 10 %, and every training gave one digest. 1: not so. 2: it cannot run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from reporting import header, print_table, write_json

from dettriton import data
from dettriton.errors import DettritonError
from dettriton.train import _detail, load_recipe, parse_recipe, train
from dettriton.train._detail import DetailedTrace
from dettriton.train._run import Run
from dettriton.train.recipe import Recipe
from dettriton.train.trace import Trace

DIGITS = Path(__file__).parent.parent / "zoo" / "recipes" / "med_cnn.digits.toml"
LIMIT = 0.10
CHEAP, DEAR, CANNOT_RUN = 0, 1, 2
BASE, STEP = "no trace", "step"
SETTINGS: dict[str, dict[str, Any]] = {
    BASE: {"trace": False},
    STEP: {},
    "every tensor, each step": {"tensor_interval": 1},
    **{
        f"{level}, 1 step in {interval}": {"trace_detail": level, "trace_interval": interval}
        for level in ("gradients", "activations")
        for interval in (10, 1)
    },
}

TRACING: dict[Any, tuple[str, ...]] = {
    Trace: ("append", "position", "close"),
    DetailedTrace: ("batch", "gradients", "append", "position"),
    Run: ("tensor_digests",),
    _detail: ("probe_outputs",),
}


class Meter:
    """CPU seconds inside functions, calls from one to another counted once."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    def metered(self, function: Callable) -> Callable:
        """The function, metered."""

        @wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            if self._depth:
                return function(*args, **kwargs)
            self._depth, begin = 1, time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._depth, self.seconds = 0, self.seconds + time.process_time() - begin

        return inner


@contextmanager
def metering() -> Iterator[Meter]:
    """Meter all that tracing does, in every training inside."""
    meter = Meter()
    with ExitStack() as stack:
        for owner, names in TRACING.items():
            for name in names:
                stack.enter_context(patch.object(owner, name, meter.metered(getattr(owner, name))))
        yield meter


def measure(recipe: Recipe, splits: Mapping[str, data.Dataset], rounds: int) -> dict[str, Any]:
    """CPU seconds by setting and round, bytes that each setting wrote, and whether all digests agree."""
    seconds: dict[str, list[float]] = {name: [] for name in SETTINGS}
    tracing: dict[str, list[float]] = {name: [] for name in SETTINGS}
    sizes: dict[str, int] = {}
    digests = set()
    names = [*SETTINGS]
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, Path(folder, "warm"), splits=splits, progress=False)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                out = Path(folder, f"{number} {name}")
                with metering() as meter:
                    begin = time.process_time()
                    result = train(recipe, out, splits=splits, progress=False, **SETTINGS[name])
                    seconds[name].append(time.process_time() - begin)
                tracing[name].append(meter.seconds)
                sizes[name] = sum(path.stat().st_size for path in out.glob("trace*.jsonl"))
                digests.add((result.weights_digest, result.trace_link))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return {
        "seconds": seconds,
        "tracing_seconds": tracing,
        "trace_bytes": sizes,
        "steps": result.steps,
        "one_digest": len(digests) == 1,
    }


def overheads(measured: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """By setting: the overhead, and the ratio of whole trainings less 1, as the module defines them."""
    whole, inside = measured["seconds"], measured["tracing_seconds"]
    shares = {
        name: statistics.median(t / (all_ - t) for t, all_ in zip(inside[name], whole[name], strict=True))
        for name in whole
    }
    ratios = {
        name: statistics.median(t / base for t, base in zip(times, whole[BASE], strict=True)) - 1
        for name, times in whole.items()
    }
    return {name: share - shares[BASE] for name, share in shares.items()}, ratios


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", type=Path, default=DIGITS)
    parser.add_argument("--data-dir")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        tables = load_recipe(options.recipe).to_dict()
        recipe = parse_recipe({**tables, "train": {**tables["train"], "epochs": options.epochs}})
        measured = measure(recipe, data.load(recipe.data.name, options.data_dir), options.rounds)
    except DettritonError as error:
        print(f"trace_overhead: {error}", file=sys.stderr)
        return CANNOT_RUN
    found, whole = overheads(measured)
    rows = [
        (
            name,
            f"{statistics.median(times):.2f}",
            f"{found[name]:.2%}",
            f"{whole[name]:+.1%}",
            f"{measured['trace_bytes'][name] / measured['steps']:.0f}",
        )
        for name, times in measured["seconds"].items()
    ]
    title = f"{options.recipe.stem}: {measured['steps']} steps, medians of {options.rounds} rounds, one thread"
    print_table(title, ("detail", "CPU s", "overhead", "whole", "bytes a step"), rows)
    if options.json is not None:
        facts = {"recipe": options.recipe.stem, "epochs": options.epochs, "rounds": options.rounds}
        write_json(options.json, {**header("trace_overhead"), **facts, **measured, "overhead": found, "whole": whole})
    return CHEAP if found[STEP] < LIMIT and measured["one_digest"] else DEAR


if __name__ == "__main__":
    sys.exit(main())
