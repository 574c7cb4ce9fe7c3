"""Draw the charts of README's performance section from a results file of `dettriton bench`.

    python bench/plot.py [--results FILE] [--out DIR]

Without --results: the results in bench/results, those of a GPU where there are some. Writes speed-ops and speed-steps, as
PNG and SVG, into DIR, by default bench/results. Exit code 0: drawn. 2: it cannot run.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from reporting import RESULTS, read_json, speed_results

from dettriton.benchmarks.case import FORWARD, INPUT_GRADIENT, STEP, TRAINING, UPDATE, WEIGHT_GRADIENT
from dettriton.benchmarks.reporting import hardware
from dettriton.benchmarks.tables import geometric_mean, grouped, measured_rows, ratios
from dettriton.benchmarks.variants import DETERMINISTIC, STOCK
from dettriton.errors import DettritonError, InputError
from dettriton.files import atomic_write
from dettriton.study._plots import COLOURS, KINDS, STYLE

DRAWN, CANNOT_RUN = 0, 2
WIDTH, BAR_HEIGHT, MARGIN = 7.0, 0.2, 1.5
"""Inches; a phone shows the whole width with letters of 2 mm."""
SHORT = {FORWARD: "forward", TRAINING: "both", INPUT_GRADIENT: "d input", WEIGHT_GRADIENT: "d weight", UPDATE: "step"}
SHORT_OPS = {"scaled_dot_product_attention": "attention", "binary_cross_entropy_with_logits": "bce_with_logits"}

Bars = dict[str, list[float | None]]


def draw(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw both charts of a results file.

    Args:
        content: of the file.
        folder: made if need be.

    Raises:
        InputError: the file holds no ops, or no training steps, whose bits are right.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with rc_context(STYLE | {"font.size": 12}):
        for stem, figure in {"speed-ops": _ops(content), "speed-steps": _steps(content)}.items():
            for kind, metadata in KINDS.items():
                picture = io.BytesIO()
                figure.savefig(picture, format=kind, dpi=120, metadata=metadata)
                paths.append(folder / f"{stem}.{kind}")
                atomic_write(paths[-1], picture.getvalue())
    return paths


def _ops(content: Mapping[str, Any]) -> Figure:
    found = grouped(measured_rows(content))
    sizes = {size for _, _, size in found}
    labels = [
        f"{SHORT_OPS.get(op, op)}, {SHORT[what]}" + (f" ({size})" if len(sizes) > 1 else "") for op, what, size in found
    ]
    two = ["medium" in rows[0]["ratios"] for rows in found.values()]
    high, medium = (
        [_mean(ratios(rows, precision, STOCK)) for rows in found.values()] for precision in ("high", "medium")
    )
    bars: Bars = {
        "high, or an op without precision": high,
        "medium": [x if has else None for x, has in zip(medium, two, strict=True)],
    }
    what = "Ops: stock torch's time divided by ours, mean over shapes\n(both: forward and backward; d: gradient)"
    return _chart(content, what, labels, bars)


def _steps(content: Mapping[str, Any]) -> Figure:
    rows = [row for row in measured_rows(content) if row["what"] == STEP]
    graphs = "high, CUDA graph"
    kinds = [("high", STOCK), ("medium", STOCK), ("high", DETERMINISTIC), (graphs, STOCK)]
    bars: Bars = {
        f"{ours} against {baseline}": [row["ratios"].get(ours, {}).get(baseline) for row in rows]
        for ours, baseline in kinds
        if any(ours in row["ratios"] for row in rows)
    }
    what = "Training steps: stock torch's time\ndivided by ours"
    return _chart(content, what, [row["shapes"].replace(", ", "\n") for row in rows], bars)


def _chart(content: Mapping[str, Any], what: str, labels: Sequence[str], bars: Bars) -> Figure:
    """Horizontal bars on a logarithmic axis around 1, the first label on top."""
    if not labels:
        raise InputError("the results hold nothing of that kind to draw; measure with `dettriton bench` first")
    height = len(labels) * (BAR_HEIGHT * len(bars) + 0.12) + MARGIN
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    for place, (name, values) in enumerate(bars.items()):
        known = [(i, x) for i, x in enumerate(values) if x is not None]
        heights = [i + (place - (len(bars) - 1) / 2) * 0.8 / len(bars) for i, _ in known]
        lengths = [x - 1 for _, x in known]
        axes.barh(heights, lengths, 0.8 / len(bars), left=1, label=name, color=COLOURS[place], edgecolor="white")
        for y, (_, x) in zip(heights, known, strict=True):
            side = "left" if x >= 1 else "right"
            offset = (3 if x >= 1 else -3, 0)
            axes.annotate(f"{x:.2f}", (x, y), offset, textcoords="offset points", ha=side, va="center", fontsize=8)
    every = [x for values in bars.values() for x in values if x is not None]
    axes.set_xscale("log")
    low, high = min(0.5, *every) / 2, max(2.0, *every) * 2
    axes.set(xlim=(low, high), ylim=(len(labels) - 0.4, -0.6))
    ticks = [x for x in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low < x < high]
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.set_xticks([], minor=True)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(labels)), labels, fontsize=10)
    axes.set_xlabel("above 1: ours is faster")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.suptitle(f"{what}\n{_where(content)}", fontsize=12)
    figure.legend(loc="outside lower center", ncols=2 if len(bars) > 3 else 1, frameon=False, fontsize=10)
    return figure


def _mean(values: Sequence[float]) -> float | None:
    return geometric_mean(values) if values else None


def _where(content: Mapping[str, Any]) -> str:
    facts = content["environment"]
    threads = "" if content["device"] == "cuda" else f", {facts['threads']} threads"
    return f"{hardware(facts, content['device'])}{threads}, torch {facts['packages']['torch']}"


def main(arguments: list[str] | None = None) -> int:
    """Draw the charts and name the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="a results file of `dettriton bench`")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        found = speed_results() if options.results is None else [read_json(options.results)]
        if not found or "rows" not in found[0]:
            raise InputError(f"{options.results or RESULTS} holds no results of `dettriton bench`; run it first")
        for path in draw(found[0], options.out):
            print(path)
    except (DettritonError, OSError, ValueError) as error:
        print(f"cannot draw: {error}", file=sys.stderr)
        return CANNOT_RUN
    return DRAWN


if __name__ == "__main__":
    sys.exit(main())
