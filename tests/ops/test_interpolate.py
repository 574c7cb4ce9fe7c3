import itertools
import math
from fractions import Fraction

import numpy as np
import pool_oracle
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.interpolate import interpolate

stock = torch.nn.functional
VECTORS = {**hard_vectors(24), **non_finite_vectors(24)}
# the input's shape, and interpolate's options
CASES = {
    "nearest": ((2, 2, 6), {"size": 4}),
    "nearest scale": ((1, 2, 3, 4), {"scale_factor": (1.7, 0.6)}),
    "nearest-exact": ((1, 2, 3, 4), {"size": (7, 3), "mode": "nearest-exact"}),
    "linear": ((2, 2, 6), {"size": 9, "mode": "linear"}),
    "linear from one": ((4, 6, 1), {"size": 70, "mode": "linear"}),
    "bilinear": ((1, 2, 3, 4), {"size": (5, 2), "mode": "bilinear"}),
    "bilinear corners": ((1, 2, 3, 4), {"size": (7, 1), "mode": "bilinear", "align_corners": True}),
    "bilinear scale": ((1, 2, 3, 4), {"scale_factor": 2.3, "mode": "bilinear"}),
    "bilinear recomputed": ((1, 2, 3, 4), {"scale_factor": 2.3, "mode": "bilinear", "recompute_scale_factor": True}),
    "bicubic": ((1, 2, 3, 4), {"size": (4, 7), "mode": "bicubic"}),
    "bicubic corners": ((1, 2, 3, 4), {"size": (2, 9), "mode": "bicubic", "align_corners": True}),
    "bicubic scale": ((1, 2, 3, 4), {"scale_factor": (0.7, 1.9), "mode": "bicubic"}),
    "trilinear": ((1, 1, 2, 3, 4), {"size": (3, 2, 5), "mode": "trilinear"}),
}
each_case = pytest.mark.parametrize(("shape", "options"), CASES.values(), ids=CASES)


def keys(distance):
    """Keys' kernel for a = -3/4."""
    a, d = Fraction(-3, 4), abs(distance)
    if d < 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else Fraction(0)


def tent(distance):
    return max(1 - abs(distance), Fraction(0))


def reads(mode, size, out, scale, corners):
    """(input, weight) pairs of each output of an axis, from the kernel's values at exact distances."""
    step = Fraction(size, out) if scale is None else 1 / Fraction(scale)
    if mode.startswith("nearest"):
        shift = Fraction(int(mode == "nearest-exact"), 2)
        return [[(min(math.floor((o + shift) * step), size - 1), None)] for o in range(out)]
    kernel, reach = (keys, 2) if mode == "bicubic" else (tent, 1)
    found = []
    for o in range(out):
        c = (o + Fraction(1, 2)) * step - Fraction(1, 2)
        c = Fraction(o * (size - 1), max(out - 1, 1)) if corners else c
        c = c if mode == "bicubic" else max(c, Fraction(0))
        around = range(math.floor(c) - reach + 1, math.floor(c) + reach + 1)
        found.append([(min(max(i, 0), size - 1), np.float32(float(kernel(c - i)))) for i in around])
    return found


@each_case
@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree_and_validate(name, shape, options):
    x = VECTORS[name].reshape(shape)
    reference, kernels = on_both_engines(values_and_grads, lambda t: interpolate(t, **options), x)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))
    if name not in ("normal", "cancellation", "subnormal", "spread", "nan"):
        return
    mode, sizes, outs = options.get("mode", "nearest"), shape[2:], reference[0].shape[2:]
    scale = None if options.get("recompute_scale_factor") else options.get("scale_factor")
    scales = scale if isinstance(scale, tuple) else (scale,) * len(sizes)
    corners = options.get("align_corners", False)
    axes = [reads(mode, *axis, corners) for axis in zip(sizes, outs, scales, strict=True)]
    with np.errstate(all="ignore"):
        y = x.numpy()
        for k in reversed(range(len(axes))):
            y = pool_oracle.resampled(y, 2 + k, axes[k])
        grad = torch.randn(reference[0].shape, generator=torch.Generator().manual_seed(0)).numpy()
        for k, (taps, size) in enumerate(zip(axes, sizes, strict=True)):
            grad = pool_oracle.resampled_gradient(grad, 2 + k, taps, size)
    assert same_bits(reference[0], torch.from_numpy(y), any_nan=True)
    assert same_bits(reference[1], torch.from_numpy(grad))


MODES = {"nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "linear": (1,), "bilinear": (2,), "bicubic": (2,)}
MODES |= {"trilinear": (3,), "area": (1, 2, 3)}
SIZES = [{"size": s} for s in (1, 3, 7)]
SIZES += [{"scale_factor": s, "recompute_scale_factor": r} for s in (2, 1.7, 0.6) for r in (None, True)]


@pytest.mark.parametrize(("mode", "dims"), [(mode, d) for mode, dims in MODES.items() for d in dims])
def test_corroborate_torch(mode, dims):
    aligned = (None,) if mode in ("nearest", "nearest-exact", "area") else (False, True)
    for shape, sizes, corners in itertools.product([(5, 4, 2), (1, 1, 3)], SIZES, aligned):
        x = torch.randn(2, 1, *shape[:dims], generator=torch.Generator().manual_seed(1))
        options = {**sizes, "mode": mode, "align_corners": corners}
        try:
            expected = values_and_grads(lambda t, o=options: stock.interpolate(t.double(), **o), x)
        except RuntimeError:
            with pytest.raises(InputError, match="leaves nothing"):
                interpolate(x, **options)
            continue
        ours = values_and_grads(lambda t, o=options: interpolate(t, **o), x)
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a.double(), b.double(), rtol=1e-5, atol=2e-6)


def test_corroborate_axes_that_keep_their_size():
    x = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    for mode, scale in itertools.product(("nearest", "bilinear", "nearest-exact"), (1.3, 2.2)):
        ours, theirs = (
            values_and_grads(lambda t, f=f, m=mode, s=scale: f(t, scale_factor=s, mode=m), x)
            for f in (interpolate, stock.interpolate)
        )
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)


def test_verify_strides_and_batches_do_not_matter():
    x = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(3))
    double = lambda t: interpolate(t, scale_factor=2, mode="bicubic")  # noqa: E731 used three times, below
    together = double(x)
    assert same_bits(double(x.to(memory_format=torch.channels_last)), together)
    assert all(same_bits(double(x[i : i + 1]), together[i : i + 1]) for i in range(3))
    assert double(x[:0]).shape == (0, 2, 8, 10)


def test_verify_the_order_of_axes_and_taps_shows():
    x = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(4))
    resize = lambda t: interpolate(t, size=(13, 11), mode="bicubic")  # noqa: E731 used three times, below
    y = resize(x)
    assert not same_bits(resize(x.flip(2, 3)).flip(2, 3), y)
    transposed = interpolate(x.transpose(2, 3), size=(11, 13), mode="bicubic").transpose(2, 3)
    assert not same_bits(transposed, y)
    torch.testing.assert_close(transposed, y)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 1, 4), {"size": 2, "antialias": True}, "antialias=True is not supported"),
        ((1, 1, 4), {"size": 2, "mode": "bilinear"}, "mode 'bilinear' is not one for shape"),
        ((1, 4), {"size": 2}, "wrong rank"),
        ((1, 1, 4), {"size": 2, "align_corners": True}, "align_corners is for the linear"),
        ((1, 1, 4), {}, "either size or scale_factor"),
        ((1, 1, 4), {"size": 2, "scale_factor": 2.0}, "either size or scale_factor"),
        ((1, 1, 4), {"size": 2, "recompute_scale_factor": True}, "is for scale_factor"),
        ((1, 1, 4), {"size": 2.5}, "must be positive"),
        ((1, 1, 4), {"size": 0}, "must be positive"),
        ((1, 1, 4), {"scale_factor": 0.1}, "leaves nothing"),
        ((1, 1, 4), {"scale_factor": float("inf")}, "must be finite"),
        ((1, 1, 0), {"size": 2}, "only the batch may be empty"),
    ],
)
def test_bad_arguments_are_refused(shape, options, message):
    with pytest.raises(InputError, match=message):
        interpolate(torch.zeros(shape), **options)
