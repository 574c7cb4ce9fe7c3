"""What parted first is named from two detailed traces alone; no step runs again."""

import json
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from click.testing import CliRunner

from dettriton import data, models, nn, ops
from dettriton.cli import main
from dettriton.compare import compare, open_side, rerun
from dettriton.errors import IntegrityError
from dettriton.train import _run, train
from dettriton.train.trace import Difference, first_difference

FILE = "trace-detail.jsonl"
STOCK_CONV = torch.nn.functional.conv2d


@pytest.fixture(scope="module")
def a(tmp_path_factory):
    """The detailed trace of an undisturbed training."""
    folder = tmp_path_factory.mktemp("a")
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch.setattr)
        train(tiny.recipe(), folder / "run", progress=False, trace_detail="activations")
    return str(folder / "run" / FILE)


@pytest.fixture
def traced(go, tmp_path, monkeypatch):
    """Train with a detailed trace, or only some steps; returns the trace's path."""

    def run(out, recipe=None, steps=12, trace_detail="activations", **options):
        go_on = tiny.stop_after(monkeypatch, steps)
        try:
            go(out, recipe, trace_detail=trace_detail, **options)
        except KeyboardInterrupt:
            assert steps < 12
        go_on()
        return str(tmp_path / out / FILE)

    return run


def detail(a, b):
    return compare(open_side(str(a)), open_side(str(b))).trace.detail


def place(found):
    return found.step, found.phase, found.names[0] if found.names else None, found.since


def test_verify_equal_traces(traced, a):
    found = compare(open_side(a), open_side(traced("b", steps=5)))
    assert found.same and found.trace.detail is None and found.trace.last_equal_tensors == 4


def test_verify_one_ulp_of_one_gradient_element(traced, a, monkeypatch, tmp_path):
    whole = _run.require_finite_gradients

    def moved(model, where):
        if where.startswith("step 5 "):
            model.norm.weight.grad.view(torch.int32)[3] += 1
        whole(model, where)

    monkeypatch.setattr(_run, "require_finite_gradients", moved)
    found = detail(a, traced("b", steps=6))
    assert place(found) == (5, "gradient", "norm.weight", 5)
    assert found.names == ("norm.weight",) and "it begins here" in found.reason
    monkeypatch.setattr(_run, "require_finite_gradients", whole)
    told = rerun(compare(open_side(str(Path(a).parent)), open_side(str(tmp_path / "b"))))
    assert (told.wrong, told.b.step, told.b.what) == ("b", 5, "gradient norm.weight")


def test_verify_gradients_are_named_as_backward_goes(traced, monkeypatch):
    a = traced("a", steps=1, trace_detail="gradients")
    whole = _run.require_finite_gradients

    def moved(model, where):
        for parameter in (model.first.weight, model.head.weight):
            parameter.grad.mul_(1.5)
        whole(model, where)

    monkeypatch.setattr(_run, "require_finite_gradients", moved)
    found = detail(a, traced("b", steps=1, trace_detail="gradients"))
    assert place(found) == (0, "gradient", "head.weight", 0)
    assert str(found) == "step 0, gradient of head.weight; 1 other too"


@pytest.mark.parametrize("level", ["gradients", "activations"])
def test_verify_one_ulp_of_one_weight(traced, a, one_ulp, level):
    undo = one_ulp(5)
    b = traced("b", steps=6, trace_detail=level)
    undo()
    assert place(detail(a, b)) == (5, "optimizer update", "first.weight", 5)


DOUBLED = 1 << 23


@pytest.fixture
def other_optimizer(monkeypatch):
    """Change bits of what the optimizer keeps of head.bias after a step, until ``undo`` is called."""

    def plant(step, key, change=1):
        whole = _run.Run.step

        def changed(self, number):
            loss = whole(self, number)
            if number == step:
                state = self.optimizer.state[self.model.head.bias]
                if key == "step":
                    state["step"] += 1
                else:
                    state[key].view(torch.int32)[1] += change
            return loss

        monkeypatch.setattr(_run.Run, "step", changed)
        return lambda: monkeypatch.setattr(_run.Run, "step", whole)

    return plant


@pytest.mark.parametrize(("step", "key"), [(0, "exp_avg"), (5, "exp_avg_sq"), (6, "step"), (11, "exp_avg")])
def test_verify_the_optimizer_alone(traced, a, other_optimizer, step, key):
    undo = other_optimizer(step, key)
    b = traced("b", steps=step + 1)
    undo()
    found = compare(open_side(a), open_side(b))
    assert place(found.trace.detail) == (step, "optimizer state", f"head.bias: {key}", step)
    assert found.trace.detail.names == (f"head.bias: {key}",) and "it begins here" in found.trace.detail.reason
    assert found.trace.loss is None and found.trace.tensors is None
    assert found.first_step == step and not found.same
    assert first_difference(a, b) == Difference(step, f"head.bias: {key}")


def test_verify_an_ulp_of_the_optimizer_that_reaches_no_weight_is_seen(traced, a, other_optimizer, tmp_path):
    undo = other_optimizer(5, "exp_avg")
    traced("b")
    undo()
    coarse = [open_side(str(path / "trace.jsonl")) for path in (Path(a).parent, tmp_path / "b")]
    assert compare(*coarse).same, "its bits are lost in the rounding of the next updates"
    assert place(detail(a, tmp_path / "b" / FILE)) == (5, "optimizer state", "head.bias: exp_avg", 5)


def test_verify_the_optimizer_comes_before_what_it_leads_to(traced, a, other_optimizer, tmp_path):
    undo = other_optimizer(5, "exp_avg", DOUBLED)
    b = traced("b", trace_detail="gradients")
    undo()
    found = compare(open_side(str(Path(a).parent)), open_side(str(tmp_path / "b")))
    assert place(found.trace.detail) == (5, "optimizer state", "head.bias: exp_avg", 5)
    assert found.trace.loss.step > 5
    told = rerun(found)
    assert (told.wrong, told.b.step, told.b.what) == ("b", 5, "optimizer state head.bias: exp_avg")
    result = CliRunner().invoke(main, ["diff", a, b])
    assert result.exit_code == 1
    assert "first difference in detail: step 5, optimizer state of head.bias: exp_avg\n" in result.stdout


def test_verify_sparse_details_tell_when_the_optimizer_may_have_parted(traced, other_optimizer):
    a = traced("a", steps=4, trace_detail="gradients", trace_interval=8)
    undo = other_optimizer(3, "exp_avg")
    found = detail(a, traced("b", steps=4, trace_detail="gradients", trace_interval=8))
    undo()
    assert place(found) == (3, "optimizer state", "head.bias: exp_avg", 1), "the end of an epoch has it too"
    assert "it begins in steps 1 to 3" in found.reason


def test_verify_traces_of_before_the_optimizer_was_recorded_are_read(traced, a, other_optimizer, tmp_path):
    undo = other_optimizer(5, "exp_avg", DOUBLED)
    b = traced("b", steps=8)
    undo()
    old = []
    for path in (a, b):
        lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
        whole = "".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines)
        assert whole == Path(path).read_text()
        for line in lines:
            del line["optimizer"]
        old.append(tmp_path / f"old{len(old)}.jsonl")
        old[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert compare(open_side(a), open_side(str(old[0]))).same
    assert place(detail(*old)) == place(detail(a, old[1])) == (6, "optimizer update", "head.bias", 6)


class Conv(torch.nn.Module):
    """A convolution, pooled, and a linear layer."""

    def __init__(self, hidden: int):
        super().__init__()
        self.conv = nn.Conv2d(1, hidden, 3, padding=1)
        self.relu = nn.ReLU()
        self.flatten = nn.Flatten()
        self.head = nn.Linear(16 * hidden, tiny.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.flatten(self.relu(self.conv(x))))


def test_verify_stock_conv_in_place_of_ours(traced, monkeypatch):
    monkeypatch.setattr(models, "create_model", lambda name, **kwargs: Conv(**kwargs))
    small = tiny.recipe(model={"args": {"hidden": 2}})
    a = traced("a", small, steps=1)

    def stock(hidden):
        model = Conv(hidden)
        model.conv.forward = lambda x: STOCK_CONV(x, model.conv.weight, model.conv.bias, padding=1)
        return model

    monkeypatch.setattr(models, "create_model", lambda name, **kwargs: stock(**kwargs))
    found = detail(a, traced("b", small, steps=1))
    assert place(found) == (0, "forward", "conv", 0)
    assert found.names[-1] == "", "the model's own output differs too, and comes last"


def test_verify_a_layer_that_changes_in_the_middle_of_a_run(traced, a, monkeypatch):
    whole, linear, steps = _run.Run.step, ops.linear, []
    monkeypatch.setattr(_run.Run, "step", lambda self, number: (whole(self, number), steps.append(number))[0])

    def other(x, weight, bias=None, **options):
        wrong = 6 in steps and weight.shape[0] == tiny.CLASSES
        return linear(x * (1 + 2**-20) if wrong else x, weight, bias, **options)

    monkeypatch.setattr(ops, "linear", other)
    assert place(detail(a, traced("b", steps=8))) == (7, "forward", "head", 7)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"optimizer": {"lr": 0.02}}, (0, "optimizer update", "first.bias", 0)),
        ({"init": {"seed": 4}}, (None, "initial weights", "first.weight", None)),
        ({"order": {"seed": 1}}, (0, "data order", None, 0)),
        ({"augment": {"hflip": False}}, (0, "inputs", None, 0)),
        ({"train": {"label_smoothing": 0.2}}, (0, "loss", None, 0)),
        ({"train": {"precision": "medium"}}, (0, "forward", "first", 0)),
    ],
    ids=str,
)
def test_verify_other_settings(traced, a, change, expected):
    assert place(detail(a, traced("b", tiny.recipe(**change), 1))) == expected


def test_verify_one_sample_swapped(traced, a, monkeypatch):
    enter = _run.Run._enter

    def swapped(self, epoch):
        fresh = epoch != self._epoch
        enter(self, epoch)
        if fresh and epoch == 1:
            self._order = self._order.clone()
            self._order[[10, 17]] = self._order[[17, 10]]

    monkeypatch.setattr(_run.Run, "_enter", swapped)
    assert place(detail(a, traced("b", steps=6))) == (5, "data order", None, 5)


def test_verify_one_other_label(traced, a, monkeypatch):
    changed = tiny.splits()
    changed["train"].labels[7] = (changed["train"].labels[7] + 1) % tiny.CLASSES
    monkeypatch.setattr(data, "load", lambda name, data_dir=None, download=False: changed)
    step, phase, _, since = place(detail(a, traced("b", steps=4)))
    assert phase == "labels" and step == since < 4


def test_verify_buffers(traced, a, monkeypatch):

    def other(**kwargs):
        model = tiny.Tiny(**kwargs)
        model.norm.momentum = 0.2
        return model

    monkeypatch.setattr(models, "create_model", lambda name, **kwargs: other(**kwargs))
    assert place(detail(a, traced("b", steps=1))) == (0, "buffers", "norm.running_mean", 0)


def test_verify_sparse_details_tell_the_steps_between(traced, one_ulp):
    a = traced("a", steps=7, trace_interval=3)
    undo = one_ulp(4)
    b = traced("b", steps=7, trace_interval=3)
    undo()
    found = detail(a, b)
    assert place(found) == (6, "state", "first.weight", 4)
    assert "it begins in steps 4 to 6" in found.reason


def test_verify_coarse_traces_are_compared_as_before(traced, a):
    b = traced("b", tiny.recipe(optimizer={"lr": 0.02}), steps=5)
    coarse = [Path(close).with_name("trace.jsonl") for close in (a, b)]
    for pair in ((coarse[0], b), (a, coarse[1]), coarse):
        found = compare(*map(open_side, map(str, pair))).trace
        assert found.detail is None and (found.loss.step, found.tensors.step) == (1, 3)
    assert detail(a, b).step == 0


def test_verify_the_command_names_it(traced, a, one_ulp, tmp_path):
    undo = one_ulp(5)
    traced("b", steps=6)
    undo()
    for pair in ((Path(a).parent, tmp_path / "b"), (a, tmp_path / "b" / FILE)):
        result = CliRunner().invoke(main, ["diff", *map(str, pair)])
        assert result.exit_code == 1, result.output
        assert "first difference in detail: step 5, optimizer update of first.weight\n" in result.stdout
        assert "all tensors were equal before this step" in result.stdout
    found = json.loads(CliRunner().invoke(main, ["diff", a, str(tmp_path / "b" / FILE), "--json"]).stdout)
    assert (found["first_step"], found["trace"]["detail"]["names"]) == (5, ["first.weight"])


def test_verify_a_detailed_trace_that_was_cut_or_is_foreign(traced, a, tmp_path):
    other = Path(traced("b", tiny.recipe(optimizer={"lr": 0.02})))
    whole = other.read_bytes()
    other.write_bytes(whole[:-5])
    side = open_side(str(tmp_path / "b"))
    assert len(side.trace) == 12 and "gradients" in side.trace[10] and "gradients" not in side.trace[11]
    assert "cut within line 12" in side.notes[0]
    other.write_bytes(Path(a).read_bytes())
    with pytest.raises(IntegrityError, match=r"trace-detail\.jsonl"):
        open_side(str(tmp_path / "b"))
