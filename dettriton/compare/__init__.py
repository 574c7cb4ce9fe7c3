"""Where two trainings parted: by what they recorded, and by running both again.

Names load on first use, so that asking for help does not import torch.
"""

import importlib

_HOMES = {
    "Side": "_sides",
    "open_side": "_sides",
    "read_chain": "_chain",
    "TraceComparison": "_chain",
    "Comparison": "_recorded",
    "compare": "_recorded",
    "PhaseDifference": "_phases",
    "ObservedRun": "_observed",
    "first_phase": "_phases",
    "Rerun": "_rerun",
    "rerun": "_rerun",
}

__all__ = [*_HOMES]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"dettriton.compare.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dettriton.compare' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOMES])
