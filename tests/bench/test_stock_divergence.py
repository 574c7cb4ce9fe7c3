import copy
import json

import pytest
import stock_divergence
import tiny_training as tiny
import torch
from cpu_matrix import ENVIRONMENTS, MORE_ENVIRONMENTS, runs_here
from stock_divergence import StockRun, make_stock

from dettriton import nn
from dettriton.models import create_model
from dettriton.train._run import Run


@pytest.fixture
def made_data(monkeypatch):
    tiny.install(monkeypatch.setattr)


def test_the_stock_twin_is_made_of_torch_and_agrees():
    model = create_model("med_cnn_8x8").eval()
    twin = make_stock(copy.deepcopy(model))
    assert not [m for m in twin.modules() if type(m).__module__.startswith("dettriton.nn")]
    assert twin.state_dict().keys() == model.state_dict().keys() and isinstance(model.stem, nn.Conv2d)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(twin(x), model(x), rtol=1e-3, atol=1e-4)


def test_corroborate_a_stock_step_follows_ours(made_data):
    ours, stock = (kind(tiny.recipe(), tiny.splits(), "cpu") for kind in (Run, StockRun))
    assert ours.init_digest == stock.init_digest and type(stock.optimizer) is torch.optim.Adam
    stock.model.drop.p = ours.model.drop.p = 0.0
    for step in range(3):
        assert stock.step(step) == pytest.approx(ours.step(step), rel=1e-3)


def test_verify_our_training_is_the_trainers(made_data, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(tiny.recipe_text())
    found, again = (stock_divergence.train_here("dettriton", path, 2, None) for _ in range(2))
    assert found == again and len(found["losses"]) == 8 and set(found["test"]) == {"auc", "acc"}


def test_the_table_counts_different_weights(monkeypatch, tmp_path, capsys):
    def train_there(which, environment, options):
        limited = environment.name != "2 threads" and which == "stock"
        losses = ["00", "ff" if limited else "11"]
        weights = environment.name if limited else which
        return {"init": "i", "weights": weights, "losses": losses, "test": {"auc": 1.0, "acc": 0.5}}

    monkeypatch.setattr(stock_divergence, "train_there", train_there)
    out = tmp_path / "stock.json"
    assert stock_divergence.main(["--out", str(out), "--markdown"]) == 0
    count = len([*filter(runs_here, (*ENVIRONMENTS, *MORE_ENVIRONMENTS))])
    printed = capsys.readouterr().out
    assert f"different weights: stock torch {count}, dettriton 1" in printed
    assert "| 2 threads | stock | never | 0.5000 | dettriton |" in printed and "step 1" in printed
    assert json.loads(out.read_text())["distinct"]["stock"] == {"init": 1, "weights": count}


def test_several_results_of_ours_are_a_failure(monkeypatch, tmp_path):
    def train_there(which, environment, options):
        return {"init": "i", "weights": environment.name, "losses": [], "test": {"auc": 1.0, "acc": 0.5}}

    monkeypatch.setattr(stock_divergence, "train_there", train_there)
    assert stock_divergence.main(["--out", str(tmp_path / "s.json")]) == 1


def test_a_recipe_that_cannot_be_read_is_said_without_a_traceback(tmp_path, capsys):
    try:
        assert stock_divergence.main(["--worker", "stock", "--recipe", str(tmp_path / "none.toml")]) == 2
    finally:
        torch.use_deterministic_algorithms(False)
    assert "cannot read the recipe" in capsys.readouterr().err
