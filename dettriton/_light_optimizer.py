"""torch's optimizer base class without the import of a compiler that nobody asked for."""

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def _light(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that torch keeps ``torch.compile`` out of, for which it imports all of ``torch._dynamo``: seconds of CPU.

    Where that is not loaded nothing can be compiling, and the method itself is called.
    """
    plain = inspect.unwrap(method)

    @wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (method if "torch._dynamo" in sys.modules else plain)(*args, **kwargs)

    return call


class LightOptimizer(torch.optim.Optimizer):
    """:class:`torch.optim.Optimizer` in everything but the time of its first calls."""

    add_param_group = _light(torch.optim.Optimizer.add_param_group)
    load_state_dict = _light(torch.optim.Optimizer.load_state_dict)
    state_dict = _light(torch.optim.Optimizer.state_dict)
    zero_grad = _light(torch.optim.Optimizer.zero_grad)
