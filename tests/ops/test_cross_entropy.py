from fractions import Fraction
from itertools import product

import pytest
import torch
from bits import INF, NAN, hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops import _device_rows
from dettriton.ops.cross_entropy import Target, cross_entropy, cross_entropy_grad_triton, cross_entropy_triton
from dettriton.ops.softmax import log_softmax
from dettriton.ops.sum import exact_sum

REDUCTIONS = ("mean", "sum", "none")
CONFIGS = [
    {"kind": kind, "weighted": weighted, "smoothing": smoothing, "reduction": REDUCTIONS[i % 3]}
    for i, (kind, weighted, smoothing) in enumerate(product(("indices", "probabilities"), (False, True), (0.0, 0.1)))
]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: "-".join(map(str, c.values())))
each_path = pytest.mark.parametrize(("kind", "smoothing"), [("indices", 0.0), ("indices", 0.2), ("probabilities", 0.2)])
LOGITS = {**hard_vectors(), **non_finite_vectors(), "all -inf": torch.full((37,), -INF)}


def random(*shape, seed=0, scale=3.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def arguments(shape, kind, weighted, smoothing, reduction, ignored=True):
    """Logits, target and keywords of one configuration; some of the class indices are ignored."""
    g = torch.Generator().manual_seed(1)
    class_dim = 0 if len(shape) == 1 else 1
    options = {"reduction": reduction, "label_smoothing": smoothing}
    if weighted:
        options["weight"] = torch.rand(shape[class_dim], generator=g) + 0.25
    if kind == "probabilities":
        return random(*shape), torch.softmax(torch.randn(shape, generator=g), class_dim), options
    target = torch.randint(0, shape[class_dim], shape[:class_dim] + shape[class_dim + 1 :], generator=g)
    if ignored and target.numel() > 2:
        target.view(-1)[1::4] = -100
    return random(*shape), target, options


def results(x, target, options):
    return values_and_grads(lambda x: cross_entropy(x, target, **options), x)


def assert_engines_agree(x, target, options):
    (loss, grad), (kernel_loss, kernel_grad) = on_both_engines(results, x, target, options)
    assert same_bits(loss, kernel_loss)
    assert same_bits(grad, kernel_grad, any_nan=True)
    return loss, grad


def windowed_sum(terms):
    """Rule R2 for finite normal results, in Python integers and fractions."""
    largest = max(abs(Fraction(t)) for t in terms)
    if largest == 0:
        return Fraction(0)
    window = max(w for w in range(-6, 5) if Fraction(2) ** (32 * w) <= largest)
    grid = Fraction(2) ** (32 * (window - 1))
    total = sum(int(Fraction(t) / grid) for t in terms)
    drop = max(abs(total).bit_length() - 24, 0)
    return Fraction(round(Fraction(total, 1 << drop)) << drop) * grid


@each_config
@pytest.mark.parametrize("shape", [(5, 1), (7, 2), (70, 10), (2, 1000), (2, 5000)], ids=str)
def test_verify_engines_agree_on_any_number_of_classes(shape, config):
    assert_engines_agree(*arguments(shape, **config))


@each_config
@pytest.mark.parametrize("shape", [(6,), (3, 4, 5), (2, 3, 4, 2), (0, 3)], ids=str)
def test_verify_engines_agree_on_any_shape(shape, config):
    assert_engines_agree(*arguments(shape, **config))


@each_path
@pytest.mark.parametrize("name", LOGITS)
def test_verify_engines_agree_on_hard_logits(name, kind, smoothing):
    x = torch.stack((LOGITS[name], LOGITS[name].flip(0), LOGITS[name] * -1, random(37)))
    target, options = arguments(tuple(x.shape), kind, True, smoothing, "none", ignored=False)[1:]
    loss, grad = assert_engines_agree(x, target, options)
    assert bool(loss[3].isfinite()) and bool(grad[3].isfinite().all())


@pytest.mark.parametrize("weights", [*hard_vectors(10).values(), *non_finite_vectors(10).values()])
@each_path
def test_verify_engines_agree_on_hard_weights(weights, kind, smoothing):
    x, target, options = arguments((12, 10), kind, False, smoothing, "none")
    assert_engines_agree(x, target, {**options, "weight": weights})


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_verify_an_index_is_a_one_hot_probability(weighted, smoothing):
    x, target, options = arguments((40, 10), "indices", weighted, smoothing, "none", ignored=False)
    for index, one_hot in zip(
        on_both_engines(results, x, target, options),
        on_both_engines(results, x, torch.nn.functional.one_hot(target, 10).float(), options),
        strict=True,
    ):
        assert all(same_bits(a, b) for a, b in zip(index, one_hot, strict=True))


def test_validate_a_plain_loss_is_minus_the_log_softmax():
    x, target, options = arguments((40, 10), "indices", False, 0.0, "none", ignored=False)
    assert same_bits(cross_entropy(x, target, **options), -log_softmax(x, 1).gather(1, target[:, None])[:, 0])


@each_config
def test_validate_losses_by_the_written_order_and_exact_sums(config):
    x, target, options = arguments((9, 21), **{**config, "reduction": "none"})
    losses = cross_entropy(x, target, **options).tolist()
    smoothing = options["label_smoothing"]
    a, b = (torch.tensor(v, dtype=torch.float32) for v in (1 - smoothing, smoothing / 21))
    counted = torch.ones(9, dtype=torch.bool)
    q, row_weight = target, torch.ones(9)
    if config["kind"] == "indices":
        counted = target >= 0
        q = torch.nn.functional.one_hot(target.clamp(min=0), 21).float()
        row_weight = options.get("weight", torch.ones(21))[target.clamp(min=0)]
    t = (q * a + b) * options.get("weight", torch.ones(21))
    terms = (t * -log_softmax(x, 1)).tolist()
    for row, loss, count in zip(terms, losses, counted.tolist(), strict=True):
        assert Fraction(loss) == (windowed_sum(row) if count else 0)
    divisor = float(windowed_sum([w for w, c in zip(row_weight.tolist(), counted.tolist(), strict=True) if c]))
    mean = torch.tensor(float(windowed_sum(losses))) / torch.tensor(divisor)
    assert same_bits(cross_entropy(x, target, **{**options, "reduction": "mean"}), mean)


def test_verify_a_float_sum_would_be_caught():
    x, target, options = arguments((64, 500), "probabilities", False, 0.1, "none")
    t = target * torch.tensor(0.9) + torch.tensor(0.1 / 500)
    careless = (t * -log_softmax(x, 1)).sum(1)
    losses = cross_entropy(x, target, **options)
    assert not same_bits(losses, careless)
    assert not same_bits(careless, (t * -log_softmax(x, 1)).flip(1).cumsum(1)[:, -1])


@each_config
@pytest.mark.parametrize("shape", [(6,), (20, 10), (9, 1), (3, 4, 5), (2, 3, 4, 2)], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_corroborate_torch_in_float64(shape, config, reduction):
    x, target, options = arguments(shape, **{**config, "reduction": reduction})

    def stock(x):
        wide = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
        wide_target = target.double() if target.is_floating_point() else target
        return torch.nn.functional.cross_entropy(x.double(), wide_target, **wide)

    for ours, theirs in zip(results(x, target, options), values_and_grads(stock, x), strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-5, atol=1e-6)


@each_config
def test_verify_a_loss_does_not_depend_on_its_batch(config):
    x, target, options = arguments((8, 13), **{**config, "reduction": "none"})
    x[3, 4] = NAN
    for whole in on_both_engines(results, x, target, options):
        for i in range(len(x)):
            alone = cross_entropy(x[i : i + 1], target[i : i + 1], **options)
            assert same_bits(alone, whole[0][i : i + 1])
            assert same_bits(cross_entropy(x[i], target[i], **options), whole[0][i])


@each_config
def test_verify_tiles_do_not_matter(config, monkeypatch):
    x, target, options = arguments((3, 37), **config)
    whole = on_both_engines(results, x, target, options)[1]
    monkeypatch.setattr(_device_rows, "LONGEST_BLOCK", 16)
    monkeypatch.setattr(_device_rows, "TILE", 64)
    pieces = on_both_engines(results, x, target, options)[1]
    assert all(same_bits(a, b) for a, b in zip(whole, pieces, strict=True))


@each_config
def test_verify_non_contiguous_arguments(config):
    x, target, options = arguments((6, 4, 5), **config)
    strided = x.transpose(0, 2).contiguous().transpose(0, 2), target.flip(0).contiguous().flip(0)
    contiguous = results(x, target, options)
    for strided_results in on_both_engines(results, *strided, options):
        assert all(same_bits(a, b) for a, b in zip(contiguous, strided_results, strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_validate_ignored_samples_count_nothing(smoothing):
    x, target, options = arguments((6, 5), "indices", True, smoothing, "none", ignored=False)
    target[2] = 3
    x[2] = torch.tensor([NAN, INF, -INF, 0.0, 1.0])
    options["ignore_index"] = 3
    ignored = target == 3
    for loss, grad in on_both_engines(results, x, target, options):
        assert same_bits(loss[ignored], torch.zeros(int(ignored.sum())))
        assert same_bits(grad[ignored], torch.zeros(int(ignored.sum()), 5))
    options["reduction"] = "mean"
    for with_them, without in zip(
        on_both_engines(results, x, target, options),
        on_both_engines(results, x[~ignored], target[~ignored], options),
        strict=True,
    ):
        assert same_bits(with_them[0], without[0]) and same_bits(with_them[1][~ignored], without[1])


@pytest.mark.parametrize("shape", [(3, 4), (0, 4)])
def test_validate_the_mean_of_no_sample_is_the_canonical_nan(shape):
    for mean in on_both_engines(cross_entropy, random(*shape), torch.full(shape[:1], -100)):
        assert mean.view(torch.int32).item() == CANONICAL_NAN_BITS


@pytest.mark.parametrize("target", [torch.tensor([0, 1]), torch.eye(2, 3)], ids=["indices", "probabilities"])
def test_validate_classes_of_probability_zero(target):
    x = torch.tensor([[1.0, -INF, 0.0]] * 2)
    for loss, grad in on_both_engines(results, x, target, {"reduction": "none"}):
        assert same_bits(loss[0], -log_softmax(x, 1)[0, 0]) and loss.view(torch.int32)[1] == CANONICAL_NAN_BITS
        assert bool(grad.isfinite().all()) and grad[0, 1] == 0


@each_config
def test_verify_the_gradient_of_a_mean_divides_once(config):
    x, target, options = arguments((9, 5), **{**config, "reduction": "none"})
    x.requires_grad_()
    weights = options.get("weight", torch.ones(5))
    divisor = exact_sum(weights[target[target >= 0]]) if config["kind"] == "indices" else torch.tensor(9.0)
    upstream = torch.tensor(0.7)
    (mean,) = torch.autograd.grad(cross_entropy(x, target, **{**options, "reduction": "mean"}), x, upstream)
    (each,) = torch.autograd.grad(cross_entropy(x, target, **options), x, (upstream / divisor).expand(9))
    assert same_bits(mean, each)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("wrong", [-1, 5, 2**40])
def test_validate_kernels_answer_a_wrong_index_with_nan(wrong, smoothing):
    x = random(3, 5)
    a, b = (float(torch.tensor(v)) for v in (1 - smoothing, smoothing / 5))
    target = Target(torch.tensor([1, wrong, 2]), torch.ones(5), -100, a, b)
    rows = cross_entropy_triton(x, target)
    assert rows.loss.view(torch.int32)[1] == CANONICAL_NAN_BITS and bool(rows.row_weight[1].isnan())
    grad = cross_entropy_grad_triton(torch.ones(3), x, target, rows.top, rows.total, rows.target_sum)
    assert grad.isnan().all(1).tolist() == [False, True, False] and bool(rows.loss[[0, 2]].isfinite().all())


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_wrong_index_is_named(wrong):
    with pytest.raises(InputError, match=f"target {wrong} of sample 2 is not a class: classes are 0 to 4"):
        cross_entropy(random(4, 5), torch.tensor([0, -100, wrong, 1]))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(6,), (5, 4), (2, 3, 4)], ids=str)
def test_gradients_to_target_probabilities(shape, reduction, weighted):
    x, target, options = arguments(shape, "probabilities", weighted, 0.1, reduction)
    wide = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    ours, kernels = on_both_engines(values_and_grads, lambda x, y: cross_entropy(x, y, **options), x, target)
    assert all(same_bits(a, b) for a, b in zip(ours, kernels, strict=True))
    assert all(same_bits(a, b) for a, b in zip(ours[:2], results(x, target, options), strict=True))
    theirs = values_and_grads(lambda x, y: torch.nn.functional.cross_entropy(x, y, **wide), x.double(), target.double())
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


def test_double_backward_names_the_op():
    x = random(2, 3).requires_grad_()
    (grad,) = torch.autograd.grad(cross_entropy(x, torch.tensor([0, 1])).square(), x, create_graph=True)
    with pytest.raises(InputError, match="CrossEntropy has no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("x", "target", "options", "message"),
    [
        (torch.zeros(2, 3).double(), torch.zeros(2).long(), {}, r"input must be torch\.float32"),
        (torch.zeros(()), torch.zeros(()).long(), {}, r"input must be \(C,\)"),
        (torch.zeros(2, 0), torch.zeros(2).long(), {}, "with C >= 1"),
        (torch.zeros(2, 3), torch.zeros(2).int(), {}, r"class indices must be torch\.int64"),
        (
            torch.zeros(2, 3),
            torch.zeros(3).long(),
            {},
            r"of shape \(2,\) for this input, got torch\.int64 of shape \(3,\)",
        ),
        (torch.zeros(2, 3), torch.zeros(2), {}, r"class probabilities must have the input's shape"),
        (torch.zeros(2, 3), torch.zeros(2, 3).double(), {}, r"target must be torch\.float32"),
        (torch.zeros(2, 3), torch.zeros(2, 3), {"ignore_index": 0}, "no index to ignore"),
        (
            torch.zeros(2, 3),
            torch.zeros(2).long(),
            {"weight": torch.zeros(3).requires_grad_()},
            "no gradient with respect to weight",
        ),
        (torch.zeros(2, 3), torch.zeros(2).long(), {"weight": torch.zeros(2)}, "one factor per class"),
        (torch.zeros(2, 3), torch.zeros(2).long(), {"label_smoothing": 1.5}, "label_smoothing must lie"),
        (torch.zeros(2, 3), torch.zeros(2).long(), {"label_smoothing": NAN}, "label_smoothing must lie"),
        (torch.zeros(2, 3), torch.zeros(2).long(), {"reduction": "average"}, "reduction must be one of"),
        (torch.zeros(2, 3), torch.zeros(2).long(), {"size_average": True}, "deprecated"),
        (torch.zeros(2, 3), torch.zeros(2).long(), {"reduce": False}, "deprecated"),
    ],
)
def test_bad_arguments_are_refused(x, target, options, message):
    with pytest.raises(InputError, match=f"cross_entropy: .*{message}"):
        cross_entropy(x, target, **options)
