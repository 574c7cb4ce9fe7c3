"""Draw simulated strips: some leads of every rhythm, or all twelve leads of one.

    python bench/plot_rhythms.py --out DIR [--seed 0] [--record 0] [--leads II V1 | --rhythm AFLT]

Writes rhythms.png and rhythms.svg (or AFLT.png and AFLT.svg) into DIR. Exit code 0: drawn. 2: it cannot run.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from dettriton.data import rhythm_sim
from dettriton.errors import DettritonError

DRAWN, CANNOT_RUN = 0, 2
OVERVIEW_LEADS = ("II", "V1")
MILLIVOLT = 1000.0
ROW_HEIGHT = 3.2
"""Millivolts from one trace to the next."""
HEADROOM = 1.0
"""Millivolts above the first, for its tallest beats."""


def traces(
    seed: int, record: int, rhythm: str | None, overview: Sequence[str] = OVERVIEW_LEADS
) -> dict[str, torch.Tensor]:
    """What to draw: names and (1000,) int16 signals in microvolts, from top to bottom."""
    classes = rhythm_sim.CLASSES if rhythm is None else (rhythm,)
    found = {}
    for name in classes:
        label = torch.tensor([rhythm_sim.CLASSES.index(name)])
        leads = dict(zip(rhythm_sim.LEADS, rhythm_sim.simulate(label, seed, record)[0], strict=True))
        chosen = overview if rhythm is None else rhythm_sim.LEADS
        found |= {f"{name} {lead}": leads[lead] for lead in chosen}
    return found


def draw(signals: dict[str, torch.Tensor], folder: Path, stem: str) -> list[Path]:
    """Draw traces below one another on ECG paper (0.2 s by 0.5 mV), as PNG and SVG."""
    height = ROW_HEIGHT * len(signals) + HEADROOM
    figure = Figure(figsize=(16, 0.36 * height), layout="constrained")
    axes = figure.subplots()
    time = torch.arange(1000) / float(rhythm_sim.FREQUENCY)
    for row, (name, signal) in enumerate(signals.items()):
        base = height - HEADROOM - ROW_HEIGHT * (row + 0.5)
        axes.plot(time, signal / MILLIVOLT + base, color="black", linewidth=0.8)
        axes.text(-0.06, base, name, ha="right", va="center", fontsize=9)
    axes.set(xlim=(0, 10), ylim=(0, height), xlabel="seconds; a square is 0.2 s by 0.5 mV", yticks=[])
    axes.set_xticks([0.2 * i for i in range(51)], minor=True)
    axes.set_yticks([0.5 * i for i in range(int(2 * height) + 1)], minor=True)
    axes.grid(which="both", color="#f2b8b8", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=64)
    return paths


def main(arguments: list[str] | None = None) -> int:
    """Draw the strips and name the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=int, default=0)
    parser.add_argument("--rhythm", choices=rhythm_sim.CLASSES)
    parser.add_argument("--leads", nargs="+", choices=rhythm_sim.LEADS, default=OVERVIEW_LEADS)
    options = parser.parse_args(arguments)
    try:
        signals = traces(options.seed, options.record, options.rhythm, options.leads)
        for path in draw(signals, options.out, options.rhythm or "rhythms"):
            print(path)
    except (DettritonError, OSError) as error:
        print(f"cannot draw: {error}", file=sys.stderr)
        return CANNOT_RUN
    return DRAWN


if __name__ == "__main__":
    sys.exit(main())
