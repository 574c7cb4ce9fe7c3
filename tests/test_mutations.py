"""The suite finds broken kernels: each mutation is made in a copy of the package, whose tests must then fail."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import dettriton
from dettriton import models, zoo

TESTS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Mutation:
    """One way to break a kernel.

    Attributes:
        what: the mistake.
        file: in the package.
        old, new: the text to replace where it first occurs.
        tests: the part of the suite that must notice.
    """

    what: str
    file: str
    old: str
    new: str
    tests: str


COMPILED = "ops/test_compiled.py::test_every_kernel_compiles_within_the_contract[sm_90]"

MUTATIONS = (
    Mutation(
        "float accumulation",
        "ops/_device_rows.py",
        "total += tl.sum((tl.where(usable, e, 0.0) * 4294967296.0).to(tl.int64), axis=1)[:, None]",
        "total += tl.sum(tl.where(usable, e, 0.0) * 4294967296.0, axis=1).to(tl.int64)[:, None]",
        "ops/test_softmax.py",
    ),
    Mutation("missing tail", "ops/_elementwise.py", "mask = offsets < n", "mask = offsets < n - 1", "ops/test_relu.py"),
    Mutation(
        "fused multiply-add",
        "ops/_launch.py",
        'FP_FUSION = {"enable_fp_fusion": False}',
        'FP_FUSION = {"enable_fp_fusion": True}',
        COMPILED,
    ),
    Mutation(
        "wrong grid",
        "ops/_device.py",
        "shift = tl.where(finite, BITS - exponent, 0)",
        "shift = tl.where(finite, BITS - 1 - exponent, 0)",
        "ops/test_matmul.py",
    ),
    Mutation(
        "dropped digit",
        "ops/_product.py",
        "c1 = tl.dot(a1, b0, c1, out_dtype=tl.int32)",
        "c1 = c1 + 0",
        "ops/test_matmul.py",
    ),
    Mutation(
        "approximate division",
        "ops/_device_rows.py",
        "return tl.div_rn(exp_f32(x - top), tl.broadcast_to(total, [BLOCK_R, BLOCK_C]))",
        "return exp_f32(x - top) / total",
        COMPILED,
    ),
    Mutation(
        "truncated sum",
        "ops/_device.py",
        "hi | (lo != 0).to(tl.int64))",
        "hi)",
        "ops/test_sum.py",
    ),
    Mutation(
        "truncated binary64 sum",
        "ops/_device64.py",
        "value = (a | ((lost_b | lost_c | lost_d) != 0).to(tl.int64)).to(tl.float64)",
        "value = a.to(tl.float64)",
        "ops/test_sum.py",
    ),
    Mutation(
        "bias of another channel",
        "ops/_epilogue.py",
        "tl.load(bias_ptr + channels, mask",
        "tl.load(bias_ptr + channels // 2, mask",
        "ops/test_epilogue.py",
    ),
    Mutation(
        "lost low window",
        "ops/sum.py",
        "tl.atomic_add(bin_ptr - 1, tl.sum(lo, axis=0))",
        "tl.atomic_add(bin_ptr - 1, tl.sum(lo, axis=0) * 0)",
        "ops/test_sum.py",
    ),
    Mutation("read of padding", "ops/_conv_planes.py", "(w >= 0) & (w < size_w)", "(w < size_w)", "ops/test_conv.py"),
    Mutation(
        "random numbers by block",
        "ops/dropout.py",
        "philox_word(offsets, seed",
        "philox_word(tl.arange(0, BLOCK).to(tl.int64), seed",
        "ops/test_dropout.py",
    ),
    Mutation("later of two equals", "ops/max_pool.py", "key > best", "key >= best", "ops/test_max_pool.py"),
)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The package and its tests, in a directory of their own."""
    no_caches = shutil.ignore_patterns("__pycache__")
    for name, module in (("dettriton", dettriton), ("dettriton/models", models), ("dettriton/zoo", zoo)):
        source = Path(module.__file__).parent
        shutil.copytree(source, tmp_path / name, dirs_exist_ok=True, ignore=no_caches)
    for folder in ("tests", "bench"):
        shutil.copytree(TESTS.parent / folder, tmp_path / folder, ignore=no_caches)
    shutil.copy(TESTS.parent / "pyproject.toml", tmp_path)
    return tmp_path


def run_tests(root: Path, tests: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "", f"tests/{tests}"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=1800)


@pytest.mark.heavy
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.what)
def test_the_suite_catches(mutation: Mutation, copied: Path):
    path = copied / "dettriton" / mutation.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutation.old, mutation.new, 1), encoding="utf-8")
    done = run_tests(copied, mutation.tests)
    assert done.returncode == 1 and " failed" in done.stdout, f"{mutation.what} went unnoticed:\n{done.stdout[-2000:]}"


@pytest.mark.heavy
@pytest.mark.parametrize("tests", sorted({m.tests for m in MUTATIONS}))
def test_the_copy_passes_unbroken(tests: str, copied: Path):
    done = run_tests(copied, tests)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.what)
def test_a_mutation_still_fits_the_code(mutation: Mutation):
    assert mutation.old in (Path(dettriton.__file__).parent / mutation.file).read_text(encoding="utf-8")


def test_at_least_ten_kernels_are_broken_in_ten_ways():
    assert len({m.what for m in MUTATIONS}) >= 10
