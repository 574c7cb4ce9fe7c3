"""Where two trainings parted: by what they recorded, and by running both again.

Names load on first use, so that asking for help does not import torch.
"""

from dettriton._lazy import lazy_names

_HOMES = {
    "Side": "_sides",
    "open_side": "_sides",
    "read_chain": "_chain",
    "TraceComparison": "_chain",
    "DetailDifference": "_details",
    "Comparison": "_recorded",
    "compare": "_recorded",
    "PhaseDifference": "_phases",
    "ObservedRun": "_observed",
    "first_phase": "_phases",
    "Rerun": "_rerun",
    "rerun": "_rerun",
}

__all__ = [*_HOMES]

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
