"""Running both again: the recipe's own differences are found, and a machine's are laid at the right run's door."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_training as tiny
import torch

from dettriton import data, ops
from dettriton.compare import compare, open_side, rerun
from dettriton.errors import InputError
from dettriton.train import _run
from dettriton.train.checkpoint import load_checkpoint, save_checkpoint


def again(a, b, **options):
    return rerun(compare(open_side(a), open_side(b)), **options)


def test_verify_nothing_to_look_for(go):
    assert again(go("a"), go("b")) is None


def test_verify_other_learning_rate(go):
    found = again(go("a"), go("b", tiny.recipe(optimizer={"lr": 0.02})))
    assert (found.found.step, found.found.phase) == (0, "optimizer update")
    assert (found.begin, found.a, found.b, found.wrong) == (0, None, None, None)
    assert "learning rate" in found.verdict and "agrees with A and agrees with B" in found.verdict


@pytest.mark.parametrize(
    ("change", "step", "phase"),
    [
        ({"order": {"seed": 1}}, 0, "data order"),
        ({"init": {"seed": 4}}, None, "initial weights"),
        ({"augment": {"hflip": False}}, 0, "inputs"),
        ({"train": {"label_smoothing": 0.0}}, 0, "loss"),
        ({"train": {"batch_size": 13}}, 0, "data order"),
        ({"model": {"args": {"hidden": 6}}}, None, "initial weights"),
        ({"train": {"precision": "medium"}}, 0, "forward"),
    ],
)
def test_verify_other_settings(go, change, step, phase):
    found = again(go("a"), go("b", tiny.recipe(**change))).found
    assert (found.step, found.phase) == (step, phase)


def test_verify_one_ulp_of_a_machine(go, one_ulp):
    a = go("a")
    undo = one_ulp(5)
    b = go("b")
    undo()
    found = again(a, b)
    assert found.found is None and found.wrong == "b" and found.a is None
    assert found.b.step in (6, 7)
    assert "B is the run that is wrong" in found.verdict
    assert again(b, a).wrong == "a"


def test_verify_stock_linear_of_a_machine(go, monkeypatch):
    a = go("a", tensor_interval=1)
    ours = ops.linear
    monkeypatch.setattr(ops, "linear", lambda x, w, b=None, *, precision="high": torch.nn.functional.linear(x, w, b))
    b = go("b", tensor_interval=1)
    monkeypatch.setattr(ops, "linear", ours)
    found = again(a, b)
    assert found.found is None and found.wrong == "b" and found.b.step == 0


def test_verify_two_wrong_runs(go, one_ulp):
    runs = []
    for name, step in (("a", 1), ("b", 2)):
        undo = one_ulp(step)
        runs.append(go(name, tensor_interval=1))
        undo()
    found = again(*runs)
    assert found.wrong == "a" and found.a.step == 1
    assert found.end == 2, "the steps end where the records part, before B goes wrong too"


def test_verify_neither_run_is_confirmed(go, one_ulp):
    runs = []
    for name, parameter in (("a", "first.weight"), ("b", "head.weight")):
        undo = one_ulp(3, parameter)
        runs.append(go(name, tensor_interval=1))
        undo()
    found = again(*runs)
    assert found.found is None and found.wrong is None
    assert (found.a.what, found.b.what) == ("tensor first.weight", "tensor head.weight")
    assert "another one must decide" in found.verdict


def test_verify_it_begins_at_the_last_shared_checkpoint(go, one_ulp):
    a = go("a")
    undo = one_ulp(9)
    b = go("b")
    undo()
    found = again(a, b)
    assert found.begin == 8 and found.computed <= 4
    assert found.wrong == "b" and found.b.step >= 9


def test_verify_a_shared_checkpoint_that_does_not_fit_is_passed_over(go, one_ulp):
    a = go("a")
    undo = one_ulp(9)
    b = go("b")
    undo()
    for folder in (a, b):
        path = Path(folder) / "checkpoint-0000000008.safetensors"
        kept = load_checkpoint(path)
        path.unlink()
        optimizer = dict(kept.optimizer) | {"0.exp_avg": kept.optimizer["0.exp_avg"].double()}
        save_checkpoint(Path(folder), replace(kept, optimizer=optimizer))
    found = again(a, b)
    assert found.begin == 0
    assert (found.a.step, found.a.what) == (found.b.step, found.b.what) == (7, "optimizer state first.weight: exp_avg")


def test_verify_checkpoints_alone_tell_which_run_is_wrong(go, one_ulp):
    a = go("a", trace=False)
    undo = one_ulp(7)
    b = go("b", trace=False)
    undo()
    assert compare(open_side(a), open_side(b)).first_step == 7
    found = again(a, b)
    assert (found.end, found.wrong) == (8, "b")
    assert (found.b.step, found.b.what) == (7, "tensor first.weight")


def test_verify_the_state_of_the_optimizer_tells_which_run_is_wrong(go, monkeypatch):
    a = go("a")
    whole = _run.Run.step

    def step(self, number):
        loss = whole(self, number)
        if number == 11:
            self.optimizer.state[self.model.head.bias]["exp_avg"][1] += 1
        return loss

    monkeypatch.setattr(_run.Run, "step", step)
    b = go("b")
    monkeypatch.setattr(_run.Run, "step", whole)
    found = again(a, b)
    assert (found.wrong, found.b.step, found.b.what) == ("b", 11, "optimizer state head.bias: exp_avg")


def test_verify_settings_that_tell_only_after_some_steps(go):
    a = go("a")
    found = again(a, go("b", tiny.recipe(schedule={"name": "cosine", "min_lr": 0.0}, train={"epochs": 4})))
    assert found.found.phase == "optimizer update"
    assert found.found.step >= 4, "the warm-up of one epoch is the same"


def test_verify_a_machine_that_does_not_repeat_itself(go, one_ulp, monkeypatch):
    undo = one_ulp(5)
    a = go("a")
    undo()
    b = go("b")
    whole, runs = _run.Run.step, []

    def step(self, number):
        runs.extend([self] if self not in runs else [])
        loss = whole(self, number)
        if number == 2 and self is runs[0]:
            move_one_ulp(self.model.head.bias)
        return loss

    monkeypatch.setattr(_run.Run, "step", step)
    found = again(a, b)
    assert (found.found.step, found.found.name, found.wrong) == (2, "head.bias", None)
    assert "computed one recipe twice and got two results" in found.verdict


def move_one_ulp(parameter):
    with torch.no_grad():
        parameter.view(-1).view(torch.int32)[0] += 1


def test_verify_only_directories_can_be_run_again(go):
    a = go("a")
    with pytest.raises(InputError, match="directories of both runs"):
        again(f"{a}/trace.jsonl", a)


def test_verify_other_data_here_is_told(go, monkeypatch):
    a, b = go("a"), go("b", tiny.recipe(optimizer={"lr": 0.02}))
    changed = tiny.splits()
    changed["train"].images[:, 0, 0, 0] ^= 3
    monkeypatch.setattr(data, "load", lambda name, data_dir=None, download=False: changed)
    found = again(a, b)
    assert len(found.notes) == 2 and "other made data" in found.notes[0]
    assert found.a.step == found.b.step == 0


@pytest.fixture
def computed(monkeypatch):
    """The numbers of the steps that are computed, of both runs."""
    steps, whole = [], _run.Run.step
    monkeypatch.setattr(_run.Run, "step", lambda self, number: (whole(self, number), steps.append(number))[0])
    return steps


def test_verify_it_begins_at_the_newest_equal_segment(go, one_ulp, request):
    a = go("a", segments=2, tensor_interval=1)
    undo = one_ulp(6)
    b = go("b", segments=2, tensor_interval=1)
    undo()
    computed = request.getfixturevalue("computed")

    def require_begins(begin):
        computed.clear()
        found = again(a, b)
        assert (found.begin, found.end, found.wrong, found.b.step) == (begin, 7, "b", 6)
        assert sorted(computed) == sorted([*range(begin, 7)] * 2)

    require_begins(6)
    newest = Path(b, "segments/segment-0000000006.safetensors")
    newest.write_bytes(newest.read_bytes()[:-1])
    require_begins(4)
    Path(b, "segments").rename(Path(b, "hidden"))
    require_begins(0)


def test_verify_segments_of_other_recipes_are_compared_by_their_states(go):
    other = tiny.recipe(schedule={"name": "cosine", "min_lr": 0.0}, train={"epochs": 4})
    found = again(go("a", segments=3), go("b", other, segments=3))
    assert found.begin == 3, "the warm-up of one epoch of 4 steps is the same"
    assert found.found.phase == "optimizer update" and found.found.step >= 4
