from collections.abc import Callable

import pytest
import torch
from bits import same_bits
from foreign_ops import EXACT, ForeignOps
from plain_layers import as_plain

from dettriton import nn, ops, optim
from dettriton.digest import digest
from dettriton.engine import use_engine
from dettriton.errors import InputError
from dettriton.exact.philox import Stream
from dettriton.init import SCHEMES, initialize
from dettriton.models import create_model, list_models
from dettriton.models.ecg import baseline, conformer, inception, resnet, xresnet

PARAMETERS = {
    "ecg_baseline": 1_649_420,
    "ecg_baseline_tiny": 10_940,
    "ecg_conformer": 1_832_094,
    "ecg_conformer_tiny": 24_118,
    "ecg_inceptiontime": 476_428,
    "ecg_inceptiontime_tiny": 15_500,
    "ecg_resnet18": 4_909_708,
    "ecg_resnet18_tiny": 31_372,
    "ecg_xresnet50": 18_535_308,
    "ecg_xresnet50_tiny": 31_500,
}
NAMES = sorted(PARAMETERS)
TINY = [name for name in NAMES if name.endswith("_tiny")]
FULL = [name for name in NAMES if name not in TINY]
SLOW = ("ecg_conformer", "ecg_xresnet50")
DIGESTS = {
    "ecg_baseline_tiny": "6ffb451f309576f4",
    "ecg_conformer_tiny": "6903fe5208537264",
    "ecg_inceptiontime_tiny": "358fe4823b8f94e5",
    "ecg_resnet18_tiny": "4847a4c91e93e109",
    "ecg_xresnet50_tiny": "a4cd99145f130de3",
}
BLOCKS = {
    "baseline": lambda: baseline.PreActivationBlock(4, 6, 2, 0.0, 0),
    "conformer": lambda: conformer.ConformerBlock(4, 2, 2, 0.0, 0),
    "conformer's bottleneck": lambda: conformer.BottleneckBlock(4, 2, 0),
    "inceptiontime": lambda: inception.InceptionModule(4, 2, 2, (5, 3), 0),
    "resnet18": lambda: resnet.BasicBlock(4, 6, 2, 0),
    "xresnet50": lambda: xresnet.Bottleneck(4, 2, 2, 0),
}
CLASSES = 12


def strips(samples: int, length: int, stream: int = 0) -> torch.Tensor:
    return ops.randn(samples, 12, length, rng=Stream(1, stream))


def labels(samples: int) -> torch.Tensor:
    return ops.randint(0, 2, (samples, CLASSES), rng=Stream(2)).float()


def loss_and_gradients(model: torch.nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    nn.set_random_state(model, seed=3, step=4)
    model.zero_grad()
    logits = model.train()(inputs)
    ops.binary_cross_entropy_with_logits(logits, labels(len(inputs))).backward()
    return {"logits": logits.detach(), **{name: p.grad.clone() for name, p in model.named_parameters()}}


def test_every_network_is_tested():
    assert list_models("ecg_*") == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_parameter_count(name):
    assert sum(p.numel() for p in create_model(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["ecg_conformer", "ecg_baseline"])
def test_the_papers_networks_have_the_published_size(name):
    published = {"ecg_conformer": "1.83", "ecg_baseline": "1.65"}
    assert f"{PARAMETERS[name] / 1e6:.2f}" == published[name]


@pytest.mark.parametrize("name", TINY)
def test_output_shape(name):
    model = create_model(name, in_channels=3, num_classes=5).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 101)).shape == (1, 5)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_marked(name):
    model = create_model(name)
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Conv1d, torch.nn.Linear))]
    assert all(isinstance(layer.stage, int) for layer in layers)
    assert [m for m in layers if getattr(m, "classifier_head", False)] == [model.head]
    lasts = sum(getattr(m, "last_in_residual", False) for m in layers)
    expected = {"baseline": 10, "conformer": 30 + 3 * 4, "inceptiontime": 0, "resnet18": 8, "xresnet50": 16}
    if name in FULL:
        assert lasts == expected[name.removeprefix("ecg_")]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", TINY)
def test_every_initialisation(name, scheme):
    model = initialize(create_model(name), scheme, seed=1)
    with torch.no_grad():
        logits = model.eval()(strips(2, 64))
    assert torch.isfinite(logits).all() and logits.any()


def on_each_engine(model: torch.nn.Module, run: Callable) -> list[dict[str, torch.Tensor]]:
    state = {key: value.clone() for key, value in model.state_dict().items()}
    results = []
    for engine in ("torch", "triton"):
        model.load_state_dict(state)
        with use_engine(engine):
            results.append(run(model))
    return results


def differing(results: list[dict[str, torch.Tensor]]) -> list[str]:
    return [key for key, value in results[0].items() if not same_bits(value, results[1][key])]


@pytest.mark.parametrize(
    "name", [n if n in ("baseline", "inceptiontime") else pytest.param(n, marks=pytest.mark.heavy) for n in BLOCKS]
)
def test_verify_engines_agree_on_a_block(name):
    def run(block: torch.nn.Module) -> dict[str, torch.Tensor]:
        block.zero_grad()
        x = ops.randn(2, 4, 9, rng=Stream(1)).requires_grad_()
        y = block(x)
        y.backward(ops.randn(*y.shape, rng=Stream(2)))
        return {"y": y.detach(), "x": x.grad, **{key: p.grad.clone() for key, p in block.named_parameters()}}

    assert not differing(on_each_engine(initialize(BLOCKS[name](), "kaiming", seed=1), run))


@pytest.mark.heavy
@pytest.mark.parametrize("name", TINY)
def test_verify_engines_agree(name):
    model = initialize(create_model(name), "kaiming", seed=1)
    assert not differing(on_each_engine(model, lambda m: loss_and_gradients(m, strips(2, 64))))


@pytest.mark.parametrize("name", TINY)
def test_verify_forward_and_backward_are_the_recorded_bits_with_any_number_of_threads(name):
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            model = initialize(create_model(name), "mixed")
            assert digest(loss_and_gradients(model, strips(4, 250)))[:16] == DIGESTS[name]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", TINY)
def test_verify_nothing_but_exact_operations_runs_outside_the_ops(name):
    model = create_model(name).train()
    inputs = strips(2, 64)
    with ForeignOps() as foreign:
        y = model(inputs)
        y.backward(torch.ones_like(y))
    assert foreign.seen <= EXACT


@pytest.mark.parametrize("name", [*TINY, *(pytest.param(name, marks=pytest.mark.heavy) for name in FULL)])
def test_corroborate_the_same_network_of_stock_layers(name):
    model, plain = initialize(create_model(name), "kaiming", seed=1), as_plain(create_model(name))
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        plain.train()(strips(4, 128))
    model.load_state_dict(plain.state_dict())
    with torch.no_grad():
        expected, got = (network.eval()(strips(2, 128, 1)) for network in (plain, model))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", TINY)
def test_corroborate_gradients_of_stock_layers(name):
    model = initialize(create_model(name), "kaiming", seed=1)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    plain = as_plain(model)
    got, expected = (loss_and_gradients(network, strips(4, 128)) for network in (model, plain))
    errors = {key: float((got[key] - value).norm() / value.norm()) for key, value in expected.items()}
    # About 1e-5, but a rounding that turns the sign of one ReLU's input costs a few percent.
    assert max(errors.values()) < 5e-2, max(errors, key=errors.get)


@pytest.mark.parametrize("name", ["ecg_conformer_tiny"])
def test_verify_inference_of_one_strip_does_not_depend_on_the_batch(name):
    model = initialize(create_model(name), "dct").eval()
    assert torch.equal(model(strips(3, 64))[1:2], model(strips(3, 64)[1:2]))


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.heavy] if n in SLOW else []) for n in FULL])
def test_one_training_step(name):
    model = create_model(name)
    before = {key: value.clone() for key, value in model.named_parameters()}
    results = loss_and_gradients(model, strips(2, 64))
    optim.AdamW(model.parameters(), lr=1e-3).step()
    assert results["logits"].shape == (2, CLASSES)
    assert all(torch.isfinite(x).all() for x in results.values())
    assert not any(torch.equal(p, before[key]) for key, p in model.named_parameters() if results[key].any())


@pytest.mark.parametrize("name", NAMES)
def test_sizes_below_one_are_refused(name):
    with pytest.raises(InputError, match=r"sizes must be positive, got in_channels=12, num_classes=0"):
        create_model(name, num_classes=0)
