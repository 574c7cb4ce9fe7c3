"""Launch plans for the checks in this folder; they live in the package, which ``dettriton bench`` also measures with."""

from dettriton.benchmarks.plans import DECLARED, PLANS, Plan, launched_by

__all__ = ["DECLARED", "PLANS", "Plan", "launched_by"]
