"""Embedding modules: torch.nn's, computed by dettriton.ops."""

import torch

from dettriton.ops.embedding import embedding, embedding_bag


class Embedding(torch.nn.Embedding):
    """:class:`torch.nn.Embedding`, computed by :func:`dettriton.ops.embedding`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )


class EmbeddingBag(torch.nn.EmbeddingBag):
    """:class:`torch.nn.EmbeddingBag`, computed by :func:`dettriton.ops.embedding_bag`."""

    def forward(
        self,
        input: torch.Tensor,
        offsets: torch.Tensor | None = None,
        per_sample_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )
