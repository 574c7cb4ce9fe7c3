import inspect
import re
from pathlib import Path

import pytest
import torch
from bits import same_bits
from module_cases import MODULES

import dettriton.nn as nn
from dettriton.errors import InputError
from dettriton.ops.batch_norm import batch_norm

MAP, SIGNAL, ROWS = (2, 3, 8, 9), (2, 3, 10), (4, 3)
FORWARDS = [
    ("Conv1d", (3, 4, 3), {"padding": 1, "dilation": 2, "bias": False}, SIGNAL),
    ("Conv1d", (3, 6, 4), {"padding": "same", "groups": 3}, SIGNAL),
    ("Conv1d", (3, 6, 5), {"padding": "valid", "stride": 2}, SIGNAL),
    ("Conv2d", (3, 4, 3), {"stride": 2, "padding": (1, 0)}, MAP),
    ("Conv2d", (3, 4, (3, 5)), {"padding": "same"}, MAP),
    ("Conv2d", (3, 4, (2, 3)), {"padding": "same", "dilation": (1, 2), "precision": "medium"}, MAP),
    ("Linear", (3, 5), {}, ROWS),
    ("Linear", (3, 5), {"bias": False, "precision": "medium"}, ROWS),
    ("BatchNorm1d", (3,), {}, ROWS),
    ("BatchNorm1d", (3,), {"affine": False, "momentum": None}, SIGNAL),
    ("BatchNorm2d", (3,), {"momentum": 0.3, "eps": 1e-2}, MAP),
    ("BatchNorm2d", (3,), {"track_running_stats": False}, MAP),
    ("ReLU", (), {}, ROWS),
    ("MaxPool1d", (3,), {"stride": 2, "padding": 1}, SIGNAL),
    ("MaxPool2d", (2,), {"ceil_mode": True, "dilation": 2}, MAP),
    ("AvgPool1d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}, SIGNAL),
    ("AvgPool2d", (2,), {"ceil_mode": True, "divisor_override": 3}, MAP),
    ("AdaptiveAvgPool1d", (4,), {}, SIGNAL),
    ("AdaptiveAvgPool2d", ((1, 4),), {}, MAP),
    ("Softmax", (1,), {}, ROWS),
    ("LogSoftmax", (), {"dim": -1}, ROWS),
    ("Dropout", (0.0,), {}, ROWS),
]
LOSSES = [
    ("CrossEntropyLoss", {}, "classes"),
    ("CrossEntropyLoss", {"label_smoothing": 0.1, "ignore_index": 2, "reduction": "sum"}, "classes"),
    ("CrossEntropyLoss", {"weight": torch.tensor([0.5, 1.0, 2.0])}, "classes"),
    ("BCEWithLogitsLoss", {}, "labels"),
    ("BCEWithLogitsLoss", {"pos_weight": torch.tensor([0.5, 1.0, 2.0]), "reduction": "none"}, "labels"),
    ("BCEWithLogitsLoss", {"weight": torch.tensor([0.5, 1.0, 2.0])}, "labels"),
]
TARGETS = {"classes": torch.tensor([0, 2, 1, 1]), "labels": torch.tensor([[0.0, 1.0, 1.0]] * 4)}
OURS_ALONE = ("precision", "seed", "stream")
CLASSES = sorted({name for name, *_ in [*FORWARDS, *LOSSES]})


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def twins(name, args, options):
    """Our module and torch's with the same weights."""
    ours = getattr(nn, name)(*args, **options)
    stock = getattr(torch.nn, name)(*args, **{k: v for k, v in options.items() if k not in OURS_ALONE})
    ours.load_state_dict(stock.state_dict())
    return ours, stock


def tolerances(name, options):
    """Dot products are rounded on a grid of the largest operand, everything else to the result's own precision."""
    if not name.startswith(("Conv", "Linear")):
        return {"rtol": 1e-5, "atol": 1e-5}
    return {"rtol": 0.0, "atol": 5e-2 if options.get("precision") == "medium" else 5e-4}


def test_every_module_is_tested():
    modules = {
        n for n in nn.__all__ if inspect.isclass(getattr(nn, n)) and getattr(nn, n) is not getattr(torch.nn, n, None)
    }
    others = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    elsewhere = {name for name, *_ in MODULES} | set(re.findall(r"\w+", " ".join(others)))
    assert modules - set(CLASSES) <= elsewhere


@pytest.mark.parametrize("name", CLASSES)
def test_signature_starts_with_torchs(name):
    ours, stock = (inspect.signature(getattr(m, name)).parameters for m in (nn, torch.nn))
    assert issubclass(getattr(nn, name), getattr(torch.nn, name))
    assert [n for n in ours if n not in OURS_ALONE] == list(stock)
    assert all(ours[n].default == p.default and ours[n].kind == p.kind for n, p in stock.items())
    assert all(p.kind == p.KEYWORD_ONLY for n, p in ours.items() if n in OURS_ALONE)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # stock torch about its own copy
@pytest.mark.parametrize("name, args, options, shape", FORWARDS, ids=str)
def test_corroborate_torch(name, args, options, shape):
    ours, stock = twins(name, args, options)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in stock.state_dict().items()}
    for mode in ("train", "eval"):
        for step in range(2 if mode == "train" else 1):
            inputs = [randn(*shape, seed=step).requires_grad_() for _ in range(2)]
            results = [getattr(m, mode)()(x) for m, x in zip((ours, stock), inputs, strict=True)]
            torch.testing.assert_close(*results, **tolerances(name, options))
            for result in results:
                result.backward(randn(*result.shape, seed=7))
            torch.testing.assert_close(*(x.grad for x in inputs), **tolerances(name, options))
    for p, q in zip(ours.parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, **tolerances(name, options))
    for key, value in stock.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)


@pytest.mark.parametrize("name, options, target", LOSSES, ids=str)
def test_corroborate_losses(name, options, target):
    ours, stock = twins(name, (), options)
    inputs = [randn(4, 3).requires_grad_() for _ in range(2)]
    losses = [m(x, TARGETS[target]) for m, x in zip((ours, stock), inputs, strict=True)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.sum().backward()
    torch.testing.assert_close(*(x.grad for x in inputs))


@pytest.mark.parametrize("name", ["MaxPool1d", "MaxPool2d"])
def test_corroborate_indices(name):
    ours, stock = twins(name, (2,), {"return_indices": True})
    x = randn(*(SIGNAL if name == "MaxPool1d" else MAP))
    assert all(torch.equal(a, b) for a, b in zip(ours(x), stock(x), strict=True))


def test_verify_cumulative_average_of_batches():
    module, mean, var = nn.BatchNorm1d(3, momentum=None), torch.zeros(3), torch.ones(3)
    for step in range(3):
        module(randn(*ROWS, seed=step))
        batch_norm(randn(*ROWS, seed=step), mean, var, training=True, momentum=1.0 / (step + 1))
    assert same_bits(module.running_mean, mean) and same_bits(module.running_var, var)
    assert module.num_batches_tracked == 3


def two_dropouts():
    return nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Identity(), nn.Dropout(0.5))).train()


def test_verify_dropout_follows_seed_stream_and_step():
    ones = torch.ones(64)
    model = two_dropouts()
    nn.set_random_state(model, seed=5, step=3)
    first, second = model[0], model[1][1]
    assert [(d.seed, d.stream, d.step) for d in (first, second)] == [(5, 0, 3), (5, 1, 3)]
    masks = [d(ones) for d in (first, second)]
    following = first(ones)
    assert not torch.equal(*masks) and not torch.equal(masks[0], following)
    assert (first.step, second.step) == (5, 4)
    nn.set_random_state(model, seed=5, step=3)
    assert all(same_bits(d(ones), mask) for d, mask in zip((first, second), masks, strict=True))
    assert same_bits(nn.Dropout(0.5, seed=5, stream=1).train()(ones), two_dropouts_at(5, 0)[1][1](ones))
    assert not same_bits(two_dropouts_at(6, 3)[0](ones), masks[0])


def two_dropouts_at(seed, step):
    model = two_dropouts()
    nn.set_random_state(model, seed, step)
    return model


def test_dropout_in_evaluation_is_the_identity_and_takes_no_step():
    model = nn.Dropout(0.5).eval()
    assert torch.equal(model(torch.ones(64)), torch.ones(64)) and model.step == 0
    assert not model.state_dict()


def test_bad_options_are_refused():
    for message, build in {
        "padding_mode 'reflect'": lambda: nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
        "precision 'low'": lambda: nn.Conv1d(1, 1, 3, precision="low"),
        "precision 'tf32'": lambda: nn.Linear(1, 1, precision="tf32"),
        r"Softmax\(dim=1\)": nn.Softmax,
        r"LogSoftmax\(dim=1\)": nn.LogSoftmax,
    }.items():
        with pytest.raises(InputError, match=message):
            build()
