"""Plain models: every network has one, of torch's and timm's modules alone, with its state dict and its logits."""

import io
import subprocess
import sys

import pytest
import torch

from dettriton import nn, ops
from dettriton.errors import InputError
from dettriton.models import create_model, list_models
from dettriton.models._plain import ACTIVATIONS, LAYERS, NORM_AND_RELU, STOCK, WITH_ACTIVATION, as_plain
from dettriton.ops import _epilogue
from dettriton.zoo._plain import TOLERANCE, largest_difference

SMALL = [*list_models("*_tiny"), *list_models("med_cnn*")]
BACKBONES = {
    "resnet18": 64,
    "resnet50d": 64,
    "seresnet50": 64,
    "regnety_002": 64,
    "convnextv2_atto": 64,
    "tf_efficientnet_b0": 64,
    "efficientnet_b0": 64,
    "mnasnet_small": 64,
    "mobilenetv2_035": 64,
    "mobilenetv3_small_100": 64,
    "vit_tiny_patch16_224": 224,
    "deit_tiny_patch16_224": 224,
}


def made(name: str, seed: int = 0, **arguments) -> torch.nn.Module:
    """A model whose statistics are not those of a model that has seen nothing."""
    torch.manual_seed(seed)
    model = create_model(name, **arguments).eval()
    for norm in model.modules():
        if isinstance(getattr(norm, "running_var", None), torch.Tensor):
            torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
            torch.nn.init.normal_(norm.running_mean)
    return model


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))


def inputs_of(name: str) -> torch.Tensor:
    if name.startswith("ecg"):
        return noise(12, 256)
    return noise(1, 8, 8) if name == "med_cnn_8x8" else noise(3, 28, 28)


def packages(model: torch.nn.Module) -> set[str]:
    return {type(module).__module__.split(".")[0] for module in model.modules()}


def require_twin(model: torch.nn.Module, inputs: torch.Tensor) -> torch.nn.Module:
    before = [type(module) for module in model.modules()]
    plain = as_plain(model)
    assert packages(plain) <= {"torch", "timm"} and not plain.training
    assert not any(module.training for module in plain.modules())
    state, expected = plain.state_dict(), model.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in state)
    assert [type(module) for module in model.modules()] == before
    with torch.no_grad():
        assert largest_difference(plain(inputs), model(inputs)) <= TOLERANCE["high"]
    return plain


@pytest.mark.parametrize("name", SMALL)
def test_validate_small_networks(name):
    require_twin(made(name), inputs_of(name))


def test_validate_a_network_of_timm():
    plain = require_twin(made("med_resnet18"), noise(3, 8, 8))
    assert type(plain).__module__ == "timm.models.resnet"
    assert not any("dettriton" in type(value).__module__ for m in plain.modules() for value in vars(m).values())


@pytest.mark.heavy
@pytest.mark.parametrize("name", sorted({*list_models()} - {*SMALL}))
def test_validate_large_networks(name):
    require_twin(made(name), inputs_of(name))


@pytest.mark.heavy
@pytest.mark.parametrize("name", BACKBONES)
def test_validate_backbones_of_timm(name):
    side = BACKBONES[name]
    plain = require_twin(made(f"timm:{name}", num_classes=3), noise(3, side, side))
    assert type(plain).__module__.startswith("timm.models.")


def test_a_wrong_plain_model_is_seen():
    model, inputs = made("med_cnn_8x8"), inputs_of("med_cnn_8x8")
    plain = as_plain(model)
    plain.head.bias.data[0] += 1e-3
    with torch.no_grad():
        assert largest_difference(plain(inputs), model(inputs)) > TOLERANCE["high"]


def test_validate_the_tolerance_of_medium():
    model, inputs = made("ecg_conformer_tiny"), inputs_of("ecg_conformer_tiny")
    for module in model.modules():
        if hasattr(module, "precision"):
            module.precision = "medium"
    with torch.no_grad():
        assert TOLERANCE["high"] < largest_difference(as_plain(model)(inputs), model(inputs)) <= TOLERANCE["medium"]


def test_every_module_has_a_stock_class():
    same = {name for name in nn.__all__ if getattr(torch.nn, name, None) is getattr(nn, name)}
    for name in {*nn.__all__} - same - {"set_random_state"}:
        exact = getattr(nn, name)
        assert issubclass(exact, LAYERS[exact]) and LAYERS[exact].__module__.startswith("torch.nn.")
    assert all(exact.__name__ == stock.__name__ for exact, stock in STOCK.items())


def test_validate_every_activation_of_a_fused_layer():
    assert ACTIVATIONS.keys() == _epilogue.ACTIVATIONS.keys()
    x = noise(4)
    for name in ACTIVATIONS:
        model = nn.Sequential(nn.LinearAct(4, 5, activation=name)).eval()
        plain = require_twin(model, x)
        assert largest_difference(torch.nn.functional.linear(x, model[0].weight, model[0].bias), plain(x)) > 0.05


@pytest.mark.parametrize("fused", [*NORM_AND_RELU, *WITH_ACTIVATION], ids=lambda kind: kind.__name__)
def test_validate_every_fused_layer(fused):
    rank = int(fused.__name__.removesuffix("Act")[-2]) if fused is not nn.LinearAct else 0
    torch.manual_seed(2)
    layer = fused(4) if fused in NORM_AND_RELU else fused(4, 3, *([2] if rank else []))
    require_twin(nn.Sequential(layer).eval(), noise(4, *([5] * rank)))


class CallsAnOp(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ops.relu(x)


def test_a_model_that_calls_an_op_is_refused():
    with pytest.raises(InputError, match="CallsAnOp has no counterpart in torch"):
        as_plain(CallsAnOp())


def test_no_graph_holds_a_fork():
    code = as_plain(made("ecg_inceptiontime_tiny")).code
    assert "fork" not in code and "dettriton" not in code


def test_a_plain_model_can_be_trained():
    model = as_plain(made("med_cnn_8x8")).train()
    before = model.state_dict()["norm.running_mean"].clone()
    model(inputs_of("med_cnn_8x8")).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not torch.equal(before, model.state_dict()["norm.running_mean"])


def saved(model: torch.nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    return buffer.getvalue()


def test_a_saved_plain_model_names_nothing_of_dettriton():
    model = made("med_cnn_8x8")
    assert b"dettriton" in saved(model)
    content = saved(as_plain(model))
    assert b"dettriton" not in content
    again = torch.load(io.BytesIO(content), weights_only=False)
    x = inputs_of("med_cnn_8x8")
    with torch.no_grad():
        assert torch.equal(again(x), as_plain(model)(x))


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["ecg_inceptiontime_tiny", "med_resnet18"])
def test_a_saved_plain_model_loads_where_dettriton_is_not(name, tmp_path):
    plain, x = as_plain(made(name)), inputs_of(name)
    torch.save(plain, tmp_path / "plain.pt")
    torch.save(x, tmp_path / "x.pt")
    script = (
        "import sys; sys.modules['dettriton'] = None\n"
        "import torch\n"
        "x = torch.load('x.pt'); model = torch.load('plain.pt', weights_only=False)\n"
        "torch.save(model(x).detach(), 'y.pt')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    with torch.no_grad():
        assert largest_difference(torch.load(tmp_path / "y.pt"), plain(x)) <= 1e-6


@pytest.mark.heavy
@pytest.mark.parametrize("name", [*SMALL, "med_resnet18"])
def test_a_plain_model_compiles_and_exports_whole(name):
    plain, x = as_plain(made(name)), inputs_of(name)
    with torch.no_grad():
        expected = plain(x)
        compiled = torch.compile(plain, backend="aot_eager", fullgraph=True)(x)
        program = torch.export.export(plain, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
        again = program.module()(x)
    assert largest_difference(compiled, expected) <= 1e-6 and largest_difference(again, expected) <= 1e-6
    assert all("dettriton" not in str(node.target) for node in program.graph.nodes)
