import json
from collections import Counter
from dataclasses import replace

import op_inputs
import pytest
import torch
from gpu_parts import COMPUTED, DIFFERENT, FAILED, SAME, Side, compare_case
from op_case import CANONICAL_NAN_OPS, HARD, case
from op_cases import CASES
from reporting import RESULTS

from dettriton import BITSPEC, ops
from dettriton.digest import digest
from dettriton.engine import engine_for
from dettriton.exact.ieee import CANONICAL_NAN_BITS

INTERPRETED = Side("cpu", "triton")
SMALL = [c for c in CASES if not c.large]
ONE_EACH = list({c.op: c for c in reversed(SMALL)}.values())

ALWAYS = (
    "sum",
    "relu",
    "gelu",
    "matmul",
    "conv1d",
    "conv2d_act",
    "cross_entropy",
    "batch_norm",
    "embedding",
    "dropout",
)
"""Each op's own tests compare the engines too; here it is that the comparison of a GPU check works."""

WITHOUT_GRADIENT = {"rand", "randn", "randint", "randperm", "bernoulli", "argmax", "argmin", "bincount", "histc"}


def test_every_public_op_has_a_case():
    assert {c.op for c in CASES} - {"optim", "plain", "elementary"} == set(ops.__all__)


def test_every_differentiable_op_has_gradients_and_hard_inputs():
    for op in set(ops.__all__) - WITHOUT_GRADIENT:
        of_it = [c for c in CASES if c.op == op]
        assert any(c.leaves for c in of_it), op
    hard = Counter(c.op for c in CASES if any(c.name.endswith(f"hard {kind}") for kind in HARD))
    assert hard["sum"] >= len(HARD) <= hard["cross_entropy"] and hard["matmul"] >= 2 * len(HARD)


def test_names_are_unique():
    assert max(Counter(c.name for c in CASES).values()) == 1


def test_verify_inputs_are_fixed():
    made = {kind: op_inputs.hard(kind, "key", 64) for kind in HARD}
    made |= {"patterns": op_inputs.patterns("key", 64), "positive": op_inputs.positive("key", 64)}
    made |= {"classes": op_inputs.classes("key", 7, 64), "every": op_inputs.every_kind(64)}
    assert digest(made) == "a9b9281a6e3ab889ff636d7d1b7fe4698be7a35031e908e0237b2217dd20e481"


def test_inputs_are_what_they_are_called():
    noise = op_inputs.noise("key", 4096)
    assert noise.abs().max() < 6 and noise.mean().abs() < 0.1
    subnormal, spread = op_inputs.hard("subnormal", "key", 64), op_inputs.hard("spread", "key", 64)
    assert subnormal.abs().min() > 0 and subnormal.abs().max() < 2.0**-126
    assert torch.isfinite(spread).all() and spread.abs().max() / spread.abs().min() > 1e30
    assert torch.isnan(op_inputs.hard("nan", "key", 64)).sum() == 1
    with pytest.raises(ValueError, match="unknown kind"):
        op_inputs.hard("odd", "key", 4)


@pytest.mark.parametrize("chosen", [c for c in ONE_EACH if c.op in ALWAYS], ids=lambda c: c.name)
def test_verify_engines_agree(chosen):
    assert compare_case(chosen, INTERPRETED)["verdict"] == SAME


@pytest.mark.heavy
@pytest.mark.parametrize("chosen", SMALL, ids=lambda c: c.name)
def test_verify_engines_agree_on_every_case(chosen):
    assert compare_case(chosen, INTERPRETED)["verdict"] == SAME


def recorded_digests():
    for path in sorted(RESULTS.glob("gpu_check-*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["environment"]["bitspec"] == BITSPEC:
            yield pytest.param(content["parts"].get("ops as declared", {}), id=path.stem)


@pytest.mark.parametrize("recorded", [*recorded_digests()])
def test_verify_digests_recorded_on_other_machines(recorded):
    """Where bits changed on purpose BITSPEC must rise; where a case's inputs changed its record must be made again."""
    digests = {c.name: c.digest() for c in CASES if c.name in recorded}
    assert {n: d for n, d in digests.items() if d != recorded[n]["digest"]} == {}


def _off_by_one_ulp(x):
    if engine_for(x) == "triton":
        return torch.nextafter(x, torch.full_like(x, 9.0))
    return x + torch.zeros_like(x)


def test_a_difference_is_found_and_measured():
    found = compare_case(case("plain", "broken", _off_by_one_ulp, x=(10,)), INTERPRETED, repeats=2)
    assert found["verdict"] == DIFFERENT and found["digest"] != found["digest there"]
    assert "10 of 10 elements differ in their bits, by at most 1 ulp" in found["difference"]


def test_an_error_is_reported_as_a_failure():
    def fails(x):
        if engine_for(x) == "triton":
            raise RuntimeError("out of\nresources")
        return x + x

    found = compare_case(case("plain", "failing", fails, x=(3,)), INTERPRETED)
    assert found["verdict"] == FAILED and found["problem"] == "RuntimeError: out of resources"


def test_a_case_without_another_side_is_only_computed():
    assert compare_case(CASES[0], None)["verdict"] == COMPUTED


def test_nan_payloads_count_only_where_the_contract_fixes_them():
    payload = lambda x: torch.full_like(x, 0x7FC00001, dtype=torch.int32).view(torch.float32)  # noqa: E731 used twice
    free, fixed = case("plain", "nan", payload, x=(2,)), case("relu", "nan", payload, x=(2,))
    canonical = replace(free, fn=lambda x: torch.full_like(x, float("nan")))
    assert free.digest() == canonical.digest() != fixed.digest()


def nan_words(chosen):
    nans = [y[y != y] for y in chosen.results().values() if y.dtype == torch.float32]
    return set(torch.cat(nans).view(torch.int32).tolist())


@pytest.mark.parametrize("op", CANONICAL_NAN_OPS)
def test_validate_nans_are_canonical_where_their_payloads_count(op):
    """Engines on one processor make the same NaN, so that their agreement does not show which one it is."""
    assert set().union(*(nan_words(c) for c in SMALL if c.op == op)) <= {CANONICAL_NAN_BITS}
