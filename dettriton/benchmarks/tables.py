"""Rows of results as tables: every case for a terminal, summaries for README."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dettriton.benchmarks.case import STEP
from dettriton.benchmarks.reporting import LOAD, hardware
from dettriton.benchmarks.runner import SAME, Row
from dettriton.benchmarks.timing import significant
from dettriton.benchmarks.variants import DETERMINISTIC, GRAPH, OURS, PRECISIONS, STOCK, STRICT, TF32

HIGH, MEDIUM = PRECISIONS
QUIET = 0.5
"""The load average of a machine that does nothing else."""
KEPT = "kept_bytes"
MEMORY = {KEPT: "kept memory", "peak_bytes": "peak memory"}

COLUMNS = (
    *("case", "ours", "ms (p20 to p80)", "x stock", "x deterministic", "GB/s", "TFLOP/s", "share of peak"),
    *("kept, ours/stock", "distinct results, ours/stock"),
)

Cells = tuple[str, ...]


def lines(row: Row) -> list[Cells]:
    """A line for each of our variants of a case, or one that says what is wrong; see :data:`COLUMNS`."""
    if row["bits"] != SAME:
        return [(case_name(row), f"BITS {row['bits']}", *[""] * (len(COLUMNS) - 2))]
    return [_line(case_name(row), row, ours) for ours in row["ratios"]]


def case_name(row: Row) -> str:
    """The name of the row's case."""
    return f"{row['op']} {row['shapes']}" + ("" if row["what"] == STEP else f", {row['what']}")


def _line(name: str, row: Row, ours: str) -> Cells:
    figures, stock = row["variants"][ours], row["variants"][STOCK]
    deterministic = row["variants"].get(DETERMINISTIC, {})
    return (
        name,
        ours,
        f"{figures['median_ms']:.4g} ({figures['p20_ms']:.4g} to {figures['p80_ms']:.4g})",
        _ratio(row["ratios"][ours].get(STOCK)),
        "refused" if "refused" in deterministic else _ratio(row["ratios"][ours].get(DETERMINISTIC)),
        _figure(figures.get("gb_per_s")),
        _figure(figures.get("tflop_per_s")),
        _share(figures),
        memory_ratio(figures, stock, KEPT),
        f"{figures['distinct']} / {stock.get('distinct', '-')}",
    )


def _ratio(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}"


def _figure(x: float | None) -> str:
    return "" if x is None else f"{x:.3g}"


def _share(figures: Mapping[str, Any]) -> str:
    for key, what in (("share_of_int8", "int8"), ("share_of_copy", "copy")):
        if key in figures:
            return f"{100 * figures[key]:.0f} % of {what}"
    return ""


def memory_ratio(figures: Mapping[str, Any], stock: Mapping[str, Any], kind: str) -> str:
    """Bytes, ours over stock's; empty where they were not counted."""
    ours, theirs = figures.get(kind), stock.get(kind)
    return f"{ours / theirs:.2f}" if ours and theirs else ""


def geometric_mean(ratios: Sequence[float]) -> float:
    """Of numbers above 0."""
    return significant(math.exp(sum(map(math.log, ratios)) / len(ratios)))


def measured_rows(content: Mapping[str, Any]) -> list[Row]:
    """The rows whose bits are right."""
    return [row for row in content["rows"] if row["bits"] == SAME]


def grouped(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows of ops by op, part of training and size."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row["what"] != STEP:
            found.setdefault((row["op"], row["what"], row["size"]), []).append(row)
    return found


def ratios(rows: Iterable[Row], precision: str, baseline: str) -> list[float]:
    """Those of one of our variants to a baseline; an op without precisions counts for each."""
    found = (row["ratios"].get(precision) or row["ratios"].get(OURS) or {} for row in rows)
    return [of_row[baseline] for of_row in found if baseline in of_row]


def machine_line(content: Mapping[str, Any]) -> str:
    """Markdown: which machine, what it can do at most, and on how many cases the bits were right."""
    facts, rates = content["environment"], content["rates"]
    peaks = f"copies {rates['copy_gb_per_s']:.0f} GB/s"
    if "int8_top_per_s" in rates:
        peaks += f", {rates['int8_top_per_s']:.0f} int8 TOP/s"
    where = hardware(facts, content["device"])
    where += "" if content["device"] == "cuda" else f", {facts['cpu_capability']}, {facts['threads']} threads"
    counts = f"{len(measured_rows(content))} of {len(content['rows'])} cases had the same bits in every check"
    load = content.get(LOAD)
    beside = f" Other work ran beside it (load average {load:.1f})." if load is not None and load > QUIET else ""
    return f"**{where}**, torch {facts['packages']['torch']}: {peaks}; {counts}.{beside}"


def steps_table(content: Mapping[str, Any]) -> str:
    """Markdown: a row for each whole training step."""
    rows = [row for row in measured_rows(content) if row["what"] == STEP]
    graph = [HIGH + GRAPH] if any(HIGH + GRAPH in row["variants"] for row in rows) else []
    columns = ["training step of", "stock, ms", *(f"`{name}`, ms" for name in (HIGH, MEDIUM, *graph))]
    columns += ["`high`: x stock", "x deterministic", *(f"`{name}`: x stock" for name in graph)]
    memory = {kind: name for kind, name in MEMORY.items() if any(kind in row["variants"][STOCK] for row in rows)}
    columns += [*memory.values(), "distinct results, ours / stock"]
    found = []
    for row in rows:
        v = row["variants"]
        name, _, batch = row["shapes"].partition(", ")
        found.append(
            (
                f"`{name}`, {batch}",
                *(f"{v[variant]['median_ms']:.1f}" for variant in (STOCK, HIGH, MEDIUM, *graph)),
                *(_ratio(row["ratios"][HIGH].get(baseline)) for baseline in (STOCK, DETERMINISTIC)),
                *(_ratio(row["ratios"][variant].get(STOCK)) for variant in graph),
                *(memory_ratio(v[HIGH], v[STOCK], kind) for kind in memory),
                f"{v[HIGH]['distinct']} / {v[STOCK]['distinct']}",
            )
        )
    return _markdown(columns, found)


def ops_table(content: Mapping[str, Any]) -> str:
    """Markdown: a row for each op and part of training, geometric means over its shapes."""
    groups = grouped(measured_rows(content))
    named = {name for rows in groups.values() for row in rows for name in row["variants"]}
    compared = [(HIGH, STOCK), (HIGH, STRICT), (HIGH, DETERMINISTIC), (MEDIUM, STOCK), (MEDIUM, TF32)]
    compared = [(ours, baseline) for ours, baseline in compared if baseline in named]
    columns = ["op", "part", "size", "shapes", *(f"`{ours}`: x {baseline}" for ours, baseline in compared)]
    columns += ["lowest to highest x stock", "most distinct results, ours / stock"]
    found = []
    for (op, what, size), rows in groups.items():
        lowest = ratios(rows, HIGH, STOCK)
        found.append(
            (
                *(f"`{op}`", what, size, str(len(rows))),
                *(_mean(rows, ours, baseline) for ours, baseline in compared),
                f"{min(lowest):.2f} to {max(lowest):.2f}" if lowest else "",
                f"{_most(rows, ours=True)} / {_most(rows, ours=False)}",
            )
        )
    return _markdown(columns, found)


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (f"| {' | '.join(cells)} |" for cells in (columns, *rows))
    return "\n".join([next(lines), "|---" * len(columns) + "|", *lines])


def _mean(rows: Sequence[Row], ours: str, baseline: str) -> str:
    """Empty where the op has no such variant or nothing to compare with."""
    if ours == MEDIUM and MEDIUM not in rows[0]["ratios"]:
        return ""
    values = ratios(rows, ours, baseline)
    if not values and any("refused" in row["variants"].get(baseline, {}) for row in rows):
        return "refused"
    return f"{geometric_mean(values):.2f}" if values else ""


def _most(rows: Iterable[Row], *, ours: bool) -> int:
    """The most distinct results of one shape, of any of our variants, or of stock torch."""
    counts = [
        figures["distinct"]
        for row in rows
        for name, figures in row["variants"].items()
        if "distinct" in figures and (name in row["ratios"] if ours else name == STOCK)
    ]
    return max(counts, default=0)
