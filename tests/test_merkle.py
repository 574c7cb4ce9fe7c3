"""The Merkle tree hash against published vectors, and against a second construction of it."""

import hashlib

import pytest

from dettriton._merkle import merkle_root

# The inputs and roots that implementations of Certificate Transparency share as their test vectors.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def level_by_level(entries):
    """The same tree from its leaves upwards: a node without a neighbour moves up as it is."""
    level = [hashlib.sha256(b"\0" + e).digest() for e in entries]
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [hashlib.sha256(b"\1" + b"".join(pair)).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0]


@pytest.mark.parametrize(("count", "root"), [*enumerate(ROOTS)])
def test_verify_published_roots(count, root):
    assert merkle_root([bytes.fromhex(text) for text in INPUTS[:count]]).hex() == root


@pytest.mark.parametrize("count", [*range(1, 40), 127, 128, 129])
def test_verify_every_size_against_the_tree_from_below(count):
    entries = [hashlib.sha256(bytes([i])).digest() for i in range(count)]
    assert merkle_root(entries) == level_by_level(entries)


def test_verify_every_entry_its_place_and_their_number_matter():
    entries = [bytes([i]) * 32 for i in range(5)]
    changed = [[*entries[:i], b"x" * 32, *entries[i + 1 :]] for i in range(5)]
    others = [*changed, entries[::-1], entries[:4], [*entries, entries[-1]]]
    roots = {merkle_root(e) for e in [entries, *others]}
    assert len(roots) == 1 + len(others)


def test_verify_a_node_is_no_entry():
    left, right = (hashlib.sha256(b"\0" + e).digest() for e in (b"a", b"b"))
    assert merkle_root([b"a", b"b"]) != merkle_root([left + right])
    assert merkle_root([b"a", b"b"]) != hashlib.sha256(left + right).digest()
