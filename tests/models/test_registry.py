import pytest
import torch

from dettriton.errors import InputError
from dettriton.init import initialize
from dettriton.models import create_model, list_models

PARAMETERS = {"med_cnn": 77_720, "med_cnn_8x8": 77_562}
SIDES = {"med_cnn": 28, "med_cnn_8x8": 8}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_and_output_shape(name):
    model = initialize(create_model(name), "mixed")
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    channels, classes = model.stem.in_channels, model.head.out_features
    images = torch.randn(2, channels, SIDES[name], SIDES[name], generator=torch.Generator().manual_seed(0))
    assert model(images).shape == (2, classes)


def test_arguments_reach_the_model():
    model = create_model("med_cnn", in_channels=1, num_classes=2)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 2)


def test_verify_inference_of_one_image_does_not_depend_on_the_batch():
    model = initialize(create_model("med_cnn"), "dct").eval()
    images = torch.randn(5, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model(images)[2:3], model(images[2:3]))


def test_every_residual_branch_is_marked():
    marked = [m for m in create_model("med_cnn").modules() if getattr(m, "last_in_residual", False)]
    assert len(marked) == 3


def test_names_match_patterns():
    assert list_models("med_*8x8") == ["med_cnn_8x8"]


def test_unknown_names_and_arguments_are_refused():
    with pytest.raises(InputError, match=r"the models are: .*med_cnn, .*timm:NAME"):
        create_model("resnet")
    with pytest.raises(InputError, match="its arguments are: in_channels, num_classes"):
        create_model("med_cnn", classes=3)
