import math

import oracle
import pytest
import torch
from bits import INF, NAN, hard_vectors, non_finite_vectors, on_both_engines, raw, same_bits, values_and_grads

from dettriton.engine import use_engine
from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.exact.philox import Stream
from dettriton.ops import _attention_kernels, attention, dropout, matmul, softmax
from dettriton.ops._broadcast import expand
from dettriton.ops._launch import KERNELS
from dettriton.ops.attention import scaled_dot_product_attention

KERNEL_NAMES = ("_attention_fwd_kernel", "_attention_query_grad_kernel", "_attention_key_grad_kernel")
RNG = Stream(3, 5, 2**33 + 1)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Small tiles are quicker under the interpreter, and short operands fill several."""
    monkeypatch.setattr(_attention_kernels, "BLOCK_L", 16)
    monkeypatch.setattr(_attention_kernels, "BLOCK_S", 32)
    for name in KERNEL_NAMES:
        monkeypatch.setattr(KERNELS[name], "overrides", {"BLOCK_L": 16, "BLOCK_S": 32})


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def operands(*shapes):
    return [gaussian(*shape, seed=i) for i, shape in enumerate(shapes)]


def bool_mask(*shape, keep=0.7, seed=9):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < keep


def composition(q, k, v, attn_mask=None, *, is_causal=False, dropout_p=0.0, scale=None, precision="high", rng=None):
    """The definition, from the public ops and torch's elementwise ones."""
    s = matmul(q, k.transpose(-1, -2), precision=precision)
    s = s * torch.tensor(1 / math.sqrt(q.shape[-1]) if scale is None else scale, dtype=torch.float32)
    excluded = torch.zeros(s.shape, dtype=torch.bool)
    if is_causal:
        excluded |= torch.ones(s.shape[-2:], dtype=torch.bool).triu(1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        excluded |= ~attn_mask
    elif attn_mask is not None:
        s = s + expand(attn_mask, s.shape)
    s = s.masked_fill(excluded, -INF)
    dead = (s == -INF).all(-1, keepdim=True)
    p = softmax(s.masked_fill(dead, 0.0), -1).masked_fill(dead | excluded, 0.0)
    return matmul(dropout(p, dropout_p, rng=rng), v, precision=precision)


PLAIN = ((5, 7), (9, 7), (9, 3))
DROPPING = {"dropout_p": 0.4, "rng": RNG}
NO_KEYS = bool_mask(5, 9)
NO_KEYS[3] = False
CASES = {
    "heads": (((1, 2, 5, 7), (1, 2, 9, 7), (1, 2, 9, 3)), {"scale": 0.3}),
    "one of each": (((1, 1), (1, 1), (1, 1)), {}),
    "wider than a tile": (((2, 130), (3, 130), (3, 140)), {}),
    "longer than a tile, causal": (((18, 5), (34, 5), (34, 4)), {"is_causal": True}),
    "more queries than keys, causal, dropout": (((9, 4), (5, 4), (5, 4)), {"is_causal": True, **DROPPING}),
    "drop nearly all": (((2, 3, 7), (2, 4, 7), (2, 4, 3)), {"dropout_p": 0.9, "rng": RNG, "precision": "medium"}),
    "drop all": (PLAIN, {"dropout_p": 1.0, "rng": RNG}),
    "bool mask of keys": (((2, 1, 1, 4), (2, 1, 6, 4), (2, 1, 6, 4)), {"attn_mask": bool_mask(2, 1, 1, 6)}),
    "bool mask without keys": (PLAIN, {"attn_mask": NO_KEYS}),
    "float mask with -inf": (PLAIN, {"attn_mask": torch.where(NO_KEYS, gaussian(9, seed=8), -INF)}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.heavy if n in ("wider than a tile", "drop all") else []) for n in CASES]
)
def test_verify_fused_attention_has_the_bits_of_its_parts(name):
    shapes, arguments = CASES[name]
    fused = on_both_engines(
        values_and_grads, lambda *x: scaled_dot_product_attention(*x, **arguments), *operands(*shapes)
    )
    with use_engine("torch"):
        parts = values_and_grads(lambda *x: composition(*x, **arguments), *operands(*shapes))
    for ours in fused:
        assert [same_bits(a, b) for a, b in zip(ours, parts, strict=True)] == [True] * 4


@pytest.mark.parametrize("name", [n for n in CASES if "drop" not in n])
def test_corroborate_torch(name):
    shapes, arguments = CASES[name]
    mask = arguments.get("attn_mask")
    wide = {**arguments, "attn_mask": mask.double() if mask is not None and mask.dtype.is_floating_point else mask}
    stock = torch.nn.functional.scaled_dot_product_attention
    ours = values_and_grads(lambda *x: scaled_dot_product_attention(*x, **arguments), *operands(*shapes))
    theirs = values_and_grads(lambda *x: stock(*(y.double() for y in x), **wide).float(), *operands(*shapes))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-5)


FINITE = torch.stack([*hard_vectors(7).values()])
NON_FINITE = torch.stack([*non_finite_vectors(7).values()])
HARD = {
    "finite queries": (0, FINITE, {}),
    "non-finite queries": (0, torch.cat((NON_FINITE, gaussian(2, 7))), {"is_causal": True}),
    "finite keys": (1, FINITE * 0.01, {}),
    "huge keys": (1, hard_vectors(14)["huge"].view(2, 7), {}),
    "non-finite keys": (1, NON_FINITE, {"attn_mask": torch.eye(4, 3, dtype=torch.bool)}),
    "finite values": (2, FINITE, {"attn_mask": FINITE[:, :4].t()}),
    "huge values": (2, hard_vectors(14)["huge"].view(2, 7), DROPPING),
    "non-finite values": (2, NON_FINITE.t().contiguous(), {"is_causal": True, **DROPPING}),
    "non-finite mask": (2, gaussian(7, 7), {"attn_mask": torch.cat((NON_FINITE, NON_FINITE[:1] * 0))}),
}


@pytest.mark.parametrize("name", HARD)
def test_verify_engines_agree_on_hard_inputs(name):
    which, hard, arguments = HARD[name]
    given = operands((4, 7), (len(hard) if which else 5, 7), (len(hard) if which else 5, 7))
    given[which] = hard
    reference, kernels = on_both_engines(
        values_and_grads, lambda *x: scaled_dot_product_attention(*x, **arguments), *given
    )
    assert [same_bits(a, b) for a, b in zip(reference, kernels, strict=True)] == [True] * 4


@pytest.mark.parametrize("upstream", [FINITE[:4], FINITE[4:8], torch.cat((NON_FINITE, FINITE[:1]))])
def test_verify_engines_agree_on_hard_upstreams(upstream):
    def gradients():
        q, k, v = (x.requires_grad_() for x in operands((4, 3), (5, 3), (5, 7)))
        return torch.autograd.grad(scaled_dot_product_attention(q, k, v, **DROPPING), (q, k, v), upstream)

    assert all(same_bits(a, b) for a, b in zip(*on_both_engines(gradients), strict=True))


@pytest.mark.parametrize("value", [NAN, INF, 3e38])
def test_verify_an_excluded_pair_spreads_nothing(value):
    q, k, v = operands((3, 4), (5, 4), (5, 2))
    k[4] = value
    mask = torch.tensor([True, True, True, True, False])
    without = scaled_dot_product_attention(q, k[:4], v[:4])
    grid_of_v = v[:4].abs().amax(0) >= v[4].abs()
    for o in on_both_engines(scaled_dot_product_attention, q, k, v, mask):
        assert grid_of_v.any() and same_bits(o[:, grid_of_v], without[:, grid_of_v])


@pytest.mark.parametrize("shape", [pytest.param((5, 9), marks=pytest.mark.heavy), (2, 1, 1, 9), (2, 3, 5, 1)])
def test_verify_gradient_of_a_float_mask(shape):
    given = [*operands((2, 3, 5, 7), (2, 3, 9, 7), (2, 3, 9, 3)), gaussian(*shape, seed=8)]
    parts = values_and_grads(lambda *x: composition(*x, **DROPPING), *given)
    for engine in ["torch", "triton"][: 1 + (len(shape) == 2)]:
        with use_engine(engine):
            ours = values_and_grads(lambda *x: scaled_dot_product_attention(*x, **DROPPING), *given)
        assert [same_bits(a, b) for a, b in zip(ours, parts, strict=True)] == [True] * 5


@pytest.mark.heavy
def test_verify_repeated_heads_and_broadcast_batches():
    q, k, v = operands((1, 4, 5, 7), (2, 6, 7), (2, 6, 3))
    fused = on_both_engines(values_and_grads, lambda *x: scaled_dot_product_attention(*x, enable_gqa=True), q, k, v)

    def repeated(q, k, v):
        k, v = (expand(x.unsqueeze(1), (2, 2, *x.shape[1:])).flatten(0, 1) for x in (k, v))
        return composition(q, k, v)

    parts = values_and_grads(repeated, q, k, v)
    stock = torch.nn.functional.scaled_dot_product_attention
    theirs = values_and_grads(lambda q, k, v: stock(q, k[None], v[None], enable_gqa=True), q, k, v)
    for ours in fused:
        assert same_bits(ours[0], parts[0]) and same_bits(ours[1], parts[1])
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_verify_transposed_heads_and_strided_masks():
    heads = [x.transpose(1, 2) for x in operands((1, 5, 2, 7), (1, 9, 2, 7), (1, 9, 2, 4))]
    mask = bool_mask(9, 5).t()
    whole = scaled_dot_product_attention(*(x.contiguous() for x in heads), mask.contiguous())
    for o in on_both_engines(scaled_dot_product_attention, *heads, mask):
        assert same_bits(o, whole)


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 1, 1, 4, 4)])
def test_verify_masks_of_any_rank(shape):
    q, k, v = operands(*[(2, 1, 2, 4, 4)] * 3)
    mask = bool_mask(*shape)
    results = on_both_engines(scaled_dot_product_attention, q, k, v, mask)
    assert all(same_bits(o, composition(q, k, v, mask)) for o in results)


@pytest.mark.parametrize(
    "arguments",
    [
        {"is_causal": True, **DROPPING},
        {"attn_mask": gaussian(17, 40, seed=8)},
    ],
)
@pytest.mark.heavy
def test_verify_tiles_do_not_matter(arguments, monkeypatch):
    given = operands((17, 34), (40, 34), (40, 33))

    def fused():
        with use_engine("triton"):
            return values_and_grads(lambda *x: scaled_dot_product_attention(*x, **arguments), *given)

    monkeypatch.setattr(_attention_kernels, "WIDEST", 32)
    pieces = fused()
    monkeypatch.undo()
    whole = fused()
    assert [same_bits(a, b) for a, b in zip(whole, pieces, strict=True)] == [True] * 4


def test_verify_the_number_of_heads_at_a_time_does_not_matter(monkeypatch):
    given, mask = operands((2, 3, 5, 7), (2, 3, 9, 7), (2, 3, 9, 3)), bool_mask(2, 1, 5, 9)
    attend = lambda *x: scaled_dot_product_attention(*x, mask, **DROPPING)  # noqa: E731 used twice, below
    whole = values_and_grads(attend, *given)
    monkeypatch.setattr(attention, "BLOCK_PAIRS", 100)
    assert all(same_bits(a, b) for a, b in zip(whole, values_and_grads(attend, *given), strict=True))


def test_verify_a_sample_does_not_depend_on_its_batch():
    given = operands((2, 1, 5, 7), (2, 1, 9, 7), (2, 1, 9, 3))
    for x in given:
        x[0] *= 1e18
    alone = scaled_dot_product_attention(*(x[1:] for x in given))
    for whole in on_both_engines(scaled_dot_product_attention, *given):
        assert same_bits(whole[1:], alone)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_validate_bits_against_integers(precision):
    q, k, v = operands((4, 6), (5, 6), (5, 3))
    dots = [[oracle.dot(a, b, a, b, precision) for b in k.tolist()] for a in q.tolist()]
    p = softmax(torch.tensor(dots) * 0.5, -1)
    mixed = [[oracle.dot(a, b, a, b, precision) for b in v.t().tolist()] for a in p.tolist()]
    for o in on_both_engines(scaled_dot_product_attention, q, k, v, scale=0.5, precision=precision):
        assert same_bits(o, torch.tensor(mixed))


def test_verify_one_pass_windows_are_those_of_the_largest_term():
    """The row sums of the gradient meet their largest term last, tile by tile, across all windows."""
    q, k, v = (
        gaussian(1, 4),
        gaussian(100, 4),
        gaussian(100, 1) * 2.0 ** torch.linspace(-70, 30, 100).floor().unsqueeze(1),
    )
    results = on_both_engines(values_and_grads, scaled_dot_product_attention, q, k, v)
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))


def test_a_float_softmax_would_be_caught():
    q, k, v = operands((40, 8), (50, 8), (50, 8))
    s = matmul(q, k.t()) * torch.tensor(1 / math.sqrt(8))
    assert same_bits(scaled_dot_product_attention(q, k, v), matmul(softmax(s, -1), v))
    assert not same_bits(scaled_dot_product_attention(q, k, v), matmul(torch.softmax(s, -1), v))
    assert not same_bits(scaled_dot_product_attention(q, k, v), softmax(s, -1) @ v)


def test_rows_without_keys_are_zero_and_rows_with_nan_are_canonical():
    q, k, v = operands((3, 4), (5, 4), (5, 2))
    q[1] = NAN
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[0] = False
    for o in on_both_engines(scaled_dot_product_attention, q, k, v, mask):
        assert raw(o)[:2].flatten().tolist() == [0, 0, CANONICAL_NAN_BITS, CANONICAL_NAN_BITS]
        assert o[2].isfinite().all()


@pytest.mark.parametrize(
    "shapes",
    [((0, 5, 7), (0, 9, 7), (0, 9, 3)), ((2, 0, 7), (2, 9, 7), (2, 9, 3)), ((2, 5, 7), (2, 0, 7), (2, 0, 3)),
     ((1, 5, 7), (1, 9, 7), (1, 9, 0))],
)  # fmt: skip
def test_verify_nothing_to_attend_is_zero(shapes):
    for results in on_both_engines(values_and_grads, scaled_dot_product_attention, *operands(*shapes)):
        assert results[0].shape == (*shapes[0][:2], shapes[2][2])
        assert all(not x.any() for x in results)


def test_verify_zero_width_is_a_plain_mean_of_values():
    """Without columns of q and k the kernel of dQ has nothing to store, but dV needs its statistics."""
    given = operands((1, 5, 0), (1, 9, 0), (1, 9, 3))
    reference, kernels = on_both_engines(
        values_and_grads, lambda *x: scaled_dot_product_attention(*x, scale=1.0), *given
    )
    assert [same_bits(a, b) for a, b in zip(reference, kernels, strict=True)] == [True] * 4
    torch.testing.assert_close(reference[0], given[2].mean(1, keepdim=True).expand(1, 5, 3))


def test_double_backward_names_the_op():
    q, k, v = (x.requires_grad_() for x in operands(*PLAIN))
    (grad,) = torch.autograd.grad(scaled_dot_product_attention(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(InputError, match="scaled_dot_product_attention has no second derivative"):
        grad.sum().backward()


X = torch.zeros(2, 4, 6)


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        ((X.double(), X, X), {}, r"query must be torch\.float32"),
        ((X, X, X), {"attn_mask": torch.zeros(4, 4, dtype=torch.int64)}, r"attn_mask must be torch\.float32"),
        ((X, X, X), {"attn_mask": torch.zeros(4, 5)}, "does not broadcast"),
        ((X, X, X), {"attn_mask": torch.zeros(3, 2, 4, 4)}, "does not broadcast"),
        ((X, X, X), {"attn_mask": torch.zeros(4, 4), "is_causal": True}, "exclude each other"),
        ((X, X, X), {"dropout_p": 0.5}, "rng must be"),
        ((X, X, X), {"scale": INF}, "finite"),
        ((X, X[..., :5], X), {}, r"needs query \(\.\.\., L, E\)"),
        ((X, X, X[:, :3]), {}, r"value \(\.\.\., S, V\)"),
        ((X, X[:1].expand(3, 4, 6), X[:1].expand(3, 4, 6)), {}, "do not broadcast"),
        ((X, X[:1].expand(3, 4, 6), X), {"enable_gqa": True}, "multiple of those of key"),
        ((X[..., :0], X[..., :0], X), {}, "E is 0"),
        ((X[0, 0], X, X), {}, "at least two dimensions"),
    ],
)
def test_bad_arguments_are_refused(given, arguments, message):
    with pytest.raises(InputError, match=f"scaled_dot_product_attention: .*{message}"):
        scaled_dot_product_attention(*given, **arguments)


def test_precision_and_length_are_checked():
    with pytest.raises(InputError, match="'high' or 'medium'"):
        scaled_dot_product_attention(X, X, X, precision="low")
    long = torch.zeros(1, 1).expand(2**22 + 1, 1)
    with pytest.raises(InputError, match=r"2\*\*22"):
        scaled_dot_product_attention(X[0, :, :1], long, long)
