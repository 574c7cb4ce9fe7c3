"""``dettriton aot``: selection, output, exit codes and interrupts; that launches find what it compiles: test_start_up."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from dettriton.cli import main
from dettriton.cli.aot import _TARGETS
from dettriton.ops import _precompile, _precompile_jobs
from dettriton.ops._aot import TARGETS, all_variants
from dettriton.ops._launch import KERNELS, DeviceFunction, Launch
from dettriton.ops._precompile import SHARED_BYTES, variant_launch
from dettriton.ops._precompile_jobs import Outcome
from dettriton.ops.relu import RELU

# torch lists its constructors when one is first given a device this way: here, before tests replace some of them
with torch.device("meta"):
    torch.empty(0)

FACTS = {"instructions": ["wgmma"], "num_warps": 4, "shared_bytes": 512, "registers": 40, "stack_bytes": 0}


@pytest.fixture
def made(monkeypatch):
    """Outcomes without a compiler; ``made`` is what was asked for, and of kernels by name what is to come of them."""
    asked: list[tuple[list[Launch], str, int]] = []
    special: dict[str, dict] = {}

    def compiled(launches, target, jobs):
        asked.append((launches, target, jobs))
        for launch in launches:
            fields = {"cached": False, "problem": None, "violations": (), "facts": FACTS}
            yield Outcome(launch, **(fields | special.get(launch.kernel, {})))

    monkeypatch.setattr(_precompile, "require_compiler", lambda: None)
    monkeypatch.setattr(_precompile_jobs, "compiled", compiled)
    return asked, special


def run(*arguments):
    return CliRunner().invoke(main, ["aot", *map(str, arguments)])


def test_all_declared_variants_are_compiled_once(made):
    result = run("--target", "sm_90", "--jobs", 3)
    assert result.exit_code == 0, result.output
    ((launches, target, jobs),) = made[0]
    assert (target, jobs) == ("sm_90", 3)
    assert len(launches) == len(set(launches))
    assert set(launches) == {variant_launch(*pair) for pair in all_variants()}
    assert f"{len(launches)} compiled for sm_90, 0 were in " in result.stdout
    assert "--recipe NAME" in result.stdout and "keep the contract" in result.stdout


def test_an_op_selects_by_names_of_kernels_and_of_their_functions(made):
    assert run("--target", "sm_80", "--op", "softmax").exit_code == 0
    assert {launch.kernel for launch in made[0][-1][0]} == {"_softmax_fwd_kernel", "_softmax_bwd_kernel"}
    assert run("--target", "sm_80", "--op", "sqrt").exit_code == 0
    selected = made[0][-1][0]
    assert selected and all("sqrt" in "".join(f.name for f in launch.functions()) for launch in selected)
    unknown = run("--target", "sm_80", "--op", "abacus")
    assert unknown.exit_code == 2
    assert "'abacus'" in unknown.stderr and "_softmax_fwd_kernel" in unknown.stderr


def test_a_recipe_is_compiled_as_it_launches(made):
    result = run("--target", "sm_90", "--recipe", "med_cnn.digits", "--jobs", 1, "--json")
    assert result.exit_code == 0, result.output
    launched = {launch.kernel for launch in made[0][-1][0]}
    assert {"_adam_kernel", "_conv_weight_grad_kernel", "_cross_entropy_bwd_kernel"} <= launched
    assert json.loads(result.stdout)["recipes"] == ["med_cnn.digits"]
    assert run("--target", "sm_90", "--recipe", "nobody").exit_code == 2


@pytest.mark.parametrize(
    ("special", "code", "told"),
    [
        ({"violations": ("fused multiply-add: fma.rn.f32",)}, 1, "fused multiply-add"),
        ({"problem": "CompilationError: no", "facts": {}}, 2, "CompilationError: no"),
    ],
)
def test_verify_exit_codes(made, tmp_path, special, code, told):
    made[1]["_dropout_kernel"] = special
    result = run("--target", "sm_90", "--op", "dropout", "--report", tmp_path / "r.json")
    assert result.exit_code == code, result.output
    assert told in result.stdout
    (row,) = json.loads((tmp_path / "r.json").read_text())["kernels"]
    assert row["kernel"] == "_dropout_kernel" and row["arguments"][:3] == ["*fp32", "*fp32", "i64"]
    assert told in json.dumps(row)


def test_verify_what_is_in_the_cache_is_counted_and_the_cache_named(made, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    made[1]["_dropout_kernel"] = {"cached": True}
    assert f"0 compiled for gfx942, 1 were in {tmp_path}" in run("--target", "gfx942", "--op", "dropout").stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_verify_without_a_gpu_a_target_has_to_be_named(made):
    result = run()
    assert result.exit_code == 2
    assert "--target sm_80|sm_90|sm_100|gfx942" in result.stderr


def test_verify_the_interpreter_cannot_compile():
    result = run("--target", "sm_90")
    assert result.exit_code == 2
    assert "TRITON_INTERPRET" in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_verify_an_interrupt_ends_it(made, monkeypatch, number, code):
    ended = []

    def interrupted(launches, target, jobs):
        try:
            signal.raise_signal(number)
            yield Outcome(launches[0], False, None, (), FACTS)
            pytest.fail("went on")
        finally:
            ended.append(True)

    monkeypatch.setattr(_precompile_jobs, "compiled", interrupted)
    result = run("--target", "sm_90", "--op", "softmax")
    assert result.exit_code == code
    assert "interrupted" in result.stderr and ended == [True]


def test_the_targets_are_those_that_kernels_are_compiled_for():
    assert set(_TARGETS) == set(TARGETS) == set(SHARED_BYTES)


def test_launches_that_differ_in_a_flag_or_an_equal_number_are_distinct():
    true, one = (Launch("k", (), (("FLAG", flag),)) for flag in (True, 1))
    assert [str(x) for x in Launch.distinct([one, true, one])] == [str(one), str(true)]


def test_a_worker_knows_all_kernels():
    assert {"_adam_kernel", "_sgd_kernel", "_dropout_kernel"} <= set(KERNELS)


def test_every_variant_and_its_functions_can_be_named_to_another_process():
    for kernel, variant in all_variants():
        launch = variant_launch(kernel, variant)
        for name, value in launch.options:
            given = {**kernel.defaults, **variant.constants}.get(name)
            if isinstance(value, DeviceFunction):
                assert value.load() is given
    assert DeviceFunction.of(RELU.device).load() is RELU.device


@pytest.mark.heavy
@pytest.mark.parametrize("recipe", ["med_cnn.digits", "ecg_resnet18_tiny.rhythm_sim", "ecg_conformer_tiny.rhythm_sim"])
def test_verify_a_second_run_finds_all_that_the_first_one_compiled(tmp_path: Path, recipe: str):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-m", "dettriton", "aot", "--target", "sm_90", "--recipe", recipe, "--json", "--jobs"]
    counts = []
    for jobs in ("2", "1"):
        done = subprocess.run([*command, jobs], env=environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr[-2000:]
        summary = json.loads(done.stdout)
        counts.append((summary["compiled"], summary["cached"]))
    assert counts[0][0] > 20 and counts == [(counts[0][0], 0), (0, counts[0][0])]
