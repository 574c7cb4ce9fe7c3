"""What the benchmark measures, and how it is chosen."""

from collections import Counter

import pytest
import torch
from torch.nn import functional

from dettriton import data, models, zoo
from dettriton.benchmarks.case import FORWARD, INPUT_GRADIENT, SIZES, STEP, TRAINING, WEIGHT_GRADIENT
from dettriton.benchmarks.registry import cases, chosen, op_names, unreleased
from dettriton.benchmarks.steps import made_data
from dettriton.benchmarks.zoo_shapes import layers, sample_shape
from dettriton.errors import InputError

MEASURED = {
    *("matmul", "linear", "conv1d", "conv2d", "sum", "mean", "var", "softmax", "layer_norm", "batch_norm"),
    *("gelu", "relu", "scatter_add", "index_add", "embedding", "scaled_dot_product_attention", "adamw"),
    *("cross_entropy", "binary_cross_entropy_with_logits", "step"),
}


@pytest.fixture(scope="module")
def every():
    return {size: cases((size,)) for size in ("small", "zoo")}


def test_every_zoo_entry_has_a_training_step(every):
    for size in ("small", "zoo"):
        assert [c.entry for c in every[size] if c.what == STEP] == list(zoo.names())
    batches = {c.entry: c.batch for c in every["zoo"] if c.what == STEP}
    assert batches == {name: zoo.recipe(name).train.batch_size for name in zoo.names()}


def test_every_network_with_a_recipe_has_one():
    steps = {*zoo.names(), *unreleased()}
    assert {zoo.recipe(n).model.name for n in steps} == {zoo.recipe(n).model.name for n in zoo.list_recipes()}
    assert not {*unreleased()} & {*zoo.names()}


def test_every_op_is_measured_at_every_size(every):
    assert set(op_names()) == MEASURED == {c.op for c in every["zoo"]}


def test_names_are_unique(every):
    for of_size in every.values():
        assert max(Counter(c.name for c in of_size).values()) == 1
        assert all(c.size in SIZES for c in of_size)


@pytest.mark.heavy
def test_large_cases_are_of_every_network_and_of_256_megabytes():
    large = cases(("large",))
    assert max(Counter(c.name for c in large).values()) == 1
    assert [c.entry for c in large if c.what == STEP] == [*unreleased()]
    assert {c.shapes for c in large if c.op == "matmul"} == {f"{n}x{n} by {n}x{n}" for n in (4096, 8192)}
    assert {c.made["input"][0] * c.made["input"][1] * 4 for c in large if c.op in ("sum", "mean", "var")} == {1 << 28}


def test_every_layer_of_a_network_is_measured_forward_and_backward(every):
    model = models.create_model("ecg_conformer_tiny")
    kinds = (torch.nn.Conv1d, torch.nn.Linear)
    weights = {"x".join(map(str, m.weight.shape)) for m in model.modules() if isinstance(m, kinds)}
    for what in (FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT):
        found = [c for c in every["zoo"] if c.what == what and c.op in ("conv1d", "linear")]
        assert weights <= {c.shapes.split(" by ")[1].split(",")[0] for c in found}
        assert all(c.shapes.startswith("128x") for c in found)


def test_corroborate_operations_of_layers_and_attention(every):
    for layer in layers(("ecg_conformer_tiny.rhythm_sim", "med_cnn.bloodmnist")):
        x, w = torch.zeros(2, *layer.input), torch.zeros(layer.weight)
        keys = () if layer.op == "linear" else ("stride", "padding", "dilation", "groups")
        y = getattr(functional, layer.op)(x, w, **{key: getattr(layer, key) for key in keys})
        assert y.numel() * w[0].numel() == 2 * layer.multiplications
    attention = [c for c in every["small"] if c.op.endswith("attention") and c.shapes == "8x4x63x8"]
    passes = {c.what: c.flops / (2 * 8 * 4 * 63 * 63 * 8) for c in attention}
    assert passes == {FORWARD: 2, TRAINING: 7}


@pytest.mark.parametrize("name", sorted({zoo.recipe(n).data.name for n in zoo.list_recipes()}))
def test_made_data_has_the_form_of_the_real_data(name):
    info = data.describe(name)
    split = made_data(name, 4)
    assert tuple(split.inputs().shape) == (4, *sample_shape(name)) and torch.isfinite(split.inputs()).all()
    assert (split.num_classes, split.task) == (info.num_classes, info.task)


def test_choices():
    found = chosen(("small",), ("sum", "softmax"), ("rows", "softmax"))
    assert [c.name for c in found][:1] == ["sum 8x500x32, rows, forward"] and {c.op for c in found} == {
        "sum",
        "softmax",
    }
    assert [c.entry for c in chosen(("zoo",), entries=("med_cnn.digits",))] == ["med_cnn.digits"]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"ops": ("matmull",)}, "no op matmull to measure; choose of adamw, batch_norm"),
        ({"entries": ("med_cnn",)}, "no entry med_cnn to measure; choose of ecg_conformer_tiny.ptbxl488"),
        ({"only": ("nothing like it",)}, "no case of size small is left"),
    ],
)
def test_a_choice_of_nothing_says_what_there_is(choice, told):
    with pytest.raises(InputError, match=told):
        chosen(("small",), **choice)
