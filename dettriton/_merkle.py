"""Merkle trees: one digest for a list, in which no entry can change, move or go."""

import hashlib
from collections.abc import Sequence

LEAF, NODE = b"\x00", b"\x01"


def merkle_root(entries: Sequence[bytes]) -> bytes:
    """The Merkle Tree Hash of RFC 6962 (Certificate Transparency), section 2.1, with SHA-256.

    The hash of one entry is ``SHA-256(0x00 || entry)``; of more, ``SHA-256(0x01 || left || right)``, where ``left`` is
    the hash of the first ``k`` entries, ``right`` of the others, and ``k`` the largest power of two below their number
    (so no entry is ever doubled). The two first bytes keep a node from being passed off as an entry. No entries at all
    give ``SHA-256`` of nothing.

    Returns:
        32 bytes.
    """
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(LEAF + entries[0]).digest()
    split = 1 << (len(entries) - 1).bit_length() - 1
    return hashlib.sha256(NODE + merkle_root(entries[:split]) + merkle_root(entries[split:])).digest()
