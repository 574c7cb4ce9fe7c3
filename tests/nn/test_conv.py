import pytest
import torch
from bits import on_both_engines, same_bits

from dettriton.errors import InputError
from dettriton.nn import conv as ours
from dettriton.ops.conv import conv3d
from dettriton.ops.conv_transpose import conv_transpose2d

MODULES = {
    "Conv3d": ((2, 4, (2, 3, 3)), {"stride": (1, 2, 2), "padding": 1, "groups": 2}, (1, 2, 3, 5, 5)),
    "Conv3d same": ((2, 3, (2, 3, 4)), {"padding": "same"}, (1, 2, 3, 4, 5)),
    "Conv3d valid": ((2, 3, 2), {"padding": "valid", "bias": False}, (1, 2, 3, 3, 3)),
    "ConvTranspose1d": ((3, 2, 4), {"stride": 2, "padding": 1}, (2, 3, 5)),
    "ConvTranspose2d": ((4, 2, 3), {"stride": 2, "output_padding": 1, "groups": 2, "bias": False}, (2, 4, 3, 4)),
    "ConvTranspose3d": ((2, 3, 2), {"stride": 2, "dilation": 2}, (1, 2, 2, 3, 2)),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_verify_engines_agree_and_corroborate_torch(name):
    sizes, arguments, shape = MODULES[name]
    kind = name.split()[0]
    module, stock = getattr(ours, kind)(*sizes, **arguments), getattr(torch.nn, kind)(*sizes, **arguments)
    stock.load_state_dict(module.state_dict())
    assert isinstance(module, getattr(torch.nn, kind)) and "precision='high'" in repr(module)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    y, kernels = on_both_engines(lambda: module(x).detach())
    assert same_bits(y, kernels)
    torch.testing.assert_close(y, stock(x).detach(), rtol=1e-4, atol=1e-4)


def test_verify_modules_are_the_functions():
    x = torch.randn(1, 2, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    deep = ours.Conv3d(2, 2, 2, padding=1, precision="medium")
    assert same_bits(deep(x), conv3d(x, deep.weight, deep.bias, padding=1, precision="medium"))
    up = ours.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
    map_ = x[:, :, 0]
    sized = conv_transpose2d(map_, up.weight, up.bias, 2, 1, (1, 0))
    assert same_bits(up(map_, output_size=[6, 5]), sized) and sized.shape == (1, 3, 6, 5)


@pytest.mark.parametrize("kind", ["Conv3d", "ConvTranspose1d", "ConvTranspose2d"])
def test_bad_arguments_are_refused(kind):
    with pytest.raises(InputError, match="unknown precision"):
        getattr(ours, kind)(2, 2, 2, precision="low")
    with pytest.raises(InputError, match="padding_mode"):
        getattr(ours, kind)(2, 2, 2, padding_mode="circular")
