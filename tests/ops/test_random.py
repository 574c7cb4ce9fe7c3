import mpmath
import pytest
import torch
from bits import on_both_engines, same_bits
from philox_oracle import stream_word

from dettriton.errors import InputError
from dettriton.exact.philox import Stream, random_bits
from dettriton.ops.random import bernoulli, rand, randint, randn, randperm

RNG = Stream(7, 3, 2**35 + 9)
DRAWS = {
    "rand": lambda **k: rand(3, 700, rng=RNG, **k),
    "randn": lambda **k: randn(1501, rng=RNG, **k),
    "randint": lambda **k: randint(-5, 2**31 - 6, (900,), rng=RNG, **k),
    "randperm": lambda **k: randperm(777, rng=RNG, **k),
    "bernoulli": lambda **k: bernoulli(rand(1100, rng=RNG.at(1)), rng=RNG, **k),
}
PIECEWISE = {"rand": rand, "randn": randn, "randint": lambda n, **k: randint(0, 99, (n,), **k)}


@pytest.mark.parametrize("op", DRAWS)
def test_verify_engines_agree(op):
    assert same_bits(*on_both_engines(DRAWS[op]))


@pytest.mark.parametrize("first", [0, 1, 2, 5, 333, 2**33 + 3])
@pytest.mark.parametrize(
    "draw", [rand, randn, lambda n, **k: randint(0, 99, (n,), **k)], ids=["rand", "randn", "randint"]
)
def test_verify_any_split_draws_the_same_numbers(draw, first):
    whole = draw(40, rng=RNG, offset=first)
    parts = torch.cat([draw(n, rng=RNG, offset=first + start) for start, n in ((0, 1), (1, 6), (7, 33))])
    assert same_bits(whole, parts)


def test_verify_shapes_do_not_matter():
    assert same_bits(rand(6, 35, rng=RNG).view(-1), rand((210,), rng=RNG))
    assert same_bits(randn(6, 35, rng=RNG).view(-1), randn(210, rng=RNG))


def test_validate_rand_and_bernoulli_in_python_integers():
    words = [stream_word(RNG.seed, RNG.stream, RNG.step, i) for i in range(64)]
    assert rand(64, rng=RNG).tolist() == [(w >> 8) / 2**24 for w in words]
    p = [i / 63 for i in range(64)]
    exact = torch.tensor(p).double().tolist()
    drawn = bernoulli(torch.tensor(p), rng=RNG).tolist()
    assert drawn == [float(w < int(q * 2**32)) for w, q in zip(words, exact, strict=True)]


def test_validate_randint_and_randperm_in_python_integers():
    words = random_bits(RNG, 200).tolist()
    long = [high << 32 | low for high, low in zip(words[::2], words[1::2], strict=True)]
    assert randint(-5, 1000, (100,), rng=RNG).tolist() == [(w * 1005 >> 64) - 5 for w in long]
    assert randperm(100, rng=RNG).tolist() == sorted(range(100), key=lambda i: (long[i], i))


def test_validate_randn_against_the_exact_transform():
    words = random_bits(RNG, 600).tolist()
    drawn = randn(600, rng=RNG).double().tolist()
    for i in range(0, 600, 2):
        u = mpmath.mpf(float(torch.tensor(words[i] + 1).float())) / 2**32
        angle = 2 * mpmath.pi * (words[i + 1] >> 8) / 2**24
        radius = mpmath.sqrt(-2 * mpmath.log(u))
        for value, exact in ((drawn[i], radius * mpmath.cos(angle)), (drawn[i + 1], radius * mpmath.sin(angle))):
            # The angle, up to 2 pi, is a rounded product with a rounded constant.
            assert abs(value - exact) <= 4 * 2.0**-24 * abs(exact) + 2.0**-21 * radius


def test_corroborate_moments():
    x = randn(200_000, rng=Stream(1)).double()
    assert abs(float(x.mean())) < 0.01 and abs(float(x.var()) - 1) < 0.01 and float(x.abs().max()) < 6.67
    assert abs(float(bernoulli(torch.full((100_000,), 0.3), rng=Stream(2)).mean()) - 0.3) < 0.01
    assert abs(float(rand(100_000, rng=Stream(3)).mean()) - 0.5) < 0.01


def test_a_permutation_has_every_number_once():
    assert randperm(1000, rng=RNG).sort().values.tolist() == list(range(1000))
    assert randperm(0, rng=RNG).tolist() == [] and randperm(1, rng=RNG).tolist() == [0]


def test_streams_differ():
    assert not same_bits(rand(50, rng=RNG), rand(50, rng=RNG.at(1)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rand(3, rng=None), "rng must be"),
        (lambda: rand(-3, rng=RNG), "size must be"),
        (lambda: rand(3, rng=RNG, dtype=torch.float64), "results are torch.float32"),
        (lambda: randn(3, rng=RNG, offset=-1), "offset must be"),
        (lambda: randint(3, 3, (2,), rng=RNG), "high - low must be"),
        (lambda: bernoulli(torch.tensor([1.5]), rng=RNG), "every probability"),
        (lambda: bernoulli(torch.tensor([float("nan")]), rng=RNG), "every probability"),
        (lambda: randperm(-1, rng=RNG), "size must be"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
