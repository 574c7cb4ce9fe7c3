"""README's tables are true: they repeat the manifest, the results files and the code."""

import json
import re
from pathlib import Path

import pytest
import torch
from write_tables import TABLES, rewritten

from dettriton import ops, zoo
from dettriton.ops._torch_refuses import REFUSED

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its header."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE).group(0)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def results(pattern: str) -> dict:
    (path,) = (ROOT / "bench" / "results").glob(pattern)
    return json.loads(path.read_text())


def test_first_screen_shows_the_default_entrys_hash():
    first_screen = README.split("\n## ", 1)[0]
    assert first_screen.count(zoo.entry(zoo.DEFAULT).weights_digest) >= 2


def test_zoo_table_repeats_the_manifest():
    shown = {row[0].strip("`"): row for row in rows("The zoo")}
    assert set(shown) == set(zoo.names())
    for name, row in shown.items():
        test = zoo.entry(name).test
        assert f"{test['auc']:.3f} / {test['acc']:.3f}" in row


def test_ops_table_names_every_public_op():
    named = {row[0].strip("`") for row in rows("Ops") if not row[0].startswith("**")}
    assert named == set(ops.__all__)


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.name)
def test_generated_tables_are_those_of_the_code(path):
    if not path.exists():
        pytest.skip("only the tests are here")
    assert rewritten(path) == path.read_text(encoding="utf-8"), "run python bench/write_tables.py"


def listed_as_refused() -> set[str]:
    """The torch names under "will throw a RuntimeError" in torch's own documentation of its deterministic mode."""
    text = torch.use_deterministic_algorithms.__doc__.split("operations will throw a", 1)[1].split("In addition", 1)[0]
    return set(
        re.findall(r":(?:class|func):`(torch\.[\w.]+)` (?=when|$)|:class:`(torch\.nn\.\w+)`", text, re.MULTILINE)
    )


def test_everything_torch_refuses_has_a_row():
    refused = {name for pair in listed_as_refused() for name in pair if name}
    assert len(refused) > 15 and refused <= {row.torch for row in REFUSED} | {"torch.set_deterministic_debug_mode"}


def test_every_row_names_an_op_of_ours():
    assert {name for row in REFUSED for name in row.ours} <= set(ops.__all__)
    assert [row.torch for row in REFUSED if not row.ours] == ["torch.Tensor.resize_"]


def test_environments_gave_the_released_bits():
    measured = results("environments-*.json")["results"]
    assert set(measured) == set(zoo.names())
    for name, found in measured.items():
        released = zoo.entry(name)
        assert {"2 threads", "1 thread"} <= set(found)
        for result in found.values():
            assert (result["weights_digest"], result["trace"]) == (released.weights_digest, released.trace)


def test_stock_divergence_is_the_measured_one():
    measured = results("stock_divergence-*.json")["results"]
    weights = {which: [r["weights"] for r in found.values()] for which, found in measured.items()}
    assert len(set(weights["dettriton"])) == 1
    assert f"**{len(set(weights['stock']))} different trained models**" in README
    assert f"in {len(weights['stock'])} CPU environments" in README


def test_test_command_is_the_one_ci_runs():
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("only the tests are here")
    assert "venv/bin/pytest -n 2" in README
    assert 'venv/bin/pytest" -n 2' in script.read_text()


def test_example_runs_as_written():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["logits"].shape == (8, 10) and names["loss"].grad_fn is not None
