"""The training steps that are timed are the trainer's, and the stock ones are the same training."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from dettriton.benchmarks.bits import threads
from dettriton.benchmarks.case import ALONE, WHOLE
from dettriton.benchmarks.dots import matmuls
from dettriton.benchmarks.inputs import bell, classes
from dettriton.benchmarks.steps import StepBench, StepCase
from dettriton.benchmarks.variants import OURS, STOCK, Variant
from dettriton.digest import digest, first_difference
from dettriton.engine import use_engine

CASE = StepCase("med_cnn.digits", 4, "small")
HIGH, PLAIN = Variant("high", True), Variant(STOCK)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A thread for each of these small layers would take longer than the layer."""
    with threads(1):
        yield


@pytest.fixture(scope="module")
def bench():
    return CASE.bench("cpu")


@pytest.mark.heavy
def test_verify_the_captured_step_is_the_trainers(bench):
    """A CUDA graph holds ``forward`` and ``learn``; together they are the step that trains."""
    stepped, in_parts = (bench.work(HIGH)._run for _ in range(2))
    for step in range(2):
        rate = in_parts.learning_rate(step)
        for group in in_parts.optimizer.param_groups:
            group["lr"] = rate
        loss = in_parts.forward(step, *in_parts.batch(step))
        in_parts.learn(loss)
        assert stepped.step(step) == loss.item()
    assert first_difference(stepped.state(), in_parts.state()) is None


def test_verify_results_begin_anew_and_do_not_depend_on_company(bench):
    work = bench.work(HIGH)
    first = work.results(WHOLE)
    first = {name: x.clone() for name, x in first.items()}
    work()
    assert first_difference(first, work.results(ALONE)) is None
    assert first_difference(first, bench.reference(HIGH)) is None
    assert digest(first) != digest(bench.work(Variant("medium", True, "medium")).results(WHOLE))


def test_corroborate_the_stock_step_follows_ours(bench):
    ours, stock = bench.work(HIGH)._run, bench.work(PLAIN)._run
    assert not [m for m in stock.model.modules() if type(m).__module__.startswith("dettriton")]
    assert type(stock.optimizer) is torch.optim.AdamW and stock.model.training
    for step in range(3):
        assert stock.step(step) == pytest.approx(ours.step(step), rel=1e-3)


def test_memory_and_traffic_of_a_step(bench):
    work = bench.work(HIGH)
    assert work.kept() > 100_000 and work.traffic({}) is None


def test_large_products_are_compared_in_their_first_rows():
    (case,) = matmuls("small", 32, first=4)
    bench = case.bench("cpu")
    with use_engine("torch"):
        reference = bench.reference(HIGH)
    assert reference["output"].shape == (4, 32)
    assert first_difference(reference, bench.comparable(bench.work(HIGH).results(WHOLE))) is None
    assert [v.name for v in case.variants("cpu")] == [STOCK, "stock deterministic", "high", "medium"] and OURS == "ours"


def test_inputs_are_fixed():
    made = {"bell": bell("key", 64), "classes": classes("key", 7, 64)}
    assert made["bell"].abs().max() < 4 and made["classes"].max() < 7
    assert digest(made) == "8299a8585640ca2c624a542be7be68a998adbe04cac5fbdb2775847085a91da6"


class PretendedGraph:
    """A capture that computes at once, so that the first replay has nothing left to do."""

    replays = 0

    def replay(self):
        type(self).replays += 1


def test_verify_a_graph_holds_the_step_after_the_one_that_compiles(monkeypatch):
    bench = StepBench(CASE, "cpu", compared=2)
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, stand_in in {
        "CUDAGraph": PretendedGraph,
        "graph": lambda graph: nullcontext(),
        "Stream": lambda: stream,
        "stream": lambda chosen: nullcontext(),
        "current_stream": lambda: stream,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    variant = Variant("high, CUDA graph", True, graph=True)
    work = bench.work(variant)
    assert first_difference(bench.reference(HIGH), work.results(WHOLE)) is None
    assert first_difference(bench.reference(variant), work.results(ALONE)) is None
    assert PretendedGraph.replays == 2
    work()
    assert PretendedGraph.replays == 3
