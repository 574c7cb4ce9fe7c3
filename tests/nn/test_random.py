"""Modules that draw numbers: what they draw is a function of the run's seed and step."""

import pytest
import torch
from bits import same_bits

from dettriton import nn

MAP = torch.randn(2, 4, 7, 7, generator=torch.Generator().manual_seed(1))
ROWS = MAP[:, :, 0, :6]
DRAWING = {
    "Dropout": (lambda: nn.Dropout(0.5), lambda m: m(MAP)),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(6, 2, dropout=0.5), lambda m: m(ROWS, ROWS, ROWS)[1]),
    "FractionalMaxPool2d": (lambda: nn.FractionalMaxPool2d(2, 3), lambda m: m(MAP)),
    "FractionalMaxPool3d": (lambda: nn.FractionalMaxPool3d(2, 3), lambda m: m(MAP)),
}


@pytest.mark.parametrize("name", DRAWING)
def test_verify_a_resumed_run_draws_what_the_uninterrupted_one_drew(name):
    make, draw = DRAWING[name]
    torch.manual_seed(0)
    model = make().train()
    drawn = []
    for step in range(4):
        nn.set_random_state(model, seed=7, step=step)
        drawn.append(draw(model).detach())
    assert not same_bits(drawn[2], drawn[3])
    torch.manual_seed(0)
    resumed = make().train()
    draw(resumed)
    nn.set_random_state(resumed, seed=7, step=3)
    assert same_bits(draw(resumed).detach(), drawn[3]) and resumed.step == 4
    nn.set_random_state(resumed, seed=8, step=3)
    assert not same_bits(draw(resumed).detach(), drawn[3])


def test_each_module_has_a_stream_of_its_own():
    model = nn.Sequential(nn.Dropout(), nn.FractionalMaxPool2d(2, 3), nn.Sequential(nn.Dropout()))
    nn.set_random_state(model, seed=7, step=3)
    found = [(m.seed, m.stream, m.step) for m in (model[0], model[1], model[2][0])]
    assert found == [(7, 0, 3), (7, 1, 3), (7, 2, 3)]
