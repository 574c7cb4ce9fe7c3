import subprocess
import sys

import pytest
import torch
from bits import on_both_engines, same_bits, values_and_grads
from foreign_ops import EXACT, ForeignOps

from dettriton import nn, ops
from dettriton.errors import InputError
from dettriton.exact.philox import Stream
from dettriton.init import initialize
from dettriton.models import create_model

VIT = {"img_size": 32, "depth": 2, "embed_dim": 16, "num_heads": 2}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (4, 8, 8, 8)}

FAMILIES = {
    "resnet18": {},
    "resnet34": {},
    "resnet50": {},
    "convnext_atto": {},
    "convnext_tiny": {},
    "efficientnet_b0": {},
    "vit_tiny_patch16_224": {"img_size": 32},
}
ALWAYS = ("resnet18", "convnext_atto", "efficientnet_b0", "vit_tiny_patch16_224")
DRAWING = {"drop_rate": 0.1, "drop_path_rate": 0.5}
SMALL = {
    "test_resnet": DRAWING,
    "resnet26d": {},
    "seresnet18": {},
    "regnety_002": DRAWING,
    "convnext_atto": CONVNEXT | DRAWING,
    "convnext_tiny": CONVNEXT,
    "convnextv2_atto": CONVNEXT,
    "test_efficientnet": DRAWING,
    "tf_efficientnet_lite0": {},
    "mobilenetv2_050": DRAWING,
    "mobilenetv3_small_050": {"drop_rate": 0.1},
    "mobilenetv4_conv_small": {},
    "vit_tiny_patch16_224": VIT | {"drop_path_rate": 0.5, "proj_drop_rate": 0.1, "attn_drop_rate": 0.1},
    "vit_small_patch16_224": VIT | {"init_values": 0.1, "qk_norm": True, "global_pool": "avg", "reg_tokens": 2},
    "vit_base_patch16_224": VIT | {"no_embed_class": True, "global_pool": "avgmax"},
}
LIGHT = ("test_resnet", "convnext_atto", "convnextv2_atto", "test_efficientnet", "vit_tiny_patch16_224")
SMALL_MOST_HEAVY = [pytest.param(name, marks=[] if name in LIGHT else [pytest.mark.heavy]) for name in SMALL]


def images(samples: int, side: int = 32) -> torch.Tensor:
    return ops.randn(samples, 3, side, side, rng=Stream(1))


def pair(name: str, **options) -> tuple[torch.nn.Module, torch.nn.Module]:
    """timm's model, and ours with its weights."""
    import timm

    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=5, **options)
    exact = create_model(f"timm:{name}", num_classes=5, **options)
    exact.load_state_dict(plain.state_dict())
    return plain, exact


def relative_error(got: torch.Tensor, expected: torch.Tensor, least: float = 0.0) -> float:
    return float((got - expected).norm()) / max(float(expected.norm()), least)


@pytest.mark.parametrize(
    "name",
    [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.heavy) for n in FAMILIES],
)
def test_corroborate_timms_logits(name):
    plain, exact = pair(name, **FAMILIES[name])
    plain.load_state_dict(exact.state_dict())
    with torch.no_grad():
        expected, got = (model.eval()(images(2)) for model in (plain, exact))
    assert relative_error(got, expected) < 1e-4


@pytest.mark.parametrize("name", SMALL_MOST_HEAVY)
def test_corroborate_timms_gradients(name):
    plain, exact = pair(name, **SMALL[name])
    results = []
    for model in (plain, exact):
        x = images(2).requires_grad_()
        model.eval()(x).square().sum().backward()
        results.append({"x": x.grad, **{key: p.grad for key, p in model.named_parameters()}})
    # A key's bias has no gradient but rounding: softmax takes it out again.
    least = 1e-5 * max(float(gradient.norm()) for gradient in results[0].values())
    errors = {key: relative_error(results[1][key], expected, least) for key, expected in results[0].items()}
    # About 2e-5, but a rounding that turns the sign of one ReLU's input costs a few percent.
    assert max(errors.values()) < 5e-2, max(errors, key=errors.get)


@pytest.mark.parametrize("name", SMALL_MOST_HEAVY)
def test_verify_nothing_but_exact_operations_runs_outside_the_ops(name):
    model = create_model(f"timm:{name}", num_classes=5, **SMALL[name]).train()
    inputs = images(2)
    with ForeignOps() as foreign:
        y = model(inputs)
        y.backward(torch.ones_like(y))
    assert foreign.seen <= EXACT


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["convnextv2_atto", "test_efficientnet", "vit_tiny_patch16_224"])
def test_verify_engines_agree(name):
    model = create_model(f"timm:{name}", num_classes=5, **SMALL[name]).eval()
    reference, kernels = on_both_engines(values_and_grads, model, images(1))
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))


@pytest.mark.parametrize("name", sorted({*LIGHT} - {"convnextv2_atto"}))
def test_verify_what_is_dropped_is_a_function_of_seed_and_step(name):
    model = create_model(f"timm:{name}", num_classes=5, **SMALL[name]).train()
    results = []
    for step in (3, 4, 3):
        nn.set_random_state(model, seed=1, step=step)
        with torch.no_grad():
            results.append(model(images(2)))
    assert same_bits(results[0], results[2]) and not same_bits(results[0], results[1])


@pytest.mark.parametrize("keep_scale", [True, False])
def test_drop_path_keeps_whole_samples(keep_scale):
    model = create_model("timm:convnext_atto", num_classes=5, **CONVNEXT, drop_path_rate=0.5)
    layer = model.stages[3].blocks[0].drop_path
    layer.scale_by_keep = keep_scale
    y = layer.train()(torch.ones(64, 2, 3, 3))
    assert set(y.flatten().tolist()) == {0.0, 2.0 if keep_scale else 1.0}
    assert all(len(set(sample.flatten().tolist())) == 1 for sample in y)
    assert torch.equal(layer.eval()(y), y)


@pytest.mark.parametrize("name", ["test_resnet", "resnet18", "mobilenetv2_050", "regnety_002"])
def test_every_initialisation_knows_the_layers(name):
    model = initialize(create_model(f"timm:{name}", num_classes=5), "mixed")
    assert model.get_classifier().classifier_head
    assert any(getattr(m, "last_in_residual", False) for m in model.modules())
    assert {m.stage for m in model.modules() if isinstance(m, torch.nn.Conv2d)} >= {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("densenet121", {}, r"timm\.models\.densenet\.DenseNet \(module ''\)"),
        ("resnet18", {"drop_block_rate": 0.1}, r"timm\.layers\.drop\.DropBlock2d \(module 'layer3\.0\.drop_block'\)"),
        ("ecaresnet26t", {}, r"timm\.layers\.eca\.EcaModule \(module 'layer1\.0\.se'\)"),
        ("vit_tiny_patch16_224", {"global_pool": "map"}, r"AttentionPoolLatent \(module 'attn_pool'\)"),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, "dynamic_img_size is not supported"),
        ("no_such_model", {}, "timm has no model 'no_such_model'"),
        ("resnet18", {"classes": 3}, "timm model 'resnet18': .*'classes'"),
    ],
)
def test_what_is_not_covered_is_refused(name, options, named):
    with pytest.raises(InputError, match=named):
        create_model(f"timm:{name}", **options)


def test_options_without_a_twin_are_refused():
    from dettriton.models.med.timm_backbone import make_exact

    class Backbone(torch.nn.Sequential):
        pass

    for layer in (torch.nn.Conv2d(1, 1, 3, padding_mode="reflect"), torch.nn.Softmax(), Backbone()):
        with pytest.raises(InputError, match="'1'"):
            make_exact(torch.nn.Sequential(torch.nn.ReLU(), layer))


def test_models_are_listed_without_timm():
    script = (
        "import sys, dettriton.models as m; m.list_models(); m.create_model('med_cnn'); print('timm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
