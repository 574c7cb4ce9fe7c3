import pytest
import torch
from bits import on_both_engines, same_bits

from dettriton import nn
from dettriton.errors import InputError

# module, the layer alone, its arguments, input
LAYERS = {
    "LinearAct": (nn.Linear, (7, 5), (2, 7)),
    "Conv1dAct": (nn.Conv1d, (2, 3, 4), (2, 2, 9)),
    "Conv2dAct": (nn.Conv2d, (2, 3, 3, 2, 1), (2, 2, 7, 6)),
    "Conv3dAct": (nn.Conv3d, (2, 3, 2), (1, 2, 3, 4, 3)),
}


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", LAYERS)
def test_verify_a_layer_and_its_activation(name):
    plain, arguments, shape = LAYERS[name]
    module, layer = getattr(nn, name)(*arguments, activation="silu", precision="medium"), plain(*arguments)
    layer.load_state_dict(module.state_dict())
    layer.precision = "medium"
    assert isinstance(module, plain) and "activation='silu'" in repr(module)
    expected = nn.SiLU()(layer(randn(*shape))).detach()
    assert all(same_bits(y.detach(), expected) for y in on_both_engines(module, randn(*shape)))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_verify_lopsided_padding():
    module = nn.Conv1dAct(2, 3, 4, padding="same", activation="gelu")
    layer = nn.Conv1d(2, 3, 4, padding="same")
    layer.load_state_dict(module.state_dict())
    assert same_bits(module(randn(1, 2, 9)), nn.GELU()(layer(randn(1, 2, 9))))


@pytest.mark.parametrize("name", ["BatchNormReLU1d", "BatchNormReLU2d", "BatchNormReLU3d"])
@pytest.mark.parametrize("training", [True, False])
def test_verify_batch_norm_with_residual_and_relu(name, training):
    shape = (4, 3, *[2] * int(name[-2]))
    fused, plain = getattr(nn, name)(3), getattr(nn, name.replace("ReLU", ""))(3)
    for module in (fused, plain):
        module.train(training)
        module.weight.data.copy_(torch.tensor([0.5, -1.0, 2.0]))
    for residual in (None, randn(*shape) * 0.3):
        y = plain(randn(*shape))
        expected = nn.ReLU()(y if residual is None else y + residual)
        assert same_bits(fused(randn(*shape), residual), expected)
    assert all(same_bits(a, b) for a, b in zip(fused.buffers(), plain.buffers(), strict=True))


def test_an_unknown_activation_is_refused():
    with pytest.raises(InputError, match="Conv2dAct: activation must be one of relu"):
        nn.Conv2dAct(2, 3, 3, activation="swish")
