"""Released models as ordinary torch models: their state dict, and their logits up to the stated tolerance."""

import os

import pytest
import torch

from dettriton import data, zoo
from dettriton.data.dataset import MULTI_LABEL
from dettriton.files import load_safetensors
from dettriton.zoo._golden import golden_input
from dettriton.zoo._manifest import golden_path
from dettriton.zoo._plain import TOLERANCE, largest_difference

ALWAYS = "med_cnn.digits"
MADE_ON_THE_SPOT = ("digits", "rhythm_sim")


def golden(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = golden_input(data.describe(zoo.recipe(name).data.name))[1]
    return inputs, load_safetensors(golden_path(name))[0]["logits"]


def require_golden_logits(name: str) -> None:
    plain, exact = zoo.load(name, plain=True), zoo.load(name)
    assert {type(module).__module__.split(".")[0] for module in plain.modules()} == {"torch"}
    assert not plain.training
    state, expected = plain.state_dict(), exact.state_dict()
    assert list(state) == list(expected) and all(torch.equal(state[key], expected[key]) for key in expected)
    inputs, logits = golden(name)
    with torch.no_grad():
        assert largest_difference(plain(inputs), logits) <= TOLERANCE[zoo.recipe(name).train.precision]
    exact.load_state_dict(state)


def test_validate_the_golden_logits():
    require_golden_logits(ALWAYS)


def test_the_measure_sees_one_logit():
    exact = torch.tensor([[0.5, 0.25], [4.0, -8.0]])
    other = exact.clone()
    other[0, 1] += 0.5
    assert largest_difference(other, exact) == 0.5 / 8 and largest_difference(exact, exact) == 0.0
    assert largest_difference(torch.full((1, 2), 0.25), torch.zeros(1, 2)) == 0.25
    assert not largest_difference(torch.full((1, 2), float("nan")), torch.zeros(1, 2)) <= 1.0


@pytest.mark.heavy
@pytest.mark.parametrize("name", zoo.names())
def test_validate_the_golden_logits_of_all(name):
    require_golden_logits(name)


def require_test_logits(name: str, data_dir: str | None) -> None:
    recipe = zoo.recipe(name)
    inputs = data.load(recipe.data.name, data_dir)["test"].inputs()
    plain, exact = zoo.load(name, plain=True), zoo.load(name)
    with torch.no_grad():
        found, expected = (torch.cat([model(part) for part in inputs.split(100)]) for model in (plain, exact))
    assert largest_difference(found, expected) <= TOLERANCE[recipe.train.precision]
    to_probabilities = torch.sigmoid if data.describe(recipe.data.name).task == MULTI_LABEL else torch.nn.Softmax(1)
    assert (to_probabilities(found) - to_probabilities(expected)).abs().max() <= TOLERANCE[recipe.train.precision]


def _data_of(name: str) -> str:
    return zoo.recipe(name).data.name


@pytest.mark.heavy
@pytest.mark.parametrize("name", [name for name in zoo.names() if _data_of(name) in MADE_ON_THE_SPOT])
def test_validate_the_test_split(name):
    require_test_logits(name, None)


@pytest.mark.heavy
@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in zoo.names() if _data_of(name) not in MADE_ON_THE_SPOT])
def test_validate_the_test_split_of_official_data(name, data_dir):
    require_test_logits(name, os.fspath(data_dir))
