"""What a training commits itself to, so that any part of it can be checked alone. Reading it does not import torch."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from dettriton._merkle import merkle_root
from dettriton.errors import InputError, IntegrityError

CHOICE_TAG = b"dettriton-spot-1"

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Commitment:
    """A training cut into segments, with the digest of its state at each cut.

    Attributes:
        every: steps in a segment; the last one may be shorter.
        steps: of the whole training.
        leaves: :meth:`dettriton.train.segments.State.digest` at the end of each segment, in order.
        root: of the Merkle tree over the leaves' 32 bytes (:func:`dettriton._merkle.merkle_root`), as hexadecimal.
    """

    every: int
    steps: int
    leaves: tuple[str, ...]
    root: str

    @classmethod
    def of(cls, every: int, steps: int, leaves: tuple[str, ...]) -> "Commitment":
        """The commitment with the root of its leaves."""
        return cls(every, steps, leaves, root_of(leaves))

    @classmethod
    def parse(cls, content: Any, *, unfinished: bool = False) -> "Commitment":
        """JSON data that :meth:`to_dict` gave; the root is not compared with the leaves here.

        Args:
            content: the data.
            unfinished: accept the leaves of a training that is not at its end.

        Raises:
            InputError: it has another form.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(content, Mapping) or content.keys() != names:
            raise InputError(f"segments have the keys {', '.join(sorted(names))}")
        every, steps, leaves, root = (content[name] for name in ("every", "steps", "leaves", "root"))
        if not all(type(n) is int and 1 <= n < 2**53 for n in (every, steps)):
            raise InputError("every and steps of segments count steps from 1")
        if not isinstance(leaves, list) or not all(map(is_digest, (*leaves, root))):
            raise InputError("leaves and root of segments are digests of 64 lower-case hexadecimal digits")
        count = -(-steps // every)
        if len(leaves) != count and not (unfinished and len(leaves) < count):
            raise InputError(f"{steps} steps make {count} segments of {every}, not {len(leaves)}")
        return cls(every, steps, tuple(leaves), root)

    def to_dict(self) -> dict[str, Any]:
        """The commitment as JSON data."""
        return asdict(self) | {"leaves": list(self.leaves)}

    @property
    def count(self) -> int:
        """How many segments there are."""
        return len(self.leaves)

    def bounds(self, index: int) -> tuple[int, int]:
        """How many steps are done before segment ``index`` and after it."""
        return index * self.every, min((index + 1) * self.every, self.steps)

    def index_of(self, steps_done: int) -> int | None:
        """The segment that ends when so many steps are done; None if none does."""
        return next((i for i in range(self.count) if self.bounds(i)[1] == steps_done), None)

    def require_root(self, what: str) -> None:
        """Raise unless the root is that of the leaves.

        Raises:
            IntegrityError: it is not; ``what`` begins the sentence.
        """
        found = root_of(self.leaves)
        if found != self.root:
            raise IntegrityError(f"{what} commit to the root {self.root}, and the root of their leaves is {found}")


def root_of(leaves: tuple[str, ...]) -> str:
    """The Merkle root of digests, as hexadecimal."""
    return merkle_root([bytes.fromhex(leaf) for leaf in leaves]).hex()


def is_digest(value: object) -> bool:
    """Whether it is a SHA-256 digest as text."""
    return isinstance(value, str) and _HEX.fullmatch(value) is not None


def choose(root: str, seed: str, count: int, wanted: int) -> tuple[int, ...]:
    """Which segments a spot check takes, ascending: a function of the commitment and a public text alone.

    For ``i = 0, 1, ...`` take the first 8 bytes, big-endian, of ``SHA-256(tag || root || SHA-256(seed) || i)``: the tag
    is ``dettriton-spot-1`` in ASCII, the root has 32 bytes, the seed is hashed as UTF-8, ``i`` has 8 little-endian
    bytes. A number not below the largest multiple of ``count`` that 64 bits hold is passed over, so that the remainder
    modulo ``count`` favours no segment; a segment that is chosen already is passed over too.

    The seed has to come after the commitment and not from whoever made it, who could otherwise try commitments until
    a convenient choice comes out.

    Raises:
        InputError: the seed is not text, or more segments are wanted than there are.
    """
    if not isinstance(seed, str):
        raise InputError(f"the seed of a spot check is a text, not {type(seed).__name__}")
    if type(wanted) is not int or not 1 <= wanted <= count:
        raise InputError(f"there are {count} segments, so a spot check takes 1 to {count} of them, not {wanted}")
    try:
        prefix = CHOICE_TAG + bytes.fromhex(root) + hashlib.sha256(seed.encode()).digest()
    except UnicodeEncodeError:
        raise InputError("the seed of a spot check has no UTF-8 form; choose another text") from None
    limit, chosen, i = 2**64 - 2**64 % count, set[int](), 0
    while len(chosen) < wanted:
        number = int.from_bytes(hashlib.sha256(prefix + i.to_bytes(8, "little")).digest()[:8])
        if number < limit:
            chosen.add(number % count)
        i += 1
    return tuple(sorted(chosen))
