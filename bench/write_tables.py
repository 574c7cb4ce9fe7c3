"""README.md's and CONTRACT.md's tables of ops, hashes and environments: ``python bench/write_tables.py``.

They are generated from the ops' contracts, the zoo's manifest and the results of bench/environments.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from cpu_matrix import ENVIRONMENTS, RESUMED

import dettriton.ops
from dettriton import data, models, zoo
from dettriton.data import DatasetInfo, SignalInfo
from dettriton.data.dataset import MULTI_LABEL, ORDINAL
from dettriton.files import atomic_write
from dettriton.ops._contract import CONTRACTS, FAMILIES, Contract
from dettriton.ops._torch_refuses import REFUSED
from dettriton.zoo._card_texts import DATA

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
    for name in zoo.names():
        entry, recipe = zoo.entry(name), zoo.recipe(name)
        model = models.create_model(recipe.model.name, **recipe.model.args)
        cells = (
            f"`{name}`",
            _describe(data.describe(recipe.data.name)),
            f"{sum(p.numel() for p in model.parameters()):,}",
            str(recipe.train.epochs),
            f"{entry.test['auc']:.3f} / {entry.test['acc']:.3f}",
            _published(recipe.data.name),
            f"`{entry.weights_digest[:12]}`",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _published(dataset: str) -> str:
    figures = DATA[dataset].published
    return "-" if figures is None else " / ".join(f"{figure:.3f}".lstrip("0") for figure in figures)


def _describe(info: DatasetInfo | SignalInfo) -> str:
    kind = {MULTI_LABEL: "labels", ORDINAL: "grades"}.get(info.task, "classes")
    if isinstance(info, SignalInfo):
        channels, length = info.signal_shape
        return f"{channels} leads, {length // info.sampling_rate} s, {info.num_classes} {kind}"
    channels, height, width = info.image_shape
    return f"{height}x{width} {'grey' if channels == 1 else 'RGB'}, {info.num_classes} {kind}"


def environments_table() -> str:
    """README's: where each entry was retrained, and whether to the released bits."""
    (path,) = (ROOT / "bench" / "results").glob("environments-*.json")
    measured = json.loads(path.read_text(encoding="utf-8"))["results"]
    entries = sorted(measured)
    known = [environment.name for environment in (*ENVIRONMENTS, RESUMED)]
    others = {name for entry in entries for name in measured[entry]} - set(known)
    environments = [*known, *sorted(others)]
    headings = (f"`{entry.partition('.')[0]}.` `{entry.partition('.')[2]}`" for entry in entries)
    lines = [f"| environment | {' | '.join(headings)} |", "|---" * (len(entries) + 1) + "|"]
    for environment in environments:
        cells = (_verdict(entry, measured[entry].get(environment, {})) for entry in entries)
        shown = f"`{environment}`" if "=" in environment else environment
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _verdict(entry: str, result: dict) -> str:
    if "weights_digest" not in result:
        return ""
    released = zoo.entry(entry)
    same = (result["weights_digest"], result["trace"]) == (released.weights_digest, released.trace)
    return "same" if same else f"DIFFERENT `{result['weights_digest'][:12]}`"


TABLES = {
    ROOT / "README.md": {
        "hashes": hashes_table,
        "zoo": zoo_table,
        "environments": environments_table,
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


if __name__ == "__main__":
    for path in list(stale()):
        atomic_write(path, rewritten(path).encode())
        print(f"wrote {path.relative_to(ROOT)}")
