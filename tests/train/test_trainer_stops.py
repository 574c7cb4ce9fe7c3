"""How a training refuses, stops and is stopped."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import tiny_training as tiny
import torch
from bits import same_bits
from tiny_training import files

from dettriton.errors import EngineError, InputError, NonFiniteError
from dettriton.init import initialize
from dettriton.train import _run, trainer
from dettriton.train.checkpoint import checkpoint_paths


def test_verify_directory_with_a_run_is_not_overwritten(go, tmp_path):
    go()
    before = files(tmp_path / "run")
    with pytest.raises(InputError, match="--resume, or choose another directory"):
        go()
    assert files(tmp_path / "run") == before


def test_verify_changed_recipe_is_refused(go):
    go()
    with pytest.raises(InputError, match=r"\[optimizer\] lr was 0.01 and is 0.02"):
        go(tiny.recipe(optimizer={"lr": 0.02}), resume=True)


@pytest.mark.parametrize("options", [{"trace": False}, {"tensor_interval": 2}])
def test_verify_changed_tracing_is_refused(go, options):
    go()
    with pytest.raises(InputError, match="tensor_interval"):
        go(resume=True, **options)


def test_verify_changed_model_code_is_refused(go, monkeypatch):
    go()
    monkeypatch.setattr(_run, "initialize", lambda model, scheme, seed: initialize(model, "dct"))
    with pytest.raises(InputError, match="other initial weights"):
        go(resume=True)


def test_verify_lock_keeps_a_second_training_out(go, tmp_path, monkeypatch):
    messages = []
    whole = _run.Run.step

    def step(self, number):
        if number == 1:
            with pytest.raises(InputError) as raised:
                go(resume=True)
            messages.append(str(raised.value))
        return whole(self, number)

    monkeypatch.setattr(_run.Run, "step", step)
    go()
    assert len(messages) == 1
    assert "another training is using" in messages[0]


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_verify_overflow_stops_with_step_and_tensor(go, tmp_path, kind):
    recipe = tiny.parse_recipe(
        {**tiny.TABLES, "optimizer": {"name": kind, "lr": 1e38}, "schedule": {"name": "constant"}}
    )
    with pytest.raises(NonFiniteError, match=r"step \d+ of epoch \d+ .*(first|norm|head|drop|relu)") as raised:
        go(recipe)
    assert "Lower 'lr'" in str(raised.value)
    assert not (tmp_path / "run/weights.safetensors").exists()


def test_verify_non_finite_gradient_leaves_the_parameters(go, monkeypatch):
    seen = []
    original = _run.require_finite_gradients

    def poison(model, where):
        if where.startswith("step 2 "):
            seen.append((model, {n: p.detach().clone() for n, p in model.named_parameters()}))
            model.norm.weight.grad[3] = float("inf")
        original(model, where)

    monkeypatch.setattr(_run, "require_finite_gradients", poison)
    with pytest.raises(NonFiniteError, match=r"step 2 of epoch 0 .*: the gradient of norm.weight"):
        go()
    ((model, before),) = seen
    assert all(same_bits(p.detach(), before[n]) for n, p in model.named_parameters())


def test_verify_non_finite_state_is_named(go, monkeypatch):
    monkeypatch.setattr(trainer, "score", lambda model, dataset: pytest.fail("scored a broken model"))
    whole = _run.Run.step

    def step(self, number):
        loss = whole(self, number)
        if number == 3:
            self.model.norm.running_var[0] = float("nan")
        return loss

    monkeypatch.setattr(_run.Run, "step", step)
    with pytest.raises(NonFiniteError, match=r"step 3 of epoch 0 .*: buffer norm.running_var"):
        go()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": {"args": {"hiden": 3}}}, r"\[model\] args"),
        ({"train": {"loss": "binary_cross_entropy_with_logits", "label_smoothing": 0}}, 'set loss = "cross_entropy"'),
    ],
)
def test_verify_misfits_are_told_and_leave_nothing(go, tmp_path, changes, told):
    with pytest.raises(InputError, match=told):
        go(tiny.recipe(**changes))
    assert not (tmp_path / "run").exists()


def test_verify_wrong_number_of_classes_is_told(go):
    with pytest.raises(InputError, match="num_classes = 3"):
        go(tiny.recipe(model={"args": {"hidden": 8, "classes": 4}}))


def test_verify_devices_are_checked(go):
    with pytest.raises(InputError, match="no device 'abacus'"):
        go(device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="no GPU"):
            go(device="cuda")


def test_verify_flushed_subnormals_are_refused(go, tmp_path):
    assert torch.set_flush_denormal(True)
    try:
        with pytest.raises(EngineError, match="subnormal"):
            go()
    finally:
        torch.set_flush_denormal(False)
    assert not (tmp_path / "run").exists()


def test_verify_ctrl_c_stops_with_a_checkpoint(go, tmp_path, monkeypatch):
    go(out="whole")
    before = signal.getsignal(signal.SIGINT)
    whole = _run.Run.step

    def step(self, number):
        if number == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(self, number)

    monkeypatch.setattr(_run.Run, "step", step)
    with pytest.raises(KeyboardInterrupt):
        go()
    assert checkpoint_paths(tmp_path / "run")[0].name == "checkpoint-0000000006.safetensors"
    monkeypatch.setattr(_run.Run, "step", whole)
    go(resume=True)
    assert files(tmp_path / "whole") == files(tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before


def test_verify_training_works_outside_the_main_thread(go):
    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    assert go(resume=True).steps == 12


SELF_KILLING = """
import os, signal, sys
import dettriton.train._run as run
sys.path.insert(0, {folder!r})
import tiny_training as tiny
from dettriton.train.trainer import train
owner = run.Run if {what!r} == "step" else os
whole = getattr(owner, {what!r})
calls = 0
def counted(*args, **kwargs):
    global calls
    calls += 1
    if calls == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*args, **kwargs)
setattr(owner, {what!r}, counted)
tiny.install(setattr)
train(tiny.recipe(), {out!r}, progress=False, resume=True, checkpoint_steps=3, tensor_interval=2)
"""


def killed(out, what, count):
    script = SELF_KILLING.format(folder=os.path.dirname(tiny.__file__), what=what, count=count, out=str(out))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)


def require_killed_twice_is_uninterrupted(go, tmp_path, first, second):
    go(out="whole", tensor_interval=2)
    for what, count in (first, second):
        process = killed(tmp_path / "run", what, count)
        assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    go(resume=True, tensor_interval=2)
    assert files(tmp_path / "whole") == files(tmp_path / "run")
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.endswith(".partial")]


def test_verify_killed_twice_is_uninterrupted(go, tmp_path):
    require_killed_twice_is_uninterrupted(go, tmp_path, ("replace", 3), ("fsync", 6))


@pytest.mark.heavy
@pytest.mark.parametrize("second", [("step", 3), ("replace", 1), ("replace", 2), ("fsync", 2)], ids=str)
@pytest.mark.parametrize(
    "first", [("step", 1), ("step", 6), *(("fsync", n) for n in range(1, 9)), ("replace", 2)], ids=str
)
def test_verify_killed_anywhere_is_uninterrupted(go, tmp_path, first, second):
    require_killed_twice_is_uninterrupted(go, tmp_path, first, second)
