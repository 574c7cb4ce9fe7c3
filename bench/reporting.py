"""Result files of the benchmarks in this folder; how they are named and written is the package's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dettriton.benchmarks import reporting as packaged
from dettriton.benchmarks.reporting import BENCHMARK, header, print_table, read_json, write_json

__all__ = ["RESULTS", "header", "print_table", "read_json", "result_path", "speed_results", "write_json"]

RESULTS = Path(__file__).resolve().parent / "results"
"""Beside these scripts, wherever the package is installed."""


def result_path(benchmark: str, facts: Mapping[str, Any], device: str = "cpu") -> Path:
    """Where the result of a benchmark in this folder is written."""
    return packaged.result_path(benchmark, facts, device, RESULTS)


def speed_results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """What ``dettriton bench`` and the GPU check's timings measured on each machine, GPUs first."""
    found = [read_json(path) for path in sorted(folder.glob("*.json"))]
    speeds = [content for content in found if content.get("benchmark") == BENCHMARK]
    return sorted(speeds, key=lambda content: content["device"] == "cpu")
