"""The GPU check on a machine without a GPU: its CPU half for real, its planning and its verdicts with a made GPU."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gpu_check
import negative_controls
import pytest
import tiny_training as tiny
import torch
from gpu_check import CANNOT_RUN, DIFFERENCES, NO_DIFFERENCE, NO_GPU, RETRAINED, plan_parts, run_in_process
from gpu_parts import (
    COMPUTED,
    DIFFERENT,
    FAILED,
    SAME,
    SKIPPED,
    Part,
    Side,
    _compare_steps,
    chosen_cases,
    first_steps,
    is_good,
    recipe_names,
    run_part,
)
from negative_controls import CONTROLS, run_control
from op_cases import CASES
from tiles import DECLARED, PLANS

from dettriton import BITSPEC, zoo
from dettriton.train._run import Run
from dettriton.zoo import _manifest

INTERPRETED = Side("cpu", "triton")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results" / "check.json"


@pytest.fixture
def without_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")


@pytest.fixture
def gpu(monkeypatch, without_interpreter):
    """A GPU that torch reports and no part ever reaches; the parts that were sent to processes."""
    sent, outcomes = [], {}

    def run(part, timeout, threads):
        sent.append(part)
        return {part.title: outcomes.get(part.kind, {"verdict": SAME})}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(gpu_check, "run_in_process", run)
    run.sent, run.outcomes = sent, outcomes
    return run


def check(out, *arguments):
    code = gpu_check.main(["--out", str(out), "--jobs", "1", *arguments])
    return code, json.loads(out.read_text()) if out.exists() else None


def test_verify_the_interpreted_kernels_end_to_end(out, capsys):
    code, content = check(out, "--device", "cpu", "--only", "ops as declared", "--ops", "relu", "dropout")
    assert code == NO_DIFFERENCE
    outcomes = content["parts"]["ops as declared"]
    assert set(outcomes) == {c.name for c in CASES if c.op in ("relu", "dropout")}
    assert {o["verdict"] for o in outcomes.values()} == {SAME}
    assert content["environment"]["bitspec"] == BITSPEC
    assert content["verdict"] == f"{NO_GPU}; the interpreted kernels give the same bits"
    assert content["restricted to"] == ["relu", "dropout", "ops as declared"]
    assert NO_GPU in capsys.readouterr().err
    assert [p.name for p in out.parent.iterdir()] == ["check.json"]


@pytest.mark.heavy
def test_verify_the_cpu_half_of_a_copy_from_another_directory(tmp_path):
    bench = Path(gpu_check.__file__).parent
    shutil.copytree(bench, tmp_path / "bench", ignore=shutil.ignore_patterns("results", "__pycache__"))
    out = tmp_path / "check.json"
    command = [
        sys.executable,
        "bench/gpu_check.py",
        "--device",
        "cpu",
        "--out",
        str(out),
        "--jobs",
        "1",
        "--steps",
        "1",
    ]
    command += ["--only", "steps med_cnn.digits"]
    variables = {"TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == NO_DIFFERENCE, done.stderr
    assert NO_GPU in done.stderr and NO_GPU in done.stdout
    content = json.loads(out.read_text())
    assert content["verdict"] == NO_GPU
    ((outcome,),) = (part.values() for part in content["parts"].values())
    assert outcome["verdict"] == COMPUTED and len(outcome["digest"]) == 64


def test_a_machine_with_a_gpu_runs_every_kind_of_part_on_it(gpu, out, capsys):
    code, content = check(out, "--data-dir", "somewhere", "--steps", "7")
    assert code == NO_DIFFERENCE and content["verdict"] == "no difference" and content["device"] == "cuda"
    assert {p.side for p in gpu.sent} == {Side("cuda")}
    kinds = [p.kind for p in gpu.sent]
    assert {k: kinds.count(k) for k in kinds} == {
        "ops": 1 + len(PLANS),
        "steps": len(recipe_names()),
        "training": len(RETRAINED),
        "controls": 1,
    }
    assert {p.steps for p in gpu.sent if p.kind == "steps"} == {7}
    assert {p.data_dir for p in gpu.sent if p.kind in ("steps", "training")} == {"somewhere"}
    assert NO_GPU not in capsys.readouterr().err


BAD = {
    "ops": {"verdict": DIFFERENT, "difference": "output: 1 of 3 elements differ in their bits, by at most 1 ulp"},
    "training": {"verdict": FAILED, "problem": "CUDA error"},
    "controls": {"verdict": "NOT CAUGHT", "broken": "same bits", "exact": "same bits"},
}


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_outcome_is_exit_code_1_and_shown(gpu, out, capsys, kind):
    gpu.outcomes[kind] = BAD[kind]
    code, content = check(out)
    assert code == DIFFERENCES and content["verdict"] == "differences or failures"
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{BAD[kind]['verdict']}: {kind}" in shown and [*BAD[kind].values()][1] in shown


def test_skipped_parts_are_named(gpu, out, capsys):
    gpu.outcomes["training"] = {"verdict": SKIPPED, "problem": "no data here"}
    assert check(out)[0] == NO_DIFFERENCE
    assert f"{SKIPPED}: training {RETRAINED[1]}" in capsys.readouterr().out


def test_interpreted_kernels_beside_a_gpu_are_refused(gpu, out, capsys, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert check(out) == (CANNOT_RUN, None)
    assert "unset it" in capsys.readouterr().err and not gpu.sent
    assert check(out, "--device", "cpu")[0] == NO_DIFFERENCE


@pytest.mark.parametrize("arguments", [("--ops", "reluu"), ("--only", "nothing like it")])
def test_a_check_of_nothing_cannot_run(out, capsys, arguments):
    assert check(out, *arguments) == (CANNOT_RUN, None)
    assert capsys.readouterr().err.splitlines()[-1].startswith("dettriton: ")


def test_results_that_cannot_be_written_are_exit_code_2(gpu, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert check(tmp_path / "file" / "check.json", "--only", "controls")[0] == CANNOT_RUN
    assert "dettriton: " in capsys.readouterr().err


def test_without_another_side_nothing_is_compared():
    parts = plan_parts(None, None, 3, ["a.b"])
    assert parts == [Part("ops", DECLARED.name), Part("steps", "a.b", steps=3)]


def test_parts_survive_the_way_to_their_process():
    for part in (Part("ops", "x", Side("cuda"), repeats=3, ops=("relu",)), Part("steps", "a.b", steps=3)):
        assert Part.from_dict(json.loads(json.dumps(part.to_dict()))) == part


@pytest.mark.parametrize(
    ("script", "timeout", "problem"),
    [
        ("import sys; sys.exit('Segmentation\\nfault')", 60, "Segmentation fault"),
        ("import os; os._exit(3)", 60, "its process ended with 3"),
        ("pass", 60, "its process ended with 0"),
        ("import time; time.sleep(60)", 0.2, "not done after 0 s"),
    ],
)
def test_a_part_whose_process_dies_hangs_or_writes_nothing_has_failed(monkeypatch, tmp_path, script, timeout, problem):
    (tmp_path / "part.py").write_text(script)
    monkeypatch.setattr(gpu_check, "__file__", str(tmp_path / "part.py"))
    expected = {"ops as declared": {"verdict": FAILED, "problem": problem}}
    assert run_in_process(Part("ops", DECLARED.name), timeout, 1) == expected


def test_only_known_good_verdicts_are_good():
    good = {
        v for v in (SAME, COMPUTED, SKIPPED, "caught", DIFFERENT, FAILED, "NOT CAUGHT", "") if is_good([{"verdict": v}])
    }
    assert good == {SAME, COMPUTED, SKIPPED, "caught"}


def test_cases_are_chosen_by_op_and_by_what_the_interpreter_can_do():
    assert len([*chosen_cases(Side("cuda"), PLANS[0])]) == len([*chosen_cases(None, DECLARED)]) == len(CASES)
    assert not any(c.large for c in chosen_cases(INTERPRETED, DECLARED))
    assert {c.op for c in chosen_cases(INTERPRETED, DECLARED, ("relu", "var"))} == {"relu", "var"}
    assert [c.op for c in chosen_cases(INTERPRETED, PLANS[0], ("relu", "var"))] == ["var", "relu"]


@pytest.fixture
def two_runs(monkeypatch):
    tiny.install(monkeypatch.setattr)
    return [Run(tiny.recipe(), tiny.splits(), "cpu") for _ in range(2)]


def test_verify_equal_trainings_are_the_same(two_runs):
    assert _compare_steps(*(first_steps(run, 5) for run in two_runs)) == {"verdict": SAME}


def test_trainings_stop_at_their_last_step(two_runs):
    assert len(first_steps(two_runs[0], 1000).losses) == two_runs[0].total_steps


def test_the_first_step_and_tensor_that_differ_are_named(two_runs):
    expected = first_steps(two_runs[0], 4)
    got = first_steps(two_runs[1], 2)
    with torch.no_grad():
        two_runs[1].model.head.bias[0] += 2.0**-10
    later = first_steps(two_runs[1], 0)
    tensors = [*got.tensors, two_runs[1].tensor_digests(), two_runs[1].tensor_digests()]
    planted = replace(got, losses=expected.losses, tensors=tensors, state=later.state)
    found = _compare_steps(expected, planted)
    assert found["verdict"] == DIFFERENT and found["difference"].startswith("step 2: tensor ")
    loss = _compare_steps(expected, replace(expected, losses=["00000000", *expected.losses[1:]]))
    assert loss["verdict"] == DIFFERENT and loss["difference"].startswith("step 0: the loss")


@pytest.fixture
def released(monkeypatch, tmp_path):
    tiny.release(monkeypatch.setattr, tmp_path)
    return Part("training", "tiny.made", Side("cpu"))


def test_verify_a_release_is_retrained_and_compared(released):
    ((name, outcome),) = run_part(released).items()
    assert name == "tiny.made, retrained" and outcome["verdict"] == SAME
    assert outcome["digests"]["weights"]["got"] == zoo.entry("tiny.made").weights_digest


def test_a_release_that_comes_out_differently_is_a_difference(released):
    row = zoo.entry("tiny.made")
    _manifest.write_manifest({row.name: replace(row, trace="0" * 64)})
    ((_, outcome),) = run_part(released).items()
    assert outcome["verdict"] == DIFFERENT and outcome["difference"].startswith("not the released trace")


@pytest.mark.parametrize("kind", ["steps", "training"])
def test_entries_without_data_are_skipped(tmp_path, kind):
    part = Part(kind, "med_cnn.breastmnist", Side("cpu"), steps=1, data_dir=str(tmp_path))
    ((_, outcome),) = run_part(part).items()
    assert outcome["verdict"] == SKIPPED and "breastmnist is not on this machine" in outcome["problem"]


def control(name):
    return next(c for c in CONTROLS if c.name == name)


def test_a_sum_of_floats_is_caught():
    small = replace(control("sum by float atomics"), shapes={"x": (2, 600)})
    found = run_control(small, "cpu")
    assert found["verdict"] == "caught" and found["exact"] == "same bits" and "elements differ" in found["broken"]


def test_a_control_that_breaks_nothing_is_reported():
    """The interpreter fuses no multiplication into an addition, so that there the control must not pass for caught."""
    small = replace(control("fused multiply-add"), shapes=dict.fromkeys("xyz", (500,)))
    found = run_control(small, "cpu")
    assert found["verdict"] == "NOT CAUGHT" and found["broken"] == "same bits" and not is_good([found])


def test_an_exact_function_that_differs_there_is_not_a_catch():
    def different_there(x):
        return x + 1.0 if next(calls) else x

    calls = iter((0, 1, 1))
    found = run_control(negative_controls.Control("odd", different_there, different_there, {"x": (4,)}), "cpu")
    assert found["verdict"] == "NOT CAUGHT" and found["exact"] != "same bits" and found["broken"] != "same bits"


def test_every_control_is_reported_even_if_one_raises(monkeypatch):
    def raises(*_):
        raise RuntimeError("no\nkernel")

    monkeypatch.setattr(negative_controls, "run_control", raises)
    found = run_part(Part("controls", side=Side("cpu")))
    assert set(found) == {c.name for c in CONTROLS} and len(found) >= 3
    assert {o["verdict"] for o in found.values()} == {FAILED}
    assert {o["problem"] for o in found.values()} == {"RuntimeError: no kernel"}
