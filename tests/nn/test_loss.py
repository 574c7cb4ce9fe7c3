import inspect

import pytest
import torch
from bits import same_bits

from dettriton.nn import loss as ours
from dettriton.ops.bce import binary_cross_entropy
from dettriton.ops.ctc_loss import ctc_loss
from dettriton.ops.kl_div import kl_div
from dettriton.ops.mse_loss import l1_loss, mse_loss
from dettriton.ops.nll_loss import nll_loss
from dettriton.ops.smooth_l1_loss import huber_loss, smooth_l1_loss


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


PAIR = (randn(4, 3), randn(4, 3, seed=1))
LOG_PROBABILITIES = torch.log_softmax(PAIR[0], 1)
ROWS = (LOG_PROBABILITIES, torch.tensor([0, 2, 1, 1]))
CHANCES = (torch.sigmoid(PAIR[0]), torch.sigmoid(PAIR[1]))
SPOKEN = (torch.log_softmax(randn(6, 2, 4), 2), torch.tensor([[1, 3], [2, 2]]), (6, 5), (2, 2))
WEIGHT = torch.tensor([0.5, 1.0, 2.0])
LOSSES = [
    ("NLLLoss", nll_loss, {}, ROWS),
    ("NLLLoss", nll_loss, {"weight": WEIGHT, "ignore_index": 2, "reduction": "sum"}, ROWS),
    ("BCELoss", binary_cross_entropy, {"weight": WEIGHT}, CHANCES),
    ("BCELoss", binary_cross_entropy, {"reduction": "none"}, CHANCES),
    ("MSELoss", mse_loss, {}, PAIR),
    ("L1Loss", l1_loss, {"reduction": "sum"}, PAIR),
    ("SmoothL1Loss", smooth_l1_loss, {"beta": 0.4}, PAIR),
    ("HuberLoss", huber_loss, {"delta": 0.4, "reduction": "none"}, PAIR),
    ("KLDivLoss", kl_div, {"reduction": "batchmean"}, (LOG_PROBABILITIES, CHANCES[1])),
    ("KLDivLoss", kl_div, {"reduction": "sum", "log_target": True}, (LOG_PROBABILITIES, LOG_PROBABILITIES.flip(0))),
    ("CTCLoss", ctc_loss, {}, SPOKEN),
    ("CTCLoss", ctc_loss, {"blank": 0, "reduction": "none", "zero_infinity": True}, SPOKEN),
]


@pytest.mark.parametrize(
    ("name", "op", "options", "given"), LOSSES, ids=[f"{row[0]} {i}" for i, row in enumerate(LOSSES)]
)
def test_modules_are_the_ops_and_agree_with_torch(name, op, options, given):
    module, stock = getattr(ours, name)(**options), getattr(torch.nn, name)(**options)
    assert isinstance(module, type(stock)) and inspect.signature(type(module)) == inspect.signature(type(stock))
    loss = module(*given)
    assert same_bits(loss, op(*given, **options))
    torch.testing.assert_close(loss, stock(*given), rtol=1e-5, atol=1e-6)
