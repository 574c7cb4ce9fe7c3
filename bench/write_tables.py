"""README.md's and CONTRACT.md's tables of ops, hashes, environments and speed, and the zoo's cards.

    python bench/write_tables.py

They are generated from the ops' contracts, the zoo's manifest and the results of bench/environments.py and of
`dettriton bench`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import thread_scaling
from cpu_matrix import ENVIRONMENTS, OF_COMPILED_LOOPS, RESUMED
from reporting import RESULTS, read_json, speed_results

import dettriton.ops
from dettriton import zoo
from dettriton.benchmarks.tables import machine_line, steps_table
from dettriton.benchmarks.tables import ops_table as speed_of_ops
from dettriton.files import atomic_write
from dettriton.ops._contract import CONTRACTS, FAMILIES, Contract
from dettriton.ops._torch_refuses import REFUSED
from dettriton.zoo._card import card
from dettriton.zoo._card_texts import DATA
from dettriton.zoo._facts import gather, shape_line, two_figures
from dettriton.zoo._matrix import Matrix

ROOT = Path(__file__).resolve().parents[1]
FIRST_SCREEN = ("ecg_conformer_tiny.rhythm_sim", "ecg_resnet18_tiny.ptbxl488", "med_cnn.bloodmnist")


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


def hashes_table() -> str:
    """README's first screen: three released models beside the main command's."""
    lines = ["| model | SHA-256 of its weights (`dettriton.digest`) |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | `{zoo.entry(name).weights_digest}` |" for name in FIRST_SCREEN)])


def zoo_table() -> str:
    """README's: one row a released model."""
    lines = [
        "| name | data | parameters | epochs | test AUC / ACC | published | weights |",
        "|---|---|---|---|---|---|---|",
    ]
    for facts in map(gather, zoo.names()):
        cells = (
            f"`{facts.name}`",
            shape_line(facts.info),
            f"{facts.parameters:,}",
            str(facts.recipe.train.epochs),
            two_figures(facts.entry.test, digits=3),
            _published(facts.info.name),
            f"`{facts.entry.weights_digest[:12]}`",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _published(dataset: str) -> str:
    figures = DATA[dataset].published
    return "-" if figures is None else " / ".join(f"{figure:.3f}".lstrip("0") for figure in figures)


def environments_table() -> str:
    """README's: where each entry was retrained, and whether to the released bits."""
    (path,) = (ROOT / "bench" / "results").glob("environments-*.json")
    matrix = Matrix(path)
    verdicts = {name: dict(matrix.verdicts(zoo.entry(name))) for name in zoo.names()}
    known = [environment.name for environment in (*ENVIRONMENTS, *OF_COMPILED_LOOPS, RESUMED)]
    others = {environment for found in verdicts.values() for environment in found} - set(known)
    headings = (f"`{entry.partition('.')[0]}.` `{entry.partition('.')[2]}`" for entry in verdicts)
    lines = [f"| environment | {' | '.join(headings)} |", "|---" * (len(verdicts) + 1) + "|"]
    for environment in [*known, *sorted(others)]:
        cells = (found.get(environment, "") for found in verdicts.values())
        shown = f"`{environment}`" if "=" in environment else environment
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_tables() -> str:
    """README's: whole steps and ops on each machine that was measured."""
    found = speed_results()
    parts = []
    if all(content["device"] == "cpu" for content in found):
        parts.append("On a GPU: **not yet measured on a GPU** (`python bench/gpu_check.py` does it).")
    for content in found:
        parts += [machine_line(content), steps_table(content), speed_of_ops(content)]
    return "\n\n".join(parts)


def threads_table() -> str:
    """README's: what whole steps gain from threads on each CPU that was measured."""
    return "\n\n".join(thread_scaling.table(read_json(p)) for p in sorted(RESULTS.glob("threads-*.json")))


TABLES = {
    ROOT / "README.md": {
        "hashes": hashes_table,
        "zoo": zoo_table,
        "environments": environments_table,
        "speed": speed_tables,
        "threads": threads_table,
        "ops": ops_table,
        "refused by torch": refused_table,
    },
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


def stale_cards() -> Iterator[Path]:
    """Where a released model's card is missing or not the one of the manifest."""
    for name in zoo.names():
        path = ROOT / "zoo" / "cards" / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != card(name):
            yield path


if __name__ == "__main__":
    written = {path: rewritten(path) for path in stale()} | {path: card(path.stem) for path in stale_cards()}
    for path, content in written.items():
        atomic_write(path, content.encode())
        print(f"wrote {path.relative_to(ROOT)}")
