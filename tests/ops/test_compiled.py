"""Every kernel compiled ahead of time, in a process of its own because this one interprets them."""

import json
import os
import subprocess
import sys

import pytest

from dettriton.ops._aot import FORBIDDEN, TARGETS, Compiled

SCRIPT = """
import json, sys
import dettriton.ops
from dettriton.ops._aot import all_variants, compile_kernel
target, once = sys.argv[1], set(sys.argv[2:])
seen = set()
for kernel, variant in all_variants():
    if kernel.name in seen & once:
        continue
    seen.add(kernel.name)
    c = compile_kernel(kernel, variant, target)
    row = {"name": c.name, "violations": c.violations(), "tensor_cores": c.uses_integer_tensor_cores}
    row["narrow"] = c.narrow_offsets()
    if c.uses_integer_tensor_cores:
        row["stack"], row["instructions"] = c.resources().stack_bytes, c.resources().matrix_instructions
    sizes = [p for p in kernel.fn.params if kernel.signature.get(p.name) == "i64"]
    row["sizes"] = all(p.annotation_type == "i64" and p.do_not_specialize for p in sizes)
    print(json.dumps(row), flush=True)
"""
ATTENTION = {"_attention_fwd_kernel", "_attention_key_grad_kernel", "_attention_query_grad_kernel"}
PRODUCTS = {"_dot_rows_kernel", "_conv_kernel", "_conv_weight_grad_kernel"}
WITH_DOTS = {*PRODUCTS, *ATTENTION}


def run(*arguments: str) -> list[dict]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", *arguments], env=environment, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_every_kernel_compiles_within_the_contract():
    # kernels with dots take most of the time: one variant of each stands for the others here
    rows = run(SCRIPT, "sm_90", *WITH_DOTS)
    require_contract(rows)
    require_no_spill(rows)


@pytest.mark.heavy
@pytest.mark.parametrize("target", TARGETS)
def test_every_variant_compiles_within_the_contract(target):
    require_contract(run(SCRIPT, target))


@pytest.mark.heavy
def test_no_variant_of_a_product_spills_on_hopper():
    require_no_spill(run(SCRIPT, "sm_90"))


def require_no_spill(rows: list[dict]) -> None:
    products = [r for r in rows if r["name"] in PRODUCTS]
    assert [(r["name"], r["stack"], r["instructions"]) for r in products if r["stack"]] == []
    assert all(r["instructions"] == ["wgmma"] for r in products)


def require_contract(rows: list[dict]) -> None:
    assert {r["name"] for r in rows} >= WITH_DOTS
    assert {r["name"]: r["violations"] for r in rows if r["violations"]} == {}
    assert {r["name"] for r in rows if r["tensor_cores"]} == WITH_DOTS
    assert all(r["sizes"] for r in rows)
    assert {r["name"]: r["narrow"] for r in rows if r["narrow"]} == {}


FUSING = """
import json, sys
from dettriton.ops import _aot, _launch
from dettriton.ops._launch import tl
source = '''
from dettriton.ops._launch import kernel, tl
@kernel("*fp32 *fp32 i64")
def _broken_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr = 128):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK) + n.to(tl.int32)
    x = tl.load(x_ptr + i)
    tl.atomic_add(y_ptr + i, x * x + -x / (x + 1.0))
'''
import importlib.util, pathlib, tempfile
path = pathlib.Path(tempfile.mkdtemp()) / "broken.py"
path.write_text(source)
spec = importlib.util.spec_from_file_location("broken", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
_aot.FP_FUSION = {"enable_fp_fusion": True}
compiled = _aot.compile_kernel(module._broken_kernel, module._broken_kernel.variants[0], "sm_90")
print(json.dumps({"violations": compiled.violations(), "narrow": compiled.narrow_offsets()}))
"""


def test_a_kernel_that_fuses_divides_roughly_and_adds_floats_atomically_is_caught():
    (row,) = run(FUSING)
    broken = {v.split(":")[0] for v in row["violations"]}
    assert broken == set(FORBIDDEN["ptx"]) - {"flushed subnormals"} | {"negated float"}
    assert row["narrow"]


def ttir(*lines: str) -> Compiled:
    return Compiled("made", "sm_90", {"ttir": "\n".join(lines), "ptx": ""}, 0, 4)


def test_a_name_means_what_its_last_definition_made_it():
    narrow = "%c = arith.trunci %n : tensor<4xi64> to tensor<4xi32>"
    use = "%p = tt.addptr %x, %c : tensor<4x!tt.ptr<f32>>, tensor<4xi32>"
    assert ttir(narrow, use).narrow_offsets() == [use]
    assert ttir(narrow, "%c = arith.divsi %c, %d : tensor<4xi32>", use).narrow_offsets() == []
    assert ttir(use, narrow, "%q:2 = scf.for %c = %a to %b {", use).narrow_offsets() == []


def test_both_forms_of_a_negated_float_are_seen():
    zero = "%cst = arith.constant dense<0.000000e+00> : tensor<4xf32>"
    assert ttir(zero, "%y = arith.subf %cst, %x : tensor<4xf32>").violations()
    assert ttir("%y = arith.negf %x : tensor<4xf32>").violations()
    assert not ttir(zero, "%y = arith.subf %x, %cst : tensor<4xf32>").violations()


def test_the_four_targets_are_the_promised_ones():
    assert set(TARGETS) == {"sm_80", "sm_90", "sm_100", "gfx942"}
