"""Kept states whose digest is right and whose tensors are not those of the recipe's model and optimizer: all refused."""

import dataclasses
import shutil

import pytest
import tiny_training as tiny
import torch

from dettriton import data, nn
from dettriton.errors import InputError
from dettriton.train import _run, train
from dettriton.train._fit import MisfitError
from dettriton.train.checkpoint import checkpoint_paths, load_checkpoint, optimizer_state, save_checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that stopped after 5 of its 12 steps, an epoch having 4; nobody may change it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch.setattr)
        tiny.stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train(tiny.recipe(), folder, progress=False, checkpoint_steps=1)
    return folder


@pytest.fixture
def forge(trained, made_data, tmp_path):
    """Change the tensors of a copy of the run's newest checkpoint, then resume it."""

    def resume(change):
        folder = shutil.copytree(trained, tmp_path / "run")
        newest, older = checkpoint_paths(folder)
        older.unlink()
        whole = load_checkpoint(newest)
        groups = {name: dict(getattr(whole, name)) for name in ("model", "best", "optimizer", "optimizer_scalars")}
        change(groups)
        save_checkpoint(folder, dataclasses.replace(whole, **groups))
        return train(tiny.recipe(), folder, progress=False, resume=True)

    return resume


def pop(group, name):
    return lambda groups: groups[group].pop(name)


def put(group, name, of):
    """Put a function of the tensor there, or of None."""
    return lambda groups: groups[group].update({name: of(groups[group].get(name))})


def twice(tensor):
    return torch.cat([tensor, tensor])


def without_parameter(groups):
    for name in ("0.exp_avg", "0.exp_avg_sq"):
        groups["optimizer"].pop(name)
    groups["optimizer_scalars"].pop("0.step")


FORGED = {
    "a weight is missing": (pop("model", "head.bias"), "the model's head.bias is missing"),
    "a weight too many": (put("model", "more", lambda _: torch.ones(1)), "the model has no more"),
    "a long name": (put("model", "x\n" * 500, lambda _: torch.ones(1)), r"the model has no 'x\\nx"),
    "a weight of another shape": (put("model", "head.weight", torch.t), r"float32 of shape \[8, 3\] and has to be"),
    "a flat weight": (put("model", "head.weight", torch.flatten), r"shape \[24\] and has to be .* \[3, 8\]"),
    "a weight of doubles": (put("model", "head.weight", torch.Tensor.double), "head.weight is float64"),
    "a buffer of halves": (put("model", "norm.running_var", torch.Tensor.half), "norm.running_var is float16"),
    "a count of floats": (put("model", "norm.num_batches_tracked", torch.Tensor.float), "has to be int64 of shape"),
    "no weights": (lambda groups: groups["model"].clear(), "first.bias, first.weight, head.bias and .* more are"),
    "best without a weight": (pop("best", "head.bias"), "the best model's head.bias is missing"),
    "best of doubles": (put("best", "head.weight", torch.Tensor.double), "the best model's head.weight is float64"),
    "best without anything": (lambda groups: groups["best"].clear(), "the best model's"),
    "a moment of another shape": (put("optimizer", "0.exp_avg", twice), "the optimizer's 0.exp_avg is float32"),
    "a moment of one number": (put("optimizer", "1.exp_avg_sq", torch.sum), r"of shape \[\] and has to be"),
    "a moment of doubles": (put("optimizer", "0.exp_avg", torch.Tensor.double), "0.exp_avg is float64"),
    "a moment of integers": (put("optimizer", "0.exp_avg", torch.Tensor.int), "0.exp_avg is int32"),
    "a moment is missing": (pop("optimizer", "0.exp_avg"), "the optimizer's 0.exp_avg is missing"),
    "a count is missing": (pop("optimizer_scalars", "0.step"), "the optimizer's 0.step is missing"),
    "a parameter is missing": (without_parameter, "the optimizer has no state of first.weight"),
    "a third moment": (put("optimizer", "0.max_exp_avg_sq", lambda _: torch.ones(8, 16)), "has no 0.max_exp_avg_sq"),
    "a parameter too many": (put("optimizer", "99.exp_avg", lambda _: torch.ones(1)), "has no 99.exp_avg"),
    "a number twice": (put("optimizer", "00.exp_avg", lambda _: torch.ones(8, 16)), "has no 00.exp_avg"),
    "a count as a tensor": (put("optimizer", "0.step", lambda _: torch.tensor(5.0)), "has no 0.step"),
    "a moment as a count": (put("optimizer_scalars", "0.exp_avg", lambda _: 1), "has no 0.exp_avg"),
    "a count of steps to come": (put("optimizer_scalars", "0.step", lambda _: 6), "0.step is 6, no count of at most 5"),
    "a count of no steps": (put("optimizer_scalars", "0.step", lambda _: 0), "0.step is 0, no count"),
    "a broken count": (put("optimizer_scalars", "0.step", lambda _: 5.0), "0.step is 5.0, no count"),
    "no state": (lambda groups: [groups[g].clear() for g in ("optimizer", "optimizer_scalars")], "has no state of"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_verify_a_forged_checkpoint_is_refused_at_load(forge, kind, monkeypatch):
    monkeypatch.setattr(_run.Run, "step", lambda self, number: pytest.fail("a step was computed"))
    change, told = FORGED[kind]
    with pytest.raises(InputError, match=f"does not fit its recipe: .*{told}") as raised:
        forge(change)
    assert len(str(raised.value)) < 1000


def test_control_the_unchanged_checkpoint_goes_on(forge):
    assert forge(lambda groups: None).steps == 12


MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")


class Spare(tiny.Tiny):
    """A layer that no gradient reaches, and one that is frozen."""

    def __init__(self, hidden: int):
        super().__init__(hidden)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({"name": "adam"}, {"exp_avg", "exp_avg_sq", "step"}),
        ({"name": "adamw", "weight_decay": 0.1}, {"exp_avg", "exp_avg_sq", "step"}),
        ({"name": "sgd", "momentum": 0.9}, {"momentum_buffer"}),
        ({"name": "sgd"}, set()),
    ],
    ids=["adam", "adamw", "momentum", "sgd"],
)
def test_verify_every_optimizers_own_state_fits(made_data, monkeypatch, settings, keys):
    monkeypatch.setattr("dettriton.models.create_model", lambda name, **kwargs: Spare(**kwargs))
    recipe = tiny.parse_recipe({**tiny.TABLES, "optimizer": {"lr": 0.01, **settings}})
    run = _run.Run(recipe, data.load("made"), "cpu")
    run.require_state(run.state(), {}, {}, 0)
    for step in range(2):
        run.step(step)
    tensors, scalars = optimizer_state(run.optimizer)
    assert {name.partition(".")[2] for name in (*tensors, *scalars)} == keys
    assert {name.partition(".")[0] for name in tensors} == ({*"012345"} if keys else set())
    before = run.tensor_digests()
    run.require_state(run.state(), tensors, scalars, 2)
    assert run.tensor_digests() == before and run.model.training
    with pytest.raises(MisfitError, match=r"has no 8\.exp_avg, 8"):
        run.require_state(run.state(), tensors | {f"8.{key}": torch.ones(2, 2) for key in MOMENTS}, scalars, 2)
    if keys:
        with pytest.raises(MisfitError, match=r"the optimizer has no 0\."):
            run.require_state(run.state(), tensors, scalars, 0)
        rest, counts = ({n: v for n, v in group.items() if n[0] != "0"} for group in (tensors, scalars))
        with pytest.raises(MisfitError, match=r"no state of first\.weight$"):
            run.require_state(run.state(), rest, counts, 2)
