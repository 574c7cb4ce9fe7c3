"""Exact twins of timm's models and blocks that compute something themselves, beyond calling their layers."""

import torch
from timm.models import _efficientnet_blocks, convnext, efficientnet, mobilenetv3, resnet, vision_transformer

from dettriton import nn, ops
from dettriton.models.med._timm_layers import TWINS, squeezed, twin_of
from dettriton.ops._broadcast import expand

__all__ = ["TWINS"]


@twin_of(_efficientnet_blocks.SqueezeExcite)
class SqueezeExcite(_efficientnet_blocks.SqueezeExcite):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate(self.conv_expand(self.act1(self.conv_reduce(squeezed(x)))))
        return x * expand(gate, x.shape)


@twin_of(convnext.ConvNeXtBlock)
class ConvNeXtBlock(convnext.ConvNeXtBlock):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.conv_dw(x)
        if self.use_conv_mlp:
            branch = self.mlp(self.norm(branch))
        else:
            branch = self.mlp(self.norm(branch.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        if self.gamma is not None:
            branch = branch * expand(self.gamma.view(1, -1, 1, 1), branch.shape)
        return self.drop_path(branch) + self.shortcut(x)


class _HeadDropout:
    """A model whose dropout before the classifier is a function call: here it is a module, which draws by (seed, step)."""

    def prepare_twin(self) -> None:
        self.head_dropout = nn.Dropout(self.drop_rate)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        x = self.head_dropout(self._pooled(x))
        return x if pre_logits else self.get_classifier()(x)

    def _pooled(self, x: torch.Tensor) -> torch.Tensor:
        return self.global_pool(x)


@twin_of(resnet.ResNet)
class ResNet(_HeadDropout, resnet.ResNet):
    pass


@twin_of(efficientnet.EfficientNet)
class EfficientNet(_HeadDropout, efficientnet.EfficientNet):
    pass


@twin_of(mobilenetv3.MobileNetV3)
class MobileNetV3(_HeadDropout, mobilenetv3.MobileNetV3):
    def _pooled(self, x: torch.Tensor) -> torch.Tensor:
        return self.flatten(self.act2(self.norm_head(self.conv_head(self.global_pool(x)))))


@twin_of(vision_transformer.VisionTransformer)
class VisionTransformer(vision_transformer.VisionTransformer):
    def _pos_embed(self, x: torch.Tensor) -> torch.Tensor:
        given = (token for token in (self.cls_token, self.reg_token) if token is not None)
        tokens = [expand(token, (len(x), *token.shape[1:])) for token in given]
        if self.pos_embed is None:
            return torch.cat((*tokens, x), 1)
        if self.no_embed_class:
            return self.pos_drop(torch.cat((*tokens, x + expand(self.pos_embed, x.shape)), 1))
        x = torch.cat((*tokens, x), 1)
        return self.pos_drop(x + expand(self.pos_embed, x.shape))

    def pool(self, x: torch.Tensor, pool_type: str | None = None) -> torch.Tensor:
        kind = self.global_pool if pool_type is None else pool_type
        if not kind:
            return x
        if kind == "token":
            return x[:, 0]
        tokens = x if self.pool_include_prefix else x[:, self.num_prefix_tokens :]
        if kind == "avgmax":
            return 0.5 * (ops.amax(tokens, 1) + ops.mean(tokens, 1))
        return {"avg": ops.mean, "max": ops.amax}[kind](tokens, 1)
