"""The charts and tables made of results, and that the recorded ones are of right bits."""

import json

import plot
import pytest
from reporting import RESULTS, speed_results
from write_tables import speed_tables

from dettriton import BITSPEC, zoo
from dettriton.benchmarks.case import STEP
from dettriton.benchmarks.registry import chosen
from dettriton.benchmarks.reporting import LOAD
from dettriton.benchmarks.tables import machine_line, ops_table, steps_table
from dettriton.digest import digest

TIMES = {"median_ms": 2.0, "p20_ms": 1.0, "p80_ms": 3.0, "distinct": 1, "kept_bytes": 10}


def row(op, what, ratios, shapes="8x3"):
    variants = {name: TIMES for name in ratios} | {
        "stock": {**TIMES, "distinct": 3, "kept_bytes": 20},
        "stock deterministic": TIMES,
    }
    fields = {"op": op, "shapes": shapes, "what": what, "size": "zoo", "bits": "same"}
    return fields | {"variants": variants, "ratios": ratios}


def content(device="cpu"):
    both = {"stock": 2.0, "stock deterministic": 4.0}
    rows = [
        row("matmul", "forward", {"high": both, "medium": {"stock": 0.25}}),
        row("matmul", "forward", {"high": {"stock": 0.5}, "medium": {"stock": 1.0}}),
        row("sum", "forward", {"ours": both}),
        {
            "op": "relu",
            "shapes": "3",
            "what": "forward",
            "size": "zoo",
            "bits": "DIFFERENT",
            "variants": {},
            "ratios": {},
        },
        row("step", STEP, {"high": both, "medium": both}, "med_cnn.digits, batch 64"),
    ]
    packages = {"torch": "2.0", "triton": "3.0"}
    gpus = [{"name": "A GPU 9000"}] if device == "cuda" else []
    facts = {"packages": packages, "cpu": "A CPU", "cpu_capability": "AVX2", "threads": 2, "gpus": gpus}
    return {"benchmark": "speed", "device": device, "environment": facts, "rates": {"copy_gb_per_s": 9.0}, "rows": rows}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content()))
    return path


def test_tables_are_geometric_means_over_shapes_of_right_bits():
    lines = ops_table(content()).splitlines()
    assert lines[2] == "| `matmul` | forward | zoo | 2 | 1.00 | 4.00 | 0.50 | 0.50 to 2.00 | 1 / 3 |"
    assert lines[3] == "| `sum` | forward | zoo | 1 | 2.00 | 4.00 |  | 2.00 to 2.00 | 1 / 3 |"
    assert len(lines) == 4
    steps = steps_table(content()).splitlines()
    assert steps[2:] == ["| `med_cnn.digits`, batch 64 | 2.0 | 2.0 | 2.0 | 2.00 | 4.00 | 0.50 | 1 / 3 |"]
    assert "A CPU, AVX2, 2 threads" in machine_line(content()) and "4 of 5 cases" in machine_line(content())
    assert "A GPU 9000**" in machine_line(content("cuda"))
    busy, quiet = ({**content(), LOAD: load} for load in (3.2, 0.3))
    assert machine_line(busy).endswith(" Other work ran beside it (load average 3.2).")
    assert machine_line(quiet) == machine_line(content())


def test_both_charts_are_drawn_and_say_the_device(file, tmp_path, capsys):
    assert plot.main(["--results", str(file), "--out", str(tmp_path / "charts")]) == plot.DRAWN
    for stem in ("speed-ops", "speed-steps"):
        assert (tmp_path / "charts" / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "charts" / f"{stem}.svg").stat().st_size > 5_000
    assert len(capsys.readouterr().out.splitlines()) == 4
    first = (tmp_path / "charts" / "speed-ops.svg").read_bytes()
    plot.main(["--results", str(file), "--out", str(tmp_path / "again")])
    assert (tmp_path / "again" / "speed-ops.svg").read_bytes() == first


def test_bars_are_the_means():
    figure = plot._ops(content())
    assert "A CPU, 2 threads, torch 2.0" in figure.get_suptitle()
    axes = figure.axes[0]
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends == [1.0, 2.0, 0.5] and [t.get_text() for t in axes.get_yticklabels()] == [
        "matmul, forward",
        "sum, forward",
    ]


@pytest.mark.parametrize("broken", ["{}", "[", '{"benchmark": "speed", "rows": []}'])
def test_what_holds_no_results_is_said(tmp_path, capsys, broken):
    (tmp_path / "bad.json").write_text(broken)
    assert plot.main(["--results", str(tmp_path / "bad.json"), "--out", str(tmp_path)]) == plot.CANNOT_RUN
    assert "cannot draw: " in capsys.readouterr().err


def test_results_of_gpus_come_first(tmp_path):
    for name, device in (("a", "cpu"), ("b", "cuda")):
        (tmp_path / f"{name}.json").write_text(json.dumps(content(device)))
    (tmp_path / "c.json").write_text('{"benchmark": "environments"}')
    assert [found["device"] for found in speed_results(tmp_path)] == ["cuda", "cpu"]


def test_readme_says_where_nothing_was_measured():
    assert speed_results()
    on_gpu = any(found["device"] == "cuda" for found in speed_results())
    assert ("not yet measured on a GPU" in speed_tables()) is not on_gpu


def recorded():
    return [pytest.param(found, id=found["environment"]["cpu"]) for found in speed_results()]


@pytest.mark.parametrize("found", recorded())
def test_recorded_results_are_whole_and_of_right_bits(found):
    assert found["verdict"] == "the same bits in every case" and not found["interrupted"]
    assert {row["bits"] for row in found["rows"]} == {"same"}
    # the GPU check ends with its budget
    if found["device"] == "cpu":
        assert {row["entry"] for row in found["rows"] if row["what"] == STEP} >= set(zoo.names()) and not found["left"]
    ours = [row["variants"][name]["distinct"] for row in found["rows"] for name in row["ratios"]]
    assert set(ours) == {1}
    assert (RESULTS / "speed-ops.png").exists() and (RESULTS / "speed-steps.png").exists()


@pytest.mark.parametrize("found", recorded())
def test_verify_recorded_digests_on_this_machine(found):
    """Bits that were measured there are the bits here."""
    if found["environment"]["bitspec"] != BITSPEC:
        pytest.skip("recorded under another contract")
    here = {case.name: case for case in chosen(("zoo",), ("mean", "gelu", "cross_entropy", "matmul"))}
    compared = 0
    for row in found["rows"]:
        case = here.get(f"{row['op']} {row['shapes']}, {row['what']}")
        if case is None or row["size"] != "zoo" or not (case.what == "forward" or case.op == "cross_entropy"):
            continue
        bench = case.bench("cpu")
        for variant in case.variants("cpu"):
            if variant.ours:
                assert digest(bench.reference(variant)) == row["digests"][variant.name], case.name
                compared += 1
    assert compared >= 6
