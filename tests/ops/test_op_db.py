"""torch's own sample inputs for the operators we mirror: values and gradients agree with torch in binary64."""

from __future__ import annotations

import re
import warnings
from functools import cache
from itertools import islice

import pytest
import torch
from torch.utils._pytree import tree_leaves

from dettriton import ops
from dettriton.errors import InputError
from dettriton.ops._contract import CONTRACTS

SAMPLES = 60
"""How many of an operator's samples run; the heavy test runs all."""

NOT_COMPARED = {
    **dict.fromkeys(
        ("rand", "randn", "randint", "randperm", "bernoulli", "nn.functional.dropout"),
        "random: there is no equal result to expect",
    ),
    **dict.fromkeys(
        ("nn.functional.fractional_max_pool2d", "nn.functional.fractional_max_pool3d"),
        "torch's samples draw the windows; given the same random numbers, its own test compares the results",
    ),
    "linalg.vector_norm": "has its own name here: norm",
}
"""Mirrored operators that are not compared, and why."""

NAMED_OTHERWISE = {"nn.functional.softmax": "softmax", "nn.functional.log_softmax": "log_softmax"}
"""Mirrored functions whose samples have another name in the list."""

ADAPTED = {
    "embedding": lambda weight, index, *args, **kwargs: ops.embedding(index, weight, *args, **kwargs),
    "embedding_bag": lambda weight, index, *args, **kwargs: ops.embedding_bag(index, weight, *args, **kwargs),
    "einsum": lambda operands, equation: ops.einsum(equation, *operands),
}
"""Ops whose samples name another argument first."""

REFUSED: dict[str, dict[str, str]] = {
    "bincount": {"weights must be": "weights are binary32"},
    "softmax": {"dtype=torch.float64": "no elementary functions of binary64"},
    "log_softmax": {"dtype=torch.float64": "no elementary functions of binary64"},
    "batch_norm": {r"input must be \(N, C": "an empty vector has no channels"},
    "cumprod": {"dtype is not supported": "the result has the input's type"},
    "cumsum": {"dtype is not supported": "the result has the input's type"},
    "prod": {"dtype is not supported": "the result has the input's type"},
    "gather": {"index must be": "8-bit indices", "index has .* dimensions": "an empty index of another rank"},
    "einsum": {"repeats an index": "diagonals"},
    "index_copy": {"must have a dimension": "a scalar has nothing to index"},
    "index_add": {"must have a dimension": "a scalar has nothing to index"},
    "max": {"dim must be one integer": "torch.max of two tensors is torch.maximum, exact as it is"},
    "min": {"dim must be one integer": "torch.min of two tensors is torch.minimum, exact as it is"},
    "norm": {"p must be": "other orders and the nuclear norm"},
    "scaled_dot_product_attention": {"rng must be": "dropout needs a stream of its own"},
}
"""By op: what its errors say, and why it refuses what torch takes."""

DOTS = {"rtol": 2e-4, "atol": 6e-5}
"""Twenty-bit grids, and the products of results of such dots in attention."""

TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}
"""The absolute part is of the largest magnitude, or of a twentieth of an upstream gradient that cancels."""


@cache
def operators() -> dict[str, list]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    found: dict[str, list] = {}
    for info in op_db:
        found.setdefault(info.name, []).append(info)
    return found


def compared() -> list[str]:
    mirrored = {name: c.mirrors for name, c in CONTRACTS.items() if name in ops.__all__}
    return sorted(n for n, m in mirrored.items() if listed(m) in operators() and m not in NOT_COMPARED)


def listed(mirrors: str) -> str:
    return NAMED_OTHERWISE.get(mirrors, mirrors)


def widened(sample):
    return sample.transform(
        lambda t: (
            t.detach().double().requires_grad_(t.requires_grad)
            if isinstance(t, torch.Tensor) and t.dtype == torch.float32
            else t
        )
    )


def leaves_of(sample) -> list[torch.Tensor]:
    every = tree_leaves((sample.input, sample.args, sample.kwargs))
    return [t for t in every if isinstance(t, torch.Tensor) and t.requires_grad]


def results_and_gradients(fn, sample) -> list[torch.Tensor]:
    # A clone: some ops change running statistics, and samples share tensors.
    results = [r for r in tree_leaves(fn(sample.input, *sample.args, **sample.kwargs)) if isinstance(r, torch.Tensor)]
    sloped = [r for r in results if r.requires_grad]
    leaves = leaves_of(sample)
    slopes = [torch.linspace(0.5, 1.5, r.numel(), dtype=torch.float64).view(r.shape).to(r.dtype) for r in sloped]
    found = torch.autograd.grad(sloped, leaves, slopes, allow_unused=True) if sloped and leaves else []
    zeros = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=False)]
    return [r.detach() for r in results] + zeros


def assert_agrees(
    ours: list[torch.Tensor], stock: list[torch.Tensor], where: str, bound: dict[str, float] = TOLERANCE
) -> None:
    assert len(ours) == len(stock), where
    for a, b in zip(ours, stock, strict=True):
        assert a.shape == b.shape, where
        if a.is_floating_point():
            finite = b[torch.isfinite(b)]
            scale = max(float(finite.abs().max()) if finite.numel() else 0.0, 0.05)
            torch.testing.assert_close(
                a.double(), b.double(), rtol=bound["rtol"], atol=bound["atol"] * scale, equal_nan=True,
                msg=lambda text, where=where: f"{where}: {text}",
            )  # fmt: skip
        else:
            assert torch.equal(a, b), where


def refusal(op: str, error: InputError) -> str | None:
    return next((why for pattern, why in REFUSED.get(op, {}).items() if re.search(pattern, str(error))), None)


def without_gradients_of_arguments(sample):
    first = sample.input
    sample = sample.transform(lambda t: t.detach() if isinstance(t, torch.Tensor) else t)
    sample.input = first
    return sample


def overwrites(op: str, sample) -> bool:
    """Unpooling two values into one place: torch gives both a gradient, although one was overwritten."""
    if not op.startswith("max_unpool"):
        return False
    places = sample.args[0].flatten(-int(op[-2])).flatten(0, -2)
    return any(len(row.unique()) < len(row) for row in places)


def run_samples(op: str, limit: int | None) -> int:
    contract = CONTRACTS[op]
    ours = ADAPTED.get(op, contract.function)
    bound = DOTS if contract.family in ("Dot products", "Attention") else TOLERANCE
    agreed = 0
    for info in operators()[listed(contract.mirrors)]:
        torch.manual_seed(0)
        if torch.float32 not in info.dtypes and op != "bincount":
            continue
        dtype = torch.float32 if torch.float32 in info.dtypes else torch.int64
        samples = info.sample_inputs("cpu", dtype, requires_grad=info.supports_autograd and dtype.is_floating_point)
        for number, sample in enumerate(islice(samples, limit)):
            where = f"{info.name} {info.variant_test_name} sample {number}: {sample.args} {sample.kwargs}"
            if overwrites(op, sample):
                continue
            try:
                results = results_and_gradients(ours, sample)
            except InputError as error:
                if "there is no gradient with respect to" in str(error):
                    sample = without_gradients_of_arguments(sample)
                    results = results_and_gradients(ours, sample)
                else:
                    assert refusal(op, error), f"{where}: not in the list of refusals: {error}"
                    continue
            assert_agrees(results, results_and_gradients(info.op, widened(sample)), where, bound)
            agreed += 1
    return agreed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op", compared())
def test_corroborate_torchs_samples(op):
    assert run_samples(op, SAMPLES) > 0


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op", compared())
def test_corroborate_all_of_torchs_samples(op):
    assert run_samples(op, None) > 0


def test_every_mirrored_operator_is_compared_or_has_a_reason():
    named = {c.mirrors for name, c in CONTRACTS.items() if name in ops.__all__ and c.mirrors}
    assert {m for m in named if listed(m) not in operators()} <= set(NOT_COMPARED)
