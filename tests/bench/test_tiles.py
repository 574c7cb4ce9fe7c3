import pytest
import torch
from gpu_parts import Side, chosen_cases, compare_case
from op_cases import CASES
from tiles import DECLARED, PLANS, Plan, launched_by

from dettriton.engine import use_engine
from dettriton.ops import _device_rows, _plans, relu
from dettriton.ops._launch import KERNELS

INTERPRETED = Side("cpu", "triton")
QUICK = (
    "relu/tail",
    "dropout/map",
    "sum/all",
    "matmul/tail, high",
    "conv1d/strided",
    "softmax/rows",
    "max_pool2d/2x2",
)


def by_name(name):
    return next(c for c in CASES if c.name == name)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.heavy if n.startswith("conv") else []) for n in QUICK]
)
@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.name)
def test_verify_launch_plans_do_not_matter(plan, name):
    with launched_by(plan):
        assert compare_case(by_name(name), INTERPRETED)["verdict"] == "same"


@pytest.mark.heavy
@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.name)
def test_verify_launch_plans_do_not_matter_for_any_op(plan):
    with launched_by(plan):
        found = {c.name: compare_case(c, INTERPRETED)["verdict"] for c in chosen_cases(INTERPRETED, plan)}
    assert set(found.values()) == {"same"}


def test_a_plan_changes_what_is_launched():
    launches = []
    kernel = KERNELS["_map1_kernel"]
    launcher = kernel.fn

    class Recorder:
        fn = launcher.fn

        def __getitem__(self, grid):
            return lambda *a, **options: (launches.append((grid, options)), launcher[grid](*a, **options))

    def launch_options(options):
        return {k: v for k, v in options.items() if k not in ("FORMULA", "SCALARS")}

    kernel.fn = Recorder()
    try:
        for plan in (DECLARED, PLANS[0]):
            with launched_by(plan), use_engine("triton"):
                relu(torch.ones(1000))
    finally:
        kernel.fn = launcher
    assert [(grid, launch_options(options)) for grid, options in launches] == [
        ((1,), {"num_warps": 4, "BLOCK": 1024, "enable_fp_fusion": False}),
        ((8,), {"num_warps": 2, "num_stages": 1, "BLOCK": 128, "enable_fp_fusion": False}),
    ]


def test_everything_is_put_back_even_after_an_error():
    import importlib

    module = importlib.import_module("dettriton.ops._conv_kernels")
    before = (module.BLOCK_C, _plans.FORCED, _device_rows.TILE)
    with pytest.raises(KeyError), launched_by(PLANS[0]):
        assert not set(before) & {module.BLOCK_C, _plans.FORCED, _device_rows.TILE}
        raise KeyError
    assert before == (module.BLOCK_C, _plans.FORCED, _device_rows.TILE)
    assert all(kernel.overrides == {} for kernel in KERNELS.values())


def test_a_kernel_with_a_block_size_of_its_own_keeps_it():
    with launched_by(PLANS[0]):
        assert "BLOCK" in KERNELS["_window_sum_kernel"].overrides
        assert "BLOCK" not in KERNELS["_window_round_kernel"].overrides


def test_a_tile_that_the_grid_does_not_follow_is_found():
    kernel = KERNELS["_map1_kernel"]
    kernel.overrides = {"BLOCK": 128}
    try:
        assert compare_case(by_name("relu/tail"), INTERPRETED)["verdict"] == "DIFFERENT"
    finally:
        kernel.overrides = {}


def test_a_constant_that_does_not_exist_is_an_error():
    with pytest.raises(AttributeError), launched_by(Plan("wrong", constants={"dropout": {"BLOCKS": 1}})):
        pass
