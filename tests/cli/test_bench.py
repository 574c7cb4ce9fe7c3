"""``dettriton bench``: exit codes, messages, output and the results file."""

import json
from pathlib import Path

import made_benchmarks as made
import pytest
from click.testing import CliRunner

from dettriton import BITSPEC
from dettriton.benchmarks import reporting, session
from dettriton.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """A benchmark of given cases in an empty directory, and what its file says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reporting, "CHECKOUT", tmp_path)

    def measure(cases, *arguments):
        made.install(monkeypatch.setattr, *cases)
        result = run("--repeats", 3, *arguments)
        files = [*tmp_path.rglob("*.json")]
        return result, json.loads(files[0].read_text()) if files else None

    return measure


def test_the_results_file(measured, tmp_path):
    result, content = measured([made.right(), made.right("forward and backward")], "--json", tmp_path / "a" / "r.json")
    assert result.exit_code == 0, result.output
    assert "the same bits in every case; written to " in result.stdout
    assert (
        content["benchmark"] == "speed" and content["device"] == "cpu" and content["environment"]["bitspec"] == BITSPEC
    )
    assert (content["sizes"], content["repeats"], content["interrupted"]) == (["zoo"], 3, False)
    assert content["rates"]["copy_gb_per_s"] > 0 and content["left"] == [] and len(content["rows"]) == 2
    for row in content["rows"]:
        assert set(row) == {"op", "shapes", "what", "size", "dtype", "bits", "digests", "variants", "ratios"}
        for figures in row["variants"].values():
            assert figures["p20_ms"] <= figures["median_ms"] <= figures["p80_ms"] and figures["distinct"] == 1
        assert set(row["ratios"]["ours"]) == {"stock", "stock deterministic"}


def test_a_planted_error_in_bits_is_exit_code_1(measured):
    result, content = measured([made.right(), made.made(made.ByCalls(), invariant=False)])
    assert result.exit_code == 1
    assert (
        "WRONG BITS OR FAILURES" in result.stdout
        and "BITS DIFFERENT: relu 5x3, forward: ours: other bits with again" in result.stdout
    )
    assert [row["bits"] for row in content["rows"]] == ["same", "DIFFERENT"]
    assert content["verdict"] == "WRONG BITS OR FAILURES"


def test_an_interrupted_run_keeps_its_rows_and_says_so(measured):
    def stopped(input):
        raise KeyboardInterrupt

    result, content = measured([made.right(), made.made(stopped), made.right()])
    assert result.exit_code == 130
    assert content["interrupted"] and [row["bits"] for row in content["rows"]] == ["same"]
    assert "dettriton: interrupted after 1 cases, which are written to " in result.stderr


def test_time_that_runs_out_is_said(measured):
    result, content = measured([made.right()], "--seconds", 0)
    assert result.exit_code == 0 and "no time was left for 1 cases" in result.stdout
    assert content["left"] == ["relu 5x3, forward"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--op", "matmull"), "there is no op matmull to measure; choose of adamw, batch_norm, "),
        (("--entry", "nothing"), "there is no entry nothing to measure; choose of ecg_conformer_tiny.ptbxl488"),
        (("--only", "nothing like it"), "no case of size zoo is left by these choices"),
        (("--device", "cuda"), "torch sees no GPU here"),
    ],
)
def test_what_cannot_run_is_exit_code_2(arguments, told):
    result = run(*arguments)
    assert result.exit_code == 2 and result.stderr.startswith("dettriton: ") and told in result.stderr
    assert result.stderr.count("\n") == 1


def test_only_whole_runs_go_to_a_checkouts_results(monkeypatch, measured, tmp_path):
    monkeypatch.setattr(session, "results_folder", lambda: tmp_path / "results")
    measured([made.right()])
    assert len([*(tmp_path / "results").glob("*-torch*-triton*.json")]) == 1
    for arguments in (("--op", "relu"), ("--size", "small"), ("--seconds", 0)):
        measured([made.right()], *arguments)
        (found,) = tmp_path.glob("*.json")
        found.unlink()
    assert len([*(tmp_path / "results").iterdir()]) == 1


def test_a_file_that_cannot_be_written_is_said_before_measuring(measured, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    result, content = measured([made.made(None)], "--json", tmp_path / "file" / "r.json")
    assert result.exit_code == 2 and content is None and "dettriton: " in result.stderr
    monkeypatch.setattr(session.os, "access", lambda *_: False)
    result, content = measured([made.made(None)])
    assert result.exit_code == 2 and content is None and "name a file elsewhere with --json" in result.stderr


def test_results_are_named_after_the_device():
    facts = {"cpu": "A (R) CPU", "gpus": [{"name": "A GPU"}], "packages": {"torch": "2.0", "triton": "3.0"}}
    assert reporting.result_path("", facts, "cuda", Path()).name == "A_GPU-torch2.0-triton3.0.json"
    assert reporting.result_path("x", facts, "cpu", Path()).name == "x-A_R_CPU-torch2.0-triton3.0.json"


def test_threads_are_of_the_run_alone(measured):
    import torch

    before = torch.get_num_threads()
    assert measured([made.right()], "--threads", 1)[1]["environment"]["threads"] == 1
    assert torch.get_num_threads() == before


def test_corroborate_a_real_op(measured, monkeypatch, tmp_path):
    result = run("--size", "small", "--op", "matmul", "--repeats", 3, "--json", tmp_path / "m.json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "m.json").read_text())["rows"]
    assert set(row["ratios"]) == {"high", "medium"} and row["digests"]["high"] != row["digests"]["medium"]
