import json

import pytest
import tiny_training as tiny
import torch
import trace_overhead
from trace_overhead import BASE, CANNOT_RUN, CHEAP, DEAR, SETTINGS, STEP, Meter, main, measure, metering, overheads

from dettriton.train import _detail
from dettriton.train.trace import Trace


@pytest.fixture
def made_data(monkeypatch):
    tiny.install(monkeypatch.setattr)


@pytest.fixture
def clock(monkeypatch):
    """CPU time that only the test lets pass."""
    passed = [0.0]
    monkeypatch.setattr(trace_overhead.time, "process_time", lambda: passed[0])
    return lambda seconds: passed.__setitem__(0, passed[0] + seconds)


def short():
    return tiny.recipe(train={"epochs": 1}, schedule={"warmup_epochs": 0})


def test_calls_from_one_metered_function_to_another_count_once(clock):
    meter = Meter()
    inner = meter.metered(lambda: clock(2))

    @meter.metered
    def outer():
        clock(1)
        inner()
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            outer()
    clock(5)
    inner()
    assert meter.seconds == 2 * (1 + 2) + 2


def test_all_that_tracing_does_is_metered_and_put_back(made_data, clock):
    whole = (Trace.append, _detail.probe_outputs)
    with metering() as meter:
        assert (Trace.append, _detail.probe_outputs) != whole
        model = torch.nn.Linear(2, 2)
        model.register_forward_hook(lambda *_: clock(3))
        _detail.probe_outputs(model, torch.ones(1, 2), 0, 0)
    assert meter.seconds == 3
    assert (Trace.append, _detail.probe_outputs) == whole


def test_measuring_gives_every_setting_and_one_digest(made_data):
    measured = measure(short(), tiny.splits(), 1)
    assert measured["one_digest"] and measured["steps"] == 4
    assert measured["seconds"].keys() == measured["tracing_seconds"].keys() == measured["trace_bytes"].keys()
    assert [*measured["seconds"]] == [*SETTINGS]
    for name, (seconds,) in measured["seconds"].items():
        assert 0 < measured["tracing_seconds"][name][0] < seconds
    sizes = measured["trace_bytes"]
    assert sizes[BASE] == 0 < sizes[STEP] < sizes["every tensor, each step"] < sizes["gradients, 1 step in 1"]
    assert sizes["gradients, 1 step in 10"] < sizes["gradients, 1 step in 1"] < sizes["activations, 1 step in 1"]


def test_control_a_trace_that_moves_a_bit_is_found(made_data, monkeypatch):
    whole = _detail.probe_outputs

    def moving(model, *arguments):
        with torch.no_grad():
            model.head.bias.view(torch.int32)[0] += 1
        return whole(model, *arguments)

    monkeypatch.setattr(_detail, "probe_outputs", moving)
    monkeypatch.setattr(
        trace_overhead, "SETTINGS", {name: SETTINGS[name] for name in (BASE, "activations, 1 step in 1")}
    )
    assert not measure(short(), tiny.splits(), 1)["one_digest"]


def planted(step_seconds, one_digest=True):
    """Three rounds of 10 s without a trace, of which 1 s is the chain's; the step detail costs so much in all."""
    seconds = {name: [10.0, 10.0, 10.0] for name in SETTINGS}
    tracing = {name: [1.0, 1.0, 1.0] for name in SETTINGS}
    seconds[STEP] = [9.0 + step_seconds, 9.0 + step_seconds, 100.0]
    tracing[STEP] = [step_seconds, step_seconds, 50.0]
    sizes = {name: 800 for name in SETTINGS}
    return {
        "seconds": seconds,
        "tracing_seconds": tracing,
        "trace_bytes": sizes,
        "steps": 8,
        "one_digest": one_digest,
    }


def test_the_overhead_is_that_beyond_the_chain_by_medians():
    found, whole = overheads(planted(1.9))
    assert found[STEP] == pytest.approx(1.9 / 9 - 1 / 9)
    assert whole[STEP] == pytest.approx(0.09)
    assert {found[name] for name in SETTINGS if name != STEP} == {0}


@pytest.mark.parametrize(
    ("measured", "code"), [(planted(1.8), CHEAP), (planted(1.95), DEAR), (planted(1.0, one_digest=False), DEAR)]
)
def test_what_is_dear_or_has_two_digests_fails(made_data, monkeypatch, tmp_path, capsys, measured, code):
    asked = []
    monkeypatch.setattr(trace_overhead, "measure", lambda *arguments: asked.append(arguments) or measured)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    (tmp_path / "tiny.toml").write_text(tiny.recipe_text())
    out = tmp_path / "out.json"
    arguments = ["--recipe", str(tmp_path / "tiny.toml"), "--rounds", "3", "--epochs", "2", "--json", str(out)]
    assert main(arguments) == code
    ((recipe, _, rounds),) = asked
    assert (recipe.train.epochs, rounds) == (2, 3)
    printed = capsys.readouterr().out
    assert all(name in printed for name in SETTINGS) and "100" in printed
    written = json.loads(out.read_text())
    assert written["benchmark"] == "trace_overhead" and written["overhead"] == overheads(measured)[0]


def test_what_cannot_run_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    assert main(["--recipe", str(tmp_path / "none.toml")]) == CANNOT_RUN
    assert "trace_overhead: cannot read" in capsys.readouterr().err
