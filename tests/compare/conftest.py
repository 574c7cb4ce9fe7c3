"""Fixtures that train the tiny recipe, and plant differences in it."""

import pytest
import tiny_training as tiny
import torch

from dettriton.compare import ObservedRun
from dettriton.train import _run, train


@pytest.fixture
def go(monkeypatch, tmp_path):
    """Train the tiny recipe, or another, into a folder of ``tmp_path``; returns the folder."""
    tiny.install(monkeypatch.setattr)

    def run(out, recipe=None, **options):
        train(recipe or tiny.recipe(), tmp_path / out, progress=False, **options)
        return str(tmp_path / out)

    return run


@pytest.fixture
def pair(monkeypatch):
    """Two observed runs, of the tiny recipe and of the same or another one."""
    tiny.install(monkeypatch.setattr)
    return lambda recipe=None: tuple(ObservedRun(r or tiny.recipe(), tiny.splits(), "cpu") for r in (None, recipe))


@pytest.fixture
def one_ulp(monkeypatch):
    """Move one weight by one ulp after a step, until ``undo`` is called, in every run that is made."""

    def plant(step, parameter="first.weight"):
        whole = _run.Run.step

        def moved(self, number):
            loss = whole(self, number)
            if number == step:
                move_one_ulp(dict(self.model.named_parameters())[parameter])
            return loss

        monkeypatch.setattr(_run.Run, "step", moved)
        return lambda: monkeypatch.setattr(_run.Run, "step", whole)

    return plant


def move_one_ulp(parameter):
    with torch.no_grad():
        parameter.view(-1).view(torch.int32)[0] += 1
