"""Functions with the names and signatures of ``torch.nn.functional``, and the same bits on every engine."""

from dettriton.ops.activation import elu, hardsigmoid, hardswish, leaky_relu, relu6
from dettriton.ops.adaptive_max_pool import adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d
from dettriton.ops.addmm import addmm, baddbmm
from dettriton.ops.attention import scaled_dot_product_attention
from dettriton.ops.avg_pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
)
from dettriton.ops.batch_norm import batch_norm
from dettriton.ops.batch_norm_relu import batch_norm_relu
from dettriton.ops.bce import binary_cross_entropy, binary_cross_entropy_with_logits
from dettriton.ops.bincount import bincount, histc
from dettriton.ops.bmm import bmm
from dettriton.ops.conv import conv1d, conv2d, conv3d
from dettriton.ops.conv_act import conv1d_act, conv2d_act, conv3d_act
from dettriton.ops.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from dettriton.ops.cross_entropy import cross_entropy
from dettriton.ops.ctc_loss import ctc_loss
from dettriton.ops.cumprod import cumprod
from dettriton.ops.cumsum import cumsum
from dettriton.ops.dropout import dropout
from dettriton.ops.einsum import einsum
from dettriton.ops.elementary import erf, exp, exp2, expm1, log, log1p, log2, sigmoid, tanh
from dettriton.ops.embedding import embedding, embedding_bag
from dettriton.ops.extrema import amax, amin, argmax, argmin, max, min
from dettriton.ops.fractional_max_pool import fractional_max_pool2d, fractional_max_pool3d
from dettriton.ops.gather import gather, index_select
from dettriton.ops.grid_sample import grid_sample
from dettriton.ops.group_norm import group_norm, instance_norm
from dettriton.ops.index_add import index_add
from dettriton.ops.index_put import index_copy, index_put, put
from dettriton.ops.interpolate import interpolate
from dettriton.ops.kl_div import kl_div
from dettriton.ops.layer_norm import layer_norm
from dettriton.ops.linear import linear
from dettriton.ops.linear_act import linear_act
from dettriton.ops.logsumexp import logsumexp
from dettriton.ops.matmul import matmul
from dettriton.ops.max_pool import max_pool1d, max_pool2d, max_pool3d
from dettriton.ops.max_unpool import max_unpool1d, max_unpool2d, max_unpool3d
from dettriton.ops.mean import mean
from dettriton.ops.median import kthvalue, median, nanmedian
from dettriton.ops.mse_loss import l1_loss, mse_loss
from dettriton.ops.nll_loss import nll_loss
from dettriton.ops.norm import norm
from dettriton.ops.pad import pad
from dettriton.ops.power import pow, rsqrt, sqrt
from dettriton.ops.prod import prod
from dettriton.ops.random import bernoulli, rand, randint, randn, randperm
from dettriton.ops.relu import relu
from dettriton.ops.rms_norm import rms_norm
from dettriton.ops.scatter import scatter, scatter_add, scatter_reduce
from dettriton.ops.smooth_activation import gelu, glu, mish, silu, softplus
from dettriton.ops.smooth_l1_loss import huber_loss, smooth_l1_loss
from dettriton.ops.softmax import log_softmax, softmax
from dettriton.ops.sum import sum
from dettriton.ops.trigonometric import atan, cos, sin, tan
from dettriton.ops.var import std, std_mean, var, var_mean

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "addmm",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "atan",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "baddbmm",
    "batch_norm",
    "batch_norm_relu",
    "bernoulli",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "bincount",
    "bmm",
    "conv1d",
    "conv1d_act",
    "conv2d",
    "conv2d_act",
    "conv3d",
    "conv3d_act",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cos",
    "cross_entropy",
    "ctc_loss",
    "cumprod",
    "cumsum",
    "dropout",
    "einsum",
    "elu",
    "embedding",
    "embedding_bag",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "gather",
    "gelu",
    "glu",
    "grid_sample",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "histc",
    "huber_loss",
    "index_add",
    "index_copy",
    "index_put",
    "index_select",
    "instance_norm",
    "interpolate",
    "kl_div",
    "kthvalue",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_act",
    "log",
    "log1p",
    "log2",
    "log_softmax",
    "logsumexp",
    "matmul",
    "max",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "mean",
    "median",
    "min",
    "mish",
    "mse_loss",
    "nanmedian",
    "nll_loss",
    "norm",
    "pad",
    "pow",
    "prod",
    "put",
    "rand",
    "randint",
    "randn",
    "randperm",
    "relu",
    "relu6",
    "rms_norm",
    "rsqrt",
    "scaled_dot_product_attention",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "sigmoid",
    "silu",
    "sin",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "sqrt",
    "std",
    "std_mean",
    "sum",
    "tan",
    "tanh",
    "var",
    "var_mean",
]
