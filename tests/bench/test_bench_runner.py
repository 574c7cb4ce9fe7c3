"""Bits come before times: what a row says when they are right, and when an error is planted."""

import os
from types import SimpleNamespace

import made_benchmarks as made
import pytest
import torch

from dettriton import ops
from dettriton.benchmarks import rates, runner
from dettriton.benchmarks.bits import without_compiled_loops
from dettriton.benchmarks.case import TRAINING
from dettriton.benchmarks.memory import kept_bytes, peak_bytes
from dettriton.benchmarks.runner import DIFFERENT, FAILED, SAME, Measured, Procedure, measure, measure_case
from dettriton.benchmarks.tables import geometric_mean, lines
from dettriton.benchmarks.timing import Times, clock_of, interleaved
from dettriton.benchmarks.variants import DETERMINISTIC, OURS, STOCK, Variant, variants
from dettriton.exact._jit import SWITCH, compiles

RATES = {"copy_gb_per_s": 10.0}


@pytest.fixture(autouse=True)
def little_to_copy(monkeypatch):
    monkeypatch.setattr(rates, "COPIED_BYTES", 1 << 16)


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def row_of(case, *seconds):
    return measure_case(case, Procedure("cpu", made.FakeClock(*(seconds or (0.001,))), 3, brief=0.0), RATES)


def test_times_are_medians_and_quantiles():
    times = Times((0.005, 0.001, 0.004, 0.002, 0.003, 0.006))
    assert times.to_dict() == {"median_ms": 3.5, "p20_ms": 2.0, "p80_ms": 5.0}


def test_variants_take_turns_after_one_call_each():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    found = interleaved(runs, made.FakeClock(9.0, 9.0, 9.0, 1.0, 2.0, 3.0), 2, brief=0.0)
    assert "".join(calls) == "abc" + "abc" + "bca"
    assert {name: times.seconds for name, times in found.items()} == {"a": (1.0, 9.0), "b": (2.0, 9.0), "c": (3.0, 9.0)}


def test_short_work_is_repeated_more_often_and_not_for_ever():
    assert len(interleaved({"a": lambda: None}, made.FakeClock(1 / 64), 3, brief=0.125)["a"].seconds) == 8
    assert len(interleaved({"a": lambda: None}, made.FakeClock(0.0), 3, brief=0.1)["a"].seconds) == 18


def test_a_row_of_right_bits():
    row = row_of(made.right(TRAINING), 0.004)
    assert row["bits"] == SAME and set(row["variants"]) == {STOCK, DETERMINISTIC, OURS}
    assert row["ratios"] == {OURS: {STOCK: 1.0, DETERMINISTIC: 1.0}}
    ours = row["variants"][OURS]
    # read: input and upstream; written: result and gradient
    assert ours["gb_per_s"] == pytest.approx(4 * 60 / (ours["median_ms"] / 1000) / 1e9, rel=1e-3)
    assert ours["distinct"] == 1 and ours["kept_bytes"] == 60 and len(row["digests"][OURS]) == 64
    assert ours["share_of_copy"] == pytest.approx(ours["gb_per_s"] / 10.0, rel=1e-3)


def test_ratios_are_stocks_time_over_ours():
    works = {name: (Variant(name, ours=name == OURS), None) for name in (STOCK, DETERMINISTIC, OURS)}
    times = {STOCK: Times((3.0,)), DETERMINISTIC: Times((6.0,)), OURS: Times((2.0,))}
    assert runner._ratios(works, times) == {OURS: {STOCK: 1.5, DETERMINISTIC: 3.0}}


@pytest.mark.parametrize(
    ("ours", "told"),
    [
        (made.by_loops, "not the bits of the CPU's reference: output: 15 of 15 elements"),
        (made.by_threads, "other bits with 1 thread: output: 15 of 15 elements"),
        (made.by_company, "other bits with one sample alone: output: 3 of 15 elements"),
        (made.by_order, "other bits with permuted: output: 15 of 15 elements"),
        (made.ByCalls(), "other bits with again"),
    ],
)
def test_a_planted_error_is_caught_and_not_timed(ours, told):
    clock = made.FakeClock(0.001)
    row = measure_case(made.made(ours), Procedure("cpu", clock, 3), RATES)
    assert row["bits"] == DIFFERENT and clock.calls == 0
    assert row["problem"].startswith(f"ours: {told}")
    assert "median_ms" not in str(row["variants"]) and row["ratios"] == {}
    assert lines(row)[0][1] == "BITS DIFFERENT"
    assert not Measured({}, [row], []).good


def test_stocks_different_results_are_counted_and_no_failure():
    row = row_of(made.made(ops.relu, stock=made.by_threads))
    assert row["bits"] == SAME and row["variants"][STOCK]["distinct"] == 2 and row["variants"][OURS]["distinct"] == 1


def test_what_torch_refuses_is_said():
    def stock(input):
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("no deterministic\nimplementation")
        return torch.relu(input)

    row = row_of(made.made(ops.relu, stock))
    assert row["variants"][DETERMINISTIC] == {"refused": "RuntimeError: no deterministic implementation"}
    assert DETERMINISTIC not in row["ratios"][OURS] and lines(row)[0][4] == "refused"
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_error_of_ours_is_a_failure():
    def ours(input):
        raise ValueError("out of\nresources")

    row = row_of(made.made(ours))
    assert row["bits"] == FAILED and row["problem"] == "ValueError: out of resources"


def test_no_case_begins_after_the_time():
    measured = Measured({}, [], [])
    measure([made.right()], Procedure("cpu", made.FakeClock(0.001), 3, seconds=-1.0), measured, lambda case: None)
    assert measured.left == ["relu 5x3, forward"] and measured.rows == []


def test_an_interrupted_run_keeps_its_rows():
    def stopped(input):
        raise KeyboardInterrupt

    measured = Measured({}, [], [])
    with pytest.raises(KeyboardInterrupt):
        measure(
            [made.right(), made.made(stopped)], Procedure("cpu", made.FakeClock(0.001), 3), measured, lambda case: None
        )
    assert [row["bits"] for row in measured.rows] == [SAME] and measured.rates["copy_gb_per_s"] > 0


def test_kept_bytes_count_each_storage_once():
    x = torch.ones(10, requires_grad=True)
    assert kept_bytes(lambda: x * x) == 40
    assert kept_bytes(lambda: (x * x[:5].sum()).exp()) == 40 + 4 + 40
    assert kept_bytes(lambda: x + x) == 0


def test_variants_of_a_gpu():
    on_gpu = [v.name for v in variants("cuda", products=True, graphs=True)]
    assert on_gpu == [
        *("stock", "stock float32", "stock TF32", "stock deterministic"),
        *("high", "medium", "high, CUDA graph", "medium, CUDA graph"),
    ]
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    for variant, precision in zip(variants("cuda", products=True)[1:3], ("ieee", "tf32"), strict=True):
        with variant.settings():
            assert matmul.fp32_precision == torch.backends.cudnn.conv.fp32_precision == precision
    assert matmul.fp32_precision == before


@pytest.mark.parametrize("variable", [None, "1", "0"])
def test_the_reference_runs_without_compiled_loops(monkeypatch, variable):
    monkeypatch.delenv(SWITCH, raising=False)
    if variable is not None:
        monkeypatch.setenv(SWITCH, variable)
    compiles.cache_clear()
    before = compiles()
    with without_compiled_loops():
        assert not compiles()
    assert compiles() is before and os.environ.get(SWITCH) == variable
    compiles.cache_clear()


def test_geometric_mean():
    assert geometric_mean([0.5, 2.0]) == 1.0 and geometric_mean([4.0, 1.0]) == 2.0


def test_a_gpus_clock_flushes_its_cache_before_and_reads_its_events(monkeypatch):
    done = []

    class Event:
        def __init__(self, enable_timing):
            self.place = None

        def record(self):
            self.place = len(done)
            done.append("event")

        def synchronize(self):
            done.append("wait")

        def elapsed_time(self, end):
            return 1000.0 * (end.place - self.place)

    flush = SimpleNamespace(zero_=lambda: done.append("flush"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: SimpleNamespace(L2_cache_size=100))
    monkeypatch.setattr(torch, "empty", lambda size, **_: done.append(size) or flush)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert clock_of("cuda").seconds(lambda: done.append("work")) == 2.0
    assert done == [400, "flush", "event", "work", "event", "wait"]


def test_peak_memory_is_what_a_call_adds(monkeypatch):
    state = {"now": 100, "peak": 700}
    stand_ins = {
        "synchronize": lambda: None,
        "memory_allocated": lambda: state["now"],
        "reset_peak_memory_stats": lambda: state.update(peak=state["now"]),
        "max_memory_allocated": lambda: state["peak"],
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    assert peak_bytes(lambda: state.update(peak=state["now"] + 42)) == 42


def test_rates_of_a_machine(monkeypatch):
    monkeypatch.setattr(rates, "_REPEATS", 3)
    assert rates.measure_rates("cpu", made.FakeClock(2.0**-10)) == {"copy_gb_per_s": 0.1342}
    assert (rates.int8_products("high"), rates.int8_products("medium")) == (9, 4)


def test_shares_are_of_int8_products_where_they_were_measured():
    dot = made.made(ops.relu, products=True, flops=9_000_000_000)
    on_gpu = {"copy_gb_per_s": 10.0, "int8_top_per_s": 90.0}
    found = runner._speed(dot, Variant("high", True, "high"), 0.001, 1000, on_gpu)
    assert found == {"gb_per_s": 0.001, "tflop_per_s": 9.0, "share_of_int8": 0.9}
    assert "share_of_int8" not in runner._speed(dot, Variant(STOCK), 0.001, 1000, on_gpu)
    assert runner._speed(dot, Variant("high", True), 0.001, None, RATES) == {"tflop_per_s": 9.0}
