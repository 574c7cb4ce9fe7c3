"""What compiled kernels take of a GPU, and what fits there. That products take little: see test_compiled."""

import pytest

from dettriton.errors import EngineError
from dettriton.ops._resources import Occupancy, Resources, matrix_instructions, resources


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "target", "expected"),
    [
        (32, 0, 4, "sm_90", Occupancy(16, 64, 1.0)),
        (255, 0, 4, "sm_80", Occupancy(2, 8, 0.125)),
        (168, 49152, 4, "sm_90", Occupancy(3, 12, 0.1875)),
        (40, 82 << 10, 4, "sm_80", Occupancy(1, 4, 0.0625)),
        (244, 221184, 8, "sm_100", Occupancy(1, 8, 0.125)),
        (16, 0, 1, "sm_80", Occupancy(32, 32, 0.5)),
        (32, 240 << 10, 4, "sm_90", Occupancy(0, 0, 0.0)),
    ],
)
def test_validate_occupancy_by_the_rules_of_the_guide(registers, shared, warps, target, expected):
    assert Resources(registers, 0, shared, warps, ()).occupancy(target) == expected


def test_an_unknown_multiprocessor_is_an_error():
    with pytest.raises(EngineError, match=r"occupancy on gfx942 is not known.*sm_90"):
        Resources(32, 0, 0, 4, ()).occupancy("gfx942")


def test_assembly_of_amd_is_read():
    asm = {"amdgcn": "v_mfma_i32_32x32x16_i8 a\n  .private_segment_fixed_size: 36\n  .vgpr_count:     256\n"}
    assert resources(asm, 1024, 8) == Resources(256, 36, 1024, 8, ("mfma",))


def test_code_that_does_not_tell_is_an_error():
    with pytest.raises(EngineError, match="does not tell"):
        resources({"amdgcn": ".vgpr_count: 256"}, 0, 4)


def test_matrix_instructions_are_told_apart():
    assert matrix_instructions("wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 {") == ("wgmma",)
    assert matrix_instructions("mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32") == ("mma",)
    assert matrix_instructions("fma.rn.f32") == ()
