"""Multi-head attention: torch.nn's, computed by dettriton.ops."""

import math
from typing import Any

import torch

from dettriton.errors import InputError
from dettriton.nn._precision import check_precision
from dettriton.nn._random import Drawing
from dettriton.ops._broadcast import expand
from dettriton.ops.attention import scaled_dot_product_attention
from dettriton.ops.dropout import dropout
from dettriton.ops.linear import linear
from dettriton.ops.matmul import matmul
from dettriton.ops.mean import mean
from dettriton.ops.softmax import softmax


class MultiheadAttention(Drawing, torch.nn.MultiheadAttention):
    """:class:`torch.nn.MultiheadAttention` by :func:`dettriton.ops.scaled_dot_product_attention`.

    Self-attention projects its input once, so that its gradient is one exact dot product over queries, keys and values;
    so does ``key is value``. Dropout's mask is a function of (seed, stream, step, element), as in
    :class:`dettriton.nn.Dropout`. With ``need_weights`` the same bits come from the composition of matmul, softmax and
    dropout, which holds the weights in memory; the average over heads is their exact sum over their number.

    Args:
        precision: that of all dot products.
        seed, stream: the key of this module's masks. ``step`` counts training forwards.
    """

    def __init__(self, *args: Any, precision: str = "high", seed: int = 0, stream: int = 0, **kwargs: Any) -> None:
        checked = check_precision(precision)
        super().__init__(*args, **kwargs)
        self.precision = checked
        self.seeded(seed, stream)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if is_causal and attn_mask is None:
            raise InputError("MultiheadAttention: is_causal describes attn_mask; pass the causal attn_mask too")
        batched = query.dim() == 3
        if not batched and key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        q, k, v = (self._heads(x, batched) for x in self._projected(query, key, value))
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if causal else self._mask(attn_mask, key_padding_mask, len(q), q.shape[2], k.shape[2])
        k, v, mask = self._with_extra_keys(k, v, mask)
        p, rng = self.dropout if self.training else 0.0, self.next_numbers(advance=self.training)
        weights = None
        if need_weights:
            weights = dropout(_weights(q, k, mask, self.precision), p, rng=rng)
            o = matmul(weights, v, precision=self.precision)
            weights = mean(weights, 1) if average_attn_weights else weights
        else:
            o = scaled_dot_product_attention(q, k, v, mask, p, causal, precision=self.precision, rng=rng)
        o = linear(o.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias, precision=self.precision)
        if not batched:
            return o.squeeze(0), weights if weights is None else weights.squeeze(0)
        return o if self.batch_first else o.transpose(0, 1), weights

    def _projected(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        if not self._qkv_same_embed_dim:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        elif query is key is value:
            return linear(query, self.in_proj_weight, self.in_proj_bias, precision=self.precision).chunk(3, -1)
        elif key is value:
            sizes = (self.embed_dim, 2 * self.embed_dim)
            of_query, of_rest = self.in_proj_weight.split(sizes)
            bias, rest = (None, None) if self.in_proj_bias is None else self.in_proj_bias.split(sizes)
            k, v = linear(key, of_rest, rest, precision=self.precision).chunk(2, -1)
            return linear(query, of_query, bias, precision=self.precision), k, v
        else:
            weights = self.in_proj_weight.chunk(3)
        parts = zip((query, key, value), weights, biases, strict=True)
        return tuple(linear(x, w, b, precision=self.precision) for x, w, b in parts)

    def _heads(self, x: torch.Tensor, batched: bool) -> torch.Tensor:
        """(batch, heads, length, width)."""
        if not batched:
            x = x.unsqueeze(0)
        elif not self.batch_first:
            x = x.transpose(0, 1)
        return x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _mask(
        self, pairs: torch.Tensor | None, padding: torch.Tensor | None, batch: int, queries: int, keys: int
    ) -> torch.Tensor | None:
        """Both masks as one for :func:`dettriton.ops.scaled_dot_product_attention`, whose bools mean the opposite."""
        if pairs is not None and pairs.shape == (batch * self.num_heads, queries, keys):
            pairs = pairs.unflatten(0, (batch, self.num_heads))
        elif pairs is not None and pairs.shape != (queries, keys):
            raise InputError(
                f"MultiheadAttention: attn_mask must have shape {(queries, keys)} or "
                f"{(batch * self.num_heads, queries, keys)}, got {tuple(pairs.shape)}"
            )
        if padding is not None and padding.shape != (batch, keys):
            raise InputError(
                f"MultiheadAttention: key_padding_mask must have shape {(batch, keys)}, got {tuple(padding.shape)}"
            )
        given = [m for m in (pairs, None if padding is None else padding[:, None, None]) if m is not None]
        if all(m.dtype == torch.bool for m in given):
            allowed = [~m for m in given]
            return allowed[0] & allowed[-1] if allowed else None
        shape = (batch, self.num_heads, queries, keys)
        first, *second = (expand(_added(m), shape) for m in given)
        return first + second[0] if second else first

    def _with_extra_keys(
        self, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        shape = (len(k), self.num_heads, 1, self.head_dim)
        extra = []
        if self.bias_k is not None:
            own = (x.view(1, self.num_heads, 1, self.head_dim) for x in (self.bias_k, self.bias_v))
            extra.append(tuple(expand(x, shape) for x in own))
        if self.add_zero_attn:
            extra.append((k.new_zeros(shape), v.new_zeros(shape)))
        for more_k, more_v in extra:
            k, v = torch.cat((k, more_k), 2), torch.cat((v, more_v), 2)
            if mask is not None:
                mask = torch.nn.functional.pad(mask, (0, 1), value=1 if mask.dtype == torch.bool else 0)
        return k, v, mask


def _added(mask: torch.Tensor) -> torch.Tensor:
    """A mask of torch.nn's as what is added to the scores."""
    if mask.dtype != torch.bool:
        return mask
    zeros = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    return zeros.masked_fill(mask, -math.inf)


def _weights(q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, precision: str) -> torch.Tensor:
    scale = torch.full((), 1.0 / math.sqrt(q.shape[-1]), dtype=torch.float32, device=q.device)
    s = matmul(q, k.transpose(-1, -2), precision=precision) * scale
    if mask is not None:
        s = s.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else s + expand(mask, s.shape)
    unseen = s == -math.inf
    empty = unseen.all(-1, keepdim=True)
    excluded = empty if mask is None or mask.dtype != torch.bool else empty | ~mask
    return softmax(s.masked_fill(empty, 0.0), -1).masked_fill(excluded, 0.0)
