"""Rehearsals name what a GPU would launch, and the warm-up compiles it beside the reading of the data, or does nothing."""

import logging
import threading
from unittest import mock

import pretended_gpu
import pytest
import tiny_training as tiny
import torch
from pretended_gpu import PretendedGPU, backward

from dettriton import data, nn, ops, zoo
from dettriton import train as training
from dettriton._rehearsal import META, Gpu, current_rehearsal, rehearsal
from dettriton._warm_up import WarmUp
from dettriton.engine import engine_for
from dettriton.errors import EngineError, InputError
from dettriton.ops import _plans, _precompile
from dettriton.ops._launch import Launch
from dettriton.train import _rehearse, trainer
from dettriton.train._rehearse import launches_of

# torch lists its constructors when one is first given a device this way: here, before tests replace some of them
with torch.device("meta"):
    torch.empty(0)

SHARED = 227 << 10
GPU = Gpu(SHARED, 9)
RECIPE = "med_cnn.digits"


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as far as the warm-up asks; what it compiles is kept in the list."""
    warmed: list[Launch] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.no_grad())
    monkeypatch.setattr(_precompile, "require_compiler", lambda: None)
    monkeypatch.setattr(_precompile, "gpu_here", lambda: GPU)
    monkeypatch.setattr(_precompile, "warm", warmed.append)
    return warmed


def network() -> torch.nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(8 * 4 * 4, 5),
    )  # fmt: skip


def forward_and_backward(net: torch.nn.Module, images: torch.Tensor, back) -> None:
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    back(ops.cross_entropy(net(images), labels))


def test_a_rehearsal_names_what_a_gpu_would_launch(monkeypatch):
    """A pretended GPU is given the same network: same kernels, constants, types and alignments, in the same order."""
    monkeypatch.setattr(_plans, "_shared_limit", lambda device: SHARED)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    images, on_gpu = torch.zeros(4, 3, 8, 8), []

    def launched(kernel, grid, *args, num_warps=4, **constants):
        on_gpu.append(Launch.of(kernel, kernel._types_of(args), kernel.options(num_warps, constants)))

    with rehearsal(GPU) as rehearsed:
        forward_and_backward(network().to(META), images.to(META), torch.Tensor.backward)
    device = PretendedGPU()
    with mock.patch.object(pretended_gpu, "_launched", launched), device.watched():
        net = network()
        for module in net.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        tensors[name] = device.tensor(tensor, isinstance(tensor, torch.nn.Parameter))
        forward_and_backward(net, device.tensor(images), lambda loss: backward([loss]))
    assert len(rehearsed.launches) > 20
    assert {*map(repr, rehearsed.launches)} == {*map(repr, on_gpu)}


def test_a_rehearsal_changes_nothing():
    recipe = zoo.recipe(RECIPE)
    state = torch.get_rng_state()
    launches = launches_of(recipe, data.describe(recipe.data.name), GPU)
    assert torch.equal(torch.get_rng_state(), state) and current_rehearsal() is None
    assert len(launches) == len(set(launches)) > 20
    assert {"_conv_weight_grad_kernel", "_adam_kernel"} <= {launch.kernel for launch in launches}


@pytest.mark.heavy
def test_every_recipe_can_be_rehearsed():
    for name in zoo.list_recipes():
        recipe = zoo.recipe(name)
        assert launches_of(recipe, data.describe(recipe.data.name), GPU), name


def test_a_recipe_that_does_not_fit_its_data_is_refused():
    with pytest.raises(InputError):
        launches_of(zoo.recipe("ecg_resnet18_tiny.rhythm_sim"), data.describe("digits"), GPU)


def test_tensors_without_values_are_for_rehearsals_alone():
    x = torch.zeros(2, device=META)
    with pytest.raises(EngineError):
        engine_for(x)
    with rehearsal(GPU):
        assert engine_for(x) == "triton"
        other = []
        thread = threading.Thread(target=lambda: other.append(current_rehearsal()))
        thread.start()
        thread.join()
    assert other == [None]


def test_the_warm_up_compiles_what_a_rehearsal_names(gpu, monkeypatch):
    tiny.install(monkeypatch.setattr)
    with WarmUp(tiny.recipe(), "cuda:0"):
        pass
    assert len(gpu) > 10
    assert set(gpu) == set(launches_of(tiny.recipe(), tiny.INFO, GPU))


@pytest.mark.parametrize("device", ["cpu", "abacus", ""])
def test_nothing_is_warmed_up_without_a_gpu(gpu, monkeypatch, device):
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("started a thread"))
    with WarmUp(zoo.recipe(RECIPE), device):
        pass
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with WarmUp(zoo.recipe(RECIPE), "cuda"):
        pass
    assert gpu == []


@pytest.mark.parametrize("where", ["require_compiler", "warm"])
def test_an_error_in_the_background_is_for_the_debug_log_alone(gpu, monkeypatch, caplog, where):
    def broken(*_):
        raise OSError("the disk is full")

    tiny.install(monkeypatch.setattr)
    monkeypatch.setattr(_precompile, where, broken)
    with caplog.at_level(logging.DEBUG, "dettriton._warm_up"), WarmUp(tiny.recipe(), "cuda"):
        pass
    assert "the disk is full" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_an_interrupt_leaves_the_kernels_that_are_not_begun(gpu, monkeypatch):
    begun, interrupted = threading.Event(), threading.Event()
    launches = [Launch(f"kernel {i}", (), ()) for i in range(100)]

    def warm(launch):
        gpu.append(launch)
        begun.set()
        assert interrupted.wait(60)

    monkeypatch.setattr(_precompile, "warm", warm)
    monkeypatch.setattr(_rehearse, "launches_of", lambda *_: launches)
    warm_up = WarmUp(zoo.recipe(RECIPE), "cuda")
    stopped = warm_up._stopped.set
    monkeypatch.setattr(warm_up._stopped, "set", lambda: (stopped(), interrupted.set()))
    with pytest.raises(KeyboardInterrupt), warm_up:
        assert begun.wait(60)
        raise KeyboardInterrupt
    assert 0 < len(gpu) < 20 and not warm_up._thread.is_alive()


def test_verify_a_training_gives_the_same_bits_beside_a_warm_up(gpu, monkeypatch, tmp_path):
    tiny.install(monkeypatch.setattr)
    alone = training.train(tiny.recipe(), tmp_path / "alone", progress=False)
    assert gpu == []
    monkeypatch.setattr(trainer, "WarmUp", lambda recipe, *_: WarmUp(recipe, "cuda"))
    beside = training.train(tiny.recipe(), tmp_path / "beside", progress=False)
    assert len(gpu) > 10
    assert (beside.weights_digest, beside.trace_link) == (alone.weights_digest, alone.trace_link)


def test_plans_of_a_rehearsal_are_those_of_the_gpu_it_stands_for():
    for least, generation in ((64 << 10, 0), (SHARED, 9), (SHARED, 10)):
        with rehearsal(Gpu(least, generation)):
            assert (_plans.shared_limit(META), _plans.generation(META)) == (least, generation)
            found = _plans.choose(3, 4096, 4096, 4096, META)
            assert found.block_k == (64 if generation != 9 else 128)
    assert _plans.shared_limit(torch.device("cpu")) > SHARED
