"""The op tables of README.md and CONTRACT.md, generated from the ops' contracts: ``python bench/write_tables.py``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import dettriton.ops
from dettriton.files import atomic_write
from dettriton.ops._contract import CONTRACTS, FAMILIES, Contract
from dettriton.ops._torch_refuses import REFUSED

ROOT = Path(__file__).resolve().parents[1]


def contracts(family: str) -> list[Contract]:
    """The public ops of a family by name."""
    return [CONTRACTS[name] for name in sorted(dettriton.ops.__all__) if CONTRACTS[name].family == family]


def ops_table() -> str:
    """README's: one row an op."""
    lines = [
        "| op | as | on a GPU | batch-invariant | error of a result |",
        "|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        lines.append(f"| **{family}** | | | | |")
        for op in contracts(family):
            mirrors = f"`torch.{op.mirrors}`" if op.mirrors else ""
            engine = "kernels" if op.kernels else "composed"
            invariant = "yes" if op.batch_invariant else "no"
            lines.append(f"| `{op.name}` | {mirrors} | {engine} | {invariant} | {op.error} |")
    return "\n".join(lines)


def definitions_table() -> str:
    """CONTRACT.md's: the grids, windows and orders of each op."""
    lines = ["| op | definition |", "|---|---|"]
    for family in FAMILIES:
        lines.append(f"| **{family}** | |")
        lines += [f"| `{op.name}` | {op.definition} |" for op in contracts(family)]
    return "\n".join(lines)


def refused_table() -> str:
    """README's: what torch's deterministic mode refuses."""
    lines = ["| torch raises for | when | here |", "|---|---|---|"]
    for row in REFUSED:
        ours = ", ".join(f"`ops.{name}`" for name in row.ours) or row.instead
        lines.append(f"| `{row.torch}` | {row.when or 'always'} | {ours} |")
    return "\n".join(lines)


TABLES = {
    ROOT / "README.md": {"ops": ops_table, "refused by torch": refused_table},
    ROOT / "dettriton" / "CONTRACT.md": {"definitions": definitions_table},
}


def rewritten(path: Path) -> str:
    """The file's text with each of its generated tables made anew."""
    text = path.read_text(encoding="utf-8")
    for name, table in TABLES[path].items():
        start, end = f"<!-- generated: {name} -->\n", f"\n<!-- end: {name} -->"
        pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"{path.name} has no lines {start.strip()!r} and {end.strip()!r} around its table")
        text = pattern.sub((start + table() + end).replace("\\", r"\\"), text)
    return text


def stale() -> Iterator[Path]:
    """The files whose tables are not those of the code."""
    return (path for path in TABLES if rewritten(path) != path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for path in list(stale()):
        atomic_write(path, rewritten(path).encode())
        print(f"wrote {path.relative_to(ROOT)}")
