"""Result files of the benchmarks in this folder; how they are named and written is the package's."""

from pathlib import Path
from typing import Any

from dettriton.benchmarks.reporting import (
    BENCHMARK,
    RESULTS,
    header,
    print_table,
    read_json,
    result_path,
    write_json,
)

__all__ = ["RESULTS", "header", "print_table", "read_json", "result_path", "speed_results", "write_json"]


def speed_results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """What ``dettriton bench`` and the GPU check's timings measured on each machine, GPUs first."""
    found = [read_json(path) for path in sorted(folder.glob("*.json"))]
    speeds = [content for content in found if content.get("benchmark") == BENCHMARK]
    return sorted(speeds, key=lambda content: content["device"] == "cpu")
