"""Studies: one recipe under several initialisations, orders and seeds, and what can be said of the results.

Names load on first use, so that making a plan does not import torch.
"""

from dettriton._lazy import lazy_names

_HOMES = {
    "Arm": "_plan",
    "Plan": "_plan",
    "PlannedRun": "_plan",
    "make_plan": "_plan",
    "run_study": "_runner",
    "Results": "_results",
    "load_results": "_results",
    "Summary": "_summary",
    "summarise": "_summary",
    "print_tables": "_tables",
    "write_report": "_report",
    "draw": "_plots",
}

__all__ = [*_HOMES]

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
