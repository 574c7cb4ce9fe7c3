import pytest
import torch
from bits import on_both_engines, same_bits

from dettriton.errors import InputError
from dettriton.nn.attention import MultiheadAttention


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(module, seed=1):
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(gaussian(*p.shape, seed=seed + i) * 0.3)
    return module


def outcome(module, *inputs, **arguments):
    """Output, weights, and the gradients of inputs and parameters; inputs that are one tensor stay one."""
    module.zero_grad()
    leaves = {id(x): x.detach().clone().requires_grad_() for x in inputs}
    given = [leaves[id(x)] for x in inputs]
    out, weights = module(*given, **arguments)
    out.backward(gaussian(*out.shape, seed=7))
    grads = [x.grad for x in leaves.values()] + [p.grad for p in module.parameters()]
    return [out.detach(), *([] if weights is None else [weights.detach()]), *grads]


X, Y, Z = (gaussian(5, 2, 6, seed=i) for i in range(3))
PADDING = torch.tensor([[False, False, True, False, True], [False, False, False, True, False]])
LATER = torch.ones(5, 5, dtype=torch.bool).triu(1)
FLOAT = gaussian(4, 5, 5, seed=5)
CASES = {
    "self": ((X, X, X), {}, {}),
    "self, batch first": ((X, X, X), {"batch_first": True}, {}),
    "encoder and decoder": ((X, Y, Y), {}, {}),
    "three": ((X, Y, Z), {"bias": False}, {}),
    "widths": ((X, Y[..., :4], Z[..., :3]), {"kdim": 4, "vdim": 3}, {}),
    "unbatched": ((X[:, 0], Y[:, 0], Z[:, 0]), {}, {}),
    "padding": ((X, Y, Z), {}, {"key_padding_mask": PADDING}),
    "causal": ((X, Y, Z), {}, {"attn_mask": LATER, "is_causal": True}),
    "both masks": ((X, Y, Z), {}, {"attn_mask": LATER, "key_padding_mask": PADDING}),
    "float masks": ((X, Y, Z), {}, {"attn_mask": FLOAT, "key_padding_mask": gaussian(2, 5, seed=6)}),
    "more keys": ((X, Y, Z), {"add_bias_kv": True, "add_zero_attn": True}, {"attn_mask": LATER}),
}


@pytest.mark.parametrize("name", CASES)
def test_corroborate_torch_and_weights_do_not_move_a_bit(name):
    inputs, made, arguments = CASES[name]
    if made.get("batch_first"):
        inputs = [inputs[0].transpose(0, 1)] * 3
    ours = filled(MultiheadAttention(6, 2, **made))
    stock = filled(torch.nn.MultiheadAttention(6, 2, **made))
    plain, *grads = outcome(ours, *inputs, **arguments, need_weights=False)
    out, weights, *same_grads = outcome(ours, *inputs, **arguments)
    assert same_bits(out, plain)
    assert [same_bits(a, b) for a, b in zip(grads, same_grads, strict=True)] == [True] * len(grads)
    theirs = outcome(stock, *inputs, **arguments)
    for a, b in zip([out, weights, *grads], theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    (_, each), (_, stock_each) = (m(*inputs, **arguments, average_attn_weights=False) for m in (ours, stock))
    torch.testing.assert_close(each, stock_each, rtol=1e-4, atol=1e-5)


def test_verify_engines_agree_with_dropout():
    def run():
        module = filled(MultiheadAttention(6, 2, dropout=0.3, batch_first=True, seed=3, stream=4))
        return outcome(module, X[:1], X[:1], X[:1], need_weights=False)

    reference, kernels = on_both_engines(run)
    assert [same_bits(a, b) for a, b in zip(reference, kernels, strict=True)] == [True] * len(reference)


def test_verify_each_step_drops_anew_and_evaluation_drops_nothing():
    module = filled(MultiheadAttention(6, 2, dropout=0.5))
    first, second = (module(X, X, X, need_weights=False)[0] for _ in range(2))
    module.step = 0
    assert same_bits(module(X, X, X, need_weights=False)[0], first) and not same_bits(first, second)
    module.eval()
    assert same_bits(module(X, X, X)[0], module(X, X, X)[0]) and module.step == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"is_causal": True}, "is_causal describes attn_mask"),
        ({"attn_mask": torch.zeros(5, 4)}, "attn_mask must have shape"),
        ({"key_padding_mask": torch.zeros(5, 2)}, "key_padding_mask must have shape"),
    ],
)
def test_bad_masks_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        MultiheadAttention(6, 2)(X, X, X, **arguments)


def test_unknown_precision_is_refused():
    with pytest.raises(InputError, match="unknown precision"):
        MultiheadAttention(6, 2, precision="low")
