"""What starting imports and compiles, which decides how long it takes and, unlike time, is the same on every machine."""

import json
import os
import subprocess
import sys

import pytest
import torch

from dettriton import optim
from dettriton.cli import _COMMANDS
from dettriton.ops._compile import registered

HEAVY = ("torch", "numpy", "triton", "numba", "scipy", "matplotlib", "rich")

HELP = """
import json, sys
from dettriton.cli import main
loaded = {}
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as stop:
        assert stop.code == 0, arguments
    loaded[" ".join(arguments)] = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
print("\\n" + json.dumps(loaded))
"""

FRESH = """
import json, sys
import torch
import dettriton.zoo._verify
from dettriton import nn, optim
model = nn.Linear(3, 2)
for optimizer in (optim.SGD(model.parameters(), momentum=0.9), optim.AdamW(model.parameters())):
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
names = ("torch._dynamo", "sympy", "timm", "sklearn", "matplotlib", "medmnist", "wfdb", "rich")
imported = [name for name in names if name in sys.modules]

import triton
from dettriton.ops._launch import KERNELS, Launch
from dettriton.ops._precompile import pretend, require_compiler, variant_launch, warm
from dettriton.ops.relu import RELU
require_compiler()
pretend("sm_90")
heard = []
triton.knobs.compilation.listener = lambda *, metadata, cache_hit, **_: heard.append((metadata["hash"], cache_hit))
drop, apply = KERNELS["_dropout_kernel"], KERNELS["_map1_kernel"]
whole, formula = torch.ones(64), {"FORMULA": RELU.device, "SCALARS": 0}
unaligned = whole[1:]
launches = {
    "whole": (drop, (whole, whole, 64, 7, 1.25, 1, 2, 3, 2**33), {}),
    "one element": (drop, (whole, whole, 1, 16, 1.0, 0, 0, 1, 0), {}),
    "unaligned": (drop, (whole, unaligned, 63, 7, 1.25, 1, 2, 3, 4), {}),
    "function": (apply, (whole, whole, 64, 0.0, 0.0), formula),
}
ahead = {
    "whole": variant_launch(drop, drop.variants[0]),
    "one element": variant_launch(drop, drop.variants[0]),
    "unaligned": Launch.of(drop, drop._types_of(launches["unaligned"][1]), drop.options(4, {})),
    "function": Launch.of(apply, apply._types_of(launches["function"][1]), apply.options(4, formula)),
}
keys = {}
for name, launch in ahead.items():
    kernel, arguments, constants = launches[name]
    warm(launch)
    kernel.fn.device_caches.clear()
    compiled = heard[-1][0]
    try:
        kernel((1,), *arguments, **constants)
    except AttributeError as error:
        assert "launcher_cls" in str(error), error
    keys[name] = (compiled, *heard[-1], sum(len(cache[0]) for cache in kernel.fn.device_caches.values()))
    kernel.fn.device_caches.clear()
print(json.dumps({"imported": imported, "keys": keys}))
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> dict:
    """What a process without an interpreter and with an empty cache tells of itself."""
    cache = str(tmp_path_factory.mktemp("triton"))
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": cache}
    return told(FRESH, environment=environment)


def told(script: str, *arguments: str, environment: dict[str, str] | None = None) -> dict:
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_no_help_imports_anything_heavy():
    asked = [["--version"], ["--help"], *([command, "--help"] for command in _COMMANDS)]
    loaded = told(HELP, json.dumps(asked), json.dumps(HEAVY))
    assert loaded == {" ".join(arguments): [] for arguments in asked}


def test_a_training_imports_neither_the_compiler_of_torch_nor_what_it_does_not_use(fresh):
    assert fresh["imported"] == []


@pytest.mark.parametrize("launch", ["whole", "one element", "unaligned", "function"])
def test_verify_a_launch_finds_what_was_compiled_ahead_for_it(fresh, launch):
    """Triton's own launch path goes as far as the GPU that is not there, with the key and the entry of before."""
    compiled, looked_for, hit, looked_up = fresh["keys"][launch]
    assert looked_for == compiled
    assert hit is True
    assert looked_up == 1


def test_other_alignment_is_another_entry(fresh):
    assert fresh["keys"]["unaligned"][0] != fresh["keys"]["whole"][0]


def test_marked_as_torch_marks_functions_with_a_constant_result():
    def marked_by_torch() -> bool:
        return True

    torch.compiler.assume_constant_result(marked_by_torch)
    assert vars(registered) == vars(marked_by_torch) != {}


@pytest.mark.heavy
def test_light_optimizers_are_compiled_around_as_before():
    """With the compiler loaded, torch's own guarded methods are called, and they do what they did."""
    import torch._dynamo

    p = torch.nn.Parameter(torch.ones(3))
    optimizer = optim.SGD([p], lr=0.5)
    p.grad = torch.ones(3)
    optimizer.step()
    optimizer.zero_grad()
    assert p.grad is None and p.tolist() == [0.5] * 3
    optimizer.load_state_dict(optimizer.state_dict())
    torch._dynamo.reset()

    @torch.compile(backend="eager")
    def forget(x: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        return x + 1

    p.grad = torch.ones(3)
    assert forget(torch.ones(2)).tolist() == [2.0, 2.0] and p.grad is None
