import pytest
import torch
from bits import same_bits
from foreign_ops import EXACT, ForeignOps

from dettriton import ops, optim
from dettriton.errors import InputError
from dettriton.exact.philox import Stream
from dettriton.init import initialize
from dettriton.models import create_model
from dettriton.models.med.timm_backbone import make_exact

PARAMETERS = {"med_resnet18": 11_172_936, "med_resnet50": 23_516_744}
BLOCKS = {"med_resnet18": ("BasicBlock", (2, 2, 2, 2)), "med_resnet50": ("Bottleneck", (3, 4, 6, 3))}

THE_DEEP_ONE_HEAVY = ["med_resnet18", pytest.param("med_resnet50", marks=pytest.mark.heavy)]


def images(samples: int, side: int) -> torch.Tensor:
    return ops.randn(samples, 3, side, side, rng=Stream(1))


def timms_own(name: str) -> torch.nn.Module:
    """timm's network with the stem for small images, of stock layers."""
    from timm.models import resnet

    block, depths = BLOCKS[name]
    model = resnet.ResNet(getattr(resnet, block), depths, num_classes=8)
    model.conv1, model.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    return model


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    assert sum(p.numel() for p in create_model(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", THE_DEEP_ONE_HEAVY)
def test_four_stages_from_28_to_4(name):
    model = create_model(name, in_channels=1, num_classes=3).eval()
    sides = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        stage.register_forward_hook(lambda module, inputs, y: sides.append(y.shape[2]))
    with torch.no_grad():
        assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 3)
    assert sides == [28, 14, 7, 4]


@pytest.mark.parametrize("name", THE_DEEP_ONE_HEAVY)
def test_corroborate_timms_network_of_stock_layers(name):
    model, plain = create_model(name), timms_own(name)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        plain.train()(images(4, 8))
    model.load_state_dict(plain.state_dict())
    with torch.no_grad():
        expected, got = (network.eval()(images(2, 8)) for network in (plain, model))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_verify_fused_norms_change_no_bit():
    fused, unfused = create_model("med_resnet18"), make_exact(timms_own("med_resnet18"))
    unfused.load_state_dict(fused.state_dict())
    results = []
    for model in (fused, unfused):
        logits = model.train()(images(2, 8))
        logits.backward(torch.ones_like(logits))
        results.append([logits, *(p.grad for p in model.parameters()), *model.buffers()])
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_weight_is_marked(name):
    model = create_model(name)
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert [m for m in layers if getattr(m, "classifier_head", False)] == [model.fc]
    last = "conv2" if name == "med_resnet18" else "conv3"
    marked = {key for key, m in model.named_modules() if getattr(m, "last_in_residual", False)}
    assert marked == {f"layer{s + 1}.{b}.{last}" for s, depth in enumerate(BLOCKS[name][1]) for b in range(depth)}
    stages = {key: m.stage for key, m in model.named_modules() if m in layers}
    assert stages["conv1"] == 0 and stages["fc"] == 3 and stages["layer2.0.downsample.0"] == 1
    assert all(stage == int(key[5]) - 1 for key, stage in stages.items() if key.startswith("layer"))


@pytest.mark.parametrize("name", THE_DEEP_ONE_HEAVY)
def test_one_training_step_of_exact_operations(name):
    model = initialize(create_model(name), "mixed").train()
    before = model.conv1.weight.detach().clone()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    inputs, labels = images(2, 8), torch.tensor([3, 5])
    with ForeignOps() as foreign:
        ops.cross_entropy(model(inputs), labels).backward()
    optimizer.step()
    assert foreign.seen <= EXACT
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert not torch.equal(model.conv1.weight, before)


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_below_one_are_refused(name):
    with pytest.raises(InputError, match="in_channels and num_classes must be positive, got 3, 0"):
        create_model(name, num_classes=0)
