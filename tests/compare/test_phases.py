"""Each planted difference is named by step, phase and tensor."""

import pytest
import tiny_training as tiny
import torch

from dettriton.compare import first_phase
from dettriton.exact.philox import Stream
from dettriton.train import _run

TOTAL = 12


def bits(run):
    return run.model.state_dict()


def test_verify_watching_changes_no_bits(pair):
    watched, plain = pair()
    for step in range(TOTAL):
        watched.observe(step)
        plain.step(step)
    assert all(torch.equal(t, bits(plain)[name]) for name, t in bits(watched).items())


def test_verify_a_restored_step_gives_the_same_bits(pair):
    run, plain = pair()
    for step in range(5):
        before = run.snapshot()
        run.step(step)
        run.restore(before)
        assert run.step(step) == plain.step(step)
    assert all(torch.equal(t, bits(plain)[name]) for name, t in bits(run).items())


def test_verify_equal_runs_have_no_phase(pair):
    seen = []
    assert first_phase(*pair(), 0, TOTAL, lambda *step: seen.append(step)) is None
    assert [step for step, _, _ in seen] == list(range(TOTAL))
    assert all(a == b for _, a, b in seen)


def test_verify_swapped_samples(pair):
    a, b = pair()
    enter = b._enter

    def swapped(epoch):
        fresh = epoch != b._epoch
        enter(epoch)
        if fresh and epoch == 1:
            order = b._order.clone()
            order[10], order[17] = b._order[17], b._order[10]
            b._order = order

    b._enter = swapped
    found = first_phase(a, b, 0, TOTAL)
    assert (found.step, found.phase, found.differing, found.elements) == (5, "data order", 1, 8)
    first, second = a._order[10].item(), b._order[10].item()
    assert f"at place 2 of the batch, sample {first} in A, {second} in B" in str(found)


@pytest.mark.parametrize("what", ["inputs", "labels"])
def test_verify_other_data(pair, what):
    a, b = pair()
    chosen_first = a.observe(0).chosen[0]
    a, b = pair()
    changed = tiny.splits()["train"]
    if what == "inputs":
        changed.images[chosen_first, 0, 1, 1] ^= 64
    else:
        changed.labels[chosen_first] = (changed.labels[chosen_first] + 1) % tiny.CLASSES
    b._data = changed
    found = first_phase(a, b, 0, TOTAL)
    assert (found.step, found.phase, found.differing) == (0, what, 1)


def test_verify_stock_linear(pair):
    a, b = pair()
    ours = b.model.head
    stock = torch.nn.Linear(ours.in_features, ours.out_features)
    stock.weight, stock.bias = ours.weight, ours.bias
    b.model.head = stock
    found = first_phase(a, b, 0, TOTAL)
    assert (found.step, found.phase, found.name) == (0, "forward", "head")
    assert found.differing > 0 and found.max_ulp >= 1
    assert "inputs differ" not in found.detail


def test_verify_a_function_between_modules_is_not_blamed_on_the_next_module(pair):
    a, b = pair()
    inner = b.model.forward

    def forward(x):
        return inner(x * (1 + 2**-20))

    b.model.forward = forward
    found = first_phase(a, b, 0, TOTAL)
    assert (found.phase, found.name) == ("forward", "flatten")
    assert "its inputs differ already" in found.detail


def test_verify_dropout_of_another_seed(pair):
    found = first_phase(*pair(tiny.recipe(train={"seed": 6}, augment={"hflip": False})), 0, TOTAL)
    assert (found.step, found.phase) == (0, "inputs")
    found = first_phase(*[_with_other_dropout(run, i) for i, run in enumerate(pair())], 0, TOTAL)
    assert (found.step, found.phase, found.name) == (0, "forward", "drop")


def _with_other_dropout(run, stream):
    run.model.drop.next_numbers = lambda advance: Stream(9, stream, 0)
    return run


def test_verify_loss(pair):
    found = first_phase(*pair(tiny.recipe(train={"label_smoothing": 0.2})), 0, TOTAL)
    assert (found.step, found.phase, found.differing, found.elements) == (0, "loss", 1, 1)


def test_verify_a_loss_that_changes_nothing_else(pair, monkeypatch):
    a, b = pair()
    whole = _run.Run._loss
    monkeypatch.setattr(_run.Run, "_loss", lambda self, *args: whole(self, *args) + (1 if self is b else 0))
    found = first_phase(a, b, 0, TOTAL)
    assert (found.step, found.phase) == (0, "loss")


def test_verify_gradient(pair):
    a, b = pair()
    b.model.norm.weight.register_hook(lambda grad: grad * (1 + 2**-23))
    found = first_phase(a, b, 0, TOTAL)
    assert (found.step, found.phase, found.name) == (0, "gradient", "norm.weight")
    assert 1 <= found.max_ulp <= 2


def test_verify_first_gradient_is_the_one_computed_first(pair):
    a, b = pair()
    head = b.model.head
    for parameter in (b.model.first.weight, head.weight):
        parameter.register_hook(lambda grad: grad * 1.5)
    assert first_phase(a, b, 0, TOTAL).name == "head.weight"


def test_verify_buffers(pair):
    a, b = pair()
    b.model.norm.momentum = 0.2
    found = first_phase(a, b, 0, TOTAL)
    assert (found.step, found.phase, found.name) == (0, "buffers", "norm.running_mean")


def test_verify_learning_rate(pair):
    found = first_phase(*pair(tiny.recipe(optimizer={"lr": 0.02})), 0, TOTAL)
    assert (found.step, found.phase, found.name) == (0, "optimizer update", "first.bias")
    assert "learning rate is" in found.detail


def test_verify_optimizer_state(pair):
    a, b = pair()
    update = b.optimizer.step

    def step():
        update()
        if b.optimizer.state[b.model.head.bias]["step"] == 4:
            b.optimizer.state[b.model.head.bias]["exp_avg"][1] += 1

    b.optimizer.step = step
    found = first_phase(a, b, 0, TOTAL)
    assert (found.step, found.phase, found.name) == (3, "optimizer state", "head.bias: exp_avg")
    assert found.differing == 1


def test_verify_one_ulp_of_one_weight(pair):
    a, b = pair()
    update = b.optimizer.step

    def step():
        update()
        if b.optimizer.state[b.model.head.bias]["step"] == 7:
            with torch.no_grad():
                b.model.first.weight.view(-1).view(torch.int32)[3] += 1

    b.optimizer.step = step
    found = first_phase(a, b, 0, TOTAL)
    assert (found.step, found.phase, found.name) == (6, "optimizer update", "first.weight")
    assert (found.differing, found.elements, found.max_ulp) == (1, 128, 1)


def test_verify_initial_weights(pair):
    found = first_phase(*pair(tiny.recipe(init={"seed": 4})), 0, TOTAL)
    assert (found.step, found.phase) == (None, "initial weights")
    assert "before step 0" in str(found)


def test_verify_a_step_that_does_not_repeat(pair, monkeypatch):
    a, b = pair()
    whole, calls = _run.Run.step, []

    def step(self, number):
        loss = whole(self, number)
        calls.append(number)
        if calls.count(2) == 1 and number == 2 and self is a:
            with torch.no_grad():
                self.model.head.bias.neg_()
        return loss

    monkeypatch.setattr(_run.Run, "step", step)
    found = first_phase(a, b, 0, TOTAL)
    assert (found.step, found.phase) == (2, "not repeatable")
