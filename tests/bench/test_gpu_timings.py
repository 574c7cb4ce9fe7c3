"""Timings of the GPU check: planned for what passed, measured part by part, written as the benchmark's results."""

import json

import gpu_check
import gpu_timings
import made_benchmarks as made
import pytest
import torch
from gpu_parts import COMPUTED, DIFFERENT, FAILED, SAME, SKIPPED, Part, Side, run_part
from gpu_timings import LEFT, RATES, SHARES, passed_ops, plan_timings, results

from dettriton.benchmarks import rates

GOOD = {"verdict": SAME}


def checks(**changes):
    found = {
        "ops as declared": {"matmul/tail": GOOD, "matmul/tiles": GOOD, "sum/all": GOOD, "optim/adamw": GOOD},
        "ops 1 warp": {"matmul/tail": GOOD},
        "steps med_cnn.digits": {"med_cnn.digits, first 20 steps": GOOD},
        "training med_cnn.breastmnist": {"med_cnn.breastmnist, retrained": {"verdict": SKIPPED}},
    }
    return found | changes


def test_only_what_passed_everywhere_is_timed():
    assert passed_ops(checks()) == ["adamw", "matmul", "step", "sum"]
    assert passed_ops(checks(**{"ops 1 warp": {"matmul/tail": {"verdict": DIFFERENT}}})) == ["adamw", "step", "sum"]
    assert "step" not in passed_ops(checks(**{"steps a.b": {"a.b, first 20 steps": {"verdict": FAILED}}}))
    assert passed_ops(checks(**{"ops 1 warp": {"ops 1 warp": {"verdict": FAILED}}})) == []


def test_parts_share_the_seconds():
    parts = plan_timings(checks(), Side("cuda"), 100.0)
    assert [part.subject for part in parts] == [*SHARES] and sum(part.seconds for part in parts) == pytest.approx(100)
    assert {part.subject: part.ops for part in parts}["large shapes"] == ("adamw", "matmul", "sum")
    assert {part.ops for part in parts if part.subject.startswith("steps")} == {("step",)}
    assert Part.from_dict(json.loads(json.dumps(parts[0].to_dict()))) == parts[0]


@pytest.fixture
def timed(monkeypatch):
    def time(seconds, *cases):
        monkeypatch.setattr(gpu_timings, "chosen", lambda *_: [*cases])
        monkeypatch.setattr(rates, "COPIED_BYTES", 1 << 16)
        return run_part(Part("timings", "zoo's shapes", Side("cpu"), ops=("relu",), seconds=seconds))

    return time


def test_a_part_measures_and_says_what_is_wrong(timed):
    found = timed(60.0, made.right(), made.made(made.ByCalls(), invariant=False))
    # both cases have one name, and the second stays
    assert set(found) == {RATES, "relu 5x3, forward"} and found[RATES]["verdict"] == COMPUTED
    wrong = found["relu 5x3, forward"]
    assert wrong["verdict"] == DIFFERENT and "other bits with" in wrong["problem"]


def test_what_no_time_was_left_for_is_skipped(timed):
    found = timed(-1.0, made.right())
    assert found[LEFT] == {"verdict": SKIPPED, "problem": "1 cases", "left": ["relu 5x3, forward"]}


def test_results_of_all_parts_are_one_file(timed):
    parts = [Part("timings", name, Side("cpu")) for name in ("a", "b", "c")]
    died = {"timings c": {"verdict": FAILED, "problem": "killed"}}
    outcomes = {"timings a": timed(60.0, made.right()), "timings b": timed(-1.0, made.right()), "timings c": died}
    content = results(outcomes, parts, "cpu")
    assert [row["bits"] for row in content["rows"]] == [SAME] and content["left"] == ["relu 5x3, forward"]
    assert content["rates"]["copy_gb_per_s"] > 0 and content["interrupted"] and content["benchmark"] == "speed"
    assert results(outcomes, parts[:2], "cpu")["interrupted"] is False


def test_timings_follow_the_checks_on_a_gpu(monkeypatch, tmp_path):
    sent = []

    def run(part, timeout, threads):
        sent.append(part)
        return checks().get(part.title) or {f"{part.subject} is": {"verdict": SAME}}

    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(gpu_check, "run_in_process", run)
    out = tmp_path / "check.json"
    assert gpu_check.main(["--out", str(out), "--jobs", "1", "--only", "ops as declared", "--only", "timings"]) == 0
    assert [part.kind for part in sent] == ["ops"] + ["timings"] * 2
    assert {part.ops for part in sent[1:]} == {("adamw", "matmul", "sum")}
    assert "timings large shapes" in json.loads(out.read_text())["parts"]
    assert json.loads((tmp_path / "check-timings.json").read_text())["device"] == "cuda"
    sent.clear()
    arguments = ["--out", str(out), "--jobs", "1", "--only", "ops as declared", "--only", "timings", "--budget", "0"]
    assert gpu_check.main(arguments) == 0 and [part.kind for part in sent] == ["ops"]
