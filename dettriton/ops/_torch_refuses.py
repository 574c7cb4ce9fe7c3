"""What torch's deterministic mode refuses on a GPU, as its documentation lists it, and what to call here instead."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Refused:
    """An operation for which ``torch.use_deterministic_algorithms(True)`` raises an error on CUDA.

    Attributes:
        torch: its name in torch's documentation.
        when: the condition, empty for always.
        ours: ops of :mod:`dettriton.ops` that do the same with the same bits everywhere.
        instead: what to say where there is none.
    """

    torch: str
    when: str
    ours: tuple[str, ...]
    instead: str = ""


GRADIENT = "gradient"

REFUSED = (
    Refused("torch.nn.AvgPool3d", GRADIENT, ("avg_pool3d",)),
    Refused("torch.nn.AdaptiveAvgPool2d", GRADIENT, ("adaptive_avg_pool2d",)),
    Refused("torch.nn.AdaptiveAvgPool3d", GRADIENT, ("adaptive_avg_pool3d",)),
    Refused("torch.nn.AdaptiveMaxPool2d", GRADIENT, ("adaptive_max_pool2d",)),
    Refused("torch.nn.FractionalMaxPool2d", GRADIENT, ("fractional_max_pool2d",)),
    Refused("torch.nn.FractionalMaxPool3d", GRADIENT, ("fractional_max_pool3d",)),
    Refused("torch.nn.MaxUnpool1d", "", ("max_unpool1d",)),
    Refused("torch.nn.MaxUnpool2d", "", ("max_unpool2d",)),
    Refused("torch.nn.MaxUnpool3d", "", ("max_unpool3d",)),
    Refused("torch.nn.functional.interpolate", "gradient; linear, bilinear, bicubic, trilinear", ("interpolate",)),
    Refused("torch.nn.ReflectionPad1d", GRADIENT, ("pad",)),
    Refused("torch.nn.ReflectionPad2d", GRADIENT, ("pad",)),
    Refused("torch.nn.ReflectionPad3d", GRADIENT, ("pad",)),
    Refused("torch.nn.NLLLoss", "", ("nll_loss",)),
    Refused("torch.nn.CTCLoss", GRADIENT, ("ctc_loss",)),
    Refused("torch.nn.EmbeddingBag", "gradient; mode='max'", ("embedding_bag",)),
    Refused("torch.Tensor.put_", "accumulate=False", ("put",)),
    Refused("torch.Tensor.put_", "accumulate=True", ("put",)),
    Refused("torch.histc", "", ("histc",)),
    Refused("torch.bincount", "with weights", ("bincount",)),
    Refused("torch.median", "with indices", ("median",)),
    Refused("torch.nn.functional.grid_sample", GRADIENT, ("grid_sample",)),
    Refused("torch.Tensor.scatter_reduce", "reduce='prod'", ("scatter_reduce",)),
    Refused("torch.Tensor.resize_", "quantized: leaves memory unwritten", (), "nothing to compute"),
)
"""One row for each entry of the list in torch 2.14; a test compares it with the list of the torch installed.

Older versions also list ``kthvalue`` and ``cumsum``, which are here too.
"""
