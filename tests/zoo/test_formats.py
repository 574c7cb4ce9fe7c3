"""Networks of which none is released yet go through both formats as well."""

import pytest
import torch

from dettriton.models import create_model
from dettriton.models._plain import as_plain
from dettriton.zoo._formats import ONNX, TORCH_EXPORT, program_of
from dettriton.zoo._plain import TOLERANCE, largest_difference

SHAPES = {
    "ecg_baseline_tiny": (12, 256),
    "ecg_xresnet50_tiny": (12, 250),
    "med_resnet18": (3, 28, 28),
    "timm:mobilenetv3_small_100": (3, 64, 64),
    "timm:convnextv2_atto": (3, 64, 64),
    "timm:vit_tiny_patch16_224": (3, 224, 224),
}


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")
@pytest.mark.parametrize("name", SHAPES)
def test_validate_both_formats(name):
    torch.manual_seed(0)
    model = create_model(name).eval()
    inputs = torch.randn(3, *SHAPES[name])
    with torch.no_grad():
        exact = model(inputs)
    program = program_of(as_plain(model), inputs)
    for kind in (ONNX, TORCH_EXPORT):
        run = kind.read(kind.write(program, "x", {}))
        with torch.no_grad():
            for n in (1, 3):
                assert 0 < largest_difference(run(inputs[:n]), exact[:n]) <= TOLERANCE["high"]
