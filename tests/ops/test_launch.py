import importlib

import pytest
import torch

from dettriton.errors import EngineError
from dettriton.exact.philox import Stream
from dettriton.ops import _launch
from dettriton.ops._launch import KERNELS, Kernel, Variant, blocks, kernel, tl

dropout_module = importlib.import_module("dettriton.ops.dropout")  # the name in dettriton.ops is the function


class Recorder:
    """Stands where the compiled kernel is and keeps what reaches it."""

    def __init__(self):
        self.launches = []

    def __getitem__(self, grid):
        return lambda *arguments, **options: self.launches.append((grid, arguments, options))


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def recorded(recorder):
    return Kernel("_recorded_kernel", recorder, {"x_ptr": "*fp32", "n": "i64"}, (Variant({}),))


X = torch.zeros(3)


def test_a_launch_never_fuses_and_has_four_warps(recorded, recorder):
    recorded((2, 1), X, 3)
    assert recorder.launches == [((2, 1), (X, 3), {"num_warps": 4, "enable_fp_fusion": False})]


def test_what_the_host_plans_reaches_the_kernel(recorded, recorder):
    recorded((1,), X, num_warps=8, BLOCK=64)
    assert recorder.launches[0][2] == {"num_warps": 8, "BLOCK": 64, "enable_fp_fusion": False}


def test_overrides_replace_options_and_default_constants(recorded, recorder):
    recorded.overrides = {"num_warps": 1, "num_stages": 2, "BLOCK": 128}
    recorded((1,), X, num_warps=8, DIGITS=3)
    expected = {"num_warps": 1, "num_stages": 2, "BLOCK": 128, "DIGITS": 3, "enable_fp_fusion": False}
    assert recorder.launches[0][2] == expected


def test_defaults_are_named_unless_the_launch_or_an_override_says_otherwise(recorded, recorder):
    recorded.defaults = {"BLOCK": 32, "TILES": 8}
    recorded((1,), X, TILES=1)
    recorded.overrides = {"BLOCK": 64}
    recorded((1,), X)
    constants = [{k: launch[2][k] for k in recorded.defaults} for launch in recorder.launches]
    assert constants == [{"BLOCK": 32, "TILES": 1}, {"BLOCK": 64, "TILES": 8}]


def test_a_constant_that_the_launch_names_is_not_overridden(recorded, recorder):
    recorded.overrides = {"BLOCK": 128}
    recorded((1,), X, BLOCK=64)
    assert recorder.launches[0][2]["BLOCK"] == 64


@pytest.mark.parametrize("way", ["override", "launch"])
def test_fusion_cannot_be_switched_on(recorded, recorder, way):
    asked = {"enable_fp_fusion": True}
    recorded.overrides = asked if way == "override" else {}
    recorded((1,), X, **(asked if way == "launch" else {}))
    assert recorder.launches[0][2]["enable_fp_fusion"] is False


@pytest.mark.parametrize("grid", [(0,), (3, 0), (0, 2, 2)])
def test_an_empty_grid_launches_nothing(recorded, recorder, grid):
    recorded(grid, X)
    assert recorder.launches == []


def test_overrides_belong_to_one_kernel():
    first, second = (Kernel(name, None, {}, ()) for name in "ab")
    first.overrides["num_warps"] = 1
    assert second.overrides == {}


def test_without_triton_a_launch_says_what_to_do(recorded, recorder, monkeypatch):
    monkeypatch.setattr(_launch, "triton", None)
    with pytest.raises(EngineError, match="Triton is not installed here; use engine 'torch'"):
        recorded((1,), X)
    assert recorder.launches == []


def test_without_triton_kernels_are_still_declared(monkeypatch):
    monkeypatch.setattr(_launch, "triton", None)
    monkeypatch.setattr(_launch, "KERNELS", {})

    @kernel("*fp32 i64")
    def _plain_kernel(x_ptr, n, BLOCK: tl.constexpr = 16):
        return n + BLOCK

    assert _plain_kernel.signature == {"x_ptr": "*fp32", "n": "i64"}
    assert _plain_kernel.fn(x_ptr=None, n=1) == 17
    assert _plain_kernel.defaults == {"BLOCK": 16}
    assert {"_plain_kernel": _plain_kernel} == _launch.KERNELS


def test_every_declared_kernel_has_a_variant_to_compile_and_no_override():
    assert KERNELS and all(k.variants and k.name == name for name, k in KERNELS.items())
    assert {name: k.overrides for name, k in KERNELS.items() if k.overrides} == {}


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (1, 1), (16, 1), (17, 2)])
def test_validate_blocks_cover(n, expected):
    assert blocks(n, 16) == expected


def test_a_constant_that_changed_after_the_declaration_does_not_reach_the_kernel(recorder, monkeypatch):
    monkeypatch.setattr(dropout_module, "BLOCK", 16)
    monkeypatch.setattr(KERNELS["_dropout_kernel"], "fn", recorder)
    dropout_module.dropout_triton(X, 0.5, Stream(0))
    assert recorder.launches[0][2]["BLOCK"] == 1024
