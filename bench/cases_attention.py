"""Cases of attention."""

from __future__ import annotations

from functools import partial

import torch
from op_case import Case, case, hard

from dettriton.exact.philox import Stream
from dettriton.ops.attention import scaled_dot_product_attention as attention

OP = "scaled_dot_product_attention"
HEADS = {"query": (2, 2, 5, 7), "key": (2, 2, 9, 7), "value": (2, 2, 9, 3)}
LEAVES = "query key value"


def _seeing(count: int, queries: int, keys: int) -> torch.Tensor:
    return (torch.arange(queries)[:, None] * 3 + torch.arange(keys)) % count != 0


CASES: list[Case] = [
    case(OP, "plain", attention, LEAVES, **HEADS),
    case(OP, "medium", partial(attention, precision="medium"), LEAVES, **HEADS),
    case(OP, "causal", partial(attention, is_causal=True), LEAVES, **HEADS),
    case(OP, "bool mask", attention, LEAVES, **HEADS, attn_mask=lambda key: _seeing(3, 5, 9)),
    case(OP, "float mask", attention, f"{LEAVES} attn_mask", **HEADS, attn_mask=(5, 9)),
    case(OP, "dropout", partial(attention, dropout_p=0.3, rng=Stream(3, 1, 4)), LEAVES, **HEADS),
    case(
        OP,
        "repeated heads",
        partial(attention, enable_gqa=True),
        LEAVES,
        query=(1, 4, 3, 8),
        key=(1, 2, 6, 8),
        value=(1, 2, 6, 8),
    ),
    case(OP, "wider than a tile", attention, LEAVES, query=(1, 40, 70), key=(1, 70, 70), value=(1, 70, 33)),
    *(
        case(OP, f"hard {kind}", attention, LEAVES, query=hard(kind, 1, 4, 6), key=(1, 5, 6), value=(1, 5, 3))
        for kind in ("cancellation", "huge", "subnormal", "nan")
    ),
]
