"""Where results lie and what every result file says first: versions, hardware, contract."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dettriton.environment import environment
from dettriton.files import atomic_write

BENCHMARK = "speed"
"""What the files of ``dettriton bench`` say that they are."""

LOAD = "load average before"
"""Of the machine: where it is not near 0, other work disturbed the times."""

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where this package was imported from a checkout; where it is installed, a folder without ``bench``."""


def result_path(benchmark: str, facts: Mapping[str, Any], device: str, folder: Path) -> Path:
    """``<folder>/<benchmark>-<device>-torch<v>-triton<v>.json``, without the first word where ``benchmark`` is empty."""
    packages = facts["packages"]
    words = f"{hardware(facts, device)}-torch{packages['torch']}-triton{packages['triton']}"
    return folder / (re.sub(r"[^\w.+-]+", "_", f"{benchmark}-{words}" if benchmark else words) + ".json")


def results_folder() -> Path:
    """``bench/results`` of the checkout that this package was imported from, else the current directory."""
    results = CHECKOUT / "bench" / "results"
    return results if (CHECKOUT / "pyproject.toml").exists() and results.is_dir() else Path()


def hardware(facts: Mapping[str, Any], device: str) -> str:
    """The name of the processor that computed."""
    return facts["gpus"][0]["name"] if device == "cuda" and facts["gpus"] else facts["cpu"]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write readable JSON so that the file is whole or absent; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The content of a result file, or an empty one if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def header(benchmark: str, device: str = "cpu") -> dict[str, Any]:
    """What a result file begins with."""
    return {"benchmark": benchmark, "device": device, "environment": environment()}


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False) -> None:
    """Print a table, for a terminal or as Markdown."""
    if markdown:
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for row in rows:
            print(f"| {' | '.join(row)} |")
        return
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    Console(width=max(100, Console().width)).print(table)
